//! Connections: accepted, served, cut where a fault says so, and closed at the end.
//!
//! HTTP/1.1 carries the REST interface; HTTP/2 without TLS is known by its preface and carries gRPC, and REST too.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{Request, Response};
use hyper::body::Incoming;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::rest::{self, ConnectionCut};
use crate::state::State;
use crate::storage_write;

/// The most connections at a time; further ones wait to be accepted.
const MOST_CONNECTIONS: usize = 4_096;
/// The most HTTP/2 streams of a connection at a time; Google's servers announce 100.
const MOST_STREAMS: u32 = 100;
/// How much of one HTTP/2 stream, and of all streams of a connection, may be on its way unread.
const STREAM_WINDOW: u32 = 4 * 1024 * 1024;
const CONNECTION_WINDOW: u32 = 16 * 1024 * 1024;
/// The most that is kept of answers which a client does not read, per HTTP/2 stream.
const SEND_BUFFER: usize = 1024 * 1024;
/// How often a silent HTTP/2 client is asked whether it is there, and how long it may take to say so.
const KEEP_ALIVE: Duration = Duration::from_mins(1);
const KEEP_ALIVE_DEADLINE: Duration = Duration::from_secs(20);
/// How long a client may take to send anything, and then the head of a request.
const HEAD_DEADLINE: Duration = Duration::from_mins(1);
/// How long requests in flight may still take once the server stops.
const LAST_REQUESTS: Duration = Duration::from_secs(5);
/// The pause after the operating system refused a connection, as when it has no descriptors left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// A fault closed the connection in place of an answer.
#[derive(Debug, thiserror::Error)]
#[error("the fault script cuts this connection")]
struct Cut;

/// What answers requests.
#[derive(Clone)]
struct Services {
    state: Arc<State>,
    rest: TowerToHyperService<Router>,
}

/// Accepts connections until it is told to stop, then lets the open ones finish.
pub(crate) async fn run(listener: TcpListener, state: Arc<State>, stop: CancellationToken) {
    let rest = TowerToHyperService::new(rest::router(Arc::clone(&state)));
    let services = Services { state, rest };
    let room = Arc::new(Semaphore::new(MOST_CONNECTIONS));
    let connections = TaskTracker::new();
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = accept(&listener, &room) => accepted,
        };
        let Some((stream, place)) = accepted else {
            continue;
        };
        let connection = serve(stream, services.clone(), stop.clone());
        connections.spawn(async move {
            connection.await;
            drop(place);
        });
    }
    connections.close();
    connections.wait().await;
}

async fn accept(
    listener: &TcpListener,
    room: &Arc<Semaphore>,
) -> Option<(TcpStream, tokio::sync::OwnedSemaphorePermit)> {
    // The semaphore is never closed, so that a place always comes.
    let place = Arc::clone(room).acquire_owned().await.ok()?;
    match listener.accept().await {
        Ok((stream, _)) => Some((stream, place)),
        Err(refused) => {
            tracing::warn!(cause = %refused, "local BigQuery could not accept a connection");
            tokio::time::sleep(ACCEPT_PAUSE).await;
            None
        }
    }
}

async fn serve(stream: TcpStream, services: Services, stop: CancellationToken) {
    if let Err(refused) = stream.set_nodelay(true) {
        tracing::debug!(cause = %refused, "TCP_NODELAY was not set");
    }
    // The deadline for a head begins with the first byte, so that the first byte needs one of its own.
    tokio::select! {
        first = tokio::time::timeout(HEAD_DEADLINE, stream.readable()) => {
            if !matches!(first, Ok(Ok(()))) {
                return;
            }
        }
        () = stop.cancelled() => return,
    }
    let cut = CancellationToken::new();
    let service = {
        let (cut, stop) = (cut.clone(), stop.clone());
        service_fn(move |request: Request<Incoming>| {
            answer(services.clone(), request, cut.clone(), stop.clone())
        })
    };
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEAD_DEADLINE);
    builder
        .http2()
        .timer(TokioTimer::new())
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_concurrent_streams(MOST_STREAMS)
        .max_send_buf_size(SEND_BUFFER)
        .keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE_DEADLINE);
    let connection = builder.serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let ended = tokio::select! {
        biased;
        () = cut.cancelled() => return,
        ended = connection.as_mut() => ended,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            tokio::select! {
                ended = tokio::time::timeout(LAST_REQUESTS, connection) => match ended {
                    Ok(ended) => ended,
                    Err(_) => return,
                },
                () = cut.cancelled() => return,
            }
        }
    };
    if let Err(cause) = ended {
        tracing::debug!(%cause, "a connection to the local BigQuery ended early");
    }
}

async fn answer(
    services: Services,
    request: Request<Incoming>,
    cut: CancellationToken,
    stop: CancellationToken,
) -> Result<Response<Body>, Cut> {
    if storage_write::is_call(&request) {
        let calls = storage_write::Calls { state: services.state, cut, stop };
        return Ok(storage_write::answer(calls, request).await);
    }
    let response: Result<Response<Body>, Infallible> = services.rest.call(request).await;
    let Ok(response) = response;
    if response.extensions().get::<ConnectionCut>().is_some() {
        // An error ends an HTTP/1.1 connection, of HTTP/2 only the stream.
        cut.cancel();
        return Err(Cut);
    }
    Ok(response)
}
