//! The model of a Kafka group.
//!
//! What matters was measured on real brokers: a commit is accepted from any current member for any partition, so long as
//! member and generation are current; ownership is not looked at. A member that was silent for too long is dropped and
//! learns it later. A client's commits are served in the order in which they were sent.

use std::collections::{BTreeSet, VecDeque};

use txconnect::delivery::{CommitOutcome, CommitToken, Note};

use crate::dice::Dice;
use crate::plan::{Plan, Protocol};
use crate::streams::Server;
use crate::truth::{Partition, Row, Truth};
use crate::witness::{Happening, Witness};

/// A member and its generation, as a request carries them.
pub(crate) type Membership = (u64, u64);

/// What the client library tells the program.
#[derive(Clone, Debug)]
pub(crate) enum ClientEvent {
    Assign(BTreeSet<Partition>),
    Revoke {
        partitions: BTreeSet<Partition>,
        /// Whether it is marked as a loss; not every loss is.
        lost: bool,
        member: u64,
        /// Whether the membership is gone.
        last: bool,
    },
}

/// The client library of one process. It goes on by itself, however busy the program is.
#[derive(Default)]
pub(crate) struct Client {
    membership: Option<Membership>,
    pub(crate) events: VecDeque<ClientEvent>,
    /// Partitions that the present membership was given.
    given: BTreeSet<Partition>,
    /// A loss that the program has not served yet, and whether it is marked as one.
    loss: Option<bool>,
    /// The program has asked to leave the group, and to join it anew as soon as everything is given back.
    rejoins: bool,
}

impl Client {
    /// What the program can ask: whether the assignment is known to be lost.
    pub(crate) fn assignment_lost(&self) -> bool {
        self.loss == Some(true)
    }

    pub(crate) fn membership(&self) -> Option<Membership> {
        self.membership
    }

    /// Leaves the group and joins it anew: everything is revoked first.
    pub(crate) fn rejoin(&mut self) {
        let Some((member, _)) = self.membership.filter(|_| !self.rejoins) else { return };
        self.rejoins = true;
        let partitions = self.given.clone();
        self.events.push_back(ClientEvent::Revoke { partitions, lost: false, member, last: true });
    }

    /// Whether the program has asked for a new membership and has none yet.
    pub(crate) fn rejoins(&self) -> bool {
        self.rejoins
    }

    /// The program has served the revocation after a loss.
    pub(crate) fn loss_served(&mut self) {
        self.loss = None;
    }
}

struct Member {
    id: u64,
    process: usize,
    generation: u64,
    target: BTreeSet<Partition>,
    owned: BTreeSet<Partition>,
    asked: BTreeSet<Partition>,
}

#[derive(Clone)]
struct Commit {
    process: usize,
    membership: Membership,
    token: CommitToken,
    positions: Vec<(Partition, i64)>,
    /// What stands beside each of them, where that matters.
    notes: Vec<String>,
    answer: Option<CommitOutcome>,
    /// The connection is gone: it may be served at any time, and nobody hears of it.
    stray: bool,
    /// Commits in the order in which they were sent.
    number: u64,
}

/// What the group has stored for a partition.
#[derive(Clone, Debug, Default)]
struct Stored {
    position: Option<i64>,
    note: Option<String>,
    /// The commit that has stored it.
    number: u64,
    /// It came late and replaced a newer one.
    overtook: bool,
    /// Another tool has set it.
    foreign: bool,
}

/// What has become of a commit that was sent.
pub(crate) enum CommitFate {
    Waiting,
    Answered(CommitOutcome),
    /// No answer will come.
    Lost,
}

pub(crate) struct Group {
    plan: Plan,
    members: Vec<Member>,
    next_member: u64,
    generation: u64,
    /// With the eager protocol: everything is being revoked.
    revoking: bool,
    committed: Vec<Stored>,
    sent: u64,
    /// Whether another tool has ever set the position of a partition.
    touched: Vec<bool>,
    commits: Vec<Commit>,
}

impl Group {
    pub(crate) fn new(plan: &Plan) -> Self {
        Self {
            plan: plan.clone(),
            members: Vec::new(),
            next_member: 0,
            generation: 0,
            revoking: false,
            committed: vec![Stored::default(); plan.partitions],
            sent: 0,
            touched: vec![false; plan.partitions],
            commits: Vec::new(),
        }
    }

    pub(crate) fn committed(&self, partition: Partition) -> Option<i64> {
        self.committed[partition].position
    }

