//! The command line: what can be typed, and the one command it leads to.
//!
//! Results go to the standard output, everything else to the standard error output. The exit code is 0 when
//! the work is done, 1 when it failed, 2 when the command line or a pipeline file is wrong.

pub mod check;
pub mod dead_letters;
pub mod local_bigquery;
pub mod logging;
pub mod new;
pub mod offsets;
pub mod publish;
mod report;
pub mod run;
mod signals;
pub mod transform;
pub mod version;

use std::ffi::OsString;
use std::io::{self, Write};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::config::Mistakes;
use crate::terminal::style::{Colours, Style};

/// Moves Kafka topics into BigQuery, Postgres or stdout.
///
/// One YAML file is one pipeline: where records come from, what makes them valid, and where they go.
#[derive(Debug, Parser)]
#[command(
    name = "txconnect",
    version,
    arg_required_else_help = true,
    after_help = "\
Examples:
  txconnect run pipelines/transactions.yaml --embedded --until-end
      Try everything on this machine alone: brings its own Kafka and BigQuery.
  txconnect check pipelines/
      Find every mistake in every pipeline file, without connecting to anything.
  txconnect run pipelines/
      Run all pipelines of a folder until SIGTERM or Ctrl-C.
  txconnect publish --dir data/ --brokers localhost:9092
      Fill Kafka topics from JSON files.
  txconnect offsets show pipelines/transactions.yaml
      Where a pipeline goes on reading, and how far behind it is.
  txconnect dead-letters list pipelines/transactions.yaml
      Which records could not become rows, and why.
  txconnect new transform mask_account --lang rust
      A program of yours that records pass through on their way.

Environment:
  KAFKA_BROKERS           brokers for `publish`; pipeline files may use it as ${KAFKA_BROKERS}
  BIGQUERY_EMULATOR_HOST  host:port of a local BigQuery instead of Google's
  TXCONNECT_CACHE_DIR     where compiled transforms are kept; else $XDG_CACHE_HOME/txconnect or ~/.cache/txconnect
  TXCONNECT_LOG           what is logged, for example `debug` or `info,kafka=debug`; else RUST_LOG
  NO_COLOR                any text: no colours

Exit codes: 0 done, 1 failed, 2 wrong command line or pipeline file."
)]
pub struct CommandLine {
    /// The command.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run pipelines
    Run(run::RunArguments),
    /// Find mistakes in pipeline files without connecting to anything
    Check(check::CheckArguments),
    /// Send JSON files to Kafka
    Publish(publish::PublishArguments),
    /// See or move the positions from which a pipeline goes on
    Offsets(offsets::OffsetsArguments),
    /// See dead letters, or send them back
    DeadLetters(dead_letters::DeadLettersArguments),
    /// Make the folder of a new transform
    New(new::NewArguments),
    /// Build, test or inspect a transform
    Transform(transform::TransformArguments),
    /// Run a local BigQuery
    LocalBigquery(local_bigquery::LocalBigQueryArguments),
    /// Say what this program is made of
    Version,
}

/// Why a command did not do its work.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// The command line or a pipeline file is wrong: exit code 2.
    #[error("{0}")]
    Usage(String),
    /// Pipeline files hold mistakes, told with their places: exit code 2.
    #[error("{0}")]
    Mistakes(Mistakes),
    /// The work failed: exit code 1.
    #[error("{0}")]
    Failed(String),
    /// The work failed and the reason has been shown: exit code 1.
    #[error("failed")]
    Shown,
}

impl CommandError {
    /// A failure told by `error`.
    pub fn failed(error: impl std::fmt::Display) -> Self {
        Self::Failed(error.to_string())
    }

    /// A mistake of the user told by `error`.
    pub fn usage(error: impl std::fmt::Display) -> Self {
        Self::Usage(error.to_string())
    }

    fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_) | Self::Mistakes(_) => 2,
            Self::Failed(_) | Self::Shown => 1,
        }
    }
}

/// Parses `arguments`, the program's name first, and does what they say.
pub fn run_command_line(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let command_line = match CommandLine::try_parse_from(arguments) {
        Ok(command_line) => command_line,
        Err(error) => {
            // Help and version are results, mistakes are talk; clap knows which stream and which code.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    match command_line.command.execute() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            match &error {
                CommandError::Shown => {}
                // Every line of it already says what it is.
                CommandError::Mistakes(mistakes) => say(&mistakes.to_string()),
                CommandError::Usage(_) | CommandError::Failed(_) => say_error(&error),
            }
            ExitCode::from(error.exit_code())
        }
    }
}

impl Command {
    fn execute(self) -> Result<(), CommandError> {
        match self {
            Self::Run(arguments) => run::run(&arguments),
            Self::Check(arguments) => check::check(&arguments),
            Self::Publish(arguments) => publish::publish(&arguments),
            Self::Offsets(arguments) => offsets::run(&arguments),
            Self::DeadLetters(arguments) => dead_letters::run(&arguments),
            Self::New(arguments) => new::make(&arguments),
            Self::Transform(arguments) => transform::run(&arguments),
            Self::LocalBigquery(arguments) => local_bigquery::serve(&arguments),
            Self::Version => version::print(),
        }
    }
}

fn say_error(error: &CommandError) {
    let label = Colours::for_stderr().paint(Style::Red, "error:");
    // Nothing can be said where the standard error output is closed.
    let _ = writeln!(io::stderr().lock(), "{label} {error}");
}

/// Writes a result to the standard output. A reader that has gone away is no failure.
pub(crate) fn print_result(text: &str) -> Result<(), CommandError> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(CommandError::Failed(format!("cannot write to the standard output: {error}")))
        }
        _ => Ok(()),
    }
}

/// Says something to the person in front of the screen.
pub(crate) fn say(text: &str) {
    // Talk that nobody can hear is not worth failing for.
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// The asynchronous runtime of a command.
pub(crate) fn runtime() -> Result<tokio::runtime::Runtime, CommandError> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| CommandError::Failed(format!("cannot start threads: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_sound() {
        CommandLine::command().debug_assert();
    }

    #[test]
    fn every_command_teaches_by_examples() {
        let line = CommandLine::command();
        let commands = line.get_subcommands().filter(|command| command.get_name() != "version");
        for command in commands.flat_map(|command| std::iter::once(command).chain(command.get_subcommands()))
        {
            let help = command.clone().render_long_help().to_string();
            assert!(help.contains("Examples:"), "{}", command.get_name());
        }
    }
}
