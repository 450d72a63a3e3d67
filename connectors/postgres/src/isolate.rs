//! Finds the rows that the server refuses.
//!
//! Parts of the flush are written one after the other, each behind a savepoint: what is taken stays, what is refused is
//! rolled back and split, down to single rows. So a row is only blamed when it was refused alone, after all that came
//! before it and was good; of two rows with one unique key it is the later one. Where the server names the line, the
//! part is split there. In the end everything is rolled back; or, if no row is bad after all (a row of somebody else was
//! in the way for a moment), the transaction is as good as the first one would have been.

use std::ops::Range;
use std::time::Instant;

use tokio_postgres::error::DbError;
use txconnect_connector_api::{BadRecord, RejectedRow};

use crate::blockers::Watchdog;
use crate::connect::Session;
use crate::error::{CallFailure, DataError, Trouble};
use crate::rows::{TableRows, WriteFailure};
use crate::transaction::{FlushFailure, begin, check_unchanged, concerns_rows, roll_back, watched};

/// How many parts are written at most in one search that has found something. What it has found is cut out then, and the
/// search goes on with what is left.
const MOST_PARTS: usize = 1000;

/// What the search has come to.
#[derive(Debug)]
pub(crate) enum Verdict {
    /// All rows are written; the transaction is open.
    Written,
    /// These rows are bad. The transaction is rolled back.
    Rejected(Vec<RejectedRow>),
}

/// Searches in a transaction of its own; none may be open. After an error it may still be open.
pub(crate) async fn isolate(
    session: &Session,
    watchdog: &Watchdog,
    tables: &mut [TableRows<'_>],
) -> Result<Verdict, FlushFailure> {
    let pid = begin(session, tables).await?;
    let mut search = Search::new(session);
    let deferred = watched(session, watchdog, pid, search.row_by_row(tables)).await?;
    if let Some(deferred) = deferred {
        if !roll_back(session, tables).await {
            return Err(FlushFailure::Call(deferred.failure, None));
        }
        let pid = begin(session, tables).await?;
        search = Search::new(session);
        watched(session, watchdog, pid, search.with_constraint(tables, &deferred)).await?;
        if search.bad.is_empty() {
            return Err(FlushFailure::NoRow(deferred.why));
        }
    }
    if search.bad.is_empty() {
        return Ok(Verdict::Written);
    }
    // Rows that do not fit a table which is not what it was are not to blame.
    check_unchanged(session, tables).await?;
    let mut rows: Vec<RejectedRow> = Vec::with_capacity(search.bad.len());
    for Bad { table, unit, why } in search.bad {
        let rows_of_table = &mut tables[table];
        let row = rows_of_table.row(unit);
        rows.push(RejectedRow { batch: rows_of_table.batch, row, why: bad_record(why) });
    }
    rows.sort_unstable_by_key(|row| (row.batch, row.row));
    roll_back(session, tables).await;
    Ok(Verdict::Rejected(rows))
}

/// A violation that shows only when deferred constraints are checked.
struct Deferred {
    why: DataError,
    failure: CallFailure,
}

/// A unit of a table that was refused alone.
struct Bad {
    table: usize,
    unit: usize,
    why: DataError,
}

/// Units that are to be tried together.
struct Part {
    units: Range<usize>,
    /// They are known to be refused if no more than this many bad units have been found by now.
    refused_after: Option<usize>,
    /// The server has named this unit.
    is_named: bool,
}

impl Part {
    fn new(units: Range<usize>) -> Self {
        Self { units, refused_after: None, is_named: false }
    }
}

/// Why a part was refused.
struct Refusal {
    failure: CallFailure,
    /// The unit that the server names, from the start of the part.
    line: Option<usize>,
    column: Option<String>,
}

struct Search<'s> {
    session: &'s Session,
    began: Instant,
    parts: usize,
    has_savepoint: bool,
    trusts_lines: bool,
    bad: Vec<Bad>,
}

impl<'s> Search<'s> {
    fn new(session: &'s Session) -> Self {
        Self {
            session,
            began: Instant::now(),
            parts: 0,
            has_savepoint: false,
            trusts_lines: true,
            bad: Vec::new(),
        }
    }

    /// Whether it is time to tell what was found.
    fn is_spent(&self) -> bool {
        !self.bad.is_empty() && (self.parts >= MOST_PARTS || self.began.elapsed() >= self.session.timeout())
    }

