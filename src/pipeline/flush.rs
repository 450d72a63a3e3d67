//! What a lane hands over to its writer.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use txconnect_connector_api::Batch;

use super::books::Tally;
use super::memory::{Charge, Memory};
use super::open::{Closed, DeadLetter};
use super::records::{RecordView, Records};
use super::topic::Destination;
use crate::delivery::{Slot, Span};

/// What a lane hands over: batches, bad records, and the spans of offsets that they cover completely.
pub(super) struct Flush {
    pub(super) destinations: Vec<Arc<Destination>>,
    /// As many as `destinations`, in the same order.
    pub(super) batches: Vec<Batch>,
    pub(super) spans: Vec<(Span, Tally)>,
    pub(super) dead_letters: Vec<DeadLetter>,
    sources: Vec<Arc<Records>>,
    /// How many rows a record has become, where there are several.
    several: HashMap<u32, u32>,
    /// The batches; the sources carry charges of their own.
    _charge: Charge,
}

impl Flush {
    /// What was closed, with the batches that are not empty.
    pub(super) fn new(batches: Vec<(Arc<Destination>, Batch)>, closed: Closed, memory: &Arc<Memory>) -> Self {
        let Closed { spans, dead_letters, sources, several, .. } = closed;
        let bytes = batches
            .iter()
            .map(|(_, batch)| batch.bytes.capacity() + batch.sealed.as_ref().map_or(0, Vec::capacity))
            .sum();
        let (destinations, batches) = batches.into_iter().unzip();
        let several = several.into_iter().map(|several| (several.record, several.rows)).collect();
        Self { destinations, batches, spans, dead_letters, sources, several, _charge: memory.charge(bytes) }
    }

    /// How many rows a record has become.
    pub(super) fn rows_of(&self, record: u32) -> u64 {
        self.several.get(&record).map_or(1, |rows| u64::from(*rows))
    }

    /// Cuts out what is left of the rows of records. Answers how many each has lost, in the order of `records`.
    ///
    /// Rows may lie in streams already. Those behind them cannot move up then, so the partition is started anew.
    pub(super) fn cut_records(&mut self, records: &[u32]) -> Vec<u64> {
        let mut cut: BTreeMap<u32, u64> = records.iter().map(|record| (*record, 0)).collect();
        for batch in &mut self.batches {
            batch.retain_rows(|_, row| match cut.get_mut(&row.source.record) {
                Some(count) => {
                    *count += 1;
                    false
                }
                None => true,
            });
        }
        records.iter().map(|record| cut[record]).collect()
    }

    /// The spans alone.
    pub(super) fn covered(&self) -> Vec<Span> {
        self.spans.iter().map(|(span, _)| *span).collect()
    }

    /// Cuts out what belongs to partitions that are not ours any more, or that are settled already.
    pub(super) fn drop_partitions(&mut self, slots: &[Slot]) {
        for batch in &mut self.batches {
            batch.retain_rows(|_, row| !slots.contains(&Slot(row.source.slot)));
        }
        self.spans.retain(|(span, _)| !slots.contains(&span.slot));
        self.dead_letters.retain(|letter| !slots.contains(&letter.slot));
    }

    /// Leaves of a partition only what lies before `offset`; its tally then counts nothing but these rows.
    pub(super) fn end_at(&mut self, slot: Slot, offset: i64) {
        let mut rows = 0;
        let mut records = HashSet::new();
        for batch in &mut self.batches {
            batch.retain_rows(|_, row| Slot(row.source.slot) != slot || row.source.offset < offset);
            for row in batch.rows.iter().filter(|row| Slot(row.source.slot) == slot) {
                rows += 1;
                records.insert(row.source.offset);
            }
        }
        let written = records.len() as u64;
        let Self { dead_letters, sources, spans, .. } = self;
        dead_letters.retain(|letter| {
            let record = sources.iter().find_map(|records| records.find(letter.record));
            letter.slot != slot || record.is_some_and(|record| record.offset() < offset)
        });
        for (span, tally) in spans.iter_mut().filter(|(span, _)| span.slot == slot) {
            span.next = span.next.min(offset);
            *tally = Tally { written, rows, ..Tally::default() };
        }
        spans.retain(|(span, _)| span.next > span.first);
    }

