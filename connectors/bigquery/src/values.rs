//! JSON values of a record → JSON values as insertAll takes them.

use txconnect_connector_api::document::{Object, write_json_string};
use txconnect_connector_api::{BadRecord, Column, Document, KafkaColumn, Mode, Record};

use crate::record::{RecordPlan, Settings, ValuePlan, elements, in_element};
use crate::{read, time_text};

/// Integers beyond this are sent as text: a JSON reader that keeps numbers as doubles rounds them.
const MAX_EXACT_DOUBLE: u64 = 1 << 53;

/// The name of a column as a JSON string, with the colon.
pub(crate) type Key = Vec<u8>;

/// What the field of a column begins with.
pub(crate) fn key(_index: usize, column: &Column) -> Key {
    key_of(&column.name)
}

fn key_of(name: &str) -> Key {
    let mut key = Vec::new();
    write_json_string(name, &mut key);
    key.push(b':');
    key
}

/// Columns that Kafka fills, with what their fields begin with.
pub(crate) struct KafkaFields(Vec<(KafkaColumn, Key)>);

impl KafkaFields {
    pub(crate) fn new(columns: &[KafkaColumn]) -> Self {
        Self(columns.iter().map(|column| (*column, key_of(column.name()))).collect())
    }

    /// Appends the fields to an object that is still open.
    fn write(&self, record: &Record<'_>, out: &mut Vec<u8>) -> Result<(), BadRecord> {
        let mut digits = itoa::Buffer::new();
        for (column, key) in &self.0 {
            let timestamp = match column {
                KafkaColumn::Timestamp => match read::kafka_timestamp(record)? {
                    Some(micros) => micros,
                    None => continue,
                },
                _ => 0,
            };
            if out.last() != Some(&b'{') {
                out.push(b',');
            }
            out.extend_from_slice(key);
            match column {
                KafkaColumn::Topic => write_json_string(record.topic, out),
                KafkaColumn::Partition => {
                    out.extend_from_slice(digits.format(record.partition).as_bytes());
                }
                KafkaColumn::Offset => write_integer(record.offset, out),
                KafkaColumn::Timestamp => in_quotes(out, |out| time_text::write_instant(timestamp, out)),
            }
        }
        Ok(())
    }
}

/// Appends a record as a JSON object that holds the columns' names and values.
pub(crate) fn write_row(
    plan: &RecordPlan<Key>,
    object: Object<'_>,
    kafka: &KafkaFields,
    record: &Record<'_>,
    settings: &mut Settings,
    out: &mut Vec<u8>,
) -> Result<(), BadRecord> {
    out.push(b'{');
    write_fields(plan, object, settings, out)?;
    kafka.write(record, out)?;
    out.push(b'}');
    Ok(())
}

fn write_fields(
    plan: &RecordPlan<Key>,
    object: Object<'_>,
    settings: &mut Settings,
    out: &mut Vec<u8>,
) -> Result<(), BadRecord> {
    plan.each(object, settings, |_, field, document, settings| {
        if out.last() != Some(&b'{') {
            out.push(b',');
        }
        out.extend_from_slice(&field.key);
        if field.mode == Mode::Repeated {
            write_all(&field.value, document, settings, out)
        } else {
            write(&field.value, document, settings, out)
        }
    })
}

/// Appends the elements of an array.
fn write_all(
    plan: &ValuePlan<Key>,
    document: &Document<'_>,
    settings: &mut Settings,
    out: &mut Vec<u8>,
) -> Result<(), BadRecord> {
    let elements = elements(document)?;
    out.push(b'[');
    for (index, element) in elements.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        write(plan, element, settings, out).map_err(|bad| in_element(index, bad))?;
    }
    out.push(b']');
    Ok(())
}

/// Appends one value that is not null where null has a meaning of its own.
fn write(
    plan: &ValuePlan<Key>,
    document: &Document<'_>,
    settings: &mut Settings,
    out: &mut Vec<u8>,
) -> Result<(), BadRecord> {
    match (plan, document) {
        (ValuePlan::Boolean, Document::Bool(value)) => {
            out.extend_from_slice(if *value { b"true" } else { b"false" });
        }
        (ValuePlan::Integer, Document::Number(number)) => write_integer(read::integer(*number)?, out),
        (ValuePlan::Float, Document::Number(number)) => {
            read::float(*number)?;
            out.extend_from_slice(number.literal().as_bytes());
        }
        (ValuePlan::Numeric { whole, scale }, Document::Number(number)) => {
            write_decimal(number.literal(), *whole, *scale, out)?;
        }
        (ValuePlan::Numeric { whole, scale }, Document::String(text)) => {
            write_decimal(text, *whole, *scale, out)?;
        }
        (ValuePlan::Text, Document::String(text)) => write_json_string(text, out),
        (ValuePlan::Bytes, Document::String(text)) => {
            read::base64(text)?;
            in_quotes(out, |out| out.extend_from_slice(text.as_bytes()));
        }
        (ValuePlan::Date, Document::String(text)) => {
            read::date(text)?;
            in_quotes(out, |out| out.extend_from_slice(text.as_bytes()));
        }
        (ValuePlan::Time, Document::String(text)) => {
            let micros = read::time_of_day(text, settings.finer_times)?;
            in_quotes(out, |out| time_text::write_time_of_day(micros, out));
        }
        (ValuePlan::Rfc3339, Document::String(text)) => {
            let micros = read::timestamp(text, settings.finer_times)?;
            in_quotes(out, |out| time_text::write_instant(micros, out));
        }
        (ValuePlan::Epoch(unit), Document::Number(number)) => {
            let micros = read::epoch(*number, *unit, settings.finer_times)?;
            in_quotes(out, |out| time_text::write_instant(micros, out));
        }
        (ValuePlan::Json, document) => write_json(document, settings, out)?,
        (ValuePlan::Record(plan), Document::Object(object)) => {
            out.push(b'{');
            write_fields(plan, *object, settings, out)?;
            out.push(b'}');
        }
        (plan, document) => return Err(plan.wrong_type(document)),
    }
    Ok(())
}

fn write_integer(value: i64, out: &mut Vec<u8>) {
    let mut digits = itoa::Buffer::new();
    let digits = digits.format(value).as_bytes();
    if value.unsigned_abs() > MAX_EXACT_DOUBLE {
        in_quotes(out, |out| out.extend_from_slice(digits));
    } else {
        out.extend_from_slice(digits);
    }
}

fn write_decimal(literal: &str, whole: u32, scale: u32, out: &mut Vec<u8>) -> Result<(), BadRecord> {
    out.push(b'"');
    read::decimal(literal, whole, scale, out)?;
    out.push(b'"');
    Ok(())
}

/// Appends a document as the JSON text that a JSON column takes in a string.
fn write_json(document: &Document<'_>, settings: &mut Settings, out: &mut Vec<u8>) -> Result<(), BadRecord> {
    read::json(document)?;
    settings.scratch.clear();
    document.write_json(&mut settings.scratch);
    let text = std::str::from_utf8(&settings.scratch)
        .map_err(|_| BadRecord::new("encode.format", "", "the value is not UTF-8"))?;
    write_json_string(text, out);
    Ok(())
}

/// Appends text that needs no escape.
fn in_quotes(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    out.push(b'"');
    write(out);
    out.push(b'"');
}
