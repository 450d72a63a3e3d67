//! What went wrong in a call, and whether waiting helps.
//!
//! What a code means: <https://www.postgresql.org/docs/current/errcodes-appendix.html>. PostgreSQL's primary message is
//! repeated only for codes whose messages name things of the database or of the server; messages about data may hold
//! a value (`invalid input syntax for type uuid: "…"`), and DETAIL, CONTEXT and HINT nearly always do: they stay here.

use std::error::Error as _;
use std::io;
use std::time::Duration;

use tokio_postgres::error::{DbError, Severity, SqlState};
use txconnect_connector_api::SinkError;

use crate::tls;

/// Longest text of a server that is repeated in a message, in characters.
const MAX_MESSAGE_CHARACTERS: usize = 300;

/// Classes of SQLSTATE whose primary messages hold no values of rows.
const CLASSES_WITH_PLAIN_MESSAGES: [&str; 14] =
    ["08", "0A", "25", "26", "28", "34", "3D", "3F", "40", "42", "53", "55", "57", "58"];

/// What a failed call means for whoever made it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// The server is away, busy or refuses for a time: another try helps, on a new session.
    Away {
        /// What happened.
        cause: String,
    },
    /// The server refuses a row.
    Data(DataError),
    /// The table is not what it was when the session or the plan was made.
    TableChanged {
        /// What happened.
        cause: String,
    },
    /// Another try gets the same answer.
    Refused {
        /// What happened.
        cause: String,
        /// What the user can do about it.
        hint: String,
    },
}

/// Why the server refuses a row. Holds names of the database and no values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DataError {
    /// The SQLSTATE, five characters.
    pub state: String,
    /// PostgreSQL's name of the condition, for example `not_null_violation`.
    pub condition: &'static str,
    /// What is wrong, in one line of our own words.
    pub message: String,
    /// The column, where the server names one.
    pub column: Option<String>,
    /// The constraint, where the server names one.
    pub constraint: Option<String>,
}

impl Trouble {
    /// What happened, in one line.
    pub fn cause(&self) -> &str {
        match self {
            Self::Away { cause } | Self::TableChanged { cause } | Self::Refused { cause, .. } => cause,
            Self::Data(data) => &data.message,
        }
    }
}

impl From<Trouble> for SinkError {
    /// For calls that bring no rows: a refused value is a mistake that waiting does not mend.
    fn from(trouble: Trouble) -> Self {
        match trouble {
            Trouble::Away { cause } => Self::transient(cause),
            Trouble::Data(data) => Self::fatal(
                format!("PostgreSQL refused a value: {} ({})", data.message, data.state),
                "check the constraints and triggers of the table",
            ),
            Trouble::TableChanged { cause } => Self::fatal(
                cause,
                "the table is looked at anew when the pipeline restarts; if it stays, compare the table with the schema",
            ),
            Trouble::Refused { cause, hint } => Self::fatal(cause, hint),
        }
    }
}

/// A call without the wished answer.
#[derive(Debug, thiserror::Error)]
#[error("{}", self.trouble().cause())]
pub struct CallFailure {
    doing: String,
    reason: FailureReason,
}

#[derive(Debug)]
enum FailureReason {
    Server(tokio_postgres::Error),
    SessionEnded(String),
    TimedOut(Duration),
}

impl CallFailure {
    /// The client library's error; `doing` says what the call was for.
    pub fn server(doing: &str, error: tokio_postgres::Error) -> Self {
        Self { doing: doing.to_owned(), reason: FailureReason::Server(error) }
    }

    pub(crate) fn session_ended(doing: &str, cause: String) -> Self {
        Self { doing: doing.to_owned(), reason: FailureReason::SessionEnded(cause) }
    }

    pub(crate) fn timed_out(doing: &str, after: Duration) -> Self {
        Self { doing: doing.to_owned(), reason: FailureReason::TimedOut(after) }
    }

    /// What the server answered, if it was an error. Its message, detail and context may hold values: for code only.
    pub fn answer(&self) -> Option<&DbError> {
        match &self.reason {
            FailureReason::Server(error) => error.as_db_error(),
            FailureReason::SessionEnded(_) | FailureReason::TimedOut(_) => None,
        }
    }

    /// Whether the server ended the statement and with it the transaction, and the session goes on: nothing of the
    /// transaction was or will be committed. Anything else (a lost connection, a pool that lost its own, a session that
    /// was ended) leaves open what became of statements on their way.
    pub fn is_certain(&self) -> bool {
        self.answer().is_some_and(|answer| {
            // The other severity is in the language of the server, and pools send only that one.
            let is_error = match answer.parsed_severity() {
                Some(severity) => severity == Severity::Error,
                None => answer.severity() == "ERROR",
            };
            is_error && class(answer) != "08"
        })
    }

