//! What the Storage Write API answers when it does not do what it was asked, and what that means.
//!
//! An error comes inside an answer, as a `google.rpc.Status`, or ends the call, as a gRPC status whose details hold the
//! same message. Both are read by the same rules:
//! <https://cloud.google.com/bigquery/docs/write-api-best-practices>, and the comments of `StorageError` in
//! `google/cloud/bigquery/storage/v1/storage.proto`.

use std::fmt;
use std::time::Duration;

use gcp_bigquery_client::google::cloud::bigquery::storage::v1::StorageError;
use gcp_bigquery_client::google::cloud::bigquery::storage::v1::storage_error::StorageErrorCode;
use gcp_bigquery_client::google::rpc;
use prost::Message as _;
use prost_types::Any;
use tonic::{Code, Status};
use txconnect_connector_api::SinkError;

use crate::error::{CallError, QUOTA_PAUSE, one_line};

/// What an error means for whoever asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Meaning {
    /// It goes away by itself.
    Passing,
    /// A quota is used up: it goes away, but not soon.
    Quota,
    /// The stream holds rows at that offset already, or was published that far.
    AlreadyThere,
    /// The stream ends before that offset.
    BehindTheEnd,
    /// The stream was finalized.
    Finalized,
    /// There is no such stream, or no such table.
    Missing,
    /// The server does not know all of our columns.
    UnknownColumn,
    /// The server does not know who we are.
    Unauthenticated,
    /// We may not do this.
    Forbidden,
    /// The request is wrong in a way that is not listed here.
    Invalid,
    /// Nothing helps.
    Final,
}

/// An error, without values of rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) meaning: Meaning,
    /// What is told to people.
    text: String,
    hint: Option<String>,
    retry_after: Option<Duration>,
}

/// `google.rpc.RetryInfo`: how long the server asks to wait.
#[derive(Clone, PartialEq, prost::Message)]
struct RetryInfo {
    #[prost(message, optional, tag = "1")]
    retry_delay: Option<prost_types::Duration>,
}

/// What the details of an error say.
#[derive(Debug, Default)]
struct Details {
    storage: Option<StorageErrorCode>,
    retry_after: Option<Duration>,
    quota: bool,
}

impl Details {
    fn read(all: &[Any]) -> Self {
        let mut details = Self::default();
        for any in all {
            match any.type_url.rsplit('/').next().unwrap_or_default() {
                "google.cloud.bigquery.storage.v1.StorageError" => {
                    details.storage = StorageError::decode(&any.value[..])
                        .ok()
                        .and_then(|error| StorageErrorCode::try_from(error.code).ok())
                        .filter(|code| *code != StorageErrorCode::Unspecified);
                }
                "google.rpc.RetryInfo" => {
                    details.retry_after = RetryInfo::decode(&any.value[..])
                        .ok()
                        .and_then(|info| Duration::try_from(info.retry_delay?).ok());
                }
                "google.rpc.QuotaFailure" => details.quota = true,
                _ => {}
            }
        }
        details
    }
}

impl Refusal {
    /// Something that goes away, told as it is.
    pub(super) fn passing(text: impl Into<String>) -> Self {
        Self { meaning: Meaning::Passing, text: text.into(), hint: None, retry_after: None }
    }

    /// Something that stays, told as it is.
    pub(super) fn lasting(text: impl Into<String>, hint: impl Into<String>) -> Self {
        let (text, hint) = (text.into(), Some(hint.into()));
        Self { meaning: Meaning::Final, text, hint, retry_after: None }
    }

    /// An error inside an answer.
    pub(super) fn in_answer(status: &rpc::Status) -> Self {
        Self::of(Code::from_i32(status.code), &status.message, &Details::read(&status.details))
    }

    /// The end of a call.
    pub(super) fn of_call(status: &Status) -> Self {
        // A status with a source was made on this side, out of a connection that broke or was never made. Its code is
        // a guess.
        if let Some(source) = std::error::Error::source(status) {
            let mut root = source;
            while let Some(source) = root.source() {
                root = source;
            }
            return Self::passing(format!("the connection broke: {}", one_line(&root.to_string())));
        }
        let details = rpc::Status::decode(status.details()).map(|status| status.details).unwrap_or_default();
        Self::of(status.code(), status.message(), &Details::read(&details))
    }

