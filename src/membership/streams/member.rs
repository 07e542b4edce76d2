//! A member of a streams group: what it tells, when, and what follows from each answer. Sans-I/O; time is an argument.
//!
//! ```text
//!         ┌── 25, 110: Lost ──┐
//!         v                   |
//!   Out ──> join (epoch 0) ──> Member ── heartbeat ──> target: to give back: Revoked -> closed ──┐
//!                               ^                              to add: Assigned                  |
//!                               └──────────── heartbeat with what it has, at once <──────────────┘
//! ```
//!
//! The broker gives nobody what it does not know to be free: a member that was told to give a task back keeps its epoch
//! until it has said that the task is not among what it has. Heartbeats carry what has changed since the last one that was
//! answered; after one that was not, everything is told again, and the broker takes the member's last epoch as well.
//!
//! What the lost answer may have said is not told again: brokers (4.3.1) tell tasks to who joins, and when a heartbeat has
//! changed them. So the member asks anew, by a join in its own name, which gives it everything and nobody a new epoch. It
//! commits nothing meanwhile: a join says that it has nothing, and the broker may act upon that.
//!
//! How long the group waits for a silent member is the broker's setting, of which members are not told. So this one does not
//! give its tasks up by the clock: what it does after its time is over cannot be committed.

mod answers;
#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use super::protocol::{Address, Heartbeat, HeartbeatAnswer, Introduction, JOINING, LEAVING, Progress, Status, Tasks};
use crate::error::ErrorKind;
use crate::membership::LeaveMode;
use crate::membership::classic::member::{MemberOutput, Millis, Place};
use crate::topology::TaskId;

pub(crate) type StreamsOutput = MemberOutput<Heartbeat>;

/// What a member is from the beginning.
pub(crate) struct StreamsSettings {
    /// A process that comes back with the same one before its session is over finds its tasks.
    pub member: String,
    pub introduction: Introduction,
    /// All there are.
    pub known: BTreeSet<TaskId>,
    /// How far the stores are of tasks that do not run here.
    pub progress: Box<dyn FnMut() -> Vec<Progress> + Send>,
    /// Whether every instance of the application is to end.
    pub shuts_down: Box<dyn FnMut() -> bool + Send>,
    /// Hears who of the group has what.
    pub addresses: Box<dyn FnMut(Vec<Address>) + Send>,
}

pub(crate) enum StreamsInput {
    /// Nothing but time. Due at [`StreamsMember::deadline`].
    Tick,
    Answer(HeartbeatAnswer),
    /// No thread of the process comes back: others are to have what they have, though they have not closed it.
    Abandon,
    /// Tasks of a `Revoked` or `Lost` are closed.
    Closed(BTreeSet<TaskId>),
    /// The stores of standbys have caught up.
    WarmedUp,
    /// What this process tells of itself has changed.
    Tell,
    /// The process wants to leave: others are to have what it has.
    HandOver,
    /// Everything is closed: the end.
    Leave(LeaveMode),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// In no group. The join is to be sent at this time.
    Out {
        at: Millis,
    },
    Member,
    /// Out, with stores open: joins when they are closed, for a task of theirs could not be opened again.
    Aside {
        is_told: bool,
    },
    /// Waits for the answer until then.
    Leaving {
        until: Millis,
    },
    Ended,
}

/// A heartbeat that is not answered yet.
#[derive(Debug, Clone)]
struct UnderWay {
    number: u64,
    epoch: i32,
    /// What it says that the member has.
    owned: Option<Tasks>,
    sent: Millis,
}

/// While a group changes, its broker is asked so often: what one member gives back, another one waits for.
const RESTLESS_INTERVAL: Millis = 300;

/// For so long after the last change that this member has seen.
const RESTLESS_FOR: Millis = 5000;

/// A member hears of changes by heartbeats alone: so many of them come in the time that the broker asks for one.
const BEATS_PER_INTERVAL: Millis = 5;

const BACKOFF_MIN: Millis = 100;
const BACKOFF_MAX: Millis = 2000;

/// Who sends gives up before.
const PATIENCE: Millis = 60_000;

/// How long the last word may take.
const LEAVE_TIMEOUT: Millis = 3000;

/// What the broker asks for by default.
const INTERVAL: Millis = 5000;

