//! Brings the stores of a task up to their changelogs, step by step.

use std::sync::Arc;

use super::application::Application;
use super::clock::Now;
use super::lags::StoreLag;
use super::live_rows::LiveRows;
use super::restore_event::{Meter, RestoreEvent};
use crate::client::{Consumer, Fetch, Lag};
use crate::error::{Error, ErrorKind, Result};
use crate::metrics::RestoreMetrics;
use crate::record::{RecordBatch, TopicPartition};
use crate::state::{HeldBack, LogState, Reach, StoreSpec, TaskStores};
use crate::task::CommitPoint;
use crate::topology::{TaskId, changelog_topic};

/// Records taken from a changelog in one step: enough for a sorted batch.
const STEP_RECORDS: usize = 8192;

/// Where the stores of a task come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    /// Opened just now, as the last run has left them.
    OnDisk,
    /// They were open all the time, and nobody else wrote their changelogs.
    Open,
}

/// Stores that are open, and may lack something.
pub(super) struct OpenStores {
    pub stores: TaskStores,
    pub found: Found,
}

/// What there is to read, and what of it was read.
pub(super) struct Plan(Vec<Job>);

/// The stores of one task on their way. Holds no operators: restoring needs none.
pub(super) struct Restoration {
    pub task: TaskId,
    pub stores: TaskStores,
    /// Where the inputs go on afterwards.
    pub committed: Vec<CommitPoint>,
    jobs: Vec<Job>,
    metrics: RestoreMetrics,
}

struct Job {
    store: usize,
    name: Arc<str>,
    changelog: TopicPartition,
    /// Where reading began.
    start: i64,
    /// What was read, though it may not be written yet.
    position: i64,
    /// Of everything in the changelog when restoring began, read uncommitted: the last commit is before it in any case.
    end: i64,
    meter: Meter,
    is_waiting: bool,
    /// Everything is in the store.
    is_written: bool,
    /// It is not known yet where to begin.
    search: Option<LiveRows>,
}

impl Restoration {
    /// Plans how each store gets up to date and assigns the changelogs to the restore consumer.
    ///
    /// # Errors
    /// `Unavailable` when the cluster does not say where the changelogs end: to be called again with what is open.
    pub(super) fn plan(
        app: &Application,
        task: TaskId,
        open: &mut OpenStores,
        committed: &[CommitPoint],
        consumer: &mut dyn Consumer,
        now: Now,
    ) -> Result<Plan> {
        let OpenStores { stores, found } = open;
        let changelogs = changelogs(app.id(), task, stores);
        let inputs = app.layout.inputs(task).map(|inputs| inputs.partitions).unwrap_or_default();
        let logged: Vec<_> = changelogs.iter().flatten().cloned().collect();
        let watermarks = if logged.is_empty() { Vec::new() } else { app.with_admin(|a| a.watermarks(&logged))? };
        let mut watermarks = watermarks.into_iter();
        let mut jobs = Vec::new();
        let names: Vec<_> = stores.specs().map(|spec| Arc::clone(&spec.name)).collect();
        for (store, (changelog, name)) in changelogs.into_iter().zip(names).enumerate() {
            let Some(changelog) = changelog else { continue };
            let Some(marks) = watermarks.next() else { continue };
            // IMPORTANT: what is behind the committed offset of an input is yet to be processed. A store that had it
            // already would not know what its rows were before.
            let end = match inputs.iter().position(|input| *input == changelog) {
                Some(input) => committed.get(input).map_or(marks.start, |point| point.offset.min(marks.end)),
                None => marks.end,
            };
            let from = first_offset(app, stores, store, &changelog, (marks.start, end), *found, now.wall_ms)?;
            let (meter, search) = (Meter::new(from, end, now), LiveRows::of(stores, store, &changelog, (from, end)));
            let (start, position) = (from, from);
            let (is_waiting, is_written) = (false, position >= end);
            jobs.push(Job { store, name, changelog, start, position, end, meter, is_waiting, is_written, search });
        }
        let first = |job: &Job| job.search.as_ref().map_or(job.position, LiveRows::first_offset);
        let assigned: Vec<_> = jobs.iter().filter(|job| job.position < job.end).collect();
        let assigned: Vec<_> = assigned.iter().map(|job| (job.changelog.clone(), first(job))).collect();
        if !assigned.is_empty() {
            consumer.assign(&assigned)?;
        }
        Ok(Plan(jobs))
    }

