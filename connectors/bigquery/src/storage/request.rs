//! An `AppendRowsRequest` around rows that are encoded already.
//!
//! The rows of a batch are the body of a `ProtoRows` message as they stand, so a request is three pieces: what comes
//! before the rows, the rows themselves, what comes behind them. Nothing is copied on the way to the connection.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::{BufMut as _, Bytes, BytesMut};
use http_body::{Body, Frame};
use tokio::sync::mpsc;
use tonic::Status;

use super::encode::MAX_REQUEST_BYTES;

/// What gRPC puts before every message: whether it is compressed, and its length in four bytes.
const GRPC_HEADER_BYTES: usize = 5;

/// Field number and wire type of the fields that are written here, as the proto file has them.
mod tag {
    pub(super) const WRITE_STREAM: u8 = 1 << 3 | 2;
    pub(super) const OFFSET: u8 = 2 << 3 | 2;
    pub(super) const PROTO_ROWS: u8 = 4 << 3 | 2;
    pub(super) const TRACE_ID: u8 = 6 << 3 | 2;
    pub(super) const OFFSET_VALUE: u8 = 1 << 3;
    pub(super) const WRITER_SCHEMA: u8 = 1 << 3 | 2;
    pub(super) const ROWS: u8 = 2 << 3 | 2;
}

/// What a request says beside its rows. Only what the connection needs to be told is said.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Envelope<'a> {
    /// Where the rows go: in the first request, and in every one of a connection that serves several tables.
    pub(super) stream: Option<&'a str>,
    /// How many rows the stream holds before these; never for a default stream.
    pub(super) offset: Option<i64>,
    /// A `ProtoSchema` message: in the first request and where the table changes.
    pub(super) schema: Option<&'a [u8]>,
    /// Who writes: in the first request.
    pub(super) trace_id: Option<&'a str>,
}

/// A request in the form in which it travels.
#[derive(Debug)]
pub(super) struct Request {
    head: Bytes,
    rows: Bytes,
    tail: Bytes,
}

/// A request that is larger than [`MAX_REQUEST_BYTES`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TooLarge {
    /// Its size in bytes.
    pub(super) bytes: usize,
}

impl Request {
    /// Puts a request together around `rows`.
    pub(super) fn new(envelope: &Envelope<'_>, rows: Bytes) -> Result<Self, TooLarge> {
        let data_bytes =
            envelope.schema.map_or(0, |schema| field_bytes(schema.len())) + field_bytes(rows.len());
        let offset_bytes = envelope.offset.map(offset_value_bytes);
        let tail_bytes = envelope.trace_id.map_or(0, |trace_id| field_bytes(trace_id.len()));
        let message_bytes = envelope.stream.map_or(0, |stream| field_bytes(stream.len()))
            + offset_bytes.map_or(0, field_bytes)
            + field_bytes(data_bytes)
            + tail_bytes;
        let length = match u32::try_from(message_bytes) {
            Ok(length) if message_bytes <= MAX_REQUEST_BYTES => length,
            _ => return Err(TooLarge { bytes: message_bytes }),
        };
        let head_bytes = GRPC_HEADER_BYTES + message_bytes - tail_bytes - rows.len();
        let mut head = BytesMut::with_capacity(head_bytes);
        head.put_u8(0);
        head.put_u32(length);
        if let Some(stream) = envelope.stream {
            put_field(&mut head, tag::WRITE_STREAM, stream.as_bytes());
        }
        if let (Some(offset), Some(bytes)) = (envelope.offset, offset_bytes) {
            head.put_u8(tag::OFFSET);
            put_varint(&mut head, bytes as u64);
            if offset != 0 {
                head.put_u8(tag::OFFSET_VALUE);
                put_varint(&mut head, offset.cast_unsigned());
            }
        }
        head.put_u8(tag::PROTO_ROWS);
        put_varint(&mut head, data_bytes as u64);
        if let Some(schema) = envelope.schema {
            put_field(&mut head, tag::WRITER_SCHEMA, schema);
        }
        head.put_u8(tag::ROWS);
        put_varint(&mut head, rows.len() as u64);
        let mut tail = BytesMut::with_capacity(tail_bytes);
        if let Some(trace_id) = envelope.trace_id {
            put_field(&mut tail, tag::TRACE_ID, trace_id.as_bytes());
        }
        Ok(Self { head: head.freeze(), rows, tail: tail.freeze() })
    }
}

