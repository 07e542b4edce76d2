//! The library's own reader, where the suite reads with librdkafka.

use super::*;
use crate::client::{Fetch, Lag};
use crate::record::RecordBatch;

/// A Kafka whose consumers outside of groups all read changelogs.
struct OfChangelogs(KafkaCluster);

impl Cluster for OfChangelogs {
    fn join(&self, spec: &GroupSpec) -> Result<(Box<dyn Membership>, Box<dyn Consumer>)> {
        self.0.join(spec)
    }

    fn consumer(&self, spec: &ConsumerSpec) -> Result<Box<dyn Consumer>> {
        self.0.consumer(&ConsumerSpec { topics: Topics::Changelogs, ..spec.clone() })
    }

    fn producer(&self, spec: &ProducerSpec) -> Result<Box<dyn Producer>> {
        self.0.producer(spec)
    }

    fn admin(&self) -> Result<Box<dyn Admin>> {
        self.0.admin()
    }
}

mod conformance {
    crate::client::conformance::conformance_tests! { @ super::cluster().map(super::OfChangelogs);
        records_come_back_in_order_with_nulls_headers_and_timestamps,
        a_key_finds_its_partition_by_murmur2,
        a_partition_is_moved_to_another_offset,
        an_unassigned_partition_is_not_read,
        the_position_moves_past_control_records,
        lag_is_unknown_then_behind_then_caught_up,
        a_position_outside_of_the_log_is_out_of_range,
        read_committed_skips_aborted_records,
        read_committed_waits_for_an_open_transaction,
        a_transaction_spans_topics,
        a_transaction_past_its_timeout_is_aborted,
    }
}

/// With settings of the producer.
fn cluster_with(settings: &[(&str, &str)]) -> Option<KafkaCluster> {
    let overrides = settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    Some(KafkaCluster::new(&bootstrap()?, "kstreams-changelogs", overrides).unwrap())
}

fn write(cluster: &KafkaCluster, partition: &TopicPartition, values: impl Iterator<Item = Vec<u8>>) {
    write_rows(cluster, partition, values.map(|value| (b"k".to_vec(), value)));
}

fn write_rows(cluster: &KafkaCluster, partition: &TopicPartition, rows: impl Iterator<Item = (Vec<u8>, Vec<u8>)>) {
    let spec = ProducerSpec {
        client_id: "test".to_owned(),
        transactional_id: None,
        transaction_timeout: Duration::from_secs(60),
        outputs: Arc::default(),
    };
    let mut producer = cluster.producer(&spec).unwrap();
    for (key, value) in rows {
        let record = ProducerRecord {
            topic: &partition.topic,
            partition: Some(partition.partition),
            key: Some(&key),
            value: Some(&value),
            // Of the clock: a segment grows old by its records.
            timestamp: None,
            headers: &Headers::new(),
        };
        producer.send(record, false).unwrap();
    }
    assert!(producer.confirm(Duration::from_secs(60)).unwrap().is_empty());
}

fn reader(cluster: &KafkaCluster, from: &[(TopicPartition, i64)]) -> Box<dyn Consumer> {
    let (client_id, isolation) = ("test".to_owned(), Isolation::ReadCommitted);
    let mut reader = cluster.consumer(&ConsumerSpec { client_id, isolation, topics: Topics::Changelogs }).unwrap();
    reader.assign(from).unwrap();
    reader
}

/// The values up to the end of the partition.
#[expect(clippy::disallowed_methods, reason = "a test that waits for ever should fail")]
fn read(reader: &mut dyn Consumer, partition: &TopicPartition, end: i64) -> Vec<Vec<u8>> {
    let (mut values, started) = (Vec::new(), Instant::now());
    while reader.position(partition) != Some(end) || reader.lag(partition) != Lag::CaughtUp {
        assert!(started.elapsed() < Duration::from_secs(60), "at {:?} of {end}", reader.position(partition));
        let mut batch = RecordBatch::default();
        assert_eq!(reader.fetch(partition, 500, &mut batch).unwrap(), Fetch::Records);
        values.extend(batch.iter(0).map(|record| record.value.unwrap().to_vec()));
        if batch.is_empty() {
            reader.wait(Duration::from_millis(100)).unwrap();
        }
    }
    values
}

fn numbered(range: std::ops::Range<usize>) -> impl Iterator<Item = Vec<u8>> {
    range.map(|number| number.to_string().into_bytes())
}

#[test]
fn what_is_not_read_here_is_read_through_librdkafka_from_where_it_stands() {
    let Some(plain) = cluster_with(&[("producer.compression.codec", "none")]) else { return eprintln!("skipped") };
    let partition = TopicPartition::new(topic(&plain, 1), 0);
    write(&plain, &partition, numbered(0..100));
    let packed = cluster_with(&[("producer.compression.codec", "lz4")]).unwrap();
    write(&packed, &partition, numbered(100..300));
    let zipped = cluster_with(&[("producer.compression.codec", "gzip")]).unwrap();
    write(&zipped, &partition, numbered(300..400));
    write(&packed, &partition, numbered(400..500));
    let mut reader = reader(&plain, &[(partition.clone(), 0)]);
    assert_eq!(read(reader.as_mut(), &partition, 500), numbered(0..500).collect::<Vec<_>>());
    assert_eq!(reader.end(&partition), Some(500));
    reader.assign(&[(partition.clone(), 42)]).unwrap();
    assert_eq!(read(reader.as_mut(), &partition, 500), numbered(42..500).collect::<Vec<_>>());
}

