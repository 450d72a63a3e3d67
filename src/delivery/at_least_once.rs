//! At least once: a flush is confirmed by the sink first, the Kafka commit follows.
//!
//! One commit is in flight at a time, and it is issued by the thread that serves rebalances, only for
//! partitions held now: Kafka fences a commit by membership and generation, not by ownership. A partition that
//! is taken away is drained first: its last commit is confirmed before [`Action::Release`] lets it go.

use std::collections::{BTreeMap, BTreeSet};

use super::ledger::{Ledger, LedgerError};
use super::{Assignment, CommitToken, Slot, Span};

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The group gave us a partition; it is read from `position` on.
    Assigned {
        /// The partition.
        slot: Slot,
        /// The new assignment.
        assignment: Assignment,
        /// The first offset that will be read.
        position: i64,
        /// Whether `position` is what the group has stored; else it has nothing stored for this partition.
        committed: bool,
    },
    /// What a commit says beside the position has changed, for protocols that say something.
    Noted {
        /// The partition.
        slot: Slot,
        /// The assignment under which it is read.
        assignment: Assignment,
        /// Grows with every change; the first is 0.
        version: u64,
        /// Whether the partition may be given back once a commit of this version is stored.
        settled: bool,
    },
    /// A flush is on its way to the sink.
    HandedOver(Span),
    /// Every record of a span is durable, confirmed as a dead letter, or filtered.
    Finished(Span),
    /// Time for a commit.
    CommitDue,
    /// The group answered a commit. Partitions without an outcome count as [`CommitOutcome::Unknown`].
    CommitAnswered {
        /// Which commit.
        token: CommitToken,
        /// What became of each partition.
        outcomes: Vec<(Slot, CommitOutcome)>,
    },
    /// No answer came within the deadline.
    CommitTimedOut {
        /// Which commit.
        token: CommitToken,
    },
    /// The group takes partitions back, or the pipeline stops; nothing more will be handed over for them.
    Revoked {
        /// The partitions.
        slots: Vec<Slot>,
    },
    /// The time to drain is over: what is still in flight is given up.
    DrainDeadline,
    /// The partitions belong to somebody else already: nothing may be committed.
    Lost {
        /// The partitions.
        slots: Vec<Slot>,
    },
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Commit these positions (the next offset to read) and report [`Event::CommitAnswered`].
    Commit {
        /// Names the request.
        token: CommitToken,
        /// The next offset of each partition.
        positions: Vec<(Slot, i64)>,
    },
    /// The partitions may be unassigned now; nothing is outstanding for them.
    Release {
        /// The partitions.
        slots: Vec<Slot>,
    },
    /// The pipeline must stop: going on could lose a record.
    Fail {
        /// Why.
        reason: String,
    },
}

/// What became of one partition in a commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CommitOutcome {
    /// The position is stored.
    Stored,
    /// Not stored; to be tried again, for example while the group rebalances.
    Refused,
    /// The membership is gone; the group will revoke the partition.
    MembershipLost,
    /// Nobody knows. Committing again is harmless: the position only repeats itself.
    Unknown,
    /// It will never be stored.
    Impossible(String),
}

/// The state of all partitions held.
#[derive(Debug, Default)]
pub struct AtLeastOnce {
    partitions: BTreeMap<Slot, Partition>,
    outstanding: Option<Outstanding>,
    next_token: u64,
    /// The position that counts is kept elsewhere; a commit that is refused for good harms nothing.
    advisory: bool,
}

#[derive(Debug)]
struct Partition {
    assignment: Assignment,
    ledger: Ledger,
    /// What the group has stored, as far as we know.
    committed: Option<i64>,
    state: State,
    /// The time to drain was over before everything had finished: spans count for nothing any more.
    given_up: bool,
    /// The last commit was refused, as in the middle of a rebalance; it is tried again when a commit is due.
    refused: bool,
    note: NoteVersion,
}

