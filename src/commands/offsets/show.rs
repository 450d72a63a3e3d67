//! Positions as people and programs read them.

use serde::Serialize;
use txconnect_connector_api::Protocol;
use txconnect_kafka::GroupState;

use super::CommandError;
use super::look::{PartitionView, View};
use crate::delivery::{Note, NoteError};
use crate::terminal::numbers::{counted, grouped};
use crate::terminal::table::{Align, Table};

/// What stands where there is no number.
const NOTHING: &str = "-";

/// An offset with its digits in groups.
pub(super) fn offset(number: Option<i64>) -> String {
    number.and_then(|number| u64::try_from(number).ok()).map_or_else(|| NOTHING.to_owned(), grouped)
}

/// A heading, a table of the partitions, and a line for whatever needs a word.
pub(super) fn text(view: &View) -> String {
    let mut text = heading(view);
    if !view.partitions.is_empty() {
        text.push('\n');
        text.push_str(&if view.place.is_some() { with_sink(view) } else { group_only(view) });
    }
    let remarks = remarks(view);
    if !remarks.is_empty() {
        text.push('\n');
    }
    for remark in remarks {
        text.push_str("  ");
        text.push_str(&remark);
        text.push('\n');
    }
    text
}

/// Whose positions are told, and which count.
pub(super) fn heading(view: &View) -> String {
    let state = match &view.group_state {
        GroupState::Absent => "unknown to Kafka".to_owned(),
        GroupState::Empty => "without members".to_owned(),
        GroupState::Active { members } => counted(members.len() as u64, "member", "members"),
    };
    let place = view.place.as_ref().map(|place| format!("; positions in {place}")).unwrap_or_default();
    format!("{}: group {}, {state}{place}\n", view.pipeline, view.group)
}

fn group_only(view: &View) -> String {
    let mut table = Table::new([
        ("topic", Align::Left),
        ("partition", Align::Right),
        ("begin", Align::Right),
        ("end", Align::Right),
        ("group", Align::Right),
        ("lag", Align::Right),
    ]);
    for one in &view.partitions {
        table.push([
            one.partition.topic.to_string(),
            one.partition.partition.to_string(),
            offset(Some(one.begin)),
            offset(Some(one.end)),
            offset(one.group.map(|group| group.offset)),
            offset(one.lag(false)),
        ]);
    }
    let nothing = String::new;
    table.total(["all".to_owned(), nothing(), nothing(), nothing(), nothing(), offset(lag(view))]);
    table.render(2)
}

fn with_sink(view: &View) -> String {
    let mut table = Table::new([
        ("topic", Align::Left),
        ("partition", Align::Right),
        ("begin", Align::Right),
        ("end", Align::Right),
        ("sink", Align::Right),
        ("group", Align::Right),
        ("lag", Align::Right),
        ("epoch", Align::Right),
        ("owner", Align::Left),
        ("updated", Align::Left),
    ]);
    for one in &view.partitions {
        let stored = one.stored.as_ref();
        let told = |text: Option<String>| text.unwrap_or_else(|| NOTHING.to_owned());
        table.push([
            one.partition.topic.to_string(),
            one.partition.partition.to_string(),
            offset(Some(one.begin)),
            offset(Some(one.end)),
            offset(stored.map(|stored| stored.next_offset)),
            offset(one.group.map(|group| group.offset)),
            offset(one.lag(true)),
            told(stored.map(|stored| stored.epoch.to_string())),
            told(stored.and_then(|stored| stored.owner.clone())),
            told(stored.map(|stored| stored.updated_at.clone())),
        ]);
    }
    let nothing = String::new;
    table.total([
        "all".to_owned(),
        nothing(),
        nothing(),
        nothing(),
        nothing(),
        nothing(),
        offset(lag(view)),
        nothing(),
        nothing(),
        nothing(),
    ]);
    table.render(2)
}

/// How many offsets are left to read in all partitions that have a position.
fn lag(view: &View) -> Option<i64> {
    let lags = view.partitions.iter().filter_map(|one| one.lag(view.place.is_some()));
    lags.reduce(i64::saturating_add)
}

