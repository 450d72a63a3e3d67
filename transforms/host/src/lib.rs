//! Runs transforms: WebAssembly components that users write.
//!
//! ```text
//! file ─▶ Host::load ─▶ Module (compiled, described, its imports looked at)
//!                          │ one for each lane
//!                          ▼
//!         Batch ─▶ Transform::call ─▶ Output (every index, end and name in it checked)
//! ```
//! A guest that traps, loops, eats memory or answers nonsense costs its instance and nothing else: [`Transform::call`]
//! says what happened, and the next call runs in a new one. The interface between host and guests is `transforms/wit`.
//!
//! | module | what it holds |
//! |---|---|
//! | [`config`] | what a pipeline file says of a transform |
//! | [`batch`] | records on their way into a guest, column by column |
//! | [`output`] | what came back, checked |
//! | [`native`] | batches for code that is no guest |
//! | [`module`] | [`Host`] and [`Module`]: loading, compiling, describing |
//! | [`transform`] | [`Transform`]: calling a guest within its limits |

pub mod batch;
mod bindings;
pub mod config;
mod engine;
mod guest;
mod imports;
pub mod module;
pub mod native;
pub mod output;
mod records;
pub mod transform;

pub use batch::{Batch, Column, Headers, InputRecord, Needs};
pub use config::{Grant, Interrupt, Limits, TransformConfig};
pub use module::{Abi, Description, Host, Module, ModuleError};
pub use output::{Columns, Kept, Malformed, Output, RecordFailure, Row};
pub use transform::{CallError, InitError, LogLevel, Reports, Transform};