/// What commits say beside the position.
#[derive(Debug)]
struct NoteVersion {
    wanted: u64,
    stored: u64,
    /// Whether the partition may be given back once `wanted` is stored.
    settled: bool,
}

#[derive(Debug, PartialEq, Eq, Clone, Copy)]
enum State {
    /// Read and committed on the timer.
    Held,
    /// Waiting for what is in flight, then for the last commit.
    Draining,
    /// Its last commit was answered, or cannot succeed: ready to be released.
    Drained,
    /// The group does not take our commits any more; it will revoke the partition.
    Fenced,
}

#[derive(Debug)]
struct Outstanding {
    token: CommitToken,
    positions: BTreeMap<Slot, Committing>,
}

/// One partition's part in a commit.
#[derive(Clone, Copy, Debug)]
struct Committing {
    assignment: Assignment,
    position: i64,
    version: u64,
}

impl AtLeastOnce {
    /// A machine that holds nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// A machine whose commits only serve tools that show the lag: the positions that count are kept by the sink.
    pub fn advisory() -> Self {
        Self { advisory: true, ..Self::default() }
    }

    /// Takes in one event and appends what is to be done.
    pub fn handle(&mut self, event: Event, actions: &mut Vec<Action>) {
        match event {
            Event::Assigned { slot, assignment, position, committed } => {
                let partition = Partition {
                    assignment,
                    ledger: Ledger::starting_at(position),
                    committed: committed.then_some(position),
                    state: State::Held,
                    given_up: false,
                    refused: false,
                    note: NoteVersion { wanted: 0, stored: 0, settled: true },
                };
                self.partitions.insert(slot, partition);
            }
            Event::Noted { slot, assignment, version, settled } => {
                if let Some(partition) =
                    self.partitions.get_mut(&slot).filter(|held| held.assignment == assignment)
                {
                    partition.note.wanted = version;
                    partition.note.settled = settled || partition.given_up;
                }
                self.advance_drain(actions);
            }
            Event::HandedOver(span) => {
                self.with_span(span, actions, |ledger| ledger.hand_over(span.first, span.next));
            }
            Event::Finished(span) => {
                self.with_span(span, actions, |ledger| ledger.finish(span.first, span.next));
                self.advance_drain(actions);
            }
            Event::CommitDue => {
                for partition in self.partitions.values_mut() {
                    partition.refused = false;
                }
                if self.outstanding.is_none() {
                    self.commit(|partition| partition.state == State::Held, actions);
                }
                self.advance_drain(actions);
            }
            Event::CommitAnswered { token, outcomes } => self.answered(token, &outcomes, actions),
            Event::CommitTimedOut { token } => self.answered(token, &[], actions),
            Event::Revoked { slots } => {
                for slot in slots {
                    if let Some(partition) = self.partitions.get_mut(&slot) {
                        partition.state =
                            if partition.state == State::Fenced { State::Drained } else { State::Draining };
                    }
                }
                self.advance_drain(actions);
            }
            Event::DrainDeadline => {
                for partition in self.partitions.values_mut().filter(|held| held.state == State::Draining) {
                    // The finished prefix is still worth a commit.
                    partition.ledger.give_up();
                    partition.given_up = true;
                    partition.refused = false;
                    // Whoever reads the partition next publishes what was committed.
                    partition.note.settled = true;
                }
                self.advance_drain(actions);
            }
            Event::Lost { slots } => {
                for slot in &slots {
                    self.partitions.remove(slot);
                }
                self.advance_drain(actions);
            }
        }
    }

    /// Whether a span of this assignment still counts: its partition is held or draining.
    pub fn is_current(&self, slot: Slot, assignment: Assignment) -> bool {
        self.partitions.get(&slot).is_some_and(|partition| partition.assignment == assignment)
    }

    /// The assignment under which a partition is held.
    pub fn assignment(&self, slot: Slot) -> Option<Assignment> {
        self.partitions.get(&slot).map(|partition| partition.assignment)
    }

