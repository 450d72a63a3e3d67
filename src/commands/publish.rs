//! `txconnect publish`: JSON files into topics.

use std::io::Read;
use std::path::PathBuf;
use std::time::Instant;

use clap::Args;

use super::{CommandError, print_result, runtime, say};
use crate::publish::input::{Input, is_topic_name, topic_files};
use crate::publish::kafka::{Cluster, NewTopic};
use crate::publish::producer::RecordProducer;
use crate::publish::{self, Progress, Publication};
use crate::terminal::numbers::{counted, grouped, per_second, span};
use crate::terminal::progress::Screen;

/// Where brokers are looked for when nobody says anything else.
const DEFAULT_BROKERS: &str = "localhost:9092";

/// Send JSON files to Kafka.
///
/// A file is a JSON array, one value per line, or values one after the other; a top-level array is opened
/// and its elements are the records. Values are sent as they stand. A file of any size is read in constant
/// memory. Every record is confirmed by all in-sync replicas, none twice.
///
/// Broken JSON ends the command: the records before it have been sent, the message says where it is and how
/// many they are.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  txconnect publish cash_ins data/cash_ins.json
  txconnect publish cash_ins data/cash_ins.json --key account_id --partitions 6
  txconnect publish --dir data/
      Every data/<topic>.json and data/<topic>.ndjson into its topic.
  zcat events.ndjson.gz | txconnect publish events --brokers kafka-1:9092,kafka-2:9092
      Without a file, or with `-`, the standard input is read.
  txconnect publish events e.json --property security.protocol=ssl")]
pub struct PublishArguments {
    /// The topic
    #[arg(required_unless_present = "dir", conflicts_with = "dir", value_parser = topic_name)]
    pub topic: Option<String>,
    /// The files; none or `-` is the standard input
    #[arg(value_name = "FILE", conflicts_with = "dir")]
    pub files: Vec<PathBuf>,
    /// Send every <topic>.json and <topic>.ndjson of a folder to its topic
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// Take the key of each record from this top-level field: a string's text, a number or boolean as written
    #[arg(long, value_name = "FIELD", help_heading = "Records")]
    pub key: Option<String>,
    /// Brokers, with commas between them [default: localhost:9092]
    #[arg(long, value_name = "HOST:PORT,…", env = "KAFKA_BROKERS", help_heading = "Kafka")]
    pub brokers: Option<String>,
    /// Any setting of librdkafka, for example security.protocol=ssl; may be repeated
    #[arg(long = "property", value_name = "KEY=VALUE", value_parser = property, help_heading = "Kafka")]
    pub properties: Vec<(String, String)>,
    /// How many partitions a topic gets that does not exist [default: the broker's]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(1..), help_heading = "Missing topics")]
    pub partitions: Option<i32>,
    /// How many brokers keep a copy of a topic that does not exist [default: the broker's]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(1..=32767), help_heading = "Missing topics")]
    pub replication: Option<i32>,
}

fn topic_name(text: &str) -> Result<String, String> {
    if is_topic_name(text) {
        return Ok(text.to_owned());
    }
    Err("topics have up to 249 letters, digits, `.`, `_` or `-`".to_owned())
}

fn property(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.trim().is_empty() => Ok((key.trim().to_owned(), value.to_owned())),
        // What has no `=` may be a password that slipped: clap shows it, so nothing is added here.
        _ => Err("write KEY=VALUE".to_owned()),
    }
}

/// An input with the topic it goes to, opened before anything is sent.
struct Source {
    topic: String,
    name: String,
    reader: Box<dyn Read + Send>,
    bytes: Option<u64>,
}

impl PublishArguments {
    fn sources(&self) -> Result<Vec<Source>, CommandError> {
        let inputs: Vec<(String, Input)> = match (&self.dir, &self.topic) {
            (Some(folder), _) => topic_files(folder)
                .map_err(CommandError::usage)?
                .into_iter()
                .map(|file| (file.topic, Input::File(file.path)))
                .collect(),
            (None, Some(topic)) if self.files.is_empty() => vec![(topic.clone(), Input::Stdin)],
            (None, Some(topic)) => {
                self.files.iter().map(|path| (topic.clone(), Input::from_argument(path.clone()))).collect()
            }
            (None, None) => return Err(CommandError::Usage("a TOPIC or --dir is needed".to_owned())),
        };
        inputs
            .into_iter()
            .map(|(topic, input)| {
                let name = input.to_string();
                match input.open() {
                    Ok((reader, bytes)) => Ok(Source { topic, name, reader, bytes }),
                    Err(error) => Err(CommandError::Usage(format!("cannot open {name}: {error}"))),
                }
            })
            .collect()
    }
}

