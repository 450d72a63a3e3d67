//! A new folder: the template of a language, its SDK in `sdk/` and the interface in `wit/`.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::Path;

use super::super::CommandError;
use super::Language;

/// What stands for the transform's name.
const NAME: &str = "{{name}}";
/// What stands for the name where `-` cannot stand.
const IDENTIFIER: &str = "{{crate}}";

/// The files of a new folder, by their paths in it.
pub(super) struct NewFolder {
    files: BTreeMap<String, Vec<u8>>,
    language: Language,
}

impl NewFolder {
    /// What the folder of transform `name` holds, taken from `sources`.
    pub(super) fn plan(
        name: &str,
        language: Language,
        sources: &[(&str, &[u8])],
    ) -> Result<Self, CommandError> {
        let template = format!("templates/{}/", language.folder());
        let sdk = format!("{}/", language.folder());
        let filled = |text: &str| text.replace(NAME, name).replace(IDENTIFIER, &name.replace('-', "_"));
        let mut files = BTreeMap::new();
        let mut has_template = false;
        for (path, bytes) in sources {
            if let Some(path) = path.strip_prefix(&template) {
                has_template = true;
                let bytes = match std::str::from_utf8(bytes) {
                    Ok(text) => filled(text).into_bytes(),
                    Err(_) => bytes.to_vec(),
                };
                files.insert(filled(path), bytes);
            } else if let Some(path) = path.strip_prefix(&sdk) {
                files.insert(format!("sdk/{path}"), bytes.to_vec());
            } else if path.starts_with("wit/") {
                files.insert((*path).to_owned(), bytes.to_vec());
            }
        }
        if !has_template {
            return Err(CommandError::Failed(format!(
                "this txconnect was built without the sources for transforms in {}; build it from the whole repository",
                language.folder()
            )));
        }
        Ok(Self { files, language })
    }

    /// Whether the folder has a file.
    pub(super) fn has(&self, path: &str) -> bool {
        self.files.contains_key(path)
    }

    /// Where a person looks first.
    pub(super) fn first_steps(&self) -> String {
        let code = match self.language {
            Language::Rust => "src/lib.rs",
            Language::Js => "transform.js",
            Language::Python => "app.py",
        };
        match (self.has("README.md"), self.has(code)) {
            (true, true) => format!("README.md says how to go on, {code} is what it does"),
            (true, false) => "README.md says how to go on".to_owned(),
            (false, _) => "change it to your needs".to_owned(),
        }
    }

    /// Writes everything into `folder`, which must be empty or not be there. No file is overwritten.
    pub(super) fn write(&self, folder: &Path) -> Result<(), CommandError> {
        let cannot = |what: &Path, error: &io::Error| {
            CommandError::Failed(format!("cannot write {}: {error}", what.display()))
        };
        match fs::read_dir(folder).map(|mut entries| entries.next().is_some()) {
            Ok(true) => {
                return Err(CommandError::Usage(format!(
                    "{} is there and not empty; choose another name, or another --dir",
                    folder.display()
                )));
            }
            Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
                return Err(CommandError::Usage(format!("{} is there and no folder", folder.display())));
            }
            Ok(false) | Err(_) => {}
        }
        for (path, bytes) in &self.files {
            let path = folder.join(path);
            if let Some(parent) = path.parent() {
                fs::create_dir_all(parent).map_err(|error| cannot(parent, &error))?;
            }
            OpenOptions::new()
                .write(true)
                .create_new(true)
                .open(&path)
                .and_then(|mut file| file.write_all(bytes))
                .map_err(|error| cannot(&path, &error))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOURCES: &[(&str, &[u8])] = &[
        ("js/index.js", b"sdk of another language"),
        ("rust/src/lib.rs", b"{{name}} stays in the SDK"),
        ("templates/rust/Cargo.toml", b"name = \"{{name}}\" # {{crate}} {{other}}"),
        ("templates/rust/src/{{crate}}.rs", b"\xff{{name}}"),
        ("wit/1.0.0/transform.wit", b"package"),
    ];

    #[test]
    fn a_folder_is_template_sdk_and_interface() {
        let plan = NewFolder::plan("drop-tests", Language::Rust, SOURCES).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("below/drop-tests");
        plan.write(&folder).unwrap();
        let read = |path: &str| fs::read(folder.join(path)).unwrap();
        assert_eq!(read("Cargo.toml"), b"name = \"drop-tests\" # drop_tests {{other}}");
        assert_eq!(read("src/drop_tests.rs"), b"\xff{{name}}");
        assert_eq!(read("sdk/src/lib.rs"), b"{{name}} stays in the SDK");
        assert_eq!(read("wit/1.0.0/transform.wit"), b"package");
        assert!(!folder.join("sdk/index.js").exists());
    }

    #[test]
    fn a_folder_that_holds_something_is_left_alone() {
        let plan = NewFolder::plan("a", Language::Rust, SOURCES).unwrap();
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("mine"), "x").unwrap();
        let error = plan.write(dir.path()).unwrap_err();
        assert!(
            matches!(&error, CommandError::Usage(why) if why.contains("is there and not empty")),
            "{error}"
        );
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        let error = plan.write(&dir.path().join("mine")).unwrap_err();
        assert!(matches!(&error, CommandError::Usage(why) if why.contains("no folder")), "{error}");
    }

    #[test]
    fn a_language_without_a_template_is_refused() {
        let Err(error) = NewFolder::plan("a", Language::Python, SOURCES) else {
            panic!("made without a template")
        };
        assert!(error.to_string().contains("python"), "{error}");
    }
}
