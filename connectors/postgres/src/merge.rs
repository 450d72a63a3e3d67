//! Rows with a key: what is left of them when every key is written once.

use std::cmp::Ordering;
use std::collections::HashMap;

use txconnect_connector_api::batch::Row;

use crate::order;
use crate::plan::{ColumnType, PlannedWrite, TablePlan};
use crate::row::{DamagedRow, Field, Fields, Operation, operation};

/// What a batch does to its table, every key once: first the deletes, then the puts. Numbers are those of rows.
///
/// Both are in the order of their keys, which is the same in every process: two transactions that write the same keys
/// wait for each other and do not lock each other out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Changes {
    pub(crate) deletes: Vec<usize>,
    pub(crate) puts: Vec<usize>,
}

/// One row of [`Changes`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Change {
    pub(crate) row: usize,
    pub(crate) is_delete: bool,
}

impl Changes {
    /// The changes in the order in which the records came, so that any part of them may be made before the rest.
    pub(crate) fn in_arrival_order(&self) -> Vec<Change> {
        let deletes = self.deletes.iter().map(|&row| Change { row, is_delete: true });
        let puts = self.puts.iter().map(|&row| Change { row, is_delete: false });
        let mut changes: Vec<Change> = deletes.chain(puts).collect();
        changes.sort_unstable();
        changes
    }
}

/// What the records of one key leave to be done.
#[derive(Clone, Copy, Default)]
struct Outcome {
    deleted_by: Option<usize>,
    put: Option<usize>,
}

