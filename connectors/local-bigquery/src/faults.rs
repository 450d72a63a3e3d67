//! Scripted faults: what goes wrong, on which call, how often.

use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use crate::error::ApiError;
use crate::store::TableName;

/// A method of the interface, named as in BigQuery's reference.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Method {
    /// `datasets.get`
    #[serde(rename = "datasets.get")]
    DatasetsGet,
    /// `datasets.list`
    #[serde(rename = "datasets.list")]
    DatasetsList,
    /// `datasets.insert`
    #[serde(rename = "datasets.insert")]
    DatasetsInsert,
    /// `datasets.delete`
    #[serde(rename = "datasets.delete")]
    DatasetsDelete,
    /// `tables.get`
    #[serde(rename = "tables.get")]
    TablesGet,
    /// `tables.list`
    #[serde(rename = "tables.list")]
    TablesList,
    /// `tables.insert`
    #[serde(rename = "tables.insert")]
    TablesInsert,
    /// `tables.patch`
    #[serde(rename = "tables.patch")]
    TablesPatch,
    /// `tables.update`
    #[serde(rename = "tables.update")]
    TablesUpdate,
    /// `tables.delete`
    #[serde(rename = "tables.delete")]
    TablesDelete,
    /// `tabledata.insertAll`
    #[serde(rename = "tabledata.insertAll")]
    InsertAll,
    /// `tabledata.list`
    #[serde(rename = "tabledata.list")]
    TabledataList,
    /// `jobs.query`
    #[serde(rename = "jobs.query")]
    JobsQuery,
    /// `jobs.insert`
    #[serde(rename = "jobs.insert")]
    JobsInsert,
    /// `jobs.getQueryResults`
    #[serde(rename = "jobs.getQueryResults")]
    JobsGetQueryResults,
    /// `BigQueryWrite.CreateWriteStream`
    CreateWriteStream,
    /// `BigQueryWrite.AppendRows`; every request of a connection counts as a call.
    AppendRows,
    /// `BigQueryWrite.GetWriteStream`
    GetWriteStream,
    /// `BigQueryWrite.FinalizeWriteStream`
    FinalizeWriteStream,
    /// `BigQueryWrite.BatchCommitWriteStreams`
    BatchCommitWriteStreams,
    /// `BigQueryWrite.FlushRows`
    FlushRows,
}

/// Why a script of faults cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ScriptError {
    /// The text is no JSON, or no fault.
    #[error("not a fault or a list of faults: {0}; a fault is {{\"method\": …, \"what\": …}}")]
    Shape(#[from] serde_json::Error),
    /// The status is not that of an error.
    #[error("a fault's status must be 400 to 599, not {0}")]
    Status(u16),
    /// The chance is no probability.
    #[error("a fault's chance must be above 0 and at most 1, not {0}")]
    Chance(f64),
}

/// One scripted fault.
///
/// As JSON: `{"method": "tabledata.insertAll", "table": "orders", "what": {"error": {"status": 503, "reason":
/// "backendError", "message": "try later"}}, "times": 2, "after": 1}`.
///
/// Of the faults that end a call ([`What::ReplyLost`], [`What::Cut`], [`What::Error`], [`What::Html`], [`What::Quota`],
/// [`What::Status`], [`What::StreamClosed`]) the first that matches in the order of the script applies, so that a script reads as a sequence.
/// The others add up, and are not used up by a call that an earlier fault answers before it reaches the store.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    /// The method it strikes.
    pub method: Method,
    /// The table it strikes, as `table` or `dataset.table`; absent: every call of the method.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub table: Option<String>,
    /// What goes wrong.
    pub what: What,
    /// How many calls it strikes; absent: every one until the faults are cleared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub times: Option<u32>,
    /// How many matching calls pass before the first one is struck.
    #[serde(default)]
    pub after: u32,
    /// The probability with which it strikes a call that it could strike, above 0 and at most 1; absent: always.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chance: Option<f64>,
    /// Where the chances begin: the same seed gives the same sequence of calls that are struck.
    #[serde(default)]
    pub seed: u64,
}

