//! Whether rows made for a plan fit a table that is there.

use serde_json::Value;
use txconnect_connector_api::Mode;

use crate::plan::{Field, TablePlan, Type, sql_type};

impl TablePlan {
    /// What keeps rows of this plan from fitting the table that `resource` (an answer of `tables.get`)
    /// describes: one sentence for every column.
    pub(crate) fn misfits(&self, resource: &Value) -> Vec<String> {
        let mut misfits = Vec::new();
        match resource.get("type").and_then(Value::as_str) {
            None | Some("TABLE") => {
                compare(&self.fields, resource.get("schema"), "", &mut misfits);
            }
            Some(other) => misfits.push(format!("it is a {}, which takes no rows", other.to_lowercase())),
        }
        misfits
    }
}

/// Compares planned fields with the `fields` of `schema`, a schema or a record field of BigQuery's.
fn compare(planned: &[Field], schema: Option<&Value>, parent: &str, misfits: &mut Vec<String>) {
    let existing: &[Value] =
        schema.and_then(|schema| schema.get("fields")).and_then(Value::as_array).map_or(&[], Vec::as_slice);
    let text = |field: &Value, key: &str| field.get(key).and_then(Value::as_str).unwrap_or("").to_owned();
    for field in planned {
        let path = format!("{parent}{}", field.name);
        let Some(found) = existing.iter().find(|found| text(found, "name").eq_ignore_ascii_case(&field.name))
        else {
            misfits.push(format!("the column `{path}` ({}) is missing", sql_type(field, false)));
            continue;
        };
        let kind = text(found, "type");
        let repeated = text(found, "mode").eq_ignore_ascii_case("REPEATED");
        if repeated != (field.mode == Mode::Repeated) {
            let (is, should) =
                if repeated { ("holds many values a row", "one") } else { ("holds one value a row", "many") };
            misfits.push(format!("the column `{path}` {is}, the schema has {should}"));
        } else if !takes(&kind, found, &field.kind) {
            misfits.push(format!(
                "the column `{path}` is {}, which does not take {}",
                described(&kind, found),
                sql_type(field, false)
            ));
        } else if let Type::Record(inner) = &field.kind {
            compare(inner, Some(found), &format!("{path}."), misfits);
        }
    }
    for found in existing {
        let name = text(found, "name");
        let planned = planned.iter().any(|field| field.name.eq_ignore_ascii_case(&name));
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
    use crate::config::BigQueryConfig;
    use serde_json::json;
    use txconnect_connector_api::TableSchema;
    use txconnect_connector_api::schema::UnknownFields;

    fn orders() -> TablePlan {
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
        TablePlan::new(&TableSchema::from_json_schema(&schema, UnknownFields::DeadLetter).unwrap()).unwrap()
    }

    #[test]
    fn a_table_made_from_the_plan_fits_it() {
        let plan = orders();
        let config: BigQueryConfig =
            serde_json::from_value(json!({ "project": "p", "dataset": "d" })).unwrap();
        assert_eq!(plan.misfits(&plan.resource(&config, "orders")), Vec::<String>::new());
    }

    #[test]
    fn every_column_that_does_not_fit_is_named() {
        let plan = orders();
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
            plan.misfits(&table),
            [
                "the column `amount` is NUMERIC(10, 2), which does not take NUMERIC(18, 2)",
                "the column `wide` is FLOAT64, which does not take BIGNUMERIC(60, 30)",
                "the column `day` holds many values a row, the schema has one",
                "the column `extra` (JSON) is missing",
                "the column `lines.n` is RANGE, which does not take INT64",
                "the column `tenant` is required and the schema has no such field",
            ]
        );
        assert_eq!(plan.misfits(&json!({ "type": "VIEW" })), ["it is a view, which takes no rows"]);
    }
}
