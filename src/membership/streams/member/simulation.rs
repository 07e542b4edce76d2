//! Members of a streams group against a model of its coordinator, over a network that loses, doubles and holds back what it
//! likes, by one seed. `KSTREAMS_SEEDS=5000` tries that many.
//!
//! The model does what Apache Kafka 4.3.1 does (`GroupMetadataManager`, `CurrentAssignmentBuilder`): one task is nobody's
//! until its last owner has said that it has closed it, or was thrown out; tasks are told to who joins and to who has got
//! others by its heartbeat, and to nobody else.

use std::collections::{BTreeMap, BTreeSet};

use super::tests::{member, tasks};
use super::*;
use crate::membership::streams::protocol::{Heard, StreamsError, Taken};

/// The broker's side, as `GroupMetadataManager` and `CurrentAssignmentBuilder` have it, for active tasks.
#[derive(Default)]
struct Group {
    epoch: i32,
    /// Who is to have which task: others when it changes.
    shift: usize,
    /// Whether the empty lists of a join count for what a member has.
    believes_joins: bool,
    members: BTreeMap<String, Standing>,
}

#[derive(Default)]
struct Standing {
    epoch: i32,
    previous: i32,
    assigned: BTreeSet<TaskId>,
    /// To be given back before its epoch goes on.
    pending: BTreeSet<TaskId>,
}

const TASKS: i32 = 6;

impl Group {
    fn target(&self, id: &str) -> BTreeSet<TaskId> {
        let count = self.members.len().max(1);
        let place = self.members.keys().position(|known| known == id).unwrap();
        tasks((0..TASKS).filter(|task| (usize::try_from(*task).unwrap() + self.shift) % count == place))
    }

    fn hear(&mut self, heartbeat: &Heartbeat) -> Heard {
        let id = &heartbeat.member;
        if heartbeat.epoch == LEAVING {
            return match self.expire(id) {
                true => Heard::Taken(Taken { epoch: LEAVING, ..Taken::default() }),
                false => Heard::Refused(StreamsError::UnknownMember, String::new()),
            };
        }
        let joins = heartbeat.epoch == JOINING;
        if joins && !self.members.contains_key(id) {
            self.epoch += 1;
            self.members
                .insert(id.clone(), Standing { epoch: self.epoch, previous: self.epoch, ..Standing::default() });
        }
        let Some(standing) = self.members.get(id) else {
            return Heard::Refused(StreamsError::UnknownMember, String::new());
        };
        let owned = heartbeat.owned.as_ref().map(|owned| &owned.active);
        let is_repeated =
            heartbeat.epoch == standing.previous && owned.is_some_and(|owned| owned.is_subset(&standing.assigned));
        if !joins && heartbeat.epoch != standing.epoch && !is_repeated {
            return Heard::Refused(StreamsError::FencedEpoch, String::new());
        }
        let before = standing.assigned.clone();
        self.reconcile(id, owned.filter(|_| !joins || self.believes_joins));
        let standing = &self.members[id];
        // As Apache Kafka 4.3.1 does: not to who tells what it has.
        let tells = joins || standing.assigned != before;
        let tasks = tells.then(|| Tasks { active: standing.assigned.clone(), ..Tasks::default() });
        Heard::Taken(Taken { epoch: standing.epoch, interval_ms: 5000, tasks, ..Taken::default() })
    }

    fn reconcile(&mut self, id: &str, owned: Option<&BTreeSet<TaskId>>) {
        let (target, group_epoch) = (self.target(id), self.epoch);
        let others = self.members.iter().filter(|(other, _)| *other != id);
        let taken: BTreeSet<_> = others.flat_map(|(_, other)| other.assigned.union(&other.pending)).copied().collect();
        let standing = self.members.get_mut(id).unwrap();
        if !standing.pending.is_empty() {
            if !owned.is_some_and(|owned| owned.is_disjoint(&standing.pending)) {
                return;
            }
            standing.pending.clear();
        }
        let surplus: BTreeSet<_> = standing.assigned.difference(&target).copied().collect();
        if !surplus.is_empty() {
            standing.assigned.retain(|task| target.contains(task));
            if !owned.is_some_and(|owned| owned.is_disjoint(&surplus)) {
                standing.pending = surplus;
                return;
            }
        }
        standing.assigned.extend(target.difference(&taken).copied());
        if standing.epoch != group_epoch {
            (standing.previous, standing.epoch) = (standing.epoch, group_epoch);
        }
    }

    fn expire(&mut self, id: &str) -> bool {
        self.epoch += 1;
        self.members.remove(id).is_some()
    }

    fn move_tasks(&mut self) {
        self.epoch += 1;
        self.shift += 1;
    }
}

/// A process: its member, and threads that take their time to close tasks.
struct Process {
    member: StreamsMember,
    place: Place,
    held: BTreeSet<TaskId>,
    closing: BTreeSet<TaskId>,
    paused_until: Millis,
    is_up: bool,
}

impl Process {
    fn new(id: &str) -> Process {
        let (held, closing) = (BTreeSet::new(), BTreeSet::new());
        Process { member: member(id), place: Place::default(), held, closing, paused_until: 0, is_up: true }
    }

