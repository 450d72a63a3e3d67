//! Streams whose rows stay invisible until they are published, against the local BigQuery, with faults.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use crate::local::{ids, place, script, server, sink_of, status};
use crate::support::{self, append, batch, offsets, record_json, records, schema, streams_of};
use futures::FutureExt as _;
use futures::future::join_all;
use serde_json::json;
use txconnect_bigquery::BigQuerySink;
use txconnect_connector_api::{
    Appended, Batch, Protocol, Published, Sink as _, SinkError, StreamName, StreamPosition, WriteStreams,
};
use txconnect_local_bigquery::{Closing, LocalBigQuery, Method, Options, QuotaReason, StatusCode, What};

/// A sink with one open stream into the table `t`.
struct Setup {
    server: LocalBigQuery,
    sink: BigQuerySink,
    streams: Arc<dyn WriteStreams>,
    stream: StreamName,
}

impl Setup {
    async fn new() -> Self {
        Self::on(server().await, "5s").await
    }

    async fn on(server: LocalBigQuery, timeout: &str) -> Self {
        let sink = sink_of(&server, &json!({ "timeout": timeout }));
        let streams = streams_of(&sink);
        sink.prepare("t", Some(&schema())).await.unwrap();
        let stream = streams.open("d.t").await.unwrap();
        Self { server, sink, streams, stream }
    }

    fn rows(&self, ids: Range<i64>) -> Batch {
        batch(&self.sink, "t", &schema(), &records(ids))
    }

    async fn append(&self, ids: Range<i64>) -> Appended {
        let offset = ids.start;
        append(&*self.streams, &self.stream, offset, &mut self.rows(ids)).await
    }

    async fn publish(&self, end: i64) -> Published {
        self.streams.publish(&self.stream, end).await.unwrap()
    }

    fn seen(&self) -> Vec<i64> {
        ids(&self.server, "t")
    }
}

fn assert_stored(appended: &Appended) {
    assert!(matches!(appended, Appended::Stored), "{appended:?}");
}

#[tokio::test]
async fn the_shared_cases_hold() {
    let server = server().await;
    let place = place(&server, &json!({}));
    support::a_missing_table_is_fatal_before_anything_is_read(&place).await;
    support::a_table_that_does_not_fit_is_fatal_before_anything_is_read(&place).await;
    support::rows_of_a_stream_are_seen_once_they_are_published(&place).await;
    support::a_stream_that_is_ended_takes_and_shows_nothing_more(&place).await;
}