impl Fault {
    /// A fault that strikes every call of a method.
    pub fn new(method: Method, what: What) -> Fault {
        Fault { method, table: None, what, times: None, after: 0, chance: None, seed: 0 }
    }

    /// Strikes only the next `times` matching calls.
    #[must_use]
    pub fn times(self, times: u32) -> Fault {
        Fault { times: Some(times), ..self }
    }

    /// Lets `after` matching calls pass first.
    #[must_use]
    pub fn after(self, after: u32) -> Fault {
        Fault { after, ..self }
    }

    /// Strikes only calls for this table, given as `table` or `dataset.table`.
    #[must_use]
    pub fn table(self, table: &str) -> Fault {
        Fault { table: Some(table.to_owned()), ..self }
    }

    /// Strikes a call that it could strike only with a probability; the seed decides which.
    #[must_use]
    pub fn chance(self, chance: f64, seed: u64) -> Fault {
        Fault { chance: Some(chance), seed, ..self }
    }

    /// Reads a script: one fault or a list of them, as JSON.
    ///
    /// # Errors
    /// [`ScriptError`] where the text is no such JSON, a status is none of an error or a chance is no probability.
    pub fn parse_script(json: &[u8]) -> Result<Vec<Fault>, ScriptError> {
        let script: Json = serde_json::from_slice(json)?;
        let faults: Vec<Fault> = match script {
            Json::Array(faults) => {
                faults.into_iter().map(serde_json::from_value).collect::<Result<_, _>>()?
            }
            fault => vec![serde_json::from_value(fault)?],
        };
        for fault in &faults {
            if let What::Error { status, .. } | What::Html { status } = fault.what
                && !(400..=599).contains(&status)
            {
                return Err(ScriptError::Status(status));
            }
            if let Some(chance) = fault.chance
                && !(chance > 0.0 && chance <= 1.0)
            {
                return Err(ScriptError::Chance(chance));
            }
        }
        Ok(faults)
    }

    /// Whether chance lets it strike now; every question moves the sequence on.
    fn comes_up(&mut self) -> bool {
        let Some(chance) = self.chance else {
            return true;
        };
        self.seed = self.seed.wrapping_add(0x9E37_79B9_7F4A_7C15);
        // 53 bits are what a float holds exactly.
        let drawn = (scrambled(self.seed) >> 11) as f64 / (1_u64 << 53) as f64;
        drawn < chance
    }

    fn matches(&self, method: Method, table: Option<&TableName>) -> bool {
        self.method == method
            && match (&self.table, table) {
                (None, _) => true,
                (Some(wanted), Some(name)) => name.is_called(wanted),
                (Some(_), None) => false,
            }
    }
}

