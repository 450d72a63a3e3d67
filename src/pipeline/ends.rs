//! `--until-end`: which partitions have been read and written up to the end they had at the start.
//!
//! A partition is done when librdkafka's position, which passes transaction markers, has reached its end and
//! everything taken of it is settled. Partitions that other members hold are left to them.

use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::{Duration, Instant};

use txconnect_connector_api::TopicPartition;

/// How long a member that was given nothing waits for partitions of others before it leaves.
const PATIENCE: Duration = Duration::from_secs(5);

pub(super) struct Ends {
    positions: BTreeMap<TopicPartition, i64>,
    ours: BTreeMap<TopicPartition, Stage>,
    joined: Option<Instant>,
}

enum Stage {
    Reading,
    AtEnd,
    HandingOver(Receiver<()>),
    HandedOver,
    Done,
}

impl Ends {
    pub(super) fn new(ends: Vec<(TopicPartition, i64)>) -> Self {
        Self { positions: ends.into_iter().collect(), ours: BTreeMap::new(), joined: None }
    }

    /// The group has answered: we are a member.
    pub(super) fn joined(&mut self) {
        self.joined.get_or_insert_with(Instant::now);
    }

    /// A partition is read from `position` on.
    pub(super) fn started(&mut self, partition: &TopicPartition, position: i64) {
        // Partitions that came into being after the start have no end to reach.
        let Some(end) = self.positions.get(partition) else { return };
        let stage = if position >= *end { Stage::Done } else { Stage::Reading };
        self.ours.insert(partition.clone(), stage);
    }

    /// Partitions belong to another member now.
    pub(super) fn left(&mut self, partitions: &[TopicPartition]) {
        for partition in partitions {
            self.ours.remove(partition);
        }
        self.joined = Some(Instant::now());
    }

    pub(super) fn reading(&self) -> Vec<TopicPartition> {
        self.at(|stage| matches!(stage, Stage::Reading))
    }

    /// What librdkafka says of a partition being read.
    pub(super) fn position(&mut self, partition: &TopicPartition, position: Option<i64>) {
        let reached =
            self.positions.get(partition).zip(position).is_some_and(|(end, position)| position >= *end);
        if reached {
            self.set(partition, Stage::AtEnd);
        }
    }

    pub(super) fn to_hand_over(&self) -> Vec<TopicPartition> {
        self.at(|stage| matches!(stage, Stage::AtEnd))
    }

    pub(super) fn handing_over(&mut self, partition: &TopicPartition, answer: Receiver<()>) {
        self.set(partition, Stage::HandingOver(answer));
    }

    pub(super) fn collect_answers(&mut self) {
        for stage in self.ours.values_mut() {
            if let Stage::HandingOver(answer) = stage {
                match answer.try_recv() {
                    Ok(()) => *stage = Stage::HandedOver,
                    Err(TryRecvError::Empty) => {}
                    // The lane has dropped the request along with the partition: ask again if it is still ours.
                    Err(TryRecvError::Disconnected) => *stage = Stage::AtEnd,
                }
            }
        }
    }

    pub(super) fn handed_over(&self) -> Vec<TopicPartition> {
        self.at(|stage| matches!(stage, Stage::HandedOver))
    }

    pub(super) fn done(&mut self, partition: &TopicPartition) {
        self.set(partition, Stage::Done);
    }

    /// Whether nothing is left to do for this member.
    pub(super) fn all_done(&self, now: Instant) -> bool {
        let Some(joined) = self.joined else { return false };
        if self.ours.is_empty() && !self.positions.is_empty() {
            return now.saturating_duration_since(joined) >= PATIENCE;
        }
        self.ours.values().all(|stage| matches!(stage, Stage::Done))
    }

    fn at(&self, wanted: impl Fn(&Stage) -> bool) -> Vec<TopicPartition> {
        self.ours.iter().filter(|(_, stage)| wanted(stage)).map(|(partition, _)| partition.clone()).collect()
    }

    fn set(&mut self, partition: &TopicPartition, stage: Stage) {
        if let Some(current) = self.ours.get_mut(partition) {
            *current = stage;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::sync_channel;

    fn partition(number: i32) -> TopicPartition {
        TopicPartition::new("t", number)
    }

    #[test]
    fn a_partition_is_done_only_when_it_was_read_handed_over_and_settled() {
        let mut ends = Ends::new(vec![(partition(0), 5), (partition(1), 0)]);
        let now = Instant::now();
        assert!(!ends.all_done(now));
        ends.joined();
        ends.started(&partition(0), 0);
        ends.started(&partition(1), 0);
        assert_eq!(ends.reading(), [partition(0)]);
        ends.position(&partition(0), None);
        ends.position(&partition(0), Some(4));
        assert!(ends.to_hand_over().is_empty());
        ends.position(&partition(0), Some(6));
        assert_eq!(ends.to_hand_over(), [partition(0)]);
        let (sender, receiver) = sync_channel(1);
        ends.handing_over(&partition(0), receiver);
        ends.collect_answers();
        assert!(ends.handed_over().is_empty());
        sender.send(()).unwrap();
        ends.collect_answers();
        assert_eq!(ends.handed_over(), [partition(0)]);
        assert!(!ends.all_done(now));
        ends.done(&partition(0));
        assert!(ends.all_done(now));
    }

    #[test]
    fn partitions_that_moved_to_another_member_are_left_to_it() {
        let mut ends = Ends::new(vec![(partition(0), 5), (partition(1), 5)]);
        ends.joined();
        ends.started(&partition(0), 0);
        ends.started(&partition(1), 5);
        ends.left(&[partition(0)]);
        assert!(ends.all_done(Instant::now()));
    }

    #[test]
    fn a_member_that_was_given_nothing_waits_a_little_before_it_leaves() {
        let mut ends = Ends::new(vec![(partition(0), 5)]);
        ends.joined();
        let now = Instant::now();
        assert!(!ends.all_done(now));
        assert!(ends.all_done(now + PATIENCE * 2));
    }
}
