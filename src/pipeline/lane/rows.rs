//! One record on its way into open batches.

use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use bumpalo::Bump;
use txconnect_connector_api::{BadRecord, Encoded, RowSource};

use super::{ARENA_KEPT, Lane, LaneDestination, LaneTopic};
use crate::config::Reaction;
use crate::delivery::Slot;
use crate::pipeline::open::{DeadLetter, DestinationIndex, Several, Taken};
use crate::pipeline::records::{Origin, RecordView, Records, TopicIndex};
use crate::pipeline::shared::{Failure, Shared};
use crate::pipeline::topic::{Topic, reaction};
use crate::stages::Stage;
use crate::stages::encode::Making;
use crate::stages::transform::{Part, Row, too_large, unlisted_topic};

/// The rows of one record, before they are put into batches together.
#[derive(Default)]
pub(super) struct Scratch {
    bytes: Vec<u8>,
    rows: Vec<ScratchRow>,
}

struct ScratchRow {
    destination: DestinationIndex,
    bytes: Range<usize>,
}

/// What one record takes in one table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Demand {
    destination: DestinationIndex,
    rows: usize,
    bytes: usize,
}

impl Scratch {
    fn clear(&mut self) {
        if self.bytes.capacity() > ARENA_KEPT {
            self.bytes = Vec::new();
        }
        self.bytes.clear();
        self.rows.clear();
    }

    /// What the rows take, table by table.
    fn demands(&self) -> Vec<Demand> {
        let mut demands: Vec<Demand> = Vec::new();
        for ScratchRow { destination, bytes } in &self.rows {
            match demands.iter_mut().find(|demand| demand.destination == *destination) {
                Some(demand) => {
                    demand.rows += 1;
                    demand.bytes += bytes.len();
                }
                None => demands.push(Demand { destination: *destination, rows: 1, bytes: bytes.len() }),
            }
        }
        demands
    }
}

impl Lane {
    /// Turns a record into a row as it is.
    pub(super) fn record(&mut self, records: &Arc<Records>, index: usize, now: Instant) {
        let view = records.get(index);
        if self.is_expected(view) {
            let destination = self.topics[view.origin().topic].destination;
            self.one_row(records, index, now, destination, None);
        }
    }

    /// Partitions may leave, and even come back, between taking and here; offsets below the expected one were seen
    /// before.
    pub(super) fn is_expected(&self, view: RecordView<'_>) -> bool {
        let Origin { slot, assignment, .. } = view.origin();
        self.open.expected(slot, assignment).is_some_and(|expected| view.offset() >= expected)
    }

    /// Turns a record into what transforms have made of it.
    pub(super) fn made(
        &mut self,
        records: &Arc<Records>,
        index: usize,
        now: Instant,
        part: &Part,
        rows: Range<usize>,
    ) {
        let view = records.get(index);
        let Origin { slot, topic, .. } = view.origin();
        if let Some(why) = self.shared.torn.why(slot, view.offset()) {
            return self.bad(records, index, now, Stage::Write, why);
        }
        match rows.len() {
            0 => self.without_row(records, index, now, Taken::Filtered),
            1 => {
                let row = part.row(rows.start);
                match self.destination_of(topic, row.topic()) {
                    Ok(destination) => self.one_row(records, index, now, destination, Some(row)),
                    Err(why) => self.bad(records, index, now, Stage::Transform, why),
                }
            }
            _ => self.several_rows(records, index, now, part, rows),
        }
    }

    /// Encodes a row straight into its open batch.
    fn one_row(
        &mut self,
        records: &Arc<Records>,
        index: usize,
        now: Instant,
        destination: DestinationIndex,
        row: Option<Row<'_>>,
    ) {
        let view = records.get(index);
        let Origin { slot, topic, .. } = view.origin();
        let batch = self.batch_for(destination, slot);
        let start = self.open.rows_end(batch);
        self.reset_arena();
        let into = &mut self.destinations[destination];
        let out = self.open.bytes(batch);
        let outcome =
            encode(&self.topics[topic].topic, into, view, row.map(|row| (row, 0)), &self.arena, out);
        if !matches!(outcome, Ok(Encoded::Row)) {
            out.truncate(start);
        }
        match outcome {
            Ok(Encoded::Row) => {
                let batch = self.make_room(batch, start, destination, slot);
                self.open.push_row(batch, source_of(records, index));
                self.open.take(slot, view.offset(), now, records, Taken::Row);
                if self.is_full(batch) {
                    self.close(&[slot]);
                }
            }
            Ok(Encoded::Filtered) => self.without_row(records, index, now, Taken::Filtered),
            Err((stage, why)) => self.bad(records, index, now, stage, why),
        }
    }

