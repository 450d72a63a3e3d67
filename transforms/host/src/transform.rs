//! Calling a guest within its limits.

use std::sync::Arc;
use std::time::Duration;

use wasmtime::{Store, Trap, WasmBacktrace};
use wasmtime_wasi::I32Exit;

use crate::batch::{Batch, Column};
use crate::bindings::batches::exports::txconnect::transform::batches as wit;
use crate::bindings::batches::{BatchTransform, txconnect::transform::description};
use crate::bindings::records::RecordTransform;
use crate::config::Interrupt;
use crate::guest::{MemoryExhausted, State, TimeExhausted};
use crate::module::{Module, Pre, give_time};
use crate::output::{Columns, Malformed, Output, RecordFailure, one_line};
use crate::records;

/// Where fuel is counted, what the host does for a guest burns none. It is stopped by the clock then, so late that a busy
/// machine makes no difference to a guest that does its work.
const CLOCK_BESIDE_FUEL: u32 = 10;
/// The longest backtrace, in bytes.
const LONGEST_BACKTRACE: usize = 8 << 10;

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
    config: String,
    reports: Arc<dyn Reports>,
    /// Gone after a failure, until the next call.
    running: Option<Running>,
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

impl From<Malformed> for CallError {
    fn from(malformed: Malformed) -> Self {
        Self::Malformed { what: malformed.0 }
    }
}

impl Transform {
    pub(crate) fn start(
        module: Arc<Module>,
        config: String,
        reports: Arc<dyn Reports>,
    ) -> Result<Self, InitError> {
        let running = Some(module.instance(&config, Arc::clone(&reports))?);
        Ok(Self { module, config, reports, running })
    }

    /// Transforms a batch, which was filled for what this guest needs, within `time`.
    ///
    /// # Errors
    /// See [`CallError`]. Records that the guest itself calls bad, and such that become more rows than they may, are no
    /// error: they are in [`Output::failures`].
    pub fn call(&mut self, batch: &Batch, time: Duration) -> Result<Output, CallError> {
        let mut running = match self.running.take() {
            Some(running) => running,
            None => self.module.instance(&self.config, Arc::clone(&self.reports))?,
        };
        let most_rows = self.module.limits().max_outputs_per_record.get();
        let output = running.transform(batch, most_rows, time)?;
        self.running = Some(running);
        Ok(output)
    }

    /// Goes on with another module from the next batch on. Where that one does not start, this one stays as it was.
    ///
    /// # Errors
    /// The new module's `init` has refused the config, or did not come to its end.
    pub fn swap(
        &mut self,
        module: &Arc<Module>,
        config: Option<&serde_json::Value>,
    ) -> Result<(), InitError> {
        *self = module.start(config, Arc::clone(&self.reports))?;
        Ok(())
    }

    /// The module at work.
    pub fn module(&self) -> &Arc<Module> {
        &self.module
    }

    /// Bytes of memory that the instance has now; 0 where there is none since a failure.
    pub fn memory(&self) -> usize {
        self.running.as_ref().map_or(0, |running| running.store.data().memory.used)
    }
}

/// An instance.
pub(crate) struct Running {
    store: Store<State>,
    interrupt: Interrupt,
    exported: Option<Exported>,
}

enum Exported {
    Batches(BatchTransform),
    Records(RecordTransform),
}

impl Running {
    pub(crate) fn new(store: Store<State>, interrupt: Interrupt) -> Self {
        Self { store, interrupt, exported: None }
    }

    pub(crate) fn instantiate(&mut self, pre: &Pre, time: Duration) -> Result<(), CallError> {
        let exported = self.within(time, |store, _| match pre {
            Pre::Batches(pre) => pre.instantiate(&mut *store).map(Exported::Batches),
            Pre::Records(pre) => pre.instantiate(&mut *store).map(Exported::Records),
        })?;
        self.exported = Some(exported);
        Ok(())
    }

    pub(crate) fn describe(&mut self, time: Duration) -> Result<description::Description, CallError> {
        self.within(time, |store, exported| match exported {
            Some(Exported::Batches(guest)) => guest.txconnect_transform_batches().call_describe(store),
            Some(Exported::Records(guest)) => guest.txconnect_transform_records().call_describe(store),
            None => Err(wasmtime::Error::msg("it has not been instantiated")),
        })
    }

    pub(crate) fn init(&mut self, config: &str, time: Duration) -> Result<Result<(), String>, CallError> {
        self.within(time, |store, exported| match exported {
            Some(Exported::Batches(guest)) => guest.txconnect_transform_batches().call_init(store, config),
            Some(Exported::Records(guest)) => guest.txconnect_transform_records().call_init(store, config),
            None => Err(wasmtime::Error::msg("it has not been instantiated")),
        })
    }

    fn transform(&mut self, batch: &Batch, most_rows: u32, time: Duration) -> Result<Output, CallError> {
        let most_bytes = self.store.data().memory.limit;
        let columns = self.within(time, |store, exported| match exported {
            Some(Exported::Batches(guest)) => {
                let topics: Vec<&str> = batch.topics.iter().map(String::as_str).collect();
                guest.txconnect_transform_batches().call_transform(store, lend(batch, &topics)).map(
                    |answer| {
                        answer
                            .map(Columns::from)
                            .map_err(|refused| CallError::Refused { message: one_line(&refused) })
                    },
                )
            }
            Some(Exported::Records(guest)) => {
                let guest = guest.txconnect_transform_records();
                records::transform(guest, store, batch, most_rows, most_bytes).map(Ok)
            }
            None => Err(wasmtime::Error::msg("it has not been instantiated")),
        })??;
        Ok(Output::checked(columns, batch.len(), most_rows)?)
    }

