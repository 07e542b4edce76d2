//! What a process does by its user's wish or by its supervisor's: more threads or fewer, a farewell, and a thread that does
//! not come back.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::process::{Process, Slot, Up};
use super::shared::Shared;
use crate::membership::LeaveMode;
use crate::runtime::application::Application;
use crate::runtime::group_thread::GroupThread;
use crate::runtime::stream_thread::Order;

const THREADS_MAX: usize = 4;

thread_local! {
    /// Of processes that run, at hand while one of their threads is in the middle of a call.
    static SUPERVISED: RefCell<BTreeMap<usize, Supervised>> = const { RefCell::new(BTreeMap::new()) };
}

struct Supervised {
    group: Arc<GroupThread>,
    app: Arc<Application>,
    working: Option<usize>,
    /// Threads that were given up, and have not been seen at work since.
    hung: BTreeSet<usize>,
}

impl Supervised {
    fn tell(&self) {
        self.app.board.set_impaired(!self.hung.is_empty());
    }
}

/// When a process ends that hands over, at the latest.
pub(super) struct Farewell {
    until: i64,
}

fn with_supervised<T: Default>(which: usize, work: impl FnOnce(&mut Supervised) -> T) -> T {
    SUPERVISED.with_borrow_mut(|all| all.get_mut(&which).map(work).unwrap_or_default())
}

pub(super) fn begins(which: usize, group: &Arc<GroupThread>, app: &Arc<Application>) {
    let (group, app) = (Arc::clone(group), Arc::clone(app));
    let supervised = Supervised { group, app, working: None, hung: BTreeSet::new() };
    drop(SUPERVISED.with_borrow_mut(|all| all.insert(which, supervised)));
}

pub(super) fn ends(which: usize) {
    drop(SUPERVISED.with_borrow_mut(|all| all.remove(&which)));
}

pub(super) fn forget_everybody() {
    drop(SUPERVISED.take());
}

/// A thread takes a turn; one that has hung before is seen at work sooner or later.
pub(super) fn works(which: usize, index: Option<usize>, shared: &Shared) {
    with_supervised(which, |supervised| {
        supervised.working = index;
        let Some(index) = index.filter(|index| supervised.hung.contains(index)) else { return };
        if !shared.is_stormy() || shared.one_in(3) {
            shared.note("a thread that was given up is back");
            supervised.hung.remove(&index);
            supervised.tell();
            supervised.group.come_back(index);
        }
    });
}

/// A thread has ended by itself: the next one of its number does not hang.
pub(super) fn has_ended(which: usize, index: usize) {
    with_supervised(which, |supervised| {
        if supervised.hung.remove(&index) {
            supervised.tell();
            supervised.group.tell();
        }
    });
}

/// The thread of a process that is at work does not come back: others are to have its tasks. Whether there is one.
pub(super) fn give_up_working_thread(which: usize) -> bool {
    with_supervised(which, |supervised| {
        let Some(index) = supervised.working else { return false };
        supervised.hung.insert(index);
        supervised.tell();
        supervised.group.abandon(index);
        true
    })
}

impl Process {
    pub(super) fn has_threads(&self) -> bool {
        self.up.as_ref().is_none_or(|up| up.wanted().count() > 0)
    }

    pub(super) fn add_thread(&mut self) {
        let Some(up) = self.up.as_mut().filter(|up| up.farewell.is_none()) else { return };
        if up.wanted().count() < THREADS_MAX {
            self.shared.note("a thread is added");
            let ended = up.threads.iter().position(|slot| matches!(slot, Slot::Ended));
            match ended.and_then(|index| up.threads.get_mut(index)) {
                Some(slot) => *slot = Slot::Begins { at: 0 },
                None => up.threads.push(Slot::Begins { at: 0 }),
            }
            up.tell_workers();
        }
    }

    /// The last one of those that are wanted, which may be the last of all.
    pub(super) fn remove_thread(&mut self) {
        let Some(up) = self.up.as_mut().filter(|up| up.farewell.is_none()) else { return };
        let Some(last) = up.wanted().last() else { return };
        self.shared.note("a thread is removed");
        if let Some(Slot::Runs(_, orders)) = up.threads.get(last) {
            orders.give(Order::Leave);
        } else {
            up.threads[last] = Slot::Ended;
            up.tell_workers();
        }
    }

    /// It closes when others have taken over what it has, or it has waited for long enough.
    pub(super) fn say_farewell(&mut self, patience: Duration) {
        let until = self.shared.after(patience);
        let Some(up) = self.up.as_mut().filter(|up| up.farewell.is_none()) else { return };
        match &up.group {
            Some(group) => {
                self.shared.note("a process hands over");
                group.hand_over();
                up.farewell = Some(Farewell { until });
            }
            None => self.close(LeaveMode::Leave),
        }
    }
}

impl Up {
    /// The threads that there shall be.
    fn wanted(&self) -> impl Iterator<Item = usize> + '_ {
        let is_wanted = |slot: &Slot| match slot {
            Slot::Runs(_, orders) => orders.current() == Order::GoOn,
            Slot::Begins { .. } => true,
            Slot::Ended => false,
        };
        self.threads.iter().enumerate().filter(move |(_, slot)| is_wanted(slot)).map(|(index, _)| index)
    }

    fn tell_workers(&self) {
        self.app.board.set_workers(self.wanted().count());
        self.group.iter().for_each(|group| group.tell());
    }

    /// Those that have closed what they had.
    pub(super) fn end_removed_threads(&mut self, shared: &Shared) {
        let before = self.threads.len();
        while self.threads.pop_if(|slot| matches!(slot, Slot::Ended)).is_some() {
            shared.note("a removed thread has ended");
        }
        if self.threads.len() != before {
            self.tell_workers();
        }
    }

    /// Whether it closes now.
    pub(super) fn has_said_farewell(&self, now: i64) -> bool {
        let Some(Farewell { until }) = &self.farewell else { return false };
        *until <= now || self.group.as_ref().is_none_or(|group| group.has_handed_over())
    }
}
