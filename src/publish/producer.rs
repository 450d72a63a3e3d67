//! Where published records go.

/// One record on its way to Kafka.
#[derive(Clone, Copy, Debug)]
pub struct OutgoingRecord<'a> {
    /// The topic.
    pub topic: &'a str,
    /// The partition; without it the key's hash or the client chooses.
    pub partition: Option<i32>,
    /// The key.
    pub key: Option<&'a [u8]>,
    /// The value.
    pub value: &'a [u8],
}

/// Kafka did not take a record.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
pub struct SendError {
    /// What happened and what can be done, in one line.
    pub message: String,
}

impl SendError {
    /// An error told in `message`.
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into() }
    }
}

/// Takes records in order and brings them to Kafka in the background.
pub trait RecordProducer: Send {
    /// Queues a record. Waits while the queue is full, and fails as soon as any earlier record has failed.
    fn send(&mut self, record: &OutgoingRecord<'_>) -> Result<(), SendError>;

    /// Waits until every queued record is confirmed or has failed; answers the first failure.
    fn flush(&mut self) -> Result<(), SendError>;

    /// How many records Kafka has confirmed so far.
    fn confirmed(&self) -> u64;
}

/// A producer for tests that keeps what it is given.
#[cfg(test)]
#[derive(Default)]
pub(crate) struct RecordingProducer {
    /// Topic, key and value of every record taken.
    pub(crate) sent: Vec<(String, Option<String>, String)>,
    /// The partition of every record taken.
    pub(crate) partitions: Vec<Option<i32>>,
    /// After how many records it fails.
    pub(crate) fails_after: Option<usize>,
}

#[cfg(test)]
impl RecordProducer for RecordingProducer {
    fn send(&mut self, record: &OutgoingRecord<'_>) -> Result<(), SendError> {
        if self.fails_after == Some(self.sent.len()) {
            return Err(SendError::new("the test broker is full"));
        }
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        self.sent.push((record.topic.to_owned(), record.key.map(text), text(record.value)));
        self.partitions.push(record.partition);
        Ok(())
    }

    fn flush(&mut self) -> Result<(), SendError> {
        Ok(())
    }

    fn confirmed(&self) -> u64 {
        self.sent.len() as u64
    }
}
