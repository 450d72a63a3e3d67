//! A JSON value from `tabledata.insertAll` as a column's value, or why it does not fit.
//!
//! The messages are worded as BigQuery words them, value included where BigQuery includes it: a client that must keep
//! values out of its own logs is thereby put to the test.

use base64::Engine;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde_json::{Map, Value as Json};

use super::{Column, Kind, Mode, Row, Value, decimal, temporal};

/// The most characters of a refused value that a message repeats.
const SHOWN: usize = 100;

/// Padding is optional on the way in and always written.
const PADDING: GeneralPurposeConfig =
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
const STANDARD: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, PADDING);
const URL_SAFE: GeneralPurpose = GeneralPurpose::new(&alphabet::URL_SAFE, PADDING);

/// Why a row does not fit: the column's dotted path and the sentence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mismatch {
    /// The column, as `record.field`.
    pub(crate) location: String,
    /// BigQuery's sentence.
    pub(crate) message: String,
    /// Whether the value had the wrong type, as opposed to a field that is unknown or missing.
    pub(crate) of_type: bool,
}

/// The row in column order, or everything that is wrong with it.
///
/// `ignore_unknown` drops fields that no column takes, as `ignoreUnknownValues` does.
pub(crate) fn accept_row(
    columns: &[Column],
    fields: &Map<String, Json>,
    ignore_unknown: bool,
) -> Result<Row, Vec<Mismatch>> {
    let mut reader = Reader { ignore_unknown, path: Vec::new(), mismatches: Vec::new() };
    let row = reader.record(columns, fields);
    if reader.mismatches.is_empty() { Ok(row) } else { Err(reader.mismatches) }
}

struct Reader<'a> {
    ignore_unknown: bool,
    path: Vec<&'a str>,
    mismatches: Vec<Mismatch>,
}

impl<'a> Reader<'a> {
    fn record(&mut self, columns: &'a [Column], fields: &'a Map<String, Json>) -> Vec<Value> {
        let mut row = vec![Value::Null; columns.len()];
        for (place, column) in row.iter_mut().zip(columns) {
            if column.mode == Mode::Repeated {
                *place = Value::List(Vec::new());
            }
        }
        let mut seen = vec![false; columns.len()];
        for (at, (name, value)) in fields.iter().enumerate() {
            // Fields mostly come in column order, so that the first look hits.
            let exact = |column: &Column| column.name == *name;
            let index = match columns.get(at) {
                Some(column) if exact(column) => Some(at),
                _ => columns.iter().position(exact),
            };
            let index = index.or_else(|| columns.iter().position(|column| column.is_named(name)));
            self.path.push(name);
            match index {
                Some(index) => {
                    seen[index] = true;
                    row[index] = self.column(&columns[index], value);
                }
                None if self.ignore_unknown => {}
                None => {
                    let path = self.path.join(".");
                    self.refuse(format!("no such field: {path}."), false);
                }
            }
            self.path.pop();
        }
        for (column, _) in
            columns.iter().zip(&seen).filter(|(column, seen)| !**seen && column.mode == Mode::Required)
        {
            self.path.push(&column.name);
            let path = self.path.join(".");
            self.refuse(format!("Missing required field: {path}."), false);
            self.path.pop();
        }
        row
    }

    fn column(&mut self, column: &'a Column, value: &'a Json) -> Value {
        match (column.mode, value) {
            (Mode::Nullable, Json::Null) => Value::Null,
            (Mode::Required | Mode::Repeated, Json::Null) => self.refuse_null(),
            (Mode::Repeated, Json::Array(elements)) => {
                let mut list = Vec::with_capacity(elements.len());
                for element in elements {
                    list.push(match element {
                        Json::Null => self.refuse_null(),
                        element => self.scalar(&column.kind, element),
                    });
                }
                Value::List(list)
            }
            (Mode::Repeated, _) => {
                self.refuse("Repeated field must be imported as a JSON array.".into(), true)
            }
            (_, Json::Array(_)) => {
                let path = self.path.join(".");
                self.refuse(format!("Array specified for non-repeated field: {path}."), true)
            }
            (_, value) => self.scalar(&column.kind, value),
        }
    }

    fn scalar(&mut self, kind: &'a Kind, value: &'a Json) -> Value {
        if let Kind::Record(columns) = kind {
            return if let Json::Object(fields) = value {
                Value::Record(self.record(columns, fields))
            } else {
                let path = self.path.join(".");
                self.refuse(format!("This field: {path} is not a record."), true)
            };
        }
        match read_scalar(kind, value) {
            Ok(value) => value,
            Err(message) => self.refuse(message, true),
        }
    }

    fn refuse_null(&mut self) -> Value {
        let path = self.path.join(".");
        self.refuse(format!("Only optional fields can be set to NULL. Field: {path}; Value: NULL"), true)
    }

