//! A row's bytes as values of the table's columns.
//!
//! The messages name the field; like those for insertAll they repeat values, as BigQuery's do, so that a client that must
//! keep values out of its own logs is put to the test.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value as Json;

use super::super::{Column, Kind, Mode, Row, Value, decimal, temporal};
use super::change::{ChangeType, Sequence};
use super::civil;
use super::schema::{Field, Message, Target, Wire, WriterSchema};
use super::wire::{Content, Fields, Malformed, fixed, unzigzag, varint};

/// The most characters of a refused value that a message repeats.
const SHOWN: usize = 100;

/// A row as it was sent.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct DecodedRow {
    /// A value per column.
    pub(crate) row: Row,
    /// `_CHANGE_TYPE`, where the row has one.
    pub(crate) change: Option<ChangeType>,
    /// `_CHANGE_SEQUENCE_NUMBER`, where the row has one.
    pub(crate) sequence: Option<Sequence>,
}

/// A scalar as protobuf has it.
enum Scalar<'a> {
    Integer(i64),
    Unsigned(u64),
    Float(f64),
    Bool(bool),
    Text(&'a str),
    Bytes(&'a [u8]),
}

/// Decodes a row. The error is the sentence for the caller.
pub(crate) fn decode_row(
    schema: &WriterSchema,
    columns: &[Column],
    bytes: &[u8],
) -> Result<DecodedRow, String> {
    let mut decoder = Decoder { change: None, sequence: None };
    let row = decoder.message(&schema.root, columns, bytes, &Path::ROOT)?;
    if decoder.change != Some(ChangeType::Delete) {
        check_required(&row, columns, &Path::ROOT)?;
    }
    Ok(DecodedRow { row, change: decoder.change, sequence: decoder.sequence })
}

/// The way from the row to a field, for messages.
struct Path<'a> {
    outer: Option<(&'a Path<'a>, &'a str)>,
}

impl<'a> Path<'a> {
    const ROOT: Path<'static> = Path { outer: None };

    fn inner(&'a self, name: &'a str) -> Path<'a> {
        Path { outer: Some((self, name)) }
    }

    fn text(&self) -> String {
        match self.outer {
            None => String::new(),
            Some((Path { outer: None }, name)) => name.to_owned(),
            Some((path, name)) => format!("{}.{name}", path.text()),
        }
    }
}

fn check_required(row: &[Value], columns: &[Column], path: &Path<'_>) -> Result<(), String> {
    for (value, column) in row.iter().zip(columns) {
        let path = path.inner(&column.name);
        match (value, &column.kind) {
            (Value::Null, _) if column.mode == Mode::Required => {
                return Err(format!("Field {}: the required field is missing.", path.text()));
            }
            (Value::Record(inner), Kind::Record(columns)) => check_required(inner, columns, &path)?,
            (Value::List(elements), Kind::Record(columns)) => {
                for element in elements {
                    if let Value::Record(inner) = element {
                        check_required(inner, columns, &path)?;
                    }
                }
            }
            _ => {}
        }
    }
    Ok(())
}

struct Decoder {
    change: Option<ChangeType>,
    sequence: Option<Sequence>,
}

impl Decoder {
    fn message(
        &mut self,
        message: &Message,
        columns: &[Column],
        bytes: &[u8],
        path: &Path<'_>,
    ) -> Result<Row, String> {
        let empty = |column: &Column| match column.mode {
            Mode::Repeated => Value::List(Vec::new()),
            Mode::Nullable | Mode::Required => Value::Null,
        };
        let mut row: Row = columns.iter().map(empty).collect();
        let mut seen = vec![false; message.fields.len()];
        for field in Fields::of(bytes) {
            let (number, content) =
                field.map_err(|Malformed| "The row is not a valid proto message.".to_owned())?;
            let position = message.position(number);
            let Some((position, field)) = position.and_then(|at| Some((at, message.fields.get(at)?))) else {
                return Err(format!("The row has a field number {number} that the writer schema has not."));
            };
            if let Some(seen) = seen.get_mut(position) {
                *seen = true;
            }
            match field.target {
                Target::Column(index) => {
                    if let (Some(column), Some(place)) = (columns.get(index), row.get_mut(index)) {
                        let path = path.inner(&column.name);
                        self.value(field, column, content, place, &path)?;
                    }
                }
                Target::ChangeType => {
                    let text = pseudo_column(content)?;
                    let change = ChangeType::parse(text)
                        .ok_or_else(|| "The given value is not a valid CHANGE_TYPE.".to_owned())?;
                    self.change = Some(change);
                }
                Target::ChangeSequence => {
                    let text = pseudo_column(content)?;
                    let sequence = Sequence::parse(text).ok_or_else(|| {
                        format!("The given value is not a valid CHANGE_SEQUENCE_NUMBER: {}", shown(text))
                    })?;
                    self.sequence = Some(sequence);
                }
            }
        }
        let missing = message.fields.iter().zip(&seen).find(|(field, seen)| field.required && !**seen);
        match missing {
            Some((field, _)) => {
                Err(format!("The row lacks the required proto field number {}.", field.number))
            }
            None => Ok(row),
        }
    }

