//! All stores of one task, as bytes, addressed by index.

use std::ops::Bound;
use std::sync::Arc;

use super::as_of::AsOf;
use super::cache::CacheBudget;
use super::changelog::{ChangelogRecord, Pending};
use super::directory::TaskDirectory;
use super::engine::{At, Engine};
use super::expiry::key_of;
use super::known_rows::Names;
use super::merge::Rows;
use super::one_store::Store;
use super::readers::Gatekeeper;
#[cfg(feature = "rocksdb")]
use super::rocksdb as disk;
use super::row_format::LoggedRow;
use super::spec::{LoggedHeaders, StoreKind, StoreSpec};
use super::state_memory::Registration;
use super::versions::{Version, VersionPut};
use super::work_queue::WorkQueue;
use crate::error::{Error, ErrorKind, Result};
use crate::record::{Headers, Position, SourceRecord};

type Bytes = Vec<u8>;

/// All stores of one task. Moves by value: to the restore thread, back, into the pipeline, out of it.
#[derive(Debug, Default)]
pub struct TaskStores {
    pub(super) stores: Vec<Store>,
    pending: Pending,
    /// What the record caches of the thread may hold together.
    cache_budget: CacheBudget,
    /// The store that was written last: the one to evict from.
    written: usize,
    /// Rows that were put too late.
    pub(super) expired: u64,
    /// Scratch: the key of a changelog record, or of a restored row.
    pub(super) key: Bytes,
    /// The stores whose rows expire, by what time (ms), and how many of them may be taken now.
    pub(super) expiring: Vec<usize>,
    pub(super) time: i64,
    pub(super) expired_max: usize,
    /// Whoever has the stores now must not write.
    is_only_read: bool,
    /// Where runs are left that are to be written; none: whoever restores them writes them.
    pub(super) work_queue: Option<WorkQueue>,
    pub(super) backing: Backing,
}

/// What the stores hold of the process: given back when they are dropped.
#[derive(Debug, Default)]
pub(super) struct Backing {
    // IMPORTANT: the first field: nobody reads a database any more when it is closed.
    pub(super) readers: Option<Gatekeeper>,
    pub(super) memory: Option<Registration>,
    #[cfg(feature = "rocksdb")]
    pub(super) database: Option<Arc<disk::Database>>,
    // IMPORTANT: the last field, so that the folder is free only when the database is closed.
    pub(super) directory: Option<TaskDirectory>,
}

/// The record that caused an update: what a held-back update is forwarded with.
#[derive(Debug, Clone, Default)]
pub struct RecordContext {
    pub(crate) timestamp: i64,
    pub(crate) headers: Headers,
    pub(crate) position: Option<Position>,
    /// The record it was read from; only kept where there is a dead-letter topic and what it leads to may have to wait.
    pub(crate) source: Option<Arc<SourceRecord>>,
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

impl TaskStores {
    /// Stores that live in memory only, whatever their specs say.
    pub(crate) fn in_memory(specs: &[Arc<StoreSpec>], cache_bytes_max: usize) -> TaskStores {
        let budget = CacheBudget::new(cache_bytes_max);
        let store = |spec: &Arc<StoreSpec>| Store::new(spec, None, Engine::off_disk(spec), &budget);
        TaskStores::new(specs.iter().map(store).collect(), budget.clone(), Backing::default())
    }

    pub(super) fn new(stores: Vec<Store>, cache_budget: CacheBudget, backing: Backing) -> TaskStores {
        let expiring = stores.iter().enumerate().filter(|(_, store)| store.expiry.is_some());
        let expiring = expiring.map(|(index, _)| index).collect();
        let time = i64::MIN;
        let mut stores = TaskStores { stores, cache_budget, backing, expiring, time, ..TaskStores::default() };
        stores.share_read_cache();
        stores
    }

    /// As [`apply`](TaskStores::apply), for stores that are fed by the partitions of one topic: the next offset of each.
    pub(crate) fn apply_positions(&mut self, positions: &[(i32, i64)]) -> Result<()> {
        self.share_read_cache();
        let _applying = self.backing.readers.as_ref().map(Gatekeeper::begin_commit);
        let now_ms = self.now_ms();
        for store in &mut self.stores {
            let has_changed = store.buffer.dirty_len() > 0;
            store.apply(At { positions, now_ms, ..At::default() })?;
            store.tell_readers(has_changed);
        }
        Ok(())
    }

    /// Takes the share of the read cache that is due to each store now.
    pub(super) fn share_read_cache(&mut self) {
        let share = self.backing.memory.as_ref().map_or(0, |registration| registration.memory.read_cache_share());
        self.stores.iter_mut().for_each(|store| store.set_read_cache(share));
    }

