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
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    /// `None`: a gap, as compaction and transactions leave them.
    kind: Option<Kind>,
    /// Visible rows.
    rows: u32,
    /// Rows that there must be in the end.
    wanted: u32,
    /// Dead letters that are stored.
    letters: u32,
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
        Self { logs: vec![Vec::new(); plan.partitions], exactly: plan.protocol == Protocol::OffsetsInSink }
    }

    /// Appends a record, or a gap.
    pub(crate) fn produce(&mut self, partition: Partition, kind: Option<Kind>) {
        let wanted = u32::from(kind == Some(Kind::Good));
        self.logs[partition].push(Entry { kind, rows: 0, wanted, letters: 0 });
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
        if entry.kind != Some(Kind::Good) {
            witness.fault(format!("the sink holds a row of {place:?}, which is {:?}", entry.kind));
        }
        if entry.rows >= entry.wanted {
            witness.count(Happening::Repeated);
        }
        entry.rows += 1;
        if exactly && entry.rows > entry.wanted {
            witness.fault(format!("the row of {place:?} is there {} times", entry.rows));
        }
    }

    pub(crate) fn store_letter(&mut self, place: Place, witness: &mut Witness) {
        witness.count(Happening::DeadLetter);
        let entry = &mut self.logs[place.partition][index(place.offset)];
        if !matches!(entry.kind, Some(Kind::Refused | Kind::Broken)) {
            witness.fault(format!("a good record was dead-lettered: {place:?}"));
        }
        entry.letters += 1;
    }

    /// A hand moves a position back: what lies behind is to be written once more.
    pub(crate) fn want_again(&mut self, partition: Partition, first: i64, next: i64) {
        for entry in &mut self.logs[partition][index(first)..index(next)] {
            entry.wanted += u32::from(entry.kind == Some(Kind::Good));
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
                Some(Kind::Good) if self.exactly => entry.rows == entry.wanted,
                Some(Kind::Good) => entry.rows > 0,
                Some(Kind::Refused | Kind::Broken) => entry.letters > 0,
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
