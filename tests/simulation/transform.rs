//! The model of a transform: what a record becomes when it is looked at once.
//!
//! A guest may answer differently each time it is asked, so everything here belongs to one *attempt*: one lane of one
//! process looking at one record.

use crate::dice::Dice;
use crate::plan::{Guests, Plan};
use crate::truth::{Kind, Place, Row};
use crate::witness::{Happening, Witness};

/// The most rows that a record becomes.
const MOST_ROWS: u64 = 3;

/// What became of a record in the lane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Made {
    /// At least one.
    Rows(Vec<Row>),
    Filtered,
    /// It could not be decoded, or the guest has failed at it.
    Bad,
}

/// Counts attempts.
#[derive(Default)]
pub(crate) struct Attempts(u64);

impl Attempts {
    /// Names one more.
    pub(crate) fn next(&mut self) -> u64 {
        self.0 += 1;
        self.0
    }

    /// Looks at a record once.
    pub(crate) fn make(
        &mut self,
        place: Place,
        kind: Kind,
        plan: &Plan,
        dice: &mut Dice,
        witness: &mut Witness,
    ) -> Made {
        match kind {
            Kind::Broken => return Made::Bad,
            Kind::Filtered => return Made::Filtered,
            Kind::Good | Kind::Refused | Kind::Fickle => {}
        }
        let attempt = self.next();
        let tables = (place.partition % plan.topics) * 2;
        let of_the_record = || {
            let mixed = plan.seed ^ (place.partition as u64) << 40 ^ place.offset.unsigned_abs() << 8;
            Dice::seeded(mixed)
        };
        let mut own;
        let dice = match plan.guests {
            Guests::None => {
                let second = plan.wide && place.offset % 2 == 1;
                let table = tables + usize::from(second);
                return Made::Rows(vec![Row { place, attempt, number: 0, of: 1, table, kind }]);
            }
            Guests::Steady => {
                own = of_the_record();
                &mut own
            }
            Guests::Whimsical => dice,
        };
        let of = match dice.within(0, 99) {
            0..=11 => {
                witness.count(Happening::GuestFilter);
                return Made::Filtered;
            }
            12..=19 => {
                witness.count(Happening::GuestFailure);
                return Made::Bad;
            }
            _ => dice.within(1, MOST_ROWS),
        };
        if of > 1 {
            witness.count(Happening::Several);
        }
        // Of the rows of a record that the sink does not like it is one, or all.
        let odd = dice.within(0, of - 1);
        let all_odd = dice.percent(25);
        let rows = (0..of).map(|number| Row {
            place,
            attempt,
            number,
            of,
            table: tables + usize::from(dice.percent(40)),
            kind: if number == odd || all_odd { kind } else { Kind::Good },
        });
        Made::Rows(rows.collect())
    }
}
