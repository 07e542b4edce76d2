//! What the cluster holds, behind one lock, and the appends to it.
//!
//! Every client takes the lock for each call and lets it go before it returns; nothing of the user runs under it. Time
//! that has passed is looked at when the lock is taken: nothing happens in the background.

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use uuid::Uuid;

use crate::client::embedded::classic::Connection;
use crate::client::embedded::cleaning::Cleaned;
use crate::client::embedded::clock::Clock;
use crate::client::embedded::codec::Entry;
use crate::client::embedded::coordinator::Mailbox;
use crate::client::embedded::groups::Group;
use crate::client::embedded::log::{Content, Data, Log, Stored, TransactionNumber};
use crate::client::embedded::storage::Storage;
use crate::client::embedded::topic::{Topic, TopicConfig, check_name};
use crate::client::embedded::transactions::Transactions;
use crate::client::partition_for_key;
use crate::error::{Error, Result};
use crate::record::TopicPartition;

#[derive(Debug)]
pub(super) struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

impl Shared {
    pub(super) fn new(state: State) -> Arc<Shared> {
        Arc::new(Shared { state: Mutex::new(state), changed: Condvar::new() })
    }

    /// The state as of now.
    pub(super) fn state(&self) -> Result<MutexGuard<'_, State>> {
        // A thread that panicked has left it between two changes at worst; the others go on.
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        self.pass_time(&mut state)?;
        Ok(state)
    }

    /// Lets the lock go until something changes, at most for a moment: time may have changed something by itself.
    pub(super) fn wait<'a>(&'a self, state: MutexGuard<'a, State>, left: Duration) -> Result<MutexGuard<'a, State>> {
        const MOMENT: Duration = Duration::from_millis(50);
        let waited = self.changed.wait_timeout(state, left.min(MOMENT));
        let (mut state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        self.pass_time(&mut state)?;
        Ok(state)
    }

    /// Wakes every waiting consumer.
    pub(super) fn wake(&self) {
        self.changed.notify_all();
    }

    fn pass_time(&self, state: &mut State) -> Result<()> {
        if state.pass_time()? {
            self.wake();
        }
        Ok(())
    }
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) clock: Clock,
    pub(super) topics: BTreeMap<Arc<str>, Topic>,
    pub(super) transactions: Transactions,
    pub(super) groups: BTreeMap<String, Group>,
    /// Members that have ever joined; part of their names.
    pub(super) members: u64,
    /// Answers to who speaks to a group by requests.
    pub(super) mailboxes: BTreeMap<Connection, Mailbox>,
    pub(super) storage: Option<Storage>,
    /// Consumers that wait for records which read_committed does not show yet.
    pub(super) uncommitted_waiters: usize,
}

impl State {
    pub(super) fn new(clock: Clock) -> State {
        State {
            clock,
            topics: BTreeMap::new(),
            transactions: Transactions::default(),
            groups: BTreeMap::new(),
            members: 0,
            mailboxes: BTreeMap::new(),
            storage: None,
            uncommitted_waiters: 0,
        }
    }

    /// Does what time has made due; whether there was anything.
    fn pass_time(&mut self) -> Result<bool> {
        if let Some(storage) = &self.storage {
            storage.check()?;
        }
        let now = self.clock.now();
        let transactions = self.end_overdue_transactions(now)?;
        let members = self.expire_members(now);
        let classic = self.pass_time_of_classic_groups(now);
        Ok(transactions || members || classic)
    }

    // ---- topics ----

    pub(super) fn create_topic(
        &mut self,
        name: &str,
        partitions: i32,
        settings: &BTreeMap<String, String>,
    ) -> Result<()> {
        if self.topics.contains_key(name) {
            return Ok(());
        }
        check_name(name)?;
        if partitions < 1 {
            return Err(Error::invalid(format!(
                "could not create topic {name} with {partitions} partitions: give it one or more"
            )));
        }
        let config = TopicConfig::new(name, settings)?;
        let id = Uuid::new_v4();
        if let Some(storage) = &mut self.storage {
            let (name, settings) = (name.to_owned(), settings.clone());
            storage.write(&Entry::TopicCreated { name, id, partitions, settings })?;
            for partition in 0..partitions {
                storage.open_partition(id, partition)?;
            }
        }
        self.topics.insert(name.into(), Topic::new(id, partitions, settings.clone(), config));
        self.rebalance_readers_of(name);
        Ok(())
    }

    /// Whether there was one.
    pub(super) fn delete_topic(&mut self, name: &str) -> Result<bool> {
        if !self.topics.contains_key(name) {
            return Ok(false);
        }
        if let Some(storage) = &mut self.storage {
            storage.write(&Entry::TopicDeleted { name: name.to_owned() })?;
        }
        self.topics.remove(name);
        for group in self.groups.values_mut() {
            group.committed.retain(|partition, _| *partition.topic != *name);
        }
        let topics = &self.topics;
        if let Some(storage) = &mut self.storage {
            storage.remove_topics_except(|id| topics.values().any(|topic| topic.id == id));
        }
        self.rebalance_readers_of(name);
        Ok(true)
    }

    pub(super) fn topic(&self, name: &str) -> Result<&Topic> {
        self.topics.get(name).ok_or_else(|| missing(name))
    }

