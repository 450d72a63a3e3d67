//! A writer's schema: a message descriptor held against the columns of a table.
//!
//! Which protobuf type goes into which column is from BigQuery's page "Supported protocol buffer and Arrow data types".
//! Not known here: enums, the wrapper and timestamp messages of `google.protobuf`, decimals in bytes, column names given
//! by an option of the field.

use std::collections::HashSet;

use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{DescriptorProto, FieldDescriptorProto};

use super::super::{Column, Kind, Mode};

/// The deepest nesting of messages, as of records.
const DEEPEST: usize = 15;
/// The pseudo-column that says what becomes of the row with the same key.
const CHANGE_TYPE: &str = "_CHANGE_TYPE";
/// The pseudo-column that says which change is the newer one.
const CHANGE_SEQUENCE: &str = "_CHANGE_SEQUENCE_NUMBER";

/// Why a descriptor does not fit a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum SchemaProblem {
    /// It has fields that the table has no columns for.
    ExtraFields(Vec<String>),
    /// Anything else, as a sentence.
    Unfit(String),
}

/// A descriptor that fits a table.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct WriterSchema {
    pub(super) root: Message,
    /// Whether rows carry `_CHANGE_TYPE`.
    changes: bool,
}

/// A message of the descriptor: its fields in the order of their numbers.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Message {
    pub(super) fields: Vec<Field>,
}

/// A field and where its value goes.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Field {
    pub(super) number: u32,
    pub(super) target: Target,
    pub(super) wire: Wire,
    pub(super) repeated: bool,
    /// Whether proto2 says that every message has it.
    pub(super) required: bool,
}

/// Where a field's value goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Target {
    /// The column at this place.
    Column(usize),
    ChangeType,
    ChangeSequence,
}

/// A field's protobuf type.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Wire {
    Double,
    Float,
    /// `int32` and `int64`.
    Signed,
    /// `uint32` and `uint64`.
    Unsigned,
    /// `sint32` and `sint64`.
    ZigZag,
    Fixed32,
    Fixed64,
    SignedFixed32,
    SignedFixed64,
    Bool,
    String,
    Bytes,
    Message(Message),
}

impl Message {
    /// The field with a number, by its place.
    pub(super) fn position(&self, number: u32) -> Option<usize> {
        self.fields.binary_search_by_key(&number, |field| field.number).ok()
    }
}

impl WriterSchema {
    /// Holds a descriptor against columns. `keyed`: the table has a primary key and the rows go to its default stream, so
    /// that the pseudo-columns of change data capture are known.
    pub(crate) fn new(
        descriptor: &DescriptorProto,
        columns: &[Column],
        keyed: bool,
    ) -> Result<WriterSchema, SchemaProblem> {
        let mut reader =
            Reader { root: descriptor, keyed, extra: Vec::new(), missing: Vec::new(), changes: false };
        let root = reader.message(&[descriptor], columns, "")?;
        if !reader.extra.is_empty() {
            return Err(SchemaProblem::ExtraFields(reader.extra));
        }
        match reader.missing.first() {
            // A row that deletes has no need of them, so that rows with changes are checked one by one.
            Some(missing) if !reader.changes => {
                unfit(format!("The required field {missing} is missing in the proto message."))
            }
            _ => Ok(WriterSchema { root, changes: reader.changes }),
        }
    }

    /// Whether rows say by `_CHANGE_TYPE` what they do.
    pub(crate) fn has_changes(&self) -> bool {
        self.changes
    }
}

struct Reader<'d> {
    root: &'d DescriptorProto,
    keyed: bool,
    extra: Vec<String>,
    missing: Vec<String>,
    changes: bool,
}

fn unfit<T>(sentence: String) -> Result<T, SchemaProblem> {
    Err(SchemaProblem::Unfit(sentence))
}

