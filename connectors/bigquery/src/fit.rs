//! Whether rows made for a plan fit a table that is there.

use serde_json::Value;
use txconnect_connector_api::Mode;

use crate::config::BigQueryConfig;
use crate::plan::{Field, TablePlan, Type, alter_table, interval, sql_type};

/// Why rows do not fit a table.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Misfits {
    /// One sentence for each.
    pub(crate) reasons: Vec<String>,
    /// The statements that mend those that a statement mends.
    pub(crate) statements: Vec<String>,
}

impl TablePlan {
    /// What keeps rows of this plan from fitting the table that `resource` (an answer of `tables.get`)
    /// describes. `table` is its name without the dataset.
    pub(crate) fn misfits(&self, config: &BigQueryConfig, table: &str, resource: &Value) -> Misfits {
        let mut misfits = Misfits::default();
        match resource.get("type").and_then(Value::as_str) {
            None | Some("TABLE") => {
                compare(&self.fields, resource.get("schema"), "", &mut misfits.reasons);
                self.compare_missing(config, table, resource, &mut misfits);
                self.compare_key(config, table, resource, &mut misfits);
            }
            Some(other) => {
                misfits.reasons.push(format!("it is a {}, which takes no rows", other.to_lowercase()));
            }
        }
        misfits
    }

    /// The statement that adds the columns that are missing. A column that is added later holds nulls.
    fn compare_missing(&self, config: &BigQueryConfig, table: &str, resource: &Value, misfits: &mut Misfits) {
        let existing = existing_fields(resource.get("schema"));
        let missing: Vec<String> = self
            .fields
            .iter()
            .filter(|field| find(existing, &field.name).is_none())
            .map(|field| format!("ADD COLUMN `{}` {}", field.name, sql_type(field, false)))
            .collect();
        if !missing.is_empty() {
            misfits.statements.push(alter_table(config, table, &missing.join(", ")));
        }
    }

    /// Rows that replace others need the primary key, and deletions need every other column to take nulls.
    fn compare_key(&self, config: &BigQueryConfig, table: &str, resource: &Value, misfits: &mut Misfits) {
        if self.key.is_empty() {
            return;
        }
        let existing: Vec<&str> = resource
            .pointer("/tableConstraints/primaryKey/columns")
            .and_then(Value::as_array)
            .map(|columns| columns.iter().filter_map(Value::as_str).collect())
            .unwrap_or_default();
        let planned = self.key_names();
        let same = existing.len() == planned.len()
            && planned.iter().all(|name| existing.iter().any(|other| other.eq_ignore_ascii_case(name)));
        if !same {
            let mut alter = |change: &str| misfits.statements.push(alter_table(config, table, change));
            if existing.is_empty() {
                misfits
                    .reasons
                    .push(format!("it has no primary key, `write: upsert` needs ({})", planned.join(", ")));
            } else {
                misfits.reasons.push(format!(
                    "its primary key is ({}), `key` says ({})",
                    existing.join(", "),
                    planned.join(", ")
                ));
                alter("DROP PRIMARY KEY");
            }
            alter(&format!("ADD {}", self.primary_key()));
            if !config.max_staleness().is_zero() {
                let staleness = interval(config.max_staleness());
                alter(&format!("SET OPTIONS (max_staleness = {staleness})"));
            }
        }
        if !config.delete_on_tombstone {
            return;
        }
        for field in existing_fields(resource.get("schema")) {
            let name = text(field, "name");
            if text(field, "mode").eq_ignore_ascii_case("REQUIRED")
                && !planned.iter().any(|key| key.eq_ignore_ascii_case(name))
                && self
                    .fields
                    .iter()
                    .any(|planned| planned.mode != Mode::Required && planned.name.eq_ignore_ascii_case(name))
            {
                misfits.reasons.push(format!(
                    "the column `{name}` is required, and a deletion has the columns of the key only"
                ));
                let change = format!("ALTER COLUMN `{name}` DROP NOT NULL");
                misfits.statements.push(alter_table(config, table, &change));
            }
        }
    }
}

/// The fields of `schema`, a schema or a record field of BigQuery's.
fn existing_fields(schema: Option<&Value>) -> &[Value] {
    schema.and_then(|schema| schema.get("fields")).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn find<'a>(existing: &'a [Value], name: &str) -> Option<&'a Value> {
    existing.iter().find(|found| text(found, "name").eq_ignore_ascii_case(name))
}

fn text<'a>(field: &'a Value, key: &str) -> &'a str {
    field.get(key).and_then(Value::as_str).unwrap_or("")
}

