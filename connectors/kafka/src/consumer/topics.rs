//! Which topics there are.

#![forbid(unsafe_code)]

use std::time::Duration;

use rdkafka::metadata::MetadataTopic;
use rdkafka::types::RDKafkaErrorCode as Code;

use super::{Consumer, refuse_nul};
use crate::admin::TopicDescription;
use crate::error::KafkaError;

impl Consumer {
    /// All topics of the cluster that can be seen, with the numbers of their partitions, in the order of
    /// their names. Topics that the broker reports an error for are left out.
    pub fn topics(&self, timeout: Duration) -> Result<Vec<(String, Vec<i32>)>, KafkaError> {
        let metadata = self
            .handle
            .client()
            .fetch_metadata(None, timeout)
            .map_err(|error| self.no_metadata(&error, None))?;
        let mut topics: Vec<_> = metadata
            .topics()
            .iter()
            .filter(|topic| topic.error().is_none())
            .map(|topic| (topic.name().to_owned(), partitions(topic)))
            .collect();
        topics.sort_unstable();
        Ok(topics)
    }

    /// The numbers of the partitions of one topic. It is not created by asking.
    pub fn partitions_of(&self, topic: &str, timeout: Duration) -> Result<Vec<i32>, KafkaError> {
        self.look_at(topic, timeout, partitions)
    }

    /// What one topic is like.
    pub(crate) fn describe(&self, topic: &str, timeout: Duration) -> Result<TopicDescription, KafkaError> {
        self.look_at(topic, timeout, |found| TopicDescription {
            partitions: found.partitions().len(),
            replication: found
                .partitions()
                .iter()
                .map(|partition| partition.replicas().len())
                .max()
                .unwrap_or(0),
        })
    }

    fn look_at<T>(
        &self,
        topic: &str,
        timeout: Duration,
        read: impl Fn(&MetadataTopic) -> T,
    ) -> Result<T, KafkaError> {
        refuse_nul(topic)?;
        let metadata = self
            .handle
            .client()
            .fetch_metadata(Some(topic), timeout)
            .map_err(|error| self.no_metadata(&error, Some(topic)))?;
        let unknown = || KafkaError::UnknownTopic { topic: topic.to_owned() };
        let found = metadata.topics().iter().find(|found| found.name() == topic).ok_or_else(unknown)?;
        match found.error().map(Code::from) {
            None => Ok(read(found)),
            Some(code) => Err(KafkaError::from_code(code, "describing", Some(topic), &self.brokers)),
        }
    }

    fn no_metadata(&self, error: &rdkafka::error::KafkaError, topic: Option<&str>) -> KafkaError {
        let error = KafkaError::from_client(error, "listing topics", topic, &self.brokers);
        match self.explain(error) {
            // Not one broker could be asked.
            KafkaError::Timeout { what } => KafkaError::Unreachable {
                brokers: self.brokers.clone(),
                cause: format!("no answer to {what}"),
            },
            other => other,
        }
    }
}

fn partitions(topic: &MetadataTopic) -> Vec<i32> {
    let mut numbers: Vec<i32> =
        topic.partitions().iter().map(rdkafka::metadata::MetadataPartition::id).collect();
    numbers.sort_unstable();
    numbers
}
