//! The records of the tests, good and bad.

use std::collections::BTreeMap;
use std::ops::Range;

use serde_json::{Map, Value as Json};

/// The schema of the tests' events. `id` becomes an INT64 column, whose range is narrower than JSON's integers.
pub(crate) const SCHEMA: &str = r#"{
    "type": "object",
    "properties": { "id": { "type": "integer" }, "note": { "type": "string" } },
    "required": ["id"],
    "additionalProperties": false
}"#;

/// A record to be sent, or one that was read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Event {
    pub(crate) key: Option<Vec<u8>>,
    pub(crate) value: Option<Vec<u8>>,
    pub(crate) headers: Vec<(String, Option<Vec<u8>>)>,
    /// Where it goes to or came from; `None` lets the key decide.
    pub(crate) partition: Option<i32>,
}

impl Event {
    pub(crate) fn of(value: impl Into<Vec<u8>>) -> Self {
        Self { value: Some(value.into()), ..Self::default() }
    }

    pub(crate) fn tombstone(key: &str) -> Self {
        Self { key: Some(key.into()), ..Self::default() }
    }

    pub(crate) fn key(self, key: impl Into<Vec<u8>>) -> Self {
        Self { key: Some(key.into()), ..self }
    }

    pub(crate) fn header(mut self, name: &str, value: Option<&[u8]>) -> Self {
        self.headers.push((name.to_owned(), value.map(<[u8]>::to_vec)));
        self
    }

    pub(crate) fn partition(self, partition: i32) -> Self {
        Self { partition: Some(partition), ..self }
    }

    /// The value of the last header of this name, as text.
    pub(crate) fn header_text(&self, name: &str) -> String {
        let found = self.headers.iter().rev().find(|(known, _)| known == name);
        let value = found.unwrap_or_else(|| panic!("no header {name} in {:?}", self.headers)).1.as_deref();
        String::from_utf8(value.unwrap_or_default().to_vec()).unwrap()
    }
}

/// A good event.
pub(crate) fn event(id: i64) -> Event {
    Event::of(format!("{{\"id\":{id},\"note\":\"event {id}\"}}"))
}

/// Good events, spread evenly over `partitions`.
pub(crate) fn events(numbers: Range<i64>, partitions: i32) -> Vec<Event> {
    numbers.map(|id| event(id).partition(i32::try_from(id % i64::from(partitions)).unwrap())).collect()
}

/// A bad record with the stage that finds it and the class it gets.
pub(crate) struct BadEvent {
    pub(crate) name: &'static str,
    pub(crate) event: Event,
    pub(crate) stage: &'static str,
    pub(crate) class: &'static str,
}

/// Every kind of bad record. Two of them are larger than what BigQuery and the broker usually take.
pub(crate) fn bad_events() -> Vec<BadEvent> {
    let bad = |name, value: Vec<u8>, stage, class| BadEvent { name, event: Event::of(value), stage, class };
    vec![
        bad("invalid-json", b"{\"id\": 1,".to_vec(), "decode", "decode.json"),
        bad("empty-value", Vec::new(), "decode", "decode.json"),
        bad("invalid-utf-8", b"{\"id\":1,\"note\":\"\xff\xfe\"}".to_vec(), "decode", "decode.utf8"),
        bad("duplicate-keys", b"{\"id\":1,\"id\":2}".to_vec(), "decode", "decode.duplicate_key"),
        bad("deep-nesting", nested(10_000), "decode", "decode.depth"),
        bad("number-beyond-doubles", b"{\"id\":1e999}".to_vec(), "decode", "decode.number"),
        bad("wrong-type", b"{\"id\":\"one\"}".to_vec(), "validate", "validate.type"),
        bad("missing-property", b"{\"note\":\"x\"}".to_vec(), "validate", "validate.required"),
        bad("integer-out-of-range", b"{\"id\":9223372036854775808}".to_vec(), "encode", ""),
        bad("ten-megabytes-of-noise", vec![b'x'; 10 << 20], "decode", "decode.json"),
        bad("ten-megabytes-row", large_event(10 << 20), "encode", ""),
    ]
}

fn nested(levels: usize) -> Vec<u8> {
    format!("{{\"id\":1,\"note\":{}{}}}", "[".repeat(levels), "]".repeat(levels)).into_bytes()
}

/// A valid event whose row is larger than `bytes`.
pub(crate) fn large_event(bytes: usize) -> Vec<u8> {
    format!("{{\"id\":7,\"note\":\"{}\"}}", "n".repeat(bytes)).into_bytes()
}

/// How often each id is among the rows.
pub(crate) fn ids(rows: &[Map<String, Json>]) -> BTreeMap<i64, usize> {
    let mut counts = BTreeMap::new();
    for row in rows {
        let id = row["id"].as_i64().unwrap();
        if let Some(note) = row["note"].as_str() {
            assert_eq!(note, format!("event {id}"), "columns of different records are in one row");
        }
        *counts.entry(id).or_default() += 1;
    }
    counts
}

/// Each number once: what [`ids`] gives where nothing is lost and nothing doubled.
pub(crate) fn numbers(numbers: impl IntoIterator<Item = i64>) -> BTreeMap<i64, usize> {
    numbers.into_iter().map(|number| (number, 1)).collect()
}