    /// Whether the server has the named code.
    pub fn is(&self, state: &SqlState) -> bool {
        self.answer().is_some_and(|answer| answer.code() == state)
    }

    /// What the failure means.
    pub fn trouble(&self) -> Trouble {
        match &self.reason {
            FailureReason::Server(error) => classify(error, &self.doing),
            FailureReason::SessionEnded(cause) => {
                Trouble::Away { cause: format!("{}: the connection was lost: {cause}", self.doing) }
            }
            FailureReason::TimedOut(after) => Trouble::Away {
                cause: format!(
                    "{}: PostgreSQL did not answer within {} s",
                    self.doing,
                    after.as_secs_f32().ceil()
                ),
            },
        }
    }
}

impl From<CallFailure> for SinkError {
    fn from(failure: CallFailure) -> Self {
        failure.trouble().into()
    }
}

/// What an error of the client library means; `doing` says what the call was for.
pub fn classify(error: &tokio_postgres::Error, doing: &str) -> Trouble {
    if let Some(answer) = error.as_db_error() {
        return classify_answer(answer, doing);
    }
    if error.is_closed() {
        return Trouble::Away { cause: format!("{doing}: the connection was closed") };
    }
    if let Some((cause, hint)) = tls::cause(error) {
        return Trouble::Refused { cause: format!("{doing}: {cause}"), hint: hint.to_owned() };
    }
    if let Some(io) = error.source().and_then(|source| source.downcast_ref::<io::Error>()) {
        return Trouble::Away { cause: format!("{doing}: {}", io_cause(io)) };
    }
    // What is left is about the client: a password that is asked for and missing, a method nobody speaks.
    let source = error.source().map(|source| format!(": {source}")).unwrap_or_default();
    if source.contains("password missing") {
        return Trouble::Refused {
            cause: format!("{doing}: the server asks for a password and `url` has none"),
            hint: "add the password to `url`, as in postgresql://user:${PG_PASSWORD}@host/database"
                .to_owned(),
        };
    }
    Trouble::Refused {
        cause: format!("{doing}: {error}{}", one_line(&source)),
        hint: "check `url`, and whether the server speaks PostgreSQL's protocol".to_owned(),
    }
}

fn io_cause(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "connection refused: nothing listens there".to_owned(),
        io::ErrorKind::TimedOut => "no answer: the host is down or a firewall drops the packets".to_owned(),
        io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => {
            "the server closed the connection".to_owned()
        }
        io::ErrorKind::NotFound => "no server listens on the socket: it does not exist".to_owned(),
        _ => format!("the connection broke: {error}"),
    }
}

/// The first two characters of the SQLSTATE.
fn class(answer: &DbError) -> &str {
    answer.code().code().get(..2).unwrap_or_default()
}

/// Whether a function of the user raised the error: its code and message can be anything.
fn is_raised(answer: &DbError) -> bool {
    answer.routine() == Some("exec_stmt_raise")
}

fn classify_answer(answer: &DbError, doing: &str) -> Trouble {
    let state = answer.code().code();
    let away = |words: &str| Trouble::Away { cause: format!("{doing}: {words} ({state})") };
    let said = || format!("{doing}: {}", in_plain_words(answer));
    let refused = |hint: &str| Trouble::Refused { cause: said(), hint: hint.to_owned() };
    if is_raised(answer) {
        return data(answer);
    }
    match state {
        "53100" => away("the disk of the PostgreSQL server is full"),
        "53200" => away("the PostgreSQL server is out of memory"),
        "53300" => away("PostgreSQL has no connection left for us: too many are open"),
        "25006" => away("the database is read-only, as after a failover or on a standby"),
        "57P01" => away("the session was ended by an administrator or by a shutdown"),
        "57P02" => away("a crash of the server ended the session"),
        "57P03" => away("the server is starting up or shutting down"),
        "40P01" => away("a deadlock with another transaction was broken"),
        "40001" => away("the transaction could not be serialized with others"),
        "55P03" => away("a lock was not given in time"),
        // Statements vanish or turn up twice where a pool gives another connection to every transaction.
        "26000" | "42P05" => away("the connection pool changed the session in mid-transaction"),
        "42P01" | "42703" | "42704" | "42804" | "42809" | "42P10" | "428C9" | "0A000" | "3F000" | "22P03"
        | "22P04" => Trouble::TableChanged { cause: said() },
        "28P01" => refused("check user and password in `url`"),
        "28000" => refused("check user, database and `sslmode` in `url`, and pg_hba.conf on the server"),
        "3D000" => refused("create the database, or name another one in `url`"),
        "42501" => refused(
            "grant the role of `url` what it needs: USAGE and CREATE on the schema, SELECT, INSERT, UPDATE and DELETE on the tables",
        ),
        // A row that is too large for its index; a trigger that refuses it; a row that a view may not hold.
        "54000" | "44000" => data(answer),
        _ => match class(answer) {
            "22" | "23" | "P0" => data(answer),
            "08" | "25" | "40" | "53" | "57" | "58" => Trouble::Away { cause: said() },
            "55" if state != "55000" => Trouble::Away { cause: said() },
            "28" => refused("check user, database and `sslmode` in `url`"),
            _ => refused("PostgreSQL will refuse the same again: its log says more"),
        },
    }
}

