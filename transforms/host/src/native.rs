//! Batches as native code reads them, and outputs as it makes them: for tests and measurements that put a function of
//! their own in a guest's place.

use crate::batch::{Batch, Column, Headers};
use crate::output::{Output, RecordFailure};

/// The columns of an [`Output`], as the interface has them.
#[derive(Clone, Debug, Default)]
pub struct Columns {
    /// For each row the place of its record in the batch; never falling.
    pub sources: Vec<u32>,
    /// The rows' keys, unless they stay what they are.
    pub keys: Option<Column>,
    /// The rows' values, unless they stay what they are.
    pub values: Option<Column>,
    /// Topics, and for each row the index of its own; unless they stay what they are.
    pub topics: Option<(Vec<String>, Vec<u32>)>,
    /// The rows' headers, unless they stay what they are.
    pub headers: Option<Headers>,
    /// In the order of the records.
    pub failures: Vec<RecordFailure>,
}

impl Batch {
    /// The topic of record `index`, or nothing where there is no such record.
    pub fn topic(&self, index: usize) -> &str {
        let topic = self.topic_of.get(index).and_then(|&topic| self.topics.get(topic as usize));
        topic.map_or("", String::as_str)
    }

    /// The keys, empty unless they are needed.
    pub fn keys(&self) -> &Column {
        &self.keys
    }

    /// The values.
    pub fn values(&self) -> &Column {
        &self.values
    }

    /// The headers, empty unless they are needed.
    pub fn headers(&self) -> &Headers {
        &self.headers
    }
}

impl Output {
    /// An output of these columns, which the caller vouches for.
    pub fn of(columns: Columns) -> Self {
        let Columns { sources, keys, values, topics, headers, failures } = columns;
        let (topics, topic_of) = topics.map_or_else(Default::default, |(names, of)| (names, Some(of)));
        let counts = headers.as_ref().map_or(&[][..], |headers| &headers.counts);
        let mut first_header = Vec::with_capacity(counts.len());
        let mut next = 0_u32;
        for count in counts {
            first_header.push(next);
            next = next.saturating_add(*count);
        }
        Self { sources, keys, values, topics, topic_of, headers, first_header, failures }
    }

    /// Bytes that the output takes, without the text of its failures.
    pub fn size(&self) -> usize {
        let column = |column: &Column| {
            column.data.capacity() + column.ends.capacity() * size_of::<u32>() + column.nulls.capacity()
        };
        let headers = |headers: &Headers| {
            headers.counts.capacity() * size_of::<u32>() + column(&headers.names) + column(&headers.values)
        };
        (self.sources.capacity() + self.first_header.capacity()) * size_of::<u32>()
            + self.topic_of.as_ref().map_or(0, |of| of.capacity() * size_of::<u32>())
            + self.keys.as_ref().map_or(0, column)
            + self.values.as_ref().map_or(0, column)
            + self.headers.as_ref().map_or(0, headers)
    }
}
