//! Where the active tasks go, and what has to warm up before.
#![expect(
    clippy::indexing_slicing,
    reason = "tasks and processes are numbers of the group, and every array has one entry each"
)]

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::Share;
use super::group::{Group, Rank};
use super::quota::{Claimant, Load, quotas};

pub(super) struct Placement {
    /// Of each task: the process that runs it now, or as soon as it is let go.
    pub active: Vec<Option<usize>>,
    /// (process, task)
    pub warmups: Vec<(usize, usize)>,
    pub is_settled: bool,
}

pub(super) fn place(group: &Group<'_>) -> Placement {
    let is_fixed = |task: usize| group.claims[task].filter(|process| group.share(*process) == Some(Share::Kept));
    let fixed: Vec<Option<usize>> = (0..group.tasks.len()).map(is_fixed).collect();
    let class = |wanted: bool| -> Vec<usize> {
        let tasks = group.tasks.iter().enumerate();
        tasks.filter(|(task, it)| it.is_stateful == wanted && fixed[*task].is_none()).map(|(task, _)| task).collect()
    };

    let (stateful, stateless) = (class(true), class(false));
    let owners = adopt(group, &stateful);
    let has = count(group, &stateful, &owners);
    let quota = quotas(stateful.len(), &claimants(group, &has, &vec![0; has.len()]));
    let targets = Class { group, tasks: &stateful, owners: &owners, quota: &quota, base: &[] }.balance();

    let mut active = fixed;
    let (warmups, is_settled) = settle(group, &stateful, &owners, &targets, &mut active);

    // Those without state fill up what the others leave.
    let owners: Vec<Option<usize>> = (0..group.tasks.len()).map(|task| owner_of_stateless(group, task)).collect();
    let has = count(group, &stateless, &owners).iter().zip(&quota).map(|(a, b)| a + b).collect::<Vec<_>>();
    let total = quotas(stateful.len() + stateless.len(), &claimants(group, &has, &quota));
    let rest: Vec<u32> = total.iter().zip(&quota).map(|(total, quota)| total - quota.min(total)).collect();
    let targets = Class { group, tasks: &stateless, owners: &owners, quota: &rest, base: &quota }.balance();
    for task in stateless {
        active[task] = targets[task];
    }
    Placement { active, warmups, is_settled }
}

fn claimants(group: &Group<'_>, has: &[u32], at_least: &[u32]) -> Vec<Claimant> {
    let claimant = |process: usize| Claimant {
        workers: if group.is_open(process) { group.capacity(process) } else { 0 },
        at_least: at_least[process],
        has: has[process],
    };
    (0..has.len()).map(claimant).collect()
}

fn count(group: &Group<'_>, tasks: &[usize], owners: &[Option<usize>]) -> Vec<u32> {
    let mut counts = vec![0; group.processes.len()];
    tasks.iter().filter_map(|task| owners[*task]).for_each(|process| counts[process] += 1);
    counts
}

fn owner_of_stateless(group: &Group<'_>, task: usize) -> Option<usize> {
    let promise = group.promises[task].filter(|promise| group.is_open(promise.process));
    group.claims[task].or(promise.map(|promise| promise.process))
}

/// Where each task with state is, or can run at once: with whoever has it, unless that one is behind and another has caught
/// up; else where it was promised, which may be behind if the promise is of late; else with the emptiest of those that have caught up; else with the most advanced.
/// Nobody, where nobody has state.
fn adopt(group: &Group<'_>, tasks: &[usize]) -> Vec<Option<usize>> {
    let mut owners = vec![None; group.tasks.len()];
    let mut orphans: Vec<(usize, usize)> = Vec::new();
    for task in tasks.iter().copied() {
        let caught_up = |(process, rank): &(usize, Rank)| group.is_open(*process) && group.has_caught_up(*rank);
        let ready = group.state(task).iter().filter(|state| caught_up(state)).count();
        let has_caught_up = |process: usize| group.has_caught_up(group.rank(task, process));
        let promise = group.promises[task].filter(|promise| group.is_open(promise.process));
        let is_fresh = promise.is_some_and(|promise| promise.is_fresh);
        let (first_choice, may_be_behind) = match group.claims[task] {
            Some(owner) => (Some(owner), false),
            None => (promise.map(|promise| promise.process), is_fresh),
        };
        match first_choice.filter(|process| ready == 0 || may_be_behind || has_caught_up(*process)) {
            Some(owner) => owners[task] = Some(owner),
            None => orphans.push((if ready == 0 { usize::MAX } else { ready }, task)),
        }
    }
    let mut has = count(group, tasks, &owners);
    // Those with the least choice first.
    orphans.sort_unstable();
    for (_, task) in orphans {
        let choice = |(process, rank): &(usize, Rank)| {
            let load = Load { tasks: has[*process] + 1, workers: group.capacity(*process) };
            (if group.has_caught_up(*rank) { 0 } else { *rank }, load, *rank, *process)
        };
        let open = group.state(task).iter().filter(|(process, _)| group.is_open(*process));
        if let Some((.., process)) = open.map(choice).min() {
            owners[task] = Some(process);
            has[process] += 1;
        }
    }
    owners
}

/// Tasks that are balanced among themselves.
struct Class<'a> {
    group: &'a Group<'a>,
    /// In order.
    tasks: &'a [usize],
    owners: &'a [Option<usize>],
    /// Of each process; all together make the tasks of the class.
    quota: &'a [u32],
    /// What each process has beside them.
    base: &'a [u32],
}

