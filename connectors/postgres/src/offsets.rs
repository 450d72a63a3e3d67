//! Positions in a table beside the rows, so that both move in one transaction.
//!
//! | who | statement | lock |
//! |---|---|---|
//! | [`PostgresOffsets::take_over`](OffsetStore::take_over) | raises the epoch, tells the position | waits for a commit under way |
//! | [`advance_and_commit`] | moves positions that are where they should be, under the epoch that was taken | last in its transaction, with COMMIT in the same flight |
//!
//! A transaction whose positions were taken over meanwhile moves fewer rows than it has to; the statement that finds
//! this divides by zero, so that the COMMIT behind it, which is on its way already, rolls back.
//!
//! Rows are locked in the order of topic (by bytes) and partition everywhere, so that no two transactions wait for each
//! other.

use std::collections::BTreeMap;

use futures::future::BoxFuture;
use tokio_postgres::Row;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::Type;
use txconnect_connector_api::{
    Claim, Claimed, Epoch, NewPosition, OffsetStore, SinkError, StoredPosition, TopicPartition,
};

pub use crate::advance::{CommitError, advance_and_commit};
use crate::blockers::{Watchdog, Watched};
use crate::config::OFFSETS_TABLE;
use crate::connect::{Connector, Session, application_name};
use crate::error::{CallFailure, Trouble};
use crate::plan::{TableName, quoted};
use crate::session::Parameter;

/// A statement and its parameters.
type Statement<'a> = (&'a str, &'a [Parameter<'a>]);

/// The advisory lock under which tables are made, so that two processes that start together do not make one twice.
pub const CREATION_LOCK: i64 = 0x7478_636f_6e6e_6563;

/// The table that holds positions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OffsetsTable {
    name: TableName,
}

impl std::fmt::Display for OffsetsTable {
    /// Quoted: fit for a statement.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.name.fmt(f)
    }
}

impl OffsetsTable {
    /// The table `txconnect_offsets` in `schema`.
    pub fn in_schema(schema: &str) -> Self {
        Self { name: TableName { schema: schema.to_owned(), table: OFFSETS_TABLE.to_owned() } }
    }

    /// The statements that make schema and table, for a user who may where we may not.
    pub fn definition(&self) -> String {
        format!("{};\n{};", self.schema_definition(), self.table_definition())
    }

    fn schema_definition(&self) -> String {
        format!("CREATE SCHEMA IF NOT EXISTS {}", quoted(&self.name.schema))
    }

    fn table_definition(&self) -> String {
        format!(
            "CREATE TABLE IF NOT EXISTS {self} (pipeline text NOT NULL, topic text NOT NULL, partition integer NOT NULL, \
             next_offset bigint NOT NULL, epoch bigint NOT NULL, topic_id text, owner text, \
             updated_at timestamp with time zone NOT NULL DEFAULT now(), PRIMARY KEY (pipeline, topic, partition))"
        )
    }

    /// For messages: names as a user writes them.
    fn place(&self) -> String {
        format!("table {}.{}", self.name.schema, self.name.table)
    }
}

/// The positions of one pipeline, in a table that is made when it is first needed.
#[derive(Debug)]
pub struct PostgresOffsets {
    connector: Connector,
    watchdog: Watchdog,
    table: OffsetsTable,
    pipeline: String,
    application_name: String,
    owner: String,
}

impl PostgresOffsets {
    /// The positions of `pipeline` in `txconnect_offsets` of `schema`. Connects when it is asked.
    pub fn new(connector: Connector, schema: &str, pipeline: &str) -> Self {
        Self {
            watchdog: Watchdog::new(connector.clone()),
            connector,
            table: OffsetsTable::in_schema(schema),
            pipeline: pipeline.to_owned(),
            application_name: application_name(pipeline),
            owner: owner(),
        }
    }

    /// The table.
    pub fn table(&self) -> &OffsetsTable {
        &self.table
    }

    async fn connect(&self) -> Result<Session, SinkError> {
        self.connector.connect(&self.application_name).await
    }