    fn value(
        &mut self,
        field: &Field,
        column: &Column,
        content: Content<'_>,
        place: &mut Value,
        path: &Path<'_>,
    ) -> Result<(), String> {
        let wrong = |sentence: String| format!("Field {}: {sentence}", path.text());
        if let Value::List(elements) = place {
            match (content, &field.wire) {
                // Numbers of a list may travel packed, whatever the descriptor says of it.
                (Content::Bytes(packed), wire) if is_packable(wire) => {
                    let mut rest = packed;
                    while !rest.is_empty() {
                        let element = next_packed(wire, &mut rest)
                            .and_then(|content| scalar(wire, content))
                            .map_err(|Malformed| wrong("the packed list is malformed.".to_owned()))?;
                        elements.push(read(&column.kind, element).map_err(wrong)?);
                    }
                }
                (content, _) => elements.push(self.single(field, &column.kind, content, path)?),
            }
        } else {
            *place = self.single(field, &column.kind, content, path)?;
        }
        Ok(())
    }

    fn single(
        &mut self,
        field: &Field,
        kind: &Kind,
        content: Content<'_>,
        path: &Path<'_>,
    ) -> Result<Value, String> {
        let wrong = |sentence: String| format!("Field {}: {sentence}", path.text());
        let malformed =
            |_: Malformed| wrong("the proto wire type does not fit the writer schema.".to_owned());
        match (&field.wire, kind) {
            (Wire::Message(message), Kind::Record(columns)) => match content {
                Content::Bytes(bytes) => Ok(Value::Record(self.message(message, columns, bytes, path)?)),
                _ => Err(malformed(Malformed)),
            },
            (wire, kind) => read(kind, scalar(wire, content).map_err(malformed)?).map_err(wrong),
        }
    }
}

fn pseudo_column(content: Content<'_>) -> Result<&str, String> {
    match content {
        Content::Bytes(bytes) => std::str::from_utf8(bytes).ok(),
        _ => None,
    }
    .ok_or_else(|| "A pseudo-column of the row is not text.".to_owned())
}

fn is_packable(wire: &Wire) -> bool {
    !matches!(wire, Wire::String | Wire::Bytes | Wire::Message(_))
}

fn next_packed<'a>(wire: &Wire, rest: &mut &'a [u8]) -> Result<Content<'a>, Malformed> {
    Ok(match wire {
        Wire::Double | Wire::Fixed64 | Wire::SignedFixed64 => {
            Content::Fixed64(u64::from_le_bytes(fixed(rest)?))
        }
        Wire::Float | Wire::Fixed32 | Wire::SignedFixed32 => {
            Content::Fixed32(u32::from_le_bytes(fixed(rest)?))
        }
        _ => Content::Varint(varint(rest)?),
    })
}

