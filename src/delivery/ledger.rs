//! What is in flight in one partition, and how far it is finished without a gap.

use std::collections::VecDeque;

/// Spans of one partition in the order they were handed over; they finish in any order.
///
/// The position that may be committed is the end of the contiguous finished prefix: a span that finished
/// early waits for those before it.
#[derive(Debug, Clone)]
pub struct Ledger {
    start: i64,
    finished: i64,
    taken: i64,
    open: VecDeque<OpenSpan>,
}

#[derive(Debug, Clone, Copy)]
struct OpenSpan {
    first: i64,
    next: i64,
    done: bool,
}

/// A span that does not fit what the ledger knows: an error of the caller that must stop the pipeline, since
/// going on could lose a record.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LedgerError {
    /// Spans follow one another without a gap.
    #[error("a span starts at offset {first}, but {expected} is the next offset to hand over")]
    NotContiguous {
        /// Where the span starts.
        first: i64,
        /// Where it would have to start.
        expected: i64,
    },
    /// A span holds at least one offset.
    #[error("a span from offset {first} to {next} covers nothing")]
    Empty {
        /// Where the span starts.
        first: i64,
        /// The offset after it.
        next: i64,
    },
    /// Only a span that is in flight can finish, and only once.
    #[error("no span from offset {first} to {next} is in flight")]
    NotInFlight {
        /// Where the span starts.
        first: i64,
        /// The offset after it.
        next: i64,
    },
}

impl Ledger {
    /// A ledger for a partition that is read from `position` on.
    pub fn starting_at(position: i64) -> Self {
        Self { start: position, finished: position, taken: position, open: VecDeque::new() }
    }

    /// Notes that the offsets `first..next` are on their way to the sink.
    ///
    /// # Errors
    /// When the span is empty or does not start where the one before it ended. The ledger is unchanged then.
    pub fn hand_over(&mut self, first: i64, next: i64) -> Result<(), LedgerError> {
        if next <= first {
            return Err(LedgerError::Empty { first, next });
        }
        if first != self.taken {
            return Err(LedgerError::NotContiguous { first, expected: self.taken });
        }
        self.taken = next;
        self.open.push_back(OpenSpan { first, next, done: false });
        Ok(())
    }

    /// Notes that every record of `first..next` is durable in the sink, confirmed as a dead letter or filtered.
    ///
    /// # Errors
    /// When no such span is in flight. The ledger is unchanged then.
    pub fn finish(&mut self, first: i64, next: i64) -> Result<(), LedgerError> {
        let index = self.open.partition_point(|span| span.first < first);
        match self.open.get_mut(index) {
            Some(span) if span.first == first && span.next == next && !span.done => span.done = true,
            _ => return Err(LedgerError::NotInFlight { first, next }),
        }
        while let Some(span) = self.open.front().filter(|span| span.done) {
            self.finished = span.next;
            self.open.pop_front();
        }
        Ok(())
    }

    /// The position that may be committed: everything below it is finished.
    pub fn finished(&self) -> i64 {
        self.finished
    }

    /// Where reading began.
    pub fn start(&self) -> i64 {
        self.start
    }

    /// Gives up what is in flight: only the finished prefix counts from here on.
    pub fn give_up(&mut self) {
        self.open.clear();
        self.taken = self.finished;
    }

    /// The offset after everything handed over so far.
    pub fn taken(&self) -> i64 {
        self.taken
    }

    /// Whether nothing handed over is still on its way.
    pub fn is_idle(&self) -> bool {
        self.finished == self.taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_span_that_finishes_early_waits_for_those_before_it() {
        let mut ledger = Ledger::starting_at(10);
        ledger.hand_over(10, 15).unwrap();
        ledger.hand_over(15, 16).unwrap();
        ledger.hand_over(16, 30).unwrap();
        ledger.finish(15, 16).unwrap();
        assert_eq!(ledger.finished(), 10);
        ledger.finish(10, 15).unwrap();
        assert_eq!(ledger.finished(), 16);
        assert!(!ledger.is_idle());
        ledger.finish(16, 30).unwrap();
        assert_eq!((ledger.finished(), ledger.is_idle()), (30, true));
    }

    #[test]
    fn spans_that_do_not_fit_are_refused_and_change_nothing() {
        let mut ledger = Ledger::starting_at(0);
        ledger.hand_over(0, 5).unwrap();
        assert_eq!(ledger.hand_over(6, 9), Err(LedgerError::NotContiguous { first: 6, expected: 5 }));
        assert_eq!(ledger.hand_over(5, 5), Err(LedgerError::Empty { first: 5, next: 5 }));
        assert_eq!(ledger.finish(0, 4), Err(LedgerError::NotInFlight { first: 0, next: 4 }));
        ledger.hand_over(5, 6).unwrap();
        ledger.finish(5, 6).unwrap();
        assert_eq!(ledger.finish(5, 6), Err(LedgerError::NotInFlight { first: 5, next: 6 }));
        assert_eq!((ledger.finished(), ledger.taken()), (0, 6));
    }

    proptest! {
        /// The model: a set of finished offsets, and the first one that is missing.
        #[test]
        fn the_finished_position_is_the_first_unfinished_offset(
            start in -5_i64..1000,
            lengths in prop::collection::vec(1_i64..9, 0..40),
            order in prop::collection::vec(any::<prop::sample::Index>(), 0..40),
        ) {
            let mut ledger = Ledger::starting_at(start);
            let mut waiting = Vec::new();
            let mut next = start;
            for length in &lengths {
                ledger.hand_over(next, next + length).unwrap();
                waiting.push((next, next + length));
                next += length;
            }
            for index in order {
                if waiting.is_empty() {
                    break;
                }
                let (first, end) = waiting.remove(index.index(waiting.len()));
                ledger.finish(first, end).unwrap();
                let expected = waiting.iter().map(|span| span.0).min().unwrap_or(next);
                prop_assert_eq!(ledger.finished(), expected);
                prop_assert_eq!(ledger.is_idle(), waiting.is_empty());
                prop_assert_eq!(ledger.taken(), next);
            }
        }
    }
}
