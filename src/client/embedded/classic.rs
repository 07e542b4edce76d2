//! A classic group at the level of its requests, as Kafka's `ClassicGroup` and `GroupMetadataManager` keep one.
//!
//! ```text
//!           join               all have joined, or the time for it is over                 the leader's sync
//!   Empty ────────> Preparing ─────────────────────────────────────────────> Completing ──────────────────> Stable
//!     ^              │   ^                                                       │                             │
//!     └── nobody ────┘   └─────────────── join, leave, session over ─────────────┴─────────────────────────────┘
//! ```
//!
//! No clock, no lock, no waiting: what is asked comes with the time, and answers go to connections. A join waits for
//! the other members, a sync for the leader, so an answer may come out of somebody else's request, or of time.
//!
//! Kafka's `group.initial.rebalance.delay.ms` is 0 here: the first member is alone in the first generation.

use std::collections::BTreeMap;
use std::mem;
use std::ops::RangeInclusive;
use std::sync::Arc;

use crate::client::embedded::standing::{Instance, Round, Standing};
use crate::membership::classic::protocol::{GroupAnswer, GroupError, GroupMember, MemberAssignment, RequestKind};
use crate::record::TopicPartition;

#[cfg(all(test, feature = "testing"))]
mod failover;
mod time;

/// `group.min.session.timeout.ms` is 1, so that a demo or a test shows a failure soon; the maximum is Kafka's default.
const SESSION_MS: RangeInclusive<i64> = 1..=1_800_000;

/// How long a new member's join is kept waiting: it has no session yet. Kafka's `classicGroupNewMemberJoinTimeoutMs`.
const NEW_MEMBER_JOIN_MS: i64 = 300_000;

/// `group.max.size`, of which Kafka's default is no limit.
const MEMBERS_MAX: usize = 1_000;

/// What members and assignments may take together: Kafka keeps them in one record of `__consumer_offsets`.
const BYTES_MAX: usize = 1 << 20;

/// Where an answer goes.
pub(super) type Connection = u64;

#[derive(Debug, Default)]
pub(super) struct ClassicGroup {
    phase: Phase,
    generation: i32,
    leader: Option<String>,
    members: BTreeMap<String, Member>,
    /// Ids that were given out and have not joined, and when they are forgotten.
    pending: BTreeMap<String, i64>,
    /// When members that have not asked for their assignment are removed.
    sync_until: Option<i64>,
    answers: Vec<(Connection, GroupAnswer)>,
    #[cfg(all(test, feature = "testing"))]
    written: failover::Written,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Phase {
    #[default]
    Empty,
    /// Waits for the members' joins, until then.
    Preparing {
        until: i64,
    },
    /// Waits for the leader's assignments.
    Completing,
    Stable,
}

#[derive(Debug, Clone)]
struct Member {
    instance: Option<String>,
    session_ms: i64,
    rebalance_ms: i64,
    subscription: Subscription,
    assignment: Assignment,
    /// Whose join waits for the others.
    joining: Option<Connection>,
    /// Whose sync waits for the leader.
    syncing: Option<Connection>,
    /// Has joined this generation, or was kept in it, and has not asked for its assignment.
    owes_sync: bool,
    /// Has never been answered a join.
    is_new: bool,
    /// None while it waits for others: time does not count against it.
    expires: Option<i64>,
}

/// What a member says of itself. Its bytes decide whether a join that is repeated changes anything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Subscription {
    pub(super) topics: Vec<Arc<str>>,
    pub(super) user_data: Vec<u8>,
}

#[derive(Debug, Default, Clone)]
struct Assignment {
    partitions: Vec<TopicPartition>,
    user_data: Vec<u8>,
}

/// A JoinGroup request.
#[derive(Debug)]
pub(super) struct Join {
    pub(super) connection: Connection,
    /// Empty before the group has given an id.
    pub(super) member: String,
    /// The id for a member that has none.
    pub(super) new_id: String,
    pub(super) instance: Option<String>,
    pub(super) session_ms: i64,
    pub(super) rebalance_ms: i64,
    pub(super) subscription: Subscription,
}

