//! The model of PostgreSQL: sessions, transactions, row locks, a table of positions.
//!
//! What a client sends arrives in order and is executed at a later moment, whether or not the client still lives. A
//! transaction is visible as a whole once it has committed. A session whose client is gone ends when the server notices.

use std::collections::{BTreeMap, VecDeque};

use crate::dice::Dice;
use crate::plan::Plan;
use crate::planted::Bug;
use crate::truth::{Kind, Partition, Row, Truth};
use crate::witness::{Happening, Witness};

pub(crate) type SessionId = u64;

/// Moves a position, if epoch and position are as expected.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Advance {
    pub(crate) partition: Partition,
    pub(crate) epoch: i64,
    pub(crate) from: i64,
    pub(crate) to: i64,
}

/// What a client sends.
#[derive(Clone, Debug)]
pub(crate) enum Statement {
    Rows(Vec<Row>),
    Advance(Vec<Advance>),
    Commit,
    /// A transaction of its own. Partitions in order, with the position to begin with.
    TakeOver(Vec<Partition>),
}

/// What a client gets. One answer stands for a whole flight of statements.
#[derive(Clone, Debug)]
pub(crate) enum Reply {
    RowsIn,
    Refused(Vec<Row>),
    Committed,
    Fenced(Vec<Partition>),
    /// Epoch and position of each partition.
    Taken(Vec<(Partition, i64, i64)>),
}

/// How a client's question stands.
pub(crate) enum Answer {
    Waiting,
    Reply(Reply),
    /// The connection is gone.
    Gone,
}

#[derive(Default)]
struct Session {
    process: usize,
    connected: bool,
    inbox: VecDeque<Statement>,
    /// Written by the client, and still in its own buffers.
    unsent: VecDeque<Statement>,
    reply: Option<Reply>,
    rows: Vec<Row>,
    locks: Vec<Partition>,
    moves: Vec<Advance>,
    failed: Option<Reply>,
    blocked_by: Option<SessionId>,
}

#[derive(Clone, Copy, Debug)]
struct Stored {
    next: i64,
    epoch: i64,
    /// A hand has set the position, and nobody has taken the partition over since.
    edited: bool,
}

pub(crate) struct Database {
    unique: bool,
    /// What is left out, with a planted bug.
    bug: Option<Bug>,
    pub(crate) down: bool,
    positions: Vec<Option<Stored>>,
    /// Whether a hand has ever set the position of a partition.
    touched: Vec<bool>,
    locks: Vec<Option<SessionId>>,
    sessions: BTreeMap<SessionId, Session>,
    next: SessionId,
}

impl Database {
    pub(crate) fn new(plan: &Plan) -> Self {
        Self {
            unique: plan.unique,
            bug: plan.bug,
            down: false,
            positions: vec![None; plan.partitions],
            touched: vec![false; plan.partitions],
            locks: vec![None; plan.partitions],
            sessions: BTreeMap::new(),
            next: 0,
        }
    }

    /// Epoch and position of a partition.
    pub(crate) fn position(&self, partition: Partition) -> Option<(i64, i64)> {
        self.positions[partition].map(|stored| (stored.epoch, stored.next))
    }

    /// Whether a hand has set the position since the partition was taken over.
    pub(crate) fn is_edited(&self, partition: Partition) -> bool {
        self.positions[partition].is_some_and(|stored| stored.edited)
    }

    /// Whether a hand has ever set the position.
    pub(crate) fn was_edited(&self, partition: Partition) -> bool {
        self.touched[partition]
    }

    /// Of these moves the ones that would not go through, as a plain SELECT shows them.
    pub(crate) fn missed(&self, moves: &[Advance]) -> Vec<Partition> {
        moves.iter().filter(|moved| !self.matches(moved)).map(|moved| moved.partition).collect()
    }

    /// Opens a session and sends its first statements; `None` while the database is down.
    pub(crate) fn open(&mut self, process: usize, statements: Vec<Statement>) -> Option<SessionId> {
        if self.down {
            return None;
        }
        self.next += 1;
        let session = Session { process, connected: true, inbox: statements.into(), ..Session::default() };
        self.sessions.insert(self.next, session);
        Some(self.next)
    }

    /// Sends more statements. The last `late` of them stay in the client's buffers for now.
    pub(crate) fn send(&mut self, id: SessionId, mut statements: VecDeque<Statement>, late: usize) {
        let Some(session) = self.sessions.get_mut(&id).filter(|session| session.connected) else { return };
        session.unsent = statements.split_off(statements.len() - late);
        session.inbox.append(&mut statements);
    }

    /// A client that runs empties its buffers.
    pub(crate) fn flush_buffers(&mut self, process: usize) {
        for session in self.sessions.values_mut().filter(|session| session.process == process) {
            let mut unsent = std::mem::take(&mut session.unsent);
            session.inbox.append(&mut unsent);
        }
    }

