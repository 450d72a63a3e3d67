//! Rows as the encoder leaves them in a batch, read back field by field.
//!
//! A row is one tuple of PostgreSQL's binary COPY format
//! (<https://www.postgresql.org/docs/current/sql-copy.html>): a 16-bit count of fields, and for every field a 32-bit
//! length, −1 for NULL, and the bytes. Where rows have a key, one byte in front says what the row does.

/// What a row with a key does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// The row is there afterwards, as the write mode says.
    Put,
    /// The row with this key is gone afterwards, unless it is newer. The fields that are no key are NULL, but for Kafka's
    /// time where it tells the newer one.
    Delete,
}

impl Operation {
    /// The byte in front of the tuple.
    pub const fn byte(self) -> u8 {
        match self {
            Self::Put => b'U',
            Self::Delete => b'D',
        }
    }
}

/// The length that stands for NULL.
const NULL_LENGTH: [u8; 4] = (-1_i32).to_be_bytes();

/// Bytes that are no row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a row of the batch is damaged: this is a mistake of txconnect")]
pub struct DamagedRow;

/// Takes the operation off a row with a key; what is left is the tuple.
///
/// # Errors
/// [`DamagedRow`] where the first byte is none of an [`Operation`].
pub fn operation(row: &[u8]) -> Result<(Operation, &[u8]), DamagedRow> {
    match row.split_first() {
        Some((b'U', tuple)) => Ok((Operation::Put, tuple)),
        Some((b'D', tuple)) => Ok((Operation::Delete, tuple)),
        _ => Err(DamagedRow),
    }
}

/// The fields of a tuple in order. Ends after the first error.
#[derive(Clone, Debug)]
pub struct Fields<'a> {
    rest: &'a [u8],
    left: u16,
}

/// The bytes of one field; `None` is NULL.
pub type Field<'a> = Option<&'a [u8]>;

impl<'a> Fields<'a> {
    /// The fields of a tuple, which is all of `tuple`.
    ///
    /// # Errors
    /// [`DamagedRow`] where not even the count of fields is there.
    pub fn of(tuple: &'a [u8]) -> Result<Self, DamagedRow> {
        let (count, rest) = tuple.split_first_chunk().ok_or(DamagedRow)?;
        let left = u16::from_be_bytes(*count);
        if left == 0 && !rest.is_empty() {
            return Err(DamagedRow);
        }
        Ok(Self { rest, left })
    }

    /// How many fields are left.
    pub fn left(&self) -> usize {
        usize::from(self.left)
    }

    /// The next field with its length in front, as it also stands in the binary form of an array.
    pub fn next_with_length(&mut self) -> Option<Result<&'a [u8], DamagedRow>> {
        if self.left == 0 {
            return None;
        }
        let taken = self.take();
        if taken.is_err() {
            self.left = 0;
        }
        Some(taken)
    }

    fn take(&mut self) -> Result<&'a [u8], DamagedRow> {
        let length: &[u8; 4] = self.rest.first_chunk().ok_or(DamagedRow)?;
        let bytes = match *length {
            NULL_LENGTH => 0,
            length => usize::try_from(i32::from_be_bytes(length)).map_err(|_| DamagedRow)?,
        };
        let end = bytes.checked_add(length.len()).ok_or(DamagedRow)?;
        let (field, rest) = self.rest.split_at_checked(end).ok_or(DamagedRow)?;
        self.rest = rest;
        self.left -= 1;
        if self.left == 0 && !rest.is_empty() {
            return Err(DamagedRow);
        }
        Ok(field)
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<Field<'a>, DamagedRow>;

    fn next(&mut self) -> Option<Self::Item> {
        let field = self.next_with_length()?;
        Some(field.map(|field| match field.split_first_chunk() {
            Some((&NULL_LENGTH, _)) | None => None,
            Some((_, value)) => Some(value),
        }))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (0, Some(self.left()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn tuple(fields: &[Option<Vec<u8>>]) -> Vec<u8> {
        let mut out = u16::try_from(fields.len()).unwrap().to_be_bytes().to_vec();
        for field in fields {
            match field {
                None => out.extend(NULL_LENGTH),
                Some(bytes) => {
                    out.extend(i32::try_from(bytes.len()).unwrap().to_be_bytes());
                    out.extend(bytes);
                }
            }
        }
        out
    }

    #[test]
    fn operations_are_read_as_they_are_written() {
        for expected in [Operation::Put, Operation::Delete] {
            assert_eq!(operation(&[expected.byte(), 7]), Ok((expected, &[7][..])));
        }
        assert_eq!(operation(b""), Err(DamagedRow));
        assert_eq!(operation(b"X"), Err(DamagedRow));
    }

    proptest! {
        #[test]
        fn fields_are_read_as_they_were_written(
            fields in prop::collection::vec(prop::option::of(prop::collection::vec(any::<u8>(), 0..9)), 0..9)
        ) {
            let bytes = tuple(&fields);
            let read: Result<Vec<_>, _> =
                Fields::of(&bytes).unwrap().map(|field| field.map(|f| f.map(<[u8]>::to_vec))).collect();
            prop_assert_eq!(read.unwrap(), fields.clone());
            let mut with_length = Fields::of(&bytes).unwrap();
            let mut joined = bytes[..2].to_vec();
            while let Some(field) = with_length.next_with_length() {
                joined.extend(field.unwrap());
            }
            prop_assert_eq!(&joined, &bytes);
            // A byte too few or too many is noticed.
            let short = &bytes[..bytes.len() - 1];
            prop_assert!(Fields::of(short).is_err() || Fields::of(short).unwrap().any(|field| field.is_err()));
            let long = [&bytes[..], b"x"].concat();
            prop_assert!(Fields::of(&long).is_err() || Fields::of(&long).unwrap().any(|field| field.is_err()));
        }

        #[test]
        fn no_bytes_make_the_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            let _ = operation(&bytes);
            if let Ok(fields) = Fields::of(&bytes) {
                prop_assert!(fields.count() <= 65_535);
            }
        }

        #[test]
        fn no_tuple_with_odd_lengths_makes_the_reader_panic(
            lengths in prop::collection::vec(prop::sample::select(vec![-2_i32, -1, 0, 1, 5, i32::MAX, i32::MIN]), 0..6)
        ) {
            let mut bytes = u16::try_from(lengths.len()).unwrap().to_be_bytes().to_vec();
            for length in lengths {
                bytes.extend(length.to_be_bytes());
                bytes.push(1);
            }
            if let Ok(fields) = Fields::of(&bytes) {
                let _ = fields.last();
            }
        }
    }
}
