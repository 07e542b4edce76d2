//! The thread that keeps global stores up to date. It reads every partition of their topics with a consumer of its own,
//! outside of the group, and is caught up once before the stream threads begin.
//!
//! What it has processed is applied at once, with the offsets in the same write: nothing else commits it, and a restart
//! goes on from there. Reading a record twice is harmless, because every record says what its row is.

use std::sync::Arc;
use std::time::Duration;

use super::application::Application;
use super::clock::Now;
use super::restore_event::{Meter, RestoreEvent};
use super::stream_thread::{Order, Orders};
use crate::client::{Consumer, ConsumerSpec, Fetch, Topics, Watermarks};
use crate::error::{Error, ErrorKind, Result};
use crate::record::TopicPartition;
use crate::state::{ChangelogIdentity, GlobalStores, StoreToOpen, TaskStores};
use crate::task::GlobalTask;
use crate::topology::{TaskEnvironment, TaskId};

/// Records taken of a partition at once: readers wait for a batch of rows in memory to be applied.
const BATCH_RECORDS: usize = 4096;

/// The longest wait for records; an order to stop comes through at the latest then.
const WAIT_MAX: Duration = Duration::from_millis(100);

/// The pause after something failed that is to be tried again.
const RETRY_PAUSE: Duration = Duration::from_millis(100);

pub(super) struct GlobalThread {
    app: Arc<Application>,
    consumer: Box<dyn Consumer>,
    tasks: Vec<GlobalTask>,
    /// Partitions that are not yet where they ended at the start.
    behind: Vec<Behind>,
    orders: Arc<Orders>,
}

struct Behind {
    store: Arc<str>,
    partition: TopicPartition,
    end: i64,
    meter: Meter,
}

impl GlobalThread {
    /// Opens the stores and begins to read; none when it was told to stop meanwhile.
    ///
    /// # Errors
    /// What a maker returned, and stores that cannot be opened.
    pub(super) fn open(app: &Arc<Application>, orders: &Arc<Orders>) -> Result<Option<GlobalThread>> {
        let mut has_failed = false;
        loop {
            if orders.current() != Order::GoOn {
                return Ok(None);
            }
            match GlobalThread::try_open(app, orders) {
                Ok(thread) => return Ok(Some(thread)),
                Err(error) if error.kind() == ErrorKind::Unavailable => {
                    if !std::mem::replace(&mut has_failed, true) {
                        tracing::warn!("could not open the global stores, trying on: {}", error.report());
                    }
                    std::thread::park_timeout(RETRY_PAUSE);
                }
                Err(error) => return Err(error),
            }
        }
    }

    fn try_open(app: &Arc<Application>, orders: &Arc<Orders>) -> Result<GlobalThread> {
        let spec = ConsumerSpec {
            client_id: app.own_client_id() + "-global-consumer",
            isolation: app.isolation(),
            topics: Topics::Any,
        };
        let consumer = app.cluster.consumer(&spec)?;
        let (app, orders) = (Arc::clone(app), Arc::clone(orders));
        let mut thread = GlobalThread { app, consumer, tasks: Vec::new(), behind: Vec::new(), orders };
        for sub_topology in thread.app.topology.globals() {
            thread.open_task(sub_topology)?;
        }
        Ok(thread)
    }

    fn open_task(&mut self, sub_topology: usize) -> Result<()> {
        let (app, now) = (&self.app, Now::read());
        let nodes = app.topology.sub_topology(sub_topology);
        let Some(topic) = app.topology.source_topics(&nodes).into_iter().next() else { return Ok(()) };
        let topic_id = app.input_ids.get(&topic).copied();
        let partitions: Vec<_> = (0..(app.partition_counts)(&topic)?)
            .map(|partition| TopicPartition::new(Arc::clone(&topic), partition))
            .collect();
        let marks = app.with_admin(|admin| admin.watermarks(&partitions))?;
        let identity = ChangelogIdentity { topic: Arc::clone(&topic), topic_id, partition: 0 };
        let specs = app.topology.stores(&nodes);
        let Some(store) = specs.first().map(|spec| Arc::clone(&spec.name)) else { return Ok(()) };
        let to_open = |spec| StoreToOpen { spec, changelog: Some(identity.clone()) };
        let to_open: Vec<_> = specs.into_iter().map(to_open).collect();
        // A folder and a database of its own: each store is fed by another topic, at other offsets.
        let folder = format!("global/{store}");
        let (mut stores, known) = TaskStores::open_global(&app.state_home(), &folder, &to_open, now.wall_ms)?;
        let starts = match resume(&known, &marks) {
            Some(starts) => starts,
            None => {
                if !known.is_empty() {
                    tracing::warn!("global store {store} is read anew: {topic} no longer has the records that follow");
                }
                stores.wipe_all()?;
                marks.iter().map(|marks| marks.start).collect()
            }
        };
        let task = TaskId { sub_topology, partition: 0 };
        let environment = TaskEnvironment { handlers: app.config.global_handlers(), ..app.environment(task) };
        let inputs: Vec<_> = partitions.into_iter().zip(starts).collect();
        for ((partition, start), marks) in inputs.iter().zip(&marks) {
            let (store, partition, end) = (Arc::clone(&store), partition.clone(), marks.end);
            if *start < end {
                let (store, partition) = (Arc::clone(&store), partition.partition);
                app.restored(&RestoreEvent::Started { store, partition, from: *start, to: end });
            }
            let meter = Meter::new(*start, end, now);
            self.behind.push(Behind { store, partition, end, meter });
        }
        let text: Vec<_> = inputs.iter().map(|(partition, start)| format!("{partition}@{start}")).collect();
        tracing::info!("global store {store} is read from {}", text.join(" "));
        self.consumer.assign(&inputs)?;
        let task = GlobalTask::new(&app.topology, sub_topology, environment, stores, inputs, now.wall_ms)?;
        self.tasks.push(task);
        Ok(())
    }

