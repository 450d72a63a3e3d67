//! From files of JSON to a topic: one record after the other, in constant memory.

pub mod input;
pub mod kafka;
pub mod producer;
pub mod record;
pub mod split;

use std::io::{self, Read};

use producer::{OutgoingRecord, RecordProducer, SendError};
use record::{NoKey, NotJson};
use split::{Position, RawRecord, SplitError, Splitter};

/// How much of a file is read at once, in bytes.
const CHUNK_BYTES: usize = 256 << 10;

/// What is sent where.
#[derive(Clone, Copy, Debug)]
pub struct Publication<'a> {
    /// The topic.
    pub topic: &'a str,
    /// The top-level field that gives the key; without it records have no key.
    pub key: Option<&'a str>,
}

/// How far the reading of one input has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Records handed to the producer.
    pub records: u64,
    /// Bytes read.
    pub bytes: u64,
}

/// Why an input was not sent whole.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// The input cannot be read.
    #[error("cannot read it: {0}")]
    Read(#[from] io::Error),
    /// The input cannot be cut into records.
    #[error("{}: {}", .0.position(), .0)]
    Split(#[from] SplitError),
    /// A record is not JSON.
    #[error("{}: not JSON: {}", .0.at, .0)]
    NotJson(#[from] NotJson),
    /// A record has no key.
    #[error("{at}: record {number} gives no key by `{field}`: {why}")]
    NoKey {
        /// Where the record starts.
        at: Position,
        /// The record's number in this input, from 1.
        number: u64,
        /// The field asked for.
        field: String,
        /// What is wrong with it.
        why: NoKey,
    },
    /// Kafka did not take a record.
    #[error(transparent)]
    Send(#[from] SendError),
}

/// Sends every record of `input`; `progress` hears after each chunk how far it has come.
///
/// Returns what was handed to `producer`, which confirms on its own: ask [`RecordProducer::flush`]
/// afterwards, also after an error, to know how many records Kafka has.
pub fn publish(
    input: &mut dyn Read,
    publication: Publication<'_>,
    producer: &mut dyn RecordProducer,
    progress: &mut dyn FnMut(Progress),
) -> Result<Progress, PublishError> {
    let mut splitter = Splitter::default();
    let mut chunk = vec![0; CHUNK_BYTES];
    let mut done = Progress::default();
    loop {
        let length = match input.read(&mut chunk) {
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error.into()),
        };
        if length == 0 {
            break;
        }
        let mut rest = &chunk[..length];
        loop {
            match splitter.next_record(&mut rest) {
                Ok(Some(record)) => send(&record, done.records + 1, publication, producer)?,
                Ok(None) => break,
                Err(error) => return Err(explained(error, &splitter)),
            }
            done.records += 1;
        }
        done.bytes += length as u64;
        progress(done);
    }
    match splitter.finish() {
        Ok(Some(record)) => {
            send(&record, done.records + 1, publication, producer)?;
            done.records += 1;
        }
        Ok(None) => {}
        Err(error) => return Err(explained(error, &splitter)),
    }
    Ok(done)
}

fn send(
    record: &RawRecord<'_>,
    number: u64,
    publication: Publication<'_>,
    producer: &mut dyn RecordProducer,
) -> Result<(), PublishError> {
    let text = record::check(record)?;
    let key = match publication.key {
        None => None,
        Some(field) => Some(record::key_of(text, field).map_err(|why| PublishError::NoKey {
            at: record.start,
            number,
            field: field.to_owned(),
            why,
        })?),
    };
    producer.send(&OutgoingRecord {
        topic: publication.topic,
        partition: None,
        key: key.as_deref().map(str::as_bytes),
        value: record.bytes,
    })?;
    Ok(())
}

/// A record without an end mostly has a mistake long before: that one is worth naming.
fn explained(error: SplitError, splitter: &Splitter) -> PublishError {
    if let SplitError::TooLarge { start, .. } | SplitError::Unfinished { start } = error
        && let Some(mistake) = record::first_mistake(splitter.unfinished(), start)
    {
        return mistake.into();
    }
    error.into()
}

#[cfg(test)]
mod tests {
    use super::producer::RecordingProducer;
    use super::*;

    fn publish_text(text: &str, key: Option<&str>) -> (RecordingProducer, Result<Progress, PublishError>) {
        let mut producer = RecordingProducer::default();
        let publication = Publication { topic: "t", key };
        let result = publish(&mut text.as_bytes(), publication, &mut producer, &mut |_| {});
        (producer, result)
    }

    #[test]
    fn values_are_sent_as_they_stand() {
        let (producer, result) = publish_text("[ {\"a\": 1.10,\n\"a\":2} ,\"x\"]", None);
        assert_eq!(result.unwrap().records, 2);
        assert_eq!(
            producer.sent,
            [("t".into(), None, "{\"a\": 1.10,\n\"a\":2}".into()), ("t".into(), None, "\"x\"".into())]
        );
    }

    #[test]
    fn a_number_at_the_end_of_the_input_is_a_record() {
        let (producer, result) = publish_text("1\n23", None);
        assert_eq!(result.unwrap(), Progress { records: 2, bytes: 4 });
        assert_eq!(producer.sent[1].2, "23");
    }

    #[test]
    fn keys_come_from_the_field() {
        let (producer, result) = publish_text("{\"id\":\"a\"}\n{\"id\":7}", Some("id"));
        assert!(result.is_ok());
        let keys: Vec<_> = producer.sent.iter().map(|(_, key, _)| key.as_deref()).collect();
        assert_eq!(keys, [Some("a"), Some("7")]);
    }

    #[test]
    fn what_stands_before_a_mistake_is_sent_and_the_mistake_is_named() {
        for (text, key, sent, message) in [
            ("{\"a\":1}\n{\"a\" 2}\n", None, 1, "line 2, byte 13: not JSON: expected `:`"),
            ("[1,2,}", None, 2, "line 1, byte 5: expected a record, found `}`"),
            ("1\n{\"a\":1\n{\"b\":2}", None, 1, "line 3, byte 9: not JSON: expected `,` or `}`"),
            ("1 {\"a\":", None, 1, "line 1, byte 2: the input ends inside the record that starts here"),
            (
                "{\"id\":1}{\"i\":1}",
                Some("id"),
                1,
                "line 1, byte 8: record 2 gives no key by `id`: it has no such field",
            ),
            ("nul", None, 0, "line 1, byte 2: not JSON: EOF while parsing a value"),
        ] {
            let (producer, result) = publish_text(text, key);
            assert_eq!(result.unwrap_err().to_string(), message, "{text}");
            assert_eq!(producer.sent.len(), sent, "{text}");
        }
    }

    #[test]
    fn a_producer_that_fails_ends_the_publishing() {
        let mut producer = RecordingProducer { fails_after: Some(1), ..RecordingProducer::default() };
        let publication = Publication { topic: "t", key: None };
        let error = publish(&mut &b"1 2 3"[..], publication, &mut producer, &mut |_| {}).unwrap_err();
        assert_eq!(error.to_string(), "the test broker is full");
        assert_eq!(producer.sent.len(), 1);
    }
}
