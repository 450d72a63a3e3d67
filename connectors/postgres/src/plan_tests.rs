use super::*;
use serde_json::{Value, json};
use txconnect_connector_api::schema::UnknownFields;

fn plan(extra: &Value, topic: &str, schema: &Value) -> Result<TablePlan, Vec<ConfigProblem>> {
    let mut all = json!({ "url": "postgresql://localhost/db" });
    all.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    let config: PostgresConfig = serde_json::from_value(all).unwrap();
    assert_eq!(config.problems(), []);
    let schema = TableSchema::from_json_schema(schema, UnknownFields::DeadLetter).unwrap();
    TablePlan::new(&config, topic, &schema)
}

fn orders() -> Value {
    json!({
        "description": "Orders",
        "required": ["id", "n", "at"],
        "properties": {
            "id": { "type": "string", "format": "uuid", "description": "The order" },
            "n": { "type": "integer" },
            "amount": { "x-column": { "type": "numeric", "precision": 18, "scale": 2 } },
            "ratio": { "type": "number" },
            "ok": { "type": "boolean" },
            "note": { "type": "string", "x-column": { "name": "remark" } },
            "raw": { "type": "string", "contentEncoding": "base64" },
            "day": { "type": "string", "format": "date" },
            "clock": { "type": "string", "format": "time" },
            "at": { "type": "integer", "x-column": { "type": "timestamp", "unit": "ms" } },
            "tags": { "type": "array", "items": { "type": "string" } },
            "who": { "type": "object", "properties": { "name": { "type": "string" } } },
            "free": {}
        }
    })
}

