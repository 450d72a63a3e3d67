//! What one round is made of, thrown by the dice.

use std::fmt;
use std::fmt::Write as _;
use std::time::Duration;

use crate::dice::Dice;
use crate::sink::{DATASET, PROJECT};

/// How partitions are shared among the members.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    CooperativeSticky,
    Range,
    /// KIP-848: the broker assigns.
    Consumer,
}

/// What happens in a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mood {
    /// Members are asked to end, join and leave, and nothing fails: nothing may be repeated either.
    Calm,
    /// Everything happens.
    Wild,
}

/// The setting of one round.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    pub(crate) mood: Mood,
    pub(crate) into_bigquery: bool,
    pub(crate) protocol: Protocol,
    pub(crate) topics: usize,
    /// Of each topic.
    pub(crate) partitions: i32,
    /// Records a second.
    pub(crate) rate: u64,
    pub(crate) members: usize,
    pub(crate) lanes: usize,
    pub(crate) in_flight: usize,
    pub(crate) rows: usize,
    pub(crate) linger: u64,
    pub(crate) commit_interval: u64,
    pub(crate) memory: u64,
    pub(crate) insert_ids: bool,
    /// How many kills end the round.
    pub(crate) kills: u64,
    /// How long a round without kills lasts, and the longest that another one does.
    pub(crate) duration: Duration,
    /// Whether the broker is ours to restart.
    pub(crate) broker: bool,
}

impl Plan {
    /// The round that belongs to a seed.
    pub(crate) fn thrown(seed: u64, kills: u64, duration: Duration, broker: bool) -> Self {
        let mut dice = Dice::seeded(seed);
        let mood = if dice.percent(20) { Mood::Calm } else { Mood::Wild };
        let topics = dice.index(2) + 2;
        let protocols = [
            Protocol::CooperativeSticky,
            Protocol::CooperativeSticky,
            Protocol::Consumer,
            Protocol::Consumer,
            Protocol::Range,
        ];
        Self {
            seed,
            mood,
            into_bigquery: dice.percent(60),
            protocol: dice.one_of(&protocols),
            topics,
            partitions: if topics == 2 { dice.one_of(&[3, 4]) } else { dice.one_of(&[2, 3]) },
            rate: dice.one_of(&[4_000, 7_000, 10_000]),
            members: dice.index(2) + 2,
            lanes: dice.index(2) + 1,
            in_flight: dice.one_of(&[1, 2, 4]),
            rows: dice.one_of(&[50, 200, 500]),
            linger: dice.one_of(&[20, 100, 500]),
            commit_interval: dice.one_of(&[200, 1000]),
            memory: dice.one_of(&[8, 16, 48]),
            insert_ids: dice.percent(25),
            kills,
            duration,
            broker,
        }
    }

    /// The pipeline file.
    pub(crate) fn pipeline(&self, name: &str, brokers: &str, topics: &[String]) -> String {
        let properties = match self.protocol {
            Protocol::CooperativeSticky => "session.timeout.ms: 6000, heartbeat.interval.ms: 500",
            Protocol::Range => {
                "session.timeout.ms: 6000, heartbeat.interval.ms: 500, partition.assignment.strategy: range"
            }
            Protocol::Consumer => "group.protocol: consumer",
        };
        let mut text = format!(
            "name: {name}\nsource:\n  kafka:\n    brokers: {brokers}\n    topics: [{}]\n    \
             commit_interval: {}ms\n    rebalance: {{ drain_timeout: 5s }}\n    properties: {{ {properties} }}\n\
             decode: json\nvalidate: {{ schema: schemas/event.json }}\nlanes: {}\nmemory: {}MiB\n\
             batch: {{ rows: {}, linger: {}ms }}\ndead_letters: {{ topic: \"{{topic}}.dead-letters\" }}\n",
            topics.join(", "),
            self.commit_interval,
            self.lanes,
            self.memory,
            self.rows,
            self.linger,
        );
        // Writing to a String cannot fail.
        let _ = if self.into_bigquery {
            writeln!(
                text,
                "sink:\n  bigquery:\n    project: {PROJECT}\n    dataset: {DATASET}\n    insert_ids: {}\n    \
                 in_flight: {}\n    timeout: 3s",
                self.insert_ids, self.in_flight,
            )
        } else {
            writeln!(text, "sink:\n  stdout: {{ envelope: true }}")
        };
        text
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            out,
            "seed {}: {:?}, {:?}, {} topics of {} partitions into {}, {} members with {} lanes, {} records/s, \
             batches of {} rows or {} ms, {} in flight, commits every {} ms, {} MiB, insert ids {}",
            self.seed,
            self.mood,
            self.protocol,
            self.topics,
            self.partitions,
            if self.into_bigquery { "BigQuery" } else { "standard output" },
            self.members,
            self.lanes,
            self.rate,
            self.rows,
            self.linger,
            self.in_flight,
            self.commit_interval,
            self.memory,
            self.insert_ids,
        )
    }
}
