# shellcheck shell=bash
# Processes that outlive the script which started them. Sourced by scripts/services.sh.
#
# A pid file holds "PID START_TIME". A process is ours only while both are true: a number alone may have been given to
# another process since.

# Starts COMMAND in a session of its own, without terminal and without any file descriptor of the caller.
start_detached() { # PID_FILE LOG COMMAND...
  local pid_file=$1 log=$2 pid
  shift 2
  (
    local fd
    for fd in /proc/"$BASHPID"/fd/*; do
      fd=${fd##*/}
      # Bash reads this script through 255, which it does not pass on.
      ((fd <= 2 || fd == 255)) || exec {fd}>&-
    done
    # From here on an interrupted caller finds the process. It is no group leader, so setsid keeps its id.
    write_pid_file "$pid_file" "$BASHPID"
    exec setsid "$@" </dev/null >>"$log" 2>&1
  ) &
  pid=$!
  # Whoever comes first: the caller looks at the file right after this.
  write_pid_file "$pid_file" "$pid"
}

write_pid_file() { # PID_FILE PID
  printf '%s %s\n' "$2" "$(start_time_of "$2")" >"$1.$BASHPID"
  mv -f "$1.$BASHPID" "$1"
}

# Clock ticks from boot to the start of a process; empty when there is none, or when it has ended and is not yet collected.
start_time_of() { # PID
  local stat fields
  stat=$(cat "/proc/$1/stat" 2>/dev/null) || return 0
  # The name, in parentheses, may hold anything; what follows starts with the state, field 3 of 22.
  read -r -a fields <<<"${stat##*) }"
  [[ ${fields[0]} = Z ]] || printf '%s' "${fields[19]}"
}

# Prints the process id when the process of a pid file lives.
pid_of() { # PID_FILE
  local pid start_time
  read -r pid start_time 2>/dev/null <"$1" || return 1
  [[ -n $start_time && $(start_time_of "$pid") = "$start_time" ]] || return 1
  printf '%s' "$pid"
}

is_running() { [[ -e $1 ]] && pid_of "$1" >/dev/null; } # PID_FILE

is_ended() { ! is_running "$1"; } # PID_FILE

processes_are_gone() { # PID...
  local pid
  for pid in "$@"; do
    [[ -z $(start_time_of "$pid") ]] || return 1
  done
}

# Asks a process to end, waits, and then ends it.
stop_process() { # PID_FILE SIGNAL SECONDS
  local pid
  if is_running "$1" && pid=$(pid_of "$1"); then
    kill -s "$2" "$pid" 2>/dev/null || true
    if ! wait_until "$3" is_ended "$1"; then
      say "process $pid did not end within $3 s: killing it"
      kill -s KILL "$pid" 2>/dev/null || true
      wait_until 10 is_ended "$1" || die "process $pid cannot be ended; is it another user's?"
    fi
  fi
  rm -f "$1"
}

# Repeats a command until it succeeds.
wait_until() { # SECONDS COMMAND...
  local deadline=$((SECONDS + $1))
  shift
  until "$@" >/dev/null 2>&1; do
    ((SECONDS < deadline)) || return 1
    sleep 0.1
  done
}

# Prints a port on which nobody listens, below the range from which the kernel takes the ports of outgoing connections.
# Somebody may take it before its user does: the starts of the services try again then.
free_port() {
  local port
  while true; do
    port=$((20000 + (RANDOM * 32768 + RANDOM) % 12000))
    (: <>"/dev/tcp/127.0.0.1/$port") 2>/dev/null || break
  done
  printf '%s' "$port"
}
