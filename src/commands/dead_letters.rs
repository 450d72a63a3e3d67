//! `txconnect dead-letters`: bad records, counted, looked at and sent back.
//!
//! | module | what it does |
//! |---|---|
//! | `letter` | one letter: the record as it was, and what its headers say |
//! | `replayed` | which letters are replayed already, as the consumer group remembers it |
//! | `selection` | which letters a command is about |
//! | `look` | the dead letter topics of a pipeline, and what is remembered about them |
//! | `scan` | reads letters |
//! | `list`, `show` | tell what there is |
//! | `replay`, `lock` | send letters back, one command at a time |
//! | `wording` | letters as people and programs read them |

mod letter;
mod list;
mod lock;
mod look;
mod replay;
mod replayed;
mod scan;
mod selection;
mod show;
mod wording;

use std::num::{NonZeroU32, NonZeroUsize};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use txconnect_kafka::{Consumer, KafkaError, Tuning};

use self::letter::{Place, Stretch};
use self::selection::CauseArguments;
use super::{CommandError, logging, say};
use crate::config::{self, Pipeline, TopicTemplate};
use crate::terminal::progress::Screen;

/// How long Kafka may take for one answer.
const QUESTION: Duration = Duration::from_secs(10);

/// See dead letters, or send them back.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  txconnect dead-letters list pipelines/transactions.yaml
  txconnect dead-letters show pipelines/transactions.yaml cash_ins.dead-letters/0/12
  txconnect dead-letters replay pipelines/transactions.yaml --class validate.required --dry-run")]
pub struct DeadLettersArguments {
    /// What to do.
    #[command(subcommand)]
    pub command: DeadLettersCommand,
}

/// What can be done with dead letters.
#[derive(Debug, Subcommand)]
pub enum DeadLettersCommand {
    /// Count dead letters by cause
    ///
    /// Reads all dead letter topics of a pipeline file, changes nothing, and may be used while the pipeline runs. Values
    /// of records are never shown. First and last are times of the records: a letter keeps its record's.
    List(ListArguments),
    /// Show one dead letter
    ///
    /// Key, value and the values of the record's own headers are shown with --values only.
    Show(ShowArguments),
    /// Send dead letters back to the topics they came from, or through the pipeline again
    ///
    /// To its topic a record goes back with key, value, timestamp and headers as it had them, to its partition where that
    /// still exists; the headers txconnect.replay.count and txconnect.replay.letter say that it was replayed. Through
    /// the pipeline it is decoded, validated and written by this command, at least once; what fails again stays. The
    /// pipeline may run meanwhile. What has arrived is remembered in a consumer group, the pipeline's own with `-replay`
    /// behind it: a crash in between replays at most the letters of about a second again.
    Replay(ReplayArguments),
}

/// The pipeline that a command is about.
#[derive(Debug, Args)]
pub struct PipelineArguments {
    /// The pipeline file
    #[arg(value_name = "FILE")]
    pub path: PathBuf,
    /// Override a value of the file, for example source.kafka.brokers=other:9092; may be repeated
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub overrides: Vec<String>,
}

/// What `dead-letters list` is told.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  txconnect dead-letters list pipelines/transactions.yaml
  txconnect dead-letters list pipelines/transactions.yaml --topic cash_ins --stage validate --each --limit 20
  txconnect dead-letters list pipelines/transactions.yaml --json | jq 'select(.waiting > 0)'")]
pub struct ListArguments {
    /// Which pipeline.
    #[command(flatten)]
    pub pipeline: PipelineArguments,
    /// Which letters.
    #[command(flatten)]
    pub causes: CauseArguments,
    /// Every letter in a line of its own, instead of counts
    #[arg(long)]
    pub each: bool,
    /// The most lines: of the causes the most frequent, of the letters the first
    #[arg(long, value_name = "N")]
    pub limit: Option<NonZeroUsize>,
    /// JSON, one object in a line
    #[arg(long)]
    pub json: bool,
}

/// What `dead-letters show` is told.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  txconnect dead-letters show pipelines/transactions.yaml cash_ins.dead-letters/0/12
  txconnect dead-letters show pipelines/transactions.yaml cash_ins/0/345 --values
      By where the record stood; all its letters are shown.")]
pub struct ShowArguments {
    /// Which pipeline.
    #[command(flatten)]
    pub pipeline: PipelineArguments,
    /// The letter, as `list --each` writes it; or where its record stood
    #[arg(value_name = "TOPIC/PARTITION/OFFSET")]
    pub place: Place,
    /// Show key, value and header values too: text where they are UTF-8, else base64
    #[arg(long)]
    pub values: bool,
    /// JSON, one object in a line
    #[arg(long)]
    pub json: bool,
}

/// Where replayed letters go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum To {
    /// Back to the topics they came from
    Topic,
    /// Through the stages of the pipeline into its sink
    Pipeline,
}

