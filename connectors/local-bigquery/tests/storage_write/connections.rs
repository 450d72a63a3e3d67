//! What a connection must begin with, what it may change, and how it ends.

use crate::support::{
    Connection, Server, StorageErrorCode, StreamType, default_stream, descriptor, first, later, offset_of,
    optional, people, person_descriptor, person_fields, refusal_of, request,
};
use gcp_bigquery_client::google::cloud::bigquery::storage::v1 as api;
use prost_types::field_descriptor_proto::Type;
use serde_json::json;
use tonic::Code;
use tonic::codec::CompressionEncoding;
use txconnect_local_bigquery::Options;

// "Introduction to the Storage Write API": "you must include the following header in your requests:
// x-goog-request-params: write_stream=<stream_name>" (for any region except the US multi-region).
#[tokio::test]
async fn the_routing_header_must_name_the_stream() {
    let server = Server::with_people(Options::default()).await;
    let stream = default_stream("t");
    for routing in
        [None, Some("write_stream=projects/p/datasets/d/tables/u/streams/_default"), Some("name=x")]
    {
        let mut connection = Connection::open(server.client.clone(), routing).await.unwrap();
        connection.send(first(&stream, person_descriptor(), None, people([1]))).await;
        assert_eq!(connection.next().await.unwrap_err().code(), Code::InvalidArgument, "{routing:?}");
    }
    assert!(server.ids("t").is_empty());
}

// AppendRowsRequest: write_stream and writer_schema must be given "in the first request to an AppendRows connection".
#[tokio::test]
async fn the_first_request_must_name_stream_and_schema() {
    let server = Server::with_people(Options::default()).await;
    let stream = default_stream("t");
    for wrong in
        [request(&stream, None, None, people([1])), first("", person_descriptor(), None, people([1]))]
    {
        let mut connection = server.connect(&stream).await;
        connection.send(wrong).await;
        assert_eq!(connection.next().await.unwrap_err().code(), Code::InvalidArgument);
    }
    let mut connection = server.connect("nonsense").await;
    connection.send(first("nonsense", person_descriptor(), None, people([1]))).await;
    assert_eq!(connection.next().await.unwrap_err().code(), Code::InvalidArgument);
}

// AppendRowsRequest: "You can also switch table destinations within the same connection for the default stream"; the
// stream is then named in every request, the schema whenever the destination changes.
#[tokio::test]
async fn default_streams_of_several_tables_share_a_connection() {
    let server = Server::with_people(Options::default()).await;
    let fields = json!([{"name": "n", "type": "INTEGER"}]);
    server.create_table("u", json!({"schema": {"fields": fields}})).await;
    let (t, u) = (default_stream("t"), default_stream("u"));
    let number = || descriptor(vec![optional("n", 1, Type::Int64)]);
    let mut connection = server.connect(&t).await;
    connection.send(first(&t, person_descriptor(), None, people([1]))).await;
    connection.send(first(&u, number(), None, people([2]))).await;
    connection.send(request(&u, None, None, people([3]))).await;
    connection.send(first(&t, person_descriptor(), None, people([4]))).await;
    for stream in [&t, &u, &u, &t] {
        let answer = connection.next().await.unwrap();
        assert_eq!((offset_of(&answer), &answer.write_stream), (None, stream));
    }
    assert_eq!(server.ids("t"), vec![1, 4]);
    assert_eq!(server.rows("u").iter().map(|row| &row["n"]).collect::<Vec<_>>(), vec![&json!(2), &json!(3)]);
    // Back to the other table without its schema.
    connection.send(request(&u, None, None, people([5]))).await;
    assert_eq!(connection.next().await.unwrap_err().code(), Code::InvalidArgument);

    let mut connection = server.connect(&t).await;
    connection.send(first(&t, person_descriptor(), None, people([6]))).await;
    connection.send(first(&u, number(), None, people([7]))).await;
    connection.send(later(None, people([8]))).await;
    connection.next().await.unwrap();
    connection.next().await.unwrap();
    assert_eq!(connection.next().await.unwrap_err().code(), Code::InvalidArgument);
}

