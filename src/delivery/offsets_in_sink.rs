//! Offsets in the sink: the rows of a flush and the positions behind them are one transaction.
//!
//! Taking a partition over raises its epoch in the sink, and a transaction must meet the epoch and the position it
//! expects. So whoever has lost a partition can write nothing more, however late it wakes up; and after a commit
//! whose answer got lost, taking the partition over again tells whether the transaction is durable.
//!
//! This machine knows what the sink has stored. The Kafka commits that follow are those of
//! [`super::AtLeastOnce`], and only tools look at them.

use std::collections::BTreeMap;

use txconnect_connector_api::Epoch;

use super::{Assignment, Slot, Span};

/// The positions of all partitions held, as the sink has stored them.
#[derive(Debug, Default)]
pub struct OffsetsInSink {
    partitions: BTreeMap<Slot, Held>,
}

#[derive(Debug)]
struct Held {
    assignment: Assignment,
    epoch: Epoch,
    /// What the sink has stored, as far as we know.
    stored: i64,
    /// Where the next span must begin: `stored`, but for a position outside the log that the user lets us leave.
    next: i64,
    standing: Standing,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// Transactions under our epoch go through.
    Owned,
    /// A commit was not answered: nothing is written before the partition is taken over again.
    InDoubt,
    /// Somebody else has taken the partition over: nothing is written under this assignment any more.
    Fenced,
}

/// One partition's part in a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Move {
    /// The partition.
    pub slot: Slot,
    /// The epoch that must be stored.
    pub epoch: Epoch,
    /// The position that must be stored.
    pub from: i64,
    /// The position that is stored afterwards.
    pub to: i64,
}

/// What can be done about a flush.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Plan {
    /// Write it with these moves.
    Write(Vec<Move>),
    /// Take these partitions over again first: they are in doubt.
    TakeOver(Vec<Slot>),
    /// Cut these partitions out first: they are not ours any more.
    Drop(Vec<Slot>),
    /// A span does not continue where the sink stands: a defect that must stop the pipeline.
    Broken {
        /// Why.
        reason: String,
    },
}

/// What has become of a span whose commit was not answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settled {
    /// It is durable.
    Written,
    /// It is not, and never will be by that transaction.
    NotWritten,
    /// Somebody else has moved the position meanwhile: the partition must be started anew from there.
    Elsewhere,
}

impl OffsetsInSink {
    /// A machine that holds nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// The partition was taken over under a new assignment: the sink has stored `stored`, and reading begins at
    /// `position`.
    pub fn started(&mut self, slot: Slot, assignment: Assignment, epoch: Epoch, stored: i64, position: i64) {
        let held = Held { assignment, epoch, stored, next: position, standing: Standing::Owned };
        self.partitions.insert(slot, held);
    }

    /// Forgets the partitions that are not ours any more.
    pub fn keep(&mut self, is_ours: impl Fn(Slot, Assignment) -> bool) {
        self.partitions.retain(|slot, held| is_ours(*slot, held.assignment));
    }

    /// What can be done about a flush that covers `spans`.
    pub fn plan(&self, spans: &[Span]) -> Plan {
        let gone: Vec<Slot> =
            spans.iter().filter(|span| self.writable(span).is_none()).map(|span| span.slot).collect();
        if !gone.is_empty() {
            return Plan::Drop(gone);
        }
        let held = || spans.iter().filter_map(|span| self.writable(span).map(|held| (span, held)));
        let doubtful: Vec<Slot> = held()
            .filter(|(_, held)| held.standing == Standing::InDoubt)
            .map(|(span, _)| span.slot)
            .collect();
        if !doubtful.is_empty() {
            return Plan::TakeOver(doubtful);
        }
        if let Some((span, held)) = held().find(|(span, held)| span.first != held.next) {
            let reason =
                format!("a flush begins at offset {}, but the sink is to go on at {}", span.first, held.next);
            return Plan::Broken { reason };
        }
        let moves = held().map(|(span, held)| Move {
            slot: span.slot,
            epoch: held.epoch,
            from: held.stored,
            to: span.next,
        });
        Plan::Write(moves.collect())
    }

    /// The transaction over `spans` is durable.
    pub fn written(&mut self, spans: &[Span]) {
        for span in spans {
            if let Some(held) = self.held_under(span) {
                held.stored = span.next;
                held.next = span.next;
            }
        }
    }

    /// The commit of the transaction over `spans` was not answered.
    pub fn in_doubt(&mut self, spans: &[Span]) {
        for span in spans {
            if let Some(held) = self.held_under(span).filter(|held| held.standing == Standing::Owned) {
                held.standing = Standing::InDoubt;
            }
        }
    }

