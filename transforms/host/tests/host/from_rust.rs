//! Guests as a compiler makes them.

use serde_json::json;
use txconnect_transform_host::{CallError, Needs, Output};

use super::rust_guest::rust_guest;
use super::*;

fn module(package: &str) -> Arc<Module> {
    // No grant: what a compiler brings along must be enough.
    load_file(&rust_guest(package), limits(), &[]).unwrap()
}

fn started(package: &str) -> Transform {
    module(package).start(None, Arc::new(Heard::default())).unwrap()
}

fn text(value: Option<&[u8]>) -> Option<&str> {
    value.map(|bytes| std::str::from_utf8(bytes).unwrap())
}

#[expect(clippy::option_option, reason = "a value may be kept, and it may be none")]
fn values(output: &Output) -> Vec<(u32, Option<Option<&str>>)> {
    (0..output.len()).map(|row| (output.row(row).source(), output.row(row).value().map(text))).collect()
}

#[test]
fn values_cross_the_border_and_come_back_the_same() {
    let output = started("echo_batches").call(&batch(&["one", "", "three"]), AMPLE).unwrap();
    assert_eq!(values(&output), [(0, Some(Some("one"))), (1, Some(Some(""))), (2, Some(Some("three")))]);
    assert!(
        output.row(0).key().is_none() && output.row(0).topic().is_none() && output.row(0).headers().is_none()
    );
}

/// Two records of two topics, the second with nothing in it.
fn mixed(needs: Needs) -> Batch {
    let mut batch = Batch::default();
    batch.clear(needs);
    let (topic, value) = ("cash_ins", Some(&b"{}"[..]));
    let record = InputRecord {
        topic,
        partition: 3,
        offset: 70,
        timestamp: Some(1_700_000_000_000),
        key: Some(b"k"),
        value,
    };
    batch.push(&record, [("h", Some(&b"v"[..])), ("h", None)]);
    let record =
        InputRecord { topic: "other", partition: 4, offset: 8, timestamp: None, key: None, value: None };
    batch.push(&record, []);
    batch
}

#[test]
fn records_cross_the_border_one_by_one_with_all_they_have() {
    let mut transform = started("echo_records");
    let needs = transform.module().description().needs;
    assert_eq!(needs, Needs { keys: true, headers: true, positions: true });
    let output = transform.call(&mixed(needs), AMPLE).unwrap();
    assert_eq!(output.sources(), [0, 1]);
    let (first, second) = (output.row(0), output.row(1));
    assert_eq!((first.topic(), second.topic()), (Some("cash_ins"), Some("other")));
    assert_eq!((first.key(), second.key()), (Some(Some(&b"k"[..])), Some(None)));
    assert_eq!((first.value(), second.value()), (Some(Some(&b"{}"[..])), Some(None)));
    assert_eq!(first.headers().unwrap().collect::<Vec<_>>(), [("h", Some(&b"v"[..])), ("h", None)]);
    assert_eq!(second.headers().unwrap().count(), 0);
}

#[test]
fn of_records_one_by_one_each_has_its_own_fate() {
    let mut transform = started("echo_records");
    let output = transform.call(&batch(&["keep", "none", "fail", "many", "x"]), AMPLE).unwrap();
    assert_eq!(values(&output), [(0, None), (4, Some(Some("x")))]);
    assert_eq!((output.row(0).topic(), output.row(1).topic()), (None, Some("cash_ins")));
    let failures: Vec<_> =
        output.failures().iter().map(|failure| (failure.record, failure.code.as_str())).collect();
    assert_eq!(failures, [(2, "transform.not_liked"), (3, "transform.too_many_rows")]);
}

#[test]
fn a_panic_leaves_its_words_and_its_place() {
    let mut transform = started("echo_records");
    let error = transform.call(&batch(&["x", "trap"]), AMPLE).unwrap_err();
    let CallError::Trap { message, backtrace } = error else { panic!("{error:?}") };
    assert!(message.contains("unreachable"), "{message}");
    let backtrace = backtrace.unwrap();
    assert!(backtrace.contains("a record that nobody likes"), "{backtrace}");
    assert!(backtrace.contains("echo_records"), "{backtrace}");
    assert_eq!(transform.call(&batch(&["x"]), AMPLE).unwrap().sources(), [0]);
}

#[test]
fn a_guest_that_exits_is_a_trap_with_its_own_words() {
    let error = started("echo_records").call(&batch(&["exit"]), AMPLE).unwrap_err();
    let CallError::Trap { message, .. } = error else { panic!("{error:?}") };
    // WASI 0.2 knows success and failure, and no number.
    assert_eq!(message, "it ended itself with exit code 1");
}

#[test]
fn a_guest_that_writes_to_its_error_output_may_run_on_a_thread_of_tokio() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let error = started("echo_records").call(&batch(&["trap"]), AMPLE).unwrap_err();
        assert!(matches!(error, CallError::Trap { .. }), "{error:?}");
    });
}

#[test]
fn json_is_edited_and_records_are_dropped_and_failed() {
    let mut transform = started("json_edit");
    let records = [r#"{"a":1,"counterparty_account_id":"x"}"#, r#"{"test":true}"#, "[]"];
    let output = transform.call(&batch(&records), AMPLE).unwrap();
    assert_eq!(values(&output), [(0, Some(Some(r#"{"a":1,"edited":true}"#)))]);
    assert_eq!(output.failures()[0].code, "transform.no_object");
}

#[test]
fn a_guest_of_version_1_0_0_runs() {
    let module = module("compatibility-1.0.0");
    let heard = Arc::new(Heard::default());
    assert_eq!(module.config_problems(Some(&json!({}))).len(), 1);
    let error = module
        .start(Some(&json!({"suffix": "refuse"})), Arc::clone(&heard) as Arc<dyn Reports>)
        .err()
        .unwrap();
    assert_eq!(error.why, r#"it refuses its config: not with {"suffix":"refuse"}"#);

    let mut transform =
        module.start(Some(&json!({"suffix": "-"})), Arc::clone(&heard) as Arc<dyn Reports>).unwrap();
    let output = transform.call(&mixed(module.description().needs), AMPLE).unwrap();
    assert_eq!(output.sources(), [0, 0]);
    let (first, second) = (output.row(0), output.row(1));
    let seen = "[0, 1] [3, 4] [70, 8] [1700000000000, -1] [0, 1] [2, 0]";
    assert_eq!((first.value().map(text), second.value()), (Some(Some(seen)), Some(None)));
    assert_eq!((first.key(), second.key()), (Some(Some(&b"key"[..])), Some(None)));
    assert_eq!((first.topic(), second.topic()), (Some("right"), Some("left")));
    assert_eq!(first.headers().unwrap().collect::<Vec<_>>(), [("by", None)]);
    assert_eq!(second.headers().unwrap().count(), 0);
    let [failure] = output.failures() else { panic!("{:?}", output.failures()) };
    assert_eq!((failure.record, failure.code.as_str()), (1, "transform.second"));
    assert_eq!(failure.message, "the second record fails");
    assert_eq!(heard.lines.lock().unwrap()[0], (LogLevel::Info, "2 records of cash_ins, other".to_owned()));
    assert_eq!(heard.counts.lock().unwrap()[0], ("records".to_owned(), 2));

    let error = transform.call(&Batch::default(), AMPLE).unwrap_err();
    assert_eq!(error, CallError::Refused { message: "there is nothing to do".to_owned() });
}
