//! Delivery in a simulated world: the state machines of `txconnect::delivery`, driven by a runtime that does what
//! `src/pipeline` does, against models of a Kafka group, a PostgreSQL, write streams and a dead letter topic.
//!
//! A seed decides everything that happens: which thread moves next, who dies, what arrives late or not at all. See
//! docs/delivery.md. `./dev chaos --simulate --seeds N` runs many seeds.
#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stderr,
    reason = "clippy.toml allows it in tests, but not in what they call"
)]

mod appends;
mod database;
mod dice;
mod group;
mod inheritance;
mod lane;
mod letters;
mod plan;
mod planted;
mod process;
mod publisher;
mod source;
mod streams;
mod transform;
mod truth;
mod witness;
mod world;
mod writer;

use plan::Protocol;
use planted::Bug;
use witness::{Happening, Tally};
use world::World;

/// Worlds of each protocol in a run of all tests.
const WORLDS: u64 = 2_500;
/// A planted bug must be found within so many worlds; most are within a hundred.
const WORLDS_FOR_A_BUG: u64 = 20_000;

/// Lives through worlds one after the other; panics with the story of the first that goes wrong.
fn run(protocol: Protocol, seeds: impl Iterator<Item = u64>) -> Tally {
    let mut tally = Tally::default();
    for seed in seeds {
        let verdict = World::run(seed, protocol, None, false);
        assert!(!verdict.is_guilty(), "{}", verdict.report());
        tally.add(&verdict.witness.tally);
    }
    tally
}

/// A simulation in which the hard cases never come proves nothing.
fn assert_hard_cases(tally: &Tally, expected: &[Happening]) {
    for happening in expected {
        assert!(tally.of(*happening) >= 5, "{happening:?} came only {} times", tally.of(*happening));
    }
}

#[test]
fn at_least_once_loses_nothing_and_repeats_only_after_faults() {
    use Happening::{
        CommitRefused, Crash, Cut, DatabaseRestart, DeadLetter, DrainGivenUp, ForeignReset, GuestFailure,
        GuestFilter, LateReply, LostReply, MembershipLost, OtherOutcome, Rejected, Repeated, Several,
        SiblingsTaken, Stop, ZombieWakes,
    };
    let tally = run(Protocol::AtLeastOnce, 1..=WORLDS);
    assert_hard_cases(
        &tally,
        &[
            CommitRefused,
            Crash,
            Cut,
            DatabaseRestart,
            DeadLetter,
            DrainGivenUp,
            ForeignReset,
            GuestFailure,
            GuestFilter,
            LateReply,
            LostReply,
            MembershipLost,
            OtherOutcome,
            Rejected,
            Repeated,
            Several,
            SiblingsTaken,
            Stop,
            ZombieWakes,
        ],
    );
}

#[test]
fn offsets_in_the_sink_lose_nothing_and_double_nothing() {
    use Happening::{
        Crash, CrashInCommit, Cut, DatabaseRestart, DeadLetter, DoubtElsewhere, DoubtNotWritten,
        DoubtWritten, DrainGivenUp, Fenced, ForeignReset, GuestFailure, GuestFilter, HandEdit, InDoubt,
        LockWait, MembershipLost, Rejected, Several, SiblingsTaken, Stop, TakeOver, Terminated, ZombieWakes,
    };
    let tally = run(Protocol::OffsetsInSink, 1..=WORLDS);
    assert_hard_cases(
        &tally,
        &[
            Crash,
            CrashInCommit,
            Cut,
            DatabaseRestart,
            DeadLetter,
            DoubtNotWritten,
            DoubtWritten,
            DrainGivenUp,
            Fenced,
            ForeignReset,
            GuestFailure,
            GuestFilter,
            HandEdit,
            InDoubt,
            LockWait,
            MembershipLost,
            Rejected,
            Several,
            SiblingsTaken,
            Stop,
            TakeOver,
            Terminated,
            ZombieWakes,
        ],
    );
    assert!(tally.of(DoubtElsewhere) > 0, "nobody has overtaken a commit in doubt");
}

#[test]
fn two_phases_lose_nothing_and_double_nothing() {
    use Happening::{
        AlreadyStored, CommitFound, CommitRefused, CommitUnanswered, Crash, CrashInCommit, Cut,
        DatabaseRestart, DeadLetter, DrainGivenUp, Freeze, GuestFailure, GuestFilter, LateAppend, LateReply,
        MembershipLost, OutOfRange, PublishedForOthers, Rejected, Rejoin, Several, SiblingsStored,
        SiblingsTaken, Stop, StopForeign, StopLost, StopStale, StreamExpired, StreamRestart, TableDropped,
        ZombieWakes,
    };
    let tally = run(Protocol::TwoPhase, 1..=WORLDS);
    assert_hard_cases(
        &tally,
        &[
            AlreadyStored,
            CommitFound,
            CommitRefused,
            CommitUnanswered,
            Crash,
            CrashInCommit,
            Cut,
            DatabaseRestart,
            DeadLetter,
            DrainGivenUp,
            Freeze,
            GuestFailure,
            GuestFilter,
            LateAppend,
            LateReply,
            MembershipLost,
            OutOfRange,
            PublishedForOthers,
            Rejected,
            Rejoin,
            Several,
            SiblingsStored,
            SiblingsTaken,
            Stop,
            StopForeign,
            StopLost,
            StreamExpired,
            StreamRestart,
            TableDropped,
            ZombieWakes,
        ],
    );
    // A new membership keeps late commits out, so nobody ever reads one.
    assert_eq!(tally.of(StopStale), 0);
}

#[test]
fn every_planted_bug_is_found() {
    let mut missed = Vec::new();
    for (bug, protocol, name) in Bug::ALL {
        let name = format!("{}, {name}", protocol.name());
        let found = (1..=WORLDS_FOR_A_BUG)
            .map(|seed| World::run(seed, protocol, Some(bug), false))
            .find(world::Verdict::is_guilty);
        match found {
            None => missed.push(name),
            Some(verdict) => {
                let faults = verdict.faults();
                eprintln!(
                    "{name}: found by seed {}: {}",
                    verdict.seed,
                    faults.first().map_or("", String::as_str)
                );
            }
        }
    }
    assert!(missed.is_empty(), "not found in {WORLDS_FOR_A_BUG} worlds: {missed:#?}");
}

#[test]
fn a_seed_tells_the_same_story_again() {
    for seed in 1..20 {
        let story = || {
            let verdict = World::run(seed, Protocol::OffsetsInSink, None, true);
            verdict.witness.story().to_owned()
        };
        let told = story();
        assert!(!told.is_empty());
        assert_eq!(told, story());
    }
}

/// What `./dev chaos --simulate` runs.
#[test]
#[ignore = "as long as one likes: ./dev chaos --simulate --seeds N"]
fn many_worlds() {
    let number = |name: &str| {
        let value = std::env::var(name).ok()?;
        Some(value.parse::<u64>().unwrap_or_else(|_| panic!("{name} is not a number: {value}")))
    };
    let seeds = number("SIMULATION_SEEDS").unwrap_or(100_000);
    let first = number("SIMULATION_SEED").unwrap_or(1);
    for protocol in [Protocol::AtLeastOnce, Protocol::OffsetsInSink, Protocol::TwoPhase] {
        let name = protocol.name();
        let tally = run(protocol, first..first.saturating_add(seeds));
        eprintln!("{name}: {seeds} seeds from {first}, none went wrong: {}", tally.line());
    }
}
