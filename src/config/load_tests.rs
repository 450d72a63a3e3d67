//! Whole files through [`super::load`]: what a user writes and what a user reads.

mod transforms;

use std::path::{Path, PathBuf};

use proptest::prelude::*;
use txconnect_connector_api::ByteSize;

use super::model::{OnError, Pipeline, Reaction};
use super::{Mistakes, load};

/// The values of these must never be seen in a message.
const SECRETS: [(&str, &str); 3] = [("SECRET", "hunter2-äö"), ("NUMBER", "1234567"), ("TYPO", "jsno")];

fn environment(name: &str) -> Option<String> {
    SECRETS.iter().find(|(secret, _)| *secret == name).map(|(_, value)| (*value).to_owned())
}

/// A folder with a schema for topic `t` and the given files.
fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("schemas")).unwrap();
    let schema = r#"{"type": "object", "properties": {"id": {"type": "integer"}}, "required": ["id"]}"#;
    std::fs::write(dir.path().join("schemas/t.json"), schema).unwrap();
    std::fs::write(dir.path().join("guest.wasm"), transforms::guest()).unwrap();
    for (name, text) in files {
        std::fs::write(dir.path().join(name), text).unwrap();
    }
    dir
}

fn load_in(dir: &Path, names: &[&str], overrides: &[&str]) -> Result<Vec<Pipeline>, Mistakes> {
    let paths: Vec<PathBuf> = names.iter().map(|name| dir.join(name)).collect();
    let overrides: Vec<String> = overrides.iter().map(|&text| text.to_owned()).collect();
    load(&paths, &overrides, &environment)
}

fn complaints_of(files: &[(&str, &str)], overrides: &[&str]) -> String {
    let dir = folder(files);
    let names: Vec<&str> =
        files.iter().map(|(name, _)| *name).filter(|name| name.ends_with("yaml")).collect();
    let mistakes = load_in(dir.path(), &names, overrides).expect_err("a mistake").to_string();
    for (_, secret) in SECRETS {
        assert!(!mistakes.contains(secret), "{mistakes}");
    }
    mistakes.replace(&format!("{}/", dir.path().display()), "")
}

fn complaints(yaml: &str) -> String {
    complaints_of(&[("p.yaml", yaml)], &[])
}

fn right(yaml: &str) -> Pipeline {
    let dir = folder(&[("p.yaml", yaml)]);
    load_in(dir.path(), &["p.yaml"], &[]).unwrap_or_else(|mistakes| panic!("{mistakes}")).remove(0)
}

const SMALLEST: &str = "source: { kafka: { brokers: 'b:9092', topics: [t] } }\nsink: { stdout: {} }\n";

#[test]
fn a_small_file_gets_the_documented_defaults() {
    let pipeline = right(SMALLEST);
    assert_eq!((pipeline.name.as_str(), pipeline.group.as_str()), ("p", "connect-p"));
    assert_eq!((pipeline.batch.rows.get(), pipeline.batch.bytes), (500, ByteSize(8 << 20)));
    assert_eq!(pipeline.memory, ByteSize(48 << 20));
    let stop = Reaction::Stop;
    assert_eq!(pipeline.on_error, OnError { decode: stop, validate: stop, transform: stop, sink: stop });
    assert!(pipeline.schema_for("t").unwrap().is_none() && pipeline.warnings.is_empty());
    assert_eq!(pipeline.sink.name(), "stdout");
}

