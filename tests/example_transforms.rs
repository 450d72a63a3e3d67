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

    /// Runs the pipeline of the folder; answers what it prints. Without `records` it gets those of `data/`.
    fn run(&self, records: Option<&Path>, more: &[&str]) -> String {
        let mut arguments = vec!["run", "pipeline.yaml", "--until-end", "--embedded"];
        let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("data");
        arguments.push(records.unwrap_or(&data).to_str().unwrap());
        arguments.extend(more);
        let output = self.txconnect(&arguments);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{}: {}\n{said}", self.name, output.status);
        String::from_utf8(output.stdout).unwrap()
    }

    /// Runs the pipeline into a schema of its own.
    fn fill(&self, records: Option<&Path>) -> (Database, Schema) {
        let database = Database::of_the_tests();
        let schema = Schema::of(&database, &format!("{}_{}", self.name, std::process::id()));
        self.run(records, &["--set", &format!("sink.postgres.schema={}", schema.name)]);
        (database, schema)
    }

    /// The cash-ins that the pipeline makes of those in `data/`.
    fn cash_ins(&self) -> Vec<Value> {
        self.run(None, &[]).lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }
}

/// The cash-ins in `data/`.
fn data() -> Vec<Value> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/cash_ins.json");
    serde_json::from_str(&fs::read_to_string(file).unwrap()).unwrap()
}

#[test]
fn account_numbers_are_masked_in_every_language_alike() {
    for name in ["mask_account", "mask_account_js", "mask_account_python"] {
        let example = Example::of(name);
        example.does_what_is_expected();
        let masked = example.cash_ins();
        assert_eq!(masked.len(), data().len(), "{name}");
        for (masked, mut event) in masked.into_iter().zip(data()) {
            let account = event["counterparty_account_id"].as_str().unwrap().to_owned();
            event["counterparty_account_id"] =
                format!("********-****-****-****-********{}", &account[32..]).into();
            assert_eq!(masked, event, "{name}");
        }
    }
}

#[test]
fn test_accounts_are_left_out() {
    let example = Example::of("drop_test_accounts");
    example.does_what_is_expected();
    // The account that the pipeline names.
    let is_test = |event: &Value| {
        ["account_id", "counterparty_account_id"]
            .iter()
            .any(|field| event[*field] == "aad71e75-cde2-488e-a280-938ad5a104f2")
    };
    let left: Vec<Value> = data().into_iter().filter(|event| !is_test(event)).collect();
    assert!(left.len() < data().len());
    assert_eq!(example.cash_ins(), left);
}

#[test]
fn records_learn_what_the_config_knows() {
    let example = Example::of("enrich");
    example.does_what_is_expected();
    let enriched = example.cash_ins();
    assert_eq!(enriched.len(), data().len());
    assert!(enriched.iter().any(|event| event["branch"] == "Nairobi"));
    assert!(enriched.iter().any(|event| event.get("branch").is_none_or(Value::is_null)));
}

#[test]
fn cents_become_decimals_of_a_table() {
    let example = Example::of("cents_to_decimal");
    example.does_what_is_expected();
    let (database, schema) = example.fill(None);
    let table = schema.named("cash_ins_decimal");
    let events = data();
    let cents: i64 = events.iter().map(|event| event["amount"].as_i64().unwrap()).sum();
    assert_eq!(
        database.number(&format!("SELECT count(*) FROM {table}")),
        i64::try_from(events.len()).unwrap()
    );
    assert_eq!(database.number(&format!("SELECT (sum(amount) * 100)::bigint FROM {table}")), cents);
    let kind = database.value(&format!("SELECT pg_typeof(amount)::text FROM {table} LIMIT 1"));
    assert_eq!(kind.as_deref(), Some("numeric"));
}

#[test]
fn one_payment_becomes_two_entries_of_the_ledger() {
    let example = Example::of("split_event");
    example.does_what_is_expected();
    let (database, schema) = example.fill(None);
    let ledger = schema.named("ledger");
    let rows = database.number(&format!("SELECT count(*) FROM {ledger}"));
    assert_eq!(rows, 2 * i64::try_from(data().len()).unwrap());
    // Whatever is taken from one account is given to another.
    let sum = |side: &str| {
        database.number(&format!("SELECT sum(amount)::bigint FROM {ledger} WHERE side = '{side}'"))
    };
    let cents: i64 = data().iter().map(|event| event["amount"].as_i64().unwrap()).sum();
    assert_eq!((sum("debit"), sum("credit")), (cents, cents));
}

#[test]
fn refunds_go_to_a_table_of_their_own() {
    let example = Example::of("route_refunds");
    example.does_what_is_expected();
    let records = tempfile::tempdir().unwrap();
    let values: Vec<String> =
        example.lines("records.ndjson").iter().map(|line| line["value"].to_string()).collect();
    fs::write(records.path().join("payments.ndjson"), values.join("\n")).unwrap();
    let expected = example.lines("expected.ndjson");
    let (database, schema) = example.fill(Some(records.path()));
    for topic in ["payments", "refunds"] {
        let rows = database.number(&format!("SELECT count(*) FROM {}", schema.named(topic)));
        let wanted = expected.iter().filter(|row| row["topic"] == topic).count();
        assert_eq!(rows, i64::try_from(wanted).unwrap(), "{topic}");
        assert!(wanted > 0);
    }
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
