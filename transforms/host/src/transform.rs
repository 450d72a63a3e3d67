//! Calling a guest within its limits.

use std::sync::Arc;
use std::time::Duration;

use crate::batch::Batch;
use crate::module::Module;
use crate::output::Output;

/// How much a line of a guest's log matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogLevel {
    /// For the guest's author.
    Debug,
    /// For whoever runs the pipeline.
    Info,
    /// Something is not as it should be.
    Warn,
    /// Something is wrong.
    Error,
}

/// What guests tell their host. Called on the lane's thread, within the guest's time.
pub trait Reports: Send + Sync {
    /// A line for the log; already cut and counted.
    fn log(&self, level: LogLevel, message: &str);

    /// A counter has grown.
    fn count(&self, counter: &str, delta: u64);
}

/// A guest at work: one instance, which is replaced after every failure.
pub struct Transform {
    module: Arc<Module>,
}

/// A guest that does not start.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the transform {name} does not start: {why}")]
pub struct InitError {
    /// The guest's name.
    pub name: String,
    /// Its own words, or what happened to it.
    pub why: String,
}

/// Why a call brought no output. The instance is gone; the next call runs in a new one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// The new instance does not start: trying on helps nobody.
    #[error(transparent)]
    Init(#[from] InitError),
    /// The guest trapped.
    #[error("{message}")]
    Trap {
        /// What wasmtime says of it.
        message: String,
        /// Where in the guest, and what it wrote to its standard error; several lines.
        backtrace: Option<String>,
    },
    /// It took too long.
    #[error("it was stopped after {after:?}")]
    TooSlow {
        /// The time it was given.
        after: Duration,
    },
    /// It wanted more memory than it may have.
    #[error("it wanted more than {limit} bytes of memory")]
    TooMuchMemory {
        /// The limit.
        limit: usize,
    },
    /// Its answer makes no sense.
    #[error("its answer is malformed: {what}")]
    Malformed {
        /// What is wrong with it.
        what: String,
    },
    /// It said itself that it cannot transform the batch.
    #[error("it refused the batch: {message}")]
    Refused {
        /// Its own words.
        message: String,
    },
}

impl Transform {
    /// Transforms a batch, which was filled for what this guest needs, within `time`.
    ///
    /// # Errors
    /// See [`CallError`]. Records that the guest itself calls bad, and such that become more rows than they may, are no
    /// error: they are in [`Output::failures`].
    pub fn call(&mut self, batch: &Batch, time: Duration) -> Result<Output, CallError> {
        let _ = (batch, time);
        Err(CallError::TooMuchMemory { limit: 0 })
    }

    /// Goes on with another module from the next batch on. Where that one does not start, this one stays as it was.
    ///
    /// # Errors
    /// The new module's `init` has refused the config, or did not come to its end.
    pub fn swap(&mut self, module: Arc<Module>, config: Option<&serde_json::Value>) -> Result<(), InitError> {
        let _ = config;
        self.module = module;
        Ok(())
    }

    /// The module at work.
    pub fn module(&self) -> &Arc<Module> {
        &self.module
    }
}
