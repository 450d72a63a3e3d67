//! Which letters go and which stay.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use txconnect_connector_api::TopicPartition;
use txconnect_kafka::config::TopicFilter;

use super::super::letter::{Letter, Origin, Place, Stretch};
use super::super::list::Counts;
use super::super::look::{PartitionView, View};
use super::super::replayed::{LONGEST_NOTE, Note, Replayed};
use super::super::scan::{Range, scan};
use super::super::selection::CauseArguments;
use super::super::wording::{State, shown};
use super::super::{CommandError, Opened, ReplayArguments, To};
use crate::terminal::numbers::counted;
use crate::terminal::progress::Screen;

/// The most names in a remark.
const MOST_NAMES: usize = 5;

/// What becomes of a letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict<'l> {
    /// It goes to this topic, or as a record of it; to this partition, or where the key leads.
    Send { topic: &'l str, partition: Option<i32> },
    /// It stays.
    Stay(Reason),
}

/// Why a letter stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Reason {
    /// Not chosen.
    NotChosen,
    /// It was replayed already.
    Replayed,
    /// Another pipeline or tool has written it.
    OfOthers,
    /// Its headers do not say which topic it came from.
    NoOrigin,
    /// They do not say from which partition and offset.
    NoOffset,
    /// It came from a topic that the pipeline does not read.
    NotRead,
    /// It came from a topic that does not exist.
    NoTopic,
    /// Its record was replayed as often as is permitted.
    TooOften,
}

impl Reason {
    /// Whether no replay of this pipeline will ever send the letter: it is no gap in what is remembered.
    fn is_for_good(self) -> bool {
        matches!(self, Self::OfOthers | Self::NoOrigin)
    }
}

/// Decides about letters.
pub(super) struct Chooser<'a> {
    pipeline: &'a str,
    causes: &'a CauseArguments,
    stretches: &'a [Stretch],
    again: bool,
    most_replays: u32,
    to: To,
    source: TopicFilter,
    topics: &'a BTreeMap<String, usize>,
}

impl<'a> Chooser<'a> {
    pub(super) fn new(opened: &'a Opened, arguments: &'a ReplayArguments, view: &'a View) -> Self {
        Self {
            pipeline: &opened.pipeline.name,
            causes: &arguments.causes,
            stretches: &arguments.offsets,
            again: arguments.again,
            most_replays: arguments.most_replays.get(),
            to: arguments.to,
            source: opened.pipeline.source.topic_filter(),
            topics: &view.topics,
        }
    }

    /// What becomes of the letter, where `replayed` is what was replayed of its partition.
    pub(super) fn verdict<'l>(&self, letter: &'l Letter<'_>, replayed: &Replayed) -> Verdict<'l> {
        let stay = |reason| Verdict::Stay(reason);
        let chosen = self.causes.matches(letter) && self.is_named(letter);
        // For good or not decides what can be remembered: it must not depend on what is chosen this time.
        let Some(origin) = letter.origin() else { return stay(Reason::NoOrigin) };
        if letter.writer().as_deref() != Some(self.pipeline) {
            return stay(Reason::OfOthers);
        }
        if !chosen {
            return stay(Reason::NotChosen);
        }
        if replayed.contains(letter.offset) && !self.again {
            return stay(Reason::Replayed);
        }
        if !self.source.matches(origin.topic) {
            return stay(Reason::NotRead);
        }
        if self.to == To::Pipeline {
            return match origin {
                Origin { topic, partition: Some(partition), offset: Some(_) } => {
                    Verdict::Send { topic, partition: Some(partition) }
                }
                _ => stay(Reason::NoOffset),
            };
        }
        let Some(partitions) = self.topics.get(origin.topic) else { return stay(Reason::NoTopic) };
        if letter.replays() >= self.most_replays {
            return stay(Reason::TooOften);
        }
        let there = |number: &i32| usize::try_from(*number).is_ok_and(|number| number < *partitions);
        Verdict::Send { topic: origin.topic, partition: origin.partition.filter(there) }
    }

    fn is_named(&self, letter: &Letter<'_>) -> bool {
        self.stretches.is_empty()
            || self.stretches.iter().any(|stretch| {
                stretch.topic == letter.topic
                    && stretch.partition == letter.partition
                    && (stretch.first..=stretch.last).contains(&letter.offset)
            })
    }