pub(crate) struct StreamsMember {
    id: String,
    introduction: Arc<Introduction>,
    known: BTreeSet<TaskId>,
    progress: Box<dyn FnMut() -> Vec<Progress> + Send>,
    shuts_down: Box<dyn FnMut() -> bool + Send>,
    /// Whether this process has been told to end.
    has_shut_down: bool,
    addresses: Box<dyn FnMut(Vec<Address>) + Send>,
    phase: Phase,
    /// Of the last answer; [`JOINING`] outside of the group.
    epoch: i32,
    /// Of the addresses of instances, which are told again otherwise with every answer.
    endpoint_epoch: i32,
    /// Given by the group and not closed since.
    owned: BTreeSet<TaskId>,
    /// Of the owned ones: asked back.
    revoking: BTreeSet<TaskId>,
    /// Not owned any more, and not closed yet.
    losing: BTreeSet<TaskId>,
    /// The last assignment.
    target: Option<Tasks>,
    /// The standbys that this process was told of.
    standby: BTreeSet<TaskId>,
    /// What the coordinator knows that this member has. None: nobody can say.
    reported: Option<Tasks>,
    numbers: u64,
    under_way: Option<UnderWay>,
    /// An answer was lost that may have told tasks.
    may_have_missed: bool,
    /// A member has asked for all that it shall have, and nobody has answered since.
    is_asking_anew: bool,
    next_beat: Millis,
    /// The end of the pause after a heartbeat that was lost or refused.
    not_before: Millis,
    interval: Millis,
    restless_until: Millis,
    backoff: Millis,
    /// 0: never.
    progress_interval: Millis,
    next_progress: Millis,
    told_progress: Vec<Progress>,
    statuses: Vec<(Status, String)>,
    is_settled: bool,
    outputs: VecDeque<StreamsOutput>,
}

impl StreamsMember {
    pub(crate) fn new(settings: StreamsSettings, now: Millis) -> StreamsMember {
        StreamsMember {
            id: settings.member,
            introduction: Arc::new(settings.introduction),
            known: settings.known,
            progress: settings.progress,
            shuts_down: settings.shuts_down,
            has_shut_down: false,
            addresses: settings.addresses,
            phase: Phase::Out { at: now },
            epoch: JOINING,
            endpoint_epoch: -1,
            owned: BTreeSet::new(),
            revoking: BTreeSet::new(),
            losing: BTreeSet::new(),
            target: None,
            standby: BTreeSet::new(),
            reported: None,
            numbers: 0,
            under_way: None,
            may_have_missed: false,
            is_asking_anew: false,
            next_beat: now,
            not_before: now,
            interval: INTERVAL,
            restless_until: now,
            backoff: BACKOFF_MIN,
            progress_interval: 0,
            next_progress: now,
            told_progress: Vec::new(),
            statuses: Vec::new(),
            is_settled: false,
            outputs: VecDeque::new(),
        }
    }

    pub(crate) fn on(&mut self, input: StreamsInput, now: Millis) {
        if self.phase == Phase::Ended {
            return;
        }
        if self.under_way.take_if(|asked| now.saturating_sub(asked.sent) >= PATIENCE).is_some() {
            self.unanswered(now);
        }
        match input {
            StreamsInput::Tick => {}
            StreamsInput::Answer(answer) => self.answered(answer, now),
            StreamsInput::Abandon => self.step_aside(now),
            StreamsInput::Closed(tasks) => self.closed(&tasks, now),
            StreamsInput::WarmedUp => self.next_progress = now,
            StreamsInput::Tell if (self.shuts_down)() => self.next_beat = now,
            StreamsInput::Tell => {}
            // The broker gives tasks to others when a member has left, and not before.
            StreamsInput::HandOver => self.outputs.push_back(StreamsOutput::HandedOver),
            StreamsInput::Leave(mode) => self.leave(mode, now),
        }
        self.reconcile(now);
        self.send_what_is_due(now);
    }

    pub(crate) fn poll_output(&mut self) -> Option<StreamsOutput> {
        self.outputs.pop_front()
    }

    /// When the next [`StreamsInput::Tick`] is due.
    pub(crate) fn deadline(&self) -> Millis {
        match (self.phase, &self.under_way) {
            (Phase::Leaving { until }, _) => until,
            (Phase::Ended, _) | (Phase::Aside { is_told: true }, None) => Millis::MAX,
            (_, Some(asked)) => asked.sent.saturating_add(PATIENCE),
            (Phase::Out { at }, None) => at,
            (Phase::Member | Phase::Aside { is_told: false }, None) => self.next_beat,
        }
    }

