//! A JSON document that borrows from the record it was parsed from.
//!
//! Nodes are `Copy` and point into an arena that the decode stage resets for every record. Numbers keep
//! their literal, so that money never passes through a float.

use serde_json::Value as JsonValue;

/// One JSON value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Document<'a> {
    /// `null`
    Null,
    /// `true` or `false`
    Bool(bool),
    /// A number, as it was written.
    Number(Number<'a>),
    /// A string with its escapes resolved.
    String(&'a str),
    /// The elements of an array, in order.
    Array(&'a [Document<'a>]),
    /// The members of an object, in the order they were written.
    Object(Object<'a>),
}

/// A number literal in JSON's grammar.
///
/// Whoever makes one promises that the text follows JSON's grammar and that its magnitude fits a
/// double: the decode stage refuses literals such as `1e999`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Number<'a>(&'a str);

/// The members of a JSON object. No two share a name: the decode stage refuses duplicates.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Object<'a>(&'a [Member<'a>]);

/// One member of an object.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Member<'a> {
    /// The member's name with its escapes resolved.
    pub name: &'a str,
    /// The member's value.
    pub value: Document<'a>,
}

impl<'a> Document<'a> {
    /// What the value is, for messages: `null`, `boolean`, `number`, `string`, `array` or `object`.
    pub fn type_name(&self) -> &'static str {
        match self {
            Document::Null => "null",
            Document::Bool(_) => "boolean",
            Document::Number(_) => "number",
            Document::String(_) => "string",
            Document::Array(_) => "array",
            Document::Object(_) => "object",
        }
    }

    /// The object, if the value is one.
    pub fn as_object(&self) -> Option<Object<'a>> {
        match self {
            Document::Object(object) => Some(*object),
            _ => None,
        }
    }

    /// Appends the value as JSON text without white space. Number literals are kept as they were written.
    pub fn write_json(&self, out: &mut Vec<u8>) {
        match self {
            Document::Null => out.extend_from_slice(b"null"),
            Document::Bool(true) => out.extend_from_slice(b"true"),
            Document::Bool(false) => out.extend_from_slice(b"false"),
            Document::Number(number) => out.extend_from_slice(number.0.as_bytes()),
            Document::String(text) => write_json_string(text, out),
            Document::Array(elements) => {
                out.push(b'[');
                for (index, element) in elements.iter().enumerate() {
                    if index > 0 {
                        out.push(b',');
                    }
                    element.write_json(out);
                }
                out.push(b']');
            }
            Document::Object(object) => {
                out.push(b'{');
                for (index, member) in object.0.iter().enumerate() {
                    if index > 0 {
                        out.push(b',');
                    }
                    write_json_string(member.name, out);
                    out.push(b':');
                    member.value.write_json(out);
                }
                out.push(b'}');
            }
        }
    }

    /// An owned copy for cold paths. Numbers beyond 64-bit integers become doubles here.
    pub fn to_value(&self) -> JsonValue {
        match self {
            Document::Null => JsonValue::Null,
            Document::Bool(value) => JsonValue::Bool(*value),
            Document::Number(number) => JsonValue::Number(number.to_serde()),
            Document::String(text) => JsonValue::String((*text).to_owned()),
            Document::Array(elements) => elements.iter().map(Document::to_value).collect(),
            Document::Object(object) => JsonValue::Object(
                object.0.iter().map(|member| (member.name.to_owned(), member.value.to_value())).collect(),
            ),
        }
    }
}

/// Appends `text` as a JSON string with its quotes.
pub fn write_json_string(text: &str, out: &mut Vec<u8>) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    out.push(b'"');
    let bytes = text.as_bytes();
    let mut clean_from = 0;
    for (index, &byte) in bytes.iter().enumerate() {
        if byte >= 0x20 && byte != b'"' && byte != b'\\' {
            continue;
        }
        out.extend_from_slice(&bytes[clean_from..index]);
        clean_from = index + 1;
        match byte {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            other => {
                out.extend_from_slice(b"\\u00");
                out.push(HEX[usize::from(other >> 4)]);
                out.push(HEX[usize::from(other & 15)]);
            }
        }
    }
    out.extend_from_slice(&bytes[clean_from..]);
    out.push(b'"');
}

impl<'a> Object<'a> {
    /// Wraps members whose names are distinct.
    pub fn new(members: &'a [Member<'a>]) -> Self {
        Self(members)
    }

    /// The members in the order they were written.
    pub fn members(&self) -> &'a [Member<'a>] {
        self.0
    }

    /// The value of the member called `name`. Looks at every member: meant for small objects.
    pub fn get(&self, name: &str) -> Option<&'a Document<'a>> {
        self.0.iter().find(|member| member.name == name).map(|member| &member.value)
    }
}

/// More decimal digits than any column or 128-bit integer holds.
const MAX_INTEGER_DIGITS: usize = 38;

impl<'a> Number<'a> {
    /// Wraps a literal that follows JSON's number grammar and fits a double.
    pub fn from_literal(literal: &'a str) -> Self {
        Self(literal)
    }

