//! The way to the Storage Write API: HTTP/2 connections, who we are, and calls with one answer.
//!
//! Connections are made when they are needed, and again when they broke. A proxy of the environment is not used: it
//! would have to let HTTP/2 through.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use futures::stream;
use gcp_bigquery_client::google::cloud::bigquery::storage::v1::AppendRowsResponse;
use gcp_bigquery_client::google::cloud::bigquery::storage::v1::big_query_write_client::BigQueryWriteClient;
use tonic::body::Body;
use tonic::codegen::{Service, http};
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Channel, ClientTlsConfig, Endpoint};
use tonic::{Request, Response, Status, Streaming};

use super::refusal::{Meaning, Refusal};
use super::request::RequestBody;
use crate::config::StorageEndpoint;
use crate::error::CallError;
use crate::rest::Server;

/// How long it may take until a server has taken the connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How often a connection is asked whether it is still there, also while nothing is on its way.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(30);

/// How long the answer to that may take.
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(10);

/// How many `AppendRows` calls share a connection. Their rows pass through one socket and one task, and a server may
/// allow no more than a hundred.
const CALLS_PER_CONNECTION: usize = 8;

/// So many connections are made before calls share one.
const UNSHARED_CONNECTIONS: usize = 4;

/// The largest answer that is read: one that names every row of a large request.
const MAX_ANSWER_BYTES: usize = 64 << 20;

/// The header by which Google finds the location of the data. Needed everywhere but in the US multi-region
/// (<https://cloud.google.com/bigquery/docs/write-api#use_the_bigquery_storage_write_api>).
const ROUTING_HEADER: &str = "x-goog-request-params";

const AGENT: &str = concat!("txconnect/", env!("CARGO_PKG_VERSION"));

/// The Storage Write API of one server, shared by all lanes.
pub(super) struct Link {
    server: Arc<Server>,
    address: StorageEndpoint,
    timeout: Duration,
    endpoint: Mutex<Option<Endpoint>>,
    /// For calls with one answer: they shall not wait behind rows.
    calls: Mutex<Option<Channel>>,
    shared: Mutex<Vec<Arc<SharedChannel>>>,
}

/// A connection for rows, and how many calls use it.
struct SharedChannel {
    channel: Channel,
    users: AtomicUsize,
}

/// The right to make one `AppendRows` call on a connection.
pub(super) struct Seat {
    shared: Arc<SharedChannel>,
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.shared.users.fetch_sub(1, Ordering::AcqRel);
    }
}

/// An `AppendRows` call that is about to be made.
pub(super) struct Call {
    client: BigQueryWriteClient<WithBody>,
    request:
        Request<stream::Empty<gcp_bigquery_client::google::cloud::bigquery::storage::v1::AppendRowsRequest>>,
}

impl Call {
    /// Makes the call. Servers may answer only after the first request has come.
    pub(super) async fn make(mut self) -> Result<Response<Streaming<AppendRowsResponse>>, Status> {
        self.client.append_rows(self.request).await
    }
}

impl Link {
    /// Prepares calls that end within `timeout` each; touches neither network nor files.
    pub(super) fn new(server: Arc<Server>, address: StorageEndpoint, timeout: Duration) -> Self {
        Self {
            server,
            address,
            timeout,
            endpoint: Mutex::default(),
            calls: Mutex::default(),
            shared: Mutex::default(),
        }
    }

    /// How long one call may take.
    pub(super) fn timeout(&self) -> Duration {
        self.timeout
    }

    fn endpoint(&self) -> Result<Endpoint, Refusal> {
        let mut known = self.endpoint.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(endpoint) = &*known {
            return Ok(endpoint.clone());
        }
        let unusable = |error: tonic::transport::Error| {
            Refusal::lasting(
                format!("cannot set up connections to {}: {error}", self.address.uri),
                "check `storage_endpoint`, and the certificates of this machine (package `ca-certificates`)",
            )
        };
        let mut endpoint = Endpoint::from_shared(self.address.uri.clone())
            .and_then(|endpoint| endpoint.user_agent(AGENT))
            .map_err(unusable)?
            .connect_timeout(CONNECT_TIMEOUT.min(self.timeout))
            .tcp_nodelay(true)
            .http2_keep_alive_interval(KEEP_ALIVE_INTERVAL)
            .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
            .keep_alive_while_idle(true);
        if self.address.encrypted {
            let roots = ClientTlsConfig::new().with_native_roots();
            endpoint = endpoint.tls_config(roots).map_err(unusable)?;
        }
        *known = Some(endpoint.clone());
        Ok(endpoint)
    }

    fn channel_for_calls(&self) -> Result<Channel, Refusal> {
        let endpoint = self.endpoint()?;
        let mut channel = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(channel.get_or_insert_with(|| endpoint.connect_lazy()).clone())
    }