/// The bytes of a field with `length` bytes of content.
fn field_bytes(length: usize) -> usize {
    1 + varint_bytes(length as u64) + length
}

/// The bytes of an `Int64Value`: zero is the default and not written.
fn offset_value_bytes(offset: i64) -> usize {
    if offset == 0 { 0 } else { 1 + varint_bytes(offset.cast_unsigned()) }
}

fn varint_bytes(value: u64) -> usize {
    let bits = (u64::BITS - (value | 1).leading_zeros()) as usize;
    bits.div_ceil(7)
}

fn put_field(out: &mut BytesMut, tag: u8, content: &[u8]) {
    out.put_u8(tag);
    put_varint(out, content.len() as u64);
    out.put_slice(content);
}

fn put_varint(out: &mut BytesMut, mut value: u64) {
    while value >= 0x80 {
        out.put_u8(value.to_le_bytes()[0] | 0x80);
        value >>= 7;
    }
    out.put_u8(value.to_le_bytes()[0]);
}

/// The side of an open call that requests are put in.
pub(super) struct Outlet {
    requests: mpsc::Sender<Request>,
    gate: Arc<Mutex<Gate>>,
}

/// Knows how many requests the connection has begun to send. Behind a closed gate no further one begins.
#[derive(Debug, Default)]
struct Gate {
    begun: u64,
    closed: bool,
}

/// The body of a call: requests one after the other, each in up to three pieces.
pub(super) struct RequestBody {
    requests: mpsc::Receiver<Request>,
    pieces: VecDeque<Bytes>,
    gate: Arc<Mutex<Gate>>,
}

/// A body and the outlet that feeds it, with room for `most` requests.
pub(super) fn body(most: usize) -> (Outlet, RequestBody) {
    let (sender, receiver) = mpsc::channel(most);
    let gate = Arc::new(Mutex::new(Gate::default()));
    let outlet = Outlet { requests: sender, gate: Arc::clone(&gate) };
    (outlet, RequestBody { requests: receiver, pieces: VecDeque::with_capacity(3), gate })
}

impl Outlet {
    /// Hands a request to the connection. One that the connection does not take any more is never begun.
    pub(super) fn put(&self, request: Request) {
        // Whoever counts what was begun sees that this one was not.
        let _ = self.requests.try_send(request);
    }