    pub(crate) fn index(&self, name: &str) -> Option<usize> {
        self.stores.iter().position(|store| *store.spec.name == *name)
    }

    /// A store, its own or a global one.
    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn spec(&self, index: usize) -> Option<&Arc<StoreSpec>> {
        self.stores.get(index).map(|store| &store.spec)
    }

    /// The task's own stores, in the order of their indices.
    pub(crate) fn kind(&self, index: usize) -> Option<StoreKind> {
        self.stores.get(index).map(|store| store.spec.kind)
    }

    pub(crate) fn specs(&self) -> impl Iterator<Item = &Arc<StoreSpec>> {
        self.stores.iter().filter(|store| !store.sharing.is_read_only()).map(|store| &store.spec)
    }

    /// Whether updates of a store are held back until the commit or until the cache is full.
    pub(crate) fn is_cached(&self, index: usize) -> bool {
        self.stores.get(index).is_some_and(|store| store.spec.caching) && !self.cache_budget.is_off()
    }

    /// Whether updates of a store need the headers of the record that makes them.
    pub(crate) fn needs_headers(&self, index: usize) -> bool {
        let logs_headers =
            |store: &Store| store.spec.is_logged() && store.spec.logs_headers == LoggedHeaders::OfDeletions;
        self.is_cached(index) || self.stores.get(index).is_some_and(logs_headers)
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
        let is_cached = self.is_cached(index);
        let store = self.stores.get_mut(index).ok_or_else(no_store)?;
        let key = store.place(key, &mut self.key);
        if is_cached && store.cache.contains(key) && !store.hides(key) {
            return Ok(store.cache.get(key).flatten());
        }
        store.get_below(key)
    }

    /// Lets somebody read who must not write, and whose reads are not uses.
    pub(crate) fn only_read(&mut self, read: impl FnOnce(&mut TaskStores)) {
        let uses: Vec<_> = self.stores.iter_mut().map(|store| store.last_uses.take()).collect();
        self.is_only_read = true;
        read(self);
        self.is_only_read = false;
        self.stores.iter_mut().zip(uses).for_each(|(store, uses)| store.last_uses = uses);
    }

    /// Writes or, with none, deletes a row.
    pub(crate) fn put(
        &mut self,
        index: usize,
        key: &[u8],
        value: Option<&[u8]>,
        context: &RecordContext,
    ) -> Result<()> {
        if self.is_only_read {
            return Err(only_read());
        }
        if self.expires(index) {
            return self.put_expiring(index, key, value, context);
        }
        self.put_row(index, key, value, context)
    }

    pub(super) fn put_row(
        &mut self,
        index: usize,
        key: &[u8],
        value: Option<&[u8]>,
        context: &RecordContext,
    ) -> Result<()> {
        let is_cached = self.is_cached(index);
        let store = self.stores.get_mut(index).ok_or_else(no_store)?;
        store.note(key, value.is_some())?;
        if !is_cached {
            return self.write(index, key, value, context);
        }
        store.cache.put(key, value, context);
        if let Some(retention) = &mut store.retention {
            retention.has_cached(key);
        }
        self.written = index;
        if !store.forwards {
            while self.is_cache_full() {
                self.flush(index)?;
            }
        }
        Ok(())
    }

    /// Deletes a row. Unlike a `put` without a value, it is never too late.
    pub(crate) fn remove(&mut self, index: usize, key: &[u8], context: &RecordContext) -> Result<()> {
        let expired = self.expired;
        self.put(index, key, None, context)?;
        if !self.is_cached(index) {
            self.expired = expired;
        }
        Ok(())
    }

    /// How many rows were dropped because they were put too late.
    pub(crate) fn expired(&self) -> u64 {
        self.expired
    }

    /// Puts a version of a key's value.
    pub(crate) fn put_version(
        &mut self,
        index: usize,
        key: &[u8],
        value: Option<&[u8]>,
        timestamp: i64,
    ) -> Result<VersionPut> {
        let store = self.stores.get_mut(index).ok_or_else(no_store)?;
        if store.sharing.is_read_only() {
            return Err(read_only(&store.spec.name));
        }
        if self.is_only_read {
            return Err(only_read());
        }
        let put = if store.history.as_mut().is_none_or(|history| history.admit(timestamp)) {
            store.put_version(key, value, timestamp)?
        } else {
            self.expired += 1;
            tracing::warn!(store = &*store.spec.name, timestamp, "a version was put after the history had passed it");
            VersionPut::NotPut
        };
        if store.spec.is_logged() {
            let (timestamp, headers) = (Some(timestamp), &Headers::new());
            self.pending.push(ChangelogRecord { store: index, key, value, timestamp, headers });
        }
        Ok(put)
    }

