//! `AppendRows` requests, read without taking their rows apart.
//!
//! The generated type would copy every row into a vector of its own. Here the rows stay one piece of the request.

use axum::body::Bytes;
use gcp_bigquery_client::google::cloud::bigquery::storage::v1::ProtoSchema;

use crate::types::proto::wire::{Content, Fields, Malformed};

/// `google.cloud.bigquery.storage.v1.AppendRowsRequest`, as far as it is looked at.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct AppendRequest {
    /// The stream; in later requests of a connection it may be left out.
    #[prost(string, tag = "1")]
    pub(crate) write_stream: String,
    /// Where the rows are to go.
    #[prost(message, optional, tag = "2")]
    pub(crate) offset: Option<i64>,
    /// Rows in protobuf.
    #[prost(message, optional, tag = "4")]
    pub(crate) proto_rows: Option<ProtoData>,
    /// Rows in Arrow, which are refused.
    #[prost(bytes = "bytes", optional, tag = "5")]
    pub(crate) arrow_rows: Option<Bytes>,
}

/// `AppendRowsRequest.ProtoData`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct ProtoData {
    /// How the rows are written; in later requests of a connection it may be left out.
    #[prost(message, optional, tag = "1")]
    pub(crate) writer_schema: Option<ProtoSchema>,
    /// The bytes of `ProtoRows`: field 1, once per row.
    #[prost(bytes = "bytes", optional, tag = "2")]
    pub(crate) rows: Option<Bytes>,
}

impl AppendRequest {
    /// The bytes of `ProtoRows`.
    pub(crate) fn row_bytes(&self) -> &[u8] {
        self.proto_rows.as_ref().and_then(|data| data.rows.as_ref()).map_or(&[], |rows| rows.as_ref())
    }
}

/// The rows of a `ProtoRows` message.
pub(crate) fn rows(message: &[u8]) -> impl Iterator<Item = Result<&[u8], Malformed>> {
    Fields::of(message).filter_map(|field| match field {
        Ok((1, Content::Bytes(row))) => Some(Ok(row)),
        // A field that a later version may have.
        Ok((number, _)) if number != 1 => None,
        _ => Some(Err(Malformed)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use gcp_bigquery_client::google::cloud::bigquery::storage::v1 as generated;
    use generated::append_rows_request::{ProtoData as GeneratedData, Rows};
    use prost::Message;

    #[test]
    fn a_request_is_read_as_the_generated_type_writes_it() {
        let serialized_rows = vec![b"one".to_vec(), Vec::new(), vec![7; 300]];
        let data = GeneratedData {
            writer_schema: Some(generated::ProtoSchema::default()),
            rows: Some(generated::ProtoRows { serialized_rows: serialized_rows.clone() }),
        };
        let request = generated::AppendRowsRequest {
            write_stream: "s".into(),
            offset: Some(5),
            trace_id: "t".into(),
            rows: Some(Rows::ProtoRows(data)),
            ..generated::AppendRowsRequest::default()
        };
        let read = AppendRequest::decode(request.encode_to_vec().as_slice()).unwrap();
        assert_eq!((read.write_stream.as_str(), read.offset), ("s", Some(5)));
        let found: Vec<Vec<u8>> = rows(read.row_bytes()).map(|row| row.unwrap().to_vec()).collect();
        assert_eq!(found, serialized_rows);
        let no_offset = generated::AppendRowsRequest { offset: Some(0), ..request };
        assert_eq!(AppendRequest::decode(no_offset.encode_to_vec().as_slice()).unwrap().offset, Some(0));
    }
}
