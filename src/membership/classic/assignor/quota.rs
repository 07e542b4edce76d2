//! How many tasks each process is to have.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;

/// Tasks per worker, compared without division.
#[derive(Debug, Clone, Copy)]
pub(super) struct Load {
    pub tasks: u32,
    pub workers: u32,
}

impl Ord for Load {
    fn cmp(&self, other: &Load) -> Ordering {
        (u64::from(self.tasks) * u64::from(other.workers)).cmp(&(u64::from(other.tasks) * u64::from(self.workers)))
    }
}

impl PartialOrd for Load {
    fn partial_cmp(&self, other: &Load) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Load {
    fn eq(&self, other: &Load) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Load {}

/// One process, as far as its share is concerned.
#[derive(Debug, Clone, Copy)]
pub(super) struct Claimant {
    /// 0: it gets nothing.
    pub workers: u32,
    /// Has them for certain.
    pub at_least: u32,
    /// Would keep them.
    pub has: u32,
}

/// Gives one task after the other to the process that has the fewest per worker with it (D'Hondt's rule). So nobody has
/// more per worker than anybody else would have with one more task: loads differ by at most one per worker.
///
/// Where several come next alike, those who would otherwise have to give one away come first, which makes the moves as few
/// as they can be; then the order of the processes decides.
pub(super) fn quotas(tasks: usize, claimants: &[Claimant]) -> Vec<u32> {
    let workers: u64 = claimants.iter().map(|claimant| u64::from(claimant.workers)).sum();
    if workers == 0 {
        return vec![0; claimants.len()];
    }
    // What the rule certainly comes to, so that there is less than one task per process to go through.
    let certain = |claimant: &Claimant| {
        let share = u128::from(claimant.workers) * tasks as u128 / u128::from(workers);
        u32::try_from(share).unwrap_or(u32::MAX)
    };
    let mut quotas: Vec<u32> = claimants.iter().map(certain).collect();
    let mut rest = tasks.saturating_sub(quotas.iter().map(|quota| *quota as usize).sum());
    let next = |process: usize, quota: u32| {
        let claimant = claimants.get(process).filter(|claimant| claimant.workers > 0)?;
        Some(Reverse((Load { tasks: quota + 1, workers: claimant.workers }, process)))
    };
    let mut heap: BinaryHeap<_> =
        quotas.iter().enumerate().filter_map(|(process, quota)| next(process, *quota)).collect();
    let mut alike: Vec<usize> = Vec::new();
    while rest > 0 {
        let Some(Reverse((load, _))) = heap.peek().copied() else { break };
        alike.clear();
        while let Some(Reverse((other, process))) = heap.peek().copied()
            && other == load
        {
            heap.pop();
            alike.push(process);
        }
        let quota_of = |process: usize| quotas.get(process).copied().unwrap_or(0);
        alike.sort_by_cached_key(|process| {
            let claimant = claimants.get(*process).copied().unwrap_or(Claimant { workers: 0, at_least: 0, has: 0 });
            let with_it = quota_of(*process) + 1;
            (Reverse(claimant.at_least >= with_it), Reverse(claimant.has >= with_it), *process)
        });
        alike.truncate(rest);
        rest -= alike.len();
        for process in &alike {
            if let Some(quota) = quotas.get_mut(*process) {
                *quota += 1;
                heap.extend(next(*process, *quota));
            }
        }
    }
    quotas
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claimant(workers: u32, has: u32) -> Claimant {
        Claimant { workers, at_least: 0, has }
    }

    #[test]
    fn tasks_go_by_workers() {
        assert_eq!(quotas(12, &[claimant(1, 0), claimant(2, 0), claimant(3, 0)]), [2, 4, 6]);
        assert_eq!(quotas(3, &[claimant(0, 9), claimant(1, 0)]), [0, 3]);
        assert_eq!(quotas(3, &[claimant(0, 0)]), [0]);
        assert_eq!(quotas(0, &[]), [0_u32; 0]);
    }

    #[test]
    fn of_several_that_come_next_the_one_that_has_a_task_more_keeps_it() {
        assert_eq!(quotas(4, &[claimant(1, 0), claimant(1, 2), claimant(1, 1)]), [1, 2, 1]);
        let certain = Claimant { workers: 1, at_least: 2, has: 0 };
        assert_eq!(quotas(4, &[claimant(1, 2), certain, claimant(1, 2)]), [1, 2, 1]);
    }

    #[test]
    fn nobody_has_more_than_another_would_have_with_one_more() {
        for tasks in 0..60 {
            let claimants: Vec<_> = [1, 5, 2, 7, 1, 3].map(|workers| claimant(workers, tasks % 7)).to_vec();
            let quotas = quotas(tasks as usize, &claimants);
            assert_eq!(quotas.iter().sum::<u32>(), tasks);
            let load = |i: usize, more| Load { tasks: quotas[i] + more, workers: claimants[i].workers };
            assert!((0..6).all(|i| (0..6).all(|j| load(i, 0) <= load(j, 1))), "{quotas:?}");
        }
    }
}
