//! Commits: asked for by the delivery machine, sent and answered here.

use std::time::{Duration, Instant};

use txconnect_kafka::{CommitErrorKind, CommitPosition, CommittedMetadata};

use super::{SentCommit, Source};
use crate::delivery::note::MAX_NOTE_BYTES;
use crate::delivery::{Action, CommitOutcome, CommitToken, Event, Slot};
use crate::pipeline::shared::Failure;

/// How long an answer to a commit is waited for before it is taken for unknown.
const COMMIT_DEADLINE: Duration = Duration::from_secs(30);
/// How often the group is asked what it has stored, and how long it may take to answer.
const LOOK_UP: Duration = Duration::from_secs(1);

/// A commit that may or may not be stored. Nothing more is committed before the group has said which.
pub(super) struct Lookup {
    token: CommitToken,
    /// What is known of the other partitions.
    outcomes: Vec<(Slot, CommitOutcome)>,
    doubtful: Vec<Slot>,
    due: Instant,
}

impl Source {
    pub(super) fn commit_timer(&mut self) {
        let now = Instant::now();
        if let Some(late) = self.timers.commit_sent.take_if(|commit| now - commit.sent > COMMIT_DEADLINE) {
            if self.shared.looks_up_commits() {
                self.doubt(late.token, Vec::new(), late.slots);
            } else {
                self.shared.tell(Event::CommitTimedOut { token: late.token });
            }
        }
        if now >= self.timers.commit {
            self.timers.commit = now + self.pipeline.source.commit_interval.0;
            self.shared.tell(Event::CommitDue);
        }
    }

    pub(super) fn perform_actions(&mut self) -> Result<(), Failure> {
        for action in self.shared.actions() {
            match action {
                Action::Commit { token, positions } => self.commit(token, &positions)?,
                // `drain` sees it by asking the machine.
                Action::Release { .. } => {}
                Action::Fail { reason } => return Err(Failure::fatal(reason, None)),
            }
        }
        Ok(())
    }

    fn commit(&mut self, token: CommitToken, positions: &[(Slot, i64)]) -> Result<(), Failure> {
        let all =
            |outcome: CommitOutcome| positions.iter().map(|(slot, _)| (*slot, outcome.clone())).collect();
        if self.consumer.assignment_lost() {
            // The revocation is on its way. A commit may come after this process has joined again, and be taken.
            let outcomes = all(CommitOutcome::MembershipLost);
            self.shared.tell(Event::CommitAnswered { token, outcomes });
            return Ok(());
        }
        let mut wanted = Vec::with_capacity(positions.len());
        let mut slots = Vec::with_capacity(positions.len());
        for (slot, next_offset) in positions {
            let partition = self.slots[slot.0 as usize].partition.clone();
            // Partitions without a note are not ours any more; the answer finds them gone.
            let Some(note) = self.shared.note(token, *slot, *next_offset) else { continue };
            if note.len() > MAX_NOTE_BYTES {
                return Err(Failure::fatal(
                    format!(
                        "{partition}: its rows are in so many streams that a commit cannot name them ({} bytes, {MAX_NOTE_BYTES} \
                         are possible)",
                        note.len()
                    ),
                    Some("let the records of one partition go to fewer tables, or use `delivery: at_least_once`".to_owned()),
                ));
            }
            wanted.push(CommitPosition { partition, next_offset: *next_offset, metadata: Some(note) });
            slots.push(*slot);
        }
        if wanted.is_empty() {
            self.shared.tell(Event::CommitAnswered { token, outcomes: all(CommitOutcome::Refused) });
            return Ok(());
        }
        match self.consumer.commit(token.0, &wanted) {
            Ok(()) => self.timers.commit_sent = Some(SentCommit { token, sent: Instant::now(), slots }),
            Err(error) => {
                tracing::warn!(pipeline = %self.shared.name, "committing: {error}");
                let outcomes = all(CommitOutcome::Refused);
                self.shared.tell(Event::CommitAnswered { token, outcomes });
            }
        }
        Ok(())
    }

