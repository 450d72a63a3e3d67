//! One replay at a time: whoever replays is the only member of the group that remembers it.
//!
//! Kafka takes positions of a group from its members only, and none from a member that it has thrown out. So a replay
//! that was frozen and wakes up late cannot overwrite what a later one has stored.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use txconnect_connector_api::TopicPartition;
use txconnect_kafka::{
    CommitErrorKind, CommitPosition, Consumer, ConsumerEvent, GroupState, TroubleKind, Tuning,
};

use super::{CommandError, Opened, QUESTION, kafka_failed};

/// How long joining the group may take. Brokers wait 3 s by default for other members.
const JOIN: Duration = Duration::from_mins(1);
/// How long partitions that somebody else may be giving up are waited for.
const GRACE: Duration = Duration::from_secs(5);
/// How long leaving the group may take.
const LEAVE: Duration = Duration::from_secs(10);
/// Settings of the pipeline's own membership that would stand in the way of this one: the group is another one, and it
/// must be left at once.
const NOT_TAKEN_OVER: [&str; 4] =
    ["group.instance.id", "group.protocol", "group.remote.assignor", "partition.assignment.strategy"];

/// The membership. Drop it with [`Lock::leave`], else the next replay has to wait until the session is over.
pub(super) struct Lock {
    consumer: Consumer,
    group: String,
    commits: u64,
    /// What the group takes away, not given up yet.
    revoked: Vec<TopicPartition>,
}

impl Lock {
    /// Joins the group, alone.
    pub(super) fn take(opened: &Opened, partitions: &[TopicPartition]) -> Result<Self, CommandError> {
        refuse_active(opened)?;
        let mut source = opened.pipeline.source.clone();
        for name in NOT_TAKEN_OVER {
            source.properties.remove(name);
        }
        let group = opened.group.clone();
        let consumer = Consumer::connect(&source, &group, Tuning::default());
        let consumer = consumer.map_err(|error| kafka_failed(&error))?;
        let topics: BTreeSet<String> =
            partitions.iter().map(|partition| partition.topic.to_string()).collect();
        let topics: Vec<String> = topics.into_iter().collect();
        consumer.subscribe(&topics).map_err(|error| kafka_failed(&error))?;
        let lock = Self { consumer, group, commits: 0, revoked: Vec::new() };
        match lock.joined(partitions) {
            Ok(()) => Ok(lock),
            Err(error) => {
                lock.leave();
                Err(error)
            }
        }
    }

    /// Waits until all partitions are ours.
    fn joined(&self, partitions: &[TopicPartition]) -> Result<(), CommandError> {
        let mut end = Instant::now() + JOIN;
        let mut held = BTreeSet::new();
        loop {
            match self.consumer.poll(Duration::from_millis(100)) {
                Some(ConsumerEvent::Assign(added)) => {
                    // Letters are read by another client: this one only holds.
                    self.consumer.assign(&[]).map_err(|error| kafka_failed(&error))?;
                    held.extend(added);
                    if partitions.iter().all(|partition| held.contains(partition)) {
                        return Ok(());
                    }
                    end = end.min(Instant::now() + GRACE);
                }
                Some(ConsumerEvent::Revoke { partitions, .. }) => {
                    self.consumer.unassign(&partitions).map_err(|error| kafka_failed(&error))?;
                    held.retain(|partition| !partitions.contains(partition));
                }
                Some(ConsumerEvent::Trouble(trouble)) if ends(&trouble.kind) => {
                    return Err(CommandError::Failed(format!(
                        "joining the group {}: {}; nothing was sent",
                        self.group, trouble.message
                    )));
                }
                Some(ConsumerEvent::Closed) => return Err(self.closed()),
                Some(ConsumerEvent::Trouble(_)) | None => {}
            }
            if Instant::now() >= end {
                return Err(CommandError::Failed(format!(
                    "the group {} has not given all partitions in time: another replay of this pipeline has begun, or \
                     the brokers are slow; nothing was sent, run the command again",
                    self.group
                )));
            }
        }
    }

