//! What one record must be before it is sent: JSON, and with a key where a key is wanted.

use std::borrow::Cow;

use serde::de::IgnoredAny;
use sonic_rs::{JsonValueTrait, LazyValue};

use super::split::{Position, RawRecord};

/// A record that is not JSON.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct NotJson {
    /// Where the text stops being JSON.
    pub at: Position,
    /// What is wrong there.
    pub message: String,
}

/// Why a record has no key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoKey {
    /// The record has no such field, or is no object.
    #[error("it has no such field")]
    Missing,
    /// The field is `null`.
    #[error("the field is null")]
    Null,
    /// The field is an object or an array.
    #[error("the field is an object or array; a key is made from a string, number or boolean")]
    NotScalar,
    /// The field is a string that has no UTF-8 form, such as half of a surrogate pair.
    #[error("the field is a string that is not valid Unicode")]
    NotUnicode,
}

/// Answers the record's text if it is one JSON value in UTF-8.
pub fn check<'a>(record: &RawRecord<'a>) -> Result<&'a str, NotJson> {
    let text = std::str::from_utf8(record.bytes).map_err(|error| NotJson {
        at: record.start.after(&record.bytes[..error.valid_up_to()]),
        message: "invalid UTF-8".to_owned(),
    })?;
    // Skipping a value is iterative in serde_json, so that depth costs memory and not the stack.
    match serde_json::from_str::<IgnoredAny>(text) {
        Ok(IgnoredAny) => Ok(text),
        Err(error) => Err(NotJson {
            at: record.start.after(&record.bytes[..index_of(text, error.line(), error.column())]),
            message: without_position(&error),
        }),
    }
}

/// Finds the mistake in `bytes`, the beginning of a record that has no end, where one shows before the end.
pub fn first_mistake(bytes: &[u8], start: Position) -> Option<NotJson> {
    let valid = match std::str::from_utf8(bytes) {
        Ok(text) => text,
        // A character cut in two by the end is no mistake of its own.
        Err(error) if error.error_len().is_none() => {
            std::str::from_utf8(&bytes[..error.valid_up_to()]).ok()?
        }
        Err(_) => return check(&RawRecord { bytes, start }).err(),
    };
    let error = serde_json::from_str::<IgnoredAny>(valid).err()?;
    (!error.is_eof()).then(|| NotJson {
        at: start.after(&bytes[..index_of(valid, error.line(), error.column())]),
        message: without_position(&error),
    })
}

/// The byte that `serde_json` means by a line from 1 and a column in bytes from 1 (0 before the first).
fn index_of(text: &str, line: usize, column: usize) -> usize {
    let line_start = match line.checked_sub(2) {
        None => 0,
        Some(newline) => text.match_indices('\n').nth(newline).map_or(0, |(index, _)| index + 1),
    };
    (line_start + column.saturating_sub(1)).min(text.len())
}

fn without_position(error: &serde_json::Error) -> String {
    let message = error.to_string();
    match message.rfind(" at line ") {
        Some(end) => message[..end].to_owned(),
        None => message,
    }
}

/// The key that the top-level `field` of `record` gives: a string's text, a number or boolean as it is
/// written. `record` has passed [`check`].
pub fn key_of<'a>(record: &'a str, field: &str) -> Result<Cow<'a, str>, NoKey> {
    let value: LazyValue<'a> = sonic_rs::get(record, [field]).map_err(|_| NoKey::Missing)?;
    if value.is_str() {
        return match value.as_str() {
            // The text lies inside the record unless it had escapes.
            Some(text) => Ok(Cow::Owned(text.to_owned())),
            None => Err(NoKey::NotUnicode),
        };
    }
    if value.is_null() {
        return Err(NoKey::Null);
    }
    if value.is_object() || value.is_array() {
        return Err(NoKey::NotScalar);
    }
    Ok(value.as_raw_cow())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const START: Position = Position { line: 10, byte: 1000 };

    fn check_bytes(bytes: &[u8]) -> Result<&str, NotJson> {
        check(&RawRecord { bytes, start: START })
    }

    #[test]
    fn a_mistake_is_named_with_its_place_in_the_whole_input() {
        for (text, message, line, byte) in [
            (&b"{\"a\" 1}"[..], "expected `:`", 10, 1005),
            (b"{\"a\":\n 01}", "invalid number", 11, 1008),
            (b"truefalse", "trailing characters", 10, 1004),
            (b"\"\xff\"", "invalid UTF-8", 10, 1001),
            (b"{\"a\":1]", "expected `,` or `}`", 10, 1006),
        ] {
            let mistake = check_bytes(text).expect_err(&String::from_utf8_lossy(text));
            assert_eq!(mistake.message, message);
            assert_eq!(mistake.at, Position { line, byte }, "{}", String::from_utf8_lossy(text));
        }
    }

    #[test]
    fn a_record_without_an_end_is_explained_by_its_first_mistake() {
        let mistake = first_mistake(b"{\"a\":1\n{\"b\":2}", START).unwrap();
        assert_eq!(mistake.message, "expected `,` or `}`");
        assert_eq!(mistake.at, Position { line: 11, byte: 1007 });
        assert_eq!(first_mistake(b"{\"a\":\"\xc3", START), None);
        assert_eq!(first_mistake(b"{\"a\":[1,2", START), None);
    }

    #[test]
    fn deep_nesting_is_json_too() {
        let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
        assert_eq!(check_bytes(deep.as_bytes()), Ok(deep.as_str()));
    }

    #[test]
    fn keys_are_texts_of_strings_and_literals_of_other_scalars() {
        let record = r#"{"s":"a\n\u00e9","i":12,"d":1.10,"b":false,"n":null,"o":{"s":1},"a":[],"h":"\ud800","ké\"y":1}"#;
        assert_eq!(key_of(record, "s").as_deref(), Ok("a\né"));
        assert_eq!(key_of(record, "i").as_deref(), Ok("12"));
        assert_eq!(key_of(record, "d").as_deref(), Ok("1.10"));
        assert_eq!(key_of(record, "b").as_deref(), Ok("false"));
        assert_eq!(key_of(record, "ké\"y").as_deref(), Ok("1"));
        assert_eq!(key_of(record, "n"), Err(NoKey::Null));
        assert_eq!(key_of(record, "o"), Err(NoKey::NotScalar));
        assert_eq!(key_of(record, "a"), Err(NoKey::NotScalar));
        assert_eq!(key_of(record, "h"), Err(NoKey::NotUnicode));
        for record in [record, "[1]", "1", "\"x\"", "null", "{}"] {
            assert_eq!(key_of(record, "missing"), Err(NoKey::Missing), "{record}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_checks_panic(
            bytes in prop_oneof!["[\\[\\]{}:,\"\\\\0-9ante.\n -]{0,40}".prop_map(String::into_bytes), prop::collection::vec(any::<u8>(), 0..80)],
            field in any::<String>(),
        ) {
            let record = RawRecord { bytes: &bytes, start: START };
            let _ = first_mistake(&bytes, START);
            match check(&record) {
                Ok(text) => {
                    prop_assert!(serde_json::from_str::<IgnoredAny>(text).is_ok());
                    let _ = key_of(text, &field);
                }
                Err(mistake) => prop_assert!(mistake.at.byte <= START.byte + bytes.len() as u64),
            }
        }
    }
}