    fn of(code: Code, message: &str, details: &Details) -> Self {
        let meaning = meaning(code, message, details);
        let mut text = format!("BigQuery answered {}", code_name(code));
        if let Some(storage) = details.storage {
            text = format!("{text} ({})", storage.as_str_name());
        }
        if !message.is_empty() && !may_quote_rows(code) {
            text = format!("{text}: {}", one_line(message));
        }
        Self {
            meaning,
            text,
            hint: hint(meaning, details).map(str::to_owned),
            retry_after: details.retry_after,
        }
    }

    /// How long to wait before the next call, where the server or a quota asks for it.
    pub(super) fn retry_after(&self) -> Option<Duration> {
        match self.meaning {
            Meaning::Quota => Some(self.retry_after.unwrap_or(QUOTA_PAUSE)),
            _ => self.retry_after,
        }
    }

    /// The same, with the wait that is left of it.
    pub(super) fn with_retry_after(self, left: Duration) -> Self {
        Self { retry_after: Some(left), ..self }
    }

    /// What the runtime is told; `doing` says what the call was for.
    pub(super) fn to_sink_error(&self, doing: &str) -> SinkError {
        let cause = self.cause(doing);
        match self.meaning {
            Meaning::Passing | Meaning::Quota => {
                SinkError::Transient { cause, retry_after: self.retry_after() }
            }
            _ => SinkError::Fatal { cause, hint: self.hint.clone() },
        }
    }

    /// What happened, for messages; `doing` says what the call was for.
    pub(super) fn cause(&self, doing: &str) -> String {
        format!("{doing}: {}", self.text)
    }

    /// Whether another call may go better.
    pub(super) fn passes(&self) -> bool {
        matches!(self.meaning, Meaning::Passing | Meaning::Quota)
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.text.fmt(f)
    }
}

/// Credentials that fail are told as such; everything else passes.
impl From<CallError> for Refusal {
    fn from(error: CallError) -> Self {
        match error.into_sink_error("asking for an access token") {
            SinkError::Fatal { cause, hint } => {
                Self { meaning: Meaning::Final, text: cause, hint, retry_after: None }
            }
            SinkError::Transient { cause, retry_after } => {
                Self { meaning: Meaning::Passing, text: cause, hint: None, retry_after }
            }
            other => Self::passing(other.to_string()),
        }
    }
}

fn meaning(code: Code, message: &str, details: &Details) -> Meaning {
    let message = message.to_ascii_lowercase();
    // Rate limits come under several codes.
    if message.contains("exceeded rate limits") {
        return Meaning::Passing;
    }
    match details.storage {
        Some(StorageErrorCode::OffsetAlreadyExists) => return Meaning::AlreadyThere,
        Some(StorageErrorCode::OffsetOutOfRange) => return Meaning::BehindTheEnd,
        Some(StorageErrorCode::StreamFinalized) => return Meaning::Finalized,
        Some(StorageErrorCode::StreamNotFound | StorageErrorCode::TableNotFound) => return Meaning::Missing,
        Some(StorageErrorCode::SchemaMismatchExtraFields) => return Meaning::UnknownColumn,
        Some(StorageErrorCode::KmsServiceError) => return Meaning::Passing,
        Some(StorageErrorCode::KmsPermissionDenied) => return Meaning::Forbidden,
        Some(
            StorageErrorCode::InvalidStreamType
            | StorageErrorCode::InvalidStreamState
            | StorageErrorCode::StreamAlreadyCommitted
            | StorageErrorCode::CmekNotProvided
            | StorageErrorCode::InvalidCmekProvided
            | StorageErrorCode::CmekEncryptionError,
        ) => return Meaning::Final,
        Some(StorageErrorCode::Unspecified) | None => {}
    }
    match code {
        Code::AlreadyExists => Meaning::AlreadyThere,
        Code::OutOfRange => Meaning::BehindTheEnd,
        Code::NotFound => Meaning::Missing,
        Code::Unauthenticated => Meaning::Unauthenticated,
        Code::PermissionDenied => Meaning::Forbidden,
        Code::ResourceExhausted if details.quota || message.contains("quota") => Meaning::Quota,
        Code::Unavailable
        | Code::Aborted
        | Code::Cancelled
        | Code::DeadlineExceeded
        | Code::Internal
        | Code::ResourceExhausted
        | Code::Unknown
        // Nothing went wrong, and yet the call ended: the server closes connections now and then.
        | Code::Ok => Meaning::Passing,
        Code::InvalidArgument if ["proto message", "extra proto fields", "schema_mismatch", "schema mismatch"]
            .iter()
            .any(|words| message.contains(words)) =>
        {
            Meaning::UnknownColumn
        }
        Code::InvalidArgument => Meaning::Invalid,
        Code::FailedPrecondition | Code::Unimplemented | Code::DataLoss => Meaning::Final,
    }
}

