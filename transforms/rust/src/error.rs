//! Why a record could not be transformed.

use std::fmt;

/// What transforms return.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a record could not be transformed. It goes to the dead letter topic with these words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    pub(crate) code: String,
    pub(crate) message: String,
}

impl Error {
    /// A failure of one record: a short stable code of small letters, digits and `_`, by which dead letters are counted,
    /// and what is wrong, without values of the record.
    pub fn new(code: impl Into<String>, message: impl Into<String>) -> Self {
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
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.message)
    }
}

impl std::error::Error for Error {}

impl From<serde_json::Error> for Error {
    /// The words of `serde_json` may repeat the value, so only the place is told.
    fn from(error: serde_json::Error) -> Self {
        let kind = match error.classify() {
            serde_json::error::Category::Data => "has another shape than the transform expects",
            _ => "is not JSON",
        };
        let (line, column) = (error.line(), error.column());
        let message = if line == 0 {
            format!("the value {kind}")
        } else {
            format!("the value {kind}, at line {line} column {column}")
        };
        Self { code: "shape".to_owned(), message }
    }
}
