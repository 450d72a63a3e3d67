use serde_json::{Value, json};
use txconnect_connector_api::TableSchema;
use txconnect_connector_api::schema::UnknownFields;

use super::*;
use crate::config::PostgresConfig;

fn plan(extra: &Value, schema: &Value) -> TablePlan {
    let mut all = json!({ "url": "postgresql://localhost/db" });
    all.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    let config: PostgresConfig = serde_json::from_value(all).unwrap();
    let schema = TableSchema::from_json_schema(schema, UnknownFields::DeadLetter).unwrap();
    TablePlan::new(&config, "orders", &schema).unwrap()
}

fn orders() -> Value {
    json!({
        "required": ["id", "n"],
        "properties": {
            "id": { "type": "string", "format": "uuid" },
            "n": { "type": "integer" },
            "amount": { "x-column": { "type": "numeric", "precision": 18, "scale": 2 } },
            "note": { "type": "string" },
            "at": { "type": "string", "format": "date-time" },
            "free": {}
        }
    })
}

fn column(name: &str, of: &Type) -> ExistingColumn {
    ExistingColumn {
        name: name.to_owned(),
        type_oid: of.oid(),
        type_modifier: -1,
        type_name: of.name().to_owned(),
        is_enum: false,
        not_null: false,
        has_default: false,
        generated: false,
        identity: None,
    }
}

fn table(columns: Vec<ExistingColumn>) -> ExistingTable {
    ExistingTable { kind: RelationKind::Table, columns, unique_keys: Vec::new(), partition_key: Vec::new() }
}

fn wanted() -> Vec<ExistingColumn> {
    vec![
        column("id", &Type::UUID),
        column("n", &Type::INT8),
        column("amount", &Type::NUMERIC),
        column("note", &Type::TEXT),
        column("at", &Type::TIMESTAMPTZ),
        column("free", &Type::JSONB),
    ]
}

fn unique(columns: &[&str]) -> UniqueKey {
    let columns = columns.iter().map(|&name| name.to_owned()).collect();
    UniqueKey { columns, partial: false, deferrable: false }
}

fn types(plan: &TablePlan) -> Vec<String> {
    plan.columns.iter().map(|column| column.column_type.to_string()).collect()
}

fn messages(result: Result<TablePlan, Vec<Misfit>>) -> Vec<String> {
    result.unwrap_err().iter().map(ToString::to_string).collect()
}

#[test]
fn columns_are_served_as_they_are() {
    let typed = |name, of, type_modifier| ExistingColumn { type_modifier, ..column(name, of) };
    let existing = table(vec![
        typed("at", &Type::TIMESTAMP, 3),
        column("extra", &Type::TEXT),
        typed("id", &Type::BPCHAR, 40),
        column("n", &Type::INT2),
        typed("amount", &Type::NUMERIC, (10 << 16) + 2 + 4),
        ExistingColumn { not_null: true, ..typed("note", &Type::VARCHAR, 24) },
        column("free", &Type::JSON),
    ]);
    let fitted = fit(&plan(&json!({}), &orders()), &existing).unwrap();
    assert_eq!(
        types(&fitted),
        [
            "character(36)",
            "smallint",
            "numeric(10,2)",
            "character varying(20)",
            "timestamp without time zone",
            "json"
        ]
    );
    assert_eq!(fitted.columns[4].second_digits, 3);
    assert!(!fitted.columns[3].nullable && fitted.columns[4].nullable && !fitted.columns[0].nullable);
}

