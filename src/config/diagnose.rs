//! Mistakes in plain words: where, what is wrong, how to mend it.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Where a mistake is. Lines and columns count from 1; columns count characters.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// A file as a whole: it is missing, too large or not text.
    WholeFile(Arc<Path>),
    /// A position in a file.
    Position {
        /// The file, as it was named on the command line or in the pipeline file.
        file: Arc<Path>,
        /// The line.
        line: usize,
        /// The column.
        column: usize,
    },
    /// A `--set` on the command line. Its value is not kept: it may be a secret.
    Override {
        /// The file it was applied to, where that matters.
        file: Option<Arc<Path>>,
        /// The key, as written.
        key: String,
    },
}

/// How bad a mistake is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Nothing can run.
    Error,
    /// It runs, but may not be what was meant.
    Warning,
}

/// One mistake. Never holds a value that came from a variable or a secret file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mistake {
    /// Where it is.
    pub place: Place,
    /// How bad it is.
    pub severity: Severity,
    /// The key in the file, for example `sink.bigquery.dataset`; empty where there is none.
    pub path: String,
    /// What is wrong.
    pub message: String,
    /// How to mend it.
    pub help: Option<String>,
}

impl Mistake {
    /// A mistake that keeps everything from running.
    pub fn error(place: Place, path: impl Into<String>, message: impl Into<String>) -> Self {
        Self { place, severity: Severity::Error, path: path.into(), message: message.into(), help: None }
    }

    /// Something that may be meant.
    pub fn warning(place: Place, path: impl Into<String>, message: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, ..Self::error(place, path, message) }
    }

    /// A file that cannot be read as a whole.
    pub fn whole_file(file: impl Into<PathBuf>, message: impl Into<String>) -> Self {
        Self::error(Place::WholeFile(file.into().into()), "", message)
    }

    /// The same with a way out.
    #[must_use]
    pub fn with_help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::WholeFile(file) => write!(f, "{}", file.display()),
            Place::Position { file, line, column } => write!(f, "{}:{line}:{column}", file.display()),
            Place::Override { file: None, key } => write!(f, "--set {key}"),
            Place::Override { file: Some(file), key } => write!(f, "--set {key} ({})", file.display()),
        }
    }
}

/// `file:line:column: error: path: message`, then `  help: …` on a line of its own.
impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let severity = match self.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        write!(f, "{}: {severity}: ", self.place)?;
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.message)?;
        match &self.help {
            Some(help) => write!(f, "\n  help: {help}"),
            None => Ok(()),
        }
    }
}

/// Everything that was found, sorted by place. Holds at least one error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistakes(Vec<Mistake>);

impl Mistakes {
    /// Sorts what was found. Without an error among it, the warnings come back as they are.
    pub fn from_findings(mut findings: Vec<Mistake>) -> Result<Vec<Mistake>, Mistakes> {
        findings.sort();
        findings.dedup();
        if findings.iter().any(|mistake| mistake.severity == Severity::Error) {
            Err(Self(findings))
        } else {
            Ok(findings)
        }
    }

    /// The mistakes and warnings, sorted by place.
    pub fn as_slice(&self) -> &[Mistake] {
        &self.0
    }

    /// How many errors and how many warnings there are.
    pub fn counts(&self) -> (usize, usize) {
        let errors = self.0.iter().filter(|mistake| mistake.severity == Severity::Error).count();
        (errors, self.0.len() - errors)
    }
}

/// Every mistake, then a line with the counts.
impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for mistake in &self.0 {
            writeln!(f, "{mistake}")?;
        }
        let (errors, warnings) = self.counts();
        f.write_str(&counted(errors, "mistake"))?;
        if warnings > 0 {
            write!(f, ", {}", counted(warnings, "warning"))?;
        }
        Ok(())
    }
}

impl std::error::Error for Mistakes {}

fn counted(count: usize, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}

/// The candidate that `word` was probably meant to be.
pub(super) fn closest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let shape = |text: &str| text.to_lowercase().replace(['-', ' ', '.'], "_");
    let wanted = shape(word);
    candidates
        .into_iter()
        // Two words of very different lengths are never close, and comparing a giant one would take for ever.
        .filter(|candidate| word.len().abs_diff(candidate.len()) <= candidate.len())
        .map(|candidate| (strsim::damerau_levenshtein(&wanted, &shape(candidate)), candidate))
        .filter(|(distance, candidate)| {
            *distance <= (candidate.len().min(word.len()) / 3).max(1) && *distance < candidate.len()
        })
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// `a`, `b` or `c`, each in backquotes.
pub(super) fn one_of<'a>(words: impl IntoIterator<Item = &'a str>) -> String {
    let quoted: Vec<String> = words.into_iter().map(|word| format!("`{word}`")).collect();
    match quoted.split_last() {
        None => String::new(),
        Some((last, [])) => last.clone(),
        Some((last, rest)) => format!("{} or {last}", rest.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(line: usize, column: usize) -> Place {
        Place::Position { file: Path::new("a.yaml").into(), line, column }
    }

    #[test]
    fn mistakes_are_sorted_by_place_and_counted() {
        let findings = vec![
            Mistake::error(at(10, 1), "b", "late"),
            Mistake::warning(at(9, 7), "a", "odd").with_help("mend it"),
            Mistake::error(at(9, 1), "a", "early"),
            Mistake::error(at(9, 1), "a", "early"),
        ];
        let mistakes = Mistakes::from_findings(findings).unwrap_err();
        assert_eq!(
            mistakes.to_string(),
            "a.yaml:9:1: error: a: early\n\
             a.yaml:9:7: warning: a: odd\n  help: mend it\n\
             a.yaml:10:1: error: b: late\n\
             2 mistakes, 1 warning"
        );
    }

    #[test]
    fn warnings_alone_stop_nothing() {
        let findings = vec![Mistake::warning(at(1, 1), "", "odd")];
        assert_eq!(Mistakes::from_findings(findings).unwrap().len(), 1);
    }

    #[test]
    fn a_typing_error_finds_its_word_and_nonsense_does_not() {
        let words = ["dataset", "project", "table", "table_changes", "in_flight"];
        assert_eq!(closest("datset", words), Some("dataset"));
        assert_eq!(closest("Table", words), Some("table"));
        assert_eq!(closest("inFlight", words), Some("in_flight"));
        assert_eq!(closest("in-flight", words), Some("in_flight"));
        assert_eq!(closest("zebra", words), None);
        assert_eq!(closest("x", ["a"]), None);
    }

    #[test]
    fn lists_of_words_read_as_a_sentence() {
        assert_eq!(one_of(["a"]), "`a`");
        assert_eq!(one_of(["a", "b", "c"]), "`a`, `b` or `c`");
    }
}
