//! Stores that are kept up to date for a task that runs elsewhere: restorations that never end.
//!
//! ```text
//!   wanted ──> opening ──> Standby: reads its changelogs for ever ──> taken by value when its task comes here
//!                 ^                                                       |
//!                 └──── what its thread closes and shall still keep ──────┘
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use metrics::Counter;

use super::application::Application;
use super::clock::Now;
use super::lags::{StoreLag, sum};
use super::live_rows::LiveRows;
use super::rebalance::close_stores;
use super::restore::{Found, OpenStores, changelogs, delete_retention_ms, first_offset, write_held_back};
use super::restore_event::{RestoreEvent, StandbyEnd};
use super::stream_thread::RETRY_PAUSE;
use crate::client::{Consumer, Fetch, Lag};
use crate::error::{Error, ErrorKind, Result};
use crate::metrics::standby_update_total;
use crate::record::{RecordBatch, TopicPartition};
use crate::state::{Reach, TaskStores};
use crate::topology::TaskId;

/// How often the group is asked how far a source topic may be read.
const LIMIT_INTERVAL: Duration = Duration::from_secs(1);

/// The standbys of a restorer.
#[derive(Default)]
pub(super) struct Standbys {
    /// What the group has asked for. A task that is at work here yet is opened when it is closed.
    wanted: BTreeSet<TaskId>,
    /// To be opened, maybe with their stores.
    opening: BTreeMap<TaskId, Option<OpenStores>>,
    open: Vec<Standby>,
    /// When one could not be opened.
    failed: Option<Now>,
    /// When the group was last asked for limits.
    limits_asked: Option<Now>,
}

/// What a standby reads.
pub(super) struct StandbyPlan(Vec<Job>);

pub(super) struct Standby {
    task: TaskId,
    stores: TaskStores,
    jobs: Vec<Job>,
    /// Whether the group has been told that it has caught up, and it has not fallen behind since.
    is_warm: bool,
    update_total: Counter,
}

struct Job {
    store: usize,
    changelog: TopicPartition,
    /// Where reading began.
    start: i64,
    lag: StoreLag,
    limit: Limit,
    /// Whether there was nothing more to read at some time: before that, it is as any restoration.
    was_at_end: bool,
    /// It is not known yet where to begin.
    search: Option<LiveRows>,
}

/// How far a changelog may be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Limit {
    /// To its end.
    End,
    /// It is an input of the task. What is behind its committed offset is yet to be processed, by a task that has to find its
    /// rows as they were before. None: the offset is not known yet.
    Committed(Option<i64>),
}

impl Job {
    fn tell_start(&self, app: &Application) {
        let StoreLag { store, partition, position: from, .. } = self.lag.clone();
        app.restored(&RestoreEvent::StandbyStarted { store, partition, from });
    }

    /// Records that may be asked for. Each takes an offset at least.
    fn room(&self, room: usize) -> usize {
        match self.limit {
            Limit::End => room,
            Limit::Committed(None) => 0,
            Limit::Committed(Some(limit)) => {
                usize::try_from(limit.saturating_sub(self.lag.position)).map_or(0, |offsets| offsets.min(room))
            }
        }
    }

    /// Takes records, and says up to which offset they are all there are. What is behind the limit is left for later.
    fn take(&self, consumer: &mut dyn Consumer, room: usize, batch: &mut RecordBatch) -> Result<i64> {
        batch.clear();
        let Job { changelog, lag, .. } = self;
        let room = self.room(room);
        if room == 0 {
            return Ok(lag.position);
        }
        if consumer.fetch(changelog, room, batch)? == Fetch::OutOfRange {
            let context = format!("offset {} of changelog {changelog} is not there any more", lag.position);
            return Err(Error::new(ErrorKind::Corrupted, context));
        }
        let next = consumer.position(changelog).unwrap_or(lag.position);
        let Limit::Committed(Some(limit)) = self.limit else { return Ok(next) };
        let taken = batch.len();
        batch.truncate(limit);
        if batch.len() < taken {
            // Offsets without records stood in between.
            consumer.assign(&[(changelog.clone(), limit)])?;
        }
        Ok(next.min(limit))
    }

    /// The end of what is to be read, as far as it is known.
    fn end(&self, consumer: &dyn Consumer, next: i64) -> i64 {
        match (self.limit, consumer.lag(&self.changelog)) {
            (Limit::Committed(Some(limit)), _) => limit.max(next),
            (Limit::Committed(None), _) => self.lag.end,
            (Limit::End, Lag::CaughtUp) => next,
            (Limit::End, Lag::Behind | Lag::Unknown) => consumer.end(&self.changelog).unwrap_or(self.lag.end).max(next),
        }
    }
}

