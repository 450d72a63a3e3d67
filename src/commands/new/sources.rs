//! What transforms are written with, as it was when this program was built.

/// The files of `transforms/`: `wit/…`, `rust/…`, `js/…`, `python/…` and `templates/LANGUAGE/…`, by path.
pub(super) static SOURCES: &[(&str, &[u8])] = include!(concat!(env!("OUT_DIR"), "/transform_sources.rs"));
