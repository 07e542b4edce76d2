//! Transactions and who may write them.

use std::sync::Arc;
use std::time::Duration;

use crate::client::conformance::steps::*;
use crate::client::{Cluster, Isolation, ProducerSpec};
use crate::error::ErrorKind;
use crate::record::{Headers, TopicPartition};

pub(crate) fn read_committed_skips_aborted_records(cluster: &dyn Cluster) {
    let topic = new_topic(cluster, 1, &[]);
    let partition = TopicPartition::new(Arc::clone(&topic), 0);
    let mut producer = transactional_producer(cluster, &unique("tx"));
    for (value, keep) in [("one", true), ("two", false), ("three", true), ("four", false)] {
        producer.begin_transaction().unwrap();
        write(producer.as_mut(), &topic, 0, value);
        confirm(producer.as_mut());
        match keep {
            true => producer.commit_transaction(CALL).unwrap(),
            false => producer.abort_transaction(CALL).unwrap(),
        }
    }
    let mut committed = consumer(cluster, Isolation::ReadCommitted, &[(partition.clone(), 0)]);
    assert_eq!(values(&drain_to(committed.as_mut(), &partition, 8)), ["one", "three"]);
    let mut everything = consumer(cluster, Isolation::ReadUncommitted, &[(partition.clone(), 0)]);
    assert_eq!(values(&drain_to(everything.as_mut(), &partition, 8)), ["one", "two", "three", "four"]);
}

pub(crate) fn read_committed_waits_for_an_open_transaction(cluster: &dyn Cluster) {
    let topic = new_topic(cluster, 1, &[]);
    let partition = TopicPartition::new(Arc::clone(&topic), 0);
    let mut plain = plain_producer(cluster);
    let mut producer = transactional_producer(cluster, &unique("tx"));
    write(plain.as_mut(), &topic, 0, "before");
    confirm(plain.as_mut());
    producer.begin_transaction().unwrap();
    write(producer.as_mut(), &topic, 0, "open");
    confirm(producer.as_mut());
    write(plain.as_mut(), &topic, 0, "behind");
    confirm(plain.as_mut());

    let mut committed = consumer(cluster, Isolation::ReadCommitted, &[(partition.clone(), 0)]);
    assert_eq!(values(&drain(committed.as_mut(), &partition)), ["before"]);
    assert_eq!(committed.position(&partition), Some(1));
    let mut everything = consumer(cluster, Isolation::ReadUncommitted, &[(partition.clone(), 0)]);
    assert_eq!(values(&read(everything.as_mut(), &partition, 3)), ["before", "open", "behind"]);
    producer.commit_transaction(CALL).unwrap();
    assert_eq!(values(&read(committed.as_mut(), &partition, 2)), ["open", "behind"]);
}

pub(crate) fn a_transaction_spans_topics(cluster: &dyn Cluster) {
    let topics = [new_topic(cluster, 1, &[]), new_topic(cluster, 2, &[])];
    let all = [
        TopicPartition::new(Arc::clone(&topics[0]), 0),
        TopicPartition::new(Arc::clone(&topics[1]), 0),
        TopicPartition::new(Arc::clone(&topics[1]), 1),
    ];
    let mut producer = transactional_producer(cluster, &unique("tx"));
    for keep in [false, true] {
        producer.begin_transaction().unwrap();
        for partition in &all {
            write(producer.as_mut(), &partition.topic, partition.partition, &keep.to_string());
        }
        match keep {
            true => producer.commit_transaction(CALL).unwrap(),
            false => {
                confirm(producer.as_mut());
                producer.abort_transaction(CALL).unwrap();
            }
        }
    }
    for partition in &all {
        let mut consumer = consumer(cluster, Isolation::ReadCommitted, &[(partition.clone(), 0)]);
        assert_eq!(values(&drain_to(consumer.as_mut(), partition, 4)), ["true"], "{partition}");
    }
}

