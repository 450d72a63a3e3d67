//! Streams whose rows stay invisible until they are flushed: BigQuery's `BUFFERED` type.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::future::BoxFuture;
use gcp_bigquery_client::google::cloud::bigquery::storage::v1::write_stream::Type;
use gcp_bigquery_client::google::cloud::bigquery::storage::v1::{
    CreateWriteStreamRequest, FinalizeWriteStreamRequest, FlushRowsRequest, WriteStream,
};
use tokio::time::Instant;
use txconnect_connector_api::{
    Appended, Batch, Published, SinkError, StreamName, StreamPosition, WriteStreams,
};

use super::connection::{Answer, Connection};
use super::creations::Creations;
use super::name::{NotAStream, StreamPath};
use super::refusal::{Meaning, Refusal};
use super::row_errors::refused_rows;
use super::target::Target;
use super::{Lent, Storage};
use crate::sink::Shared;
use crate::table::Table;

/// Connections that nobody has used for so long are forgotten: their partitions have gone elsewhere.
const FORGOTTEN_AFTER: Duration = Duration::from_mins(15);

/// How long a stream may take until all servers know it.
const NEW_STREAM: Duration = Duration::from_mins(1);

const DROPPED_HINT: &str =
    "check whether the table was dropped and made anew; restart the pipeline once it is there to stay";

/// The streams of one sink.
pub(crate) struct TableStreams {
    shared: Arc<Shared>,
    storage: Arc<Storage>,
    trace_id: Arc<str>,
    creations: Creations,
    open: Mutex<HashMap<StreamName, Open>>,
}

/// A stream that rows are appended to.
#[derive(Clone)]
struct Open {
    connection: Connection,
    /// BigQuery's name of the stream.
    stream: Arc<str>,
    used: Instant,
    /// When we created it, if we did.
    created: Option<Instant>,
    /// Whether the server has taken rows for it.
    is_known: Arc<AtomicBool>,
}

impl Open {
    /// Whether the server may not know the stream yet, because it is too new.
    fn may_be_unknown(&self) -> bool {
        !self.is_known.load(Ordering::Relaxed)
            && self.created.is_some_and(|created| created.elapsed() < NEW_STREAM)
    }
}

impl TableStreams {
    pub(crate) fn new(shared: Arc<Shared>, storage: Arc<Storage>) -> Self {
        let trace_id = concat!("txconnect:", env!("CARGO_PKG_VERSION")).into();
        Self { shared, storage, trace_id, creations: Creations::default(), open: Mutex::default() }
    }

    fn table(&self, name: &str) -> Result<Arc<Table>, SinkError> {
        self.shared.table(name).ok_or_else(|| SinkError::Fatal {
            cause: format!("rows for the table `{name}` came without an encoder of this sink"),
            hint: None,
        })
    }

    /// The stream called `name`, with a connection of its own, which makes no call before there are rows.
    fn stream(&self, name: &StreamName, created: Option<Instant>) -> Result<Open, NotAStream> {
        let now = Instant::now();
        let mut all = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(open) = all.get_mut(name) {
            open.used = now;
            return Ok(open.clone());
        }
        let open = Open {
            stream: StreamPath::from_kafka(&name.0)?.for_server().into(),
            connection: Connection::new(Arc::clone(&self.storage.link), Arc::clone(&self.trace_id)),
            used: now,
            created,
            is_known: Arc::default(),
        };
        all.retain(|_, open| now.saturating_duration_since(open.used) < FORGOTTEN_AFTER);
        all.insert(name.clone(), open.clone());
        Ok(open)
    }

