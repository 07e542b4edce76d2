//! Starts the threads, hears what becomes of them, and makes the client's state of it.

use std::any::Any;
use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError};
use std::sync::{Arc, PoisonError};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use super::application::Application;
use super::clock::Now;
use super::control::{FAREWELL_INTERVAL, Farewell, Pulse, Reply};
use super::global_thread::GlobalThread;
use super::group;
use super::group_thread::GroupThread;
use super::start;
use super::state::State;
use super::status::{Status, enter_own_thread};
use super::stream_thread::{Order, Orders, Phase, StreamThread};
use super::topic_watch::TopicWatch;
use crate::error::{Error, ErrorKind, Result};
use crate::membership::LeaveMode;
use crate::metrics::ClientMetrics;

/// What a thread or the user tells the supervisor.
pub(super) enum Event {
    Phase {
        thread: usize,
        phase: Phase,
    },
    Ended {
        thread: usize,
        result: Result<()>,
    },
    /// Global stores may be read.
    GlobalsReady,
    GlobalEnded {
        result: Result<()>,
    },
    /// Hands over for at most so long, where the group is left, and closes.
    Close(Order, Duration),
    AddThread(Reply),
    RemoveThread(Reply),
}

/// What to do about an error that ends a stream thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum UncaughtErrorResponse {
    /// Start another thread in its place, which reads again from the last commit. A record that fails every time fails
    /// again: the pause between two replacements grows up to 10 s.
    ReplaceThread,
    /// Close the client, which ends in the state `ERROR`. The default.
    ShutdownClient,
    /// Close every instance of the application: all end in the state `ERROR`. For what no instance could go on after. With
    /// [`GroupProtocol::Range`](crate::GroupProtocol::Range), which has no word for it, this one alone.
    ShutdownApplication,
}

pub(super) type ErrorPolicy = Arc<dyn Fn(&Error) -> UncaughtErrorResponse + Send + Sync>;

/// How many events may wait: more than every thread can have on its way.
pub(super) const EVENTS_MAX: usize = 1024;

/// How often stores on disk are looked at for a flush.
const HOUSEKEEPING_INTERVAL: Duration = Duration::from_secs(1);

pub(super) const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(10);

/// A thread that has lived so long has not failed for the same reason again.
const PAUSE_FORGOTTEN: Duration = Duration::from_secs(60);

pub(super) struct Supervisor {
    pub app: Arc<Application>,
    pub status: Arc<Status>,
    policy: ErrorPolicy,
    events: SyncSender<Event>,
    pub threads: Vec<Supervised>,
    /// The numbers of the threads that there shall be.
    pub wanted: BTreeSet<usize>,
    /// The thread that fills global stores: it begins before the others and ends after them.
    global: Option<(JoinHandle<()>, Arc<Orders>)>,
    /// The process's member of the group; none: each thread is one.
    pub group: Option<Arc<GroupThread>>,
    /// Whether stream threads may run: what has to be first is done.
    pub has_begun: bool,
    /// The order that every thread has got.
    pub closing: Option<Order>,
    /// What comes before it.
    pub farewell: Option<Farewell>,
    pub last_pulse: Now,
    last_purge: Now,
    last_flush: Now,
    last_cleanup: Now,
    last_look: Now,
    pub topics: TopicWatch,
    metrics: ClientMetrics,
}

pub(super) struct Supervised {
    pub index: usize,
    handle: Option<JoinHandle<()>>,
    pub orders: Arc<Orders>,
    pub pulse: Pulse,
    /// Waits for its end.
    pub removal: Option<Reply>,
    phase: Phase,
    started: Now,
    /// Before the next replacement.
    pause: Duration,
}

impl Supervised {
    pub(super) fn unpark(&self) {
        if let Some(handle) = &self.handle {
            handle.thread().unpark();
        }
    }
}

