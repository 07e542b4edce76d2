//! Versioned stores as a processor sees them.

use std::fmt;
use std::sync::Arc;

use super::store::StoreContext;
use super::versions::{Version, VersionPut};
use crate::error::Result;
use crate::serdes::{DynSerde, encode};

/// A value and the time it is valid in, in milliseconds since the epoch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VersionedRecord<V> {
    /// The value.
    pub value: V,
    /// From when on it is valid: the timestamp it was put with.
    pub timestamp: i64,
    /// Up to when, not included; none: it is the newest.
    pub valid_to: Option<i64>,
}

/// A store that remembers what the value of a key was (KIP-889), in the hands of one processor.
///
/// The largest timestamp that was put is the store's time. What was valid before the store's time minus its history is
/// forgotten, but for the newest version of a key; a version that is put so late is dropped and counted.
pub struct VersionedKeyValueStore<K, V> {
    index: usize,
    key: DynSerde<K>,
    value: DynSerde<V>,
    /// Scratch of this processor; kept, so that encoding allocates nothing.
    key_bytes: Vec<u8>,
    value_bytes: Vec<u8>,
}

impl<K: 'static, V: 'static> VersionedKeyValueStore<K, V> {
    pub(crate) fn new(index: usize, key: DynSerde<K>, value: DynSerde<V>) -> Self {
        VersionedKeyValueStore { index, key, value, key_bytes: Vec::new(), value_bytes: Vec::new() }
    }

    pub(crate) fn index(&self) -> usize {
        self.index
    }

    /// Puts the value that a key has from `timestamp` on. None, or a value that its serde takes for a null: it has none
    /// from then on.
    ///
    /// # Errors
    /// A key or value that the serde refuses, or a store that cannot be written.
    pub fn put(
        &mut self,
        ctx: &mut impl StoreContext,
        key: &K,
        value: Option<&V>,
        timestamp: i64,
    ) -> Result<VersionPut> {
        self.encode_key(key)?;
        self.value_bytes.clear();
        let encoded = match value {
            Some(value) => encode(&*self.value, value, &mut self.value_bytes)?,
            None => None,
        };
        let value = encoded.map(|_| self.value_bytes.as_slice());
        ctx.stores().0.put_version(self.index, &self.key_bytes, value, timestamp)
    }

    /// Ends the validity of a key's value at `timestamp`: the version that was valid then. None also when it is too late.
    ///
    /// # Errors
    /// As [`put`](VersionedKeyValueStore::put).
    pub fn delete(
        &mut self,
        ctx: &mut impl StoreContext,
        key: &K,
        timestamp: i64,
    ) -> Result<Option<VersionedRecord<V>>> {
        self.encode_key(key)?;
        let stores = ctx.stores().0;
        let old = stores.version_as_of(self.index, &self.key_bytes, timestamp)?;
        let put = stores.put_version(self.index, &self.key_bytes, None, timestamp)?;
        old.filter(|_| put != VersionPut::NotPut).map(|old| self.read(old)).transpose().map(Option::flatten)
    }

    /// The newest version of a key.
    ///
    /// # Errors
    /// A row that the serde refuses, or a store that cannot be read.
    pub fn get(&mut self, ctx: &mut impl StoreContext, key: &K) -> Result<Option<VersionedRecord<V>>> {
        self.encode_key(key)?;
        let version = ctx.stores().0.newest_version(self.index, &self.key_bytes)?;
        version.map(|version| self.read(version)).transpose().map(Option::flatten)
    }

    /// The version that is valid at a time (ms). None for a time before the history, unless the newest version was valid
    /// then.
    ///
    /// # Errors
    /// As [`get`](VersionedKeyValueStore::get).
    pub fn get_as_of(
        &mut self,
        ctx: &mut impl StoreContext,
        key: &K,
        as_of: i64,
    ) -> Result<Option<VersionedRecord<V>>> {
        self.encode_key(key)?;
        let version = ctx.stores().0.version_as_of(self.index, &self.key_bytes, as_of)?;
        version.map(|version| self.read(version)).transpose().map(Option::flatten)
    }

    /// The versions of a key that are valid somewhere in a span of time (ms), both ends included, newest first. What the
    /// history has forgotten is not among them, and nothing is when the whole span lies before it.
    ///
    /// # Errors
    /// A key that the serde refuses.
    pub(crate) fn versions(&self, key: &K, from: i64, to: i64) -> Result<VersionRows<V>> {
        let mut bytes = Vec::new();
        self.key.serialize(key, &mut bytes)?;
        Ok(VersionRows { index: self.index, value: Arc::clone(&self.value), key: bytes, from, to: Some(to) })
    }

    fn encode_key(&mut self, key: &K) -> Result<()> {
        self.key_bytes.clear();
        self.key.serialize(key, &mut self.key_bytes)
    }

    fn read(&self, version: Version) -> Result<Option<VersionedRecord<V>>> {
        let Version { valid_from: timestamp, valid_to, value } = version;
        let Some(value) = value else { return Ok(None) };
        Ok(Some(VersionedRecord { value: self.value.deserialize(&value)?, timestamp, valid_to }))
    }
}

/// Versions of one key, newest first, each read when it is asked for: the store may be written in between.
pub(crate) struct VersionRows<V> {
    index: usize,
    value: DynSerde<V>,
    key: Vec<u8>,
    from: i64,
    /// Versions that begin here or earlier are left; none: there are no more.
    to: Option<i64>,
}

impl<V: 'static> VersionRows<V> {
    /// # Errors
    /// A row that the serde refuses, or a store that cannot be read.
    pub(crate) fn next(&mut self, ctx: &mut impl StoreContext) -> Result<Option<VersionedRecord<V>>> {
        let stores = ctx.stores().0;
        while let Some(to) = self.to.take() {
            let from = self.from.max(stores.history_start(self.index));
            if to < from {
                break;
            }
            let Some(version) = stores.version_up_to(self.index, &self.key, to)? else { break };
            let Version { valid_from: timestamp, valid_to, value } = version;
            if valid_to.is_some_and(|valid_to| valid_to <= from) {
                break;
            }
            self.to = timestamp.checked_sub(1).filter(|_| timestamp > from);
            if let Some(value) = value {
                return Ok(Some(VersionedRecord { value: self.value.deserialize(&value)?, timestamp, valid_to }));
            }
        }
        Ok(None)
    }
}

impl<K, V> fmt::Debug for VersionedKeyValueStore<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VersionedKeyValueStore").field("index", &self.index).finish_non_exhaustive()
    }
}