#[test]
fn a_full_file_is_read_as_written() {
    let yaml = "\
name: transactions
source:
  kafka:
    brokers: ${KAFKA_BROKERS:-localhost:9092}
    topics: [t]
    group: g
decode: json
validate:
  schema: schemas/{topic}.json
  unknown_fields: ignore
transform:
  - wasm: guest.wasm
    config: { fields: [a, '${NUMBER}'] }
    limits: { memory: 64MiB, time_per_batch: 500ms, interrupt: fuel, max_outputs_per_record: 3, max_failures: 1 }
    allow: [clock]
output:
  schema: schemas/{topic}.json
  unknown_fields: ignore
  topics: [t]
on_error: { sink: stop }
batch: { rows: 10, bytes: 1MiB, linger: 50ms }
dead_letters: { topic: '{topic}.dead-letters', partitions: 3 }
memory: 16MiB
lanes: 2
stalled_after: 90s
sink:
  bigquery:
    project: project-${NUMBER}
    dataset: d
    table: '{topic}'
";
    let pipeline = right(yaml);
    for key in super::pipeline_schema()["properties"].as_object().unwrap().keys() {
        assert!(yaml.contains(&format!("{key}:")), "the documented key {key} is missing in this test");
    }
    assert_eq!((pipeline.name.as_str(), pipeline.group.as_str()), ("transactions", "g"));
    assert_eq!(pipeline.source.brokers, "localhost:9092");
    assert_eq!(pipeline.on_error.validate, Reaction::DeadLetter);
    assert_eq!(pipeline.on_error.sink, Reaction::Stop);
    let [transform] = pipeline.transforms.as_slice() else {
        panic!("{} transforms", pipeline.transforms.len())
    };
    assert_eq!(transform.module.description().name, "by-number");
    assert_eq!(transform.config, Some(serde_json::json!({ "fields": ["a", "1234567"] })));
    assert_eq!((transform.limits.memory, transform.limits.max_failures), (ByteSize(64 << 20), 1));
    assert_eq!(pipeline.routes, ["t"]);
    let schema = pipeline.schema_for("t").unwrap().expect("a schema");
    assert_eq!(schema.table.as_ref().unwrap().columns.as_slice().len(), 1);
    assert_eq!(pipeline.dead_letters.unwrap().topic.for_topic("t"), "t.dead-letters");
    assert_eq!(pipeline.sink.name(), "bigquery");
    assert_eq!((pipeline.batch.rows.get(), pipeline.batch.bytes), (10, ByteSize(1 << 20)));
    assert_eq!(
        (pipeline.memory, pipeline.lanes.map(std::num::NonZeroU16::get)),
        (ByteSize(16 << 20), Some(2))
    );
}

#[test]
fn all_mistakes_of_a_file_come_at_once_and_in_order() {
    let found = complaints(
        "nmae: x\nsource:\n  kafka:\n    topics: t\n    strat: latest\ndecode: jsno\nbatch:\n  rows: many\n  \
         bytes: 8\n  linger:\nmemory: 1GiB\nsink:\n  bigquery:\n    datset: d\n    project: 7\n",
    );
    insta::assert_snapshot!(found);
}

#[test]
fn a_mistake_in_one_block_hides_none_in_another() {
    let found = complaints(
        "source: { kafka: { brokers: b } }\nbatch: { rows: 0 }\nvalidate: { schema: none.json }\n\
         dead_letters: { topic: 'a b' }\nmemory: 1KiB\non_error: { decod: skip, sink: ignore }\n\
         sink: { bigquery: { project: p, dataset: 'a-b' } }\n",
    );
    insta::assert_snapshot!(found);
}

#[test]
fn positions_hold_with_other_characters_line_ends_and_styles() {
    let found = complaints(
        "\u{feff}# äöü\r\nsource: {kafka: {brokers: \"ä\", topics: ['é'], \"grup\": x}}\r\nname: >\r\n  Üx\r\n  \
         y\r\nbatch: &b {rows: -1}\r\nlanes: !!str 3\r\nsink: {stdout: {envelope: 'yes'}}\r\n",
    );
    insta::assert_snapshot!(found);
}

#[test]
fn anchors_and_merge_keys_are_followed_and_bounded() {
    let pipeline = right(
        "source:\n  kafka: &k\n    brokers: b\n    topics: &t [t]\n    properties: &p { client.rack: x }\nsink: { stdout: {} }\nlanes: 1\n",
    );
    assert_eq!(pipeline.lanes.map(std::num::NonZeroU16::get), Some(1));
    let found = complaints(
        "source:\n  kafka: { <<: &d { brokers: b, topics: [t], grup: x }, brokers: c }\nbatch: { <<: 7 }\nsink: { stdout: *d }\n",
    );
    insta::assert_snapshot!(found);
    let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x]\n");
    for level in 1..12 {
        let before = format!("*a{}", level - 1);
        let line = format!("a{level}: &a{level} [{}]\n", vec![before; 9].join(", "));
        bomb.push_str(&line);
    }
    assert!(complaints(&bomb).contains("aliases make more than 100000 values"));
    let deep = "[".repeat(200);
    assert!(complaints(&deep).contains("levels of nesting"), "{}", complaints(&deep));
}

