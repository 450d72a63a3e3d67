//! Record → one line of JSON.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use txconnect_connector_api::document::write_json_string;
use txconnect_connector_api::{BadRecord, Encoded, Encoder, Record, Value};

/// Writes records as lines.
pub(crate) struct LineEncoder {
    envelope: bool,
    base64: String,
}

impl LineEncoder {
    pub(crate) fn new(envelope: bool) -> Self {
        Self { envelope, base64: String::new() }
    }

    fn write_value(&mut self, value: &Value<'_>, out: &mut Vec<u8>) {
        match value {
            Value::Tombstone => out.extend_from_slice(b"null"),
            // In JSON a line break can only stand between tokens.
            Value::Json { text, document } if text.contains('\n') => document.write_json(out),
            Value::Json { text, .. } => out.extend_from_slice(text.as_bytes()),
            Value::Text(text) => write_json_string(text, out),
            Value::Bytes(bytes) => self.write_base64(bytes, out),
        }
    }

    fn write_base64(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        self.base64.clear();
        STANDARD.encode_string(bytes, &mut self.base64);
        out.push(b'"');
        out.extend_from_slice(self.base64.as_bytes());
        out.push(b'"');
    }

    /// UTF-8 as a string, other bytes as `{"base64":"…"}`.
    fn write_bytes(&mut self, bytes: Option<&[u8]>, out: &mut Vec<u8>) {
        match bytes.map(|bytes| (bytes, std::str::from_utf8(bytes))) {
            None => out.extend_from_slice(b"null"),
            Some((_, Ok(text))) => write_json_string(text, out),
            Some((bytes, Err(_))) => {
                out.extend_from_slice(br#"{"base64":"#);
                self.write_base64(bytes, out);
                out.push(b'}');
            }
        }
    }

    fn write_envelope(&mut self, record: &Record<'_>, out: &mut Vec<u8>) {
        let mut digits = itoa::Buffer::new();
        out.extend_from_slice(br#"{"topic":"#);
        write_json_string(record.topic, out);
        out.extend_from_slice(br#","partition":"#);
        out.extend_from_slice(digits.format(record.partition).as_bytes());
        out.extend_from_slice(br#","offset":"#);
        out.extend_from_slice(digits.format(record.offset).as_bytes());
        if record.row > 0 {
            out.extend_from_slice(br#","row":"#);
            out.extend_from_slice(digits.format(record.row).as_bytes());
        }
        out.extend_from_slice(br#","timestamp":"#);
        match record.timestamp {
            Some(timestamp) => out.extend_from_slice(digits.format(timestamp).as_bytes()),
            None => out.extend_from_slice(b"null"),
        }
        out.extend_from_slice(br#","key":"#);
        self.write_bytes(record.key, out);
        if !record.headers.is_empty() {
            out.extend_from_slice(br#","headers":"#);
            for (index, header) in record.headers.iter().enumerate() {
                out.extend_from_slice(if index == 0 { br#"[{"name":"# } else { br#",{"name":"# });
                write_json_string(header.name, out);
                out.extend_from_slice(br#","value":"#);
                self.write_bytes(header.value, out);
                out.push(b'}');
            }
            out.push(b']');
        }
        out.extend_from_slice(br#","value":"#);
        self.write_value(&record.value, out);
        out.push(b'}');
    }
}

impl Encoder for LineEncoder {
    fn encode(&mut self, record: &Record<'_>, out: &mut Vec<u8>) -> Result<Encoded, BadRecord> {
        if self.envelope {
            self.write_envelope(record, out);
        } else {
            self.write_value(&record.value, out);
        }
        out.push(b'\n');
        Ok(Encoded::Row)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::{Value as Json, json};
    use txconnect_connector_api::{Document, Header};

    fn record<'a>(key: Option<&'a [u8]>, headers: &'a [Header<'a>], value: Value<'a>) -> Record<'a> {
        Record {
            topic: "shop.\"orders\"",
            partition: 2,
            offset: 41,
            row: 0,
            timestamp: Some(1_700_000_000_000),
            key,
            headers,
            value,
        }
    }

    fn line(envelope: bool, record: &Record<'_>) -> String {
        let mut out = Vec::new();
        assert_eq!(LineEncoder::new(envelope).encode(record, &mut out), Ok(Encoded::Row));
        assert_eq!(out.pop(), Some(b'\n'));
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_json_text_on_one_line_passes_through_untouched() {
        let text = r#"{ "a":1.50,  "b" : "\u00e4" }"#;
        assert_eq!(line(false, &record(None, &[], Value::Json { text, document: &Document::Null })), text);
    }

    #[test]
    fn a_json_text_over_several_lines_is_put_on_one() {
        let elements = [Document::Bool(true), Document::String("x\ny")];
        let value = Value::Json { text: "[ true,\n \"x\\ny\" ]", document: &Document::Array(&elements) };
        assert_eq!(line(false, &record(None, &[], value)), r#"[true,"x\ny"]"#);
    }

    #[test]
    fn text_bytes_and_nothing_are_json_too() {
        assert_eq!(line(false, &record(None, &[], Value::Text("a\n\"b\""))), r#""a\n\"b\"""#);
        assert_eq!(line(false, &record(None, &[], Value::Bytes(b"ABC"))), r#""QUJD""#);
        assert_eq!(line(false, &record(None, &[], Value::Tombstone)), "null");
    }

    #[test]
    fn the_envelope_says_where_a_record_came_from() {
        let headers = [
            Header { name: "trace", value: Some(b"abc") },
            Header { name: "raw", value: Some(b"\xff") },
            Header { name: "none", value: None },
        ];
        let full = line(true, &record(Some(b"\xff"), &headers, Value::Text("v")));
        assert_eq!(
            serde_json::from_str::<Json>(&full).unwrap(),
            json!({
                "topic": "shop.\"orders\"", "partition": 2, "offset": 41, "timestamp": 1_700_000_000_000_i64,
                "key": { "base64": "/w==" },
                "headers": [
                    { "name": "trace", "value": "abc" },
                    { "name": "raw", "value": { "base64": "/w==" } },
                    { "name": "none", "value": null }
                ],
                "value": "v"
            })
        );
        let bare = Record { timestamp: None, ..record(None, &[], Value::Tombstone) };
        assert_eq!(
            line(true, &bare),
            r#"{"topic":"shop.\"orders\"","partition":2,"offset":41,"timestamp":null,"key":null,"value":null}"#
        );
        let further = Record { row: 2, ..bare };
        assert_eq!(
            line(true, &further),
            r#"{"topic":"shop.\"orders\"","partition":2,"offset":41,"row":2,"timestamp":null,"key":null,"value":null}"#
        );
        assert_eq!(line(false, &further), "null");
    }

    proptest! {
        #[test]
        fn every_record_is_one_line_of_json(
            key in prop::option::of(prop::collection::vec(any::<u8>(), 0..9)), text in any::<String>(), envelope in any::<bool>()
        ) {
            let line = line(envelope, &record(key.as_deref(), &[], Value::Text(&text)));
            prop_assert!(!line.contains('\n'));
            let json: Json = serde_json::from_str(&line).unwrap();
            prop_assert_eq!(if envelope { &json["value"] } else { &json }, &json!(text));
        }
    }
}
