//! `txconnect run`: pipelines, until they end or are asked to.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use tokio_util::sync::CancellationToken;
use txconnect_connector_api::HumanDuration;

use super::logging::{self, LogFormat};
use super::report;
use super::signals::EndSignals;
use super::{CommandError, print_result, runtime, say};
use crate::config::{self, Pipeline};
use crate::control::{self, RunOptions};
use crate::embedded::EmbeddedServices;
use crate::terminal::progress::{Display, Screen};

/// How long threads that are on their way out are waited for.
const LAST_WAIT: Duration = Duration::from_secs(2);

/// Run pipelines.
///
/// All of them run at once; none is stopped by the failure of another. SIGTERM or Ctrl-C lets them finish what
/// is in flight, commit and leave their groups; a second one ends at once, which loses nothing either.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  txconnect run pipelines/transactions.yaml
  txconnect run pipelines/ --log-format json
      Every *.yaml and *.yml of a folder, with logs for machines.
  txconnect run pipelines/transactions.yaml --set batch.rows=1000 --set sink.bigquery.dataset=test
  txconnect run pipelines/transactions.yaml --until-end --timeout 10m
      Everything that is in the topics now, then end.
  txconnect run pipelines/transactions.yaml --embedded --until-end
      On this machine alone, with the files of data/ as topics.
  txconnect run pipelines/transactions-stdout.yaml --until-end | jq .

Summary: on the standard output at the end; on the standard error output where a pipeline writes its rows to
the standard output.")]
pub struct RunArguments {
    /// Pipeline files, or folders of them
    #[arg(value_name = "FILE|DIR", required = true)]
    pub paths: Vec<PathBuf>,
    /// Override a value of the files, for example batch.rows=1000; may be repeated
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub overrides: Vec<String>,
    /// How log lines look
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT", help_heading = "Logs")]
    pub log_format: LogFormat,
    /// End when everything is done that was in the topics at the start
    #[arg(long, help_heading = "Ending")]
    pub until_end: bool,
    /// With --until-end: how long to wait while a broker, topic or sink is away, for example 90s or 10m
    #[arg(long, value_name = "DURATION", requires = "until_end", help_heading = "Ending")]
    pub timeout: Option<HumanDuration>,
    /// Bring a Kafka broker with every DIR/<topic>.json as a topic, and a local BigQuery [default DIR: data]
    ///
    /// Both live in this process and forget everything when it ends. Write it after the files. `KAFKA_BROKERS`,
    /// `BIGQUERY_EMULATOR_HOST` and, where it is not set, `GCP_PROJECT` are set for the pipelines and printed for
    /// other commands. A topic may hold 16 MiB.
    #[arg(long, value_name = "DIR", num_args = 0..=1, default_missing_value = "data", help_heading = "Trying out")]
    pub embedded: Option<PathBuf>,
}

/// Runs what the arguments name.
pub fn run(arguments: &RunArguments) -> Result<(), CommandError> {
    let screen = Screen::stderr();
    logging::start(arguments.log_format, &screen)?;
    let runtime = runtime()?;
    let result = runtime.block_on(run_pipelines(arguments, screen));
    runtime.shutdown_timeout(LAST_WAIT);
    result
}

async fn run_pipelines(arguments: &RunArguments, screen: Screen) -> Result<(), CommandError> {
    let mut signals = EndSignals::take_over()?;
    let environment = |name: &str| std::env::var(name).ok();
    let services = match &arguments.embedded {
        Some(folder) => Some(EmbeddedServices::start(folder).await.map_err(CommandError::failed)?),
        None => None,
    };
    let pipelines = match &services {
        None => load(arguments, &environment)?,
        Some(services) => {
            let variables = services.variables(&environment);
            let pipelines = load(arguments, &|name| {
                let ours = variables.iter().find(|(known, _)| *known == name);
                ours.map_or_else(|| environment(name), |(_, value)| Some(value.clone()))
            })?;
            create_dead_letter_topics(services, &pipelines)?;
            introduce(services, &variables);
            pipelines
        }
    };
    let rows_on_stdout = pipelines.iter().any(|pipeline| pipeline.sink.name() == "stdout");
    let result = supervise(arguments, screen, &mut signals, pipelines, rows_on_stdout).await;
    if let Some(services) = services {
        services.stop().await;
    }
    result
}

/// Reads the pipeline files. What looks wrong but may be meant is said, mistakes end the command.
fn load(
    arguments: &RunArguments,
    environment: &dyn Fn(&str) -> Option<String>,
) -> Result<Vec<Pipeline>, CommandError> {
    // The user's own overrides come last and win.
    let mut overrides = if arguments.embedded.is_some() { EmbeddedServices::overrides() } else { Vec::new() };
    overrides.extend_from_slice(&arguments.overrides);
    let pipelines =
        config::load(&arguments.paths, &overrides, environment).map_err(CommandError::Mistakes)?;
    for warning in pipelines.iter().flat_map(|pipeline| &pipeline.warnings) {
        say(&warning.to_string());
    }
    Ok(pipelines)
}

