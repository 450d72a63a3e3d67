//! Hides the fields that the pipeline file names, but for their last characters.

use txconnect_transform::{Record, Result, config, transform};

/// What may stand below `config:` in a pipeline file. Whoever writes something else is told so before anything runs.
#[config]
struct Config {
    /// The fields to hide; one that is not there is left alone.
    fields: Vec<String>,
    /// How many characters stay.
    #[serde(default = "four")]
    keep: usize,
}

fn four() -> usize {
    4
}

#[transform]
fn hide(mut record: Record, config: &Config) -> Result<Record> {
    record.edit(|value| {
        for field in &config.fields {
            if let Some(text) = value.get::<String>(field)? {
                value.set(field, &hidden(&text, config.keep))?;
            }
        }
        Ok(())
    })?;
    Ok(record)
}

/// Letters and digits become `*`, but for the last `keep` characters.
fn hidden(text: &str, keep: usize) -> String {
    let shown = text.chars().count().saturating_sub(keep);
    text.chars()
        .enumerate()
        .map(|(place, character)| if place < shown && character.is_alphanumeric() { '*' } else { character })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_named_fields_are_hidden_and_everything_else_stays() {
        let config = Config { fields: vec!["account".to_owned()], keep: 4 };
        let record = Record::for_test("payments", r#"{"account":"12-345678","amount":10.50}"#);
        let hidden = hide(record, &config).unwrap();
        assert_eq!(hidden.value(), Some(&br#"{"account":"**-**5678","amount":10.50}"#[..]));
    }
}
