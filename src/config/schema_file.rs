//! The JSON Schema of a topic: read, compiled, turned into columns.

use std::fmt;
use std::io::Read;
use std::path::{Path, PathBuf};

use txconnect_connector_api::{ConfigProblem, TableSchema};

use super::locate::{Mark, locate};
use super::located::{Located, Spot, line_and_column};
use super::model::ValidateSettings;
use super::registry::TableDemands;
use crate::stages::validate::Validator;

/// The largest schema file.
const MAX_FILE_BYTES: u64 = 4 << 20;

/// What the records of a topic must look like.
pub struct TopicSchema {
    /// Checks records.
    pub validator: Validator,
    /// The columns. Always set where the sink needs them.
    pub table: Option<TableSchema>,
}

impl fmt::Debug for TopicSchema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TopicSchema").field("table", &self.table).finish_non_exhaustive()
    }
}

/// Why a topic has no schema.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SchemaError {
    /// The file cannot be read.
    #[error("the schema `{}` of topic `{topic}` {why}", file.display())]
    Unreadable {
        /// The topic.
        topic: String,
        /// The schema's file.
        file: PathBuf,
        /// Why, to be read behind the file's name.
        why: String,
    },
    /// The file is no JSON Schema, or gives no table.
    #[error("the schema of topic `{topic}` is wrong: {}", first_of(file, faults))]
    Faulty {
        /// The topic.
        topic: String,
        /// The schema's file.
        file: PathBuf,
        /// All mistakes; at least one.
        faults: Vec<SchemaFault>,
    },
    /// The sink does not take records with these columns.
    #[error("the sink does not take the columns of topic `{topic}`: {}", first_problem(problems))]
    Refused {
        /// The topic.
        topic: String,
        /// Why; paths are JSON pointers inside the sink's block. At least one.
        problems: Vec<ConfigProblem>,
    },
}

/// One mistake in a schema file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SchemaFault {
    /// The line, from 1.
    pub line: usize,
    /// The column in characters, from 1.
    pub column: usize,
    /// Where in the schema, as a JSON pointer; empty for the whole.
    pub pointer: String,
    /// What is wrong.
    pub message: String,
}

fn first_of(file: &Path, faults: &[SchemaFault]) -> String {
    let Some(first) = faults.first() else { return file.display().to_string() };
    let SchemaFault { line, column, pointer, message } = first;
    let pointer = if pointer.is_empty() { String::new() } else { format!("{pointer}: ") };
    let more = match faults.len() {
        1 => String::new(),
        count => format!(" (and {} more)", count - 1),
    };
    format!("{}:{line}:{column}: {pointer}{message}{more}", file.display())
}

fn first_problem(problems: &[ConfigProblem]) -> String {
    let Some(first) = problems.first() else { return String::new() };
    let help = first.help.as_ref().map(|help| format!("; {help}")).unwrap_or_default();
    let more = match problems.len() {
        1 => String::new(),
        count => format!(" (and {} more)", count - 1),
    };
    format!("{}{help}{more}", first.message)
}

/// Reads the schema of `topic` and checks that the sink takes its columns.
pub(super) fn read_schema(
    topic: &str,
    validate: &ValidateSettings,
    base_dir: &Path,
    demands: &TableDemands,
) -> Result<TopicSchema, SchemaError> {
    let file = base_dir.join(validate.schema.for_topic(topic));
    let unreadable =
        |why: String| SchemaError::Unreadable { topic: topic.to_owned(), file: file.clone(), why };
    let faulty = |faults| SchemaError::Faulty { topic: topic.to_owned(), file: file.clone(), faults };
    let text = read_text(&file).map_err(unreadable)?;
    let schema: serde_json::Value = serde_json::from_str(&text).map_err(|error| {
        let (line, column) = json_position(&text, &error);
        let message = format!("this is not JSON: {}", without_position(&error));
        faulty(vec![SchemaFault { line, column, pointer: String::new(), message }])
    })?;
    let positions = Positions::of(&file, &text);
    let fault = |pointer: &str, message: &str| {
        let (line, column) = positions.find(pointer);
        SchemaFault { line, column, pointer: pointer.to_owned(), message: message.to_owned() }
    };
    let validator = Validator::compile(&schema).map_err(|mistakes| {
        faulty(mistakes.iter().map(|mistake| fault(&mistake.pointer, &mistake.message)).collect())
    })?;
    let table = match TableSchema::from_json_schema(&schema, validate.unknown_fields) {
        Ok(table) => Some(table),
        Err(problems) if demands.columns_needed => {
            return Err(faulty(
                problems.iter().map(|problem| fault(&problem.pointer, &problem.message)).collect(),
            ));
        }
        Err(_) => None,
    };
    let problems = demands.problems(topic, table.as_ref());
    if problems.is_empty() {
        Ok(TopicSchema { validator, table })
    } else {
        Err(SchemaError::Refused { topic: topic.to_owned(), problems })
    }
}

fn read_text(file: &Path) -> Result<String, String> {
    let cannot = |error: &std::io::Error| match error.kind() {
        std::io::ErrorKind::NotFound => "does not exist".to_owned(),
        std::io::ErrorKind::InvalidData => "is not UTF-8 text".to_owned(),
        kind => format!("cannot be read: {kind}"),
    };
    // A pipe or a device could keep us waiting for ever.
    if !std::fs::metadata(file).map_err(|error| cannot(&error))?.is_file() {
        return Err("is not a regular file".into());
    }
    let mut text = String::new();
    std::fs::File::open(file)
        .and_then(|opened| opened.take(MAX_FILE_BYTES + 1).read_to_string(&mut text))
        .map_err(|error| cannot(&error))?;
    if text.len() as u64 > MAX_FILE_BYTES {
        return Err("is larger than 4MiB".into());
    }
    Ok(text)
}

/// Where JSON parsing stopped; serde counts columns in bytes.
fn json_position(text: &str, error: &serde_json::Error) -> (usize, usize) {
    let line = error.line().max(1);
    let line_start = match line {
        1 => 0,
        _ => text.match_indices('\n').nth(line - 2).map_or(text.len(), |(index, _)| index + 1),
    };
    let (_, column) = line_and_column(text, line_start);
    let mut byte = (line_start + error.column().saturating_sub(1)).min(text.len());
    while !text.is_char_boundary(byte) {
        byte -= 1;
    }
    (line, column + text[line_start..byte].chars().count())
}

/// serde's words without ` at line 1 column 2`, which the place says already.
fn without_position(error: &serde_json::Error) -> String {
    let words = error.to_string();
    words.rsplit_once(" at line ").map_or(words.clone(), |(words, _)| words.to_owned())
}

/// Where the values of a schema file stand. JSON is YAML, apart from rare escapes: then the file's start.
struct Positions(Option<Located>);

impl Positions {
    fn of(file: &Path, text: &str) -> Self {
        Self(locate(text).root.map(|root| Located {
            file: file.into(),
            root,
            hidden: Vec::new(),
            override_keys: std::sync::Arc::from(Vec::new()),
        }))
    }

    fn find(&self, pointer: &str) -> (usize, usize) {
        use super::diagnose::Place;
        let Some(located) = &self.0 else { return (1, 1) };
        if pointer.is_empty() {
            return match located.root.mark {
                Mark::At { line, column } => (line, column),
                Mark::Override(_) => (1, 1),
            };
        }
        match located.error(pointer, Spot::Key, "", None).place {
            Place::Position { line, column, .. } => (line, column),
            Place::WholeFile(_) | Place::Override { .. } => (1, 1),
        }
    }
}
