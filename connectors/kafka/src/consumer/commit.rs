//! Commits with metadata, and what the group has committed.

#![forbid(unsafe_code)]

use std::time::Duration;

use rdkafka::TopicPartitionList;
use rdkafka::topic_partition_list::Offset;
use rdkafka::types::RDKafkaErrorCode as Code;
use txconnect_connector_api::TopicPartition;

use super::{Consumer, list_of};
use crate::error::{Family, KafkaError, describe, family};
use crate::native::{Entry, Event};

/// The most metadata that brokers take per partition by default, in bytes.
const LONGEST_METADATA: usize = 4096;

/// A position to commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommitPosition {
    /// The partition.
    pub partition: TopicPartition,
    /// The offset after the last record that is done.
    pub next_offset: i64,
    /// What is stored beside the offset, at most 4096 bytes. Without it the group's metadata is wiped.
    pub metadata: Option<String>,
}

/// What became of a commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommitAnswer {
    /// The number given to [`Consumer::commit`].
    pub token: u64,
    /// The outcome of each partition. When one was refused, librdkafka may report the others of the same
    /// commit as refused too: read [`Consumer::committed`] to be sure.
    pub results: Vec<(TopicPartition, Result<(), CommitError>)>,
}

/// Why a position was not committed, or may not have been.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the position was not committed: {message}")]
pub struct CommitError {
    /// What to do about it.
    pub kind: CommitErrorKind,
    /// What the client or the broker said.
    pub message: String,
}

/// What to do about a [`CommitError`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CommitErrorKind {
    /// Not stored because of a rebalance: try again after the next event, if the partition is still held.
    Retry,
    /// The membership is gone: stop the partitions and wait for their revocation.
    MembershipLost,
    /// It may be stored or not: read [`Consumer::committed`].
    Unknown,
    /// It will never be stored.
    Permanent,
    /// The client is beyond use.
    Fatal,
}

/// What the group has committed for a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Committed {
    /// The partition.
    pub partition: TopicPartition,
    /// The next offset to read, if there is a position.
    pub offset: Option<i64>,
    /// What is stored beside it.
    pub metadata: CommittedMetadata,
}

/// What is stored beside a committed offset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CommittedMetadata {
    /// Nothing.
    None,
    /// Text, as it was given.
    Text(String),
    /// Something that is not UTF-8, and so not ours.
    NotUtf8,
}

impl CommittedMetadata {
    fn from_bytes(bytes: Vec<u8>) -> Self {
        if bytes.is_empty() {
            return Self::None;
        }
        String::from_utf8(bytes).map_or(Self::NotUtf8, Self::Text)
    }

    /// The text, if there is one.
    pub fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            Self::None | Self::NotUtf8 => None,
        }
    }
}

impl Consumer {
    /// Sends a commit and returns at once; [`Consumer::commit_answer`] brings the outcome under `token`.
    /// Kafka checks the membership but not who owns a partition: commit only what this member holds now, and
    /// have one commit under way at most.
    ///
    /// `token` must not be in use by a commit without an answer. A commit without positions is refused.
    pub fn commit(&self, token: u64, positions: &[CommitPosition]) -> Result<(), KafkaError> {
        let native_token =
            usize::try_from(token).map_err(|_| refused(format!("the number {token} is too large")))?;
        if positions.is_empty() {
            return Err(refused("there are no positions".to_owned()));
        }
        if self.unanswered.borrow().contains_key(&token) {
            return Err(refused(format!("the commit {token} has no answer yet")));
        }
        let list = list_of_positions(positions)?;
        self.handle
            .commit(&list, &self.replies, native_token)
            .map_err(|failure| self.failed(&failure, "committing", None))?;
        let partitions = positions.iter().map(|position| position.partition.clone()).collect();
        self.unanswered.borrow_mut().insert(token, partitions);
        Ok(())
    }

    /// Waits up to `timeout` for the outcome of a commit. After a broker has vanished it may never come: the
    /// caller needs a deadline of its own, and [`Consumer::committed`] after it.
    pub fn commit_answer(&self, timeout: Duration) -> Option<CommitAnswer> {
        loop {
            // Anything but an answer on this queue is of no interest.
            let Event::Committed { token, code, entries } = self.replies.poll(timeout)? else { continue };
            let Some(partitions) = self.unanswered.borrow_mut().remove(&token) else { continue };
            let results = partitions
                .into_iter()
                .map(|partition| {
                    let result = outcome(&partition, code, &entries);
                    (partition, result)
                })
                .collect();
            return Some(CommitAnswer { token, results });
        }
    }

