//! Where a simulated process starts to read a partition whose rows are in streams: what the group's position counts on is
//! published first, and what cannot be started from stops the process.

use std::collections::BTreeSet;

use txconnect::delivery::{Inherited, Note, StreamsNote, inherit};
use txconnect_connector_api::Published;

use crate::planted::Bug;
use crate::process::{Inheriting, Outside, Process, Starting, Stop, Why, slot};
use crate::streams::{Answer, Reply, Request};
use crate::truth::Partition;
use crate::witness::Happening;

impl Process {
    /// Asks the group, and then the sink about what the group has said.
    pub(crate) fn ask_for_inheritance(&mut self, partitions: Vec<Partition>, outside: &mut Outside) {
        let mut starting = Vec::with_capacity(partitions.len());
        for partition in partitions {
            let committed = outside.group.committed(partition);
            let note = match (committed, outside.group.note(partition).map(Note::read)) {
                (None, _) | (_, Some(Ok(Note::AtLeastOnce))) => StreamsNote::default(),
                (_, Some(Ok(Note::Streams(note)))) => note,
                _ if outside.has(Bug::ForeignPositionTaken) => StreamsNote::default(),
                (Some(position), _) => {
                    return self.fail(Stop { partition, position, why: Why::Foreign }, outside);
                }
            };
            starting.push(Starting { partition, committed, note, published: Vec::new() });
        }
        self.inheriting = Some(Inheriting { starting, gone: BTreeSet::new(), call: None });
    }

    /// The next answer of the sink.
    pub(crate) fn inherit(&mut self, mut inheriting: Inheriting, outside: &mut Outside) {
        let Inheriting { starting, gone, call } = &mut inheriting;
        if starting.iter().all(|one| gone.contains(&one.partition)) {
            return;
        }
        if let Some(id) = call.take() {
            match outside.server.answer(id) {
                Answer::Waiting if outside.patience_ends(2) => {
                    outside.server.give_up(id);
                    return self.ask_again(inheriting);
                }
                Answer::Waiting => {
                    *call = Some(id);
                    self.inheriting = Some(inheriting);
                    return;
                }
                Answer::Reply(Reply::Published(published)) => {
                    let asked = starting.iter_mut().find(|one| one.published.len() < one.note.streams.len());
                    if let Some(asked) = asked {
                        let counted = &asked.note.streams[asked.published.len()];
                        if counted.published < counted.end && published == Published::Visible {
                            outside.witness.count(Happening::PublishedForOthers);
                        }
                        asked.published.push(published);
                    }
                }
                Answer::Reply(_) | Answer::Unknown => return self.ask_again(inheriting),
            }
        }
        if outside.has(Bug::NothingPublishedAtTheStart) {
            for one in starting.iter_mut() {
                one.published = vec![Published::Visible; one.note.streams.len()];
            }
        }
        let next = starting.iter().find_map(|one| one.note.streams.get(one.published.len()));
        if let Some(counted) = next {
            let request = Request::Publish { stream: counted.stream.clone(), end: counted.end };
            match outside.server.call(self.number, request) {
                None => return self.ask_again(inheriting),
                sent => *call = sent,
            }
            self.inheriting = Some(inheriting);
            return;
        }
        self.start_with_streams(inheriting, outside);
    }

    /// The sink is away: everything is asked again.
    fn ask_again(&mut self, inheriting: Inheriting) {
        let Inheriting { starting, gone, .. } = inheriting;
        let ours = starting.into_iter().map(|one| one.partition).filter(|number| !gone.contains(number));
        self.waiting.extend(ours);
    }

    fn start_with_streams(&mut self, inheriting: Inheriting, outside: &mut Outside) {
        let Inheriting { starting, gone, .. } = inheriting;
        let ours: Vec<Starting> = starting.into_iter().filter(|one| !gone.contains(&one.partition)).collect();
        for Starting { partition, committed, note, published } in &ours {
            let (partition, position) = (*partition, committed.unwrap_or(0));
            let why = match inherit(note, published) {
                Inherited::Settled => continue,
                // Whoever was stopped since it asked may find what others have done meanwhile.
                _ if !outside.has(Bug::StopsAtOldNews) && has_moved(partition, position, note, outside) => {
                    self.waiting.extend(ours.iter().map(|one| one.partition));
                    return;
                }
                Inherited::Stale { .. } => Why::Stale,
                Inherited::Lost { stream, visible_before, .. } => Why::Lost { stream, visible_before },
            };
            return self.fail(Stop { partition, position, why }, outside);
        }
        for Starting { partition, committed, note, .. } in ours {
            let position = committed.unwrap_or(0);
            let assignment = self.start(partition, position, committed, None, outside);
            if outside.has(Bug::FinalizedBeforeNamed) {
                for counted in &note.streams {
                    outside.server.call(self.number, Request::Finalize { stream: counted.stream.clone() });
                }
            }
            self.delivery.streams_started(slot(partition), assignment, position, note);
        }
    }

    /// The process ends, in order, and says why.
    fn fail(&mut self, stop: Stop, outside: &mut Outside) {
        let number = self.number;
        outside.witness.tell(|| format!("process {number} stops: {stop:?}"));
        outside.witness.count(match &stop.why {
            Why::Foreign => Happening::StopForeign,
            Why::Stale => Happening::StopStale,
            Why::Lost { .. } => Happening::StopLost,
        });
        let Stop { partition, why, .. } = &stop;
        let justified = match why {
            Why::Foreign => outside.group.is_foreign(*partition),
            Why::Stale => outside.group.was_overtaken(*partition),
            Why::Lost { stream, .. } => outside.server.has_vanished(stream),
        };
        if !justified {
            outside.witness.fault(format!("process {number} stops without need: {stop:?}"));
        }
        self.stop = Some(stop);
        self.stopping = true;
    }
}

/// Whether the group has stored something else since it was asked.
fn has_moved(partition: Partition, position: i64, note: &StreamsNote, outside: &Outside) -> bool {
    let now = outside.group.note(partition).map(Note::read);
    outside.group.committed(partition) != Some(position) || now != Some(Ok(Note::Streams(note.clone())))
}