fn scalar<'a>(wire: &Wire, content: Content<'a>) -> Result<Scalar<'a>, Malformed> {
    Ok(match (wire, content) {
        (Wire::Double, Content::Fixed64(bits)) => Scalar::Float(f64::from_bits(bits)),
        (Wire::Float, Content::Fixed32(bits)) => Scalar::Float(f64::from(f32::from_bits(bits))),
        (Wire::Signed, Content::Varint(value)) | (Wire::SignedFixed64, Content::Fixed64(value)) => {
            Scalar::Integer(value.cast_signed())
        }
        (Wire::Unsigned, Content::Varint(value)) | (Wire::Fixed64, Content::Fixed64(value)) => {
            Scalar::Unsigned(value)
        }
        (Wire::ZigZag, Content::Varint(value)) => Scalar::Integer(unzigzag(value)),
        (Wire::Fixed32, Content::Fixed32(value)) => Scalar::Unsigned(u64::from(value)),
        (Wire::SignedFixed32, Content::Fixed32(value)) => Scalar::Integer(i64::from(value.cast_signed())),
        (Wire::Bool, Content::Varint(value)) => Scalar::Bool(value != 0),
        (Wire::String, Content::Bytes(bytes)) => {
            Scalar::Text(std::str::from_utf8(bytes).map_err(|_| Malformed)?)
        }
        (Wire::Bytes, Content::Bytes(bytes)) => Scalar::Bytes(bytes),
        _ => return Err(Malformed),
    })
}

/// A scalar as a column's value; the schema has been checked, so that only values can be wrong.
fn read(kind: &Kind, scalar: Scalar<'_>) -> Result<Value, String> {
    let unfit = || Err(format!("the value does not fit the type {}.", kind.name()));
    match (kind, scalar) {
        (Kind::Boolean, Scalar::Bool(boolean)) => Ok(Value::Bool(boolean)),
        (Kind::Boolean, Scalar::Integer(integer)) => Ok(Value::Bool(integer != 0)),
        (Kind::Boolean, Scalar::Unsigned(integer)) => Ok(Value::Bool(integer != 0)),
        (Kind::Float, Scalar::Float(float)) => Ok(Value::Float(float)),
        (Kind::Integer, Scalar::Integer(integer)) => Ok(Value::Integer(integer)),
        (Kind::Integer, Scalar::Unsigned(integer)) => {
            i64::try_from(integer).map(Value::Integer).or_else(|_| unfit())
        }
        (Kind::Timestamp, Scalar::Integer(micros)) => {
            let moment = temporal::in_range(micros);
            moment.map(Value::Timestamp).ok_or_else(|| format!("Timestamp is out of range: {micros}"))
        }
        (Kind::Timestamp, Scalar::Unsigned(micros)) => {
            let moment = i64::try_from(micros).ok().and_then(temporal::in_range);
            moment.map(Value::Timestamp).ok_or_else(|| format!("Timestamp is out of range: {micros}"))
        }
        (Kind::Date, Scalar::Integer(days)) => {
            let date = temporal::date_in_range(days);
            date.map(Value::Date).ok_or_else(|| format!("Date is out of range: {days}"))
        }
        (Kind::Time, Scalar::Integer(packed)) => {
            civil::time(packed).map(Value::Time).ok_or_else(|| format!("Invalid packed time: {packed}"))
        }
        (Kind::DateTime, Scalar::Integer(packed)) => {
            let moment = civil::datetime(packed);
            moment.map(Value::DateTime).ok_or_else(|| format!("Invalid packed datetime: {packed}"))
        }
        (Kind::Bytes(longest), Scalar::Bytes(bytes)) => binary(bytes, *longest),
        (Kind::Bytes(longest), Scalar::Text(text)) => binary(text.as_bytes(), *longest),
        (Kind::Numeric(_) | Kind::BigNumeric(_), Scalar::Integer(integer)) => {
            text(kind, &integer.to_string())
        }
        (Kind::Numeric(_) | Kind::BigNumeric(_), Scalar::Unsigned(integer)) => {
            text(kind, &integer.to_string())
        }
        (Kind::Numeric(_) | Kind::BigNumeric(_), Scalar::Float(float)) => text(kind, &float.to_string()),
        (kind, Scalar::Text(value)) => text(kind, value),
        _ => unfit(),
    }
}

