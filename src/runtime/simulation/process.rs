//! A process of the application: its threads, made, stepped and ended by hand.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;
use tracing::span::EnteredSpan;
use uuid::Uuid;

use super::control::{self, Farewell};
use super::flaw::Flaw;
use super::line::{Build, Line};
use super::shared::Shared;
use crate::client::GroupMetadata;
use crate::config::GivenCluster;
use crate::membership::{LeaveMode, Membership, MembershipEvent};
use crate::record::{OffsetAndMetadata, TopicPartition};
use crate::runtime::application::Application;
use crate::runtime::clock::{Now, simulated};
use crate::runtime::group;
use crate::runtime::group_thread::{Driver, GroupStart, GroupThread, Next};
use crate::runtime::start;
use crate::runtime::stream_thread::{Order, Orders, Stepped, StreamThread};
use crate::state::simulated_disk::{DiskFlaw, Mounted, SimulatedDisk};
use crate::topology::{OffsetReset, TaskId};
use crate::{Config, Result};

/// At first; its user adds some and removes some.
const THREADS: usize = 2;

thread_local! {
    /// All of them. One that is at work is not there meanwhile.
    static PROCESSES: RefCell<Vec<Option<Process>>> = const { RefCell::new(Vec::new()) };
    /// What their group threads run, which go on while a stream thread stands still.
    static DRIVERS: RefCell<BTreeMap<usize, Driver>> = const { RefCell::new(BTreeMap::new()) };
}

/// The processes of a world, of which there is one per thread.
pub(super) struct Processes(());

impl Processes {
    pub(super) fn new(processes: impl Iterator<Item = Process>) -> Processes {
        PROCESSES.set(processes.map(Some).collect());
        Processes(())
    }
}

impl Drop for Processes {
    fn drop(&mut self) {
        drop((PROCESSES.take(), DRIVERS.take()));
        control::forget_everybody();
    }
}

/// Lets the group thread of a process do something, whatever the others are doing, until it has ended.
pub(super) fn step_group(which: usize) -> Next {
    let Some(mut driver) = DRIVERS.with_borrow_mut(|drivers| drivers.remove(&which)) else { return Next::End };
    let next = driver.step();
    if next != Next::End {
        DRIVERS.with_borrow_mut(|drivers| drivers.insert(which, driver));
    }
    next
}

/// Lets a process do something, if it is not in the middle of something else: then it stands still.
pub(super) fn with_process(which: usize, work: impl FnOnce(&mut Process)) {
    let idle = PROCESSES.with_borrow_mut(|processes| processes.get_mut(which).and_then(Option::take));
    if let Some(mut process) = idle {
        work(&mut process);
        PROCESSES.with_borrow_mut(|processes| processes[which] = Some(process));
    }
}

/// The pause before a thread that has failed is followed by another one.
const REPLACED_AFTER_MS: i64 = 100;

pub(super) struct Process {
    pub(super) shared: Arc<Shared>,
    pub(super) number: usize,
    id: Uuid,
    /// What outlives a crash.
    folder: TempDir,
    disk: SimulatedDisk,
    pub(super) up: Option<Up>,
    paused_until: i64,
    disk_full_until: i64,
    /// How far its calendar is off.
    jumped_ms: i64,
    build: Build,
}

/// While it is there, work is done on a machine in the place of another one.
struct Machine {
    _span: EnteredSpan,
    jumped_before: i64,
    _disk: Mounted,
}

impl Drop for Machine {
    fn drop(&mut self) {
        simulated::jump(self.jumped_before);
    }
}

pub(super) struct Up {
    number: usize,
    pub(super) app: Arc<Application>,
    /// None: each thread is a member by itself.
    pub(super) group: Option<Arc<GroupThread>>,
    pub(super) threads: Vec<Slot>,
    /// Who is to work next: the group thread, then the others.
    next: usize,
    /// It hands over before it closes.
    pub(super) farewell: Option<Farewell>,
}

pub(super) enum Slot {
    Runs(Box<StreamThread>, Arc<Orders>),
    Begins { at: i64 },
    Ended,
}

