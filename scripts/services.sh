# shellcheck shell=bash
# The servers that the tests need, one set per clone. Sourced by ./dev, which defines say and die.
#
# Everything lies in target/services, also where CARGO_TARGET_DIR is shared between clones:
#   env         KAFKA_BROKERS=…, PG_URL=… and PGBOUNCER_URL=…, there while the servers run
#   *.log       what the servers said, kept after they end
#   started-by  the pid file of the `./dev test` that started them and will stop them

services=${root:?the folder of the clone}/target/services

# shellcheck source=scripts/processes.sh
source "$root/scripts/processes.sh"
# shellcheck source=scripts/kafka.sh
source "$root/scripts/kafka.sh"
# shellcheck source=scripts/postgres.sh
source "$root/scripts/postgres.sh"
# shellcheck source=scripts/pgbouncer.sh
source "$root/scripts/pgbouncer.sh"

services_verb() {
  case ${1:-} in
    start)
      services_locked services_start
      rm -f "$services/started-by"
      say "Kafka, PostgreSQL and PgBouncer run; their addresses: eval \"\$(./dev services env)\""
      ;;
    stop) services_locked services_stop ;;
    status) services_status ;;
    env) services_env ;;
    broker) services_locked kafka_fault "${2:-}" ;;
    database) services_locked postgres_fault "${2:-}" ;;
    *)
      say "usage: ./dev services start|stop|status|env|broker|database"
      exit 2
      ;;
  esac
}

# One start or stop at a time in a clone. A start that is interrupted runs the stop under the lock it holds.
services_locked() { # COMMAND
  local lock
  if [[ -z ${services_lock:-} ]]; then
    mkdir -p "$services"
    exec {lock}>"$services/lock"
    flock --wait 180 "$lock" || die "another ./dev has been starting or stopping the services for three minutes"
    services_lock=$lock
  fi
  "$@"
  exec {services_lock}>&-
  services_lock=''
}

services_start() {
  require_services
  kafka_fetch
  if kafka_answers 2>/dev/null && postgres_answers && pgbouncer_answers && [[ -e $services/env ]]; then
    return
  fi
  rm -f "$services/env"
  # A new PostgreSQL has another port and another password.
  postgres_answers || pgbouncer_stop
  # PostgreSQL is up long before Kafka, which takes some seconds.
  service_start PostgreSQL postgres
  service_start PgBouncer pgbouncer
  service_start Kafka kafka
  services_write_env
}

# Leaves a service alone that answers, and starts any other on empty data. A port may be taken by somebody else between
# being found free and being bound.
service_start() { # TITLE NAME
  local attempt
  ! "$2_answers" 2>/dev/null || return 0
  for attempt in 1 2 3; do
    "$2_stop"
    say "starting $1"
    if "$2_launch" && wait_until 90 service_decided "$2" && "$2_answers" 2>/dev/null; then
      return
    fi
    grep -qiE 'address already in use|could not bind' "$services/$2.log" || break
    say "$1 lost its port to another process (attempt $attempt of 3)"
  done
  say "$1 did not start; the end of $services/$2.log:"
  tail -n 30 "$services/$2.log" >&2 || true
  "$2_stop"
  exit 1
}

# A service that has died will not answer any more.
service_decided() { "$1_answers" || is_ended "$services/$1.pid"; } # NAME

services_write_env() {
  (
    umask 077
    printf '%s\n' "KAFKA_BROKERS=$(kafka_brokers)" "PG_URL=$(postgres_url)" \
      "PGBOUNCER_URL=$(pgbouncer_url)" >"$services/env.new"
  )
  mv -f "$services/env.new" "$services/env"
}

services_stop() {
  rm -f "$services/env"
  kafka_stop
  pgbouncer_stop
  postgres_stop
  rm -f "$services/started-by"
}

services_status() {
  local healthy=0
  service_status Kafka kafka || healthy=1
  service_status PostgreSQL postgres || healthy=1
  service_status PgBouncer pgbouncer || healthy=1
  return "$healthy"
}

service_status() { # TITLE NAME
  local pid port
  if ! pid=$(pid_of "$services/$2.pid" 2>/dev/null); then
    printf '%-10s  stopped\n' "$1"
    return 1
  fi
  read -r port <"$services/$2.port"
  if "$2_answers" 2>/dev/null; then
    printf '%-10s  answers on 127.0.0.1:%s, process %s\n' "$1" "$port" "$pid"
  else
    printf '%-10s  does not answer on 127.0.0.1:%s, process %s, log %s\n' "$1" "$port" "$pid" "$services/$2.log"
    return 1
  fi
}

services_env() {
  [[ -e $services/env ]] || die "the services are not running: ./dev services start"
  sed 's/^/export /' "$services/env"
}

# For `./dev test`: servers that somebody started by hand stay; those of a test run that was killed are taken over.
services_start_for_this_run() {
  local keep=yes
  if ! services_status >/dev/null; then
    keep=no
  elif [[ -e $services/started-by ]] && is_ended "$services/started-by"; then
    keep=no
  fi
  if [[ $keep = no ]]; then
    mkdir -p "$services"
    write_pid_file "$services/started-by" "$$"
  fi
  services_locked services_start
}

services_stop_own() {
  local owner
  owner=$(pid_of "$services/started-by" 2>/dev/null) || return 0
  [[ $owner != "$$" ]] || services_locked services_stop
}
