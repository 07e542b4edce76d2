//! From a directory to a state, and back in one piece: the snapshot that keeps the meta log short.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use crate::client::embedded::clock::Clock;
use crate::client::embedded::codec::{Committed, Entry};
use crate::client::embedded::log::{Outcome, TransactionNumber};
use crate::client::embedded::state::State;
use crate::client::embedded::storage::Storage;
use crate::client::embedded::topic::{Topic, TopicConfig};
use crate::client::embedded::transactions::Open;
use crate::error::Result;
use crate::record::TopicPartition;

impl State {
    /// Reads a directory. Every acknowledged record, decided transaction and committed offset is there again; groups
    /// have no members, and transactions that were open stay open until their id is initialised or their time is over.
    pub(super) fn open(directory: &Path) -> Result<State> {
        let (storage, entries) = Storage::open(directory)?;
        let mut state = State::new(Clock::Real);
        let mut decided = BTreeMap::new();
        for entry in entries {
            state.replay(entry, &mut decided)?;
        }
        state.storage = Some(storage);
        state.read_partitions()?;
        state.finish_transactions(&decided)?;
        let topics = &state.topics;
        if let Some(storage) = &mut state.storage {
            storage.remove_topics_except(|id| topics.values().any(|topic| topic.id == id));
        }
        state.snapshot()?;
        Ok(state)
    }

    fn replay(&mut self, entry: Entry, decided: &mut BTreeMap<TransactionNumber, Outcome>) -> Result<()> {
        match entry {
            Entry::TopicCreated { name, id, partitions, settings } => {
                let config = TopicConfig::new(&name, &settings)?;
                self.topics.insert(name.into(), Topic::new(id, partitions, settings, config));
            }
            Entry::TopicDeleted { name } => {
                self.topics.remove(name.as_str());
                for group in self.groups.values_mut() {
                    group.committed.retain(|partition, _| *partition.topic != *name);
                }
            }
            Entry::LogStart { topic, partition, offset } => {
                let log = self.topics.values_mut().find(|known| known.id == topic);
                if let Some(log) = log.and_then(|topic| topic.log_mut(partition)) {
                    log.start = offset;
                    log.end = offset;
                }
            }
            Entry::Epoch { id, epoch } => self.transactions.ids.entry(id).or_default().epoch = epoch,
            Entry::Begin { transaction, id, started, timeout_ms } => {
                self.transactions.next = self.transactions.next.max(transaction.saturating_add(1));
                self.transactions.open.insert(transaction, Open::new(&id, started, timeout_ms));
                self.transactions.ids.entry(id).or_default().open = Some(transaction);
            }
            Entry::End { transaction, outcome, offsets } => {
                if let Some(open) = self.transactions.open.remove(&transaction)
                    && let Some(identity) = self.transactions.ids.get_mut(&open.id)
                {
                    identity.open = None;
                }
                decided.insert(transaction, outcome);
                self.store_offsets(offsets);
            }
            Entry::Offsets { offsets } => self.store_offsets(offsets),
            Entry::NextTransaction { transaction } => {
                self.transactions.next = self.transactions.next.max(transaction);
            }
        }
        Ok(())
    }

    fn read_partitions(&mut self) -> Result<()> {
        let Some(storage) = &mut self.storage else { return Ok(()) };
        for topic in self.topics.values_mut() {
            for (partition, log) in (0..).zip(&mut topic.partitions) {
                let start = log.start;
                // Read from its first byte, and cut then: a transaction that began before the start is known that way.
                for record in storage.open_partition(topic.id, partition)? {
                    log.push(record);
                }
                log.start = 0;
                log.end = log.end.max(start);
                log.delete_before(start);
                log.open.retain(|_, first| {
                    *first = (*first).max(start);
                    true
                });
            }
        }
        Ok(())
    }

    /// Writes the control records of decided transactions, and aborts those that nobody knows of.
    fn finish_transactions(&mut self, decided: &BTreeMap<TransactionNumber, Outcome>) -> Result<()> {
        let mut found = Vec::new();
        for (name, topic) in &self.topics {
            for (partition, log) in (0..).zip(&topic.partitions) {
                let partition = TopicPartition::new(Arc::clone(name), partition);
                found.extend(log.open.keys().map(|transaction| (*transaction, partition.clone())));
            }
        }
        for (transaction, partition) in found {
            self.transactions.next = self.transactions.next.max(transaction.saturating_add(1));
            if self.transactions.open.contains_key(&transaction) {
                self.add_partition(transaction, &partition);
            } else {
                let outcome = decided.get(&transaction).copied().unwrap_or(Outcome::Abort);
                self.mark(&partition, transaction, outcome)?;
            }
        }
        Ok(())
    }

    /// Writes a snapshot once the meta log is mostly history.
    pub(super) fn snapshot_if_long(&mut self) -> Result<()> {
        match &self.storage {
            Some(storage) if storage.wants_snapshot() => self.snapshot(),
            _ => Ok(()),
        }
    }

    fn snapshot(&mut self) -> Result<()> {
        let mut entries = vec![Entry::NextTransaction { transaction: self.transactions.next }];
        for (name, topic) in &self.topics {
            let (id, settings) = (topic.id, topic.settings.clone());
            entries.push(Entry::TopicCreated {
                name: name.to_string(),
                id,
                partitions: topic.partition_count(),
                settings,
            });
            for (partition, log) in (0..).zip(&topic.partitions).filter(|(_, log)| log.start > 0) {
                entries.push(Entry::LogStart { topic: id, partition, offset: log.start });
            }
        }
        for (id, identity) in &self.transactions.ids {
            entries.push(Entry::Epoch { id: id.clone(), epoch: identity.epoch });
        }
        for (transaction, open) in &self.transactions.open {
            let Open { id, started, timeout_ms, .. } = open;
            let (transaction, started, timeout_ms) = (*transaction, *started, *timeout_ms);
            entries.push(Entry::Begin { transaction, id: id.clone(), started, timeout_ms });
        }
        for (name, group) in &self.groups {
            let committed = group.committed.iter().map(|(partition, position)| Committed {
                group: name.clone(),
                partition: partition.clone(),
                position: position.clone(),
            });
            entries.push(Entry::Offsets { offsets: committed.collect() });
        }
        match &mut self.storage {
            // The decisions go with the old log: replacing it makes their control records last first.
            Some(storage) => storage.replace_meta(&entries),
            None => Ok(()),
        }
    }
}
