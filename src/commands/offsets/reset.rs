//! Moving the positions of a pipeline.

use txconnect_connector_api::{NewPosition, Protocol, SinkError, TopicPartition};
use txconnect_kafka::{CommitPosition, MoveGroupError};

use super::look::{PartitionView, View};
use super::target::Target;
use super::{CommandError, kafka_words, show, sink_words};
use crate::delivery::{CommittedStream, Note, StreamsNote};
use crate::terminal::numbers::grouped;
use crate::terminal::table::{Align, Table};

/// A position that is to be moved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Change {
    partition: TopicPartition,
    from: Option<i64>,
    to: i64,
    /// What the change means for the records, in a word or two.
    effect: String,
    topic_id: Option<String>,
    /// What is committed beside the position.
    note: Note,
    /// Streams that the position counts on until now.
    streams: Vec<CommittedStream>,
}

impl Change {
    /// The partition.
    pub(super) fn partition(&self) -> &TopicPartition {
        &self.partition
    }

    /// Streams that the position counts on until now: what they hold is published before it moves.
    pub(super) fn streams(&self) -> &[CommittedStream] {
        &self.streams
    }
}

/// The partitions that the user has named.
pub(super) fn select<'v>(
    view: &'v View,
    topic: Option<&str>,
    partition: Option<i32>,
) -> Result<Vec<&'v PartitionView>, CommandError> {
    let mut topics: Vec<&str> = view.partitions.iter().map(|one| &*one.partition.topic).collect();
    topics.dedup();
    if let Some(topic) = topic.filter(|topic| !topics.contains(topic)) {
        return Err(CommandError::Usage(format!(
            "the pipeline reads no topic {topic} that exists; it reads {}",
            if topics.is_empty() { "none".to_owned() } else { topics.join(", ") }
        )));
    }
    if partition.is_some() && topic.is_none() && topics.len() > 1 {
        return Err(CommandError::Usage(format!(
            "--partition needs --topic where there are several: {}",
            topics.join(", ")
        )));
    }
    let named = |one: &&PartitionView| {
        topic.is_none_or(|topic| topic == &*one.partition.topic)
            && partition.is_none_or(|partition| partition == one.partition.partition)
    };
    let selected: Vec<&PartitionView> = view.partitions.iter().filter(named).collect();
    if selected.is_empty() {
        return Err(CommandError::Usage(match partition {
            Some(partition) => format!("there is no partition {partition}"),
            None => "no topic exists that the pipeline reads".to_owned(),
        }));
    }
    Ok(selected)
}

/// Where each position goes. `times` holds the offsets of the target's time, where it is one.
pub(super) fn plan(
    view: &View,
    selected: &[&PartitionView],
    target: Target,
    times: &[(TopicPartition, Option<i64>)],
) -> Result<Vec<Change>, CommandError> {
    let mut outside = Vec::new();
    let mut changes = Vec::with_capacity(selected.len());
    for one in selected {
        let to = match target {
            Target::Earliest => one.begin,
            Target::Latest => one.end,
            Target::Time(_) => {
                let found = times.iter().find(|(partition, _)| *partition == one.partition);
                // Every record is older, or was deleted between the questions.
                found.and_then(|(_, offset)| *offset).unwrap_or(one.end).max(one.begin)
            }
            Target::Offset(offset) => offset,
        };
        if matches!(target, Target::Offset(_)) && !(one.begin..=one.end).contains(&to) {
            outside.push(format!("{} holds {} to {}", one.partition, one.begin, one.end));
        }
        let from = one.position(view.place.is_some());
        let effect = effect(one, from, to);
        changes.push(Change {
            partition: one.partition.clone(),
            from,
            to,
            effect,
            topic_id: one.topic_id.clone(),
            note: note(view, one),
            streams: match &one.note {
                Ok(Note::Streams(note)) => note.streams.clone(),
                _ => Vec::new(),
            },
        });
    }
    if let (Target::Offset(offset), false) = (target, outside.is_empty()) {
        return Err(CommandError::Usage(format!(
            "the offset {offset} is outside the log: {}; nothing was changed",
            outside.join(", ")
        )));
    }
    Ok(changes)
}