    fn refuse(&mut self, message: String, of_type: bool) -> Value {
        self.mismatches.push(Mismatch { location: self.path.join("."), message, of_type });
        Value::Null
    }
}

fn read_scalar(kind: &Kind, value: &Json) -> Result<Value, String> {
    let refused = |what: &str| Err(format!("{what}{}", shown(value)));
    let text = value.as_str();
    match kind {
        Kind::Integer => match read_integer(value) {
            Some(integer) => Ok(Value::Integer(integer)),
            None => refused("Cannot convert value to integer (bad value): "),
        },
        Kind::Float => match read_float(value) {
            Some(float) => Ok(Value::Float(float)),
            None => refused("Cannot convert value to floating point (bad value): "),
        },
        Kind::Numeric(limits) | Kind::BigNumeric(limits) => {
            let decimal = match value {
                Json::String(text) => decimal::normalise(text, *limits),
                Json::Number(number) => decimal::normalise(&number.to_string(), *limits),
                _ => None,
            };
            match decimal {
                Some(decimal) => Ok(Value::Text(decimal.into())),
                None => refused(&format!("Invalid {} value: ", kind.name())),
            }
        }
        Kind::Boolean => match (value, text.map(str::to_ascii_lowercase).as_deref()) {
            (Json::Bool(boolean), _) => Ok(Value::Bool(*boolean)),
            (_, Some("true")) => Ok(Value::Bool(true)),
            (_, Some("false")) => Ok(Value::Bool(false)),
            _ => refused("Cannot convert value to boolean: "),
        },
        Kind::String(longest) => read_string(value, *longest),
        Kind::Bytes(longest) => {
            let bytes = text.and_then(|text| STANDARD.decode(text).or_else(|_| URL_SAFE.decode(text)).ok());
            match bytes {
                Some(bytes) if longest.is_some_and(|longest| bytes.len() > longest) => {
                    Err(format!("Value has length {} which is longer than the maximum length.", bytes.len()))
                }
                Some(bytes) => Ok(Value::Text(STANDARD.encode(bytes).into())),
                None => Err("Could not decode base64 string to bytes.".to_owned()),
            }
        }
        Kind::Date => {
            text.and_then(temporal::parse_date).map(Value::Date).ok_or_else(|| invalid("date", value))
        }
        Kind::Time => {
            text.and_then(temporal::parse_time).map(Value::Time).ok_or_else(|| invalid("time", value))
        }
        Kind::DateTime => text
            .and_then(temporal::parse_datetime)
            .map(Value::DateTime)
            .ok_or_else(|| invalid("datetime", value)),
        Kind::Timestamp => {
            let micros = match value {
                Json::String(text) => temporal::parse_timestamp(text),
                Json::Number(number) => read_epoch(number),
                _ => None,
            };
            micros.map(Value::Timestamp).ok_or_else(|| invalid("timestamp", value))
        }
        Kind::Json => {
            let Some(text) = text else {
                return Err("Invalid JSON value: a JSON column takes JSON text in a string.".to_owned());
            };
            match serde_json::from_str::<Json>(text) {
                Ok(document) => Ok(Value::Text(document.to_string().into())),
                Err(wrong) => {
                    Err(format!("Invalid JSON text at line {}, column {}.", wrong.line(), wrong.column()))
                }
            }
        }
        // `Reader::scalar` takes records before this function sees them.
        Kind::Record(_) => Err("This field is not a record.".to_owned()),
    }
}

fn read_integer(value: &Json) -> Option<i64> {
    match value {
        Json::Number(number) => number.as_i64().or_else(|| number.as_f64().and_then(whole)),
        Json::String(text) => {
            let text = text.trim();
            text.parse().ok().or_else(|| text.parse().ok().and_then(whole))
        }
        _ => None,
    }
}

/// A float without a fraction as the integer it is; the bounds are the first floats beyond i64.
fn whole(float: f64) -> Option<i64> {
    const BEYOND: f64 = 9_223_372_036_854_775_808.0;
    #[allow(clippy::cast_possible_truncation, reason = "whole and in range by the condition before it")]
    let integer = (float.fract() == 0.0 && (-BEYOND..BEYOND).contains(&float)).then_some(float as i64);
    integer
}

fn read_float(value: &Json) -> Option<f64> {
    match value {
        Json::Number(number) => number.as_f64(),
        Json::String(text) => match text.trim().to_ascii_lowercase().as_str() {
            "nan" => Some(f64::NAN),
            "inf" | "+inf" | "infinity" | "+infinity" => Some(f64::INFINITY),
            "-inf" | "-infinity" => Some(f64::NEG_INFINITY),
            // Rust reads a number beyond f64 as infinite; such a text is out of range.
            number => number.parse().ok().filter(|float: &f64| float.is_finite()),
        },
        _ => None,
    }
}

