//! Instances that come, go, crash and come back, by the group protocol of our own.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::counts;
use crate::client::embedded::EmbeddedCluster;
use crate::client::{
    Admin, Cluster, Consumer, ConsumerSpec, Fetch, GroupCoordinator, GroupOffsets, GroupSpec, Lag, Producer,
    ProducerSpec,
};
use crate::config::GivenCluster;
use crate::membership::Membership;
use crate::membership::classic::protocol::{GroupAnswer, GroupError, GroupRequest, RequestKind};
use crate::record::{RecordBatch, TopicPartition};
use crate::{
    CloseOptions, Config, Consumed, Error, ErrorKind, GroupProtocol, Grouped, I64, KafkaStreams, Materialized,
    Produced, Result, State, StreamsBuilder, Utf8,
};

pub(super) const PARTITIONS: i32 = 6;

/// The embedded cluster, with a journal of what instances do.
#[derive(Clone)]
pub(super) struct Watched {
    pub(super) inner: EmbeddedCluster,
    journal: Arc<Mutex<Vec<Entry>>>,
    /// What the coordinator says to every heartbeat, when it denies access.
    denied: Arc<Mutex<Option<String>>>,
}

impl Watched {
    pub(super) fn deny(&self, what: &str) {
        *self.denied.lock().unwrap() = Some(what.to_owned());
    }