/// What `dead-letters replay` is told.
#[derive(Debug, Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of the command line")]
#[command(after_help = "\
Examples:
  txconnect dead-letters replay pipelines/transactions.yaml --class validate.required --dry-run
      What would go, and what would stay.
  txconnect dead-letters replay pipelines/transactions.yaml --topic cash_ins --stage validate --yes
  txconnect dead-letters replay pipelines/transactions.yaml --offset cash_ins.dead-letters/0/12-40 --yes
  txconnect dead-letters replay pipelines/transactions.yaml --all --to pipeline --yes")]
pub struct ReplayArguments {
    /// Which pipeline.
    #[command(flatten)]
    pub pipeline: PipelineArguments,
    /// Which letters.
    #[command(flatten)]
    pub causes: CauseArguments,
    /// Only these letters: TOPIC/PARTITION/OFFSET or TOPIC/PARTITION/FIRST-LAST of a dead letter topic; may be repeated
    #[arg(long = "offset", value_name = "PLACE", help_heading = "Which letters")]
    pub offsets: Vec<Stretch>,
    /// All letters of the pipeline that wait
    #[arg(long, help_heading = "Which letters")]
    pub all: bool,
    /// Those too that were replayed already
    #[arg(long, help_heading = "Which letters")]
    pub again: bool,
    /// Leave letters whose record was replayed this often
    #[arg(long, value_name = "N", default_value = "5", help_heading = "Which letters")]
    pub most_replays: NonZeroU32,
    /// Where they go
    #[arg(long, value_enum, default_value_t = To::Topic, value_name = "WHERE")]
    pub to: To,
    /// Do it
    #[arg(long, conflicts_with = "dry_run")]
    pub yes: bool,
    /// Only show what would go
    #[arg(long)]
    pub dry_run: bool,
}

/// Does what the arguments say.
pub fn run(arguments: &DeadLettersArguments) -> Result<(), CommandError> {
    let screen = Screen::stderr();
    logging::start_quiet(&screen)?;
    match &arguments.command {
        DeadLettersCommand::List(arguments) => {
            let opened = Opened::open(&arguments.pipeline)?;
            list::list(&opened, arguments, &screen).map_err(|error| opened.named(error))
        }
        DeadLettersCommand::Show(arguments) => {
            let opened = Opened::open(&arguments.pipeline)?;
            show::show(&opened, arguments).map_err(|error| opened.named(error))
        }
        DeadLettersCommand::Replay(arguments) => {
            let opened = Opened::open(&arguments.pipeline)?;
            replay::replay(&opened, arguments, &screen).map_err(|error| opened.named(error))
        }
    }
}

/// Reads the pipeline file, with `overrides` after those of the command line.
fn load(arguments: &PipelineArguments, overrides: &[String]) -> Result<Pipeline, CommandError> {
    let environment = |name: &str| std::env::var(name).ok();
    let paths = std::slice::from_ref(&arguments.path);
    let overrides = [arguments.overrides.as_slice(), overrides].concat();
    let mut pipelines = config::load(paths, &overrides, &environment).map_err(CommandError::Mistakes)?;
    match (pipelines.pop(), pipelines.is_empty()) {
        (Some(pipeline), true) => Ok(pipeline),
        _ => Err(CommandError::Usage(format!(
            "{} holds several pipelines: name one file",
            arguments.path.display()
        ))),
    }
}

/// A pipeline with a client that joins no group.
struct Opened {
    pipeline: Pipeline,
    /// The names of its dead letter topics.
    template: TopicTemplate,
    /// The group that remembers what was replayed.
    group: String,
    consumer: Consumer,
}

impl Opened {
    fn open(arguments: &PipelineArguments) -> Result<Self, CommandError> {
        let pipeline = load(arguments, &[])?;
        for warning in &pipeline.warnings {
            say(&warning.to_string());
        }
        let name = &pipeline.name;
        let Some(template) = pipeline.dead_letters.as_ref().map(|block| block.topic.clone()) else {
            return Err(CommandError::Usage(format!(
                "{name}: the pipeline writes no dead letters: its file has no `dead_letters`"
            )));
        };
        let group = format!("{}-replay", pipeline.group);
        let consumer = Consumer::connect(&pipeline.source, &group, Tuning::default())
            .map_err(|error| CommandError::Failed(format!("{name}: {error}")))?;
        Ok(Self { pipeline, template, group, consumer })
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

    /// Says something about the pipeline.
    fn say(&self, text: &str) {
        say(&format!("{}: {text}", self.pipeline.name));
    }
}

/// A failed question to Kafka in one sentence with the way out.
fn kafka_failed(error: &KafkaError) -> CommandError {
    CommandError::Failed(match error {
        // The error says that it is retried, which nobody does here.
        KafkaError::Timeout { what } => format!(
            "Kafka did not answer within {} s: {what}; look at the brokers and run the command again",
            QUESTION.as_secs()
        ),
        other => other.to_string(),
    })
}
