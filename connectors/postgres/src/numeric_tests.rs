use std::fmt::Write as _;

use proptest::prelude::*;
use txconnect_connector_api::Number;

use super::*;

fn written(literal: &str, limits: Option<(u16, i16)>, canonical: bool) -> Result<Vec<u8>, Misfit> {
    let mut out = Vec::new();
    write(literal, Digits::new(limits, canonical), &mut out).map(|()| out)
}

/// The wire form as PostgreSQL would print it.
fn printed(bytes: &[u8]) -> String {
    let words: Vec<u16> = bytes.as_chunks().0.iter().map(|word| u16::from_be_bytes(*word)).collect();
    let (count, weight, sign, shown) =
        (usize::from(words[0]), words[1].cast_signed(), words[2], usize::from(words[3]));
    let digits = &words[4..];
    assert_eq!(digits.len(), count);
    assert!(digits.iter().all(|digit| *digit < 10_000));
    let group = |power: i64| {
        let index = usize::try_from(i64::from(weight) - power).ok();
        index.and_then(|index| digits.get(index)).copied().unwrap_or(0)
    };
    let groups = |mut powers: std::ops::RangeInclusive<i64>| {
        let mut text = String::new();
        while let Some(power) = powers.next_back() {
            write!(text, "{:04}", group(power)).unwrap();
        }
        text
    };
    let whole = groups(0..=i64::from(weight).max(0));
    let whole = whole.trim_start_matches('0');
    let fraction = groups(-i64::try_from(shown).unwrap() / 4 - 1..=-1);
    let mut text = String::new();
    text.push_str(if sign == NEGATIVE { "-" } else { "" });
    text.push_str(if whole.is_empty() { "0" } else { whole });
    if shown > 0 {
        text.push('.');
        text.push_str(&fraction[..shown]);
    }
    text
}

#[test]
fn literals_become_what_postgres_prints() {
    for (literal, limits, text) in [
        ("0", None, "0"),
        ("-0", None, "0"),
        ("0.00", None, "0.00"),
        ("12.50", None, "12.50"),
        ("1e2", None, "100"),
        ("1.5e-2", None, "0.015"),
        ("12345678901234567890.00001", None, "12345678901234567890.00001"),
        ("-12345e-2", None, "-123.45"),
        ("10000", None, "10000"),
        ("9999.9999", None, "9999.9999"),
        ("0e99", None, "0"),
        ("1e300", None, &format!("1{}", "0".repeat(300))),
        ("12.5", Some((18, 2)), "12.50"),
        ("12.5000", Some((18, 2)), "12.50"),
        ("0", Some((18, 2)), "0.00"),
        ("1200", Some((3, -2)), "1200"),
        ("0.001", Some((2, 4)), "0.0010"),
    ] {
        assert_eq!(printed(&written(literal, limits, false).unwrap()), text, "{literal}");
    }
}

#[test]
fn what_does_not_fit_is_named_for_what_it_is() {
    for (literal, limits, misfit) in [
        ("1e16", Some((18, 2)), Misfit::OutOfRange),
        ("12345678901234567.1", Some((18, 2)), Misfit::OutOfRange),
        ("0.001", Some((18, 2)), Misfit::TooFine),
        ("1250", Some((3, -2)), Misfit::TooFine),
        ("0.01", Some((2, 4)), Misfit::OutOfRange),
        ("1e131072", None, Misfit::OutOfRange),
        ("1e99999999999999999999", None, Misfit::OutOfRange),
        ("1e-16384", None, Misfit::TooFine),
        ("", None, Misfit::NotANumber),
        ("-", None, Misfit::NotANumber),
        ("1.", None, Misfit::NotANumber),
        (".5", None, Misfit::NotANumber),
        ("01", None, Misfit::NotANumber),
        ("+1", None, Misfit::NotANumber),
        ("1,5", None, Misfit::NotANumber),
        ("NaN", None, Misfit::NotANumber),
        ("1e", None, Misfit::NotANumber),
        ("1 ", None, Misfit::NotANumber),
    ] {
        assert_eq!(written(literal, limits, false), Err(misfit), "{literal}");
    }
    assert!(written("9e131071", None, false).is_ok());
}

fn decimal(text: &str) -> txconnect_connector_api::document::Decimal {
    Number::from_literal(text).decimal().unwrap()
}

const LITERAL: &str = "-?(0|[1-9][0-9]{0,12})(\\.[0-9]{1,9})?([eE][+-]?[0-9]{1,2})?";

proptest! {
    #[test]
    fn the_value_is_the_same_after_printing(literal in LITERAL) {
        let text = printed(&written(&literal, None, false).unwrap());
        prop_assert_eq!(decimal(&text), decimal(&literal), "{}", text);
        // Digits that were written behind the point are shown, zeros too.
        if !literal.contains(['e', 'E']) && decimal(&literal).digits != "0" {
            prop_assert_eq!(text, literal);
        }
    }

    #[test]
    fn a_column_takes_exactly_the_values_that_it_has(
        literal in LITERAL, (precision, scale) in (1_u16..20, -3_i16..20)
    ) {
        let value = decimal(&literal);
        let zero = value.digits == "0";
        let length = i32::try_from(value.digits.len()).unwrap();
        let fits_before = zero || length + value.exponent <= i32::from(precision) - i32::from(scale);
        let fits_behind = zero || -value.exponent <= i32::from(scale);
        match written(&literal, Some((precision, scale)), false) {
            Ok(bytes) => {
                let text = printed(&bytes);
                prop_assert!(fits_before && fits_behind);
                prop_assert_eq!(decimal(&text), value);
                let behind = text.split_once('.').map_or(0, |(_, behind)| behind.len());
                prop_assert_eq!(behind, usize::try_from(scale.max(0)).unwrap());
            }
            Err(Misfit::OutOfRange) => prop_assert!(!fits_before),
            Err(misfit) => {
                prop_assert_eq!(misfit, Misfit::TooFine);
                prop_assert!(!fits_behind);
            }
        }
    }

    #[test]
    fn equal_values_of_a_key_have_equal_bytes_and_the_order_is_that_of_the_values(
        left in "-?[0-9]{1,6}", right in "-?[0-9]{1,6}", zeros in 0_usize..6, limited in any::<bool>()
    ) {
        let (left, right): (i64, i64) = (left.parse().unwrap(), right.parse().unwrap());
        let limits = limited.then_some((20, 6));
        let plain = written(&format!("{left}e-3"), limits, true).unwrap();
        let padded = written(&format!("{left}.{}e-3", "0".repeat(zeros + 1)), limits, true).unwrap();
        prop_assert_eq!(&plain, &padded);
        let other = written(&format!("{right}e-3"), limits, true).unwrap();
        prop_assert_eq!(compare(&plain, &other), Some(left.cmp(&right)));
    }

    #[test]
    fn no_text_makes_the_writer_panic(text in any::<String>(), precision in 0_u16..1001, scale in -1000_i16..1001) {
        let _ = written(&text, Some((precision, scale)), false);
        let _ = written(&text, None, true);
    }

    #[test]
    fn no_bytes_make_the_comparison_panic(left in prop::collection::vec(any::<u8>(), 0..20), right in prop::collection::vec(any::<u8>(), 0..20)) {
        let _ = compare(&left, &right);
    }
}
