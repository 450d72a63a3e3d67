//! `dead-letters list`: letters counted by cause, or one by one.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::ops::ControlFlow;

use serde::Serialize;

use super::letter::Letter;
use super::look::{PartitionView, View, look};
use super::scan::{Range, scan};
use super::wording::{NOTHING, State, Told, moment, told};
use super::{CommandError, ListArguments, Opened};
use crate::commands::print_result;
use crate::terminal::numbers::{counted, grouped};
use crate::terminal::progress::Screen;
use crate::terminal::table::{Align, Table};

/// The most causes that are told apart. A path with an index in it makes one of every element.
const MOST_CAUSES: usize = 10_000;

/// Lists what the arguments name.
pub(super) fn list(opened: &Opened, arguments: &ListArguments, screen: &Screen) -> Result<(), CommandError> {
    let view = look(opened, &arguments.causes.topics)?;
    say_missing(opened, &view);
    for (partition, doubt) in &view.doubts {
        opened.say(&format!("{partition}: {doubt}"));
    }
    if arguments.each {
        list_each(opened, arguments, &view)
    } else {
        list_causes(opened, arguments, &view, screen)
    }
}

/// Says which dead letter topics do not exist.
pub(super) fn say_missing(opened: &Opened, view: &View) {
    if !view.missing.is_empty() {
        let named = if view.missing.len() == 1 { "topic" } else { "topics" };
        opened.say(&format!(
            "no dead letter {named} {}: nothing was written there yet",
            view.missing.join(", ")
        ));
    }
    if view.partitions.is_empty() && view.missing.is_empty() {
        opened.say("there is no dead letter topic yet");
    }
}

/// All letters of a partition.
pub(super) fn all_of(partition: &PartitionView) -> Range {
    Range { partition: partition.partition.clone(), from: partition.begin, to: partition.end }
}

fn list_each(opened: &Opened, arguments: &ListArguments, view: &View) -> Result<(), CommandError> {
    let mut left = arguments.limit.map_or(usize::MAX, std::num::NonZero::get);
    // One after the other, so that the lines are in order.
    for partition in &view.partitions {
        let all = scan(&opened.consumer, &[all_of(partition)], &mut |letters| {
            let mut text = String::new();
            let chosen = letters.iter().filter(|(_, letter)| arguments.causes.matches(letter));
            for (_, letter) in chosen.take(left) {
                left -= 1;
                let state = State::of(letter, partition, &opened.pipeline.name);
                let told = Told::of(letter, state, false);
                text.push_str(&if arguments.json { json_line(&told)? } else { told.line() + "\n" });
            }
            let reader_is_there = write_on(&text)?;
            Ok(if left == 0 || !reader_is_there { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
        })?;
        if !all {
            break;
        }
    }
    Ok(())
}

/// Writes a part of a result. Answers whether anybody reads on.
fn write_on(text: &str) -> Result<bool, CommandError> {
    match io::stdout().lock().write_all(text.as_bytes()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(CommandError::Failed(format!("cannot write to the standard output: {error}"))),
    }
}

/// One line of JSON.
pub(super) fn json_line(value: &impl Serialize) -> Result<String, CommandError> {
    let line = serde_json::to_string(value)
        .map_err(|error| CommandError::Failed(format!("the result cannot be written as JSON: {error}")))?;
    Ok(line + "\n")
}

/// What letters have in common.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub(super) struct Cause {
    topic: Option<String>,
    written_by: Option<String>,
    stage: Option<String>,
    class: Option<String>,
    path: Option<String>,
}

impl Cause {
    fn of(letter: &Letter<'_>) -> Self {
        Self {
            topic: told(letter.origin().map(|origin| origin.topic.into())),
            written_by: told(letter.writer()),
            stage: told(letter.stage()),
            class: told(letter.class()),
            path: told(letter.path()),
        }
    }
}

/// How many letters there are of a cause.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Count {
    pub(super) letters: u64,
    pub(super) waiting: u64,
    pub(super) replayed: u64,
    #[serde(skip)]
    first: Option<i64>,
    #[serde(skip)]
    last: Option<i64>,
}

