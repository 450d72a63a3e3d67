//! All pipelines of one process: each runs by itself, and none feels the failure of another.
//!
//! A pipeline that fails for a reason that may pass (credentials, a missing table) is started again with growing
//! pauses. One that its user told to stop (`on_error: stop`, `on_lost_offsets: stop`) stays down.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures::future::join_all;
use tokio_util::sync::CancellationToken;
use txconnect_connector_api::TableCount;

use crate::config::Pipeline;
use crate::pipeline::{
    BooksSnapshot, Failure, FailureKind, Health, RunOptions as PipelineOptions, RunningPipeline,
};

/// How often a pipeline is looked at.
const LOOK: Duration = Duration::from_millis(50);
/// The first pause before a failed pipeline is started again; the next ones double.
const FIRST_RESTART: Duration = Duration::from_secs(1);
/// The longest pause before a failed pipeline is started again.
const LONGEST_RESTART: Duration = Duration::from_mins(5);
/// A source thread without a sign of life for this long is stuck. Its lanes would keep the membership alive and the
/// whole group would wait for it unnoticed, so the process ends: its partitions go to others then.
const STUCK_AFTER: Duration = Duration::from_mins(2);
/// How long counting the rows of the tables may take at the end.
const COUNTING: Duration = Duration::from_secs(15);

/// How pipelines are run.
#[derive(Default)]
pub struct RunOptions {
    /// Stop each pipeline when it has read up to the ends it found at the start; failures are final.
    pub until_end: bool,
    /// With `until_end`: give up when nothing was written for this long.
    pub timeout: Option<Duration>,
    /// Called once, with the way to look at the pipelines.
    pub on_started: Option<Box<dyn FnOnce(Views) + Send>>,
}

/// Looks at all pipelines at once.
pub type Views = Arc<dyn Fn() -> Vec<PipelineView> + Send + Sync>;

/// A pipeline as it is now.
#[derive(Clone, Debug)]
pub struct PipelineView {
    /// Its name.
    pub name: String,
    /// How it is doing.
    pub health: Health,
    /// What became of its records, over all starts in this process.
    pub books: BooksSnapshot,
}

/// How all pipelines ended, in the order they were given.
#[derive(Debug)]
pub struct RunReport {
    /// One report a pipeline.
    pub pipelines: Vec<PipelineReport>,
}

/// How one pipeline ended.
#[derive(Debug)]
pub struct PipelineReport {
    /// Its name.
    pub name: String,
    /// How it ended.
    pub outcome: Outcome,
    /// What became of its records.
    pub books: BooksSnapshot,
    /// What is in its tables now; only with `until_end`.
    pub tables: Vec<TableCount>,
    /// From its first start to its end.
    pub elapsed: Duration,
}

/// How a pipeline ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Everything is done that was there at the start, or nobody reads its output any more.
    Finished,
    /// It was asked to stop.
    Stopped,
    /// It failed, for this reason.
    Failed(String),
}

/// Runs all pipelines until each has ended. `stop` asks them to drain, commit and leave.
pub async fn run(pipelines: Vec<Pipeline>, options: RunOptions, stop: CancellationToken) -> RunReport {
    let RunOptions { until_end, timeout, on_started } = options;
    let settings = PipelineOptions { until_end, timeout };
    let supervised: Vec<Arc<Supervised>> =
        pipelines.into_iter().map(|pipeline| Arc::new(Supervised::new(pipeline, settings))).collect();
    if let Some(on_started) = on_started {
        let watched = supervised.clone();
        on_started(Arc::new(move || watched.iter().map(|one| one.view()).collect()));
    }
    let running = supervised.iter().map(|one| one.supervise(stop.clone()));
    RunReport { pipelines: join_all(running).await }
}

fn ended(stop: &CancellationToken) -> Outcome {
    if stop.is_cancelled() { Outcome::Stopped } else { Outcome::Finished }
}

/// A pipeline and the books of its starts before this one.
struct Supervised {
    pipeline: Arc<Pipeline>,
    options: PipelineOptions,
    state: Mutex<State>,
}

struct State {
    health: Health,
    before: BooksSnapshot,
    running: Option<RunningPipeline>,
}

impl Supervised {
    fn new(pipeline: Pipeline, options: PipelineOptions) -> Self {
        let state = State { health: Health::Starting, before: BooksSnapshot::default(), running: None };
        Self { pipeline: Arc::new(pipeline), options, state: Mutex::new(state) }
    }

