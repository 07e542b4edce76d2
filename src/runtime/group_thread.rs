//! The process's one member of the group: a thread that drives it, and what each stream thread sees of it.
//!
//! ```text
//!   coordinator <── requests, answers ──> group thread: Member ── events ──> Seats <── poll, acknowledge ── stream threads
//!                                             |                                                                  |
//!                                             └── Place (generation, owned tasks), swapped as one ── read by each commit
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use super::clock::Now;
use super::fencing::Fencing;
use super::own_member::{MemberEvent, OwnMember};
use super::seats::{Manner, Seats};
use crate::client::{GroupMetadata, GroupOffsets};
use crate::error::{Error, ErrorKind, Result};
use crate::membership::classic::member::{Assignor, Member, MemberInput, MemberOutput, MemberSettings, Millis, Place};
use crate::membership::classic::protocol::GroupCoordinator;
use crate::membership::streams::member::{StreamsMember, StreamsSettings};
use crate::membership::streams::protocol::StreamsCoordinator;
use crate::membership::{LeaveMode, Membership, MembershipEvent};
use crate::record::{OffsetAndMetadata, TopicPartition};
use crate::topology::TaskId;

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

/// What a member of a streams group is made of.
pub(super) struct StreamsStart {
    pub name: String,
    pub group: String,
    pub settings: StreamsSettings,
    pub threads: usize,
    pub coordinator: Box<StreamsCoordinator>,
    /// None where there are no transactions.
    pub fencing: Option<Fencing>,
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
    /// Standbys that have caught up, and the member has not heard of it.
    warmed: BTreeSet<TaskId>,
    /// Why there is no member any more.
    failure: Option<(ErrorKind, String)>,
    /// What others can take they have taken.
    has_handed_over: bool,
    has_ended: bool,
}

impl GroupThread {
    /// # Errors
    /// `Unavailable` when the system gives no more threads.
    pub(super) fn start(start: GroupStart) -> Result<GroupThread> {
        let name = start.name.clone();
        GroupThread::spawn(&name, GroupThread::assemble(start))
    }

    /// # Errors
    /// `Unavailable` when the system gives no more threads.
    pub(super) fn start_streams(start: StreamsStart) -> Result<GroupThread> {
        let StreamsStart { name, group, settings, threads, coordinator, fencing } = start;
        let member = Box::new(StreamsMember::new(settings, 0));
        // Members of streams groups have no instance id, which brokers refuse.
        let (group, driver) = GroupThread::around(OwnMember::Streams { member, coordinator }, group, None, threads);
        GroupThread::spawn(&name, (group, Driver { fencing, ..driver }))
    }

    fn spawn(name: &str, (group, mut driver): (GroupThread, Driver)) -> Result<GroupThread> {
        let body = move || {
            let span = tracing::info_span!("group-thread", group = driver.shared.group);
            let _entered = span.entered();
            if catch_unwind(AssertUnwindSafe(|| driver.run())).is_err() {
                driver.shared.fail(ErrorKind::Internal, "the group thread panicked".to_owned());
            }
            driver.shared.end();
        };
        let handle = Builder::new().name(name.to_owned()).spawn(body).map_err(|error| {
            Error::new(ErrorKind::Unavailable, format!("could not start thread {name}")).with_source(error)
        })?;
        Ok(GroupThread { handle: Mutex::new(Some(handle)), ..group })
    }

    /// The member, and who is to drive it.
    pub(super) fn assemble(start: GroupStart) -> (GroupThread, Driver) {
        let GroupStart { name: _, group, settings, topics, threads, assignor, coordinator } = start;
        let instance = settings.instance.clone();
        let member = Box::new(Member::new(settings, topics, assignor, 0));
        GroupThread::around(OwnMember::Sticky { member, coordinator }, group, instance, threads)
    }

    fn around(member: OwnMember, group: String, instance: Option<String>, threads: usize) -> (GroupThread, Driver) {
        let state = State {
            seats: Seats::new(threads),
            wakers: BTreeMap::new(),
            place: Arc::new(Place::default()),
            orders: Vec::new(),
            warmed: BTreeSet::new(),
            failure: None,
            has_handed_over: false,
            has_ended: false,
        };
        let (state, ended, wake) = (Mutex::new(state), Condvar::new(), member.waker());
        let shared = Arc::new(Shared { group, instance, state, ended, wake });
        let driver = Driver { shared: Arc::clone(&shared), member, fencing: None, begun: Now::read() };
        (GroupThread { shared, handle: Mutex::default() }, driver)
    }

