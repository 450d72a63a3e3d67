//! Sending records: dead letters one by one, bulk publishing.
//!
//! Both producers are idempotent and wait for all replicas. Their queues are bounded. Dropping one gives up
//! what is not confirmed and may take half a second: flush before.

#![forbid(unsafe_code)]

use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use rdkafka::client::ClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::error::KafkaError as ClientError;
use rdkafka::message::{Header as ClientHeader, Message as _, OwnedHeaders};
use rdkafka::producer::{BaseRecord, DeliveryResult, Producer as _, ProducerContext, ThreadedProducer};
use rdkafka::types::RDKafkaErrorCode as Code;
use rdkafka::util::IntoOpaque;
use tokio::sync::oneshot;
use txconnect_connector_api::Header;

use crate::connection::Connection;
use crate::error::{Family, KafkaError, describe, family, one_line};
use crate::log;

/// How a producer sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProducerSettings {
    /// The largest request in bytes; a record with its headers must fit.
    pub message_max_bytes: u32,
    /// How long a record is tried to be delivered.
    pub delivery_timeout: Duration,
    /// How batches are compressed.
    pub compression: Compression,
    /// How many bytes of records may wait to be confirmed; at least one record of the largest size may.
    pub queue_bytes: u64,
    /// How long a record waits for others to go with it.
    pub linger: Duration,
}

impl Default for ProducerSettings {
    fn default() -> Self {
        Self {
            message_max_bytes: 1_000_000,
            delivery_timeout: Duration::from_secs(30),
            compression: Compression::None,
            queue_bytes: 8 << 20,
            linger: Duration::from_millis(5),
        }
    }
}

/// How batches are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Compression {
    /// Not at all.
    None,
    /// Fast.
    Lz4,
    /// Small.
    Zstd,
}

/// A record to send.
#[derive(Clone, Copy, Debug)]
pub struct OutgoingRecord<'a> {
    /// The topic.
    pub topic: &'a str,
    /// The partition, or none to let the key decide.
    pub partition: Option<i32>,
    /// The key's bytes.
    pub key: Option<&'a [u8]>,
    /// The value's bytes; none makes a tombstone.
    pub value: Option<&'a [u8]>,
    /// The headers, in order.
    pub headers: &'a [Header<'a>],
    /// Milliseconds since 1970, or none for now.
    pub timestamp: Option<i64>,
}

/// Where a record was stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// The partition.
    pub partition: i32,
    /// The offset in the partition.
    pub offset: i64,
}

/// Why a record was not delivered, or may not have been.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DeliveryError {
    /// No confirmation came in time. The record may be stored; sending it again may store it twice.
    #[error("Kafka has not confirmed a record for `{topic}` in time: {cause}")]
    Unconfirmed {
        /// The topic.
        topic: String,
        /// What is known about it.
        cause: String,
    },
    /// The record is too large.
    #[error(
        "a record of {bytes} bytes is too large for `{topic}`; raise the topic's `max.message.bytes` (and the brokers' `message.max.bytes`)"
    )]
    TooLarge {
        /// The topic.
        topic: String,
        /// Bytes of key and value.
        bytes: usize,
    },
    /// The broker does not take it, and will not later.
    #[error(
        "Kafka refuses a record for `{topic}`: {cause}; check the topic's settings and the user's rights"
    )]
    Refused {
        /// The topic.
        topic: String,
        /// What the client or the broker said.
        cause: String,
    },
    /// The producer is beyond use.
    #[error("the Kafka producer cannot continue: {cause}; it has to be started anew")]
    Fatal {
        /// What happened.
        cause: String,
    },
}

impl DeliveryError {
    fn from_code(code: Code, topic: &str, bytes: usize) -> Self {
        let (topic, cause) = (topic.to_owned(), describe(code));
        match (code, family(code)) {
            (Code::MessageSizeTooLarge | Code::MessageBatchTooLarge | Code::InvalidMessageSize, _) => {
                Self::TooLarge { topic, bytes }
            }
            (_, Family::Fatal) => Self::Fatal { cause },
            (_, Family::Authentication | Family::Authorization | Family::UnknownTopic)
            | (
                Code::InvalidRecord
                | Code::InvalidTimestamp
                | Code::PolicyViolation
                | Code::InvalidTopic
                | Code::InvalidMessage,
                _,
            ) => Self::Refused { topic, cause },
            _ => Self::Unconfirmed { topic, cause },
        }
    }

    fn from_client(error: &ClientError, topic: &str, bytes: usize) -> Self {
        error.rdkafka_error_code().map_or_else(
            || Self::Refused { topic: topic.replace('\0', "?"), cause: one_line(&error.to_string()) },
            |code| Self::from_code(code, topic, bytes),
        )
    }
}

