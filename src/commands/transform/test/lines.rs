//! Lines of a file to records, rows to lines.

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Value, json};
use sonic_rs::LazyValue;

use super::super::super::CommandError;
use super::passes::{Outcome, OutputRow};
use crate::publish::input::is_topic_name;

/// A record as a line tells it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TestRecord {
    /// The line of the file, from 1.
    pub(super) line: usize,
    pub(super) topic: String,
    pub(super) partition: i32,
    pub(super) offset: i64,
    pub(super) timestamp: Option<i64>,
    pub(super) key: Option<Vec<u8>>,
    pub(super) headers: Vec<(String, Option<Vec<u8>>)>,
    pub(super) value: Option<Vec<u8>>,
}

/// A row as a line, or a failure.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Line {
    /// The line of the input that it comes from.
    pub(super) from: usize,
    /// One line of JSON.
    pub(super) text: String,
    /// Whether it stands for a record that failed.
    pub(super) failed: bool,
}

/// A record with everything around its value. The value stays as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Envelope<'e> {
    topic: Option<String>,
    partition: Option<i32>,
    offset: Option<i64>,
    timestamp: Option<i64>,
    key: Option<Bytes>,
    #[serde(default)]
    headers: Vec<Header>,
    #[serde(borrow)]
    value: Option<LazyValue<'e>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    name: String,
    value: Option<Bytes>,
}

/// Text, or other bytes as base64.
#[derive(Deserialize)]
#[serde(untagged)]
enum Bytes {
    Text(String),
    Base64(Base64),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Base64 {
    base64: String,
}

impl Base64 {
    fn decode(&self) -> Result<Vec<u8>, String> {
        STANDARD.decode(&self.base64).map_err(|error| format!("this is not base64: {error}"))
    }
}

impl Bytes {
    fn into_vec(self) -> Result<Vec<u8>, String> {
        match self {
            Self::Text(text) => Ok(text.into_bytes()),
            Self::Base64(base64) => base64.decode(),
        }
    }
}

/// The records of a text, one in a line; empty lines are none. `file` is named in complaints.
pub(super) fn records(
    text: &str,
    file: &Path,
    topic: &str,
    envelope: bool,
) -> Result<Vec<TestRecord>, CommandError> {
    let mut records = Vec::new();
    for (index, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let offset = i64::try_from(records.len()).unwrap_or(i64::MAX);
        let plain = TestRecord {
            line: index + 1,
            topic: topic.to_owned(),
            partition: 0,
            offset,
            timestamp: None,
            key: None,
            headers: Vec::new(),
            value: None,
        };
        let read = is_json(line).and_then(|()| {
            if envelope {
                from_envelope(line, plain)
            } else {
                Ok(TestRecord { value: Some(line.trim().into()), ..plain })
            }
        });
        records.push(
            read.map_err(|why| CommandError::Usage(format!("{}:{}: {why}", file.display(), index + 1)))?,
        );
    }
    Ok(records)
}

/// Whether a line is one JSON value, nested no deeper than a parser likes it.
pub(super) fn is_json(line: &str) -> Result<(), String> {
    serde_json::from_str::<IgnoredAny>(line).map(|_| ()).map_err(|error| {
        // The line is told already.
        let words = error.to_string();
        let words = words.rsplit_once(" at line ").map_or(words.as_str(), |(words, _)| words);
        format!("this is not one JSON value: {words} at column {}", error.column())
    })
}

fn from_envelope(line: &str, plain: TestRecord) -> Result<TestRecord, String> {
    let envelope: Envelope<'_> = sonic_rs::from_str(line).map_err(|_| {
        "this is no record: an object with any of `topic`, `partition`, `offset`, `timestamp`, `key`, `headers` (a list of \
         `{\"name\": …, \"value\": …}`) and `value`"
            .to_owned()
    })?;
    if let Some(topic) = envelope.topic.as_deref().filter(|topic| !is_topic_name(topic)) {
        return Err(format!("`{topic}` is no topic name"));
    }
    let headers = envelope.headers.into_iter().map(|header| {
        let value = header.value.map(Bytes::into_vec).transpose()?;
        Ok((header.name, value))
    });
    let value = match envelope.value.as_ref().map(LazyValue::as_raw_str) {
        None | Some("null") => None,
        Some(text) => match serde_json::from_str::<Base64>(text) {
            Ok(base64) => Some(base64.decode()?),
            Err(_) => Some(text.into()),
        },
    };
    Ok(TestRecord {
        topic: envelope.topic.unwrap_or(plain.topic),
        partition: envelope.partition.unwrap_or(plain.partition),
        offset: envelope.offset.unwrap_or(plain.offset),
        timestamp: envelope.timestamp,
        key: envelope.key.map(Bytes::into_vec).transpose()?,
        headers: headers.collect::<Result<_, String>>()?,
        value,
        line: plain.line,
    })
}

