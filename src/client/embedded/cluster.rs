//! What a user does with an in-process cluster directly.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::client::Isolation;
use crate::client::embedded::EmbeddedCluster;
use crate::client::embedded::clock::{Clock, Patience};
use crate::client::embedded::log::{Data, Log, Stored};
use crate::client::embedded::state::{Shared, State, missing};
use crate::error::{Error, ErrorKind, Result};
use crate::record::{Headers, ProducerRecord, TopicPartition};

/// A record of an [`EmbeddedCluster`], copied out of it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct EmbeddedRecord {
    /// The partition it is in.
    pub partition: i32,
    /// Its place in the partition.
    pub offset: i64,
    /// Milliseconds since the epoch.
    pub timestamp: i64,
    /// None is a null key.
    pub key: Option<Vec<u8>>,
    /// None is a null value.
    pub value: Option<Vec<u8>>,
    /// The headers.
    pub headers: Headers,
}

/// A cluster in memory, by the machine's clock.
impl Default for EmbeddedCluster {
    fn default() -> EmbeddedCluster {
        EmbeddedCluster::new()
    }
}

impl EmbeddedCluster {
    /// A new cluster in memory, by the machine's clock. It is gone with its last handle.
    pub fn new() -> EmbeddedCluster {
        EmbeddedCluster { shared: Shared::new(State::new(Clock::Real)) }
    }

    /// A new cluster in memory whose clock begins at 0 and only moves by [`advance`](EmbeddedCluster::advance).
    ///
    /// The clock gives records without a timestamp their time, ends transactions that take too long, and lets records
    /// and tombstones grow old.
    pub fn with_virtual_clock() -> EmbeddedCluster {
        EmbeddedCluster { shared: Shared::new(State::new(Clock::Virtual { now_ms: 0 })) }
    }

    /// A cluster kept in a directory, which is created if need be: a process that opens it after another one has
    /// crashed finds every acknowledged record, every decided transaction and every committed offset.
    ///
    /// Written to the operating system but not synced to the disk: it survives the end of the process, not of the machine.
    /// Everything is held in memory as well.
    ///
    /// # Errors
    /// `Unavailable` when another cluster has the directory open, or it cannot be read and written; `Corrupted` when a
    /// file in it is damaged.
    pub fn open(directory: impl AsRef<Path>) -> Result<EmbeddedCluster> {
        Ok(EmbeddedCluster { shared: Shared::new(State::open(directory.as_ref())?) })
    }

    /// The cluster's time, in milliseconds since the epoch.
    pub fn now(&self) -> Result<i64> {
        Ok(self.shared.state()?.clock.now())
    }

    /// Moves a virtual clock, and does what becomes due.
    ///
    /// # Errors
    /// `Invalid` for a cluster that goes by the machine's clock.
    pub fn advance(&self, by: Duration) -> Result<()> {
        let mut state = self.shared.state()?;
        if matches!(state.clock, Clock::Real) {
            return Err(Error::invalid("could not advance the clock: the cluster was not made by with_virtual_clock"));
        }
        state.clock.advance(by);
        drop(state);
        // Taking the state again does what is due.
        drop(self.shared.state()?);
        self.shared.wake();
        Ok(())
    }

    /// Creates a topic; one that exists is left alone.
    ///
    /// # Errors
    /// `Invalid` for a name or a partition count that Kafka would refuse.
    pub fn create_topic(&self, name: &str, partitions: i32) -> Result<()> {
        self.create_topic_with(name, partitions, [])
    }

    /// Creates a topic with Kafka's settings; one that exists is left alone.
    ///
    /// Heeded are `cleanup.policy` (delete by default), `retention.ms` and `retention.bytes` (unlimited by default, unlike Kafka),
    /// `delete.retention.ms` and `max.message.bytes`.
    ///
    /// ```
    /// # fn main() -> kstreams::Result<()> {
    /// let cluster = kstreams::EmbeddedCluster::new();
    /// cluster.create_topic_with("customers", 4, [("cleanup.policy", "compact")])?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// `Invalid` for a name, a partition count or a setting that cannot be.
    pub fn create_topic_with<'a>(
        &self,
        name: &str,
        partitions: i32,
        config: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Result<()> {
        let owned = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
        let settings: BTreeMap<_, _> = config.into_iter().map(owned).collect();
        self.shared.state()?.create_topic(name, partitions, &settings)?;
        self.shared.wake();
        Ok(())
    }

