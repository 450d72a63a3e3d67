//! What happens between us and PostgreSQL: every row is there once, and only once.

use std::time::{Duration, Instant};

use crate::proxy::LostCommit;
use crate::support::{
    Event, Kafka, Pipeline, SHORT_SESSION, Signal, Tables, Topic, events, eventually, numbers,
};

const EVENTS: i64 = 6_000;

/// Many small transactions, so that there is a middle.
fn pipeline(kafka: &Kafka, tables: &Tables, topic: &Topic<'_>) -> Pipeline {
    Pipeline::into_postgres(kafka, tables, &[topic])
        .sink("timeout: 3s")
        .source(SHORT_SESSION)
        .batch("{ rows: 50, linger: 20ms }")
        .with_dead_letters()
}

fn everything_is_there_once(tables: &Tables, topic: &Topic<'_>, pipeline: &Pipeline) {
    assert_eq!(tables.ids(&topic.name), numbers(0..EVENTS));
    assert_eq!(tables.positions(pipeline, &topic.name), topic.ends().unwrap());
    assert!(topic.dead_letters().is_none_or(|letters| letters.read().is_empty()));
}

#[test]
fn members_that_are_killed_double_nothing_and_lose_nothing() {
    let Some(kafka) = Kafka::of_the_tests() else { return };
    let (tables, proxy) = Tables::behind_proxy();
    // What is on its way is killed too.
    proxy.delay(Duration::from_millis(2));
    let topic = kafka.topic("killed", 3);
    topic.send(&events(0..EVENTS, 3));
    let pipeline = pipeline(&kafka, &tables, &topic);
    let mut kills = 0;
    for share in 1..=4 {
        let member = pipeline.start(&[]);
        tables.wait_for_rows(&topic.name, EVENTS * share / 6);
        member.signal(Signal::Kill);
        assert_eq!(member.wait().code, None);
        kills += i64::from(tables.count(&topic.name) < EVENTS);
    }
    assert!(kills > 0, "every run was over before it was killed");
    pipeline.until_end().succeeded();
    everything_is_there_once(&tables, &topic, &pipeline);
}

/// Both outcomes look the same from here.
#[test]
fn commits_whose_answers_are_lost_double_nothing_and_lose_nothing() {
    let Some(kafka) = Kafka::of_the_tests() else { return };
    for how in [LostCommit::BeforeTheServer, LostCommit::AfterTheServer, LostCommit::InSilence] {
        let (tables, proxy) = Tables::behind_proxy();
        proxy.delay(Duration::from_millis(2));
        let topic = kafka.topic("in-doubt", 2);
        topic.send(&events(0..EVENTS, 2));
        let pipeline = pipeline(&kafka, &tables, &topic);
        let running = pipeline.start(&["--until-end"]);
        tables.wait_for_rows(&topic.name, 500);
        let before = proxy.commits_lost();
        proxy.lose_commits(how, 3);
        let books = running.wait().succeeded().books();
        assert_eq!((books.read, books.written), (6_000, 6_000), "{how:?}");
        assert_eq!(proxy.commits_lost() - before, 3, "{how:?}: the run was over too soon");
        everything_is_there_once(&tables, &topic, &pipeline);
    }
}

#[test]
fn connections_that_are_cut_double_nothing_and_lose_nothing() {
    let Some(kafka) = Kafka::of_the_tests() else { return };
    let (tables, proxy) = Tables::behind_proxy();
    proxy.delay(Duration::from_millis(2));
    let topic = kafka.topic("cuts", 2);
    topic.send(&events(0..EVENTS, 2));
    let pipeline = pipeline(&kafka, &tables, &topic);
    let running = pipeline.start(&["--until-end"]);
    for share in 1..=6 {
        tables.wait_for_rows(&topic.name, EVENTS * share / 8);
        if share % 2 == 0 {
            proxy.cut();
        } else {
            tables.terminate_sessions(&pipeline);
        }
    }
    let books = running.wait().succeeded().books();
    assert_eq!((books.read, books.written), (6_000, 6_000));
    everything_is_there_once(&tables, &topic, &pipeline);
}

#[test]
fn a_database_that_goes_away_for_a_while_is_waited_for() {
    let Some(kafka) = Kafka::of_the_tests() else { return };
    for frozen in [false, true] {
        let (tables, proxy) = Tables::behind_proxy();
        let topic = kafka.topic("away", 2);
        topic.send(&events(0..3_000, 2));
        let pipeline = pipeline(&kafka, &tables, &topic);
        let mut running = pipeline.start(&[]);
        tables.wait_for_rows(&topic.name, 500);
        if frozen {
            proxy.freeze(true);
        } else {
            proxy.refuse(true);
            proxy.cut();
        }
        topic.send(&events(3_000..EVENTS, 2));
        running.wait_for_talk("trying again");
        // Longer than a session: the group keeps its member.
        std::thread::sleep(Duration::from_secs(3));
        assert_eq!(kafka.members(&pipeline.group()), 1, "frozen: {frozen}");
        proxy.freeze(false);
        proxy.refuse(false);
        tables.wait_for_rows(&topic.name, EVENTS);
        let ended = running.terminate().succeeded();
        assert_eq!(ended.books().written, 6_000, "frozen: {frozen}");
        everything_is_there_once(&tables, &topic, &pipeline);
    }
}

