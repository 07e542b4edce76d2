//! What the cases are written with.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::client::{
    Admin, Cluster, Consumer, ConsumerSpec, Fetch, Isolation, Lag, NewTopic, Producer, ProducerSpec, Topics,
};
use crate::record::{Headers, OffsetAndMetadata, ProducerRecord, RecordBatch, TopicPartition};

/// How long a cluster may take for anything before the case has failed.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);
/// For the calls that take a timeout.
pub(super) const CALL: Duration = Duration::from_secs(30);

/// A record as it was sent or read.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Seen {
    pub(super) key: Option<Vec<u8>>,
    pub(super) value: Option<Vec<u8>>,
    pub(super) timestamp: i64,
    pub(super) headers: Headers,
}

impl Seen {
    pub(super) fn to<'a>(&'a self, topic: &'a Arc<str>, partition: i32) -> ProducerRecord<'a> {
        ProducerRecord {
            topic,
            partition: Some(partition),
            key: self.key.as_deref(),
            value: self.value.as_deref(),
            timestamp: Some(self.timestamp),
            headers: &self.headers,
        }
    }
}

pub(super) fn seen(key: Option<&str>, value: Option<&str>, timestamp: i64, headers: Headers) -> Seen {
    Seen { key: key.map(Into::into), value: value.map(Into::into), timestamp, headers }
}

pub(super) fn unique(what: &str) -> String {
    format!("{what}-{}", uuid::Uuid::new_v4().simple())
}

pub(super) fn at(offset: i64, metadata: &str) -> OffsetAndMetadata {
    OffsetAndMetadata { offset, metadata: metadata.to_owned() }
}

#[expect(clippy::disallowed_methods, reason = "brokers go by the machine's clock")]
pub(super) fn now_ms() -> i64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    i64::try_from(now.as_millis()).unwrap()
}

#[expect(clippy::disallowed_methods, reason = "what a cluster takes its time for, it tells nobody when it is done")]
pub(super) fn pause(time: Duration) {
    std::thread::sleep(time);
}

#[expect(clippy::disallowed_methods, reason = "a case that waits for ever should fail")]
pub(super) fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < PATIENCE, "waited too long until {what}");
        pause(Duration::from_millis(1));
    }
}

pub(super) fn new_topic(cluster: &dyn Cluster, partitions: i32, config: &[(&str, &str)]) -> Arc<str> {
    let name: Arc<str> = unique("topic").into();
    let mut admin: Box<dyn Admin> = cluster.admin().unwrap();
    let config = config.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    admin.create_topics(&[NewTopic { name: Arc::clone(&name), partitions, replication: None, config }]).unwrap();
    until("the topic is created", || {
        admin.topics(std::slice::from_ref(&name)).unwrap()[0].as_ref().is_some_and(|info| info.partitions == partitions)
    });
    name
}

pub(super) fn plain_producer(cluster: &dyn Cluster) -> Box<dyn Producer> {
    let spec = ProducerSpec {
        client_id: unique("client"),
        transactional_id: None,
        transaction_timeout: CALL,
        outputs: Arc::default(),
    };
    cluster.producer(&spec).unwrap()
}

pub(super) fn transactional_producer(cluster: &dyn Cluster, id: &str) -> Box<dyn Producer> {
    let spec = ProducerSpec {
        client_id: unique("client"),
        transactional_id: Some(id.to_owned()),
        transaction_timeout: Duration::from_secs(60),
        outputs: Arc::default(),
    };
    let mut producer = cluster.producer(&spec).unwrap();
    producer.init_transactions(CALL).unwrap();
    producer
}

pub(super) fn consumer(
    cluster: &dyn Cluster,
    isolation: Isolation,
    from: &[(TopicPartition, i64)],
) -> Box<dyn Consumer> {
    let mut consumer =
        cluster.consumer(&ConsumerSpec { client_id: unique("client"), isolation, topics: Topics::Any }).unwrap();
    consumer.assign(from).unwrap();
    consumer
}

pub(super) fn write(producer: &mut dyn Producer, topic: &Arc<str>, partition: i32, value: &str) {
    let record = seen(Some("key"), Some(value), now_ms(), Headers::new());
    producer.send(record.to(topic, partition), false).unwrap();
}

pub(super) fn confirm(producer: &mut dyn Producer) {
    let failures = producer.confirm(CALL).unwrap();
    assert!(failures.is_empty(), "{failures:?}");
}

/// Exactly that many records of a partition, with their offsets.
pub(super) fn read(consumer: &mut dyn Consumer, partition: &TopicPartition, count: usize) -> Vec<(i64, Seen)> {
    let mut read = Vec::new();
    until("the records are there", || {
        fetch(consumer, partition, count - read.len(), &mut read);
        read.len() == count
    });
    read
}

pub(super) fn read_one(consumer: &mut dyn Consumer, partition: &TopicPartition) -> Seen {
    read(consumer, partition, 1).remove(0).1
}

/// Everything that may be seen now.
pub(super) fn drain(consumer: &mut dyn Consumer, partition: &TopicPartition) -> Vec<(i64, Seen)> {
    let mut read = Vec::new();
    until("the consumer has caught up", || {
        fetch(consumer, partition, 100, &mut read);
        consumer.lag(partition) == Lag::CaughtUp
    });
    read
}

/// Everything up to an offset.
pub(super) fn drain_to(consumer: &mut dyn Consumer, partition: &TopicPartition, end: i64) -> Vec<(i64, Seen)> {
    let mut read = Vec::new();
    until("the end is reached", || {
        fetch(consumer, partition, 100, &mut read);
        consumer.position(partition) == Some(end) && consumer.lag(partition) == Lag::CaughtUp
    });
    read
}

pub(super) fn fetch(consumer: &mut dyn Consumer, partition: &TopicPartition, max: usize, read: &mut Vec<(i64, Seen)>) {
    let mut batch = RecordBatch::default();
    consumer.wait(Duration::from_millis(10)).unwrap();
    assert_eq!(consumer.fetch(partition, max, &mut batch).unwrap(), Fetch::Records);
    assert!(batch.len() <= max);
    read.extend(batch.iter(partition.partition).map(|record| {
        assert_eq!(record.partition, partition.partition);
        let owned = |bytes: Option<&[u8]>| bytes.map(<[u8]>::to_vec);
        let (key, value) = (owned(record.key), owned(record.value));
        (record.offset, Seen { key, value, timestamp: record.timestamp, headers: record.headers.clone() })
    }));
}

pub(super) fn offsets(records: &[(i64, Seen)]) -> Vec<i64> {
    records.iter().map(|(offset, _)| *offset).collect()
}

pub(super) fn values(records: &[(i64, Seen)]) -> Vec<String> {
    let text = |record: &Seen| String::from_utf8(record.value.clone().unwrap_or_default()).unwrap();
    records.iter().map(|(_, record)| text(record)).collect()
}