    pub(crate) fn answer(&mut self, id: SessionId) -> Answer {
        match self.sessions.get_mut(&id).filter(|session| session.connected) {
            None => Answer::Gone,
            Some(session) => session.reply.take().map_or(Answer::Waiting, Answer::Reply),
        }
    }

    /// The client closes its session, or its connection breaks; what has arrived may still be executed.
    pub(crate) fn close(&mut self, id: SessionId) {
        if let Some(session) = self.sessions.get_mut(&id) {
            session.connected = false;
            session.unsent.clear();
        }
    }

    /// A process dies with all its connections.
    pub(crate) fn close_all_of(&mut self, process: usize) -> bool {
        let mut in_commit = false;
        for session in self.sessions.values_mut().filter(|session| session.process == process) {
            in_commit |= session.inbox.iter().any(|statement| matches!(statement, Statement::Commit));
            session.connected = false;
            session.unsent.clear();
        }
        in_commit
    }

    /// A connection breaks, and some of what was on its way is lost.
    pub(crate) fn cut(&mut self, dice: &mut Dice, witness: &mut Witness) {
        let connected: Vec<SessionId> =
            self.sessions.iter().filter(|(_, session)| session.connected).map(|(id, _)| *id).collect();
        let Some(id) = dice.one_of(&connected) else { return };
        self.close(id);
        if let Some(session) = self.sessions.get_mut(&id) {
            let kept = dice.index(session.inbox.len() + 1);
            witness.count(Happening::Cut);
            witness.tell(|| {
                format!(
                    "connection {id} of process {} is cut; {kept} of {} statements arrive",
                    session.process,
                    session.inbox.len()
                )
            });
            session.inbox.truncate(kept);
        }
    }

    /// Every session ends; what has not committed is rolled back.
    pub(crate) fn restart(&mut self, witness: &mut Witness) {
        witness.count(Happening::DatabaseRestart);
        witness.tell(|| "the database restarts".to_owned());
        self.sessions.clear();
        self.locks.fill(None);
    }

    /// Who keeps a session waiting, if it is a session that itself waits for its client.
    pub(crate) fn stopped_blocker(&self, id: SessionId) -> Option<SessionId> {
        let blocker = self.sessions.get(&id)?.blocked_by?;
        self.sessions.get(&blocker)?.inbox.is_empty().then_some(blocker)
    }

    /// `pg_terminate_backend`.
    pub(crate) fn terminate(&mut self, id: SessionId, witness: &mut Witness) {
        witness.count(Happening::Terminated);
        witness.tell(|| format!("connection {id} is ended: its client does not go on"));
        self.end(id);
    }

    /// Somebody edits a position by hand, where nobody has it locked. Answers the position before.
    pub(crate) fn edit(
        &mut self,
        partition: Partition,
        dice: &mut Dice,
        witness: &mut Witness,
    ) -> Option<(i64, i64)> {
        let stored = self.positions[partition].as_mut()?;
        if self.locks[partition].is_some() || stored.next == 0 {
            return None;
        }
        let before = stored.next;
        stored.next = i64::try_from(dice.index(usize::try_from(before).unwrap())).unwrap();
        stored.edited = true;
        self.touched[partition] = true;
        let after = stored.next;
        witness.count(Happening::HandEdit);
        witness.tell(|| {
            format!("a hand sets the sink's position of partition {partition} from {before} to {after}")
        });
        Some((after, before))
    }

    /// The server executes one statement of some session, or notices that its client is gone.
    pub(crate) fn serve(&mut self, dice: &mut Dice, truth: &mut Truth, witness: &mut Witness) {
        if self.sessions.is_empty() || self.down {
            return;
        }
        let chosen = dice.index(self.sessions.len());
        let Some(id) = self.sessions.keys().nth(chosen).copied() else { return };
        let Some(session) = self.sessions.get_mut(&id) else { return };
        let Some(statement) = session.inbox.front().cloned() else {
            if !session.connected {
                self.end(id);
            }
            return;
        };
        session.blocked_by = None;
        let blocker = match &statement {
            Statement::Rows(rows) => self.rows(id, rows, truth, witness),
            Statement::Advance(moves) => self.advance(id, moves),
            Statement::Commit => {
                self.commit(id, truth, witness);
                None
            }
            Statement::TakeOver(partitions) => self.take_over(id, partitions, witness),
        };
        let Some(session) = self.sessions.get_mut(&id) else { return };
        if blocker.is_some() {
            witness.count(Happening::LockWait);
            session.blocked_by = blocker;
        } else {
            session.inbox.pop_front();
        }
    }

