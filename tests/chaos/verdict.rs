//! What was produced against what arrived.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;

use crate::kafka::{Cluster, Partition, Positions};
use crate::plan::{IntoBigQuery, Mood, Plan, Target, Way};
use crate::records::{self, Kind, REFUSED};
use crate::sink::{Arrived, Mark, Sink, WriteStream};
use crate::versions::{self, Place};

/// Lost records are named up to this many runs of offsets.
const NAMED: usize = 40;

/// What was noticed while the round ran.
#[derive(Default)]
pub(crate) struct Evidence {
    /// What must not happen.
    pub(crate) faults: Vec<String>,
    /// Warnings and errors of the members, with their numbers, times and names taken out, and how often each came.
    pub(crate) complaints: BTreeMap<String, usize>,
    /// Runs that ended well with balanced books.
    pub(crate) clean_runs: usize,
    /// Requests that the sink may have carried out while the members were told nothing, or something else.
    pub(crate) lost_replies: u64,
}

impl Evidence {
    pub(crate) fn fault(&mut self, what: String) {
        self.faults.push(what);
    }

    pub(crate) fn complaint(&mut self, what: String) {
        *self.complaints.entry(what).or_default() += 1;
    }
}

/// A time in which rows that were written and not committed may be written again.
pub(crate) struct Window {
    pub(crate) cause: &'static str,
    /// Committed before it began.
    pub(crate) committed: Positions,
    /// What had arrived when it ended.
    pub(crate) end: Option<Mark>,
}

/// How a round ended.
pub(crate) struct Verdict {
    pub(crate) plan: Plan,
    pub(crate) story: Vec<String>,
    pub(crate) kills: u64,
    pub(crate) produced: u64,
    pub(crate) rows: u64,
    pub(crate) repeated: u64,
    /// The most rows that the blows of the round may have repeated, where that is known.
    pub(crate) repeatable: Option<u64>,
    pub(crate) dead_letters: u64,
    pub(crate) lost: u64,
    pub(crate) clean_runs: usize,
    pub(crate) complaints: BTreeMap<String, usize>,
    pub(crate) faults: Vec<String>,
    write_streams: Vec<WriteStream>,
}

/// What is in the topics: where each record is, by id.
struct Truth {
    places: Vec<Option<Place>>,
    ends: Positions,
}

impl Truth {
    fn read(cluster: &Cluster, topics: &[String], produced: u64, faults: &mut Vec<String>) -> Self {
        let mut places = vec![None; usize::try_from(produced).unwrap()];
        let mut ends = Positions::new();
        for (topic, name) in topics.iter().enumerate() {
            for stored in cluster.read(name) {
                let partition = Partition { topic, number: stored.partition };
                let end = ends.entry(partition).or_default();
                *end = stored.offset.max(*end - 1) + 1;
                let place = stored.id().and_then(|id| places.get_mut(usize::try_from(id).ok()?));
                match place {
                    Some(place @ None) => {
                        let (offset, timestamp) = (stored.offset, stored.timestamp);
                        *place = Some(Place { partition, offset, timestamp });
                    }
                    _ => faults.push(format!(
                        "the test is wrong: {name}[{}]@{} was not produced once",
                        stored.partition, stored.offset
                    )),
                }
            }
        }
        if let Some(id) = places.iter().position(Option::is_none) {
            faults.push(format!("the test is wrong: record {id} was produced and is not in the topics"));
        }
        Self { places, ends }
    }

    /// Partition and offset of the record with an id.
    fn place(&self, id: u64) -> Option<(Partition, i64)> {
        let place = (*self.places.get(usize::try_from(id).ok()?)?)?;
        Some((place.partition, place.offset))
    }
}

