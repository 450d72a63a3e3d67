//! Resources as JSON objects: names, etags, merging and the rules BigQuery checks when a table is made.

use serde_json::{Map, Value as Json};

use crate::error::ApiError;
use crate::types::{Column, Kind, Mode};

/// The longest dataset or table id, in characters.
const LONGEST_ID: usize = 1024;
/// The most columns a primary key may have.
const MOST_KEY_COLUMNS: usize = 16;
/// The most columns a table may be clustered by.
const MOST_CLUSTERING_COLUMNS: usize = 4;
/// Fields that the server answers with and a caller cannot set.
const OUTPUT_ONLY: [&str; 10] = [
    "kind",
    "etag",
    "id",
    "selfLink",
    "creationTime",
    "lastModifiedTime",
    "numRows",
    "numBytes",
    "type",
    "streamingBuffer",
];

/// The etag of a resource whose last change had this number.
pub(crate) fn etag(serial: u64) -> String {
    format!("\"{serial:016x}\"")
}

/// Datasets take letters, digits and `_`; tables also take `-` and other letters.
pub(crate) fn check_id(what: &str, id: &str) -> Result<(), ApiError> {
    let allowed = |letter: char| {
        letter.is_ascii_alphanumeric()
            || letter == '_'
            || (what == "table"
                && (letter == '-' || letter == ' ' || (!letter.is_ascii() && letter.is_alphanumeric())))
    };
    if id.is_empty() || id.chars().count() > LONGEST_ID || !id.chars().all(allowed) {
        let message = format!(
            "Invalid {what} ID \"{id}\". {what} IDs must be alphanumeric (plus underscores{}) and must be at most \
             {LONGEST_ID} characters long.",
            if what == "table" { " and dashes" } else { "" }
        );
        return Err(ApiError::invalid(message));
    }
    Ok(())
}

/// Removes what only the server may say.
pub(crate) fn drop_output_only(resource: &mut Map<String, Json>) {
    for key in OUTPUT_ONLY {
        resource.remove(key);
    }
}

/// Sets every field of `fields`, which is an object.
pub(crate) fn set_all(resource: &mut Map<String, Json>, fields: Json) {
    if let Json::Object(fields) = fields {
        resource.extend(fields);
    }
}

/// Merges as RFC 7396 does: objects recursively, null removes, anything else replaces.
pub(crate) fn merge(target: &mut Map<String, Json>, change: Map<String, Json>) {
    for (key, value) in change {
        match value {
            Json::Null => {
                target.remove(&key);
            }
            Json::Object(change) => {
                let place = target.entry(key).or_insert(Json::Null);
                if !place.is_object() {
                    *place = Json::Object(Map::new());
                }
                if let Json::Object(place) = place {
                    merge(place, change);
                }
            }
            value => {
                target.insert(key, value);
            }
        }
    }
}

/// Checks what a table resource says about its columns: partitioning, clustering and the primary key.
pub(crate) fn check_table(resource: &Map<String, Json>, columns: &[Column]) -> Result<(), ApiError> {
    check_time_partitioning(resource, columns)?;
    let range = resource.get("rangePartitioning").and_then(|range| range.get("field"));
    if let Some(field) = range.and_then(Json::as_str) {
        let column = top_level(columns, field, "range partitioning")?;
        if column.kind != Kind::Integer || column.mode == Mode::Repeated {
            return Err(ApiError::invalid(format!(
                "The field {field} of the range partitioning must be INTEGER."
            )));
        }
        if resource.get("timePartitioning").is_some_and(|time| !time.is_null()) {
            return Err(ApiError::invalid("A table is partitioned by time or by range, not by both."));
        }
    }
    let clustering = names(resource.get("clustering").and_then(|clustering| clustering.get("fields")));
    if clustering.len() > MOST_CLUSTERING_COLUMNS {
        return Err(ApiError::invalid(format!(
            "At most {MOST_CLUSTERING_COLUMNS} clustering fields are allowed."
        )));
    }
    for field in clustering {
        let column = top_level(columns, field, "clustering")?;
        if column.mode == Mode::Repeated || matches!(column.kind, Kind::Record(_) | Kind::Float | Kind::Json)
        {
            return Err(ApiError::invalid(format!(
                "The field {field} cannot be clustered by: its type does not allow it."
            )));
        }
    }
    let key = key_names(resource);
    if key.len() > MOST_KEY_COLUMNS {
        return Err(ApiError::invalid(format!("A primary key has at most {MOST_KEY_COLUMNS} columns.")));
    }
    for field in key {
        let column = top_level(columns, field, "primary key")?;
        if column.mode == Mode::Repeated || matches!(column.kind, Kind::Record(_) | Kind::Float | Kind::Json)
        {
            return Err(ApiError::invalid(format!("The field {field} cannot be part of a primary key.")));
        }
    }
    Ok(())
}

