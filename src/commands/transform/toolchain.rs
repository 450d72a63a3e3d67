//! The tools of a language: run, and missed with the words that help.

use std::ffi::OsStr;
use std::io;
use std::path::Path;
use std::process::{Command, ExitStatus, Output, Stdio};

use super::super::{CommandError, say};

/// A tool at work in a folder.
pub(super) struct Tool<'t> {
    /// The folder.
    pub(super) folder: &'t Path,
    /// Whether all that it says is shown.
    pub(super) verbose: bool,
    /// How to install it.
    pub(super) install: &'static str,
}

impl Tool<'_> {
    /// Runs `program`. What it says is shown where it fails, or as it says it. The standard output comes back.
    pub(super) fn run<A: AsRef<OsStr>>(
        &self,
        program: impl AsRef<OsStr>,
        arguments: &[A],
    ) -> Result<String, CommandError> {
        let program = program.as_ref();
        let output = self.output(program, arguments)?;
        let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
        let stderr = String::from_utf8_lossy(&output.stderr);
        if self.verbose || !output.status.success() {
            // Messages for programs begin with a brace. With `verbose` the errors have been seen.
            for text in [stdout.trim_end(), stderr.trim_end()] {
                if !text.is_empty() && !text.starts_with('{') {
                    say(text);
                }
            }
        }
        if output.status.success() {
            return Ok(stdout);
        }
        Err(CommandError::Failed(self.failure(program, arguments, &stderr, output.status)))
    }

    fn output<A: AsRef<OsStr>>(&self, program: &OsStr, arguments: &[A]) -> Result<Output, CommandError> {
        let mut command = Command::new(program);
        command.args(arguments).current_dir(self.folder).stdin(Stdio::null());
        let stderr = if self.verbose { Stdio::inherit() } else { Stdio::piped() };
        command
            .stderr(stderr)
            .stdout(Stdio::piped())
            .spawn()
            .and_then(std::process::Child::wait_with_output)
            .map_err(|error| {
                let name = program.display();
                CommandError::Failed(match error.kind() {
                    io::ErrorKind::NotFound => format!("`{name}` is not installed\n  help: {}", self.install),
                    kind => format!("`{name}` cannot be run: {kind}"),
                })
            })
    }

    fn failure<A: AsRef<OsStr>>(
        &self,
        program: &OsStr,
        arguments: &[A],
        said: &str,
        status: ExitStatus,
    ) -> String {
        let words: Vec<String> = std::iter::once(program)
            .chain(arguments.iter().map(AsRef::as_ref))
            .map(|word| word.display().to_string())
            .collect();
        let what = format!("`{}` in {} failed: {status}", words.join(" "), self.folder.display());
        match missing(said) {
            Some(help) => format!("{what}\n  help: {help}"),
            None if self.verbose => what,
            None => format!("{what}; what it said stands above"),
        }
    }
}

/// What is missing, by what a tool has said.
fn missing(said: &str) -> Option<&'static str> {
    let has = |text: &str| said.contains(text);
    if has("wasm32-wasip2") && (has("may not be installed") || has("can't find crate for `core`")) {
        return Some("`rustup target add wasm32-wasip2` installs what Rust needs to build components");
    }
    if has("ensurepip") || has("No module named venv") {
        return Some("Python's `venv` is missing: on Debian and Ubuntu `apt-get install python3-venv`");
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tool(folder: &Path) -> Tool<'_> {
        Tool { folder, verbose: false, install: "install it" }
    }

    #[test]
    fn a_missing_tool_is_told_with_the_way_to_it() {
        let error = tool(Path::new(".")).run("txconnect-no-such-tool", &["x"]).unwrap_err().to_string();
        assert_eq!(error, "`txconnect-no-such-tool` is not installed\n  help: install it");
    }

    #[test]
    fn a_missing_target_is_told_with_the_command_that_adds_it() {
        let script = "echo \"error: can't find crate for \\`core\\`; the \\`wasm32-wasip2\\` target may not be installed\" >&2; \
                      exit 101";
        let error = tool(Path::new(".")).run("sh", &["-c", script]).unwrap_err().to_string();
        assert!(error.contains("`rustup target add wasm32-wasip2`"), "{error}");
    }

    #[test]
    fn what_a_tool_writes_comes_back() {
        assert_eq!(tool(Path::new(".")).run("sh", &["-c", "echo a; echo b >&2"]).unwrap(), "a\n");
        let error = tool(Path::new(".")).run("sh", &["-c", "exit 3"]).unwrap_err().to_string();
        assert!(error.contains("exit status: 3") && error.contains("stands above"), "{error}");
    }
}
