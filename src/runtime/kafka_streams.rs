//! The client: what an application starts, watches and closes.

use std::fmt;
use std::future::Future;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use super::application::RestoreListener;
use super::board::Board;
use super::calls::ConcurrentCalls;
use super::lags::StoreLag;
use super::restore_event::RestoreEvent;
use super::start;
use super::state::State;
use super::status::{Status, is_own_thread};
use super::stream_thread::Order;
use super::supervisor::{EVENTS_MAX, ErrorPolicy, Event, Supervisor, UncaughtErrorResponse};
use crate::config::Config;
use crate::error::{Error, ErrorKind, Result};
use crate::state::IdleState;
use crate::task::try_makers;
use crate::topology::{Optimization, TaskEnvironment, TaskId, Topology};

/// Runs a topology: Java's `KafkaStreams`.
///
/// ```
/// use kstreams::{Config, Consumed, EmbeddedCluster, KafkaStreams, Produced, TopologyBuilder, Utf8};
///
/// # fn main() -> kstreams::Result<()> {
/// let cluster = EmbeddedCluster::new();
/// cluster.create_topic("in", 2)?;
/// cluster.create_topic("out", 2)?;
///
/// let mut builder = TopologyBuilder::new();
/// builder.add_source("source", &["in"], Consumed::with(Utf8, Utf8));
/// builder.add_sink("sink", "out", Produced::with(Utf8, Utf8), &["source"]);
///
/// let streams = KafkaStreams::new(builder.build()?, Config::new("copy", "embedded://").cluster(&cluster))?
///     .on_state_change(|new, old| println!("{old} -> {new}"));
/// streams.start()?;
/// streams.close(std::time::Duration::from_secs(10))?;
/// # Ok(())
/// # }
/// ```
///
/// A service rather gives its main task away: see [`run_until_signal`](KafkaStreams::run_until_signal).
#[must_use]
pub struct KafkaStreams {
    topology: Topology,
    pub(super) config: Config,
    pub(super) status: Arc<Status>,
    pub(super) board: Arc<Board>,
    policy: ErrorPolicy,
    restore_listener: Option<RestoreListener>,
    running: Mutex<Option<Running>>,
}

/// There from the first moment of a start, so that a client that is starting can be closed.
struct Running {
    events: SyncSender<Event>,
    supervisor: Option<JoinHandle<()>>,
}

/// How a client is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub struct CloseOptions {
    timeout: Option<Duration>,
    hand_over: Option<Duration>,
    order: Order,
}

/// How long tasks are handed over when there is no timeout: what is told to end by a signal is often killed 30 s later.
const HAND_OVER_MAX: Duration = Duration::from_secs(20);

/// How long [`Drop`] waits for the threads.
const DROP_TIMEOUT: Duration = Duration::from_secs(30);

/// Waits until everything is closed.
///
/// With [`GroupProtocol::Sticky`](crate::GroupProtocol::Sticky) an instance that can come back as the same one, by its
/// state directory or [`group_instance_id`](Config::group_instance_id), stays a member until its session times out, as in
/// Java: restarted in time, it finds its tasks as it left them, and no other instance notices. Any other one leaves the
/// group, and others get its tasks at once; so does every one with
/// [`GroupProtocol::Range`](crate::GroupProtocol::Range).
impl Default for CloseOptions {
    fn default() -> CloseOptions {
        CloseOptions { timeout: None, hand_over: None, order: Order::Close }
    }
}

impl CloseOptions {
    /// Waits at most so long; what is not closed then is closed in the background. With zero it does not wait.
    pub fn timeout(self, timeout: Duration) -> CloseOptions {
        CloseOptions { timeout: Some(timeout), ..self }
    }

    /// Leaves the group: for an instance that does not come back. The tasks go on here until other instances have what
    /// they need to go on with them (see [`hand_over`](CloseOptions::hand_over)), and then move at once.
    pub fn leave_group(self) -> CloseOptions {
        CloseOptions { order: Order::Leave, ..self }
    }

    /// How long an instance that leaves the group goes on while others warm up what it has: three quarters of the timeout,
    /// or 20 s without one. With zero it leaves at once, and the others restore what they do not have. Counts with
    /// [`GroupProtocol::Sticky`](crate::GroupProtocol::Sticky); what others have already is handed over in no time.
    ///
    /// # Examples
    /// ```no_run
    /// # use std::time::Duration;
    /// # fn scale_in(streams: &kstreams::KafkaStreams) -> kstreams::Result<()> {
    /// let options = kstreams::CloseOptions::default().leave_group().hand_over(Duration::from_secs(300));
    /// streams.close(options)
    /// # }
    /// ```
    pub fn hand_over(self, at_most: Duration) -> CloseOptions {
        CloseOptions { hand_over: Some(at_most), ..self }
    }