impl Verdict {
    #[expect(clippy::too_many_arguments, reason = "everything that a round leaves behind")]
    pub(crate) fn of(
        cluster: &Cluster,
        plan: &Plan,
        topics: &[String],
        produced: u64,
        sink: &mut Sink,
        windows: &[Window],
        committed: &Positions,
        evidence: Evidence,
        (story, kills): (Vec<String>, u64),
    ) -> Self {
        let mut faults = evidence.faults;
        let truth = Truth::read(cluster, topics, produced, &mut faults);
        let arrived = sink.arrived();
        for strange in arrived.strange.iter().take(5) {
            faults.push(format!("the sink holds what no record is: {strange}"));
        }
        let seen = rows_seen(&truth, &arrived, sink, &mut faults);
        let letters = letters_seen(cluster, topics, &truth, sink, &mut faults);
        let newest = versions::newest(plan.target, &truth.places);
        let is_wanted = |id: usize| newest.as_ref().is_none_or(|newest| newest[id]);
        let (mut lost, mut old) = (Vec::new(), Vec::new());
        for (id, rows) in seen.iter().enumerate().take(truth.places.len()) {
            let kind = Kind::of(id as u64);
            let there = if sink.takes(kind) {
                if *rows > 0 && !is_wanted(id) {
                    old.extend(truth.place(id as u64));
                }
                *rows > 0 || !is_wanted(id)
            } else if sink.refuses(kind) {
                letters.contains_key(&(id as u64))
            } else {
                true
            };
            if !there {
                lost.extend(truth.place(id as u64));
            }
        }
        if !old.is_empty() {
            let count = old.len();
            faults.push(format!("{count} rows are not the newest of their keys: {}", runs(&mut old, topics)));
        }
        let rows: u64 = seen.iter().map(|count| u64::from(*count)).sum();
        let repeated = rows - seen.iter().filter(|count| **count > 0).count() as u64;
        let repeatable = repeatable(plan, &truth, &arrived, windows, evidence.lost_replies);
        if !lost.is_empty() {
            faults.push(format!("{} records are lost: {}", lost.len(), runs(&mut lost, topics)));
        }
        if let Some(most) = repeatable.filter(|most| repeated > *most) {
            let causes: Vec<&str> = windows.iter().map(|window| window.cause).collect();
            let mut places: Vec<(Partition, i64)> = seen
                .iter()
                .zip(0..)
                .filter_map(|(count, id)| truth.place(id).filter(|_| *count > 1))
                .collect();
            faults.push(format!(
                "{repeated} rows are repeated, and not more than {most} may be ({}): {}",
                causes.join(", "),
                runs(&mut places, topics)
            ));
        }
        let kept = arrived.positions.iter().map(|positions| ("sink", positions));
        for (whose, positions) in kept.chain([("group", committed)]) {
            for (partition, end) in &truth.ends {
                let position = positions.get(partition).copied();
                if position != Some(*end) {
                    let name = &topics[partition.topic];
                    faults.push(format!(
                        "{name}[{}] ends at {end} and the {whose}'s position is {position:?}",
                        partition.number
                    ));
                }
            }
        }
        Self {
            plan: plan.clone(),
            story,
            kills,
            produced,
            rows,
            repeated,
            repeatable,
            dead_letters: letters.values().map(|count| u64::from(*count)).sum(),
            lost: lost.len() as u64,
            clean_runs: evidence.clean_runs,
            complaints: evidence.complaints,
            faults,
            write_streams: arrived.write_streams,
        }
    }

    pub(crate) fn is_guilty(&self) -> bool {
        !self.faults.is_empty()
    }

    /// One line of figures.
    pub(crate) fn figures(&self) -> String {
        format!(
            "{} kills, {} records, {} rows ({} repeated{}), {} dead letters, {} lost, {} clean runs{}",
            self.kills,
            self.produced,
            self.rows,
            self.repeated,
            self.repeatable.map_or_else(String::new, |most| format!(", at most {most} may be")),
            self.dead_letters,
            self.lost,
            self.clean_runs,
            self.streams_told(),
        )
    }

