//! Whole applications in one thread, driven by one seed: the real stream threads, tasks, commits and restores, on the
//! embedded cluster, by a clock that only moves when the simulation says so.
//!
//! ```text
//!   seed ──> what happens next: a step of some thread, a record, time, a crash, a pause, a close, a start
//!       \──> what each call of the cluster comes to: an error, an outcome that nobody hears of, a long sleep inside of it
//!       \──> what becomes of each request to the group's coordinator: lost, done and not answered, answered late
//!   after every few steps and at the end: what is committed is what one thread without faults would have written
//! ```
//!
//! Few seeds by default, since every run of the tests pays for them: `KSTREAMS_SEEDS=5000` runs that many, `KSTREAMS_SEED=7`
//! one of them again.

mod line;
mod process;
mod random;

use std::collections::BTreeMap;
use std::panic::catch_unwind;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use process::Process;
use random::Random;

use super::clock::simulated;
use super::tests::{Call, Done, Faulty, Flaw, counts};
use crate::client::embedded::EmbeddedCluster;
use crate::client::{Cluster, ConsumerSpec, Isolation};
use crate::membership::LeaveMode;
use crate::record::TopicPartition;
use crate::{Consumed, ErrorKind, Grouped, I64, Materialized, Produced, StreamsBuilder, Topology, Utf8};

const KEYS: [&str; 5] = ["a", "b", "c", "d", "e"];
const PARTITIONS: i32 = 3;
const PROCESSES: usize = 3;

/// What happens before the faults end.
const EVENTS: usize = 2_500;

/// Virtual time after the faults, until everything has to be processed.
const LIVENESS: Duration = Duration::from_secs(120);

/// What every process, and every call, shares.
pub(super) struct Shared {
    pub(super) cluster: EmbeddedCluster,
    pub(super) topology: Topology,
    /// Of each task: every second seed has one.
    pub(super) standbys: usize,
    random: Mutex<Random>,
    /// Whether calls may fail.
    is_stormy: AtomicBool,
    /// Who hears nothing of the cluster, and until when.
    cut_off: Mutex<BTreeMap<String, i64>>,
    /// What is broken on purpose.
    flaw: Option<Flaw>,
}

impl Shared {
    /// The one source of chance.
    pub(super) fn below(&self, bound: u64) -> u64 {
        self.random.lock().unwrap().below(bound)
    }

    pub(super) fn one_in(&self, bound: u64) -> bool {
        self.below(bound) == 0
    }

    pub(super) fn is_stormy(&self) -> bool {
        self.is_stormy.load(Ordering::Relaxed)
    }

    fn pass(&self, time: Duration) {
        simulated::advance(time);
        self.cluster.advance(time).unwrap();
    }

    /// The cluster as one process finds it.
    pub(super) fn network(self: &Arc<Shared>, process: &str) -> Faulty {
        let (shared, process) = (Arc::clone(self), process.to_owned());
        Faulty::in_weather(self.cluster.clone(), Arc::new(move |call| shared.weather(call, &process)), self.flaw)
    }

    fn weather(&self, call: Call, process: &str) -> Option<(Done, ErrorKind)> {
        use ErrorKind::{Aborted, Fenced, Unavailable};
        if !self.is_stormy() {
            return None;
        }
        // Records are fetched and sent all the time, and what decides a commit is called seldom.
        let is_frequent = matches!(call, Call::Fetch | Call::Send | Call::Begin);
        let rarity = if is_frequent { 200 } else { 25 };
        if self.one_in(2 * rarity) {
            self.sleep(process);
        }
        if self.one_in(2 * rarity) {
            self.cut_off(process, Duration::from_millis(self.below(1_000)));
        }
        if self.is_cut_off(process) {
            // What it has asked for may be done all the same.
            let is_done = matches!(call, Call::SendOffsets | Call::Commit | Call::Abort | Call::CommitOffsets);
            let done = if is_done && self.one_in(2) { Done::Yes } else { Done::No };
            return (call != Call::Watermarks).then_some((done, Unavailable));
        }
        if !self.one_in(rarity) {
            return None;
        }
        let kinds: &[(Done, ErrorKind)] = match call {
            Call::Init | Call::Committed => &[(Done::No, Unavailable)],
            Call::Begin | Call::Send | Call::Confirm => {
                &[(Done::No, Aborted), (Done::No, Fenced), (Done::No, Unavailable)]
            }
            Call::SendOffsets => {
                &[(Done::No, Aborted), (Done::No, Fenced), (Done::No, Unavailable), (Done::Yes, Unavailable)]
            }
            Call::Commit => {
                &[(Done::No, Aborted), (Done::No, Unavailable), (Done::Yes, Unavailable), (Done::Yes, Fenced)]
            }
            Call::Abort => &[(Done::No, Fenced), (Done::No, Unavailable), (Done::Yes, Unavailable)],
            Call::CommitOffsets => &[(Done::No, Unavailable), (Done::Yes, Unavailable)],
            Call::Fetch => &[(Done::No, Unavailable)],
            Call::Watermarks => return None,
        };
        let which = self.below(kinds.len() as u64);
        kinds.get(usize::try_from(which).unwrap()).copied()
    }

