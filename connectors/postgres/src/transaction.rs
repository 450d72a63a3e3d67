//! One transaction per flush: rows first, then positions and COMMIT.

use futures::future::{join, join_all};
use txconnect_connector_api::{Advance, SinkError};

use crate::blockers::{Watchdog, Watched};
use crate::connect::Session;
use crate::error::{CallFailure, DataError, Trouble};
use crate::offsets::{CommitError, OffsetsTable, advance_and_commit};
use crate::row::DamagedRow;
use crate::rows::{TableRows, WriteFailure};
use tokio_postgres::error::SqlState;

/// Why a flush is not durable.
#[derive(Debug)]
pub(crate) enum FlushFailure {
    /// A call without the wished answer, and who held the lock that it waited for.
    Call(CallFailure, Option<String>),
    /// The commit failed.
    Commit(CommitError),
    /// A row that the encoder cannot have made.
    Damaged(DamagedRow),
    /// The columns of a table are not what they were when encoders were made for it.
    Changed(String),
    /// The server refuses the flush for its data, and no single row of it.
    NoRow(DataError),
}

impl FlushFailure {
    /// Whether it may be the fault of single rows. No transaction is open then, or it can be rolled back.
    pub(crate) fn concerns_rows(&self) -> bool {
        match self {
            Self::Call(failure, _) | Self::Commit(CommitError::Failed(failure)) => concerns_rows(failure),
            _ => false,
        }
    }

    /// Whether the session goes on once the transaction is rolled back.
    pub(crate) fn leaves_session(&self) -> bool {
        match self {
            Self::Commit(CommitError::Fenced(_)) | Self::Damaged(_) | Self::NoRow(_) => true,
            Self::Call(failure, _) | Self::Commit(CommitError::Failed(failure)) => {
                matches!(failure.trouble(), Trouble::Data(_))
            }
            Self::Commit(CommitError::InDoubt(_)) | Self::Changed(_) => false,
        }
    }
}

/// Whether the server refuses what rows hold: one of them alone, or two that it takes for one key (`21000`).
pub(crate) fn concerns_rows(failure: &CallFailure) -> bool {
    failure.is(&SqlState::CARDINALITY_VIOLATION) || matches!(failure.trouble(), Trouble::Data(_))
}

impl From<WriteFailure> for FlushFailure {
    fn from(failure: WriteFailure) -> Self {
        match failure {
            WriteFailure::Call(failure) => Self::Call(failure, None),
            WriteFailure::Damaged(damaged) => Self::Damaged(damaged),
        }
    }
}

impl From<CallFailure> for FlushFailure {
    fn from(failure: CallFailure) -> Self {
        Self::Call(failure, None)
    }
}

impl From<FlushFailure> for SinkError {
    fn from(failure: FlushFailure) -> Self {
        match failure {
            FlushFailure::Call(failure, Some(blockers)) => match failure.trouble() {
                Trouble::Away { cause } => {
                    Self::transient(format!("{cause}; in the way: {blockers}, which is not ours to end"))
                }
                trouble => trouble.into(),
            },
            FlushFailure::Call(failure, None) => failure.into(),
            FlushFailure::Commit(error) => error.into(),
            FlushFailure::Damaged(damaged) => {
                Self::fatal(damaged.to_string(), "please report it with the pipeline file and the schema")
            }
            FlushFailure::Changed(table) => Self::fatal(
                format!(
                    "the columns of `{table}` were changed, or the table was dropped, while rows were on their way"
                ),
                "nothing was written; the table is looked at anew when the pipeline restarts",
            ),
            FlushFailure::NoRow(data) => Self::fatal(
                format!(
                    "PostgreSQL refuses the rows together and none of them alone: {} ({})",
                    data.message, data.state
                ),
                "check the deferred constraints and the triggers of the tables",
            ),
        }
    }
}

/// What makes a transaction durable.
#[derive(Clone, Copy)]
pub(crate) struct Ending<'a> {
    pub(crate) pipeline: &'a str,
    /// `None` where the sink keeps no positions.
    pub(crate) offsets: Option<&'a OffsetsTable>,
    pub(crate) advances: &'a [Advance],
}

