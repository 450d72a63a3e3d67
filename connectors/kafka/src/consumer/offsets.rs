//! Where partitions begin and end, and where reading has arrived.

#![forbid(unsafe_code)]

use std::time::{Duration, Instant};

use rdkafka::topic_partition_list::Offset;
use rdkafka::types::RDKafkaErrorCode as Code;
use txconnect_connector_api::TopicPartition;

use super::{Consumer, StartAt, list_of};
use crate::error::KafkaError;
use crate::native::Entry;

impl Consumer {
    /// The offset after the last record that can be read now: before the first open transaction where
    /// `isolation.level` is `read_committed`. In the order of `partitions`.
    pub fn end_offsets(
        &self,
        partitions: &[TopicPartition],
        timeout: Duration,
    ) -> Result<Vec<(TopicPartition, i64)>, KafkaError> {
        self.edge(partitions, Offset::End, timeout, |(_, high)| high)
    }

    /// The offset of the first record there is. In the order of `partitions`.
    pub fn beginning_offsets(
        &self,
        partitions: &[TopicPartition],
        timeout: Duration,
    ) -> Result<Vec<(TopicPartition, i64)>, KafkaError> {
        self.edge(partitions, Offset::Beginning, timeout, |(low, _)| low)
    }

    /// The offset of the first record that is not older than `millis` (since 1970), or none where every
    /// record is. In the order of `partitions`.
    pub fn offsets_for_time(
        &self,
        partitions: &[TopicPartition],
        millis: i64,
        timeout: Duration,
    ) -> Result<Vec<(TopicPartition, Option<i64>)>, KafkaError> {
        let entries = self.look_up(partitions, Offset::Offset(millis.max(0)), timeout)?;
        entries
            .into_iter()
            .map(|entry| {
                self.refuse_failed(&entry)?;
                Ok((self.partition(&entry), (entry.offset >= 0).then_some(entry.offset)))
            })
            .collect()
    }

    /// The offset after the last message that a lane has taken, moved over transaction markers, or none
    /// where nothing has come yet or the partition is not assigned. In the order of `partitions`.
    pub fn positions(&self, partitions: &[TopicPartition]) -> Result<Vec<Option<i64>>, KafkaError> {
        if partitions.is_empty() {
            return Ok(Vec::new());
        }
        let list = list_of(partitions.iter().map(|partition| (partition, Offset::Invalid)))?;
        let entries = self
            .handle
            .positions(&list)
            .map_err(|failure| self.failed(&failure, "reading positions", None))?;
        let position =
            |entry: &Entry| (entry.code == Code::NoError && entry.offset >= 0).then_some(entry.offset);
        Ok(entries.iter().map(position).collect())
    }

    /// Goes on reading an assigned partition at `start`, also after an error message. What was fetched before
    /// is dropped.
    pub fn seek(
        &self,
        partition: &TopicPartition,
        start: StartAt,
        timeout: Duration,
    ) -> Result<(), KafkaError> {
        let list = list_of([(partition, start.into())])?;
        let what = "moving the position";
        let entries = self
            .handle
            .seek(&list, timeout)
            .map_err(|failure| self.failed(&failure, what, Some(&partition.topic)))?;
        // A partition whose position was outside the log has stopped, and what has stopped cannot be moved.
        if entries.iter().any(|entry| entry.code == Code::State) {
            return self.restart(partition, start);
        }
        entries.iter().try_for_each(|entry| self.refuse_failed(entry))
    }

    /// One request for all partitions, and one each for those that it does not answer.
    fn edge(
        &self,
        partitions: &[TopicPartition],
        which: Offset,
        timeout: Duration,
        pick: fn((i64, i64)) -> i64,
    ) -> Result<Vec<(TopicPartition, i64)>, KafkaError> {
        let deadline = Instant::now() + timeout;
        let entries = self.look_up(partitions, which, timeout)?;
        entries
            .into_iter()
            .map(|entry| {
                self.refuse_failed(&entry)?;
                let partition = self.partition(&entry);
                if entry.offset >= 0 {
                    return Ok((partition, entry.offset));
                }
                let left = deadline.saturating_duration_since(Instant::now());
                let edges = self.handle.client().fetch_watermarks(&entry.topic, entry.partition, left);
                let edges = edges.map_err(|error| {
                    let error =
                        KafkaError::from_client(&error, "reading offsets", Some(&entry.topic), &self.brokers);
                    self.explain(error)
                })?;
                Ok((partition, pick(edges)))
            })
            .collect()
    }

    fn look_up(
        &self,
        partitions: &[TopicPartition],
        offset: Offset,
        timeout: Duration,
    ) -> Result<Vec<Entry>, KafkaError> {
        if partitions.is_empty() {
            return Ok(Vec::new());
        }
        let list = list_of(partitions.iter().map(|partition| (partition, offset)))?;
        // The client names no topic when all are unknown; the first one is as good as any.
        let topic = partitions.first().map(|partition| &*partition.topic);
        self.handle
            .offsets_for_times(&list, timeout)
            .map_err(|failure| self.failed(&failure, "reading offsets", topic))
    }

    fn refuse_failed(&self, entry: &Entry) -> Result<(), KafkaError> {
        if entry.code == Code::NoError {
            return Ok(());
        }
        let error = KafkaError::from_code(entry.code, "reading offsets", Some(&entry.topic), &self.brokers);
        Err(self.explain(error))
    }
}
