//! JSON values of a record → values in PostgreSQL's binary form, each with its length in front.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use txconnect_connector_api::document::write_json_string;
use txconnect_connector_api::{BadRecord, Column, Document, Kind, Mode, Number, TimeUnit, TimestampSource};

use crate::numeric::{self, Digits};
use crate::plan::{ColumnType, PlannedColumn};
use crate::times;

/// How the values of one column are written.
pub(crate) enum ValuePlan {
    Boolean,
    SmallInt,
    Integer,
    BigInt,
    /// A number that may also come spelled in a string.
    Spelled(Box<ValuePlan>),
    /// `whole`: only integers, and only those that the column keeps exactly.
    Real {
        whole: bool,
    },
    Double {
        whole: bool,
    },
    /// `text`: also a decimal in a string.
    Numeric {
        digits: Digits,
        text: bool,
    },
    Text,
    Varchar(u32),
    Char(u32),
    Uuid,
    Bytea,
    Date,
    Time {
        digits: u8,
    },
    Rfc3339 {
        digits: u8,
    },
    Epoch {
        unit: TimeUnit,
        digits: u8,
    },
    Json {
        form: JsonForm,
        shape: JsonShape,
    },
}

/// How JSON lies in its column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum JsonForm {
    /// `json`, or text without a limit.
    Text,
    /// Text of at most so many characters.
    Varchar(u32),
    /// `jsonb`: the number of the form, then the text.
    Binary,
}

/// What is left out of JSON: properties that the schema marks as ignored.
pub(crate) enum JsonShape {
    /// Nothing.
    Whole,
    /// Properties inside an object.
    Record(Kind),
    /// Properties inside the objects of an array.
    Records(Kind),
}

/// Why a value does not fit its column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Misfit {
    Type,
    Fraction,
    Form,
    OutOfRange,
    TooFine,
    TooLong,
    TooLarge,
    Nul,
    /// Somewhere inside a JSON document.
    Inside,
}

impl ValuePlan {
    /// How values of a schema's column reach a table's column; `None` where they do not.
    pub(crate) fn new(column: &Column, to: &PlannedColumn, is_key: bool) -> Option<Self> {
        let digits = to.second_digits;
        let shape = match (&column.kind, column.mode) {
            (Kind::Record(_), Mode::Repeated) => JsonShape::Records(column.kind.clone()),
            (Kind::Record(_), _) => JsonShape::Record(column.kind.clone()),
            _ => JsonShape::Whole,
        };
        if column.mode == Mode::Repeated || matches!(column.kind, Kind::Json | Kind::Record(_)) {
            let form = match to.column_type {
                ColumnType::Jsonb => JsonForm::Binary,
                ColumnType::Json | ColumnType::Text => JsonForm::Text,
                ColumnType::Varchar(limit) => JsonForm::Varchar(limit),
                _ => return None,
            };
            return Some(Self::Json { form, shape });
        }
        Some(match (&column.kind, &to.column_type) {
            (Kind::Boolean, ColumnType::Boolean) => Self::Boolean,
            (Kind::Integer, ColumnType::SmallInt) => Self::SmallInt,
            (Kind::Integer, ColumnType::Integer) => Self::Integer,
            (Kind::Integer, ColumnType::BigInt) => Self::BigInt,
            (Kind::Numeric { scale: 0, .. }, ColumnType::SmallInt) => Self::Spelled(Box::new(Self::SmallInt)),
            (Kind::Numeric { scale: 0, .. }, ColumnType::Integer) => Self::Spelled(Box::new(Self::Integer)),
            (Kind::Numeric { scale: 0, .. }, ColumnType::BigInt) => Self::Spelled(Box::new(Self::BigInt)),
            (Kind::Integer, ColumnType::Real) => Self::Real { whole: true },
            (Kind::Integer, ColumnType::Double) => Self::Double { whole: true },
            (Kind::Float, ColumnType::Real) => Self::Real { whole: false },
            (Kind::Float, ColumnType::Double) => Self::Double { whole: false },
            (
                Kind::Integer | Kind::Float | Kind::Numeric { .. } | Kind::String,
                ColumnType::Numeric(limits),
            ) => Self::Numeric {
                digits: Digits::new(*limits, is_key),
                text: matches!(column.kind, Kind::Numeric { .. } | Kind::String),
            },
            (Kind::String, ColumnType::Text | ColumnType::Labelled(_)) | (Kind::Uuid, ColumnType::Text) => {
                Self::Text
            }
            (Kind::String | Kind::Uuid, ColumnType::Varchar(limit)) => Self::Varchar(*limit),
            (Kind::String | Kind::Uuid, ColumnType::Char(limit)) => Self::Char(*limit),
            (Kind::String | Kind::Uuid, ColumnType::Uuid) => Self::Uuid,
            (Kind::Bytes, ColumnType::Bytea) => Self::Bytea,
            (Kind::String | Kind::Date, ColumnType::Date) => Self::Date,
            (Kind::String | Kind::Time, ColumnType::Time) => Self::Time { digits },
            (
                Kind::String | Kind::Timestamp(TimestampSource::Rfc3339),
                ColumnType::TimestampTz | ColumnType::Timestamp,
            ) => Self::Rfc3339 { digits },
            (
                Kind::Timestamp(TimestampSource::Epoch(unit)),
                ColumnType::TimestampTz | ColumnType::Timestamp,
            ) => Self::Epoch { unit: *unit, digits },
            _ => return None,
        })
    }