    /// Encodes all rows of a record first, and puts them into their batches together: they leave with one flush, and
    /// none of them does where one is bad.
    fn several_rows(
        &mut self,
        records: &Arc<Records>,
        index: usize,
        now: Instant,
        part: &Part,
        rows: Range<usize>,
    ) {
        let view = records.get(index);
        let Origin { slot, topic, .. } = view.origin();
        let mut scratch = std::mem::take(&mut self.scratch);
        scratch.clear();
        let encoded = rows.zip(0_u32..).try_for_each(|(row, number)| {
            let row = part.row(row);
            let destination =
                self.destination_of(topic, row.topic()).map_err(|why| (Stage::Transform, why))?;
            self.reset_arena();
            let into = &mut self.destinations[destination];
            let start = scratch.bytes.len();
            let of = &self.topics[topic].topic;
            match encode(of, into, view, Some((row, number)), &self.arena, &mut scratch.bytes)? {
                Encoded::Row => {
                    let bytes = start..scratch.bytes.len();
                    scratch.rows.push(ScratchRow { destination, bytes });
                }
                Encoded::Filtered => scratch.bytes.truncate(start),
            }
            Ok(())
        });
        let placed = encoded.and_then(|()| {
            let demands = scratch.demands();
            self.make_room_for(&demands, slot).map_err(|why| (Stage::Transform, why))
        });
        match placed {
            Err((stage, why)) => self.bad(records, index, now, stage, why),
            Ok(()) if scratch.rows.is_empty() => self.without_row(records, index, now, Taken::Filtered),
            Ok(()) => self.put(records, index, now, &scratch),
        }
        self.scratch = scratch;
    }

    /// Puts the rows of a record into their batches, which have room for them.
    fn put(&mut self, records: &Arc<Records>, index: usize, now: Instant, scratch: &Scratch) {
        let view = records.get(index);
        let slot = view.origin().slot;
        let source = source_of(records, index);
        let mut full = false;
        for ScratchRow { destination, bytes } in &scratch.rows {
            let batch = self.batch_for(*destination, slot);
            self.open.bytes(batch).extend_from_slice(&scratch.bytes[bytes.clone()]);
            self.open.push_row(batch, source);
            full |= self.is_full(batch);
        }
        // No record becomes more rows than a number of this width counts.
        let rows = u32::try_from(scratch.rows.len()).unwrap_or(u32::MAX);
        let taken =
            if rows == 1 { Taken::Row } else { Taken::Several(Several { record: source.record, rows }) };
        self.open.take(slot, view.offset(), now, records, taken);
        if full {
            self.close(&[slot]);
        }
    }

    /// Closes the batches that would become larger with the rows of a record than a batch may be.
    fn make_room_for(&mut self, demands: &[Demand], slot: Slot) -> Result<(), BadRecord> {
        for demand in demands {
            let envelope = self.destinations[demand.destination].encoder.envelope_bytes();
            let most = self.limits.request_bytes.saturating_sub(envelope);
            // A single row the encoder has looked at.
            if demand.rows > 1 && (demand.bytes > most || demand.rows > self.limits.request_rows) {
                let table = &self.destinations[demand.destination].destination.table;
                return Err(too_large(table, (demand.rows, demand.bytes), (self.limits.request_rows, most)));
            }
        }
        for demand in demands {
            let batch = self.batch_for(demand.destination, slot);
            let limit = self.most_bytes(demand.destination);
            let (rows, bytes) = (self.open.rows(batch), self.open.rows_end(batch));
            if rows > 0 && (rows + demand.rows > self.rules.rows || bytes + demand.bytes > limit) {
                let slots = self.open.slots_of(batch);
                self.close(&slots);
            }
        }
        Ok(())
    }

    /// Closes the batch without the row just encoded, where that row makes it larger than a batch may be. The row
    /// opens the next batch then; answers which batch it is in.
    fn make_room(&mut self, batch: usize, start: usize, destination: DestinationIndex, slot: Slot) -> usize {
        if start == 0 || self.open.bytes(batch).len() <= self.most_bytes(destination) {
            return batch;
        }
        let row = self.open.bytes(batch).split_off(start);
        let slots = self.open.slots_of(batch);
        self.close(&slots);
        let batch = self.batch_for(destination, slot);
        *self.open.bytes(batch) = row;
        batch
    }

