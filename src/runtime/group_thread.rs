//! The process's one member of the group: a thread that drives it, and what each stream thread sees of it.
//!
//! ```text
//!   coordinator <── requests, answers ──> group thread: Member ── events ──> Seats <── poll, acknowledge ── stream threads
//!                                             |                                                                  |
//!                                             └── Place (generation, owned tasks), swapped as one ── read by each commit
//! ```

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use super::clock::Now;
use super::seats::{Manner, Seats};
use crate::client::{GroupMetadata, GroupOffsets};
use crate::error::{Error, ErrorKind, Result};
use crate::membership::classic::member::{Assignor, Member, MemberInput, MemberOutput, MemberSettings, Millis, Place};
use crate::membership::classic::protocol::GroupCoordinator;
use crate::membership::{LeaveMode, Membership, MembershipEvent};
use crate::record::{OffsetAndMetadata, TopicPartition};

/// The longest wait for an answer: time goes on for the member as well.
const WAIT_MAX: Duration = Duration::from_secs(1);

/// How long the last word to the coordinator may take.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// The member of the process. A handle; the membership ends by [`close`](GroupThread::close).
pub(super) struct GroupThread {
    shared: Arc<Shared>,
    handle: Mutex<Option<JoinHandle<()>>>,
}

/// What a member is made of.
pub(super) struct GroupStart {
    pub name: String,
    pub group: String,
    pub settings: MemberSettings,
    pub topics: Vec<Arc<str>>,
    pub threads: usize,
    pub assignor: Box<dyn Assignor>,
    pub coordinator: Box<dyn GroupCoordinator>,
}

struct Shared {
    group: String,
    instance: Option<String>,
    state: Mutex<State>,
    ended: Condvar,
    wake: Waker,
}

/// Ends the wait of a thread.
type Waker = Arc<dyn Fn() + Send + Sync>;

struct State {
    seats: Seats,
    /// Of the stream threads, by number.
    wakers: BTreeMap<usize, Waker>,
    place: Arc<Place>,
    /// What the member is to be told; bounded by who tells: the supervisor, seldom.
    orders: Vec<MemberInput>,
    /// Why there is no member any more.
    failure: Option<(ErrorKind, String)>,
    has_ended: bool,
}

impl GroupThread {
    /// # Errors
    /// `Unavailable` when the system gives no more threads.
    pub(super) fn start(start: GroupStart) -> Result<GroupThread> {
        let name = start.name.clone();
        let (group, mut driver) = GroupThread::assemble(start);
        let body = move || {
            let span = tracing::info_span!("group-thread", group = driver.shared.group);
            let _entered = span.entered();
            if catch_unwind(AssertUnwindSafe(|| driver.run())).is_err() {
                driver.shared.fail(ErrorKind::Internal, "the group thread panicked".to_owned());
            }
            driver.shared.end();
        };
        let handle = Builder::new().name(name.clone()).spawn(body).map_err(|error| {
            Error::new(ErrorKind::Unavailable, format!("could not start thread {name}")).with_source(error)
        })?;
        Ok(GroupThread { handle: Mutex::new(Some(handle)), ..group })
    }

    /// The member, and who is to drive it.
    pub(super) fn assemble(start: GroupStart) -> (GroupThread, Driver) {
        let GroupStart { name: _, group, settings, topics, threads, assignor, coordinator } = start;
        let state = State {
            seats: Seats::new(threads),
            wakers: BTreeMap::new(),
            place: Arc::new(Place::default()),
            orders: Vec::new(),
            failure: None,
            has_ended: false,
        };
        let instance = settings.instance.clone();
        let (state, ended, wake) = (Mutex::new(state), Condvar::new(), coordinator.waker());
        let shared = Arc::new(Shared { group, instance, state, ended, wake });
        let member = Member::new(settings, topics, assignor, 0);
        let driver = Driver { shared: Arc::clone(&shared), member, coordinator, begun: Now::read() };
        (GroupThread { shared, handle: Mutex::default() }, driver)
    }

