//! Turns whole cents into decimals, digit by digit: no amount passes through a float, and none is too large.

use txconnect_transform::{Record, Result, bail, config, transform};

#[config]
struct Config {
    /// The fields that hold cents; one that is not there is left alone.
    fields: Vec<String>,
    /// How many digits stand behind the point.
    #[serde(default = "two")]
    #[schemars(range(max = 38))]
    scale: usize,
    /// Whether the decimal is a text, `"3122.21"`, for those who would read a number as a float.
    #[serde(default)]
    text: bool,
}

fn two() -> usize {
    2
}

#[transform]
fn cents_to_decimal(mut record: Record, config: &Config) -> Result<Record> {
    record.edit(|value| {
        for field in &config.fields {
            let Some(cents) = value.raw(field).filter(|cents| *cents != "null") else { continue };
            match decimal(cents, config.scale) {
                Some(decimal) if config.text => value.set(field, &decimal)?,
                Some(decimal) => value.set_raw(field, decimal)?,
                None => bail!("not_whole", "the field `{field}` is no whole number of cents"),
            }
        }
        Ok(())
    })?;
    Ok(record)
}

/// `-5` becomes `-0.05`. Only a whole number does, though it may be written `5.0`.
fn decimal(cents: &str, scale: usize) -> Option<String> {
    let whole = match cents.split_once('.') {
        Some((whole, fraction)) if fraction.bytes().all(|digit| digit == b'0') => whole,
        Some(_) => return None,
        None => cents,
    };
    let digits = whole.trim_start_matches('-');
    if digits.is_empty() || !digits.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    let sign = if whole.len() > digits.len() { "-" } else { "" };
    let digits = format!("{digits:0>width$}", width = scale + 1);
    let (units, rest) = digits.split_at_checked(digits.len() - scale)?;
    Some(if scale == 0 { format!("{sign}{units}") } else { format!("{sign}{units}.{rest}") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cent_is_kept() {
        for (cents, scale, text) in [
            ("0", 2, "0.00"),
            ("7", 2, "0.07"),
            ("312221", 2, "3122.21"),
            ("-5", 2, "-0.05"),
            ("5.0", 2, "0.05"),
            ("123456789012345678901234567890", 4, "12345678901234567890123456.7890"),
            ("12", 0, "12"),
        ] {
            assert_eq!(decimal(cents, scale).as_deref(), Some(text));
        }
        for cents in ["1.5", "1e3", "true", "\"1\"", "-", "[1]", "1.0e3"] {
            assert_eq!(decimal(cents, 2), None, "{cents}");
        }
    }

    #[test]
    fn what_is_no_whole_number_fails_with_its_field_and_without_its_value() {
        let config = Config { fields: vec!["amount".into()], scale: 2, text: false };
        let error = cents_to_decimal(Record::for_test("cash_ins", r#"{"amount":1.5}"#), &config).unwrap_err();
        assert_eq!(error.to_string(), "not_whole: the field `amount` is no whole number of cents");
        let decimal = cents_to_decimal(Record::for_test("cash_ins", r#"{"amount":150}"#), &config).unwrap();
        assert_eq!(decimal.value(), Some(&br#"{"amount":1.50}"#[..]));
    }
}
