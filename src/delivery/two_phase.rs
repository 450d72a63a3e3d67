//! Two phases: rows go to streams in which nobody sees them, a Kafka commit says how far they count, and then they are
//! published.
//!
//! ```text
//! append at a counted position ─▶ Kafka commit {position; stream, end} ─▶ publish the first `end` rows
//! ```
//! The commit is the point from which rows count. What was appended behind it is never seen, so nothing need be
//! repeated in the same way: after a crash the partition begins at the committed position with a stream of its own.
//! Who takes a partition over publishes what the last commit counted, names the old streams as finished in a commit of
//! its own, finalizes them, and only then publishes anything new: a commit of the former owner that arrives late finds
//! nothing that it could make visible twice.
//!
//! This machine counts the rows of every stream and says what each commit carries. The commits themselves are those of
//! [`super::AtLeastOnce`]; [`super::Delivery`] brings the two together.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use txconnect_connector_api::{Published, StreamName, StreamPosition};

use super::note::{CommittedStream, Note, StreamsNote};
use super::{Assignment, CommitToken, Slot, Span};

/// How often a stream may say that it ends before our rows, though all before them are stored, until it is given up.
const MOST_STRIKES: u32 = 3;

/// The streams of all partitions held.
#[derive(Debug, Default)]
pub struct TwoPhase {
    partitions: BTreeMap<Slot, Held>,
    /// Streams of partitions that were given back, to be finalized.
    left_behind: Vec<StreamName>,
}

#[derive(Debug)]
struct Held {
    assignment: Assignment,
    /// The position that the rows of our streams begin with.
    started: i64,
    former: Vec<Former>,
    streams: Vec<Stream>,
    opening: BTreeSet<Arc<str>>,
    /// Handed over and not committed, in the order of offsets.
    flights: VecDeque<Flight>,
    sent: Option<Sent>,
    committed: Option<i64>,
    visible_before: Option<i64>,
    /// Grows whenever a commit of the same position would say something new.
    version: u64,
    told: Option<(u64, bool)>,
    standing: Standing,
    broken: bool,
}

/// How far a partition is on its way back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    Read,
    /// The group takes it back.
    Closing,
    /// The time to drain was over: what had not finished counts for nothing any more.
    GivenUp,
    /// The stored commit names its streams as finished.
    Closed,
}

/// A stream of an earlier assignment.
#[derive(Debug)]
struct Former {
    stream: StreamName,
    state: FormerState,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum FormerState {
    /// The stored commit still counts on it.
    Counted,
    /// The stored commit names it as finished: it may be finalized.
    Named,
    /// It is being finalized.
    Ending,
}

/// A stream of this assignment.
#[derive(Debug)]
struct Stream {
    table: Arc<str>,
    name: StreamName,
    /// Rows that the stored commit counts.
    end: i64,
    published: i64,
    publishing: bool,
}

/// What is on its way of one span.
#[derive(Debug)]
struct Flight {
    first: i64,
    next: i64,
    parts: Vec<Part>,
    /// Whether its rows were placed once.
    placed: bool,
}

/// The rows of a span for one table.
#[derive(Debug)]
struct Part {
    stream: usize,
    rows: i64,
    offset: i64,
    state: PartState,
    /// An append of these rows at this offset was never answered: it may still be stored.
    unanswered: bool,
    strikes: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PartState {
    Waiting,
    Sent,
    Stored,
}

/// A commit that was not answered yet.
#[derive(Debug)]
struct Sent {
    token: CommitToken,
    position: i64,
    ends: Vec<i64>,
    closes: bool,
    text: String,
}

/// Rows of one table that a flush brings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rows {
    /// The table.
    pub table: Arc<str>,
    /// How many; at least 1.
    pub rows: usize,
}

/// What can be done about the rows of a span now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Placement {
    /// Append them there, in this order; `None`: they are stored already. Each answer goes to [`TwoPhase::answered`].
    Append(Vec<Option<StreamPosition>>),
    /// Open a stream for this table first; [`TwoPhase::opened`] or [`TwoPhase::not_opened`] follow.
    Open(Arc<str>),
    /// Rows before them have to be sent first, or a stream is being opened.
    Wait,
    /// The partition is not ours any more.
    Gone,
    /// Their place cannot be told any more: the partition has to be started anew, with another stream.
    Restart,
}

/// What became of an append.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The rows are stored.
    Stored,
    /// The stream holds rows there already.
    AlreadyStored,
    /// Answered, and not stored.
    Refused,
    /// The stream ends before.
    OutOfRange,
    /// No answer came.
    Unanswered,
}

/// Whether a partition can go on after an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It can.
    GoOn,
    /// The stream is not what it should be: the partition has to be started anew, with another stream.
    Restart,
}

