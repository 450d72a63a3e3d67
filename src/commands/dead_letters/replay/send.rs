//! Sends what the plan says, and remembers what Kafka has confirmed.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::runtime::Runtime;
use txconnect_kafka::{
    CommitPosition, Confirmation, Connection, DeliveryError, OutgoingRecord, Producer, ProducerSettings,
};

use super::super::letter::Letter;
use super::super::lock::Lock;
use super::super::replayed::LONGEST_NOTE;
use super::super::scan::scan;
use super::super::{CommandError, Opened, kafka_failed};
use super::plan::{Chooser, Plan, Track, Verdict};
use crate::commands::signals::EndSignals;
use crate::commands::{runtime, say};
use crate::terminal::numbers::counted;
use crate::terminal::progress::Screen;

/// How long one letter may take to be confirmed, the time it waits for others included.
const DEADLINE: Duration = Duration::from_secs(60);
/// How often it is stored what was replayed.
const REMEMBER: Duration = Duration::from_secs(1);
/// The largest record that any broker setting in use lets through; the topic's own limit decides.
const LARGEST_REQUEST: u32 = 64 << 20;

/// What was done.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sent {
    /// Letters that Kafka has confirmed.
    pub(super) letters: u64,
    /// Letters that stay because their topic does not take records of their size.
    pub(super) too_large: u64,
}

/// Sends the letters of the plan. What was confirmed is remembered, whatever happens.
pub(super) fn send(
    opened: &Opened,
    chooser: &Chooser<'_>,
    plan: &Plan,
    lock: &mut Lock,
    screen: &Screen,
) -> Result<Sent, CommandError> {
    let runtime = runtime()?;
    let ended = end_signals(&runtime)?;
    let settings = ProducerSettings { message_max_bytes: LARGEST_REQUEST, ..ProducerSettings::default() };
    let producer = Producer::connect(&Connection::from(&opened.pipeline.source), settings);
    let producer = producer.map_err(|error| kafka_failed(&error))?;
    let mut sender = Sender {
        pipeline: &opened.pipeline.name,
        plan,
        runtime: &runtime,
        producer: &producer,
        tracks: plan.tracks().into_iter().map(|track| (track, false)).collect(),
        waiting: Vec::new(),
        refused: Vec::new(),
        sent: Sent::default(),
        remembered: Instant::now(),
    };
    let bar = screen.records_bar("sending", plan.letters());
    let read = scan(&opened.consumer, &plan.ranges, &mut |letters| {
        lock.check()?;
        sender.take_all(chooser, letters)?;
        bar.set_position(sender.sent.letters);
        if sender.remembered.elapsed() >= REMEMBER {
            sender.remember(lock, false)?;
        }
        let all = sender.sent.letters + sender.sent.too_large >= plan.letters();
        let over = all || ended.load(Ordering::Relaxed);
        Ok(if over { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
    });
    bar.finish_and_clear();
    // Letters that went before something failed are confirmed or not, and remembered if they are.
    let settled = sender.settle();
    let remembered = sender.remember(lock, true);
    let sent = sender.sent;
    let so_far = counted(sent.letters, "letter was", "letters were");
    if let Err(error) = remembered {
        return Err(CommandError::Failed(format!(
            "{so_far} sent back, but which of them is not remembered for the last of them: {error}; a further replay \
             sends these again, with the same txconnect.replay.letter in their headers"
        )));
    }
    for result in [read.map(|_| ()), settled] {
        result.map_err(|error| {
            CommandError::Failed(format!("{so_far} sent back and remembered, the others wait: {error}"))
        })?;
    }
    if ended.load(Ordering::Relaxed) && sent.letters + sent.too_large < plan.letters() {
        return Err(CommandError::Failed(format!(
            "ended by a signal: {so_far} sent back and remembered, the others wait"
        )));
    }
    Ok(sent)
}

/// Becomes true with the first signal to end; a second one ends at once.
fn end_signals(runtime: &Runtime) -> Result<Arc<AtomicBool>, CommandError> {
    let ended = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&ended);
    let _entered = runtime.enter();
    let mut signals = EndSignals::take_over()?;
    runtime.spawn(async move {
        let signal = signals.next().await;
        say(&format!("{signal}: finishing what is on its way; a second signal ends at once"));
        flag.store(true, Ordering::Relaxed);
        let signal = signals.next().await;
        say(&format!("ended at once by a second {signal}; letters of the last second may be sent again"));
        std::process::exit(1);
    });
    Ok(ended)
}

/// A letter that is to go.
#[derive(Clone, Copy)]
struct Going {
    /// Its place in the batch.
    at: usize,
    /// Its partition.
    index: usize,
    /// The offsets that are dealt with once it is confirmed.
    first: i64,
    end: i64,
}

struct Sender<'a> {
    pipeline: &'a str,
    plan: &'a Plan,
    runtime: &'a Runtime,
    producer: &'a Producer,
    /// Of each partition what is dealt with, and whether that is to be stored.
    tracks: Vec<(Track, bool)>,
    waiting: Vec<(Going, Confirmation)>,
    /// Those of the batch that Kafka has found too large, alone or together with others.
    refused: Vec<Going>,
    sent: Sent,
    remembered: Instant,
}

