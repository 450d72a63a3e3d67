//! One dead letter: the record as it was, and the headers that say what was wrong with it.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;
use std::str::FromStr;

use txconnect_connector_api::Header;
use txconnect_kafka::Message;

/// What the names of the headers begin with that a dead letter gets.
const ADDED: [&str; 2] = ["__connect.errors.", "txconnect.error."];
/// The first header that a dead letter gets, from txconnect as from Kafka Connect.
const FIRST_ADDED: &str = "__connect.errors.topic";
/// What the names of the headers begin with that a replayed record gets.
const REPLAY: &str = "txconnect.replay.";
/// How often the record was replayed.
const REPLAY_COUNT: &str = "txconnect.replay.count";
/// The letter that the record was replayed from.
const REPLAY_LETTER: &str = "txconnect.replay.letter";

/// Where a record stands, written `TOPIC/PARTITION/OFFSET`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The topic's name.
    pub topic: String,
    /// The partition's number.
    pub partition: i32,
    /// The offset.
    pub offset: i64,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.topic, self.partition, self.offset)
    }
}

impl FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parsed = || {
            let (rest, offset) = text.rsplit_once('/')?;
            let (topic, partition) = rest.rsplit_once('/')?;
            Some(Self { topic: named(topic)?, partition: number(partition)?, offset: number(offset)? })
        };
        parsed()
            .ok_or_else(|| "write TOPIC/PARTITION/OFFSET, for example cash_ins.dead-letters/0/12".to_owned())
    }
}

/// Letters of one partition that follow one another, written `TOPIC/PARTITION/OFFSET` or `TOPIC/PARTITION/FIRST-LAST`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stretch {
    /// The dead letter topic.
    pub topic: String,
    /// The partition's number.
    pub partition: i32,
    /// The first offset.
    pub first: i64,
    /// The last offset.
    pub last: i64,
}

impl FromStr for Stretch {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parsed = || {
            let (rest, offsets) = text.rsplit_once('/')?;
            let (topic, partition) = rest.rsplit_once('/')?;
            let (first, last) = offsets.split_once('-').unwrap_or((offsets, offsets));
            let (first, last) = (number(first)?, number(last)?);
            let (topic, partition) = (named(topic)?, number(partition)?);
            (first <= last).then_some(Self { topic, partition, first, last })
        };
        parsed().ok_or_else(|| {
            "write TOPIC/PARTITION/OFFSET or TOPIC/PARTITION/FIRST-LAST, for example cash_ins.dead-letters/0/12-40"
                .to_owned()
        })
    }
}

fn named(topic: &str) -> Option<String> {
    (!topic.is_empty() && !topic.contains('/')).then(|| topic.to_owned())
}

fn number<N: FromStr>(text: &str) -> Option<N> {
    // Neither signs nor spaces.
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

/// A dead letter as it was read.
#[derive(Clone, Debug)]
pub(super) struct Letter<'a> {
    pub(super) topic: &'a str,
    pub(super) partition: i32,
    pub(super) offset: i64,
    /// Milliseconds since 1970: the record's own.
    pub(super) timestamp: Option<i64>,
    pub(super) key: Option<&'a [u8]>,
    pub(super) value: Option<&'a [u8]>,
    headers: Vec<(Cow<'a, str>, Option<&'a [u8]>)>,
    /// The headers that the letter got; empty where nobody has said what is wrong with the record.
    added: Range<usize>,
}

/// Where the record of a letter came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Origin<'a> {
    pub(super) topic: &'a str,
    /// None where the header is no number.
    pub(super) partition: Option<i32>,
    /// None where the header is no number.
    pub(super) offset: Option<i64>,
}

impl<'a> Letter<'a> {
    /// The letter that the message holds.
    pub(super) fn of(message: Message<'a>) -> Self {
        let headers: Vec<_> = message.headers().collect();
        Self {
            topic: message.topic(),
            partition: message.partition(),
            offset: message.offset(),
            timestamp: message.timestamp(),
            key: message.key(),
            value: message.payload(),
            added: added(&headers),
            headers,
        }
    }

    /// Where the letter stands.
    pub(super) fn place(&self) -> Place {
        Place { topic: self.topic.to_owned(), partition: self.partition, offset: self.offset }
    }

