//! One world: processes, what is outside them, and a seed that decides what happens next.

use txconnect::delivery::{Note, StreamsNote};

use crate::database::Database;
use crate::group::Group;
use crate::letters::DeadLetters;
use crate::plan::{Mood, Plan, Protocol};
use crate::planted::Bug;
use crate::process::{Life, Outside, Process, Stop, Why};
use crate::streams::Server;
use crate::transform::Attempts;
use crate::truth::{Kind, Seen, Truth};
use crate::witness::{Happening, Witness};

/// After so many steps of calm something stands still for ever. Few worlds need a tenth of it.
const PATIENCE: u64 = 60_000;

pub(crate) struct World {
    outside: Outside,
    processes: Vec<Process>,
    /// Everybody was asked to stop, and nobody comes any more.
    ending: bool,
    seed: u64,
}

impl World {
    /// Lives through a whole world and answers what its witness saw.
    pub(crate) fn run(seed: u64, protocol: Protocol, bug: Option<Bug>, with_story: bool) -> Verdict {
        let (plan, dice) = Plan::thrown(seed, protocol, bug);
        let outside = Outside {
            truth: Truth::new(&plan),
            attempts: Attempts::default(),
            group: Group::new(&plan),
            database: Database::new(&plan),
            server: Server::new(&plan),
            letters: DeadLetters::default(),
            witness: Witness::new(with_story),
            calm: false,
            dice,
            plan,
        };
        let mut world = Self { outside, processes: Vec::new(), ending: false, seed };
        world.live();
        Verdict { seed: world.seed, protocol, plan: world.outside.plan, witness: world.outside.witness }
    }

    fn live(&mut self) {
        self.start();
        for _ in 0..self.outside.plan.steps {
            if self.outside.dice.percent(4) {
                self.produce();
            }
            let chance = match self.outside.plan.mood {
                Mood::Gentle => 5,
                Mood::Wild => 15,
                Mood::Stormy => 45,
            };
            if self.outside.dice.within(0, 999) < chance {
                self.fault();
            }
            // Where commits decide over rows, their answers are what hurts most to lose.
            let Outside { group, dice, witness, plan, .. } = &mut self.outside;
            if plan.protocol == Protocol::TwoPhase
                && plan.mood != Mood::Gentle
                && group.has_commits_on_their_way()
                && dice.within(0, 999) < 5
            {
                group.lose(dice, witness);
            }
            // So does a stop while it is asked what earlier commits count on.
            let asks = |process: &Process| process.life == Life::Running && process.inheriting.is_some();
            if self.outside.plan.mood != Mood::Gentle
                && let Some(index) = self.processes.iter().position(asks)
                && self.outside.dice.within(0, 999) < 30
            {
                self.freeze(index);
            }
            self.step();
            self.lend_a_hand();
            if self.is_condemned() {
                return;
            }
        }
        self.outside.calm = true;
        self.outside.database.down = false;
        self.outside.server.calm_down();
        // Whoever is frozen stays so: the others must get on without it.
        self.come_to_rest("the calm");
        // Then the zombies wake up.
        for index in 0..self.processes.len() {
            self.thaw(index);
        }
        self.come_to_rest("the calm after the zombies woke up");
        self.ending = true;
        for process in &mut self.processes {
            process.stop();
        }
        self.settle("the end", |world| world.processes.iter().all(|process| process.life == Life::Dead));
        let Outside { truth, witness, .. } = &mut self.outside;
        truth.judge(witness);
    }

    fn is_condemned(&self) -> bool {
        !self.outside.witness.faults().is_empty()
    }

    /// Records come once more to every partition, and everything must come to its end.
    fn come_to_rest(&mut self, when: &str) {
        for partition in 0..self.outside.plan.partitions {
            self.outside.truth.produce(partition, Some(Kind::Good));
        }
        self.settle(when, Self::is_at_rest);
    }

    fn settle(&mut self, when: &str, rests: impl Fn(&Self) -> bool) {
        for _ in 0..PATIENCE {
            if self.is_condemned() {
                return;
            }
            if rests(self) {
                return;
            }
            self.expire_the_absent();
            self.lend_a_hand();
            let works = |process: &Process| process.life == Life::Running && !process.stopping;
            let needs_a_hand = self.processes.iter().any(|process| process.stop.is_some());
            if !self.ending && !needs_a_hand && !self.processes.iter().any(works) {
                self.start();
            }
            self.step();
        }
        let positions: Vec<String> = (0..self.outside.plan.partitions)
            .map(|partition| {
                format!(
                    "partition {partition} ends at {}, the group stands at {:?}, the sink at {:?}",
                    self.outside.truth.end(partition),
                    self.outside.group.committed(partition),
                    self.outside.database.position(partition),
                )
            })
            .collect();
        self.outside.witness.fault(format!("in {when} nothing comes to its end: {}", positions.join("; ")));
    }

