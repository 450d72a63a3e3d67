//! The simulated writer's appends to streams: placed by the machine, many on their way at once.

use std::collections::BTreeMap;
use std::sync::Arc;

use txconnect::delivery::{Answer as Told, Placement, Rows, Span, Step, Verdict};

use crate::planted::Bug;
use crate::process::{Outside, Process, partition_of};
use crate::publisher::Errand;
use crate::streams::{Answer, CallId, Reply, Request, Table};
use crate::truth::{Partition, Row};
use crate::witness::Happening;
use crate::writer::{Doing, Flush};

/// The rows of one partition of a flush.
pub(crate) struct Part {
    span: Span,
    state: State,
}

enum State {
    Placing,
    Opening { table: Table, call: CallId },
    Sent { appends: Vec<Append>, worst: Outcome },
    Done(Outcome),
}

/// The rows of one table on their way.
struct Append {
    table: Table,
    call: CallId,
    /// Where they go, and how many.
    to: txconnect_connector_api::StreamPosition,
    rows: usize,
}

/// What became of the rows of one partition; a later one weighs more.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Outcome {
    Appended,
    /// Rows before them have to be sent again first.
    Later,
    Failed,
    Rejected(Vec<Row>),
    /// Not ours any more, or to be started anew.
    Gone,
}

impl Outcome {
    fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Rejected(mut rows), Self::Rejected(more)) => {
                rows.extend(more);
                Self::Rejected(rows)
            }
            (one, other) => one.max(other),
        }
    }
}

impl Part {
    pub(crate) fn new(span: Span) -> Self {
        Self { span, state: State::Placing }
    }
}

fn name(table: Table) -> Arc<str> {
    format!("t{table}").into()
}

impl Process {
    /// One moment of the appends of a flush. Answers whether the flush is through.
    pub(crate) fn append(&mut self, flush: &mut Flush, mut parts: Vec<Part>, outside: &mut Outside) -> bool {
        let open: Vec<usize> =
            (0..parts.len()).filter(|index| !matches!(parts[*index].state, State::Done(_))).collect();
        if let Some(index) = outside.dice.one_of(&open) {
            let Part { span, state } = parts.swap_remove(index);
            let state = match state {
                State::Placing => self.place(&span, flush, outside),
                State::Opening { table, call } => self.opened(&span, table, call, outside),
                State::Sent { appends, worst } => self.sent(&span, appends, worst, flush, outside),
                done @ State::Done(_) => done,
            };
            parts.push(Part { span, state });
        }
        if parts.iter().any(|part| !matches!(part.state, State::Done(_))) {
            flush.doing = Doing::Appending(parts);
            return false;
        }
        let mut changed = false;
        for Part { span, state } in parts {
            let State::Done(outcome) = state else { continue };
            changed |= outcome != Outcome::Appended;
            match outcome {
                Outcome::Appended | Outcome::Later => {}
                Outcome::Gone => flush.cut(|partition| partition == partition_of(span.slot)),
                Outcome::Failed => flush.retried = true,
                Outcome::Rejected(rows) => self.refuse(flush, &rows, outside),
            }
        }
        if changed { false } else { self.finish(flush, outside) }
    }

    fn place(&mut self, span: &Span, flush: &Flush, outside: &mut Outside) -> State {
        let partition = partition_of(span.slot);
        let mut by_table: BTreeMap<Table, Vec<Row>> = BTreeMap::new();
        for row in flush.rows.iter().filter(|row| row.place.partition == partition) {
            by_table.entry(row.table).or_default().push(*row);
        }
        let rows: Vec<Rows> =
            by_table.iter().map(|(table, rows)| Rows { table: name(*table), rows: rows.len() }).collect();
        let Some(streams) = self.delivery.streams_mut() else { return State::Done(Outcome::Gone) };
        match streams.place(span, &rows) {
            Placement::Append(places) => {
                let wanted = by_table.into_iter().zip(places);
                let wanted = wanted.filter_map(|((table, rows), place)| Some((table, rows, place?)));
                let mut appends = Vec::new();
                let mut worst = Outcome::Appended;
                for (table, its_rows, to) in wanted {
                    let rows = its_rows.len();
                    let request =
                        Request::Append { stream: to.stream.clone(), offset: to.offset, rows: its_rows };
                    if let Some(call) = outside.server.call(self.number, request) {
                        appends.push(Append { table, call, to, rows });
                    } else {
                        self.told(span, table, Told::Refused);
                        worst = worst.and(Outcome::Failed);
                    }
                }
                State::Sent { appends, worst }
            }
            Placement::Open(table) => {
                let number = by_table.keys().find(|number| name(**number) == table).copied();
                let Some(number) = number else { return State::Done(Outcome::Gone) };
                if outside.has(Bug::StreamsReused)
                    && let Some(former) = self.used.get(&(partition, number)).cloned()
                {
                    streams.opened(span.slot, span.assignment, &table, former);
                    return State::Placing;
                }
                if let Some(call) = outside.server.call(self.number, Request::Open { table: number }) {
                    State::Opening { table: number, call }
                } else {
                    streams.not_opened(span.slot, span.assignment, &table);
                    State::Done(Outcome::Failed)
                }
            }
            Placement::Wait => State::Placing,
            Placement::Gone => State::Done(Outcome::Gone),
            Placement::Restart => {
                let number = self.number;
                outside.witness.tell(|| format!("process {number} cannot tell the place of {span:?}"));
                self.delivery.fenced(&[*span]);
                State::Done(Outcome::Gone)
            }
        }
    }

