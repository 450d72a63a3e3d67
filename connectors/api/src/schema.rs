//! The columns that a JSON Schema describes.
//!
//! One schema file says what a valid record is, what the table looks like and how a value becomes a column.
//! Standard keywords give most of it; the annotation `x-column` gives the rest:
//!
//! | JSON Schema | column |
//! |---|---|
//! | `type: boolean` | boolean |
//! | `type: integer` | 64-bit integer |
//! | `type: number` | double |
//! | `type: string` | text; `format: date-time`, `date`, `time`, `uuid` and `contentEncoding: base64` narrow it |
//! | `type: object` with `properties` | record of columns; without: JSON |
//! | `type: array` with an `items` schema | repeated column; of arrays or without: JSON |
//! | anything else | JSON |
//! | `x-column: {type: timestamp, unit: ms}` | a timestamp from an epoch; units `s`, `ms`, `us`, `ns` |
//! | `x-column: {type: numeric, precision: 18, scale: 2}` | an exact decimal, also from a string |
//! | `x-column: {type: json}` | JSON text |
//! | `x-column: {name: …}`, `{ignore: true}` | another column name; no column |
//!
//! A column is required when its property is `required` and does not allow `null`.

use std::collections::HashMap;

use serde_json::Value;

/// The table that a schema describes.
#[derive(Clone, Debug, PartialEq)]
pub struct TableSchema {
    /// The columns in the order of the schema's properties.
    pub columns: Columns,
    /// The schema's own description.
    pub description: Option<String>,
    /// What becomes of fields that no column takes.
    pub unknown_fields: UnknownFields,
}

/// What becomes of a field that the schema allows but no column takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UnknownFields {
    /// The record is a dead letter.
    #[default]
    DeadLetter,
    /// The field is left out and counted.
    Ignore,
}

/// Columns with a quick way from a property's name to its column.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Columns {
    list: Vec<Column>,
    ignored: Vec<String>,
    by_property: HashMap<String, usize>,
}

/// One column.
#[derive(Clone, Debug, PartialEq)]
pub struct Column {
    /// The property of the record that fills the column.
    pub property: String,
    /// The column's name in the table.
    pub name: String,
    /// What it holds.
    pub kind: Kind,
    /// Whether it may be missing or occurs many times.
    pub mode: Mode,
    /// The property's description, for a column comment.
    pub description: Option<String>,
}

/// Whether a column may be missing or occurs many times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Every record has a value.
    Required,
    /// The value may be missing or null.
    Nullable,
    /// An array of values.
    Repeated,
}

/// What a column holds.
#[derive(Clone, Debug, PartialEq)]
pub enum Kind {
    /// True or false.
    Boolean,
    /// A 64-bit integer. `1.0` counts as 1.
    Integer,
    /// A double.
    Float,
    /// An exact decimal with at most `precision` digits, `scale` of them behind the point.
    Numeric {
        /// All digits.
        precision: u32,
        /// Digits behind the point.
        scale: u32,
    },
    /// Text.
    String,
    /// Bytes, base64 in the record.
    Bytes,
    /// A calendar date, `2026-11-23` in the record.
    Date,
    /// A time of day, `12:30:00` in the record.
    Time,
    /// A point in time.
    Timestamp(TimestampSource),
    /// A UUID in its text form.
    Uuid,
    /// Any JSON value, kept as JSON.
    Json,
    /// Columns inside a column.
    Record(Columns),
}

/// How a point in time is written in the record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimestampSource {
    /// RFC 3339 text.
    Rfc3339,
    /// A number counted from 1970-01-01T00:00:00Z.
    Epoch(TimeUnit),
}

/// The unit of an epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeUnit {
    /// `s`
    Seconds,
    /// `ms`
    Milliseconds,
    /// `us`
    Microseconds,
    /// `ns`
    Nanoseconds,
}

/// A reason why a schema gives no table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SchemaProblem {
    /// Where in the schema, as a JSON pointer.
    pub pointer: String,
    /// What is wrong and what would be right.
    pub message: String,
}

/// References deeper than this are taken for a cycle.
const MAX_REFERENCES: usize = 32;

