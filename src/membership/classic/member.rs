//! A member of a classic group: what it asks, when, and what follows from each answer. Sans-I/O; time is an argument.
//!
//! ```text
//!              ┌───────────── 27: another rebalance, every task goes on ─────────────┐
//!              v                                                                     |
//!   Unjoined ──> Joining ──> Syncing ──> Stable ── to give back: Revoked -> closed -> claims without them, joins again
//!              ^                                  └ to add: Assigned
//!              └── 22, 25, no word for the session timeout: Lost ──┘
//! ```
//!
//! What keeps two members from working at one task under valid generations:
//! * A member **claims** in its join what it owns. The leader gives nobody else what is claimed; who is to hand a task over
//!   closes it first and joins again without it.
//! * A claim counts from one generation to the next. Who was left out of one has lost what it had.
//! * `(generation, owned tasks)` is published as one value ([`Place`]), and a commit is of owned tasks only.

mod answers;
#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::protocol::{GroupAnswer, GroupMember, GroupRequest, MemberAssignment, RequestKind};
use crate::error::{ErrorKind, Result};
use crate::membership::LeaveMode;
use crate::topology::TaskId;

/// Milliseconds of a clock that does not jump.
pub(crate) type Millis = i64;

/// What is in the bytes that members give each other, which the coordinator hands on unread.
pub(crate) trait Assignor: Send {
    /// What this member tells the leader.
    fn subscribe(&mut self, claim: &Claim<'_>) -> Vec<u8>;

    /// Decides for everybody, as the leader, whose id it is.
    fn assign(&mut self, leader: &str, generation: i32, members: &[GroupMember]) -> Vec<MemberAssignment>;

    /// Reads what the leader has decided for this member.
    ///
    /// # Errors
    /// `Corrupted`: it cannot be read; the group is asked again. `Invalid`: there is no place here for this instance.
    fn read(&mut self, user_data: &[u8]) -> Result<Decision>;
}

/// What a member says that it has.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Claim<'a> {
    /// In which it was given the tasks; −1 before the first. Of two claims to a task the later one is right.
    pub generation: i32,
    pub owned: &'a BTreeSet<TaskId>,
    /// Counts the joins: a follower's join starts a rebalance only when its bytes differ from those before (R11.4).
    pub joins: u32,
    /// It wants to hand over what it has.
    pub is_leaving: bool,
}

/// What the leader has decided for a member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Decision {
    /// For which it was made.
    pub generation: i32,
    pub active: BTreeSet<TaskId>,
    /// Whose stores are to be kept up to date here; none of them is active here.
    pub standby: BTreeSet<TaskId>,
    /// Of those, the ones that come here as soon as their stores have caught up.
    pub warmup: BTreeSet<TaskId>,
    /// Transactional ids of processes that are gone: what they have left open is ended before offsets are read.
    pub fence: Vec<String>,
    /// Nobody stays in the group to whom it could hand over what it has.
    pub is_alone: bool,
    /// Every instance of the application is to end.
    pub shuts_down: bool,
    pub fit: Fit,
}

/// Whether the decision was made for what this process runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fit {
    Current,
    /// The leader did not know what this process runs or has now: if this is the first one that it reads, an assignment
    /// that a static member found after a restart.
    Outdated,
}

#[derive(Debug, Clone)]
pub(crate) struct MemberSettings {
    /// Static membership, when given.
    pub instance: Option<String>,
    pub session_timeout: Duration,
    pub rebalance_timeout: Duration,
}

