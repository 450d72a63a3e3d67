//! Where the rows go: a local BigQuery in a process of its own, a PostgreSQL behind a proxy, or the standard outputs of
//! the members.
//!
//! What arrived is a list of streams, one per table or per process. All but those of PostgreSQL are in the order of
//! arrival.

pub(crate) mod bigquery;
pub(crate) mod pipes;
pub(crate) mod postgres;

use std::time::Duration;

pub(crate) use bigquery::{BigQuery, WriteStream};
pub(crate) use pipes::Pipes;
pub(crate) use postgres::Postgres;

use crate::kafka::{Partition, Positions};
use crate::process::Signal;
use crate::records::Kind;

/// For calls to a server.
const DEADLINE: Duration = Duration::from_secs(30);

/// One row as it arrived.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Row {
    pub(crate) id: u64,
    /// Where the row says that it came from, where it does.
    pub(crate) place: Option<(Partition, i64)>,
    /// Whether it holds exactly what the record held.
    pub(crate) intact: bool,
}

/// How far each stream had come at some moment.
pub(crate) type Mark = Vec<usize>;

/// What arrived.
#[derive(Default)]
pub(crate) struct Arrived {
    pub(crate) streams: Vec<Vec<Row>>,
    /// What should not be there at all.
    pub(crate) strange: Vec<String>,
    /// The positions that are kept beside the rows, where any are.
    pub(crate) positions: Option<Positions>,
    /// The write streams that there were, where rows come by such.
    pub(crate) write_streams: Vec<WriteStream>,
}

/// One of them.
pub(crate) enum Sink {
    BigQuery(BigQuery),
    Pipes(Pipes),
    Postgres(Postgres),
}

impl Sink {
    /// Whether a record of this kind becomes a row.
    pub(crate) fn takes(&self, kind: Kind) -> bool {
        match kind {
            Kind::Good => true,
            Kind::Refused => !self.refuses(kind),
            Kind::Tombstone => matches!(self, Self::Pipes(_)),
            Kind::Broken | Kind::WrongType => false,
        }
    }

    /// Whether a record of this kind becomes a dead letter.
    pub(crate) fn refuses(&self, kind: Kind) -> bool {
        match kind {
            Kind::Broken | Kind::WrongType => true,
            Kind::Refused => match self {
                Self::BigQuery(_) => true,
                Self::Postgres(postgres) => postgres.checks_rows(),
                Self::Pipes(_) => false,
            },
            Kind::Good | Kind::Tombstone => false,
        }
    }

    /// Whether it takes nothing from now on.
    pub(crate) fn stop(&self, stopped: bool) {
        match self {
            Self::BigQuery(server) => server.signal(if stopped { Signal::Stop } else { Signal::Continue }),
            Self::Pipes(pipes) => pipes.pause(stopped),
            Self::Postgres(postgres) => postgres.proxy.freeze(stopped),
        }
    }

    pub(crate) fn mark(&self) -> Mark {
        match self {
            Self::BigQuery(server) => server.mark(),
            Self::Pipes(pipes) => pipes.mark(),
            // Tables are in no order that says how far they had come.
            Self::Postgres(_) => Mark::new(),
        }
    }

    /// Everything that arrived; the members have ended.
    pub(crate) fn arrived(&mut self) -> Arrived {
        match self {
            Self::BigQuery(server) => server.arrived(),
            Self::Pipes(pipes) => pipes.arrived(),
            Self::Postgres(postgres) => postgres.arrived(),
        }
    }
}
