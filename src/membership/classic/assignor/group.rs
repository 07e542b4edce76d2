//! What the members say, as numbers that index arrays.

use std::cmp::Reverse;
use std::collections::HashMap;

use rustc_hash::{FxBuildHasher, FxHashMap};

use super::{AssignmentInput, AssignorMember, AssignorSettings, Share, TaskToAssign};
use crate::topology::TaskId;

/// How far a state is, to compare: known lags, then [`UNKNOWN`], then [`ABSENT`].
pub(super) type Rank = u64;
pub(super) const UNKNOWN: Rank = u64::MAX - 1;
pub(super) const ABSENT: Rank = u64::MAX;

/// No process has more stream threads: a garbled number is not to draw all tasks.
const WORKERS_MAX: u32 = 1024;

pub(super) struct Group<'a> {
    pub settings: &'a AssignorSettings,
    /// In order, each once.
    pub tasks: Vec<TaskToAssign>,
    /// By their ids.
    pub processes: Vec<Process<'a>>,
    /// The process that must let go of a task before another one gets it.
    pub claims: Vec<Option<usize>>,
    /// The process that was told to wait for it, or that had it before it was restarted.
    pub promises: Vec<Option<Promise>>,
    /// (process, rank) of each state of a task, by process.
    state: PerTask<(usize, Rank)>,
    /// The rank of a process without state of a task: little, where there is little to read.
    absent: Vec<Rank>,
    /// Processes that a standby runs on, the most advanced first.
    standbys: PerTask<usize>,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Promise {
    pub process: usize,
    /// Made by the last assignment, which knew why: it holds even where that process has not caught up.
    pub is_fresh: bool,
}

pub(super) struct Process<'a> {
    /// The member that speaks for it: the last one started.
    pub member: usize,
    pub capacity: u32,
    pub share: Share,
    pub tags: &'a [(String, String)],
}

