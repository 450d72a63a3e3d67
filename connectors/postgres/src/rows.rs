//! The rows of one batch on their way into their table, as a whole or in parts.

use std::ops::Range;
use std::sync::Arc;

use futures::TryFutureExt;
use tokio_postgres::Statement;
use tokio_postgres::types::{ToSql, Type};
use txconnect_connector_api::Batch;
use txconnect_connector_api::batch::Row;

use crate::arrays::{ColumnArray, transpose};
use crate::connect::Session;
use crate::copy::{Lent, copy};
use crate::error::CallFailure;
use crate::merge::{Change, Changes, resolve};
use crate::row::DamagedRow;
use crate::statements::Table;

/// Why rows were not written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WriteFailure {
    /// A call without the wished answer.
    #[error(transparent)]
    Call(#[from] CallFailure),
    /// A row that the encoder cannot have made.
    #[error(transparent)]
    Damaged(#[from] DamagedRow),
}

/// What a batch does to its table. A unit is a row of it, or one change of a key.
pub(crate) struct TableRows<'a> {
    /// Which batch of the flush.
    pub(crate) batch: usize,
    pub(crate) table: Arc<Table>,
    doing: String,
    requests: &'a mut u64,
    units: Units<'a>,
}

enum Units<'a> {
    /// Every row is a new row of the table. The statement lives as long as the transaction.
    New { bytes: Lent<'a>, rows: &'a [Row], copy: Option<Statement> },
    /// `ordered` is made when parts are asked for.
    Keyed { bytes: &'a [u8], rows: &'a [Row], changes: Changes, ordered: Vec<Change> },
}

impl<'a> TableRows<'a> {
    pub(crate) fn new(index: usize, table: Arc<Table>, batch: &'a mut Batch) -> Result<Self, DamagedRow> {
        let Batch { bytes, rows, requests, .. } = batch;
        let units = if table.plan.mode.is_keyed() {
            let (bytes, rows): (&[u8], &[Row]) = (bytes, rows);
            let changes = resolve(&table.plan, rows, |row| row_bytes(bytes, rows, row))?;
            Units::Keyed { bytes, rows, changes, ordered: Vec::new() }
        } else {
            Units::New { bytes: Lent::new(bytes), rows, copy: None }
        };
        let doing = format!("writing to `{}`", table.name());
        Ok(Self { batch: index, table, doing, requests, units })
    }

    /// Makes the statement of COPY, where one is needed. To be called in every transaction, before the first row.
    pub(crate) async fn prepare(&mut self, session: &Session) -> Result<(), CallFailure> {
        if let Units::New { copy, .. } = &mut self.units {
            let prepared = session.client().prepare_typed(&self.table.copy, &[]);
            *copy = Some(session.within(&self.doing, prepared).await?);
        }
        Ok(())
    }

    /// Closes the statement of COPY. To be called before the transaction ends.
    pub(crate) fn close(&mut self) {
        if let Units::New { copy, .. } = &mut self.units {
            *copy = None;
        }
    }

    /// How many units there are.
    pub(crate) fn len(&self) -> usize {
        match &self.units {
            Units::New { rows, .. } => rows.len(),
            Units::Keyed { changes, .. } => changes.deletes.len() + changes.puts.len(),
        }
    }

    /// The row behind a unit.
    pub(crate) fn row(&mut self, unit: usize) -> usize {
        self.change(unit).row
    }

    /// Whether a unit deletes a row.
    pub(crate) fn is_delete(&mut self, unit: usize) -> bool {
        self.change(unit).is_delete
    }

    /// Whether rows bring a column of this name.
    pub(crate) fn has_column(&self, name: &str) -> bool {
        self.table.plan.columns.iter().any(|column| column.name == name)
    }

    fn change(&mut self, unit: usize) -> Change {
        match &mut self.units {
            Units::New { .. } => Change { row: unit, is_delete: false },
            Units::Keyed { changes, ordered, .. } => in_order(changes, ordered)[unit],
        }
    }

