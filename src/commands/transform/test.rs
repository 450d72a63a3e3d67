//! `txconnect transform test`: records through a transform.
//!
//! | module | what it does |
//! |---|---|
//! | `lines` | lines of a file to records, rows to lines |
//! | `passes` | records through the transform, the guilty ones found |
//! | `heard` | what the transform logs and counts |
//! | `exact` | JSON values compared to the last digit |
//! | `expectation` | rows against what was expected |

mod exact;
mod expectation;
mod heard;
mod lines;
mod passes;

use std::fmt::Write as _;
use std::fs;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Args;
use serde_json::Value;
use txconnect_connector_api::{ByteSize, HumanDuration};
use txconnect_transform_host::{Grant, Interrupt, Limits, Module};

use self::heard::Heard;
use self::passes::{Outcome, Passes};
use super::super::{CommandError, print_result, say};
use super::load;
use crate::publish::input::is_topic_name;
use crate::terminal::numbers::{counted, grouped};

/// The largest file that is read.
const LARGEST_FILE: u64 = 1 << 30;

/// What `transform test` is told.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  txconnect transform test mask.wasm --input records.ndjson --config '{\"fields\": [\"account_id\"]}'
  txconnect transform test mask.wasm --input records.ndjson --config @config.json --expect expected.ndjson
  txconnect transform test mask.wasm --input records.ndjson --expect expected.ndjson --update
      Write what comes out as what is expected from now on.
  txconnect transform test mask.wasm --input records.ndjson --repeat 100 >/dev/null
      How long a record takes.