pub(crate) enum MemberInput {
    /// Nothing but time. Due at [`Member::deadline`].
    Tick,
    Answer(GroupAnswer),
    /// Tasks of a `Revoked` or `Lost` are closed.
    Closed(BTreeSet<TaskId>),
    /// The stores of standbys have caught up.
    WarmedUp(BTreeSet<TaskId>),
    /// Other topics, and another assignor with them.
    Subscribe(Vec<Arc<str>>, Box<dyn Assignor>),
    /// What this process tells of itself has changed.
    Tell,
    /// The tasks are not closed, and nobody knows when they will be: others are to have them all the same. Told by
    /// [`MemberInput::Closed`] when they are.
    Abandon(BTreeSet<TaskId>),
    /// The process wants to leave: others are to take over what it has, as soon as they can go on with it.
    HandOver,
    /// Everything is closed: the end.
    Leave(LeaveMode),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum MemberOutput<Request = GroupRequest> {
    Send(Request),
    /// Comes before the event that follows from it.
    Publish(Place),
    /// Tasks in addition to those owned.
    Assigned {
        tasks: BTreeSet<TaskId>,
        fence: Vec<String>,
    },
    /// All standbys of this process. One that becomes active is among them until it does. Comes before the events that
    /// follow from the same assignment, so that what is closed can stay as a standby.
    Standby {
        tasks: BTreeSet<TaskId>,
    },
    /// To be committed and closed, and told by [`MemberInput::Closed`].
    Revoked {
        tasks: BTreeSet<TaskId>,
    },
    /// To be closed without a commit, and told by [`MemberInput::Closed`].
    Lost {
        tasks: BTreeSet<TaskId>,
    },
    /// The assignment is complete: nothing is to be given back.
    Settled,
    /// What others can take they have taken.
    HandedOver,
    /// Somebody has said that every instance is to end.
    ShutDown,
    /// Nothing can be done here, for this reason; nothing follows.
    Failed(ErrorKind, String),
    /// The membership has ended; nothing follows.
    Ended,
}

/// Who may commit what.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Place {
    /// The generation and the member's id in it. None: no member of the group.
    pub membership: Option<(i32, String)>,
    pub owned: BTreeSet<TaskId>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// The join is to be sent at this time.
    Unjoined {
        at: Millis,
    },
    Joining,
    /// The sync is under way, or to be sent at this time.
    Syncing {
        at: Millis,
    },
    Stable,
    /// Waits for the answer until then.
    Leaving {
        until: Millis,
    },
    Ended,
}

/// A request that is not answered yet.
#[derive(Debug, Clone, Copy)]
struct UnderWay {
    kind: RequestKind,
    generation: i32,
    sent: Millis,
}

/// The longest time between two heartbeats: a rebalance is heard of by one.
const HEARTBEAT_MAX: Millis = 1000;

/// How late a join may come to a broker whose connection was given up.
const STRAY: Millis = 60_000;

const BACKOFF_MIN: Millis = 100;
const BACKOFF_MAX: Millis = 2000;

/// How long the last word may take.
const LEAVE_TIMEOUT: Millis = 3000;

pub(crate) struct Member {
    settings: MemberSettings,
    topics: Vec<Arc<str>>,
    assignor: Box<dyn Assignor>,
    /// Empty while the group has given none.
    id: String,
    /// −1: in none.
    generation: i32,
    phase: Phase,
    /// Given by the group and not closed since.
    owned: BTreeSet<TaskId>,
    /// Of the owned ones: asked back.
    revoking: BTreeSet<TaskId>,
    /// Not owned any more, and not closed yet.
    losing: BTreeSet<TaskId>,
    /// The same, and nobody waits for it.
    abandoned: BTreeSet<TaskId>,
    /// What the leader was told that this member owns.
    claimed: BTreeSet<TaskId>,
    /// The assignment of the generation; none while there is a rebalance.
    target: Option<BTreeSet<TaskId>>,
    fence: Vec<String>,
    /// The standbys of the last assignment.
    standby: BTreeSet<TaskId>,
    /// Those of them that the group waits for.
    warmup: BTreeSet<TaskId>,
    /// Standbys that have caught up since the last join.
    warmed: BTreeSet<TaskId>,
    joins: u32,
    /// Kept for a repetition, which has to be the same bytes.
    join: Option<GroupRequest>,
    sync: Option<GroupRequest>,
    /// The join or sync that is under way.
    asking: Option<UnderWay>,
    /// The heartbeat or leave that is under way.
    beating: Option<UnderWay>,
    /// Joins whose answers were given up: how many, and when the last one was. Each may still come to the broker.
    strays: u32,
    strayed: Millis,
    next_beat: Millis,
    /// When the last heartbeat was sent that the coordinator has acknowledged.
    alive: Millis,
    backoff: Millis,
    /// Whether this process has had an assignment since it had nothing.
    has_synced: bool,
    is_settled: bool,
    /// It wants to hand over what it has.
    is_leaving: bool,
    has_handed_over: bool,
    /// The last assignment says that nobody else stays.
    is_alone: bool,
    outputs: VecDeque<MemberOutput>,
}

