use proptest::prelude::*;
use serde_json::json;

use super::*;

fn config(extra: serde_json::Value) -> BigQueryConfig {
    let mut all = json!({ "project": "my-project", "dataset": "transactions" });
    let serde_json::Value::Object(extra) = extra else { panic!("an object") };
    all.as_object_mut().unwrap().extend(extra);
    serde_json::from_value(all).unwrap()
}

#[test]
fn the_shortest_block_has_sensible_defaults() {
    let config = config(json!({}));
    assert_eq!(config.problems(), []);
    assert_eq!(config.table_name("cash_ins"), "cash_ins");
    assert_eq!(config.table_name("shop.orders-v1"), "shop_orders-v1");
    assert_eq!((config.api, config.write), (Api::StorageWrite, WriteMode::Append));
    assert_eq!(config.delivery(), Delivery::ExactlyOnce);
    assert_eq!((config.in_flight(), config.usual_rows()), (16, 5_000));
    assert_eq!(config.newest_by(), NewestBy::Offset);
    assert_eq!(config.max_staleness(), Duration::from_mins(15));
    assert_eq!(config.timeout.0, Duration::from_mins(1));
}

#[test]
fn insert_all_keeps_its_own_defaults() {
    let config = config(json!({ "api": "insert_all" }));
    assert_eq!(config.problems(), []);
    assert_eq!(config.delivery(), Delivery::AtLeastOnce);
    assert_eq!((config.in_flight(), config.usual_rows()), (4, 500));
    assert!(config.insert_ids());
    assert_eq!(config.compression(), Compression::Fast);
}

#[test]
fn every_mistake_is_named_with_its_place() {
    let config = config(json!({
        "project": "My Project!", "dataset": "a.b", "table": "{tenant}_x",
        "cluster_by": ["a", "b", "c", "d", "A"], "in_flight": 0, "timeout": "10ms",
        "labels": { "Team": "x" }, "endpoint": "ftp://here", "storage_endpoint": "http://localhost:1/path",
        "kafka_columns": ["topic", "offset", "topic"],
        "partition_by": { "expiration": "0s" }
    }));
    let paths: Vec<String> = config.problems().into_iter().map(|problem| problem.path).collect();
    assert_eq!(
        paths,
        [
            "/project",
            "/dataset",
            "/table",
            "/kafka_columns/2",
            "/cluster_by",
            "/cluster_by/4",
            "/partition_by/expiration",
            "/labels/Team",
            "/in_flight",
            "/timeout",
            "/endpoint",
            "/storage_endpoint"
        ]
    );
}

#[test]
fn ways_of_writing_that_bigquery_does_not_have_are_named_at_their_key() {
    let many: Vec<String> = (0..17).map(|number| format!("k{number}")).collect();
    for (extra, path) in [
        (json!({ "api": "insert_all", "write": "upsert", "key": ["id"] }), "/write"),
        (json!({ "api": "insert_all", "delivery": "exactly_once" }), "/delivery"),
        (json!({ "api": "insert_all", "storage_endpoint": "http://localhost:1" }), "/storage_endpoint"),
        (json!({ "write": "upsert", "key": ["id"], "delivery": "exactly_once" }), "/delivery"),
        (json!({ "insert_ids": false }), "/insert_ids"),
        (json!({ "compression": "fast" }), "/compression"),
        (json!({ "write": "upsert" }), "/write"),
        (json!({ "key": ["id"] }), "/key"),
        (json!({ "write": "upsert", "key": many }), "/key"),
        (json!({ "write": "upsert", "key": ["id", "ID"] }), "/key/1"),
        (json!({ "newest_by": "timestamp" }), "/newest_by"),
        (json!({ "newest_by": "at" }), "/newest_by"),
        (json!({ "write": "upsert", "key": ["id"], "newest_by": "Id" }), "/newest_by"),
        (json!({ "delete_on_tombstone": true }), "/delete_on_tombstone"),
        (
            json!({ "write": "upsert", "key": ["id"], "newest_by": "at", "delete_on_tombstone": true }),
            "/delete_on_tombstone",
        ),
        (json!({ "write": "upsert", "key": ["id"], "key_decode": "json" }), "/key_decode"),
        (
            json!({ "write": "upsert", "key": ["a", "b"], "delete_on_tombstone": true, "key_decode": "string" }),
            "/key_decode",
        ),
        (json!({ "max_staleness": "15m" }), "/max_staleness"),
        (json!({ "write": "upsert", "key": ["id"], "max_staleness": "500ms" }), "/max_staleness"),
    ] {
        let problems = config(extra.clone()).problems();
        assert_eq!(problems.iter().map(|p| p.path.as_str()).collect::<Vec<_>>(), [path], "{extra}");
        assert!(problems[0].help.is_some());
    }
}

#[test]
fn an_upsert_with_all_its_settings_is_right() {
    let config = config(json!({
        "write": "upsert", "key": ["id"], "newest_by": "timestamp", "delete_on_tombstone": true,
        "key_decode": "string", "max_staleness": "0s", "kafka_columns": ["topic", "partition", "offset", "timestamp"]
    }));
    assert_eq!(config.problems(), []);
    assert_eq!(config.delivery(), Delivery::AtLeastOnce);
    assert_eq!(config.newest_by(), NewestBy::Timestamp);
    assert_eq!(config.max_staleness(), Duration::ZERO);
}

#[test]
fn a_table_in_another_dataset_is_refused() {
    assert_eq!(config(json!({ "table": "other.t" })).problems()[0].path, "/table");
}

#[test]
fn a_token_is_not_sent_in_clear_to_another_machine() {
    for key in ["endpoint", "storage_endpoint"] {
        let open = json!({ key: "http://bigquery.internal:9050" });
        assert_eq!(config(open).problems()[0].path, format!("/{key}"));
    }
    for fine in [
        json!({ "endpoint": "http://bigquery.internal:9050", "credentials": "none" }),
        json!({ "endpoint": "http://127.0.0.1:9050" }),
        json!({ "endpoint": "https://bigquery.internal" }),
    ] {
        assert_eq!(config(fine).problems(), []);
    }
}

#[test]
fn credentials_are_a_word_or_a_file() {
    assert_eq!(config(json!({ "credentials": "none" })).credentials, Some(Credentials::None));
    assert_eq!(
        config(json!({ "credentials": { "service_account_file": "key.json" } })).credentials,
        Some(Credentials::ServiceAccountFile("key.json".into()))
    );
}

#[test]
fn unknown_keys_and_modes_that_do_not_work_are_refused() {
    for (key, value) in [("colour", "red"), ("api", "load_job"), ("write", "insert_ignore")] {
        let text = json!({ "project": "p", "dataset": "d", key: value });
        assert!(serde_json::from_value::<BigQueryConfig>(text).is_err(), "{key}");
    }
}

#[test]
fn every_key_is_documented_for_users() {
    let schema = schemars::schema_for!(BigQueryConfig);
    let properties = schema.get("properties").and_then(serde_json::Value::as_object).unwrap();
    assert_eq!(properties.len(), 25);
    for (key, property) in properties {
        assert!(property.get("description").is_some(), "{key}");
    }
    assert_eq!(schema.get("required"), Some(&json!(["project", "dataset"])));
}

proptest! {
    #[test]
    fn table_names_hold_only_what_bigquery_takes(topic in "[a-zA-Z0-9._ä{}-]{1,40}") {
        let name = config(json!({})).table_name(&topic);
        prop_assert!(name.chars().all(is_table_character), "{}", name);
    }
}
