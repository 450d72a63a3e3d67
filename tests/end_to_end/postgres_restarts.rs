//! The database is restarted while records flow.

use crate::own_server::OwnServer;
use crate::postgres::Database;
use crate::support::{Kafka, Pipeline, Tables, events, numbers};

const EVENTS: i64 = 20_000;

#[test]
fn a_database_that_is_restarted_in_mid_run_costs_no_row_and_doubles_none() {
    let Some(kafka) = Kafka::of_the_tests() else { return };
    // The server of all tests is not restarted.
    let server = OwnServer::start("", "host all all 127.0.0.1/32 scram-sha-256\n");
    let url = format!("postgresql://postgres:secret@127.0.0.1:{}/postgres", server.port);
    let tables = Tables::on(Database::by_url(&url));
    let topic = kafka.topic("restarted", 3);
    topic.send(&events(0..EVENTS, 3));
    let pipeline = Pipeline::into_postgres(&kafka, &tables, &[&topic])
        .batch("{ rows: 50, linger: 20ms }")
        .with_dead_letters();
    let running = pipeline.start(&["--until-end"]);
    let mut interrupted = 0;
    for share in [1, 2] {
        tables.wait_for_rows(&topic.name, EVENTS * share / 8);
        server.restart();
        interrupted += i32::from(tables.count(&topic.name) < EVENTS);
    }
    assert!(interrupted > 0, "the run was over before the restart");
    let books = running.wait().succeeded().books();
    assert_eq!((books.read, books.written), (20_000, 20_000));
    assert_eq!(tables.ids(&topic.name), numbers(0..EVENTS));
    assert_eq!(tables.positions(&pipeline, &topic.name), topic.ends().unwrap());
    assert!(topic.dead_letters().is_none_or(|letters| letters.read().is_empty()));
}