/// What a step of all standbys came to.
#[derive(Default)]
pub(super) struct StandbyStep {
    pub records: usize,
    /// Tasks that have caught up, of which the group has not heard.
    pub warm: BTreeSet<TaskId>,
}

impl Standbys {
    /// Keeps these and no others. What is still at work here is opened when it is handed over.
    pub(super) fn want(
        &mut self,
        app: &Application,
        tasks: BTreeSet<TaskId>,
        is_at_work: impl Fn(&TaskId) -> bool,
        mut consumer: Option<&mut (dyn Consumer + 'static)>,
    ) -> Result<()> {
        self.wanted = tasks;
        let Standbys { wanted, opening, open, .. } = self;
        let surplus: Vec<_> = opening.keys().copied().filter(|task| !wanted.contains(task)).collect();
        for task in surplus {
            let stores = opening.remove(&task).flatten();
            app.lags.closed(task);
            stores.into_iter().for_each(|open| close_stores(task, open.stores));
        }
        for standby in open.extract_if(.., |standby| !wanted.contains(&standby.task)).collect::<Vec<_>>() {
            let task = standby.task;
            app.lags.closed(task);
            close_stores(task, standby.end(app, StandbyEnd::Migrated, consumer.as_deref_mut())?);
        }
        let new: Vec<_> = self.wanted.iter().filter(|task| !is_at_work(task) && !self.has(**task)).copied().collect();
        new.into_iter().for_each(|task| self.keep(app, task, None));
        Ok(())
    }

    /// Which inputs stand in for changelogs, when it is time to ask how far the group has processed them.
    pub(super) fn limits_to_ask(&mut self, now: Now) -> Option<Vec<TopicPartition>> {
        let jobs = || self.open.iter().flat_map(|standby| &standby.jobs).filter(|job| job.limit != Limit::End);
        let is_new = jobs().any(|job| job.limit == Limit::Committed(None));
        let pause = if is_new { RETRY_PAUSE } else { LIMIT_INTERVAL };
        let inputs: Vec<_> = jobs().map(|job| job.changelog.clone()).collect();
        if inputs.is_empty() || self.limits_asked.is_some_and(|at| now.since(at) < pause) {
            return None;
        }
        self.limits_asked = Some(now);
        Some(inputs)
    }

    /// How far inputs are processed.
    pub(super) fn set_limits(&mut self, committed: &[(TopicPartition, Option<i64>)]) {
        let limited = |job: &&mut Job| job.limit != Limit::End;
        for job in self.open.iter_mut().flat_map(|standby| &mut standby.jobs).filter(limited) {
            if let Some((_, committed)) = committed.iter().find(|(input, _)| *input == job.changelog) {
                // What has never been committed has not been processed. A group whose offsets were set back goes on
                // from there, and its task begins the store anew.
                job.limit = Limit::Committed(Some(committed.unwrap_or(job.start)));
            }
        }
    }

    fn is_pausing(&mut self, now: Now) -> bool {
        self.failed = self.failed.filter(|at| now.since(*at) < RETRY_PAUSE);
        self.failed.is_some()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.opening.is_empty() && self.open.is_empty()
    }

    pub(super) fn wants(&self, task: TaskId) -> bool {
        self.wanted.contains(&task)
    }

    /// Whether a task is kept, or about to be.
    pub(super) fn has(&self, task: TaskId) -> bool {
        self.opening.contains_key(&task) || self.open.iter().any(|standby| standby.task == task)
    }

    /// Whether its stores are here and open.
    pub(super) fn is_open(&self, task: TaskId) -> bool {
        self.open.iter().any(|standby| standby.task == task) || matches!(self.opening.get(&task), Some(Some(_)))
    }

    /// The stores of a task that was closed are kept.
    pub(super) fn keep(&mut self, app: &Application, task: TaskId, stores: Option<OpenStores>) {
        app.lags.unknown(task);
        self.opening.insert(task, stores);
    }

    /// The stores of a task that becomes active here, as far as they are open.
    pub(super) fn promote(
        &mut self,
        app: &Application,
        task: TaskId,
        consumer: Option<&mut (dyn Consumer + 'static)>,
    ) -> Result<Option<OpenStores>> {
        self.wanted.remove(&task);
        if let Some(stores) = self.opening.remove(&task) {
            app.lags.closed(task);
            return Ok(stores);
        }
        let Some(at) = self.open.iter().position(|standby| standby.task == task) else { return Ok(None) };
        let standby = self.open.remove(at);
        app.lags.closed(task);
        let stores = standby.end(app, StandbyEnd::Promoted, consumer)?;
        Ok(Some(OpenStores { stores, found: Found::Open }))
    }

    /// The next one that is to be opened, unless one could not be a moment ago.
    pub(super) fn next_to_open(&mut self, now: Now) -> Option<(TaskId, Option<OpenStores>)> {
        if self.is_pausing(now) { None } else { self.opening.pop_first() }
    }

    /// One could not be opened: others may have it, and give it back.
    pub(super) fn put_off(&mut self, task: TaskId, stores: Option<OpenStores>, now: Now) {
        self.opening.insert(task, stores);
        self.failed = Some(now);
    }

    pub(super) fn begin(&mut self, standby: Standby) {
        self.open.push(standby);
    }

    /// Reads what there is of all changelogs, at most so many records.
    ///
    /// # Errors
    /// What cannot be tried again.
    pub(super) fn step(
        &mut self,
        app: &Application,
        consumer: &mut (dyn Consumer + 'static),
        batch: &mut RecordBatch,
        (records_max, now): (usize, Now),
    ) -> Result<StandbyStep> {
        let mut done = StandbyStep::default();
        // Whose turn it was first is last the next time.
        if !self.open.is_empty() {
            self.open.rotate_left(1);
        }
        for mut standby in std::mem::take(&mut self.open) {
            let task = standby.task;
            match standby.step(app, consumer, batch, (records_max.saturating_sub(done.records), now)) {
                Ok(records) => done.records += records,
                Err(error) if error.kind() == ErrorKind::Corrupted => {
                    tracing::warn!("the standby of task {task} is opened again: {}", error.report());
                    close_stores(task, standby.end(app, StandbyEnd::Migrated, Some(consumer))?);
                    self.keep(app, task, None);
                    continue;
                }
                Err(error) if error.kind() == ErrorKind::Unavailable => {}
                Err(error) => return Err(error),
            }
            let lags = standby.lags();
            let is_warm = sum(&lags) <= app.config.acceptable_recovery_lag;
            app.lags.standby(task, lags);
            if is_warm && !standby.is_warm {
                done.warm.insert(task);
            }
            standby.is_warm = is_warm;
            self.open.push(standby);
        }
        Ok(done)
    }

    /// Their stores, as far as they are open.
    pub(super) fn stores(&mut self) -> impl Iterator<Item = &mut TaskStores> {
        self.open.iter_mut().map(|standby| &mut standby.stores)
    }
}

impl Standby {
    /// Plans from where each changelog is read, and assigns them to the restore consumer.
    ///
    /// # Errors
    /// `Unavailable` when the cluster does not say where the changelogs end: to be called again with what is open.
    pub(super) fn plan(
        app: &Application,
        task: TaskId,
        open: &mut OpenStores,
        consumer: &mut dyn Consumer,
        now_ms: i64,
    ) -> Result<StandbyPlan> {
        let OpenStores { stores, found } = open;
        let changelogs = changelogs(app.id(), task, stores);
        let inputs = app.layout.inputs(task).map(|inputs| inputs.partitions).unwrap_or_default();
        let logged: Vec<_> = changelogs.iter().flatten().cloned().collect();
        let marks = if logged.is_empty() { Vec::new() } else { app.with_admin(|a| a.watermarks(&logged))? };
        let mut marks = marks.into_iter();
        let names: Vec<_> = stores.specs().map(|spec| Arc::clone(&spec.name)).collect();
        let mut jobs = Vec::new();
        for (store, (changelog, name)) in changelogs.into_iter().zip(names).enumerate() {
            let Some(changelog) = changelog else { continue };
            let Some(marks) = marks.next() else { continue };
            let position = first_offset(app, stores, store, &changelog, (marks.start, marks.end), *found, now_ms)?;
            let limit = if inputs.contains(&changelog) { Limit::Committed(None) } else { Limit::End };
            let lag = StoreLag { store: name, partition: changelog.partition, position, end: marks.end.max(position) };
            let search = LiveRows::of(stores, store, &changelog, (position, marks.end));
            jobs.push(Job { store, changelog, start: position, lag, limit, was_at_end: false, search });
        }
        let first = |job: &Job| job.search.as_ref().map_or(job.lag.position, LiveRows::first_offset);
        let assigned: Vec<_> = jobs.iter().map(|job| (job.changelog.clone(), first(job))).collect();
        if !assigned.is_empty() {
            consumer.assign(&assigned)?;
        }
        Ok(StandbyPlan(jobs))
    }

    pub(super) fn begin(
        app: &Application,
        thread: usize,
        task: TaskId,
        stores: TaskStores,
        StandbyPlan(jobs): StandbyPlan,
    ) -> Standby {
        jobs.iter().filter(|job| job.search.is_none()).for_each(|job| job.tell_start(app));
        let update_total = standby_update_total(&app.thread_name(thread), &task.to_string());
        let standby = Standby { task, stores, jobs, is_warm: false, update_total };
        tracing::info!(task = %task, behind = sum(&standby.lags()), "standby");
        standby
    }

    fn lags(&self) -> Vec<StoreLag> {
        self.jobs.iter().map(|job| job.lag.clone()).collect()
    }

    /// Takes at most so many records; how many there were.
    ///
    /// # Errors
    /// `Corrupted` when a changelog was cut off under the reader: to be opened again.
    fn step(
        &mut self,
        app: &Application,
        consumer: &mut dyn Consumer,
        batch: &mut RecordBatch,
        (records_max, now): (usize, Now),
    ) -> Result<usize> {
        let mut taken = 0;
        for job in &mut self.jobs {
            if let Some(search) = &mut job.search {
                let Some(start) = search.step(app, &self.stores, consumer, batch)? else { continue };
                (job.start, job.lag.position, job.search) = (start, start, None);
                job.tell_start(app);
            }
            let retention_ms = delete_retention_ms(app, &job.changelog).filter(|_| job.was_at_end && job.lag.lag() > 0);
            if self.stores.is_outdated(job.store, retention_ms, now.wall_ms) {
                let context = format!("changelog {} may have forgotten deletions that were not read", job.changelog);
                return Err(Error::new(ErrorKind::Corrupted, context));
            }
            let next = job.take(consumer, records_max.saturating_sub(taken), batch)?;
            job.lag.end = job.end(consumer, next);
            let Job { store, changelog, start, lag, .. } = job;
            let mut written = Ok(());
            if next > lag.position {
                let reach = Reach { next_offset: next, end: lag.end };
                written = self.stores.restore_towards(*store, batch, reach);
            }
            if next >= lag.end {
                written = written.and_then(|()| self.stores.finish_restore(*store));
            }
            if let Err(error) = written {
                // IMPORTANT: what was read is not in the store, and the consumer is behind it.
                self.stores.give_up_restore(*store)?;
                lag.position = self.stores.offset(*store).unwrap_or(*start);
                consumer.assign(&[(changelog.clone(), lag.position)])?;
                return Err(error);
            }
            lag.position = next;
            job.was_at_end |= next >= lag.end;
            taken += batch.len();
            if !batch.is_empty() {
                let StoreLag { store, partition, position, end } = lag.clone();
                let records = batch.len() as u64;
                self.update_total.increment(records);
                app.restored(&RestoreEvent::StandbyBatch { store, partition, records, position, end });
            }
        }
        Ok(taken)
    }

    fn end(
        mut self,
        app: &Application,
        reason: StandbyEnd,
        consumer: Option<&mut (dyn Consumer + 'static)>,
    ) -> Result<TaskStores> {
        for job in self.jobs.iter().filter(|job| job.search.is_none()) {
            write_held_back(&mut self.stores, job.store)?;
            let StoreLag { store, partition, position, end } = job.lag.clone();
            app.restored(&RestoreEvent::StandbyEnded { store, partition, position, end, reason });
        }
        let changelogs: Vec<_> = self.jobs.into_iter().map(|job| job.changelog).collect();
        if let Some(consumer) = consumer {
            consumer.unassign(&changelogs)?;
        }
        Ok(self.stores)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(limit: Limit) -> Job {
        let lag = StoreLag { store: "s".into(), partition: 0, position: 100, end: 900 };
        Job {
            store: 0,
            changelog: TopicPartition::new("log", 0),
            start: 0,
            lag,
            limit,
            was_at_end: false,
            search: None,
        }
    }

    #[test]
    fn of_an_input_no_more_is_asked_for_than_is_committed() {
        let room = |limit| job(limit).room(50);
        assert_eq!(room(Limit::End), 50);
        assert_eq!(room(Limit::Committed(None)), 0, "it is not known yet");
        assert_eq!(room(Limit::Committed(Some(120))), 20);
        assert_eq!(room(Limit::Committed(Some(1000))), 50);
        assert_eq!(room(Limit::Committed(Some(100))), 0);
        assert_eq!(room(Limit::Committed(Some(40))), 0, "offsets were set back");
    }
}