    /// The number as it was written.
    pub fn literal(&self) -> &'a str {
        self.0
    }

    /// The value as a 64-bit integer, if it is one: `1.0` and `1e2` are integers too, `0.5` is not.
    pub fn as_i64(&self) -> Option<i64> {
        match self.0.parse::<i64>() {
            Ok(value) => Some(value),
            Err(_) => self.as_i128().and_then(|value| i64::try_from(value).ok()),
        }
    }

    /// The value as an unsigned 64-bit integer, if it is one.
    pub fn as_u64(&self) -> Option<u64> {
        match self.0.parse::<u64>() {
            Ok(value) => Some(value),
            Err(_) => self.as_i128().and_then(|value| u64::try_from(value).ok()),
        }
    }

    /// The value as an integer of at most 38 digits, if it is one.
    pub fn as_i128(&self) -> Option<i128> {
        let decimal = self.decimal()?;
        if decimal.exponent < 0 {
            return None;
        }
        let digits = decimal.digits.len().checked_add(usize::try_from(decimal.exponent).ok()?)?;
        if digits > MAX_INTEGER_DIGITS {
            return None;
        }
        let mut value: i128 = 0;
        for digit in decimal.digits.bytes() {
            value = value * 10 + i128::from(digit - b'0');
        }
        for _ in 0..decimal.exponent {
            value *= 10;
        }
        Some(if decimal.negative { -value } else { value })
    }

    /// Whether the value has no fraction, whatever its size and however it was written.
    pub fn is_integer(&self) -> bool {
        if !self.0.bytes().any(|byte| matches!(byte, b'.' | b'e' | b'E')) {
            return true;
        }
        self.decimal().is_some_and(|decimal| decimal.exponent >= 0)
    }

    /// The nearest double.
    pub fn as_f64(&self) -> f64 {
        self.0.parse().unwrap_or(f64::NAN)
    }

    /// The value as digits without leading or trailing zeros and a power of ten, or `None` where the
    /// exponent is beyond 32 bits.
    pub fn decimal(&self) -> Option<Decimal> {
        let (negative, text) = match self.0.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, self.0),
        };
        let (mantissa, exponent) = match text.split_once(['e', 'E']) {
            Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().ok()?),
            None => (text, 0),
        };
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let mut digits = String::with_capacity(whole.len() + fraction.len());
        digits.push_str(whole);
        digits.push_str(fraction);
        let mut exponent = exponent.checked_sub(i32::try_from(fraction.len()).ok()?)?;
        let kept = digits.trim_end_matches('0').len();
        exponent = exponent.checked_add(i32::try_from(digits.len() - kept).ok()?)?;
        digits.truncate(kept);
        let digits = digits.trim_start_matches('0').to_owned();
        if digits.is_empty() {
            return Some(Decimal { negative: false, digits: "0".to_owned(), exponent: 0 });
        }
        Some(Decimal { negative, digits, exponent })
    }

    /// An owned number for cold paths: exact for 64-bit integers, else the nearest double.
    pub fn to_serde(&self) -> serde_json::Number {
        if let Ok(value) = self.0.parse::<i64>() {
            return value.into();
        }
        if let Ok(value) = self.0.parse::<u64>() {
            return value.into();
        }
        serde_json::Number::from_f64(self.as_f64()).unwrap_or_else(|| 0.into())
    }
}

/// A number as `±digits × 10^exponent`; `digits` has no leading or trailing zeros and zero is `0`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decimal {
    /// Whether the value is below zero.
    pub negative: bool,
    /// Decimal digits, at least one.
    pub digits: String,
    /// The power of ten of the last digit.
    pub exponent: i32,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn integers_are_recognised_however_they_are_written() {
        for (literal, value) in [
            ("0", Some(0)),
            ("-0", Some(0)),
            ("1.0", Some(1)),
            ("1e2", Some(100)),
            ("120e-1", Some(12)),
            ("-9223372036854775808", Some(i64::MIN)),
            ("9223372036854775807.0", Some(i64::MAX)),
            ("9223372036854775808", None),
            ("0.5", None),
            ("1e-1", None),
            ("1e300", None),
            ("1e-99999999999", None),
            ("0e99999999999", None),
        ] {
            assert_eq!(Number::from_literal(literal).as_i64(), value, "{literal}");
        }
    }

    #[test]
    fn strings_are_escaped_as_json_wants_it() {
        let mut out = Vec::new();
        Document::String("a\"b\\c\n\r\t\u{1}\u{7f}é").write_json(&mut out);
        assert_eq!(String::from_utf8(out).unwrap(), "\"a\\\"b\\\\c\\n\\r\\t\\u0001\u{7f}é\"");
    }

    proptest! {
        #[test]
        fn every_string_survives_a_round_trip_through_json(text in any::<String>()) {
            let mut out = Vec::new();
            write_json_string(&text, &mut out);
            prop_assert_eq!(serde_json::from_slice::<String>(&out).unwrap(), text);
        }

        #[test]
        fn every_integer_is_read_back_exactly(value in any::<i64>(), zeros in 0_usize..5) {
            let literal = format!("{value}.{}0", "0".repeat(zeros));
            prop_assert_eq!(Number::from_literal(&literal).as_i64(), Some(value));
            prop_assert!(Number::from_literal(&literal).is_integer());
        }

        #[test]
        fn a_decimal_has_the_value_of_its_literal(mantissa in -1_000_000_i64..1_000_000, exponent in -20_i32..20) {
            let literal = format!("{mantissa}e{exponent}");
            let decimal = Number::from_literal(&literal).decimal().unwrap();
            let sign = if decimal.negative { "-" } else { "" };
            let again = format!("{sign}{}e{}", decimal.digits, decimal.exponent);
            prop_assert_eq!(again.parse::<f64>().unwrap().to_bits(), literal.parse::<f64>().unwrap().to_bits());
        }
    }
}
