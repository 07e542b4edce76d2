//! The error table of the commit: every call of the cluster fails in every way, and nothing is lost or doubled.

mod membership;
mod neighbours;
mod positions;
mod rights;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::client::embedded::EmbeddedCluster;
use crate::client::{
    Admin, Cluster, Consumer, ConsumerSpec, DeliveryFailure, GroupCoordinator, GroupMetadata, GroupOffsets, GroupSpec,
    Producer, ProducerSpec,
};
use crate::config::GivenCluster;
use crate::membership::{LeaveMode, Membership, MembershipEvent};
use crate::record::{OffsetAndMetadata, ProducerRecord, TopicPartition};
use crate::{
    CloseOptions, Config, Consumed, Error, ErrorKind, Grouped, I64, KafkaStreams, Materialized, Produced, Result,
    StreamsBuilder, Topology, Utf8,
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Call {
    Init,
    Begin,
    Send,
    Confirm,
    SendOffsets,
    Commit,
    Abort,
    CommitOffsets,
    Committed,
    /// Calls the position out of range.
    Fetch,
    /// Tells an end of the input that is long past.
    Watermarks,
}

/// Whether the cluster did what it was asked before it failed to say so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Done {
    No,
    Yes,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Fault {
    call: Call,
    done: Done,
    kind: ErrorKind,
    /// Calls that go well before.
    after: usize,
    times: usize,
}

fn fault(call: Call, kind: ErrorKind) -> Fault {
    Fault { call, done: Done::No, kind, after: 2, times: 1 }
}

impl Fault {
    fn times(self, times: usize) -> Fault {
        Fault { times, ..self }
    }

    fn although_done(self) -> Fault {
        Fault { done: Done::Yes, ..self }
    }

    fn at_once(self) -> Fault {
        Fault { after: 0, ..self }
    }
}

/// The embedded cluster with faults.
#[derive(Clone)]
pub(super) struct Faulty {
    pub(super) inner: EmbeddedCluster,
    faults: Arc<Mutex<Vec<Fault>>>,
}

impl Faulty {
    fn new(inner: EmbeddedCluster, faults: &[Fault]) -> Faulty {
        Faulty { inner, faults: Arc::new(Mutex::new(faults.to_vec())) }
    }

    fn call<T>(&self, call: Call, work: impl FnOnce() -> Result<T>) -> Result<T> {
        let Some((done, kind)) = self.planned(call) else { return work() };
        if done == Done::Yes {
            work()?;
        }
        Err(Error::new(kind, format!("injected at {call:?}")))
    }

    fn planned(&self, call: Call) -> Option<(Done, ErrorKind)> {
        let mut faults = self.faults.lock().unwrap();
        let fault = faults.iter_mut().find(|fault| fault.call == call && fault.times > 0)?;
        if fault.after > 0 {
            fault.after -= 1;
            return None;
        }
        fault.times -= 1;
        let Fault { kind, done, .. } = *fault;
        fault.done = Done::No; // once is enough
        Some((done, kind))
    }

    fn are_used_up(&self) -> bool {
        self.faults.lock().unwrap().iter().all(|fault| fault.times == 0)
    }
}

impl Cluster for Faulty {
    fn join(&self, spec: &GroupSpec) -> Result<(Box<dyn Membership>, Box<dyn Consumer>)> {
        let (membership, consumer) = self.inner.join(spec)?;
        let membership = FaultyMembership { inner: membership, cluster: self.clone() };
        Ok((Box::new(membership), Box::new(positions::FaultyConsumer { inner: consumer, cluster: self.clone() })))
    }

    fn consumer(&self, spec: &ConsumerSpec) -> Result<Box<dyn Consumer>> {
        let inner = self.inner.consumer(spec)?;
        if spec.client_id.contains("restore") {
            return Ok(inner);
        }
        Ok(Box::new(positions::FaultyConsumer { inner, cluster: self.clone() }))
    }

    fn producer(&self, spec: &ProducerSpec) -> Result<Box<dyn Producer>> {
        Ok(Box::new(FaultyProducer { inner: self.inner.producer(spec)?, cluster: self.clone() }))
    }

    fn admin(&self) -> Result<Box<dyn Admin>> {
        Ok(Box::new(positions::FaultyAdmin { inner: self.inner.admin()?, cluster: self.clone() }))
    }

    fn coordinator(&self, group: &str, client_id: &str) -> Result<Box<dyn GroupCoordinator>> {
        self.inner.coordinator(group, client_id)
    }

    fn group_offsets(&self, group: &str, client_id: &str) -> Result<Box<dyn GroupOffsets>> {
        Ok(Box::new(FaultyOffsets { inner: self.inner.group_offsets(group, client_id)?, cluster: self.clone() }))
    }
}

struct FaultyOffsets {
    inner: Box<dyn GroupOffsets>,
    cluster: Faulty,
}

impl GroupOffsets for FaultyOffsets {
    fn committed(&mut self, partitions: &[TopicPartition]) -> Result<Vec<Option<OffsetAndMetadata>>> {
        self.cluster.call(Call::Committed, || self.inner.committed(partitions))
    }

    fn commit(&mut self, offsets: &[(TopicPartition, OffsetAndMetadata)], as_member: &GroupMetadata) -> Result<()> {
        self.cluster.call(Call::CommitOffsets, || self.inner.commit(offsets, as_member))
    }

    fn fence(&mut self, transactional_ids: &[String], outputs: &[Arc<str>]) -> Result<()> {
        self.inner.fence(transactional_ids, outputs)
    }
}

struct FaultyMembership {
    inner: Box<dyn Membership>,
    cluster: Faulty,
}

impl Membership for FaultyMembership {
    fn poll(&mut self) -> Result<Option<MembershipEvent>> {
        self.inner.poll()
    }

    fn acknowledge(&mut self) -> Result<()> {
        self.inner.acknowledge()
    }

    fn committed(&mut self, partitions: &[TopicPartition]) -> Result<Vec<Option<OffsetAndMetadata>>> {
        self.cluster.call(Call::Committed, || self.inner.committed(partitions))
    }

    fn commit(&mut self, offsets: &[(TopicPartition, OffsetAndMetadata)]) -> Result<()> {
        self.cluster.call(Call::CommitOffsets, || self.inner.commit(offsets))
    }

    fn group_metadata(&mut self) -> Result<Option<GroupMetadata>> {
        self.inner.group_metadata()
    }

    fn close(&mut self, mode: LeaveMode) -> Result<()> {
        self.inner.close(mode)
    }
}

struct FaultyProducer {
    inner: Box<dyn Producer>,
    cluster: Faulty,
}

impl Producer for FaultyProducer {
    fn init_transactions(&mut self, timeout: Duration) -> Result<()> {
        self.cluster.call(Call::Init, || self.inner.init_transactions(timeout))
    }

    fn begin_transaction(&mut self) -> Result<()> {
        self.cluster.call(Call::Begin, || self.inner.begin_transaction())
    }

    fn send(&mut self, record: ProducerRecord<'_>, track: bool) -> Result<()> {
        self.cluster.call(Call::Send, || self.inner.send(record, track))
    }

    fn confirm(&mut self, timeout: Duration) -> Result<Vec<DeliveryFailure>> {
        self.cluster.call(Call::Confirm, || self.inner.confirm(timeout))
    }

    fn end_offset(&self, partition: &TopicPartition) -> Option<i64> {
        self.inner.end_offset(partition)
    }

    fn send_offsets(&mut self, offsets: &[(TopicPartition, OffsetAndMetadata)], group: &GroupMetadata) -> Result<()> {
        self.cluster.call(Call::SendOffsets, || self.inner.send_offsets(offsets, group))
    }

    fn commit_transaction(&mut self, timeout: Duration) -> Result<()> {
        self.cluster.call(Call::Commit, || self.inner.commit_transaction(timeout))
    }

    fn abort_transaction(&mut self, timeout: Duration) -> Result<()> {
        self.cluster.call(Call::Abort, || self.inner.abort_transaction(timeout))
    }

    fn partitions(&mut self, topic: &Arc<str>) -> Result<i32> {
        self.inner.partitions(topic)
    }
}

const KEYS: [&str; 3] = ["a", "b", "c"];

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

pub(super) fn counts(cluster: &EmbeddedCluster) -> BTreeMap<String, Vec<i64>> {
    let mut counts: BTreeMap<String, Vec<i64>> = BTreeMap::new();
    for record in cluster.read_committed("out").unwrap() {
        let count = i64::from_be_bytes(record.value.unwrap().try_into().unwrap());
        counts.entry(String::from_utf8(record.key.unwrap()).unwrap()).or_default().push(count);
    }
    counts
}

/// Feeds an application until the faults have happened, and waits until everything is counted: the counts of each key,
/// and how often each was written.
#[expect(clippy::disallowed_methods, reason = "a test waits for threads")]
fn run(config: impl FnOnce(Config) -> Config, faults: &[Fault]) -> (BTreeMap<String, Vec<i64>>, i64) {
    let inner = EmbeddedCluster::new();
    inner.create_topic("in", 2).unwrap();
    inner.create_topic("out", 2).unwrap();
    let faulty = Faulty::new(inner.clone(), faults);
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(Config::new("app", "embedded://"))
        .commit_interval(Duration::from_millis(5))
        .transaction_timeout(Duration::from_secs(2))
        .state_dir(folder.path())
        .cache_bytes(0);
    config.cluster = Some(GivenCluster(Arc::new(faulty.clone())));
    let streams = KafkaStreams::new(counting(), config).unwrap();
    streams.start().unwrap();
    let (begun, mut written) = (Instant::now(), 0);
    loop {
        let is_counted = KEYS.iter().all(|key| counts(&inner).get(*key).is_some_and(|seen| seen.contains(&written)));
        if faulty.are_used_up() && is_counted && written >= 10 {
            break;
        }
        if !faulty.are_used_up() || written < 10 {
            KEYS.iter().for_each(|key| {
                inner.produce("in", Some(key.as_bytes()), Some(b"x"), Some(written)).unwrap();
            });
            written += 1;
        }
        let error = || streams.take_error().map(|error| error.report());
        assert!(!streams.state().is_terminal(), "{faults:?} has ended the client: {:?}", error());
        let seen: Vec<_> = counts(&inner).into_iter().map(|(key, counts)| (key, counts.len())).collect();
        assert!(begun.elapsed() < Duration::from_secs(60), "{faults:?}: {written} written, {seen:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
    streams.close(CloseOptions::default()).unwrap();
    (counts(&inner), written)
}

#[track_caller]
fn assert_exactly_once(faults: &[Fault]) {
    let (counts, written) = run(Config::exactly_once, faults);
    for key in KEYS {
        assert_eq!(counts[key], (1..=written).collect::<Vec<_>>(), "{key} after {faults:?}");
    }
}

const ENDLESS: usize = 7;

#[test]
fn a_commit_that_fails_in_any_way_is_decided() {
    use ErrorKind::{Aborted, Fenced, Unavailable};
    for kind in [Aborted, Fenced, Unavailable] {
        assert_exactly_once(&[fault(Call::Commit, kind)]);
    }
    assert_exactly_once(&[fault(Call::Commit, Unavailable).times(ENDLESS)]);
    assert_exactly_once(&[fault(Call::Commit, Fenced).although_done()]);
}

#[test]
fn a_commit_of_unknown_outcome_is_found_out() {
    let committed = fault(Call::Commit, ErrorKind::Unavailable).times(3).although_done();
    assert_exactly_once(&[committed]);
    assert_exactly_once(&[committed, fault(Call::Init, ErrorKind::Unavailable).at_once().times(3)]);
    let silent = Fault { after: 1, ..fault(Call::Committed, ErrorKind::Unavailable).times(3) };
    assert_exactly_once(&[committed, silent]);
}

#[test]
fn a_commit_that_is_refused_when_it_is_repeated_may_have_happened() {
    let committed = fault(Call::Commit, ErrorKind::Unavailable).although_done();
    assert_exactly_once(&[committed, fault(Call::Commit, ErrorKind::Aborted).at_once()]);
}

#[test]
fn offsets_that_are_refused_are_processed_again() {
    use ErrorKind::{Aborted, Fenced, Unavailable};
    for kind in [Aborted, Fenced, Unavailable] {
        assert_exactly_once(&[fault(Call::SendOffsets, kind)]);
    }
    assert_exactly_once(&[fault(Call::SendOffsets, Unavailable).times(ENDLESS)]);
    assert_exactly_once(&[fault(Call::SendOffsets, Unavailable).although_done()]);
}

#[test]
fn records_that_are_not_sent_or_confirmed_are_processed_again() {
    use ErrorKind::{Aborted, Fenced, Unavailable};
    for call in [Call::Begin, Call::Send, Call::Confirm] {
        for kind in [Aborted, Fenced, Unavailable] {
            assert_exactly_once(&[fault(call, kind)]);
        }
    }
}

#[test]
fn an_abort_that_fails_is_left_to_a_new_producer() {
    use ErrorKind::{Aborted, Fenced, Unavailable};
    for kind in [Fenced, Unavailable] {
        assert_exactly_once(&[fault(Call::SendOffsets, Aborted), fault(Call::Abort, kind).at_once()]);
    }
}

#[test]
fn a_cluster_that_does_not_answer_at_the_start_is_waited_for() {
    let silent = |call| fault(call, ErrorKind::Unavailable).at_once().times(3);
    assert_exactly_once(&[silent(Call::Init), silent(Call::Committed)]);
}

#[test]
fn at_least_once_loses_nothing_whatever_fails() {
    use ErrorKind::{Aborted, Fenced, Unavailable};
    for call in [Call::Send, Call::Confirm, Call::CommitOffsets] {
        for kind in [Aborted, Fenced, Unavailable] {
            let (counts, written) = run(Config::at_least_once, &[fault(call, kind)]);
            for key in KEYS {
                assert!(counts[key].last() >= Some(&written), "{key} after {call:?} {kind:?}: {:?}", counts[key]);
            }
        }
    }
}