/// Records nested deeper than this become JSON columns. BigQuery allows 15 levels
/// (<https://cloud.google.com/bigquery/docs/nested-repeated#limitations>).
const MAX_NESTING: usize = 15;

impl TableSchema {
    /// Reads the columns out of a JSON Schema whose root describes an object.
    ///
    /// # Errors
    /// All places that give no column, at once.
    pub fn from_json_schema(
        schema: &Value,
        unknown_fields: UnknownFields,
    ) -> Result<Self, Vec<SchemaProblem>> {
        let mut reader = Reader { root: schema, open: Vec::new(), problems: Vec::new() };
        let (root, pointer) = reader.resolve(schema, String::new());
        let columns = if root.get("properties").is_some_and(Value::is_object) {
            reader.columns(root, &pointer, 0)
        } else {
            reader.problem(
                &pointer,
                "the schema of a record needs `properties`: they are the columns of the table",
            );
            Columns::default()
        };
        if reader.problems.is_empty() && columns.list.is_empty() {
            reader.problem(&pointer, "no property is left to make a column of");
        }
        if reader.problems.is_empty() {
            let description = root.get("description").and_then(Value::as_str).map(str::to_owned);
            Ok(Self { columns, description, unknown_fields })
        } else {
            Err(reader.problems)
        }
    }
}

impl Columns {
    /// Indexes columns; `ignored` are properties that are meant to have none.
    pub fn new(list: Vec<Column>, ignored: Vec<String>) -> Self {
        let by_property =
            list.iter().enumerate().map(|(index, column)| (column.property.clone(), index)).collect();
        Self { list, ignored, by_property }
    }

    /// The columns in order.
    pub fn as_slice(&self) -> &[Column] {
        &self.list
    }

    /// The index of the column that `property` fills. `guess` is tried first: members usually come in the
    /// order of the columns, so the index after the last answer is right most of the time.
    pub fn position(&self, property: &str, guess: usize) -> Option<usize> {
        if self.list.get(guess).is_some_and(|column| column.property == property) {
            return Some(guess);
        }
        self.by_property.get(property).copied()
    }

    /// Whether the schema says that `property` has no column on purpose.
    pub fn is_ignored(&self, property: &str) -> bool {
        self.ignored.iter().any(|ignored| ignored == property)
    }
}

struct Reader<'s> {
    root: &'s Value,
    /// The objects whose columns are being read, outermost first: one that comes up again inside itself
    /// becomes a JSON column.
    open: Vec<String>,
    problems: Vec<SchemaProblem>,
}

impl<'s> Reader<'s> {
    fn problem(&mut self, pointer: &str, message: impl Into<String>) {
        self.problems.push(SchemaProblem { pointer: pointer.to_owned(), message: message.into() });
    }

    /// Follows local references (`#/…`) to the schema they name.
    fn resolve(&mut self, schema: &'s Value, pointer: String) -> (&'s Value, String) {
        let mut current = schema;
        let mut place = pointer;
        for _ in 0..MAX_REFERENCES {
            let Some(reference) = current.get("$ref").and_then(Value::as_str) else {
                return (current, place);
            };
            let target =
                reference.strip_prefix('#').and_then(|local| Some((local, self.root.pointer(local)?)));
            if let Some((local, found)) = target {
                local.clone_into(&mut place);
                current = found;
            } else {
                self.problem(&place, format!("`$ref: {reference}` names nothing in this file"));
                return (current, place);
            }
        }
        self.problem(&place, "the references go round in a circle");
        (current, place)
    }

