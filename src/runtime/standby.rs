//! Stores that are kept up to date for a task that runs elsewhere: restorations that never end.
//!
//! ```text
//!   Standby{tasks} ──> opening ──> Standby: reads its changelogs for ever ──> taken by value when its task comes here
//!                        ^                                                        |
//!                        └──── what its thread closes and shall still keep ───────┘
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use metrics::Counter;

use super::application::Application;
use super::clock::Now;
use super::commit::Failure;
use super::lags::{StoreLag, sum};
use super::rebalance::close_stores;
use super::restore::{Found, changelogs, delete_retention_ms, first_offset, write_held_back};
use super::restore_event::{RestoreEvent, StandbyEnd};
use super::stream_thread::{RETRY_PAUSE, StreamThread, later};
use crate::client::{Consumer, Fetch, Lag};
use crate::error::{Error, ErrorKind, Result};
use crate::membership::Membership;
use crate::metrics::standby_update_total;
use crate::record::{RecordBatch, TopicPartition};
use crate::state::{Pace, Reach, TaskStores};
use crate::topology::TaskId;

/// Records that the standbys of a thread take in one turn where tasks that run wait for them.
const TURN_RECORDS: usize = 1024;

/// The same where nothing runs.
const TURN_RECORDS_ALONE: usize = 8192;

/// How often the group is asked how far a source topic may be read.
const LIMIT_INTERVAL: Duration = Duration::from_secs(1);

/// The standbys of a thread.
#[derive(Default)]
pub(super) struct Standbys {
    /// What the group has asked for. A task that is at work here yet is opened when it is closed.
    wanted: BTreeSet<TaskId>,
    /// To be opened, maybe with their stores.
    opening: BTreeMap<TaskId, Option<TaskStores>>,
    open: Vec<Standby>,
    /// When one could not be opened.
    failed: Option<Now>,
    /// When the group was last asked for limits.
    limits_asked: Option<Now>,
}

struct Standby {
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

impl Standbys {
    /// Asks how far inputs that stand in for changelogs are processed, now and then.
    fn look_at_limits(&mut self, membership: &mut dyn Membership, now: Now) {
        let has_no_limit = |job: &Job| job.limit == Limit::Committed(None);
        let is_new = self.open.iter().flat_map(|standby| &standby.jobs).any(has_no_limit);
        let pause = if is_new { RETRY_PAUSE } else { LIMIT_INTERVAL };
        if self.limits_asked.is_some_and(|at| now.since(at) < pause) {
            return;
        }
        let limited = |job: &&mut Job| job.limit != Limit::End;
        let jobs = self.open.iter_mut().flat_map(|standby| &mut standby.jobs).filter(limited);
        let jobs: Vec<&mut Job> = jobs.collect();
        if jobs.is_empty() {
            return;
        }
        self.limits_asked = Some(now);
        let inputs: Vec<_> = jobs.iter().map(|job| job.changelog.clone()).collect();
        match membership.committed_so_far(&inputs) {
            Ok(committed) => {
                for (job, committed) in jobs.into_iter().zip(committed) {
                    // What has never been committed has not been processed. A group whose offsets were set back goes on
                    // from there, and its task begins the store anew.
                    job.limit = Limit::Committed(Some(committed.unwrap_or(job.start)));
                }
            }
            Err(error) => tracing::debug!("could not ask how far inputs are processed: {}", error.report()),
        }
    }

    fn is_pausing(&mut self, now: Now) -> bool {
        self.failed = self.failed.filter(|at| now.since(*at) < RETRY_PAUSE);
        self.failed.is_some()
    }

    pub(super) fn wanted(&self) -> &BTreeSet<TaskId> {
        &self.wanted
    }

    pub(super) fn wants(&self, task: TaskId) -> bool {
        self.wanted.contains(&task)
    }

    /// The stores of a task that was closed are kept.
    pub(super) fn keep(&mut self, app: &Application, task: TaskId, stores: Option<TaskStores>) {
        app.lags.unknown(task);
        self.opening.insert(task, stores);
    }

