//! What a fault makes go wrong.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

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
    /// The call is carried out after a pause, of `AppendRows` even where its connection is gone by then.
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
    /// `AppendRows` ends as ABORTED before the request is carried out, as BigQuery closes connections in normal
    /// operation.
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
    pub(crate) fn message(self) -> String {
        match self {
            Closing::Restart => {
                "Closing the stream because server is restarted. This is expected and client is advised \
                                 to reconnect."
                    .to_owned()
            }
            Closing::Inactivity => inactive_for(USUAL_IDLE),
        }
    }
}

/// How long a connection has been idle when BigQuery closes it.
pub(crate) const USUAL_IDLE: Duration = Duration::from_mins(10);

/// BigQuery's sentence for a connection that was idle for this long.
pub(crate) fn inactive_for(idle: Duration) -> String {
    format!("Closing the stream because it has been inactive for {} seconds.", idle.as_secs())
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
