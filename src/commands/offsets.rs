//! `txconnect offsets`: where a pipeline goes on reading, seen and moved.
//!
//! | module | what it does |
//! |---|---|
//! | `look` | what Kafka and the sink say about every partition |
//! | `show` | tells it |
//! | `target` | where positions are to go |
//! | `reset` | moves them |

mod look;
mod reset;
mod show;
mod target;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, Subcommand};
use tokio::runtime::Runtime;
use txconnect_connector_api::{NewPosition, OffsetStore, Protocol, Published, SinkError, WriteStreams};
use txconnect_kafka::{CommitPosition, Consumer, GroupState, KafkaError, Tuning};

use self::target::Target;
use super::{CommandError, logging, print_result, runtime, say};
use crate::config::{self, Pipeline};
use crate::delivery::CommittedStream;
use crate::terminal::numbers::counted;
use crate::terminal::progress::Screen;

/// How long Kafka may take for one answer.
const QUESTION: Duration = Duration::from_secs(10);
/// How long a sink may take for one answer; its own deadlines come before.
const SINK_ANSWER: Duration = Duration::from_mins(1);

/// See or move the positions from which a pipeline goes on.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  txconnect offsets show pipelines/transactions.yaml
  txconnect offsets reset pipelines/transactions.yaml --to earliest --dry-run")]
pub struct OffsetsArguments {
    /// What to do.
    #[command(subcommand)]
    pub command: OffsetsCommand,
}

/// What can be done with positions.
#[derive(Debug, Subcommand)]
pub enum OffsetsCommand {
    /// Show where a pipeline goes on reading, and how far behind it is
    ///
    /// Changes nothing, and may be used while the pipeline runs. Where the sink keeps the positions (`delivery:
    /// exactly_once`), they are shown beside those of the consumer group, which only follow them.
    Show(ShowArguments),
    /// Set where a pipeline goes on reading
    ///
    /// Stop the pipeline first, everywhere: a group that has members is refused. Where the sink keeps the positions,
    /// they are moved in the sink first and in the consumer group afterwards. Records that are read again are written
    /// again: only an upsert, or `write: insert_ignore`, makes that one row. Records that are skipped are never written.
    Reset(ResetArguments),
}

/// The pipeline that a command is about.
#[derive(Debug, Args)]
pub struct PipelineArguments {
    /// The pipeline file
    #[arg(value_name = "FILE")]
    pub path: PathBuf,
    /// Override a value of the file, for example source.kafka.group=other; may be repeated
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub overrides: Vec<String>,
}

/// What `offsets show` is told.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  txconnect offsets show pipelines/transactions.yaml
  txconnect offsets show pipelines/transactions.yaml --json | jq '.partitions[] | select(.lag > 1000)'")]
pub struct ShowArguments {
    /// Which pipeline.
    #[command(flatten)]
    pub pipeline: PipelineArguments,
    /// One JSON document instead of a table
    #[arg(long)]
    pub json: bool,
}

/// What `offsets reset` is told.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  txconnect offsets reset pipelines/transactions.yaml --to earliest --dry-run
      What would change.
  txconnect offsets reset pipelines/transactions.yaml --to 2026-01-31T00:00:00Z --yes
      On with the first record that is not older.
  txconnect offsets reset pipelines/transactions.yaml --to 1200 --topic cash_ins --partition 0 --yes")]
pub struct ResetArguments {
    /// Which pipeline.
    #[command(flatten)]
    pub pipeline: PipelineArguments,
    /// earliest, latest, a time such as 2026-01-31T00:00:00Z, or an offset
    #[arg(long, value_name = "WHERE", allow_hyphen_values = true)]
    pub to: Target,
    /// Only this topic
    #[arg(long, value_name = "TOPIC")]
    pub topic: Option<String>,
    /// Only this partition; with several topics, name one too
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(0..))]
    pub partition: Option<i32>,
    /// Do it
    #[arg(long, conflicts_with = "dry_run")]
    pub yes: bool,
    /// Only show what would change
    #[arg(long)]
    pub dry_run: bool,
}

