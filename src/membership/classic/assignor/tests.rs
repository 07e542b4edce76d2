//! Random groups that live: members join, leave, crash and come back, states catch up, and the leader assigns.

use std::collections::{BTreeMap, BTreeSet};

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

const RACK: &str = "rack";

fn task(sub_topology: usize, partition: i32) -> TaskId {
    TaskId { sub_topology, partition }
}

fn tasks(sub_topologies: &[(i32, bool)]) -> Vec<TaskToAssign> {
    let of = |(sub_topology, (partitions, is_stateful)): (usize, &(i32, bool))| -> Vec<_> {
        let id = |partition| TaskToAssign { id: task(sub_topology, partition), is_stateful: *is_stateful };
        (0..*partitions).map(id).collect()
    };
    sub_topologies.iter().enumerate().flat_map(of).collect()
}

fn member(number: u8, workers: u32) -> AssignorMember {
    AssignorMember {
        member: format!("member-{number}"),
        process: Uuid::from_bytes([number; 16]),
        started_ms: 0,
        generation: -1,
        workers,
        tags: Vec::new(),
        share: Share::Full,
        active: Vec::new(),
        promised: Vec::new(),
        standby: Vec::new(),
        lags: Vec::new(),
    }
}

/// A group as it would be: what was assigned is what members claim at the next rebalance.
#[derive(Debug, Clone)]
struct Life {
    tasks: Vec<TaskToAssign>,
    settings: AssignorSettings,
    generation: i32,
    members: Vec<AssignorMember>,
    /// By process: what is on its disk.
    disks: BTreeMap<Uuid, BTreeMap<TaskId, u64>>,
    last: Option<GroupAssignment>,
}

impl Life {
    fn new(tasks: Vec<TaskToAssign>, settings: AssignorSettings) -> Life {
        Life { tasks, settings, generation: 0, members: Vec::new(), disks: BTreeMap::new(), last: None }
    }

    fn is_stateful(&self, id: TaskId) -> bool {
        self.tasks.iter().any(|task| task.id == id && task.is_stateful)
    }

    fn input(&self) -> AssignmentInput {
        let mut members = self.members.clone();
        for member in &mut members {
            let disk = self.disks.get(&member.process).into_iter().flatten();
            member.lags = disk.map(|(task, lag)| (*task, Some(*lag))).collect();
        }
        AssignmentInput { tasks: self.tasks.clone(), members, settings: self.settings.clone() }
    }

    /// One rebalance: members let go, take over, and begin to restore.
    fn rebalance(&mut self) -> GroupAssignment {
        self.generation += 1;
        let given = assign(&self.input());
        assert_eq!(given, assign(&self.input()), "the same group, the same tasks");
        for (member, tasks) in self.members.iter_mut().zip(&given.members) {
            member.generation = self.generation;
            member.active.clone_from(&tasks.active);
            member.promised.clone_from(&tasks.awaiting);
            member.standby.clone_from(&tasks.standby);
            let disk = self.disks.entry(member.process).or_default();
            let held = [&tasks.active, &tasks.standby, &tasks.warmup, &tasks.awaiting].into_iter().flatten();
            for id in held.filter(|id| self.tasks.iter().any(|task| task.id == **id && task.is_stateful)) {
                disk.entry(*id).or_insert(1_000_000);
            }
        }
        self.last = Some(given.clone());
        given
    }

    /// Everything that is running somewhere catches up; what is at rest falls behind.
    fn catch_up(&mut self) {
        let Some(last) = &self.last else { return };
        for (member, tasks) in self.members.iter().zip(&last.members) {
            let lists = [&tasks.active, &tasks.standby, &tasks.warmup, &tasks.awaiting];
            for (id, lag) in self.disks.entry(member.process).or_default() {
                *lag = if lists.iter().any(|list| list.contains(id)) { 0 } else { *lag + 500 };
            }
        }
    }

    /// Rebalances until nothing is under way; how many that took.
    fn settle(&mut self) -> usize {
        for round in 1.. {
            let given = self.rebalance();
            self.check(&given);
            if given.is_settled {
                return round;
            }
            assert!(round < 1000, "it does not settle: {given:?}");
            self.catch_up();
        }
        unreachable!()
    }