/// Numbers that look drawn at random, one for each input (the finisher of `SplitMix64`).
fn scrambled(mut number: u64) -> u64 {
    number = (number ^ (number >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    number = (number ^ (number >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    number ^ (number >> 31)
}

/// What goes wrong.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
#[non_exhaustive]
pub enum What {
    /// The call is carried out, then the connection closes without an answer. A gRPC call ends as UNAVAILABLE instead.
    ReplyLost,
    /// The connection closes without an answer, and nothing is carried out.
    Cut,
    /// An error document instead of carrying the call out.
    Error {
        /// The HTTP status, 400 to 599.
        status: u16,
        /// BigQuery's reason, as `backendError`.
        reason: String,
        /// The message.
        message: String,
        /// Seconds for a `Retry-After` header.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        retry_after: Option<u32>,
    },
    /// A proxy's HTML page instead of carrying the call out.
    Html {
        /// The HTTP status, 400 to 599.
        status: u16,
    },
    /// Status 403 as for an exhausted quota; `RESOURCE_EXHAUSTED` of a gRPC call.
    Quota {
        /// Which of the two quotas.
        reason: QuotaReason,
    },
    /// The call is carried out after a pause.
    Slow {
        /// The pause in milliseconds.
        ms: u64,
    },
    /// The answer is held back, in the order of the requests, while the call is carried out at once. gRPC only.
    LateReply {
        /// The pause in milliseconds.
        ms: u64,
    },
    /// A gRPC status instead of carrying the call out.
    Status {
        /// The status code.
        code: StatusCode,
        /// The message.
        message: String,
        /// Of `AppendRows`: the status stands in an answer, and the connection goes on.
        #[serde(default)]
        in_band: bool,
    },
    /// `AppendRows` ends as ABORTED before the request is carried out, as BigQuery closes connections in normal operation.
    StreamClosed {
        /// What BigQuery says of it.
        because: Closing,
    },
    /// `AppendRows` ends with what would have been an error in an answer: BigQuery does either.
    ErrorsEndConnection,
    /// The table or stream is not found until it is this old: creating them takes a while to reach every server.
    NotFoundAfterCreate {
        /// The age in milliseconds.
        ms: u64,
    },
    /// Columns added to the table are unknown until the change is this old.
    SchemaLag {
        /// The age in milliseconds.
        ms: u64,
    },
    /// insertAll does not take these rows, for a reason that is not their content; the others go in. `AppendRows` takes
    /// none then, and names these.
    RowErrors {
        /// The rows' indices in the request.
        rows: Vec<usize>,
        /// The reason, as `backendError`, `timeout` or `internalError`; of `AppendRows` the message.
        reason: String,
    },
    /// Rows are found invalid in which a field has this value: of insertAll as it was sent, of `AppendRows` as
    /// [`LocalBigQuery::rows`](crate::LocalBigQuery::rows) would show it.
    RejectValue {
        /// A top-level field.
        field: String,
        /// The value.
        value: Json,
    },
}

/// Which quota is exhausted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum QuotaReason {
    /// A quota over a longer time: documented as worth at least ten minutes of waiting.
    QuotaExceeded,
    /// Too many requests in a short time.
    RateLimitExceeded,
}

/// Why BigQuery closes an `AppendRows` connection in normal operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Closing {
    /// The server is restarted.
    Restart,
    /// Nothing was sent for a while.
    Inactivity,
}

impl Closing {
    /// BigQuery's sentence.
    pub(crate) fn message(self) -> &'static str {
        match self {
            Closing::Restart => {
                "Closing the stream because server is restarted. This is expected and client is advised to reconnect."
            }
            Closing::Inactivity => "Closing the stream because it has been inactive for 600 seconds.",
        }
    }
}

/// A gRPC status code that is an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[allow(missing_docs, reason = "the names are gRPC's own")]
pub enum StatusCode {
    Cancelled = 1,
    Unknown = 2,
    InvalidArgument = 3,
    DeadlineExceeded = 4,
    NotFound = 5,
    AlreadyExists = 6,
    PermissionDenied = 7,
    ResourceExhausted = 8,
    FailedPrecondition = 9,
    Aborted = 10,
    OutOfRange = 11,
    Unimplemented = 12,
    Internal = 13,
    Unavailable = 14,
    DataLoss = 15,
    Unauthenticated = 16,
}

impl StatusCode {
    /// gRPC's number for it.
    pub(crate) fn number(self) -> i32 {
        self as i32
    }
}

/// What the script has for one call.
#[derive(Debug, Default)]
pub(crate) struct Verdict {
    /// How the call ends, when it does not end as it should.
    pub(crate) end: Option<End>,
    /// What else strikes it.
    pub(crate) conditions: Conditions,
}

/// A call's scripted end.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum End {
    ReplyLost,
    Cut,
    Refused(ApiError),
    Html(u16),
    Status { code: StatusCode, message: String, in_band: bool },
}

