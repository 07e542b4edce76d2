//! Topics of a cluster, written and read by hand.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::client::{Cluster, Consumer, ConsumerSpec, Fetch, Isolation, Lag, NewTopic, Producer, ProducerSpec, Topics};
use crate::config::Config;
use crate::error::{Error, ErrorKind, Result};
use crate::record::{ConsumerRecord, Headers, ProducerRecord, RecordBatch, TopicPartition};

/// How long one wait for records takes at most.
const WAIT: Duration = Duration::from_millis(50);
/// Records taken of a partition at once.
const RECORDS_MAX: usize = 4096;

/// Writes and reads topics of a cluster, real or inside the process: for examples, and for tests of a whole application.
///
/// A service has a Kafka client of its own for what it does outside of a topology.
///
/// ```
/// use std::time::Duration;
/// use kstreams::{Config, EmbeddedCluster, TopicClient};
///
/// # fn main() -> kstreams::Result<()> {
/// EmbeddedCluster::named("embedded://topics")?.create_topic("orders", 3)?;
/// let mut client = TopicClient::connect(&Config::new("docs", "embedded://topics"))?;
/// client.write("orders", Some(b"ada"), Some(b"3 apples"))?;
/// client.flush()?;
///
/// let mut orders = Vec::new();
/// client.read("orders", Duration::from_secs(1), |record| orders.extend(record.value.map(<[u8]>::to_vec)))?;
/// assert_eq!(orders, [b"3 apples"]);
/// # Ok(())
/// # }
/// ```
pub struct TopicClient {
    cluster: Arc<dyn Cluster>,
    client_id: String,
    producer: Box<dyn Producer>,
    timeout: Duration,
    readers: BTreeMap<Arc<str>, Reader>,
    batch: RecordBatch,
}

struct Reader {
    consumer: Box<dyn Consumer>,
    partitions: Vec<TopicPartition>,
}

impl TopicClient {
    /// A client of the cluster that an application with this configuration would use.
    ///
    /// # Errors
    /// `Invalid` for settings that cannot be.
    pub fn connect(config: &Config) -> Result<TopicClient> {
        let cluster = crate::runtime::cluster(config)?;
        let client_id = format!("{}-topic-client", config.application_id());
        let timeout = Duration::from_secs(30);
        let spec = ProducerSpec {
            client_id: client_id.clone(),
            transactional_id: None,
            transaction_timeout: timeout,
            outputs: Arc::default(),
        };
        let producer = cluster.producer(&spec)?;
        Ok(TopicClient {
            cluster,
            client_id,
            producer,
            timeout,
            readers: BTreeMap::new(),
            batch: RecordBatch::default(),
        })
    }

    /// Makes a topic; one that exists is left alone.
    ///
    /// # Errors
    /// What the cluster says to it, as for more replicas than it has brokers.
    pub fn create_topic(&mut self, topic: &str, partitions: i32) -> Result<()> {
        let (name, config) = (topic.into(), BTreeMap::new());
        self.cluster.admin()?.create_topics(&[NewTopic { name, partitions, replication: None, config }])
    }

    /// Writes a record; the key's murmur2 hash chooses the partition. It is safe in the topic after [`flush`](TopicClient::flush).
    ///
    /// # Errors
    /// What the cluster says to it, as for a topic that does not exist.
    pub fn write(&mut self, topic: &str, key: Option<&[u8]>, value: Option<&[u8]>) -> Result<()> {
        self.send(topic, key, value, None)
    }

    /// Writes a record of a given time, in milliseconds since the epoch: see [`write`](TopicClient::write).
    ///
    /// # Errors
    /// As [`write`](TopicClient::write).
    pub fn write_at(&mut self, topic: &str, key: Option<&[u8]>, value: Option<&[u8]>, timestamp: i64) -> Result<()> {
        self.send(topic, key, value, Some(timestamp))
    }

    fn send(&mut self, topic: &str, key: Option<&[u8]>, value: Option<&[u8]>, timestamp: Option<i64>) -> Result<()> {
        let (topic, headers) = (topic.into(), Headers::new());
        let record = ProducerRecord { topic: &topic, partition: None, key, value, timestamp, headers: &headers };
        self.producer.send(record, false)
    }

