//! A protobuf row of the Storage Write API, read by the columns of its schema, apart from the sink's own descriptor, so
//! that each checks the other.

use serde_json::Value as Json;
use txconnect_connector_api::{Columns, Kind, Mode};

/// What a field holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wire<'a> {
    Varint(u64),
    Fixed64(u64),
    Delimited(&'a [u8]),
}

impl<'a> Wire<'a> {
    /// The number of an integer or timestamp column.
    #[must_use]
    pub fn integer(self) -> i64 {
        let Self::Varint(value) = self else { panic!("{self:?} is no integer") };
        value.cast_signed()
    }

    /// The text of a column.
    #[must_use]
    pub fn text(self) -> &'a str {
        let Self::Delimited(bytes) = self else { panic!("{self:?} is no text") };
        std::str::from_utf8(bytes).expect("text is UTF-8")
    }
}

/// The only element of a `ProtoRows` message: one row.
#[must_use]
pub fn only_row(rows: &[u8]) -> &[u8] {
    let [(1, Wire::Delimited(row))] = fields(rows)[..] else { panic!("one row") };
    row
}

/// The fields of a message in the order of their bytes.
#[must_use]
pub fn fields(mut bytes: &[u8]) -> Vec<(u64, Wire<'_>)> {
    let mut fields = Vec::new();
    while !bytes.is_empty() {
        let tag = varint(&mut bytes);
        let value = match tag & 7 {
            0 => Wire::Varint(varint(&mut bytes)),
            1 => {
                let (value, rest) = bytes.split_first_chunk::<8>().expect("eight bytes");
                bytes = rest;
                Wire::Fixed64(u64::from_le_bytes(*value))
            }
            2 => {
                let length = usize::try_from(varint(&mut bytes)).expect("a length");
                let (value, rest) = bytes.split_at(length);
                bytes = rest;
                Wire::Delimited(value)
            }
            other => panic!("wire type {other}"),
        };
        fields.push((tag >> 3, value));
    }
    fields
}

fn varint(bytes: &mut &[u8]) -> u64 {
    let mut value: u64 = 0;
    for place in 0..10 {
        let (byte, rest) = bytes.split_first().expect("a varint ends");
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << (7 * place);
        if byte & 0x80 == 0 {
            assert!(place == 0 || *byte != 0, "a varint is as short as it can be");
            return value;
        }
    }
    panic!("a varint has at most ten bytes");
}

/// Checks the fields of the columns, which are numbered from 1, and gives the others.
#[must_use]
pub fn check<'a>(columns: &Columns, bytes: &'a [u8]) -> (Vec<u64>, Vec<(u64, Wire<'a>)>) {
    let (mut found, mut others) = (Vec::new(), Vec::new());
    for (number, value) in fields(bytes) {
        let index = usize::try_from(number).expect("a number").checked_sub(1).expect("numbers begin at 1");
        let Some(column) = columns.as_slice().get(index) else {
            others.push((number, value));
            continue;
        };
        assert!(column.mode == Mode::Repeated || !found.contains(&number), "a field occurs once");
        found.push(number);
        check_value(&column.kind, value);
    }
    (found, others)
}

fn check_value(kind: &Kind, value: Wire<'_>) {
    match kind {
        Kind::Boolean => assert!(matches!(value, Wire::Varint(0 | 1))),
        Kind::Integer => {
            let _ = value.integer();
        }
        Kind::Float => {
            let Wire::Fixed64(bits) = value else { panic!("{value:?} is no double") };
            assert!(f64::from_bits(bits).is_finite());
        }
        Kind::Numeric { precision, scale } => check_decimal(value.text(), *precision, *scale),
        Kind::String | Kind::Uuid => {
            let _ = value.text();
        }
        Kind::Bytes => assert!(matches!(value, Wire::Delimited(_))),
        Kind::Date => assert!((-719_162..=2_932_896).contains(&value.integer())),
        Kind::Time => check_time(value.text()),
        Kind::Timestamp(_) => {
            assert!((-62_135_596_800_000_000..253_402_300_800_000_000).contains(&value.integer()));
        }
        Kind::Json => {
            let _: Json = serde_json::from_str(value.text()).expect("JSON");
        }
        Kind::Record(columns) => {
            let Wire::Delimited(bytes) = value else { panic!("{value:?} is no record") };
            let (found, others) = check(columns, bytes);
            assert!(others.is_empty());
            for (number, column) in (1..).zip(columns.as_slice()) {
                assert!(column.mode != Mode::Required || found.contains(&number));
            }
        }
    }
}

fn check_decimal(text: &str, precision: u32, scale: u32) {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let (before, behind) = digits.split_once('.').unwrap_or((digits, "0"));
    for part in [before, behind] {
        assert!(!part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit()), "{text}");
    }
    assert!(before == "0" || before.len() <= (precision - scale) as usize, "{text}");
    assert!(behind.len() <= scale.max(1) as usize, "{text}");
}

fn check_time(text: &str) {
    let form: String = text.chars().map(|c| if c.is_ascii_digit() { '9' } else { c }).collect();
    assert!(form == "99:99:99" || form == "99:99:99.999999", "{text}");
    assert!(text[..2] < *"24" && text[3..5] < *"60" && text[6..8] < *"60", "{text}");
}
