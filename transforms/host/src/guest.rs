//! What surrounds one instance: what it may reach, how much memory it has, and what it tells.

use std::collections::{HashSet, VecDeque};
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::io::AsyncWrite;
use wasmtime::component::{Resource, ResourceTable};
use wasmtime::{CallHook, ResourceLimiter};
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::clocks::WasiClocksView;
use wasmtime_wasi::p2::DynPollable;
use wasmtime_wasi::p2::bindings::clocks::monotonic_clock;
use wasmtime_wasi::{WasiCtx, WasiCtxBuilder, WasiCtxView, WasiView};

use crate::bindings::batches::txconnect::transform::{description, host};
use crate::output::one_line;
use crate::transform::{LogLevel, Reports};

/// Lines that a guest may log during one call.
const LINES_PER_CALL: u32 = 100;
/// Bytes of these lines.
const BYTES_PER_CALL: usize = 64 << 10;
/// How much of the last that a guest wrote to its standard error is kept.
const STDERR_KEPT: usize = 4 << 10;
/// Counters that a guest may have, and the longest name of one.
const COUNTERS: usize = 64;
const COUNTER_NAME: usize = 64;
/// Elements that all tables of a guest may have together.
const TABLE_ELEMENTS: usize = 1 << 20;
/// Streams and the like that a guest may hold at once.
const MOST_RESOURCES: usize = 1000;
/// Random bytes that a guest gets at once.
const MOST_RANDOM_BYTES: u64 = 64 << 10;

/// What belongs to one instance.
pub(crate) struct State {
    wasi: WasiCtx,
    table: ResourceTable,
    pub(crate) memory: Memory,
    pub(crate) stderr: Tail,
    reports: Arc<dyn Reports>,
    lines: u32,
    bytes: usize,
    left_out: u64,
    counters: HashSet<String>,
    /// When the call at work has had its time; nothing where guests are not interrupted.
    deadline: Option<Instant>,
}

impl State {
    pub(crate) fn new(memory: usize, reports: Arc<dyn Reports>) -> Self {
        let stderr = Tail::default();
        // Nothing else: no directories, no variables, no network. What of clocks and random numbers is there can only be
        // reached by guests whose imports were granted.
        let wasi = WasiCtxBuilder::new()
            .stdout(Tail::default())
            .stderr(stderr.clone())
            .insecure_random_seed(0)
            .max_random_size(MOST_RANDOM_BYTES)
            .allow_tcp(false)
            .allow_udp(false)
            .build();
        let mut table = ResourceTable::new();
        table.set_max_capacity(MOST_RESOURCES);
        Self {
            wasi,
            table,
            memory: Memory { used: 0, limit: memory, elements: 0 },
            stderr,
            reports,
            lines: 0,
            bytes: 0,
            left_out: 0,
            counters: HashSet::new(),
            deadline: None,
        }
    }

    /// A call begins, and ends within `time`, if there is one.
    pub(crate) fn begin(&mut self, time: Option<Duration>) {
        (self.lines, self.bytes, self.left_out) = (0, 0, 0);
        self.stderr.clear();
        self.deadline = time.and_then(|time| Instant::now().checked_add(time));
    }

    /// A guest goes over to its host, or comes back. Neither clock nor fuel counts what the host does for it, so a guest
    /// that only ever asks its host for something is stopped here.
    pub(crate) fn crosses(&self, hook: CallHook) -> wasmtime::Result<()> {
        match self.deadline {
            Some(deadline) if matches!(hook, CallHook::ReturningFromHost) && Instant::now() >= deadline => {
                Err(TimeExhausted.into())
            }
            _ => Ok(()),
        }
    }

    /// Nanoseconds that a guest may sleep when it wants to sleep so many.
    fn sleep(&self, wanted: u64) -> u64 {
        self.deadline.map_or(wanted, |deadline| {
            let left = deadline.saturating_duration_since(Instant::now());
            wanted.min(u64::try_from(left.as_nanos()).unwrap_or(u64::MAX))
        })
    }

    /// A call has ended.
    pub(crate) fn end(&mut self) {
        if self.left_out > 0 {
            let message = format!("{} more lines of this batch were left out", self.left_out);
            self.reports.log(LogLevel::Warn, &message);
        }
    }
}

impl WasiView for State {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.wasi, table: &mut self.table }
    }
}