/// All outcomes as lines, in the order of the records.
pub(super) fn rows(records: &[TestRecord], outcomes: &[Outcome], envelope: bool) -> Vec<Line> {
    let mut lines = Vec::new();
    for (record, outcome) in records.iter().zip(outcomes) {
        let from = record.line;
        match outcome {
            Outcome::Failed(failure) => {
                lines.push(Line { from, text: json!({ "failed": failure.code }).to_string(), failed: true });
            }
            Outcome::Rows(rows) => lines.extend(rows.iter().map(|row| Line {
                from,
                text: if envelope { in_envelope(record, row) } else { value_text(value_of(record, row)) },
                failed: false,
            })),
        }
    }
    lines
}

/// Lines as the text of a file.
pub(super) fn as_text<'l>(lines: impl Iterator<Item = &'l Line>) -> String {
    let mut text = String::new();
    for line in lines {
        text.push_str(&line.text);
        text.push('\n');
    }
    text
}

fn value_of<'r>(record: &'r TestRecord, row: &'r OutputRow) -> Option<&'r [u8]> {
    row.value.or(record.value.as_deref())
}

/// JSON as it is, on one line; anything else as base64.
fn value_text(value: Option<&[u8]>) -> String {
    let Some(bytes) = value else { return "null".to_owned() };
    let text = std::str::from_utf8(bytes).ok().filter(|text| is_json(text).is_ok());
    match text {
        // In JSON a line break can only stand between tokens.
        Some(text) => text.trim().replace(['\n', '\r'], " "),
        None => base64_of(bytes).to_string(),
    }
}

fn base64_of(bytes: &[u8]) -> Value {
    json!({ "base64": STANDARD.encode(bytes) })
}

fn bytes_text(bytes: Option<&[u8]>) -> Value {
    match bytes.map(|bytes| (bytes, std::str::from_utf8(bytes))) {
        None => Value::Null,
        Some((_, Ok(text))) => text.into(),
        Some((bytes, Err(_))) => base64_of(bytes),
    }
}

