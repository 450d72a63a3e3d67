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
  ((!${#postgres_as[@]})) || chown -R postgres: "$folder"
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
    start_detached "$postgres_pid_file" "$postgres_log" \
      "${postgres_as[@]}" "$programs/postgres" -D "$folder/data"
  )
}

# The password was made by us and holds nothing that an address would have to escape.
postgres_url() {
  local port password
  read -r port <"$postgres_port_file"
  password=$(cat "$postgres_folder/password")
  printf 'postgresql://postgres:%s@127.0.0.1:%s/postgres' "$password" "$port"
}

postgres_answers() {
  local port
  is_running "$postgres_pid_file" && read -r port <"$postgres_port_file" || return 1
  "$(postgres_programs)/pg_isready" --quiet --host=127.0.0.1 --port="$port" --timeout=2
}

# INT is the fast shutdown, which does not wait for the clients to leave.
postgres_stop() {
  stop_process "$postgres_pid_file" INT 15
  postgres_remove_folder
  rm -f "$postgres_port_file"
}