    /// Runs guest code for at most `time`.
    fn within<T: Send>(
        &mut self,
        time: Duration,
        run: impl FnOnce(&mut Store<State>, Option<&Exported>) -> wasmtime::Result<T> + Send,
    ) -> Result<T, CallError> {
        give_time(&mut self.store, self.interrupt, time)?;
        self.store.data_mut().begin(match self.interrupt {
            Interrupt::Epoch => Some(time),
            Interrupt::Fuel => Some(time.saturating_mul(CLOCK_BESIDE_FUEL)),
            Interrupt::None => None,
        });
        let (store, exported) = (&mut self.store, self.exported.as_ref());
        let result = away_from_tokio(|| run(store, exported));
        self.store.data_mut().end();
        result.map_err(|error| what_happened(&error, self.store.data(), time))
    }
}

/// Runs something that may wait for a future, as WASI's streams do: tokio forbids that to its own threads.
fn away_from_tokio<T: Send>(run: impl FnOnce() -> wasmtime::Result<T> + Send) -> wasmtime::Result<T> {
    if tokio::runtime::Handle::try_current().is_err() {
        return run();
    }
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("transforms/guest".to_owned());
        let running = thread.spawn_scoped(scope, run)?;
        running.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// What ended a call.
pub(crate) fn what_happened(error: &wasmtime::Error, state: &State, time: Duration) -> CallError {
    if let Some(MemoryExhausted { limit }) = error.downcast_ref() {
        return CallError::TooMuchMemory { limit: *limit };
    }
    let trap = error.downcast_ref::<Trap>();
    if matches!(trap, Some(Trap::Interrupt | Trap::OutOfFuel)) || error.is::<TimeExhausted>() {
        return CallError::TooSlow { after: time };
    }
    let root = error.root_cause().to_string();
    // The type of this error is wasmtime's own.
    if root.ends_with("fuel allocated for hostcalls has been exhausted") {
        return CallError::TooMuchMemory { limit: state.memory.limit };
    }
    let frames = error.downcast_ref::<WasmBacktrace>();
    let exit = error.downcast_ref::<I32Exit>();
    if trap.is_none() && exit.is_none() && frames.is_none() {
        // The guest had come to its end: what it left could not be read.
        return CallError::Malformed { what: one_line(&root) };
    }
    let message = match (trap, exit) {
        (Some(trap), _) => trap.to_string(),
        (None, Some(exit)) => format!("it ended itself with exit code {}", exit.0),
        // Without the backtrace, which comes below.
        (None, None) => one_line(&root),
    };
    let mut backtrace = frames.map(ToString::to_string).unwrap_or_default();
    let said = state.stderr.text();
    if !said.trim().is_empty() {
        backtrace = format!("{}\n{backtrace}", said.trim_end());
    }
    let mut end = backtrace.len().min(LONGEST_BACKTRACE);
    while !backtrace.is_char_boundary(end) {
        end -= 1;
    }
    backtrace.truncate(end);
    CallError::Trap { message, backtrace: Some(backtrace).filter(|backtrace| !backtrace.is_empty()) }
}

/// A batch as the interface has it, without copying it.
fn lend<'b>(batch: &'b Batch, topics: &'b [&'b str]) -> wit::Batch<'b> {
    let column = |column: &'b Column| wit::ColumnParam {
        data: &column.data,
        ends: &column.ends,
        nulls: &column.nulls,
    };
    wit::Batch {
        topics,
        topic_of: if topics.len() > 1 { &batch.topic_of } else { &[] },
        partitions: &batch.partitions,
        offsets: &batch.offsets,
        timestamps: &batch.timestamps,
        keys: column(&batch.keys),
        values: column(&batch.values),
        headers: wit::HeadersParam {
            counts: &batch.headers.counts,
            names: column(&batch.headers.names),
            values: column(&batch.headers.values),
        },
    }
}

impl From<wit::ColumnResult> for Column {
    fn from(column: wit::ColumnResult) -> Self {
        Self { data: column.data, ends: column.ends, nulls: column.nulls }
    }
}

impl From<wit::Output> for Columns {
    fn from(output: wit::Output) -> Self {
        let wit::Output { sources, keys, values, routing, headers, failures } = output;
        Self {
            sources,
            keys: keys.map(Column::from),
            values: values.map(Column::from),
            topics: routing.map(|routing| (routing.topics, routing.topic_of)),
            headers: headers.map(|headers| crate::batch::Headers {
                counts: headers.counts,
                names: headers.names.into(),
                values: headers.values.into(),
            }),
            kept: crate::output::Kept::default(),
            failures: failures
                .into_iter()
                .map(|failure| RecordFailure {
                    record: failure.record,
                    code: failure.code,
                    message: failure.message,
                })
                .collect(),
        }
    }
}
