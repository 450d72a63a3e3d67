//! What a transform may return.

use crate::{Record, Result};

/// What a transform may return: rows.
pub trait IntoRows {
    /// The rows of one record, in their order; none filter it out.
    ///
    /// # Errors
    /// The record could not be transformed.
    fn into_rows(self) -> Result<Vec<Record>>;
}

impl IntoRows for Record {
    fn into_rows(self) -> Result<Vec<Record>> {
        Ok(vec![self])
    }
}

impl IntoRows for Option<Record> {
    fn into_rows(self) -> Result<Vec<Record>> {
        Ok(self.into_iter().collect())
    }
}

impl IntoRows for Vec<Record> {
    fn into_rows(self) -> Result<Vec<Record>> {
        Ok(self)
    }
}

impl<const N: usize> IntoRows for [Record; N] {
    fn into_rows(self) -> Result<Vec<Record>> {
        Ok(self.into())
    }
}

impl<T: IntoRows> IntoRows for Result<T> {
    fn into_rows(self) -> Result<Vec<Record>> {
        self?.into_rows()
    }
}
