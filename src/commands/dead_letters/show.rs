//! `dead-letters show`: one letter with what is told about it.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::ops::ControlFlow;

use serde::Serialize;

use super::letter::{Letter, Origin, Place};
use super::list::{all_of, json_line, say_missing};
use super::look::{PartitionView, look};
use super::scan::{Range, scan};
use super::wording::{Datum, NOTHING, State, Told, lines, shown};
use super::{CommandError, Opened, ShowArguments};
use crate::commands::print_result;
use crate::terminal::numbers::counted;

/// Shows what the arguments name.
pub(super) fn show(opened: &Opened, arguments: &ShowArguments) -> Result<(), CommandError> {
    let place = &arguments.place;
    let is_dead_letter_topic = {
        let source = opened.pipeline.source.topic_filter();
        opened.template.is_made_of(&place.topic, |topic| source.matches(topic))
    };
    // A record of another topic stands in its own dead letter topic, or in the one of all.
    let topics = if is_dead_letter_topic { Vec::new() } else { vec![place.topic.clone()] };
    let view = look(opened, &topics)?;
    say_missing(opened, &view);
    let ranges: Vec<Range> = if is_dead_letter_topic {
        let found = view
            .partitions
            .iter()
            .find(|one| *one.partition.topic == *place.topic && one.partition.partition == place.partition);
        let found = found.filter(|one| (one.begin..one.end).contains(&place.offset));
        let Some(found) = found else { return Err(not_there(opened, place, &view.partitions)) };
        vec![Range { partition: found.partition.clone(), from: place.offset, to: place.offset + 1 }]
    } else {
        view.partitions.iter().map(all_of).collect()
    };
    let mut shown = 0_u64;
    scan(&opened.consumer, &ranges, &mut |letters| {
        for (_, letter) in letters {
            if !is_dead_letter_topic && !stood_at(letter, place) {
                continue;
            }
            let partition = view.partitions.iter().find(|one| {
                *one.partition.topic == *letter.topic && one.partition.partition == letter.partition
            });
            let Some(partition) = partition else { continue };
            let state = State::of(letter, partition, &opened.pipeline.name);
            print_result(&if arguments.json {
                json(letter, state, arguments.values)?
            } else {
                text(letter, state, arguments.values)
            })?;
            shown += 1;
        }
        Ok(ControlFlow::Continue(()))
    })?;
    if shown > 0 { Ok(()) } else { Err(not_there(opened, place, &view.partitions)) }
}

fn stood_at(letter: &Letter<'_>, place: &Place) -> bool {
    let wanted = Origin { topic: &place.topic, partition: Some(place.partition), offset: Some(place.offset) };
    letter.origin() == Some(wanted)
}

fn not_there(opened: &Opened, place: &Place, partitions: &[PartitionView]) -> CommandError {
    let there = partitions
        .iter()
        .find(|one| *one.partition.topic == *place.topic && one.partition.partition == place.partition);
    let why = match there {
        Some(one) if one.begin >= one.end => format!("{} holds none", one.partition),
        Some(one) if (one.begin..one.end).contains(&place.offset) => {
            format!("nothing stands at this offset of {}", one.partition)
        }
        Some(one) => format!("{} holds {} to {}", one.partition, one.begin, one.end - 1),
        None => format!(
            "neither a letter of {} nor a record that became one stands there",
            opened.template.as_written()
        ),
    };
    CommandError::Failed(format!(
        "there is no dead letter {place}: {why}; `txconnect dead-letters list --each` names them all"
    ))
}

fn size(bytes: Option<usize>) -> String {
    bytes.map_or_else(|| "none".to_owned(), |bytes| counted(bytes as u64, "byte", "bytes"))
}

/// A name and its bytes, shown only where that is asked for.
fn datum(bytes: Option<&[u8]>, values: bool) -> String {
    let size = size(bytes.map(<[u8]>::len));
    match bytes.filter(|_| values) {
        Some(bytes) => format!("{size}, {}", Datum::of(bytes).line()),
        None => size,
    }
}

