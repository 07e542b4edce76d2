//! The loop of a stream thread: one consumer, one producer, and the tasks that the group gives it. What has to be restored
//! first is with its restorer.
//!
//! ```text
//!   group events -> order and take restored tasks -> fetch -> process in turns -> hand over -> punctuate -> commit -> wait
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::Duration;

use super::application::Application;
use super::clock::Now;
use super::commit::{Committer, Failure};
use super::group;
use super::group_thread::GroupThread;
use super::positions::Astray;
use super::rebalance::records_of;
use super::restore_link::RestoreLink;
use super::restorer::Restorer;
use super::running_task::RunningTask;
use crate::client::{Consumer, Fetch, Lag};
use crate::error::{Error, ErrorKind, Result};
use crate::membership::{LeaveMode, Membership};
use crate::metrics::ThreadMetrics;
use crate::query::Inbox;
use crate::record::TopicPartition;
use crate::state::{StateHome, TaskStores};
use crate::topology::TaskId;

/// Records that a task may process before it is the next one's turn.
const TURN_RECORDS: usize = 512;

/// The longest wait for records; an order to stop and a punctuation come through at the latest then.
const WAIT_MAX: Duration = Duration::from_millis(100);

/// The longest wait while calls are on their way: their results do not wake the thread.
const CALLS_WAIT: Duration = Duration::from_millis(2);

/// The pause after something failed that is to be tried again.
pub(super) const RETRY_PAUSE: Duration = Duration::from_millis(100);

/// Producers that may be fenced within [`TWIN_WINDOW`] before the thread believes in a twin and gives way.
const FENCED_MAX: usize = 5;
const TWIN_WINDOW: Duration = Duration::from_secs(60);

/// How often it is said that something is tried again.
const COMPLAINT_INTERVAL: Duration = Duration::from_secs(10);

/// How often the levels among the metrics are read.
const METRICS_INTERVAL: Duration = Duration::from_secs(1);

pub(super) struct StreamThread {
    pub app: Arc<Application>,
    /// From 1.
    pub index: usize,
    pub membership: Box<dyn Membership>,
    pub consumer: Box<dyn Consumer>,
    pub committer: Committer,
    /// Tasks that run, by id.
    pub tasks: Vec<RunningTask>,
    /// Tasks that are assigned, with their stores if they are here, before it is known where their inputs go on.
    pub opening: BTreeMap<TaskId, Option<TaskStores>>,
    /// Tasks that the restorer has, by the tickets of the orders.
    pub restoring: BTreeMap<TaskId, u64>,
    pub next_ticket: u64,
    /// Tasks of which the group has asked to keep the stores.
    pub standbys: BTreeSet<TaskId>,
    pub restorer: RestoreLink,
    home: StateHome,
    /// Reads of what is not committed.
    pub inbox: Arc<Inbox>,
    /// Positions that were called out of range.
    pub astray: BTreeMap<TopicPartition, Astray>,
    /// Whether the group has given this thread what it has; not while a rebalance goes on.
    pub is_assigned: bool,
    pub metrics: ThreadMetrics,
    orders: Arc<Orders>,
    report: Report,
    phase: Phase,
    last_commit: Now,
    last_metrics: Now,
    retry_at: Option<Now>,
    /// The last commit is to be tried again.
    commit_again: bool,
    fenced: Vec<Now>,
    complained: Option<Now>,
    now: Now,
}

/// What a thread tells of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    Rebalancing,
    Running,
}

/// What a step of the loop came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stepped {
    Worked,
    /// There is nothing to do for now.
    Idle,
    /// Everything is closed, as it was told.
    Ended,
}

pub(super) type Report = Box<dyn FnMut(Phase) + Send>;

/// What a thread has been told to do, and whether it comes round to it.
#[derive(Debug, Default)]
pub(super) struct Orders {
    order: AtomicU8,
    turns: AtomicU64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Order {
    GoOn,
    /// Close; a member that could come back stays in the group until its session times out, any other one leaves.
    Close,
    /// Close and leave the group.
    Leave,
    /// Close and stay a member until the session times out.
    Stay,
    /// End without closing anything.
    Crash,
}

impl Orders {
    pub(super) fn give(&self, order: Order) {
        // Release and acquire: what was decided before the order is seen by who obeys it.
        self.order.store(order as u8, Ordering::Release);
    }

