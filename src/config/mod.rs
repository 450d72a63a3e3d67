//! From YAML text to checked pipelines.
//!
//! [`load`] finds every mistake in every file, each with file, line and column, before anything connects.
//! The way of a file:
//!
//! | step | module |
//! |---|---|
//! | text → tree whose values and keys know their position | `locate` |
//! | `${…}` in scalars → values, typed afterwards | `interpolate` |
//! | `--set key=value` | `overrides` |
//! | tree ↔ JSON Schema generated from the types | `shape` |
//! | tree → [`model::PipelineFile`] → checks across keys, schema files and pipelines | `load`, `checks` |
//! | mistakes in plain words, sorted | [`diagnose`] |
//!
//! Connectors are known to `registry` alone.

pub mod diagnose;
pub mod model;
mod registry;
mod schema_file;
mod template;

pub use model::{Decode, OnError, Pipeline, Reaction, ValidateSettings};
pub use schema_file::{SchemaError, TopicSchema};