#[tokio::test]
async fn a_stream_that_was_made_shares_its_connection_with_no_other() {
    let server = Server::with_people(Options::default()).await;
    let made = server.create(StreamType::Committed).await;
    for (one, other) in [(made.clone(), default_stream("t")), (default_stream("t"), made.clone())] {
        let mut connection = server.connect(&one).await;
        connection.send(first(&one, person_descriptor(), None, people([1]))).await;
        connection.next().await.unwrap();
        connection.send(first(&other, person_descriptor(), None, people([2]))).await;
        assert_eq!(connection.next().await.unwrap_err().code(), Code::InvalidArgument);
    }
    assert_eq!(server.ids("t"), vec![1, 1]);
}

// ProtoData.writer_schema: given again whenever the input schema changes.
#[tokio::test]
async fn a_connection_may_change_its_schema() {
    let server = Server::with_people(Options::default()).await;
    let stream = server.create(StreamType::Committed).await;
    let mut connection = server.connect(&stream).await;
    connection.send(first(&stream, person_descriptor(), Some(0), people([1]))).await;
    connection
        .send(first(
            "",
            descriptor(vec![optional("name", 2, Type::String), optional("id", 1, Type::Int64)]),
            Some(1),
            people([2]),
        ))
        .await;
    connection.send(later(Some(2), people([3]))).await;
    for _ in 0..3 {
        offset_of(&connection.next().await.unwrap());
    }
    assert_eq!(server.ids("t"), vec![1, 2, 3]);
}

// AppendRowsResponse.updated_schema: set when the backend detects a schema update, empty otherwise.
#[tokio::test]
async fn a_changed_table_is_announced_once_and_its_new_column_taken() {
    let server = Server::with_people(Options::default()).await;
    let stream = default_stream("t");
    let mut connection = server.connect(&stream).await;
    connection.send(first(&stream, person_descriptor(), None, people([1]))).await;
    assert_eq!(connection.next().await.unwrap().updated_schema, None);
    let mut fields = person_fields();
    fields.as_array_mut().unwrap().push(json!({"name": "age", "type": "INTEGER"}));
    let url = format!("{}/projects/p/datasets/d/tables/t", server.bigquery.base_url());
    server.send(server.http.patch(url).json(&json!({"schema": {"fields": fields}}))).await;
    connection.send(later(None, people([2]))).await;
    assert_eq!(connection.next().await.unwrap().updated_schema.unwrap().fields.len(), 3);
    let mut wider = person_descriptor();
    wider.field.push(optional("age", 3, Type::Int64));
    connection.send(first("", wider, None, vec![vec![8, 3, 24, 40]])).await;
    assert_eq!(connection.next().await.unwrap().updated_schema, None);
    assert_eq!(server.rows("t")[2]["age"], json!(40));
}

// The size limit of a request: one of 20,488,556 bytes was seen to be taken, one of 20,989,006 bytes was refused with a
// bare INVALID_ARGUMENT that ended the connection.
#[tokio::test]
async fn a_request_above_the_limit_ends_the_connection() {
    let server = Server::with_people(Options::default()).await;
    let stream = default_stream("t");
    let wide = |bytes: usize| {
        let row = crate::support::Person { id: Some(1), name: Some("x".repeat(bytes)) };
        vec![prost::Message::encode_to_vec(&row)]
    };
    let mut connection = server.connect(&stream).await;
    connection.send(first(&stream, person_descriptor(), None, wide(20_488_000))).await;
    connection.next().await.unwrap();
    connection.send(later(None, wide(20_989_000))).await;
    connection.send(later(None, people([2]))).await;
    let refused = connection.next().await.unwrap_err();
    assert_eq!((refused.code(), refused.details().len()), (Code::InvalidArgument, 0));
    assert_eq!(server.ids("t"), vec![1]);
}

