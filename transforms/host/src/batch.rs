//! Records on their way into a guest, column by column.

/// One byte string, or nothing, for each record.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Column {
    /// The bytes of all records, one after the other.
    pub data: Vec<u8>,
    /// Where each record's bytes end in `data`.
    pub ends: Vec<u32>,
    /// One byte for each record, 1 where it has none. Empty where every record has one.
    pub nulls: Vec<u8>,
}

impl Column {
    /// Appends a byte string, or nothing.
    pub fn push(&mut self, bytes: Option<&[u8]>) {
        self.data.extend_from_slice(bytes.unwrap_or_default());
        if bytes.is_none() && self.nulls.is_empty() {
            self.nulls.resize(self.ends.len(), 0);
        }
        if bytes.is_none() || !self.nulls.is_empty() {
            self.nulls.push(u8::from(bytes.is_none()));
        }
        self.ends.push(u32::try_from(self.data.len()).unwrap_or(u32::MAX));
    }

    /// The byte string of record `index`; `None` where it has none, and where there is no such record.
    pub fn get(&self, index: usize) -> Option<&[u8]> {
        if self.nulls.get(index).is_some_and(|&null| null != 0) {
            return None;
        }
        let start = if index == 0 { 0 } else { *self.ends.get(index - 1)? as usize };
        self.data.get(start..*self.ends.get(index)? as usize)
    }

    /// How many records there are.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there is no record.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Forgets all records and keeps the memory.
    pub fn clear(&mut self) {
        self.data.clear();
        self.ends.clear();
        self.nulls.clear();
    }
}

/// The headers of all records, one record after the other.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Headers {
    /// How many headers each record has.
    pub counts: Vec<u32>,
    /// Their names; never null, always UTF-8.
    pub names: Column,
    /// Their values.
    pub values: Column,
}

/// What a guest wants to see beside topic and value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// The records' keys.
    pub keys: bool,
    /// The records' headers.
    pub headers: bool,
    /// Partitions, offsets and timestamps.
    pub positions: bool,
}

/// One record to be put into a batch.
#[derive(Clone, Copy, Debug)]
pub struct InputRecord<'a> {
    /// The topic it was read from, or that a transform before has given it.
    pub topic: &'a str,
    /// Its partition.
    pub partition: i32,
    /// Its offset.
    pub offset: i64,
    /// Milliseconds since 1970, where the broker gave one.
    pub timestamp: Option<i64>,
    /// Its key.
    pub key: Option<&'a [u8]>,
    /// Its value; `None` is a tombstone.
    pub value: Option<&'a [u8]>,
}

/// Records on their way into a guest. It holds what one guest needs and no more.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    needs: Needs,
    pub(crate) topics: Vec<String>,
    /// One for each record; handed to the guest only where there are several topics.
    pub(crate) topic_of: Vec<u32>,
    pub(crate) partitions: Vec<i32>,
    pub(crate) offsets: Vec<i64>,
    pub(crate) timestamps: Vec<i64>,
    pub(crate) keys: Column,
    pub(crate) values: Column,
    pub(crate) headers: Headers,
}

impl Batch {
    /// Forgets all records and keeps the memory; what comes next is for a guest with these needs.
    pub fn clear(&mut self, needs: Needs) {
        self.needs = needs;
        self.topics.clear();
        self.topic_of.clear();
        self.partitions.clear();
        self.offsets.clear();
        self.timestamps.clear();
        self.keys.clear();
        self.values.clear();
        self.headers.counts.clear();
        self.headers.names.clear();
        self.headers.values.clear();
    }

    /// Appends a record. `headers` are looked at only where the guest needs them.
    pub fn push<'h>(
        &mut self,
        record: &InputRecord<'_>,
        headers: impl IntoIterator<Item = (&'h str, Option<&'h [u8]>)>,
    ) {
        let last = self.topic_of.last().map_or(0, |&topic| topic as usize);
        let topic = match self.topics.get(last) {
            Some(topic) if topic == record.topic => last,
            _ => self.topics.iter().position(|topic| topic == record.topic).unwrap_or_else(|| {
                self.topics.push(record.topic.to_owned());
                self.topics.len() - 1
            }),
        };
        self.topic_of.push(u32::try_from(topic).unwrap_or(u32::MAX));
        if self.needs.positions {
            self.partitions.push(record.partition);
            self.offsets.push(record.offset);
            self.timestamps.push(record.timestamp.unwrap_or(-1));
        }
        if self.needs.keys {
            self.keys.push(record.key);
        }
        self.values.push(record.value);
        if self.needs.headers {
            let mut count = 0;
            for (name, value) in headers {
                self.headers.names.push(Some(name.as_bytes()));
                self.headers.values.push(value);
                count += 1;
            }
            self.headers.counts.push(count);
        }
    }

    /// What the guest needs that this was filled for.
    pub fn needs(&self) -> Needs {
        self.needs
    }

    /// How many records there are.
    pub fn len(&self) -> usize {
        self.values.len()
    }

    /// Whether there is no record.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// Bytes of the keys, values and headers in it.
    pub fn size(&self) -> usize {
        self.keys.data.len()
            + self.values.data.len()
            + self.headers.names.data.len()
            + self.headers.values.data.len()
    }
}
