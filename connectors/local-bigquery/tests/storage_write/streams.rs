//! Offsets, visibility, and the end of streams.

use std::time::Duration;

use crate::support::{
    Server, StorageErrorCode, StreamType, default_stream, first, later, offset_of, people, person_descriptor,
    refusal_of, status_of,
};
use gcp_bigquery_client::google::cloud::bigquery::storage::v1 as api;
use serde_json::json;
use tonic::Code;
use txconnect_local_bigquery::{Clock, Options};

// WriteStream.Type BUFFERED: "Data is only visible up to the offset to which it was flushed."
#[tokio::test]
async fn buffered_rows_are_visible_up_to_the_flushed_offset() {
    let server = Server::with_people(Options::default()).await;
    let stream = server.create(StreamType::Buffered).await;
    let mut connection = server.connect(&stream).await;
    connection.send(first(&stream, person_descriptor(), Some(0), people(0..3))).await;
    connection.send(later(Some(3), people(3..6))).await;
    assert_eq!(offset_of(&connection.next().await.unwrap()), Some(0));
    assert_eq!(offset_of(&connection.next().await.unwrap()), Some(3));
    assert!(server.ids("t").is_empty());
    // FlushRowsRequest.offset: rows before this offset and the one at it are flushed.
    assert_eq!(server.flush(&stream, 3).await.unwrap(), 3);
    assert_eq!(server.ids("t"), vec![0, 1, 2, 3]);
    assert_eq!(server.flush(&stream, 5).await.unwrap(), 5);
    assert_eq!(server.ids("t"), vec![0, 1, 2, 3, 4, 5]);
    let summary = &server.bigquery.streams()[0];
    assert_eq!((summary.name.as_str(), summary.kind.as_str()), (stream.as_str(), "BUFFERED"));
    assert_eq!((summary.rows, summary.flushed, summary.finalized, summary.committed), (6, 6, false, false));
}

// BigQueryWrite.FlushRows is for BUFFERED streams; what it answers with is from Apache Beam's handling of it.
#[tokio::test]
async fn a_flush_of_what_is_not_there_or_flushed_already_or_not_buffered_is_refused() {
    let server = Server::with_people(Options::default()).await;
    let stream = server.create(StreamType::Buffered).await;
    server.append(&stream, Some(0), people(0..3)).await.unwrap();
    for offset in [3, 100, -1] {
        assert_eq!(server.flush(&stream, offset).await.unwrap_err().code(), Code::OutOfRange, "{offset}");
    }
    server.flush(&stream, 1).await.unwrap();
    for offset in [0, 1] {
        assert_eq!(server.flush(&stream, offset).await.unwrap_err().code(), Code::AlreadyExists, "{offset}");
    }
    assert_eq!(server.finalize(&stream).await.unwrap(), 3);
    for offset in [1, 2] {
        assert_eq!(
            server.flush(&stream, offset).await.unwrap_err().code(),
            Code::InvalidArgument,
            "{offset}"
        );
    }
    assert_eq!(server.ids("t"), vec![0, 1]);
    for other in [
        server.create(StreamType::Committed).await,
        server.create(StreamType::Pending).await,
        default_stream("t"),
    ] {
        let refused = server.flush(&other, 0).await.unwrap_err();
        assert_eq!(status_of(&refused), (Code::InvalidArgument, Some(StorageErrorCode::InvalidStreamType)));
    }
}

// WriteStream.Type COMMITTED: data appears "as soon as the write is acknowledged". The default stream: "immediately".
#[tokio::test]
async fn committed_rows_and_those_of_the_default_stream_are_visible_at_once() {
    let server = Server::with_people(Options::default()).await;
    let stream = server.create(StreamType::Committed).await;
    let answer = server.append(&stream, Some(0), people([1])).await.unwrap();
    assert_eq!((offset_of(&answer), answer.write_stream.as_str()), (Some(0), stream.as_str()));
    assert_eq!(server.ids("t"), vec![1]);
    // AppendResult.offset: "The offset will not be set if appending using default streams."
    let answer = server.append(&default_stream("t"), None, people([2])).await.unwrap();
    assert_eq!(offset_of(&answer), None);
    let short = "projects/p/datasets/d/tables/t/_default";
    server.append(short, None, people([3])).await.unwrap();
    assert_eq!(server.ids("t"), vec![1, 2, 3]);
    // An append without an offset goes to the end of the stream.
    assert_eq!(offset_of(&server.append(&stream, None, people([4, 5])).await.unwrap()), Some(1));
}