fn text(kind: &Kind, text: &str) -> Result<Value, String> {
    let invalid = |what: &str| format!("Invalid {what} value: {}", shown(text));
    match kind {
        Kind::String(longest) => match longest {
            Some(longest) if text.chars().count() > *longest => {
                let length = text.chars().count();
                Err(format!("Value has length {length} which is longer than the maximum length {longest}."))
            }
            _ => Ok(Value::Text(text.into())),
        },
        Kind::Numeric(limits) | Kind::BigNumeric(limits) => {
            let decimal = decimal::normalise(text, *limits);
            decimal.map(|decimal| Value::Text(decimal.into())).ok_or_else(|| invalid(kind.name()))
        }
        Kind::Date => temporal::parse_date(text).map(Value::Date).ok_or_else(|| invalid("DATE")),
        Kind::Time => temporal::parse_time(text).map(Value::Time).ok_or_else(|| invalid("TIME")),
        Kind::DateTime => {
            temporal::parse_datetime(text).map(Value::DateTime).ok_or_else(|| invalid("DATETIME"))
        }
        Kind::Json => match serde_json::from_str::<Json>(text) {
            Ok(document) => Ok(Value::Text(document.to_string().into())),
            Err(wrong) => {
                Err(format!("Invalid JSON text at line {}, column {}.", wrong.line(), wrong.column()))
            }
        },
        _ => Err(invalid(kind.name())),
    }
}

fn binary(bytes: &[u8], longest: Option<usize>) -> Result<Value, String> {
    match longest {
        Some(longest) if bytes.len() > longest => Err(format!(
            "Value has length {} which is longer than the maximum length {longest}.",
            bytes.len()
        )),
        _ => Ok(Value::Text(STANDARD.encode(bytes).into())),
    }
}

fn shown(text: &str) -> String {
    text.chars().take(SHOWN).collect()
}

#[cfg(test)]
mod tests {
    use super::super::super::column::parse_fields;
    use super::*;
    use proptest::prelude::*;
    use prost_types::field_descriptor_proto::{Label, Type};
    use prost_types::{DescriptorProto, FieldDescriptorProto};
    use serde_json::json;

    fn schema(fields: &[(&str, i32, Type, Label)], columns: &[Column], keyed: bool) -> WriterSchema {
        let field = |(name, number, kind, label): &(&str, i32, Type, Label)| FieldDescriptorProto {
            name: Some((*name).to_owned()),
            number: Some(*number),
            r#type: Some((*kind).into()),
            label: Some((*label).into()),
            type_name: (*kind == Type::Message).then(|| "Inner".to_owned()),
            ..FieldDescriptorProto::default()
        };
        let inner = DescriptorProto {
            name: Some("Inner".to_owned()),
            field: vec![field(&("x", 1, Type::Sint64, Label::Repeated))],
            ..DescriptorProto::default()
        };
        let descriptor = DescriptorProto {
            field: fields.iter().map(field).collect(),
            nested_type: vec![inner],
            ..DescriptorProto::default()
        };
        WriterSchema::new(&descriptor, columns, keyed).unwrap()
    }

    /// One value of a column, as `wire` gives it.
    fn one(kind: &str, proto: Type, wire: &[u8]) -> Result<Value, String> {
        let columns = parse_fields(&json!([{"name": "x", "type": kind}])).unwrap();
        let schema = schema(&[("x", 1, proto, Label::Optional)], &columns, false);
        decode_row(&schema, &columns, wire).map(|mut decoded| decoded.row.remove(0))
    }

    fn varint(value: u64) -> Vec<u8> {
        let mut wire = vec![8];
        prost::encoding::encode_varint(value, &mut wire);
        wire
    }

    fn text(text: &str) -> Vec<u8> {
        let mut wire = vec![10];
        prost::encoding::encode_varint(text.len() as u64, &mut wire);
        wire.extend_from_slice(text.as_bytes());
        wire
    }

    // "Supported protocol buffer and Arrow data types": each column's second forms.
    #[test]
    fn a_column_takes_every_form_of_its_value() {
        assert_eq!(one("BOOL", Type::Int64, &varint(2)), Ok(Value::Bool(true)));
        assert_eq!(one("INTEGER", Type::Sint64, &varint(3)), Ok(Value::Integer(-2)));
        assert_eq!(one("INTEGER", Type::Sfixed32, &[0x0D, 0xFE, 255, 255, 255]), Ok(Value::Integer(-2)));
        assert_eq!(
            one("NUMERIC", Type::Uint64, &varint(u64::MAX)),
            Ok(Value::Text(u64::MAX.to_string().into()))
        );
        assert_eq!(
            one("NUMERIC", Type::Double, &[&[9][..], &1.5_f64.to_le_bytes()].concat()),
            Ok(Value::Text("1.5".into()))
        );
        assert_eq!(one("BYTES", Type::String, &text("hi")), Ok(Value::Text("aGk=".into())));
        assert_eq!(one("DATE", Type::String, &text("1970-01-02")), Ok(Value::Date(1)));
        assert_eq!(
            one("DATETIME", Type::String, &text("1970-01-01 00:00:01")),
            Ok(Value::DateTime(1_000_000))
        );
        assert_eq!(one("TIME", Type::Int64, &varint(1 << 20)), Ok(Value::Time(1_000_000)));
    }

