//! Who is measured, and how each is started.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::Trouble;
use super::bigquery::{DATASET, PROJECT};
use super::broker::TOPIC;
use super::table::Table;

/// Contenders of the rivals' folder that we have ourselves.
const NOT_RIVALS: [&str; 3] = ["copy", "kcat", "txconnect"];
/// The setting that names another build of ours.
const BINARY: &str = "BINARY";
/// The setting that says how many milliseconds every call to BigQuery takes.
const LATENCY: &str = "LATENCY";

/// What `bigquery` stands for: a server that answers at once, then one that takes 50 ms for each call of 500 rows.
pub(crate) const INTO_BIGQUERY: [&str; 11] = [
    "bigquery-exactly-once",
    "bigquery-at-least-once",
    "bigquery-upsert",
    "bigquery-insert-all",
    "bigquery-old-way",
    "bigquery-exactly-once@LATENCY=50@batch.rows=500",
    "bigquery-at-least-once@LATENCY=50@batch.rows=500",
    "bigquery-upsert@LATENCY=50@batch.rows=500",
    "bigquery-insert-all@LATENCY=50@batch.rows=500",
    "bigquery-insert-all@LATENCY=50@batch.rows=500@sink.bigquery.in_flight=16",
    "bigquery-old-way@LATENCY=50",
];

/// What `wasm` stands for: the same pipeline without a transform and with one.
pub(crate) const THROUGH_WASM: [&str; 2] = ["append", "append-masked"];

/// One contender, with its settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Contender {
    pub(crate) kind: Kind,
    /// What differs from its usual settings: for ours a configuration key, for rivals an environment variable.
    settings: Vec<(String, String)>,
}

/// What a contender is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// librdkafka's own tool reads everything and prints it to `/dev/null`.
    Kcat,
    /// `psql` copies the same rows from a file, in one transaction.
    Copy(Table),
    /// One of our pipelines.
    Ours(Ours),
    /// A script of the rivals' folder.
    Rival(String),
    /// A Python program that takes 500 records and waits for one insertAll for each of their topics.
    OldWay,
}

/// Where rows go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Goal {
    /// `/dev/null`.
    Output,
    Table(Table),
    /// A local BigQuery that counts.
    BigQuery,
}

/// Our pipelines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ours {
    /// Kafka, validation, standard output.
    Stdout,
    /// Kafka, validation, COPY, with the offsets in the same transaction.
    Append,
    /// The same with the offsets in Kafka alone.
    AppendAtLeastOnce,
    /// The same as the first, through the transform that masks account numbers.
    AppendMasked,
    /// Kafka, validation, upsert by transaction id, with the offsets in the same transaction.
    Upsert,
    /// Kafka, validation, BigQuery.
    BigQuery(Way),
}

/// Our ways into BigQuery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// Write streams that are published behind a Kafka commit.
    ExactlyOnce,
    /// The default stream.
    AtLeastOnce,
    /// The default stream, with keys.
    Upsert,
    /// The streaming call.
    InsertAll,
}

impl Ours {
    const ALL: [Self; 9] = [
        Self::Stdout,
        Self::Append,
        Self::AppendAtLeastOnce,
        Self::AppendMasked,
        Self::Upsert,
        Self::BigQuery(Way::ExactlyOnce),
        Self::BigQuery(Way::AtLeastOnce),
        Self::BigQuery(Way::Upsert),
        Self::BigQuery(Way::InsertAll),
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Append => "append",
            Self::AppendAtLeastOnce => "append-at-least-once",
            Self::AppendMasked => "append-masked",
            Self::Upsert => "upsert",
            Self::BigQuery(Way::ExactlyOnce) => "bigquery-exactly-once",
            Self::BigQuery(Way::AtLeastOnce) => "bigquery-at-least-once",
            Self::BigQuery(Way::Upsert) => "bigquery-upsert",
            Self::BigQuery(Way::InsertAll) => "bigquery-insert-all",
        }
    }

    /// The pipeline's file.
    fn pipeline(self) -> (&'static str, &'static str) {
        match self {
            Self::Stdout => ("stdout.yaml", include_str!("pipelines/stdout.yaml")),
            Self::Append | Self::AppendAtLeastOnce => ("append.yaml", include_str!("pipelines/append.yaml")),
            Self::AppendMasked => ("append-masked.yaml", include_str!("pipelines/append-masked.yaml")),
            Self::Upsert => ("upsert.yaml", include_str!("pipelines/upsert.yaml")),
            Self::BigQuery(Way::ExactlyOnce | Way::AtLeastOnce) => {
                ("bigquery-append.yaml", include_str!("pipelines/bigquery-append.yaml"))
            }
            Self::BigQuery(Way::Upsert) => {
                ("bigquery-upsert.yaml", include_str!("pipelines/bigquery-upsert.yaml"))
            }
            Self::BigQuery(Way::InsertAll) => {
                ("bigquery-insert-all.yaml", include_str!("pipelines/bigquery-insert-all.yaml"))
            }
        }
    }

    /// How it is delivered, where its file leaves that open.
    fn delivery(self) -> Option<&'static str> {
        match self {
            Self::AppendAtLeastOnce => Some("sink.postgres.delivery=at_least_once"),
            Self::BigQuery(Way::ExactlyOnce) => Some("sink.bigquery.delivery=exactly_once"),
            Self::BigQuery(Way::AtLeastOnce) => Some("sink.bigquery.delivery=at_least_once"),
            Self::Stdout
            | Self::Append
            | Self::AppendMasked
            | Self::Upsert
            | Self::BigQuery(Way::Upsert | Way::InsertAll) => None,
        }
    }

    /// Writes the pipelines, their schema and the old way where [`Contender::command`] expects them.
    pub(crate) fn write_files(folder: &Path) -> Result<(), Trouble> {
        let [pipelines, schemas] = ["pipelines", "schemas"].map(|name| folder.join(name));
        std::fs::create_dir_all(&pipelines)?;
        std::fs::create_dir_all(&schemas)?;
        std::fs::write(schemas.join("transactions.json"), include_str!("schemas/transactions.json"))?;
        for (name, text) in Self::ALL.map(Self::pipeline) {
            std::fs::write(pipelines.join(name), text)?;
        }
        std::fs::write(folder.join("consume.py"), include_str!("old_way/consume.py"))?;
        Ok(())
    }
}

