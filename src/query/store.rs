//! A store of this instance in the hands of a user.

use std::fmt;
use std::ops::RangeBounds;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::time::Duration;

use super::failure::QueryFailure;
use super::iter::{Cursor, QueryIter};
use super::position::Position;
use super::scope::{Found, Scope};
use super::staleness::Staleness;
use super::store_type::QueryableStoreType;
use super::tasks::{LocalTask, LocalTasks, Role};
use crate::error::{Error, ErrorKind, Result};
use crate::serdes::Serde;
use crate::state::{
    KeyValueStore, RecordContext, SessionStore, StoreContext, StoreKind, TaskStores, VersionedKeyValueStore,
    VersionedRecord, WindowStore,
};
use crate::window::Windowed;

/// The committed rows of a store on this instance: those of all its partitions here, or of one.
///
/// Asked for with [`KafkaStreams::store`](crate::KafkaStreams::store); cheap to clone, and good for the life of the client,
/// whichever tasks come and go.
///
/// Only tasks that run are asked. While a task of the store is being restored here, an answer may be in it: then queries
/// that do not find a row elsewhere fail with [`Unavailable`](ErrorKind::Unavailable), to be asked again later. Rows of
/// partitions that other instances own are not found.
pub struct QueryableStore<S> {
    scope: Scope,
    store_type: QueryableStoreType<S>,
}

/// Stores while they are read: what the methods of a store in a query ask for. Writes are refused.
pub struct QueryContext<'a> {
    stores: &'a mut TaskStores,
    context: RecordContext,
}

impl QueryContext<'_> {
    pub(super) fn of(stores: &mut TaskStores) -> QueryContext<'_> {
        QueryContext { stores, context: RecordContext::default() }
    }
}

impl StoreContext for QueryContext<'_> {
    fn stores(&mut self) -> (&mut TaskStores, &RecordContext) {
        (self.stores, &self.context)
    }
}

impl fmt::Debug for QueryContext<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QueryContext").finish_non_exhaustive()
    }
}

