//! What `benches/assignor.rs` drives: a large group, rebalanced again and again.

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

    /// How many tasks are active, awaited, standbys, warming up.
    pub fn counts(&self) -> [usize; 4] {
        let count = |list: fn(&MemberTasks) -> &Vec<TaskId>| self.given.iter().map(|tasks| list(tasks).len()).sum();
        [count(|it| &it.active), count(|it| &it.awaiting), count(|it| &it.standby), count(|it| &it.warmup)]
    }
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
        // Those with standbys run there at once, or wait a moment where that makes one too many.
        group.crash(100);
        group.assign();
        let [active, awaiting, standby, _] = group.counts();
        assert_eq!((active + awaiting, standby), (100_000, 80_000));
    }
}