    async fn open_stream(&self, table: &str) -> Result<StreamName, SinkError> {
        let table = self.table(table)?;
        self.shared.ensure(&table).await?;
        let target = self.storage.target(&table, &self.shared.config);
        let doing = format!("opening a stream into the table `{}`", table.name);
        let wait = self.creations.book(Instant::now());
        if wait > self.storage.link.timeout() {
            let cause = format!("{doing}: many streams are being opened, and BigQuery limits how many");
            return Err(SinkError::Transient { cause, retry_after: Some(wait) });
        }
        tokio::time::sleep(wait).await;
        let request = CreateWriteStreamRequest {
            parent: target.path.clone(),
            write_stream: Some(WriteStream { r#type: Type::Buffered.into(), ..WriteStream::default() }),
        };
        let created = self
            .storage
            .link
            .call(("parent", &target.path), request, async |mut client, request| {
                client.create_write_stream(request).await
            })
            .await;
        match created {
            Ok(stream) => {
                target.is_known();
                let name = StreamPath::from_server(&stream.name).map(|path| path.for_kafka());
                let opened = name.and_then(|name| self.stream(&name, Some(Instant::now())).map(|_| name));
                opened.map_err(|_| {
                    let hint = "check `storage_endpoint`: this is not BigQuery's Storage Write API";
                    SinkError::fatal(format!("{doing}: the server gave a stream without a name"), hint)
                })
            }
            // `Table::ensure` has just seen the table, or made it.
            Err(refusal) if refusal.meaning == Meaning::Missing => {
                Err(target.not_known_yet(refusal.cause(&doing), DROPPED_HINT))
            }
            Err(refusal) => Err(refusal.to_sink_error(&doing)),
        }
    }

    async fn append_batch(&self, to: &StreamPosition, batch: &mut Batch) -> Appended {
        let table = match self.table(&batch.table) {
            Ok(table) => table,
            Err(error) => return Appended::NotStored(error),
        };
        let target = self.storage.target(&table, &self.shared.config);
        let doing = format!("appending to the table `{}`", table.name);
        let Ok(open) = self.stream(&to.stream, None) else {
            return Appended::NotStored(not_a_stream(&doing));
        };
        batch.requests += 1;
        let rows = batch.rows.len();
        let lent = Lent::new(&mut batch.bytes);
        let stream = Arc::clone(&open.stream);
        let append = open.connection.append(Arc::clone(&target), stream, Some(to.offset), lent.bytes.clone());
        let answer = append.await;
        drop(lent);
        if open.may_be_unknown() {
            match &answer {
                Answer::Refused { refusal, .. }
                | Answer::Ended { refusal, due: true }
                | Answer::Unsent { refusal }
                    if refusal.meaning == Meaning::Missing =>
                {
                    let cause = format!("{} (the stream is new)", refusal.cause(&doing));
                    return Appended::NotStored(SinkError::transient(cause));
                }
                // It stood behind the append that was answered so.
                Answer::Ended { refusal, due: false } if refusal.meaning == Meaning::Missing => {
                    return unsure(refusal, &doing);
                }
                _ => {}
            }
        }
        let appended = appended(answer, to.offset, rows, &target, &doing);
        if matches!(appended, Appended::Stored | Appended::AlreadyStored) {
            open.is_known.store(true, Ordering::Relaxed);
        }
        appended
    }

    async fn publish_stream(&self, name: &StreamName, end: i64) -> Result<Published, SinkError> {
        if end < 1 {
            return Ok(Published::Visible);
        }
        let path = StreamPath::from_kafka(&name.0).map_err(|_| not_a_stream("publishing rows"))?;
        let doing = format!("publishing rows in the table `{}`", path.table());
        let stream = path.for_server();
        let last = end - 1;
        let request = FlushRowsRequest { write_stream: stream.clone(), offset: Some(last) };
        let flushed = self
            .storage
            .link
            .call(("write_stream", &stream), request, async |mut client, request| {
                client.flush_rows(request).await
            })
            .await;
        match flushed {
            Ok(answer) if answer.offset >= last => Ok(Published::Visible),
            Ok(_) => {
                Err(SinkError::transient(format!("{doing}: the server has published only some of them")))
            }
            Err(refusal) => match refusal.meaning {
                // They were published before, and perhaps more.
                Meaning::AlreadyThere => Ok(Published::Visible),
                // The answer for a finalized stream is INVALID_ARGUMENT, with or without details.
                Meaning::Finalized | Meaning::Invalid => Ok(Published::Finalized),
                Meaning::Missing => Ok(Published::Missing),
                Meaning::BehindTheEnd => Err(SinkError::fatal(
                    format!("{doing}: the stream ends before row {end}, which Kafka says is committed"),
                    "the positions of the group were changed by hand, or rows were lost in BigQuery: compare the table with the topic before you go on",
                )),
                _ => Err(refusal.to_sink_error(&doing)),
            },
        }
    }

    async fn finalize_stream(&self, name: &StreamName) -> Result<(), SinkError> {
        let path = StreamPath::from_kafka(&name.0).map_err(|_| not_a_stream("ending a stream"))?;
        let doing = format!("ending a stream of the table `{}`", path.table());
        let stream = path.for_server();
        self.open.lock().unwrap_or_else(PoisonError::into_inner).remove(name);
        let request = FinalizeWriteStreamRequest { name: stream.clone() };
        let finalized = self
            .storage
            .link
            .call(("name", &stream), request, async |mut client, request| {
                client.finalize_write_stream(request).await
            })
            .await;
        match finalized {
            Ok(_) => Ok(()),
            Err(refusal) => match refusal.meaning {
                Meaning::Finalized | Meaning::Missing | Meaning::AlreadyThere => Ok(()),
                _ => Err(refusal.to_sink_error(&doing)),
            },
        }
    }
}

fn not_a_stream(doing: &str) -> SinkError {
    SinkError::fatal(
        format!("{doing}: the committed position of the group names a stream, and {NotAStream}"),
        "another program commits positions for this group: give the pipeline a group of its own",
    )
}

fn unsure(refusal: &Refusal, doing: &str) -> Appended {
    Appended::Unknown { cause: refusal.cause(doing) }
}

/// What an answer means for an append of `rows` rows at `offset`.
fn appended(answer: Answer, offset: i64, rows: usize, target: &Target, doing: &str) -> Appended {
    match answer {
        Answer::Stored { offset: Some(stored_at) } if stored_at == offset => {
            target.is_known();
            Appended::Stored
        }
        Answer::Stored { .. } => Appended::NotStored(SinkError::fatal(
            format!("{doing}: the server stored rows elsewhere than at row {offset} of the stream"),
            "check `storage_endpoint`: BigQuery stores rows where it is told",
        )),
        Answer::Refused { refusal, rows: errors } if !errors.is_empty() => {
            match refused_rows(&errors, rows, &target.columns) {
                Some(refused) => Appended::Rejected(refused.into_iter().collect()),
                None => Appended::NotStored(SinkError::transient(format!(
                    "{}; the answer names rows that were not sent",
                    refusal.cause(doing)
                ))),
            }
        }
        Answer::Refused { refusal, .. } => not_stored(&refusal, target, doing),
        Answer::Ended { refusal, due } => match refusal.meaning {
            Meaning::AlreadyThere | Meaning::BehindTheEnd | Meaning::UnknownColumn if !due => {
                unsure(&refusal, doing)
            }
            Meaning::Passing | Meaning::Quota => unsure(&refusal, doing),
            _ => not_stored(&refusal, target, doing),
        },
        Answer::Unsent { refusal } => match refusal.meaning {
            Meaning::AlreadyThere | Meaning::BehindTheEnd | Meaning::UnknownColumn => {
                let cause = format!("{}; an earlier append was refused", refusal.cause(doing));
                Appended::NotStored(SinkError::transient(cause))
            }
            _ => not_stored(&refusal, target, doing),
        },
    }
}

/// The server has answered, and it is not that the rows are stored.
fn not_stored(refusal: &Refusal, target: &Target, doing: &str) -> Appended {
    match refusal.meaning {
        Meaning::AlreadyThere => Appended::AlreadyStored,
        Meaning::BehindTheEnd => Appended::OutOfRange,
        Meaning::Finalized | Meaning::Missing => {
            // The table may have been dropped: the next stream looks.
            target.table.forget();
            Appended::Gone { cause: refusal.cause(doing) }
        }
        Meaning::UnknownColumn => Appended::NotStored(target.not_known_yet(
            format!("{}: the server does not know all columns", refusal.cause(doing)),
            "compare the table with the schema: a column was dropped or renamed",
        )),
        _ => Appended::NotStored(refusal.to_sink_error(doing)),
    }
}

impl WriteStreams for TableStreams {
    fn open<'a>(&'a self, table: &'a str) -> BoxFuture<'a, Result<StreamName, SinkError>> {
        Box::pin(self.open_stream(table))
    }

    fn append<'a>(&'a self, to: &'a StreamPosition, batch: &'a mut Batch) -> BoxFuture<'a, Appended> {
        Box::pin(self.append_batch(to, batch))
    }

    fn publish<'a>(
        &'a self,
        stream: &'a StreamName,
        end: i64,
    ) -> BoxFuture<'a, Result<Published, SinkError>> {
        Box::pin(self.publish_stream(stream, end))
    }

    fn finalize<'a>(&'a self, stream: &'a StreamName) -> BoxFuture<'a, Result<(), SinkError>> {
        Box::pin(self.finalize_stream(stream))
    }
}
