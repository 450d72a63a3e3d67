//! Guests that are built from Rust, once for a run of the tests.

use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

/// The component of a package of `tests/guests`.
pub(crate) fn rust_guest(package: &str) -> PathBuf {
    built().join(format!("{}.wasm", package.replace(['-', '.'], "_")))
}

fn built() -> &'static PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let target = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("guests");
        let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/guests/Cargo.toml");
        let built = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
            .args(["build", "--release", "--locked", "--target", "wasm32-wasip2"])
            .args(["--manifest-path", manifest, "--target-dir"])
            .arg(&target)
            // They are for another machine than the tests.
            .env_remove("RUSTFLAGS")
            .env_remove("CARGO_ENCODED_RUSTFLAGS")
            .output()
            .expect("cargo runs");
        assert!(
            built.status.success(),
            "the guests in Rust do not build (`rustup target add wasm32-wasip2`?):\n{}",
            String::from_utf8_lossy(&built.stderr)
        );
        target.join("wasm32-wasip2/release")
    })
}
