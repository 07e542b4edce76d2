//! Whole applications in one thread, driven by one seed: the real stream threads, tasks, commits, restores and members, on
//! the embedded cluster, by a clock that only moves when the simulation says so.
//!
//! ```text
//!   seed ──> world      what happens next: a step of some thread, a record, time, a crash, a full disk, another leader
//!       \──> network    what each call of the cluster comes to: an error, an outcome that nobody hears of, a long sleep
//!       \──> line       what becomes of each request to the group's coordinator: lost, done and not answered, late, twice
//!   after every step
//!            oracle     output is what one thread would have written; each store is what its changelog was at its offset
//!            ranges     what commits cover of each input follows upon each other
//!   at the end, without faults, everything is processed in bounded time and no transaction is open
//! ```
//!
//! The disk is a model as well (`state/simulated_disk`): a crash leaves of each store what was flushed, or something later.
//!
//! Every run of the tests tries the same seeds. `KSTREAMS_SEEDS=5000` tries that many, `KSTREAMS_SEED=7` one of them again,
//! with `RUST_LOG=kstreams=debug` and `--nocapture` telling what happens.
//!
//! It is no test of the crate's surface and does not lie in `tests/`: it makes, steps and drops the private parts of a
//! process one by one, which nobody else can be allowed to do.

mod control;
mod flaw;
mod line;
mod network;
mod oracle;
mod process;
mod random;
mod ranges;
mod scenario;
mod shared;
mod world;

use std::collections::BTreeSet;
use std::panic::catch_unwind;

use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::FormatTime;

use scenario::Scenario;
use world::{FORGETS, Trace, World};

use super::clock::simulated;

/// Of each scenario, in every run of the tests.
const SEEDS: u64 = 60;

/// What has to happen in some seed of each scenario.
const FAULTS: [&str; 27] = [
    "a clock jumps",
    "a disk is full",
    "a later build takes part",
    "a process closes",
    "a process crashes",
    "a process crashes at applied-one",
    "a process crashes at committed",
    "a process crashes at confirmed",
    "a process crashes at drained",
    "a process crashes at offsets-sent",
    "a process is cut off",
    "a process hands over",
    "a process pauses past its session",
    "a process stands still in a call",
    "a request arrives twice",
    "a session ends",
    "a standby is warm",
    "a removed thread has ended",
    "a thread does not come back and is given up",
    "a thread is added",
    "a thread is removed",
    "a thread stands still in a call",
    "a thread that was given up is back",
    "everything is down for long",
    "logs are compacted",
    "the coordinator moves",
    "the start of a changelog moves",
];

/// The same, with transactions.
const OF_TRANSACTIONS: [&str; 8] = [
    "Commit fails with Aborted, done: No",
    "Commit fails with Unavailable, done: No",
    "Commit fails with Unavailable, done: Yes",
    "SendOffsets fails with Unavailable, done: Yes",
    "a dead process is fenced",
    "a late end is refused",
    "a leader loses records",
    "late offsets arrive",
];

/// The same, without.
const OF_COMMITTED_OFFSETS: [&str; 5] = [
    "CommitOffsets fails with Unavailable, done: No",
    "CommitOffsets fails with Unavailable, done: Yes",
    "a late commit arrives",
    "a late commit is refused",
    "a record is not delivered",
];

fn run(seed: u64, scenario: Scenario) -> Trace {
    log();
    eprintln!("{scenario:?}, seed {seed}");
    World::new(seed, scenario, None).run()
}

/// Tells what happens, at what virtual time.
struct VirtualTime;

impl FormatTime for VirtualTime {
    fn format_time(&self, to: &mut Writer<'_>) -> std::fmt::Result {
        write!(to, "{:>6}", simulated::wall_ms())
    }
}

/// With `RUST_LOG`, as in `RUST_LOG=kstreams=debug`, a run says what happens in it.
fn log() {
    if let Ok(filter) = tracing_subscriber::EnvFilter::try_from_default_env() {
        let logged = tracing_subscriber::fmt().with_env_filter(filter).with_timer(VirtualTime).with_target(false);
        // Another test of this process may have done it.
        let _ = logged.with_ansi(false).with_test_writer().try_init();
    }
}

fn seeds(by_default: u64) -> std::ops::Range<u64> {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    match (number("KSTREAMS_SEED"), number("KSTREAMS_SEEDS")) {
        (Some(seed), _) => seed..seed + 1,
        (None, Some(count)) => 0..count,
        (None, None) => 0..by_default,
    }
}

/// Tries on after a seed has failed: what fails together is one mistake.
fn try_all(scenario: Scenario) {
    let (mut failed, mut happened) = (Vec::new(), BTreeSet::new());
    for seed in seeds(SEEDS) {
        match catch_unwind(|| run(seed, scenario)) {
            Ok(trace) => happened.extend(trace.happened),
            Err(_) => failed.push(seed),
        }
    }
    assert!(failed.is_empty(), "{scenario:?} goes wrong with KSTREAMS_SEED={failed:?}");
    let of_guarantee: &[&str] = if scenario.is_exactly_once() { &OF_TRANSACTIONS } else { &OF_COMMITTED_OFFSETS };
    let of_windows: &[&str] = if scenario == Scenario::Windows { &[FORGETS] } else { &[] };
    let expected = FAULTS.iter().chain(of_guarantee).chain(of_windows);
    let expected = expected.filter(|what| scenario.may_jump() || **what != "a clock jumps");
    let missing: Vec<_> = expected.filter(|what| !happened.contains(**what)).collect();
    assert!(seeds(SEEDS).count() < 60 || missing.is_empty(), "never happens in {scenario:?}: {missing:?}");
}

#[test]
fn every_record_counts_once_whatever_happens() {
    try_all(Scenario::Counts);
}

#[test]
fn every_record_counts_once_behind_a_repartition() {
    try_all(Scenario::Repartition);
}

#[test]
fn deleted_rows_stay_deleted_whatever_happens() {
    try_all(Scenario::Deletions);
}

#[test]
fn every_window_counts_what_was_in_time_whatever_happens() {
    try_all(Scenario::Windows);
}

#[test]
fn every_record_counts_at_least_once_whatever_happens() {
    try_all(Scenario::AtLeastOnce);
}

#[test]
fn the_same_seed_runs_the_same_way() {
    for seed in seeds(3) {
        assert_eq!(run(seed, Scenario::Repartition), run(seed, Scenario::Repartition), "seed {seed}");
    }
}
