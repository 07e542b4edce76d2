//! What becomes of a running client by its user's wish or in the course of time: more threads or fewer, a farewell to the
//! group, and what to do about a thread that does not come back.

use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::Duration;

use super::clock::Now;
use super::kafka_streams::KafkaStreams;
use super::state::State;
use super::status::is_own_thread;
use super::stream_thread::Order;
use super::supervisor::{Event, PAUSE_MIN, Supervised, Supervisor};
use crate::config::GroupProtocol;
use crate::error::{Error, ErrorKind, Result};

/// Hears the name of a thread.
pub(super) type Reply = SyncSender<Option<String>>;

/// The client closes, and others take over what it has before.
pub(super) struct Farewell {
    order: Order,
    begun: Now,
    patience: Duration,
}

/// How long an instance waits for the others to be told to shut down: a rebalance, and a session that may have to end.
const SHUTDOWN_MAX: Duration = Duration::from_secs(20);

/// How often it is looked whether everything has been handed over.
pub(super) const FAREWELL_INTERVAL: Duration = Duration::from_millis(20);

/// Between two looks counts no more: a process that stood still is not a thread that does.
const LOOK_MAX: Duration = Duration::from_secs(2);

/// Whether a thread comes back from what it does.
pub(super) struct Pulse {
    turns: u64,
    stalled: Duration,
    is_hung: bool,
}

impl Pulse {
    pub(super) fn new() -> Pulse {
        Pulse { turns: 0, stalled: Duration::ZERO, is_hung: false }
    }

