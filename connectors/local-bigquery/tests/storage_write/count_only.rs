//! A server that counts rows instead of keeping them.

use crate::support::{
    Server, StreamType, default_stream, first, later, offset_of, people, person_descriptor, refusal_of,
};
use serde_json::json;
use tonic::Code;
use txconnect_local_bigquery::Options;

#[tokio::test]
async fn offsets_visibility_and_counts_are_those_of_rows_that_are_kept() {
    let server = Server::with_people(Options { count_only: true, ..Options::default() }).await;
    let visible = || server.bigquery.tables()[0].rows;
    let stream = server.create(StreamType::Buffered).await;
    let mut connection = server.connect(&stream).await;
    connection.send(first(&stream, person_descriptor(), Some(0), people(0..10))).await;
    connection.send(later(Some(10), people(0..10))).await;
    connection.send(later(Some(10), people(0..10))).await;
    assert_eq!(offset_of(&connection.next().await.unwrap()), Some(0));
    assert_eq!(offset_of(&connection.next().await.unwrap()), Some(10));
    assert_eq!(refusal_of(&connection.next().await.unwrap()).0, Code::AlreadyExists);
    assert_eq!(visible(), 0);
    server.flush(&stream, 12).await.unwrap();
    assert_eq!(visible(), 13);
    assert_eq!(server.finalize(&stream).await.unwrap(), 20);
    assert_eq!(visible(), 13);
    server.append(&default_stream("t"), None, people(0..5)).await.unwrap();
    let insert = json!({"rows": [{"json": {"id": 1}}, {"json": {"id": [2]}}]});
    assert_eq!(server.post("projects/p/datasets/d/tables/t/insertAll", &insert).await.0, 200);
    assert_eq!(visible(), 20);
    let (_, counted) = server.post("projects/p/queries", &json!({"query": "SELECT COUNT(*) FROM d.t"})).await;
    assert_eq!(counted["rows"][0]["f"][0]["v"], "20");
    assert!(server.rows("t").is_empty());
    let pending = server.create(StreamType::Pending).await;
    server.append(&pending, Some(0), people(0..4)).await.unwrap();
    server.finalize(&pending).await.unwrap();
    server.commit(&[&pending]).await.unwrap();
    assert_eq!(visible(), 24);
}
