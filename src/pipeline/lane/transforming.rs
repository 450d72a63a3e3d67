//! Records on their way through transforms.
//!
//! All records of a take are decoded and validated first, so that guests see none that is bad. Those that are good go
//! through the chain, one call in a turn; what comes back is turned into rows in the order of the offsets, with the bad
//! records at their places.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use txconnect_connector_api::BadRecord;
use txconnect_transform_host::InputRecord;

use super::{Lane, LaneTopic};
use crate::pipeline::memory::Charge;
use crate::pipeline::records::Records;
use crate::pipeline::shared::Failure;
use crate::stages::transform::{Input, Outcome, Part, Step};
use crate::stages::{Stage, read};

/// The records of a take.
pub(super) struct Transforming {
    records: Arc<Records>,
    /// Those that go through the transforms. Those that are neither here nor in `bad` count for nothing any more.
    good: Vec<u32>,
    bad: VecDeque<Bad>,
    /// What has come back and was not turned into rows yet.
    part: Option<Part>,
    /// What `part` takes.
    charge: Charge,
}

/// A record that no guest sees.
struct Bad {
    index: usize,
    stage: Stage,
    why: BadRecord,
}

/// The good records, as a chain reads them.
struct Good<'a> {
    records: &'a Records,
    indices: &'a [u32],
    topics: &'a [LaneTopic],
}

impl Input for Good<'_> {
    fn record(&self, index: usize) -> InputRecord<'_> {
        let view = self.records.get(self.indices[index] as usize);
        view.input(&self.topics[view.origin().topic].topic.name)
    }

    fn headers(&self, index: usize) -> impl Iterator<Item = (&str, Option<&[u8]>)> {
        self.records.get(self.indices[index] as usize).header_pairs()
    }
}

impl Lane {
    /// Decodes and validates the records of a take, and lays the good ones before the chain.
    pub(super) fn begin_transforming(&mut self, records: Arc<Records>) -> Transforming {
        let mut good = Vec::with_capacity(records.len());
        let mut bad = VecDeque::new();
        for (index, number) in (0..records.len()).zip(0_u32..) {
            let view = records.get(index);
            if !self.is_expected(view) {
                continue;
            }
            self.reset_arena();
            let topic = &self.topics[view.origin().topic].topic;
            match read(topic.format, topic.validator(), view.value(), &self.arena) {
                Ok(_) => good.push(number),
                Err((stage, why)) => bad.push_back(Bad { index, stage, why }),
            }
        }
        if let Some(chain) = &mut self.chain {
            chain.begin(good.len());
        }
        let charge = self.shared.memory.charge(0);
        Transforming { records, good, bad, part: None, charge }
    }

    /// Turns what has come back into rows, and calls one guest. Answers what is still to be done.
    pub(super) fn go_on_transforming(&mut self, mut at_work: Transforming) -> Option<Transforming> {
        if let Some(part) = at_work.part.take() {
            let part = self.note_part(&mut at_work, part);
            if part.is_some() {
                at_work.part = part;
                return Some(at_work);
            }
            at_work.charge.set(0);
        }
        let chain = self.chain.as_mut()?;
        let input = Good { records: &at_work.records, indices: &at_work.good, topics: &self.topics };
        match chain.step(&input) {
            Ok(Step::Again) => Some(at_work),
            Ok(Step::Part(part)) => {
                at_work.charge.set(part.size());
                at_work.part = Some(part);
                Some(at_work)
            }
            Ok(Step::Done) => {
                let end = at_work.records.len();
                self.note_bad(&mut at_work, end).then_some(at_work)
            }
            Err(failure) => {
                let hint = "mend the transform; `txconnect transform test` shows what it does to records";
                self.fail(Failure::fatal(failure.to_string(), Some(hint.to_owned())));
                None
            }
        }
    }

    /// Turns the records of a part into rows. Answers what is left of it where a flush has become ready.
    fn note_part(&mut self, at_work: &mut Transforming, mut part: Part) -> Option<Part> {
        let now = Instant::now();
        while let Some(&index) = at_work.good.get(part.records().start).filter(|_| !part.records().is_empty())
        {
            let index = index as usize;
            if self.note_bad(at_work, index) || self.must_rest() {
                return Some(part);
            }
            let Some(outcome) = part.take_next() else { break };
            // The partition may have left while guests were at work.
            if self.is_expected(at_work.records.get(index)) {
                match outcome {
                    Outcome::Rows(rows) => self.made(&at_work.records, index, now, &part, rows),
                    Outcome::Bad(why) => self.bad(&at_work.records, index, now, Stage::Transform, why),
                }
            }
        }
        None
    }

    /// Notes the bad records before `end`. Answers whether there are some left because a flush has become ready.
    fn note_bad(&mut self, at_work: &mut Transforming, end: usize) -> bool {
        let now = Instant::now();
        while at_work.bad.front().is_some_and(|bad| bad.index < end) {
            if self.must_rest() {
                return true;
            }
            let Some(Bad { index, stage, why }) = at_work.bad.pop_front() else { break };
            if self.is_expected(at_work.records.get(index)) {
                self.bad(&at_work.records, index, now, stage, why);
            }
        }
        false
    }
}