    fn closed(&mut self, tasks: &BTreeSet<TaskId>, now: Millis) {
        self.losing.retain(|task| !tasks.contains(task));
        let given_back: Vec<_> = self.revoking.intersection(tasks).copied().collect();
        if given_back.is_empty() {
            return;
        }
        for task in &given_back {
            self.revoking.remove(task);
            self.owned.remove(task);
        }
        self.publish();
        self.is_restless(now);
    }

    /// The tasks go without a commit; the member is in no group, and joins at some time.
    fn lose_everything(&mut self, at: Millis) {
        self.epoch = JOINING;
        self.phase = Phase::Out { at };
        (self.may_have_missed, self.is_asking_anew) = (false, false);
        self.revoking.clear();
        (self.target, self.reported) = (None, None);
        let tasks = std::mem::take(&mut self.owned);
        self.publish();
        if !tasks.is_empty() {
            self.losing.extend(tasks.iter().copied());
            self.outputs.push_back(StreamsOutput::Lost { tasks });
        }
    }

    /// IMPORTANT: nothing is owned from here on, so that nothing more is committed. The broker counts members, not their
    /// threads: what it takes from a member is all, and it gives nothing away that one has.
    fn step_aside(&mut self, now: Millis) {
        if !matches!(self.phase, Phase::Out { .. } | Phase::Member) {
            return;
        }
        let is_told = self.epoch == JOINING && self.under_way.is_none();
        self.lose_everything(now);
        self.next_beat = now;
        self.phase = Phase::Aside { is_told };
    }

    fn publish(&mut self) {
        let may_commit = self.epoch > JOINING && !self.is_asking_anew;
        let membership = may_commit.then(|| (self.epoch, self.id.clone()));
        self.outputs.push_back(StreamsOutput::Publish(Place { membership, owned: self.owned.clone() }));
    }

    /// Gives back and takes what the assignment says.
    fn reconcile(&mut self, now: Millis) {
        let (Phase::Member, Some(target)) = (self.phase, &self.target) else { return };
        let standby: BTreeSet<_> = target.standby.union(&target.warmup).copied().collect();
        let surplus: BTreeSet<_> =
            self.owned.difference(&target.active).filter(|task| !self.revoking.contains(task)).copied().collect();
        // IMPORTANT: an assignment that a lost answer may have replaced gives nothing any more.
        let may_take = !self.may_have_missed;
        let is_free = |task: &&TaskId| may_take && !self.losing.contains(task);
        let wanted: BTreeSet<_> = target.active.difference(&self.owned).filter(is_free).copied().collect();
        if standby != self.standby {
            let becoming_active = self.standby.intersection(&target.active);
            let tasks = standby.iter().chain(becoming_active).copied().collect();
            self.outputs.push_back(StreamsOutput::Standby { tasks });
            self.standby = standby;
        }
        if !surplus.is_empty() {
            self.revoking.extend(surplus.iter().copied());
            self.outputs.push_back(StreamsOutput::Revoked { tasks: surplus });
        }
        if !wanted.is_empty() {
            self.owned.extend(wanted.iter().copied());
            self.publish();
            self.outputs.push_back(StreamsOutput::Assigned { tasks: wanted, fence: Vec::new() });
            self.is_restless(now);
        }
        let is_waiting = self.statuses.iter().any(|(status, _)| status.is_waiting());
        if self.has_reconciled() && !is_waiting && !std::mem::replace(&mut self.is_settled, true) {
            self.outputs.push_back(StreamsOutput::Settled);
        }
    }

    fn has_reconciled(&self) -> bool {
        self.target.is_some() && self.revoking.is_empty() && self.losing.is_empty()
    }

    /// What this process has now: every task that it may still commit.
    fn possessions(&self) -> Tasks {
        let target = self.target.clone().unwrap_or_default();
        Tasks { active: self.owned.clone(), ..target }
    }

    fn is_restless(&mut self, now: Millis) {
        self.restless_until = now.saturating_add(RESTLESS_FOR);
        self.next_beat = self.next_beat.min(now.saturating_add(self.pace(now)));
    }

    /// The time between two heartbeats.
    fn pace(&self, now: Millis) -> Millis {
        let quiet = (self.interval / BEATS_PER_INTERVAL).max(1);
        if now < self.restless_until { quiet.min(RESTLESS_INTERVAL) } else { quiet }
    }

    /// The time of another try; the next pause is longer.
    fn after_pause(&mut self, now: Millis) -> Millis {
        let pause = self.backoff;
        self.backoff = (pause * 2).min(BACKOFF_MAX);
        now.saturating_add(pause)
    }

