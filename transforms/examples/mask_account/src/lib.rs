//! Hides account numbers: all but their last four characters, or, with a `salt`, behind a hash by which one account can
//! still be told from another.

use sha2::{Digest, Sha256};
use txconnect_transform::{Record, Result, config, transform};

#[config]
struct Config {
    /// The fields to mask; one that is not there is left alone.
    fields: Vec<String>,
    /// Where it is given, a field becomes 32 hexadecimal digits: the first half of the SHA-256 of the salt and the field.
    #[serde(default)]
    salt: Option<String>,
}

#[transform]
fn mask_account(mut record: Record, config: &Config) -> Result<Record> {
    record.edit(|value| {
        for field in &config.fields {
            if let Some(account) = value.get::<String>(field)? {
                match &config.salt {
                    Some(salt) => value.set(field, &hashed(&account, salt))?,
                    None => value.set(field, &masked(&account))?,
                }
            }
        }
        Ok(())
    })?;
    Ok(record)
}

/// Letters and digits become `*`, but for the last four characters.
fn masked(account: &str) -> String {
    let shown = account.chars().count().saturating_sub(4);
    let mut masked = String::with_capacity(account.len());
    masked.extend(account.chars().enumerate().map(|(place, character)| {
        if place < shown && character.is_alphanumeric() { '*' } else { character }
    }));
    masked
}

fn hashed(account: &str, salt: &str) -> String {
    let hash = Sha256::new().chain_update(salt).chain_update(account).finalize();
    let half = hash.iter().take(16);
    half.flat_map(|byte| [byte >> 4, byte & 15])
        .filter_map(|digit| char::from_digit(digit.into(), 16))
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

    #[test]
    fn a_hash_is_the_same_for_the_same_account_and_salt_alone() {
        // printf saltaccount | sha256sum
        assert_eq!(hashed("account", "salt"), "5d99e65200bc6001f55991b82d07c6dc");
        assert_ne!(hashed("account", "pepper"), hashed("account", "salt"));
        assert_ne!(hashed("another", "salt"), hashed("account", "salt"));
    }

    #[test]
    fn only_the_fields_of_the_config_are_masked() {
        let config = Config { fields: vec!["to".into(), "missing".into()], salt: None };
        let record = Record::for_test("cash_ins", r#"{"from":"12345678","to":"12345678","amount":1.10}"#);
        let masked = mask_account(record, &config).unwrap();
        assert_eq!(masked.value(), Some(&br#"{"from":"12345678","to":"****5678","amount":1.10}"#[..]));
    }
}
