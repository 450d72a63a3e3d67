//! The simulated writer of a lane: dead letters, rows, positions, and what to do about every kind of error.

use std::collections::{BTreeSet, VecDeque};

use txconnect::delivery::{Event, Move, Plan as Moves, Settled, Span};
use txconnect_connector_api::Epoch;

use crate::appends::Part;
use crate::database::{Advance, Answer, Reply, SessionId, Statement};
use crate::letters::LetterFate;
use crate::planted::Bug;
use crate::process::{Outside, Process, partition_of, slot};
use crate::source::watch;
use crate::streams::Table;
use crate::truth::{Partition, Place, Row, Without};
use crate::witness::Happening;

/// What a lane hands over.
#[derive(Default)]
pub(crate) struct Flush {
    pub(crate) spans: Vec<Span>,
    pub(crate) rows: Vec<Row>,
    /// Rows of tables that are durable by themselves, where the sink has no common transaction.
    durable: Vec<Row>,
    /// Partitions and tables whose rows are in their streams, seen or not.
    pub(crate) stored: BTreeSet<(Partition, Table)>,
    /// Records that made no row and no dead letter.
    pub(crate) filtered: Vec<Place>,
    /// Bad records that are not confirmed as dead letters yet.
    pub(crate) letters: Vec<Place>,
    pub(crate) confirmed: Vec<Place>,
    pub(crate) doing: Doing,
    pub(crate) retried: bool,
    look: Option<SessionId>,
}

/// Where a flush stands.
#[derive(Default)]
pub(crate) enum Doing {
    #[default]
    Planning,
    Letter(u64),
    Writing {
        session: SessionId,
        moves: Vec<Move>,
    },
    Committing {
        session: SessionId,
        moves: Vec<Move>,
        then: Then,
    },
    TakingOver {
        session: SessionId,
    },
    /// Rows go to streams, those of each partition by themselves.
    Appending(Vec<Part>),
    /// Everything is written, dead letters are not (only with a planted bug).
    Late,
}

/// What follows a commit.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Then {
    Done,
    Positions,
    Rows,
}

impl Flush {
    pub(crate) fn covers(&self, partition: Partition) -> bool {
        self.spans.iter().any(|span| partition_of(span.slot) == partition)
    }

    pub(crate) fn is_committing(&self) -> bool {
        matches!(self.doing, Doing::Committing { .. } | Doing::TakingOver { .. })
    }

    /// Cuts out what belongs to partitions that are not ours any more.
    pub(crate) fn cut(&mut self, gone: impl Fn(Partition) -> bool) {
        self.spans.retain(|span| !gone(partition_of(span.slot)));
        for places in [&mut self.filtered, &mut self.letters, &mut self.confirmed] {
            places.retain(|place| !gone(place.partition));
        }
        for rows in [&mut self.rows, &mut self.durable] {
            rows.retain(|row| !gone(row.place.partition));
        }
    }

    /// The rows of one of its tables.
    fn of_first_table(&self) -> Vec<Row> {
        let table = self.rows.first().map(|row| row.table);
        self.rows.iter().filter(|row| Some(row.table) == table).copied().collect()
    }

    pub(crate) fn covered(&self) -> Vec<Span> {
        self.spans.clone()
    }

    /// What of `places` lies in a span.
    fn in_span<'a>(
        span: &Span,
        places: impl IntoIterator<Item = &'a Place>,
    ) -> impl Iterator<Item = &'a Place> {
        let (partition, offsets) = (partition_of(span.slot), span.first..span.next);
        places
            .into_iter()
            .filter(move |place| place.partition == partition && offsets.contains(&place.offset))
    }

    /// What the records without a row that are covered have become.
    fn without(&self) -> impl Iterator<Item = (Place, Without)> {
        self.spans.iter().flat_map(|span| {
            let letters = Self::in_span(span, self.letters.iter().chain(&self.confirmed));
            let filtered = Self::in_span(span, &self.filtered).map(|place| (*place, Without::Filtered));
            letters.map(|place| (*place, Without::Letter)).chain(filtered)
        })
    }

    /// Every record of a span is accounted for, however many rows it has become.
    fn check_books(&self, span: &Span, outside: &mut Outside) {
        let partition = partition_of(span.slot);
        let letters: Vec<&Place> = Self::in_span(span, self.letters.iter().chain(&self.confirmed)).collect();
        let written: BTreeSet<&Place> =
            Self::in_span(span, self.rows.iter().chain(&self.durable).map(|row| &row.place))
                .filter(|place| !letters.contains(place))
                .collect();
        let counted = written.len() + letters.len() + Self::in_span(span, &self.filtered).count();
        let read = outside.truth.records_in(partition, span.first, span.next);
        if counted != read {
            outside.witness.fault(format!(
                "the books do not balance: {span:?} has {read} records, and {counted} are accounted for"
            ));
        }
    }
}