    pub(super) fn allow(&self) {
        *self.denied.lock().unwrap() = None;
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Entry {
    /// What the coordinator says to a join.
    Refused(GroupError),
    Joined {
        client: String,
        generation: i32,
    },
    /// A task begins to read its input.
    Reads {
        client: String,
        partition: i32,
    },
    Fenced(Vec<String>),
}

impl Cluster for Watched {
    fn join(&self, _spec: &GroupSpec) -> Result<(Box<dyn Membership>, Box<dyn Consumer>)> {
        Err(Error::new(ErrorKind::Internal, "the client library's group was asked for"))
    }

    fn consumer(&self, spec: &ConsumerSpec) -> Result<Box<dyn Consumer>> {
        let (inner, client) = (self.inner.consumer(spec)?, spec.client_id.clone());
        Ok(Box::new(WatchedConsumer { inner, client, journal: Arc::clone(&self.journal) }))
    }

    fn producer(&self, spec: &ProducerSpec) -> Result<Box<dyn Producer>> {
        self.inner.producer(spec)
    }

    fn admin(&self) -> Result<Box<dyn Admin>> {
        Cluster::admin(&self.inner)
    }

    fn coordinator(&self, group: &str, client_id: &str) -> Result<Box<dyn GroupCoordinator>> {
        let (inner, client) = (self.inner.coordinator(group, client_id)?, client_id.to_owned());
        let (journal, denied) = (Arc::clone(&self.journal), Arc::clone(&self.denied));
        Ok(Box::new(WatchedCoordinator { inner, client, journal, denied }))
    }

    fn group_offsets(&self, group: &str, client_id: &str) -> Result<Box<dyn GroupOffsets>> {
        let inner = self.inner.group_offsets(group, client_id)?;
        Ok(Box::new(WatchedOffsets { inner, journal: Arc::clone(&self.journal) }))
    }
}

struct WatchedCoordinator {
    inner: Box<dyn GroupCoordinator>,
    client: String,
    journal: Arc<Mutex<Vec<Entry>>>,
    denied: Arc<Mutex<Option<String>>>,
}

impl GroupCoordinator for WatchedCoordinator {
    fn send(&mut self, request: GroupRequest) {
        self.inner.send(request);
    }

    fn poll(&mut self) -> Option<GroupAnswer> {
        let mut answer = self.inner.poll();
        if let (Some(GroupAnswer::Alive), Some(what)) = (&answer, &*self.denied.lock().unwrap()) {
            let error = GroupError::Denied(what.clone());
            answer = Some(GroupAnswer::Refused { request: RequestKind::Heartbeat, error });
        }
        let entry = match &answer {
            Some(GroupAnswer::Joined { generation, .. }) => {
                Some(Entry::Joined { client: self.client.clone(), generation: *generation })
            }
            Some(GroupAnswer::Refused { request: RequestKind::Join, error }) => Some(Entry::Refused(error.clone())),
            _ => None,
        };
        self.journal.lock().unwrap().extend(entry);
        answer
    }

    fn wait(&mut self, timeout: Duration) {
        self.inner.wait(timeout);
    }

    fn waker(&self) -> Arc<dyn Fn() + Send + Sync> {
        self.inner.waker()
    }
}

struct WatchedOffsets {
    inner: Box<dyn GroupOffsets>,
    journal: Arc<Mutex<Vec<Entry>>>,
}

impl GroupOffsets for WatchedOffsets {
    fn committed(&mut self, partitions: &[TopicPartition]) -> Result<Vec<Option<crate::record::OffsetAndMetadata>>> {
        self.inner.committed(partitions)
    }

    fn commit(
        &mut self,
        offsets: &[(TopicPartition, crate::record::OffsetAndMetadata)],
        as_member: &crate::client::GroupMetadata,
    ) -> Result<()> {
        self.inner.commit(offsets, as_member)
    }

    fn fence(&mut self, transactional_ids: &[String], outputs: &[Arc<str>]) -> Result<()> {
        self.journal.lock().unwrap().push(Entry::Fenced(transactional_ids.to_vec()));
        self.inner.fence(transactional_ids, outputs)
    }
}

struct WatchedConsumer {
    inner: Box<dyn Consumer>,
    client: String,
    journal: Arc<Mutex<Vec<Entry>>>,
}

impl Consumer for WatchedConsumer {
    fn assign(&mut self, partitions: &[(TopicPartition, i64)]) -> Result<()> {
        let inputs = partitions.iter().filter(|(partition, _)| &*partition.topic == "in");
        self.journal
            .lock()
            .unwrap()
            .extend(inputs.map(|(input, _)| Entry::Reads { client: self.client.clone(), partition: input.partition }));
        self.inner.assign(partitions)
    }

    fn unassign(&mut self, partitions: &[TopicPartition]) -> Result<()> {
        self.inner.unassign(partitions)
    }

    fn fetch(&mut self, partition: &TopicPartition, records_max: usize, batch: &mut RecordBatch) -> Result<Fetch> {
        self.inner.fetch(partition, records_max, batch)
    }

    fn position(&self, partition: &TopicPartition) -> Option<i64> {
        self.inner.position(partition)
    }

    fn lag(&self, partition: &TopicPartition) -> Lag {
        self.inner.lag(partition)
    }

    fn end(&self, partition: &TopicPartition) -> Option<i64> {
        self.inner.end(partition)
    }

    fn wait(&mut self, timeout: Duration) -> Result<()> {
        self.inner.wait(timeout)
    }

    fn waker(&self) -> Arc<dyn Fn() + Send + Sync> {
        self.inner.waker()
    }
}

/// A counting application on a cluster of its own.
pub(super) struct Scene {
    pub(super) cluster: Watched,
    folder: tempfile::TempDir,
    written: i64,
    /// Short where its end is waited for, long where it must not come.
    session: Duration,
}

const KEYS: [&str; 8] = ["a", "b", "c", "d", "e", "f", "g", "h"];

impl Scene {
    pub(super) fn new(session: Duration) -> Scene {
        let inner = EmbeddedCluster::new();
        inner.create_topic("in", PARTITIONS).unwrap();
        inner.create_topic("out", 1).unwrap();
        let cluster = Watched { inner, journal: Arc::default(), denied: Arc::default() };
        Scene { cluster, folder: tempfile::tempdir().unwrap(), written: 0, session }
    }

    pub(super) fn config(&self, instance: &str) -> Config {
        let mut config = Config::new("app", "embedded://")
            .exactly_once()
            .group_protocol(GroupProtocol::Sticky)
            .session_timeout(self.session)
            .commit_interval(Duration::from_millis(5))
            // What a crash leaves open is in the way for much longer than a test takes.
            .transaction_timeout(Duration::from_secs(600))
            .client_id(instance)
            .state_dir(self.folder.path().join(instance))
            .cache_bytes(0);
        config.cluster = Some(GivenCluster(Arc::new(self.cluster.clone())));
        config
    }

    pub(super) fn start(&self, instance: &str) -> KafkaStreams {
        start(self.config(instance))
    }

    /// Another record of each key.
    pub(super) fn write(&mut self) {
        self.written += 1;
        for key in KEYS {
            self.cluster.inner.produce("in", Some(key.as_bytes()), Some(b"x"), Some(self.written)).unwrap();
        }
    }

    /// Another record of each key, and all of them counted by somebody.
    pub(super) fn count(&mut self) {
        self.write();
        self.assert_counted();
    }

    /// Everything is counted once, by and by.
    pub(super) fn assert_counted(&self) {
        let expected: Vec<_> = (1..=self.written).collect();
        wait_until("all is counted", || {
            let counts = counts(&self.cluster.inner);
            KEYS.iter().all(|key| counts.get(*key).is_some_and(|seen| seen.len() >= expected.len()))
        });
        let counts = counts(&self.cluster.inner);
        for key in KEYS {
            assert_eq!(counts[key], expected, "{key}");
        }
    }

    pub(super) fn journal(&self) -> Vec<Entry> {
        self.cluster.journal.lock().unwrap().clone()
    }

    pub(super) fn forget(&self) {
        self.cluster.journal.lock().unwrap().clear();
    }

    fn generations(&self) -> BTreeSet<i32> {
        let generation = |entry| match entry {
            Entry::Joined { generation, .. } => Some(generation),
            Entry::Reads { .. } | Entry::Fenced(_) | Entry::Refused(_) => None,
        };
        self.journal().into_iter().filter_map(generation).collect()
    }

    /// Inputs that an instance has begun to read, in order.
    pub(super) fn reads(&self, instance: &str) -> Vec<i32> {
        let read = |entry| match entry {
            Entry::Reads { client, partition } if client.starts_with(instance) => Some(partition),
            Entry::Reads { .. } | Entry::Joined { .. } | Entry::Fenced(_) | Entry::Refused(_) => None,
        };
        let mut reads: Vec<_> = self.journal().into_iter().filter_map(read).collect();
        reads.sort_unstable();
        reads
    }
}

pub(super) fn counting() -> StreamsBuilder {
    let builder = StreamsBuilder::new();
    builder
        .stream("in", Consumed::with(Utf8, Utf8))
        .group_by_key(Grouped::with(Utf8, Utf8))
        .count(Materialized::named("counts").in_memory())
        .to_stream()
        .to("out", Produced::with(Utf8, I64));
    builder
}

/// Not waited for.
pub(super) fn begin(config: Config) -> KafkaStreams {
    let streams = KafkaStreams::new(counting().build().unwrap(), config).unwrap();
    streams.start().unwrap();
    streams
}

pub(super) fn start(config: Config) -> KafkaStreams {
    let streams = begin(config);
    wait_until("it runs", || streams.state() == State::Running);
    streams
}

#[track_caller]
#[expect(clippy::disallowed_methods, reason = "a test waits for threads")]
pub(super) fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < Duration::from_secs(60), "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

const SHORT: Duration = Duration::from_millis(500);
pub(super) const LONG: Duration = Duration::from_secs(300);

#[test]
fn what_stays_is_not_touched_when_an_instance_joins() {
    let mut scene = Scene::new(LONG);
    let first = scene.start("first");
    scene.count();
    assert_eq!(scene.reads("first"), [0, 1, 2, 3, 4, 5]);
    scene.forget();
    let second = scene.start("second");
    wait_until("half of the tasks have moved", || scene.reads("second").len() == 3);
    scene.count();
    assert_eq!(scene.reads("first"), Vec::<i32>::new());
    // One that gives tasks away, one in which they are given.
    assert_eq!(scene.generations(), BTreeSet::from([2, 3]));
    scene.forget();
    let third = scene.start("third");
    wait_until("a third of the tasks have moved", || scene.reads("third").len() == 2);
    scene.count();
    assert_eq!([scene.reads("first"), scene.reads("second")].concat(), Vec::<i32>::new());
    for streams in [first, second, third] {
        streams.close(CloseOptions::default()).unwrap();
    }
}

#[test]
fn the_tasks_of_an_instance_that_leaves_go_to_the_others_at_once() {
    let mut scene = Scene::new(LONG);
    let (first, second) = (scene.start("first"), scene.start("second"));
    wait_until("half of the tasks have moved", || scene.reads("second").len() == 3);
    scene.count();
    scene.forget();
    first.close(CloseOptions::default().leave_group()).unwrap();
    scene.count();
    assert_eq!(scene.reads("second").len(), 3);
    second.close(CloseOptions::default()).unwrap();
}

#[test]
fn the_tasks_of_an_instance_that_crashes_go_to_the_others_when_its_session_is_over() {
    let mut scene = Scene::new(SHORT);
    let (first, second) = (scene.start("first"), scene.start("second"));
    wait_until("half of the tasks have moved", || scene.reads("second").len() == 3);
    scene.count();
    scene.forget();
    first.crash();
    scene.count();
    assert_eq!(scene.reads("second").len(), 3);
    let fenced = scene.journal().into_iter().find_map(|entry| match entry {
        Entry::Fenced(ids) => Some(ids),
        Entry::Joined { .. } | Entry::Reads { .. } | Entry::Refused(_) => None,
    });
    assert!(fenced.is_some_and(|ids| ids.len() == 1 && ids[0].starts_with("app-") && ids[0].ends_with("-1")));
    second.close(CloseOptions::default()).unwrap();
}

#[test]
fn a_restart_in_place_moves_nothing_and_nobody_else_notices() {
    let mut scene = Scene::new(LONG);
    let (first, second) = (scene.start("first"), scene.start("second"));
    wait_until("half of the tasks have moved", || scene.reads("second").len() == 3);
    scene.count();
    let generation = scene.generations().pop_last();
    let (of_first, of_second) = (scene.reads("first"), scene.reads("second"));
    let kept: Vec<_> = of_first.iter().copied().filter(|partition| !of_second.contains(partition)).collect();
    let mut running = vec![first, second];
    // The leader and a follower, closed and crashed.
    for (instance, is_clean) in [("first", true), ("second", true), ("first", false), ("second", false)] {
        scene.forget();
        let streams = running.remove(0);
        if is_clean {
            streams.close(CloseOptions::default()).unwrap()
        } else {
            streams.crash()
        }
        running.push(scene.start(instance));
        scene.count();
        assert_eq!(scene.generations().pop_last(), generation, "{instance}, closed: {is_clean}");
        let (own, other) = if instance == "first" { (&kept, "second") } else { (&of_second, "first") };
        assert_eq!((&scene.reads(instance), scene.reads(other)), (own, vec![]));
    }
}

#[test]
fn the_threads_of_an_instance_share_its_tasks() {
    let mut scene = Scene::new(LONG);
    let streams = start(scene.config("first").threads(2));
    scene.count();
    for thread in ["first-StreamThread-1", "first-StreamThread-2"] {
        assert_eq!(scene.reads(thread).len(), 3, "{thread}");
    }
    assert_eq!(scene.generations(), BTreeSet::from([1]));
    streams.close(CloseOptions::default()).unwrap();
}

#[test]
fn without_a_state_directory_an_instance_leaves_when_it_is_closed() {
    let mut scene = Scene::new(LONG);
    let nameless = |instance| {
        let mut config = scene.config(instance);
        config.state_dir = None;
        config
    };
    let (first, second) = (start(nameless("first")), start(nameless("second")));
    wait_until("half of the tasks have moved", || scene.reads("second").len() == 3);
    first.close(CloseOptions::default()).unwrap();
    scene.count();
    second.close(CloseOptions::default()).unwrap();
}