impl<S: 'static> QueryableStore<S> {
    pub(crate) fn new(tasks: Arc<LocalTasks>, name: Arc<str>, store_type: QueryableStoreType<S>) -> QueryableStore<S> {
        QueryableStore { scope: Scope::new(tasks, name), store_type }
    }

    /// Refuses a store of another kind.
    pub(crate) fn checked(self, kind: StoreKind) -> Result<QueryableStore<S>> {
        match self.store_type.open(0, kind) {
            Some(_) => Ok(self),
            None => Err(self.other_kind()),
        }
    }

    /// The store's name.
    pub fn name(&self) -> &str {
        &self.scope.name
    }

    pub(super) fn scope(&self) -> &Scope {
        &self.scope
    }

    pub(super) fn store_type(&self) -> &QueryableStoreType<S> {
        &self.store_type
    }

    pub(super) fn with(&self, scope: Scope) -> QueryableStore<S> {
        QueryableStore { scope, store_type: self.store_type.clone() }
    }

    /// Asks one partition only.
    #[must_use]
    pub fn with_partition(&self, partition: i32) -> QueryableStore<S> {
        self.with(Scope { partition: Some(partition), ..self.scope.clone() })
    }

    /// Asks copies, too, that are not older than that: those of standbys, and stores that are being restored. Rows may be
    /// missing or old. What is refused for its age may be asked again.
    #[must_use]
    pub fn with_staleness(&self, bound: Staleness) -> QueryableStore<S> {
        self.with(Scope { stale: Some(bound), ..self.scope.clone() })
    }

    /// The same with a bound in records (`enableStaleStores` in Java; `u64::MAX` takes all that know how far they are).
    #[must_use]
    pub fn enable_stale_stores(&self, records_behind_max: u64) -> QueryableStore<S> {
        self.with_staleness(Staleness::any().records(records_behind_max))
    }

    /// Answers only from a state that has what is at this position; waits for it so long. Of the bound, what is about the
    /// number of a partition counts there. The offset of a record that was written to a topic the store's task reads is
    /// such a position: what is read then has it in.
    #[must_use]
    pub fn with_position_bound(&self, bound: &Position, patience: Duration) -> QueryableStore<S> {
        self.with(Scope { bound: bound.clone(), patience, ..self.scope.clone() })
    }

    /// How far the state is that queries are answered from: what is read after this call is at least as far.
    ///
    /// # Errors
    /// `Unavailable`: no partition of the store is here now.
    pub fn position(&self) -> Result<Position> {
        Ok(self.found()?.position())
    }

    /// Reads a partition as its task sees it: with what is processed and not committed yet, which an abort may take back.
    /// The stream thread itself answers, between two batches of records, so keep it short. The state that is read has what
    /// [`with_position_bound`](QueryableStore::with_position_bound) asks for as far as that is committed.
    ///
    /// # Errors
    /// `Unavailable`: the partition is not at work here, the thread has not answered in time, or 1,024 reads wait for it: ask
    /// again. `User`: the function has panicked, or has tried to write. What the function returns.
    ///
    /// # Examples
    /// ```no_run
    /// # use kstreams::*;
    /// # use std::time::Duration;
    /// # fn total(sums: QueryableStore<KeyValueStore<String, i64>>) -> Result<Option<i64>> {
    /// let customer = "ada".to_owned();
    /// sums.read_uncommitted(3, Duration::from_secs(1), move |store, ctx| store.get(ctx, &customer))
    /// # }
    /// ```
    pub fn read_uncommitted<T: Send + 'static>(
        &self,
        partition: i32,
        timeout: Duration,
        read: impl FnOnce(&mut S, &mut QueryContext<'_>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let scope = Scope { partition: Some(partition), ..self.scope.clone() };
        let found = scope.find().map_err(QueryFailure::into_error)?;
        let task =
            found.tasks.iter().find(|task| task.role == Role::Active).ok_or_else(|| scope.not_here().into_error())?;
        let inbox = task.inbox.as_ref().ok_or_else(|| scope.not_here().into_error())?;
        let (index, kind) = task.place(&scope.name).ok_or_else(|| scope.not_here().into_error())?;
        let open = self.store_type.clone();
        let asked = scope.clone();
        let (answer, answered) = sync_channel(1);
        let read = move |stores: &mut TaskStores| {
            let read = || {
                let mut facade =
                    open.open(index, kind).ok_or_else(|| asked.of_another_kind(open.name()).into_error())?;
                read(&mut facade, &mut QueryContext::of(stores))
            };
            let read = catch_unwind(AssertUnwindSafe(read));
            // Nobody may wait any more.
            let _ = answer.send(read.unwrap_or_else(|_| {
                Err(Error::new(ErrorKind::User, format!("a query of store {} panicked", asked.name)))
            }));
        };
        if !inbox.leave(task.id, Box::new(read)) {
            return Err(scope.not_answered().into_error());
        }
        answered.recv_timeout(timeout).unwrap_or_else(|error| match error {
            RecvTimeoutError::Timeout => Err(scope.not_answered().into_error()),
            RecvTimeoutError::Disconnected => Err(scope.not_here().into_error()),
        })
    }

    /// Tries one task after the other; the first row counts.
    fn find<T>(&self, get: impl Fn(&mut S, &mut QueryContext<'_>) -> Result<Option<T>>) -> Result<Option<T>> {
        let found = self.found()?;
        for task in &found.tasks {
            let mut facade = self.facade(task)?;
            if let Some(row) = self.read(task, |ctx| get(&mut facade, ctx))? {
                return Ok(Some(row));
            }
        }
        if found.is_whole { Ok(None) } else { Err(self.scope.not_ready().into_error()) }
    }

    /// Rows of all tasks.
    fn rows<T: 'static, C: Cursor<T> + 'static>(&self, begin: impl Fn(&S) -> Result<C>) -> Result<QueryIter<T>> {
        let found = self.found()?;
        if !found.is_whole {
            return Err(self.scope.not_ready().into_error());
        }
        let begin = |task: LocalTask| Ok((Box::new(begin(&self.facade(&task)?)?) as Box<dyn Cursor<T>>, task));
        let cursors = found.tasks.into_iter().map(begin).collect::<Result<Vec<_>>>()?;
        Ok(self.scope.rows(cursors))
    }

    #[cold]
    fn other_kind(&self) -> Error {
        self.scope.of_another_kind(self.store_type.name()).into_error()
    }

    fn found(&self) -> Result<Found> {
        self.scope.find().map_err(QueryFailure::into_error)
    }

    fn read<T>(&self, task: &LocalTask, with: impl FnMut(&mut QueryContext<'_>) -> Result<T>) -> Result<T> {
        self.scope.read(task, with).map_err(QueryFailure::into_error)
    }

    fn facade(&self, task: &LocalTask) -> Result<S> {
        let (index, kind) = task.place(&self.scope.name).ok_or_else(|| self.scope.not_here().into_error())?;
        self.store_type.open(index, kind).ok_or_else(|| self.other_kind())
    }
}

impl<K: 'static, V: 'static> QueryableStore<KeyValueStore<K, V>> {
    /// The row of a key, if it is here.
    ///
    /// # Errors
    /// `Unavailable`: the store is not here, or not ready: ask again. A key or row that the serde refuses.
    pub fn get(&self, key: &K) -> Result<Option<V>> {
        self.find(|store, ctx| store.get(ctx, key))
    }

    /// The rows from one key to another, in the byte order of their keys within a partition.
    ///
    /// # Errors
    /// As [`get`](QueryableStore::get).
    pub fn range(&self, keys: impl RangeBounds<K>) -> Result<QueryIter<(K, V)>> {
        self.rows(|store| store.range((keys.start_bound(), keys.end_bound())))
    }

    /// The same, last key first.
    ///
    /// # Errors
    /// As [`get`](QueryableStore::get).
    pub fn reverse_range(&self, keys: impl RangeBounds<K>) -> Result<QueryIter<(K, V)>> {
        self.rows(|store| store.reverse_range((keys.start_bound(), keys.end_bound())))
    }

    /// Every row, in the byte order of the keys within a partition.
    ///
    /// # Errors
    /// As [`get`](QueryableStore::get).
    pub fn all(&self) -> Result<QueryIter<(K, V)>> {
        self.rows(|store| Ok(store.all()))
    }

    /// Every row, last key first.
    ///
    /// # Errors
    /// As [`get`](QueryableStore::get).
    pub fn reverse_all(&self) -> Result<QueryIter<(K, V)>> {
        self.rows(|store| Ok(store.reverse_all()))
    }

    /// The rows whose key bytes begin with what a serde makes of the prefix.
    ///
    /// # Errors
    /// As [`get`](QueryableStore::get).
    pub fn prefix_scan<P: 'static>(&self, prefix: &P, serde: &impl Serde<Item = P>) -> Result<QueryIter<(K, V)>> {
        self.rows(|store| store.prefix_scan(prefix, serde))
    }

    /// About how many rows there are on this instance.
    ///
    /// # Errors
    /// As [`get`](QueryableStore::get).
    pub fn approximate_num_entries(&self) -> Result<u64> {
        let found = self.found()?;
        found.tasks.iter().try_fold(0, |sum, task| {
            let facade = self.facade(task)?;
            Ok(sum + self.read(task, |ctx| Ok(facade.approximate_num_entries(ctx)))?)
        })
    }
}

