//! Refusals in gRPC's terms: a code, a message, and BigQuery's `StorageError` in the details.

use axum::body::Bytes;
use gcp_bigquery_client::google::cloud::bigquery::storage::v1::storage_error::StorageErrorCode;
use gcp_bigquery_client::google::cloud::bigquery::storage::v1::{RowError, StorageError};
use gcp_bigquery_client::google::rpc;
use prost::Message;
use prost_types::Any;
use tonic::{Code, Status};

use crate::error::ApiError;
use crate::state::BadCredentials;
use crate::store::stream_name::table_path;
use crate::store::streams::StreamError;
use crate::types::proto::SchemaProblem;

/// The type of the details.
const STORAGE_ERROR: &str = "type.googleapis.com/google.cloud.bigquery.storage.v1.StorageError";

/// Why a call is refused.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Refusal {
    pub(crate) code: Code,
    pub(crate) message: String,
    storage: Option<StorageError>,
    /// Whether an `AppendRows` connection goes on after it.
    pub(crate) in_band: bool,
    /// The rows that are wrong, by index.
    pub(crate) row_errors: Vec<RowError>,
}

impl Refusal {
    /// A refusal that ends the connection.
    pub(crate) fn new(code: Code, message: impl Into<String>) -> Refusal {
        Refusal { code, message: message.into(), storage: None, in_band: false, row_errors: Vec::new() }
    }

    pub(crate) fn invalid(message: impl Into<String>) -> Refusal {
        Refusal::new(Code::InvalidArgument, message)
    }

    /// What BigQuery says of rows that cannot be read.
    pub(crate) fn rows(row_errors: Vec<RowError>, entity: &str) -> Refusal {
        let message = format!(
            "Errors found while processing rows. Please refer to the row_errors field for details. The list may not be \
             complete because of the size limitations. Entity: {entity}"
        );
        Refusal { in_band: true, row_errors, ..Refusal::invalid(message) }
    }

    fn storage(self, code: StorageErrorCode, entity: String) -> Refusal {
        let error = StorageError { code: code.into(), entity, error_message: self.message.clone() };
        Refusal { storage: Some(error), ..self }
    }

    fn in_band(self) -> Refusal {
        Refusal { in_band: true, ..self }
    }

    /// What a schema that does not fit a table is answered with.
    pub(crate) fn schema(problem: SchemaProblem, entity: &str) -> Refusal {
        match problem {
            SchemaProblem::ExtraFields(fields) => {
                let message = format!(
                    "Input schema has more fields than BigQuery schema, extra proto fields: {}. Entity: {entity}",
                    fields.join(",")
                );
                let code = StorageErrorCode::SchemaMismatchExtraFields;
                Refusal::invalid(message).storage(code, entity.to_owned()).in_band()
            }
            SchemaProblem::Unfit(sentence) => {
                Refusal::invalid(format!("{sentence} Entity: {entity}")).in_band()
            }
        }
    }

    /// `google.rpc.Status`, as it stands in an `AppendRows` response.
    pub(crate) fn rpc_status(&self) -> rpc::Status {
        let details = self
            .storage
            .iter()
            .map(|error| Any { type_url: STORAGE_ERROR.to_owned(), value: error.encode_to_vec() });
        rpc::Status { code: self.code.into(), message: self.message.clone(), details: details.collect() }
    }

    /// The status that ends a call; the details travel in `grpc-status-details-bin`.
    pub(crate) fn status(&self) -> Status {
        if self.storage.is_none() {
            return Status::new(self.code, self.message.clone());
        }
        let details = Bytes::from(self.rpc_status().encode_to_vec());
        Status::with_details(self.code, self.message.clone(), details)
    }

    /// A stream's error in a list of them.
    pub(crate) fn into_storage_error(self) -> StorageError {
        let Refusal { message, storage, .. } = self;
        storage.unwrap_or(StorageError {
            code: StorageErrorCode::Unspecified.into(),
            entity: String::new(),
            error_message: message,
        })
    }
}