    fn is_written(&self) -> bool {
        (0..self.outside.plan.partitions).all(|partition| {
            let end = self.outside.truth.end(partition);
            let in_sink = self.outside.database.position(partition).map(|(_, position)| position);
            !self.outside.exactly() || in_sink == Some(end)
        }) && (!self.outside.in_streams() || self.is_published())
    }

    /// Whether every row is visible, and no position counts on rows that it does not know to be.
    fn is_published(&self) -> bool {
        let known = |partition| match self.outside.group.note(partition).map(Note::read) {
            Some(Ok(Note::Streams(note))) => note.streams.iter().all(|one| one.published == one.end),
            _ => self.outside.group.committed(partition).is_none(),
        };
        self.outside.truth.is_all_visible() && (0..self.outside.plan.partitions).all(known)
    }

    /// Does what a process that has stopped before its time asks its user to do, once all have stopped.
    fn lend_a_hand(&mut self) {
        if !self.processes.iter().any(|process| process.stop.is_some()) || !self.outside.group.is_empty() {
            return;
        }
        let working = |process: &Process| process.life == Life::Running && process.stop.is_none();
        if self.processes.iter().any(working) {
            return;
        }
        let stops: Vec<Stop> = self.processes.iter_mut().filter_map(|process| process.stop.take()).collect();
        for stop in stops {
            // Others may have stopped for the same.
            if self.outside.group.committed(stop.partition) == Some(stop.position) {
                self.offsets_reset(&stop);
            }
        }
    }

    /// `txconnect offsets reset --to …`, with the position that the message offers.
    fn offsets_reset(&mut self, stop: &Stop) {
        let Stop { partition, position, why } = stop;
        let partition = *partition;
        let Outside { group, truth, server, witness, plan, .. } = &mut self.outside;
        let note = match group.note(partition).map(Note::read) {
            Some(Ok(Note::Streams(note))) => note,
            _ => StreamsNote::default(),
        };
        for counted in &note.streams {
            server.publish(&counted.stream, counted.end, truth, witness);
        }
        let to = match why {
            Why::Foreign => *position,
            Why::Stale => truth.behind_the_last_row(partition),
            // Publications that nobody has noted may have gone further than the note says.
            Why::Lost { visible_before, .. } => {
                let known = visible_before.unwrap_or(0);
                known.max(truth.behind_the_last_row(partition)).min(*position)
            }
        };
        let exact = truth.seen(partition, 0, to) == Seen::All
            && matches!(truth.seen(partition, to, truth.end(partition)), Seen::None);
        if !exact && *why != Why::Foreign {
            witness.count(Happening::WayOutPartial);
            if !plan.wide {
                witness.fault(format!("no way out of {stop:?}: at {to} rows are lost or there twice"));
            }
        }
        witness.tell(|| format!("a hand moves partition {partition} to {to}"));
        let lives = |process: usize| self.processes[process].life != Life::Dead;
        truth.moved_by_hand(partition, to, |place| server.could_be_published(place, lives));
        let streams = note.streams.into_iter().map(|counted| counted.stream).chain(note.finalize);
        let note = StreamsNote { finalize: streams.collect(), ..StreamsNote::default() };
        group.move_by_hand(partition, to, &Note::Streams(note).to_text());
    }

    /// Whether everything is read, written and committed.
    fn is_at_rest(&self) -> bool {
        (0..self.outside.plan.partitions).all(|partition| {
            self.outside.group.committed(partition) == Some(self.outside.truth.end(partition))
        }) && self.is_written()
            && self.processes.iter().all(Process::is_idle)
    }

    fn expire_the_absent(&mut self) {
        let absent = |process: &usize| self.processes[*process].life != Life::Running;
        let found = self.outside.group.processes().find(absent);
        if let Some(process) = found {
            let Outside { group, dice, witness, .. } = &mut self.outside;
            group.drop_member(process, dice, witness);
        }
    }

    /// One moment somewhere.
    fn step(&mut self) {
        self.outside.witness.step += 1;
        let Outside { group, database, server, letters, truth, dice, witness, plan, .. } = &mut self.outside;
        match dice.within(0, 9) {
            // Commits that decide take their time, so that more can happen meanwhile.
            0 if plan.protocol == Protocol::TwoPhase && dice.percent(50) => {
                server.serve(dice, truth, witness);
            }
            0 => {
                let stored = group.serve(dice, truth, server, witness);
                self.check_group_behind_sink(&stored);
            }
            1 => letters.serve(dice.index(1 << 16), truth, witness),
            2 | 3 if plan.protocol == Protocol::TwoPhase => server.serve(dice, truth, witness),
            2 | 3 => {
                database.serve(dice, truth, witness);
                self.check_beliefs();
            }
            _ => {
                let running: Vec<usize> = (0..self.processes.len())
                    .filter(|index| self.processes[*index].life == Life::Running)
                    .collect();
                if let Some(index) = dice.one_of(&running) {
                    self.processes[index].step(&mut self.outside);
                    self.check_beliefs();
                }
            }
        }
    }

