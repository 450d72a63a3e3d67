//! One round: members that read while records come in, and everything that befalls them.

mod blows;
mod members;
mod sink_faults;

use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use members::Member;
use tempfile::TempDir;

use crate::dice::Dice;
use crate::kafka::{Cluster, Inspector, Positions};
use crate::plan::{Mood, Plan, Target};
use crate::records::SCHEMA;
use crate::servers::{Server, ServerFault, Victim};
use crate::sink::{BigQuery, Mark, Pipes, Postgres, Sink};
use crate::traffic::Traffic;
use crate::verdict::{Evidence, Verdict, Window};

/// How often the loop looks around.
const LOOK: Duration = Duration::from_millis(20);
/// How often the committed positions are asked for.
const SAMPLE: Duration = Duration::from_millis(250);

/// What is to be done at some moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Due {
    Start,
    Thaw(usize),
    ThawSink,
    ThawServer(Server),
    /// New connections to the database are let in again.
    Admit,
    /// The way to the database is short again.
    Hasten,
    Close(usize),
}

/// A step of a round that is told and not thrown.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Step {
    Wait(Duration),
    Join,
    /// The member that came last.
    Freeze,
    Thaw,
    SinkOff,
    SinkOn,
}

/// A round being run.
pub(crate) struct Storm<'a> {
    plan: Plan,
    cluster: &'a Cluster,
    dice: Dice,
    folder: TempDir,
    file: PathBuf,
    /// The pipeline's.
    name: String,
    topics: Vec<String>,
    inspector: Inspector,
    sink: Sink,
    members: Vec<Member>,
    started: usize,
    dues: Vec<(Instant, Due)>,
    began: Instant,
    story: Vec<String>,
    aloud: bool,
    kills: u64,
    committed: Positions,
    sampled: Instant,
    windows: Vec<Window>,
    broker: Victim,
    database: Victim,
    sink_frozen: bool,
    evidence: Evidence,
}

impl<'a> Storm<'a> {
    pub(crate) fn new(cluster: &'a Cluster, plan: Plan, aloud: bool) -> Self {
        // Rounds of one moment and one seed may run beside each other.
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let folder = tempfile::Builder::new().prefix("chaos-").tempdir().unwrap();
        let moment = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis();
        let name = format!("chaos-{moment:x}-{}-{}", plan.seed, COUNT.fetch_add(1, Ordering::Relaxed));
        let topics: Vec<String> = (0..plan.topics).map(|number| format!("{name}-{number}")).collect();
        std::fs::create_dir(folder.path().join("schemas")).unwrap();
        std::fs::write(folder.path().join("schemas/event.json"), SCHEMA).unwrap();
        let file = folder.path().join("pipeline.yaml");
        std::fs::write(&file, plan.pipeline(&name, &cluster.brokers, &topics)).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(cluster.make(&topics, plan.partitions));
        let inspector = cluster.inspector(&format!("connect-{name}"), &topics, plan.partitions);
        let sink = match plan.target {
            Target::BigQuery(_) => Sink::BigQuery(BigQuery::start(folder.path(), &topics)),
            Target::Stdout => Sink::Pipes(Pipes::default()),
            Target::Postgres(setting) => Sink::Postgres(Postgres::start(setting, &name, &topics)),
        };
        let now = Instant::now();
        let mut storm = Self {
            dice: Dice::seeded(plan.seed ^ 0x5eed),
            cluster,
            folder,
            file,
            name,
            topics,
            inspector,
            sink,
            members: Vec::new(),
            started: 0,
            dues: Vec::new(),
            began: now,
            story: Vec::new(),
            aloud,
            kills: 0,
            committed: Positions::new(),
            sampled: now,
            windows: Vec::new(),
            broker: Victim::new(Server::Broker),
            database: Victim::new(Server::Database),
            sink_frozen: false,
            evidence: Evidence::default(),
            plan,
        };
        let setting = storm.plan.to_string();
        storm.tell(&setting);
        storm
    }

    /// Runs the round and compares.
    pub(crate) fn run(mut self) -> Verdict {
        let seed = self.plan.seed;
        let traffic = Traffic::start(self.cluster, &self.topics, self.plan.partitions, self.plan.rate, seed);
        for _ in 0..self.plan.members {
            self.start_member();
        }
        let mut next_blow = Instant::now() + Duration::from_secs(3);
        while self.began.elapsed() < self.plan.duration && !self.enough_kills() {
            self.look();
            if Instant::now() >= next_blow {
                self.blow();
                next_blow = Instant::now() + self.dice.millis(600..=4500);
            }
            std::thread::sleep(LOOK);
        }
        self.tell(&format!("the storm is over after {} records", traffic.sent()));
        self.calm_down();
        let produced = traffic.finish();
        self.tell(&format!("{produced} records are stored"));
        self.end_members();
        self.read_the_rest();
        self.judge(produced)
    }