fn remarks(view: &View) -> Vec<String> {
    let mut remarks: Vec<String> =
        view.missing.iter().map(|topic| format!("{topic}: there is no such topic")).collect();
    for one in &view.partitions {
        let place = view.place.as_deref();
        let streams = view.protocol == Protocol::TwoPhase;
        remarks.extend(
            remarks_on(one, place, streams).into_iter().map(|text| format!("{}: {text}", one.partition)),
        );
    }
    if let Some(place) = &view.place {
        let unread = view.unread.iter();
        remarks.extend(unread.map(|partition| {
            format!("{partition}: {place} has a position, but this pipeline reads no such partition")
        }));
    }
    remarks
}

/// What is unusual about a partition. `place` is where the sink keeps the positions, if it does.
fn remarks_on(one: &PartitionView, place: Option<&str>, streams: bool) -> Vec<String> {
    let mut remarks = Vec::new();
    if let Some(place) = place {
        remarks.extend(disagreement(one, place));
        if let (Some(former), Some(current)) = (one.former_topic(), &one.topic_id) {
            remarks.push(format!(
                "the topic was deleted and made anew: its id is {current}, and the position in {place} belongs to \
                 {former}; the pipeline stops here until `txconnect offsets reset` sets it anew"
            ));
            return remarks;
        }
    }
    if streams && one.group.is_some() {
        remarks.extend(remark_on_note(one));
    }
    if let Some(position) = one.position(place.is_some())
        && !(one.begin..=one.end).contains(&position)
    {
        remarks.push(format!(
            "the position {position} is outside the log, which holds {} to {}; `on_lost_offsets` decides what the \
             pipeline does",
            one.begin, one.end
        ));
    }
    remarks
}

/// What the note beside the group's position says about rows in write streams.
fn remark_on_note(one: &PartitionView) -> Option<String> {
    match &one.note {
        Ok(Note::Streams(_)) if one.unpublished() > 0 => Some(format!(
            "{} before the position may not be visible yet; the pipeline publishes them when it runs",
            counted(u64::try_from(one.unpublished()).unwrap_or_default(), "row", "rows")
        )),
        Ok(Note::Streams(_) | Note::AtLeastOnce) => None,
        Ok(Note::OffsetsInSink) | Err(NoteError::Foreign) => Some(
            "the position was not stored by this pipeline, which stops here; `txconnect offsets reset` takes it as it is \
             or sets another"
                .to_owned(),
        ),
        Err(NoteError::Newer) => {
            Some("the position was stored by a newer version of txconnect, which has to go on with it".to_owned())
        }
    }
}

/// How the positions of group and sink differ, and which counts.
fn disagreement(one: &PartitionView, place: &str) -> Option<String> {
    match (&one.stored, one.group) {
        (Some(stored), Some(group)) if group.offset != stored.next_offset => {
            let (in_sink, in_group) = (stored.next_offset, group.offset);
            Some(if !group.noted {
                format!(
                    "another tool has set the group's position to {in_group}; what counts is {in_sink} in {place}, and \
                     `txconnect offsets reset` moves both"
                )
            } else if in_group > in_sink {
                format!(
                    "{place} says {in_sink}, below the group's {in_group}, as after a restored backup; what counts is \
                     {in_sink}"
                )
            } else {
                format!("the group's position {in_group} will follow; what counts is {in_sink} in {place}")
            })
        }
        (None, Some(group)) if group.noted => Some(format!(
            "the group says that the position is kept in {place}, but there is none: the pipeline stops here; restore \
             the table, or set all positions with `txconnect offsets reset`"
        )),
        (None, Some(group)) => Some(format!(
            "{place} has no position yet; what counts is the group's {}, and moves there with the next start",
            group.offset
        )),
        _ => None,
    }
}

#[derive(Serialize)]
struct Document<'a> {
    pipeline: &'a str,
    group: &'a str,
    group_state: &'static str,
    members: Vec<Member<'a>>,
    /// Where the positions that count are kept.
    positions_in: &'a str,
    lag: Option<i64>,
    partitions: Vec<Entry<'a>>,
    missing_topics: &'a [String],
    remarks: Vec<String>,
}

#[derive(Serialize)]
struct Member<'a> {
    client_id: &'a str,
    host: &'a str,
}

