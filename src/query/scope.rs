//! Which tasks of this instance a query asks, and on what terms.

use std::sync::Arc;
use std::time::Duration;

use super::failure::{FailureReason, QueryFailure};
use super::iter::{Cursor, PAGE, QueryIter};
use super::position::Position;
use super::staleness::Staleness;
use super::store::QueryContext;
use super::tasks::{LocalTask, LocalTasks, Role};
use crate::error::Result;
use crate::state::{NotRead, TaskReaders};
use crate::topology::TaskId;

/// How long a query waits for the owner of rows in memory to share them. It does so in its next turn.
const SHARE_WAIT: Duration = Duration::from_secs(5);

/// A store of this instance, what of it is asked, and how old an answer may be.
#[derive(Debug, Clone)]
pub(super) struct Scope {
    pub(super) tasks: Arc<LocalTasks>,
    pub(super) name: Arc<str>,
    pub(super) partition: Option<i32>,
    /// Which copies are asked; none: no copies are.
    pub(super) stale: Option<Staleness>,
    pub(super) bound: Position,
    pub(super) patience: Duration,
}

/// The tasks that may be asked.
pub(super) struct Found {
    pub(super) tasks: Vec<LocalTask>,
    /// No other task of this instance may have rows, too.
    pub(super) is_whole: bool,
}

impl Found {
    /// Where the states are, or were before they are read.
    pub(super) fn position(&self) -> Position {
        self.tasks.iter().fold(Position::new(), |position, task| position.merge(&task.position))
    }
}

impl Scope {
    pub(super) fn new(tasks: Arc<LocalTasks>, name: Arc<str>) -> Scope {
        Scope { tasks, name, partition: None, stale: None, bound: Position::new(), patience: Duration::ZERO }
    }

    /// The tasks that may be asked, once they are all at the position that was asked for.
    pub(super) fn find(&self) -> Result<Found, QueryFailure> {
        let found = self.find_now()?;
        let bounds: Vec<_> = found.tasks.iter().map(|task| (task.id, self.bound_of(task))).collect();
        if found.tasks.iter().zip(&bounds).all(|(task, (_, bound))| task.position.covers(bound)) {
            return Ok(found);
        }
        self.tasks.wait_for(&bounds, self.patience).map_err(|task| self.not_up_to_bound(task))?;
        self.find_now()
    }

    fn find_now(&self) -> Result<Found, QueryFailure> {
        let mut tasks = self.tasks.with_store(&self.name);
        tasks.retain(|task| self.partition.is_none_or(|partition| partition == task.id.partition));
        let restores = |task: &LocalTask| matches!(task.role, Role::Restoring(_)) && !self.allows(task);
        let is_whole = !tasks.iter().any(restores);
        let copies = tasks.len();
        tasks.retain(|task| self.allows(task));
        match tasks.is_empty() {
            false => Ok(Found { tasks, is_whole }),
            true if copies > 0 && self.stale.is_some() => Err(self.too_stale()),
            true if copies > 0 => Err(self.not_ready()),
            true => Err(self.not_here()),
        }
    }

    fn allows(&self, task: &LocalTask) -> bool {
        task.role.is_current() || self.stale.is_some_and(|stale| stale.allows(task.role.lag(), task.age()))
    }

    fn bound_of(&self, task: &LocalTask) -> Position {
        match task.role {
            Role::Global => self.bound.clone(),
            Role::Active | Role::Restoring(_) | Role::Standby(_) => self.bound.of_partition(task.id.partition),
        }
    }

