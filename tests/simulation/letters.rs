//! The model of the dead letter topic: a letter is stored some time after it was sent, and its confirmation may be lost.

use crate::truth::{Place, Truth};
use crate::witness::{Happening, Witness};

/// What has become of a letter that was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LetterFate {
    Waiting,
    Confirmed,
    /// No confirmation will come.
    Lost,
}

#[derive(Default)]
pub(crate) struct DeadLetters {
    sent: Vec<Sent>,
    next: u64,
}

struct Sent {
    id: u64,
    place: Place,
    stored: bool,
}

impl DeadLetters {
    pub(crate) fn send(&mut self, place: Place) -> u64 {
        self.next += 1;
        self.sent.push(Sent { id: self.next, place, stored: false });
        self.next
    }

    pub(crate) fn fate(&mut self, id: u64) -> LetterFate {
        match self.sent.iter().position(|sent| sent.id == id) {
            None => LetterFate::Lost,
            Some(index) if self.sent[index].stored => {
                self.sent.swap_remove(index);
                LetterFate::Confirmed
            }
            Some(_) => LetterFate::Waiting,
        }
    }

    /// The broker stores one of the letters that wait.
    pub(crate) fn serve(&mut self, choice: usize, truth: &mut Truth, witness: &mut Witness) {
        if self.sent.is_empty() {
            return;
        }
        let index = choice % self.sent.len();
        let sent = &mut self.sent[index];
        if !sent.stored {
            sent.stored = true;
            truth.store_letter(sent.place, witness);
        }
    }

    /// A letter or its confirmation is lost.
    pub(crate) fn lose(&mut self, choice: usize, witness: &mut Witness) {
        if self.sent.is_empty() {
            return;
        }
        let sent = self.sent.swap_remove(choice % self.sent.len());
        witness.count(Happening::LostReply);
        witness.tell(|| match sent.stored {
            true => format!("the confirmation of the dead letter of {:?} is lost", sent.place),
            false => format!("the dead letter of {:?} is lost", sent.place),
        });
    }
}
