//! `txconnect transform` and `txconnect new`, as people call them.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

mod guests;

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

const SCHEMA: &str = r#"{"type":["object","boolean","null"],"properties":{"fields":{"type":"array"}},"additionalProperties":false}"#;

/// What a command has left behind.
struct Done {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

/// Calls the program in `folder`, where compiled transforms are kept too.
fn txconnect(folder: &Path, arguments: &[&str]) -> Done {
    let output = Command::new(env!("CARGO_BIN_EXE_txconnect"))
        .args(arguments)
        .current_dir(folder)
        .env("TXCONNECT_CACHE_DIR", folder.join("cache"))
        .env_remove("TXCONNECT_LOG")
        .env_remove("RUST_LOG")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Done { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
}

/// A folder with the transform `guest.wasm` and the records 1 to 6.
fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("guest.wasm"), guests::by_number(SCHEMA)).unwrap();
    fs::write(folder.path().join("in.ndjson"), "1.50\n2\n3\n\n4\n5\n6\n").unwrap();
    folder
}

const TEST: [&str; 5] = ["transform", "test", "guest.wasm", "--input", "in.ndjson"];

fn test(folder: &Path, more: &[&str]) -> Done {
    txconnect(folder, &[&TEST[..], more].concat())
}

#[test]
fn rows_go_to_the_standard_output_and_failures_beside_the_figures() {
    let folder = folder();
    let done = test(folder.path(), &[]);
    assert_eq!(done.code, Some(0), "{}", done.stderr);
    assert_eq!(done.stdout, "1.50\n2\n2\n6\n");
    for part in [
        "line 5: four: fours are not wanted\n",
        "line 6: trap: ",
        "by-number 1.2.3: 6 records, 4 rows, 1 filtered, 2 failed\n",
        " ns per record in batches of 500, ",
        " KiB of memory, ready after ",
    ] {
        assert!(done.stderr.contains(part), "{part} is missing in:\n{}", done.stderr);
    }
    // The guilty one is found in whatever batch it is.
    for batch in ["1", "2", "3"] {
        let again = test(folder.path(), &["--batch", batch, "--repeat", "3"]);
        assert_eq!((again.code, again.stdout.as_str()), (Some(0), done.stdout.as_str()), "{}", again.stderr);
        assert!(again.stderr.contains("(the fastest of 3 passes)"), "{}", again.stderr);
    }
}

#[test]
fn whole_records_go_in_and_come_out_with_an_envelope() {
    let folder = folder();
    let lines =
        "{\"topic\":\"a\",\"key\":\"k\",\"value\":1}\n{\"value\":6}\n{\"key\":\"gone\",\"value\":null}\n";
    fs::write(folder.path().join("in.ndjson"), lines).unwrap();
    let done = test(folder.path(), &["--envelope", "--topic", "usual"]);
    assert_eq!(
        (done.code, done.stdout.as_str()),
        (
            Some(0),
            "{\"topic\":\"a\",\"key\":\"k\",\"value\":1}\n{\"topic\":\"other\",\"key\":null,\"value\":6}\n\
             {\"topic\":\"usual\",\"key\":\"gone\",\"value\":null}\n"
        ),
        "{}",
        done.stderr
    );
}

#[test]
fn what_is_expected_is_compared_as_json_and_written_on_request() {
    let folder = folder();
    let expect = ["--expect", "out.ndjson"];
    let missing = test(folder.path(), &expect);
    assert_eq!(missing.code, Some(2), "{}", missing.stderr);
    let update = test(folder.path(), &[&expect[..], &["--update"]].concat());
    assert_eq!((update.code, update.stdout.as_str()), (Some(0), "wrote 6 lines to out.ndjson\n"));
    let written = fs::read_to_string(folder.path().join("out.ndjson")).unwrap();
    assert_eq!(written, "1.50\n2\n2\n{\"failed\":\"four\"}\n{\"failed\":\"trap\"}\n6\n");

    fs::write(
        folder.path().join("out.ndjson"),
        " 15e-1\n2\n2\n{\"failed\": \"transform.four\"}\n{\"failed\":\"trap\"}\n6.0\n",
    )
    .unwrap();
    let same = test(folder.path(), &expect);
    assert_eq!(
        (same.code, same.stdout.as_str()),
        (Some(0), "6 lines as out.ndjson expects\n"),
        "{}",
        same.stderr
    );

    fs::write(folder.path().join("out.ndjson"), "1.5\n2\n{\"failed\":\"four\"}\n{\"failed\":\"trap\"}\n7\n")
        .unwrap();
    let other = test(folder.path(), &expect);
    assert_eq!(other.code, Some(1));
    assert_eq!(
        other.stdout,
        "+ line 3, of line 2 of the input: 2\n- out.ndjson:5: 7\n+ line 6, of line 7 of the input: 6\n"
    );
    assert!(
        other.stderr.contains("what came out is not what out.ndjson expects: 3 differences"),
        "{}",
        other.stderr
    );
}

