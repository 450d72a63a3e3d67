//! Hides account numbers but for their last four characters.

use txconnect_transform::{Record, Result, config, transform};

#[config]
struct Config {
    /// The fields to mask; one that is not there is left alone.
    fields: Vec<String>,
}

#[transform]
fn mask_account(mut record: Record, config: &Config) -> Result<Record> {
    record.edit(|value| {
        for field in &config.fields {
            if let Some(account) = value.get::<String>(field)? {
                value.set(field, &masked(&account))?;
            }
        }
        Ok(())
    })?;
    Ok(record)
}

/// Letters and digits become `*`, but for the last four characters.
fn masked(account: &str) -> String {
    let shown = account.chars().count().saturating_sub(4);
    account
        .chars()
        .enumerate()
        .map(|(place, character)| if place < shown && character.is_alphanumeric() { '*' } else { character })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_four_characters_and_the_dashes_stay() {
        assert_eq!(masked("aad71e75-cde2-488e-a280-938ad5a104f2"), "********-****-****-****-********04f2");
        assert_eq!(masked("abc"), "abc");
    }
}