    pub(super) fn log(&self, partition: &TopicPartition) -> Result<&Log> {
        let topic = self.topic(&partition.topic)?;
        topic.log(partition.partition).ok_or_else(|| out_of_topic(partition, topic.partition_count()))
    }

    // ---- records ----

    /// The partition a record goes to.
    pub(super) fn choose_partition(&mut self, topic: &str, partition: Option<i32>, key: Option<&[u8]>) -> Result<i32> {
        let known = self.topics.get_mut(topic).ok_or_else(|| missing(topic))?;
        let count = known.partition_count();
        match (partition, key) {
            (Some(partition), _) if (0..count).contains(&partition) => Ok(partition),
            (Some(partition), _) => Err(out_of_topic(&TopicPartition::new(topic, partition), count)),
            (None, Some(key)) => Ok(partition_for_key(key, count)),
            (None, None) => {
                let partition = known.next_partition;
                known.next_partition = (partition + 1) % count;
                Ok(partition)
            }
        }
    }

    /// Appends a record as the topic allows it, and gives its offset.
    pub(super) fn append(
        &mut self,
        partition: &TopicPartition,
        transaction: Option<TransactionNumber>,
        timestamp: Option<i64>,
        data: Data,
    ) -> Result<i64> {
        let now = self.clock.now();
        let topic = self.topics.get_mut(&partition.topic).ok_or_else(|| missing(&partition.topic))?;
        let (id, count, config) = (topic.id, topic.partition_count(), topic.config.clone());
        let log = topic.log_mut(partition.partition).ok_or_else(|| out_of_topic(partition, count))?;
        if config.compact && data.key.is_none() {
            return Err(Error::invalid(format!(
                "could not append to {partition}: the topic is compacted, and the record has no key"
            )));
        }
        if data.bytes() > config.message_bytes_max {
            return Err(Error::invalid(format!(
                "could not append to {partition}: the record has {} bytes, more than the topic's max.message.bytes of {}",
                data.bytes(),
                config.message_bytes_max
            )));
        }
        let offset = log.end;
        let content = Content::Data(data);
        let record = Stored { offset, timestamp: timestamp.unwrap_or(now), transaction, content };
        if let Some(storage) = &mut self.storage {
            storage.append(id, partition.partition, &record)?;
        }
        log.push(record);
        if log.wants_cleaning(&config) {
            self.clean(partition)?;
        }
        Ok(offset)
    }

    /// Makes everything appended so far outlive the process.
    pub(super) fn flush(&mut self) -> Result<()> {
        match &mut self.storage {
            Some(storage) => storage.flush(),
            None => Ok(()),
        }
    }

    pub(super) fn delete_records(&mut self, partition: &TopicPartition, before: i64) -> Result<()> {
        let end = self.log(partition)?.end;
        if before > end {
            return Err(Error::invalid(format!(
                "could not delete the records of {partition} before offset {before}: it ends at {end}"
            )));
        }
        let Some(topic) = self.topics.get_mut(&partition.topic) else { return Ok(()) };
        let id = topic.id;
        if let Some(log) = topic.log_mut(partition.partition) {
            // -1 is the high watermark, as for Kafka.
            log.delete_before(if before < 0 { end } else { before });
            keep_start(&mut self.storage, id, partition.partition, log)?;
        }
        Ok(())
    }

    /// Compacts and shortens every partition as its topic says.
    pub(super) fn clean_all(&mut self) -> Result<()> {
        let each = |(name, topic): (&Arc<str>, &Topic)| {
            let name = Arc::clone(name);
            (0..topic.partition_count()).map(move |partition| TopicPartition::new(Arc::clone(&name), partition))
        };
        let all: Vec<_> = self.topics.iter().flat_map(each).collect();
        all.iter().try_for_each(|partition| self.clean(partition))
    }

    fn clean(&mut self, partition: &TopicPartition) -> Result<()> {
        let now = self.clock.now();
        let Some(topic) = self.topics.get_mut(&partition.topic) else { return Ok(()) };
        let (id, config) = (topic.id, topic.config.clone());
        let Some(log) = topic.log_mut(partition.partition) else { return Ok(()) };
        match log.clean(&config, now) {
            Cleaned::Nothing => Ok(()),
            Cleaned::Front => keep_start(&mut self.storage, id, partition.partition, log),
            Cleaned::Rewritten => {
                keep_start(&mut self.storage, id, partition.partition, log)?;
                match &mut self.storage {
                    Some(storage) => storage.replace_partition(id, partition.partition, log.records.iter()),
                    None => Ok(()),
                }
            }
        }
    }
}

/// Notes where a log begins now, and gives its file's dead front back when that is most of the file.
fn keep_start(storage: &mut Option<Storage>, topic: Uuid, partition: i32, log: &Log) -> Result<()> {
    const DEAD_MIN: u64 = 1 << 20;
    let Some(storage) = storage else { return Ok(()) };
    storage.write(&Entry::LogStart { topic, partition, offset: log.start })?;
    if storage.bytes(topic, partition) > 2 * log.bytes + DEAD_MIN {
        storage.replace_partition(topic, partition, log.records.iter())?;
    }
    Ok(())
}

pub(super) fn missing(topic: &str) -> Error {
    Error::invalid(format!("topic {topic} does not exist on the embedded cluster: create it first"))
}

fn out_of_topic(partition: &TopicPartition, count: i32) -> Error {
    Error::invalid(format!("{partition} does not exist: the topic has {count} partitions"))
}
