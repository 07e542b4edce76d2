//! Records, positions, lag.

use std::sync::Arc;
use std::time::Duration;

use crate::client::conformance::steps::*;
use crate::client::{Cluster, Fetch, Isolation, Lag, partition_for_key};
use crate::record::{Headers, ProducerRecord, RecordBatch, TopicPartition};

pub(crate) fn records_come_back_in_order_with_nulls_headers_and_timestamps(cluster: &dyn Cluster) {
    let topic = new_topic(cluster, 1, &[]);
    let mut producer = plain_producer(cluster);
    let mut headers = Headers::new();
    headers.add("a", "1");
    headers.add_null("a");
    headers.add("", "");
    let sent = [
        seen(Some("k"), Some("v"), 1_700_000_000_000, headers),
        seen(None, Some(""), 5, Headers::new()),
        seen(Some(""), None, 1_700_000_000_001, Headers::new()),
        // Not 0, which librdkafka takes for "now".
        seen(None, None, 1, Headers::new()),
    ];
    for record in &sent {
        producer.send(record.to(&topic, 0), false).unwrap();
    }
    confirm(producer.as_mut());

    let partition = TopicPartition::new(Arc::clone(&topic), 0);
    let mut consumer = consumer(cluster, Isolation::ReadUncommitted, &[(partition.clone(), 0)]);
    let read = read(consumer.as_mut(), &partition, 4);
    assert_eq!(read.iter().map(|(offset, _)| *offset).collect::<Vec<_>>(), [0, 1, 2, 3]);
    assert_eq!(read.into_iter().map(|(_, record)| record).collect::<Vec<_>>(), sent);
    assert_eq!(consumer.position(&partition), Some(4));
    assert_eq!(consumer.end(&partition), Some(4));

    let before = now_ms();
    let none = Headers::new();
    let record =
        ProducerRecord { topic: &topic, partition: Some(0), key: None, value: None, timestamp: None, headers: &none };
    producer.send(record, false).unwrap();
    confirm(producer.as_mut());
    let timestamp = read_one(consumer.as_mut(), &partition).timestamp;
    assert!((timestamp - before).abs() < 3_600_000, "a record without a timestamp gets the clock's, not {timestamp}");
}

pub(crate) fn a_key_finds_its_partition_by_murmur2(cluster: &dyn Cluster) {
    let topic = new_topic(cluster, 5, &[]);
    let mut producer = plain_producer(cluster);
    assert_eq!(producer.partitions(&topic).unwrap(), 5);
    for key in ["alice", "bob", "carol", "dave", "eve"] {
        let record = seen(Some(key), Some(key), 1, Headers::new());
        producer.send(ProducerRecord { partition: None, ..record.to(&topic, 0) }, true).unwrap();
        confirm(producer.as_mut());
        let partition = TopicPartition::new(Arc::clone(&topic), partition_for_key(key.as_bytes(), 5));
        let end = producer.end_offset(&partition).unwrap();
        let mut consumer = consumer(cluster, Isolation::ReadUncommitted, &[(partition.clone(), end - 1)]);
        assert_eq!(read_one(consumer.as_mut(), &partition).key.as_deref(), Some(key.as_bytes()));
    }
}

pub(crate) fn a_partition_is_moved_to_another_offset(cluster: &dyn Cluster) {
    let topic = new_topic(cluster, 1, &[]);
    let partition = TopicPartition::new(Arc::clone(&topic), 0);
    let mut producer = plain_producer(cluster);
    for value in 0..10 {
        write(producer.as_mut(), &topic, 0, &value.to_string());
    }
    confirm(producer.as_mut());
    let mut consumer = consumer(cluster, Isolation::ReadCommitted, &[(partition.clone(), 4)]);
    assert_eq!(offsets(&read(consumer.as_mut(), &partition, 2)), [4, 5]);
    consumer.assign(&[(partition.clone(), 1)]).unwrap();
    assert_eq!(consumer.position(&partition), Some(1));
    assert_eq!(offsets(&read(consumer.as_mut(), &partition, 9)), [1, 2, 3, 4, 5, 6, 7, 8, 9]);
    consumer.assign(&[(partition.clone(), 8)]).unwrap();
    assert_eq!(offsets(&read(consumer.as_mut(), &partition, 2)), [8, 9]);
}

