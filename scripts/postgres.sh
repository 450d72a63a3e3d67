# shellcheck shell=bash
# One PostgreSQL server. Sourced by scripts/services.sh.
: "${root:?the folder of the clone}" "${services:?the folder for everything}"

postgres_folder=$services/postgres
postgres_log=$services/postgres.log
postgres_pid_file=$services/postgres.pid
postgres_port_file=$services/postgres.port

# Prints the folder of the newest initdb: Debian keeps the server's programs out of PATH.
postgres_programs() {
  local folder newest=''
  while read -r folder; do
    [[ ! -x $folder/initdb ]] || newest=$folder
  done < <(printf '%s\n' /usr/lib/postgresql/*/bin | sort -V)
  if [[ -z $newest ]] && has_command initdb; then
    newest=$(dirname "$(command -v initdb)")
  fi
  printf '%s' "$newest"
}

# PostgreSQL refuses to run as root, so root starts it as the user that Debian's package makes.
postgres_as=()
if [[ $(id -u) = 0 ]]; then
  postgres_as=(setpriv --reuid=postgres --regid=postgres --init-groups)
fi

# Lets that user read and write a folder.
postgres_give() { # FOLDER
  ((!${#postgres_as[@]})) || chown -R postgres: "$1"
}

# Starts COMMAND as that user, from a folder that every user can enter.
postgres_start_detached() { # PID_FILE LOG COMMAND...
  (cd / && start_detached "$1" "$2" "${postgres_as[@]}" "${@:3}")
}

# Makes the folder of the server's data and password: below target/, or behind a link from there when the user postgres
# cannot enter this clone (one in /root). Prints its true path.
postgres_make_folder() {
  local folder=$postgres_folder
  mkdir -p "$folder" || return 1
  if ((${#postgres_as[@]})) && ! (cd / && "${postgres_as[@]}" test -x "$folder"); then
    rmdir "$folder" || return 1
    folder=$(mktemp -d /var/tmp/txconnect-postgres-XXXXXXXX) || return 1
    ln -s "$folder" "$postgres_folder" || return 1
  fi
  chmod 700 "$folder" || return 1
  printf '%s' "$folder"
}

postgres_remove_folder() {
  local target
  if [[ -L $postgres_folder ]]; then
    target=$(readlink "$postgres_folder")
    [[ $target != /var/tmp/txconnect-postgres-* ]] || rm -rf "$target"
  fi
  rm -rf "$postgres_folder"
}

# Starts with an empty database and returns without waiting.
postgres_launch() {
  local programs folder port
  programs=$(postgres_programs)
  port=$(free_port)
  postgres_remove_folder
  folder=$(postgres_make_folder) || return 1
  (umask 077 && od -An -N 16 -tx1 /dev/urandom | tr -d ' \n' >"$folder/password")
  postgres_give "$folder"
  printf '%s\n' "$port" >"$postgres_port_file"
  : >"$postgres_log"
  (
    # A folder that every user can enter: initdb comes back to it.
    cd /
    "${postgres_as[@]}" "$programs/initdb" --pgdata="$folder/data" --username=postgres \
      --pwfile="$folder/password" --auth=scram-sha-256 --encoding=UTF8 --locale=C --no-sync \
      </dev/null >>"$postgres_log" 2>&1 || exit 1
    {
      cat "$root/scripts/postgres.conf"
      printf '%s\n' "port = $port"
    } >>"$folder/data/postgresql.conf"
  ) || return 1
  postgres_run
}

# Starts on the data that is there and returns without waiting.
postgres_run() {
  postgres_start_detached "$postgres_pid_file" "$postgres_log" \
    "$(postgres_programs)/postgres" -D "$(readlink --canonicalize "$postgres_folder")/data"
}

# The password was made by us and holds nothing that an address would have to escape.
postgres_url() { # PORT_FILE
  local port password
  read -r port <"${1:-$postgres_port_file}"
  password=$(cat "$postgres_folder/password")
  printf 'postgresql://postgres:%s@127.0.0.1:%s/postgres' "$password" "$port"
}

postgres_answers() {
  local port
  is_running "$postgres_pid_file" && read -r port <"$postgres_port_file" || return 1
  "$(postgres_programs)/pg_isready" --quiet --host=127.0.0.1 --port="$port" --timeout=2
}

# The server process comes first: stopped or killed before the others, it starts no more of them.
postgres_processes() {
  local server fields file
  server=$(pid_of "$postgres_pid_file") || return 1
  printf '%s\n' "$server"
  for file in /proc/[0-9]*/stat; do
    # A process that has ended meanwhile is none of ours any more.
    fields=$(cat "$file" 2>/dev/null) || continue
    read -r -a fields <<<"${fields##*) }"
    [[ ${fields[1]} != "$server" ]] || printf '%s\n' "${file//[!0-9]/}"
  done
}

# Sends a signal to the server process and then to all others of the server.
postgres_signal() { # SIGNAL
  local pids
  mapfile -t pids < <(postgres_processes)
  ((${#pids[@]})) || die "PostgreSQL does not run"
  kill -s "$1" "${pids[0]}"
  mapfile -t pids < <(postgres_processes)
  # One of them may have ended since.
  kill -s "$1" "${pids[@]}" 2>/dev/null || true
}

# What may befall a database, for the chaos tests. Its data and its port stay. A crash ends every process at once, as a
# power failure would, but for what the kernel still writes.
postgres_fault() { # freeze|thaw|restart|crash
  local pids
  [[ -e $postgres_folder/data/PG_VERSION ]] || die "PostgreSQL was never started: ./dev services start"
  case ${1:-} in
    freeze) postgres_signal STOP ;;
    thaw) postgres_signal CONT ;;
    restart | crash)
      if [[ $1 = restart ]]; then
        # INT is the fast shutdown, which does not wait for the clients to leave.
        stop_process "$postgres_pid_file" INT 30
      else
        postgres_signal STOP
        mapfile -t pids < <(postgres_processes)
        kill -s KILL "${pids[@]}" 2>/dev/null || true
        stop_process "$postgres_pid_file" KILL 10
        # The next server would find the memory of this one still in use.
        wait_until 10 processes_are_gone "${pids[@]}" || die "processes of PostgreSQL cannot be ended: ${pids[*]}"
        # A killed process that nobody has collected yet looks alive to PostgreSQL.
        rm -f "$postgres_folder/data/postmaster.pid"
      fi
      postgres_run
      wait_until 90 service_decided postgres || true
      postgres_answers || die "PostgreSQL is not back; see $postgres_log"
      ;;
    *)
      say "usage: ./dev services database freeze|thaw|restart|crash"
      exit 2
      ;;
  esac
}

# INT is the fast shutdown, which does not wait for the clients to leave.
postgres_stop() {
  stop_process "$postgres_pid_file" INT 15
  postgres_remove_folder
  rm -f "$postgres_port_file"
}