impl Contender {
    /// Understands `NAME[@SETTING=VALUE…]`.
    pub(crate) fn parse(label: &str, rivals: &[String]) -> Result<Self, String> {
        let mut parts = label.split('@');
        let name = parts.next().unwrap_or_default();
        let kind = Self::all(rivals).into_iter().find(|kind| kind.name() == name).ok_or_else(|| {
            let known: Vec<String> = Self::all(rivals).iter().map(|kind| kind.name().to_owned()).collect();
            let more = if rivals.is_empty() { "; those of the rivals' folder need --rivals" } else { "" };
            format!("there is no contender '{name}'; there are: {}{more}", known.join(", "))
        })?;
        let mut settings = Vec::new();
        for setting in parts {
            let (key, value) = setting
                .split_once('=')
                .ok_or_else(|| format!("'{setting}' in '{label}' should be SETTING=VALUE"))?;
            settings.push((key.to_owned(), value.to_owned()));
        }
        if matches!(kind, Kind::Kcat | Kind::Copy(_)) && !settings.is_empty() {
            return Err(format!("{name} takes no settings"));
        }
        let contender = Self { kind, settings };
        match contender.setting(LATENCY) {
            Some(latency) if contender.goal() == Goal::BigQuery && latency.parse::<u32>().is_err() => {
                Err(format!("{LATENCY} in '{label}' should be whole milliseconds"))
            }
            _ => Ok(contender),
        }
    }

    /// Everyone, in the order in which they are taken.
    fn all(rivals: &[String]) -> Vec<Kind> {
        [Kind::Kcat, Kind::Copy(Table::Plain), Kind::Copy(Table::Keyed)]
            .into_iter()
            .chain(Ours::ALL.map(Kind::Ours))
            .chain([Kind::OldWay])
            .chain(rivals.iter().cloned().map(Kind::Rival))
            .collect()
    }

    /// Those who are measured where nobody is named: all but those into BigQuery and through a transform.
    pub(crate) fn usual(rivals: &[String]) -> Vec<Self> {
        let all = Self::all(rivals).into_iter().filter(|kind| *kind != Kind::Ours(Ours::AppendMasked));
        let all = all.map(|kind| Self { kind, settings: Vec::new() });
        all.filter(|contender| contender.goal() != Goal::BigQuery).collect()
    }

