//! Any columns as what a transform has answered. They are refused, or every row and failure can be read, belongs to a
//! record of the batch, and a record that has failed has no row.
//!
//! An input is a row of small numbers, one byte each: the size of the batch, the most rows of a record, then the columns
//! in their order: a list is its length and its numbers, something that may be missing begins with a byte that is odd
//! where it is there. Where the input ends, the rest is zero.

#![no_main]

use libfuzzer_sys::fuzz_target;
use txconnect_transform_host::{Column, Columns, Headers, Kept, Output, RecordFailure};

struct Numbers<'a>(&'a [u8]);

impl Numbers<'_> {
    fn byte(&mut self) -> u8 {
        let Some((&first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        first
    }

    /// Numbers at both ends of what they can be.
    fn number(&mut self) -> u32 {
        let byte = self.byte();
        if byte >= 0xf0 { u32::MAX - u32::from(!byte) } else { u32::from(byte) }
    }

    fn list<T>(&mut self, mut item: impl FnMut(&mut Self) -> T) -> Vec<T> {
        (0..self.byte() % 32).map(|_| item(self)).collect()
    }

    fn maybe<T>(&mut self, item: impl FnOnce(&mut Self) -> T) -> Option<T> {
        (self.byte() % 2 == 1).then(|| item(self))
    }

    fn column(&mut self) -> Column {
        Column { data: self.list(Self::byte), ends: self.list(Self::number), nulls: self.list(Self::byte) }
    }

    fn marks(&mut self) -> Vec<bool> {
        self.list(|numbers| numbers.byte() % 2 == 1)
    }

    fn text(&mut self) -> String {
        String::from_utf8_lossy(&self.list(Self::byte)).into_owned()
    }

    fn columns(&mut self) -> Columns {
        Columns {
            sources: self.list(Self::number),
            keys: self.maybe(Self::column),
            values: self.maybe(Self::column),
            topics: self.maybe(|numbers| (numbers.list(Self::text), numbers.list(Self::number))),
            headers: self.maybe(|numbers| Headers {
                counts: numbers.list(Self::number),
                names: numbers.column(),
                values: numbers.column(),
            }),
            kept: Kept {
                keys: self.marks(),
                values: self.marks(),
                topics: self.marks(),
                headers: self.marks(),
            },
            failures: self.list(|numbers| RecordFailure {
                record: numbers.number(),
                code: numbers.text(),
                message: numbers.text(),
            }),
        }
    }
}

fuzz_target!(|bytes: &[u8]| {
    let mut numbers = Numbers(bytes);
    let (records, most_rows) = (usize::from(numbers.byte()), u32::from(numbers.byte()));
    let Ok(output) = Output::checked(numbers.columns(), records, most_rows) else { return };
    let failed: Vec<u32> = output.failures().iter().map(|failure| failure.record).collect();
    assert!(failed.is_sorted_by(|one, next| one < next));
    for failure in output.failures() {
        assert!((failure.record as usize) < records);
        let code = failure.code.strip_prefix("transform.").expect("a code of transforms");
        assert!(
            !code.is_empty() && code.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_'))
        );
        assert!(!failure.message.contains(char::is_control));
    }
    assert!(output.sources().is_sorted());
    for rows in output.sources().chunk_by(|one, other| one == other) {
        assert!(rows.len() <= most_rows as usize && failed.binary_search(&rows[0]).is_err());
    }
    for index in 0..output.len() {
        let row = output.row(index);
        assert!((row.source() as usize) < records);
        assert!(row.topic().is_none_or(|topic| (1..=249).contains(&topic.len())));
        // Reading is all: it must not fail, whatever there is.
        let _ = (row.key(), row.value(), row.headers().map(Iterator::count));
    }
});
