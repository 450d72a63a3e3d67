//! The dead letter topics of a pipeline, and what is remembered about them.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use txconnect_connector_api::TopicPartition;
use txconnect_kafka::{Committed, CommittedMetadata};

use super::replayed::{Note, NoteError, Replayed};
use super::{CommandError, Opened, QUESTION, kafka_failed};

/// What Kafka says before any letter is read.
#[derive(Clone, Debug)]
pub(super) struct View {
    /// Of the dead letter topics that exist, in order.
    pub(super) partitions: Vec<PartitionView>,
    /// Dead letter topics that do not exist.
    pub(super) missing: Vec<String>,
    /// All topics of the cluster, with the number of their partitions.
    pub(super) topics: BTreeMap<String, usize>,
    /// What is remembered but does not count.
    pub(super) doubts: Vec<(TopicPartition, Doubt)>,
}

/// One partition of a dead letter topic.
#[derive(Clone, Debug)]
pub(super) struct PartitionView {
    pub(super) partition: TopicPartition,
    /// The first offset there is.
    pub(super) begin: i64,
    /// The offset after the last letter.
    pub(super) end: i64,
    pub(super) topic_id: Option<String>,
    /// What was replayed.
    pub(super) replayed: Replayed,
}

/// Why what is remembered about a partition may not be what it seems.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Doubt {
    /// The topic is another one by now.
    #[error(
        "the topic was deleted and made anew since the last replay: none of its letters counts as replayed"
    )]
    Anew,
    /// The note cannot be read.
    #[error("{0}; only the position {1} counts")]
    Unreadable(NoteError, i64),
    /// The note is about another pipeline's letters.
    #[error("the position {1} remembers replays of the pipeline {0}, whose letters stand in the same topic")]
    OtherPipeline(String, i64),
}

impl View {
    /// The letters that may be there, of gaps in the offsets nothing is known.
    pub(super) fn offsets(&self) -> u64 {
        let lengths = self.partitions.iter().map(|one| (one.end - one.begin).max(0).unsigned_abs());
        lengths.fold(0, u64::saturating_add)
    }
}

/// Asks Kafka about the dead letter topics; only about those of the records' `topics`, where some are named.
pub(super) fn look(opened: &Opened, topics: &[String]) -> Result<View, CommandError> {
    let (consumer, template) = (&opened.consumer, &opened.template);
    let kafka = |error| kafka_failed(&error);
    let source = opened.pipeline.source.topic_filter();
    let by_topic = template.depends_on_topic();
    if let Some(unread) = topics.iter().find(|topic| by_topic && !source.matches(topic)) {
        return Err(CommandError::Usage(format!("the pipeline reads no topic {unread}")));
    }
    let chosen: Vec<String> = topics.iter().map(|topic| template.for_topic(topic)).collect();
    let is_chosen = |name: &str| topics.is_empty() || chosen.iter().any(|chosen| chosen == name);
    let is_ours = |name: &str| template.is_made_of(name, |topic| source.matches(topic)) && is_chosen(name);
    let all: BTreeMap<String, Vec<i32>> = consumer.topics(QUESTION).map_err(kafka)?.into_iter().collect();

    let found: Vec<(&String, &Vec<i32>)> =
        all.iter().filter(|(name, numbers)| is_ours(name) && !numbers.is_empty()).collect();
    let expected = match &opened.pipeline.source.topics {
        _ if !by_topic => vec![template.for_topic("")],
        Some(listed) => listed.iter().map(|topic| template.for_topic(topic)).collect(),
        None => Vec::new(),
    };
    let mut missing: Vec<String> =
        expected.into_iter().filter(|name| is_chosen(name) && !all.contains_key(name)).collect();
    missing.dedup();
    let partitions: Vec<TopicPartition> = found
        .iter()
        .flat_map(|(name, numbers)| {
            let name: Arc<str> = name.as_str().into();
            numbers.iter().map(move |number| TopicPartition::new(Arc::clone(&name), *number))
        })
        .collect();
    let names: Vec<&str> = found.iter().map(|(name, _)| name.as_str()).collect();
    // Positions before ends: a replay that runs meanwhile must not seem to be beyond the end.
    let committed = consumer.committed(&partitions, QUESTION).map_err(kafka)?;
    let begins: HashMap<_, _> =
        consumer.beginning_offsets(&partitions, QUESTION).map_err(kafka)?.into_iter().collect();
    let ends: HashMap<_, _> =
        consumer.end_offsets(&partitions, QUESTION).map_err(kafka)?.into_iter().collect();
    let ids = consumer.topic_ids(&names, QUESTION).map_err(kafka)?;
    let mut doubts = Vec::new();
    let partitions = committed
        .into_iter()
        .map(|committed| {
            let partition = committed.partition.clone();
            let begin = begins.get(&partition).copied().unwrap_or(0);
            let end = ends.get(&partition).copied().unwrap_or(begin);
            let topic_id = ids.get(&*partition.topic).cloned().flatten();
            let (mut replayed, doubt) =
                remembered(&committed, end, topic_id.as_deref(), &opened.pipeline.name);
            doubts.extend(doubt.map(|doubt| (partition.clone(), doubt)));
            replayed.log_begins_at(begin);
            PartitionView { partition, begin, end, topic_id, replayed }
        })
        .collect();
    let topics = all.into_iter().map(|(name, numbers)| (name, numbers.len())).collect();
    Ok(View { partitions, missing, topics, doubts })
}

