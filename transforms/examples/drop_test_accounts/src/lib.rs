//! Leaves out what test accounts do.

use std::collections::BTreeSet;

use txconnect_transform::{Record, Result, config, counter, transform};

#[config]
struct Config {
    /// The accounts that are there for tests.
    accounts: BTreeSet<String>,
    /// The fields that may name one.
    #[serde(default = "account_fields")]
    fields: Vec<String>,
}

fn account_fields() -> Vec<String> {
    ["account_id", "counterparty_account_id"].map(str::to_owned).into()
}

#[transform]
fn drop_test_accounts(record: Record, config: &Config) -> Result<Option<Record>> {
    let value = record.object()?;
    for field in &config.fields {
        if value.get::<String>(field)?.is_some_and(|account| config.accounts.contains(&account)) {
            counter("of_test_accounts", 1);
            return Ok(None);
        }
    }
    Ok(Some(record))
}