    /// Where the record stood, where the letter says so.
    pub(super) fn origin(&self) -> Option<Origin<'_>> {
        let topic = std::str::from_utf8(self.told_bytes(FIRST_ADDED)?).ok()?;
        let number = |name| number_of(self.told_bytes(name));
        Some(Origin {
            topic: Some(topic).filter(|topic| !topic.is_empty())?,
            partition: number("__connect.errors.partition").and_then(|number| number.try_into().ok()),
            offset: number("__connect.errors.offset"),
        })
    }

    /// The name of the pipeline, or of the connector of another tool, that has written the letter.
    pub(super) fn writer(&self) -> Option<Cow<'_, str>> {
        self.told("__connect.errors.connector.name")
    }

    /// The stage that has found the mistake.
    pub(super) fn stage(&self) -> Option<Cow<'_, str>> {
        self.told("__connect.errors.stage")
    }

    /// The kind of mistake.
    pub(super) fn class(&self) -> Option<Cow<'_, str>> {
        self.told("__connect.errors.exception.class.name")
    }

    /// Where in the record the mistake is.
    pub(super) fn path(&self) -> Option<Cow<'_, str>> {
        self.told("txconnect.error.path")
    }

    /// What is wrong.
    pub(super) fn message(&self) -> Option<Cow<'_, str>> {
        self.told("__connect.errors.exception.message")
    }

    /// Where it happened inside a transform, or inside another tool; several lines. It may quote the record.
    pub(super) fn trace(&self) -> Option<Cow<'_, str>> {
        self.told("__connect.errors.exception.stacktrace")
    }

    /// Whether txconnect has written it. Its messages never hold a value of the record; those of other tools may.
    pub(super) fn is_of_txconnect(&self) -> bool {
        self.headers[self.added.clone()].iter().any(|(name, _)| name.starts_with(ADDED[1]))
    }

    /// The headers that the record had.
    pub(super) fn own_headers(&self) -> impl Iterator<Item = (&str, Option<&'a [u8]>)> {
        let (before, after) = (&self.headers[..self.added.start], &self.headers[self.added.end..]);
        before.iter().chain(after).map(|(name, value)| (&**name, *value))
    }

    /// How often the record has been replayed: 0 for one that never was.
    pub(super) fn replays(&self) -> u32 {
        let last = self.own_headers().filter(|(name, _)| *name == REPLAY_COUNT).last();
        let count = last.and_then(|(_, value)| number_of(value)).unwrap_or(0);
        u32::try_from(count).unwrap_or(u32::MAX)
    }

    /// Calls `with` with the headers that the record gets when it is sent back: its own, and how often and from which
    /// letter it was replayed.
    pub(super) fn with_replay_headers<T>(&self, with: impl FnOnce(&[Header<'_>]) -> T) -> T {
        let count = self.replays().saturating_add(1).to_string();
        let place = self.place().to_string();
        let own = self.own_headers().filter(|(name, _)| !name.starts_with(REPLAY));
        let mut headers: Vec<Header<'_>> = own.map(|(name, value)| Header { name, value }).collect();
        headers.push(Header { name: REPLAY_COUNT, value: Some(count.as_bytes()) });
        headers.push(Header { name: REPLAY_LETTER, value: Some(place.as_bytes()) });
        with(&headers)
    }

    fn told_bytes(&self, wanted: &str) -> Option<&'a [u8]> {
        self.headers[self.added.clone()].iter().find(|(name, _)| name == wanted)?.1
    }

    fn told(&self, wanted: &str) -> Option<Cow<'_, str>> {
        self.told_bytes(wanted).map(String::from_utf8_lossy)
    }
}

