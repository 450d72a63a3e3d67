//! Makes two ledger entries of one payment: what leaves one account, and what comes into the other. Both are written, or
//! neither is.

use serde::{Deserialize, Serialize};
use txconnect_transform::{Json, transform};

#[derive(Deserialize)]
struct CashIn {
    transaction_id: String,
    account_id: String,
    counterparty_account_id: String,
    /// In cents.
    amount: u64,
    inserted_at: i64,
}

#[derive(Serialize)]
#[serde(rename_all = "lowercase")]
enum Side {
    Debit,
    Credit,
}

#[derive(Serialize)]
struct Entry {
    transaction_id: String,
    side: Side,
    account_id: String,
    amount: u64,
    inserted_at: i64,
}

#[transform]
fn split_event(Json(cash_in): Json<CashIn>) -> [Json<Entry>; 2] {
    let CashIn { transaction_id, account_id, counterparty_account_id, amount, inserted_at } = cash_in;
    let debit = Entry {
        transaction_id: transaction_id.clone(),
        side: Side::Debit,
        account_id: counterparty_account_id,
        amount,
        inserted_at,
    };
    let credit = Entry { transaction_id, side: Side::Credit, account_id, amount, inserted_at };
    [Json(debit), Json(credit)]
}
