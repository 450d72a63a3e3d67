//! Letters on their way back to the topics they came from.

use std::time::{Duration, Instant};

use tokio::runtime::Runtime;
use txconnect_kafka::{Confirmation, Connection, DeliveryError, OutgoingRecord, Producer, ProducerSettings};

use super::super::{CommandError, Opened, kafka_failed};
use super::send::{Destination, Going};
use crate::commands::say;

/// How long one letter may take to be confirmed, the time it waits for others included.
const DEADLINE: Duration = Duration::from_mins(1);
/// The largest record that any broker setting in use lets through; the topic's own limit decides.
const LARGEST_REQUEST: u32 = 64 << 20;

/// The topics that the records came from.
pub(super) struct Topics<'a> {
    pipeline: &'a str,
    runtime: &'a Runtime,
    producer: Producer,
}

/// A letter that Kafka has not confirmed yet: its position among those that go.
type OnTheWay = (usize, Confirmation);

impl<'a> Topics<'a> {
    pub(super) fn connect(opened: &'a Opened, runtime: &'a Runtime) -> Result<Self, CommandError> {
        let settings = ProducerSettings { message_max_bytes: LARGEST_REQUEST, ..ProducerSettings::default() };
        let producer = Producer::connect(&Connection::from(&opened.pipeline.source), settings);
        let producer = producer.map_err(|error| kafka_failed(&error))?;
        Ok(Self { pipeline: &opened.pipeline.name, runtime, producer })
    }

    /// Waits for what is on its way. Fails with the first failure, when the fate of all is known.
    fn settle(
        &self,
        letters: &[Going<'_>],
        waiting: &mut Vec<OnTheWay>,
        outcome: &mut Outcome<'_>,
    ) -> Result<(), CommandError> {
        let mut failed = Ok(());
        for (at, confirmation) in waiting.drain(..) {
            let result = self.runtime.block_on(async { tokio::time::timeout(DEADLINE, confirmation).await });
            let result = match result {
                Ok(Ok(_)) => {
                    outcome.arrived.push(at);
                    Ok(())
                }
                Ok(Err(error)) => outcome.not_delivered(&error, at, &letters[at]),
                Err(_) => Err(CommandError::Failed(format!(
                    "{}: no answer within {} s; the record may be stored all the same",
                    letters[at].letter.place(),
                    DEADLINE.as_secs()
                ))),
            };
            failed = failed.and(result);
        }
        failed
    }

    fn hand_over(
        &self,
        letters: &[Going<'_>],
        at: usize,
        waiting: &mut Vec<OnTheWay>,
        outcome: &mut Outcome<'_>,
    ) -> Result<(), CommandError> {
        let Going { letter, topic, partition, .. } = &letters[at];
        letter.with_replay_headers(|headers| {
            let record = OutgoingRecord {
                topic,
                partition: *partition,
                key: letter.key,
                value: letter.value,
                headers,
                timestamp: letter.timestamp,
            };
            let deadline = Instant::now() + DEADLINE;
            loop {
                match self.producer.send(&record) {
                    Ok(Some(confirmation)) => {
                        waiting.push((at, confirmation));
                        return Ok(());
                    }
                    // Full: what is on its way makes room.
                    Ok(None) if Instant::now() < deadline => {
                        self.settle(letters, waiting, outcome)?;
                        std::thread::sleep(Duration::from_millis(1));
                    }
                    Ok(None) => {
                        return Err(CommandError::Failed(format!(
                            "Kafka has taken nothing for {} s; run the command again",
                            DEADLINE.as_secs()
                        )));
                    }
                    Err(error) => return outcome.not_delivered(&error, at, &letters[at]),
                }
            }
        })
    }

    fn hand_over_all(
        &self,
        letters: &[Going<'_>],
        waiting: &mut Vec<OnTheWay>,
        outcome: &mut Outcome<'_>,
    ) -> Result<(), CommandError> {
        (0..letters.len()).try_for_each(|at| self.hand_over(letters, at, waiting, outcome))
    }
}

/// What has become of letters.
struct Outcome<'a> {
    arrived: &'a mut Vec<usize>,
    /// Those that Kafka has found too large, alone or together with others.
    too_large: Vec<usize>,
}

impl Outcome<'_> {
    /// The size of a letter is its own affair; everything else would happen to the next one too.
    fn not_delivered(
        &mut self,
        error: &DeliveryError,
        at: usize,
        going: &Going<'_>,
    ) -> Result<(), CommandError> {
        if let DeliveryError::TooLarge { .. } = error {
            self.too_large.push(at);
            return Ok(());
        }
        Err(CommandError::Failed(format!("{}: {error}", going.letter.place())))
    }
}

impl Destination for Topics<'_> {
    fn deliver(&mut self, letters: &[Going<'_>], arrived: &mut Vec<usize>) -> Result<(), CommandError> {
        let mut outcome = Outcome { arrived, too_large: Vec::new() };
        let mut waiting = Vec::new();
        let handed_over = self.hand_over_all(letters, &mut waiting, &mut outcome);
        // Also after a failure: what went before it is confirmed or not.
        let settled = self.settle(letters, &mut waiting, &mut outcome);
        handed_over.and(settled)?;
        // The client packs records together, and the topic's limit is for the whole package: alone they may fit.
        for at in std::mem::take(&mut outcome.too_large) {
            self.hand_over(letters, at, &mut waiting, &mut outcome)?;
            self.settle(letters, &mut waiting, &mut outcome)?;
            if outcome.too_large.pop().is_some() {
                let Going { letter, topic, .. } = &letters[at];
                let bytes = letter.key.map_or(0, <[u8]>::len) + letter.value.map_or(0, <[u8]>::len);
                let error = DeliveryError::TooLarge { topic: (*topic).to_owned(), bytes };
                say(&format!("{}: {} stays: {error}", self.pipeline, letter.place()));
            }
        }
        Ok(())
    }
}
