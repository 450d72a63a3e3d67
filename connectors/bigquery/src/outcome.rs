//! What became of the batches of a flush, and what the runtime is told.

use std::ops::Range;
use std::time::Duration;

use txconnect_connector_api::{BadRecord, Batch, RejectedRow, SinkError};

/// What became of one batch.
#[derive(Default)]
pub(crate) struct Outcome {
    /// Per row whether it is in the table; empty where none is.
    pub(crate) durable: Vec<bool>,
    /// Rows that will never be taken, by position in the batch.
    pub(crate) refused: Vec<(usize, BadRecord)>,
    /// Why the other rows are not in.
    pub(crate) failure: Option<SinkError>,
}

impl Outcome {
    /// Nothing is known to be in the table.
    pub(crate) fn failed(error: SinkError) -> Self {
        Self { failure: Some(error), ..Self::default() }
    }

    /// `rows` of a batch of `all` rows are in the table.
    pub(crate) fn mark(&mut self, rows: Range<usize>, all: usize) {
        self.durable.resize(all, false);
        self.durable[rows].fill(true);
    }
}

/// Leaves the batches as they are where all rows are in. Otherwise cuts the rows that are in out of the batches and
/// makes one error of all.
pub(crate) fn settle(batches: &mut [Batch], outcomes: Vec<Outcome>) -> Result<(), SinkError> {
    if outcomes.iter().all(|outcome| outcome.failure.is_none() && outcome.refused.is_empty()) {
        return Ok(());
    }
    let mut rejected = Vec::new();
    let mut failures = Vec::new();
    for (index, (batch, outcome)) in batches.iter_mut().zip(outcomes).enumerate() {
        let in_table = |row: usize| outcome.durable.get(row).copied().unwrap_or(false);
        let mut refused = outcome.refused;
        refused.sort_unstable_by_key(|(row, _)| *row);
        let (mut counted, mut left) = (0, 0);
        for (row, why) in refused {
            left += (counted..row).filter(|earlier| !in_table(*earlier)).count();
            counted = row;
            rejected.push(RejectedRow { batch: index, row: left, why });
        }
        batch.retain_rows(|row, _| !in_table(row));
        failures.extend(outcome.failure);
    }
    if let Some(fatal) = failures.iter().position(|failure| matches!(failure, SinkError::Fatal { .. })) {
        return Err(failures.swap_remove(fatal));
    }
    if !rejected.is_empty() {
        return Err(SinkError::Rejected { rows: rejected });
    }
    let mut causes = Vec::new();
    let mut longest: Option<Duration> = None;
    for failure in failures {
        if let SinkError::Transient { cause, retry_after } = failure {
            longest = longest.max(retry_after);
            if !causes.contains(&cause) {
                causes.push(cause);
            }
        }
    }
    Err(SinkError::Transient { cause: causes.join("; "), retry_after: longest })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use txconnect_connector_api::RowSource;
    use txconnect_connector_api::batch::Row;

    fn batch_of(rows: usize) -> Batch {
        let mut batch = Batch::new("t".into());
        for row in 0..rows {
            batch.bytes.push(0);
            let source = RowSource { slot: 0, offset: i64::try_from(row).unwrap(), record: 0 };
            batch.rows.push(Row { end: batch.bytes.len(), source });
        }
        batch
    }

    fn offsets(batch: &Batch) -> Vec<usize> {
        batch.rows.iter().map(|row| usize::try_from(row.source.offset).unwrap()).collect()
    }

    proptest! {
        #[test]
        fn refused_rows_are_named_where_they_are_among_those_that_are_left(
            rows in prop::collection::vec(0_u8..3, 1..40).prop_shuffle()
        ) {
            // 0: in the table, 1: neither, 2: refused.
            let mut batches = [batch_of(rows.len())];
            let refused: Vec<usize> = (0..rows.len()).rev().filter(|&row| rows[row] == 2).collect();
            let outcome = Outcome {
                durable: rows.iter().map(|&row| row == 0).collect(),
                refused: refused.iter().map(|&row| (row, BadRecord::new("test", "", row.to_string()))).collect(),
                failure: rows.contains(&1).then(|| SinkError::transient("away")),
            };
            match settle(&mut batches, vec![outcome]) {
                Ok(()) => prop_assert!(rows.iter().all(|&row| row == 0)),
                Err(SinkError::Rejected { rows: named }) => {
                    let left = offsets(&batches[0]);
                    let found: Vec<usize> = named.iter().map(|named| left[named.row]).collect();
                    let mut expected = refused;
                    expected.reverse();
                    prop_assert_eq!(&found, &expected);
                    for (named, row) in named.iter().zip(found) {
                        prop_assert_eq!(&named.why.message, &row.to_string());
                    }
                }
                Err(error) => {
                    let transient = matches!(error, SinkError::Transient { .. });
                    prop_assert!(transient && refused.is_empty());
                    prop_assert!(offsets(&batches[0]).iter().all(|&row| rows[row] == 1));
                }
            }
        }
    }
}
