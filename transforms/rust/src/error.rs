//! Why a record could not be transformed.

use std::borrow::Cow;
use std::fmt;

/// What transforms return.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a record could not be transformed. It goes to the dead letter topic with these words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    code: Cow<'static, str>,
    message: Cow<'static, str>,
}

impl Error {
    /// A failure of one record: a short stable code of small letters, digits and `_`, by which dead letters are counted,
    /// and what is wrong, without values of the record.
    pub fn new(code: impl Into<Cow<'static, str>>, message: impl Into<Cow<'static, str>>) -> Self {
        Self { code: code.into(), message: message.into() }
    }

    /// The code.
    pub fn code(&self) -> &str {
        &self.code
    }

    /// What is wrong.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// Code and message.
    #[cfg(target_arch = "wasm32")]
    pub(crate) fn into_parts(self) -> (String, String) {
        (self.code.into_owned(), self.message.into_owned())
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.message)
    }
}

impl std::error::Error for Error {}

impl From<serde_json::Error> for Error {
    /// Of the words of `serde_json` only those are told that cannot repeat a value: what was expected, and where.
    fn from(error: serde_json::Error) -> Self {
        let expected = expectation(&error);
        let message = match (error.is_data(), expected) {
            (true, Some(expected)) => format!("the value has another shape than expected: {expected}"),
            (true, None) => "the value has another shape than expected".to_owned(),
            (false, _) => "the value is not JSON".to_owned(),
        };
        let (line, column) = (error.line(), error.column());
        let place = if line == 0 { String::new() } else { format!(", at line {line} column {column}") };
        Self { code: "shape".into(), message: (message + &place).into() }
    }
}

/// What a type expected, which is told by the type alone.
pub(crate) fn expectation(error: &serde_json::Error) -> Option<String> {
    let words = error.to_string();
    let words = match words.rfind(" at line ") {
        Some(place) => &words[..place],
        None => &words,
    };
    if words.starts_with("missing field `") {
        return Some(words.to_owned());
    }
    // What stands before it may be the value.
    let expected = words.rfind(", expected ")?;
    Some(words[expected + ", ".len()..].to_owned())
}

macro_rules! from {
    ($($error:ty: $message:literal,)*) => {
        $(impl From<$error> for Error {
            fn from(_: $error) -> Self {
                Self::new("value", $message)
            }
        })*
    };
}

from! {
    std::num::ParseIntError: "a text is not an integer, or one that is out of range",
    std::num::ParseFloatError: "a text is not a number",
    std::num::TryFromIntError: "an integer is out of range",
    std::str::Utf8Error: "a text is not UTF-8",
    std::string::FromUtf8Error: "a text is not UTF-8",
}

/// Returns with an [`Error`]: its code, then its message as for `format!`.
///
/// ```
/// # use txconnect_transform::{Result, bail};
/// fn limited(amount: i64) -> Result<i64> {
///     if amount > 1_000_000 {
///         bail!("amount_too_large", "the amount is larger than {}", 1_000_000);
///     }
///     Ok(amount)
/// }
/// assert_eq!(limited(1_000_001).unwrap_err().code(), "amount_too_large");
/// ```
#[macro_export]
macro_rules! bail {
    ($code:expr, $($message:tt)+) => {
        return ::core::result::Result::Err($crate::Error::new($code, ::std::format!($($message)+)))
    };
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Payment {
        #[serde(rename = "amount")]
        _amount: u32,
    }

    #[test]
    fn what_was_expected_is_told_and_what_was_there_is_not() {
        for (json, message) in [
            (
                r#"{"amount":"secret"}"#,
                "the value has another shape than expected: expected u32, at line 1 column 18",
            ),
            (
                r#"{"amount":"secret, expected secret"}"#,
                "the value has another shape than expected: expected u32, at line 1 column 35",
            ),
            ("{}", "the value has another shape than expected: missing field `amount`, at line 1 column 2"),
            (
                r#"{"secret":1}"#,
                "the value has another shape than expected: expected `amount`, at line 1 column 9",
            ),
            (r#"{"amount":secret}"#, "the value is not JSON, at line 1 column 11"),
        ] {
            let error = Error::from(serde_json::from_str::<Payment>(json).unwrap_err());
            assert_eq!((error.code(), error.message()), ("shape", message));
        }
    }
}