    /// The letters of a partition that have to be read.
    fn range(&self, one: &PartitionView) -> Range {
        let named = |stretch: &Stretch| {
            stretch.topic == *one.partition.topic && stretch.partition == one.partition.partition
        };
        let from = if self.again { one.begin } else { one.replayed.next() };
        let to = if self.stretches.is_empty() || self.stretches.iter().any(named) { one.end } else { from };
        Range { partition: one.partition.clone(), from, to }
    }
}

/// What is dealt with in one partition, and up to where letters were seen.
#[derive(Clone, Debug)]
pub(super) struct Track {
    pub(super) replayed: Replayed,
    /// Offsets from here on hold no letter that a replay may still send, up to the letter that comes.
    seen: i64,
}

impl Track {
    fn new(replayed: Replayed, from: i64) -> Self {
        Self { replayed, seen: from }
    }

    /// A letter comes. Answers the first offset that is dealt with together with it.
    pub(super) fn pass(&mut self, offset: i64, verdict: Verdict<'_>) -> i64 {
        let first = self.seen.min(offset);
        if !matches!(verdict, Verdict::Stay(reason) if reason.is_for_good()) {
            self.seen = offset + 1;
        }
        first
    }
}

/// What a replay will do.
pub(super) struct Plan {
    pub(super) ranges: Vec<Range>,
    tracks: Vec<Track>,
    /// As `tracks` when all is done.
    after: Vec<Track>,
    topic_ids: Vec<Option<String>>,
    counts: Counts,
    letters: u64,
    bytes: u64,
    staying: BTreeMap<Reason, Staying>,
}

/// Letters that stay for one reason.
#[derive(Default)]
struct Staying {
    letters: u64,
    first: Option<Place>,
    names: BTreeSet<String>,
}

impl Plan {
    /// Reads all letters and decides about each.
    pub(super) fn make(
        opened: &Opened,
        chooser: &Chooser<'_>,
        view: &View,
        screen: &Screen,
    ) -> Result<Self, CommandError> {
        let ranges: Vec<Range> = view.partitions.iter().map(|one| chooser.range(one)).collect();
        let tracks = view.partitions.iter().zip(&ranges);
        let tracks: Vec<Track> =
            tracks.map(|(one, range)| Track::new(one.replayed.clone(), range.from)).collect();
        let mut plan = Self {
            after: tracks.clone(),
            tracks,
            topic_ids: view.partitions.iter().map(|one| one.topic_id.clone()).collect(),
            counts: Counts::default(),
            letters: 0,
            bytes: 0,
            staying: BTreeMap::new(),
            ranges,
        };
        let total = plan.ranges.iter().map(|range| (range.to - range.from).max(0).unsigned_abs());
        let bar = screen.records_bar("reading", total.fold(0, u64::saturating_add));
        let ranges = plan.ranges.clone();
        let read = scan(&opened.consumer, &ranges, &mut |letters| {
            for (index, letter) in letters {
                plan.add(chooser, *index, letter);
            }
            bar.inc(letters.len() as u64);
            Ok(ControlFlow::Continue(()))
        });
        bar.finish_and_clear();
        read?;
        Ok(plan)
    }

    fn add(&mut self, chooser: &Chooser<'_>, index: usize, letter: &Letter<'_>) {
        let verdict = chooser.verdict(letter, &self.tracks[index].replayed);
        let track = &mut self.after[index];
        let first = track.pass(letter.offset, verdict);
        match verdict {
            Verdict::Send { .. } => {
                track.replayed.insert(first, letter.offset + 1);
                self.counts.add(letter, State::Waiting);
                self.letters += 1;
                let size = letter.key.map_or(0, <[u8]>::len) + letter.value.map_or(0, <[u8]>::len);
                self.bytes += size as u64;
            }
            Verdict::Stay(reason) => {
                let staying = self.staying.entry(reason).or_default();
                staying.letters += 1;
                staying.first.get_or_insert_with(|| letter.place());
                let name = match reason {
                    Reason::OfOthers => Some(
                        letter
                            .writer()
                            .map_or_else(|| "somebody who is not named".to_owned(), |writer| shown(&writer)),
                    ),
                    Reason::NotRead | Reason::NoTopic => letter.origin().map(|origin| shown(origin.topic)),
                    _ => None,
                };
                if staying.names.len() <= MOST_NAMES {
                    staying.names.extend(name);
                }
            }
        }
    }