pub(crate) fn an_unassigned_partition_is_not_read(cluster: &dyn Cluster) {
    let topic = new_topic(cluster, 2, &[]);
    let [zero, one] = [0, 1].map(|partition| TopicPartition::new(Arc::clone(&topic), partition));
    let mut producer = plain_producer(cluster);
    write(producer.as_mut(), &topic, 0, "zero");
    write(producer.as_mut(), &topic, 1, "one");
    confirm(producer.as_mut());
    let mut consumer = consumer(cluster, Isolation::ReadCommitted, &[(zero.clone(), 0), (one.clone(), 0)]);
    assert_eq!(read_one(consumer.as_mut(), &zero).value.as_deref(), Some(&b"zero"[..]));
    consumer.unassign(&[zero.clone(), TopicPartition::new("never-assigned", 7)]).unwrap();
    assert_eq!(consumer.position(&zero), None);
    assert_eq!(read_one(consumer.as_mut(), &one).value.as_deref(), Some(&b"one"[..]));
    consumer.assign(&[(zero.clone(), 0)]).unwrap();
    assert_eq!(read_one(consumer.as_mut(), &zero).value.as_deref(), Some(&b"zero"[..]));
}

pub(crate) fn the_position_moves_past_control_records(cluster: &dyn Cluster) {
    let topic = new_topic(cluster, 1, &[]);
    let partition = TopicPartition::new(Arc::clone(&topic), 0);
    let mut producer = transactional_producer(cluster, &unique("tx"));
    for round in 0..2 {
        producer.begin_transaction().unwrap();
        write(producer.as_mut(), &topic, 0, &round.to_string());
        producer.commit_transaction(CALL).unwrap();
    }
    for isolation in [Isolation::ReadCommitted, Isolation::ReadUncommitted] {
        let mut consumer = consumer(cluster, isolation, &[(partition.clone(), 0)]);
        // Offsets 1 and 3 are control records.
        assert_eq!(offsets(&read(consumer.as_mut(), &partition, 2)), [0, 2]);
        let rest = drain(consumer.as_mut(), &partition);
        assert_eq!(rest, []);
        assert_eq!(consumer.position(&partition), Some(4), "{isolation:?}");
    }
}

pub(crate) fn lag_is_unknown_then_behind_then_caught_up(cluster: &dyn Cluster) {
    let topic = new_topic(cluster, 2, &[]);
    let [zero, one] = [0, 1].map(|partition| TopicPartition::new(Arc::clone(&topic), partition));
    let mut producer = plain_producer(cluster);
    write(producer.as_mut(), &topic, 0, "a");
    confirm(producer.as_mut());
    let mut consumer = consumer(cluster, Isolation::ReadCommitted, &[]);
    assert_eq!(consumer.lag(&zero), Lag::Unknown, "not assigned");
    consumer.assign(&[(zero.clone(), 0), (one.clone(), 0)]).unwrap();
    assert_ne!(consumer.lag(&zero), Lag::CaughtUp);
    assert_eq!(offsets(&drain(consumer.as_mut(), &zero)), [0]);
    assert_eq!(consumer.lag(&zero), Lag::CaughtUp);
    assert_eq!(offsets(&drain(consumer.as_mut(), &one)), [0; 0], "an empty partition is caught up with");
    assert_eq!(consumer.position(&one), Some(0));
    // A partition that is assigned anew knows nothing.
    consumer.assign(&[(zero.clone(), 0)]).unwrap();
    assert_ne!(consumer.lag(&zero), Lag::CaughtUp);
}

pub(crate) fn a_position_outside_of_the_log_is_out_of_range(cluster: &dyn Cluster) {
    let topic = new_topic(cluster, 1, &[]);
    let partition = TopicPartition::new(Arc::clone(&topic), 0);
    let mut producer = plain_producer(cluster);
    for value in 0..6 {
        write(producer.as_mut(), &topic, 0, &value.to_string());
    }
    confirm(producer.as_mut());
    cluster.admin().unwrap().delete_records(&[(partition.clone(), 3)]).unwrap();
    for offset in [0, 100] {
        let mut consumer = consumer(cluster, Isolation::ReadCommitted, &[(partition.clone(), offset)]);
        let mut batch = RecordBatch::default();
        until("the offset is out of range", || {
            consumer.wait(Duration::from_millis(10)).unwrap();
            consumer.fetch(&partition, 10, &mut batch).unwrap() == Fetch::OutOfRange
        });
        assert!(batch.is_empty());
        assert_eq!(consumer.position(&partition), Some(offset), "nothing was read");
        consumer.assign(&[(partition.clone(), 3)]).unwrap();
        assert_eq!(offsets(&read(consumer.as_mut(), &partition, 3)), [3, 4, 5]);
    }
}
