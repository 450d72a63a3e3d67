# shellcheck shell=bash
# The tools that build transforms in JavaScript and Python, and the tests of what such transforms are written with. Sourced
# by ./dev.

: "${root:?the folder of the clone}"
node_minimum=18.18
python_minimum=3.10
script_transforms=(mask_account_js mask_account_python)

# Node.js with npm; with it, componentize-js in the folder of each example, as their package.json wants it.
require_node_toolchain() {
  require "nodejs:has_node:Node.js, $node_minimum or newer" "npm:has_command npm:npm"
  local folder
  for folder in "$root"/transforms/examples/*/package.json; do
    folder=$(dirname "$folder")
    [[ ! $folder/node_modules -nt $folder/package.json ]] || continue
    say "installing what builds JavaScript into $folder/node_modules"
    (cd "$folder" && npm install --no-package-lock --no-audit --no-fund --loglevel=error >&2) ||
      die "npm could not install what $folder/package.json names; see above"
    touch "$folder/node_modules"
  done
}

# Python with venv; with it, componentize-py, and where it is: componentize_py.
require_python_toolchain() {
  require "python3:has_python:Python $python_minimum or newer" \
    "python3-venv:python_makes_environments:Python's venv and ensurepip"
  local environment=${CARGO_TARGET_DIR:-$root/target}/componentize-py
  local wanted=$root/transforms/templates/python/requirements.txt
  if ! cmp --silent "$wanted" "$environment/installed.txt"; then
    say "installing what builds Python into $environment"
    rm -rf "$environment"
    python3 -m venv "$environment"
    "$environment/bin/python" -m pip install --quiet --disable-pip-version-check --requirement "$wanted" >&2 ||
      die "pip could not install $wanted; see above"
    cp "$wanted" "$environment/installed.txt"
  fi
  componentize_py=$environment/bin/componentize-py
}

has_node() {
  local version
  version=$(node --version 2>/dev/null) && is_at_least "$node_minimum" "${version#v}"
}

has_python() {
  local version
  version=$(python3 --version 2>/dev/null) && is_at_least "$python_minimum" "${version#Python }"
}

# Leaves NAME/NAME.wasm in every folder of transforms/examples that holds JavaScript or Python, where it is not there or is
# older than its sources.
build_script_transforms() {
  require_node_toolchain
  require_python_toolchain
  local name folder sdk
  for name in "${script_transforms[@]}"; do
    folder=$root/transforms/examples/$name
    [[ $name = *_js ]] && sdk=js || sdk=python
    is_newer_than_its_sources "$folder/$name.wasm" "$folder" "$root/transforms/$sdk" "$root/transforms/wit" && continue
    say "building $name"
    if [[ $sdk = js ]]; then
      (cd "$folder" && npm run --silent build >&2) || die "$name could not be built; see above"
    else
      (cd "$folder" && "$componentize_py" --quiet --wit-path "$root/transforms/wit/1.0.0" --world batch-transform \
        componentize --stub-wasi --python-path "$root/transforms/python" --python-path . app --output "$name.wasm" >&2) ||
        die "$name could not be built; see above"
    fi
  done
}

is_newer_than_its_sources() {
  local component=$1
  shift
  [[ -f $component ]] || return
  [[ -z $(find "$@" -name node_modules -prune -o -name .venv -prune -o -name __pycache__ -prune -o \
    -type f -newer "$component" -print -quit) ]]
}

# The SDKs and the examples under Node.js and Python themselves.
test_script_transforms() {
  require_node_toolchain
  require "python3:has_python:Python $python_minimum or newer"
  local name
  (cd "$root/transforms/js" && node --test >&2) || die "the tests of transforms/js fail"
  (cd "$root/transforms/python" && python3 -m unittest --quiet >&2) || die "the tests of transforms/python fail"
  for name in "${script_transforms[@]}"; do
    if [[ $name = *_js ]]; then
      (cd "$root/transforms/examples/$name" && node --test >&2) || die "the tests of $name fail"
    else
      (cd "$root/transforms/examples/$name" && PYTHONPATH=$root/transforms/python python3 -m unittest --quiet >&2) ||
        die "the tests of $name fail"
    fi
  done
}
