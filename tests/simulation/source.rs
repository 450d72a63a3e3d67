//! The simulated source thread: membership, rebalances, commits, and where partitions start.

use std::collections::BTreeSet;

use txconnect::delivery::{Action, Assignment, CommitOutcome, CommitToken, Event, Note, Slot};
use txconnect_connector_api::Epoch;

use crate::database::{Answer, Reply, Statement};
use crate::group::{ClientEvent, CommitFate};
use crate::lane::Command;
use crate::planted::Bug;
use crate::process::{Asked, Held, Life, Outside, Process, partition_of, slot};
use crate::truth::Partition;
use crate::witness::Happening;

/// What the source thread is at.
pub(crate) enum Source {
    Turning,
    Draining(Drain),
    /// Everything is given back, and what is left to be done at the sink may still be done.
    Leaving,
}

/// Partitions on their way back to the group.
pub(crate) struct Drain {
    partitions: BTreeSet<Partition>,
    /// Whose revocation it is, and whether the membership is gone; `None` when the process stops.
    member: Option<(u64, bool)>,
    /// Lanes that still have to answer.
    lanes: Vec<usize>,
    told: bool,
    gave_up: bool,
    /// The last commit was not confirmed.
    unsure: bool,
}

impl Process {
    pub(crate) fn source_step(&mut self, outside: &mut Outside) {
        match self.source {
            Source::Turning => {}
            Source::Draining(_) => return self.drain_step(outside),
            Source::Leaving => {
                let nothing_left = self.errands.is_empty() && self.look_for_errands() == 0;
                if nothing_left || outside.patience_ends(5) {
                    self.leave(outside);
                }
                return;
            }
        }
        // A revocation behind others must not be overtaken by a commit.
        let blind = outside.has(Bug::CommitOfALostPartition) && outside.dice.percent(70);
        if !blind && let Some(event) = self.client.events.pop_front() {
            return self.serve(event, outside);
        }
        if self.stopping {
            let all =
                self.partitions.iter().filter(|(_, held)| held.reading).map(|(number, _)| *number).collect();
            self.waiting.clear();
            self.inheriting = None;
            return self.begin_drain(all, None, outside);
        }
        match outside.dice.within(0, 5) {
            0 => self.look_at_fences(outside),
            1 => self.start_waiting(outside),
            2 => {
                // At once, so that no event comes between what is due and its commit.
                self.tell(Event::CommitDue);
                self.perform_actions(blind, outside);
            }
            3 => self.perform_actions(blind, outside),
            _ => {
                let _ = self.commit_answer(outside);
            }
        }
    }

    fn serve(&mut self, event: ClientEvent, outside: &mut Outside) {
        match event {
            ClientEvent::Assign(partitions) => self.waiting.extend(partitions),
            ClientEvent::Revoke { partitions, lost, member, last } => {
                self.waiting.retain(|waiting| !partitions.contains(waiting));
                if let Some(asked) = &mut self.asked {
                    asked.gone.extend(&partitions);
                }
                if let Some(inheriting) = &mut self.inheriting {
                    inheriting.gone.extend(&partitions);
                }
                let held: BTreeSet<Partition> =
                    partitions.iter().copied().filter(|number| self.holds(*number)).collect();
                let number = self.number;
                outside
                    .witness
                    .tell(|| format!("process {number} serves the end of {partitions:?}, lost: {lost}"));
                if lost || held.is_empty() {
                    self.let_go(&held);
                    self.give_back(&partitions, (member, last), outside);
                } else {
                    self.begin_drain(partitions, Some((member, last)), outside);
                }
            }
        }
    }

    fn holds(&self, partition: Partition) -> bool {
        self.partitions.get(&partition).is_some_and(|held| held.reading)
    }

    /// Drops everything of partitions that are not ours any more.
    fn let_go(&mut self, partitions: &BTreeSet<Partition>) {
        self.tell(Event::Lost { slots: partitions.iter().map(|number| slot(*number)).collect() });
        self.drop_in_lanes(partitions);
        self.forget(partitions);
    }

    fn forget(&mut self, partitions: &BTreeSet<Partition>) {
        for partition in partitions {
            if let Some(held) = self.partitions.get_mut(partition) {
                held.reading = false;
                held.fetch = None;
            }
        }
    }

