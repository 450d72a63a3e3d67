//! Fills the embedded broker, within what it can hold.

use std::fs::File;
use std::path::PathBuf;

use crate::publish::input::TopicFile;
use crate::publish::producer::{OutgoingRecord, RecordProducer, SendError};
use crate::publish::{self, Publication, PublishError};

/// What is loaded into a partition at most, in bytes as the broker stores them: it would drop the oldest
/// beyond 5 MiB, without a word.
const PARTITION_BYTES: u64 = 4 << 20;
/// Partitions of a topic at most.
const MAX_PARTITIONS: u64 = 4;
/// One partition for every so many bytes of a file: small topics stay in one, as their order does.
const BYTES_FOR_EACH_PARTITION: u64 = 1 << 20;
/// What a record costs beside its value: lengths, deltas and its share of the batch's head. Generous.
const RECORD_OVERHEAD: u64 = 24;

/// Why a folder was not loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// A topic is larger than the embedded broker can hold.
    #[error(
        "{} is too large for the embedded broker, which holds {} MiB of a topic ({MAX_PARTITIONS} partitions of \
         {} MiB, {RECORD_OVERHEAD} bytes counted for each record beside its text); use a real Kafka: \
         `txconnect publish`, then `txconnect run` without --embedded",
        path.display(), (MAX_PARTITIONS * PARTITION_BYTES) >> 20, PARTITION_BYTES >> 20
    )]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// A file was not sent whole.
    #[error("{}: {cause}", path.display())]
    Publish {
        /// The file.
        path: PathBuf,
        /// Why not.
        cause: PublishError,
    },
    /// The embedded broker did not take the records.
    #[error("the embedded broker does not take records: {0}")]
    Send(#[source] SendError),
    /// The loading was cut off.
    #[error("the loading of the embedded broker was interrupted")]
    Interrupted,
}

/// A topic to be loaded.
#[derive(Debug)]
pub(super) struct PlannedTopic {
    pub(super) name: String,
    pub(super) partitions: i32,
    paths: Vec<PathBuf>,
}

/// The topics that `files` make. Refuses files that cannot fit, whatever is in them.
pub(super) fn plan(files: Vec<TopicFile>) -> Result<Vec<PlannedTopic>, LoadError> {
    let mut planned: Vec<(PlannedTopic, u64)> = Vec::new();
    for file in files {
        let index = planned.iter().position(|(topic, _)| topic.name == file.topic).unwrap_or(planned.len());
        if index == planned.len() {
            let topic = PlannedTopic { name: file.topic, partitions: 1, paths: Vec::new() };
            planned.push((topic, 0));
        }
        let (topic, bytes) = &mut planned[index];
        *bytes += file.bytes;
        if *bytes > MAX_PARTITIONS * PARTITION_BYTES {
            return Err(LoadError::TooLarge { path: file.path });
        }
        let partitions = bytes.div_ceil(BYTES_FOR_EACH_PARTITION).clamp(1, MAX_PARTITIONS);
        topic.partitions = i32::try_from(partitions).unwrap_or(1);
        topic.paths.push(file.path);
    }
    Ok(planned.into_iter().map(|(topic, _)| topic).collect())
}

/// Loads a topic; answers how many records it has.
pub(super) fn load(topic: &PlannedTopic, producer: &mut dyn RecordProducer) -> Result<u64, LoadError> {
    let before = producer.confirmed();
    let partitions = usize::try_from(topic.partitions).unwrap_or(1).max(1);
    let mut filling = FillingProducer { inner: producer, filled: vec![0; partitions], full: false };
    let publication = Publication { topic: &topic.name, key: None };
    for path in &topic.paths {
        let failed = |cause: PublishError| LoadError::Publish { path: path.clone(), cause };
        let mut file = File::open(path).map_err(|error| failed(error.into()))?;
        if let Err(cause) = publish::publish(&mut file, publication, &mut filling, &mut |_| {}) {
            if filling.full {
                return Err(LoadError::TooLarge { path: path.clone() });
            }
            return Err(failed(cause));
        }
    }
    filling.flush().map_err(LoadError::Send)?;
    Ok(producer.confirmed() - before)
}