    /// Stays a member of the group until the session times out: a client that comes back in time with the same
    /// [`group_instance_id`](Config::group_instance_id) finds its tasks as it left them.
    pub fn stay_in_group(self) -> CloseOptions {
        CloseOptions { order: Order::Stay, ..self }
    }
}

impl From<Duration> for CloseOptions {
    fn from(timeout: Duration) -> CloseOptions {
        CloseOptions::default().timeout(timeout)
    }
}

impl KafkaStreams {
    /// A client that is not started yet.
    ///
    /// # Errors
    /// `Invalid`, naming what is wrong with the topology or the settings.
    pub fn new(topology: Topology, config: Config) -> Result<KafkaStreams> {
        config.check()?;
        let topology = topology.with_default_engine(config.default_engine);
        if topology.nodes().next().is_none() {
            return Err(Error::invalid("the topology is empty: add a source at least"));
        }
        if config.require_names {
            topology.refuse_generated_names()?;
        }
        if config.optimization != Optimization::none() && topology.optimization() != config.optimization {
            // As in Java it is the build that optimises; unlike there, somebody is told.
            tracing::warn!(
                "topology.optimization is set, but the topology was built without it: build it with \
                 StreamsBuilder::build_with and the same configuration"
            );
        }
        let trial = TaskEnvironment {
            application_id: config.application_id().into(),
            task: TaskId { sub_topology: 0, partition: 0 },
            handlers: config.handlers.clone(),
            partition_counts: Arc::new(|_| Ok(1)),
            calls: Arc::new(ConcurrentCalls::default()),
            outer_join_emit_interval: config.outer_join_emit_interval,
            upgrade_from: config.upgrade_from,
            window_emit_interval: config.window_emit_interval,
            app_settings: Arc::clone(&config.app_settings),
            state_dir: config.application_dir(),
        };
        try_makers(&topology, &trial)?;
        Ok(KafkaStreams {
            topology,
            config,
            status: Arc::new(Status::new()),
            board: Arc::default(),
            policy: Arc::new(|_| UncaughtErrorResponse::ShutdownClient),
            restore_listener: None,
            running: Mutex::new(None),
        })
    }

    /// Tells every change of state: the new one, the old one. Called on a thread of the library.
    pub fn on_state_change(self, listener: impl Fn(State, State) + Send + Sync + 'static) -> KafkaStreams {
        self.status.listen(Box::new(listener));
        self
    }

    /// Decides what becomes of the client when an error ends one of its threads; by default it closes. An error of kind
    /// `Invalid` closes it in any case.
    pub fn on_uncaught_error(
        mut self,
        policy: impl Fn(&Error) -> UncaughtErrorResponse + Send + Sync + 'static,
    ) -> KafkaStreams {
        self.policy = Arc::new(policy);
        self
    }

    /// Tells how stores are restored. Called on the thread that restores, which waits for it; tasks that run do not.
    pub fn on_restore(mut self, listener: impl Fn(&RestoreEvent) + Send + Sync + 'static) -> KafkaStreams {
        self.restore_listener = Some(Arc::new(listener));
        self
    }

    /// What the client is doing.
    pub fn state(&self) -> State {
        self.status.current()
    }

    /// What will run, as it was given.
    pub fn topology(&self) -> &Topology {
        &self.topology
    }

    /// Records taken from source and repartition topics so far, by all threads.
    pub fn processed_total(&self) -> u64 {
        self.board.processed()
    }

    /// How far the stores of this instance that are not in use yet are behind their changelogs, by name and partition:
    /// those of standbys, and those that are being restored. The stores of a task that runs lack nothing.
    ///
    /// # Examples
    /// ```no_run
    /// # fn show(streams: &kstreams::KafkaStreams) {
    /// for store in streams.lags() {
    ///     println!("{} {}: {} records behind", store.store, store.partition, store.lag());
    /// }
    /// # }
    /// ```
    pub fn lags(&self) -> Vec<StoreLag> {
        self.board.lags.of_stores()
    }

    /// Stops processing, punctuation, standbys and restoring in this instance, as Java does it (KIP-834), until
    /// [`resume`](KafkaStreams::resume). What has been processed is committed; the instance stays in the group, keeps its
    /// tasks and takes others. One that begins or takes tasks meanwhile is
    /// `REBALANCING` until it goes on. Global stores are read on. A client may be paused before it starts.
    ///
    /// # Examples
    /// ```no_run
    /// # fn maintain(streams: &kstreams::KafkaStreams) {
    /// streams.pause();
    /// // … while the service that the processors call is being upgraded …
    /// streams.resume();
    /// # }
    /// ```
    pub fn pause(&self) {
        self.board.set_paused(true);
    }

