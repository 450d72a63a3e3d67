//! Live bars on a terminal, one log line every ten seconds elsewhere.

use std::collections::HashMap;
use std::io::{self, IsTerminal, Write};
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::numbers::{grouped, per_second};

/// Between two pictures on a terminal.
const LIVE_INTERVAL: Duration = Duration::from_millis(200);
/// Between two log lines of a pipeline elsewhere.
const LOG_INTERVAL: Duration = Duration::from_secs(10);

/// How far one pipeline has come.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PipelineProgress {
    /// The pipeline's name.
    pub name: String,
    /// What it is doing, in a word: `running`, `retrying` …
    pub state: String,
    /// Records read.
    pub read: u64,
    /// Records written.
    pub written: u64,
    /// Records in the dead letter topic.
    pub dead_lettered: u64,
    /// Records that wait in Kafka, where that is known.
    pub lag: Option<u64>,
}

/// Asks all pipelines how far they are. Called from a thread of its own, a few times each second.
pub type Watch = Arc<dyn Fn() -> Vec<PipelineProgress> + Send + Sync>;

/// The standard error output, shared by bars and log lines so that neither tears the other.
#[derive(Clone, Debug)]
pub struct Screen {
    bars: MultiProgress,
    live: bool,
}

impl Screen {
    /// The standard error output of this process. Bars are drawn where it is a terminal that can.
    pub fn stderr() -> Self {
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        let live = io::stderr().is_terminal() && !dumb;
        let target = if live { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        Self { bars: MultiProgress::with_draw_target(target), live }
    }

    /// Whether somebody looks at it.
    pub fn is_live(&self) -> bool {
        self.live
    }

    /// A writer for log lines that makes the bars step aside.
    pub fn log_writer(&self) -> LogWriter {
        LogWriter { bars: self.bars.clone() }
    }

    /// A bar for work of `length` bytes, or without an end to see where the length is unknown.
    pub fn bytes_bar(&self, what: &str, length: Option<u64>) -> ProgressBar {
        let (bar, template) = match length {
            Some(length) => {
                (ProgressBar::new(length), "{prefix} [{bar:30}] {bytes}/{total_bytes}  {msg}  {eta} left")
            }
            None => (ProgressBar::new_spinner(), "{prefix} {spinner} {bytes}  {msg}"),
        };
        let bar = self.bars.add(bar).with_prefix(what.to_owned());
        styled(bar, template)
    }

    /// A bar for `count` records.
    pub fn records_bar(&self, what: &str, count: u64) -> ProgressBar {
        let bar = self.bars.add(ProgressBar::new(count)).with_prefix(what.to_owned());
        styled(bar, "{prefix} [{bar:30}] {pos}/{len}  {eta} left")
    }
}

fn styled(bar: ProgressBar, template: &str) -> ProgressBar {
    match ProgressStyle::with_template(template) {
        Ok(style) => bar.with_style(style.progress_chars("=> ")),
        Err(_) => bar,
    }
}

/// Writes log lines to the standard error output, above the bars.
#[derive(Clone, Debug)]
pub struct LogWriter {
    bars: MultiProgress,
}

impl Write for LogWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.bars.suspend(|| io::stderr().lock().write_all(bytes))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

/// Shows how pipelines come along until it is dropped.
#[derive(Debug)]
pub struct Display {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Display {
    /// Begins to show what `watch` tells.
    pub fn start(screen: Screen, watch: Watch) -> io::Result<Self> {
        let (stop, stopped) = mpsc::channel();
        let interval = if screen.live { LIVE_INTERVAL } else { LOG_INTERVAL };
        let thread = std::thread::Builder::new().name("progress".to_owned()).spawn(move || {
            let mut rates = Rates::default();
            let mut bars: HashMap<String, ProgressBar> = HashMap::new();
            while stopped.recv_timeout(interval) == Err(RecvTimeoutError::Timeout) {
                let now = Instant::now();
                for pipeline in watch() {
                    let rate = rates.rate(&pipeline, now);
                    if screen.live {
                        let bar = bars.entry(pipeline.name.clone()).or_insert_with(|| {
                            styled(screen.bars.add(ProgressBar::new_spinner()), "{spinner} {msg}")
                        });
                        bar.set_message(live_line(&pipeline, rate));
                        bar.tick();
                    } else {
                        log_line(&pipeline, rate);
                    }
                }
            }
            for bar in bars.values() {
                bar.finish_and_clear();
            }
        })?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Display {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A panic in there has been printed; there is nothing left to do about a picture.
            let _ = thread.join();
        }
    }
}

fn live_line(pipeline: &PipelineProgress, rate: u64) -> String {
    let lag = pipeline.lag.map_or_else(String::new, |lag| format!("  lag {}", grouped(lag)));
    format!(
        "{}: {}  {} written  {} dead-lettered  {} rows/s{lag}",
        pipeline.name,
        pipeline.state,
        grouped(pipeline.written),
        grouped(pipeline.dead_lettered),
        grouped(rate),
    )
}

fn log_line(pipeline: &PipelineProgress, rate: u64) {
    tracing::info!(
        pipeline = %pipeline.name,
        state = %pipeline.state,
        read = pipeline.read,
        written = pipeline.written,
        dead_lettered = pipeline.dead_lettered,
        rows_per_second = rate,
        lag = pipeline.lag,
        "progress"
    );
}

/// Rows each second since the last look, for each pipeline, half weighted with the rate before so that the
/// number can be read.
#[derive(Debug, Default)]
struct Rates {
    last: HashMap<String, (Instant, u64, u64)>,
}

impl Rates {
    fn rate(&mut self, pipeline: &PipelineProgress, now: Instant) -> u64 {
        let rate = match self.last.get(&pipeline.name) {
            None => 0,
            Some((then, written, before)) => {
                let since = per_second(
                    pipeline.written.saturating_sub(*written),
                    now.saturating_duration_since(*then),
                );
                if *before == 0 { since } else { u64::midpoint(since, *before) }
            }
        };
        self.last.insert(pipeline.name.clone(), (now, pipeline.written, rate));
        rate
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn progress(written: u64) -> PipelineProgress {
        PipelineProgress {
            name: "p".into(),
            state: "running".into(),
            written,
            lag: Some(1_234),
            ..PipelineProgress::default()
        }
    }

    #[test]
    fn rates_are_taken_between_two_looks() {
        let start = Instant::now();
        let mut rates = Rates::default();
        assert_eq!(rates.rate(&progress(500), start), 0);
        assert_eq!(rates.rate(&progress(1_500), start + Duration::from_secs(2)), 500);
        assert_eq!(rates.rate(&progress(1_600), start + Duration::from_secs(3)), 300);
    }

    #[test]
    fn a_line_names_rate_and_lag() {
        assert_eq!(
            live_line(&progress(1_500), 500),
            "p: running  1,500 written  0 dead-lettered  500 rows/s  lag 1,234"
        );
        let unknown = PipelineProgress { lag: None, ..progress(0) };
        assert!(!live_line(&unknown, 0).contains("lag"));
    }

    #[test]
    fn a_display_ends_when_it_is_dropped() {
        let display = Display::start(Screen::stderr(), Arc::new(Vec::new)).unwrap();
        drop(display);
    }
}
