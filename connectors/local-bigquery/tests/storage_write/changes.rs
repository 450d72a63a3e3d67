//! Changes by primary key: `_CHANGE_TYPE` and `_CHANGE_SEQUENCE_NUMBER` on the default stream.

use crate::support::{
    Server, StorageErrorCode, StreamType, default_stream, descriptor, first, offset_of, optional, person,
    person_descriptor, person_fields, refusal_of,
};
use prost::Message;
use prost_types::DescriptorProto;
use prost_types::field_descriptor_proto::Type;
use serde_json::{Value as Json, json};
use tonic::Code;
use txconnect_local_bigquery::Options;

#[derive(Clone, PartialEq, Message)]
struct Change {
    #[prost(int64, optional, tag = "1")]
    id: Option<i64>,
    #[prost(string, optional, tag = "2")]
    name: Option<String>,
    #[prost(string, optional, tag = "3")]
    action: Option<String>,
    #[prost(string, optional, tag = "4")]
    sequence: Option<String>,
}

fn change_descriptor() -> DescriptorProto {
    let mut fields = person_descriptor().field;
    fields.push(optional("_CHANGE_TYPE", 3, Type::String));
    fields.push(optional("_CHANGE_SEQUENCE_NUMBER", 4, Type::String));
    descriptor(fields)
}

fn change(id: i64, name: &str, action: &str, sequence: &str) -> Vec<u8> {
    let text = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    Change { id: Some(id), name: text(name), action: text(action), sequence: text(sequence) }.encode_to_vec()
}

async fn keyed_server() -> Server {
    let server = Server::start(Options::default()).await;
    let resource = json!({
        "schema": {"fields": person_fields()},
        "tableConstraints": {"primaryKey": {"columns": ["id"]}},
        "maxStaleness": "0-0 0 0:15:0"
    });
    server.create_table("t", resource).await;
    server
}

impl Server {
    async fn change(&self, rows: Vec<Vec<u8>>) -> Vec<i64> {
        let stream = default_stream("t");
        let mut connection = self.connect(&stream).await;
        connection.send(first(&stream, change_descriptor(), None, rows)).await;
        let answer = connection.next().await.expect("an answer");
        if answer.row_errors.is_empty() {
            offset_of(&answer);
        }
        answer.row_errors.iter().map(|error| error.index).collect()
    }

    fn names(&self) -> Vec<(i64, Json)> {
        let rows = self.rows("t");
        let mut names: Vec<_> =
            rows.iter().map(|row| (row["id"].as_i64().expect("an id"), row["name"].clone())).collect();
        names.sort_by_key(|(id, _)| *id);
        names
    }
}

fn names(wanted: &[(i64, &str)]) -> Vec<(i64, Json)> {
    wanted.iter().map(|(id, name)| (*id, json!(name))).collect()
}

// "Stream table updates with change data capture": the example with UPSERT and DELETE.
#[tokio::test]
async fn upserts_and_deletes_leave_the_newest_row_of_each_key() {
    let server = keyed_server().await;
    let insert = json!({"rows": [{"json": {"id": 100, "name": "Charlie"}}, {"json": {"id": 101, "name": "Tal"}},
        {"json": {"id": 102, "name": "Lee"}}]});
    server.post("projects/p/datasets/d/tables/t/insertAll", &insert).await;
    let rows = vec![
        change(100, "", "DELETE", ""),
        change(101, "Tal 2", "UPSERT", ""),
        change(105, "Izumi", "UPSERT", ""),
    ];
    assert!(server.change(rows).await.is_empty());
    assert_eq!(server.names(), names(&[(101, "Tal 2"), (102, "Lee"), (105, "Izumi")]));
    let (_, table) = server
        .send(server.http.get(format!("{}/projects/p/datasets/d/tables/t", server.bigquery.base_url())))
        .await;
    assert_eq!((&table["numRows"], &table["maxStaleness"]), (&json!("3"), &json!("0-0 0 0:15:0")));
    let query = json!({"query": "SELECT COUNT(*) FROM d.t"});
    let (_, counted) = server.post("projects/p/queries", &query).await;
    assert_eq!(counted["rows"][0]["f"][0]["v"], "3");
}

// "Manage custom ordering": the larger _CHANGE_SEQUENCE_NUMBER wins, of equal ones the one that came later.
#[tokio::test]
async fn sequence_numbers_decide_whenever_a_change_arrives() {
    let server = keyed_server().await;
    server.change(vec![change(1, "b", "UPSERT", "FFF/ABC"), change(1, "a", "UPSERT", "FFF/B")]).await;
    assert_eq!(server.names(), names(&[(1, "b")]));
    server.change(vec![change(1, "c", "UPSERT", "fff/abc")]).await;
    assert_eq!(server.names(), names(&[(1, "c")]));
    server.change(vec![change(1, "", "DELETE", "1000")]).await;
    server.change(vec![change(1, "late", "UPSERT", "FFF/FFFFFFFFFFFFFFFF")]).await;
    assert!(server.names().is_empty());
    server.change(vec![change(1, "d", "UPSERT", "1000/1")]).await;
    assert_eq!(server.names(), names(&[(1, "d")]));
    // The whole history once more changes nothing.
    server
        .change(vec![
            change(1, "b", "UPSERT", "FFF/ABC"),
            change(1, "", "DELETE", "1000"),
            change(1, "d", "UPSERT", "1000/1"),
        ])
        .await;
    assert_eq!(server.names(), names(&[(1, "d")]));
}