impl Process {
    pub(super) fn new(shared: Arc<Shared>, number: usize) -> Process {
        let id = Uuid::from_u128(number as u128 + 1);
        let flaw = match shared.flaw {
            Some(Flaw::OffsetAhead) => Some(DiskFlaw::OffsetAhead),
            Some(Flaw::TrustsOldStores) => Some(DiskFlaw::NoTime),
            _ => None,
        };
        Process {
            shared,
            number,
            id,
            folder: tempfile::tempdir().unwrap(),
            disk: SimulatedDisk::new(flaw),
            up: None,
            paused_until: 0,
            disk_full_until: 0,
            jumped_ms: 0,
            build: Build::Ours,
        }
    }

    pub(super) fn disk(&self) -> &SimulatedDisk {
        &self.disk
    }

    pub(super) fn now(&self) -> i64 {
        self.shared.now()
    }

    /// The machine that the process runs on: what works until the guard is dropped works there.
    fn machine(&self) -> Machine {
        self.disk.set_full(self.now() < self.disk_full_until);
        let _span = tracing::info_span!("process", id = self.number + 1).entered();
        Machine { _span, jumped_before: simulated::jump(self.jumped_ms), _disk: self.disk.mount() }
    }

    pub(super) fn fill_disk(&mut self, time: Duration) {
        self.shared.note("a disk is full");
        self.disk_full_until = self.shared.after(time);
    }

    pub(super) fn flush_disk(&self) {
        let _machine = self.machine();
        self.disk.flush();
    }

    /// Its calendar goes to another day, and its stopwatch goes on.
    pub(super) fn jump(&mut self) {
        if self.shared.scenario.may_jump() {
            self.shared.note("a clock jumps");
            self.jumped_ms = i64::try_from(self.shared.below(7_200_000)).unwrap() - 3_600_000;
        }
    }

    /// What the supervisor does now and then.
    pub(super) fn keep_house(&self) {
        let (Some(up), true) = (&self.up, self.now() >= self.paused_until) else { return };
        let _machine = self.machine();
        up.app.memory.flush_if_due(Now::read().wall_ms).unwrap();
        let purgeable = std::mem::take(&mut *up.app.purgeable.lock().unwrap());
        let before: Vec<_> = purgeable.into_iter().collect();
        if !before.is_empty() {
            self.shared.note("a repartition topic is purged");
            // What stays is purged with what comes.
            let _ = up.app.with_admin(|admin| admin.delete_records(&before));
        }
    }

    /// Nothing goes wrong here any more.
    pub(super) fn calm_down(&mut self) {
        (self.paused_until, self.disk_full_until) = (0, 0);
        self.add_thread();
    }

    pub(super) fn start(&mut self) {
        if self.up.is_some() {
            return;
        }
        // A rolling upgrade, and sometimes a way back.
        self.build = if self.shared.one_in(3) { Build::Later } else { Build::Ours };
        let _machine = self.machine();
        const STEPS: [&str; 5] = ["drained", "confirmed", "offsets-sent", "committed", "applied-one"];
        let step = usize::try_from(self.shared.below(4 * STEPS.len() as u64)).unwrap();
        let times = self.shared.below(8) + 1;
        let may_crash = self.shared.is_stormy();
        let config = Config::new("app", "embedded://");
        let config = if self.shared.scenario.is_exactly_once() { config.exactly_once() } else { config };
        let mut config = config
            .threads(THREADS)
            .session_timeout(self.shared.session_timeout)
            .commit_interval(self.shared.commit_interval)
            .transaction_timeout(self.shared.transaction_timeout)
            .state_dir(self.folder.path())
            .num_standby_replicas(self.shared.standbys)
            .acceptable_recovery_lag(2)
            .cache_bytes(self.shared.cache_bytes);
        config.crash_at = STEPS.get(step).filter(|_| may_crash).map(|step| format!("{step}:{times}"));
        config.offset_reset = OffsetReset::Earliest;
        config.cluster = Some(GivenCluster(Arc::new(self.shared.network(self.number, &self.id.to_string()))));
        let mut app = start::application(&self.shared.topology, &config, None, Arc::default()).unwrap();
        // Its own one is a matter of chance, and it decides who is given which task.
        Arc::get_mut(&mut app).unwrap().process_id = self.id.to_string();
        let threads = (0..THREADS).map(|_| Slot::Begins { at: 0 }).collect();
        let group = group::plan(&app).unwrap().map(|plan| {
            let line = Line::new(Arc::clone(&self.shared), self.id.to_string(), self.build);
            let (group, driver) = GroupThread::assemble(GroupStart { coordinator: Box::new(line), ..plan });
            DRIVERS.with_borrow_mut(|drivers| drivers.insert(self.number, driver));
            Arc::new(group)
        });
        group.iter().for_each(|group| control::begins(self.number, group, &app));
        self.up = Some(Up { number: self.number, app, group, threads, next: 0, farewell: None });
        self.paused_until = 0;
    }

