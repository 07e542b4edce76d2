//! Reads partitions from explicit offsets.
//!
//! Every partition has a queue of its own, filled by librdkafka's threads up to its limit and read here in batches. The
//! handle subscribes to nothing: [`super::group`] has its own.

use std::collections::hash_map::Entry;
use std::sync::Arc;
use std::time::Duration;

use rdkafka_sys::RDKafkaErrorCode as Code;
use rustc_hash::FxHashMap;

use super::failure::Failure;
use super::sys::{Client, Conf, Event, EventQueue, Fetched, PartitionList, PartitionQueue};
use super::wake::{Signal, Waker};
use crate::client::{Consumer, Fetch, Lag};
use crate::error::{Error, Result};
use crate::record::{RecordBatch, TopicPartition};

#[derive(Debug)]
pub(super) struct KafkaConsumer {
    partitions: FxHashMap<TopicPartition, Reading>,
    events: EventQueue,
    waker: Arc<Waker>,
    client: Arc<Client>,
}

/// A partition that is being read.
#[derive(Debug)]
struct Reading {
    queue: PartitionQueue,
    /// The offset after everything given or skipped.
    position: i64,
    lag: Lag,
    /// Something of this assignment has been seen: what librdkafka says of the partition is about it.
    seen: bool,
    /// Where the last event was that is no record: librdkafka counts it as one.
    event: Option<i64>,
    /// The high watermark at that event.
    high_at_end: Option<i64>,
    out_of_range: bool,
    /// Came behind records, which are handed out first.
    failure: Option<Failure>,
}

impl KafkaConsumer {
    pub(super) fn new(conf: Conf, client_id: &str, waker: Arc<Waker>) -> Result<KafkaConsumer> {
        let failed = |failure: Failure| failure.while_doing(format!("could not make the consumer {client_id}"));
        let client = Client::consumer(conf, client_id).map_err(failed)?;
        let events = EventQueue::new(&client, Signal::new(Arc::clone(&waker))).map_err(failed)?;
        Ok(KafkaConsumer { partitions: FxHashMap::default(), events, waker, client })
    }

    fn serve(&mut self) -> Result<()> {
        if !self.events.take_signal() {
            return Ok(());
        }
        while let Some(event) = self.events.poll(Duration::ZERO) {
            match event {
                Event::Failed(failure) if failure.fatal || failure.is_denied_access() => {
                    return Err(failure.while_doing("could not go on reading"));
                }
                // librdkafka goes on trying; it is kept for the message of what times out because of it.
                Event::Failed(failure) => tracing::debug!(%failure, "the consumer reports"),
                // The handle subscribes to nothing.
                Event::Assigned(_) | Event::Revoked | Event::Other => {}
            }
        }
        Ok(())
    }
}

impl Consumer for KafkaConsumer {
    fn assign(&mut self, partitions: &[(TopicPartition, i64)]) -> Result<()> {
        let moved: Vec<_> = partitions
            .iter()
            .map(|(partition, _)| partition)
            .filter(|p| self.partitions.contains_key(p))
            .cloned()
            .collect();
        // Taking a partition away and giving it again is a barrier: nothing fetched before comes after it. A seek is not.
        self.unassign(&moved)?;
        let failed = |failure: Failure| failure.while_doing(format_args!("could not read {}", listed(partitions)));
        for (partition, offset) in partitions {
            let queue =
                PartitionQueue::new(&self.client, partition, Signal::new(Arc::clone(&self.waker))).map_err(failed)?;
            self.partitions.insert(partition.clone(), Reading::new(queue, *offset));
        }
        let list =
            PartitionList::of(partitions.iter().map(|(partition, offset)| (partition, *offset))).map_err(failed)?;
        self.client.incremental_assign(&list).map_err(|failure| {
            for (partition, _) in partitions {
                self.partitions.remove(partition);
            }
            failed(failure)
        })
    }

    fn unassign(&mut self, partitions: &[TopicPartition]) -> Result<()> {
        let mut dropped = Vec::with_capacity(partitions.len());
        for partition in partitions {
            if let Entry::Occupied(entry) = self.partitions.entry(partition.clone()) {
                dropped.push(entry.key().clone());
                entry.remove();
            }
        }
        if dropped.is_empty() {
            return Ok(());
        }
        let failed =
            |failure: Failure| failure.while_doing(format_args!("could not stop reading {} partitions", dropped.len()));
        let list = PartitionList::of(dropped.iter().map(|partition| (partition, 0))).map_err(failed)?;
        self.client.incremental_unassign(&list).map_err(failed)
    }

    fn fetch(&mut self, partition: &TopicPartition, records_max: usize, batch: &mut RecordBatch) -> Result<Fetch> {
        let Some(reading) = self.partitions.get_mut(partition) else { return Ok(Fetch::Records) };
        reading.fetch(partition, records_max, batch)
    }

    fn position(&self, partition: &TopicPartition) -> Option<i64> {
        self.partitions.get(partition).map(|reading| reading.position)
    }