    /// Makes schema and table where they are missing.
    async fn ensure_table(&self, session: &Session) -> Result<(), SinkError> {
        let doing = format!("looking for {}", self.table.place());
        let statement = "SELECT to_regclass($1) IS NOT NULL, to_regnamespace($2) IS NOT NULL";
        let (table, schema) = (self.table.to_string(), quoted(&self.table.name.schema));
        let parameters: [Parameter<'_>; 2] = [(&table, Type::TEXT), (&schema, Type::TEXT)];
        let call = session.client().query_typed_one(statement, &parameters);
        let row = session.within(&doing, call).await.map_err(|failure| self.creation_error(&failure))?;
        let read = |column| row.try_get::<_, bool>(column).map_err(|error| session.failure(&doing, error));
        if read(0)? {
            return Ok(());
        }
        self.create_table(session, read(1)?).await.map_err(|failure| self.creation_error(&failure))
    }

    async fn create_table(&self, session: &Session, schema_exists: bool) -> Result<(), CallFailure> {
        let doing = format!("making {}", self.table.place());
        let settings = format!("SET LOCAL lock_timeout = {};", session.lock_timeout());
        let begun = session.begin(&settings).await?;
        // A schema that exists is not asked for: that needs a right of its own even where nothing is to be done.
        let schema = if schema_exists { String::new() } else { self.table.schema_definition() + ";" };
        let statements = format!(
            "SELECT pg_advisory_xact_lock({CREATION_LOCK}); {schema} {}; COMMIT",
            self.table.table_definition()
        );
        let call = session.within(&doing, session.client().batch_execute(&statements));
        let made = self.watchdog.watch(begun.pid, &self.application_name, call).await.outcome;
        if made.is_err() {
            session.roll_back().await;
        }
        made
    }

    fn creation_error(&self, failure: &CallFailure) -> SinkError {
        match failure.trouble() {
            // Somebody who does not take our lock made it at the same moment.
            Trouble::Data(_) => {
                SinkError::transient(format!("making {}: somebody else makes it now", self.table.place()))
            }
            Trouble::Refused { cause, .. } if failure.is(&SqlState::INSUFFICIENT_PRIVILEGE) => {
                SinkError::fatal(
                    cause,
                    format!(
                        "grant the role of `url` CREATE, choose another `offsets_schema`, or let an owner run: {}",
                        self.table.definition().replace('\n', " ")
                    ),
                )
            }
            trouble => trouble.into(),
        }
    }

    /// Runs `statements` one after the other in one transaction, in which locks are waited for, and commits.
    async fn in_transaction(
        &self,
        session: &Session,
        doing: &str,
        statements: &[Statement<'_>],
    ) -> Result<Vec<Vec<Row>>, SinkError> {
        let settings = format!("SET LOCAL lock_timeout = {};", session.lock_timeout());
        let begun = session.begin(&settings).await?;
        let mut answers = Vec::new();
        for (statement, parameters) in statements {
            let call = session.within(doing, session.client().query_typed(statement, parameters));
            let Watched { outcome, waited_for } =
                self.watchdog.watch(begun.pid, &self.application_name, call).await;
            match outcome {
                Ok(rows) => answers.push(rows),
                Err(failure) => {
                    session.roll_back().await;
                    return Err(self.statement_error(&failure, waited_for));
                }
            }
        }
        session.within(doing, session.client().batch_execute("COMMIT")).await?;
        Ok(answers)
    }

    fn statement_error(&self, failure: &CallFailure, waited_for: Option<String>) -> SinkError {
        match failure.trouble() {
            Trouble::Away { cause } => SinkError::transient(match waited_for {
                Some(blockers) => format!("{cause}; in the way: {blockers}, which is not ours to end"),
                None => cause,
            }),
            Trouble::TableChanged { cause } => SinkError::fatal(
                format!("{cause}: {} is not as it is made", self.table.place()),
                format!(
                    "rename it, or choose another `offsets_schema`; it is made by: {}",
                    self.table.definition().replace('\n', " ")
                ),
            ),
            trouble => trouble.into(),
        }
    }

    async fn claim(&self, claims: &[Claim]) -> Result<Vec<Claimed>, SinkError> {
        if claims.is_empty() {
            return Ok(Vec::new());
        }
        let session = self.connect().await?;
        self.ensure_table(&session).await?;
        // One row per partition and in order, as everywhere.
        let sorted: BTreeMap<&TopicPartition, &Claim> =
            claims.iter().map(|claim| (&claim.partition, claim)).collect();
        let topics: Vec<&str> = sorted.keys().map(|partition| &*partition.topic).collect();
        let partitions: Vec<i32> = sorted.keys().map(|partition| partition.partition).collect();
        let starts: Vec<Option<i64>> = sorted.values().map(|claim| claim.start).collect();
        let topic_ids: Vec<Option<&str>> = sorted.values().map(|claim| claim.topic_id.as_deref()).collect();
        let table = &self.table;
        // Tells who was there before, which the second statement cannot.
        let lock_rows = format!(
            "SELECT stored.topic, stored.partition, stored.owner FROM {table} AS stored \
             JOIN unnest($2, $3) AS wanted (topic, partition) \
               ON stored.topic = wanted.topic AND stored.partition = wanted.partition \
             WHERE stored.pipeline = $1 ORDER BY stored.topic COLLATE \"C\", stored.partition FOR UPDATE OF stored"
        );
        let raise_epochs = format!(
            "INSERT INTO {table} AS stored (pipeline, topic, partition, next_offset, epoch, topic_id, owner) \
             SELECT $1, wanted.topic, wanted.partition, coalesce(wanted.start_offset, 0), 1, wanted.topic_id, $6 \
             FROM unnest($2, $3, $4, $5) AS wanted (topic, partition, start_offset, topic_id) \
             WHERE wanted.start_offset IS NOT NULL OR EXISTS (SELECT FROM {table} AS old \
               WHERE old.pipeline = $1 AND old.topic = wanted.topic AND old.partition = wanted.partition) \
             ORDER BY wanted.topic COLLATE \"C\", wanted.partition \
             ON CONFLICT (pipeline, topic, partition) DO UPDATE SET epoch = stored.epoch + 1, \
               topic_id = coalesce(stored.topic_id, EXCLUDED.topic_id), owner = EXCLUDED.owner \
             RETURNING topic, partition, next_offset, epoch, topic_id"
        );
        let lock_parameters: [Parameter<'_>; 3] =
            [(&self.pipeline, Type::TEXT), (&topics, Type::TEXT_ARRAY), (&partitions, Type::INT4_ARRAY)];
        let raise_parameters: [Parameter<'_>; 6] = [
            (&self.pipeline, Type::TEXT),
            (&topics, Type::TEXT_ARRAY),
            (&partitions, Type::INT4_ARRAY),
            (&starts, Type::INT8_ARRAY),
            (&topic_ids, Type::TEXT_ARRAY),
            (&self.owner, Type::TEXT),
        ];
        let doing = format!("taking partitions over in {}", table.place());
        let statements: [Statement<'_>; 2] =
            [(&lock_rows, &lock_parameters), (&raise_epochs, &raise_parameters)];
        let answers = self.in_transaction(&session, &doing, &statements).await?;
        let unreadable = |error| SinkError::from(session.failure(&doing, error));
        let [held, taken] = answers.as_slice() else { return Ok(Vec::new()) };
        let previous = read_owners(held).map_err(unreadable)?;
        let mut by_partition = BTreeMap::new();
        for row in taken {
            let (partition, claimed) = read_claimed(row, &previous).map_err(unreadable)?;
            by_partition.insert(partition, claimed);
        }
        Ok(claims
            .iter()
            .map(|claim| by_partition.get(&claim.partition).cloned().unwrap_or(Claimed::Missing))
            .collect())
    }

    async fn read_positions(&self) -> Result<Vec<StoredPosition>, SinkError> {
        let session = self.connect().await?;
        let statement = format!(
            "SELECT topic, partition, next_offset, epoch, topic_id, owner, \
               to_char(updated_at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"') \
             FROM {} WHERE pipeline = $1 ORDER BY topic COLLATE \"C\", partition",
            self.table
        );
        let doing = format!("reading {}", self.table.place());
        let parameters: [Parameter<'_>; 1] = [(&self.pipeline, Type::TEXT)];
        let call = session.client().query_typed(&statement, &parameters);
        let rows = match session.within(&doing, call).await {
            Ok(rows) => rows,
            // The schema may be missing as well: that is the same code.
            Err(failure) if failure.is(&SqlState::UNDEFINED_TABLE) => return Ok(Vec::new()),
            Err(failure) => return Err(self.statement_error(&failure, None)),
        };
        rows.iter()
            .map(read_position)
            .collect::<Result<_, _>>()
            .map_err(|error| session.failure(&doing, error).into())
    }

    async fn store(&self, positions: &[NewPosition]) -> Result<(), SinkError> {
        if positions.is_empty() {
            return Ok(());
        }
        let session = self.connect().await?;
        self.ensure_table(&session).await?;
        let sorted: BTreeMap<&TopicPartition, &NewPosition> =
            positions.iter().map(|position| (&position.partition, position)).collect();
        let topics: Vec<&str> = sorted.keys().map(|partition| &*partition.topic).collect();
        let partitions: Vec<i32> = sorted.keys().map(|partition| partition.partition).collect();
        let offsets: Vec<i64> = sorted.values().map(|position| position.next_offset).collect();
        let topic_ids: Vec<Option<&str>> =
            sorted.values().map(|position| position.topic_id.as_deref()).collect();
        let statement = format!(
            "INSERT INTO {} AS stored (pipeline, topic, partition, next_offset, epoch, topic_id, owner) \
             SELECT $1, wanted.topic, wanted.partition, wanted.next_offset, 1, wanted.topic_id, $6 \
             FROM unnest($2, $3, $4, $5) AS wanted (topic, partition, next_offset, topic_id) \
             ORDER BY wanted.topic COLLATE \"C\", wanted.partition \
             ON CONFLICT (pipeline, topic, partition) DO UPDATE SET next_offset = EXCLUDED.next_offset, \
               epoch = stored.epoch + 1, topic_id = EXCLUDED.topic_id, owner = EXCLUDED.owner, updated_at = now()",
            self.table
        );
        let parameters: [Parameter<'_>; 6] = [
            (&self.pipeline, Type::TEXT),
            (&topics, Type::TEXT_ARRAY),
            (&partitions, Type::INT4_ARRAY),
            (&offsets, Type::INT8_ARRAY),
            (&topic_ids, Type::TEXT_ARRAY),
            (&self.owner, Type::TEXT),
        ];
        let doing = format!("storing positions in {}", self.table.place());
        self.in_transaction(&session, &doing, &[(&statement, &parameters)]).await.map(|_| ())
    }
}

impl OffsetStore for PostgresOffsets {
    fn place(&self) -> String {
        self.table.place()
    }

    fn take_over<'a>(&'a self, claims: &'a [Claim]) -> BoxFuture<'a, Result<Vec<Claimed>, SinkError>> {
        Box::pin(self.claim(claims))
    }

    fn positions(&self) -> BoxFuture<'_, Result<Vec<StoredPosition>, SinkError>> {
        Box::pin(self.read_positions())
    }

    fn reset<'a>(&'a self, positions: &'a [NewPosition]) -> BoxFuture<'a, Result<(), SinkError>> {
        Box::pin(self.store(positions))
    }
}

fn read_partition(row: &Row) -> Result<TopicPartition, tokio_postgres::Error> {
    Ok(TopicPartition::new(row.try_get::<_, &str>(0)?, row.try_get(1)?))
}

fn read_owners(rows: &[Row]) -> Result<BTreeMap<TopicPartition, Option<String>>, tokio_postgres::Error> {
    rows.iter().map(|row| Ok((read_partition(row)?, row.try_get(2)?))).collect()
}

fn read_claimed(
    row: &Row,
    previous: &BTreeMap<TopicPartition, Option<String>>,
) -> Result<(TopicPartition, Claimed), tokio_postgres::Error> {
    let partition = read_partition(row)?;
    let previous_owner = previous.get(&partition).cloned().flatten();
    let claimed = Claimed::Taken {
        next_offset: row.try_get(2)?,
        epoch: Epoch(row.try_get(3)?),
        topic_id: row.try_get(4)?,
        previous_owner,
    };
    Ok((partition, claimed))
}

fn read_position(row: &Row) -> Result<StoredPosition, tokio_postgres::Error> {
    Ok(StoredPosition {
        partition: read_partition(row)?,
        next_offset: row.try_get(2)?,
        epoch: Epoch(row.try_get(3)?),
        topic_id: row.try_get(4)?,
        owner: row.try_get(5)?,
        updated_at: row.try_get(6)?,
    })
}

/// Host and process, for people who look into the table.
fn owner() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname")
        .ok()
        .or_else(|| std::env::var("HOSTNAME").ok())
        .map(|name| name.trim().to_owned())
        .filter(|name| !name.is_empty());
    format!("{}/{}", host.as_deref().unwrap_or("unknown host"), std::process::id())
}
