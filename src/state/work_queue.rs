//! Work of stores that a thread of the layers above does, beside the one that has the stores.

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};

/// A piece of work; dropped undone when the thread has ended.
pub(super) type Work = Box<dyn FnOnce() + Send>;

/// Pieces that wait while one is being done: each is a run in memory.
const WAITING_MAX: usize = 1;

/// Where stores leave their work.
#[derive(Clone)]
pub(crate) struct WorkQueue(Arc<Inner>);

struct Inner {
    /// None: closed. Only one thread gives work, so nobody ever waits for it.
    works: Mutex<Option<SyncSender<Work>>>,
    /// Pieces that are not done yet.
    open: Arc<AtomicUsize>,
}

/// What is to be done, for the thread that does it.
pub(crate) struct Works {
    works: Receiver<Work>,
    open: Arc<AtomicUsize>,
}

impl WorkQueue {
    pub(crate) fn new() -> (WorkQueue, Works) {
        let (give, works) = sync_channel(WAITING_MAX);
        let open = Arc::new(AtomicUsize::new(0));
        let inner = Inner { works: Mutex::new(Some(give)), open: Arc::clone(&open) };
        (WorkQueue(Arc::new(inner)), Works { works, open })
    }

    /// Leaves a piece of work there, or gives it back where there is too much already, or nobody to do it.
    pub(super) fn give(&self, work: Work) -> Result<(), Work> {
        let works = self.0.works.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(works) = &*works else { return Err(work) };
        // Relaxed: a hint. First, so that it is never below zero.
        self.0.open.fetch_add(1, Ordering::Relaxed);
        works.try_send(work).map_err(|refused| {
            self.0.open.fetch_sub(1, Ordering::Relaxed);
            match refused {
                std::sync::mpsc::TrySendError::Full(work) | std::sync::mpsc::TrySendError::Disconnected(work) => work,
            }
        })
    }

    /// Whether there is nothing to do.
    pub(super) fn is_idle(&self) -> bool {
        self.0.open.load(Ordering::Relaxed) == 0
    }

    /// What is there is yet done, and no more is taken.
    pub(crate) fn close(&self) {
        self.0.works.lock().unwrap_or_else(PoisonError::into_inner).take();
    }
}

impl Works {
    /// Does the next piece, and waits for it if it has to; whether more may come.
    pub(crate) fn do_next(&self) -> bool {
        let Ok(work) = self.works.recv() else { return false };
        work();
        self.open.fetch_sub(1, Ordering::Relaxed);
        true
    }
}

impl fmt::Debug for WorkQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WorkQueue").field("is_idle", &self.is_idle()).finish_non_exhaustive()
    }
}