    /// A stream thread's place in the group; the waker is of that thread.
    pub(super) fn seat(&self, index: usize, offsets: Box<dyn GroupOffsets>, waker: Waker) -> Box<dyn Membership> {
        let mut state = self.shared.state();
        state.wakers.insert(index, waker);
        state.seats.open(index);
        drop(state);
        self.shared.wake_all();
        Box::new(SeatMembership { shared: Arc::clone(&self.shared), index, offsets, fence: Vec::new(), is_open: true })
    }

    /// The topics are others, and so are the tasks: every stream thread ends and is followed by another one.
    pub(super) fn begin_again(&self, topics: Vec<Arc<str>>, assignor: Box<dyn Assignor>) {
        let mut state = self.shared.state();
        state.seats.expect_others();
        state.orders.push(MemberInput::Subscribe(topics, assignor));
        drop(state);
        (self.shared.wake)();
    }

    /// The stream threads are told to end: what they close goes to nobody in this process.
    pub(super) fn stop_placing(&self) {
        self.shared.state().seats.close();
    }

    pub(super) fn order_to_leave(&self, mode: LeaveMode) {
        self.shared.state().orders.push(MemberInput::Leave(mode));
        (self.shared.wake)();
    }

    /// Ends the membership, when the stream threads have ended.
    pub(super) fn close(&self, mode: LeaveMode) {
        self.order_to_leave(mode);
        let state = self.shared.state();
        let waited = self.shared.ended.wait_timeout_while(state, CLOSE_TIMEOUT, |state| !state.has_ended);
        let has_ended = waited.map_or(true, |(state, _)| state.has_ended);
        let handle = self.handle.lock().unwrap_or_else(PoisonError::into_inner).take();
        match handle {
            // What it panicked with was told to the stream threads.
            Some(handle) if has_ended => _ = handle.join(),
            Some(_) => tracing::warn!("the group's coordinator does not answer the farewell: it is not waited for"),
            None => {}
        }
    }
}

impl Shared {
    /// A panic with the lock held leaves no value half changed that matters more than the panic.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fail(&self, kind: ErrorKind, reason: String) {
        let mut state = self.state();
        state.place = Arc::new(Place::default());
        state.failure.get_or_insert((kind, reason));
        drop(state);
        self.wake_threads();
    }

    fn wake_threads(&self) {
        let wakers: Vec<_> = self.state().wakers.values().cloned().collect();
        wakers.iter().for_each(|wake| wake());
    }

    /// Something has changed on the seats: the group may have to hear of it, or another thread.
    fn wake_all(&self) {
        (self.wake)();
        self.wake_threads();
    }

    fn end(&self) {
        self.state().has_ended = true;
        self.ended.notify_all();
    }
}

/// What the group thread has to itself.
pub(super) struct Driver {
    shared: Arc<Shared>,
    member: Member,
    coordinator: Box<dyn GroupCoordinator>,
    begun: Now,
}

impl Driver {
    fn run(&mut self) {
        while self.step() == Next::GoOn {
            let left = self.member.deadline().saturating_sub(self.now()).max(0);
            let left = Duration::from_millis(u64::try_from(left).unwrap_or(0)).min(WAIT_MAX);
            if !left.is_zero() {
                self.coordinator.wait(left);
            }
        }
    }

    /// Hears what there is to hear, and never waits for more.
    pub(super) fn step(&mut self) -> Next {
        let mut inputs = {
            let mut state = self.shared.state();
            let mut inputs = Vec::new();
            let closed = state.seats.take_closed();
            if !closed.is_empty() {
                inputs.push(MemberInput::Closed(closed));
            }
            inputs.append(&mut state.orders);
            inputs
        };
        while let Some(answer) = self.coordinator.poll() {
            inputs.push(MemberInput::Answer(answer));
        }
        if inputs.is_empty() {
            inputs.push(MemberInput::Tick);
        }
        let mut has_news = false;
        for input in inputs {
            let now = self.now();
            self.member.on(input, now);
            while let Some(output) = self.member.poll_output() {
                match self.perform(output) {
                    Next::GoOn => {}
                    Next::Tell => has_news = true,
                    Next::End => return Next::End,
                }
            }
        }
        if has_news {
            self.shared.wake_threads();
        }
        Next::GoOn
    }

