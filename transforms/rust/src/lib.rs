//! Transforms for txconnect: a function over records of Kafka topics, compiled to WebAssembly.
//!
//! ```
//! use txconnect_transform::{Record, Result, config, transform};
//!
//! #[config]
//! struct Config {
//!     /// The field to shorten.
//!     field: String,
//! }
//!
//! /// Keeps the first four characters of a field.
//! #[transform]
//! fn shorten(mut record: Record, config: &Config) -> Result<Record> {
//!     record.edit(|value| {
//!         if let Some(text) = value.get::<String>(&config.field)? {
//!             value.set(&config.field, &text.chars().take(4).collect::<String>())?;
//!         }
//!         Ok(())
//!     })?;
//!     Ok(record)
//! }
//! # fn main() {}
//! ```
//! A transform returns a [`Record`] (one row), an `Option` of it (`None` filters the record out), a `Vec` or an array of
//! them (several rows), or a [`Result`] of any of these. An [`Error`] makes the record a bad one: it goes to the dead
//! letter topic as it was. What a function does not touch stays as it was, byte by byte, and is not copied.
//!
//! `#[transform(…)]` takes what the function wants to see beside topic and value: `keys`, `headers`, `positions`
//! (partition, offset, timestamp), and `tombstones`: records without a value, which otherwise pass by untouched.
//!
//! A transform has no clock, no files and no network, and keeps nothing between records: its instance may be replaced at
//! any time, and a record shown to it again.

#![deny(unsafe_code)]
#![warn(missing_docs)]

mod columns;
mod error;
pub mod log;
mod object;
mod record;
mod rows;

#[doc(hidden)]
pub mod component;

pub use error::{Error, Result};
pub use log::counter;
pub use object::Object;
pub use record::Record;
pub use rows::IntoRows;
pub use txconnect_transform_macros::{config, transform};

pub use {schemars, serde, serde_json};

#[doc(hidden)]
pub use component::{Function, NoConfig, Wants};