impl Supervisor {
    pub(super) fn new(
        app: Arc<Application>,
        status: Arc<Status>,
        policy: ErrorPolicy,
        events: SyncSender<Event>,
    ) -> Supervisor {
        let now = Now::read();
        let metrics = ClientMetrics::new(&app.own_client_id());
        let wanted = (1..=app.config.threads).collect();
        status.measure(metrics.client_state.clone());
        Supervisor {
            app,
            status,
            policy,
            events,
            threads: Vec::new(),
            wanted,
            global: None,
            group: None,
            has_begun: false,
            closing: None,
            farewell: None,
            last_pulse: now,
            last_purge: now,
            last_flush: now,
            last_cleanup: now,
            last_look: now,
            topics: TopicWatch::new(now),
            metrics,
        }
    }

    /// Starts what has to be first: the stream threads, unless there are global stores, which they would not find filled.
    ///
    /// # Errors
    /// `Unavailable` when the system gives no more threads.
    pub(super) fn begin(&mut self) -> Result<()> {
        if self.app.topology.globals().is_empty() { self.start_threads() } else { self.start_global() }
    }

    fn start_global(&mut self) -> Result<()> {
        let orders = Arc::new(Orders::default());
        let (app, events, given) = (Arc::clone(&self.app), self.events.clone(), Arc::clone(&orders));
        let name = format!("{}-global", self.app.own_client_id());
        let body = move || {
            enter_own_thread();
            let _entered = tracing::info_span!("global-thread", application = app.id()).entered();
            let work = || -> Result<()> {
                let Some(thread) = GlobalThread::open(&app, &given)? else { return Ok(()) };
                thread.run(|| {
                    // As with the end of a thread: without a supervisor there is nobody to tell.
                    let _ = events.send(Event::GlobalsReady);
                })
            };
            let result = catch_unwind(AssertUnwindSafe(work));
            let result = result.unwrap_or_else(|panic| Err(panicked("the global thread", &*panic)));
            let _ = events.send(Event::GlobalEnded { result });
        };
        let handle = Builder::new().name(name.clone()).spawn(body).map_err(|error| {
            Error::new(ErrorKind::Unavailable, format!("could not start thread {name}")).with_source(error)
        })?;
        self.global = Some((handle, orders));
        Ok(())
    }

    fn globals_ready(&mut self) {
        if self.closing.is_some() {
            return;
        }
        tracing::info!("the global stores are up to date");
        if let Err(error) = self.start_threads() {
            self.give_up(error, Order::Leave);
        }
    }

    fn global_ended(&mut self, result: Result<()>) {
        if let Some((handle, _)) = self.global.take() {
            // What it panicked with was told in its last event.
            let _ = handle.join();
        }
        if let Err(error) = result {
            tracing::error!("the global thread ends: {}", error.report());
            self.app.set_globals(None);
            self.give_up(error, Order::Leave);
        }
    }

    /// Starts the stream threads that are not there.
    ///
    /// # Errors
    /// `Unavailable` when the system gives no more threads.
    fn start_threads(&mut self) -> Result<()> {
        self.has_begun = true;
        self.tell_what_it_waits_for();
        if self.has_no_topics() {
            // There is nothing but global stores, and they are up to date; or nothing yet.
            self.status.advance(State::Running);
            return Ok(());
        }
        if self.group.is_none() {
            self.group = group::start(&self.app)?.map(Arc::new);
        }
        for index in self.wanted.clone() {
            if self.threads.iter().all(|thread| thread.index != index) {
                self.start_thread(index, Duration::ZERO, PAUSE_MIN)?;
            }
        }
        Ok(())
    }

    pub(super) fn has_no_topics(&self) -> bool {
        self.app.layout.topics().is_empty()
    }

    /// Whether topics may come that match a pattern, as in Java: nothing is wrong, and there is nothing to do.
    fn waits_for_topics(&self) -> bool {
        self.closing.is_none() && self.app.topology.has_patterns() && self.has_no_topics()
    }

