//! What files loaded together must not do to each other.

use std::collections::BTreeMap;

use txconnect_kafka::KafkaSourceConfig;

use super::diagnose::{Mistake, Severity};
use super::located::{Located, Spot};
use super::model::DeadLetters;

/// What the neighbours of a pipeline need to know of it.
pub(super) struct Neighbour<'n> {
    /// Its file.
    pub(super) located: &'n Located,
    /// Its name, where that is known.
    pub(super) name: Option<&'n str>,
    /// Its source and its group, where they are known.
    pub(super) source: Option<(&'n KafkaSourceConfig, &'n str)>,
    /// Where its dead letters go.
    pub(super) dead_letters: Option<&'n DeadLetters>,
}

/// Compares all files; the result has the index of the file that each mistake belongs to.
pub(super) fn compare(all: &[Neighbour<'_>]) -> Vec<(usize, Mistake)> {
    let mut found = Vec::new();
    names(all, &mut found);
    for (index, one) in all.iter().enumerate() {
        for other in &all[..index] {
            if let Some(mistake) = shared_group(one, other) {
                found.push((index, mistake));
            }
        }
        for other in all {
            if !std::ptr::eq(one, other)
                && let Some(warning) = read_dead_letters(one, other)
            {
                found.push((index, warning));
            }
        }
    }
    found
}

fn names(all: &[Neighbour<'_>], found: &mut Vec<(usize, Mistake)>) {
    let mut first_by_name = BTreeMap::new();
    for (index, one) in all.iter().enumerate() {
        let Some(name) = one.name else { continue };
        let first: &Neighbour<'_> = first_by_name.entry(name).or_insert(one);
        if !std::ptr::eq(first, one) {
            let message = format!("another pipeline is named `{name}`: {}", first.located.file.display());
            let help = Some("give each pipeline a `name` of its own");
            found.push((index, one.located.error("/name", Spot::Value, &message, help)));
        }
    }
}

/// Two pipelines in one group would take partitions from each other.
fn shared_group(one: &Neighbour<'_>, other: &Neighbour<'_>) -> Option<Mistake> {
    let ((source, group), (other_source, other_group)) = (one.source?, other.source?);
    if group != other_group || source.brokers != other_source.brokers {
        return None;
    }
    let listed = |source: &KafkaSourceConfig| source.topics.clone().unwrap_or_default();
    let reads = |source: &KafkaSourceConfig, topic: &str| {
        listed(source).iter().any(|name| name == topic)
            || (source.pattern.is_some() && source.topic_matches(topic))
    };
    let common = listed(source)
        .into_iter()
        .find(|topic| reads(other_source, topic))
        .or_else(|| listed(other_source).into_iter().find(|topic| reads(source, topic)));
    let what = match common {
        Some(topic) => format!("topic `{topic}`"),
        None if source.pattern.is_some() && source.pattern == other_source.pattern => {
            "the same pattern".to_owned()
        }
        None => return None,
    };
    let message = format!(
        "{} reads {what} in the same group: each would get only a part",
        other.located.file.display()
    );
    let place = if one.located.node("/source/kafka/group").is_some() {
        "/source/kafka/group"
    } else {
        "/source/kafka"
    };
    let spot = if place.ends_with("group") { Spot::Value } else { Spot::Key };
    Some(one.located.error(place, spot, &message, Some("give each pipeline a `group` of its own")))
}

fn read_dead_letters(one: &Neighbour<'_>, other: &Neighbour<'_>) -> Option<Mistake> {
    let (dead_letters, (source, _), (other_source, _)) = (one.dead_letters?, one.source?, other.source?);
    let topics: Vec<String> = if dead_letters.topic.depends_on_topic() {
        source.topics.iter().flatten().map(|topic| dead_letters.topic.for_topic(topic)).collect()
    } else {
        vec![dead_letters.topic.for_topic("")]
    };
    let listed = other_source.topics.as_deref().unwrap_or_default();
    let read = topics.iter().find(|name| {
        listed.contains(name) || (other_source.pattern.is_some() && other_source.topic_matches(name))
    })?;
    let message = format!("the dead letters in `{read}` are read by {}", other.located.file.display());
    let mut warning = one.located.error("/dead_letters/topic", Spot::Value, &message, None);
    warning.severity = Severity::Warning;
    Some(warning)
}
