//! What the server answers when it refuses, and why it may not start.

use std::net::SocketAddr;

use serde_json::{Value as Json, json};

use crate::faults::StatusCode;

/// Why the server did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {cause}; choose another address, or port 0 for a free one")]
    Listen {
        /// The address asked for.
        address: SocketAddr,
        /// What the operating system said.
        cause: std::io::Error,
    },
}

/// A refusal in BigQuery's terms: HTTP status, reason and message.
///
/// Reasons and statuses are those of BigQuery's "Error messages" page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ApiError {
    pub(crate) status: u16,
    pub(crate) reason: String,
    pub(crate) message: String,
    /// Seconds for the `Retry-After` header.
    pub(crate) retry_after: Option<u32>,
}

impl ApiError {
    pub(crate) fn new(status: u16, reason: &str, message: impl Into<String>) -> ApiError {
        ApiError { status, reason: reason.to_owned(), message: message.into(), retry_after: None }
    }

    pub(crate) fn invalid(message: impl Into<String>) -> ApiError {
        ApiError::new(400, "invalid", message)
    }

    pub(crate) fn not_found(what: &str, name: impl std::fmt::Display) -> ApiError {
        ApiError::new(404, "notFound", format!("Not found: {what} {name}"))
    }

    pub(crate) fn duplicate(what: &str, name: impl std::fmt::Display) -> ApiError {
        ApiError::new(409, "duplicate", format!("Already Exists: {what} {name}"))
    }

    pub(crate) fn payload_too_large(limit: usize) -> ApiError {
        ApiError::new(413, "badRequest", format!("Request payload size exceeds the limit: {limit} bytes."))
    }

    /// A scripted gRPC status as Google's REST interfaces show it.
    pub(crate) fn of_status(code: StatusCode, message: String) -> ApiError {
        let (status, reason) = match code {
            StatusCode::InvalidArgument | StatusCode::FailedPrecondition | StatusCode::OutOfRange => {
                (400, "invalid")
            }
            StatusCode::Unauthenticated => (401, "authError"),
            StatusCode::PermissionDenied => (403, "accessDenied"),
            StatusCode::NotFound => (404, "notFound"),
            StatusCode::AlreadyExists | StatusCode::Aborted => (409, "duplicate"),
            StatusCode::ResourceExhausted => (429, "rateLimitExceeded"),
            StatusCode::Cancelled => (499, "stopped"),
            StatusCode::Unimplemented => (501, "notImplemented"),
            StatusCode::Unavailable => (503, "backendError"),
            StatusCode::DeadlineExceeded => (504, "timeout"),
            StatusCode::Unknown | StatusCode::Internal | StatusCode::DataLoss => (500, "internalError"),
        };
        ApiError::new(status, reason, message)
    }

    /// BigQuery's error document.
    pub(crate) fn body(&self) -> Json {
        json!({
            "error": {
                "code": self.status,
                "message": self.message,
                "errors": [{ "domain": "global", "reason": self.reason, "message": self.message }],
                "status": self.status_name(),
            }
        })
    }

    fn status_name(&self) -> &'static str {
        match self.status {
            400 | 413 => "INVALID_ARGUMENT",
            401 => "UNAUTHENTICATED",
            403 => "PERMISSION_DENIED",
            404 => "NOT_FOUND",
            408 | 504 => "DEADLINE_EXCEEDED",
            409 => "ALREADY_EXISTS",
            412 => "FAILED_PRECONDITION",
            429 => "RESOURCE_EXHAUSTED",
            500 => "INTERNAL",
            501 => "UNIMPLEMENTED",
            502 | 503 => "UNAVAILABLE",
            _ => "UNKNOWN",
        }
    }
}