    pub(super) fn begin(
        app: &Application,
        thread: usize,
        task: TaskId,
        stores: TaskStores,
        committed: Vec<CommitPoint>,
        Plan(jobs): Plan,
    ) -> Restoration {
        jobs.iter().filter(|job| job.search.is_none()).for_each(|job| job.tell_start(app, task, &stores));
        let metrics = RestoreMetrics::new(&app.thread_name(thread), &task.to_string());
        let restoration = Restoration { task, stores, committed, jobs, metrics };
        restoration.tell_remaining(app);
        restoration
    }

    pub(super) fn is_done(&self) -> bool {
        self.jobs.is_empty()
    }

    /// Takes what the consumer has, a bounded number of records of each changelog and no more than `room` of all, which is
    /// less afterwards; how many there were.
    ///
    /// # Errors
    /// `Corrupted` when a changelog was cut off under the reader: to be begun again with empty stores.
    pub(super) fn step(
        &mut self,
        app: &Application,
        consumer: &mut dyn Consumer,
        batch: &mut RecordBatch,
        room: &mut usize,
        now: Now,
    ) -> Result<u64> {
        let mut taken = 0;
        for job in &mut self.jobs {
            if let Some(search) = &mut job.search {
                let Some(start) = search.step(app, &self.stores, consumer, batch)? else { continue };
                (job.start, job.position, job.search) = (start, start, None);
                job.meter = Meter::new(start, job.end, now);
                job.tell_start(app, self.task, &self.stores);
            }
            let records = job.step(self.task, &mut self.stores, consumer, batch, room)?;
            if records > 0 {
                let (store, partition, position) = (Arc::clone(&job.name), job.changelog.partition, job.position);
                let progress = job.meter.progress(position, now);
                if job.meter.is_due(now) {
                    tracing::info!("store {store} of task {} is being restored: {progress}", self.task);
                }
                app.restored(&RestoreEvent::Batch { store, partition, records, position, progress });
            }
            taken += records;
        }
        // Whose turn it was first is last the next time.
        if !self.jobs.is_empty() {
            self.jobs.rotate_left(1);
        }
        let done: Vec<Job> = self.jobs.extract_if(.., |job| job.is_written).collect();
        for job in done {
            let (partition, records) = (job.changelog.partition, job.meter.records);
            tracing::info!("store {} of task {} is restored, {records} records", job.name, self.task);
            app.restored(&RestoreEvent::Ended { store: job.name, partition, records });
        }
        self.metrics.restore_total.increment(taken);
        self.tell_remaining(app);
        Ok(taken)
    }

    fn tell_remaining(&self, app: &Application) {
        let lag = |job: &Job| StoreLag {
            store: Arc::clone(&job.name),
            partition: job.changelog.partition,
            position: job.position,
            end: job.end,
        };
        app.lags.restoring(self.task, self.jobs.iter().map(lag).collect());
        let remaining: i64 = self.jobs.iter().map(|job| (job.end - job.position).max(0)).sum();
        self.metrics.restore_remaining_records_total.set(remaining as f64);
    }

    /// The task goes elsewhere; what was read stays in its stores.
    pub(super) fn suspend(mut self, app: &Application, consumer: &mut dyn Consumer) -> Result<TaskStores> {
        self.metrics.restore_remaining_records_total.set(0.0);
        app.lags.closed(self.task);
        for job in self.jobs {
            consumer.unassign(std::slice::from_ref(&job.changelog))?;
            if job.search.is_some() {
                continue;
            }
            write_held_back(&mut self.stores, job.store)?;
            let (partition, records) = (job.changelog.partition, job.meter.records);
            app.restored(&RestoreEvent::Suspended { store: job.name, partition, records });
        }
        Ok(self.stores)
    }
}

impl Job {
    fn tell_start(&self, app: &Application, task: TaskId, stores: &TaskStores) {
        let Job { store, name, changelog, start: from, end, .. } = self;
        if stores.offset(*store).is_some() {
            tracing::info!("store {name} of task {task} resumes at offset {from} of {end}");
        } else {
            tracing::info!("store {name} of task {task} is restored from its changelog, offset {from} to {end}");
        }
        let (store, partition) = (Arc::clone(name), changelog.partition);
        app.restored(&RestoreEvent::Started { store, partition, from: *from, to: *end });
    }

