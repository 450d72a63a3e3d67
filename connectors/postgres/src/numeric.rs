//! PostgreSQL's binary form of `numeric`, made of decimal literals, so that no value passes through a float.
//!
//! Four 16-bit words come first: the count of digits in base 10,000, the weight (the power of 10,000 of the first of
//! them), the sign, and the number of decimal digits that are shown behind the point; then the digits
//! (`numeric_recv` in <https://github.com/postgres/postgres/blob/REL_15_STABLE/src/backend/utils/adt/numeric.c>).

use std::cmp::Ordering;

/// Decimal digits in one digit of the wire form.
const GROUP: i64 = 4;

/// Decimal digits before the point that PostgreSQL keeps.
const MAX_WHOLE_DIGITS: i64 = 131_072;

/// Decimal digits behind the point that PostgreSQL keeps.
const MAX_FRACTION_DIGITS: i64 = 16_383;

const NEGATIVE: u16 = 0x4000;

/// Why a literal is no value of the column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Misfit {
    /// The text is no decimal number.
    NotANumber,
    /// More digits before the point than the column has.
    OutOfRange,
    /// More digits behind the point than the column has.
    TooFine,
}

/// What a column keeps of a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Digits {
    /// Decimal digits before the point.
    whole: i64,
    /// Decimal digits behind the point; below zero where the last digits before it must be zeros.
    fraction: i64,
    /// How many digits behind the point are shown.
    shown: Shown,
}

/// How many digits behind the point a number shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shown {
    /// As many as the column has.
    All(u16),
    /// As many as the literal has.
    AsWritten,
    /// No more than the value needs, so that equal values have equal bytes.
    Fewest,
}

impl Digits {
    /// Those of `numeric(precision, scale)` or of `numeric`; `canonical` gives equal values equal bytes.
    pub(crate) fn new(limits: Option<(u16, i16)>, canonical: bool) -> Self {
        match limits {
            Some((precision, scale)) => Self {
                whole: i64::from(precision) - i64::from(scale),
                fraction: i64::from(scale),
                shown: Shown::All(u16::try_from(scale).unwrap_or(0)),
            },
            None => Self {
                whole: MAX_WHOLE_DIGITS,
                fraction: MAX_FRACTION_DIGITS,
                shown: if canonical { Shown::Fewest } else { Shown::AsWritten },
            },
        }
    }
}

/// A decimal literal, taken apart.
struct Literal<'a> {
    negative: bool,
    /// Digits before the literal's point.
    before: &'a [u8],
    /// Digits behind it.
    behind: &'a [u8],
    exponent: i64,
}

impl<'a> Literal<'a> {
    /// Reads JSON's grammar of numbers.
    fn read(text: &'a str) -> Option<Self> {
        let bytes = text.as_bytes();
        let negative = bytes.first() == Some(&b'-');
        let rest = &bytes[usize::from(negative)..];
        let (before, rest) = split_digits(rest);
        if before.is_empty() || (before.len() > 1 && before[0] == b'0') {
            return None;
        }
        let (behind, rest) = match rest.split_first() {
            Some((b'.', rest)) => {
                let (behind, rest) = split_digits(rest);
                if behind.is_empty() {
                    return None;
                }
                (behind, rest)
            }
            _ => (&[][..], rest),
        };
        let exponent = match rest.split_first() {
            None => 0,
            Some((b'e' | b'E', rest)) => read_exponent(rest)?,
            Some(_) => return None,
        };
        Some(Self { negative, before, behind, exponent })
    }

    /// The digit at `index`, counted from the first one written; zero beyond both ends.
    fn digit(&self, index: i64) -> u16 {
        let Ok(index) = usize::try_from(index) else { return 0 };
        let byte = match index.checked_sub(self.before.len()) {
            None => self.before.get(index),
            Some(index) => self.behind.get(index),
        };
        byte.map_or(0, |byte| u16::from(byte - b'0'))
    }

    /// How many digits are written.
    fn len(&self) -> usize {
        self.before.len() + self.behind.len()
    }

    /// The first digit that is not zero, and the one behind the last.
    fn significant(&self) -> Option<(i64, i64)> {
        let all = || self.before.iter().chain(self.behind);
        let first = all().position(|byte| *byte != b'0')?;
        let zeros = self.behind.iter().rev().chain(self.before.iter().rev());
        let last = self.len() - zeros.take_while(|byte| **byte == b'0').count();
        i64::try_from(first).ok().zip(i64::try_from(last).ok())
    }
}

fn split_digits(bytes: &[u8]) -> (&[u8], &[u8]) {
    bytes.split_at(bytes.iter().take_while(|byte| byte.is_ascii_digit()).count())
}

