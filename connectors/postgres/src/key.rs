//! The key of a record → the key columns of a row that is deleted.

use sonic_rs::{JsonType, JsonValueTrait, LazyValue};
use txconnect_connector_api::{BadRecord, Document, Number};

use crate::config::KeyDecode;
use crate::numeric;

/// A record's key, read but for its values.
pub(crate) enum RecordKey<'a> {
    /// Text for the only column.
    Text(&'a str),
    /// A JSON value for the only column.
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
        match decode {
            KeyDecode::String => Ok(Self::Text(text)),
            KeyDecode::Json => {
                let value: LazyValue<'a> = sonic_rs::from_str(text).map_err(|_| {
                    bad("the record's key is not JSON (`key_decode: string` takes plain text)")
                })?;
                Ok(if value.get_type() == JsonType::Object {
                    Self::Fields(value)
                } else {
                    Self::Single(value)
                })
            }
        }
    }

    /// Gives `use_it` the value for the column that `property` fills. `only`: the key is this one column.
    pub(crate) fn with_field<T>(
        &self,
        property: &str,
        only: bool,
        use_it: impl FnOnce(KeyValue<'_>) -> Result<T, BadRecord>,
    ) -> Result<T, BadRecord> {
        match self {
            Self::Text(text) if only => use_it(KeyValue::Text(text)),
            Self::Single(value) if only => use_it(KeyValue::Json(document(value)?)),
            Self::Text(_) | Self::Single(_) => {
                Err(bad("the record's key is one value, and the table's key has several columns"))
            }
            Self::Fields(value) => {
                let field = value.get(property).ok_or_else(|| {
                    bad("the record's key lacks a field of the table's key, or is no object of them")
                })?;
                use_it(KeyValue::Json(document(&field)?))
            }
        }
    }
}

/// One value of a key.
pub(crate) enum KeyValue<'a> {
    /// Text that stands for a value of the column's type.
    Text(&'a str),
    /// A JSON value; neither null nor a container.
    Json(Document<'a>),
}

fn document<'a>(value: &'a LazyValue<'_>) -> Result<Document<'a>, BadRecord> {
    let raw = value.as_raw_str();
    match value.get_type() {
        JsonType::Boolean => Ok(Document::Bool(raw == "true")),
        JsonType::Number if numeric::is_number(raw) => Ok(Document::Number(Number::from_literal(raw))),
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

fn bad(message: &str) -> BadRecord {
    BadRecord::new("encode.key", "", message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The value for the column `id`, as JSON text.
    fn id(key: &[u8], decode: KeyDecode, only: bool) -> Result<String, String> {
        let read = |key: &RecordKey<'_>| {
            key.with_field("id", only, |value| {
                let mut out = Vec::new();
                match value {
                    KeyValue::Text(text) => Document::String(text).write_json(&mut out),
                    KeyValue::Json(document) => document.write_json(&mut out),
                }
                Ok(String::from_utf8(out).unwrap())
            })
        };
        RecordKey::read(Some(key), decode).and_then(|key| read(&key)).map_err(|bad| bad.message)
    }

    #[test]
    fn a_key_is_a_value_or_an_object_of_them() {
        for (key, decode, value) in [
            (
                &br#" {"other": [1], "id": 12345678901234567890.5} "#[..],
                KeyDecode::Json,
                "12345678901234567890.5",
            ),
            (br#"{"\u0069d": "a\nb"}"#, KeyDecode::Json, r#""a\nb""#),
            (br#""plain""#, KeyDecode::Json, r#""plain""#),
            (br#""\u00e9\"""#, KeyDecode::Json, r#""é\"""#),
            (b"-7", KeyDecode::Json, "-7"),
            (b"true", KeyDecode::Json, "true"),
            (b"{\"id\": 1}", KeyDecode::String, r#""{\"id\": 1}""#),
            (b"", KeyDecode::String, r#""""#),
        ] {
            assert_eq!(id(key, decode, true).as_deref(), Ok(value), "{}", String::from_utf8_lossy(key));
        }
        assert_eq!(id(br#"{"id": 1, "b": 2}"#, KeyDecode::Json, false).as_deref(), Ok("1"));
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
            let message = id(key, KeyDecode::Json, true).unwrap_err();
            assert!(message.contains("key") && !message.contains("hunter2"), "{message}");
        }
        assert!(id(b"7", KeyDecode::Json, false).is_err());
        assert!(id(b"7", KeyDecode::String, false).is_err());
        assert!(RecordKey::read(None, KeyDecode::Json).is_err());
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_reader_panic(
            bytes in prop::collection::vec(any::<u8>(), 0..40), likely in r#"[{}\[\]":,id0-9eE.\\u+ -]{0,24}"#
        ) {
            for key in [&bytes[..], likely.as_bytes()] {
                for decode in [KeyDecode::Json, KeyDecode::String] {
                    let _ = id(key, decode, true);
                }
            }
        }

        #[test]
        fn json_that_is_written_is_read_alike(text in any::<String>(), number in any::<i64>()) {
            let key = serde_json::json!({ "a": number, "id": text }).to_string();
            let read: String = serde_json::from_str(&id(key.as_bytes(), KeyDecode::Json, false).unwrap()).unwrap();
            prop_assert_eq!(read, text);
        }
    }
}
