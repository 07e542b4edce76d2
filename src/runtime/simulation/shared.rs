//! What every process, and every call, shares: the cluster, the one source of chance, and who hears what of whom.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::control;
use super::flaw::Flaw;
use super::process::{Process, step_group, with_process};
use super::random::Random;
use super::ranges::Ranges;
use super::scenario::Scenario;
use crate::Result;
use crate::client::embedded::EmbeddedCluster;
use crate::client::embedded::faults::ProducerName;
use crate::client::{Cluster, GroupMetadata};
use crate::record::{OffsetAndMetadata, TopicPartition};
use crate::runtime::clock::simulated;
use crate::topology::Topology;

/// How late a request may arrive after its sender has given up waiting.
const LATE_MS: u64 = 3_000;

pub(super) const PARTITIONS: i32 = 3;
pub(super) const PROCESSES: usize = 3;

pub(super) struct Shared {
    pub(super) cluster: EmbeddedCluster,
    pub(super) scenario: Scenario,
    pub(super) topology: Topology,
    /// Of each task: every second seed has one.
    pub(super) standbys: usize,
    pub(super) cache_bytes: usize,
    pub(super) transaction_timeout: Duration,
    pub(super) commit_interval: Duration,
    pub(super) session_timeout: Duration,
    pub(super) pause_max: Duration,
    /// Whether a task may have an owner who does not know that it has another one.
    pub(super) may_doubt: bool,
    /// What is broken on purpose.
    pub(super) flaw: Option<Flaw>,
    pub(super) ranges: Mutex<Ranges>,
    random: Mutex<Random>,
    /// Whether calls may fail.
    is_stormy: AtomicBool,
    /// Who hears nothing of the cluster, and until when.
    cut_off: Mutex<BTreeMap<String, i64>>,
    /// Requests under way that nobody waits for.
    late: Mutex<Vec<(i64, LateRequest)>>,
    /// How far each partition was told to be safe.
    told: Mutex<BTreeMap<TopicPartition, i64>>,
    /// Transactional ids whose records a failing leader took along.
    undelivered: Mutex<BTreeSet<String>>,
    /// Counts the brokers that have coordinated the group.
    coordinators: AtomicU64,
    is_doubtful: AtomicBool,
    happened: Mutex<BTreeSet<String>>,
}

/// What arrives when nobody waits for its answer any more.
pub(super) enum LateRequest {
    End {
        producer: ProducerName,
        is_commit: bool,
        client: String,
        offsets: Vec<(TopicPartition, OffsetAndMetadata)>,
    },
    Offsets {
        producer: ProducerName,
        offsets: Vec<(TopicPartition, OffsetAndMetadata)>,
        group: GroupMetadata,
    },
    /// Without a transaction.
    Commit {
        offsets: Vec<(TopicPartition, OffsetAndMetadata)>,
        group: GroupMetadata,
    },
}

impl Shared {
    pub(super) fn new(seed: u64, scenario: Scenario, flaw: Option<Flaw>) -> Shared {
        let cluster = EmbeddedCluster::with_virtual_clock();
        for topic in ["in", "out"] {
            cluster.create_topic(topic, PARTITIONS).unwrap();
        }
        let mut random = Random::new(seed);
        // No cache, one for everything, and one that is full with a few rows.
        let cache_bytes = match random.below(4) {
            0 => 1 << 20,
            1 => 600,
            _ => 0,
        };
        // Without transactions, who has lost a task and does not know it yet can turn its store back: half of the seeds are
        // without that.
        let may_doubt = scenario.is_exactly_once() || random.below(2) == 0;
        let (session_timeout, pause_max) = if may_doubt { (6, 8) } else { (600, 3) };
        Shared {
            cluster,
            scenario,
            topology: scenario.topology(),
            standbys: (seed % 2) as usize,
            cache_bytes,
            commit_interval: Duration::from_millis(if random.below(2) == 0 { 50 } else { 600 }),
            transaction_timeout: Duration::from_secs(if random.below(2) == 0 { 2 } else { 10 }),
            session_timeout: Duration::from_secs(session_timeout),
            pause_max: Duration::from_secs(pause_max),
            may_doubt,
            flaw,
            ranges: Mutex::default(),
            random: Mutex::new(random),
            is_stormy: AtomicBool::new(true),
            cut_off: Mutex::default(),
            late: Mutex::default(),
            told: Mutex::default(),
            undelivered: Mutex::default(),
            coordinators: AtomicU64::new(0),
            is_doubtful: AtomicBool::new(false),
            happened: Mutex::default(),
        }
    }