    fn columns(&mut self, schema: &'s Value, pointer: &str, depth: usize) -> Columns {
        self.open.push(pointer.to_owned());
        let required: Vec<&str> = schema
            .get("required")
            .and_then(Value::as_array)
            .map(|names| names.iter().filter_map(Value::as_str).collect())
            .unwrap_or_default();
        let mut columns: Vec<Column> = Vec::new();
        let mut ignored = Vec::new();
        for (property, declared) in schema.get("properties").and_then(Value::as_object).into_iter().flatten()
        {
            let place = format!("{pointer}/properties/{}", escape(property));
            let (resolved, resolved_place) = self.resolve(declared, place.clone());
            // An annotation beside `$ref` wins over one behind it.
            let annotation = declared.get("x-column").or_else(|| resolved.get("x-column"));
            let annotation = self.annotation(annotation, &place);
            if annotation.ignore {
                ignored.push(property.clone());
                continue;
            }
            let mode = if required.contains(&property.as_str()) && !allows_null(resolved) {
                Mode::Required
            } else {
                Mode::Nullable
            };
            let (kind, repeated) = match annotation.kind {
                Some(kind) => (kind, false),
                None => self.kind(resolved, &resolved_place, depth),
            };
            let name = annotation.name.unwrap_or_else(|| property.clone());
            if let Some(other) = columns.iter().find(|other| other.name.eq_ignore_ascii_case(&name)) {
                let message =
                    format!("the column name `{name}` is already taken by the property `{}`", other.property);
                self.problem(&place, message);
            }
            let description = [declared, resolved]
                .iter()
                .find_map(|schema| schema.get("description").and_then(Value::as_str))
                .map(str::to_owned);
            columns.push(Column {
                property: property.clone(),
                name,
                kind,
                mode: if repeated { Mode::Repeated } else { mode },
                description,
            });
        }
        self.open.pop();
        Columns::new(columns, ignored)
    }

    fn kind(&mut self, schema: &'s Value, pointer: &str, depth: usize) -> (Kind, bool) {
        let kind = match only_type(schema) {
            Some("boolean") => Kind::Boolean,
            Some("integer") => Kind::Integer,
            Some("number") => Kind::Float,
            Some("string") => string_kind(schema),
            Some("object")
                if has_properties(schema)
                    && depth + 1 < MAX_NESTING
                    && !self.open.iter().any(|open| open == pointer) =>
            {
                Kind::Record(self.columns(schema, pointer, depth + 1))
            }
            Some("array") => return self.repeated(schema, pointer, depth),
            _ => Kind::Json,
        };
        (kind, false)
    }

    fn repeated(&mut self, schema: &'s Value, pointer: &str, depth: usize) -> (Kind, bool) {
        let Some(items) = schema.get("items").filter(|items| items.is_object()) else {
            return (Kind::Json, false);
        };
        let (items, place) = self.resolve(items, format!("{pointer}/items"));
        if allows_null(items) {
            // Neither BigQuery's REPEATED nor a typed array takes null elements.
            return (Kind::Json, false);
        }
        match self.kind(items, &place, depth) {
            (Kind::Json, _) | (_, true) => (Kind::Json, false),
            (kind, false) => (kind, true),
        }
    }

    fn annotation(&mut self, annotation: Option<&'s Value>, pointer: &str) -> Annotation {
        let mut read = Annotation::default();
        let Some(annotation) = annotation else { return read };
        let place = format!("{pointer}/x-column");
        let Some(members) = annotation.as_object() else {
            self.problem(&place, "`x-column` is an object such as {type: timestamp, unit: ms}");
            return read;
        };
        for name in members.keys() {
            if !["type", "unit", "precision", "scale", "name", "ignore"].contains(&name.as_str()) {
                self.problem(
                    &place,
                    format!("`x-column` does not know `{name}`; it takes type, unit, precision, scale, name, ignore"),
                );
            }
        }
        match members.get("name").map(Value::as_str) {
            None => {}
            Some(Some(name)) if !name.is_empty() => read.name = Some(name.to_owned()),
            Some(_) => self.problem(&place, "`name` is the column's name, a text that is not empty"),
        }
        match members.get("ignore") {
            None => {}
            Some(Value::Bool(ignore)) => read.ignore = *ignore,
            Some(_) => self.problem(&place, "`ignore` is true or false"),
        }
        read.kind = match members.get("type").map(|kind| kind.as_str().unwrap_or_default()) {
            None => None,
            Some("timestamp") => {
                let unit = match members.get("unit").and_then(Value::as_str) {
                    Some("s") => Some(TimeUnit::Seconds),
                    Some("ms") => Some(TimeUnit::Milliseconds),
                    Some("us") => Some(TimeUnit::Microseconds),
                    Some("ns") => Some(TimeUnit::Nanoseconds),
                    _ => None,
                };
                if unit.is_none() {
                    self.problem(&place, "a timestamp from a number needs `unit`: s, ms, us or ns");
                }
                unit.map(|unit| Kind::Timestamp(TimestampSource::Epoch(unit)))
            }
            Some("numeric") => {
                let digits =
                    |name| members.get(name).and_then(Value::as_u64).and_then(|n| u32::try_from(n).ok());
                match (digits("precision"), digits("scale")) {
                    (Some(precision), Some(scale))
                        if (1..=76).contains(&precision) && scale <= precision.min(38) =>
                    {
                        Some(Kind::Numeric { precision, scale })
                    }
                    _ => {
                        self.problem(
                            &place,
                            "a numeric needs `precision` (1 to 76) and `scale` (0 to 38, at most the precision)",
                        );
                        None
                    }
                }
            }
            Some("json") => Some(Kind::Json),
            Some(other) => {
                self.problem(&place, format!("`type: {other}` is none of timestamp, numeric, json"));
                None
            }
        };
        read
    }
}