    fn perform(&mut self, output: MemberOutput) -> Next {
        let mut state = self.shared.state();
        match output {
            MemberOutput::Send(request) => {
                drop(state);
                self.coordinator.send(request);
                return Next::GoOn;
            }
            MemberOutput::Publish(place) => {
                state.place = Arc::new(place);
                return Next::GoOn;
            }
            MemberOutput::Assigned { tasks, fence } => state.seats.assigned(tasks, &fence),
            MemberOutput::Revoked { tasks } => state.seats.taken(&tasks, Manner::Revoke),
            MemberOutput::Lost { tasks } => state.seats.taken(&tasks, Manner::Lose),
            MemberOutput::Settled => state.seats.settled(),
            MemberOutput::Failed(kind, reason) => {
                drop(state);
                self.shared.fail(kind, reason);
                return Next::End;
            }
            MemberOutput::Ended => return Next::End,
        }
        Next::Tell
    }

    fn now(&self) -> Millis {
        Millis::try_from(Now::read().since(self.begun).as_millis()).unwrap_or(Millis::MAX)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    GoOn,
    /// The stream threads have something to hear.
    Tell,
    End,
}

/// A stream thread's place.
struct SeatMembership {
    shared: Arc<Shared>,
    index: usize,
    offsets: Box<dyn GroupOffsets>,
    /// To be fenced before committed offsets are read.
    fence: Vec<String>,
    is_open: bool,
}

impl SeatMembership {
    fn error(&self, kind: ErrorKind, reason: &str) -> Error {
        Error::new(kind, format!("could not take part in group {}: {reason}", self.shared.group))
    }
}

impl Membership for SeatMembership {
    fn poll(&mut self) -> Result<Option<MembershipEvent>> {
        let mut state = self.shared.state();
        if let Some((kind, reason)) = &state.failure {
            return Err(self.error(*kind, reason));
        }
        let Some((event, fence)) = state.seats.poll(self.index) else { return Ok(None) };
        self.fence.extend(fence);
        Ok(Some(event))
    }

    fn acknowledge(&mut self) -> Result<()> {
        self.shared.state().seats.acknowledge(self.index);
        self.shared.wake_all();
        Ok(())
    }

    fn committed(&mut self, partitions: &[TopicPartition]) -> Result<Vec<Option<OffsetAndMetadata>>> {
        if !self.fence.is_empty() {
            // IMPORTANT: first, or the offsets of a transaction that its dead owner has left open are waited for.
            self.offsets.fence(&self.fence)?;
            self.fence.clear();
        }
        self.offsets.committed(partitions)
    }

    fn commit(&mut self, offsets: &[(TopicPartition, OffsetAndMetadata)]) -> Result<()> {
        if offsets.is_empty() {
            return Ok(());
        }
        let Some(metadata) = self.group_metadata()? else {
            return Err(self.error(ErrorKind::Fenced, "its tasks are not those of this process any more"));
        };
        self.offsets.commit(offsets, &metadata)
    }

    /// None as well while the thread has a task that is not the process's any more: whatever it commits then belongs to
    /// somebody else, under a generation that the coordinator would accept.
    fn group_metadata(&mut self) -> Result<Option<GroupMetadata>> {
        let state = self.shared.state();
        let place = Arc::clone(&state.place);
        if !state.seats.is_within(self.index, &place.owned) {
            return Ok(None);
        }
        Ok(place.membership.as_ref().map(|(generation, member)| GroupMetadata {
            group: self.shared.group.clone(),
            generation: *generation,
            member: member.clone(),
            instance: self.shared.instance.clone(),
        }))
    }

    /// Leaves the seat; the process's membership is its own affair.
    fn close(&mut self, _mode: LeaveMode) -> Result<()> {
        if std::mem::replace(&mut self.is_open, false) {
            let mut state = self.shared.state();
            state.seats.release(self.index);
            state.wakers.remove(&self.index);
            drop(state);
            self.shared.wake_all();
        }
        Ok(())
    }
}

impl Drop for SeatMembership {
    fn drop(&mut self) {
        // It has closed everything, or has ended where it stood.
        let _ = self.close(LeaveMode::Stay);
    }
}
