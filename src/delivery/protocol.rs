//! The protocol of a sink as one machine: the commits of [`AtLeastOnce`], and beside it what the sink's own protocol
//! knows.

use txconnect_connector_api::{Published, StreamName};

use super::two_phase::News;
use super::{
    Action, Assignment, AtLeastOnce, CommitOutcome, CommitToken, Event, Note, OffsetsInSink, Settled, Slot,
    Span, Step, StreamsNote, TwoPhase, Verdict,
};
use txconnect_connector_api::Epoch;

/// What a pipeline knows of its positions.
#[derive(Debug)]
pub struct Delivery {
    commits: AtLeastOnce,
    beside: Beside,
    actions: Vec<Action>,
    /// Partitions to be started anew if the group still says that they are ours.
    fenced: Vec<(Slot, Assignment)>,
    /// A commit may still arrive that nobody may count on any more.
    rejoin: bool,
}

/// What stands beside the commits.
#[derive(Debug)]
enum Beside {
    Nothing,
    OffsetsInSink(OffsetsInSink),
    TwoPhase(TwoPhase),
}

impl Delivery {
    /// Rows first, commits afterwards.
    pub fn at_least_once() -> Self {
        Self::new(AtLeastOnce::new(), Beside::Nothing)
    }

    /// Rows and positions in one transaction of the sink; commits only serve tools.
    pub fn offsets_in_sink() -> Self {
        Self::new(AtLeastOnce::advisory(), Beside::OffsetsInSink(OffsetsInSink::new()))
    }

    /// Rows in streams that the commits count.
    pub fn two_phase() -> Self {
        Self::new(AtLeastOnce::new(), Beside::TwoPhase(TwoPhase::new()))
    }

    fn new(commits: AtLeastOnce, beside: Beside) -> Self {
        Self { commits, beside, actions: Vec::new(), fenced: Vec::new(), rejoin: false }
    }

    /// The machine of the commits, to be asked.
    pub fn commits(&self) -> &AtLeastOnce {
        &self.commits
    }

    /// The positions in the sink, where it keeps them.
    pub fn in_sink(&self) -> Option<&OffsetsInSink> {
        match &self.beside {
            Beside::OffsetsInSink(in_sink) => Some(in_sink),
            _ => None,
        }
    }

    /// The same, to be told what has become of a transaction.
    pub fn in_sink_mut(&mut self) -> Option<&mut OffsetsInSink> {
        match &mut self.beside {
            Beside::OffsetsInSink(in_sink) => Some(in_sink),
            _ => None,
        }
    }

    /// The streams, where rows are committed in two phases.
    pub fn streams(&self) -> Option<&TwoPhase> {
        match &self.beside {
            Beside::TwoPhase(streams) => Some(streams),
            _ => None,
        }
    }

    /// The same, to place rows and to say what has become of them.
    pub fn streams_mut(&mut self) -> Option<&mut TwoPhase> {
        match &mut self.beside {
            Beside::TwoPhase(streams) => Some(streams),
            _ => None,
        }
    }

    /// Takes in one event; what is to be done then waits in [`Self::take_actions`].
    pub fn handle(&mut self, event: Event) {
        if let Beside::TwoPhase(streams) = &mut self.beside {
            match &event {
                Event::HandedOver(span) => streams.handed_over(*span),
                Event::Finished(span)
                    if self.commits.is_current(span.slot, span.assignment) && !streams.is_appended(span) =>
                {
                    let reason =
                        format!("offsets {} to {} count before their rows are stored", span.first, span.next);
                    self.actions.push(Action::Fail { reason });
                    return;
                }
                Event::CommitAnswered { token, outcomes } => {
                    for (slot, outcome) in outcomes {
                        if *outcome == CommitOutcome::Stored {
                            streams.stored(*token, *slot);
                        }
                    }
                }
                Event::DrainDeadline => {
                    for slot in self.commits.held() {
                        streams.give_up(slot, self.commits.finished(slot).unwrap_or_default());
                    }
                }
                Event::Revoked { slots } => {
                    for slot in slots {
                        streams.closing(*slot);
                    }
                }
                _ => {}
            }
            self.tell_news();
        }
        self.commits.handle(event, &mut self.actions);
        let commits = &self.commits;
        let is_ours = |slot, assignment| commits.is_current(slot, assignment);
        match &mut self.beside {
            Beside::Nothing => {}
            Beside::OffsetsInSink(in_sink) => in_sink.keep(is_ours),
            Beside::TwoPhase(streams) => streams.keep(is_ours),
        }
    }

