use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use proptest::prelude::*;

use super::*;
use crate::client::embedded::clock::Patience;
use crate::membership::LeaveMode;

const MINUTE: Duration = Duration::from_secs(60);

/// A step of an application on the cluster. What is not acknowledged is not in it: it may be lost or not.
#[derive(Debug, Clone)]
enum Step {
    Plain { partition: i32, key: u8 },
    Begin { id: usize },
    Send { id: usize, partition: i32, key: u8 },
    Offsets { id: usize, offset: i64 },
    Commit { id: usize },
    Abort { id: usize },
    Maintain,
    Delete { partition: i32, before: i64 },
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    let (id, partition, key) = (|| 0..2_usize, || 0..2_i32, || 0..3_u8);
    prop_oneof![
        4 => (partition(), key()).prop_map(|(partition, key)| Step::Plain { partition, key }),
        4 => id().prop_map(|id| Step::Begin { id }),
        6 => (id(), partition(), key()).prop_map(|(id, partition, key)| Step::Send { id, partition, key }),
        2 => (id(), 0..9_i64).prop_map(|(id, offset)| Step::Offsets { id, offset }),
        4 => id().prop_map(|id| Step::Commit { id }),
        2 => id().prop_map(|id| Step::Abort { id }),
        1 => Just(Step::Maintain),
        1 => (partition(), 0..6_i64).prop_map(|(partition, before)| Step::Delete { partition, before }),
        1 => Just(Step::Reopen),
    ]
}

/// Applications that use a cluster in a directory, killed and started again.
struct World {
    cluster: Option<EmbeddedCluster>,
    producers: Vec<Box<dyn Producer>>,
    in_transaction: [bool; 2],
    member: Option<(Box<dyn Membership>, Box<dyn Consumer>)>,
}

impl World {
    fn open(directory: &Path) -> World {
        let cluster = EmbeddedCluster::open(directory).unwrap();
        cluster.create_topic_with("t", 2, [("cleanup.policy", "compact")]).unwrap();
        let producers = ["tx-0", "tx-1"].map(|id| transactional(&cluster, id, MINUTE)).into();
        let mut member = cluster.join(&spec("a", &["t"])).unwrap();
        member.0.poll().unwrap();
        World { cluster: Some(cluster), producers, in_transaction: [false; 2], member: Some(member) }
    }

    fn cluster(&self) -> &EmbeddedCluster {
        self.cluster.as_ref().unwrap()
    }

    fn take(&mut self, directory: &Path, number: usize, step: &Step) {
        let value = number.to_string();
        match *step {
            Step::Plain { partition, key } => {
                let (topic, headers) = ("t".into(), Headers::new());
                let record = ProducerRecord {
                    topic: &topic,
                    partition: Some(partition),
                    key: Some(&[key]),
                    value: Some(value.as_bytes()),
                    timestamp: Some(1),
                    headers: &headers,
                };
                self.cluster().produce_record(record).unwrap();
            }
            Step::Begin { id } if !self.in_transaction[id] => {
                self.producers[id].begin_transaction().unwrap();
                self.in_transaction[id] = true;
            }
            Step::Send { id, partition, key } if self.in_transaction[id] => {
                send(self.producers[id].as_mut(), "t", partition, Some(&key.to_string()), &value);
            }
            Step::Offsets { id, offset } if self.in_transaction[id] => {
                let metadata = self.member.as_mut().unwrap().0.group_metadata().unwrap().unwrap();
                let offsets = [(TopicPartition::new("t", 0), at(offset))];
                self.producers[id].send_offsets(&offsets, &metadata).unwrap();
            }
            Step::Commit { id } if self.in_transaction[id] => {
                self.producers[id].commit_transaction(MINUTE).unwrap();
                self.in_transaction[id] = false;
            }
            Step::Abort { id } if self.in_transaction[id] => {
                self.producers[id].abort_transaction(MINUTE).unwrap();
                self.in_transaction[id] = false;
            }
            Step::Maintain => self.cluster().maintain().unwrap(),
            Step::Delete { partition, before } => {
                let end = self.cluster().end_offset("t", partition).unwrap();
                let mut admin = self.cluster().admin().unwrap();
                admin.delete_records(&[(TopicPartition::new("t", partition), before.min(end))]).unwrap();
            }
            Step::Reopen => {
                self.close();
                *self = World::open(directory);
            }
            Step::Begin { .. }
            | Step::Send { .. }
            | Step::Offsets { .. }
            | Step::Commit { .. }
            | Step::Abort { .. } => {}
        }
    }

    fn close(&mut self) {
        (self.producers, self.member, self.cluster) = (Vec::new(), None, None);
    }

    /// What is there once every open transaction is ended by its successor.
    fn decided(&self) -> Decided {
        for id in ["tx-0", "tx-1"] {
            transactional(self.cluster(), id, MINUTE);
        }
        let records = self.cluster().read_committed("t").unwrap();
        let state = self.cluster().shared.state().unwrap();
        let logs = state.topics["t"].partitions.iter();
        Decided {
            records: records.into_iter().map(|record| (record.partition, record.offset, record.value)).collect(),
            marks: logs.map(|log| (log.start, log.end, log.stable_end())).collect(),
            committed: state.groups.get("app").map(|group| group.committed.clone()).unwrap_or_default(),
        }
    }
}

#[derive(Debug, PartialEq)]
struct Decided {
    records: Vec<(i32, i64, Option<Vec<u8>>)>,
    marks: Vec<(i64, i64, i64)>,
    committed: BTreeMap<TopicPartition, OffsetAndMetadata>,
}

