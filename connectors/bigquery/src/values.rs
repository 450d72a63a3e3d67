//! JSON values of a record → JSON values as insertAll takes them.

use txconnect_connector_api::document::write_json_string;
use txconnect_connector_api::schema::UnknownFields;
use txconnect_connector_api::{
    BadRecord, Columns, Document, Kind, Mode, Number, Object, TimeUnit, TimestampSource,
};

use crate::config::FinerTimes;
use crate::{decimal, time_text};

/// Integers beyond this are sent as text: a JSON reader that keeps numbers as doubles rounds them.
const MAX_EXACT_DOUBLE: u64 = 1 << 53;

/// How the members of an object become the fields of a record.
pub(crate) struct RecordPlan {
    columns: Columns,
    fields: Vec<FieldPlan>,
    required: usize,
}

struct FieldPlan {
    /// The column's name as a JSON string, with the colon.
    key: Vec<u8>,
    mode: Mode,
    kind: ValuePlan,
}

enum ValuePlan {
    Boolean,
    Integer,
    Float,
    Numeric { whole: u32, scale: u32 },
    Text,
    Bytes,
    Date,
    Time,
    Rfc3339,
    Epoch(TimeUnit),
    Json,
    Record(RecordPlan),
}

/// What the writing of values needs beside the plan.
pub(crate) struct Settings {
    pub(crate) finer_times: FinerTimes,
    pub(crate) unknown_fields: UnknownFields,
    /// Fields left out so far.
    pub(crate) ignored_fields: u64,
    /// JSON text on its way into a JSON string.
    pub(crate) scratch: Vec<u8>,
}

impl RecordPlan {
    pub(crate) fn new(columns: &Columns) -> Self {
        let fields: Vec<FieldPlan> = columns
            .as_slice()
            .iter()
            .map(|column| {
                let mut key = Vec::new();
                write_json_string(&column.name, &mut key);
                key.push(b':');
                FieldPlan { key, mode: column.mode, kind: ValuePlan::new(&column.kind) }
            })
            .collect();
        let required = fields.iter().filter(|field| field.mode == Mode::Required).count();
        Self { columns: columns.clone(), fields, required }
    }

    /// Appends `object` as a JSON object that holds the columns' names and values.
    pub(crate) fn write(
        &self,
        object: Object<'_>,
        settings: &mut Settings,
        out: &mut Vec<u8>,
    ) -> Result<(), BadRecord> {
        out.push(b'{');
        let mut first = true;
        let mut guess = 0;
        let mut required_found = 0;
        for member in object.members() {
            let Some(index) = self.columns.position(member.name, guess) else {
                if self.columns.is_ignored(member.name) {
                    continue;
                }
                match settings.unknown_fields {
                    UnknownFields::Ignore => settings.ignored_fields += 1,
                    UnknownFields::DeadLetter => {
                        return Err(BadRecord::new(
                            "encode.unknown_field",
                            pointer_part(member.name),
                            "no column takes this field",
                        ));
                    }
                }
                continue;
            };
            guess = index + 1;
            let field = &self.fields[index];
            if member.value == Document::Null {
                if field.mode == Mode::Required {
                    let message = "the column is required and the value is null";
                    return Err(BadRecord::new("encode.required", pointer_part(member.name), message));
                }
                continue;
            }
            if !first {
                out.push(b',');
            }
            first = false;
            out.extend_from_slice(&field.key);
            let written = if field.mode == Mode::Repeated {
                field.kind.write_all(&member.value, settings, out)
            } else {
                required_found += usize::from(field.mode == Mode::Required);
                field.kind.write(&member.value, settings, out)
            };
            written.map_err(|bad| below(&pointer_part(member.name), bad))?;
        }
        if required_found < self.required {
            let missing = self
                .columns
                .as_slice()
                .iter()
                .find(|column| column.mode == Mode::Required && object.get(&column.property).is_none());
            let path = missing.map(|column| pointer_part(&column.property)).unwrap_or_default();
            return Err(BadRecord::new(
                "encode.required",
                path,
                "the column is required and the field is missing",
            ));
        }
        out.push(b'}');
        Ok(())
    }
}

impl ValuePlan {
    fn new(kind: &Kind) -> Self {
        match kind {
            Kind::Boolean => Self::Boolean,
            Kind::Integer => Self::Integer,
            Kind::Float => Self::Float,
            Kind::Numeric { precision, scale } => {
                Self::Numeric { whole: precision.saturating_sub(*scale), scale: *scale }
            }
            Kind::String | Kind::Uuid => Self::Text,
            Kind::Bytes => Self::Bytes,
            Kind::Date => Self::Date,
            Kind::Time => Self::Time,
            Kind::Timestamp(TimestampSource::Rfc3339) => Self::Rfc3339,
            Kind::Timestamp(TimestampSource::Epoch(unit)) => Self::Epoch(*unit),
            Kind::Json => Self::Json,
            Kind::Record(columns) => Self::Record(RecordPlan::new(columns)),
        }
    }