/// Something to be done at the sink, to be repeated until it succeeds.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    /// Publish the first rows of a stream; [`TwoPhase::published`] follows.
    Publish {
        /// The partition.
        slot: Slot,
        /// The assignment that the stream belongs to.
        assignment: Assignment,
        /// The stream.
        stream: StreamName,
        /// How many rows.
        end: i64,
    },
    /// Finalize a stream of an earlier assignment; [`TwoPhase::finalized`] follows.
    Finalize {
        /// The partition.
        slot: Slot,
        /// The assignment that waits for it.
        assignment: Assignment,
        /// The stream.
        stream: StreamName,
    },
    /// Finalize a stream that nobody waits for.
    LeaveBehind {
        /// The stream.
        stream: StreamName,
    },
}

/// What a partition's commit would say now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct News {
    /// The partition.
    pub slot: Slot,
    /// The assignment.
    pub assignment: Assignment,
    /// Grows with every change.
    pub version: u64,
    /// Whether nothing is left to be done once a commit of this version is stored.
    pub settled: bool,
}

/// What came of the streams that a commit of an earlier assignment counts on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Inherited {
    /// All that counts can be seen. These streams are to be named as finished and finalized.
    Settled,
    /// A stream that the commit counts on is finalized: the commit is an old one that arrived late.
    Stale {
        /// The stream.
        stream: StreamName,
    },
    /// A stream is gone, and nobody knows whether all of its rows that count were published.
    Lost {
        /// The stream.
        stream: StreamName,
        /// So many rows may be missing.
        rows: i64,
        /// Before this position every row was visible, where it is known.
        visible_before: Option<i64>,
    },
}

/// Judges what [`txconnect_connector_api::WriteStreams::publish`] said of the streams of a note, in their order.
pub fn inherit(note: &StreamsNote, published: &[Published]) -> Inherited {
    for (committed, published) in note.streams.iter().zip(published) {
        let stream = committed.stream.clone();
        match published {
            Published::Visible => {}
            Published::Missing if committed.published == committed.end => {}
            Published::Finalized => return Inherited::Stale { stream },
            Published::Missing => {
                let rows = committed.end - committed.published;
                return Inherited::Lost { stream, rows, visible_before: note.visible_before };
            }
        }
    }
    Inherited::Settled
}

impl TwoPhase {
    /// A machine that holds nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// The partition is read from `position` on under a new assignment. `inherited` is the note of the commit at that
    /// position; all it counts on was published.
    pub fn started(&mut self, slot: Slot, assignment: Assignment, position: i64, inherited: StreamsNote) {
        let StreamsNote { streams, finalize, visible_before } = inherited;
        let counted = !streams.is_empty();
        let named = finalize.into_iter().map(|stream| Former { stream, state: FormerState::Named });
        let former = streams
            .into_iter()
            .map(|committed| Former { stream: committed.stream, state: FormerState::Counted })
            .chain(named);
        let held = Held {
            assignment,
            started: position,
            former: former.collect(),
            streams: Vec::new(),
            opening: BTreeSet::new(),
            flights: VecDeque::new(),
            sent: None,
            committed: None,
            visible_before: if counted { Some(position) } else { visible_before },
            version: u64::from(counted),
            told: None,
            standing: Standing::Read,
            broken: false,
        };
        self.partitions.insert(slot, held);
    }

    /// Forgets the partitions that are not ours any more.
    pub fn keep(&mut self, is_ours: impl Fn(Slot, Assignment) -> bool) {
        self.partitions.retain(|slot, held| is_ours(*slot, held.assignment));
    }

    /// A span is on its way.
    pub fn handed_over(&mut self, span: Span) {
        if let Some(held) = self.held_under(span.slot, span.assignment).filter(|held| !held.is_over()) {
            let flight = Flight { first: span.first, next: span.next, parts: Vec::new(), placed: false };
            held.flights.push_back(flight);
        }
    }

    /// Says where the rows of a span go. `rows` are those that are left of it, each table once.
    pub fn place(&mut self, span: &Span, rows: &[Rows]) -> Placement {
        match self.held_under(span.slot, span.assignment) {
            Some(held) if !held.broken => held.place(span, rows),
            _ => Placement::Gone,
        }
    }

    /// A stream was opened for a table. Answers false where nobody wants it any more.
    pub fn opened(&mut self, slot: Slot, assignment: Assignment, table: &Arc<str>, name: StreamName) -> bool {
        let wanted = self.held_under(slot, assignment).is_some_and(|held| held.opening.remove(table));
        let Some(held) = self.held_under(slot, assignment).filter(|_| wanted) else {
            self.left_behind.push(name);
            return false;
        };
        held.streams.push(Stream { table: Arc::clone(table), name, end: 0, published: 0, publishing: false });
        true
    }

