//! Consumer groups: the coordinator's part, eager like Kafka's classic protocol with the range assignor.
//!
//! ```text
//!   join, leave, topic created ──> every owner is asked for its partitions ──> all have given them back
//!        ──> generation + 1, everybody gets new ones
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use crate::client::embedded::classic::ClassicGroup;
use crate::client::embedded::clock::{Clock, Patience, ms};
use crate::client::embedded::codec::{Committed, Entry};
use crate::client::embedded::standing::{Commit, Instance, Round, Standing};
use crate::client::embedded::state::{Shared, State};
use crate::client::{GroupMetadata, GroupSpec};
use crate::error::{Error, ErrorKind, Result};
use crate::membership::classic::protocol::GroupError;
use crate::record::{OffsetAndMetadata, TopicPartition};

/// How long a member that stays away (`LeaveMode::Stay`) keeps its partitions.
pub(super) const SESSION_TIMEOUT: Duration = Duration::from_secs(6);

/// How long a question for committed offsets waits for transactions to be decided. A virtual clock ends none of them
/// meanwhile, and the thread that moves it may be the one that waits.
const DECISION_WAIT: Duration = Duration::from_secs(30);
const DECISION_WAIT_VIRTUAL: Duration = Duration::from_millis(if cfg!(test) { 1 } else { 200 });

/// A client's place in a group, the same for all its member ids.
pub(super) type Seat = u64;

#[derive(Debug, Default)]
pub(super) struct Group {
    generation: i32,
    /// By member id, in the order in which partitions are dealt.
    pub(super) members: BTreeMap<String, Member>,
    pub(super) committed: BTreeMap<TopicPartition, OffsetAndMetadata>,
    /// Seats that have lost their member and have not heard of it, or never will (`Fenced`).
    ousted: BTreeMap<Seat, Ousted>,
    is_rebalancing: bool,
    /// The members that deal the partitions themselves. Either they are in the group, or those above.
    pub(super) classic: ClassicGroup,
}

impl Group {
    fn generation(&self) -> i32 {
        if self.members.is_empty() { self.classic.generation() } else { self.generation }
    }

    fn standing(&self, by: &GroupMetadata) -> Standing {
        let instance = by.instance.as_deref();
        if self.members.is_empty() {
            return self.classic.standing(&by.member, instance);
        }
        let holds = |member: &Member| member.instance.as_deref() == instance;
        let holder = instance.and_then(|_| self.members.iter().find(|(_, member)| holds(member)));
        Standing {
            generation: self.generation,
            round: Round::Running,
            is_member: self.members.contains_key(&by.member),
            instance: Instance::new(&by.member, instance, holder.map(|(id, _)| id.as_str())),
        }
    }
}

