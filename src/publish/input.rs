//! The files that `publish` reads and the topics they go to.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// Where records are read from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// The standard input.
    Stdin,
    /// A file.
    File(PathBuf),
}

impl Input {
    /// The input that a command line argument names: a path, or `-` for the standard input.
    pub fn from_argument(path: PathBuf) -> Self {
        if path.as_os_str() == "-" { Self::Stdin } else { Self::File(path) }
    }

    /// Opens the input. Answers its size in bytes too, where it has one.
    pub fn open(&self) -> io::Result<(Box<dyn Read + Send>, Option<u64>)> {
        match self {
            Self::Stdin => Ok((Box::new(io::stdin()), None)),
            Self::File(path) => {
                let file = File::open(path)?;
                let metadata = file.metadata()?;
                if metadata.is_dir() {
                    return Err(io::Error::new(io::ErrorKind::IsADirectory, "it is a folder; use --dir"));
                }
                let size = metadata.is_file().then_some(metadata.len());
                Ok((Box::new(file), size))
            }
        }
    }
}

impl fmt::Display for Input {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stdin => f.write_str("standard input"),
            Self::File(path) => path.display().fmt(f),
        }
    }
}

/// A file whose name says its topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicFile {
    /// The topic: the file's name without `.json` or `.ndjson`.
    pub topic: String,
    /// The file.
    pub path: PathBuf,
    /// Its size in bytes.
    pub bytes: u64,
}

/// Why a folder gives no topics.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// The folder cannot be read.
    #[error("cannot read the folder {}: {cause}", folder.display())]
    Read {
        /// The folder.
        folder: PathBuf,
        /// Why not.
        cause: io::Error,
    },
    /// The folder has no file of the kind.
    #[error("{} holds no file called <topic>.json or <topic>.ndjson", .0.display())]
    Empty(PathBuf),
    /// A file's name is no topic.
    #[error("{}: `{name}` is no topic name; topics have up to 249 letters, digits, `.`, `_` or `-`", path.display())]
    NotATopic {
        /// The file.
        path: PathBuf,
        /// Its name without the ending.
        name: String,
    },
}

/// Every `<topic>.json` and `<topic>.ndjson` of `folder`, by name. Hidden files are passed over.
pub fn topic_files(folder: &Path) -> Result<Vec<TopicFile>, FolderError> {
    let unreadable = |cause| FolderError::Read { folder: folder.to_owned(), cause };
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        let named = path.extension().is_some_and(|extension| extension == "json" || extension == "ndjson");
        let metadata = std::fs::metadata(&path).map_err(unreadable)?;
        if !named || !metadata.is_file() {
            continue;
        }
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        if name.starts_with('.') {
            continue;
        }
        if !is_topic_name(&name) {
            return Err(FolderError::NotATopic { path, name });
        }
        files.push(TopicFile { topic: name, path, bytes: metadata.len() });
    }
    if files.is_empty() {
        return Err(FolderError::Empty(folder.to_owned()));
    }
    files.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(files)
}

/// Whether Kafka takes `name` for a topic.
pub fn is_topic_name(name: &str) -> bool {
    (1..=249).contains(&name.len())
        && name != "."
        && name != ".."
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_gives_one_topic_for_each_json_file() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["b.ndjson", "a.json", "notes.txt", ".hidden.json"] {
            std::fs::write(folder.path().join(name), "[1]").unwrap();
        }
        std::fs::create_dir(folder.path().join("c.json")).unwrap();
        let files = topic_files(folder.path()).unwrap();
        let found: Vec<_> = files.iter().map(|file| (file.topic.as_str(), file.bytes)).collect();
        assert_eq!(found, [("a", 3), ("b", 3)]);
    }

    #[test]
    fn folders_without_topics_are_refused_with_the_reason() {
        let folder = tempfile::tempdir().unwrap();
        assert!(matches!(topic_files(folder.path()), Err(FolderError::Empty(_))));
        assert!(matches!(topic_files(&folder.path().join("none")), Err(FolderError::Read { .. })));
        std::fs::write(folder.path().join("not a topic.json"), "[]").unwrap();
        let error = topic_files(folder.path()).unwrap_err().to_string();
        assert!(error.contains("`not a topic` is no topic name"), "{error}");
    }

    #[test]
    fn a_folder_given_as_a_file_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let Err(error) = Input::File(folder.path().to_owned()).open() else { panic!("a folder was opened") };
        assert_eq!(error.to_string(), "it is a folder; use --dir");
    }

    #[test]
    fn topic_names_follow_the_rules_of_kafka() {
        assert!(is_topic_name("cash_ins.v1-a"));
        for wrong in ["", ".", "..", "a b", "ä", "a/b"] {
            assert!(!is_topic_name(wrong), "{wrong}");
        }
        assert!(!is_topic_name(&"a".repeat(250)));
    }
}