    /// Opening a stream has failed: whoever needs it asks again.
    pub fn not_opened(&mut self, slot: Slot, assignment: Assignment, table: &Arc<str>) {
        if let Some(held) = self.held_under(slot, assignment) {
            held.opening.remove(table);
        }
    }

    /// An append of rows of `table` was answered, or never will be.
    pub fn answered(&mut self, span: &Span, table: &str, answer: Answer) -> Verdict {
        match self.held_under(span.slot, span.assignment) {
            Some(held) if !held.broken => held.answered(span, table, answer),
            _ => Verdict::GoOn,
        }
    }

    /// Whether all rows of a span are in streams. A span without rows is; one that was given up counts for nothing.
    pub fn is_appended(&self, span: &Span) -> bool {
        self.partitions.get(&span.slot).filter(|held| held.assignment == span.assignment).is_some_and(
            |held| {
                held.is_over() || held.flights.iter().any(|flight| flight.covers(span) && flight.is_stored())
            },
        )
    }

    /// The partition's streams are not to be trusted any more: nothing is appended or committed under this assignment.
    pub fn broke(&mut self, slot: Slot, assignment: Assignment) {
        if let Some(held) = self.held_under(slot, assignment) {
            held.broken = true;
        }
    }

    /// What a commit of `position` carries. `None` for a partition that is not held, or a position at which no span
    /// ends: then nothing may be committed.
    pub fn note(&mut self, token: CommitToken, slot: Slot, position: i64) -> Option<String> {
        let held = self.partitions.get_mut(&slot).filter(|held| !held.broken)?;
        let ends = held.ends_at(position)?;
        let closes = held.is_closing() && held.all_visible(position, &ends);
        let note = held.note(&ends, closes);
        let text = Note::Streams(note).to_text();
        held.sent = Some(Sent { token, position, ends, closes, text: text.clone() });
        Some(text)
    }

    /// The commit is stored: the rows that it counts are to be published.
    pub fn stored(&mut self, token: CommitToken, slot: Slot) {
        let Some(held) = self.partitions.get_mut(&slot) else { return };
        let Some(sent) = held.sent.take_if(|sent| sent.token == token) else { return };
        while held.flights.front().is_some_and(|flight| flight.next <= sent.position) {
            held.flights.pop_front();
        }
        held.committed = Some(sent.position);
        for (stream, end) in held.streams.iter_mut().zip(&sent.ends) {
            stream.end = *end;
        }
        for former in held.former.iter_mut().filter(|former| former.state == FormerState::Counted) {
            former.state = FormerState::Named;
        }
        if sent.closes {
            held.standing = Standing::Closed;
            self.left_behind.extend(held.streams.drain(..).map(|stream| stream.name));
        }
        if held.is_visible() {
            held.visible_before = held.committed;
            // The streams are still to be named as finished.
            held.version += u64::from(held.is_closing() && !held.streams.is_empty());
        }
        if held.is_settled() && held.streams.is_empty() {
            // Nobody will be here to wait for them.
            self.left_behind.extend(held.former.drain(..).map(|former| former.stream));
        }
    }

    /// The answer to a commit never came, and this is what the group has stored now. Answers whether it is that commit, and
    /// it still counts; if not, it may still arrive.
    pub fn is_stored(&self, token: CommitToken, slot: Slot, found: Option<(i64, &str)>) -> bool {
        let sent = self.partitions.get(&slot).and_then(|held| held.sent.as_ref());
        sent.filter(|sent| sent.token == token)
            .is_some_and(|sent| found == Some((sent.position, sent.text.as_str())))
    }

    /// The group takes the partition back, or the pipeline stops: once everything can be seen, the last commit names
    /// its streams as finished.
    pub fn closing(&mut self, slot: Slot) {
        if let Some(held) = self.partitions.get_mut(&slot).filter(|held| !held.is_closing()) {
            held.standing = Standing::Closing;
            if !held.streams.is_empty() {
                held.version += 1;
            }
        }
    }

    /// The time to drain is over: of a partition that is given back only what lies before `finished` still counts, so
    /// that its streams can be named as finished without waiting for the rest.
    pub fn give_up(&mut self, slot: Slot, finished: i64) {
        if let Some(held) = self.partitions.get_mut(&slot).filter(|held| held.is_closing()) {
            held.standing = Standing::GivenUp;
            held.flights.retain(|flight| flight.next <= finished);
        }
    }

