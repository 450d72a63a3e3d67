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
}

/// One scripted fault.
///
/// As JSON: `{"method": "tabledata.insertAll", "table": "orders", "what": {"error": {"status": 503, "reason":
/// "backendError", "message": "try later"}}, "times": 2, "after": 1}`.
///
/// Of the faults that end a call ([`What::ReplyLost`], [`What::Cut`], [`What::Error`], [`What::Html`],
/// [`What::Quota`]) the first that matches in the order of the script applies, so that a script reads as a sequence.
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
}

impl Fault {
    /// A fault that strikes every call of a method.
    pub fn new(method: Method, what: What) -> Fault {
        Fault { method, table: None, what, times: None, after: 0 }
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

    /// Reads a script: one fault or a list of them, as JSON.
    ///
    /// # Errors
    /// [`ScriptError`] where the text is no such JSON or a status is none of an error.
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
        }
        Ok(faults)
    }

    fn matches(&self, method: Method, table: Option<&TableName>) -> bool {
        let names = |wanted: &str, name: &TableName| match wanted.split_once('.') {
            Some((dataset, table)) => dataset == name.dataset.dataset && table == name.table,
            None => wanted == name.table,
        };
        self.method == method
            && match (&self.table, table) {
                (None, _) => true,
                (Some(wanted), Some(name)) => names(wanted, name),
                (Some(_), None) => false,
            }
    }
}

/// What goes wrong.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
#[non_exhaustive]
pub enum What {
    /// The call is carried out, then the connection closes without an answer.
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
    /// Status 403 as for an exhausted quota.
    Quota {
        /// Which of the two quotas.
        reason: QuotaReason,
    },
    /// The call is carried out after a pause.
    Slow {
        /// The pause in milliseconds.
        ms: u64,
    },
    /// The table is not found until it is this old: creating a table takes a while to reach every server.
    NotFoundAfterCreate {
        /// The age in milliseconds.
        ms: u64,
    },
    /// Columns added to the table are unknown until the change is this old.
    SchemaLag {
        /// The age in milliseconds.
        ms: u64,
    },
    /// insertAll does not take these rows, for a reason that is not their content; the others go in.
    RowErrors {
        /// The rows' indices in the request.
        rows: Vec<usize>,
        /// The reason, as `backendError`, `timeout` or `internalError`.
        reason: String,
    },
    /// insertAll finds rows invalid in which a field has this value.
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
}

/// What strikes a call that is carried out.
#[derive(Debug, Default, Clone, PartialEq)]
pub(crate) struct Conditions {
    pub(crate) delay_ms: u64,
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
            if let Some(end) = end_of(&fault.what) {
                verdict.end = Some(end);
                use_up(fault);
            }
        }
        let reaches_the_store = matches!(verdict.end, None | Some(End::ReplyLost));
        for (fault, ready) in self.faults.iter_mut().zip(&waiting) {
            let slow = matches!(fault.what, What::Slow { .. });
            if *ready && (slow || reaches_the_store) && verdict.conditions.add(&fault.what) {
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
        What::Slow { .. }
        | What::NotFoundAfterCreate { .. }
        | What::SchemaLag { .. }
        | What::RowErrors { .. }
        | What::RejectValue { .. } => None,
    }
}

impl Conditions {
    /// Takes on a fault that does not end the call; `false` for one that does.
    fn add(&mut self, what: &What) -> bool {
        match what {
            What::Slow { ms } => self.delay_ms = self.delay_ms.saturating_add(*ms),
            What::NotFoundAfterCreate { ms } => self.not_found_until_ms = self.not_found_until_ms.max(*ms),
            What::SchemaLag { ms } => self.schema_lag_ms = self.schema_lag_ms.max(*ms),
            What::RowErrors { rows, reason } => {
                self.row_errors.extend(rows.iter().map(|row| (*row, reason.clone())));
            }
            What::RejectValue { field, value } => self.rejected_values.push((field.clone(), value.clone())),
            What::ReplyLost | What::Cut | What::Error { .. } | What::Html { .. } | What::Quota { .. } => {
                return false;
            }
        }
        true
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
