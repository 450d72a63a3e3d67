//! The records of a round: what record number `id` is follows from the number alone.

use crate::dice::mixed;

/// Every event has an id and a note that belongs to it: columns of different records in one row would show.
pub(crate) const SCHEMA: &str = r#"{
    "type": "object",
    "properties": { "id": { "type": "integer" }, "note": { "type": "string" } },
    "required": ["id", "note"],
    "additionalProperties": false
}"#;

/// The note that the sink is told to refuse. No log says it: values of records are not for logs.
pub(crate) const REFUSED: &str = "a-note-to-be-refused";

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

/// The value of a record; every record has its id as the key.
pub(crate) fn value(id: u64) -> Option<Vec<u8>> {
    match Kind::of(id) {
        Kind::Good | Kind::Refused => Some(format!("{{\"id\":{id},\"note\":\"{}\"}}", note(id)).into_bytes()),
        Kind::Broken => Some(format!("{{\"id\":{id},").into_bytes()),
        Kind::WrongType => Some(format!("{{\"id\":\"{id}\",\"note\":\"\"}}").into_bytes()),
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
