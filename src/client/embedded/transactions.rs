//! Transactional ids, their epochs, and the transactions under way: the coordinator's part.
//!
//! ```text
//!   init (epoch + 1) -> first record or offset: open -> commit or abort decided -> control records, offsets
//!                              \_ timeout: aborted, epoch + 1
//! ```

use std::collections::{BTreeMap, BTreeSet};

use crate::client::GroupMetadata;
use crate::client::embedded::clock::ms;
use crate::client::embedded::codec::{Committed, Entry};
use crate::client::embedded::log::{Outcome, TransactionNumber};
use crate::client::embedded::standing::Commit;
use crate::client::embedded::state::State;
use crate::error::{Error, ErrorKind, Result};
use crate::record::{OffsetAndMetadata, TopicPartition};

#[derive(Debug)]
pub(super) struct Transactions {
    pub(super) ids: BTreeMap<String, Identity>,
    pub(super) open: BTreeMap<TransactionNumber, Open>,
    pub(super) next: TransactionNumber,
}

impl Default for Transactions {
    fn default() -> Transactions {
        // 0 stands for "none" on disk.
        Transactions { ids: BTreeMap::new(), open: BTreeMap::new(), next: 1 }
    }
}

/// Who may write under a transactional id.
#[derive(Debug, Default)]
pub(super) struct Identity {
    pub(super) epoch: i32,
    pub(super) open: Option<TransactionNumber>,
}

#[derive(Debug)]
pub(super) struct Open {
    pub(super) id: String,
    pub(super) started: i64,
    pub(super) timeout_ms: i64,
    pub(super) partitions: BTreeSet<TopicPartition>,
    pub(super) offsets: BTreeMap<(String, TopicPartition), OffsetAndMetadata>,
}

impl Open {
    pub(super) fn new(id: &str, started: i64, timeout_ms: i64) -> Open {
        let (partitions, offsets) = (BTreeSet::new(), BTreeMap::new());
        Open { id: id.to_owned(), started, timeout_ms, partitions, offsets }
    }
}

/// A producer's claim to a transactional id.
#[derive(Debug, Clone)]
pub(super) struct Claim {
    pub(super) id: String,
    pub(super) epoch: i32,
    pub(super) timeout: std::time::Duration,
}

impl State {
    /// Fences the older producers of the id, aborts their transaction, and gives the new epoch.
    pub(super) fn init_producer(&mut self, id: &str) -> Result<i32> {
        if let Some(open) = self.transactions.ids.get(id).and_then(|identity| identity.open) {
            self.end(open, Outcome::Abort)?;
        }
        self.next_epoch(id)
    }

    fn next_epoch(&mut self, id: &str) -> Result<i32> {
        let identity = self.transactions.ids.entry(id.to_owned()).or_default();
        identity.epoch = identity.epoch.saturating_add(1);
        let epoch = identity.epoch;
        if let Some(storage) = &mut self.storage {
            storage.write(&Entry::Epoch { id: id.to_owned(), epoch })?;
        }
        Ok(epoch)
    }

    pub(super) fn check(&self, claim: &Claim) -> Result<()> {
        match self.transactions.ids.get(&claim.id) {
            Some(identity) if identity.epoch == claim.epoch => Ok(()),
            _ => Err(Error::new(
                ErrorKind::Fenced,
                format!(
                    "the producer of transactional id {} is fenced: another one has taken over, or its transaction took \
                     longer than {} ms",
                    claim.id,
                    claim.timeout.as_millis()
                ),
            )),
        }
    }

    /// The open transaction of a producer, a new one if need be. Its time runs from here.
    pub(super) fn open_transaction(&mut self, claim: &Claim) -> Result<TransactionNumber> {
        self.check(claim)?;
        if let Some(open) = self.open_of(claim) {
            return Ok(open);
        }
        let (transaction, started) = (self.transactions.next, self.clock.now());
        let timeout_ms = ms(claim.timeout);
        if let Some(storage) = &mut self.storage {
            storage.write(&Entry::Begin { transaction, id: claim.id.clone(), started, timeout_ms })?;
        }
        self.transactions.next += 1;
        self.transactions.open.insert(transaction, Open::new(&claim.id, started, timeout_ms));
        if let Some(identity) = self.transactions.ids.get_mut(&claim.id) {
            identity.open = Some(transaction);
        }
        Ok(transaction)
    }

    fn open_of(&self, claim: &Claim) -> Option<TransactionNumber> {
        self.transactions.ids.get(&claim.id)?.open
    }

