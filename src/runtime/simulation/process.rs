//! A process of the application: its threads, made, stepped and ended by hand.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use tempfile::TempDir;
use uuid::Uuid;

use super::Shared;
use crate::Config;
use crate::config::GivenCluster;
use crate::runtime::application::Application;
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
    threads: Vec<Slot>,
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
            .cache_bytes(0);
        config.crash_at = STEPS.get(step).map(|step| format!("{step}:{times}"));
        config.offset_reset = OffsetReset::Earliest;
        config.cluster = Some(GivenCluster(Arc::new(self.shared.network(&self.id.to_string()))));
        let processed = Arc::new(AtomicU64::new(0));
        let mut app = start::application(&self.shared.topology, &config, None, processed).unwrap();
        // Its own one is a matter of chance, and it decides who is given which task.
        Arc::get_mut(&mut app).unwrap().process_id = self.id.to_string();
        let threads = (0..THREADS).map(|_| Slot::Begins { at: 0 }).collect();
        self.up = Some(Up { app, threads, next: 0 });
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
        up.next = (up.next + 1) % THREADS;
        up.step_thread(up.next, now, &self.shared);
        if up.app.crash_point.has_crashed() {
            self.crash();
        }
    }

    /// Its threads commit and leave, one after the other.
    pub(super) fn close(&mut self) {
        let now = self.now();
        let Some(up) = &mut self.up else { return };
        for index in 0..THREADS {
            match &up.threads[index] {
                Slot::Runs(_, orders) => orders.give(Order::Leave),
                Slot::Begins { .. } | Slot::Ended => up.threads[index] = Slot::Ended,
            }
            up.step_thread(index, now, &self.shared);
        }
        self.up = None;
    }
}

impl Up {
    fn step_thread(&mut self, index: usize, now: i64, shared: &Shared) {
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
    }

    fn connect(&self, index: usize) -> Slot {
        let orders = Arc::new(Orders::default());
        let report = Box::new(|_| {});
        let thread = StreamThread::connect(Arc::clone(&self.app), index + 1, None, Arc::clone(&orders), report);
        match thread.unwrap() {
            Some(thread) => Slot::Runs(Box::new(thread), orders),
            None => Slot::Ended,
        }
    }
}
