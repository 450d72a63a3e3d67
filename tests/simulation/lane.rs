//! A simulated lane: takes records, sorts out the bad ones, closes flushes and hands them over.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use txconnect::delivery::{Assignment, Span};

use crate::plan::Plan;
use crate::planted::Bug;
use crate::process::{Outside, Process, partition_of, slot};
use crate::transform::Made;
use crate::truth::{Partition, Place, Row};
use crate::writer::{Doing, Flush};

/// What the source thread asks of a lane.
pub(crate) enum Command {
    Assign { partition: Partition, assignment: Assignment, position: i64 },
    Release { partitions: BTreeSet<Partition> },
    Drop { partitions: BTreeSet<Partition> },
}

#[derive(Default)]
pub(crate) struct Lane {
    pub(crate) commands: VecDeque<Command>,
    /// Taken, and not looked at yet.
    current: VecDeque<(Place, Assignment)>,
    open: BTreeMap<Partition, Open>,
    ready: VecDeque<Flush>,
    /// Answers owed once everything before them was handed over.
    owed: u32,
    pub(crate) answered: u32,
    /// With the writer.
    pub(crate) running: Vec<Flush>,
}

struct Open {
    assignment: Assignment,
    first: i64,
    next: i64,
    rows: Vec<Row>,
    letters: Vec<Place>,
    filtered: Vec<Place>,
}

impl Open {
    fn is_full(&self, plan: &Plan) -> bool {
        self.rows.len() + self.letters.len() + self.filtered.len() >= plan.batch_rows
    }
}

impl Lane {
    pub(crate) fn is_idle(&self) -> bool {
        self.commands.is_empty()
            && self.current.is_empty()
            && self.open.values().all(|open| open.first == open.next)
            && self.ready.is_empty()
            && self.running.is_empty()
    }

    /// Whether a transaction that moves this partition may be committing now.
    pub(crate) fn is_committing(&self, partition: Partition) -> bool {
        self.running.iter().any(|flush| flush.is_committing() && flush.covers(partition))
    }

    fn obey(&mut self, command: Command, closed: &mut Closed) {
        match command {
            Command::Assign { partition, assignment, position } => {
                let open = Open {
                    assignment,
                    first: position,
                    next: position,
                    rows: Vec::new(),
                    letters: Vec::new(),
                    filtered: Vec::new(),
                };
                self.open.insert(partition, open);
            }
            Command::Release { partitions } => {
                for partition in &partitions {
                    self.close(*partition, closed);
                }
                self.open.retain(|partition, _| !partitions.contains(partition));
                self.owed += 1;
            }
            Command::Drop { partitions } => {
                self.open.retain(|partition, _| !partitions.contains(partition));
                for flush in &mut self.ready {
                    flush.cut(|other| partitions.contains(&other));
                }
            }
        }
    }

    /// Closes everything that goes together with what is open of a partition: that of its topic.
    fn close(&mut self, partition: Partition, closed: &mut Closed) {
        let topics = closed.topics;
        let mut flush = Flush::default();
        let together = self.open.iter_mut().filter(|(other, _)| *other % topics == partition % topics);
        for (partition, open) in together.filter(|(_, open)| open.first < open.next) {
            let span = Span {
                slot: slot(*partition),
                assignment: open.assignment,
                first: open.first,
                next: open.next,
            };
            open.first = open.next;
            flush.spans.push(span);
            // With a planted bug there may be some behind the span.
            flush.filtered.extend(open.filtered.extract_if(.., |place| place.offset < open.next));
            flush.rows.append(&mut open.rows);
            flush.letters.append(&mut open.letters);
            closed.spans.push(span);
        }
        if !flush.spans.is_empty() {
            self.ready.push_back(flush);
        }
    }
}

/// Spans that are handed over to the machine when the lane is through.
struct Closed {
    topics: usize,
    spans: Vec<Span>,
}