    /// Reads the store of a task.
    pub(super) fn read<T>(
        &self,
        task: &LocalTask,
        mut with: impl FnMut(&mut QueryContext<'_>) -> Result<T>,
    ) -> Result<T, QueryFailure> {
        self.enter(task, |readers| readers.read(&self.name, |stores| with(&mut QueryContext::of(stores))))
    }

    /// Goes through the gate of a task as soon as its rows are shared.
    pub(super) fn enter<T>(
        &self,
        task: &LocalTask,
        mut read: impl FnMut(&TaskReaders) -> Result<T, NotRead>,
    ) -> Result<T, QueryFailure> {
        loop {
            match read(&task.readers) {
                Ok(read) => return Ok(read),
                Err(NotRead::Failed(error)) => return Err(error.into()),
                Err(NotRead::Closed) => return Err(self.not_here()),
                Err(NotRead::Owned) => return Err(self.owned()),
                Err(NotRead::TooMany) => return Err(self.too_many()),
                Err(NotRead::Changing) => return Err(self.changing()),
                Err(NotRead::NotShared) => {
                    task.inbox.iter().for_each(|inbox| inbox.wake());
                    if !self.tasks.wait_until_shared(&task.readers, SHARE_WAIT) {
                        return Err(self.not_ready());
                    }
                }
            }
        }
    }

    /// The rows of tasks, a page at a time.
    pub(super) fn rows<T: 'static>(&self, cursors: Vec<(Box<dyn Cursor<T>>, LocalTask)>) -> QueryIter<T> {
        let scope = self.clone();
        let read = move |task: &LocalTask, cursor: &mut dyn Cursor<T>| {
            // Its stores may be open still, and follow another instance now.
            match scope.tasks.as_now(task) {
                Some(task) if scope.allows(&task) => {}
                Some(_) => return Err(scope.not_ready().into_error()),
                None => return Err(scope.not_here().into_error()),
            }
            let page = scope.read(task, |ctx| {
                let mut page = Vec::new();
                while page.len() < PAGE
                    && let Some(row) = cursor.next(ctx)?
                {
                    page.push(row);
                }
                Ok(page)
            });
            page.map_err(QueryFailure::into_error)
        };
        QueryIter::new(cursors, Box::new(read))
    }

    #[cold]
    pub(super) fn not_here(&self) -> QueryFailure {
        let partition = self.partition.map(|partition| format!("partition {partition} of ")).unwrap_or_default();
        let context = format!("{partition}store {} is not on this instance now", self.name);
        let context = context + ": ask the one that owns it, or again after the rebalance";
        QueryFailure::new(FailureReason::NotPresent, context)
    }

    #[cold]
    pub(super) fn not_ready(&self) -> QueryFailure {
        let context = format!("a task of store {} is not ready on this instance", self.name);
        QueryFailure::new(FailureReason::NotActive, context + ": ask again when it is, or enable stale stores")
    }

    #[cold]
    fn too_stale(&self) -> QueryFailure {
        let context =
            format!("what is of store {} on this instance is further behind than the query allows", self.name);
        QueryFailure::new(FailureReason::TooStale, context + ": ask again, or the instance that owns it")
    }

    #[cold]
    pub(super) fn not_answered(&self) -> QueryFailure {
        let context = format!("the thread of store {} has not answered in time", self.name);
        QueryFailure::new(FailureReason::NotActive, context + ": ask again, or what is committed")
    }

    #[cold]
    fn not_up_to_bound(&self, task: TaskId) -> QueryFailure {
        let context = format!("task {} of store {} is not up to the position that was asked for", task, self.name);
        QueryFailure::new(FailureReason::NotUpToBound, context + ": ask again")
    }

    #[cold]
    fn too_many(&self) -> QueryFailure {
        let context = format!("store {} has more rows than the snapshot may copy", self.name);
        QueryFailure::new(FailureReason::UnknownQueryType, context + ": ask for ranges, or let it copy more")
    }

    #[cold]
    fn changing(&self) -> QueryFailure {
        let context = format!("store {} and others were committed again and again while they were copied", self.name);
        QueryFailure::new(FailureReason::NotActive, context + ": ask again")
    }

    #[cold]
    fn owned(&self) -> QueryFailure {
        let context = format!("store {} is in an engine of its own, which only its task can read", self.name);
        QueryFailure::new(FailureReason::UnknownQueryType, context + ": leave with_engine out to query it")
    }

    #[cold]
    pub(super) fn of_another_kind(&self, asked: &str) -> QueryFailure {
        let context = format!("store {} cannot be asked as {asked}: it is of another kind", self.name);
        QueryFailure::new(FailureReason::UnknownQueryType, context)
    }
}