/// Times are in milliseconds since the epoch; both ends of a span are included.
impl<K: 'static, V: 'static> QueryableStore<WindowStore<K, V>> {
    /// The row of a key and the window that begins at `start`.
    ///
    /// # Errors
    /// `Unavailable`: the store is not here, or not ready: ask again. A key or row that the serde refuses.
    pub fn fetch(&self, key: &K, start: i64) -> Result<Option<V>> {
        self.find(|store, ctx| store.fetch(ctx, key, start))
    }

    /// The rows of a key whose windows begin from `from` to `to`, earliest first: start and value.
    ///
    /// # Errors
    /// As [`fetch`](QueryableStore::fetch).
    pub fn fetch_range(&self, key: &K, from: i64, to: i64) -> Result<QueryIter<(i64, V)>> {
        self.rows(|store| store.fetch_range(key, from, to))
    }

    /// The same, latest first.
    ///
    /// # Errors
    /// As [`fetch`](QueryableStore::fetch).
    pub fn backward_fetch(&self, key: &K, from: i64, to: i64) -> Result<QueryIter<(i64, V)>> {
        self.rows(|store| store.backward_fetch(key, from, to))
    }

    /// The rows of all keys in a range whose windows begin from `from` to `to`, partition by partition.
    ///
    /// # Errors
    /// As [`fetch`](QueryableStore::fetch).
    pub fn fetch_keys(&self, keys: impl RangeBounds<K>, from: i64, to: i64) -> Result<QueryIter<(Windowed<K>, V)>> {
        self.rows(|store| store.fetch_keys((keys.start_bound(), keys.end_bound()), from, to))
    }

