//! Stores as a processor sees them: typed, by reference to the task that owns the bytes.

use std::fmt;
use std::ops::{Bound, RangeBounds};
use std::sync::Arc;

use super::task_stores::{RecordContext, TaskStores};
use crate::error::Result;
use crate::record::ValueAndTimestamp;
use crate::serdes::{DynSerde, Serde, encode};

/// Whatever owns the stores of a task: the context of a processor, or a test driver.
pub trait StoreContext {
    #[doc(hidden)]
    fn stores(&mut self) -> (&mut TaskStores, &RecordContext);
}

/// A store whose rows carry the timestamp (ms) of the record that wrote them.
pub type TimestampedKeyValueStore<K, V> = KeyValueStore<K, ValueAndTimestamp<V>>;

/// A key-value store in the hands of one processor. Asked for with [`ProcessorInit::store`](crate::ProcessorInit::store);
/// every call borrows the context, because the task owns the bytes.
pub struct KeyValueStore<K, V> {
    index: usize,
    key: DynSerde<K>,
    value: DynSerde<V>,
    /// Scratch of this processor; kept, so that encoding allocates nothing.
    key_bytes: Vec<u8>,
    value_bytes: Vec<u8>,
}

impl<K: 'static, V: 'static> KeyValueStore<K, V> {
    pub(crate) fn new(index: usize, key: DynSerde<K>, value: DynSerde<V>) -> Self {
        KeyValueStore { index, key, value, key_bytes: Vec::new(), value_bytes: Vec::new() }
    }

    pub(crate) fn index(&self) -> usize {
        self.index
    }

    /// The row of a key.
    ///
    /// # Errors
    /// A row that the serde refuses, or a store that cannot be read.
    pub fn get(&mut self, ctx: &mut impl StoreContext, key: &K) -> Result<Option<V>> {
        self.encode_key(key)?;
        let row = ctx.stores().0.get(self.index, &self.key_bytes)?;
        row.map(|row| self.value.deserialize(row)).transpose()
    }

    /// Writes the row of a key. A value that its serde takes for a null deletes the row.
    ///
    /// # Errors
    /// A key or value that the serde refuses, or a store that cannot be written.
    pub fn put(&mut self, ctx: &mut impl StoreContext, key: &K, value: &V) -> Result<()> {
        self.encode_key(key)?;
        self.value_bytes.clear();
        let value = encode(&*self.value, value, &mut self.value_bytes)?;
        let (stores, context) = ctx.stores();
        stores.put(self.index, &self.key_bytes, value.map(|_| self.value_bytes.as_slice()), context)
    }

    /// Writes the row of a key that has none; otherwise leaves it and returns it.
    ///
    /// # Errors
    /// As [`put`](KeyValueStore::put).
    pub fn put_if_absent(&mut self, ctx: &mut impl StoreContext, key: &K, value: &V) -> Result<Option<V>> {
        let old = self.get(ctx, key)?;
        if old.is_none() {
            self.put(ctx, key, value)?;
        }
        Ok(old)
    }

    /// Writes several rows.
    ///
    /// # Errors
    /// As [`put`](KeyValueStore::put); rows before the failure are written.
    pub fn put_all(&mut self, ctx: &mut impl StoreContext, rows: impl IntoIterator<Item = (K, V)>) -> Result<()> {
        rows.into_iter().try_for_each(|(key, value)| self.put(ctx, &key, &value))
    }

    /// Deletes the row of a key and returns it.
    ///
    /// # Errors
    /// As [`get`](KeyValueStore::get).
    pub fn delete(&mut self, ctx: &mut impl StoreContext, key: &K) -> Result<Option<V>> {
        let old = self.get(ctx, key)?;
        self.encode_key(key)?;
        let (stores, context) = ctx.stores();
        stores.put(self.index, &self.key_bytes, None, context)?;
        Ok(old)
    }

    /// The rows from one key to another, in the byte order of their keys.
    ///
    /// # Errors
    /// A bound that the serde refuses.
    pub fn range(&self, keys: impl RangeBounds<K>) -> Result<Rows<K, V>> {
        Ok(self.rows(self.bound(keys.start_bound())?, self.bound(keys.end_bound())?, false))
    }

    /// The same, last key first.
    ///
    /// # Errors
    /// As [`range`](KeyValueStore::range).
    pub fn reverse_range(&self, keys: impl RangeBounds<K>) -> Result<Rows<K, V>> {
        Ok(self.rows(self.bound(keys.start_bound())?, self.bound(keys.end_bound())?, true))
    }

    /// Every row, in the byte order of the keys.
    pub fn all(&self) -> Rows<K, V> {
        self.rows(Bound::Unbounded, Bound::Unbounded, false)
    }

    /// Every row, last key first.
    pub fn reverse_all(&self) -> Rows<K, V> {
        self.rows(Bound::Unbounded, Bound::Unbounded, true)
    }