    fn view(&self) -> PipelineView {
        self.with(|state| {
            let mut books = state.before.clone();
            let mut health = state.health.clone();
            if let Some(running) = &state.running {
                books.add(&running.books());
                health = running.health();
            }
            PipelineView { name: self.pipeline.name.clone(), health, books }
        })
    }

    async fn supervise(&self, stop: CancellationToken) -> PipelineReport {
        let started = Instant::now();
        let mut pause = FIRST_RESTART;
        let outcome = loop {
            let run_began = Instant::now();
            let Some(failure) = self.run_once(&stop).await else {
                break if stop.is_cancelled() && !self.options.until_end {
                    Outcome::Stopped
                } else {
                    ended(&stop)
                };
            };
            if failure.kind == FailureKind::OutputClosed {
                break Outcome::Finished;
            }
            self.tell(&failure);
            let final_word =
                self.options.until_end || failure.kind == FailureKind::Stopped || stop.is_cancelled();
            if final_word {
                break Outcome::Failed(failure.message);
            }
            if run_began.elapsed() > LONGEST_RESTART {
                pause = FIRST_RESTART;
            }
            tracing::info!(pipeline = %self.pipeline.name, "starting again in {} s", pause.as_secs());
            let cause = failure.message.clone();
            self.with(|state| state.health = Health::Retrying { cause, since: Instant::now() });
            tokio::select! {
                () = tokio::time::sleep(pause) => pause = (pause * 2).min(LONGEST_RESTART),
                () = stop.cancelled() => break Outcome::Failed(failure.message),
            }
        };
        let books = self.view().books;
        let tables = if self.options.until_end { self.count_rows(&books).await } else { Vec::new() };
        PipelineReport {
            name: self.pipeline.name.clone(),
            outcome,
            books,
            tables,
            elapsed: started.elapsed(),
        }
    }

    /// One start of the pipeline, to its end; answers why it failed, if it did.
    async fn run_once(&self, stop: &CancellationToken) -> Option<Failure> {
        match RunningPipeline::start(Arc::clone(&self.pipeline), self.options) {
            Ok(running) => self.with(|state| state.running = Some(running)),
            Err(failure) => return Some(failure),
        }
        let mut beats = 0;
        // Counted, not measured: while the whole process stands still, no thread shows a sign of life.
        let mut silent = Duration::ZERO;
        let mut asked = false;
        loop {
            tokio::time::sleep(LOOK).await;
            let ended = self.with(|state| {
                let running = state.running.as_ref()?;
                if stop.is_cancelled() && !asked {
                    asked = true;
                    running.stop();
                }
                if running.beats() == beats {
                    silent += LOOK;
                } else {
                    beats = running.beats();
                    silent = Duration::ZERO;
                }
                running.is_finished().then(|| (running.failure(), running.books()))
            });
            if let Some((failure, books)) = ended {
                self.with(|state| {
                    state.before.add(&books);
                    state.running = None;
                });
                return failure;
            }
            if silent > STUCK_AFTER {
                tracing::error!(
                    pipeline = %self.pipeline.name,
                    "the source thread has shown no sign of life for {} s; ending the process so that other members of \
                     the group can take over",
                    STUCK_AFTER.as_secs()
                );
                std::process::exit(1);
            }
        }
    }

    fn tell(&self, failure: &Failure) {
        if let Some(hint) = &failure.hint {
            tracing::error!(pipeline = %self.pipeline.name, "{failure}; {hint}");
        } else {
            tracing::error!(pipeline = %self.pipeline.name, "{failure}");
        }
    }

    async fn count_rows(&self, books: &BooksSnapshot) -> Vec<TableCount> {
        let by_topic = books.by_topic();
        let topics = by_topic.keys().copied().chain(self.pipeline.routes.iter().map(String::as_str));
        let tables: BTreeSet<Arc<str>> = topics.map(|topic| self.pipeline.sink.table(topic)).collect();
        let tables: Vec<Arc<str>> = tables.into_iter().collect();
        match tokio::time::timeout(COUNTING, self.pipeline.sink.count_rows(&tables)).await {
            Ok(Ok(counts)) => counts,
            Ok(Err(error)) => {
                tracing::warn!(pipeline = %self.pipeline.name, "the tables cannot be counted: {error}");
                Vec::new()
            }
            Err(_) => {
                tracing::warn!(pipeline = %self.pipeline.name, "the tables cannot be counted: no answer in time");
                Vec::new()
            }
        }
    }

    fn with<T>(&self, look: impl FnOnce(&mut State) -> T) -> T {
        // Changed by single assignments only, so a poisoned lock is as good as any.
        look(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
