use super::*;
use crate::error::ErrorKind;

const TEN_SECONDS: Duration = Duration::from_secs(10);

#[test]
fn a_transaction_ends_by_the_virtual_clock_alone() {
    let cluster = EmbeddedCluster::with_virtual_clock();
    cluster.create_topic("t", 1).unwrap();
    let mut producer = transactional(&cluster, "tx", TEN_SECONDS);
    producer.begin_transaction().unwrap();
    cluster.advance(TEN_SECONDS * 2).unwrap();
    send(producer.as_mut(), "t", 0, None, "its time begins with the first record");
    cluster.advance(TEN_SECONDS).unwrap();
    assert_eq!(cluster.end_offset("t", 0).unwrap(), 1);
    cluster.advance(Duration::from_millis(1)).unwrap();
    assert_eq!(cluster.end_offset("t", 0).unwrap(), 2, "the abort marker");
    assert_eq!(producer.abort_transaction(TEN_SECONDS).unwrap_err().kind(), ErrorKind::Fenced);
    assert_eq!(producer.begin_transaction().unwrap_err().kind(), ErrorKind::Internal);

    let mut next = transactional(&cluster, "tx", TEN_SECONDS);
    next.begin_transaction().unwrap();
    send(next.as_mut(), "t", 0, None, "kept");
    next.commit_transaction(TEN_SECONDS).unwrap();
    assert_eq!(values(&cluster, "t"), ["kept"]);
    assert_eq!(cluster.records("t").unwrap()[1].timestamp, 30_001, "the cluster's time");
}

#[test]
fn a_refused_record_is_a_delivery_failure_and_its_transaction_can_only_be_aborted() {
    let cluster = EmbeddedCluster::new();
    cluster.create_topic("plain", 1).unwrap();
    let small = [("cleanup.policy", "compact"), ("max.message.bytes", "10")];
    cluster.create_topic_with("compacted", 1, small).unwrap();
    let mut producer = transactional(&cluster, "tx", TEN_SECONDS);
    let refused: [(&str, i32, Option<&str>, &str); 4] = [
        ("compacted", 0, None, "no key"),
        ("compacted", 0, Some("k"), "more than ten bytes"),
        ("plain", 1, Some("k"), "no such partition"),
        ("missing", 0, Some("k"), "no such topic"),
    ];
    for (topic, partition, key, value) in refused {
        producer.begin_transaction().unwrap();
        send(producer.as_mut(), "plain", 0, None, "dropped");
        send(producer.as_mut(), topic, partition, key, value);
        let failures = producer.confirm(TEN_SECONDS).unwrap();
        assert_eq!(failures.len(), 1, "{value}");
        assert_eq!(failures[0].value.as_deref(), Some(value.as_bytes()));
        assert_eq!(failures[0].error.kind(), ErrorKind::Invalid);
        assert!(failures[0].error.to_string().contains(topic), "{}", failures[0].error);
        assert_eq!(producer.commit_transaction(TEN_SECONDS).unwrap_err().kind(), ErrorKind::Aborted);
        producer.abort_transaction(TEN_SECONDS).unwrap();
    }
    producer.begin_transaction().unwrap();
    send(producer.as_mut(), "plain", 0, None, "kept");
    producer.commit_transaction(TEN_SECONDS).unwrap();
    assert_eq!(values(&cluster, "plain"), ["kept"]);
}

#[test]
fn every_call_of_a_fenced_producer_says_so() {
    let cluster = EmbeddedCluster::new();
    cluster.create_topic("t", 1).unwrap();
    let mut idle = transactional(&cluster, "tx", TEN_SECONDS);
    let mut busy = transactional(&cluster, "tx", TEN_SECONDS);
    assert_eq!(idle.begin_transaction().unwrap_err().kind(), ErrorKind::Fenced);
    busy.begin_transaction().unwrap();
    send(busy.as_mut(), "t", 0, None, "lost");
    let _new = transactional(&cluster, "tx", TEN_SECONDS);
    let topic = "t".into();
    let record = ProducerRecord {
        topic: &topic,
        partition: None,
        key: None,
        value: None,
        timestamp: None,
        headers: &Headers::new(),
    };
    assert_eq!(busy.send(record, false).unwrap_err().kind(), ErrorKind::Fenced);
    assert_eq!(busy.commit_transaction(TEN_SECONDS).unwrap_err().kind(), ErrorKind::Fenced);
    assert_eq!(busy.abort_transaction(TEN_SECONDS).unwrap_err().kind(), ErrorKind::Fenced);
    assert!(values(&cluster, "t").is_empty());
}

#[test]
fn a_topic_deleted_within_a_transaction_does_not_stop_it() {
    let cluster = EmbeddedCluster::new();
    cluster.create_topic("gone", 1).unwrap();
    cluster.create_topic("kept", 1).unwrap();
    let mut producer = transactional(&cluster, "tx", TEN_SECONDS);
    producer.begin_transaction().unwrap();
    send(producer.as_mut(), "gone", 0, None, "a");
    send(producer.as_mut(), "kept", 0, None, "b");
    cluster.delete_topic("gone").unwrap();
    cluster.create_topic("gone", 1).unwrap();
    producer.commit_transaction(TEN_SECONDS).unwrap();
    assert_eq!((values(&cluster, "gone").len(), values(&cluster, "kept").len()), (0, 1));
    assert_eq!(cluster.end_offset("gone", 0).unwrap(), 0, "the new topic has nothing of the transaction");
}

#[test]
fn a_position_that_is_compacted_away_is_read_on_behind_it() {
    let cluster = EmbeddedCluster::new();
    cluster.create_topic_with("t", 1, [("cleanup.policy", "compact")]).unwrap();
    for value in ["1", "2", "3"] {
        cluster.produce("t", Some(b"k"), Some(value.as_bytes()), None).unwrap();
    }
    cluster.maintain().unwrap();
    let records = cluster.records("t").unwrap();
    assert_eq!(records.iter().map(|record| record.offset).collect::<Vec<_>>(), [2]);
    let partition = TopicPartition::new("t", 0);
    let isolation = Isolation::ReadCommitted;
    let mut consumer = cluster
        .consumer(&ConsumerSpec { client_id: "c".into(), isolation, topics: crate::client::Topics::Any })
        .unwrap();
    consumer.assign(&[(partition.clone(), 1)]).unwrap();
    let mut batch = crate::record::RecordBatch::default();
    consumer.fetch(&partition, 10, &mut batch).unwrap();
    assert_eq!(batch.get(0, 0).map(|record| record.offset), Some(2));
    assert_eq!(consumer.position(&partition), Some(3));
}
