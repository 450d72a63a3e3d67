//! What happened in a world: the story in plain words, what went wrong, and how often the hard cases came.

use std::fmt::Write as _;

/// Faults that are noted; one is enough to condemn a world.
const MOST_FAULTS: usize = 8;

/// Something worth counting, so that one sees that the hard cases really occur.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Happening {
    Crash,
    CrashInCommit,
    Freeze,
    ZombieWakes,
    Stop,
    Rebalance,
    MembershipLost,
    DrainGivenUp,
    LostReply,
    LateReply,
    CommitRefused,
    Cut,
    DatabaseRestart,
    InDoubt,
    DoubtWritten,
    DoubtNotWritten,
    DoubtElsewhere,
    Fenced,
    TakeOver,
    LockWait,
    Terminated,
    Rejected,
    KeyTaken,
    DeadLetter,
    Repeated,
    ForeignReset,
    HandEdit,
    CommitUnanswered,
    CommitFound,
    Rejoin,
    CommitOvertaken,
    StreamRestart,
    AlreadyStored,
    OutOfRange,
    LateAppend,
    PublishedForOthers,
    StreamExpired,
    TableDropped,
    StopForeign,
    StopStale,
    StopLost,
    WayOutPartial,
    Several,
    GuestFilter,
    GuestFailure,
    OtherOutcome,
    SiblingsTaken,
    SiblingsStored,
}

impl Happening {
    pub(crate) const ALL: [(Self, &'static str); 48] = [
        (Self::Crash, "crashes"),
        (Self::CrashInCommit, "crashes in mid-commit"),
        (Self::Freeze, "freezes"),
        (Self::ZombieWakes, "zombies that wake up"),
        (Self::Stop, "orderly stops"),
        (Self::Rebalance, "rebalances"),
        (Self::MembershipLost, "memberships lost"),
        (Self::DrainGivenUp, "drains given up"),
        (Self::LostReply, "lost requests and replies"),
        (Self::LateReply, "commits served late"),
        (Self::CommitRefused, "commits refused"),
        (Self::Cut, "connections cut"),
        (Self::DatabaseRestart, "database restarts"),
        (Self::InDoubt, "commits in doubt"),
        (Self::DoubtWritten, "of them durable"),
        (Self::DoubtNotWritten, "of them not"),
        (Self::DoubtElsewhere, "of them overtaken"),
        (Self::Fenced, "transactions fenced"),
        (Self::TakeOver, "take-overs"),
        (Self::LockWait, "waits for a lock"),
        (Self::Terminated, "sessions ended"),
        (Self::Rejected, "flushes with refused rows"),
        (Self::KeyTaken, "of them by keys that a new owner has written"),
        (Self::DeadLetter, "dead letters"),
        (Self::Repeated, "repeated rows"),
        (Self::ForeignReset, "foreign resets of the group"),
        (Self::HandEdit, "positions edited by hand"),
        (Self::CommitUnanswered, "commits never answered"),
        (Self::CommitFound, "of them found stored"),
        (Self::Rejoin, "memberships renewed because of them"),
        (Self::CommitOvertaken, "commits stored after later ones"),
        (Self::StreamRestart, "partitions started anew with other streams"),
        (Self::AlreadyStored, "appends that were there already"),
        (Self::OutOfRange, "appends behind the end"),
        (Self::LateAppend, "appends stored for nobody"),
        (Self::PublishedForOthers, "publications of what others had committed"),
        (Self::StreamExpired, "streams expired"),
        (Self::TableDropped, "tables dropped"),
        (Self::StopForeign, "stops at a position of another tool"),
        (Self::StopStale, "stops at a commit that came late"),
        (Self::StopLost, "stops at rows that may be lost"),
        (Self::WayOutPartial, "ways out that could not be exact"),
        (Self::Several, "records that became several rows"),
        (Self::GuestFilter, "records filtered by a transform"),
        (Self::GuestFailure, "records at which a transform failed"),
        (Self::OtherOutcome, "records written again with another number of rows"),
        (Self::SiblingsTaken, "refusals that took other rows of a record along"),
        (Self::SiblingsStored, "of them rows that were in streams already"),
    ];
}

/// How often everything happened.
#[derive(Clone, Debug)]
pub(crate) struct Tally([u64; Happening::ALL.len()]);

impl Default for Tally {
    fn default() -> Self {
        Self([0; Happening::ALL.len()])
    }
}

impl Tally {
    pub(crate) fn of(&self, happening: Happening) -> u64 {
        self.0[happening as usize]
    }

    pub(crate) fn add(&mut self, other: &Self) {
        for (sum, number) in self.0.iter_mut().zip(other.0) {
            *sum += number;
        }
    }

    /// One line with everything that happened at all.
    pub(crate) fn line(&self) -> String {
        let parts: Vec<String> = Happening::ALL
            .iter()
            .filter(|(happening, _)| self.of(*happening) > 0)
            .map(|(happening, name)| format!("{} {name}", self.of(*happening)))
            .collect();
        parts.join(", ")
    }
}

/// Sees everything in a world.
#[derive(Default)]
pub(crate) struct Witness {
    /// Events in order, where a story is wanted.
    story: Option<String>,
    faults: Vec<String>,
    pub(crate) tally: Tally,
    pub(crate) step: u64,
}

impl Witness {
    pub(crate) fn new(with_story: bool) -> Self {
        Self { story: with_story.then(String::new), ..Self::default() }
    }

    pub(crate) fn tell(&mut self, line: impl FnOnce() -> String) {
        if let Some(story) = &mut self.story {
            // Writing to a String cannot fail.
            let _ = writeln!(story, "{:6}  {}", self.step, line());
        }
    }

    pub(crate) fn count(&mut self, happening: Happening) {
        self.tally.0[happening as usize] += 1;
    }

    pub(crate) fn fault(&mut self, what: String) {
        self.tell(|| format!("WRONG: {what}"));
        if self.faults.len() < MOST_FAULTS {
            self.faults.push(what);
        }
    }

    pub(crate) fn faults(&self) -> &[String] {
        &self.faults
    }

    pub(crate) fn story(&self) -> &str {
        self.story.as_deref().unwrap_or_default()
    }
}
