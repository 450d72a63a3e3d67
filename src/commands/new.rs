//! `txconnect new`: the beginnings of what users write themselves.

mod folder;
mod sources;

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use self::folder::NewFolder;
use super::{CommandError, print_result};

/// Make a folder for something of your own.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  txconnect new transform mask_account --lang rust
  txconnect new transform mask_account --lang python --dir transforms/")]
pub struct NewArguments {
    /// What to make.
    #[command(subcommand)]
    pub command: NewCommand,
}

/// What can be made.
#[derive(Debug, Subcommand)]
pub enum NewCommand {
    /// A folder in which a transform can be written, built and tested
    ///
    /// It holds a small transform that works, records to try it with, what they should become, and all sources that it is
    /// built with: nothing of txconnect is fetched from anywhere.
    Transform(NewTransformArguments),
}

/// What `new transform` is told.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  txconnect new transform mask_account --lang rust
  txconnect new transform drop-tests --lang js --dir transforms/
      Makes transforms/drop-tests.")]
pub struct NewTransformArguments {
    /// Its name: small letters, digits, `_` and `-`, a letter first
    #[arg(value_name = "NAME", value_parser = transform_name)]
    pub name: String,
    /// The language to write it in
    #[arg(long, value_enum, value_name = "LANGUAGE")]
    pub lang: Language,
    /// Where the folder is made [default: here]
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
}

/// A language that transforms are written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Language {
    /// Rust: the fastest, about a hundred kilobytes
    Rust,
    /// JavaScript or TypeScript
    Js,
    /// Python
    Python,
}

impl Language {
    /// Its folder among the sources.
    fn folder(self) -> &'static str {
        match self {
            Self::Rust => "rust",
            Self::Js => "js",
            Self::Python => "python",
        }
    }
}

/// The longest name of a transform.
const LONGEST_NAME: usize = 64;
/// Words that cannot name a crate or a package, and folders that stand in every new folder.
const TAKEN: &[&str] = &[
    "abstract", "as", "async", "await", "become", "box", "break", "class", "const", "continue", "crate",
    "def", "del", "do", "dyn", "else", "enum", "extern", "false", "final", "fn", "for", "from", "gen",
    "global", "if", "impl", "import", "in", "is", "lambda", "let", "loop", "macro", "match", "mod", "move",
    "mut", "not", "or", "override", "pass", "priv", "pub", "raise", "ref", "return", "sdk", "self", "static",
    "struct", "super", "target", "test", "trait", "true", "try", "type", "typeof", "unsafe", "unsized",
    "use", "virtual", "where", "while", "wit", "with", "yield",
];

fn transform_name(text: &str) -> Result<String, String> {
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '_' | '-');
    if !text.starts_with(|c: char| c.is_ascii_lowercase())
        || text.len() > LONGEST_NAME
        || !text.chars().all(fits)
        || text.ends_with(['_', '-'])
    {
        return Err(format!(
            "a transform's name has at most {LONGEST_NAME} small letters, digits, `_` and `-`, begins with a letter and \
             ends with a letter or digit"
        ));
    }
    if TAKEN.contains(&text) {
        return Err(
            "this word is taken; choose another one, for example with `_transform` behind it".to_owned()
        );
    }
    Ok(text.to_owned())
}

/// Makes what the arguments name.
pub fn make(arguments: &NewArguments) -> Result<(), CommandError> {
    let NewCommand::Transform(arguments) = &arguments.command;
    let folder = match &arguments.dir {
        Some(dir) => dir.join(&arguments.name),
        None => PathBuf::from(&arguments.name),
    };
    let plan = NewFolder::plan(&arguments.name, arguments.lang, sources::SOURCES)?;
    plan.write(&folder)?;
    let (place, name) = (folder.display(), &arguments.name);
    let config =
        if plan.has("config.json") { format!(" --config @{place}/config.json") } else { String::new() };
    print_result(&format!(
        "made {place}/ with a transform that works; {}\nNext:\n  txconnect transform build {place}\n  \
         txconnect transform test {place}/{name}.wasm --input {place}/records.ndjson --expect \
         {place}/expected.ndjson{config}\n  txconnect transform inspect {place}/{name}.wasm\n",
        plan.first_steps(),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_suit_folders_crates_and_packages() {
        for name in ["a", "mask_account", "drop-tests2"] {
            assert!(transform_name(name).is_ok(), "{name}");
        }
        let long = "a".repeat(65);
        for name in ["", "2a", "A", "a b", "a/b", "..", "a-", "match", "sdk", "ä", long.as_str()] {
            assert!(transform_name(name).is_err(), "{name}");
        }
    }

    #[test]
    fn the_words_that_are_taken_are_sorted() {
        assert!(TAKEN.is_sorted());
    }
}
