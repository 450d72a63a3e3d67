//! What a lane has taken and not handed over yet: open batches, and per partition what they cover.
//!
//! A flush is a closed batch, every open batch that shares a partition with it, and per partition the span of
//! offsets that they cover completely. It may hold no row at all: records that were filtered or dead-lettered
//! have to move the position too.

use std::sync::Arc;
use std::time::{Duration, Instant};

use txconnect_connector_api::batch::Row;
use txconnect_connector_api::{BadRecord, Batch, RowSource};

use super::books::Tally;
use super::records::Records;
use crate::delivery::{Assignment, Slot, Span};
use crate::stages::Stage;

/// Index of a destination in its lane.
pub(super) type DestinationIndex = usize;

/// Everything taken by one lane since the last flush.
#[derive(Debug, Default)]
pub(super) struct Open {
    batches: Vec<OpenBatch>,
    /// By slot number.
    partitions: Vec<Option<OpenPartition>>,
}

/// An open batch.
#[derive(Debug)]
struct OpenBatch {
    destination: DestinationIndex,
    batch: Batch,
    slots: Vec<Slot>,
}

/// What is open of one partition.
#[derive(Debug)]
struct OpenPartition {
    assignment: Assignment,
    first: i64,
    next: i64,
    tally: Tally,
    dead_letters: Vec<DeadLetter>,
    /// When the first record since the last flush came; `None` when there is none.
    since: Option<Instant>,
    sources: Vec<Arc<Records>>,
    several: Vec<Several>,
}

/// A record that has become several rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Several {
    /// The record's running number in its lane.
    pub(super) record: u32,
    pub(super) rows: u32,
}

/// A bad record on its way to the dead letter topic.
#[derive(Clone, Debug)]
pub(crate) struct DeadLetter {
    /// The record's running number in its lane.
    pub record: u32,
    /// The partition.
    pub slot: Slot,
    /// The stage that found it.
    pub stage: Stage,
    /// What is wrong.
    pub why: BadRecord,
}

/// What is handed over to a writer.
#[derive(Debug, Default)]
pub(super) struct Closed {
    pub(super) batches: Vec<(DestinationIndex, Batch)>,
    pub(super) spans: Vec<(Span, Tally)>,
    pub(super) dead_letters: Vec<DeadLetter>,
    pub(super) sources: Vec<Arc<Records>>,
    pub(super) several: Vec<Several>,
}

/// What became of a record in the lane.
#[derive(Clone, Debug)]
pub(super) enum Taken {
    /// It has become one row, which is in its batch.
    Row,
    /// It has become several rows, which are in their batches.
    Several(Several),
    /// It makes no row.
    Filtered,
    /// It is bad and left out.
    Skipped,
    /// It is bad and goes to the dead letter topic.
    DeadLetter(DeadLetter),
}

impl Open {
    /// The partition is read from `position` on.
    pub(super) fn assigned(&mut self, slot: Slot, assignment: Assignment, position: i64) {
        let index = slot.0 as usize;
        if self.partitions.len() <= index {
            self.partitions.resize_with(index + 1, || None);
        }
        self.partitions[index] = Some(OpenPartition {
            assignment,
            first: position,
            next: position,
            tally: Tally::default(),
            dead_letters: Vec::new(),
            since: None,
            sources: Vec::new(),
            several: Vec::new(),
        });
    }

    /// The next offset expected of a partition, or `None` where it is not held under this assignment.
    pub(super) fn expected(&self, slot: Slot, assignment: Assignment) -> Option<i64> {
        let partition = self.partitions.get(slot.0 as usize)?.as_ref()?;
        (partition.assignment == assignment).then_some(partition.next)
    }

    /// The open batch for rows of `destination`, of this partition only where batches must not mix them.
    pub(super) fn batch_for(
        &mut self,
        destination: DestinationIndex,
        slot: Slot,
        mix: bool,
        table: &Arc<str>,
    ) -> usize {
        let found = self.batches.iter().position(|open| {
            open.destination == destination && (mix || open.slots.is_empty() || open.slots.contains(&slot))
        });
        found.unwrap_or_else(|| {
            let batch = Batch::new(Arc::clone(table));
            self.batches.push(OpenBatch { destination, batch, slots: Vec::new() });
            self.batches.len() - 1
        })
    }