    /// The rows whose key bytes begin with what a serde makes of the prefix.
    ///
    /// # Errors
    /// A prefix that the serde refuses.
    pub fn prefix_scan<P: 'static>(&self, prefix: &P, serde: &impl Serde<Item = P>) -> Result<Rows<K, V>> {
        let mut from = Vec::new();
        serde.serialize(prefix, &mut from)?;
        let to = match end_of_prefix(&from) {
            Some(end) => Bound::Excluded(end),
            None => Bound::Unbounded,
        };
        Ok(self.rows(Bound::Included(from), to, false))
    }

    /// About how many rows there are.
    pub fn approximate_num_entries(&self, ctx: &mut impl StoreContext) -> u64 {
        ctx.stores().0.approximate_len(self.index)
    }

    fn rows(&self, from: Bound<Vec<u8>>, to: Bound<Vec<u8>>, reverse: bool) -> Rows<K, V> {
        Rows::new(self.index, Arc::clone(&self.key), Arc::clone(&self.value), from, to, reverse)
    }

    fn bound(&self, bound: Bound<&K>) -> Result<Bound<Vec<u8>>> {
        let encode = |key: &K| {
            let mut bytes = Vec::new();
            self.key.serialize(key, &mut bytes)?;
            Ok(bytes)
        };
        Ok(match bound {
            Bound::Included(key) => Bound::Included(encode(key)?),
            Bound::Excluded(key) => Bound::Excluded(encode(key)?),
            Bound::Unbounded => Bound::Unbounded,
        })
    }

    fn encode_key(&mut self, key: &K) -> Result<()> {
        self.key_bytes.clear();
        self.key.serialize(key, &mut self.key_bytes)
    }
}

impl<K, V> fmt::Debug for KeyValueStore<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyValueStore").field("index", &self.index).finish_non_exhaustive()
    }
}

/// Rows of a store, read in pages: the store may be written between two of them, and nothing has to be closed.
pub struct Rows<K, V> {
    index: usize,
    key: DynSerde<K>,
    value: DynSerde<V>,
    from: Bound<Vec<u8>>,
    to: Bound<Vec<u8>>,
    reverse: bool,
    page: std::vec::IntoIter<(Vec<u8>, Vec<u8>)>,
    done: bool,
}

/// Rows of one page. Large enough to make a seek cheap, small enough to be held twice.
pub(super) const PAGE: usize = 256;

impl<K: 'static, V: 'static> Rows<K, V> {
    pub(super) fn new(
        index: usize,
        key: DynSerde<K>,
        value: DynSerde<V>,
        from: Bound<Vec<u8>>,
        to: Bound<Vec<u8>>,
        reverse: bool,
    ) -> Rows<K, V> {
        Rows { index, key, value, from, to, reverse, page: Vec::new().into_iter(), done: false }
    }

    /// The next row; a row that is written behind the current one meanwhile may be seen or not.
    ///
    /// # Errors
    /// A row that the serde refuses, or a store that cannot be read.
    pub fn next(&mut self, ctx: &mut impl StoreContext) -> Result<Option<(K, V)>> {
        if self.page.len() == 0 && !self.done {
            let page = ctx.stores().0.page(self.index, as_slice(&self.from), as_slice(&self.to), self.reverse, PAGE)?;
            self.done = page.len() < PAGE;
            if let Some((last, _)) = page.last() {
                let rest = Bound::Excluded(last.clone());
                *(if self.reverse { &mut self.to } else { &mut self.from }) = rest;
            }
            self.page = page.into_iter();
        }
        let Some((key, value)) = self.page.next() else { return Ok(None) };
        Ok(Some((self.key.deserialize(&key)?, self.value.deserialize(&value)?)))
    }

    /// All rows that are left. For stores that are known to be small.
    ///
    /// # Errors
    /// As [`next`](Rows::next).
    pub fn collect(mut self, ctx: &mut impl StoreContext) -> Result<Vec<(K, V)>> {
        let mut rows = Vec::new();
        while let Some(row) = self.next(ctx)? {
            rows.push(row);
        }
        Ok(rows)
    }
}

impl<K, V> fmt::Debug for Rows<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rows").field("from", &self.from).field("to", &self.to).finish_non_exhaustive()
    }
}

pub(super) fn as_slice(bound: &Bound<Vec<u8>>) -> Bound<&[u8]> {
    match bound {
        Bound::Included(bytes) => Bound::Included(bytes),
        Bound::Excluded(bytes) => Bound::Excluded(bytes),
        Bound::Unbounded => Bound::Unbounded,
    }
}

/// The first key behind all keys with this prefix; none when there is no such key.
fn end_of_prefix(prefix: &[u8]) -> Option<Vec<u8>> {
    let last = prefix.iter().rposition(|byte| *byte < u8::MAX)?;
    let mut end = prefix.get(..=last)?.to_vec();
    *end.last_mut()? += 1;
    Some(end)
}
