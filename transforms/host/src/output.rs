//! What a guest has answered, checked: every index points somewhere, every end lies inside its data, names are UTF-8.

use crate::batch::{Column, Headers};

/// What became of a batch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Output {
    /// For each row the place of its record in the batch; never falling.
    pub(crate) sources: Vec<u32>,
    pub(crate) keys: Option<Column>,
    pub(crate) values: Option<Column>,
    pub(crate) topics: Vec<String>,
    /// For each row the index of its topic in `topics`; `None` where every row keeps its record's.
    pub(crate) topic_of: Option<Vec<u32>>,
    pub(crate) headers: Option<Headers>,
    /// Where the headers of each row begin in `headers`, where there are any.
    pub(crate) first_header: Vec<u32>,
    /// In the order of the records.
    pub(crate) failures: Vec<RecordFailure>,
}

/// A record that could not be transformed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordFailure {
    /// Its place in the batch.
    pub record: u32,
    /// A short stable class: `transform.` and what the guest said.
    pub code: String,
    /// What is wrong, in one line.
    pub message: String,
}

/// One row. A part that is `None` is what it was in the record.
#[derive(Clone, Copy, Debug)]
pub struct Row<'a> {
    output: &'a Output,
    index: usize,
}

impl Output {
    /// How many rows there are.
    pub fn len(&self) -> usize {
        self.sources.len()
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.sources.is_empty()
    }

    /// Row `index`, which must be below [`Self::len`].
    pub fn row(&self, index: usize) -> Row<'_> {
        Row { output: self, index }
    }

    /// For each row the place of its record in the batch; never falling.
    pub fn sources(&self) -> &[u32] {
        &self.sources
    }

    /// Records that failed, in their order. None of them has a row.
    pub fn failures(&self) -> &[RecordFailure] {
        &self.failures
    }
}

impl<'a> Row<'a> {
    /// The place of its record in the batch.
    pub fn source(&self) -> u32 {
        self.output.sources.get(self.index).copied().unwrap_or(u32::MAX)
    }

    /// Its key, where the guest has given one: the inner `None` is no key.
    pub fn key(&self) -> Option<Option<&'a [u8]>> {
        self.output.keys.as_ref().map(|keys| keys.get(self.index))
    }

    /// Its value, where the guest has given one: the inner `None` is a tombstone.
    pub fn value(&self) -> Option<Option<&'a [u8]>> {
        self.output.values.as_ref().map(|values| values.get(self.index))
    }

    /// Its topic, where the guest has given one.
    pub fn topic(&self) -> Option<&'a str> {
        let topic = *self.output.topic_of.as_ref()?.get(self.index)?;
        self.output.topics.get(topic as usize).map(String::as_str)
    }

    /// Its headers, where the guest has given some.
    pub fn headers(&self) -> Option<impl Iterator<Item = (&'a str, Option<&'a [u8]>)> + use<'a>> {
        let headers = self.output.headers.as_ref()?;
        let first = *self.output.first_header.get(self.index)? as usize;
        let count = *headers.counts.get(self.index)? as usize;
        Some((first..first + count).map(|index| {
            // Names are checked to be UTF-8.
            let name = std::str::from_utf8(headers.names.get(index).unwrap_or_default()).unwrap_or_default();
            (name, headers.values.get(index))
        }))
    }
}