    /// Runs the steps and compares.
    pub(crate) fn play(mut self, steps: &[Step]) -> Verdict {
        let seed = self.plan.seed;
        let traffic = Traffic::start(self.cluster, &self.topics, self.plan.partitions, self.plan.rate, seed);
        for _ in 0..self.plan.members {
            self.start_member();
        }
        for step in steps {
            self.tell(&format!("{step:?}"));
            match step {
                Step::Wait(pause) => {
                    let end = Instant::now() + *pause;
                    while Instant::now() < end {
                        self.look();
                        std::thread::sleep(LOOK);
                    }
                }
                Step::Join => self.start_member(),
                Step::Freeze => {
                    let window = self.freeze(self.members.len() - 1);
                    self.later(Duration::from_secs(6), Due::Close(window));
                }
                Step::Thaw => self.thaw(self.started - 1),
                Step::SinkOff => {
                    let window = self.stop_sink();
                    self.later(Duration::from_secs(6), Due::Close(window));
                }
                Step::SinkOn => self.thaw_sink(),
            }
        }
        self.calm_down();
        let produced = traffic.finish();
        self.end_members();
        self.read_the_rest();
        self.judge(produced)
    }

    fn enough_kills(&self) -> bool {
        self.plan.mood == Mood::Wild && self.kills >= self.plan.kills
    }

    fn tell(&mut self, what: &str) {
        let line = format!("{:7.2} s  {what}", self.began.elapsed().as_secs_f64());
        if self.aloud {
            eprintln!("{line}");
        }
        self.story.push(line);
    }

    fn later(&mut self, pause: Duration, due: Due) {
        self.dues.push((Instant::now() + pause, due));
    }

    fn look(&mut self) {
        let now = Instant::now();
        while let Some(index) = self.dues.iter().position(|(when, _)| *when <= now) {
            let (_, due) = self.dues.swap_remove(index);
            match due {
                Due::Start => self.start_member(),
                Due::Thaw(number) => self.thaw(number),
                Due::ThawSink => self.thaw_sink(),
                Due::ThawServer(server) => self.victim(server).begin(ServerFault::Thaw),
                Due::Admit => self.admit(),
                Due::Hasten => self.hasten(),
                // A frozen server does not say how much it has.
                Due::Close(_) if self.sink_frozen => self.later(Duration::from_secs(1), due),
                Due::Close(window) => self.windows[window].end = Some(self.sink.mark()),
            }
        }
        self.look_at(Server::Broker);
        self.look_at(Server::Database);
        self.reap();
        if self.sampled.elapsed() >= SAMPLE && !self.broker.is_busy() {
            self.sample();
        }
    }

    fn sample(&mut self) {
        self.sampled = Instant::now();
        if let Some(committed) = self.inspector.committed(Duration::from_secs(1)) {
            self.committed = committed;
        }
    }

    /// From here to its end, rows beyond the committed positions may be written a second time.
    fn open_window(&mut self, cause: &'static str) -> usize {
        let committed = self.committed.clone();
        self.windows.push(Window { cause, committed, end: None });
        self.windows.len() - 1
    }

    /// Lets everything that was stopped go on, and waits for the servers.
    fn calm_down(&mut self) {
        self.dues.retain(|(_, due)| *due != Due::Start);
        let end = Instant::now() + Duration::from_mins(3);
        while !self.dues.is_empty() || self.broker.is_called() || self.database.is_called() {
            self.look();
            assert!(Instant::now() < end, "{:?}", self.dues);
            std::thread::sleep(LOOK);
        }
        if let Sink::Postgres(postgres) = &self.sink {
            postgres.proxy.keep_commits();
        }
    }

    fn judge(mut self, produced: u64) -> Verdict {
        let everything: Mark = vec![usize::MAX; self.started];
        for window in &mut self.windows {
            window.end.get_or_insert_with(|| everything.clone());
        }
        let committed = self.inspector.committed(Duration::from_secs(30)).unwrap_or_default();
        let evidence = std::mem::take(&mut self.evidence);
        let story = std::mem::take(&mut self.story);
        let verdict = Verdict::of(
            self.cluster,
            &self.plan,
            &self.topics,
            produced,
            &mut self.sink,
            &self.windows,
            &committed,
            evidence,
            (story, self.kills),
        );
        if verdict.is_guilty() {
            // The logs of the members stay for whoever looks into it.
            let kept = self.folder.keep();
            eprintln!("the logs of the members are in {}", kept.display());
            if let Sink::Postgres(postgres) = self.sink {
                eprintln!("the rows are in the schema {}", postgres.keep());
            }
        }
        verdict
    }
}
