//! The built binary, as people call it: help, exit codes, what goes to which stream.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Output, Stdio};

fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_txconnect"));
    command.args(arguments).stdin(Stdio::null()).env_remove("KAFKA_BROKERS").env_remove("RUST_LOG");
    command.env_remove("TXCONNECT_LOG");
    command
}

fn output(arguments: &[&str]) -> Output {
    command(arguments).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn help_is_a_result_and_names_the_commands_with_examples() {
    let output = output(&["--help"]);
    assert_eq!(output.status.code(), Some(0));
    let help = text(&output.stdout);
    for part in [
        "run ",
        "check ",
        "publish ",
        "offsets ",
        "new ",
        "transform ",
        "local-bigquery ",
        "version ",
        "Examples:",
        "Exit codes: 0 done",
    ] {
        assert!(help.contains(part), "{part} is missing in:\n{help}");
    }
    assert!(output.stderr.is_empty());
}

#[test]
fn wrong_usage_is_exit_code_2_and_said_on_the_error_output() {
    for arguments in [
        &["fly"][..],
        &["publish"],
        &["publish", "not a topic", "x.json"],
        &["publish", "t", "--dir", "data"],
        &["publish", "t", "--partitions", "0"],
        &["publish", "t", "/no/such/file.json"],
        &["publish", "--dir", "/no/such/folder"],
        &["publish", "t", "--property", "linger.ms=1"],
        &["local-bigquery", "--listen", "nowhere"],
        &["local-bigquery", "--faults", "/no/such/file.json"],
    ] {
        let output = output(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {}", text(&output.stderr));
        assert!(output.stdout.is_empty(), "{arguments:?}");
        assert!(text(&output.stderr).contains("error"), "{arguments:?}");
    }
}

#[test]
fn a_wrong_log_filter_is_wrong_usage() {
    let output = command(&["publish", "t"])
        .env("TXCONNECT_LOG", "info,=x=y")
        .env("KAFKA_BROKERS", "127.0.0.1:1")
        .output();
    let output = output.unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("TXCONNECT_LOG is no log filter"));
}

#[test]
fn version_tells_revision_and_librdkafka() {
    let output = output(&["version"]);
    assert_eq!(output.status.code(), Some(0));
    let version = text(&output.stdout);
    assert!(version.starts_with(concat!("txconnect ", env!("CARGO_PKG_VERSION"), "\n")), "{version}");
    for part in ["revision", "librdkafka  2.", "sinks       bigquery, postgres, stdout"] {
        assert!(version.contains(part), "{version}");
    }
}

#[test]
fn an_unreachable_broker_is_a_failure_without_colours() {
    let mut child = command(&["publish", "t", "--brokers", "127.0.0.1:1"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // The command may give up on the broker before it reads.
    let _ = child.stdin.take().unwrap().write_all(b"1");
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let error = text(&output.stderr);
    assert!(error.contains("127.0.0.1:1") && !error.contains('\x1b'), "{error}");
    assert!(output.stdout.is_empty());
}

#[test]
fn the_local_bigquery_says_where_it_listens_and_ends_by_sigterm() {
    let mut child =
        command(&["local-bigquery", "--listen", "127.0.0.1:0"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let line = lines.next().unwrap().unwrap();
    assert!(line.starts_with("BIGQUERY_EMULATOR_HOST=127.0.0.1:"), "{line}");
    let killed = Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap();
    assert!(killed.success());
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

/// A folder with a pipeline into stdout, the rest of whose text is given.
fn pipeline(folder: &std::path::Path, rest: &str) -> String {
    let path = folder.join("p.yaml");
    let text = format!(
        "name: p\nsource:\n  kafka:\n    brokers: ${{KAFKA_BROKERS:-127.0.0.1:1}}\n    topics: [t]\nsink:\n  stdout: {{}}\n{rest}"
    );
    std::fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn check_counts_good_pipelines_and_names_the_place_of_mistakes() {
    let folder = tempfile::tempdir().unwrap();
    let good = pipeline(folder.path(), "batch: { rows: 10 }\n");
    let output = output(&["check", &good]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert_eq!(text(&output.stdout), "1 pipeline without a mistake: p\n");

    let bad = pipeline(folder.path(), "batsch: { rows: 10 }\n");
    for verb in ["check", "run"] {
        let output = command(&[verb, &bad]).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{verb}");
        assert!(output.stdout.is_empty(), "{verb}");
        assert!(text(&output.stderr).contains("p.yaml:8:1: "), "{verb}: {}", text(&output.stderr));
    }
}

#[test]
fn run_refuses_an_embedded_folder_without_topics() {
    let folder = tempfile::tempdir().unwrap();
    let file = pipeline(folder.path(), "");
    let empty = folder.path().join("empty");
    std::fs::create_dir(&empty).unwrap();
    let output = output(&["run", &file, "--embedded", empty.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("holds no file called <topic>.json"), "{}", text(&output.stderr));
}