#[derive(Default)]
struct Annotation {
    kind: Option<Kind>,
    name: Option<String>,
    ignore: bool,
}

/// The one type beside `null` that a schema allows.
fn only_type(schema: &Value) -> Option<&str> {
    match schema.get("type") {
        Some(Value::String(name)) => Some(name),
        Some(Value::Array(names)) => {
            let mut others = names.iter().filter_map(Value::as_str).filter(|name| *name != "null");
            let first = others.next()?;
            others.next().is_none().then_some(first)
        }
        _ => match schema.get("enum").or_else(|| schema.get("const")) {
            Some(Value::Array(values)) if !values.is_empty() && values.iter().all(Value::is_string) => {
                Some("string")
            }
            Some(Value::String(_)) => Some("string"),
            _ => None,
        },
    }
}

fn allows_null(schema: &Value) -> bool {
    match schema.get("type") {
        Some(Value::String(name)) => name == "null",
        Some(Value::Array(names)) => names.iter().any(|name| name == "null"),
        // Without a type anything may stand there, unless the values are listed.
        _ => match (schema.get("enum"), schema.get("const")) {
            (Some(Value::Array(values)), _) => values.iter().any(Value::is_null),
            (_, Some(value)) => value.is_null(),
            _ => true,
        },
    }
}

fn has_properties(schema: &Value) -> bool {
    schema.get("properties").and_then(Value::as_object).is_some_and(|properties| !properties.is_empty())
}

fn string_kind(schema: &Value) -> Kind {
    if schema.get("contentEncoding").and_then(Value::as_str) == Some("base64") {
        return Kind::Bytes;
    }
    match schema.get("format").and_then(Value::as_str) {
        Some("date-time") => Kind::Timestamp(TimestampSource::Rfc3339),
        Some("date") => Kind::Date,
        Some("time") => Kind::Time,
        Some("uuid") => Kind::Uuid,
        _ => Kind::String,
    }
}

