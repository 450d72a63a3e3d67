//! NUMERIC and BIGNUMERIC text: exact decimals, never through a float.

/// How large a decimal column's numbers may be: the digits before and after the point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Limits {
    /// Digits before the point.
    pub(crate) integer_digits: usize,
    /// Digits after the point; more are rounded half away from zero.
    pub(crate) scale: usize,
}

/// NUMERIC without parameters: precision 38, scale 9.
pub(crate) const NUMERIC: Limits = Limits { integer_digits: 29, scale: 9 };
/// BIGNUMERIC without parameters: 76 digits and part of a 77th, scale 38.
pub(crate) const BIGNUMERIC: Limits = Limits { integer_digits: 39, scale: 38 };

/// The largest magnitude of a BIGNUMERIC with 39 digits before and 38 after the point, without the point: 2^255 − 1.
const BIGNUMERIC_MAX: &[u8] =
    b"57896044618658097711785492504343953926634992332820282019728792003956564819967";

/// The longest text read as a decimal, in bytes. Far above any number that fits.
const LONGEST: usize = 512;

/// The normal form of a decimal (`-12.5`, no exponent, no trailing zeros), or `None` where the text is no decimal or out
/// of range.
pub(crate) fn normalise(text: &str, limits: Limits) -> Option<String> {
    let text = text.trim();
    if text.len() > LONGEST {
        return None;
    }
    let (negative, rest) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    let (mantissa, exponent) = match rest.find(['e', 'E']) {
        Some(at) => (&rest[..at], rest[at + 1..].parse::<i32>().ok()?),
        None => (rest, 0),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let mut digits: Vec<u8> = whole.bytes().chain(fraction.bytes()).collect();
    if !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let leading = digits.iter().take_while(|digit| **digit == b'0').count();
    digits.drain(..leading);
    if digits.is_empty() {
        return Some("0".to_owned());
    }
    // Where the point stands in `digits`: negative when zeros come between the point and the first digit.
    let point = i64::try_from(whole.len()).ok()? - i64::try_from(leading).ok()? + i64::from(exponent);
    let (whole, fraction) = place(&digits, point, limits)?;
    Some(write(negative, &whole, &fraction))
}

/// Splits digits at the point, padded with zeros and rounded to the scale. `None` when too large.
fn place(digits: &[u8], point: i64, limits: Limits) -> Option<(Vec<u8>, Vec<u8>)> {
    let too_many = i64::try_from(limits.integer_digits).ok()?;
    if point > too_many {
        return None;
    }
    let mut whole = Vec::with_capacity(limits.integer_digits + 1);
    let mut fraction = Vec::with_capacity(limits.scale);
    let digit =
        |index: i64| usize::try_from(index).ok().and_then(|at| digits.get(at)).copied().unwrap_or(b'0');
    for index in 0..point.max(0) {
        whole.push(digit(index));
    }
    let scale = i64::try_from(limits.scale).ok()?;
    for index in point..point.saturating_add(scale) {
        fraction.push(digit(index));
    }
    if digit(point.saturating_add(scale)) >= b'5' {
        round_up(&mut whole, &mut fraction);
    }
    if whole.len() > limits.integer_digits || exceeds_bignumeric(&whole, &fraction, limits) {
        return None;
    }
    Some((whole, fraction))
}

fn round_up(whole: &mut Vec<u8>, fraction: &mut [u8]) {
    for digit in fraction.iter_mut().rev().chain(whole.iter_mut().rev()) {
        if *digit < b'9' {
            *digit += 1;
            return;
        }
        *digit = b'0';
    }
    whole.insert(0, b'1');
}

fn exceeds_bignumeric(whole: &[u8], fraction: &[u8], limits: Limits) -> bool {
    limits == BIGNUMERIC
        && whole.len() == limits.integer_digits
        && whole.iter().chain(fraction).gt(BIGNUMERIC_MAX.iter())
}

fn write(negative: bool, whole: &[u8], fraction: &[u8]) -> String {
    let kept = fraction.iter().rposition(|digit| *digit != b'0').map_or(0, |last| last + 1);
    let zero = kept == 0 && whole.iter().all(|digit| *digit == b'0');
    let mut text = String::with_capacity(whole.len() + kept + 3);
    if negative && !zero {
        text.push('-');
    }
    if whole.is_empty() {
        text.push('0');
    }
    text.extend(whole.iter().map(|digit| char::from(*digit)));
    if kept > 0 {
        text.push('.');
        text.extend(fraction[..kept].iter().map(|digit| char::from(*digit)));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn numeric(text: &str) -> Option<String> {
        normalise(text, NUMERIC)
    }

    #[test]
    fn a_decimal_keeps_its_digits_and_loses_its_decoration() {
        assert_eq!(numeric("+012.500").as_deref(), Some("12.5"));
        assert_eq!(numeric("-0.000").as_deref(), Some("0"));
        assert_eq!(numeric(".5").as_deref(), Some("0.5"));
        assert_eq!(numeric("5.").as_deref(), Some("5"));
        assert_eq!(numeric("1.25e3").as_deref(), Some("1250"));
        assert_eq!(numeric("125E-4").as_deref(), Some("0.0125"));
        assert_eq!(numeric("0.1").as_deref(), Some("0.1"));
    }

    #[test]
    fn more_digits_than_the_scale_are_rounded_half_away_from_zero() {
        assert_eq!(numeric("1.0000000005").as_deref(), Some("1.000000001"));
        assert_eq!(numeric("-1.0000000005").as_deref(), Some("-1.000000001"));
        assert_eq!(numeric("1.00000000049").as_deref(), Some("1"));
        assert_eq!(numeric("9.9999999999").as_deref(), Some("10"));
        assert_eq!(numeric("-0.0000000001").as_deref(), Some("0"));
    }

    #[test]
    fn the_range_ends_at_the_last_representable_number() {
        let most = "99999999999999999999999999999.999999999";
        assert_eq!(numeric(most).as_deref(), Some(most));
        assert_eq!(numeric("99999999999999999999999999999.9999999999"), None);
        assert_eq!(numeric("100000000000000000000000000000"), None);
        let most = "578960446186580977117854925043439539266.34992332820282019728792003956564819967";
        assert_eq!(normalise(most, BIGNUMERIC).as_deref(), Some(most));
        let above = "578960446186580977117854925043439539266.34992332820282019728792003956564819968";
        assert_eq!(normalise(above, BIGNUMERIC), None);
    }

    #[test]
    fn what_is_no_decimal_is_refused() {
        for text in ["", "-", ".", "abc", "1.2.3", "1e", "1e999999999999", "0x10", "NaN", "1e2147483647", "٣"]
        {
            assert_eq!(numeric(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic_and_the_normal_form_is_stable(text in "[-+0-9.eE]{0,60}|.{0,20}") {
            for limits in [NUMERIC, BIGNUMERIC] {
                if let Some(normal) = normalise(&text, limits) {
                    prop_assert_eq!(normalise(&normal, limits), Some(normal));
                }
            }
        }

        #[test]
        fn an_integer_comes_back_as_it_is(number: i64) {
            prop_assert_eq!(numeric(&number.to_string()), Some(number.to_string()));
        }
    }
}
