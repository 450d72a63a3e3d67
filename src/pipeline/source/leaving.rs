//! Partitions that go: what is on its way is finished and committed before they are given back.

use std::collections::BTreeMap;
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::time::{Duration, Instant};

use txconnect_connector_api::TopicPartition;
use txconnect_kafka::OnLostOffsets;

use super::{SlotState, Source, TURN};
use crate::delivery::{Assignment, Event, Slot};
use crate::pipeline::lane::{Command, LaneReport};
use crate::pipeline::shared::Failure;

/// How long the last commit of a drain is waited for.
const LAST_COMMIT_DEADLINE: Duration = Duration::from_secs(5);
/// How long a drain waits before it repeats a commit that the group has refused.
const REFUSED_PAUSE: Duration = Duration::from_millis(100);

impl Source {
    pub(super) fn slot_of(&mut self, partition: &TopicPartition) -> Result<Slot, Failure> {
        if let Some(slot) = self.by_partition.get(partition) {
            return Ok(*slot);
        }
        let held: Vec<usize> = self.slots.iter().filter(|state| state.held).map(|state| state.lane).collect();
        let lane = self.lanes.least_loaded(&held, &self.consumer)?;
        let slot = Slot(u32::try_from(self.slots.len()).unwrap_or(u32::MAX));
        self.slots.push(SlotState {
            partition: partition.clone(),
            lane,
            assignment: Assignment(0),
            held: false,
        });
        self.by_partition.insert(partition.clone(), slot);
        Ok(slot)
    }

    /// Drains, commits and gives partitions back; or drops them where they are lost.
    pub(super) fn give_back(&mut self, partitions: &[TopicPartition], lost: bool) {
        let slots: Vec<Slot> = partitions
            .iter()
            .filter_map(|partition| self.by_partition.get(partition).copied())
            .filter(|slot| self.slots[slot.0 as usize].held)
            .collect();
        if lost {
            self.shared.tell(Event::Lost { slots: slots.clone() });
            self.lanes.drop_partitions(&self.lanes_of(&slots));
        } else {
            self.drain(&slots);
        }
        for slot in &slots {
            self.slots[slot.0 as usize].held = false;
            self.shared.books.released(*slot);
        }
        if let Some(ends) = &mut self.ends {
            ends.left(partitions);
        }
        if let Err(error) = self.consumer.unassign(partitions) {
            tracing::warn!(pipeline = %self.shared.name, "giving partitions back: {error}");
        }
    }

    /// Finishes what is on its way for these partitions, within `rebalance.drain_timeout`, and commits it.
    fn drain(&mut self, slots: &[Slot]) {
        if slots.is_empty() {
            return;
        }
        let by_lane = self.lanes_of(slots);
        let deadline = Instant::now() + self.pipeline.source.rebalance.drain_timeout.0;
        let (done, answers) = sync_channel(by_lane.len());
        for (lane, slots) in &by_lane {
            self.lanes.send(*lane, Command::Release { slots: slots.clone(), done: done.clone() });
        }
        drop(done);
        let mut answered = 0;
        while answered < by_lane.len() {
            self.shared.beat();
            match answers.recv_timeout(deadline.saturating_duration_since(Instant::now()).min(TURN)) {
                Ok(()) => answered += 1,
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) if Instant::now() >= deadline => break,
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
        self.shared.tell(Event::Revoked { slots: slots.to_vec() });
        let mut gave_up = false;
        let last = deadline + LAST_COMMIT_DEADLINE;
        let mut next_try = Instant::now() + REFUSED_PAUSE;
        loop {
            self.shared.beat();
            if Instant::now() >= next_try {
                next_try = Instant::now() + REFUSED_PAUSE;
                self.shared.tell(Event::CommitDue);
            }
            if let Err(failure) = self.perform_actions() {
                self.shared.fail(failure);
            }
            // What others have taken over in the sink will never finish: nobody need wait for it.
            let fenced = self.shared.take_fenced_of(slots);
            if !fenced.is_empty() {
                self.shared.tell(Event::Lost { slots: fenced });
            }
            let held = self.shared.held();
            if slots.iter().all(|slot| !held.contains(slot)) {
                break;
            }
            let now = Instant::now();
            // After a failure nothing more will finish once the writers hold nothing: lanes that have answered have
            // nothing left to hand over either.
            let failed = self.shared.has_failed() && answered == by_lane.len() && !self.lanes.any_in_flight();
            if !gave_up && (now >= deadline || failed) {
                gave_up = true;
                if !failed {
                    tracing::warn!(
                        pipeline = %self.shared.name,
                        "giving up what is on its way; whoever reads the partitions next repeats it"
                    );
                }
                self.lanes.drop_partitions(&by_lane);
                self.shared.tell(Event::DrainDeadline);
            }
            if now >= last {
                tracing::warn!(pipeline = %self.shared.name, "the last commit was not confirmed in time");
                self.shared.tell(Event::Lost { slots: slots.to_vec() });
                break;
            }
            self.commit_answers(Duration::from_millis(5));
            self.shared.wait_for_move(Duration::from_millis(5));
        }
    }

    fn lanes_of(&self, slots: &[Slot]) -> Vec<(usize, Vec<Slot>)> {
        let mut by_lane: BTreeMap<usize, Vec<Slot>> = BTreeMap::new();
        for slot in slots {
            by_lane.entry(self.slots[slot.0 as usize].lane).or_default().push(*slot);
        }
        by_lane.into_iter().collect()
    }

    pub(super) fn lane_reports(&mut self) -> Result<(), Failure> {
        while let Ok(report) = self.reports.try_recv() {
            match report {
                LaneReport::PositionLost { slot } => self.position_lost(slot)?,
            }
        }
        Ok(())
    }

    /// Retention has overtaken a partition while it was read.
    fn position_lost(&mut self, slot: Slot) -> Result<(), Failure> {
        let state = &self.slots[slot.0 as usize];
        if !state.held {
            return Ok(());
        }
        let partition = state.partition.clone();
        if self.pipeline.source.on_lost_offsets == OnLostOffsets::Stop {
            let place =
                format!("{partition}: the position is outside the log, which has lost records not read yet");
            return Err(lost_offsets(&place));
        }
        // What is on its way is committed; then the partition starts anew, and the start looks at the log.
        self.give_back(std::slice::from_ref(&partition), false);
        self.starts.add([partition]);
        Ok(())
    }
}

pub(super) fn lost_offsets(place: &str) -> Failure {
    Failure::stopped(
        place,
        "records are lost or the topic was made anew: set `on_lost_offsets: earliest` or `latest` to go on",
    )
}