    fn opened(&mut self, span: &Span, table: Table, call: CallId, outside: &mut Outside) -> State {
        let answer = outside.server.answer(call);
        if matches!(answer, Answer::Waiting) && !outside.patience_ends(2) {
            return State::Opening { table, call };
        }
        let partition: Partition = partition_of(span.slot);
        let Some(streams) = self.delivery.streams_mut() else { return State::Done(Outcome::Gone) };
        if let Answer::Reply(Reply::Opened(stream)) = answer {
            self.used.insert((partition, table), stream.clone());
            streams.opened(span.slot, span.assignment, &name(table), stream);
            return State::Placing;
        }
        outside.server.give_up(call);
        streams.not_opened(span.slot, span.assignment, &name(table));
        State::Done(Outcome::Failed)
    }

    /// Tells the machine; answers whether the partition goes on.
    fn told(&mut self, span: &Span, table: Table, answer: Told) -> bool {
        let verdict = self
            .delivery
            .streams_mut()
            .map_or(Verdict::GoOn, |streams| streams.answered(span, &name(table), answer));
        if verdict == Verdict::Restart {
            self.delivery.fenced(&[*span]);
        }
        verdict == Verdict::GoOn
    }

    fn sent(
        &mut self,
        span: &Span,
        mut appends: Vec<Append>,
        worst: Outcome,
        flush: &mut Flush,
        outside: &mut Outside,
    ) -> State {
        if appends.is_empty() {
            return State::Done(worst);
        }
        let append = appends.swap_remove(outside.dice.index(appends.len()));
        let answer = outside.server.answer(append.call);
        if matches!(answer, Answer::Waiting) && !outside.patience_ends(14) {
            appends.push(append);
            return State::Sent { appends, worst };
        }
        let (told, outcome) = match answer {
            Answer::Reply(Reply::Stored) => (Told::Stored, Outcome::Appended),
            Answer::Reply(Reply::AlreadyStored) => (Told::AlreadyStored, Outcome::Appended),
            Answer::Reply(Reply::Rejected(rows)) => (Told::Refused, Outcome::Rejected(rows)),
            Answer::Reply(Reply::OutOfRange) => (Told::OutOfRange, Outcome::Later),
            Answer::Reply(Reply::Gone) => {
                let number = self.number;
                outside.witness.tell(|| format!("process {number} finds its stream of {span:?} gone"));
                self.delivery.fenced(&[*span]);
                return State::Sent { appends, worst: worst.and(Outcome::Gone) };
            }
            Answer::Reply(_) => (Told::Refused, Outcome::Failed),
            Answer::Waiting | Answer::Unknown => {
                outside.server.give_up(append.call);
                outside.witness.count(Happening::LostReply);
                (Told::Unanswered, Outcome::Failed)
            }
        };
        let believed = match told {
            Told::Unanswered if outside.has(Bug::UnansweredWriteTakenForSuccess) => Told::Stored,
            Told::Unanswered | Told::AlreadyStored if outside.has(Bug::UnansweredAppendTakenForRefused) => {
                if told == Told::Unanswered {
                    Told::Refused
                } else {
                    Told::Stored
                }
            }
            told => told,
        };
        let outcome =
            if believed == Told::Stored && outcome == Outcome::Failed { Outcome::Appended } else { outcome };
        if outside.has(Bug::PublishedBeforeTheCommit) && believed == Told::Stored {
            let end = append.to.offset + i64::try_from(append.rows).unwrap();
            let stream = append.to.stream.clone();
            let step = Step::Publish { slot: span.slot, assignment: span.assignment, stream, end };
            self.errands.push(Errand::new(step));
        }
        if outcome == Outcome::Appended {
            flush.stored.insert((partition_of(span.slot), append.table));
        }
        let goes_on = self.told(span, append.table, believed);
        let outcome = if goes_on { outcome } else { Outcome::Gone };
        State::Sent { appends, worst: worst.and(outcome) }
    }
}
