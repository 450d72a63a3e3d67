//! Writes batches and says which lines are out.

use std::mem;

use futures::future::BoxFuture;
use txconnect_connector_api::{Advance, Batch, SinkError, Writer};

use crate::output::{Output, sink_error};

/// Writes the batches of one lane.
pub(crate) struct StdoutWriter {
    output: Output,
}

impl StdoutWriter {
    pub(crate) fn new(output: Output) -> Self {
        Self { output }
    }

    async fn write_batch(&self, batch: &mut Batch) -> Result<(), SinkError> {
        if batch.is_empty() {
            return Ok(());
        }
        let output = self.output.clone();
        let lines = mem::take(&mut batch.bytes);
        batch.requests += 1;
        // Whoever reads stdout may be slow: that must not hold up the threads that serve the network.
        let task = tokio::task::spawn_blocking(move || {
            let result = output.write_lines(&lines);
            (lines, result)
        });
        let (lines, result) = task.await.map_err(|_| SinkError::Fatal {
            cause: "the thread that writes to stdout ended before its time".to_owned(),
            hint: None,
        })?;
        batch.bytes = lines;
        result.map_err(|(written, error)| {
            batch.retain_rows(|_, row| row.end > written);
            sink_error(&error)
        })
    }
}

impl Writer for StdoutWriter {
    /// Waits for as long as the reader of stdout takes: a pager that is not scrolled holds the pipeline up and
    /// is no failure. Leaves the batches as they are where all lines are out.
    fn write<'a>(
        &'a self,
        batches: &'a mut [Batch],
        _advances: &'a [Advance],
    ) -> BoxFuture<'a, Result<(), SinkError>> {
        Box::pin(async move {
            for index in 0..batches.len() {
                if let Err(error) = self.write_batch(&mut batches[index]).await {
                    for written in &mut batches[..index] {
                        written.retain_rows(|_, _| false);
                    }
                    return Err(error);
                }
            }
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests {
    use std::io::{self, ErrorKind, Write};
    use std::sync::{Arc, Mutex};

    use super::*;
    use proptest::prelude::*;
    use txconnect_connector_api::RowSource;
    use txconnect_connector_api::batch::Row;

    /// A file that takes a few bytes a call and fails once `room` is used up.
    #[derive(Clone)]
    struct Narrow {
        taken: Arc<Mutex<Vec<u8>>>,
        room: usize,
        step: usize,
        kind: ErrorKind,
    }

    impl Write for Narrow {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let count = bytes.len().min(self.step).min(self.room);
            if count == 0 && !bytes.is_empty() {
                return Err(self.kind.into());
            }
            self.room -= count;
            self.taken.lock().unwrap().extend_from_slice(&bytes[..count]);
            Ok(count)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn narrow(room: usize, step: usize, kind: ErrorKind) -> (Narrow, Arc<Mutex<Vec<u8>>>) {
        let taken = Arc::default();
        (Narrow { taken: Arc::clone(&taken), room, step, kind }, taken)
    }

    fn batch(lines: &[&str]) -> Batch {
        let mut batch = Batch::new("stdout".into());
        for (offset, line) in lines.iter().enumerate() {
            batch.bytes.extend_from_slice(line.as_bytes());
            batch.bytes.push(b'\n');
            let source = RowSource { slot: 0, offset: i64::try_from(offset).unwrap(), record: 0 };
            batch.rows.push(Row { end: batch.bytes.len(), source });
        }
        batch
    }

    fn offsets(batch: &Batch) -> Vec<i64> {
        batch.rows.iter().map(|row| row.source.offset).collect()
    }

    #[tokio::test]
    async fn all_lines_of_all_batches_go_out_in_order() {
        let (file, taken) = narrow(usize::MAX, 3, ErrorKind::Other);
        let writer = StdoutWriter::new(Output::new(Box::new(file)));
        let mut batches = [batch(&["one", "two"]), batch(&[]), batch(&["three"])];
        writer.write(&mut batches, &[]).await.unwrap();
        assert_eq!(taken.lock().unwrap().as_slice(), b"one\ntwo\nthree\n");
        assert_eq!(batches[0].requests, 1);
    }

    #[tokio::test]
    async fn a_reader_that_has_gone_is_told_apart_and_lines_that_are_out_are_cut() {
        let (file, _) = narrow("one\ntwo\nth".len(), 64, ErrorKind::BrokenPipe);
        let writer = StdoutWriter::new(Output::new(Box::new(file)));
        let mut batches = [batch(&["one"]), batch(&["two", "three", "four"]), batch(&["five"])];
        let error = writer.write(&mut batches, &[]).await.unwrap_err();
        assert!(matches!(error, SinkError::Closed));
        assert_eq!(offsets(&batches[0]), [0; 0]);
        assert_eq!(offsets(&batches[1]), [1, 2]);
        assert_eq!(batches[1].bytes, b"three\nfour\n");
        assert_eq!(offsets(&batches[2]), [0]);
    }

    #[tokio::test]
    async fn a_full_disk_is_fatal_and_says_so() {
        let (file, _) = narrow(0, 64, ErrorKind::StorageFull);
        let writer = StdoutWriter::new(Output::new(Box::new(file)));
        let error = writer.write(&mut [batch(&["one"])], &[]).await.unwrap_err();
        assert!(matches!(error, SinkError::Fatal { .. }));
        assert!(matches!(error, SinkError::Fatal { hint: Some(hint), .. } if hint.contains("disk")));
    }

    #[tokio::test]
    async fn a_line_that_broke_off_is_closed_before_the_next() {
        /// Fails once, in the middle of a line.
        struct Hiccup(Arc<Mutex<Vec<u8>>>, usize);
        impl Write for Hiccup {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                self.1 += 1;
                let count = match self.1 {
                    1 => 2,
                    2 => return Err(ErrorKind::StorageFull.into()),
                    _ => bytes.len(),
                };
                self.0.lock().unwrap().extend_from_slice(&bytes[..count]);
                Ok(count)
            }

            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let taken = Arc::default();
        let writer = StdoutWriter::new(Output::new(Box::new(Hiccup(Arc::clone(&taken), 0))));
        let mut batches = [batch(&["one", "two"])];
        assert!(writer.write(&mut batches, &[]).await.is_err());
        assert_eq!(offsets(&batches[0]), [0, 1]);
        writer.write(&mut batches, &[]).await.unwrap();
        assert_eq!(taken.lock().unwrap().as_slice(), b"on\none\ntwo\n");
    }

    proptest! {
        #[test]
        fn every_line_is_either_out_or_left(
            lines in prop::collection::vec("[a-z]{0,6}", 1..12), room in 0_usize..90, step in 1_usize..20
        ) {
            let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
            let (file, taken) = narrow(room, step, ErrorKind::BrokenPipe);
            let writer = StdoutWriter::new(Output::new(Box::new(file)));
            let mut batches = [batch(&lines)];
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let result = runtime.block_on(writer.write(&mut batches, &[]));
            let taken = taken.lock().unwrap();
            let out = taken.split(|byte| *byte == b'\n').count() - 1;
            if result.is_ok() {
                prop_assert_eq!(out, lines.len());
            } else {
                prop_assert_eq!(out + batches[0].rows.len(), lines.len());
                prop_assert!(taken.starts_with(&batch(&lines).bytes[..taken.len()]));
            }
        }
    }
}
