//! Record → tuple of PostgreSQL's binary COPY format, as [`crate::row`] describes it.

use txconnect_connector_api::schema::UnknownFields;
use txconnect_connector_api::{
    BadRecord, Columns, Document, Encoded, Encoder, Member, Object, Record, TableSchema, Value,
};

use crate::config::{KeyDecode, PostgresConfig};
use crate::coordinates::Coordinate;
use crate::fit::Misfit;
use crate::key::{KeyValue, RecordKey};
use crate::plan::{FilledBy, PlannedColumn, TablePlan};
use crate::row::Operation;
use crate::values::{ValuePlan, pointer_part, too_large};

/// The largest row that is sent. PostgreSQL takes messages of 1 GiB, and 256 MiB of text in jsonb.
pub const MAX_ROW_BYTES: usize = 256 << 20;

/// The length that stands for NULL.
const NULL: [u8; 4] = (-1_i32).to_be_bytes();

/// A member that comes after the next column is looked for so far before the columns are searched by name.
const NEAR: usize = 4;

/// Writes the records of one topic as tuples.
pub struct RowEncoder {
    columns: Columns,
    fields: Vec<FieldPlan>,
    /// What follows the fields of the record.
    coordinates: Vec<Coordinate>,
    /// Which of `coordinates` a deletion has; it has NULL in the others.
    age_of_deletes: Option<usize>,
    /// The operation, where rows have a key, and the count of fields.
    head: Vec<u8>,
    unknown_fields: UnknownFields,
    ignored_fields: u64,
    deletes: Option<KeyDecode>,
    /// By column the member that fills it, counted from 1; 0 for none.
    members: Vec<usize>,
}

/// How one column is filled.
struct FieldPlan {
    property: Box<str>,
    value: ValuePlan,
    nullable: bool,
    key: bool,
}

impl RowEncoder {
    /// An encoder for records with the columns of `schema`, which become rows of `plan`: one that was made from this
    /// schema, or was fitted to a table after that.
    ///
    /// # Errors
    /// Columns whose values do not reach the plan's, which [`crate::fit::fit`] finds before.
    pub fn new(config: &PostgresConfig, schema: &TableSchema, plan: &TablePlan) -> Result<Self, Vec<Misfit>> {
        let columns = schema.columns.as_slice();
        let mut misfits = Vec::new();
        let mut fields = Vec::with_capacity(columns.len());
        let of_record = columns.len().min(plan.columns.len());
        let (of_record, of_kafka) = plan.columns.split_at(of_record);
        let belongs = |column: &PlannedColumn| column.filled_by == FilledBy::Property;
        if of_record.len() != columns.len() || !of_record.iter().all(belongs) || of_kafka.iter().any(belongs)
        {
            misfits.push(misfit(format!("{} was planned for another schema", plan.table)));
        }
        let keyed = plan.mode.is_keyed();
        for (index, (column, planned)) in columns.iter().zip(of_record).enumerate() {
            let key = plan.mode.key().contains(&index);
            match ValuePlan::new(column, planned, key) {
                Some(value) => fields.push(FieldPlan {
                    property: column.property.as_str().into(),
                    value,
                    nullable: planned.nullable,
                    key,
                }),
                None => misfits.push(misfit(format!(
                    "the column `{}` is {}, which does not take the values of the schema",
                    planned.name, planned.column_type
                ))),
            }
        }
        let mut coordinates = Vec::with_capacity(of_kafka.len());
        for planned in of_kafka.iter().filter(|column| !belongs(column)) {
            match Coordinate::new(planned) {
                Some(coordinate) => coordinates.push(coordinate),
                None => misfits.push(misfit(format!(
                    "the column `{}` is {}, which does not take what Kafka knows",
                    planned.name, planned.column_type
                ))),
            }
        }
        if !misfits.is_empty() {
            return Err(misfits);
        }
        let mut head = Vec::with_capacity(3);
        if keyed {
            head.push(Operation::Put.byte());
        }
        // A table has at most 1600 columns, as the plan has checked.
        let count = fields.len() + coordinates.len();
        head.extend_from_slice(&u16::try_from(count).unwrap_or(u16::MAX).to_be_bytes());
        Ok(Self {
            columns: schema.columns.clone(),
            members: vec![0; fields.len()],
            age_of_deletes: plan.age_of_deletes().and_then(|index| index.checked_sub(fields.len())),
            fields,
            coordinates,
            head,
            unknown_fields: schema.unknown_fields,
            ignored_fields: 0,
            deletes: config.delete_on_tombstone.then(|| config.key_decode.unwrap_or_default()),
        })
    }

    /// Writes the members as they come. Those that come in the order of the columns, which is usual, are looked at once.
    fn put(&mut self, object: Object<'_>, out: &mut Vec<u8>) -> Result<(), BadRecord> {
        let (start, ignored_before) = (out.len(), self.ignored_fields);
        out.extend_from_slice(&self.head);
        let members = object.members();
        let mut next = 0;
        for member in members {
            let Some(index) = self.position(member.name, next) else {
                self.without_column(member)?;
                continue;
            };
            if index != next {
                let passed = self.fields.get(next..index);
                if !passed.is_some_and(|passed| passed.iter().all(|field| field.nullable)) {
                    out.truncate(start);
                    self.ignored_fields = ignored_before;
                    return self.put_in_another_order(members, out);
                }
                out.extend(std::iter::repeat_n(NULL, index - next).flatten());
            }
            self.fields[index].write(&member.value, out)?;
            next = index + 1;
        }
        for field in &self.fields[next..] {
            field.write_missing(out)?;
        }
        Ok(())
    }