    /// What is to be done at the sink now. Every step is named once.
    pub fn steps(&mut self) -> Vec<Step> {
        let mut steps: Vec<Step> =
            self.left_behind.drain(..).map(|stream| Step::LeaveBehind { stream }).collect();
        for (slot, held) in &mut self.partitions {
            if held.broken {
                continue;
            }
            for former in held.former.iter_mut().filter(|former| former.state == FormerState::Named) {
                former.state = FormerState::Ending;
                steps.push(Step::Finalize {
                    slot: *slot,
                    assignment: held.assignment,
                    stream: former.stream.clone(),
                });
            }
            if !held.former.is_empty() {
                // A commit of the former owner that arrives late must find its streams finalized before any row that
                // it covers is seen through ours.
                continue;
            }
            for stream in held.streams.iter_mut().filter(|stream| stream.end > stream.published) {
                if !std::mem::replace(&mut stream.publishing, true) {
                    steps.push(Step::Publish {
                        slot: *slot,
                        assignment: held.assignment,
                        stream: stream.name.clone(),
                        end: stream.end,
                    });
                }
            }
        }
        steps
    }

    /// The first `end` rows of a stream were published. Answers whether the partition can go on.
    pub fn published(
        &mut self,
        slot: Slot,
        assignment: Assignment,
        name: &StreamName,
        end: i64,
        outcome: Published,
    ) -> Verdict {
        let Some(held) = self.held_under(slot, assignment) else { return Verdict::GoOn };
        let Some(stream) = held.streams.iter_mut().find(|stream| stream.name == *name) else {
            return Verdict::GoOn;
        };
        stream.publishing = false;
        if outcome != Published::Visible {
            // Somebody else has finalized it, or the table is another one: what the group has stored tells more.
            return Verdict::Restart;
        }
        stream.published = end.max(stream.published);
        if held.is_visible() {
            held.visible_before = held.committed;
            held.version += 1;
        }
        Verdict::GoOn
    }

    /// A stream of an earlier assignment is finalized.
    pub fn finalized(&mut self, slot: Slot, assignment: Assignment, name: &StreamName) {
        if let Some(held) = self.held_under(slot, assignment) {
            held.former.retain(|former| former.stream != *name);
        }
    }

    /// Partitions whose next commit has something new to say.
    pub fn news(&mut self) -> Vec<News> {
        let mut news = Vec::new();
        for (slot, held) in &mut self.partitions {
            let settled = held.is_settled();
            if held.told != Some((held.version, settled)) {
                held.told = Some((held.version, settled));
                news.push(News { slot: *slot, assignment: held.assignment, version: held.version, settled });
            }
        }
        news
    }

    /// How many rows of a partition are committed and not published yet.
    pub fn unpublished(&self, slot: Slot) -> i64 {
        let streams = self.partitions.get(&slot).into_iter().flat_map(|held| &held.streams);
        streams.map(|stream| stream.end - stream.published).sum()
    }

    fn held_under(&mut self, slot: Slot, assignment: Assignment) -> Option<&mut Held> {
        self.partitions.get_mut(&slot).filter(|held| held.assignment == assignment)
    }
}

impl Held {
    fn is_closing(&self) -> bool {
        self.standing != Standing::Read
    }

    /// Whether spans that come or finish now count for nothing.
    fn is_over(&self) -> bool {
        matches!(self.standing, Standing::GivenUp | Standing::Closed)
    }

    fn place(&mut self, span: &Span, rows: &[Rows]) -> Placement {
        let Some(index) = self.flights.iter().position(|flight| flight.covers(span)) else {
            return Placement::Gone;
        };
        if self.flights.iter().take(index).any(|flight| !flight.is_under_way()) {
            return Placement::Wait;
        }
        let mut wanted = Vec::with_capacity(rows.len());
        for Rows { table, rows } in rows {
            let Some(stream) = self.streams.iter().position(|stream| stream.table == *table) else {
                if self.opening.insert(Arc::clone(table)) {
                    return Placement::Open(Arc::clone(table));
                }
                return Placement::Wait;
            };
            let offset = self.rows_before(index, stream);
            wanted.push((stream, i64::try_from(*rows).unwrap_or(i64::MAX), offset));
        }
        if let Some(placement) = self.renumbered(index, &wanted) {
            return placement;
        }
        let Self { flights, streams, .. } = self;
        let Some(flight) = flights.get_mut(index) else { return Placement::Gone };
        flight.placed = true;
        flight.parts.retain(|part| wanted.iter().any(|(stream, ..)| *stream == part.stream));
        let places = wanted.iter().map(|&(stream, rows, offset)| {
            let known = flight.parts.iter().position(|part| part.stream == stream);
            let part = match known {
                Some(known) => &mut flight.parts[known],
                None => flight.parts.push_mut(Part {
                    stream,
                    rows,
                    offset,
                    state: PartState::Waiting,
                    unanswered: false,
                    strikes: 0,
                }),
            };
            if part.state == PartState::Stored {
                return None;
            }
            part.rows = rows;
            part.offset = offset;
            part.state = PartState::Sent;
            Some(StreamPosition { stream: streams[stream].name.clone(), offset })
        });
        Placement::Append(places.collect())
    }