    /// Where the sink keeps the positions, the group's are never ahead of them.
    fn check_group_behind_sink(&mut self, stored: &[(usize, i64)]) {
        if !self.outside.exactly() {
            return;
        }
        for (partition, position) in stored {
            let in_sink = self.outside.database.position(*partition).map_or(0, |(_, position)| position);
            if *position > in_sink && !self.outside.database.was_edited(*partition) {
                self.outside.witness.fault(format!(
                    "the group's position of partition {partition} is {position}, ahead of the sink's {in_sink}"
                ));
            }
        }
    }

    fn check_beliefs(&mut self) {
        for process in self.processes.iter().filter(|process| process.life != Life::Dead) {
            process.check_beliefs(&mut self.outside);
        }
    }

    fn produce(&mut self) {
        let partition = self.outside.dice.index(self.outside.plan.partitions);
        for _ in 0..self.outside.dice.within(1, 6) {
            let kind = match self.outside.dice.within(0, 99) {
                0..=6 => None,
                7..=11 => Some(Kind::Refused),
                12..=16 => Some(Kind::Broken),
                17..=21 => Some(Kind::Filtered),
                22..=25 if self.outside.in_streams() => Some(Kind::Fickle),
                _ => Some(Kind::Good),
            };
            self.outside.truth.produce(partition, kind);
        }
    }

    fn start(&mut self) {
        let number = self.processes.len();
        self.outside.witness.tell(|| format!("process {number} starts"));
        self.processes.push(Process::new(number, &self.outside.plan));
    }

    fn those(&self, life: Life) -> Vec<usize> {
        (0..self.processes.len()).filter(|index| self.processes[*index].life == life).collect()
    }

    /// Something happens to a process, a connection, a server or a position.
    fn fault(&mut self) {
        let running = self.those(Life::Running);
        let alive = running.len() + self.those(Life::Frozen).len();
        // Blows fall where they hurt most often: while something is on its way to the sink.
        let busy: Vec<usize> =
            running.iter().filter(|index| self.processes[**index].is_writing()).copied().collect();
        let hurts = !busy.is_empty() && self.outside.dice.percent(50);
        let chosen = self.outside.dice.one_of(if hurts { &busy } else { &running });
        if self.outside.plan.mood == Mood::Gentle || self.outside.dice.percent(25) {
            return match (self.outside.dice.within(0, 3), chosen) {
                (0, Some(index)) if running.len() > 1 => {
                    self.outside.witness.tell(|| format!("process {index} is asked to stop"));
                    self.processes[index].stop();
                }
                (1, _) => {
                    let Outside { group, dice, witness, .. } = &mut self.outside;
                    group.rebalance(dice, witness);
                }
                _ if alive < self.outside.plan.processes => self.start(),
                _ => {}
            };
        }
        match (self.outside.dice.within(0, 15), chosen) {
            (0..=2, Some(index)) => self.kill(index),
            (3 | 4, Some(index)) => {
                // Best of all while it waits for an answer on which it decides.
                let asks = |index: &&usize| self.processes[**index].inheriting.is_some();
                self.freeze(running.iter().find(asks).copied().unwrap_or(index));
            }
            (5, _) => {
                if let Some(index) = self.outside.dice.one_of(&self.those(Life::Frozen)) {
                    self.thaw(index);
                }
            }
            (6, _) => {
                if let Some(index) = self.outside.dice.one_of(&self.those(Life::Frozen)) {
                    self.kill(index);
                }
            }
            (7 | 8, _) => {
                // Most often somebody who is absent; sometimes a member that was only slow.
                let processes: Vec<usize> = self.outside.group.processes().collect();
                let absent: Vec<usize> = processes
                    .iter()
                    .filter(|process| self.processes[**process].life != Life::Running)
                    .copied()
                    .collect();
                let from = if absent.is_empty() { &processes } else { &absent };
                let Outside { group, dice, witness, .. } = &mut self.outside;
                if let Some(process) = dice.one_of(from) {
                    group.drop_member(process, dice, witness);
                }
            }
            (9 | 10, _) => {
                let Outside { database, server, dice, witness, plan, .. } = &mut self.outside;
                if plan.protocol == Protocol::TwoPhase {
                    server.cut(dice, witness);
                } else {
                    database.cut(dice, witness);
                }
            }
            (11, _) => {
                let Outside { database, server, witness, dice, plan, .. } = &mut self.outside;
                if plan.protocol == Protocol::TwoPhase {
                    if std::mem::take(&mut server.down) {
                        witness.tell(|| "the streams' server is back".to_owned());
                    } else {
                        server.restart(witness);
                        server.down = dice.percent(50);
                    }
                } else if database.down {
                    database.down = false;
                    witness.tell(|| "the database is back".to_owned());
                } else {
                    database.restart(witness);
                    database.down = dice.percent(50);
                }
            }
            (12, _) => {
                let Outside { group, dice, witness, .. } = &mut self.outside;
                group.lose(dice, witness);
            }
            (13, _) => {
                let Outside { letters, dice, witness, .. } = &mut self.outside;
                letters.lose(dice.index(1 << 16), witness);
            }
            (14, _) => self.meddle(),
            _ => {
                self.outside.database.down = false;
                self.outside.server.down = false;
                if alive < self.outside.plan.processes {
                    self.start();
                }
            }
        }
    }