impl<'d> Reader<'d> {
    /// Reads the innermost message of `scopes`, which are the messages around it from the outside in.
    fn message(
        &mut self,
        scopes: &[&'d DescriptorProto],
        columns: &[Column],
        prefix: &str,
    ) -> Result<Message, SchemaProblem> {
        let Some(descriptor) = scopes.last().filter(|_| scopes.len() <= DEEPEST) else {
            return unfit(format!("The proto schema nests more than {DEEPEST} messages."));
        };
        let mut fields = Vec::with_capacity(descriptor.field.len());
        let mut taken = HashSet::new();
        for field in &descriptor.field {
            let name = field.name();
            let path = format!("{prefix}{name}");
            let Some(target) = self.target(name, columns, prefix.is_empty()) else {
                self.extra.push(path);
                continue;
            };
            if let Target::Column(column) = target
                && !taken.insert(column)
            {
                return unfit(format!("The proto schema names the column {path} twice."));
            }
            fields.push(self.field(field, target, columns, scopes, &path)?);
        }
        for (index, column) in columns.iter().enumerate() {
            if column.mode == Mode::Required && !taken.contains(&index) {
                self.missing.push(format!("{prefix}{}", column.name));
            }
        }
        fields.sort_by_key(|field| field.number);
        if fields.windows(2).any(|pair| pair[0].number == pair[1].number) {
            return unfit(format!("The proto schema uses a field number twice in {}.", descriptor.name()));
        }
        Ok(Message { fields })
    }

    fn target(&mut self, name: &str, columns: &[Column], top_level: bool) -> Option<Target> {
        if let Some(column) = columns.iter().position(|column| column.is_named(name)) {
            return Some(Target::Column(column));
        }
        if !self.keyed || !top_level {
            return None;
        }
        if name.eq_ignore_ascii_case(CHANGE_TYPE) {
            self.changes = true;
            return Some(Target::ChangeType);
        }
        name.eq_ignore_ascii_case(CHANGE_SEQUENCE).then_some(Target::ChangeSequence)
    }

    fn field(
        &mut self,
        field: &'d FieldDescriptorProto,
        target: Target,
        columns: &[Column],
        scopes: &[&'d DescriptorProto],
        path: &str,
    ) -> Result<Field, SchemaProblem> {
        let number = u32::try_from(field.number()).ok().filter(|number| *number > 0);
        let Some(number) = number else {
            return unfit(format!("The proto field {path} has no valid field number."));
        };
        let repeated = field.label() == Label::Repeated;
        let column = match target {
            Target::Column(index) => columns.get(index),
            Target::ChangeType | Target::ChangeSequence => None,
        };
        let expects_list = column.is_some_and(|column| column.mode == Mode::Repeated);
        if repeated != expects_list {
            return unfit(format!(
                "The proto field {path} is {}repeated and the BigQuery field is {}.",
                if repeated { "" } else { "not " },
                column.map_or("NULLABLE".to_owned(), |column| column.mode.to_string()),
            ));
        }
        let mismatch = || {
            let type_name = column.map_or("STRING", |column| column.kind.name());
            SchemaProblem::Unfit(format!(
                "Proto field mismatched with BigQuery field at {path}: the proto field type is {}, the BigQuery field \
                 type is {type_name}.",
                field.r#type().as_str_name()
            ))
        };
        let wire = match (column.map(|column| &column.kind), field.r#type()) {
            (Some(Kind::Record(nested)), Type::Message) => {
                let scopes = self.nested(field.type_name(), scopes).ok_or_else(|| {
                    SchemaProblem::Unfit(format!(
                        "The proto schema is not self-contained: the type of {path} is not nested in it."
                    ))
                })?;
                Wire::Message(self.message(&scopes, nested, &format!("{path}."))?)
            }
            (kind, proto) => {
                let wire = scalar(proto).ok_or_else(mismatch)?;
                if !kind.map_or(wire == Wire::String, |kind| takes(kind, proto)) {
                    return Err(mismatch());
                }
                wire
            }
        };
        Ok(Field { number, target, wire, repeated, required: field.label() == Label::Required })
    }

    /// The scopes of the message that a type name means: a full name that starts with a dot, or one to be looked for from
    /// the inside out.
    fn nested(&self, type_name: &str, scopes: &[&'d DescriptorProto]) -> Option<Vec<&'d DescriptorProto>> {
        let absolute = type_name.starts_with('.');
        let parts: Vec<&str> = type_name.split('.').filter(|part| !part.is_empty()).collect();
        if !absolute {
            for depth in (1..=scopes.len()).rev() {
                if let Some(found) = descend(&scopes[..depth], &parts) {
                    return Some(found);
                }
            }
        }
        // A full name may begin with the package that the message had where it was generated.
        let after_root = parts.iter().position(|part| *part == self.root.name()).map_or(0, |at| at + 1);
        descend(&[self.root], &parts[after_root..])
            .or_else(|| parts.last().and_then(|last| descend(&[self.root], &[last])))
    }
}

fn descend<'d>(scopes: &[&'d DescriptorProto], parts: &[&str]) -> Option<Vec<&'d DescriptorProto>> {
    let mut found = scopes.to_vec();
    for part in parts {
        let inner = found.last()?.nested_type.iter().find(|nested| nested.name() == *part)?;
        found.push(inner);
    }
    (!parts.is_empty()).then_some(found)
}

fn scalar(proto: Type) -> Option<Wire> {
    Some(match proto {
        Type::Double => Wire::Double,
        Type::Float => Wire::Float,
        Type::Int64 | Type::Int32 => Wire::Signed,
        Type::Uint64 | Type::Uint32 => Wire::Unsigned,
        Type::Sint64 | Type::Sint32 => Wire::ZigZag,
        Type::Fixed64 => Wire::Fixed64,
        Type::Fixed32 => Wire::Fixed32,
        Type::Sfixed64 => Wire::SignedFixed64,
        Type::Sfixed32 => Wire::SignedFixed32,
        Type::Bool => Wire::Bool,
        Type::String => Wire::String,
        Type::Bytes => Wire::Bytes,
        Type::Enum | Type::Group | Type::Message => return None,
    })
}

/// Whether a column takes a protobuf type. The fixed and zigzag integers count as the plain ones of their size.
fn takes(kind: &Kind, proto: Type) -> bool {
    let signed = matches!(
        proto,
        Type::Int64 | Type::Int32 | Type::Sint64 | Type::Sint32 | Type::Sfixed64 | Type::Sfixed32
    );
    let small_unsigned = matches!(proto, Type::Uint32 | Type::Fixed32);
    let unsigned = small_unsigned || matches!(proto, Type::Uint64 | Type::Fixed64);
    let float = matches!(proto, Type::Double | Type::Float);
    match kind {
        Kind::Boolean => proto == Type::Bool || signed || unsigned,
        Kind::Integer | Kind::Timestamp => signed || small_unsigned,
        Kind::Float => float,
        Kind::Numeric(_) | Kind::BigNumeric(_) => proto == Type::String || float || signed || unsigned,
        Kind::String(_) | Kind::Json => proto == Type::String,
        Kind::Bytes(_) => matches!(proto, Type::Bytes | Type::String),
        Kind::Date => proto == Type::String || signed,
        Kind::Time | Kind::DateTime => {
            matches!(proto, Type::String | Type::Int64 | Type::Sint64 | Type::Sfixed64)
        }
        Kind::Record(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::column::parse_fields;
    use super::*;
    use serde_json::{Value as Json, json};

    fn field(name: &str, number: i32, proto: Type, label: Label) -> FieldDescriptorProto {
        FieldDescriptorProto {
            name: Some(name.to_owned()),
            number: Some(number),
            r#type: Some(proto.into()),
            label: Some(label.into()),
            ..FieldDescriptorProto::default()
        }
    }

    fn optional(name: &str, number: i32, proto: Type) -> FieldDescriptorProto {
        field(name, number, proto, Label::Optional)
    }

    fn message(name: &str, fields: Vec<FieldDescriptorProto>) -> DescriptorProto {
        DescriptorProto { name: Some(name.to_owned()), field: fields, ..DescriptorProto::default() }
    }

    fn check(
        fields: &Json,
        descriptor: &DescriptorProto,
        keyed: bool,
    ) -> Result<WriterSchema, SchemaProblem> {
        WriterSchema::new(descriptor, &parse_fields(fields).unwrap(), keyed)
    }

    fn refusal(fields: &Json, descriptor: &DescriptorProto) -> String {
        match check(fields, descriptor, false) {
            Err(SchemaProblem::Unfit(sentence)) => sentence,
            other => panic!("not refused with a sentence: {other:?}"),
        }
    }

    // StorageErrorCode SCHEMA_MISMATCH_EXTRA_FIELDS: the user's schema has a field that the table has not.
    #[test]
    fn fields_without_a_column_are_all_named() {
        let columns = json!([{"name": "a", "type": "INTEGER"}]);
        let descriptor = message(
            "R",
            vec![optional("A", 1, Type::Int64), optional("b", 2, Type::Int64), optional("c", 3, Type::Int64)],
        );
        assert_eq!(
            check(&columns, &descriptor, false),
            Err(SchemaProblem::ExtraFields(vec!["b".into(), "c".into()]))
        );
    }

    #[test]
    fn a_required_column_must_be_in_the_message() {
        let columns = json!([{"name": "a", "type": "INTEGER", "mode": "REQUIRED"}]);
        let sentence = refusal(&columns, &message("R", vec![]));
        assert_eq!(sentence, "The required field a is missing in the proto message.");
    }

    // "Supported protocol buffer and Arrow data types": the table of types, row by row.
    #[test]
    fn every_column_takes_the_documented_types_and_no_others() {
        let all = [
            Type::Double,
            Type::Float,
            Type::Int64,
            Type::Uint64,
            Type::Int32,
            Type::Uint32,
            Type::Bool,
            Type::String,
            Type::Bytes,
        ];
        for (kind, taken) in [
            ("BOOL", &[Type::Bool, Type::Int32, Type::Int64, Type::Uint32, Type::Uint64][..]),
            ("BYTES", &[Type::Bytes, Type::String]),
            ("DATE", &[Type::Int32, Type::Int64, Type::String]),
            ("DATETIME", &[Type::String, Type::Int64]),
            ("TIME", &[Type::String, Type::Int64]),
            ("FLOAT", &[Type::Double, Type::Float]),
            ("INTEGER", &[Type::Int32, Type::Int64, Type::Uint32]),
            ("JSON", &[Type::String]),
            (
                "NUMERIC",
                &[
                    Type::Int32,
                    Type::Int64,
                    Type::Uint32,
                    Type::Uint64,
                    Type::Double,
                    Type::Float,
                    Type::String,
                ],
            ),
            ("STRING", &[Type::String]),
            ("TIMESTAMP", &[Type::Int64, Type::Int32, Type::Uint32]),
        ] {
            for proto in all {
                let columns = json!([{"name": "x", "type": kind}]);
                let fits = check(&columns, &message("R", vec![optional("x", 1, proto)]), false).is_ok();
                assert_eq!(fits, taken.contains(&proto), "{kind} {proto:?}");
            }
        }
    }

    #[test]
    fn a_list_goes_into_a_repeated_column_only() {
        let descriptor = message("R", vec![field("x", 1, Type::Int64, Label::Repeated)]);
        assert!(
            check(&json!([{"name": "x", "type": "INTEGER", "mode": "REPEATED"}]), &descriptor, false).is_ok()
        );
        let sentence = refusal(&json!([{"name": "x", "type": "INTEGER"}]), &descriptor);
        assert_eq!(sentence, "The proto field x is repeated and the BigQuery field is NULLABLE.");
    }

    #[test]
    fn nested_messages_are_found_by_full_and_by_short_names_and_must_be_inside() {
        let columns =
            json!([{"name": "who", "type": "RECORD", "fields": [{"name": "n", "type": "INTEGER"}]}]);
        for name in [".R.Who", ".some.package.R.Who", "R.Who", "Who", ".Who"] {
            let who = FieldDescriptorProto {
                type_name: Some(name.to_owned()),
                ..optional("who", 1, Type::Message)
            };
            let inner = message("Who", vec![optional("n", 1, Type::Int64)]);
            let descriptor = DescriptorProto { nested_type: vec![inner], ..message("R", vec![who.clone()]) };
            assert!(check(&columns, &descriptor, false).is_ok(), "{name}");
            let sentence = refusal(&columns, &message("R", vec![who]));
            assert!(sentence.contains("not self-contained"), "{sentence}");
        }
    }

    #[test]
    fn wrong_numbers_and_doubled_names_are_refused() {
        let columns = json!([{"name": "a", "type": "INTEGER"}, {"name": "b", "type": "INTEGER"}]);
        for fields in [
            vec![optional("a", 0, Type::Int64)],
            vec![optional("a", 1, Type::Int64), optional("b", 1, Type::Int64)],
            vec![optional("a", 1, Type::Int64), optional("A", 2, Type::Int64)],
            vec![optional("a", 1, Type::Enum)],
            vec![optional("a", 1, Type::Group)],
            vec![optional("a", 1, Type::Message)],
        ] {
            assert!(matches!(check(&columns, &message("R", fields), false), Err(SchemaProblem::Unfit(_))));
        }
    }

    #[test]
    fn the_pseudo_columns_are_known_only_where_there_is_a_key() {
        let columns = json!([{"name": "a", "type": "INTEGER"}]);
        let fields = vec![
            optional("a", 1, Type::Int64),
            optional("_CHANGE_TYPE", 2, Type::String),
            optional("_CHANGE_SEQUENCE_NUMBER", 3, Type::String),
        ];
        let descriptor = message("R", fields);
        assert!(check(&columns, &descriptor, true).unwrap().has_changes());
        assert!(
            matches!(check(&columns, &descriptor, false), Err(SchemaProblem::ExtraFields(extra)) if extra.len() == 2)
        );
        let wrong = message("R", vec![optional("_CHANGE_TYPE", 2, Type::Int64)]);
        assert!(matches!(check(&columns, &wrong, true), Err(SchemaProblem::Unfit(_))));
    }
}