    fn give_back(
        &mut self,
        partitions: &BTreeSet<Partition>,
        (member, last): (u64, bool),
        outside: &mut Outside,
    ) {
        if last {
            self.client.loss_served();
        }
        if self.client.rejoins() && self.client.membership().is_some_and(|(id, _)| id == member) && last {
            self.waiting.clear();
            self.inheriting = None;
            let Outside { group, dice, witness, .. } = outside;
            return group.leave_to_rejoin(&mut self.client, self.number, dice, witness);
        }
        outside.group.given_back(&mut self.client, member, partitions);
    }

    fn begin_drain(
        &mut self,
        partitions: BTreeSet<Partition>,
        member: Option<(u64, bool)>,
        outside: &mut Outside,
    ) {
        let mut lanes = Vec::new();
        for (index, lane) in self.lanes.iter_mut().enumerate() {
            let count = outside.plan.lanes;
            let mine: BTreeSet<Partition> =
                partitions.iter().filter(|number| *number % count == index).copied().collect();
            lane.answered = 0;
            lane.commands.push_back(Command::Release { partitions: mine });
            lanes.push(index);
        }
        self.source =
            Source::Draining(Drain { partitions, member, lanes, told: false, gave_up: false, unsure: false });
    }

    fn drain_step(&mut self, outside: &mut Outside) {
        let Source::Draining(mut drain) = std::mem::replace(&mut self.source, Source::Turning) else {
            return;
        };
        let slots = || drain.partitions.iter().map(|number| slot(*number)).collect::<Vec<Slot>>();
        if !drain.told {
            drain.lanes.retain(|index| self.lanes[*index].answered == 0);
            if drain.lanes.is_empty() || outside.patience_ends(3) {
                self.tell(Event::Revoked { slots: slots() });
                if outside.has(Bug::ClosedWithoutPublication) {
                    self.take_for_settled(&drain.partitions);
                }
                drain.told = true;
            }
            self.source = Source::Draining(drain);
            return;
        }
        self.perform_actions(false, outside);
        // What others have taken over will never finish: nobody need wait for it. Partitions that stay are looked at after
        // the drain.
        let fenced = self.delivery.take_fenced_of(&slots());
        if !fenced.is_empty() {
            drain.unsure = true;
            self.tell(Event::Lost { slots: fenced });
        }
        let still_there = drain
            .partitions
            .iter()
            .any(|number| self.delivery.commits().held().any(|held| held == slot(*number)));
        if !still_there || outside.has(Bug::ReleasedBeforeTheLastCommit) {
            return self.end_drain(&drain, outside);
        }
        match outside.dice.within(0, 3) {
            0 => {
                self.tell(Event::CommitDue);
                self.perform_actions(false, outside);
            }
            1 | 2 => match self.commit_answer(outside) {
                None | Some(CommitOutcome::Stored | CommitOutcome::Refused) => {}
                Some(_) => drain.unsure = true,
            },
            _ if !drain.gave_up && outside.patience_ends(12) => {
                outside.witness.count(Happening::DrainGivenUp);
                let number = self.number;
                outside.witness.tell(|| format!("process {number} gives up what is on its way"));
                drain.gave_up = true;
                if outside.has(Bug::GivenUpSpansFinished) {
                    for span in self.spans_on_their_way(&drain.partitions) {
                        self.finished(span, outside);
                    }
                    for lane in &mut self.lanes {
                        lane.running
                            .retain(|flush| !drain.partitions.iter().any(|number| flush.covers(*number)));
                    }
                }
                self.drop_in_lanes(&drain.partitions);
                self.tell(Event::DrainDeadline);
            }
            _ if drain.gave_up && outside.patience_ends(4) => {
                drain.unsure = true;
                self.tell(Event::Lost { slots: slots() });
            }
            _ => {}
        }
        self.source = Source::Draining(drain);
    }

    /// The machine of the commits hears that nothing is left to be published.
    fn take_for_settled(&mut self, partitions: &BTreeSet<Partition>) {
        for partition in partitions {
            let Some(held) = self.partitions.get(partition) else { continue };
            let (slot, assignment) = (slot(*partition), Assignment(held.assignment));
            self.tell(Event::Noted { slot, assignment, version: 0, settled: true });
        }
    }

