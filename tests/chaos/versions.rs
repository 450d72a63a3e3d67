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

#[cfg(test)]
mod tests {
    use super::*;

    /// Ids of one account, in this order: two that become rows, a tombstone, and one more that becomes a row.
    fn versions() -> Vec<usize> {
        let (mut rows, mut deleted) = (HashMap::<u64, Vec<usize>>::new(), HashMap::<u64, usize>::new());
        for id in 0..2_000_000_usize {
            let account = records::account(id as u64);
            match Kind::of(id as u64) {
                Kind::Good => rows.entry(account).or_default().push(id),
                Kind::Tombstone => _ = deleted.insert(account, id),
                Kind::Refused | Kind::Broken | Kind::WrongType => {}
            }
            if let (Some(rows), Some(deleted)) = (rows.get(&account), deleted.get(&account))
                && let [first, second, .., last] = rows[..]
                && second < *deleted
                && *deleted < last
            {
                return vec![first, second, *deleted, last];
            }
        }
        panic!("no account has such records")
    }

    /// The ids that should be rows when their records have these times, in the order of their offsets.
    fn kept(ids: &[usize], times: &[i64], newest_by: NewestBy, deletes: bool) -> Vec<usize> {
        let partition = Partition { topic: 0, number: 0 };
        let mut places = vec![None; ids.iter().max().unwrap() + 1];
        for ((id, timestamp), offset) in ids.iter().zip(times).zip(0..) {
            places[*id] = Some(Place { partition, offset, timestamp: *timestamp });
        }
        let target = Target::BigQuery(IntoBigQuery { way: Way::Upsert, newest_by, deletes });
        let newest = newest(target, &places).unwrap();
        (0..newest.len()).filter(|id| newest[*id]).collect()
    }

    #[test]
    fn the_last_record_or_the_one_with_the_latest_time_is_the_row_of_an_account() {
        let ids = versions();
        let [first, second, deleted, last] = ids[..] else { unreachable!() };
        assert_eq!(kept(&ids, &[4, 3, 2, 1], NewestBy::Offset, true), [last]);
        assert_eq!(kept(&ids, &[4, 3, 2, 1], NewestBy::Timestamp, true), [first]);
        assert_eq!(
            kept(&ids, &[4, 4, 1, 4], NewestBy::Timestamp, true),
            [last],
            "the later of two of one time"
        );
        let until_deleted = [first, second, deleted];
        assert_eq!(kept(&until_deleted, &[1, 2, 3], NewestBy::Offset, true), [0_usize; 0]);
        assert_eq!(kept(&until_deleted, &[1, 3, 2], NewestBy::Timestamp, true), [second]);
        assert_eq!(kept(&until_deleted, &[1, 2, 3], NewestBy::Offset, false), [second]);
    }
}
