//! The dead letter queue: bad records as they came, with the reason in headers.
//!
//! Key, value, headers and timestamp are unchanged. The headers added are named as Kafka Connect names them
//! (`__connect.errors.…`, Apache Kafka's `DeadLetterQueueReporter`), so that existing tools read them; what it has
//! no name for is under `txconnect.error.…`. Delivery is at-least-once; topic, partition and offset identify a
//! letter.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use bumpalo::Bump;
use tokio::sync::{Mutex, OnceCell};
use txconnect_connector_api::{BadRecord, Header};
use txconnect_kafka::{
    Admin, Connection, DeliveryError, KafkaError, OutgoingRecord, Producer, ProducerSettings,
};

use super::records::RecordView;
use super::shared::{Failure, Shared};
use crate::config::Pipeline;
use crate::config::model::DeadLetters;
use crate::stages::Stage;

/// How long one letter may take before it is tried again.
const DEADLINE: Duration = Duration::from_secs(30);

/// Room for the headers that a letter gets beside what the record had.
const HEADER_ROOM: u64 = 64 << 10;

/// The longest trace that a letter gets, in bytes.
const LONGEST_TRACE: usize = 8 << 10;

/// The largest record that any broker setting in use lets through; the topic's own limit decides.
const LARGEST_REQUEST: u32 = 64 << 20;

/// Where bad records of one pipeline go.
pub(super) struct DeadLetterQueue {
    shared: Arc<Shared>,
    settings: DeadLetters,
    connection: Connection,
    producer: OnceCell<Producer>,
    admin: OnceCell<Admin>,
    /// Partitions of the dead letter topics that are known to be there.
    topics: Mutex<HashMap<String, usize>>,
    /// Kinds of mistakes that were told, by topic.
    told: Mutex<HashSet<(Arc<str>, String)>>,
}

/// Why a letter is not stored.
pub(super) enum LetterError {
    /// Worth another try, for this cause.
    Again(String),
    /// Kafka will never take it.
    Never(Failure),
}

/// A bad record with the reason.
pub(super) struct Letter<'a> {
    pub(super) view: RecordView<'a>,
    pub(super) stage: Stage,
    pub(super) why: &'a BadRecord,
}

impl DeadLetterQueue {
    pub(super) fn of(pipeline: &Pipeline, shared: &Arc<Shared>) -> Option<Arc<Self>> {
        Some(Arc::new(Self {
            shared: Arc::clone(shared),
            settings: pipeline.dead_letters.clone()?,
            connection: Connection::from(&pipeline.source),
            producer: OnceCell::new(),
            admin: OnceCell::new(),
            topics: Mutex::default(),
            told: Mutex::default(),
        }))
    }

    /// Sends one letter and waits for its confirmation.
    ///
    /// # Errors
    /// Says whether it is worth another try.
    pub(super) async fn deliver(&self, letter: &Letter<'_>) -> Result<(), LetterError> {
        let Some(partition) = self.shared.books.partition_of(letter.view.origin().slot) else {
            return Err(LetterError::Never(Failure::fatal(
                "a dead letter came from a partition that nobody knows",
                None,
            )));
        };
        let topic = self.settings.topic.for_topic(&partition.topic);
        let partitions = self.partitions_of(&topic, &partition.topic).await?;
        let producer = self.producer().await.map_err(|error| refused(&topic, &error))?;
        let arena = Bump::new();
        let number = partition.partition.to_string();
        let offset = letter.view.offset().to_string();
        let added = [
            ("__connect.errors.topic", &*partition.topic),
            ("__connect.errors.partition", &number),
            ("__connect.errors.offset", &offset),
            ("__connect.errors.connector.name", &self.shared.name),
            ("__connect.errors.stage", letter.stage.name()),
            ("__connect.errors.exception.class.name", &letter.why.class),
            ("__connect.errors.exception.message", &letter.why.message),
            ("txconnect.error.path", &letter.why.path),
        ];
        let mut headers = letter.view.headers(&arena).to_vec();
        headers.extend(added.iter().map(|(name, value)| Header { name, value: Some(value.as_bytes()) }));
        let without_trace = headers.len();
        headers.extend(letter.why.trace.as_deref().map(|trace| Header {
            name: "__connect.errors.exception.stacktrace",
            value: Some(beginning_of(trace, LONGEST_TRACE).as_bytes()),
        }));
        let same_number = usize::try_from(partition.partition).is_ok_and(|number| number < partitions);
        let mut record = OutgoingRecord {
            topic: &topic,
            partition: same_number.then_some(partition.partition),
            key: letter.view.key(),
            value: letter.view.value(),
            headers: &headers,
            timestamp: letter.view.timestamp(),
        };
        let mut delivered = producer.deliver(&record, DEADLINE).await;
        if matches!(delivered, Err(DeliveryError::TooLarge { .. })) && headers.len() > without_trace {
            record.headers = &headers[..without_trace];
            delivered = producer.deliver(&record, DEADLINE).await;
        }
        match delivered {
            Ok(_) => {
                let place =
                    Shared::place(letter.stage, &partition.topic, partition.partition, letter.view.offset());
                let kind = (Arc::clone(&partition.topic), letter.why.class.to_string());
                if self.told.lock().await.insert(kind) {
                    tracing::warn!(
                        pipeline = %self.shared.name,
                        "{place}: dead letter: {}; further ones of this kind are told at the level debug", letter.why
                    );
                } else {
                    tracing::debug!(pipeline = %self.shared.name, "{place}: dead letter: {}", letter.why);
                }
                Ok(())
            }
            Err(error @ DeliveryError::Unconfirmed { .. }) => Err(LetterError::Again(error.to_string())),
            Err(error) => {
                let place =
                    Shared::place(letter.stage, &partition.topic, partition.partition, letter.view.offset());
                Err(LetterError::Never(Failure::fatal(
                    format!("{place}: the dead letter cannot be stored: {error}"),
                    None,
                )))
            }
        }
    }