/// Whether the message of an answer may repeat parts of a request.
fn may_quote_rows(code: Code) -> bool {
    matches!(
        code,
        Code::InvalidArgument | Code::FailedPrecondition | Code::Unknown | Code::Internal | Code::DataLoss
    )
}

fn hint(meaning: Meaning, details: &Details) -> Option<&'static str> {
    let keys = matches!(
        details.storage,
        Some(
            StorageErrorCode::CmekNotProvided
                | StorageErrorCode::InvalidCmekProvided
                | StorageErrorCode::CmekEncryptionError
                | StorageErrorCode::KmsPermissionDenied
        )
    );
    Some(match meaning {
        Meaning::Passing | Meaning::Quota => return None,
        _ if keys => {
            "check the table's encryption key in Cloud KMS, and that BigQuery's service account may use it"
        }
        Meaning::Unauthenticated => {
            "check `credentials`: the key may have been deleted or belong to another project"
        }
        Meaning::Forbidden => {
            "give the account the role `BigQuery Data Editor` on the dataset, and check that the project has billing"
        }
        Meaning::Missing => "check that the table exists and was not dropped or made anew",
        Meaning::UnknownColumn => {
            "compare the table with the schema: a column was dropped or renamed (`ALTER TABLE … ADD COLUMN …`)"
        }
        _ => "check the table and the configuration: BigQuery will refuse the same request again",
    })
}