    /// A seat on the connection with the fewest users.
    pub(super) fn seat(&self) -> Result<Seat, Refusal> {
        let endpoint = self.endpoint()?;
        let mut all = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        // One that nobody uses is kept for the next.
        let mut unused = 0;
        all.retain(|shared| {
            unused += usize::from(shared.users.load(Ordering::Acquire) == 0);
            shared.users.load(Ordering::Acquire) > 0 || unused == 1
        });
        let most = if all.len() < UNSHARED_CONNECTIONS { 1 } else { CALLS_PER_CONNECTION };
        let freest = all
            .iter()
            .filter(|shared| shared.users.load(Ordering::Acquire) < most)
            .min_by_key(|shared| shared.users.load(Ordering::Acquire));
        let shared = if let Some(shared) = freest {
            Arc::clone(shared)
        } else {
            let channel = endpoint.connect_lazy();
            let shared = Arc::new(SharedChannel { channel, users: AtomicUsize::new(0) });
            all.push(Arc::clone(&shared));
            shared
        };
        shared.users.fetch_add(1, Ordering::AcqRel);
        Ok(Seat { shared })
    }

    /// An access token as a header, a new one if `renew` is set.
    async fn token(&self, renew: bool) -> Result<MetadataValue<Ascii>, Refusal> {
        let tokens = self.server.session().await?.tokens();
        let token = if renew { tokens.renewed_token().await } else { tokens.access_token().await };
        let token = token.map_err(|error| Refusal::from(CallError::from(error)))?;
        let mut header = MetadataValue::try_from(format!("Bearer {token}"))
            .map_err(|_| Refusal::passing("the authorization server gave no access token"))?;
        header.set_sensitive(true);
        Ok(header)
    }

    /// Prepares an `AppendRows` call that sends `body` to where `stream` lives.
    ///
    /// A call that serves several default streams is routed by its first one: all tables of a sink are in one dataset,
    /// and so in one location.
    pub(super) async fn append_call(
        &self,
        seat: &Seat,
        stream: &str,
        body: RequestBody,
        renew_token: bool,
    ) -> Result<Call, Refusal> {
        let token = self.token(renew_token).await?;
        let mut request = Request::new(stream::empty());
        request.metadata_mut().insert("authorization", token);
        request.metadata_mut().insert(ROUTING_HEADER, routing("write_stream", stream)?);
        let service = WithBody { channel: seat.shared.channel.clone(), body: Some(Body::new(body)) };
        let client = BigQueryWriteClient::new(service).max_decoding_message_size(MAX_ANSWER_BYTES);
        Ok(Call { client, request })
    }

    /// Makes a call with one answer, routed by `field=value`; once more where the access token is refused.
    pub(super) async fn call<M, R, F>(
        &self,
        (field, value): (&str, &str),
        message: M,
        call: impl Fn(BigQueryWriteClient<Channel>, Request<M>) -> F,
    ) -> Result<R, Refusal>
    where
        M: Clone,
        F: Future<Output = Result<Response<R>, Status>>,
    {
        let mut renewed = false;
        loop {
            let mut request = Request::new(message.clone());
            request.metadata_mut().insert("authorization", self.token(renewed).await?);
            request.metadata_mut().insert(ROUTING_HEADER, routing(field, value)?);
            request.set_timeout(self.timeout);
            let client = BigQueryWriteClient::new(self.channel_for_calls()?);
            match tokio::time::timeout(self.timeout, call(client, request)).await {
                Ok(Ok(response)) => return Ok(response.into_inner()),
                Ok(Err(status)) => {
                    let refusal = Refusal::of_call(&status);
                    if refusal.meaning != Meaning::Unauthenticated || renewed {
                        return Err(refusal);
                    }
                    renewed = true;
                }
                Err(_) => return Err(Refusal::passing("no answer within the time limit")),
            }
        }
    }
}

/// The value of the routing header, written as in the query of an address.
fn routing(field: &str, value: &str) -> Result<MetadataValue<Ascii>, Refusal> {
    let mut text = String::with_capacity(field.len() + 1 + value.len());
    text.push_str(field);
    text.push('=');
    for byte in value.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte) {
            text.push(byte.into());
        } else {
            use std::fmt::Write as _;
            let _ = write!(text, "%{byte:02X}");
        }
    }
    MetadataValue::try_from(text).map_err(|_| {
        Refusal::lasting("the name of the stream cannot be sent", "check `project`, `dataset` and `table`")
    })
}

/// A connection on which one call has a body of our own: the client makes it with an empty one.
struct WithBody {
    channel: Channel,
    body: Option<Body>,
}

impl Service<http::Request<Body>> for WithBody {
    type Response = http::Response<Body>;
    type Error = tonic::transport::Error;
    type Future = <Channel as Service<http::Request<Body>>>::Future;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Service::poll_ready(&mut self.channel, context)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let request = match self.body.take() {
            Some(body) => request.map(|_| body),
            None => request,
        };
        Service::call(&mut self.channel, request)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_routing_header_is_written_as_a_query() {
        let stream = "projects/example.com:p/datasets/d/tables/t/streams/_default";
        let header = routing("write_stream", stream).unwrap();
        assert_eq!(
            header.to_str().unwrap(),
            "write_stream=projects/example.com%3Ap/datasets/d/tables/t/streams/_default"
        );
    }
}