#[test]
fn limits_are_read_from_the_modifier_as_the_server_packs_it() {
    let read = |of: &Type, type_modifier| column_type(&ExistingColumn { type_modifier, ..column("c", of) });
    let packed = |precision: i32, scale: i32| ((precision << 16) | (scale & 0x7ff)) + 4;
    for (precision, scale) in [(18, 2), (5, 0), (1000, 1000), (3, -2), (2, 1000), (1000, -1000)] {
        let expected = (u16::try_from(precision).unwrap(), i16::try_from(scale).unwrap());
        let found = read(&Type::NUMERIC, packed(precision, scale));
        assert_eq!(found, Some(ColumnType::Numeric(Some(expected))));
    }
    assert_eq!(read(&Type::NUMERIC, -1), Some(ColumnType::Numeric(None)));
    assert_eq!(read(&Type::VARCHAR, -1), Some(ColumnType::Text));
    assert_eq!(read(&Type::VARCHAR, i32::MIN), Some(ColumnType::Text));
    assert_eq!(read(&Type::INTERVAL, -1), None);
    assert_eq!(read(&Type::INT8_ARRAY, -1), None);
}

#[test]
fn types_that_travel_as_their_text_are_served() {
    let schema = json!({ "properties": { "kind": { "enum": ["a", "b"] }, "mail": { "type": "string" } } });
    let kind = ExistingColumn {
        is_enum: true,
        type_oid: 99_999,
        type_name: "sales.\"Kind\"".to_owned(),
        ..column("kind", &Type::TEXT)
    };
    let mail = ExistingColumn {
        type_oid: 99_998,
        type_name: "public.citext".to_owned(),
        ..column("mail", &Type::TEXT)
    };
    let fitted = fit(&plan(&json!({}), &schema), &table(vec![kind, mail])).unwrap();
    assert_eq!(types(&fitted), ["sales.\"Kind\"", "public.citext"]);
}

#[test]
fn every_column_that_does_not_fit_is_named_with_the_way_out() {
    let existing = table(vec![
        column("ID", &Type::UUID),
        ExistingColumn { generated: true, ..column("n", &Type::INT8) },
        column("amount", &Type::FLOAT8),
        ExistingColumn { identity: Some(Identity::Always), ..column("note", &Type::TEXT) },
        column("at", &Type::DATE),
        ExistingColumn { not_null: true, ..column("tenant", &Type::TEXT) },
        ExistingColumn { not_null: true, has_default: true, ..column("made", &Type::TIMESTAMPTZ) },
        ExistingColumn { not_null: true, identity: Some(Identity::Always), ..column("seq", &Type::INT8) },
        ExistingColumn { not_null: true, generated: true, ..column("sum", &Type::INT8) },
    ]);
    assert_eq!(
        messages(fit(&plan(&json!({}), &orders()), &existing)),
        [
            "the column `id` is missing; there is one called `ID` (name it in the schema: `x-column: {name: ID}`)",
            "the column `n` is computed by PostgreSQL (leave it out in the schema: `x-column: {ignore: true}`, or \
             ALTER TABLE \"public\".\"orders\" ALTER COLUMN \"n\" DROP EXPRESSION)",
            "the column `amount` is float8, which does not take numeric(18,2) (change the schema, or \
             ALTER TABLE \"public\".\"orders\" ALTER COLUMN \"amount\" TYPE numeric(18,2))",
            "the column `note` is counted by PostgreSQL and takes no values of rows (leave it out in the schema: \
             `x-column: {ignore: true}`, or ALTER TABLE \"public\".\"orders\" ALTER COLUMN \"note\" SET GENERATED BY DEFAULT)",
            "the column `at` is date, which does not take timestamp with time zone (change the schema, or \
             ALTER TABLE \"public\".\"orders\" ALTER COLUMN \"at\" TYPE timestamp with time zone)",
            "the column `free` (jsonb) is missing (ALTER TABLE \"public\".\"orders\" ADD COLUMN \"free\" jsonb)",
            "the column `tenant` takes no NULL, and the schema does not have it (add it to the schema, or \
             ALTER TABLE \"public\".\"orders\" ALTER COLUMN \"tenant\" DROP NOT NULL, or give it a default)",
        ]
    );
}