/// Sends what the arguments name.
pub fn publish(arguments: &PublishArguments) -> Result<(), CommandError> {
    let sources = arguments.sources()?;
    let screen = Screen::stderr();
    super::logging::start_quiet(&screen)?;
    let brokers =
        arguments.brokers.clone().filter(|brokers| !brokers.is_empty()).unwrap_or(DEFAULT_BROKERS.to_owned());
    let cluster = Cluster::new(&brokers, &arguments.properties).map_err(CommandError::usage)?;
    let runtime = runtime()?;
    let shape = NewTopic { partitions: arguments.partitions, replication: arguments.replication };
    let mut topics: Vec<&str> = sources.iter().map(|source| source.topic.as_str()).collect();
    topics.dedup();
    for topic in topics {
        if runtime.block_on(cluster.ensure_topic(topic, shape)).map_err(CommandError::failed)? {
            say(&format!("created the topic {topic}"));
        }
    }
    let mut producer = cluster.producer().map_err(CommandError::failed)?;
    for source in sources {
        if source.name == "standard input"
            && screen.is_live()
            && std::io::IsTerminal::is_terminal(&std::io::stdin())
        {
            say("reading JSON from the keyboard; Ctrl-D ends it");
        }
        print_result(&send_one(source, arguments.key.as_deref(), &mut producer, &screen)?)?;
    }
    Ok(())
}

/// Sends one input; answers the line to print about it.
fn send_one(
    mut source: Source,
    key: Option<&str>,
    producer: &mut dyn RecordProducer,
    screen: &Screen,
) -> Result<String, CommandError> {
    let started = Instant::now();
    let before = producer.confirmed();
    let bar = screen.bytes_bar(&source.topic, source.bytes);
    let publication = Publication { topic: &source.topic, key };
    let result = publish::publish(&mut source.reader, publication, producer, &mut |done: Progress| {
        bar.set_position(done.bytes);
        bar.set_message(format!(
            "{}  {} records/s",
            counted(done.records, "record", "records"),
            grouped(per_second(done.records, started.elapsed()))
        ));
    });
    let flushed = producer.flush();
    bar.finish_and_clear();
    let sent = producer.confirmed() - before;
    let failed = |error: &dyn std::fmt::Display| {
        CommandError::Failed(format!(
            "{}: {error}; {} of it sent to {}",
            source.name,
            counted(sent, "record", "records"),
            source.topic
        ))
    };
    // What broke the sending explains more than what the flush saw afterwards.
    result.map_err(|error| failed(&error))?;
    flushed.map_err(|error| failed(&error))?;
    let elapsed = started.elapsed();
    Ok(format!(
        "{}: {} from {} in {} ({} records/s)\n",
        source.topic,
        counted(sent, "record", "records"),
        source.name,
        span(elapsed),
        grouped(per_second(sent, elapsed))
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::publish::producer::RecordingProducer;

    fn source(text: &'static str) -> Source {
        Source { topic: "t".into(), name: "t.json".into(), reader: Box::new(text.as_bytes()), bytes: None }
    }

    #[test]
    fn a_sent_file_is_told_in_one_line() {
        let mut producer = RecordingProducer::default();
        let line = send_one(source("[1,2]"), None, &mut producer, &Screen::stderr()).unwrap();
        assert!(line.starts_with("t: 2 records from t.json in 0."), "{line}");
        let line = send_one(source("3"), None, &mut producer, &Screen::stderr()).unwrap();
        assert!(
            line.starts_with("t: 1 record from"),
            "records of earlier files are not counted again: {line}"
        );
    }

    #[test]
    fn a_broken_file_is_told_with_the_number_of_records_sent() {
        let mut producer = RecordingProducer::default();
        let error = send_one(source("1\n2\n{]"), None, &mut producer, &Screen::stderr()).unwrap_err();
        assert_eq!(
            error.to_string(),
            "t.json: line 3, byte 5: not JSON: key must be a string; 2 records of it sent to t"
        );
        assert!(matches!(error, CommandError::Failed(_)));
    }
}