    /// Steps of its loop so far.
    pub(super) fn turns(&self) -> u64 {
        self.turns.load(Ordering::Relaxed)
    }

    fn count_turn(&self) {
        // Relaxed: it orders nothing.
        self.turns.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn current(&self) -> Order {
        match self.order.load(Ordering::Acquire) {
            0 => Order::GoOn,
            1 => Order::Close,
            2 => Order::Leave,
            3 => Order::Stay,
            _ => Order::Crash,
        }
    }
}

impl StreamThread {
    /// Connects; none when it was told to stop meanwhile. The producer comes first: it ends what an incarnation before it
    /// left open, while the group still believes in that one.
    pub(super) fn connect(
        app: Arc<Application>,
        index: usize,
        group: Option<&GroupThread>,
        orders: Arc<Orders>,
        report: Report,
    ) -> Result<Option<StreamThread>> {
        let mut committer = Committer::new(Arc::clone(&app), index);
        let mut has_failed = false;
        let joined = loop {
            if orders.current() != Order::GoOn {
                return Ok(None);
            }
            match committer.make_ready().and_then(|()| group::join(&app, group, index)) {
                Ok(joined) => break joined,
                Err(error) if error.kind() == ErrorKind::Unavailable => {
                    if !std::mem::replace(&mut has_failed, true) {
                        tracing::warn!("could not join group {}, trying on: {}", app.id(), error.report());
                    }
                    std::thread::park_timeout(RETRY_PAUSE);
                }
                Err(error) => return Err(error),
            }
        };
        let (membership, consumer) = joined;
        let home = app.state_home();
        let inbox = Arc::new(Inbox::new(consumer.waker()));
        let restorer = Restorer::new(Arc::clone(&app), index, home.clone(), Arc::clone(&inbox));
        let now = Now::read();
        let metrics = ThreadMetrics::new(&app.thread_name(index), &app.client_id(index, "consumer"));
        Ok(Some(StreamThread {
            app,
            index,
            membership,
            consumer,
            committer,
            tasks: Vec::new(),
            opening: BTreeMap::new(),
            restoring: BTreeMap::new(),
            next_ticket: 0,
            standbys: BTreeSet::new(),
            restorer: RestoreLink::new(restorer),
            home,
            inbox,
            astray: BTreeMap::new(),
            is_assigned: false,
            metrics,
            orders,
            report,
            phase: Phase::Rebalancing,
            last_commit: now,
            last_metrics: now,
            retry_at: None,
            commit_again: false,
            fenced: Vec::new(),
            complained: None,
            now,
        }))
    }

    /// Works until it is told to stop.
    ///
    /// # Errors
    /// What no handler let pass. Nothing of the thread is committed or left open then.
    pub(super) fn run(mut self) -> Result<()> {
        self.restorer.start(&self.app.restore_thread_name(self.index), self.consumer.waker())?;
        loop {
            match self.step()? {
                Stepped::Worked => {}
                Stepped::Idle => self.wait()?,
                Stepped::Ended => return Ok(()),
            }
        }
    }

    /// Does what there is to do now, and never waits for more.
    ///
    /// # Errors
    /// As [`run`](StreamThread::run).
    pub(super) fn step(&mut self) -> Result<Stepped> {
        self.orders.count_turn();
        match self.orders.current() {
            Order::GoOn => {}
            Order::Close | Order::Leave => return self.close(LeaveMode::Leave),
            Order::Stay => return self.close(LeaveMode::Stay),
            Order::Crash => return Ok(Stepped::Ended),
        }
        self.now = Now::read();
        let worked = match self.turn() {
            Ok(worked) => worked,
            Err(failure) => self.recover(failure).map(|()| false).or_else(|failure| self.fail(failure))?,
        };
        self.report_phase();
        Ok(if worked { Stepped::Worked } else { Stepped::Idle })
    }