    /// What has become of a thread that has taken so many turns; none: nothing new.
    fn look(&mut self, turns: u64, passed: Duration, patience: Duration) -> Option<Turn> {
        if turns != self.turns {
            (self.turns, self.stalled) = (turns, Duration::ZERO);
            return std::mem::take(&mut self.is_hung).then_some(Turn::Back);
        }
        self.stalled += passed.min(LOOK_MAX);
        let hangs = self.stalled >= patience && turns > 0 && !self.is_hung;
        self.is_hung |= hangs;
        hangs.then_some(Turn::Hangs)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Turn {
    Hangs,
    Back,
}

impl Supervisor {
    pub(super) fn add_thread(&mut self, reply: &Reply) {
        let is_free =
            |index: &usize| !self.wanted.contains(index) && self.threads.iter().all(|thread| thread.index != *index);
        let index = (1..).find(is_free).filter(|_| self.goes_on());
        let name = index.map(|index| self.app.thread_name(index));
        if let Some(index) = index {
            self.wanted.insert(index);
            let may_start = self.has_begun && !self.has_no_topics();
            let started = if may_start { self.start_thread(index, Duration::ZERO, PAUSE_MIN) } else { Ok(()) };
            started.unwrap_or_else(|error| self.give_up(error, Order::Leave));
            self.tell_workers();
        }
        // Who does not wait for the answer has its reasons.
        let _ = reply.try_send(name);
    }

    pub(super) fn remove_thread(&mut self, reply: Reply) {
        let index = self.wanted.last().copied().filter(|_| self.goes_on());
        let Some(index) = index else { return drop(reply.try_send(None)) };
        self.wanted.remove(&index);
        if let Some(thread) = self.threads.iter_mut().find(|thread| thread.index == index) {
            thread.removal = Some(reply);
            thread.orders.give(Order::Leave);
            thread.unpark();
        } else {
            let _ = reply.try_send(Some(self.app.thread_name(index)));
        }
    }

    /// A thread has ended because it was not wanted any more.
    pub(super) fn removed(&mut self, thread: &Supervised) {
        if let Some(reply) = &thread.removal {
            let _ = reply.try_send(Some(self.app.thread_name(thread.index)));
        }
        self.tell_workers();
        self.tell_state();
    }

    fn goes_on(&self) -> bool {
        self.closing.is_none() && self.farewell.is_none()
    }

    fn tell_workers(&self) {
        self.app.board.set_workers(self.wanted.len());
        if let Some(group) = &self.group {
            group.tell();
        }
    }

    /// Whether the group is left when the client is closed by this order. As in Java, who has an identity that outlives it
    /// is expected back.
    pub(super) fn leaves(&self, order: Order) -> bool {
        match order {
            Order::Leave => true,
            Order::Close => self.app.instance_id().is_none() || self.app.config.leave_on_close,
            Order::GoOn | Order::Stay | Order::Crash => false,
        }
    }

    /// Closes the client; one that leaves its group hands over first, while it goes on.
    pub(super) fn say_farewell(&mut self, order: Order, patience: Duration) {
        let is_done =
            self.closing.is_some() || self.farewell.is_some() || self.threads.is_empty() || patience.is_zero();
        match &self.group {
            Some(group) if !is_done && self.leaves(order) => {
                group.hand_over();
                self.farewell = Some(Farewell { order, begun: Now::read(), patience });
            }
            _ => self.close(order),
        }
    }

    /// Tells the group, which tells everybody; this client ends when it has heard so itself.
    pub(super) fn shut_down_application(&mut self, error: Error) {
        let Some(group) = &self.group else {
            tracing::warn!("with group_protocol Range the other instances cannot be told to shut down");
            return self.give_up(error, Order::Leave);
        };
        self.app.board.set_shuts_down();
        group.tell();
        self.status.fail(error);
        self.status.advance(State::Rebalancing);
        self.status.advance(State::PendingError);
        self.farewell = Some(Farewell { order: Order::Leave, begun: Now::read(), patience: SHUTDOWN_MAX });
    }

    /// Closes the client when everything has been handed over, or it has taken long enough.
    pub(super) fn end_farewell(&mut self) {
        let Some(Farewell { order, begun, patience }) = &self.farewell else { return };
        let is_over = Now::read().since(*begun) >= *patience;
        if is_over {
            tracing::warn!("the group has not taken over what is here, or heard of it, within {patience:?}");
        }
        if is_over || self.group.as_ref().is_none_or(|group| group.has_handed_over()) {
            let order = *order;
            self.close(order);
        }
    }

    /// The counterpart of Java's `max.poll.interval.ms`: what a thread has that hangs in the program's own code is given to
    /// others. What it may still have to say is refused: see `Member::abandon`.
    pub(super) fn feel_pulses(&mut self, now: Now) {
        let passed = now.since(std::mem::replace(&mut self.last_pulse, now));
        let Some(group) = &self.group else { return };
        let (patience, mut changed) = (self.app.config.max_poll_interval, Vec::new());
        for thread in &mut self.threads {
            if let Some(turn) = thread.pulse.look(thread.orders.turns(), passed, patience) {
                changed.push((thread.index, turn));
            }
        }
        if changed.is_empty() {
            return;
        }
        self.app.board.set_impaired(self.threads.iter().any(|thread| thread.pulse.is_hung));
        let is_streams = self.app.config.group_protocol == GroupProtocol::Streams;
        let all_hang = self.threads.iter().all(|thread| thread.pulse.is_hung);
        for (index, turn) in changed {
            let thread = self.app.thread_name(index);
            match turn {
                Turn::Hangs if is_streams && !all_hang => {
                    tracing::error!(
                        thread,
                        "a stream thread has not come back for {patience:?} (max_poll_interval): it keeps its tasks, which \
                         a streams group takes from a whole instance only; a restart moves on"
                    );
                }
                Turn::Hangs if is_streams => {
                    tracing::error!(
                        thread,
                        "no stream thread has come back for {patience:?} (max_poll_interval): this instance steps out of the \
                         group, so that others get its tasks, and joins again when all have"
                    );
                    self.threads.iter().for_each(|thread| group.abandon(thread.index));
                }
                Turn::Hangs => {
                    tracing::error!(
                        thread,
                        "a stream thread has not come back for {patience:?} (max_poll_interval): others get its tasks, and \
                         this instance takes no new ones until it does"
                    );
                    group.abandon(index);
                }
                Turn::Back if is_streams => {
                    tracing::warn!(thread, "a stream thread has come back");
                    group.come_back(index);
                }
                Turn::Back => {
                    tracing::warn!(
                        thread,
                        "a stream thread has come back: it gives up what it had, and takes part again"
                    );
                    group.come_back(index);
                }
            }
        }
    }
}

impl Supervisor {
    /// Who has hung and ended before it was seen to come back is followed by one that does not hang.
    pub(super) fn forget_pulse(&self, ended: &Supervised) {
        if ended.pulse.is_hung {
            self.app.board.set_impaired(self.threads.iter().any(|thread| thread.pulse.is_hung));
            if let Some(group) = &self.group {
                group.tell();
            }
        }
    }
}

impl KafkaStreams {
    /// Starts another stream thread and tells its name; none where the client does not run, and where it was asked from a
    /// listener, which does not wait. The group gives this instance its share for one more.
    ///
    /// Record caches and uncommitted bytes are shared by the threads: each has less.
    ///
    /// # Examples
    /// ```no_run
    /// # fn grow(streams: &kstreams::KafkaStreams) {
    /// if let Some(name) = streams.add_stream_thread() {
    ///     println!("{name} takes part");
    /// }
    /// # }
    /// ```
    pub fn add_stream_thread(&self) -> Option<String> {
        self.ask_for_a_thread(Event::AddThread, None).ok().flatten()
    }

    /// Ends a stream thread, when it has committed and closed its tasks, and tells its name: others have them then. None
    /// where the client does not run, and where it was asked from a listener or a processor, which does not wait. A client
    /// whose last thread is removed goes on without tasks until another one is added.
    ///
    /// # Errors
    /// `Unavailable` when the timeout is over; the thread ends in the background.
    pub fn remove_stream_thread(&self, timeout: Duration) -> Result<Option<String>> {
        self.ask_for_a_thread(Event::RemoveThread, Some(timeout))
    }

    fn ask_for_a_thread(&self, event: fn(Reply) -> Event, timeout: Option<Duration>) -> Result<Option<String>> {
        let (reply, answer) = sync_channel(1);
        if !self.state().is_running_or_rebalancing() || !self.tell_supervisor(event(reply)) || is_own_thread() {
            return Ok(None);
        }
        // Who asks and is not answered asked a supervisor that has ended.
        let Some(timeout) = timeout else { return Ok(answer.recv().ok().flatten()) };
        match answer.recv_timeout(timeout) {
            Ok(name) => Ok(name),
            Err(std::sync::mpsc::RecvTimeoutError::Disconnected) => Ok(None),
            Err(std::sync::mpsc::RecvTimeoutError::Timeout) => {
                let waited = timeout.as_millis();
                let context = format!("the stream thread has not ended after {waited} ms: it ends in the background");
                Err(Error::new(ErrorKind::Unavailable, context))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_thread_that_takes_no_turn_for_long_enough_hangs_until_it_takes_one() {
        let mut pulse = Pulse::new();
        let mut look = |turns, passed| pulse.look(turns, passed, 3 * SECOND);
        assert_eq!([look(1, SECOND), look(1, SECOND), look(1, SECOND)], [None; 3]);
        assert_eq!([look(1, SECOND), look(1, SECOND)], [Some(Turn::Hangs), None]);
        assert_eq!([look(2, SECOND), look(3, SECOND)], [Some(Turn::Back), None]);
    }

    #[test]
    fn a_process_that_stood_still_blames_no_thread() {
        let mut pulse = Pulse::new();
        assert_eq!(pulse.look(1, SECOND, 3 * SECOND), None);
        assert_eq!(pulse.look(1, 1000 * SECOND, 3 * SECOND), None);
    }

    #[test]
    fn a_thread_that_has_not_begun_does_not_hang() {
        let mut pulse = Pulse::new();
        assert!((0..9).all(|_| pulse.look(0, SECOND, SECOND).is_none()));
    }
}