    /// Works until it is told to stop; tells once when every store is where its topic ended at the start.
    ///
    /// # Errors
    /// What no handler let pass, and a topic that was deleted or truncated under the reader.
    pub(super) fn run(mut self, is_ready: impl FnOnce()) -> Result<()> {
        let mut is_ready = Some(is_ready);
        let mut complained = false;
        while self.orders.current() == Order::GoOn {
            let taken = match self.turn() {
                Ok(taken) => taken,
                Err(error) if error.kind() == ErrorKind::Unavailable => {
                    if !std::mem::replace(&mut complained, true) {
                        tracing::warn!("could not read global stores, trying on: {}", error.report());
                    }
                    std::thread::park_timeout(RETRY_PAUSE);
                    continue;
                }
                Err(error) => return Err(error),
            };
            complained = false;
            self.note_caught_up();
            if self.behind.is_empty()
                && let Some(is_ready) = is_ready.take()
            {
                self.publish()?;
                is_ready();
            }
            if taken == 0 {
                // A wait that fails is followed by a turn that does, and says so.
                let _ = self.consumer.wait(WAIT_MAX);
            }
        }
        self.close()
    }

    /// Takes what the consumer has of each partition; how many records there were.
    fn turn(&mut self) -> Result<usize> {
        let mut taken = 0;
        for task in &mut self.tasks {
            for input in 0..task.inputs().len() {
                let Some(partition) = task.inputs().get(input).cloned() else { break };
                let mut batch = task.empty_batch();
                if self.consumer.fetch(&partition, BATCH_RECORDS, &mut batch)? == Fetch::OutOfRange {
                    let context = format!("records of {partition} were deleted before its global store had them");
                    let remedy = "restart the application, which reads the topic anew";
                    return Err(Error::new(ErrorKind::Corrupted, format!("{context}: {remedy}")));
                }
                let (records, bytes) = (batch.len(), batch.bytes());
                let Some(position) = self.consumer.position(&partition) else { continue };
                task.add(input, batch, position);
                taken += records;
                if let Some(behind) = self.behind.iter_mut().find(|behind| behind.partition == partition && records > 0)
                {
                    let (store, partition, records) = (Arc::clone(&behind.store), partition.partition, records as u64);
                    behind.meter.add(records, bytes);
                    let progress = behind.meter.progress(position, Now::read());
                    self.app.restored(&RestoreEvent::Batch { store, partition, records, position, progress });
                }
            }
            if task.process(Now::read().wall_ms)? > 0 {
                self.app.lags.local.committed(task.id(), task.positions());
            }
        }
        Ok(taken)
    }

    fn note_caught_up(&mut self) {
        let (app, consumer) = (&self.app, &self.consumer);
        self.behind.retain(|behind| {
            let is_behind = consumer.position(&behind.partition).is_none_or(|position| position < behind.end);
            let records = behind.meter.records;
            if !is_behind && records > 0 {
                let (store, partition) = (Arc::clone(&behind.store), behind.partition.partition);
                app.restored(&RestoreEvent::Ended { store, partition, records });
            }
            is_behind
        });
    }

    /// From now on tasks may read the stores.
    fn publish(&mut self) -> Result<()> {
        let mut globals = GlobalStores::default();
        for task in &mut self.tasks {
            globals.add(task.stores()?);
            self.app.lags.local.global(task.id(), task.stores()?);
            self.app.lags.local.committed(task.id(), task.positions());
        }
        self.app.set_globals(Some(globals));
        Ok(())
    }

    fn close(self) -> Result<()> {
        // The last handles of readers: the databases are free with the stores.
        self.app.set_globals(None);
        self.tasks.iter().for_each(|task| self.app.lags.local.closed(task.id()));
        if self.orders.current() == Order::Crash {
            return Ok(());
        }
        for task in self.tasks {
            if let Err(error) = task.close().close() {
                tracing::warn!("could not write a global store while closing it: {}", error.report());
            }
        }
        Ok(())
    }
}

/// Where each partition goes on; none: what is stored does not fit the topic, and it is read from its start.
fn resume(known: &[(i32, i64)], marks: &[Watermarks]) -> Option<Vec<i64>> {
    let start = |(partition, marks): (i32, &Watermarks)| match known.iter().find(|(known, _)| *known == partition) {
        Some((_, offset)) => (marks.start..=marks.end).contains(offset).then_some(*offset),
        // A partition that has come since, or the first start of all.
        None => Some(marks.start),
    };
    if known.iter().any(|(partition, _)| usize::try_from(*partition).is_ok_and(|partition| partition >= marks.len())) {
        return None;
    }
    (0..).zip(marks).map(start).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_that_does_not_fit_its_topic_is_read_anew() {
        let marks = [Watermarks { start: 5, end: 9 }, Watermarks { start: 0, end: 3 }];
        assert_eq!(resume(&[(0, 7), (1, 3)], &marks), Some(vec![7, 3]));
        assert_eq!(resume(&[(0, 7)], &marks), Some(vec![7, 0]), "a partition is new");
        assert_eq!(resume(&[(0, 4), (1, 3)], &marks), None, "records are gone");
        assert_eq!(resume(&[(0, 7), (1, 4)], &marks), None, "the topic is shorter than the store");
        assert_eq!(resume(&[(0, 7), (1, 3), (2, 1)], &marks), None, "the topic had more partitions");
    }
}
