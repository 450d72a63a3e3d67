#!/bin/sh
# Makes the topics of data/ and fills them, once: publishing again would append every event a second time. What the
# Postgres pipeline writes by transaction_id would stay the same; rows that are appended, as into BigQuery, would double.
set -eu

done_file=${PUBLISHED_FILE:-/var/lib/txconnect/published}
if [ -e "$done_file" ]; then
  echo "data/ was published before; 'docker compose down --volumes' deletes the topics and this memory"
  exit 0
fi
# The transaction is the key, so that its events stay in order where tables are written by key.
txconnect publish --dir data/ --key transaction_id --partitions 3 --replication 1
: >"$done_file"