    /// Appends a value that is not null.
    #[inline]
    pub(crate) fn write(&self, document: &Document<'_>, out: &mut Vec<u8>) -> Result<(), Misfit> {
        match (self, document) {
            (Self::Uuid, Document::String(text)) => {
                fixed::<16, 20>(uuid(text).ok_or(Misfit::Form)?, out);
                Ok(())
            }
            (Self::BigInt, Document::Number(number)) => {
                fixed::<8, 12>(integer::<i64>(*number)?.to_be_bytes(), out);
                Ok(())
            }
            (Self::Text, Document::String(text)) => write_text(text, out),
            (Self::Epoch { unit, digits }, Document::Number(number)) => {
                micros(times::epoch(*number, *unit)?, *digits, out)
            }
            (Self::Rfc3339 { digits }, Document::String(text)) => {
                micros(times::timestamp(text)?, *digits, out)
            }
            (Self::Numeric { digits, .. }, Document::Number(number)) => {
                write_numeric(number.literal(), *digits, out)
            }
            _ => self.write_less_usual(document, out),
        }
    }

    fn write_less_usual(&self, document: &Document<'_>, out: &mut Vec<u8>) -> Result<(), Misfit> {
        match (self, document) {
            (Self::Boolean, Document::Bool(value)) => fixed::<1, 5>([u8::from(*value)], out),
            (Self::SmallInt, Document::Number(number)) => {
                fixed::<2, 6>(integer::<i16>(*number)?.to_be_bytes(), out);
            }
            (Self::Integer, Document::Number(number)) => {
                fixed::<4, 8>(integer::<i32>(*number)?.to_be_bytes(), out);
            }
            (Self::Spelled(plan), Document::String(text)) => {
                if !numeric::is_number(text) {
                    return Err(Misfit::Form);
                }
                return plan.write(&Document::Number(Number::from_literal(text)), out);
            }
            (Self::Spelled(plan), document) => return plan.write(document, out),
            (Self::Real { whole }, Document::Number(number)) => {
                fixed::<4, 8>(real(*number, *whole)?.to_be_bytes(), out);
            }
            (Self::Double { whole }, Document::Number(number)) => {
                fixed::<8, 12>(double(*number, *whole)?.to_be_bytes(), out);
            }
            (Self::Numeric { digits, text: true }, Document::String(text)) => {
                return write_numeric(text, *digits, out);
            }
            (Self::Varchar(limit), Document::String(text)) => {
                check_length(text, *limit)?;
                return write_text(text, out);
            }
            (Self::Char(limit), Document::String(text)) => {
                let text = text.trim_end_matches(' ');
                check_length(text, *limit)?;
                return write_text(text, out);
            }
            (Self::Bytea, Document::String(text)) => {
                return with_length(out, |out| STANDARD.decode_vec(text, out).map_err(|_| Misfit::Form));
            }
            (Self::Date, Document::String(text)) => fixed::<4, 8>(times::date(text)?.to_be_bytes(), out),
            (Self::Time { digits }, Document::String(text)) => {
                return micros(times::time_of_day(text)?, *digits, out);
            }
            (Self::Json { form, shape }, document) => return write_json(document, *form, shape, out),
            _ => return Err(Misfit::Type),
        }
        Ok(())
    }