    fn end_drain(&mut self, drain: &Drain, outside: &mut Outside) {
        let released = |number: &Partition| !self.holds(*number) || self.released.contains(&slot(*number));
        if !drain.gave_up && !drain.unsure && drain.partitions.iter().all(released) {
            self.check_hand_over(drain, outside);
        }
        self.forget(&drain.partitions);
        if outside.has(Bug::ReleasedBeforeTheLastCommit) {
            self.let_go(&drain.partitions);
        }
        if let Some(member) = drain.member {
            self.give_back(&drain.partitions, member, outside);
            return;
        }
        if outside.in_streams() {
            self.source = Source::Leaving;
        } else {
            self.leave(outside);
        }
    }

    fn leave(&mut self, outside: &mut Outside) {
        let Outside { group, dice, witness, .. } = &mut *outside;
        group.leave(self.number, dice, witness);
        witness.count(Happening::Stop);
        witness.tell(|| format!("process {} has stopped in order", self.number));
        self.die(outside);
    }

    /// Partitions that leave in order leave nothing to be repeated.
    fn check_hand_over(&self, drain: &Drain, outside: &mut Outside) {
        for partition in &drain.partitions {
            let Some(held) = self.partitions.get(partition).filter(|held| held.reading) else { continue };
            let Some(end) = held.handed_over else { continue };
            let position = if outside.exactly() {
                match outside.database.position(*partition) {
                    Some((epoch, position))
                        if epoch == held.epoch && !outside.database.is_edited(*partition) =>
                    {
                        Some(position)
                    }
                    _ => continue,
                }
            } else {
                if outside.group.was_reset(*partition) {
                    continue;
                }
                outside.group.committed(*partition)
            };
            if let Some(Ok(Note::Streams(note))) = outside.group.note(*partition).map(Note::read)
                && outside.group.knows(held.member)
                && let Some(counted) = note.streams.first()
            {
                outside.witness.fault(format!(
                    "process {} gives partition {partition} back in order, and its position counts on stream {}",
                    self.number, counted.stream
                ));
            }
            // A membership that is gone cannot commit, however orderly the revocation looks.
            let member = outside.group.knows(held.member);
            // Whoever wakes up late may hear of a position that others have passed meanwhile.
            if member && position.is_none_or(|position| position < end) {
                outside.witness.fault(format!(
                    "process {} gives partition {partition} back in order at {end}, but the position is {position:?}",
                    self.number
                ));
            }
        }
    }

    /// `blind`: whoever calls does not know what the group has said last (only with a planted bug).
    pub(crate) fn perform_actions(&mut self, blind: bool, outside: &mut Outside) {
        for action in self.delivery.take_actions() {
            match action {
                Action::Commit { token, positions } => self.commit(token, &positions, blind, outside),
                Action::Release { slots } => self.released.extend(slots),
                Action::Fail { reason } => {
                    outside.witness.fault(format!("process {} fails: {reason}", self.number));
                }
            }
        }
    }

    fn commit(&mut self, token: CommitToken, positions: &[(Slot, i64)], blind: bool, outside: &mut Outside) {
        let known_lost = self.client.assignment_lost() && !blind;
        let membership = self.client.membership().filter(|_| !known_lost);
        let all =
            |outcome: CommitOutcome| positions.iter().map(|(slot, _)| (*slot, outcome.clone())).collect();
        let Some(membership) = membership else {
            let outcomes = all(CommitOutcome::MembershipLost);
            return self.tell(Event::CommitAnswered { token, outcomes });
        };
        let furthest = outside.has(Bug::PositionOfTheFurthestSpan);
        let mut wanted = Vec::with_capacity(positions.len());
        let mut notes = Vec::with_capacity(positions.len());
        let mut slots = Vec::with_capacity(positions.len());
        for (slot, position) in positions {
            let partition = partition_of(*slot);
            let held = self.partitions.get(&partition).filter(|_| furthest);
            let position = held.map_or(*position, |held| held.furthest.max(*position));
            let Some(note) = self.delivery.note(token, *slot, position) else { continue };
            wanted.push((partition, position));
            notes.push(as_sent(note, outside));
            slots.push(*slot);
        }
        if wanted.is_empty() {
            let outcomes = all(CommitOutcome::Refused);
            return self.tell(Event::CommitAnswered { token, outcomes });
        }
        self.commit_sent = Some((token, slots));
        let number = self.number;
        outside.witness.tell(|| format!("process {number} sends a commit: {wanted:?} {notes:?}"));
        outside.group.send_commit(self.number, membership, token, wanted, notes);
    }