    /// An answer is missing for some partitions: the group is asked before anything more is committed. A commit that is
    /// only late would otherwise overtake a later one.
    fn doubt(&mut self, token: CommitToken, outcomes: Vec<(Slot, CommitOutcome)>, doubtful: Vec<Slot>) {
        self.lookup = Some(Lookup { token, outcomes, doubtful, due: Instant::now() });
    }

    fn look_up(&mut self) {
        let now = Instant::now();
        let Some(mut lookup) = self.lookup.take_if(|lookup| lookup.due <= now) else { return };
        let doubtful: Vec<_> =
            lookup.doubtful.iter().map(|slot| self.slots[slot.0 as usize].partition.clone()).collect();
        match self.consumer.committed(&doubtful, LOOK_UP) {
            Ok(found) => {
                for (slot, committed) in lookup.doubtful.iter().zip(found) {
                    let stored = match (committed.offset, &committed.metadata) {
                        (Some(offset), CommittedMetadata::Text(note)) => Some((offset, note.as_str())),
                        _ => None,
                    };
                    let outcome = self.shared.looked_up(lookup.token, *slot, stored);
                    if outcome != CommitOutcome::Stored {
                        tracing::warn!(
                            pipeline = %self.shared.name,
                            "{}: a commit was not answered and is not stored; going on from the position before it",
                            committed.partition
                        );
                    }
                    lookup.outcomes.push((*slot, outcome));
                }
                self.shared.tell(Event::CommitAnswered { token: lookup.token, outcomes: lookup.outcomes });
                self.book_positions();
            }
            Err(error) => {
                tracing::debug!(pipeline = %self.shared.name, "looking up a commit: {error}");
                lookup.due = Instant::now() + LOOK_UP;
                self.lookup = Some(lookup);
            }
        }
    }

    pub(super) fn commit_answers(&mut self, wait: Duration) {
        self.look_up();
        if self.timers.commit_sent.is_none() {
            return;
        }
        let Some(answer) = self.consumer.commit_answer(wait) else { return };
        let token = CommitToken(answer.token);
        if self.timers.commit_sent.take_if(|commit| commit.token == token).is_none() {
            // It was waited for too long, and was looked up instead.
            return;
        }
        let outcomes: Vec<(Slot, CommitOutcome)> = answer
            .results
            .into_iter()
            .filter_map(|(partition, result)| {
                let slot = *self.by_partition.get(&partition)?;
                let outcome = match result {
                    Ok(()) => CommitOutcome::Stored,
                    Err(error) => {
                        tracing::debug!(pipeline = %self.shared.name, "{partition}: {error}");
                        match error.kind {
                            CommitErrorKind::Retry => CommitOutcome::Refused,
                            CommitErrorKind::MembershipLost => CommitOutcome::MembershipLost,
                            CommitErrorKind::Unknown => CommitOutcome::Unknown,
                            CommitErrorKind::Permanent | CommitErrorKind::Fatal => {
                                CommitOutcome::Impossible(format!("{partition}: {error}"))
                            }
                        }
                    }
                };
                Some((slot, outcome))
            })
            .collect();
        let is_doubtful = |outcome: &CommitOutcome| *outcome == CommitOutcome::Unknown;
        if self.shared.looks_up_commits() && outcomes.iter().any(|(_, outcome)| is_doubtful(outcome)) {
            let (doubtful, known): (Vec<_>, Vec<_>) =
                outcomes.into_iter().partition(|(_, outcome)| is_doubtful(outcome));
            let doubtful = doubtful.into_iter().map(|(slot, _)| slot).collect();
            return self.doubt(token, known, doubtful);
        }
        self.shared.tell(Event::CommitAnswered { token, outcomes });
        self.book_positions();
    }

    fn book_positions(&self) {
        if self.offsets.is_some() {
            // The group's position only follows the sink's.
            return;
        }
        for slot in self.shared.held() {
            if let Some(position) = self.shared.ask(|machine| machine.committed(slot)) {
                self.shared.books.committed(slot, position);
            }
        }
    }
}
