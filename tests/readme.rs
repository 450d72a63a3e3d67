//! The README, lived through in a folder of its own: its files are written, its commands are run, and what it
//! says they print is compared with what they print. The commands in docs/ as well, where there are any.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "clippy.toml allows it in tests, but not in what they call")]

mod markdown;

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Output};
use std::time::{SystemTime, UNIX_EPOCH};

use markdown::{Block, blocks, copy_folder, in_repository};
use tempfile::TempDir;

const TOPICS: [&str; 4] = ["cash_ins", "cash_outs_created", "cash_outs_processed", "cash_outs_refunded"];

const DEMO: &str = "run pipelines/transactions.yaml --embedded --until-end";

/// What a reader of the README has in front of them, without the sources.
struct Workplace {
    folder: TempDir,
}

impl Workplace {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        for part in ["pipelines", "schemas", "data"] {
            copy_folder(part, folder.path());
        }
        let workplace = Self { folder };
        // `./dev demo masked` leaves them there, and so does `./dev test`.
        for name in ["mask_account", "cents_to_decimal"] {
            let built = format!("transforms/examples/{name}/{name}.wasm");
            let to = workplace.path(&built);
            fs::create_dir_all(to.parent().unwrap()).unwrap();
            fs::copy(in_repository(&built), to)
                .unwrap_or_else(|error| panic!("{built}: {error}; `./dev transforms` builds it"));
        }
        workplace
    }

    fn path(&self, path: &str) -> std::path::PathBuf {
        self.folder.path().join(path)
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// Runs commands as a shell does that gives up at the first one that fails. The built program is in the path.
    fn run(&self, commands: &str, variables: &[(&str, String)]) -> Output {
        let program = Path::new(env!("CARGO_BIN_EXE_txconnect"));
        let mut path = program.parent().unwrap().as_os_str().to_owned();
        path.push(":");
        path.push(std::env::var_os("PATH").unwrap());
        let mut shell = Command::new("timeout");
        shell.args(["120", "bash", "-euo", "pipefail", "-c", commands]);
        shell.current_dir(self.folder.path()).env("PATH", path).stdin(std::process::Stdio::null());
        for variable in [
            "KAFKA_BROKERS",
            "PG_URL",
            "GCP_PROJECT",
            "BIGQUERY_DATASET",
            "BIGQUERY_EMULATOR_HOST",
            "TXCONNECT_LOG",
            "RUST_LOG",
        ] {
            shell.env_remove(variable);
        }
        shell.envs(variables.iter().map(|(name, value)| (name, value))).output().unwrap()
    }

    /// The same for commands that must succeed; answers what they print.
    fn said(&self, place: &str, commands: &str, variables: &[(&str, String)]) -> String {
        let output = self.run(commands, variables);
        let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
        assert!(output.status.success(), "{place}: {}\n{stdout}\n{stderr}", output.status);
        stdout
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// Lines without what differs from run to run: times, rates, and widths of columns.
fn lasting(text: &str) -> Vec<String> {
    let is_number = |word: &&str| word.chars().all(|c| c.is_ascii_digit() || c == ',');
    text.lines()
        .map(|line| line.split_once(" finished in ").map_or(line, |(before, _)| before))
        .map(|line| line.split_whitespace().collect::<Vec<_>>())
        .map(|words| match words.as_slice() {
            [all @ .., _] if all.len() == 6 && all[1..].iter().all(is_number) => all.join(" "),
            all => all.join(" "),
        })
        .filter(|line| line.chars().any(|c| c != '─'))
        .collect()
}

fn comment(block: &Block) -> &str {
    block.comment.as_deref().unwrap_or_default()
}

#[test]
fn everything_happens_as_the_readme_says() {
    let workplace = Workplace::new();
    let mut said = String::new();
    let (mut runs, mut outputs) = (0, 0);
    for block in blocks("README.md") {
        let place = &block.place;
        match comment(&block) {
            "run" => {
                let now = workplace.said(place, &block.text, &[]);
                said.push_str(&now);
                runs += 1;
            }
            "output: demo" => {
                let now = workplace.said(place, &format!("txconnect {DEMO}"), &[]);
                assert_eq!(lasting(&now), lasting(&block.text), "{place}");
                outputs += 1;
            }
            "output: the last command" => {
                let (now, wanted) = (lasting(&said), lasting(&block.text));
                assert!(now.ends_with(&wanted), "{place}: {now:#?}\ndoes not end with\n{wanted:#?}");
                outputs += 1;
            }
            other => {
                if let Some(path) = other.strip_prefix("file: ") {
                    workplace.write(path, &block.text);
                } else {
                    assert!(
                        block.language != "sh"
                            || other.starts_with("run with ")
                            || other.starts_with("not run: "),
                        "{place}: commands that nobody runs, and nobody says why"
                    );
                }
            }
        }
    }
    assert_eq!((runs, outputs), (2, 2), "a block was not found");
    let records = said.lines().filter(|line| line.starts_with("{\"transaction_id\":")).count();
    assert_eq!(records, 3, "the lines of the stdout pipeline:\n{said}");
    for part in [
        "7 pipelines without a mistake: transactions-exactly-once, transactions-insert-all, transactions-masked, transactions-postgres-append, transactions-postgres, transactions-stdout, \
         transactions\n",
        "8 pipelines without a mistake: chargebacks, transactions-exactly-once, transactions-insert-all, transactions-masked, transactions-postgres-append, transactions-postgres, \
         transactions-stdout, transactions\n",
        concat!("txconnect ", env!("CARGO_PKG_VERSION"), "\n"),
        "\nlibrdkafka ",
    ] {
        assert!(said.contains(part), "{part:?} is missing in\n{said}");
    }
}

/// The port that the document writes is replaced by a free one.
#[test]
fn the_faults_of_the_document_do_what_it_says() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string();
    let workplace = Workplace::new();
    let mut said = String::new();
    for block in blocks("docs/bigquery.md") {
        match comment(&block) {
            "run" => said = workplace.said(&block.place, &block.text.replace("9051", &free), &[]),
            "file: faults.json" => workplace.write("faults.json", &block.text),
            other => assert!(block.language != "sh" || other.starts_with("not run: "), "{}", block.place),
        }
    }
    let said = lasting(&said);
    // What follows is the number of requests, and how many travelled together is chance.
    for line in [
        "cash_ins 100 100 0 0 ",
        "cash_outs_created 2,400 2,400 0 0 ",
        "cash_outs_refunded 230 229 1 0 ",
        "transactions.cash_ins 100",
        "transactions.cash_outs_created 2,400",
        "transactions.cash_outs_processed 2,390",
        "transactions.cash_outs_refunded 229",
    ] {
        assert!(said.iter().any(|said| said.starts_with(line)), "{line:?} is missing in {said:#?}");
    }
}

#[test]
fn the_demo_ends_with_the_command_that_the_readme_names() {
    let dev = fs::read_to_string(in_repository("dev")).unwrap();
    let readme = fs::read_to_string(in_repository("README.md")).unwrap();
    assert!(dev.contains(DEMO) && readme.contains(&format!("`txconnect {DEMO}`")));
}

/// The sample data in topics that no other test uses, and `pipeline` to read them, under a name of its own.
fn workplace_with_own_topics(pipeline: &str) -> (Workplace, u128) {
    let unique = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos();
    let workplace = Workplace::new();
    let file = format!("pipelines/{pipeline}.yaml");
    let mut text = fs::read_to_string(workplace.path(&file)).unwrap();
    for topic in TOPICS {
        for folder in ["data", "schemas"] {
            let from = workplace.path(&format!("{folder}/{topic}.json"));
            fs::rename(&from, workplace.path(&format!("{folder}/{topic}-{unique}.json"))).unwrap();
        }
        text = text.replace(topic, &format!("{topic}-{unique}"));
    }
    text = text.replace(&format!("name: {pipeline}"), &format!("name: readme-{unique}"));
    workplace.write(&file, &text);
    (workplace, unique)
}

fn commands(wanted: &str) -> Block {
    blocks("README.md").into_iter().find(|block| comment(block) == wanted).unwrap()
}

fn server(variable: &str) -> String {
    let address = std::env::var(variable).ok().filter(|address| !address.is_empty());
    address.unwrap_or_else(|| panic!("{variable} names no server: ./dev test starts one"))
}

#[test]
fn the_commands_for_a_real_broker_move_every_record() {
    let variables = [("KAFKA_BROKERS", server("KAFKA_BROKERS"))];
    let (workplace, unique) = workplace_with_own_topics("transactions-stdout");
    let mut expected = Vec::new();
    for topic in TOPICS {
        let data = fs::read(workplace.path(&format!("data/{topic}-{unique}.json"))).unwrap();
        expected.extend(serde_json::from_slice::<Vec<serde_json::Value>>(&data).unwrap());
    }
    let commands = commands("run with kafka");
    let said = workplace.said(&commands.place, &commands.text, &variables);

    let (records, talk): (Vec<&str>, Vec<&str>) = said.lines().partition(|line| line.starts_with('{'));
    let mut moved: Vec<String> = records
        .iter()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap().to_string())
        .collect();
    let mut expected: Vec<String> = expected.iter().map(ToString::to_string).collect();
    moved.sort_unstable();
    expected.sort_unstable();
    assert_eq!(moved.len(), expected.len(), "{talk:#?}");
    assert!(moved == expected, "other records came out than went in");
    assert_eq!(talk.len(), 4, "one line for each file: {talk:#?}");
}

