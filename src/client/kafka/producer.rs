//! Writes records, in transactions or idempotently.
//!
//! Delivery reports are callbacks that run on the calling thread: while it sends, now and then, and while it waits in
//! `confirm`, `commit_transaction` and `abort_transaction`, so no thread of ours stands between. The one call with a thread of
//! its own is that which may never come back: see [`super::offsets`]. A report of a record that is not tracked costs a function call.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka_sys::RDKafkaErrorCode as Code;
use rustc_hash::FxHashMap;

use super::failure::Failure;
use super::offsets::send_offsets;
use super::side::{Claim, LEADERS_PATIENCE, SideOffsets};
use super::sys::{Client, Conf, Outgoing, Topic};
use super::{REQUEST_TIMEOUT, connect, group::explain};
use crate::client::{DeliveryFailure, GroupMetadata, Producer, partition_for_key};
use crate::error::{Error, ErrorKind, Result};
use crate::record::{OffsetAndMetadata, ProducerRecord, TopicPartition};

/// Records sent between two looks at the delivery reports.
const RECORDS_PER_POLL: u32 = 256;

/// Bytes that go to one partition before null keys go to the next one: a batch is not scattered.
const STICKY_BYTES: usize = 64 * 1024;

/// A topic that was just created is not known to every broker at once.
const UNKNOWN_PAUSE: Duration = Duration::from_millis(100);
const UNKNOWN_LOOKS: u32 = 20;

/// Between two looks at what a lost connection may have left behind, as long as connections are lost.
const LOOK_PAUSE: Duration = Duration::from_secs(1);

/// How long it is not waited again for leaders that did not come.
const NO_LEADER_PAUSE: Duration = Duration::from_secs(600);

/// How long a full buffer is waited for.
const BUFFER_TIMEOUT: Duration = Duration::from_secs(60);

#[derive(Debug)]
pub(super) struct KafkaProducer {
    client: Arc<Client>,
    bootstrap: String,
    topics: Vec<KnownTopic>,
    by_name: FxHashMap<Arc<str>, usize>,
    since_poll: u32,
    in_transaction: bool,
    /// What is to be ended before the first transaction; none: not transactional, or the side connection cannot log in.
    predecessor: Option<Predecessor>,
    is_settled: bool,
    disturbance: Disturbance,
}

/// What lost connections ask for.
#[derive(Debug, Default)]
struct Disturbance {
    /// Since when nobody has looked what the loss left behind.
    since: Option<Instant>,
    looked_at: Option<Instant>,
    /// When partitions without a leader were last waited for in vain.
    gave_up_at: Option<Instant>,
}

/// The producer before, of the same transactional id; and who looks after what is left open under it.
#[derive(Debug)]
pub(super) struct Predecessor {
    pub(super) side: SideOffsets,
    pub(super) id: String,
    pub(super) outputs: Arc<[Arc<str>]>,
    pub(super) since: Instant,
}

#[derive(Debug)]
struct KnownTopic {
    name: Arc<str>,
    topic: Topic,
    partitions: i32,
    /// Where null keys go for now, and what has gone there.
    sticky: i32,
    sticky_bytes: usize,
}

impl KafkaProducer {
    pub(super) fn new(
        conf: Conf,
        client_id: &str,
        bootstrap: &str,
        predecessor: Option<Predecessor>,
    ) -> Result<KafkaProducer> {
        let failed = |failure: Failure| failure.while_doing(format_args!("could not make the producer {client_id}"));
        Ok(KafkaProducer {
            client: Client::producer(conf, client_id).map_err(failed)?,
            bootstrap: bootstrap.to_string(),
            topics: Vec::new(),
            by_name: FxHashMap::default(),
            since_poll: 0,
            in_transaction: false,
            predecessor,
            is_settled: false,
            disturbance: Disturbance::default(),
        })
    }

    fn failed(&self, failure: Failure, doing: impl std::fmt::Display) -> Error {
        explain(Some(&self.client), failure).while_doing(doing)
    }

    /// What stands behind a record that librdkafka did not take.
    fn refused(&self, failure: Failure) -> Failure {
        match (failure.code, self.client.fatal()) {
            (_, Some(fatal)) => fatal,
            // Something of the open transaction has failed before: nothing more is taken until it is aborted.
            (Code::State, None) if self.in_transaction => Failure { requires_abort: true, ..failure },
            _ => failure,
        }
    }