    /// Whether nothing of the partition is on its way to the sink. True for partitions that are not held.
    pub fn is_idle(&self, slot: Slot) -> bool {
        self.partitions.get(&slot).is_none_or(|partition| partition.ledger.is_idle())
    }

    /// The end of the finished prefix.
    pub fn finished(&self, slot: Slot) -> Option<i64> {
        self.partitions.get(&slot).map(|partition| partition.ledger.finished())
    }

    /// The position that the group has stored, as far as we know.
    pub fn committed(&self, slot: Slot) -> Option<i64> {
        self.partitions.get(&slot).and_then(|partition| partition.committed)
    }

    /// The commit that has not been answered yet.
    pub fn outstanding(&self) -> Option<CommitToken> {
        self.outstanding.as_ref().map(|outstanding| outstanding.token)
    }

    /// Partitions held, in order.
    pub fn held(&self) -> impl Iterator<Item = Slot> + '_ {
        self.partitions.keys().copied()
    }

    fn with_span(
        &mut self,
        span: Span,
        actions: &mut Vec<Action>,
        change: impl FnOnce(&mut Ledger) -> Result<(), LedgerError>,
    ) {
        let Some(partition) = self.partitions.get_mut(&span.slot) else { return };
        // After a drain deadline the spans that were given up may still report themselves, and a lane that was held up
        // may hand over more.
        if partition.assignment != span.assignment || partition.given_up {
            return;
        }
        if let Err(error) = change(&mut partition.ledger) {
            actions.push(Action::Fail { reason: error.to_string() });
        }
    }

    fn commit(&mut self, wanted: impl Fn(&Partition) -> bool, actions: &mut Vec<Action>) -> bool {
        let positions: BTreeMap<Slot, Committing> = self
            .partitions
            .iter()
            .filter(|(_, partition)| wanted(partition) && partition.has_news(self.advisory))
            .map(|(slot, partition)| {
                let Partition { assignment, ledger, note, .. } = partition;
                let committing =
                    Committing { assignment: *assignment, position: ledger.finished(), version: note.wanted };
                (*slot, committing)
            })
            .collect();
        if positions.is_empty() {
            return false;
        }
        let token = CommitToken(self.next_token);
        self.next_token += 1;
        actions.push(Action::Commit {
            token,
            positions: positions.iter().map(|(slot, committing)| (*slot, committing.position)).collect(),
        });
        self.outstanding = Some(Outstanding { token, positions });
        true
    }

    fn answered(
        &mut self,
        token: CommitToken,
        outcomes: &[(Slot, CommitOutcome)],
        actions: &mut Vec<Action>,
    ) {
        let Some(outstanding) = self.outstanding.take_if(|outstanding| outstanding.token == token) else {
            return;
        };
        for (slot, Committing { assignment, position, version }) in outstanding.positions {
            let Some(partition) = self.partitions.get_mut(&slot).filter(|held| held.assignment == assignment)
            else {
                continue;
            };
            let outcome = outcomes.iter().find(|(answered, _)| *answered == slot).map(|(_, outcome)| outcome);
            let was_last = partition.state == State::Draining
                && partition.ledger.is_idle()
                && partition.ledger.finished() == position;
            match outcome.unwrap_or(&CommitOutcome::Unknown) {
                CommitOutcome::Stored => {
                    partition.committed = Some(position);
                    partition.note.stored = partition.note.stored.max(version);
                }
                // A rebalance is over soon. Without this commit the next owner would repeat what it covers.
                CommitOutcome::Refused if was_last && !partition.given_up && !self.advisory => {
                    partition.refused = true;
                }
                CommitOutcome::Refused | CommitOutcome::Unknown => {
                    if was_last {
                        partition.state = State::Drained;
                    }
                }
                CommitOutcome::MembershipLost => {
                    partition.state =
                        if partition.state == State::Draining { State::Drained } else { State::Fenced };
                }
                CommitOutcome::Impossible(reason) => {
                    if !self.advisory {
                        actions.push(Action::Fail { reason: reason.clone() });
                    }
                    if was_last {
                        partition.state = State::Drained;
                    }
                }
            }
        }
        self.advance_drain(actions);
    }

    /// Brings partitions that are taken away one step further: last commit, then release.
    fn advance_drain(&mut self, actions: &mut Vec<Action>) {
        if self.outstanding.is_none() {
            let ready = |partition: &Partition| {
                partition.state == State::Draining && partition.ledger.is_idle() && !partition.refused
            };
            if !self.commit(ready, actions) {
                let done = |partition: &Partition| ready(partition) && partition.note.settled;
                for partition in self.partitions.values_mut().filter(|partition| done(partition)) {
                    partition.state = State::Drained;
                }
            }
        }
        let committing: BTreeSet<Slot> =
            self.outstanding.iter().flat_map(|outstanding| outstanding.positions.keys().copied()).collect();
        let released: Vec<Slot> = self
            .partitions
            .iter()
            .filter(|(slot, partition)| partition.state == State::Drained && !committing.contains(slot))
            .map(|(slot, _)| *slot)
            .collect();
        if !released.is_empty() {
            self.partitions.retain(|slot, _| !released.contains(slot));
            actions.push(Action::Release { slots: released });
        }
    }
}

