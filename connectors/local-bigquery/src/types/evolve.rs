//! Changing a schema in place: which changes BigQuery allows, and what they make of the rows that are there.

use super::{Column, Kind, Mode, Row, Value};

/// Checks a new schema against the one in force: columns may be added (not as REQUIRED) and relaxed, nothing else.
/// The error is BigQuery's sentence without its beginning.
pub(crate) fn check(old: &[Column], new: &[Column]) -> Result<(), String> {
    check_level(old, new, "")
}

fn check_level(old: &[Column], new: &[Column], prefix: &str) -> Result<(), String> {
    for before in old {
        let path = format!("{prefix}{}", before.name);
        let Some(after) = new.iter().find(|column| column.is_named(&before.name)) else {
            return Err(format!("Field {path} is missing in new schema"));
        };
        let relaxed = before.mode == Mode::Required && after.mode == Mode::Nullable;
        if before.mode != after.mode && !relaxed {
            return Err(format!("Field {path} has changed mode from {} to {}", before.mode, after.mode));
        }
        match (&before.kind, &after.kind) {
            (Kind::Record(before), Kind::Record(after)) => check_level(before, after, &format!("{path}."))?,
            (before, after) if std::mem::discriminant(before) != std::mem::discriminant(after) => {
                return Err(format!(
                    "Field {path} has changed type from {} to {}",
                    before.name(),
                    after.name()
                ));
            }
            _ => {}
        }
    }
    for added in new.iter().filter(|column| !old.iter().any(|before| before.is_named(&column.name))) {
        if added.mode == Mode::Required {
            let path = format!("{prefix}{}", added.name);
            return Err(format!("Cannot add required fields to an existing schema. (field: {path})"));
        }
    }
    Ok(())
}

/// A row of the old schema in the new schema's order, with nothing in the columns that were added.
pub(crate) fn carry_over(row: Row, old: &[Column], new: &[Column]) -> Row {
    let mut values: Vec<Option<Value>> = row.into_iter().map(Some).collect();
    let carry = |after: &Column| {
        let index = old.iter().position(|before| before.is_named(&after.name));
        let value = index.and_then(|index| Some((values.get_mut(index)?.take()?, old.get(index)?)));
        match (value, after.mode) {
            (Some((value, before)), _) => carry_value(value, &before.kind, &after.kind),
            (None, Mode::Repeated) => Value::List(Vec::new()),
            (None, _) => Value::Null,
        }
    };
    new.iter().map(carry).collect()
}

fn carry_value(value: Value, old: &Kind, new: &Kind) -> Value {
    match (value, old, new) {
        (Value::Record(row), Kind::Record(before), Kind::Record(after)) => {
            Value::Record(carry_over(row, before, after))
        }
        (Value::List(elements), before, after) => {
            Value::List(elements.into_iter().map(|element| carry_value(element, before, after)).collect())
        }
        (value, _, _) => value,
    }
}

#[cfg(test)]
mod tests {
    use super::super::column::parse_fields;
    use super::*;
    use serde_json::{Value as Json, json};

    fn verdict(old: &Json, new: &Json) -> Result<(), String> {
        check(&parse_fields(old).unwrap(), &parse_fields(new).unwrap())
    }

    #[test]
    fn a_column_may_be_added_or_relaxed_and_nothing_else() {
        let old = json!([{"name": "a", "type": "INTEGER", "mode": "REQUIRED"}]);
        assert_eq!(
            verdict(&old, &json!([{"name": "b", "type": "DATE"}, {"name": "A", "type": "INT64"}])),
            Ok(())
        );
        for (new, reason) in [
            (json!([]), "Field a is missing in new schema"),
            (json!([{"name": "a", "type": "INTEGER", "mode": "REPEATED"}]), "from REQUIRED to REPEATED"),
            (json!([{"name": "a", "type": "FLOAT", "mode": "REQUIRED"}]), "from INTEGER to FLOAT"),
            (
                json!([{"name": "a", "type": "INTEGER"}, {"name": "b", "type": "DATE", "mode": "REQUIRED"}]),
                "Cannot add required fields to an existing schema. (field: b)",
            ),
        ] {
            let refused = verdict(&old, &new).expect_err(reason);
            assert!(refused.contains(reason), "{refused}");
        }
    }

    #[test]
    fn rows_keep_their_values_when_columns_are_added_inside_records_and_moved() {
        let old = json!([
            {"name": "a", "type": "INTEGER"},
            {"name": "r", "type": "RECORD", "mode": "REPEATED", "fields": [{"name": "x", "type": "INTEGER"}]}
        ]);
        let new = json!([
            {"name": "r", "type": "RECORD", "mode": "REPEATED", "fields": [
                {"name": "tags", "type": "STRING", "mode": "REPEATED"}, {"name": "x", "type": "INTEGER"}]},
            {"name": "b", "type": "DATE"},
            {"name": "a", "type": "INTEGER"}
        ]);
        let row = vec![Value::Integer(1), Value::List(vec![Value::Record(vec![Value::Integer(2)])])];
        let carried = carry_over(row, &parse_fields(&old).unwrap(), &parse_fields(&new).unwrap());
        let inner = Value::Record(vec![Value::List(vec![]), Value::Integer(2)]);
        assert_eq!(carried, vec![Value::List(vec![inner]), Value::Null, Value::Integer(1)]);
    }
}
