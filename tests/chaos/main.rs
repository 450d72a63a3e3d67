//! Chaos: processes are killed, frozen and asked to end while records flow, the sink fails and the broker restarts,
//! and nothing may be lost.
//!
//! `./dev chaos` runs many rounds; a short one runs with the other tests. See docs/chaos.md.
#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stderr,
    reason = "clippy.toml allows it in tests, but not in what they call"
)]

mod dice;
mod kafka;
mod plan;
#[path = "../postgres/mod.rs"]
mod postgres;
mod process;
#[path = "../proxy/mod.rs"]
mod proxy;
mod records;
mod servers;
mod sink;
mod storm;
mod traffic;
mod verdict;
mod versions;

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use dice::mixed;
use kafka::Cluster;
use plan::{IntoPostgres, Mood, Plan, Protocol, Road, Sinks, Target, Way, Write};
use storm::{Step, Storm};
use verdict::Verdict;

/// The longest that a round of `./dev chaos` lasts before the members are asked to end.
const LONGEST: Duration = Duration::from_secs(75);

#[test]
fn a_short_storm_loses_no_record() {
    let Some(cluster) = Cluster::of_the_tests() else { return };
    // The broker is other tests' too, so it is left alone.
    let thrown = Plan::thrown(1, 3, Duration::from_secs(20), false, Sinks::BigQuery(Some(Way::InsertAll)));
    let plan = Plan { mood: Mood::Wild, protocol: Protocol::CooperativeSticky, rate: 2_000, ..thrown };
    let verdict = Storm::new(&cluster, plan, false).run();
    assert!(!verdict.is_guilty(), "{}", verdict.report());
    eprintln!("{}", verdict.figures());
}

#[test]
fn a_short_storm_into_write_streams_loses_no_record_and_doubles_none() {
    let Some(cluster) = Cluster::of_the_tests() else { return };
    let sinks = Sinks::BigQuery(Some(Way::TwoPhase));
    let thrown = Plan::thrown(5, 3, Duration::from_secs(12), false, sinks);
    let plan = Plan { mood: Mood::Wild, protocol: Protocol::CooperativeSticky, rate: 2_000, ..thrown };
    let verdict = Storm::new(&cluster, plan, false).run();
    assert!(!verdict.is_guilty(), "{}", verdict.report());
    eprintln!("{}", verdict.figures());
}

#[test]
fn a_short_storm_into_postgres_loses_no_record_and_doubles_none() {
    let Some(cluster) = Cluster::of_the_tests() else { return };
    // The database is other tests' too, so only the way to it fails.
    let thrown = Plan::thrown(3, 4, Duration::from_secs(15), false, Sinks::Postgres);
    let setting = IntoPostgres {
        write: Write::Append,
        exactly_once: true,
        tables_are_there: true,
        unique_ids: false,
        road: Road::Straight,
    };
    let plan = Plan {
        mood: Mood::Wild,
        target: Target::Postgres(setting),
        protocol: Protocol::Consumer,
        rate: 2_000,
        ..thrown
    };
    let verdict = Storm::new(&cluster, plan, false).run();
    assert!(!verdict.is_guilty(), "{}", verdict.report());
    eprintln!("{}", verdict.figures());
}

/// A member is frozen past its session while the sink takes nothing. Its partition comes back to it, and its lane still
/// has records of the time before.
#[test]
fn a_partition_that_comes_back_starts_at_its_position() {
    let Some(cluster) = Cluster::of_the_tests() else { return };
    let seconds = |number| Step::Wait(Duration::from_secs(number));
    // There is a backlog when the member comes; a session lasts 6 s.
    let outage = [seconds(3), Step::SinkOff, Step::Join, seconds(4)];
    let absence = [Step::Freeze, seconds(8), Step::Thaw, seconds(5), Step::SinkOn, seconds(3)];
    let steps = [&outage[..], &absence].concat();
    let round = |sinks| {
        let plan = Plan {
            mood: Mood::Wild,
            protocol: Protocol::CooperativeSticky,
            topics: 1,
            partitions: 1,
            members: 0,
            lanes: 1,
            in_flight: 1,
            rate: 2_000,
            rows: 50,
            ..Plan::thrown(2, 0, Duration::ZERO, false, sinks)
        };
        let verdict = Storm::new(&cluster, plan, false).play(&steps);
        assert!(!verdict.is_guilty(), "{}", verdict.report());
    };
    // They wait most of the time.
    std::thread::scope(|scope| {
        let ways = [Way::InsertAll, Way::TwoPhase].map(|way| Sinks::BigQuery(Some(way)));
        for sinks in ways.into_iter().chain([Sinks::Stdout, Sinks::Postgres]) {
            scope.spawn(move || round(sinks));
        }
    });
}