    /// Finds the rows that are refused by themselves. Where there are none, answers what the deferred constraints say.
    async fn row_by_row(&mut self, tables: &mut [TableRows<'_>]) -> Result<Option<Deferred>, FlushFailure> {
        for table in 0..tables.len() {
            self.settle(tables, table).await?;
        }
        self.give_second_chances(tables).await?;
        if !self.bad.is_empty() {
            return Ok(None);
        }
        self.check_constraints("ALL").await
    }

    /// Finds the rows that violate a deferred constraint: all that the constraint may point to is written before.
    async fn with_constraint(
        &mut self,
        tables: &mut [TableRows<'_>],
        deferred: &Deferred,
    ) -> Result<(), FlushFailure> {
        let answer = deferred.failure.answer();
        let suspect = answer.and_then(|answer| suspect(tables, answer));
        if let Some(suspect) = suspect {
            for (index, table) in tables.iter_mut().enumerate() {
                if index != suspect {
                    table.write(self.session).await?;
                }
            }
        }
        let constraint = answer.and_then(|answer| Some((answer.schema()?, answer.constraint()?)));
        let constraint = constraint.map_or("ALL".to_owned(), |(schema, name)| {
            format!("{}.{}", crate::plan::quoted(schema), crate::plan::quoted(name))
        });
        if let Some(another) = self.check_constraints(&constraint).await? {
            return Err(FlushFailure::NoRow(another.why));
        }
        match suspect {
            Some(suspect) => self.settle(tables, suspect).await?,
            None => {
                for table in 0..tables.len() {
                    self.settle(tables, table).await?;
                }
            }
        }
        self.give_second_chances(tables).await
    }

    /// From here on `constraints` are checked after every statement.
    async fn check_constraints(&self, constraints: &str) -> Result<Option<Deferred>, FlushFailure> {
        let statement = format!("SET CONSTRAINTS {constraints} IMMEDIATE");
        let call = self.session.client().batch_execute(&statement);
        match self.session.within("checking the constraints", call).await {
            Ok(()) => Ok(None),
            Err(failure) => match failure.trouble() {
                Trouble::Data(why) => Ok(Some(Deferred { why, failure })),
                _ => Err(failure.into()),
            },
        }
    }

    /// Writes a table's units, and notes those that are refused.
    async fn settle(&mut self, tables: &mut [TableRows<'_>], table: usize) -> Result<(), FlushFailure> {
        let mut open = vec![Part::new(0..tables[table].len())];
        while let Some(part) = open.pop() {
            let units = part.units.clone();
            if units.is_empty() {
                continue;
            }
            if self.is_spent() {
                break;
            }
            if units.len() > 1 && part.refused_after == Some(self.bad.len()) {
                self.halve(units, true, &mut open);
                continue;
            }
            let Some(refusal) = self.try_part(&mut tables[table], units.clone()).await? else {
                // The line was not that of the bad row.
                self.trusts_lines &= !part.is_named;
                continue;
            };
            let why = refusal.failure.trouble();
            match (why, refusal.line.filter(|_| self.trusts_lines)) {
                (Trouble::Data(why), _) if units.len() == 1 => {
                    self.bad.push(Bad { table, unit: units.start, why: with_column(why, refusal.column) });
                }
                _ if units.len() == 1 => return Err(refusal.failure.into()),
                (_, Some(line)) => split_at_line(units, line, &mut open),
                (why, None) => self.halve(units, matches!(why, Trouble::Data(_)), &mut open),
            }
        }
        Ok(())
    }

    /// `one_is_bad`: if nothing is found in the first half, the second one need not be tried as a whole.
    fn halve(&self, units: Range<usize>, one_is_bad: bool, open: &mut Vec<Part>) {
        let middle = units.start + units.len() / 2;
        let refused_after = one_is_bad.then_some(self.bad.len());
        open.push(Part { refused_after, ..Part::new(middle..units.end) });
        open.push(Part::new(units.start..middle));
    }

    /// A row may point to one that came later, or is in a table that was written later: it is tried again.
    async fn give_second_chances(&mut self, tables: &mut [TableRows<'_>]) -> Result<(), FlushFailure> {
        loop {
            let before = self.bad.len();
            for Bad { table, unit, why } in std::mem::take(&mut self.bad) {
                let dangles = why.state == "23503" && !tables[table].is_delete(unit);
                if !dangles || self.try_part(&mut tables[table], unit..unit + 1).await?.is_some() {
                    self.bad.push(Bad { table, unit, why });
                }
            }
            if self.bad.len() == before || self.bad.is_empty() {
                return Ok(());
            }
        }
    }

    /// Writes a part behind a savepoint; `None`: it was taken.
    async fn try_part(
        &mut self,
        table: &mut TableRows<'_>,
        units: Range<usize>,
    ) -> Result<Option<Refusal>, FlushFailure> {
        const DOING: &str = "searching for bad rows";
        let client = self.session.client();
        let savepoint =
            if self.has_savepoint { "RELEASE SAVEPOINT part; SAVEPOINT part" } else { "SAVEPOINT part" };
        self.session.within(DOING, client.batch_execute(savepoint)).await?;
        self.has_savepoint = true;
        self.parts += 1;
        match table.write_part(self.session, units.clone()).await {
            Ok(()) => Ok(None),
            Err(WriteFailure::Call(failure)) if concerns_rows(&failure) => {
                self.session.within(DOING, client.batch_execute("ROLLBACK TO SAVEPOINT part")).await?;
                let context = failure.answer().and_then(DbError::where_);
                let named = context.and_then(named_line).filter(|(line, _)| *line < units.len());
                let (line, column) = named.unzip();
                let column = column.flatten().filter(|name| table.has_column(name)).map(str::to_owned);
                Ok(Some(Refusal { failure, line, column }))
            }
            Err(other) => Err(other.into()),
        }
    }
}

/// The table that a violation is about.
fn suspect(tables: &[TableRows<'_>], answer: &DbError) -> Option<usize> {
    let (schema, table) = (answer.schema()?, answer.table()?);
    tables.iter().position(|rows| {
        let name = &rows.table.plan.table;
        name.schema == schema && name.table == table
    })
}

/// What stands before the named unit, the unit, and what follows in parts that grow: where every row is bad, little is
/// sent in vain.
fn split_at_line(units: Range<usize>, line: usize, open: &mut Vec<Part>) {
    let named = units.start + line;
    let mut following = Vec::new();
    let mut start = named + 1;
    let mut size = 2 * line.max(1);
    while start < units.end {
        let end = units.end.min(start.saturating_add(size));
        following.push(Part::new(start..end));
        start = end;
        size = size.saturating_mul(2);
    }
    open.extend(following.into_iter().rev());
    open.push(Part { is_named: true, ..Part::new(named..named + 1) });
    open.push(Part::new(units.start..named));
}

/// Line, from 0, and column of `COPY table, line 7, column amount`, which stands somewhere in the context of an error.
/// The rest of the context may hold values.
fn named_line(context: &str) -> Option<(usize, Option<&str>)> {
    let line = context.lines().rev().find(|line| line.starts_with("COPY ") && line.contains(", line "))?;
    let (_, numbered) = line.rsplit_once(", line ")?;
    let (number, column) = match numbered.split_once(", column ") {
        Some((number, column)) => (number, Some(column)),
        None => (numbered, None),
    };
    Some((number.parse::<usize>().ok()?.checked_sub(1)?, column))
}

fn with_column(mut why: DataError, column: Option<String>) -> DataError {
    if let (None, Some(column)) = (&why.column, column) {
        why.message = format!("{} (column `{column}`)", why.message);
        why.column = Some(column);
    }
    why
}

fn bad_record(why: DataError) -> BadRecord {
    BadRecord {
        class: format!("postgres.{}", why.condition).into(),
        path: why
            .column
            .map(|name| format!("/{}", name.replace('~', "~0").replace('/', "~1")))
            .unwrap_or_default(),
        message: why.message,
        trace: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_line_is_read_from_the_context_of_a_copy() {
        assert_eq!(named_line("COPY cash_ins, line 7"), Some((6, None)));
        assert_eq!(named_line("COPY a, line 2, b, line 12, column c d"), Some((11, Some("c d"))));
        let nested =
            "JSON data, line 1: {\"a\nPL/pgSQL function f() line 3 at RAISE\nCOPY t, line 1, column doc";
        assert_eq!(named_line(nested), Some((0, Some("doc"))));
        for other in ["", "COPY t", "COPY t, line x", "COPY t, line 0", "line 7"] {
            assert_eq!(named_line(other), None, "{other}");
        }
    }

    #[test]
    fn a_bad_row_names_its_column_as_a_pointer() {
        let why = DataError {
            state: "23502".into(),
            condition: "not_null_violation",
            message: "column may not be NULL".into(),
            column: None,
            constraint: None,
        };
        let record = bad_record(with_column(why, Some("a/b~".into())));
        assert_eq!(record.class, "postgres.not_null_violation");
        assert_eq!(record.path, "/a~1b~0");
        assert_eq!(record.message, "column may not be NULL (column `a/b~`)");
    }

    proptest! {
        #[test]
        fn a_part_is_split_at_a_line_into_all_of_its_units_in_order(
            start in 0_usize..50, length in 2_usize..400, line in 0_usize..400
        ) {
            let (units, line) = (start..start + length, line % length);
            let mut open = Vec::new();
            split_at_line(units.clone(), line, &mut open);
            let covered: Vec<usize> = open.iter().rev().flat_map(|part| part.units.clone()).collect();
            prop_assert_eq!(covered, units.clone().collect::<Vec<_>>());
            prop_assert!(open.iter().all(|part| part.units.len() < length));
            let named: Vec<&Part> = open.iter().filter(|part| part.is_named).collect();
            prop_assert_eq!(named[0].units.clone(), start + line..start + line + 1);
        }

        #[test]
        fn no_context_makes_the_reader_panic(context in "(COPY |, line |, column |[0-9]{1,25}|\n|x){0,8}") {
            let _ = named_line(&context);
        }
    }
}
