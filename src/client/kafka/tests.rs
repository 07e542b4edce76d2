//! The suite of behaviour on a real Kafka, and what only a real one shows.

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::client::conformance::conformance_tests;
use crate::client::{Isolation, NewTopic};
use crate::membership::{MembershipEvent, TaskMap};
use crate::record::{Headers, OffsetAndMetadata, ProducerRecord, TopicPartition};
use crate::topology::TaskId;

/// The broker named by `KSTREAMS_TEST_BOOTSTRAP`, which `make test` sets; none skips the test, but not in CI.
pub(super) fn bootstrap() -> Option<String> {
    let bootstrap = std::env::var("KSTREAMS_TEST_BOOTSTRAP").ok();
    assert!(
        bootstrap.is_some() || std::env::var_os("CI").is_none(),
        "CI tests on a real Kafka: KSTREAMS_TEST_BOOTSTRAP must name a broker"
    );
    bootstrap
}

fn cluster() -> Option<KafkaCluster> {
    let bootstrap = bootstrap()?;
    Some(KafkaCluster::new(&bootstrap, "kstreams-conformance", BTreeMap::new()).unwrap())
}

mod changelogs;

mod conformance {
    super::conformance_tests!(super::cluster());
}

mod from_outside {
    super::conformance_tests! { @ super::cluster();
        positions_are_set_from_outside_while_a_group_is_empty,
        a_member_is_taken_out_from_outside,
        positions_seen_from_outside_wait_for_an_open_transaction,
    }
}