    /// What the commit of `position` says beside it. `None`: nothing may be committed for this partition now.
    pub fn note(&mut self, token: CommitToken, slot: Slot, position: i64) -> Option<String> {
        match &mut self.beside {
            Beside::Nothing => Some(Note::AtLeastOnce.to_text()),
            Beside::OffsetsInSink(_) => Some(Note::OffsetsInSink.to_text()),
            Beside::TwoPhase(streams) => streams.note(token, slot, position),
        }
    }

    /// Whether an unanswered commit has to be looked up before anything else is committed for its partitions.
    pub fn looks_up_commits(&self) -> bool {
        matches!(self.beside, Beside::TwoPhase(_))
    }

    /// What came of a commit that was never answered: `found` is what the group has stored now. A commit that is not there
    /// may still arrive, as long as the membership counts under which it was sent, and would then replace whatever was
    /// committed after it: so nothing more is committed for its partitions, under whatever assignment they are read now,
    /// and [`Self::take_rejoin`] tells that the group is to be joined anew.
    pub fn looked_up(&mut self, token: CommitToken, slot: Slot, found: Option<(i64, &str)>) -> CommitOutcome {
        let Beside::TwoPhase(streams) = &mut self.beside else { return CommitOutcome::Unknown };
        if streams.is_stored(token, slot, found) {
            return CommitOutcome::Stored;
        }
        self.rejoin = true;
        if let Some(assignment) = self.commits.assignment(slot) {
            self.restart(slot, assignment);
        }
        CommitOutcome::MembershipLost
    }

    /// Whether the group has to be left and joined anew, told once: a commit without an answer may still arrive until then.
    /// No partition is to be started before the group has given it under the new membership.
    pub fn take_rejoin(&mut self) -> bool {
        std::mem::take(&mut self.rejoin)
    }

    /// A partition is read from `position` on, and `inherited` stands beside it. To be told after [`Event::Assigned`].
    pub fn streams_started(
        &mut self,
        slot: Slot,
        assignment: Assignment,
        position: i64,
        inherited: StreamsNote,
    ) {
        if let Beside::TwoPhase(streams) = &mut self.beside {
            streams.started(slot, assignment, position, inherited);
        }
        self.tell_news();
    }

    /// What is to be done at the sink, each step once.
    pub fn steps(&mut self) -> Vec<Step> {
        self.streams_mut().map(TwoPhase::steps).unwrap_or_default()
    }

    /// A step to publish was answered.
    pub fn published(
        &mut self,
        slot: Slot,
        assignment: Assignment,
        stream: &StreamName,
        end: i64,
        outcome: Published,
    ) {
        let Beside::TwoPhase(streams) = &mut self.beside else { return };
        if streams.published(slot, assignment, stream, end, outcome) == Verdict::Restart {
            self.restart(slot, assignment);
        }
        self.tell_news();
    }

    /// A step to finalize was done.
    pub fn finalized(&mut self, slot: Slot, assignment: Assignment, stream: &StreamName) {
        if let Beside::TwoPhase(streams) = &mut self.beside {
            streams.finalized(slot, assignment, stream);
        }
        self.tell_news();
    }

    /// The partition of `span`, which was in doubt, was taken over again; see [`OffsetsInSink::taken_over_again`].
    pub fn taken_over_again(&mut self, span: &Span, epoch: Epoch, stored: i64) -> Settled {
        let Beside::OffsetsInSink(in_sink) = &mut self.beside else { return Settled::Elsewhere };
        let settled = in_sink.taken_over_again(span, epoch, stored);
        if settled == Settled::Elsewhere {
            self.fenced(&[*span]);
        }
        settled
    }

    /// Somebody else has taken over the partitions of these spans, or their streams are not what they should be.
    pub fn fenced(&mut self, spans: &[Span]) {
        match &mut self.beside {
            Beside::Nothing => {}
            Beside::OffsetsInSink(in_sink) => {
                in_sink.fenced(spans);
                self.fenced.extend(spans.iter().map(|span| (span.slot, span.assignment)));
            }
            Beside::TwoPhase(_) => {
                for span in spans {
                    self.restart(span.slot, span.assignment);
                }
            }
        }
    }

    /// Partitions that are to be started anew, each once.
    pub fn take_fenced(&mut self) -> Vec<(Slot, Assignment)> {
        std::mem::take(&mut self.fenced)
    }