#[derive(Debug)]
pub(super) struct Member {
    seat: Seat,
    instance: Option<String>,
    topics: Vec<Arc<str>>,
    /// What the member has been given and has not given back.
    owned: BTreeSet<TopicPartition>,
    /// What it has not been told of yet.
    news: Option<News>,
    /// Asked back, told or not, and not acknowledged.
    is_giving_back: bool,
    /// Away since then, with its session running out.
    away: Option<i64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ousted {
    Expired,
    Fenced,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum News {
    Assigned,
    Revoked,
}

/// What a member hears.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum GroupEvent {
    Assigned {
        partitions: BTreeSet<TopicPartition>,
        generation: i32,
    },
    Revoked,
    /// The member is gone; the client may join again.
    Expired,
}

impl Shared {
    /// The committed positions, when no transaction may change them any more.
    pub(super) fn committed(
        &self,
        group: &str,
        partitions: &[TopicPartition],
    ) -> Result<Vec<Option<OffsetAndMetadata>>> {
        let mut state = self.state()?;
        let patience = Patience::new(match state.clock {
            Clock::Real => DECISION_WAIT,
            Clock::Virtual { .. } => DECISION_WAIT_VIRTUAL,
        });
        loop {
            match (state.committed(group, partitions), patience.left()) {
                (Err(error), Some(left)) if error.kind() == ErrorKind::Unavailable => {
                    state = self.wait(state, left)?;
                }
                (answer, _) => return answer,
            }
        }
    }
}

impl State {
    /// A new member for a seat, and its id. A static member takes the place of the one before it.
    ///
    /// # Errors
    /// `Invalid` for a group whose members deal its partitions themselves.
    pub(super) fn join(&mut self, seat: Seat, spec: &GroupSpec) -> Result<String> {
        self.members += 1;
        let id = format!("{}-{:08}", spec.client_id, self.members);
        let group = self.groups.entry(spec.group.clone()).or_default();
        if group.classic.has_members() {
            return Err(Error::invalid(format!(
                "could not join group {}: its members speak another protocol, so let them leave first",
                spec.group
            )));
        }
        let mut member = Member {
            seat,
            instance: spec.instance_id.clone(),
            topics: spec.topics.clone(),
            owned: BTreeSet::new(),
            news: None,
            is_giving_back: false,
            away: None,
        };
        group.ousted.remove(&seat);
        let twin =
            group.members.iter().find(|(_, other)| other.instance.is_some() && other.instance == member.instance);
        if let Some(twin) = twin.map(|(id, _)| id.clone())
            && let Some(before) = group.members.remove(&twin)
        {
            if before.away.is_none() {
                group.ousted.insert(before.seat, Ousted::Fenced);
            }
            if !group.is_rebalancing && before.topics == member.topics {
                // Its place is kept: nobody else notices (R11.4).
                member.owned = before.owned;
                member.news = Some(News::Assigned);
                group.members.insert(id.clone(), member);
                return Ok(id);
            }
        }
        group.members.insert(id.clone(), member);
        self.rebalance(&spec.group);
        Ok(id)
    }

    /// Takes a seat's member out, if it still has one.
    pub(super) fn leave(&mut self, group: &str, seat: Seat) {
        let Some(known) = self.groups.get_mut(group) else { return };
        known.ousted.remove(&seat);
        let before = known.members.len();
        known.members.retain(|_, member| member.seat != seat);
        if known.members.len() < before {
            self.rebalance(group);
        }
    }

    /// The client goes and the member stays until its session has run out.
    pub(super) fn stay_away(&mut self, group: &str, seat: Seat) {
        let now = self.clock.now();
        let Some(group) = self.groups.get_mut(group) else { return };
        group.ousted.remove(&seat);
        if let Some(member) = group.members.values_mut().find(|member| member.seat == seat) {
            member.away = Some(now);
        }
    }

    /// Takes a member out as if its session had run out; its client hears of it. Whether there was one.
    pub(super) fn expire_member(&mut self, group: &str, member: &str) -> bool {
        let now = self.clock.now();
        let Some(known) = self.groups.get_mut(group) else { return false };
        let Some(gone) = known.members.remove(member) else {
            let was_there = known.classic.session_is_over(member, now);
            self.deliver_answers(group);
            return was_there;
        };
        if gone.away.is_none() {
            known.ousted.insert(gone.seat, Ousted::Expired);
        }
        self.rebalance(group);
        true
    }

    pub(super) fn expire_members(&mut self, now: i64) -> bool {
        let is_over =
            |member: &Member| member.away.is_some_and(|since| now.saturating_sub(since) > ms(SESSION_TIMEOUT));
        let over: Vec<_> = self
            .groups
            .iter()
            .flat_map(|(name, group)| group.members.iter().map(move |(id, member)| (name, id, member)))
            .filter(|(_, _, member)| is_over(member))
            .map(|(group, id, _)| (group.clone(), id.clone()))
            .collect();
        for (group, member) in &over {
            self.expire_member(group, member);
        }
        !over.is_empty()
    }

    pub(super) fn rebalance_readers_of(&mut self, topic: &str) {
        let reads =
            |group: &Group| group.members.values().any(|member| member.topics.iter().any(|name| **name == *topic));
        let groups: Vec<_> =
            self.groups.iter().filter(|(_, group)| reads(group)).map(|(name, _)| name.clone()).collect();
        groups.iter().for_each(|group| self.rebalance(group));
    }

