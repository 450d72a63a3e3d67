//! The books: what became of every record, per partition.
//!
//! They balance: `read = written + dead-lettered + filtered + skipped + given back + in flight`. Records given
//! back were on their way when their partition went to another member, or when the pipeline stopped without
//! them; whoever reads the partition next reads them again.

use std::collections::BTreeMap;
use std::ops::AddAssign;
use std::sync::{Mutex, MutexGuard, PoisonError};

use txconnect_connector_api::TopicPartition;

use crate::delivery::Slot;

/// What became of the records of one span, or of many.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Records taken from Kafka.
    pub read: u64,
    /// Records whose rows are durable in the sink.
    pub written: u64,
    /// Rows durable in the sink.
    pub rows: u64,
    /// Records confirmed in the dead letter topic.
    pub dead_lettered: u64,
    /// Records that make no row in this sink, such as tombstones.
    pub filtered: u64,
    /// Bad records left out because the user chose `on_error: skip`.
    pub skipped: u64,
    /// Records given back unfinished.
    pub given_back: u64,
}

impl Tally {
    /// Records on their way.
    pub fn in_flight(&self) -> u64 {
        self.read.saturating_sub(self.settled())
    }

    /// Records of which it is known what became of them.
    pub fn settled(&self) -> u64 {
        self.written + self.dead_lettered + self.filtered + self.skipped + self.given_back
    }
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.read += other.read;
        self.written += other.written;
        self.rows += other.rows;
        self.dead_lettered += other.dead_lettered;
        self.filtered += other.filtered;
        self.skipped += other.skipped;
        self.given_back += other.given_back;
    }
}

/// The books of one partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionBooks {
    /// The partition.
    pub partition: TopicPartition,
    /// What became of its records.
    pub tally: Tally,
    /// The position that the group has stored, as far as we know.
    pub committed: Option<i64>,
    /// The end of the partition when it was last asked for.
    pub end: Option<i64>,
    /// Whether this process holds the partition now.
    pub held: bool,
}

impl PartitionBooks {
    /// Records between the stored position and the end, for partitions held. Gaps in offsets count along.
    pub fn lag(&self) -> Option<u64> {
        let behind = self.end?.checked_sub(self.committed?)?;
        self.held.then(|| u64::try_from(behind).unwrap_or(0))
    }
}

/// A copy of the books at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BooksSnapshot {
    /// All partitions that were ever held, in order.
    pub partitions: Vec<PartitionBooks>,
    /// Requests sent to the sink, per topic.
    pub requests: BTreeMap<String, u64>,
    /// Fields of valid records that no column took, per topic.
    pub ignored_fields: BTreeMap<String, u64>,
    /// What transforms have counted, by transform and counter. Records that a transform was shown twice it has counted
    /// twice.
    pub counters: BTreeMap<String, BTreeMap<String, u64>>,
}

impl BooksSnapshot {
    /// Adds the books of a later start of the same pipeline.
    pub fn add(&mut self, later: &BooksSnapshot) {
        for books in &later.partitions {
            match self.partitions.iter_mut().find(|known| known.partition == books.partition) {
                Some(known) => {
                    let mut tally = known.tally;
                    tally += books.tally;
                    *known = PartitionBooks { tally, ..books.clone() };
                }
                None => self.partitions.push(books.clone()),
            }
        }
        for (topic, requests) in &later.requests {
            *self.requests.entry(topic.clone()).or_default() += requests;
        }
        for (topic, fields) in &later.ignored_fields {
            *self.ignored_fields.entry(topic.clone()).or_default() += fields;
        }
        for (transform, counters) in &later.counters {
            let known = self.counters.entry(transform.clone()).or_default();
            for (counter, more) in counters {
                count(known, counter, *more);
            }
        }
    }

    /// The sum over all partitions.
    pub fn total(&self) -> Tally {
        let mut total = Tally::default();
        for books in &self.partitions {
            total += books.tally;
        }
        total
    }

    /// The sums per topic, in the order of their names.
    pub fn by_topic(&self) -> BTreeMap<&str, Tally> {
        let mut topics: BTreeMap<&str, Tally> = BTreeMap::new();
        for books in &self.partitions {
            *topics.entry(&books.partition.topic).or_default() += books.tally;
        }
        topics
    }

    /// The sum of all lags that are known.
    pub fn lag(&self) -> Option<u64> {
        self.partitions.iter().filter_map(PartitionBooks::lag).reduce(|sum, lag| sum + lag)
    }
}