    /// What holds after every assignment.
    fn check(&self, given: &GroupAssignment) {
        let everybody = || given.members.iter().enumerate();
        let places = |id: TaskId, list: fn(&MemberTasks) -> &Vec<TaskId>| -> Vec<usize> {
            everybody().filter(|(_, tasks)| list(tasks).contains(&id)).map(|(member, _)| member).collect()
        };
        let open = self.members.iter().filter(|member| member.share == Share::Full).count();
        for task in &self.tasks {
            let (active, awaiting) = (places(task.id, |it| &it.active), places(task.id, |it| &it.awaiting));
            assert_eq!(
                active.len() + awaiting.len(),
                1,
                "{} is active at {active:?}, awaited at {awaiting:?}",
                task.id
            );
            let home = active.iter().chain(&awaiting).copied().next().unwrap();
            let (standby, warmup) = (places(task.id, |it| &it.standby), places(task.id, |it| &it.warmup));
            assert!(!standby.contains(&home) && !warmup.contains(&home), "{} is beside itself", task.id);
            let others = (0..self.members.len())
                .filter(|other| *other != home && self.members[*other].share == Share::Full)
                .count();
            let wanted = if task.is_stateful { self.settings.num_standby.min(others) } else { 0 };
            assert!(standby.len() >= wanted && standby.len() <= self.settings.num_standby, "{}: {standby:?}", task.id);
            assert!(warmup.len() <= 1 && (task.is_stateful || warmup.is_empty()));
            if wanted == 1 && self.settings.num_standby == 1 {
                self.check_rack(home, standby[0]);
            }
        }
        for (_, tasks) in everybody() {
            assert!(tasks.warmup.len() <= self.settings.max_warmups);
            for list in [&tasks.active, &tasks.awaiting, &tasks.standby, &tasks.warmup] {
                assert!(list.is_sorted_by(|a, b| a < b), "{list:?}");
            }
        }
        if given.is_settled && open > 0 {
            self.check_balance(given);
        }
    }

    fn check_rack(&self, home: usize, standby: usize) {
        let rack = |at: usize| {
            let known = !self.settings.rack_tags.is_empty();
            self.members[at].tags.first().filter(|_| known).map(|(_, rack)| rack)
        };
        let differs = |at: usize| rack(at).is_some() && rack(at) != rack(home);
        let could = (0..self.members.len()).any(|at| self.members[at].share == Share::Full && differs(at));
        assert!(!could || differs(standby), "racks {:?} and {:?}", rack(home), rack(standby));
    }

    fn check_balance(&self, given: &GroupAssignment) {
        let full = |member: &&(usize, &AssignorMember)| member.1.share == Share::Full;
        let members: Vec<_> = self.members.iter().enumerate().collect();
        for (what, counts) in [("with state", true), ("in all", false)] {
            let count = |id: &&TaskId| !counts || self.is_stateful(**id);
            let load = |(at, member): &(usize, &AssignorMember)| {
                given.members[*at].active.iter().filter(count).count() as f64 / f64::from(member.workers)
            };
            let loads: Vec<f64> = members.iter().filter(full).map(load).collect();
            let (least, most) = loads.iter().fold((f64::MAX, 0_f64), |(a, b), load| (a.min(*load), b.max(*load)));
            assert!(most - least <= 1.0 + 1e-9, "tasks {what} per worker: {loads:?}");
        }
    }

    fn check_sticky(&mut self) {
        let before = self.last.clone().unwrap();
        let given = self.rebalance();
        assert_eq!(given, before, "nothing has changed");
    }

    fn join(&mut self, number: u8, workers: u32) {
        if !self.members.iter().any(|member| member.member == format!("member-{number}")) {
            self.members.push(member(number, workers));
        }
    }
}

fn settings(num_standby: usize) -> AssignorSettings {
    AssignorSettings { num_standby, ..AssignorSettings::default() }
}

/// How many tasks each member has, by list.
fn sizes(given: &GroupAssignment, list: fn(&MemberTasks) -> &Vec<TaskId>) -> Vec<usize> {
    given.members.iter().map(|tasks| list(tasks).len()).collect()
}