    /// What became of the write streams: a few are left to expire, of members that were killed before anything counted
    /// on them.
    fn streams_told(&self) -> String {
        if self.write_streams.is_empty() {
            return String::new();
        }
        let count = |of: fn(&&WriteStream) -> bool| self.write_streams.iter().filter(of).count();
        format!(
            ", {} write streams ({} never counted on, {} open with visible rows)",
            self.write_streams.len(),
            count(|stream| !stream.finalized && stream.flushed == 0 && stream.rows > 0),
            count(|stream| !stream.finalized && stream.flushed > 0),
        )
    }

    /// Everything that is known of a round that went wrong.
    pub(crate) fn report(&self) -> String {
        let mut text = format!("{}\n{}\n", self.plan, self.figures());
        for line in &self.story {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{line}");
        }
        for fault in &self.faults {
            let _ = writeln!(text, "WRONG: {fault}");
        }
        for (complaint, count) in &self.complaints {
            let _ = writeln!(text, "{count:6} × {complaint}");
        }
        text
    }
}

/// How often each record arrived as a row.
fn rows_seen(truth: &Truth, arrived: &Arrived, sink: &Sink, faults: &mut Vec<String>) -> Vec<u32> {
    let mut seen = vec![0_u32; truth.places.len()];
    let mut wrong = 0_u64;
    for row in arrived.streams.iter().flatten() {
        let place = truth.place(row.id);
        let right = row.intact
            && sink.takes(Kind::of(row.id))
            && place.is_some()
            && (row.place.is_none() || row.place == place);
        if right {
            seen[usize::try_from(row.id).unwrap()] += 1;
            continue;
        }
        wrong += 1;
        if wrong <= 5 {
            faults.push(format!("a row is no record's: {row:?}, the record of this id is at {place:?}"));
        }
    }
    if wrong > 5 {
        faults.push(format!("{wrong} rows are no record's"));
    }
    seen
}

/// How often each record is a dead letter.
fn letters_seen(
    cluster: &Cluster,
    topics: &[String],
    truth: &Truth,
    sink: &Sink,
    faults: &mut Vec<String>,
) -> HashMap<u64, u32> {
    let mut letters: HashMap<u64, u32> = HashMap::new();
    for (topic, name) in topics.iter().enumerate() {
        for letter in cluster.read(&format!("{name}.dead-letters")) {
            let id = letter.id();
            let place = id.and_then(|id| truth.place(id));
            let named = || {
                let number = letter.header("__connect.errors.partition")?.parse().ok()?;
                let offset = letter.header("__connect.errors.offset")?.parse().ok()?;
                Some((Partition { topic, number }, offset))
            };
            match id {
                Some(id)
                    if sink.refuses(Kind::of(id))
                        && place.is_some()
                        && named() == place
                        && letter.value == records::value(id) =>
                {
                    *letters.entry(id).or_default() += 1;
                }
                _ => faults
                    .push(format!("a dead letter is no bad record's: {id:?} at {place:?}, {:?}", named())),
            }
        }
    }
    letters
}

