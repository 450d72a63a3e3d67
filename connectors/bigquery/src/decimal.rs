//! Decimal literals, checked and written digit by digit, so that no value passes through a float.

use txconnect_connector_api::Number;

/// Why a literal does not fit a decimal column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Misfit {
    /// The text is no decimal number.
    NotANumber,
    /// More digits before the point than the column has.
    OutOfRange,
    /// More digits behind the point than the column has.
    TooFine,
}

/// Appends `literal` to `out` without an exponent, if it has at most `whole` digits before and `scale`
/// digits behind the point. The value stays the same, digit for digit; zeros behind the last digit that the column has
/// are left out.
pub(crate) fn write(literal: &str, whole: u32, scale: u32, out: &mut Vec<u8>) -> Result<(), Misfit> {
    let unsigned = literal.strip_prefix('-').unwrap_or(literal);
    let (before, behind) = unsigned.split_once('.').unwrap_or((unsigned, ""));
    let plain = !before.is_empty()
        && before.bytes().chain(behind.bytes()).all(|byte| byte.is_ascii_digit())
        && (before == "0" || !before.starts_with('0'))
        && unsigned.contains('.') != behind.is_empty();
    if plain {
        if before != "0" && exceeds(before.len(), whole) {
            return Err(Misfit::OutOfRange);
        }
        let mut written = literal;
        if exceeds(behind.len(), scale) {
            let digits = behind.trim_end_matches('0').len();
            if exceeds(digits, scale) {
                return Err(Misfit::TooFine);
            }
            written = literal[..literal.len() - (behind.len() - digits)].trim_end_matches('.');
        }
        out.extend_from_slice(written.as_bytes());
        return Ok(());
    }
    if !is_json_number(literal) {
        return Err(Misfit::NotANumber);
    }
    let Some(decimal) = Number::from_literal(literal).decimal() else {
        return Err(Misfit::OutOfRange);
    };
    let digits = decimal.digits.as_bytes();
    // Digits before the point; not positive where the value is below one.
    let point = i64::try_from(digits.len()).unwrap_or(i64::MAX).saturating_add(decimal.exponent.into());
    if decimal.digits != "0" && point > i64::from(whole) {
        return Err(Misfit::OutOfRange);
    }
    if i64::from(decimal.exponent) < -i64::from(scale) {
        return Err(Misfit::TooFine);
    }
    if decimal.negative {
        out.push(b'-');
    }
    let Ok(point) = usize::try_from(point) else {
        out.extend_from_slice(b"0.");
        out.extend(std::iter::repeat_n(b'0', usize::try_from(-point).unwrap_or(0)));
        out.extend_from_slice(digits);
        return Ok(());
    };
    if point == 0 {
        out.extend_from_slice(b"0.");
        out.extend_from_slice(digits);
    } else if point >= digits.len() {
        out.extend_from_slice(digits);
        out.extend(std::iter::repeat_n(b'0', point - digits.len()));
    } else {
        out.extend_from_slice(&digits[..point]);
        out.push(b'.');
        out.extend_from_slice(&digits[point..]);
    }
    Ok(())
}

/// A decimal of at most 38 digits that [`write`] has taken, as a count of units of its last digit.
pub(crate) fn scaled(literal: &str, whole: u32, scale: u32) -> Result<i128, Misfit> {
    let mut text = Vec::new();
    write(literal, whole, scale, &mut text)?;
    let mut value: i128 = 0;
    let mut behind = None;
    for byte in text {
        match byte {
            b'0'..=b'9' => {
                let digit = i128::from(byte - b'0');
                value = value
                    .checked_mul(10)
                    .and_then(|value| value.checked_add(digit))
                    .ok_or(Misfit::OutOfRange)?;
                behind = behind.map(|count: u32| count + 1);
            }
            b'.' => behind = Some(0),
            _ => {}
        }
    }
    for _ in behind.unwrap_or(0)..scale {
        value = value.checked_mul(10).ok_or(Misfit::OutOfRange)?;
    }
    Ok(if literal.starts_with('-') { -value } else { value })
}