impl Process {
    /// One moment of one of the flushes that are on their way.
    pub(crate) fn writer_step(&mut self, lane: usize, outside: &mut Outside) {
        let running = self.lanes[lane].running.len();
        if running == 0 {
            return;
        }
        let mut flush = self.lanes[lane].running.remove(outside.dice.index(running));
        if !self.move_on(&mut flush, outside) {
            // Within a lane flushes may finish in any order, so their order here says nothing.
            self.lanes[lane].running.push(flush);
        }
    }

    /// Answers whether the flush is through.
    fn move_on(&mut self, flush: &mut Flush, outside: &mut Outside) -> bool {
        match std::mem::take(&mut flush.doing) {
            Doing::Planning => return self.plan(flush, outside),
            Doing::Letter(id) => match outside.letters.fate(id) {
                LetterFate::Waiting => flush.doing = Doing::Letter(id),
                LetterFate::Lost => {}
                LetterFate::Confirmed => {
                    // Unless its partition was cut out meanwhile.
                    if let Some(letter) = flush.letters.pop() {
                        flush.confirmed.push(letter);
                    }
                }
            },
            Doing::Late if flush.letters.is_empty() => return true,
            Doing::Late => match flush.letters.pop() {
                // The confirmation of what comes after everything else interests nobody.
                Some(place) => {
                    outside.letters.send(place);
                    flush.doing = Doing::Late;
                }
                None => return true,
            },
            Doing::Writing { session, moves } => self.written(flush, session, moves, outside),
            Doing::Committing { session, moves, then } => {
                return self.committed(flush, session, moves, then, outside);
            }
            Doing::TakingOver { session } => self.taken_over(flush, session, outside),
            Doing::Appending(parts) => return self.append(flush, parts, outside),
        }
        false
    }

    fn plan(&mut self, flush: &mut Flush, outside: &mut Outside) -> bool {
        let late =
            outside.has(Bug::FinishedBeforeDeadLettered) || outside.has(Bug::DeadLettersAfterTheTransaction);
        if std::mem::take(&mut flush.retried) {
            let gone: Vec<Partition> = flush
                .covered()
                .iter()
                .filter(|span| !self.is_current(span))
                .map(|span| partition_of(span.slot))
                .collect();
            flush.cut(|partition| gone.contains(&partition));
            if outside.has(Bug::TransformedAgainInPart) {
                transform_a_part_again(flush, outside);
            }
        }
        if !late && let Some(letter) = flush.letters.last() {
            flush.doing = Doing::Letter(outside.letters.send(*letter));
            return false;
        }
        if outside.in_streams() {
            let parts = flush.covered().into_iter().map(Part::new).collect();
            return self.append(flush, parts, outside);
        }
        let moves = match self.delivery.in_sink() {
            None => Vec::new(),
            Some(sink) => match sink.plan(&flush.covered()) {
                Moves::Write(moves) => moves,
                Moves::Drop(gone) => {
                    flush.cut(|partition| gone.contains(&slot(partition)));
                    return false;
                }
                Moves::TakeOver(doubtful) => {
                    let partitions = doubtful.into_iter().map(partition_of).collect();
                    self.ask_in_doubt(flush, partitions, outside);
                    return false;
                }
                Moves::Broken { reason } => {
                    outside.witness.fault(format!("process {} fails: {reason}", self.number));
                    return true;
                }
            },
        };
        if flush.rows.is_empty() && moves.is_empty() {
            return self.finish(flush, outside);
        }
        if moves.is_empty() {
            // Tables have no common transaction: one follows the other.
            let flight = vec![Statement::Rows(flush.of_first_table()), Statement::Commit];
            match outside.database.open(self.number, flight) {
                None => flush.retried = true,
                Some(session) => flush.doing = Doing::Committing { session, moves, then: Then::Done },
            }
            return false;
        }
        self.settle_without(flush, outside);
        let first = if outside.has(Bug::PositionsBeforeRows) {
            vec![advance(&moves), Statement::Commit]
        } else if outside.has(Bug::RowsAndPositionsApart) {
            vec![Statement::Rows(flush.rows.clone()), Statement::Commit]
        } else {
            vec![Statement::Rows(flush.rows.clone())]
        };
        let Some(session) = outside.database.open(self.number, first) else {
            flush.retried = true;
            return false;
        };
        flush.doing = if outside.has(Bug::PositionsBeforeRows) {
            Doing::Committing { session, moves, then: Then::Rows }
        } else if outside.has(Bug::RowsAndPositionsApart) {
            Doing::Committing { session, moves, then: Then::Positions }
        } else {
            Doing::Writing { session, moves }
        };
        false
    }

