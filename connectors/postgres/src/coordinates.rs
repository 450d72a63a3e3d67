//! What Kafka knows about a record → fields of its row, each with its length in front.

use txconnect_connector_api::{BadRecord, KafkaColumn, Record};

use crate::plan::{ColumnType, FilledBy, PlannedColumn};
use crate::times;

/// The most characters that the name of a topic has (Kafka's `Topic.MAX_NAME_LENGTH`).
const LONGEST_TOPIC: u32 = 249;

/// Digits behind the second that Kafka's times need.
const MILLISECOND_DIGITS: u8 = 3;

/// The length that stands for NULL.
const NULL: [u8; 4] = (-1_i32).to_be_bytes();

/// How one of the columns of Kafka is filled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Coordinate {
    Topic,
    /// Into `integer`.
    Partition,
    /// Into `bigint`.
    WidePartition,
    Offset,
    Timestamp {
        nullable: bool,
    },
}

/// What the column called `name` would hold, where it is one of Kafka's.
pub(crate) fn column_called(name: &str) -> Option<KafkaColumn> {
    [KafkaColumn::Topic, KafkaColumn::Partition, KafkaColumn::Offset, KafkaColumn::Timestamp]
        .into_iter()
        .find(|column| column.name() == name)
}

/// Whether a column of type `found`, which keeps so many digits behind the second, takes everything that Kafka may know.
pub(crate) fn takes(column: KafkaColumn, found: &ColumnType, second_digits: u8) -> bool {
    match (column, found) {
        (KafkaColumn::Topic, ColumnType::Varchar(limit)) => *limit >= LONGEST_TOPIC,
        (KafkaColumn::Timestamp, ColumnType::TimestampTz | ColumnType::Timestamp) => {
            second_digits >= MILLISECOND_DIGITS
        }
        (KafkaColumn::Topic, ColumnType::Text)
        | (KafkaColumn::Partition, ColumnType::Integer | ColumnType::BigInt)
        | (KafkaColumn::Offset, ColumnType::BigInt) => true,
        _ => false,
    }
}

impl Coordinate {
    /// How `column` is filled; `None` where it is none of Kafka's, or does not take what Kafka knows.
    pub(crate) fn new(column: &PlannedColumn) -> Option<Self> {
        let FilledBy::Kafka(kafka) = column.filled_by else { return None };
        if !takes(kafka, &column.column_type, column.second_digits) {
            return None;
        }
        Some(match kafka {
            KafkaColumn::Topic => Self::Topic,
            KafkaColumn::Partition if column.column_type == ColumnType::BigInt => Self::WidePartition,
            KafkaColumn::Partition => Self::Partition,
            KafkaColumn::Offset => Self::Offset,
            KafkaColumn::Timestamp => Self::Timestamp { nullable: column.nullable },
        })
    }

    /// Appends the field.
    #[inline]
    pub(crate) fn write(self, record: &Record<'_>, out: &mut Vec<u8>) -> Result<(), BadRecord> {
        match self {
            Self::Topic => {
                // At most 249 bytes.
                let length = i32::try_from(record.topic.len()).unwrap_or(i32::MAX);
                out.extend_from_slice(&length.to_be_bytes());
                out.extend_from_slice(record.topic.as_bytes());
            }
            Self::Partition => {
                out.extend_from_slice(&4_i32.to_be_bytes());
                out.extend_from_slice(&record.partition.to_be_bytes());
            }
            Self::WidePartition => write_i64(record.partition.into(), out),
            Self::Offset => write_i64(record.offset, out),
            Self::Timestamp { nullable } => match record.timestamp {
                Some(_) => self.write_age(record, out)?,
                None if nullable => out.extend_from_slice(&NULL),
                None => {
                    return Err(BadRecord::new(
                        "encode.required",
                        "",
                        "the column `_kafka_timestamp` takes no NULL, and Kafka keeps no time with the record",
                    ));
                }
            },
        }
        Ok(())
    }

    /// Appends the field as a deletion has it, which need not fit the column: NULL where there is no time.
    pub(crate) fn write_age(self, record: &Record<'_>, out: &mut Vec<u8>) -> Result<(), BadRecord> {
        match (self, record.timestamp) {
            (Self::Timestamp { .. }, Some(timestamp)) => {
                let micros = times::milliseconds(timestamp).map_err(|_| {
                    BadRecord::new(
                        "encode.out_of_range",
                        "",
                        "the time that Kafka keeps with the record lies beyond PostgreSQL's years",
                    )
                })?;
                write_i64(micros, out);
            }
            _ => out.extend_from_slice(&NULL),
        }
        Ok(())
    }
}