    fn send_what_is_due(&mut self, now: Millis) {
        if self.under_way.is_some() {
            if matches!(self.phase, Phase::Leaving { until } if now >= until) {
                self.end();
            }
            return;
        }
        match self.phase {
            Phase::Out { at } if now >= at => self.join(now),
            // IMPORTANT: not while it gives something back, which a join would say was given back already.
            Phase::Member if self.has_to_ask_anew() && self.has_reconciled() && now >= self.not_before => {
                self.ask_anew(now);
            }
            Phase::Member => {
                let has_news = self.has_reconciled() && self.reported.as_ref() != Some(&self.possessions());
                if (has_news && now >= self.not_before) || now >= self.next_beat {
                    self.beat(now);
                }
            }
            Phase::Aside { is_told: true } if self.losing.is_empty() => self.join_as_new(now),
            Phase::Aside { is_told: false } if now >= self.next_beat => self.send(LEAVING, None, None, None, now),
            Phase::Leaving { until } if now >= until => self.end(),
            Phase::Leaving { .. } => self.send(LEAVING, None, None, None, now),
            Phase::Out { .. } | Phase::Aside { .. } | Phase::Ended => {}
        }
    }

    fn join_as_new(&mut self, now: Millis) {
        self.phase = Phase::Out { at: now };
        self.join(now);
    }

    fn join(&mut self, now: Millis) {
        let introduction = Some(Arc::clone(&self.introduction));
        self.send(JOINING, introduction, Some(Tasks::default()), None, now);
    }

    /// Once the coordinator has said that it still knows the member, and not what it shall have.
    fn has_to_ask_anew(&self) -> bool {
        self.may_have_missed && self.reported.is_some()
    }

    fn ask_anew(&mut self, now: Millis) {
        tracing::debug!("an answer of the coordinator was lost: asks again for the tasks of epoch {}", self.epoch);
        self.is_asking_anew = true;
        self.publish();
        self.join(now);
    }

    /// Tasks go without a commit, and everything else goes on.
    fn lose(&mut self, tasks: BTreeSet<TaskId>) {
        if !tasks.is_empty() {
            self.owned.retain(|task| !tasks.contains(task));
            self.revoking.retain(|task| !tasks.contains(task));
            self.losing.extend(tasks.iter().copied());
            self.publish();
            self.outputs.push_back(StreamsOutput::Lost { tasks });
        }
    }

    fn beat(&mut self, now: Millis) {
        let possessions = self.possessions();
        let owned = (self.reported.as_ref() != Some(&possessions)).then_some(possessions);
        let mut progress = None;
        if self.progress_interval > 0 && now >= self.next_progress {
            self.next_progress = now.saturating_add(self.progress_interval);
            let current = (self.progress)();
            if current != self.told_progress {
                self.told_progress.clone_from(&current);
                progress = Some(current);
            }
        }
        self.send(self.epoch, None, owned, progress, now);
    }

    fn send(
        &mut self,
        epoch: i32,
        introduction: Option<Arc<Introduction>>,
        owned: Option<Tasks>,
        progress: Option<Vec<Progress>>,
        now: Millis,
    ) {
        self.numbers += 1;
        let number = self.numbers;
        self.next_beat = now.saturating_add(self.pace(now));
        self.under_way = Some(UnderWay { number, epoch, owned: owned.clone(), sent: now });
        let (member, endpoint_epoch) = (self.id.clone(), self.endpoint_epoch);
        let shuts_down = epoch > JOINING && (self.shuts_down)();
        let heartbeat = Heartbeat { number, member, epoch, endpoint_epoch, introduction, owned, progress, shuts_down };
        self.outputs.push_back(StreamsOutput::Send(heartbeat));
    }

    fn leave(&mut self, mode: LeaveMode, now: Millis) {
        let is_known = match self.phase {
            Phase::Aside { is_told } => !is_told,
            Phase::Out { .. } | Phase::Member | Phase::Leaving { .. } | Phase::Ended => {
                self.epoch > JOINING || self.under_way.is_some()
            }
        };
        self.lose_everything(now);
        if mode == LeaveMode::Stay || !is_known {
            return self.end();
        }
        self.phase = Phase::Leaving { until: now.saturating_add(LEAVE_TIMEOUT) };
    }

    fn end(&mut self) {
        self.phase = Phase::Ended;
        self.outputs.push_back(StreamsOutput::Ended);
    }

    fn fail(&mut self, kind: ErrorKind, reason: String) {
        self.lose_everything(Millis::MAX);
        self.phase = Phase::Ended;
        self.outputs.push_back(StreamsOutput::Failed(kind, reason));
    }
}