    /// It stands still, as if it got no processor; it does not know.
    pub(super) fn pause(&mut self, time: Duration) {
        let time = time.min(self.shared.pause_max);
        if self.up.is_some() {
            self.paused_until = self.now() + i64::try_from(time.as_millis()).unwrap();
            self.shared.note("a process pauses");
            if time > Duration::from_secs(6) {
                self.shared.note("a process pauses past its session");
                self.shared.expire_members(&self.id.to_string());
            }
        }
    }

    /// Its calls are not answered for a while.
    pub(super) fn cut_off(&mut self, time: Duration) {
        self.shared.cut_off(&self.id.to_string(), time);
    }

    /// It is gone at once, with whatever it was doing.
    pub(super) fn crash(&mut self) {
        if self.up.is_some() {
            self.shared.note("a process crashes");
            tracing::info!(process = self.number + 1, "crashes");
            self.disk.crash(|bound| self.shared.below(bound));
            self.end();
            if self.shared.one_in(3) {
                // The others need not wait for its session.
                self.shared.remove_dead_members(&self.id.to_string());
            }
        }
    }

    fn end(&mut self) {
        self.up = None;
        control::ends(self.number);
        drop(DRIVERS.with_borrow_mut(|drivers| drivers.remove(&self.number)));
    }

    /// One of its threads does something.
    pub(super) fn step(&mut self) {
        let now = self.now();
        if now < self.paused_until {
            return;
        }
        let _machine = self.machine();
        let Some(up) = &mut self.up else { return };
        up.next = (up.next + 1) % (up.threads.len() + 1);
        let next = match up.next.checked_sub(1) {
            Some(index) => {
                let _span = tracing::info_span!("thread", index = index + 1).entered();
                up.step_thread(index, now, &self.shared)
            }
            None => step_group(self.number),
        };
        up.end_removed_threads(&self.shared);
        if up.has_said_farewell(now) {
            return self.close(LeaveMode::Leave);
        }
        let step = up.app.config.crash_at.as_deref().and_then(|step| step.split_once(':'));
        match (up.app.crash_point.has_crashed(), step) {
            (true, Some((step, _))) => self.shared.note(&format!("a process crashes at {step}")),
            _ if next == Next::End => self.shared.note("a member has to end"),
            _ => return,
        }
        self.crash();
    }

    /// Its threads commit and end, one after the other, and then the membership.
    pub(super) fn close(&mut self, mode: LeaveMode) {
        let now = self.now();
        let _machine = self.machine();
        let Some(mut up) = self.up.take() else { return };
        self.shared.note("a process closes");
        if let Some(group) = &up.group {
            group.stop_placing();
        }
        for index in 0..up.threads.len() {
            match &up.threads[index] {
                Slot::Runs(_, orders) => orders.give(Order::Leave),
                Slot::Begins { .. } | Slot::Ended => up.threads[index] = Slot::Ended,
            }
            up.step_thread(index, now, &self.shared);
        }
        if let Some(group) = &up.group {
            group.order_to_leave(mode);
        }
        // It says farewell, and waits for the answer in vain if there is none.
        for _ in 0..4 {
            step_group(self.number);
        }
        drop(up);
        self.end();
    }
}

