//! Who holds a lock that we wait for, and the end of sessions that will not go on by themselves.
//!
//! A process that was stopped (SIGSTOP, a frozen machine) keeps its transaction open, and PostgreSQL has no time-out for
//! a client that falls silent in mid-COPY. Whatever it holds, keys of rows it has copied or the position of a partition,
//! would block its successor for ever. So whoever waits for long looks with a second session at who is in the way.
//! A session of the same pipeline and role that does nothing but wait for its client at two looks, and has not moved in
//! between, is ended: its transaction rolls back, and its owner, should it wake up, starts from where the successor is.
//! Sessions of others are never ended; they are named.

use std::convert::Infallible;
use std::future::Future;
use std::pin::pin;
use std::time::Duration;

use tokio::select;
use tokio::time::sleep;
use tokio_postgres::types::Type;
use tracing::{debug, warn};

use crate::connect::{Connector, Session};
use crate::error::{CallFailure, one_line};
use crate::session::Parameter;

/// How long is waited before the first look.
const PATIENCE: Duration = Duration::from_secs(3);

/// How far the looks are apart.
const BETWEEN_LOOKS: Duration = Duration::from_secs(1);

/// The sessions that block the process $1. `trace` differs as soon as the session has done anything at all.
///
/// `pg_stat_progress_copy` shows a COPY that goes on slowly; it exists from PostgreSQL 14 on.
const LOOK: &str = "\
    SELECT blocker.pid, other.application_name, \
        coalesce(other.application_name = own.application_name AND other.usesysid = own.usesysid \
            AND other.datid = own.datid AND other.wait_event = 'ClientRead', false) AS stopped, \
        concat_ws('/', extract(epoch FROM other.backend_start), extract(epoch FROM other.xact_start), \
            extract(epoch FROM other.state_change) {progress}) AS trace \
    FROM unnest(pg_blocking_pids($1)) AS blocker (pid) \
    LEFT JOIN pg_stat_activity AS other ON other.pid = blocker.pid \
    LEFT JOIN pg_stat_activity AS own ON own.pid = $1 {join} \
    ORDER BY blocker.pid";

/// Looks after calls that may have to wait for locks.
#[derive(Clone, Debug)]
pub struct Watchdog {
    connector: Connector,
    patience: Duration,
}

/// What came of a call that was looked after.
#[derive(Debug)]
pub struct Watched<T> {
    /// What the call returned.
    pub outcome: T,
    /// Who was in the way when it was last looked, for messages: `session 4711 of psql`. `None` where nobody was.
    pub waited_for: Option<String>,
}

/// A session that is in the way.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Blocker {
    pid: i32,
    application_name: Option<String>,
    /// One of ours that waits for its client.
    stopped: bool,
    trace: String,
}

impl std::fmt::Display for Blocker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (self.pid, &self.application_name) {
            (0, _) => f.write_str("a prepared transaction (see pg_prepared_xacts)"),
            (pid, Some(name)) if !name.is_empty() => write!(f, "session {pid} of `{}`", one_line(name)),
            (pid, _) => write!(f, "session {pid}"),
        }
    }
}

impl Watchdog {
    /// A watchdog with the usual patience: the first look comes after 3 seconds.
    pub fn new(connector: Connector) -> Self {
        Self { connector, patience: PATIENCE }
    }

    /// Waits `patience` before the first look.
    #[must_use]
    pub fn with_patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// Runs `call`, a statement of the server's process `pid` in a transaction of a session named `application_name`.
    ///
    /// `pid` is to be asked for in that very transaction ([`Session::begin`] does): behind a pool another process runs the
    /// next one. The call is never cut short here, and has a deadline of its own; where lookouts fail it just goes on.
    pub async fn watch<T>(
        &self,
        pid: i32,
        application_name: &str,
        call: impl Future<Output = T>,
    ) -> Watched<T> {
        let mut call = pin!(call);
        select! {
            biased;
            outcome = &mut call => return Watched { outcome, waited_for: None },
            () = sleep(self.patience) => {}
        }
        let mut waited_for = None;
        let outcome = {
            let lookout = pin!(self.look_out(pid, application_name, &mut waited_for));
            select! {
                biased;
                outcome = &mut call => outcome,
                never = lookout => match never {},
            }
        };
        Watched { outcome, waited_for }
    }

