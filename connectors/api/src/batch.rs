//! Rows of one table, already in the wire format of the sink.

use std::sync::Arc;

/// Rows of one table on their way to the server.
///
/// The bytes of row `i` are `bytes[row_start(i)..rows[i].end]`; nothing lies between rows. What a request
/// needs around them (opening, closing, compression) is added by [`crate::Encoder::seal`] into `sealed`.
#[derive(Debug, Default)]
pub struct Batch {
    /// The table, as [`crate::Sink::table`] named it.
    pub table: Arc<str>,
    /// The rows, one after the other.
    pub bytes: Vec<u8>,
    /// Where each row ends and where it came from.
    pub rows: Vec<Row>,
    /// The finished request body, where the encoder prepared one. Gone as soon as a row is cut out.
    pub sealed: Option<Vec<u8>>,
    /// How many requests the writer has sent for this batch, retries included.
    pub requests: u64,
}

/// One row of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// Where the row ends in the batch's bytes.
    pub end: usize,
    /// The record the row was made from.
    pub source: RowSource,
}

/// The record a row was made from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RowSource {
    /// The runtime's number of the partition; sinks only hand it back.
    pub slot: u32,
    /// The record's offset.
    pub offset: i64,
    /// Where the runtime keeps the record's original bytes; sinks only hand it back.
    pub record: u32,
}

impl Batch {
    /// An empty batch for `table`.
    pub fn new(table: Arc<str>) -> Self {
        Self { table, ..Self::default() }
    }

    /// Whether no row is left.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Where row `index` starts in `bytes`.
    pub fn row_start(&self, index: usize) -> usize {
        if index == 0 { 0 } else { self.rows[index - 1].end }
    }

    /// The bytes of row `index`.
    pub fn row_bytes(&self, index: usize) -> &[u8] {
        &self.bytes[self.row_start(index)..self.rows[index].end]
    }

    /// Keeps the rows for which `keep(index, row)` is true, in order, and closes the gaps.
    pub fn retain_rows(&mut self, mut keep: impl FnMut(usize, &Row) -> bool) {
        let before = self.rows.len();
        let mut write_at = 0;
        let mut read_from = 0;
        let mut index = 0;
        let bytes = &mut self.bytes;
        self.rows.retain_mut(|row| {
            let (start, end) = (read_from, row.end);
            read_from = end;
            let kept = keep(index, row);
            index += 1;
            if kept {
                if start != write_at {
                    bytes.copy_within(start..end, write_at);
                }
                write_at += end - start;
                row.end = write_at;
            }
            kept
        });
        self.bytes.truncate(write_at);
        if self.rows.len() != before {
            self.sealed = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn batch_of(rows: &[Vec<u8>]) -> Batch {
        let mut batch = Batch::new("t".into());
        for (offset, row) in rows.iter().enumerate() {
            batch.bytes.extend_from_slice(row);
            let source = RowSource { slot: 0, offset: i64::try_from(offset).unwrap(), record: 0 };
            batch.rows.push(Row { end: batch.bytes.len(), source });
        }
        batch.sealed = Some(Vec::new());
        batch
    }

    proptest! {
        #[test]
        fn cutting_rows_out_leaves_the_others_untouched(
            rows in prop::collection::vec((prop::collection::vec(any::<u8>(), 0..9), any::<bool>()), 0..40)
        ) {
            let contents: Vec<Vec<u8>> = rows.iter().map(|(bytes, _)| bytes.clone()).collect();
            let mut batch = batch_of(&contents);
            batch.retain_rows(|index, _| rows[index].1);
            let kept: Vec<usize> = (0..rows.len()).filter(|&index| rows[index].1).collect();
            prop_assert_eq!(batch.rows.len(), kept.len());
            for (position, original) in kept.iter().enumerate() {
                prop_assert_eq!(batch.row_bytes(position), &contents[*original][..]);
                prop_assert_eq!(batch.rows[position].source.offset, i64::try_from(*original).unwrap());
            }
            prop_assert_eq!(batch.sealed.is_some(), kept.len() == rows.len());
        }
    }
}
