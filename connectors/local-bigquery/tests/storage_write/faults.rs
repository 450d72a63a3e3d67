//! Every scripted fault of the gRPC methods, seen from outside.

use std::time::Duration;

use crate::support::{
    PATIENCE, Response, Server, StorageErrorCode, StreamType, default_stream, first, later, offset_of,
    optional, people, person_descriptor, person_fields, refusal_of, status_of,
};
use prost_types::field_descriptor_proto::Type;
use serde_json::json;
use tokio::time::Instant;
use tonic::Code;
use txconnect_local_bigquery::{Clock, Closing, Fault, Method, Options, QuotaReason, StatusCode, What};

async fn server_with(faults: Vec<Fault>) -> Server {
    Server::with_people(Options { faults, ..Options::default() }).await
}

fn appends(what: What) -> Fault {
    Fault::new(Method::AppendRows, what)
}

#[tokio::test]
async fn a_lost_reply_leaves_the_rows_stored_and_their_offset_taken() {
    let server = server_with(vec![appends(What::ReplyLost).after(1).times(1)]).await;
    let stream = server.create(StreamType::Buffered).await;
    let mut connection = server.connect(&stream).await;
    connection.send(first(&stream, person_descriptor(), Some(0), people([0]))).await;
    connection.send(later(Some(1), people([1]))).await;
    connection.send(later(Some(2), people([2]))).await;
    offset_of(&connection.next().await.unwrap());
    assert_eq!(connection.next().await.unwrap_err().code(), Code::Unavailable);
    let answer = server.append(&stream, Some(1), people([1])).await.unwrap();
    let exists = (Code::AlreadyExists, Some(StorageErrorCode::OffsetAlreadyExists));
    assert_eq!(refusal_of(&answer), exists);
    assert_eq!(offset_of(&server.append(&stream, Some(2), people([2])).await.unwrap()), Some(2));
    server.flush(&stream, 2).await.unwrap();
    assert_eq!(server.ids("t"), vec![0, 1, 2]);
}

#[tokio::test]
async fn a_lost_reply_of_a_call_leaves_it_carried_out() {
    let server = server_with(vec![
        Fault::new(Method::FlushRows, What::ReplyLost).times(1),
        Fault::new(Method::FinalizeWriteStream, What::ReplyLost).times(1),
        Fault::new(Method::CreateWriteStream, What::ReplyLost).after(1).times(1),
        Fault::new(Method::BatchCommitWriteStreams, What::ReplyLost).times(1),
    ])
    .await;
    let stream = server.create(StreamType::Buffered).await;
    server.append(&stream, Some(0), people([0])).await.unwrap();
    assert_eq!(server.flush(&stream, 0).await.unwrap_err().code(), Code::Unavailable);
    assert_eq!(server.ids("t"), vec![0]);
    assert_eq!(server.flush(&stream, 0).await.unwrap_err().code(), Code::AlreadyExists);
    assert_eq!(server.finalize(&stream).await.unwrap_err().code(), Code::Unavailable);
    assert!(server.bigquery.streams()[0].finalized);
    assert_eq!(server.try_create("t", StreamType::Pending).await.unwrap_err().code(), Code::Unavailable);
    assert_eq!(server.bigquery.streams().len(), 2);
    let pending = server.create(StreamType::Pending).await;
    server.append(&pending, Some(0), people([1])).await.unwrap();
    server.finalize(&pending).await.unwrap();
    assert_eq!(server.commit(&[&pending]).await.unwrap_err().code(), Code::Unavailable);
    let again = server.commit(&[&pending]).await.unwrap();
    assert_eq!(again.stream_errors[0].code, i32::from(StorageErrorCode::StreamAlreadyCommitted));
    assert_eq!(server.ids("t"), vec![0, 1]);
}

#[tokio::test]
async fn a_cut_closes_the_connection_under_every_call_and_stores_nothing() {
    let server = server_with(vec![appends(What::Cut).after(1).times(1)]).await;
    let stream = server.create(StreamType::Committed).await;
    let mut other = server.connect(&default_stream("t")).await;
    other.send(first(&default_stream("t"), person_descriptor(), None, people([7]))).await;
    offset_of(&other.next().await.unwrap());
    assert!(server.append(&stream, Some(0), people([0])).await.is_err());
    assert!(other.next().await.is_err());
    assert_eq!(server.ids("t"), vec![7]);
    // The client connects anew by itself.
    assert_eq!(offset_of(&server.append(&stream, Some(0), people([0])).await.unwrap()), Some(0));
}