#[test]
fn mistakes_of_the_text_itself_are_told_with_their_place() {
    let cases = [
        ("", "p.yaml:1:1: error: the file is empty"),
        ("# nothing\n", "p.yaml:1:1: error: the file is empty"),
        ("a: 1\n---\nb: 1\n", "p.yaml:2:1: error: a second YAML document starts here"),
        ("a: 1\nb: 2\na: 3\n", "p.yaml:3:1: error: the key `a` is given twice, first in line 1"),
        ("a:\n\tb: 1\n", "p.yaml:2:1: error: this is not YAML"),
        ("é: 1\nx: é\u{7}\n", "p.yaml:2:5: error: this control character has no place"),
        ("a: 1\0b: 2", "p.yaml:1:5: error: this control character has no place"),
        ("a: 1\rb: 2\r\nc: \0", "p.yaml:3:4: error: this control character has no place"),
        ("a: {b: 1\n", "error: this is not YAML"),
        ("a: b: c\n", "p.yaml:1:5: error: this is not YAML"),
        ("a: *x\n", "p.yaml:1:4: error: this is not YAML"),
        ("a: &x [*x]\n", "p.yaml:1:8: error: this alias stands inside its own anchor"),
        ("a: {topic}/x\n", "p.yaml:1:11: error: this is not YAML"),
        ("{a: 1}: 2\n", "p.yaml:1:1: error: a key must be a word"),
        ("a: !env X\n", "p.yaml:1:4: error: YAML tags have no meaning here"),
        ("- a\n", "p.yaml:1:1: error: must be a mapping"),
        ("name: 5\nname: 6\nname: 7\n", "p.yaml:3:1: error: the key `name` is given twice, first in line 2"),
    ];
    for (yaml, expected) in cases {
        let found = complaints(yaml);
        assert!(found.contains(expected), "{yaml:?} gave {found}");
    }
    let dir = folder(&[]);
    std::fs::write(dir.path().join("p.yaml"), b"a: 1\n\xc3\xa9: \xff\n").unwrap();
    let found = load_in(dir.path(), &["p.yaml"], &[]).unwrap_err().to_string();
    assert!(found.contains("p.yaml:2:4: error: this is not UTF-8 text"), "{found}");
}

#[test]
fn undefined_variables_are_found_at_their_own_column_and_hide_nothing_else() {
    let found = complaints(
        "source:\n  kafka:\n    brokers: \"é${NOPE},${NOPE_2}\"\n    topics: [ t ]\n    \
         sasl: { mechanism: plain, username: u, password: '${file:missing}' }\nsink: { stdot: {} }\n",
    );
    insta::assert_snapshot!(found);
}

#[test]
fn a_byte_order_mark_and_carriage_returns_move_no_column() {
    let found = complaints("\u{feff}name: \"${NOPE}\"\r\ndecode:   x${NOPE}\r\nlanes: 'é' \r\n");
    for place in ["p.yaml:1:8: error: name:", "p.yaml:2:12: error: decode:", "p.yaml:3:8: error: lanes:"] {
        assert!(found.contains(place), "{found}");
    }
}

#[test]
fn values_from_outside_never_appear_in_a_message() {
    let dir = folder(&[("secret", "geheim-42\n")]);
    let yaml = "name: ${SECRET}\nsource: { kafka: { brokers: b, topics: ['${SECRET}'], group: g, \
                properties: { no.such: '${SECRET}' } } }\ndecode: ${TYPO}\nbatch: { rows: '${SECRET}', bytes: \
                '${NUMBER}' }\nvalidate: { schema: '${SECRET}/${file:secret}.json' }\nsink: { bigquery: { \
                project: '${SECRET}', dataset: '${file:secret}', cluster_by: ['${NUMBER}', '${NUMBER}'] } }\n";
    std::fs::write(dir.path().join("p.yaml"), yaml).unwrap();
    let found = load_in(dir.path(), &["p.yaml"], &[]).unwrap_err().to_string();
    for (_, secret) in SECRETS {
        assert!(!found.contains(secret), "{found}");
    }
    assert!(!found.contains("geheim"), "{found}");
    insta::assert_snapshot!(found.replace(&format!("{}/", dir.path().display()), ""));
}

