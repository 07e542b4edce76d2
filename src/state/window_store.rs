//! Window stores as a processor sees them.

use std::fmt;
use std::ops::{Bound, RangeBounds};
use std::sync::Arc;

use super::spec::WindowKind;
use super::store::StoreContext;
use super::window_rows::{KeyRange, Query, Scan, WindowRows, WindowValues, WindowedKey};
use super::windowed_keys::Parts;
use crate::error::Result;
use crate::record::ValueAndTimestamp;
use crate::serdes::{DynSerde, encode};

/// A window store whose rows carry the timestamp (ms) of the record that wrote them.
pub type TimestampedWindowStore<K, V> = WindowStore<K, ValueAndTimestamp<V>>;

/// A row for each key and window start, in the hands of one processor. Times are in milliseconds since the epoch.
///
/// The largest start that was put is the store's time. A row whose start is `retention` or more before it is not shown any
/// more, and one that is put so late may be dropped and counted.
pub struct WindowStore<K, V> {
    index: usize,
    kind: WindowKind,
    key: DynSerde<K>,
    value: DynSerde<V>,
    /// Scratch of this processor; kept, so that encoding allocates nothing.
    key_bytes: Vec<u8>,
    row_key: Vec<u8>,
    value_bytes: Vec<u8>,
}

impl<K: 'static, V: 'static> WindowStore<K, V> {
    pub(crate) fn new(index: usize, kind: WindowKind, key: DynSerde<K>, value: DynSerde<V>) -> Self {
        let (key_bytes, row_key, value_bytes) = (Vec::new(), Vec::new(), Vec::new());
        WindowStore { index, kind, key, value, key_bytes, row_key, value_bytes }
    }

    pub(crate) fn index(&self) -> usize {
        self.index
    }

    /// Writes the row of a key and the window that begins at `start`. A value that its serde takes for a null deletes the
    /// row, unless the store retains duplicates.
    ///
    /// # Errors
    /// A key or value that the serde refuses, or a store that cannot be written.
    pub fn put(&mut self, ctx: &mut impl StoreContext, key: &K, value: &V, start: i64) -> Result<()> {
        self.value_bytes.clear();
        let has_value = encode(&*self.value, value, &mut self.value_bytes)?.is_some();
        self.write(ctx, key, start, has_value)
    }

    /// Encodes a row for [`put_encoded`](WindowStore::put_encoded), which may come when the record is gone; whether it has a
    /// value.
    pub(crate) fn encode(&mut self, key: &K, value: &V) -> Result<bool> {
        self.key_bytes.clear();
        self.key.serialize(key, &mut self.key_bytes)?;
        self.value_bytes.clear();
        Ok(encode(&*self.value, value, &mut self.value_bytes)?.is_some())
    }

    /// Writes the row that was encoded last.
    pub(crate) fn put_encoded(&mut self, ctx: &mut impl StoreContext, has_value: bool, start: i64) -> Result<()> {
        let (stores, context) = ctx.stores();
        let sequence = if self.kind.retains_duplicates { stores.next_sequence(self.index, has_value) } else { 0 };
        let parts = Parts { key: &self.key_bytes, time: start, tail: i64::from(sequence) };
        self.kind.keys.encode(parts, &mut self.row_key);
        stores.put(self.index, &self.row_key, has_value.then_some(self.value_bytes.as_slice()), context)
    }

    /// Deletes the row of a key and the window that begins at `start`. Nothing is deleted from a store that retains
    /// duplicates.
    ///
    /// # Errors
    /// As [`put`](WindowStore::put).
    pub fn delete(&mut self, ctx: &mut impl StoreContext, key: &K, start: i64) -> Result<()> {
        self.write(ctx, key, start, false)
    }

    /// The row of a key and the window that begins at `start`. In a store that retains duplicates a single row cannot be
    /// told from others, and there may be none here: use [`fetch_range`](WindowStore::fetch_range) there.
    ///
    /// # Errors
    /// A row that the serde refuses, or a store that cannot be read.
    pub fn fetch(&mut self, ctx: &mut impl StoreContext, key: &K, start: i64) -> Result<Option<V>> {
        let stores = ctx.stores().0;
        let sequence = match self.kind.retains_duplicates {
            // Java: the row of the last put in a store on disk, if it is one of this key and time; no row in memory.
            true if self.kind.keys.drops_each => return Ok(None),
            true => stores.last_sequence(self.index),
            false => 0,
        };
        self.encode_key(key, start, sequence)?;
        let row = stores.get(self.index, &self.row_key)?;
        row.map(|row| self.value.deserialize(row)).transpose()
    }

    /// The rows of a key whose windows begin from `from` to `to`, both included, earliest first.
    ///
    /// # Errors
    /// A key that the serde refuses.
    pub fn fetch_range(&self, key: &K, from: i64, to: i64) -> Result<WindowValues<V>> {
        self.values(key, (from, to), false)
    }

