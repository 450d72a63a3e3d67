//! What the rounds have shown, as a table in Markdown.

use std::fmt::Write as _;
use std::time::Duration;

use serde_json::json;

use super::contender::{Contender, Goal, Kind, Ours};
use super::measure::{Measurement, rate};
use super::table::Table;

/// All rounds of one contender, in order.
pub(crate) struct Rounds {
    pub(crate) contender: Contender,
    pub(crate) measurements: Vec<Measurement>,
}

/// A ratio is taken within each round; the median of the rounds is told.
type Rate = fn(&Measurement) -> Option<f64>;

const HEADER: [&str; 15] = [
    "contender",
    "rows/s best",
    "median",
    "after 1st row best",
    "median",
    "1st row s",
    "CPU s",
    "µs/row",
    "peak MiB",
    "÷ kcat",
    "÷ copy",
    "÷ best rival",
    "sink CPU s",
    "Kafka CPU s",
    "check",
];

/// Of those into BigQuery.
const BIGQUERY_HEADER: [&str; 13] = [
    "contender",
    "rows/s best",
    "median",
    "after 1st row median",
    "1st row s",
    "rows/call",
    "CPU s",
    "µs/row",
    "peak MiB",
    "÷ old way",
    "sink CPU s",
    "Kafka CPU s",
    "check",
];

impl Rounds {
    fn values<T>(&self, value: impl Fn(&Measurement) -> Option<T>) -> Vec<T> {
        self.measurements.iter().filter_map(value).collect()
    }

    fn median(&self, value: impl Fn(&Measurement) -> Option<f64>) -> Option<f64> {
        median(self.values(value))
    }

    fn best(&self, value: Rate) -> Option<f64> {
        self.values(value).into_iter().max_by(f64::total_cmp)
    }

    fn ratio(&self, other: &Self, value: Rate) -> Option<f64> {
        let pairs = self.measurements.iter().zip(&other.measurements);
        median(pairs.filter_map(|(ours, theirs)| Some(value(ours)? / value(theirs)?)).collect())
    }

    fn seconds(&self, value: fn(&Measurement) -> Duration) -> String {
        figure(self.median(|measurement| Some(value(measurement).as_secs_f64())), 2)
    }

    /// CPU of the contender in microseconds for each row.
    fn cpu_per_row(&self) -> String {
        let per_row = |measurement: &Measurement| {
            (measurement.rows > 0).then(|| measurement.cpu.as_secs_f64() * 1e6 / measurement.rows as f64)
        };
        figure(self.median(per_row), 2)
    }

    fn peak_mebibytes(&self) -> String {
        figure(self.median(|measurement| Some(measurement.peak_bytes as f64 / f64::from(1 << 20))), 0)
    }

    fn first_row(&self) -> String {
        figure(self.median(|measurement| Some(measurement.first_row?.as_secs_f64())), 2)
    }

    fn check(&self) -> String {
        if self.faults().is_empty() { "exact".to_owned() } else { "FAILED".to_owned() }
    }

    /// How much faster than the old way, whose start is left out: it moves fewer rows.
    fn times_the_old_way(&self, old_way: &Self) -> Option<f64> {
        let pairs = self.measurements.iter().zip(&old_way.measurements);
        median(pairs.filter_map(|(ours, theirs)| Some(from_start(ours)? / after_first(theirs)?)).collect())
    }

    /// What was wrong in the rounds; empty when all was well.
    fn faults(&self) -> Vec<String> {
        let rounds = self.measurements.iter().enumerate();
        rounds
            .filter(|(_, measurement)| !measurement.faults.is_empty())
            .map(|(index, measurement)| format!("round {}: {}", index + 1, measurement.faults.join(", ")))
            .collect()
    }
}

fn from_start(measurement: &Measurement) -> Option<f64> {
    rate(measurement.rows, measurement.took)
}

fn after_first(measurement: &Measurement) -> Option<f64> {
    measurement.rate_after_first
}

fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => None,
        odd if odd % 2 == 1 => Some(values[middle]),
        _ => Some(f64::midpoint(values[middle - 1], values[middle])),
    }
}

/// The tables, the ratios of ours to each other and to the rivals, and the faults.
pub(crate) fn render(all: &[Rounds]) -> String {
    let (into_bigquery, others): (Vec<&Rounds>, Vec<&Rounds>) =
        all.iter().partition(|rounds| rounds.contender.goal() == Goal::BigQuery);
    let mut text = String::new();
    if !others.is_empty() {
        text.push_str(&render_usual(&others));
        text.push('\n');
    }
    if !into_bigquery.is_empty() {
        text.push_str(&render_bigquery(&into_bigquery));
        text.push('\n');
    }
    let busy = all.iter().flat_map(|rounds| rounds.values(|one| Some(one.other_cores))).collect();
    let _ = writeln!(text, "cores busy with other things meanwhile (median): {}", figure(median(busy), 2));
    for rounds in all {
        for fault in rounds.faults() {
            let _ = writeln!(text, "FAILED {}: {fault}", rounds.contender);
        }
    }
    text
}

fn render_bigquery(all: &[&Rounds]) -> String {
    let mut lines = vec![BIGQUERY_HEADER.map(str::to_owned)];
    for rounds in all {
        let old_way = all.iter().find(|other| {
            other.contender.kind == Kind::OldWay && other.contender.latency() == rounds.contender.latency()
        });
        let old_way = old_way.filter(|_| rounds.contender.kind != Kind::OldWay);
        let rows_per_call = |measurement: &Measurement| {
            (measurement.requests > 0).then(|| measurement.rows as f64 / measurement.requests as f64)
        };
        lines.push([
            rounds.contender.to_string(),
            figure(rounds.best(from_start), 0),
            figure(rounds.median(from_start), 0),
            figure(rounds.median(after_first), 0),
            rounds.first_row(),
            figure(rounds.median(rows_per_call), 0),
            rounds.seconds(|measurement| measurement.cpu),
            rounds.cpu_per_row(),
            rounds.peak_mebibytes(),
            figure(old_way.and_then(|old_way| rounds.times_the_old_way(old_way)), 1),
            rounds.seconds(|measurement| measurement.sink_cpu),
            rounds.seconds(|measurement| measurement.kafka_cpu),
            rounds.check(),
        ]);
    }
    markdown(&lines)
}

fn render_usual(all: &[&Rounds]) -> String {
    let find = |kind: &Kind| all.iter().find(|rounds| rounds.contender.kind == *kind);
    let kcat = find(&Kind::Kcat);
    let best_rival = all
        .iter()
        .filter(|rounds| matches!(rounds.contender.kind, Kind::Rival(_)))
        .max_by(|a, b| a.median(from_start).unwrap_or(0.0).total_cmp(&b.median(from_start).unwrap_or(0.0)));
    let mut lines = vec![HEADER.map(str::to_owned)];
    for rounds in all {
        let copy = rounds.contender.table().and_then(|table| find(&Kind::Copy(table)));
        // Rivals fill the table without an index: nothing else is to be compared with them.
        let rival = best_rival.filter(|_| rounds.contender.table() == Some(Table::Plain));
        let times =
            |other: Option<&&Rounds>| figure(other.and_then(|other| rounds.ratio(other, from_start)), 2);
        lines.push([
            rounds.contender.to_string(),
            figure(rounds.best(from_start), 0),
            figure(rounds.median(from_start), 0),
            figure(rounds.best(after_first), 0),
            figure(rounds.median(after_first), 0),
            rounds.first_row(),
            rounds.seconds(|measurement| measurement.cpu),
            rounds.cpu_per_row(),
            rounds.peak_mebibytes(),
            times(kcat),
            times(copy),
            times(rival),
            rounds.seconds(|measurement| measurement.sink_cpu),
            rounds.seconds(|measurement| measurement.kafka_cpu),
            rounds.check(),
        ]);
    }
    let mut text = markdown(&lines);
    let find_ours = |ours| find(&Kind::Ours(ours));
    let at_least_once = find_ours(Ours::AppendAtLeastOnce);
    let exactly_once = find_ours(Ours::Append);
    let rivals = all.iter().filter(|rounds| matches!(rounds.contender.kind, Kind::Rival(_)));
    text.push('\n');
    for ours in [exactly_once, at_least_once].into_iter().flatten() {
        let others = rivals.clone().chain(at_least_once.filter(|other| other.contender != ours.contender));
        for other in others {
            let _ = writeln!(
                text,
                "{} ÷ {}: {} from the start, {} after the first row",
                ours.contender,
                other.contender,
                figure(ours.ratio(other, from_start), 2),
                figure(ours.ratio(other, after_first), 2)
            );
        }
    }
    if let Some(rival) = best_rival {
        let _ = writeln!(text, "best rival: {}", rival.contender);
    }
    text
}

