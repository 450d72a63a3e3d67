//! The simulated publisher: publishes what is committed, and finalizes streams that nothing depends on any more.

use txconnect::delivery::{Assignment, Slot, Step};
use txconnect_connector_api::Published;

use crate::process::{Outside, Process};
use crate::source::Source;
use crate::streams::{Answer, CallId, Reply, Request};

/// How often a stream that nobody waits for is tried to be finalized.
const TRIES_FOR_OTHERS: u32 = 3;

/// One step on its way.
pub(crate) struct Errand {
    step: Step,
    call: Option<CallId>,
    tries: u32,
}

impl Errand {
    pub(crate) fn new(step: Step) -> Self {
        Self { step, call: None, tries: 0 }
    }
}

impl Process {
    /// Takes new steps; answers how many.
    pub(crate) fn look_for_errands(&mut self) -> usize {
        let steps = self.delivery.steps();
        let count = steps.len();
        self.errands.extend(steps.into_iter().map(Errand::new));
        count
    }

    /// One moment of one step.
    pub(crate) fn publisher_step(&mut self, outside: &mut Outside) {
        self.look_for_errands();
        if self.errands.is_empty() {
            return;
        }
        let mut errand = self.errands.swap_remove(outside.dice.index(self.errands.len()));
        if !self.perform(&mut errand, outside) {
            self.errands.push(errand);
        }
    }

    /// Answers whether the step is done, or left to others.
    fn perform(&mut self, errand: &mut Errand, outside: &mut Outside) -> bool {
        let Some(id) = errand.call.take() else {
            let request = match &errand.step {
                Step::Publish { stream, end, .. } => Request::Publish { stream: stream.clone(), end: *end },
                Step::Finalize { stream, .. } | Step::LeaveBehind { stream } => {
                    Request::Finalize { stream: stream.clone() }
                }
            };
            errand.call = outside.server.call(self.number, request);
            return errand.call.is_none() && self.goes_nowhere(errand);
        };
        match (outside.server.answer(id), &errand.step) {
            (Answer::Waiting, _) if outside.patience_ends(2) => {
                outside.server.give_up(id);
                self.goes_nowhere(errand)
            }
            (Answer::Waiting, _) => {
                errand.call = Some(id);
                false
            }
            (Answer::Reply(Reply::Published(published)), Step::Publish { slot, assignment, stream, end }) => {
                if published != Published::Visible {
                    let number = self.number;
                    outside.witness.tell(|| format!("process {number} finds stream {stream} {published:?}"));
                }
                self.delivery.published(*slot, *assignment, stream, *end, published);
                true
            }
            (Answer::Reply(Reply::Finalized), Step::Finalize { slot, assignment, stream }) => {
                self.delivery.finalized(*slot, *assignment, stream);
                true
            }
            (Answer::Reply(Reply::Finalized), _) => true,
            (Answer::Reply(_) | Answer::Unknown, _) => self.goes_nowhere(errand),
        }
    }

    /// The sink is away. Answers whether the step is left to whoever reads the partition next.
    fn goes_nowhere(&self, errand: &mut Errand) -> bool {
        errand.tries += 1;
        let is_ours =
            |slot: &Slot, assignment: &Assignment| self.delivery.commits().is_current(*slot, *assignment);
        let is_over = match &errand.step {
            Step::Publish { slot, assignment, .. } | Step::Finalize { slot, assignment, .. } => {
                !is_ours(slot, assignment)
            }
            Step::LeaveBehind { .. } => errand.tries >= TRIES_FOR_OTHERS,
        };
        is_over || matches!(self.source, Source::Leaving)
    }
}
