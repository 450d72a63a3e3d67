//! Finished queries, so that their results can be read page by page.

use std::collections::{BTreeMap, VecDeque};

use super::TableName;

/// The most finished queries that are kept; the oldest go first.
const MOST: usize = 1_000;

/// A finished query: what it answered with, read from the table again for each page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Job {
    pub(crate) table: TableName,
    pub(crate) result: Answer,
}

/// What a query answers with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    /// The table's first rows, as many as there were (changes by key may have moved them since).
    Rows(usize),
    /// One row with the count under a name.
    Count { name: String, rows: u64 },
}

/// The finished queries by job id.
#[derive(Debug, Default)]
pub(crate) struct Jobs {
    by_id: BTreeMap<String, Job>,
    by_age: VecDeque<String>,
    made: u64,
}

impl Jobs {
    /// Keeps a finished query under the id its caller chose, or under a new one. `None`: the id is taken.
    pub(crate) fn keep(&mut self, id: Option<&str>, job: Job) -> Option<String> {
        self.made += 1;
        let id = id.map_or_else(|| format!("job_{:08}", self.made), str::to_owned);
        if self.by_id.contains_key(&id) {
            return None;
        }
        if self.by_age.len() >= MOST
            && let Some(oldest) = self.by_age.pop_front()
        {
            self.by_id.remove(&oldest);
        }
        self.by_age.push_back(id.clone());
        self.by_id.insert(id.clone(), job);
        Some(id)
    }

    /// A finished query that is still kept.
    pub(crate) fn get(&self, id: &str) -> Option<&Job> {
        self.by_id.get(id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_query_goes_when_there_are_too_many_and_a_taken_id_is_refused() {
        let job = Job { table: TableName::new("p", "d", "t"), result: Answer::Rows(1) };
        let mut jobs = Jobs::default();
        let first = jobs.keep(None, job.clone()).unwrap();
        assert_eq!(jobs.keep(Some(&first), job.clone()), None);
        for _ in 0..MOST {
            jobs.keep(None, job.clone());
        }
        assert_eq!(jobs.get(&first), None);
        assert_eq!(jobs.by_id.len(), MOST);
    }
}