#[test]
fn a_variable_that_looks_like_a_number_may_stand_for_text() {
    let yaml = "source: { kafka: { brokers: b, topics: [t], sasl: { mechanism: plain, username: u, \
                password: \"${NUMBER}\" } } }\nsink: { stdout: {} }\n";
    let block = "source:\n  kafka:\n    brokers: ${NUMBER}\n    topics:\n      - t\nsink: { stdout: {} }\n";
    assert_eq!(right(yaml).source.sasl.unwrap().password.expose(), "1234567");
    assert_eq!(right(block).source.brokers, "1234567");
}

#[test]
fn keys_that_do_not_fit_each_other_are_told() {
    let found = complaints(
        "source: { kafka: { brokers: b, topics: [t, t.dead] } }\ndecode: string\nvalidate: { schema: \
         'schemas/{topic}.json' }\nbatch: { rows: 60000, bytes: 16MiB }\nmemory: 32MiB\ndead_letters: { topic: \
         '{topic}.dead' }\non_error: skip\nsink: { bigquery: { project: p-1, dataset: d, api: insert_all } }\n",
    );
    insta::assert_snapshot!(found);
    let found = complaints(&format!("{SMALLEST}on_error: {{ decode: dead_letter, sink: skip }}\n"));
    assert!(found.starts_with("p.yaml:3:21: error: on_error.decode: dead letters need a topic"), "{found}");
    let found = complaints(&format!("{SMALLEST}on_error: dead_letter\n"));
    assert!(found.starts_with("p.yaml:3:11: error: on_error: dead letters need a topic"), "{found}");
    let found = complaints(
        "source: { kafka: { brokers: b, pattern: 'd.*' } }\ndead_letters: { topic: dead }\nsink: { stdout: {} }\n",
    );
    assert!(found.contains("2:24: error: dead_letters.topic: the pattern of the source matches"), "{found}");
}

#[test]
fn a_pattern_never_reads_its_own_dead_letters() {
    let reads = right(
        "source: { kafka: { brokers: b, pattern: 'cash.*' } }\ndead_letters: { topic: '{topic}.dead-letters' }\n\
         sink: { stdout: {} }\n",
    )
    .topic_filter();
    assert!(reads("cash_ins") && reads("cash") && !reads("x") && !reads("cash_ins.dead-letters"));
    assert!(!reads("cash_ins.dead-letters.dead-letters"));
    let listed = right(SMALLEST).topic_filter();
    assert!(listed("t") && !listed("u"));
}

#[test]
fn a_block_that_needs_no_key_may_be_left_empty() {
    let yaml = "source:\n  kafka:\n    brokers: b\n    topics: [t]\nbatch:\nsink:\n  stdout:\n";
    assert_eq!(right(yaml).sink.name(), "stdout");
    let found = complaints("source: { kafka: { brokers: b, topics: [t] } }\ndead_letters:\nsink:\n");
    insta::assert_snapshot!(found);
}

#[test]
fn values_of_every_kind_are_wanted_in_plain_words() {
    let found = complaints(
        "source:\n  kafka:\n    brokers: [b]\n    topics: [1, t]\n    start: 5\n    properties: { a: [1], b: 1 }\n    \
         sasl: { mechanism: plan, username: u, password: 1 }\n    on_lost_offsets: earlyest\nvalidate: \
         schemas/{topic}.json\ndead_letters: { topic: '{topik}' }\non_error: 3\nlanes: 1.5\nmemory: 99999999999GiB\n\
         sink:\n  bigquery:\n    project: p-1\n    dataset: d\n    credentials: { service_account: x }\n    \
         cluster_by: a\n    in_flight: 70000\n    labels: { a: 1 }\n",
    );
    insta::assert_snapshot!(found);
    let found = complaints("source: kafka\nsink: stdout\ndecode: true\nbatch: [1]\non_error: [skip]\n");
    insta::assert_snapshot!(found);
}

