//! Lines for the log of txconnect, and counters. Never put a record's values into them.

#[cfg(target_arch = "wasm32")]
use crate::component::bindings::txconnect::transform::host;

macro_rules! level {
    ($(#[$doc:meta])* $name:ident, $level:ident, $word:literal) => {
        $(#[$doc])*
        pub fn $name(message: impl AsRef<str>) {
            #[cfg(target_arch = "wasm32")]
            host::log(host::Level::$level, message.as_ref());
            #[cfg(not(target_arch = "wasm32"))]
            eprintln!(concat!($word, ": {}"), message.as_ref());
        }
    };
}

level!(
    /// For whoever writes the transform.
    debug, Debug, "debug"
);
level!(
    /// For whoever runs the pipeline.
    info, Info, "info"
);
level!(
    /// Something is not as it should be.
    warn, Warn, "warn"
);
level!(
    /// Something is wrong.
    error, Error, "error"
);

/// Adds to a counter of the pipeline. At most 64 names count, each of at most 64 bytes.
pub fn counter(name: &str, delta: u64) {
    #[cfg(target_arch = "wasm32")]
    host::counter(name, delta);
    #[cfg(not(target_arch = "wasm32"))]
    let _ = (name, delta);
}