/// The books of a running pipeline. Touched per flush, never per record.
#[derive(Debug, Default)]
pub(crate) struct Books {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    partitions: BTreeMap<Slot, PartitionBooks>,
    requests: BTreeMap<String, u64>,
    ignored_fields: BTreeMap<String, u64>,
    counters: BTreeMap<String, BTreeMap<String, u64>>,
}

impl Books {
    /// Opens the books of a partition, or takes them up again.
    pub(crate) fn assigned(
        &self,
        slot: Slot,
        partition: &TopicPartition,
        committed: Option<i64>,
        end: Option<i64>,
    ) {
        let mut inner = self.lock();
        let books = inner.partitions.entry(slot).or_insert_with(|| PartitionBooks {
            partition: partition.clone(),
            tally: Tally::default(),
            committed: None,
            end: None,
            held: true,
        });
        books.held = true;
        books.committed = committed;
        books.end = end;
    }

    /// The partition is not ours any more: what was on its way is given back.
    pub(crate) fn released(&self, slot: Slot) {
        if let Some(books) = self.lock().partitions.get_mut(&slot) {
            books.held = false;
            books.tally.given_back += books.tally.in_flight();
        }
    }

    /// The partition behind a slot, if it was ever held.
    pub(crate) fn partition_of(&self, slot: Slot) -> Option<TopicPartition> {
        self.lock().partitions.get(&slot).map(|books| books.partition.clone())
    }

    pub(crate) fn add(&self, slot: Slot, tally: Tally) {
        if let Some(books) = self.lock().partitions.get_mut(&slot) {
            books.tally += tally;
        }
    }

    pub(crate) fn requests(&self, topic: &str, requests: u64) {
        count(&mut self.lock().requests, topic, requests);
    }

    pub(crate) fn ignored_fields(&self, topic: &str, fields: u64) {
        count(&mut self.lock().ignored_fields, topic, fields);
    }

    /// A counter of a transform has grown.
    pub(crate) fn counted(&self, transform: &str, counter: &str, more: u64) {
        let counters = &mut self.lock().counters;
        match counters.get_mut(transform) {
            Some(known) => count(known, counter, more),
            None => count(counters.entry(transform.to_owned()).or_default(), counter, more),
        }
    }

    pub(crate) fn committed(&self, slot: Slot, position: i64) {
        if let Some(books) = self.lock().partitions.get_mut(&slot) {
            books.committed = Some(position);
        }
    }

    pub(crate) fn end(&self, slot: Slot, end: i64) {
        if let Some(books) = self.lock().partitions.get_mut(&slot) {
            books.end = Some(end);
        }
    }

    pub(crate) fn snapshot(&self) -> BooksSnapshot {
        let inner = self.lock();
        BooksSnapshot {
            partitions: inner.partitions.values().cloned().collect(),
            requests: inner.requests.clone(),
            ignored_fields: inner.ignored_fields.clone(),
            counters: inner.counters.clone(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Counters are changed one by one; a panic elsewhere leaves none half changed.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn count(counts: &mut BTreeMap<String, u64>, topic: &str, more: u64) {
    match counts.get_mut(topic) {
        _ if more == 0 => {}
        // A guest may count anything.
        Some(count) => *count = count.saturating_add(more),
        None => {
            counts.insert(topic.to_owned(), more);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_books_balance_when_a_partition_leaves_with_records_on_their_way() {
        let books = Books::default();
        let partition = TopicPartition::new("t", 0);
        books.assigned(Slot(0), &partition, Some(5), Some(100));
        books.add(Slot(0), Tally { read: 50, ..Tally::default() });
        books.add(
            Slot(0),
            Tally { written: 30, rows: 30, dead_lettered: 2, filtered: 3, skipped: 1, ..Tally::default() },
        );
        assert_eq!(books.snapshot().total().in_flight(), 14);
        assert_eq!(books.snapshot().lag(), Some(95));
        books.released(Slot(0));
        let total = books.snapshot().total();
        assert_eq!((total.in_flight(), total.given_back), (0, 14));
        assert_eq!(books.snapshot().lag(), None);
    }

    #[test]
    fn what_transforms_count_goes_on_over_a_restart() {
        let (first, second) = (Books::default(), Books::default());
        first.counted("mask", "masked", 3);
        second.counted("mask", "masked", u64::MAX);
        second.counted("route", "refunds", 1);
        let mut all = first.snapshot();
        all.add(&second.snapshot());
        assert_eq!(all.counters["mask"]["masked"], u64::MAX);
        assert_eq!(all.counters["route"]["refunds"], 1);
    }
}