    /// The newest version of a key.
    pub(crate) fn newest_version(&mut self, index: usize, key: &[u8]) -> Result<Option<Version>> {
        self.stores.get_mut(index).ok_or_else(no_store)?.newest_version(key)
    }

    /// The version of a key that is valid at a time.
    pub(crate) fn version_as_of(&mut self, index: usize, key: &[u8], time: i64) -> Result<Option<Version>> {
        self.stores.get_mut(index).ok_or_else(no_store)?.version_as_of(key, time)
    }

    /// The version of a key that was put for a time or last before it, deletions too.
    pub(crate) fn version_up_to(&mut self, index: usize, key: &[u8], time: i64) -> Result<Option<Version>> {
        self.stores.get_mut(index).ok_or_else(no_store)?.version_up_to(key, time)
    }

    /// The earliest time that a versioned store may be asked for.
    pub(crate) fn history_start(&mut self, index: usize) -> i64 {
        self.stores.get_mut(index).map_or(i64::MIN, Store::history_start)
    }

    /// The number that keeps the next row apart from others with the same key and time. A row without a value is only
    /// logged.
    pub(crate) fn next_sequence(&mut self, index: usize, has_value: bool) -> u32 {
        let Some(store) = self.stores.get_mut(index).filter(|_| !self.is_only_read) else { return 0 };
        // IMPORTANT: not from 0 again after a restart, as in Java, or a row would overwrite one of the last run. Each number
        // is in a changelog record of its own, so all that were ever given are below the changelog's offset.
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "Java's mask")]
        let last = store.sequence.unwrap_or_else(|| store.engine.offset().unwrap_or(0) as u32);
        let next = last.wrapping_add(1) & SEQUENCE_MAX;
        store.sequence = Some(next);
        if has_value {
            store.row_sequence = next;
        }
        next
    }

    /// The number of the last row.
    pub(crate) fn last_sequence(&self, index: usize) -> u32 {
        self.stores.get(index).map_or(0, |store| store.row_sequence)
    }

    /// First and last prefix of rows that a windowed store may have.
    pub(super) fn prefixes(&mut self, index: usize) -> (i64, i64) {
        let is_cached = self.is_cached(index);
        let Some(store) = self.stores.get_mut(index) else { return (0, -1) };
        store.follow();
        store.retention.as_ref().map_or((0, -1), |retention| retention.prefixes(is_cached))
    }

    /// Finds the rows of a key of a windowed store in a span of time, as far as they are known: those of the time that is
    /// returned and later. Some may be gone.
    pub(super) fn known_rows(&mut self, index: usize, key: &[u8], times: (i64, i64), names: &mut Names) -> Result<i64> {
        self.stores.get_mut(index).ok_or_else(no_store)?.known_rows(key, times, names)
    }

    /// The largest time (ms) that was put into a windowed store, in an earlier life of the task too; none: nothing was.
    pub(crate) fn observed(&self, index: usize) -> Option<i64> {
        let retention = self.stores.get(index).and_then(|store| store.retention.as_ref());
        retention.map(|retention| retention.observed()).filter(|time| *time >= 0)
    }

    /// The largest time (ms) that was put into each store whose rows expire by it.
    pub(crate) fn times(&self) -> impl Iterator<Item = (&Arc<StoreSpec>, i64)> {
        let own = self.stores.iter().filter(|store| !store.sharing.is_read_only());
        own.map(|store| (&store.spec, store.stream_time())).filter(|(_, time)| *time >= 0)
    }

    /// Tells a store the time (ms) that it had at the last commit: what was put may have left nothing to tell it by.
    pub(crate) fn resume_time(&mut self, index: usize, time: i64) {
        self.stores.get_mut(index).into_iter().for_each(|store| store.resume_time(time));
    }

    /// From now on, what has expired is only shown from a cache as long as it is yet to be written.
    pub(crate) fn hide_expired(&mut self) {
        self.stores.iter_mut().for_each(Store::hide_expired);
    }

    /// Whether a row of one time (ms) would be dropped from a windowed store once a row of another time is put.
    pub(crate) fn would_expire(&self, index: usize, time: i64, put: i64) -> bool {
        let retention = self.stores.get(index).and_then(|store| store.retention.as_ref());
        retention.is_some_and(|retention| retention.would_expire(time, put))
    }

    /// Lets reads of a windowed store see rows that have expired, as far as they are still there; nothing may be put
    /// meanwhile.
    pub(crate) fn show_expired(&mut self, index: usize, shows: bool) {
        if let Some(retention) = self.stores.get_mut(index).and_then(|store| store.retention.as_mut()) {
            retention.show_expired(shows);
        }
    }

    /// Whether the operator that has just written has to take the dirty rows of its store, all of them, and ask again.
    pub(crate) fn is_cache_full(&self) -> bool {
        self.cache_budget.is_exceeded() && self.stores.get(self.written).is_some_and(|store| !store.cache.is_empty())
    }

    /// Takes the next update that was held back, in the order of the last updates, and writes it to buffer and
    /// changelog. `want_old` looks up the row below the cache. A deletion of a row that was never there is dropped.
    ///
    /// While the cache is full, the update that was not used for the longest time comes first and leaves the cache.
    pub(crate) fn take_dirty(&mut self, index: usize, want_old: bool) -> Result<Option<DirtyRow>> {
        loop {
            let store = self.stores.get_mut(index).ok_or_else(no_store)?;
            let Some(taken) = store.next_dirty(index == self.written) else { return Ok(None) };
            let old = match want_old || taken.value.is_none() {
                true => store.get_below(&taken.key)?.map(<[u8]>::to_vec),
                false => None,
            };
            if taken.value.is_none() && old.is_none() {
                continue;
            }
            self.write(index, &taken.key, taken.value.as_deref(), &taken.context)?;
            let old = old.filter(|_| want_old);
            let mut key = taken.key;
            if self.expires(index) {
                key.drain(..1);
            }
            return Ok(Some(DirtyRow { key, new: taken.value, old, context: taken.context }));
        }
    }

    /// Writes everything that the cache of a store holds back; nothing is forwarded.
    pub(crate) fn flush(&mut self, index: usize) -> Result<()> {
        loop {
            let store = self.stores.get_mut(index).ok_or_else(no_store)?;
            let Some(taken) = store.next_dirty(index == self.written) else { return Ok(()) };
            self.write(index, &taken.key, taken.value.as_deref(), &taken.context)?;
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
    ) -> Result<Rows> {
        let store = self.stores.get_mut(index).ok_or_else(no_store)?;
        match store.expiry {
            Some(_) => store.page_of_rows(from, to, reverse, limit),
            None => store.page(from, to, reverse, limit),
        }
    }

    /// About how many rows there are.
    pub(crate) fn approximate_len(&self, index: usize) -> u64 {
        let Some(store) = self.stores.get(index) else { return 0 };
        let len = store.engine.approximate_len() + store.buffer.dirty_len() as u64;
        // Each row that expires has another for its place in time.
        if store.expiry.is_some() { len.div_ceil(2) } else { len }
    }

    /// Bytes of a store's files; none: it is not on disk.
    pub(crate) fn disk_bytes(&self, index: usize) -> Option<u64> {
        self.stores.get(index)?.engine.disk_bytes()
    }

    /// Bytes in the record caches, whether they wait for the commit or not.
    pub(crate) fn cache_bytes(&self) -> usize {
        self.stores.iter().map(|store| store.cache.bytes()).sum()
    }

    /// The updates since the last call of [`clear_changelog`](TaskStores::clear_changelog), in the order they were made.
    pub(crate) fn changelog(&self) -> impl Iterator<Item = ChangelogRecord<'_>> {
        self.pending.iter()
    }

    /// They have been handed to the producer.
    pub(crate) fn clear_changelog(&mut self) {
        self.pending.clear();
    }

    /// Bytes that wait for the commit; beyond a limit the thread commits early.
    pub(crate) fn uncommitted_bytes(&self) -> usize {
        let rows = self.stores.iter().map(|store| store.cache.dirty_bytes() + store.buffer.dirty_bytes());
        rows.sum::<usize>() + self.pending.bytes()
    }

    /// The transaction has committed: the buffers become committed rows, each store with its changelog's next offset.
    pub(crate) fn apply(&mut self, offsets: &[Option<i64>]) -> Result<()> {
        self.share_read_cache();
        let _applying = self.backing.readers.as_ref().map(Gatekeeper::begin_commit);
        let now_ms = self.now_ms();
        let offsets = offsets.iter().copied().chain(std::iter::repeat(None));
        self.stores.iter_mut().zip(offsets).try_for_each(|(store, next_offset)| {
            let has_changed = store.buffer.dirty_len() > 0;
            store.apply(At { next_offset, now_ms, ..At::default() })?;
            // Nobody else writes its changelog.
            store.as_of = AsOf::at(now_ms);
            store.tell_readers(has_changed);
            Ok(())
        })
    }

    /// The transaction was aborted: the stores are at the last commit again.
    pub(crate) fn discard(&mut self) {
        self.stores.iter_mut().for_each(Store::forget);
        self.pending.clear();
        self.expired = 0;
    }

    /// The next changelog offset that a store needs; none: nothing of it is here.
    pub(crate) fn offset(&self, index: usize) -> Option<i64> {
        self.stores.get(index)?.engine.offset()
    }

    pub(super) fn now_ms(&self) -> i64 {
        self.backing.memory.as_ref().map_or(0, |registration| registration.memory.now_ms())
    }

    fn write(&mut self, index: usize, key: &[u8], value: Option<&[u8]>, context: &RecordContext) -> Result<()> {
        let store = self.stores.get_mut(index).ok_or_else(no_store)?;
        if store.sharing.is_read_only() {
            return Err(read_only(&store.spec.name));
        }
        let kind = store.spec.kind;
        let mut logged_key = key;
        match &mut store.retention {
            None => {
                store.buffer.put(key, value)?;
                if store.expiry.is_some() {
                    logged_key = key_of(key);
                }
                if let Some(evicted) = store.make_room(key, value.is_some())? {
                    store.buffer.put(&evicted, None)?;
                    if store.spec.is_logged() {
                        let (timestamp, headers) = (Some(context.timestamp), &Headers::new());
                        let record = ChangelogRecord { store: index, key: &evicted, value: None, timestamp, headers };
                        self.pending.push(record);
                    }
                }
            }
            Some(retention) => {
                if retention.admit(key) {
                    // A deletion has no duplicate to hit.
                    if value.is_some() || !kind.retains_duplicates() {
                        store.buffer.put(key, value)?;
                    }
                } else {
                    self.expired += 1;
                    log_expired(&store.spec.name, context);
                }
                if store.spec.is_logged() {
                    retention.keys.to_changelog(key, &mut self.key);
                    logged_key = &self.key;
                }
            }
        }
        if store.spec.is_logged() {
            let row = value.map(|row| kind.row_format().split(row)).transpose()?;
            let timestamp = Some(row.as_ref().and_then(|row| row.timestamp).unwrap_or(context.timestamp));
            let none = &Headers::new();
            let headers = match (&row, store.spec.logs_headers) {
                (Some(LoggedRow { headers: Some(headers), .. }), _) => headers,
                (_, LoggedHeaders::All) | (None, LoggedHeaders::OfDeletions) => &context.headers,
                (_, LoggedHeaders::OfDeletions | LoggedHeaders::None | LoggedHeaders::OfFormat) => none,
            };
            let value = row.as_ref().map(|row| row.value);
            self.pending.push(ChangelogRecord { store: index, key: logged_key, value, timestamp, headers });
        }
        Ok(())
    }

    /// Writes or deletes a row of a store without a cache whose changelog holds something else, at no time in particular.
    pub(crate) fn put_logged_as(
        &mut self,
        index: usize,
        key: &[u8],
        row: Option<&[u8]>,
        logged: (&[u8], Option<&[u8]>, &Headers),
    ) -> Result<()> {
        let store = self.stores.get_mut(index).ok_or_else(no_store)?;
        store.buffer.put(key, row)?;
        if store.spec.is_logged() {
            let (key, value, headers) = logged;
            self.pending.push(ChangelogRecord { store: index, key, value, timestamp: None, headers });
        }
        Ok(())
    }
}

/// Java's largest sequence number.
const SEQUENCE_MAX: u32 = 0x7fff_ffff;

#[cold]
pub(super) fn log_expired(store: &str, context: &RecordContext) {
    let timestamp = context.timestamp;
    // The topic's name is not known here; the task's span says of which sub-topology it is.
    let (partition, offset) = context.position.as_ref().map_or((-1, -1), |at| (at.partition, at.offset));
    tracing::warn!(store, partition, offset, timestamp, "a row was dropped: it had expired when it was put");
}

#[cold]
pub(super) fn no_store() -> Error {
    Error::new(ErrorKind::Internal, "a facade knows a store that its task does not have")
}

#[cold]
fn only_read() -> Error {
    Error::new(ErrorKind::User, "a store that is asked by a query can only be read: write in a processor")
}

#[cold]
fn read_only(store: &str) -> Error {
    let context = format!("global store {store} is read only here: it is written by the processor of its topic");
    Error::new(ErrorKind::User, context)
}