    /// Appends the elements of an array.
    fn write_all(
        &self,
        document: &Document<'_>,
        settings: &mut Settings,
        out: &mut Vec<u8>,
    ) -> Result<(), BadRecord> {
        let Document::Array(elements) = document else { return Err(wrong_type("an array", document)) };
        out.push(b'[');
        for (index, element) in elements.iter().enumerate() {
            if index > 0 {
                out.push(b',');
            }
            self.write(element, settings, out).map_err(|bad| below(&format!("/{index}"), bad))?;
        }
        out.push(b']');
        Ok(())
    }

    /// Appends one value that is not null where null has a meaning of its own.
    fn write(
        &self,
        document: &Document<'_>,
        settings: &mut Settings,
        out: &mut Vec<u8>,
    ) -> Result<(), BadRecord> {
        match (self, document) {
            (Self::Boolean, Document::Bool(value)) => {
                out.extend_from_slice(if *value { b"true" } else { b"false" });
                Ok(())
            }
            (Self::Integer, Document::Number(number)) => write_integer(*number, out),
            (Self::Float, Document::Number(number)) => {
                if !number.as_f64().is_finite() {
                    return Err(out_of_range("a double"));
                }
                out.extend_from_slice(number.literal().as_bytes());
                Ok(())
            }
            (Self::Numeric { whole, scale }, Document::Number(number)) => {
                write_decimal(number.literal(), *whole, *scale, out)
            }
            (Self::Numeric { whole, scale }, Document::String(text)) => {
                write_decimal(text, *whole, *scale, out)
            }
            (Self::Text, Document::String(text)) => {
                write_json_string(text, out);
                Ok(())
            }
            (Self::Bytes, Document::String(text)) if is_base64(text) => quoted(text, out),
            (Self::Bytes, Document::String(_)) => {
                Err(BadRecord::new("encode.format", "", "the text is not base64 (RFC 4648, with padding)"))
            }
            (Self::Date, Document::String(text)) => {
                time_text::check_date(text).map_err(|misfit| bad_time(misfit, "a date"))?;
                quoted(text, out)
            }
            (Self::Time, Document::String(text)) => in_quotes(out, |out| {
                time_text::write_time(text, settings.finer_times, out)
                    .map_err(|misfit| bad_time(misfit, "a time of day without a zone"))
            }),
            (Self::Rfc3339, Document::String(text)) => in_quotes(out, |out| {
                time_text::write_timestamp(text, settings.finer_times, out)
                    .map_err(|misfit| bad_time(misfit, "an RFC 3339 time"))
            }),
            (Self::Epoch(unit), Document::Number(number)) => in_quotes(out, |out| {
                time_text::write_epoch(number, *unit, settings.finer_times, out)
                    .map_err(|misfit| bad_time(misfit, "an epoch"))
            }),
            (Self::Json, document) => write_json(document, settings, out),
            (Self::Record(plan), Document::Object(object)) => plan.write(*object, settings, out),
            (plan, document) => Err(wrong_type(plan.wanted(), document)),
        }
    }

    fn wanted(&self) -> &'static str {
        match self {
            Self::Boolean => "a boolean",
            Self::Integer => "an integer",
            Self::Float | Self::Epoch(_) => "a number",
            Self::Numeric { .. } => "a number or a decimal in a string",
            Self::Text => "a string",
            Self::Bytes => "base64 in a string",
            Self::Date => "a date in a string",
            Self::Time => "a time of day in a string",
            Self::Rfc3339 => "an RFC 3339 time in a string",
            Self::Json => "any value",
            Self::Record(_) => "an object",
        }
    }
}

fn write_integer(number: Number<'_>, out: &mut Vec<u8>) -> Result<(), BadRecord> {
    let Some(value) = number.as_i64() else {
        return Err(if number.is_integer() {
            out_of_range("a 64-bit integer")
        } else {
            BadRecord::new("encode.type", "", "the column takes an integer, the record has a fraction")
        });
    };
    let mut digits = itoa::Buffer::new();
    let digits = digits.format(value);
    if value.unsigned_abs() > MAX_EXACT_DOUBLE {
        return quoted(digits, out);
    }
    out.extend_from_slice(digits.as_bytes());
    Ok(())
}

