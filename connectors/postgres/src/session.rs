//! One session with the server: every call has a deadline, and a session in doubt is not used again.

use std::future::{Future, poll_fn};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_postgres::tls::MakeTlsConnect;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, Connection, SimpleQueryMessage, Socket};
use tokio_postgres_rustls::MakeRustlsConnect;
use tracing::debug;

use crate::error::{CallFailure, Trouble, classify};

type Stream = <MakeRustlsConnect as MakeTlsConnect<Socket>>::Stream;

/// A parameter of a statement, with its type: statements without names are sent with the types of their parameters.
pub(crate) type Parameter<'a> = (&'a (dyn ToSql + Sync), Type);

/// The oldest server with what is relied on.
const OLDEST_VERSION: u32 = 12;

/// The first server that shows how far a COPY is.
const FIRST_WITH_COPY_PROGRESS: u32 = 14;

/// The part of a call's time-out after which a lock is given up.
const LOCK_PATIENCE: f32 = 0.8;

/// How long the server is asked to give up a statement that was not waited for.
const CANCEL_TIMEOUT: Duration = Duration::from_secs(5);

/// How a session is opened.
pub(crate) struct Opening {
    pub(crate) host: String,
    pub(crate) application_name: String,
    pub(crate) timeout: Duration,
    pub(crate) tls: MakeRustlsConnect,
}

/// A connection to the server with the task that drives it, which ends with the session.
///
/// Only statements without names are sent through it, so that it works behind a pool that gives every transaction
/// another connection (transaction mode of `PgBouncer`).
pub struct Session {
    client: Client,
    driver: JoinHandle<()>,
    ended_by: Arc<OnceLock<String>>,
    opening: Opening,
    shows_copy_progress: bool,
}

/// A transaction that was begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Begun {
    /// The server's process that runs it. Behind a pool this is not the process of the connection, and it is known only
    /// until the transaction ends.
    pub pid: i32,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session")
            .field("host", &self.opening.host)
            .field("closed", &self.is_closed())
            .finish_non_exhaustive()
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// Drives the connection and looks at the server: one that is too old, only like PostgreSQL, or read-only is refused.
pub(crate) async fn open(
    client: Client,
    connection: Connection<Socket, Stream>,
    opening: Opening,
) -> Result<Session, Trouble> {
    let version = connection.parameter("server_version").unwrap_or_default().to_owned();
    let ended_by = Arc::new(OnceLock::new());
    let driver = tokio::spawn(drive(connection, Arc::clone(&ended_by)));
    let shows_copy_progress = digits(&version).is_some_and(|major| major >= FIRST_WITH_COPY_PROGRESS);
    let session = Session { client, driver, ended_by, opening, shows_copy_progress };
    let host = &session.opening.host;
    let failed = |error: &tokio_postgres::Error| classify(error, host);

    let described = first_row(&session.client, "SELECT version()").await.map_err(|error| failed(&error))?;
    if let Some(cause) = unfit(&version, described.first().map_or("", String::as_str)) {
        let hint = format!("use PostgreSQL {OLDEST_VERSION} or newer");
        return Err(Trouble::Refused { cause: format!("{host}: {cause}"), hint });
    }
    let state =
        first_row(&session.client, "SELECT pg_is_in_recovery(), current_setting('transaction_read_only')")
            .await
            .map_err(|error| failed(&error))?;
    match (state.first().map(String::as_str), state.get(1).map(String::as_str)) {
        (Some("t"), _) => {
            Err(Trouble::Away { cause: format!("{host}: the server is a standby and takes no writes") })
        }
        (_, Some("on")) => Err(Trouble::Away {
            cause: format!("{host}: the database or the role is read-only (default_transaction_read_only)"),
        }),
        _ => Ok(session),
    }
}

/// The values of the first row of a statement that is sent without parameters.
async fn first_row(client: &Client, statement: &str) -> Result<Vec<String>, tokio_postgres::Error> {
    let messages = client.simple_query(statement).await?;
    let row = messages.into_iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some(row),
        _ => None,
    });
    let Some(row) = row else { return Ok(Vec::new()) };
    Ok((0..row.len()).map(|index| row.get(index).unwrap_or_default().to_owned()).collect())
}

/// Why this is no server for us: `version` as it is announced, `described` as `version()` says it.
fn unfit(version: &str, described: &str) -> Option<String> {
    if described.contains("Redshift") {
        return Some(
            "this is Amazon Redshift, which speaks PostgreSQL's protocol but has neither COPY FROM STDIN nor ON CONFLICT"
                .to_owned(),
        );
    }
    let major = digits(version).or_else(|| digits(described.split(' ').nth(1).unwrap_or_default()));
    match major {
        Some(major) if major >= OLDEST_VERSION => None,
        Some(major) => Some(format!("the server is PostgreSQL {major}, which is too old")),
        None => Some("the server does not say which version of PostgreSQL it is".to_owned()),
    }
}