/// What the group's position and its metadata say about a partition.
fn remembered(
    committed: &Committed,
    end: i64,
    topic_id: Option<&str>,
    pipeline: &str,
) -> (Replayed, Option<Doubt>) {
    let Some(position) = committed.offset else { return (Replayed::default(), None) };
    if position > end {
        return (Replayed::default(), Some(Doubt::Anew));
    }
    let unreadable = |error| (Replayed::below(position), Some(Doubt::Unreadable(error, position)));
    let text = match &committed.metadata {
        // Somebody has moved the group, which is a way to say what is to be replayed again.
        CommittedMetadata::None => return (Replayed::below(position), None),
        CommittedMetadata::NotUtf8 => return unreadable(NoteError::Foreign),
        CommittedMetadata::Text(text) => text,
    };
    match Note::parse(position, text) {
        Err(error) => unreadable(error),
        Ok(note) if note.topic_id.as_deref().zip(topic_id).is_some_and(|(noted, now)| noted != now) => {
            (Replayed::default(), Some(Doubt::Anew))
        }
        Ok(note) if note.pipeline != pipeline => {
            (Replayed::default(), Some(Doubt::OtherPipeline(note.pipeline, position)))
        }
        Ok(note) => (note.replayed, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn committed(offset: Option<i64>, metadata: &str) -> Committed {
        let metadata = match metadata {
            "" => CommittedMetadata::None,
            text => CommittedMetadata::Text(text.to_owned()),
        };
        Committed { partition: TopicPartition::new("dead", 0), offset, metadata }
    }

    fn note(pipeline: &str, topic_id: &str) -> String {
        let mut replayed = Replayed::below(10);
        replayed.insert(20, 21);
        Note { pipeline: pipeline.into(), topic_id: Some(topic_id.into()), replayed }.text()
    }

    fn look_back(committed: &Committed) -> (i64, usize, Option<Doubt>) {
        let (replayed, doubt) = remembered(committed, 100, Some("id"), "p");
        (replayed.next(), replayed.pieces(), doubt)
    }

    #[test]
    fn a_note_of_this_pipeline_and_topic_counts() {
        assert_eq!(look_back(&committed(Some(10), &note("p", "id"))), (10, 1, None));
        assert_eq!(look_back(&committed(None, "")), (0, 0, None));
    }

    #[test]
    fn a_position_that_another_tool_has_moved_counts_alone() {
        assert_eq!(look_back(&committed(Some(7), "")), (7, 0, None));
        let (next, pieces, doubt) = look_back(&committed(Some(7), "something else"));
        assert_eq!((next, pieces), (7, 0));
        assert!(matches!(doubt, Some(Doubt::Unreadable(NoteError::Foreign, 7))));
    }

    #[test]
    fn nothing_is_remembered_about_a_topic_that_was_made_anew_or_about_letters_of_others() {
        assert_eq!(look_back(&committed(Some(10), &note("p", "former"))), (0, 0, Some(Doubt::Anew)));
        assert_eq!(look_back(&committed(Some(101), "")), (0, 0, Some(Doubt::Anew)));
        let other = Doubt::OtherPipeline("q".into(), 10);
        assert_eq!(look_back(&committed(Some(10), &note("q", "id"))), (0, 0, Some(other)));
    }
}