impl Count {
    fn add(&mut self, state: State, timestamp: Option<i64>) {
        self.letters += 1;
        self.waiting += u64::from(state == State::Waiting);
        self.replayed += u64::from(state == State::Replayed);
        // None is less than any time.
        self.last = self.last.max(timestamp);
        self.first =
            self.first.map_or(timestamp, |first| Some(timestamp.map_or(first, |time| first.min(time))));
    }
}

/// Letters counted by cause.
#[derive(Clone, Debug, Default)]
pub(super) struct Counts {
    causes: BTreeMap<Cause, Count>,
    /// Of causes that are not told apart any more.
    further: Count,
}

impl Counts {
    /// Counts a letter.
    pub(super) fn add(&mut self, letter: &Letter<'_>, state: State) {
        let cause = Cause::of(letter);
        let is_new = !self.causes.contains_key(&cause);
        let count = if is_new && self.causes.len() >= MOST_CAUSES {
            &mut self.further
        } else {
            self.causes.entry(cause).or_default()
        };
        count.add(state, letter.timestamp);
    }

    /// The most frequent causes first, and those that are not among the first `limit` as one.
    fn ranked(&self, limit: usize) -> (Vec<(&Cause, &Count)>, usize, u64) {
        let mut ranked: Vec<(&Cause, &Count)> = self.causes.iter().collect();
        ranked.sort_by_key(|(_, count)| std::cmp::Reverse(count.letters));
        let rest = ranked.split_off(limit.min(ranked.len()));
        let letters = rest.iter().map(|(_, count)| count.letters).sum::<u64>() + self.further.letters;
        (ranked, rest.len(), letters)
    }

    /// A table and, where not all causes are in it, a line about the rest.
    pub(super) fn text(&self, limit: usize) -> String {
        let (ranked, more, letters) = self.ranked(limit);
        // Mostly there is only one writer; what never differs needs no column.
        let mut writers: Vec<&Option<String>> = ranked.iter().map(|(cause, _)| &cause.written_by).collect();
        writers.sort_unstable();
        writers.dedup();
        let mut text = if writers.len() > 1 { with_writer(&ranked) } else { without_writer(&ranked) };
        if letters > 0 {
            let causes = if self.further.letters > 0 { "many".to_owned() } else { grouped(more as u64) };
            let _ =
                writeln!(text, "  and {} of {causes} further causes", counted(letters, "letter", "letters"));
        }
        text
    }

    fn json(&self, limit: usize) -> Result<String, CommandError> {
        #[derive(Serialize)]
        struct Line<'a> {
            #[serde(flatten)]
            cause: &'a Cause,
            #[serde(flatten)]
            count: &'a Count,
            first: Option<String>,
            last: Option<String>,
        }
        let (ranked, _, _) = self.ranked(limit);
        let lines = ranked.into_iter().map(|(cause, count)| {
            json_line(&Line { cause, count, first: moment(count.first), last: moment(count.last) })
        });
        lines.collect()
    }
}

fn or_nothing(text: Option<&String>) -> String {
    text.map_or_else(|| NOTHING.to_owned(), Clone::clone)
}

/// The cells of a line, without the writer.
fn cells(cause: &Cause, count: &Count) -> [String; 9] {
    let moment = |time| moment(time).unwrap_or_else(|| NOTHING.to_owned());
    [
        or_nothing(cause.topic.as_ref()),
        or_nothing(cause.stage.as_ref()),
        or_nothing(cause.class.as_ref()),
        or_nothing(cause.path.as_ref()),
        grouped(count.letters),
        grouped(count.waiting),
        grouped(count.replayed),
        moment(count.first),
        moment(count.last),
    ]
}

const COLUMNS: [(&str, Align); 9] = [
    ("topic", Align::Left),
    ("stage", Align::Left),
    ("class", Align::Left),
    ("path", Align::Left),
    ("letters", Align::Right),
    ("waiting", Align::Right),
    ("replayed", Align::Right),
    ("first", Align::Left),
    ("last", Align::Left),
];

fn without_writer(ranked: &[(&Cause, &Count)]) -> String {
    let mut table = Table::new(COLUMNS);
    for (cause, count) in ranked {
        table.push(cells(cause, count));
    }
    table.render(2)
}

