//! Stored values as JSON: BigQuery's `{"f":[{"v":…}]}` cells and plain objects for tests and people.

use serde_json::{Map, Value as Json, json};

use super::{Column, Kind, Row, Value, temporal};

/// How `tabledata.list` and query results write a TIMESTAMP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TimestampForm {
    /// Seconds as a float, the default: `1.408452095221E9`.
    Seconds,
    /// Microseconds as an integer: `formatOptions.useInt64Timestamp`.
    Micros,
}

/// A row as BigQuery's REST interface writes it.
pub(crate) fn cells(row: &Row, columns: &[Column], form: TimestampForm) -> Json {
    let cells: Vec<Json> = columns.iter().zip(row).map(|(column, value)| cell(value, column, form)).collect();
    json!({ "f": cells })
}

fn cell(value: &Value, column: &Column, form: TimestampForm) -> Json {
    let content = match (value, &column.kind) {
        (Value::List(elements), kind) => {
            Json::Array(elements.iter().map(|element| json!({ "v": content(element, kind, form) })).collect())
        }
        (value, kind) => content(value, kind, form),
    };
    json!({ "v": content })
}

fn content(value: &Value, kind: &Kind, form: TimestampForm) -> Json {
    match (value, kind) {
        (Value::Record(row), Kind::Record(columns)) => cells(row, columns, form),
        (Value::Null, _) => Json::Null,
        (Value::Bool(boolean), _) => boolean.to_string().into(),
        (Value::Integer(integer), _) => integer.to_string().into(),
        (Value::Float(float), _) => float_text(*float).into(),
        (Value::Timestamp(micros), _) => match form {
            TimestampForm::Micros => micros.to_string().into(),
            TimestampForm::Seconds => float_text(*micros as f64 / 1e6).into(),
        },
        (value, kind) => json(value, kind),
    }
}

/// A value as the JSON a person would write: integers and finite floats as numbers, moments as ISO 8601 text in UTC.
pub(crate) fn json(value: &Value, kind: &Kind) -> Json {
    match (value, kind) {
        (Value::Bool(boolean), _) => (*boolean).into(),
        (Value::Integer(integer), _) => (*integer).into(),
        (Value::Float(float), _) => match serde_json::Number::from_f64(*float) {
            Some(number) => number.into(),
            None => float_text(*float).into(),
        },
        (Value::Text(text), _) => text.as_ref().into(),
        (Value::Date(days), _) => temporal::format_date(*days).into(),
        (Value::Time(micros), _) => temporal::format_time(*micros).into(),
        (Value::DateTime(micros), _) => temporal::format_datetime(*micros).into(),
        (Value::Timestamp(micros), _) => format!("{}Z", temporal::format_datetime(*micros)).into(),
        (Value::List(elements), kind) => elements.iter().map(|element| json(element, kind)).collect(),
        (Value::Record(row), Kind::Record(columns)) => Json::Object(object(row, columns)),
        // A record is only ever stored under a record column.
        (Value::Null | Value::Record(_), _) => Json::Null,
    }
}

/// A row as an object, every column named.
pub(crate) fn object(row: &Row, columns: &[Column]) -> Map<String, Json> {
    columns.iter().zip(row).map(|(column, value)| (column.name.clone(), json(value, &column.kind))).collect()
}

/// A float as BigQuery's REST interface writes it: `1.5`, `1.0E10`, `NaN`, `-Infinity`.
fn float_text(float: f64) -> String {
    if float.is_nan() {
        return "NaN".to_owned();
    }
    if float.is_infinite() {
        return if float > 0.0 { "Infinity" } else { "-Infinity" }.to_owned();
    }
    let plain = float == 0.0 || (1e-3..1e7).contains(&float.abs());
    if plain {
        return format!("{float:?}");
    }
    let text = format!("{float:E}");
    match text.split_once('E') {
        Some((mantissa, exponent)) if !mantissa.contains('.') => format!("{mantissa}.0E{exponent}"),
        _ => text,
    }
}

/// About how many bytes the value takes on the wire, for cutting pages.
pub(crate) fn weight(value: &Value) -> usize {
    match value {
        Value::Text(text) => 12 + text.len(),
        Value::List(values) | Value::Record(values) => 16 + values.iter().map(weight).sum::<usize>(),
        _ => 32,
    }
}

#[cfg(test)]
mod tests {
    use super::super::column::parse_fields;
    use super::*;

    #[test]
    fn a_row_is_listed_in_cells_with_every_scalar_as_text() {
        let fields = json!([
            {"name": "id", "type": "INTEGER"},
            {"name": "at", "type": "TIMESTAMP"},
            {"name": "who", "type": "RECORD", "fields": [{"name": "ok", "type": "BOOLEAN"}]},
            {"name": "tags", "type": "STRING", "mode": "REPEATED"},
            {"name": "later", "type": "STRING"}
        ]);
        let columns = parse_fields(&fields).unwrap();
        let row = vec![
            Value::Integer(7),
            Value::Timestamp(1_408_452_095_221_000),
            Value::Record(vec![Value::Bool(true)]),
            Value::List(vec![Value::Text("a".into())]),
            Value::Null,
        ];
        assert_eq!(
            cells(&row, &columns, TimestampForm::Seconds),
            json!({"f": [
                {"v": "7"},
                {"v": "1.408452095221E9"},
                {"v": {"f": [{"v": "true"}]}},
                {"v": [{"v": "a"}]},
                {"v": null}
            ]})
        );
        assert_eq!(cells(&row, &columns, TimestampForm::Micros)["f"][1]["v"], "1408452095221000");
        assert_eq!(
            Json::Object(object(&row, &columns)),
            json!({"id": 7, "at": "2014-08-19T12:41:35.221000Z", "who": {"ok": true}, "tags": ["a"], "later": null})
        );
    }

    #[test]
    fn floats_are_written_with_a_point_and_an_upper_case_exponent() {
        for (float, text) in [
            (0.0, "0.0"),
            (1.5, "1.5"),
            (1e10, "1.0E10"),
            (-2.5e-7, "-2.5E-7"),
            (f64::NAN, "NaN"),
            (f64::NEG_INFINITY, "-Infinity"),
        ] {
            assert_eq!(float_text(float), text);
        }
    }
}
