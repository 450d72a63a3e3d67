//! JSON values of a record → protobuf fields as [`super::descriptor`] describes them.

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
use txconnect_connector_api::document::Object;
use txconnect_connector_api::{BadRecord, Column, Document, KafkaColumn, Kind, Mode, Record};

use super::wire::{Tag, WireType, delimited, write_delimited, write_varint};
use crate::record::{FieldPlan, RecordPlan, Settings, ValuePlan, elements, in_element};
use crate::{read, time_text};

/// Reads what [`read::base64`] takes.
const BASE64: GeneralPurpose =
    GeneralPurpose::new(&STANDARD, GeneralPurposeConfig::new().with_decode_allow_trailing_bits(true));

/// Room for the length of a record or text; most have less than 128 bytes.
const SHORT: usize = 1;

/// What the field of a column begins with.
pub(crate) fn tag(index: usize, column: &Column) -> Tag {
    tag_of(index, &column.kind)
}

fn tag_of(index: usize, kind: &Kind) -> Tag {
    let wire_type = match kind {
        Kind::Boolean | Kind::Integer | Kind::Date | Kind::Timestamp(_) => WireType::Varint,
        Kind::Float => WireType::Fixed64,
        Kind::Numeric { .. }
        | Kind::String
        | Kind::Bytes
        | Kind::Time
        | Kind::Uuid
        | Kind::Json
        | Kind::Record(_) => WireType::Delimited,
    };
    Tag::new(index, wire_type)
}

/// Columns that Kafka fills, with what their fields begin with.
pub(crate) struct KafkaFields(Vec<(KafkaColumn, Tag)>);

impl KafkaFields {
    /// `first` is the index of the first of them in the row.
    pub(crate) fn new(columns: &[KafkaColumn], first: usize) -> Self {
        let numbered = columns.iter().enumerate();
        Self(numbered.map(|(index, column)| (*column, tag_of(first + index, &column.kind()))).collect())
    }

    pub(crate) fn write(&self, record: &Record<'_>, out: &mut Vec<u8>) -> Result<(), BadRecord> {
        for (column, tag) in &self.0 {
            let number = match column {
                KafkaColumn::Topic => {
                    tag.write(out);
                    write_delimited(record.topic.as_bytes(), out);
                    continue;
                }
                KafkaColumn::Partition => i64::from(record.partition),
                KafkaColumn::Offset => record.offset,
                KafkaColumn::Timestamp => match read::kafka_timestamp(record)? {
                    Some(micros) => micros,
                    None => continue,
                },
            };
            tag.write(out);
            write_signed(number, out);
        }
        Ok(())
    }
}

/// Appends the fields of an object.
pub(crate) fn write_record(
    plan: &RecordPlan<Tag>,
    object: Object<'_>,
    settings: &mut Settings,
    out: &mut Vec<u8>,
) -> Result<(), BadRecord> {
    plan.each(object, settings, |_, field, document, settings| write_field(field, document, settings, out))
}

/// Appends the field of a column, or all of them where it holds many values.
#[inline]
pub(crate) fn write_field(
    field: &FieldPlan<Tag>,
    document: &Document<'_>,
    settings: &mut Settings,
    out: &mut Vec<u8>,
) -> Result<(), BadRecord> {
    if field.mode != Mode::Repeated {
        return write(&field.value, &field.key, document, settings, out);
    }
    for (index, element) in elements(document)?.iter().enumerate() {
        write(&field.value, &field.key, element, settings, out).map_err(|bad| in_element(index, bad))?;
    }
    Ok(())
}

/// Appends one value that is not null where null has a meaning of its own.
#[inline]
fn write(
    plan: &ValuePlan<Tag>,
    tag: &Tag,
    document: &Document<'_>,
    settings: &mut Settings,
    out: &mut Vec<u8>,
) -> Result<(), BadRecord> {
    tag.write(out);
    match (plan, document) {
        (ValuePlan::Text, Document::String(text)) => write_delimited(text.as_bytes(), out),
        (ValuePlan::Integer, Document::Number(number)) => write_signed(read::integer(*number)?, out),
        (ValuePlan::Boolean, Document::Bool(value)) => out.push(u8::from(*value)),
        (ValuePlan::Float, Document::Number(number)) => {
            out.extend_from_slice(&read::float(*number)?.to_le_bytes());
        }
        (ValuePlan::Numeric { whole, scale }, Document::Number(number)) => {
            delimited(SHORT, out, |out| read::decimal(number.literal(), *whole, *scale, out))?;
        }
        (ValuePlan::Numeric { whole, scale }, Document::String(text)) => {
            delimited(SHORT, out, |out| read::decimal(text, *whole, *scale, out))?;
        }
        (ValuePlan::Epoch(unit), Document::Number(number)) => {
            write_signed(read::epoch(*number, *unit, settings.finer_times)?, out);
        }
        (ValuePlan::Rfc3339, Document::String(text)) => {
            write_signed(read::timestamp(text, settings.finer_times)?, out);
        }
        (ValuePlan::Date, Document::String(text)) => write_signed(i64::from(read::date(text)?), out),
        (ValuePlan::Time, Document::String(text)) => {
            let micros = read::time_of_day(text, settings.finer_times)?;
            delimited(SHORT, out, |out| {
                time_text::write_time_of_day(micros, out);
                Ok(())
            })?;
        }
        (ValuePlan::Bytes, Document::String(text)) => write_bytes(text, out)?,
        (ValuePlan::Json, document) => {
            read::json(document)?;
            delimited(SHORT, out, |out| {
                document.write_json(out);
                Ok(())
            })?;
        }
        (ValuePlan::Record(plan), Document::Object(object)) => {
            delimited(SHORT, out, |out| write_record(plan, *object, settings, out))?;
        }
        (plan, document) => return Err(plan.wrong_type(document)),
    }
    Ok(())
}

/// Appends an `int32` or `int64`: negative ones have all 64 bits.
#[inline]
fn write_signed(value: i64, out: &mut Vec<u8>) {
    write_varint(value.cast_unsigned(), out);
}

fn write_bytes(text: &str, out: &mut Vec<u8>) -> Result<(), BadRecord> {
    read::base64(text)?;
    delimited(SHORT, out, |out| {
        BASE64.decode_vec(text, out).map_err(|_| {
            BadRecord::new("encode.format", "", "the text is not base64 (RFC 4648, with padding)")
        })
    })
}
