//! The last steps of a record, or of a row that transforms have made of it: decode, validate, encode.

use bumpalo::Bump;
use bumpalo::collections::Vec as ArenaVec;
use txconnect_connector_api::{BadRecord, Encoded, Encoder, Header, Record, Value};
use txconnect_transform_host::InputRecord;

use super::decode::Format;
use super::transform::Row;
use super::validate::Validator;
use super::{Stage, read};

/// How the rows of one table are made.
pub struct Making<'a> {
    /// What the value is.
    pub format: Format,
    /// What the value must follow, where that was not looked at before.
    pub validator: Option<&'a Validator>,
    /// Writes the row.
    pub encoder: &'a mut dyn Encoder,
}

impl Making<'_> {
    /// Appends a row to `out`: that of the record itself, or `row` with its place among the rows of the record.
    ///
    /// # Errors
    /// What is wrong, and which stage says so. There may be something behind the end of `out` then.
    pub fn encode<'a>(
        self,
        original: &InputRecord<'a>,
        headers: impl IntoIterator<Item = (&'a str, Option<&'a [u8]>)>,
        row: Option<(Row<'a>, u32)>,
        arena: &'a Bump,
        out: &mut Vec<u8>,
    ) -> Result<Encoded, (Stage, BadRecord)> {
        let Self { format, validator, encoder } = self;
        let mut record = Record {
            topic: original.topic,
            partition: original.partition,
            offset: original.offset,
            row: 0,
            timestamp: original.timestamp,
            key: original.key,
            headers: &[],
            value: Value::Tombstone,
        };
        let mut value = original.value;
        let mut own_headers = true;
        if let Some((row, number)) = row {
            record.row = number;
            record.key = row.key().unwrap_or(record.key);
            value = row.value().unwrap_or(value);
            if let Some(headers) = row.headers() {
                own_headers = false;
                record.headers = in_arena(headers, arena);
            }
        }
        record.value = read(format, validator, value, arena)?;
        if own_headers {
            record.headers = in_arena(headers, arena);
        }
        encoder.encode(&record, out).map_err(|why| (Stage::Encode, why))
    }
}

fn in_arena<'a>(
    headers: impl IntoIterator<Item = (&'a str, Option<&'a [u8]>)>,
    arena: &'a Bump,
) -> &'a [Header<'a>] {
    let headers = headers.into_iter().map(|(name, value)| Header { name, value });
    ArenaVec::from_iter_in(headers, arena).into_bump_slice()
}