fn in_envelope(record: &TestRecord, row: &OutputRow) -> String {
    let key = row.key.or(record.key.as_deref());
    let headers = row.headers.as_ref().unwrap_or(&record.headers);
    let mut text = format!(
        r#"{{"topic":{},"key":{}"#,
        json!(row.topic.as_ref().unwrap_or(&record.topic)),
        bytes_text(key)
    );
    if !headers.is_empty() {
        let headers: Vec<Value> = headers
            .iter()
            .map(|(name, value)| json!({ "name": name, "value": bytes_text(value.as_deref()) }))
            .collect();
        text.push_str(r#","headers":"#);
        text.push_str(&Value::Array(headers).to_string());
    }
    text.push_str(r#","value":"#);
    text.push_str(&value_text(value_of(record, row)));
    text.push('}');
    text
}

#[cfg(test)]
mod tests {
    use super::super::passes::Part;
    use super::*;

    fn read(text: &str, envelope: bool) -> Result<Vec<TestRecord>, String> {
        records(text, Path::new("in.ndjson"), "t", envelope).map_err(|error| error.to_string())
    }

    #[test]
    fn a_bare_line_is_the_value_as_it_is_written() {
        let read = read("{\"a\": 1.50}\n\n null \n", false).unwrap();
        let values: Vec<_> = read
            .iter()
            .map(|record| (record.line, record.offset, record.value.as_deref().unwrap()))
            .collect();
        assert_eq!(values, [(1, 0, &b"{\"a\": 1.50}"[..]), (3, 1, b"null")]);
    }

    #[test]
    fn an_envelope_holds_a_whole_record() {
        let line = r#"{"topic":"u","partition":3,"offset":9,"timestamp":7,"key":{"base64":"/w=="},"headers":[{"name":"h","value":"x"},{"name":"n","value":null}],"value":{"a":12345678901234567890.10}}"#;
        let record = read(line, true).unwrap().remove(0);
        assert_eq!((record.topic.as_str(), record.partition, record.offset), ("u", 3, 9));
        assert_eq!((record.timestamp, record.key), (Some(7), Some(vec![0xff])));
        assert_eq!(record.headers, [("h".to_owned(), Some(b"x".to_vec())), ("n".to_owned(), None)]);
        assert_eq!(record.value.as_deref(), Some(&b"{\"a\":12345678901234567890.10}"[..]));
        let others = read("{}\n{\"value\":null}\n{\"value\":{\"base64\":\"QUI=\"}}\n", true).unwrap();
        let values: Vec<_> = others.iter().map(|record| record.value.as_deref()).collect();
        assert_eq!(values, [None, None, Some(&b"AB"[..])]);
    }

    #[test]
    fn wrong_lines_are_told_with_their_place() {
        for (text, envelope, place) in [
            ("1\n{\n", false, "in.ndjson:2: this is not one JSON value: "),
            ("1 2", false, "in.ndjson:1: this is not one JSON value: trailing characters at column 3"),
            ("[1]", true, "in.ndjson:1: this is no record"),
            ("{\"values\":1}", true, "in.ndjson:1: this is no record"),
            ("{\"topic\":\"a b\"}", true, "in.ndjson:1: `a b` is no topic name"),
            ("{\"key\":{\"base64\":\"!\"}}", true, "in.ndjson:1: this is not base64"),
        ] {
            let error = read(text, envelope).unwrap_err();
            assert!(error.starts_with(place), "{error}");
        }
    }

    #[test]
    fn rows_keep_what_the_transform_has_not_given() {
        let records =
            read(r#"{"key":"k","headers":[{"name":"h","value":"x"}],"value":{"a":1}}"#, true).unwrap();
        let kept = OutputRow { topic: None, key: Part::Kept, value: Part::Kept, headers: None };
        let changed = OutputRow {
            topic: Some("u".into()),
            key: Part::Given(None),
            value: Part::Given(Some(b"{\n\"b\":2}".to_vec())),
            headers: Some(Vec::new()),
        };
        let bytes = OutputRow {
            value: Part::Given(Some(b"\xff".to_vec())),
            topic: None,
            key: Part::Kept,
            headers: Some(Vec::new()),
        };
        let outcomes = [Outcome::Rows(vec![kept, changed, bytes])];
        let text = |envelope| -> Vec<String> {
            rows(&records, &outcomes, envelope).into_iter().map(|line| line.text).collect()
        };
        assert_eq!(text(false), [r#"{"a":1}"#, r#"{ "b":2}"#, r#"{"base64":"/w=="}"#]);
        assert_eq!(
            text(true),
            [
                r#"{"topic":"t","key":"k","headers":[{"name":"h","value":"x"}],"value":{"a":1}}"#,
                r#"{"topic":"u","key":null,"value":{ "b":2}}"#,
                r#"{"topic":"t","key":"k","value":{"base64":"/w=="}}"#,
            ]
        );
    }
}