    /// What stands in the way where rows that were sent before are to be sent with other rows or to another place: an
    /// append that was never answered could still be stored, in a place that means other rows now.
    fn renumbered(&self, index: usize, wanted: &[(usize, i64, i64)]) -> Option<Placement> {
        let flight = &self.flights[index];
        let same = |part: &Part| wanted.contains(&(part.stream, part.rows, part.offset));
        let changed: Vec<&Part> = flight.parts.iter().filter(|part| !same(part)).collect();
        if changed.is_empty() {
            return None;
        }
        if changed.iter().any(|part| part.unanswered || part.state == PartState::Stored) {
            return Some(Placement::Restart);
        }
        let later = || self.flights.iter().skip(index + 1).flat_map(|flight| &flight.parts);
        if later().any(|part| part.unanswered || part.state == PartState::Stored) {
            return Some(Placement::Restart);
        }
        later().any(|part| part.state == PartState::Sent).then_some(Placement::Wait)
    }

    fn answered(&mut self, span: &Span, table: &str, answer: Answer) -> Verdict {
        let Some(index) = self.flights.iter().position(|flight| flight.covers(span)) else {
            return Verdict::GoOn;
        };
        let all_before = self.flights.iter().take(index).all(Flight::is_stored);
        let Self { flights, streams, .. } = self;
        let found = flights[index].parts.iter_mut().find(|part| &*streams[part.stream].table == table);
        let Some(part) = found.filter(|part| part.state == PartState::Sent) else { return Verdict::GoOn };
        part.state = PartState::Waiting;
        match answer {
            Answer::Stored => part.state = PartState::Stored,
            // Only rows that were sent before at this place can be there; whatever else it is, it is not these rows.
            Answer::AlreadyStored if part.unanswered => part.state = PartState::Stored,
            Answer::AlreadyStored => return Verdict::Restart,
            Answer::Refused => {}
            Answer::Unanswered => part.unanswered = true,
            Answer::OutOfRange => {
                part.strikes += u32::from(all_before);
                if part.strikes >= MOST_STRIKES {
                    return Verdict::Restart;
                }
            }
        }
        Verdict::GoOn
    }

    /// How many rows the stream holds before those of flight `index`.
    fn rows_before(&self, index: usize, stream: usize) -> i64 {
        let flights = self.flights.iter().take(index).flat_map(|flight| &flight.parts);
        let rows: i64 = flights.filter(|part| part.stream == stream).map(|part| part.rows).sum();
        self.streams[stream].end + rows
    }

    /// How many rows of each stream belong to `position`, if it is one that can be committed.
    fn ends_at(&self, position: i64) -> Option<Vec<i64>> {
        let before = self.flights.iter().take_while(|flight| flight.next <= position).count();
        let reached = match before.checked_sub(1) {
            Some(last) => self.flights[last].next,
            None => self.committed.unwrap_or(self.started),
        };
        if reached != position || !self.flights.iter().take(before).all(Flight::is_stored) {
            return None;
        }
        Some((0..self.streams.len()).map(|stream| self.rows_before(before, stream)).collect())
    }

    /// Whether all that a commit of `position` counts is visible, so that it may name our streams as finished.
    fn all_visible(&self, position: i64, ends: &[i64]) -> bool {
        self.streams.iter().zip(ends).all(|(stream, end)| stream.published == *end)
            && self.flights.iter().all(|flight| flight.next <= position)
            && self.is_visible()
    }

    fn note(&self, ends: &[i64], closes: bool) -> StreamsNote {
        let ours = || self.streams.iter().zip(ends).filter(|(_, end)| **end > 0);
        let former = self.former.iter().map(|former| former.stream.clone());
        if closes {
            let all = former.chain(self.streams.iter().map(|stream| stream.name.clone()));
            return StreamsNote { streams: Vec::new(), finalize: all.collect(), visible_before: None };
        }
        let streams = ours().map(|(stream, end)| CommittedStream {
            stream: stream.name.clone(),
            end: *end,
            published: stream.published.min(*end),
        });
        StreamsNote {
            streams: streams.collect(),
            finalize: former.collect(),
            visible_before: self.visible_before,
        }
    }

    /// Whether all rows that the stored commit counts are visible.
    fn is_visible(&self) -> bool {
        self.streams.iter().all(|stream| stream.published == stream.end)
            && self.former.iter().all(|former| former.state != FormerState::Counted)
    }

    /// Whether a commit that says what is known now is the last one that is needed.
    fn is_settled(&self) -> bool {
        // A commit of this version names everything as finished; or there is nothing to name.
        self.is_closing()
            && (self.standing == Standing::Closed || (self.flights.is_empty() && self.is_visible()))
    }
}