    /// Lets no further request begin, and answers how many did.
    pub(super) fn close(self) -> u64 {
        let mut gate = self.gate.lock().unwrap_or_else(PoisonError::into_inner);
        gate.closed = true;
        gate.begun
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = self.get_mut();
        if let Some(piece) = this.pieces.pop_front() {
            return Poll::Ready(Some(Ok(Frame::data(piece))));
        }
        let Some(Request { head, rows, tail }) = ready!(this.requests.poll_recv(context)) else {
            return Poll::Ready(None);
        };
        {
            let mut gate = this.gate.lock().unwrap_or_else(PoisonError::into_inner);
            if gate.closed {
                return Poll::Ready(None);
            }
            gate.begun += 1;
        }
        this.pieces.extend([rows, tail].into_iter().filter(|piece| !piece.is_empty()));
        Poll::Ready(Some(Ok(Frame::data(head))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gcp_bigquery_client::google::cloud::bigquery::storage::v1::append_rows_request::{ProtoData, Rows};
    use gcp_bigquery_client::google::cloud::bigquery::storage::v1::{
        AppendRowsRequest, ProtoRows, ProtoSchema,
    };
    use proptest::prelude::*;
    use prost::Message as _;

    fn joined(request: &Request) -> Vec<u8> {
        [&request.head[..], &request.rows[..], &request.tail[..]].concat()
    }

    /// Rows in the form in which batches hold them.
    fn rows_as_in_a_batch(rows: &[Vec<u8>]) -> Bytes {
        ProtoRows { serialized_rows: rows.to_vec() }.encode_to_vec().into()
    }

    proptest! {
        #[test]
        fn a_request_is_byte_for_byte_what_the_generated_type_encodes(
            stream in prop::option::of("[a-z/_]{1,200}"),
            offset in prop::option::of(prop_oneof![Just(0_i64), 0_i64..200, any::<i64>()]),
            name in prop::option::of("[a-z]{1,300}"),
            trace_id in prop::option::of("[a-z:]{1,40}"),
            rows in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 0..50),
        ) {
            let schema = name.map(|name| ProtoSchema {
                proto_descriptor: Some(prost_types::DescriptorProto { name: Some(name), ..Default::default() }),
            });
            let expected = AppendRowsRequest {
                write_stream: stream.clone().unwrap_or_default(),
                offset,
                trace_id: trace_id.clone().unwrap_or_default(),
                rows: Some(Rows::ProtoRows(ProtoData {
                    writer_schema: schema.clone(),
                    rows: Some(ProtoRows { serialized_rows: rows.clone() }),
                })),
                ..AppendRowsRequest::default()
            };
            let schema = schema.map(|schema| schema.encode_to_vec());
            let envelope = Envelope {
                stream: stream.as_deref(),
                offset,
                schema: schema.as_deref(),
                trace_id: trace_id.as_deref(),
            };
            let bytes = joined(&Request::new(&envelope, rows_as_in_a_batch(&rows)).unwrap());
            let message = expected.encode_to_vec();
            prop_assert_eq!(bytes[0], 0);
            prop_assert_eq!(&bytes[1..5], &u32::try_from(message.len()).unwrap().to_be_bytes()[..]);
            prop_assert_eq!(&bytes[GRPC_HEADER_BYTES..], &message[..]);
        }
    }

    #[test]
    fn a_request_may_be_as_large_as_the_limit_and_no_larger() {
        // Tag and length of the data and of the rows: 1 + 4 bytes each.
        let largest = MAX_REQUEST_BYTES - 10;
        let envelope = Envelope::default();
        let request = Request::new(&envelope, vec![0; largest].into()).unwrap();
        assert_eq!(joined(&request).len(), GRPC_HEADER_BYTES + MAX_REQUEST_BYTES);
        let refused = Request::new(&envelope, vec![0; largest + 1].into());
        assert_eq!(refused.unwrap_err(), TooLarge { bytes: MAX_REQUEST_BYTES + 1 });
    }

    async fn next_piece(body: &mut RequestBody) -> Option<Bytes> {
        let frame = std::future::poll_fn(|context| Pin::new(&mut *body).poll_frame(context)).await?;
        frame.unwrap().into_data().ok()
    }

    #[tokio::test]
    async fn a_request_counts_as_begun_from_its_first_piece_and_none_begins_behind_a_closed_gate() {
        let (outlet, mut body) = body(4);
        let envelope = Envelope { trace_id: Some("t"), ..Envelope::default() };
        for _ in 0..2 {
            outlet.put(Request::new(&envelope, Bytes::from_static(b"row")).unwrap());
        }
        assert!(next_piece(&mut body).await.is_some());
        assert_eq!(outlet.close(), 1);
        assert_eq!(next_piece(&mut body).await.as_deref(), Some(&b"row"[..]));
        assert_eq!(next_piece(&mut body).await.as_deref(), Some(&b"2\x01t"[..]));
        assert_eq!(next_piece(&mut body).await, None);
    }
}