#[test]
fn a_partition_that_nobody_reads_holds_up_no_other() {
    let Some(cluster) = cluster_with(&[("producer.compression.codec", "none")]) else { return eprintln!("skipped") };
    let topic = topic(&cluster, 2);
    let [left, other] = [0, 1].map(|partition| TopicPartition::new(Arc::clone(&topic), partition));
    let values = || (0..4_000usize).map(|number| number.to_le_bytes().repeat(200));
    for partition in [&left, &other] {
        write(&cluster, partition, values());
    }
    let mut reader = reader(&cluster, &[(left.clone(), 0), (other.clone(), 0)]);
    assert!(read(reader.as_mut(), &other, 4_000).into_iter().eq(values()));
    assert_eq!(reader.position(&left), Some(0));
    assert!(read(reader.as_mut(), &left, 4_000).into_iter().eq(values()));
}

#[test]
fn a_record_larger_than_what_is_asked_for_is_read() {
    let large = ("producer.message.max.bytes", "6000000");
    let settings =
        [("producer.compression.codec", "none"), large, ("restore.consumer.fetch.message.max.bytes", "1000")];
    let Some(cluster) = cluster_with(&settings) else { return eprintln!("skipped") };
    let config = BTreeMap::from([("max.message.bytes".to_owned(), "6000000".to_owned())]);
    let partition = TopicPartition::new(topic_with(&cluster, 1, config), 0);
    let values = || [3, 5_000_000, 1, 3_000_000].into_iter().map(|length| vec![7; length]);
    write(&cluster, &partition, values());
    let mut reader = reader(&cluster, &[(partition.clone(), 0)]);
    assert!(read(reader.as_mut(), &partition, 4).into_iter().eq(values()));
}

/// Compaction leaves gaps within batches, batches without records, and gaps between batches.
#[test]
#[expect(clippy::disallowed_methods, reason = "segments grow old, and the broker cleans them when it likes")]
fn a_compacted_changelog_is_read_as_far_as_it_is_there() {
    let Some(cluster) = cluster_with(&[("producer.compression.codec", "none")]) else { return eprintln!("skipped") };
    let settings = [("cleanup.policy", "compact"), ("segment.ms", "100"), ("min.cleanable.dirty.ratio", "0.01")];
    let settings = settings.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let partition = TopicPartition::new(topic_with(&cluster, 1, BTreeMap::from(settings)), 0);
    let mut last = BTreeMap::new();
    let mut end = 0;
    // Of a hundred keys in a round, those that are multiples of it come again in later ones.
    for round in 1..=6_usize {
        let keys: Vec<usize> = (0..100).filter(|key| key % round == 0).collect();
        let row = |key: &usize| (key.to_string().into_bytes(), format!("{key} in {round}").into_bytes());
        write_rows(&cluster, &partition, keys.iter().map(row));
        last.extend(keys.iter().map(row));
        end += i64::try_from(keys.len()).unwrap();
        std::thread::sleep(Duration::from_millis(200));
    }
    let started = Instant::now();
    loop {
        let mut reader = reader(&cluster, &[(partition.clone(), 0)]);
        let values = read(reader.as_mut(), &partition, end);
        let of_last_round = 17;
        // The last segment stays as it was written, and so do older values of what is in it.
        assert!(values.len() >= last.len());
        for (key, value) in &last {
            assert!(values.contains(value), "{} is lost", String::from_utf8_lossy(key));
        }
        if values.len() <= last.len() + of_last_round {
            break;
        }
        assert!(started.elapsed() < Duration::from_secs(120), "{} of {end} records are left", values.len());
        std::thread::sleep(Duration::from_secs(1));
    }
    // From within a gap, too.
    for from in [1, 50, 99, 100, 130] {
        let mut reader = reader(&cluster, &[(partition.clone(), from)]);
        let values = read(reader.as_mut(), &partition, end);
        assert!(values.iter().any(|value| value == b"0 in 6"), "from {from}");
    }
}

#[test]
fn a_wait_is_ended_by_the_waker_and_by_what_is_written() {
    let Some(cluster) = cluster_with(&[]) else { return eprintln!("skipped") };
    let partition = TopicPartition::new(topic(&cluster, 1), 0);
    let mut reader = reader(&cluster, &[(partition.clone(), 0)]);
    assert!(read(reader.as_mut(), &partition, 0).is_empty());
    let waker = reader.waker();
    let other = std::thread::spawn(move || waker());
    reader.wait(Duration::from_secs(3600)).unwrap();
    other.join().unwrap();
    write(&cluster, &partition, numbered(0..1));
    // Fetching tells most of what a consumer knows: it is done after every wait.
    let mut batch = RecordBatch::default();
    while batch.is_empty() {
        reader.wait(Duration::from_secs(3600)).unwrap();
        reader.fetch(&partition, 1, &mut batch).unwrap();
    }
    assert_eq!(batch.get(0, 0).unwrap().value, Some(&b"0"[..]));
}