    /// Deletes a topic with its records and the offsets committed for it.
    ///
    /// # Errors
    /// `Invalid` when there is none of that name.
    pub fn delete_topic(&self, name: &str) -> Result<()> {
        let existed = self.shared.state()?.delete_topic(name)?;
        self.shared.wake();
        if existed { Ok(()) } else { Err(missing(name)) }
    }

    /// The names of all topics, in order.
    pub fn topics(&self) -> Result<Vec<String>> {
        Ok(self.shared.state()?.topics.keys().map(|name| name.to_string()).collect())
    }

    /// How many partitions a topic has; none if it does not exist.
    pub fn partitions(&self, topic: &str) -> Result<Option<i32>> {
        Ok(self.shared.state()?.topics.get(topic).map(|topic| topic.partition_count()))
    }

    /// Appends a record outside of any transaction, and gives its partition and offset. The key's murmur2 hash chooses the
    /// partition, as Kafka's producer does; without a key the partitions take turns. Without a timestamp it gets the cluster's.
    ///
    /// # Errors
    /// `Invalid` for a topic that does not exist or does not take such a record.
    pub fn produce(
        &self,
        topic: &str,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        timestamp: Option<i64>,
    ) -> Result<(i32, i64)> {
        let (topic, headers) = (topic.into(), Headers::new());
        self.produce_record(ProducerRecord { topic: &topic, partition: None, key, value, timestamp, headers: &headers })
    }

    /// Appends a record with headers, or to a partition of choice; else as [`produce`](EmbeddedCluster::produce).
    ///
    /// # Errors
    /// `Invalid` for a topic or partition that does not exist or does not take such a record.
    pub fn produce_record(&self, record: ProducerRecord<'_>) -> Result<(i32, i64)> {
        let mut state = self.shared.state()?;
        let partition = state.choose_partition(record.topic, record.partition, record.key)?;
        let data = Data {
            key: record.key.map(Into::into),
            value: record.value.map(Into::into),
            headers: record.headers.clone(),
        };
        let place = TopicPartition::new(Arc::clone(record.topic), partition);
        let offset = state.append(&place, None, record.timestamp, data)?;
        state.flush()?;
        self.shared.wake();
        Ok((partition, offset))
    }

    /// Every record of a topic, those of open and aborted transactions too, by partition and offset.
    ///
    /// # Errors
    /// `Invalid` for a topic that does not exist.
    pub fn records(&self, topic: &str) -> Result<Vec<EmbeddedRecord>> {
        self.read(topic, Isolation::ReadUncommitted)
    }

    /// The records of a topic that a read_committed consumer sees, by partition and offset.
    ///
    /// # Errors
    /// `Invalid` for a topic that does not exist.
    pub fn read_committed(&self, topic: &str) -> Result<Vec<EmbeddedRecord>> {
        self.read(topic, Isolation::ReadCommitted)
    }

