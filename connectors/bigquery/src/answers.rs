//! What an answer of insertAll says about each row.
//!
//! <https://cloud.google.com/bigquery/docs/streaming-data-into-bigquery#troubleshooting>: where a row is
//! `invalid`, nothing of the request was inserted and all other rows are `stopped`. Under other reasons the
//! named rows were not inserted and the rest were.

use std::fmt::Write as _;

use gcp_bigquery_client::model::table_data_insert_all_response_insert_errors::TableDataInsertAllResponseInsertErrors;
use txconnect_connector_api::BadRecord;

/// What an answer says about one row.
pub(crate) type RowErrors = TableDataInsertAllResponseInsertErrors;

/// What BigQuery writes in front of the values in its messages about rows. Only these words are repeated.
const KNOWN_MESSAGES: [&str; 14] = [
    "Array specified for non-repeated field",
    "Bad value",
    "Cannot convert value to integer",
    "Cannot convert value to",
    "Cannot return an invalid timestamp value",
    "Could not parse",
    "Could not decode base64 string",
    "Field value cannot be empty",
    "Invalid",
    "Missing required field",
    "Only optional fields can be set to NULL",
    "Repeated record added outside of an array",
    "This field is not a record",
    "Value out of range",
];

/// What became of the rows of one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Every row is in the table.
    AllIn,
    /// No row is in the table.
    NoneIn {
        /// Rows that will never be taken, by position in the request.
        refused: Vec<(usize, BadRecord)>,
        /// The server does not know one of our columns.
        unknown_column: bool,
    },
    /// All rows are in the table but these, by position in the request, in order.
    AllInBut {
        /// The positions.
        missing: Vec<usize>,
        /// The server's reasons, in short.
        reasons: String,
    },
    /// The answer cannot be understood: nothing is known of any row.
    Unclear,
}

/// Judges the answer to a request of `rows` rows.
pub(crate) fn judge(errors: &[RowErrors], rows: usize) -> Verdict {
    if errors.is_empty() {
        return Verdict::AllIn;
    }
    let mut refused = Vec::new();
    let mut missing = Vec::new();
    let mut reasons: Vec<String> = Vec::new();
    let mut stopped = false;
    let mut unknown_column = false;
    for row in errors {
        let position = row.index.and_then(|index| usize::try_from(index).ok()).filter(|index| *index < rows);
        let (Some(position), Some(details)) = (position, row.errors.as_deref().filter(|all| !all.is_empty()))
        else {
            return Verdict::Unclear;
        };
        missing.push(position);
        let mut first_invalid = None;
        let mut row_has_unknown_column = false;
        for detail in details {
            let reason = detail.reason.as_deref().unwrap_or_default();
            let message = detail.message.as_deref().unwrap_or_default();
            match reason {
                // Only columns of the plan are sent, and the plan was compared with the table: a column that
                // the server does not know has not arrived there yet, or is gone. The row is not to blame.
                "invalid" if starts_with(message, "no such field") => row_has_unknown_column = true,
                "invalid" => {
                    first_invalid.get_or_insert((detail.location.as_deref(), message));
                }
                "stopped" => stopped = true,
                other => {
                    let other = if is_word(other) { other } else { "no reason given" };
                    if !reasons.iter().any(|known| known == other) {
                        reasons.push(other.to_owned());
                    }
                }
            }
        }
        unknown_column |= row_has_unknown_column;
        if let Some((location, message)) = first_invalid
            && !row_has_unknown_column
        {
            refused.push((position, bad_record(location, message)));
        }
    }
    if stopped || unknown_column || !refused.is_empty() {
        refused.sort_unstable_by_key(|(position, _)| *position);
        refused.dedup_by_key(|(position, _)| *position);
        return Verdict::NoneIn { refused, unknown_column };
    }
    missing.sort_unstable();
    missing.dedup();
    Verdict::AllInBut { missing, reasons: reasons.join(", ") }
}

fn bad_record(location: Option<&str>, message: &str) -> BadRecord {
    let mut text = "BigQuery refuses the row".to_owned();
    if let Some(location) = location.filter(|location| is_column_path(location)) {
        let _ = write!(text, " at the column `{location}`");
    }
    if let Some(known) = KNOWN_MESSAGES.iter().find(|known| starts_with(message, known)) {
        text.push_str(": ");
        text.push_str(known);
    }
    BadRecord::new("bigquery.invalid", "", text)
}

/// The row that BigQuery will not take for its size.
pub(crate) fn too_large() -> BadRecord {
    BadRecord::new("bigquery.too_large", "", "BigQuery refuses a request with this row alone as too large")
}