    fn setting(&self, name: &str) -> Option<&str> {
        self.settings.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// How many milliseconds every call to BigQuery takes.
    pub(crate) fn latency(&self) -> u32 {
        self.setting(LATENCY).and_then(|latency| latency.parse().ok()).unwrap_or_default()
    }

    /// How many of the records it moves: a tenth where one is enough to see its pace, which is slow.
    pub(crate) fn rows(&self, all: u64) -> u64 {
        if self.kind == Kind::OldWay { all / 10 } else { all }
    }

    /// The command, with everything it needs in its environment.
    pub(crate) fn command(&self, place: &Place, group: &str) -> Command {
        let mut command = match &self.kind {
            Kind::Kcat => {
                let mut command = place.dying_with_us("kcat");
                command.args(["-C", "-q", "-b", &place.brokers, "-t", TOPIC, "-o", "beginning"]);
                command.args(["-c", &place.rows.to_string()]);
                command
            }
            Kind::Copy(table) => {
                let mut command = place.dying_with_us("psql");
                let from = place.folder.join("records.tsv");
                command.args([
                    "--quiet",
                    "--no-psqlrc",
                    "--set=ON_ERROR_STOP=1",
                    &place.database,
                    "--command",
                ]);
                command.arg(format!("\\copy {} from '{}'", table.name(), from.display()));
                command
            }
            Kind::Ours(ours) => self.our_command(*ours, place, group),
            Kind::Rival(name) => {
                let script = place.rivals.join("contenders").join(format!("{name}.sh"));
                let mut command = place.dying_with_us(script);
                command.envs(self.settings.iter().map(|(key, value)| (key, value)));
                command
            }
            Kind::OldWay => {
                let mut command = place.dying_with_us(&place.python);
                command.arg("consume.py").envs([("PROJECT", PROJECT), ("DATASET", DATASET)]);
                command
            }
        };
        command
            .env("BROKERS", &place.brokers)
            .env("TOPIC", TOPIC)
            .env("GROUP", group)
            .env("PG_URL", &place.database)
            .env("TABLE", self.table().unwrap_or(Table::Plain).name())
            .env("ROWS", self.rows(place.rows).to_string())
            .env("DATA", &place.folder)
            .env("SCRATCH", place.folder.join("scratch"))
            .env("KIT", &place.rivals);
        command
    }

    fn our_command(&self, ours: Ours, place: &Place, group: &str) -> Command {
        let binary = self.setting(BINARY).map_or_else(|| place.txconnect.clone(), PathBuf::from);
        let mut command = if self.is_profiled(place) {
            let mut command = place.dying_with_us("perf");
            command.args(["record", "--quiet", "--freq=997", "--output"]);
            command.arg(place.folder.join(format!("perf-{group}.data"))).arg("--").arg(binary);
            command
        } else {
            place.dying_with_us(binary)
        };
        command.arg("run").arg(place.folder.join("pipelines").join(ours.pipeline().0));
        command.args(["--until-end", "--timeout", "5m", "--log-format", "json"]);
        if let Some(delivery) = ours.delivery() {
            command.args(["--set", delivery]);
        }
        for (key, value) in self.settings.iter().filter(|(key, _)| key != BINARY && key != LATENCY) {
            command.arg("--set").arg(format!("{key}={value}"));
        }
        command
    }

    /// Whether `perf record` watches it.
    pub(crate) fn is_profiled(&self, place: &Place) -> bool {
        place.profile && matches!(self.kind, Kind::Ours(_))
    }

    /// Where its rows go.
    pub(crate) fn goal(&self) -> Goal {
        match &self.kind {
            Kind::Kcat | Kind::Ours(Ours::Stdout) => Goal::Output,
            Kind::Copy(table) => Goal::Table(*table),
            Kind::Ours(Ours::Upsert) => Goal::Table(Table::Keyed),
            Kind::Ours(Ours::Append | Ours::AppendAtLeastOnce | Ours::AppendMasked) | Kind::Rival(_) => {
                Goal::Table(Table::Plain)
            }
            Kind::Ours(Ours::BigQuery(_)) | Kind::OldWay => Goal::BigQuery,
        }
    }

    /// The table that it fills in PostgreSQL.
    pub(crate) fn table(&self) -> Option<Table> {
        match self.goal() {
            Goal::Table(table) => Some(table),
            Goal::Output | Goal::BigQuery => None,
        }
    }

    /// A consumer group's name, and a pipeline's: small letters, digits and dashes.
    pub(crate) fn group(&self, round: u32) -> String {
        let readable = |character: char| match character {
            'a'..='z' | '0'..='9' => character,
            'A'..='Z' => character.to_ascii_lowercase(),
            _ => '-',
        };
        let label: String = self.to_string().chars().map(readable).collect();
        // A pipeline's name may have 100 characters; only what follows a long path in a setting is cut off.
        format!("round-{round}-{}", label.chars().take(80).collect::<String>())
    }
}

impl Kind {
    pub(crate) fn name(&self) -> &str {
        match self {
            Self::Kcat => "kcat",
            Self::Copy(Table::Plain) => "copy",
            Self::Copy(Table::Keyed) => "copy-keyed",
            Self::Ours(ours) => ours.name(),
            Self::Rival(name) => name,
            Self::OldWay => "bigquery-old-way",
        }
    }
}

impl fmt::Display for Contender {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.kind.name())?;
        self.settings.iter().try_for_each(|(key, value)| write!(out, "@{key}={value}"))
    }
}