    /// The bytes of an open batch, for an encoder to append to.
    pub(super) fn bytes(&mut self, batch: usize) -> &mut Vec<u8> {
        &mut self.batches[batch].batch.bytes
    }

    /// The rows of an open batch.
    pub(super) fn rows(&self, batch: usize) -> usize {
        self.batches[batch].batch.rows.len()
    }

    /// Where the rows of an open batch end; what lies behind belongs to the row being encoded.
    pub(super) fn rows_end(&self, batch: usize) -> usize {
        self.batches[batch].batch.rows.last().map_or(0, |row| row.end)
    }

    /// Makes the bytes at the end of an open batch a row of it. The record is to be noted with [`Self::take`] before
    /// anything is closed.
    pub(super) fn push_row(&mut self, batch: usize, source: RowSource) {
        let open = &mut self.batches[batch];
        let end = open.batch.bytes.len();
        open.batch.rows.push(Row { end, source });
        let slot = Slot(source.slot);
        if !open.slots.contains(&slot) {
            open.slots.push(slot);
        }
    }

    /// Notes that the record at `offset` was taken.
    pub(super) fn take(&mut self, slot: Slot, offset: i64, now: Instant, from: &Arc<Records>, taken: Taken) {
        let Some(Some(partition)) = self.partitions.get_mut(slot.0 as usize) else { return };
        partition.next = offset + 1;
        partition.tally.read += 1;
        partition.since.get_or_insert(now);
        if partition.sources.last().is_none_or(|last| !Arc::ptr_eq(last, from)) {
            partition.sources.push(Arc::clone(from));
        }
        match taken {
            Taken::Row => {
                partition.tally.written += 1;
                partition.tally.rows += 1;
            }
            Taken::Several(several) => {
                partition.tally.written += 1;
                partition.tally.rows += u64::from(several.rows);
                partition.several.push(several);
            }
            Taken::Filtered => partition.tally.filtered += 1,
            Taken::Skipped => partition.tally.skipped += 1,
            Taken::DeadLetter(letter) => partition.dead_letters.push(letter),
        }
    }

    /// Bad and filtered records of a partition that wait for a flush.
    pub(super) fn waiting_without_row(&self, slot: Slot) -> u64 {
        self.partitions.get(slot.0 as usize).and_then(Option::as_ref).map_or(0, |partition| {
            partition.tally.filtered + partition.tally.skipped + partition.dead_letters.len() as u64
        })
    }

    /// The partitions with rows in an open batch.
    pub(super) fn slots_of(&self, batch: usize) -> Vec<Slot> {
        self.batches[batch].slots.clone()
    }

    /// Partitions that have something to hand over.
    pub(super) fn slots(&self) -> Vec<Slot> {
        self.open_partitions().map(|(slot, _)| slot).collect()
    }

    /// Partitions whose first record has waited for `linger`.
    pub(super) fn overdue(&self, now: Instant, linger: Duration) -> Vec<Slot> {
        self.open_partitions()
            .filter(|(_, since)| now.saturating_duration_since(*since) >= linger)
            .map(|(slot, _)| slot)
            .collect()
    }

    /// When the first partition will be overdue.
    pub(super) fn next_deadline(&self, linger: Duration) -> Option<Instant> {
        self.open_partitions().map(|(_, since)| since + linger).min()
    }

    /// Bytes in open batches.
    pub(super) fn size(&self) -> usize {
        self.batches
            .iter()
            .map(|open| open.batch.bytes.capacity() + open.batch.rows.capacity() * size_of::<Row>())
            .sum()
    }

    /// Closes everything that has to go together with the open records of `slots`.
    pub(super) fn close(&mut self, slots: &[Slot]) -> Option<Closed> {
        let mut together: Vec<Slot> = slots.to_vec();
        let mut closed = Closed::default();
        // Grows until no open batch shares a partition with what is closed.
        while let Some(index) =
            self.batches.iter().position(|open| open.slots.iter().any(|slot| together.contains(slot)))
        {
            let open = self.batches.swap_remove(index);
            for slot in &open.slots {
                if !together.contains(slot) {
                    together.push(*slot);
                }
            }
            closed.batches.push((open.destination, open.batch));
        }
        together.sort_unstable();
        together.dedup();
        for slot in together {
            let Some(Some(partition)) = self.partitions.get_mut(slot.0 as usize) else { continue };
            if partition.since.take().is_none() {
                continue;
            }
            let (first, next) = (partition.first, partition.next);
            partition.first = next;
            closed.spans.push((
                Span { slot, assignment: partition.assignment, first, next },
                std::mem::take(&mut partition.tally),
            ));
            closed.dead_letters.append(&mut partition.dead_letters);
            closed.several.append(&mut partition.several);
            for source in partition.sources.drain(..) {
                if !closed.sources.iter().any(|known| Arc::ptr_eq(known, &source)) {
                    closed.sources.push(source);
                }
            }
        }
        (!closed.spans.is_empty()).then_some(closed)
    }

