//! Sends refunds to a table of their own: a record goes where rows of another topic go, by what one of its fields says.

use std::collections::BTreeMap;

use txconnect_transform::{Record, Result, config, transform};

#[config]
struct Config {
    /// The field that decides.
    field: String,
    /// What the field may say, and the topic that the record goes to then; with anything else it stays where it is. The
    /// pipeline file names these topics under `output.topics`.
    topics: BTreeMap<String, String>,
}

#[transform]
fn route_refunds(mut record: Record, config: &Config) -> Result<Record> {
    let kind = record.object()?.get::<String>(&config.field)?;
    if let Some(topic) = kind.and_then(|kind| config.topics.get(&kind)) {
        record.route(topic);
    }
    Ok(record)
}
