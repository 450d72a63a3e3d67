//! The lanes of a pipeline: started when partitions come, ended when the pipeline leaves.

use std::num::NonZeroU16;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use txconnect_kafka::{Consumer, LaneHandle};

use super::dead_letters::DeadLetterQueue;
use super::lane::{BatchRules, Command, Lane, LaneReport, LaneSetup};
use super::shared::{Failure, Shared};
use super::wake::Wake;
use super::writer::{self, WriterSetup};
use crate::config::Pipeline;
use crate::delivery::Slot;

/// Lanes unless the user says otherwise; more share the same cores.
const USUAL_LANES: usize = 4;

/// Commands that may wait for a lane. Lanes take them between any two records' batches.
const COMMANDS: usize = 1024;

/// How long a lane may take to end. It does so between two batches of records.
const LANE_ENDS: Duration = Duration::from_secs(10);

pub(super) struct Lanes {
    pipeline: Arc<Pipeline>,
    shared: Arc<Shared>,
    runtime: Handle,
    reports: SyncSender<LaneReport>,
    dead_letters: Option<Arc<DeadLetterQueue>>,
    most: usize,
    running: Vec<RunningLane>,
}

struct RunningLane {
    commands: SyncSender<Command>,
    wake: Arc<Wake>,
    queue: LaneHandle,
    in_flight: Arc<AtomicUsize>,
    thread: JoinHandle<()>,
    writer: tokio::task::JoinHandle<()>,
}

impl Lanes {
    /// The number of lanes a pipeline may have.
    pub(super) fn at_most(wanted: Option<NonZeroU16>) -> usize {
        wanted.map_or_else(
            || std::thread::available_parallelism().map_or(1, usize::from).min(USUAL_LANES),
            |wanted| usize::from(wanted.get()),
        )
    }

    pub(super) fn new(
        pipeline: Arc<Pipeline>,
        shared: Arc<Shared>,
        runtime: Handle,
        reports: SyncSender<LaneReport>,
        most: usize,
    ) -> Self {
        let dead_letters = DeadLetterQueue::of(&pipeline, &shared);
        Self { pipeline, shared, runtime, reports, dead_letters, most, running: Vec::new() }
    }

    /// The lane for another partition: a new one while there may be more, else the one with the fewest. `held` names
    /// the lane of every partition held.
    pub(super) fn least_loaded(&mut self, held: &[usize], consumer: &Consumer) -> Result<usize, Failure> {
        let load = |lane: usize| held.iter().filter(|other| **other == lane).count();
        let idle = (0..self.running.len()).min_by_key(|lane| load(*lane)).filter(|lane| load(*lane) == 0);
        if let Some(lane) = idle {
            return Ok(lane);
        }
        if self.running.len() < self.most {
            self.start(consumer)?;
            return Ok(self.running.len() - 1);
        }
        Ok((0..self.running.len()).min_by_key(|lane| load(*lane)).unwrap_or(0))
    }

    fn start(&mut self, consumer: &Consumer) -> Result<(), Failure> {
        let number = self.running.len();
        let wake = Arc::new(Wake::default());
        let waker = Arc::clone(&wake);
        let queue = consumer
            .lane_queue(Arc::new(move || waker.notify()))
            .map_err(|error| Failure::fatal(error.to_string(), None))?;
        let handle = queue.handle();
        let (commands, orders) = sync_channel(COMMANDS);
        let sink = Arc::clone(&self.pipeline.sink);
        let mut limits = sink.limits();
        if self.shared.keeps_offsets_in_sink() {
            // A transaction begins where the one before it has ended.
            limits.in_flight = 1;
        }
        let (flushes, handed_over) = tokio::sync::mpsc::channel(limits.in_flight.max(1));
        let in_flight = Arc::new(AtomicUsize::new(0));
        let batch = &self.pipeline.batch;
        let lane = LaneSetup {
            shared: Arc::clone(&self.shared),
            pipeline: Arc::clone(&self.pipeline),
            sink: Arc::clone(&sink),
            limits,
            rules: BatchRules {
                rows: usize::try_from(batch.rows.get()).unwrap_or(usize::MAX).min(limits.request_rows),
                bytes: batch.bytes.as_usize().min(limits.request_bytes),
                linger: batch.linger.0,
            },
            queue,
            wake: Arc::clone(&wake),
            commands: orders,
            reports: self.reports.clone(),
            flushes,
            in_flight: Arc::clone(&in_flight),
        };
        let guard = FailOnPanic(Arc::clone(&self.shared));
        let thread = std::thread::Builder::new()
            .name(format!("{}/lane-{number}", self.pipeline.name))
            .spawn(move || {
                let _guard = guard;
                Lane::new(lane).run();
            })
            .map_err(|error| Failure::fatal(format!("a lane's thread does not start: {error}"), None))?;
        let setup = WriterSetup {
            shared: Arc::clone(&self.shared),
            sink,
            most: limits.in_flight,
            on_error: self.pipeline.on_error,
            dead_letters: self.dead_letters.clone(),
            flushes: handed_over,
            in_flight: Arc::clone(&in_flight),
            lane: Arc::clone(&wake),
        };
        let guard = FailOnPanic(Arc::clone(&self.shared));
        let writer = self.runtime.spawn(async move {
            let _guard = guard;
            writer::run(setup).await;
        });
        self.running.push(RunningLane { commands, wake, queue: handle, in_flight, thread, writer });
        Ok(())
    }

    /// Gives a lane a command and wakes it.
    pub(super) fn send(&self, lane: usize, command: Command) {
        let Some(lane) = self.running.get(lane) else { return };
        // A lane that has ended has said why by failing the pipeline.
        if lane.commands.send(command).is_ok() {
            lane.wake.notify();
        }
    }

    /// Forgets partitions with everything taken of them.
    pub(super) fn drop_partitions(&self, by_lane: &[(usize, Vec<Slot>)]) {
        for (lane, slots) in by_lane {
            self.send(*lane, Command::Drop { slots: slots.clone() });
        }
    }

    pub(super) fn queue(&self, lane: usize) -> &LaneHandle {
        &self.running[lane].queue
    }

    /// Whether any flush is with a writer.
    pub(super) fn any_in_flight(&self) -> bool {
        self.running.iter().any(|lane| lane.in_flight.load(Ordering::Acquire) > 0)
    }

    /// Ends all lanes; what is still with the writers is given up.
    pub(super) fn end(self) {
        for lane in self.running {
            if lane.commands.send(Command::End).is_ok() {
                lane.wake.notify();
            }
            let deadline = Instant::now() + LANE_ENDS;
            while !lane.thread.is_finished() && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(1));
            }
            if !lane.thread.is_finished() {
                tracing::error!(pipeline = %self.shared.name, "a lane does not end; leaving the group without it");
            } else if lane.thread.join().is_err() {
                tracing::error!(pipeline = %self.shared.name, "a lane has panicked");
            }
            lane.writer.abort();
        }
    }
}

/// Fails the pipeline when its owner panics: a lane that is silently gone would look like no records.
struct FailOnPanic(Arc<Shared>);

impl Drop for FailOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.fail(Failure::fatal(
                "a thread of the pipeline has panicked: this is a defect of txconnect",
                None,
            ));
        }
    }
}
