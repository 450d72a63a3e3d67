//! A running server with one dataset, a gRPC client, and short ways to talk to it.

use std::time::Duration;

use gcp_bigquery_client::google::cloud::bigquery::storage::v1 as api;
use prost::Message;
use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{DescriptorProto, FieldDescriptorProto};
use serde_json::{Map, Value as Json, json};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};
use txconnect_local_bigquery::{LocalBigQuery, Options};

pub(crate) use api::append_rows_response::Response;
pub(crate) use api::big_query_write_client::BigQueryWriteClient;
pub(crate) use api::storage_error::StorageErrorCode;
pub(crate) use api::write_stream::Type as StreamType;

/// Nothing may wait longer than this.
pub(crate) const PATIENCE: Duration = Duration::from_mins(1);

pub(crate) const DATASET: &str = "projects/p/datasets/d/tables";

/// A server with dataset `d` in project `p`, and a client.
pub(crate) struct Server {
    pub(crate) bigquery: LocalBigQuery,
    pub(crate) http: reqwest::Client,
    pub(crate) client: BigQueryWriteClient<Channel>,
}

/// The row of most tests: an INTEGER `id` and a STRING `name`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Person {
    #[prost(int64, optional, tag = "1")]
    pub(crate) id: Option<i64>,
    #[prost(string, optional, tag = "2")]
    pub(crate) name: Option<String>,
}

pub(crate) fn person(id: i64) -> Vec<u8> {
    Person { id: Some(id), name: None }.encode_to_vec()
}

pub(crate) fn people(ids: impl IntoIterator<Item = i64>) -> Vec<Vec<u8>> {
    ids.into_iter().map(person).collect()
}

pub(crate) fn field(name: &str, number: i32, kind: Type, label: Label) -> FieldDescriptorProto {
    FieldDescriptorProto {
        name: Some(name.to_owned()),
        number: Some(number),
        r#type: Some(kind.into()),
        label: Some(label.into()),
        ..FieldDescriptorProto::default()
    }
}

pub(crate) fn optional(name: &str, number: i32, kind: Type) -> FieldDescriptorProto {
    field(name, number, kind, Label::Optional)
}

pub(crate) fn descriptor(fields: Vec<FieldDescriptorProto>) -> DescriptorProto {
    DescriptorProto { name: Some("Row".to_owned()), field: fields, ..DescriptorProto::default() }
}

/// The schema of [`Person`].
pub(crate) fn person_descriptor() -> DescriptorProto {
    descriptor(vec![optional("id", 1, Type::Int64), optional("name", 2, Type::String)])
}

pub(crate) fn person_fields() -> Json {
    json!([{"name": "id", "type": "INTEGER"}, {"name": "name", "type": "STRING"}])
}

impl Server {
    pub(crate) async fn start(options: Options) -> Server {
        let bigquery = LocalBigQuery::start(options).await.expect("a free port");
        let uri = format!("http://{}", bigquery.address());
        let channel = Channel::from_shared(uri).expect("an address").connect().await.expect("a connection");
        let server =
            Server { bigquery, http: reqwest::Client::new(), client: BigQueryWriteClient::new(channel) };
        let dataset = json!({"datasetReference": {"projectId": "p", "datasetId": "d"}});
        let (status, _) = server.post("projects/p/datasets", &dataset).await;
        assert_eq!(status, 200);
        server
    }

    /// A server with a table `t` for [`Person`]s.
    pub(crate) async fn with_people(options: Options) -> Server {
        let server = Server::start(options).await;
        server.create_table("t", json!({"schema": {"fields": person_fields()}})).await;
        server
    }

    pub(crate) async fn create_table(&self, table: &str, resource: Json) {
        let mut resource = resource;
        resource["tableReference"] = json!({"projectId": "p", "datasetId": "d", "tableId": table});
        let (status, answer) = self.post("projects/p/datasets/d/tables", &resource).await;
        assert_eq!(status, 200, "{answer}");
    }

    pub(crate) async fn send(&self, request: reqwest::RequestBuilder) -> (u16, Json) {
        let response = request.timeout(PATIENCE).send().await.expect("an answer");
        let status = response.status().as_u16();
        let body = response.bytes().await.expect("a whole answer");
        (status, serde_json::from_slice(&body).unwrap_or(Json::Null))
    }

    pub(crate) async fn post(&self, path: &str, body: &Json) -> (u16, Json) {
        self.send(self.http.post(format!("{}/{path}", self.bigquery.base_url())).json(body)).await
    }

    pub(crate) fn rows(&self, table: &str) -> Vec<Map<String, Json>> {
        self.bigquery.rows("p", "d", table).expect("the table is there")
    }

    /// The `id`s that can be seen in a table.
    pub(crate) fn ids(&self, table: &str) -> Vec<i64> {
        self.rows(table).iter().map(|row| row["id"].as_i64().expect("an id")).collect()
    }

    /// Makes a stream for table `t`.
    pub(crate) async fn create(&self, kind: StreamType) -> String {
        self.try_create("t", kind).await.expect("a stream").name
    }

