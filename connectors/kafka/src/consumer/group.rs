//! Which partitions are read, from where, into which lane.

#![forbid(unsafe_code)]

use rdkafka::topic_partition_list::Offset;
use txconnect_connector_api::TopicPartition;

use super::{Consumer, list_of};
use crate::error::KafkaError;
use crate::lane_queue::LaneHandle;

/// A partition to read.
#[derive(Clone, Copy)]
pub struct Assignment<'a> {
    /// The partition.
    pub partition: &'a TopicPartition,
    /// The first record to read.
    pub start: StartAt,
    /// The queue that its records go to.
    pub queue: &'a LaneHandle,
}

/// Where reading a partition begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartAt {
    /// At this offset; negative ones are refused.
    Offset(i64),
    /// At the first record there is.
    Beginning,
    /// With records that come from now on.
    End,
}

impl From<StartAt> for Offset {
    fn from(start: StartAt) -> Self {
        match start {
            StartAt::Offset(offset) => Self::Offset(offset),
            StartAt::Beginning => Self::Beginning,
            StartAt::End => Self::End,
        }
    }
}

/// A partition that is being read.
pub(super) struct Held {
    start: StartAt,
    lane: LaneHandle,
}

impl Consumer {
    /// Starts to read these partitions in addition to those that are read already. The list may be empty,
    /// to answer [`super::ConsumerEvent::Assign`] now and start later.
    ///
    /// Under an eager assignor (`range`, `roundrobin`) every call interrupts all partitions, and a record that a
    /// lane takes meanwhile may come a second time: drop offsets below the expected one.
    pub fn assign(&self, partitions: &[Assignment<'_>]) -> Result<(), KafkaError> {
        let added = list_of(partitions.iter().map(|added| (added.partition, added.start.into())))?;
        // Before assigning: what is fetched in between would go to the wrong queue.
        for added in partitions {
            self.forward(added.partition, added.queue)?;
        }
        let result = if self.handle.is_cooperative() {
            self.handle.incremental_assign(&added)
        } else {
            self.remember_positions()?;
            let assigned = self.assigned.borrow();
            let kept = assigned
                .iter()
                .filter(|(partition, _)| partitions.iter().all(|added| added.partition != *partition))
                .map(|(partition, held)| (partition, held.start));
            let new = partitions.iter().map(|added| (added.partition, added.start));
            let all = list_of(kept.chain(new).map(|(partition, start)| (partition, start.into())))?;
            self.handle.assign(&all)
        };
        result.map_err(|failure| self.failed(&failure, "assigning", None))?;
        let mut assigned = self.assigned.borrow_mut();
        for added in partitions {
            let held = Held { start: added.start, lane: added.queue.clone() };
            assigned.insert(added.partition.clone(), held);
        }
        Ok(())
    }

    /// Stops reading these partitions. Those that were never started may be in the list. Messages that were
    /// taken before stay valid.
    pub fn unassign(&self, partitions: &[TopicPartition]) -> Result<(), KafkaError> {
        let cooperative = self.handle.is_cooperative();
        if !cooperative {
            self.remember_positions()?;
        }
        let started: Vec<&TopicPartition> = {
            let mut assigned = self.assigned.borrow_mut();
            partitions.iter().filter(|partition| assigned.remove(*partition).is_some()).collect()
        };
        let result = if cooperative {
            let removed = list_of(started.iter().map(|partition| (*partition, Offset::Invalid)))?;
            self.handle.incremental_unassign(&removed)
        } else {
            let assigned = self.assigned.borrow();
            if assigned.is_empty() {
                self.handle.assign_nothing()
            } else {
                let kept = assigned.iter().map(|(partition, held)| (partition, held.start.into()));
                self.handle.assign(&list_of(kept)?)
            }
        };
        result.map_err(|failure| self.failed(&failure, "giving partitions up", None))
    }

    /// What is being read.
    pub fn assignment(&self) -> Vec<TopicPartition> {
        self.assigned.borrow().keys().cloned().collect()
    }

    /// Replacing the assignment starts every partition anew: from where its lane has arrived.
    fn remember_positions(&self) -> Result<(), KafkaError> {
        let partitions = self.assignment();
        let positions = self.positions(&partitions)?;
        let mut assigned = self.assigned.borrow_mut();
        for (partition, position) in partitions.iter().zip(positions) {
            if let (Some(held), Some(position)) = (assigned.get_mut(partition), position) {
                held.start = StartAt::Offset(position);
            }
        }
        Ok(())
    }

    /// Replacing the assignment stops every partition first, in the background, and a stop takes the
    /// forwarding off. So under an eager assignor forwarding is renewed at every poll; what has arrived
    /// meanwhile moves over, in order.
    pub(super) fn forward_again(&self) {
        let assigned = self.assigned.borrow();
        if assigned.is_empty() || self.handle.is_cooperative() {
            return;
        }
        for (partition, held) in assigned.iter() {
            if let Err(error) = self.forward(partition, &held.lane) {
                tracing::warn!(target: "kafka", "{partition} could not be forwarded to its lane: {error}");
            }
        }
    }
}
