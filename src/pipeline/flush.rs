//! What a lane hands over to its writer.

use std::sync::Arc;

use txconnect_connector_api::Batch;

use super::books::Tally;
use super::memory::{Charge, Memory};
use super::open::DeadLetter;
use super::records::{RecordView, Records};
use super::topic::Topic;
use crate::delivery::{Slot, Span};

/// What a lane hands over: batches, bad records, and the spans of offsets that they cover completely.
pub(super) struct Flush {
    pub(super) topics: Vec<Arc<Topic>>,
    /// As many as `topics`, in the same order.
    pub(super) batches: Vec<Batch>,
    pub(super) spans: Vec<(Span, Tally)>,
    pub(super) dead_letters: Vec<DeadLetter>,
    sources: Vec<Arc<Records>>,
    /// The batches; the sources carry charges of their own.
    _charge: Charge,
}

impl Flush {
    pub(super) fn new(
        batches: Vec<(Arc<Topic>, Batch)>,
        spans: Vec<(Span, Tally)>,
        dead_letters: Vec<DeadLetter>,
        sources: Vec<Arc<Records>>,
        memory: &Arc<Memory>,
    ) -> Self {
        let bytes = batches
            .iter()
            .map(|(_, batch)| batch.bytes.capacity() + batch.sealed.as_ref().map_or(0, Vec::capacity))
            .sum();
        let (topics, batches) = batches.into_iter().unzip();
        Self { topics, batches, spans, dead_letters, sources, _charge: memory.charge(bytes) }
    }

    /// Counts all rows as written; a row that is cut out later is subtracted.
    pub(super) fn count_rows(&mut self) {
        for batch in &self.batches {
            for row in &batch.rows {
                let slot = Slot(row.source.slot);
                if let Some((_, tally)) = self.spans.iter_mut().find(|(span, _)| span.slot == slot) {
                    tally.written += 1;
                    tally.rows += 1;
                }
            }
        }
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
        for batch in &mut self.batches {
            batch.retain_rows(|_, row| Slot(row.source.slot) != slot || row.source.offset < offset);
            rows += batch.rows.iter().filter(|row| Slot(row.source.slot) == slot).count() as u64;
        }
        let Self { dead_letters, sources, spans, .. } = self;
        dead_letters.retain(|letter| {
            let record = sources.iter().find_map(|records| records.find(letter.record));
            letter.slot != slot || record.is_some_and(|record| record.offset() < offset)
        });
        for (span, tally) in spans.iter_mut().filter(|(span, _)| span.slot == slot) {
            span.next = span.next.min(offset);
            *tally = Tally { written: rows, rows, ..Tally::default() };
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
    use crate::config::OnError;
    use crate::config::Reaction;
    use crate::delivery::Assignment;
    use crate::pipeline::open::Stage;
    use crate::stages::decode::Format;
    use txconnect_connector_api::batch::Row;
    use txconnect_connector_api::{BadRecord, RowSource};

    fn topic() -> Arc<Topic> {
        let reaction = Reaction::DeadLetter;
        Arc::new(Topic {
            name: "t".into(),
            table: "d.t".into(),
            format: Format::Json,
            schema: None,
            on_error: OnError { decode: reaction, validate: reaction, transform: reaction, sink: reaction },
        })
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
        let batches = vec![(topic(), batch)];
        let mut flush =
            Flush::new(batches, vec![span(0), span(1)], vec![letter(0), letter(1)], Vec::new(), &memory);
        flush.drop_partitions(&[Slot(0)]);
        assert_eq!(flush.batches[0].bytes, b"bb");
        assert_eq!(flush.spans.iter().map(|(span, _)| span.slot).collect::<Vec<_>>(), [Slot(1)]);
        assert_eq!(flush.dead_letters.iter().map(|letter| letter.slot).collect::<Vec<_>>(), [Slot(1)]);
    }

    #[test]
    fn a_partition_that_ends_early_keeps_what_lies_before() {
        let mut batch = Batch::new("d.t".into());
        for (slot, offset) in [(0, 5), (1, 5), (0, 6), (0, 7)] {
            batch.bytes.push(b'a');
            let source = RowSource { slot, offset, record: 0 };
            batch.rows.push(Row { end: batch.bytes.len(), source });
        }
        let span = |slot| {
            let span = Span { slot: Slot(slot), assignment: Assignment(1), first: 5, next: 8 };
            (span, Tally { read: 3, written: 3, rows: 3, ..Tally::default() })
        };
        let memory = Memory::with_limit(1 << 20);
        let batches = vec![(topic(), batch)];
        let mut flush = Flush::new(batches, vec![span(0), span(1)], Vec::new(), Vec::new(), &memory);
        flush.end_at(Slot(0), 7);
        assert_eq!(flush.batches[0].rows.len(), 3);
        assert_eq!((flush.spans[0].0.next, flush.spans[0].1.written), (7, 2));
        assert_eq!(flush.spans[1], span(1));
        flush.end_at(Slot(0), 5);
        assert_eq!(flush.covered(), [span(1).0]);
        assert_eq!(flush.batches[0].rows.len(), 1);
    }
}
