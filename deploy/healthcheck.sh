#!/bin/sh
# Is txconnect in touch with Kafka? The health check of the image.
#
# Healthy means: this container has an established TCP connection to a port of KAFKA_BROKERS (default localhost:9092).
# librdkafka keeps such a connection as long as a pipeline runs and a broker answers. It says nothing about the sink: a
# pipeline whose sink is away is meant to wait, and killing it would not help. A source thread that hangs ends the
# process by itself.
#
# Brokers that advertise other ports than those in KAFKA_BROKERS: name the ports in TXCONNECT_HEALTH_PORTS, with spaces.
# TXCONNECT_HEALTH_TABLES, the kernel's tables of connections, is there for the tests.
set -eu

ports=${TXCONNECT_HEALTH_PORTS:-}
if [ -z "$ports" ]; then
  for broker in $(printf '%s' "${KAFKA_BROKERS:-localhost:9092}" | tr ',' ' '); do
    # A host without a port means 9092, as it does for librdkafka; an IPv6 address stands in brackets.
    case $broker in
      *\]) ports="$ports 9092" ;;
      *:*) ports="$ports ${broker##*:}" ;;
      *) ports="$ports 9092" ;;
    esac
  done
fi

tables=${TXCONNECT_HEALTH_TABLES:-}
if [ -z "$tables" ]; then
  tables=/proc/net/tcp
  # Not there where the kernel was told to do without IPv6.
  [ ! -e /proc/net/tcp6 ] || tables="$tables /proc/net/tcp6"
fi

# In these tables the third column is ADDRESS:PORT of the other side in hexadecimal, and the fourth is 01 for ESTABLISHED.
# shellcheck disable=SC2086
awk -v ports="$ports" '
  BEGIN {
    count = split(ports, decimal, " ")
    for (i = 1; i <= count; i++) wanted[sprintf("%04X", decimal[i])] = 1
  }
  $4 == "01" {
    n = split($3, remote, ":")
    if (remote[n] in wanted) found = 1
  }
  END { exit !found }
' $tables || {
  echo "no connection to a Kafka broker on port$ports" >&2
  exit 1
}
