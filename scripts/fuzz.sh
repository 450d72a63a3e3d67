# shellcheck shell=bash
# Runs the fuzz targets of fuzz/ with the stable compiler. Sourced by ./dev. See docs/fuzzing.md.

# What one input may take before it counts as a hang, and all of them together in memory.
fuzz_input_seconds=20
fuzz_megabytes=2048

# Without a sanitizer cargo-fuzz needs no nightly compiler. What it instruments is safe Rust: panics, overflows, hangs
# and broken promises are found without one.
fuzz_options=(--sanitizer none)

fuzz_targets() { (cd fuzz/fuzz_targets && printf '%s\n' *.rs) | sed 's/\.rs$//'; }

require_fuzz_tools() {
  require_build_tools
  has_command cargo-fuzz && return
  say "installing cargo-fuzz: cargo install --locked cargo-fuzz"
  cargo install --locked cargo-fuzz
}

fuzz_verb() {
  local seconds=60 chosen=() known target failed=()
  mapfile -t known < <(fuzz_targets)
  if [[ ${1:-} == [0-9]* || $# == 0 ]]; then
    chosen=("${known[@]}")
  else
    [[ " ${known[*]} " == *" $1 "* ]] || die "there is no fuzz target '$1'; there are: ${known[*]}"
    chosen=("$1")
    shift
  fi
  (($# <= 1)) || die "usage: ./dev fuzz [TARGET] [SECONDS]"
  seconds=${1:-$seconds}
  [[ $seconds =~ ^[1-9][0-9]{0,6}$ ]] || die "'$seconds' is no number of seconds"
  require_fuzz_tools
  for target in "${chosen[@]}"; do
    fuzz_run "$target" "$seconds" || failed+=("$target")
  done
  ((${#failed[@]} == 0)) ||
    die "failed: ${failed[*]}. Each failure above ends with the command that repeats it; docs/fuzzing.md says how to go on"
  say "nothing found in $seconds s for each of: ${chosen[*]}"
}

# What libFuzzer finds new goes to fuzz/corpus, which is kept between runs and not committed.
fuzz_run() {
  local target=$1 seconds=$2 options=()
  [[ ! -f fuzz/dictionaries/$target.dict ]] || options+=("-dict=fuzz/dictionaries/$target.dict")
  mkdir -p "fuzz/corpus/$target"
  say "fuzzing $target for $seconds s"
  cargo fuzz run "${fuzz_options[@]}" "$target" "fuzz/corpus/$target" "fuzz/seeds/$target" -- \
    -max_total_time="$seconds" -timeout="$fuzz_input_seconds" -rss_limit_mb="$fuzz_megabytes" \
    -print_final_stats=1 ${options[@]+"${options[@]}"}
}
