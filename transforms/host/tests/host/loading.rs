//! Files that are no transform, or none for this host.

use super::*;

#[track_caller]
fn refused(bytes: &[u8], why: &str, help: &str) {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("t.wasm");
    std::fs::write(&path, bytes).unwrap();
    let error = load_file(&path, limits(), &[]).err().unwrap();
    assert_eq!(error.path, path);
    assert!(error.why.contains(why), "{}", error.why);
    assert!(error.help.as_deref().unwrap_or_default().contains(help), "{:?}", error.help);
}

#[track_caller]
fn guest_refused(guest: &WatGuest, allow: &[Grant], why: &str, help: &str) {
    let error = load_with(guest, limits(), allow).err().unwrap();
    assert!(error.why.contains(why), "{}", error.why);
    assert!(error.help.as_deref().unwrap_or_default().contains(help), "{:?}", error.help);
}

#[test]
fn a_file_that_is_no_component_is_refused() {
    refused(b"", "is not WebAssembly", "txconnect transform build");
    refused(b"(module)", "is not WebAssembly", "txconnect transform build");
    refused(b"#!/bin/sh", "is not WebAssembly", "txconnect transform build");
    refused(
        &wat::parse_str("(module)").unwrap(),
        "is a core WebAssembly module",
        "txconnect transform build",
    );
    refused(
        &wat::parse_str("(component)").unwrap(),
        "it exports neither `txconnect:transform/batches@1.0.0`",
        "new",
    );
    refused(b"\0asm\x0d\0\x01\0\x01\xff\xff\xff", "cannot be compiled", "");
}

#[test]
fn a_file_that_is_missing_or_none_is_refused() {
    let folder = TempDir::new().unwrap();
    let error = load_file(&folder.path().join("none.wasm"), limits(), &[]).err().unwrap();
    assert_eq!(error.why, "does not exist");
    assert!(error.help.unwrap().contains("txconnect transform build"));
    let error = load_file(folder.path(), limits(), &[]).err().unwrap();
    assert_eq!(error.why, "is not a regular file");
    let large = folder.path().join("large.wasm");
    std::fs::File::create(&large).unwrap().set_len((64 << 20) + 1).unwrap();
    assert_eq!(load_file(&large, limits(), &[]).err().unwrap().why, "is larger than 64 MiB");
}

#[test]
fn another_version_of_the_interface_is_named() {
    let guest = WatGuest::default().version("2.3.0");
    guest_refused(
        &guest,
        &[],
        "was built for version 2.3.0 of the interface, and this txconnect knows 1.0.0",
        "SDK",
    );
}

