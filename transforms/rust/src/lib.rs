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
//! | a transform takes | and returns |
//! |---|---|
//! | a [`Record`]: its members as text, what is not touched stays as it was, byte by byte | a [`Record`]: one row |
//! | [`Json`] of a type that can be read | [`Json`] of a type that can be written: one row |
//! | beside it `&Config`, a struct below [`#[config]`](macro@config) | `Option` of these: `None` filters the record out |
//! | | `Vec` or array of these: several rows |
//! | | [`Result`] of these: an [`Error`] makes the record a bad one, and it goes to the dead letter topic as it was |
//!
//! `#[transform(…)]` takes what the function wants to see beside topic and value: `keys`, `headers`, `positions`
//! (partition, offset, timestamp), and `tombstones`: records without a value, which otherwise pass by untouched.
//!
//! A transform has no clock, no files and no network, and keeps nothing between records: its instance may be replaced at
//! any time, and a record shown to it again. For those who want whole batches there is [`BatchTransform`].

#![deny(unsafe_code)]
#![warn(missing_docs)]
#![allow(clippy::option_option, reason = "a part of a row is kept, or nothing, or bytes")]

mod columns;
mod error;
mod json;
pub mod log;
mod object;
mod record;
mod rows;
mod scan;

#[doc(hidden)]
pub mod component;

pub use columns::{Batch, Column, Header};
pub use component::{BatchTransform, NoConfig, Settings, Wants};
pub use error::{Error, Result};
pub use json::{FromRecord, Json};
pub use log::counter;
pub use object::Object;
pub use record::Record;
pub use rows::{IntoRows, Row, Rows, RowsOfRecord};
pub use txconnect_transform_macros::{config, transform};

pub use {schemars, serde, serde_json};

#[doc(hidden)]
pub use component::{Each, Function};