/// Everyone's name, one a line.
pub(crate) fn names(contenders: &[Contender]) -> String {
    contenders.iter().fold(String::new(), |text, contender| text + &contender.to_string() + "\n")
}

/// Whether any round of anyone went wrong.
pub(crate) fn any_fault(all: &[Rounds]) -> bool {
    all.iter().any(|rounds| !rounds.faults().is_empty())
}

/// One line of JSON per measurement, for other tools.
pub(crate) fn json_line(contender: &Contender, round: u32, measurement: &Measurement) -> String {
    json!({
        "contender": contender.to_string(),
        "round": round,
        "rows": measurement.rows,
        "seconds": measurement.took.as_secs_f64(),
        "first_row_seconds": measurement.first_row.map(|first| first.as_secs_f64()),
        "rows_per_second": from_start(measurement),
        "rows_per_second_after_first": after_first(measurement),
        "cpu_seconds": measurement.cpu.as_secs_f64(),
        "peak_bytes": measurement.peak_bytes,
        "requests": measurement.requests,
        "sink_cpu_seconds": measurement.sink_cpu.as_secs_f64(),
        "kafka_cpu_seconds": measurement.kafka_cpu.as_secs_f64(),
        "other_cores": measurement.other_cores,
        "faults": measurement.faults,
    })
    .to_string()
}

/// One line about one measurement, for whoever waits.
pub(crate) fn short(measurement: &Measurement) -> String {
    let faults = if measurement.faults.is_empty() {
        String::new()
    } else {
        format!(", FAILED: {}", measurement.faults.join(", "))
    };
    format!(
        "{} rows/s, {:.2} CPU s, {:.0} MiB{faults}",
        figure(from_start(measurement), 0),
        measurement.cpu.as_secs_f64(),
        measurement.peak_bytes as f64 / f64::from(1 << 20)
    )
}

/// A number with thousands separated; empty for none.
fn figure(value: Option<f64>, decimals: usize) -> String {
    let Some(value) = value else { return String::new() };
    let text = format!("{value:.decimals$}");
    let (whole, fraction) =
        text.split_once('.').map_or((&*text, ""), |(whole, _)| text.split_at(whole.len()));
    let mut figure = String::new();
    for (index, digit) in whole.chars().enumerate() {
        if index > 0 && (whole.len() - index).is_multiple_of(3) {
            figure.push(',');
        }
        figure.push(digit);
    }
    figure + fraction
}

