//! How the members of a JSON object become the columns of a row, whatever the row is written as.

use txconnect_connector_api::document::Object;
use txconnect_connector_api::schema::UnknownFields;
use txconnect_connector_api::{
    BadRecord, Column, Columns, Document, Kind, Mode, Record, TimeUnit, TimestampSource, Value,
};

use crate::config::FinerTimes;

/// How the members of an object become the fields of a record. `K` is what a written field begins with.
pub(crate) struct RecordPlan<K> {
    columns: Columns,
    fields: Vec<FieldPlan<K>>,
    required: usize,
}

/// How one column is filled.
pub(crate) struct FieldPlan<K> {
    /// What the written field begins with.
    pub(crate) key: K,
    pub(crate) mode: Mode,
    pub(crate) value: ValuePlan<K>,
}

/// How a value of the record becomes one of the column.
pub(crate) enum ValuePlan<K> {
    Boolean,
    Integer,
    Float,
    Numeric { whole: u32, scale: u32 },
    Text,
    Bytes,
    Date,
    Time,
    Rfc3339,
    Epoch(TimeUnit),
    Json,
    Record(RecordPlan<K>),
}

/// What the writing of values needs beside the plan.
pub(crate) struct Settings {
    pub(crate) finer_times: FinerTimes,
    pub(crate) unknown_fields: UnknownFields,
    /// Fields left out so far.
    pub(crate) ignored_fields: u64,
    /// Text on its way into other text.
    pub(crate) scratch: Vec<u8>,
}

impl Settings {
    pub(crate) fn new(finer_times: FinerTimes, unknown_fields: UnknownFields) -> Self {
        Self { finer_times, unknown_fields, ignored_fields: 0, scratch: Vec::new() }
    }
}

impl<K> RecordPlan<K> {
    /// A plan for the columns; `key` gives what the field of a column begins with, from its index in its record.
    pub(crate) fn new(columns: &Columns, key: fn(usize, &Column) -> K) -> Self {
        let fields: Vec<FieldPlan<K>> = columns
            .as_slice()
            .iter()
            .enumerate()
            .map(|(index, column)| FieldPlan {
                key: key(index, column),
                mode: column.mode,
                value: ValuePlan::new(&column.kind, key),
            })
            .collect();
        let required = fields.iter().filter(|field| field.mode == Mode::Required).count();
        Self { columns: columns.clone(), fields, required }
    }

    /// The columns in order.
    pub(crate) fn fields(&self) -> &[FieldPlan<K>] {
        &self.fields
    }

    /// The property that fills the column `index`.
    pub(crate) fn property(&self, index: usize) -> &str {
        &self.columns.as_slice()[index].property
    }

    /// Records without a value for the column `index` are bad from now on.
    pub(crate) fn require(&mut self, index: usize) {
        if let Some(field) = self.fields.get_mut(index).filter(|field| field.mode == Mode::Nullable) {
            field.mode = Mode::Required;
            self.required += 1;
        }
    }

