//! Every example in `transforms/examples`, tried as its README says, and run with its pipeline on an embedded broker.
//! `./dev test` builds them first.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

mod postgres;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use postgres::{Database, Schema};

/// A folder of `transforms/examples`.
struct Example {
    name: &'static str,
    folder: PathBuf,
}

impl Example {
    fn of(name: &'static str) -> Self {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("transforms/examples").join(name);
        let built = folder.join(format!("{name}.wasm"));
        assert!(built.exists(), "{} is missing; `./dev test` builds it", built.display());
        Self { name, folder }
    }

    fn lines(&self, file: &str) -> Vec<Value> {
        let text = fs::read_to_string(self.folder.join(file)).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    fn has(&self, file: &str) -> bool {
        self.folder.join(file).exists()
    }

    fn txconnect(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new("timeout");
        command.arg("120").arg(env!("CARGO_BIN_EXE_txconnect")).args(arguments).current_dir(&self.folder);
        for variable in ["KAFKA_BROKERS", "TXCONNECT_LOG", "RUST_LOG"] {
            command.env_remove(variable);
        }
        let cache = Path::new(env!("CARGO_TARGET_TMPDIR")).join("transforms");
        command.env("TXCONNECT_CACHE_DIR", cache).stdin(Stdio::null()).output().unwrap()
    }

    /// `txconnect transform test` with the records of the folder, and what they should become.
    fn does_what_is_expected(&self) {
        let module = format!("{}.wasm", self.name);
        let mut arguments = vec!["transform", "test", &module, "--input", "records.ndjson"];
        arguments.extend(["--expect", "expected.ndjson"]);
        if self.has("config.json") {
            arguments.extend(["--config", "@config.json"]);
        }
        if self.lines("records.ndjson")[0].get("value").is_some() {
            arguments.push("--envelope");
        }
        let output = self.txconnect(&arguments);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{}: {}\n{said}", self.name, output.status);
    }

    /// Runs the pipeline of the folder over its records; answers what it prints.
    fn run(&self, topic: &str, more: &[&str]) -> String {
        let records = tempfile::tempdir().unwrap();
        let values: Vec<String> = self
            .lines("records.ndjson")
            .into_iter()
            .map(|line| line.get("value").unwrap_or(&line).to_string())
            .collect();
        fs::write(records.path().join(format!("{topic}.ndjson")), values.join("\n")).unwrap();
        let embedded = records.path().to_str().unwrap();
        let arguments = ["run", "pipeline.yaml", "--embedded", embedded, "--until-end"];
        let output = self.txconnect(&[&arguments[..], more].concat());
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{}: {}\n{said}", self.name, output.status);
        String::from_utf8(output.stdout).unwrap()
    }

    /// Runs the pipeline into a schema of its own, where tables have these rows afterwards.
    fn fills(&self, topic: &str, tables: &[(&str, i64)]) -> (Database, Schema) {
        let database = Database::of_the_tests();
        let schema = Schema::of(&database, self.name);
        self.run(topic, &["--set", &format!("sink.postgres.schema={}", schema.name)]);
        for (table, rows) in tables {
            let found = database.number(&format!("SELECT count(*) FROM {}", schema.named(table)));
            assert_eq!(found, *rows, "{}: {table}", self.name);
        }
        (database, schema)
    }

    /// Runs the pipeline onto the standard output, where exactly what is expected appears.
    fn prints_what_is_expected(&self, topic: &str) {
        self.does_what_is_expected();
        let printed: Vec<Value> =
            self.run(topic, &[]).lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        assert_eq!(printed, self.lines("expected.ndjson"), "{}", self.name);
    }
}

#[test]
fn account_numbers_are_masked_in_every_language_alike() {
    for name in ["mask_account", "mask_account_js", "mask_account_python"] {
        Example::of(name).prints_what_is_expected("cash_ins");
    }
}

#[test]
fn test_accounts_are_left_out() {
    Example::of("drop_test_accounts").prints_what_is_expected("cash_ins");
}

#[test]
fn records_learn_what_the_config_knows() {
    Example::of("enrich").prints_what_is_expected("cash_ins");
}

#[test]
fn cents_become_decimals_of_a_table() {
    let example = Example::of("cents_to_decimal");
    example.does_what_is_expected();
    let expected = example.lines("expected.ndjson");
    let rows = i64::try_from(expected.len()).unwrap();
    let (database, schema) = example.fills("cash_ins", &[("cash_ins_decimal", rows)]);
    let table = schema.named("cash_ins_decimal");
    for event in expected {
        let id = event["transaction_id"].as_str().unwrap();
        let amount =
            database.value(&format!("SELECT amount::text FROM {table} WHERE transaction_id::text = '{id}'"));
        assert_eq!(amount, Some(event["amount"].to_string()));
    }
}

#[test]
fn one_payment_becomes_two_entries_of_the_ledger() {
    let example = Example::of("split_event");
    example.does_what_is_expected();
    let rows = i64::try_from(example.lines("expected.ndjson").len()).unwrap();
    assert_eq!(rows, 2 * i64::try_from(example.lines("records.ndjson").len()).unwrap());
    example.fills("cash_ins", &[("ledger", rows)]);
}

#[test]
fn refunds_go_to_a_table_of_their_own() {
    let example = Example::of("route_refunds");
    example.does_what_is_expected();
    let expected = example.lines("expected.ndjson");
    let to =
        |topic: &str| i64::try_from(expected.iter().filter(|row| row["topic"] == topic).count()).unwrap();
    assert!(to("refunds") > 0 && to("payments") > 0);
    example.fills("payments", &[("payments", to("payments")), ("refunds", to("refunds"))]);
}

#[test]
fn what_measures_the_border_changes_nothing() {
    let example = Example::of("echo");
    let records = example.folder.join("../mask_account/records.ndjson");
    let output = example.txconnect(&["transform", "test", "echo.wasm", "--input", records.to_str().unwrap()]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let value = |line: &str| serde_json::from_str::<Value>(line).unwrap();
    let echoed: Vec<Value> = String::from_utf8(output.stdout).unwrap().lines().map(value).collect();
    let read: Vec<Value> = fs::read_to_string(records).unwrap().lines().map(value).collect();
    assert_eq!(echoed, read);
}