/// Nothing listens on port 1.
#[test]
fn no_broker_at_the_address_is_told_with_what_the_connection_said() {
    let settings = Settings::new("127.0.0.1:1", BTreeMap::new()).unwrap();
    let conf = settings.conf(ClientKind::Admin, "test").unwrap();
    let error = KafkaAdmin::new(conf, "test", settings.bootstrap(), Duration::from_millis(300)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{}", error.report());
    assert!(error.to_string().contains("no broker answers at 127.0.0.1:1: check the address"), "{error}");
    assert!(error.report().contains("Connection refused"), "{}", error.report());
}

/// Settings with which a silent member is thrown out after a few seconds.
fn impatient() -> Option<KafkaCluster> {
    let overrides =
        [("session.timeout.ms", "2000"), ("max.poll.interval.ms", "3000"), ("heartbeat.interval.ms", "100")];
    let overrides = overrides.map(|(name, value)| (format!("consumer.{name}"), value.to_string()));
    Some(KafkaCluster::new(&bootstrap()?, "kstreams-impatient", BTreeMap::from(overrides)).unwrap())
}

struct OneTaskPerPartition;

impl TaskMap for OneTaskPerPartition {
    fn tasks(&self, partitions: &BTreeSet<TopicPartition>) -> Result<BTreeSet<TaskId>> {
        Ok(partitions.iter().map(|p| TaskId { sub_topology: 0, partition: p.partition }).collect())
    }
}

fn topic(cluster: &KafkaCluster, partitions: i32) -> Arc<str> {
    topic_with(cluster, partitions, BTreeMap::new())
}

fn topic_with(cluster: &KafkaCluster, partitions: i32, config: BTreeMap<String, String>) -> Arc<str> {
    let name: Arc<str> = format!("t-{}", uuid::Uuid::new_v4()).into();
    let new = NewTopic { name: Arc::clone(&name), partitions, replication: None, config };
    cluster.admin().unwrap().create_topics(&[new]).unwrap();
    name
}

fn join(cluster: &KafkaCluster, topic: &Arc<str>) -> (Box<dyn Membership>, Box<dyn Consumer>) {
    let spec = GroupSpec {
        group: format!("group-of-{topic}"),
        client_id: "test".to_string(),
        instance_id: None,
        topics: vec![Arc::clone(topic)],
        isolation: Isolation::ReadCommitted,
        tasks: Arc::new(OneTaskPerPartition),
    };
    cluster.join(&spec).unwrap()
}

/// The next event; serves the other members meanwhile.
fn next(member: &mut (Box<dyn Membership>, Box<dyn Consumer>), mut meanwhile: impl FnMut()) -> MembershipEvent {
    for _ in 0..6_000 {
        member.1.wait(Duration::from_millis(10)).unwrap();
        if let Some(event) = member.0.poll().unwrap() {
            return event;
        }
        meanwhile();
    }
    panic!("no event came");
}

fn tasks(partitions: std::ops::Range<i32>) -> BTreeSet<TaskId> {
    partitions.map(|partition| TaskId { sub_topology: 0, partition }).collect()
}

#[test]
fn a_member_that_answers_too_late_cannot_commit_and_comes_back() {
    let Some(cluster) = impatient() else { return eprintln!("skipped: there is no broker") };
    let topic = topic(&cluster, 2);
    let mut late = join(&cluster, &topic);
    assert_eq!(next(&mut late, || {}), MembershipEvent::Assigned { active: tasks(0..2) });
    let mut other = join(&cluster, &topic);
    let asked = next(&mut late, || assert_eq!(other.0.poll().unwrap(), None));
    assert_eq!(asked, MembershipEvent::Revoked { tasks: tasks(0..2) });

    // The group waits for the answer as long as max.poll.interval.ms, then goes on without it.
    let given = next(&mut other, || assert_eq!(late.0.poll().unwrap(), None));
    assert_eq!(given, MembershipEvent::Assigned { active: tasks(0..2) });
    let position = OffsetAndMetadata { offset: 1, metadata: String::new() };
    let error = late.0.commit(&[(TopicPartition::new(Arc::clone(&topic), 0), position)]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Fenced, "{}", error.report());

    late.0.acknowledge().unwrap();
    let asked = next(&mut other, || assert_eq!(late.0.poll().unwrap(), None));
    assert_eq!(asked, MembershipEvent::Revoked { tasks: tasks(0..2) });
    other.0.acknowledge().unwrap();
    let MembershipEvent::Assigned { active } = next(&mut late, || drop(other.0.poll().unwrap())) else {
        panic!("the late member is not given a task")
    };
    assert_eq!(active.len(), 1);
}

#[test]
fn a_member_that_is_silent_too_long_has_lost_its_tasks() {
    let Some(cluster) = impatient() else { return eprintln!("skipped: there is no broker") };
    let topic = topic(&cluster, 2);
    let mut silent = join(&cluster, &topic);
    assert_eq!(next(&mut silent, || {}), MembershipEvent::Assigned { active: tasks(0..2) });
    assert!(silent.0.group_metadata().unwrap().is_some());

    let mut other = join(&cluster, &topic);
    assert_eq!(next(&mut other, || {}), MembershipEvent::Assigned { active: tasks(0..2) });
    assert_eq!(next(&mut silent, || {}), MembershipEvent::Lost { tasks: tasks(0..2) });
    silent.0.acknowledge().unwrap();
    let asked = next(&mut other, || assert_eq!(silent.0.poll().unwrap(), None));
    assert_eq!(asked, MembershipEvent::Revoked { tasks: tasks(0..2) });
}

#[test]
fn a_missing_source_topic_is_named() {
    let Some(cluster) = cluster() else { return eprintln!("skipped: there is no broker") };
    let missing: Arc<str> = format!("missing-{}", uuid::Uuid::new_v4()).into();
    let (mut membership, mut consumer) = join(&cluster, &missing);
    let error = loop {
        consumer.wait(Duration::from_millis(10)).unwrap();
        if let Err(error) = membership.poll() {
            break error;
        }
    };
    assert_eq!(error.kind(), ErrorKind::Invalid, "{}", error.report());
    assert!(error.to_string().contains(&*missing), "{}", error.report());
}

#[test]
fn records_without_a_key_go_on_to_the_next_partition_in_runs() {
    let Some(cluster) = cluster() else { return eprintln!("skipped: there is no broker") };
    let topic = topic(&cluster, 2);
    let spec = ProducerSpec {
        client_id: "test".to_string(),
        transactional_id: None,
        transaction_timeout: Duration::ZERO,
        outputs: Arc::default(),
    };
    let mut producer = cluster.producer(&spec).unwrap();
    let (value, headers) = ([0; 1024], Headers::new());
    for _ in 0..128 {
        let record = ProducerRecord {
            topic: &topic,
            partition: None,
            key: None,
            value: Some(&value),
            timestamp: None,
            headers: &headers,
        };
        producer.send(record, true).unwrap();
    }
    assert!(producer.confirm(REQUEST_TIMEOUT).unwrap().is_empty());
    for partition in 0..2 {
        assert_eq!(producer.end_offset(&TopicPartition::new(Arc::clone(&topic), partition)), Some(64));
    }
}

fn value_to<'a>(topic: &'a Arc<str>, value: &'a [u8], headers: &'a Headers) -> ProducerRecord<'a> {
    ProducerRecord { topic, partition: Some(0), key: Some(b"k"), value: Some(value), timestamp: Some(7), headers }
}