    fn lag(&self, partition: &TopicPartition) -> Lag {
        self.partitions.get(partition).map_or(Lag::Unknown, |reading| reading.lag)
    }

    /// What the last answer of the broker said. It knows the high watermark only: what an open transaction has written is
    /// taken off where the end of the partition has been seen.
    fn end(&self, partition: &TopicPartition) -> Option<i64> {
        let reading = self.partitions.get(partition)?;
        let high = reading.queue.high_watermark()?;
        Some(if reading.high_at_end == Some(high) { reading.position } else { high })
    }

    fn wait(&mut self, timeout: Duration) -> Result<()> {
        self.serve()?;
        self.waker.wait(timeout);
        self.serve()
    }

    fn waker(&self) -> Arc<dyn Fn() + Send + Sync> {
        let waker = Arc::clone(&self.waker);
        Arc::new(move || waker.wake())
    }
}

impl Reading {
    fn new(queue: PartitionQueue, position: i64) -> Reading {
        Reading {
            queue,
            position,
            lag: Lag::Unknown,
            seen: false,
            event: None,
            high_at_end: None,
            out_of_range: false,
            failure: None,
        }
    }

    fn fetch(&mut self, partition: &TopicPartition, records_max: usize, batch: &mut RecordBatch) -> Result<Fetch> {
        if self.out_of_range {
            return Ok(Fetch::OutOfRange);
        }
        if let Some(failure) = self.failure.take() {
            return Err(failure.while_doing(format_args!("could not read {partition} at offset {}", self.position)));
        }
        if records_max == 0 || !self.queue.take_signal() {
            return Ok(Fetch::Records);
        }
        let (mut records, mut at_end, mut pushed) = (0, false, Ok(()));
        let Reading { queue, position, event: last, out_of_range, failure: failed, .. } = self;
        let events = queue.drain(records_max, |event| match event {
            // Left over of an earlier position; a barrier should have kept it back.
            Fetched::Record { offset, .. } if offset < *position => {}
            Fetched::Record { offset, timestamp, key, value, headers } => {
                if pushed.is_ok() {
                    pushed = batch.push(offset, timestamp, key, value, headers);
                    *position = offset + 1;
                    records += 1;
                    at_end = false;
                }
            }
            Fetched::End { offset } => {
                *position = offset.max(*position);
                *last = Some(offset);
                at_end = true;
            }
            Fetched::Failed { failure, offset } => {
                // IMPORTANT: a position one too high is behind the end of the log, or steps over a record.
                *last = Some(offset);
                tracing::debug!(%partition, position = *position, offset, %failure, "reading failed");
                match failure.code {
                    Code::OffsetOutOfRange | Code::AutoOffsetReset => *out_of_range = true,
                    _ => *failed = Some(failure),
                }
            }
        });
        pushed?;
        self.seen |= events > 0;
        if events == records_max {
            // There may be more: the caller comes again at once, after the other partitions.
            self.queue.raise_signal();
        }
        self.learn(records, at_end, events == records_max);
        if self.out_of_range && records == 0 { Ok(Fetch::OutOfRange) } else { self.after(records, partition) }
    }

    /// An error that came behind records waits for the next call; without records it is told now.
    fn after(&mut self, records: usize, partition: &TopicPartition) -> Result<Fetch> {
        match self.failure.take() {
            Some(failure) if records == 0 => {
                Err(failure.while_doing(format_args!("could not read {partition} at offset {}", self.position)))
            }
            failure => {
                self.failure = failure;
                Ok(Fetch::Records)
            }
        }
    }

    /// Position and lag after a look into the queue.
    fn learn(&mut self, records: usize, at_end: bool, more: bool) {
        if at_end {
            self.lag = Lag::CaughtUp;
            self.high_at_end = self.queue.high_watermark();
            return;
        }
        if more {
            self.lag = Lag::Behind;
            return;
        }
        if !self.seen {
            return;
        }
        // Control records and those of aborted transactions are not given out, but the position goes past them. One behind
        // the last event may be librdkafka's error (#4844): the next end-of-partition event will tell.
        if let Some(raw) = self.queue.raw_position()
            && raw > self.position
            && self.event.is_none_or(|event| raw != event + 1)
        {
            self.position = raw;
        } else if records == 0 {
            return;
        }
        // Without waiting for the end-of-partition event, which comes only with the next, empty answer of the broker.
        if let Some(high) = self.queue.high_watermark() {
            self.lag = if self.position >= high { Lag::CaughtUp } else { Lag::Behind };
        }
    }
}

fn listed(partitions: &[(TopicPartition, i64)]) -> String {
    let mut text = partitions.iter().take(5).map(|(p, offset)| format!("{p}@{offset}")).collect::<Vec<_>>().join(", ");
    if partitions.len() > 5 {
        text.push_str(&format!(" and {} more", partitions.len() - 5));
    }
    text
}

/// What a member may not do without one.
pub(super) fn closed(what: &str) -> Error {
    Error::new(crate::error::ErrorKind::Closed, format!("{what} has been closed"))
}
