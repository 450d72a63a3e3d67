//! Any JSON as a schema file: compiled, turned into columns, planned as a table; then used on a few records.

#![no_main]

use std::cell::RefCell;
use std::path::Path;

use bumpalo::Bump;
use libfuzzer_sys::{Corpus, fuzz_target};
use serde_json::{Value as Json, json};
use txconnect::stages::decode::{Format, decode};
use txconnect::stages::validate::Validator;
use txconnect_bigquery::BigQuerySink;
use txconnect_connector_api::schema::UnknownFields;
use txconnect_connector_api::{Encoded, Record, Sink, TableSchema, Value};
use txconnect_fuzz::server::Server;
use txconnect_fuzz::table::fields;

/// Larger schemas find nothing that smaller ones do not, only slower.
const MAX_BYTES: usize = 4 << 10;

/// Topics that one sink is asked for; it remembers each.
const MAX_TOPICS: usize = 1_000;

const RECORDS: [&str; 8] = [
    "{}",
    "null",
    r#"{"a":1,"b":"x","c":[],"d":null}"#,
    r#"{"a":"2026-11-23T12:30:00Z","b":1.50,"c":["x",1],"d":{"a":true}}"#,
    r#"{"a":{"a":{"a":{}}},"b":[[1,2],[1,2]],"c":-0.0,"d":"Zm9v"}"#,
    r#"{"id":"1c7a1a2e-6f0b-4a41-8d38-0c2c0a6f4b1d","a":12345678901234567890,"at":1700000000000}"#,
    r#"[1,1.0,"1",{"a":1}]"#,
    r#""text""#,
];

struct Stage {
    sink: BigQuerySink,
    server: Server,
    topics: usize,
}

thread_local! {
    static STAGE: RefCell<Stage> = RefCell::new(Stage { sink: sink(), server: Server::new(), topics: 0 });
}

fn sink() -> BigQuerySink {
    let config = json!({
        "project": "p", "dataset": "d", "credentials": "none", "endpoint": "http://localhost:1",
        "api": "insert_all",
    });
    let config = serde_json::from_value(config).expect("a right block");
    BigQuerySink::new(config, Path::new("."), &|_| None).expect("a sink")
}

impl Stage {
    /// A topic that the sink has not seen.
    fn topic(&mut self) -> String {
        self.topics += 1;
        if self.topics == MAX_TOPICS {
            *self = Stage { sink: sink(), server: Server::new(), topics: 0 };
        }
        format!("t{}", self.topics)
    }

    fn run(&mut self, schema: &Json) {
        let validator = Validator::compile(schema);
        let table = TableSchema::from_json_schema(schema, UnknownFields::Ignore);
        if let Err(mistakes) = &validator {
            assert!(!mistakes.is_empty());
        }
        if let Err(problems) = &table {
            assert!(!problems.is_empty());
        }
        let topic = self.topic();
        let mut encoder = None;
        if let Ok(table) = &table {
            let problems = self.sink.plan_problems(&topic, Some(table));
            encoder = self.sink.encoder(&topic, Some(table)).ok();
            assert_eq!(problems.is_empty(), encoder.is_some(), "{problems:?}");
            if encoder.is_some() {
                let (status, answer) = self.server.create_table(&topic, &fields(&table.columns));
                assert_eq!(status, 200, "the server refuses what was planned: {answer}");
            }
        }
        for text in RECORDS {
            let arena = Bump::new();
            let Ok(value @ Value::Json { document, .. }) =
                decode(Format::Json, Some(text.as_bytes()), &arena)
            else {
                panic!("{text} is JSON");
            };
            if let Ok(validator) = &validator {
                let _ = validator.validate(document);
            }
            let Some(encoder) = &mut encoder else { continue };
            let record = Record {
                topic: &topic,
                partition: 0,
                offset: 0,
                row: 0,
                timestamp: None,
                key: None,
                headers: &[],
                value,
            };
            let mut row = Vec::new();
            if encoder.encode(&record, &mut row) == Ok(Encoded::Row) {
                assert_eq!(row.pop(), Some(b','));
                serde_json::from_slice::<Json>(&row).expect("a row is JSON");
            }
        }
    }
}

fuzz_target!(|data: &[u8]| -> Corpus {
    if data.len() > MAX_BYTES {
        return Corpus::Reject;
    }
    let Ok(schema) = serde_json::from_slice::<Json>(data) else { return Corpus::Reject };
    STAGE.with_borrow_mut(|stage| stage.run(&schema));
    Corpus::Keep
});