#[test]
fn a_record_that_the_broker_refuses_is_told_and_the_producer_goes_on() {
    let Some(cluster) = cluster() else { return eprintln!("skipped: there is no broker") };
    let small = BTreeMap::from([("max.message.bytes".to_string(), "1000".to_string())]);
    let topic = topic_with(&cluster, 1, small);
    let (long, headers) = (uuid::Uuid::new_v4().to_string().repeat(200), Headers::new());
    // Random enough not to be compressed below the limit.
    let long: Vec<u8> =
        long.bytes().enumerate().map(|(i, byte)| byte ^ u8::try_from(i * i / 7 % 251).unwrap_or(0)).collect();
    for transactional_id in [None, Some(format!("tx-of-{topic}"))] {
        let transactional = transactional_id.is_some();
        let spec = ProducerSpec {
            client_id: "test".to_string(),
            transactional_id,
            transaction_timeout: Duration::from_secs(30),
            outputs: Arc::default(),
        };
        let mut producer = cluster.producer(&spec).unwrap();
        if transactional {
            producer.init_transactions(REQUEST_TIMEOUT).unwrap();
            producer.begin_transaction().unwrap();
        }
        producer.send(value_to(&topic, &long, &headers), false).unwrap();
        let failures = producer.confirm(REQUEST_TIMEOUT).unwrap();
        let [failure] = &failures[..] else { panic!("one failure, not {failures:?}") };
        assert_eq!(failure.error.kind(), ErrorKind::Invalid, "{}", failure.error.report());
        assert_eq!(failure.value.as_deref(), Some(&long[..]));
        assert_eq!((failure.key.as_deref(), failure.timestamp), (Some(&b"k"[..]), Some(7)));
        if !transactional {
            producer.send(value_to(&topic, b"v", &headers), true).unwrap();
            assert!(producer.confirm(REQUEST_TIMEOUT).unwrap().is_empty());
            assert_eq!(producer.end_offset(&TopicPartition::new(Arc::clone(&topic), 0)), Some(1));
            continue;
        }
        let error = producer.send(value_to(&topic, b"v", &headers), false).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Aborted, "{}", error.report());
        let error = producer.commit_transaction(REQUEST_TIMEOUT).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Aborted, "{}", error.report());
        producer.abort_transaction(REQUEST_TIMEOUT).unwrap();
        // The refused record has left a gap in the sequence: the next transaction may have to be aborted once more.
        let mut aborts = 0;
        loop {
            producer.begin_transaction().unwrap();
            producer.send(value_to(&topic, b"v", &headers), true).unwrap();
            let failures = producer.confirm(REQUEST_TIMEOUT).unwrap();
            assert!(failures.iter().all(|failure| failure.error.kind() == ErrorKind::Aborted), "{failures:?}");
            match producer.commit_transaction(REQUEST_TIMEOUT) {
                Ok(()) => break assert!(failures.is_empty(), "committed without {failures:?}"),
                Err(error) => assert_eq!(error.kind(), ErrorKind::Aborted, "{}", error.report()),
            }
            aborts += 1;
            assert!(aborts < 3);
            producer.abort_transaction(REQUEST_TIMEOUT).unwrap();
        }
        assert!(producer.end_offset(&TopicPartition::new(Arc::clone(&topic), 0)).is_some());
    }
}
