//! From the books of pipelines to what people see of them.

use std::collections::BTreeMap;

use crate::control::{Outcome, PipelineReport, PipelineView};
use crate::pipeline::{BooksSnapshot, Health, Tally};
use crate::terminal::numbers::per_second;
use crate::terminal::progress::PipelineProgress;
use crate::terminal::summary::{Ending, PipelineSummary, TableRow, TopicRow};

/// How far a running pipeline has come.
pub(super) fn progress(view: &PipelineView) -> PipelineProgress {
    let total = view.books.total();
    let state = match view.health {
        Health::Starting => "starting",
        Health::Running => "running",
        Health::Retrying { .. } => "retrying",
        Health::Stalled { .. } => "stalled",
    };
    PipelineProgress {
        name: view.name.clone(),
        state: state.to_owned(),
        read: total.read,
        written: total.written,
        dead_lettered: total.dead_lettered,
        lag: view.books.lag(),
    }
}

/// Whether the exit code must say that a pipeline has failed.
pub(super) fn has_failed(report: &PipelineReport) -> bool {
    matches!(report.outcome, Outcome::Failed(_))
}

/// What became of a pipeline.
pub(super) fn summary(report: &PipelineReport) -> PipelineSummary {
    PipelineSummary {
        name: report.name.clone(),
        ending: match &report.outcome {
            Outcome::Finished => Ending::Finished,
            Outcome::Stopped => Ending::Stopped,
            Outcome::Failed(why) => Ending::Failed(why.clone()),
        },
        elapsed: report.elapsed,
        topics: topic_rows(&report.books, report.elapsed),
        tables: report
            .tables
            .iter()
            .map(|count| TableRow { table: count.table.to_string(), rows: count.rows })
            .collect(),
        counters: report.books.counters.clone(),
    }
}

fn topic_rows(books: &BooksSnapshot, elapsed: std::time::Duration) -> Vec<TopicRow> {
    let mut topics: BTreeMap<&str, (Tally, u64)> = BTreeMap::new();
    for (topic, tally) in books.by_topic() {
        topics.entry(topic).or_default().0 = tally;
    }
    for (topic, requests) in &books.requests {
        topics.entry(topic).or_default().1 = *requests;
    }
    topics
        .into_iter()
        .map(|(topic, (tally, requests))| TopicRow {
            topic: topic.to_owned(),
            tally,
            requests,
            ignored_fields: books.ignored_fields.get(topic).copied().unwrap_or(0),
            rows_per_second: per_second(tally.rows, elapsed),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::PartitionBooks;
    use std::time::Duration;
    use txconnect_connector_api::TopicPartition;

    #[test]
    fn partitions_are_added_up_for_each_topic() {
        let partition = |topic: &str, partition, tally| PartitionBooks {
            partition: TopicPartition::new(topic, partition),
            tally,
            committed: None,
            end: None,
            held: true,
        };
        let tally = |read, written| Tally { read, written, rows: written, ..Tally::default() };
        let books = BooksSnapshot {
            partitions: vec![
                partition("b", 0, tally(3, 2)),
                partition("a", 0, tally(10, 10)),
                partition("a", 1, tally(10, 6)),
            ],
            requests: [("a".to_owned(), 2), ("c".to_owned(), 1)].into(),
            ignored_fields: [("b".to_owned(), 7)].into(),
            ..BooksSnapshot::default()
        };
        let rows = topic_rows(&books, Duration::from_secs(2));
        let seen: Vec<_> = rows
            .iter()
            .map(|row| {
                (row.topic.as_str(), row.tally.read, row.tally.written, row.requests, row.rows_per_second)
            })
            .collect();
        assert_eq!(seen, [("a", 20, 16, 2, 8), ("b", 3, 2, 0, 1), ("c", 0, 0, 1, 0)]);
    }
}