    pub(super) fn is_cut_off(&self, process: &str) -> bool {
        let until = self.cut_off.lock().unwrap().get(process).copied();
        until.is_some_and(|until| self.cluster.now().unwrap() < until)
    }

    pub(super) fn cut_off(&self, process: &str, time: Duration) {
        let until = self.cluster.now().unwrap() + i64::try_from(time.as_millis()).unwrap();
        self.cut_off.lock().unwrap().insert(process.to_owned(), until);
    }

    /// Every call of this goes well.
    pub(super) fn calmly<T>(&self, work: impl FnOnce() -> T) -> T {
        let before = self.is_stormy.swap(false, Ordering::Relaxed);
        let done = work();
        self.is_stormy.store(before, Ordering::Relaxed);
        done
    }

    /// A process stands still in the middle of a call: its transactions may time out, and its members may be thrown out.
    fn sleep(&self, process: &str) {
        self.pass(Duration::from_millis(self.below(3_000)));
        if self.one_in(2) {
            self.expire_members(process);
        }
    }

    pub(super) fn expire_members(&self, process: &str) {
        for member in self.cluster.members("app").unwrap() {
            if member.contains(process) {
                self.cluster.expire_member("app", &member).unwrap();
            }
        }
    }
}

struct World {
    shared: Arc<Shared>,
    processes: Vec<Process>,
    /// Records of each key so far.
    written: BTreeMap<&'static str, i64>,
    /// The highest offset committed for each input.
    committed: BTreeMap<TopicPartition, i64>,
    _clock: simulated::Simulated,
}

/// What a run has left behind: the same for the same seed.
#[derive(Debug, PartialEq)]
struct Trace {
    records: Vec<crate::EmbeddedRecord>,
    now: i64,
}

impl World {
    fn new(seed: u64, topology: Topology, flaw: Option<Flaw>) -> World {
        let cluster = EmbeddedCluster::with_virtual_clock();
        for topic in ["in", "out"] {
            cluster.create_topic(topic, PARTITIONS).unwrap();
        }
        let (random, cut_off) = (Mutex::new(Random::new(seed)), Mutex::default());
        let is_stormy = AtomicBool::new(true);
        let shared =
            Arc::new(Shared { cluster, topology, standbys: (seed % 2) as usize, random, is_stormy, cut_off, flaw });
        let processes = (0..PROCESSES).map(|number| Process::new(Arc::clone(&shared), number)).collect();
        let (written, committed, clock) = (BTreeMap::new(), BTreeMap::new(), simulated::begin(0));
        World { shared, processes, written, committed, _clock: clock }
    }

    fn run(mut self) -> Trace {
        for event in 0..EVENTS {
            self.event();
            if event % 16 == 0 {
                self.check_what_is_committed();
            }
        }
        self.calm_down();
        self.check_the_end();
        let records = ["out", "in"].into_iter().chain(INTERNAL);
        let records = records.filter_map(|topic| self.shared.cluster.records(topic).ok()).flatten().collect();
        Trace { records, now: self.shared.cluster.now().unwrap() }
    }

    fn event(&mut self) {
        let shared = Arc::clone(&self.shared);
        let which = usize::try_from(shared.below(PROCESSES as u64)).unwrap();
        let Some(process) = self.processes.get_mut(which) else { return };
        match shared.below(1_000) {
            0..3 => process.crash(),
            3..4 => process.close(LeaveMode::Leave),
            4..6 => process.close(LeaveMode::Stay),
            6..9 => process.pause(Duration::from_millis(shared.below(8_000))),
            9..40 => process.start(),
            40..45 => process.cut_off(Duration::from_millis(shared.below(1_500))),
            45..200 => self.write(),
            200..350 => shared.pass(Duration::from_millis(shared.below(60))),
            _ => process.step(),
        }
    }

    fn write(&mut self) {
        let which = usize::try_from(self.shared.below(KEYS.len() as u64)).unwrap();
        let key = KEYS[which];
        self.shared.cluster.produce("in", Some(key.as_bytes()), Some(b"x"), None).unwrap();
        *self.written.entry(key).or_default() += 1;
    }

    /// Every count once and in order, and none of a record that was not written.
    fn check_what_is_committed(&mut self) {
        for (key, seen) in counts(&self.shared.cluster) {
            let written = self.written.get(key.as_str()).copied().unwrap_or(0);
            assert!(seen.len() as i64 <= written, "{key} was written {written} times and counted {seen:?}");
            assert_eq!(seen, (1..=seen.len() as i64).collect::<Vec<_>>(), "{key}");
        }
        for partition in (0..PARTITIONS).map(|number| TopicPartition::new("in", number)) {
            let Some(now) = self.shared.cluster.committed_offset("app", "in", partition.partition).unwrap() else {
                continue;
            };
            let before = self.committed.insert(partition.clone(), now).unwrap_or(0);
            assert!(before <= now, "the offset of {partition} went back from {before} to {now}");
        }
    }