    pub(super) fn record(&self, number: u32) -> Option<RecordView<'_>> {
        self.sources.iter().find_map(|records| records.find(number))
    }

    pub(super) fn tally(&mut self, slot: Slot) -> Option<&mut Tally> {
        self.spans.iter_mut().find(|(span, _)| span.slot == slot).map(|(_, tally)| tally)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::delivery::Assignment;
    use crate::pipeline::open::Several;
    use crate::stages::Stage;
    use txconnect_connector_api::batch::Row;
    use txconnect_connector_api::{BadRecord, RowSource};

    fn destination() -> Arc<Destination> {
        Destination::named("t", "d.t")
    }

    #[test]
    fn a_partition_that_is_gone_takes_rows_letters_and_span_out_of_the_flush() {
        let mut batch = Batch::new("d.t".into());
        for (slot, text) in [(0, "a"), (1, "bb"), (0, "c")] {
            batch.bytes.extend_from_slice(text.as_bytes());
            let source = RowSource { slot, offset: 0, record: 0 };
            batch.rows.push(Row { end: batch.bytes.len(), source });
        }
        let span = |slot| {
            let span = Span { slot: Slot(slot), assignment: Assignment(1), first: 0, next: 3 };
            (span, Tally::default())
        };
        let letter = |slot| DeadLetter {
            record: 0,
            slot: Slot(slot),
            stage: Stage::Decode,
            why: BadRecord::new("decode.json", "", "broken"),
        };
        let memory = Memory::with_limit(1 << 20);
        let closed = Closed {
            spans: vec![span(0), span(1)],
            dead_letters: vec![letter(0), letter(1)],
            ..Closed::default()
        };
        let mut flush = Flush::new(vec![(destination(), batch)], closed, &memory);
        flush.drop_partitions(&[Slot(0)]);
        assert_eq!(flush.batches[0].bytes, b"bb");
        assert_eq!(flush.spans.iter().map(|(span, _)| span.slot).collect::<Vec<_>>(), [Slot(1)]);
        assert_eq!(flush.dead_letters.iter().map(|letter| letter.slot).collect::<Vec<_>>(), [Slot(1)]);
    }

    #[test]
    fn a_partition_that_ends_early_keeps_what_lies_before() {
        let mut batch = Batch::new("d.t".into());
        for (slot, offset) in [(0, 5), (1, 5), (0, 6), (0, 6), (0, 7)] {
            batch.bytes.push(b'a');
            let source = RowSource { slot, offset, record: 0 };
            batch.rows.push(Row { end: batch.bytes.len(), source });
        }
        let span = |slot| {
            let span = Span { slot: Slot(slot), assignment: Assignment(1), first: 5, next: 8 };
            (span, Tally { read: 3, written: 3, rows: 3, ..Tally::default() })
        };
        let memory = Memory::with_limit(1 << 20);
        let closed = Closed { spans: vec![span(0), span(1)], ..Closed::default() };
        let mut flush = Flush::new(vec![(destination(), batch)], closed, &memory);
        flush.end_at(Slot(0), 7);
        assert_eq!(flush.batches[0].rows.len(), 4);
        let (cut, tally) = flush.spans[0];
        assert_eq!((cut.next, tally.written, tally.rows), (7, 2, 3));
        assert_eq!(flush.spans[1], span(1));
        flush.end_at(Slot(0), 5);
        assert_eq!(flush.covered(), [span(1).0]);
        assert_eq!(flush.batches[0].rows.len(), 1);
    }

    #[test]
    fn a_record_is_cut_out_of_all_batches() {
        let batch = |records: &[u32]| {
            let mut batch = Batch::new("d.t".into());
            for record in records {
                batch.bytes.push(b'a');
                let source = RowSource { slot: 0, offset: 0, record: *record };
                batch.rows.push(Row { end: batch.bytes.len(), source });
            }
            (destination(), batch)
        };
        let several = vec![Several { record: 7, rows: 4 }];
        let memory = Memory::with_limit(1 << 20);
        let batches = vec![batch(&[7, 7, 8]), batch(&[7]), batch(&[9, 7])];
        let mut flush = Flush::new(batches, Closed { several, ..Closed::default() }, &memory);
        assert_eq!((flush.rows_of(7), flush.rows_of(8)), (4, 1));
        assert_eq!(flush.cut_records(&[8, 7]), [1, 4]);
        assert_eq!(flush.batches.iter().map(|batch| batch.rows.len()).collect::<Vec<_>>(), [0, 0, 1]);
        assert_eq!(flush.cut_records(&[7]), [0]);
    }
}