/// The positions are in the database, so that nothing can be read before it answers.
#[test]
fn a_database_that_is_down_at_the_start_costs_no_membership_and_no_neighbour() {
    let Some(kafka) = Kafka::of_the_tests() else { return };
    let (tables, proxy) = Tables::behind_proxy();
    let neighbours = Tables::new();
    let topic = kafka.topic("late", 2);
    let healthy = kafka.topic("healthy", 1);
    topic.send(&events(0..EVENTS, 2));
    healthy.send(&events(0..100, 1));
    proxy.refuse(true);
    let late = pipeline(&kafka, &tables, &topic);
    let neighbour = Pipeline::into_postgres(&kafka, &neighbours, &[&healthy]);
    let running = late.start(&[]);
    let other = neighbour.start(&[]);
    neighbours.wait_for_rows(&healthy.name, 100);
    eventually("it is a member", || (kafka.members(&late.group()) == 1).then_some(()));
    // Longer than a session.
    std::thread::sleep(Duration::from_secs(4));
    assert_eq!(kafka.members(&late.group()), 1);
    assert_eq!(tables.count(&topic.name), 0);
    proxy.refuse(false);
    tables.wait_for_rows(&topic.name, EVENTS);
    running.terminate().succeeded();
    other.terminate().succeeded();
    everything_is_there_once(&tables, &topic, &late);
}

/// A member that stands still keeps what it has locked in the database; the next owner does not wait for it.
#[test]
fn a_member_that_stands_still_with_an_open_transaction_is_passed_by() {
    let Some(kafka) = Kafka::of_the_tests() else { return };
    for mode in [&["write: append"][..], &["write: upsert", "key: [id]"]] {
        let (tables, proxy) = Tables::behind_proxy();
        proxy.delay(Duration::from_millis(3));
        let topic = kafka.topic("zombie", 2);
        topic.send(&events(0..EVENTS, 2));
        let mut pipeline = pipeline(&kafka, &tables, &topic);
        for line in mode {
            pipeline = pipeline.sink(line);
        }
        let zombie = pipeline.start(&[]);
        tables.wait_for_rows(&topic.name, 300);
        zombie.signal(Signal::Stop);
        let before = tables.count(&topic.name);
        assert!(before < EVENTS, "the run was over before it was stopped");
        let next = pipeline.start(&[]);
        tables.wait_for_rows(&topic.name, EVENTS);
        zombie.signal(Signal::Continue);
        // It learns that its partitions are not its own any more, and writes none of what it still had.
        std::thread::sleep(Duration::from_secs(3));
        zombie.terminate().succeeded();
        next.terminate().succeeded();
        everything_is_there_once(&tables, &topic, &pipeline);
    }
}

#[test]
fn a_stop_while_the_database_is_away_ends_in_time_and_the_next_run_writes_everything() {
    let Some(kafka) = Kafka::of_the_tests() else { return };
    let (tables, proxy) = Tables::behind_proxy();
    let topic = kafka.topic("stopped", 2);
    topic.send(&events(0..300, 2));
    let pipeline = pipeline(&kafka, &tables, &topic).source("rebalance: { drain_timeout: 1s }");
    let mut running = pipeline.start(&[]);
    tables.wait_for_rows(&topic.name, 300);
    proxy.freeze(true);
    topic.send(&events(300..EVENTS, 2));
    running.wait_for_talk("trying again");
    let ended = running.terminate();
    assert!(!ended.stderr.contains("panicked"), "{}", ended.told());
    proxy.freeze(false);
    pipeline.until_end().succeeded();
    everything_is_there_once(&tables, &topic, &pipeline);
}

#[test]
fn memory_stays_flat_while_millions_of_records_wait() {
    const WAITING: i64 = 2_000_000;
    let Some(kafka) = Kafka::of_the_tests() else { return };
    let (tables, proxy) = Tables::behind_proxy();
    let topic = kafka.topic("waiting", 2);
    topic.send(&events(0..1_000, 2));
    let pipeline = Pipeline::into_postgres(&kafka, &tables, &[&topic])
        .sink("timeout: 3s")
        .with("memory: 16MiB")
        .with("stalled_after: 2s");
    let mut running = pipeline.start(&[]);
    tables.wait_for_rows(&topic.name, 1_000);
    proxy.refuse(true);
    proxy.cut();
    let step = 100_000;
    let mut most = 0;
    for first in (1_000..WAITING).step_by(step) {
        let events = (first..(first + 100_000).min(WAITING))
            .map(|id| Event::of(format!("{{\"id\":{id}}}")).partition(i32::try_from(id % 2).unwrap()));
        topic.send(&events.collect::<Vec<Event>>());
        most = most.max(running.memory());
    }
    running.wait_for_talk("stalled for");
    let end = Instant::now() + Duration::from_secs(2);
    while Instant::now() < end {
        most = most.max(running.memory());
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!(most < 120 << 20, "{} MiB with `memory: 16MiB`", most >> 20);
    proxy.refuse(false);
    tables.wait_for_rows(&topic.name, WAITING);
    running.terminate().succeeded();
    let distinct = tables.number(&format!("SELECT count(DISTINCT id) FROM {}", tables.named(&topic.name)));
    assert_eq!((tables.count(&topic.name), distinct), (WAITING, WAITING));
}