/// Who asks for anything else.
#[derive(Debug)]
pub(super) struct Asker<'a> {
    pub(super) connection: Connection,
    pub(super) member: &'a str,
    pub(super) instance: Option<&'a str>,
}

// ---- requests ----

impl ClassicGroup {
    pub(super) fn join(&mut self, join: Join, now: i64) {
        let refused = if !SESSION_MS.contains(&join.session_ms) {
            Some(GroupError::InvalidSessionTimeout)
        } else if !self.has_room_for(&join.member) {
            self.remove(&join.member);
            Some(GroupError::MaxSizeReached)
        } else {
            None
        };
        match refused {
            Some(error) => self.refuse(join.connection, RequestKind::Join, error),
            None if join.member.is_empty() => self.join_without_id(join, now),
            None => self.join_with_id(join, now),
        }
    }

    fn join_without_id(&mut self, mut join: Join, now: i64) {
        let id = mem::take(&mut join.new_id);
        let holder = join.instance.as_deref().map(|instance| self.holder(instance).map(str::to_owned));
        match holder {
            Some(Some(before)) => self.replace(&before, &id, join, now),
            Some(None) => self.add(id, join, now),
            None => {
                // Without the detour, a client whose answers are lost would leave a new member behind each time.
                self.pending.insert(id.clone(), now.saturating_add(join.session_ms));
                self.refuse(join.connection, RequestKind::Join, GroupError::MemberIdRequired(id));
            }
        }
    }

    fn join_with_id(&mut self, mut join: Join, now: i64) {
        let id = mem::take(&mut join.member);
        if self.pending.contains_key(&id) {
            return match join.instance {
                None => self.add(id, join, now),
                Some(_) => {
                    let why = "a member that was given its id without an instance id joins with one".to_owned();
                    self.refuse(join.connection, RequestKind::Join, GroupError::Other(-1, why));
                }
            };
        }
        if let Err(error) = self.standing(&id, join.instance.as_deref()).check_member() {
            return self.refuse(join.connection, RequestKind::Join, error);
        }
        let is_leader = self.is_leader(&id);
        let Some(member) = self.members.get_mut(&id) else { return };
        let is_news = match self.phase {
            Phase::Preparing { .. } => true,
            Phase::Completing => member.subscription != join.subscription,
            Phase::Stable => is_leader || member.subscription != join.subscription,
            Phase::Empty => false,
        };
        if is_news {
            member.update(join);
            self.rebalance(now);
        } else {
            self.answer_join(&id, join.connection, false);
        }
    }

    fn add(&mut self, id: String, join: Join, now: i64) {
        self.pending.remove(&id);
        self.leader.get_or_insert_with(|| id.clone());
        let member = Member {
            instance: join.instance,
            session_ms: join.session_ms,
            rebalance_ms: join.rebalance_ms,
            subscription: join.subscription,
            assignment: Assignment::default(),
            joining: Some(join.connection),
            syncing: None,
            owes_sync: false,
            is_new: true,
            expires: Some(now.saturating_add(NEW_MEMBER_JOIN_MS)),
        };
        self.members.insert(id, member);
        self.rebalance(now);
    }

    /// A static member comes back under another id and takes its old place.
    fn replace(&mut self, before: &str, id: &str, join: Join, now: i64) {
        let Some(mut member) = self.members.remove(before) else { return };
        if let Some(twin) = member.joining.take() {
            self.refuse(twin, RequestKind::Join, GroupError::FencedInstance);
        }
        if let Some(twin) = member.syncing.take() {
            self.refuse(twin, RequestKind::Sync, GroupError::FencedInstance);
        }
        if self.is_leader(before) {
            self.leader = Some(id.to_owned());
        }
        let connection = join.connection;
        member.is_new = false;
        // By the session it had: the new one counts from its first heartbeat, as in Kafka.
        member.renew(now);
        member.update(join);
        self.members.insert(id.to_owned(), member);
        match self.phase {
            // Its bytes are kept, and nobody is told (R11.4).
            Phase::Stable => {
                if let Some(member) = self.members.get_mut(id) {
                    member.joining = None;
                }
                #[cfg(all(test, feature = "testing"))]
                self.write();
                self.answer_join(id, connection, self.is_leader(id));
            }
            // The leader may be giving tasks to the old id at this moment.
            Phase::Completing => self.prepare(now),
            Phase::Preparing { .. } | Phase::Empty => self.complete_join_if_all(now),
        }
    }

