//! Reads partitions of the in-process cluster.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::client::embedded::clock::Patience;
use crate::client::embedded::groups::Seat;
use crate::client::embedded::state::{Shared, State};
use crate::client::{Consumer, Fetch, Isolation, Lag};
use crate::error::{Error, ErrorKind, Result};
use crate::record::{RecordBatch, TopicPartition};

pub(super) struct EmbeddedConsumer {
    shared: Arc<Shared>,
    isolation: Isolation,
    /// The group and the place in it whose events end a wait.
    seat: Option<(String, Seat)>,
    partitions: BTreeMap<TopicPartition, Reading>,
    is_woken: Arc<AtomicBool>,
}

#[derive(Debug)]
struct Reading {
    position: i64,
    /// Whether the cluster has been asked since the partition was assigned.
    is_answered: bool,
    /// Whether the caller has asked for records since it last waited: one that holds enough of a partition leaves it
    /// alone, and then only something new in it ends a wait.
    is_wanted: bool,
    /// What could be seen when it last waited.
    noticed_end: i64,
}

impl EmbeddedConsumer {
    pub(super) fn new(shared: Arc<Shared>, isolation: Isolation, seat: Option<(String, Seat)>) -> EmbeddedConsumer {
        EmbeddedConsumer { shared, isolation, seat, partitions: BTreeMap::new(), is_woken: Arc::default() }
    }

    fn has_something(&self, state: &State) -> bool {
        if self.seat.as_ref().is_some_and(|(group, seat)| state.has_event(group, *seat)) {
            return true;
        }
        self.partitions.iter().any(|(partition, reading)| match state.log(partition) {
            Ok(log) => {
                let end = log.visible_end(self.isolation);
                let is_out = reading.position < log.start || reading.position > log.end;
                let is_behind = reading.position < end || is_out;
                is_behind && (reading.is_wanted || end > reading.noticed_end)
            }
            // The next fetch says what is wrong.
            Err(_) => reading.is_wanted,
        })
    }

    fn notice(&mut self, state: &State) {
        for (partition, reading) in &mut self.partitions {
            reading.is_wanted = false;
            reading.noticed_end = state.log(partition).map_or(0, |log| log.visible_end(self.isolation));
        }
    }
}

impl Consumer for EmbeddedConsumer {
    fn assign(&mut self, partitions: &[(TopicPartition, i64)]) -> Result<()> {
        for (partition, offset) in partitions {
            let reading = Reading { position: *offset, is_answered: false, is_wanted: true, noticed_end: 0 };
            self.partitions.insert(partition.clone(), reading);
        }
        Ok(())
    }

    fn unassign(&mut self, partitions: &[TopicPartition]) -> Result<()> {
        for partition in partitions {
            self.partitions.remove(partition);
        }
        Ok(())
    }

    fn fetch(&mut self, partition: &TopicPartition, records_max: usize, batch: &mut RecordBatch) -> Result<Fetch> {
        let Some(reading) = self.partitions.get_mut(partition) else {
            let context = format!("could not fetch from {partition}: it is not assigned to this consumer");
            return Err(Error::new(ErrorKind::Internal, context));
        };
        reading.is_wanted = true;
        let state = self.shared.state()?;
        let log = state.log(partition).map_err(|error| {
            let context = format!("could not fetch from {partition}: it is not there (any more)");
            Error::new(ErrorKind::Unavailable, context).with_source(error)
        })?;
        match log.read(reading.position, self.isolation, records_max, batch)? {
            Some(position) => {
                reading.position = position;
                reading.is_answered = true;
                Ok(Fetch::Records)
            }
            None => Ok(Fetch::OutOfRange),
        }
    }

    fn position(&self, partition: &TopicPartition) -> Option<i64> {
        self.partitions.get(partition).map(|reading| reading.position)
    }

    fn lag(&self, partition: &TopicPartition) -> Lag {
        let Some(reading) = self.partitions.get(partition).filter(|reading| reading.is_answered) else {
            return Lag::Unknown;
        };
        let Ok(state) = self.shared.state() else { return Lag::Unknown };
        match state.log(partition) {
            Ok(log) if reading.position < log.visible_end(self.isolation) => Lag::Behind,
            Ok(_) => Lag::CaughtUp,
            Err(_) => Lag::Unknown,
        }
    }

    fn end(&self, partition: &TopicPartition) -> Option<i64> {
        let state = self.shared.state().ok()?;
        state.log(partition).ok().map(|log| log.visible_end(self.isolation))
    }

    fn wait(&mut self, timeout: Duration) -> Result<()> {
        let patience = Patience::new(timeout);
        let shared = Arc::clone(&self.shared);
        let mut state = shared.state()?;
        let is_uncommitted = usize::from(self.isolation == Isolation::ReadUncommitted);
        // Relaxed: what the flag tells of is behind locks of its own.
        while !self.is_woken.swap(false, Ordering::Relaxed) && !self.has_something(&state) {
            let Some(left) = patience.left() else { break };
            state.uncommitted_waiters += is_uncommitted;
            let waited = shared.wait(state, left);
            match waited {
                Ok(again) => state = again,
                Err(error) => return Err(error),
            }
            state.uncommitted_waiters -= is_uncommitted;
        }
        self.notice(&state);
        Ok(())
    }

    fn waker(&self) -> Arc<dyn Fn() + Send + Sync> {
        let (shared, is_woken) = (Arc::clone(&self.shared), Arc::clone(&self.is_woken));
        Arc::new(move || {
            is_woken.store(true, Ordering::Relaxed);
            // With the lock, between the look at the flag and the wait no wake-up is lost.
            drop(shared.state());
            shared.wake();
        })
    }
}
