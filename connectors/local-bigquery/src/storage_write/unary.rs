//! The calls with one request and one answer.

use std::sync::Arc;
use std::time::Duration;

use axum::http::Request;
use gcp_bigquery_client::google::cloud::bigquery::storage::v1::write_stream::{Type, WriteMode};
use gcp_bigquery_client::google::cloud::bigquery::storage::v1::{
    BatchCommitWriteStreamsRequest, BatchCommitWriteStreamsResponse, CreateWriteStreamRequest,
    FinalizeWriteStreamRequest, FinalizeWriteStreamResponse, FlushRowsRequest, FlushRowsResponse,
    GetWriteStreamRequest, WriteStream, WriteStreamView,
};
use hyper::body::Incoming;
use prost::Message;
use prost_types::Timestamp;
use tokio_util::sync::CancellationToken;
use tonic::codec::CompressionEncoding;
use tonic::server::{Grpc, UnaryService};
use tonic::{Code, Status};
use tonic_prost::ProstCodec;

use super::fate::{Fate, fate};
use super::refusal::Refusal;
use super::schema::table_schema;
use crate::faults::{Conditions, Method};
use crate::state::State;
use crate::store::stream_name::{StreamId, StreamName, parse_stream, parse_table};
use crate::store::streams::{StreamError, StreamType};
use crate::store::{Store, TableName};
use crate::traffic::Traffic;

/// The most streams of one commit (documented).
const MOST_COMMITTED: usize = 10_000;
/// The largest unary request: room for the names of a full commit.
const LARGEST_UNARY: usize = 4 * 1024 * 1024;

/// What the calls of one connection need.
#[derive(Clone)]
pub(crate) struct Calls {
    pub(crate) state: Arc<State>,
    /// Closes the connection.
    pub(crate) cut: CancellationToken,
    /// The server stops.
    pub(crate) stop: CancellationToken,
}

/// A call that was let through.
struct Call {
    conditions: Conditions,
    now_ms: u64,
}

type HttpAnswer = axum::http::Response<tonic::body::Body>;

impl Calls {
    pub(super) async fn create_write_stream(self, request: Request<Incoming>) -> HttpAnswer {
        serve(
            self,
            Method::CreateWriteStream,
            request,
            |request: &CreateWriteStreamRequest| parse_table(&request.parent),
            create,
        )
        .await
    }

    pub(super) async fn get_write_stream(self, request: Request<Incoming>) -> HttpAnswer {
        serve(
            self,
            Method::GetWriteStream,
            request,
            |request: &GetWriteStreamRequest| Some(parse_stream(&request.name)?.table),
            get,
        )
        .await
    }

    pub(super) async fn finalize_write_stream(self, request: Request<Incoming>) -> HttpAnswer {
        serve(
            self,
            Method::FinalizeWriteStream,
            request,
            |request: &FinalizeWriteStreamRequest| Some(parse_stream(&request.name)?.table),
            finalize,
        )
        .await
    }

    pub(super) async fn batch_commit_write_streams(self, request: Request<Incoming>) -> HttpAnswer {
        serve(
            self,
            Method::BatchCommitWriteStreams,
            request,
            |request: &BatchCommitWriteStreamsRequest| parse_table(&request.parent),
            commit,
        )
        .await
    }

    pub(super) async fn flush_rows(self, request: Request<Incoming>) -> HttpAnswer {
        serve(
            self,
            Method::FlushRows,
            request,
            |request: &FlushRowsRequest| Some(parse_stream(&request.write_stream)?.table),
            flush,
        )
        .await
    }
}

/// Takes a call through all its steps: credentials, faults, work, answer.
async fn serve<Ask, Answer>(
    calls: Calls,
    method: Method,
    request: Request<Incoming>,
    table: fn(&Ask) -> Option<TableName>,
    work: fn(&mut Store, &Call, &Ask) -> Result<Answer, Refusal>,
) -> HttpAnswer
where
    Ask: Message + Default + 'static,
    Answer: Message + Default + 'static,
{
    let codec = ProstCodec::<Answer, Ask>::default();
    let mut grpc = Grpc::new(codec)
        .accept_compressed(CompressionEncoding::Gzip)
        .max_decoding_message_size(LARGEST_UNARY);
    grpc.unary(Unary { calls, method, table, work }, request).await
}