    fn tell_what_it_waits_for(&self) {
        let patterns = self.app.topology.unmatched_patterns();
        if !patterns.is_empty() {
            let patterns: Vec<_> = patterns.iter().map(ToString::to_string).collect();
            let interval = self.app.config.metadata_max_age;
            tracing::warn!(
                "no topic matches the pattern {} yet: what reads it waits until one is there (looked for every \
                 {interval:?}, Config::metadata_max_age)",
                patterns.join(" or ")
            );
        }
    }

    /// Whether its user has removed every thread, and may add others.
    fn waits_for_threads(&self) -> bool {
        self.closing.is_none() && self.wanted.is_empty()
    }

    /// Until every thread has ended.
    pub(super) fn run(mut self, events: &Receiver<Event>) {
        enter_own_thread();
        let waits = |own: &Supervisor| own.waits_for_topics() || own.waits_for_threads();
        while !self.threads.is_empty() || self.global.is_some() || self.farewell.is_some() || waits(&self) {
            let interval = if self.farewell.is_some() { FAREWELL_INTERVAL } else { HOUSEKEEPING_INTERVAL };
            match events.recv_timeout(interval) {
                Ok(Event::Phase { thread, phase }) => self.phase_changed(thread, phase),
                Ok(Event::Ended { thread, result }) => self.ended(thread, result),
                Ok(Event::GlobalsReady) => self.globals_ready(),
                Ok(Event::GlobalEnded { result }) => self.global_ended(result),
                Ok(Event::Close(order, patience)) => {
                    self.status.advance(State::PendingShutdown);
                    self.say_farewell(order, patience);
                }
                Ok(Event::AddThread(reply)) => self.add_thread(&reply),
                Ok(Event::RemoveThread(reply)) => self.remove_thread(reply),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => self.close(Order::Leave),
            }
            self.end_farewell();
            self.end_global();
            self.keep_house();
        }
        self.end_membership();
        // One of the two is next, whichever the client was closing for.
        self.status.advance(State::NotRunning);
        self.status.advance(State::Error);
    }

    pub(super) fn start_thread(&mut self, index: usize, delay: Duration, pause: Duration) -> Result<()> {
        let orders = Arc::new(Orders::default());
        if let Some(order) = self.closing {
            orders.give(order);
        }
        let (app, events, given) = (Arc::clone(&self.app), self.events.clone(), Arc::clone(&orders));
        let group = self.group.clone();
        let name = self.app.thread_name(index);
        let body = move || {
            enter_own_thread();
            let result = catch_unwind(AssertUnwindSafe(|| work(&app, group.as_deref(), index, delay, given, &events)));
            let result =
                result.unwrap_or_else(|panic| Err(panicked(&format!("thread {}", app.thread_name(index)), &*panic)));
            // The supervisor outlives its threads; should it be gone, there is nobody to tell.
            let _ = events.send(Event::Ended { thread: index, result });
        };
        let handle = Builder::new().name(name.clone()).spawn(body).map_err(|error| {
            Error::new(ErrorKind::Unavailable, format!("could not start thread {name}")).with_source(error)
        })?;
        self.threads.push(Supervised {
            index,
            handle: Some(handle),
            orders,
            pulse: Pulse::new(),
            removal: None,
            phase: Phase::Rebalancing,
            started: Now::read(),
            pause,
        });
        self.metrics.alive_stream_threads.set(self.threads.len() as f64);
        Ok(())
    }

    fn phase_changed(&mut self, thread: usize, phase: Phase) {
        if let Some(thread) = self.threads.iter_mut().find(|known| known.index == thread) {
            thread.phase = phase;
        }
        self.tell_state();
    }

    pub(super) fn tell_state(&self) {
        if self.closing.is_some() || self.threads.is_empty() {
            return;
        }
        let is_running = self.threads.iter().all(|thread| thread.phase == Phase::Running);
        self.status.advance(if is_running { State::Running } else { State::Rebalancing });
    }