    /// Everything once; whether there was anything to do.
    fn turn(&mut self) -> Result<bool, Failure> {
        let mut worked = self.rebalance()?;
        if self.is_retrying() {
            return Ok(worked);
        }
        if self.app.board.is_paused() {
            // What was done before it was told to pause.
            self.commit_if_due()?;
            self.serve_queries().map_err(Failure::Fatal)?;
            self.read_levels();
            return Ok(worked);
        }
        self.committer.make_ready().map_err(later)?;
        self.order_restores().map_err(later)?;
        worked |= self.take_restored()?;
        self.fetch()?;
        worked |= self.process()?;
        self.punctuate()?;
        self.commit_if_due()?;
        self.serve_queries().map_err(Failure::Fatal)?;
        self.read_levels();
        Ok(worked)
    }

    fn is_retrying(&mut self) -> bool {
        match self.retry_at {
            Some(at) if self.now.since(at) < RETRY_PAUSE => true,
            _ => {
                self.retry_at = None;
                false
            }
        }
    }

    /// Fills the queues that are half empty: whole batches, and never more than the limit.
    fn fetch(&mut self) -> Result<(), Failure> {
        let limit = self.app.config.buffered_records_per_partition;
        let mut out_of_range = Vec::new();
        for running in &mut self.tasks {
            let waits_for_inputs = running.inputs.len() > 1;
            for (input, partition) in running.inputs.iter().enumerate() {
                let buffered = running.task.buffered(input);
                if buffered * 2 <= limit {
                    let mut batch = running.task.empty_batch();
                    match self.consumer.fetch(partition, limit - buffered, &mut batch) {
                        Ok(Fetch::Records) => {}
                        Ok(Fetch::OutOfRange) => out_of_range.push(partition.clone()),
                        Err(error) => return Err(later(error)),
                    }
                    running.task.add(input, batch);
                }
                if waits_for_inputs {
                    let caught_up = match self.consumer.lag(partition) {
                        Lag::Unknown => None,
                        Lag::Behind => Some(false),
                        Lag::CaughtUp => Some(true),
                    };
                    running.task.set_caught_up(input, caught_up);
                }
            }
        }
        self.metrics.poll_total.increment(1);
        for partition in out_of_range {
            self.look_at_position(&partition)?;
        }
        Ok(())
    }

    fn process(&mut self) -> Result<bool, Failure> {
        let (mut total, mut worked) = (0, false);
        for running in &mut self.tasks {
            let span = running.span.enter();
            let finished = running.task.finish_calls().map_err(Failure::Fatal)?;
            let processed = running.task.process(TURN_RECORDS, self.now.wall_ms).map_err(Failure::Fatal)?;
            drop(span);
            if finished && processed == 0 {
                self.committer.hand_over(running)?;
            }
            worked |= finished;
            if processed > 0 {
                // IMPORTANT: one that has hung in the program's own code may have come back late. At least once, what it
                // says to the changelogs would stand behind what the new owner has said.
                if self.membership.has_lost_tasks() {
                    return Ok(true);
                }
                self.committer.hand_over(running)?;
                running.metrics.process_total.increment(processed as u64);
                total += processed;
            }
        }
        if total > 0 {
            self.metrics.process_total.increment(total as u64);
            self.app.add_processed(total);
        }
        Ok(worked || total > 0)
    }

    fn punctuate(&mut self) -> Result<(), Failure> {
        for running in &mut self.tasks {
            let span = running.span.enter();
            let punctuated = running.task.punctuate(self.now.wall_ms).map_err(Failure::Fatal)?;
            drop(span);
            if punctuated {
                if self.membership.has_lost_tasks() {
                    return Ok(());
                }
                self.metrics.punctuate_total.increment(1);
                self.committer.hand_over(running)?;
            }
        }
        Ok(())
    }

