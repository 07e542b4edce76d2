//! How far the stores of this process are behind their changelogs: for the leader of the group, and for the user.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::membership::classic::task_assignor::LocalState;
use crate::membership::streams::protocol::Progress;
use crate::query::{LocalTasks, Role};
use crate::topology::TaskId;

/// How far a store is behind its changelog: see [`KafkaStreams::lags`](crate::KafkaStreams::lags).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct StoreLag {
    /// The store.
    pub store: Arc<str>,
    /// The partition of the changelog.
    pub partition: i32,
    /// The next offset that is read.
    pub position: i64,
    /// The end of the changelog, as far as it is known.
    pub end: i64,
}

impl StoreLag {
    /// Offsets that are still to be read; no more records than that.
    pub fn lag(&self) -> u64 {
        u64::try_from(self.end.saturating_sub(self.position)).unwrap_or(0)
    }
}

/// Written by the stream threads and their restorers, each about the tasks whose stores it has, seldom more than once a turn.
#[derive(Debug, Default)]
pub(super) struct Lags {
    tasks: Mutex<BTreeMap<TaskId, Standing>>,
    /// Their stores, for those who ask.
    pub(super) local: Arc<LocalTasks>,
}

#[derive(Debug)]
enum Standing {
    Standby(Vec<StoreLag>),
    /// A standby that is not open yet.
    Unknown,
    Restoring(Vec<StoreLag>),
    /// As many records as its changelogs may hold.
    Running(u64),
}

impl Lags {
    pub(super) fn standby(&self, task: TaskId, stores: Vec<StoreLag>) {
        self.local.becomes(task, Role::Standby(Some(sum(&stores))));
        self.tasks().insert(task, Standing::Standby(stores));
    }

    pub(super) fn unknown(&self, task: TaskId) {
        self.local.becomes(task, Role::Standby(None));
        self.tasks().insert(task, Standing::Unknown);
    }

    pub(super) fn restoring(&self, task: TaskId, stores: Vec<StoreLag>) {
        self.local.becomes(task, Role::Restoring(Some(sum(&stores))));
        self.tasks().insert(task, Standing::Restoring(stores));
    }

    pub(super) fn running(&self, sizes: impl Iterator<Item = (TaskId, u64)>) {
        self.tasks().extend(sizes.map(|(task, size)| (task, Standing::Running(size))));
    }

    pub(super) fn closed(&self, task: TaskId) {
        self.local.closed(task);
        self.tasks().remove(&task);
    }

    /// What the leader of the group is told.
    pub(super) fn look(&self) -> LocalState {
        let mut state = LocalState::default();
        for (task, standing) in self.tasks().iter() {
            match standing {
                Standing::Standby(stores) => {
                    state.standby.push(*task);
                    state.lags.push((*task, Some(sum(stores))));
                }
                Standing::Unknown => {
                    state.standby.push(*task);
                    state.lags.push((*task, None));
                }
                Standing::Restoring(stores) => state.lags.push((*task, Some(sum(stores)))),
                Standing::Running(size) => state.sizes.push((*task, Some(*size))),
            }
        }
        state
    }

    /// What the coordinator of a streams group is told: of tasks that are not running here.
    pub(super) fn progress(&self) -> Vec<Progress> {
        let tasks = self.tasks();
        let known = tasks.iter().filter_map(|(task, standing)| match standing {
            Standing::Standby(stores) | Standing::Restoring(stores) => Some((*task, stores)),
            Standing::Unknown | Standing::Running(_) => None,
        });
        let sum = |offsets: &mut dyn Iterator<Item = i64>| offsets.fold(0, i64::saturating_add);
        let progress = |(task, stores): (TaskId, &Vec<StoreLag>)| Progress {
            task,
            offset: sum(&mut stores.iter().map(|store| store.position)),
            end: sum(&mut stores.iter().map(|store| store.end)),
        };
        known.map(progress).collect()
    }

    pub(super) fn of_stores(&self) -> Vec<StoreLag> {
        let tasks = self.tasks();
        let stores = tasks.values().filter_map(|standing| match standing {
            Standing::Standby(stores) | Standing::Restoring(stores) => Some(stores),
            Standing::Unknown | Standing::Running(_) => None,
        });
        stores.flatten().cloned().collect()
    }

    fn tasks(&self) -> MutexGuard<'_, BTreeMap<TaskId, Standing>> {
        // Every change is one insertion: a panic leaves nothing half done.
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(super) fn sum(stores: &[StoreLag]) -> u64 {
    stores.iter().map(StoreLag::lag).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_leader_hears_of_standbys_and_restorations_how_far_they_are_and_of_tasks_that_run_how_large() {
        let task = |partition| TaskId { sub_topology: 0, partition };
        let store = |position, end| StoreLag { store: "s".into(), partition: 0, position, end };
        let lags = Lags::default();
        lags.standby(task(0), vec![store(4, 9), store(0, 2)]);
        lags.unknown(task(1));
        lags.restoring(task(2), vec![store(3, 3), store(5, 4)]);
        lags.running([(task(3), 8)].into_iter());
        let state = lags.look();
        assert_eq!(state.standby, [task(0), task(1)]);
        assert_eq!(state.lags, [(task(0), Some(7)), (task(1), None), (task(2), Some(0))]);
        assert_eq!(state.sizes, [(task(3), Some(8))]);
        assert_eq!(lags.of_stores().len(), 4);
        let progress = [(task(0), 4, 11), (task(2), 8, 7)].map(|(task, offset, end)| Progress { task, offset, end });
        assert_eq!(lags.progress(), progress);
        lags.closed(task(3));
        assert!(lags.look().sizes.is_empty());
    }
}
