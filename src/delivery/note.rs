//! What stands beside a position in a Kafka commit: whose it is, and which streams it counts on.
//!
//! Kafka keeps up to 4,096 bytes of text with every position (`offset.metadata.max.bytes`). A position without a note
//! of ours was set by another program.

use serde::{Deserialize, Serialize};
use txconnect_connector_api::StreamName;

/// Kafka's limit for the text, in bytes; brokers may be set to less.
pub const MAX_NOTE_BYTES: usize = 4096;

/// Stands beside the group's positions where the sink keeps those that count.
const OFFSETS_IN_SINK: &str = "txconnect:offsets-in-sink";
/// Stands beside positions that rows have followed: everything before them can be seen.
const AT_LEAST_ONCE: &str = "txconnect:at-least-once";

/// The version of [`StreamsNote`] that is written here.
const VERSION: u32 = 1;

/// What a commit says beside its position.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Note {
    /// Everything before the position is in the sink.
    AtLeastOnce,
    /// The position that counts is in the sink.
    OffsetsInSink,
    /// Rows before the position stand in streams.
    Streams(StreamsNote),
}

/// The streams of one partition, as a commit names them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StreamsNote {
    /// Streams whose first rows belong to the position.
    pub streams: Vec<CommittedStream>,
    /// Streams that nothing depends on any more. They are finalized, or are to be.
    pub finalize: Vec<StreamName>,
    /// The position before which every row can be seen, where it is known.
    pub visible_before: Option<i64>,
}

/// One stream in a commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommittedStream {
    /// The stream.
    pub stream: StreamName,
    /// How many of its rows belong to the position.
    pub end: i64,
    /// How many of them were known to be visible when the commit was sent.
    pub published: i64,
}

/// Text that is no note of ours.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoteError {
    /// It says nothing, or something that we did not write.
    #[error("it was set by another program")]
    Foreign,
    /// A newer version has written it.
    #[error("it was written by a newer version of txconnect")]
    Newer,
}

/// The text's form: short names, since 4,096 bytes are all there is.
#[derive(Serialize, Deserialize)]
struct Text {
    txconnect: u32,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    s: Vec<(String, i64, i64)>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    f: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    q: Option<i64>,
}

/// What every version of the text has.
#[derive(Deserialize)]
struct Version {
    txconnect: u32,
}

impl Note {
    /// The note as text.
    pub fn to_text(&self) -> String {
        match self {
            Self::AtLeastOnce => AT_LEAST_ONCE.to_owned(),
            Self::OffsetsInSink => OFFSETS_IN_SINK.to_owned(),
            Self::Streams(note) => note.to_text(),
        }
    }

    /// Reads what stands beside a position.
    ///
    /// # Errors
    /// When it is not ours, or newer than this program.
    pub fn read(text: &str) -> Result<Self, NoteError> {
        match text {
            AT_LEAST_ONCE => return Ok(Self::AtLeastOnce),
            OFFSETS_IN_SINK => return Ok(Self::OffsetsInSink),
            _ => {}
        }
        let Version { txconnect: version } = serde_json::from_str(text).map_err(|_| NoteError::Foreign)?;
        if version > VERSION {
            return Err(NoteError::Newer);
        }
        let Text { s, f, q, .. } = serde_json::from_str(text).map_err(|_| NoteError::Foreign)?;
        let name = |name: String| StreamName(name.into());
        let streams = s.into_iter().map(|(stream, end, published)| {
            let sound = end > 0 && (0..=end).contains(&published);
            sound.then(|| CommittedStream { stream: name(stream), end, published }).ok_or(NoteError::Foreign)
        });
        Ok(Self::Streams(StreamsNote {
            streams: streams.collect::<Result<_, _>>()?,
            finalize: f.into_iter().map(name).collect(),
            visible_before: q,
        }))
    }
}

impl StreamsNote {
    fn to_text(&self) -> String {
        let text = Text {
            txconnect: VERSION,
            s: self
                .streams
                .iter()
                .map(|committed| (committed.stream.to_string(), committed.end, committed.published))
                .collect(),
            f: self.finalize.iter().map(StreamName::to_string).collect(),
            q: self.visible_before,
        };
        // Strings and numbers always have a JSON form.
        serde_json::to_string(&text).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn stream(name: &str) -> StreamName {
        StreamName(name.into())
    }

    #[test]
    fn a_note_is_short_and_reads_back() {
        let note = Note::Streams(StreamsNote {
            streams: vec![CommittedStream { stream: stream("p.d.t/Ci1"), end: 20, published: 10 }],
            finalize: vec![stream("p.d.t/Ci0")],
            visible_before: Some(7),
        });
        let text = note.to_text();
        assert_eq!(text, r#"{"txconnect":1,"s":[["p.d.t/Ci1",20,10]],"f":["p.d.t/Ci0"],"q":7}"#);
        assert_eq!(Note::read(&text), Ok(note));
        let empty = Note::Streams(StreamsNote::default());
        assert_eq!(empty.to_text(), r#"{"txconnect":1}"#);
        assert_eq!(Note::read(r#"{"txconnect":1}"#), Ok(empty));
    }

    #[test]
    fn what_others_write_is_told_from_what_a_newer_version_writes() {
        for text in [
            "",
            "NO_METADATA",
            "{}",
            r#"{"v":1}"#,
            r#"{"txconnect":1,"s":[["x",1,2]]}"#,
            r#"{"txconnect":-1}"#,
        ] {
            assert_eq!(Note::read(text), Err(NoteError::Foreign), "{text}");
        }
        assert_eq!(Note::read(r#"{"txconnect":2,"s":7}"#), Err(NoteError::Newer));
        for note in [Note::AtLeastOnce, Note::OffsetsInSink] {
            assert_eq!(Note::read(&note.to_text()), Ok(note));
        }
    }

    proptest! {
        #[test]
        fn every_note_reads_back(
            streams in prop::collection::vec((any::<String>(), 1_i64..i64::MAX, 0.0..=1.0_f64), 0..4),
            finalize in prop::collection::vec(any::<String>(), 0..4),
            visible_before in any::<Option<i64>>(),
        ) {
            let streams = streams.into_iter().map(|(name, end, share)| {
                #[expect(clippy::cast_possible_truncation, reason = "a share of an i64")]
                let published = ((end as f64 * share) as i64).min(end);
                CommittedStream { stream: stream(&name), end, published }
            });
            let finalize = finalize.iter().map(|name| stream(name)).collect();
            let note = Note::Streams(StreamsNote { streams: streams.collect(), finalize, visible_before });
            prop_assert_eq!(Note::read(&note.to_text()), Ok(note));
        }

        #[test]
        fn no_text_makes_the_reader_panic(text in any::<String>()) {
            let _ = Note::read(&text);
        }
    }
}