/// Compares planned fields with the `fields` of `schema`, a schema or a record field of BigQuery's.
fn compare(planned: &[Field], schema: Option<&Value>, parent: &str, misfits: &mut Vec<String>) {
    let existing = existing_fields(schema);
    for field in planned {
        let path = format!("{parent}{}", field.name);
        let Some(found) = find(existing, &field.name) else {
            misfits.push(format!("the column `{path}` ({}) is missing", sql_type(field, false)));
            continue;
        };
        let kind = text(found, "type");
        let repeated = text(found, "mode").eq_ignore_ascii_case("REPEATED");
        if repeated != (field.mode == Mode::Repeated) {
            let (is, should) =
                if repeated { ("holds many values a row", "one") } else { ("holds one value a row", "many") };
            misfits.push(format!("the column `{path}` {is}, the schema has {should}"));
        } else if !takes(kind, found, &field.kind) {
            misfits.push(format!(
                "the column `{path}` is {}, which does not take {}",
                described(kind, found),
                sql_type(field, false)
            ));
        } else if let Type::Record(inner) = &field.kind {
            compare(inner, Some(found), &format!("{path}."), misfits);
        }
    }
    for found in existing {
        let name = text(found, "name");
        let planned = planned.iter().any(|field| field.name.eq_ignore_ascii_case(name));
        let has_default = found.get("defaultValueExpression").is_some();
        if !planned && !has_default && text(found, "mode").eq_ignore_ascii_case("REQUIRED") {
            misfits.push(format!("the column `{parent}{name}` is required and the schema has no such field"));
        }
    }
}

/// Whether a column of BigQuery's type `kind` takes every value of the planned type.
fn takes(kind: &str, field: &Value, planned: &Type) -> bool {
    let kind = kind.to_ascii_uppercase();
    match planned {
        Type::Boolean => matches!(kind.as_str(), "BOOLEAN" | "BOOL"),
        Type::Integer => matches!(kind.as_str(), "INTEGER" | "INT64"),
        Type::Float => matches!(kind.as_str(), "FLOAT" | "FLOAT64"),
        Type::Numeric { precision, scale } | Type::BigNumeric { precision, scale } => {
            let unlimited = match kind.as_str() {
                "NUMERIC" | "DECIMAL" => (29, 9),
                "BIGNUMERIC" | "BIGDECIMAL" => (38, 38),
                _ => return false,
            };
            let (whole, fraction) = match number(field, "precision") {
                Some(precision) => {
                    let scale = number(field, "scale").unwrap_or(0);
                    (precision.saturating_sub(scale), scale)
                }
                None => unlimited,
            };
            precision.saturating_sub(*scale) <= whole && *scale <= fraction
        }
        // The types that no JSON Schema can ask for are filled from text; a bad one is refused row by row.
        Type::String => matches!(kind.as_str(), "STRING" | "DATETIME" | "GEOGRAPHY" | "INTERVAL"),
        Type::Json => matches!(kind.as_str(), "JSON" | "STRING"),
        Type::Record(_) => matches!(kind.as_str(), "RECORD" | "STRUCT"),
        Type::Bytes | Type::Date | Type::Time | Type::Timestamp => kind == planned.name(),
    }
}

fn described(kind: &str, field: &Value) -> String {
    match (number(field, "precision"), number(field, "scale")) {
        (Some(precision), Some(scale)) => format!("{kind}({precision}, {scale})"),
        (Some(precision), None) => format!("{kind}({precision})"),
        _ => kind.to_owned(),
    }
}