impl description::Host for State {}

/// The machine's clock, but that nobody sleeps longer on it than the call may take: nothing else would wake him.
impl monotonic_clock::Host for State {
    fn now(&mut self) -> wasmtime::Result<u64> {
        self.clocks().now()
    }

    fn resolution(&mut self) -> wasmtime::Result<u64> {
        self.clocks().resolution()
    }

    fn subscribe_instant(&mut self, when: u64) -> wasmtime::Result<Resource<DynPollable>> {
        let now = self.clocks().now()?;
        self.subscribe_duration(when.saturating_sub(now))
    }

    fn subscribe_duration(&mut self, nanoseconds: u64) -> wasmtime::Result<Resource<DynPollable>> {
        let bounded = self.sleep(nanoseconds);
        monotonic_clock::Host::subscribe_duration(&mut self.clocks(), bounded)
    }
}

impl host::Host for State {
    fn log(&mut self, level: host::Level, message: String) {
        let line = one_line(&message);
        if self.lines >= LINES_PER_CALL || self.bytes + line.len() > BYTES_PER_CALL {
            self.left_out += 1;
            return;
        }
        self.lines += 1;
        self.bytes += line.len();
        let level = match level {
            host::Level::Debug => LogLevel::Debug,
            host::Level::Info => LogLevel::Info,
            host::Level::Warn => LogLevel::Warn,
            host::Level::Error => LogLevel::Error,
        };
        self.reports.log(level, &line);
    }

    fn counter(&mut self, name: String, delta: u64) {
        if name.is_empty() || name.len() > COUNTER_NAME || name.chars().any(char::is_control) {
            return;
        }
        if !self.counters.contains(&name) {
            if self.counters.len() >= COUNTERS {
                return;
            }
            self.counters.insert(name.clone());
        }
        self.reports.count(&name, delta);
    }
}

/// A guest has kept its host busy for longer than the call may take.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("its time is over")]
pub(crate) struct TimeExhausted;

/// The memory of an instance.
pub(crate) struct Memory {
    pub(crate) used: usize,
    pub(crate) limit: usize,
    elements: usize,
}

/// A guest wanted more memory than it may have.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("more than {limit} bytes of memory are wanted")]
pub(crate) struct MemoryExhausted {
    pub(crate) limit: usize,
}

impl ResourceLimiter for Memory {
    fn memory_growing(&mut self, current: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        let used = self.used.saturating_sub(current).saturating_add(desired);
        if used > self.limit {
            // A trap that names its reason, instead of an allocator that gives up in its own way.
            return Err(MemoryExhausted { limit: self.limit }.into());
        }
        self.used = used;
        Ok(true)
    }

    fn table_growing(&mut self, current: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        let elements = self.elements.saturating_sub(current).saturating_add(desired);
        if elements > TABLE_ELEMENTS {
            return Err(MemoryExhausted { limit: self.limit }.into());
        }
        self.elements = elements;
        Ok(true)
    }
}

/// The end of what was written.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tail(Arc<Mutex<VecDeque<u8>>>);

impl Tail {
    fn push(&self, bytes: &[u8]) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let bytes = &bytes[bytes.len().saturating_sub(STDERR_KEPT)..];
        let over = (kept.len() + bytes.len()).saturating_sub(STDERR_KEPT);
        kept.drain(..over);
        kept.extend(bytes);
    }

    fn clear(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// As text; broken characters are replaced.
    pub(crate) fn text(&self) -> String {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(kept.make_contiguous()).into_owned()
    }
}

impl IsTerminal for Tail {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for Tail {
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(self.clone())
    }

    fn p2_stream(&self) -> Box<dyn wasmtime_wasi::p2::OutputStream> {
        Box::new(self.clone())
    }
}

#[wasmtime_wasi::async_trait]
impl wasmtime_wasi::p2::Pollable for Tail {
    async fn ready(&mut self) {}
}

impl wasmtime_wasi::p2::OutputStream for Tail {
    fn write(&mut self, bytes: bytes::Bytes) -> wasmtime_wasi::p2::StreamResult<()> {
        self.push(&bytes);
        Ok(())
    }

    fn flush(&mut self) -> wasmtime_wasi::p2::StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> wasmtime_wasi::p2::StreamResult<usize> {
        Ok(STDERR_KEPT)
    }
}

impl AsyncWrite for Tail {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.push(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
