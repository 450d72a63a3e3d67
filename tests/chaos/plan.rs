//! What one round is made of, thrown by the dice.

mod target;

use std::fmt;
use std::time::Duration;

pub(crate) use target::{IntoBigQuery, IntoPostgres, NewestBy, Road, Target, Way, Write};

use crate::dice::Dice;

/// How partitions are shared among the members.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    CooperativeSticky,
    Range,
    /// KIP-848: the broker assigns.
    Consumer,
}

/// The sinks that rounds are thrown for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sinks {
    All,
    /// By all ways into it, or one.
    BigQuery(Option<Way>),
    Stdout,
    Postgres,
}

impl Sinks {
    pub(crate) fn named(name: &str) -> Option<Self> {
        match name {
            "all" => Some(Self::All),
            "bigquery" => Some(Self::BigQuery(None)),
            "stdout" => Some(Self::Stdout),
            "postgres" => Some(Self::Postgres),
            _ => None,
        }
    }
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
    pub(crate) target: Target,
    pub(crate) protocol: Protocol,
    pub(crate) topics: usize,
    /// Of each topic.
    pub(crate) partitions: i32,
    /// Records a second.
    pub(crate) rate: u64,
    pub(crate) members: usize,
    pub(crate) lanes: usize,
    /// Batches of a lane, into BigQuery.
    pub(crate) in_flight: usize,
    pub(crate) rows: usize,
    pub(crate) linger: u64,
    pub(crate) commit_interval: u64,
    pub(crate) memory: u64,
    /// By insertAll.
    pub(crate) insert_ids: bool,
    /// How many kills end the round.
    pub(crate) kills: u64,
    /// How long a round without kills lasts, and the longest that another one does.
    pub(crate) duration: Duration,
    /// Whether broker and database are ours to restart.
    pub(crate) servers: bool,
}

impl Plan {
    /// The round that belongs to a seed.
    pub(crate) fn thrown(seed: u64, kills: u64, duration: Duration, servers: bool, sinks: Sinks) -> Self {
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
        let bigquery = dice.percent(60);
        let mut plan = Self {
            seed,
            mood,
            target: Target::Stdout,
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
            servers,
        };
        plan.target = match sinks {
            Sinks::Postgres => Target::Postgres(IntoPostgres::thrown(&mut dice)),
            Sinks::All if dice.percent(50) => Target::Postgres(IntoPostgres::thrown(&mut dice)),
            Sinks::All if bigquery => Target::BigQuery(IntoBigQuery::thrown(&mut dice, None)),
            Sinks::BigQuery(way) => Target::BigQuery(IntoBigQuery::thrown(&mut dice, way)),
            Sinks::All | Sinks::Stdout => Target::Stdout,
        };
        if plan.target.into_bigquery().is_some_and(|setting| setting.way != Way::InsertAll) {
            // A connection has room for many more: 1, 4 or 16.
            plan.in_flight *= plan.in_flight;
        }
        plan
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
        text.push_str(&match self.target {
            Target::BigQuery(setting) => setting.block(self.in_flight, self.insert_ids),
            Target::Stdout => "sink:\n  stdout: { envelope: true }\n".to_owned(),
            Target::Postgres(setting) => setting.block(name),
        });
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
            self.target,
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
