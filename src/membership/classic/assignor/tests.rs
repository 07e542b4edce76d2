//! Groups that live: what was assigned is what members claim next time, and their states catch up.

mod random;

use std::collections::{BTreeMap, BTreeSet};

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
        sizes: Vec::new(),
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
    /// What owners tell of a task, by its partition.
    size: fn(i32) -> Lag,
}

impl Life {
    fn new(tasks: Vec<TaskToAssign>, settings: AssignorSettings) -> Life {
        Life { tasks, settings, generation: 0, members: Vec::new(), disks: BTreeMap::new(), last: None, size: |_| None }
    }

    fn is_stateful(&self, id: TaskId) -> bool {
        self.tasks.iter().any(|task| task.id == id && task.is_stateful)
    }

    fn input(&self) -> AssignmentInput {
        let mut members = self.members.clone();
        for member in &mut members {
            let disk = self.disks.get(&member.process).into_iter().flatten();
            member.lags = disk.map(|(task, lag)| (*task, Some(*lag))).collect();
            member.sizes = member.active.iter().map(|task| (*task, (self.size)(task.partition))).collect();
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

/// One assignment of tasks of one sub-topology, all with state.
fn once(partitions: i32, members: Vec<AssignorMember>) -> GroupAssignment {
    assign(&AssignmentInput { tasks: tasks(&[(partitions, true)]), members, settings: settings(0) })
}

fn with_lags(number: u8, lags: &[(i32, Lag)]) -> AssignorMember {
    AssignorMember { lags: lags.iter().map(|(at, lag)| (task(0, *at), *lag)).collect(), ..member(number, 1) }
}

#[test]
fn a_task_that_nobody_has_goes_where_its_state_is_the_most_advanced() {
    let acceptable = settings(0).acceptable_lag;
    for (lags, heir) in [
        ([Some(7), Some(acceptable), None], 0),
        ([Some(90_000), Some(acceptable + 1), Some(50_000)], 1),
        ([None, None, Some(1_000_000)], 2),
    ] {
        let members = lags.iter().zip(0_u8..).map(|(lag, number)| with_lags(number, &[(0, *lag)]));
        let given = once(1, members.collect());
        assert_eq!(given.members[heir].active, [task(0, 0)], "{lags:?}");
        assert!(given.is_settled);
    }
}

#[test]
fn a_task_that_nobody_has_runs_where_it_can_although_it_belongs_elsewhere() {
    let mut full = with_lags(0, &[(2, Some(0))]);
    full.active = vec![task(0, 0), task(0, 1)];
    let given = once(3, vec![full, with_lags(1, &[(2, Some(1_000_000))])]);
    assert_eq!((given.members[0].active.len(), &given.members[1].warmup[..]), (3, &[task(0, 2)][..]));
}

#[test]
fn a_task_with_hardly_any_state_moves_at_once() {
    let acceptable = settings(0).acceptable_lag;
    for (size, moves) in [(Some(acceptable), true), (Some(acceptable + 1), false), (None, false)] {
        let mut owner = member(0, 1);
        owner.active = vec![task(0, 0), task(0, 1)];
        owner.sizes = owner.active.iter().map(|id| (*id, size)).collect();
        let given = once(2, vec![owner, member(1, 1)]);
        assert_eq!(
            (given.members[1].awaiting.len() == 1, given.members[1].warmup.is_empty()),
            (moves, moves),
            "{size:?}"
        );
    }
}

#[test]
fn a_task_that_was_promised_goes_where_it_was_promised() {
    for promised_to in 0..3 {
        let mut members: Vec<_> = (0..3).map(|number| with_lags(number, &[(0, Some(0))])).collect();
        members[promised_to].promised = vec![task(0, 0)];
        assert_eq!(once(1, members).members[promised_to].active, [task(0, 0)]);
    }
    // An old promise is no reason to wait for a state that is behind; one of the last assignment has been thought of.
    for (generation, heir) in [(-1, 1), (4, 1), (5, 0)] {
        let mut members = vec![with_lags(0, &[(0, Some(1_000_000))]), with_lags(1, &[(0, Some(0))])];
        (members[0].promised, members[0].generation, members[1].generation) = (vec![task(0, 0)], generation, 5);
        assert_eq!(once(1, members).members[heir].active, [task(0, 0)]);
    }
}

#[test]
fn what_moves_without_a_warm_up_does_not_come_back() {
    let mut life = Life { size: |_| Some(1), ..Life::new(tasks(&[(8, true)]), settings(0)) };
    life.join(1, 1);
    life.rebalance();
    life.join(2, 1);
    assert_eq!(life.rebalance().members[1].awaiting.len(), 4);
    // Nobody tells how small it is while nobody has it.
    let given = life.rebalance();
    assert_eq!((given.members[1].active.len(), given.is_settled), (4, true));
    life.catch_up();
    life.check_sticky();
}

#[test]
fn a_task_whose_owner_is_far_behind_goes_to_one_that_has_caught_up() {
    let mut restoring = with_lags(0, &[(0, Some(1_000_000))]);
    restoring.active = vec![task(0, 0)];
    let given = once(1, vec![restoring.clone(), with_lags(1, &[(0, Some(500_000))])]);
    assert_eq!(given.members[0].active, [task(0, 0)], "one that is behind as well is no reason to move");
    let given = once(1, vec![restoring, with_lags(1, &[(0, Some(5))])]);
    assert_eq!((&given.members[0].active[..], &given.members[1].awaiting[..]), (&[][..], &[task(0, 0)][..]));
}

#[test]
fn of_those_that_have_to_move_some_those_with_state_elsewhere_are_chosen() {
    let owner = AssignorMember { active: (0..4).map(|at| task(0, at)).collect(), ..member(0, 1) };
    let given = once(4, vec![owner.clone(), with_lags(1, &[(0, Some(9)), (2, Some(500_000))])]);
    assert_eq!((&given.members[1].awaiting[..], &given.members[1].warmup[..]), (&[task(0, 0)][..], &[task(0, 2)][..]));
    let given = once(4, vec![owner, with_lags(1, &[(0, Some(9)), (1, Some(10_000)), (2, Some(10_001))])]);
    assert_eq!(
        (&given.members[1].awaiting[..], &given.members[1].warmup[..]),
        (&[task(0, 0), task(0, 1)][..], &[][..])
    );
}

#[test]
fn tasks_join_those_who_have_the_fewest_of_their_sub_topology() {
    let has = |number, sub_topology| AssignorMember {
        active: (0..3).map(|at| task(sub_topology, at)).collect(),
        ..member(number, 1)
    };
    let input = AssignmentInput {
        tasks: tasks(&[(4, true), (4, true)]),
        members: vec![has(0, 0), has(1, 1)],
        settings: settings(0),
    };
    let given = assign(&input);
    assert_eq!((given.members[0].active[3], given.members[1].active[0]), (task(1, 3), task(0, 3)));
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