fn escape(property: &str) -> String {
    property.replace('~', "~0").replace('/', "~1")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::{Map, json};

    fn columns(schema: &Value) -> Vec<(String, Kind, Mode)> {
        let table = TableSchema::from_json_schema(schema, UnknownFields::DeadLetter).unwrap();
        table.columns.as_slice().iter().map(|c| (c.name.clone(), c.kind.clone(), c.mode)).collect()
    }

    #[test]
    fn standard_keywords_and_annotations_become_columns() {
        let schema = json!({
            "type": "object",
            "required": ["id", "amount", "maybe", "tags"],
            "$defs": { "money": { "type": "integer", "x-column": { "type": "numeric", "precision": 18, "scale": 2 } } },
            "properties": {
                "id": { "type": "string", "format": "uuid" },
                "amount": { "$ref": "#/$defs/money" },
                "maybe": { "type": ["integer", "null"] },
                "at": { "type": "integer", "x-column": { "type": "timestamp", "unit": "ms", "name": "inserted_at" } },
                "day": { "type": "string", "format": "date" },
                "tags": { "type": "array", "items": { "type": "string" } },
                "grid": { "type": "array", "items": { "type": "array", "items": { "type": "number" } } },
                "who": { "type": "object", "required": ["name"], "properties": { "name": { "enum": ["a", "b"] } } },
                "free": { "type": "object" },
                "internal": { "x-column": { "ignore": true } }
            }
        });
        assert_eq!(
            columns(&schema),
            [
                ("id".to_owned(), Kind::Uuid, Mode::Required),
                ("amount".to_owned(), Kind::Numeric { precision: 18, scale: 2 }, Mode::Required),
                ("maybe".to_owned(), Kind::Integer, Mode::Nullable),
                (
                    "inserted_at".to_owned(),
                    Kind::Timestamp(TimestampSource::Epoch(TimeUnit::Milliseconds)),
                    Mode::Nullable
                ),
                ("day".to_owned(), Kind::Date, Mode::Nullable),
                ("tags".to_owned(), Kind::String, Mode::Repeated),
                ("grid".to_owned(), Kind::Json, Mode::Nullable),
                (
                    "who".to_owned(),
                    Kind::Record(Columns::new(
                        vec![Column {
                            property: "name".to_owned(),
                            name: "name".to_owned(),
                            kind: Kind::String,
                            mode: Mode::Required,
                            description: None
                        }],
                        vec![]
                    )),
                    Mode::Nullable
                ),
                ("free".to_owned(), Kind::Json, Mode::Nullable),
            ]
        );
    }

    #[test]
    fn all_mistakes_of_a_schema_are_named_at_once() {
        let schema = json!({ "properties": {
            "a": { "$ref": "#/nowhere" },
            "b": { "type": "integer", "x-column": { "type": "timestamp" } },
            "c": { "type": "integer", "x-column": { "type": "numeric", "precision": 99, "scale": 2 } },
            "D": { "type": "integer" },
            "d": { "type": "integer" },
            "e": { "$ref": "#/properties/e" },
            "f": { "x-column": { "colour": "red" } },
        }});
        let problems = TableSchema::from_json_schema(&schema, UnknownFields::DeadLetter).unwrap_err();
        let places: Vec<&str> = problems.iter().map(|problem| problem.pointer.as_str()).collect();
        assert_eq!(
            places,
            [
                "/properties/a",
                "/properties/b/x-column",
                "/properties/c/x-column",
                "/properties/d",
                "/properties/e",
                "/properties/f/x-column"
            ]
        );
        assert!(TableSchema::from_json_schema(&json!({ "type": "integer" }), UnknownFields::Ignore).is_err());
    }

    #[test]
    fn a_schema_that_contains_itself_ends_as_json() {
        let tree = json!({ "type": "object", "properties": {
            "left": { "$ref": "#" }, "middle": { "$ref": "#" }, "right": { "$ref": "#" },
            "leaf": { "type": "object", "properties": { "back": { "$ref": "#" } } }
        } });
        let columns = columns(&tree);
        assert!(columns[..3].iter().all(|(_, kind, _)| *kind == Kind::Json));
        let Kind::Record(leaf) = &columns[3].1 else { panic!("a record, not {:?}", columns[3]) };
        assert_eq!(leaf.as_slice()[0].kind, Kind::Json);
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let word = prop::sample::select(vec![
            "type",
            "properties",
            "items",
            "$ref",
            "x-column",
            "object",
            "array",
            "string",
            "#",
            "#/properties/type",
            "unit",
            "required",
            "enum",
            "name",
        ]);
        let leaf = prop_oneof![
            word.clone().prop_map(Value::from),
            any::<bool>().prop_map(Value::from),
            Just(Value::Null)
        ];
        leaf.prop_recursive(5, 40, 6, move |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::vec((word.clone(), inner), 0..5).prop_map(|members| members
                    .into_iter()
                    .map(|(k, v)| (k.to_owned(), v))
                    .collect::<Map<_, _>>()
                    .into()),
            ]
        })
    }

    proptest! {
        #[test]
        fn no_schema_makes_the_reader_panic(schema in any_json()) {
            let _ = TableSchema::from_json_schema(&schema, UnknownFields::DeadLetter);
        }
    }
}
