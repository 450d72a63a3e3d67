//! What was produced, and what has become of it. Everything is judged against this.

use crate::plan::{Plan, Protocol};
use crate::witness::{Happening, Witness};

pub(crate) type Partition = usize;

/// Where a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    pub(crate) partition: Partition,
    pub(crate) offset: i64,
}

/// What a record is like, or a row of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// It becomes a row.
    Good,
    /// The sink refuses its row.
    Refused,
    /// The lane finds that it is bad.
    Broken,
    /// It makes no row.
    Filtered,
    /// The sink refuses its row for a time: it becomes a row or a dead letter.
    Fickle,
}

/// A row on its way to the sink or in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Row {
    /// The record it was made from.
    pub(crate) place: Place,
    /// When: a record that is looked at again may become something else.
    pub(crate) attempt: u64,
    /// Its place among the rows of the record.
    pub(crate) number: u64,
    /// How many rows the record has become in this attempt.
    pub(crate) of: u64,
    pub(crate) table: usize,
    pub(crate) kind: Kind,
}

/// How a record makes no row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Without {
    Filtered,
    Letter,
}

#[derive(Clone, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "four things that may happen to a record in any order")]
struct Entry {
    /// `None`: a gap, as compaction and transactions leave them.
    kind: Option<Kind>,
    /// Visible rows.
    rows: Vec<Row>,
    /// How often the record must be there in the end.
    least: usize,
    /// How often it may be.
    most: usize,
    /// Whether a stored commit has ever passed it.
    counted: bool,
    /// A hand has moved the position past it, or has dropped its row.
    skipped: bool,
    /// Dead letters that are stored.
    letters: u32,
    /// Processes that have settled it without a row, as they see it.
    without: Vec<(usize, Without)>,
    /// A guest has failed at it.
    failed: bool,
    /// A table was dropped, or a hand has moved the position, while only a part of its rows could be seen.
    torn: bool,
}

/// How often a record is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Times {
    /// With all its rows.
    whole: usize,
    /// With any.
    begun: usize,
}

impl Times {
    fn of(rows: &[Row]) -> Self {
        let (mut whole, mut begun) = (0, 0);
        for (index, row) in rows.iter().enumerate() {
            if rows[..index].iter().any(|other| other.attempt == row.attempt) {
                continue;
            }
            let count = |number| {
                rows.iter().filter(|row2| row2.attempt == row.attempt && row2.number == number).count()
            };
            whole += (0..row.of).map(count).min().unwrap_or(0);
            begun += (0..row.of).map(count).max().unwrap_or(0);
        }
        Self { whole, begun }
    }

    /// Whether nothing of it is there in part.
    fn is_even(self) -> bool {
        self.whole == self.begun
    }
}

impl Entry {
    fn times(&self) -> Times {
        Times::of(&self.rows)
    }

    /// Whether it was settled without a row: by `process`, or by anybody.
    fn is_without(&self, process: Option<usize>) -> bool {
        self.without.iter().any(|(by, without)| {
            process.is_none_or(|process| process == *by)
                && (*without == Without::Filtered || self.letters > 0)
        })
    }
}

/// How much of a range of rows can be seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    All,
    Some,
    None,
}

/// The logs of all partitions, with the fate of every record.
pub(crate) struct Truth {
    logs: Vec<Vec<Entry>>,
    exactly: bool,
    transforms: bool,
}

fn index(offset: i64) -> usize {
    usize::try_from(offset).unwrap()
}

impl Truth {
    pub(crate) fn new(plan: &Plan) -> Self {
        Self {
            logs: vec![Vec::new(); plan.partitions],
            exactly: plan.protocol != Protocol::AtLeastOnce,
            transforms: plan.transforms(),
        }
    }

    /// Appends a record, or a gap.
    pub(crate) fn produce(&mut self, partition: Partition, kind: Option<Kind>) {
        let least = usize::from(kind == Some(Kind::Good));
        let most = least + usize::from(kind == Some(Kind::Fickle));
        self.logs[partition].push(Entry {
            kind,
            rows: Vec::new(),
            least,
            most,
            counted: false,
            skipped: false,
            letters: 0,
            without: Vec::new(),
            failed: false,
            torn: false,
        });
    }

    /// The offset after the last record.
    pub(crate) fn end(&self, partition: Partition) -> i64 {
        let log = &self.logs[partition];
        let records = log.iter().rposition(|entry| entry.kind.is_some()).map_or(0, |last| last + 1);
        i64::try_from(records).unwrap()
    }

    /// The next records from `position` on.
    pub(crate) fn read(&self, partition: Partition, position: i64, most: usize) -> Vec<Place> {
        let log = &self.logs[partition];
        (index(position)..log.len())
            .filter(|offset| log[*offset].kind.is_some())
            .take(most)
            .map(|offset| Place { partition, offset: i64::try_from(offset).unwrap() })
            .collect()
    }

