//! Wakes a stream thread that waits for its clients, without polling.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

/// One waiting thread, woken by any of its queues. A wake-up before the wait is kept.
#[derive(Default)]
pub(super) struct Waker {
    woken: AtomicBool,
    lock: Mutex<()>,
    condition: Condvar,
    /// Ends the wait of who waits for something else as well.
    beside: Option<Arc<dyn Fn() + Send + Sync>>,
}

impl fmt::Debug for Waker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Waker").field("woken", &self.woken).finish_non_exhaustive()
    }
}

impl Waker {
    /// Of a thread that waits elsewhere, from where `wake` calls it: `wait` is for a look only.
    pub(super) fn beside(wake: Arc<dyn Fn() + Send + Sync>) -> Waker {
        Waker { beside: Some(wake), ..Waker::default() }
    }

    pub(super) fn wake(&self) {
        // Release pairs with the swap in `wait`: what was queued before the wake-up is seen after it. Only the first of
        // many wake-ups takes the lock.
        if !self.woken.swap(true, Ordering::AcqRel) {
            drop(self.lock.lock().unwrap_or_else(PoisonError::into_inner));
            self.condition.notify_one();
            if let Some(wake) = &self.beside {
                wake();
            }
        }
    }

    /// Returns at once when woken since the last wait.
    pub(super) fn wait(&self, timeout: Duration) {
        if self.woken.swap(false, Ordering::AcqRel) {
            return;
        }
        let guard = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        // A poisoned lock guards nothing: the wait is over either way.
        let _ = self.condition.wait_timeout_while(guard, timeout, |()| !self.woken.load(Ordering::Acquire));
        self.woken.store(false, Ordering::Release);
    }
}

/// What a queue tells when it is not empty any more.
#[derive(Debug)]
pub(super) struct Signal {
    ready: AtomicBool,
    waker: Arc<Waker>,
}

impl Signal {
    /// Ready from the start: a queue may have been filled before anybody looked.
    pub(super) fn new(waker: Arc<Waker>) -> Signal {
        Signal { ready: AtomicBool::new(true), waker }
    }

    pub(super) fn raise(&self) {
        // Release pairs with `take`: the queue's content is seen by who takes the flag.
        self.ready.store(true, Ordering::Release);
        self.waker.wake();
    }

    /// Whether the queue may hold something; to be taken *before* looking into it.
    pub(super) fn take(&self) -> bool {
        self.ready.load(Ordering::Relaxed) && self.ready.swap(false, Ordering::AcqRel)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wake_up_before_the_wait_is_not_lost() {
        let waker = Waker::default();
        waker.wake();
        waker.wait(Duration::MAX);
    }

    #[test]
    fn a_waiting_thread_is_woken_by_another_one() {
        let waker = Arc::new(Waker::default());
        let signal = Signal::new(Arc::clone(&waker));
        assert!(signal.take());
        let other = std::thread::spawn(move || signal.raise());
        waker.wait(Duration::MAX);
        other.join().unwrap();
    }
}
