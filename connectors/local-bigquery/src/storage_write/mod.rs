//! The gRPC service `google.cloud.bigquery.storage.v1.BigQueryWrite` on the port of the REST interface.

mod append;
mod connection;
mod fate;
mod messages;

mod refusal;
mod schema;
mod unary;

use axum::body::Body;
use axum::http::{HeaderValue, Request, Response};
use gcp_bigquery_client::google::cloud::bigquery::storage::v1::AppendRowsResponse;
use hyper::body::Incoming;
use tonic::codec::CompressionEncoding;
use tonic::server::{Grpc, StreamingService};
use tonic::{Code, Status, Streaming};
use tonic_prost::ProstCodec;

use messages::AppendRequest;
pub(crate) use unary::Calls;

/// Where the service's methods are.
const SERVICE: &str = "/google.cloud.bigquery.storage.v1.BigQueryWrite/";
/// The largest request: one of 20,488,556 bytes was seen to be taken, one of 20,989,006 to be refused.
pub(crate) const LARGEST_REQUEST: usize = 20 * 1024 * 1024;

/// Whether a request is a gRPC call, whatever its method.
pub(crate) fn is_call(request: &Request<Incoming>) -> bool {
    let content = request.headers().get(axum::http::header::CONTENT_TYPE);
    content.is_some_and(|content| content.as_bytes().starts_with(b"application/grpc"))
}

/// Answers a gRPC call.
pub(crate) async fn answer(calls: Calls, request: Request<Incoming>) -> Response<Body> {
    let method = request.uri().path().strip_prefix(SERVICE).map(str::to_owned);
    let response = match method.as_deref() {
        Some("AppendRows") => {
            let codec = ProstCodec::<AppendRowsResponse, AppendRequest>::default();
            let mut grpc = Grpc::new(codec)
                .accept_compressed(CompressionEncoding::Gzip)
                .max_decoding_message_size(LARGEST_REQUEST);
            grpc.streaming(AppendRows(calls), request).await
        }
        Some("CreateWriteStream") => calls.create_write_stream(request).await,
        Some("GetWriteStream") => calls.get_write_stream(request).await,
        Some("FinalizeWriteStream") => calls.finalize_write_stream(request).await,
        Some("BatchCommitWriteStreams") => calls.batch_commit_write_streams(request).await,
        Some("FlushRows") => calls.flush_rows(request).await,
        _ => {
            let message = "The local BigQuery has one gRPC service: BigQueryWrite of the Storage Write API.";
            Status::new(Code::Unimplemented, message).into_http()
        }
    };
    let (mut parts, body) = response.into_parts();
    parts
        .headers
        .entry(axum::http::header::CONTENT_TYPE)
        .or_insert(HeaderValue::from_static("application/grpc"));
    Response::from_parts(parts, Body::new(body))
}

struct AppendRows(Calls);

impl StreamingService<AppendRequest> for AppendRows {
    type Response = AppendRowsResponse;
    type ResponseStream = append::Responses;
    type Future = std::future::Ready<Result<tonic::Response<Self::ResponseStream>, Status>>;

    fn call(&mut self, request: tonic::Request<Streaming<AppendRequest>>) -> Self::Future {
        std::future::ready(append::connect(&self.0, request))
    }
}