/// What stands beside the new position. Streams of before are named as finished.
fn note(view: &View, one: &PartitionView) -> Note {
    match (view.protocol, &one.note) {
        (Protocol::AtLeastOnce, _) => Note::AtLeastOnce,
        (Protocol::OffsetsInSink, _) => Note::OffsetsInSink,
        (Protocol::TwoPhase, Ok(Note::Streams(note))) => {
            let streams = note.streams.iter().map(|committed| &committed.stream).chain(&note.finalize);
            Note::Streams(StreamsNote { finalize: streams.cloned().collect(), ..StreamsNote::default() })
        }
        (Protocol::TwoPhase, _) => Note::Streams(StreamsNote::default()),
    }
}

fn effect(one: &PartitionView, from: Option<i64>, to: i64) -> String {
    if one.former_topic().is_some() {
        return "new topic".to_owned();
    }
    let Some(from) = from else { return "first position".to_owned() };
    // What is not in the log any more can be neither read again nor skipped.
    let distance = to - from.clamp(one.begin, one.end);
    let count = grouped(distance.unsigned_abs());
    match distance {
        0 if from == to => "stays".to_owned(),
        0 => "back into the log".to_owned(),
        1.. => format!("skips {count}"),
        _ => format!("reads {count} again"),
    }
}

/// The changes as a table.
pub(super) fn text(view: &View, changes: &[Change]) -> String {
    let mut table = Table::new([
        ("topic", Align::Left),
        ("partition", Align::Right),
        ("from", Align::Right),
        ("to", Align::Right),
        ("effect", Align::Left),
    ]);
    for change in changes {
        table.push([
            change.partition.topic.to_string(),
            change.partition.partition.to_string(),
            show::offset(change.from),
            show::offset(Some(change.to)),
            change.effect.clone(),
        ]);
    }
    format!("{}\n{}\n", show::heading(view), table.render(2))
}

/// Moves the positions: in the sink first, whose positions count, then in the group. `store` answers `None` where the
/// sink keeps none. Fails with what was moved and what was not, and the way out.
pub(super) fn perform(
    view: &View,
    changes: &[Change],
    store: impl FnOnce(&[NewPosition]) -> Result<Option<()>, SinkError>,
    move_group: impl FnOnce(&[CommitPosition]) -> Result<(), MoveGroupError>,
) -> Result<(), String> {
    let positions: Vec<NewPosition> = changes
        .iter()
        .map(|change| NewPosition {
            partition: change.partition.clone(),
            next_offset: change.to,
            topic_id: change.topic_id.clone(),
        })
        .collect();
    let place = view.place.as_deref().unwrap_or("the sink");
    let in_sink = store(&positions).map_err(|error| not_stored(&error, place))?.is_some();
    let commits: Vec<CommitPosition> = changes
        .iter()
        .map(|change| CommitPosition {
            partition: change.partition.clone(),
            next_offset: change.to,
            metadata: Some(change.note.to_text()),
        })
        .collect();
    let group = &view.group;
    move_group(&commits).map_err(|error| {
        let (error, state) = match &error {
            MoveGroupError::Active { .. } => (error.to_string(), "none of them moved"),
            MoveGroupError::Refused { .. } => (error.to_string(), "the others moved"),
            MoveGroupError::Failed(error) => (kafka_words(error), "they may have moved or not"),
        };
        if in_sink {
            format!(
                "the positions in {place} are moved and count from now on, those of the group {group} are not: {error} \
                 ({state}). The pipeline will start at the new positions all the same; run the command again to move \
                 the group's too"
            )
        } else {
            format!("the positions of the group {group} are not all moved: {error} ({state}); run the command again")
        }
    })
}

