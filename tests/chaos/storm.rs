//! One round: members that read while records come in, and everything that befalls them.

use std::fs::File;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::{Value as Json, json};
use tempfile::TempDir;

use crate::dice::Dice;
use crate::kafka::{BrokerFault, Cluster, Inspector, Positions};
use crate::plan::{Mood, Plan};
use crate::process::{Process, Signal};
use crate::records::SCHEMA;
use crate::sink::{BigQuery, Mark, Pipes, Sink};
use crate::traffic::Traffic;
use crate::verdict::{Evidence, Verdict, Window, books_of, complaints_of};

/// How often the loop looks around.
const LOOK: Duration = Duration::from_millis(20);
/// How often the committed positions are asked for.
const SAMPLE: Duration = Duration::from_millis(250);
/// How long a member that was asked to end may take: its drain, its last commit, leaving the group.
const LONGEST_END: Duration = Duration::from_secs(45);
/// How long the last member may take to read what is left.
const LONGEST_REST: Duration = Duration::from_mins(3);
/// A dead member is missed after this long: the session of the pipelines and of the tests' broker, and a little.
const SESSION: Duration = Duration::from_secs(7);

/// A member of the group.
struct Member {
    number: usize,
    process: Process,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Running,
    Frozen,
    /// Asked to end, at the latest then.
    Ending(Instant),
}

/// What is to be done at some moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Due {
    Start,
    Thaw(usize),
    ThawSink,
    Broker(BrokerFault),
    Close(usize),
}

/// What can befall a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Blow {
    Kill,
    KillTwo,
    Freeze,
    Terminate,
    Join,
    Leave,
    SinkFault,
    SinkFreeze,
    Broker,
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
    broker_busy: bool,
    broker_call: Option<std::process::Child>,
    sink_frozen: bool,
    evidence: Evidence,
}

