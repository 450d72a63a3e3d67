//! The end of the topics, the lag, and the patience of `--timeout`.

use std::sync::mpsc::sync_channel;
use std::time::{Duration, Instant};

use super::{Progress, Source, kafka_failure};
use crate::pipeline::lane::Command;
use crate::pipeline::shared::Failure;

/// How often the ends of partitions are asked for, to tell the lag.
const LOOK_FOR_ENDS: Duration = Duration::from_secs(5);

impl Source {
    pub(super) fn look_for_ends(&mut self) {
        let now = Instant::now();
        if now < self.timers.ends {
            return;
        }
        self.timers.ends = now + LOOK_FOR_ENDS;
        let held = self.held_partitions();
        if held.is_empty() {
            return;
        }
        // The lag is only told: when the broker is away there is no news of it.
        if let Ok(ends) = self.consumer.end_offsets(&held, Duration::from_secs(1)) {
            for (partition, end) in ends {
                if let Some(slot) = self.by_partition.get(&partition) {
                    self.shared.books.end(*slot, end);
                }
            }
        }
    }

    /// With `--until-end`: whether every partition that is ours has been read and written up to its end.
    pub(super) fn all_done(&mut self) -> Result<bool, Failure> {
        let Some(ends) = &mut self.ends else { return Ok(false) };
        let reading = ends.reading();
        if !reading.is_empty() {
            let positions = self.consumer.positions(&reading).map_err(|error| kafka_failure(&error))?;
            for (partition, position) in reading.iter().zip(positions) {
                ends.position(partition, position);
            }
        }
        for partition in ends.to_hand_over() {
            // The lane closes its batches early and tells when they are on their way.
            if let Some(slot) = self.by_partition.get(&partition) {
                let (done, answer) = sync_channel(1);
                let lane = self.slots[slot.0 as usize].lane;
                self.lanes.send(lane, Command::HandOver { slots: vec![*slot], done });
                ends.handing_over(&partition, answer);
            }
        }
        ends.collect_answers();
        for partition in ends.handed_over() {
            if let Some(slot) = self.by_partition.get(&partition)
                && self.shared.ask(|machine| machine.is_idle(*slot))
            {
                ends.done(&partition);
            }
        }
        Ok(self.starts.is_empty() && ends.all_done(Instant::now()))
    }

    /// With `--timeout`: gives up when nothing was written for that long and something is being waited for.
    pub(super) fn check_progress(&mut self) -> Result<(), Failure> {
        let Some(patience) = self.options.timeout else { return Ok(()) };
        let flushes = self.shared.flushes();
        if flushes != self.progress.flushes {
            self.progress = Progress { flushes, since: Instant::now() };
        }
        if self.progress.since.elapsed() < patience {
            return Ok(());
        }
        let waited = patience.as_secs_f32();
        Err(Failure::fatal(format!("nothing has moved for {waited} s: {}", self.shared.waiting_for()), None))
    }
}
