//! The schema of the rows, as a request carries it.
//!
//! What BigQuery takes (<https://cloud.google.com/bigquery/docs/write-api#appendrows>): a proto2 message without a
//! package that refers to nothing outside itself, all nested messages defined directly inside it. Columns are found by
//! name. Every field that is not repeated is optional: whether a column may be missing is checked before a row is
//! written, and by BigQuery row by row.

use prost_types::field_descriptor_proto::{Label, Type as FieldType};
use prost_types::{DescriptorProto, FieldDescriptorProto};
use txconnect_connector_api::Mode;

use crate::config::{BigQueryConfig, WriteMode};
use crate::plan::{Field, TablePlan, Type};

/// The message of a row.
const ROW: &str = "Row";

/// The pseudo-columns of a row that replaces or deletes another
/// (<https://cloud.google.com/bigquery/docs/change-data-capture>).
const PSEUDO_COLUMNS: [&str; 2] = ["_CHANGE_TYPE", "_CHANGE_SEQUENCE_NUMBER"];

/// The schema of rows of `plan`. Field numbers are those of the columns, counted from 1: first the schema's, then
/// Kafka's, then `_CHANGE_TYPE` and `_CHANGE_SEQUENCE_NUMBER` where rows replace others.
pub(crate) fn row_descriptor(plan: &TablePlan, config: &BigQueryConfig) -> DescriptorProto {
    let mut nested = Nested { taken: names(&plan.fields), types: Vec::new() };
    let mut field = nested.fields(&plan.fields, "");
    if config.write == WriteMode::Upsert {
        for name in PSEUDO_COLUMNS {
            field.push(field_descriptor(name, field.len(), Mode::Nullable, FieldType::String));
        }
    }
    DescriptorProto { name: Some(ROW.to_owned()), field, nested_type: nested.types, ..Default::default() }
}

/// Messages of records, all directly inside the row's.
struct Nested {
    /// Names of fields at any depth and of messages: a message may not be called like one.
    taken: Vec<String>,
    types: Vec<DescriptorProto>,
}

impl Nested {
    /// The fields of one message; `path` is its name but for the end.
    fn fields(&mut self, fields: &[Field], path: &str) -> Vec<FieldDescriptorProto> {
        let mut described = Vec::with_capacity(fields.len() + PSEUDO_COLUMNS.len());
        for (index, field) in fields.iter().enumerate() {
            let mut descriptor = field_descriptor(&field.name, index, field.mode, field_type(&field.kind));
            if let Type::Record(inner) = &field.kind {
                let path = format!("{path}{}_", field.name);
                let inner = self.fields(inner, &path);
                let name = self.unused(format!("{path}record"));
                descriptor.type_name = Some(name.clone());
                self.types.push(DescriptorProto { name: Some(name), field: inner, ..Default::default() });
            }
            described.push(descriptor);
        }
        described
    }

    fn unused(&mut self, mut name: String) -> String {
        while self.taken.iter().any(|taken| taken.eq_ignore_ascii_case(&name)) {
            name.push('_');
        }
        self.taken.push(name.clone());
        name
    }
}

fn names(fields: &[Field]) -> Vec<String> {
    let mut all = vec![ROW.to_owned()];
    for field in fields {
        all.push(field.name.clone());
        if let Type::Record(inner) = &field.kind {
            all.extend(names(inner));
        }
    }
    all
}

fn field_descriptor(name: &str, index: usize, mode: Mode, kind: FieldType) -> FieldDescriptorProto {
    let label = if mode == Mode::Repeated { Label::Repeated } else { Label::Optional };
    FieldDescriptorProto {
        name: Some(name.to_owned()),
        // A table has at most 10,000 columns.
        number: i32::try_from(index + 1).ok(),
        label: Some(label.into()),
        r#type: Some(kind.into()),
        ..Default::default()
    }
}

