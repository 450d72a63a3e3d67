//! Bakes into the binary: the git revision, where there is one, and what transforms are written with.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Folders of `transforms/` whose files `txconnect new transform` writes.
const SOURCES: [&str; 5] = ["wit", "rust", "js", "python", "templates"];
/// What tools leave behind in them.
const LEFTOVERS: [&str; 6] = ["target", "node_modules", "dist", "__pycache__", ".venv", "Cargo.lock"];

fn main() -> io::Result<()> {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-env-changed=TXCONNECT_REVISION");
    // An image is built without the repository and hands the revision in.
    let revision = std::env::var("TXCONNECT_REVISION")
        .ok()
        .filter(|revision| !revision.is_empty())
        .or_else(|| git(&["rev-parse", "--short=12", "HEAD"]))
        .unwrap_or_else(|| "unknown".to_owned());
    println!("cargo:rustc-env=TXCONNECT_REVISION={revision}");
    // A commit, a checkout and a rebase all write the log of HEAD.
    for file in ["HEAD", "logs/HEAD"] {
        if let Some(path) = git(&["rev-parse", "--git-path", file])
            && Path::new(&path).exists()
        {
            println!("cargo:rerun-if-changed={path}");
        }
    }
    embed_sources()
}

/// The first line git prints, or nothing where there is no git or no repository.
fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok()?;
    if !output.status.success() {
        return None;
    }
    let line = String::from_utf8(output.stdout).ok()?.lines().next()?.to_owned();
    (!line.is_empty()).then_some(line)
}

/// Writes the table of embedded files, sorted by path: `("rust/src/lib.rs", include_bytes!(…))`.
fn embed_sources() -> io::Result<()> {
    let variable = |name: &str| std::env::var_os(name).map(PathBuf::from).ok_or(io::ErrorKind::NotFound);
    let root = variable("CARGO_MANIFEST_DIR")?.join("transforms");
    let mut files = Vec::new();
    for folder in SOURCES {
        let folder = root.join(folder);
        if folder.is_dir() {
            collect(&folder, &mut files)?;
        }
    }
    files.sort();
    // A folder that comes into being is noticed through its parent.
    println!("cargo:rerun-if-changed={}", root.join("templates").display());
    let mut table = String::from("&[\n");
    for file in files {
        println!("cargo:rerun-if-changed={}", file.display());
        let name = file.strip_prefix(&root).unwrap_or(&file).to_string_lossy().replace('\\', "/");
        // Writing to a String cannot fail.
        let _ = writeln!(table, "    ({name:?}, include_bytes!({:?})),", file.display().to_string());
    }
    table.push_str("]\n");
    fs::write(variable("OUT_DIR")?.join("transform_sources.rs"), table)
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    let mut has_leftovers = false;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let (path, kind) = (entry.path(), entry.file_type()?);
        let is_leftover = LEFTOVERS.iter().any(|name| entry.file_name() == *name)
            || path.extension().is_some_and(|extension| extension == "wasm" || extension == "pyc");
        if is_leftover {
            has_leftovers = true;
        } else if kind.is_dir() {
            collect(&path, files)?;
        } else if kind.is_file() {
            files.push(path);
        }
    }
    // A new file changes its folder; so does every build of a tool that works in it.
    if !has_leftovers {
        println!("cargo:rerun-if-changed={}", folder.display());
    }
    Ok(())
}