    pub(super) fn sync(&mut self, by: &Asker<'_>, generation: i32, assignments: Vec<MemberAssignment>, now: i64) {
        if let Err(error) = self.standing(by.member, by.instance).check_generation(generation) {
            return self.refuse(by.connection, RequestKind::Sync, error);
        }
        let is_leader = self.is_leader(by.member);
        let Some(member) = self.members.get_mut(by.member) else { return };
        match self.phase {
            Phase::Preparing { .. } | Phase::Empty => {
                self.refuse(by.connection, RequestKind::Sync, GroupError::RebalanceInProgress);
            }
            Phase::Completing => {
                member.syncing = Some(by.connection);
                self.has_synced(by.member);
                if is_leader {
                    self.distribute(assignments, now);
                }
            }
            // What a leader says now is not heeded.
            Phase::Stable => {
                let answer = member.assignment.answer();
                self.answers.push((by.connection, answer));
                self.has_synced(by.member);
            }
        }
    }

    pub(super) fn heartbeat(&mut self, by: &Asker<'_>, generation: i32, now: i64) {
        if let Err(error) = self.standing(by.member, by.instance).check_generation(generation) {
            return self.refuse(by.connection, RequestKind::Heartbeat, error);
        }
        if let Some(member) = self.members.get_mut(by.member) {
            member.renew(now);
        }
        match self.phase {
            Phase::Preparing { .. } => {
                self.refuse(by.connection, RequestKind::Heartbeat, GroupError::RebalanceInProgress);
            }
            Phase::Completing | Phase::Stable | Phase::Empty => self.answers.push((by.connection, GroupAnswer::Alive)),
        }
    }

    /// Without an id, a static member is taken out by its instance id: by itself or by somebody else.
    pub(super) fn leave(&mut self, by: &Asker<'_>, now: i64) {
        let leaver = if by.member.is_empty() {
            let holder = by.instance.and_then(|instance| self.holder(instance)).map(str::to_owned);
            holder.ok_or(GroupError::UnknownMemberId)
        } else if self.pending.contains_key(by.member) {
            Ok(by.member.to_owned())
        } else {
            self.standing(by.member, by.instance).check_member().map(|()| by.member.to_owned())
        };
        match leaver {
            Ok(id) => {
                self.remove(&id);
                self.answers.push((by.connection, GroupAnswer::Left));
                self.rebalance(now);
            }
            Err(error) => self.refuse(by.connection, RequestKind::Leave, error),
        }
    }

    // ---- the rounds ----

    /// Something has changed: a new round begins, or the one under way may be complete.
    fn rebalance(&mut self, now: i64) {
        match self.phase {
            Phase::Preparing { .. } => self.complete_join_if_all(now),
            Phase::Empty | Phase::Completing | Phase::Stable => self.prepare(now),
        }
    }

    fn prepare(&mut self, now: i64) {
        if self.phase == Phase::Completing {
            self.refuse_syncs(&GroupError::RebalanceInProgress, now);
        }
        self.sync_until = None;
        self.members.values_mut().for_each(|member| member.owes_sync = false);
        let is_first = self.phase == Phase::Empty;
        self.phase = Phase::Preparing { until: self.rebalance_until(now) };
        if is_first { self.complete_join(now) } else { self.complete_join_if_all(now) }
    }

    fn complete_join_if_all(&mut self, now: i64) {
        if self.pending.is_empty() && self.members.values().all(|member| member.joining.is_some()) {
            self.complete_join(now);
        }
    }

