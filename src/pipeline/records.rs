//! Records copied out of librdkafka: key, value and headers once, one after the other, so that its own buffers
//! are free again at once.

use std::ops::Range;

use bumpalo::Bump;
use txconnect_connector_api::Header;
use txconnect_kafka::Message;
use txconnect_transform_host::InputRecord;

use super::memory::Charge;
use crate::delivery::{Assignment, Slot};

/// Index of a topic in its lane.
pub(super) type TopicIndex = usize;

/// Some records of one lane, in the order they were taken.
#[derive(Debug)]
pub(super) struct Records {
    /// The lane's running number of the first record.
    base: u32,
    bytes: Vec<u8>,
    entries: Vec<Entry>,
    headers: Vec<HeaderEntry>,
    charge: Option<Charge>,
}

/// Where a record came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Origin {
    pub(super) slot: Slot,
    /// Under which assignment it was taken. After another one began, the record counts for nothing: it is read again.
    pub(super) assignment: Assignment,
    pub(super) topic: TopicIndex,
    pub(super) partition: i32,
}

#[derive(Debug)]
struct Entry {
    origin: Origin,
    offset: i64,
    timestamp: Option<i64>,
    key: Option<Range<usize>>,
    value: Option<Range<usize>>,
    headers: Range<usize>,
}

#[derive(Debug)]
struct HeaderEntry {
    name: Range<usize>,
    value: Option<Range<usize>>,
}

/// One record of [`Records`].
#[derive(Clone, Copy, Debug)]
pub(super) struct RecordView<'a> {
    records: &'a Records,
    entry: &'a Entry,
}

impl Records {
    /// An empty collection whose first record has the running number `base`.
    pub(super) fn starting_at(base: u32, bytes: usize, records: usize) -> Self {
        Self {
            base,
            bytes: Vec::with_capacity(bytes),
            entries: Vec::with_capacity(records),
            headers: Vec::new(),
            charge: None,
        }
    }

    /// Copies one message.
    pub(super) fn push(&mut self, origin: Origin, message: Message<'_>) {
        let first_header = self.headers.len();
        for (name, value) in message.headers() {
            let name = self.copy(name.as_bytes());
            let value = value.map(|value| self.copy(value));
            self.headers.push(HeaderEntry { name, value });
        }
        let entry = Entry {
            origin,
            offset: message.offset(),
            timestamp: message.timestamp(),
            key: message.key().map(|key| self.copy(key)),
            value: message.payload().map(|value| self.copy(value)),
            headers: first_header..self.headers.len(),
        };
        self.entries.push(entry);
    }

    /// Charges what the records take until they are dropped.
    pub(super) fn charge_to(&mut self, charge: Charge) {
        self.charge = Some(charge);
    }

    /// Bytes that the collection takes.
    pub(super) fn size(&self) -> usize {
        self.bytes.capacity()
            + self.entries.capacity() * size_of::<Entry>()
            + self.headers.capacity() * size_of::<HeaderEntry>()
    }

    /// How many records there are.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// The running number of record `index`.
    pub(super) fn number(&self, index: usize) -> u32 {
        // Numbers wrap around; 2^32 records of one lane are never alive at once.
        #[expect(
            clippy::cast_possible_truncation,
            reason = "a collection holds at most a few thousand records"
        )]
        self.base.wrapping_add(index as u32)
    }

    /// Record `index`.
    pub(super) fn get(&self, index: usize) -> RecordView<'_> {
        RecordView { records: self, entry: &self.entries[index] }
    }

    /// The record with a running number, if it is here.
    pub(super) fn find(&self, number: u32) -> Option<RecordView<'_>> {
        let entry = self.entries.get(number.wrapping_sub(self.base) as usize)?;
        Some(RecordView { records: self, entry })
    }

    fn copy(&mut self, bytes: &[u8]) -> Range<usize> {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(bytes);
        start..self.bytes.len()
    }
}

impl<'a> RecordView<'a> {
    pub(super) fn origin(&self) -> Origin {
        self.entry.origin
    }

    pub(super) fn offset(&self) -> i64 {
        self.entry.offset
    }

    pub(super) fn timestamp(&self) -> Option<i64> {
        self.entry.timestamp
    }

    pub(super) fn key(&self) -> Option<&'a [u8]> {
        self.entry.key.clone().map(|range| &self.records.bytes[range])
    }

    pub(super) fn value(&self) -> Option<&'a [u8]> {
        self.entry.value.clone().map(|range| &self.records.bytes[range])
    }

    /// The record as transforms and encoders see it. `topic` is the name of its topic.
    pub(super) fn input(&self, topic: &'a str) -> InputRecord<'a> {
        InputRecord {
            topic,
            partition: self.entry.origin.partition,
            offset: self.entry.offset,
            timestamp: self.entry.timestamp,
            key: self.key(),
            value: self.value(),
        }
    }

    /// The headers, put into `arena`.
    pub(super) fn headers<'b>(&self, arena: &'b Bump) -> &'b [Header<'b>]
    where
        'a: 'b,
    {
        arena.alloc_slice_fill_iter(self.header_pairs().map(|(name, value)| Header { name, value }))
    }

    /// The headers' names and values.
    pub(super) fn header_pairs(
        &self,
    ) -> impl ExactSizeIterator<Item = (&'a str, Option<&'a [u8]>)> + use<'a> {
        let entries: &'a [HeaderEntry] = &self.records.headers[self.entry.headers.clone()];
        let bytes: &'a [u8] = &self.records.bytes;
        entries.iter().map(move |entry| {
            // The name came from a `str`, so the empty name never happens.
            let name = std::str::from_utf8(&bytes[entry.name.clone()]).unwrap_or_default();
            (name, entry.value.clone().map(|range| &bytes[range]))
        })
    }
}
