//! The last step of a transaction: positions move, and everything is committed.

use futures::future::join;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::Type;
use tracing::debug;
use txconnect_connector_api::{Advance, SinkError};

use crate::connect::Session;
use crate::error::CallFailure;
use crate::offsets::OffsetsTable;
use crate::session::Parameter;

/// Why positions and rows were not committed.
#[derive(Debug)]
pub enum CommitError {
    /// Nothing was committed: these advances, by index, do not start where their partitions are, or were taken over.
    /// All of them where it could not be found out.
    Fenced(Vec<usize>),
    /// Nobody knows whether the transaction is durable. The session is not to be used again.
    InDoubt(String),
    /// Nothing was committed, and the transaction is over.
    Failed(CallFailure),
}

impl From<CommitError> for SinkError {
    fn from(error: CommitError) -> Self {
        match error {
            CommitError::Fenced(partitions) => Self::Fenced { partitions },
            CommitError::InDoubt(cause) => Self::InDoubt { cause },
            CommitError::Failed(failure) => failure.into(),
        }
    }
}

/// Advances as the arrays of a statement.
struct Columns<'a> {
    pipeline: &'a str,
    topics: Vec<&'a str>,
    partitions: Vec<i32>,
    epochs: Vec<i64>,
    from: Vec<i64>,
    to: Vec<i64>,
    count: i64,
}

impl<'a> Columns<'a> {
    fn new(pipeline: &'a str, advances: &'a [Advance]) -> Self {
        Self {
            pipeline,
            topics: advances.iter().map(|advance| &*advance.partition.topic).collect(),
            partitions: advances.iter().map(|advance| advance.partition.partition).collect(),
            epochs: advances.iter().map(|advance| advance.epoch.0).collect(),
            from: advances.iter().map(|advance| advance.from).collect(),
            to: advances.iter().map(|advance| advance.to).collect(),
            count: i64::try_from(advances.len()).unwrap_or(i64::MAX),
        }
    }
}

/// Moves the positions and commits the open transaction of `session`, in one flight. `advances` is not empty and names
/// every partition once.
///
/// Ends within the session's time-out. After [`CommitError::Fenced`] and [`CommitError::Failed`] no transaction is open;
/// the session goes on unless it is closed.
pub async fn advance_and_commit(
    session: &Session,
    table: &OffsetsTable,
    pipeline: &str,
    advances: &[Advance],
) -> Result<(), CommitError> {
    let columns = Columns::new(pipeline, advances);
    // Locked first and in order: an UPDATE alone locks in the order of its plan.
    let statement = format!(
        "WITH wanted AS (\
           SELECT * FROM unnest($2, $3, $4, $5, $6) AS w (topic, partition, epoch, from_offset, to_offset)\
         ), held AS (\
           SELECT stored.topic, stored.partition, wanted.to_offset FROM {table} AS stored JOIN wanted \
             ON stored.topic = wanted.topic AND stored.partition = wanted.partition \
           WHERE stored.pipeline = $1 AND stored.epoch = wanted.epoch AND stored.next_offset = wanted.from_offset \
           ORDER BY stored.topic COLLATE \"C\", stored.partition FOR UPDATE OF stored\
         ), moved AS (\
           UPDATE {table} AS stored SET next_offset = held.to_offset, updated_at = now() FROM held \
           WHERE stored.pipeline = $1 AND stored.topic = held.topic AND stored.partition = held.partition RETURNING 1\
         ) SELECT 1 / (count(*) = $7)::integer FROM moved"
    );
    let parameters: [Parameter<'_>; 7] = [
        (&columns.pipeline, Type::TEXT),
        (&columns.topics, Type::TEXT_ARRAY),
        (&columns.partitions, Type::INT4_ARRAY),
        (&columns.epochs, Type::INT8_ARRAY),
        (&columns.from, Type::INT8_ARRAY),
        (&columns.to, Type::INT8_ARRAY),
        (&columns.count, Type::INT8),
    ];
    let client = session.client();
    // Both are handed to the connection before either is answered.
    let both = async {
        Ok(join(client.execute_typed(&statement, &parameters), client.batch_execute("COMMIT")).await)
    };
    let doing = "committing rows and positions";
    let (moved, committed) = match session.within(doing, both).await {
        Ok(answers) => answers,
        Err(failure) => return Err(in_doubt(&failure)),
    };
    let failed = |error| session.failure(doing, error);
    match (moved.map_err(failed), committed.map_err(failed)) {
        (Ok(_), Ok(())) => Ok(()),
        // The transaction ended with the first error; the COMMIT was a ROLLBACK, if it was answered at all.
        (Err(failure), _) if failure.is_certain() => Err(if failure.is(&SqlState::DIVISION_BY_ZERO) {
            let found = missed(session, table, pipeline, advances).await.unwrap_or_else(|error| {
                debug!(%error, "cannot tell which partitions were taken over");
                Vec::new()
            });
            CommitError::Fenced(if found.is_empty() { (0..advances.len()).collect() } else { found })
        } else {
            CommitError::Failed(failure)
        }),
        (Ok(_), Err(failure)) if failure.is_certain() => Err(CommitError::Failed(failure)),
        (_, Err(failure)) | (Err(failure), Ok(())) => {
            session.give_up();
            Err(in_doubt(&failure))
        }
    }
}

fn in_doubt(failure: &CallFailure) -> CommitError {
    CommitError::InDoubt(format!("{failure}: nobody knows yet whether the commit was made"))
}

/// Which of the advances do not start where their partitions are, or belong to an epoch that is over; by index.
pub(crate) async fn missed(
    session: &Session,
    table: &OffsetsTable,
    pipeline: &str,
    advances: &[Advance],
) -> Result<Vec<usize>, CallFailure> {
    let columns = Columns::new(pipeline, advances);
    let statement = format!(
        "SELECT wanted.number FROM unnest($2, $3, $4, $5) WITH ORDINALITY \
           AS wanted (topic, partition, epoch, from_offset, number) \
         LEFT JOIN {table} AS stored ON stored.pipeline = $1 AND stored.topic = wanted.topic \
           AND stored.partition = wanted.partition AND stored.epoch = wanted.epoch \
           AND stored.next_offset = wanted.from_offset \
         WHERE stored.topic IS NULL ORDER BY wanted.number"
    );
    let parameters: [Parameter<'_>; 5] = [
        (&columns.pipeline, Type::TEXT),
        (&columns.topics, Type::TEXT_ARRAY),
        (&columns.partitions, Type::INT4_ARRAY),
        (&columns.epochs, Type::INT8_ARRAY),
        (&columns.from, Type::INT8_ARRAY),
    ];
    let doing = "looking which partitions were taken over";
    let rows = session.within(doing, session.client().query_typed(&statement, &parameters)).await?;
    let numbers = rows.iter().map(|row| row.try_get::<_, i64>(0)).collect::<Result<Vec<_>, _>>();
    let numbers = numbers.map_err(|error| session.failure(doing, error))?;
    Ok(numbers.into_iter().filter_map(|number| usize::try_from(number).ok()?.checked_sub(1)).collect())
}
