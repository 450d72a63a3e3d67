//! What went wrong in a call, and whether waiting helps.
//!
//! Which answers are worth another try:
//! <https://cloud.google.com/bigquery/docs/error-messages#errortable>.

use std::time::Duration;

use gcp_bigquery_client::error::BQError;
use gcp_bigquery_client::yup_oauth2;
use txconnect_connector_api::SinkError;

use crate::credentials::CredentialsError;

/// A quota is counted over a longer time than a rate: another try before that only makes it worse.
pub(crate) const QUOTA_PAUSE: Duration = Duration::from_mins(10);

/// Longest text of a server that is repeated in a message, in characters.
const MAX_MESSAGE_CHARACTERS: usize = 300;

/// Reasons that go away.
const PASSING_REASONS: [&str; 11] = [
    "backendError",
    "internalError",
    "jobBackendError",
    "jobInternalError",
    "jobRateLimitExceeded",
    "rateLimitExceeded",
    "serviceUnavailable",
    "tableUnavailable",
    "timeout",
    "userRateLimitExceeded",
    "conflict",
];

/// A call without the wished answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CallError {
    #[error("BigQuery answered {0}")]
    Refused(Refusal),
    #[error("{0}")]
    NoAnswer(String),
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
}

/// An answer with an error status.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) status: i64,
    pub(crate) reasons: Vec<String>,
    pub(crate) message: String,
    pub(crate) retry_after: Option<Duration>,
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.status)?;
        if !self.reasons.is_empty() {
            write!(f, " ({})", self.reasons.join(", "))?;
        }
        // An answer to a malformed request may quote the request, and with it a row.
        if self.status != 400 && !self.message.is_empty() {
            write!(f, ": {}", one_line(&self.message))?;
        }
        Ok(())
    }
}

/// A server's words, in one line and not too many.
pub(crate) fn one_line(message: &str) -> String {
    message
        .chars()
        .take(MAX_MESSAGE_CHARACTERS)
        .map(|character| if character.is_control() { ' ' } else { character })
        .collect()
}

impl Refusal {
    fn has_reason(&self, reasons: &[&str]) -> bool {
        self.reasons.iter().any(|reason| reasons.contains(&reason.as_str()))
    }

    /// Whether the request has too many bytes or rows.
    pub(crate) fn is_too_large(&self) -> bool {
        let message = self.message.to_ascii_lowercase();
        self.status == 413
            || (self.status == 400
                && (message.contains("request payload size exceeds") || message.contains("too many rows")))
    }

    /// Whether the server does not have the call at all.
    pub(crate) fn is_not_implemented(&self) -> bool {
        matches!(self.status, 405 | 501)
    }

    fn into_sink_error(self, doing: &str) -> SinkError {
        let cause = format!("{doing}: BigQuery answered {self}");
        let transient =
            |retry_after: Option<Duration>| SinkError::Transient { cause: cause.clone(), retry_after };
        if self.has_reason(&["quotaExceeded"]) {
            return transient(self.retry_after.or(Some(QUOTA_PAUSE)));
        }
        let passes = matches!(self.status, 408 | 429)
            || (self.status >= 500 && self.status != 501)
            || self.has_reason(&PASSING_REASONS)
            || self.message.to_ascii_lowercase().contains("exceeded rate limits");
        if passes {
            return transient(self.retry_after);
        }
        let hint = match self.status {
            401 => "check `credentials`: the key may have been deleted or belong to another project",
            403 if self.has_reason(&["billingNotEnabled"]) => {
                "streaming needs a project with billing: enable it in the Google Cloud console"
            }
            403 => {
                "give the account the roles `BigQuery Data Editor` on the dataset and `BigQuery Job User` on the project"
            }
            404 => "check `project`, `dataset` and `endpoint`",
            _ => "check the table and the configuration: BigQuery will refuse the same request again",
        };
        SinkError::Fatal { cause, hint: Some(hint.to_owned()) }
    }
}

impl CallError {
    /// The status of an answer.
    pub(crate) fn status(&self) -> Option<i64> {
        match self {
            Self::Refused(refusal) => Some(refusal.status),
            Self::NoAnswer(_) | Self::Credentials(_) => None,
        }
    }

    /// What the runtime is told; `doing` says what the call was for.
    pub(crate) fn into_sink_error(self, doing: &str) -> SinkError {
        match self {
            Self::Refused(refusal) => refusal.into_sink_error(doing),
            Self::NoAnswer(cause) => SinkError::transient(format!("{doing}: {cause}")),
            Self::Credentials(error) => {
                let hint = error.hint().to_owned();
                SinkError::Fatal { cause: format!("{doing}: {error}"), hint: Some(hint) }
            }
        }
    }
}

