//! Rows on their way into a table by COPY, without a copy of their own.

use std::ops::Range;
use std::pin::pin;

use bytes::{Bytes, BytesMut};
use futures::SinkExt;
use tokio_postgres::Statement;

use crate::connect::Session;
use crate::error::CallFailure;

/// How much is handed to the connection at once. From 64 KiB to 8 MiB the rate is the same within what runs differ by;
/// the connection copies every piece once more, and a piece of this size stays in the processor's cache meanwhile.
const PIECE_BYTES: usize = 256 * 1024;

/// Signature, flags and the length of the header's extension: PostgreSQL's documentation of COPY, "Binary Format".
const HEADER: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";

/// Stands where the next row's count of fields would.
const TRAILER: &[u8] = &[0xff, 0xff];

/// The bytes of a batch while the connection reads them; given back when this is dropped.
pub(crate) struct Lent<'a> {
    owner: &'a mut Vec<u8>,
    bytes: Bytes,
}

impl<'a> Lent<'a> {
    pub(crate) fn new(owner: &'a mut Vec<u8>) -> Self {
        let bytes = Bytes::from(std::mem::take(owner));
        Self { owner, bytes }
    }

    /// A part of the bytes, which share their memory with it.
    pub(crate) fn part(&self, range: Range<usize>) -> Bytes {
        self.bytes.slice(range)
    }
}

impl Drop for Lent<'_> {
    fn drop(&mut self) {
        // A session that was given up may hold a piece for a moment longer: then the bytes are copied.
        let bytes = std::mem::take(&mut self.bytes);
        *self.owner = bytes.try_into_mut().unwrap_or_else(|shared| BytesMut::from(&shared[..])).into();
    }
}

/// Sends `rows`, which are tuples of the binary format one after the other, through a prepared `COPY … FROM STDIN`.
///
/// The time-out of the session holds for every piece, not for the whole.
pub(crate) async fn copy(
    session: &Session,
    statement: &Statement,
    doing: &str,
    rows: Bytes,
) -> Result<(), CallFailure> {
    let sink = session.within(doing, session.client().copy_in::<_, Bytes>(statement)).await?;
    let mut sink = pin!(sink);
    session.within(doing, sink.feed(Bytes::from_static(HEADER))).await?;
    let mut rest = rows;
    while !rest.is_empty() {
        let piece = rest.split_to(rest.len().min(PIECE_BYTES));
        session.within(doing, sink.feed(piece)).await?;
    }
    session.within(doing, sink.feed(Bytes::from_static(TRAILER))).await?;
    session.within(doing, sink.as_mut().finish()).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lent_bytes_come_back_in_their_own_memory() {
        let mut owner = b"some rows".to_vec();
        owner.reserve(100);
        let address = owner.as_ptr();
        {
            let lent = Lent::new(&mut owner);
            assert_eq!(&lent.part(5..9)[..], b"rows");
        }
        assert_eq!(owner, b"some rows");
        assert_eq!(owner.as_ptr(), address, "nothing was copied");
    }

    #[test]
    fn bytes_that_somebody_still_reads_come_back_as_a_copy() {
        let mut owner = b"some rows".to_vec();
        let held = {
            let lent = Lent::new(&mut owner);
            lent.part(0..4)
        };
        assert_eq!(owner, b"some rows");
        assert_eq!(&held[..], b"some");
    }
}