#[tokio::test]
async fn a_client_that_is_done_gets_all_its_answers_and_the_end() {
    let server = Server::with_people(Options::default()).await;
    let stream = server.create(StreamType::Buffered).await;
    let mut connection = server.connect(&stream).await;
    connection.send(first(&stream, person_descriptor(), Some(0), people([0]))).await;
    for offset in 1..100 {
        connection.send(later(Some(offset), people([offset]))).await;
    }
    let Connection { requests, ref mut answers } = connection;
    drop(requests);
    for offset in 0..100 {
        assert_eq!(offset_of(&answers.message().await.unwrap().unwrap()), Some(offset));
    }
    assert!(answers.message().await.unwrap().is_none());
}

/// A request with rows in Arrow, which the generated type does not have.
#[derive(Clone, PartialEq, prost::Message)]
struct ArrowRequest {
    #[prost(string, tag = "1")]
    write_stream: String,
    #[prost(bytes = "vec", tag = "5")]
    arrow_rows: Vec<u8>,
}

#[tokio::test]
async fn rows_in_arrow_are_refused() {
    let server = Server::with_people(Options::default()).await;
    let channel =
        tonic::transport::Channel::from_shared(format!("http://{}", server.bigquery.address())).unwrap();
    let mut client = tonic::client::Grpc::new(channel.connect().await.unwrap());
    client.ready().await.unwrap();
    let ask = ArrowRequest { write_stream: default_stream("t"), arrow_rows: vec![10, 0] };
    let mut request = tonic::Request::new(futures::stream::iter([ask]));
    let routing = format!("write_stream={}", default_stream("t"));
    request.metadata_mut().insert("x-goog-request-params", routing.parse().unwrap());
    let path = "/google.cloud.bigquery.storage.v1.BigQueryWrite/AppendRows".parse().unwrap();
    let codec = tonic_prost::ProstCodec::<ArrowRequest, api::AppendRowsResponse>::default();
    let mut answers = client.streaming(request, path, codec).await.unwrap().into_inner();
    let refused = answers.message().await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert!(refused.message().contains("Arrow"), "{refused}");
}

#[tokio::test]
async fn credentials_are_required_where_the_options_say_so() {
    let options = Options { required_token: Some("secret".into()), ..Options::default() };
    let bigquery = txconnect_local_bigquery::LocalBigQuery::start(options).await.unwrap();
    let channel = tonic::transport::Channel::from_shared(format!("http://{}", bigquery.address())).unwrap();
    let mut client = crate::support::BigQueryWriteClient::new(channel.connect().await.unwrap());
    let finalize = api::FinalizeWriteStreamRequest { name: default_stream("t") };
    assert_eq!(
        client.finalize_write_stream(finalize.clone()).await.unwrap_err().code(),
        Code::Unauthenticated
    );
    let opened = Connection::open(client.clone(), Some("write_stream=x")).await;
    assert_eq!(opened.map(drop).unwrap_err().code(), Code::Unauthenticated);
    let mut request = tonic::Request::new(finalize);
    request.metadata_mut().insert("authorization", "Bearer secret".parse().unwrap());
    // Let through, it finds no such table.
    assert_eq!(client.finalize_write_stream(request).await.unwrap_err().code(), Code::NotFound);
}

#[tokio::test]
async fn a_method_that_does_not_exist_is_unimplemented() {
    let server = Server::with_people(Options::default()).await;
    let channel =
        tonic::transport::Channel::from_shared(format!("http://{}", server.bigquery.address())).unwrap();
    let channel = channel.connect().await.unwrap();
    let mut client = api::big_query_read_client::BigQueryReadClient::new(channel);
    let refused = client.create_read_session(api::CreateReadSessionRequest::default()).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unimplemented);
}

#[tokio::test]
async fn compressed_requests_are_taken() {
    let server = Server::with_people(Options::default()).await;
    let stream = default_stream("t");
    let client = server.client.clone().send_compressed(CompressionEncoding::Gzip);
    let routing = format!("write_stream={stream}");
    let mut connection = Connection::open(client, Some(&routing)).await.unwrap();
    connection.send(first(&stream, person_descriptor(), None, people(0..100))).await;
    connection.next().await.unwrap();
    assert_eq!(server.ids("t").len(), 100);
}

