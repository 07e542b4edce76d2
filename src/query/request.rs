//! One query of some partitions of a store, and on what terms (KIP-796).

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use super::failure::{FailureReason, QueryFailure};
use super::position::Position;
use super::result::{QueryResult, StateQueryResult};
use super::scope::Scope;
use super::staleness::Staleness;
use super::store::QueryableStore;
use super::store_type::QueryableStoreType;
use super::tasks::{Role, now};
use crate::error::{ErrorKind, Result};

/// What can be asked of a partition of a store that is seen as `S`: the queries of this crate, and a program's own.
///
/// ```
/// use kstreams::{KeyValueStore, Query, QueryableStore, Result};
///
/// /// How many rows a partition has, about.
/// struct CountQuery;
///
/// impl<K: 'static, V: 'static> Query<KeyValueStore<K, V>> for CountQuery {
///     type Answer = u64;
///
///     fn ask(&self, store: &QueryableStore<KeyValueStore<K, V>>) -> Result<u64> {
///         store.approximate_num_entries()
///     }
/// }
/// ```
pub trait Query<S> {
    /// What it gives.
    type Answer;

    /// Asks one partition, which is the only one that the store shows.
    ///
    /// # Errors
    /// Those of the store. `Invalid`: it does not answer this.
    fn ask(&self, store: &QueryableStore<S>) -> Result<Self::Answer>;

    /// Whether an answer says that there is nothing here: null in Java.
    fn is_nothing(&self, _answer: &Self::Answer) -> bool {
        false
    }
}

/// A store that is about to be asked: see [`StateQueryRequest::in_store`].
pub struct QueryIn<S> {
    store: Box<str>,
    store_type: QueryableStoreType<S>,
}

/// A query of a store: which partitions, and how old an answer may be. For
/// [`KafkaStreams::query`](crate::KafkaStreams::query).
///
/// As in Java it asks all partitions that are on this instance, copies too, unless it is told otherwise.
#[must_use]
pub struct StateQueryRequest<S, Q> {
    store: Box<str>,
    store_type: QueryableStoreType<S>,
    query: Q,
    /// None: all that are here.
    partitions: Option<BTreeSet<i32>>,
    /// None: what runs.
    stale: Option<Staleness>,
    bound: Position,
    patience: Duration,
    info: Info,
}

/// Whether it is told how a query was executed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Info {
    None,
    Collected,
}

impl<S: 'static> StateQueryRequest<S, ()> {
    /// A store by its name, and as what it is seen.
    pub fn in_store(store: &str, store_type: QueryableStoreType<S>) -> QueryIn<S> {
        QueryIn { store: store.into(), store_type }
    }
}

impl<S: 'static> QueryIn<S> {
    /// What is asked.
    pub fn with_query<Q: Query<S>>(self, query: Q) -> StateQueryRequest<S, Q> {
        let QueryIn { store, store_type } = self;
        let (bound, patience, info) = (Position::new(), Duration::ZERO, Info::None);
        StateQueryRequest {
            store,
            store_type,
            query,
            partitions: None,
            stale: Some(Staleness::any()),
            bound,
            patience,
            info,
        }
    }
}