    fn ended(&mut self, thread: usize, result: Result<()>) {
        let Some(at) = self.threads.iter().position(|known| known.index == thread) else { return };
        let mut ended = self.threads.swap_remove(at);
        self.app.board.threads().remove(&thread);
        self.forget_pulse(&ended);
        self.metrics.alive_stream_threads.set(self.threads.len() as f64);
        if let Some(handle) = ended.handle.take() {
            // What it panicked with was told in its last event.
            let _ = handle.join();
        }
        let is_removed = self.closing.is_none() && !self.wanted.contains(&thread);
        let Err(error) = result else {
            if is_removed {
                self.removed(&ended);
            } else if self.closing.is_none() {
                // It has ended for the sake of other topics.
                let started = match self.has_no_topics() {
                    true if self.threads.is_empty() => self.start_threads(),
                    true => Ok(()),
                    false => self.start_thread(thread, Duration::ZERO, PAUSE_MIN),
                };
                started.unwrap_or_else(|error| self.give_up(error, Order::Leave));
            }
            return;
        };
        self.metrics.failed_stream_threads.increment(1);
        let name = self.app.thread_name(thread);
        if self.app.crash_point.has_crashed() {
            tracing::error!("{}", error.report());
            self.give_up(error, Order::Crash);
            return;
        }
        tracing::error!(thread = name, "a stream thread ends: {}", error.report());
        if is_removed {
            return self.removed(&ended);
        }
        if self.closing.is_some() {
            return;
        }
        let response = match error.kind() {
            // Another thread would find the same program and the same settings.
            ErrorKind::Invalid => UncaughtErrorResponse::ShutdownClient,
            ErrorKind::Unavailable
            | ErrorKind::Fenced
            | ErrorKind::Aborted
            | ErrorKind::Corrupted
            | ErrorKind::User
            | ErrorKind::Closed
            | ErrorKind::Internal => self.ask_policy(&error),
        };
        match response {
            UncaughtErrorResponse::ShutdownClient => self.give_up(error, Order::Leave),
            UncaughtErrorResponse::ShutdownApplication => self.shut_down_application(error),
            UncaughtErrorResponse::ReplaceThread => {
                let lived = Now::read().since(ended.started);
                let pause = if lived > PAUSE_FORGOTTEN { PAUSE_MIN } else { ended.pause };
                tracing::info!(thread = name, "a new thread takes its place in {} ms", pause.as_millis());
                if let Err(error) = self.start_thread(thread, pause, (pause * 2).min(PAUSE_MAX)) {
                    self.give_up(error, Order::Leave);
                }
                self.tell_state();
            }
        }
    }

    fn ask_policy(&self, error: &Error) -> UncaughtErrorResponse {
        catch_unwind(AssertUnwindSafe(|| (self.policy)(error))).unwrap_or_else(|_| {
            tracing::error!("the policy for uncaught errors panicked: the client is closed");
            UncaughtErrorResponse::ShutdownClient
        })
    }

    pub(super) fn give_up(&mut self, error: Error, order: Order) {
        self.status.fail(error);
        self.status.advance(State::Rebalancing);
        self.status.advance(State::PendingError);
        self.close(order);
    }

    pub(super) fn close(&mut self, order: Order) {
        self.farewell = None;
        self.closing.get_or_insert(order);
        if let Some(group) = &self.group {
            group.stop_placing();
        }
        self.tell_threads(order);
    }

    fn tell_threads(&self, order: Order) {
        for thread in &self.threads {
            thread.orders.give(order);
            thread.unpark();
        }
    }

    /// When the stream threads have closed everything.
    fn end_membership(&mut self) {
        let Some(group) = self.group.take() else { return };
        let leaves = self.closing.is_none_or(|order| self.leaves(order));
        group.close(if leaves { LeaveMode::Leave } else { LeaveMode::Stay });
    }

    /// The stream threads read global stores until they have ended.
    fn end_global(&self) {
        if let (Some(order), Some((handle, orders)), true) = (self.closing, &self.global, self.threads.is_empty()) {
            orders.give(order);
            handle.thread().unpark();
        }
    }

