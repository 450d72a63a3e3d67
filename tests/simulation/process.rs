//! One simulated process: the real delivery machines, and around them a runtime that performs what they ask for the way
//! `src/pipeline` does. Every method named `*_step` is one moment of one thread; the process may die after any of them.

use std::collections::{BTreeMap, BTreeSet};

use txconnect::delivery::{Assignment, CommitToken, Delivery, Event, Slot, Span, StreamsNote};
use txconnect_connector_api::{Published, StreamName};

use crate::database::{Database, SessionId};
use crate::dice::Dice;
use crate::group::{Client, Group};
use crate::lane::Lane;
use crate::letters::DeadLetters;
use crate::plan::{Plan, Protocol};
use crate::planted::Bug;
use crate::publisher::Errand;
use crate::source::Source;
use crate::streams::{CallId, Server, Table};
use crate::transform::Attempts;
use crate::truth::{Partition, Place, Truth};
use crate::witness::Witness;

/// Everything outside the processes.
pub(crate) struct Outside {
    pub(crate) plan: Plan,
    pub(crate) dice: Dice,
    pub(crate) truth: Truth,
    pub(crate) attempts: Attempts,
    pub(crate) group: Group,
    pub(crate) database: Database,
    pub(crate) server: Server,
    pub(crate) letters: DeadLetters,
    pub(crate) witness: Witness,
    /// Nothing fails any more: everything must come to its end.
    pub(crate) calm: bool,
}

impl Outside {
    pub(crate) fn has(&self, bug: Bug) -> bool {
        self.plan.has(bug)
    }

    pub(crate) fn exactly(&self) -> bool {
        self.plan.protocol == Protocol::OffsetsInSink
    }

    pub(crate) fn in_streams(&self) -> bool {
        self.plan.protocol == Protocol::TwoPhase
    }

