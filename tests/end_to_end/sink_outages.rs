//! A sink that is down means waiting: nothing is dead-lettered, nothing is lost, and it goes on by itself.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use txconnect_local_bigquery::{Fault, Method, Options, QuotaReason, What};

use crate::support::events::large_event;
use crate::support::{BigQuery, Event, Kafka, Pipeline, events, eventually, numbers};

const EVENTS: i64 = 300;

/// Runs a pipeline whose BigQuery fails as scripted. Every event must be one row in the end: a reply that is lost
/// after the rows were stored is made up for by the insert ids.
fn survives(name: &str, faults: Vec<Fault>) {
    let Some(kafka) = Kafka::of_the_tests() else { return };
    let bigquery = BigQuery::failing(faults);
    let topic = kafka.topic(name, 2);
    topic.send(&events(0..EVENTS, 2));
    let pipeline = Pipeline::into_bigquery(&kafka, &bigquery, &[&topic])
        .batch("{ rows: 50, linger: 50ms }")
        .with_dead_letters();
    let books = pipeline.until_end().succeeded().books();
    assert_eq!((books.read, books.written, books.dead_lettered), (300, 300, 0));
    assert_eq!(bigquery.ids(&topic.name), numbers(0..EVENTS));
    assert_eq!(topic.committed(&pipeline.group()), topic.ends().unwrap());
    assert!(topic.dead_letters().is_none_or(|letters| letters.read().is_empty()));
}

fn error(status: u16, reason: &str, retry_after: Option<u32>) -> What {
    What::Error { status, reason: reason.to_owned(), message: "try later".to_owned(), retry_after }
}

#[test]
fn unavailable_is_waited_for() {
    survives("unavailable", vec![Fault::new(Method::InsertAll, error(503, "backendError", None)).times(5)]);
}

#[test]
fn a_cut_connection_is_made_again() {
    survives("cut", vec![Fault::new(Method::InsertAll, What::Cut).times(4).after(1)]);
}

#[test]
fn a_page_of_a_proxy_instead_of_an_answer_is_waited_out() {
    survives(
        "html",
        vec![
            Fault::new(Method::InsertAll, What::Html { status: 502 }).times(2),
            Fault::new(Method::InsertAll, What::Html { status: 429 }).times(1),
        ],
    );
}

#[test]
fn rows_whose_reply_was_lost_are_not_doubled() {
    survives("reply-lost", vec![Fault::new(Method::InsertAll, What::ReplyLost).times(4)]);
}

#[test]
fn a_slow_server_is_waited_for() {
    survives("slow", vec![Fault::new(Method::InsertAll, What::Slow { ms: 300 })]);
}

#[test]
fn a_rate_limit_is_waited_out() {
    let reason = QuotaReason::RateLimitExceeded;
    survives("rate-limit", vec![Fault::new(Method::InsertAll, What::Quota { reason }).times(3)]);
}

#[test]
fn an_exhausted_quota_loses_nothing_even_where_it_outlasts_the_run() {
    let Some(kafka) = Kafka::of_the_tests() else { return };
    let reason = QuotaReason::QuotaExceeded;
    let bigquery = BigQuery::failing(vec![Fault::new(Method::InsertAll, What::Quota { reason }).times(1)]);
    let topic = kafka.topic("quota", 1);
    topic.send(&events(0..EVENTS, 1));
    let pipeline = Pipeline::into_bigquery(&kafka, &bigquery, &[&topic]).with_dead_letters();
    pipeline.start(&["--until-end", "--timeout", "3s"]).wait().failed().says("quotaExceeded");
    assert_eq!(topic.committed(&pipeline.group()).get(&0).copied().unwrap_or(0), 0);
    pipeline.until_end().succeeded();
    assert_eq!(bigquery.ids(&topic.name), numbers(0..EVENTS));
    assert!(topic.dead_letters().is_none_or(|letters| letters.read().is_empty()));
}

