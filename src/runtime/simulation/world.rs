//! What happens next, until the faults end, and then until everything is processed.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use super::flaw::Flaw;
use super::oracle::Oracle;
use super::process::{Process, Processes, with_process};
use super::scenario::{CHANGELOG, NIGHT, Scenario};
use super::shared::{PARTITIONS, PROCESSES, Shared};
use crate::client::{Cluster, ConsumerSpec, Isolation, Topics};
use crate::membership::LeaveMode;
use crate::record::TopicPartition;
use crate::runtime::clock::simulated;
use crate::state::simulated_disk::SimulatedDisk;

const KEYS: [&str; 5] = ["a", "b", "c", "d", "e"];

pub(super) const FORGETS: &str = "a changelog forgets what has expired";

/// What happens before the faults end.
const EVENTS: usize = 2_500;

/// Virtual time after the faults, until everything has to be processed.
const LIVENESS: Duration = Duration::from_secs(120);

pub(super) struct World {
    shared: Arc<Shared>,
    _processes: Processes,
    disks: Vec<SimulatedDisk>,
    oracle: Oracle,
    _clock: simulated::Simulated,
}

/// What a run has left behind: the same for the same seed.
#[derive(Debug, PartialEq)]
pub(super) struct Trace {
    records: Vec<crate::EmbeddedRecord>,
    now: i64,
    /// What has happened at least once.
    pub(super) happened: BTreeSet<String>,
}

impl World {
    pub(super) fn new(seed: u64, scenario: Scenario, flaw: Option<Flaw>) -> World {
        let shared = Arc::new(Shared::new(seed, scenario, flaw));
        let processes: Vec<_> = (0..PROCESSES).map(|number| Process::new(Arc::clone(&shared), number)).collect();
        let disks = processes.iter().map(|process| process.disk().clone()).collect();
        let (oracle, clock) = (Oracle::new(Arc::clone(&shared)), simulated::begin(0));
        World { shared, _processes: Processes::new(processes.into_iter()), disks, oracle, _clock: clock }
    }

    pub(super) fn run(mut self) -> Trace {
        for _ in 0..EVENTS {
            self.event();
            self.oracle.check(&self.disks);
        }
        self.calm_down();
        self.check_that_nothing_is_open();
        let internal = self.shared.scenario.internal_topics();
        let records = ["out", "in"].iter().chain(internal).filter_map(|topic| self.shared.cluster.records(topic).ok());
        Trace { records: records.flatten().collect(), now: self.shared.now(), happened: self.shared.happened() }
    }

    fn event(&mut self) {
        let shared = Arc::clone(&self.shared);
        let which = shared.any_process();
        match shared.below(2_000) {
            0..6 => with_process(which, Process::crash),
            6..8 => with_process(which, |process| process.close(LeaveMode::Leave)),
            8..10 => with_process(which, |process| process.close(LeaveMode::Stay)),
            10..12 => {
                let patience = Duration::from_millis(shared.below(10_000));
                with_process(which, |process| process.say_farewell(patience));
            }
            12..18 => with_process(which, |process| process.pause(Duration::from_millis(shared.below(8_000)))),
            18..80 => with_process(which, Process::start),
            80..90 => with_process(which, |process| process.cut_off(Duration::from_millis(shared.below(1_500)))),
            90..94 => with_process(which, |process| process.fill_disk(Duration::from_millis(shared.below(1_000)))),
            94..97 => with_process(which, Process::jump),
            97..110 => with_process(which, |process| process.flush_disk()),
            110..120 => with_process(which, |process| process.keep_house()),
            120..126 => self.fail_over(),
            126..129 => shared.move_coordinator(),
            129..135 => self.clean(),
            135..137 => self.end_the_day(),
            137..140 => with_process(which, Process::add_thread),
            140..143 => with_process(which, Process::remove_thread),
            143..450 => self.write(),
            450..750 => shared.pass(Duration::from_millis(shared.below(60))),
            _ => with_process(which, Process::step),
        }
    }

    fn write(&mut self) {
        let which = usize::try_from(self.shared.below(KEYS.len() as u64)).unwrap();
        let timestamp = (self.shared.now() - i64::try_from(self.shared.below(1_500)).unwrap()).max(0);
        let key = KEYS[which];
        let number = self.oracle.next_number(key).to_string();
        let written = self.shared.cluster.produce("in", Some(key.as_bytes()), Some(number.as_bytes()), Some(timestamp));
        let (partition, _) = written.unwrap();
        self.oracle.takes(partition, key, timestamp);
    }

    /// Another broker leads some partition.
    fn fail_over(&mut self) {
        let partitions = self.shared.partitions();
        let which = usize::try_from(self.shared.below(partitions.len() as u64)).unwrap();
        let Some(partition) = partitions.get(which) else { return };
        let end = self.shared.fail_over(partition);
        self.oracle.is_truncated(partition, end);
    }

    /// Logs are compacted, and begin where their first record is.
    fn clean(&mut self) {
        self.shared.note("logs are compacted");
        self.oracle.is_compacted();
        self.shared.cluster.maintain().unwrap();
        let number = i32::try_from(self.shared.below(PARTITIONS as u64)).unwrap();
        let partition = TopicPartition::new(CHANGELOG, number);
        if self.shared.cluster.logged(&partition, 0).is_ok() {
            self.shared.note("the start of a changelog moves");
            self.shared.cluster.drop_empty_front(&partition).unwrap();
            self.expire(&partition);
        }
    }

    /// A changelog forgets rows by their age.
    fn expire(&mut self, changelog: &TopicPartition) {
        let start = self.oracle.forgets(changelog.partition);
        if start > 0 {
            self.shared.note(FORGETS);
            let mut admin = self.shared.cluster.admin().unwrap();
            admin.delete_records(&[(changelog.clone(), start)]).unwrap();
        }
    }

    /// Everything is down for so long that the logs forget what was deleted.
    fn end_the_day(&mut self) {
        self.shared.note("everything is down for long");
        (0..PROCESSES).for_each(|which| with_process(which, Process::crash));
        self.clean();
        self.shared.pass(NIGHT);
        self.clean();
    }

    /// The faults end, every process runs: in bounded time everything is processed.
    fn calm_down(&mut self) {
        self.shared.end_storm();
        let end = self.shared.after(LIVENESS);
        (0..PROCESSES).for_each(|which| with_process(which, Process::calm_down));
        while !self.oracle.is_complete() {
            assert!(self.shared.now() < end, "not processed: {:?}", self.oracle.missing());
            for which in 0..PROCESSES {
                with_process(which, |process| {
                    process.start();
                    if !process.has_threads() {
                        process.add_thread();
                    }
                    (0..8).for_each(|_| process.step());
                });
            }
            self.shared.pass(Duration::from_millis(20));
            self.oracle.check(&self.disks);
        }
        (0..PROCESSES).for_each(|which| with_process(which, |process| process.close(LeaveMode::Leave)));
        self.oracle.check(&self.disks);
    }

    fn check_that_nothing_is_open(&self) {
        let reader =
            ConsumerSpec { client_id: "reader".to_owned(), isolation: Isolation::ReadCommitted, topics: Topics::Any };
        for partition in self.shared.partitions() {
            let end = self.shared.cluster.end_offset(&partition.topic, partition.partition).unwrap();
            let mut consumer = self.shared.cluster.consumer(&reader).unwrap();
            consumer.assign(&[(partition.clone(), end)]).unwrap();
            assert_eq!(consumer.end(&partition), Some(end), "no transaction is open in {partition}");
        }
    }
}