    fn step(
        &mut self,
        task: TaskId,
        stores: &mut TaskStores,
        consumer: &mut dyn Consumer,
        batch: &mut RecordBatch,
        room: &mut usize,
    ) -> Result<u64> {
        if self.position >= self.end {
            // It is being written.
            let ended = stores.end_restore(self.store);
            if !matches!(ended, Ok(HeldBack::UnderWay)) {
                self.written(ended, stores, consumer)?;
            }
            return Ok(0);
        }
        let records_max = STEP_RECORDS.min(*room);
        if records_max == 0 {
            return Ok(0);
        }
        batch.clear();
        if consumer.fetch(&self.changelog, records_max, batch)? == Fetch::OutOfRange {
            let context = format!("offset {} of changelog {} is not there any more", self.position, self.changelog);
            return Err(Error::new(ErrorKind::Corrupted, context));
        }
        // Nothing is behind the end but where an input is the changelog.
        batch.truncate(self.end);
        let next = consumer.position(&self.changelog).unwrap_or(self.position).min(self.end);
        if next > self.position {
            let reach = Reach { next_offset: next, end: self.end };
            let written = stores.restore_towards(self.store, batch, reach);
            let written = match next >= self.end {
                true => written.and_then(|()| stores.end_restore(self.store)),
                false => written.map(|()| HeldBack::UnderWay),
            };
            self.position = next;
            self.written(written, stores, consumer)?;
        } else if !self.is_waiting && consumer.lag(&self.changelog) == Lag::CaughtUp {
            // Read committed ends before an open transaction: that of an instance before this one.
            self.is_waiting = true;
            let Job { name, position, end, .. } = self;
            tracing::info!("store {name} of task {task} waits at offset {position} of {end} for an open transaction");
        }
        *room = room.saturating_sub(batch.len());
        let records = batch.len() as u64;
        self.meter.add(records, batch.bytes());
        Ok(records)
    }

    /// Records were given to the store, or written by it.
    fn written(
        &mut self,
        written: Result<HeldBack>,
        stores: &mut TaskStores,
        consumer: &mut dyn Consumer,
    ) -> Result<()> {
        match written {
            Ok(held_back) => {
                self.is_written = self.position >= self.end && held_back == HeldBack::Written;
                // What is behind the end waits for nobody.
                if self.position >= self.end {
                    consumer.unassign(std::slice::from_ref(&self.changelog))?;
                }
                Ok(())
            }
            Err(error) => {
                // IMPORTANT: what was read is not in the store, and the consumer is behind it.
                stores.give_up_restore(self.store)?;
                self.position = stores.offset(self.store).unwrap_or(self.start);
                consumer.assign(&[(self.changelog.clone(), self.position)])?;
                Err(error)
            }
        }
    }
}

/// Writes rows that a store has collected, before it changes hands. What cannot be written is read again.
pub(super) fn write_held_back(stores: &mut TaskStores, store: usize) -> Result<()> {
    stores.finish_restore(store).or_else(|error| {
        tracing::warn!("restored rows could not be written, and will be read again: {}", error.report());
        stores.give_up_restore(store)
    })
}

/// Where in its changelog, which reaches from one offset to another, a store has to be read from. One that has to be read
/// from the start is emptied.
pub(super) fn first_offset(
    app: &Application,
    stores: &mut TaskStores,
    store: usize,
    changelog: &TopicPartition,
    (start, end): (i64, i64),
    found: Found,
    now_ms: i64,
) -> Result<i64> {
    let log = LogState { start, end, delete_retention_ms: delete_retention_ms(app, changelog) };
    match found {
        Found::OnDisk => stores.begin_restore(store, &log, now_ms),
        Found::Open => stores.go_on_restore(store, &log, now_ms),
    }
}

/// How long (ms) a deletion stays in a changelog; none: it is not compacted.
pub(super) fn delete_retention_ms(app: &Application, changelog: &TopicPartition) -> Option<i64> {
    app.changelogs.get(&changelog.topic)?.delete_retention_ms
}

/// The changelog partition of each store of a task.
pub(super) fn changelogs(application_id: &str, task: TaskId, stores: &TaskStores) -> Vec<Option<TopicPartition>> {
    let changelog = |spec: &Arc<StoreSpec>| {
        let topic = changelog_of(application_id, spec)?;
        Some(TopicPartition::new(topic, task.partition))
    };
    stores.specs().map(changelog).collect()
}

/// The topic that a store is restored from: its own, or one of the task's inputs.
pub(super) fn changelog_of(application_id: &str, spec: &StoreSpec) -> Option<Arc<str>> {
    match spec.source_changelog() {
        Some(topic) => Some(Arc::clone(topic)),
        None => spec.is_logged().then(|| changelog_topic(application_id, &spec.name)),
    }
}
