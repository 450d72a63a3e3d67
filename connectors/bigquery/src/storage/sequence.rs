//! Which of two rows with one key is the newer one: the text of `_CHANGE_SEQUENCE_NUMBER`.
//!
//! It holds up to four numbers of 64 bits in hexadecimal, split by `/`, which BigQuery compares one after the other
//! (<https://cloud.google.com/bigquery/docs/change-data-capture#manage_custom_ordering>). Ours are:
//!
//! | `newest_by` | numbers |
//! |---|---|
//! | `offset` | partition / offset [/ row] |
//! | `timestamp`, a column of integers, doubles, dates or times | value / partition / offset [/ row] |
//! | a column of decimals | upper half of the value / lower half / position in two numbers |
//!
//! *row* counts the rows that one record has become, from 0, and is left out where it is 0: a number that is not there is
//! never compared with another than one that is larger than 0. Where a decimal takes two numbers, partition (31 bits), offset (63) and row (32) share the other two. A value's number keeps the order of the
//! values; null comes first, together with the smallest 64-bit integer. The numbers of one pipeline always have the
//! same form, so that rows that are written again have the same ones.

use txconnect_connector_api::{BadRecord, Document, Record};

use super::wire::{self, Tag};
use crate::config::FinerTimes;
use crate::record::ValuePlan;
use crate::{decimal, read, time_text};

/// The digits of a decimal whose order is kept: as many as two numbers hold.
pub(crate) const MAX_DECIMAL_DIGITS: u32 = 38;

/// Where the order of two rows with one key comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Newest {
    Offset,
    Timestamp,
    /// The value of the column with this index.
    Column(usize),
}

/// A value as a number that keeps its order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Rank {
    Narrow(u64),
    Wide(u128),
}

/// Writes sequence numbers for the records of one topic.
pub(crate) struct Sequence {
    tag: Tag,
    newest: Newest,
}

impl Sequence {
    /// `tag` is that of the pseudo-column.
    pub(crate) fn new(tag: Tag, newest: Newest) -> Self {
        Self { tag, newest }
    }

    /// The index of the column whose value decides.
    pub(crate) fn column(&self) -> Option<usize> {
        match self.newest {
            Newest::Column(index) => Some(index),
            Newest::Offset | Newest::Timestamp => None,
        }
    }

    /// Appends the field for a row of `record`; `rank` is that of the value of [`Self::column`].
    pub(crate) fn write(&self, record: &Record<'_>, rank: Option<Rank>, out: &mut Vec<u8>) {
        let partition = u64::from(record.partition.max(0).unsigned_abs());
        let offset = record.offset.max(0).unsigned_abs();
        self.tag.write(out);
        // Four numbers have at most 67 characters, whose length takes one byte.
        let start = out.len();
        out.push(0);
        let rank = match self.newest {
            Newest::Timestamp => Some(Rank::Narrow(timestamp_rank(record.timestamp))),
            Newest::Offset | Newest::Column(_) => rank,
        };
        match rank {
            Some(Rank::Wide(value)) => {
                let (upper, lower) = halves(value);
                let row = u128::from(record.row);
                let (first, second) = halves(u128::from(partition) << 96 | u128::from(offset) << 32 | row);
                for number in [upper, lower, first] {
                    write_hex(number, out);
                    out.push(b'/');
                }
                write_hex(second, out);
            }
            narrow => {
                if let Some(Rank::Narrow(value)) = narrow {
                    write_hex(value, out);
                    out.push(b'/');
                }
                write_hex(partition, out);
                out.push(b'/');
                write_hex(offset, out);
                if record.row > 0 {
                    out.push(b'/');
                    write_hex(u64::from(record.row), out);
                }
            }
        }
        wire::set_length(start, 1, out);
    }
}

/// The rank of a column's value that the column takes; `None` is null.
pub(crate) fn rank<K>(
    plan: &ValuePlan<K>,
    document: Option<&Document<'_>>,
    finer: FinerTimes,
) -> Result<Rank, BadRecord> {
    // Null is 0; every value but the smallest integer comes behind it.
    Ok(match (plan, document) {
        (ValuePlan::Numeric { whole, scale }, Some(document)) => {
            let literal = match document {
                Document::Number(number) => number.literal(),
                Document::String(text) => text,
                other => return Err(plan.wrong_type(other)),
            };
            // What the column takes fits; a value that does not was refused before.
            let value = decimal::scaled(literal, *whole, *scale).unwrap_or_default();
            Rank::Wide(value.cast_unsigned().wrapping_add(1 << 127))
        }
        (ValuePlan::Numeric { .. }, None) => Rank::Wide(0),
        (_, None) => Rank::Narrow(0),
        (ValuePlan::Integer, Some(Document::Number(number))) => {
            Rank::Narrow(read::integer(*number)?.cast_unsigned() ^ (1 << 63))
        }
        (ValuePlan::Float, Some(Document::Number(number))) => Rank::Narrow(float_rank(read::float(*number)?)),
        (ValuePlan::Date, Some(Document::String(text))) => {
            distance(i64::from(read::date(text)?), i64::from(time_text::FIRST_DAY))
        }
        (ValuePlan::Time, Some(Document::String(text))) => distance(read::time_of_day(text, finer)?, 0),
        (ValuePlan::Rfc3339, Some(Document::String(text))) => {
            distance(read::timestamp(text, finer)?, time_text::FIRST_MICRO)
        }
        (ValuePlan::Epoch(unit), Some(Document::Number(number))) => {
            distance(read::epoch(*number, *unit, finer)?, time_text::FIRST_MICRO)
        }
        (plan, Some(document)) => return Err(plan.wrong_type(document)),
    })
}

/// How far `value` is behind the first of its kind, counted from 1.
fn distance(value: i64, first: i64) -> Rank {
    Rank::Narrow(value.saturating_sub(first).saturating_add(1).max(0).unsigned_abs())
}

/// Kafka keeps no times before 1970.
fn timestamp_rank(timestamp: Option<i64>) -> u64 {
    timestamp
        .filter(|milliseconds| *milliseconds >= 0)
        .map_or(0, |milliseconds| milliseconds.unsigned_abs() + 1)
}

/// The bits of a double are ordered like the doubles where it is positive, and the other way round where it is negative.
fn float_rank(value: f64) -> u64 {
    // Both zeros are one value.
    let bits = if value == 0.0 { 0 } else { value.to_bits() };
    let ordered = if bits >> 63 == 0 { bits | 1 << 63 } else { !bits };
    // The largest finite double is well below the largest number.
    ordered.saturating_add(1)
}

fn halves(value: u128) -> (u64, u64) {
    let bytes = value.to_be_bytes();
    let mut numbers = [0_u64; 2];
    for (number, half) in numbers.iter_mut().zip(bytes.chunks_exact(8)) {
        *number = half.iter().fold(0, |number, byte| number << 8 | u64::from(*byte));
    }
    (numbers[0], numbers[1])
}

/// Appends a number in hexadecimal without zeros in front.
fn write_hex(value: u64, out: &mut Vec<u8>) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    let digits = (64 - value.leading_zeros()).div_ceil(4).max(1);
    for place in (0..digits).rev() {
        let digit = (value >> (place * 4)).to_le_bytes()[0] & 15;
        out.push(DIGITS[usize::from(digit)]);
    }
}

#[cfg(test)]
#[path = "sequence_tests.rs"]
mod tests;