impl From<BQError> for CallError {
    fn from(error: BQError) -> Self {
        match error {
            BQError::ResponseError { error } => {
                let error = error.error;
                let reasons =
                    error.errors.into_iter().filter_map(|mut error| error.remove("reason")).collect();
                Self::Refused(Refusal {
                    status: error.code,
                    reasons,
                    message: error.message,
                    retry_after: None,
                })
            }
            BQError::RequestError(error) => error.into(),
            BQError::YupAuthError(error) => error.into(),
            BQError::AuthError(error) => yup_oauth2::Error::from(error).into(),
            BQError::NoToken => Self::NoAnswer("the authorization server gave no access token".to_owned()),
            // The rest belongs to calls that are not made here.
            _ => Self::NoAnswer("the BigQuery client failed".to_owned()),
        }
    }
}

impl From<reqwest::Error> for CallError {
    fn from(error: reqwest::Error) -> Self {
        // A reader of JSON quotes what it reads, so its words are left out.
        if error.is_decode() {
            return Self::NoAnswer("the answer was not BigQuery's (a proxy in between?)".to_owned());
        }
        if error.is_timeout() {
            return Self::NoAnswer("no answer within the time limit".to_owned());
        }
        let what = if error.is_connect() { "cannot connect" } else { "the connection broke" };
        let mut root: &dyn std::error::Error = &error;
        while let Some(source) = root.source() {
            root = source;
        }
        Self::NoAnswer(format!("{what}: {}", one_line(&root.to_string())))
    }
}

impl From<yup_oauth2::Error> for CallError {
    fn from(error: yup_oauth2::Error) -> Self {
        use yup_oauth2::error::AuthErrorCode as Code;
        match error {
            yup_oauth2::Error::AuthError(error) => {
                let passes = matches!(
                    &error.error,
                    Code::Other(code)
                        if ["temporarily_unavailable", "server_error", "internal_failure"].contains(&code.as_str())
                );
                let text = one_line(&match &error.error_description {
                    Some(description) => format!("{}: {description}", error.error.as_str()),
                    None => error.error.as_str().to_owned(),
                });
                if passes {
                    Self::NoAnswer(format!("the authorization server answered {text}"))
                } else {
                    Self::Credentials(CredentialsError::Refused(text))
                }
            }
            yup_oauth2::Error::UserError(text) => Self::Credentials(CredentialsError::NoneFound(text)),
            yup_oauth2::Error::JSONError(_) | yup_oauth2::Error::MissingAccessToken => {
                Self::NoAnswer("the authorization server gave no access token".to_owned())
            }
            _ => Self::NoAnswer("cannot reach the authorization server".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(status: i64, reason: &str, message: &str) -> Refusal {
        Refusal {
            status,
            reasons: vec![reason.to_owned()],
            message: message.to_owned(),
            ..Refusal::default()
        }
    }

    #[test]
    fn what_passes_is_waited_for_and_what_stays_is_fatal() {
        for (status, reason, message, waits) in [
            (500, "backendError", "", true),
            (503, "", "", true),
            (429, "", "", true),
            (403, "rateLimitExceeded", "Exceeded rate limits", true),
            (403, "accessDenied", "Exceeded rate limits: too many calls", true),
            (403, "quotaExceeded", "", true),
            (400, "jobBackendError", "", true),
            (403, "accessDenied", "Access Denied: Table p:d.t", false),
            (403, "billingNotEnabled", "", false),
            (401, "authError", "", false),
            (404, "notFound", "", false),
            (400, "invalid", "", false),
            (501, "notImplemented", "", false),
        ] {
            let error = refusal(status, reason, message).into_sink_error("writing");
            assert_eq!(matches!(error, SinkError::Transient { .. }), waits, "{status} {reason} {message}");
        }
    }

    #[test]
    fn a_quota_is_waited_for_longer() {
        let error = refusal(403, "quotaExceeded", "").into_sink_error("writing");
        assert!(
            matches!(error, SinkError::Transient { retry_after: Some(pause), .. } if pause == QUOTA_PAUSE)
        );
    }

    #[test]
    fn an_answer_that_may_quote_a_row_is_not_repeated() {
        let error = refusal(400, "invalid", "Invalid value \"4111 1111\" at 'rows[0].json'");
        assert_eq!(error.into_sink_error("writing").to_string(), "writing: BigQuery answered 400 (invalid)");
    }

    #[test]
    fn too_many_bytes_or_rows_are_recognised() {
        assert!(refusal(413, "", "").is_too_large());
        let message = "Request payload size exceeds the limit: 10485760 bytes.";
        assert!(refusal(400, "badRequest", message).is_too_large());
        assert!(refusal(400, "invalid", "too many rows present in the request, limit: 50000").is_too_large());
        assert!(!refusal(400, "invalid", "no rows").is_too_large());
    }
}