    /// Looks for the answer to a commit; answers its outcome.
    fn commit_answer(&mut self, outside: &mut Outside) -> Option<CommitOutcome> {
        if let Some((token, slots)) = self.lookup.take() {
            return self.look_up(token, slots, outside);
        }
        let (token, slots) = self.commit_sent.take()?;
        let outcome = match outside.group.fate(self.number, token) {
            CommitFate::Answered(CommitOutcome::Unknown) | CommitFate::Lost => None,
            CommitFate::Answered(outcome) => Some(outcome),
            CommitFate::Waiting if outside.patience_ends(2) => {
                outside.witness.count(Happening::LateReply);
                let connection_is_gone = outside.in_streams() && outside.dice.percent(50);
                outside.group.give_up(self.number, token, connection_is_gone);
                None
            }
            CommitFate::Waiting => {
                self.commit_sent = Some((token, slots));
                return None;
            }
        };
        let taken_for_stored = outside.has(Bug::LostCommitTakenForStored).then_some(CommitOutcome::Stored);
        let Some(outcome) = outcome.or(taken_for_stored) else {
            if self.delivery.looks_up_commits() && !outside.has(Bug::LostCommitRepeated) {
                let number = self.number;
                outside.witness.count(Happening::CommitUnanswered);
                outside.witness.tell(|| format!("process {number} gets no answer to a commit"));
                self.lookup = Some((token, slots));
                return None;
            }
            self.tell(Event::CommitTimedOut { token });
            return Some(CommitOutcome::Unknown);
        };
        let outcomes = slots.into_iter().map(|slot| (slot, outcome.clone())).collect();
        self.tell(Event::CommitAnswered { token, outcomes });
        Some(outcome)
    }

    /// Asks the group what it has stored, before anything more is committed.
    fn look_up(
        &mut self,
        token: CommitToken,
        slots: Vec<Slot>,
        outside: &mut Outside,
    ) -> Option<CommitOutcome> {
        if outside.patience_ends(20) {
            self.lookup = Some((token, slots));
            return None;
        }
        let mut outcomes = Vec::with_capacity(slots.len());
        for slot in slots {
            let partition = partition_of(slot);
            let found = outside.group.committed(partition).zip(outside.group.note(partition));
            let outcome = self.delivery.looked_up(token, slot, found);
            let number = self.number;
            outside.witness.tell(|| {
                format!(
                    "process {number} asks for its commit of partition {partition}: {found:?}: {outcome:?}"
                )
            });
            if outcome == CommitOutcome::Stored {
                outside.witness.count(Happening::CommitFound);
            }
            outcomes.push((slot, outcome));
        }
        let worst =
            outcomes.iter().map(|(_, outcome)| outcome).find(|outcome| **outcome != CommitOutcome::Stored);
        let worst = worst.cloned().unwrap_or(CommitOutcome::Stored);
        self.tell(Event::CommitAnswered { token, outcomes });
        if self.delivery.take_rejoin() && !outside.has(Bug::NoNewMembership) {
            self.client.rejoin();
        }
        Some(worst)
    }

    /// Partitions that somebody else has taken over in the sink are started anew, if they are still ours.
    fn look_at_fences(&mut self, outside: &mut Outside) {
        for (slot, assignment) in self.delivery.take_fenced() {
            let partition = partition_of(slot);
            let Some(held) = self.partitions.get(&partition) else { continue };
            if held.reading && Assignment(held.assignment) == assignment {
                if outside.in_streams() {
                    outside.witness.count(Happening::StreamRestart);
                }
                self.let_go(&BTreeSet::from([partition]));
                self.waiting.insert(partition);
            }
        }
    }

    fn start_waiting(&mut self, outside: &mut Outside) {
        if self.client.rejoins() {
            return;
        }
        if let Some(asked) = self.asked.take() {
            return self.start_in_sink(asked, outside);
        }
        if let Some(inheriting) = self.inheriting.take() {
            return self.inherit(inheriting, outside);
        }
        if self.waiting.is_empty() || outside.patience_ends(20) {
            return;
        }
        let partitions: Vec<Partition> = std::mem::take(&mut self.waiting).into_iter().collect();
        if outside.exactly() {
            let claim = vec![Statement::TakeOver(partitions.clone())];
            match outside.database.open(self.number, claim) {
                None => self.waiting.extend(partitions),
                Some(session) => {
                    self.asked = Some(Asked { session, partitions, gone: BTreeSet::new(), look: None });
                }
            }
            return;
        }
        if outside.in_streams() {
            return self.ask_for_inheritance(partitions, outside);
        }
        for partition in partitions {
            let committed = outside.group.committed(partition);
            self.start(partition, committed.unwrap_or(0), committed, None, outside);
        }
    }