/// What strikes a call that is carried out.
#[derive(Debug, Default, Clone, PartialEq)]
pub(crate) struct Conditions {
    pub(crate) delay_ms: u64,
    pub(crate) late_reply_ms: u64,
    pub(crate) errors_end_connection: bool,
    pub(crate) not_found_until_ms: u64,
    pub(crate) schema_lag_ms: u64,
    /// Rows not taken, with the reason.
    pub(crate) row_errors: Vec<(usize, String)>,
    /// Fields with the value that makes a row invalid.
    pub(crate) rejected_values: Vec<(String, Json)>,
}

/// The faults that are left.
#[derive(Debug, Default)]
pub(crate) struct Script {
    faults: Vec<Fault>,
}

impl Script {
    pub(crate) fn new(faults: Vec<Fault>) -> Script {
        Script { faults }
    }

    pub(crate) fn add(&mut self, fault: Fault) {
        self.faults.push(fault);
    }

    pub(crate) fn clear(&mut self) {
        self.faults.clear();
    }

    pub(crate) fn left(&self) -> &[Fault] {
        &self.faults
    }

    /// What strikes the next call of a method; uses up what strikes.
    pub(crate) fn strike(&mut self, method: Method, table: Option<&TableName>) -> Verdict {
        let mut verdict = Verdict::default();
        let mut waiting: Vec<bool> = Vec::with_capacity(self.faults.len());
        for fault in &mut self.faults {
            let matches = fault.matches(method, table);
            waiting.push(matches && fault.after == 0);
            fault.after = fault.after.saturating_sub(u32::from(matches));
        }
        for (fault, ready) in self.faults.iter_mut().zip(&waiting) {
            if !ready || verdict.end.is_some() {
                continue;
            }
            if let Some(end) = end_of(&fault.what)
                && fault.comes_up()
            {
                verdict.end = Some(end);
                use_up(fault);
            }
        }
        let reaches_the_store = matches!(verdict.end, None | Some(End::ReplyLost));
        for (fault, ready) in self.faults.iter_mut().zip(&waiting) {
            let slow = matches!(fault.what, What::Slow { .. });
            let strikes = *ready && (slow || reaches_the_store) && end_of(&fault.what).is_none();
            if strikes && fault.comes_up() {
                verdict.conditions.add(&fault.what);
                use_up(fault);
            }
        }
        self.faults.retain(|fault| fault.times != Some(0));
        verdict
    }
}

fn use_up(fault: &mut Fault) {
    fault.times = fault.times.map(|times| times.saturating_sub(1));
}

fn end_of(what: &What) -> Option<End> {
    match what {
        What::ReplyLost => Some(End::ReplyLost),
        What::Cut => Some(End::Cut),
        What::Error { status, reason, message, retry_after } => {
            let refusal = ApiError { retry_after: *retry_after, ..ApiError::new(*status, reason, message) };
            Some(End::Refused(refusal))
        }
        What::Html { status } => Some(End::Html(*status)),
        What::Quota { reason: QuotaReason::QuotaExceeded } => {
            let message = "Quota exceeded: Your project exceeded quota for streaming insert rows.";
            Some(End::Refused(ApiError::new(403, "quotaExceeded", message)))
        }
        What::Quota { reason: QuotaReason::RateLimitExceeded } => {
            let message = "Exceeded rate limits: too many requests for this table.";
            Some(End::Refused(ApiError::new(403, "rateLimitExceeded", message)))
        }
        What::Status { code, message, in_band } => {
            Some(End::Status { code: *code, message: message.clone(), in_band: *in_band })
        }
        What::StreamClosed { because } => Some(End::Status {
            code: StatusCode::Aborted,
            message: because.message().to_owned(),
            in_band: false,
        }),
        What::Slow { .. }
        | What::LateReply { .. }
        | What::ErrorsEndConnection
        | What::NotFoundAfterCreate { .. }
        | What::SchemaLag { .. }
        | What::RowErrors { .. }
        | What::RejectValue { .. } => None,
    }
}

