//! What the text of a plain scalar means.

use serde_json::{Number, Value};

/// The value of a plain scalar by YAML 1.2's core schema (<https://yaml.org/spec/1.2.2/#1032-tag-resolution>).
/// Infinities and NaN, which JSON has no word for, stay text.
pub(super) fn typed(text: &str) -> Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Value::Null,
        "true" | "True" | "TRUE" => return Value::Bool(true),
        "false" | "False" | "FALSE" => return Value::Bool(false),
        _ => {}
    }
    number(text).map_or_else(|| Value::String(text.to_owned()), Value::Number)
}

fn number(text: &str) -> Option<Number> {
    let radix = |digits: &str, radix| {
        let legal = !digits.is_empty() && digits.chars().all(|c| c.is_digit(radix));
        legal.then(|| u64::from_str_radix(digits, radix).ok()).flatten().map(Number::from)
    };
    if let Some(digits) = text.strip_prefix("0o") {
        return radix(digits, 8);
    }
    if let Some(digits) = text.strip_prefix("0x") {
        return radix(digits, 16);
    }
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    if !unsigned.is_empty() && unsigned.bytes().all(|byte| byte.is_ascii_digit()) {
        if let Ok(integer) = text.parse::<i64>() {
            return Some(integer.into());
        }
        if let Ok(integer) = text.parse::<u64>() {
            return Some(integer.into());
        }
    }
    let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent.strip_prefix(['-', '+']).unwrap_or(exponent))),
        None => (unsigned, None),
    };
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let legal = digits(whole)
        && digits(fraction)
        && !(whole.is_empty() && fraction.is_empty())
        && exponent.is_none_or(|exponent| !exponent.is_empty() && digits(exponent));
    if legal { text.parse().ok().and_then(Number::from_f64) } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn words_and_numbers_are_what_the_core_schema_says() {
        let cases = [
            ("~", json!(null)),
            ("", json!(null)),
            ("True", json!(true)),
            ("FALSE", json!(false)),
            ("+12", json!(12)),
            ("-0", json!(0)),
            ("0o17", json!(15)),
            ("0xfF", json!(255)),
            ("18446744073709551615", json!(u64::MAX)),
            (".5", json!(0.5)),
            ("1e3", json!(1000.0)),
            ("-1.5E-1", json!(-0.15)),
        ];
        for (text, value) in cases {
            assert_eq!(typed(text), value, "{text}");
        }
        for text in
            ["yes", "no", "on", "1_000", "0b1", "1.2.3", ".", "e3", "1e", "-", "0x", ".inf", ".nan", "1e999"]
        {
            assert_eq!(typed(text), json!(text));
        }
    }

    proptest! {
        #[test]
        fn numbers_keep_their_value(integer: i64, float in -1e300_f64..1e300) {
            prop_assert_eq!(typed(&integer.to_string()), json!(integer));
            prop_assert_eq!(typed(&format!("{float:e}")), json!(float));
        }

        #[test]
        fn no_text_makes_the_typing_panic(text in "[-+.0-9eExo_a-f~é]{0,12}") {
            let _ = typed(&text);
        }
    }
}
