//! Any bytes cut into records for `publish`. However the bytes arrive, the records are the same, and they are the
//! values that `serde_json` reads. The first four bytes say how the bytes arrive, the fifth is the largest record.

#![no_main]

use std::io::Read;

use libfuzzer_sys::{Corpus, fuzz_target};
use serde_json::Value as Json;
use txconnect::publish::producer::{OutgoingRecord, RecordProducer, SendError};
use txconnect::publish::split::{Position, SplitError, Splitter};
use txconnect::publish::{Publication, publish};

/// Keeps what it is given.
#[derive(Default)]
struct Kept(Vec<(Option<Vec<u8>>, Vec<u8>)>);

impl RecordProducer for Kept {
    fn send(&mut self, record: &OutgoingRecord<'_>) -> Result<(), SendError> {
        self.0.push((record.key.map(<[u8]>::to_vec), record.value.to_vec()));
        Ok(())
    }

    fn flush(&mut self) -> Result<(), SendError> {
        Ok(())
    }

    fn confirmed(&self) -> u64 {
        self.0.len() as u64
    }
}

/// Input that arrives in pieces of the given lengths, over and over; 0 is all that is left.
struct Pieces<'a> {
    rest: &'a [u8],
    lengths: &'a [u8],
    turn: usize,
}

impl<'a> Pieces<'a> {
    fn new(rest: &'a [u8], lengths: &'a [u8]) -> Self {
        Self { rest, lengths, turn: 0 }
    }
}

impl<'a> Iterator for Pieces<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        if self.rest.is_empty() {
            return None;
        }
        // Letters are short lengths too, so that seeds can be read.
        let length = usize::from(self.lengths[self.turn % self.lengths.len()] & 31);
        self.turn += 1;
        let length = if length == 0 { self.rest.len() } else { length.min(self.rest.len()) };
        let (piece, rest) = self.rest.split_at(length);
        self.rest = rest;
        Some(piece)
    }
}

impl Read for Pieces<'_> {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        let Some(piece) = self.next() else { return Ok(0) };
        into[..piece.len()].copy_from_slice(piece);
        Ok(piece.len())
    }
}

type Outcome = (Vec<(Vec<u8>, Position)>, Result<(), SplitError>);

fn split<'a>(pieces: impl Iterator<Item = &'a [u8]>, limit: usize) -> Outcome {
    let mut splitter = Splitter::new(limit);
    let mut records = Vec::new();
    for mut piece in pieces {
        loop {
            match splitter.next_record(&mut piece) {
                Ok(Some(record)) => {
                    assert!(!record.bytes.is_empty() && record.bytes.len() <= limit);
                    records.push((record.bytes.to_vec(), record.start));
                }
                Ok(None) => break,
                Err(error) => return (records, Err(error)),
            }
        }
        assert!(piece.is_empty());
    }
    match splitter.finish() {
        Ok(last) => {
            records.extend(last.map(|record| (record.bytes.to_vec(), record.start)));
            (records, Ok(()))
        }
        Err(error) => (records, Err(error)),
    }
}

fn sent(mut input: Pieces<'_>, key: Option<&str>) -> (Kept, Result<u64, String>) {
    let mut kept = Kept::default();
    let result = publish(&mut input, Publication { topic: "t", key }, &mut kept, &mut |_| {});
    (kept, result.map(|progress| progress.records).map_err(|error| error.to_string()))
}

/// The records that `serde_json` sees, where it reads everything.
fn values(input: &[u8]) -> Option<Vec<Json>> {
    let mut values = Vec::new();
    for value in serde_json::Deserializer::from_slice(input).into_iter::<Json>() {
        match value.ok()? {
            Json::Array(elements) => values.extend(elements),
            value => values.push(value),
        }
    }
    Some(values)
}

fuzz_target!(|data: &[u8]| -> Corpus {
    let Some((lengths, rest)) = data.split_at_checked(4) else { return Corpus::Reject };
    let Some((limit, input)) = rest.split_first() else { return Corpus::Reject };
    if input.len() > 100_000 {
        return Corpus::Reject;
    }

    let limit = usize::from(*limit) + 1;
    let whole = split([input].into_iter().filter(|input| !input.is_empty()), limit);
    assert_eq!(split(Pieces::new(input, lengths), limit), whole);
    for (record, start) in &whole.0 {
        let at = usize::try_from(start.byte).expect("a place in the input");
        assert_eq!(&input[at..at + record.len()], record);
        assert_eq!(*start, Position::START.after(&input[..at]));
    }

    for key in [None, Some("id")] {
        let (whole, whole_ended) = sent(Pieces::new(input, &[0]), key);
        let (kept, ended) = sent(Pieces::new(input, lengths), key);
        assert!(kept.0 == whole.0, "other records");
        assert_eq!(ended, whole_ended);
        let Some(values) = values(input).filter(|_| key.is_none()) else { continue };
        assert_eq!(whole_ended.as_ref().ok().copied(), Some(values.len() as u64), "{whole_ended:?}");
        for ((_, record), value) in whole.0.iter().zip(&values) {
            assert_eq!(&serde_json::from_slice::<Json>(record).expect("a record is JSON"), value);
        }
    }
    Corpus::Keep
});