    fn on(&mut self, input: StreamsInput, now: Millis, wire: &mut Vec<Heartbeat>) {
        self.member.on(input, now);
        while let Some(output) = self.member.poll_output() {
            match output {
                StreamsOutput::Send(heartbeat) => wire.push(heartbeat),
                StreamsOutput::Publish(place) => self.place = place,
                StreamsOutput::Assigned { tasks, .. } => {
                    assert!(tasks.is_disjoint(&self.held), "a task is opened twice");
                    self.held.extend(tasks);
                }
                StreamsOutput::Revoked { tasks } | StreamsOutput::Lost { tasks } => self.closing.extend(tasks),
                StreamsOutput::Standby { .. }
                | StreamsOutput::Settled
                | StreamsOutput::HandedOver
                | StreamsOutput::ShutDown => {}
                StreamsOutput::Failed(kind, reason) => panic!("{kind:?} {reason}"),
                StreamsOutput::Ended => self.is_up = false,
            }
        }
    }
}

/// A sequence of numbers by which everything is decided.
struct Chance(u64);

impl Chance {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }
}

/// Three processes and a network that loses, doubles and holds back what it likes; then one that does not.
fn play(seed: u64) {
    let mut chance = Chance(seed);
    let mut group = Group { believes_joins: seed.is_multiple_of(2), ..Group::default() };
    let names = ["a", "b", "c"];
    let mut processes = names.map(Process::new);
    let mut asked: Vec<Heartbeat> = Vec::new();
    let mut answers: Vec<(usize, HeartbeatAnswer)> = Vec::new();
    let mut now = 0;
    for turn in 0..700 {
        now += 50;
        let is_calm = turn >= 400;
        for (place, process) in processes.iter_mut().enumerate() {
            if !is_calm && chance.below(80) == 0 {
                // It is gone, and comes back as itself; sometimes the group has heard of it meanwhile.
                *process = Process::new(names[place]);
                asked.retain(|heartbeat| heartbeat.member != names[place]);
                answers.retain(|(addressee, _)| *addressee != place);
                if chance.below(2) == 0 {
                    group.expire(names[place]);
                }
            }
            if !is_calm && chance.below(100) == 0 {
                process.paused_until = now + Millis::try_from(chance.below(5_000)).unwrap();
            }
            if now < process.paused_until {
                continue;
            }
            if !process.closing.is_empty() && (is_calm || chance.below(3) == 0) {
                let closed = std::mem::take(&mut process.closing);
                process.held.retain(|task| !closed.contains(task));
                process.on(StreamsInput::Closed(closed), now, &mut asked);
            }
            if now >= process.member.deadline() {
                process.on(StreamsInput::Tick, now, &mut asked);
            }
        }
        if !is_calm && chance.below(60) == 0 {
            group.expire(names[usize::try_from(chance.below(3)).unwrap()]);
        }
        if !is_calm && chance.below(60) == 0 {
            group.move_tasks();
        }
        for heartbeat in std::mem::take(&mut asked) {
            let place = names.iter().position(|name| *name == heartbeat.member).unwrap();
            let number = heartbeat.number;
            let fate = if is_calm { 9 } else { chance.below(10) };
            let heard = if fate == 0 { Heard::Disconnected } else { group.hear(&heartbeat) };
            let heard = if fate == 1 { Heard::Disconnected } else { heard };
            let answer = HeartbeatAnswer { number, heard };
            if fate == 2 {
                answers.push((place, answer.clone()));
            }
            answers.push((place, answer));
        }
        for (place, answer) in std::mem::take(&mut answers) {
            if now < processes[place].paused_until || (!is_calm && chance.below(4) == 0) {
                answers.push((place, answer));
                continue;
            }
            processes[place].on(StreamsInput::Answer(answer), now, &mut asked);
        }
        check(&group, &processes, seed, turn);
    }
    let all: BTreeSet<_> = processes.iter().flat_map(|process| process.place.owned.iter().copied()).collect();
    assert_eq!(all, tasks(0..TASKS), "seed {seed}: nobody has a task");
    let counts: BTreeSet<_> = processes.iter().map(|process| process.held.len()).collect();
    assert_eq!(counts, [2].into(), "seed {seed}");
}

/// What two processes may commit at the same time is never the same task.
fn check(group: &Group, processes: &[Process], seed: u64, turn: i32) {
    let mut committers = BTreeMap::new();
    for process in processes {
        let Some((epoch, id)) = &process.place.membership else { continue };
        let Some(standing) = group.members.get(id) else { continue };
        // The broker takes the commit of a member in its epoch, and in an older one while the task has been its own.
        let is_taken = |task: &&TaskId| {
            let has_had = standing.assigned.contains(task) || standing.pending.contains(task);
            *epoch == standing.epoch || (*epoch < standing.epoch && has_had)
        };
        if process.held.is_subset(&process.place.owned) {
            for task in process.place.owned.iter().filter(is_taken) {
                let before = committers.insert(*task, id.clone());
                assert_eq!(before, None, "seed {seed}, turn {turn}: {id} may commit {task} as well");
            }
        }
    }
}

#[test]
fn whatever_is_lost_doubled_or_late_no_two_members_own_one_task_and_all_are_owned_in_the_end() {
    let number = std::env::var("KSTREAMS_SEEDS").ok().and_then(|text| text.parse().ok());
    for seed in (0..number.unwrap_or(300)).chain([1247, 2754, 10726]) {
        play(seed);
    }
}
