# shellcheck shell=bash
# Measures txconnect beside the limits and the rivals. Sourced by ./dev. See docs/benchmarks.md.
#
# Everything lies in target/bench, the servers' files too; results.jsonl and the contenders' logs stay.
: "${root:?the folder of the clone}"

bench() {
  if [[ ${1:-} = wasm ]]; then
    shift
    bench_wasm "$@"
    return
  fi
  require_build_tools
  require_services
  require "kcat:has_command kcat:kcat" "postgresql-client:has_command psql:psql"
  bench_build
  build_example_transforms
  # Says what is wrong with the arguments before anything is started.
  local contenders
  contenders=$("$bench_tool" "$@" --list)
  local argument
  for argument in "$@"; do
    case $argument in
      --list | -h | --help)
        exec "$bench_tool" "$@"
        ;;
    esac
  done

  mkdir -p "$root/target/bench"
  local lock
  exec {lock}>"$root/target/bench/lock"
  flock --nonblock "$lock" || die "another ./dev bench is running in this clone"
  if grep --quiet '^bigquery-old-way' <<<"$contenders"; then
    bench_fetch_python
  fi
  trap 'bench_stop_servers' EXIT
  trap 'exit 130' INT
  trap 'exit 143' TERM
  trap 'exit 129' HUP
  bench_start_servers
  cp "$root/transforms/examples/mask_account/mask_account.wasm" "$root/target/bench/"
  rm -f "$root"/target/bench/{*.log,perf-*.data,results.jsonl}
  BENCH_FOLDER=$root/target/bench BENCH_TXCONNECT=$bench_txconnect "$bench_tool" "$@"
  rm -f "$root/target/bench/records.tsv"
}

# Transforms: one call, the whole stage, every language, and a pipeline with and without one.
bench_wasm() {
  require_build_tools
  build_example_transforms
  build_script_transforms
  cargo bench --locked --package txconnect-transform-host --bench host
  cargo bench --locked --package txconnect --bench transforms
  bench --only wasm "$@"
}

# Sets bench_tool and bench_txconnect. What is measured is built as for use: with BENCH_PROFILE=release it is the binary
# of the tests, which needs no second build of all dependencies.
bench_build() {
  local target=${CARGO_TARGET_DIR:-$root/target} profile=${BENCH_PROFILE:-tuned}
  cargo build --release --locked --package txconnect --example bench
  cargo build --profile "$profile" --locked --package txconnect --bin txconnect
  bench_tool=$target/release/examples/bench
  bench_txconnect=$target/$profile/txconnect
}

# Fetches what the old way into BigQuery needs, once for each list of it.
bench_fetch_python() {
  local wanted=$root/examples/bench/old_way/requirements.txt
  export BENCH_PYTHON=$root/target/bench/python/bin/python
  cmp --silent "$wanted" "$root/target/bench/python/requirements.txt" && return
  require "python3:has_command python3:Python 3" "python3-venv:python_makes_environments:Python's venv"
  say "fetching the Python libraries of the old way"
  rm -rf "$root/target/bench/python"
  python3 -m venv "$root/target/bench/python"
  "$BENCH_PYTHON" -m pip install --quiet --disable-pip-version-check --requirement "$wanted"
  cp "$wanted" "$root/target/bench/python/"
}

# Servers of its own, empty: what other work leaves in the shared ones would be measured too.
bench_start_servers() {
  local jars
  kafka_fetch
  jars=$(kafka_jars)
  services=$root/target/bench/servers
  mkdir -p "$services"
  ln -sfn "$jars" "$services/${jars##*/}"
  # The names of all files follow from the folder.
  # shellcheck source=scripts/kafka.sh
  source "$root/scripts/kafka.sh"
  # shellcheck source=scripts/postgres.sh
  source "$root/scripts/postgres.sh"
  # A bench that was killed leaves its servers.
  bench_stop_servers
  service_start PostgreSQL postgres
  bench_tune_postgres
  service_start Kafka kafka

  # The contenders' scripts use psql and the like. Nobody needs the password.
  export KAFKA_BROKERS KAFKA_PID PG_URL POSTGRES_PID PGHOST=127.0.0.1 PGPORT PGUSER=postgres PGDATABASE=postgres
  KAFKA_BROKERS=$(kafka_brokers)
  KAFKA_PID=$(pid_of "$kafka_pid_file")
  read -r PGPORT <"$postgres_port_file"
  PG_URL=postgresql://$PGUSER@$PGHOST:$PGPORT/$PGDATABASE
  POSTGRES_PID=$(pid_of "$postgres_pid_file")
}

bench_stop_servers() {
  kafka_stop
  postgres_stop
}

# Its settings need a new start. Some rivals cannot be given a password, so none is asked for on this machine.
bench_tune_postgres() {
  local data
  data=$(readlink --canonicalize "$postgres_folder")/data
  stop_process "$postgres_pid_file" INT 15
  cat "$root/scripts/bench/postgres.conf" >>"$data/postgresql.conf"
  printf '%s\n' 'host all all 127.0.0.1/32 trust' >"$data/pg_hba.conf"
  postgres_run
  wait_until 30 postgres_answers || die "PostgreSQL did not start; see $postgres_log"
}