    /// The rows are with the server; positions and COMMIT follow in one flight, of which a part may be sent later.
    fn written(&mut self, flush: &mut Flush, session: SessionId, moves: Vec<Move>, outside: &mut Outside) {
        match outside.database.answer(session) {
            Answer::Waiting if outside.patience_ends(1) => {
                outside.database.close(session);
                flush.retried = true;
            }
            Answer::Waiting => {
                watch(session, &mut flush.look, outside);
                flush.doing = Doing::Writing { session, moves };
            }
            Answer::Reply(Reply::Refused(refused)) => {
                outside.database.close(session);
                // To a former owner the server refuses keys that the new one has written: good records.
                let missed = outside.database.missed(&advances(&moves));
                if missed.is_empty() || outside.has(Bug::RefusalOfAFormerOwner) {
                    self.refuse(flush, &refused, outside);
                } else {
                    self.fence(flush, &missed, outside);
                }
            }
            Answer::Reply(_) => {
                let late = usize::from(outside.dice.percent(20));
                let flight = VecDeque::from([advance(&moves), Statement::Commit]);
                outside.database.send(session, flight, late);
                flush.doing = Doing::Committing { session, moves, then: Then::Done };
            }
            Answer::Gone => flush.retried = true,
        }
    }

    fn committed(
        &mut self,
        flush: &mut Flush,
        session: SessionId,
        moves: Vec<Move>,
        then: Then,
        outside: &mut Outside,
    ) -> bool {
        match outside.database.answer(session) {
            Answer::Waiting | Answer::Reply(Reply::RowsIn) => {
                watch(session, &mut flush.look, outside);
                flush.doing = Doing::Committing { session, moves, then };
                return false;
            }
            Answer::Reply(Reply::Committed) => {
                outside.database.close(session);
                let second = match then {
                    Then::Done if moves.is_empty() => {
                        let written = flush.of_first_table();
                        flush.rows.retain(|row| !written.contains(row));
                        flush.durable.extend(written);
                        return flush.rows.is_empty() && self.finish(flush, outside);
                    }
                    Then::Done => return self.finish(flush, outside),
                    Then::Positions => advance(&moves),
                    Then::Rows => Statement::Rows(flush.rows.clone()),
                };
                if let Some(session) = outside.database.open(self.number, vec![second, Statement::Commit]) {
                    flush.doing = Doing::Committing { session, moves, then: Then::Done };
                }
            }
            Answer::Reply(Reply::Refused(refused)) => {
                outside.database.close(session);
                self.refuse(flush, &refused, outside);
            }
            Answer::Reply(Reply::Fenced(missed)) => {
                outside.database.close(session);
                self.fence(flush, &missed, outside);
            }
            Answer::Reply(Reply::Taken(_)) => {
                outside.witness.fault("a commit was answered by a take-over".to_owned());
            }
            Answer::Gone if self.delivery.in_sink().is_none() => {
                if outside.has(Bug::UnansweredWriteTakenForSuccess) {
                    return self.finish(flush, outside);
                }
                flush.retried = true;
            }
            Answer::Gone => return self.doubt(flush, outside),
        }
        false
    }