/// The server's answer without anything that may be a value.
fn in_plain_words(answer: &DbError) -> String {
    let state = answer.code().code();
    if CLASSES_WITH_PLAIN_MESSAGES.contains(&class(answer)) {
        format!("PostgreSQL answered {state}: {}", one_line(answer.message()))
    } else {
        format!("PostgreSQL answered {state}")
    }
}

pub(crate) fn one_line(text: &str) -> String {
    text.chars()
        .take(MAX_MESSAGE_CHARACTERS)
        .map(|character| if character.is_control() { ' ' } else { character })
        .collect()
}

fn data(answer: &DbError) -> Trouble {
    let state = answer.code().code();
    let column = answer.column().map(one_line);
    let constraint = answer.constraint().map(one_line);
    let named = |name: &Option<String>| name.as_ref().map(|name| format!(" `{name}`")).unwrap_or_default();
    let (condition, words) = match state {
        _ if is_raised(answer) => ("raise_exception", "a trigger of the table refused the row".to_owned()),
        "23502" => ("not_null_violation", format!("column{} may not be NULL", named(&column))),
        "23503" => (
            "foreign_key_violation",
            format!("the row that the foreign key{} points to does not exist", named(&constraint)),
        ),
        "23505" => (
            "unique_violation",
            format!("a row with this key exists already: constraint{}", named(&constraint)),
        ),
        // A row that no partition takes is a check violation without a constraint.
        "23514" if constraint.is_none() => {
            ("check_violation", "the table has no partition for the row".to_owned())
        }
        "23514" => ("check_violation", format!("the check{} says no", named(&constraint))),
        "23P01" => ("exclusion_violation", format!("the exclusion constraint{} says no", named(&constraint))),
        "23001" => ("restrict_violation", "another row still points to it".to_owned()),
        "44000" => ("with_check_option_violation", "the view may not hold the row".to_owned()),
        "54000" => ("program_limit_exceeded", "the row or one of its keys is too large".to_owned()),
        "22001" => ("string_data_right_truncation", "a text is too long for its column".to_owned()),
        "22003" => ("numeric_value_out_of_range", "a number is out of its column's range".to_owned()),
        "22007" => ("invalid_datetime_format", "a date or time is malformed".to_owned()),
        "22008" => ("datetime_field_overflow", "a date or time is out of range".to_owned()),
        "22012" => ("division_by_zero", "an expression of the table divides by zero".to_owned()),
        "22021" => (
            "character_not_in_repertoire",
            "a text holds a character that the database cannot store".to_owned(),
        ),
        "22023" => ("invalid_parameter_value", "a value is not allowed".to_owned()),
        "22P02" => ("invalid_text_representation", "a value is not of its column's type".to_owned()),
        "22P05" => {
            ("untranslatable_character", "a text holds a character that the database cannot store".to_owned())
        }
        "22030" => ("duplicate_json_object_key_value", "a JSON object names a member twice".to_owned()),
        "22032" => ("invalid_json_text", "a JSON text is malformed".to_owned()),
        _ if state.starts_with("23") => {
            ("integrity_constraint_violation", format!("the constraint{} says no", named(&constraint)))
        }
        _ if state.starts_with("P0") => ("plpgsql_error", "a trigger of the table failed".to_owned()),
        _ => ("data_exception", "PostgreSQL does not take a value of the row".to_owned()),
    };
    let message = match &column {
        Some(column) if !words.contains(column.as_str()) => format!("{words} (column `{column}`)"),
        _ => words,
    };
    Trouble::Data(DataError { state: state.to_owned(), condition, message, column, constraint })
}