    /// The stores of a task that becomes active here, as far as they are open.
    pub(super) fn promote(
        &mut self,
        app: &Application,
        task: TaskId,
        consumer: Option<&mut (dyn Consumer + 'static)>,
    ) -> Result<Option<TaskStores>> {
        self.wanted.remove(&task);
        if let Some(stores) = self.opening.remove(&task) {
            app.lags.closed(task);
            return Ok(stores);
        }
        let Some(at) = self.open.iter().position(|standby| standby.task == task) else { return Ok(None) };
        let standby = self.open.remove(at);
        app.lags.closed(task);
        standby.end(app, StandbyEnd::Promoted, consumer).map(Some)
    }
}

impl Standbys {
    /// Their stores, as far as they are open.
    pub(super) fn stores(&mut self) -> impl Iterator<Item = &mut TaskStores> {
        self.open.iter_mut().map(|standby| &mut standby.stores)
    }
}

impl Standby {
    /// # Errors
    /// `Unavailable` when the cluster does not say where the changelogs end.
    fn begin(
        app: &Application,
        thread: usize,
        task: TaskId,
        (mut stores, found): (TaskStores, Found),
        consumer: &mut dyn Consumer,
        now_ms: i64,
    ) -> Result<Standby> {
        let changelogs = changelogs(app.id(), task, &stores);
        let inputs = app.layout.inputs(task).map(|inputs| inputs.partitions).unwrap_or_default();
        let logged: Vec<_> = changelogs.iter().flatten().cloned().collect();
        let marks = if logged.is_empty() { Vec::new() } else { app.with_admin(|a| a.watermarks(&logged))? };
        let mut marks = marks.into_iter();
        let names: Vec<_> = stores.specs().map(|spec| Arc::clone(&spec.name)).collect();
        let mut jobs = Vec::new();
        for (store, (changelog, name)) in changelogs.into_iter().zip(names).enumerate() {
            let Some(changelog) = changelog else { continue };
            let Some(marks) = marks.next() else { continue };
            let position = first_offset(app, &mut stores, store, &changelog, (marks.start, marks.end), found, now_ms)?;
            let limit = if inputs.contains(&changelog) { Limit::Committed(None) } else { Limit::End };
            let partition = changelog.partition;
            let store_name = Arc::clone(&name);
            app.restored(&RestoreEvent::StandbyStarted { store: store_name, partition, from: position });
            let lag = StoreLag { store: name, partition, position, end: marks.end.max(position) };
            jobs.push(Job { store, changelog, start: position, lag, limit, was_at_end: false });
        }
        let assigned: Vec<_> = jobs.iter().map(|job| (job.changelog.clone(), job.lag.position)).collect();
        if !assigned.is_empty() {
            consumer.assign(&assigned)?;
        }
        let update_total = standby_update_total(&app.thread_name(thread), &task.to_string());
        Ok(Standby { task, stores, jobs, is_warm: false, update_total })
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
        (records_max, pace, now): (usize, Pace, Now),
    ) -> Result<usize> {
        let mut taken = 0;
        for job in &mut self.jobs {
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
                let reach = Reach { next_offset: next, end: lag.end, pace };
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
        for job in &self.jobs {
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

impl StreamThread {
    /// Keeps the stores of these tasks, and of no others.
    pub(super) fn stand_by(&mut self, tasks: BTreeSet<TaskId>) -> Result<(), Failure> {
        let standbys = &mut self.standbys;
        standbys.wanted = tasks;
        let surplus = |task: &TaskId| !standbys.wanted.contains(task);
        let closing: Vec<_> = standbys.opening.keys().copied().filter(|task| surplus(task)).collect();
        for task in closing {
            let stores = standbys.opening.remove(&task).flatten();
            self.app.lags.closed(task);
            stores.into_iter().for_each(|stores| close_stores(task, stores));
        }
        let closing: Vec<_> = standbys.open.extract_if(.., |standby| surplus(&standby.task)).collect();
        for standby in closing {
            let task = standby.task;
            self.app.lags.closed(task);
            close_stores(
                task,
                standby.end(&self.app, StandbyEnd::Migrated, self.restore_consumer.as_deref_mut()).map_err(later)?,
            );
        }
        let is_at_work = |task: &TaskId| {
            self.opening.contains_key(task)
                || self.restoring.iter().any(|restoration| restoration.task == *task)
                || self.tasks.iter().any(|running| running.task.id() == *task)
        };
        let standbys = &mut self.standbys;
        let new: Vec<_> = standbys.wanted.iter().filter(|task| !is_at_work(task)).copied().collect();
        for task in new {
            if !standbys.opening.contains_key(&task) && standbys.open.iter().all(|standby| standby.task != task) {
                standbys.keep(&self.app, task, None);
            }
        }
        Ok(())
    }

    /// Reads what there is of the changelogs of all standbys, a bounded number of records; how many there were.
    pub(super) fn step_standbys(&mut self, now: Now) -> Result<usize, Failure> {
        if self.standbys.opening.is_empty() && self.standbys.open.is_empty() {
            return Ok(0);
        }
        self.ready_restore_consumer().map_err(later)?;
        while !self.standbys.is_pausing(now)
            && let Some((task, stores)) = self.standbys.opening.pop_first()
        {
            match self.open_standby(task, stores, now) {
                Ok(standby) => self.standbys.open.push(standby),
                // What is open in another thread is closed there soon; the tasks that run do not wait for it.
                Err(error) if error.kind() == ErrorKind::Unavailable => {
                    tracing::debug!("the standby of task {task} could not be opened: {}", error.report());
                    self.standbys.opening.insert(task, None);
                    self.standbys.failed = Some(now);
                }
                Err(error) => return Err(later(error)),
            }
        }
        let Some(consumer) = self.restore_consumer.as_deref_mut() else { return Ok(0) };
        self.standbys.look_at_limits(&mut *self.membership, now);
        let (mut taken, mut warm) = (0, BTreeSet::new());
        let (pace, records_max) = match self.tasks.is_empty() {
            true => (Pace::Alone, TURN_RECORDS_ALONE),
            false => (Pace::BesideTasks, TURN_RECORDS),
        };
        // Whose turn it was first is last the next time.
        if !self.standbys.open.is_empty() {
            self.standbys.open.rotate_left(1);
        }
        for mut standby in std::mem::take(&mut self.standbys.open) {
            let task = standby.task;
            let turn = (records_max.saturating_sub(taken), pace, now);
            match standby.step(&self.app, consumer, &mut self.restore_batch, turn) {
                Ok(records) => taken += records,
                Err(error) if error.kind() == ErrorKind::Corrupted => {
                    tracing::warn!("the standby of task {task} is opened again: {}", error.report());
                    close_stores(
                        task,
                        standby.end(&self.app, StandbyEnd::Migrated, Some(consumer)).map_err(Failure::Fatal)?,
                    );
                    self.standbys.keep(&self.app, task, None);
                    continue;
                }
                Err(error) if error.kind() == ErrorKind::Unavailable => {}
                Err(error) => return Err(Failure::Fatal(error)),
            }
            let lags = standby.lags();
            let is_warm = sum(&lags) <= self.app.config.acceptable_recovery_lag;
            self.app.lags.standby(task, lags);
            if is_warm && !standby.is_warm {
                warm.insert(task);
            }
            standby.is_warm = is_warm;
            self.standbys.open.push(standby);
        }
        if !warm.is_empty() {
            // IMPORTANT: behind the lags, which the group asks for when it hears of this.
            self.membership.warmed_up(&warm);
        }
        Ok(taken)
    }

    fn open_standby(&mut self, task: TaskId, stores: Option<TaskStores>, now: Now) -> Result<Standby> {
        let found = self.open_stores(task, stores, now)?;
        let Some(consumer) = self.restore_consumer.as_deref_mut() else {
            return Err(Error::new(ErrorKind::Internal, "a standby was opened without a restore consumer"));
        };
        let standby = Standby::begin(&self.app, self.index, task, found, consumer, now.wall_ms)?;
        tracing::info!(task = %task, behind = sum(&standby.lags()), "standby");
        Ok(standby)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(limit: Limit) -> Job {
        let lag = StoreLag { store: "s".into(), partition: 0, position: 100, end: 900 };
        Job { store: 0, changelog: TopicPartition::new("log", 0), start: 0, lag, limit, was_at_end: false }
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