    /// Serves the membership; fails once it is lost.
    pub(super) fn check(&mut self) -> Result<(), CommandError> {
        while let Some(event) = self.consumer.poll(Duration::ZERO) {
            match event {
                ConsumerEvent::Assign(_) => {
                    self.consumer.assign(&[]).map_err(|error| kafka_failed(&error))?;
                }
                ConsumerEvent::Revoke { partitions, .. } => {
                    self.revoked = partitions;
                    return Err(CommandError::Failed(format!(
                        "the group {} has taken the dead letters away: another replay has begun, or this one was \
                         frozen for too long",
                        self.group
                    )));
                }
                ConsumerEvent::Trouble(trouble) if ends(&trouble.kind) => {
                    return Err(CommandError::Failed(format!(
                        "the group {}: {}",
                        self.group, trouble.message
                    )));
                }
                ConsumerEvent::Trouble(_) => {}
                ConsumerEvent::Closed => return Err(self.closed()),
            }
        }
        Ok(())
    }

    /// Stores positions for the group.
    pub(super) fn remember(&mut self, positions: &[CommitPosition]) -> Result<(), CommandError> {
        if positions.is_empty() {
            return Ok(());
        }
        let deadline = Instant::now() + QUESTION;
        loop {
            self.commits += 1;
            self.consumer.commit(self.commits, positions).map_err(|error| kafka_failed(&error))?;
            let Some(refused) = self.refused(deadline)? else { return Ok(()) };
            if refused.kind != CommitErrorKind::Retry || Instant::now() >= deadline {
                return Err(CommandError::Failed(refused.to_string()));
            }
            if self.revoked.is_empty() {
                self.check()?;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// The first refusal in the answer to the last commit, if there is one.
    fn refused(&self, deadline: Instant) -> Result<Option<txconnect_kafka::CommitError>, CommandError> {
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.consumer.commit_answer(left.min(Duration::from_millis(100))) {
                Some(answer) if answer.token == self.commits => {
                    return Ok(answer.results.into_iter().find_map(|(_, result)| result.err()));
                }
                _ if left.is_zero() => {
                    return Err(CommandError::Failed(format!(
                        "Kafka did not confirm within {} s what is to be remembered",
                        QUESTION.as_secs()
                    )));
                }
                _ => {}
            }
        }
    }

    /// Leaves the group, so that the next replay need not wait.
    pub(super) fn leave(self) {
        if !self.revoked.is_empty()
            && let Err(error) = self.consumer.unassign(&self.revoked)
        {
            tracing::debug!("giving dead letters up: {error}");
        }
        if let Err(error) = self.consumer.close(LEAVE) {
            tracing::warn!("{error}; the next replay waits until the session is over");
        }
    }

    fn closed(&self) -> CommandError {
        CommandError::Failed(format!("the Kafka client has left the group {} by itself", self.group))
    }
}

fn ends(kind: &TroubleKind) -> bool {
    matches!(kind, TroubleKind::Fatal | TroubleKind::Authentication | TroubleKind::Authorization)
}

/// Fails where somebody replays already.
pub(super) fn refuse_active(opened: &Opened) -> Result<(), CommandError> {
    let state = opened.consumer.group_state(QUESTION).map_err(|error| kafka_failed(&error))?;
    let GroupState::Active { members } = state else { return Ok(()) };
    let mut hosts: Vec<String> = members.into_iter().map(|member| member.host).collect();
    hosts.sort_unstable();
    hosts.dedup();
    let at = if hosts.is_empty() { String::new() } else { format!(" at {}", hosts.join(", ")) };
    Err(CommandError::Failed(format!(
        "another replay of this pipeline is under way{at}: the group {} has a member; wait for its end, and after a \
         kill until the session has timed out (45 s by default); nothing was sent",
        opened.group
    )))
}