    fn start_in_sink(&mut self, mut asked: Asked, outside: &mut Outside) {
        let ours: Vec<Partition> =
            asked.partitions.iter().filter(|number| !asked.gone.contains(number)).copied().collect();
        match outside.database.answer(asked.session) {
            Answer::Waiting if ours.is_empty() || outside.patience_ends(2) => {
                outside.database.close(asked.session);
                self.waiting.extend(ours);
            }
            Answer::Waiting => {
                watch(asked.session, &mut asked.look, outside);
                self.asked = Some(asked);
            }
            Answer::Reply(Reply::Taken(taken)) => {
                outside.database.close(asked.session);
                for (partition, epoch, stored) in
                    taken.into_iter().filter(|(number, ..)| ours.contains(number))
                {
                    let committed = outside.group.committed(partition);
                    let position = match committed.filter(|_| outside.has(Bug::ResumedAtTheGroupsPosition)) {
                        Some(position) => position,
                        None => stored,
                    };
                    self.start(partition, position, committed, Some((epoch, stored)), outside);
                }
            }
            Answer::Reply(_) | Answer::Gone => {
                outside.database.close(asked.session);
                self.waiting.extend(ours);
            }
        }
    }

    pub(crate) fn start(
        &mut self,
        partition: Partition,
        position: i64,
        committed: Option<i64>,
        in_sink: Option<(i64, i64)>,
        outside: &mut Outside,
    ) -> Assignment {
        self.assignments += 1;
        let assignment = Assignment(self.assignments);
        let epoch = in_sink.map_or(0, |(epoch, _)| epoch);
        let held = Held {
            assignment: self.assignments,
            reading: true,
            fetch: Some(position),
            handed_over: None,
            furthest: position,
            member: self.client.membership().map_or(0, |(id, _)| id),
            epoch,
        };
        self.partitions.insert(partition, held);
        self.doubtful.remove(&partition);
        let number = self.number;
        outside.witness.tell(|| format!("process {number} starts partition {partition} at {position}"));
        let slot = slot(partition);
        self.released.remove(&slot);
        self.tell(Event::Assigned { slot, assignment, position, committed: committed == Some(position) });
        if let (Some(sink), Some((epoch, stored))) = (self.delivery.in_sink_mut(), in_sink) {
            sink.started(slot, assignment, Epoch(epoch), stored, position);
        }
        let lane = partition % self.lanes.len();
        self.lanes[lane].commands.push_back(Command::Assign { partition, assignment, position });
        assignment
    }

    /// Asks to stop in order.
    pub(crate) fn stop(&mut self) {
        self.stopping = self.life == Life::Running;
    }
}

/// Looks who keeps a session waiting; a session that waits for its client at two looks is ended.
pub(crate) fn watch(session: u64, look: &mut Option<u64>, outside: &mut Outside) {
    if outside.has(Bug::StoppedSessionsStay) || !outside.dice.percent(30) {
        return;
    }
    let blocker = outside.database.stopped_blocker(session);
    match blocker {
        Some(blocker) if *look == Some(blocker) => {
            outside.database.terminate(blocker, &mut outside.witness);
            *look = None;
        }
        _ => *look = blocker,
    }
}

/// The note as it is sent.
fn as_sent(note: String, outside: &Outside) -> String {
    if outside.has(Bug::CommitsWithoutANote) {
        return String::new();
    }
    if outside.has(Bug::EndOfTheNewestAppend)
        && let Ok(Note::Streams(mut note)) = Note::read(&note)
    {
        for counted in &mut note.streams {
            let rows = outside.server.rows(&counted.stream, i64::from(i32::MAX)).map_or(0, <[_]>::len);
            counted.end = counted.end.max(i64::try_from(rows).unwrap());
        }
        return Note::Streams(note).to_text();
    }
    note
}
