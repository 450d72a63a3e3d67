//! Letters as people and programs read them.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use time::OffsetDateTime;
use time::macros::format_description;

use super::letter::{Letter, Place};
use super::look::PartitionView;

/// What stands where there is nothing to say.
pub(super) const NOTHING: &str = "-";
/// The longest text of a header that is shown without being asked for, in characters. Other tools write whole stack traces.
const LONGEST: usize = 300;

/// What has become of a letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum State {
    /// It was not replayed.
    Waiting,
    /// It was replayed.
    Replayed,
    /// Another pipeline or tool has written it: `replay` leaves it alone.
    OfOthers,
}

impl State {
    /// The state of a letter of this partition, for `pipeline`.
    pub(super) fn of(letter: &Letter<'_>, partition: &PartitionView, pipeline: &str) -> Self {
        if letter.writer().as_deref() != Some(pipeline) || letter.origin().is_none() {
            Self::OfOthers
        } else if partition.replayed.contains(letter.offset) {
            Self::Replayed
        } else {
            Self::Waiting
        }
    }

    /// The state in words.
    pub(super) fn words(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Replayed => "replayed",
            Self::OfOthers => "of others",
        }
    }
}

/// Text of a header on one line: without characters that steer a terminal, and not endless.
pub(super) fn shown(text: &str) -> String {
    let mut characters = text.chars();
    let mut shown = escaped(characters.by_ref().take(LONGEST));
    if characters.next().is_some() {
        shown.push('…');
    }
    shown
}

