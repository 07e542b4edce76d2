//! All stores of one task, as bytes, addressed by index.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::ops::Bound;
use std::sync::Arc;

use super::spec::{StoreKind, StoreSpec};
use crate::error::{Error, Result};
use crate::record::{Headers, Position, RecordBatch};

type Bytes = Vec<u8>;

/// All stores of one task. Moves by value: to the restore thread, back, into the pipeline, out of it.
#[derive(Debug, Default)]
pub struct TaskStores {
    stores: Vec<Store>,
    pending: Vec<ChangelogRecord>,
    /// Bytes that all caches of the task may hold; 0: nothing is held back.
    cache_bytes_max: usize,
    cache_bytes: usize,
}

/// The record that caused an update: what a held-back update is forwarded with.
#[derive(Debug, Clone, Default)]
pub(crate) struct RecordContext {
    pub timestamp: i64,
    pub headers: Headers,
    pub position: Option<Position>,
}

/// An update on its way to a changelog topic.
#[derive(Debug)]
pub(crate) struct ChangelogRecord {
    pub store: usize,
    pub key: Bytes,
    pub value: Option<Bytes>,
    pub timestamp: i64,
}

/// An update that the cache has held back, as it leaves the cache.
#[derive(Debug)]
pub(crate) struct DirtyRow {
    pub key: Bytes,
    pub new: Option<Bytes>,
    /// The row below the cache; only looked up where it is wanted.
    pub old: Option<Bytes>,
    pub context: RecordContext,
}

#[derive(Debug)]
struct Store {
    spec: Arc<StoreSpec>,
    committed: BTreeMap<Bytes, Bytes>,
    buffer: BTreeMap<Bytes, Option<Bytes>>,
    cache: HashMap<Bytes, (Option<Bytes>, RecordContext)>,
    dirty: VecDeque<Bytes>,
    /// The next changelog offset, once something of the changelog is in the engine.
    offset: Option<i64>,
    /// The operator that forwards what the cache has held back; none: the cache writes through by itself.
    forwards: bool,
}

impl TaskStores {
    /// Stores that live in memory only, whatever their specs say.
    pub(crate) fn in_memory(specs: &[Arc<StoreSpec>], cache_bytes_max: usize) -> TaskStores {
        let stores = specs
            .iter()
            .map(|spec| Store {
                spec: Arc::clone(spec),
                committed: BTreeMap::new(),
                buffer: BTreeMap::new(),
                cache: HashMap::new(),
                dirty: VecDeque::new(),
                offset: None,
                forwards: false,
            })
            .collect();
        TaskStores { stores, cache_bytes_max, ..TaskStores::default() }
    }

    pub(crate) fn index(&self, name: &str) -> Option<usize> {
        self.stores.iter().position(|store| *store.spec.name == *name)
    }

    pub(crate) fn specs(&self) -> impl Iterator<Item = &Arc<StoreSpec>> {
        self.stores.iter().map(|store| &store.spec)
    }

    /// Whether updates of a store are held back until the commit or until the cache is full.
    pub(crate) fn is_cached(&self, index: usize) -> bool {
        self.cache_bytes_max > 0 && self.stores.get(index).is_some_and(|store| store.spec.caching)
    }

    /// From now on an operator takes the dirty rows of this store and forwards them.
    pub(crate) fn set_forwards(&mut self, index: usize) {
        if let Some(store) = self.stores.get_mut(index) {
            store.forwards = true;
        }
    }

    /// Whether an operator has said that it forwards the dirty rows of a store.
    pub(crate) fn forwards(&self, index: usize) -> bool {
        self.stores.get(index).is_some_and(|store| store.forwards)
    }

    /// The row as the task sees it: held back, uncommitted or committed.
    pub(crate) fn get(&mut self, index: usize, key: &[u8]) -> Result<Option<&[u8]>> {
        let store = self.stores.get(index).ok_or_else(no_store)?;
        if let Some((row, _)) = store.cache.get(key) {
            return Ok(row.as_deref());
        }
        Ok(store.below_cache(key))
    }