impl Sender<'_> {
    /// Sends those of the batch that are to go, and waits for all of them.
    fn take_all(
        &mut self,
        chooser: &Chooser<'_>,
        letters: &[(usize, Letter<'_>)],
    ) -> Result<(), CommandError> {
        for (at, (index, letter)) in letters.iter().enumerate() {
            let track = &mut self.tracks[*index].0;
            let verdict = chooser.verdict(letter, &track.replayed);
            let first = track.pass(letter.offset, verdict);
            if let Verdict::Send { topic, partition } = verdict {
                let going = Going { at, index: *index, first, end: letter.offset + 1 };
                self.hand_over(letter, topic, partition, going)?;
            }
        }
        self.settle()?;
        // The client packs records together, and the topic's limit is for the whole package: alone they may fit.
        for going in std::mem::take(&mut self.refused) {
            let letter = &letters[going.at].1;
            let verdict = chooser.verdict(letter, &self.tracks[going.index].0.replayed);
            let Verdict::Send { topic, partition } = verdict else { continue };
            self.hand_over(letter, topic, partition, going)?;
            self.settle()?;
            if self.refused.pop().is_some() {
                self.sent.too_large += 1;
                let bytes = letter.key.map_or(0, <[u8]>::len) + letter.value.map_or(0, <[u8]>::len);
                let error = DeliveryError::TooLarge { topic: topic.to_owned(), bytes };
                say(&format!("{}: {} stays: {error}", self.pipeline, letter.place()));
            }
        }
        Ok(())
    }

    fn hand_over(
        &mut self,
        letter: &Letter<'_>,
        topic: &str,
        partition: Option<i32>,
        going: Going,
    ) -> Result<(), CommandError> {
        letter.with_replay_headers(|headers| {
            let record = OutgoingRecord {
                topic,
                partition,
                key: letter.key,
                value: letter.value,
                headers,
                timestamp: letter.timestamp,
            };
            let deadline = Instant::now() + DEADLINE;
            loop {
                match self.producer.send(&record) {
                    Ok(Some(confirmation)) => {
                        self.waiting.push((going, confirmation));
                        return Ok(());
                    }
                    // Full: what is on its way makes room.
                    Ok(None) if Instant::now() < deadline => {
                        self.settle()?;
                        std::thread::sleep(Duration::from_millis(1));
                    }
                    Ok(None) => {
                        return Err(CommandError::Failed(format!(
                            "Kafka has taken nothing for {} s; run the command again",
                            DEADLINE.as_secs()
                        )));
                    }
                    Err(error) => return self.not_delivered(&error, going),
                }
            }
        })
    }

    /// Waits for all that is on its way. Fails with the first failure, when the fate of all is known.
    fn settle(&mut self) -> Result<(), CommandError> {
        let mut failed = Ok(());
        for (going, confirmation) in std::mem::take(&mut self.waiting) {
            let outcome = self.runtime.block_on(async { tokio::time::timeout(DEADLINE, confirmation).await });
            let outcome = match outcome {
                Ok(Ok(_)) => {
                    let (track, changed) = &mut self.tracks[going.index];
                    track.replayed.insert(going.first, going.end);
                    *changed = true;
                    self.sent.letters += 1;
                    Ok(())
                }
                Ok(Err(error)) => self.not_delivered(&error, going),
                Err(_) => Err(self.failed(
                    going,
                    &format!("no answer within {} s; it may be stored all the same", DEADLINE.as_secs()),
                )),
            };
            failed = failed.and(outcome);
        }
        failed
    }

    /// The size of a letter is its own affair; everything else would happen to the next one too.
    fn not_delivered(&mut self, error: &DeliveryError, going: Going) -> Result<(), CommandError> {
        if let DeliveryError::TooLarge { .. } = error {
            self.refused.push(going);
            return Ok(());
        }
        Err(self.failed(going, &error.to_string()))
    }

    fn failed(&self, going: Going, why: &str) -> CommandError {
        let partition = &self.plan.ranges[going.index].partition;
        CommandError::Failed(format!("the letter at {} of {partition}: {why}", going.end - 1))
    }

    /// Stores what was confirmed. `last` where nothing can make the note shorter any more.
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