/// Text without characters that steer a terminal.
fn escaped(characters: impl Iterator<Item = char>) -> String {
    let mut text = String::new();
    for character in characters {
        // The last two kinds change the direction of writing, or nothing that can be seen.
        let hidden =
            matches!(character, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        if character.is_control() || hidden {
            text.extend(character.escape_default());
        } else {
            text.push(character);
        }
    }
    text
}

/// The lines of a text, each without characters that steer a terminal.
pub(super) fn lines(text: &str) -> Vec<String> {
    text.lines().map(|line| escaped(line.chars())).collect()
}

/// Text of a header that may be missing.
pub(super) fn told(text: Option<Cow<'_, str>>) -> Option<String> {
    text.filter(|text| !text.is_empty()).map(|text| shown(&text))
}

/// Milliseconds since 1970 as a time in UTC.
pub(super) fn moment(millis: Option<i64>) -> Option<String> {
    let format = format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z");
    let moment = OffsetDateTime::from_unix_timestamp_nanos(i128::from(millis?) * 1_000_000).ok()?;
    moment.format(format).ok()
}

/// Bytes as they can be shown.
#[derive(Debug, Serialize)]
pub(super) struct Datum {
    encoding: &'static str,
    data: String,
}

impl Datum {
    pub(super) fn of(bytes: &[u8]) -> Self {
        match std::str::from_utf8(bytes) {
            Ok(text) => Self { encoding: "utf-8", data: text.to_owned() },
            Err(_) => Self { encoding: "base64", data: STANDARD.encode(bytes) },
        }
    }

    /// The bytes on one line.
    pub(super) fn line(&self) -> String {
        format!("{}: {}", self.encoding, escaped(self.data.chars()))
    }
}

#[derive(Debug, Serialize)]
pub(super) struct Location {
    topic: String,
    partition: Option<i32>,
    offset: Option<i64>,
}

impl From<Place> for Location {
    fn from(place: Place) -> Self {
        Self { topic: place.topic, partition: Some(place.partition), offset: Some(place.offset) }
    }
}

impl Location {
    fn text(&self) -> String {
        let number = |number: Option<i64>| number.map_or_else(|| "?".to_owned(), |number| number.to_string());
        format!("{}/{}/{}", self.topic, number(self.partition.map(i64::from)), number(self.offset))
    }
}

/// What is told of one letter, without any value of the record.
#[derive(Debug, Serialize)]
pub(super) struct Told {
    letter: Location,
    /// Where the record stood.
    record: Option<Location>,
    timestamp: Option<String>,
    pub(super) state: State,
    /// How often the record had been replayed before it became this letter.
    replays: u32,
    written_by: Option<String>,
    stage: Option<String>,
    class: Option<String>,
    path: Option<String>,
    message: Option<String>,
    key_bytes: Option<usize>,
    value_bytes: Option<usize>,
}

impl Told {
    /// `values` permits the messages of other tools, which may quote the record.
    pub(super) fn of(letter: &Letter<'_>, state: State, values: bool) -> Self {
        let message = letter.message().filter(|_| values || letter.is_of_txconnect());
        Self {
            letter: letter.place().into(),
            record: letter.origin().map(|origin| Location {
                topic: shown(origin.topic),
                partition: origin.partition,
                offset: origin.offset,
            }),
            timestamp: moment(letter.timestamp),
            state,
            replays: letter.replays(),
            written_by: told(letter.writer()),
            stage: told(letter.stage()),
            class: told(letter.class()),
            path: told(letter.path()),
            message: told(message),
            key_bytes: letter.key.map(<[u8]>::len),
            value_bytes: letter.value.map(<[u8]>::len),
        }
    }

    /// Where the letter stands.
    pub(super) fn place(&self) -> String {
        self.letter.text()
    }

    /// One line, its parts two spaces apart.
    pub(super) fn line(&self) -> String {
        let or_nothing = |text: &Option<String>| text.clone().unwrap_or_else(|| NOTHING.to_owned());
        [
            self.place(),
            self.state.words().to_owned(),
            or_nothing(&self.timestamp),
            self.record.as_ref().map_or_else(|| NOTHING.to_owned(), Location::text),
            or_nothing(&self.stage),
            or_nothing(&self.class),
            or_nothing(&self.path),
            or_nothing(&self.message),
        ]
        .join("  ")
    }

    /// Names with what is told, for a list.
    pub(super) fn facts(&self) -> Vec<(&'static str, String)> {
        let or_nothing = |text: &Option<String>| text.clone().unwrap_or_else(|| NOTHING.to_owned());
        vec![
            ("record", self.record.as_ref().map_or_else(|| NOTHING.to_owned(), Location::text)),
            ("time", or_nothing(&self.timestamp)),
            ("written by", or_nothing(&self.written_by)),
            ("stage", or_nothing(&self.stage)),
            ("class", or_nothing(&self.class)),
            ("path", or_nothing(&self.path)),
            ("message", or_nothing(&self.message)),
            ("replays", self.replays.to_string()),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::super::letter::tests::{bare_letter, letter};
    use super::super::replayed::Replayed;
    use super::*;
    use proptest::prelude::*;
    use txconnect_connector_api::TopicPartition;

    fn partition(replayed: Replayed) -> PartitionView {
        PartitionView {
            partition: TopicPartition::new("cash_ins.dead-letters", 0),
            begin: 0,
            end: 100,
            topic_id: None,
            replayed,
        }
    }

    #[test]
    fn a_letter_waits_is_replayed_or_belongs_to_others() {
        let own = letter(&[]);
        let none = partition(Replayed::below(12));
        assert_eq!(State::of(&own, &none, "transactions"), State::Waiting);
        assert_eq!(State::of(&own, &partition(Replayed::below(13)), "transactions"), State::Replayed);
        assert_eq!(State::of(&own, &none, "another"), State::OfOthers);
        assert_eq!(State::of(&bare_letter(), &none, "transactions"), State::OfOthers);
    }

    #[test]
    fn a_line_says_where_and_why_and_no_value() {
        let letter = letter(&[("token", Some(b"hunter2"))]);
        let line = Told::of(&letter, State::Waiting, false).line();
        assert_eq!(
            line,
            "cash_ins.dead-letters/0/12  waiting  2023-11-14T22:13:20.000Z  cash_ins/2/345  validate  \
             validate.required  /amount  /amount is missing"
        );
    }

    #[test]
    fn nothing_that_is_shown_steers_the_terminal() {
        assert_eq!(shown("a\u{1b}[31mb\nc\u{202e}"), "a\\u{1b}[31mb\\nc\\u{202e}");
        assert!(shown(&"x".repeat(1000)).chars().count() <= LONGEST + 1);
        assert_eq!(Datum::of(b"a\tb").line(), "utf-8: a\\tb");
        assert_eq!(Datum::of(b"\xff\x00").line(), "base64: /wA=");
    }

    #[test]
    fn a_time_outside_the_calendar_is_left_out() {
        assert_eq!(moment(Some(0)).as_deref(), Some("1970-01-01T00:00:00.000Z"));
        assert_eq!(moment(Some(i64::MAX)), None);
        assert_eq!(moment(None), None);
    }

    proptest! {
        #[test]
        fn no_text_keeps_its_control_characters(text in any::<String>()) {
            prop_assert!(!shown(&text).chars().any(char::is_control));
        }
    }
}