#[test]
fn a_new_group_spreads_each_sub_topology() {
    let mut life = Life::new(tasks(&[(7, true), (5, false), (3, true)]), settings(1));
    (1..=3).for_each(|number| life.join(number, 1));
    let given = life.rebalance();
    assert!(given.is_settled);
    assert_eq!(sizes(&given, |it| &it.active), [5, 5, 5]);
    for (sub_topology, least, most) in [(0, 2, 3), (1, 1, 2), (2, 1, 1)] {
        for tasks in &given.members {
            let count = tasks.active.iter().filter(|id| id.sub_topology == sub_topology).count();
            assert!((least..=most).contains(&count), "{given:?}");
        }
    }
    life.catch_up();
    life.check_sticky();
}

#[test]
fn a_task_with_state_warms_up_where_it_is_to_go_and_moves_in_two_steps() {
    let mut life = Life::new(tasks(&[(2, true)]), settings(0));
    life.join(1, 1);
    life.settle();
    life.catch_up();
    life.join(2, 1);

    let warming = life.rebalance();
    assert_eq!(warming.members[0].active, [task(0, 0), task(0, 1)]);
    assert_eq!((&warming.members[1].warmup[..], warming.is_settled), (&[task(0, 1)][..], false));

    life.catch_up();
    let revoking = life.rebalance();
    assert_eq!((&revoking.members[0].active[..], &revoking.members[1].active[..]), (&[task(0, 0)][..], &[][..]));
    assert_eq!(revoking.members[1].awaiting, [task(0, 1)]);

    let moved = life.rebalance();
    assert_eq!(moved.members[1].active, [task(0, 1)]);
    assert!(moved.is_settled);
}

#[test]
fn no_more_than_the_bounded_number_of_tasks_warm_up_on_a_process() {
    let mut life = Life::new(tasks(&[(40, true)]), settings(0));
    life.join(1, 1);
    life.settle();
    life.catch_up();
    life.join(2, 1);
    // Two at a time, ten times. The next two warm up while the last ones are let go, and then given.
    assert_eq!(life.settle(), 10 + 2);
}

#[test]
fn tasks_without_state_move_at_once() {
    let mut life = Life::new(tasks(&[(4, false)]), settings(1));
    life.join(1, 1);
    life.settle();
    life.join(2, 1);
    let given = life.rebalance();
    assert_eq!((sizes(&given, |it| &it.active), sizes(&given, |it| &it.awaiting)), (vec![2, 0], vec![0, 2]));
    assert_eq!(sizes(&life.rebalance(), |it| &it.active), [2, 2]);
}

#[test]
fn the_tasks_of_a_dead_member_go_to_their_standbys() {
    let mut life = Life::new(tasks(&[(9, true)]), settings(1));
    (1..=3).for_each(|number| life.join(number, 1));
    life.settle();
    life.catch_up();
    let before = life.last.clone().unwrap();
    let dead = life.members.remove(0);
    let given = life.rebalance();
    for id in dead.active {
        let heir = before.members.iter().position(|tasks| tasks.standby.contains(&id)).unwrap() - 1;
        let stays_or_moves_on = given.members[heir].active.contains(&id)
            || given
                .members
                .iter()
                .any(|tasks| tasks.active.contains(&id) && life.disks[&member(2, 1).process].contains_key(&id));
        assert!(stays_or_moves_on, "{id}");
    }
    life.check(&given);
}

#[test]
fn a_process_that_was_restarted_gets_its_tasks_back() {
    for is_listed_twice in [false, true] {
        let mut life = Life::new(tasks(&[(10, true), (10, false)]), settings(1));
        (1..=4).for_each(|number| life.join(number, 2));
        life.settle();
        life.catch_up();
        let before = life.last.clone().unwrap();
        let again = AssignorMember { member: "again".to_owned(), started_ms: 9, ..member(2, 2) };
        let at = if is_listed_twice { life.members.len() } else { 1 };
        if is_listed_twice {
            life.members.push(again);
        } else {
            // Its standbys and its tasks without state are told by nobody.
            let old = life.members[1].clone();
            life.members[1] = AssignorMember { promised: old.active, standby: old.standby, ..again };
        }
        let given = assign(&life.input());
        assert_eq!(given.members[at].active, before.members[1].active);
        assert_eq!(given.members[0], before.members[0]);
        assert_eq!(given.members[1].is_superseded, is_listed_twice);
    }
}

