//! `txconnect transform build`: sources to a component.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use serde_json::Value;
use txconnect_transform_host::Limits;

use super::super::{CommandError, print_result};
use super::toolchain::Tool;
use super::{BuildArguments, as_written, load_with_what_it_wants};
use crate::terminal::numbers::{counted, span};

/// How Rust is installed, with the machine that components are compiled for.
const INSTALL_RUST: &str = "install Rust: `curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh`, then `rustup \
                            target add wasm32-wasip2`";
/// How Node is installed.
const INSTALL_NODE: &str =
    "install Node.js 20 or later, which brings npm: https://nodejs.org, or `apt-get install nodejs npm`";
/// How Python is installed.
const INSTALL_PYTHON: &str =
    "install Python 3.10 or later with its module venv: `apt-get install python3 python3-venv`";
/// What turns Python into a component, where a folder has no requirements.txt that says so.
const COMPONENTIZE_PY: &str = "componentize-py==0.25.1";

/// What lies in a folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sources {
    Rust,
    JavaScript,
    Python,
}

impl Sources {
    /// By the files that lie in `folder`.
    fn of(folder: &Path) -> Option<Self> {
        let has = |name: &str| folder.join(name).is_file();
        if has("Cargo.toml") {
            Some(Self::Rust)
        } else if has("package.json") {
            Some(Self::JavaScript)
        } else if has("app.py") || has("pyproject.toml") || has("requirements.txt") {
            Some(Self::Python)
        } else {
            None
        }
    }
}

/// Builds what the arguments name.
pub(super) fn build(arguments: &BuildArguments) -> Result<(), CommandError> {
    let started = Instant::now();
    let written = arguments.dir.clone().unwrap_or_else(|| PathBuf::from("."));
    let folder = fs::canonicalize(&written)
        .map_err(|error| CommandError::Usage(format!("cannot open {}: {error}", written.display())))?;
    let name = folder
        .file_name()
        .and_then(|name| name.to_str())
        .ok_or_else(|| CommandError::Usage(format!("{} has no name to build under", folder.display())))?;
    let sources = Sources::of(&folder).ok_or_else(|| {
        CommandError::Usage(format!(
            "{} holds no transform: neither Cargo.toml, package.json nor app.py\n  help: `txconnect new transform NAME \
             --lang rust` makes a folder that does",
            written.display()
        ))
    })?;
    let component = folder.join(format!("{name}.wasm"));
    match sources {
        Sources::Rust => build_rust(&folder, &component, arguments.verbose)?,
        Sources::JavaScript => build_javascript(&folder, &component, arguments.verbose)?,
        Sources::Python => build_python(&folder, &component, arguments.verbose)?,
    }
    let shown = if written == Path::new(".") {
        PathBuf::from(format!("{name}.wasm"))
    } else {
        written.join(format!("{name}.wasm"))
    };
    let (module, wanted) = load_with_what_it_wants(&component, Limits::default())?;
    let description = module.description();
    let grants = if wanted.is_empty() {
        String::new()
    } else {
        format!("; in a pipeline it needs `{}`", as_written(&wanted))
    };
    print_result(&format!(
        "{}: {} {}, {}, built in {}{grants}\n",
        shown.display(),
        description.name,
        description.version,
        counted(module.size(), "byte", "bytes"),
        span(started.elapsed()),
    ))
}

fn copy(from: &Path, to: &Path) -> Result<(), CommandError> {
    fs::copy(from, to).map(|_| ()).map_err(|error| {
        CommandError::Failed(format!("cannot copy {} to {}: {error}", from.display(), to.display()))
    })
}

fn build_rust(folder: &Path, component: &Path, verbose: bool) -> Result<(), CommandError> {
    let tool = Tool { folder, verbose, install: INSTALL_RUST };
    let arguments =
        ["build", "--release", "--target", "wasm32-wasip2", "--message-format", "json-render-diagnostics"];
    let messages = tool.run("cargo", &arguments)?;
    let built = built_by_cargo(&messages, &folder.join("Cargo.toml")).ok_or_else(|| {
        CommandError::Failed(format!(
            "cargo has built no component in {}\n  help: write `[lib]` with `crate-type = [\"cdylib\"]` in its Cargo.toml",
            folder.display()
        ))
    })?;
    copy(&built, component)
}

