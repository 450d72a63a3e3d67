//! A table's schema: the JSON of `schema.fields` as typed columns.

use std::fmt;

use serde_json::{Map, Value as Json};

use super::decimal::{BIGNUMERIC, Limits, NUMERIC};

/// The deepest nesting of records that BigQuery takes.
const DEEPEST: usize = 15;
/// The most columns a table may have, nested ones included.
const MOST_COLUMNS: usize = 10_000;
/// The longest column name, in characters.
const LONGEST_NAME: usize = 300;
/// Prefixes that BigQuery keeps for itself, compared without case.
const RESERVED: [&str; 6] =
    ["_table_", "_file_", "_partition", "_row_timestamp", "__root__", "_colidentifier"];
/// Names that BigQuery keeps for itself, compared without case.
const RESERVED_NAMES: [&str; 2] = ["_change_type", "_change_sequence_number"];

/// What a column holds.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Kind {
    Integer,
    Float,
    /// NUMERIC, with its precision and scale or the type's own.
    Numeric(Limits),
    /// BIGNUMERIC, likewise.
    BigNumeric(Limits),
    Boolean,
    /// STRING, with the most characters it may have.
    String(Option<usize>),
    /// BYTES, with the most bytes it may have.
    Bytes(Option<usize>),
    Date,
    Time,
    DateTime,
    Timestamp,
    Json,
    Record(Vec<Column>),
}

impl Kind {
    /// The name BigQuery's REST interface gives the type.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Kind::Integer => "INTEGER",
            Kind::Float => "FLOAT",
            Kind::Numeric(_) => "NUMERIC",
            Kind::BigNumeric(_) => "BIGNUMERIC",
            Kind::Boolean => "BOOLEAN",
            Kind::String(_) => "STRING",
            Kind::Bytes(_) => "BYTES",
            Kind::Date => "DATE",
            Kind::Time => "TIME",
            Kind::DateTime => "DATETIME",
            Kind::Timestamp => "TIMESTAMP",
            Kind::Json => "JSON",
            Kind::Record(_) => "RECORD",
        }
    }
}

/// Whether a column may be null or holds an array.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    Nullable,
    Required,
    Repeated,
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Mode::Nullable => "NULLABLE",
            Mode::Required => "REQUIRED",
            Mode::Repeated => "REPEATED",
        })
    }
}

/// One column of a table or of a record.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Column {
    pub(crate) name: String,
    pub(crate) kind: Kind,
    pub(crate) mode: Mode,
}

impl Column {
    /// Whether this is the column a JSON key or a SQL name means; names have no case.
    pub(crate) fn is_named(&self, name: &str) -> bool {
        self.name.eq_ignore_ascii_case(name)
    }
}

/// Reads `schema.fields` of a table resource. The error is the sentence for the caller.
pub(crate) fn parse_fields(fields: &Json) -> Result<Vec<Column>, String> {
    let mut count = 0;
    parse_level(fields, 0, &mut count)
}

fn parse_level(fields: &Json, depth: usize, count: &mut usize) -> Result<Vec<Column>, String> {
    let Json::Array(fields) = fields else {
        return Err("Invalid value for schema.fields: it must be a list of fields.".to_owned());
    };
    if depth >= DEEPEST {
        return Err(format!("Too many nested records: at most {DEEPEST} levels are allowed."));
    }
    *count += fields.len();
    if *count > MOST_COLUMNS {
        return Err(format!("Too many fields: at most {MOST_COLUMNS} are allowed."));
    }
    let mut columns: Vec<Column> = Vec::with_capacity(fields.len());
    let mut names = std::collections::HashSet::with_capacity(fields.len());
    for field in fields {
        let column = parse_field(field, depth, count)?;
        if !names.insert(column.name.to_ascii_lowercase()) {
            return Err(format!("Field {} already exists in schema", column.name));
        }
        columns.push(column);
    }
    Ok(columns)
}

fn parse_field(field: &Json, depth: usize, count: &mut usize) -> Result<Column, String> {
    let Json::Object(field) = field else {
        return Err("Invalid value for schema.fields: every field must be an object.".to_owned());
    };
    let name = text(field, "name")?.ok_or("Field must have a name: add \"name\" to every field.")?;
    check_name(name)?;
    let type_name = text(field, "type")?.ok_or_else(|| format!("Type is missing for field {name}"))?;
    let mode = match text(field, "mode")?.map(str::to_ascii_uppercase).as_deref() {
        None | Some("" | "NULLABLE") => Mode::Nullable,
        Some("REQUIRED") => Mode::Required,
        Some("REPEATED") => Mode::Repeated,
        Some(_) => {
            return Err(format!("Invalid mode for field {name}: it is NULLABLE, REQUIRED or REPEATED."));
        }
    };
    let kind = match type_name.to_ascii_uppercase().as_str() {
        "INTEGER" | "INT64" => Kind::Integer,
        "FLOAT" | "FLOAT64" => Kind::Float,
        "NUMERIC" => Kind::Numeric(limits(field, name, NUMERIC)?),
        "BIGNUMERIC" => Kind::BigNumeric(limits(field, name, BIGNUMERIC)?),
        "BOOLEAN" | "BOOL" => Kind::Boolean,
        "STRING" => Kind::String(number(field, "maxLength", name)?),
        "BYTES" => Kind::Bytes(number(field, "maxLength", name)?),
        "DATE" => Kind::Date,
        "TIME" => Kind::Time,
        "DATETIME" => Kind::DateTime,
        "TIMESTAMP" => Kind::Timestamp,
        "JSON" => Kind::Json,
        "RECORD" | "STRUCT" => {
            let nested = field.get("fields").filter(|fields| !fields.is_null());
            let nested = nested.ok_or_else(|| format!("Field {name} is type RECORD but has no schema"))?;
            let nested = parse_level(nested, depth + 1, count)?;
            if nested.is_empty() {
                return Err(format!("Field {name} is type RECORD but has no schema"));
            }
            Kind::Record(nested)
        }
        "GEOGRAPHY" | "INTERVAL" | "RANGE" => {
            let type_name = type_name.to_ascii_uppercase();
            return Err(format!("Field {name}: the local BigQuery does not know the type {type_name}."));
        }
        _ => return Err(format!("Invalid value for type of field {name}: it is not a valid type")),
    };
    Ok(Column { name: name.to_owned(), kind, mode })
}