    pub(crate) async fn try_create(&self, table: &str, kind: StreamType) -> Result<api::WriteStream, Status> {
        let write_stream = api::WriteStream { r#type: kind.into(), ..api::WriteStream::default() };
        let request = api::CreateWriteStreamRequest {
            parent: format!("{DATASET}/{table}"),
            write_stream: Some(write_stream),
        };
        self.client.clone().create_write_stream(request).await.map(tonic::Response::into_inner)
    }

    pub(crate) async fn flush(&self, stream: &str, offset: i64) -> Result<i64, Status> {
        let request = api::FlushRowsRequest { write_stream: stream.to_owned(), offset: Some(offset) };
        self.client.clone().flush_rows(request).await.map(|answer| answer.into_inner().offset)
    }

    pub(crate) async fn finalize(&self, stream: &str) -> Result<i64, Status> {
        let request = api::FinalizeWriteStreamRequest { name: stream.to_owned() };
        self.client.clone().finalize_write_stream(request).await.map(|answer| answer.into_inner().row_count)
    }

    pub(crate) async fn commit(
        &self,
        streams: &[&str],
    ) -> Result<api::BatchCommitWriteStreamsResponse, Status> {
        let request = api::BatchCommitWriteStreamsRequest {
            parent: format!("{DATASET}/t"),
            write_streams: streams.iter().map(|name| (*name).to_owned()).collect(),
        };
        self.client.clone().batch_commit_write_streams(request).await.map(tonic::Response::into_inner)
    }

    /// Opens a connection routed to a stream.
    pub(crate) async fn connect(&self, stream: &str) -> Connection {
        Connection::open(self.client.clone(), Some(&format!("write_stream={stream}")))
            .await
            .expect("a connection")
    }

    /// One append of [`Person`]s on a connection of its own.
    pub(crate) async fn append(
        &self,
        stream: &str,
        offset: Option<i64>,
        rows: Vec<Vec<u8>>,
    ) -> Result<api::AppendRowsResponse, Status> {
        let mut connection = self.connect(stream).await;
        connection.send(first(stream, person_descriptor(), offset, rows)).await;
        connection.next().await
    }
}

/// The default stream of a table.
pub(crate) fn default_stream(table: &str) -> String {
    format!("{DATASET}/{table}/streams/_default")
}

/// A request with everything that a first one needs.
pub(crate) fn first(
    stream: &str,
    schema: DescriptorProto,
    offset: Option<i64>,
    rows: Vec<Vec<u8>>,
) -> api::AppendRowsRequest {
    let schema = api::ProtoSchema { proto_descriptor: Some(schema) };
    request(stream, Some(schema), offset, rows)
}

/// A request as later ones are.
pub(crate) fn later(offset: Option<i64>, rows: Vec<Vec<u8>>) -> api::AppendRowsRequest {
    request("", None, offset, rows)
}

pub(crate) fn request(
    stream: &str,
    writer_schema: Option<api::ProtoSchema>,
    offset: Option<i64>,
    serialized_rows: Vec<Vec<u8>>,
) -> api::AppendRowsRequest {
    let rows = Some(api::ProtoRows { serialized_rows });
    let data = api::append_rows_request::ProtoData { writer_schema, rows };
    api::AppendRowsRequest {
        write_stream: stream.to_owned(),
        offset,
        rows: Some(api::append_rows_request::Rows::ProtoRows(data)),
        ..api::AppendRowsRequest::default()
    }
}

/// An `AppendRows` connection.
pub(crate) struct Connection {
    pub(crate) requests: mpsc::Sender<api::AppendRowsRequest>,
    pub(crate) answers: tonic::Streaming<api::AppendRowsResponse>,
}

impl Connection {
    pub(crate) async fn open(
        mut client: BigQueryWriteClient<Channel>,
        routing: Option<&str>,
    ) -> Result<Connection, Status> {
        let (requests, sent) = mpsc::channel(256);
        let mut request = Request::new(ReceiverStream::new(sent));
        if let Some(routing) = routing {
            request.metadata_mut().insert("x-goog-request-params", routing.parse().expect("a header"));
        }
        let answers = client.append_rows(request).await?.into_inner();
        Ok(Connection { requests, answers })
    }

    pub(crate) async fn send(&self, request: api::AppendRowsRequest) {
        // A connection that has ended says so in its answers.
        let _: Result<(), _> = self.requests.send(request).await;
    }

    pub(crate) async fn next(&mut self) -> Result<api::AppendRowsResponse, Status> {
        let answer = tokio::time::timeout(PATIENCE, self.answers.message()).await.expect("an answer in time");
        answer.map(|answer| answer.expect("an answer before the end"))
    }
}

/// The offset of an append that was taken.
pub(crate) fn offset_of(answer: &api::AppendRowsResponse) -> Option<i64> {
    match &answer.response {
        Some(Response::AppendResult(result)) => result.offset,
        other => panic!("not taken: {other:?}"),
    }
}

/// The code of an append that was refused in an answer, and BigQuery's own code for it.
pub(crate) fn refusal_of(answer: &api::AppendRowsResponse) -> (Code, Option<StorageErrorCode>) {
    match &answer.response {
        Some(Response::Error(status)) => {
            (Code::from_i32(status.code), status.details.first().map(|detail| storage_code(&detail.value)))
        }
        other => panic!("not refused: {other:?}"),
    }
}

/// The code of a refused call, and BigQuery's own code for it out of `grpc-status-details-bin`.
pub(crate) fn status_of(status: &Status) -> (Code, Option<StorageErrorCode>) {
    if status.details().is_empty() {
        return (status.code(), None);
    }
    let details =
        gcp_bigquery_client::google::rpc::Status::decode(status.details()).expect("google.rpc.Status");
    assert_eq!(details.code, i32::from(status.code()));
    (status.code(), details.details.first().map(|detail| storage_code(&detail.value)))
}

fn storage_code(detail: &[u8]) -> StorageErrorCode {
    let error = api::StorageError::decode(detail).expect("a StorageError");
    StorageErrorCode::try_from(error.code).expect("a known code")
}