    /// The connection broke after the commit was asked for.
    fn doubt(&mut self, flush: &mut Flush, outside: &mut Outside) -> bool {
        let number = self.number;
        outside.witness.count(Happening::InDoubt);
        outside.witness.tell(|| format!("process {number} does not know what became of its commit"));
        if outside.has(Bug::DoubtTakenForSuccess) {
            return self.finish(flush, outside);
        }
        flush.retried = true;
        if outside.has(Bug::DoubtTakenForFailure) {
            return false;
        }
        let spans = flush.covered();
        if let Some(sink) = self.delivery.in_sink_mut() {
            sink.in_doubt(&spans);
        }
        let current = spans.iter().filter(|span| self.is_current(span));
        let doubtful: Vec<Partition> = current.map(|span| partition_of(span.slot)).collect();
        self.doubtful.extend(doubtful);
        false
    }

    fn ask_in_doubt(&mut self, flush: &mut Flush, partitions: Vec<Partition>, outside: &mut Outside) {
        if outside.has(Bug::PlainSelectInDoubt) {
            let read: Vec<_> = partitions
                .into_iter()
                .filter_map(|number| outside.database.position(number).map(|(_, next)| (number, None, next)))
                .collect();
            self.settle(flush, &read, outside);
            return;
        }
        match outside.database.open(self.number, vec![Statement::TakeOver(partitions)]) {
            None => flush.retried = true,
            Some(session) => flush.doing = Doing::TakingOver { session },
        }
    }

    fn taken_over(&mut self, flush: &mut Flush, session: SessionId, outside: &mut Outside) {
        match outside.database.answer(session) {
            Answer::Waiting if outside.patience_ends(2) => {
                outside.database.close(session);
                flush.retried = true;
            }
            Answer::Waiting => {
                watch(session, &mut flush.look, outside);
                flush.doing = Doing::TakingOver { session };
            }
            Answer::Reply(Reply::Taken(taken)) => {
                outside.database.close(session);
                let taken: Vec<_> =
                    taken.into_iter().map(|(number, epoch, next)| (number, Some(epoch), next)).collect();
                self.settle(flush, &taken, outside);
            }
            Answer::Reply(_) | Answer::Gone => {
                outside.database.close(session);
                flush.retried = true;
            }
        }
    }

    /// Partitions in doubt were taken over again: what stands in the sink says what became of their spans.
    fn settle(&mut self, flush: &mut Flush, taken: &[(Partition, Option<i64>, i64)], outside: &mut Outside) {
        for (partition, epoch, stored) in taken {
            let Some(span) = flush.spans.iter().find(|span| partition_of(span.slot) == *partition).copied()
            else {
                continue;
            };
            let current = self.is_current(&span);
            let held = self.partitions.get_mut(partition).filter(|_| current);
            let known = held.as_ref().map_or(0, |held| held.epoch);
            if let (Some(held), Some(epoch)) = (held, epoch) {
                held.epoch = *epoch;
            }
            let settled = self.delivery.taken_over_again(&span, Epoch(epoch.unwrap_or(known)), *stored);
            if current {
                self.doubtful.remove(partition);
            }
            let number = self.number;
            outside
                .witness
                .tell(|| format!("process {number} asks about partition {partition}: {settled:?}"));
            outside.witness.count(match settled {
                Settled::Written => Happening::DoubtWritten,
                Settled::NotWritten => Happening::DoubtNotWritten,
                Settled::Elsewhere => Happening::DoubtElsewhere,
            });
            match settled {
                Settled::NotWritten => {}
                Settled::Written => {
                    flush.check_books(&span, outside);
                    self.finished(span, outside);
                    flush.cut(|other| other == *partition);
                }
                Settled::Elsewhere => {
                    // Nothing is believed of it any more.
                    if let Some(held) = self.partitions.get_mut(partition).filter(|_| current) {
                        held.epoch = 0;
                    }
                    flush.cut(|other| other == *partition);
                }
            }
        }
    }

