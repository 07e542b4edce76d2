//! The thread that writes rows which are restored, beside the restorer that reads them.

use std::thread::{Builder, JoinHandle};

use super::status::enter_own_thread;
use crate::error::{Error, ErrorKind, Result};
use crate::state::WorkQueue;

/// Ends with its owner, when it has done what was left to it.
pub(super) struct RunThread {
    queue: WorkQueue,
    thread: Option<JoinHandle<()>>,
}

impl RunThread {
    /// # Errors
    /// `Unavailable` when there is no thread to have.
    pub(super) fn start(name: &str) -> Result<RunThread> {
        let (queue, works) = WorkQueue::new();
        let body = move || {
            enter_own_thread();
            while works.do_next() {}
        };
        let thread = Builder::new().name(name.to_owned()).spawn(body).map_err(|error| {
            Error::new(ErrorKind::Unavailable, format!("could not start thread {name}")).with_source(error)
        })?;
        Ok(RunThread { queue, thread: Some(thread) })
    }

    /// Where its work is left.
    pub(super) fn queue(&self) -> &WorkQueue {
        &self.queue
    }
}

impl Drop for RunThread {
    fn drop(&mut self) {
        self.queue.close();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("a thread that writes restored rows has panicked");
        }
    }
}
