//! Ends what processes that are gone have left open, so that nobody waits for their transactions to time out.
//!
//! A thread of its own looks after every change of the group: brokers are asked one and all, some may be down, and heartbeats
//! must not wait for them. Stream threads need not wait either: until a transaction has ended, its offsets are told to
//! nobody, and what it has written is not read.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use crate::error::{Error, ErrorKind, Result};
use crate::membership::classic::protocol::GroupOffsets;

/// Before brokers that did not answer are asked again.
const PAUSE: Duration = Duration::from_millis(500);

/// Twice as long as a cluster takes to notice that a broker is gone; the next change of the group begins anew.
const TRIES: usize = 40;

/// Dropped, it ends when the look that is under way does: after some seconds.
pub(super) struct Fencing {
    /// None while it ends. One order in it is as good as many.
    orders: Option<SyncSender<()>>,
    handle: Option<JoinHandle<()>>,
}

impl Fencing {
    /// `outputs`: the topics that every instance writes to.
    ///
    /// # Errors
    /// `Unavailable` when the system gives no more threads.
    pub(super) fn start(
        name: &str,
        own_process: String,
        outputs: Arc<[Arc<str>]>,
        mut offsets: Box<dyn GroupOffsets>,
    ) -> Result<Fencing> {
        let (sender, orders) = sync_channel(1);
        let body = move || {
            let mut fence = || offsets.fence_the_gone(&own_process, &outputs);
            while orders.recv().is_ok() && look(&mut fence, &orders) == Next::Wait {}
        };
        let handle = Builder::new().name(name.to_owned()).spawn(body).map_err(|error| {
            Error::new(ErrorKind::Unavailable, format!("could not start thread {name}")).with_source(error)
        })?;
        Ok(Fencing { orders: Some(sender), handle: Some(handle) })
    }

    /// The group has changed: somebody may be gone.
    pub(super) fn look(&self) {
        if let Some(orders) = &self.orders {
            // One that is waiting already looks late enough.
            let _ = orders.try_send(());
        }
    }
}

impl Drop for Fencing {
    fn drop(&mut self) {
        self.orders = None;
        if let Some(handle) = self.handle.take() {
            let _ = handle.join();
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    Wait,
    End,
}

/// Until every broker was heard.
fn look(fence: &mut dyn FnMut() -> Result<()>, orders: &Receiver<()>) -> Next {
    for _ in 0..TRIES {
        let error = match fence() {
            Ok(()) => return Next::Wait,
            Err(error) => error,
        };
        if error.kind() != ErrorKind::Unavailable {
            tracing::warn!(
                "what dead processes leave open ends by its transaction timeout only; grant DESCRIBE on the group, and \
                 DESCRIBE and WRITE on transactional ids that begin with the application id: {}",
                error.report()
            );
            return Next::End;
        }
        tracing::debug!("open transactions are looked for again: {}", error.report());
        if orders.recv_timeout(PAUSE) == Err(RecvTimeoutError::Disconnected) {
            return Next::End;
        }
    }
    Next::Wait
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::client::GroupMetadata;
    use crate::record::{OffsetAndMetadata, TopicPartition};

    /// Fails with these errors, one after the other; then not any more.
    #[derive(Clone)]
    struct Brokers {
        failures: Arc<Mutex<Vec<ErrorKind>>>,
        looks: SyncSender<String>,
    }

    impl GroupOffsets for Brokers {
        fn committed(&mut self, _: &[TopicPartition]) -> Result<Vec<Option<OffsetAndMetadata>>> {
            Ok(Vec::new())
        }

        fn commit(&mut self, _: &[(TopicPartition, OffsetAndMetadata)], _: &GroupMetadata) -> Result<()> {
            Ok(())
        }

        fn fence(&mut self, _: &[String], _: &[Arc<str>]) -> Result<()> {
            Ok(())
        }

        fn fence_the_gone(&mut self, own_process: &str, _: &[Arc<str>]) -> Result<()> {
            self.looks.send(own_process.to_owned()).unwrap();
            self.failures.lock().unwrap().pop().map_or(Ok(()), |kind| Err(Error::new(kind, "no")))
        }
    }

    fn start(failures: &[ErrorKind]) -> (Fencing, Receiver<String>) {
        let (looks, heard) = sync_channel(8);
        let brokers = Brokers { failures: Arc::new(Mutex::new(failures.to_vec())), looks };
        (Fencing::start("fencing", "own".to_owned(), Arc::new([]), Box::new(brokers)).unwrap(), heard)
    }

    #[test]
    fn every_change_is_followed_by_a_look_and_one_that_failed_by_another() {
        let (fencing, looks) = start(&[ErrorKind::Unavailable]);
        assert!(looks.try_recv().is_err(), "nothing has changed yet");
        fencing.look();
        assert_eq!([looks.recv().unwrap(), looks.recv().unwrap()], ["own", "own"]);
        fencing.look();
        assert_eq!(looks.recv().unwrap(), "own");
        drop(fencing);
        assert!(looks.recv().is_err(), "its thread has ended");
    }

    #[test]
    fn what_is_denied_is_not_asked_for_again() {
        let (fencing, looks) = start(&[ErrorKind::Invalid]);
        fencing.look();
        looks.recv().unwrap();
        assert!(looks.recv().is_err(), "its thread has ended");
        fencing.look();
    }
}