    /// Writes or, with none, deletes a row.
    pub(crate) fn put(
        &mut self,
        index: usize,
        key: &[u8],
        value: Option<&[u8]>,
        context: &RecordContext,
    ) -> Result<()> {
        if !self.is_cached(index) {
            return self.write(index, key, value, context.timestamp);
        }
        let store = self.stores.get_mut(index).ok_or_else(no_store)?;
        store.dirty.retain(|dirty| dirty != key);
        store.dirty.push_back(key.to_vec());
        let old = store.cache.insert(key.to_vec(), (value.map(<[u8]>::to_vec), context.clone()));
        self.cache_bytes += key.len() + value.map_or(0, <[u8]>::len);
        self.cache_bytes -= old.map_or(0, |(old, _)| key.len() + old.map_or(0, |old| old.len()));
        if !self.stores.get(index).is_some_and(|store| store.forwards) && self.is_cache_full() {
            self.flush(index)?;
        }
        Ok(())
    }

    /// Whether the operator of a store has to take its dirty rows before it goes on.
    pub(crate) fn is_cache_full(&self) -> bool {
        self.cache_bytes > self.cache_bytes_max
    }

    /// Takes the next update that was held back, in the order of the last updates, and writes it to buffer and
    /// changelog. `want_old` looks up the row below the cache. A deletion of a row that was never there is dropped.
    pub(crate) fn take_dirty(&mut self, index: usize, want_old: bool) -> Result<Option<DirtyRow>> {
        loop {
            let store = self.stores.get_mut(index).ok_or_else(no_store)?;
            let Some(key) = store.dirty.pop_front() else { return Ok(None) };
            let Some((new, context)) = store.cache.remove(&key) else { continue };
            self.cache_bytes -= key.len() + new.as_ref().map_or(0, Vec::len);
            let store = self.stores.get_mut(index).ok_or_else(no_store)?;
            let old = if want_old || new.is_none() { store.below_cache(&key).map(<[u8]>::to_vec) } else { None };
            if new.is_none() && old.is_none() {
                continue;
            }
            self.write(index, &key, new.as_deref(), context.timestamp)?;
            return Ok(Some(DirtyRow { key, new, old: old.filter(|_| want_old), context }));
        }
    }

    /// Writes everything that the cache of a store holds back; nothing is forwarded.
    pub(crate) fn flush(&mut self, index: usize) -> Result<()> {
        loop {
            let store = self.stores.get_mut(index).ok_or_else(no_store)?;
            let Some(key) = store.dirty.pop_front() else { return Ok(()) };
            if let Some((new, context)) = store.cache.remove(&key) {
                self.cache_bytes -= key.len() + new.as_ref().map_or(0, Vec::len);
                self.write(index, &key, new.as_deref(), context.timestamp)?;
            }
        }
    }

    /// Rows in byte order of their keys (descending with `reverse`), at most `limit` of them, as the task sees them.
    pub(crate) fn page(
        &mut self,
        index: usize,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
        reverse: bool,
        limit: usize,
    ) -> Result<Vec<(Bytes, Bytes)>> {
        let store = self.stores.get(index).ok_or_else(no_store)?;
        let mut rows: BTreeMap<&[u8], Option<&[u8]>> = BTreeMap::new();
        let within = |key: &[u8]| {
            let after = match from {
                Bound::Included(from) => key >= from,
                Bound::Excluded(from) => key > from,
                Bound::Unbounded => true,
            };
            let before = match to {
                Bound::Included(to) => key <= to,
                Bound::Excluded(to) => key < to,
                Bound::Unbounded => true,
            };
            after && before
        };
        rows.extend(store.committed.iter().map(|(key, row)| (key.as_slice(), Some(row.as_slice()))));
        rows.extend(store.buffer.iter().map(|(key, row)| (key.as_slice(), row.as_deref())));
        rows.extend(store.cache.iter().map(|(key, (row, _))| (key.as_slice(), row.as_deref())));
        let rows = rows.into_iter().filter(|(key, _)| within(key));
        let rows = rows.filter_map(|(key, row)| Some((key.to_vec(), row?.to_vec())));
        Ok(if reverse { rows.rev().take(limit).collect() } else { rows.take(limit).collect() })
    }