    /// The rows of all keys whose windows begin from `from` to `to`, partition by partition.
    ///
    /// # Errors
    /// As [`fetch`](QueryableStore::fetch).
    pub fn fetch_all(&self, from: i64, to: i64) -> Result<QueryIter<(Windowed<K>, V)>> {
        self.rows(|store| Ok(store.fetch_all(from, to)))
    }

    /// Every row that has not expired, partition by partition.
    ///
    /// # Errors
    /// As [`fetch`](QueryableStore::fetch).
    pub fn all(&self) -> Result<QueryIter<(Windowed<K>, V)>> {
        self.rows(|store| Ok(store.all()))
    }
}

/// Times are in milliseconds since the epoch; both ends of a span are included.
impl<K: 'static, A: 'static> QueryableStore<SessionStore<K, A>> {
    /// The aggregate of the session of a key with exactly this start and end.
    ///
    /// # Errors
    /// `Unavailable`: the store is not here, or not ready: ask again. A key or row that the serde refuses.
    pub fn fetch_session(&self, key: &K, start: i64, end: i64) -> Result<Option<A>> {
        self.find(|store, ctx| store.fetch_session(ctx, key, start, end))
    }

    /// All sessions of a key, by their ends.
    ///
    /// # Errors
    /// As [`fetch_session`](QueryableStore::fetch_session).
    pub fn fetch(&self, key: &K) -> Result<QueryIter<(Windowed<K>, A)>> {
        self.rows(|store| store.fetch(key))
    }

    /// The sessions of a key that end at `earliest_end` or later and begin at `latest_start` or earlier, by their ends.
    ///
    /// # Errors
    /// As [`fetch_session`](QueryableStore::fetch_session).
    pub fn find_sessions(&self, key: &K, earliest_end: i64, latest_start: i64) -> Result<QueryIter<(Windowed<K>, A)>> {
        self.rows(|store| store.find_sessions(key, earliest_end, latest_start))
    }

    /// Every session that has not expired, partition by partition.
    ///
    /// # Errors
    /// As [`fetch_session`](QueryableStore::fetch_session).
    pub fn all(&self) -> Result<QueryIter<(Windowed<K>, A)>> {
        self.rows(|store| Ok(store.all()))
    }
}

impl<K: 'static, V: 'static> QueryableStore<VersionedKeyValueStore<K, V>> {
    /// The newest version of a key.
    ///
    /// # Errors
    /// `Unavailable`: the store is not here, or not ready: ask again. A key or row that the serde refuses.
    pub fn get(&self, key: &K) -> Result<Option<VersionedRecord<V>>> {
        self.find(|store, ctx| store.get(ctx, key))
    }

    /// The version of a key that is valid at a time (ms), as far as the history goes.
    ///
    /// # Errors
    /// As [`get`](QueryableStore::get).
    pub fn get_as_of(&self, key: &K, as_of: i64) -> Result<Option<VersionedRecord<V>>> {
        self.find(|store, ctx| store.get_as_of(ctx, key, as_of))
    }

    /// The versions of a key that are valid somewhere in a span of time (ms, both ends included), newest first, as far as the
    /// history goes.
    ///
    /// # Errors
    /// As [`get`](QueryableStore::get).
    pub fn versions(&self, key: &K, from: i64, to: i64) -> Result<QueryIter<VersionedRecord<V>>> {
        self.rows(|store| store.versions(key, from, to))
    }
}

impl<S> Clone for QueryableStore<S> {
    fn clone(&self) -> Self {
        QueryableStore { scope: self.scope.clone(), store_type: self.store_type.clone() }
    }
}

impl<S> fmt::Debug for QueryableStore<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QueryableStore").field("name", &self.scope.name).finish_non_exhaustive()
    }
}
