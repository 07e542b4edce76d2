//! Where the standbys go.
#![expect(
    clippy::indexing_slicing,
    reason = "tasks and processes are numbers of the group, and every array has one entry each"
)]

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use super::Share;
use super::group::Group;
use super::quota::Load;

/// Of each task, the processes that keep a standby of it.
///
/// First stay those that are there, as far as their tags are as good as can be; then those come in that have state, such as
/// the process that the task has just left, or else the emptiest; then the fullest give some to the emptiest.
pub(super) fn place(group: &Group<'_>, active: &[Option<usize>]) -> Vec<Vec<usize>> {
    let open = (0..group.processes.len()).filter(|process| group.is_open(*process)).count();
    let wanted = |task: usize| if group.tasks[task].is_stateful { group.settings.num_standby } else { 0 };
    let mut standbys: Vec<Vec<usize>> = vec![Vec::new(); group.tasks.len()];
    if group.settings.num_standby == 0 || open == 0 {
        return standbys;
    }
    let mut places = Places::new(group);
    for task in 0..group.tasks.len() {
        let Some(active) = active[task] else { continue };
        let mut used = vec![active];
        let mut left: Vec<usize> = group.standbys(task).to_vec();
        left.retain(|process| *process != active && group.share(*process) != Some(Share::Leaving));
        while used.len() <= wanted(task)
            && let Some(at) = left.iter().position(|process| places.is_as_good_as_any(*process, &used))
        {
            let process = left.remove(at);
            places.add(process);
            used.push(process);
        }
        used.remove(0);
        standbys[task] = used;
    }
    let kept: Vec<usize> = standbys.iter().map(Vec::len).collect();
    for task in 0..group.tasks.len() {
        let Some(active) = active[task] else { continue };
        let mut used = [&[active], &*standbys[task]].concat();
        while used.len() <= wanted(task) {
            let mut with_state: Vec<_> = group.state(task).iter().map(|(process, rank)| (*rank, *process)).collect();
            with_state.retain(|(_, process)| group.is_open(*process) && !used.contains(process));
            with_state.sort_unstable();
            let state = with_state.into_iter().map(|(_, process)| process);
            let found = state.into_iter().find(|process| places.is_as_good_as_any(*process, &used));
            let Some(process) = found.or_else(|| places.emptiest(&used)) else { break };
            places.add(process);
            used.push(process);
        }
        used.remove(0);
        standbys[task] = used;
    }
    level(active, &mut places, &mut standbys, &kept);
    standbys
}

/// Moves standbys from a process to another one as long as the other has fewer per worker even with it, and tags stay as
/// good. Every move makes the loads more alike, so this ends; the same standbys again leave nothing to move.
fn level(active: &[Option<usize>], places: &mut Places<'_>, standbys: &mut [Vec<usize>], kept: &[usize]) {
    loop {
        let mut full: Vec<bool> = (0..places.tasks.len()).map(|process| places.could_give(process)).collect();
        if full.iter().all(|is_full| !is_full) {
            return;
        }
        // Those that are new go before those that were there.
        let slots = standbys.iter().enumerate().flat_map(|(task, processes)| {
            processes.iter().enumerate().map(move |(at, process)| (*process, at < kept[task], Reverse(task), at))
        });
        let mut slots: Vec<_> = slots.filter(|(process, ..)| full[*process]).collect();
        slots.sort_unstable();
        let mut has_changed = false;
        for (process, _, Reverse(task), at) in slots {
            full[process] = full[process] && places.could_give(process);
            let Some(active) = active[task].filter(|_| full[process]) else { continue };
            let mut used = [&[active], &*standbys[task]].concat();
            used.remove(at + 1);
            if let Some(other) = places.emptier(process, &used) {
                places.remove(process);
                places.add(other);
                standbys[task][at] = other;
                has_changed = true;
            }
        }
        if !has_changed {
            return;
        }
    }
}

/// In how many tags, and in which, a process differs from others; the more, and the more important ones, the higher.
type Score = u64;

/// The processes that may get standbys, by how many they have.
struct Places<'a> {
    group: &'a Group<'a>,
    /// Standbys of each process.
    tasks: Vec<u32>,
    by_load: BTreeSet<(Load, usize)>,
    /// Those with the same tags together.
    by_tags: Vec<BTreeSet<(Load, usize)>>,
    /// Of each process: its place in `by_tags`.
    tags: Vec<usize>,
    /// Of each place in `by_tags`: the values of the tags that matter.
    values: Vec<Vec<Option<&'a str>>>,
}

impl<'a> Places<'a> {
    /// How many of the emptiest processes are looked at before all kinds of tags are.
    const LOOKED_AT: usize = 16;