#[tokio::test]
async fn a_status_comes_before_anything_is_stored() {
    for code in [
        (StatusCode::Unavailable, Code::Unavailable),
        (StatusCode::Internal, Code::Internal),
        (StatusCode::PermissionDenied, Code::PermissionDenied),
        (StatusCode::Unauthenticated, Code::Unauthenticated),
        (StatusCode::ResourceExhausted, Code::ResourceExhausted),
        (StatusCode::Aborted, Code::Aborted),
    ] {
        let status = |in_band| What::Status { code: code.0, message: "as scripted".into(), in_band };
        let server = server_with(vec![
            appends(status(false)).times(1),
            appends(status(true)).times(1),
            Fault::new(Method::FlushRows, status(false)),
        ])
        .await;
        let stream = server.create(StreamType::Buffered).await;
        let refused = server.append(&stream, Some(0), people([0])).await.unwrap_err();
        assert_eq!((refused.code(), refused.message()), (code.1, "as scripted"));
        let mut connection = server.connect(&stream).await;
        connection.send(first(&stream, person_descriptor(), Some(0), people([0]))).await;
        connection.send(later(Some(0), people([0]))).await;
        assert_eq!(refusal_of(&connection.next().await.unwrap()), (code.1, None));
        assert_eq!(offset_of(&connection.next().await.unwrap()), Some(0));
        assert_eq!(server.flush(&stream, 0).await.unwrap_err().code(), code.1);
        assert!(server.ids("t").is_empty());
    }
}

// "The gRPC connection can also be closed in the event of a server restart or for other reasons": normal operation.
#[tokio::test]
async fn the_server_closes_connections_as_bigquery_does() {
    for because in [Closing::Restart, Closing::Inactivity] {
        let server = server_with(vec![appends(What::StreamClosed { because }).times(1)]).await;
        let refused = server.append(&default_stream("t"), None, people([0])).await.unwrap_err();
        assert_eq!(refused.code(), Code::Aborted);
        assert!(refused.message().starts_with("Closing the stream because"), "{}", refused.message());
        assert!(server.ids("t").is_empty());
    }
}

#[tokio::test]
async fn an_exhausted_quota_and_a_proxy_have_their_codes() {
    let server = server_with(vec![
        Fault::new(Method::CreateWriteStream, What::Quota { reason: QuotaReason::RateLimitExceeded })
            .times(1),
        Fault::new(Method::CreateWriteStream, What::Html { status: 502 }).times(1),
        Fault::new(Method::GetWriteStream, What::Cut),
    ])
    .await;
    for code in [Code::ResourceExhausted, Code::Unavailable] {
        assert_eq!(server.try_create("t", StreamType::Buffered).await.unwrap_err().code(), code);
    }
    server.try_create("t", StreamType::Buffered).await.unwrap();
}

// Response messages "arrive in the same order as the requests were sent".
#[tokio::test]
async fn slow_and_late_answers_do_not_add_up_and_keep_their_order() {
    for what in [What::Slow { ms: 500 }, What::LateReply { ms: 500 }] {
        let server = server_with(vec![appends(what.clone())]).await;
        let stream = server.create(StreamType::Buffered).await;
        let mut connection = server.connect(&stream).await;
        let begin = Instant::now();
        connection.send(first(&stream, person_descriptor(), Some(0), people([0]))).await;
        for offset in 1..200 {
            connection.send(later(Some(offset), people([offset]))).await;
        }
        for offset in 0..200 {
            assert_eq!(offset_of(&connection.next().await.unwrap()), Some(offset));
        }
        let taken = begin.elapsed();
        // One after the other they would take 40 seconds.
        assert!(
            taken >= Duration::from_millis(200) && taken < Duration::from_secs(20),
            "{what:?}: {taken:?}"
        );
    }
}

#[tokio::test]
async fn a_late_reply_is_stored_at_once_and_a_slow_call_is_not() {
    let pause = 3_600_000;
    for (what, stored) in [(What::LateReply { ms: pause }, 1), (What::Slow { ms: pause }, 0)] {
        let server = server_with(vec![appends(what).times(1)]).await;
        let slow = server.connect(&default_stream("t")).await;
        slow.send(first(&default_stream("t"), person_descriptor(), None, people([0]))).await;
        let seen = async {
            loop {
                let url = format!("http://{}/__faults", server.bigquery.address());
                let struck = server.send(server.http.get(url)).await.1 == json!([]);
                if struck && server.ids("t").len() == stored {
                    return;
                }
            }
        };
        tokio::time::timeout(PATIENCE, seen).await.unwrap();
        // Others are not held up.
        server.append(&default_stream("t"), None, people([1])).await.unwrap();
        assert_eq!(server.ids("t").len(), stored + 1);
    }
}