    pub(crate) fn kind(&self, place: Place) -> Kind {
        self.entry(place).kind.unwrap()
    }

    /// Whether the table holds a row with the key of this one. It is made from the record, whenever it is looked at.
    pub(crate) fn holds_key_of(&self, row: &Row) -> bool {
        self.entry(row.place).rows.iter().any(|held| held.number == row.number)
    }

    /// Records in a span, gaps not counted.
    pub(crate) fn records_in(&self, partition: Partition, first: i64, next: i64) -> usize {
        self.logs[partition][index(first)..index(next)].iter().filter(|entry| entry.kind.is_some()).count()
    }

    /// A lane has found a record bad.
    pub(crate) fn found_bad(&mut self, place: Place) {
        self.entry_mut(place).failed = true;
    }

    /// A process moves its position over a record that makes no row.
    pub(crate) fn settle_without(&mut self, process: usize, place: Place, how: Without) {
        let without = &mut self.entry_mut(place).without;
        without.retain(|(by, _)| *by != process);
        without.push((process, how));
    }

    /// A row becomes visible.
    pub(crate) fn store_row(&mut self, row: Row, witness: &mut Witness) {
        let exactly = self.exactly;
        let entry = self.entry_mut(row.place);
        if !matches!(row.kind, Kind::Good | Kind::Fickle) {
            witness.fault(format!("the sink holds {row:?}"));
        }
        if entry.rows.iter().any(|held| held.attempt != row.attempt && held.of != row.of) {
            witness.count(Happening::OtherOutcome);
        }
        entry.rows.push(row);
        let Times { begun, .. } = entry.times();
        // At least once, some rows of a record may be there when another table refuses the rest.
        if begun > entry.most.max(usize::from(!exactly)) {
            witness.count(Happening::Repeated);
            if exactly && !entry.torn {
                witness.fault(format!("{:?} is there {begun} times: {:?}", row.place, entry.rows));
            }
        }
    }

    pub(crate) fn store_letter(&mut self, place: Place, witness: &mut Witness) {
        witness.count(Happening::DeadLetter);
        let entry = self.entry_mut(place);
        if !entry.failed && !matches!(entry.kind, Some(Kind::Refused | Kind::Fickle)) {
            witness.fault(format!("a good record was dead-lettered: {place:?}"));
        }
        entry.letters += 1;
    }

    /// A hand moves a position back: what lies behind is to be written once more.
    pub(crate) fn want_again(&mut self, partition: Partition, first: i64, next: i64) {
        let transforms = self.transforms;
        for entry in &mut self.logs[partition][index(first)..index(next)] {
            if transforms {
                // What was filtered the first time may become rows the second time.
                let Times { whole, begun } = entry.times();
                (entry.least, entry.most) = (whole, begun);
            }
            entry.least += usize::from(entry.kind == Some(Kind::Good));
            entry.most += usize::from(entry.kind == Some(Kind::Good));
        }
    }

    /// A table is dropped with all rows that can be seen in it.
    pub(crate) fn drop_rows(&mut self, table: usize) {
        let transforms = self.transforms;
        for (_, entry) in self.entries_mut() {
            let before = entry.rows.len();
            entry.rows.retain(|row| row.table != table);
            if entry.rows.len() < before {
                // What the record has become in other tables stays, and some of it may only come.
                entry.torn |= transforms;
                (entry.least, entry.most, entry.skipped) = (0, 0, true);
            }
        }
    }

    /// A stored commit counts everything before a position.
    pub(crate) fn count(&mut self, partition: Partition, position: i64) {
        let log = &mut self.logs[partition];
        let end = index(position).min(log.len());
        for entry in &mut log[..end] {
            entry.counted = true;
        }
    }

    /// A hand moves the group's position: what lies behind is written once more, what lies before is left as it is.
    /// `may_come` tells records of which somebody may still publish rows.
    pub(crate) fn moved_by_hand(
        &mut self,
        partition: Partition,
        position: i64,
        may_come: impl Fn(Place) -> bool,
    ) {
        let transforms = self.transforms;
        for (place, entry) in self.entries_mut().filter(|(place, _)| place.partition == partition) {
            entry.skipped = place.offset < position;
            if !matches!(entry.kind, Some(Kind::Good | Kind::Fickle)) {
                continue;
            }
            let again = usize::from(place.offset >= position);
            let late = entry.counted && may_come(place);
            let Times { whole, begun } = entry.times();
            // What comes late may be the rest of what is there.
            entry.torn |= whole < begun || (transforms && late);
            entry.least = whole + if entry.kind == Some(Kind::Good) { again } else { 0 };
            entry.most = begun + usize::from(late) + again;
        }
    }

