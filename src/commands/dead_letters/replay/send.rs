//! Brings letters to where they go, and remembers which have arrived.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::runtime::Runtime;
use txconnect_kafka::CommitPosition;

use super::super::letter::Letter;
use super::super::lock::Lock;
use super::super::replayed::LONGEST_NOTE;
use super::super::scan::scan;
use super::super::{CommandError, Opened};
use super::plan::{Chooser, Plan, Track, Verdict};
use crate::commands::say;
use crate::commands::signals::EndSignals;
use crate::terminal::numbers::counted;
use crate::terminal::progress::Screen;

/// How often it is stored what has arrived.
const REMEMBER: Duration = Duration::from_secs(1);

/// A letter that is to go.
pub(super) struct Going<'l> {
    pub(super) letter: &'l Letter<'l>,
    /// The topic that its record came from.
    pub(super) topic: &'l str,
    /// A partition of that topic; none where it is gone or not known.
    pub(super) partition: Option<i32>,
    /// The partition that the letter stands in, as an index.
    index: usize,
    /// The first offset that is dealt with once the letter has arrived.
    first: i64,
}

/// Where letters go.
pub(super) trait Destination {
    /// Brings the letters there, in their order. Adds to `arrived` the positions of those that have arrived, also when it
    /// fails then. Those of which it says nothing stay.
    ///
    /// # Errors
    /// What would happen to every further letter too.
    fn deliver(&mut self, letters: &[Going<'_>], arrived: &mut Vec<usize>) -> Result<(), CommandError>;
}

/// What was done.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sent {
    /// Letters that have arrived.
    pub(super) arrived: u64,
    /// Letters that were tried and stay.
    pub(super) stayed: u64,
}

/// Brings the letters of the plan to `destination`. What has arrived is remembered, whatever happens.
pub(super) fn send(
    opened: &Opened,
    chooser: &Chooser<'_>,
    plan: &Plan,
    destination: &mut dyn Destination,
    lock: &mut Lock,
    ended: &AtomicBool,
    screen: &Screen,
) -> Result<Sent, CommandError> {
    let mut sender = Sender {
        pipeline: &opened.pipeline.name,
        plan,
        tracks: plan.tracks().into_iter().map(|track| (track, false)).collect(),
        sent: Sent::default(),
        remembered: Instant::now(),
    };
    let bar = screen.records_bar("replaying", plan.letters());
    let result = scan(&opened.consumer, &plan.ranges, &mut |letters| {
        lock.check()?;
        sender.deliver(chooser, letters, destination)?;
        bar.set_position(sender.tried());
        if sender.remembered.elapsed() >= REMEMBER {
            sender.remember(lock, false)?;
        }
        let over = sender.tried() >= plan.letters() || ended.load(Ordering::Relaxed);
        Ok(if over { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
    });
    bar.finish_and_clear();
    let remembered = sender.remember(lock, true);
    let (sent, tried) = (sender.sent, sender.tried());
    let so_far = counted(sent.arrived, "letter was", "letters were");
    if let Err(error) = remembered {
        return Err(CommandError::Failed(format!(
            "{so_far} replayed, but it could not be stored that the last of them are: {error}; the next replay takes \
             these again"
        )));
    }
    result.map_err(|error| {
        CommandError::Failed(format!("{so_far} replayed, the others wait, and that is remembered: {error}"))
    })?;
    if ended.load(Ordering::Relaxed) && tried < plan.letters() {
        return Err(CommandError::Failed(format!(
            "ended by a signal: {so_far} replayed, the others wait, and that is remembered"
        )));
    }
    Ok(sent)
}

/// Becomes true with the first signal to end; a second one ends at once.
pub(super) fn end_signals(runtime: &Runtime) -> Result<Arc<AtomicBool>, CommandError> {
    let ended = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&ended);
    let _entered = runtime.enter();
    let mut signals = EndSignals::take_over()?;
    runtime.spawn(async move {
        let signal = signals.next().await;
        say(&format!("{signal}: finishing what is on its way; a second signal ends at once"));
        flag.store(true, Ordering::Relaxed);
        let signal = signals.next().await;
        say(&format!("ended at once by a second {signal}; letters of the last second may be replayed again"));
        std::process::exit(1);
    });
    Ok(ended)
}

struct Sender<'a> {
    pipeline: &'a str,
    plan: &'a Plan,
    /// Of each partition what is dealt with, and whether that is to be stored.
    tracks: Vec<(Track, bool)>,
    sent: Sent,
    remembered: Instant,
}

impl Sender<'_> {
    fn tried(&self) -> u64 {
        self.sent.arrived + self.sent.stayed
    }

    /// Delivers those of the letters that are to go.
    fn deliver(
        &mut self,
        chooser: &Chooser<'_>,
        letters: &[(usize, Letter<'_>)],
        destination: &mut dyn Destination,
    ) -> Result<(), CommandError> {
        let mut going = Vec::new();
        for (index, letter) in letters {
            let track = &mut self.tracks[*index].0;
            let verdict = chooser.verdict(letter, &track.replayed);
            let first = track.pass(letter.offset, verdict);
            if let Verdict::Send { topic, partition } = verdict {
                going.push(Going { letter, topic, partition, index: *index, first });
            }
        }
        if going.is_empty() {
            return Ok(());
        }
        let mut arrived = Vec::with_capacity(going.len());
        let result = destination.deliver(&going, &mut arrived);
        for one in arrived.iter().filter_map(|at| going.get(*at)) {
            let (track, changed) = &mut self.tracks[one.index];
            track.replayed.insert(one.first, one.letter.offset + 1);
            *changed = true;
        }
        self.sent.arrived += arrived.len() as u64;
        result?;
        self.sent.stayed += (going.len() - arrived.len()) as u64;
        Ok(())
    }

    /// Stores what has arrived. `last` where nothing can make the note shorter any more.
    fn remember(&mut self, lock: &mut Lock, last: bool) -> Result<(), CommandError> {
        let mut positions = Vec::new();
        let mut stored = Vec::new();
        for (index, (track, changed)) in self.tracks.iter().enumerate() {
            if !changed {
                continue;
            }
            let metadata = self.plan.note(self.pipeline, index, &track.replayed).text();
            // Pieces that grow together make it shorter: the plan has seen that it fits at the end.
            if metadata.len() <= LONGEST_NOTE || last {
                stored.push(index);
                positions.push(CommitPosition {
                    partition: self.plan.ranges[index].partition.clone(),
                    next_offset: track.replayed.next(),
                    metadata: Some(metadata),
                });
            }
        }
        lock.remember(&positions)?;
        for index in stored {
            self.tracks[index].1 = false;
        }
        self.remembered = Instant::now();
        Ok(())
    }
}