    /// What is wrong with a value that [`Self::write`] refused, without the value.
    #[cold]
    pub(crate) fn explain(&self, misfit: Misfit, document: &Document<'_>) -> BadRecord {
        let bad = |class, message: String| BadRecord::new(class, "", message);
        let wanted = self.wanted();
        match misfit {
            Misfit::Type => bad(
                "encode.type",
                format!("the column takes {wanted}, the record has {}", document.type_name()),
            ),
            Misfit::Fraction => {
                bad("encode.type", "the column takes an integer, the record has a fraction".to_owned())
            }
            Misfit::Form => bad("encode.format", format!("the value is not {wanted}")),
            Misfit::OutOfRange => {
                bad("encode.out_of_range", format!("the value is not {wanted} that the column has room for"))
            }
            Misfit::TooFine => bad(
                "encode.inexact",
                "the value has more digits than the column keeps, and nothing is rounded".to_owned(),
            ),
            Misfit::TooLong => bad(
                "encode.too_long",
                format!("the text is longer than the {} characters of the column", self.character_limit()),
            ),
            Misfit::TooLarge => too_large(),
            Misfit::Nul => bad(
                "encode.nul",
                "the text holds a NUL character (U+0000), which PostgreSQL does not keep".to_owned(),
            ),
            Misfit::Inside => {
                let mut path = String::new();
                let misfit = find_inside(document, &mut path).unwrap_or(Misfit::Form);
                let inner = match misfit {
                    Misfit::OutOfRange => bad(
                        "encode.out_of_range",
                        "the number has more digits than PostgreSQL keeps in jsonb".to_owned(),
                    ),
                    other => self.explain(other, document),
                };
                BadRecord { path, ..inner }
            }
        }
    }

    fn character_limit(&self) -> u32 {
        match self {
            Self::Varchar(limit) | Self::Char(limit) | Self::Json { form: JsonForm::Varchar(limit), .. } => {
                *limit
            }
            _ => u32::MAX,
        }
    }