/// The component that cargo says it has made of a manifest.
fn built_by_cargo(messages: &str, manifest: &Path) -> Option<PathBuf> {
    messages.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()).find_map(|message| {
        let text = |key: &str| message.get(key).and_then(Value::as_str);
        if text("reason") != Some("compiler-artifact")
            || text("manifest_path").map(Path::new) != Some(manifest)
        {
            return None;
        }
        let files = message.get("filenames")?.as_array()?;
        let is_component = |file: &PathBuf| file.extension().is_some_and(|extension| extension == "wasm");
        files.iter().filter_map(Value::as_str).map(PathBuf::from).find(is_component)
    })
}

fn build_javascript(folder: &Path, component: &Path, verbose: bool) -> Result<(), CommandError> {
    let tool = Tool { folder, verbose, install: INSTALL_NODE };
    // npm writes this file when everything is there.
    if is_older(&folder.join("node_modules/.package-lock.json"), &folder.join("package.json")) {
        tool.run("npm", &["install", "--no-package-lock", "--no-audit", "--no-fund"])?;
    }
    tool.run("npm", &["run", "build"])?;
    made(folder, component)
}

fn build_python(folder: &Path, component: &Path, verbose: bool) -> Result<(), CommandError> {
    let tool = Tool { folder, verbose, install: INSTALL_PYTHON };
    let requirements = folder.join("requirements.txt");
    let in_environment = |program: &str| folder.join(".venv").join("bin").join(program);
    let builder = in_environment("componentize-py");
    if is_older(&builder, &requirements) {
        tool.run("python3", &["-m", "venv", ".venv"])?;
        let wanted =
            if requirements.is_file() { vec!["-r", "requirements.txt"] } else { vec![COMPONENTIZE_PY] };
        tool.run(
            in_environment("pip"),
            &[&["install", "--disable-pip-version-check", "-q"], wanted.as_slice()].concat(),
        )?;
    }
    let beside = |own: &str, shared: &str| -> Result<PathBuf, CommandError> {
        [own, shared].iter().map(|place| folder.join(place)).find(|place| place.is_dir()).ok_or_else(|| {
            CommandError::Failed(format!(
                "{} has no folder {own}\n  help: `txconnect new transform NAME --lang python` makes one; copy it from there",
                folder.display()
            ))
        })
    };
    let (wit, sdk) = (beside("wit/1.0.0", "../../wit/1.0.0")?, beside("sdk", "../../python")?);
    let mut arguments: Vec<OsString> = vec!["-d".into(), wit.into(), "-w".into(), "batch-transform".into()];
    arguments.extend(["componentize", "--stub-wasi", "-p"].map(OsString::from));
    arguments.extend([sdk.into(), "-p".into(), folder.into(), "app".into(), "-o".into(), component.into()]);
    tool.run(builder, &arguments)?;
    made(folder, component)
}

/// Whether `made` is not there, or was made before `of` was changed.
fn is_older(made: &Path, of: &Path) -> bool {
    let changed = |path: &Path| fs::metadata(path).and_then(|metadata| metadata.modified());
    match (changed(made), changed(of)) {
        (Ok(made), Ok(of)) => made < of,
        (made, _) => made.is_err(),
    }
}

fn made(folder: &Path, component: &Path) -> Result<(), CommandError> {
    if component.is_file() {
        return Ok(());
    }
    Err(CommandError::Failed(format!(
        "the build in {} has not made {}\n  help: let it write the component under the folder's name",
        folder.display(),
        component.display()
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_language_is_told_by_the_files_of_the_folder() {
        let cases = [
            ("Cargo.toml", Some(Sources::Rust)),
            ("package.json", Some(Sources::JavaScript)),
            ("app.py", Some(Sources::Python)),
            ("main.go", None),
        ];
        for (file, sources) in cases {
            let folder = tempfile::tempdir().unwrap();
            fs::write(folder.path().join(file), "").unwrap();
            assert_eq!(Sources::of(folder.path()), sources, "{file}");
        }
    }

    #[test]
    fn of_all_that_cargo_builds_the_component_of_the_folder_is_taken() {
        let messages = r#"
{"reason":"compiler-artifact","manifest_path":"/a/sdk/Cargo.toml","filenames":["/t/other.wasm"]}
{"reason":"compiler-artifact","manifest_path":"/a/Cargo.toml","filenames":["/t/build-script"]}
{"reason":"compiler-artifact","manifest_path":"/a/Cargo.toml","filenames":["/t/a.d","/t/a.wasm"]}
{"reason":"build-finished","success":true}
"#;
        assert_eq!(built_by_cargo(messages, Path::new("/a/Cargo.toml")), Some("/t/a.wasm".into()));
        assert_eq!(built_by_cargo(messages, Path::new("/b/Cargo.toml")), None);
    }
}