fn check_time_partitioning(resource: &Map<String, Json>, columns: &[Column]) -> Result<(), ApiError> {
    let Some(partitioning) = resource.get("timePartitioning").filter(|partitioning| !partitioning.is_null())
    else {
        return Ok(());
    };
    let unit = partitioning.get("type").and_then(Json::as_str).unwrap_or_default();
    if !["DAY", "HOUR", "MONTH", "YEAR"].contains(&unit) {
        return Err(ApiError::invalid("timePartitioning.type must be DAY, HOUR, MONTH or YEAR."));
    }
    let Some(field) = partitioning.get("field").and_then(Json::as_str) else {
        return Ok(());
    };
    let column = top_level(columns, field, "time partitioning")?;
    let fits = matches!(column.kind, Kind::Timestamp | Kind::DateTime)
        || (column.kind == Kind::Date && unit != "HOUR");
    if !fits || column.mode == Mode::Repeated {
        let message =
            format!("The field {field} of the time partitioning must be DATE, TIMESTAMP or DATETIME.");
        return Err(ApiError::invalid(message));
    }
    Ok(())
}

fn key_names(resource: &Map<String, Json>) -> Vec<&str> {
    let key = resource.get("tableConstraints").and_then(|constraints| constraints.get("primaryKey"));
    names(key.and_then(|key| key.get("columns")))
}

/// The places of the primary key's columns, where the table has a primary key.
pub(crate) fn primary_key(resource: &Map<String, Json>, columns: &[Column]) -> Option<Vec<usize>> {
    let place = |name: &&str| columns.iter().position(|column| column.is_named(name));
    let key: Vec<usize> = key_names(resource).iter().filter_map(place).collect();
    (!key.is_empty()).then_some(key)
}

/// Whether two resources of a table have the same primary key.
pub(crate) fn same_key(before: &Map<String, Json>, after: &Map<String, Json>) -> bool {
    let (before, after) = (key_names(before), key_names(after));
    before.len() == after.len() && before.iter().zip(&after).all(|(a, b)| a.eq_ignore_ascii_case(b))
}

fn names(list: Option<&Json>) -> Vec<&str> {
    list.and_then(Json::as_array)
        .map(|list| list.iter().filter_map(Json::as_str).collect())
        .unwrap_or_default()
}

fn top_level<'a>(columns: &'a [Column], name: &str, purpose: &str) -> Result<&'a Column, ApiError> {
    let column = columns.iter().find(|column| column.is_named(name));
    column.ok_or_else(|| {
        ApiError::invalid(format!("The field specified for {purpose} cannot be found in the schema: {name}."))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::column::parse_fields;
    use serde_json::json;

    fn object(value: Json) -> Map<String, Json> {
        match value {
            Json::Object(object) => object,
            other => panic!("not an object: {other}"),
        }
    }

    #[test]
    fn merging_changes_what_is_named_and_keeps_the_rest() {
        let mut target = object(json!({"labels": {"a": "1", "b": "2"}, "description": "x", "list": [1, 2]}));
        merge(
            &mut target,
            object(json!({"labels": {"b": null, "c": "3"}, "description": null, "list": [3]})),
        );
        assert_eq!(Json::Object(target), json!({"labels": {"a": "1", "c": "3"}, "list": [3]}));
    }

    #[test]
    fn partitioning_clustering_and_keys_name_columns_that_fit() {
        let columns = parse_fields(&json!([
            {"name": "id", "type": "INTEGER"},
            {"name": "at", "type": "TIMESTAMP"},
            {"name": "day", "type": "DATE"},
            {"name": "ratio", "type": "FLOAT"}
        ]))
        .unwrap();
        let check = |resource: Json| check_table(&object(resource), &columns);
        assert_eq!(check(json!({"timePartitioning": {"type": "HOUR", "field": "at"}})), Ok(()));
        assert_eq!(
            check(json!({"clustering": {"fields": ["id"]}, "timePartitioning": {"type": "DAY"}})),
            Ok(())
        );
        assert_eq!(check(json!({"tableConstraints": {"primaryKey": {"columns": ["id", "day"]}}})), Ok(()));
        for refused in [
            json!({"timePartitioning": {"type": "WEEK"}}),
            json!({"timePartitioning": {"type": "HOUR", "field": "day"}}),
            json!({"timePartitioning": {"type": "DAY", "field": "id"}}),
            json!({"timePartitioning": {"type": "DAY", "field": "missing"}}),
            json!({"rangePartitioning": {"field": "at"}}),
            json!({"clustering": {"fields": ["ratio"]}}),
            json!({"tableConstraints": {"primaryKey": {"columns": ["ratio"]}}}),
            json!({"tableConstraints": {"primaryKey": {"columns": ["missing"]}}}),
        ] {
            assert_eq!(check(refused.clone()).map_err(|error| error.status), Err(400), "{refused}");
        }
    }

    #[test]
    fn ids_are_letters_digits_and_underscores() {
        assert!(check_id("dataset", "a_1").is_ok());
        assert!(check_id("dataset", "a-1").is_err());
        assert!(check_id("table", "a-1").is_ok());
        assert!(check_id("table", "a.b").is_err());
        assert!(check_id("table", "").is_err());
    }
}