    /// Looks until it is stopped.
    async fn look_out(
        &self,
        pid: i32,
        application_name: &str,
        waited_for: &mut Option<String>,
    ) -> Infallible {
        let mut session: Option<Session> = None;
        let mut seen: Vec<Blocker> = Vec::new();
        loop {
            let open = match session.take().filter(|session| !session.is_closed()) {
                Some(open) => open,
                None => match self.connector.connect(application_name).await {
                    Ok(open) => open,
                    Err(error) => {
                        debug!(%error, "cannot look who holds the lock that is waited for");
                        sleep(self.patience).await;
                        continue;
                    }
                },
            };
            match look(&open, pid).await {
                Ok(blockers) => {
                    for blocker in blockers.iter().filter(|blocker| blocker.stopped && seen.contains(blocker))
                    {
                        end(&open, pid, blocker).await;
                    }
                    *waited_for = list(&blockers);
                    seen = blockers;
                }
                Err(error) => debug!(%error, "cannot see who holds the lock that is waited for"),
            }
            session = Some(open);
            sleep(BETWEEN_LOOKS).await;
        }
    }
}

fn list(blockers: &[Blocker]) -> Option<String> {
    let names: Vec<String> = blockers.iter().map(Blocker::to_string).collect();
    (!names.is_empty()).then(|| names.join(", "))
}

async fn look(session: &Session, pid: i32) -> Result<Vec<Blocker>, CallFailure> {
    let (progress, join) = if session.shows_copy_progress() {
        (
            ", progress.bytes_processed",
            "LEFT JOIN pg_stat_progress_copy AS progress ON progress.pid = blocker.pid",
        )
    } else {
        ("", "")
    };
    let statement = LOOK.replace("{progress}", progress).replace("{join}", join);
    let doing = "looking who holds a lock";
    let rows = session.within(doing, session.client().query_typed(&statement, &[(&pid, Type::INT4)])).await?;
    rows.iter()
        .map(|row| {
            Ok(Blocker {
                pid: row.try_get(0)?,
                application_name: row.try_get(1)?,
                stopped: row.try_get(2)?,
                trace: row.try_get(3)?,
            })
        })
        .collect::<Result<_, tokio_postgres::Error>>()
        .map_err(|error| session.failure(doing, error))
}

/// Ends a stopped session, if it still blocks and is still as it was seen.
async fn end(session: &Session, pid: i32, blocker: &Blocker) {
    // The process may have gone on, or be somebody else's by now: the statement that ends it looks once more.
    let statement = "SELECT pg_terminate_backend(other.pid) FROM pg_stat_activity AS other \
        WHERE other.pid = $2 AND other.pid = ANY (pg_blocking_pids($1)) AND other.wait_event = 'ClientRead' \
        AND concat_ws('/', extract(epoch FROM other.backend_start), extract(epoch FROM other.xact_start), \
            extract(epoch FROM other.state_change)) = $3";
    let trace: String = blocker.trace.split('/').take(3).collect::<Vec<_>>().join("/");
    let parameters: [Parameter<'_>; 3] =
        [(&pid, Type::INT4), (&blocker.pid, Type::INT4), (&trace, Type::TEXT)];
    match session
        .within("ending a stopped session", session.client().query_typed(statement, &parameters))
        .await
    {
        Ok(rows) if !rows.is_empty() => {
            warn!(
                pid = blocker.pid,
                "ended a session of this pipeline that was stopped in mid-transaction and held a lock that is waited for"
            );
        }
        Ok(_) => {}
        Err(error) => warn!(pid = blocker.pid, %error, "cannot end a stopped session of this pipeline"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blockers_are_named_by_process_and_application() {
        let blocker = |pid, name: Option<&str>| Blocker {
            pid,
            application_name: name.map(str::to_owned),
            stopped: false,
            trace: String::new(),
        };
        let blockers = [blocker(7, Some("psql")), blocker(8, Some("")), blocker(9, None), blocker(0, None)];
        let expected =
            "session 7 of `psql`, session 8, session 9, a prepared transaction (see pg_prepared_xacts)";
        assert_eq!(list(&blockers).as_deref(), Some(expected));
        assert_eq!(list(&[]), None);
    }
}
