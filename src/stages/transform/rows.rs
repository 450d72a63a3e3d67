//! What has become of records.

use std::ops::Range;
use std::sync::Arc;

use txconnect_connector_api::BadRecord;
use txconnect_transform_host::Output;

/// Where a part of a row comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Given {
    /// The transform that gave it, by its place in the chain.
    link: u32,
    /// The row of that transform's output.
    row: u32,
}

/// Where the parts of a row come from; `None`: from the record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Origins {
    /// The record, by its place in the input.
    pub(super) record: u32,
    topic: Option<Given>,
    key: Option<Given>,
    value: Option<Given>,
    headers: Option<Given>,
}

impl Origins {
    /// A record as it is.
    pub(super) fn of(record: u32) -> Self {
        Self { record, topic: None, key: None, value: None, headers: None }
    }

    /// What `link` has made of it with row `row` of its output.
    pub(super) fn through(self, link: u32, row: u32, output: &Output) -> Self {
        let given = Some(Given { link, row });
        let made = output.row(row as usize);
        Self {
            record: self.record,
            topic: if made.topic().is_some() { given } else { self.topic },
            key: if made.key().is_some() { given } else { self.key },
            value: if made.value().is_some() { given } else { self.value },
            headers: if made.headers().is_some() { given } else { self.headers },
        }
    }
}

/// A record that could not be transformed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Failed {
    pub(super) record: u32,
    pub(super) why: BadRecord,
}

/// Records that have come to the end of a chain, one after the other, with what has become of each.
#[derive(Debug)]
pub struct Part {
    pub(super) records: Range<u32>,
    pub(super) rows: Vec<Origins>,
    pub(super) failed: Vec<Failed>,
    pub(super) outputs: Vec<Arc<Output>>,
    /// Rows and failures of the records that were taken out.
    next_row: usize,
    next_failed: usize,
}

/// What has become of one record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// These rows of the part: none where it was filtered out.
    Rows(Range<usize>),
    /// It could not be transformed.
    Bad(BadRecord),
}

/// One row. A part that is `None` is what it was in the record.
#[derive(Clone, Copy, Debug)]
pub struct Row<'a> {
    origins: &'a Origins,
    outputs: &'a [Arc<Output>],
}

impl Part {
    pub(super) fn new(
        records: Range<u32>,
        rows: Vec<Origins>,
        failed: Vec<Failed>,
        outputs: Vec<Arc<Output>>,
    ) -> Self {
        Self { records, rows, failed, outputs, next_row: 0, next_failed: 0 }
    }

    /// The records that were not taken out yet, by their places in the input.
    pub fn records(&self) -> Range<usize> {
        self.records.start as usize..self.records.end as usize
    }

    /// Takes the next record out and says what has become of it; `None` after the last.
    pub fn take_next(&mut self) -> Option<Outcome> {
        let record = self.records.next()?;
        if let Some(failed) = self.failed.get(self.next_failed).filter(|failed| failed.record == record) {
            self.next_failed += 1;
            return Some(Outcome::Bad(failed.why.clone()));
        }
        let first = self.next_row;
        let rows = self.rows[first..].iter().take_while(|row| row.record == record).count();
        self.next_row += rows;
        Some(Outcome::Rows(first..self.next_row))
    }

    /// One of the rows that [`Self::take_next`] has named.
    pub fn row(&self, index: usize) -> Row<'_> {
        Row { origins: &self.rows[index], outputs: &self.outputs }
    }

    /// Bytes that it takes.
    pub fn size(&self) -> usize {
        self.rows.capacity() * size_of::<Origins>()
            + self.failed.capacity() * size_of::<Failed>()
            + self.outputs.iter().map(|output| output.size()).sum::<usize>()
    }
}

impl<'a> Row<'a> {
    pub(super) fn new(origins: &'a Origins, outputs: &'a [Arc<Output>]) -> Self {
        Self { origins, outputs }
    }

    fn made(self, given: Option<Given>) -> Option<txconnect_transform_host::Row<'a>> {
        let Given { link, row } = given?;
        Some(self.outputs.get(link as usize)?.row(row as usize))
    }

    /// Its topic, where a transform has given one.
    pub fn topic(self) -> Option<&'a str> {
        self.made(self.origins.topic)?.topic()
    }

    /// Its key, where a transform has given one: the inner `None` is no key.
    pub fn key(self) -> Option<Option<&'a [u8]>> {
        self.made(self.origins.key)?.key()
    }

    /// Its value, where a transform has given one: the inner `None` is a tombstone.
    pub fn value(self) -> Option<Option<&'a [u8]>> {
        self.made(self.origins.value)?.value()
    }

    /// Its headers, where a transform has given some.
    pub fn headers(self) -> Option<impl Iterator<Item = (&'a str, Option<&'a [u8]>)> + use<'a>> {
        self.made(self.origins.headers)?.headers()
    }
}

/// A row for a topic that the pipeline file does not list.
pub fn unlisted_topic(name: &str) -> BadRecord {
    // The host lets only names through that a topic can have.
    let message = format!("a transform sends it to the topic {name}, which `output.topics` does not list");
    BadRecord::new("transform.topic", "", message)
}

/// Rows of one record that together are more than a request may hold: what they are and what it holds, in rows and in
/// bytes.
pub fn too_large(table: &str, rows: (usize, usize), request: (usize, usize)) -> BadRecord {
    let message = format!(
        "its {} rows for {table} take {} bytes; a request holds at most {} rows and {} bytes",
        rows.0, rows.1, request.0, request.1
    );
    BadRecord::new("transform.too_large", "", message)
}
