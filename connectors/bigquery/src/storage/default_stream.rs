//! Rows that are visible as soon as they are confirmed: every table's default stream.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use futures::future::BoxFuture;
use futures::stream::FuturesOrdered;
use txconnect_connector_api::{Advance, BadRecord, Batch, SinkError, Writer};

use super::connection::{Answer, Connection};
use super::refusal::{Meaning, Refusal};
use super::row_errors::refused_rows;
use super::target::Target;
use super::{Lent, Storage};
use crate::outcome::{Outcome, settle};
use crate::sink::Shared;

/// How many `AppendRows` calls a lane has at most. The tables of the lane share them, and one that is idle is used before
/// another is made. A call is worth 6 MB/s at a distance from Google, two are worth twice that; against the local server
/// one takes 4 million rows a second and four take 6 to 12.
const CONNECTIONS: usize = 4;

/// Rows that were refused are cut out and the others sent again, at most so often in one call of the runtime.
const MOST_ROUNDS: usize = 8;

/// A call that the server ends is made again without telling anybody, where not more time than this has passed.
const AT_ONCE: Duration = Duration::from_secs(5);

/// So many characters of the pipeline's name go into the id for tracing: room is kept for it in every request.
const TRACED_CHARACTERS: usize = 60;

/// Writes the batches of one lane.
pub(crate) struct DefaultStreamWriter {
    shared: Arc<Shared>,
    storage: Arc<Storage>,
    connections: Vec<Loaded>,
}

/// A connection and how many bytes are on their way on it.
struct Loaded {
    connection: Connection,
    bytes: AtomicUsize,
}

impl Loaded {
    async fn append(&self, target: &Arc<Target>, lent: &Lent<'_>) -> Answer {
        let _load = Load::on(&self.bytes, lent.bytes.len());
        let stream = Arc::clone(&target.default_stream);
        self.connection.append(Arc::clone(target), stream, None, lent.bytes.clone()).await
    }
}

/// Bytes that count as on their way for as long as this lives.
struct Load<'a> {
    all: &'a AtomicUsize,
    bytes: usize,
}

impl<'a> Load<'a> {
    fn on(all: &'a AtomicUsize, bytes: usize) -> Self {
        all.fetch_add(bytes, Ordering::Relaxed);
        Self { all, bytes }
    }
}