#[tokio::test]
async fn many_connections_append_at_once_and_are_counted() {
    let server = Server::with_people(Options::default()).await;
    let appends = (0..20_i64).map(|connection| {
        let server = &server;
        async move {
            let stream = server.create(StreamType::Buffered).await;
            let mut connected = server.connect(&stream).await;
            connected.send(first(&stream, person_descriptor(), Some(0), people([connection]))).await;
            for offset in 1..20 {
                connected.send(later(Some(offset), people([connection]))).await;
            }
            for offset in 0..20 {
                assert_eq!(offset_of(&connected.next().await.unwrap()), Some(offset));
            }
            server.flush(&stream, 19).await.unwrap();
        }
    });
    futures::future::join_all(appends).await;
    assert_eq!(server.ids("t").len(), 400);
    let url = format!("http://{}/__requests", server.bigquery.address());
    let (_, counts) = server.send(server.http.get(url)).await;
    let of = |method: &str| {
        let counts = counts["requests"].as_array().unwrap();
        counts.iter().find(|count| count["method"] == method).unwrap()["count"].clone()
    };
    assert_eq!(
        (of("AppendRows"), of("CreateWriteStream"), of("FlushRows")),
        (json!(400), json!(20), json!(20))
    );
    let appends = counts["appends"].as_array().unwrap();
    assert_eq!((appends.len(), &appends[0]["requests"], &appends[0]["rows"]), (20, &json!(20), &json!(20)));
    assert_eq!(counts["append_connections"]["opened"], json!(20));
}

#[tokio::test]
async fn a_server_that_stops_closes_its_connections() {
    let server = Server::with_people(Options::default()).await;
    let stream = default_stream("t");
    let mut connection = server.connect(&stream).await;
    connection.send(first(&stream, person_descriptor(), None, people([1]))).await;
    connection.next().await.unwrap();
    tokio::time::timeout(crate::support::PATIENCE, server.bigquery.stop()).await.expect("it stops");
    assert!(connection.answers.message().await.is_err());
}

// StorageErrorCode SCHEMA_MISMATCH_EXTRA_FIELDS: the user's schema "has extra field than bigquery schema".
#[tokio::test]
async fn a_field_that_the_table_has_not_is_refused() {
    let server = Server::with_people(Options::default()).await;
    let stream = default_stream("t");
    let mut wider = person_descriptor();
    wider.field.push(optional("age", 3, Type::Int64));
    let mut connection = server.connect(&stream).await;
    connection.send(first(&stream, wider, None, people([1]))).await;
    let mismatch = (Code::InvalidArgument, Some(StorageErrorCode::SchemaMismatchExtraFields));
    assert_eq!(refusal_of(&connection.next().await.unwrap()), mismatch);
    connection.send(first(&stream, person_descriptor(), None, people([1]))).await;
    connection.next().await.unwrap();
    assert_eq!(server.ids("t"), vec![1]);
}

// "BigQuery closes the gRPC connection if the connection remains idle for too long."
#[tokio::test]
async fn an_idle_connection_is_closed_and_its_stream_goes_on_over_another() {
    let options = Options { append_idle: std::time::Duration::from_millis(50), ..Options::default() };
    let server = Server::with_people(options).await;
    let stream = server.create(StreamType::Buffered).await;
    let mut connection = server.connect(&stream).await;
    connection.send(first(&stream, person_descriptor(), Some(0), people([0]))).await;
    offset_of(&connection.next().await.unwrap());
    let closed = connection.next().await.unwrap_err();
    assert_eq!(closed.code(), Code::Aborted);
    assert!(closed.message().contains("inactive"), "{}", closed.message());
    assert_eq!(offset_of(&server.append(&stream, Some(1), people([1])).await.unwrap()), Some(1));
}

#[tokio::test]
async fn a_request_without_rows_is_refused() {
    let server = Server::with_people(Options::default()).await;
    let refused = server.append(&default_stream("t"), None, Vec::new()).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
}
