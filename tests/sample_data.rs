//! The sample data in `data/`: made by its generator, consistent in itself, valid by the schemas in `schemas/`.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "clippy.toml allows it in tests, but not in what they call")]

use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use txconnect_connector_api::schema::{Kind, Mode, TableSchema, TimeUnit, TimestampSource, UnknownFields};

#[path = "../examples/generate_data/sample.rs"]
mod sample;

const TOPICS: [&str; 4] = ["cash_ins", "cash_outs_created", "cash_outs_processed", "cash_outs_refunded"];

fn in_repository(path: impl AsRef<Path>) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn json_file(path: impl AsRef<Path>) -> Value {
    serde_json::from_str(&fs::read_to_string(in_repository(path)).unwrap()).unwrap()
}

fn records(topic: &str) -> Vec<Value> {
    json_file(format!("data/{topic}.json")).as_array().unwrap().clone()
}

fn text<'r>(record: &'r Value, field: &str) -> &'r str {
    record[field].as_str().unwrap()
}

fn at(record: &Value) -> u64 {
    record["inserted_at"].as_u64().unwrap()
}

/// The time of each transaction of a topic.
fn times(topic: &str) -> HashMap<String, u64> {
    records(topic).iter().map(|record| (text(record, "transaction_id").to_owned(), at(record))).collect()
}

#[test]
fn the_generator_makes_the_very_files_in_the_repository() {
    let files = sample::files();
    assert_eq!(files.iter().map(|file| file.topic).collect::<Vec<_>>(), TOPICS);
    for file in files {
        let stored = fs::read_to_string(in_repository(format!("data/{}.json", file.topic))).unwrap();
        assert!(file.text == stored, "data/{}.json differs: run ./dev data and commit it", file.topic);
    }
}

#[test]
fn each_file_holds_as_many_records_as_its_generator_says_one_per_line() {
    for file in sample::files() {
        let records = records(file.topic);
        assert_eq!(records.len(), file.records);
        let lines: Vec<&str> = file.text.lines().collect();
        assert_eq!((lines[0], lines[lines.len() - 1]), ("[", "]"));
        let one_per_line: Vec<Value> = lines[1..lines.len() - 1]
            .iter()
            .map(|line| serde_json::from_str(line.trim_end_matches(',')).unwrap())
            .collect();
        assert_eq!(one_per_line, records);
    }
    assert_eq!(TOPICS.map(|topic| records(topic).len()), [100, 2_400, 2_390, 230]);
}

#[test]
fn every_record_is_valid_by_its_schema() {
    for topic in TOPICS {
        let schema = json_file(format!("schemas/{topic}.json"));
        jsonschema::meta::validate(&schema).unwrap();
        let validator = jsonschema::options().should_validate_formats(true).build(&schema).unwrap();
        for record in records(topic) {
            if let Err(error) = validator.validate(&record) {
                panic!("{topic}: {error} in {record}");
            }
        }
    }
}

#[test]
fn the_schemas_refuse_what_is_not_an_event() {
    for topic in TOPICS {
        let schema = json_file(format!("schemas/{topic}.json"));
        let validator = jsonschema::options().should_validate_formats(true).build(&schema).unwrap();
        let good = records(topic).remove(0);
        let mut bad = vec![json!([]), json!("event")];
        for field in good.as_object().unwrap().keys() {
            let mut missing = good.clone();
            missing.as_object_mut().unwrap().remove(field);
            bad.push(missing);
        }
        let changes = [
            ("transaction_id", json!("not-a-uuid")),
            ("account_id", json!(7)),
            ("amount", json!(0)),
            ("amount", json!("5")),
            ("amount", json!(1.5)),
            ("inserted_at", json!(-1)),
            ("inserted_at", json!("2026-09-01")),
            ("comment", json!("not a field of any event")),
        ];
        for (field, value) in changes {
            if good.get(field).is_some() || field == "comment" {
                let mut record = good.clone();
                record[field] = value;
                bad.push(record);
            }
        }
        for record in bad {
            assert!(!validator.is_valid(&record), "{topic} takes {record}");
        }
    }
}

#[test]
fn the_schemas_give_tables_with_a_timestamp_from_epoch_milliseconds() {
    for topic in TOPICS {
        let schema = json_file(format!("schemas/{topic}.json"));
        let table = TableSchema::from_json_schema(&schema, UnknownFields::DeadLetter).unwrap();
        assert!(table.description.is_some());
        for column in table.columns.as_slice() {
            assert_eq!(column.mode, Mode::Required, "{topic}.{}", column.name);
            assert!(column.description.is_some(), "{topic}.{} has no description", column.name);
            let expected = match column.name.as_str() {
                "amount" => Kind::Integer,
                "inserted_at" => Kind::Timestamp(TimestampSource::Epoch(TimeUnit::Milliseconds)),
                _ => Kind::Uuid,
            };
            assert_eq!(column.kind, expected, "{topic}.{}", column.name);
        }
    }
}

#[test]
fn ids_are_version_4_uuids_and_no_transaction_comes_twice_in_a_topic() {
    for topic in TOPICS {
        let records = records(topic);
        let ids: HashSet<&str> = records.iter().map(|record| text(record, "transaction_id")).collect();
        assert_eq!(ids.len(), records.len(), "{topic}");
        for id in ids {
            let bytes = id.as_bytes();
            assert!(bytes[14] == b'4' && b"89ab".contains(&bytes[19]), "{id}");
        }
    }
}

#[test]
fn processed_and_refunded_cash_outs_were_created_before() {
    let (created, processed, refunded) =
        (times("cash_outs_created"), times("cash_outs_processed"), times("cash_outs_refunded"));
    for (id, at) in &processed {
        assert!(created.get(id).is_some_and(|created_at| created_at < at), "{id}");
    }
    for (id, at) in &refunded {
        assert!(processed.get(id).is_some_and(|processed_at| processed_at < at), "{id}");
    }
}

#[test]
fn accounts_repeat_and_pay_somebody_else() {
    let transfers: Vec<Value> =
        ["cash_ins", "cash_outs_created"].iter().flat_map(|topic| records(topic)).collect();
    let accounts: HashSet<&str> = transfers
        .iter()
        .flat_map(|record| [text(record, "account_id"), text(record, "counterparty_account_id")])
        .collect();
    assert_eq!(accounts.len(), 60);
    for record in &transfers {
        assert_ne!(record["account_id"], record["counterparty_account_id"]);
    }
}

#[test]
fn records_are_in_the_order_of_their_time_within_2026() {
    // 2026-01-01 and 2027-01-01, UTC.
    let year = 1_767_225_600_000..1_798_761_600_000;
    for topic in TOPICS {
        let times: Vec<u64> = records(topic).iter().map(at).collect();
        assert!(times.is_sorted(), "{topic}");
        assert!(times.iter().all(|time| year.contains(time)), "{topic}");
    }
}