/// Sends records one by one and tells what became of each.
pub struct Producer {
    inner: ThreadedProducer<Confirming>,
}

/// The outcome of one record, as a future. It ends by the producer's `delivery_timeout`, plus what an
/// overloaded broker adds: put a deadline around it.
#[derive(Debug)]
pub struct Confirmation {
    topic: String,
    outcome: oneshot::Receiver<Result<Delivery, DeliveryError>>,
}

impl Future for Confirmation {
    type Output = Result<Delivery, DeliveryError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.outcome).poll(context).map(|outcome| {
            outcome.unwrap_or_else(|_| {
                let topic = std::mem::take(&mut self.topic);
                Err(DeliveryError::Unconfirmed { topic, cause: "the producer was closed".to_owned() })
            })
        })
    }
}

impl Producer {
    /// Makes the producer. It connects in the background.
    pub fn connect(connection: &Connection, settings: ProducerSettings) -> Result<Self, KafkaError> {
        let config = client_settings(connection, settings, "producer");
        let inner: Result<_, ClientError> = config.create_with_context(Confirming);
        Ok(Self { inner: inner.map_err(|error| connection.refused(&error))? })
    }

    /// Hands a record over without waiting. None where the queue is full.
    pub fn send(&self, record: &OutgoingRecord<'_>) -> Result<Option<Confirmation>, DeliveryError> {
        let (sender, outcome) = oneshot::channel();
        match self.inner.send(outgoing(record, Box::new(sender))) {
            Ok(()) => Ok(Some(Confirmation { topic: record.topic.to_owned(), outcome })),
            Err((error, _)) if is_full(&error) => Ok(None),
            Err((error, _)) => Err(DeliveryError::from_client(&error, record.topic, size(record))),
        }
    }

    /// Sends a record and waits until it is confirmed, at most `deadline`.
    pub async fn deliver(
        &self,
        record: &OutgoingRecord<'_>,
        deadline: Duration,
    ) -> Result<Delivery, DeliveryError> {
        let delivered = async {
            loop {
                if let Some(confirmation) = self.send(record)? {
                    return confirmation.await;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(deadline, delivered).await.unwrap_or_else(|_| {
            Err(DeliveryError::Unconfirmed {
                topic: record.topic.to_owned(),
                cause: format!("no answer within {} ms", deadline.as_millis()),
            })
        })
    }

    /// Blocks until everything is confirmed or has failed, at most `deadline`.
    pub fn flush(&self, deadline: Duration) -> Result<(), DeliveryError> {
        flush(&self.inner, deadline)
    }
}

/// Sends many records and counts what became of them.
pub struct BulkProducer {
    inner: ThreadedProducer<Counting>,
    counts: Arc<Counts>,
}

impl BulkProducer {
    /// Makes the producer. It connects in the background.
    pub fn connect(connection: &Connection, settings: ProducerSettings) -> Result<Self, KafkaError> {
        let counts = Arc::new(Counts::default());
        let config = client_settings(connection, settings, "publisher");
        let inner: Result<_, ClientError> =
            config.create_with_context(Counting { counts: Arc::clone(&counts) });
        Ok(Self { inner: inner.map_err(|error| connection.refused(&error))?, counts })
    }

    /// Hands a record over; blocks while the queue is full, at most `deadline`. Answers with the first
    /// failure of any record before.
    pub fn send(&self, record: &OutgoingRecord<'_>, deadline: Duration) -> Result<(), DeliveryError> {
        self.first_failure()?;
        let mut full_since = None;
        loop {
            match self.inner.send(outgoing(record, ())) {
                Ok(()) => return Ok(()),
                Err((error, _)) if is_full(&error) => {
                    self.first_failure()?;
                    if full_since.get_or_insert_with(Instant::now).elapsed() >= deadline {
                        return Err(DeliveryError::Unconfirmed {
                            topic: record.topic.to_owned(),
                            cause: format!("the queue was full for {} ms", deadline.as_millis()),
                        });
                    }
                    std::thread::sleep(Duration::from_millis(1));
                }
                Err((error, _)) => {
                    return Err(DeliveryError::from_client(&error, record.topic, size(record)));
                }
            }
        }
    }

    /// Blocks until everything is confirmed, at most `deadline`, and tells how many records are.
    pub fn flush(&self, deadline: Duration) -> Result<u64, DeliveryError> {
        flush(&self.inner, deadline)?;
        self.first_failure()?;
        Ok(self.delivered())
    }

    /// How many records are confirmed so far.
    pub fn delivered(&self) -> u64 {
        self.counts.delivered.load(Ordering::Acquire)
    }

    fn first_failure(&self) -> Result<(), DeliveryError> {
        if self.counts.failed.load(Ordering::Acquire) == 0 {
            return Ok(());
        }
        let first = self.counts.first_failure.lock().unwrap_or_else(PoisonError::into_inner);
        first.clone().map_or(Ok(()), Err)
    }
}

#[derive(Default)]
struct Counts {
    delivered: AtomicU64,
    failed: AtomicU64,
    first_failure: Mutex<Option<DeliveryError>>,
}

/// Sends the outcome of each record back to whoever waits for it.
struct Confirming;

impl ClientContext for Confirming {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        log::write(level as i32, facility, line);
    }

    fn error(&self, error: ClientError, reason: &str) {
        tracing::debug!(target: "kafka", "{error}: {reason}");
    }
}

impl ProducerContext for Confirming {
    type DeliveryOpaque = Box<oneshot::Sender<Result<Delivery, DeliveryError>>>;

    fn delivery(&self, result: &DeliveryResult<'_>, waiting: Self::DeliveryOpaque) {
        // Nobody waits any more where a deadline has passed.
        let _ = waiting.send(outcome(result));
    }
}

/// Counts the outcomes and keeps the first failure.
struct Counting {
    counts: Arc<Counts>,
}

impl ClientContext for Counting {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        log::write(level as i32, facility, line);
    }

    fn error(&self, error: ClientError, reason: &str) {
        tracing::debug!(target: "kafka", "{error}: {reason}");
    }
}

impl ProducerContext for Counting {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        match outcome(result) {
            Ok(_) => {
                self.counts.delivered.fetch_add(1, Ordering::Release);
            }
            Err(error) => {
                let mut first = self.counts.first_failure.lock().unwrap_or_else(PoisonError::into_inner);
                first.get_or_insert(error);
                self.counts.failed.fetch_add(1, Ordering::Release);
            }
        }
    }
}

