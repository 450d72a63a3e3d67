//! Record → row of an insertAll request, written as bytes.
//!
//! A row is `{"insertId":"…","json":{…}},`, with a comma behind every row. The request is
//! `{"rows":[` + rows without the last comma + `]}`.

use std::fmt::Write as _;
use std::io::{self, Write as _};

use flate2::write::GzEncoder;
use sha2::{Digest, Sha256};
use txconnect_connector_api::document::write_json_string;
use txconnect_connector_api::{BadRecord, Batch, Encoded, Encoder, Record, TableSchema};

use crate::config::{BigQueryConfig, Compression};
use crate::record::{RecordPlan, Settings, object_of, too_large};
use crate::values::{self, KafkaFields};

/// BigQuery's limit for a request before compression
/// (<https://cloud.google.com/bigquery/quotas#streaming_inserts>); its servers count in powers of ten or two,
/// the smaller is taken.
pub(crate) const MAX_REQUEST_BYTES: usize = 10_000_000;

/// BigQuery's limit (<https://cloud.google.com/bigquery/quotas#streaming_inserts>).
pub(crate) const MAX_REQUEST_ROWS: usize = 50_000;

/// BigQuery's limit for an insertId
/// (<https://cloud.google.com/bigquery/docs/reference/rest/v2/tabledata/insertAll>).
const MAX_ID_CHARACTERS: usize = 128;

/// What partition, offset and row add to an insertId at most: `-2147483647-9223372036854775807:4294967295`.
const MAX_ID_TAIL: usize = 11 + 20 + 11;

const PREFIX: &[u8] = br#"{"rows":["#;
const SUFFIX: &[u8] = b"]}";

/// What a request holds beside its rows; one byte of it replaces the last comma.
const ENVELOPE_BYTES: usize = PREFIX.len() + SUFFIX.len() - 1;

/// Writes the records of one topic as rows.
pub(crate) struct RowEncoder {
    plan: RecordPlan<values::Key>,
    kafka: KafkaFields,
    settings: Settings,
    ids: Option<InsertIds>,
    compression: Compression,
}

impl RowEncoder {
    /// An encoder for records that are routed to `topic`.
    pub(crate) fn new(config: &BigQueryConfig, topic: &str, schema: &TableSchema) -> Self {
        Self {
            plan: RecordPlan::new(&schema.columns, values::key),
            kafka: KafkaFields::new(&config.kafka_columns),
            settings: Settings::new(config.finer_times, schema.unknown_fields),
            ids: config.insert_ids().then(|| InsertIds::new(topic)),
            compression: config.compression(),
        }
    }
}

impl Encoder for RowEncoder {
    fn encode(&mut self, record: &Record<'_>, out: &mut Vec<u8>) -> Result<Encoded, BadRecord> {
        let Some(object) = object_of(record)? else { return Ok(Encoded::Filtered) };
        let start = out.len();
        out.push(b'{');
        if let Some(ids) = &mut self.ids {
            ids.write(record, out);
        }
        out.extend_from_slice(br#""json":"#);
        values::write_row(&self.plan, object, &self.kafka, record, &mut self.settings, out)?;
        out.extend_from_slice(b"},");
        let length = out.len() - start;
        if length + ENVELOPE_BYTES > MAX_REQUEST_BYTES {
            return Err(too_large(length, MAX_REQUEST_BYTES));
        }
        Ok(Encoded::Row)
    }

    fn envelope_bytes(&self) -> usize {
        ENVELOPE_BYTES
    }

    fn seal(&mut self, batch: &mut Batch) {
        // Packing into memory cannot fail; if it did, the writer would pack again and report.
        batch.sealed = request_body(&batch.bytes, self.compression).ok();
    }

    fn ignored_fields(&self) -> u64 {
        self.settings.ignored_fields
    }
}

/// The gzipped request for `rows`, which are not empty and end with a comma.
pub(crate) fn request_body(rows: &[u8], compression: Compression) -> io::Result<Vec<u8>> {
    let level = match compression {
        Compression::Fast => flate2::Compression::fast(),
        Compression::None => flate2::Compression::none(),
    };
    let expected = match compression {
        Compression::Fast => rows.len() / 4,
        Compression::None => rows.len() + rows.len() / 1_000,
    };
    let mut gzip = GzEncoder::new(Vec::with_capacity(expected + 64), level);
    gzip.write_all(PREFIX)?;
    gzip.write_all(rows.strip_suffix(b",").unwrap_or(rows))?;
    gzip.write_all(SUFFIX)?;
    gzip.finish()
}

/// Writes ids that are the same whenever a record is written again and differ between any two rows of a
/// table: `topic-partition-offset`.
///
/// A topic name has neither `/` nor `:`, which mark the less usual forms: `source/routed-partition-offset`
/// where a transform has routed the record, `sha256:…-partition-offset` where names are too long, and
/// `…:n` for row n, counted from 0, of a record that became several; 0 is left out.
///
/// The count is that of the record and not of the table: a row has the same id whichever other rows are encoded again
/// with it, and into whatever table the rows before it went.
struct InsertIds {
    routed: String,
    source: String,
    /// `"insertId":"` and the topic.
    start: Vec<u8>,
}

impl InsertIds {
    fn new(routed: &str) -> Self {
        let mut ids = Self { routed: routed.to_owned(), source: String::new(), start: Vec::new() };
        ids.read_from(routed);
        ids
    }

    fn read_from(&mut self, source: &str) {
        source.clone_into(&mut self.source);
        let mut name = source.to_owned();
        if source != self.routed {
            name.push('/');
            name.push_str(&self.routed);
        }
        if name.len() + MAX_ID_TAIL > MAX_ID_CHARACTERS {
            let hash = Sha256::digest(name.as_bytes());
            "sha256:".clone_into(&mut name);
            for byte in hash {
                let _ = write!(name, "{byte:02x}");
            }
        }
        self.start.clear();
        self.start.extend_from_slice(br#""insertId":"#);
        write_json_string(&name, &mut self.start);
        // The closing quote comes behind the offset.
        self.start.pop();
    }

    fn write(&mut self, record: &Record<'_>, out: &mut Vec<u8>) {
        if self.source != record.topic {
            self.read_from(record.topic);
        }
        let mut digits = itoa::Buffer::new();
        out.extend_from_slice(&self.start);
        out.push(b'-');
        out.extend_from_slice(digits.format(record.partition).as_bytes());
        out.push(b'-');
        out.extend_from_slice(digits.format(record.offset).as_bytes());
        if record.row > 0 {
            out.push(b':');
            out.extend_from_slice(digits.format(record.row).as_bytes());
        }
        out.extend_from_slice(br#"","#);
    }
}

#[cfg(test)]
#[path = "encode_tests.rs"]
mod tests;
