//! Record → row of an `AppendRows` request, as protobuf.
//!
//! A row in a batch is one element of `ProtoRows.serialized_rows`: the byte 0x0A, the length as a varint, the message
//! that [`super::descriptor`] describes. So the bytes of a batch are the body of the `ProtoRows` message.

use prost::Message as _;
use txconnect_connector_api::document::Object;
use txconnect_connector_api::{BadRecord, Encoded, Encoder, Record, TableSchema};

use super::descriptor::row_descriptor;
use super::key::RecordKey;
use super::sequence::{Newest, Rank, Sequence, rank};
use super::values::{self, KafkaFields};
use super::wire::{Tag, WireType, set_length, write_delimited};
use crate::config::{BigQueryConfig, KeyDecode, NewestBy, WriteMode};
use crate::plan::{TablePlan, position};
use crate::record::{RecordPlan, Settings, object_of, too_large};

/// What is sent in one request. BigQuery's limit is 20 MB
/// (<https://cloud.google.com/bigquery/quotas#write-api-limits>), beyond which it ends the connection.
pub(crate) const MAX_REQUEST_BYTES: usize = 19_000_000;

/// What a request has beside its schema, its rows and the names of project, dataset and table: field tags and lengths,
/// the rest of a stream's name, an offset, the id for tracing.
const REQUEST_EXTRAS: usize = 1_024;

/// The tag of an element of `ProtoRows.serialized_rows`.
const ROW_TAG: u8 = 0x0a;

/// Writes the records of one topic as rows.
pub(crate) struct StorageEncoder {
    plan: RecordPlan<Tag>,
    kafka: KafkaFields,
    changes: Option<Changes>,
    settings: Settings,
    /// How many bytes the length of the last row took.
    room: usize,
    envelope_bytes: usize,
}

/// What the rows of a table whose rows are replaced have beside their columns.
struct Changes {
    /// The field that says that the row is put.
    put: Vec<u8>,
    /// The field that says that the row is deleted.
    delete: Vec<u8>,
    sequence: Sequence,
    /// How a record without a value deletes a row, where it does.
    deletes: Option<KeyDecode>,
    /// Indices of the key's columns.
    key: Vec<usize>,
}

impl StorageEncoder {
    /// An encoder for records that are routed to `topic`, whose table `TablePlan::new` has found right.
    pub(crate) fn new(config: &BigQueryConfig, topic: &str, schema: &TableSchema) -> Self {
        let mut plan = RecordPlan::new(&schema.columns, values::tag);
        let columns = plan.fields().len();
        let changes = (config.write == WriteMode::Upsert)
            .then(|| Changes::new(config, schema, columns + config.kafka_columns.len()));
        for &index in changes.iter().flat_map(|changes| &changes.key) {
            plan.require(index);
        }
        let schema_bytes =
            TablePlan::new(config, schema).map_or(0, |plan| row_descriptor(&plan, config).encoded_len());
        let names = config.project.len() + config.dataset.len() + config.table_name(topic).len();
        Self {
            plan,
            kafka: KafkaFields::new(&config.kafka_columns, columns),
            changes,
            settings: Settings::new(config.finer_times, schema.unknown_fields),
            room: 1,
            envelope_bytes: schema_bytes + names + REQUEST_EXTRAS,
        }
    }

    fn put(&mut self, object: Object<'_>, record: &Record<'_>, out: &mut Vec<u8>) -> Result<(), BadRecord> {
        let Some(changes) = &mut self.changes else {
            values::write_record(&self.plan, object, &mut self.settings, out)?;
            return self.kafka.write(record, out);
        };
        let rank = match changes.sequence.column() {
            None => {
                values::write_record(&self.plan, object, &mut self.settings, out)?;
                None
            }
            Some(deciding) => Some(write_ranked(&self.plan, deciding, object, &mut self.settings, out)?),
        };
        self.kafka.write(record, out)?;
        out.extend_from_slice(&changes.put);
        changes.sequence.write(record, rank, out);
        Ok(())
    }

    /// Writes the deletion of the row that the record's key names; `false` where nothing is deleted.
    fn delete(&mut self, record: &Record<'_>, out: &mut Vec<u8>) -> Result<bool, BadRecord> {
        let Some(changes) = &mut self.changes else { return Ok(false) };
        let Some(decode) = changes.deletes else { return Ok(false) };
        let key = RecordKey::read(record.key, decode)?;
        let only = changes.key.len() == 1;
        for &index in &changes.key {
            let field = &self.plan.fields()[index];
            key.with_value(self.plan.property(index), &field.value, only, |value| {
                values::write_field(field, value, &mut self.settings, out)
            })?;
        }
        self.kafka.write(record, out)?;
        out.extend_from_slice(&changes.delete);
        // The configuration allows no column to decide where rows are deleted.
        changes.sequence.write(record, None, out);
        Ok(true)
    }
}

/// Writes the fields of an object, and gives the rank of the column `deciding`.
fn write_ranked(
    plan: &RecordPlan<Tag>,
    deciding: usize,
    object: Object<'_>,
    settings: &mut Settings,
    out: &mut Vec<u8>,
) -> Result<Rank, BadRecord> {
    let field = &plan.fields()[deciding];
    let mut found = rank(&field.value, None, settings.finer_times)?;
    plan.each(object, settings, |index, field, document, settings| {
        values::write_field(field, document, settings, out)?;
        if index == deciding {
            found = rank(&field.value, Some(document), settings.finer_times)?;
        }
        Ok(())
    })?;
    Ok(found)
}

impl Changes {
    /// `first` is the index of the first pseudo-column in the row.
    fn new(config: &BigQueryConfig, schema: &TableSchema, first: usize) -> Self {
        let change = |word: &[u8]| {
            let mut field = Vec::new();
            Tag::new(first, WireType::Delimited).write(&mut field);
            write_delimited(word, &mut field);
            field
        };
        let newest = match config.newest_by() {
            NewestBy::Offset => Newest::Offset,
            NewestBy::Timestamp => Newest::Timestamp,
            NewestBy::Column(name) => position(schema, name).map_or(Newest::Offset, Newest::Column),
        };
        Self {
            put: change(b"UPSERT"),
            delete: change(b"DELETE"),
            sequence: Sequence::new(Tag::new(first + 1, WireType::Delimited), newest),
            deletes: config.delete_on_tombstone.then(|| config.key_decode.unwrap_or_default()),
            key: config.key.iter().filter_map(|name| position(schema, name)).collect(),
        }
    }
}

impl Encoder for StorageEncoder {
    fn encode(&mut self, record: &Record<'_>, out: &mut Vec<u8>) -> Result<Encoded, BadRecord> {
        let object = object_of(record)?;
        let row = out.len();
        out.push(ROW_TAG);
        let (start, room) = (out.len(), self.room);
        out.extend(std::iter::repeat_n(0, room));
        match object {
            Some(object) => self.put(object, record, out)?,
            None => {
                if !self.delete(record, out)? {
                    out.truncate(row);
                    return Ok(Encoded::Filtered);
                }
            }
        }
        self.room = set_length(start, room, out);
        let length = out.len() - row;
        let limit = MAX_REQUEST_BYTES.saturating_sub(self.envelope_bytes);
        if length > limit {
            return Err(too_large(length, limit));
        }
        Ok(Encoded::Row)
    }

    fn envelope_bytes(&self) -> usize {
        self.envelope_bytes
    }

    fn ignored_fields(&self) -> u64 {
        self.settings.ignored_fields
    }
}

#[cfg(test)]
#[path = "encode_tests.rs"]
mod tests;