impl Partition {
    /// Whether the finished prefix is ahead of what is stored. Nothing is stored for a partition in which nothing
    /// was read; but where the sink keeps the positions, tools shall not show a lag that is none, as after a crash
    /// between the transaction and the commit.
    fn has_news(&self, advisory: bool) -> bool {
        if self.note.wanted > self.note.stored {
            return true;
        }
        match self.committed {
            Some(committed) => self.ledger.finished() > committed,
            None => advisory || self.ledger.finished() > self.ledger.start(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const A: Slot = Slot(0);
    const B: Slot = Slot(1);

    fn span(slot: Slot, assignment: u64, first: i64, next: i64) -> Span {
        Span { slot, assignment: Assignment(assignment), first, next }
    }

    fn assigned(slot: Slot, assignment: u64, position: i64) -> Event {
        Event::Assigned { slot, assignment: Assignment(assignment), position, committed: true }
    }

    fn run(machine: &mut AtLeastOnce, events: impl IntoIterator<Item = Event>) -> Vec<Action> {
        let mut actions = Vec::new();
        for event in events {
            machine.handle(event, &mut actions);
        }
        actions
    }

    fn commit(token: u64, positions: &[(Slot, i64)]) -> Action {
        Action::Commit { token: CommitToken(token), positions: positions.to_vec() }
    }

    fn stored(token: u64, slots: &[Slot]) -> Event {
        Event::CommitAnswered {
            token: CommitToken(token),
            outcomes: slots.iter().map(|slot| (*slot, CommitOutcome::Stored)).collect(),
        }
    }

    #[test]
    fn only_the_finished_prefix_is_committed_and_only_once() {
        let mut machine = AtLeastOnce::new();
        let actions = run(
            &mut machine,
            [
                assigned(A, 1, 0),
                Event::HandedOver(span(A, 1, 0, 5)),
                Event::HandedOver(span(A, 1, 5, 9)),
                Event::Finished(span(A, 1, 5, 9)),
                Event::CommitDue,
            ],
        );
        assert_eq!(actions, []);
        let actions =
            run(&mut machine, [Event::Finished(span(A, 1, 0, 5)), Event::CommitDue, Event::CommitDue]);
        assert_eq!(actions, [commit(0, &[(A, 9)])]);
        assert_eq!(run(&mut machine, [stored(0, &[A]), Event::CommitDue]), []);
        assert_eq!(machine.committed(A), Some(9));
    }

    #[test]
    fn a_revoked_partition_is_released_after_its_last_commit_was_answered() {
        let mut machine = AtLeastOnce::new();
        let actions = run(
            &mut machine,
            [
                assigned(A, 1, 0),
                assigned(B, 2, 7),
                Event::HandedOver(span(A, 1, 0, 5)),
                Event::Revoked { slots: vec![A, B] },
            ],
        );
        assert_eq!(actions, [Action::Release { slots: vec![B] }]);
        assert_eq!(run(&mut machine, [Event::Finished(span(A, 1, 0, 5))]), [commit(0, &[(A, 5)])]);
        assert_eq!(run(&mut machine, [stored(0, &[A])]), [Action::Release { slots: vec![A] }]);
        assert_eq!(machine.held().count(), 0);
    }

    #[test]
    fn the_last_commit_waits_for_the_one_that_is_outstanding() {
        let mut machine = AtLeastOnce::new();
        let actions = run(
            &mut machine,
            [
                assigned(A, 1, 0),
                Event::HandedOver(span(A, 1, 0, 5)),
                Event::Finished(span(A, 1, 0, 5)),
                Event::CommitDue,
                Event::HandedOver(span(A, 1, 5, 6)),
                Event::Revoked { slots: vec![A] },
                Event::Finished(span(A, 1, 5, 6)),
            ],
        );
        assert_eq!(actions, [commit(0, &[(A, 5)])]);
        assert_eq!(run(&mut machine, [stored(0, &[A])]), [commit(1, &[(A, 6)])]);
        assert_eq!(run(&mut machine, [stored(1, &[A])]), [Action::Release { slots: vec![A] }]);
    }

    #[test]
    fn a_last_commit_that_is_refused_is_tried_again_until_the_time_is_over() {
        let mut machine = AtLeastOnce::new();
        let refused = |token| Event::CommitAnswered {
            token: CommitToken(token),
            outcomes: vec![(A, CommitOutcome::Refused)],
        };
        let span = span(A, 1, 0, 5);
        let revoked = Event::Revoked { slots: vec![A] };
        run(&mut machine, [assigned(A, 1, 0), Event::HandedOver(span), Event::Finished(span), revoked]);
        assert_eq!(run(&mut machine, [refused(0)]), []);
        assert_eq!(run(&mut machine, [Event::CommitDue, Event::CommitDue]), [commit(1, &[(A, 5)])]);
        assert_eq!(run(&mut machine, [refused(1)]), []);
        assert_eq!(run(&mut machine, [Event::DrainDeadline]), [commit(2, &[(A, 5)])]);
        assert_eq!(run(&mut machine, [refused(2)]), [Action::Release { slots: vec![A] }]);
    }

    #[test]
    fn a_sink_that_does_not_answer_gives_up_the_tail_but_not_the_prefix() {
        let mut machine = AtLeastOnce::new();
        let actions = run(
            &mut machine,
            [
                assigned(A, 1, 0),
                Event::HandedOver(span(A, 1, 0, 5)),
                Event::HandedOver(span(A, 1, 5, 9)),
                Event::Finished(span(A, 1, 0, 5)),
                Event::Revoked { slots: vec![A] },
                Event::DrainDeadline,
                Event::Finished(span(A, 1, 5, 9)),
            ],
        );
        assert_eq!(actions, [commit(0, &[(A, 5)])]);
        let silence = Event::CommitTimedOut { token: CommitToken(0) };
        assert_eq!(run(&mut machine, [silence]), [Action::Release { slots: vec![A] }]);
    }

    #[test]
    fn a_lane_that_hands_over_after_the_deadline_neither_fails_the_pipeline_nor_holds_up_the_release() {
        let mut machine = AtLeastOnce::new();
        let actions = run(
            &mut machine,
            [
                assigned(A, 1, 0),
                Event::HandedOver(span(A, 1, 0, 5)),
                Event::HandedOver(span(A, 1, 5, 9)),
                Event::Finished(span(A, 1, 0, 5)),
                Event::Revoked { slots: vec![A] },
                Event::DrainDeadline,
                Event::HandedOver(span(A, 1, 9, 12)),
                Event::HandedOver(span(A, 1, 5, 6)),
            ],
        );
        assert_eq!(actions, [commit(0, &[(A, 5)])]);
        assert_eq!(run(&mut machine, [stored(0, &[A])]), [Action::Release { slots: vec![A] }]);
    }

    #[test]
    fn nothing_is_committed_for_a_lost_partition_and_late_news_of_it_is_void() {
        let mut machine = AtLeastOnce::new();
        let actions = run(
            &mut machine,
            [
                assigned(A, 1, 0),
                Event::HandedOver(span(A, 1, 0, 5)),
                Event::Lost { slots: vec![A] },
                Event::Finished(span(A, 1, 0, 5)),
                Event::CommitDue,
                assigned(A, 2, 3),
                Event::Finished(span(A, 1, 0, 5)),
                Event::CommitDue,
            ],
        );
        assert_eq!(actions, []);
    }

    #[test]
    fn where_the_sink_keeps_the_positions_the_group_hears_of_them_even_if_nothing_is_read() {
        let elsewhere = Event::Assigned { slot: A, assignment: Assignment(1), position: 5, committed: false };
        let mut machine = AtLeastOnce::advisory();
        let actions = run(&mut machine, [elsewhere.clone(), Event::CommitDue]);
        assert_eq!(actions, [commit(0, &[(A, 5)])]);
        assert_eq!(run(&mut machine, [stored(0, &[A]), Event::CommitDue]), []);
        assert_eq!(run(&mut AtLeastOnce::new(), [elsewhere, Event::CommitDue]), []);
    }

    #[test]
    fn a_lost_membership_stops_commits_until_the_revoke_comes() {
        let mut machine = AtLeastOnce::new();
        run(
            &mut machine,
            [
                assigned(A, 1, 0),
                Event::HandedOver(span(A, 1, 0, 5)),
                Event::Finished(span(A, 1, 0, 5)),
                Event::CommitDue,
            ],
        );
        let fenced = Event::CommitAnswered {
            token: CommitToken(0),
            outcomes: vec![(A, CommitOutcome::MembershipLost)],
        };
        assert_eq!(run(&mut machine, [fenced, Event::CommitDue]), []);
        let actions = run(&mut machine, [Event::Revoked { slots: vec![A] }]);
        assert_eq!(actions, [Action::Release { slots: vec![A] }]);
    }

    #[test]
    fn a_span_out_of_order_fails_the_pipeline() {
        let mut machine = AtLeastOnce::new();
        let actions = run(&mut machine, [assigned(A, 1, 0), Event::HandedOver(span(A, 1, 1, 5))]);
        assert!(matches!(&actions[..], [Action::Fail { .. }]), "{actions:?}");
    }

    /// One step of a random run; numbers choose among what is possible.
    #[derive(Clone, Debug)]
    enum Step {
        HandOver(usize, i64),
        Finish(usize),
        Due,
        Answer(u8),
        Revoke(usize),
        Deadline,
        Lose(usize),
        Assign(usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (0_usize..3, 1_i64..5).prop_map(|(slot, length)| Step::HandOver(slot, length)),
            4 => any::<usize>().prop_map(Step::Finish),
            2 => Just(Step::Due),
            3 => (0_u8..4).prop_map(Step::Answer),
            1 => (0_usize..3).prop_map(Step::Revoke),
            1 => Just(Step::Deadline),
            1 => (0_usize..3).prop_map(Step::Lose),
            2 => (0_usize..3).prop_map(Step::Assign),
        ]
    }

    proptest! {
        /// Against a model that knows which offsets are finished: no commit passes an unfinished offset, none is
        /// for a partition that is not held, at most one is outstanding, and what was released is committed up to
        /// its finished prefix unless the group refused.
        #[test]
        fn no_interleaving_commits_past_an_unfinished_record(steps in prop::collection::vec(step(), 1..120)) {
            #[derive(Default)]
            struct Model {
                held: bool,
                draining: bool,
                assignment: u64,
                taken: i64,
                in_flight: Vec<Span>,
                stored: i64,
            }
            let mut machine = AtLeastOnce::new();
            let mut models: [Model; 3] = Default::default();
            let mut outstanding: Option<(CommitToken, Vec<(Slot, i64)>)> = None;
            let mut assignments = 0;
            let slot_of = |index: usize| Slot(u32::try_from(index).unwrap());
            for step in steps {
                let mut actions = Vec::new();
                match step {
                    Step::Assign(index) if !models[index].held => {
                        assignments += 1;
                        let model = &mut models[index];
                        let taken = model.stored;
                        *model = Model { held: true, assignment: assignments, taken, stored: taken, ..Model::default() };
                        machine.handle(assigned(slot_of(index), assignments, taken), &mut actions);
                    }
                    Step::HandOver(index, length) if models[index].held && !models[index].draining => {
                        let model = &mut models[index];
                        let span = span(slot_of(index), model.assignment, model.taken, model.taken + length);
                        model.taken += length;
                        model.in_flight.push(span);
                        machine.handle(Event::HandedOver(span), &mut actions);
                    }
                    Step::Finish(choice) => {
                        let all: Vec<Span> = models.iter().flat_map(|model| model.in_flight.clone()).collect();
                        if !all.is_empty() {
                            let span = all[choice % all.len()];
                            let model = &mut models[span.slot.0 as usize];
                            model.in_flight.retain(|other| *other != span);
                            machine.handle(Event::Finished(span), &mut actions);
                        }
                    }
                    Step::Due => machine.handle(Event::CommitDue, &mut actions),
                    Step::Answer(kind) => {
                        if let Some((token, positions)) = outstanding.take() {
                            let outcome = match kind {
                                0 | 1 => CommitOutcome::Stored,
                                2 => CommitOutcome::Refused,
                                _ => CommitOutcome::Unknown,
                            };
                            if outcome == CommitOutcome::Stored {
                                for (slot, position) in &positions {
                                    models[slot.0 as usize].stored = *position;
                                }
                            }
                            let outcomes = positions.iter().map(|(slot, _)| (*slot, outcome.clone())).collect();
                            machine.handle(Event::CommitAnswered { token, outcomes }, &mut actions);
                        }
                    }
                    Step::Revoke(index) if models[index].held => {
                        models[index].draining = true;
                        machine.handle(Event::Revoked { slots: vec![slot_of(index)] }, &mut actions);
                    }
                    Step::Deadline => {
                        for model in models.iter_mut().filter(|model| model.draining) {
                            model.in_flight.clear();
                        }
                        machine.handle(Event::DrainDeadline, &mut actions);
                    }
                    // A partition with a commit on its way is not lost in this model: whose commit wins is the
                    // group's business then.
                    Step::Lose(index) if models[index].held && outstanding.is_none() => {
                        let stored = models[index].stored;
                        models[index] = Model { stored, ..Model::default() };
                        machine.handle(Event::Lost { slots: vec![slot_of(index)] }, &mut actions);
                    }
                    _ => {}
                }
                for action in actions {
                    match action {
                        Action::Commit { token, positions } => {
                            prop_assert!(outstanding.is_none());
                            for (slot, position) in &positions {
                                let model = &models[slot.0 as usize];
                                prop_assert!(model.held);
                                prop_assert!(*position > model.stored);
                                let unfinished = model.in_flight.iter().map(|span| span.first).min();
                                prop_assert!(*position <= unfinished.unwrap_or(model.taken));
                            }
                            outstanding = Some((token, positions));
                        }
                        Action::Release { slots } => {
                            for slot in slots {
                                let model = &mut models[slot.0 as usize];
                                prop_assert!(model.held && model.draining && model.in_flight.is_empty());
                                let stored = model.stored;
                                *model = Model { stored, ..Model::default() };
                            }
                        }
                        Action::Fail { reason } => prop_assert!(false, "{}", reason),
                    }
                }
            }
        }
    }
}