fn markdown<const COLUMNS: usize>(lines: &[[String; COLUMNS]]) -> String {
    let widths: Vec<usize> = (0..COLUMNS)
        .map(|column| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or_default())
        .collect();
    let mut text = String::new();
    for (index, line) in lines.iter().enumerate() {
        for (column, (cell, &width)) in line.iter().zip(&widths).enumerate() {
            let _ = if column == 0 {
                write!(text, "| {cell:<width$} ")
            } else {
                write!(text, "| {cell:>width$} ")
            };
        }
        text.push_str("|\n");
        if index == 0 {
            for (column, width) in widths.iter().enumerate() {
                let end = if column == 0 { "-" } else { ":" };
                let _ = write!(text, "|{}{end}", "-".repeat(width + 1));
            }
            text.push_str("|\n");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rounds(label: &str, rates: &[u32]) -> Rounds {
        let measurements = rates
            .iter()
            .map(|rate| Measurement {
                rows: 1_000_000,
                took: Duration::from_secs(1_000_000) / *rate,
                first_row: None,
                rate_after_first: None,
                cpu: Duration::from_millis(1_500),
                peak_bytes: 64 << 20,
                requests: 0,
                sink_cpu: Duration::ZERO,
                kafka_cpu: Duration::ZERO,
                other_cores: 0.0,
                faults: Vec::new(),
            })
            .collect();
        Rounds {
            contender: Contender::parse(label, &["fast".to_owned(), "slow".to_owned()]).unwrap(),
            measurements,
        }
    }

    #[test]
    fn ratios_are_taken_within_a_round() {
        // The machine became slower from round to round, for both alike.
        let ours = rounds("append", &[1_000_000, 500_000, 250_000]);
        let theirs = rounds("fast", &[500_000, 250_000, 125_000]);
        assert_eq!(ours.ratio(&theirs, from_start), Some(2.0));
    }

    #[test]
    fn the_table_compares_with_the_limits_and_the_best_rival() {
        let all = [
            rounds("kcat", &[800_000]),
            rounds("copy", &[1_000_000]),
            rounds("stdout", &[1_600_000]),
            rounds("append", &[500_000]),
            rounds("slow", &[100_000]),
            rounds("fast", &[250_000]),
        ];
        let text = render(&all);
        let row = |name: &str| -> Vec<String> {
            let line = text.lines().find(|line| line.starts_with(&format!("| {name} "))).unwrap();
            line.split('|').map(|cell| cell.trim().to_owned()).collect()
        };
        let append = row("append");
        assert_eq!(append[2..4], ["500,000", "500,000"]);
        assert_eq!(append[8], "1.50");
        assert_eq!(append[9], "64");
        assert_eq!(append[10..13], ["0.62", "0.50", "2.00"]);
        assert_eq!(row("stdout")[10..13], ["2.00", "", ""]);
        assert!(text.contains("best rival: fast"), "{text}");
        assert!(text.contains("append ÷ slow: 5.00 from the start, "), "{text}");
    }

    #[test]
    fn those_into_bigquery_are_compared_with_the_old_way_at_the_same_latency() {
        let mut old_way = rounds("bigquery-old-way@LATENCY=50", &[10_000]);
        old_way.measurements[0].rate_after_first = Some(8_000.0);
        let all = [
            rounds("bigquery-upsert", &[400_000]),
            rounds("bigquery-upsert@LATENCY=50", &[160_000]),
            old_way,
        ];
        let text = render(&all);
        let times: Vec<&str> = text
            .lines()
            .filter(|line| line.starts_with("| bigquery-"))
            .map(|line| line.split('|').nth(10).unwrap().trim())
            .collect();
        assert_eq!(times, ["", "20.0", ""]);
    }

    #[test]
    fn a_fault_in_any_round_is_told_with_its_round() {
        let mut append = rounds("append", &[500_000, 500_000]);
        append.measurements[1].faults.push("3 lost".to_owned());
        let all = [append];
        assert!(any_fault(&all));
        assert!(render(&all).contains("FAILED append: round 2: 3 lost"));
    }

    #[test]
    fn figures_have_their_thousands_separated() {
        assert_eq!(figure(Some(1_234_567.4), 0), "1,234,567");
        assert_eq!(figure(Some(123.456), 2), "123.46");
        assert_eq!(figure(Some(1_234.5), 1), "1,234.5");
        assert_eq!(figure(None, 2), "");
    }

    #[test]
    fn the_median_of_an_even_number_lies_between_the_middle_two() {
        assert_eq!(median(vec![4.0, 1.0, 3.0, 2.0]), Some(2.5));
        assert_eq!(median(vec![]), None);
    }
}