impl Class<'_> {
    /// Where each task belongs: as many stay with their owners as the quotas let.
    ///
    /// Which go away: those that a process with room has caught up on; then those of which it has some state, such as
    /// warm-ups of the last round; then any, of the sub-topology of which the owner has the most.
    fn balance(&self) -> Vec<Option<usize>> {
        let has = count(self.group, self.tasks, self.owners);
        let mut surplus: Vec<u32> = has.iter().zip(self.quota).map(|(has, quota)| has.saturating_sub(*quota)).collect();
        let mut room: Vec<u32> = has.iter().zip(self.quota).map(|(has, quota)| quota.saturating_sub(*has)).collect();
        let mut targets = self.owners.to_vec();

        let leaving_first = self.by_sub_topology_size(&surplus);
        for (task, process) in self.moves_to_state(&leaving_first, &room) {
            let Some(owner) = self.owners[task].filter(|owner| surplus[*owner] > 0) else { continue };
            if room[process] > 0 && targets[task] == Some(owner) {
                surplus[owner] -= 1;
                room[process] -= 1;
                targets[task] = Some(process);
            }
        }
        for (_, task) in leaving_first {
            let Some(owner) = self.owners[task].filter(|owner| surplus[*owner] > 0) else { continue };
            if targets[task] == Some(owner) {
                surplus[owner] -= 1;
                targets[task] = None;
            }
        }
        self.spread(&mut targets, &mut room);
        targets
    }

    /// Tasks of owners with too many, those of the largest sub-topologies first, evenly: numbered among the tasks of their
    /// owner and sub-topology, the highest number first.
    fn by_sub_topology_size(&self, surplus: &[u32]) -> Vec<(Reverse<u32>, usize)> {
        let mut numbers = vec![(usize::MAX, 0); surplus.len()];
        let mut tasks = Vec::new();
        for task in self.tasks.iter().copied() {
            let Some(owner) = self.owners[task].filter(|owner| surplus[*owner] > 0) else { continue };
            let sub_topology = self.group.tasks[task].id.sub_topology;
            let number = &mut numbers[owner];
            *number = if number.0 == sub_topology { (sub_topology, number.1 + 1) } else { (sub_topology, 0) };
            tasks.push((Reverse(number.1), task));
        }
        tasks.sort_unstable();
        tasks
    }

    /// (task, process) wherever a process with room has state of a task that may move, the most advanced first.
    fn moves_to_state(&self, tasks: &[(Reverse<u32>, usize)], room: &[u32]) -> Vec<(usize, usize)> {
        let mut moves = Vec::new();
        for (number, task) in tasks {
            let has_room = |(process, _): &&(usize, Rank)| room[*process] > 0;
            for (process, rank) in self.group.state(*task).iter().filter(has_room) {
                let rank = if self.group.has_caught_up(*rank) { 0 } else { *rank };
                moves.push((rank, *number, *task, *process));
            }
        }
        moves.sort_unstable();
        moves.into_iter().map(|(_, _, task, process)| (task, process)).collect()
    }

    /// Gives the tasks that have no place one with room: where there are the fewest of their sub-topology, then the fewest
    /// in all.
    fn spread(&self, targets: &mut [Option<usize>], room: &mut [u32]) {
        let sub_topology = |task: &usize| self.group.tasks[*task].id.sub_topology;
        let mut totals: Vec<u32> =
            (0..room.len()).map(|process| self.base.get(process).copied().unwrap_or(0)).collect();
        self.tasks.iter().filter_map(|task| targets[*task]).for_each(|process| totals[process] += 1);
        for tasks in self.tasks.chunk_by(|a, b| sub_topology(a) == sub_topology(b)) {
            if tasks.iter().all(|task| targets[*task].is_some()) {
                continue;
            }
            let mut same = vec![0_u32; room.len()];
            tasks.iter().filter_map(|task| targets[*task]).for_each(|process| same[process] += 1);
            let key = |process: usize, same: &[u32], totals: &[u32]| {
                let load = |tasks| Load { tasks, workers: self.group.capacity(process) };
                Reverse((load(same[process] + 1), load(totals[process] + 1), process))
            };
            let with_room = (0..room.len()).filter(|process| room[*process] > 0);
            let mut heap: BinaryHeap<_> = with_room.map(|process| key(process, &same, &totals)).collect();
            for task in tasks.iter().copied().filter(|task| targets[*task].is_none()).collect::<Vec<_>>() {
                let Some(Reverse((.., process))) = heap.pop() else { break };
                targets[task] = Some(process);
                room[process] -= 1;
                same[process] += 1;
                totals[process] += 1;
                if room[process] > 0 {
                    heap.push(key(process, &same, &totals));
                }
            }
        }
    }
}

/// Moves what can move now; the rest stays, and warms up where it belongs, the most advanced first.
fn settle(
    group: &Group<'_>,
    tasks: &[usize],
    owners: &[Option<usize>],
    targets: &[Option<usize>],
    active: &mut [Option<usize>],
) -> (Vec<(usize, usize)>, bool) {
    let mut wanted: Vec<(usize, Rank, usize)> = Vec::new();
    for task in tasks.iter().copied() {
        active[task] = targets[task];
        let (Some(owner), Some(target)) = (owners[task], targets[task]) else { continue };
        let (at_owner, at_target) = (group.rank(task, owner), group.rank(task, target));
        if owner != target && !group.has_caught_up(at_target) && at_target > at_owner {
            active[task] = Some(owner);
            wanted.push((target, at_target, task));
        }
    }
    wanted.sort_unstable();
    let is_settled = wanted.is_empty();
    let most = group.settings.max_warmups.max(1);
    let of_process = wanted.chunk_by(|(a, ..), (b, ..)| a == b);
    let warmups = of_process.flat_map(|wanted| wanted.iter().take(most)).map(|(process, _, task)| (*process, *task));
    (warmups.collect(), is_settled)
}
