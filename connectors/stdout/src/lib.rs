//! The stdout sink: one JSON document per line.
//!
//! | module | what it does |
//! |---|---|
//! | [`config`] | the `stdout` block of a pipeline file |
//! | `encode` | record → line |
//! | `output` | the file behind stdout, shared by the whole process |
//! | `writer` | writes batches and says which lines are out |
//! | `sink` | what the runtime holds |

#![forbid(unsafe_code)]

pub mod config;
mod encode;
mod output;
mod sink;
mod writer;

pub use config::StdoutConfig;
pub use sink::StdoutSink;