Lines:
  A line of the input is the value of a record, as JSON. With --envelope it is an object with any of topic, partition,
  offset, timestamp, key, headers and value, as the sink `stdout` writes it with `envelope: true`; a value of null is a
  tombstone. Bytes that are not text are {\"base64\": \"…\"}. A record that fails is {\"failed\": \"code\"} among what is
  expected.")]
pub struct TestArguments {
    /// The component's file
    #[arg(value_name = "MODULE")]
    pub module: PathBuf,
    /// The records, one in a line
    #[arg(long, value_name = "FILE")]
    pub input: PathBuf,
    /// What should come out, one row in a line
    #[arg(long, value_name = "FILE")]
    pub expect: Option<PathBuf>,
    /// Write what comes out to the file that --expect names
    #[arg(long, requires = "expect")]
    pub update: bool,
    /// Lines are whole records, not only their values
    #[arg(long)]
    pub envelope: bool,
    /// The topic of records that name none
    #[arg(long, value_name = "TOPIC", default_value = "records", value_parser = topic)]
    pub topic: String,
    /// How many records one call of the transform gets
    #[arg(long, value_name = "N", default_value = "500")]
    pub batch: NonZeroU32,
    /// Send all records so many times, and tell the time of the fastest pass
    #[arg(long, value_name = "N", default_value = "1")]
    pub repeat: NonZeroU32,
    /// The transform's config: JSON, or a file with it behind an @
    #[arg(long, value_name = "JSON|@FILE", help_heading = "As in a pipeline file")]
    pub config: Option<String>,
    /// What the transform may see of the machine: clock, random
    #[arg(long, value_name = "GRANT,…", value_delimiter = ',', value_parser = grant, help_heading = "As in a pipeline file")]
    pub allow: Vec<Grant>,
    /// The most memory [default: 256MiB]
    #[arg(long, value_name = "SIZE", help_heading = "As in a pipeline file")]
    pub memory: Option<ByteSize>,
    /// How long one batch may take [default: 2s]
    #[arg(long, value_name = "DURATION", help_heading = "As in a pipeline file")]
    pub time_per_batch: Option<HumanDuration>,
    /// How a transform that takes longer is stopped: epoch, fuel or none [default: epoch]
    #[arg(long, value_name = "HOW", value_parser = interrupt, help_heading = "As in a pipeline file")]
    pub interrupt: Option<Interrupt>,
    /// The most rows that one record may become [default: 1000]
    #[arg(long, value_name = "N", help_heading = "As in a pipeline file")]
    pub max_outputs_per_record: Option<NonZeroU32>,
}

fn topic(text: &str) -> Result<String, String> {
    if is_topic_name(text) {
        return Ok(text.to_owned());
    }
    Err("topics have up to 249 letters, digits, `.`, `_` or `-`".to_owned())
}

fn grant(text: &str) -> Result<Grant, String> {
    super::ALL_GRANTS
        .into_iter()
        .find(|grant| grant.name() == text)
        .ok_or_else(|| "`clock` and `random` can be granted".to_owned())
}

fn interrupt(text: &str) -> Result<Interrupt, String> {
    match text {
        "epoch" => Ok(Interrupt::Epoch),
        "fuel" => Ok(Interrupt::Fuel),
        "none" => Ok(Interrupt::None),
        _ => Err("write `epoch`, `fuel` or `none`".to_owned()),
    }
}

impl TestArguments {
    fn limits(&self) -> Limits {
        let usual = Limits::default();
        Limits {
            memory: self.memory.unwrap_or(usual.memory),
            time_per_batch: self.time_per_batch.unwrap_or(usual.time_per_batch),
            interrupt: self.interrupt.unwrap_or(usual.interrupt),
            max_outputs_per_record: self.max_outputs_per_record.unwrap_or(usual.max_outputs_per_record),
            ..usual
        }
    }

    fn config(&self) -> Result<Option<Value>, CommandError> {
        let Some(written) = &self.config else { return Ok(None) };
        let (text, place) = match written.strip_prefix('@') {
            Some(path) => (read(Path::new(path))?, path.to_owned()),
            None => (written.clone(), "--config".to_owned()),
        };
        serde_json::from_str(&text)
            .map(Some)
            .map_err(|error| CommandError::Usage(format!("{place} is not JSON: {error}")))
    }
}

/// The text of a file that the command line names.
fn read(path: &Path) -> Result<String, CommandError> {
    let cannot =
        |why: &dyn std::fmt::Display| CommandError::Usage(format!("cannot read {}: {why}", path.display()));
    let metadata = fs::metadata(path).map_err(|error| cannot(&error))?;
    if !metadata.is_file() {
        return Err(cannot(&"it is not a regular file"));
    }
    if metadata.len() > LARGEST_FILE {
        return Err(cannot(&"it is larger than 1GiB"));
    }
    fs::read_to_string(path).map_err(|error| cannot(&error))
}

/// Sends records through the transform that the arguments name.
pub(super) fn test(arguments: &TestArguments) -> Result<(), CommandError> {
    let config = arguments.config()?;
    let records =
        lines::records(&read(&arguments.input)?, &arguments.input, &arguments.topic, arguments.envelope)?;
    let expected = match &arguments.expect {
        Some(path) if !arguments.update => Some(expectation::Expectation::read(path)?),
        _ => None,
    };
    let started = Instant::now();
    let module = load(&arguments.module, arguments.limits(), &arguments.allow)?;
    accepts(&module, config.as_ref())?;
    let heard = Arc::new(Heard::default());
    let transform = module
        .start(config.as_ref(), Arc::clone(&heard) as Arc<dyn txconnect_transform_host::Reports>)
        .map_err(CommandError::failed)?;
    let loaded = started.elapsed();

    let mut passes = Passes::new(transform, arguments.batch, arguments.limits().time_per_batch.0);
    let outcomes = passes.pass(&records)?;
    heard.silence();
    let mut fastest = passes.last_took();
    for _ in 1..arguments.repeat.get() {
        passes.pass(&records)?;
        fastest = fastest.min(passes.last_took());
    }

    tell_failures(&outcomes, &records);
    let rows = lines::rows(&records, &outcomes, arguments.envelope);
    let result = match (&expected, &arguments.expect) {
        (Some(expected), _) => expected.compare(&rows),
        (None, Some(path)) => expectation::write(path, &rows),
        (None, None) => print_result(&lines::as_text(rows.iter().filter(|row| !row.failed))),
    };
    say(&summary(
        arguments,
        &module,
        &outcomes,
        &Figures { loaded, fastest, memory: passes.memory() },
        &heard,
    ));
    result
}

/// Refuses a config that the transform's own schema does not allow.
fn accepts(module: &Module, config: Option<&Value>) -> Result<(), CommandError> {
    let problems = module.config_problems(config);
    if problems.is_empty() {
        return Ok(());
    }
    let lines: Vec<String> = problems
        .iter()
        .map(|problem| {
            let path = if problem.path.is_empty() { String::new() } else { format!("{}: ", problem.path) };
            format!("--config: {path}{}", problem.message)
        })
        .collect();
    Err(CommandError::Usage(lines.join("\n")))
}

fn tell_failures(outcomes: &[Outcome], records: &[lines::TestRecord]) {
    for (outcome, record) in outcomes.iter().zip(records) {
        let Outcome::Failed(failure) = outcome else { continue };
        say(&format!("line {}: {}: {}", record.line, failure.code, failure.message));
        for line in failure.trace.iter().flat_map(|trace| trace.lines()) {
            say(&format!("  {line}"));
        }
    }
}

struct Figures {
    loaded: Duration,
    fastest: Duration,
    memory: usize,
}

fn summary(
    arguments: &TestArguments,
    module: &Module,
    outcomes: &[Outcome],
    figures: &Figures,
    heard: &Heard,
) -> String {
    let description = module.description();
    let (mut rows, mut filtered, mut failed) = (0, 0, 0);
    for outcome in outcomes {
        match outcome {
            Outcome::Rows(made) if made.is_empty() => filtered += 1,
            Outcome::Rows(made) => rows += made.len() as u64,
            Outcome::Failed(_) => failed += 1,
        }
    }
    let each = figures.fastest.as_nanos() / (outcomes.len().max(1) as u128);
    let mut text = format!(
        "{} {}: {}, {}, {} filtered, {} failed\n{} ns per record in batches of {}",
        description.name,
        description.version,
        counted(outcomes.len() as u64, "record", "records"),
        counted(rows, "row", "rows"),
        grouped(filtered),
        grouped(failed),
        grouped(u64::try_from(each).unwrap_or(u64::MAX)),
        arguments.batch,
    );
    if arguments.repeat.get() > 1 {
        // Writing to a String cannot fail.
        let _ = write!(text, " (the fastest of {} passes)", arguments.repeat);
    }
    let _ = write!(
        text,
        ", {} KiB of memory, ready after {:.1} ms",
        grouped(figures.memory.div_ceil(1024) as u64),
        figures.loaded.as_secs_f64() * 1000.0
    );
    for (name, count) in heard.counters() {
        let _ = write!(text, "\ncounter {name}: {}", grouped(count));
    }
    text
}