/// Begins a transaction and makes its statements, in one flight. Answers the server's process.
pub(crate) async fn begin(session: &Session, tables: &mut [TableRows<'_>]) -> Result<i32, CallFailure> {
    // A client that falls silent between two statements is ended by the server; one that does in mid-COPY is not.
    let settings = format!(
        "SET LOCAL idle_in_transaction_session_timeout = {}; SET LOCAL lock_timeout = {}; \
         SET LOCAL client_min_messages = error;",
        session.timeout().as_millis(),
        session.lock_timeout()
    );
    let statements = join_all(tables.iter_mut().map(|table| table.prepare(session)));
    let (begun, prepared) = join(session.begin(&settings), statements).await;
    let begun = begun?;
    prepared.into_iter().collect::<Result<Vec<()>, _>>()?;
    Ok(begun.pid)
}

/// Rolls the transaction back, with its statements closed before: behind a pool they would be left on a connection that
/// others use next. `false`: the session is over.
pub(crate) async fn roll_back(session: &Session, tables: &mut [TableRows<'_>]) -> bool {
    for table in tables {
        table.close();
    }
    session.roll_back().await
}

/// Writes all rows and ends the transaction. After an error it may still be open.
pub(crate) async fn run(
    session: &Session,
    watchdog: &Watchdog,
    tables: &mut [TableRows<'_>],
    ending: Ending<'_>,
) -> Result<(), FlushFailure> {
    let pid = begin(session, tables).await?;
    watched(session, watchdog, pid, write_all(session, tables)).await?;
    end(session, tables, ending).await
}

async fn write_all(session: &Session, tables: &mut [TableRows<'_>]) -> Result<(), FlushFailure> {
    for table in tables {
        table.write(session).await?;
    }
    Ok(())
}

/// Runs what may wait for locks of others, and says who they are where it fails.
pub(crate) async fn watched<T>(
    session: &Session,
    watchdog: &Watchdog,
    pid: i32,
    call: impl Future<Output = Result<T, FlushFailure>>,
) -> Result<T, FlushFailure> {
    let Watched { outcome, waited_for } = watchdog.watch(pid, session.application_name(), call).await;
    outcome.map_err(|failure| match failure {
        FlushFailure::Call(failure, None) => FlushFailure::Call(failure, waited_for),
        other => other,
    })
}

/// Moves the positions and commits, if the tables are still what they were: the rows hold their locks, so from here on
/// nobody alters them. All of it is one flight.
pub(crate) async fn end(
    session: &Session,
    tables: &mut [TableRows<'_>],
    ending: Ending<'_>,
) -> Result<(), FlushFailure> {
    for table in &mut *tables {
        table.close();
    }
    // The check goes out first: where it fails, the COMMIT behind it rolls back.
    let (unchanged, committed) = join(check_unchanged(session, tables), commit(session, ending)).await;
    unchanged?;
    committed
}

async fn commit(session: &Session, ending: Ending<'_>) -> Result<(), FlushFailure> {
    match ending.offsets {
        Some(offsets) if !ending.advances.is_empty() => {
            advance_and_commit(session, offsets, ending.pipeline, ending.advances)
                .await
                .map_err(FlushFailure::Commit)
        }
        _ => {
            let call = session.client().batch_execute("COMMIT");
            Ok(session.within("committing", call).await?)
        }
    }
}

/// Finds tables whose columns are not what they were when encoders were made for them. Without this, bytes of one type
/// could end in a column of another one that takes them.
///
/// Fails with [`FlushFailure::Changed`] alone: other troubles are found by the statement behind it.
pub(crate) async fn check_unchanged(session: &Session, tables: &[TableRows<'_>]) -> Result<(), FlushFailure> {
    let checks: Vec<&str> = tables.iter().filter_map(|table| table.table.unchanged.as_deref()).collect();
    if checks.is_empty() {
        return Ok(());
    }
    let statement = format!("SELECT 1 / ({})::integer", checks.join(" AND "));
    let call = session.client().batch_execute(&statement);
    match session.within("checking the tables", call).await {
        Err(failure) if failure.is(&SqlState::DIVISION_BY_ZERO) => {
            let names: Vec<String> = tables.iter().map(|table| table.table.name()).collect();
            Err(FlushFailure::Changed(names.join("` or `")))
        }
        _ => Ok(()),
    }
}