fn write_i64(value: i64, out: &mut Vec<u8>) {
    out.extend_from_slice(&8_i32.to_be_bytes());
    out.extend_from_slice(&value.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use txconnect_connector_api::{Number, TimeUnit, Value};

    fn column(kafka: KafkaColumn, column_type: ColumnType) -> PlannedColumn {
        PlannedColumn {
            name: kafka.name().to_owned(),
            filled_by: FilledBy::Kafka(kafka),
            column_type,
            nullable: true,
            second_digits: 6,
            description: None,
        }
    }

    fn record(topic: &str, partition: i32, offset: i64, timestamp: Option<i64>) -> Record<'_> {
        Record {
            topic,
            partition,
            offset,
            row: 0,
            timestamp,
            key: None,
            headers: &[],
            value: Value::Tombstone,
        }
    }

    fn field(column: &PlannedColumn, record: &Record<'_>) -> Result<Vec<u8>, BadRecord> {
        let mut out = Vec::new();
        Coordinate::new(column).unwrap().write(record, &mut out)?;
        Ok(out)
    }

    #[test]
    fn columns_that_do_not_hold_all_that_kafka_knows_are_not_filled() {
        use ColumnType as T;
        for (kafka, column_type) in [
            (KafkaColumn::Topic, T::Varchar(248)),
            (KafkaColumn::Topic, T::Labelled("citext".to_owned())),
            (KafkaColumn::Partition, T::SmallInt),
            (KafkaColumn::Offset, T::Integer),
            (KafkaColumn::Timestamp, T::Date),
        ] {
            assert_eq!(Coordinate::new(&column(kafka, column_type)), None, "{kafka:?}");
        }
        let coarse = PlannedColumn { second_digits: 2, ..column(KafkaColumn::Timestamp, T::TimestampTz) };
        assert_eq!(Coordinate::new(&coarse), None);
        let property =
            PlannedColumn { filled_by: FilledBy::Property, ..column(KafkaColumn::Offset, T::BigInt) };
        assert_eq!(Coordinate::new(&property), None);
    }

    #[test]
    fn a_record_without_a_time_is_bad_only_where_the_column_takes_no_null() {
        let timestamp = column(KafkaColumn::Timestamp, ColumnType::TimestampTz);
        let without = record("t", 0, 0, None);
        assert_eq!(field(&timestamp, &without).unwrap(), NULL);
        let strict = PlannedColumn { nullable: false, ..timestamp };
        assert_eq!(field(&strict, &without).unwrap_err().class, "encode.required");
        let mut out = Vec::new();
        Coordinate::new(&strict).unwrap().write_age(&without, &mut out).unwrap();
        assert_eq!(out, NULL);
        assert_eq!(
            field(&strict, &record("t", 0, 0, Some(i64::MAX))).unwrap_err().class,
            "encode.out_of_range"
        );
    }

    proptest! {
        #[test]
        fn coordinates_are_written_as_they_are(
            topic in "[a-zA-Z0-9._-]{1,249}", partition in 0..=i32::MAX, offset in 0..=i64::MAX, timestamp in any::<i64>()
        ) {
            let record = record(&topic, partition, offset, Some(timestamp));
            let text = field(&column(KafkaColumn::Topic, ColumnType::Varchar(249)), &record).unwrap();
            prop_assert_eq!(text.split_first_chunk().unwrap().0, &i32::try_from(topic.len()).unwrap().to_be_bytes());
            prop_assert_eq!(&text[4..], topic.as_bytes());
            let narrow = field(&column(KafkaColumn::Partition, ColumnType::Integer), &record).unwrap();
            prop_assert_eq!(narrow, [4_i32.to_be_bytes(), partition.to_be_bytes()].concat());
            let wide = field(&column(KafkaColumn::Partition, ColumnType::BigInt), &record).unwrap();
            prop_assert_eq!(&wide[4..], i64::from(partition).to_be_bytes());
            let place = field(&column(KafkaColumn::Offset, ColumnType::BigInt), &record).unwrap();
            prop_assert_eq!(&place[..4], 8_i32.to_be_bytes());
            prop_assert_eq!(&place[4..], offset.to_be_bytes());
            // The same as a number of milliseconds in a record.
            let literal = timestamp.to_string();
            let expected = times::epoch(Number::from_literal(&literal), TimeUnit::Milliseconds);
            let time = field(&column(KafkaColumn::Timestamp, ColumnType::TimestampTz), &record);
            prop_assert_eq!(time.is_ok(), expected.is_ok());
            if let (Ok(time), Ok(expected)) = (time, expected) {
                prop_assert_eq!(&time[4..], expected.to_be_bytes());
            }
        }
    }
}
