//! Any text as a pipeline file. Behind a NUL byte come `--set` arguments, each behind a NUL of its own.

#![no_main]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use txconnect::config::{Place, load};

/// What a variable holds that must never be shown.
const SECRET: &str = "hunter2 \"and\" more";

/// A part of it that survives every kind of quoting.
const SHOWN: &str = "hunter2";

/// The pipeline file, in a folder with the schemas and a secret.
fn file() -> &'static Path {
    static FILE: OnceLock<PathBuf> = OnceLock::new();
    FILE.get_or_init(|| {
        let folder = std::env::temp_dir().join(format!("txconnect-fuzz-config-{}", std::process::id()));
        let schemas = Path::new(env!("CARGO_MANIFEST_DIR")).join("../schemas");
        fs::create_dir_all(folder.join("pipelines")).expect("a folder for files");
        fs::create_dir_all(folder.join("schemas")).expect("a folder for schemas");
        for entry in fs::read_dir(schemas).expect("the schemas of the repository") {
            let entry = entry.expect("the schemas of the repository");
            fs::copy(entry.path(), folder.join("schemas").join(entry.file_name()))
                .expect("room for a schema");
        }
        fs::write(folder.join("schemas/broken.json"), "{\"type\": 1,\n").expect("room for a schema");
        fs::write(folder.join("secret"), format!("{SECRET}\n")).expect("room for a secret");
        folder.join("pipelines/p.yaml")
    })
}

fn environment(name: &str) -> Option<String> {
    match name {
        "SECRET" => Some(SECRET.to_owned()),
        "NUMBER" => Some("42".to_owned()),
        "EMPTY" => Some(String::new()),
        _ => None,
    }
}

fuzz_target!(|data: &[u8]| {
    let mut parts = data.split(|byte| *byte == 0);
    let text = parts.next().unwrap_or_default();
    let overrides: Vec<String> = parts.take(8).map(|set| String::from_utf8_lossy(set).into_owned()).collect();
    fs::write(file(), text).expect("room for a file");
    let Err(mistakes) = load(&[file().to_owned()], &overrides, &environment) else { return };
    let text = String::from_utf8_lossy(text);
    // A carriage return alone ends a line of YAML too.
    let lines = text.lines().count() + text.matches('\r').count();
    for mistake in mistakes.as_slice() {
        if let Place::Position { file: place, line, column } = &mistake.place
            && **place == *file()
        {
            assert!((1..=lines + 1).contains(line), "line {line} of {lines}: {mistake}");
            assert!((1..=text.chars().count() + 1).contains(column), "column {column}: {mistake}");
        }
        if !data.windows(SHOWN.len()).any(|window| window == SHOWN.as_bytes()) {
            assert!(!mistake.to_string().contains(SHOWN), "a secret is shown: {mistake}");
        }
    }
});
