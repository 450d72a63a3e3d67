//! Sends batches as insertAll requests and says which rows are in.

use std::ops::Range;
use std::sync::Arc;

use futures::StreamExt as _;
use futures::future::BoxFuture;
use gcp_bigquery_client::model::table_data_insert_all_request::TableDataInsertAllRequestGzipped;
use tracing::warn;
use txconnect_connector_api::{Advance, Batch, SinkError, Writer};

use crate::answers::{RowErrors, Verdict, judge, too_large};
use crate::encode::request_body;
use crate::error::CallError;
use crate::outcome::{Outcome, settle};
use crate::sink::Shared;
use crate::table::Table;

/// How many tables of one flush are written to at once.
const TABLES_AT_ONCE: usize = 4;

/// Writes the batches of one lane.
pub(crate) struct BigQueryWriter {
    shared: Arc<Shared>,
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
        match self.shared.ensure(&table).await {
            Ok(()) => self.send(batch, &table).await,
            Err(error) => Outcome::failed(error),
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
            settle(batches, outcomes)
        })
    }
}