#[test]
fn an_outage_is_over_only_when_no_batch_waits_any_more() {
    let Some(kafka) = Kafka::of_the_tests() else { return };
    let reason = QuotaReason::QuotaExceeded;
    // One batch waits for minutes while all the others are written.
    let bigquery = BigQuery::failing(vec![Fault::new(Method::InsertAll, What::Quota { reason }).times(1)]);
    let topic = kafka.topic("one-waits", 1);
    topic.send(&events(0..EVENTS, 1));
    let pipeline = Pipeline::into_bigquery(&kafka, &bigquery, &[&topic]).batch("{ rows: 50, linger: 50ms }");
    let ended = pipeline.start(&["--until-end", "--timeout", "2s"]).wait().failed().says("quotaExceeded");
    assert!(!ended.stderr.contains("answers again"), "{}", ended.told());
    let summary = ended.stdout.lines().next().unwrap_or_default();
    assert!(summary.contains("quotaExceeded"), "the reason is forgotten: {summary}");
}

#[test]
fn a_new_table_that_is_not_known_everywhere_yet_is_waited_for() {
    survives("new-table", vec![Fault::new(Method::InsertAll, What::NotFoundAfterCreate { ms: 1_500 })]);
}

#[test]
fn a_table_that_cannot_be_made_at_once_is_made_later() {
    survives(
        "creation",
        vec![
            Fault::new(Method::TablesGet, error(500, "internalError", None)).times(1),
            Fault::new(Method::TablesInsert, error(503, "backendError", None)).times(2),
            Fault::new(Method::DatasetsInsert, What::Cut).times(1),
        ],
    );
}

#[test]
fn rows_that_the_server_could_not_take_for_now_are_sent_again() {
    let what = What::RowErrors { rows: vec![0, 3], reason: "backendError".to_owned() };
    survives("row-errors", vec![Fault::new(Method::InsertAll, what).times(3)]);
}

#[test]
fn all_troubles_one_after_the_other_are_survived() {
    survives(
        "everything",
        vec![
            Fault::new(Method::InsertAll, What::Cut).times(1),
            Fault::new(Method::InsertAll, What::ReplyLost).times(1),
            Fault::new(Method::InsertAll, error(503, "backendError", None)).times(1),
            Fault::new(Method::InsertAll, What::Html { status: 503 }).times(1),
            Fault::new(Method::InsertAll, What::Slow { ms: 50 }).times(5),
        ],
    );
}

#[test]
fn a_bigquery_that_is_not_there_yet_is_waited_for() {
    let Some(kafka) = Kafka::of_the_tests() else { return };
    let first = BigQuery::start();
    let topic = kafka.topic("absent", 1);
    topic.send(&events(0..100, 1));
    let pipeline = Pipeline::into_bigquery(&kafka, &first, &[&topic]).with_dead_letters();
    let listen: SocketAddr = first.address().parse().unwrap();
    first.stop();
    let mut running = pipeline.start(&["--until-end"]);
    running.wait_for_talk("trying again");
    assert_eq!(listen.ip(), Ipv4Addr::LOCALHOST);
    let bigquery = BigQuery::with(Options { listen, ..Options::default() });
    let books = running.wait().succeeded().books();
    assert_eq!((books.read, books.written, books.dead_lettered), (100, 100, 0));
    assert_eq!(bigquery.ids(&topic.name), numbers(0..100));
}

#[test]
fn an_outage_in_the_middle_of_a_run_is_survived() {
    let Some(kafka) = Kafka::of_the_tests() else { return };
    let bigquery = BigQuery::start();
    let topic = kafka.topic("middle", 2);
    topic.send(&events(0..100, 2));
    let pipeline = Pipeline::into_bigquery(&kafka, &bigquery, &[&topic]).with_dead_letters();
    let mut running = pipeline.start(&[]);
    eventually("rows arrive", || (bigquery.rows(&topic.name).len() == 100).then_some(()));
    bigquery.script(Fault::new(Method::InsertAll, error(503, "backendError", None)).times(4));
    topic.send(&events(100..200, 2));
    running.wait_for_talk("trying again");
    running.wait_for_talk("answers again");
    eventually("the rest arrives", || (bigquery.rows(&topic.name).len() == 200).then_some(()));
    let books = running.terminate().succeeded().books();
    assert_eq!((books.read, books.written, books.dead_lettered), (200, 200, 0));
    assert_eq!(bigquery.ids(&topic.name), numbers(0..200));
}