fn read_epoch(number: &serde_json::Number) -> Option<i64> {
    match number.as_i64() {
        // Exact where the seconds are whole.
        Some(seconds) => temporal::from_whole_seconds(seconds),
        None => number.as_f64().and_then(temporal::from_seconds),
    }
}

fn read_string(value: &Json, longest: Option<usize>) -> Result<Value, String> {
    let text: Box<str> = match value {
        Json::String(text) => text.as_str().into(),
        Json::Number(number) => number.to_string().into(),
        Json::Bool(boolean) => boolean.to_string().into(),
        _ => return Err("This field is not a record.".to_owned()),
    };
    match longest {
        Some(longest) if text.chars().count() > longest => Err(format!(
            "Value has length {} which is longer than the maximum length {longest}.",
            text.chars().count()
        )),
        _ => Ok(Value::Text(text)),
    }
}

fn invalid(what: &str, value: &Json) -> String {
    format!("Could not parse '{}' as a {what}.", shown(value))
}

/// The value as BigQuery shows it in a message, cut to a bounded length.
fn shown(value: &Json) -> String {
    let text = match value {
        Json::String(text) => text.chars().take(SHOWN).collect(),
        Json::Object(_) | Json::Array(_) => String::new(),
        other => other.to_string(),
    };
    text.chars().take(SHOWN).collect()
}

#[cfg(test)]
mod tests {
    use super::super::column::parse_fields;
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn column(kind: &str) -> Vec<Column> {
        parse_fields(&json!([{"name": "x", "type": kind}])).unwrap()
    }

    fn read(kind: &str, value: &Json) -> Result<Value, String> {
        let Json::Object(row) = json!({"x": value}) else { unreachable!("it is an object") };
        accept_row(&column(kind), &row, false)
            .map(|mut row| row.remove(0))
            .map_err(|mut mismatches| mismatches.remove(0).message)
    }

    fn row(fields: &Json, row: &Json) -> Result<Row, Vec<(String, String)>> {
        let columns = parse_fields(fields).unwrap();
        let Json::Object(row) = row else { panic!("a row is an object") };
        accept_row(&columns, row, false).map_err(|mismatches| {
            mismatches.into_iter().map(|mismatch| (mismatch.location, mismatch.message)).collect()
        })
    }

    #[test]
    fn an_integer_comes_as_a_number_a_string_or_a_float_without_fraction() {
        for value in [json!(7), json!("7"), json!(7.0), json!("7.0"), json!(" 7 ")] {
            assert_eq!(read("INTEGER", &value), Ok(Value::Integer(7)), "{value}");
        }
        assert_eq!(read("INT64", &json!(i64::MIN)), Ok(Value::Integer(i64::MIN)));
        assert_eq!(read("INT64", &json!("9223372036854775807")), Ok(Value::Integer(i64::MAX)));
    }

    #[test]
    fn an_integer_beyond_i64_or_with_a_fraction_is_refused() {
        let values =
            [json!(u64::MAX), json!(7.5), json!("9223372036854775808"), json!(true), json!("NaN"), json!("")];
        for value in values {
            let refused = read("INTEGER", &value).expect_err(&value.to_string());
            assert!(refused.starts_with("Cannot convert value to integer (bad value)"), "{refused}");
        }
    }

    #[test]
    fn each_type_reads_its_forms() {
        assert_eq!(read("FLOAT", &json!("-Infinity")), Ok(Value::Float(f64::NEG_INFINITY)));
        assert!(matches!(read("FLOAT", &json!("NaN")), Ok(Value::Float(float)) if float.is_nan()));
        assert_eq!(read("FLOAT", &json!(1)), Ok(Value::Float(1.0)));
        assert!(read("FLOAT", &json!("1e999")).is_err());
        assert_eq!(read("NUMERIC", &json!("12.30")), Ok(Value::Text("12.3".into())));
        assert_eq!(read("NUMERIC", &json!(12.3)), Ok(Value::Text("12.3".into())));
        assert_eq!(read("BOOLEAN", &json!("TRUE")), Ok(Value::Bool(true)));
        assert!(read("BOOLEAN", &json!(1)).is_err());
        assert_eq!(read("STRING", &json!(5)), Ok(Value::Text("5".into())));
        assert_eq!(read("BYTES", &json!("aGk")), Ok(Value::Text("aGk=".into())));
        assert_eq!(read("BYTES", &json!("_-8=")), Ok(Value::Text("/+8=".into())));
        assert!(read("BYTES", &json!("!")).is_err());
        assert_eq!(read("DATE", &json!("1970-01-02")), Ok(Value::Date(1)));
        assert_eq!(read("TIME", &json!("00:00:01.5")), Ok(Value::Time(1_500_000)));
        assert_eq!(read("DATETIME", &json!("1970-01-01 00:00:01")), Ok(Value::DateTime(1_000_000)));
        assert_eq!(read("TIMESTAMP", &json!(1.5)), Ok(Value::Timestamp(1_500_000)));
        assert_eq!(
            read("TIMESTAMP", &json!(253_402_300_799_i64)),
            Ok(Value::Timestamp(253_402_300_799_000_000))
        );
        assert!(read("TIMESTAMP", &json!(253_402_300_800_i64)).is_err());
        assert_eq!(read("JSON", &json!("{\"a\": [1]}")), Ok(Value::Text("{\"a\":[1]}".into())));
        assert!(read("JSON", &json!("{")).is_err());
        assert!(read("JSON", &json!({"a": 1})).is_err());
    }