    /// The same, latest first.
    ///
    /// # Errors
    /// As [`fetch_range`](WindowStore::fetch_range).
    pub fn backward_fetch(&self, key: &K, from: i64, to: i64) -> Result<WindowValues<V>> {
        self.values(key, (from, to), true)
    }

    /// The rows of all keys in a range (in the order of their bytes) whose windows begin from `from` to `to`, both
    /// included. Rows of a store on disk come by key and then by time within a bucket of time, those of one in memory by
    /// time.
    ///
    /// # Errors
    /// A bound that the serde refuses.
    pub fn fetch_keys(&self, keys: impl RangeBounds<K>, from: i64, to: i64) -> Result<WindowRows<K, V>> {
        Ok(self.rows(self.key_range(&keys)?, (from, to), false))
    }

    /// The same, the other way round.
    ///
    /// # Errors
    /// As [`fetch_keys`](WindowStore::fetch_keys).
    pub fn backward_fetch_keys(&self, keys: impl RangeBounds<K>, from: i64, to: i64) -> Result<WindowRows<K, V>> {
        Ok(self.rows(self.key_range(&keys)?, (from, to), true))
    }

    /// The rows of all keys whose windows begin from `from` to `to`, both included.
    pub fn fetch_all(&self, from: i64, to: i64) -> WindowRows<K, V> {
        self.rows(KeyRange::ALL, (from, to), false)
    }

    /// The same, the other way round.
    pub fn backward_fetch_all(&self, from: i64, to: i64) -> WindowRows<K, V> {
        self.rows(KeyRange::ALL, (from, to), true)
    }

    /// Every row that has not expired.
    pub fn all(&self) -> WindowRows<K, V> {
        self.rows(KeyRange::ALL, (0, i64::MAX), false)
    }

    /// The same, the other way round.
    pub fn backward_all(&self) -> WindowRows<K, V> {
        self.rows(KeyRange::ALL, (0, i64::MAX), true)
    }

    /// Reads the key of a row, as a cache gives it back.
    pub(crate) fn row_keys(&self) -> WindowedKey<K> {
        WindowedKey { key: Arc::clone(&self.key), layout: self.kind.keys, window_ms: self.kind.window_ms }
    }

    fn write(&mut self, ctx: &mut impl StoreContext, key: &K, start: i64, has_value: bool) -> Result<()> {
        let (stores, context) = ctx.stores();
        let sequence = if self.kind.retains_duplicates { stores.next_sequence(self.index, has_value) } else { 0 };
        self.encode_key(key, start, sequence)?;
        stores.put(self.index, &self.row_key, has_value.then_some(self.value_bytes.as_slice()), context)
    }

    fn encode_key(&mut self, key: &K, time: i64, sequence: u32) -> Result<()> {
        self.key_bytes.clear();
        self.key.serialize(key, &mut self.key_bytes)?;
        let parts = Parts { key: &self.key_bytes, time, tail: i64::from(sequence) };
        self.kind.keys.encode(parts, &mut self.row_key);
        Ok(())
    }

    fn values(&self, key: &K, times: (i64, i64), reverse: bool) -> Result<WindowValues<V>> {
        let mut bytes = Vec::new();
        self.key.serialize(key, &mut bytes)?;
        let query = Query { keys: KeyRange::One(bytes), times, start_max: i64::MAX, reverse };
        Ok(WindowValues { scan: Scan::new(self.index, self.kind.keys, query), value: Arc::clone(&self.value) })
    }

    fn rows(&self, keys: KeyRange, times: (i64, i64), reverse: bool) -> WindowRows<K, V> {
        let query = Query { keys, times, start_max: i64::MAX, reverse };
        let scan = Scan::new(self.index, self.kind.keys, query);
        WindowRows { scan, decode: self.row_keys(), value: Arc::clone(&self.value) }
    }

    fn key_range(&self, keys: &impl RangeBounds<K>) -> Result<KeyRange> {
        key_range(&self.key, keys)
    }
}

/// A range of keys as bytes.
pub(super) fn key_range<K: 'static>(serde: &DynSerde<K>, keys: &impl RangeBounds<K>) -> Result<KeyRange> {
    let encode = |bound: Bound<&K>| {
        let encode = |key: &K| {
            let mut bytes = Vec::new();
            serde.serialize(key, &mut bytes)?;
            Ok::<_, crate::Error>(bytes)
        };
        Ok::<_, crate::Error>(match bound {
            Bound::Included(key) => Bound::Included(encode(key)?),
            Bound::Excluded(key) => Bound::Excluded(encode(key)?),
            Bound::Unbounded => Bound::Unbounded,
        })
    };
    Ok(KeyRange::Range(encode(keys.start_bound())?, encode(keys.end_bound())?))
}

impl<K, V> fmt::Debug for WindowStore<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WindowStore").field("index", &self.index).field("kind", &self.kind).finish_non_exhaustive()
    }
}