    /// A stream thread's place in the group; the waker is of that thread.
    pub(super) fn seat(
        &self,
        index: usize,
        offsets: Box<dyn GroupOffsets>,
        outputs: Arc<[Arc<str>]>,
        waker: Waker,
    ) -> Box<dyn Membership> {
        let mut state = self.shared.state();
        state.wakers.insert(index, waker);
        state.seats.open(index);
        drop(state);
        self.shared.wake_all();
        let shared = Arc::clone(&self.shared);
        Box::new(SeatMembership { shared, index, offsets, outputs, fence: Vec::new(), is_open: true })
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

    /// What the board says of this process has changed: the group is told.
    pub(super) fn tell(&self) {
        self.order(MemberInput::Tell);
    }

    /// Others are to take over what this process has, while it goes on.
    pub(super) fn hand_over(&self) {
        self.order(MemberInput::HandOver);
    }

    /// Whether that is done, or there is nobody to do it.
    pub(super) fn has_handed_over(&self) -> bool {
        let state = self.shared.state();
        state.has_handed_over || state.failure.is_some() || state.has_ended
    }

    /// A stream thread does not come back: its tasks are the group's at once, though it has not closed them.
    pub(super) fn abandon(&self, index: usize) {
        let tasks = self.shared.state().seats.hang(index);
        self.order(MemberInput::Abandon(tasks));
    }

    /// It is back: it closes what it had, and may get tasks again.
    pub(super) fn come_back(&self, index: usize) {
        self.shared.state().seats.come_back(index);
        self.tell();
        self.shared.wake_threads();
    }

    fn order(&self, order: MemberInput) {
        self.shared.state().orders.push(order);
        (self.shared.wake)();
    }

    pub(super) fn order_to_leave(&self, mode: LeaveMode) {
        self.order(MemberInput::Leave(mode));
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
    member: OwnMember,
    /// Of a streams group, in which nobody is told whom to fence.
    fencing: Option<Fencing>,
    begun: Now,
}

impl Driver {
    fn run(&mut self) {
        while self.step() == Next::GoOn {
            let left = self.member.deadline().saturating_sub(self.now()).max(0);
            let left = Duration::from_millis(u64::try_from(left).unwrap_or(0)).min(WAIT_MAX);
            if !left.is_zero() {
                self.member.wait(left);
            }
        }
    }

    /// Hears what there is to hear, and never waits for more.
    pub(super) fn step(&mut self) -> Next {
        let inputs = {
            let mut state = self.shared.state();
            let mut inputs = Vec::new();
            let closed = state.seats.take_closed();
            if !closed.is_empty() {
                inputs.push(MemberInput::Closed(closed));
            }
            if !state.warmed.is_empty() {
                inputs.push(MemberInput::WarmedUp(std::mem::take(&mut state.warmed)));
            }
            inputs.append(&mut state.orders);
            inputs
        };
        let (mut has_news, mut has_heard) = (false, false);
        let mut inputs = inputs.into_iter();
        loop {
            let now = self.now();
            match inputs.next() {
                Some(input) => self.member.on(input, now),
                None if self.member.hear(now) => {}
                None if !has_heard => self.member.on(MemberInput::Tick, now),
                None => break,
            }
            has_heard = true;
            while let Some(event) = self.member.poll_event() {
                match self.perform(event) {
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

    fn perform(&mut self, event: MemberEvent) -> Next {
        let mut state = self.shared.state();
        match event {
            MemberOutput::Send(never) => match never {},
            MemberOutput::Publish(place) => {
                let place = Arc::new(place);
                let before = std::mem::replace(&mut state.place, Arc::clone(&place));
                drop(state);
                if let Some(fencing) = &self.fencing
                    && place.membership.is_some()
                    && place.membership != before.membership
                {
                    fencing.look();
                }
                return Next::GoOn;
            }
            MemberOutput::Assigned { tasks, fence } => state.seats.assigned(tasks, &fence),
            MemberOutput::Standby { tasks } => state.seats.stand_by(tasks),
            MemberOutput::Revoked { tasks } => state.seats.taken(&tasks, Manner::Revoke),
            MemberOutput::Lost { tasks } => state.seats.taken(&tasks, Manner::Lose),
            MemberOutput::Settled => state.seats.settled(),
            MemberOutput::HandedOver => state.has_handed_over = true,
            MemberOutput::ShutDown => {
                drop(state);
                let reason = "an instance of the application has asked all of them to end, see its log".to_owned();
                self.shared.fail(ErrorKind::Invalid, reason);
                return Next::Tell;
            }
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
    /// The topics that every instance writes to.
    outputs: Arc<[Arc<str>]>,
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

    fn warmed_up(&mut self, tasks: &BTreeSet<TaskId>) {
        self.shared.state().warmed.extend(tasks);
        (self.shared.wake)();
    }

    fn has_lost_tasks(&mut self) -> bool {
        let state = self.shared.state();
        !state.seats.is_within(self.index, &state.place.owned)
    }

    fn committed(&mut self, partitions: &[TopicPartition]) -> Result<Vec<Option<OffsetAndMetadata>>> {
        if !self.fence.is_empty() {
            // IMPORTANT: first, or the offsets of a transaction that its dead owner has left open are waited for.
            self.offsets.fence(&self.fence, &self.outputs)?;
            self.fence.clear();
        }
        self.offsets.committed(partitions)
    }

    fn committed_so_far(&mut self, partitions: &[TopicPartition]) -> Result<Vec<Option<i64>>> {
        let committed = self.offsets.committed_so_far(partitions)?;
        Ok(committed.into_iter().map(|committed| committed.map(|at| at.offset)).collect())
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

#[cfg(test)]
mod tests;