    /// Of the rows from `first` on: whether all are visible, some, or none.
    pub(crate) fn seen(&self, partition: Partition, first: i64, next: i64) -> Seen {
        let rows = (first..next).map(|offset| self.entry(Place { partition, offset }));
        let good: Vec<bool> = rows
            .filter(|entry| entry.kind == Some(Kind::Good) && entry.most > 0)
            .map(|entry| !entry.rows.is_empty())
            .collect();
        match (good.contains(&true), good.contains(&false)) {
            (_, false) => Seen::All,
            (false, true) => Seen::None,
            (true, true) => Seen::Some,
        }
    }

    /// Behind the last row that can be seen.
    pub(crate) fn behind_the_last_row(&self, partition: Partition) -> i64 {
        let last = self.logs[partition].iter().rposition(|entry| !entry.rows.is_empty());
        last.map_or(0, |last| i64::try_from(last + 1).unwrap())
    }

    /// Whether every row that there must be can be seen.
    pub(crate) fn is_all_visible(&self) -> bool {
        self.logs.iter().flatten().all(|entry| {
            let times = entry.times();
            entry.torn || (times.is_even() && (times.whole >= entry.least || entry.is_without(None)))
        })
    }

    fn entries_mut(&mut self) -> impl Iterator<Item = (Place, &mut Entry)> {
        self.logs.iter_mut().enumerate().flat_map(|(partition, log)| {
            log.iter_mut().enumerate().map(move |(offset, entry)| {
                (Place { partition, offset: i64::try_from(offset).unwrap() }, entry)
            })
        })
    }

    /// A commit of `process` that is stored says which streams its position counts on: every record that it passes is
    /// visible, in them, a dead letter or filtered, with all of its rows, and no row is counted that it does not pass.
    pub(crate) fn counted_in_streams(
        &self,
        partition: Partition,
        (before, position): (i64, i64),
        rows: &[&[Row]],
        process: usize,
        witness: &mut Witness,
    ) {
        if position > self.end(partition) {
            witness.fault(format!("the position of partition {partition} lies behind the log: {position}"));
            return;
        }
        let counted = || rows.iter().copied().flatten();
        if let Some(beyond) = counted().find(|row| row.place.offset >= position) {
            witness.fault(format!("a commit of position {position} counts {beyond:?}"));
        }
        for offset in before..position {
            let place = Place { partition, offset };
            let entry = self.entry(place);
            let mut all = entry.rows.clone();
            // What is counted and can be seen already is one row.
            all.extend(counted().filter(|row| row.place == place && !entry.rows.contains(row)));
            let times = Times::of(&all);
            let settled = entry.torn
                || match entry.kind {
                    Some(Kind::Good) => {
                        entry.least == 0 || times.whole > 0 || entry.is_without(Some(process))
                    }
                    Some(Kind::Fickle) => times.whole > 0 || entry.is_without(Some(process)),
                    Some(Kind::Refused | Kind::Broken) => entry.is_without(Some(process)),
                    Some(Kind::Filtered) | None => true,
                };
            if !settled || (!times.is_even() && !entry.torn) {
                witness.fault(format!(
                    "a commit moves the position of partition {partition} from {before} to {position} and passes offset \
                     {offset}, which is not settled: {entry:?}, with {all:?}"
                ));
                return;
            }
        }
    }

    /// A position moves over records: everything of them must be where it belongs. `process` has moved it.
    pub(crate) fn passed(
        &self,
        partition: Partition,
        (first, next): (i64, i64),
        process: Option<usize>,
        whose: &str,
        witness: &mut Witness,
    ) {
        if next > self.end(partition) {
            witness.fault(format!("{whose} position of partition {partition} lies behind the log: {next}"));
            return;
        }
        for offset in first..next {
            let entry = self.entry(Place { partition, offset });
            let times = entry.times();
            let without = || entry.skipped || entry.is_without(process);
            let unbroken = entry.torn || !self.exactly || times.is_even();
            let settled = entry.torn
                || match entry.kind {
                    Some(Kind::Good) if self.exactly => {
                        times.whole <= entry.most && (times.whole >= entry.least || entry.is_without(process))
                    }
                    Some(Kind::Good) => times.whole > 0 || entry.is_without(process),
                    Some(Kind::Fickle) => times.whole > 0 || without(),
                    Some(Kind::Refused | Kind::Broken) => without(),
                    Some(Kind::Filtered) | None => true,
                };
            if !settled || !unbroken {
                witness.fault(format!(
                    "{whose} position of partition {partition} moves from {first} to {next} and passes offset {offset}, \
                     which is not settled: {entry:?}"
                ));
                return;
            }
        }
    }

    /// Whether every record is where it belongs, as often as it should be.
    pub(crate) fn judge(&self, witness: &mut Witness) {
        for partition in 0..self.logs.len() {
            self.passed(partition, (0, self.end(partition)), None, "in the end the", witness);
        }
    }

    fn entry(&self, place: Place) -> &Entry {
        &self.logs[place.partition][index(place.offset)]
    }

    fn entry_mut(&mut self, place: Place) -> &mut Entry {
        &mut self.logs[place.partition][index(place.offset)]
    }
}
