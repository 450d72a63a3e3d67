//! Batches as they come: columns of bytes.

/// One byte string, or nothing, for each record of a batch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Column {
    pub(crate) data: Vec<u8>,
    pub(crate) ends: Vec<u32>,
    pub(crate) nulls: Vec<u8>,
}

impl Column {
    /// The byte string at `index`; `None` where there is none.
    pub fn get(&self, index: usize) -> Option<&[u8]> {
        if self.nulls.get(index).is_some_and(|&null| null != 0) {
            return None;
        }
        let start = if index == 0 { 0 } else { *self.ends.get(index - 1)? as usize };
        self.data.get(start..*self.ends.get(index)? as usize)
    }

    /// Appends a byte string, or nothing.
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

    /// Forgets all but the first `count`.
    pub(crate) fn truncate(&mut self, count: usize) {
        if count >= self.ends.len() {
            return;
        }
        self.ends.truncate(count);
        self.nulls.truncate(count);
        self.data.truncate(self.ends.last().map_or(0, |&end| end as usize));
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }
}

/// A name and a value, or none.
pub type Header = (String, Option<Vec<u8>>);

/// Headers of the records of a batch, one record after the other.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Headers {
    pub(crate) counts: Vec<u32>,
    pub(crate) names: Column,
    pub(crate) values: Column,
}

impl Headers {
    /// Appends the headers of one record.
    pub(crate) fn push<'h>(&mut self, headers: impl IntoIterator<Item = (&'h str, Option<&'h [u8]>)>) {
        let before = self.names.len();
        for (name, value) in headers {
            self.names.push(Some(name.as_bytes()));
            self.values.push(value);
        }
        self.counts.push(narrow(self.names.len() - before));
    }

    /// Forgets the headers of all but the first `count` records.
    pub(crate) fn truncate(&mut self, count: usize) {
        self.counts.truncate(count);
        let left = self.counts.iter().map(|&count| count as usize).sum();
        self.names.truncate(left);
        self.values.truncate(left);
    }
}

/// Records of the topics of one pipeline, in the order they were read.
#[derive(Debug, Default)]
pub struct Batch {
    pub(crate) topics: Vec<String>,
    pub(crate) topic_of: Vec<u32>,
    pub(crate) partitions: Vec<i32>,
    pub(crate) offsets: Vec<i64>,
    pub(crate) timestamps: Vec<i64>,
    pub(crate) keys: Column,
    pub(crate) values: Column,
    pub(crate) headers: Headers,
    /// Where the headers of each record begin.
    pub(crate) first_header: Vec<usize>,
}

impl Batch {
    pub(crate) fn of_one(topic: &str, value: Option<&[u8]>) -> Self {
        let mut batch = Self { topics: vec![topic.to_owned()], ..Self::default() };
        batch.values.push(value);
        batch
    }

    /// Finds out where the headers of each record begin; to be called once they are all there.
    pub(crate) fn index_headers(&mut self) {
        self.first_header.clear();
        let mut next = 0;
        for &count in &self.headers.counts {
            self.first_header.push(next);
            next += count as usize;
        }
    }

    /// How many records there are.
    pub fn len(&self) -> usize {
        self.values.len()
    }

    /// Whether there is no record.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// The topic of a record; empty where there is no such record.
    pub fn topic(&self, index: usize) -> &str {
        let topic = self.topic_of.get(index).map_or(0, |&topic| topic as usize);
        self.topics.get(topic).map_or("", String::as_str)
    }

    /// The value of a record; `None` is a tombstone.
    pub fn value(&self, index: usize) -> Option<&[u8]> {
        self.values.get(index)
    }

    /// The key of a record, where keys are wanted.
    pub fn key(&self, index: usize) -> Option<&[u8]> {
        self.keys.get(index)
    }

    /// The partition of a record, where positions are wanted.
    pub fn partition(&self, index: usize) -> Option<i32> {
        self.partitions.get(index).copied()
    }

    /// The offset of a record, where positions are wanted.
    pub fn offset(&self, index: usize) -> Option<i64> {
        self.offsets.get(index).copied()
    }

    /// Milliseconds since 1970, where positions are wanted and the broker gave one.
    pub fn timestamp(&self, index: usize) -> Option<i64> {
        self.timestamps.get(index).copied().filter(|&timestamp| timestamp >= 0)
    }

    /// The headers of a record in their order, where headers are wanted.
    pub fn headers(&self, index: usize) -> impl Iterator<Item = (&str, Option<&[u8]>)> {
        let first = self.first_header.get(index).copied().unwrap_or(0);
        let count = self.headers.counts.get(index).map_or(0, |&count| count as usize);
        (first..first + count).map(|header| {
            let name = self.headers.names.get(header).unwrap_or_default();
            (std::str::from_utf8(name).unwrap_or_default(), self.headers.values.get(header))
        })
    }
}

/// Memory of a guest is smaller than 4 GiB.
pub(crate) fn narrow(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_column_tells_nothing_from_nothing_in_it() {
        let mut column = Column::default();
        for bytes in [Some(&b"a"[..]), Some(b""), None, Some(b"bc")] {
            column.push(bytes);
        }
        assert_eq!(column.nulls, [0, 0, 1, 0]);
        assert_eq!(
            [0, 1, 2, 3, 4].map(|index| column.get(index)),
            [Some(&b"a"[..]), Some(b""), None, Some(b"bc"), None]
        );
        column.truncate(2);
        assert_eq!(
            (column.len(), column.data.as_slice(), column.nulls.as_slice()),
            (2, &b"a"[..], &[0, 0][..])
        );
    }

    #[test]
    fn headers_are_found_behind_those_of_other_records() {
        let mut batch = Batch::default();
        batch.headers.push([("a", Some(&b"1"[..])), ("b", None)]);
        batch.headers.push([]);
        batch.headers.push([("c", Some(&b"3"[..]))]);
        batch.index_headers();
        let of = |index| batch.headers(index).collect::<Vec<_>>();
        assert_eq!(of(0), [("a", Some(&b"1"[..])), ("b", None)]);
        assert_eq!(of(1), []);
        assert_eq!(of(2), [("c", Some(&b"3"[..]))]);
        assert_eq!(of(3), []);
    }
}