#[test]
fn a_schema_becomes_columns() {
    let plan = plan(&json!({ "schema": "Sales" }), "orders", &orders()).unwrap();
    let columns: Vec<String> = plan
        .columns
        .iter()
        .map(|column| {
            let null = if column.nullable { "" } else { " not null" };
            format!("{} {}{null}", column.name, column.column_type)
        })
        .collect();
    assert_eq!(
        columns,
        [
            "id uuid not null",
            "n bigint not null",
            "amount numeric(18,2)",
            "ratio double precision",
            "ok boolean",
            "remark text",
            "raw bytea",
            "day date",
            "clock time without time zone",
            "at timestamp with time zone not null",
            "tags jsonb",
            "who jsonb",
            "free jsonb",
        ]
    );
    assert_eq!(plan.table.to_string(), r#""Sales"."orders""#);
    assert_eq!(plan.mode, PlannedWrite::Append);
    assert_eq!(plan.description.as_deref(), Some("Orders"));
    assert_eq!(plan.columns[0].description.as_deref(), Some("The order"));
}

#[test]
fn a_key_is_found_by_column_or_property_and_never_null() {
    let config = json!({ "write": "upsert", "key": ["note", "day"], "newest_by": "at" });
    let plan = plan(&config, "orders", &orders()).unwrap();
    assert_eq!(plan.mode, PlannedWrite::Upsert { key: vec![5, 7], newest_by: Some(9) });
    assert!(!plan.columns[5].nullable && !plan.columns[7].nullable);
    assert_eq!(plan.age_of_deletes(), None);
}

#[test]
fn no_value_in_the_column_that_tells_the_newer_row_is_no_mistake() {
    let config = json!({ "write": "upsert", "key": ["id"], "newest_by": "day" });
    assert!(plan(&config, "orders", &orders()).unwrap().columns[7].nullable);
}

#[test]
fn columns_of_kafka_come_behind_those_of_the_schema() {
    let config = json!({ "write": "upsert", "key": ["id"], "newest_by": "timestamp",
        "kafka_columns": ["timestamp", "topic", "partition", "offset"] });
    let plan = plan(&config, "orders", &orders()).unwrap();
    assert_eq!(plan.columns.len(), 17);
    let last: Vec<String> = plan.columns[13..]
        .iter()
        .map(|column| format!("{} {} {}", column.name, column.column_type, column.nullable))
        .collect();
    assert_eq!(
        last,
        [
            "_kafka_timestamp timestamp with time zone true",
            "_kafka_topic text false",
            "_kafka_partition integer false",
            "_kafka_offset bigint false"
        ]
    );
    assert_eq!(plan.mode, PlannedWrite::Upsert { key: vec![0], newest_by: Some(13) });
    assert_eq!(plan.age_of_deletes(), Some(13));
}

#[test]
fn coordinates_may_be_the_key() {
    let config = json!({ "write": "insert_ignore", "kafka_columns": ["partition", "offset"],
        "key": ["_kafka_partition", "_kafka_offset"] });
    let planned = plan(&config, "orders", &orders()).unwrap();
    assert_eq!(planned.mode, PlannedWrite::InsertIgnore { key: vec![13, 14] });
    let without = json!({ "write": "insert_ignore", "key": ["_kafka_offset"] });
    let problems = plan(&without, "orders", &orders()).unwrap_err();
    assert_eq!(problems[0].help.as_deref(), Some("add it to `kafka_columns`"));
}

#[test]
fn names_that_mean_something_of_kafkas_are_not_those_of_the_schema() {
    let schema = json!({ "properties": {
        "id": { "type": "integer" },
        "timestamp": { "type": "integer" },
        "offset": { "type": "integer" },
        "_kafka_topic": { "type": "string" },
        "mine": { "type": "integer", "x-column": { "name": "_kafka_timestamp" } },
    } });
    let upsert = |newest_by: Option<&str>, columns: &[&str]| {
        let mut extra = json!({ "write": "upsert", "key": ["id"], "kafka_columns": columns });
        if let Some(newest_by) = newest_by {
            extra["newest_by"] = newest_by.into();
        }
        let problems = plan(&extra, "orders", &schema).err().unwrap_or_default();
        assert!(problems.iter().all(|problem| problem.help.as_ref().unwrap().contains("x-column")));
        problems.into_iter().map(|problem| problem.path).collect::<Vec<_>>()
    };
    assert_eq!(upsert(None, &["offset"]), Vec::<String>::new());
    assert_eq!(upsert(Some("offset"), &[]), ["/newest_by"]);
    assert_eq!(upsert(Some("timestamp"), &["timestamp"]), ["/kafka_columns/0", "/newest_by"]);
    assert_eq!(upsert(None, &["offset", "topic"]), ["/kafka_columns/1"]);
    assert_eq!(upsert(Some("mine"), &["offset"]), Vec::<String>::new());
}

#[test]
fn keys_and_orders_that_cannot_work_are_named() {
    for (extra, path) in [
        (json!({ "write": "upsert", "key": ["nowhere"] }), "/key/0"),
        (json!({ "write": "upsert", "key": ["id", "ratio"] }), "/key/1"),
        (json!({ "write": "insert_ignore", "key": ["tags"] }), "/key/0"),
        (json!({ "write": "insert_ignore", "key": ["note", "remark"] }), "/key/1"),
        (json!({ "write": "upsert", "key": ["id"], "newest_by": "nowhere" }), "/newest_by"),
        (json!({ "write": "upsert", "key": ["id"], "newest_by": "note" }), "/newest_by"),
        (json!({ "write": "upsert", "key": ["note"], "newest_by": "remark" }), "/newest_by"),
        (json!({ "table": "txconnect_offsets" }), "/table"),
    ] {
        let problems = plan(&extra, "orders", &orders()).unwrap_err();
        assert_eq!(problems.iter().map(|p| p.path.as_str()).collect::<Vec<_>>(), [path], "{extra}");
    }
}

#[test]
fn names_that_postgres_would_cut_or_refuse_are_found_before() {
    let topic = "x".repeat(64);
    assert_eq!(plan(&json!({}), &topic, &orders()).unwrap_err()[0].path, "/table");
    assert!(plan(&json!({}), &topic[1..], &orders()).is_ok());
    let schema = json!({ "properties": {
        "ctid": { "type": "string" }, "a\u{0}": { "type": "string" }, "": { "type": "string" },
        "ä".repeat(32): { "type": "string" }, "fine \"name\"": { "type": "string" }
    } });
    assert_eq!(plan(&json!({}), "t", &schema).unwrap_err().len(), 4);
}

#[test]
fn records_without_a_schema_are_refused_with_the_way_out() {
    let config: PostgresConfig =
        serde_json::from_value(json!({ "url": "postgresql://localhost/db" })).unwrap();
    let problems = TablePlan::problems(&config, "orders", None);
    assert_eq!(problems.len(), 1);
    assert!(problems[0].help.as_ref().unwrap().contains("validate"));
}
