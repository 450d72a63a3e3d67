//! `txconnect transform`: builds, tests and looks into transforms, on the same host that runs them in pipelines.
//!
//! | module | what it does |
//! |---|---|
//! | `build` | sources to a component, with the tools of their language |
//! | `toolchain` | runs such tools, and says what to install where one is missing |
//! | `test` | records through a component, its rows against what is expected |
//! | `inspect` | what a component says about itself, and what it wants |

mod build;
mod inspect;
mod test;
mod toolchain;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::{Args, Subcommand};
use txconnect_transform_host::{Grant, Limits, Module, ModuleError};

use super::{CommandError, logging};
use crate::config::transform_host;
use crate::terminal::progress::Screen;

/// Everything that can be granted.
const ALL_GRANTS: [Grant; 2] = [Grant::Clock, Grant::Random];

/// Build, test or inspect a transform.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  txconnect transform build mask_account/
  txconnect transform test mask_account/mask_account.wasm --input mask_account/records.ndjson
  txconnect transform inspect mask_account/mask_account.wasm")]
pub struct TransformArguments {
    /// What to do.
    #[command(subcommand)]
    pub command: TransformCommand,
}

/// What can be done with a transform.
#[derive(Debug, Subcommand)]
pub enum TransformCommand {
    /// Build the transform of a folder
    ///
    /// The language is told by what lies there: Cargo.toml (Rust), package.json (JavaScript) or pyproject.toml,
    /// requirements.txt or app.py (Python). The component is left in the folder, under the folder's name.
    Build(BuildArguments),
    /// Send records through a transform
    ///
    /// It runs as in a pipeline: in batches, within its limits, and a record at which it fails is found and told. Its rows
    /// are written to the standard output, one in a line; what it logs, failures and figures to the standard error
    /// output. With --expect the rows are compared instead, and the exit code is 1 where they differ.
    Test(test::TestArguments),
    /// Show what a transform says about itself
    Inspect(InspectArguments),
}

/// What `transform build` is told.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  txconnect transform build
      What lies here.
  txconnect transform build transforms/mask_account --verbose")]
pub struct BuildArguments {
    /// The folder [default: here]
    #[arg(value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// Show what the tools say, not only when they fail
    #[arg(short, long)]
    pub verbose: bool,
}

/// How `transform inspect` writes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// For people
    #[default]
    Text,
    /// One JSON object
    Json,
}

/// What `transform inspect` is told.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  txconnect transform inspect mask_account/mask_account.wasm
  txconnect transform inspect mask.wasm --format json | jq .config_schema")]
pub struct InspectArguments {
    /// The component's file
    #[arg(value_name = "MODULE")]
    pub module: PathBuf,
    /// How to write it
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    pub format: Format,
}

/// Does what the arguments say.
pub fn run(arguments: &TransformArguments) -> Result<(), CommandError> {
    logging::start_quiet(&Screen::stderr())?;
    match &arguments.command {
        TransformCommand::Build(arguments) => build::build(arguments),
        TransformCommand::Test(arguments) => test::test(arguments),
        TransformCommand::Inspect(arguments) => inspect::inspect(arguments),
    }
}

/// Loads the component at `path`.
fn load(path: &Path, limits: Limits, allow: &[Grant]) -> Result<Arc<Module>, CommandError> {
    let host = transform_host()
        .map_err(|why| CommandError::Failed(format!("this machine cannot run transforms: {why}")))?;
    if !path.exists() {
        return Err(CommandError::Usage(format!(
            "{} does not exist; `txconnect transform build DIR` makes it",
            path.display()
        )));
    }
    host.load(path, limits, allow).map_err(|error| refused(&error))
}

fn refused(error: &ModuleError) -> CommandError {
    let help = error.help.as_ref().map(|help| format!("\n  help: {help}")).unwrap_or_default();
    CommandError::Failed(format!("{error}{help}"))
}

/// Loads the component at `path` with the fewest grants that it can be loaded with.
fn load_with_what_it_wants(path: &Path, limits: Limits) -> Result<(Arc<Module>, Vec<Grant>), CommandError> {
    if let Ok(module) = load(path, limits, &[]) {
        return Ok((module, Vec::new()));
    }
    let module = load(path, limits, &ALL_GRANTS)?;
    let without =
        |missing: Grant| -> Vec<Grant> { ALL_GRANTS.into_iter().filter(|&grant| grant != missing).collect() };
    let wanted =
        ALL_GRANTS.into_iter().filter(|&grant| load(path, limits, &without(grant)).is_err()).collect();
    Ok((module, wanted))
}

/// `allow: [clock]`, as a pipeline file has it.
fn as_written(grants: &[Grant]) -> String {
    let names: Vec<&str> = grants.iter().map(|grant| grant.name()).collect();
    format!("allow: [{}]", names.join(", "))
}