    /// What the column takes, for messages.
    fn wanted(&self) -> &'static str {
        match self {
            Self::Boolean => "a boolean",
            Self::SmallInt => "an integer of 16 bits",
            Self::Integer => "an integer of 32 bits",
            Self::BigInt => "an integer of 64 bits",
            Self::Spelled(plan) => plan.wanted(),
            Self::Real { whole: true } | Self::Double { whole: true } => {
                "an integer that a floating-point number holds exactly"
            }
            Self::Real { .. } => "a number of single precision",
            Self::Double { .. } => "a number of double precision",
            Self::Numeric { text: false, .. } => "a decimal number",
            Self::Numeric { .. } => "a decimal number, also in a string",
            Self::Text | Self::Varchar(_) | Self::Char(_) => "a string",
            Self::Uuid => "a UUID such as 123e4567-e89b-12d3-a456-426614174000 in a string",
            Self::Bytea => "base64 (RFC 4648, with padding) in a string",
            Self::Date => "a date in a string, with a year from 1 to 9999,",
            Self::Time { .. } => "a time of day without a zone in a string",
            Self::Rfc3339 { .. } => "an RFC 3339 time in a string, with a year from 1 to 9999,",
            Self::Epoch { .. } => "a number that counts the time since 1970",
            Self::Json { .. } => "any value",
        }
    }

    /// The document that a key's text stands for: text, or the number or boolean that it spells.
    pub(crate) fn document_of_text<'a>(&self, text: &'a str) -> Document<'a> {
        match self {
            Self::Boolean if text == "true" || text == "false" => Document::Bool(text == "true"),
            Self::SmallInt | Self::Integer | Self::BigInt | Self::Epoch { .. }
                if numeric::is_number(text) =>
            {
                Document::Number(Number::from_literal(text))
            }
            _ => Document::String(text),
        }
    }
}

/// A row or value beyond what PostgreSQL takes at once.
pub(crate) fn too_large() -> BadRecord {
    BadRecord::new(
        "encode.too_large",
        "",
        format!("the row is larger than the {} MiB that are sent", crate::encode::MAX_ROW_BYTES >> 20),
    )
}

impl From<times::Misfit> for Misfit {
    fn from(misfit: times::Misfit) -> Self {
        match misfit {
            times::Misfit::Form => Self::Form,
            times::Misfit::OutOfRange => Self::OutOfRange,
            times::Misfit::TooFine => Self::TooFine,
        }
    }
}

/// Appends a value of `N` bytes; `TOTAL` is four more.
#[inline]
fn fixed<const N: usize, const TOTAL: usize>(value: [u8; N], out: &mut Vec<u8>) {
    const { assert!(TOTAL == N + 4 && N < 256) }
    let mut bytes = [0; TOTAL];
    #[expect(clippy::cast_possible_truncation, reason = "asserted above")]
    let length = N as u8;
    bytes[3] = length;
    bytes[4..].copy_from_slice(&value);
    out.extend_from_slice(&bytes);
}

/// Appends what `write` appends, with its length in front.
fn with_length(
    out: &mut Vec<u8>,
    write: impl FnOnce(&mut Vec<u8>) -> Result<(), Misfit>,
) -> Result<(), Misfit> {
    let start = out.len();
    out.extend_from_slice(&[0; 4]);
    write(out)?;
    let length = i32::try_from(out.len() - start - 4).map_err(|_| Misfit::TooLarge)?;
    out[start..start + 4].copy_from_slice(&length.to_be_bytes());
    Ok(())
}

#[inline]
fn write_text(text: &str, out: &mut Vec<u8>) -> Result<(), Misfit> {
    if memchr::memchr(0, text.as_bytes()).is_some() {
        return Err(Misfit::Nul);
    }
    let length = i32::try_from(text.len()).map_err(|_| Misfit::TooLarge)?;
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(text.as_bytes());
    Ok(())
}

fn check_length(text: &str, limit: u32) -> Result<(), Misfit> {
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    // No text has more characters than bytes.
    if text.len() <= limit || text.chars().count() <= limit { Ok(()) } else { Err(Misfit::TooLong) }
}

#[inline]
fn integer<T: TryFrom<i64>>(number: Number<'_>) -> Result<T, Misfit> {
    let value = number
        .as_i64()
        .ok_or_else(|| if number.is_integer() { Misfit::OutOfRange } else { Misfit::Fraction })?;
    T::try_from(value).map_err(|_| Misfit::OutOfRange)
}

fn double(number: Number<'_>, whole: bool) -> Result<f64, Misfit> {
    /// Up to here every integer is a double.
    const EXACT: i64 = 1 << 53;
    if whole {
        let value: i64 = integer(number)?;
        if !(-EXACT..=EXACT).contains(&value) {
            return Err(Misfit::TooFine);
        }
    }
    let value = number.as_f64();
    if !value.is_finite() || (value == 0.0 && !is_zero(number)) {
        return Err(Misfit::OutOfRange);
    }
    Ok(value)
}

