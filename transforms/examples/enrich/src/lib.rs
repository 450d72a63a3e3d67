//! Adds to records what a table in the config says.

use std::collections::BTreeMap;

use serde_json::Value;
use txconnect_transform::{Record, Result, bail, config, transform};

#[config]
struct Config {
    /// The field that is looked up.
    field: String,
    /// For each thing that the field may say, the members that the record gets.
    table: BTreeMap<String, BTreeMap<String, Value>>,
    /// Whether a record whose field is not in the table is a bad one; otherwise it stays as it is.
    #[serde(default)]
    required: bool,
}

#[transform]
fn enrich(mut record: Record, config: &Config) -> Result<Record> {
    record.edit(|value| {
        let key = value.get::<String>(&config.field)?;
        match key.and_then(|key| config.table.get(&key)) {
            Some(members) => members.iter().try_for_each(|(name, member)| value.set(name, member)),
            None if config.required => {
                bail!("not_in_table", "the field `{}` is not in the table", config.field)
            }
            None => Ok(()),
        }
    })?;
    Ok(record)
}