// AppendRowsRequest.offset: "Specifying a value for this field is not allowed" for the default stream.
#[tokio::test]
async fn the_default_stream_takes_no_offset_and_no_end() {
    let server = Server::with_people(Options::default()).await;
    let refused = server.append(&default_stream("t"), Some(0), people([1])).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    let refused = server.finalize(&default_stream("t")).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert!(server.ids("t").is_empty());
}

// StorageErrorCode: OFFSET_ALREADY_EXISTS and OFFSET_OUT_OF_RANGE; AppendRowsResponse.error: a client may "continue with
// other append requests within the same connection".
#[tokio::test]
async fn an_offset_that_is_not_the_end_is_refused_and_the_connection_goes_on() {
    let server = Server::with_people(Options::default()).await;
    let stream = server.create(StreamType::Buffered).await;
    let mut connection = server.connect(&stream).await;
    connection.send(first(&stream, person_descriptor(), Some(0), people(0..3))).await;
    for offset in [0, 2, 4, 1_000] {
        connection.send(later(Some(offset), people(7..9))).await;
    }
    connection.send(later(Some(3), people(3..5))).await;
    assert_eq!(offset_of(&connection.next().await.unwrap()), Some(0));
    let exists = (Code::AlreadyExists, Some(StorageErrorCode::OffsetAlreadyExists));
    let beyond = (Code::OutOfRange, Some(StorageErrorCode::OffsetOutOfRange));
    for wanted in [exists, exists, beyond, beyond] {
        assert_eq!(refusal_of(&connection.next().await.unwrap()), wanted);
    }
    assert_eq!(offset_of(&connection.next().await.unwrap()), Some(3));
    server.flush(&stream, 4).await.unwrap();
    assert_eq!(server.ids("t"), vec![0, 1, 2, 3, 4]);
}

// FinalizeWriteStream "finalizes the stream so that no new data can be appended to it"; StorageErrorCode STREAM_FINALIZED.
#[tokio::test]
async fn a_finalized_stream_takes_no_more_rows_and_says_how_many_it_has() {
    let server = Server::with_people(Options::default()).await;
    for kind in [StreamType::Buffered, StreamType::Committed, StreamType::Pending] {
        let stream = server.create(kind).await;
        let mut zombie = server.connect(&stream).await;
        zombie.send(first(&stream, person_descriptor(), Some(0), people(0..2))).await;
        zombie.next().await.unwrap();
        assert_eq!(server.finalize(&stream).await.unwrap(), 2);
        assert_eq!(server.finalize(&stream).await.unwrap(), 2);
        zombie.send(later(Some(2), people([2]))).await;
        let finalized = (Code::InvalidArgument, Some(StorageErrorCode::StreamFinalized));
        assert_eq!(refusal_of(&zombie.next().await.unwrap()), finalized);
        let answer = server.append(&stream, Some(2), people([2])).await.unwrap();
        assert_eq!(refusal_of(&answer), finalized);
    }
    assert_eq!(server.ids("t"), vec![0, 1]);
}

// WriteStream.Type PENDING: "Data is invisible until the stream is committed."
#[tokio::test]
async fn pending_streams_become_visible_together_or_not_at_all() {
    let server = Server::with_people(Options::default()).await;
    let one = server.create(StreamType::Pending).await;
    let two = server.create(StreamType::Pending).await;
    server.append(&one, Some(0), people(0..2)).await.unwrap();
    server.append(&two, Some(0), people(2..4)).await.unwrap();
    server.finalize(&one).await.unwrap();
    // BatchCommitWriteStreamsResponse.stream_errors: with an error of any stream, none is committed.
    let answer = server.commit(&[&one, &two]).await.unwrap();
    assert_eq!((answer.commit_time, codes(&answer)), (None, vec![StorageErrorCode::InvalidStreamState]));
    assert!(server.ids("t").is_empty());
    server.finalize(&two).await.unwrap();
    let answer = server.commit(&[&one, &two]).await.unwrap();
    assert!(answer.commit_time.is_some() && answer.stream_errors.is_empty());
    assert_eq!(server.ids("t").len(), 4);
    // Again: STREAM_ALREADY_COMMITTED for each, and nothing is doubled.
    let answer = server.commit(&[&one, &two]).await.unwrap();
    assert_eq!(codes(&answer), vec![StorageErrorCode::StreamAlreadyCommitted; 2]);
    assert_eq!(server.ids("t").len(), 4);
}