#[test]
fn a_lasting_outage_ends_an_until_end_run_at_its_timeout_with_nothing_committed() {
    let Some(kafka) = Kafka::of_the_tests() else { return };
    let fault = Fault::new(Method::InsertAll, error(503, "backendError", None));
    let bigquery = BigQuery::failing(vec![fault]);
    let topic = kafka.topic("outage", 1);
    topic.send(&events(0..100, 1));
    let pipeline = Pipeline::into_bigquery(&kafka, &bigquery, &[&topic]).with_dead_letters();
    pipeline.start(&["--until-end", "--timeout", "3s"]).wait().failed();
    assert_eq!(topic.committed(&pipeline.group()).get(&0).copied().unwrap_or(0), 0);
    assert!(topic.dead_letters().is_none_or(|letters| letters.read().is_empty()));
}

#[test]
fn memory_stays_flat_while_the_sink_is_down() {
    let Some(kafka) = Kafka::of_the_tests() else { return };
    let fault = Fault::new(Method::InsertAll, error(503, "backendError", None)).times(12);
    let bigquery = BigQuery::failing(vec![fault]);
    let topic = kafka.topic("backlog", 2);
    // 200 MB that do not pack well are far more than the pipeline may hold.
    let size = 100_000;
    let value = large_event(size);
    let waiting: Vec<Event> =
        (0..2_000).map(|number| Event::of(value.clone()).partition(number % 2)).collect();
    topic.send(&waiting);
    let pipeline = Pipeline::into_bigquery(&kafka, &bigquery, &[&topic])
        .batch("{ rows: 50, bytes: 1MiB, linger: 50ms }")
        .with("memory: 16MiB");
    let mut running = pipeline.start(&["--until-end"]);
    running.wait_for_talk("trying again");
    let mut most = 0;
    let end = Instant::now() + Duration::from_secs(4);
    while Instant::now() < end && running.is_running() {
        most = most.max(running.memory());
        std::thread::sleep(Duration::from_millis(50));
    }
    let books = running.wait().succeeded().books();
    assert_eq!((books.read, books.written), (2_000, 2_000));
    assert!(most > 0 && most < 120 << 20, "{} MiB with `memory: 16MiB`", most >> 20);
}

#[test]
fn wrong_credentials_are_fatal_with_the_reason() {
    let Some(kafka) = Kafka::of_the_tests() else { return };
    let options = Options { required_token: Some("the right one".to_owned()), ..Options::default() };
    let bigquery = BigQuery::with(options);
    let topic = kafka.topic("credentials", 1);
    topic.send(&events(0..10, 1));
    let pipeline = Pipeline::into_bigquery(&kafka, &bigquery, &[&topic]).with_dead_letters();
    pipeline.until_end().failed().says("401").says("credentials");
    assert_eq!(topic.committed(&pipeline.group()).get(&0).copied().unwrap_or(0), 0);
}

#[test]
fn a_missing_table_that_must_not_be_made_is_fatal_with_its_statement() {
    let Some(kafka) = Kafka::of_the_tests() else { return };
    let bigquery = BigQuery::start();
    let topic = kafka.topic("no-table", 1);
    topic.send(&events(0..10, 1));
    let pipeline = Pipeline::into_bigquery(&kafka, &bigquery, &[&topic]).sink("table_changes: none");
    pipeline.until_end().failed().says("CREATE TABLE").says("table_changes: create");
    assert_eq!(bigquery.ids(&topic.name), BTreeMap::new());
}

#[test]
fn a_foreign_emulator_that_knows_plain_inserts_only_is_enough() {
    let Some(kafka) = Kafka::of_the_tests() else { return };
    let bigquery = BigQuery::with(Options { foreign_emulator: true, ..Options::default() });
    let topic = kafka.topic("foreign", 2);
    topic.send(&events(0..1_000, 2));
    let pipeline = Pipeline::into_bigquery(&kafka, &bigquery, &[&topic]).with_dead_letters();
    let books = pipeline.until_end().succeeded().books();
    assert_eq!((books.written, books.dead_lettered), (1_000, 0));
    assert_eq!(bigquery.ids(&topic.name), numbers(0..1_000));
}
