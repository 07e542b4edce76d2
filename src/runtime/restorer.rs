//! Brings stores up to their changelogs, and keeps those of standbys there, while the tasks of a stream thread go on.
//!
//! ```text
//!   StreamThread                              Restorer, with a consumer of its own
//!     Restore{task, stores} ─────────────────> waiting ─> restoring ─> Restored{stores} ─> the task runs
//!     Promote(task)  it comes here ──────────> held ──────^    |
//!     Release(task)  it goes elsewhere ──────────────────> put away: kept as a standby, or closed
//!     StandBy{tasks}, Keep(task, stores) ────> standbys  <─────┘
//! ```
//!
//! Stores belong to one side at a time and travel by value: a standby that becomes active, and a task that becomes a standby,
//! stay open. A task may be taken away while its stores are on their way back; the *ticket* of the order tells which report
//! still counts.
//!
//! It has no thread and reads no clock: `RestoreLink` gives it either. A step is bounded: one task is opened, and so many
//! records are read for tasks that wait; standbys get a smaller share of it meanwhile, and never none.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::application::Application;
use super::clock::Now;
use super::rebalance::close_stores;
use super::restore::{Found, OpenStores, Plan, Restoration};
use super::standby::{Standby, StandbyPlan, StandbyStep, Standbys};
use super::stream_thread::{RETRY_PAUSE, Stepped};
use crate::client::Consumer;
use crate::error::{Error, ErrorKind, Result};
use crate::query::Inbox;
use crate::record::{RecordBatch, TopicPartition};
use crate::state::{StateHome, TaskStores, WorkQueue};
use crate::task::CommitPoint;
use crate::topology::TaskId;

/// Records that all restorations take in one step: so long an order waits at most.
const STEP_RECORDS: usize = 32_768;

/// Records that all standbys take in one step: a tenth of them where a task waits for its stores.
const STANDBY_RECORDS: usize = 8192;
const STANDBY_RECORDS_BESIDE_TASKS: usize = STEP_RECORDS / 10;

/// The longest wait for more of a changelog that a task waits for; an order waits as long.
const RESTORE_WAIT: Duration = Duration::from_millis(5);

/// What another thread has may take so long to come back before it is worth a word.
const PATIENCE: Duration = Duration::from_secs(1);

/// How often it is said that something is tried again.
const COMPLAINT_INTERVAL: Duration = Duration::from_secs(10);

/// What a stream thread asks for.
pub(super) enum RestoreOrder {
    /// Brings the stores of a task up to their changelogs: these, those of its standby, or those on disk.
    Restore { task: TaskId, ticket: u64, stores: Option<TaskStores>, committed: Vec<CommitPoint> },
    /// A task is to run here: its standby ends, and its stores wait for the order to restore them.
    Promote(TaskId),
    /// A task that was to be restored goes elsewhere.
    Release(TaskId),
    /// Keeps the stores of these tasks and no others. Those at work are released or handed over when they are closed.
    StandBy { tasks: BTreeSet<TaskId>, at_work: BTreeSet<TaskId> },
    /// The stores of a task that the thread needs no more, for who does.
    Keep(TaskId, Option<TaskStores>),
    /// How far inputs are processed.
    Limits(Vec<(TopicPartition, Option<i64>)>),
}

/// What a stream thread hears.
pub(super) enum RestoreReport {
    /// The stores of a task are as their changelogs say.
    Restored { task: TaskId, ticket: u64, stores: Box<TaskStores>, committed: Vec<CommitPoint> },
    /// The stores of standbys have caught up.
    Warm(BTreeSet<TaskId>),
    /// How far are these inputs processed?
    AskLimits(Vec<TopicPartition>),
    /// Nothing is restored any more.
    Failed(Error),
}