/// What the operating system holds, which is what a killed process leaves behind.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        match entry.file_type().unwrap().is_dir() {
            true => copy(&entry.path(), &to.join(entry.file_name())),
            false => drop(fs::copy(entry.path(), to.join(entry.file_name())).unwrap()),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn a_killed_process_leaves_what_a_living_one_has(steps in proptest::collection::vec(step(), 1..40)) {
        let (alive, killed) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let mut world = World::open(alive.path());
        for (number, step) in steps.iter().enumerate() {
            world.take(alive.path(), number, step);
        }
        copy(alive.path(), killed.path());
        let after = World::open(killed.path()).decided();
        let mut expected = world.decided();
        // Open records that were not acknowledged may be lost, with the control records that end them.
        for (expected, after) in expected.marks.iter_mut().zip(&after.marks) {
            prop_assert!(after.1 <= expected.1 && after.1 == after.2, "{:?} {:?}", after, expected);
            *expected = *after;
        }
        prop_assert_eq!(after, expected);
    }
}

#[test]
fn a_process_that_aborts_loses_nothing_that_was_acknowledged() {
    const DIRECTORY: &str = "KSTREAMS_TEST_ABORTING_DIRECTORY";
    if let Some(directory) = std::env::var_os(DIRECTORY) {
        let cluster = EmbeddedCluster::open(directory).unwrap();
        cluster.create_topic("t", 1).unwrap();
        let mut member = cluster.join(&spec("a", &["t"])).unwrap();
        member.0.poll().unwrap();
        let metadata = member.0.group_metadata().unwrap().unwrap();
        let mut producer = transactional(&cluster, "tx", MINUTE);
        producer.begin_transaction().unwrap();
        send(producer.as_mut(), "t", 0, None, "committed");
        producer.send_offsets(&[(TopicPartition::new("t", 0), at(7))], &metadata).unwrap();
        producer.commit_transaction(MINUTE).unwrap();
        cluster.produce("t", None, Some(b"acknowledged"), None).unwrap();
        producer.begin_transaction().unwrap();
        send(producer.as_mut(), "t", 0, None, "open");
        producer.send_offsets(&[(TopicPartition::new("t", 0), at(8))], &metadata).unwrap();
        producer.confirm(MINUTE).unwrap();
        std::process::abort();
    }
    let directory = tempfile::tempdir().unwrap();
    let name = "client::embedded::tests::recovery::a_process_that_aborts_loses_nothing_that_was_acknowledged";
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture"])
        .env(DIRECTORY, directory.path())
        .output()
        .unwrap();
    assert!(!output.status.success(), "{output:?}");

    let cluster = EmbeddedCluster::open(directory.path()).unwrap();
    assert_eq!(values(&cluster, "t"), ["committed", "acknowledged"]);
    assert_eq!(cluster.records("t").unwrap().len(), 3, "the open record is there and holds back what follows");
    cluster.produce("t", None, Some(b"behind"), None).unwrap();
    assert_eq!(values(&cluster, "t"), ["committed", "acknowledged"]);
    assert_eq!(cluster.committed_offset("app", "t", 0).unwrap(), Some(7));
    transactional(&cluster, "tx", MINUTE);
    assert_eq!(values(&cluster, "t"), ["committed", "acknowledged", "behind"]);
}

#[test]
fn a_transaction_of_a_dead_process_ends_by_its_timeout() {
    let (alive, killed) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let cluster = EmbeddedCluster::open(alive.path()).unwrap();
    cluster.create_topic("t", 1).unwrap();
    let mut producer = transactional(&cluster, "tx", Duration::from_millis(20));
    producer.begin_transaction().unwrap();
    send(producer.as_mut(), "t", 0, None, "open");
    producer.confirm(MINUTE).unwrap();
    copy(alive.path(), killed.path());
    let cluster = EmbeddedCluster::open(killed.path()).unwrap();
    let patience = Patience::new(MINUTE);
    while cluster.end_offset("t", 0).unwrap() < 2 {
        assert!(patience.left().is_some(), "the transaction does not end");
        std::thread::yield_now();
    }
    assert!(values(&cluster, "t").is_empty());
}

#[test]
fn a_deleted_topic_stays_deleted_and_its_files_go() {
    let directory = tempfile::tempdir().unwrap();
    let partitions = directory.path().join("partitions");
    let cluster = EmbeddedCluster::open(directory.path()).unwrap();
    cluster.create_topic("t", 1).unwrap();
    let mut member = cluster.join(&spec("a", &["t"])).unwrap();
    member.0.poll().unwrap();
    cluster.produce("t", None, Some(b"old"), None).unwrap();
    member.0.commit(&[(TopicPartition::new("t", 0), at(1))]).unwrap();
    member.0.close(LeaveMode::Leave).unwrap();
    cluster.delete_topic("t").unwrap();
    assert_eq!(fs::read_dir(&partitions).unwrap().count(), 0);
    cluster.create_topic("t", 3).unwrap();
    drop((member, cluster));
    let cluster = EmbeddedCluster::open(directory.path()).unwrap();
    assert_eq!(cluster.partitions("t").unwrap(), Some(3));
    assert!(cluster.records("t").unwrap().is_empty());
    assert_eq!(cluster.committed_offset("app", "t", 0).unwrap(), None);
    assert_eq!(fs::read_dir(&partitions).unwrap().count(), 1);
}
