//! Writes to the in-process cluster: a record is in its partition when `send` returns.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::client::embedded::log::{Data, Outcome, TransactionNumber};
use crate::client::embedded::state::{Shared, State, missing};
use crate::client::embedded::transactions::Claim;
use crate::client::{DeliveryFailure, GroupMetadata, Producer, ProducerSpec};
use crate::error::{Error, ErrorKind, Result};
use crate::record::{OffsetAndMetadata, ProducerRecord, TopicPartition};

/// More failures than that are not remembered: `send` fails instead until they are taken.
const FAILURES_MAX: usize = 10_000;

pub(super) struct EmbeddedProducer {
    shared: Arc<Shared>,
    spec: ProducerSpec,
    /// Given by `init_transactions`.
    claim: Option<Claim>,
    transaction: Progress,
    tracked: BTreeMap<TopicPartition, i64>,
    failures: Vec<DeliveryFailure>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Progress {
    None,
    Open,
    /// Something of it was refused: it can only be aborted.
    Broken,
}

impl EmbeddedProducer {
    pub(super) fn new(shared: Arc<Shared>, spec: ProducerSpec) -> EmbeddedProducer {
        let (tracked, failures) = (BTreeMap::new(), Vec::new());
        EmbeddedProducer { shared, spec, claim: None, transaction: Progress::None, tracked, failures }
    }

    fn claim(&self) -> Result<&Claim> {
        self.claim.as_ref().ok_or_else(|| misuse(&self.spec, "init_transactions has not been called"))
    }

    fn in_transaction(&self) -> Result<&Claim> {
        let claim = self.claim()?;
        if self.transaction == Progress::None { Err(misuse(&self.spec, "no transaction is open")) } else { Ok(claim) }
    }

    /// Appends the record, or says why the cluster does not take it.
    fn append(&self, state: &mut State, record: &ProducerRecord<'_>) -> Result<(TopicPartition, i64), Refused> {
        let mut transaction: Option<TransactionNumber> = None;
        if self.spec.transactional_id.is_some() {
            let claim = self.in_transaction().map_err(Refused::Call)?;
            state.check(claim).map_err(Refused::Call)?;
        }
        let partition = state.choose_partition(record.topic, record.partition, record.key).map_err(Refused::Record)?;
        let partition = TopicPartition::new(Arc::clone(record.topic), partition);
        if let Some(claim) = &self.claim {
            let open = state.open_transaction(claim).map_err(Refused::Call)?;
            state.add_partition(open, &partition);
            transaction = Some(open);
        }
        let data = Data {
            key: record.key.map(Into::into),
            value: record.value.map(Into::into),
            headers: record.headers.clone(),
        };
        match state.append(&partition, transaction, record.timestamp, data) {
            Ok(offset) => Ok((partition, offset)),
            Err(error) if error.kind() == ErrorKind::Invalid => Err(Refused::Record(error)),
            Err(error) => Err(Refused::Call(error)),
        }
    }

    fn end(&mut self, outcome: Outcome) -> Result<()> {
        let claim = self.in_transaction()?;
        self.shared.state()?.end_transaction(claim, outcome)?;
        self.transaction = Progress::None;
        self.shared.wake();
        Ok(())
    }
}

enum Refused {
    /// The record: a delivery failure.
    Record(Error),
    Call(Error),
}

impl Producer for EmbeddedProducer {
    fn init_transactions(&mut self, _timeout: Duration) -> Result<()> {
        let Some(id) = self.spec.transactional_id.clone() else {
            return Err(misuse(&self.spec, "it has no transactional id"));
        };
        let epoch = self.shared.state()?.init_producer(&id)?;
        self.claim = Some(Claim { id, epoch, timeout: self.spec.transaction_timeout });
        self.transaction = Progress::None;
        self.shared.wake();
        Ok(())
    }

    fn begin_transaction(&mut self) -> Result<()> {
        let claim = self.claim()?;
        if self.transaction != Progress::None {
            return Err(misuse(&self.spec, "a transaction is open already"));
        }
        self.shared.state()?.check(claim)?;
        self.transaction = Progress::Open;
        Ok(())
    }

    fn send(&mut self, record: ProducerRecord<'_>, track: bool) -> Result<()> {
        if self.failures.len() >= FAILURES_MAX {
            let context = format!("{FAILURES_MAX} records have failed: confirm what was sent first");
            return Err(Error::new(ErrorKind::Unavailable, context));
        }
        let shared = Arc::clone(&self.shared);
        let mut state = shared.state()?;
        let appended = self.append(&mut state, &record);
        // What stands in an open transaction only matters to those who read everything.
        let is_news = self.claim.is_none() || state.uncommitted_waiters > 0;
        drop(state);
        match appended {
            Ok((partition, offset)) => {
                if track {
                    self.tracked.insert(partition, offset + 1);
                }
                if is_news {
                    shared.wake();
                }
                Ok(())
            }
            Err(Refused::Record(error)) => {
                if self.transaction == Progress::Open {
                    self.transaction = Progress::Broken;
                }
                self.failures.push(DeliveryFailure {
                    partition: TopicPartition::new(Arc::clone(record.topic), record.partition.unwrap_or(-1)),
                    key: record.key.map(<[u8]>::to_vec),
                    value: record.value.map(<[u8]>::to_vec),
                    timestamp: record.timestamp,
                    error,
                });
                Ok(())
            }
            Err(Refused::Call(error)) => Err(error),
        }
    }

    fn confirm(&mut self, _timeout: Duration) -> Result<Vec<DeliveryFailure>> {
        self.shared.state()?.flush()?;
        Ok(std::mem::take(&mut self.failures))
    }

    fn end_offset(&self, partition: &TopicPartition) -> Option<i64> {
        self.tracked.get(partition).copied()
    }

    fn send_offsets(&mut self, offsets: &[(TopicPartition, OffsetAndMetadata)], group: &GroupMetadata) -> Result<()> {
        let claim = self.in_transaction()?;
        let added = self.shared.state()?.add_offsets(claim, offsets, group);
        if added.as_ref().is_err_and(|error| error.kind() == ErrorKind::Aborted) {
            self.transaction = Progress::Broken;
        }
        added
    }

    fn commit_transaction(&mut self, _timeout: Duration) -> Result<()> {
        let claim = self.in_transaction()?;
        if self.transaction == Progress::Broken {
            self.shared.state()?.check(claim)?;
            let context = format!(
                "could not commit the transaction of {}: a record or the offsets of it were refused: abort it",
                claim.id
            );
            return Err(Error::new(ErrorKind::Aborted, context));
        }
        self.end(Outcome::Commit)
    }

    fn abort_transaction(&mut self, _timeout: Duration) -> Result<()> {
        self.end(Outcome::Abort)?;
        self.failures.clear();
        Ok(())
    }

    fn partitions(&mut self, topic: &Arc<str>) -> Result<i32> {
        let state = self.shared.state()?;
        state.topics.get(topic).map(|topic| topic.partition_count()).ok_or_else(|| missing(topic))
    }
}

fn misuse(spec: &ProducerSpec, why: &str) -> Error {
    let id = spec.transactional_id.as_deref().unwrap_or("none");
    let context = format!("producer {} (transactional id: {id}) was called out of order: {why}", spec.client_id);
    Error::new(ErrorKind::Internal, context)
}
