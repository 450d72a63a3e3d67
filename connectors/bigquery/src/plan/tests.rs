use serde_json::{Value, json};
use txconnect_connector_api::schema::UnknownFields;

use super::*;

fn plan(config: &BigQueryConfig, schema: &Value) -> Result<TablePlan, Vec<ConfigProblem>> {
    TablePlan::new(config, &TableSchema::from_json_schema(schema, UnknownFields::DeadLetter).unwrap())
}

fn config(extra: &Value) -> BigQueryConfig {
    let mut all = json!({ "project": "p", "dataset": "d" });
    all.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    serde_json::from_value(all).unwrap()
}

fn orders() -> Value {
    json!({
        "description": "Orders",
        "required": ["id", "amount"],
        "properties": {
            "id": { "type": "string", "format": "uuid", "description": "The order" },
            "amount": { "x-column": { "type": "numeric", "precision": 18, "scale": 2 }, "type": "number" },
            "wide": { "x-column": { "type": "numeric", "precision": 60, "scale": 30 }, "type": "string" },
            "day": { "type": "string", "format": "date" },
            "at": { "type": "string", "format": "date-time" },
            "extra": { "type": "object" },
            "lines": { "type": "array", "items": {
                "type": "object", "required": ["n"], "properties": { "n": { "type": "integer" } } } }
        }
    })
}

#[test]
fn a_schema_becomes_the_table_that_the_rest_interface_creates() {
    let config = config(&json!({
        "partition_by": { "column": "at", "type": "hour", "expiration": "90d" },
        "cluster_by": ["id"], "labels": { "team": "pay" }
    }));
    let plan = plan(&config, &orders()).unwrap();
    assert_eq!(plan.layout_problems(&config), []);
    assert_eq!(
        plan.resource(&config, "orders"),
        json!({
            "tableReference": { "projectId": "p", "datasetId": "d", "tableId": "orders" },
            "schema": { "fields": [
                { "name": "id", "type": "STRING", "mode": "REQUIRED", "description": "The order" },
                { "name": "amount", "type": "NUMERIC", "mode": "REQUIRED", "precision": "18", "scale": "2" },
                { "name": "wide", "type": "BIGNUMERIC", "mode": "NULLABLE", "precision": "60", "scale": "30" },
                { "name": "day", "type": "DATE", "mode": "NULLABLE" },
                { "name": "at", "type": "TIMESTAMP", "mode": "NULLABLE" },
                { "name": "extra", "type": "JSON", "mode": "NULLABLE" },
                { "name": "lines", "type": "RECORD", "mode": "REPEATED", "fields": [
                    { "name": "n", "type": "INTEGER", "mode": "REQUIRED" } ] }
            ] },
            "description": "Orders",
            "labels": { "team": "pay" },
            "timePartitioning": { "type": "HOUR", "field": "at", "expirationMs": "7776000000" },
            "clustering": { "fields": ["id"] }
        })
    );
    assert_eq!(
        plan.ddl(&config, "orders"),
        "CREATE TABLE `p.d.orders` (\n  `id` STRING NOT NULL,\n  `amount` NUMERIC(18, 2) NOT NULL,\n  \
         `wide` BIGNUMERIC(60, 30),\n  `day` DATE,\n  `at` TIMESTAMP,\n  `extra` JSON,\n  \
         `lines` ARRAY<STRUCT<`n` INT64 NOT NULL>>\n)\nPARTITION BY TIMESTAMP_TRUNC(`at`, HOUR)\n\
         CLUSTER BY `id`;"
    );
}

#[test]
fn partition_and_cluster_columns_must_be_there_and_fit() {
    let plan = plan(&config(&json!({})), &orders()).unwrap();
    for (extra, path) in [
        (json!({ "partition_by": { "column": "nowhere" } }), "/partition_by/column"),
        (json!({ "partition_by": { "column": "id" } }), "/partition_by/column"),
        (json!({ "partition_by": { "column": "day", "type": "hour" } }), "/partition_by/column"),
        (json!({ "cluster_by": ["lines"] }), "/cluster_by/0"),
        (json!({ "cluster_by": ["id", "extra"] }), "/cluster_by/1"),
    ] {
        let problems = plan.layout_problems(&config(&extra));
        assert_eq!(problems.len(), 1, "{extra}");
        assert_eq!(problems[0].path, path);
    }
    for extra in [json!({ "partition_by": {} }), json!({ "partition_by": { "column": "day" } })] {
        assert_eq!(plan.layout_problems(&config(&extra)), []);
    }
}