impl Flight {
    fn covers(&self, span: &Span) -> bool {
        self.first == span.first && self.next == span.next
    }

    fn is_stored(&self) -> bool {
        self.placed && self.parts.iter().all(|part| part.state == PartState::Stored)
    }

    fn is_under_way(&self) -> bool {
        self.placed && self.parts.iter().all(|part| part.state != PartState::Waiting)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SLOT: Slot = Slot(3);
    const ASSIGNMENT: Assignment = Assignment(7);

    fn span(first: i64, next: i64) -> Span {
        Span { slot: SLOT, assignment: ASSIGNMENT, first, next }
    }

    fn rows(count: usize) -> Vec<Rows> {
        vec![Rows { table: "d.t".into(), rows: count }]
    }

    fn at(offset: i64) -> Placement {
        Placement::Append(vec![Some(StreamPosition { stream: name("new"), offset })])
    }

    fn name(text: &str) -> StreamName {
        StreamName(text.into())
    }

    fn note(text: &str) -> StreamsNote {
        match Note::read(text) {
            Ok(Note::Streams(note)) => note,
            other => panic!("{text}: {other:?}"),
        }
    }

    /// A partition read from offset 10 on, with a stream open.
    fn started() -> TwoPhase {
        let mut machine = TwoPhase::new();
        machine.started(SLOT, ASSIGNMENT, 10, StreamsNote::default());
        machine.handed_over(span(10, 20));
        assert_eq!(machine.place(&span(10, 20), &rows(10)), Placement::Open("d.t".into()));
        assert_eq!(machine.place(&span(10, 20), &rows(10)), Placement::Wait);
        assert!(machine.opened(SLOT, ASSIGNMENT, &"d.t".into(), name("new")));
        machine
    }

    fn answer(machine: &mut TwoPhase, span: Span, answer: Answer) -> Verdict {
        machine.answered(&span, "d.t", answer)
    }

    fn commit(machine: &mut TwoPhase, token: u64, position: i64) -> Option<String> {
        let text = machine.note(CommitToken(token), SLOT, position);
        machine.stored(CommitToken(token), SLOT);
        text
    }

    fn publish(end: i64) -> Step {
        Step::Publish { slot: SLOT, assignment: ASSIGNMENT, stream: name("new"), end }
    }

    #[test]
    fn rows_are_published_only_after_the_commit_that_counts_them() {
        let mut machine = started();
        assert_eq!(machine.place(&span(10, 20), &rows(10)), at(0));
        machine.handed_over(span(20, 25));
        assert_eq!(machine.place(&span(20, 25), &rows(4)), at(10));
        answer(&mut machine, span(10, 20), Answer::Stored);
        assert!(machine.is_appended(&span(10, 20)) && !machine.is_appended(&span(20, 25)));
        assert_eq!(machine.steps(), []);
        assert_eq!(machine.note(CommitToken(1), SLOT, 25), None, "not all of it is stored");
        assert_eq!(machine.note(CommitToken(1), SLOT, 15), None, "no span ends there");
        let text = machine.note(CommitToken(1), SLOT, 20);
        assert_eq!(text.as_deref(), Some(r#"{"txconnect":1,"s":[["new",10,0]]}"#));
        answer(&mut machine, span(20, 25), Answer::Stored);
        assert_eq!(machine.steps(), [], "not before it is stored");
        machine.stored(CommitToken(1), SLOT);
        assert_eq!(machine.steps(), [publish(10)]);
        assert_eq!(machine.steps(), [], "every step is named once");
        let text = commit(&mut machine, 2, 25);
        assert_eq!(text.as_deref(), Some(r#"{"txconnect":1,"s":[["new",14,0]]}"#));
        machine.published(SLOT, ASSIGNMENT, &name("new"), 10, Published::Visible);
        assert_eq!(machine.unpublished(SLOT), 4);
        assert_eq!(machine.steps(), [publish(14)]);
        let before = machine.news();
        machine.published(SLOT, ASSIGNMENT, &name("new"), 14, Published::Visible);
        assert_ne!(machine.news(), before, "an idle partition tells that all is visible");
        let text = commit(&mut machine, 3, 25);
        assert_eq!(text.as_deref(), Some(r#"{"txconnect":1,"s":[["new",14,14]],"q":25}"#));
    }

    #[test]
    fn who_takes_over_finalizes_the_old_stream_before_it_publishes_anything() {
        let mut machine = TwoPhase::new();
        machine.started(SLOT, ASSIGNMENT, 10, note(r#"{"txconnect":1,"s":[["old",5,0]],"f":["older"]}"#));
        let finalize = |stream| Step::Finalize { slot: SLOT, assignment: ASSIGNMENT, stream: name(stream) };
        assert_eq!(machine.steps(), [finalize("older")], "the stored commit still counts on `old`");
        assert_eq!(machine.news()[0].version, 1, "a commit is due though nothing was read");
        machine.handed_over(span(10, 11));
        machine.place(&span(10, 11), &rows(1));
        machine.opened(SLOT, ASSIGNMENT, &"d.t".into(), name("new"));
        assert_eq!(machine.place(&span(10, 11), &rows(1)), at(0));
        answer(&mut machine, span(10, 11), Answer::Stored);
        let text = commit(&mut machine, 1, 11);
        let expected = r#"{"txconnect":1,"s":[["new",1,0]],"f":["old","older"],"q":10}"#;
        assert_eq!(text.as_deref(), Some(expected));
        machine.finalized(SLOT, ASSIGNMENT, &name("older"));
        assert_eq!(machine.steps(), [finalize("old")], "nothing is published yet");
        machine.finalized(SLOT, ASSIGNMENT, &name("old"));
        assert_eq!(machine.steps(), [publish(1)]);
    }

    #[test]
    fn an_append_without_an_answer_is_repeated_in_its_place() {
        let mut machine = started();
        assert_eq!(machine.place(&span(10, 20), &rows(10)), at(0));
        machine.handed_over(span(20, 25));
        assert_eq!(machine.place(&span(20, 25), &rows(5)), at(10));
        answer(&mut machine, span(10, 20), Answer::Unanswered);
        answer(&mut machine, span(20, 25), Answer::Unanswered);
        assert_eq!(machine.place(&span(20, 25), &rows(5)), Placement::Wait);
        assert_eq!(machine.place(&span(10, 20), &rows(10)), at(0));
        assert_eq!(machine.place(&span(20, 25), &rows(5)), at(10));
        assert_eq!(answer(&mut machine, span(10, 20), Answer::AlreadyStored), Verdict::GoOn);
        assert_eq!(answer(&mut machine, span(20, 25), Answer::Stored), Verdict::GoOn);
        assert!(machine.note(CommitToken(1), SLOT, 25).unwrap().contains(r#"["new",15,0]"#));
    }

    #[test]
    fn rows_that_nobody_sent_are_not_taken_for_ours() {
        let mut machine = started();
        assert_eq!(machine.place(&span(10, 20), &rows(10)), at(0));
        assert_eq!(answer(&mut machine, span(10, 20), Answer::AlreadyStored), Verdict::Restart);
    }

    #[test]
    fn refused_rows_leave_and_those_behind_move_up_once_they_were_answered() {
        let mut machine = started();
        assert_eq!(machine.place(&span(10, 20), &rows(10)), at(0));
        machine.handed_over(span(20, 25));
        assert_eq!(machine.place(&span(20, 25), &rows(5)), at(10));
        answer(&mut machine, span(10, 20), Answer::Refused);
        assert_eq!(machine.place(&span(10, 20), &rows(8)), Placement::Wait, "the other is on its way");
        assert_eq!(answer(&mut machine, span(20, 25), Answer::OutOfRange), Verdict::GoOn);
        assert_eq!(machine.place(&span(10, 20), &rows(8)), at(0));
        assert_eq!(machine.place(&span(20, 25), &rows(5)), at(8));
        answer(&mut machine, span(10, 20), Answer::Stored);
        answer(&mut machine, span(20, 25), Answer::Stored);
        assert!(machine.note(CommitToken(1), SLOT, 25).unwrap().contains(r#"["new",13,0]"#));
    }

    #[test]
    fn rows_do_not_move_to_a_place_where_a_late_append_could_still_be_stored() {
        let mut machine = started();
        machine.place(&span(10, 20), &rows(10));
        machine.handed_over(span(20, 25));
        machine.place(&span(20, 25), &rows(5));
        answer(&mut machine, span(10, 20), Answer::Refused);
        answer(&mut machine, span(20, 25), Answer::Unanswered);
        assert_eq!(machine.place(&span(10, 20), &rows(8)), Placement::Restart);
        let mut machine = started();
        machine.place(&span(10, 20), &rows(10));
        answer(&mut machine, span(10, 20), Answer::Unanswered);
        machine.place(&span(10, 20), &rows(10));
        answer(&mut machine, span(10, 20), Answer::Refused);
        assert_eq!(machine.place(&span(10, 20), &rows(9)), Placement::Restart);
    }

    #[test]
    fn a_span_without_rows_moves_the_position_too() {
        let mut machine = TwoPhase::new();
        machine.started(SLOT, ASSIGNMENT, 10, StreamsNote::default());
        machine.handed_over(span(10, 20));
        assert_eq!(machine.place(&span(10, 20), &[]), Placement::Append(Vec::new()));
        assert!(machine.is_appended(&span(10, 20)));
        assert_eq!(commit(&mut machine, 1, 20).as_deref(), Some(r#"{"txconnect":1}"#));
    }

    #[test]
    fn a_partition_that_is_given_back_names_its_streams_as_finished() {
        let mut machine = started();
        machine.place(&span(10, 20), &rows(10));
        answer(&mut machine, span(10, 20), Answer::Stored);
        machine.closing(SLOT);
        assert!(!machine.news()[0].settled);
        commit(&mut machine, 1, 20);
        assert_eq!(machine.steps(), [publish(10)]);
        assert!(machine.news().iter().all(|news| !news.settled), "nothing is visible yet");
        machine.published(SLOT, ASSIGNMENT, &name("new"), 10, Published::Visible);
        assert!(machine.news()[0].settled);
        assert_eq!(commit(&mut machine, 2, 20).as_deref(), Some(r#"{"txconnect":1,"f":["new"]}"#));
        assert_eq!(machine.steps(), [Step::LeaveBehind { stream: name("new") }]);
    }

    #[test]
    fn a_partition_that_is_given_back_unread_leaves_no_old_stream_open() {
        let mut machine = TwoPhase::new();
        machine.started(SLOT, ASSIGNMENT, 10, note(r#"{"txconnect":1,"s":[["old",5,5]]}"#));
        machine.closing(SLOT);
        assert!(machine.news().iter().all(|news| !news.settled), "a commit still counts on it");
        let text = commit(&mut machine, 1, 10);
        assert_eq!(text.as_deref(), Some(r#"{"txconnect":1,"f":["old"],"q":10}"#));
        assert!(machine.news()[0].settled);
        assert_eq!(machine.steps(), [Step::LeaveBehind { stream: name("old") }]);
    }

    #[test]
    fn what_a_drain_gives_up_does_not_keep_the_streams_from_being_finished() {
        let mut machine = started();
        machine.place(&span(10, 20), &rows(10));
        machine.handed_over(span(20, 25));
        machine.place(&span(20, 25), &rows(5));
        answer(&mut machine, span(10, 20), Answer::Stored);
        machine.closing(SLOT);
        machine.give_up(SLOT, 20);
        assert_eq!(answer(&mut machine, span(20, 25), Answer::Stored), Verdict::GoOn);
        assert!(machine.is_appended(&span(20, 25)), "whoever brings it late is no cause for alarm");
        assert_eq!(machine.place(&span(20, 25), &rows(5)), Placement::Gone);
        machine.handed_over(span(25, 30));
        assert_eq!(machine.place(&span(25, 30), &rows(5)), Placement::Gone);
        assert_eq!(
            commit(&mut machine, 1, 20).as_deref(),
            Some(r#"{"txconnect":1,"s":[["new",10,0]]}"#),
            "what had finished is committed"
        );
        machine.published(SLOT, ASSIGNMENT, &name("new"), 10, Published::Visible);
        assert_eq!(commit(&mut machine, 2, 20).as_deref(), Some(r#"{"txconnect":1,"f":["new"]}"#));
        machine.news();
        machine.closing(SLOT);
        assert_eq!(machine.news(), [], "and that was the last one");
    }

    #[test]
    fn what_a_commit_counts_on_must_be_there() {
        let inherited = note(r#"{"txconnect":1,"s":[["a",5,5],["b",9,4]],"q":100}"#);
        let judged = |a, b| inherit(&inherited, &[a, b]);
        assert_eq!(judged(Published::Visible, Published::Visible), Inherited::Settled);
        assert_eq!(judged(Published::Missing, Published::Visible), Inherited::Settled, "it was all visible");
        let lost = Inherited::Lost { stream: name("b"), rows: 5, visible_before: Some(100) };
        assert_eq!(judged(Published::Missing, Published::Missing), lost);
        let stale = Inherited::Stale { stream: name("a") };
        assert_eq!(judged(Published::Finalized, Published::Visible), stale);
    }

    #[test]
    fn nothing_is_done_for_an_assignment_that_is_over_or_broken() {
        let mut machine = started();
        let other = Span { assignment: Assignment(8), ..span(10, 20) };
        assert_eq!(machine.place(&other, &rows(1)), Placement::Gone);
        machine.place(&span(10, 20), &rows(10));
        answer(&mut machine, span(10, 20), Answer::Stored);
        machine.broke(SLOT, ASSIGNMENT);
        assert_eq!(machine.note(CommitToken(1), SLOT, 20), None);
        assert_eq!(machine.place(&span(10, 20), &rows(10)), Placement::Gone);
        machine.keep(|_, _| false);
        assert!(!machine.opened(SLOT, ASSIGNMENT, &"d.t".into(), name("late")));
        assert_eq!(machine.steps(), [Step::LeaveBehind { stream: name("late") }]);
    }
}