fn number(field: &Value, key: &str) -> Option<u32> {
    let value = field.get(key)?;
    match value.as_str() {
        Some(text) => text.parse().ok(),
        None => value.as_u64().and_then(|number| u32::try_from(number).ok()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use txconnect_connector_api::TableSchema;
    use txconnect_connector_api::schema::UnknownFields;

    fn config(extra: &Value) -> BigQueryConfig {
        let mut all = json!({ "project": "p", "dataset": "d" });
        all.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        serde_json::from_value(all).unwrap()
    }

    fn orders(config: &BigQueryConfig) -> TablePlan {
        let schema = json!({
            "required": ["id"],
            "properties": {
                "id": { "type": "string" },
                "amount": { "x-column": { "type": "numeric", "precision": 18, "scale": 2 } },
                "wide": { "x-column": { "type": "numeric", "precision": 60, "scale": 30 } },
                "day": { "type": "string", "format": "date" },
                "at": { "type": "string", "format": "date-time" },
                "extra": { "type": "object" },
                "lines": { "type": "array", "items": {
                    "type": "object", "required": ["n"], "properties": { "n": { "type": "integer" } } } }
            }
        });
        TablePlan::new(config, &TableSchema::from_json_schema(&schema, UnknownFields::DeadLetter).unwrap())
            .unwrap()
    }

    fn upsert(extra: &Value) -> BigQueryConfig {
        let mut all = json!({ "write": "upsert", "key": ["id", "day"] });
        all.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        config(&all)
    }

    #[test]
    fn a_table_made_from_the_plan_fits_it() {
        let kafka = json!({ "kafka_columns": ["topic", "partition", "offset", "timestamp"] });
        for config in [
            config(&json!({})),
            config(&kafka),
            upsert(&kafka),
            upsert(&json!({ "delete_on_tombstone": true, "kafka_columns": ["topic"] })),
        ] {
            let plan = orders(&config);
            let resource = plan.resource(&config, "orders");
            assert_eq!(plan.misfits(&config, "orders", &resource), Misfits::default());
        }
    }

    #[test]
    fn every_column_that_does_not_fit_is_named() {
        let config = config(&json!({}));
        let plan = orders(&config);
        let table = json!({ "type": "TABLE", "schema": { "fields": [
            { "name": "ID", "type": "STRING" },
            { "name": "amount", "type": "NUMERIC", "precision": "10", "scale": "2" },
            { "name": "wide", "type": "FLOAT64" },
            { "name": "day", "type": "DATE", "mode": "REPEATED" },
            { "name": "at", "type": "TIMESTAMP" },
            { "name": "lines", "type": "STRUCT", "mode": "REPEATED", "fields": [
                { "name": "n", "type": "RANGE" } ] },
            { "name": "tenant", "type": "STRING", "mode": "REQUIRED" },
            { "name": "made", "type": "TIMESTAMP", "mode": "REQUIRED", "defaultValueExpression": "CURRENT_TIMESTAMP()" }
        ] } });
        assert_eq!(
            plan.misfits(&config, "t", &table).reasons,
            [
                "the column `amount` is NUMERIC(10, 2), which does not take NUMERIC(18, 2)",
                "the column `wide` is FLOAT64, which does not take BIGNUMERIC(60, 30)",
                "the column `day` holds many values a row, the schema has one",
                "the column `extra` (JSON) is missing",
                "the column `lines.n` is RANGE, which does not take INT64",
                "the column `tenant` is required and the schema has no such field",
            ]
        );
        let view = plan.misfits(&config, "t", &json!({ "type": "VIEW" }));
        assert_eq!(view.reasons, ["it is a view, which takes no rows"]);
    }

    #[test]
    fn missing_columns_come_with_the_statement_that_adds_them() {
        let config = config(&json!({ "kafka_columns": ["topic", "timestamp"] }));
        let plan = orders(&config);
        let mut table = plan.resource(&config, "orders");
        table["schema"]["fields"].as_array_mut().unwrap().retain(|field| {
            !["amount", "_kafka_topic", "_kafka_timestamp"].contains(&field["name"].as_str().unwrap())
        });
        let misfits = plan.misfits(&config, "orders", &table);
        assert_eq!(misfits.reasons.len(), 3);
        assert!(misfits.reasons.contains(&"the column `_kafka_topic` (STRING) is missing".to_owned()));
        assert_eq!(
            misfits.statements,
            [
                "ALTER TABLE `p.d.orders` ADD COLUMN `amount` NUMERIC(18, 2), ADD COLUMN `_kafka_topic` STRING, \
              ADD COLUMN `_kafka_timestamp` TIMESTAMP;"
            ]
        );
    }

    #[test]
    fn a_table_without_the_key_comes_with_the_statements_that_add_it() {
        let append = config(&json!({}));
        let mut table = orders(&append).resource(&append, "orders");
        let config = upsert(&json!({ "max_staleness": "90s" }));
        let plan = orders(&config);
        let misfits = plan.misfits(&config, "orders", &table);
        assert_eq!(misfits.reasons, ["it has no primary key, `write: upsert` needs (id, day)"]);
        let add = "ALTER TABLE `p.d.orders` ADD PRIMARY KEY (`id`, `day`) NOT ENFORCED;";
        let staleness = "ALTER TABLE `p.d.orders` SET OPTIONS (max_staleness = INTERVAL 90 SECOND);";
        assert_eq!(misfits.statements, [add, staleness]);

        table["tableConstraints"] = json!({ "primaryKey": { "columns": ["id"] } });
        let misfits = plan.misfits(&config, "orders", &table);
        assert_eq!(misfits.reasons, ["its primary key is (id), `key` says (id, day)"]);
        assert_eq!(misfits.statements, ["ALTER TABLE `p.d.orders` DROP PRIMARY KEY;", add, staleness]);

        table["tableConstraints"] = json!({ "primaryKey": { "columns": ["DAY", "id"] } });
        assert_eq!(plan.misfits(&config, "orders", &table), Misfits::default());
    }

    #[test]
    fn deletions_need_every_other_column_to_take_nulls() {
        let keeps = upsert(&json!({}));
        let mut table = orders(&keeps).resource(&keeps, "orders");
        table["schema"]["fields"][1]["mode"] = "REQUIRED".into();
        let config = upsert(&json!({ "delete_on_tombstone": true }));
        let misfits = orders(&config).misfits(&config, "orders", &table);
        assert_eq!(
            misfits.reasons,
            ["the column `amount` is required, and a deletion has the columns of the key only"]
        );
        assert_eq!(misfits.statements, ["ALTER TABLE `p.d.orders` ALTER COLUMN `amount` DROP NOT NULL;"]);
    }
}
