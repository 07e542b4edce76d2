//! What happens to a real cluster now and then, done to this one by simulations, and a look at everything that its logs
//! hold.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::client::GroupMetadata;
use crate::client::embedded::EmbeddedCluster;
use crate::client::embedded::log::{Content, Log, Outcome, TransactionNumber};
use crate::client::embedded::transactions::Claim;
use crate::error::Result;
use crate::record::{OffsetAndMetadata, TopicPartition};

/// An entry of a log, whoever may see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Logged {
    pub offset: i64,
    pub timestamp: i64,
    pub transaction: Option<u64>,
    pub entry: LoggedEntry,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum LoggedEntry {
    Record { key: Option<Vec<u8>>, value: Option<Vec<u8>> },
    Committed,
    Aborted,
}

/// What a leader lost that others had not copied.
#[derive(Debug, Default)]
pub(crate) struct Truncated {
    /// Where the log ends now.
    pub end: i64,
    /// Whose records are gone: their producers hear that they were not delivered.
    pub transactional_ids: BTreeSet<String>,
}

/// A producer, as requests that are under way name it.
#[derive(Debug, Clone)]
pub(crate) struct ProducerName {
    pub transactional_id: String,
    pub epoch: i32,
}

impl ProducerName {
    fn claim(&self) -> Claim {
        Claim { id: self.transactional_id.clone(), epoch: self.epoch, timeout: Duration::from_secs(2) }
    }
}

impl EmbeddedCluster {
    /// The last producer that was initialized under a transactional id.
    pub(crate) fn producer_name(&self, transactional_id: &str) -> Result<ProducerName> {
        let state = self.shared.state()?;
        let epoch = state.transactions.ids.get(transactional_id).map_or(-1, |identity| identity.epoch);
        Ok(ProducerName { transactional_id: transactional_id.to_owned(), epoch })
    }

    /// A request to end a transaction arrives, late: nobody waits for its answer any more. Whether there was one to end.
    pub(crate) fn end_arrives(&self, producer: &ProducerName, is_commit: bool) -> Result<bool> {
        let outcome = if is_commit { Outcome::Commit } else { Outcome::Abort };
        let mut state = self.shared.state()?;
        let is_open = state.transactions.ids.get(&producer.transactional_id).is_some_and(|id| id.open.is_some());
        state.end_transaction(&producer.claim(), outcome)?;
        drop(state);
        self.shared.wake();
        Ok(is_open)
    }

    /// A request to add offsets to a transaction arrives, late.
    pub(crate) fn offsets_arrive(
        &self,
        producer: &ProducerName,
        offsets: &[(TopicPartition, OffsetAndMetadata)],
        group: &GroupMetadata,
    ) -> Result<()> {
        self.shared.state()?.add_offsets(&producer.claim(), offsets, group)
    }

    /// Another broker leads a partition, which has not copied the last records of transactions that are open. What is
    /// before `kept` was told to somebody to be there.
    pub(crate) fn fail_over(&self, partition: &TopicPartition, kept: i64) -> Result<Truncated> {
        let mut state = self.shared.state()?;
        let Some(topic) = state.topics.get_mut(&partition.topic) else { return Ok(Truncated::default()) };
        let Some(log) = topic.log_mut(partition.partition) else { return Ok(Truncated::default()) };
        let lost = log.lose_uncopied(kept);
        let end = log.end;
        let open = &state.transactions.open;
        let transactional_ids = lost.iter().filter_map(|number| Some(open.get(number)?.id.clone())).collect();
        Ok(Truncated { end, transactional_ids })
    }

    /// Another broker coordinates a group: it knows what was written of it, and nobody who waits for an answer gets one.
    pub(crate) fn move_coordinator(&self, group: &str) -> Result<()> {
        let mut state = self.shared.state()?;
        let now = state.clock.now();
        if let Some(group) = state.groups.get_mut(group) {
            group.classic.reload(now);
        }
        Ok(())
    }

    /// The entries of a partition from an offset on, and where the log ends.
    pub(crate) fn logged(&self, partition: &TopicPartition, from: i64) -> Result<(Vec<Logged>, i64)> {
        let state = self.shared.state()?;
        let log = state.log(partition)?;
        let entries = log.records.range(log.index_of(from)..).map(|record| Logged {
            offset: record.offset,
            timestamp: record.timestamp,
            transaction: record.transaction,
            entry: match &record.content {
                Content::Data(data) => LoggedEntry::Record {
                    key: data.key.as_deref().map(<[u8]>::to_vec),
                    value: data.value.as_deref().map(<[u8]>::to_vec),
                },
                Content::Marker(Outcome::Commit) => LoggedEntry::Committed,
                Content::Marker(Outcome::Abort) => LoggedEntry::Aborted,
            },
        });
        Ok((entries.collect(), log.end))
    }

    /// Moves the start of a partition up to its first record, as when whole files of a compacted log are gone.
    pub(crate) fn drop_empty_front(&self, partition: &TopicPartition) -> Result<()> {
        let mut state = self.shared.state()?;
        let log = state.log(partition)?;
        let first = log.records.front().map_or(log.end, |record| record.offset);
        let first = first.min(log.stable_end());
        state.delete_records(partition, first)
    }
}

impl Log {
    /// Loses what stands at the end, behind everything that is decided or told; the transactions that had it.
    fn lose_uncopied(&mut self, kept: i64) -> BTreeSet<TransactionNumber> {
        let mut lost = BTreeSet::new();
        while let Some(last) = self.records.back()
            && last.offset >= kept
            && let (Content::Data(_), Some(transaction)) = (&last.content, last.transaction)
            && self.open.contains_key(&transaction)
        {
            self.end = last.offset;
            self.bytes -= last.bytes();
            lost.insert(transaction);
            self.records.pop_back();
        }
        let end = self.end;
        self.open.retain(|_, first| *first < end);
        lost
    }
}
