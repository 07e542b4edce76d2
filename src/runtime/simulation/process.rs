//! A process of the application: its threads, made, stepped and ended by hand.

use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;
use uuid::Uuid;

use super::Shared;
use super::line::Line;
use crate::Config;
use crate::config::GivenCluster;
use crate::membership::LeaveMode;
use crate::runtime::application::Application;
use crate::runtime::group;
use crate::runtime::group_thread::{Driver, GroupStart, GroupThread, Next};
use crate::runtime::start;
use crate::runtime::stream_thread::{Order, Orders, Stepped, StreamThread};
use crate::topology::OffsetReset;

const THREADS: usize = 2;

/// The pause before a thread that has failed is followed by another one.
const REPLACED_AFTER_MS: i64 = 100;

pub(super) struct Process {
    shared: Arc<Shared>,
    id: Uuid,
    /// What outlives a crash.
    folder: TempDir,
    up: Option<Up>,
    paused_until: i64,
}

struct Up {
    app: Arc<Application>,
    /// None: each thread is a member by itself.
    group: Option<(GroupThread, Driver)>,
    threads: Vec<Slot>,
    /// Who is to work next: the group thread, then the others.
    next: usize,
}

enum Slot {
    Runs(Box<StreamThread>, Arc<Orders>),
    Begins { at: i64 },
    Ended,
}

impl Process {
    pub(super) fn new(shared: Arc<Shared>, number: usize) -> Process {
        let id = Uuid::from_u128(number as u128 + 1);
        Process { shared, id, folder: tempfile::tempdir().unwrap(), up: None, paused_until: 0 }
    }

    fn now(&self) -> i64 {
        self.shared.cluster.now().unwrap()
    }

    pub(super) fn start(&mut self) {
        if self.up.is_some() {
            return;
        }
        const STEPS: [&str; 5] = ["drained", "confirmed", "offsets-sent", "committed", "applied-one"];
        let step = usize::try_from(self.shared.below(4 * STEPS.len() as u64)).unwrap();
        let times = self.shared.below(8) + 1;
        let mut config = Config::new("app", "embedded://")
            .exactly_once()
            .threads(THREADS)
            .commit_interval(Duration::from_millis(50))
            .transaction_timeout(Duration::from_secs(2))
            .state_dir(self.folder.path())
            .num_standby_replicas(self.shared.standbys)
            .acceptable_recovery_lag(2)
            .cache_bytes(0);
        config.crash_at = STEPS.get(step).map(|step| format!("{step}:{times}"));
        config.offset_reset = OffsetReset::Earliest;
        config.cluster = Some(GivenCluster(Arc::new(self.shared.network(&self.id.to_string()))));
        let mut app = start::application(&self.shared.topology, &config, None, Arc::default()).unwrap();
        // Its own one is a matter of chance, and it decides who is given which task.
        Arc::get_mut(&mut app).unwrap().process_id = self.id.to_string();
        let threads = (0..THREADS).map(|_| Slot::Begins { at: 0 }).collect();
        let group = group::plan(&app).unwrap().map(|plan| {
            let line = Line::new(Arc::clone(&self.shared), self.id.to_string());
            GroupThread::assemble(GroupStart { coordinator: Box::new(line), ..plan })
        });
        self.up = Some(Up { app, group, threads, next: 0 });
        self.paused_until = 0;
    }

    /// It stands still, as if it got no processor; it does not know.
    pub(super) fn pause(&mut self, time: Duration) {
        if self.up.is_some() {
            self.paused_until = self.now() + i64::try_from(time.as_millis()).unwrap();
            if time > Duration::from_secs(6) {
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
        self.up = None;
    }

    /// One of its threads does something.
    pub(super) fn step(&mut self) {
        let now = self.now();
        if now < self.paused_until {
            return;
        }
        let Some(up) = &mut self.up else { return };
        up.next = (up.next + 1) % (THREADS + 1);
        let next = match up.next.checked_sub(1) {
            Some(index) => up.step_thread(index, now, &self.shared),
            None => up.step_group(),
        };
        if next == Next::End || up.app.crash_point.has_crashed() {
            self.crash();
        }
    }

    /// Its threads commit and end, one after the other, and then the membership.
    pub(super) fn close(&mut self, mode: LeaveMode) {
        let now = self.now();
        let Some(mut up) = self.up.take() else { return };
        if let Some((group, _)) = &up.group {
            group.stop_placing();
        }
        for index in 0..THREADS {
            match &up.threads[index] {
                Slot::Runs(_, orders) => orders.give(Order::Leave),
                Slot::Begins { .. } | Slot::Ended => up.threads[index] = Slot::Ended,
            }
            up.step_thread(index, now, &self.shared);
        }
        if let Some((group, _)) = &up.group {
            group.order_to_leave(mode);
        }
        // It says farewell, and waits for the answer in vain if there is none.
        for _ in 0..4 {
            up.step_group();
        }
    }
}

impl Up {
    fn step_group(&mut self) -> Next {
        self.group.as_mut().map_or(Next::GoOn, |(_, driver)| driver.step())
    }

    fn step_thread(&mut self, index: usize, now: i64, shared: &Shared) -> Next {
        let next = match std::mem::replace(&mut self.threads[index], Slot::Ended) {
            Slot::Begins { at } if at > now => Slot::Begins { at },
            // It would wait for an answer, and nobody else would work meanwhile.
            Slot::Begins { .. } => shared.calmly(|| self.connect(index)),
            Slot::Runs(mut thread, orders) => match thread.step() {
                Ok(Stepped::Worked | Stepped::Idle) => Slot::Runs(thread, orders),
                Ok(Stepped::Ended) => Slot::Ended,
                Err(_) => Slot::Begins { at: now + REPLACED_AFTER_MS },
            },
            Slot::Ended => Slot::Ended,
        };
        self.threads[index] = next;
        Next::GoOn
    }

    fn connect(&self, index: usize) -> Slot {
        let orders = Arc::new(Orders::default());
        let report = Box::new(|_| {});
        let group = self.group.as_ref().map(|(group, _)| group);
        let thread = StreamThread::connect(Arc::clone(&self.app), index + 1, group, Arc::clone(&orders), report);
        match thread.unwrap() {
            Some(thread) => Slot::Runs(Box::new(thread), orders),
            None => Slot::Ended,
        }
    }
}
