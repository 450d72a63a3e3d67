//! Any document through the validator and the Storage Write encoder of a fixed schema, or any bytes as the key of a
//! tombstone. A row that is written must read back by the columns of the schema, and what is refused is refused by the
//! `insertAll` encoder for the same reason. The first byte chooses schema and mode, the rest is the record's value or key.

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
use txconnect_connector_api::{Columns, Encoded, Encoder, Mode, Record, Sink, TableSchema, Value};
use txconnect_fuzz::row::{Wire, check, only_row};

const EVERY_KIND: &str = include_str!("../schemas/every-kind.json");
const CASH_INS: &str = include_str!("../../schemas/cash_ins.json");

struct Case {
    validator: Validator,
    encoder: Box<dyn Encoder>,
    /// Refuses the same records, where rows are appended.
    insert_all: Option<Box<dyn Encoder>>,
    columns: Columns,
    /// The numbers of the key's columns.
    key: Vec<u64>,
    kafka_columns: usize,
    /// Inputs are keys of tombstones.
    deletes: bool,
}

thread_local! {
    static CASES: RefCell<Vec<Case>> = RefCell::new(cases());
}

fn cases() -> Vec<Case> {
    let all = json!(["topic", "partition", "offset", "timestamp"]);
    let upsert = |key: &[&str], extra: &Json| {
        let mut block = json!({ "write": "upsert", "key": key });
        if let (Json::Object(block), Json::Object(extra)) = (&mut block, extra.clone()) {
            block.extend(extra);
        }
        block
    };
    let deletes = |decode: &str| json!({ "delete_on_tombstone": true, "key_decode": decode });
    vec![
        case(EVERY_KIND, &json!({}), false),
        case(EVERY_KIND, &json!({ "finer_times": "truncate" }), false),
        case(CASH_INS, &json!({ "kafka_columns": all }), false),
        case(EVERY_KIND, &upsert(&["id"], &json!({ "newest_by": "money" })), false),
        case(
            EVERY_KIND,
            &upsert(&["id", "note"], &json!({ "newest_by": "ns", "kafka_columns": all })),
            false,
        ),
        case(EVERY_KIND, &upsert(&["id"], &json!({ "newest_by": "ratio" })), false),
        case(EVERY_KIND, &upsert(&["id", "note", "day"], &deletes("json")), true),
        case(EVERY_KIND, &upsert(&["uuid"], &deletes("string")), true),
        case(EVERY_KIND, &upsert(&["money"], &deletes("string")), true),
    ]
}

fn case(schema: &str, settings: &Json, deletes: bool) -> Case {
    let schema: Json = serde_json::from_str(schema).expect("a schema is JSON");
    let unknown_fields =
        if settings.get("finer_times").is_some() { UnknownFields::Ignore } else { UnknownFields::DeadLetter };
    let table = TableSchema::from_json_schema(&schema, unknown_fields).expect("a table");
    let numbers = |name: &Json| {
        let index = table.columns.position(name.as_str().expect("a name"), 0).expect("a column");
        index as u64 + 1
    };
    let count = |key: &str| settings.get(key).and_then(Json::as_array).cloned().unwrap_or_default();
    Case {
        validator: Validator::compile(&schema).ok().expect("a right schema"),
        encoder: encoder(settings, "storage_write", &table),
        insert_all: (settings.get("write").is_none()).then(|| encoder(settings, "insert_all", &table)),
        key: count("key").iter().map(numbers).collect(),
        kafka_columns: count("kafka_columns").len(),
        columns: table.columns,
        deletes,
    }
}

fn encoder(settings: &Json, api: &str, table: &TableSchema) -> Box<dyn Encoder> {
    let mut config = json!({
        "project": "p", "dataset": "d", "credentials": "none", "endpoint": "http://localhost:1", "api": api,
    });
    if let (Json::Object(all), Json::Object(some)) = (&mut config, settings.clone()) {
        all.extend(some);
    }
    let config = serde_json::from_value(config).expect("a right block");
    let sink = BigQuerySink::new(config, Path::new("."), &|_| None).expect("a sink");
    sink.encoder("topic", Some(table)).expect("an encoder")
}

impl Case {
    fn run(&mut self, bytes: &[u8]) {
        let arena = Bump::new();
        let record = |value| Record {
            topic: "topic",
            partition: 3,
            offset: 7,
            row: 0,
            timestamp: Some(1_763_900_000_123),
            key: Some(bytes),
            headers: &[],
            value,
        };
        let value = if self.deletes {
            Value::Tombstone
        } else {
            let Ok(value @ Value::Json { document, .. }) = decode(Format::Json, Some(bytes), &arena) else {
                return;
            };
            if let Err(bad) = self.validator.validate(document) {
                assert!(bad.class.starts_with("validate."), "{bad}");
            }
            value
        };
        let mut rows = Vec::new();
        let encoded = self.encoder.encode(&record(value), &mut rows);
        if let Some(insert_all) = &mut self.insert_all {
            let other = insert_all.encode(&record(value), &mut Vec::new());
            assert_eq!(encoded, other);
        }
        match encoded {
            Ok(Encoded::Row) => self.check(only_row(&rows)),
            Ok(Encoded::Filtered) => panic!("only a tombstone without a use makes no row"),
            Err(bad) => assert!(bad.class.starts_with("encode."), "{bad}"),
        }
    }

    fn check(&self, row: &[u8]) {
        let (found, others) = check(&self.columns, row);
        for (number, column) in (1..).zip(self.columns.as_slice()) {
            let is_key = self.key.contains(&number);
            if is_key || (column.mode == Mode::Required && !self.deletes) {
                assert!(found.contains(&number), "{} is missing", column.name);
            }
            assert!(is_key || !self.deletes || !found.contains(&number), "{} is no key", column.name);
        }
        let (kafka, changes) = others.split_at(self.kafka_columns);
        for ((number, value), expected) in kafka.iter().zip(self.columns.as_slice().len() + 1..) {
            assert_eq!(*number, expected as u64);
            match value {
                Wire::Delimited(topic) => assert_eq!(*topic, b"topic"),
                value => assert!([3, 7, 1_763_900_000_123_000].contains(&value.integer())),
            }
        }
        if self.key.is_empty() {
            assert!(changes.is_empty());
            return;
        }
        let [(_, change), (_, sequence)] = changes else { panic!("two pseudo-columns") };
        assert_eq!(change.text(), if self.deletes { "DELETE" } else { "UPSERT" });
        let numbers: Vec<&str> = sequence.text().split('/').collect();
        assert!((2..=4).contains(&numbers.len()));
        for number in numbers {
            assert!((1..=16).contains(&number.len()) && u64::from_str_radix(number, 16).is_ok(), "{number}");
        }
    }
}

fuzz_target!(|data: &[u8]| -> Corpus {
    let Some((choice, rest)) = data.split_first() else { return Corpus::Reject };
    CASES.with_borrow_mut(|cases| {
        // `0` is the first case, so that seeds can be read.
        let number = usize::from(choice.wrapping_sub(b'0')) % cases.len();
        cases[number].run(rest);
    });
    Corpus::Keep
});
