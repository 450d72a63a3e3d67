//! Rows by primary key, for tables that take changes: the newest change of a key wins, whenever it arrives.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use serde_json::Value as Json;

use crate::types::proto::Sequence;
use crate::types::{Column, Row, render};

/// How long a deletion is remembered, in milliseconds: two days, the documented delete retention window.
const DELETIONS_MS: u64 = 2 * 24 * 60 * 60 * 1_000;

/// A key's values as text.
type Key = Box<str>;

/// The newest change of every key.
#[derive(Debug)]
pub(super) struct Keys {
    columns: Vec<usize>,
    newest: HashMap<Key, Newest>,
}

/// What is known of a key.
#[derive(Debug, Default)]
struct Newest {
    /// The sequence number of the change that won; rows that were merely inserted have none.
    sequence: Option<Sequence>,
    /// Where its rows are. A key is not enforced, so that inserted rows may share one.
    rows: Vec<usize>,
    /// When its last row was deleted.
    deleted_ms: Option<u64>,
}

impl Keys {
    /// The keys of rows that are there. Nothing is known of the changes that made them.
    pub(super) fn of(rows: &[Row], columns: Vec<usize>, all: &[Column]) -> Keys {
        let mut keys = Keys { columns, newest: HashMap::new() };
        for (place, row) in rows.iter().enumerate() {
            keys.inserted(row, all, place);
        }
        keys
    }

    /// The same keys, whose columns are in other places now.
    pub(super) fn moved_to(self, columns: Vec<usize>) -> Keys {
        Keys { columns, ..self }
    }

    fn key(&self, row: &Row, columns: &[Column]) -> Key {
        let value = |index: &usize| {
            let (value, column) = (row.get(*index)?, columns.get(*index)?);
            Some(render::json(value, &column.kind))
        };
        let values: Vec<Json> = self.columns.iter().filter_map(value).collect();
        Json::Array(values).to_string().into()
    }

    /// Notes a row that was inserted at a place without any change of its key.
    pub(super) fn inserted(&mut self, row: &Row, columns: &[Column], place: usize) {
        self.newest.entry(self.key(row, columns)).or_default().rows.push(place);
    }