fn text(letter: &Letter<'_>, state: State, values: bool) -> String {
    let told = Told::of(letter, state, values);
    // Writing into text cannot fail.
    let mut text = format!("{}: {}\n", told.place(), state.words());
    let mut facts = told.facts();
    facts.push(("key", datum(letter.key, values)));
    facts.push(("value", datum(letter.value, values)));
    for (name, fact) in facts {
        let _ = writeln!(text, "  {name:<10}  {fact}");
    }
    for (index, line) in trace(letter, values).iter().enumerate() {
        let label = if index == 0 { "trace" } else { "" };
        let _ = writeln!(text, "  {label:<10}  {line}");
    }
    let mut headers = letter.own_headers().peekable();
    if headers.peek().is_none() {
        let _ = writeln!(text, "  {:<10}  {NOTHING}", "headers");
    }
    for (index, (name, value)) in headers.enumerate() {
        let label = if index == 0 { "headers" } else { "" };
        let _ = writeln!(text, "  {label:<10}  {}: {}", shown(name), datum(value, values));
    }
    text
}

/// The lines of the trace; only how many there are, unless values are asked for: a transform that dies may have said
/// anything.
fn trace(letter: &Letter<'_>, values: bool) -> Vec<String> {
    match letter.trace() {
        None => Vec::new(),
        Some(trace) if values => lines(&trace),
        Some(trace) => {
            let count = trace.lines().count() as u64;
            vec![format!("{}, shown with --values", counted(count, "line", "lines"))]
        }
    }
}

fn json(letter: &Letter<'_>, state: State, values: bool) -> Result<String, CommandError> {
    #[derive(Serialize)]
    struct HeaderLine<'a> {
        name: &'a str,
        bytes: Option<usize>,
        #[serde(skip_serializing_if = "Option::is_none")]
        value: Option<Datum>,
    }
    #[derive(Serialize)]
    struct Line<'a> {
        #[serde(flatten)]
        told: Told,
        headers: Vec<HeaderLine<'a>>,
        #[serde(skip_serializing_if = "Option::is_none")]
        key: Option<Datum>,
        #[serde(skip_serializing_if = "Option::is_none")]
        value: Option<Datum>,
        #[serde(skip_serializing_if = "Option::is_none")]
        trace: Option<String>,
    }
    let datum = |bytes: Option<&[u8]>| bytes.filter(|_| values).map(Datum::of);
    let headers = letter
        .own_headers()
        .map(|(name, value)| HeaderLine { name, bytes: value.map(<[u8]>::len), value: datum(value) })
        .collect();
    let told = Told::of(letter, state, values);
    let trace = letter.trace().filter(|_| values).map(Cow::into_owned);
    json_line(&Line { told, headers, key: datum(letter.key), value: datum(letter.value), trace })
}

#[cfg(test)]
mod tests {
    use super::super::letter::tests::{letter, letter_with_trace};
    use super::*;

    #[test]
    fn a_trace_is_shown_line_by_line_when_asked_for() {
        let letter = letter_with_trace("at <mask>::run\n  \u{1b}[31mat main");
        let without = text(&letter, State::Waiting, false);
        assert!(without.contains("  trace       2 lines, shown with --values\n"), "{without}");
        let with = text(&letter, State::Waiting, true);
        assert!(
            with.contains("  trace       at <mask>::run\n                \\u{1b}[31mat main\n"),
            "{with}"
        );
        assert!(!json(&letter, State::Waiting, false).unwrap().contains("mask"));
        assert!(json(&letter, State::Waiting, true).unwrap().contains("at <mask>::run"));
    }

    #[test]
    fn values_are_shown_only_when_asked_for() {
        let mut letter = letter(&[("token", Some(b"hunter2")), ("none", None)]);
        letter.value = Some(b"secret\n\xff");
        letter.key = Some(b"customer-7");
        let without = text(&letter, State::Waiting, false);
        let expected = "\
cash_ins.dead-letters/0/12: waiting
  record      cash_ins/2/345
  time        2023-11-14T22:13:20.000Z
  written by  transactions
  stage       validate
  class       validate.required
  path        /amount
  message     /amount is missing
  replays     0
  key         10 bytes
  value       8 bytes
  headers     token: 7 bytes
              none: none
";
        assert_eq!(without, expected);
        let json_without = json(&letter, State::Waiting, false).unwrap();
        assert!(!json_without.contains("hunter2") && !json_without.contains("customer-7"), "{json_without}");
        let with = text(&letter, State::Waiting, true);
        for part in
            ["10 bytes, utf-8: customer-7", "8 bytes, base64: c2VjcmV0Cv8=", "token: 7 bytes, utf-8: hunter2"]
        {
            assert!(with.contains(part), "{with}");
        }
        let document: serde_json::Value =
            serde_json::from_str(&json(&letter, State::Waiting, true).unwrap()).unwrap();
        assert_eq!(document["value"]["encoding"], "base64");
        assert_eq!(document["headers"][0]["value"]["data"], "hunter2");
        assert_eq!(document["record"]["offset"], 345);
    }
}