    /// Those of these partitions that are to be started anew; they are not told again.
    pub fn take_fenced_of(&mut self, slots: &[Slot]) -> Vec<Slot> {
        let Self { commits, fenced, .. } = self;
        let taken = fenced.extract_if(.., |(slot, _)| slots.contains(slot));
        taken
            .filter(|(slot, assignment)| commits.is_current(*slot, *assignment))
            .map(|(slot, _)| slot)
            .collect()
    }

    /// What is to be done, oldest first.
    pub fn take_actions(&mut self) -> Vec<Action> {
        std::mem::take(&mut self.actions)
    }

    /// Whether something waits in [`Self::take_actions`].
    pub fn has_actions(&self) -> bool {
        !self.actions.is_empty()
    }

    /// Nothing is committed under this assignment any more: rows that its commits would count may never be seen.
    fn restart(&mut self, slot: Slot, assignment: Assignment) {
        if !self.commits.is_current(slot, assignment) {
            return;
        }
        if let Beside::TwoPhase(streams) = &mut self.beside {
            streams.broke(slot, assignment);
        }
        self.fenced.push((slot, assignment));
        self.commits.handle(Event::Lost { slots: vec![slot] }, &mut self.actions);
    }

    fn tell_news(&mut self) {
        let Beside::TwoPhase(streams) = &mut self.beside else { return };
        for News { slot, assignment, version, settled } in streams.news() {
            let noted = Event::Noted { slot, assignment, version, settled };
            self.commits.handle(noted, &mut self.actions);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::delivery::{Answer, Placement, Rows};

    const SLOT: Slot = Slot(0);

    fn span(assignment: u64, first: i64, next: i64) -> Span {
        Span { slot: SLOT, assignment: Assignment(assignment), first, next }
    }

    /// Reads a partition from offset 0 on, and brings ten rows into a stream.
    fn appended(delivery: &mut Delivery, assignment: u64, stream: &str) {
        let (id, span) = (Assignment(assignment), span(assignment, 0, 10));
        delivery.handle(Event::Assigned { slot: SLOT, assignment: id, position: 0, committed: false });
        delivery.streams_started(SLOT, id, 0, StreamsNote::default());
        delivery.handle(Event::HandedOver(span));
        let rows = [Rows { table: "t".into(), rows: 10 }];
        let streams = delivery.streams_mut().unwrap();
        assert_eq!(streams.place(&span, &rows), Placement::Open("t".into()));
        streams.opened(SLOT, id, &"t".into(), StreamName(stream.into()));
        assert!(matches!(streams.place(&span, &rows), Placement::Append(_)));
        streams.answered(&span, "t", Answer::Stored);
        delivery.handle(Event::Finished(span));
    }

    fn sent(delivery: &mut Delivery) -> (CommitToken, String) {
        delivery.handle(Event::CommitDue);
        let Some(Action::Commit { token, positions }) = delivery.take_actions().pop() else {
            panic!("nothing is committed")
        };
        let note = delivery.note(token, SLOT, positions[0].1);
        (token, note.unwrap())
    }

    #[test]
    fn a_commit_that_may_still_arrive_calls_for_a_new_membership() {
        let mut delivery = Delivery::two_phase();
        appended(&mut delivery, 1, "a");
        let (token, _) = sent(&mut delivery);
        assert!(!delivery.take_rejoin());
        assert_eq!(delivery.looked_up(token, SLOT, None), CommitOutcome::MembershipLost);
        assert!(delivery.take_rejoin() && !delivery.take_rejoin(), "it is told once");
        assert!(!delivery.commits().is_current(SLOT, Assignment(1)));
        assert_eq!(delivery.take_fenced(), [(SLOT, Assignment(1))]);
    }

    #[test]
    fn a_commit_that_is_found_needs_nothing_more() {
        let mut delivery = Delivery::two_phase();
        appended(&mut delivery, 1, "a");
        let (token, note) = sent(&mut delivery);
        assert_eq!(delivery.looked_up(token, SLOT, Some((10, &note))), CommitOutcome::Stored);
        assert!(!delivery.take_rejoin());
    }

    #[test]
    fn a_partition_that_was_started_anew_meanwhile_commits_nothing_that_an_older_commit_could_replace() {
        let mut delivery = Delivery::two_phase();
        appended(&mut delivery, 1, "a");
        let (token, note) = sent(&mut delivery);
        delivery.fenced(&[span(1, 0, 10)]);
        appended(&mut delivery, 2, "b");
        // Even found: whoever reads on from there is no assignment of before.
        assert_eq!(delivery.looked_up(token, SLOT, Some((10, &note))), CommitOutcome::MembershipLost);
        assert!(delivery.take_rejoin());
        assert!(!delivery.commits().is_current(SLOT, Assignment(2)));
    }
}
