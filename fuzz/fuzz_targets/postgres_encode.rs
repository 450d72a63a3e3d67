//! Any document through the validator and the Postgres encoder of a fixed schema, or any bytes as the key of a
//! tombstone. A row that is written must read back field by field, and each value have the form of its column. The first
//! byte chooses the schema and the mode, the rest is the record's value, or its key.

#![no_main]

use std::cell::RefCell;

use bumpalo::Bump;
use libfuzzer_sys::{Corpus, fuzz_target};
use serde_json::{Value as Json, json};
use txconnect::stages::decode::{Format, decode};
use txconnect::stages::validate::Validator;
use txconnect_connector_api::schema::UnknownFields;
use txconnect_connector_api::{Encoded, Encoder, Record, TableSchema, Value};
use txconnect_postgres::fit::{ExistingColumn, ExistingTable, RelationKind, fit};
use txconnect_postgres::plan::{ColumnType, PlannedColumn};
use txconnect_postgres::row::{Fields, Operation, operation};
use txconnect_postgres::{PostgresConfig, RowEncoder, TablePlan};

const EVERY_KIND: &str = include_str!("../schemas/every-kind.json");
const CASH_INS: &str = include_str!("../../schemas/cash_ins.json");

/// The columns of an existing table that are not as `every-kind.json` asks for them: name, type, modifier.
const OTHER_COLUMNS: [(&str, u32, i32); 8] = [
    ("id", 23, -1),                      // integer
    ("ratio", 700, -1),                  // real
    ("money", 1700, (10 << 16) + 1 + 4), // numeric(10,1)
    ("note", 1043, 4 + 4),               // varchar(4)
    ("at", 1114, 3),                     // timestamp(3)
    ("uuid", 1042, 36 + 4),              // character(36)
    ("extra", 114, -1),                  // json
    ("tags", 25, -1),                    // text
];

struct Case {
    validator: Validator,
    encoder: RowEncoder,
    columns: Vec<PlannedColumn>,
    key: Vec<usize>,
    /// Inputs are keys of tombstones.
    deletes: bool,
}

thread_local! {
    static CASES: RefCell<Vec<Case>> = RefCell::new(cases());
}

fn cases() -> Vec<Case> {
    let upsert = json!({ "write": "upsert", "key": ["id", "note"], "delete_on_tombstone": true });
    let plain =
        json!({ "write": "upsert", "key": ["uuid"], "delete_on_tombstone": true, "key_decode": "string" });
    let money =
        json!({ "write": "upsert", "key": ["money"], "delete_on_tombstone": true, "key_decode": "string" });
    vec![
        case(EVERY_KIND, &json!({}), false, false),
        case(EVERY_KIND, &json!({}), true, false),
        case(CASH_INS, &json!({}), false, false),
        case(EVERY_KIND, &upsert, false, false),
        case(EVERY_KIND, &upsert, false, true),
        case(EVERY_KIND, &plain, false, true),
        case(EVERY_KIND, &money, false, true),
    ]
}

fn case(schema: &str, settings: &Json, other_columns: bool, deletes: bool) -> Case {
    let mut config = json!({ "url": "postgresql://nowhere" });
    if let (Json::Object(all), Json::Object(some)) = (&mut config, settings.clone()) {
        all.extend(some);
    }
    let config: PostgresConfig = serde_json::from_value(config).expect("a right block");
    let schema: Json = serde_json::from_str(schema).expect("a schema is JSON");
    let unknown_fields = if other_columns { UnknownFields::Ignore } else { UnknownFields::DeadLetter };
    let table = TableSchema::from_json_schema(&schema, unknown_fields).expect("a table");
    let mut plan = TablePlan::new(&config, "topic", &table).expect("a plan");
    if other_columns {
        plan = fit(&plan, &existing(&plan)).expect("the table fits");
    }
    Case {
        validator: Validator::compile(&schema).ok().expect("a right schema"),
        encoder: RowEncoder::new(&config, &table, &plan).expect("an encoder"),
        key: plan.mode.key().to_vec(),
        columns: plan.columns,
        deletes,
    }
}

fn existing(plan: &TablePlan) -> ExistingTable {
    let columns = plan.columns.iter().map(|column| {
        let other = OTHER_COLUMNS.iter().find(|(name, ..)| *name == column.name);
        let (type_oid, type_modifier) = other.map_or_else(
            || (oid(&column.column_type), -1),
            |(_, type_oid, type_modifier)| (*type_oid, *type_modifier),
        );
        ExistingColumn {
            name: column.name.clone(),
            type_oid,
            type_modifier,
            type_name: column.column_type.to_string(),
            is_enum: false,
            not_null: false,
            has_default: false,
            generated: false,
            identity: None,
        }
    });
    ExistingTable {
        kind: RelationKind::Table,
        columns: columns.collect(),
        unique_keys: Vec::new(),
        partition_key: Vec::new(),
    }
}

/// The types that a plan asks for.
fn oid(column_type: &ColumnType) -> u32 {
    match column_type {
        ColumnType::Boolean => 16,
        ColumnType::BigInt => 20,
        ColumnType::Double => 701,
        ColumnType::Numeric(_) => 1700,
        ColumnType::Text => 25,
        ColumnType::Uuid => 2950,
        ColumnType::Bytea => 17,
        ColumnType::TimestampTz => 1184,
        ColumnType::Date => 1082,
        ColumnType::Time => 1083,
        ColumnType::Jsonb => 3802,
        other => panic!("no plan asks for {other}"),
    }
}