#[test]
fn of_two_that_claim_a_task_the_later_generation_has_it() {
    for is_first in [true, false] {
        let mut zombie = member(1, 1);
        let mut owner = member(2, 1);
        (zombie.generation, owner.generation) = if is_first { (4, 9) } else { (9, 4) };
        zombie.active = vec![task(0, 0), task(0, 1)];
        owner.active = vec![task(0, 0)];
        let given = assign(&AssignmentInput {
            tasks: tasks(&[(2, true)]),
            members: vec![zombie, owner],
            settings: settings(0),
        });
        let expected =
            if is_first { [vec![task(0, 1)], vec![task(0, 0)]] } else { [vec![task(0, 0), task(0, 1)], vec![]] };
        assert_eq!([given.members[0].active.clone(), given.members[1].active.clone()], expected);
    }
}

#[test]
fn a_member_with_another_topology_keeps_what_it_has_and_gets_nothing_new() {
    let mut life = Life::new(tasks(&[(6, true)]), settings(0));
    life.join(1, 1);
    life.join(2, 1);
    life.settle();
    life.catch_up();
    life.members[0].share = Share::Kept;
    life.members.remove(1);
    life.join(3, 1);
    let given = life.rebalance();
    assert_eq!(sizes(&given, |it| &it.active), [3, 3]);
    life.members.remove(1);
    life.join(4, 1);
    assert_eq!(sizes(&life.rebalance(), |it| &it.active), [3, 3]);
}

#[test]
fn a_member_that_leaves_hands_over_to_those_that_have_caught_up() {
    let mut life = Life::new(tasks(&[(4, true), (4, false)]), settings(0));
    life.join(1, 1);
    life.join(2, 1);
    life.settle();
    life.catch_up();
    life.members[0].share = Share::Leaving;
    let given = life.rebalance();
    assert_eq!((given.members[0].active.len(), given.members[1].warmup.len()), (2, 2), "{given:?}");
    life.catch_up();
    life.settle();
    assert!(life.last.clone().unwrap().members[0].active.is_empty());
    // Alone it keeps them.
    life.members.remove(1);
    assert_eq!(life.rebalance().members[0].active.len(), 8);
}

#[test]
fn standbys_are_in_other_racks_as_long_as_there_are_any() {
    let mut life = Life::new(tasks(&[(12, true)]), settings(2));
    life.settings.rack_tags = vec![RACK.to_owned(), "row".to_owned()];
    for number in 0..6_u8 {
        life.join(number, 1);
        let tags = [(RACK, number % 3), ("row", number / 3)];
        life.members.last_mut().unwrap().tags = tags.map(|(key, value)| (key.to_owned(), value.to_string())).to_vec();
    }
    let given = life.rebalance();
    for id in life.tasks.iter().map(|task| task.id) {
        let has = |tasks: &&MemberTasks| tasks.active.contains(&id) || tasks.standby.contains(&id);
        let racks: BTreeSet<_> =
            given.members.iter().enumerate().filter(|(_, tasks)| has(tasks)).map(|(at, _)| at % 3).collect();
        assert_eq!(racks.len(), 3, "{id}");
    }
    life.catch_up();
    life.check_sticky();
}

#[test]
fn standbys_are_balanced_when_members_come_and_go() {
    let mut life = Life::new(tasks(&[(20, true), (13, true)]), settings(1));
    (1..=4).for_each(|number| life.join(number, 1));
    life.settle();
    for number in 5..=6 {
        life.join(number, 1);
        life.settle();
        let sizes = sizes(life.last.as_ref().unwrap(), |it| &it.standby);
        assert!(sizes.iter().max().unwrap() - sizes.iter().min().unwrap() <= 1, "{sizes:?}");
        life.catch_up();
        life.check_sticky();
    }
    life.members.remove(0);
    let given = life.rebalance();
    let sizes = sizes(&given, |it| &it.standby);
    assert!(sizes.iter().max().unwrap() - sizes.iter().min().unwrap() <= 1, "{sizes:?}");
}

#[test]
fn with_nobody_to_take_them_tasks_wait() {
    let mut other = member(1, 1);
    other.share = Share::Kept;
    let input = AssignmentInput { tasks: tasks(&[(2, true)]), members: vec![other], settings: settings(1) };
    assert!(assign(&input).members[0].active.is_empty());
    assert!(assign(&AssignmentInput { members: Vec::new(), ..input }).members.is_empty());
}