// The same page: _CHANGE_TYPE "only accepts the values UPSERT and DELETE", a sequence number has at most four sections of at
// most 16 hexadecimal characters; rows without a change type cannot be mixed in: "not a valid CHANGE_TYPE".
#[tokio::test]
async fn wrong_pseudo_columns_are_row_errors() {
    let server = keyed_server().await;
    let rows = vec![
        change(1, "a", "UPSERT", "1/2/3/4"),
        change(1, "a", "upsert", "1"),
        change(1, "a", "INSERT", "1"),
        change(1, "a", "", "1"),
        change(1, "a", "UPSERT", "1/2/3/4/5"),
        change(1, "a", "UPSERT", "11111111111111111"),
        change(1, "a", "UPSERT", "x"),
        change(1, "a", "DELETE", "-1"),
    ];
    assert_eq!(server.change(rows).await, vec![1, 2, 3, 4, 5, 6, 7]);
    assert!(server.names().is_empty());
}

#[tokio::test]
async fn plain_rows_and_changes_do_not_go_together_on_a_connection() {
    let server = keyed_server().await;
    let stream = default_stream("t");
    let mut connection = server.connect(&stream).await;
    connection.send(first(&stream, person_descriptor(), None, vec![person(1)])).await;
    connection.send(first(&stream, change_descriptor(), None, vec![change(1, "a", "UPSERT", "1")])).await;
    offset_of(&connection.next().await.unwrap());
    assert_eq!(connection.next().await.unwrap().row_errors[0].index, 0);
    // On another connection the change replaces the row that was there.
    server.change(vec![change(1, "a", "UPSERT", "1")]).await;
    assert_eq!(server.names(), names(&[(1, "a")]));
}

// The same page: "You must use the Storage Write API in the default stream", "You must declare primary keys".
#[tokio::test]
async fn changes_need_a_primary_key_and_the_default_stream() {
    let server = keyed_server().await;
    server.create_table("u", json!({"schema": {"fields": person_fields()}})).await;
    let made = server.create(StreamType::Committed).await;
    for stream in [default_stream("u"), made] {
        let mut connection = server.connect(&stream).await;
        connection.send(first(&stream, change_descriptor(), None, vec![change(1, "a", "UPSERT", "1")])).await;
        let mismatch = (Code::InvalidArgument, Some(StorageErrorCode::SchemaMismatchExtraFields));
        assert_eq!(refusal_of(&connection.next().await.unwrap()), mismatch);
    }
}

#[tokio::test]
async fn a_key_can_be_declared_later_and_outlives_new_columns() {
    let server = Server::with_people(Options::default()).await;
    server.append(&default_stream("t"), None, vec![person(1), person(2)]).await.unwrap();
    let patch = |change: Json| {
        let url = format!("{}/projects/p/datasets/d/tables/t", server.bigquery.base_url());
        server.send(server.http.patch(url).json(&change))
    };
    assert_eq!(patch(json!({"tableConstraints": {"primaryKey": {"columns": ["id"]}}})).await.0, 200);
    server.change(vec![change(1, "a", "UPSERT", "5"), change(2, "", "DELETE", "5")]).await;
    assert_eq!(server.names(), names(&[(1, "a")]));
    let fields = json!([{"name": "new", "type": "DATE"}, {"name": "name", "type": "STRING"}, {"name": "id", "type": "INTEGER"}]);
    assert_eq!(patch(json!({"schema": {"fields": fields}})).await.0, 200);
    // What was known of the keys still is.
    server.change(vec![change(1, "late", "UPSERT", "4"), change(2, "late", "UPSERT", "4")]).await;
    assert_eq!(server.names(), names(&[(1, "a")]));
    let seventeen: Vec<String> = (0..17).map(|number| format!("k{number}")).collect();
    assert_eq!(patch(json!({"tableConstraints": {"primaryKey": {"columns": seventeen}}})).await.0, 400);
}

#[tokio::test]
async fn a_row_that_deletes_needs_its_key_only() {
    let server = Server::start(Options::default()).await;
    let resource = json!({
        "schema": {"fields": [{"name": "id", "type": "INTEGER", "mode": "REQUIRED"},
            {"name": "name", "type": "STRING", "mode": "REQUIRED"}]},
        "tableConstraints": {"primaryKey": {"columns": ["id"]}}
    });
    server.create_table("t", resource).await;
    assert!(server.change(vec![change(1, "a", "UPSERT", "1")]).await.is_empty());
    assert_eq!(server.change(vec![change(2, "", "UPSERT", "1")]).await, vec![0]);
    assert!(server.change(vec![change(1, "", "DELETE", "2")]).await.is_empty());
    assert!(server.names().is_empty());
}