#[test]
fn limits_that_are_not_chosen_follow_from_those_that_are() {
    assert_eq!(right(&format!("{SMALLEST}memory: 4MiB\n")).batch.bytes, ByteSize(1 << 20));
    let found = complaints(&format!("{SMALLEST}memory: 3KiB\n"));
    assert!(found.starts_with("p.yaml:3:9: error: memory: 3KiB is too little: the least is 4KiB"), "{found}");
}

#[test]
fn a_sink_is_exactly_one_connector() {
    let source = "source: { kafka: { brokers: b, topics: [t] } }\n";
    let found = complaints(&format!("{source}sink: {{}}\n"));
    assert!(
        found.starts_with(
            "p.yaml:2:1: error: sink: is empty; it must be a mapping with `bigquery`, `postgres` or `stdout`"
        ),
        "{found}"
    );
    let found =
        complaints(&format!("{source}sink: {{ stdout: {{}}, bigquery: {{ project: p, dataset: d }} }}\n"));
    assert!(found.starts_with("p.yaml:2:21: error: sink.bigquery: only 1 key may stand here"), "{found}");
    let found = complaints(source);
    assert!(found.starts_with("p.yaml:1:1: error: `sink` is missing"), "{found}");
}

#[test]
fn schema_files_are_checked_where_they_stand() {
    let pipeline = "source: { kafka: { brokers: b, topics: [a, b, c, d] } }\nvalidate: { schema: '{topic}.json' }\n\
                    sink: { bigquery: { project: p-1, dataset: d } }\n";
    let found = complaints_of(
        &[
            ("p.yaml", pipeline),
            ("a.json", "{\n  \"é\": tru\n}\n"),
            ("b.json", "{\n  \"type\": \"object\",\n\t\"properties\": { \"x\": { \"type\": 7 } }\n}"),
            ("c.json", "{\"type\": \"string\"}"),
        ],
        &[],
    );
    insta::assert_snapshot!(found);
}

#[test]
fn neighbours_must_not_share_names_groups_or_dead_letters() {
    let one = "name: same\nsource: { kafka: { brokers: b, topics: [t, u], group: g } }\n\
               dead_letters: { topic: dead }\nsink: { stdout: {} }\n";
    let two = "name: same\nsource: { kafka: { brokers: b, topics: [u], group: g } }\nsink: { stdout: {} }\n";
    let three = "source: { kafka: { brokers: b, pattern: '[t-z]', group: g } }\nsink: { stdout: {} }\n";
    let four = "source: { kafka: { brokers: b, topics: [dead] } }\nsink: { stdout: {} }\n";
    let found = complaints_of(&[("a.yaml", one), ("b.yaml", two), ("c.yaml", three), ("d.yaml", four)], &[]);
    insta::assert_snapshot!(found);
}

#[test]
fn warnings_stay_with_their_pipeline() {
    let reads = "source: { kafka: { brokers: b, topics: [dead] } }\nsink: { stdout: {} }\n";
    let dir =
        folder(&[("a.yaml", &format!("{SMALLEST}dead_letters: {{ topic: dead }}\n")), ("b.yaml", reads)]);
    let pipelines = load_in(dir.path(), &["a.yaml", "b.yaml"], &[]).unwrap();
    assert_eq!((pipelines[0].warnings.len(), pipelines[1].warnings.len()), (1, 0));
    assert!(pipelines[0].warnings[0].message.starts_with("the dead letters in `dead` are read by "));
}

#[test]
fn folders_stand_for_their_files_and_a_file_is_loaded_once() {
    let dir = folder(&[("b.yaml", SMALLEST), ("a.yml", SMALLEST), (".c.yaml", "hidden"), ("d.txt", "other")]);
    let overrides = ["source.kafka.group=own", "source.kafka.topics=[t]"];
    let found = load_in(dir.path(), &["", "b.yaml"], &overrides).unwrap_err().to_string();
    assert!(found.contains("reads topic `t` in the same group"), "{found}");
    let pipelines = load_in(dir.path(), &["b.yaml", "./b.yaml"], &[]).unwrap();
    assert_eq!(pipelines.len(), 1);
    let found = load_in(dir.path(), &["schemas", "none.yaml"], &[]).unwrap_err().to_string();
    assert!(found.contains("schemas: error: this folder holds no pipeline file"), "{found}");
    assert!(found.contains("none.yaml: error: this file does not exist"), "{found}");
    let found = load(&[], &[], &environment).unwrap_err().to_string();
    assert!(found.contains("no pipeline file is named"), "{found}");
}