fn outcome(result: &DeliveryResult<'_>) -> Result<Delivery, DeliveryError> {
    match result {
        Ok(message) => Ok(Delivery { partition: message.partition(), offset: message.offset() }),
        Err((error, message)) => {
            let bytes = message.key_len() + message.payload_len();
            Err(DeliveryError::from_client(error, message.topic(), bytes))
        }
    }
}

fn outgoing<'a, D: IntoOpaque>(record: &OutgoingRecord<'a>, opaque: D) -> BaseRecord<'a, [u8], [u8], D> {
    let headers = (!record.headers.is_empty()).then(|| {
        record
            .headers
            .iter()
            .fold(OwnedHeaders::new_with_capacity(record.headers.len()), |headers, header| {
                headers.insert(ClientHeader { key: header.name, value: header.value })
            })
    });
    BaseRecord {
        topic: record.topic,
        partition: record.partition,
        payload: record.value,
        key: record.key,
        timestamp: record.timestamp,
        headers,
        delivery_opaque: opaque,
    }
}

fn is_full(error: &ClientError) -> bool {
    error.rdkafka_error_code() == Some(Code::QueueFull)
}

fn size(record: &OutgoingRecord<'_>) -> usize {
    record.key.map_or(0, <[u8]>::len) + record.value.map_or(0, <[u8]>::len)
}

fn flush<C: ProducerContext>(
    producer: &ThreadedProducer<C>,
    deadline: Duration,
) -> Result<(), DeliveryError> {
    producer.flush(deadline).map_err(|_| DeliveryError::Unconfirmed {
        topic: "…".to_owned(),
        cause: format!(
            "{} records are not confirmed after {} ms",
            producer.in_flight_count(),
            deadline.as_millis()
        ),
    })
}

fn client_settings(connection: &Connection, settings: ProducerSettings, role: &str) -> ClientConfig {
    let mut config = connection.client(role);
    let compression = match settings.compression {
        Compression::None => "none",
        Compression::Lz4 => "lz4",
        Compression::Zstd => "zstd",
    };
    // A record larger than the queue would find it full for ever.
    let queue_bytes = settings.queue_bytes.max(settings.message_max_bytes.into());
    let kilobytes = queue_bytes.div_ceil(1024).clamp(1, 2_147_483_647);
    let timeout = settings.delivery_timeout.as_millis().clamp(1, 2_147_483_647);
    config
        .set("enable.idempotence", "true")
        .set("acks", "all")
        .set("message.max.bytes", settings.message_max_bytes.clamp(1_000, 1_000_000_000).to_string())
        .set("delivery.timeout.ms", timeout.to_string())
        .set("linger.ms", settings.linger.as_millis().min(timeout / 2).min(900_000).to_string())
        .set("compression.type", compression)
        // Bytes decide how much may wait, not the number of records.
        .set("queue.buffering.max.messages", "1000000")
        .set("queue.buffering.max.kbytes", kilobytes.to_string());
    config
}