/// Does what the arguments say.
pub fn run(arguments: &OffsetsArguments) -> Result<(), CommandError> {
    logging::start_quiet(&Screen::stderr())?;
    match &arguments.command {
        OffsetsCommand::Show(arguments) => {
            let opened = Opened::open(&arguments.pipeline)?;
            let view = look::look(&opened).map_err(|error| opened.named(error))?;
            print_result(&if arguments.json { show::json(&view)? } else { show::text(&view) })
        }
        OffsetsCommand::Reset(arguments) => {
            let opened = Opened::open(&arguments.pipeline)?;
            reset_positions(&opened, arguments).map_err(|error| opened.named(error))
        }
    }
}

fn reset_positions(opened: &Opened, arguments: &ResetArguments) -> Result<(), CommandError> {
    let view = look::look(opened)?;
    if arguments.topic.is_none() {
        for topic in &view.missing {
            say(&format!("{}: the topic {topic} does not exist: nothing is moved there", view.pipeline));
        }
    }
    let selected = reset::select(&view, arguments.topic.as_deref(), arguments.partition)?;
    let times = match arguments.to {
        Target::Time(millis) => {
            let partitions: Vec<_> = selected.iter().map(|one| one.partition.clone()).collect();
            let found = opened.consumer.offsets_for_time(&partitions, millis, QUESTION);
            found.map_err(|error| CommandError::Failed(kafka_words(&error)))?
        }
        _ => Vec::new(),
    };
    let changes = reset::plan(&view, &selected, arguments.to, &times)?;
    print_result(&reset::text(&view, &changes))?;
    let refusal = refusal(&view.group, &view.group_state);
    if arguments.dry_run {
        if let Some(refusal) = refusal {
            say(&format!("{}: {refusal}", view.pipeline));
        }
        return Ok(());
    }
    if let Some(refusal) = refusal {
        return Err(CommandError::Failed(refusal));
    }
    if !arguments.yes {
        return Err(CommandError::Usage(
            "nothing was changed: say --yes to do it, or --dry-run to only look".to_owned(),
        ));
    }
    for change in &changes {
        publish_before(opened, change)?;
    }
    let in_sink = |positions: &[NewPosition]| match &opened.store {
        Some(store) => opened.ask_sink(store.reset(positions)).map(Some),
        None => Ok(None),
    };
    let in_group = |positions: &[CommitPosition]| opened.consumer.move_group(positions, QUESTION);
    reset::perform(&view, &changes, in_sink, in_group).map_err(CommandError::Failed)?;
    print_result(&format!(
        "{}: {} moved\n",
        view.pipeline,
        counted(changes.len() as u64, "position is", "positions are")
    ))
}

/// Publishes what a position counts on before it moves: nothing would name these rows any more.
fn publish_before(opened: &Opened, change: &reset::Change) -> Result<(), CommandError> {
    let partition = change.partition();
    for CommittedStream { stream, end, published } in change.streams() {
        let left = counted(u64::try_from(end - published).unwrap_or_default(), "row", "rows");
        let outcome = match &opened.streams {
            Some(streams) => opened.ask_sink(streams.publish(stream, *end)).map_err(|error| {
                CommandError::Failed(format!(
                    "{partition}: nothing is moved: {left} before the position could not be published: {}",
                    sink_words(&error)
                ))
            })?,
            None => Published::Missing,
        };
        if outcome != Published::Visible && published < end {
            say(&format!(
                "{}: {partition}: {left} before the old position may never have become visible: their write stream \
                 {stream} is {}",
                opened.pipeline.name,
                match (outcome, &opened.streams) {
                    (Published::Finalized, _) => "finalized",
                    (_, Some(_)) => "gone",
                    (_, None) => "not one of this sink",
                }
            ));
        }
    }
    Ok(())
}

/// Why the positions of the group cannot be moved now, if they cannot.
fn refusal(group: &str, state: &GroupState) -> Option<String> {
    let GroupState::Active { members } = state else { return None };
    let mut names: Vec<String> =
        members.iter().map(|member| format!("{} at {}", member.client_id, member.host)).collect();
    names.sort_unstable();
    names.dedup();
    Some(format!(
        "the group {group} is active and keeps its positions: {}; stop the pipeline everywhere, and after a kill wait \
         until the session has timed out (45 s by default)",
        if names.is_empty() { "it is being formed".to_owned() } else { names.join(", ") }
    ))
}