    // The same page: DATE from -719162 to 2932896.
    #[test]
    fn what_is_out_of_range_is_refused() {
        assert_eq!(one("DATE", Type::Int64, &varint(2_932_896)), Ok(Value::Date(2_932_896)));
        assert!(one("DATE", Type::Int64, &varint(2_932_897)).is_err());
        assert!(one("DATE", Type::Int64, &varint((-719_163_i64).cast_unsigned())).is_err());
        assert!(one("TIMESTAMP", Type::Int64, &varint(i64::MAX.cast_unsigned())).is_err());
        assert!(one("TIME", Type::Int64, &varint(u64::MAX)).is_err());
        assert!(one("NUMERIC", Type::Double, &[&[9][..], &f64::NAN.to_le_bytes()].concat()).is_err());
        assert!(one("JSON", Type::String, &text("{")).is_err());
        assert!(one("STRING", Type::String, &[10, 1, 0xFF]).is_err());
    }

    #[test]
    fn errors_name_the_field_with_its_path() {
        let columns = parse_fields(&json!([{"name": "who", "type": "RECORD", "fields": [
            {"name": "x", "type": "INTEGER", "mode": "REPEATED"}]}]))
        .unwrap();
        let schema = schema(&[("who", 1, Type::Message, Label::Optional)], &columns, false);
        // A packed list that ends in the middle of a number.
        let refused = decode_row(&schema, &columns, &[10, 3, 10, 1, 0x80]).unwrap_err();
        assert_eq!(refused, "Field who.x: the packed list is malformed.");
        let row = decode_row(&schema, &columns, &[10, 6, 10, 2, 2, 4, 8, 6]).unwrap().row;
        let list = Value::List(vec![Value::Integer(1), Value::Integer(2), Value::Integer(3)]);
        assert_eq!(row, vec![Value::Record(vec![list])]);
    }

    #[test]
    fn a_proto_field_that_is_required_must_be_there() {
        let columns = parse_fields(&json!([{"name": "x", "type": "INTEGER"}])).unwrap();
        let schema = schema(&[("x", 7, Type::Int64, Label::Required)], &columns, false);
        assert!(decode_row(&schema, &columns, &[]).unwrap_err().contains("number 7"));
        assert!(decode_row(&schema, &columns, &[56, 0]).is_ok());
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(
            bytes in proptest::collection::vec(any::<u8>(), 0..60),
            wire_types in proptest::collection::vec(0_u8..6, 0..6),
        ) {
            let kinds = json!([
                {"name": "a", "type": "INTEGER", "mode": "REPEATED"}, {"name": "b", "type": "NUMERIC"},
                {"name": "c", "type": "TIMESTAMP"}, {"name": "d", "type": "DATETIME"}, {"name": "e", "type": "FLOAT"},
                {"name": "f", "type": "RECORD", "mode": "REPEATED",
                    "fields": [{"name": "x", "type": "INTEGER", "mode": "REPEATED"}]}
            ]);
            let columns = parse_fields(&kinds).unwrap();
            let fields = [
                ("a", 1, Type::Int64, Label::Repeated), ("b", 2, Type::String, Label::Optional),
                ("c", 3, Type::Int64, Label::Optional), ("d", 4, Type::Int64, Label::Optional),
                ("e", 5, Type::Double, Label::Optional), ("f", 6, Type::Message, Label::Repeated),
                ("_CHANGE_TYPE", 7, Type::String, Label::Optional),
                ("_CHANGE_SEQUENCE_NUMBER", 8, Type::String, Label::Optional),
            ];
            let schema = schema(&fields, &columns, true);
            let _ = decode_row(&schema, &columns, &bytes);
            // Noise that begins as a field does comes further.
            for (number, wire_type) in (1_u8..).zip(&wire_types) {
                let row = [&[number << 3 | wire_type][..], &bytes].concat();
                let _ = decode_row(&schema, &columns, &row);
            }
        }
    }
}
