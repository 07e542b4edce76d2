//! Waiting for brokers: until their sockets have something to read, another thread wakes the waiter, or time is up.

use std::io::ErrorKind;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mio::{Events, Poll, Registry, Token, Waker};

use super::lane::Lane;
use crate::error::{Error, ErrorKind as Kind, Result};

/// No lane has this place.
const WAKER: Token = Token(usize::MAX);

#[derive(Debug)]
pub(super) struct Sockets {
    poll: Poll,
    events: Events,
    waker: Arc<Waker>,
}

impl Sockets {
    /// For a few connections to the coordinator of a group.
    ///
    /// # Errors
    /// `Unavailable` when the system gives nothing to wait with.
    pub(super) fn new(group: &str) -> Result<Sockets> {
        Sockets::of(&format!("the coordinator of group {group}"))
    }

    /// For connections to `what`, whose name is for errors.
    pub(super) fn of(what: &str) -> Result<Sockets> {
        let failed = |error| {
            let context = format!("could not wait for {what}");
            Error::new(Kind::Unavailable, context).with_source(error)
        };
        let poll: Poll = Poll::new().map_err(failed)?;
        let waker = Arc::new(Waker::new(poll.registry(), WAKER).map_err(failed)?);
        Ok(Sockets { poll, events: Events::with_capacity(8), waker })
    }

    pub(super) fn registry(&self) -> &Registry {
        self.poll.registry()
    }

    /// Waits no longer than until one of the lanes has something to do by itself.
    ///
    /// IMPORTANT: sockets tell only once that there is something to read: nothing may be left in them before the wait.
    pub(super) fn wait(&mut self, lanes: &[Lane], timeout: Duration, now: Instant) {
        self.wait_until(lanes.iter().filter_map(Lane::next_time).min(), timeout, now);
    }

    /// Waits no longer than until `next`. True: another thread has ended the wait.
    pub(super) fn wait_until(&mut self, next: Option<Instant>, timeout: Duration, now: Instant) -> bool {
        let timeout = next.map_or(timeout, |next| timeout.min(next.saturating_duration_since(now)));
        // A signal ends the wait early, which is allowed.
        if let Err(error) = self.poll.poll(&mut self.events, Some(timeout))
            && error.kind() != ErrorKind::Interrupted
        {
            tracing::warn!(%error, "could not wait for a broker");
        }
        self.events.iter().any(|event| event.token() == WAKER)
    }

    /// Ends a wait from another thread.
    pub(super) fn waker(&self) -> Arc<dyn Fn() + Send + Sync> {
        let waker = Arc::clone(&self.waker);
        Arc::new(move || {
            if let Err(error) = waker.wake() {
                tracing::warn!(%error, "could not wake a thread that waits for brokers");
            }
        })
    }
}