impl From<StreamError> for Refusal {
    fn from(error: StreamError) -> Refusal {
        use StorageErrorCode as Storage;
        match error {
            StreamError::TableNotFound(table) => {
                let entity = table_path(&table);
                Refusal::new(Code::NotFound, format!("Requested entity was not found. Entity: {entity}"))
                    .storage(Storage::TableNotFound, entity)
            }
            StreamError::StreamNotFound(name) => {
                Refusal::new(Code::NotFound, format!("Requested entity was not found. Entity: {name}"))
                    .storage(Storage::StreamNotFound, name.to_string())
            }
            StreamError::TooManyStreams => Refusal::new(
                Code::ResourceExhausted,
                "Exceeds 'CreateWriteStream requests' quota: the local BigQuery remembers no more streams.",
            ),
            StreamError::Finalized(name) => {
                Refusal::invalid(format!("Stream has been finalized and cannot be appended. Entity: {name}"))
                    .storage(Storage::StreamFinalized, name.to_string())
                    .in_band()
            }
            StreamError::OffsetExists { expected, given } => Refusal::new(
                Code::AlreadyExists,
                format!("The offset is within stream, expected offset {expected}, received {given}"),
            )
            .storage(Storage::OffsetAlreadyExists, String::new())
            .in_band(),
            StreamError::OffsetBeyond { expected, given } => Refusal::new(
                Code::OutOfRange,
                format!("The offset is beyond stream, expected offset {expected}, received {given}"),
            )
            .storage(Storage::OffsetOutOfRange, String::new())
            .in_band(),
            StreamError::OffsetOnDefault => {
                Refusal::invalid("Offset cannot be specified when appending to the default stream.")
            }
            StreamError::WrongType(name, sentence) => Refusal::invalid(format!("{sentence}. Entity: {name}"))
                .storage(Storage::InvalidStreamType, name.to_string()),
            StreamError::FlushBeyondEnd { end, given } => Refusal::new(
                Code::OutOfRange,
                format!("The flush offset {given} is beyond the end of the stream, which has {end} rows."),
            ),
            StreamError::AlreadyFlushed { flushed, given } => Refusal::new(
                Code::AlreadyExists,
                format!("The rows up to offset {given} are flushed already, up to {flushed}."),
            ),
            StreamError::FlushOfFinalized(name) => {
                Refusal::invalid(format!("Stream has been finalized and cannot be flushed. Entity: {name}"))
                    .storage(Storage::StreamFinalized, name.to_string())
            }
            StreamError::AlreadyCommitted(name) => {
                Refusal::new(Code::AlreadyExists, format!("Stream is already committed. Entity: {name}"))
                    .storage(Storage::StreamAlreadyCommitted, name.to_string())
            }
            StreamError::NotFinalized(name) => {
                Refusal::invalid(format!("Stream is not finalized. Entity: {name}"))
                    .storage(Storage::InvalidStreamState, name.to_string())
            }
            StreamError::OtherTable(name) => {
                Refusal::invalid(format!("The stream does not belong to the parent table. Entity: {name}"))
            }
        }
    }
}

impl From<BadCredentials> for Refusal {
    fn from(bad: BadCredentials) -> Refusal {
        let what = match bad {
            BadCredentials::Missing => "Request is missing required authentication credential.",
            BadCredentials::Wrong => "Request had invalid authentication credentials.",
        };
        Refusal::new(Code::Unauthenticated, format!("{what} Expected OAuth 2 access token."))
    }
}

/// A scripted REST error in gRPC's terms.
impl From<ApiError> for Refusal {
    fn from(error: ApiError) -> Refusal {
        let code = match error.status {
            400 | 413 => Code::InvalidArgument,
            401 => Code::Unauthenticated,
            403 if error.reason.ends_with("Exceeded") => Code::ResourceExhausted,
            403 => Code::PermissionDenied,
            404 => Code::NotFound,
            408 | 504 => Code::DeadlineExceeded,
            409 => Code::Aborted,
            412 => Code::FailedPrecondition,
            429 => Code::ResourceExhausted,
            500 => Code::Internal,
            501 => Code::Unimplemented,
            502 | 503 => Code::Unavailable,
            _ => Code::Unknown,
        };
        Refusal::new(code, error.message)
    }
}