fn codes(answer: &api::BatchCommitWriteStreamsResponse) -> Vec<StorageErrorCode> {
    answer
        .stream_errors
        .iter()
        .map(|error| StorageErrorCode::try_from(error.code).expect("a known code"))
        .collect()
}

#[tokio::test]
async fn a_commit_of_streams_that_cannot_be_committed_is_refused() {
    let server = Server::with_people(Options::default()).await;
    let buffered = server.create(StreamType::Buffered).await;
    let missing = format!("{}x", server.create(StreamType::Pending).await);
    // INVALID_STREAM_TYPE: "you try to commit a stream that is not pending".
    let answer = server.commit(&[&buffered]).await.unwrap();
    assert_eq!(codes(&answer), vec![StorageErrorCode::InvalidStreamType]);
    assert_eq!(codes(&server.commit(&[&missing]).await.unwrap()), vec![StorageErrorCode::StreamNotFound]);
    assert_eq!(server.commit(&[]).await.unwrap_err().code(), Code::InvalidArgument);
    assert_eq!(server.commit(&["nonsense"]).await.unwrap_err().code(), Code::InvalidArgument);
}

// CreateWriteStream answers with the table's schema, "which is only returned in CreateWriteStream response";
// GetWriteStream with the BASIC view has none.
#[tokio::test]
async fn a_stream_says_what_it_is() {
    let server = Server::with_people(Options::default()).await;
    let made = server.try_create("t", StreamType::Buffered).await.unwrap();
    assert!(made.name.starts_with("projects/p/datasets/d/tables/t/streams/Cic"), "{}", made.name);
    let fields = made.table_schema.unwrap().fields;
    let names: Vec<&str> = fields.iter().map(|field| field.name.as_str()).collect();
    assert_eq!((names, fields[0].r#type()), (vec!["id", "name"], api::table_field_schema::Type::Int64));
    let get = |name: String, view: api::WriteStreamView| {
        let mut client = server.client.clone();
        async move { client.get_write_stream(api::GetWriteStreamRequest { name, view: view.into() }).await }
    };
    let basic = get(made.name.clone(), api::WriteStreamView::Unspecified).await.unwrap().into_inner();
    assert_eq!((basic.r#type(), basic.table_schema, basic.commit_time), (StreamType::Buffered, None, None));
    let full = get(default_stream("t"), api::WriteStreamView::Full).await.unwrap().into_inner();
    assert_eq!((full.r#type(), full.table_schema.unwrap().fields.len()), (StreamType::Committed, 2));
    let refused = get(format!("{}x", made.name), api::WriteStreamView::Basic).await.unwrap_err();
    assert_eq!(status_of(&refused), (Code::NotFound, Some(StorageErrorCode::StreamNotFound)));
    let refused = server.try_create("t", StreamType::Unspecified).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
}

#[tokio::test]
async fn a_stream_ends_with_its_table_even_where_one_of_its_name_is_made_anew() {
    let server = Server::with_people(Options::default()).await;
    let stream = server.create(StreamType::Buffered).await;
    let mut open = server.connect(&stream).await;
    open.send(first(&stream, person_descriptor(), Some(0), people([1]))).await;
    open.next().await.unwrap();
    let mut default = server.connect(&default_stream("t")).await;
    default.send(first(&default_stream("t"), person_descriptor(), None, people([2]))).await;
    default.next().await.unwrap();

    assert!(server.bigquery.recreate_table("p", "d", "t"));
    let not_found = (Code::NotFound, Some(StorageErrorCode::StreamNotFound));
    open.send(later(Some(1), people([3]))).await;
    assert_eq!(status_of(&open.next().await.unwrap_err()), not_found);
    assert_eq!(status_of(&server.flush(&stream, 0).await.unwrap_err()), not_found);
    assert_eq!(status_of(&server.finalize(&stream).await.unwrap_err()), not_found);
    // A connection of the default stream stays with the table it has begun with; a new one finds the new table.
    default.send(later(None, people([4]))).await;
    assert_eq!(default.next().await.unwrap_err().code(), Code::NotFound);
    server.append(&default_stream("t"), None, people([5])).await.unwrap();
    assert_eq!(server.ids("t"), vec![5]);

    let stream = server.create(StreamType::Buffered).await;
    assert!(server.bigquery.drop_table("p", "d", "t"));
    assert!(!server.bigquery.drop_table("p", "d", "t"));
    let gone = (Code::NotFound, Some(StorageErrorCode::TableNotFound));
    assert_eq!(status_of(&server.flush(&stream, 0).await.unwrap_err()), gone);
    assert_eq!(status_of(&server.append(&stream, Some(0), people([1])).await.unwrap_err()), gone);
    assert_eq!(status_of(&server.try_create("t", StreamType::Pending).await.unwrap_err()), gone);
}

// "Stream data using the Storage Write API": a COMMITTED stream lives three days, a BUFFERED one seven, from the last use.
#[tokio::test]
async fn a_stream_that_nobody_uses_expires() {
    let clock = Clock::system();
    let server = Server::with_people(Options { clock: clock.clone(), ..Options::default() }).await;
    let day = Duration::from_hours(24);
    let committed = server.create(StreamType::Committed).await;
    let buffered = server.create(StreamType::Buffered).await;
    server.append(&buffered, Some(0), people(0..2)).await.unwrap();
    clock.advance(3 * day);
    let not_found = (Code::NotFound, Some(StorageErrorCode::StreamNotFound));
    let refused = server.append(&committed, Some(0), people([1])).await.unwrap_err();
    assert_eq!(status_of(&refused), not_found);
    // A use begins the time anew.
    server.flush(&buffered, 0).await.unwrap();
    clock.advance((7 * day).checked_sub(Duration::from_mins(1)).unwrap());
    assert_eq!(server.finalize(&buffered).await.unwrap(), 2);
    clock.advance(7 * day);
    assert_eq!(status_of(&server.finalize(&buffered).await.unwrap_err()), not_found);
    assert!(server.bigquery.streams().is_empty());
    assert_eq!(server.ids("t"), vec![0]);
}

#[tokio::test]
async fn streams_are_listed_and_let_expire_and_tables_made_anew_over_http() {
    let server = Server::with_people(Options::default()).await;
    server.create_table("u", json!({"schema": {"fields": []}})).await;
    let one = server.create(StreamType::Buffered).await;
    server.create(StreamType::Committed).await;
    server.try_create("u", StreamType::Pending).await.unwrap();
    server.append(&one, Some(0), people(0..2)).await.unwrap();
    let control = |path: &str| format!("http://{}/{path}", server.bigquery.address());
    let (_, streams) = server.send(server.http.get(control("__streams"))).await;
    let shown = streams.as_array().unwrap().iter().find(|stream| stream["name"] == one.as_str()).unwrap();
    let wanted = json!({
        "name": one, "table": "p:d.t", "type": "BUFFERED", "rows": 2, "flushed": 0, "finalized": false,
        "committed": false
    });
    assert_eq!(shown, &wanted);
    let expire =
        |what: serde_json::Value| server.send(server.http.post(control("__streams/expire")).json(&what));
    assert_eq!(expire(json!({"stream": one})).await, (200, json!({"expired": 1})));
    assert_eq!(expire(json!({"table": "d.t"})).await, (200, json!({"expired": 1})));
    assert_eq!(expire(json!({})).await, (200, json!({"expired": 1})));
    assert_eq!(expire(json!({"tabel": "t"})).await.0, 400);
    assert_eq!(server.flush(&one, 0).await.unwrap_err().code(), Code::NotFound);
    server.append(&default_stream("t"), None, people([1])).await.unwrap();
    let recreate =
        |table: &str| server.send(server.http.post(control(&format!("__tables/p/d/{table}/recreate"))));
    assert_eq!(recreate("t").await.0, 204);
    assert!(server.ids("t").is_empty());
    assert_eq!(recreate("missing").await.0, 404);
}
