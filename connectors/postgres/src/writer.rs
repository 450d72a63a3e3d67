//! Brings flushes to the server, each as one transaction.

use std::sync::Arc;

use futures::future::BoxFuture;
use tokio::sync::Mutex;
use txconnect_connector_api::{Advance, Batch, SinkError, Writer};

use crate::advance::missed;
use crate::blockers::Watchdog;
use crate::connect::{Session, application_name};
use crate::isolate::{Verdict, isolate};
use crate::offsets::OffsetsTable;
use crate::rows::TableRows;
use crate::sink::Shared;
use crate::transaction::{Ending, FlushFailure, end, run};

/// The writer of one lane. It has a session of its own, which is opened with the first flush and kept.
pub(crate) struct PostgresWriter {
    shared: Arc<Shared>,
    pipeline: String,
    application_name: String,
    offsets: Option<OffsetsTable>,
    /// Taken out while it is used: a call that is dropped half way takes the session with it, and the server rolls back.
    session: Mutex<Option<Session>>,
}

impl PostgresWriter {
    pub(crate) fn new(shared: Arc<Shared>, pipeline: &str, offsets: Option<OffsetsTable>) -> Self {
        Self {
            shared,
            pipeline: pipeline.to_owned(),
            application_name: application_name(pipeline),
            offsets,
            session: Mutex::new(None),
        }
    }

    async fn flush(&self, batches: &mut [Batch], advances: &[Advance]) -> Result<(), SinkError> {
        let mut tables = Vec::with_capacity(batches.len());
        for (index, batch) in batches.iter_mut().enumerate() {
            if batch.is_empty() {
                continue;
            }
            let Some(table) = self.shared.table(&batch.table) else {
                return Err(SinkError::fatal(
                    format!("no encoder was made for the table `{}`", batch.table),
                    "please report it with the pipeline file",
                ));
            };
            let rows = TableRows::new(index, table, batch);
            tables.push(rows.map_err(|damaged| SinkError::from(FlushFailure::Damaged(damaged)))?);
        }
        // The same order in every process: two of them wait for each other and do not lock each other out.
        tables.sort_by(|left, right| left.table.copy.cmp(&right.table.copy));
        if tables.is_empty() && advances.is_empty() {
            return Ok(());
        }
        let mut kept = self.session.lock().await;
        let session = match kept.take().filter(|session| !session.is_closed()) {
            Some(session) => session,
            None => self.shared.connector.connect(&self.application_name).await?,
        };
        let ending = Ending { pipeline: &self.pipeline, offsets: self.offsets.as_ref(), advances };
        let (outcome, goes_on) = transact(&session, &self.shared.watchdog, &mut tables, ending).await;
        if goes_on && !session.is_closed() {
            *kept = Some(session);
        }
        outcome
    }
}

/// Answers also whether the session has no open transaction and can be used again.
async fn transact(
    session: &Session,
    watchdog: &Watchdog,
    tables: &mut [TableRows<'_>],
    ending: Ending<'_>,
) -> (Result<(), SinkError>, bool) {
    let failure = match run(session, watchdog, tables, ending).await {
        Ok(()) => return (Ok(()), true),
        Err(failure) if failure.concerns_rows() && session.roll_back().await => {
            // Seldom needed, and large: it has its own place in memory.
            match Box::pin(search(session, watchdog, tables, ending)).await {
                Ok(rejected) => return (rejected, true),
                Err(failure) => failure,
            }
        }
        Err(failure) => failure,
    };
    for table in tables {
        table.close();
    }
    let goes_on = failure.leaves_session() && (failure.is_settled() || session.roll_back().await);
    (Err(failure.into()), goes_on)
}

/// Names the bad rows; where there are none after all, commits.
async fn search(
    session: &Session,
    watchdog: &Watchdog,
    tables: &mut [TableRows<'_>],
    ending: Ending<'_>,
) -> Result<Result<(), SinkError>, FlushFailure> {
    match Box::pin(isolate(session, watchdog, tables)).await? {
        Verdict::Written => end(session, tables, ending).await.map(Ok),
        Verdict::Rejected(rows) => {
            // To a former owner the server refuses keys that the new one has written: good records. Who still owns every
            // partition now owned them when the rows were refused.
            let fenced = match ending.offsets {
                Some(offsets) if !ending.advances.is_empty() => {
                    missed(session, offsets, ending.pipeline, ending.advances).await?
                }
                _ => Vec::new(),
            };
            if fenced.is_empty() {
                Ok(Err(SinkError::Rejected { rows }))
            } else {
                Ok(Err(SinkError::Fenced { partitions: fenced }))
            }
        }
    }
}

impl Writer for PostgresWriter {
    fn write<'a>(
        &'a self,
        batches: &'a mut [Batch],
        advances: &'a [Advance],
    ) -> BoxFuture<'a, Result<(), SinkError>> {
        Box::pin(self.flush(batches, advances))
    }
}