#[test]
fn relations_that_take_no_rows_are_refused() {
    let append = plan(&json!({}), &orders());
    let upsert = plan(&json!({ "write": "upsert", "key": ["id"] }), &orders());
    let of = |code| ExistingTable { kind: RelationKind::from_code(code), ..table(wanted()) };
    for code in [b'v', b'm', b'S', b'i'] {
        assert_eq!(messages(fit(&append, &of(code))).len(), 1, "{}", char::from(code));
    }
    for code in [b'r', b'p', b'f'] {
        assert!(fit(&append, &of(code)).is_ok(), "{}", char::from(code));
    }
    assert!(messages(fit(&upsert, &of(b'f')))[0].contains("foreign table"));
}

#[test]
fn a_key_needs_a_unique_index_that_on_conflict_can_use() {
    let plan = plan(&json!({ "write": "upsert", "key": ["id", "n"] }), &orders());
    let with = |unique_keys: Vec<UniqueKey>| ExistingTable { unique_keys, ..table(wanted()) };
    assert!(fit(&plan, &with(vec![unique(&["note"]), unique(&["n", "id"])])).is_ok());
    for (unique_keys, why) in [
        (vec![], "no unique index"),
        (vec![unique(&["id"])], "no unique index"),
        (vec![unique(&["id", "n", "at"])], "no unique index"),
        (vec![UniqueKey { partial: true, ..unique(&["id", "n"]) }], "only some of the rows"),
        (vec![UniqueKey { deferrable: true, ..unique(&["id", "n"]) }], "deferrable"),
    ] {
        let found = messages(fit(&plan, &with(unique_keys)));
        assert!(found.len() == 1 && found[0].contains(why), "{found:?}");
        assert!(
            found[0].contains("CREATE UNIQUE INDEX ON \"public\".\"orders\" (\"id\", \"n\")"),
            "{found:?}"
        );
    }
    let partitioned = ExistingTable {
        kind: RelationKind::PartitionedTable,
        partition_key: vec!["at".to_owned()],
        unique_keys: vec![unique(&["id", "n", "at"])],
        ..table(wanted())
    };
    assert!(messages(fit(&plan, &partitioned))[0].contains("add it to `key`"));
}

#[test]
fn keys_and_orders_are_looked_at_again_with_the_real_types() {
    let schema = json!({ "properties": {
        "n": { "type": "integer" }, "mail": { "type": "string" }, "v": { "type": "integer" } } });
    let config = json!({ "write": "upsert", "key": ["n", "mail"], "newest_by": "v" });
    let mut existing = table(vec![
        column("n", &Type::FLOAT8),
        ExistingColumn { type_oid: 99_998, type_name: "citext".to_owned(), ..column("mail", &Type::TEXT) },
        column("v", &Type::INT4),
    ]);
    existing.unique_keys = vec![unique(&["n", "mail"])];
    let found = messages(fit(&plan(&config, &schema), &existing));
    assert!(
        found.len() == 2 && found[0].contains("floating-point") && found[1].contains("case"),
        "{found:?}"
    );
}

