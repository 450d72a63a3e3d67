//! The key of a record → the key columns of a row that is deleted.

use sonic_rs::{JsonType, JsonValueTrait, LazyValue};
use txconnect_connector_api::{BadRecord, Document, Number};

use crate::config::KeyDecode;
use crate::decimal;
use crate::record::ValuePlan;

/// A record's key, read but for its values.
pub(crate) enum RecordKey<'a> {
    /// Text for the only column.
    Text(&'a str),
    /// A JSON value that is no object, for the only column.
    Single(LazyValue<'a>),
    /// An object with the fields of the key.
    Fields(LazyValue<'a>),
}

impl<'a> RecordKey<'a> {
    /// Reads the key of a record.
    pub(crate) fn read(key: Option<&'a [u8]>, decode: KeyDecode) -> Result<Self, BadRecord> {
        let Some(key) = key else {
            return Err(bad("the record has neither a value nor a key, so no row can be deleted"));
        };
        let text = std::str::from_utf8(key).map_err(|_| bad("the record's key is not UTF-8"))?;
        if decode == KeyDecode::String {
            return Ok(Self::Text(text));
        }
        let value: LazyValue<'a> = sonic_rs::from_str(text)
            .map_err(|_| bad("the record's key is not JSON (`key_decode: string` takes plain text)"))?;
        Ok(match value.get_type() {
            JsonType::Object => Self::Fields(value),
            _ => Self::Single(value),
        })
    }

    /// Gives `use_it` the value for a column of the key, which `property` fills. `only`: the key has no other column.
    pub(crate) fn with_value<K>(
        &self,
        property: &str,
        plan: &ValuePlan<K>,
        only: bool,
        use_it: impl FnOnce(&Document<'_>) -> Result<(), BadRecord>,
    ) -> Result<(), BadRecord> {
        let used = match self {
            Self::Text(text) if only => use_it(&of_text(text, plan)),
            Self::Single(value) if only => use_it(&document(value)?),
            Self::Text(_) | Self::Single(_) => {
                return Err(bad("the record's key is one value, and the table's key has several columns"));
            }
            Self::Fields(value) => {
                let field = value.get(property).ok_or_else(|| {
                    bad("the record's key lacks a field of the table's key, or is no object of them")
                })?;
                use_it(&document(&field)?)
            }
        };
        used.map_err(|why| bad(&format!("the record's key does not give the column: {}", why.message)))
    }
}

/// What text stands for in a column.
fn of_text<'a, K>(text: &'a str, plan: &ValuePlan<K>) -> Document<'a> {
    match plan {
        ValuePlan::Boolean if text == "true" || text == "false" => Document::Bool(text == "true"),
        ValuePlan::Integer | ValuePlan::Epoch(_) if is_number(text) => {
            Document::Number(Number::from_literal(text))
        }
        _ => Document::String(text),
    }
}

fn document<'a>(value: &'a LazyValue<'_>) -> Result<Document<'a>, BadRecord> {
    let raw = value.as_raw_str();
    match value.get_type() {
        JsonType::Boolean => Ok(Document::Bool(raw == "true")),
        JsonType::Number if is_number(raw) => Ok(Document::Number(Number::from_literal(raw))),
        JsonType::Number => Err(bad("the record's key holds a number that no double reaches")),
        JsonType::String => value
            .as_str()
            .map(Document::String)
            .ok_or_else(|| bad("the record's key holds a string with escapes that are none")),
        JsonType::Null => Err(bad("the record's key holds a null, which is no key")),
        JsonType::Array | JsonType::Object => {
            Err(bad("the record's key holds an array or object where a single value belongs"))
        }
    }
}

/// Whether text is what [`Number::from_literal`] takes.
fn is_number(text: &str) -> bool {
    decimal::is_json_number(text) && text.parse::<f64>().is_ok_and(f64::is_finite)
}

fn bad(message: &str) -> BadRecord {
    BadRecord::new("encode.key", "", message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The value for the column `id`, as JSON text.
    fn id(key: Option<&[u8]>, plan: &ValuePlan<()>, decode: KeyDecode, only: bool) -> Result<String, String> {
        let mut out = Vec::new();
        RecordKey::read(key, decode)
            .and_then(|key| {
                key.with_value("id", plan, only, |value| {
                    value.write_json(&mut out);
                    Ok(())
                })
            })
            .map_err(|bad| bad.message)?;
        Ok(String::from_utf8(out).unwrap())
    }

    #[test]
    fn a_key_is_a_value_or_an_object_of_them() {
        use KeyDecode::{Json, String};
        for (key, plan, decode, value) in [
            (
                r#" {"other": [1], "id": 12345678901234567890.5} "#,
                ValuePlan::Integer,
                Json,
                "12345678901234567890.5",
            ),
            (r#"{"\u0069d": "a\nb"}"#, ValuePlan::Text, Json, r#""a\nb""#),
            (r#""plain""#, ValuePlan::Text, Json, r#""plain""#),
            ("-7", ValuePlan::Integer, Json, "-7"),
            ("true", ValuePlan::Boolean, Json, "true"),
            (r#"{"id": 1}"#, ValuePlan::Text, String, r#""{\"id\": 1}""#),
            ("", ValuePlan::Text, String, r#""""#),
            ("17", ValuePlan::Text, String, r#""17""#),
            ("17", ValuePlan::Integer, String, "17"),
            ("017", ValuePlan::Integer, String, r#""017""#),
            ("false", ValuePlan::Boolean, String, "false"),
            ("1.50", ValuePlan::Numeric { whole: 2, scale: 2 }, String, r#""1.50""#),
        ] {
            assert_eq!(id(Some(key.as_bytes()), &plan, decode, true).as_deref(), Ok(value), "{key}");
        }
        let of_two = id(Some(br#"{"id": 1, "b": 2}"#), &ValuePlan::Integer, Json, false);
        assert_eq!(of_two.as_deref(), Ok("1"));
    }

    #[test]
    fn keys_that_name_no_row_are_bad_and_never_shown() {
        for key in [
            &b"hunter2"[..],
            b"",
            b"{\"id\": 1",
            b"{\"id\": 1} hunter2",
            b"{\"id\": 1e999}",
            b"{\"id\": \"hunter2\xff\"}",
            b"{\"id\": \"\\ud800\"}",
            b"{\"id\": null}",
            b"{\"id\": [\"hunter2\"]}",
            b"{\"hunter2\": 1}",
            b"null",
            b"[1]",
        ] {
            let message = id(Some(key), &ValuePlan::Text, KeyDecode::Json, true).unwrap_err();
            assert!(message.contains("key") && !message.contains("hunter2"), "{message}");
        }
        for decode in [KeyDecode::Json, KeyDecode::String] {
            assert!(id(Some(b"7"), &ValuePlan::Integer, decode, false).is_err());
            assert!(id(None, &ValuePlan::Integer, decode, true).is_err());
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_reader_panic(
            bytes in prop::collection::vec(any::<u8>(), 0..40), likely in r#"[{}\[\]":,id0-9eE.\\u+ -]{0,24}"#
        ) {
            for key in [&bytes[..], likely.as_bytes()] {
                for decode in [KeyDecode::Json, KeyDecode::String] {
                    let _ = id(Some(key), &ValuePlan::Integer, decode, true);
                }
            }
        }

        #[test]
        fn json_that_is_written_is_read_alike(text in any::<String>(), number in any::<i64>()) {
            let key = serde_json::json!({ "a": number, "id": text }).to_string();
            let read = id(Some(key.as_bytes()), &ValuePlan::Text, KeyDecode::Json, false).unwrap();
            prop_assert_eq!(serde_json::from_str::<String>(&read).unwrap(), text);
        }
    }
}