impl Conditions {
    /// Takes on a fault that does not end the call.
    fn add(&mut self, what: &What) {
        match what {
            What::Slow { ms } => self.delay_ms = self.delay_ms.saturating_add(*ms),
            What::LateReply { ms } => self.late_reply_ms = self.late_reply_ms.saturating_add(*ms),
            What::ErrorsEndConnection => self.errors_end_connection = true,
            What::NotFoundAfterCreate { ms } => self.not_found_until_ms = self.not_found_until_ms.max(*ms),
            What::SchemaLag { ms } => self.schema_lag_ms = self.schema_lag_ms.max(*ms),
            What::RowErrors { rows, reason } => {
                self.row_errors.extend(rows.iter().map(|row| (*row, reason.clone())));
            }
            What::RejectValue { field, value } => self.rejected_values.push((field.clone(), value.clone())),
            What::ReplyLost
            | What::Cut
            | What::Error { .. }
            | What::Html { .. }
            | What::Quota { .. }
            | What::Status { .. }
            | What::StreamClosed { .. } => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> TableName {
        TableName::new("p", "d", "t")
    }

    #[test]
    fn a_script_reads_as_a_sequence() {
        let refused = What::Html { status: 502 };
        let mut script = Script::new(vec![
            Fault::new(Method::InsertAll, refused).times(2).after(1),
            Fault::new(Method::InsertAll, What::ReplyLost).times(1),
        ]);
        let mut ends = || script.strike(Method::InsertAll, Some(&table())).end;
        assert_eq!(ends(), Some(End::ReplyLost));
        assert_eq!(ends(), Some(End::Html(502)));
        assert_eq!(ends(), Some(End::Html(502)));
        assert_eq!(ends(), None);
        assert!(script.left().is_empty());
    }

    #[test]
    fn a_fault_strikes_only_its_method_and_table() {
        for (wanted, strikes) in [("t", true), ("d.t", true), ("other", false), ("other.t", false)] {
            let mut script = Script::new(vec![Fault::new(Method::InsertAll, What::Cut).table(wanted)]);
            assert!(script.strike(Method::TablesGet, Some(&table())).end.is_none());
            assert_eq!(script.strike(Method::InsertAll, Some(&table())).end.is_some(), strikes, "{wanted}");
        }
    }

    #[test]
    fn a_call_that_never_reaches_the_store_does_not_use_up_what_would_strike_there() {
        let errors = What::RowErrors { rows: vec![1], reason: "timeout".into() };
        let mut script = Script::new(vec![
            Fault::new(Method::InsertAll, errors).times(1),
            Fault::new(Method::InsertAll, What::Cut).times(1),
        ]);
        assert!(script.strike(Method::InsertAll, None).conditions.row_errors.is_empty());
        assert_eq!(
            script.strike(Method::InsertAll, None).conditions.row_errors,
            vec![(1, "timeout".to_owned())]
        );
    }

    #[test]
    fn faults_are_read_from_json_and_a_misspelt_key_is_an_error() {
        let fault: Fault = serde_json::from_str(
            r#"{"method": "tabledata.insertAll", "table": "d.t", "times": 3, "after": 1,
                "what": {"error": {"status": 503, "reason": "backendError", "message": "later", "retry_after": 2}}}"#,
        )
        .unwrap();
        assert_eq!((fault.times, fault.after), (Some(3), 1));
        let plain: Fault = serde_json::from_str(r#"{"method": "tables.get", "what": "reply_lost"}"#).unwrap();
        assert_eq!(plain.what, What::ReplyLost);
        let wrong = br#"[{"method": "tables.get", "what": "reply_lost", "tiems": 1}]"#;
        assert!(Fault::parse_script(wrong).unwrap_err().to_string().contains("tiems"));
        let wrong = br#"{"method": "tables.get", "what": {"html": {"status": 200}}}"#;
        assert!(matches!(Fault::parse_script(wrong), Err(ScriptError::Status(200))));
    }
}
