//! The members of the group: how they come, what befalls them, and how they end.

use std::fs::File;
use std::os::unix::process::ExitStatusExt;
use std::process::Stdio;
use std::time::{Duration, Instant};

use super::{Due, LOOK, Storm};
use crate::process::{Process, Signal};
use crate::sink::Sink;
use crate::verdict::{books_of, complaints_of, last_words};

/// How long a member that was asked to end may take: its drain, its last commit, leaving the group.
const LONGEST_END: Duration = Duration::from_secs(45);
/// The number of the signal that asks to end.
const SIGTERM: i32 = 15;
/// How long the last member may take to read what is left.
const LONGEST_REST: Duration = Duration::from_mins(3);
/// A dead member is missed after this long: the session of the pipelines and of the tests' broker, and a little.
const SESSION: Duration = Duration::from_secs(7);

/// A member of the group.
pub(super) struct Member {
    pub(super) number: usize,
    pub(super) process: Process,
    pub(super) state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Running,
    Frozen,
    /// Asked to end, at the latest then.
    Ending(Instant),
}

/// The last that it said.
fn words(member: &Member) -> String {
    last_words(&std::fs::read_to_string(member.process.log()).unwrap_or_default())
}

impl Storm<'_> {
    pub(super) fn start_member(&mut self) {
        let number = self.start_process(&[]);
        self.tell(&format!("member {number} starts"));
    }

    pub(super) fn start_process(&mut self, more: &[&str]) -> usize {
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
            Sink::Postgres(postgres) => {
                let out = File::create(log.with_extension("out")).unwrap();
                Process::start(&arguments, &[("PG_URL", postgres.url())], log, out.into())
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
    pub(super) fn any_running(&mut self) -> Option<usize> {
        let running: Vec<usize> =
            (0..self.members.len()).filter(|index| self.members[*index].state == State::Running).collect();
        (!running.is_empty()).then(|| running[self.dice.index(running.len())])
    }

    pub(super) fn running(&self) -> usize {
        self.members.iter().filter(|member| member.state == State::Running).count()
    }

    /// Members that are there or will be.
    pub(super) fn expected(&self) -> usize {
        let starts = self.dues.iter().filter(|(_, due)| *due == Due::Start).count();
        let frozen = self.members.iter().filter(|member| member.state == State::Frozen).count();
        self.running() + frozen + starts
    }

    pub(super) fn kill_one(&mut self) {
        let Some(index) = self.any_running() else { return };
        self.kill(index);
        let pause = self.dice.millis(0..=3000);
        self.later(pause, Due::Start);
    }

    pub(super) fn kill(&mut self, index: usize) {
        let mut member = self.members.remove(index);
        let window = self.open_window("kill");
        member.process.kill();
        self.kills += 1;
        self.keep_log(&member, false);
        self.tell(&format!("member {} is killed ({})", member.number, self.kills));
        self.later(Duration::from_millis(1500), Due::Close(window));
    }

    pub(super) fn freeze_one(&mut self) {
        let Some(index) = self.any_running() else { return };
        let number = self.members[index].number;
        let window = self.freeze(index);
        let pause = self.dice.millis(7_000..=11_000);
        self.tell(&format!("member {number} is frozen for {} ms", pause.as_millis()));
        self.later(pause, Due::Thaw(number));
        self.later(pause + Duration::from_secs(6), Due::Close(window));
    }

    pub(super) fn freeze(&mut self, index: usize) -> usize {
        let member = &mut self.members[index];
        member.process.signal(Signal::Stop);
        member.state = State::Frozen;
        self.open_window("freeze")
    }

    pub(super) fn thaw(&mut self, number: usize) {
        if let Some(member) =
            self.members.iter_mut().find(|member| member.number == number && member.state == State::Frozen)
        {
            member.process.signal(Signal::Continue);
            member.state = State::Running;
            self.tell(&format!("member {number} is thawed"));
        }
    }

    pub(super) fn terminate_one(&mut self, again: bool) {
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

    pub(super) fn ask_to_end(&mut self, index: usize) {
        // A drain that is cut short repeats rows as well.
        let window = self.open_window("end");
        self.later(Duration::from_secs(7), Due::Close(window));
        let member = &mut self.members[index];
        member.process.signal(Signal::Terminate);
        member.state = State::Ending(Instant::now() + LONGEST_END);
    }

    /// Takes note of members that have ended, and of those that do not.
    pub(super) fn reap(&mut self) {
        let mut index = 0;
        while index < self.members.len() {
            let member = &mut self.members[index];
            if let Some(status) = member.process.ended() {
                let member = self.members.remove(index);
                let asked = matches!(member.state, State::Ending(_));
                let words = words(&member);
                // On a busy machine it may be asked before it listens.
                let unborn = asked && words.is_empty() && status.signal() == Some(SIGTERM);
                self.tell(&format!("member {} has ended ({status})", member.number));
                self.keep_log(&member, asked && status.success());
                if !(asked && status.success() || unborn) {
                    let how = if asked { "after being asked to" } else { "by itself" };
                    self.evidence.fault(format!("member {} ended {how}: {status}: {words}", member.number));
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

    pub(super) fn keep_log(&mut self, member: &Member, clean: bool) {
        let log = std::fs::read_to_string(member.process.log()).unwrap_or_default();
        let out = std::fs::read_to_string(member.process.log().with_extension("out")).unwrap_or_default();
        // Names of a round would make the same complaint another one each time.
        let (defects, complaints) = complaints_of(&log.replace(&self.name, "NAME"));
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

    pub(super) fn end_members(&mut self) {
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
    pub(super) fn read_the_rest(&mut self) {
        // Members that were killed hold their partitions until their sessions are over.
        std::thread::sleep(SESSION);
        let number = self.start_process(&["--until-end", "--timeout", "90s"]);
        self.tell(&format!("member {number} reads the rest"));
        let mut member = self.members.pop().unwrap();
        if let Some(status) = member.process.wait(LONGEST_REST) {
            self.tell(&format!("member {number} has ended ({status})"));
            if !status.success() {
                let words = words(&member);
                self.evidence.fault(format!("member {number} reading the rest ended with {status}: {words}"));
            }
            self.keep_log(&member, status.success());
        } else {
            member.process.kill();
            self.keep_log(&member, false);
            self.evidence.fault(format!("member {number} does not come to the end"));
        }
    }
}
