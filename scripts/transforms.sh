# shellcheck shell=bash
# Builds the example transforms in Rust. Sourced by ./dev.

: "${root:?the folder of the clone}"
wasm_target=wasm32-wasip2

# What the compiler needs to make components. It comes with rustup; other packagers have packages for it.
require_wasm_target() {
  require_rust
  wasm_target_is_there && return
  has_command rustup || die "Rust's target $wasm_target is needed: install Rust with rustup, or its standard library for that target from where your Rust came"
  say "adding Rust's target $wasm_target"
  rustup target add "$wasm_target" >&2 || die "rustup could not add $wasm_target; see above"
}

wasm_target_is_there() { [[ -d $(rustc --print sysroot)/lib/rustlib/$wasm_target/lib ]]; }

# Leaves NAME/NAME.wasm in every folder of transforms/examples that holds Rust.
build_example_transforms() {
  require_wasm_target
  local examples=$root/transforms/examples target=${CARGO_TARGET_DIR:-$root/target}/transforms manifest name
  say "building the example transforms"
  cargo build --quiet --release --locked --manifest-path "$examples/Cargo.toml" --workspace \
    --target "$wasm_target" --target-dir "$target"
  for manifest in "$examples"/*/Cargo.toml; do
    name=$(basename "$(dirname "$manifest")")
    # A file that did not change keeps its time.
    cmp --silent "$target/$wasm_target/release/$name.wasm" "$examples/$name/$name.wasm" ||
      cp "$target/$wasm_target/release/$name.wasm" "$examples/$name/$name.wasm"
  done
}

# The SDK and the examples are built for another machine, in workspaces of their own.
lint_transforms() {
  require_wasm_target
  local target=${CARGO_TARGET_DIR:-$root/target}/transforms folder
  for folder in rust examples; do
    cargo clippy --release --locked --manifest-path "$root/transforms/$folder/Cargo.toml" --workspace --all-targets \
      --target-dir "$target" -- -D warnings
    cargo clippy --release --locked --manifest-path "$root/transforms/$folder/Cargo.toml" --workspace --lib \
      --target "$wasm_target" --target-dir "$target" -- -D warnings
  done
}

# Their own tests, on this machine.
test_transforms() {
  local target=${CARGO_TARGET_DIR:-$root/target}/transforms folder
  for folder in rust examples; do
    cargo test --quiet --release --locked --manifest-path "$root/transforms/$folder/Cargo.toml" --workspace \
      --target-dir "$target"
  done
}
