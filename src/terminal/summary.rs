//! The table at the end of a run.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

use super::numbers::{counted, grouped, span};
use super::table::{Align, Table};
use crate::pipeline::Tally;

/// What became of the records of one topic.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TopicRow {
    /// The topic.
    pub topic: String,
    /// What became of its records.
    pub tally: Tally,
    /// Requests sent to the sink, retries included.
    pub requests: u64,
    /// Fields of written records that no column took.
    pub ignored_fields: u64,
    /// Rows written each second.
    pub rows_per_second: u64,
}

/// How many rows a table of the sink holds now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableRow {
    /// The table.
    pub table: String,
    /// Its rows; `None` where the table does not exist.
    pub rows: Option<u64>,
}

/// How a pipeline ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Everything up to the ends taken at start is done.
    Finished,
    /// It was asked to stop.
    Stopped,
    /// It failed, with the reason.
    Failed(String),
}

/// One pipeline's part of the summary.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PipelineSummary {
    /// The pipeline's name.
    pub name: String,
    /// How it ended.
    pub ending: Ending,
    /// How long it ran.
    pub elapsed: Duration,
    /// Its topics, in the order to show them.
    pub topics: Vec<TopicRow>,
    /// The sink's tables.
    pub tables: Vec<TableRow>,
    /// What transforms have counted, by transform and counter.
    pub counters: BTreeMap<String, BTreeMap<String, u64>>,
}

impl PipelineSummary {
    /// The sums over all topics.
    pub fn totals(&self) -> TopicRow {
        let mut sum = TopicRow { topic: "all".to_owned(), ..TopicRow::default() };
        for row in &self.topics {
            sum.tally += row.tally;
            sum.requests += row.requests;
            sum.ignored_fields += row.ignored_fields;
            // All topics share one clock: their rates add up.
            sum.rows_per_second += row.rows_per_second;
        }
        sum
    }

    /// The summary as lines.
    pub fn render(&self) -> String {
        let mut text = match &self.ending {
            Ending::Finished => format!("{}: finished in {}\n", self.name, span(self.elapsed)),
            Ending::Stopped => format!("{}: stopped after {}\n", self.name, span(self.elapsed)),
            Ending::Failed(why) => {
                format!("{}: failed after {}: {why}\n", self.name, span(self.elapsed))
            }
        };
        if !self.topics.is_empty() {
            text.push('\n');
            text.push_str(&self.topic_table());
        }
        text.push('\n');
        let totals = self.totals();
        text.push_str(&books_line(&totals.tally));
        if totals.ignored_fields > 0 {
            let fields = counted(totals.ignored_fields, "field", "fields");
            text = format!("{text}  left out: {fields} that no column takes (`unknown_fields: ignore`)\n");
        }
        for (transform, counters) in &self.counters {
            let counts: Vec<String> =
                counters.iter().map(|(name, count)| format!("{} {}", grouped(*count), plain(name))).collect();
            // Writing to a String cannot fail.
            let _ = writeln!(text, "  {}: {}", plain(transform), counts.join(", "));
        }
        if !self.tables.is_empty() {
            text.push('\n');
            text.push_str(&table_of_tables(&self.tables));
        }
        text
    }

    fn topic_table(&self) -> String {
        let mut table = Table::new([
            ("topic", Align::Left),
            ("read", Align::Right),
            ("written", Align::Right),
            ("dead-lettered", Align::Right),
            ("filtered", Align::Right),
            ("requests", Align::Right),
            ("rows/s", Align::Right),
        ]);
        for row in &self.topics {
            table.push(cells(row));
        }
        if self.topics.len() > 1 {
            table.total(cells(&self.totals()));
        }
        table.render(2)
    }
}

fn cells(row: &TopicRow) -> [String; 7] {
    [
        row.topic.clone(),
        grouped(row.tally.read),
        grouped(row.tally.written),
        grouped(row.tally.dead_lettered),
        grouped(row.tally.filtered),
        grouped(row.requests),
        grouped(row.rows_per_second),
    ]
}

/// Text of a transform, without characters that steer a terminal.
fn plain(text: &str) -> String {
    text.chars().map(|character| if character.is_control() { ' ' } else { character }).collect()
}