fn create_dead_letter_topics(
    services: &EmbeddedServices,
    pipelines: &[Pipeline],
) -> Result<(), CommandError> {
    let mut names = BTreeSet::new();
    for pipeline in pipelines {
        let Some(dead_letters) = &pipeline.dead_letters else { continue };
        let read = services.topics().iter().filter(|loaded| pipeline.source.topic_matches(&loaded.topic));
        names.extend(read.map(|loaded| dead_letters.topic.for_topic(&loaded.topic)));
    }
    names.iter().try_for_each(|name| services.create_topic(name)).map_err(CommandError::failed)
}

/// Prints what a shell takes as it stands, so that other commands find the services.
fn introduce(services: &EmbeddedServices, variables: &[(&'static str, String)]) {
    for (name, value) in variables {
        say(&format!("export {name}={value}"));
    }
    for loaded in services.topics() {
        tracing::info!(
            topic = %loaded.topic,
            records = loaded.records,
            partitions = loaded.partitions,
            "loaded into the embedded Kafka broker"
        );
    }
}

/// Runs the pipelines, shows how they come along, and tells how they ended.
async fn supervise(
    arguments: &RunArguments,
    screen: Screen,
    signals: &mut EndSignals,
    pipelines: Vec<Pipeline>,
    rows_on_stdout: bool,
) -> Result<(), CommandError> {
    let stop = CancellationToken::new();
    let (display, shown) = tokio::sync::oneshot::channel();
    let options = RunOptions {
        until_end: arguments.until_end,
        timeout: arguments.timeout.map(|timeout| timeout.0),
        on_started: Some(Box::new(move |views: control::Views| {
            let watch = Arc::new(move || views().iter().map(report::progress).collect());
            match Display::start(screen, watch) {
                // Handed out, so that it ends before the summary is printed.
                Ok(running) => drop(display.send(running)),
                Err(error) => tracing::warn!(%error, "progress is not shown"),
            }
        })),
    };
    let running = control::run(pipelines, options, stop.clone());
    tokio::pin!(running);
    let outcome = loop {
        tokio::select! {
            outcome = &mut running => break outcome,
            signal = signals.next() => {
                if stop.is_cancelled() {
                    return Err(CommandError::Failed(format!(
                        "ended at once by a second {signal}; the next run reads again what was in flight"
                    )));
                }
                tracing::info!(signal, "finishing what is in flight; a second signal ends at once");
                stop.cancel();
            }
        }
    };
    drop(shown.await.ok());
    let text =
        outcome.pipelines.iter().map(|one| report::summary(one).render()).collect::<Vec<_>>().join("\n");
    if rows_on_stdout {
        say(text.trim_end());
    } else {
        print_result(&text)?;
    }
    if outcome.pipelines.iter().any(report::has_failed) { Err(CommandError::Shown) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::{Command, CommandLine};
    use clap::Parser;

    fn parse(line: &str) -> Result<RunArguments, String> {
        match CommandLine::try_parse_from(line.split(' ')) {
            Ok(CommandLine { command: Command::Run(arguments) }) => Ok(arguments),
            Ok(other) => Err(format!("{other:?}")),
            Err(error) => Err(error.to_string()),
        }
    }

    #[test]
    fn the_demo_command_is_understood() {
        let arguments = parse("txconnect run pipelines/transactions.yaml --embedded --until-end").unwrap();
        assert_eq!(arguments.embedded, Some(PathBuf::from("data")));
        assert!(arguments.until_end);
        assert_eq!(arguments.log_format, LogFormat::Text);
        let arguments = parse("txconnect run a.yaml b --embedded other --log-format json").unwrap();
        assert_eq!(arguments.embedded, Some(PathBuf::from("other")));
        assert_eq!(arguments.paths.len(), 2);
        assert_eq!(arguments.log_format, LogFormat::Json);
    }

    #[test]
    fn overrides_are_kept_in_order() {
        let arguments = parse("txconnect run a.yaml --set batch.rows=1 --set batch.rows=2").unwrap();
        assert_eq!(arguments.overrides, ["batch.rows=1", "batch.rows=2"]);
    }

    #[test]
    fn a_timeout_is_a_duration_and_belongs_to_until_end() {
        let arguments = parse("txconnect run a.yaml --until-end --timeout 90s").unwrap();
        assert_eq!(arguments.timeout, Some(HumanDuration(Duration::from_secs(90))));
        assert!(parse("txconnect run a.yaml --timeout 90s").unwrap_err().contains("--until-end"));
        assert!(
            parse("txconnect run a.yaml --until-end --timeout 90").unwrap_err().contains("not a duration")
        );
    }
}