    /// Something that takes too long: never in the calm and never in a gentle world.
    pub(crate) fn patience_ends(&mut self, chance: u64) -> bool {
        let gentle = self.plan.mood == crate::plan::Mood::Gentle;
        !self.calm && !gentle && self.dice.percent(chance)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Life {
    Running,
    /// Stopped by a signal, and may go on at any time.
    Frozen,
    Dead,
}

/// What the source thread knows of a partition.
#[derive(Clone, Debug, Default)]
pub(crate) struct Held {
    pub(crate) assignment: u64,
    /// Whether it is being read.
    pub(crate) reading: bool,
    /// The offset that the client fetches next, while it may.
    pub(crate) fetch: Option<i64>,
    /// The end of what was handed over under this assignment.
    pub(crate) handed_over: Option<i64>,
    /// The furthest end of a finished span.
    pub(crate) furthest: i64,
    /// The membership that gave it.
    pub(crate) member: u64,
    /// The epoch under which it was taken over.
    pub(crate) epoch: i64,
}

pub(crate) struct Process {
    pub(crate) number: usize,
    pub(crate) life: Life,
    pub(crate) client: Client,
    pub(crate) delivery: Delivery,
    pub(crate) partitions: BTreeMap<Partition, Held>,
    pub(crate) assignments: u64,
    pub(crate) waiting: BTreeSet<Partition>,
    pub(crate) asked: Option<Asked>,
    /// A question about streams that earlier commits count on.
    pub(crate) inheriting: Option<Inheriting>,
    pub(crate) commit_sent: Option<(CommitToken, Vec<Slot>)>,
    /// A commit that the group has to be asked about.
    pub(crate) lookup: Option<(CommitToken, Vec<Slot>)>,
    /// What is to be done at the sink about committed rows and finished streams.
    pub(crate) errands: Vec<Errand>,
    /// The stream that a partition had last in a table.
    pub(crate) used: BTreeMap<(Partition, Table), StreamName>,
    /// Partitions that the machine has released.
    pub(crate) released: BTreeSet<Slot>,
    /// Why it stops before its time.
    pub(crate) stop: Option<Stop>,
    /// Partitions with a commit in doubt.
    pub(crate) doubtful: BTreeSet<Partition>,
    /// Records of which the sink has refused a row when others were stored in streams already. Those streams were given
    /// up; without this the record would come to the same end again.
    pub(crate) refused: BTreeSet<Place>,
    pub(crate) lanes: Vec<Lane>,
    pub(crate) source: Source,
    pub(crate) stopping: bool,
}

/// A question to the sink's positions that is not answered yet.
pub(crate) struct Asked {
    pub(crate) session: SessionId,
    pub(crate) partitions: Vec<Partition>,
    pub(crate) gone: BTreeSet<Partition>,
    pub(crate) look: Option<SessionId>,
}

/// Partitions whose streams of before are being published, one after the other.
pub(crate) struct Inheriting {
    pub(crate) starting: Vec<Starting>,
    pub(crate) gone: BTreeSet<Partition>,
    pub(crate) call: Option<CallId>,
}

/// What the group says of a partition that is to be read.
pub(crate) struct Starting {
    pub(crate) partition: Partition,
    pub(crate) committed: Option<i64>,
    pub(crate) note: StreamsNote,
    pub(crate) published: Vec<Published>,
}

/// A partition cannot be started from what the group has stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stop {
    pub(crate) partition: Partition,
    pub(crate) position: i64,
    pub(crate) why: Why,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Why {
    Foreign,
    Stale,
    Lost { stream: StreamName, visible_before: Option<i64> },
}

pub(crate) fn slot(partition: Partition) -> Slot {
    Slot(u32::try_from(partition).unwrap())
}

pub(crate) fn partition_of(slot: Slot) -> Partition {
    slot.0 as usize
}

impl Process {
    pub(crate) fn new(number: usize, plan: &Plan) -> Self {
        Self {
            number,
            life: Life::Running,
            client: Client::default(),
            delivery: match plan.protocol {
                Protocol::AtLeastOnce => Delivery::at_least_once(),
                Protocol::OffsetsInSink => Delivery::offsets_in_sink(),
                Protocol::TwoPhase => Delivery::two_phase(),
            },
            partitions: BTreeMap::new(),
            assignments: 0,
            waiting: BTreeSet::new(),
            asked: None,
            inheriting: None,
            commit_sent: None,
            lookup: None,
            errands: Vec::new(),
            used: BTreeMap::new(),
            released: BTreeSet::new(),
            stop: None,
            doubtful: BTreeSet::new(),
            refused: BTreeSet::new(),
            lanes: (0..plan.lanes).map(|_| Lane::default()).collect(),
            source: Source::Turning,
            stopping: false,
        }
    }

    /// One moment of one of its threads.
    pub(crate) fn step(&mut self, outside: &mut Outside) {
        outside.database.flush_buffers(self.number);
        let lane = outside.dice.index(self.lanes.len());
        match outside.dice.within(0, 9) {
            0 => {
                let Outside { group, dice, witness, .. } = outside;
                if !self.stopping || self.client.membership().is_some() {
                    group.heartbeat(&mut self.client, self.number, dice, witness);
                }
            }
            1..=3 => self.source_step(outside),
            4..=6 if outside.in_streams() && outside.dice.percent(30) => self.publisher_step(outside),
            4..=6 => self.lane_step(lane, outside),
            _ => self.writer_step(lane, outside),
        }
    }

    /// Dies at once, by SIGKILL or at the end of an orderly stop.
    pub(crate) fn die(&mut self, outside: &mut Outside) -> bool {
        self.life = Life::Dead;
        for lane in &mut self.lanes {
            *lane = Lane::default();
        }
        outside.server.close_all_of(self.number);
        outside.database.close_all_of(self.number)
    }

    /// Tells the machine one event.
    pub(crate) fn tell(&mut self, event: Event) {
        self.delivery.handle(event);
    }

    pub(crate) fn is_current(&self, span: &Span) -> bool {
        self.delivery.commits().is_current(span.slot, span.assignment)
    }

    pub(crate) fn handed_over(&mut self, span: Span) {
        if self.is_current(&span) {
            if let Some(held) = self.partitions.get_mut(&partition_of(span.slot)) {
                held.handed_over = Some(span.next);
            }
            self.tell(Event::HandedOver(span));
        }
    }

    /// Everything of a span is where it belongs.
    pub(crate) fn finished(&mut self, mut span: Span, outside: &Outside) {
        if outside.has(Bug::SpansOfAnOlderAssignmentFinish)
            && let Some(held) = self.partitions.get(&partition_of(span.slot))
        {
            span.assignment = Assignment(held.assignment);
        }
        if !self.is_current(&span) {
            return;
        }
        if let Some(sink) = self.delivery.in_sink_mut() {
            sink.written(&[span]);
        }
        let partition = partition_of(span.slot);
        self.doubtful.remove(&partition);
        if let Some(held) = self.partitions.get_mut(&partition) {
            held.furthest = held.furthest.max(span.next);
        }
        self.tell(Event::Finished(span));
    }

    /// Whether what this process believes of the sink is so, for every partition that it alone owns there.
    pub(crate) fn check_beliefs(&self, outside: &mut Outside) {
        let Some(sink) = self.delivery.in_sink() else { return };
        for (partition, held) in &self.partitions {
            let (Some(believed), Some((epoch, stored))) =
                (sink.stored(slot(*partition)), outside.database.position(*partition))
            else {
                continue;
            };
            let asking = self.doubtful.contains(partition)
                || self.lanes.iter().any(|lane| lane.is_committing(*partition))
                || outside.database.is_edited(*partition);
            if epoch == held.epoch && believed != stored && !asking {
                outside.witness.fault(format!(
                    "process {} owns partition {partition} and believes that the sink stands at {believed}, but it \
                     stands at {stored}",
                    self.number
                ));
            }
        }
    }

    fn is_quiet(&self, partition: Partition, held: &Held) -> bool {
        let commits = self.delivery.commits();
        commits.is_current(slot(partition), Assignment(held.assignment)) && commits.is_idle(slot(partition))
    }

    /// Whether nothing is on its way anywhere in this process.
    pub(crate) fn is_idle(&self) -> bool {
        self.life != Life::Running
            || (self.client.events.is_empty()
                && self.waiting.is_empty()
                && self.asked.is_none()
                && self.inheriting.is_none()
                && self
                    .partitions
                    .iter()
                    .all(|(partition, held)| !held.reading || self.is_quiet(*partition, held))
                && self.commit_sent.is_none()
                && self.lookup.is_none()
                && self.errands.is_empty()
                && matches!(self.source, Source::Turning)
                && self.lanes.iter().all(Lane::is_idle))
    }
}
