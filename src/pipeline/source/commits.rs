//! Commits: asked for by the delivery machine, sent and answered here.

use std::time::{Duration, Instant};

use txconnect_kafka::{CommitErrorKind, CommitPosition};

use super::Source;
use crate::delivery::{Action, CommitOutcome, CommitToken, Event, GROUP_NOTE, Slot};
use crate::pipeline::shared::Failure;

/// How long an answer to a commit is waited for before it is taken for unknown.
const COMMIT_DEADLINE: Duration = Duration::from_secs(30);

impl Source {
    pub(super) fn commit_timer(&mut self) {
        let now = Instant::now();
        if let Some((token, sent)) = self.timers.commit_sent
            && now.duration_since(sent) > COMMIT_DEADLINE
        {
            self.timers.commit_sent = None;
            self.shared.tell(Event::CommitTimedOut { token });
        }
        if now >= self.timers.commit {
            self.timers.commit = now + self.pipeline.source.commit_interval.0;
            self.shared.tell(Event::CommitDue);
        }
    }

    pub(super) fn perform_actions(&mut self) -> Result<(), Failure> {
        for action in self.shared.actions() {
            match action {
                Action::Commit { token, positions } => self.commit(token, &positions),
                // `drain` sees it by asking the machine.
                Action::Release { .. } => {}
                Action::Fail { reason } => return Err(Failure::fatal(reason, None)),
            }
        }
        Ok(())
    }

    fn commit(&mut self, token: CommitToken, positions: &[(Slot, i64)]) {
        if self.consumer.assignment_lost() {
            // The revocation is on its way. A commit may come after this process has joined again, and be taken.
            let outcomes = positions.iter().map(|(slot, _)| (*slot, CommitOutcome::MembershipLost)).collect();
            return self.shared.tell(Event::CommitAnswered { token, outcomes });
        }
        let wanted: Vec<CommitPosition> = positions
            .iter()
            .map(|(slot, next_offset)| CommitPosition {
                partition: self.slots[slot.0 as usize].partition.clone(),
                next_offset: *next_offset,
                metadata: self.offsets.is_some().then(|| GROUP_NOTE.to_owned()),
            })
            .collect();
        match self.consumer.commit(token.0, &wanted) {
            Ok(()) => self.timers.commit_sent = Some((token, Instant::now())),
            Err(error) => {
                tracing::warn!(pipeline = %self.shared.name, "committing: {error}");
                let outcomes = positions.iter().map(|(slot, _)| (*slot, CommitOutcome::Refused)).collect();
                self.shared.tell(Event::CommitAnswered { token, outcomes });
            }
        }
    }

    pub(super) fn commit_answers(&mut self, wait: Duration) {
        if self.timers.commit_sent.is_none() {
            return;
        }
        let Some(answer) = self.consumer.commit_answer(wait) else { return };
        self.timers.commit_sent = None;
        let outcomes = answer
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
        self.shared.tell(Event::CommitAnswered { token: CommitToken(answer.token), outcomes });
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