impl Process {
    pub(crate) fn lane_step(&mut self, index: usize, outside: &mut Outside) {
        let mut closed = Closed { topics: outside.plan.topics, spans: Vec::new() };
        let lane = &mut self.lanes[index];
        if let Some(command) = lane.commands.pop_front() {
            let slow = outside.plan.has(Bug::TakenBeforeTheLaneKnows) && outside.dice.percent(30);
            if !slow {
                lane.obey(command, &mut closed);
                self.hand_over(closed.spans, outside);
                return;
            }
            lane.commands.push_front(command);
        }
        if lane.running.len() < outside.plan.in_flight
            && let Some(flush) = lane.ready.pop_front()
        {
            lane.running.push(flush);
            return;
        }
        if lane.ready.is_empty() && lane.owed > 0 {
            lane.owed -= 1;
            lane.answered += 1;
            return;
        }
        if !lane.ready.is_empty() {
            return;
        }
        if let Some((place, assignment)) = lane.current.pop_front() {
            let older = outside.plan.has(Bug::RecordsOfAnOlderAssignment);
            let Some(open) = lane.open.get_mut(&place.partition) else { return };
            if (open.assignment != assignment && !older) || place.offset < open.next {
                return;
            }
            let made = if self.refused.contains(&place) {
                Made::Bad
            } else {
                let Outside { attempts, truth, plan, dice, witness, .. } = outside;
                attempts.make(place, truth.kind(place), plan, dice, witness)
            };
            match made {
                Made::Rows(rows) => {
                    let mut rows = rows.into_iter().peekable();
                    while let Some(row) = rows.next() {
                        let half = rows.peek().is_some() && outside.dice.percent(30);
                        let before = half && outside.plan.has(Bug::RowsBeforeTheirSpan);
                        let behind = half && outside.plan.has(Bug::RowsBehindTheirSpan);
                        let Some(open) = lane.open.get_mut(&place.partition) else { return };
                        open.rows.push(row);
                        if behind || rows.peek().is_none() {
                            open.next = place.offset + 1;
                        }
                        if before || behind {
                            lane.close(place.partition, &mut closed);
                        }
                    }
                }
                Made::Bad => {
                    outside.truth.found_bad(place);
                    open.next = place.offset + 1;
                    open.letters.push(place);
                }
                Made::Filtered => {
                    if !outside.plan.has(Bug::FilteredKeepsThePosition) {
                        open.next = place.offset + 1;
                    }
                    open.filtered.push(place);
                }
            }
            if lane.open.get(&place.partition).is_some_and(|open| open.is_full(&outside.plan)) {
                lane.close(place.partition, &mut closed);
            }
            self.hand_over(closed.spans, outside);
            return;
        }
        // Time is over for what is open, or there is more to take.
        let open: Vec<Partition> = lane
            .open
            .iter()
            .filter(|(_, open)| open.first < open.next)
            .map(|(partition, _)| *partition)
            .collect();
        if let Some(partition) = outside.dice.one_of(&open)
            && outside.dice.percent(50)
        {
            lane.close(partition, &mut closed);
            self.hand_over(closed.spans, outside);
            return;
        }
        self.take(index, outside);
    }

    /// The client fetches, and the lane takes what has come.
    fn take(&mut self, index: usize, outside: &mut Outside) {
        let lanes = self.lanes.len();
        let lane = &mut self.lanes[index];
        for (partition, held) in
            self.partitions.iter_mut().filter(|(partition, _)| *partition % lanes == index)
        {
            let Some(fetch) = held.fetch else { continue };
            let places = outside.truth.read(*partition, fetch, 1 + outside.dice.index(6));
            let Some(last) = places.last() else { continue };
            held.fetch = Some(last.offset + 1);
            // Where the lane does not know the partition, its records belong to nothing.
            let Some(open) = lane.open.get(partition) else { continue };
            lane.current.extend(places.into_iter().map(|place| (place, open.assignment)));
        }
    }

    fn hand_over(&mut self, spans: Vec<Span>, outside: &Outside) {
        for span in spans {
            self.handed_over(span);
            if outside.has(Bug::FinishedBeforeWritten) || outside.has(Bug::GroupAheadOfTheSink) {
                let span = Span { ..span };
                if self.is_current(&span) {
                    self.tell(txconnect::delivery::Event::Finished(span));
                }
            }
        }
    }

    /// Everything that the lanes still hold of these partitions is dropped.
    pub(crate) fn drop_in_lanes(&mut self, partitions: &BTreeSet<Partition>) {
        for lane in &mut self.lanes {
            lane.commands.push_back(Command::Drop { partitions: partitions.clone() });
        }
    }

    /// Flushes on their way that cover one of these partitions.
    pub(crate) fn spans_on_their_way(&self, partitions: &BTreeSet<Partition>) -> Vec<Span> {
        let flushes = self.lanes.iter().flat_map(|lane| lane.running.iter().chain(&lane.ready));
        let mut spans: Vec<Span> = flushes
            .flat_map(|flush| flush.spans.iter().copied())
            .filter(|span| partitions.contains(&partition_of(span.slot)))
            .collect();
        spans.sort_by_key(|span| (span.slot, span.first));
        spans
    }

    /// Whether something of this process is on its way to the sink.
    pub(crate) fn is_writing(&self) -> bool {
        let writes = |flush: &Flush| {
            matches!(flush.doing, Doing::Writing { .. } | Doing::Committing { .. } | Doing::Appending(_))
        };
        self.lanes.iter().any(|lane| lane.running.iter().any(writes))
    }

    /// Whether this process waits for the answer to a commit that decides over rows.
    pub(crate) fn is_in_mid_commit(&self) -> bool {
        if self.commit_sent.is_some() && self.delivery.streams().is_some() {
            return true;
        }
        let commits = |flush: &Flush| matches!(flush.doing, Doing::Committing { .. });
        self.lanes.iter().any(|lane| lane.running.iter().any(commits))
    }
}