    pub(super) fn add_partition(&mut self, transaction: TransactionNumber, partition: &TopicPartition) {
        if let Some(open) = self.transactions.open.get_mut(&transaction)
            && !open.partitions.contains(partition)
        {
            open.partitions.insert(partition.clone());
        }
    }

    pub(super) fn add_offsets(
        &mut self,
        claim: &Claim,
        offsets: &[(TopicPartition, OffsetAndMetadata)],
        group: &GroupMetadata,
    ) -> Result<()> {
        self.check(claim)?;
        self.check_commit(group, Commit::InTransaction)?;
        let transaction = self.open_transaction(claim)?;
        if let Some(open) = self.transactions.open.get_mut(&transaction) {
            let of_group = |(partition, position): &(TopicPartition, OffsetAndMetadata)| {
                ((group.group.clone(), partition.clone()), position.clone())
            };
            open.offsets.extend(offsets.iter().map(of_group));
        }
        Ok(())
    }

    /// Ends the producer's transaction, if it has one.
    pub(super) fn end_transaction(&mut self, claim: &Claim, outcome: Outcome) -> Result<()> {
        self.check(claim)?;
        match self.open_of(claim) {
            Some(open) => self.end(open, outcome),
            None => Ok(()),
        }
    }

    pub(super) fn end_overdue_transactions(&mut self, now: i64) -> Result<bool> {
        let is_overdue = |open: &&Open| now.saturating_sub(open.started) > open.timeout_ms;
        let mut ended = false;
        while let Some((transaction, open)) = self.transactions.open.iter().find(|(_, open)| is_overdue(open)) {
            let (transaction, id) = (*transaction, open.id.clone());
            tracing::warn!(transactional_id = id, "a transaction took too long and is aborted");
            self.end(transaction, Outcome::Abort)?;
            self.next_epoch(&id)?;
            ended = true;
        }
        Ok(ended)
    }

    /// Decides a transaction.
    ///
    /// IMPORTANT: the decision is written after the records and before any control record. Opening the directory
    /// writes the missing control records of what is decided, and leaves everything else open.
    fn end(&mut self, transaction: TransactionNumber, outcome: Outcome) -> Result<()> {
        let Some(open) = self.transactions.open.get(&transaction) else { return Ok(()) };
        let mut offsets = Vec::new();
        if outcome == Outcome::Commit {
            let committed = |((group, partition), position): (&(String, TopicPartition), &OffsetAndMetadata)| {
                Committed { group: group.clone(), partition: partition.clone(), position: position.clone() }
            };
            offsets.extend(open.offsets.iter().map(committed));
        }
        if let Some(storage) = &mut self.storage {
            storage.write(&Entry::End { transaction, outcome, offsets: offsets.clone() })?;
        }
        let Some(open) = self.transactions.open.remove(&transaction) else { return Ok(()) };
        if let Some(identity) = self.transactions.ids.get_mut(&open.id) {
            identity.open = None;
        }
        for partition in &open.partitions {
            self.mark(partition, transaction, outcome)?;
        }
        self.store_offsets(offsets);
        self.snapshot_if_long()
    }

    /// Appends the control record, if the partition has records of the transaction.
    pub(super) fn mark(
        &mut self,
        partition: &TopicPartition,
        transaction: TransactionNumber,
        outcome: Outcome,
    ) -> Result<()> {
        let now = self.clock.now();
        let Some(topic) = self.topics.get_mut(&partition.topic) else { return Ok(()) };
        let id = topic.id;
        let Some(log) = topic.log_mut(partition.partition) else { return Ok(()) };
        if let Some(marker) = log.marker(transaction, outcome, now) {
            if let Some(storage) = &mut self.storage {
                storage.append(id, partition.partition, &marker)?;
            }
            log.push(marker);
        }
        Ok(())
    }

    pub(super) fn store_offsets(&mut self, offsets: Vec<Committed>) {
        for Committed { group, partition, position } in offsets {
            // Those of a topic that was deleted meanwhile are not wanted by anybody.
            if self.topics.contains_key(&partition.topic) {
                self.groups.entry(group).or_default().committed.insert(partition, position);
            }
        }
    }

    /// Whether a position of the group waits for a transaction to be decided.
    pub(super) fn is_pending(&self, group: &str, partition: &TopicPartition) -> bool {
        self.transactions
            .open
            .values()
            .any(|open| open.offsets.keys().any(|(of, pending)| of == group && pending == partition))
    }
}