#[test]
fn names_and_decimals_that_bigquery_refuses_are_found_at_every_depth() {
    let problems = plan(
        &config(&json!({})),
        &json!({ "properties": {
        "a-b": { "type": "string" },
        "_table_x": { "type": "string" },
        "r": { "type": "object", "properties": { "1st": { "type": "string" } } },
        "empty": { "type": "object", "properties": { "x": { "x-column": { "ignore": true } } } },
        "huge": { "x-column": { "type": "numeric", "precision": 76, "scale": 0 } }
    } }),
    )
    .unwrap_err();
    for (problem, name) in problems.iter().zip(["`a-b`", "`_table_x`", "`r.1st`", "`empty`", "`huge`"]) {
        assert!(problem.message.contains(name), "{}", problem.message);
    }
    assert_eq!(problems.len(), 5);
}

/// Every kind of column; `id`, `amount` and `on` are required.
fn every_kind() -> Value {
    json!({
        "required": ["id", "amount", "on"],
        "properties": {
            "id": { "type": "string" },
            "amount": { "type": "number", "x-column": { "type": "numeric", "precision": 18, "scale": 2 } },
            "wide": { "x-column": { "type": "numeric", "precision": 60, "scale": 30 } },
            "fine": { "x-column": { "type": "numeric", "precision": 38, "scale": 20 } },
            "on": { "type": "boolean" },
            "n": { "type": "integer" },
            "ratio": { "type": "number" },
            "raw": { "type": "string", "contentEncoding": "base64" },
            "day": { "type": "string", "format": "date" },
            "clock": { "type": "string", "format": "time" },
            "at": { "type": "string", "format": "date-time", "x-column": { "name": "happened_at" } },
            "extra": {},
            "tags": { "type": "array", "items": { "type": "string" } },
            "who": { "type": "object", "properties": { "x": { "type": "string" } } }
        }
    })
}

#[test]
fn a_key_makes_a_table_whose_rows_are_replaced() {
    let config = config(&json!({
        "write": "upsert", "key": ["id", "at"], "newest_by": "n", "kafka_columns": ["offset", "timestamp"]
    }));
    let schema = json!({ "properties": {
        "id": { "type": "string" }, "n": { "type": "integer" },
        "at": { "type": "string", "format": "date-time", "x-column": { "name": "happened_at" } }
    } });
    let plan = plan(&config, &schema).unwrap();
    assert_eq!(
        plan.resource(&config, "t"),
        json!({
            "tableReference": { "projectId": "p", "datasetId": "d", "tableId": "t" },
            "schema": { "fields": [
                { "name": "id", "type": "STRING", "mode": "REQUIRED" },
                { "name": "n", "type": "INTEGER", "mode": "NULLABLE" },
                { "name": "happened_at", "type": "TIMESTAMP", "mode": "REQUIRED" },
                { "name": "_kafka_offset", "type": "INTEGER", "mode": "REQUIRED",
                    "description": "The record's offset in the partition." },
                { "name": "_kafka_timestamp", "type": "TIMESTAMP", "mode": "NULLABLE",
                    "description": "The time that Kafka keeps with the record." }
            ] },
            "tableConstraints": { "primaryKey": { "columns": ["id", "happened_at"] } },
            "maxStaleness": "0-0 0 0:15:0"
        })
    );
    assert_eq!(
        plan.ddl(&config, "t"),
        "CREATE TABLE `p.d.t` (\n  `id` STRING NOT NULL,\n  `n` INT64,\n  `happened_at` TIMESTAMP NOT NULL,\n  \
         `_kafka_offset` INT64 NOT NULL,\n  `_kafka_timestamp` TIMESTAMP,\n  \
         PRIMARY KEY (`id`, `happened_at`) NOT ENFORCED\n)\n\
         OPTIONS (max_staleness = INTERVAL 15 MINUTE);"
    );
}

#[test]
fn a_table_without_staleness_says_nothing_about_it() {
    let config = config(&json!({ "write": "upsert", "key": ["id"], "max_staleness": "0s" }));
    let plan = plan(&config, &every_kind()).unwrap();
    assert_eq!(plan.resource(&config, "t").get("maxStaleness"), None);
    assert!(!plan.ddl(&config, "t").contains("max_staleness"));
}