    /// Somebody else has taken over these partitions, or moved their positions.
    pub fn fenced(&mut self, spans: &[Span]) {
        for span in spans {
            if let Some(held) = self.held_under(span) {
                held.standing = Standing::Fenced;
            }
        }
    }

    /// The partition of `span`, which was in doubt, was taken over again: the sink has stored `stored`.
    pub fn taken_over_again(&mut self, span: &Span, epoch: Epoch, stored: i64) -> Settled {
        let Some(held) = self.held_under(span).filter(|held| held.standing == Standing::InDoubt) else {
            return Settled::Elsewhere;
        };
        held.epoch = epoch;
        if stored == span.next {
            held.standing = Standing::Owned;
            held.stored = span.next;
            held.next = span.next;
            Settled::Written
        } else if stored == held.stored {
            held.standing = Standing::Owned;
            Settled::NotWritten
        } else {
            held.standing = Standing::Fenced;
            Settled::Elsewhere
        }
    }

    /// What the sink has stored for a partition held, as far as we know.
    pub fn stored(&self, slot: Slot) -> Option<i64> {
        self.partitions.get(&slot).map(|held| held.stored)
    }

    fn writable(&self, span: &Span) -> Option<&Held> {
        self.partitions
            .get(&span.slot)
            .filter(|held| held.assignment == span.assignment && held.standing != Standing::Fenced)
    }

    fn held_under(&mut self, span: &Span) -> Option<&mut Held> {
        self.partitions.get_mut(&span.slot).filter(|held| held.assignment == span.assignment)
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

    fn started_at(position: i64) -> OffsetsInSink {
        let mut machine = OffsetsInSink::new();
        machine.started(SLOT, ASSIGNMENT, Epoch(1), position, position);
        machine
    }

    fn write(epoch: i64, from: i64, to: i64) -> Plan {
        Plan::Write(vec![Move { slot: SLOT, epoch: Epoch(epoch), from, to }])
    }

    #[test]
    fn flushes_move_the_stored_position_one_after_the_other() {
        let mut machine = started_at(10);
        assert_eq!(machine.plan(&[span(10, 20)]), write(1, 10, 20));
        machine.written(&[span(10, 20)]);
        assert_eq!(machine.plan(&[span(20, 25)]), write(1, 20, 25));
        assert!(matches!(machine.plan(&[span(25, 30)]), Plan::Broken { .. }));
        assert_eq!(machine.stored(SLOT), Some(20));
    }

    #[test]
    fn a_commit_in_doubt_is_settled_by_taking_the_partition_over_again() {
        for (stored, settled, next) in
            [(20, Settled::Written, span(20, 30)), (10, Settled::NotWritten, span(10, 20))]
        {
            let mut machine = started_at(10);
            machine.in_doubt(&[span(10, 20)]);
            assert_eq!(machine.plan(&[span(10, 20)]), Plan::TakeOver(vec![SLOT]));
            assert_eq!(machine.taken_over_again(&span(10, 20), Epoch(2), stored), settled);
            assert_eq!(machine.plan(&[next]), write(2, stored, next.next));
        }
        let mut machine = started_at(10);
        machine.in_doubt(&[span(10, 20)]);
        assert_eq!(machine.taken_over_again(&span(10, 20), Epoch(3), 15), Settled::Elsewhere);
        assert_eq!(machine.plan(&[span(10, 20)]), Plan::Drop(vec![SLOT]));
    }

    #[test]
    fn nothing_is_written_under_an_assignment_that_is_over_or_fenced() {
        let mut machine = started_at(10);
        machine.fenced(&[span(10, 20)]);
        assert_eq!(machine.plan(&[span(10, 20)]), Plan::Drop(vec![SLOT]));
        machine.started(SLOT, Assignment(8), Epoch(5), 10, 10);
        assert_eq!(machine.plan(&[span(10, 20)]), Plan::Drop(vec![SLOT]));
        let current = Span { assignment: Assignment(8), ..span(10, 20) };
        machine.fenced(&[span(10, 20)]);
        assert_eq!(machine.plan(&[current]), write(5, 10, 20));
        machine.keep(|_, _| false);
        assert_eq!(machine.plan(&[current]), Plan::Drop(vec![SLOT]));
    }

    #[test]
    fn a_position_outside_the_log_is_left_with_the_first_flush() {
        let mut machine = OffsetsInSink::new();
        machine.started(SLOT, ASSIGNMENT, Epoch(2), 10, 500);
        assert_eq!(machine.plan(&[span(500, 510)]), write(2, 10, 510));
        machine.in_doubt(&[span(500, 510)]);
        assert_eq!(machine.taken_over_again(&span(500, 510), Epoch(3), 10), Settled::NotWritten);
        assert_eq!(machine.plan(&[span(500, 510)]), write(3, 10, 510));
    }
}
