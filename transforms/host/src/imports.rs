//! What guests may import.
//!
//! Compilers bring interfaces of WASI 0.2 along whether a guest uses them or not. Those through which nothing can be
//! reached are always there: an environment without variables, an empty input, outputs that are caught, no directory,
//! and the seed of hash maps, always the same. The rest is granted by name, or never.

use crate::config::Grant;
use crate::module::VERSION;

/// Whether an import is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Import {
    /// For every guest.
    Always,
    /// Where the pipeline file grants it.
    With(Grant),
    /// For no guest.
    Never,
}

/// Judges the name of an imported interface, such as `wasi:clocks/wall-clock@0.2.6`.
pub(crate) fn judge(name: &str) -> Import {
    let (interface, version) = name.split_once('@').unwrap_or((name, ""));
    if let Some(ours) = interface.strip_prefix("txconnect:transform/") {
        let known = matches!(ours, "host" | "description") && version == VERSION;
        return if known { Import::Always } else { Import::Never };
    }
    if !version.starts_with("0.2.") {
        return Import::Never;
    }
    match interface {
        "wasi:random/insecure-seed" => Import::Always,
        "wasi:random/random" | "wasi:random/insecure" => Import::With(Grant::Random),
        "wasi:clocks/wall-clock" | "wasi:clocks/monotonic-clock" => Import::With(Grant::Clock),
        _ => {
            let inert = ["wasi:cli/", "wasi:io/", "wasi:filesystem/"];
            if inert.iter().any(|package| interface.starts_with(package)) {
                Import::Always
            } else {
                Import::Never
            }
        }
    }
}

impl Grant {
    /// The word for it in a pipeline file.
    pub fn name(self) -> &'static str {
        match self {
            Grant::Clock => "clock",
            Grant::Random => "random",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_and_random_numbers_are_granted_by_name_and_the_network_never() {
        for (name, judged) in [
            ("txconnect:transform/host@1.0.0", Import::Always),
            ("txconnect:transform/description@1.0.0", Import::Always),
            ("txconnect:transform/host@2.0.0", Import::Never),
            ("txconnect:transform/state@1.0.0", Import::Never),
            ("wasi:cli/environment@0.2.6", Import::Always),
            ("wasi:io/streams@0.2.0", Import::Always),
            ("wasi:filesystem/preopens@0.2.3", Import::Always),
            ("wasi:random/insecure-seed@0.2.6", Import::Always),
            ("wasi:random/random@0.2.6", Import::With(Grant::Random)),
            ("wasi:clocks/monotonic-clock@0.2.6", Import::With(Grant::Clock)),
            ("wasi:clocks/timezone@0.2.6", Import::Never),
            ("wasi:sockets/tcp@0.2.6", Import::Never),
            ("wasi:http/outgoing-handler@0.2.6", Import::Never),
            ("wasi:cli/environment@0.3.0", Import::Never),
            ("wasi:cli/environment", Import::Never),
            ("env", Import::Never),
        ] {
            assert_eq!(judge(name), judged, "{name}");
        }
    }
}
