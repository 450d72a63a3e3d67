//! One Kafka record as encoders see it.

use std::fmt;
use std::sync::Arc;

use crate::document::Document;

/// A partition of a topic.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TopicPartition {
    /// The topic's name.
    pub topic: Arc<str>,
    /// The partition's number, from 0.
    pub partition: i32,
}

impl TopicPartition {
    /// Names partition `partition` of `topic`.
    pub fn new(topic: impl Into<Arc<str>>, partition: i32) -> Self {
        Self { topic: topic.into(), partition }
    }
}

impl fmt::Display for TopicPartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}[{}]", self.topic, self.partition)
    }
}

/// One record on its way into a batch.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    /// The topic the record was read from; a transform may have given it another one, which is not told here.
    pub topic: &'a str,
    /// The partition the record was read from.
    pub partition: i32,
    /// The record's offset in its partition.
    pub offset: i64,
    /// Its place among the rows of one record, from 0: a transform may make several of one.
    pub row: u32,
    /// Milliseconds since 1970, where the broker gave one.
    pub timestamp: Option<i64>,
    /// The key's bytes.
    pub key: Option<&'a [u8]>,
    /// The record's headers, in order.
    pub headers: &'a [Header<'a>],
    /// The value as the decode stage left it.
    pub value: Value<'a>,
}

/// One header of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header<'a> {
    /// The header's name. A name may occur more than once.
    pub name: &'a str,
    /// The header's bytes.
    pub value: Option<&'a [u8]>,
}

/// A decoded value.
#[derive(Clone, Copy, Debug)]
pub enum Value<'a> {
    /// A null value. On a compacted topic it says that the key is gone.
    Tombstone,
    /// `decode: json`
    Json {
        /// The text the document was parsed from.
        text: &'a str,
        /// The parsed document.
        document: &'a Document<'a>,
    },
    /// `decode: string`
    Text(&'a str),
    /// `decode: bytes`
    Bytes(&'a [u8]),
}