    /// Whether the seat's client has something to hear.
    pub(super) fn has_event(&self, group: &str, seat: Seat) -> bool {
        self.groups.get(group).is_some_and(|group| {
            group.ousted.contains_key(&seat)
                || group.members.values().any(|member| member.seat == seat && member.news.is_some())
        })
    }

    /// What the seat's client has to hear, once.
    ///
    /// # Errors
    /// `Fenced` when another client joined under its instance id.
    pub(super) fn take_event(&mut self, group: &str, seat: Seat) -> Result<Option<GroupEvent>> {
        let Some(known) = self.groups.get_mut(group) else { return Ok(None) };
        match known.ousted.get(&seat) {
            Some(Ousted::Fenced) => {
                return Err(Error::new(
                    ErrorKind::Fenced,
                    format!("the member of group {group} is fenced: another one has joined under its instance id"),
                ));
            }
            Some(Ousted::Expired) => {
                known.ousted.remove(&seat);
                return Ok(Some(GroupEvent::Expired));
            }
            None => {}
        }
        let generation = known.generation;
        let Some(member) = known.members.values_mut().find(|member| member.seat == seat) else { return Ok(None) };
        Ok(member.news.take().map(|news| match news {
            News::Assigned => GroupEvent::Assigned { partitions: member.owned.clone(), generation },
            News::Revoked => GroupEvent::Revoked,
        }))
    }

    /// The seat's client has given back what it was asked for.
    pub(super) fn give_back(&mut self, group: &str, seat: Seat) {
        let Some(known) = self.groups.get_mut(group) else { return };
        if let Some(member) = known.members.values_mut().find(|member| member.seat == seat && member.is_giving_back) {
            member.is_giving_back = false;
            member.owned.clear();
            self.deal_if_complete(group);
        }
    }

    /// Asks everybody for what they own.
    fn rebalance(&mut self, group: &str) {
        let Some(known) = self.groups.get_mut(group) else { return };
        known.is_rebalancing = true;
        for member in known.members.values_mut() {
            match member.news {
                // It has not heard of what it was given: there is nothing to give back.
                Some(News::Assigned) => {
                    member.owned.clear();
                    member.news = None;
                }
                Some(News::Revoked) => {}
                None if member.owned.is_empty() || member.is_giving_back => {}
                None if member.away.is_some() => {}
                None => {
                    member.news = Some(News::Revoked);
                    member.is_giving_back = true;
                }
            }
        }
        self.deal_if_complete(group);
    }

    fn deal_if_complete(&mut self, group: &str) {
        let topics = &self.topics;
        let Some(known) = self.groups.get_mut(group) else { return };
        let owes = |member: &Member| member.is_giving_back || (member.away.is_some() && !member.owned.is_empty());
        if !known.is_rebalancing || known.members.values().any(owes) {
            return;
        }
        known.is_rebalancing = false;
        known.generation += 1;
        let counts: BTreeMap<Arc<str>, i32> =
            topics.iter().map(|(name, topic)| (Arc::clone(name), topic.partition_count())).collect();
        let mut dealt = deal(&known.members, &counts);
        for (id, member) in &mut known.members {
            member.owned = dealt.remove(id).unwrap_or_default();
            member.news = Some(News::Assigned);
        }
    }

    // ---- offsets ----

    /// The committed positions; `Unavailable` while one of them waits for a transaction.
    pub(super) fn committed(
        &self,
        group: &str,
        partitions: &[TopicPartition],
    ) -> Result<Vec<Option<OffsetAndMetadata>>> {
        if let Some(pending) = partitions.iter().find(|partition| self.is_pending(group, partition)) {
            return Err(Error::new(
                ErrorKind::Unavailable,
                format!("the committed offset of {pending} in group {group} waits for a transaction to end"),
            ));
        }
        Ok(self.committed_so_far(group, partitions))
    }

    /// Those of pending transactions are not among them.
    pub(super) fn committed_so_far(
        &self,
        group: &str,
        partitions: &[TopicPartition],
    ) -> Vec<Option<OffsetAndMetadata>> {
        let known = self.groups.get(group);
        partitions.iter().map(|partition| known?.committed.get(partition).cloned()).collect()
    }