#[derive(Serialize)]
struct Entry<'a> {
    topic: &'a str,
    partition: i32,
    topic_id: Option<&'a str>,
    begin: i64,
    end: i64,
    /// The position that counts.
    position: Option<i64>,
    lag: Option<i64>,
    group: Option<i64>,
    /// Rows before the position that are committed and may not be visible yet.
    unpublished_rows: i64,
    sink: Option<Stored<'a>>,
}

#[derive(Serialize)]
struct Stored<'a> {
    next_offset: i64,
    epoch: i64,
    topic_id: Option<&'a str>,
    owner: Option<&'a str>,
    updated_at: &'a str,
}

/// The same as one JSON document.
pub(super) fn json(view: &View) -> Result<String, CommandError> {
    let in_sink = view.place.is_some();
    let (group_state, members) = match &view.group_state {
        GroupState::Absent => ("absent", [].as_slice()),
        GroupState::Empty => ("empty", [].as_slice()),
        GroupState::Active { members } => ("active", members.as_slice()),
    };
    let document = Document {
        pipeline: &view.pipeline,
        group: &view.group,
        group_state,
        members: members
            .iter()
            .map(|member| Member { client_id: &member.client_id, host: &member.host })
            .collect(),
        positions_in: view.place.as_deref().unwrap_or("group"),
        lag: lag(view),
        partitions: view.partitions.iter().map(|one| entry_of(one, in_sink)).collect(),
        missing_topics: &view.missing,
        remarks: remarks(view),
    };
    let mut text = serde_json::to_string_pretty(&document).map_err(CommandError::failed)?;
    text.push('\n');
    Ok(text)
}