/// The headers that the letter got last. A record that had been a dead letter before has such headers of its own.
fn added(headers: &[(Cow<'_, str>, Option<&[u8]>)]) -> Range<usize> {
    let Some(first) = headers.iter().rposition(|(name, _)| name == FIRST_ADDED) else { return 0..0 };
    let belongs =
        |(name, _): &&(Cow<'_, str>, Option<&[u8]>)| ADDED.iter().any(|start| name.starts_with(start));
    first..first + headers[first..].iter().take_while(belongs).count()
}

fn number_of(value: Option<&[u8]>) -> Option<i64> {
    number(std::str::from_utf8(value?).ok()?)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use proptest::prelude::*;

    type Pair<'a> = (&'a str, Option<&'a [u8]>);

    /// The headers that txconnect adds.
    const OURS: [Pair<'_>; 8] = [
        ("__connect.errors.topic", Some(b"cash_ins")),
        ("__connect.errors.partition", Some(b"2")),
        ("__connect.errors.offset", Some(b"345")),
        ("__connect.errors.connector.name", Some(b"transactions")),
        ("__connect.errors.stage", Some(b"validate")),
        ("__connect.errors.exception.class.name", Some(b"validate.required")),
        ("__connect.errors.exception.message", Some(b"/amount is missing")),
        ("txconnect.error.path", Some(b"/amount")),
    ];

    /// A letter at offset 12 with these headers.
    fn with_headers<'a>(headers: &[Pair<'a>]) -> Letter<'a> {
        let headers: Vec<_> = headers.iter().map(|(name, value)| (Cow::Borrowed(*name), *value)).collect();
        Letter {
            topic: "cash_ins.dead-letters",
            partition: 0,
            offset: 12,
            timestamp: Some(1_700_000_000_000),
            key: Some(b"k"),
            value: Some(b"{}"),
            added: added(&headers),
            headers,
        }
    }

    /// A letter of the pipeline `transactions`, of the record `cash_ins/2/345`, whose own headers are these.
    pub(in super::super) fn letter<'a>(own: &[Pair<'a>]) -> Letter<'a> {
        with_headers(&[own, &OURS].concat())
    }

    /// A letter that a transform has died at.
    pub(in super::super) fn letter_with_trace(trace: &str) -> Letter<'_> {
        let trace = ("__connect.errors.exception.stacktrace", Some(trace.as_bytes()));
        with_headers(&[&OURS[..], &[trace]].concat())
    }

    /// A letter that nobody has said anything about.
    pub(in super::super) fn bare_letter() -> Letter<'static> {
        with_headers(&[])
    }

    fn sent(letter: &Letter<'_>) -> Vec<(String, Option<Vec<u8>>)> {
        letter.with_replay_headers(|headers| {
            headers.iter().map(|header| (header.name.to_owned(), header.value.map(<[u8]>::to_vec))).collect()
        })
    }

    fn text(name: &str, value: &str) -> (String, Option<Vec<u8>>) {
        (name.to_owned(), Some(value.as_bytes().to_vec()))
    }

    #[test]
    fn a_letter_tells_cause_and_origin() {
        let letter = letter(&[("trace", Some(b"a\xffb"))]);
        let origin = Origin { topic: "cash_ins", partition: Some(2), offset: Some(345) };
        assert_eq!(letter.origin(), Some(origin));
        assert_eq!(letter.writer().as_deref(), Some("transactions"));
        assert_eq!(letter.class().as_deref(), Some("validate.required"));
        assert_eq!(letter.own_headers().collect::<Vec<_>>(), [("trace", Some(&b"a\xffb"[..]))]);
        assert!(letter.is_of_txconnect());
    }

    #[test]
    fn what_is_sent_back_has_its_own_headers_and_says_that_it_was_replayed() {
        let first = letter(&[("trace", None)]);
        let expected = [
            ("trace".to_owned(), None),
            text("txconnect.replay.count", "1"),
            text("txconnect.replay.letter", "cash_ins.dead-letters/0/12"),
        ];
        assert_eq!(sent(&first), expected);
        let second = letter(&[
            ("txconnect.replay.count", Some(b"1")),
            ("trace", None),
            ("txconnect.replay.letter", Some(b"cash_ins.dead-letters/0/3")),
        ]);
        assert_eq!(second.replays(), 1);
        assert_eq!(sent(&second)[0], ("trace".to_owned(), None));
        assert_eq!(sent(&second)[1], text("txconnect.replay.count", "2"));
    }

    #[test]
    fn the_headers_of_a_record_that_was_a_letter_before_stay() {
        let letter = letter(&OURS);
        assert_eq!(letter.own_headers().collect::<Vec<_>>(), OURS);
        assert_eq!(sent(&letter).len(), OURS.len() + 2);
    }

    #[test]
    fn letters_of_kafka_connect_are_understood_and_not_taken_for_ours() {
        let letter = with_headers(&[
            ("own", Some(b"1")),
            ("__connect.errors.topic", Some(b"orders")),
            ("__connect.errors.partition", Some(b"x")),
            ("__connect.errors.offset", Some(b"7")),
            ("__connect.errors.connector.name", Some(b"jdbc-sink")),
            ("__connect.errors.task.id", Some(b"0")),
            ("__connect.errors.stage", Some(b"VALUE_CONVERTER")),
            ("__connect.errors.exception.message", None),
            ("__connect.errors.exception.stacktrace", Some(b"at org.apache")),
            ("later", Some(b"2")),
        ]);
        assert_eq!(letter.origin(), Some(Origin { topic: "orders", partition: None, offset: Some(7) }));
        assert!(!letter.is_of_txconnect());
        assert_eq!(letter.message(), None);
        let own: Vec<_> = letter.own_headers().map(|(name, _)| name).collect();
        assert_eq!(own, ["own", "later"]);
    }

    #[test]
    fn what_nobody_has_said_or_nobody_can_read_is_unknown() {
        assert_eq!(bare_letter().origin(), None);
        assert_eq!(bare_letter().writer(), None);
        let unreadable = with_headers(&[("__connect.errors.topic", Some(b"\xff"))]);
        assert_eq!(unreadable.origin(), None);
        let count = |count: &'static [u8]| letter(&[("txconnect.replay.count", Some(count))]).replays();
        assert_eq!((count(b"-1"), count(b"many"), count(b"7"), count(b"99999999999")), (0, 0, 7, u32::MAX));
    }

    #[test]
    fn places_are_written_with_slashes() {
        let place = Place { topic: "a.dead-letters".into(), partition: 3, offset: 12 };
        assert_eq!("a.dead-letters/3/12".parse(), Ok(place.clone()));
        assert_eq!(place.to_string(), "a.dead-letters/3/12");
        for wrong in
            ["", "a", "a/1", "a/1/", "/1/2", "a/-1/2", "a/1/+2", "a/b/1/2", "a/1/99999999999999999999"]
        {
            assert!(wrong.parse::<Place>().is_err(), "{wrong}");
        }
        let stretch = Stretch { topic: "a".into(), partition: 1, first: 4, last: 9 };
        assert_eq!("a/1/4-9".parse(), Ok(stretch));
        assert_eq!("a/1/4".parse::<Stretch>().map(|one| (one.first, one.last)), Ok((4, 4)));
        for wrong in ["a/1/9-4", "a/1/4-", "a/1/-4", "a/1/4-5-6", "a/1"] {
            assert!(wrong.parse::<Stretch>().is_err(), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn own_headers_come_back_whatever_they_are(
            own in prop::collection::vec(
                (prop_oneof!["[a-z_.]{0,8}", "__connect\\.errors\\.(topic|stage|x)", "txconnect\\.error\\.path"],
                 prop::option::of(prop::collection::vec(any::<u8>(), 0..6))),
                0..6,
            ),
        ) {
            let pairs: Vec<Pair<'_>> = own.iter().map(|(name, value)| (name.as_str(), value.as_deref())).collect();
            let letter = letter(&pairs);
            prop_assert_eq!(letter.own_headers().collect::<Vec<_>>(), pairs);
            prop_assert_eq!(letter.origin().and_then(|origin| origin.offset), Some(345));
            let back = sent(&letter);
            prop_assert_eq!(&back[..own.len()], &own[..]);
            prop_assert_eq!(back.len(), own.len() + 2);
        }

        #[test]
        fn any_headers_can_be_read(
            headers in prop::collection::vec(
                (prop_oneof!["\\PC{0,6}", "__connect\\.errors\\.(topic|partition|offset|stage)", "txconnect\\.replay\\.count"],
                 prop::option::of(prop::collection::vec(any::<u8>(), 0..6))),
                0..10,
            ),
        ) {
            let pairs: Vec<Pair<'_>> = headers.iter().map(|(name, value)| (name.as_str(), value.as_deref())).collect();
            let letter = with_headers(&pairs);
            let (_, _, _) = (letter.origin(), letter.stage(), letter.replays());
            prop_assert!(letter.own_headers().count() <= headers.len());
            sent(&letter);
        }

        #[test]
        fn no_text_makes_the_parsers_panic(text in any::<String>()) {
            let _ = text.parse::<Place>();
            let _ = text.parse::<Stretch>();
        }
    }
}