    /// About how many rows there are.
    pub(crate) fn approximate_len(&self, index: usize) -> u64 {
        self.stores.get(index).map_or(0, |store| (store.committed.len() + store.buffer.len()) as u64)
    }

    /// The updates since the last call of [`clear_changelog`](TaskStores::clear_changelog), in the order they were made.
    pub(crate) fn changelog(&self) -> &[ChangelogRecord] {
        &self.pending
    }

    /// They have been handed to the producer.
    pub(crate) fn clear_changelog(&mut self) {
        self.pending.clear();
    }

    /// Bytes that wait for the commit; beyond a limit the thread commits early.
    pub(crate) fn uncommitted_bytes(&self) -> usize {
        self.cache_bytes
    }

    /// The transaction has committed: the buffers become committed rows, each store with its changelog's next offset.
    pub(crate) fn apply(&mut self, offsets: &[Option<i64>]) -> Result<()> {
        for (store, offset) in self.stores.iter_mut().zip(offsets) {
            for (key, row) in std::mem::take(&mut store.buffer) {
                match row {
                    Some(row) => store.committed.insert(key, row),
                    None => store.committed.remove(&key),
                };
            }
            store.offset = offset.or(store.offset);
        }
        Ok(())
    }

    /// The transaction was aborted: the stores are at the last commit again.
    pub(crate) fn discard(&mut self) {
        for store in &mut self.stores {
            store.buffer.clear();
            store.cache.clear();
            store.dirty.clear();
            store.forwards = false;
        }
        self.pending.clear();
        self.cache_bytes = 0;
    }

    /// The next changelog offset that a store needs; none: nothing of it is here.
    pub(crate) fn offset(&self, index: usize) -> Option<i64> {
        self.stores.get(index)?.offset
    }

    /// Writes changelog records as committed rows, with the offset behind them.
    pub(crate) fn restore(&mut self, index: usize, batch: &RecordBatch, next_offset: i64) -> Result<()> {
        let store = self.stores.get_mut(index).ok_or_else(no_store)?;
        for record in batch.iter(0) {
            let Some(key) = record.key else { continue };
            match record.value {
                Some(value) => store.committed.insert(key.to_vec(), row(store.spec.kind, value, record.timestamp)),
                None => store.committed.remove(key),
            };
        }
        store.offset = Some(next_offset);
        Ok(())
    }

    fn write(&mut self, index: usize, key: &[u8], value: Option<&[u8]>, timestamp: i64) -> Result<()> {
        let store = self.stores.get_mut(index).ok_or_else(no_store)?;
        store.buffer.insert(key.to_vec(), value.map(<[u8]>::to_vec));
        if store.spec.is_logged() {
            let (timestamp, value) = match (store.spec.kind, value.and_then(<[u8]>::split_first_chunk)) {
                (StoreKind::TimestampedKeyValue, Some((own, value))) => (i64::from_be_bytes(*own), Some(value)),
                (StoreKind::KeyValue | StoreKind::TimestampedKeyValue, _) => (timestamp, value),
            };
            let (key, value) = (key.to_vec(), value.map(<[u8]>::to_vec));
            self.pending.push(ChangelogRecord { store: index, key, value, timestamp });
        }
        Ok(())
    }
}

impl Store {
    fn below_cache(&self, key: &[u8]) -> Option<&[u8]> {
        match self.buffer.get(key) {
            Some(row) => row.as_deref(),
            None => self.committed.get(key).map(Vec::as_slice),
        }
    }
}

/// A changelog record as a row: the way back of what `write` takes apart.
fn row(kind: StoreKind, value: &[u8], timestamp: i64) -> Bytes {
    match kind {
        StoreKind::KeyValue => value.to_vec(),
        StoreKind::TimestampedKeyValue => [&timestamp.to_be_bytes(), value].concat(),
    }
}

#[cold]
fn no_store() -> Error {
    Error::new(crate::error::ErrorKind::Internal, "a facade knows a store that its task does not have")
}
