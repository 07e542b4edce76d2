//! Between a stream thread and its restorer: orders one way, reports the other, stores both ways.
//!
//! Each stream thread has a restorer, and each restorer a thread and a client, as Java has a state updater for each stream
//! thread: a pair shares nothing with others, ends together, and what has to be said goes through two queues.

use std::any::Any;
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TryRecvError, TrySendError, sync_channel};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use super::clock::Now;
use super::rebalance::close_stores;
use super::restorer::{RestoreOrder, RestoreReport, Restorer};
use super::run_thread::RunThread;
use super::status::enter_own_thread;
use super::stream_thread::Stepped;
use super::supervisor::panicked;
use crate::error::{Error, ErrorKind, Result};

/// Orders that may wait; there are some for each task that comes or goes. Who has more waits for the restorer.
const ORDERS_MAX: usize = 1024;

/// Reports that may wait. A restorer with more to say does nothing else until they are heard.
const REPORTS_MAX: usize = 1024;

/// The pause in which more comes up for standbys, or after which something is tried again: an order ends it.
const PAUSE: Duration = Duration::from_millis(50);

/// The same where there is nothing to do but for an order.
const PAUSE_WITHOUT_WORK: Duration = Duration::from_secs(10);

type Wake = Arc<dyn Fn() + Send + Sync>;

/// A restorer, as its stream thread sees it.
pub(super) enum RestoreLink {
    /// It works when it is told to: before its thread is there, and in simulations.
    InTurn {
        restorer: Box<Restorer>,
        orders: VecDeque<RestoreOrder>,
    },
    OnThread(OnThread),
    Closed,
}

pub(super) struct OnThread {
    /// Without them the thread ends as it is.
    orders: Option<SyncSender<Told>>,
    reports: Receiver<RestoreReport>,
    thread: Option<JoinHandle<()>>,
}

enum Told {
    Order(Box<RestoreOrder>),
    Close,
}

impl RestoreLink {
    pub(super) fn new(restorer: Restorer) -> RestoreLink {
        RestoreLink::InTurn { restorer: Box::new(restorer), orders: VecDeque::new() }
    }

    /// Gives the restorer a thread of its own. `wake` wakes its stream thread.
    ///
    /// # Errors
    /// `Unavailable` when there is no thread to have.
    pub(super) fn start(&mut self, name: &str, wake: Wake) -> Result<()> {
        let RestoreLink::InTurn { mut restorer, orders: given } = std::mem::replace(self, RestoreLink::Closed) else {
            return Ok(());
        };
        let runs = if restorer.has_disk() { Some(RunThread::start(&format!("{name}-runs"))?) } else { None };
        runs.iter().for_each(|runs| restorer.set_work_queue(runs.queue()));
        let (orders, told) = sync_channel(ORDERS_MAX);
        let (say, reports) = sync_channel(REPORTS_MAX);
        let owned = name.to_owned();
        let body = move || {
            enter_own_thread();
            let _entered = tracing::info_span!("restore-thread", name = owned).entered();
            let mut worker = Worker { restorer: *restorer, orders: told, reports: say, wake, _runs: runs };
            let result = catch_unwind(AssertUnwindSafe(|| worker.run()));
            if let Err(panic) = result {
                worker.fail(&owned, &*panic);
            }
        };
        let thread = Builder::new().name(name.to_owned()).spawn(body).map_err(|error| {
            Error::new(ErrorKind::Unavailable, format!("could not start thread {name}")).with_source(error)
        })?;
        *self = RestoreLink::OnThread(OnThread { orders: Some(orders), reports, thread: Some(thread) });
        given.into_iter().for_each(|order| self.order(order));
        Ok(())
    }

    /// Waits when there are too many.
    pub(super) fn order(&mut self, order: RestoreOrder) {
        match self {
            RestoreLink::InTurn { orders, .. } => orders.push_back(order),
            RestoreLink::OnThread(link) => link.tell(Told::Order(Box::new(order))),
            RestoreLink::Closed => {}
        }
    }