fn exceeds(digits: usize, limit: u32) -> bool {
    usize::try_from(limit).is_ok_and(|limit| digits > limit)
}

/// Whether `text` follows JSON's grammar of numbers.
pub(crate) fn is_json_number(text: &str) -> bool {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let unsigned = text.strip_prefix('-').unwrap_or(text);
    let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent.strip_prefix(['+', '-']).unwrap_or(exponent))),
        None => (unsigned, None),
    };
    let (before, behind) = match mantissa.split_once('.') {
        Some((before, behind)) => (before, Some(behind)),
        None => (mantissa, None),
    };
    digits(before)
        && (before == "0" || !before.starts_with('0'))
        && behind.is_none_or(digits)
        && exponent.is_none_or(digits)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn written(literal: &str, whole: u32, scale: u32) -> Result<String, Misfit> {
        let mut out = Vec::new();
        write(literal, whole, scale, &mut out).map(|()| String::from_utf8(out).unwrap())
    }

    #[test]
    fn literals_keep_their_digits_and_lose_their_exponent() {
        for (literal, text) in [
            ("0", "0"),
            ("-0", "-0"),
            ("12.50", "12.50"),
            ("1e2", "100"),
            ("1.5e-2", "0.015"),
            ("25e-2", "0.25"),
            ("-12345e-2", "-123.45"),
            ("0e99", "0"),
            ("1.000", "1.000"),
            ("1.000000", "1"),
            ("-0.2500000", "-0.25"),
            ("9999999.99", "9999999.99"),
        ] {
            assert_eq!(written(literal, 7, 3).as_deref(), Ok(text), "{literal}");
        }
    }

    #[test]
    fn what_does_not_fit_is_named_for_what_it_is() {
        for (literal, misfit) in [
            ("100000000", Misfit::OutOfRange),
            ("1e7", Misfit::OutOfRange),
            ("1e99999999999", Misfit::OutOfRange),
            ("0.0001", Misfit::TooFine),
            ("1e-300", Misfit::TooFine),
            ("", Misfit::NotANumber),
            ("-", Misfit::NotANumber),
            ("1.", Misfit::NotANumber),
            (".5", Misfit::NotANumber),
            ("01", Misfit::NotANumber),
            ("+1", Misfit::NotANumber),
            ("1,5", Misfit::NotANumber),
            ("NaN", Misfit::NotANumber),
            ("1e", Misfit::NotANumber),
        ] {
            assert_eq!(written(literal, 7, 3), Err(misfit), "{literal}");
        }
    }

    #[test]
    fn a_decimal_is_counted_in_units_of_its_last_digit() {
        for (literal, value) in [
            ("0", 0),
            ("-0.0", 0),
            ("1", 100),
            ("1.5", 150),
            ("-12.34", -1234),
            ("1e3", 100_000),
            ("99999999999999999999999999999999999e0", 9_999_999_999_999_999_999_999_999_999_999_999_900),
            ("-999999999999999999999999999999999999.99", -99_999_999_999_999_999_999_999_999_999_999_999_999),
        ] {
            assert_eq!(scaled(literal, 36, 2), Ok(value), "{literal}");
        }
        assert_eq!(scaled("0.001", 36, 2), Err(Misfit::TooFine));
        assert_eq!(scaled("1e40", 76, 2), Err(Misfit::OutOfRange));
    }

    proptest! {
        #[test]
        fn the_value_is_the_same_after_writing(literal in "-?(0|[1-9][0-9]{0,8})(\\.[0-9]{1,6})?([eE][+-]?[0-9]{1,2})?") {
            if let Ok(text) = written(&literal, 29, 9) {
                prop_assert!(is_json_number(&text), "{}", text);
                prop_assert!(!text.contains(['e', 'E']));
                prop_assert_eq!(
                    Number::from_literal(&text).decimal(),
                    Number::from_literal(&literal).decimal()
                );
            }
        }

        #[test]
        fn no_text_makes_the_check_panic(text in any::<String>(), whole in 0_u32..80, scale in 0_u32..40) {
            let _ = written(&text, whole, scale);
        }
    }
}