    /// The number of partitions of a dead letter topic, which is made if it is missing.
    async fn partitions_of(&self, topic: &str, source: &str) -> Result<usize, LetterError> {
        let mut known = self.topics.lock().await;
        if let Some(partitions) = known.get(topic) {
            return Ok(*partitions);
        }
        let admin = self
            .admin
            .get_or_try_init(|| async { Admin::connect(&self.connection) })
            .await
            .map_err(|error| refused(topic, &error))?;
        let partitions = match admin.describe_topic(topic, DEADLINE).await {
            Ok(there) => there.partitions,
            Err(KafkaError::UnknownTopic { .. }) => self.make(admin, topic, source).await?,
            Err(error) => return Err(refused(topic, &error)),
        };
        known.insert(topic.to_owned(), partitions);
        Ok(partitions)
    }

    async fn make(&self, admin: &Admin, topic: &str, source: &str) -> Result<usize, LetterError> {
        let refused = |error: &KafkaError| refused(topic, error);
        let like = admin.describe_topic(source, DEADLINE).await.map_err(|error| refused(&error))?;
        let largest = admin.max_message_bytes(source, DEADLINE).await.map_err(|error| refused(&error))?;
        let partitions = self.settings.partitions.map_or(like.partitions, |count| usize::from(count.get()));
        let replication = self.settings.replication.map(|count| i32::from(count.get()));
        let room = largest.saturating_add(HEADER_ROOM).min(u64::from(i32::MAX as u32)).to_string();
        let count = i32::try_from(partitions).unwrap_or(i32::MAX);
        admin
            .ensure_topic(topic, count, replication, &[("max.message.bytes", &room)], DEADLINE)
            .await
            .map_err(|error| refused(&error))?;
        tracing::info!(pipeline = %self.shared.name, "dead letter topic {topic} made with {partitions} partitions");
        Ok(partitions)
    }

    async fn producer(&self) -> Result<&Producer, KafkaError> {
        let settings = ProducerSettings { message_max_bytes: LARGEST_REQUEST, ..ProducerSettings::default() };
        self.producer.get_or_try_init(|| async { Producer::connect(&self.connection, settings) }).await
    }
}

/// The beginning of a text, of at most so many bytes.
fn beginning_of(text: &str, bytes: usize) -> &str {
    &text[..text.floor_char_boundary(bytes)]
}

fn refused(topic: &str, error: &KafkaError) -> LetterError {
    match error {
        KafkaError::Unreachable { .. } | KafkaError::Timeout { .. } | KafkaError::Other { .. } => {
            LetterError::Again(format!("{topic}: {error}"))
        }
        _ => LetterError::Never(Failure::fatal(
            format!("dead letter topic {topic}: {error}"),
            Some(format!(
                "make the topic {topic} yourself, or give the user the rights to make and write it"
            )),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_trace_is_cut_between_two_characters() {
        assert_eq!(beginning_of("short", LONGEST_TRACE), "short");
        assert_eq!(beginning_of("aéé", 4), "aé");
        assert_eq!(beginning_of(&"é".repeat(LONGEST_TRACE), LONGEST_TRACE).len(), LONGEST_TRACE);
    }
}