/// Where a run happens.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    /// Everything that the run writes.
    pub(crate) folder: PathBuf,
    pub(crate) brokers: String,
    /// The address of the PostgreSQL server.
    pub(crate) database: String,
    /// Our binary.
    pub(crate) txconnect: PathBuf,
    /// The Python that has what the old way needs.
    pub(crate) python: PathBuf,
    /// The rivals' folder; empty when there is none.
    pub(crate) rivals: PathBuf,
    pub(crate) rows: u64,
    /// Whether `perf record` watches ours.
    pub(crate) profile: bool,
}

impl Place {
    /// A command that is ended when the bench dies.
    pub(crate) fn dying_with_us(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "TERM", "--"]).arg(program).current_dir(&self.folder);
        command
    }
}

/// The contenders of a rivals' folder, by name.
pub(crate) fn rivals_in(folder: &Path) -> Result<Vec<String>, String> {
    let contenders = folder.join("contenders");
    let entries = std::fs::read_dir(&contenders)
        .map_err(|error| format!("{} is no folder of rivals: {error}", contenders.display()))?;
    let mut names: Vec<String> = entries
        .flatten()
        .filter_map(|entry| Some(entry.file_name().to_str()?.strip_suffix(".sh")?.to_owned()))
        .filter(|name| !NOT_RIVALS.contains(&name.as_str()))
        .collect();
    names.sort_unstable();
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(label: &str) -> Result<Contender, String> {
        Contender::parse(label, &["bento".to_owned()])
    }

    #[test]
    fn a_label_is_a_name_and_settings() {
        let contender = parse("append@batch.rows=1000@memory=96MiB").unwrap();
        assert_eq!(contender.kind, Kind::Ours(Ours::Append));
        assert_eq!(contender.table(), Some(Table::Plain));
        assert_eq!(contender.to_string(), "append@batch.rows=1000@memory=96MiB");
        assert_eq!(contender.group(2), "round-2-append-batch-rows-1000-memory-96mib");
        assert_eq!(parse("bento@STYLE=insert").unwrap().kind, Kind::Rival("bento".to_owned()));
    }

    #[test]
    fn mistakes_in_labels_are_told() {
        assert!(parse("pg").unwrap_err().contains("there are: kcat, copy, copy-keyed, stdout, append"));
        assert!(parse("append@batch.rows").unwrap_err().contains("SETTING=VALUE"));
        assert_eq!(parse("kcat@x=y").unwrap_err(), "kcat takes no settings");
        assert!(Contender::parse("bento", &[]).unwrap_err().contains("--rivals"));
        assert!(parse("bigquery-upsert@LATENCY=50ms").unwrap_err().contains("whole milliseconds"));
    }

    #[test]
    fn those_into_bigquery_are_measured_when_they_are_asked_for() {
        let usual = Contender::usual(&["bento".to_owned()]);
        let names: Vec<String> = usual.iter().map(ToString::to_string).collect();
        let expected =
            ["kcat", "copy", "copy-keyed", "stdout", "append", "append-at-least-once", "upsert", "bento"];
        assert_eq!(names, expected);
        let latencies = INTO_BIGQUERY.map(|label| parse(label).unwrap().latency());
        assert_eq!(latencies, [0, 0, 0, 0, 0, 50, 50, 50, 50, 50, 50]);
        assert!(INTO_BIGQUERY.iter().all(|label| parse(label).unwrap().goal() == Goal::BigQuery));
    }

    #[test]
    fn settings_of_ours_become_overrides_and_a_binary_may_be_another() {
        let place = Place {
            folder: PathBuf::from("/f"),
            brokers: "b:1".to_owned(),
            database: "postgresql://d".to_owned(),
            txconnect: PathBuf::from("/t/txconnect"),
            python: PathBuf::from("/v/python"),
            rivals: PathBuf::new(),
            rows: 5,
            profile: false,
        };
        let words = |label: &str| {
            let command = parse(label).unwrap().command(&place, "g");
            let words: Vec<String> =
                command.get_args().map(|word| word.to_string_lossy().into_owned()).collect();
            words.join(" ")
        };
        assert!(words("append-at-least-once@batch.rows=9").ends_with(
            "/t/txconnect run /f/pipelines/append.yaml --until-end --timeout 5m --log-format json \
             --set sink.postgres.delivery=at_least_once --set batch.rows=9"
        ));
        assert!(words("bigquery-exactly-once@LATENCY=50@batch.rows=500").ends_with(
            "/t/txconnect run /f/pipelines/bigquery-append.yaml --until-end --timeout 5m --log-format json \
             --set sink.bigquery.delivery=exactly_once --set batch.rows=500"
        ));
        assert!(words("bigquery-old-way@LATENCY=50").ends_with("/v/python consume.py"));
        assert!(words("stdout@BINARY=/o/txconnect").ends_with(
            "/o/txconnect run /f/pipelines/stdout.yaml --until-end --timeout 5m --log-format json"
        ));
    }
}
