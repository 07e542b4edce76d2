//! The state of a client, for everybody who waits for it.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use metrics::Gauge;
use tokio::sync::watch;

use super::clock::Now;
use super::state::State;
use crate::error::Error;

pub(super) type StateListener = Box<dyn Fn(State, State) + Send + Sync>;

pub(super) struct Status {
    state: Mutex<State>,
    changed: Condvar,
    watched: watch::Sender<State>,
    /// Lock order: `telling` before `state`. Held from a change to the end of its listeners, so that they hear of changes
    /// in order.
    telling: Mutex<Vec<StateListener>>,
    error: Mutex<Option<Error>>,
    /// Known once the client has a name.
    gauge: OnceLock<Gauge>,
}

thread_local! {
    static OWN_THREAD: Cell<bool> = const { Cell::new(false) };
}

/// Marks a thread of the library: one that waits for the end of the client would wait for itself.
pub(super) fn enter_own_thread() {
    OWN_THREAD.set(true);
}

pub(super) fn is_own_thread() -> bool {
    OWN_THREAD.get()
}

impl Status {
    pub(super) fn new() -> Status {
        Status {
            state: Mutex::new(State::Created),
            changed: Condvar::new(),
            watched: watch::Sender::new(State::Created),
            telling: Mutex::new(Vec::new()),
            error: Mutex::new(None),
            gauge: OnceLock::new(),
        }
    }

    pub(super) fn current(&self) -> State {
        *lock(&self.state)
    }

    /// Tells every state to the metrics from now on.
    pub(super) fn measure(&self, gauge: Gauge) {
        let gauge = self.gauge.get_or_init(|| gauge);
        gauge.set(self.current().number());
    }

    pub(super) fn listen(&self, listener: StateListener) {
        lock(&self.telling).push(listener);
    }

    /// Moves to a state, if it may follow the present one; whether it did. A listener that closes the client does not wait.
    pub(super) fn advance(&self, next: State) -> bool {
        let listeners = lock(&self.telling);
        let mut state = lock(&self.state);
        let before = *state;
        if !before.may_become(next) {
            return false;
        }
        *state = next;
        drop(state);
        if let Some(gauge) = self.gauge.get() {
            gauge.set(next.number());
        }
        tracing::info!("state changes from {before} to {next}");
        let outer = OWN_THREAD.replace(true);
        for listener in listeners.iter() {
            if catch_unwind(AssertUnwindSafe(|| listener(next, before))).is_err() {
                tracing::error!("a state listener panicked when the state became {next}");
            }
        }
        OWN_THREAD.set(outer);
        drop(listeners);
        self.changed.notify_all();
        self.watched.send_replace(next);
        true
    }

    /// Why the client ends; the first reason counts.
    pub(super) fn fail(&self, error: Error) {
        lock(&self.error).get_or_insert(error);
    }

    pub(super) fn take_error(&self) -> Option<Error> {
        lock(&self.error).take()
    }

    /// Waits until nothing can follow; none of a timeout waits for ever. Whether it came to that.
    pub(super) fn wait_for_end(&self, timeout: Option<Duration>) -> bool {
        let begun = Now::read();
        let mut state = lock(&self.state);
        while !state.is_terminal() {
            state = match timeout.map(|timeout| timeout.saturating_sub(Now::read().since(begun))) {
                None => self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(Duration::ZERO) => return false,
                Some(left) => self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0,
            };
        }
        true
    }

    /// The same for a task of tokio.
    pub(super) async fn ended(&self) {
        // The sender lives as long as this: waiting cannot fail.
        let _ = self.watched.subscribe().wait_for(|state| state.is_terminal()).await;
    }
}

/// What a lock protects here is one value, whole at every moment.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
