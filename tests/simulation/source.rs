//! The simulated source thread: membership, rebalances, commits, and where partitions start.

use std::collections::BTreeSet;

use txconnect::delivery::{Action, Assignment, CommitOutcome, CommitToken, Event, Slot};
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
        if let Source::Draining(_) = self.source {
            return self.drain_step(outside);
        }
        // A revocation behind others must not be overtaken by a commit.
        let blind = outside.has(Bug::CommitOfALostPartition) && outside.dice.percent(70);
        if !blind && let Some(event) = self.client.events.pop_front() {
            return self.serve(event, outside);
        }
        if self.stopping {
            let all =
                self.partitions.iter().filter(|(_, held)| held.held).map(|(number, _)| *number).collect();
            self.waiting.clear();
            return self.begin_drain(all, None, outside);
        }
        match outside.dice.within(0, 5) {
            0 => self.look_at_fences(outside),
            1 => self.start_waiting(outside),
            2 => {
                // At once, so that no event comes between what is due and its commit.
                self.tell(Event::CommitDue);
                self.perform_actions(outside);
            }
            3 => self.perform_actions(outside),
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
        self.partitions.get(&partition).is_some_and(|held| held.held)
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
                held.held = false;
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
                drain.told = true;
            }
            self.source = Source::Draining(drain);
            return;
        }
        self.perform_actions(outside);
        // What others have taken over will never finish: nobody need wait for it. Partitions that stay are looked at after
        // the drain.
        let (fenced, later): (Vec<_>, Vec<_>) = std::mem::take(&mut self.fenced)
            .into_iter()
            .partition(|(number, _)| drain.partitions.contains(number));
        self.fenced = later;
        let current = |(number, assignment): &(Partition, Assignment)| {
            self.commits.is_current(slot(*number), *assignment)
        };
        let fenced: Vec<Slot> =
            fenced.iter().filter(|one| current(one)).map(|(number, _)| slot(*number)).collect();
        if !fenced.is_empty() {
            drain.unsure = true;
            self.tell(Event::Lost { slots: fenced });
        }
        let still_there =
            drain.partitions.iter().any(|number| self.commits.held().any(|held| held == slot(*number)));
        if !still_there || outside.has(Bug::ReleasedBeforeTheLastCommit) {
            return self.end_drain(drain, outside);
        }
        match outside.dice.within(0, 3) {
            0 => {
                self.tell(Event::CommitDue);
                self.perform_actions(outside);
            }
            1 | 2 => match self.commit_answer(outside) {
                None | Some(CommitOutcome::Stored | CommitOutcome::Refused) => {}
                Some(_) => drain.unsure = true,
            },
            _ if !drain.gave_up && outside.patience_ends(4) => {
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

    fn end_drain(&mut self, drain: Drain, outside: &mut Outside) {
        if !drain.gave_up && !drain.unsure {
            self.check_hand_over(&drain, outside);
        }
        self.forget(&drain.partitions);
        if outside.has(Bug::ReleasedBeforeTheLastCommit) {
            self.let_go(&drain.partitions);
        }
        match drain.member {
            Some(member) => self.give_back(&drain.partitions, member, outside),
            None => {
                let Outside { group, dice, witness, .. } = outside;
                group.leave(self.number, dice, witness);
                witness.count(Happening::Stop);
                witness.tell(|| format!("process {} has stopped in order", self.number));
                self.die(outside);
            }
        }
    }

    /// Partitions that leave in order leave nothing to be repeated.
    fn check_hand_over(&self, drain: &Drain, outside: &mut Outside) {
        for partition in &drain.partitions {
            let Some(held) = self.partitions.get(partition).filter(|held| held.held) else { continue };
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
            // A membership that is gone cannot commit, however orderly the revocation looks.
            let member = drain
                .member
                .is_none_or(|(member, _)| self.client.membership().is_some_and(|(id, _)| id == member));
            // Whoever wakes up late may hear of a position that others have passed meanwhile.
            if member && position.is_none_or(|position| position < end) {
                outside.witness.fault(format!(
                    "process {} gives partition {partition} back in order at {end}, but the position is {position:?}",
                    self.number
                ));
            }
        }
    }

    fn perform_actions(&mut self, outside: &mut Outside) {
        for action in std::mem::take(&mut self.actions) {
            match action {
                Action::Commit { token, positions } => self.commit(token, &positions, outside),
                Action::Release { .. } => {}
                Action::Fail { reason } => {
                    outside.witness.fault(format!("process {} fails: {reason}", self.number));
                }
            }
        }
    }

    fn commit(&mut self, token: CommitToken, positions: &[(Slot, i64)], outside: &mut Outside) {
        let known_lost = self.client.assignment_lost() && !outside.has(Bug::CommitOfALostPartition);
        let membership = self.client.membership().filter(|_| !known_lost);
        let Some(membership) = membership else {
            let outcomes = positions.iter().map(|(slot, _)| (*slot, CommitOutcome::MembershipLost)).collect();
            return self.tell(Event::CommitAnswered { token, outcomes });
        };
        let furthest = outside.has(Bug::PositionOfTheFurthestSpan);
        let positions: Vec<(Partition, i64)> = positions
            .iter()
            .map(|(slot, position)| {
                let partition = partition_of(*slot);
                let held = self.partitions.get(&partition).filter(|_| furthest);
                (partition, held.map_or(*position, |held| held.furthest.max(*position)))
            })
            .collect();
        self.commit_sent = Some(token);
        let number = self.number;
        outside.witness.tell(|| format!("process {number} sends a commit: {positions:?}"));
        outside.group.send_commit(self.number, membership, token, positions);
    }

    /// Looks for the answer to a commit; answers its outcome.
    fn commit_answer(&mut self, outside: &mut Outside) -> Option<CommitOutcome> {
        let token = self.commit_sent?;
        let outcome = match outside.group.fate(self.number, token) {
            CommitFate::Answered(outcome) => Some(outcome),
            CommitFate::Lost => None,
            CommitFate::Waiting if outside.patience_ends(2) => {
                outside.witness.count(Happening::LateReply);
                None
            }
            CommitFate::Waiting => return None,
        };
        self.commit_sent = None;
        let taken_for_stored = outside.has(Bug::LostCommitTakenForStored).then_some(CommitOutcome::Stored);
        let Some(outcome) = outcome.or(taken_for_stored) else {
            self.tell(Event::CommitTimedOut { token });
            return Some(CommitOutcome::Unknown);
        };
        let outcomes = self.commits.held().map(|slot| (slot, outcome.clone())).collect();
        self.tell(Event::CommitAnswered { token, outcomes });
        Some(outcome)
    }

    /// Partitions that somebody else has taken over in the sink are started anew, if they are still ours.
    fn look_at_fences(&mut self, _outside: &mut Outside) {
        for (partition, assignment) in std::mem::take(&mut self.fenced) {
            let Some(held) = self.partitions.get(&partition) else { continue };
            if held.held && Assignment(held.assignment) == assignment {
                self.let_go(&BTreeSet::from([partition]));
                self.waiting.insert(partition);
            }
        }
    }

    fn start_waiting(&mut self, outside: &mut Outside) {
        if let Some(asked) = self.asked.take() {
            return self.start_in_sink(asked, outside);
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

    fn start(
        &mut self,
        partition: Partition,
        position: i64,
        committed: Option<i64>,
        in_sink: Option<(i64, i64)>,
        outside: &mut Outside,
    ) {
        self.assignments += 1;
        let assignment = Assignment(self.assignments);
        let epoch = in_sink.map_or(0, |(epoch, _)| epoch);
        let held = Held {
            assignment: self.assignments,
            held: true,
            fetch: Some(position),
            handed_over: None,
            furthest: position,
            epoch,
        };
        self.partitions.insert(partition, held);
        self.doubtful.remove(&partition);
        let number = self.number;
        outside.witness.tell(|| format!("process {number} starts partition {partition} at {position}"));
        let slot = slot(partition);
        self.tell(Event::Assigned { slot, assignment, position, committed: committed == Some(position) });
        if let (Some(sink), Some((epoch, stored))) = (&mut self.sink, in_sink) {
            sink.started(slot, assignment, Epoch(epoch), stored, position);
        }
        let lane = partition % self.lanes.len();
        self.lanes[lane].commands.push_back(Command::Assign { partition, assignment, position });
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
