//! The blocks `transform` and `output`.

use super::*;

#[path = "../../../tests/guests/mod.rs"]
mod guests;

/// What the guest of these tests takes as config.
const SCHEMA: &str = r#"{"type":["object","boolean","null"],"properties":{"fields":{"type":"array","items":{"type":"string"}}},"additionalProperties":false}"#;

pub(super) fn guest() -> Vec<u8> {
    guests::by_number(SCHEMA)
}

/// A pipeline from `t` to stdout.
fn with(rest: &str) -> String {
    format!("{SMALLEST}{rest}")
}

/// One from `t` to Postgres, which needs columns and a key.
fn into_postgres(rest: &str) -> String {
    format!(
        "source: {{ kafka: {{ brokers: b, topics: [t] }} }}\nsink: {{ postgres: {{ url: 'postgresql://h/d', write: \
         upsert, key: [id] }} }}\n{rest}"
    )
}

#[test]
fn all_mistakes_of_transforms_come_at_once_and_at_their_places() {
    let yaml = with(
        "transform:\n\
         \x20 - wasm: none.wasm\n\
         \x20 - wasm: p.yaml\n\
         \x20   allow: [clok]\n\
         \x20 - wasm: guest.wasm\n\
         \x20   config:\n\
         \x20     fields: [a, 7]\n\
         \x20     others: x\n\
         \x20 - wasm: guest.wasm\n\
         \x20   config: false\n\
         \x20 - wasm: guest.wasm\n\
         \x20   limits: { memory: 1KiB, time_per_batch: 2m }\n\
         \x20 - wasm: schemas\n\
         \x20   config: ${NOPE}\n\
         \x20 - config: {}\n\
         \x20 - wasm: p.yaml\n\
         output:\n\
         \x20 unknown_fields: ignore\n\
         \x20 topics: [a, 'b c', a, '..']\n",
    );
    insta::assert_snapshot!(complaints(&yaml));
}

#[test]
fn a_transform_is_one_of_a_list() {
    let found = complaints(&with("transform: { wasm: guest.wasm }\n"));
    assert!(
        found.starts_with("p.yaml:3:12: error: transform: must be a list\n  help: put `- ` before it"),
        "{found}"
    );
    let found = complaints(&with("transform: guest.wasm\n"));
    assert!(found.starts_with("p.yaml:3:12: error: transform: must be a list"), "{found}");
}

#[test]
fn a_transform_is_loaded_once_for_all_pipelines_and_starts_beside_a_folder_named_pipelines() {
    let dir = folder(&[]);
    std::fs::create_dir(dir.path().join("pipelines")).unwrap();
    let yaml = with("transform: [{ wasm: guest.wasm, allow: [random, clock] }]\n");
    std::fs::write(dir.path().join("pipelines/a.yaml"), &yaml).unwrap();
    let other = yaml.replace("random, clock", "clock, random, clock").replace("topics: [t]", "topics: [u]");
    std::fs::write(dir.path().join("pipelines/b.yaml"), other).unwrap();
    let pipelines = load_in(dir.path(), &["pipelines"], &[]).unwrap();
    let modules: Vec<_> = pipelines.iter().map(|pipeline| &pipeline.transforms[0].module).collect();
    assert!(std::sync::Arc::ptr_eq(modules[0], modules[1]));
    assert_eq!(modules[0].path(), dir.path().join("guest.wasm"));
}

#[test]
fn transforms_need_no_json_and_schemas_do() {
    let transform = "transform: [{ wasm: guest.wasm }]\n";
    assert_eq!(right(&with(&format!("decode: bytes\n{transform}"))).transforms.len(), 1);
    let found = complaints(&with(&format!(
        "decode: bytes\n{transform}output: {{ schema: 'schemas/{{topic}}.json' }}\n"
    )));
    assert_eq!(
        found,
        "p.yaml:3:9: error: decode: `output.schema` needs JSON documents\n  help: write `decode: json`, or remove \
         `output.schema`\n1 mistake"
    );
}

#[test]
fn output_without_transforms_is_a_mistake() {
    for rest in ["output: { topics: [u] }\n", "transform: []\noutput:\n"] {
        let found = complaints(&with(rest));
        assert!(
            found.contains("error: output: says what leaves the transforms, and there is no `transform`"),
            "{found}"
        );
    }
}