    fn commit_if_due(&mut self) -> Result<(), Failure> {
        let interval = self.app.config.commit_interval_or_default();
        let uncommitted_max = self.app.config.uncommitted_bytes / self.app.workers();
        let is_due = self.commit_again || self.now.since(self.last_commit) >= interval;
        let is_requested = is_due || self.tasks.iter_mut().any(|running| running.task.commit_requested());
        let mut uncommitted = || -> Result<usize> {
            self.tasks.iter_mut().try_fold(0, |sum, running| Ok(sum + running.task.stores()?.uncommitted_bytes()))
        };
        if is_requested || uncommitted().map_err(Failure::Fatal)? > uncommitted_max {
            return self.commit(self.now);
        }
        Ok(())
    }

    /// Commits all tasks of the thread.
    pub(super) fn commit(&mut self, now: Now) -> Result<(), Failure> {
        self.last_commit = now;
        let started = Now::read();
        let committed = self.committer.commit(&mut self.tasks, &mut *self.membership, &*self.consumer);
        self.commit_again = matches!(committed, Err(Failure::Later(_)));
        let committed = committed?;
        if committed > 0 {
            self.last_commit = Now::read();
            self.metrics.commit_total.increment(1);
            self.tell_sizes().map_err(Failure::Fatal)?;
            self.tell_positions();
            self.metrics.commit_latency.record(self.last_commit.since(started).as_secs_f64() * 1000.0);
        }
        Ok(())
    }

    /// What the leader of the group has to know to decide whether a task warms up where it is to go.
    fn tell_sizes(&mut self) -> Result<()> {
        let size = |running: &mut RunningTask| Ok((running.task.id(), records_of(running.task.stores()?)));
        let sizes = self.tasks.iter_mut().map(size).collect::<Result<Vec<_>>>()?;
        self.app.lags.running(sizes.into_iter());
        Ok(())
    }

    /// Puts things right after a failure, as far as that can be done here.
    ///
    /// # Errors
    /// What the thread cannot go on after.
    pub(super) fn recover(&mut self, failure: Failure) -> Result<(), Failure> {
        match failure {
            Failure::Rewind(error) => {
                tracing::warn!("the transaction was aborted, its records are processed again: {}", error.report());
                self.rewind().map_err(Failure::Fatal)
            }
            Failure::Doubt(error) => {
                tracing::warn!("the tasks are opened again from what is committed: {}", error.report());
                if error.kind() == ErrorKind::Fenced {
                    self.check_for_twin(error)?;
                }
                if let Err(error) = self.committer.abort() {
                    tracing::debug!("could not abort the transaction: {}", error.report());
                }
                self.reopen_tasks()
            }
            Failure::Later(error) => {
                self.complain(&error);
                self.retry_at = Some(self.now);
                Ok(())
            }
            Failure::Fatal(error) => Err(Failure::Fatal(error)),
        }
    }

    /// Says what keeps the thread from working, and not ten times a second.
    fn complain(&mut self, error: &Error) {
        if self.complained.is_none_or(|at| self.now.since(at) >= COMPLAINT_INTERVAL) {
            self.complained = Some(self.now);
            tracing::warn!("trying again until it works: {}", error.report());
        } else {
            tracing::debug!("trying again: {}", error.report());
        }
    }

    fn rewind(&mut self) -> Result<()> {
        let mut positions = Vec::new();
        for running in &mut self.tasks {
            running.task.rewind(self.now.wall_ms)?;
            running.forget_written();
            running.dropped = 0;
            positions.extend(running.task.committed_positions().map(|(input, offset)| (input.clone(), offset)));
        }
        self.consumer.assign(&positions)
    }

    /// A producer is fenced when its transaction took too long, or when another process has its identity.
    fn check_for_twin(&mut self, error: Error) -> Result<(), Failure> {
        let now = self.now;
        self.fenced.retain(|at| now.since(*at) < TWIN_WINDOW);
        self.fenced.push(now);
        if self.fenced.len() < FENCED_MAX {
            return Ok(());
        }
        let context = format!(
            "another process seems to run as process {} of application {}: give each its own state directory",
            self.app.process_id,
            self.app.id()
        );
        Err(Failure::Fatal(Error::new(ErrorKind::Fenced, context).with_source(error)))
    }