// What a writer sees that was stopped for a while, and whose stream another one has ended meanwhile.
#[tokio::test]
async fn a_slow_append_finds_its_stream_finalized() {
    let server = server_with(vec![appends(What::Slow { ms: 2_000 }).times(1)]).await;
    let stream = server.create(StreamType::Buffered).await;
    let mut zombie = server.connect(&stream).await;
    zombie.send(first(&stream, person_descriptor(), Some(0), people([0]))).await;
    assert_eq!(server.finalize(&stream).await.unwrap(), 0);
    let finalized = (Code::InvalidArgument, Some(StorageErrorCode::StreamFinalized));
    assert_eq!(refusal_of(&zombie.next().await.unwrap()), finalized);
}

// Nothing is promised of a request that got no answer: it may still be stored after its client is gone.
#[tokio::test]
async fn a_slow_append_is_stored_although_its_connection_is_gone() {
    let server = server_with(vec![appends(What::Slow { ms: 1_000 }).times(1)]).await;
    let stream = server.create(StreamType::Committed).await;
    let gone = server.connect(&stream).await;
    gone.send(first(&stream, person_descriptor(), Some(0), people([0]))).await;
    let url = format!("http://{}/__faults", server.bigquery.address());
    let stored = async {
        while server.send(server.http.get(&url)).await.1 != json!([]) {}
        drop(gone);
        while server.ids("t").is_empty() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, stored).await.unwrap();
    let exists = (Code::AlreadyExists, Some(StorageErrorCode::OffsetAlreadyExists));
    assert_eq!(refusal_of(&server.append(&stream, Some(0), people([0])).await.unwrap()), exists);
    assert_eq!(server.ids("t"), vec![0]);
}

// The same errors come as an answer or as the status that ends the call: "the returned google.rpc.Status can include a
// StorageError".
#[tokio::test]
async fn an_error_can_end_the_connection_with_the_same_details() {
    let server = server_with(vec![appends(What::ErrorsEndConnection)]).await;
    let stream = server.create(StreamType::Buffered).await;
    assert_eq!(offset_of(&server.append(&stream, Some(0), people([0])).await.unwrap()), Some(0));
    for (offset, code, storage) in [
        (0, Code::AlreadyExists, StorageErrorCode::OffsetAlreadyExists),
        (5, Code::OutOfRange, StorageErrorCode::OffsetOutOfRange),
    ] {
        let refused = server.append(&stream, Some(offset), people([0])).await.unwrap_err();
        assert_eq!(status_of(&refused), (code, Some(storage)));
    }
    server.finalize(&stream).await.unwrap();
    let refused = server.append(&stream, Some(1), people([0])).await.unwrap_err();
    assert_eq!(status_of(&refused), (Code::InvalidArgument, Some(StorageErrorCode::StreamFinalized)));
}

// Creating a table takes a while to reach every server.
#[tokio::test]
async fn a_new_table_and_a_new_stream_are_not_found_for_a_while() {
    let clock = Clock::system();
    let hidden = |method| Fault::new(method, What::NotFoundAfterCreate { ms: 120_000 });
    let faults =
        vec![hidden(Method::CreateWriteStream), hidden(Method::AppendRows), hidden(Method::FlushRows)];
    let server = Server::with_people(Options { clock: clock.clone(), faults, ..Options::default() }).await;
    let no_table = (Code::NotFound, Some(StorageErrorCode::TableNotFound));
    let no_stream = (Code::NotFound, Some(StorageErrorCode::StreamNotFound));
    assert_eq!(status_of(&server.try_create("t", StreamType::Buffered).await.unwrap_err()), no_table);
    let refused = server.append(&default_stream("t"), None, people([0])).await.unwrap_err();
    assert_eq!(status_of(&refused), no_table);
    clock.advance(Duration::from_secs(121));
    let stream = server.create(StreamType::Buffered).await;
    server.append(&default_stream("t"), None, people([0])).await.unwrap();
    assert_eq!(status_of(&server.append(&stream, Some(0), people([0])).await.unwrap_err()), no_stream);
    assert_eq!(status_of(&server.flush(&stream, 0).await.unwrap_err()), no_stream);
    clock.advance(Duration::from_secs(121));
    offset_of(&server.append(&stream, Some(0), people([0])).await.unwrap());
    server.flush(&stream, 0).await.unwrap();
}