fn real(number: Number<'_>, whole: bool) -> Result<f32, Misfit> {
    /// Up to here every integer is a number of single precision.
    const EXACT: i64 = 1 << 24;
    if whole {
        let value: i64 = integer(number)?;
        if !(-EXACT..=EXACT).contains(&value) {
            return Err(Misfit::TooFine);
        }
    }
    let value: f32 = number.literal().parse().map_err(|_| Misfit::Form)?;
    if !value.is_finite() || (value == 0.0 && !is_zero(number)) {
        return Err(Misfit::OutOfRange);
    }
    Ok(value)
}

fn is_zero(number: Number<'_>) -> bool {
    let mantissa = number.literal().split(['e', 'E']).next().unwrap_or_default();
    !mantissa.bytes().any(|byte| matches!(byte, b'1'..=b'9'))
}

#[inline]
fn micros(value: i64, digits: u8, out: &mut Vec<u8>) -> Result<(), Misfit> {
    if digits < 6 && !times::has_digits(value, digits) {
        return Err(Misfit::TooFine);
    }
    fixed::<8, 12>(value.to_be_bytes(), out);
    Ok(())
}

fn write_numeric(literal: &str, digits: Digits, out: &mut Vec<u8>) -> Result<(), Misfit> {
    with_length(out, |out| {
        numeric::write(literal, digits, out).map_err(|misfit| match misfit {
            numeric::Misfit::NotANumber => Misfit::Form,
            numeric::Misfit::OutOfRange => Misfit::OutOfRange,
            numeric::Misfit::TooFine => Misfit::TooFine,
        })
    })
}

/// The value of a hexadecimal digit, or 255.
const HEX: [u8; 256] = {
    let mut values = [u8::MAX; 256];
    let mut digit = 0;
    while digit < 16 {
        values[b"0123456789abcdef"[digit as usize] as usize] = digit;
        values[b"0123456789ABCDEF"[digit as usize] as usize] = digit;
        digit += 1;
    }
    values
};

/// The bytes of a UUID in the text form of RFC 9562.
#[inline]
fn uuid(text: &str) -> Option<[u8; 16]> {
    /// Where each byte's two digits begin.
    const PAIRS: [usize; 16] = [0, 2, 4, 6, 9, 11, 14, 16, 19, 21, 24, 26, 28, 30, 32, 34];
    let text: &[u8; 36] = text.as_bytes().try_into().ok()?;
    let mut bytes = [0; 16];
    let mut seen = 0;
    for (byte, pair) in bytes.iter_mut().zip(PAIRS) {
        let (high, low) = (HEX[usize::from(text[pair])], HEX[usize::from(text[pair + 1])]);
        seen |= high | low;
        *byte = (high << 4) | (low & 15);
    }
    let dashes = [text[8], text[13], text[18], text[23]] == *b"----";
    (seen < 16 && dashes).then_some(bytes)
}

fn write_json(
    document: &Document<'_>,
    form: JsonForm,
    shape: &JsonShape,
    out: &mut Vec<u8>,
) -> Result<(), Misfit> {
    /// The only version of jsonb's binary form there is.
    const VERSION: u8 = 1;
    if inside(document).is_some() {
        return Err(Misfit::Inside);
    }
    with_length(out, |out| {
        if form == JsonForm::Binary {
            out.push(VERSION);
        }
        let start = out.len();
        match shape {
            JsonShape::Whole => document.write_json(out),
            JsonShape::Record(kind) => write_shaped(document, kind, out),
            JsonShape::Records(kind) => match document {
                Document::Array(elements) => write_elements(elements, kind, out),
                other => other.write_json(out),
            },
        }
        let text = &out[start..];
        match form {
            JsonForm::Varchar(limit) => {
                // Bytes that go on with a character are not counted.
                let characters = text.iter().filter(|byte| **byte & 0xc0 != 0x80).count();
                let limit = usize::try_from(limit).unwrap_or(usize::MAX);
                if characters > limit { Err(Misfit::TooLong) } else { Ok(()) }
            }
            JsonForm::Text | JsonForm::Binary => Ok(()),
        }
    })
}

