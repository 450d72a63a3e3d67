//! Records as types of the user's own.

use serde::de::DeserializeOwned;

use crate::{Record, Result};

/// A value of a type of yours, read from the record's value or written as it. Beside it the record stays as it was.
///
/// ```
/// use txconnect_transform::{Json, transform};
///
/// #[derive(serde::Deserialize)]
/// struct CashIn {
///     transaction_id: String,
///     amount: u64,
/// }
///
/// #[derive(serde::Serialize)]
/// struct Deposit {
///     id: String,
///     large: bool,
/// }
///
/// #[transform]
/// fn deposit(Json(cash_in): Json<CashIn>) -> Json<Deposit> {
///     Json(Deposit { id: cash_in.transaction_id, large: cash_in.amount > 1_000_000 })
/// }
/// # fn main() {}
/// ```
/// Fields that the type does not have are lost, and numbers are what the type makes of them: take integers,
/// `serde_json::Number` or `serde_json::value::RawValue` for money, never a float.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Json<T>(pub T);

/// What a transform may take: a [`Record`], or [`Json`] of a type that it is read as.
pub trait FromRecord: Sized {
    /// Reads it.
    ///
    /// # Errors
    /// The record has another shape.
    fn from_record(record: Record) -> Result<Self>;
}

impl FromRecord for Record {
    fn from_record(record: Record) -> Result<Self> {
        Ok(record)
    }
}

impl<T: DeserializeOwned> FromRecord for Json<T> {
    fn from_record(record: Record) -> Result<Self> {
        record.parse().map(Json)
    }
}
