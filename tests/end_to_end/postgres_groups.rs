//! Several members that write into one PostgreSQL: what moves between them, and what does not.

use std::collections::{BTreeMap, BTreeSet};

use crate::support::{Kafka, Pipeline, Running, SHORT_SESSION, Tables, Topic, events, eventually, numbers};

/// A session of two seconds is the broker's decision with `group.protocol: consumer`.
const CONSUMER: &str = "properties: { group.protocol: consumer }";

/// The epoch of each partition: it rises whenever the partition is taken over.
fn epochs(tables: &Tables, pipeline: &Pipeline, topic: &Topic<'_>) -> BTreeMap<i32, i64> {
    let statement = format!(
        "SELECT partition, epoch FROM {{schema}}.txconnect_offsets WHERE pipeline = '{}' AND topic = '{}'",
        pipeline.name(),
        topic.name
    );
    let number = |text: &Option<String>| text.as_deref().expect("no NULL").parse::<i64>().unwrap();
    tables
        .run(&statement)
        .iter()
        .map(|row| (i32::try_from(number(&row[0])).unwrap(), number(&row[1])))
        .collect()
}

fn owners(tables: &Tables, pipeline: &Pipeline) -> BTreeMap<i32, String> {
    let statement = format!(
        "SELECT partition, owner FROM {{schema}}.txconnect_offsets WHERE pipeline = '{}'",
        pipeline.name()
    );
    tables
        .run(&statement)
        .into_iter()
        .map(|row| (row[0].as_deref().unwrap().parse().unwrap(), row[1].clone().unwrap_or_default()))
        .collect()
}

#[test]
fn a_member_that_joins_or_leaves_touches_only_the_partitions_that_move() {
    let Some(kafka) = Kafka::of_the_tests() else { return };
    for protocol in [SHORT_SESSION, CONSUMER] {
        let tables = Tables::new();
        let topic = kafka.topic("moving", 6);
        let pipeline = Pipeline::into_postgres(&kafka, &tables, &[&topic])
            .source(protocol)
            .batch("{ rows: 50, linger: 20ms }");
        let first = pipeline.start(&[]);
        let mut sent = 0;
        let mut send_more = || {
            topic.send(&events(sent..sent + 1_200, 6));
            sent += 1_200;
            tables.wait_for_rows(&topic.name, sent);
        };
        send_more();
        let alone = epochs(&tables, &pipeline, &topic);
        assert_eq!(alone.len(), 6);
        let owner = owners(&tables, &pipeline)[&0].clone();

        let second = pipeline.start(&[]);
        eventually("both have partitions", || {
            let owners: BTreeSet<String> = owners(&tables, &pipeline).into_values().collect();
            (owners.len() == 2).then_some(())
        });
        send_more();
        send_more();
        let shared = epochs(&tables, &pipeline, &topic);
        let moved: BTreeSet<i32> = owners(&tables, &pipeline)
            .into_iter()
            .filter_map(|(partition, now)| (now != owner).then_some(partition))
            .collect();
        assert_eq!(moved.len(), 3, "{protocol}");
        for partition in 0..6 {
            let taken = i64::from(moved.contains(&partition));
            assert_eq!(shared[&partition], alone[&partition] + taken, "{protocol}: partition {partition}");
        }

        let left = second.terminate().succeeded().books();
        send_more();
        let again = epochs(&tables, &pipeline, &topic);
        for partition in 0..6 {
            let taken = i64::from(moved.contains(&partition));
            assert_eq!(again[&partition], shared[&partition] + taken, "{protocol}: partition {partition}");
        }
        let stayed = first.terminate().succeeded().books();
        assert_eq!(left.written + stayed.written, 4_800, "{protocol}");
        assert_eq!(tables.ids(&topic.name), numbers(0..4_800), "{protocol}");
        assert_eq!(tables.positions(&pipeline, &topic.name), topic.ends().unwrap());
    }
}

#[test]
fn members_that_come_and_go_under_load_double_nothing() {
    let Some(kafka) = Kafka::of_the_tests() else { return };
    for protocol in [SHORT_SESSION, CONSUMER] {
        let (tables, proxy) = Tables::behind_proxy();
        proxy.delay(std::time::Duration::from_millis(2));
        let topic = kafka.topic("coming", 4);
        topic.send(&events(0..8_000, 4));
        let pipeline = Pipeline::into_postgres(&kafka, &tables, &[&topic])
            .source(protocol)
            .batch("{ rows: 50, linger: 20ms }")
            .with_dead_letters();
        let mut members: Vec<Running> = vec![pipeline.start(&[])];
        let mut written = 0;
        for share in 1..=5 {
            tables.wait_for_rows(&topic.name, share * 1_000);
            members.push(pipeline.start(&[]));
            if share % 2 == 0 {
                written += members.remove(0).terminate().succeeded().books().written;
            }
        }
        tables.wait_for_rows(&topic.name, 8_000);
        for member in members {
            written += member.terminate().succeeded().books().written;
        }
        assert_eq!(written, 8_000, "{protocol}");
        assert_eq!(tables.ids(&topic.name), numbers(0..8_000), "{protocol}");
        assert_eq!(tables.positions(&pipeline, &topic.name), topic.ends().unwrap());
    }
}