/// Appends a document without the properties that the schema says to ignore.
fn write_shaped(document: &Document<'_>, kind: &Kind, out: &mut Vec<u8>) {
    let (Document::Object(object), Kind::Record(columns)) = (document, kind) else {
        return document.write_json(out);
    };
    out.push(b'{');
    let (mut first, mut guess) = (true, 0);
    for member in object.members() {
        let index = columns.position(member.name, guess);
        if index.is_none() && columns.is_ignored(member.name) {
            continue;
        }
        if !first {
            out.push(b',');
        }
        first = false;
        write_json_string(member.name, out);
        out.push(b':');
        match index.and_then(|index| columns.as_slice().get(index)) {
            Some(column) => {
                guess = index.map_or(0, |index| index + 1);
                match (&member.value, column.mode) {
                    (Document::Array(elements), Mode::Repeated) => {
                        write_elements(elements, &column.kind, out);
                    }
                    (value, _) => write_shaped(value, &column.kind, out),
                }
            }
            None => member.value.write_json(out),
        }
    }
    out.push(b'}');
}

fn write_elements(elements: &[Document<'_>], kind: &Kind, out: &mut Vec<u8>) {
    out.push(b'[');
    for (index, element) in elements.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        write_shaped(element, kind, out);
    }
    out.push(b']');
}

/// What PostgreSQL would refuse of a document itself, not of what it holds.
fn of_itself(document: &Document<'_>) -> Option<Misfit> {
    match document {
        Document::String(text) => memchr::memchr(0, text.as_bytes()).map(|_| Misfit::Nul),
        Document::Number(number) => {
            let literal = number.literal();
            // Only an exponent or very many digits lead out of a numeric, which is what jsonb keeps.
            let usual = literal.len() < 300 && !literal.bytes().any(|byte| matches!(byte, b'e' | b'E'));
            (!usual && !numeric::fits_unlimited(literal)).then_some(Misfit::OutOfRange)
        }
        Document::Null | Document::Bool(_) | Document::Array(_) | Document::Object(_) => None,
    }
}

/// What PostgreSQL would refuse of a document.
fn inside(document: &Document<'_>) -> Option<Misfit> {
    match document {
        Document::Array(elements) => elements.iter().find_map(inside),
        Document::Object(object) => object.members().iter().find_map(|member| {
            memchr::memchr(0, member.name.as_bytes()).map(|_| Misfit::Nul).or_else(|| inside(&member.value))
        }),
        other => of_itself(other),
    }
}

/// As [`inside`], and appends the way to the place to `path`. A name with NUL is told at its object.
fn find_inside(document: &Document<'_>, path: &mut String) -> Option<Misfit> {
    match document {
        Document::Array(elements) => elements.iter().enumerate().find_map(|(index, element)| {
            let misfit = find_inside(element, path)?;
            path.insert_str(0, &format!("/{index}"));
            Some(misfit)
        }),
        Document::Object(object) => object.members().iter().find_map(|member| {
            if member.name.contains('\0') {
                return Some(Misfit::Nul);
            }
            let misfit = find_inside(&member.value, path)?;
            path.insert_str(0, &pointer_part(member.name));
            Some(misfit)
        }),
        other => of_itself(other),
    }
}

/// A member's name as a part of a JSON pointer.
pub(crate) fn pointer_part(name: &str) -> String {
    format!("/{}", name.replace('~', "~0").replace('/', "~1"))
}