impl Member {
    pub(crate) fn new(
        settings: MemberSettings,
        topics: Vec<Arc<str>>,
        assignor: Box<dyn Assignor>,
        now: Millis,
    ) -> Member {
        Member {
            settings,
            topics,
            assignor,
            id: String::new(),
            generation: -1,
            phase: Phase::Unjoined { at: now },
            owned: BTreeSet::new(),
            revoking: BTreeSet::new(),
            losing: BTreeSet::new(),
            abandoned: BTreeSet::new(),
            claimed: BTreeSet::new(),
            target: None,
            fence: Vec::new(),
            standby: BTreeSet::new(),
            warmup: BTreeSet::new(),
            warmed: BTreeSet::new(),
            joins: 0,
            join: None,
            sync: None,
            asking: None,
            beating: None,
            strays: 0,
            strayed: now,
            next_beat: now,
            alive: now,
            backoff: BACKOFF_MIN,
            has_synced: false,
            is_settled: false,
            is_leaving: false,
            has_handed_over: false,
            is_alone: false,
            outputs: VecDeque::new(),
        }
    }

    pub(crate) fn on(&mut self, input: MemberInput, now: Millis) {
        if self.phase == Phase::Ended {
            return;
        }
        // IMPORTANT: first of all, or an answer that has waited for a process that was stopped would count as fresh.
        self.check_lease(now);
        match input {
            MemberInput::Tick => {}
            MemberInput::Answer(answer) => self.answered(answer, now),
            MemberInput::Closed(tasks) => self.closed(&tasks),
            MemberInput::WarmedUp(tasks) => self.warmed.extend(tasks),
            MemberInput::Subscribe(topics, assignor) => {
                (self.topics, self.assignor) = (topics, assignor);
                self.join_again(now);
            }
            MemberInput::Tell => self.join_again(now),
            MemberInput::Abandon(tasks) => self.abandon(&tasks, now),
            MemberInput::HandOver => {
                self.is_leaving = true;
                self.join_again(now);
            }
            MemberInput::Leave(mode) => self.leave(mode, now),
        }
        self.reconcile(now);
        self.tell_handed_over();
        self.send_what_is_due(now);
    }

    pub(crate) fn poll_output(&mut self) -> Option<MemberOutput> {
        self.outputs.pop_front()
    }

    /// When the next [`MemberInput::Tick`] is due.
    pub(crate) fn deadline(&self) -> Millis {
        let session = millis(self.settings.session_timeout);
        let beat = match self.beating {
            Some(beat) => beat.sent.saturating_add(session),
            None if self.generation >= 0 => self.next_beat,
            None => Millis::MAX,
        };
        let lease = if self.owned.is_empty() { Millis::MAX } else { self.alive.saturating_add(session) };
        let phase = match (self.phase, self.asking) {
            (Phase::Leaving { until }, _) => return until,
            (_, Some(asked)) => asked.sent.saturating_add(self.patience()),
            (Phase::Unjoined { at } | Phase::Syncing { at }, None) => at,
            (Phase::Joining | Phase::Stable | Phase::Ended, None) => Millis::MAX,
        };
        beat.min(lease).min(phase)
    }

    /// How long a join or sync may take: as long as the group may wait for others, and then some.
    fn patience(&self) -> Millis {
        millis(self.settings.rebalance_timeout).saturating_add(millis(self.settings.session_timeout))
    }

    /// Without a word of the coordinator for the session timeout, others have the tasks, or will.
    fn check_lease(&mut self, now: Millis) {
        let session = millis(self.settings.session_timeout);
        if self.beating.is_some_and(|beat| now.saturating_sub(beat.sent) >= session) {
            self.beating = None;
        }
        let patience = self.patience();
        if self.asking.take_if(|asked| now.saturating_sub(asked.sent) >= patience).is_some() {
            self.join = None;
            self.rejoin_at(now);
        }
        if self.generation >= 0 && !self.owned.is_empty() && now.saturating_sub(self.alive) >= session {
            tracing::warn!("no word of the group's coordinator for {session} ms: its tasks may be elsewhere by now");
            self.lose_everything();
            if self.phase != Phase::Joining {
                self.rejoin_at(now);
            }
        }
    }

