//! Publishes rows after the commit that counts them, and finalizes streams that nothing depends on any more.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::sync::Notify;
use txconnect_connector_api::{SinkError, WriteStreams};

use super::backoff::Backoff;
use super::shared::{Failure, Shared};
use crate::delivery::Step;

/// Insurance against a wake-up that never comes.
const TICK: Duration = Duration::from_secs(1);
/// How often a stream that nobody waits for is tried to be finalized: the commit names it, so whoever reads the
/// partition next does it otherwise.
const TRIES_FOR_OTHERS: u32 = 3;

/// The publisher of one pipeline at work.
pub(super) struct Publisher {
    ending: Arc<Ending>,
    done: Receiver<()>,
}

#[derive(Default)]
struct Ending {
    asked: AtomicBool,
    notify: Notify,
}

impl Publisher {
    /// Starts it where the sink has streams.
    pub(super) fn start(
        streams: Arc<dyn WriteStreams>,
        shared: &Arc<Shared>,
        runtime: &tokio::runtime::Handle,
    ) -> Self {
        let ending = Arc::new(Ending::default());
        let (finished, done) = sync_channel(1);
        runtime.spawn(run(streams, Arc::clone(shared), Arc::clone(&ending), finished));
        Self { ending, done }
    }

    /// Lets it finish what is to be done, for at most `longest`.
    pub(super) fn end(self, longest: Duration) {
        self.ending.asked.store(true, Ordering::Release);
        self.ending.notify.notify_one();
        // Whatever is left is named in the group's commits.
        let _ = self.done.recv_timeout(longest);
    }
}

async fn run(
    streams: Arc<dyn WriteStreams>,
    shared: Arc<Shared>,
    ending: Arc<Ending>,
    finished: SyncSender<()>,
) {
    let mut running = FuturesUnordered::new();
    loop {
        let stirred = shared.watch();
        tokio::pin!(stirred);
        stirred.as_mut().enable();
        for step in shared.steps() {
            running.push(perform(&*streams, &shared, &ending, step));
        }
        if running.is_empty() && ending.asked.load(Ordering::Acquire) {
            break;
        }
        tokio::select! {
            Some(()) = running.next(), if !running.is_empty() => {}
            () = stirred => {}
            () = ending.notify.notified() => {}
            () = tokio::time::sleep(TICK) => {}
        }
    }
    drop(running);
    // Nobody may be waiting.
    let _ = finished.try_send(());
}

/// Does one step, however long the sink is away; unless the partition is not ours any more.
async fn perform(streams: &dyn WriteStreams, shared: &Shared, ending: &Ending, step: Step) {
    let mut backoff = Backoff::new();
    let mut waiting = None;
    let mut tries = 0;
    loop {
        let answer = match &step {
            Step::Publish { slot, assignment, stream, end } => {
                streams.publish(stream, *end).await.map(|published| {
                    if published != txconnect_connector_api::Published::Visible {
                        tracing::warn!(
                            pipeline = %shared.name,
                            "stream {stream}: {} rows are committed, and the stream is {}; looking at the partition anew",
                            end,
                            if published == txconnect_connector_api::Published::Missing { "gone" } else { "finalized" }
                        );
                    }
                    shared.published(*slot, *assignment, stream, *end, published);
                })
            }
            Step::Finalize { slot, assignment, stream } => {
                streams.finalize(stream).await.map(|()| shared.finalized(*slot, *assignment, stream))
            }
            Step::LeaveBehind { stream } => streams.finalize(stream).await,
        };
        let (cause, asked) = match answer {
            Ok(()) => {
                drop(waiting);
                shared.recovered();
                return;
            }
            Err(SinkError::Transient { cause, retry_after }) => (cause, retry_after),
            Err(SinkError::Fatal { cause, hint }) if !matches!(step, Step::LeaveBehind { .. }) => {
                return shared.fail(Failure::fatal(cause, hint));
            }
            Err(other) => (other.to_string(), None),
        };
        let is_over = match &step {
            Step::Publish { slot, assignment, .. } | Step::Finalize { slot, assignment, .. } => {
                !shared.ask(|machine| machine.is_current(*slot, *assignment))
            }
            Step::LeaveBehind { .. } => {
                tries += 1;
                tries >= TRIES_FOR_OTHERS
            }
        };
        if is_over || ending.asked.load(Ordering::Acquire) {
            tracing::debug!(pipeline = %shared.name, "left to whoever reads the partition next: {cause}");
            return;
        }
        let pause = backoff.next(asked);
        if !matches!(step, Step::LeaveBehind { .. }) {
            waiting.get_or_insert_with(|| shared.wait());
            if shared.retrying(&cause) {
                tracing::warn!(
                    pipeline = %shared.name,
                    "the sink is away, rows that are committed are published later; trying again in {:.1} s: {cause}",
                    pause.as_secs_f32()
                );
            }
        }
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = ending.notify.notified() => ending.notify.notify_one(),
        }
    }
}
