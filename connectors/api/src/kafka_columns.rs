//! Columns that say where a row came from.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::schema::Kind;
use crate::schema::{TimeUnit, TimestampSource};

/// A column that the sink fills with the coordinates of the record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum KafkaColumn {
    /// `_kafka_topic`: the topic the record was read from.
    Topic,
    /// `_kafka_partition`: the number of its partition.
    Partition,
    /// `_kafka_offset`: its offset in the partition.
    Offset,
    /// `_kafka_timestamp`: the time that Kafka keeps with it; null where there is none.
    Timestamp,
}

impl KafkaColumn {
    /// The column's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Topic => "_kafka_topic",
            Self::Partition => "_kafka_partition",
            Self::Offset => "_kafka_offset",
            Self::Timestamp => "_kafka_timestamp",
        }
    }

    /// What the column holds.
    pub fn kind(self) -> Kind {
        match self {
            Self::Topic => Kind::String,
            Self::Partition | Self::Offset => Kind::Integer,
            Self::Timestamp => Kind::Timestamp(TimestampSource::Epoch(TimeUnit::Milliseconds)),
        }
    }

    /// Whether every record has it.
    pub fn is_required(self) -> bool {
        self != Self::Timestamp
    }
}
