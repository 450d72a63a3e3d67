//! Sends batches as insertAll requests and says which rows are in.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use futures::future::BoxFuture;
use gcp_bigquery_client::model::table_data_insert_all_request::TableDataInsertAllRequestGzipped;
use tracing::warn;
use txconnect_connector_api::{Advance, BadRecord, Batch, RejectedRow, SinkError, Writer};

use crate::answers::{RowErrors, Verdict, judge, too_large};
use crate::encode::request_body;
use crate::error::CallError;
use crate::sink::Shared;
use crate::table::Table;

/// How many tables of one flush are written to at once.
const TABLES_AT_ONCE: usize = 4;

/// Looking at a table and creating it with its dataset takes up to four calls.
const CALLS_TO_ENSURE: u32 = 5;

/// Writes the batches of one lane.
pub(crate) struct BigQueryWriter {
    shared: Arc<Shared>,
}

/// What became of one batch.
#[derive(Default)]
struct Outcome {
    /// Per row whether it is in the table; empty where none is.
    durable: Vec<bool>,
    refused: Vec<(usize, BadRecord)>,
    failure: Option<SinkError>,
}

impl Outcome {
    fn failed(error: SinkError) -> Self {
        Self { failure: Some(error), ..Self::default() }
    }

    fn mark(&mut self, rows: Range<usize>, all: usize) {
        self.durable.resize(all, false);
        self.durable[rows].fill(true);
    }
}

impl BigQueryWriter {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    async fn write_batch(&self, batch: &mut Batch) -> Outcome {
        if batch.is_empty() {
            return Outcome::default();
        }
        let Some(table) = self.shared.table(&batch.table) else {
            return Outcome::failed(SinkError::Fatal {
                cause: format!("rows for the table `{}` came without an encoder of this sink", batch.table),
                hint: None,
            });
        };
        let deadline = self.shared.config.timeout.0 * CALLS_TO_ENSURE;
        let ensured = tokio::time::timeout(deadline, table.ensure(&self.shared.server, &self.shared.config));
        match ensured.await {
            Ok(Ok(())) => self.send(batch, &table).await,
            Ok(Err(error)) => Outcome::failed(error),
            Err(_) => Outcome::failed(SinkError::transient(format!(
                "looking at the table `{}`: no answer within the time limit",
                table.name
            ))),
        }
    }

    /// Sends the batch in one request, or in halves of halves where the server finds it too large.
    async fn send(&self, batch: &mut Batch, table: &Table) -> Outcome {
        let doing = format!("inserting into the table `{}`", table.name);
        let all = batch.rows.len();
        let mut outcome = Outcome::default();
        let mut to_send: Vec<Range<usize>> = std::iter::once(0..all).collect();
        while let Some(rows) = to_send.pop() {
            let sealed = if rows.len() == all { batch.sealed.take() } else { None };
            let body = if let Some(body) = sealed {
                body
            } else {
                let bytes = &batch.bytes[batch.row_start(rows.start)..batch.rows[rows.end - 1].end];
                match request_body(bytes, self.shared.config.compression()) {
                    Ok(body) => body,
                    Err(error) => {
                        outcome.failure = Some(SinkError::transient(format!("{doing}: {error}")));
                        break;
                    }
                }
            };
            batch.requests += 1;
            match self.insert_all(table, body).await {
                Ok(errors) => match judge(&errors, rows.len()) {
                    Verdict::AllIn => outcome.mark(rows, all),
                    Verdict::AllInBut { missing, reasons } => {
                        let start = rows.start;
                        outcome.mark(rows, all);
                        for position in &missing {
                            outcome.durable[start + position] = false;
                        }
                        let count = missing.len();
                        let cause = format!("{doing}: {count} rows were not taken for now ({reasons})");
                        outcome.failure = Some(SinkError::transient(cause));
                    }
                    Verdict::NoneIn { refused, unknown_column } => {
                        if unknown_column {
                            table.forget();
                        }
                        if refused.is_empty() {
                            let why = if unknown_column {
                                "the server does not know all columns yet"
                            } else {
                                "the server stopped without naming a row"
                            };
                            outcome.failure = Some(SinkError::transient(format!("{doing}: {why}")));
                        }
                        let start = rows.start;
                        outcome.refused.extend(refused.into_iter().map(|(row, why)| (start + row, why)));
                    }
                    Verdict::Unclear => {
                        let cause = format!("{doing}: the answer names rows that were not sent");
                        outcome.failure = Some(SinkError::transient(cause));
                    }
                },
                Err(CallError::Refused(refusal)) if refusal.is_too_large() => {
                    if rows.len() == 1 {
                        outcome.refused.push((rows.start, too_large()));
                    } else {
                        warn!(table = %table.name, rows = rows.len(), "the request is too large for the server: sending halves");
                        let middle = rows.start + rows.len() / 2;
                        to_send.push(middle..rows.end);
                        to_send.push(rows.start..middle);
                    }
                }
                Err(error) if error.status() == Some(404) => {
                    table.forget();
                    outcome.failure = Some(SinkError::transient(format!(
                        "{doing}: the server does not know the table (it takes minutes until a new one is known everywhere)"
                    )));
                    break;
                }
                Err(error) => {
                    outcome.failure = Some(error.into_sink_error(&doing));
                    break;
                }
            }
        }
        outcome
    }

