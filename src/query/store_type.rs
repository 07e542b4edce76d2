//! What a store is asked as.

use std::fmt;
use std::sync::Arc;

use crate::serdes::{DynSerde, Serde};
use crate::state::{
    KeyValueStore, SessionStore, StoreKind, TimestampedKeyValueStore, TimestampedWindowStore, VersionedKeyValueStore,
    WindowStore, timestamped_values, values,
};

/// The kinds of stores that can be asked, by Java's names. Keys and values are read with the serdes that are given here,
/// which have to be those of the store.
#[derive(Debug)]
pub struct QueryableStoreTypes;

/// How a store is asked: the facade `S` over its rows.
pub struct QueryableStoreType<S> {
    name: &'static str,
    open: Arc<Open<S>>,
}

type Open<S> = dyn Fn(usize, StoreKind) -> Option<S> + Send + Sync;

impl QueryableStoreTypes {
    /// `K → V`: key-value stores with timestamps or without, those of tables too.
    pub fn key_value<K: 'static, V: 'static>(
        key: impl Serde<Item = K>,
        value: impl Serde<Item = V>,
    ) -> QueryableStoreType<KeyValueStore<K, V>> {
        let (key, value): (DynSerde<K>, DynSerde<V>) = (Arc::new(key), Arc::new(value));
        QueryableStoreType::new("key_value", move |index, kind| {
            let store = || KeyValueStore::new(index, Arc::clone(&key), values(kind, Arc::clone(&value)));
            kind.is_key_value().then(store)
        })
    }

    /// `K → (V, timestamp in ms)`: the stores of tables.
    pub fn timestamped_key_value<K: 'static, V: 'static>(
        key: impl Serde<Item = K>,
        value: impl Serde<Item = V>,
    ) -> QueryableStoreType<TimestampedKeyValueStore<K, V>> {
        let (key, value): (DynSerde<K>, DynSerde<V>) = (Arc::new(key), Arc::new(value));
        QueryableStoreType::new("timestamped_key_value", move |index, kind| {
            let value = timestamped_values(kind, Arc::clone(&value)).filter(|_| kind.is_key_value())?;
            Some(KeyValueStore::new(index, Arc::clone(&key), value))
        })
    }

    /// `(K, window start in ms) → V`: window stores, those of windowed tables too.
    pub fn window<K: 'static, V: 'static>(
        key: impl Serde<Item = K>,
        value: impl Serde<Item = V>,
    ) -> QueryableStoreType<WindowStore<K, V>> {
        let (key, value): (DynSerde<K>, DynSerde<V>) = (Arc::new(key), Arc::new(value));
        QueryableStoreType::new("window", move |index, kind| {
            let StoreKind::Window(window) = kind else { return None };
            Some(WindowStore::new(index, window, Arc::clone(&key), values(kind, Arc::clone(&value))))
        })
    }

    /// `(K, window start in ms) → (V, timestamp in ms)`: the stores of windowed tables.
    pub fn timestamped_window<K: 'static, V: 'static>(
        key: impl Serde<Item = K>,
        value: impl Serde<Item = V>,
    ) -> QueryableStoreType<TimestampedWindowStore<K, V>> {
        let (key, value): (DynSerde<K>, DynSerde<V>) = (Arc::new(key), Arc::new(value));
        QueryableStoreType::new("timestamped_window", move |index, kind| {
            let StoreKind::Window(window) = kind else { return None };
            let value = timestamped_values(kind, Arc::clone(&value))?;
            Some(WindowStore::new(index, window, Arc::clone(&key), value))
        })
    }

    /// `(K, session) → A`.
    pub fn session<K: 'static, A: 'static>(
        key: impl Serde<Item = K>,
        aggregate: impl Serde<Item = A>,
    ) -> QueryableStoreType<SessionStore<K, A>> {
        let (key, aggregate): (DynSerde<K>, DynSerde<A>) = (Arc::new(key), Arc::new(aggregate));
        QueryableStoreType::new("session", move |index, kind| {
            let StoreKind::Session(session) = kind else { return None };
            Some(SessionStore::new(index, session, Arc::clone(&key), values(kind, Arc::clone(&aggregate))))
        })
    }

    /// `(K, time) → V`: versioned stores and tables.
    pub fn versioned<K: 'static, V: 'static>(
        key: impl Serde<Item = K>,
        value: impl Serde<Item = V>,
    ) -> QueryableStoreType<VersionedKeyValueStore<K, V>> {
        let (key, value): (DynSerde<K>, DynSerde<V>) = (Arc::new(key), Arc::new(value));
        QueryableStoreType::new("versioned", move |index, kind| {
            let store = || VersionedKeyValueStore::new(index, Arc::clone(&key), Arc::clone(&value));
            matches!(kind, StoreKind::Versioned(_)).then(store)
        })
    }
}

impl<S> QueryableStoreType<S> {
    fn new(
        name: &'static str,
        open: impl Fn(usize, StoreKind) -> Option<S> + Send + Sync + 'static,
    ) -> QueryableStoreType<S> {
        QueryableStoreType { name, open: Arc::new(open) }
    }

    /// The facade over a store; none: the store is of another kind.
    pub(super) fn open(&self, index: usize, kind: StoreKind) -> Option<S> {
        (self.open)(index, kind)
    }

    pub(super) fn name(&self) -> &'static str {
        self.name
    }
}

impl<S> Clone for QueryableStoreType<S> {
    fn clone(&self) -> Self {
        QueryableStoreType { name: self.name, open: Arc::clone(&self.open) }
    }
}

impl<S> fmt::Debug for QueryableStoreType<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QueryableStoreType").field("name", &self.name).finish_non_exhaustive()
    }
}
