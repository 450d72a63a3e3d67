//! Turns whole cents into decimal numbers, digit by digit: no amount passes through a float.

use txconnect_transform::{Record, Result, config, transform};

#[config]
struct Config {
    /// The fields that hold cents; one that is not there is left alone.
    fields: Vec<String>,
}

#[transform]
fn cents_to_decimal(mut record: Record, config: &Config) -> Result<Record> {
    record.edit(|value| {
        for field in &config.fields {
            if let Some(cents) = value.get::<i64>(field)? {
                value.set_raw(field, decimal(cents))?;
            }
        }
        Ok(())
    })?;
    Ok(record)
}

/// `-5` becomes `-0.05`.
fn decimal(cents: i64) -> String {
    let sign = if cents < 0 { "-" } else { "" };
    let cents = cents.unsigned_abs();
    format!("{sign}{}.{:02}", cents / 100, cents % 100)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cent_is_kept() {
        for (cents, text) in [
            (0, "0.00"),
            (7, "0.07"),
            (312_221, "3122.21"),
            (-5, "-0.05"),
            (i64::MIN, "-92233720368547758.08"),
        ] {
            assert_eq!(decimal(cents), text);
        }
    }
}