    /// The tasks go without a commit; the member is in no generation.
    fn lose_everything(&mut self) {
        self.generation = -1;
        // Its next join may find what was decided for what it had.
        self.has_synced = false;
        self.revoking.clear();
        self.join = None;
        let tasks = std::mem::take(&mut self.owned);
        self.publish();
        if !tasks.is_empty() {
            self.losing.extend(tasks.iter().copied());
            self.outputs.push_back(MemberOutput::Lost { tasks });
        }
    }

    fn publish(&mut self) {
        let membership = (self.generation >= 0).then(|| (self.generation, self.id.clone()));
        self.outputs.push_back(MemberOutput::Publish(Place { membership, owned: self.owned.clone() }));
    }

    fn closed(&mut self, tasks: &BTreeSet<TaskId>) {
        self.losing.retain(|task| !tasks.contains(task));
        self.abandoned.retain(|task| !tasks.contains(task));
        let given_back: Vec<_> = self.revoking.intersection(tasks).copied().collect();
        if given_back.is_empty() {
            return;
        }
        for task in &given_back {
            self.revoking.remove(task);
            self.owned.remove(task);
        }
        if self.phase != Phase::Joining {
            // One that is to be repeated says the truth again; one that is under way was right when it was sent.
            self.join = None;
        }
        self.publish();
    }

    /// IMPORTANT: not owned from here on, so that nothing more is committed of them; and only a join that does not claim
    /// them, after which commits of the generations before are refused, lets others have them.
    fn abandon(&mut self, tasks: &BTreeSet<TaskId>, now: Millis) {
        let tasks: BTreeSet<_> = self.owned.intersection(tasks).copied().collect();
        if !tasks.is_empty() {
            self.owned.retain(|task| !tasks.contains(task));
            self.revoking.retain(|task| !tasks.contains(task));
            self.abandoned.extend(tasks.iter().copied());
            self.publish();
            self.outputs.push_back(MemberOutput::Lost { tasks });
        }
        self.join_again(now);
    }

    fn tell_handed_over(&mut self) {
        let has_handed_over = self.owned.is_empty() || (self.is_alone && self.phase == Phase::Stable);
        if self.is_leaving && has_handed_over && !std::mem::replace(&mut self.has_handed_over, true) {
            self.outputs.push_back(MemberOutput::HandedOver);
        }
    }

    /// Gives back and takes what the assignment says, once there is one.
    fn reconcile(&mut self, now: Millis) {
        let (Phase::Stable, Some(target)) = (self.phase, &self.target) else { return };
        let surplus: BTreeSet<_> =
            self.owned.difference(target).filter(|task| !self.revoking.contains(task)).copied().collect();
        let is_open = |task: &&TaskId| self.losing.contains(task) || self.abandoned.contains(task);
        let wanted: BTreeSet<_> = target.difference(&self.owned).filter(|task| !is_open(task)).copied().collect();
        // The leader holds for this member what it has claimed: who has less by now tells it so.
        let has_given_up = self.claimed.difference(target).next().is_some();
        if !surplus.is_empty() {
            self.revoking.extend(surplus.iter().copied());
            self.outputs.push_back(MemberOutput::Revoked { tasks: surplus });
        }
        if !wanted.is_empty() {
            self.owned.extend(wanted.iter().copied());
            self.publish();
            self.outputs.push_back(MemberOutput::Assigned { tasks: wanted, fence: self.fence.clone() });
        }
        if !self.revoking.is_empty() || !self.losing.is_empty() {
            return;
        }
        // What caught up while the last join was under way was not told by it.
        let has_warmed_up = !self.warmed.is_disjoint(&self.warmup);
        if has_given_up || has_warmed_up {
            self.join_again(now);
        } else if !std::mem::replace(&mut self.is_settled, true) {
            self.outputs.push_back(MemberOutput::Settled);
        }
    }

    /// Joins with what is owned now, as soon as nothing else is under way. The tasks go on.
    fn join_again(&mut self, now: Millis) {
        self.join = None;
        self.rejoin_at(now);
    }