pub(crate) fn an_empty_transaction_commits(cluster: &dyn Cluster) {
    let mut producer = transactional_producer(cluster, &unique("tx"));
    producer.begin_transaction().unwrap();
    producer.commit_transaction(CALL).unwrap();
    producer.begin_transaction().unwrap();
    producer.abort_transaction(CALL).unwrap();
}

pub(crate) fn an_older_producer_of_a_transactional_id_is_fenced(cluster: &dyn Cluster) {
    let topic = new_topic(cluster, 1, &[]);
    let partition = TopicPartition::new(Arc::clone(&topic), 0);
    let id = unique("tx");
    let mut old = transactional_producer(cluster, &id);
    old.begin_transaction().unwrap();
    write(old.as_mut(), &topic, 0, "old");
    confirm(old.as_mut());
    let mut new = transactional_producer(cluster, &id);
    let error = old.commit_transaction(CALL).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Fenced, "{}", error.report());
    new.begin_transaction().unwrap();
    write(new.as_mut(), &topic, 0, "new");
    new.commit_transaction(CALL).unwrap();
    let mut consumer = consumer(cluster, Isolation::ReadCommitted, &[(partition.clone(), 0)]);
    assert_eq!(values(&drain_to(consumer.as_mut(), &partition, 4)), ["new"]);
}

/// Slow on a broker: it looks for such transactions every ten seconds by default.
pub(crate) fn a_transaction_past_its_timeout_is_aborted(cluster: &dyn Cluster) {
    let topic = new_topic(cluster, 1, &[]);
    let partition = TopicPartition::new(Arc::clone(&topic), 0);
    let spec = ProducerSpec {
        client_id: unique("client"),
        transactional_id: Some(unique("tx")),
        transaction_timeout: Duration::from_secs(1),
        outputs: [Arc::clone(&topic)].into(),
    };
    let mut producer = cluster.producer(&spec).unwrap();
    producer.init_transactions(CALL).unwrap();
    producer.begin_transaction().unwrap();
    write(producer.as_mut(), &topic, 0, "late");
    confirm(producer.as_mut());
    let mut consumer = consumer(cluster, Isolation::ReadCommitted, &[(partition.clone(), 0)]);
    assert_eq!(values(&drain_to(consumer.as_mut(), &partition, 2)), [""; 0]);
    let error = producer.commit_transaction(CALL).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Fenced, "{}", error.report());
}

pub(crate) fn tracked_records_tell_the_end_offset(cluster: &dyn Cluster) {
    let topic = new_topic(cluster, 2, &[]);
    let [zero, one] = [0, 1].map(|partition| TopicPartition::new(Arc::clone(&topic), partition));
    let mut producer = transactional_producer(cluster, &unique("tx"));
    producer.begin_transaction().unwrap();
    let record = seen(Some("k"), Some("v"), 1, Headers::new());
    producer.send(record.to(&topic, 0), true).unwrap();
    producer.send(record.to(&topic, 0), true).unwrap();
    producer.send(record.to(&topic, 0), false).unwrap();
    producer.send(record.to(&topic, 1), false).unwrap();
    confirm(producer.as_mut());
    assert_eq!(producer.end_offset(&zero), Some(2), "the third record is not tracked");
    assert_eq!(producer.end_offset(&one), None);
    producer.commit_transaction(CALL).unwrap();
    assert_eq!(producer.end_offset(&zero), Some(2), "a control record is not counted");
    producer.begin_transaction().unwrap();
    producer.send(record.to(&topic, 0), true).unwrap();
    confirm(producer.as_mut());
    assert_eq!(producer.end_offset(&zero), Some(5));
    producer.commit_transaction(CALL).unwrap();
}

pub(crate) fn partitions_of_a_missing_topic_are_invalid(cluster: &dyn Cluster) {
    let mut producer = plain_producer(cluster);
    let name: Arc<str> = unique("missing").into();
    let error = producer.partitions(&name).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid, "{}", error.report());
    assert!(error.report().contains(&*name), "{}", error.report());
}