/// What came of the rounds of one kind.
#[derive(Default)]
struct Totals {
    rounds: u64,
    kills: u64,
    records: u64,
    rows: u64,
    repeated: u64,
    lost: u64,
    letters: u64,
    clean: usize,
}

impl Totals {
    fn add(&mut self, verdict: &Verdict) {
        self.rounds += 1;
        self.kills += verdict.kills;
        self.records += verdict.produced;
        self.rows += verdict.rows;
        self.repeated += verdict.repeated;
        self.lost += verdict.lost;
        self.letters += verdict.dead_letters;
        self.clean += verdict.clean_runs;
    }
}

impl fmt::Display for Totals {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            out,
            "{} rounds, {} kills, {} records, {} lost, {} rows ({} repeated), {} dead letters, {} clean runs with \
             balanced books",
            self.rounds,
            self.kills,
            self.records,
            self.lost,
            self.rows,
            self.repeated,
            self.letters,
            self.clean
        )
    }
}

/// What `./dev chaos` runs: rounds until there were enough kills.
#[test]
#[ignore = "takes long and restarts the servers: ./dev chaos"]
fn many_storms_lose_no_record() {
    let Some(cluster) = Cluster::of_the_tests() else { return };
    let number = |name: &str| {
        let value = std::env::var(name).ok()?;
        Some(value.parse::<u64>().unwrap_or_else(|_| panic!("{name} is not a number: {value}")))
    };
    let wanted = number("CHAOS_KILLS").unwrap_or(60);
    let seed = number("CHAOS_SEED").unwrap_or_else(|| u64::from(std::process::id()));
    let rounds = number("CHAOS_ROUNDS").unwrap_or(u64::MAX);
    let servers = number("CHAOS_SERVERS") != Some(0);
    let sinks = std::env::var("CHAOS_SINK").unwrap_or_else(|_| "all".to_owned());
    let mut sinks = Sinks::named(&sinks).unwrap_or_else(|| panic!("CHAOS_SINK names no sink: {sinks}"));
    if let Ok(way) = std::env::var("CHAOS_WAY") {
        let way = Way::named(&way).unwrap_or_else(|| panic!("CHAOS_WAY names no way into BigQuery: {way}"));
        sinks = Sinks::BigQuery(Some(way));
    }
    let (mut kills, mut failed) = (0, Vec::new());
    let mut complaints: BTreeMap<String, usize> = BTreeMap::new();
    let (mut all, mut exact) = (Totals::default(), Totals::default());
    let mut classes: BTreeMap<&str, Totals> = BTreeMap::new();
    let mut round = 0;
    while kills < wanted && round < rounds {
        // The first round has the seed that was given, so that a round can be run again by its own seed.
        let own = if round == 0 { seed } else { mixed(seed.wrapping_add(round)) % 1_000_000 };
        round += 1;
        let plan = Plan::thrown(own, (wanted - kills).min(12), LONGEST, servers, sinks);
        let verdict = Storm::new(&cluster, plan, true).run();
        eprintln!("round {round}, seed {own}: {}\n", verdict.figures());
        kills += verdict.kills;
        all.add(&verdict);
        if verdict.plan.target.is_exactly_once() {
            exact.add(&verdict);
        }
        classes.entry(verdict.plan.target.class()).or_default().add(&verdict);
        for (complaint, count) in &verdict.complaints {
            *complaints.entry(complaint.clone()).or_default() += count;
        }
        if verdict.is_guilty() {
            eprintln!("{}", verdict.report());
            failed.push(own);
        }
    }
    for (complaint, count) in &complaints {
        eprintln!("{count:6} × {complaint}");
    }
    for (class, totals) in &classes {
        eprintln!("{class}: {totals}");
    }
    eprintln!("{all}, {} rounds went wrong", failed.len());
    eprintln!(
        "of these exactly once: {} rounds, {} kills, {} rows, {} doubled",
        exact.rounds, exact.kills, exact.rows, exact.repeated
    );
    assert!(failed.is_empty(), "run a round again with ./dev chaos --seed SEED --rounds 1: {failed:?}");
}
