//! Which letters of a partition are replayed already, and how a consumer group remembers it.
//!
//! The group's position says that every letter below it is dealt with. What is replayed beyond it stands in the metadata
//! of the position, as distances from it, so that a selection that leaves letters out is remembered too. Brokers keep
//! 4096 bytes there: room for about a thousand pieces.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The most metadata that brokers keep beside a position by default, in bytes.
pub(super) const LONGEST_NOTE: usize = 4096;

/// The form of the metadata.
const VERSION: u64 = 1;

/// Offsets of one partition that are dealt with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Replayed {
    /// All offsets below are.
    next: i64,
    /// Further ones: first offset of a piece, and the offset after its last. Pieces neither touch each other nor `next`.
    beyond: BTreeMap<i64, i64>,
}

impl Replayed {
    /// All offsets below `next`, and none beyond.
    pub(super) fn below(next: i64) -> Self {
        Self { next: next.max(0), beyond: BTreeMap::new() }
    }

    /// The first offset that is not dealt with.
    pub(super) fn next(&self) -> i64 {
        self.next
    }

    /// How many pieces lie beyond [`Self::next`].
    pub(super) fn pieces(&self) -> usize {
        self.beyond.len()
    }

    /// Whether the offset is dealt with.
    pub(super) fn contains(&self, offset: i64) -> bool {
        offset < self.next || self.beyond.range(..=offset).next_back().is_some_and(|(_, end)| offset < *end)
    }

    /// Adds the offsets from `first` to below `end`.
    pub(super) fn insert(&mut self, first: i64, end: i64) {
        let (mut first, mut end) = (first.max(self.next), end);
        if first >= end {
            return;
        }
        while let Some((&start, &stop)) = self.beyond.range(..=end).next_back() {
            if stop < first {
                break;
            }
            self.beyond.remove(&start);
            (first, end) = (first.min(start), end.max(stop));
        }
        if first == self.next {
            self.next = end;
        } else {
            self.beyond.insert(first, end);
        }
    }

    /// Forgets what the log has lost: it begins at `begin` now.
    pub(super) fn log_begins_at(&mut self, begin: i64) {
        self.insert(self.next, begin);
    }

    /// Lengths in turn: of a gap, of a piece, of a gap …
    fn distances(&self) -> Vec<i64> {
        let mut at = self.next;
        let mut distances = Vec::with_capacity(2 * self.beyond.len());
        for (first, end) in &self.beyond {
            distances.extend([first - at, end - first]);
            at = *end;
        }
        distances
    }

    fn from_distances(next: i64, distances: &[i64]) -> Option<Self> {
        let mut replayed = Self::below(next);
        let mut at = replayed.next;
        let (pairs, rest) = distances.as_chunks::<2>();
        if !rest.is_empty() {
            return None;
        }
        for [gap, piece] in pairs {
            if *gap < 1 || *piece < 1 {
                return None;
            }
            let first = at.checked_add(*gap)?;
            at = first.checked_add(*piece)?;
            replayed.beyond.insert(first, at);
        }
        Some(replayed)
    }
}

/// What stands beside the group's position in one partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Note {
    /// The pipeline whose letters were replayed.
    pub(super) pipeline: String,
    /// Kafka's id of the dead letter topic, where the broker gives one.
    pub(super) topic_id: Option<String>,
    /// What is dealt with.
    pub(super) replayed: Replayed,
}

/// Why metadata is no [`Note`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum NoteError {
    /// Written by something else.
    #[error("another tool has written beside the position")]
    Foreign,
    /// Written by a newer txconnect.
    #[error("a newer txconnect has written beside the position (version {0}); update this one")]
    Newer(u64),
}

#[derive(Deserialize)]
struct Version {
    #[serde(rename = "replayed")]
    version: u64,
}

#[derive(Serialize, Deserialize)]
struct Wire {
    #[serde(rename = "replayed")]
    version: u64,
    pipeline: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    topic: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    beyond: Vec<i64>,
}

impl Note {
    /// The note as text. It may be longer than brokers take: see [`LONGEST_NOTE`].
    pub(super) fn text(&self) -> String {
        let wire = Wire {
            version: VERSION,
            pipeline: self.pipeline.clone(),
            topic: self.topic_id.clone(),
            beyond: self.replayed.distances(),
        };
        serde_json::to_string(&wire).unwrap_or_else(|_| unreachable!("text and numbers are always JSON"))
    }

