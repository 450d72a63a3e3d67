//! Measures txconnect beside the limits and the rivals, on the same records and servers. Started by `./dev bench`,
//! which brings the servers; docs/benchmarks.md says what the figures mean.
#![forbid(unsafe_code)]

use std::error::Error;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;

mod bigquery;
mod broker;
mod contender;
mod measure;
mod processes;
mod records;
mod report;
mod table;

use contender::{Contender, INTO_BIGQUERY, Ours, Place, THROUGH_WASM, rivals_in};
use measure::Servers;
use processes::Family;
use report::Rounds;
use table::Database;

/// Whatever keeps the bench from measuring.
type Trouble = Box<dyn Error>;

/// Measures txconnect beside kcat, psql, the old way into BigQuery and, where they are there, its rivals.
#[derive(Debug, Parser)]
#[command(name = "./dev bench")]
struct Arguments {
    /// How many records are produced
    #[arg(long, default_value_t = 2_000_000, value_parser = clap::value_parser!(u64).range(1_000..))]
    rows: u64,
    /// How often every contender is measured; they take turns
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Contenders in their order, as NAME[@SETTING=VALUE…], with commas; `bigquery` stands for all into BigQuery, `wasm`
    /// for a pipeline without and with a transform [default: all others]
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// A folder with contenders/NAME.sh for other tools
    #[arg(long, env = "TXCONNECT_RIVALS", value_name = "DIR")]
    rivals: Option<PathBuf>,
    /// Run ours below `perf record`; the profiles stay in target/bench
    #[arg(long)]
    profile: bool,
    /// Print who would be measured, and end
    #[arg(long, overrides_with = "list")]
    list: bool,
    #[arg(long, env = "BENCH_FOLDER", hide = true, default_value = "target/bench")]
    folder: PathBuf,
    #[arg(long, env = "BENCH_TXCONNECT", hide = true, default_value = "target/release/txconnect")]
    txconnect: PathBuf,
    #[arg(long, env = "BENCH_PYTHON", hide = true, default_value = "target/bench/python/bin/python")]
    python: PathBuf,
    #[arg(long, env = "KAFKA_BROKERS", hide = true, default_value = "")]
    brokers: String,
    #[arg(long, env = "PG_URL", hide = true, hide_env_values = true, default_value = "")]
    database: String,
    #[arg(long, env = "KAFKA_PID", hide = true, default_value_t = 0)]
    kafka_pid: u32,
    #[arg(long, env = "POSTGRES_PID", hide = true, default_value_t = 0)]
    postgres_pid: u32,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let mistake = match contenders(&arguments) {
        Ok(contenders) if arguments.list => {
            return tell(&report::names(&contenders));
        }
        Ok(contenders) => match run(arguments, contenders) {
            Ok(all) => {
                let failed = report::any_fault(&all);
                let told = tell(&report::render(&all));
                return if failed { ExitCode::FAILURE } else { told };
            }
            Err(trouble) => trouble.to_string(),
        },
        Err(mistake) => mistake,
    };
    say(&mistake);
    ExitCode::FAILURE
}

fn contenders(arguments: &Arguments) -> Result<Vec<Contender>, String> {
    let rivals = arguments.rivals.as_deref().map_or(Ok(Vec::new()), rivals_in)?;
    if arguments.only.is_empty() {
        return Ok(Contender::usual(&rivals));
    }
    let mut contenders = Vec::new();
    let one = |label| match label {
        "bigquery" => INTO_BIGQUERY.to_vec(),
        "wasm" => THROUGH_WASM.to_vec(),
        label => vec![label],
    };
    for label in arguments.only.iter().flat_map(|label| one(label)) {
        let contender = Contender::parse(label, &rivals)?;
        if contenders.contains(&contender) {
            return Err(format!("'{label}' is named twice"));
        }
        contenders.push(contender);
    }
    Ok(contenders)
}

fn run(arguments: Arguments, contenders: Vec<Contender>) -> Result<Vec<Rounds>, Trouble> {
    fs::create_dir_all(&arguments.folder)?;
    let place = Place {
        folder: arguments.folder.canonicalize()?,
        txconnect: arguments.txconnect.canonicalize()?,
        // Its links lead out of its folder, so that it stays as it is named.
        python: std::path::absolute(&arguments.python)?,
        rivals: arguments.rivals.map_or(Ok(PathBuf::new()), |folder| folder.canonicalize())?,
        brokers: arguments.brokers,
        database: arguments.database,
        rows: arguments.rows,
        profile: arguments.profile,
    };
    // One thread: a contender is told of the death of the thread that started it.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let database = Database::open(&place.database).await?;
        say(&format!("producing {} records", place.rows));
        let expected =
            broker::fill_topic(&place.brokers, place.rows, &place.folder.join("records.tsv")).await?;
        broker::warm_up(&place.brokers)?;
        Ours::write_files(&place.folder)?;

        let servers = Servers {
            database: &database,
            kafka: Family::of(arguments.kafka_pid),
            postgres: Family::of(arguments.postgres_pid),
        };
        let mut results = File::create(place.folder.join("results.jsonl"))?;
        let mut all: Vec<Rounds> =
            contenders.into_iter().map(|contender| Rounds { contender, measurements: Vec::new() }).collect();
        for round in 1..=arguments.rounds {
            for rounds in &mut all {
                let contender = &rounds.contender;
                let measurement = servers.measure(contender, round, &place, expected).await?;
                say(&format!(
                    "round {round} of {}: {contender}: {}",
                    arguments.rounds,
                    report::short(&measurement)
                ));
                writeln!(results, "{}", report::json_line(contender, round, &measurement))?;
                rounds.measurements.push(measurement);
            }
        }
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        say(&format!(
            "{} records of {} bytes (as lines) in {} partitions, {cores} cores of {}, PostgreSQL {}",
            expected.rows,
            (expected.json_bytes + expected.rows / 2) / expected.rows,
            broker::PARTITIONS,
            processes::processor(),
            database.version
        ));
        Ok(all)
    })
}

/// Tells whoever waits.
fn say(line: &str) {
    // Where nobody listens any more there is nobody to tell.
    drop(writeln!(std::io::stderr(), "bench: {line}"));
}

/// Prints the result.
fn tell(text: &str) -> ExitCode {
    match std::io::stdout().write_all(text.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("the result cannot be printed: {error}"));
            ExitCode::FAILURE
        }
    }
}