    /// How many letters go.
    pub(super) fn letters(&self) -> u64 {
        self.letters
    }

    /// What is dealt with before the first letter goes.
    pub(super) fn tracks(&self) -> Vec<Track> {
        self.tracks.clone()
    }

    /// What the group is to remember about a partition where `replayed` is dealt with.
    pub(super) fn note(&self, pipeline: &str, index: usize, replayed: &Replayed) -> Note {
        Note {
            pipeline: pipeline.to_owned(),
            topic_id: self.topic_ids[index].clone(),
            replayed: replayed.clone(),
        }
    }

    /// The partitions from which letters go.
    pub(super) fn partitions(&self) -> Vec<TopicPartition> {
        let ranges = self.ranges.iter().filter(|range| range.from < range.to);
        ranges.map(|range| range.partition.clone()).collect()
    }

    /// Fails where too many pieces would have to be remembered.
    pub(super) fn refuse_what_cannot_be_remembered(&self, pipeline: &str) -> Result<(), CommandError> {
        for (index, track) in self.after.iter().enumerate() {
            let bytes = self.note(pipeline, index, &track.replayed).text().len();
            if bytes > LONGEST_NOTE && track.replayed != self.tracks[index].replayed {
                return Err(CommandError::Failed(format!(
                    "{}: nothing was sent: the letters that would be replayed lie in {} pieces with gaps between, and \
                     Kafka cannot remember more than about a thousand ({bytes} bytes, at most {LONGEST_NOTE}); replay \
                     letters that follow one another: --all, fewer conditions, or --offset TOPIC/PARTITION/FIRST-LAST",
                    self.ranges[index].partition,
                    track.replayed.pieces()
                )));
            }
        }
        Ok(())
    }

    /// What goes, by cause.
    pub(super) fn text(&self, pipeline: &str) -> String {
        format!(
            "{pipeline}: {} to replay, {} of keys and values\n\n{}",
            counted(self.letters, "dead letter", "dead letters"),
            counted(self.bytes, "byte", "bytes"),
            self.counts.text(usize::MAX)
        )
    }

    /// What stays, and why.
    pub(super) fn remarks(&self) -> Vec<String> {
        self.staying.iter().filter_map(|(reason, staying)| staying.remark(*reason)).collect()
    }
}