#[test]
fn paths_start_beside_a_folder_named_pipelines() {
    let dir = folder(&[]);
    std::fs::create_dir(dir.path().join("pipelines")).unwrap();
    let yaml = format!("{SMALLEST}validate: {{ schema: 'schemas/{{topic}}.json' }}\n");
    std::fs::write(dir.path().join("pipelines/p.yaml"), yaml).unwrap();
    let pipelines = load_in(dir.path(), &["pipelines"], &[]).unwrap();
    assert_eq!(pipelines[0].base_dir, dir.path());
    assert!(pipelines[0].schema_for("u").unwrap_err().to_string().contains("does not exist"));
}

#[test]
fn overrides_reach_every_file_and_their_mistakes_name_them() {
    let dir = folder(&[("p.yaml", SMALLEST)]);
    let pipelines = load_in(dir.path(), &["p.yaml"], &["batch.rows=7", "lanes=3"]).unwrap();
    assert_eq!(pipelines[0].batch.rows.get(), 7);
    let found = complaints_of(&[("p.yaml", SMALLEST)], &["batch.rows=x", "memory=${NOPE}", "bacth.rows=1"]);
    insta::assert_snapshot!(found);
}

#[test]
fn a_file_name_that_is_no_name_asks_for_one() {
    let found = complaints_of(&[("Mein Fluss.yaml", SMALLEST)], &[]);
    assert!(
        found.starts_with("Mein Fluss.yaml: error: name: the file's name is no name for a pipeline"),
        "{found}"
    );
}

fn yaml_like() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        Just("source:"),
        Just("kafka:"),
        Just("sink:"),
        Just("stdout:"),
        Just("bigquery:"),
        Just("\n"),
        Just("  "),
        Just(" "),
        Just("- "),
        Just("{"),
        Just("}"),
        Just("["),
        Just("]"),
        Just(","),
        Just(": "),
        Just("&a "),
        Just("*a"),
        Just("<<: "),
        Just("${SECRET}"),
        Just("${"),
        Just("\""),
        Just("'"),
        Just("|"),
        Just(">-"),
        Just("é"),
        Just("\r\n"),
        Just("\t"),
        Just("!!str "),
        Just("---"),
        Just("? "),
        Just("#"),
        Just("topics"),
        Just("brokers: b"),
        Just("1"),
        Just("on_error: "),
        Just("validate: "),
        Just("schema: "),
        Just("dead_letters: "),
        Just("topic: "),
        Just("\u{feff}"),
        Just("%"),
        Just("batch: "),
        Just("rows: "),
    ];
    prop::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn no_text_makes_the_loader_panic_or_tell_a_secret(text in prop_oneof![yaml_like(), any::<String>()]) {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("p.yaml");
        std::fs::write(&file, &text).unwrap();
        if let Err(mistakes) = load(&[file], &[], &environment) {
            let words = mistakes.to_string();
            prop_assert!(!words.contains("hunter2"), "{}", words);
            prop_assert!(mistakes.counts().0 > 0);
        }
    }

    #[test]
    fn any_part_of_a_good_file_is_read_without_panic(cut in 0_usize..400, noise in "\\PC{0,3}") {
        let good = "name: x\nsource: &s\n  kafka:\n    brokers: ${SECRET}\n    topics: [t]\n    properties: {a.b: 1}\n\
                    on_error: {sink: skip}\nbatch: {rows: 5, bytes: \"1MiB\"}\nsink:\n  stdout: {envelope: true}\n";
        let at = good.char_indices().nth(cut % good.len()).map_or(good.len(), |(index, _)| index);
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("p.yaml");
        std::fs::write(&file, format!("{}{noise}{}", &good[..at], &good[at..])).unwrap();
        if let Err(mistakes) = load(&[file], &[], &environment) {
            prop_assert!(!mistakes.to_string().contains("hunter2"));
        }
    }
}
