//! What Kafka and the sink say about every partition of a pipeline.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use txconnect_connector_api::{Protocol, StoredPosition, TopicPartition};
use txconnect_kafka::{CommittedMetadata, GroupState};

use super::{CommandError, Opened, QUESTION, kafka_words, sink_words};
use crate::delivery::{Note, NoteError};

/// All that is known about the positions of a pipeline.
#[derive(Clone, Debug)]
pub(super) struct View {
    pub(super) pipeline: String,
    pub(super) group: String,
    pub(super) group_state: GroupState,
    pub(super) protocol: Protocol,
    /// Where the sink keeps the positions that count; none where those of the group count.
    pub(super) place: Option<String>,
    pub(super) partitions: Vec<PartitionView>,
    /// Listed topics that are not there.
    pub(super) missing: Vec<String>,
    /// Positions in the sink of partitions that the pipeline does not read, or that are gone.
    pub(super) unread: Vec<TopicPartition>,
}

/// All that is known about one partition.
#[derive(Clone, Debug)]
pub(super) struct PartitionView {
    pub(super) partition: TopicPartition,
    /// The topic's id, where the broker gives one.
    pub(super) topic_id: Option<String>,
    /// The first offset there is.
    pub(super) begin: i64,
    /// The offset after the last record.
    pub(super) end: i64,
    /// The group's position.
    pub(super) group: Option<GroupPosition>,
    /// What stands beside the group's position.
    pub(super) note: Result<Note, NoteError>,
    /// The sink's position.
    pub(super) stored: Option<StoredPosition>,
}

/// A position of the consumer group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct GroupPosition {
    pub(super) offset: i64,
    /// Whether it only follows the sink's.
    pub(super) noted: bool,
}

impl PartitionView {
    /// The position from which the pipeline goes on; `None` where there is none.
    pub(super) fn position(&self, in_sink: bool) -> Option<i64> {
        let in_group = self.group.filter(|group| !(in_sink && group.noted)).map(|group| group.offset);
        match &self.stored {
            Some(stored) if in_sink => Some(stored.next_offset),
            _ => in_group,
        }
    }

    /// How many offsets are left to read.
    pub(super) fn lag(&self, in_sink: bool) -> Option<i64> {
        self.position(in_sink).map(|position| self.end - position.clamp(self.begin, self.end))
    }

    /// Rows before the group's position that were committed and were not known to be visible then.
    pub(super) fn unpublished(&self) -> i64 {
        match &self.note {
            Ok(Note::Streams(note)) => {
                note.streams.iter().map(|committed| committed.end - committed.published).sum()
            }
            _ => 0,
        }
    }

    /// The id of the topic that the sink's position belongs to, where that is another topic by now.
    pub(super) fn former_topic(&self) -> Option<&str> {
        let stored = self.stored.as_ref()?.topic_id.as_deref()?;
        self.topic_id.as_deref().is_some_and(|current| current != stored).then_some(stored)
    }
}

/// Asks Kafka and the sink.
pub(super) fn look(opened: &Opened) -> Result<View, CommandError> {
    let (pipeline, consumer) = (&opened.pipeline, &opened.consumer);
    let kafka = |error| CommandError::Failed(kafka_words(&error));
    let is_ours = pipeline.topic_filter();
    let mut topics: BTreeMap<String, Vec<i32>> =
        consumer.topics(QUESTION).map_err(kafka)?.into_iter().collect();
    topics.retain(|name, partitions| is_ours(name) && !partitions.is_empty());
    let listed = pipeline.source.topics.iter().flatten();
    let missing = listed.filter(|name| !topics.contains_key(*name)).cloned().collect();

    let partitions: Vec<TopicPartition> = topics
        .iter()
        .flat_map(|(name, numbers)| {
            let name: Arc<str> = name.as_str().into();
            numbers.iter().map(move |number| TopicPartition::new(Arc::clone(&name), *number))
        })
        .collect();
    let names: Vec<&str> = topics.keys().map(String::as_str).collect();
    let group_state = consumer.group_state(QUESTION).map_err(kafka)?;
    // In this order: the group's positions follow the sink's, which follow the ends. A pipeline that runs meanwhile
    // must not seem to be where it cannot be.
    let committed = consumer.committed(&partitions, QUESTION).map_err(kafka)?;
    let mut stored = stored(opened)?;
    let begins: HashMap<_, _> =
        consumer.beginning_offsets(&partitions, QUESTION).map_err(kafka)?.into_iter().collect();
    let ends: HashMap<_, _> =
        consumer.end_offsets(&partitions, QUESTION).map_err(kafka)?.into_iter().collect();
    let ids = consumer.topic_ids(&names, QUESTION).map_err(kafka)?;
    let partitions = committed
        .into_iter()
        .map(|committed| {
            let partition = committed.partition;
            let begin = begins.get(&partition).copied().unwrap_or(0);
            let note = match &committed.metadata {
                CommittedMetadata::Text(text) => Note::read(text),
                CommittedMetadata::None | CommittedMetadata::NotUtf8 => Err(NoteError::Foreign),
            };
            let noted = note == Ok(Note::OffsetsInSink);
            PartitionView {
                note,
                topic_id: ids.get(&*partition.topic).cloned().flatten(),
                begin,
                end: ends.get(&partition).copied().unwrap_or(begin),
                group: committed.offset.map(|offset| GroupPosition { offset, noted }),
                stored: stored.remove(&partition),
                partition,
            }
        })
        .collect();
    Ok(View {
        pipeline: pipeline.name.clone(),
        group: pipeline.group.clone(),
        group_state,
        protocol: pipeline.sink.protocol(),
        place: opened.store.as_ref().map(|store| store.place()),
        partitions,
        missing,
        unread: stored.into_keys().collect::<BTreeSet<_>>().into_iter().collect(),
    })
}

fn stored(opened: &Opened) -> Result<HashMap<TopicPartition, StoredPosition>, CommandError> {
    let Some(store) = &opened.store else { return Ok(HashMap::new()) };
    let positions = opened.ask_sink(store.positions()).map_err(|error| {
        CommandError::Failed(format!("reading the positions in {}: {}", store.place(), sink_words(&error)))
    })?;
    Ok(positions.into_iter().map(|position| (position.partition.clone(), position)).collect())
}