    #[test]
    fn a_row_says_everything_that_is_wrong_with_it() {
        let fields = json!([
            {"name": "id", "type": "INTEGER", "mode": "REQUIRED"},
            {"name": "who", "type": "RECORD", "fields": [{"name": "name", "type": "STRING", "mode": "REQUIRED"}]},
            {"name": "tags", "type": "STRING", "mode": "REPEATED"}
        ]);
        let refused =
            row(&fields, &json!({"who": {"nam": "x"}, "tags": ["a", null], "more": 1})).unwrap_err();
        let sentence = |place: &str, message: &str| (place.to_owned(), message.to_owned());
        assert_eq!(
            refused,
            vec![
                sentence("who.nam", "no such field: who.nam."),
                sentence("who.name", "Missing required field: who.name."),
                sentence("tags", "Only optional fields can be set to NULL. Field: tags; Value: NULL"),
                sentence("more", "no such field: more."),
                sentence("id", "Missing required field: id."),
            ]
        );
    }

    #[test]
    fn arrays_and_records_go_only_where_the_schema_has_them() {
        let fields = json!([{"name": "x", "type": "STRING"}]);
        assert_eq!(
            row(&fields, &json!({"x": ["a"]})).unwrap_err()[0].1,
            "Array specified for non-repeated field: x."
        );
        let fields = json!([{"name": "x", "type": "STRING", "mode": "REPEATED"}]);
        assert!(row(&fields, &json!({"x": "a"})).is_err());
        assert!(row(&fields, &json!({"x": null})).is_err());
        assert_eq!(row(&fields, &json!({})), Ok(vec![Value::List(vec![])]));
        let fields = json!([{"name": "x", "type": "RECORD", "fields": [{"name": "y", "type": "STRING"}]}]);
        assert_eq!(row(&fields, &json!({"x": "a"})).unwrap_err()[0].1, "This field: x is not a record.");
    }

    #[test]
    fn column_names_have_no_case_and_the_order_of_fields_does_not_matter() {
        let fields = json!([{"name": "Alpha", "type": "INTEGER"}, {"name": "beta", "type": "INTEGER"}]);
        let expected = vec![Value::Integer(1), Value::Integer(2)];
        assert_eq!(row(&fields, &json!({"BETA": 2, "alpha": 1})), Ok(expected));
    }

    fn any_json() -> impl Strategy<Value = Json> {
        let leaf = prop_oneof![
            Just(Json::Null),
            any::<bool>().prop_map(Json::from),
            any::<i64>().prop_map(Json::from),
            any::<u64>().prop_map(Json::from),
            any::<f64>().prop_map(Json::from),
            ".{0,20}".prop_map(Json::from),
            "[-0-9:.TZe+ ]{0,30}".prop_map(Json::from),
        ];
        leaf.prop_recursive(3, 12, 4, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Json::from),
                proptest::collection::btree_map("[xyz]", inner, 0..3)
                    .prop_map(|map| Json::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn no_json_makes_any_type_panic_and_what_is_stored_can_be_shown(value in any_json()) {
            let kinds = [
                "INTEGER", "FLOAT", "NUMERIC", "BIGNUMERIC", "BOOLEAN", "STRING", "BYTES", "DATE", "TIME", "DATETIME",
                "TIMESTAMP", "JSON",
            ];
            for kind in kinds {
                if let Ok(stored) = read(kind, &value) {
                    let shown = super::super::render::json(&stored, &column(kind)[0].kind);
                    let again = read(kind, &shown);
                    // What the server shows, it also takes, and takes for the same.
                    let same = match (&again, &stored) {
                        (Ok(Value::Float(a)), Value::Float(b)) => a.to_bits() == b.to_bits() || a.is_nan() && b.is_nan(),
                        (again, stored) => again.as_ref() == Ok(stored),
                    };
                    prop_assert!(same, "{} {} {:?}", kind, shown, again);
                }
            }
        }
    }
}