fn not_stored(error: &SinkError, place: &str) -> String {
    match error {
        SinkError::InDoubt { cause } => format!(
            "nobody knows whether the positions in {place} are moved: {cause}. Those of the group are not; look with \
             `txconnect offsets show`, or run the command again, which is safe"
        ),
        error => {
            format!("the positions in {place} are not moved, nor those of the group: {}", sink_words(error))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::look::GroupPosition;
    use super::*;
    use crate::delivery::NoteError;
    use futures::future::BoxFuture;
    use std::sync::Mutex;
    use txconnect_connector_api::{Claim, Claimed, Epoch, OffsetStore, StoredPosition};
    use txconnect_kafka::{GroupState, KafkaError};

    const PLACE: &str = "table public.txconnect_offsets";

    fn partition(topic: &str, number: i32, group: Option<i64>) -> PartitionView {
        PartitionView {
            partition: TopicPartition::new(topic, number),
            topic_id: Some(format!("id-of-{topic}")),
            begin: 100,
            end: 2_000,
            group: group.map(|offset| GroupPosition { offset, noted: false }),
            stored: None,
            note: Err(NoteError::Foreign),
        }
    }

    fn view(partitions: Vec<PartitionView>) -> View {
        View {
            pipeline: "transactions".into(),
            group: "connect-transactions".into(),
            group_state: GroupState::Empty,
            protocol: Protocol::AtLeastOnce,
            place: None,
            partitions,
            missing: Vec::new(),
            unread: Vec::new(),
        }
    }

    fn targets(view: &View, target: Target, times: &[(TopicPartition, Option<i64>)]) -> Vec<(i64, String)> {
        let selected = select(view, None, None).unwrap();
        let changes = plan(view, &selected, target, times).unwrap();
        changes.into_iter().map(|change| (change.to, change.effect)).collect()
    }

    #[test]
    fn every_target_says_what_it_means_for_the_records() {
        let view = view(vec![partition("a", 0, Some(1_500)), partition("a", 1, None)]);
        let expected =
            |one: (i64, &str), other: (i64, &str)| vec![(one.0, one.1.into()), (other.0, other.1.into())];
        assert_eq!(
            targets(&view, Target::Earliest, &[]),
            expected((100, "reads 1,400 again"), (100, "first position"))
        );
        assert_eq!(
            targets(&view, Target::Latest, &[]),
            expected((2_000, "skips 500"), (2_000, "first position"))
        );
        assert_eq!(
            targets(&view, Target::Offset(1_500), &[]),
            expected((1_500, "stays"), (1_500, "first position"))
        );
        // Where every record is older, only what comes from now on is not.
        let times = [(TopicPartition::new("a", 0), Some(1_499)), (TopicPartition::new("a", 1), None)];
        assert_eq!(
            targets(&view, Target::Time(1), &times),
            expected((1_499, "reads 1 again"), (2_000, "first position"))
        );
    }

    #[test]
    fn what_the_log_has_lost_is_not_counted() {
        let view = view(vec![partition("a", 0, Some(3))]);
        assert_eq!(targets(&view, Target::Earliest, &[]), [(100, "back into the log".into())]);
        assert_eq!(targets(&view, Target::Offset(110), &[]), [(110, "skips 10".into())]);
    }

    #[test]
    fn an_offset_outside_the_log_is_refused_for_all_partitions() {
        let mut short = partition("a", 1, None);
        short.end = 150;
        let view = view(vec![partition("a", 0, None), short]);
        let selected = select(&view, None, None).unwrap();
        let error = plan(&view, &selected, Target::Offset(200), &[]).unwrap_err();
        assert!(matches!(error, CommandError::Usage(_)));
        let text = error.to_string();
        assert!(text.contains("200 is outside the log: a[1] holds 100 to 150; nothing"), "{text}");
    }

    #[test]
    fn topics_and_partitions_can_be_named() {
        let mut view = view(vec![partition("a", 0, None), partition("a", 1, None), partition("b", 0, None)]);
        let names = |topic, number| {
            select(&view, topic, number)
                .map(|selected| selected.iter().map(|one| one.partition.to_string()).collect::<Vec<_>>())
                .map_err(|error| error.to_string())
        };
        assert_eq!(names(None, None).unwrap(), ["a[0]", "a[1]", "b[0]"]);
        assert_eq!(names(Some("a"), None).unwrap(), ["a[0]", "a[1]"]);
        assert_eq!(names(Some("a"), Some(1)).unwrap(), ["a[1]"]);
        assert!(names(Some("c"), None).unwrap_err().contains("it reads a, b"));
        assert!(names(None, Some(0)).unwrap_err().contains("needs --topic"));
        assert!(names(Some("a"), Some(9)).unwrap_err().contains("no partition 9"));
        view.partitions.clear();
        assert!(select(&view, None, None).unwrap_err().to_string().contains("no topic exists"));
    }

    /// Keeps positions in memory, or refuses.
    #[derive(Default)]
    struct FakeStore {
        positions: Mutex<Vec<StoredPosition>>,
        refuses: Option<SinkError>,
    }

    impl OffsetStore for FakeStore {
        fn place(&self) -> String {
            PLACE.to_owned()
        }

        fn take_over<'a>(&'a self, _: &'a [Claim]) -> BoxFuture<'a, Result<Vec<Claimed>, SinkError>> {
            Box::pin(async { Err(SinkError::fatal("nothing is taken over here", "")) })
        }

        fn positions(&self) -> BoxFuture<'_, Result<Vec<StoredPosition>, SinkError>> {
            Box::pin(async { Ok(self.positions.lock().unwrap().clone()) })
        }

        fn reset<'a>(&'a self, positions: &'a [NewPosition]) -> BoxFuture<'a, Result<(), SinkError>> {
            Box::pin(async move {
                if let Some(error) = &self.refuses {
                    return Err(error.clone());
                }
                let stored = positions.iter().map(|position| StoredPosition {
                    partition: position.partition.clone(),
                    next_offset: position.next_offset,
                    epoch: Epoch(1),
                    topic_id: position.topic_id.clone(),
                    owner: None,
                    updated_at: String::new(),
                });
                self.positions.lock().unwrap().extend(stored);
                Ok(())
            })
        }
    }

    /// Moves one partition to its beginning, in a sink that keeps the positions.
    fn move_one(
        store: &FakeStore,
        group: impl FnOnce(&[CommitPosition]) -> Result<(), MoveGroupError>,
    ) -> Result<(), String> {
        let mut view = view(vec![partition("a", 0, Some(1_500))]);
        view.place = Some(store.place());
        view.protocol = Protocol::OffsetsInSink;
        let selected = select(&view, None, None).unwrap();
        let changes = plan(&view, &selected, Target::Earliest, &[]).unwrap();
        let reset = |positions: &[NewPosition]| futures::executor::block_on(store.reset(positions)).map(Some);
        perform(&view, &changes, reset, group)
    }

    #[test]
    fn the_sink_is_moved_before_the_group_and_learns_the_topics_id() {
        let store = FakeStore::default();
        move_one(&store, |commits| {
            let stored = store.positions.lock().unwrap();
            assert_eq!(stored[0].next_offset, 100);
            assert_eq!(stored[0].topic_id.as_deref(), Some("id-of-a"));
            assert_eq!(commits[0].next_offset, 100);
            assert_eq!(commits[0].metadata.as_deref(), Some(Note::OffsetsInSink.to_text().as_str()));
            Ok(())
        })
        .unwrap();
    }

    #[test]
    fn a_sink_that_refuses_leaves_the_group_alone() {
        for (refuses, words) in [
            (
                SinkError::transient("the database is away"),
                "are not moved, nor those of the group: the database",
            ),
            (SinkError::fatal("no right", "grant it"), "no right; grant it"),
            (SinkError::InDoubt { cause: "the connection broke".into() }, "nobody knows whether"),
        ] {
            let store = FakeStore { refuses: Some(refuses), ..FakeStore::default() };
            let error = move_one(&store, |_| panic!("the group is not touched")).unwrap_err();
            assert!(error.contains(words), "{error}");
            assert!(error.contains(PLACE), "{error}");
        }
    }

    #[test]
    fn a_group_that_refuses_after_the_sink_was_moved_is_told_with_the_way_out() {
        for (refused, state) in [
            (MoveGroupError::Active { group: "connect-transactions".into() }, "none of them moved"),
            (
                MoveGroupError::Refused { refused: vec![(TopicPartition::new("a", 0), "no".into())] },
                "the others moved",
            ),
            (
                MoveGroupError::Failed(KafkaError::Timeout { what: "moving the group".into() }),
                "they may have moved or not",
            ),
        ] {
            let store = FakeStore::default();
            let error = move_one(&store, |_| Err(refused)).unwrap_err();
            assert!(error.contains("are moved and count from now on"), "{error}");
            assert!(error.contains(state), "{error}");
            assert!(error.contains("run the command again"), "{error}");
            assert_eq!(store.positions.lock().unwrap().len(), 1);
        }
    }

    #[test]
    fn without_positions_in_the_sink_only_the_group_moves_and_says_whose_position_it_is() {
        let view = view(vec![partition("a", 0, Some(1_500))]);
        let selected = select(&view, None, None).unwrap();
        let changes = plan(&view, &selected, Target::Latest, &[]).unwrap();
        let mut moved = Vec::new();
        perform(
            &view,
            &changes,
            |_| Ok(None),
            |commits| {
                moved = commits.to_vec();
                Ok(())
            },
        )
        .unwrap();
        let note = Some(Note::AtLeastOnce.to_text());
        assert_eq!((moved[0].next_offset, &moved[0].metadata), (2_000, &note));
        let failed = KafkaError::Timeout { what: "moving the group".into() };
        let error = perform(&view, &changes, |_| Ok(None), |_| Err(failed.into())).unwrap_err();
        assert!(error.contains("connect-transactions are not all moved"), "{error}");
    }
}
