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

/// What a record is like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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

#[derive(Clone, Copy, Debug)]
struct Entry {
    /// `None`: a gap, as compaction and transactions leave them.
    kind: Option<Kind>,
    /// Visible rows.
    rows: u32,
    /// Rows that there must be in the end.
    least: u32,
    /// Rows that there may be.
    most: u32,
    /// Whether a stored commit has ever passed it.
    counted: bool,
    /// A hand has moved the position past it, or has dropped its row.
    skipped: bool,
    /// Dead letters that are stored.
    letters: u32,
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
}

fn index(offset: i64) -> usize {
    usize::try_from(offset).unwrap()
}

impl Truth {
    pub(crate) fn new(plan: &Plan) -> Self {
        Self { logs: vec![Vec::new(); plan.partitions], exactly: plan.protocol != Protocol::AtLeastOnce }
    }

    /// Appends a record, or a gap.
    pub(crate) fn produce(&mut self, partition: Partition, kind: Option<Kind>) {
        let least = u32::from(kind == Some(Kind::Good));
        let most = least + u32::from(kind == Some(Kind::Fickle));
        self.logs[partition].push(Entry {
            kind,
            rows: 0,
            least,
            most,
            counted: false,
            skipped: false,
            letters: 0,
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

    pub(crate) fn is_visible(&self, place: Place) -> bool {
        self.entry(place).rows > 0
    }

    /// Records in a span, gaps not counted.
    pub(crate) fn records_in(&self, partition: Partition, first: i64, next: i64) -> usize {
        self.logs[partition][index(first)..index(next)].iter().filter(|entry| entry.kind.is_some()).count()
    }

    /// A row becomes visible.
    pub(crate) fn store_row(&mut self, place: Place, witness: &mut Witness) {
        let exactly = self.exactly;
        let entry = &mut self.logs[place.partition][index(place.offset)];
        if !matches!(entry.kind, Some(Kind::Good | Kind::Fickle)) {
            witness.fault(format!("the sink holds a row of {place:?}, which is {:?}", entry.kind));
        }
        if entry.rows >= entry.most {
            witness.count(Happening::Repeated);
        }
        entry.rows += 1;
        if exactly && entry.rows > entry.most {
            witness.fault(format!("the row of {place:?} is there {} times", entry.rows));
        }
    }

    pub(crate) fn store_letter(&mut self, place: Place, witness: &mut Witness) {
        witness.count(Happening::DeadLetter);
        let entry = &mut self.logs[place.partition][index(place.offset)];
        if !matches!(entry.kind, Some(Kind::Refused | Kind::Broken | Kind::Fickle)) {
            witness.fault(format!("a good record was dead-lettered: {place:?}"));
        }
        entry.letters += 1;
    }

    /// A hand moves a position back: what lies behind is to be written once more.
    pub(crate) fn want_again(&mut self, partition: Partition, first: i64, next: i64) {
        for entry in &mut self.logs[partition][index(first)..index(next)] {
            entry.least += u32::from(entry.kind == Some(Kind::Good));
            entry.most += u32::from(entry.kind == Some(Kind::Good));
        }
    }

    /// A table is dropped with all rows that can be seen in it.
    pub(crate) fn drop_rows(&mut self, is_in_it: impl Fn(Place) -> bool) {
        for (_, entry) in self.entries_mut().filter(|(place, entry)| entry.rows > 0 && is_in_it(*place)) {
            (entry.rows, entry.least, entry.most, entry.skipped) = (0, 0, 0, true);
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
    /// `may_come` tells rows that somebody may still publish.
    pub(crate) fn moved_by_hand(
        &mut self,
        partition: Partition,
        position: i64,
        may_come: impl Fn(Place) -> bool,
    ) {
        for (place, entry) in self.entries_mut().filter(|(place, _)| place.partition == partition) {
            entry.skipped = place.offset < position;
            if !matches!(entry.kind, Some(Kind::Good | Kind::Fickle)) {
                continue;
            }
            let again = u32::from(place.offset >= position);
            let late = u32::from(entry.counted && may_come(place));
            entry.least = entry.rows + if entry.kind == Some(Kind::Good) { again } else { 0 };
            entry.most = entry.rows + late + again;
        }
    }

    /// Of the rows from `first` on: whether all are visible, some, or none.
    pub(crate) fn seen(&self, partition: Partition, first: i64, next: i64) -> Seen {
        let rows = (first..next).map(|offset| self.entry(Place { partition, offset }));
        let good: Vec<bool> = rows
            .filter(|entry| entry.kind == Some(Kind::Good) && entry.most > 0)
            .map(|entry| entry.rows > 0)
            .collect();
        match (good.contains(&true), good.contains(&false)) {
            (_, false) => Seen::All,
            (false, true) => Seen::None,
            (true, true) => Seen::Some,
        }
    }

    /// Behind the last row that can be seen.
    pub(crate) fn behind_the_last_row(&self, partition: Partition) -> i64 {
        let last = self.logs[partition].iter().rposition(|entry| entry.rows > 0);
        last.map_or(0, |last| i64::try_from(last + 1).unwrap())
    }

    /// Whether every row that there must be can be seen.
    pub(crate) fn is_all_visible(&self) -> bool {
        self.logs.iter().flatten().all(|entry| entry.rows >= entry.least)
    }

    fn entries_mut(&mut self) -> impl Iterator<Item = (Place, &mut Entry)> {
        self.logs.iter_mut().enumerate().flat_map(|(partition, log)| {
            log.iter_mut().enumerate().map(move |(offset, entry)| {
                (Place { partition, offset: i64::try_from(offset).unwrap() }, entry)
            })
        })
    }

    /// A commit that is stored says which streams its position counts on: every record that it passes is visible, in one
    /// of them, a dead letter or filtered, and no row is counted that it does not pass.
    pub(crate) fn counted_in_streams(
        &self,
        partition: Partition,
        (before, position): (i64, i64),
        rows: &[&[Place]],
        witness: &mut Witness,
    ) {
        if position > self.end(partition) {
            witness.fault(format!("the position of partition {partition} lies behind the log: {position}"));
            return;
        }
        let holds = |place: &Place| rows.iter().any(|rows| rows.contains(place));
        if let Some(beyond) = rows.iter().copied().flatten().find(|place| place.offset >= position) {
            witness.fault(format!("a commit of position {position} counts the row of {beyond:?}"));
        }
        for offset in before..position {
            let place = Place { partition, offset };
            let entry = self.entry(place);
            let settled = match entry.kind {
                Some(Kind::Good) => entry.least == 0 || entry.rows > 0 || holds(&place),
                Some(Kind::Fickle) => entry.rows > 0 || holds(&place) || entry.letters > 0,
                Some(Kind::Refused | Kind::Broken) => entry.letters > 0,
                Some(Kind::Filtered) | None => true,
            };
            if !settled {
                witness.fault(format!(
                    "a commit moves the position of partition {partition} from {before} to {position} and passes offset \
                     {offset}, which is not settled: {entry:?}"
                ));
                return;
            }
        }
    }

    /// A position moves over records: everything of them must be where it belongs.
    pub(crate) fn passed(
        &self,
        partition: Partition,
        first: i64,
        next: i64,
        whose: &str,
        witness: &mut Witness,
    ) {
        if next > self.end(partition) {
            witness.fault(format!("{whose} position of partition {partition} lies behind the log: {next}"));
            return;
        }
        for offset in first..next {
            let entry = self.entry(Place { partition, offset });
            let settled = match entry.kind {
                Some(Kind::Good) if self.exactly => (entry.least..=entry.most).contains(&entry.rows),
                Some(Kind::Good) => entry.rows > 0,
                Some(Kind::Fickle) => entry.rows > 0 || entry.letters > 0 || entry.skipped,
                Some(Kind::Refused | Kind::Broken) => entry.letters > 0 || entry.skipped,
                Some(Kind::Filtered) | None => true,
            };
            if !settled {
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
            self.passed(partition, 0, self.end(partition), "in the end the", witness);
        }
    }

    fn entry(&self, place: Place) -> &Entry {
        &self.logs[place.partition][index(place.offset)]
    }
}
