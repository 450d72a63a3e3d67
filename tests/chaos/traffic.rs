//! The producer: a steady stream of records, as fast as wanted, over broker outages too.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::types::RDKafkaErrorCode;

use crate::dice::{Dice, mixed};
use crate::kafka::Cluster;
use crate::records;

/// How often records are handed to the producer.
const TICK: Duration = Duration::from_millis(20);

/// Records on their way into the topics. Ids count up from 0.
pub(crate) struct Traffic {
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
    thread: JoinHandle<()>,
}

impl Traffic {
    pub(crate) fn start(cluster: &Cluster, topics: &[String], partitions: i32, rate: u64, seed: u64) -> Self {
        let producer: BaseProducer = cluster
            .client()
            .set("enable.idempotence", "true")
            .set("linger.ms", "20")
            .set("message.timeout.ms", "0")
            .create()
            .unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let sent = Arc::new(AtomicU64::new(0));
        let topics = topics.to_vec();
        let thread = std::thread::spawn({
            let (stop, sent) = (Arc::clone(&stop), Arc::clone(&sent));
            move || produce(&producer, &topics, partitions, rate, seed, &stop, &sent)
        });
        Self { stop, sent, thread }
    }

    pub(crate) fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Stops and waits until every record is stored; answers how many there are.
    pub(crate) fn finish(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap();
        self.sent.load(Ordering::Relaxed)
    }
}

fn now_ms() -> i64 {
    i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap()
}

fn produce(
    producer: &BaseProducer,
    topics: &[String],
    partitions: i32,
    rate: u64,
    seed: u64,
    stop: &AtomicBool,
    sent: &AtomicU64,
) {
    let mut dice = Dice::seeded(mixed(seed));
    let mut id = 0;
    let mut next = Instant::now();
    while !stop.load(Ordering::Relaxed) {
        // Bursts and lulls, so that batches close for all their reasons.
        let burst = rate * u64::try_from(TICK.as_millis()).unwrap() / 1000 * dice.within(0..=4) / 2;
        for _ in 0..burst {
            let key = records::key(id);
            let value = records::value(id);
            let mut record = BaseRecord::<String, Vec<u8>>::to(&topics[dice.index(topics.len())])
                .partition(records::partition(id, partitions))
                .timestamp(now_ms() - i64::try_from(records::lateness_ms(id)).unwrap())
                .key(&key);
            if let Some(value) = &value {
                record = record.payload(value);
            }
            match producer.send(record) {
                Ok(()) => {
                    id += 1;
                    sent.store(id, Ordering::Relaxed);
                }
                // The broker is away and the queue is full: no more until there is room.
                Err((error, _)) => {
                    assert_eq!(error.rdkafka_error_code(), Some(RDKafkaErrorCode::QueueFull), "{error}");
                    break;
                }
            }
        }
        producer.poll(Duration::ZERO);
        next = (next + TICK).max(Instant::now());
        std::thread::sleep(next.saturating_duration_since(Instant::now()));
    }
    producer.flush(Duration::from_mins(2)).expect("the broker is back before the round ends");
}
