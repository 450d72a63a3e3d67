//! Rows that BigQuery refuses, and why, without their values.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use gcp_bigquery_client::google::cloud::bigquery::storage::v1::RowError;
use txconnect_connector_api::BadRecord;

/// What messages about rows say, in lower case, and how it is repeated. The first that is found counts.
const KNOWN_REASONS: [(&str, &str); 9] = [
    ("missing required", "a required field is missing"),
    ("is required", "a required field is missing"),
    ("cannot be empty", "a field must not be empty"),
    ("out of range", "a value is out of range"),
    ("overflow", "a value is out of range"),
    ("sequence number", "the sequence number of the change is not valid"),
    ("not a valid", "a value is not valid for its column"),
    ("invalid", "a value is not valid for its column"),
    ("cannot convert", "a value is not valid for its column"),
];

/// The refused rows of a request of `rows` rows, by position, once each. `None`: the answer names rows that were not
/// sent, so nothing can be learned from it.
pub(super) fn refused_rows(
    errors: &[RowError],
    rows: usize,
    columns: &[String],
) -> Option<BTreeMap<usize, BadRecord>> {
    let mut refused = BTreeMap::new();
    for error in errors {
        let position = usize::try_from(error.index).ok().filter(|position| *position < rows)?;
        refused.entry(position).or_insert_with(|| bad_record(&error.message, columns));
    }
    Some(refused)
}

/// BigQuery's messages quote values. Of a message only the columns of the plan and known reasons are kept.
fn bad_record(message: &str, columns: &[String]) -> BadRecord {
    let mut text = "BigQuery refuses the row".to_owned();
    let named = message
        .split(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '_' | '.')))
        .map(|word| word.trim_matches('.'))
        .filter_map(|word| columns.iter().find(|column| column.eq_ignore_ascii_case(word)))
        .max_by_key(|column| column.len());
    if let Some(column) = named {
        let _ = write!(text, " at the column `{column}`");
    }
    let message = message.to_ascii_lowercase();
    if let Some((_, reason)) = KNOWN_REASONS.iter().find(|(words, _)| message.contains(words)) {
        text.push_str(": ");
        text.push_str(reason);
    }
    BadRecord::new("bigquery.invalid", "", text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(index: i64, message: &str) -> RowError {
        RowError { index, code: 1, message: message.to_owned() }
    }

    fn columns() -> Vec<String> {
        ["id", "card", "lines", "lines.n"].map(str::to_owned).to_vec()
    }

    #[test]
    fn a_refused_row_names_column_and_reason_and_no_value() {
        for (message, expected) in [
            (
                "Invalid NUMERIC value: 4111 1111 Field: card;",
                "BigQuery refuses the row at the column `card`: a value is not valid for its column",
            ),
            (
                "Field lines.n: missing required value",
                "BigQuery refuses the row at the column `lines.n`: a required field is missing",
            ),
            ("4111 1111 is strange", "BigQuery refuses the row"),
        ] {
            let refused = refused_rows(&[error(2, message)], 3, &columns()).unwrap();
            assert_eq!(refused[&2].message, expected);
        }
    }

    #[test]
    fn a_row_that_is_named_twice_is_refused_once_and_strange_rows_make_the_answer_void() {
        let twice = [error(1, "invalid"), error(0, ""), error(1, "overflow")];
        let refused = refused_rows(&twice, 2, &columns()).unwrap();
        assert_eq!(refused.keys().copied().collect::<Vec<_>>(), [0, 1]);
        assert!(refused[&1].message.ends_with("a value is not valid for its column"));
        for index in [-1, 2, i64::MAX] {
            assert_eq!(refused_rows(&[error(index, "")], 2, &columns()), None);
        }
    }
}