fn starts_with(message: &str, beginning: &str) -> bool {
    message.get(..beginning.len()).is_some_and(|start| start.eq_ignore_ascii_case(beginning))
}

fn is_word(text: &str) -> bool {
    !text.is_empty() && text.len() <= 40 && text.bytes().all(|byte| byte.is_ascii_alphabetic())
}

fn is_column_path(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 300
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'[' | b']'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use gcp_bigquery_client::model::error_proto::ErrorProto;
    use proptest::prelude::*;

    fn row(index: i32, errors: &[(&str, &str, &str)]) -> RowErrors {
        let errors = errors.iter().map(|(reason, location, message)| ErrorProto {
            reason: Some((*reason).to_owned()),
            location: Some((*location).to_owned()),
            message: Some((*message).to_owned()),
            debug_info: None,
        });
        RowErrors { index: Some(index), errors: Some(errors.collect()) }
    }

    #[test]
    fn no_error_means_that_all_rows_are_in() {
        assert_eq!(judge(&[], 3), Verdict::AllIn);
    }

    #[test]
    fn one_invalid_row_means_that_nothing_is_in() {
        let errors = [
            row(0, &[("stopped", "", "")]),
            row(1, &[("invalid", "amount", "Cannot convert value to integer (bad value): 4111")]),
            row(2, &[("stopped", "", "")]),
        ];
        let Verdict::NoneIn { refused, unknown_column: false } = judge(&errors, 3) else {
            panic!("nothing in")
        };
        assert_eq!(refused.len(), 1);
        assert_eq!(refused[0].0, 1);
        assert_eq!(
            refused[0].1.message,
            "BigQuery refuses the row at the column `amount`: Cannot convert value to integer"
        );
    }

    #[test]
    fn a_value_in_a_message_or_location_is_not_repeated() {
        for (location, message) in
            [("4111 1111", "4111 1111 is not fine"), ("", "Invalid NUMERIC value: 4111 1111 Field: n")]
        {
            let Verdict::NoneIn { refused, .. } = judge(&[row(0, &[("invalid", location, message)])], 1)
            else {
                panic!("nothing in")
            };
            assert!(!refused[0].1.message.contains("4111"), "{}", refused[0].1.message);
        }
    }

    #[test]
    fn a_column_that_the_server_does_not_know_yet_is_no_fault_of_the_row() {
        let errors =
            [row(0, &[("invalid", "extra", "no such field: extra.")]), row(1, &[("stopped", "", "")])];
        assert_eq!(judge(&errors, 2), Verdict::NoneIn { refused: vec![], unknown_column: true });
    }

    #[test]
    fn rows_with_a_passing_error_are_the_only_ones_missing() {
        let errors = [row(2, &[("timeout", "", "")]), row(0, &[("backendError", "", "")])];
        assert_eq!(
            judge(&errors, 3),
            Verdict::AllInBut { missing: vec![0, 2], reasons: "timeout, backendError".to_owned() }
        );
    }

    #[test]
    fn an_answer_that_names_no_row_of_ours_is_unclear() {
        assert_eq!(judge(&[row(7, &[("timeout", "", "")])], 3), Verdict::Unclear);
        assert_eq!(judge(&[RowErrors { index: None, errors: None }], 3), Verdict::Unclear);
        assert_eq!(judge(&[row(0, &[])], 3), Verdict::Unclear);
    }

    proptest! {
        #[test]
        fn a_row_is_never_both_in_the_table_and_refused(
            errors in prop::collection::vec(
                (-1_i32..6, prop::collection::vec(prop::sample::select(vec!["invalid", "stopped", "timeout"]), 0..3)),
                1..6
            )
        ) {
            let errors: Vec<RowErrors> = errors
                .iter()
                .map(|(index, reasons)| row(*index, &reasons.iter().map(|r| (*r, "", "")).collect::<Vec<_>>()))
                .collect();
            let grave = errors.iter().flat_map(|row| row.errors.iter().flatten()).any(|error| {
                error.reason.as_deref().is_some_and(|reason| reason != "timeout")
            });
            match judge(&errors, 5) {
                Verdict::AllIn => prop_assert!(false, "errors were given"),
                Verdict::AllInBut { missing, .. } => {
                    prop_assert!(!grave);
                    prop_assert!(missing.is_sorted() && missing.iter().all(|position| *position < 5));
                }
                Verdict::NoneIn { refused, .. } => prop_assert!(grave && refused.len() <= 5),
                Verdict::Unclear => {}
            }
        }
    }
}