/// The second round publishes everything again and reads it with a new group under a new name.
#[test]
fn the_commands_for_postgres_fill_tables_that_a_second_round_leaves_as_they_are() {
    let variables = [("KAFKA_BROKERS", server("KAFKA_BROKERS")), ("PG_URL", server("PG_URL"))];
    let (workplace, unique) = workplace_with_own_topics("transactions-postgres");
    let commands = commands("run with kafka and postgres");
    let again =
        commands.text.replace("--until-end", &format!("--until-end --set name=readme-again-{unique}"));
    for (text, read) in [(&commands.text, "5,120"), (&again, "10,240")] {
        let said = workplace.said(&commands.place, text, &variables);
        let said = lasting(&said);
        let books = format!("books: {read} read = {read} written + 0 dead-lettered + 0 filtered");
        assert!(said.contains(&books), "{books:?} is missing in {said:#?}");
        for (topic, rows) in TOPICS.iter().zip(["100", "2,400", "2,390", "230"]) {
            let line = format!("public.{topic}-{unique} {rows}");
            assert!(said.contains(&line), "{line:?} is missing in {said:#?}");
        }
    }
}

/// A record that the schema refuses becomes a letter; the documents' commands count it and send it back.
#[test]
fn the_commands_for_dead_letters_count_them_and_send_them_back() {
    let (workplace, unique) = workplace_with_own_topics("transactions");
    let variables =
        [("KAFKA_BROKERS", server("KAFKA_BROKERS")), ("GCP_PROJECT", "nobody-is-asked".to_owned())];
    let topic = format!("cash_ins-{unique}");
    let preparation = format!(
        "echo '{{}}' | txconnect publish {topic}\n\
         txconnect run pipelines/transactions-stdout.yaml --until-end --set name=readme-{unique} \
         --set on_error=dead_letter --set 'source.kafka.topics=[{topic}]' --set 'dead_letters.topic=\"{{topic}}.dead-letters\"'\n"
    );
    workplace.said("the test itself", &preparation, &variables);
    let (mut said, mut found) = (String::new(), 0);
    for block in blocks("README.md").iter().chain(&blocks("docs/dead-letters.md")) {
        if comment(block) == "run with kafka: dead letters" {
            let commands = block.text.replace("cash_ins", &topic);
            said.push_str(&workplace.said(&block.place, &commands, &variables));
            found += 1;
        }
    }
    assert_eq!(found, 3, "a block was not found");
    for part in [
        ": 1 dead letter: 1 waiting, 0 replayed\n",
        "  validate.required  ",
        "\"waiting\":1,",
        ": 1 dead letter to replay, 2 bytes of keys and values\n",
        ": 1 dead letter sent back\n",
        ": no dead letter to replay\n",
    ] {
        assert!(said.contains(part), "{part:?} is missing in\n{said}");
    }
}