#[test]
fn limits_and_config_are_those_of_a_pipeline_file() {
    let folder = folder();
    fs::write(folder.path().join("in.ndjson"), "2\n7\n1\n").unwrap();
    for interrupt in ["epoch", "fuel"] {
        let limits = ["--time-per-batch", "20ms", "--interrupt", interrupt, "--max-outputs-per-record", "1"];
        let done = test(folder.path(), &limits);
        assert_eq!((done.code, done.stdout.as_str()), (Some(0), "1\n"), "{}", done.stderr);
        assert!(done.stderr.contains("line 1: too_many_rows: "), "{}", done.stderr);
        assert!(done.stderr.contains("line 2: too_slow: it was stopped after "), "{}", done.stderr);
    }
    fs::write(folder.path().join("config.json"), "{\"fields\": [1]}").unwrap();
    fs::write(folder.path().join("in.ndjson"), "1\n").unwrap();
    assert_eq!(test(folder.path(), &["--config", "@config.json"]).code, Some(0));
    for (config, code, why) in [
        ("{\"fields\": 1}", 2, "--config: /fields: "),
        ("{", 2, "--config is not JSON: "),
        ("@none.json", 2, "cannot read none.json: "),
        ("false", 1, "`false` is no config for me"),
    ] {
        let done = test(folder.path(), &["--config", config]);
        assert_eq!(done.code, Some(code), "{config}: {}", done.stderr);
        assert!(done.stderr.contains(why) && done.stdout.is_empty(), "{config}: {}", done.stderr);
    }
}

#[test]
fn wrong_command_lines_are_told_by_exit_code_2() {
    let folder = folder();
    fs::write(folder.path().join("bad.ndjson"), "1\n{\n").unwrap();
    for arguments in [
        &["transform", "test", "guest.wasm"][..],
        &["transform", "test", "none.wasm", "--input", "in.ndjson"],
        &["transform", "test", "guest.wasm", "--input", "none.ndjson"],
        &["transform", "test", "guest.wasm", "--input", "bad.ndjson"],
        &["transform", "test", "guest.wasm", "--input", "in.ndjson", "--allow", "network"],
        &["transform", "test", "guest.wasm", "--input", "in.ndjson", "--update"],
        &["transform", "test", "guest.wasm", "--input", "in.ndjson", "--batch", "0"],
        &["transform", "inspect", "none.wasm"],
        &["transform", "build", "none"],
        &["transform", "build", "."],
        &["new", "transform", "Not A Name", "--lang", "rust"],
        &["new", "transform", "name", "--lang", "cobol"],
    ] {
        let done = txconnect(folder.path(), arguments);
        assert_eq!(done.code, Some(2), "{arguments:?}: {}", done.stderr);
        assert!(done.stdout.is_empty() && done.stderr.contains("error"), "{arguments:?}: {}", done.stderr);
    }
}

#[test]
fn a_transform_says_what_it_is_and_what_it_wants() {
    let folder = folder();
    let done = txconnect(folder.path(), &["transform", "inspect", "guest.wasm"]);
    assert_eq!(done.code, Some(0), "{}", done.stderr);
    for part in [
        "by-number 1.2.3\n",
        "interface  txconnect:transform/records@1.0.0 (one record at a time)\n",
        "sees       topics, values; nothing more\n",
        "wants      nothing of the machine\n",
        "\"additionalProperties\": false",
    ] {
        assert!(done.stdout.contains(part), "{part} is missing in:\n{}", done.stdout);
    }

    fs::write(folder.path().join("clock.wasm"), guests::with_clock(&guests::by_number_text("{}"))).unwrap();
    let done = txconnect(folder.path(), &["transform", "inspect", "clock.wasm", "--format", "json"]);
    assert_eq!(done.code, Some(0), "{}", done.stderr);
    let said: Value = serde_json::from_str(&done.stdout).unwrap();
    assert_eq!((&said["name"], &said["allow"]), (&json!("by-number"), &json!(["clock"])));
    assert!(
        said["imports"].as_array().unwrap().contains(&json!("wasi:clocks/monotonic-clock@0.2.0")),
        "{said}"
    );
    let refused = txconnect(folder.path(), &["transform", "test", "clock.wasm", "--input", "in.ndjson"]);
    assert_eq!(refused.code, Some(1));
    assert!(refused.stderr.contains("allow: [clock]"), "{}", refused.stderr);
    let granted = txconnect(
        folder.path(),
        &["transform", "test", "clock.wasm", "--input", "in.ndjson", "--allow", "clock"],
    );
    assert_eq!(granted.code, Some(0), "{}", granted.stderr);

    fs::write(folder.path().join("text.wasm"), "text").unwrap();
    let done = txconnect(folder.path(), &["transform", "inspect", "text.wasm"]);
    assert_eq!(done.code, Some(1));
    assert!(done.stderr.contains("`text.wasm` is not WebAssembly"), "{}", done.stderr);
}