    /// The one source of chance.
    pub(super) fn below(&self, bound: u64) -> u64 {
        self.random.lock().unwrap().below(bound)
    }

    pub(super) fn one_in(&self, bound: u64) -> bool {
        self.below(bound) == 0
    }

    pub(super) fn is_flawed(&self, flaw: Flaw) -> bool {
        self.flaw == Some(flaw)
    }

    /// Notes that something has happened, for those who ask whether everything does.
    pub(super) fn note(&self, what: &str) {
        tracing::trace!("{what}");
        let mut happened = self.happened.lock().unwrap();
        if !happened.contains(what) {
            happened.insert(what.to_owned());
        }
    }

    pub(super) fn happened(&self) -> BTreeSet<String> {
        self.happened.lock().unwrap().clone()
    }

    pub(super) fn now(&self) -> i64 {
        self.cluster.now().unwrap()
    }

    pub(super) fn after(&self, time: Duration) -> i64 {
        self.now() + i64::try_from(time.as_millis()).unwrap()
    }

    pub(super) fn pass(&self, time: Duration) {
        let before = self.members();
        simulated::advance(time);
        self.cluster.advance(time).unwrap();
        if self.members() < before {
            self.may_work_twice();
        }
        self.deliver_late_requests();
    }

    // ---- the weather ----

    pub(super) fn is_stormy(&self) -> bool {
        self.is_stormy.load(Ordering::Relaxed)
    }

    pub(super) fn end_storm(&self) {
        self.is_stormy.store(false, Ordering::Relaxed);
    }

    /// Every call of this goes well.
    pub(super) fn calmly<T>(&self, work: impl FnOnce() -> T) -> T {
        let before = self.is_stormy.swap(false, Ordering::Relaxed);
        let done = work();
        self.is_stormy.store(before, Ordering::Relaxed);
        done
    }

    pub(super) fn is_cut_off(&self, process: &str) -> bool {
        let until = self.cut_off.lock().unwrap().get(process).copied();
        until.is_some_and(|until| self.now() < until)
    }

    pub(super) fn cut_off(&self, process: &str, time: Duration) {
        self.note("a process is cut off");
        self.cut_off.lock().unwrap().insert(process.to_owned(), self.after(time));
    }

    pub(super) fn any_process(&self) -> usize {
        usize::try_from(self.below(PROCESSES as u64)).unwrap()
    }

    /// A process stands still in the middle of a call, or one of its threads does, and the others go on: its transactions may
    /// time out, its members may be thrown out, and who has its tasks then may be done before it wakes up.
    pub(super) fn sleep(&self, number: usize, process: &str) {
        let sleeps_whole = self.one_in(2);
        self.note(if sleeps_whole { "a process stands still in a call" } else { "a thread stands still in a call" });
        if sleeps_whole && self.one_in(2) {
            self.expire_members(process);
        }
        self.let_others_work((!sleeps_whole).then_some(number));
        if !sleeps_whole && self.may_doubt && self.one_in(3) && control::give_up_working_thread(number) {
            self.note("a thread does not come back and is given up");
            self.may_work_twice();
            (0..3).for_each(|_| self.let_others_work(Some(number)));
        }
    }

    /// A thread of a process gets no processor for a while, and everybody else does.
    pub(super) fn hesitate(&self, number: usize) {
        self.note("a thread stands still after it has heard something");
        (0..3).for_each(|_| self.let_others_work(Some(number)));
    }

    /// Among them the group thread of a process that does nothing else.
    fn let_others_work(&self, group: Option<usize>) {
        for _ in 0..self.below(12) {
            self.pass(Duration::from_millis(self.below(500)));
            for _ in 0..self.below(30) {
                with_process(self.any_process(), Process::step);
            }
            if let Some(number) = group {
                (0..self.below(4)).for_each(|_| _ = step_group(number));
            }
        }
    }

    /// What [`Flaw::CommitsTooFar`] makes of offsets.
    pub(super) fn commit_too_far(&self, offsets: &mut [(TopicPartition, OffsetAndMetadata)]) -> Result<()> {
        for (partition, committed) in offsets {
            let end = self.cluster.end_offset(&partition.topic, partition.partition)?;
            committed.offset = end.max(committed.offset);
        }
        Ok(())
    }

    /// From here on, two threads may believe that they have the same task.
    pub(super) fn may_work_twice(&self) {
        self.is_doubtful.store(true, Ordering::Relaxed);
    }

