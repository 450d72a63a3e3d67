//! What the seed decides before anything happens.

use crate::dice::Dice;
use crate::planted::Bug;

/// The protocol under test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    AtLeastOnce,
    OffsetsInSink,
    TwoPhase,
}

impl Protocol {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::AtLeastOnce => "at least once",
            Self::OffsetsInSink => "offsets in the sink",
            Self::TwoPhase => "two phases",
        }
    }
}

/// How rough a world is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mood {
    /// Members only come and go in order: not even at-least-once may repeat a row.
    Gentle,
    Wild,
    /// Faults come three times as often.
    Stormy,
}

/// Whether records pass through a transform, and what it is like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Guests {
    None,
    /// A record becomes the same whenever it is looked at.
    Steady,
    /// A record becomes something else every time.
    Whimsical,
}

/// One world.
#[derive(Clone, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is thrown by itself")]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    pub(crate) protocol: Protocol,
    pub(crate) bug: Option<Bug>,
    pub(crate) mood: Mood,
    /// Steps before the calm.
    pub(crate) steps: u64,
    pub(crate) partitions: usize,
    /// Partition `p` is one of topic `p % topics`, and rows of a topic share batches.
    pub(crate) topics: usize,
    pub(crate) processes: usize,
    pub(crate) lanes: usize,
    pub(crate) in_flight: usize,
    pub(crate) batch_rows: usize,
    /// The group revokes everything at every rebalance.
    pub(crate) eager: bool,
    /// The client joins again before the program has heard that it was dropped, as with KIP-848; else the revocation
    /// may come without the mark that the membership is gone, as in the classic protocol.
    pub(crate) rejoins_early: bool,
    /// The table has a unique key.
    pub(crate) unique: bool,
    /// The records of a topic go to two tables.
    pub(crate) wide: bool,
    pub(crate) guests: Guests,
}

impl Plan {
    pub(crate) fn thrown(seed: u64, protocol: Protocol, bug: Option<Bug>) -> (Self, Dice) {
        let mut dice = Dice::seeded(seed);
        let mood = match dice.within(0, 9) {
            0 | 1 => Mood::Gentle,
            2..=6 => Mood::Wild,
            _ => Mood::Stormy,
        };
        let exactly = protocol == Protocol::OffsetsInSink;
        let mut plan = Self {
            seed,
            protocol,
            bug,
            mood,
            steps: dice.within(150, 1_200),
            partitions: 1 + dice.index(4),
            topics: 1 + dice.index(2),
            processes: 1 + dice.index(3),
            lanes: 1 + dice.index(2),
            in_flight: if exactly { 1 } else { 1 + dice.index(3) },
            batch_rows: 1 + dice.index(5),
            eager: dice.percent(30),
            rejoins_early: dice.percent(50),
            unique: exactly && dice.percent(40),
            wide: protocol == Protocol::TwoPhase && dice.percent(40),
            guests: match dice.within(0, 9) {
                0..=4 => Guests::None,
                5 | 6 => Guests::Steady,
                _ => Guests::Whimsical,
            },
        };
        // Transforms route to two tables in every protocol.
        plan.wide |= plan.transforms();
        (plan, dice)
    }

    /// Whether records pass through a transform.
    pub(crate) fn transforms(&self) -> bool {
        self.guests != Guests::None
    }

    pub(crate) fn has(&self, bug: Bug) -> bool {
        self.bug == Some(bug)
    }
}