#[test]
fn a_folder_whose_tools_are_missing_says_what_to_install() {
    for (file, tool, install) in [
        ("Cargo.toml", "`cargo` is not installed", "rustup target add wasm32-wasip2"),
        ("package.json", "`npm` is not installed", "nodejs npm"),
        ("app.py", "`python3` is not installed", "python3-venv"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let project = folder.path().join("mine");
        fs::create_dir(&project).unwrap();
        fs::write(project.join(file), "").unwrap();
        let output = Command::new(env!("CARGO_BIN_EXE_txconnect"))
            .args(["transform", "build", "mine"])
            .current_dir(folder.path())
            .env("PATH", folder.path())
            .output()
            .unwrap();
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{error}");
        assert!(error.contains(tool) && error.contains(install), "{error}");
    }
}

#[test]
fn a_new_folder_of_every_language_holds_all_that_it_is_built_with() {
    for (language, files) in [
        ("rust", &["Cargo.toml", "src/lib.rs", "sdk/src/lib.rs", "sdk/macros/Cargo.toml"][..]),
        ("js", &["package.json", "transform.js", "sdk/package.json", "sdk/index.d.ts"]),
        ("python", &["app.py", "requirements.txt", "sdk/txconnect_transform/__init__.py"]),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let done =
            txconnect(folder.path(), &["new", "transform", "my-mask", "--lang", language, "--dir", "sub"]);
        assert_eq!(done.code, Some(0), "{}", done.stderr);
        for line in [
            "\n  txconnect transform build sub/my-mask\n",
            "\n  txconnect transform test sub/my-mask/my-mask.wasm --input sub/my-mask/records.ndjson --expect ",
        ] {
            assert!(done.stdout.contains(line), "{line} is missing in:\n{}", done.stdout);
        }
        let made = folder.path().join("sub/my-mask");
        let all = [
            "README.md",
            ".gitignore",
            "config.json",
            "records.ndjson",
            "expected.ndjson",
            "wit/1.0.0/transform.wit",
        ];
        for file in files.iter().chain(&all) {
            let text = fs::read_to_string(made.join(file))
                .unwrap_or_else(|error| panic!("{language}: {file}: {error}"));
            assert!(!text.contains("{{name}}") && !text.contains("{{crate}}"), "{language}: {file}");
        }
        let again =
            txconnect(folder.path(), &["new", "transform", "my-mask", "--lang", language, "--dir", "sub"]);
        assert_eq!(again.code, Some(2));
        assert!(again.stderr.contains("sub/my-mask is there and not empty"), "{}", again.stderr);
    }
}

#[test]
fn a_new_transform_in_rust_builds_and_does_what_its_folder_expects() {
    let folder = tempfile::tempdir().unwrap();
    let called = |arguments: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_txconnect"))
            .args(arguments)
            .current_dir(folder.path())
            .env("TXCONNECT_CACHE_DIR", folder.path().join("cache"))
            // What it is built with is compiled once for all runs of this test.
            .env("CARGO_TARGET_DIR", concat!(env!("CARGO_TARGET_TMPDIR"), "/new_transform"))
            .output()
            .unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(0), "{arguments:?}: {said}");
        String::from_utf8(output.stdout).unwrap()
    };
    called(&["new", "transform", "my-mask", "--lang", "rust"]);
    let built = called(&["transform", "build", "my-mask"]);
    assert!(built.starts_with("my-mask/my-mask.wasm: my-mask "), "{built}");
    let records = ["--input", "my-mask/records.ndjson", "--expect", "my-mask/expected.ndjson"];
    let config = ["--config", "@my-mask/config.json"];
    let tested = called(&[&["transform", "test", "my-mask/my-mask.wasm"][..], &records, &config].concat());
    assert!(tested.contains(" as my-mask/expected.ndjson expects"), "{tested}");
}

#[test]
fn check_finds_what_is_wrong_with_transforms_at_its_place() {
    let folder = folder();
    let yaml = "source: { kafka: { brokers: b, topics: [t] } }\nsink: { stdout: {} }\ntransform:\n  - wasm: guest.wasm\n    \
                config: { fields: x }\n  - wasm: none.wasm\n";
    fs::write(folder.path().join("p.yaml"), yaml).unwrap();
    let done = txconnect(folder.path(), &["check", "p.yaml"]);
    assert_eq!(done.code, Some(2));
    for part in
        ["p.yaml:5:23: error: transform[0].config.fields: ", "p.yaml:6:11: error: transform[1].wasm: "]
    {
        assert!(done.stderr.contains(part), "{part} is missing in:\n{}", done.stderr);
    }
}
