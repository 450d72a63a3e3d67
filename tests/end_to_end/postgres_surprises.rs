//! What others do to our tables, topics and groups: nothing is lost, and we say what has happened.

use crate::support::{Kafka, Pipeline, SHORT_SESSION, Tables, events, numbers};

#[test]
fn two_pipelines_of_one_name_and_one_group_share_the_work() {
    let Some(kafka) = Kafka::of_the_tests() else { return };
    let tables = Tables::new();
    let topic = kafka.topic("twins", 2);
    topic.send(&events(0..2_000, 2));
    let one = Pipeline::into_postgres(&kafka, &tables, &[&topic]);
    let other = Pipeline::into_postgres(&kafka, &tables, &[&topic]).named(one.name());
    let running = [one.start(&[]), other.start(&[])];
    tables.wait_for_rows(&topic.name, 2_000);
    for process in running {
        process.terminate().succeeded();
    }
    assert_eq!(tables.ids(&topic.name), numbers(0..2_000));
}

/// Their groups do not know of each other, so each believes that it owns the partitions.
#[test]
fn two_pipelines_of_one_name_in_two_groups_double_nothing_and_say_so() {
    let Some(kafka) = Kafka::of_the_tests() else { return };
    let tables = Tables::new();
    let topic = kafka.topic("rivals", 1);
    topic.send(&events(0..500, 1));
    let one = Pipeline::into_postgres(&kafka, &tables, &[&topic]).source(SHORT_SESSION);
    let other = Pipeline::into_postgres(&kafka, &tables, &[&topic])
        .named(one.name())
        .source(SHORT_SESSION)
        .source(&format!("group: {}-other", one.group()));
    let mut first = one.start(&[]);
    tables.wait_for_rows(&topic.name, 500);
    let second = other.start(&[]);
    second_has_taken_over(&tables, one.name());
    topic.send(&events(500..1_000, 1));
    tables.wait_for_rows(&topic.name, 1_000);
    first.wait_for_talk("has taken this partition over");
    second.terminate();
    first.terminate();
    assert_eq!(tables.ids(&topic.name), numbers(0..1_000));
}

fn second_has_taken_over(tables: &Tables, pipeline: &str) {
    crate::support::eventually("the second process takes over", || {
        let epoch = tables.number(&format!(
            "SELECT max(epoch) FROM {{schema}}.txconnect_offsets WHERE pipeline = '{pipeline}'"
        ));
        (epoch >= 2).then_some(())
    });
}

#[test]
fn a_topic_that_was_made_anew_stops_the_pipeline() {
    let Some(kafka) = Kafka::of_the_tests() else { return };
    let tables = Tables::new();
    let topic = kafka.topic("anew", 1);
    topic.send(&events(0..10, 1));
    let pipeline = Pipeline::into_postgres(&kafka, &tables, &[&topic]);
    pipeline.until_end().succeeded();
    topic.make_anew();
    // Already past the stored position: only the topic's id tells the two topics apart.
    topic.send(&events(10..30, 1));
    pipeline.until_end().failed().says(&topic.name).says("offsets reset");
    assert_eq!(tables.ids(&topic.name), numbers(0..10));
    assert_eq!(tables.positions(&pipeline, &topic.name)[&0], 10);
}

#[test]
fn a_position_that_another_tool_gave_the_group_changes_nothing_and_is_told() {
    let Some(kafka) = Kafka::of_the_tests() else { return };
    let tables = Tables::new();
    let topic = kafka.topic("foreign", 1);
    topic.send(&events(0..100, 1));
    let pipeline = Pipeline::into_postgres(&kafka, &tables, &[&topic]);
    pipeline.until_end().succeeded();
    topic.commit(&pipeline.group(), 20);
    topic.send(&events(100..150, 1));
    pipeline.until_end().succeeded().says("offsets reset");
    assert_eq!(tables.ids(&topic.name), numbers(0..150));
    assert_eq!(topic.committed(&pipeline.group())[&0], 150);
}

/// Going on at the group's position could write rows a second time.
#[test]
fn positions_that_are_gone_stop_the_pipeline() {
    let Some(kafka) = Kafka::of_the_tests() else { return };
    let tables = Tables::new();
    let topic = kafka.topic("forgotten", 1);
    topic.send(&events(0..100, 1));
    let pipeline = Pipeline::into_postgres(&kafka, &tables, &[&topic]);
    pipeline.until_end().succeeded();
    tables.run("DROP TABLE {schema}.txconnect_offsets");
    topic.send(&events(100..150, 1));
    pipeline.until_end().failed().says(&topic.name).says("offsets reset");
    assert_eq!(tables.ids(&topic.name), numbers(0..100));
}

#[test]
fn a_table_that_is_dropped_under_us_is_made_again_and_nothing_is_lost_after_it() {
    let Some(kafka) = Kafka::of_the_tests() else { return };
    let tables = Tables::new();
    let topic = kafka.topic("dropped", 1);
    topic.send(&events(0..100, 1));
    let pipeline = Pipeline::into_postgres(&kafka, &tables, &[&topic]).with_dead_letters();
    let running = pipeline.start(&[]);
    tables.wait_for_rows(&topic.name, 100);
    tables.run(&format!("DROP TABLE {}", tables.named(&topic.name)));
    topic.send(&events(100..200, 1));
    tables.wait_for_rows(&topic.name, 100);
    running.terminate().succeeded();
    assert_eq!(tables.ids(&topic.name), numbers(100..200));
    assert!(topic.dead_letters().is_none_or(|letters| letters.read().is_empty()));
}