#[tokio::test]
async fn appends_of_one_stream_travel_together_and_are_seen_up_to_where_they_are_published() {
    let case = Setup::new().await;
    assert_eq!(case.sink.protocol(), Protocol::TwoPhase);
    assert!(!case.sink.limits().batches_mix_partitions);
    let appends = (0..40).map(|turn| case.append(turn * 10..turn * 10 + 10));
    for appended in join_all(appends).await {
        assert_stored(&appended);
    }
    assert_eq!(case.seen(), [0; 0]);
    assert_eq!(case.publish(15).await, Published::Visible);
    assert_eq!(case.seen(), (0..15).collect::<Vec<_>>());
    assert_eq!(case.publish(400).await, Published::Visible);
    assert_eq!(case.publish(15).await, Published::Visible);
    assert_eq!(case.seen(), (0..400).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn appends_are_sent_in_the_order_in_which_they_are_begun_however_many_there_are() {
    let case = Setup::new().await;
    let next = AtomicI64::new(0);
    let appenders = (0..200).map(async |_| {
        for _ in 0..20 {
            let offset = next.fetch_add(3, Ordering::Relaxed);
            assert_stored(&case.append(offset..offset + 3).await);
        }
    });
    join_all(appenders).await;
    assert_eq!(case.publish(12_000).await, Published::Visible);
    assert_eq!(case.seen(), (0..12_000).collect::<Vec<_>>());
}

#[tokio::test]
async fn many_streams_are_written_at_once() {
    let server = server().await;
    let sink = sink_of(&server, &json!({}));
    let streams = streams_of(&sink);
    sink.prepare("t", Some(&schema())).await.unwrap();
    let write = async |number: i64| {
        let stream = streams.open("d.t").await.unwrap();
        let rows = |start: i64| batch(&sink, "t", &schema(), &records(start..start + 5));
        let start = number * 10;
        assert_stored(&append(&*streams, &stream, 0, &mut rows(start)).await);
        assert_stored(&append(&*streams, &stream, 5, &mut rows(start + 5)).await);
        assert_eq!(streams.publish(&stream, 10).await.unwrap(), Published::Visible);
        streams.finalize(&stream).await.unwrap();
    };
    join_all((0..30).map(write)).await;
    assert_eq!(ids(&server, "t"), (0..300).collect::<Vec<_>>());
    assert!(server.streams().iter().all(|stream| stream.finalized && stream.kind == "BUFFERED"));
}

#[tokio::test]
async fn an_append_says_whether_its_place_is_taken_or_not_reached() {
    let case = Setup::new().await;
    for ends_connection in [false, true] {
        if ends_connection {
            script(&case.server, Method::AppendRows, What::ErrorsEndConnection, None);
        }
        let start = if ends_connection { 5 } else { 0 };
        assert_stored(&case.append(start..start + 5).await);
        assert!(matches!(case.append(start..start + 5).await, Appended::AlreadyStored));
        assert!(matches!(case.append(50..55).await, Appended::OutOfRange));
    }
    case.publish(10).await;
    assert_eq!(case.seen(), (0..10).collect::<Vec<_>>());
}

#[tokio::test]
async fn an_append_without_an_answer_is_unknown_and_can_be_sent_again() {
    for (what, is_stored) in [
        (What::ReplyLost, true),
        (What::Cut, false),
        (status(StatusCode::Unavailable, "Task is overloaded (memory-protection)"), false),
        (status(StatusCode::Internal, ""), false),
        (status(StatusCode::Cancelled, ""), false),
        (status(StatusCode::Unauthenticated, "the token has expired"), false),
        (What::StreamClosed { because: Closing::Restart }, false),
        (What::StreamClosed { because: Closing::Inactivity }, false),
    ] {
        let case = Setup::new().await;
        assert_stored(&case.append(0..5).await);
        script(&case.server, Method::AppendRows, what.clone(), Some(1));
        let appended = case.append(5..10).await;
        assert!(matches!(appended, Appended::Unknown { .. }), "{what:?}: {appended:?}");
        match case.append(5..10).await {
            Appended::AlreadyStored => assert!(is_stored, "{what:?}"),
            Appended::Stored => assert!(!is_stored, "{what:?}"),
            other => panic!("{what:?}: {other:?}"),
        }
        assert_stored(&case.append(10..15).await);
        case.publish(15).await;
        assert_eq!(case.seen(), (0..15).collect::<Vec<_>>());
    }
}

#[tokio::test]
async fn of_appends_on_their_way_none_counts_as_stored_that_is_not() {
    let case = Setup::new().await;
    assert_stored(&case.append(0..5).await);
    case.server
        .script(txconnect_local_bigquery::Fault::new(Method::AppendRows, What::ReplyLost).times(1).after(1));
    let answers = join_all((1..8).map(|turn| case.append(turn * 5..turn * 5 + 5))).await;
    assert_stored(&answers[0]);
    assert!(matches!(answers[1], Appended::Unknown { .. }), "{:?}", answers[1]);
    for answer in &answers[2..] {
        assert!(
            matches!(answer, Appended::Unknown { .. } | Appended::NotStored(SinkError::Transient { .. })),
            "{answer:?}"
        );
    }
    // The lost one was stored, the others behind it were not.
    assert!(matches!(case.append(10..15).await, Appended::AlreadyStored));
    for turn in 3..8 {
        assert_stored(&case.append(turn * 5..turn * 5 + 5).await);
    }
    case.publish(40).await;
    assert_eq!(case.seen(), (0..40).collect::<Vec<_>>());
}

#[tokio::test]
async fn errors_in_answers_are_told_apart_and_the_connection_goes_on() {
    let in_answer =
        |code: StatusCode| What::Status { code, message: "as scripted".to_owned(), in_band: true };
    for (code, fatal) in [
        (StatusCode::Internal, false),
        (StatusCode::Aborted, false),
        (StatusCode::Unavailable, false),
        (StatusCode::ResourceExhausted, false),
        (StatusCode::PermissionDenied, true),
        (StatusCode::InvalidArgument, true),
        (StatusCode::FailedPrecondition, true),
    ] {
        let case = Setup::new().await;
        script(&case.server, Method::AppendRows, in_answer(code), Some(1));
        match case.append(0..5).await {
            Appended::NotStored(SinkError::Transient { .. }) => assert!(!fatal, "{code:?}"),
            Appended::NotStored(SinkError::Fatal { cause, hint }) => {
                assert!(fatal, "{code:?}");
                assert!(cause.contains("`d.t`") && hint.is_some(), "{cause}");
            }
            other => panic!("{code:?}: {other:?}"),
        }
        assert_stored(&case.append(0..5).await);
    }
}

#[tokio::test]
async fn a_refused_row_is_named_and_what_was_sent_behind_it_is_not_reached() {
    let case = Setup::new().await;
    let reject = What::RejectValue { field: "note".to_owned(), value: json!("hunter2") };
    script(&case.server, Method::AppendRows, reject, None);
    let mut rows = records(5..10);
    rows[1]["note"] = json!("hunter2");
    rows[3]["note"] = json!("hunter2");
    let mut bad = batch(&case.sink, "t", &schema(), &rows);
    let (first, refused, behind) = futures::join!(
        case.append(0..5),
        append(&*case.streams, &case.stream, 5, &mut bad),
        case.append(10..15)
    );
    assert_stored(&first);
    let Appended::Rejected(refused) = refused else { panic!("{refused:?}") };
    assert_eq!(refused.iter().map(|(row, _)| *row).collect::<Vec<_>>(), [1, 3]);
    assert!(refused[0].1.message.contains("`note`") && !refused[0].1.message.contains("hunter2"));
    assert!(matches!(behind, Appended::OutOfRange), "{behind:?}");
    assert_eq!(offsets(&bad), [0, 1, 2, 3, 4]);

    bad.retain_rows(|row, _| row != 1 && row != 3);
    assert_stored(&append(&*case.streams, &case.stream, 5, &mut bad).await);
    let mut behind = case.rows(10..15);
    assert_stored(&append(&*case.streams, &case.stream, 8, &mut behind).await);
    case.publish(13).await;
    assert_eq!(case.seen(), [0, 1, 2, 3, 4, 5, 7, 9, 10, 11, 12, 13, 14]);
}

#[tokio::test]
async fn a_stream_that_another_has_ended_takes_no_rows() {
    let case = Setup::new().await;
    assert_stored(&case.append(0..5).await);
    let other = streams_of(&sink_of(&case.server, &json!({})));
    assert_eq!(other.publish(&case.stream, 5).await.unwrap(), Published::Visible);
    other.finalize(&case.stream).await.unwrap();
    other.finalize(&case.stream).await.unwrap();
    for _ in 0..2 {
        let appended = case.append(5..10).await;
        assert!(matches!(appended, Appended::Gone { .. }), "{appended:?}");
    }
    assert_eq!(case.seen(), [0, 1, 2, 3, 4]);
}

#[tokio::test]
async fn a_stream_that_has_expired_is_missing_and_as_good_as_ended() {
    for recreate in [false, true] {
        let case = Setup::new().await;
        assert_stored(&case.append(0..5).await);
        if recreate {
            assert!(case.server.recreate_table("p", "d", "t"));
        } else {
            assert_eq!(case.server.expire_streams(None), 1);
        }
        let appended = case.append(5..10).await;
        assert!(matches!(appended, Appended::Gone { .. }), "{appended:?}");
        assert_eq!(case.publish(5).await, Published::Missing);
        case.streams.finalize(&case.stream).await.unwrap();
        assert_eq!(case.seen(), [0; 0]);
    }
}

#[tokio::test]
async fn a_stream_into_a_table_that_was_dropped_is_opened_into_a_new_one() {
    let case = Setup::new().await;
    assert_stored(&case.append(0..5).await);
    assert!(case.server.drop_table("p", "d", "t"));
    let appended = case.append(5..10).await;
    assert!(matches!(appended, Appended::Gone { .. }), "{appended:?}");
    let stream = case.streams.open("d.t").await.unwrap();
    assert_stored(&append(&*case.streams, &stream, 0, &mut case.rows(5..10)).await);
    assert_eq!(case.streams.publish(&stream, 5).await.unwrap(), Published::Visible);
    assert_eq!(case.seen(), [5, 6, 7, 8, 9]);
}

#[tokio::test]
async fn a_new_table_and_a_new_stream_are_waited_for_until_they_are_known() {
    let server = server().await;
    let lag = What::NotFoundAfterCreate { ms: 300 };
    script(&server, Method::CreateWriteStream, lag.clone(), None);
    script(&server, Method::AppendRows, lag, None);
    let sink = sink_of(&server, &json!({}));
    let streams = streams_of(&sink);
    sink.prepare("t", Some(&schema())).await.unwrap();
    let mut waited = 0;
    let stream = loop {
        match streams.open("d.t").await {
            Ok(stream) => break stream,
            Err(SinkError::Transient { .. }) => waited += 1,
            Err(other) => panic!("{other:?}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    assert!(waited > 0);
    let mut rows = batch(&sink, "t", &schema(), &records(0..5));
    waited = 0;
    loop {
        match append(&*streams, &stream, 0, &mut rows).await {
            Appended::Stored => break,
            Appended::NotStored(SinkError::Transient { .. }) => waited += 1,
            other => panic!("{other:?}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(waited > 0);
    assert_eq!(streams.publish(&stream, 5).await.unwrap(), Published::Visible);
    assert_eq!(ids(&server, "t"), [0, 1, 2, 3, 4]);
}

#[tokio::test]
async fn what_we_may_not_do_is_fatal_on_every_call_and_says_which_role_is_missing() {
    let denied = || status(StatusCode::PermissionDenied, "Permission 'TABLES_UPDATE_DATA' denied");
    let fatal = |error: &SinkError| {
        let SinkError::Fatal { cause, hint: Some(hint) } = error else { panic!("{error:?}") };
        assert!(cause.contains("`d.t`") && cause.contains("PERMISSION_DENIED"), "{cause}");
        assert!(hint.contains("BigQuery Data Editor"), "{hint}");
    };
    let case = Setup::new().await;
    for method in
        [Method::CreateWriteStream, Method::AppendRows, Method::FlushRows, Method::FinalizeWriteStream]
    {
        script(&case.server, method, denied(), None);
    }
    fatal(&case.streams.open("d.t").await.unwrap_err());
    let Appended::NotStored(error) = case.append(0..5).await else { panic!("denied") };
    fatal(&error);
    fatal(&case.streams.publish(&case.stream, 5).await.unwrap_err());
    fatal(&case.streams.finalize(&case.stream).await.unwrap_err());
}

#[tokio::test]
async fn a_token_that_is_refused_is_replaced_once() {
    let case = Setup::new().await;
    assert_stored(&case.append(0..5).await);
    let refused = || status(StatusCode::Unauthenticated, "Request had invalid authentication credentials.");
    script(&case.server, Method::FlushRows, refused(), Some(1));
    assert_eq!(case.publish(5).await, Published::Visible);
    script(&case.server, Method::FlushRows, refused(), Some(2));
    let error = case.streams.publish(&case.stream, 5).await.unwrap_err();
    assert!(matches!(&error, SinkError::Fatal { hint: Some(hint), .. } if hint.contains("credentials")));
    script(&case.server, Method::AppendRows, refused(), Some(2));
    assert!(matches!(case.append(5..10).await, Appended::Unknown { .. }));
    let appended = case.append(5..10).await;
    assert!(matches!(appended, Appended::NotStored(SinkError::Fatal { .. })), "{appended:?}");
}

#[tokio::test]
async fn a_quota_is_not_asked_again_before_its_pause_is_over() {
    let case = Setup::new().await;
    let quota = What::Quota { reason: QuotaReason::QuotaExceeded };
    script(&case.server, Method::AppendRows, quota.clone(), Some(1));
    let first = case.append(0..5).await;
    assert!(matches!(first, Appended::Unknown { .. }), "{first:?}");
    match case.append(0..5).await {
        Appended::NotStored(SinkError::Transient { retry_after: Some(pause), .. }) => {
            assert!(pause > Duration::from_mins(9) && pause <= Duration::from_mins(10), "{pause:?}");
        }
        other => panic!("{other:?}"),
    }
    script(&case.server, Method::FlushRows, quota, Some(1));
    let error = case.streams.publish(&case.stream, 5).await.unwrap_err();
    assert!(matches!(error, SinkError::Transient { retry_after: Some(_), .. }), "{error:?}");
}

#[tokio::test]
async fn calls_that_fail_for_a_time_are_transient_and_publishing_again_is_harmless() {
    let case = Setup::new().await;
    assert_stored(&case.append(0..5).await);
    for what in [What::ReplyLost, What::Cut, status(StatusCode::Unavailable, "")] {
        for method in [Method::CreateWriteStream, Method::FlushRows, Method::FinalizeWriteStream] {
            script(&case.server, method, what.clone(), Some(1));
        }
        let error = case.streams.open("d.t").await.unwrap_err();
        assert!(matches!(error, SinkError::Transient { .. }), "{what:?}: {error:?}");
        case.streams.open("d.t").await.unwrap();
        let error = case.streams.publish(&case.stream, 5).await.unwrap_err();
        assert!(matches!(error, SinkError::Transient { .. }), "{what:?}: {error:?}");
        assert_eq!(case.publish(5).await, Published::Visible);
        let other = case.streams.open("d.t").await.unwrap();
        let error = case.streams.finalize(&other).await.unwrap_err();
        assert!(matches!(error, SinkError::Transient { .. }), "{what:?}: {error:?}");
        case.streams.finalize(&other).await.unwrap();
    }
    assert_eq!(case.seen(), [0, 1, 2, 3, 4]);
}

#[tokio::test]
async fn more_than_was_appended_cannot_be_published() {
    let case = Setup::new().await;
    assert_stored(&case.append(0..5).await);
    let error = case.streams.publish(&case.stream, 6).await.unwrap_err();
    assert!(matches!(&error, SinkError::Fatal { cause, .. } if cause.contains("row 6")), "{error:?}");
    assert_eq!(case.seen(), [0; 0]);
}

#[tokio::test]
async fn a_slow_server_is_not_waited_for_longer_than_the_deadline() {
    let case = Setup::on(server().await, "1s").await;
    for method in [Method::AppendRows, Method::FlushRows] {
        script(&case.server, method, What::Slow { ms: 600_000 }, None);
    }
    let appended = case.append(0..5).await;
    assert!(matches!(appended, Appended::Unknown { .. }), "{appended:?}");
    let error = case.streams.publish(&case.stream, 5).await.unwrap_err();
    assert!(matches!(error, SinkError::Transient { .. }), "{error:?}");
}

#[tokio::test]
async fn a_server_that_is_away_has_stored_nothing() {
    let Setup { server, sink, streams, stream } = Setup::on(server().await, "1s").await;
    server.stop().await;
    let mut rows = batch(&sink, "t", &schema(), &records(0..5));
    let appended = append(&*streams, &stream, 0, &mut rows).await;
    assert!(matches!(appended, Appended::NotStored(SinkError::Transient { .. })), "{appended:?}");
    assert_eq!(offsets(&rows), [0, 1, 2, 3, 4]);
    assert!(matches!(streams.publish(&stream, 5).await, Err(SinkError::Transient { .. })));
}

#[tokio::test]
async fn rows_come_back_from_an_append_that_nobody_waits_for() {
    let case = Setup::new().await;
    script(&case.server, Method::AppendRows, What::Slow { ms: 600_000 }, None);
    let mut rows = case.rows(0..5);
    let before = rows.bytes.clone();
    let to = StreamPosition { stream: case.stream.clone(), offset: 0 };
    {
        let mut appending = case.streams.append(&to, &mut rows);
        assert!((&mut appending).now_or_never().is_none());
        let _ = tokio::time::timeout(Duration::from_millis(50), &mut appending).await;
    }
    assert_eq!(rows.bytes, before);
}

#[tokio::test]
async fn a_batch_as_large_as_the_limit_is_taken() {
    let case = Setup::new().await;
    let limit = case.sink.limits().request_bytes;
    let envelope = case.sink.encoder("t", Some(&schema())).unwrap().envelope_bytes();
    let mut row = record_json(1);
    row["note"] = json!("x".repeat(limit / 4));
    let mut rows = batch(&case.sink, "t", &schema(), &[row.clone(), row.clone(), row.clone()]);
    // The last one fills the request to the byte; the length of the text takes four bytes as before.
    let mut left = limit - envelope - rows.bytes.len();
    left -= rows.bytes.len() / 3 - limit / 4;
    row["note"] = json!("x".repeat(left));
    let last = batch(&case.sink, "t", &schema(), &[row]);
    rows.bytes.extend_from_slice(&last.bytes);
    rows.rows.push(txconnect_connector_api::batch::Row { end: rows.bytes.len(), ..last.rows[0] });
    assert_eq!(rows.bytes.len() + envelope, limit);
    assert_stored(&append(&*case.streams, &case.stream, 0, &mut rows).await);
    assert_eq!(case.publish(4).await, Published::Visible);
}

#[tokio::test]
async fn a_name_that_is_none_of_ours_is_fatal_and_not_repeated() {
    let case = Setup::new().await;
    for name in ["hunter2", "hunter2/", "p.d.t/hunter2/x", "p.d.t/\u{7}hunter2"] {
        let stream = StreamName(name.into());
        let appended = append(&*case.streams, &stream, 0, &mut case.rows(0..1)).await;
        let Appended::NotStored(first) = appended else { panic!("{appended:?}") };
        let second = case.streams.publish(&stream, 1).await.unwrap_err();
        let third = case.streams.finalize(&stream).await.unwrap_err();
        for error in [first, second, third] {
            assert!(matches!(&error, SinkError::Fatal { hint: Some(_), .. }), "{error:?}");
            assert!(!format!("{error:?}").contains("hunter2"), "{error:?}");
        }
    }
}

#[tokio::test]
async fn a_server_that_asks_for_a_token_gets_a_clear_error() {
    let options = Options { required_token: Some("right".to_owned()), ..Options::default() };
    let server = LocalBigQuery::start(options).await.unwrap();
    let sink = sink_of(&server, &json!({}));
    let error = sink.prepare("t", Some(&schema())).await.unwrap_err();
    assert!(matches!(&error, SinkError::Fatal { hint: Some(hint), .. } if hint.contains("credentials")));
    // The schema is known, the table is not: the stream is refused for the same reason.
    let error = streams_of(&sink).open("d.t").await.unwrap_err();
    assert!(matches!(error, SinkError::Fatal { .. }), "{error:?}");
}
