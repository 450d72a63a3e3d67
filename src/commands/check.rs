//! `txconnect check`: mistakes in pipeline files, before anything connects.

use std::path::PathBuf;

use clap::Args;

use super::{CommandError, print_result, say};
use crate::config;
use crate::terminal::numbers::counted;

/// Find mistakes in pipeline files without connecting to anything.
///
/// Every mistake in every file is shown with file, line and column and the way out. The exit code is 2 where
/// there is one.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  txconnect check pipelines/transactions.yaml
  txconnect check pipelines/ --set sink.bigquery.dataset=test
      A folder stands for all its *.yaml and *.yml.")]
pub struct CheckArguments {
    /// Pipeline files, or folders of them
    #[arg(value_name = "FILE|DIR", required = true)]
    pub paths: Vec<PathBuf>,
    /// Override a value of the files, for example batch.rows=1000; may be repeated
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub overrides: Vec<String>,
}

/// Checks what the arguments name.
pub fn check(arguments: &CheckArguments) -> Result<(), CommandError> {
    let environment = |name: &str| std::env::var(name).ok();
    match config::load(&arguments.paths, &arguments.overrides, &environment) {
        Ok(pipelines) => {
            for warning in pipelines.iter().flat_map(|pipeline| &pipeline.warnings) {
                say(&warning.to_string());
            }
            print_result(&format!(
                "{} without a mistake: {}\n",
                counted(pipelines.len() as u64, "pipeline", "pipelines"),
                pipelines.iter().map(|pipeline| pipeline.name.as_str()).collect::<Vec<_>>().join(", ")
            ))
        }
        Err(mistakes) => Err(CommandError::Mistakes(mistakes)),
    }
}