impl<'a> Storm<'a> {
    pub(crate) fn new(cluster: &'a Cluster, plan: Plan, aloud: bool) -> Self {
        let folder = tempfile::Builder::new().prefix("chaos-").tempdir().unwrap();
        let moment = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis();
        let name = format!("chaos-{moment:x}-{}", plan.seed);
        let topics: Vec<String> = (0..plan.topics).map(|number| format!("{name}-{number}")).collect();
        std::fs::create_dir(folder.path().join("schemas")).unwrap();
        std::fs::write(folder.path().join("schemas/event.json"), SCHEMA).unwrap();
        let file = folder.path().join("pipeline.yaml");
        std::fs::write(&file, plan.pipeline(&name, &cluster.brokers, &topics)).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(cluster.make(&topics, plan.partitions));
        let inspector = cluster.inspector(&format!("connect-{name}"), &topics, plan.partitions);
        let sink = if plan.into_bigquery {
            Sink::BigQuery(BigQuery::start(folder.path(), &topics))
        } else {
            Sink::Pipes(Pipes::default())
        };
        let now = Instant::now();
        let mut storm = Self {
            dice: Dice::seeded(plan.seed ^ 0x5eed),
            cluster,
            folder,
            file,
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
            broker_busy: false,
            broker_call: None,
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

    // ---- members ----

    fn start_member(&mut self) {
        let number = self.start_process(&[]);
        self.tell(&format!("member {number} starts"));
    }

    fn start_process(&mut self, more: &[&str]) -> usize {
        let number = self.started;
        self.started += 1;
        let log = self.folder.path().join(format!("member-{number}.log"));
        let mut arguments = vec!["run", self.file.to_str().unwrap()];
        arguments.extend_from_slice(more);
        let process = match &mut self.sink {
            Sink::BigQuery(server) => {
                let out = File::create(log.with_extension("out")).unwrap();
                let environment = [("BIGQUERY_EMULATOR_HOST", server.address())];
                Process::start(&arguments, &environment, log, out.into())
            }
            Sink::Pipes(pipes) => {
                let mut process = Process::start(&arguments, &[], log, Stdio::piped());
                pipes.add(process.take_stdout(), &self.topics);
                process
            }
        };
        self.members.push(Member { number, process, state: State::Running });
        number
    }

    /// A running member by the dice.
    fn any_running(&mut self) -> Option<usize> {
        let running: Vec<usize> =
            (0..self.members.len()).filter(|index| self.members[*index].state == State::Running).collect();
        (!running.is_empty()).then(|| running[self.dice.index(running.len())])
    }

    fn running(&self) -> usize {
        self.members.iter().filter(|member| member.state == State::Running).count()
    }

    /// Members that are there or will be.
    fn expected(&self) -> usize {
        let starts = self.dues.iter().filter(|(_, due)| *due == Due::Start).count();
        let frozen = self.members.iter().filter(|member| member.state == State::Frozen).count();
        self.running() + frozen + starts
    }

    fn kill_one(&mut self) {
        let Some(index) = self.any_running() else { return };
        self.kill(index);
        let pause = self.dice.millis(0..=3000);
        self.later(pause, Due::Start);
    }

    fn kill(&mut self, index: usize) {
        let mut member = self.members.remove(index);
        let window = self.open_window("kill");
        member.process.kill();
        self.kills += 1;
        self.keep_log(&member, false);
        self.tell(&format!("member {} is killed ({})", member.number, self.kills));
        self.later(Duration::from_millis(1500), Due::Close(window));
    }

    fn freeze_one(&mut self) {
        let Some(index) = self.any_running() else { return };
        let number = self.members[index].number;
        let window = self.freeze(index);
        let pause = self.dice.millis(7_000..=11_000);
        self.tell(&format!("member {number} is frozen for {} ms", pause.as_millis()));
        self.later(pause, Due::Thaw(number));
        self.later(pause + Duration::from_secs(6), Due::Close(window));
    }

    fn freeze(&mut self, index: usize) -> usize {
        let member = &mut self.members[index];
        member.process.signal(Signal::Stop);
        member.state = State::Frozen;
        self.open_window("freeze")
    }

    fn thaw(&mut self, number: usize) {
        if let Some(member) =
            self.members.iter_mut().find(|member| member.number == number && member.state == State::Frozen)
        {
            member.process.signal(Signal::Continue);
            member.state = State::Running;
            self.tell(&format!("member {number} is thawed"));
        }
    }

    fn terminate_one(&mut self, again: bool) {
        let Some(index) = self.any_running() else { return };
        let number = self.members[index].number;
        self.ask_to_end(index);
        if again {
            let pause = self.dice.millis(0..=3000);
            self.tell(&format!(
                "member {number} is asked to end, another starts in {} ms",
                pause.as_millis()
            ));
            self.later(pause, Due::Start);
        } else {
            self.tell(&format!("member {number} is asked to end"));
        }
    }

    fn ask_to_end(&mut self, index: usize) {
        // A drain that is cut short repeats rows as well.
        let window = self.open_window("end");
        self.later(Duration::from_secs(7), Due::Close(window));
        let member = &mut self.members[index];
        member.process.signal(Signal::Terminate);
        member.state = State::Ending(Instant::now() + LONGEST_END);
    }

    /// Takes note of members that have ended, and of those that do not.
    fn reap(&mut self) {
        let mut index = 0;
        while index < self.members.len() {
            let member = &mut self.members[index];
            if let Some(status) = member.process.ended() {
                let member = self.members.remove(index);
                let asked = matches!(member.state, State::Ending(_));
                self.tell(&format!("member {} has ended ({status})", member.number));
                self.keep_log(&member, asked && status.success());
                if !asked || !status.success() {
                    let how = if asked { "after being asked to" } else { "by itself" };
                    self.evidence.fault(format!("member {} ended {how}: {status}", member.number));
                }
                continue;
            }
            if let State::Ending(latest) = member.state
                && Instant::now() >= latest
            {
                let mut member = self.members.remove(index);
                member.process.kill();
                self.keep_log(&member, false);
                self.tell(&format!("member {} did not end in time", member.number));
                self.evidence.fault(format!(
                    "member {} had not ended {} s after it was asked to",
                    member.number,
                    LONGEST_END.as_secs()
                ));
                continue;
            }
            index += 1;
        }
    }

    fn keep_log(&mut self, member: &Member, clean: bool) {
        let log = std::fs::read_to_string(member.process.log()).unwrap_or_default();
        let out = std::fs::read_to_string(member.process.log().with_extension("out")).unwrap_or_default();
        let (defects, complaints) = complaints_of(&log);
        for defect in defects {
            self.evidence.fault(format!("member {}: {defect}", member.number));
        }
        for complaint in complaints {
            self.evidence.complaint(complaint);
        }
        if clean {
            match books_of(&log).or_else(|| books_of(&out)) {
                Some(books) if books.balance() => self.evidence.clean_runs += 1,
                Some(books) => {
                    self.evidence
                        .fault(format!("member {}: the books do not balance: {books:?}", member.number));
                }
                None => self.evidence.fault(format!("member {}: it printed no books", member.number)),
            }
        }
    }

    // ---- what befalls ----

    fn later(&mut self, pause: Duration, due: Due) {
        self.dues.push((Instant::now() + pause, due));
    }

    fn blow(&mut self) {
        let calm = [Blow::Terminate, Blow::Terminate, Blow::Join, Blow::Leave];
        let wild = [
            Blow::Kill,
            Blow::Kill,
            Blow::Kill,
            Blow::Kill,
            Blow::KillTwo,
            Blow::Freeze,
            Blow::Freeze,
            Blow::Terminate,
            Blow::Terminate,
            Blow::Join,
            Blow::Leave,
            Blow::SinkFault,
            Blow::SinkFault,
            Blow::SinkFault,
            Blow::SinkFreeze,
            Blow::SinkFreeze,
            Blow::Broker,
        ];
        let blow = match self.plan.mood {
            Mood::Calm => self.dice.one_of(&calm),
            Mood::Wild => self.dice.one_of(&wild),
        };
        match blow {
            Blow::Kill => self.kill_one(),
            Blow::KillTwo => {
                self.kill_one();
                self.kill_one();
            }
            Blow::Freeze => self.freeze_one(),
            Blow::Terminate => self.terminate_one(true),
            Blow::Join if self.expected() < 4 => self.start_member(),
            Blow::Leave if self.running() > 1 && self.expected() > 1 => self.terminate_one(false),
            Blow::SinkFault => self.sink_fault(),
            Blow::SinkFreeze => self.freeze_sink(),
            Blow::Broker if self.plan.broker && !self.broker_busy => self.broker_fault(),
            Blow::Join | Blow::Leave | Blow::Broker => {}
        }
    }

    fn sink_fault(&mut self) {
        let Sink::BigQuery(server) = &self.sink else { return self.freeze_sink() };
        if self.sink_frozen {
            return;
        }
        let times = self.dice.within(1..=25);
        let unavailable = json!({ "error": { "status": 503, "reason": "backendError", "message": "later" } });
        let what = match self.dice.index(6) {
            0 => json!("reply_lost"),
            1 => json!("cut"),
            2 => unavailable,
            3 => json!({ "html": { "status": 502 } }),
            4 => json!({ "slow": { "ms": self.dice.within(200..=2500) } }),
            _ => json!({ "row_errors": { "rows": [0, 3], "reason": "backendError" } }),
        };
        let fault = json!({ "method": "tabledata.insertAll", "what": what, "times": times });
        server.script(&fault);
        if what == json!("reply_lost") {
            self.evidence.lost_replies += times;
        }
        self.tell(&format!("BigQuery fails {times} times: {}", named(&what)));
    }

    /// Nothing is taken for a while, longer than a drain may last or shorter.
    fn freeze_sink(&mut self) {
        if self.sink_frozen {
            return;
        }
        let window = self.stop_sink();
        let pause = self.dice.millis(1_000..=12_000);
        self.tell(&format!("the sink takes nothing for {} ms", pause.as_millis()));
        self.later(pause, Due::ThawSink);
        self.later(pause + Duration::from_secs(6), Due::Close(window));
    }

    fn stop_sink(&mut self) -> usize {
        self.sink_frozen = true;
        match &self.sink {
            Sink::BigQuery(server) => server.signal(Signal::Stop),
            Sink::Pipes(pipes) => pipes.pause(true),
        }
        self.open_window("sink")
    }

    fn thaw_sink(&mut self) {
        match &self.sink {
            Sink::BigQuery(server) => server.signal(Signal::Continue),
            Sink::Pipes(pipes) => pipes.pause(false),
        }
        self.sink_frozen = false;
        self.tell("the sink takes again");
    }

    fn broker_fault(&mut self) {
        let window = self.open_window("broker");
        let pause = self.dice.millis(1_500..=9_000);
        let fault = self.dice.one_of(&[BrokerFault::Freeze, BrokerFault::Restart, BrokerFault::Crash]);
        self.tell(&format!("the broker: {fault:?}"));
        self.broker_busy = true;
        self.broker_call = Some(fault.begin());
        if fault == BrokerFault::Freeze {
            self.later(pause, Due::Broker(BrokerFault::Thaw));
        }
        self.later(pause + Duration::from_secs(25), Due::Close(window));
    }

    fn look_at_broker(&mut self) {
        let Some(call) = &mut self.broker_call else { return };
        let Some(status) = call.try_wait().unwrap() else { return };
        assert!(status.success(), "./dev services broker: {status}");
        self.broker_call = None;
        let frozen = self.dues.iter().any(|(_, due)| matches!(due, Due::Broker(_)));
        if !frozen {
            self.broker_busy = false;
            self.tell("the broker answers");
        }
    }

    fn look(&mut self) {
        let now = Instant::now();
        while let Some(index) = self.dues.iter().position(|(when, _)| *when <= now) {
            let (_, due) = self.dues.swap_remove(index);
            match due {
                Due::Start => self.start_member(),
                Due::Thaw(number) => self.thaw(number),
                Due::ThawSink => self.thaw_sink(),
                Due::Broker(fault) => {
                    // The call before it has ended long ago: freezing takes no time.
                    if let Some(mut call) = self.broker_call.take() {
                        call.wait().unwrap();
                    }
                    self.broker_call = Some(fault.begin());
                }
                // A frozen server does not say how much it has.
                Due::Close(_) if self.sink_frozen => self.later(Duration::from_secs(1), due),
                Due::Close(window) => self.windows[window].end = Some(self.sink.mark()),
            }
        }
        self.look_at_broker();
        self.reap();
        if self.sampled.elapsed() >= SAMPLE && !self.broker_busy {
            self.sample();
        }
    }

    // ---- positions and windows ----

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

    // ---- the end ----

    /// Lets everything that was stopped go on, and waits for the broker.
    fn calm_down(&mut self) {
        self.dues.retain(|(_, due)| *due != Due::Start);
        let end = Instant::now() + Duration::from_mins(3);
        while !self.dues.is_empty() || self.broker_call.is_some() {
            self.look();
            assert!(Instant::now() < end, "{:?}", self.dues);
            std::thread::sleep(LOOK);
        }
    }

    fn end_members(&mut self) {
        for index in 0..self.members.len() {
            if self.members[index].state == State::Running {
                self.ask_to_end(index);
            }
        }
        while !self.members.is_empty() {
            self.look();
            std::thread::sleep(LOOK);
        }
    }

    /// One member reads everything that the others have left.
    fn read_the_rest(&mut self) {
        // Members that were killed hold their partitions until their sessions are over.
        std::thread::sleep(SESSION);
        let number = self.start_process(&["--until-end", "--timeout", "90s"]);
        self.tell(&format!("member {number} reads the rest"));
        let mut member = self.members.pop().unwrap();
        if let Some(status) = member.process.wait(LONGEST_REST) {
            self.tell(&format!("member {number} has ended ({status})"));
            if !status.success() {
                self.evidence.fault(format!("member {number} reading the rest ended with {status}"));
            }
            self.keep_log(&member, status.success());
        } else {
            member.process.kill();
            self.keep_log(&member, false);
            self.evidence.fault(format!("member {number} does not come to the end"));
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
        }
        verdict
    }
}

fn named(what: &Json) -> String {
    match what {
        Json::String(name) => name.clone(),
        other => other.to_string(),
    }
}