/// A pipeline with its clients. Its consumer joins no group.
struct Opened {
    pipeline: Pipeline,
    consumer: Consumer,
    store: Option<Arc<dyn OffsetStore>>,
    streams: Option<Arc<dyn WriteStreams>>,
    runtime: Runtime,
}

impl Opened {
    fn open(arguments: &PipelineArguments) -> Result<Self, CommandError> {
        let environment = |name: &str| std::env::var(name).ok();
        let paths = std::slice::from_ref(&arguments.path);
        let pipelines = config::load(paths, &arguments.overrides, &environment);
        let mut pipelines = pipelines.map_err(CommandError::Mistakes)?;
        let (Some(pipeline), true) = (pipelines.pop(), pipelines.is_empty()) else {
            return Err(CommandError::Usage(format!(
                "{} holds several pipelines: name one file",
                arguments.path.display()
            )));
        };
        for warning in &pipeline.warnings {
            say(&warning.to_string());
        }
        let name = &pipeline.name;
        let consumer = Consumer::connect(&pipeline.source, &pipeline.group, Tuning::default())
            .map_err(|error| CommandError::Failed(format!("{name}: {error}")))?;
        // Connections to the sink may need a runtime from the start.
        let runtime = runtime()?;
        let (store, streams) = {
            let _entered = runtime.enter();
            (pipeline.sink.offsets(name), pipeline.sink.streams())
        };
        // Without the positions that count, those of the group would be taken for them.
        if store.is_none() && pipeline.sink.protocol() == Protocol::OffsetsInSink {
            return Err(CommandError::Failed(format!(
                "{name}: the sink {} keeps the positions but does not give them out; update txconnect",
                pipeline.sink.name()
            )));
        }
        let store = store.filter(|_| pipeline.sink.protocol() == Protocol::OffsetsInSink);
        Ok(Self { pipeline, consumer, store, streams, runtime })
    }

    /// Waits for an answer of the sink.
    fn ask_sink<T>(&self, answer: impl Future<Output = Result<T, SinkError>>) -> Result<T, SinkError> {
        self.runtime.block_on(async {
            match tokio::time::timeout(SINK_ANSWER, answer).await {
                Ok(answer) => answer,
                Err(_) => Err(SinkError::InDoubt {
                    cause: format!("the sink did not answer within {} s", SINK_ANSWER.as_secs()),
                }),
            }
        })
    }

    /// The error with the pipeline's name.
    fn named(&self, error: CommandError) -> CommandError {
        let name = &self.pipeline.name;
        match error {
            CommandError::Failed(text) => CommandError::Failed(format!("{name}: {text}")),
            CommandError::Usage(text) => CommandError::Usage(format!("{name}: {text}")),
            other => other,
        }
    }
}

/// A failed question to Kafka in one sentence with the way out.
fn kafka_words(error: &KafkaError) -> String {
    match error {
        // The error says that it is retried, which nobody does here.
        KafkaError::Timeout { what } => format!(
            "Kafka did not answer within {} s: {what}; look at the brokers and run the command again",
            QUESTION.as_secs()
        ),
        other => other.to_string(),
    }
}

/// A failed call to the sink in one sentence with the way out.
fn sink_words(error: &SinkError) -> String {
    match error {
        SinkError::Fatal { cause, hint: Some(hint) } => format!("{cause}; {hint}"),
        SinkError::Transient { cause, .. } => format!("{cause}; run the command again"),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use txconnect_kafka::GroupMember;

    #[test]
    fn an_active_group_is_refused_with_the_names_of_its_members() {
        let member = |host: &str| GroupMember { client_id: "txconnect-connect-t".into(), host: host.into() };
        let members = vec![member("/10.0.0.8"), member("/10.0.0.7"), member("/10.0.0.7")];
        let refused = refusal("connect-t", &GroupState::Active { members }).unwrap();
        assert!(
            refused.contains(": txconnect-connect-t at /10.0.0.7, txconnect-connect-t at /10.0.0.8;"),
            "{refused}"
        );
        let forming = refusal("connect-t", &GroupState::Active { members: Vec::new() }).unwrap();
        assert!(forming.contains("being formed"), "{forming}");
        assert_eq!(refusal("connect-t", &GroupState::Empty), None);
        assert_eq!(refusal("connect-t", &GroupState::Absent), None);
    }
}
