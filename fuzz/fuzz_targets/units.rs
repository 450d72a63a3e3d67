//! Any text as a size, a duration and a number.

#![no_main]

use bumpalo::Bump;
use libfuzzer_sys::{Corpus, fuzz_target};
use txconnect::stages::decode::parse;
use txconnect_connector_api::{ByteSize, Document, HumanDuration, Number};

/// Whether the digits of a decimal, shifted by its exponent, are those of the integer.
fn is_integer_of(number: Number<'_>, value: i128) -> bool {
    let text = value.to_string();
    Number::from_literal(&text).decimal() == number.decimal()
}

fn check_number(number: Number<'_>) {
    if let Some(value) = number.as_i128() {
        assert!(number.is_integer() && is_integer_of(number, value), "{number:?}");
    }
    if let Some(value) = number.as_i64() {
        assert_eq!(number.as_i128(), Some(value.into()));
    }
    if let Some(value) = number.as_u64() {
        assert_eq!(number.as_i128(), Some(value.into()));
    }
    let double = number.as_f64();
    assert!(double.is_finite(), "{number:?}");
    let _ = number.to_serde();
    let Some(decimal) = number.decimal() else { return };
    assert!(decimal.digits == "0" || !decimal.digits.starts_with('0') && !decimal.digits.ends_with('0'));
    assert_eq!(number.is_integer(), decimal.exponent >= 0, "{number:?}");
    let sign = if decimal.negative { "-" } else { "" };
    let again = format!("{sign}{}e{}", decimal.digits, decimal.exponent);
    assert_eq!(again.parse::<f64>(), Ok(double), "{again} is not {number:?}");
}

fuzz_target!(|text: &str| -> Corpus {
    if text.len() > 2_000 {
        return Corpus::Reject;
    }
    if let Ok(size) = text.parse::<ByteSize>() {
        assert_eq!(size.to_string().parse(), Ok(size));
    }
    if let Ok(duration) = text.parse::<HumanDuration>() {
        assert_eq!(duration.to_string().parse(), Ok(duration));
    }
    let arena = Bump::new();
    if let Ok(Document::Number(number)) = parse(text, &arena) {
        check_number(number);
    }
    Corpus::Keep
});