pub(super) struct Restorer {
    app: Arc<Application>,
    /// From 1.
    thread: usize,
    home: StateHome,
    inbox: Arc<Inbox>,
    /// Where rows are left that are to be written; none: it writes them by itself.
    work_queue: Option<WorkQueue>,
    consumer: Option<Box<dyn Consumer>>,
    batch: RecordBatch,
    /// To be opened and restored.
    waiting: VecDeque<Waiting>,
    restoring: Vec<(u64, Restoration)>,
    /// Of standbys that have ended because their tasks are to run here.
    held: BTreeMap<TaskId, OpenStores>,
    standbys: Standbys,
    reports: VecDeque<RestoreReport>,
    has_failed: bool,
    trouble: Option<Trouble>,
}

struct Waiting {
    task: TaskId,
    ticket: u64,
    open: Option<OpenStores>,
    committed: Vec<CommitPoint>,
}

/// Something does not work and is tried again.
struct Trouble {
    begun: Now,
    last: Now,
    complained: Option<Now>,
}

impl Restorer {
    pub(super) fn new(app: Arc<Application>, thread: usize, home: StateHome, inbox: Arc<Inbox>) -> Restorer {
        Restorer {
            app,
            thread,
            home,
            inbox,
            work_queue: None,
            consumer: None,
            batch: RecordBatch::default(),
            waiting: VecDeque::new(),
            restoring: Vec::new(),
            held: BTreeMap::new(),
            standbys: Standbys::default(),
            reports: VecDeque::new(),
            has_failed: false,
            trouble: None,
        }
    }

    /// Whether stores may be on disk.
    pub(super) fn has_disk(&self) -> bool {
        self.home.directory.is_some()
    }

    /// Rows that are restored are written by who works through the queue.
    pub(super) fn set_work_queue(&mut self, queue: &WorkQueue) {
        self.work_queue = Some(queue.clone());
    }

    /// Does what it is told, which is to take or to give back; the work itself is done step by step.
    pub(super) fn order(&mut self, order: RestoreOrder) {
        if let Err(error) = self.obey(order) {
            self.fail(error);
        }
    }

    fn obey(&mut self, order: RestoreOrder) -> Result<()> {
        match order {
            RestoreOrder::Restore { task, ticket, stores, committed } => {
                let open = stores.map(were_open).or_else(|| self.held.remove(&task));
                self.waiting.push_back(Waiting { task, ticket, open, committed });
            }
            RestoreOrder::Promote(task) => {
                let promoted = self.standbys.promote(&self.app, task, self.consumer.as_deref_mut())?;
                self.held.extend(promoted.map(|open| (task, open)));
            }
            RestoreOrder::Release(task) => self.release(task)?,
            RestoreOrder::StandBy { tasks, at_work } => {
                let is_here = |task: &TaskId| {
                    at_work.contains(task)
                        || self.held.contains_key(task)
                        || self.waiting.iter().any(|waiting| waiting.task == *task)
                        || self.restoring.iter().any(|(_, restoration)| restoration.task == *task)
                };
                self.standbys.want(&self.app, tasks, is_here, self.consumer.as_deref_mut())?;
            }
            RestoreOrder::Keep(task, stores) => self.keep(task, stores.map(were_open)),
            RestoreOrder::Limits(committed) => self.standbys.set_limits(&committed),
        }
        Ok(())
    }

    /// Does a bounded part of what there is to do, and never waits for more. While nobody takes its reports it does nothing.
    pub(super) fn step(&mut self, now: Now) -> Stepped {
        match self.turn(now) {
            Ok(true) => Stepped::Worked,
            Ok(false) => Stepped::Idle,
            Err(error) if error.kind() == ErrorKind::Unavailable => {
                self.complain(&error, now);
                Stepped::Idle
            }
            Err(error) => {
                self.fail(error);
                Stepped::Idle
            }
        }
    }

    fn turn(&mut self, now: Now) -> Result<bool> {
        self.share_rows();
        if self.is_empty() || self.has_failed || self.app.board.is_paused() || !self.reports.is_empty() {
            return Ok(false);
        }
        if self.consumer.is_none() {
            self.consumer = Some(self.app.cluster.consumer(&self.app.restore_consumer_spec(self.thread))?);
        }
        let mut worked = self.open_next(now)?;
        worked |= self.restore(now)?;
        worked |= self.open_next_standby(now)?;
        worked |= self.step_standbys(now)?;
        Ok(worked)
    }