#[test]
fn intervals_are_written_in_one_unit() {
    for (seconds, text) in [
        (0, "INTERVAL 0 SECOND"),
        (90, "INTERVAL 90 SECOND"),
        (900, "INTERVAL 15 MINUTE"),
        (7_200, "INTERVAL 2 HOUR"),
        (172_800, "INTERVAL 2 DAY"),
    ] {
        assert_eq!(interval(std::time::Duration::from_secs(seconds)), text);
    }
    let config = config(&json!({ "write": "upsert", "key": ["id"], "max_staleness": "26h" }));
    let plan = plan(&config, &every_kind()).unwrap();
    assert_eq!(plan.resource(&config, "t")["maxStaleness"], "0-0 0 26:0:0");
}

#[test]
fn columns_are_required_for_keys_and_optional_for_deletions() {
    let modes = |extra: Value| {
        let mut all = json!({ "write": "upsert", "key": ["id", "day"], "kafka_columns": ["offset"] });
        all.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        let plan = plan(&config(&all), &every_kind()).unwrap();
        let required = plan.fields.iter().filter(|field| field.mode == Mode::Required);
        required.map(|field| field.name.clone()).collect::<Vec<_>>()
    };
    assert_eq!(modes(json!({})), ["id", "amount", "on", "day", "_kafka_offset"]);
    assert_eq!(modes(json!({ "delete_on_tombstone": true })), ["id", "day", "_kafka_offset"]);
}

#[test]
fn keys_and_orders_that_cannot_work_are_named() {
    for (extra, path) in [
        (json!({ "key": ["nowhere"] }), "/key/0"),
        (json!({ "key": ["id", "ratio"] }), "/key/1"),
        (json!({ "key": ["clock"] }), "/key/0"),
        (json!({ "key": ["extra"] }), "/key/0"),
        (json!({ "key": ["tags"] }), "/key/0"),
        (json!({ "key": ["who"] }), "/key/0"),
        (json!({ "key": ["at", "happened_at"] }), "/key/1"),
        (json!({ "key": ["id"], "newest_by": "nowhere" }), "/newest_by"),
        (json!({ "key": ["id"], "newest_by": "on" }), "/newest_by"),
        (json!({ "key": ["id"], "newest_by": "raw" }), "/newest_by"),
        (json!({ "key": ["id"], "newest_by": "extra" }), "/newest_by"),
        (json!({ "key": ["id"], "newest_by": "tags" }), "/newest_by"),
        (json!({ "key": ["id"], "newest_by": "wide" }), "/newest_by"),
        (json!({ "key": ["at"], "newest_by": "happened_at" }), "/newest_by"),
        (json!({ "key": ["id"], "newest_by": "_kafka_timestamp" }), "/newest_by"),
    ] {
        let mut all = json!({ "write": "upsert" });
        all.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        let problems = plan(&config(&all), &every_kind()).unwrap_err();
        assert_eq!(problems.iter().map(|p| p.path.as_str()).collect::<Vec<_>>(), [path], "{extra}");
    }
    for newest_by in ["amount", "fine", "n", "ratio", "day", "clock", "at"] {
        let all = json!({ "write": "upsert", "key": ["id"], "newest_by": newest_by });
        assert!(plan(&config(&all), &every_kind()).is_ok(), "{newest_by}");
    }
}

#[test]
fn columns_that_kafka_fills_have_names_of_their_own() {
    let config = config(&json!({ "kafka_columns": ["topic", "offset"], "cluster_by": ["_kafka_topic"] }));
    let schema = json!({ "properties": { "_KAFKA_Offset": { "type": "integer" } } });
    let problems = plan(&config, &schema).unwrap_err();
    assert_eq!(problems.iter().map(|p| p.path.as_str()).collect::<Vec<_>>(), ["/kafka_columns/1"]);
    let plan = plan(&config, &every_kind()).unwrap();
    assert_eq!(plan.layout_problems(&config), []);
}

#[test]
fn a_table_whose_rows_are_replaced_has_a_limit_of_columns() {
    let columns = (0..2_000).map(|number| (format!("c{number}"), json!({ "type": "integer" })));
    let schema = json!({ "properties": columns.collect::<serde_json::Map<_, _>>() });
    let upsert = json!({ "write": "upsert", "key": ["c0"] });
    assert!(plan(&config(&upsert), &schema).is_ok());
    let more = json!({ "write": "upsert", "key": ["c0"], "kafka_columns": ["topic"] });
    assert_eq!(plan(&config(&more), &schema).unwrap_err()[0].path, "/write");
}