/// Resolves rows with the same key as the server would if every record were a statement of its own, in their order.
///
/// `row_bytes(i)` is row `i` with its operation in front.
pub(crate) fn resolve<'a>(
    plan: &TablePlan,
    rows: &[Row],
    row_bytes: impl Fn(usize) -> &'a [u8],
) -> Result<Changes, DamagedRow> {
    let key = plan.mode.key();
    let (newest_by, first_stays) = match &plan.mode {
        PlannedWrite::Upsert { newest_by, .. } => (*newest_by, false),
        PlannedWrite::InsertIgnore { .. } | PlannedWrite::Append => (None, true),
    };
    let age_of_deletes = plan.age_of_deletes();
    let mut keys = Vec::with_capacity(rows.len() * 20);
    let mut described: Vec<(Operation, usize, Field<'a>)> = Vec::with_capacity(rows.len());
    let mut fields: Vec<Field<'a>> = Vec::with_capacity(plan.columns.len());
    for index in 0..rows.len() {
        let (operation, tuple) = operation(row_bytes(index))?;
        fields.clear();
        for field in Fields::of(tuple)? {
            fields.push(field?);
        }
        if fields.len() != plan.columns.len() {
            return Err(DamagedRow);
        }
        for &column in key {
            push_key(fields[column], &mut keys);
        }
        described.push((operation, keys.len(), newest_by.and_then(|column| fields[column])));
    }

    let mut outcomes: HashMap<&[u8], Outcome> = HashMap::with_capacity(rows.len());
    let mut start = 0;
    for (row, &(operation, end, age)) in described.iter().enumerate() {
        let outcome = outcomes.entry(&keys[start..end]).or_default();
        start = end;
        // Whether an earlier row or deletion outlives this one, by the age in `column`.
        let outlives = |earlier: usize, column: Option<usize>| {
            column
                .is_some_and(|column| is_older(&plan.columns[column].column_type, age, described[earlier].2))
        };
        match (operation, outcome.put) {
            (Operation::Delete, Some(earlier)) if outlives(earlier, age_of_deletes) => {}
            (Operation::Delete, _) => {
                outcome.put = None;
                // Of two deletions the one that reaches the newer rows is left.
                if !outcome.deleted_by.is_some_and(|earlier| outlives(earlier, age_of_deletes)) {
                    outcome.deleted_by = Some(row);
                }
            }
            (Operation::Put, Some(_)) if first_stays => {}
            (Operation::Put, Some(earlier)) if outlives(earlier, newest_by) => {}
            (Operation::Put, _) => outcome.put = Some(row),
        }
    }

    let mut outcomes: Vec<(&[u8], Outcome)> = outcomes.into_iter().collect();
    outcomes.sort_unstable_by_key(|(key, _)| *key);
    Ok(Changes {
        deletes: outcomes.iter().filter_map(|(_, outcome)| outcome.deleted_by).collect(),
        puts: outcomes.iter().filter_map(|(_, outcome)| outcome.put).collect(),
    })
}

/// Whether a row with `left` gives way to one with `right`, as the guard of the statement says it: NULL is older than
/// everything else.
fn is_older(column_type: &ColumnType, left: Field<'_>, right: Field<'_>) -> bool {
    match (left, right) {
        (Some(left), Some(right)) => order::compare(column_type, left, right) == Ordering::Less,
        (None, Some(_)) => true,
        (_, None) => false,
    }
}

/// Appends a field of a key. The encoder writes equal values of a key as equal bytes.
fn push_key(field: Field<'_>, keys: &mut Vec<u8>) {
    // A row of the batch is far below 4 GiB.
    let length = field.map_or(u32::MAX, |value| u32::try_from(value.len()).unwrap_or(u32::MAX));
    keys.extend(length.to_be_bytes());
    keys.extend(field.unwrap_or_default());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{FilledBy, PlannedColumn, TableName};
    use proptest::prelude::*;
    use std::collections::BTreeMap;
    use txconnect_connector_api::{KafkaColumn, RowSource};

    fn plan(types: &[ColumnType], mode: PlannedWrite) -> TablePlan {
        let columns = types.iter().enumerate().map(|(index, column_type)| PlannedColumn {
            name: format!("c{index}"),
            filled_by: FilledBy::Property,
            column_type: column_type.clone(),
            nullable: true,
            second_digits: 6,
            description: None,
        });
        let table = TableName { schema: "s".into(), table: "t".into() };
        TablePlan { table, columns: columns.collect(), mode, description: None }
    }

    fn row(operation: Operation, fields: &[Option<&[u8]>]) -> Vec<u8> {
        let mut row = vec![operation.byte()];
        row.extend(u16::try_from(fields.len()).unwrap().to_be_bytes());
        for field in fields {
            match field {
                None => row.extend((-1_i32).to_be_bytes()),
                Some(bytes) => {
                    row.extend(i32::try_from(bytes.len()).unwrap().to_be_bytes());
                    row.extend(*bytes);
                }
            }
        }
        row
    }

    fn changes(plan: &TablePlan, rows: &[Vec<u8>]) -> Changes {
        let source = RowSource { slot: 0, offset: 0, record: 0 };
        let ends: Vec<Row> = rows.iter().map(|_| Row { end: 0, source }).collect();
        resolve(plan, &ends, |index| &rows[index]).unwrap()
    }

    const UPSERT: fn(Option<usize>) -> PlannedWrite =
        |newest_by| PlannedWrite::Upsert { key: vec![0], newest_by };

    #[test]
    fn a_delete_goes_before_the_row_that_comes_after_it() {
        let plan = plan(&[ColumnType::SmallInt, ColumnType::SmallInt], UPSERT(Some(1)));
        let put = |key: &'static [u8], age: &'static [u8]| row(Operation::Put, &[Some(key), Some(age)]);
        let delete = |key: &'static [u8]| row(Operation::Delete, &[Some(key), None]);
        let rows = [
            put(b"\0a", b"\0\x09"),
            delete(b"\0a"),
            put(b"\0a", b"\0\x01"),
            put(b"\0b", b"\0\0"),
            delete(b"\0b"),
        ];
        let changes = changes(&plan, &rows);
        assert_eq!(changes, Changes { deletes: vec![1, 4], puts: vec![2] });
        let arrived: Vec<usize> = changes.in_arrival_order().iter().map(|change| change.row).collect();
        assert_eq!(arrived, [1, 2, 4]);
    }

    /// A plan whose second column is Kafka's time, which tells the newer row.
    fn timed() -> TablePlan {
        let mut plan = plan(&[ColumnType::SmallInt, ColumnType::Timestamp], UPSERT(Some(1)));
        plan.columns[1].filled_by = FilledBy::Kafka(KafkaColumn::Timestamp);
        plan
    }

    #[test]
    fn a_delete_leaves_the_row_that_is_newer() {
        let at = |operation, time: i64| row(operation, &[Some(b"\0a"), Some(&time.to_be_bytes())]);
        let timeless = |operation| row(operation, &[Some(b"\0a"), None]);
        let (put, delete) = (Operation::Put, Operation::Delete);
        for (rows, deletes, puts) in [
            (vec![at(put, 5), at(delete, 4)], vec![], vec![0]),
            (vec![at(put, 5), at(delete, 5)], vec![1], vec![]),
            (vec![at(delete, 9), at(put, 2), at(delete, 3)], vec![0], vec![]),
            (vec![at(delete, 9), at(put, 2), at(delete, 1)], vec![0], vec![1]),
            (vec![at(delete, 3), at(delete, 9)], vec![1], vec![]),
            (vec![at(put, -5), timeless(delete)], vec![], vec![0]),
            (vec![timeless(put), timeless(delete)], vec![1], vec![]),
        ] {
            assert_eq!(changes(&timed(), &rows), Changes { deletes, puts });
        }
    }

    #[test]
    fn damaged_rows_are_an_error() {
        let plan = plan(&[ColumnType::SmallInt, ColumnType::SmallInt], UPSERT(None));
        let source = RowSource { slot: 0, offset: 0, record: 0 };
        for bytes in [&b""[..], b"X\0\0", &row(Operation::Put, &[Some(b"ab")])] {
            let rows = [Row { end: bytes.len(), source }];
            assert_eq!(resolve(&plan, &rows, |_| bytes), Err(DamagedRow));
        }
    }

    /// By key the age of a row and the record it came from.
    type Table = BTreeMap<i16, (Option<i16>, Option<usize>)>;

    proptest! {
        #[test]
        fn what_is_left_of_a_batch_with_times_does_what_its_records_do_one_after_the_other(
            rows in prop::collection::vec((0_i16..3, any::<bool>(), prop::option::of(0_i64..4)), 0..24),
            before in prop::collection::btree_map(0_i16..3, prop::option::of(0_i64..5), 0..3),
        ) {
            type Timed = BTreeMap<i16, (Option<i64>, Option<usize>)>;
            let encoded: Vec<Vec<u8>> = rows.iter().map(|(key, delete, time)| {
                let operation = if *delete { Operation::Delete } else { Operation::Put };
                let time = time.map(i64::to_be_bytes);
                row(operation, &[Some(&key.to_be_bytes()), time.as_ref().map(|time| &time[..])])
            }).collect();
            // What the statements do with one row: nothing to a row that is newer; no time is the oldest.
            let apply = |table: &mut Timed, index: usize| {
                let (key, delete, time) = rows[index];
                if table.get(&key).is_some_and(|(there, _)| *there > time) {
                    return;
                }
                if delete {
                    table.remove(&key);
                } else {
                    table.insert(key, (time, Some(index)));
                }
            };
            let start: Timed = before.into_iter().map(|(key, time)| (key, (time, None))).collect();
            let mut one_by_one = start.clone();
            (0..rows.len()).for_each(|index| apply(&mut one_by_one, index));
            let changes = changes(&timed(), &encoded);
            let mut at_once = start.clone();
            changes.deletes.iter().chain(&changes.puts).for_each(|&index| apply(&mut at_once, index));
            prop_assert_eq!(&at_once, &one_by_one);
            let mut in_order = start;
            changes.in_arrival_order().iter().for_each(|change| apply(&mut in_order, change.row));
            prop_assert_eq!(in_order, one_by_one);
        }

        #[test]
        fn what_is_left_of_a_batch_does_to_a_table_what_its_rows_do_one_after_the_other(
            rows in prop::collection::vec((0_i16..4, any::<bool>(), prop::option::of(0_i16..3)), 0..24),
            before in prop::collection::btree_map(0_i16..4, prop::option::of(0_i16..3), 0..4),
            newest in any::<bool>(), ignore in any::<bool>(),
        ) {
            let mode = if ignore { PlannedWrite::InsertIgnore { key: vec![0] } } else { UPSERT(newest.then_some(1)) };
            let plan = plan(&[ColumnType::SmallInt, ColumnType::SmallInt], mode);
            let encoded: Vec<Vec<u8>> = rows.iter().map(|(key, delete, age)| {
                let age = age.map(i16::to_be_bytes);
                let delete = *delete && !ignore;
                let operation = if delete { Operation::Delete } else { Operation::Put };
                let age = age.as_ref().filter(|_| !delete).map(|age| &age[..]);
                row(operation, &[Some(&key.to_be_bytes()), age])
            }).collect();

            let put = |table: &mut Table, index: usize| {
                let (key, _, age) = rows[index];
                match table.get(&key) {
                    Some(_) if ignore => {}
                    Some((Some(there), _)) if newest && age.is_none_or(|age| *there > age) => {}
                    _ => { table.insert(key, (age, Some(index))); }
                }
            };
            let start: Table = before.into_iter().map(|(key, age)| (key, (age, None))).collect();
            let mut one_by_one = start.clone();
            for (index, (key, delete, _)) in rows.iter().enumerate() {
                if *delete && !ignore {
                    one_by_one.remove(key);
                } else {
                    put(&mut one_by_one, index);
                }
            }
            let changes = changes(&plan, &encoded);
            let mut at_once = start.clone();
            for &index in &changes.deletes {
                at_once.remove(&rows[index].0);
            }
            for &index in &changes.puts {
                put(&mut at_once, index);
            }
            prop_assert_eq!(&at_once, &one_by_one);
            let mut in_order = start;
            for change in changes.in_arrival_order() {
                if change.is_delete {
                    in_order.remove(&rows[change.row].0);
                } else {
                    put(&mut in_order, change.row);
                }
            }
            prop_assert_eq!(in_order, one_by_one);
        }
    }
}