    /// What stands beside the position.
    pub(crate) fn note(&self, partition: Partition) -> Option<&str> {
        self.committed[partition].note.as_deref()
    }

    /// Whether what is stored came late and replaced something newer.
    pub(crate) fn was_overtaken(&self, partition: Partition) -> bool {
        self.committed[partition].overtook
    }

    /// Whether what is stored was set by another tool.
    pub(crate) fn is_foreign(&self, partition: Partition) -> bool {
        self.committed[partition].foreign
    }

    /// Whether another tool has ever set the position.
    pub(crate) fn was_reset(&self, partition: Partition) -> bool {
        self.touched[partition]
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    pub(crate) fn processes(&self) -> impl Iterator<Item = usize> + '_ {
        self.members.iter().map(|member| member.process)
    }

    /// Whether a membership still counts.
    pub(crate) fn knows(&self, member: u64) -> bool {
        self.members.iter().any(|known| known.id == member)
    }

    /// The broker drops the members of a process; it is not told.
    pub(crate) fn drop_member(&mut self, process: usize, dice: &mut Dice, witness: &mut Witness) {
        let before = self.members.len();
        self.members.retain(|member| member.process != process);
        if self.members.len() < before {
            witness.count(Happening::MembershipLost);
            witness.tell(|| format!("the group drops process {process}, which was silent for too long"));
            self.rebalance(dice, witness);
        }
    }

    /// A member leaves in order.
    pub(crate) fn leave(&mut self, process: usize, dice: &mut Dice, witness: &mut Witness) {
        self.members.retain(|member| member.process != process);
        self.rebalance(dice, witness);
    }

    /// New targets for everybody.
    pub(crate) fn rebalance(&mut self, dice: &mut Dice, witness: &mut Witness) {
        self.generation += 1;
        if self.members.is_empty() {
            self.revoking = false;
            return;
        }
        witness.count(Happening::Rebalance);
        self.revoking = self.plan.eager;
        for member in &mut self.members {
            member.target.clear();
        }
        let first = dice.index(self.members.len());
        for partition in 0..self.committed.len() {
            let index = (first + partition) % self.members.len();
            self.members[index].target.insert(partition);
        }
    }

    /// The client library of a process talks to the group.
    pub(crate) fn heartbeat(
        &mut self,
        client: &mut Client,
        process: usize,
        dice: &mut Dice,
        witness: &mut Witness,
    ) {
        let Some((id, _)) = client.membership else {
            if client.loss.is_none() || (self.plan.rejoins_early && client.loss == Some(true)) {
                self.join(client, process, dice, witness);
            }
            return;
        };
        let Some(index) = self.members.iter().position(|member| member.id == id) else {
            // An early second membership would hide a loss that is not marked.
            let marked = self.plan.rejoins_early || dice.percent(70);
            let partitions = std::mem::take(&mut client.given);
            client.membership = None;
            client.rejoins = false;
            client.loss = Some(marked);
            witness.tell(|| format!("process {process} learns that it was dropped; it held {partitions:?}"));
            client.events.push_back(ClientEvent::Revoke { partitions, lost: marked, member: id, last: true });
            return;
        };
        if client.rejoins {
            return;
        }
        if self.revoking && self.members.iter().all(|member| member.owned.is_empty()) {
            self.revoking = false;
        }
        let eager = self.plan.eager;
        let taken: BTreeSet<Partition> =
            self.members.iter().flat_map(|member| member.owned.iter().copied()).collect();
        let open = !(eager
            && (self.revoking || self.members.iter().any(|member| !member.owned.is_subset(&member.target))));
        let member = &mut self.members[index];
        let goes = |partition: &&Partition| self.revoking || !member.target.contains(partition);
        let revoked: BTreeSet<Partition> =
            member.owned.iter().filter(goes).filter(|owned| !member.asked.contains(owned)).copied().collect();
        if !revoked.is_empty() {
            member.asked.extend(&revoked);
            witness.tell(|| format!("the group takes {revoked:?} back from process {process}"));
            client.events.push_back(ClientEvent::Revoke {
                partitions: revoked,
                lost: false,
                member: id,
                last: false,
            });
            return;
        }
        let gained: BTreeSet<Partition> =
            member.target.iter().filter(|target| open && !taken.contains(target)).copied().collect();
        if !member.asked.is_empty() || (gained.is_empty() && member.generation == self.generation) {
            return;
        }
        member.generation = self.generation;
        client.membership = Some((id, member.generation));
        if !gained.is_empty() {
            member.owned.extend(&gained);
            client.given.extend(&gained);
            witness.tell(|| format!("the group gives {gained:?} to process {process}"));
            client.events.push_back(ClientEvent::Assign(gained));
        }
    }