#[derive(Debug, Clone)]
enum Event {
    Join { number: u8, workers: u32, tag: u8 },
    Crash { at: usize },
    Restart { at: usize },
    Leave { at: usize },
    LosesDisk { at: usize },
    RebalanceEarly,
}

fn event() -> impl Strategy<Value = Event> {
    let at = 0..16_usize;
    prop_oneof![
        4 => (0..12_u8, 1..4_u32, 0..4_u8).prop_map(|(number, workers, tag)| Event::Join { number, workers, tag }),
        2 => at.clone().prop_map(|at| Event::Crash { at }),
        1 => at.clone().prop_map(|at| Event::Restart { at }),
        1 => at.clone().prop_map(|at| Event::Leave { at }),
        1 => at.prop_map(|at| Event::LosesDisk { at }),
        1 => Just(Event::RebalanceEarly),
    ]
}

impl Life {
    fn happens(&mut self, event: &Event) {
        let some = |at: usize, life: &Life| (life.members.len() > 1).then(|| at % life.members.len());
        match event {
            Event::Join { number, workers, tag } => {
                let count = self.members.len();
                self.join(*number, *workers);
                if self.members.len() > count && *tag < 3 {
                    self.members[count].tags = vec![(RACK.to_owned(), tag.to_string())];
                }
            }
            Event::Crash { at } => {
                if let Some(at) = some(*at, self) {
                    self.members.remove(at);
                    if let Some(last) = self.last.as_mut().filter(|last| at < last.members.len()) {
                        last.members.remove(at);
                    }
                }
            }
            Event::Restart { at } => {
                if let Some(at) = some(*at, self) {
                    let old = &mut self.members[at];
                    old.started_ms += 1;
                    old.generation = -1;
                    (old.active, old.promised, old.standby) = (Vec::new(), Vec::new(), Vec::new());
                }
            }
            Event::Leave { at } => {
                if let Some(at) = some(*at, self) {
                    if self.members[at].share == Share::Full
                        && self.members.iter().filter(|member| member.share == Share::Full).count() > 1
                    {
                        self.members[at].share = Share::Leaving;
                    }
                }
            }
            Event::LosesDisk { at } => {
                if let Some(at) = some(*at, self) {
                    let old = &mut self.members[at];
                    (old.active, old.promised, old.standby) = (Vec::new(), Vec::new(), Vec::new());
                    self.disks.remove(&self.members[at].process);
                }
            }
            Event::RebalanceEarly => {
                let given = self.rebalance();
                self.check(&given);
            }
        }
        if !self.members.iter().any(|member| member.share == Share::Full) {
            self.members[0].share = Share::Full;
        }
    }
}

fn lives() -> impl Strategy<Value = Life> {
    let shape = vec((1..9_i32, any::<bool>()), 1..5);
    let settings = (0..3_usize, 1..4_usize, 0..3_usize);
    (shape, settings).prop_map(|(shape, (num_standby, max_warmups, tags))| {
        let rack_tags = [RACK, "zone"].iter().take(tags).map(|tag| (*tag).to_owned()).collect();
        Life::new(tasks(&shape), AssignorSettings { num_standby, max_warmups, acceptable_lag: 100, rack_tags })
    })
}