/// The code's name as Google writes it.
fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn any(name: &str, value: Vec<u8>) -> Any {
        Any { type_url: format!("type.googleapis.com/{name}"), value }
    }

    fn storage_error(code: StorageErrorCode) -> Any {
        let error = StorageError { code: code.into(), ..StorageError::default() };
        any("google.cloud.bigquery.storage.v1.StorageError", error.encode_to_vec())
    }

    fn status(code: Code, message: &str, details: Vec<Any>) -> rpc::Status {
        rpc::Status { code: code.into(), message: message.to_owned(), details }
    }

    /// The same error, read from an answer and from the end of a call.
    fn both_ways(status: &rpc::Status) -> Refusal {
        let of_call = Status::with_details(
            Code::from_i32(status.code),
            &*status.message,
            status.encode_to_vec().into(),
        );
        let refusal = Refusal::in_answer(status);
        assert_eq!(refusal, Refusal::of_call(&of_call));
        refusal
    }

    #[test]
    fn a_storage_error_says_more_than_the_code_it_comes_with() {
        for (code, storage, expected) in [
            (Code::AlreadyExists, StorageErrorCode::OffsetAlreadyExists, Meaning::AlreadyThere),
            (Code::OutOfRange, StorageErrorCode::OffsetOutOfRange, Meaning::BehindTheEnd),
            (Code::InvalidArgument, StorageErrorCode::StreamFinalized, Meaning::Finalized),
            (Code::NotFound, StorageErrorCode::StreamNotFound, Meaning::Missing),
            (Code::NotFound, StorageErrorCode::TableNotFound, Meaning::Missing),
            (Code::InvalidArgument, StorageErrorCode::SchemaMismatchExtraFields, Meaning::UnknownColumn),
            (Code::Internal, StorageErrorCode::KmsServiceError, Meaning::Passing),
            (Code::InvalidArgument, StorageErrorCode::InvalidStreamType, Meaning::Final),
        ] {
            let refusal = both_ways(&status(code, "", vec![storage_error(storage)]));
            assert_eq!(refusal.meaning, expected, "{storage:?}");
            assert!(refusal.to_string().contains(storage.as_str_name()), "{refusal}");
        }
    }

    #[test]
    fn without_details_the_code_and_the_words_decide() {
        for (code, message, expected) in [
            (Code::AlreadyExists, "", Meaning::AlreadyThere),
            (Code::OutOfRange, "", Meaning::BehindTheEnd),
            (Code::NotFound, "Requested entity was not found", Meaning::Missing),
            (Code::Unavailable, "Task is overloaded (memory-protection)", Meaning::Passing),
            (Code::Aborted, "Closing the stream because server is restarted", Meaning::Passing),
            (Code::Internal, "", Meaning::Passing),
            (Code::ResourceExhausted, "Quota exceeded: AppendBytes", Meaning::Quota),
            (Code::ResourceExhausted, "busy", Meaning::Passing),
            (Code::PermissionDenied, "Exceeded rate limits: too many calls", Meaning::Passing),
            (Code::InvalidArgument, "Exceeded rate limits", Meaning::Passing),
            (Code::PermissionDenied, "Permission 'TABLES_UPDATE_DATA' denied", Meaning::Forbidden),
            (Code::Unauthenticated, "", Meaning::Unauthenticated),
            (
                Code::InvalidArgument,
                "Input schema has more fields than BigQuery: extra proto fields",
                Meaning::UnknownColumn,
            ),
            (Code::InvalidArgument, "what?", Meaning::Invalid),
            (Code::FailedPrecondition, "", Meaning::Final),
            (Code::Unimplemented, "", Meaning::Final),
        ] {
            assert_eq!(both_ways(&status(code, message, vec![])).meaning, expected, "{code:?} {message}");
        }
    }

    #[test]
    fn the_server_says_how_long_to_wait_and_a_quota_has_a_pause_of_its_own() {
        let delay = RetryInfo { retry_delay: Some(prost_types::Duration { seconds: 7, nanos: 0 }) };
        let asked = any("google.rpc.RetryInfo", delay.encode_to_vec());
        let quota = any("google.rpc.QuotaFailure", vec![]);
        let wait = |details| both_ways(&status(Code::ResourceExhausted, "", details)).retry_after();
        assert_eq!(wait(vec![asked.clone()]), Some(Duration::from_secs(7)));
        assert_eq!(wait(vec![asked, quota.clone()]), Some(Duration::from_secs(7)));
        assert_eq!(wait(vec![quota]), Some(QUOTA_PAUSE));
        assert_eq!(wait(vec![]), None);
    }

    #[test]
    fn a_message_that_may_quote_a_row_is_not_repeated() {
        for code in [Code::InvalidArgument, Code::Internal, Code::Unknown, Code::FailedPrecondition] {
            let refusal = both_ways(&status(code, "Bad value 4111 1111", vec![]));
            assert!(!refusal.cause("writing").contains("4111"), "{refusal}");
        }
        let denied = both_ways(&status(Code::PermissionDenied, "Access denied: Table p:d.t", vec![]));
        assert!(denied.cause("writing").contains("Table p:d.t"));
    }

    #[test]
    fn details_that_are_broken_do_no_harm() {
        let broken = any("google.cloud.bigquery.storage.v1.StorageError", vec![0xff; 3]);
        assert_eq!(both_ways(&status(Code::AlreadyExists, "", vec![broken])).meaning, Meaning::AlreadyThere);
        let nonsense = Status::with_details(Code::NotFound, "", vec![0xff; 9].into());
        assert_eq!(Refusal::of_call(&nonsense).meaning, Meaning::Missing);
    }

    #[test]
    fn a_status_made_on_this_side_is_a_broken_connection_whatever_its_code() {
        let mut made_here = Status::new(Code::PermissionDenied, "h2 protocol error");
        made_here.set_source(std::sync::Arc::new(std::io::Error::other("reset")));
        let refusal = Refusal::of_call(&made_here);
        assert_eq!(refusal.meaning, Meaning::Passing);
        assert!(refusal.to_string().contains("reset"));
    }
}