    fn join(&mut self, client: &mut Client, process: usize, dice: &mut Dice, witness: &mut Witness) {
        self.next_member += 1;
        let id = self.next_member;
        let empty = BTreeSet::new;
        self.members.push(Member {
            id,
            process,
            generation: 0,
            target: empty(),
            owned: empty(),
            asked: empty(),
        });
        self.rebalance(dice, witness);
        client.membership = Some((id, 0));
        witness.tell(|| format!("process {process} joins the group"));
    }

    /// Everything is given back: the client leaves, and joins anew when it comes to it.
    pub(crate) fn leave_to_rejoin(
        &mut self,
        client: &mut Client,
        process: usize,
        dice: &mut Dice,
        witness: &mut Witness,
    ) {
        witness.count(Happening::Rejoin);
        witness.tell(|| format!("process {process} leaves the group to join it anew"));
        self.leave(process, dice, witness);
        client.membership = None;
        client.given.clear();
        client.rejoins = false;
    }

    /// The program has given partitions back that were revoked from `member`.
    pub(crate) fn given_back(&mut self, client: &mut Client, member: u64, partitions: &BTreeSet<Partition>) {
        if client.membership.is_none_or(|(id, _)| id != member) {
            return;
        }
        client.given.retain(|given| !partitions.contains(given));
        let Some(known) = self.members.iter_mut().find(|known| known.id == member) else { return };
        known.owned.retain(|owned| !partitions.contains(owned));
        known.asked.retain(|asked| !partitions.contains(asked));
        // Whatever was committed before and has not arrived comes too late.
        self.generation += 1;
        known.generation = self.generation;
        client.membership = Some((member, self.generation));
    }

    pub(crate) fn send_commit(
        &mut self,
        process: usize,
        membership: Membership,
        token: CommitToken,
        positions: Vec<(Partition, i64)>,
        notes: Vec<String>,
    ) {
        self.sent += 1;
        let number = self.sent;
        self.commits.push(Commit {
            process,
            membership,
            token,
            positions,
            notes,
            answer: None,
            stray: false,
            number,
        });
    }

    /// Whether a commit waits for the group or for its client.
    pub(crate) fn has_commits_on_their_way(&self) -> bool {
        self.commits.iter().any(|commit| !commit.stray)
    }

    /// The client waits no longer for an answer. What was sent over a connection that is gone may be served at any time.
    pub(crate) fn give_up(&mut self, process: usize, token: CommitToken, connection_is_gone: bool) {
        let found = |commit: &&mut Commit| commit.process == process && commit.token == token;
        if let Some(commit) = self.commits.iter_mut().find(found) {
            commit.stray |= connection_is_gone;
        }
    }

    pub(crate) fn fate(&mut self, process: usize, token: CommitToken) -> CommitFate {
        let Some(index) =
            self.commits.iter().position(|commit| commit.process == process && commit.token == token)
        else {
            return CommitFate::Lost;
        };
        if self.commits[index].stray {
            return CommitFate::Lost;
        }
        match &self.commits[index].answer {
            None => CommitFate::Waiting,
            Some(outcome) => {
                let outcome = outcome.clone();
                self.commits.remove(index);
                CommitFate::Answered(outcome)
            }
        }
    }