#[test]
fn what_fits_is_exactly_what_the_encoder_writes() {
    let properties = [
        json!({ "type": "boolean" }),
        json!({ "type": "integer" }),
        json!({ "type": "number" }),
        json!({ "type": "string" }),
        json!({ "type": "string", "format": "uuid" }),
        json!({ "type": "string", "format": "date" }),
        json!({ "type": "string", "format": "time" }),
        json!({ "type": "string", "format": "date-time" }),
        json!({ "type": "string", "contentEncoding": "base64" }),
        json!({ "x-column": { "type": "timestamp", "unit": "ns" } }),
        json!({ "x-column": { "type": "numeric", "precision": 9, "scale": 0 } }),
        json!({ "x-column": { "type": "numeric", "precision": 9, "scale": 2 } }),
        json!({ "type": "array", "items": { "type": "integer" } }),
        json!({ "type": "object", "properties": { "a": { "type": "integer" } } }),
        json!({}),
    ];
    let types = [
        ColumnType::Boolean,
        ColumnType::SmallInt,
        ColumnType::Integer,
        ColumnType::BigInt,
        ColumnType::Real,
        ColumnType::Double,
        ColumnType::Numeric(None),
        ColumnType::Numeric(Some((9, 2))),
        ColumnType::Text,
        ColumnType::Varchar(9),
        ColumnType::Char(9),
        ColumnType::Labelled("mood".to_owned()),
        ColumnType::Uuid,
        ColumnType::Bytea,
        ColumnType::TimestampTz,
        ColumnType::Timestamp,
        ColumnType::Date,
        ColumnType::Time,
        ColumnType::Json,
        ColumnType::Jsonb,
    ];
    let config: PostgresConfig =
        serde_json::from_value(json!({ "url": "postgresql://localhost/db" })).unwrap();
    let mut fitting = 0;
    for property in properties {
        let schema = json!({ "properties": { "v": property } });
        let schema = TableSchema::from_json_schema(&schema, UnknownFields::DeadLetter).unwrap();
        let plan = TablePlan::new(&config, "orders", &schema).unwrap();
        for column_type in &types {
            let fits = takes(&plan.columns[0].column_type, column_type);
            fitting += usize::from(fits);
            let mut fitted = plan.clone();
            fitted.columns[0].column_type = column_type.clone();
            let encoder = crate::RowEncoder::new(&config, &schema, &fitted);
            assert_eq!(fits, encoder.is_ok(), "{property} into {column_type}");
        }
    }
    assert!(fitting > 30, "{fitting}");
}

fn of_kafka() -> TablePlan {
    let extra = json!({ "kafka_columns": ["topic", "partition", "offset", "timestamp"] });
    plan(&extra, &json!({ "properties": { "id": { "type": "integer" } } }))
}

#[test]
fn columns_of_kafka_are_taken_where_they_hold_all_that_kafka_knows() {
    let typed = |name, of, type_modifier| ExistingColumn { type_modifier, ..column(name, of) };
    let existing = vec![
        column("id", &Type::INT8),
        typed("_kafka_topic", &Type::VARCHAR, 253),
        column("_kafka_partition", &Type::INT8),
        column("_kafka_offset", &Type::INT8),
        ExistingColumn { not_null: true, ..typed("_kafka_timestamp", &Type::TIMESTAMP, 3) },
    ];
    let fitted = fit(&of_kafka(), &table(existing.clone())).unwrap();
    assert_eq!(
        types(&fitted)[1..],
        ["character varying(249)", "bigint", "bigint", "timestamp without time zone"]
    );
    assert!(!fitted.columns[4].nullable);

    let mut coarse = existing;
    coarse[1].type_modifier = 252;
    coarse[2].type_oid = Type::INT2.oid();
    coarse[3].type_oid = Type::INT4.oid();
    coarse[4].type_modifier = 2;
    let told = messages(fit(&of_kafka(), &table(coarse)));
    assert_eq!(told.len(), 4);
    assert!(
        told.iter().all(|told| told.contains("leave it out in `kafka_columns`, or ALTER TABLE")),
        "{told:?}"
    );
}

#[test]
fn columns_of_kafka_that_are_missing_or_not_asked_for_are_told_with_the_way_out() {
    let told = messages(fit(
        &of_kafka(),
        &table(vec![column("id", &Type::INT8), column("_KAFKA_TOPIC", &Type::TEXT)]),
    ));
    assert_eq!(told.len(), 4);
    assert!(told[0].contains(r#"ALTER TABLE "public"."orders" ADD COLUMN "_kafka_topic" text"#), "{told:?}");
    assert!(told[1].contains(r#"ADD COLUMN "_kafka_partition" integer"#), "{told:?}");
    assert!(told[3].contains(r#"ADD COLUMN "_kafka_timestamp" timestamp with time zone"#), "{told:?}");

    let without = plan(&json!({}), &json!({ "properties": { "id": { "type": "integer" } } }));
    let required = ExistingColumn { not_null: true, ..column("_kafka_offset", &Type::INT8) };
    let told = messages(fit(&without, &table(vec![column("id", &Type::INT8), required])));
    assert!(told.len() == 1 && told[0].contains("add it to `kafka_columns`"), "{told:?}");
}