    /// What the group has committed, in the order of `partitions`. Open transactions are waited for.
    pub fn committed(
        &self,
        partitions: &[TopicPartition],
        timeout: Duration,
    ) -> Result<Vec<Committed>, KafkaError> {
        if partitions.is_empty() {
            return Ok(Vec::new());
        }
        let what = "reading committed positions";
        let list = list_of(partitions.iter().map(|partition| (partition, Offset::Invalid)))?;
        let entries =
            self.handle.committed(&list, timeout).map_err(|failure| self.failed(&failure, what, None))?;
        entries
            .into_iter()
            .map(|entry| {
                if entry.code != Code::NoError {
                    let error = KafkaError::from_code(entry.code, what, Some(&entry.topic), &self.brokers);
                    return Err(self.explain(error));
                }
                Ok(Committed {
                    partition: self.partition(&entry),
                    offset: (entry.offset >= 0).then_some(entry.offset),
                    metadata: CommittedMetadata::from_bytes(entry.metadata),
                })
            })
            .collect()
    }
}

/// The list of positions as the client takes it, metadata included.
pub(super) fn list_of_positions(positions: &[CommitPosition]) -> Result<TopicPartitionList, KafkaError> {
    let list = list_of(
        positions.iter().map(|position| (&position.partition, Offset::Offset(position.next_offset))),
    )?;
    for (position, mut element) in positions.iter().zip(list.elements()) {
        let Some(metadata) = &position.metadata else { continue };
        if metadata.len() > LONGEST_METADATA {
            return Err(refused(format!(
                "the metadata of {} has {} bytes, brokers take {LONGEST_METADATA}",
                position.partition,
                metadata.len()
            )));
        }
        element.set_metadata(metadata);
    }
    Ok(list)
}

fn refused(cause: String) -> KafkaError {
    KafkaError::Other { what: "committing".to_owned(), cause }
}

/// What became of one partition: its own error, else that of the whole commit.
fn outcome(partition: &TopicPartition, whole: Code, entries: &[Entry]) -> Result<(), CommitError> {
    let own = entries
        .iter()
        .find(|entry| entry.partition == partition.partition && *entry.topic == *partition.topic)
        .map_or(Code::NoError, |entry| entry.code);
    let code = if own == Code::NoError { whole } else { own };
    if code == Code::NoError {
        return Ok(());
    }
    Err(CommitError { kind: kind(code), message: describe(code) })
}

/// What to do about a commit that ended with `code`.
fn kind(code: Code) -> CommitErrorKind {
    match code {
        Code::RebalanceInProgress
        | Code::IllegalGeneration
        | Code::StaleMemberEpoch
        | Code::WaitingForCoordinator => CommitErrorKind::Retry,
        Code::OffsetMetadataTooLarge
        | Code::InvalidCommitOffsetSize
        | Code::InvalidGroupId
        | Code::InvalidArgument
        | Code::NoOffset => CommitErrorKind::Permanent,
        other => match family(other) {
            Family::MembershipLost => CommitErrorKind::MembershipLost,
            Family::Fatal => CommitErrorKind::Fatal,
            Family::Authorization | Family::UnknownTopic => CommitErrorKind::Permanent,
            _ => CommitErrorKind::Unknown,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(partition: i32, code: Code) -> Entry {
        Entry { topic: "t".into(), partition, offset: 1, metadata: Vec::new(), code }
    }

    #[test]
    fn a_partition_has_its_own_error_or_else_that_of_the_whole_commit() {
        let entries = [entry(0, Code::OffsetMetadataTooLarge), entry(1, Code::NoError)];
        let of = |partition| {
            outcome(&TopicPartition::new("t", partition), Code::RebalanceInProgress, &entries)
                .map_err(|error| error.kind)
        };
        assert_eq!(of(0), Err(CommitErrorKind::Permanent));
        assert_eq!(of(1), Err(CommitErrorKind::Retry));
        assert_eq!(of(7), Err(CommitErrorKind::Retry));
        assert_eq!(outcome(&TopicPartition::new("t", 1), Code::NoError, &entries), Ok(()));
    }

    #[test]
    fn every_error_says_what_to_do() {
        for (code, expected) in [
            (Code::IllegalGeneration, CommitErrorKind::Retry),
            (Code::StaleMemberEpoch, CommitErrorKind::Retry),
            (Code::UnknownMemberId, CommitErrorKind::MembershipLost),
            (Code::NotCoordinator, CommitErrorKind::Unknown),
            (Code::CoordinatorLoadInProgress, CommitErrorKind::Unknown),
            (Code::BrokerTransportFailure, CommitErrorKind::Unknown),
            (Code::OperationTimedOut, CommitErrorKind::Unknown),
            (Code::FencedInstanceId, CommitErrorKind::Fatal),
            (Code::Fatal, CommitErrorKind::Fatal),
            (Code::UnknownTopicOrPartition, CommitErrorKind::Permanent),
            (Code::GroupAuthorizationFailed, CommitErrorKind::Permanent),
        ] {
            assert_eq!(kind(code), expected, "{code}");
        }
    }

    #[test]
    fn metadata_that_is_not_text_is_told_apart_from_none() {
        assert_eq!(CommittedMetadata::from_bytes(Vec::new()), CommittedMetadata::None);
        assert_eq!(CommittedMetadata::from_bytes(b"{}".to_vec()).text(), Some("{}"));
        assert_eq!(CommittedMetadata::from_bytes(vec![0xff]), CommittedMetadata::NotUtf8);
    }
}