/// The most rows that may be repeated: in each window, what had arrived beyond the committed positions; and what
/// requests of which the members never heard have stored. `None` where the order of arrival is not known.
fn repeatable(
    plan: &Plan,
    truth: &Truth,
    arrived: &Arrived,
    windows: &[Window],
    lost_replies: u64,
) -> Option<u64> {
    if plan.mood == Mood::Calm || plan.target.is_exactly_once() {
        return Some(0);
    }
    match plan.target {
        // A row that is written again takes its own place.
        Target::BigQuery(IntoBigQuery { way: Way::Upsert, .. }) => return Some(0),
        Target::Postgres(_) => return None,
        Target::BigQuery(_) | Target::Stdout => {}
    }
    let mut sum = 0;
    let mut counted = vec![u32::MAX; truth.places.len()];
    for (number, window) in windows.iter().enumerate() {
        let number = u32::try_from(number).unwrap();
        let Some(end) = &window.end else { continue };
        for (stream, end) in arrived.streams.iter().zip(end) {
            for row in &stream[..stream.len().min(*end)] {
                let Ok(index) = usize::try_from(row.id) else { continue };
                let Some((partition, offset)) = truth.place(row.id) else { continue };
                let committed = window.committed.get(&partition).copied().unwrap_or(0);
                if offset >= committed && counted[index] != number {
                    counted[index] = number;
                    sum += 1;
                }
            }
        }
    }
    // A request that is given up after its time limit may still be carried out, once for every try.
    let requests = (plan.members * plan.lanes * plan.in_flight) as u64;
    let frozen = windows.iter().filter(|window| matches!(window.cause, "sink" | "freeze")).count() as u64;
    Some(sum + plan.rows as u64 * (lost_replies + frozen * requests * 5))
}

/// Lost offsets as runs: `topic[3]@200..499`.
fn runs(lost: &mut [(Partition, i64)], topics: &[String]) -> String {
    lost.sort_unstable();
    let mut runs: Vec<(Partition, i64, i64, usize)> = Vec::new();
    for (partition, offset) in lost.iter().copied() {
        match runs.last_mut() {
            // Bad records and tombstones between lost rows do not part them.
            Some((known, _, end, count)) if *known == partition && offset - *end <= 20 => {
                *end = offset;
                *count += 1;
            }
            _ => runs.push((partition, offset, offset, 1)),
        }
    }
    let named: Vec<String> = runs
        .iter()
        .take(NAMED)
        .map(|(partition, first, last, count)| {
            format!("{}[{}]@{first}..{last} ({count})", topics[partition.topic], partition.number)
        })
        .collect();
    named.join(", ")
}

/// The last that a member said, for one that ended otherwise than it should.
pub(crate) fn last_words(log: &str) -> String {
    let lines: Vec<&str> = log.lines().filter(|line| !line.trim().is_empty()).collect();
    lines[lines.len().saturating_sub(6)..].join("\n    ")
}

/// What a member's log says: defects, and complaints of any kind without what differs each time.
pub(crate) fn complaints_of(log: &str) -> (Vec<String>, Vec<String>) {
    let (mut defects, mut complaints) = (Vec::new(), Vec::new());
    for line in log.lines() {
        let serious = [
            "panicked",
            "defect of txconnect",
            "a span starts at",
            "in flight is",
            "do not balance",
            // Values of records are not for logs.
            REFUSED,
        ];
        if serious.iter().any(|word| line.contains(word)) {
            defects.push(line.to_owned());
        }
        let refused = line.split_once("DEBUG ").filter(|(_, said)| said.contains("was not committed"));
        if let Some((_, said)) = line.split_once(" WARN ").or_else(|| line.split_once("ERROR ")).or(refused) {
            let plain: String = said.chars().map(|c| if c.is_ascii_digit() { '#' } else { c }).collect();
            let mut short = String::new();
            for c in plain.chars() {
                if c != '#' || !short.ends_with('#') {
                    short.push(c);
                }
            }
            complaints.push(short);
        }
    }
    (defects, complaints)
}

/// The line of books in a summary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Books {
    read: u64,
    settled: u64,
}

impl Books {
    pub(crate) fn balance(self) -> bool {
        self.read == self.settled
    }
}

pub(crate) fn books_of(text: &str) -> Option<Books> {
    let line = text.lines().find_map(|line| line.trim_start().strip_prefix("books: "))?;
    let (read, parts) = line.split_once('=')?;
    let number = |text: &str| {
        let digits: String = text.chars().filter(char::is_ascii_digit).collect();
        digits.parse::<u64>().ok()
    };
    let settled = parts.split(" + ").map(number).sum::<Option<u64>>()?;
    (!line.contains("in flight")).then_some(())?;
    Some(Books { read: number(read)?, settled })
}
