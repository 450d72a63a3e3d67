//! Any document through the validator and the `insertAll` encoder of a fixed schema. A row that is written must be JSON,
//! and a server must take it. The first byte chooses the schema and the settings, the rest is the record's value.

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
use txconnect_connector_api::{Encoded, Encoder, Record, Sink, TableSchema, Value};
use txconnect_fuzz::server::{DATASET, Server};
use txconnect_fuzz::table::fields;

const SCHEMAS: [&str; 5] = [
    include_str!("../schemas/every-kind.json"),
    include_str!("../../schemas/cash_ins.json"),
    include_str!("../../schemas/cash_outs_created.json"),
    include_str!("../../schemas/cash_outs_processed.json"),
    include_str!("../../schemas/cash_outs_refunded.json"),
];

struct Case {
    validator: Validator,
    encoder: Box<dyn Encoder>,
    fields: Json,
}

struct Stage {
    cases: Vec<Case>,
    server: Server,
    /// Rows in the server's tables.
    rows: u32,
}

/// So many rows are kept before the server starts afresh.
const MAX_ROWS: u32 = 2_000;

thread_local! {
    static STAGE: RefCell<Stage> = RefCell::new(Stage::new());
}

impl Stage {
    fn new() -> Self {
        let mut cases = Vec::new();
        for (unknown_fields, finer_times) in
            [(UnknownFields::DeadLetter, "bad_record"), (UnknownFields::Ignore, "truncate")]
        {
            let config = json!({
                "project": "p", "dataset": "d", "credentials": "none", "endpoint": "http://localhost:1",
                "api": "insert_all", "finer_times": finer_times,
            });
            let config = serde_json::from_value(config).expect("a right block");
            let sink = BigQuerySink::new(config, Path::new("."), &|_| None).expect("a sink");
            for (number, text) in SCHEMAS.iter().enumerate() {
                let schema: Json = serde_json::from_str(text).expect("a schema is JSON");
                let table = TableSchema::from_json_schema(&schema, unknown_fields).expect("a table");
                cases.push(Case {
                    validator: Validator::compile(&schema).ok().expect("a right schema"),
                    encoder: sink.encoder(&format!("topic{number}"), Some(&table)).expect("an encoder"),
                    fields: fields(&table.columns),
                });
            }
        }
        let mut stage = Self { cases, server: Server::new(), rows: 0 };
        stage.start_afresh();
        stage
    }

    fn start_afresh(&mut self) {
        self.server.forget();
        self.rows = 0;
        for (number, case) in self.cases.iter().enumerate() {
            let (status, answer) = self.server.create_table(&format!("t{number}"), &case.fields);
            assert_eq!(status, 200, "{answer}");
        }
    }

    fn run(&mut self, number: usize, payload: &[u8]) {
        let arena = Bump::new();
        let Ok(value @ Value::Json { document, .. }) = decode(Format::Json, Some(payload), &arena) else {
            return;
        };
        let case = &mut self.cases[number];
        if let Err(bad) = case.validator.validate(document) {
            assert!(bad.class.starts_with("validate."), "{bad}");
        }
        let record = Record {
            topic: "topic",
            partition: 0,
            offset: i64::from(self.rows),
            row: 0,
            timestamp: None,
            key: None,
            headers: &[],
            value,
        };
        let mut row = Vec::new();
        match case.encoder.encode(&record, &mut row) {
            Ok(Encoded::Row) => {}
            Ok(Encoded::Filtered) => panic!("only a tombstone makes no row"),
            Err(bad) => {
                assert!(bad.class.starts_with("encode."), "{bad}");
                return;
            }
        }
        assert_eq!(row.pop(), Some(b','));
        let written: Json = serde_json::from_slice(&row).expect("a row is JSON");
        assert!(written["json"].is_object(), "{written}");
        let request = [b"{\"rows\":[", &row[..], b"]}"].concat();
        let (status, answer) = self.server.post(&format!("{DATASET}/tables/t{number}/insertAll"), &request);
        assert_eq!(status, 200, "{answer}");
        assert!(answer.get("insertErrors").is_none(), "the server refuses {written}: {answer}");
        self.rows += 1;
        if self.rows == MAX_ROWS {
            self.start_afresh();
        }
    }
}

fuzz_target!(|data: &[u8]| -> Corpus {
    let Some((choice, payload)) = data.split_first() else { return Corpus::Reject };
    STAGE.with_borrow_mut(|stage| {
        // `0` is the first case, so that seeds can be read.
        let number = usize::from(choice.wrapping_sub(b'0')) % stage.cases.len();
        stage.run(number, payload);
    });
    Corpus::Keep
});