/// An exponent, at most so far from zero that it is out of every range.
fn read_exponent(bytes: &[u8]) -> Option<i64> {
    const FAR: i64 = 1 << 40;
    let (negative, digits) = match bytes.split_first() {
        Some((b'-', digits)) => (true, digits),
        Some((b'+', digits)) => (false, digits),
        _ => (false, bytes),
    };
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let value = digits.iter().fold(0, |value: i64, digit| (value * 10 + i64::from(digit - b'0')).min(FAR));
    Some(if negative { -value } else { value })
}

/// Appends the wire form of a literal, without its length.
pub(crate) fn write(literal: &str, limits: Digits, out: &mut Vec<u8>) -> Result<(), Misfit> {
    let literal = Literal::read(literal).ok_or(Misfit::NotANumber)?;
    let length = |digits: &[u8]| i64::try_from(digits.len()).map_err(|_| Misfit::OutOfRange);
    // The digits that stand before the point once the exponent is gone.
    let point = length(literal.before)? + literal.exponent;
    let written = (length(literal.behind)? - literal.exponent).max(0);
    let Some((first, end)) = literal.significant() else {
        let shown = match limits.shown {
            Shown::All(scale) => scale,
            Shown::AsWritten => shown(written),
            Shown::Fewest => 0,
        };
        write_words([0, 0, 0, shown], out);
        return Ok(());
    };
    if point - first > limits.whole {
        return Err(Misfit::OutOfRange);
    }
    let fraction = end - point;
    if fraction > limits.fraction {
        return Err(Misfit::TooFine);
    }
    let shown = match limits.shown {
        Shown::All(scale) => scale,
        Shown::AsWritten => shown(written),
        Shown::Fewest => shown(fraction.max(0)),
    };
    // Groups of four are counted from the point: the first group holds `first`, the last one `end - 1`.
    let first_group = (first - point).div_euclid(GROUP);
    let last_group = (end - 1 - point).div_euclid(GROUP);
    let count = last_group - first_group + 1;
    let (Ok(count), Ok(weight)) = (u16::try_from(count), i16::try_from(-first_group - 1)) else {
        return Err(Misfit::OutOfRange);
    };
    let sign = if literal.negative { NEGATIVE } else { 0 };
    write_words([count, weight.cast_unsigned(), sign, shown], out);
    for group in first_group..=last_group {
        let start = point + group * GROUP;
        let digit = (start..start + GROUP).fold(0, |value, index| value * 10 + literal.digit(index));
        out.extend_from_slice(&digit.to_be_bytes());
    }
    Ok(())
}

/// Whether `text` follows JSON's grammar of numbers and fits a double.
pub(crate) fn is_number(text: &str) -> bool {
    Literal::read(text).is_some() && text.parse::<f64>().is_ok_and(f64::is_finite)
}

/// Whether `numeric_in` takes a literal where the column has no limits. It counts zeros at the end too.
pub(crate) fn fits_unlimited(literal: &str) -> bool {
    let Some(literal) = Literal::read(literal) else { return false };
    let (Ok(before), Ok(behind)) = (i64::try_from(literal.before.len()), i64::try_from(literal.behind.len()))
    else {
        return false;
    };
    let first = literal.significant().map_or(before, |(first, _)| first);
    before + literal.exponent - first <= MAX_WHOLE_DIGITS && behind - literal.exponent <= MAX_FRACTION_DIGITS
}

fn shown(digits: i64) -> u16 {
    u16::try_from(digits.min(MAX_FRACTION_DIGITS)).unwrap_or(0)
}

fn write_words(words: [u16; 4], out: &mut Vec<u8>) {
    for word in words {
        out.extend_from_slice(&word.to_be_bytes());
    }
}

/// Compares two values in wire form; `None` where the bytes are none.
pub(crate) fn compare(left: &[u8], right: &[u8]) -> Option<Ordering> {
    let (left, right) = (Wire::read(left)?, Wire::read(right)?);
    if left.sign() != right.sign() {
        return Some(left.sign().cmp(&right.sign()));
    }
    let magnitudes = left.weight.cmp(&right.weight).then_with(|| left.digits.cmp(right.digits));
    Some(if left.sign() < 0 { magnitudes.reverse() } else { magnitudes })
}

/// A value in wire form whose first and last digit are not zero.
struct Wire<'a> {
    weight: i16,
    negative: bool,
    digits: &'a [[u8; 2]],
}

impl<'a> Wire<'a> {
    fn read(bytes: &'a [u8]) -> Option<Self> {
        let (head, digits) = bytes.split_first_chunk::<8>()?;
        let (digits, odd) = digits.as_chunks();
        let word = |index: usize| u16::from_be_bytes([head[index], head[index + 1]]);
        let whole = odd.is_empty() && digits.len() == usize::from(word(0));
        whole.then(|| Self { weight: word(2).cast_signed(), negative: word(4) == NEGATIVE, digits })
    }

    fn sign(&self) -> i8 {
        match (self.digits.is_empty(), self.negative) {
            (true, _) => 0,
            (false, true) => -1,
            (false, false) => 1,
        }
    }
}

#[cfg(test)]
#[path = "numeric_tests.rs"]
mod tests;