#[test]
fn a_column_whose_type_is_changed_under_us_is_written_as_it_is_then() {
    let Some(kafka) = Kafka::of_the_tests() else { return };
    let tables = Tables::new();
    let topic = kafka.topic("altered", 1);
    topic.send(&events(0..100, 1));
    let pipeline = Pipeline::into_postgres(&kafka, &tables, &[&topic]).with_dead_letters();
    let running = pipeline.start(&[]);
    tables.wait_for_rows(&topic.name, 100);
    tables.run(&format!("ALTER TABLE {} ALTER COLUMN id TYPE integer", tables.named(&topic.name)));
    topic.send(&events(100..200, 1));
    tables.wait_for_rows(&topic.name, 200);
    running.terminate().succeeded();
    assert_eq!(tables.ids(&topic.name), numbers(0..200));
    assert!(topic.dead_letters().is_none_or(|letters| letters.read().is_empty()));
}

#[test]
fn a_column_that_is_dropped_under_us_fails_the_pipeline_with_the_way_out() {
    let Some(kafka) = Kafka::of_the_tests() else { return };
    let tables = Tables::new();
    let topic = kafka.topic("narrowed", 1);
    topic.send(&events(0..100, 1));
    let pipeline = Pipeline::into_postgres(&kafka, &tables, &[&topic]).with_dead_letters();
    let mut running = pipeline.start(&[]);
    tables.wait_for_rows(&topic.name, 100);
    tables.run(&format!("ALTER TABLE {} DROP COLUMN note", tables.named(&topic.name)));
    topic.send(&events(100..200, 1));
    running.wait_for_talk("ADD COLUMN");
    tables.run(&format!("ALTER TABLE {} ADD COLUMN note text", tables.named(&topic.name)));
    // It starts again by itself.
    tables.wait_for_rows(&topic.name, 200);
    running.terminate().succeeded();
    assert!(topic.dead_letters().is_none_or(|letters| letters.read().is_empty()));
}

#[test]
fn a_missing_table_that_must_not_be_made_is_fatal_with_its_statement() {
    let Some(kafka) = Kafka::of_the_tests() else { return };
    let tables = Tables::new();
    tables.run("CREATE SCHEMA {schema}");
    let topic = kafka.topic("no-table", 1);
    topic.send(&events(0..10, 1));
    let pipeline = Pipeline::into_postgres(&kafka, &tables, &[&topic]).sink("table_changes: none");
    pipeline.until_end().failed().says("CREATE TABLE").says("table_changes: create");
    assert_eq!(topic.committed(&pipeline.group()).get(&0).copied().unwrap_or(0), 0);
}

/// As after a failover to a standby that was not promoted.
#[test]
fn a_database_that_takes_no_writes_is_waited_for() {
    let Some(kafka) = Kafka::of_the_tests() else { return };
    let tables = Tables::new();
    let topic = kafka.topic("read-only", 1);
    topic.send(&events(0..100, 1));
    let pipeline = Pipeline::into_postgres(&kafka, &tables, &[&topic]).with_dead_letters();
    pipeline.until_end().succeeded();
    let role = tables.schema().to_owned();
    tables.run(&format!("CREATE ROLE \"{role}\" SUPERUSER LOGIN PASSWORD 'test'"));
    let limited = |setting: &str| tables.run(&format!("ALTER ROLE \"{role}\" {setting}"));
    let address = tables.url().rsplit_once('@').unwrap().1.to_owned();
    let url = format!("postgresql://{role}:test@{address}");
    limited("SET default_transaction_read_only = on");
    topic.send(&events(100..200, 1));
    let pipeline = Pipeline::into_postgres(&kafka, &tables, &[&topic])
        .named(pipeline.name())
        .environment("PG_URL", &url)
        .with_dead_letters();
    let mut running = pipeline.start(&[]);
    running.wait_for_talk("trying again");
    assert_eq!(tables.count(&topic.name), 100);
    limited("SET default_transaction_read_only = off");
    tables.wait_for_rows(&topic.name, 200);
    running.terminate().succeeded();
    assert_eq!(tables.ids(&topic.name), numbers(0..200));
    assert!(topic.dead_letters().is_none_or(|letters| letters.read().is_empty()));
    tables.run(&format!("DROP ROLE \"{role}\""));
}

/// No more connections than the role may have.
#[test]
fn too_many_connections_are_waited_for() {
    let Some(kafka) = Kafka::of_the_tests() else { return };
    let tables = Tables::new();
    let role = format!("{}-few", tables.schema());
    tables.run(&format!("CREATE ROLE \"{role}\" LOGIN PASSWORD 'test' CONNECTION LIMIT 0"));
    tables.run(&format!("CREATE SCHEMA {{schema}} AUTHORIZATION \"{role}\""));
    let address = tables.url().rsplit_once('@').unwrap().1.to_owned();
    let topic = kafka.topic("crowded", 1);
    topic.send(&events(0..100, 1));
    let pipeline = Pipeline::into_postgres(&kafka, &tables, &[&topic])
        .environment("PG_URL", &format!("postgresql://{role}:test@{address}"))
        .with_dead_letters();
    let mut running = pipeline.start(&[]);
    running.wait_for_talk("too many are open");
    tables.run(&format!("ALTER ROLE \"{role}\" CONNECTION LIMIT 20"));
    tables.wait_for_rows(&topic.name, 100);
    running.terminate().succeeded();
    assert_eq!(tables.ids(&topic.name), numbers(0..100));
    tables.run(&format!("DROP OWNED BY \"{role}\" CASCADE; DROP ROLE \"{role}\""));
}
