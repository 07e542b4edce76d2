//! The tasks of this instance whose stores can be asked.

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::inbox::Inbox;
use super::position::Position;
use crate::record::TopicPartition;
use crate::state::{StoreKind, TaskReaders, TaskStores};
use crate::topology::TaskId;

/// Written by the threads that own the tasks, each about its own; read by queries.
#[derive(Debug, Default)]
pub(crate) struct LocalTasks {
    tasks: Mutex<BTreeMap<TaskId, LocalTask>>,
    /// Something was committed, opened, shared or closed.
    changed: Condvar,
}

/// A task as a query finds it.
#[derive(Debug, Clone)]
pub(super) struct LocalTask {
    pub(super) id: TaskId,
    pub(super) readers: Arc<TaskReaders>,
    pub(super) role: Role,
    /// Where its state is in its inputs; of a copy nobody knows.
    pub(super) position: Position,
    /// Of the thread that it runs on; none: what is read of it is committed at once.
    pub(super) inbox: Option<Arc<Inbox>>,
    stores: Arc<[(Arc<str>, StoreKind)]>,
    /// When they lacked nothing for the last time, as far as its thread has said.
    whole_at: Option<Instant>,
}

impl LocalTask {
    /// How long ago its stores lacked nothing; none: they never were whole.
    pub(super) fn age(&self) -> Option<Duration> {
        if self.role.is_current() { Some(Duration::ZERO) } else { self.whole_at.map(|at| now() - at) }
    }

    /// The name of a store of the task, kept.
    pub(super) fn name(&self, store: &str) -> Option<Arc<str>> {
        self.stores.iter().find(|(name, _)| **name == *store).map(|(name, _)| Arc::clone(name))
    }

    /// The place and the kind of a store.
    pub(super) fn place(&self, store: &str) -> Option<(usize, StoreKind)> {
        let index = self.stores.iter().position(|(name, _)| **name == *store)?;
        self.stores.get(index).map(|(_, kind)| (index, *kind))
    }
}

/// What a task's stores are good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// The task runs here: its stores are as its last commit has left them.
    Active,
    /// It will run here when its stores have been read; so many records are to come, if that is known.
    Restoring(Option<u64>),
    /// It runs elsewhere, and its stores follow; so many records are to come, if that is known.
    Standby(Option<u64>),
    /// Every instance has these stores whole.
    Global,
}

impl Role {
    pub(super) fn is_current(self) -> bool {
        matches!(self, Role::Active | Role::Global)
    }

    /// How many records it is behind, as far as that is known.
    pub(super) fn lag(self) -> Option<u64> {
        match self {
            Role::Active | Role::Global => Some(0),
            Role::Restoring(lag) | Role::Standby(lag) => lag,
        }
    }
}

impl LocalTasks {
    /// The stores of a task are open, and may lack something.
    pub(crate) fn opened(&self, id: TaskId, stores: &mut TaskStores, inbox: &Arc<Inbox>) {
        self.insert(id, Role::Restoring(None), stores, Some(Arc::clone(inbox)));
    }

    /// A global store is as its topic.
    pub(crate) fn global(&self, id: TaskId, stores: &mut TaskStores) {
        self.insert(id, Role::Global, stores, None);
    }

    fn insert(&self, id: TaskId, role: Role, stores: &mut TaskStores, inbox: Option<Arc<Inbox>>) {
        let names = stores.specs().map(|spec| (Arc::clone(&spec.name), spec.kind)).collect();
        let (readers, position, whole_at) = (stores.readers(), Position::new(), None);
        let task = LocalTask { id, readers, role, position, inbox, stores: names, whole_at };
        self.tasks().insert(id, task);
        self.changed.notify_all();
    }

    /// The role of a task has changed, or what it still lacks.
    pub(crate) fn becomes(&self, id: TaskId, role: Role) {
        if let Some(task) = self.tasks().get_mut(&id) {
            if task.role.is_current() || role.lag() == Some(0) {
                task.whole_at = Some(now());
            }
            task.role = role;
        }
    }

    /// A task has begun to run, and goes on from these offsets.
    pub(crate) fn runs<'a>(&self, id: TaskId, inputs: impl Iterator<Item = (&'a TopicPartition, i64)>) {
        self.becomes(id, Role::Active);
        self.committed(id, inputs);
    }

    /// A task has committed, and its stores have what was: the next offset of each input.
    pub(crate) fn committed<'a>(&self, id: TaskId, inputs: impl Iterator<Item = (&'a TopicPartition, i64)>) {
        if let Some(task) = self.tasks().get_mut(&id) {
            for (input, next) in inputs.filter(|(_, next)| *next > 0) {
                task.position.add(input.clone(), next - 1);
            }
        }
        self.changed.notify_all();
    }

    /// The stores of a task are about to be closed.
    pub(crate) fn closed(&self, id: TaskId) {
        self.tasks().remove(&id);
        self.changed.notify_all();
    }

    /// Rows in memory can be read now.
    pub(crate) fn shared(&self) {
        // IMPORTANT: under the lock, or who has just looked whether they are would sleep through it.
        let tasks = self.tasks();
        self.changed.notify_all();
        drop(tasks);
    }

    /// The tasks that have a store.
    pub(super) fn with_store(&self, store: &str) -> Vec<LocalTask> {
        let tasks = self.tasks();
        tasks.values().filter(|task| task.place(store).is_some()).cloned().collect()
    }

    /// A task that was found, as it is now; none: it was closed since, or opened anew.
    pub(super) fn as_now(&self, found: &LocalTask) -> Option<LocalTask> {
        let tasks = self.tasks();
        tasks.get(&found.id).filter(|task| Arc::ptr_eq(&task.readers, &found.readers)).cloned()
    }

    /// Waits until the states of tasks are all at their positions: the first one that is not when the time is over, or that
    /// is closed and never will be.
    pub(super) fn wait_for(&self, bounds: &[(TaskId, Position)], timeout: Duration) -> Result<(), TaskId> {
        let lacks = |tasks: &BTreeMap<TaskId, LocalTask>, (id, bound): &(TaskId, Position)| {
            tasks.get(id).is_none_or(|task| !task.position.covers(bound))
        };
        let may_come = |tasks: &mut BTreeMap<TaskId, LocalTask>| {
            bounds.iter().all(|(id, _)| tasks.contains_key(id)) && bounds.iter().any(|bound| lacks(tasks, bound))
        };
        let waited = self.changed.wait_timeout_while(self.tasks(), timeout, may_come);
        let (tasks, _) = waited.unwrap_or_else(PoisonError::into_inner);
        bounds.iter().find(|bound| lacks(&tasks, bound)).map_or(Ok(()), |(id, _)| Err(*id))
    }

    /// Waits until rows in memory that were asked for are shared; whether they are.
    pub(super) fn wait_until_shared(&self, readers: &TaskReaders, timeout: Duration) -> bool {
        let waited = self.changed.wait_timeout_while(self.tasks(), timeout, |_| readers.is_wanted());
        let (tasks, waited) = waited.unwrap_or_else(PoisonError::into_inner);
        drop(tasks);
        !waited.timed_out()
    }

    fn tasks(&self) -> MutexGuard<'_, BTreeMap<TaskId, LocalTask>> {
        // Every change is one insertion or field: a panic leaves nothing half done.
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A query comes from a thread that has no turn, and so no time.
#[expect(clippy::disallowed_methods, reason = "only queries are measured by it, never records")]
pub(super) fn now() -> Instant {
    Instant::now()
}