#[tokio::test]
async fn an_added_column_is_unknown_for_a_while() {
    let clock = Clock::system();
    let faults = vec![appends(What::SchemaLag { ms: 120_000 })];
    let server = Server::with_people(Options { clock: clock.clone(), faults, ..Options::default() }).await;
    let mut fields = person_fields();
    fields.as_array_mut().unwrap().push(json!({"name": "age", "type": "INTEGER"}));
    let url = format!("{}/projects/p/datasets/d/tables/t", server.bigquery.base_url());
    server.send(server.http.patch(url).json(&json!({"schema": {"fields": fields}}))).await;
    let stream = default_stream("t");
    let mut wider = person_descriptor();
    wider.field.push(optional("age", 3, Type::Int64));
    let mut connection = server.connect(&stream).await;
    connection.send(first(&stream, wider, None, vec![vec![8, 1, 24, 40]])).await;
    let mismatch = (Code::InvalidArgument, Some(StorageErrorCode::SchemaMismatchExtraFields));
    assert_eq!(refusal_of(&connection.next().await.unwrap()), mismatch);
    clock.advance(Duration::from_secs(121));
    connection.send(later(None, vec![vec![8, 1, 24, 40]])).await;
    offset_of(&connection.next().await.unwrap());
    assert_eq!(server.rows("t")[0]["age"], json!(40));
}

#[tokio::test]
async fn chosen_rows_and_chosen_values_are_row_errors() {
    let server = server_with(vec![
        appends(What::RowErrors { rows: vec![0, 2, 9], reason: "as scripted".into() }).times(1),
        appends(What::RejectValue { field: "ID".into(), value: json!(13) }),
    ])
    .await;
    let stream = server.create(StreamType::Committed).await;
    let indices = |answer: &gcp_bigquery_client::google::cloud::bigquery::storage::v1::AppendRowsResponse| {
        assert!(matches!(answer.response, Some(Response::Error(_))));
        answer.row_errors.iter().map(|error| error.index).collect::<Vec<_>>()
    };
    let answer = server.append(&stream, Some(0), people(0..4)).await.unwrap();
    assert_eq!((indices(&answer), answer.row_errors[0].message.as_str()), (vec![0, 2], "as scripted"));
    assert_eq!(indices(&server.append(&stream, Some(0), people(12..15)).await.unwrap()), vec![1]);
    assert!(server.ids("t").is_empty());
    offset_of(&server.append(&stream, Some(0), people([12, 14])).await.unwrap());
}

#[tokio::test]
async fn chances_come_up_as_the_seed_says_and_about_as_often_as_they_should() {
    let struck = |seed: u64| async move {
        let fault =
            appends(What::Status { code: StatusCode::Internal, message: String::new(), in_band: true });
        let server = server_with(vec![fault.chance(0.25, seed)]).await;
        let stream = default_stream("t");
        let mut connection = server.connect(&stream).await;
        connection.send(first(&stream, person_descriptor(), None, people([0]))).await;
        let mut failed = 0;
        for _ in 0..400 {
            let answer = connection.next().await.unwrap();
            failed += usize::from(matches!(answer.response, Some(Response::Error(_))));
            connection.send(later(None, people([0]))).await;
        }
        failed
    };
    let (one, again, other) = tokio::join!(struck(1), struck(1), struck(2));
    assert_eq!(one, again);
    assert!((40..160).contains(&one) && (40..160).contains(&other), "{one} {other}");
}

#[tokio::test]
async fn faults_of_grpc_are_scripted_over_http() {
    let server = server_with(vec![]).await;
    let url = format!("http://{}/__faults", server.bigquery.address());
    let script = json!([
        {"method": "AppendRows", "table": "d.t", "what": {"status": {"code": "RESOURCE_EXHAUSTED", "message": "m"}}, "times": 1},
        {"method": "AppendRows", "what": {"stream_closed": {"because": "restart"}}, "times": 1},
        {"method": "FlushRows", "what": "reply_lost", "chance": 0.5, "seed": 3},
        {"method": "AppendRows", "what": "errors_end_connection"}
    ]);
    assert_eq!(server.send(server.http.post(&url).json(&script)).await.0, 204);
    for code in [Code::ResourceExhausted, Code::Aborted] {
        assert_eq!(server.append(&default_stream("t"), None, people([0])).await.unwrap_err().code(), code);
    }
    assert_eq!(server.send(server.http.get(&url)).await.1.as_array().unwrap().len(), 2);
    for chance in [0.0, -1.0, 1.5] {
        let wrong = json!({"method": "FlushRows", "what": "cut", "chance": chance});
        assert_eq!(server.send(server.http.post(&url).json(&wrong)).await.0, 400);
    }
}