    fn rejoin_at(&mut self, at: Millis) {
        if self.is_ending() {
            return;
        }
        (self.target, self.sync) = (None, None);
        self.phase = Phase::Unjoined { at };
    }

    fn is_ending(&self) -> bool {
        matches!(self.phase, Phase::Leaving { .. } | Phase::Ended)
    }

    /// The time of another try; the next pause is longer.
    fn after_pause(&mut self, now: Millis) -> Millis {
        let pause = self.backoff;
        self.backoff = (pause * 2).min(BACKOFF_MAX);
        now.saturating_add(pause)
    }

    fn send_what_is_due(&mut self, now: Millis) {
        match self.phase {
            Phase::Unjoined { at } if now >= at && self.asking.is_none() => {
                let request = self.join.take().unwrap_or_else(|| self.make_join());
                self.join = Some(request.clone());
                self.phase = Phase::Joining;
                self.ask(RequestKind::Join, request, now);
            }
            Phase::Syncing { at } if now >= at && self.asking.is_none() => {
                if let Some(request) = self.sync.clone() {
                    self.ask(RequestKind::Sync, request, now);
                }
            }
            Phase::Leaving { until } if now >= until => self.end(),
            Phase::Leaving { .. } if self.beating.is_none() => {
                let (member, instance) = (self.id.clone(), self.settings.instance.clone());
                self.beat(RequestKind::Leave, GroupRequest::Leave { member, instance }, now);
            }
            Phase::Unjoined { .. } | Phase::Joining | Phase::Syncing { .. } | Phase::Stable | Phase::Ended => {}
            Phase::Leaving { .. } => return,
        }
        let is_member = self.generation >= 0 && !self.is_ending();
        if is_member && self.beating.is_none() && now >= self.next_beat {
            let (generation, member) = (self.generation, self.id.clone());
            let instance = self.settings.instance.clone();
            self.beat(RequestKind::Heartbeat, GroupRequest::Heartbeat { generation, member, instance }, now);
        }
    }

    fn make_join(&mut self) -> GroupRequest {
        self.joins = self.joins.wrapping_add(1);
        self.claimed.clone_from(&self.owned);
        self.warmed.clear();
        let claim =
            Claim { generation: self.generation, owned: &self.claimed, joins: self.joins, is_leaving: self.is_leaving };
        GroupRequest::Join {
            member: self.id.clone(),
            instance: self.settings.instance.clone(),
            session_timeout: self.settings.session_timeout,
            rebalance_timeout: self.settings.rebalance_timeout,
            topics: self.topics.clone(),
            user_data: self.assignor.subscribe(&claim),
        }
    }

    fn ask(&mut self, kind: RequestKind, request: GroupRequest, now: Millis) {
        self.asking = Some(UnderWay { kind, generation: self.generation, sent: now });
        self.outputs.push_back(MemberOutput::Send(request));
    }

    fn beat(&mut self, kind: RequestKind, request: GroupRequest, now: Millis) {
        self.beating = Some(UnderWay { kind, generation: self.generation, sent: now });
        self.next_beat = now.saturating_add(self.heartbeat_interval());
        self.outputs.push_back(MemberOutput::Send(request));
    }

    fn heartbeat_interval(&self) -> Millis {
        (millis(self.settings.session_timeout) / 5).clamp(1, HEARTBEAT_MAX)
    }

    fn leave(&mut self, mode: LeaveMode, now: Millis) {
        self.lose_everything();
        let is_known = !self.id.is_empty() || self.settings.instance.is_some();
        if mode == LeaveMode::Stay || !is_known {
            self.end();
        } else {
            self.phase = Phase::Leaving { until: now.saturating_add(LEAVE_TIMEOUT) };
        }
    }

    fn end(&mut self) {
        self.phase = Phase::Ended;
        self.outputs.push_back(MemberOutput::Ended);
    }

    fn fail(&mut self, kind: ErrorKind, reason: String) {
        self.lose_everything();
        self.phase = Phase::Ended;
        self.outputs.push_back(MemberOutput::Failed(kind, reason));
    }
}

fn millis(duration: Duration) -> Millis {
    Millis::try_from(duration.as_millis()).unwrap_or(Millis::MAX)
}