fn entry_of(one: &PartitionView, in_sink: bool) -> Entry<'_> {
    Entry {
        topic: &one.partition.topic,
        partition: one.partition.partition,
        topic_id: one.topic_id.as_deref(),
        begin: one.begin,
        end: one.end,
        position: one.position(in_sink),
        lag: one.lag(in_sink),
        group: one.group.map(|group| group.offset),
        unpublished_rows: one.unpublished(),
        sink: one.stored.as_ref().map(|stored| Stored {
            next_offset: stored.next_offset,
            epoch: stored.epoch.0,
            topic_id: stored.topic_id.as_deref(),
            owner: stored.owner.as_deref(),
            updated_at: &stored.updated_at,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::super::look::GroupPosition;
    use super::*;
    use txconnect_connector_api::{Epoch, StoredPosition, TopicPartition};

    fn partition(number: i32, group: Option<(i64, bool)>, sink: Option<i64>) -> PartitionView {
        let partition = TopicPartition::new("cash_ins", number);
        PartitionView {
            topic_id: Some("new-id".into()),
            begin: 100,
            end: 2_000,
            group: group.map(|(offset, noted)| GroupPosition { offset, noted }),
            note: Ok(Note::AtLeastOnce),
            stored: sink.map(|next_offset| StoredPosition {
                partition: partition.clone(),
                next_offset,
                epoch: Epoch(3),
                topic_id: Some("new-id".into()),
                owner: Some("host 4711".into()),
                updated_at: "2026-01-31T00:00:00Z".into(),
            }),
            partition,
        }
    }

    fn view(place: Option<&str>, partitions: Vec<PartitionView>) -> View {
        View {
            pipeline: "transactions".into(),
            group: "connect-transactions".into(),
            group_state: GroupState::Empty,
            protocol: Protocol::AtLeastOnce,
            place: place.map(str::to_owned),
            partitions,
            missing: Vec::new(),
            unread: Vec::new(),
        }
    }

    const PLACE: &str = "table public.txconnect_offsets";

    #[test]
    fn the_groups_positions_are_shown_with_their_lag() {
        let mut view = view(None, vec![partition(0, Some((1_500, false)), None), partition(1, None, None)]);
        view.missing = vec!["cash_outs".into()];
        let expected = "\
transactions: group connect-transactions, without members

  topic     partition  begin    end  group  lag
  ─────────────────────────────────────────────
  cash_ins          0    100  2,000  1,500  500
  cash_ins          1    100  2,000      -    -
  ─────────────────────────────────────────────
  all                                       500

  cash_outs: there is no such topic
";
        assert_eq!(text(&view), expected);
    }

    #[test]
    fn the_sinks_positions_stand_beside_the_groups() {
        let shown = text(&view(Some(PLACE), vec![partition(0, Some((1_500, true)), Some(1_500))]));
        let expected = "\
transactions: group connect-transactions, without members; positions in table public.txconnect_offsets

  topic     partition  begin    end   sink  group  lag  epoch  owner      updated
  ────────────────────────────────────────────────────────────────────────────────────────────
  cash_ins          0    100  2,000  1,500  1,500  500      3  host 4711  2026-01-31T00:00:00Z
  ────────────────────────────────────────────────────────────────────────────────────────────
  all                                              500
";
        assert_eq!(shown, expected);
    }

    #[test]
    fn where_group_and_sink_differ_it_is_said_which_counts() {
        for (group, sink, position, words) in [
            (
                Some((900, false)),
                Some(1_500),
                Some(1_500),
                "another tool has set the group's position to 900",
            ),
            (
                Some((1_700, true)),
                Some(1_500),
                Some(1_500),
                "as after a restored backup; what counts is 1500",
            ),
            (Some((900, true)), Some(1_500), Some(1_500), "will follow; what counts is 1500"),
            (Some((900, true)), None, None, "but there is none: the pipeline stops here"),
            (Some((900, false)), None, Some(900), "what counts is the group's 900"),
        ] {
            let one = partition(0, group, sink);
            assert_eq!(one.position(true), position, "{words}");
            let remarks = remarks_on(&one, Some(PLACE), false);
            assert_eq!(remarks.len(), 1, "{remarks:?}");
            assert!(remarks[0].contains(words), "{remarks:?}");
        }
        let agreed = partition(0, Some((1_500, true)), Some(1_500));
        assert_eq!(remarks_on(&agreed, Some(PLACE), false), [""; 0]);
        assert_eq!(remarks_on(&partition(0, None, None), Some(PLACE), false), [""; 0]);
    }

    #[test]
    fn a_topic_made_anew_and_a_position_outside_the_log_are_said() {
        let mut anew = partition(0, None, Some(1_500));
        anew.topic_id = Some("newer-id".into());
        let remarks = remarks_on(&anew, Some(PLACE), false);
        assert!(remarks[0].contains("its id is newer-id"), "{remarks:?}");
        assert!(remarks[0].contains("belongs to new-id"), "{remarks:?}");
        // A broker without ids proves nothing.
        anew.topic_id = None;
        assert_eq!(remarks_on(&anew, Some(PLACE), false), [""; 0]);
        let below = partition(0, Some((7, false)), None);
        assert!(remarks_on(&below, None, false)[0].contains("outside the log, which holds 100 to 2000"));
        assert_eq!(below.lag(false), Some(1_900), "what is gone cannot be read");
    }

    #[test]
    fn the_document_says_which_position_counts() {
        let mut view = view(Some(PLACE), vec![partition(0, Some((900, false)), Some(1_500))]);
        view.unread = vec![TopicPartition::new("gone", 1)];
        let document: serde_json::Value = serde_json::from_str(&json(&view).unwrap()).unwrap();
        assert_eq!(document["positions_in"], PLACE);
        assert_eq!(document["group_state"], "empty");
        let one = &document["partitions"][0];
        assert_eq!((&one["position"], &one["group"], &one["lag"]), (&1_500.into(), &900.into(), &500.into()));
        assert_eq!(one["sink"]["epoch"], 3);
        assert_eq!(document["remarks"].as_array().unwrap().len(), 2);
    }

    #[test]
    fn rows_that_may_not_be_visible_and_positions_of_others_are_told() {
        let remark = |note: Result<Note, NoteError>| {
            let one = PartitionView { note, ..partition(0, Some((1_500, false)), None) };
            remarks_on(&one, None, true)
        };
        assert_eq!(remark(Ok(Note::AtLeastOnce)), [""; 0]);
        let note = r#"{"txconnect":1,"s":[["p.d.t/a",700,500]]}"#;
        assert!(
            remark(Note::read(note))[0].starts_with("200 rows before the position may not be visible yet")
        );
        assert_eq!(remark(Note::read(r#"{"txconnect":1,"s":[["p.d.t/a",7,7]]}"#)), [""; 0]);
        for foreign in [Err(NoteError::Foreign), Ok(Note::OffsetsInSink)] {
            assert!(remark(foreign)[0].contains("was not stored by this pipeline"));
        }
        assert!(remark(Err(NoteError::Newer))[0].contains("newer version"));
    }
}