fn with_writer(ranked: &[(&Cause, &Count)]) -> String {
    let [topic, stage, class, path, letters, waiting, replayed, first, last] = COLUMNS;
    let writer = ("written by", Align::Left);
    let mut table = Table::new([topic, writer, stage, class, path, letters, waiting, replayed, first, last]);
    for (cause, count) in ranked {
        let [topic, stage, class, path, letters, waiting, replayed, first, last] = cells(cause, count);
        let writer = or_nothing(cause.written_by.as_ref());
        table.push([topic, writer, stage, class, path, letters, waiting, replayed, first, last]);
    }
    table.render(2)
}

fn list_causes(
    opened: &Opened,
    arguments: &ListArguments,
    view: &View,
    screen: &Screen,
) -> Result<(), CommandError> {
    let mut counts = Counts::default();
    let mut sum = Count::default();
    let bar = screen.records_bar("dead letters", view.offsets());
    let ranges: Vec<Range> = view.partitions.iter().map(all_of).collect();
    let result = scan(&opened.consumer, &ranges, &mut |letters| {
        for (index, letter) in letters {
            if arguments.causes.matches(letter) {
                let state = State::of(letter, &view.partitions[*index], &opened.pipeline.name);
                sum.add(state, letter.timestamp);
                counts.add(letter, state);
            }
        }
        bar.inc(letters.len() as u64);
        Ok(ControlFlow::Continue(()))
    });
    bar.finish_and_clear();
    result?;
    let limit = arguments.limit.map_or(usize::MAX, std::num::NonZero::get);
    if arguments.json {
        return print_result(&counts.json(limit)?);
    }
    print_result(&heading(opened, &sum))?;
    if sum.letters > 0 {
        print_result(&format!("\n{}", counts.text(limit)))?;
    }
    Ok(())
}

fn heading(opened: &Opened, sum: &Count) -> String {
    let others = sum.letters - sum.waiting - sum.replayed;
    let others = if others > 0 { format!(", {} of others", grouped(others)) } else { String::new() };
    format!(
        "{}: {}: {} waiting, {} replayed{others}\n",
        opened.pipeline.name,
        counted(sum.letters, "dead letter", "dead letters"),
        grouped(sum.waiting),
        grouped(sum.replayed),
    )
}

#[cfg(test)]
mod tests {
    use super::super::letter::tests::{bare_letter, letter};
    use super::*;

    #[test]
    fn letters_of_one_cause_are_counted_together() {
        let mut counts = Counts::default();
        for state in [State::Waiting, State::Replayed, State::Waiting] {
            counts.add(&letter(&[]), state);
        }
        let expected = "  \
  topic     stage     class              path     letters  waiting  replayed  first                     last
  ──────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────
  cash_ins  validate  validate.required  /amount        3        2         1  2023-11-14T22:13:20.000Z  2023-11-14T22:13:20.000Z
";
        assert_eq!(counts.text(usize::MAX).trim_start(), expected.trim_start());
    }

    #[test]
    fn letters_of_others_stand_beside_ours_with_the_writer() {
        let mut counts = Counts::default();
        counts.add(&letter(&[]), State::Waiting);
        counts.add(&letter(&[]), State::Waiting);
        counts.add(&bare_letter(), State::OfOthers);
        let text = counts.text(usize::MAX);
        assert!(text.contains("written by") && text.contains("transactions"), "{text}");
        let only = counts.text(1);
        assert!(only.ends_with("  and 1 letter of 1 further causes\n"), "{only}");
        let lines = counts.json(usize::MAX).unwrap();
        let last: serde_json::Value = serde_json::from_str(lines.lines().last().unwrap()).unwrap();
        assert_eq!((&last["topic"], &last["letters"], &last["waiting"]), (&().into(), &1.into(), &0.into()));
    }

    #[test]
    fn the_times_are_the_earliest_and_the_latest() {
        let mut count = Count::default();
        for time in [None, Some(5), Some(3), None, Some(9)] {
            count.add(State::Waiting, time);
        }
        assert_eq!((count.first, count.last), (Some(3), Some(9)));
    }
}
