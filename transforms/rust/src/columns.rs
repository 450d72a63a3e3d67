//! Batches as they come, and outputs as they go: columns of bytes.

use crate::record::Record;
use crate::{Error, Result};

/// Headers of one record.
pub(crate) type HeaderList = Vec<(String, Option<Vec<u8>>)>;

/// One byte string, or nothing, for each record.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Column {
    pub data: Vec<u8>,
    pub ends: Vec<u32>,
    pub nulls: Vec<u8>,
}

impl Column {
    pub(crate) fn get(&self, index: usize) -> Option<&[u8]> {
        if self.nulls.get(index).is_some_and(|&null| null != 0) {
            return None;
        }
        let start = if index == 0 { 0 } else { *self.ends.get(index - 1)? as usize };
        self.data.get(start..*self.ends.get(index)? as usize)
    }

    pub(crate) fn push(&mut self, bytes: Option<&[u8]>) {
        self.data.extend_from_slice(bytes.unwrap_or_default());
        if bytes.is_none() && self.nulls.is_empty() {
            self.nulls.resize(self.ends.len(), 0);
        }
        if bytes.is_none() || !self.nulls.is_empty() {
            self.nulls.push(u8::from(bytes.is_none()));
        }
        self.ends.push(narrow(self.data.len()));
    }
}

/// A batch as it came.
#[derive(Debug, Default)]
pub struct Batch {
    pub topics: Vec<String>,
    pub topic_of: Vec<u32>,
    pub partitions: Vec<i32>,
    pub offsets: Vec<i64>,
    pub timestamps: Vec<i64>,
    pub keys: Column,
    pub values: Column,
    pub header_counts: Vec<u32>,
    pub header_names: Column,
    pub header_values: Column,
    /// Where the headers of each record begin.
    pub first_header: Vec<usize>,
}

impl Batch {
    pub(crate) fn of_one(topic: &str, value: &[u8]) -> Self {
        let mut batch = Self { topics: vec![topic.to_owned()], ..Self::default() };
        batch.values.push(Some(value));
        batch
    }

    pub(crate) fn len(&self) -> usize {
        self.values.ends.len()
    }

    pub(crate) fn topic(&self, index: usize) -> &str {
        let topic = self.topic_of.get(index).map_or(0, |&topic| topic as usize);
        self.topics.get(topic).map_or("", String::as_str)
    }

    pub(crate) fn headers_of(&self, index: usize) -> Vec<(&str, Option<&[u8]>)> {
        let first = self.first_header.get(index).copied().unwrap_or(0);
        let count = self.header_counts.get(index).map_or(0, |&count| count as usize);
        (first..first + count)
            .map(|header| {
                let name = self.header_names.get(header).unwrap_or_default();
                (std::str::from_utf8(name).unwrap_or_default(), self.header_values.get(header))
            })
            .collect()
    }
}

/// Rows on their way out. A column begins with the first row that changes it.
#[derive(Debug, Default)]
pub struct Rows {
    pub sources: Vec<u32>,
    pub keys: Option<Column>,
    pub values: Option<Column>,
    pub topics: Vec<String>,
    pub topic_of: Option<Vec<u32>>,
    pub headers: Option<(Vec<u32>, Column, Column)>,
}

impl Rows {
    /// Appends the row of record `source`.
    pub(crate) fn push(&mut self, batch: &Batch, source: usize, row: &Record) {
        let before = std::mem::take(&mut self.sources);
        let column = |column: &mut Option<Column>, given: Option<Option<&[u8]>>, from: &Column| {
            if given.is_some() && column.is_none() {
                let mut all = Column::default();
                before.iter().for_each(|&source| all.push(from.get(source as usize)));
                *column = Some(all);
            }
            if let Some(column) = column {
                column.push(given.unwrap_or_else(|| from.get(source)));
            }
        };
        column(&mut self.keys, row.key.as_ref().map(Option::as_deref), &batch.keys);
        column(&mut self.values, row.value.as_ref().map(Option::as_deref), &batch.values);
        if row.topic.is_some() && self.topic_of.is_none() {
            let topics = before.iter().map(|&source| batch.topic(source as usize));
            let of = topics.map(|topic| number_of(&mut self.topics, topic)).collect();
            self.topic_of = Some(of);
        }
        if let Some(of) = &mut self.topic_of {
            of.push(number_of(&mut self.topics, row.topic()));
        }
        if row.headers.is_some() && self.headers.is_none() {
            let mut all = (Vec::new(), Column::default(), Column::default());
            before.iter().for_each(|&source| push_headers(&mut all, &batch.headers_of(source as usize)));
            self.headers = Some(all);
        }
        if let Some(headers) = &mut self.headers {
            push_headers(headers, &row.headers());
        }
        self.sources = before;
        self.sources.push(narrow(source));
    }
}

fn push_headers((counts, names, values): &mut (Vec<u32>, Column, Column), headers: &[(&str, Option<&[u8]>)]) {
    counts.push(narrow(headers.len()));
    for (name, value) in headers {
        names.push(Some(name.as_bytes()));
        values.push(*value);
    }
}

fn number_of(topics: &mut Vec<String>, topic: &str) -> u32 {
    let known = topics.iter().position(|known| known == topic);
    narrow(known.unwrap_or_else(|| {
        topics.push(topic.to_owned());
        topics.len() - 1
    }))
}

/// Memory of a guest is smaller than 4 GiB.
fn narrow(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

/// A row that changes what it was not shown cannot be put together.
pub(crate) fn check(row: &Record, keys: bool, headers: bool) -> Result<()> {
    if row.key.is_some() && !keys {
        return Err(Error::new("keys_not_asked_for", "a transform that sets keys must be a #[transform(keys)]"));
    }
    if row.headers.is_some() && !headers {
        let message = "a transform that sets headers must be a #[transform(headers)]";
        return Err(Error::new("headers_not_asked_for", message));
    }
    Ok(())
}