impl Drop for Load<'_> {
    fn drop(&mut self) {
        self.all.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// What an answer means for the rows that were sent.
enum Verdict {
    Stored,
    /// These rows, by position among those that were sent, are refused; the others can be sent again.
    Refused(Vec<(usize, BadRecord)>),
    /// The call is over: another one may go better.
    CallOver(SinkError),
    Failed(SinkError),
}

impl DefaultStreamWriter {
    /// A writer for one lane of `pipeline`. Needs a tokio runtime.
    pub(crate) fn new(shared: Arc<Shared>, storage: Arc<Storage>, pipeline: &str) -> Self {
        let name: String = pipeline.chars().take(TRACED_CHARACTERS).collect();
        let trace_id: Arc<str> = format!("txconnect:{name}").into();
        let connections = (0..CONNECTIONS)
            .map(|_| Loaded {
                connection: Connection::new(Arc::clone(&storage.link), Arc::clone(&trace_id)),
                bytes: AtomicUsize::new(0),
            })
            .collect();
        Self { shared, storage, connections }
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
        if let Err(error) = self.shared.ensure(&table).await {
            return Outcome::failed(error);
        }
        let target = self.storage.target(&table, &self.shared.config);
        self.send(batch, &target).await
    }

    /// Sends the rows until they are in, refused, or the server needs time.
    async fn send(&self, batch: &mut Batch, target: &Arc<Target>) -> Outcome {
        let all = batch.rows.len();
        let started = Instant::now();
        let mut outcome = Outcome::default();
        let mut call_was_over = false;
        for _ in 0..MOST_ROUNDS {
            // Rows that are refused stay out. Nothing of the others is in yet.
            let others: Vec<usize> = if outcome.refused.is_empty() {
                Vec::new()
            } else {
                let refused: HashSet<usize> = outcome.refused.iter().map(|(row, _)| *row).collect();
                (0..all).filter(|row| !refused.contains(row)).collect()
            };
            let rows = all - outcome.refused.len();
            if rows == 0 {
                return outcome;
            }
            batch.requests += 1;
            let answer = if outcome.refused.is_empty() {
                let lent = Lent::new(&mut batch.bytes);
                self.freest().append(target, &lent).await
            } else {
                let mut bytes: Vec<u8> =
                    others.iter().flat_map(|&row| batch.row_bytes(row)).copied().collect();
                let lent = Lent::new(&mut bytes);
                self.freest().append(target, &lent).await
            };
            match verdict(answer, rows, target) {
                Verdict::Stored => {
                    outcome.durable = vec![true; all];
                    for (row, _) in &outcome.refused {
                        outcome.durable[*row] = false;
                    }
                    return outcome;
                }
                Verdict::Refused(refused) => {
                    let in_batch = refused
                        .into_iter()
                        .map(|(position, why)| (others.get(position).copied().unwrap_or(position), why));
                    outcome.refused.extend(in_batch);
                }
                Verdict::CallOver(_) if !call_was_over && started.elapsed() < AT_ONCE => {
                    call_was_over = true;
                }
                Verdict::CallOver(error) | Verdict::Failed(error) => {
                    outcome.failure = Some(error);
                    return outcome;
                }
            }
        }
        // The runtime takes the refused rows out and calls again.
        outcome
    }

    fn freest(&self) -> &Loaded {
        let mut freest = &self.connections[0];
        for loaded in &self.connections[1..] {
            if loaded.bytes.load(Ordering::Relaxed) < freest.bytes.load(Ordering::Relaxed) {
                freest = loaded;
            }
        }
        freest
    }
}

fn verdict(answer: Answer, rows: usize, target: &Target) -> Verdict {
    let doing = format!("appending to the table `{}`", target.table.name);
    let failed = |refusal: &Refusal| {
        let cause = refusal.cause(&doing);
        match refusal.meaning {
            Meaning::Missing => {
                target.not_known_yet(cause, "check that the table exists, and that no other program drops it")
            }
            Meaning::UnknownColumn => target.not_known_yet(
                format!("{cause}: the server does not know all columns"),
                "compare the table with the schema: a column was dropped or renamed",
            ),
            _ => refusal.to_sink_error(&doing),
        }
    };
    match answer {
        Answer::Stored { .. } => {
            target.is_known();
            Verdict::Stored
        }
        Answer::Refused { refusal, rows: errors } if !errors.is_empty() => {
            match refused_rows(&errors, rows, &target.columns) {
                Some(refused) => Verdict::Refused(refused.into_iter().collect()),
                None => Verdict::Failed(SinkError::transient(format!(
                    "{}; the answer names rows that were not sent",
                    refusal.cause(&doing)
                ))),
            }
        }
        Answer::Refused { refusal, .. } => Verdict::Failed(failed(&refusal)),
        Answer::Ended { refusal, .. } | Answer::Unsent { refusal } => {
            if refusal.meaning == Meaning::Passing && refusal.retry_after().is_none() {
                Verdict::CallOver(refusal.to_sink_error(&doing))
            } else {
                Verdict::Failed(failed(&refusal))
            }
        }
    }
}

impl Writer for DefaultStreamWriter {
    /// Leaves the batches as they are where all rows are in.
    fn write<'a>(
        &'a self,
        batches: &'a mut [Batch],
        _advances: &'a [Advance],
    ) -> BoxFuture<'a, Result<(), SinkError>> {
        Box::pin(async move {
            let outcomes = if let [batch] = batches {
                vec![self.write_batch(batch).await]
            } else {
                let writes: FuturesOrdered<_> =
                    batches.iter_mut().map(|batch| self.write_batch(batch)).collect();
                writes.collect().await
            };
            settle(batches, outcomes)
        })
    }
}
