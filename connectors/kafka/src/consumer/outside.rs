//! The group looked at, and moved, from outside: what tools do for a group that they are no member of.
//!
//! A [`Consumer`] that has not subscribed to anything is no member.

#![forbid(unsafe_code)]

use std::time::{Duration, Instant};

use rdkafka::types::RDKafkaErrorCode as Code;
use rdkafka_sys::rd_kafka_consumer_group_state_t as State;
use txconnect_connector_api::TopicPartition;

use super::commit::list_of_positions;
use super::{CommitPosition, Consumer};
use crate::error::{KafkaError, describe};
use crate::native::{DescribedGroup, Failure};

/// How long to wait before a coordinator that is not ready is asked again.
const PAUSE: Duration = Duration::from_millis(100);

/// How a consumer group is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GroupState {
    /// The brokers know no such group, or nothing but its name.
    Absent,
    /// It has positions, or had members, and has none now.
    Empty,
    /// It has members: only they may move its positions.
    Active {
        /// The members; seldom none, while the group is being formed.
        members: Vec<GroupMember>,
    },
}

/// A member of a consumer group.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct GroupMember {
    /// What the client calls itself: `client.id`.
    pub client_id: String,
    /// Where it connects from, as the broker sees it.
    pub host: String,
}

/// Why positions of a group were not moved from outside.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MoveGroupError {
    /// The group has members. Nothing was changed.
    #[error("the group `{group}` has members, and only they may move its positions; stop them first")]
    Active {
        /// The group.
        group: String,
    },
    /// Single partitions were refused; the positions of the others are stored.
    #[error("Kafka refused the positions of {}", told(refused))]
    Refused {
        /// The partitions, each with what the broker said.
        refused: Vec<(TopicPartition, String)>,
    },
    /// Anything else. After a time-out the positions may be stored or not.
    #[error(transparent)]
    Failed(#[from] KafkaError),
}

fn told(refused: &[(TopicPartition, String)]) -> String {
    let told: Vec<String> =
        refused.iter().map(|(partition, message)| format!("{partition} ({message})")).collect();
    told.join(", ")
}

impl Consumer {
    /// How the group is doing, under either group protocol. One that is formed anew may be active before
    /// its members are told.
    pub fn group_state(&self, timeout: Duration) -> Result<GroupState, KafkaError> {
        let what = "describing the group";
        let deadline = Instant::now() + timeout;
        loop {
            let described = self.handle.describe_group(&self.group, left(deadline));
            let DescribedGroup { state, members, failure } =
                described.map_err(|failure| self.failed(&failure, what, None))?;
            match failure {
                Some(Failure { code: Code::GroupIdNotFound, .. }) => return Ok(GroupState::Absent),
                Some(failure) if passes(failure.code) && !left(deadline).is_zero() => {
                    std::thread::sleep(PAUSE.min(left(deadline)));
                }
                Some(failure) => return Err(self.failed(&failure, what, None)),
                None => {
                    let members = members
                        .into_iter()
                        .map(|member| GroupMember { client_id: member.client_id, host: member.host })
                        .collect();
                    return Ok(state_of(state, members));
                }
            }
        }
    }

    /// Stores positions for the group, of which nobody may be a member; this client included.
    ///
    /// # Errors
    /// See [`MoveGroupError`]. Metadata longer than brokers take is refused before anything is sent.
    pub fn move_group(&self, positions: &[CommitPosition], timeout: Duration) -> Result<(), MoveGroupError> {
        let what = "moving the group";
        if positions.is_empty() {
            return Ok(());
        }
        let list = list_of_positions(positions)?;
        let deadline = Instant::now() + timeout;
        loop {
            let entries = self
                .handle
                .alter_group_offsets(&self.group, &list, left(deadline))
                .map_err(|failure| self.not_moved(&failure, what))?;
            let refused: Vec<_> = entries.iter().filter(|entry| entry.code != Code::NoError).collect();
            if refused.is_empty() {
                return Ok(());
            }
            if refused.iter().any(|entry| is_active(entry.code)) {
                return Err(MoveGroupError::Active { group: self.group.clone() });
            }
            if refused.iter().all(|entry| passes(entry.code)) && !left(deadline).is_zero() {
                std::thread::sleep(PAUSE.min(left(deadline)));
                continue;
            }
            let refused = refused.into_iter().map(|entry| (self.partition(entry), describe(entry.code)));
            return Err(MoveGroupError::Refused { refused: refused.collect() });
        }
    }

    fn not_moved(&self, failure: &Failure, what: &str) -> MoveGroupError {
        if is_active(failure.code) {
            return MoveGroupError::Active { group: self.group.clone() };
        }
        self.failed(failure, what, None).into()
    }
}

fn left(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(Instant::now())
}

/// The client knows the states of the classic protocol only: what else there is counts as unknown.
fn state_of(state: State, members: Vec<GroupMember>) -> GroupState {
    match state {
        State::RD_KAFKA_CONSUMER_GROUP_STATE_DEAD if members.is_empty() => GroupState::Absent,
        State::RD_KAFKA_CONSUMER_GROUP_STATE_EMPTY if members.is_empty() => GroupState::Empty,
        _ => GroupState::Active { members },
    }
}

/// Whether the broker refuses because the group has members.
fn is_active(code: Code) -> bool {
    matches!(
        code,
        Code::UnknownMemberId
            | Code::IllegalGeneration
            | Code::RebalanceInProgress
            | Code::StaleMemberEpoch
            | Code::NonEmptyGroup
    )
}

/// Whether the coordinator is only not ready yet.
fn passes(code: Code) -> bool {
    matches!(code, Code::NotCoordinator | Code::CoordinatorLoadInProgress | Code::CoordinatorNotAvailable)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_with_members_is_active_whatever_the_broker_calls_its_state() {
        let member = || vec![GroupMember { client_id: "txconnect-g".into(), host: "/10.0.0.7".into() }];
        for state in [
            State::RD_KAFKA_CONSUMER_GROUP_STATE_STABLE,
            State::RD_KAFKA_CONSUMER_GROUP_STATE_UNKNOWN,
            State::RD_KAFKA_CONSUMER_GROUP_STATE_EMPTY,
        ] {
            assert_eq!(state_of(state, member()), GroupState::Active { members: member() });
        }
        let nobody = |state| state_of(state, Vec::new());
        assert_eq!(nobody(State::RD_KAFKA_CONSUMER_GROUP_STATE_EMPTY), GroupState::Empty);
        assert_eq!(nobody(State::RD_KAFKA_CONSUMER_GROUP_STATE_DEAD), GroupState::Absent);
        assert_eq!(
            nobody(State::RD_KAFKA_CONSUMER_GROUP_STATE_PREPARING_REBALANCE),
            GroupState::Active { members: Vec::new() }
        );
    }

    #[test]
    fn refused_partitions_are_named_with_the_reason() {
        let refused = vec![
            (TopicPartition::new("a", 0), "Broker: Unknown topic".to_owned()),
            (TopicPartition::new("b", 3), "Broker: Unknown topic".to_owned()),
        ];
        let text = MoveGroupError::Refused { refused }.to_string();
        assert!(text.contains(&TopicPartition::new("b", 3).to_string()), "{text}");
        assert!(text.contains("(Broker: Unknown topic)"), "{text}");
    }
}