#[test]
fn a_config_of_the_environment_reaches_the_transform_and_no_message() {
    let yaml = with("transform: [{ wasm: guest.wasm, config: { fields: ['${SECRET}'] } }]\n");
    assert_eq!(right(&yaml).transforms[0].config, Some(serde_json::json!({ "fields": ["hunter2-äö"] })));
    let found = complaints(&with("transform: [{ wasm: guest.wasm, config: { fields: '${SECRET}' } }]\n"));
    assert!(found.starts_with("p.yaml:3:51: error: transform[0].config.fields: "), "{found}");
    let found = complaints(&with("transform: [{ wasm: '${SECRET}/x.wasm' }]\n"));
    assert!(found.contains("${SECRET}/x.wasm"), "{found}");
}

#[test]
fn limits_that_are_odd_are_warnings() {
    let warnings = |limits: &str| {
        let pipeline =
            right(&with(&format!("transform: [{{ wasm: guest.wasm, limits: {{ {limits} }} }}]\n")));
        pipeline.warnings.iter().map(|warning| warning.message.clone()).collect::<Vec<_>>()
    };
    assert!(warnings("time_per_batch: 5s").is_empty());
    assert!(
        warnings("time_per_batch: 6s")[0]
            .starts_with("is long for a pipeline that must hand over a partition within 10s")
    );
    assert!(warnings("interrupt: none").is_empty());
    assert!(warnings("interrupt: none, time_per_batch: 9s")[0].starts_with("has no effect"));
}

#[test]
fn the_sink_asks_what_leaves_the_transforms_and_not_what_comes_in() {
    // Without the key, and with a type that gives no column.
    let input = r#"{"type": "object", "properties": {"x": {"type": ["integer", "array"]}}}"#;
    let output = r#"{"type": "object", "properties": {"id": {"type": "integer"}}, "required": ["id"]}"#;
    let yaml = into_postgres(
        "validate: { schema: in.json }\ntransform: [{ wasm: guest.wasm }]\noutput: { schema: '{topic}.out.json', \
         topics: [u] }\n",
    );
    let files =
        [("p.yaml", yaml.as_str()), ("in.json", input), ("t.out.json", output), ("u.out.json", output)];
    let dir = folder(&files);
    let pipeline =
        load_in(dir.path(), &["p.yaml"], &[]).unwrap_or_else(|mistakes| panic!("{mistakes}")).remove(0);
    // What a pattern finds later is read by the same rule.
    for topic in ["t", "later"] {
        assert!(pipeline.schema_for(topic).unwrap().is_some(), "{topic}");
    }
    for topic in ["t", "u"] {
        let schema = pipeline.output_schema_for(topic).unwrap().unwrap();
        assert_eq!(schema.table.as_ref().unwrap().columns.as_slice().len(), 1, "{topic}");
    }
    assert!(pipeline.output_schema_for("later").is_err());

    let bad = [("p.yaml", yaml.as_str()), ("in.json", input), ("t.out.json", input)];
    insta::assert_snapshot!(complaints_of(&bad, &[]));
    let without = into_postgres("transform: [{ wasm: guest.wasm }]\n");
    let found = complaints(&without);
    assert!(found.contains("have no schema, and PostgreSQL tables need columns"), "{found}");
}

#[test]
fn without_a_schema_of_its_own_a_route_needs_one_like_a_topic_that_is_read() {
    let yaml = into_postgres(
        "validate: { schema: '{topic}.json' }\ntransform: [{ wasm: guest.wasm }]\noutput: { topics: [u, v] }\n",
    );
    let good = r#"{"type": "object", "properties": {"id": {"type": "integer"}}, "required": ["id"]}"#;
    let keyless = r#"{"type": "object", "properties": {"x": {"type": "integer"}}}"#;
    let files = [("p.yaml", yaml.as_str()), ("t.json", good), ("u.json", keyless)];
    insta::assert_snapshot!(complaints_of(&files, &[]));
    let files = [("p.yaml", yaml.as_str()), ("t.json", good), ("u.json", good), ("v.json", good)];
    let dir = folder(&files);
    let pipeline =
        load_in(dir.path(), &["p.yaml"], &[]).unwrap_or_else(|mistakes| panic!("{mistakes}")).remove(0);
    assert_eq!(pipeline.routes, ["u", "v"]);
    assert!(pipeline.output.is_none() && pipeline.output_schema_for("v").unwrap().is_some());
}
