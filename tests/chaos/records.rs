//! The records of a round: what record number `id` is follows from the number alone.

use crate::dice::mixed;

/// Every event has an id, and an account and a note that belong to it: columns of different records in one row would
/// show.
pub(crate) const SCHEMA: &str = r#"{
    "type": "object",
    "properties": { "id": { "type": "integer" }, "account": { "type": "integer" }, "note": { "type": "string" } },
    "required": ["id", "account", "note"],
    "additionalProperties": false
}"#;

/// The note that the sink is told to refuse. No log says it: values of records are not for logs.
pub(crate) const REFUSED: &str = "a-note-to-be-refused";

/// How many accounts there are: each has many records, which upserts take for versions of one row.
const ACCOUNTS: u64 = 20_000;

/// How much older than the record before it a record may say that it is.
const LATEST_MS: u64 = 2_000;

/// What a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Becomes a row.
    Good,
    /// Valid, but the sink refuses its row, where it can.
    Refused,
    /// No JSON.
    Broken,
    /// Not as the schema says.
    WrongType,
    /// Without a value.
    Tombstone,
}

impl Kind {
    pub(crate) fn of(id: u64) -> Self {
        match mixed(id) % 1000 {
            0 | 1 => Self::Broken,
            2 | 3 => Self::WrongType,
            4 => Self::Refused,
            5..=14 => Self::Tombstone,
            _ => Self::Good,
        }
    }
}

/// The account of a record. All records of an account that are in one topic are in one partition of it.
pub(crate) fn account(id: u64) -> u64 {
    mixed(id ^ 0xacc0) % ACCOUNTS
}

/// The partition of a record.
pub(crate) fn partition(id: u64, partitions: i32) -> i32 {
    let count = u64::try_from(partitions).unwrap();
    i32::try_from(mixed(account(id) ^ 0x9a27) % count).unwrap()
}

/// How much earlier than it is sent a record says that it came to be, in milliseconds.
pub(crate) fn lateness_ms(id: u64) -> u64 {
    mixed(id ^ 0x1a7e) % LATEST_MS
}

/// The key of a record: what upserts delete by, and what tells records without a readable value.
pub(crate) fn key(id: u64) -> String {
    format!("{{\"account\":{},\"id\":{id}}}", account(id))
}

/// The id in a key.
pub(crate) fn id_of(key: &[u8]) -> Option<u64> {
    serde_json::from_slice::<serde_json::Value>(key).ok()?["id"].as_u64()
}

/// The value of a record.
pub(crate) fn value(id: u64) -> Option<Vec<u8>> {
    match Kind::of(id) {
        Kind::Good | Kind::Refused => {
            let (account, note) = (account(id), note(id));
            Some(format!("{{\"id\":{id},\"account\":{account},\"note\":\"{note}\"}}").into_bytes())
        }
        Kind::Broken => Some(format!("{{\"id\":{id},").into_bytes()),
        Kind::WrongType => Some(format!("{{\"id\":\"{id}\",\"account\":0,\"note\":\"\"}}").into_bytes()),
        Kind::Tombstone => None,
    }
}

/// The note in a record.
pub(crate) fn note(id: u64) -> String {
    if Kind::of(id) == Kind::Refused {
        return REFUSED.to_owned();
    }
    let number = mixed(!id);
    let padding = usize::try_from(number % 160).unwrap();
    format!("{number:016x}{}", "-".repeat(padding))
}