struct Unary<Ask, Answer> {
    calls: Calls,
    method: Method,
    table: fn(&Ask) -> Option<TableName>,
    work: fn(&mut Store, &Call, &Ask) -> Result<Answer, Refusal>,
}

impl<Ask: Send + 'static, Answer: Send + 'static> UnaryService<Ask> for Unary<Ask, Answer> {
    type Response = Answer;
    type Future = futures::future::BoxFuture<'static, Result<tonic::Response<Answer>, Status>>;

    fn call(&mut self, request: tonic::Request<Ask>) -> Self::Future {
        let Unary { calls, method, table, work } = self;
        let (calls, method, table, work) = (calls.clone(), *method, *table, *work);
        Box::pin(async move {
            let (metadata, _, ask) = request.into_parts();
            let state = &calls.state;
            let table = table(&ask);
            let _running = Traffic::enter(state.shared_traffic(), method, table.as_ref());
            let authorization = metadata.get("authorization").and_then(|value| value.to_str().ok());
            state.authenticate(authorization).map_err(|bad| Refusal::from(bad).status())?;
            let verdict = state.script().strike(method, table.as_ref());
            let conditions = verdict.conditions;
            if conditions.delay_ms > 0 {
                tokio::time::sleep(Duration::from_millis(conditions.delay_ms)).await;
            }
            let fate = fate(verdict.end);
            match &fate {
                Fate::Cut => {
                    calls.cut.cancel();
                    return Err(Status::new(Code::Unavailable, "the fault script cuts this connection"));
                }
                Fate::Refused(refusal) => return Err(refusal.status()),
                Fate::CarriedOut | Fate::ReplyLost => {}
            }
            let call = Call { conditions, now_ms: state.clock.now_ms() };
            let answer = work(&mut state.store(), &call, &ask);
            if call.conditions.late_reply_ms > 0 {
                tokio::time::sleep(Duration::from_millis(call.conditions.late_reply_ms)).await;
            }
            if matches!(fate, Fate::ReplyLost) {
                return Err(super::fate::lost_reply().status());
            }
            answer.map(tonic::Response::new).map_err(|refusal| refusal.status())
        })
    }
}

fn table_of(parent: &str) -> Result<TableName, Refusal> {
    parse_table(parent).ok_or_else(|| {
        Refusal::invalid("Invalid parent: it must be projects/{project}/datasets/{dataset}/tables/{table}.")
    })
}

/// A stream's name out of a request.
pub(super) fn stream_of(name: &str) -> Result<StreamName, Refusal> {
    parse_stream(name).ok_or_else(|| {
        Refusal::invalid(
            "Invalid stream name: it must be projects/{project}/datasets/{dataset}/tables/{table}/streams/{stream}.",
        )
    })
}

fn timestamp(ms: u64) -> Timestamp {
    let seconds = i64::try_from(ms / 1_000).unwrap_or(i64::MAX);
    let nanos = i32::try_from(ms % 1_000).unwrap_or(0) * 1_000_000;
    Timestamp { seconds, nanos }
}