    /// Waits until a read_committed consumer sees that many records of a topic, and gives them: what an application
    /// writes comes with its next commit.
    ///
    /// ```
    /// # fn main() -> kstreams::Result<()> {
    /// # use std::time::Duration;
    /// let cluster = kstreams::EmbeddedCluster::new();
    /// cluster.create_topic("counts", 1)?;
    /// # let application = cluster.clone();
    /// # let application = std::thread::spawn(move || application.produce("counts", None, Some(b"1"), None).map(drop));
    /// let counts = cluster.wait_for("counts", 1, Duration::from_secs(10))?;
    /// assert_eq!(counts[0].value.as_deref(), Some(&b"1"[..]));
    /// # application.join().expect("the application ends")
    /// # }
    /// ```
    ///
    /// # Errors
    /// `Unavailable` when there are not as many in time; `Invalid` for a topic that does not exist.
    pub fn wait_for(&self, topic: &str, count: usize, timeout: Duration) -> Result<Vec<EmbeddedRecord>> {
        let patience = Patience::new(timeout);
        let mut state = self.shared.state()?;
        loop {
            let partitions = &state.topic(topic)?.partitions;
            let found: usize = partitions.iter().map(|log| visible(log, Isolation::ReadCommitted).count()).sum();
            if found >= count {
                let copied = |(number, log)| records(log, number, Isolation::ReadCommitted);
                return Ok((0..).zip(partitions).flat_map(copied).collect());
            }
            let Some(left) = patience.left() else {
                let context = format!("waited {timeout:?} for {count} committed records of {topic}: it has {found}");
                return Err(Error::new(ErrorKind::Unavailable, context));
            };
            state = self.shared.wait(state, left)?;
        }
    }

    fn read(&self, topic: &str, isolation: Isolation) -> Result<Vec<EmbeddedRecord>> {
        let state = self.shared.state()?;
        let partitions = &state.topic(topic)?.partitions;
        Ok((0..).zip(partitions).flat_map(|(partition, log)| records(log, partition, isolation)).collect())
    }

    /// The offset after the last record of a partition (control records count).
    ///
    /// # Errors
    /// `Invalid` for a partition that does not exist.
    pub fn end_offset(&self, topic: &str, partition: i32) -> Result<i64> {
        Ok(self.shared.state()?.log(&TopicPartition::new(topic, partition))?.end)
    }

    /// The offset a group has committed for a partition; none if it has committed none.
    pub fn committed_offset(&self, group: &str, topic: &str, partition: i32) -> Result<Option<i64>> {
        let state = self.shared.state()?;
        let committed = state.groups.get(group).map(|group| &group.committed);
        let partition = TopicPartition::new(topic, partition);
        Ok(committed.and_then(|committed| committed.get(&partition)).map(|position| position.offset))
    }

    /// Compacts topics and drops what has grown too old or too much, as their settings say. It also happens by itself now
    /// and then, when a partition has grown by half.
    pub fn maintain(&self) -> Result<()> {
        self.shared.state()?.clean_all()?;
        self.shared.wake();
        Ok(())
    }

    /// Loses the records of a partition from an offset on.
    #[cfg(test)]
    pub(crate) fn lose_records(&self, topic: &str, partition: i32, offset: i64) -> Result<()> {
        let mut state = self.shared.state()?;
        if let Some(log) = state.topics.get_mut(topic).and_then(|topic| topic.log_mut(partition)) {
            log.lose_from(offset);
        }
        drop(state);
        self.shared.wake();
        Ok(())
    }

    /// The ids of a group's members.
    #[cfg(test)]
    pub(crate) fn members(&self, group: &str) -> Result<Vec<String>> {
        let state = self.shared.state()?;
        let Some(group) = state.groups.get(group) else { return Ok(Vec::new()) };
        Ok(group.members.keys().chain(group.classic.member_ids()).cloned().collect())
    }

    /// Throws a member out, as if its session had run out. Whether there was one.
    #[cfg(test)]
    pub(crate) fn expire_member(&self, group: &str, member: &str) -> Result<bool> {
        let expired = self.shared.state()?.expire_member(group, member);
        self.shared.wake();
        Ok(expired)
    }
}

fn visible(log: &Log, isolation: Isolation) -> impl Iterator<Item = (&Stored, &Data)> {
    let end = log.visible_end(isolation);
    let before_end = log.records.iter().take_while(move |record| record.offset < end);
    before_end.filter_map(move |record| Some((record, log.visible(record, isolation)?)))
}

fn records(log: &Log, partition: i32, isolation: Isolation) -> impl Iterator<Item = EmbeddedRecord> {
    visible(log, isolation).map(move |(record, data)| EmbeddedRecord {
        partition,
        offset: record.offset,
        timestamp: record.timestamp,
        key: data.key.as_deref().map(Into::into),
        value: data.value.as_deref().map(Into::into),
        headers: data.headers.clone(),
    })
}