    #[cold]
    fn put_in_another_order(&mut self, members: &[Member<'_>], out: &mut Vec<u8>) -> Result<(), BadRecord> {
        out.extend_from_slice(&self.head);
        self.members.fill(0);
        let mut next = 0;
        for (number, member) in members.iter().enumerate() {
            match self.position(member.name, next) {
                Some(index) => {
                    self.members[index] = number + 1;
                    next = index + 1;
                }
                None => self.without_column(member)?,
            }
        }
        for (field, number) in self.fields.iter().zip(&self.members) {
            match number.checked_sub(1).and_then(|number| members.get(number)) {
                Some(member) => field.write(&member.value, out)?,
                None => field.write_missing(out)?,
            }
        }
        Ok(())
    }

    /// The column that `property` fills; `next` is the likeliest, and those after it are likelier than others.
    #[inline]
    fn position(&self, property: &str, next: usize) -> Option<usize> {
        let near = self.fields.iter().enumerate().skip(next).take(NEAR);
        for (index, field) in near {
            if *field.property == *property {
                return Some(index);
            }
        }
        self.columns.position(property, next)
    }

    #[cold]
    fn without_column(&mut self, member: &Member<'_>) -> Result<(), BadRecord> {
        if self.columns.is_ignored(member.name) {
            return Ok(());
        }
        match self.unknown_fields {
            UnknownFields::Ignore => {
                self.ignored_fields += 1;
                Ok(())
            }
            UnknownFields::DeadLetter => Err(BadRecord::new(
                "encode.unknown_field",
                pointer_part(member.name),
                "no column takes this field",
            )),
        }
    }

    /// Writes the deletion of the row that the record's key names.
    fn delete(&self, record: &Record<'_>, decode: KeyDecode, out: &mut Vec<u8>) -> Result<(), BadRecord> {
        let key = RecordKey::read(record.key, decode)?;
        let only = self.fields.iter().filter(|field| field.key).count() == 1;
        out.push(Operation::Delete.byte());
        out.extend_from_slice(&self.head[1..]);
        for field in &self.fields {
            if !field.key {
                out.extend_from_slice(&NULL);
                continue;
            }
            key.with_field(&field.property, only, |value| {
                let document = match value {
                    KeyValue::Text(text) => field.value.document_of_text(text),
                    KeyValue::Json(document) => document,
                };
                field.value.write(&document, out).map_err(|misfit| {
                    let bad = field.value.explain(misfit, &document);
                    let message = format!("the record's key does not give the column: {}", bad.message);
                    BadRecord::new("encode.key", "", message)
                })
            })?;
        }
        for (index, coordinate) in self.coordinates.iter().enumerate() {
            if self.age_of_deletes == Some(index) {
                coordinate.write_age(record, out)?;
            } else {
                out.extend_from_slice(&NULL);
            }
        }
        Ok(())
    }
}

impl FieldPlan {
    #[inline]
    fn write(&self, document: &Document<'_>, out: &mut Vec<u8>) -> Result<(), BadRecord> {
        if matches!(document, Document::Null) {
            return self.write_null(out, "the column takes no NULL and the value is null");
        }
        match self.value.write(document, out) {
            Ok(()) => Ok(()),
            Err(misfit) => {
                let mut bad = self.value.explain(misfit, document);
                bad.path.insert_str(0, &pointer_part(&self.property));
                Err(bad)
            }
        }
    }

    fn write_missing(&self, out: &mut Vec<u8>) -> Result<(), BadRecord> {
        self.write_null(out, "the column takes no NULL and the field is missing")
    }

    fn write_null(&self, out: &mut Vec<u8>, why_not: &'static str) -> Result<(), BadRecord> {
        if !self.nullable {
            return Err(BadRecord::new("encode.required", pointer_part(&self.property), why_not));
        }
        out.extend_from_slice(&NULL);
        Ok(())
    }
}

fn misfit(message: String) -> Misfit {
    Misfit { message, way_out: "start the pipeline again, so that it looks at the table anew".to_owned() }
}

impl Encoder for RowEncoder {
    fn encode(&mut self, record: &Record<'_>, out: &mut Vec<u8>) -> Result<Encoded, BadRecord> {
        let start = out.len();
        match record.value {
            Value::Json { document: Document::Object(object), .. } => {
                self.put(*object, out)?;
                for coordinate in &self.coordinates {
                    coordinate.write(record, out)?;
                }
            }
            Value::Json { document, .. } => {
                let message = format!("a row is made from an object, the record is {}", document.type_name());
                return Err(BadRecord::new("encode.type", "", message));
            }
            Value::Tombstone => match self.deletes {
                Some(decode) => self.delete(record, decode, out)?,
                None => return Ok(Encoded::Filtered),
            },
            Value::Text(_) | Value::Bytes(_) => {
                return Err(BadRecord::new(
                    "encode.not_json",
                    "",
                    "PostgreSQL rows are made from JSON objects: set `decode: json`",
                ));
            }
        }
        if out.len() - start > MAX_ROW_BYTES {
            return Err(too_large());
        }
        Ok(Encoded::Row)
    }

    fn ignored_fields(&self) -> u64 {
        self.ignored_fields
    }
}

#[cfg(test)]
#[path = "encode_tests.rs"]
mod tests;
