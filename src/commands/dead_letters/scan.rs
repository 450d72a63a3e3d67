//! Reads letters, once and to an end that is known before.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::{Duration, Instant};

use txconnect_connector_api::TopicPartition;
use txconnect_kafka::{
    Assignment, Consumer, ConsumerEvent, LaneQueue, Message, MessageBatch, MessageErrorKind, StartAt,
    TroubleKind,
};

use super::letter::Letter;
use super::{CommandError, QUESTION, kafka_failed};

/// The most letters that are taken at once.
const BATCH: usize = 500;
/// How long one turn waits for letters.
const TURN: Duration = Duration::from_millis(50);
/// How long nothing may come while something must.
const PATIENCE: Duration = Duration::from_secs(30);

/// Offsets of one partition that are to be read.
#[derive(Clone, Debug)]
pub(super) struct Range {
    pub(super) partition: TopicPartition,
    /// The first offset.
    pub(super) from: i64,
    /// The offset after the last.
    pub(super) to: i64,
}

/// Takes some letters, each with the index of its range, and says whether it wants more.
pub(super) type Take<'t> = dyn FnMut(&[(usize, Letter<'_>)]) -> Result<ControlFlow<()>, CommandError> + 't;

/// A partition while it is read.
struct Reading {
    /// Its place among the ranges.
    index: usize,
    next: i64,
    to: i64,
}

/// Reads the letters of `ranges` and hands them over as they come: those of one partition in their order, each with the
/// index of its range. Ends early where `take` says so. Answers whether it has read them all.
pub(super) fn scan(consumer: &Consumer, ranges: &[Range], take: &mut Take<'_>) -> Result<bool, CommandError> {
    let mut scan = Scan::start(consumer, ranges)?;
    let result = scan.read(take);
    let stopped = consumer.unassign(&scan.partitions).map_err(|error| kafka_failed(&error));
    let all = result?;
    stopped?;
    Ok(all)
}

struct Scan<'c> {
    consumer: &'c Consumer,
    queue: LaneQueue,
    woken: Receiver<()>,
    /// Those that are assigned.
    partitions: Vec<TopicPartition>,
    /// Those whose end is not reached.
    reading: HashMap<TopicPartition, Reading>,
    trouble: Option<String>,
}

impl<'c> Scan<'c> {
    fn start(consumer: &'c Consumer, ranges: &[Range]) -> Result<Self, CommandError> {
        let (wake, woken) = sync_channel(1);
        let wake = Arc::new(move || {
            // Full means that the wake-up is not served yet.
            let _ = wake.try_send(());
        });
        let queue = consumer.lane_queue(wake).map_err(|error| kafka_failed(&error))?;
        let wanted = || ranges.iter().enumerate().filter(|(_, range)| range.from < range.to);
        let handle = queue.handle();
        let assignments: Vec<Assignment<'_>> = wanted()
            .map(|(_, range)| Assignment {
                partition: &range.partition,
                start: StartAt::Offset(range.from),
                queue: &handle,
            })
            .collect();
        consumer.assign(&assignments).map_err(|error| kafka_failed(&error))?;
        let reading = wanted().map(|(index, range)| {
            (range.partition.clone(), Reading { index, next: range.from, to: range.to })
        });
        let reading: HashMap<_, _> = reading.collect();
        let partitions = reading.keys().cloned().collect();
        Ok(Self { consumer, queue, woken, partitions, reading, trouble: None })
    }

    fn read(&mut self, take: &mut Take<'_>) -> Result<bool, CommandError> {
        let mut batch = MessageBatch::new();
        let mut moved = Instant::now();
        while !self.reading.is_empty() {
            self.serve()?;
            if self.queue.take(&mut batch, BATCH) == 0 {
                self.look_for_ends()?;
                if moved.elapsed() >= PATIENCE {
                    return Err(self.stuck());
                }
                if !self.reading.is_empty() {
                    // Woken or not: the next turn looks.
                    let _ = self.woken.recv_timeout(TURN);
                }
                continue;
            }
            let mut letters = Vec::with_capacity(batch.len());
            for message in batch.iter() {
                self.sort_out(message, &mut letters)?;
            }
            if !letters.is_empty() {
                if take(&letters)?.is_break() {
                    return Ok(false);
                }
                // Not when they came: what is done with them may take its time.
                moved = Instant::now();
            }
        }
        Ok(true)
    }

    /// Adds the letter of the message to `letters`, if it is one that is wanted.
    fn sort_out<'m>(
        &mut self,
        message: Message<'m>,
        letters: &mut Vec<(usize, Letter<'m>)>,
    ) -> Result<(), CommandError> {
        let partition = TopicPartition::new(message.topic(), message.partition());
        let Some(reading) = self.reading.get_mut(&partition) else { return Ok(()) };
        if let Some(error) = message.error() {
            let start = match error.kind {
                // Retention was faster.
                MessageErrorKind::OffsetOutOfRange => StartAt::Beginning,
                MessageErrorKind::UnknownTopic | MessageErrorKind::Authorization => {
                    return Err(CommandError::Failed(format!("reading {partition}: {}", error.message)));
                }
                _ => StartAt::Offset(reading.next),
            };
            self.trouble = Some(format!("reading {partition}: {}", error.message));
            return self.consumer.seek(&partition, start, QUESTION).map_err(|error| kafka_failed(&error));
        }
        let offset = message.offset();
        if offset >= reading.next && offset < reading.to {
            reading.next = offset + 1;
            letters.push((reading.index, Letter::of(message)));
        }
        if offset + 1 >= reading.to {
            self.reading.remove(&partition);
        }
        Ok(())
    }

    /// What stands at the end of a partition may be no letter, but the marker of a transaction.
    fn look_for_ends(&mut self) -> Result<(), CommandError> {
        let partitions: Vec<TopicPartition> = self.reading.keys().cloned().collect();
        let positions = self.consumer.positions(&partitions).map_err(|error| kafka_failed(&error))?;
        for (partition, position) in partitions.iter().zip(positions) {
            let at_end = |reading: &Reading| position.is_some_and(|position| position >= reading.to);
            if self.reading.get(partition).is_some_and(at_end) {
                self.reading.remove(partition);
            }
        }
        Ok(())
    }

    fn serve(&mut self) -> Result<(), CommandError> {
        while let Some(event) = self.consumer.poll(Duration::ZERO) {
            let ConsumerEvent::Trouble(trouble) = event else { continue };
            let ends = matches!(
                trouble.kind,
                TroubleKind::Fatal | TroubleKind::Authentication | TroubleKind::Authorization
            );
            if ends {
                return Err(CommandError::Failed(format!("reading dead letters: {}", trouble.message)));
            }
            self.trouble = Some(trouble.message);
        }
        Ok(())
    }

    fn stuck(&self) -> CommandError {
        let waiting: Vec<String> = self.reading.keys().map(ToString::to_string).collect();
        let cause = self.trouble.as_ref().map(|trouble| format!(": {trouble}")).unwrap_or_default();
        CommandError::Failed(format!(
            "no dead letter has come for {} s, although there are more in {}{cause}; look at the brokers and run the \
             command again",
            PATIENCE.as_secs(),
            waiting.join(", ")
        ))
    }
}