    /// The broker serves one of the commits that wait. Answers the positions that are stored now, and before.
    pub(crate) fn serve(
        &mut self,
        dice: &mut Dice,
        truth: &mut Truth,
        server: &Server,
        witness: &mut Witness,
    ) -> Vec<(Partition, i64)> {
        // What has lost its connection comes late.
        let strays_too = self.commits.iter().any(|commit| commit.stray) && dice.percent(2);
        let may_come = |commit: &Commit| commit.answer.is_none() && (strays_too || !commit.stray);
        let waiting: Vec<usize> =
            (0..self.commits.len()).filter(|index| may_come(&self.commits[*index])).collect();
        let Some(chosen) = dice.one_of(&waiting) else { return Vec::new() };
        let Commit { process, stray, .. } = self.commits[chosen];
        let in_line = |index: &usize| self.commits[*index].process == process && !self.commits[*index].stray;
        let first = if stray { None } else { waiting.into_iter().find(in_line) }.unwrap_or(chosen);
        let rebalancing = self.members.iter().any(|member| member.generation != self.generation);
        let Commit { process, membership: (id, generation), positions, notes, number, .. } =
            self.commits[first].clone();
        let outcome = match self.members.iter().find(|member| member.id == id) {
            None => CommitOutcome::MembershipLost,
            Some(member) if member.generation != generation => CommitOutcome::Refused,
            Some(_) if rebalancing && dice.percent(30) => CommitOutcome::Refused,
            Some(_) => CommitOutcome::Stored,
        };
        witness.tell(|| {
            let late = if stray { ", whom it does not hear" } else { "" };
            format!("the group answers process {process}{late}: {positions:?} {notes:?} {outcome:?}")
        });
        if stray {
            self.commits.remove(first);
        } else {
            self.commits[first].answer = Some(outcome.clone());
        }
        if outcome != CommitOutcome::Stored {
            witness.count(Happening::CommitRefused);
            return Vec::new();
        }
        for (index, (partition, position)) in positions.iter().enumerate() {
            let stored = &mut self.committed[*partition];
            let before = stored.position;
            let overtook = number < stored.number;
            let note = notes.get(index).cloned();
            *stored = Stored { position: Some(*position), note, number, overtook, foreign: false };
            if overtook {
                witness.count(Happening::CommitOvertaken);
                witness.tell(|| format!("a late commit of partition {partition} replaces a newer one"));
            }
            let range = (before.unwrap_or(0).min(*position), *position);
            match self.plan.protocol {
                Protocol::AtLeastOnce => {
                    if before.is_some_and(|before| *position < before) {
                        witness.fault(format!(
                            "process {process} sets the group's position of partition {partition} back from {before:?} to \
                             {position}"
                        ));
                    }
                    truth.passed(*partition, range, Some(process), "the group's", witness);
                }
                Protocol::OffsetsInSink => {}
                Protocol::TwoPhase => {
                    let note = notes.get(index).map(|text| Note::read(text));
                    let Some(Ok(Note::Streams(note))) = note else {
                        witness.fault(format!("process {process} commits what it cannot read: {note:?}"));
                        continue;
                    };
                    let rows: Vec<Option<&[Row]>> = note
                        .streams
                        .iter()
                        .map(|counted| server.rows(&counted.stream, counted.end))
                        .collect();
                    if !overtook && rows.iter().all(Option::is_some) {
                        let rows: Vec<&[Row]> = rows.into_iter().flatten().collect();
                        truth.counted_in_streams(*partition, range, &rows, process, witness);
                    }
                    truth.count(*partition, *position);
                }
            }
        }
        positions
    }

    /// A commit that waits, or an answer, is lost.
    pub(crate) fn lose(&mut self, dice: &mut Dice, witness: &mut Witness) {
        if self.commits.is_empty() {
            return;
        }
        let mut index = dice.index(self.commits.len());
        let unserved = |commit: &Commit| commit.answer.is_none() && !commit.stray;
        if let Some(waiting) = self.commits.iter().position(unserved)
            && self.plan.protocol == Protocol::TwoPhase
        {
            index = waiting;
        }
        if self.commits[index].stray {
            return;
        }
        if self.plan.protocol == Protocol::TwoPhase && dice.percent(80) {
            let commit = &mut self.commits[index];
            witness.count(Happening::LostReply);
            witness.tell(|| format!("the connection with a commit of process {} is gone", commit.process));
            commit.stray = true;
            return;
        }
        let commit = self.commits.remove(index);
        witness.count(Happening::LostReply);
        witness.tell(|| match commit.answer {
            None => format!("a commit of process {} is lost", commit.process),
            Some(_) => format!("the answer to a commit of process {} is lost", commit.process),
        });
    }

    /// Another tool sets a position.
    pub(crate) fn reset(
        &mut self,
        partition: Partition,
        position: Option<i64>,
        note: Option<&str>,
        witness: &mut Witness,
    ) {
        witness.count(Happening::ForeignReset);
        witness.tell(|| {
            format!("another tool sets the group's position of partition {partition} to {position:?}")
        });
        self.sent += 1;
        let note = note.map(str::to_owned);
        let foreign = position.is_some();
        self.committed[partition] = Stored { position, note, number: self.sent, overtook: false, foreign };
        self.touched[partition] = true;
    }

    /// `txconnect offsets reset` sets a position. The group has no members.
    pub(crate) fn move_by_hand(&mut self, partition: Partition, position: i64, note: &str) {
        self.sent += 1;
        let note = Some(note.to_owned());
        self.committed[partition] =
            Stored { position: Some(position), note, number: self.sent, overtook: false, foreign: false };
        self.touched[partition] = true;
    }
}