    fn fence(&mut self, flush: &mut Flush, missed: &[Partition], outside: &mut Outside) {
        let number = self.number;
        outside.witness.count(Happening::Fenced);
        outside.witness.tell(|| format!("process {number} is fenced: {missed:?}"));
        let spans: Vec<Span> =
            flush.covered().into_iter().filter(|span| missed.contains(&partition_of(span.slot))).collect();
        if outside.has(Bug::FencedFlushWrittenAnyway) {
            for span in &spans {
                let partition = partition_of(span.slot);
                let Some((epoch, stored)) = outside.database.position(partition) else { continue };
                let current = self.is_current(span);
                if let Some(sink) = self.delivery.in_sink_mut().filter(|_| current) {
                    sink.started(span.slot, span.assignment, Epoch(epoch), stored, span.first);
                }
            }
            return;
        }
        self.delivery.fenced(&spans);
        flush.cut(|partition| missed.contains(&partition));
    }

    /// Says which records the position passes that have made no row.
    fn settle_without(&self, flush: &Flush, outside: &mut Outside) {
        for (place, how) in flush.without() {
            outside.truth.settle_without(self.number, place, how);
        }
    }

    /// Takes out the rows that the sink refuses, each with all rows of its record, and makes a dead letter of the record.
    pub(crate) fn refuse(&mut self, flush: &mut Flush, refused: &[Row], outside: &mut Outside) {
        let places: BTreeSet<Place> = refused.iter().map(|row| row.place).collect();
        let others = || flush.rows.iter().filter(|row| places.contains(&row.place) && !refused.contains(row));
        let is_stored = |row: &Row| flush.stored.contains(&(row.place.partition, row.table));
        let torn: BTreeSet<Place> = others().filter(|row| is_stored(row)).map(|row| row.place).collect();
        if others().next().is_some() {
            outside.witness.count(Happening::SiblingsTaken);
        }
        if !torn.is_empty() {
            outside.witness.count(Happening::SiblingsStored);
            if !outside.has(Bug::TornRecordsForgotten) {
                self.refused.extend(torn);
            }
        }
        let stay: Vec<Row> = if outside.has(Bug::OnlyTheRefusedRowCut) {
            others().copied().collect()
        } else if outside.has(Bug::StoredRowsStay) {
            others().filter(|row| is_stored(row)).copied().collect()
        } else {
            Vec::new()
        };
        flush.rows.retain(|row| !places.contains(&row.place) || stay.contains(row));
        if outside.has(Bug::RefusedRowsForgotten) {
            flush.confirmed.extend(places);
        } else if outside.has(Bug::LetterForEveryRow) {
            flush.letters.extend(refused.iter().map(|row| row.place));
        } else {
            flush.letters.extend(places);
        }
    }

    pub(crate) fn finish(&mut self, flush: &mut Flush, outside: &mut Outside) -> bool {
        self.settle_without(flush, outside);
        for span in flush.spans.clone() {
            flush.check_books(&span, outside);
            if !outside.has(Bug::FinishedBeforeWritten) && !outside.has(Bug::GroupAheadOfTheSink) {
                self.finished(span, outside);
            } else if let Some(sink) = self.delivery.in_sink_mut() {
                sink.written(&[span]);
            }
        }
        if outside.has(Bug::CommitOfAWriter) {
            self.tell(Event::CommitDue);
            self.perform_actions(true, outside);
        }
        if flush.letters.is_empty() {
            return true;
        }
        flush.doing = Doing::Late;
        false
    }
}

fn advances(moves: &[Move]) -> Vec<Advance> {
    let moves = moves.iter().map(|moved| Advance {
        partition: partition_of(moved.slot),
        epoch: moved.epoch.0,
        from: moved.from,
        to: moved.to,
    });
    moves.collect()
}

fn advance(moves: &[Move]) -> Statement {
    Statement::Advance(advances(moves))
}

/// Makes a part of the rows of some record anew.
fn transform_a_part_again(flush: &mut Flush, outside: &mut Outside) {
    let again = outside.attempts.next();
    let place = flush.rows.iter().find(|row| row.of > 1).map(|row| row.place);
    for row in flush.rows.iter_mut().filter(|row| Some(row.place) == place && row.number > 0) {
        row.attempt = again;
    }
}