fn write_decimal(literal: &str, whole: u32, scale: u32, out: &mut Vec<u8>) -> Result<(), BadRecord> {
    in_quotes(out, |out| {
        decimal::write(literal, whole, scale, out).map_err(|misfit| match misfit {
            decimal::Misfit::NotANumber => {
                BadRecord::new("encode.format", "", "the text is not a decimal number")
            }
            decimal::Misfit::OutOfRange => BadRecord::new(
                "encode.out_of_range",
                "",
                format!("the number has more than {whole} digits before the point"),
            ),
            decimal::Misfit::TooFine => BadRecord::new(
                "encode.inexact",
                "",
                format!("the number has more than {scale} digits behind the point"),
            ),
        })
    })
}

/// Appends a document as the JSON text that a JSON column takes in a string.
fn write_json(document: &Document<'_>, settings: &mut Settings, out: &mut Vec<u8>) -> Result<(), BadRecord> {
    check_json(document)?;
    settings.scratch.clear();
    document.write_json(&mut settings.scratch);
    let text = std::str::from_utf8(&settings.scratch)
        .map_err(|_| BadRecord::new("encode.format", "", "the value is not UTF-8"))?;
    write_json_string(text, out);
    Ok(())
}

/// BigQuery turns integers beyond 64 bits in a JSON column into doubles without a word.
fn check_json(document: &Document<'_>) -> Result<(), BadRecord> {
    match document {
        Document::Number(number) => {
            let plain = !number.literal().bytes().any(|byte| matches!(byte, b'.' | b'e' | b'E'));
            if plain && number.as_i64().is_none() && number.as_u64().is_none() {
                return Err(out_of_range("a 64-bit integer, which is all a JSON column keeps exactly"));
            }
            Ok(())
        }
        Document::Array(elements) => elements.iter().enumerate().try_for_each(|(index, element)| {
            check_json(element).map_err(|bad| below(&format!("/{index}"), bad))
        }),
        Document::Object(object) => object.members().iter().try_for_each(|member| {
            check_json(&member.value).map_err(|bad| below(&pointer_part(member.name), bad))
        }),
        Document::Null | Document::Bool(_) | Document::String(_) => Ok(()),
    }
}

/// Appends text that needs no escape.
fn quoted(text: &str, out: &mut Vec<u8>) -> Result<(), BadRecord> {
    in_quotes(out, |out| {
        out.extend_from_slice(text.as_bytes());
        Ok(())
    })
}

fn in_quotes(
    out: &mut Vec<u8>,
    write: impl FnOnce(&mut Vec<u8>) -> Result<(), BadRecord>,
) -> Result<(), BadRecord> {
    out.push(b'"');
    write(out)?;
    out.push(b'"');
    Ok(())
}

fn is_base64(text: &str) -> bool {
    let bytes = text.as_bytes();
    let padding = bytes.iter().rev().take(2).take_while(|byte| **byte == b'=').count();
    bytes.len().is_multiple_of(4)
        && bytes[..bytes.len() - padding]
            .iter()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/'))
}

fn wrong_type(wanted: &str, document: &Document<'_>) -> BadRecord {
    let message = format!("the column takes {wanted}, the record has {}", document.type_name());
    BadRecord::new("encode.type", "", message)
}

fn out_of_range(range: &str) -> BadRecord {
    BadRecord::new("encode.out_of_range", "", format!("the number does not fit {range}"))
}

fn bad_time(misfit: time_text::Misfit, wanted: &str) -> BadRecord {
    match misfit {
        time_text::Misfit::Form => BadRecord::new("encode.format", "", format!("the value is not {wanted}")),
        time_text::Misfit::OutOfRange => BadRecord::new(
            "encode.out_of_range",
            "",
            format!("the value is not {wanted} that exists and that BigQuery keeps (years 1 to 9999)"),
        ),
        time_text::Misfit::TooFine => BadRecord::new(
            "encode.inexact",
            "",
            "the time is finer than a microsecond, which is all BigQuery keeps (`finer_times: truncate` drops the rest)",
        ),
    }
}

fn pointer_part(name: &str) -> String {
    format!("/{}", name.replace('~', "~0").replace('/', "~1"))
}

fn below(parent: &str, mut bad: BadRecord) -> BadRecord {
    bad.path.insert_str(0, parent);
    bad
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn base64_is_the_standard_alphabet_with_padding() {
        for fine in ["", "QQ==", "QUI=", "QUJD", "+/+/"] {
            assert!(is_base64(fine), "{fine}");
        }
        for wrong in ["QQ", "Q===", "====", "QUI_", "QU I", "QQ==QQ=="] {
            assert!(!is_base64(wrong), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn whatever_is_encoded_as_base64_is_recognised(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            use base64::Engine as _;
            prop_assert!(is_base64(&base64::engine::general_purpose::STANDARD.encode(&bytes)));
        }
    }
}