    /// The most bytes in one batch of more than one record.
    fn most_bytes(&self, destination: DestinationIndex) -> usize {
        let envelope = self.destinations[destination].encoder.envelope_bytes();
        self.rules.bytes.min(self.limits.request_bytes).saturating_sub(envelope)
    }

    fn batch_for(&mut self, destination: DestinationIndex, slot: Slot) -> usize {
        let table = &self.destinations[destination].destination.table;
        self.open.batch_for(destination, slot, self.limits.batches_mix_partitions, table)
    }

    fn is_full(&self, batch: usize) -> bool {
        self.open.rows(batch) >= self.rules.rows || self.open.rows_end(batch) >= self.rules.bytes
    }

    /// Notes a record that makes no row.
    fn without_row(&mut self, records: &Arc<Records>, index: usize, now: Instant, taken: Taken) {
        let view = records.get(index);
        let slot = view.origin().slot;
        self.open.take(slot, view.offset(), now, records, taken);
        if self.open.waiting_without_row(slot) >= self.rules.rows as u64 {
            self.close(&[slot]);
        }
    }

    /// Notes a bad record, or stops before it.
    pub(super) fn bad(
        &mut self,
        records: &Arc<Records>,
        index: usize,
        now: Instant,
        stage: Stage,
        why: BadRecord,
    ) {
        let view = records.get(index);
        let slot = view.origin().slot;
        let taken = match reaction(self.on_error, stage) {
            Reaction::DeadLetter => {
                Taken::DeadLetter(DeadLetter { record: records.number(index), slot, stage, why })
            }
            Reaction::Skip => {
                let place = self.place(view, stage);
                tracing::warn!(pipeline = %self.shared.name, "{place}: record skipped: {why}");
                Taken::Skipped
            }
            Reaction::Stop => return self.stop_before(view, stage, &why),
        };
        self.without_row(records, index, now, taken);
    }

    fn stop_before(&mut self, view: RecordView<'_>, stage: Stage, why: &BadRecord) {
        let place = self.place(view, stage);
        // Everything before the bad record is still written and committed.
        let slots = self.open.slots();
        self.close(&slots);
        self.halted = true;
        self.shared.fail(Failure::stopped(
            format!("{place}: bad record: {why}"),
            "mend the producer, or set `on_error: dead_letter` (with `dead_letters:`) or `on_error: skip`",
        ));
    }

    fn place(&self, view: RecordView<'_>, stage: Stage) -> String {
        let Origin { topic, partition, .. } = view.origin();
        Shared::place(stage, &self.topics[topic].topic.name, partition, view.offset())
    }

    pub(super) fn reset_arena(&mut self) {
        if self.arena.allocated_bytes() > ARENA_KEPT {
            self.arena = Bump::new();
        } else {
            self.arena.reset();
        }
    }

    /// Where a row goes that a transform has given this topic, if any.
    fn destination_of(&self, topic: TopicIndex, name: Option<&str>) -> Result<DestinationIndex, BadRecord> {
        let LaneTopic { destination: own, routes, .. } = &self.topics[topic];
        let Some(name) = name else { return Ok(*own) };
        let is_named = |index: &DestinationIndex| *self.destinations[*index].destination.topic == *name;
        if is_named(own) {
            return Ok(*own);
        }
        routes.iter().copied().find(is_named).ok_or_else(|| unlisted_topic(name))
    }
}

fn source_of(records: &Records, index: usize) -> RowSource {
    let view = records.get(index);
    RowSource { slot: view.origin().slot.0, offset: view.offset(), record: records.number(index) }
}

/// Runs one record, or a row that transforms have made of it, through decode, validate and encode.
fn encode<'a>(
    topic: &'a Topic,
    destination: &mut LaneDestination,
    view: RecordView<'a>,
    row: Option<(Row<'a>, u32)>,
    arena: &'a Bump,
    out: &mut Vec<u8>,
) -> Result<Encoded, (Stage, BadRecord)> {
    let LaneDestination { destination, encoder, .. } = destination;
    let validator = if row.is_none() { topic.validator() } else { destination.validator() };
    let making = Making { format: topic.format, validator, encoder: &mut **encoder };
    making.encode(&view.input(&topic.name), view.header_pairs(), row, arena, out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_record_takes_is_counted_for_each_table() {
        let row = |destination, bytes| ScratchRow { destination, bytes };
        let scratch = Scratch { bytes: Vec::new(), rows: vec![row(3, 0..5), row(1, 5..6), row(3, 6..10)] };
        let demand = |destination, rows, bytes| Demand { destination, rows, bytes };
        assert_eq!(scratch.demands(), [demand(3, 2, 9), demand(1, 1, 1)]);
    }
}