    /// Goes on after [`pause`](KafkaStreams::pause), within a tenth of a second.
    pub fn resume(&self) {
        self.board.set_paused(false);
    }

    /// Whether the client was told to pause.
    pub fn is_paused(&self) -> bool {
        self.board.is_paused()
    }

    /// The error that has ended the client, once.
    pub fn take_error(&self) -> Option<Error> {
        self.status.take_error()
    }

    /// Asks the cluster about the topics, creates internal ones, and starts the threads. Blocks until the cluster has
    /// answered, not until the tasks run: that is [`State::Running`].
    ///
    /// # Errors
    /// `Invalid`: a topic is missing or its partitions do not fit; the message names it and the remedy. `Unavailable`: no
    /// broker answers. `Closed`: the client was started before.
    pub fn start(&self) -> Result<()> {
        let (sender, receiver) = sync_channel(EVENTS_MAX);
        let mut running = self.running();
        if running.is_some() || self.state() != State::Created {
            let context = format!("the client cannot be started in the state {}: make a new one", self.state());
            return Err(Error::new(ErrorKind::Closed, context));
        }
        *running = Some(Running { events: sender.clone(), supervisor: None });
        drop(running);
        self.status.advance(State::Rebalancing);
        match self.start_supervisor(sender, receiver) {
            Ok(handle) => {
                if let Some(running) = &mut *self.running() {
                    running.supervisor = Some(handle);
                }
                Ok(())
            }
            Err(error) => {
                self.status.advance(State::PendingError);
                self.status.advance(State::Error);
                Err(error)
            }
        }
    }

    fn running(&self) -> MutexGuard<'_, Option<Running>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether there is one to be told.
    pub(super) fn tell_supervisor(&self, event: Event) -> bool {
        self.running().as_ref().is_some_and(|running| running.events.try_send(event).is_ok())
    }

    fn start_supervisor(&self, sender: SyncSender<Event>, receiver: Receiver<Event>) -> Result<JoinHandle<()>> {
        let board = Arc::clone(&self.board);
        let app = start::application(&self.topology, &self.config, self.restore_listener.clone(), board)?;
        let name = format!("{}-supervisor", app.id());
        let mut supervisor = Supervisor::new(app, Arc::clone(&self.status), Arc::clone(&self.policy), sender);
        supervisor.begin()?;
        let supervise = move || supervisor.run(&receiver);
        Builder::new().name(name.clone()).spawn(supervise).map_err(|error| {
            Error::new(ErrorKind::Unavailable, format!("could not start thread {name}")).with_source(error)
        })
    }

    /// Commits, closes every task, and waits: `streams.close(Duration::from_secs(30))`, or with [`CloseOptions`].
    /// Called from a listener or a processor it does not wait.
    ///
    /// # Errors
    /// `Unavailable` when the timeout is over; closing goes on in the background.
    pub fn close(&self, options: impl Into<CloseOptions>) -> Result<()> {
        let CloseOptions { timeout, hand_over, order } = options.into();
        let patience = hand_over.unwrap_or_else(|| timeout.map_or(HAND_OVER_MAX, |timeout| timeout / 4 * 3));
        // IMPORTANT: the lock is not held while waiting, or a listener that closes the client would wait for this one.
        let events = self.running().as_ref().map(|running| running.events.clone());
        let Some(events) = events else {
            if self.status.advance(State::PendingShutdown) {
                self.status.advance(State::NotRunning);
            }
            return Ok(());
        };
        if !self.state().is_terminal() {
            // A supervisor that is gone has closed everything.
            let _ = events.try_send(Event::Close(order, patience));
        }
        if is_own_thread() {
            return Ok(());
        }
        if !self.status.wait_for_end(timeout) {
            let waited = timeout.unwrap_or_default().as_millis();
            let context = format!("the client is not closed after {waited} ms: closing goes on in the background");
            return Err(Error::new(ErrorKind::Unavailable, context));
        }
        let ended = self.running().take();
        if let Some(Running { supervisor: Some(supervisor), .. }) = ended {
            let _ = supervisor.join();
        }
        Ok(())
    }

