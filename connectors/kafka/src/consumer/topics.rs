//! Which topics there are.

#![forbid(unsafe_code)]

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use rdkafka::metadata::MetadataTopic;
use rdkafka::types::RDKafkaErrorCode as Code;

use super::{Consumer, refuse_nul};
use crate::admin::TopicDescription;
use crate::error::KafkaError;
use crate::native::DescribedTopic;

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

    /// Kafka's ids of these topics, as its own tools print them: a topic that is made anew under the same name
    /// gets another one. `None` where the broker gives none, as those before 2.8 do. No topic is created by
    /// asking.
    ///
    /// # Errors
    /// [`KafkaError::UnknownTopic`] where one of them is not there.
    pub fn topic_ids(
        &self,
        topics: &[&str],
        timeout: Duration,
    ) -> Result<BTreeMap<String, Option<String>>, KafkaError> {
        let what = "reading topic ids";
        let wanted: BTreeSet<&str> = topics.iter().copied().collect();
        if wanted.is_empty() {
            return Ok(BTreeMap::new());
        }
        wanted.iter().try_for_each(|topic| refuse_nul(topic))?;
        let deadline = Instant::now() + timeout;
        let broker = self.any_broker(topics[0], timeout)?;
        let left = deadline.saturating_duration_since(Instant::now());
        let described = self
            .handle
            .describe_topics(&wanted, broker, left)
            .map_err(|failure| self.failed(&failure, what, None))?;
        let mut ids = BTreeMap::new();
        for DescribedTopic { name, id, code } in described {
            // A topic whose leader is about to be elected is there, and has its id.
            if id.is_none() && code != Code::NoError {
                return Err(KafkaError::from_code(code, what, Some(&name), &self.brokers));
            }
            ids.insert(name, id);
        }
        match wanted.iter().find(|topic| !ids.contains_key(**topic)) {
            Some(topic) => Err(KafkaError::UnknownTopic { topic: (*topic).to_owned() }),
            None => Ok(ids),
        }
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

    /// The number of a broker that answers. All of them know the topics; left alone, the client would wait for the
    /// controller, which a mock cluster lacks. Asking about one topic creates none and keeps the answer small.
    fn any_broker(&self, topic: &str, timeout: Duration) -> Result<Option<i32>, KafkaError> {
        let metadata = self
            .handle
            .client()
            .fetch_metadata(Some(topic), timeout)
            .map_err(|error| self.no_metadata(&error, Some(topic)))?;
        let numbers = metadata.brokers().iter().map(rdkafka::metadata::MetadataBroker::id);
        Ok([metadata.orig_broker_id()].into_iter().chain(numbers).find(|number| *number >= 0))
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
