# shellcheck shell=bash
# PgBouncer in transaction mode in front of the PostgreSQL. Sourced by scripts/services.sh.
: "${services:?the folder for everything}"
: "${postgres_folder:?scripts/postgres.sh comes first}" "${postgres_port_file:?scripts/postgres.sh comes first}"

pgbouncer_log=$services/pgbouncer.log
pgbouncer_pid_file=$services/pgbouncer.pid
pgbouncer_port_file=$services/pgbouncer.port

# Debian keeps it out of the PATH of ordinary users.
pgbouncer_program() { PATH=$PATH:/usr/sbin command -v pgbouncer; }

# Starts in front of the PostgreSQL that runs and returns without waiting. Its files lie with those of the PostgreSQL,
# whose user it runs as: PgBouncer, too, refuses to run as root.
pgbouncer_launch() {
  local folder port server_port password
  folder=$(readlink --canonicalize "$postgres_folder")/pgbouncer
  port=$(free_port)
  read -r server_port <"$postgres_port_file" || return 1
  password=$(cat "$postgres_folder/password") || return 1
  rm -rf "$folder"
  (
    umask 077
    mkdir "$folder"
    printf '"postgres" "%s"\n' "$password" >"$folder/users"
    # Everything that is not named is PgBouncer's default: that is what most users have.
    printf '%s\n' \
      '[databases]' \
      "postgres = host=127.0.0.1 port=$server_port" \
      '[pgbouncer]' \
      "listen_addr = 127.0.0.1" \
      "listen_port = $port" \
      "unix_socket_dir =" \
      "auth_type = scram-sha-256" \
      "auth_file = $folder/users" \
      "pool_mode = transaction" \
      "max_client_conn = 300" >"$folder/pgbouncer.ini"
  ) || return 1
  postgres_give "$folder"
  printf '%s\n' "$port" >"$pgbouncer_port_file"
  : >"$pgbouncer_log"
  postgres_start_detached "$pgbouncer_pid_file" "$pgbouncer_log" "$(pgbouncer_program)" "$folder/pgbouncer.ini"
}

pgbouncer_url() { postgres_url "$pgbouncer_port_file"; }

# Whether it takes connections; the PostgreSQL behind it is asked by itself.
pgbouncer_answers() {
  local port
  is_running "$pgbouncer_pid_file" && read -r port <"$pgbouncer_port_file" || return 1
  "$(postgres_programs)/pg_isready" --quiet --host=127.0.0.1 --port="$port" --username=postgres --timeout=2
}

# Transactions that are under way are cut.
pgbouncer_stop() {
  stop_process "$pgbouncer_pid_file" TERM 10
  rm -f "$pgbouncer_port_file"
}