    /// The topic's place. Few topics, and the same ones: comparing pointers beats hashing names.
    fn topic(&mut self, name: &Arc<str>) -> Result<usize> {
        if let Some(index) = self.topics.iter().position(|topic| Arc::ptr_eq(&topic.name, name)) {
            return Ok(index);
        }
        if let Some(index) = self.by_name.get(name) {
            return Ok(*index);
        }
        let doing = format!("could not look up the topic {name}");
        let topic = Topic::new(&self.client, name).map_err(|failure| self.failed(failure, &doing))?;
        let partitions = self.look_up(&topic).map_err(|failure| self.failed(failure, &doing))?;
        let index = self.topics.len();
        self.topics.push(KnownTopic { name: Arc::clone(name), topic, partitions, sticky: 0, sticky_bytes: 0 });
        self.by_name.insert(Arc::clone(name), index);
        Ok(index)
    }

    fn look_up(&self, topic: &Topic) -> Result<i32, Failure> {
        let mut looks = 0;
        loop {
            let failure = match self.client.metadata(Some(topic), REQUEST_TIMEOUT) {
                Ok(0) => Failure::new(Code::UnknownTopic, "the cluster knows no partition of it"),
                Ok(partitions) => return Ok(partitions),
                Err(failure) => failure,
            };
            let unknown = matches!(failure.code, Code::UnknownTopic | Code::UnknownTopicOrPartition);
            if !(unknown || failure.code == Code::LeaderNotAvailable) || looks == UNKNOWN_LOOKS {
                return Err(failure);
            }
            looks += 1;
            self.client.poll(UNKNOWN_PAUSE);
        }
    }

    fn send_to(&mut self, index: usize, record: &Outgoing<'_>, track: bool) -> Result<()> {
        let mut waited = Duration::ZERO;
        loop {
            let Some(known) = self.topics.get_mut(index) else { return Ok(()) };
            let failure = match known.topic.send(record, track) {
                Ok(()) => break,
                Err(failure) => failure,
            };
            let doing = format!("could not send a record to {}[{}]", known.name, record.partition);
            if failure.code != Code::QueueFull {
                return Err(self.failed(self.refused(failure), doing));
            }
            if waited >= BUFFER_TIMEOUT {
                let doing = format!("{doing}: the buffer stayed full for {} s", waited.as_secs());
                return Err(self.failed(Failure::new(Code::MessageTimedOut, failure.text), doing));
            }
            let slice = Duration::from_millis(10);
            self.client.poll(slice);
            waited += slice;
        }
        self.since_poll += 1;
        if self.since_poll >= RECORDS_PER_POLL {
            self.since_poll = 0;
            self.client.poll(Duration::ZERO);
        }
        Ok(())
    }
}

impl KnownTopic {
    fn partition_of(&mut self, record: &ProducerRecord<'_>) -> i32 {
        if let Some(partition) = record.partition {
            return partition;
        }
        if let Some(key) = record.key {
            return partition_for_key(key, self.partitions);
        }
        if self.sticky_bytes >= STICKY_BYTES {
            self.sticky_bytes = 0;
            self.sticky = (self.sticky + 1) % self.partitions.max(1);
        }
        self.sticky_bytes += record.value.map_or(0, <[u8]>::len);
        self.sticky
    }
}

impl Producer for KafkaProducer {
    /// A handle that is not connected asks for its coordinator, finds no broker and asks again after a fixed half second:
    /// so it is connected first.
    fn init_transactions(&mut self, timeout: Duration) -> Result<()> {
        connect(&self.client, &self.bootstrap, timeout)?;
        if let Some(Predecessor { side, id, outputs, since }) = &mut self.predecessor
            && !self.is_settled
        {
            match side.settle(id, outputs, Claim::Own { since: *since }) {
                Err(error) if error.kind() == ErrorKind::Unavailable => return Err(error),
                // Whatever it is, librdkafka meets it as well.
                Err(error) => tracing::debug!(error = error.report(), "left-over transactions cannot be looked for"),
                Ok(()) => {}
            }
            self.is_settled = true;
            self.client.take_disturbed();
        }
        self.client
            .init_transactions(timeout)
            .map_err(|failure| self.failed(failure, "could not initialise transactions"))
    }

    fn begin_transaction(&mut self) -> Result<()> {
        self.client.begin_transaction().map_err(|failure| self.failed(failure, "could not begin a transaction"))?;
        self.in_transaction = true;
        Ok(())
    }

