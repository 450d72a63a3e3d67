//! `AppendRows`: a connection on which requests follow each other and are answered in their order.
//!
//! Two tasks serve a connection. One receives requests and notes when they came, the other carries them out in their
//! order, so that a scripted delay holds up each request for its time and not the ones behind it once more.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::Stream;
use gcp_bigquery_client::google::cloud::bigquery::storage::v1::AppendRowsResponse;
use gcp_bigquery_client::google::cloud::bigquery::storage::v1::append_rows_response::{
    AppendResult, Response,
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::Instant;
use tonic::{Code, Status, Streaming};

use super::connection::Connection;
use super::fate::{Fate, fate, lost_reply};
use super::messages::AppendRequest;
use super::refusal::Refusal;
use super::unary::Calls;
use crate::faults::{Closing, Method, inactive_for};
use crate::traffic::Traffic;

/// The most requests of a connection that wait to be carried out, or answers that wait to be sent.
const MOST_WAITING: usize = 1_024;
/// The most bytes of requests of a connection that wait to be carried out. A single request always finds room.
const MOST_WAITING_BYTES: usize = 64 * 1024 * 1024;
/// The answers of a connection, each sent when it is due.
pub(crate) struct Responses {
    answers: mpsc::Receiver<Answer>,
    next: Option<(Pin<Box<tokio::time::Sleep>>, Reply)>,
}

type Reply = Result<AppendRowsResponse, Status>;

struct Answer {
    due: Option<Instant>,
    reply: Reply,
}

/// A request as it came, or why the connection cannot go on.
type Arrival = Result<Arrived, Refusal>;

struct Arrived {
    request: AppendRequest,
    at: Instant,
    /// Its place among the bytes that wait, until it is carried out.
    room: OwnedSemaphorePermit,
}

/// Accepts a connection.
pub(super) fn connect(
    calls: &Calls,
    request: tonic::Request<Streaming<AppendRequest>>,
) -> Result<tonic::Response<Responses>, Status> {
    let state = &calls.state;
    let (metadata, _, requests) = request.into_parts();
    let text = |name: &str| metadata.get(name).and_then(|value| value.to_str().ok());
    state.authenticate(text("authorization")).map_err(|bad| Refusal::from(bad).status())?;
    let routing = text("x-goog-request-params").map(str::to_owned);
    let (arrivals, waiting) = mpsc::channel(MOST_WAITING);
    let (answers, sent) = mpsc::channel(MOST_WAITING);
    tokio::spawn(receive(requests, state.append_idle, arrivals));
    let connection = Connection::new(Arc::clone(state), routing);
    tokio::spawn(carry_out(calls.clone(), connection, waiting, answers));
    Ok(tonic::Response::new(Responses { answers: sent, next: None }))
}

/// Receives requests until the client has no more, the connection breaks, or nobody carries them out any more.
async fn receive(mut requests: Streaming<AppendRequest>, idle: Duration, arrivals: mpsc::Sender<Arrival>) {
    let room = Arc::new(Semaphore::new(MOST_WAITING_BYTES));
    loop {
        let message = tokio::select! {
            message = tokio::time::timeout(idle, requests.message()) => message,
            () = arrivals.closed() => return,
        };
        let broken = match message {
            Ok(Ok(Some(request))) => {
                let size = request.row_bytes().len().clamp(1, MOST_WAITING_BYTES);
                let size = u32::try_from(size).unwrap_or(u32::MAX);
                // The semaphore is never closed, so that room always comes.
                let Ok(room) = Arc::clone(&room).acquire_many_owned(size).await else {
                    return;
                };
                let arrival = Ok(Arrived { request, at: Instant::now(), room });
                if arrivals.send(arrival).await.is_err() {
                    return;
                }
                continue;
            }
            Ok(Ok(None)) => return,
            // tonic's word for a message above the limit; BigQuery's is this one, without any reason.
            Ok(Err(status)) if status.code() == Code::OutOfRange => {
                Refusal::invalid("Request contains an invalid argument.")
            }
            Ok(Err(status)) => Refusal::new(status.code(), status.message()),
            Err(_) => Refusal::new(Code::Aborted, inactive_for(idle)),
        };
        // Where nobody takes it, the connection is gone already.
        let _: Result<(), _> = arrivals.send(Err(broken)).await;
        return;
    }
}

/// Carries requests out in their order until the connection ends.
async fn carry_out(
    calls: Calls,
    mut connection: Connection,
    mut waiting: mpsc::Receiver<Arrival>,
    answers: mpsc::Sender<Answer>,
) {
    let Calls { state, cut, stop } = calls;
    let _open = Traffic::connect(state.shared_traffic());
    loop {
        let arrival = tokio::select! {
            biased;
            () = stop.cancelled() => {
                let closing = Refusal::new(Code::Aborted, Closing::Restart.message());
                end(&answers, &closing).await;
                return;
            }
            arrival = waiting.recv() => arrival,
        };
        let Arrived { request, at, room } = match arrival {
            None => return,
            Some(Ok(arrived)) => arrived,
            Some(Err(refusal)) => {
                end(&answers, &refusal).await;
                return;
            }
        };
        let target = match connection.target(&request) {
            Ok(target) => target,
            Err(refusal) => {
                end(&answers, &refusal).await;
                return;
            }
        };
        let verdict = state.script().strike(Method::AppendRows, Some(&target.name.table));
        let conditions = verdict.conditions;
        if conditions.delay_ms > 0 {
            // A request that has arrived is carried out, even where its connection is gone by then: BigQuery promises
            // nothing of it, and this is what is harder on a client.
            tokio::select! {
                () = tokio::time::sleep_until(at + Duration::from_millis(conditions.delay_ms)) => {}
                () = stop.cancelled() => continue,
            }
        }
        let fate = fate(verdict.end);
        let outcome = match &fate {
            Fate::Cut => {
                cut.cancel();
                return;
            }
            Fate::Refused(refusal) => Err(refusal.clone()),
            Fate::CarriedOut | Fate::ReplyLost => connection.append(&target, &request, &conditions),
        };
        drop((request, room));
        if matches!(fate, Fate::ReplyLost) {
            end(&answers, &lost_reply()).await;
            return;
        }
        let (offset, updated_schema) = match outcome {
            Ok(appended) => (Ok(appended.offset), appended.updated_schema),
            Err(refusal) if refusal.in_band && !conditions.errors_end_connection => (Err(refusal), None),
            Err(refusal) => {
                end(&answers, &refusal).await;
                return;
            }
        };
        let response = match offset {
            Ok(offset) => AppendRowsResponse {
                updated_schema,
                row_errors: Vec::new(),
                write_stream: target.given,
                response: Some(Response::AppendResult(AppendResult { offset })),
            },
            Err(refusal) => AppendRowsResponse {
                updated_schema,
                response: Some(Response::Error(refusal.rpc_status())),
                row_errors: refusal.row_errors,
                write_stream: target.given,
            },
        };
        let late = Duration::from_millis(conditions.late_reply_ms);
        let due = (!late.is_zero()).then(|| at + late);
        // Where nobody takes the answer, the requests behind it are still carried out.
        let _: Result<(), _> = answers.send(Answer { due, reply: Ok(response) }).await;
    }
}

async fn end(answers: &mpsc::Sender<Answer>, refusal: &Refusal) {
    // Where nobody takes it, the connection is gone already.
    let _: Result<(), _> = answers.send(Answer { due: None, reply: Err(refusal.status()) }).await;
}

impl Stream for Responses {
    type Item = Reply;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Reply>> {
        loop {
            if let Some((mut due, reply)) = self.next.take() {
                if due.as_mut().poll(context).is_pending() {
                    self.next = Some((due, reply));
                    return Poll::Pending;
                }
                return Poll::Ready(Some(reply));
            }
            match self.answers.poll_recv(context) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(None) => return Poll::Ready(None),
                Poll::Ready(Some(Answer { due: None, reply })) => return Poll::Ready(Some(reply)),
                Poll::Ready(Some(Answer { due: Some(due), reply })) => {
                    self.next = Some((Box::pin(tokio::time::sleep_until(due)), reply));
                }
            }
        }
    }
}