    fn rows(
        &mut self,
        id: SessionId,
        rows: &[Row],
        truth: &Truth,
        witness: &mut Witness,
    ) -> Option<SessionId> {
        let mut refused: Vec<Row> = rows.iter().filter(|row| row.kind == Kind::Refused).copied().collect();
        if self.unique && refused.is_empty() {
            let key = |row: &Row| (row.place, row.number);
            let holds = |other: &Session| {
                rows.iter().any(|row| other.rows.iter().any(|other| key(other) == key(row)))
            };
            let holder = self.sessions.iter().find(|(other, session)| **other != id && holds(session));
            if let Some((holder, _)) = holder {
                return Some(*holder);
            }
            if let Some(twice) = rows.iter().find(|row| truth.holds_key_of(row)) {
                witness.count(Happening::KeyTaken);
                witness.tell(|| format!("the key of {twice:?} is in the table already"));
                refused.push(*twice);
            }
        }
        let session = self.sessions.get_mut(&id)?;
        if refused.is_empty() {
            session.rows.extend_from_slice(rows);
            session.reply = Some(Reply::RowsIn);
        } else {
            witness.count(Happening::Rejected);
            session.failed = Some(Reply::Refused(refused.clone()));
            session.reply = Some(Reply::Refused(refused));
        }
        None
    }

    /// Locks the rows one after the other; answers who holds the next one.
    fn lock(&mut self, id: SessionId, partitions: impl Iterator<Item = Partition>) -> Option<SessionId> {
        let mut sorted: Vec<Partition> = partitions.collect();
        sorted.sort_unstable();
        for partition in sorted {
            match self.locks[partition] {
                Some(holder) if holder != id => return Some(holder),
                Some(_) => {}
                None => {
                    self.locks[partition] = Some(id);
                    self.sessions.get_mut(&id)?.locks.push(partition);
                }
            }
        }
        None
    }

    fn advance(&mut self, id: SessionId, moves: &[Advance]) -> Option<SessionId> {
        if self.sessions.get(&id)?.failed.is_some() {
            return None;
        }
        if let Some(holder) = self.lock(id, moves.iter().map(|moved| moved.partition)) {
            return Some(holder);
        }
        let missed = self.missed(moves);
        let session = self.sessions.get_mut(&id)?;
        if missed.is_empty() {
            session.moves.extend_from_slice(moves);
        } else {
            session.failed = Some(Reply::Fenced(missed));
        }
        None
    }

    fn matches(&self, moved: &Advance) -> bool {
        let any_epoch = self.bug == Some(Bug::NoEpoch);
        let unchecked = [Bug::NoExpectedPosition, Bug::DoubtTakenForFailure, Bug::PlainSelectInDoubt];
        let any_position = self.bug.is_some_and(|bug| unchecked.contains(&bug));
        self.positions[moved.partition].is_some_and(|stored| {
            (any_epoch || stored.epoch == moved.epoch) && (any_position || stored.next == moved.from)
        })
    }

    fn commit(&mut self, id: SessionId, truth: &mut Truth, witness: &mut Witness) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        let rows = std::mem::take(&mut session.rows);
        let moves = std::mem::take(&mut session.moves);
        let failed = session.failed.take();
        let process = session.process;
        session.reply = Some(failed.clone().unwrap_or(Reply::Committed));
        self.release(id);
        if let Some(failed) = failed {
            witness.tell(|| format!("the transaction of process {process} is rolled back: {failed:?}"));
            return;
        }
        witness.tell(|| format!("process {process} commits {} rows, moves {moves:?}", rows.len()));
        for row in &rows {
            truth.store_row(*row, witness);
        }
        for moved in moves {
            let Some(stored) = &mut self.positions[moved.partition] else { continue };
            let first = stored.next.min(moved.to);
            stored.next = moved.to;
            truth.passed(moved.partition, (first, moved.to), Some(process), "the sink's", witness);
        }
    }

    fn take_over(
        &mut self,
        id: SessionId,
        partitions: &[Partition],
        witness: &mut Witness,
    ) -> Option<SessionId> {
        if self.bug != Some(Bug::TakeOverDoesNotWait)
            && let Some(holder) = self.lock(id, partitions.iter().copied())
        {
            return Some(holder);
        }
        let mut taken = Vec::with_capacity(partitions.len());
        for partition in partitions {
            let stored =
                self.positions[*partition].get_or_insert(Stored { next: 0, epoch: 0, edited: false });
            stored.epoch += 1;
            stored.edited = false;
            taken.push((*partition, stored.epoch, stored.next));
        }
        let session = self.sessions.get_mut(&id)?;
        witness.count(Happening::TakeOver);
        witness.tell(|| {
            format!("process {} takes over: {taken:?} (partition, epoch, position)", session.process)
        });
        session.reply = Some(Reply::Taken(taken));
        self.release(id);
        None
    }

    fn release(&mut self, id: SessionId) {
        if let Some(session) = self.sessions.get_mut(&id) {
            session.locks.clear();
        }
        for lock in self.locks.iter_mut().filter(|lock| **lock == Some(id)) {
            *lock = None;
        }
    }

    fn end(&mut self, id: SessionId) {
        self.release(id);
        self.sessions.remove(&id);
    }
}
