//! The topic that the contenders read.

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::Path;
use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use rdkafka::types::RDKafkaErrorCode;
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

use super::Trouble;
use super::records::{Record, Records, Totals};

/// The topic's name.
pub(crate) const TOPIC: &str = "transactions";
/// How many partitions it has.
pub(crate) const PARTITIONS: i32 = 4;
/// So many records in a row go to the same partition.
const RECORDS_IN_A_ROW: u64 = 1_000;
/// For calls to the broker.
const DEADLINE: Duration = Duration::from_mins(1);

/// Makes the topic and fills it, and writes the same rows into a file for `\copy`.
pub(crate) async fn fill_topic(brokers: &str, rows: u64, copy_file: &Path) -> Result<Totals, Trouble> {
    let admin: AdminClient<DefaultClientContext> = config(brokers).create()?;
    let topic = NewTopic::new(TOPIC, PARTITIONS, TopicReplication::Fixed(1));
    let options = AdminOptions::new().operation_timeout(Some(DEADLINE));
    for made in admin.create_topics(&[topic], &options).await? {
        made.map_err(|(topic, error)| format!("the topic {topic} cannot be made: {error}"))?;
    }

    let producer: BaseProducer = config(brokers)
        .set("linger.ms", "20")
        .set("batch.size", "1000000")
        .set("queue.buffering.max.messages", "500000")
        .set("acks", "all")
        .set("enable.idempotence", "true")
        .create()?;
    let mut copy_file = BufWriter::new(File::create(copy_file)?);
    let mut records = Records::default();
    let mut record = Record::default();
    for number in 0..rows {
        records.next(&mut record);
        let partition = i32::try_from(number / RECORDS_IN_A_ROW % u64::from(PARTITIONS.unsigned_abs()))?;
        send(&producer, &record.json, partition)?;
        copy_file.write_all(record.text.as_bytes())?;
        copy_file.write_all(b"\n")?;
    }
    copy_file.flush()?;
    producer.flush(DEADLINE)?;
    let stored = stored(brokers)?;
    if stored == rows {
        Ok(records.totals())
    } else {
        Err(format!("Kafka stored {stored} of {rows} records").into())
    }
}

fn send(producer: &BaseProducer, json: &str, partition: i32) -> Result<(), Trouble> {
    let mut record = BaseRecord::<(), str>::to(TOPIC).partition(partition).payload(json);
    loop {
        match producer.send(record) {
            Ok(()) => return Ok(()),
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), refused)) => {
                producer.poll(Duration::from_millis(10));
                record = refused;
            }
            Err((error, _)) => return Err(error.into()),
        }
    }
}

/// How many records the topic holds.
fn stored(brokers: &str) -> Result<u64, Trouble> {
    let consumer: BaseConsumer = config(brokers).create()?;
    let mut stored = 0;
    for partition in 0..PARTITIONS {
        let (low, high) = consumer.fetch_watermarks(TOPIC, partition, DEADLINE)?;
        stored += u64::try_from(high - low)?;
    }
    Ok(stored)
}

/// Reads one record as a member of a group: the first group of a new broker waits until the broker has made the topic
/// of its positions, and that shall be none of the contenders.
pub(crate) fn warm_up(brokers: &str) -> Result<(), Trouble> {
    let consumer: BaseConsumer =
        config(brokers).set("group.id", "warm-up").set("auto.offset.reset", "earliest").create()?;
    consumer.subscribe(&[TOPIC])?;
    let started = Instant::now();
    while started.elapsed() < DEADLINE {
        if consumer.poll(Duration::from_millis(100)).transpose()?.is_some() {
            return Ok(());
        }
    }
    Err(format!("no record came from Kafka within {} s", DEADLINE.as_secs()).into())
}

/// How many records a group has behind it, by its committed positions.
pub(crate) fn committed(brokers: &str, group: &str) -> Result<u64, Trouble> {
    let consumer: BaseConsumer = config(brokers).set("group.id", group).create()?;
    let mut partitions = TopicPartitionList::new();
    partitions.add_partition_range(TOPIC, 0, PARTITIONS - 1);
    let committed = consumer.committed_offsets(partitions, DEADLINE)?;
    let mut sum = 0;
    for partition in committed.elements() {
        if let Offset::Offset(next) = partition.offset() {
            sum += u64::try_from(next)?;
        }
    }
    Ok(sum)
}

fn config(brokers: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", brokers);
    config
}