impl Up {
    fn step_thread(&mut self, index: usize, now: i64, shared: &Arc<Shared>) -> Next {
        control::works(self.number, Some(index + 1), shared);
        let next = match std::mem::replace(&mut self.threads[index], Slot::Ended) {
            Slot::Begins { at } if at > now => Slot::Begins { at },
            // It would wait for an answer, and nobody else would work meanwhile.
            Slot::Begins { .. } => shared.calmly(|| self.connect(index, shared)),
            Slot::Runs(mut thread, orders) => match step_with_restorer(&mut thread, shared) {
                Ok(Stepped::Worked | Stepped::Idle) => Slot::Runs(thread, orders),
                Ok(Stepped::Ended) => Slot::Ended,
                Err(error) => {
                    tracing::info!("the thread has failed: {}", error.report());
                    control::has_ended(self.number, index + 1);
                    match orders.current() {
                        Order::GoOn => Slot::Begins { at: now + REPLACED_AFTER_MS },
                        Order::Close | Order::Leave | Order::Stay | Order::Crash => Slot::Ended,
                    }
                }
            },
            Slot::Ended => Slot::Ended,
        };
        self.threads[index] = next;
        control::works(self.number, None, shared);
        Next::GoOn
    }

    fn connect(&self, index: usize, shared: &Arc<Shared>) -> Slot {
        let orders = Arc::new(Orders::default());
        let report = Box::new(|_| {});
        let group = self.group.as_deref();
        let thread = StreamThread::connect(Arc::clone(&self.app), index + 1, group, Arc::clone(&orders), report);
        match thread.unwrap() {
            Some(mut thread) => {
                let (shared, number) = (Arc::clone(shared), self.number);
                thread.membership = Box::new(Seat { inner: thread.membership, shared, number });
                Slot::Runs(Box::new(thread), orders)
            }
            None => Slot::Ended,
        }
    }
}

/// Its restorer, which is a thread of its own, works more than the thread or less.
fn step_with_restorer(thread: &mut StreamThread, shared: &Shared) -> Result<Stepped> {
    (0..shared.below(3)).for_each(|_| thread.restorer.step());
    thread.step()
}

/// A thread's place in the group. It may take long to do what it hears.
struct Seat {
    inner: Box<dyn Membership>,
    shared: Arc<Shared>,
    number: usize,
}

impl Membership for Seat {
    fn poll(&mut self) -> Result<Option<MembershipEvent>> {
        let event = self.inner.poll()?;
        let is_flawed = self.shared.is_flawed(Flaw::AcknowledgesFirst);
        let gives_away = is_flawed && matches!(event, Some(MembershipEvent::Revoked { .. }));
        if gives_away {
            self.inner.acknowledge()?;
        }
        if event.is_some() && self.shared.is_stormy() && (self.shared.one_in(10) || gives_away) {
            self.shared.hesitate(self.number);
        }
        Ok(event)
    }

    fn acknowledge(&mut self) -> Result<()> {
        self.inner.acknowledge()
    }

    fn warmed_up(&mut self, tasks: &BTreeSet<TaskId>) {
        self.shared.note("a standby is warm");
        self.inner.warmed_up(tasks);
    }

    fn has_lost_tasks(&mut self) -> bool {
        self.inner.has_lost_tasks()
    }

    fn committed(&mut self, partitions: &[TopicPartition]) -> Result<Vec<Option<OffsetAndMetadata>>> {
        self.inner.committed(partitions)
    }

    fn committed_so_far(&mut self, partitions: &[TopicPartition]) -> Result<Vec<Option<i64>>> {
        self.inner.committed_so_far(partitions)
    }

    fn commit(&mut self, offsets: &[(TopicPartition, OffsetAndMetadata)]) -> Result<()> {
        self.inner.commit(offsets)
    }

    fn group_metadata(&mut self) -> Result<Option<GroupMetadata>> {
        self.inner.group_metadata()
    }

    fn close(&mut self, mode: LeaveMode) -> Result<()> {
        self.inner.close(mode)
    }
}
