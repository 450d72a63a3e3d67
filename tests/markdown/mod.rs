//! The fenced blocks of the documentation, each with the comment that stands before it.
//!
//! | comment | the block is |
//! |---|---|
//! | `run` | commands that the test runs |
//! | `run with kafka` | commands that it runs where there is a broker |
//! | `not run: why` | commands that it cannot run |
//! | `file: path` | a file that the reader is told to write |
//! | `output: of what` | what a command says |
//! | `pipeline` | a whole pipeline file |

use std::fs;
use std::path::{Path, PathBuf};

/// One block.
pub(crate) struct Block {
    /// Where it starts, as `file:line`.
    pub(crate) place: String,
    /// The comment before it.
    pub(crate) comment: Option<String>,
    /// What it is written in.
    pub(crate) language: String,
    /// What stands between the fences.
    pub(crate) text: String,
}

/// A path of the repository.
pub(crate) fn in_repository(path: impl AsRef<Path>) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// The blocks of a file of the repository, in order.
pub(crate) fn blocks(file: &str) -> Vec<Block> {
    let text = fs::read_to_string(in_repository(file)).unwrap();
    let mut lines = text.lines().enumerate();
    let mut comment = None;
    let mut found = Vec::new();
    while let Some((index, line)) = lines.next() {
        if let Some(language) = line.strip_prefix("```") {
            let inside: Vec<&str> =
                lines.by_ref().map(|(_, line)| line).take_while(|line| *line != "```").collect();
            found.push(Block {
                place: format!("{file}:{}", index + 1),
                comment: comment.take(),
                language: language.to_owned(),
                text: inside.join("\n") + "\n",
            });
        } else {
            let inside = line.strip_prefix("<!-- ").and_then(|rest| rest.strip_suffix(" -->"));
            comment = inside.map(str::to_owned);
        }
    }
    found
}

/// Copies the files of a folder of the repository into `to`, where a folder of the same name is made.
pub(crate) fn copy_folder(folder: &str, to: &Path) {
    fs::create_dir_all(to.join(folder)).unwrap();
    for entry in fs::read_dir(in_repository(folder)).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, to.join(folder).join(path.file_name().unwrap())).unwrap();
    }
}