    fn send(&mut self, record: ProducerRecord<'_>, track: bool) -> Result<()> {
        let index = self.topic(record.topic)?;
        let Some(known) = self.topics.get_mut(index) else { return Ok(()) };
        let partition = known.partition_of(&record);
        if partition < 0 || partition >= known.partitions {
            return Err(Error::invalid(format!(
                "could not send a record to {}[{partition}]: the topic has {} partitions",
                record.topic, known.partitions
            )));
        }
        let outgoing = Outgoing {
            partition,
            key: record.key,
            value: record.value,
            timestamp: record.timestamp,
            headers: record.headers,
        };
        self.send_to(index, &outgoing, track)
    }

    fn confirm(&mut self, timeout: Duration) -> Result<Vec<DeliveryFailure>> {
        self.client
            .flush(timeout)
            .map_err(|failure| self.failed(failure, "not every record was acknowledged in time"))?;
        if let Some(failure) = self.client.fatal() {
            return Err(self.failed(failure, "could not deliver records"));
        }
        let failed = self.client.take_failed();
        if failed.dropped > 0 {
            // Kept apart, they could be told one by one; this many mean that nothing can be written.
            let text = format!("{} records were not delivered", failed.records.len() + failed.dropped);
            let error = Error::new(ErrorKind::Unavailable, text);
            return Err(match failed.records.into_iter().next() {
                Some(first) => error.with_source(first.failure),
                None => error,
            });
        }
        let failures = failed.records.into_iter().map(|record| DeliveryFailure {
            error: record.failure.while_doing(format_args!("a record for {} was not delivered", record.partition)),
            partition: record.partition,
            key: record.key,
            value: record.value,
            timestamp: record.timestamp,
        });
        Ok(failures.collect())
    }

    fn end_offset(&self, partition: &TopicPartition) -> Option<i64> {
        self.topics.get(*self.by_name.get(&partition.topic)?)?.topic.end(partition.partition)
    }

    fn send_offsets(&mut self, offsets: &[(TopicPartition, OffsetAndMetadata)], group: &GroupMetadata) -> Result<()> {
        if offsets.is_empty() {
            return Ok(());
        }
        send_offsets(&self.client, offsets, group)
            .map_err(|failure| self.failed(failure, "could not add offsets to the transaction"))
    }

    fn commit_transaction(&mut self, timeout: Duration) -> Result<()> {
        self.client
            .commit_transaction(timeout)
            .map_err(|failure| self.failed(failure, "could not commit the transaction"))?;
        self.in_transaction = false;
        Ok(())
    }

    fn abort_transaction(&mut self, timeout: Duration) -> Result<()> {
        let aborted = self.client.abort_transaction(timeout);
        // What failed was part of the transaction that is given up.
        drop(self.client.take_failed());
        aborted.map_err(|failure| self.failed(failure, "could not abort the transaction"))?;
        self.in_transaction = false;
        Ok(())
    }

    #[expect(clippy::disallowed_methods, reason = "bounds how often and how long the cluster is asked")]
    fn has_left_open(&mut self) -> Result<bool> {
        let Some(Predecessor { side, id, outputs, .. }) = &mut self.predecessor else { return Ok(false) };
        let Disturbance { since, looked_at, gave_up_at } = &mut self.disturbance;
        if since.is_none() && self.client.take_disturbed() {
            *since = Some(Instant::now());
        }
        let is_recent = |at: &Option<Instant>, pause| at.is_some_and(|at| at.elapsed() < pause);
        let Some(begun) = since.filter(|_| !is_recent(looked_at, LOOK_PAUSE)) else { return Ok(false) };
        let patience = if is_recent(gave_up_at, NO_LEADER_PAUSE) { Duration::ZERO } else { LEADERS_PATIENCE };
        let found = match side.has_left_open(id, outputs, begun + patience) {
            Err(error) if error.kind() == ErrorKind::Unavailable => return Err(error),
            found => found,
        };
        let now = Instant::now();
        if patience > Duration::ZERO && now >= begun + patience {
            *gave_up_at = Some(now);
        }
        (*since, *looked_at) = (None, Some(now));
        Ok(found.unwrap_or_else(|error| {
            tracing::debug!(error = error.report(), "left-over transactions cannot be looked for");
            false
        }))
    }

    fn partitions(&mut self, topic: &Arc<str>) -> Result<i32> {
        let index = self.topic(topic)?;
        Ok(self.topics.get(index).map_or(0, |known| known.partitions))
    }
}