    /// Forgets a partition and cuts its rows out of the open batches.
    pub(super) fn drop_partition(&mut self, slot: Slot) {
        if let Some(partition) = self.partitions.get_mut(slot.0 as usize) {
            *partition = None;
        }
        for open in self.batches.iter_mut().filter(|open| open.slots.contains(&slot)) {
            open.batch.retain_rows(|_, row| row.source.slot != slot.0);
            open.slots.retain(|other| *other != slot);
        }
        self.batches.retain(|open| !open.batch.is_empty());
    }

    fn open_partitions(&self) -> impl Iterator<Item = (Slot, Instant)> + '_ {
        self.partitions.iter().enumerate().filter_map(|(index, partition)| {
            let since = partition.as_ref()?.since?;
            Some((Slot(u32::try_from(index).ok()?), since))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn row(open: &mut Open, destination: DestinationIndex, slot: u32, offset: i64, mix: bool) {
        rows(open, &[destination], slot, offset, mix);
    }

    fn rows(open: &mut Open, destinations: &[DestinationIndex], slot: u32, offset: i64, mix: bool) {
        for destination in destinations {
            let batch = open.batch_for(*destination, Slot(slot), mix, &"t".into());
            open.bytes(batch).push(b'x');
            open.push_row(batch, RowSource { slot, offset, record: 0 });
        }
        let records = Arc::new(Records::starting_at(0, 0, 0));
        let taken = match u32::try_from(destinations.len()).unwrap() {
            1 => Taken::Row,
            rows => Taken::Several(Several { record: 0, rows }),
        };
        open.take(Slot(slot), offset, Instant::now(), &records, taken);
    }

    fn spans(closed: &Closed) -> Vec<(u32, i64, i64)> {
        closed.spans.iter().map(|(span, _)| (span.slot.0, span.first, span.next)).collect()
    }

    #[test]
    fn batches_that_share_a_partition_are_closed_together() {
        let mut open = Open::default();
        for slot in 0..4 {
            open.assigned(Slot(slot), Assignment(1), 0);
        }
        row(&mut open, 0, 0, 0, true);
        row(&mut open, 0, 1, 7, true);
        row(&mut open, 1, 1, 8, true);
        row(&mut open, 1, 2, 3, true);
        row(&mut open, 2, 3, 0, true);
        let closed = open.close(&[Slot(0)]).unwrap();
        assert_eq!(spans(&closed), [(0, 0, 1), (1, 0, 9), (2, 0, 4)]);
        assert_eq!(closed.batches.len(), 2);
        assert_eq!(open.slots(), [Slot(3)]);
        assert!(open.close(&[Slot(0)]).is_none());
    }

    #[test]
    fn records_without_a_row_move_the_position_too() {
        let mut open = Open::default();
        open.assigned(Slot(0), Assignment(1), 5);
        let records = Arc::new(Records::starting_at(0, 0, 0));
        open.take(Slot(0), 5, Instant::now(), &records, Taken::Filtered);
        open.take(Slot(0), 9, Instant::now(), &records, Taken::Skipped);
        assert_eq!(open.waiting_without_row(Slot(0)), 2);
        let closed = open.close(&[Slot(0)]).unwrap();
        assert_eq!(spans(&closed), [(0, 5, 10)]);
        assert_eq!((closed.batches.len(), closed.spans[0].1.read), (0, 2));
    }

    #[test]
    fn a_record_taken_under_an_older_assignment_is_not_expected_any_more() {
        let mut open = Open::default();
        open.assigned(Slot(0), Assignment(1), 150);
        assert_eq!(open.expected(Slot(0), Assignment(1)), Some(150));
        open.drop_partition(Slot(0));
        assert_eq!(open.expected(Slot(0), Assignment(1)), None);
        open.assigned(Slot(0), Assignment(2), 120);
        assert_eq!(open.expected(Slot(0), Assignment(1)), None);
        assert_eq!(open.expected(Slot(0), Assignment(2)), Some(120));
    }

    #[test]
    fn a_lost_partition_takes_its_rows_along_and_leaves_the_others() {
        let mut open = Open::default();
        open.assigned(Slot(0), Assignment(1), 0);
        open.assigned(Slot(1), Assignment(2), 0);
        row(&mut open, 0, 0, 0, true);
        row(&mut open, 0, 1, 0, true);
        row(&mut open, 0, 0, 1, true);
        open.drop_partition(Slot(0));
        let closed = open.close(&[Slot(0), Slot(1)]).unwrap();
        assert_eq!(spans(&closed), [(1, 0, 1)]);
        assert_eq!(closed.batches[0].1.rows.len(), 1);
    }

    #[test]
    fn rows_of_one_record_leave_together_and_count_as_one_record() {
        for mix in [true, false] {
            let mut open = Open::default();
            for slot in 0..3 {
                open.assigned(Slot(slot), Assignment(1), 0);
            }
            row(&mut open, 0, 0, 0, mix);
            rows(&mut open, &[0, 1, 1], 1, 0, mix);
            row(&mut open, 1, 2, 0, mix);
            let closed = open.close(&[Slot(1)]).unwrap();
            assert_eq!(closed.spans.len(), if mix { 3 } else { 1 });
            let (_, tally) = closed.spans.iter().find(|(span, _)| span.slot == Slot(1)).unwrap();
            assert_eq!((tally.read, tally.written, tally.rows), (1, 1, 3));
            let kept = closed.batches.iter().flat_map(|(_, batch)| &batch.rows);
            assert_eq!(kept.filter(|row| row.source.slot == 1).count(), 3);
            assert_eq!(closed.several, [Several { record: 0, rows: 3 }]);
        }
    }

    proptest! {
        /// Whatever is closed in whatever order: spans of a partition follow one another without a gap, and every
        /// row lies inside a span of its own flush.
        #[test]
        fn spans_never_leave_a_gap_and_always_cover_their_rows(
            mix in any::<bool>(),
            steps in prop::collection::vec(
                (prop::collection::vec(0_usize..3, 1..4), 0_u32..4, 1_i64..4, any::<bool>()), 1..80
            ),
        ) {
            let mut open = Open::default();
            for slot in 0..4 {
                open.assigned(Slot(slot), Assignment(1), 0);
            }
            let mut next = [0_i64; 4];
            let mut covered = [0_i64; 4];
            let mut made = 0;
            let mut counted = 0;
            let mut flushed = 0;
            let mut check = |closed: Closed, flushed: &mut usize| -> Result<(), TestCaseError> {
                for (span, tally) in &closed.spans {
                    counted += tally.rows;
                    let slot = span.slot.0 as usize;
                    prop_assert_eq!(span.first, covered[slot]);
                    covered[slot] = span.next;
                }
                for (_, batch) in &closed.batches {
                    *flushed += batch.rows.len();
                    for row in &batch.rows {
                        let span = closed.spans.iter().find(|(span, _)| span.slot.0 == row.source.slot);
                        let Some((span, _)) = span else { return Err(TestCaseError::fail("a row without a span")) };
                        prop_assert!((span.first..span.next).contains(&row.source.offset));
                    }
                    if !mix {
                        prop_assert!(batch.rows.iter().all(|row| row.source.slot == batch.rows[0].source.slot));
                    }
                }
                Ok(())
            };
            for (destinations, slot, gap, close) in steps {
                let offset = next[slot as usize] + gap - 1;
                next[slot as usize] = offset + 1;
                rows(&mut open, &destinations, slot, offset, mix);
                made += destinations.len();
                if close && let Some(closed) = open.close(&[Slot(slot)]) {
                    check(closed, &mut flushed)?;
                }
            }
            while let Some(slot) = open.slots().first().copied() {
                let Some(closed) = open.close(&[slot]) else { return Err(TestCaseError::fail("nothing closed")) };
                check(closed, &mut flushed)?;
            }
            prop_assert_eq!(made, flushed);
            prop_assert_eq!(made as u64, counted);
            prop_assert_eq!(covered, next);
        }
    }
}