    /// Deletes the local state of the application in this instance's state directory (Java's `cleanUp`), before it starts or
    /// after it has ended: its stores are restored from their changelogs when it starts again. Topics and offsets stay; to
    /// begin anew altogether there is [`ApplicationReset`](crate::ApplicationReset).
    ///
    /// # Errors
    /// `Invalid`: the client runs. `Unavailable`: another process uses the directory, or something in it cannot be deleted.
    ///
    /// # Examples
    /// ```
    /// # fn main() -> kstreams::Result<()> {
    /// # use kstreams::*;
    /// # let cluster = EmbeddedCluster::new();
    /// # cluster.create_topic("in", 1)?;
    /// # let builder = StreamsBuilder::new();
    /// # builder.stream("in", Consumed::with(Utf8, Utf8)).for_each(|_, _| {});
    /// # let folder = tempfile::tempdir().expect("a folder");
    /// # let config = Config::new("app", "embedded://").cluster(&cluster).state_dir(folder.path());
    /// let streams = KafkaStreams::new(builder.build()?, config)?;
    /// streams.clean_up()?;
    /// streams.start()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn clean_up(&self) -> Result<()> {
        let state = self.state();
        if state != State::Created && !state.is_terminal() {
            return Err(Error::invalid(format!("the state of a client that is {state} is in use: close it first")));
        }
        if state.is_terminal() {
            // The state of its end is told before its last thread has let go of the directory.
            self.close(CloseOptions::default())?;
        }
        let found = IdleState::hold(&self.config.state_dir_or_default(), &self.config.application_id)?;
        found.map_or(Ok(()), |state| state.remove_stores())
    }

    /// Ends every thread where it stands: nothing is committed, closed or told to the cluster. For tests of what a
    /// restart finds.
    #[cfg(feature = "testing")]
    #[doc(hidden)]
    pub fn crash(self) {
        let running = self.running().take();
        if let Some(Running { events, supervisor: Some(supervisor) }) = running {
            let _ = events.send(Event::Close(Order::Crash, Duration::ZERO));
            let _ = supervisor.join();
        }
    }

    /// Starts, and runs until the client is closed or fails.
    ///
    /// # Errors
    /// Those of [`start`](KafkaStreams::start), and the error that has ended the client.
    pub async fn run(self) -> Result<()> {
        self.run_until(std::future::pending::<()>()).await
    }

    /// Starts, runs until the future is ready, and closes.
    ///
    /// ```no_run
    /// # async fn run(streams: kstreams::KafkaStreams) -> kstreams::Result<()> {
    /// streams.run_until(tokio::signal::ctrl_c()).await
    /// # }
    /// ```
    ///
    /// # Errors
    /// Those of [`start`](KafkaStreams::start), and the error that has ended the client.
    pub async fn run_until<T>(self, end: impl Future<Output = T>) -> Result<()> {
        let streams = Arc::new(self);
        let starting = Arc::clone(&streams);
        blocking(move || starting.start()).await?;
        tokio::select! {
            () = streams.status.ended() => {}
            _ = end => {}
        }
        let closing = Arc::clone(&streams);
        blocking(move || closing.close(CloseOptions::default())).await?;
        streams.take_error().map_or(Ok(()), Err)
    }

    /// Starts, runs until Ctrl-C or, on Unix, SIGTERM, and closes: the main task of a service.
    ///
    /// # Errors
    /// Those of [`start`](KafkaStreams::start), and the error that has ended the client.
    pub async fn run_until_signal(self) -> Result<()> {
        let signal = termination()?;
        self.run_until(signal).await
    }
}

/// Ready at the first signal to end.
fn termination() -> Result<impl Future<Output = ()>> {
    #[cfg(unix)]
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())
        .map_err(|error| Error::new(ErrorKind::Unavailable, "could not listen to SIGTERM").with_source(error))?;
    Ok(async move {
        #[cfg(unix)]
        tokio::select! {
            _ = tokio::signal::ctrl_c() => {}
            _ = terminate.recv() => {}
        }
        #[cfg(not(unix))]
        let _ = tokio::signal::ctrl_c().await;
    })
}

/// Does what blocks beside the tasks of tokio.
async fn blocking(work: impl FnOnce() -> Result<()> + Send + 'static) -> Result<()> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| {
        Err(Error::new(ErrorKind::Internal, "the client panicked while it was started or closed").with_source(error))
    })
}

/// Closes the client, waiting up to 30 s.
impl Drop for KafkaStreams {
    fn drop(&mut self) {
        if self.state() == State::Created {
            return;
        }
        if let Err(error) = self.close(DROP_TIMEOUT) {
            tracing::warn!("{}", error.report());
        }
    }
}

impl fmt::Debug for KafkaStreams {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let id = &self.config.application_id;
        f.debug_struct("KafkaStreams").field("application_id", id).field("state", &self.state()).finish_non_exhaustive()
    }
}