    /// Whether two threads may ever have believed that they have the same task.
    pub(super) fn is_doubtful(&self) -> bool {
        self.is_doubtful.load(Ordering::Relaxed)
    }

    /// The session of a process that runs is over.
    pub(super) fn expire_members(&self, process: &str) {
        if self.may_doubt {
            self.may_work_twice();
            self.remove_dead_members(process);
        }
    }

    pub(super) fn remove_dead_members(&self, process: &str) {
        for member in self.cluster.members("app").unwrap() {
            if member.contains(process) {
                tracing::info!(member, "a session ends");
                self.note("a session ends");
                self.cluster.expire_member("app", &member).unwrap();
            }
        }
    }

    // ---- late requests ----

    fn members(&self) -> usize {
        self.cluster.members("app").unwrap().len()
    }

    /// A request was given up, and may arrive all the same.
    pub(super) fn may_arrive(&self, request: LateRequest) {
        if self.is_stormy() && self.one_in(2) {
            let at = self.after(Duration::from_millis(self.below(LATE_MS)));
            self.late.lock().unwrap().push((at, request));
        }
    }

    fn deliver_late_requests(&self) {
        let now = self.now();
        let due: Vec<_> = self.late.lock().unwrap().extract_if(.., |(at, _)| *at <= now).collect();
        for (_, request) in due {
            match request {
                LateRequest::End { producer, is_commit, client, offsets } => {
                    // Whoever it was may have been replaced meanwhile: then it is refused.
                    let arrived = self.cluster.end_arrives(&producer, is_commit);
                    self.note(if arrived.is_ok() { "a late end arrives" } else { "a late end is refused" });
                    if matches!(arrived, Ok(true)) && is_commit {
                        self.note("a late commit commits");
                        self.ranges.lock().unwrap().committed(&client, &offsets);
                    }
                }
                LateRequest::Offsets { producer, offsets, group } => {
                    let arrived = self.cluster.offsets_arrive(&producer, &offsets, &group);
                    self.note(if arrived.is_ok() { "late offsets arrive" } else { "late offsets are refused" });
                }
                LateRequest::Commit { offsets, group } => {
                    let mut connection = self.cluster.group_offsets("app", "late").unwrap();
                    let arrived = connection.commit(&offsets, &group);
                    self.note(if arrived.is_ok() { "a late commit arrives" } else { "a late commit is refused" });
                }
            }
        }
    }

    // ---- brokers ----

    /// Everything that is there was told to somebody: no leader loses it.
    pub(super) fn tell(&self, partitions: &[TopicPartition]) {
        let mut told = self.told.lock().unwrap();
        for partition in partitions {
            let end = self.cluster.end_offset(&partition.topic, partition.partition).unwrap();
            told.insert(partition.clone(), end);
        }
    }

    pub(super) fn tell_all(&self) {
        self.tell(&self.partitions());
    }

    /// Of all topics.
    pub(super) fn partitions(&self) -> Vec<TopicPartition> {
        let topics = self.cluster.topics().unwrap();
        let partitions = |topic: String| (0..PARTITIONS).map(move |number| TopicPartition::new(&*topic, number));
        topics.into_iter().flat_map(partitions).collect()
    }

    /// Another broker leads a partition, without what was not copied; where it ends then.
    pub(super) fn fail_over(&self, partition: &TopicPartition) -> i64 {
        let kept = self.told.lock().unwrap().get(partition).copied().unwrap_or(0);
        let truncated = self.cluster.fail_over(partition, kept).unwrap();
        self.note(if truncated.transactional_ids.is_empty() { "a leader fails" } else { "a leader loses records" });
        self.undelivered.lock().unwrap().extend(truncated.transactional_ids);
        truncated.end
    }

    /// Whether something that a producer has sent was lost; it stays so until the transaction is given up.
    pub(super) fn has_lost(&self, transactional_id: &str) -> bool {
        self.undelivered.lock().unwrap().contains(transactional_id)
    }

    pub(super) fn begins_anew(&self, transactional_id: &str) {
        self.undelivered.lock().unwrap().remove(transactional_id);
    }

    pub(super) fn move_coordinator(&self) {
        tracing::info!("the coordinator moves");
        self.note("the coordinator moves");
        self.cluster.move_coordinator("app").unwrap();
        self.coordinators.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn coordinators(&self) -> u64 {
        self.coordinators.load(Ordering::Relaxed)
    }

    pub(super) fn network(self: &Arc<Shared>, number: usize, process: &str) -> super::network::Network {
        super::network::Network::new(Arc::clone(self), number, process)
    }
}
