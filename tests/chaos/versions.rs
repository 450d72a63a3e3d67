//! Upserts: which record of an account is the one whose row should be in the table.

use std::collections::HashMap;

use crate::kafka::Partition;
use crate::plan::{IntoBigQuery, NewestBy, Target, Way};
use crate::records::{self, Kind};

/// Where a record is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub(crate) partition: Partition,
    pub(crate) offset: i64,
    /// The record's time in Kafka, in milliseconds.
    pub(crate) timestamp: i64,
}

/// Which records' rows should be in the tables in the end, by id: one for each account of a topic, and none where the
/// account was deleted last. `None`: rows have no versions here.
pub(crate) fn newest(target: Target, places: &[Option<Place>]) -> Option<Vec<bool>> {
    let Target::BigQuery(setting @ IntoBigQuery { way: Way::Upsert, .. }) = target else { return None };
    let mut last: HashMap<(usize, u64), (i64, i64, usize)> = HashMap::new();
    for (id, place) in places.iter().enumerate() {
        let Some(place) = place else { continue };
        let heeded = match Kind::of(id as u64) {
            Kind::Good => true,
            Kind::Tombstone => setting.deletes,
            Kind::Refused | Kind::Broken | Kind::WrongType => false,
        };
        if !heeded {
            continue;
        }
        let first = match setting.newest_by {
            NewestBy::Offset => 0,
            NewestBy::Timestamp => place.timestamp,
        };
        let version = (first, place.offset, id);
        // The records of an account are in one partition, so that their offsets can be compared.
        let known = last.entry((place.partition.topic, records::account(id as u64))).or_insert(version);
        *known = version.max(*known);
    }
    let mut newest = vec![false; places.len()];
    for (_, _, id) in last.into_values() {
        newest[id] = Kind::of(id as u64) == Kind::Good;
    }
    Some(newest)
}