    /// Waits until every record is in its topic.
    ///
    /// # Errors
    /// The first refusal.
    pub fn flush(&mut self) -> Result<()> {
        match self.producer.confirm(self.timeout)?.into_iter().next() {
            None => Ok(()),
            Some(refused) => {
                let context = format!("could not write a record to {}", refused.partition);
                Err(Error::new(refused.error.kind(), context).with_source(refused.error))
            }
        }
    }

    /// Shows the committed records of a topic that this client has not read yet, until there are no more. Waits for an
    /// answer of the cluster, up to a timeout. How many there were.
    ///
    /// # Errors
    /// `Invalid` for a topic that does not exist.
    pub fn read(&mut self, topic: &str, timeout: Duration, mut show: impl FnMut(&ConsumerRecord<'_>)) -> Result<usize> {
        if !self.readers.contains_key(topic) {
            let reader = self.reader(topic)?;
            self.readers.insert(topic.into(), reader);
        }
        let Some(Reader { consumer, partitions }) = self.readers.get_mut(topic) else { return Ok(0) };
        let mut waits = timeout.as_millis().div_ceil(WAIT.as_millis());
        let mut shown = 0;
        loop {
            let before = shown;
            for partition in &*partitions {
                self.batch.clear();
                if consumer.fetch(partition, RECORDS_MAX, &mut self.batch)? == Fetch::OutOfRange {
                    let context = format!("records of {partition} were deleted before they were read");
                    return Err(Error::new(ErrorKind::Unavailable, context));
                }
                self.batch.iter(partition.partition).for_each(|record| show(&record));
                shown += self.batch.len();
            }
            if shown > before {
                continue;
            }
            if waits == 0 || partitions.iter().all(|partition| consumer.lag(partition) == Lag::CaughtUp) {
                return Ok(shown);
            }
            waits -= 1;
            consumer.wait(WAIT)?;
        }
    }

    fn reader(&self, topic: &str) -> Result<Reader> {
        let mut admin = self.cluster.admin()?;
        let info = admin.topics(&[topic.into()])?.into_iter().next().flatten();
        let info = info.ok_or_else(|| Error::invalid(format!("topic {topic} does not exist: create it")))?;
        let partitions: Vec<_> = (0..info.partitions).map(|partition| TopicPartition::new(topic, partition)).collect();
        let starts = admin.watermarks(&partitions)?.into_iter().map(|marks| marks.start);
        let assigned: Vec<_> = partitions.iter().cloned().zip(starts).collect();
        let spec = ConsumerSpec {
            client_id: self.client_id.clone(),
            isolation: Isolation::ReadCommitted,
            topics: Topics::Any,
        };
        let mut consumer = self.cluster.consumer(&spec)?;
        consumer.assign(&assigned)?;
        Ok(Reader { consumer, partitions })
    }
}

impl fmt::Debug for TopicClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TopicClient").field("client_id", &self.client_id).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::EmbeddedCluster;

    #[test]
    fn a_record_is_shown_once_and_new_ones_later() {
        let cluster = EmbeddedCluster::new();
        cluster.create_topic("t", 3).unwrap();
        let mut client = TopicClient::connect(&Config::new("app", "embedded://").cluster(&cluster)).unwrap();
        let mut read = |values: &[&str]| {
            for value in values {
                client.write("t", Some(value.as_bytes()), Some(value.as_bytes())).unwrap();
            }
            client.flush().unwrap();
            let mut seen = Vec::new();
            let show =
                |record: &ConsumerRecord<'_>| seen.push(String::from_utf8_lossy(record.value.unwrap()).into_owned());
            assert_eq!(client.read("t", Duration::from_secs(10), show).unwrap(), values.len());
            seen.sort();
            seen
        };
        assert_eq!(read(&["a", "b", "c", "d"]), ["a", "b", "c", "d"]);
        assert_eq!(read(&["e"]), ["e"]);
    }

    #[test]
    fn a_topic_that_is_missing_is_named() {
        let cluster = EmbeddedCluster::new();
        let mut client = TopicClient::connect(&Config::new("app", "embedded://").cluster(&cluster)).unwrap();
        let error = client.read("nowhere", Duration::ZERO, |_| {}).unwrap_err();
        assert!(error.to_string().contains("nowhere"), "{error}");
        let written = client.write("nowhere", None, None).and_then(|()| client.flush());
        assert!(written.unwrap_err().report().contains("nowhere"));
    }
}
