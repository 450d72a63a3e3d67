//! Where the rows go, and how.

use std::fmt;
use std::fmt::Write as _;

use crate::dice::Dice;
use crate::sink::bigquery::{DATASET, PROJECT};

/// Where the rows go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    BigQuery(IntoBigQuery),
    Stdout,
    Postgres(IntoPostgres),
}

impl Target {
    /// Whether no row may ever be there twice.
    pub(crate) fn is_exactly_once(self) -> bool {
        matches!(
            self,
            Self::Postgres(IntoPostgres { exactly_once: true, .. })
                | Self::BigQuery(IntoBigQuery { way: Way::TwoPhase, .. })
        )
    }

    /// How rows go into BigQuery, if they do.
    pub(crate) fn into_bigquery(self) -> Option<IntoBigQuery> {
        match self {
            Self::BigQuery(setting) => Some(setting),
            Self::Stdout | Self::Postgres(_) => None,
        }
    }

    /// What rounds are counted together as.
    pub(crate) fn class(self) -> &'static str {
        match self {
            Self::BigQuery(setting) => match setting.way {
                Way::TwoPhase => "BigQuery, two-phase",
                Way::Upsert => "BigQuery, upserts",
                Way::DefaultStream => "BigQuery, default stream",
                Way::InsertAll => "BigQuery, insertAll",
            },
            Self::Stdout => "standard output",
            Self::Postgres(IntoPostgres { exactly_once: true, .. }) => "PostgreSQL, exactly once",
            Self::Postgres(_) => "PostgreSQL, at least once",
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BigQuery(setting) => {
                write!(out, "{}", self.class())?;
                match setting.way {
                    Way::Upsert => write!(
                        out,
                        " (newest by {}, tombstones {})",
                        setting.newest_by.name(),
                        if setting.deletes { "delete" } else { "are left out" }
                    ),
                    Way::TwoPhase | Way::DefaultStream | Way::InsertAll => Ok(()),
                }
            }
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

/// How rows go into BigQuery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct IntoBigQuery {
    pub(crate) way: Way,
    /// Of upserts.
    pub(crate) newest_by: NewestBy,
    /// Whether tombstones delete, of upserts.
    pub(crate) deletes: bool,
}

impl IntoBigQuery {
    pub(crate) fn thrown(dice: &mut Dice, way: Option<Way>) -> Self {
        let thrown = match dice.index(20) {
            0..=9 => Way::TwoPhase,
            10..=13 => Way::Upsert,
            14..=16 => Way::DefaultStream,
            _ => Way::InsertAll,
        };
        let way = way.unwrap_or(thrown);
        Self {
            way,
            newest_by: dice.one_of(&[NewestBy::Offset, NewestBy::Timestamp]),
            deletes: dice.percent(50),
        }
    }

    /// The `bigquery` block.
    pub(super) fn block(self, in_flight: usize, insert_ids: bool) -> String {
        let mut text = format!(
            "sink:\n  bigquery:\n    project: {PROJECT}\n    dataset: {DATASET}\n    in_flight: {in_flight}\n    timeout: 3s\n"
        );
        // Writing to a String cannot fail.
        let _ = match self.way {
            Way::TwoPhase => writeln!(text, "    api: storage_write\n    delivery: exactly_once"),
            Way::DefaultStream => writeln!(text, "    api: storage_write\n    delivery: at_least_once"),
            Way::Upsert => writeln!(
                text,
                "    api: storage_write\n    write: upsert\n    key: [account]\n    newest_by: {}\n    \
                 delete_on_tombstone: {}",
                self.newest_by.name(),
                self.deletes
            ),
            Way::InsertAll => writeln!(text, "    api: insert_all\n    insert_ids: {insert_ids}"),
        };
        if self.way != Way::InsertAll {
            text.push_str("    kafka_columns: [partition, offset]\n");
        }
        text
    }
}

/// By which of its calls rows go into BigQuery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// Exactly once, by write streams.
    TwoPhase,
    /// One row for each account, by the default stream.
    Upsert,
    /// At least once.
    DefaultStream,
    /// At least once.
    InsertAll,
}

impl Way {
    pub(crate) fn named(name: &str) -> Option<Self> {
        match name {
            "two-phase" => Some(Self::TwoPhase),
            "upsert" => Some(Self::Upsert),
            "default-stream" => Some(Self::DefaultStream),
            "insert-all" => Some(Self::InsertAll),
            _ => None,
        }
    }
}

/// Which of two records of one account is the newer one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NewestBy {
    Offset,
    Timestamp,
}

impl NewestBy {
    fn name(self) -> &'static str {
        match self {
            Self::Offset => "offset",
            Self::Timestamp => "timestamp",
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

    pub(super) fn thrown(dice: &mut Dice) -> Self {
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

    /// The `postgres` block, into a schema of the pipeline's name.
    pub(super) fn block(self, pipeline: &str) -> String {
        format!(
            "sink:\n  postgres:\n    url: \"${{PG_URL}}\"\n    schema: {pipeline}\n    table: \"{{topic}}\"\n    \
             write: {}\n{}    delivery: {}\n    table_changes: {}\n    timeout: 4s\n",
            self.write.name(),
            if self.write == Write::Append { "" } else { "    key: [id]\n" },
            if self.exactly_once { "exactly_once" } else { "at_least_once" },
            if self.tables_are_there { "none" } else { "create" },
        )
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
