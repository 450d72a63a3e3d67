//! The ways of the widespread emulator (goccy/bigquery-emulator) where they differ from BigQuery's, so that a client can
//! be tested against what its users will run: insertAll inserts good rows beside bad ones whatever `skipInvalidRows`
//! says, forgets `insertId`, and answers a value of the wrong type with status 500.

use serde_json::{Map, Value as Json};

use super::exchange::Reply;
use super::insert_all::{Outcome, invalid};
use crate::store::table::NewRow;

/// What it keeps of a table resource.
const KNOWN: [&str; 4] = ["tableReference", "schema", "description", "labels"];

/// Drops what it does not know of a table: partitioning, clustering, constraints.
pub(super) fn keep_what_it_knows(resource: &mut Map<String, Json>) {
    resource.retain(|key, _| KNOWN.contains(&key.as_str()));
}

/// Good rows go in, rows with unknown or missing fields become insert errors, a wrong type fails the whole request.
pub(super) fn split(outcome: Outcome) -> Result<(Vec<NewRow>, Vec<Json>), Reply> {
    if outcome.bad.iter().flat_map(|(_, mismatches)| mismatches).any(|mismatch| mismatch.of_type) {
        return Err(Reply::Plain(500, "failed to convert value to the column's type\n".to_owned()));
    }
    let errors = outcome.bad.iter().map(|(index, mismatches)| invalid(*index, mismatches)).collect();
    let forget = |(_, row): (usize, NewRow)| NewRow { insert_id: None, ..row };
    Ok((outcome.good.into_iter().map(forget).collect(), errors))
}

/// Its answer to what it does not have.
pub(super) fn unsupported(what: &str) -> Reply {
    Reply::Plain(500, format!("unsupported: {what}\n"))
}