    async fn insert_all(&self, table: &Table, body: Vec<u8>) -> Result<Vec<RowErrors>, CallError> {
        let config = &self.shared.config;
        let session = self.shared.server.session().await?;
        let answer = session
            .client
            .tabledata()
            .insert_all_gzipped(
                &config.project,
                &config.dataset,
                &table.id,
                TableDataInsertAllRequestGzipped::new(body),
            )
            .await?;
        Ok(answer.insert_errors.unwrap_or_default())
    }
}

impl Writer for BigQueryWriter {
    /// Leaves the batches as they are where all rows are in.
    fn write<'a>(
        &'a self,
        batches: &'a mut [Batch],
        _advances: &'a [Advance],
    ) -> BoxFuture<'a, Result<(), SinkError>> {
        Box::pin(async move {
            let outcomes: Vec<Outcome> = if let [batch] = batches {
                vec![self.write_batch(batch).await]
            } else {
                let mut writes = Vec::with_capacity(batches.len());
                for batch in batches.iter_mut() {
                    writes.push(self.write_batch(batch));
                }
                futures::stream::iter(writes).buffered(TABLES_AT_ONCE).collect().await
            };
            if outcomes.iter().all(|outcome| outcome.failure.is_none() && outcome.refused.is_empty()) {
                return Ok(());
            }
            Err(settle(batches, outcomes))
        })
    }
}

/// Cuts the rows that are in out of the batches and makes one error of all.
fn settle(batches: &mut [Batch], outcomes: Vec<Outcome>) -> SinkError {
    let mut rejected = Vec::new();
    let mut failures = Vec::new();
    for (index, (batch, outcome)) in batches.iter_mut().zip(outcomes).enumerate() {
        let in_table = |row: usize| outcome.durable.get(row).copied().unwrap_or(false);
        for (row, why) in outcome.refused {
            let left_before = (0..row).filter(|earlier| !in_table(*earlier)).count();
            rejected.push(RejectedRow { batch: index, row: left_before, why });
        }
        batch.retain_rows(|row, _| !in_table(row));
        failures.extend(outcome.failure);
    }
    rejected.sort_unstable_by_key(|rejected| (rejected.batch, rejected.row));
    if let Some(fatal) = failures.iter().position(|failure| matches!(failure, SinkError::Fatal { .. })) {
        return failures.swap_remove(fatal);
    }
    if !rejected.is_empty() {
        return SinkError::Rejected { rows: rejected };
    }
    let mut causes = Vec::new();
    let mut longest: Option<Duration> = None;
    for failure in failures {
        if let SinkError::Transient { cause, retry_after } = failure {
            longest = longest.max(retry_after);
            if !causes.contains(&cause) {
                causes.push(cause);
            }
        }
    }
    SinkError::Transient { cause: causes.join("; "), retry_after: longest }
}