/// `read = written + dead-lettered + filtered`, with what else there is: bad records left out by wish, and those
/// that a run cut off has neither written nor committed.
fn books_line(sum: &Tally) -> String {
    let mut parts = vec![
        format!("{} written", grouped(sum.written)),
        format!("{} dead-lettered", grouped(sum.dead_lettered)),
        format!("{} filtered", grouped(sum.filtered)),
    ];
    if sum.skipped > 0 {
        parts.push(format!("{} skipped", grouped(sum.skipped)));
    }
    if sum.given_back > 0 {
        parts.push(format!("{} given back, to be read again", grouped(sum.given_back)));
    }
    if sum.in_flight() > 0 {
        parts.push(format!("{} left in flight, to be read again", grouped(sum.in_flight())));
    }
    let mut line = format!("  books: {} read = {}", grouped(sum.read), parts.join(" + "));
    if sum.settled() > sum.read {
        // Writing to a String cannot fail.
        let _ = write!(
            line,
            "; they do not balance: {} too many",
            counted(sum.settled() - sum.read, "record", "records")
        );
    }
    line.push('\n');
    line
}

fn table_of_tables(rows: &[TableRow]) -> String {
    let mut table = Table::new([("table", Align::Left), ("rows now", Align::Right)]);
    for row in rows {
        table.push([row.table.clone(), row.rows.map_or_else(|| "no such table".to_owned(), grouped)]);
    }
    table.render(2)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn summary() -> PipelineSummary {
        PipelineSummary {
            name: "transactions".into(),
            ending: Ending::Finished,
            elapsed: Duration::from_millis(500),
            topics: vec![
                TopicRow {
                    topic: "cash_ins".into(),
                    tally: Tally { read: 100, written: 99, dead_lettered: 1, ..Tally::default() },
                    requests: 1,
                    rows_per_second: 198,
                    ..TopicRow::default()
                },
                TopicRow {
                    topic: "cash_outs_created".into(),
                    tally: Tally { read: 2_400, written: 2_398, filtered: 2, ..Tally::default() },
                    requests: 5,
                    rows_per_second: 4_796,
                    ..TopicRow::default()
                },
            ],
            tables: vec![
                TableRow { table: "transactions.cash_ins".into(), rows: Some(99) },
                TableRow { table: "transactions.cash_outs_created".into(), rows: None },
            ],
            counters: BTreeMap::new(),
        }
    }

    #[test]
    fn a_finished_run_shows_topics_books_and_tables() {
        let expected = "\
transactions: finished in 0.5 s

  topic               read  written  dead-lettered  filtered  requests  rows/s
  ────────────────────────────────────────────────────────────────────────────
  cash_ins             100       99              1         0         1     198
  cash_outs_created  2,400    2,398              0         2         5   4,796
  ────────────────────────────────────────────────────────────────────────────
  all                2,500    2,497              1         2         6   4,994

  books: 2,500 read = 2,497 written + 1 dead-lettered + 2 filtered

  table                                rows now
  ─────────────────────────────────────────────
  transactions.cash_ins                      99
  transactions.cash_outs_created  no such table
";
        assert_eq!(summary().render(), expected);
    }

    #[test]
    fn records_in_flight_and_wrong_books_are_said() {
        let mut cut_off = summary();
        cut_off.topics[0].tally.written = 90;
        assert!(cut_off.render().contains("+ 2 filtered + 9 left in flight, to be read again\n"));
        cut_off.topics[0].tally.given_back = 8;
        cut_off.topics[0].tally.skipped = 1;
        assert!(cut_off.render().contains("+ 2 filtered + 1 skipped + 8 given back, to be read again\n"));
        (cut_off.topics[0].tally.given_back, cut_off.topics[0].tally.skipped) = (0, 0);
        cut_off.topics[0].tally.written = 100;
        assert!(cut_off.render().contains("they do not balance: 1 record too many"));
    }

    #[test]
    fn what_transforms_have_counted_is_shown() {
        let mut counted = summary();
        let counters = [("masked".to_owned(), 2_400), ("without account".to_owned(), 1)];
        counted.counters.insert("mask\u{1b}".into(), counters.into());
        assert!(counted.render().contains("\n  mask : 2,400 masked, 1 without account\n"));
    }

    #[test]
    fn a_failure_says_why() {
        let mut failed = summary();
        failed.ending = Ending::Failed("the table is missing".into());
        failed.topics.clear();
        failed.tables.clear();
        assert_eq!(
            failed.render(),
            "transactions: failed after 0.5 s: the table is missing\n\n  books: 0 read = 0 written + 0 dead-lettered + 0 filtered\n"
        );
    }
}
