//! The script: which faults strike the next call, and what they make of it together.

use serde_json::Value as Json;

use super::what::{QuotaReason, StatusCode, What};
use super::{Fault, Method};
use crate::error::ApiError;
use crate::store::TableName;

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
        What::StreamClosed { because } => {
            Some(End::Status { code: StatusCode::Aborted, message: because.message(), in_band: false })
        }
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
    use super::super::ScriptError;
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