/// The number that `text` begins with.
fn digits(text: &str) -> Option<u32> {
    let end = text.find(|character: char| !character.is_ascii_digit()).unwrap_or(text.len());
    text[..end].parse().ok()
}

/// Moves bytes between the client and the socket until either is gone. Notices may hold values: they are dropped.
async fn drive(mut connection: Connection<Socket, Stream>, ended_by: Arc<OnceLock<String>>) {
    let end = loop {
        match poll_fn(|context| connection.poll_message(context)).await {
            Some(Ok(_)) => {}
            Some(Err(error)) => break Some(error),
            None => break None,
        }
    };
    if let Some(error) = end {
        let cause = classify(&error, "the session ended").cause().to_owned();
        debug!(cause, "a PostgreSQL session ended");
        // Before the connection is dropped: whoever waits for an answer then looks here.
        let _ = ended_by.set(cause);
    }
}

impl Session {
    /// The client library's handle. Calls through it are to be made in [`Self::within`].
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// How long one call may take.
    pub fn timeout(&self) -> Duration {
        self.opening.timeout
    }

    /// The `lock_timeout` of transactions, in milliseconds: locks are given up before the call is, so that the server says
    /// so before we stop waiting.
    pub(crate) fn lock_timeout(&self) -> u128 {
        self.timeout().mul_f32(LOCK_PATIENCE).as_millis().max(1)
    }

    /// The name under which the server lists the session.
    pub fn application_name(&self) -> &str {
        &self.opening.application_name
    }

    /// Whether the connection is gone.
    pub fn is_closed(&self) -> bool {
        self.client.is_closed() || self.driver.is_finished()
    }

    /// Whether the server has the view `pg_stat_progress_copy`.
    pub(crate) fn shows_copy_progress(&self) -> bool {
        self.shows_copy_progress
    }

    /// Runs a call within the time-out; `doing` says what it is for. On a time-out the session is over.
    pub async fn within<T>(
        &self,
        doing: &str,
        call: impl Future<Output = Result<T, tokio_postgres::Error>>,
    ) -> Result<T, CallFailure> {
        match timeout(self.opening.timeout, call).await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) => Err(self.failure(doing, error)),
            Err(_) => {
                self.give_up();
                Err(CallFailure::timed_out(doing, self.opening.timeout))
            }
        }
    }

    /// An error of the client library, with what is known about the end of the session.
    pub fn failure(&self, doing: &str, error: tokio_postgres::Error) -> CallFailure {
        match self.ended_by.get() {
            Some(cause) if error.is_closed() => CallFailure::session_ended(doing, cause.clone()),
            _ => CallFailure::server(doing, error),
        }
    }

    /// Begins a transaction, in one round trip. `settings` are further statements, each with its semicolon: `SET LOCAL
    /// lock_timeout = 1000;`.
    ///
    /// Read committed whatever the database's default is: a guarded UPDATE that waited must see what it waited for.
    pub async fn begin(&self, settings: &str) -> Result<Begun, CallFailure> {
        let doing = "beginning a transaction";
        let statements =
            format!("BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE; {settings} SELECT pg_backend_pid()");
        let row = self.within(doing, first_row(&self.client, &statements)).await?;
        let pid = row.first().and_then(|pid| pid.parse().ok());
        Ok(Begun { pid: pid.unwrap_or_default() })
    }

    /// Rolls the transaction back. `false`: the session is over.
    pub async fn roll_back(&self) -> bool {
        let rolled_back = self.within("rolling back", self.client.batch_execute("ROLLBACK")).await.is_ok();
        if !rolled_back {
            self.give_up();
        }
        rolled_back
    }

    /// Ends the session at once and asks the server to give up what it still does for it.
    pub fn give_up(&self) {
        if self.driver.is_finished() {
            return;
        }
        self.driver.abort();
        let (token, tls) = (self.client.cancel_token(), self.opening.tls.clone());
        let host = self.opening.host.clone();
        tokio::spawn(async move {
            if !matches!(timeout(CANCEL_TIMEOUT, token.cancel_query(tls)).await, Ok(Ok(()))) {
                debug!(host, "a statement could not be cancelled");
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_that_cannot_do_it_are_told_apart() {
        assert_eq!(unfit("15.18 (Debian 15.18-0)", "PostgreSQL 15.18 (Debian) on x86_64"), None);
        assert_eq!(unfit("12", "PostgreSQL 12 on x86_64"), None);
        assert_eq!(unfit("", "PostgreSQL 17beta1 on x86_64"), None);
        assert!(unfit("11.22", "PostgreSQL 11.22 on x86_64").unwrap().contains("PostgreSQL 11"));
        let redshift =
            "PostgreSQL 8.0.2 on i686-pc-linux-gnu, compiled by GCC gcc (GCC) 3.4.2, Redshift 1.0.54052";
        assert!(unfit("8.0.2", redshift).unwrap().contains("Amazon Redshift"));
        assert!(unfit("", "").is_some());
    }
}
