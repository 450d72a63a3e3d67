# shellcheck shell=bash
# One Apache Kafka broker. Sourced by scripts/services.sh.
: "${root:?the folder of the clone}" "${services:?the folder for everything}"

kafka_folder=$services/kafka
kafka_log=$services/kafka.log
kafka_pid_file=$services/kafka.pid
kafka_port_file=$services/kafka.port

kafka_java=(
  java -XX:-UsePerfData -XX:+ExitOnOutOfMemoryError
  -Dorg.slf4j.simpleLogger.defaultLogLevel=warn
  -Dorg.slf4j.simpleLogger.showDateTime=true
  "-Dorg.slf4j.simpleLogger.dateTimeFormat=yyyy-MM-dd HH:mm:ss.SSS"
)

# The folder's name changes with what is to be fetched, so another version is fetched anew.
kafka_jars() {
  local sum
  sum=$(sha256sum "$root/scripts/kafka-pom.xml")
  printf '%s/kafka-jars-%s' "$services" "${sum:0:12}"
}

kafka_is_fetched() { [[ -d $(kafka_jars) ]]; }

kafka_fetch() {
  local jars new
  jars=$(kafka_jars)
  [[ ! -d $jars ]] || return 0
  new=$jars.new
  rm -rf "$new"
  mkdir -p "$services"
  say "fetching Apache Kafka from Maven Central (44 MB)"
  mvn --quiet --batch-mode --strict-checksums -Dstyle.color=never --file "$root/scripts/kafka-pom.xml" \
    dependency:copy-dependencies -DincludeScope=runtime "-DoutputDirectory=$new" \
    </dev/null >"$services/maven.log" 2>&1 || {
    cat "$services/maven.log" >&2
    die "Maven could not fetch Kafka; is Maven Central within reach?"
  }
  mv "$new" "$jars"
}

# Starts on empty logs and returns without waiting.
kafka_launch() {
  local port controller_port jars
  jars=$(kafka_jars)
  port=$(free_port)
  controller_port=$(free_port)
  rm -rf "$kafka_folder"
  mkdir -p "$kafka_folder/tmp"
  {
    cat "$root/scripts/kafka.properties"
    printf '%s\n' \
      "listeners=PLAINTEXT://127.0.0.1:$port,CONTROLLER://127.0.0.1:$controller_port" \
      "advertised.listeners=PLAINTEXT://127.0.0.1:$port" \
      "controller.quorum.voters=1@127.0.0.1:$controller_port" \
      "log.dirs=$kafka_folder/logs"
  } >"$kafka_folder/server.properties"
  printf '%s\n' "$port" >"$kafka_port_file"
  : >"$kafka_log"
  "${kafka_java[@]}" -XX:TieredStopAtLevel=1 -cp "$jars/*" kafka.tools.StorageTool format \
    --cluster-id dHhjb25uZWN0LXRlc3RzIQ --config "$kafka_folder/server.properties" \
    </dev/null >>"$kafka_log" 2>&1 || return 1
  kafka_run
}

# Starts on the logs that are there and returns without waiting.
kafka_run() {
  start_detached "$kafka_pid_file" "$kafka_log" \
    "${kafka_java[@]}" -Xms256m -Xmx512m "-Djava.io.tmpdir=$kafka_folder/tmp" \
    -cp "$(kafka_jars)/*" kafka.Kafka "$kafka_folder/server.properties"
}

# Kafka is up once it answers a Metadata request (version 1, no topics, no client id) with a broker in the list: an
# open port comes earlier than a broker that its controller has accepted.
kafka_answers() {
  local port connection reply
  is_running "$kafka_pid_file" && read -r port <"$kafka_port_file" || return 1
  exec {connection}<>"/dev/tcp/127.0.0.1/$port" || return 1
  # length 14 · api key 3 · version 1 · correlation id 7 · null client id · no topics
  printf '\0\0\0\16\0\3\0\1\0\0\0\7\377\377\0\0\0\0' >&"$connection"
  # length · correlation id · number of brokers
  reply=$(timeout 2 head -c 12 <&"$connection" | od -An -tu1 | tr -s ' \n' ' ')
  exec {connection}>&-
  [[ $reply =~ \ 0\ 0\ 0\ 7\ 0\ 0\ 0\ 1\ $ ]]
}

kafka_brokers() { printf '127.0.0.1:%s' "$(cat "$kafka_port_file")"; }

# What may befall a broker, for the chaos tests. Its data and its port stay.
kafka_fault() { # freeze|thaw|restart|crash
  local pid
  [[ -e $kafka_folder/server.properties ]] || die "Kafka was never started: ./dev services start"
  case ${1:-} in
    freeze | thaw)
      pid=$(pid_of "$kafka_pid_file") || die "Kafka does not run"
      if [[ $1 = freeze ]]; then kill -s STOP "$pid"; else kill -s CONT "$pid"; fi
      ;;
    restart | crash)
      if [[ $1 = restart ]]; then
        stop_process "$kafka_pid_file" TERM 30
      else
        stop_process "$kafka_pid_file" KILL 10
      fi
      kafka_run
      wait_until 90 service_decided kafka || true
      kafka_answers 2>/dev/null || die "Kafka is not back; see $kafka_log"
      ;;
    *)
      say "usage: ./dev services broker freeze|thaw|restart|crash"
      exit 2
      ;;
  esac
}

# With the data going away there is nothing for Kafka to finish, but connected clients see an orderly end.
kafka_stop() {
  stop_process "$kafka_pid_file" TERM 15
  rm -rf "$kafka_folder" "$kafka_port_file"
}
