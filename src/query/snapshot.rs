//! Rows as they were at one moment.

use std::fmt;
use std::sync::Arc;

use super::failure::{FailureReason, QueryFailure};
use super::position::Position;
use super::scope::Scope;
use super::store::{QueryContext, QueryableStore};
use super::store_type::QueryableStoreType;
use crate::error::Result;
use crate::state::TaskStores;

/// More rows are not copied, whatever is asked for.
const ROWS_MAX: usize = 1 << 20;

/// A copy of a partition of a store, and of others of its task beside it, as one commit has left them: see
/// [`QueryableStore::snapshot`].
///
/// It holds nothing of the task, and so may be kept as long as one likes, whatever becomes of the store. What is committed
/// later is not seen, and rows of windows and sessions stay as long as they did then.
pub struct StoreSnapshot<S> {
    names: Vec<Arc<str>>,
    stores: TaskStores,
    store_type: QueryableStoreType<S>,
    position: Position,
}

impl<S: 'static> QueryableStore<S> {
    /// Copies a partition of the store, and of other stores of the same task, of which all rows are of one commit: at most
    /// so many rows, together, and never more than 1,048,576. For what needs several reads that fit together; a range alone
    /// is of one moment within each page of 256 rows.
    ///
    /// It costs memory and time for each row. The stream thread does not wait for it with rows on disk; with rows in memory,
    /// a commit waits until those of one store are copied.
    ///
    /// # Errors
    /// `Invalid`: there are more rows, or the stores are not in one task. `Unavailable`: the task does not run here, or
    /// commits come so fast that no copy of several stores fits in between: ask again.
    ///
    /// # Examples
    /// ```no_run
    /// # use kstreams::*;
    /// # fn total(sums: QueryableStore<KeyValueStore<String, i64>>) -> Result<i64> {
    /// let mut snapshot = sums.snapshot(3, &[], 10_000)?;
    /// let rows = snapshot.read(|store, ctx| store.all().collect(ctx))?;
    /// let ada = snapshot.read(|store, ctx| store.get(ctx, &"ada".to_owned()))?;
    /// assert_eq!(rows.iter().any(|(name, _)| name == "ada"), ada.is_some());
    /// # Ok(rows.iter().map(|(_, sum)| sum).sum())
    /// # }
    /// ```
    pub fn snapshot(&self, partition: i32, others: &[&str], rows_max: usize) -> Result<StoreSnapshot<S>> {
        self.copy(partition, others, rows_max.min(ROWS_MAX)).map_err(QueryFailure::into_error)
    }

    fn copy(&self, partition: i32, others: &[&str], rows_max: usize) -> Result<StoreSnapshot<S>, QueryFailure> {
        let scope = Scope { partition: Some(partition), stale: None, ..self.scope().clone() };
        let found = scope.find()?;
        let task = found.tasks.first().ok_or_else(|| scope.not_here())?;
        let name = |other: &&str| {
            let apart = || {
                let context =
                    format!("stores {} and {other} are not in one task, and have no common moment", scope.name);
                QueryFailure::new(FailureReason::UnknownQueryType, context)
            };
            task.name(other).ok_or_else(apart)
        };
        let mut names = vec![Arc::clone(&scope.name)];
        names.extend(others.iter().map(name).collect::<Result<Vec<_>, _>>()?);
        let stores = scope.enter(task, |readers| readers.copy(&names, rows_max))?;
        let position = task.position.clone();
        Ok(StoreSnapshot { names, stores, store_type: self.store_type().clone(), position })
    }
}

impl<S: 'static> StoreSnapshot<S> {
    /// How far the state was at least.
    pub fn position(&self) -> &Position {
        &self.position
    }

    /// Reads the store as it was.
    ///
    /// # Errors
    /// What the function returns; `User` when it tries to write.
    pub fn read<T>(&mut self, read: impl FnOnce(&mut S, &mut QueryContext<'_>) -> Result<T>) -> Result<T> {
        let (name, store_type) = (self.names.first().map(Arc::clone), self.store_type.clone());
        self.read_other(name.as_deref().unwrap_or_default(), &store_type, read)
    }

    /// Reads one of the other stores that were copied.
    ///
    /// # Errors
    /// As [`read`](StoreSnapshot::read); `Invalid`: the store was not copied, or is of another kind.
    pub fn read_other<O: 'static, T>(
        &mut self,
        store: &str,
        store_type: &QueryableStoreType<O>,
        read: impl FnOnce(&mut O, &mut QueryContext<'_>) -> Result<T>,
    ) -> Result<T> {
        let index = self.names.iter().position(|name| **name == *store);
        let facade = index.and_then(|index| store_type.open(index, self.stores.kind(index)?));
        let mut facade = facade.ok_or_else(|| {
            let context = format!("the snapshot has no store {store} that can be asked as {}", store_type.name());
            crate::Error::invalid(context + ": name it where the snapshot is taken")
        })?;
        let mut result = None;
        self.stores.only_read(|stores| result = Some(read(&mut facade, &mut QueryContext::of(stores))));
        result.unwrap_or_else(|| Err(crate::Error::invalid("a snapshot was not read")))
    }
}

impl<S> fmt::Debug for StoreSnapshot<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoreSnapshot").field("stores", &self.names).finish_non_exhaustive()
    }
}