/// What BigQuery takes for a column
/// (<https://cloud.google.com/bigquery/docs/supported-data-types#supported_protocol_buffer_data_types>). Decimals and
/// times of day are text: digits as they stand in the record, and a form that needs no packing rules of its own.
fn field_type(kind: &Type) -> FieldType {
    match kind {
        Type::Boolean => FieldType::Bool,
        Type::Integer | Type::Timestamp => FieldType::Int64,
        Type::Float => FieldType::Double,
        Type::Numeric { .. } | Type::BigNumeric { .. } | Type::String | Type::Time | Type::Json => {
            FieldType::String
        }
        Type::Bytes => FieldType::Bytes,
        Type::Date => FieldType::Int32,
        Type::Record(_) => FieldType::Message,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use prost::Message as _;
    use serde_json::{Value, json};
    use txconnect_connector_api::TableSchema;
    use txconnect_connector_api::schema::UnknownFields;

    fn descriptor(config: &Value, properties: &Value) -> DescriptorProto {
        let mut all = json!({ "project": "p", "dataset": "d" });
        all.as_object_mut().unwrap().extend(config.as_object().unwrap().clone());
        let config: BigQueryConfig = serde_json::from_value(all).unwrap();
        let schema = json!({ "required": ["id"], "properties": properties });
        let schema = TableSchema::from_json_schema(&schema, UnknownFields::DeadLetter).unwrap();
        row_descriptor(&TablePlan::new(&config, &schema).unwrap(), &config)
    }

    /// `number name label type [message]` of every field.
    fn shown(message: &DescriptorProto) -> Vec<String> {
        let shown = message.field.iter().map(|field| {
            let repeated = if field.label() == Label::Repeated { "repeated " } else { "" };
            let kind = field.r#type().as_str_name().trim_start_matches("TYPE_").to_lowercase();
            format!("{} {}: {repeated}{kind} {}", field.number(), field.name(), field.type_name())
                .trim_end()
                .to_owned()
        });
        shown.collect()
    }

    #[test]
    fn a_row_has_the_columns_in_order_and_messages_for_records() {
        let row = descriptor(
            &json!({ "write": "upsert", "key": ["id"], "kafka_columns": ["offset", "timestamp"] }),
            &json!({
                "id": { "type": "string" },
                "ok": { "type": "boolean" },
                "n": { "type": "integer" },
                "ratio": { "type": "number" },
                "amount": { "x-column": { "type": "numeric", "precision": 18, "scale": 2 } },
                "raw": { "type": "string", "contentEncoding": "base64" },
                "day": { "type": "string", "format": "date" },
                "clock": { "type": "string", "format": "time" },
                "at": { "type": "string", "format": "date-time" },
                "extra": { "type": "object" },
                "tags": { "type": "array", "items": { "type": "integer" } },
                "lines": { "type": "array", "items": { "type": "object", "properties": {
                    "n": { "type": "integer" },
                    "item": { "type": "object", "properties": { "name": { "type": "string" } } } } } }
            }),
        );
        assert_eq!(
            shown(&row),
            [
                "1 id: string",
                "2 ok: bool",
                "3 n: int64",
                "4 ratio: double",
                "5 amount: string",
                "6 raw: bytes",
                "7 day: int32",
                "8 clock: string",
                "9 at: int64",
                "10 extra: string",
                "11 tags: repeated int64",
                "12 lines: repeated message lines_record",
                "13 _kafka_offset: int64",
                "14 _kafka_timestamp: int64",
                "15 _CHANGE_TYPE: string",
                "16 _CHANGE_SEQUENCE_NUMBER: string",
            ]
        );
        let [item, lines] = &row.nested_type[..] else { panic!("two messages") };
        assert_eq!((item.name(), shown(item)), ("lines_item_record", vec!["1 name: string".to_owned()]));
        assert_eq!(lines.name(), "lines_record");
        assert_eq!(shown(lines), ["1 n: int64", "2 item: message lines_item_record"]);
    }

    /// Properties with names that could be taken for those of messages.
    fn any_properties() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(json!({ "type": "string" })),
            Just(json!({ "type": "array", "items": { "type": "integer" } })),
        ];
        let names = "Row|row|record|[ab](_[ab])?(_[Rr]ecord_?)?";
        let properties = move |inner| {
            prop::collection::btree_map(names, inner, 1..6).prop_map(|members| {
                // Names differ in more than case, as the schema demands.
                let mut seen = Vec::new();
                let distinct = members.into_iter().filter(|(name, _)| {
                    let lower = name.to_lowercase();
                    let is_new = !seen.contains(&lower);
                    seen.push(lower);
                    is_new
                });
                distinct.collect::<Value>()
            })
        };
        let value = leaf.prop_recursive(4, 24, 5, move |inner| {
            (properties(inner), any::<bool>()).prop_map(|(properties, repeated)| {
                let record = json!({ "type": "object", "properties": properties });
                if repeated { json!({ "type": "array", "items": record }) } else { record }
            })
        });
        properties(value.boxed())
    }

    fn all_names(message: &DescriptorProto) -> Vec<String> {
        message.field.iter().map(|field| field.name().to_lowercase()).collect()
    }

    fn has_no_repetition(mut names: Vec<String>) -> bool {
        let count = names.len();
        names.sort();
        names.dedup();
        names.len() == count
    }

    proptest! {
        #[test]
        fn a_descriptor_refers_to_nothing_outside_itself(properties in any_properties(), upsert in any::<bool>()) {
            let mut properties = properties;
            properties["id"] = json!({ "type": "string" });
            let config = if upsert { json!({ "write": "upsert", "key": ["id"] }) } else { json!({}) };
            let row = descriptor(&config, &properties);
            prop_assert_eq!(DescriptorProto::decode(&row.encode_to_vec()[..]), Ok(row.clone()));

            let messages: Vec<&DescriptorProto> = row.nested_type.iter().chain([&row]).collect();
            let message_names: Vec<String> = messages.iter().map(|message| message.name().to_lowercase()).collect();
            prop_assert!(has_no_repetition(message_names.clone()), "{:?}", message_names);
            for message in messages {
                prop_assert!(has_no_repetition(all_names(message)));
                for (field, number) in message.field.iter().zip(1..) {
                    prop_assert_eq!(field.number(), number);
                    prop_assert_ne!(field.label(), Label::Required);
                    let is_record = field.r#type() == FieldType::Message;
                    prop_assert_eq!(field.type_name.is_some(), is_record);
                    let known = row.nested_type.iter().any(|nested| nested.name() == field.type_name());
                    prop_assert_eq!(known, is_record, "{}", field.type_name());
                }
                // A field of that name would hide the message from the fields beside it.
                for nested in &row.nested_type {
                    prop_assert!(!all_names(message).contains(&nested.name().to_lowercase()), "{}", nested.name());
                }
            }
            prop_assert!(row.nested_type.iter().all(|nested| nested.nested_type.is_empty()));
        }
    }
}