    /// Gives `write` every field of `object` that has a value, with the index of its column and in the order of the
    /// object.
    pub(crate) fn each(
        &self,
        object: Object<'_>,
        settings: &mut Settings,
        mut write: impl FnMut(usize, &FieldPlan<K>, &Document<'_>, &mut Settings) -> Result<(), BadRecord>,
    ) -> Result<(), BadRecord> {
        let mut guess = 0;
        let mut required_found = 0;
        for member in object.members() {
            let Some(index) = self.columns.position(member.name, guess) else {
                self.without_column(member.name, settings)?;
                continue;
            };
            guess = index + 1;
            let field = &self.fields[index];
            if member.value == Document::Null {
                if field.mode == Mode::Required {
                    let message = "the column is required and the value is null";
                    return Err(BadRecord::new("encode.required", pointer_part(member.name), message));
                }
                continue;
            }
            required_found += usize::from(field.mode == Mode::Required);
            write(index, field, &member.value, settings)
                .map_err(|bad| below(&pointer_part(member.name), bad))?;
        }
        if required_found < self.required {
            return Err(self.missing(object));
        }
        Ok(())
    }

    #[cold]
    fn without_column(&self, name: &str, settings: &mut Settings) -> Result<(), BadRecord> {
        if self.columns.is_ignored(name) {
            return Ok(());
        }
        match settings.unknown_fields {
            UnknownFields::Ignore => {
                settings.ignored_fields += 1;
                Ok(())
            }
            UnknownFields::DeadLetter => {
                Err(BadRecord::new("encode.unknown_field", pointer_part(name), "no column takes this field"))
            }
        }
    }

    #[cold]
    fn missing(&self, object: Object<'_>) -> BadRecord {
        let missing =
            self.columns.as_slice().iter().zip(&self.fields).find(|(column, field)| {
                field.mode == Mode::Required && object.get(&column.property).is_none()
            });
        let path = missing.map(|(column, _)| pointer_part(&column.property)).unwrap_or_default();
        BadRecord::new("encode.required", path, "the column is required and the field is missing")
    }
}

impl<K> ValuePlan<K> {
    fn new(kind: &Kind, key: fn(usize, &Column) -> K) -> Self {
        match kind {
            Kind::Boolean => Self::Boolean,
            Kind::Integer => Self::Integer,
            Kind::Float => Self::Float,
            Kind::Numeric { precision, scale } => {
                Self::Numeric { whole: precision.saturating_sub(*scale), scale: *scale }
            }
            Kind::String | Kind::Uuid => Self::Text,
            Kind::Bytes => Self::Bytes,
            Kind::Date => Self::Date,
            Kind::Time => Self::Time,
            Kind::Timestamp(TimestampSource::Rfc3339) => Self::Rfc3339,
            Kind::Timestamp(TimestampSource::Epoch(unit)) => Self::Epoch(*unit),
            Kind::Json => Self::Json,
            Kind::Record(columns) => Self::Record(RecordPlan::new(columns, key)),
        }
    }

    /// Why a value is of no type that the column takes.
    #[cold]
    pub(crate) fn wrong_type(&self, document: &Document<'_>) -> BadRecord {
        wrong_type(
            match self {
                Self::Boolean => "a boolean",
                Self::Integer => "an integer",
                Self::Float | Self::Epoch(_) => "a number",
                Self::Numeric { .. } => "a number or a decimal in a string",
                Self::Text => "a string",
                Self::Bytes => "base64 in a string",
                Self::Date => "a date in a string",
                Self::Time => "a time of day in a string",
                Self::Rfc3339 => "an RFC 3339 time in a string",
                Self::Json => "any value",
                Self::Record(_) => "an object",
            },
            document,
        )
    }
}

/// The object that a row is made from; `None` for a tombstone.
pub(crate) fn object_of<'a>(record: &Record<'a>) -> Result<Option<Object<'a>>, BadRecord> {
    match record.value {
        Value::Json { document: Document::Object(object), .. } => Ok(Some(*object)),
        Value::Json { document, .. } => {
            let message = format!("a row is made from an object, the record is {}", document.type_name());
            Err(BadRecord::new("encode.type", "", message))
        }
        Value::Tombstone => Ok(None),
        Value::Text(_) | Value::Bytes(_) => Err(BadRecord::new(
            "encode.not_json",
            "",
            "BigQuery rows are made from JSON objects: set `decode: json`",
        )),
    }
}

/// The elements of a value for a column that holds many.
pub(crate) fn elements<'a>(document: &Document<'a>) -> Result<&'a [Document<'a>], BadRecord> {
    match document {
        Document::Array(elements) => Ok(elements),
        other => Err(wrong_type("an array", other)),
    }
}

/// Puts the place of an element in front of what is wrong with it.
pub(crate) fn in_element(index: usize, bad: BadRecord) -> BadRecord {
    below(&format!("/{index}"), bad)
}

/// `name` as part of a JSON pointer.
pub(crate) fn pointer_part(name: &str) -> String {
    format!("/{}", name.replace('~', "~0").replace('/', "~1"))
}

/// Puts the place of a value in front of what is wrong inside it.
pub(crate) fn below(parent: &str, mut bad: BadRecord) -> BadRecord {
    bad.path.insert_str(0, parent);
    bad
}

/// A row that is larger than one request may be.
#[cold]
pub(crate) fn too_large(length: usize, limit: usize) -> BadRecord {
    let message = format!("the row has {length} bytes, BigQuery takes {limit} in one request");
    BadRecord::new("encode.too_large", "", message)
}

fn wrong_type(wanted: &str, document: &Document<'_>) -> BadRecord {
    let message = format!("the column takes {wanted}, the record has {}", document.type_name());
    BadRecord::new("encode.type", "", message)
}
