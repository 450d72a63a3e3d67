//! Which partitions are read, from where, into which lane.

#![forbid(unsafe_code)]

use rdkafka::TopicPartitionList;
use rdkafka::topic_partition_list::Offset;
use txconnect_connector_api::TopicPartition;

use super::{Consumer, list_of};
use crate::error::KafkaError;
use crate::lane_queue::LaneHandle;
use crate::native::{Failure, Handle, Queue};

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
    /// Where the partition is fetched into.
    source: Queue,
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
        let mut new = Vec::with_capacity(partitions.len());
        for &Assignment { partition, start, queue } in partitions {
            let source = self.handle.partition_queue(&partition.topic, partition.partition);
            let source =
                source.ok_or_else(|| KafkaError::UnknownTopic { topic: partition.topic.to_string() })?;
            // Before assigning: what is fetched in between would go to the wrong queue.
            source.forward_to(queue.queue());
            new.push((partition.clone(), Held { start, source, lane: queue.clone() }));
        }
        if self.handle.is_cooperative() {
            self.change(&added, Handle::incremental_assign)?;
            self.assigned.borrow_mut().extend(new);
            return Ok(());
        }
        self.remember_positions()?;
        self.assigned.borrow_mut().extend(new);
        self.replace_assignment().inspect_err(|_| {
            let mut assigned = self.assigned.borrow_mut();
            for added in partitions {
                assigned.remove(added.partition);
            }
        })
    }

    /// Makes the client read what `assigned` says.
    fn replace_assignment(&self) -> Result<(), KafkaError> {
        let assigned = self.assigned.borrow();
        let all = list_of(assigned.iter().map(|(partition, held)| (partition, held.start.into())))?;
        self.change(&all, Handle::assign)
    }

    fn change(
        &self,
        list: &TopicPartitionList,
        call: fn(&Handle, &TopicPartitionList) -> Result<(), Failure>,
    ) -> Result<(), KafkaError> {
        call(&self.handle, list).map_err(|failure| self.failed(&failure, "changing the assignment", None))
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
        if cooperative {
            let removed = list_of(started.iter().map(|partition| (*partition, Offset::Invalid)))?;
            self.change(&removed, Handle::incremental_unassign)
        } else if self.assigned.borrow().is_empty() {
            self.handle
                .assign_nothing()
                .map_err(|failure| self.failed(&failure, "giving partitions up", None))
        } else {
            self.replace_assignment()
        }
    }

    /// Starts an assigned partition anew from `start`, also one that stands still after an error.
    pub(super) fn restart(&self, partition: &TopicPartition, start: StartAt) -> Result<(), KafkaError> {
        let cooperative = self.handle.is_cooperative();
        if !cooperative {
            self.remember_positions()?;
        }
        match self.assigned.borrow_mut().get_mut(partition) {
            Some(held) => held.start = start,
            None => {
                return Err(KafkaError::Other {
                    what: format!("moving the position of {partition}"),
                    cause: "the partition is not assigned".to_owned(),
                });
            }
        }
        if !cooperative {
            return self.replace_assignment();
        }
        let list = list_of([(partition, start.into())])?;
        self.change(&list, Handle::incremental_unassign)?;
        self.change(&list, Handle::incremental_assign)
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

    /// Stopping a partition takes its forwarding off, in the background: when it is started again at once,
    /// as replacing the assignment does, possibly after it was forwarded anew. So forwarding is renewed at every
    /// poll; what has arrived meanwhile moves over, in order.
    pub(super) fn forward_again(&self) {
        for held in self.assigned.borrow().values() {
            held.source.forward_to(held.lane.queue());
        }
    }
}