    fn keep_house(&mut self) {
        let now = Now::read();
        self.feel_pulses(now);
        self.purge_if_due(now);
        self.look_for_topics(now);
        self.watch_topics(now);
        if now.since(self.last_flush) >= HOUSEKEEPING_INTERVAL {
            self.last_flush = now;
            if let Err(error) = self.app.memory.flush_if_due(now.wall_ms) {
                tracing::warn!("could not write stores to disk, their changelogs have it: {}", error.report());
            }
        }
        let delay = self.app.config.state_cleanup_delay;
        if now.since(self.last_cleanup) >= delay.max(HOUSEKEEPING_INTERVAL) {
            self.last_cleanup = now;
            let unused = self.app.directory.as_ref().map(|directory| directory.remove_unused(now.system_time(), delay));
            if let Some(Err(error)) = unused {
                tracing::warn!("could not remove the state of tasks that have moved away: {}", error.report());
            }
        }
    }

    /// Topics may have come that match a pattern, or have gone: then every thread begins again with them.
    fn look_for_topics(&mut self, now: Now) {
        let is_due = now.since(self.last_look) >= self.app.config.metadata_max_age;
        if !is_due || !self.app.topology.has_patterns() || self.closing.is_some() {
            return;
        }
        self.last_look = now;
        match start::with_new_topics(&self.app) {
            Ok(None) => {}
            Ok(Some(app)) => {
                self.app = app;
                if let Some(group) = &self.group {
                    group.begin_again(self.app.layout.topics(), group::assignor(&self.app));
                }
                self.tell_threads(Order::Leave);
                if self.has_begun && !self.has_no_topics() {
                    self.start_threads().unwrap_or_else(|error| self.give_up(error, Order::Leave));
                }
            }
            Err(error) => tracing::warn!("could not go on with other topics: {}", error.report()),
        }
    }

    /// Deletes from repartition topics what nobody will read again. A failure only costs disk: the next time is soon.
    fn purge_if_due(&mut self, now: Now) {
        if now.since(self.last_purge) < self.app.config.repartition_purge_interval {
            return;
        }
        self.last_purge = now;
        let purgeable = std::mem::take(&mut *self.app.purgeable.lock().unwrap_or_else(PoisonError::into_inner));
        let before: Vec<_> = purgeable.into_iter().collect();
        if before.is_empty() {
            return;
        }
        if let Err(error) = self.app.with_admin(|admin| admin.delete_records(&before)) {
            tracing::warn!("could not purge repartition topics: {}", error.report());
        }
    }
}

/// The life of a stream thread.
fn work(
    app: &Arc<Application>,
    group: Option<&GroupThread>,
    index: usize,
    delay: Duration,
    orders: Arc<Orders>,
    events: &SyncSender<Event>,
) -> Result<()> {
    let begun = Now::read();
    while orders.current() == Order::GoOn && Now::read().since(begun) < delay {
        std::thread::park_timeout(delay.saturating_sub(Now::read().since(begun)));
    }
    let span = tracing::info_span!("stream-thread", application = app.id(), thread = index);
    let _entered = span.entered();
    let events = events.clone();
    // A phase that does not fit among the others is followed by a newer one.
    let report = move |phase| match events.try_send(Event::Phase { thread: index, phase }) {
        Ok(()) | Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {}
    };
    match StreamThread::connect(Arc::clone(app), index, group, orders, Box::new(report))? {
        Some(thread) => thread.run(),
        None => Ok(()),
    }
}

pub(super) fn panicked(thread: &str, panic: &(dyn Any + Send)) -> Error {
    let message = panic.downcast_ref::<String>().map(String::as_str);
    let message = message.or(panic.downcast_ref::<&str>().copied()).unwrap_or("no message");
    Error::new(ErrorKind::Internal, format!("{thread} panicked: {message}"))
}