    /// Goes on with who has joined, and with static members whether they have or not: the leader sees no difference
    /// (R11.1).
    fn complete_join(&mut self, now: i64) {
        let is_absent = |member: &Member| member.joining.is_none() && member.instance.is_none();
        let absent: Vec<_> = self.ids(is_absent).collect();
        absent.iter().for_each(|id| self.remove(id));
        if !self.members.is_empty() && !self.leads_who_has_joined() {
            self.phase = Phase::Preparing { until: self.rebalance_until(now) };
            return;
        }
        self.generation = self.generation.saturating_add(1);
        if self.members.is_empty() {
            self.phase = Phase::Empty;
            #[cfg(all(test, feature = "testing"))]
            self.write();
            return;
        }
        self.phase = Phase::Completing;
        self.sync_until = Some(self.rebalance_until(now));
        let mut joined = Vec::new();
        for (id, member) in &mut self.members {
            joined.extend(member.joining.take().map(|connection| (id.clone(), connection)));
            member.is_new = false;
            member.owes_sync = true;
            member.renew(now);
        }
        joined.iter().for_each(|(id, connection)| self.answer_join(id, *connection, false));
    }

    /// Another leader in the place of one that has not joined. Whether there is one that has.
    fn leads_who_has_joined(&mut self) -> bool {
        let has_joined = |id: &String| self.members.get(id).is_some_and(|member| member.joining.is_some());
        if !self.leader.as_ref().is_some_and(has_joined) {
            let Some(next) = self.ids(|member| member.joining.is_some()).next() else { return false };
            self.leader = Some(next);
        }
        true
    }

    fn distribute(&mut self, assignments: Vec<MemberAssignment>, now: i64) {
        let mut of: BTreeMap<String, Assignment> = assignments
            .into_iter()
            .map(|one| (one.member, Assignment { partitions: one.partitions, user_data: one.user_data }))
            .collect();
        let subscribed: usize = self.members.values().map(|member| member.subscription.bytes()).sum();
        let assigned: usize = of.values().map(Assignment::bytes).sum();
        if subscribed + assigned > BYTES_MAX {
            let why = format!("the group's members and assignments are beyond {BYTES_MAX} bytes");
            self.refuse_syncs(&GroupError::Other(-1, why), now);
            return self.rebalance(now);
        }
        for (id, member) in &mut self.members {
            member.assignment = of.remove(id).unwrap_or_default();
            if let Some(connection) = member.syncing.take() {
                member.renew(now);
                self.answers.push((connection, member.assignment.answer()));
            }
        }
        self.phase = Phase::Stable;
        #[cfg(all(test, feature = "testing"))]
        self.write();
    }

    fn refuse_syncs(&mut self, error: &GroupError, now: i64) {
        for member in self.members.values_mut() {
            member.assignment = Assignment::default();
            if let Some(connection) = member.syncing.take() {
                member.renew(now);
                let refused = GroupAnswer::Refused { request: RequestKind::Sync, error: error.clone() };
                self.answers.push((connection, refused));
            }
        }
    }

    fn has_synced(&mut self, id: &str) {
        if let Some(member) = self.members.get_mut(id) {
            member.owes_sync = false;
        }
        if !self.members.values().any(|member| member.owes_sync) {
            self.sync_until = None;
        }
    }
}

// ---- members ----

impl ClassicGroup {
    pub(super) fn generation(&self) -> i32 {
        self.generation
    }

    pub(super) fn has_members(&self) -> bool {
        !(self.members.is_empty() && self.pending.is_empty())
    }

    pub(super) fn member_ids(&self) -> impl Iterator<Item = &String> {
        self.members.keys()
    }

    /// What is to be delivered.
    pub(super) fn take_answers(&mut self) -> Vec<(Connection, GroupAnswer)> {
        mem::take(&mut self.answers)
    }

    pub(super) fn standing(&self, member: &str, instance: Option<&str>) -> Standing {
        let holder = instance.and_then(|instance| self.holder(instance));
        Standing {
            generation: self.generation,
            round: match self.phase {
                Phase::Empty => Round::Empty,
                Phase::Completing => Round::Completing,
                Phase::Preparing { .. } | Phase::Stable => Round::Running,
            },
            is_member: self.members.contains_key(member),
            instance: Instance::new(member, instance, holder),
        }
    }