fn check_name(name: &str) -> Result<(), String> {
    let forbidden = |letter: char| letter.is_control() || "!\"$()*,./;?@[\\]^`{}~".contains(letter);
    if name.is_empty() || name.chars().count() > LONGEST_NAME || name.contains(forbidden) {
        return Err(format!(
            "Invalid field name \"{name}\". Fields must contain the allowed characters, and be at most {LONGEST_NAME} \
             characters long."
        ));
    }
    let lower = name.to_ascii_lowercase();
    if RESERVED.iter().any(|prefix| lower.starts_with(prefix)) || RESERVED_NAMES.contains(&lower.as_str()) {
        return Err(format!("Invalid field name \"{name}\": the name is reserved."));
    }
    Ok(())
}

fn text<'a>(field: &'a Map<String, Json>, key: &str) -> Result<Option<&'a str>, String> {
    match field.get(key) {
        None | Some(Json::Null) => Ok(None),
        Some(Json::String(text)) => Ok(Some(text)),
        Some(_) => Err(format!("Invalid value for \"{key}\" of a field: it must be a string.")),
    }
}

/// A whole number that REST writes as a string (int64) but also takes as a number.
fn number(field: &Map<String, Json>, key: &str, name: &str) -> Result<Option<usize>, String> {
    let number = match field.get(key) {
        None | Some(Json::Null) => return Ok(None),
        Some(Json::String(text)) => text.parse().ok(),
        Some(number) => number.as_u64(),
    };
    let number = number.and_then(|number| usize::try_from(number).ok());
    number.map(Some).ok_or_else(|| format!("Invalid value for {key} of field {name}: it must be a number."))
}

/// The limits that `precision` and `scale` set inside those of the type.
fn limits(field: &Map<String, Json>, name: &str, most: Limits) -> Result<Limits, String> {
    let scale = number(field, "scale", name)?;
    let Some(precision) = number(field, "precision", name)? else {
        return match scale {
            None | Some(0) => Ok(most),
            Some(_) => Err(format!("Field {name} has a scale but no precision.")),
        };
    };
    let scale = scale.unwrap_or(0);
    let fits = precision >= 1 && scale <= most.scale && scale <= precision;
    if !fits || precision - scale > most.integer_digits.min(38) {
        return Err(format!("Invalid precision or scale for field {name}."));
    }
    Ok(Limits { integer_digits: precision - scale, scale })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn types_have_two_names_and_modes_default_to_nullable() {
        let columns = parse_fields(&json!([
            {"name": "a", "type": "int64", "mode": "required"},
            {"name": "b", "type": "STRUCT", "mode": "REPEATED", "fields": [{"name": "c", "type": "BOOL"}]},
            {"name": "d", "type": "NUMERIC", "precision": "18", "scale": "2"}
        ]))
        .unwrap();
        assert_eq!(columns[0], Column { name: "a".into(), kind: Kind::Integer, mode: Mode::Required });
        let inner = Column { name: "c".into(), kind: Kind::Boolean, mode: Mode::Nullable };
        assert_eq!(columns[1].kind, Kind::Record(vec![inner]));
        assert_eq!(columns[2].kind, Kind::Numeric(Limits { integer_digits: 16, scale: 2 }));
    }

    #[test]
    fn a_schema_that_bigquery_refuses_is_refused_with_the_reason() {
        for (fields, reason) in [
            (json!({}), "list of fields"),
            (json!([1]), "must be an object"),
            (json!([{"type": "STRING"}]), "must have a name"),
            (json!([{"name": "a.b", "type": "STRING"}]), "Invalid field name"),
            (json!([{"name": "_PARTITIONTIME", "type": "STRING"}]), "reserved"),
            (json!([{"name": "a"}]), "Type is missing"),
            (json!([{"name": "a", "type": "TEXT"}]), "not a valid type"),
            (json!([{"name": "a", "type": "GEOGRAPHY"}]), "does not know the type GEOGRAPHY"),
            (json!([{"name": "a", "type": "STRING", "mode": "OPTIONAL"}]), "Invalid mode"),
            (json!([{"name": "a", "type": "RECORD"}]), "has no schema"),
            (json!([{"name": "a", "type": "DATE"}, {"name": "A", "type": "DATE"}]), "already exists"),
            (json!([{"name": "a", "type": "NUMERIC", "precision": "40"}]), "Invalid precision"),
        ] {
            let refused = parse_fields(&fields).expect_err(&fields.to_string());
            assert!(refused.contains(reason), "{refused} does not say {reason}");
        }
    }

    #[test]
    fn records_nest_fifteen_levels_deep_and_no_deeper() {
        let nest = |levels: usize| {
            (1..levels).fold(
                json!([{"name": "x", "type": "DATE"}]),
                |fields, _| json!([{"name": "x", "type": "RECORD", "fields": fields}]),
            )
        };
        assert!(parse_fields(&nest(15)).is_ok());
        assert!(parse_fields(&nest(16)).expect_err("too deep").contains("nested"));
    }
}
