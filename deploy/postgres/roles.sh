#!/bin/bash
# The roles and databases of docker-compose.yml. The image of PostgreSQL runs this once, on an empty volume.
#
#   txconnect    owns the database `transactions`, and nothing else
#   dashboards   reads the tables that txconnect makes there: what Metabase asks with
#   metabase     owns the database `metabase`, where Metabase keeps its own things
set -euo pipefail

psql --no-psqlrc --quiet --set=ON_ERROR_STOP=1 --username="${POSTGRES_USER:-postgres}" --dbname=postgres \
  --set=txconnect_password="${TXCONNECT_DB_PASSWORD:?}" \
  --set=dashboards_password="${DASHBOARDS_DB_PASSWORD:?}" \
  --set=metabase_password="${METABASE_DB_PASSWORD:?}" <<'SQL'
CREATE ROLE txconnect LOGIN PASSWORD :'txconnect_password';
CREATE ROLE dashboards LOGIN PASSWORD :'dashboards_password';
CREATE ROLE metabase LOGIN PASSWORD :'metabase_password';
CREATE DATABASE transactions OWNER txconnect;
CREATE DATABASE metabase OWNER metabase;
REVOKE ALL ON DATABASE transactions FROM PUBLIC;
REVOKE ALL ON DATABASE metabase FROM PUBLIC;
GRANT CONNECT ON DATABASE transactions TO dashboards;
\connect transactions
ALTER DEFAULT PRIVILEGES FOR ROLE txconnect GRANT SELECT ON TABLES TO dashboards;
SQL