    /// A plain commit shows that its member is alive.
    pub(super) fn has_committed(&mut self, member: &str, now: i64) {
        if matches!(self.phase, Phase::Stable | Phase::Preparing { .. })
            && let Some(member) = self.members.get_mut(member)
        {
            member.renew(now);
        }
    }

    fn ids(&self, is_one: impl Fn(&Member) -> bool) -> impl Iterator<Item = String> {
        self.members.iter().filter(move |(_, member)| is_one(member)).map(|(id, _)| id.clone())
    }

    /// Which member has an instance id.
    fn holder(&self, instance: &str) -> Option<&str> {
        let holds = |member: &Member| member.instance.as_deref() == Some(instance);
        self.members.iter().find(|(_, member)| holds(member)).map(|(id, _)| id.as_str())
    }

    fn is_leader(&self, id: &str) -> bool {
        self.leader.as_deref() == Some(id)
    }

    fn has_room_for(&self, id: &str) -> bool {
        if id.is_empty() && self.pending.len() >= MEMBERS_MAX {
            return false;
        }
        let awaited = || self.members.values().filter(|member| member.joining.is_some()).count();
        match self.phase {
            Phase::Empty => true,
            Phase::Preparing { .. } => {
                self.members.get(id).is_some_and(|member| member.joining.is_some()) || awaited() < MEMBERS_MAX
            }
            Phase::Completing | Phase::Stable => self.members.contains_key(id) || self.members.len() < MEMBERS_MAX,
        }
    }

    fn remove(&mut self, id: &str) {
        self.pending.remove(id);
        let Some(member) = self.members.remove(id) else { return };
        if let Some(connection) = member.joining {
            self.refuse(connection, RequestKind::Join, GroupError::UnknownMemberId);
        }
        if let Some(connection) = member.syncing {
            // Kafka leaves it without an answer, and the client gives up after its request timeout.
            self.refuse(connection, RequestKind::Sync, GroupError::UnknownMemberId);
        }
        if self.is_leader(id) {
            self.leader = self.members.keys().next().cloned();
        }
    }

    fn answer_join(&mut self, id: &str, connection: Connection, skip_assignment: bool) {
        let listed = |(id, member): (&String, &Member)| GroupMember {
            id: id.clone(),
            instance: member.instance.clone(),
            topics: member.subscription.topics.clone(),
            user_data: member.subscription.user_data.clone(),
        };
        let members = if self.is_leader(id) { self.members.iter().map(listed).collect() } else { Vec::new() };
        let leader = self.leader.clone().unwrap_or_default();
        let (generation, member) = (self.generation, id.to_owned());
        let joined = GroupAnswer::Joined { generation, member, leader, skip_assignment, members };
        self.answers.push((connection, joined));
    }

    fn refuse(&mut self, connection: Connection, request: RequestKind, error: GroupError) {
        self.answers.push((connection, GroupAnswer::Refused { request, error }));
    }
}

impl Member {
    fn renew(&mut self, now: i64) {
        self.expires = Some(now.saturating_add(self.session_ms));
    }

    /// What it says of itself now; its join waits.
    fn update(&mut self, join: Join) {
        self.session_ms = join.session_ms;
        self.rebalance_ms = join.rebalance_ms;
        self.subscription = join.subscription;
        self.joining = Some(join.connection);
    }
}

impl Subscription {
    fn bytes(&self) -> usize {
        self.topics.iter().map(|topic| topic.len()).sum::<usize>() + self.user_data.len()
    }
}

impl Assignment {
    fn answer(&self) -> GroupAnswer {
        GroupAnswer::Synced { partitions: self.partitions.clone(), user_data: self.user_data.clone() }
    }

    fn bytes(&self) -> usize {
        self.partitions.iter().map(|partition| partition.topic.len() + 4).sum::<usize>() + self.user_data.len()
    }
}