/// Whether bytes have the binary form of a type, as PostgreSQL's own reader would have it.
fn check(column_type: &ColumnType, value: &[u8]) {
    let text = || {
        let text = std::str::from_utf8(value).expect("text is UTF-8");
        assert!(!text.contains('\0'));
        text.chars().count()
    };
    let number = || -> i64 { i64::from_be_bytes(value.try_into().expect("eight bytes")) };
    match column_type {
        ColumnType::Boolean => assert!(matches!(value, [0 | 1])),
        ColumnType::SmallInt => assert_eq!(value.len(), 2),
        ColumnType::Integer | ColumnType::Date => assert_eq!(value.len(), 4),
        ColumnType::BigInt => assert_eq!(value.len(), 8),
        ColumnType::Uuid => assert_eq!(value.len(), 16),
        ColumnType::Real => {
            assert!(f32::from_be_bytes(value.try_into().expect("four bytes")).is_finite());
        }
        ColumnType::Double => {
            assert!(f64::from_be_bytes(value.try_into().expect("eight bytes")).is_finite());
        }
        ColumnType::TimestampTz | ColumnType::Timestamp => {
            assert!((-211_813_488_000_000_000..9_223_371_331_200_000_000).contains(&number()));
        }
        ColumnType::Time => assert!((0..86_400_000_000).contains(&number())),
        ColumnType::Numeric(limits) => check_numeric(*limits, value),
        ColumnType::Varchar(limit) | ColumnType::Char(limit) => assert!(text() <= *limit as usize),
        ColumnType::Text | ColumnType::Labelled(_) => {
            text();
        }
        ColumnType::Bytea => {}
        ColumnType::Json => {
            serde_json::from_slice::<Json>(value).expect("json is JSON");
        }
        ColumnType::Jsonb => {
            let (version, text) = value.split_first().expect("a version");
            assert_eq!(*version, 1);
            serde_json::from_slice::<Json>(text).expect("jsonb is JSON");
        }
    }
}

fn check_numeric(limits: Option<(u16, i16)>, value: &[u8]) {
    let words: Vec<u16> =
        value.chunks(2).map(|word| u16::from_be_bytes(word.try_into().expect("whole words"))).collect();
    let [count, weight, sign, shown, digits @ ..] = &words[..] else { panic!("a short head") };
    assert_eq!(usize::from(*count), digits.len());
    assert!(matches!(sign, 0 | 0x4000) && *shown <= 16_383);
    assert!(digits.iter().all(|digit| *digit < 10_000));
    assert!(digits.first() != Some(&0) && digits.last() != Some(&0));
    if let (Some((precision, scale)), Some(first)) = (limits, digits.first()) {
        let whole = i32::from(weight.cast_signed()) * 4 + first.to_string().len() as i32;
        assert!(whole <= i32::from(precision) - i32::from(scale));
        assert_eq!(i32::from(*shown), i32::from(scale.max(0)));
    }
}

impl Case {
    fn run(&mut self, bytes: &[u8]) {
        let arena = Bump::new();
        let record = |value| Record {
            topic: "topic",
            partition: 0,
            offset: 0,
            row: 0,
            timestamp: None,
            key: Some(bytes),
            headers: &[],
            value,
        };
        let mut row = Vec::new();
        let encoded = if self.deletes {
            self.encoder.encode(&record(Value::Tombstone), &mut row)
        } else {
            let Ok(value @ Value::Json { document, .. }) = decode(Format::Json, Some(bytes), &arena) else {
                return;
            };
            if let Err(bad) = self.validator.validate(document) {
                assert!(bad.class.starts_with("validate."), "{bad}");
            }
            self.encoder.encode(&record(value), &mut row)
        };
        match encoded {
            Ok(Encoded::Row) => self.check(&row),
            Ok(Encoded::Filtered) => panic!("only a tombstone without a use makes no row"),
            Err(bad) => assert!(bad.class.starts_with("encode."), "{bad}"),
        }
    }

    fn check(&self, row: &[u8]) {
        let (expected, tuple) =
            if self.key.is_empty() { (Operation::Put, row) } else { operation(row).expect("an operation") };
        assert_eq!(expected == Operation::Delete, self.deletes);
        let fields: Vec<Option<&[u8]>> =
            Fields::of(tuple).expect("a tuple").map(|field| field.expect("a field")).collect();
        assert_eq!(fields.len(), self.columns.len());
        for (index, (field, column)) in fields.iter().zip(&self.columns).enumerate() {
            match field {
                Some(value) => check(&column.column_type, value),
                None => assert!(column.nullable || (self.deletes && !self.key.contains(&index))),
            }
            assert!(!self.deletes || field.is_some() == self.key.contains(&index));
        }
    }
}

fuzz_target!(|data: &[u8]| -> Corpus {
    let Some((choice, rest)) = data.split_first() else { return Corpus::Reject };
    CASES.with_borrow_mut(|cases| {
        // `0` is the first case, so that seeds can be read.
        let number = usize::from(choice.wrapping_sub(b'0')) % cases.len();
        cases[number].run(rest);
    });
    Corpus::Keep
});