    /// Writes all rows.
    pub(crate) async fn write(&mut self, session: &Session) -> Result<(), WriteFailure> {
        match &self.units {
            Units::New { rows, .. } => {
                let all = 0..rows.len();
                self.write_part(session, all).await
            }
            Units::Keyed { bytes, rows, changes, .. } => {
                let keyed = Keyed { table: &self.table, doing: &self.doing, bytes, rows };
                keyed.write(session, &changes.deletes, &changes.puts, self.requests).await
            }
        }
    }

    /// Writes some of the units. Parts one after the other do what the whole does.
    pub(crate) async fn write_part(
        &mut self,
        session: &Session,
        part: Range<usize>,
    ) -> Result<(), WriteFailure> {
        match &mut self.units {
            Units::New { bytes, rows, copy: Some(statement) } => {
                *self.requests += 1;
                let bytes = bytes.part(start_of(rows, part.start)..start_of(rows, part.end));
                Ok(copy(session, statement, &self.doing, bytes).await?)
            }
            Units::New { copy: None, .. } => {
                self.prepare(session).await?;
                Box::pin(self.write_part(session, part)).await
            }
            Units::Keyed { bytes, rows, changes, ordered } => {
                let (deletes, puts): (Vec<Change>, Vec<Change>) =
                    in_order(changes, ordered)[part].iter().partition(|change| change.is_delete);
                let numbers = |changes: Vec<Change>| changes.iter().map(|change| change.row).collect();
                let (deletes, puts): (Vec<usize>, Vec<usize>) = (numbers(deletes), numbers(puts));
                let keyed = Keyed { table: &self.table, doing: &self.doing, bytes, rows };
                keyed.write(session, &deletes, &puts, self.requests).await
            }
        }
    }
}

fn in_order<'c>(changes: &Changes, ordered: &'c mut Vec<Change>) -> &'c [Change] {
    if ordered.is_empty() {
        *ordered = changes.in_arrival_order();
    }
    ordered
}

fn start_of(rows: &[Row], row: usize) -> usize {
    if row == 0 { 0 } else { rows[row - 1].end }
}

fn row_bytes<'b>(bytes: &'b [u8], rows: &[Row], row: usize) -> &'b [u8] {
    &bytes[start_of(rows, row)..rows[row].end]
}

/// Rows with a key, and what it takes to write some of them.
struct Keyed<'r> {
    table: &'r Table,
    doing: &'r str,
    bytes: &'r [u8],
    rows: &'r [Row],
}

impl Keyed<'_> {
    async fn write(
        &self,
        session: &Session,
        deletes: &[usize],
        puts: &[usize],
        requests: &mut u64,
    ) -> Result<(), WriteFailure> {
        if !deletes.is_empty() {
            *requests += 1;
            self.send(session, &self.table.delete, &self.table.delete_columns, deletes).await?;
        }
        if !puts.is_empty() {
            *requests += 1;
            let all: Vec<usize> = (0..self.table.plan.columns.len()).collect();
            self.send(session, &self.table.put, &all, puts).await?;
        }
        Ok(())
    }

    async fn send(
        &self,
        session: &Session,
        statement: &str,
        columns: &[usize],
        rows: &[usize],
    ) -> Result<(), WriteFailure> {
        // The operation is in front of the tuple.
        let tuples = rows.iter().map(|&row| &row_bytes(self.bytes, self.rows, row)[1..]);
        let arrays = transpose(&self.table.plan.columns, columns, tuples)?;
        let parameters: Vec<(&(dyn ToSql + Sync), Type)> = arrays
            .iter()
            .map(|(array, array_type): &(ColumnArray, Type)| (array as _, array_type.clone()))
            .collect();
        let call = session.client().execute_typed(statement, &parameters);
        session.within(self.doing, call.map_ok(|_| ())).await?;
        Ok(())
    }
}