fn create(store: &mut Store, call: &Call, ask: &CreateWriteStreamRequest) -> Result<WriteStream, Refusal> {
    let table = table_of(&ask.parent)?;
    let wanted = ask.write_stream.as_ref().map_or(Type::Unspecified, WriteStream::r#type);
    let kind = match wanted {
        Type::Committed => StreamType::Committed,
        Type::Pending => StreamType::Pending,
        Type::Buffered => StreamType::Buffered,
        Type::Unspecified => {
            return Err(Refusal::invalid("A write stream's type must be COMMITTED, PENDING or BUFFERED."));
        }
    };
    // Hides a table that was only just made, where a fault says so.
    let default = StreamName { table: table.clone(), stream: StreamId::Default };
    store.writer_view(&default, 0, call.conditions.not_found_until_ms, call.now_ms)?;
    let name = store.create_stream(&table, kind, call.now_ms)?;
    describe(store, &name, true, call)
}

fn get(store: &mut Store, call: &Call, ask: &GetWriteStreamRequest) -> Result<WriteStream, Refusal> {
    let name = stream_of(&ask.name)?;
    store.writer_view(&name, 0, call.conditions.not_found_until_ms, call.now_ms)?;
    describe(store, &name, ask.view == i32::from(WriteStreamView::Full), call)
}

fn describe(store: &mut Store, name: &StreamName, full: bool, call: &Call) -> Result<WriteStream, Refusal> {
    let (kind, created_ms, committed_ms) = if name.stream == StreamId::Default {
        let table = store.table(&name.table).map_err(|_| StreamError::TableNotFound(name.table.clone()))?;
        (Type::Committed, table.created_ms(), None)
    } else {
        let stream = store.stream(name, call.now_ms)?;
        let kind = match stream.kind {
            StreamType::Committed => Type::Committed,
            StreamType::Pending => Type::Pending,
            StreamType::Buffered => Type::Buffered,
        };
        (kind, stream.created_ms, stream.committed_ms)
    };
    let view = store.writer_view(name, call.conditions.schema_lag_ms, 0, call.now_ms)?;
    Ok(WriteStream {
        name: name.to_string(),
        r#type: kind.into(),
        create_time: Some(timestamp(created_ms)),
        commit_time: committed_ms.map(timestamp),
        table_schema: full.then(|| table_schema(&view.columns)),
        write_mode: WriteMode::Insert.into(),
        location: "us".to_owned(),
    })
}

fn finalize(
    store: &mut Store,
    call: &Call,
    ask: &FinalizeWriteStreamRequest,
) -> Result<FinalizeWriteStreamResponse, Refusal> {
    let name = stream_of(&ask.name)?;
    store.writer_view(&name, 0, call.conditions.not_found_until_ms, call.now_ms)?;
    let row_count = store.finalize(&name, call.now_ms)?;
    Ok(FinalizeWriteStreamResponse { row_count })
}

fn flush(store: &mut Store, call: &Call, ask: &FlushRowsRequest) -> Result<FlushRowsResponse, Refusal> {
    let name = stream_of(&ask.write_stream)?;
    let Some(offset) = ask.offset else {
        return Err(Refusal::invalid("FlushRows needs an offset."));
    };
    store.writer_view(&name, 0, call.conditions.not_found_until_ms, call.now_ms)?;
    let offset = store.flush(&name, offset, call.now_ms)?;
    Ok(FlushRowsResponse { offset })
}

fn commit(
    store: &mut Store,
    call: &Call,
    ask: &BatchCommitWriteStreamsRequest,
) -> Result<BatchCommitWriteStreamsResponse, Refusal> {
    let parent = table_of(&ask.parent)?;
    if ask.write_streams.is_empty() || ask.write_streams.len() > MOST_COMMITTED {
        return Err(Refusal::invalid(format!("A commit names 1 to {MOST_COMMITTED} streams.")));
    }
    if store.table(&parent).is_err() {
        return Err(StreamError::TableNotFound(parent).into());
    }
    let mut names: Vec<StreamName> =
        ask.write_streams.iter().map(|name| stream_of(name)).collect::<Result<_, _>>()?;
    names.sort();
    names.dedup();
    Ok(match store.commit_streams(&parent, &names, call.now_ms) {
        Ok(()) => BatchCommitWriteStreamsResponse {
            commit_time: Some(timestamp(call.now_ms)),
            stream_errors: Vec::new(),
        },
        Err(errors) => BatchCommitWriteStreamsResponse {
            commit_time: None,
            stream_errors: errors
                .into_iter()
                .map(|error| Refusal::from(error).into_storage_error())
                .collect(),
        },
    })
}