/// The fewest tasks with state that have to leave their owners so that loads differ by at most one per worker.
fn fewest_moves(has: &[u32], workers: &[u32]) -> u32 {
    let total: u32 = has.iter().sum();
    // All ways to share them out that D'Hondt's rule allows; the groups of this test are small.
    fn search(left: u32, rest: &[(u32, u32)], quota: &mut Vec<u32>, all: &[(u32, u32)]) -> Option<u32> {
        let Some(_) = rest.first() else {
            let load = |i: usize, more: u32| f64::from(quota[i] + more) / f64::from(all[i].1);
            let is_balanced =
                left == 0 && (0..all.len()).all(|i| (0..all.len()).all(|j| load(i, 0) <= load(j, 1) + 1e-9));
            return is_balanced
                .then(|| all.iter().zip(quota.iter()).map(|((has, _), quota)| has.saturating_sub(*quota)).sum());
        };
        let mut best = None;
        for mine in 0..=left {
            quota.push(mine);
            let found = search(left - mine, &rest[1..], quota, all);
            quota.pop();
            best = [best, found].into_iter().flatten().min();
        }
        best
    }
    let all: Vec<(u32, u32)> = has.iter().copied().zip(workers.iter().copied()).collect();
    search(total, &all, &mut Vec::new(), &all).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn a_group_settles_after_whatever_happens(mut life in lives(), events in vec((event(), any::<bool>()), 1..12)) {
        life.join(0, 1);
        for (event, is_settling) in &events {
            life.happens(event);
            if *is_settling {
                life.settle();
                life.catch_up();
                life.check_sticky();
            }
        }
        let stateful = life.tasks.iter().filter(|task| task.is_stateful).count();
        let rounds = life.settle();
        prop_assert!(rounds <= stateful.div_ceil(life.settings.max_warmups) + 3, "{rounds} rounds for {stateful} tasks");
        life.catch_up();
        life.check_sticky();
    }

    #[test]
    fn the_order_of_the_members_does_not_matter(
        mut life in lives(),
        events in vec(event(), 1..10),
        by in any::<prop::sample::Index>(),
    ) {
        life.join(0, 1);
        events.iter().for_each(|event| life.happens(event));
        let input = life.input();
        let mut turned = input.clone();
        let by = by.index(turned.members.len());
        turned.members.rotate_left(by);
        turned.tasks.reverse();
        let mut given = assign(&turned).members;
        given.rotate_right(by);
        prop_assert_eq!(given, assign(&input).members);
    }

    #[test]
    fn no_more_tasks_move_than_balance_asks_for(
        has in vec((0..5_u32, 1..4_u32), 1..5),
        new in vec(1..4_u32, 0..2),
    ) {
        let all: Vec<(u32, u32)> = has.iter().copied().chain(new.iter().map(|workers| (0, *workers))).collect();
        let mut partitions = 0..;
        let members: Vec<AssignorMember> = all.iter().zip(0_u8..).map(|((has, workers), number)| {
            let active = partitions.by_ref().take(*has as usize).map(|partition| task(0, partition)).collect();
            AssignorMember { active, generation: 1, ..member(number, *workers) }
        }).collect();
        let count: u32 = all.iter().map(|(has, _)| has).sum();
        let (has, workers): (Vec<u32>, Vec<u32>) = all.into_iter().unzip();
        for is_stateful in [true, false] {
            let mut life = Life::new(tasks(&[(i32::try_from(count).unwrap(), is_stateful)]), settings(0));
            life.members.clone_from(&members);
            life.generation = 1;
            life.settle();
            let given = life.last.clone().unwrap();
            let stays = |(member, tasks): (&AssignorMember, &MemberTasks)| {
                u32::try_from(member.active.iter().filter(|id| tasks.active.contains(id)).count()).unwrap()
            };
            let stay: u32 = members.iter().zip(&given.members).map(stays).sum();
            prop_assert_eq!(count - stay, fewest_moves(&has, &workers));
        }
    }

    #[test]
    fn whatever_is_claimed_every_task_is_somewhere_once(
        claims in vec((vec((0..4_usize, 0..6_i32), 0..20), vec((0..4_usize, 0..6_i32), 0..20), -1..5_i32, 0..3_u8), 1..6),
        mut life in lives(),
    ) {
        let ids = |ids: &[(usize, i32)]| ids.iter().map(|(sub, partition)| task(*sub, *partition)).collect::<Vec<_>>();
        for ((active, standby, generation, promised), number) in claims.iter().zip(0_u8..) {
            let mut member = AssignorMember {
                active: ids(active),
                standby: ids(standby),
                generation: *generation,
                ..member(number, u32::from(number))
            };
            match promised {
                0 => member.promised = ids(standby),
                1 => member.lags = ids(active).into_iter().map(|id| (id, None)).collect(),
                _ => {}
            }
            life.members.push(member);
        }
        let given = assign(&life.input());
        for task in &life.tasks {
            let count = given.members.iter().flat_map(|it| it.active.iter().chain(&it.awaiting)).filter(|id| **id == task.id);
            prop_assert_eq!(count.count(), 1);
        }
    }
}