    /// The note that stands in `text` beside the position `next`.
    pub(super) fn parse(next: i64, text: &str) -> Result<Self, NoteError> {
        let Version { version } = serde_json::from_str(text).map_err(|_| NoteError::Foreign)?;
        if version > VERSION {
            return Err(NoteError::Newer(version));
        }
        let wire: Wire = serde_json::from_str(text).map_err(|_| NoteError::Foreign)?;
        let replayed = Replayed::from_distances(next, &wire.beyond).ok_or(NoteError::Foreign)?;
        Ok(Self { pipeline: wire.pipeline, topic_id: wire.topic, replayed })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn note(replayed: Replayed) -> Note {
        Note { pipeline: "transactions".into(), topic_id: Some("kYq2lVbEQg2cHk0nT3rH5A".into()), replayed }
    }

    #[test]
    fn a_selection_with_gaps_is_remembered_beyond_the_position() {
        let mut replayed = Replayed::below(10);
        replayed.insert(12, 15);
        replayed.insert(20, 21);
        assert_eq!(replayed.next(), 10);
        assert_eq!(replayed.pieces(), 2);
        let text = note(replayed.clone()).text();
        assert!(text.contains("\"beyond\":[2,3,5,1]"), "{text}");
        assert_eq!(Note::parse(10, &text), Ok(note(replayed.clone())));
        // The gap is filled: the position moves over everything that was remembered.
        replayed.insert(10, 12);
        assert_eq!((replayed.next(), replayed.pieces()), (15, 1));
        replayed.log_begins_at(20);
        assert_eq!((replayed.next(), replayed.pieces()), (21, 0));
    }

    #[test]
    fn about_a_thousand_single_letters_fit_beside_a_position() {
        let mut replayed = Replayed::below(0);
        for letter in 0..900 {
            replayed.insert(7_000_000_000 + 2 * letter, 7_000_000_000 + 2 * letter + 1);
        }
        assert!(note(replayed).text().len() <= LONGEST_NOTE);
    }

    #[test]
    fn metadata_of_others_and_of_newer_versions_is_told_apart() {
        for foreign in [
            "",
            "x",
            "{}",
            "[]",
            "{\"v\":1,\"s\":[]}",
            "{\"replayed\":1}",
            "{\"replayed\":\"1\",\"pipeline\":\"p\"}",
        ] {
            assert_eq!(Note::parse(0, foreign), Err(NoteError::Foreign), "{foreign}");
        }
        for distances in ["1", "0,1", "1,0", "-1,1", "1,9223372036854775807"] {
            let text = format!("{{\"replayed\":1,\"pipeline\":\"p\",\"beyond\":[{distances}]}}");
            assert_eq!(Note::parse(5, &text), Err(NoteError::Foreign), "{text}");
        }
        assert_eq!(Note::parse(0, "{\"replayed\":2,\"else\":3}"), Err(NoteError::Newer(2)));
    }

    proptest! {
        #[test]
        fn pieces_hold_exactly_what_was_inserted(
            next in 0_i64..20,
            pieces in prop::collection::vec((0_i64..100, 0_i64..10), 0..40),
        ) {
            let mut replayed = Replayed::below(next);
            let mut expected: BTreeSet<i64> = (0..next).collect();
            for (first, length) in pieces {
                replayed.insert(first, first + length);
                expected.extend(first..first + length);
            }
            for offset in 0..120 {
                prop_assert_eq!(replayed.contains(offset), expected.contains(&offset), "{}", offset);
            }
            let first_missing = (0..200).find(|offset| !expected.contains(offset)).unwrap();
            prop_assert_eq!(replayed.next(), first_missing);
            // No two pieces could be one.
            let runs = expected.iter().filter(|offset| !expected.contains(&(**offset - 1))).count();
            prop_assert_eq!(replayed.pieces() + usize::from(first_missing > 0), runs);
            let note = note(replayed);
            prop_assert_eq!(Note::parse(note.replayed.next(), &note.text()), Ok(note));
        }

        #[test]
        fn no_metadata_makes_the_parser_panic(next in any::<i64>(), text in any::<String>(), numbers in any::<Vec<i64>>()) {
            let _ = Note::parse(next, &text);
            let text = serde_json::json!({ "replayed": 1, "pipeline": text, "beyond": numbers }).to_string();
            if let Ok(note) = Note::parse(next, &text) {
                prop_assert_eq!(note.replayed.distances(), numbers);
            }
        }
    }
}