    /// The faults end, every process runs: in bounded time everything is processed.
    fn calm_down(&mut self) {
        self.shared.is_stormy.store(false, Ordering::Relaxed);
        let end = self.shared.cluster.now().unwrap() + i64::try_from(LIVENESS.as_millis()).unwrap();
        while !self.is_done() {
            assert!(self.shared.cluster.now().unwrap() < end, "{:?} of {:?}", self.counted(), self.written);
            for process in &mut self.processes {
                process.start();
                (0..8).for_each(|_| process.step());
            }
            self.shared.pass(Duration::from_millis(20));
        }
        self.processes.iter_mut().for_each(|process| process.close(LeaveMode::Leave));
    }

    fn counted(&self) -> BTreeMap<String, i64> {
        counts(&self.shared.cluster).into_iter().map(|(key, seen)| (key, seen.len() as i64)).collect()
    }

    fn is_done(&self) -> bool {
        let counted = self.counted();
        self.written.iter().all(|(key, written)| counted.get(*key) == Some(written))
    }

    fn check_the_end(&mut self) {
        self.check_what_is_committed();
        let cluster = &self.shared.cluster;
        let mut folded: BTreeMap<String, i64> = BTreeMap::new();
        for record in cluster.read_committed(CHANGELOG).unwrap() {
            let key = String::from_utf8(record.key.unwrap()).unwrap();
            // What the changelog holds ends with the count, whatever stands before it.
            let value = record.value.unwrap();
            let count = value.last_chunk::<8>().copied().map(i64::from_be_bytes).unwrap();
            folded.insert(key, count);
        }
        let written: BTreeMap<_, _> = self.written.iter().map(|(key, count)| ((*key).to_owned(), *count)).collect();
        assert_eq!(folded, written, "the changelog holds the state");
        for topic in cluster.topics().unwrap() {
            for partition in (0..PARTITIONS).map(|number| TopicPartition::new(&*topic, number)) {
                let mut consumer = cluster.consumer(&reader()).unwrap();
                consumer.assign(&[(partition.clone(), 0)]).unwrap();
                let end = cluster.end_offset(&topic, partition.partition).unwrap();
                assert_eq!(consumer.end(&partition), Some(end), "no transaction is open in {partition}");
            }
        }
    }
}

fn reader() -> ConsumerSpec {
    ConsumerSpec { client_id: "reader".to_owned(), isolation: Isolation::ReadCommitted }
}

const CHANGELOG: &str = "app-counts-changelog";
const INTERNAL: [&str; 2] = [CHANGELOG, "app-by-key-repartition"];

fn counting() -> Topology {
    let builder = StreamsBuilder::new();
    builder
        .stream("in", Consumed::with(Utf8, Utf8))
        .group_by_key(Grouped::with(Utf8, Utf8))
        .count(Materialized::named("counts"))
        .to_stream()
        .to("out", Produced::with(Utf8, I64));
    builder.build().unwrap()
}

/// Two sub-topologies, one of which reads what the other writes.
fn counting_behind_a_repartition() -> Topology {
    let builder = StreamsBuilder::new();
    builder
        .stream("in", Consumed::with(Utf8, Utf8))
        .group_by(|key: &String, _| key.clone(), Grouped::with(Utf8, Utf8).named("by-key"))
        .count(Materialized::named("counts"))
        .to_stream()
        .to("out", Produced::with(Utf8, I64));
    builder.build().unwrap()
}

fn run(seed: u64, topology: &dyn Fn() -> Topology) -> Trace {
    eprintln!("seed {seed}");
    World::new(seed, topology(), None).run()
}

fn seeds(by_default: u64) -> std::ops::Range<u64> {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    match (number("KSTREAMS_SEED"), number("KSTREAMS_SEEDS")) {
        (Some(seed), _) => seed..seed + 1,
        (None, Some(count)) => 0..count,
        (None, None) => 0..by_default,
    }
}

#[test]
fn every_record_counts_once_whatever_happens() {
    seeds(10).for_each(|seed| drop(run(seed, &counting)));
}

#[test]
fn every_record_counts_once_behind_a_repartition() {
    seeds(10).for_each(|seed| drop(run(seed, &counting_behind_a_repartition)));
}

/// A simulation that finds nothing must have looked: each flaw is found by some seed.
#[track_caller]
fn assert_found(flaw: Flaw) {
    let goes_wrong = |seed| {
        let world = || drop(World::new(seed, counting_behind_a_repartition(), Some(flaw)).run());
        catch_unwind(world).is_err()
    };
    assert!((0..100).any(goes_wrong), "{flaw:?} is not found");
}

#[test]
fn offsets_that_name_no_member_are_found_out() {
    assert_found(Flaw::NamesNoMember);
}

#[test]
fn a_commit_that_is_believed_without_an_answer_is_found_out() {
    assert_found(Flaw::BelievesCommits);
}

#[test]
fn a_rewind_that_keeps_its_place_is_found_out() {
    assert_found(Flaw::RewindsNothing);
}

#[test]
fn the_same_seed_runs_the_same_way() {
    for seed in seeds(3) {
        assert_eq!(run(seed, &counting_behind_a_repartition), run(seed, &counting_behind_a_repartition), "seed {seed}");
    }
}
