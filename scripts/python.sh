# shellcheck shell=bash
# A Python with Google's own BigQuery clients, for the test that lets them talk to the local BigQuery. Sourced by ./dev.

python_packages=connectors/local-bigquery/tests/python/requirements.txt

# Makes it where it is missing or its packages have changed, and says where it is: TXCONNECT_PYTHON.
require_google_clients() {
  [[ -z ${TXCONNECT_PYTHON:-} ]] || return 0
  require "python3:has_command python3:Python 3" "python3-venv:python_makes_environments:Python's venv and ensurepip"
  local environment=${CARGO_TARGET_DIR:-$root/target}/python
  if ! cmp --silent "$python_packages" "$environment/installed.txt"; then
    say "installing Google's BigQuery clients for Python into $environment"
    rm -rf "$environment"
    python3 -m venv "$environment"
    "$environment/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps \
      --requirement "$python_packages" >&2 || die "pip could not install $python_packages; see above"
    cp "$python_packages" "$environment/installed.txt"
  fi
  export TXCONNECT_PYTHON=$environment/bin/python
}

python_makes_environments() { python3 -c 'import ensurepip, venv' 2>/dev/null; }
