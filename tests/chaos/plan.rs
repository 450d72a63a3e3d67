//! What one round is made of, thrown by the dice.

use std::fmt;
use std::fmt::Write as _;
use std::time::Duration;

use crate::dice::Dice;
use crate::sink::bigquery::{DATASET, PROJECT};

/// How partitions are shared among the members.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    CooperativeSticky,
    Range,
    /// KIP-848: the broker assigns.
    Consumer,
}

/// Where the rows go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    BigQuery,
    Stdout,
    Postgres(IntoPostgres),
}

impl Target {
    /// Whether no row may ever be there twice.
    pub(crate) fn is_exactly_once(self) -> bool {
        matches!(self, Self::Postgres(IntoPostgres { exactly_once: true, .. }))
    }
}

impl fmt::Display for Target {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BigQuery => out.write_str("BigQuery"),
            Self::Stdout => out.write_str("standard output"),
            Self::Postgres(setting) => write!(
                out,
                "PostgreSQL{} ({}, {}, tables {}{})",
                if setting.road == Road::PgBouncer { " by PgBouncer" } else { "" },
                setting.write.name(),
                if setting.exactly_once { "exactly once" } else { "at least once" },
                if setting.tables_are_there { "with a check" } else { "that are made" },
                if setting.has_unique_ids() { " and unique ids" } else { "" },
            ),
        }
    }
}

/// How rows go into PostgreSQL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct IntoPostgres {
    pub(crate) write: Write,
    pub(crate) exactly_once: bool,
    /// Whether the tables are there already, with a check that some rows break. Else the members make them.
    pub(crate) tables_are_there: bool,
    /// Whether tables that are there have unique ids, also where rows are appended: a row that is written a second time
    /// is refused then, and would become a dead letter.
    pub(crate) unique_ids: bool,
    pub(crate) road: Road,
}

impl IntoPostgres {
    pub(crate) fn has_unique_ids(self) -> bool {
        self.write != Write::Append || (self.tables_are_there && self.unique_ids)
    }

    fn thrown(dice: &mut Dice) -> Self {
        let exactly_once = dice.percent(85);
        Self {
            write: dice.one_of(&[
                Write::Append,
                Write::Append,
                Write::Append,
                Write::InsertIgnore,
                Write::Upsert,
            ]),
            exactly_once,
            tables_are_there: dice.percent(60),
            // Only exactly once never appends a row a second time.
            unique_ids: dice.percent(50) && exactly_once,
            road: if dice.percent(25) { Road::PgBouncer } else { Road::Straight },
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Write {
    Append,
    InsertIgnore,
    Upsert,
}

impl Write {
    fn name(self) -> &'static str {
        match self {
            Self::Append => "append",
            Self::InsertIgnore => "insert_ignore",
            Self::Upsert => "upsert",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Road {
    Straight,
    PgBouncer,
}

/// The sinks that rounds are thrown for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sinks {
    All,
    BigQuery,
    Stdout,
    Postgres,
}

impl Sinks {
    pub(crate) fn named(name: &str) -> Option<Self> {
        match name {
            "all" => Some(Self::All),
            "bigquery" => Some(Self::BigQuery),
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
            target: if bigquery { Target::BigQuery } else { Target::Stdout },
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
            Sinks::All => plan.target,
            Sinks::BigQuery => Target::BigQuery,
            Sinks::Stdout => Target::Stdout,
        };
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
        // Writing to a String cannot fail.
        let _ = match self.target {
            Target::BigQuery => writeln!(
                text,
                "sink:\n  bigquery:\n    project: {PROJECT}\n    dataset: {DATASET}\n    insert_ids: {}\n    \
                 in_flight: {}\n    timeout: 3s",
                self.insert_ids, self.in_flight,
            ),
            Target::Stdout => writeln!(text, "sink:\n  stdout: {{ envelope: true }}"),
            Target::Postgres(setting) => writeln!(
                text,
                "sink:\n  postgres:\n    url: \"${{PG_URL}}\"\n    schema: {name}\n    table: \"{{topic}}\"\n    \
                 write: {}\n{}    delivery: {}\n    table_changes: {}\n    timeout: 4s",
                setting.write.name(),
                if setting.write == Write::Append { "" } else { "    key: [id]\n" },
                if setting.exactly_once { "exactly_once" } else { "at_least_once" },
                if setting.tables_are_there { "none" } else { "create" },
            ),
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