impl Staying {
    fn remark(&self, reason: Reason) -> Option<String> {
        let letters = counted(self.letters, "letter", "letters");
        let first = self.first.as_ref().map(|place| format!(", the first at {place}")).unwrap_or_default();
        let mut names: Vec<&str> = self.names.iter().take(MOST_NAMES).map(String::as_str).collect();
        if self.names.len() > MOST_NAMES {
            names.push("…");
        }
        let names = names.join(", ");
        Some(match reason {
            Reason::NotChosen => return None,
            Reason::Replayed => format!("{letters} replayed already; --again sends them too"),
            Reason::OfOthers => format!("{letters} left to those who have written them: {names}{first}"),
            Reason::NoOrigin => {
                format!("{letters} left because their headers do not say where they came from{first}")
            }
            Reason::NoOffset => {
                format!("{letters} left because their headers do not say at which offset they stood{first}")
            }
            Reason::NotRead => {
                format!("{letters} left because the pipeline does not read their topics: {names}{first}")
            }
            Reason::NoTopic => format!(
                "{letters} left because their topics do not exist any more: {names}{first}; make the topics first"
            ),
            Reason::TooOften => format!(
                "{letters} left because their records were replayed before and failed each time{first}; --most-replays \
                 raises the limit"
            ),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::letter::tests::{bare_letter, letter};
    use super::*;
    use proptest::prelude::*;

    fn with_chooser<T>(change: impl FnOnce(&mut Chooser<'_>), with: impl FnOnce(&Chooser<'_>) -> T) -> T {
        let causes = CauseArguments::default();
        let topics = BTreeMap::from([("cash_ins".to_owned(), 4)]);
        let mut chooser = Chooser {
            pipeline: "transactions",
            causes: &causes,
            stretches: &[],
            again: false,
            most_replays: 5,
            to: To::Topic,
            source: TopicFilter::Names(vec!["cash_ins".into(), "cash_outs".into()]),
            topics: &topics,
        };
        change(&mut chooser);
        with(&chooser)
    }

    fn reason(letter: &Letter<'_>, change: impl FnOnce(&mut Chooser<'_>)) -> Option<Reason> {
        with_chooser(change, |chooser| match chooser.verdict(letter, &Replayed::default()) {
            Verdict::Send { .. } => None,
            Verdict::Stay(reason) => Some(reason),
        })
    }

    #[test]
    fn a_letter_goes_to_its_partition_or_where_that_is_gone_where_its_key_leads() {
        let letter = letter(&[]);
        let verdict = |chooser: &Chooser<'_>| match chooser.verdict(&letter, &Replayed::default()) {
            Verdict::Send { topic, partition } => (topic.to_owned(), partition),
            Verdict::Stay(reason) => panic!("{reason:?}"),
        };
        assert_eq!(with_chooser(|_| {}, verdict), ("cash_ins".to_owned(), Some(2)));
        let fewer = BTreeMap::from([("cash_ins".to_owned(), 2)]);
        let causes = CauseArguments::default();
        let chooser = Chooser {
            pipeline: "transactions",
            causes: &causes,
            stretches: &[],
            again: false,
            most_replays: 5,
            to: To::Topic,
            source: TopicFilter::Names(vec!["cash_ins".into()]),
            topics: &fewer,
        };
        assert_eq!(verdict(&chooser), ("cash_ins".to_owned(), None));
    }

    #[test]
    fn every_letter_that_stays_has_a_reason() {
        let own = letter(&[]);
        assert_eq!(reason(&own, |_| {}), None);
        assert_eq!(reason(&own, |chooser| chooser.pipeline = "else"), Some(Reason::OfOthers));
        assert_eq!(reason(&bare_letter(), |_| {}), Some(Reason::NoOrigin));
        let nobody = TopicFilter::Names(Vec::new());
        assert_eq!(reason(&own, |chooser| chooser.source = nobody), Some(Reason::NotRead));
        let often = letter(&[("txconnect.replay.count", Some(b"5"))]);
        assert_eq!(reason(&often, |_| {}), Some(Reason::TooOften));
        assert_eq!(reason(&often, |chooser| chooser.most_replays = 6), None);
        let stretches =
            [Stretch { topic: "cash_ins.dead-letters".into(), partition: 0, first: 13, last: 20 }];
        with_chooser(
            |_| {},
            |chooser| {
                let named = Chooser { stretches: &stretches, source: chooser.source.clone(), ..*chooser };
                let verdict = named.verdict(&own, &Replayed::default());
                assert_eq!(verdict, Verdict::Stay(Reason::NotChosen));
                let replayed = chooser.verdict(&own, &Replayed::below(13));
                assert_eq!(replayed, Verdict::Stay(Reason::Replayed));
                let again = Chooser { again: true, source: chooser.source.clone(), ..*chooser };
                assert!(matches!(again.verdict(&own, &Replayed::below(13)), Verdict::Send { .. }));
            },
        );
    }

    #[test]
    fn only_letters_that_can_never_go_are_no_gap() {
        let send = Verdict::Send { topic: "t", partition: None };
        let mut track = Track::new(Replayed::below(3), 3);
        assert_eq!(track.pass(3, Verdict::Stay(Reason::OfOthers)), 3);
        assert_eq!(track.pass(4, send), 3);
        assert_eq!(track.pass(7, Verdict::Stay(Reason::TooOften)), 5);
        assert_eq!(track.pass(9, send), 8);
    }

    proptest! {
        /// Whatever goes and stays in whatever order: a letter counts as dealt with exactly when it went or can never go.
        #[test]
        fn exactly_what_was_sent_counts_as_replayed(
            steps in prop::collection::vec((1_i64..4, 0_usize..4), 1..60),
            position in 0_i64..10,
        ) {
            let mut track = Track::new(Replayed::below(position), position);
            let mut offset = position - 1;
            let mut own = Vec::new();
            for (gap, kind) in steps {
                offset += gap;
                let verdict = match kind {
                    0 | 1 => Verdict::Send { topic: "t", partition: None },
                    2 => Verdict::Stay(Reason::NotChosen),
                    _ => Verdict::Stay(Reason::OfOthers),
                };
                let first = track.pass(offset, verdict);
                if kind < 2 {
                    track.replayed.insert(first, offset + 1);
                }
                if kind < 3 {
                    own.push((offset, kind < 2));
                }
            }
            for (offset, sent) in own {
                prop_assert_eq!(track.replayed.contains(offset), sent, "{}", offset);
            }
        }
    }
}
