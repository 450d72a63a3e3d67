//! Connections: accepted, served, cut where a fault says so, and closed at the end.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::rest::ConnectionCut;

/// The most connections at a time; further ones wait to be accepted.
const MOST_CONNECTIONS: usize = 4_096;
/// How long a client may take to send the head of a request.
const HEAD_DEADLINE: Duration = Duration::from_mins(1);
/// How long requests in flight may still take once the server stops.
const LAST_REQUESTS: Duration = Duration::from_secs(5);
/// The pause after the operating system refused a connection, as when it has no descriptors left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// A fault closed the connection in place of an answer.
#[derive(Debug, thiserror::Error)]
#[error("the fault script cuts this connection")]
struct Cut;

/// Accepts connections until it is told to stop, then lets the open ones finish.
pub(crate) async fn run(listener: TcpListener, router: Router, stop: CancellationToken) {
    let service = TowerToHyperService::new(router);
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
        let connection = serve(stream, service.clone(), stop.clone());
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

async fn serve(stream: TcpStream, router: TowerToHyperService<Router>, stop: CancellationToken) {
    if let Err(refused) = stream.set_nodelay(true) {
        tracing::debug!(cause = %refused, "TCP_NODELAY was not set");
    }
    let service = service_fn(move |request: Request<Incoming>| answer(router.clone(), request));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_DEADLINE)
        .serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            match tokio::time::timeout(LAST_REQUESTS, connection).await {
                Ok(ended) => ended,
                Err(_) => return,
            }
        }
    };
    if let Err(cause) = ended {
        tracing::debug!(%cause, "a connection to the local BigQuery ended early");
    }
}

async fn answer(
    router: TowerToHyperService<Router>,
    request: Request<Incoming>,
) -> Result<Response<Body>, Cut> {
    let response: Result<Response<Body>, Infallible> = router.call(request).await;
    let Ok(response) = response;
    if response.extensions().get::<ConnectionCut>().is_some() { Err(Cut) } else { Ok(response) }
}
