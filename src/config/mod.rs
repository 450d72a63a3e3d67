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
//! | tree ↔ JSON Schema generated from the types | `shape`, `wording` |
//! | tree → typed blocks → checks across keys, schema files and modules | `draft`, `checks`, `modules` |
//! | pipelines loaded together → checks across files | `neighbours` |
//! | mistakes in plain words, sorted | [`diagnose`] |
//!
//! Connectors are known to `registry` alone.

mod checks;
mod core_schema;
pub mod diagnose;
mod draft;
mod interpolate;
mod load;
#[cfg(test)]
mod load_tests;
mod locate;
mod located;
pub mod model;
mod modules;
mod neighbours;
mod overrides;
mod registry;
mod schema_file;
mod shape;
mod template;
mod typed;
mod wording;

pub use diagnose::{Mistake, Mistakes, Place, Severity};
pub use load::load;
pub use model::{Decode, OnError, Pipeline, Reaction, TransformSettings, ValidateSettings};
pub use modules::transform_host;
pub use schema_file::{SchemaError, SchemaFault, TopicSchema};
pub use shape::pipeline_schema;
pub use template::TopicTemplate;
