//! The memory of `insertId`s: best effort, about a minute, as BigQuery describes it.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

/// How long an id is remembered, in milliseconds.
const MEMORY_MS: u64 = 60_000;
/// The most ids a table remembers; the oldest go first. De-duplication is best effort anyway, memory is not.
const MOST: usize = 1_000_000;

/// The ids a table has seen in the last minute.
#[derive(Debug, Default)]
pub(crate) struct InsertIds {
    known: HashSet<Arc<str>>,
    by_age: VecDeque<(u64, Arc<str>)>,
}

impl InsertIds {
    /// Remembers an id. `false`: it was seen less than a minute ago, so its row is a repetition.
    pub(crate) fn remember(&mut self, id: &str, now_ms: u64) -> bool {
        self.forget_old(now_ms);
        if self.known.contains(id) {
            return false;
        }
        let id: Arc<str> = id.into();
        self.known.insert(Arc::clone(&id));
        self.by_age.push_back((now_ms, id));
        true
    }

    fn forget_old(&mut self, now_ms: u64) {
        while let Some((seen, id)) = self.by_age.front() {
            if now_ms.saturating_sub(*seen) < MEMORY_MS && self.by_age.len() < MOST {
                break;
            }
            self.known.remove(id);
            self.by_age.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_remembered_for_a_minute_and_then_forgotten() {
        let mut ids = InsertIds::default();
        assert!(ids.remember("a", 1000));
        assert!(!ids.remember("a", 1000 + MEMORY_MS - 1));
        assert!(ids.remember("a", 1000 + MEMORY_MS));
        assert!(ids.remember("b", 1000 + MEMORY_MS));
    }

    #[test]
    fn the_memory_is_bounded() {
        let mut ids = InsertIds::default();
        for id in 0..=MOST {
            ids.remember(&id.to_string(), 5);
        }
        assert!(ids.by_age.len() <= MOST && ids.known.len() == ids.by_age.len());
    }
}