    /// Waits for records, for changelogs, or for another try.
    fn wait(&mut self) -> Result<()> {
        if self.app.board.is_paused() {
            // There may be records all the time, which would end any other wait.
            std::thread::park_timeout(WAIT_MAX);
            return Ok(());
        }
        let interval = self.app.config.commit_interval_or_default();
        let mut timeout = WAIT_MAX;
        if self.tasks.iter().any(|running| running.task.commit_needed()) {
            timeout = timeout.min(interval.saturating_sub(self.now.since(self.last_commit)));
        }
        if self.tasks.iter().any(|running| running.task.has_calls()) {
            timeout = timeout.min(CALLS_WAIT);
        }
        if self.retry_at.is_some() {
            timeout = timeout.max(Duration::from_millis(10));
        }
        forgive(self.consumer.wait(timeout))
    }

    pub(super) fn report_phase(&mut self) {
        let phase = if self.is_ready() { Phase::Running } else { Phase::Rebalancing };
        if phase != self.phase {
            self.phase = phase;
            (self.report)(phase);
            self.tell_board();
        }
    }

    pub(super) fn is_ready(&self) -> bool {
        self.is_assigned && self.opening.is_empty() && self.restoring.is_empty()
    }

    fn read_levels(&mut self) {
        if self.now.since(self.last_metrics) < METRICS_INTERVAL {
            return;
        }
        self.last_metrics = self.now;
        let lags = self.tasks.iter_mut().map(|running| running.read_levels(&*self.consumer, self.now.wall_ms));
        self.metrics.records_lag_max.set(lags.max().unwrap_or(0) as f64);
        self.home.cache.resize(self.app.config.cache_bytes / self.app.workers());
        self.tell_board();
    }

    /// Commits what is done, closes every task and ends the membership.
    fn close(&mut self, mode: LeaveMode) -> Result<Stepped> {
        self.now = Now::read();
        if let Err(failure) = self.commit(self.now) {
            if self.app.crash_point.has_crashed() {
                return self.fail(failure).map(|_| Stepped::Ended);
            }
            let (Failure::Rewind(error) | Failure::Doubt(error) | Failure::Later(error) | Failure::Fatal(error)) =
                failure;
            tracing::warn!("could not commit before closing, the records are processed again: {}", error.report());
            if let Err(error) = self.committer.abort() {
                tracing::debug!("could not abort the transaction: {}", error.report());
            }
        }
        self.end(mode);
        Ok(Stepped::Ended)
    }

    /// Gives everything back after an error, without a commit.
    fn fail(&mut self, failure: Failure) -> Result<bool> {
        let (Failure::Rewind(error) | Failure::Doubt(error) | Failure::Later(error) | Failure::Fatal(error)) = failure;
        if !self.app.crash_point.has_crashed() {
            if let Err(error) = self.committer.send_dead_letters(&mut self.tasks) {
                tracing::warn!("could not write what failed to the dead-letter topic: {}", error.report());
            }
            if let Err(error) = self.committer.abort() {
                tracing::debug!("could not abort the transaction: {}", error.report());
            }
            self.end(LeaveMode::Leave);
        }
        Err(error)
    }

    fn end(&mut self, mode: LeaveMode) {
        self.standbys.clear();
        let closed = self.close_tasks(|_| true);
        self.restorer.close();
        if let Err(Failure::Fatal(error)) = closed {
            tracing::warn!("could not close every task: {}", error.report());
        }
        if let Err(error) = self.membership.close(mode) {
            tracing::warn!("could not leave group {}: {}", self.app.id(), error.report());
        }
    }
}

/// What can be tried again must not end the thread.
pub(super) fn later(error: Error) -> Failure {
    match error.kind() {
        ErrorKind::Unavailable => Failure::Later(error),
        ErrorKind::Fenced | ErrorKind::Aborted => Failure::Doubt(error),
        ErrorKind::Invalid | ErrorKind::Corrupted | ErrorKind::User | ErrorKind::Closed | ErrorKind::Internal => {
            Failure::Fatal(error)
        }
    }
}

/// A wait that fails because nobody answers has waited long enough.
fn forgive(waited: Result<()>) -> Result<()> {
    match waited {
        Err(error) if error.kind() == ErrorKind::Unavailable => Ok(()),
        waited => waited,
    }
}