    fn new(group: &'a Group<'a>) -> Places<'a> {
        let mut known: BTreeMap<Vec<Option<&str>>, usize> = BTreeMap::new();
        let mut places = Places {
            group,
            tasks: vec![0; group.processes.len()],
            by_load: BTreeSet::new(),
            by_tags: Vec::new(),
            tags: Vec::new(),
            values: Vec::new(),
        };
        // A score has room for 32 of them.
        let keys: Vec<&String> = group.settings.rack_tags.iter().take(32).collect();
        for (process, it) in group.processes.iter().enumerate() {
            let value = |key: &&String| it.tags.iter().find(|(tag, _)| tag == *key).map(|(_, value)| &**value);
            let values: Vec<Option<&str>> = keys.iter().map(value).collect();
            let next = known.len();
            let tags = *known.entry(values.clone()).or_insert(next);
            if tags == next {
                places.values.push(values);
                places.by_tags.push(BTreeSet::new());
            }
            places.tags.push(tags);
            places.enter(process);
        }
        places
    }

    fn load(&self, process: usize, more: u32) -> Load {
        Load { tasks: self.tasks[process] + more, workers: self.group.capacity(process) }
    }

    fn enter(&mut self, process: usize) {
        if self.group.is_open(process) {
            let entry = (self.load(process, 0), process);
            self.by_load.insert(entry);
            self.by_tags[self.tags[process]].insert(entry);
        }
    }

    fn change(&mut self, process: usize, tasks: u32) {
        let entry = (self.load(process, 0), process);
        self.by_load.remove(&entry);
        self.by_tags[self.tags[process]].remove(&entry);
        self.tasks[process] = tasks;
        self.enter(process);
    }

    fn add(&mut self, process: usize) {
        self.change(process, self.tasks[process] + 1);
    }

    fn remove(&mut self, process: usize) {
        self.change(process, self.tasks[process] - 1);
    }

    fn best_score(&self) -> Score {
        self.values.first().map_or(0, |values| (0..values.len()).map(Places::bit).sum())
    }

    /// What one more tag that differs adds: as many as can be count before which they are.
    fn bit(key: usize) -> Score {
        1 << 32 | 1 << (31 - key)
    }

    fn score(&self, process: usize, used: &[usize]) -> Score {
        self.score_of_tags(self.tags[process], used)
    }

    /// A process that does not tell a tag is not known to differ in it.
    fn score_of_tags(&self, tags: usize, used: &[usize]) -> Score {
        let differs = |(key, value): &(usize, &Option<&str>)| {
            value.is_some() && used.iter().all(|other| self.values[self.tags[*other]][*key] != **value)
        };
        self.values[tags].iter().enumerate().filter(differs).map(|(key, _)| Places::bit(key)).sum()
    }

    /// Whether no open process would differ from those used in more tags.
    fn is_as_good_as_any(&self, process: usize, used: &[usize]) -> bool {
        let score = self.score(process, used);
        score == self.best_score()
            || (0..self.by_tags.len())
                .all(|tags| self.score_of_tags(tags, used) <= score || self.first(tags, used).is_none())
    }

    /// The emptiest process with these tags that is not used.
    fn first(&self, tags: usize, used: &[usize]) -> Option<(Load, usize)> {
        self.by_tags[tags].iter().find(|(_, process)| !used.contains(process)).copied()
    }

    /// Of the processes that differ in the most tags, the emptiest.
    fn emptiest(&self, used: &[usize]) -> Option<usize> {
        let is_best = |process: usize| !used.contains(&process) && self.score(process, used) == self.best_score();
        let quick = self.by_load.iter().take(Places::LOOKED_AT).find(|(_, process)| is_best(*process));
        let thorough = || {
            let kinds = (0..self.by_tags.len()).filter_map(|tags| {
                let (load, process) = self.first(tags, used)?;
                Some((Reverse(self.score_of_tags(tags, used)), load, process))
            });
            kinds.min().map(|(.., process)| process)
        };
        quick.map(|(_, process)| *process).or_else(thorough)
    }

    /// Whether another process would have fewer per worker with one more.
    fn could_give(&self, process: usize) -> bool {
        let load = self.load(process, 0);
        self.group.is_open(process) && self.by_load.iter().any(|(_, other)| self.load(*other, 1) < load)
    }

    /// The emptiest process that would still have fewer per worker than this one, and differs in as many tags.
    fn emptier(&self, process: usize, used: &[usize]) -> Option<usize> {
        let (load, score) = (self.load(process, 0), self.score(process, used));
        let fits = |other: usize| self.load(other, 1) < load && !used.contains(&other);
        let quick = self.by_load.iter().take(Places::LOOKED_AT);
        let mut quick = quick.filter(|(_, other)| fits(*other) && self.score(*other, used) >= score);
        let thorough = || {
            let kinds = (0..self.by_tags.len()).filter(|tags| self.score_of_tags(*tags, used) >= score);
            kinds
                .filter_map(|tags| self.first(tags, used))
                .filter(|(_, other)| fits(*other))
                .min()
                .map(|(_, other)| other)
        };
        quick.next().map(|(_, other)| *other).or_else(thorough)
    }
}
