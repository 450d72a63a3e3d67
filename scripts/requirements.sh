# shellcheck shell=bash
# Finds out what is missing on this machine and installs it, or says what to install. Sourced by ./dev.
#
# What counts is that a tool is there and new enough, not which package brought it; package names are those of Debian.

rust_minimum=1.95
java_minimum=17

require_build_tools() {
  require_rust
  require \
    "build-essential:has_compiler:a C compiler with headers, and make" \
    "pkg-config:has_command pkg-config:pkg-config" \
    "libssl-dev:has_openssl:the OpenSSL 3 headers" \
    "ca-certificates:has_certificates:the usual certificate authorities"
}

require_services() {
  [[ -d /proc/self && -n $(command -v setsid) && -n $(command -v flock) ]] ||
    die "the services need Linux with util-linux; elsewhere set KAFKA_BROKERS and PG_URL to servers of your own (docker-compose.yml starts some)"
  require \
    "default-jre-headless:has_java:a Java runtime, $java_minimum or newer" \
    "maven:kafka_can_be_fetched:Maven" \
    "postgresql:has_postgres:the PostgreSQL server (the one on port 5432 that Debian may set up with it is not used)" \
    "pgbouncer:has_pgbouncer:PgBouncer (the one on port 6432 that Debian may set up with it is not used)"
}

require_shellcheck() { require "shellcheck:has_command shellcheck:shellcheck"; }

# Each argument is PACKAGE:TEST:DESCRIPTION.
require() {
  local requirement package test description packages=() descriptions=()
  for requirement in "$@"; do
    IFS=: read -r package test description <<<"$requirement"
    # Word splitting is wanted: a test is a command with arguments.
    # shellcheck disable=SC2086
    if ! $test; then
      packages+=("$package")
      descriptions+=("  $description (Debian: $package)")
    fi
  done
  ((${#packages[@]})) || return 0
  if ! has_command apt-get; then
    say "missing on this machine, and there is no apt-get to install it with:"
    printf '%s\n' "${descriptions[@]}" >&2
    die "install the above and try again"
  fi
  apt_install "${packages[@]}"
  for requirement in "$@"; do
    IFS=: read -r package test description <<<"$requirement"
    # shellcheck disable=SC2086
    $test || die "$package is installed, but this machine still lacks $description"
  done
}

apt_install() {
  local sudo=()
  if [[ $(id -u) != 0 ]]; then
    has_command sudo || die "run as root, because sudo is not there: apt-get install --no-install-recommends $*"
    sudo=(sudo)
  fi
  say "installing with apt-get: $*"
  if apt-cache show "$@" >/dev/null 2>&1; then
    apt_get install --no-install-recommends "$@" && return
    say "apt-get failed; trying again with fresh package lists"
  fi
  apt_get update || die "apt-get could not fetch the package lists"
  apt_get install --no-install-recommends "$@" || die "apt-get could not install: $*"
}

# Reads `sudo` of its caller. No question is asked, and nothing of apt-get's output goes to stdout.
apt_get() {
  "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -qq -y -o DPkg::Lock::Timeout=120 "$@" </dev/null >&2
}

require_rust() {
  local version
  if ! has_command cargo || ! has_command rustc; then
    die "Rust $rust_minimum or newer is needed: curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh"
  fi
  version=$(rustc --version | cut -d ' ' -f 2)
  is_at_least "$rust_minimum" "$version" || die "Rust $rust_minimum or newer is needed, this is $version: rustup update stable"
}

is_at_least() { printf '%s\n' "$1" "$2" | sort -V -C; }

has_command() { command -v "$1" >/dev/null; }

has_compiler() {
  has_command make && has_command cc && printf '#include <stdio.h>\n' | cc -E -x c - >/dev/null 2>&1
}

has_openssl() { pkg-config --atleast-version=3 openssl 2>/dev/null; }

# Other systems keep them elsewhere and always have them.
has_certificates() { [[ -s /etc/ssl/certs/ca-certificates.crt ]] || ! has_command dpkg-query; }

has_java() {
  local version
  version=$(java -version 2>&1 | sed -n '1s/.*version "\([0-9][0-9]*\).*/\1/p') || return 1
  [[ -n $version ]] && ((version >= java_minimum))
}

has_postgres() { [[ -n $(postgres_programs) ]]; }

has_pgbouncer() { [[ -n $(pgbouncer_program) ]]; }

# Maven is needed only while the broker has not been fetched.
kafka_can_be_fetched() { kafka_is_fetched || has_command mvn; }
