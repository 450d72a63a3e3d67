//! Which topics there are, and which of them are ours.

use std::sync::Arc;
use std::time::{Duration, Instant};

use txconnect_connector_api::TopicPartition;

use super::{Source, kafka_failure};
use crate::pipeline::ends::Ends;
use crate::pipeline::shared::Failure;
use crate::pipeline::topic::Topic;

/// How often the cluster is asked for topics that a pattern matches, and for listed topics that are missing.
const LOOK_FOR_TOPICS: Duration = Duration::from_secs(5);
/// How long the first look for topics may take; each one without an answer may take twice as long as the one before.
const FIRST_LOOK: Duration = Duration::from_secs(1);
/// How long any look may take: while no broker answers, a request to end waits for it.
const LONGEST_LOOK: Duration = Duration::from_secs(4);
/// How long after a look without an answer the next one follows.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// When the next look for topics is due, and how long it may take.
pub(super) struct NextLook {
    due: Instant,
    deadline: Duration,
}

impl NextLook {
    pub(super) fn at_once() -> Self {
        Self { due: Instant::now(), deadline: FIRST_LOOK }
    }

    fn answered(&mut self) {
        self.due = Instant::now() + LOOK_FOR_TOPICS;
    }

    fn unanswered(&mut self) {
        self.due = Instant::now() + LOOK_AGAIN;
        self.deadline = (self.deadline * 2).min(LONGEST_LOOK);
    }
}

impl Source {
    /// Looks at the cluster's topics: at the start, for a pattern, and while a listed topic is missing.
    pub(super) fn look_for_topics(&mut self) -> Result<(), Failure> {
        let complete =
            self.pipeline.source.topics.as_ref().is_some_and(|topics| topics.len() == self.topics.len());
        if complete || Instant::now() < self.next_look.due {
            return Ok(());
        }
        let found = match self.consumer.topics(self.next_look.deadline.min(self.question())) {
            Ok(found) => found,
            Err(error) => {
                self.next_look.unanswered();
                return self.ask_again_later(&error);
            }
        };
        self.next_look.answered();
        let wanted: Vec<(String, Vec<i32>)> = found
            .into_iter()
            .filter(|(name, partitions)| !partitions.is_empty() && (self.wanted)(name))
            .collect();
        let first = self.subscribed.is_empty() && self.topics.is_empty();
        for (name, _) in &wanted {
            if !self.topics.contains_key(name) {
                let topic = Topic::of(&self.pipeline, name, &mut self.destinations).map_err(|error| {
                    Failure::fatal(
                        format!("{name}: {error}"),
                        Some("write the schema, or change the pattern".to_owned()),
                    )
                })?;
                self.topics.insert(name.clone(), Arc::new(topic));
                if !first {
                    tracing::info!(pipeline = %self.shared.name, "new topic: {name}");
                }
            }
        }
        self.name_missing_topics(first)?;
        if self.options.until_end && self.ends.is_none() {
            self.take_ends(&wanted)?;
        }
        // Listed topics are subscribed to even while they are missing: the group notices them when they appear.
        let names: Vec<String> = match &self.pipeline.source.topics {
            Some(listed) => listed.clone(),
            None => self.topics.keys().cloned().collect(),
        };
        if names != self.subscribed && !names.is_empty() {
            self.consumer.subscribe(&names).map_err(|error| kafka_failure(&error))?;
            self.subscribed = names;
        }
        Ok(())
    }

    fn name_missing_topics(&self, first: bool) -> Result<(), Failure> {
        let missing: Vec<&str> = match &self.pipeline.source.topics {
            Some(listed) => {
                listed.iter().filter(|name| !self.topics.contains_key(*name)).map(String::as_str).collect()
            }
            None if self.topics.is_empty() => {
                let pattern = self.pipeline.source.pattern.as_deref().unwrap_or_default();
                if self.options.until_end {
                    return Err(Failure::fatal(format!("no topic matches the pattern {pattern}"), None));
                }
                if first {
                    tracing::warn!(pipeline = %self.shared.name, "no topic matches the pattern {pattern} yet, waiting for one");
                }
                Vec::new()
            }
            None => Vec::new(),
        };
        if missing.is_empty() {
            return Ok(());
        }
        let names = missing.join(", ");
        if self.options.until_end {
            let hint = "create the topic, for example with `txconnect publish`, or mend its name in the pipeline file";
            return Err(Failure::fatal(format!("unknown topic: {names}"), Some(hint.to_owned())));
        }
        if first {
            tracing::warn!(pipeline = %self.shared.name, "unknown topic: {names}; waiting for it to appear");
        }
        Ok(())
    }

    fn take_ends(&mut self, wanted: &[(String, Vec<i32>)]) -> Result<(), Failure> {
        let partitions: Vec<TopicPartition> = wanted
            .iter()
            .flat_map(|(name, numbers)| {
                let topic: Arc<str> = name.as_str().into();
                numbers.iter().map(move |number| TopicPartition::new(Arc::clone(&topic), *number))
            })
            .collect();
        match self.consumer.end_offsets(&partitions, self.question()) {
            Ok(ends) => {
                self.ends = Some(Ends::new(ends));
                Ok(())
            }
            Err(error) => {
                // Subscribing without the ends would start reading without knowing where to stop.
                self.topics.clear();
                self.ask_again_later(&error)
            }
        }
    }
}