#[test]
fn imports_that_are_not_granted_are_named() {
    let asking = |package: &str, interface: &str, function: &str, flat: &str| {
        WatGuest::default().importing(
            &format!("import {package}/{interface}@0.2.6"),
            &format!("package {package}@0.2.6 {{ interface {interface} {{ {function}; }} }}"),
            &format!(r#"(import "{package}/{interface}@0.2.6" {flat})"#),
        )
    };
    let clock =
        asking("wasi:clocks", "monotonic-clock", "now: func() -> u64", r#""now" (func (result i64))"#);
    guest_refused(&clock, &[], "`wasi:clocks/monotonic-clock@0.2.6`", "`allow: [clock]`");
    guest_refused(&clock, &[Grant::Random], "`wasi:clocks/monotonic-clock@0.2.6`", "`allow: [clock]`");
    load_with(&clock, limits(), &[Grant::Clock]).unwrap();

    let random = asking(
        "wasi:random",
        "random",
        "get-random-u64: func() -> u64",
        r#""get-random-u64" (func (result i64))"#,
    );
    guest_refused(&random, &[], "`wasi:random/random@0.2.6`", "`allow: [random]`");
    load_with(&random, limits(), &[Grant::Random]).unwrap();

    let everything = [Grant::Clock, Grant::Random];
    let network = asking("wasi:sockets", "instance-network", "f: func()", r#""f" (func)"#);
    guest_refused(
        &network,
        &everything,
        "what no transform gets: `wasi:sockets/instance-network@0.2.6`",
        "take out",
    );
    let unknown = asking("foreign:thing", "other", "f: func()", r#""f" (func)"#);
    guest_refused(&unknown, &everything, "what no transform gets: `foreign:thing/other@0.2.6`", "take out");
    // A name that is known, with a function that is not.
    let clock = asking("wasi:clocks", "wall-clock", "stop: func()", r#""stop" (func)"#);
    guest_refused(&clock, &everything, "does not fit the interface", "SDK");
}

#[test]
fn a_guest_that_cannot_describe_itself_is_refused() {
    guest_refused(
        &WatGuest::default().describe("(unreachable)"),
        &[],
        "cannot describe itself: wasm trap",
        "",
    );
    guest_refused(
        &WatGuest::default().describe("(i32.store offset=4 (i32.const 1024) (i32.const 0)) (i32.const 1024)"),
        &[],
        "a name that is not 1 to 64 printable characters",
        "",
    );
    guest_refused(
        &WatGuest::default()
            .describe("(i32.store offset=12 (i32.const 1024) (i32.const 65)) (i32.const 1024)"),
        &[],
        "a version that is not 1 to 64 printable characters",
        "",
    );
}

/// A guest with this schema of its config.
fn with_schema(schema: &str) -> WatGuest {
    let body = format!(
        "(i32.store offset=20 (i32.const 1024) (i32.const 8192))
         (i32.store offset=24 (i32.const 1024) (i32.const {}))
         (i32.const 1024)",
        schema.len()
    );
    WatGuest::default()
        .describe(&body)
        .with(&format!("(data (i32.const 8192) \"{}\")", schema.replace('"', "\\22")))
}

#[test]
fn a_config_schema_that_is_none_is_refused() {
    guest_refused(&with_schema("{"), &[], "a config schema that is not JSON", "");
    guest_refused(&with_schema(r#"{"type": "text"}"#), &[], "a config schema that is no JSON Schema", "");
    let remote = r#"{"$ref": "https://example.com/schema.json"}"#;
    guest_refused(&with_schema(remote), &[], "a config schema that is no JSON Schema", "");
    let backwards = r#"{"pattern": "(a)\\1"}"#;
    guest_refused(&with_schema(&backwards.replace('\\', "\\5c")), &[], "config schema", "");
}

#[test]
fn every_problem_of_a_config_is_found_and_no_value_shown() {
    let schema = r#"{"type": "object", "properties": {"keep": {"type": "integer"}, "names": {"items": {"type": "string"}}}, "additionalProperties": false}"#;
    let module = load_with(&with_schema(schema), limits(), &[]).unwrap();
    assert!(module.config_problems(Some(&serde_json::json!({"keep": 4}))).is_empty());
    let wrong = serde_json::json!({"keep": "s3cret", "names": ["a", 1]});
    let problems = module.config_problems(Some(&wrong));
    let mut paths: Vec<&str> = problems.iter().map(|problem| problem.path.as_str()).collect();
    paths.sort_unstable();
    assert_eq!(paths, ["/keep", "/names/1"]);
    assert!(problems.iter().all(|problem| !problem.message.contains("s3cret")), "{problems:?}");
    assert_eq!(module.config_problems(None).len(), 1, "it wants an object");
}

#[test]
fn a_guest_without_a_schema_takes_no_config() {
    let module = load_with(&WatGuest::default(), limits(), &[]).unwrap();
    assert!(module.config_problems(None).is_empty() && module.config_problems(Some(&Json::Null)).is_empty());
    let problems = module.config_problems(Some(&serde_json::json!({})));
    assert_eq!(problems[0].message, "the transform by-w takes no config");
}

#[test]
fn a_module_says_what_it_is() {
    let module = load_with(&WatGuest::default(), limits(), &[]).unwrap();
    let description = module.description();
    assert_eq!((description.name.as_str(), description.version.as_str()), ("by-w", "1.2.3"));
    assert_eq!(description.abi.to_string(), "txconnect:transform/batches@1.0.0");
    assert_eq!(module.exports(), ["txconnect:transform/batches@1.0.0"]);
    assert!(
        module.imports().iter().all(|name| name.starts_with("txconnect:transform/")),
        "{:?}",
        module.imports()
    );
    assert!(module.size() > 100);
}

#[test]
fn compiled_code_is_kept_and_found_again() {
    let folder = TempDir::new().unwrap();
    let cache = folder.path().join("kept/here");
    let guest = WatGuest::default().write(folder.path());
    let load = || {
        Host::new(Some(&cache)).unwrap().load(&guest, limits(), &[]).unwrap();
        // Beside them lies what the cache notes of their use.
        let compiled = walk(&cache).into_iter().filter(|path| path.extension().is_none());
        let written = |path: &std::path::PathBuf| path.metadata().unwrap().modified().unwrap();
        compiled.map(|path| (written(&path), path)).collect::<Vec<_>>()
    };
    let kept = load();
    assert_eq!(kept.len(), 1, "{kept:?}");
    assert_eq!(load(), kept, "it was not written again");
}

fn walk(folder: &Path) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { walk(&path) } else { vec![path] }).collect()
}

#[test]
fn a_cache_that_cannot_be_or_that_others_write_into_is_not_used() {
    use std::os::unix::fs::PermissionsExt;

    let folder = TempDir::new().unwrap();
    let guest = WatGuest::default().write(folder.path());
    // A file stands where the folder would be.
    Host::new(Some(&guest.join("cache"))).unwrap().load(&guest, limits(), &[]).unwrap();
    let shared = folder.path().join("shared");
    std::fs::create_dir(&shared).unwrap();
    std::fs::set_permissions(&shared, std::fs::Permissions::from_mode(0o777)).unwrap();
    Host::new(Some(&shared)).unwrap().load(&guest, limits(), &[]).unwrap();
    assert!(walk(&shared).is_empty());
}
