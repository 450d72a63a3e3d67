//! Rows that do not fit: none of their request is stored, and the answer names them.

use crate::support::{
    Connection, Response, Server, StreamType, default_stream, descriptor, first, later, offset_of, optional,
    people, refusal_of,
};
use gcp_bigquery_client::google::cloud::bigquery::storage::v1 as api;
use prost_types::field_descriptor_proto::Type;
use serde_json::json;
use tonic::Code;
use txconnect_local_bigquery::Options;

/// A table with a REQUIRED `id`, a DATE `day` and a NUMERIC `sum`.
async fn server() -> Server {
    let server = Server::start(Options::default()).await;
    let fields = json!([
        {"name": "id", "type": "INTEGER", "mode": "REQUIRED"},
        {"name": "day", "type": "DATE"},
        {"name": "sum", "type": "NUMERIC"}
    ]);
    server.create_table("t", json!({"schema": {"fields": fields}})).await;
    server
}

#[derive(Clone, PartialEq, prost::Message)]
struct Payment {
    #[prost(int64, optional, tag = "1")]
    id: Option<i64>,
    #[prost(int32, optional, tag = "2")]
    day: Option<i32>,
    #[prost(string, optional, tag = "3")]
    sum: Option<String>,
}

fn payment_descriptor() -> prost_types::DescriptorProto {
    descriptor(vec![
        optional("id", 1, Type::Int64),
        optional("day", 2, Type::Int32),
        optional("sum", 3, Type::String),
    ])
}

fn payment(id: Option<i64>, day: i32, sum: &str) -> Vec<u8> {
    prost::Message::encode_to_vec(&Payment { id, day: Some(day), sum: Some(sum.to_owned()) })
}

fn errors(answer: &api::AppendRowsResponse) -> Vec<i64> {
    for error in &answer.row_errors {
        assert_eq!(error.code(), api::row_error::RowErrorCode::FieldsError);
        assert!(!error.message.is_empty());
    }
    answer.row_errors.iter().map(|error| error.index).collect()
}

// AppendRowsResponse.row_errors: with corrupted rows "no rows in the batch will be appended"; the caller can remove the bad
// rows and send the request again.
#[tokio::test]
async fn bad_rows_are_named_and_the_rest_can_be_sent_again_at_the_same_offset() {
    let server = server().await;
    let stream = server.create(StreamType::Committed).await;
    let good = payment(Some(1), 20_000, "12.50");
    let rows = vec![
        good.clone(),
        payment(None, 1, "1"),
        payment(Some(2), 3_000_000, "1"),
        payment(Some(3), 1, "one"),
        good.clone(),
        vec![0xFF],
        // A field number that the schema has not.
        vec![8, 1, 0x78, 1],
        // The id as text.
        vec![0x0A, 1, b'7'],
    ];
    let mut connection = server.connect(&stream).await;
    connection.send(first(&stream, payment_descriptor(), Some(0), rows)).await;
    let answer = connection.next().await.unwrap();
    assert_eq!(refusal_of(&answer), (Code::InvalidArgument, None));
    assert_eq!(errors(&answer), vec![1, 2, 3, 5, 6, 7]);
    assert!(server.rows("t").is_empty());
    connection.send(later(Some(0), vec![good.clone(), good])).await;
    assert_eq!(offset_of(&connection.next().await.unwrap()), Some(0));
    assert_eq!(server.rows("t")[1]["sum"], json!("12.5"));
}

#[tokio::test]
async fn a_wrong_offset_is_said_before_wrong_rows() {
    let server = server().await;
    let stream = server.create(StreamType::Buffered).await;
    let mut connection = server.connect(&stream).await;
    connection.send(first(&stream, payment_descriptor(), Some(1), vec![payment(None, 1, "1")])).await;
    assert_eq!(refusal_of(&connection.next().await.unwrap()).0, Code::OutOfRange);
}

#[tokio::test]
async fn a_schema_without_a_required_field_or_of_another_type_is_refused() {
    let server = server().await;
    let stream = default_stream("t");
    for (fields, said) in [
        (vec![optional("day", 2, Type::Int32)], "missing in the proto message"),
        (vec![optional("id", 1, Type::String)], "Proto field mismatched with BigQuery field"),
    ] {
        let mut connection = server.connect(&stream).await;
        connection.send(first(&stream, descriptor(fields), None, people([1]))).await;
        let answer = connection.next().await.unwrap();
        let Some(Response::Error(status)) = &answer.response else { panic!("not refused: {answer:?}") };
        assert_eq!(status.code, i32::from(Code::InvalidArgument));
        assert!(status.message.contains(said), "{}", status.message);
        assert!(answer.row_errors.is_empty());
    }
}

// AppendRowsResponse says that the list may be cut short; here at about a mebibyte of messages.
#[tokio::test]
async fn very_many_bad_rows_are_not_all_named() {
    let server = server().await;
    let stream = default_stream("t");
    let mut connection: Connection = server.connect(&stream).await;
    connection.send(first(&stream, payment_descriptor(), None, vec![payment(None, 1, "1"); 100_000])).await;
    let named = errors(&connection.next().await.unwrap()).len();
    assert!((1_000..100_000).contains(&named), "{named}");
    assert!(server.rows("t").is_empty());
}
