//! The tables that the contenders fill, as another session sees them.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio_postgres::{Client, NoTls};

use super::Trouble;
use super::records::Totals;

/// The columns of every table, in the order of the file for `\copy`.
const COLUMNS: &str =
    "transaction_id text, account_id text, counterparty_account_id text, amount bigint, inserted_at bigint";
/// A row takes 156 bytes, so 52 fit on a page of 8 KiB.
const ROWS_PER_PAGE: u64 = 52;

/// A table that a contender fills.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Table {
    /// Without any index.
    Plain,
    /// `transaction_id` is its primary key.
    Keyed,
}

impl Table {
    const ALL: [Self; 2] = [Self::Plain, Self::Keyed];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Plain => "transactions",
            Self::Keyed => "transactions_keyed",
        }
    }
}

/// What a table held at the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) rows: u64,
    pub(crate) amount: i64,
    /// Different transaction ids.
    pub(crate) ids: u64,
}

impl Found {
    /// What is wrong with it, in words; empty when every row is there once.
    pub(crate) fn faults(self, expected: Totals) -> Vec<String> {
        let mut faults = Vec::new();
        if self.ids != expected.rows {
            faults.push(format!("{} lost", expected.rows.saturating_sub(self.ids)));
        }
        if self.rows != self.ids {
            faults.push(format!("{} doubled", self.rows.saturating_sub(self.ids)));
        }
        if faults.is_empty() && self.amount != expected.amount {
            faults.push("wrong sum".to_owned());
        }
        faults
    }
}

/// When the rows of a table became visible, by the commit times that PostgreSQL kept for them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Pace {
    /// From the start to the first commit.
    pub(crate) first: Duration,
    /// From the start to the last commit.
    pub(crate) last: Duration,
    /// Rows that came with other commits than the first.
    pub(crate) after_first: u64,
}

/// The session of the bench.
pub(crate) struct Database {
    client: Client,
    /// The server's process that serves it.
    pub(crate) backend: u32,
    /// The server's version.
    pub(crate) version: String,
}

impl Database {
    /// Connects and makes the tables.
    pub(crate) async fn open(url: &str) -> Result<Self, Trouble> {
        let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
        // It ends with the client, which says what went wrong.
        tokio::spawn(connection);
        client
            .batch_execute(
                "SET work_mem = '512MB'; SET jit = off; SET max_parallel_workers_per_gather = 0; SET lock_timeout = '60s'",
            )
            .await?;
        for table in Table::ALL {
            let key = if table == Table::Keyed { ", PRIMARY KEY (transaction_id)" } else { "" };
            client.batch_execute(&format!("CREATE TABLE {} ({COLUMNS}{key})", table.name())).await?;
        }
        let row = client.query_one("SELECT pg_backend_pid(), current_setting('server_version')", &[]).await?;
        Ok(Self { backend: u32::try_from(row.get::<_, i32>(0))?, version: row.get(1), client })
    }

    /// Empties the tables and lets the server write down everything it still has to write.
    pub(crate) async fn empty(&self) -> Result<(), Trouble> {
        for table in Table::ALL {
            self.client.batch_execute(&format!("TRUNCATE {}", table.name())).await?;
        }
        Ok(self.client.batch_execute("CHECKPOINT").await?)
    }

    /// How many rows fit in what the table takes on the disk.
    async fn room(&self, table: Table) -> Result<u64, Trouble> {
        let row = self
            .client
            .query_one(&format!("SELECT pg_relation_size('{}') / 8192", table.name()), &[])
            .await?;
        Ok(u64::try_from(row.get::<_, i64>(0))? * ROWS_PER_PAGE)
    }

    /// What the table holds.
    pub(crate) async fn found(&self, table: Table) -> Result<Found, Trouble> {
        let query = format!(
            "SELECT count(*), coalesce(sum(amount), 0)::bigint,
                (SELECT count(*) FROM (SELECT FROM {0} GROUP BY transaction_id) AS ids)
            FROM {0}",
            table.name()
        );
        let row = self.client.query_one(&query, &[]).await?;
        Ok(Found {
            rows: u64::try_from(row.get::<_, i64>(0))?,
            amount: row.get(1),
            ids: u64::try_from(row.get::<_, i64>(2))?,
        })
    }

    /// How the rows came; `None` when there are none.
    pub(crate) async fn pace(&self, table: Table, started: SystemTime) -> Result<Option<Pace>, Trouble> {
        let query = format!(
            "WITH commits AS (
                SELECT extract(epoch FROM pg_xact_commit_timestamp(xmin))::float8 AS at, count(*) AS rows
                FROM {} GROUP BY xmin)
            SELECT min(at), max(at), (sum(rows) - (array_agg(rows ORDER BY at))[1])::bigint FROM commits",
            table.name()
        );
        let row = self.client.query_one(&query, &[]).await?;
        let (Some(first), Some(last)) = (row.get::<_, Option<f64>>(0), row.get::<_, Option<f64>>(1)) else {
            return Ok(None);
        };
        let started = started.duration_since(UNIX_EPOCH)?.as_secs_f64();
        Ok(Some(Pace {
            first: Duration::try_from_secs_f64(first - started)?,
            last: Duration::try_from_secs_f64(last - started)?,
            after_first: u64::try_from(row.get::<_, i64>(2))?,
        }))
    }
}

/// Looks at a table while it grows.
pub(crate) struct Growth<'d> {
    database: &'d Database,
    table: Table,
    room: u64,
    grown: Instant,
}

impl<'d> Growth<'d> {
    pub(crate) fn of(database: &'d Database, table: Table) -> Self {
        Self { database, table, room: 0, grown: Instant::now() }
    }

    /// Whether the table has room for so many rows, and so is worth counting. Cheap: the size of a file.
    pub(crate) async fn may_hold(&mut self, rows: u64) -> Result<bool, Trouble> {
        let room = self.database.room(self.table).await?;
        if room > self.room {
            self.room = room;
            self.grown = Instant::now();
        }
        Ok(room >= rows - rows / 100)
    }

    /// How long ago the table was last seen growing.
    pub(crate) fn still_for(&self) -> Duration {
        self.grown.elapsed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXPECTED: Totals = Totals { rows: 10, amount: 500, json_bytes: 2_200 };

    #[test]
    fn a_table_with_every_row_once_has_no_fault() {
        assert!(Found { rows: 10, amount: 500, ids: 10 }.faults(EXPECTED).is_empty());
    }

    #[test]
    fn losses_doubles_and_changed_rows_are_faults() {
        assert_eq!(Found { rows: 9, amount: 450, ids: 9 }.faults(EXPECTED), ["1 lost"]);
        assert_eq!(Found { rows: 12, amount: 600, ids: 10 }.faults(EXPECTED), ["2 doubled"]);
        assert_eq!(Found { rows: 10, amount: 450, ids: 9 }.faults(EXPECTED), ["1 lost", "1 doubled"]);
        assert_eq!(Found { rows: 10, amount: 499, ids: 10 }.faults(EXPECTED), ["wrong sum"]);
    }
}