    fn kill(&mut self, index: usize) {
        let process = &mut self.processes[index];
        let committing = process.is_in_mid_commit();
        self.outside.witness.count(Happening::Crash);
        if committing {
            self.outside.witness.count(Happening::CrashInCommit);
        }
        self.outside.witness.tell(|| format!("process {index} is killed"));
        process.die(&mut self.outside);
    }

    fn freeze(&mut self, index: usize) {
        self.outside.witness.count(Happening::Freeze);
        self.outside.witness.tell(|| format!("process {index} is frozen"));
        self.processes[index].life = Life::Frozen;
    }

    fn thaw(&mut self, index: usize) {
        if self.processes[index].life != Life::Frozen {
            return;
        }
        self.processes[index].life = Life::Running;
        if !self.outside.group.processes().any(|process| process == index) {
            self.outside.witness.count(Happening::ZombieWakes);
        }
        self.outside.witness.tell(|| format!("process {index} goes on"));
    }

    /// Other tools and hands set positions.
    fn meddle(&mut self) {
        let partition = self.outside.dice.index(self.outside.plan.partitions);
        let Outside { group, database, server, truth, dice, witness, plan, .. } = &mut self.outside;
        if group.is_empty() && dice.percent(70) {
            // At least once it counts, and what it skips is skipped: so it only goes backwards there.
            let most = match plan.protocol {
                Protocol::AtLeastOnce => group.committed(partition).unwrap_or(0),
                Protocol::OffsetsInSink | Protocol::TwoPhase => truth.end(partition),
            };
            let position = dice.within(0, u64::try_from(most).unwrap());
            let position = dice.percent(80).then(|| i64::try_from(position).unwrap());
            let note = dice.percent(20).then_some(r#"{"txconnect":2}"#);
            group.reset(partition, position, note, witness);
            if plan.protocol == Protocol::TwoPhase && position.is_none() {
                let lives = |process: usize| self.processes[process].life != Life::Dead;
                truth.moved_by_hand(partition, 0, |place| server.could_be_published(place, lives));
            }
        } else if plan.protocol == Protocol::TwoPhase {
            let nobody_runs = !self.processes.iter().any(|process| process.life == Life::Running);
            if nobody_runs || dice.percent(50) {
                server.expire(nobody_runs, dice, witness);
            } else if dice.percent(40) {
                let table = dice.index(plan.topics * 2);
                server.drop_table(table, truth, witness);
            }
        } else if plan.protocol == Protocol::OffsetsInSink
            && !plan.unique
            && let Some((first, next)) = database.edit(partition, dice, witness)
        {
            truth.want_again(partition, first, next);
        }
    }
}

/// How a world ended.
pub(crate) struct Verdict {
    pub(crate) seed: u64,
    protocol: Protocol,
    pub(crate) plan: Plan,
    pub(crate) witness: Witness,
}

impl Verdict {
    pub(crate) fn is_guilty(&self) -> bool {
        !self.faults().is_empty()
    }

    /// What went wrong. In a gentle world not even a repeated row is right.
    pub(crate) fn faults(&self) -> Vec<String> {
        let mut faults = self.witness.faults().to_vec();
        let repeated = self.witness.tally.of(Happening::Repeated);
        if self.plan.mood == Mood::Gentle && repeated > 0 {
            faults.push(format!("{repeated} rows are repeated, and members only came and went in order"));
        }
        faults
    }

    /// Everything that is known of a world that went wrong: it is lived through once more for its story.
    pub(crate) fn report(&self) -> String {
        let again = World::run(self.seed, self.protocol, self.plan.bug, true);
        let protocol = self.protocol.name();
        format!(
            "{:?}\n{}\nWRONG: {}\nrun it again: ./dev chaos --simulate --seeds 1 --seed {} (this was {protocol})\n",
            again.plan,
            again.witness.story(),
            again.faults().join("\nWRONG: "),
            self.seed,
        )
    }
}