    /// What there is to say, in order.
    pub(super) fn report(&mut self) -> Option<RestoreReport> {
        self.reports.pop_front()
    }

    /// What could not be said is said later.
    pub(super) fn put_back(&mut self, report: RestoreReport) {
        self.reports.push_front(report);
    }

    /// Whether nothing is to be read.
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.restoring.is_empty() && self.standbys.is_empty()
    }

    /// Waits a little for what tasks wait for; whether there is such a thing.
    pub(super) fn wait(&mut self) -> bool {
        let can_read = !self.has_failed && !self.app.board.is_paused() && self.reports.is_empty();
        let is_awaited = can_read && !self.restoring.is_empty();
        let Some(consumer) = self.consumer.as_deref_mut().filter(|_| is_awaited) else { return false };
        match consumer.wait(RESTORE_WAIT) {
            Ok(()) => true,
            Err(error) => {
                if error.kind() != ErrorKind::Unavailable {
                    self.fail(error);
                }
                false
            }
        }
    }

    /// Closes whatever it has.
    pub(super) fn close(&mut self) {
        let mut tasks: Vec<_> = self.held.keys().copied().collect();
        tasks.extend(self.waiting.iter().map(|waiting| waiting.task));
        tasks.extend(self.restoring.iter().map(|(_, restoration)| restoration.task));
        let none = RestoreOrder::StandBy { tasks: BTreeSet::new(), at_work: BTreeSet::new() };
        let orders = std::iter::once(none).chain(tasks.into_iter().map(RestoreOrder::Release));
        for order in orders {
            if let Err(error) = self.obey(order) {
                tracing::warn!("could not close every task that was being restored: {}", error.report());
            }
        }
        for report in std::mem::take(&mut self.reports) {
            if let RestoreReport::Restored { task, stores, .. } = report {
                self.put_away(task, Some(were_open(*stores)));
            }
        }
    }

    fn fail(&mut self, error: Error) {
        if std::mem::replace(&mut self.has_failed, true) {
            tracing::debug!("after the restorer has failed: {}", error.report());
        } else {
            self.reports.push_back(RestoreReport::Failed(error));
        }
    }

    /// Says what keeps it from working, and not ten times a second.
    fn complain(&mut self, error: &Error, now: Now) {
        let trouble = self.trouble.take().filter(|trouble| now.since(trouble.last) < COMPLAINT_INTERVAL);
        let mut trouble = trouble.unwrap_or(Trouble { begun: now, last: now, complained: None });
        trouble.last = now;
        let is_new = trouble.complained.is_none_or(|at| now.since(at) >= COMPLAINT_INTERVAL);
        if is_new && now.since(trouble.begun) >= PATIENCE {
            trouble.complained = Some(now);
            tracing::warn!("restoring is trying again until it works: {}", error.report());
        } else {
            tracing::debug!("restoring waits: {}", error.report());
        }
        self.trouble = Some(trouble);
    }

    // ---- tasks that are to run ----

    /// Opens the task that has waited longest; whether there was one that could be opened.
    fn open_next(&mut self, now: Now) -> Result<bool> {
        let is_pausing = self.trouble.as_ref().is_some_and(|trouble| now.since(trouble.last) < RETRY_PAUSE);
        if is_pausing {
            return Ok(false);
        }
        let Some(mut next) = self.waiting.pop_front() else { return Ok(false) };
        let task = next.task;
        match self.plan(&mut next, now) {
            Ok((open, plan)) => {
                let Waiting { ticket, committed, .. } = next;
                let restoration = Restoration::begin(&self.app, self.thread, task, open.stores, committed, plan);
                self.restoring.push((ticket, restoration));
                self.trouble = None;
                Ok(true)
            }
            // What another thread has is closed there soon; the others do not wait for it.
            Err(error) if error.kind() == ErrorKind::Unavailable => {
                self.complain(&error, now);
                self.waiting.push_back(next);
                Ok(false)
            }
            Err(error) => Err(of_task(task, error)),
        }
    }

    fn plan(&mut self, next: &mut Waiting, now: Now) -> Result<(OpenStores, Plan)> {
        let mut open = self.open(next.task, next.open.take(), now)?;
        let Some(consumer) = self.consumer.as_deref_mut() else { return Err(no_consumer()) };
        match Restoration::plan(&self.app, next.task, &mut open, &next.committed, consumer, now) {
            Ok(plan) => Ok((open, plan)),
            Err(error) => {
                // They stay open for the next try: those in memory are nowhere else.
                next.open = Some(open);
                Err(error)
            }
        }
    }

    /// The stores of a task: those that are open, or as they are on disk.
    fn open(&self, task: TaskId, open: Option<OpenStores>, now: Now) -> Result<OpenStores> {
        let mut open = match open {
            Some(open) => open,
            None => {
                self.app.look_at_awaited_topics()?;
                let mut stores = TaskStores::open(&self.home, task, &self.app.stores_of(task), now.wall_ms)?;
                if let Some(globals) = self.app.globals() {
                    globals.attach(&mut stores);
                }
                OpenStores { stores, found: Found::OnDisk }
            }
        };
        open.stores.set_work_queue(self.work_queue.as_ref());
        self.app.lags.local.opened(task, &mut open.stores, &self.inbox);
        Ok(open)
    }

    /// A step of every restoration; whether anything came of it.
    fn restore(&mut self, now: Now) -> Result<bool> {
        let Some(consumer) = self.consumer.as_deref_mut() else { return Ok(false) };
        let (mut worked, mut room) = (false, STEP_RECORDS);
        // Whose turn it was first is last the next time.
        if !self.restoring.is_empty() {
            self.restoring.rotate_left(1);
        }
        for (ticket, mut restoration) in std::mem::take(&mut self.restoring) {
            let task = restoration.task;
            match restoration.step(&self.app, consumer, &mut self.batch, &mut room, now) {
                Ok(records) => worked |= records > 0,
                Err(error) if error.kind() == ErrorKind::Corrupted => {
                    tracing::warn!("task {task} is restored from the start: {}", error.report());
                    let committed = std::mem::take(&mut restoration.committed);
                    restoration.suspend(&self.app, consumer)?;
                    self.waiting.push_back(Waiting { task, ticket, open: None, committed });
                    worked = true;
                    continue;
                }
                Err(error) if error.kind() == ErrorKind::Unavailable => {}
                Err(error) => return Err(of_task(task, error)),
            }
            if restoration.is_done() {
                let Restoration { stores, committed, .. } = restoration;
                let stores = Box::new(stores);
                self.reports.push_back(RestoreReport::Restored { task, ticket, stores, committed });
                worked = true;
            } else {
                self.restoring.push((ticket, restoration));
            }
        }
        Ok(worked)
    }

    fn release(&mut self, task: TaskId) -> Result<()> {
        if let Some(at) = self.waiting.iter().position(|waiting| waiting.task == task) {
            let open = self.waiting.remove(at).and_then(|waiting| waiting.open);
            self.put_away(task, open);
        }
        if let Some(at) = self.restoring.iter().position(|(_, restoration)| restoration.task == task)
            && let Some(consumer) = self.consumer.as_deref_mut()
        {
            let (_, restoration) = self.restoring.swap_remove(at);
            let stores = restoration.suspend(&self.app, consumer)?;
            self.put_away(task, Some(were_open(stores)));
        }
        if let Some(open) = self.held.remove(&task) {
            self.put_away(task, Some(open));
        }
        Ok(())
    }

    fn put_away(&mut self, task: TaskId, open: Option<OpenStores>) {
        if self.standbys.wants(task) {
            return self.standbys.keep(&self.app, task, open);
        }
        self.app.lags.closed(task);
        open.into_iter().for_each(|open| close_stores(task, open.stores));
    }

    fn keep(&mut self, task: TaskId, open: Option<OpenStores>) {
        let waiting = self.waiting.iter_mut().find(|waiting| waiting.task == task);
        let is_at_work = self.restoring.iter().any(|(_, restoration)| restoration.task == task);
        match (waiting, open) {
            (Some(waiting), Some(open)) if waiting.open.is_none() => waiting.open = Some(open),
            // It has others by now, which are told of.
            (Some(_), open) => open.into_iter().for_each(|open| close_stores(task, open.stores)),
            (None, open) if is_at_work || self.standbys.is_open(task) => {
                open.into_iter().for_each(|open| close_stores(task, open.stores));
            }
            (None, open) => self.put_away(task, open),
        }
    }

    // ---- standbys ----

    fn open_next_standby(&mut self, now: Now) -> Result<bool> {
        let Some((task, open)) = self.standbys.next_to_open(now) else { return Ok(false) };
        let mut kept = None;
        match self.plan_standby(task, open, &mut kept, now) {
            Ok((open, plan)) => {
                self.standbys.begin(Standby::begin(&self.app, self.thread, task, open.stores, plan));
                Ok(true)
            }
            // What is open in another thread is closed there soon.
            Err(error) if error.kind() == ErrorKind::Unavailable => {
                tracing::debug!("the standby of task {task} could not be opened: {}", error.report());
                self.standbys.put_off(task, kept, now);
                Ok(false)
            }
            Err(error) => Err(of_task(task, error)),
        }
    }

    fn plan_standby(
        &mut self,
        task: TaskId,
        open: Option<OpenStores>,
        kept: &mut Option<OpenStores>,
        now: Now,
    ) -> Result<(OpenStores, StandbyPlan)> {
        let mut open = self.open(task, open, now)?;
        let Some(consumer) = self.consumer.as_deref_mut() else { return Err(no_consumer()) };
        match Standby::plan(&self.app, task, &mut open, consumer, now.wall_ms) {
            Ok(plan) => Ok((open, plan)),
            Err(error) => {
                *kept = Some(open);
                Err(error)
            }
        }
    }

    fn step_standbys(&mut self, now: Now) -> Result<bool> {
        if let Some(inputs) = self.standbys.limits_to_ask(now) {
            self.reports.push_back(RestoreReport::AskLimits(inputs));
        }
        let Some(consumer) = self.consumer.as_deref_mut() else { return Ok(false) };
        let records_max = if self.restoring.is_empty() { STANDBY_RECORDS } else { STANDBY_RECORDS_BESIDE_TASKS };
        let StandbyStep { records, warm } =
            self.standbys.step(&self.app, consumer, &mut self.batch, (records_max, now))?;
        if !warm.is_empty() {
            // IMPORTANT: behind the lags, which the group asks for when it hears of this.
            self.reports.push_back(RestoreReport::Warm(warm));
        }
        Ok(records > 0)
    }

    /// Lets others read rows in memory that they have asked for.
    fn share_rows(&mut self) {
        let restoring = self.restoring.iter_mut().map(|(_, restoration)| &mut restoration.stores);
        let mut is_shared = false;
        for stores in restoring.chain(self.standbys.stores()) {
            is_shared |= stores.share_if_wanted();
        }
        if is_shared {
            self.app.lags.local.shared();
        }
    }
}

/// Nobody else has written their changelogs meanwhile.
fn were_open(stores: TaskStores) -> OpenStores {
    OpenStores { stores, found: Found::Open }
}

#[cold]
fn of_task(task: TaskId, error: Error) -> Error {
    Error::new(error.kind(), format!("could not restore task {task}")).with_source(error)
}

#[cold]
fn no_consumer() -> Error {
    Error::new(ErrorKind::Internal, "a task was opened without a restore consumer")
}

#[cfg(feature = "testing")]
#[cfg(test)]
mod tests;
