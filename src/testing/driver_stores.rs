//! The stores of a driver's task: to read what is in them, and to put something there.

use std::sync::Arc;

use super::TopologyTestDriver;
use crate::error::{Error, Result};
use crate::record::ValueAndTimestamp;
use crate::serdes::{DynSerde, Serde, Timestamped};
use crate::state::{
    KeyValueStore, SessionStore, StoreBuilder, StoreKind, TimestampedKeyValueStore, TimestampedWindowStore,
    VersionedKeyValueStore, WindowKind, WindowStore,
};

impl TopologyTestDriver {
    /// The store of a builder, as a processor has it. Every call on it borrows the driver.
    ///
    /// # Errors
    /// `Invalid` when the topology has no store of that name.
    pub fn store<S>(&mut self, store: &StoreBuilder<S>) -> Result<S> {
        let index = self.task_stores()?.index(store.name()).ok_or_else(|| no_store(store.name()))?;
        let kind = self.task_stores()?.kind(index).unwrap_or(store.spec.kind);
        Ok(store.open_as(index, kind))
    }

    /// A key-value store by its name.
    ///
    /// # Errors
    /// `Invalid` when the topology has no such store of this kind.
    pub fn key_value_store<K: 'static, V: 'static>(
        &mut self,
        name: &str,
        key: impl Serde<Item = K>,
        value: impl Serde<Item = V>,
    ) -> Result<KeyValueStore<K, V>> {
        let index = self.store_where(name, |kind| matches!(kind, StoreKind::KeyValue).then_some(()))?.0;
        Ok(KeyValueStore::new(index, Arc::new(key), Arc::new(value)))
    }

    /// The store of a table or an aggregate by its name: rows with timestamps.
    ///
    /// # Errors
    /// `Invalid` when the topology has no such store of this kind.
    pub fn timestamped_key_value_store<K: 'static, V: 'static>(
        &mut self,
        name: &str,
        key: impl Serde<Item = K>,
        value: impl Serde<Item = V>,
    ) -> Result<TimestampedKeyValueStore<K, V>> {
        let index = self.store_where(name, |kind| matches!(kind, StoreKind::TimestampedKeyValue).then_some(()))?.0;
        let value: DynSerde<ValueAndTimestamp<V>> = Arc::new(Timestamped(value));
        Ok(KeyValueStore::new(index, Arc::new(key), value))
    }

    /// A window store by its name.
    ///
    /// # Errors
    /// `Invalid` when the topology has no such store of this kind.
    pub fn window_store<K: 'static, V: 'static>(
        &mut self,
        name: &str,
        key: impl Serde<Item = K>,
        value: impl Serde<Item = V>,
    ) -> Result<WindowStore<K, V>> {
        let (index, kind) = self.store_where(name, |kind| window_kind(kind, false))?;
        Ok(WindowStore::new(index, kind, Arc::new(key), Arc::new(value)))
    }

    /// The store of a windowed table by its name: rows with timestamps.
    ///
    /// # Errors
    /// `Invalid` when the topology has no such store of this kind.
    pub fn timestamped_window_store<K: 'static, V: 'static>(
        &mut self,
        name: &str,
        key: impl Serde<Item = K>,
        value: impl Serde<Item = V>,
    ) -> Result<TimestampedWindowStore<K, V>> {
        let (index, kind) = self.store_where(name, |kind| window_kind(kind, true))?;
        let value: DynSerde<ValueAndTimestamp<V>> = Arc::new(Timestamped(value));
        Ok(WindowStore::new(index, kind, Arc::new(key), value))
    }

    /// A session store by its name.
    ///
    /// # Errors
    /// `Invalid` when the topology has no such store of this kind.
    pub fn session_store<K: 'static, A: 'static>(
        &mut self,
        name: &str,
        key: impl Serde<Item = K>,
        aggregate: impl Serde<Item = A>,
    ) -> Result<SessionStore<K, A>> {
        let session =
            |kind| if let StoreKind::Session(kind) = kind { (!kind.has_headers).then_some(kind) } else { None };
        let (index, kind) = self.store_where(name, session)?;
        Ok(SessionStore::new(index, kind, Arc::new(key), Arc::new(aggregate)))
    }

    /// A versioned store by its name.
    ///
    /// # Errors
    /// `Invalid` when the topology has no such store of this kind.
    pub fn versioned_key_value_store<K: 'static, V: 'static>(
        &mut self,
        name: &str,
        key: impl Serde<Item = K>,
        value: impl Serde<Item = V>,
    ) -> Result<VersionedKeyValueStore<K, V>> {
        let versioned = |kind| matches!(kind, StoreKind::Versioned(_)).then_some(());
        let index = self.store_where(name, versioned)?.0;
        Ok(VersionedKeyValueStore::new(index, Arc::new(key), Arc::new(value)))
    }

    fn store_where<T>(&mut self, name: &str, is_wanted: impl Fn(StoreKind) -> Option<T>) -> Result<(usize, T)> {
        let stores = self.task_stores()?;
        let index = stores.index(name).ok_or_else(|| no_store(name))?;
        let known = stores.spec(index).map(|spec| spec.kind);
        let wanted = known
            .and_then(is_wanted)
            .ok_or_else(|| Error::invalid(format!("store {name} is of another kind: {known:?}")))?;
        Ok((index, wanted))
    }
}

fn window_kind(kind: StoreKind, is_timestamped: bool) -> Option<WindowKind> {
    match kind {
        StoreKind::Window(kind) if kind.is_timestamped == is_timestamped && !kind.has_headers => Some(kind),
        StoreKind::KeyValue
        | StoreKind::TimestampedKeyValue
        | StoreKind::KeyValueWithHeaders
        | StoreKind::Window(_)
        | StoreKind::Session(_)
        | StoreKind::Versioned(_) => None,
    }
}

#[cold]
fn no_store(name: &str) -> Error {
    Error::invalid(format!("the topology has no store {name}: it is added with add_state_store or Materialized::named"))
}