impl<'a> Group<'a> {
    pub(super) fn new(input: &'a AssignmentInput) -> Group<'a> {
        let mut tasks = input.tasks.clone();
        tasks.sort_unstable_by_key(|task| task.id);
        tasks.dedup_by_key(|task| task.id);
        let mut numbers: FxHashMap<TaskId, usize> = HashMap::with_capacity_and_hasher(tasks.len(), FxBuildHasher);
        numbers.extend(tasks.iter().enumerate().map(|(number, task)| (task.id, number)));

        let mut members: Vec<(usize, &AssignorMember)> = input.members.iter().enumerate().collect();
        members.sort_unstable_by_key(|(_, member)| {
            (member.process, Reverse(member.started_ms), Reverse(member.generation), Reverse(&member.member))
        });
        // Where nobody can take anything, those who leave still can.
        let is_open = input.members.iter().any(|member| member.share == Share::Full);
        let mut processes: Vec<Process<'a>> = Vec::new();
        let mut claims = Strongest::new(tasks.len());
        let mut promises = Strongest::new(tasks.len());
        let mut states: Vec<(usize, (usize, Rank))> = Vec::new();
        let mut standbys: Vec<(usize, (Rank, usize))> = Vec::new();
        let mut absent = vec![ABSENT; tasks.len()];
        for members in members.chunk_by(|(_, a), (_, b)| a.process == b.process) {
            let process = processes.len();
            let number = |task: &TaskId| numbers.get(task).copied();
            for (at, (index, member)) in members.iter().enumerate() {
                promises.add(member.promised.iter().filter_map(number), member.generation, process);
                if at > 0 {
                    // A dead one: its tasks are where its process finds them again.
                    promises.add(member.active.iter().filter_map(number), member.generation, process);
                    continue;
                }
                claims.add(member.active.iter().filter_map(number), member.generation, process);
                let lags = member.lags.iter().filter_map(|(task, lag)| Some((number(task)?, *lag)));
                states
                    .extend(lags.map(|(task, lag)| (task, (process, lag.map_or(UNKNOWN, |lag| lag.min(UNKNOWN - 1))))));
                for (task, size) in member.sizes.iter().filter_map(|(task, size)| Some((number(task)?, (*size)?))) {
                    if let Some(absent) = absent.get_mut(task) {
                        *absent = size.min(UNKNOWN - 1);
                    }
                }
                standbys.extend(member.standby.iter().filter_map(number).map(|task| (task, (UNKNOWN, process))));
                let share = if !is_open && member.share == Share::Leaving { Share::Full } else { member.share };
                let capacity = member.workers.clamp(1, WORKERS_MAX);
                processes.push(Process { member: *index, capacity, share, tags: &member.tags });
            }
        }
        let claims = claims.into_processes();
        // Behind the lags that are told: of two for one place, the first counts.
        states.sort_unstable_by_key(|(task, (process, rank))| (*task, *process, *rank));
        let told = states.len();
        for (task, claim) in claims.iter().enumerate() {
            if let Some(process) = claim
                && states.get(..told).is_some_and(|told| {
                    told.binary_search_by_key(&(task, *process), |(task, (process, _))| (*task, *process)).is_err()
                })
            {
                states.push((task, (*process, 0)));
            }
        }
        states.extend(standbys.iter().map(|(task, (rank, process))| (*task, (*process, *rank))));
        states.sort_by_key(|(task, (process, _))| (*task, *process));
        states.dedup_by_key(|(task, (process, _))| (*task, *process));
        let state = PerTask::new(tasks.len(), states);

        for (task, (rank, process)) in &mut standbys {
            *rank = rank_in(state.of(*task), *process).unwrap_or(ABSENT);
        }
        standbys.sort_unstable();
        standbys.dedup();
        let standbys = standbys.into_iter().map(|(task, (_, process))| (task, process)).collect();
        let standbys = PerTask::new(tasks.len(), standbys);
        let last = input.members.iter().map(|member| member.generation).max().unwrap_or(-1).max(0);
        let promise = |(generation, Reverse(process))| Promise { process, is_fresh: generation == last };
        let promises = promises.0.into_iter().map(|strongest| strongest.map(promise)).collect();
        Group { settings: &input.settings, tasks, processes, claims, promises, state, absent, standbys }
    }

    pub(super) fn state(&self, task: usize) -> &[(usize, Rank)] {
        self.state.of(task)
    }

    pub(super) fn standbys(&self, task: usize) -> &[usize] {
        self.standbys.of(task)
    }

    pub(super) fn rank(&self, task: usize, process: usize) -> Rank {
        let absent = || self.absent.get(task).copied().unwrap_or(ABSENT);
        rank_in(self.state.of(task), process).unwrap_or_else(absent)
    }

    pub(super) fn has_caught_up(&self, rank: Rank) -> bool {
        rank <= self.settings.acceptable_lag.min(UNKNOWN - 1)
    }

    /// Whether it may be given something.
    pub(super) fn is_open(&self, process: usize) -> bool {
        self.share(process) == Some(Share::Full)
    }

    pub(super) fn share(&self, process: usize) -> Option<Share> {
        self.processes.get(process).map(|process| process.share)
    }

    pub(super) fn capacity(&self, process: usize) -> u32 {
        self.processes.get(process).map_or(1, |process| process.capacity)
    }
}

fn rank_in(state: &[(usize, Rank)], process: usize) -> Option<Rank> {
    state.iter().find(|(holder, _)| *holder == process).map(|(_, rank)| *rank)
}

/// Of those who say that a task is theirs, the one with the latest generation.
struct Strongest(Vec<Option<(i32, Reverse<usize>)>>);

impl Strongest {
    fn new(tasks: usize) -> Strongest {
        Strongest(vec![None; tasks])
    }

    fn add(&mut self, tasks: impl Iterator<Item = usize>, generation: i32, process: usize) {
        for task in tasks {
            if let Some(strongest) = self.0.get_mut(task) {
                *strongest = (*strongest).max(Some((generation, Reverse(process))));
            }
        }
    }

    fn into_processes(self) -> Vec<Option<usize>> {
        self.0.into_iter().map(|strongest| strongest.map(|(_, Reverse(process))| process)).collect()
    }
}

/// Lists of all tasks, one behind the other.
struct PerTask<T> {
    starts: Vec<usize>,
    entries: Vec<T>,
}

impl<T> PerTask<T> {
    /// `sorted` by task.
    fn new(tasks: usize, sorted: Vec<(usize, T)>) -> PerTask<T> {
        let mut starts = Vec::with_capacity(tasks + 1);
        let mut entries = Vec::with_capacity(sorted.len());
        for (task, entry) in sorted {
            while starts.len() <= task {
                starts.push(entries.len());
            }
            entries.push(entry);
        }
        starts.resize(tasks + 1, entries.len());
        PerTask { starts, entries }
    }

    fn of(&self, task: usize) -> &[T] {
        let bounds = self.starts.get(task).zip(self.starts.get(task + 1));
        bounds.and_then(|(start, end)| self.entries.get(*start..*end)).unwrap_or_default()
    }
}
