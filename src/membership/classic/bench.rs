//! What `benches/assignor.rs` drives: a large group, rebalanced again and again.

use std::collections::HashMap;

use uuid::Uuid;

use super::assignor::{AssignmentInput, AssignorMember, AssignorSettings, MemberTasks, Share, TaskToAssign, assign};
use crate::topology::TaskId;

/// A group of members that do what they are told, at once. For benches of this crate only.
#[derive(Debug)]
pub struct BenchGroup {
    input: AssignmentInput,
    given: Vec<MemberTasks>,
    generation: i32,
}

impl BenchGroup {
    /// A hundred partitions to a sub-topology, every fifth of them without state.
    pub fn new(members: u32, tasks: u32, num_standby: usize, racks: u32) -> BenchGroup {
        let task = |number: u32| {
            let (sub_topology, partition) = ((number / 100) as usize, (number % 100).cast_signed());
            TaskToAssign { id: TaskId { sub_topology, partition }, is_stateful: sub_topology % 5 != 4 }
        };
        let rack_tags = if racks == 0 { Vec::new() } else { vec!["rack".to_owned()] };
        let settings = AssignorSettings { num_standby, rack_tags, ..AssignorSettings::default() };
        let input = AssignmentInput { tasks: (0..tasks).map(task).collect(), members: Vec::new(), settings };
        let mut group = BenchGroup { input, given: Vec::new(), generation: 0 };
        (0..members).for_each(|number| group.join(number, racks));
        group
    }

    /// One more member.
    pub fn join(&mut self, number: u32, racks: u32) {
        let rack = number.checked_rem(racks).map(|rack| ("rack".to_owned(), rack.to_string()));
        self.input.members.push(AssignorMember {
            member: format!("member-{number}"),
            process: Uuid::from_u128(u128::from(number) << 64),
            started_ms: 0,
            generation: -1,
            workers: 4,
            tags: rack.into_iter().collect(),
            share: Share::Full,
            active: Vec::new(),
            promised: Vec::new(),
            standby: Vec::new(),
            lags: Vec::new(),
            sizes: Vec::new(),
        });
    }

    /// The first members are gone.
    pub fn crash(&mut self, members: usize) {
        self.input.members.drain(..members);
    }

    /// One assignment.
    pub fn assign(&mut self) {
        self.given = assign(&self.input).members;
    }

    /// Members take over what they were given, and catch up.
    pub fn follow(&mut self) {
        self.generation += 1;
        for (member, tasks) in self.input.members.iter_mut().zip(&self.given) {
            member.generation = self.generation;
            member.active.clone_from(&tasks.active);
            member.promised.clone_from(&tasks.awaiting);
            member.standby.clone_from(&tasks.standby);
            member.lags = tasks.standby.iter().chain(&tasks.warmup).map(|task| (*task, Some(0))).collect();
        }
    }

    /// Rebalances, followed each time, until nothing is under way any more.
    pub fn settle(&mut self) -> Settling {
        let (before, members) = (self.places(), self.input.members.len());
        let mut rounds = 0;
        loop {
            let given = assign(&self.input);
            (rounds, self.given) = (rounds + 1, given.members);
            self.follow();
            if given.is_settled {
                break;
            }
        }
        let mut settling = Settling { rounds, moves: 0, fewest_moves: 0 };
        let stateful = |task: &TaskToAssign| task.is_stateful;
        let after = self.places();
        let mut beside = vec![0; members];
        for kind in [true, false] {
            let mut had = vec![0; members];
            let mut has = vec![0; members];
            for task in self.input.tasks.iter().filter(|task| stateful(task) == kind) {
                let (before, after) = (before.get(&task.id), after.get(&task.id));
                settling.moves += usize::from(before.is_some_and(|before| after != Some(before)));
                before.and_then(|member| had.get_mut(*member)).into_iter().for_each(|count| *count += 1);
                after.and_then(|member| has.get_mut(*member)).into_iter().for_each(|count| *count += 1);
            }
            settling.fewest_moves += fewest_moves(&had, &beside);
            beside = has;
        }
        settling
    }

    /// The member of each task that runs, by its place among the members.
    fn places(&self) -> HashMap<TaskId, usize> {
        let members = self.input.members.iter().enumerate();
        members.flat_map(|(place, member)| member.active.iter().map(move |task| (*task, place))).collect()
    }

    /// How many tasks are active, awaited, standbys, warming up.
    pub fn counts(&self) -> [usize; 4] {
        let count = |list: fn(&MemberTasks) -> &Vec<TaskId>| self.given.iter().map(|tasks| list(tasks).len()).sum();
        [count(|it| &it.active), count(|it| &it.awaiting), count(|it| &it.standby), count(|it| &it.warmup)]
    }
}

/// What it took until a group had settled. For benches of this crate only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settling {
    /// Rebalances.
    pub rounds: usize,
    /// Tasks that are elsewhere in the end.
    pub moves: usize,
    /// The optimum: so many have to move however they are shared out, if loads are to differ by one at most; those with
    /// state first, then those without beside them.
    pub fewest_moves: usize,
}

/// The fewest tasks that leave members with equally many workers, who have so many tasks of a kind, beside others that
/// stay, so that all of them have as many, give or take one.
fn fewest_moves(has: &[usize], beside: &[usize]) -> usize {
    let total: usize = has.iter().chain(beside).sum();
    let share = total / has.len().max(1);
    // Of the members with a task too many, so many keep one of them.
    let larger = total - share * has.len();
    let excess = has.iter().zip(beside).map(|(has, beside)| has.saturating_sub(share.saturating_sub(*beside)));
    let (too_many, all) =
        excess.fold((0, 0), |(members, all), excess| (members + usize::from(excess > 0), all + excess));
    all - larger.min(too_many)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thousand_members_with_a_hundred_thousand_tasks_are_assigned_all_of_them() {
        let mut group = BenchGroup::new(1000, 100_000, 1, 3);
        group.assign();
        assert_eq!(group.counts(), [100_000, 0, 80_000, 0]);
        group.follow();
        group.assign();
        assert_eq!(group.counts(), [100_000, 0, 80_000, 0]);
        // A tenth more: no task moves that need not, and each once.
        group.input.settings.max_warmups = 1000;
        (1000..1100).for_each(|number| group.join(number, 3));
        let Settling { rounds, moves, fewest_moves } = group.settle();
        assert_eq!((moves, fewest_moves), (9000, 9000));
        assert!(rounds <= 4, "{rounds}");
        // Those with standbys run there at once, or wait a moment where that makes one too many.
        group.crash(100);
        group.assign();
        let [active, awaiting, standby, _] = group.counts();
        assert_eq!((active + awaiting, standby), (100_000, 80_000));
    }
}
