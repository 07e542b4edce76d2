//! Reads that a stream thread answers between two batches of records.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::state::TaskStores;
use crate::topology::TaskId;

/// Reads that may wait for one thread.
const READS_MAX: usize = 1024;

/// What is read of a task. Dropped unread when the task is not there.
pub(crate) type Read = Box<dyn FnOnce(&mut TaskStores) + Send>;

/// The reads that wait for a thread.
pub(crate) struct Inbox {
    reads: Mutex<Vec<(TaskId, Read)>>,
    /// There are some. Looked at once a turn.
    is_used: AtomicBool,
    wake: Arc<dyn Fn() + Send + Sync>,
}

impl Inbox {
    /// Of a thread that `wake` wakes when it waits for records.
    pub(crate) fn new(wake: Arc<dyn Fn() + Send + Sync>) -> Inbox {
        Inbox { reads: Mutex::default(), is_used: AtomicBool::new(false), wake }
    }

    /// Wakes the thread: there is something for it in the next turn.
    pub(super) fn wake(&self) {
        (self.wake)();
    }

    /// Leaves a read; whether there was room.
    pub(super) fn leave(&self, task: TaskId, read: Read) -> bool {
        let mut reads = self.reads();
        if reads.len() >= READS_MAX {
            return false;
        }
        reads.push((task, read));
        self.is_used.store(true, Ordering::Relaxed);
        drop(reads);
        self.wake();
        true
    }

    /// What was left since the last call.
    #[inline]
    pub(crate) fn take(&self) -> Vec<(TaskId, Read)> {
        // Relaxed: the lock orders the reads; one that is missed is seen in the next turn, to which its waker leads.
        if !self.is_used.load(Ordering::Relaxed) {
            return Vec::new();
        }
        let mut reads = self.reads();
        self.is_used.store(false, Ordering::Relaxed);
        std::mem::take(&mut *reads)
    }

    fn reads(&self) -> MutexGuard<'_, Vec<(TaskId, Read)>> {
        // A panic leaves nothing half done: every change is one push or one take.
        self.reads.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Inbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inbox").field("reads", &self.reads().len()).finish_non_exhaustive()
    }
}