    /// What there is to hear, if anything.
    pub(super) fn report(&mut self) -> Option<RestoreReport> {
        match self {
            RestoreLink::InTurn { restorer, .. } => restorer.report(),
            RestoreLink::OnThread(link) => match link.reports.try_recv() {
                Ok(report) => Some(report),
                Err(TryRecvError::Empty) => None,
                Err(TryRecvError::Disconnected) => Some(RestoreReport::Failed(has_ended())),
            },
            RestoreLink::Closed => None,
        }
    }

    /// Obeys and works, where there is no thread for it.
    #[cfg(all(test, feature = "testing"))]
    pub(super) fn step(&mut self) {
        if let RestoreLink::InTurn { restorer, orders } = self {
            orders.drain(..).for_each(|order| restorer.order(order));
            restorer.step(Now::read());
        }
    }

    /// Everything that is restored or kept is closed, and the thread has ended.
    pub(super) fn close(&mut self) {
        match std::mem::replace(self, RestoreLink::Closed) {
            RestoreLink::InTurn { mut restorer, orders } => {
                orders.into_iter().for_each(|order| restorer.order(order));
                restorer.close();
            }
            RestoreLink::OnThread(mut link) => {
                link.tell(Told::Close);
                link.join();
                // On their way when it ended.
                while let Ok(report) = link.reports.try_recv() {
                    if let RestoreReport::Restored { task, stores, .. } = report {
                        close_stores(task, *stores);
                    }
                }
            }
            RestoreLink::Closed => {}
        }
    }
}

impl OnThread {
    fn tell(&self, told: Told) {
        // If it has ended, the next report says so; stores that were on their way are closed with the order.
        let _ = self.orders.as_ref().map(|orders| orders.send(told));
    }

    fn join(&mut self) {
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("a restore thread has panicked outside of its work");
        }
    }
}

impl Drop for OnThread {
    /// After an end as it should be there is no thread any more.
    fn drop(&mut self) {
        self.orders = None;
        self.join();
    }
}

struct Worker {
    restorer: Restorer,
    orders: Receiver<Told>,
    reports: SyncSender<RestoreReport>,
    /// Wakes the stream thread.
    wake: Wake,
    /// Ends last: until then stores may wait for it.
    _runs: Option<RunThread>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    GoOn,
    End,
}

impl Worker {
    fn run(&mut self) {
        loop {
            if self.obey() == Next::End {
                return;
            }
            let stepped = self.restorer.step(Now::read());
            self.say();
            if stepped == Stepped::Idle && self.wait() == Next::End {
                return;
            }
        }
    }

    fn obey(&mut self) -> Next {
        loop {
            match self.orders.try_recv() {
                Ok(told) => {
                    if self.take(told) == Next::End {
                        return Next::End;
                    }
                }
                Err(TryRecvError::Empty) => return Next::GoOn,
                Err(TryRecvError::Disconnected) => return Next::End,
            }
        }
    }

    fn take(&mut self, told: Told) -> Next {
        match told {
            Told::Order(order) => {
                self.restorer.order(*order);
                Next::GoOn
            }
            Told::Close => {
                self.restorer.close();
                Next::End
            }
        }
    }

    fn say(&mut self) {
        let mut has_said = false;
        while let Some(report) = self.restorer.report() {
            match self.reports.try_send(report) {
                Ok(()) => has_said = true,
                Err(TrySendError::Full(report) | TrySendError::Disconnected(report)) => {
                    self.restorer.put_back(report);
                    break;
                }
            }
        }
        if has_said {
            (self.wake)();
        }
    }

    /// Waits for records that a task waits for, or else for an order.
    fn wait(&mut self) -> Next {
        if self.restorer.wait() {
            return Next::GoOn;
        }
        match self.orders.recv_timeout(if self.restorer.is_empty() { PAUSE_WITHOUT_WORK } else { PAUSE }) {
            Ok(told) => self.take(told),
            Err(RecvTimeoutError::Timeout) => Next::GoOn,
            Err(RecvTimeoutError::Disconnected) => Next::End,
        }
    }

    /// Without room for another report, the end of the thread says as much.
    fn fail(&self, name: &str, panic: &(dyn Any + Send)) {
        let _ = self.reports.try_send(RestoreReport::Failed(panicked(&format!("thread {name}"), panic)));
        (self.wake)();
    }
}

#[cold]
fn has_ended() -> Error {
    Error::new(ErrorKind::Internal, "the thread that restores stores has ended")
}
