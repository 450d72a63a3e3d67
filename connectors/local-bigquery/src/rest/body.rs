//! Request bodies: read and unpacked within bounds.

use std::io::Read;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::HeaderMap;
use axum::http::header::CONTENT_ENCODING;
use flate2::read::MultiGzDecoder;
use futures::StreamExt;

use crate::error::ApiError;

/// The largest request, on the wire and unpacked: 10 MB, documented for a streaming request.
pub(crate) const LIMIT: usize = 10 * 1024 * 1024;
/// What is read and thrown away of a request that is too large, so that its sender gets to see the answer.
const DRAIN: usize = 8 * LIMIT;
/// How long a sender may take.
const DEADLINE: Duration = Duration::from_mins(1);

/// Reads a body and unpacks it.
pub(super) async fn read(headers: &HeaderMap, body: Body) -> Result<Bytes, ApiError> {
    let packed = match tokio::time::timeout(DEADLINE, collect(body)).await {
        Ok(packed) => packed?,
        Err(_) => return Err(ApiError::new(408, "timeout", "The request body took too long to arrive.")),
    };
    match headers.get(CONTENT_ENCODING).map(|encoding| encoding.as_bytes().to_ascii_lowercase()).as_deref() {
        None | Some(b"" | b"identity") => Ok(packed),
        Some(b"gzip") => unpack(&packed),
        Some(_) => {
            Err(ApiError::new(400, "badRequest", "Unsupported Content-Encoding: send gzip or nothing."))
        }
    }
}

async fn collect(body: Body) -> Result<Bytes, ApiError> {
    let mut chunks = body.into_data_stream();
    let mut collected = Vec::new();
    let mut length = 0_usize;
    while let Some(chunk) = chunks.next().await {
        let chunk =
            chunk.map_err(|_| ApiError::new(400, "badRequest", "The request body ended before its time."))?;
        length = length.saturating_add(chunk.len());
        if length <= LIMIT {
            collected.extend_from_slice(&chunk);
        } else {
            collected = Vec::new();
            if length > DRAIN {
                break;
            }
        }
    }
    if length > LIMIT { Err(ApiError::payload_too_large(LIMIT)) } else { Ok(collected.into()) }
}

/// Unpacks gzip and stops one byte above the limit, whatever the packed size promises.
fn unpack(packed: &[u8]) -> Result<Bytes, ApiError> {
    let bound = u64::try_from(LIMIT).unwrap_or(u64::MAX).saturating_add(1);
    let mut unpacked = Vec::new();
    MultiGzDecoder::new(packed)
        .take(bound)
        .read_to_end(&mut unpacked)
        .map_err(|_| ApiError::new(400, "badRequest", "The request body is not valid gzip."))?;
    if unpacked.len() > LIMIT { Err(ApiError::payload_too_large(LIMIT)) } else { Ok(unpacked.into()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::Compression;
    use flate2::write::GzEncoder;
    use proptest::prelude::*;
    use std::io::Write;

    fn packed(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn a_small_gzip_that_unpacks_to_too_much_is_refused() {
        let bomb = packed(&vec![b' '; LIMIT + 1]);
        assert!(bomb.len() < LIMIT / 100);
        assert_eq!(unpack(&bomb), Err(ApiError::payload_too_large(LIMIT)));
        assert_eq!(unpack(&packed(&vec![b' '; LIMIT])).unwrap().len(), LIMIT);
    }

    proptest! {
        #[test]
        fn gzip_comes_back_and_noise_is_refused_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assert_eq!(unpack(&packed(&bytes)).unwrap(), bytes.clone());
            let _ = unpack(&bytes);
        }
    }
}