impl<S: 'static, Q: Query<S>> StateQueryRequest<S, Q> {
    /// Asks these partitions; one that is not here fails with [`FailureReason::NotPresent`].
    pub fn with_partitions(self, partitions: impl IntoIterator<Item = i32>) -> Self {
        StateQueryRequest { partitions: Some(partitions.into_iter().collect()), ..self }
    }

    /// Asks every partition that is on this instance, which is the default.
    pub fn with_all_partitions(self) -> Self {
        StateQueryRequest { partitions: None, ..self }
    }

    /// Fails with [`FailureReason::NotUpToBound`] where the state has not reached a position.
    pub fn with_position_bound(self, bound: &Position) -> Self {
        StateQueryRequest { bound: bound.clone(), ..self }
    }

    /// Waits so long for the position, all partitions together. Java does not wait, which is the default.
    pub fn wait_at_most(self, patience: Duration) -> Self {
        StateQueryRequest { patience, ..self }
    }

    /// Asks no copies: neither standbys nor what is being restored, which fail with [`FailureReason::NotActive`].
    pub fn require_active(self) -> Self {
        StateQueryRequest { stale: None, ..self }
    }

    /// Asks copies that are not older than that; others fail with [`FailureReason::TooStale`]. By default all are asked.
    pub fn with_staleness(self, bound: Staleness) -> Self {
        StateQueryRequest { stale: Some(bound), ..self }
    }

    /// Says in each result how it came about: for a person who looks into a query.
    pub fn enable_execution_info(self) -> Self {
        StateQueryRequest { info: Info::Collected, ..self }
    }

    pub(crate) fn store(&self) -> &str {
        &self.store
    }

    pub(crate) fn store_type(&self) -> &QueryableStoreType<S> {
        &self.store_type
    }

    /// Asks what is here. `partition_count` is that of the store, as far as it is known.
    pub(crate) fn ask(&self, store: &QueryableStore<S>, partition_count: Option<i32>) -> StateQueryResult<Q::Answer> {
        let tasks = store.scope().tasks.with_store(&self.store);
        let begun = now();
        let mut global = None;
        let mut partitions = BTreeMap::new();
        let is_wanted = |partition| self.partitions.as_ref().is_none_or(|wanted| wanted.contains(&partition));
        for task in tasks {
            let (partition, is_global) = (task.id.partition, task.role == Role::Global);
            if !is_global && !is_wanted(partition) {
                continue;
            }
            let scope = Scope {
                partition: Some(partition),
                stale: self.stale,
                bound: self.bound.clone(),
                patience: self.patience.saturating_sub(now() - begun),
                ..store.scope().clone()
            };
            let result = self.ask_one(&store.with(scope));
            if is_global { global = Some(result) } else { drop(partitions.insert(partition, result)) }
        }
        for partition in self.partitions.iter().flatten().filter(|_| global.is_none()) {
            partitions.entry(*partition).or_insert_with(|| {
                let is_known = *partition >= 0 && partition_count.is_none_or(|count| *partition < count);
                QueryResult::failed(self.not_here(*partition, is_known))
            });
        }
        StateQueryResult::new(partitions, global)
    }

    fn ask_one(&self, store: &QueryableStore<S>) -> QueryResult<Q::Answer> {
        let begun = now();
        let result = match store.scope().find() {
            Err(failure) => QueryResult::failed(failure),
            Ok(found) => match self.query.ask(store) {
                Ok(answer) => {
                    let is_nothing = self.query.is_nothing(&answer);
                    QueryResult::answered(answer, is_nothing, found.position())
                }
                Err(error) if error.kind() == ErrorKind::Invalid => {
                    QueryResult::failed(QueryFailure::from_error(FailureReason::UnknownQueryType, error))
                }
                Err(error) => QueryResult::failed(error.into()),
            },
        };
        match self.info {
            Info::None => result,
            Info::Collected => {
                let query = std::any::type_name::<Q>();
                let took = (now() - begun).as_micros();
                let seen = store.store_type().name();
                result.with_info(format!("{query} of store {} seen as {seen} took {took} us", self.store))
            }
        }
    }

    #[cold]
    fn not_here(&self, partition: i32, is_known: bool) -> QueryFailure {
        let store = &self.store;
        match is_known {
            true => {
                let context = format!("partition {partition} of store {store} is not on this instance now");
                let context = context + ": ask the one that owns it, or again after the rebalance";
                QueryFailure::new(FailureReason::NotPresent, context)
            }
            false => {
                QueryFailure::new(FailureReason::DoesNotExist, format!("store {store} has no partition {partition}"))
            }
        }
    }
}

impl<S> fmt::Debug for QueryIn<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QueryIn").field("store", &self.store).finish_non_exhaustive()
    }
}

impl<S, Q: fmt::Debug> fmt::Debug for StateQueryRequest<S, Q> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut request = f.debug_struct("StateQueryRequest");
        request.field("store", &self.store).field("query", &self.query).field("partitions", &self.partitions);
        request.finish_non_exhaustive()
    }
}