    /// Applies a change to `rows`: `row` takes the place of the key's rows, or with `delete` they go. A change that is
    /// older than what the key has seen does nothing. Rows may change their order.
    pub(super) fn apply(
        &mut self,
        rows: &mut Vec<Row>,
        columns: &[Column],
        row: Row,
        sequence: Option<Sequence>,
        delete: bool,
        now_ms: u64,
    ) {
        let key = self.key(&row, columns);
        let newest = match self.newest.entry(key.clone()) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(place) => place.insert(Newest::default()),
        };
        let forgotten =
            newest.deleted_ms.is_some_and(|deleted_ms| now_ms.saturating_sub(deleted_ms) >= DELETIONS_MS);
        if !forgotten && newest.sequence > sequence {
            return;
        }
        newest.sequence = sequence;
        newest.deleted_ms = delete.then_some(now_ms);
        let mut places = std::mem::take(&mut newest.rows);
        if !delete {
            let place = if places.is_empty() {
                rows.push(row);
                rows.len() - 1
            } else {
                let place = places.remove(0);
                if let Some(old) = rows.get_mut(place) {
                    *old = row;
                }
                place
            };
            newest.rows.push(place);
        }
        // From the back, so that no row that is still to go is moved.
        places.sort_unstable();
        for place in places.into_iter().rev() {
            self.remove(rows, columns, place);
        }
    }

    /// Removes a row; the last one takes its place.
    fn remove(&mut self, rows: &mut Vec<Row>, columns: &[Column], place: usize) {
        let last = rows.len().saturating_sub(1);
        if place > last {
            return;
        }
        rows.swap_remove(place);
        if let Some(moved) = rows.get(place) {
            let key = self.key(moved, columns);
            let places = self.newest.get_mut(&key).into_iter().flat_map(|newest| &mut newest.rows);
            for known in places.filter(|known| **known == last) {
                *known = place;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Value;
    use crate::types::column::parse_fields;
    use proptest::prelude::*;
    use serde_json::json;
    use std::collections::BTreeMap;

    fn columns() -> Vec<Column> {
        parse_fields(&json!([{"name": "id", "type": "INTEGER"}, {"name": "v", "type": "INTEGER"}])).unwrap()
    }

    fn row(id: i64, value: i64) -> Row {
        vec![Value::Integer(id), Value::Integer(value)]
    }

    fn sequence(number: u64) -> Option<Sequence> {
        Sequence::parse(&format!("{number:x}"))
    }

    fn empty() -> Keys {
        Keys::of(&[], vec![0], &columns())
    }

    // "Manage custom ordering": the larger sequence number wins, equal ones are decided by the time of arrival.
    #[test]
    fn a_late_change_loses_to_a_larger_number_and_wins_over_an_equal_one() {
        let (mut keys, mut rows, columns) = (empty(), Vec::new(), columns());
        let mut change = |id, value, number, delete| {
            keys.apply(&mut rows, &columns, row(id, value), sequence(number), delete, 0);
            rows.clone()
        };
        assert_eq!(change(1, 10, 5, false), vec![row(1, 10)]);
        assert_eq!(change(1, 11, 4, false), vec![row(1, 10)]);
        assert_eq!(change(1, 12, 5, false), vec![row(1, 12)]);
        assert_eq!(change(1, 0, 4, true), vec![row(1, 12)]);
        assert_eq!(change(1, 0, 6, true), Vec::<Row>::new());
        assert_eq!(change(1, 13, 5, false), Vec::<Row>::new());
        assert_eq!(change(1, 14, 7, false), vec![row(1, 14)]);
    }

    // "Deleted data considerations": deletions are kept for two days, so that earlier changes that arrive late lose.
    #[test]
    fn a_deletion_is_remembered_for_two_days() {
        let (mut keys, mut rows, columns) = (empty(), Vec::new(), columns());
        keys.apply(&mut rows, &columns, row(1, 0), sequence(9), true, 1_000);
        keys.apply(&mut rows, &columns, row(1, 5), sequence(8), false, 1_000 + DELETIONS_MS - 1);
        assert!(rows.is_empty());
        keys.apply(&mut rows, &columns, row(1, 6), sequence(8), false, 1_000 + DELETIONS_MS);
        assert_eq!(rows, vec![row(1, 6)]);
    }

    #[test]
    fn a_change_replaces_every_row_of_its_key() {
        let columns = columns();
        let mut rows = vec![row(1, 1), row(2, 2), row(1, 3), row(3, 4), row(1, 5)];
        let mut keys = Keys::of(&rows, vec![0], &columns);
        keys.apply(&mut rows, &columns, row(1, 9), sequence(1), false, 0);
        let mut sorted: Vec<String> = rows.iter().map(|row| format!("{row:?}")).collect();
        sorted.sort();
        let wanted: Vec<String> =
            [row(1, 9), row(2, 2), row(3, 4)].iter().map(|row| format!("{row:?}")).collect();
        assert_eq!(sorted, wanted);
        keys.apply(&mut rows, &columns, row(3, 0), None, true, 0);
        assert_eq!(rows.len(), 2);
    }

    proptest! {
        #[test]
        fn the_rows_are_those_of_the_newest_changes_in_any_order(
            changes in proptest::collection::vec((0_i64..5, 0_u64..6, any::<bool>()), 0..60)
        ) {
            let (mut keys, mut rows, columns) = (empty(), Vec::new(), columns());
            let mut wanted: BTreeMap<i64, (u64, Option<i64>)> = BTreeMap::new();
            for (value, (id, number, delete)) in (0_i64..).zip(&changes) {
                keys.apply(&mut rows, &columns, row(*id, value), sequence(*number), *delete, 0);
                let newest = wanted.entry(*id).or_insert((*number, None));
                if *number >= newest.0 {
                    *newest = (*number, (!delete).then_some(value));
                }
            }
            let mut found: Vec<String> = rows.iter().map(|row| format!("{row:?}")).collect();
            found.sort();
            let mut wanted: Vec<String> = wanted
                .iter()
                .filter_map(|(id, (_, value))| Some(format!("{:?}", row(*id, (*value)?))))
                .collect();
            wanted.sort();
            prop_assert_eq!(found, wanted);
        }
    }
}