    /// Commits without a transaction.
    pub(super) fn commit(
        &mut self,
        group: &GroupMetadata,
        offsets: &[(TopicPartition, OffsetAndMetadata)],
    ) -> Result<()> {
        self.check_commit(group, Commit::Plain)?;
        let now = self.clock.now();
        if let Some(known) = self.groups.get_mut(&group.group) {
            known.classic.has_committed(&group.member, now);
        }
        let committed = |(partition, position): &(TopicPartition, OffsetAndMetadata)| Committed {
            group: group.group.clone(),
            partition: partition.clone(),
            position: position.clone(),
        };
        let offsets: Vec<_> = offsets.iter().map(committed).collect();
        if let Some(storage) = &mut self.storage {
            storage.write(&Entry::Offsets { offsets: offsets.clone() })?;
        }
        self.store_offsets(offsets);
        self.snapshot_if_long()
    }

    /// Refuses who has lost its place, as a broker does (R11.2).
    ///
    /// # Errors
    /// `Aborted` in a transaction. Without one, `Unavailable` while partitions are dealt, and `Fenced`.
    pub(super) fn check_commit(&self, by: &GroupMetadata, commit: Commit) -> Result<()> {
        let group = self.groups.get(&by.group);
        let checked = match group {
            Some(group) => group.standing(by).check_commit(by, commit),
            None => ClassicGroup::default().standing(&by.member, by.instance.as_deref()).check_commit(by, commit),
        };
        checked.map_err(|refused| {
            let GroupMetadata { group: name, member, generation, .. } = by;
            let why = match (&refused, group) {
                (_, None) => "there is no such group".to_owned(),
                (GroupError::FencedInstance, _) => "another member has its instance id".to_owned(),
                (GroupError::IllegalGeneration, Some(group)) => {
                    format!("the group is in generation {}", group.generation())
                }
                (GroupError::RebalanceInProgress, _) => "the generation has begun and is not dealt".to_owned(),
                _ => "the group has no such member".to_owned(),
            };
            let kind = match commit {
                Commit::InTransaction => ErrorKind::Aborted,
                Commit::Plain if refused == GroupError::RebalanceInProgress => ErrorKind::Unavailable,
                Commit::Plain => ErrorKind::Fenced,
            };
            let context =
                format!("offsets of group {name} by member {member} in generation {generation} are refused: {why}");
            Error::new(kind, context)
        })
    }
}

/// Range assignment, the same partition of every topic to the same member.
///
/// Differs from Kafka's range assignor where topics have different partition counts: ranges are cut of the longest
/// topic, so that a task which reads both finds its partitions in one place.
fn deal(
    members: &BTreeMap<String, Member>,
    counts: &BTreeMap<Arc<str>, i32>,
) -> BTreeMap<String, BTreeSet<TopicPartition>> {
    let mut topics_of: BTreeMap<Vec<&String>, Vec<(&Arc<str>, i32)>> = BTreeMap::new();
    for (topic, count) in counts {
        let readers: Vec<_> =
            members.iter().filter(|(_, member)| member.topics.contains(topic)).map(|(id, _)| id).collect();
        if !readers.is_empty() {
            topics_of.entry(readers).or_default().push((topic, *count));
        }
    }
    let mut dealt: BTreeMap<String, BTreeSet<TopicPartition>> = BTreeMap::new();
    for (readers, topics) in topics_of {
        let longest = topics.iter().map(|(_, count)| *count).max().unwrap_or(0);
        let readers_count = i32::try_from(readers.len()).unwrap_or(i32::MAX);
        let (each, more) = (longest / readers_count, longest % readers_count);
        let mut start = 0;
        for (place, id) in (0..).zip(readers) {
            let end = start + each + i32::from(place < more);
            let owned = dealt.entry(id.clone()).or_default();
            for (topic, count) in &topics {
                let partitions = (start..end.min(*count)).map(|one| TopicPartition::new(Arc::clone(topic), one));
                owned.extend(partitions);
            }
            start = end;
        }
    }
    dealt
}