/// Puts each record into the emptiest partition and none into a full one.
struct FillingProducer<'a> {
    inner: &'a mut dyn RecordProducer,
    /// Bytes in each partition.
    filled: Vec<u64>,
    full: bool,
}

impl RecordProducer for FillingProducer<'_> {
    fn send(&mut self, record: &OutgoingRecord<'_>) -> Result<(), SendError> {
        let bytes = (record.value.len() + record.key.map_or(0, <[u8]>::len)) as u64 + RECORD_OVERHEAD;
        let emptiest =
            self.filled.iter().enumerate().min_by_key(|(_, filled)| **filled).map_or(0, |(index, _)| index);
        if self.filled[emptiest] + bytes > PARTITION_BYTES {
            self.full = true;
            return Err(SendError::new("the embedded broker is full"));
        }
        self.filled[emptiest] += bytes;
        let partition = i32::try_from(emptiest).unwrap_or(0);
        self.inner.send(&OutgoingRecord { partition: Some(partition), ..*record })
    }

    fn flush(&mut self) -> Result<(), SendError> {
        self.inner.flush()
    }

    fn confirmed(&self) -> u64 {
        self.inner.confirmed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::publish::producer::RecordingProducer;

    fn file(topic: &str, bytes: u64) -> TopicFile {
        TopicFile { topic: topic.into(), path: format!("{topic}.json").into(), bytes }
    }

    #[test]
    fn partitions_grow_with_the_files_of_a_topic() {
        let partitions = |files| {
            let topics = plan(files).unwrap();
            topics.into_iter().map(|topic| (topic.name, topic.partitions)).collect::<Vec<_>>()
        };
        assert_eq!(partitions(vec![file("a", 0), file("b", 3 << 19)]), [("a".into(), 1), ("b".into(), 2)]);
        assert_eq!(partitions(vec![file("a", 1 << 20), file("a", 15 << 20)]), [("a".into(), 4)]);
    }

    #[test]
    fn a_file_that_cannot_fit_is_refused_before_it_is_read() {
        let error = plan(vec![file("a", (16 << 20) + 1)]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "a.json is too large for the embedded broker, which holds 16 MiB of a topic (4 partitions of 4 MiB, \
             24 bytes counted for each record beside its text); use a real Kafka: `txconnect publish`, then \
             `txconnect run` without --embedded"
        );
    }

    fn load_text(text: &str) -> (RecordingProducer, Result<u64, LoadError>) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t.json");
        std::fs::write(&path, text).unwrap();
        let topics = plan(vec![TopicFile { topic: "t".into(), path, bytes: text.len() as u64 }]).unwrap();
        let mut producer = RecordingProducer::default();
        let result = load(&topics[0], &mut producer);
        (producer, result)
    }

    #[test]
    fn records_are_spread_evenly() {
        let record = format!("\"{}\"", "x".repeat(1 << 19));
        let (producer, result) = load_text(&format!("[{record},{record},{record},{record}]"));
        assert_eq!(result.unwrap(), 4);
        assert_eq!(producer.partitions, [Some(0), Some(1), Some(2), Some(0)]);
    }

    #[test]
    fn many_small_records_that_fill_a_partition_are_refused() {
        let (_, result) = load_text(&"1\n".repeat(170_000));
        assert!(matches!(result, Err(LoadError::TooLarge { .. })));
    }

    #[test]
    fn a_broken_file_is_named() {
        let (_, result) = load_text("[1,");
        let error = result.unwrap_err().to_string();
        assert!(error.contains("t.json: line 1, byte 0: the input ends before the array"), "{error}");
    }
}
