//! The record cache: holds updates of a key back and merges them until the commit, or until the budget of the thread is
//! used up (Java's `NamedCache` below a `ThreadCache`).
//!
//! Two orders run through the entries. `used`: who is evicted, least recently read or written first. `dirty`: who is
//! flushed, by last update. Evicting a dirty entry flushes it first and then all others that are dirty, which stay as clean
//! ones.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use hashbrown::HashTable;

use super::generation::hash;
use super::task_stores::RecordContext;

/// What all record caches of a stream thread may hold together.
#[derive(Debug, Clone, Default)]
pub(crate) struct CacheBudget(Arc<Budget>);

#[derive(Debug, Default)]
struct Budget {
    bytes_max: AtomicUsize,
    /// Only the thread that runs the tasks changes it in practice; no other memory hangs on it, so `Relaxed` will do.
    bytes: AtomicUsize,
}

impl CacheBudget {
    /// A budget in bytes; with 0 nothing is held back.
    pub(crate) fn new(bytes_max: usize) -> CacheBudget {
        CacheBudget(Arc::new(Budget { bytes_max: AtomicUsize::new(bytes_max), bytes: AtomicUsize::new(0) }))
    }

    /// Another bound; what is held beyond it goes with the next update.
    pub(crate) fn resize(&self, bytes_max: usize) {
        self.0.bytes_max.store(bytes_max, Ordering::Relaxed);
    }

    pub(crate) fn is_off(&self) -> bool {
        self.0.bytes_max.load(Ordering::Relaxed) == 0
    }

    pub(crate) fn is_exceeded(&self) -> bool {
        self.0.bytes.load(Ordering::Relaxed) > self.0.bytes_max.load(Ordering::Relaxed)
    }

    /// Bytes in use.
    #[cfg(test)]
    pub(crate) fn bytes(&self) -> usize {
        self.0.bytes.load(Ordering::Relaxed)
    }
}

/// What one cache has taken of the budget; given back when the cache goes.
#[derive(Debug)]
struct Share {
    budget: CacheBudget,
    bytes: usize,
}

impl Share {
    fn add(&mut self, bytes: usize) {
        self.bytes += bytes;
        self.budget.0.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    fn remove(&mut self, bytes: usize) {
        self.bytes -= bytes;
        self.budget.0.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.remove(self.bytes);
    }
}

/// The held-back updates of one store.
#[derive(Debug)]
pub(super) struct RecordCache {
    share: Share,
    entries: Vec<Entry>,
    free: Vec<u32>,
    table: HashTable<u32>,
    used: Ends,
    dirty: Ends,
    /// Whether ranges show clean entries too.
    ranges: Ranges,
    /// Keys of the entries that ranges show; only once the store has been asked for one.
    ordered: Option<BTreeMap<Box<[u8]>, u32>>,
    dirty_bytes: usize,
    /// An evicted entry that leaves when it is taken.
    leaving: u32,
}

/// Which entries a range shows beside the dirty ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ranges {
    /// None: what is clean is also below.
    Dirty,
    /// The clean ones too: in Java the cache of a windowed store shows rows that the store below does not show any more.
    /// At least once only: after a crash they are not there.
    All,
}

/// No entry.
const NONE: u32 = u32::MAX;

/// Java's `LRUNode` and `LRUCacheEntry` beside their bytes: three references of 8, a flag, timestamp 8, offset 8,
/// partition 4. The name of the topic is not counted: an entry knows it as a number.
const ENTRY_BYTES: usize = 24 + 1 + 20;

#[derive(Debug, Default)]
struct Entry {
    hash: u64,
    key: Vec<u8>,
    value: Vec<u8>,
    is_deletion: bool,
    is_dirty: bool,
    context: RecordContext,
    bytes: usize,
    used: Links,
    dirty: Links,
}

/// First and last of an order.
#[derive(Debug, Clone, Copy)]
struct Ends {
    first: u32,
    last: u32,
}

#[derive(Debug, Clone, Copy)]
struct Links {
    before: u32,
    behind: u32,
}

impl Default for Links {
    fn default() -> Links {
        Links { before: NONE, behind: NONE }
    }
}

const NO_ENDS: Ends = Ends { first: NONE, last: NONE };

/// Which of the two orders.
type Order = (fn(&mut RecordCache) -> &mut Ends, fn(&mut Entry) -> &mut Links);
const USED: Order = (|cache| &mut cache.used, |entry| &mut entry.used);
const DIRTY: Order = (|cache| &mut cache.dirty, |entry| &mut entry.dirty);

/// What an eviction has met.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Evicted {
    /// The budget is kept, or there is nothing left to evict.
    Clean,
    /// All dirty entries have to be taken before it can go on.
    Dirty,
}

/// An update that has left the cache or become clean.
pub(super) struct Taken {
    pub(super) key: Vec<u8>,
    pub(super) value: Option<Vec<u8>>,
    pub(super) context: RecordContext,
}

impl RecordCache {
    pub(super) fn new(budget: CacheBudget, ranges: Ranges) -> RecordCache {
        RecordCache {
            ranges,
            share: Share { budget, bytes: 0 },
            entries: Vec::new(),
            free: Vec::new(),
            table: HashTable::new(),
            used: NO_ENDS,
            dirty: NO_ENDS,
            ordered: None,
            dirty_bytes: 0,
            leaving: NONE,
        }
    }

    pub(super) fn contains(&self, key: &[u8]) -> bool {
        self.find(hash(key), key).is_some()
    }

    pub(super) fn ranges(&self) -> Ranges {
        self.ranges
    }

    pub(super) fn show_in_ranges(&mut self, ranges: Ranges) {
        if self.ranges != ranges {
            (self.ranges, self.ordered) = (ranges, None);
        }
    }

    /// Whether an entry has not been written below yet.
    pub(super) fn is_dirty(&self, key: &[u8]) -> bool {
        let entry = self.find(hash(key), key).and_then(|id| self.entries.get(id as usize));
        entry.is_some_and(|entry| entry.is_dirty)
    }

    /// The update that is held back; the inner none is a deletion.
    pub(super) fn get(&mut self, key: &[u8]) -> Option<Option<&[u8]>> {
        let id = self.find(hash(key), key)?;
        self.unlink(id, USED);
        self.link_last(id, USED);
        let entry = self.entries.get(id as usize)?;
        Some((!entry.is_deletion).then_some(entry.value.as_slice()))
    }

    pub(super) fn put(&mut self, key: &[u8], value: Option<&[u8]>, context: &RecordContext) {
        let hash = hash(key);
        let (id, is_new) = match self.find(hash, key) {
            Some(id) => (id, false),
            None => (self.free_entry(), true),
        };
        let Some(entry) = self.entries.get_mut(id as usize) else { return };
        let (bytes_before, was_dirty) = (if is_new { 0 } else { entry.bytes }, entry.is_dirty && !is_new);
        entry.value.clear();
        entry.value.extend_from_slice(value.unwrap_or_default());
        entry.is_deletion = value.is_none();
        entry.is_dirty = true;
        entry.context.clone_from(context);
        let headers = context.headers.iter().map(|(key, value)| key.len() + value.map_or(0, <[u8]>::len));
        let source = context.source.as_ref().map_or(0, |source| source.len());
        entry.bytes = key.len() + entry.value.len() + ENTRY_BYTES + headers.sum::<usize>() + source;
        let bytes = entry.bytes;
        if is_new {
            entry.hash = hash;
            entry.key.clear();
            entry.key.extend_from_slice(key);
            let entries = &self.entries;
            self.table.insert_unique(hash, id, |id| entries.get(*id as usize).map_or(0, |entry| entry.hash));
        } else {
            self.unlink(id, USED);
        }
        if was_dirty {
            self.unlink(id, DIRTY);
            self.dirty_bytes -= bytes_before;
        } else if let Some(ordered) = &mut self.ordered {
            ordered.insert(key.into(), id);
        }
        self.link_last(id, USED);
        self.link_last(id, DIRTY);
        self.dirty_bytes += bytes;
        self.share.add(bytes);
        self.share.remove(bytes_before);
        if self.leaving == id {
            self.leaving = NONE;
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    /// What it has taken of the budget.
    pub(super) fn bytes(&self) -> usize {
        self.share.bytes
    }

    pub(super) fn dirty_bytes(&self) -> usize {
        self.dirty_bytes
    }

    /// Drops clean entries, least recently used first, until the budget is kept. Where a dirty one is in the way, it is the
    /// next one to be taken.
    pub(super) fn evict(&mut self) -> Evicted {
        while self.share.budget.is_exceeded() {
            let id = self.used.first;
            let Some(entry) = self.entries.get(id as usize) else { break };
            if entry.is_dirty {
                self.unlink(id, DIRTY);
                self.link_first(id, DIRTY);
                self.leaving = id;
                return Evicted::Dirty;
            }
            self.remove(id);
        }
        Evicted::Clean
    }

    /// The next dirty entry; it stays as a clean one, unless it is a deletion or has been evicted.
    pub(super) fn take_dirty(&mut self) -> Option<Taken> {
        let id = self.dirty.first;
        self.unlink(id, DIRTY);
        let entry = self.entries.get_mut(id as usize)?;
        entry.is_dirty = false;
        let value = (!entry.is_deletion).then(|| entry.value.clone());
        let taken = Taken { key: entry.key.clone(), value, context: std::mem::take(&mut entry.context) };
        self.dirty_bytes -= entry.bytes;
        if let (Some(ordered), Ranges::Dirty) = (&mut self.ordered, self.ranges) {
            ordered.remove(taken.key.as_slice());
        }
        if self.leaving == id || taken.value.is_none() {
            self.leaving = NONE;
            self.remove(id);
        }
        Some(taken)
    }

    /// Dirty entries by key, and, where ranges show them, clean ones.
    pub(super) fn range(
        &mut self,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
    ) -> impl DoubleEndedIterator<Item = (&[u8], Option<&[u8]>)> {
        let entries = &self.entries;
        let ordered = self.ordered.get_or_insert_with(|| {
            let ranges = self.ranges;
            let entries = self.table.iter().filter_map(|id| Some((*id, entries.get(*id as usize)?)));
            let shown = entries.filter(|(_, entry)| entry.is_dirty || ranges == Ranges::All);
            shown.map(|(id, entry)| (entry.key.as_slice().into(), id)).collect()
        });
        ordered.range::<[u8], _>((from, to)).map(move |(key, id)| {
            let entry = entries.get(*id as usize).filter(|entry| !entry.is_deletion);
            (&**key, entry.map(|entry| entry.value.as_slice()))
        })
    }

    /// Forgets everything.
    pub(super) fn clear(&mut self) {
        self.share.remove(self.share.bytes);
        self.entries.clear();
        self.free.clear();
        self.table.clear();
        (self.used, self.dirty) = (NO_ENDS, NO_ENDS);
        self.dirty_bytes = 0;
        self.leaving = NONE;
        if let Some(ordered) = &mut self.ordered {
            ordered.clear();
        }
    }

    fn find(&self, hash: u64, key: &[u8]) -> Option<u32> {
        let is_it = |id: &u32| self.entries.get(*id as usize).is_some_and(|entry| entry.key == key);
        self.table.find(hash, is_it).copied()
    }

    fn free_entry(&mut self) -> u32 {
        self.free.pop().unwrap_or_else(|| {
            self.entries.push(Entry::default());
            // The cache is full of bytes long before it has this many entries.
            u32::try_from(self.entries.len() - 1).unwrap_or(u32::MAX)
        })
    }

    fn remove(&mut self, id: u32) {
        self.unlink(id, USED);
        let Some(entry) = self.entries.get_mut(id as usize) else { return };
        entry.is_dirty = false;
        entry.context = RecordContext::default();
        if let (Some(ordered), Ranges::All) = (&mut self.ordered, self.ranges) {
            ordered.remove(entry.key.as_slice());
        }
        self.share.remove(entry.bytes);
        if let Ok(place) = self.table.find_entry(entry.hash, |other| *other == id) {
            place.remove();
        }
        self.free.push(id);
    }

    fn link_last(&mut self, id: u32, order: Order) {
        let last = std::mem::replace(&mut order.0(self).last, id);
        self.set_links(id, Links { before: last, behind: NONE }, order);
        match self.entries.get_mut(last as usize) {
            Some(entry) => order.1(entry).behind = id,
            None => order.0(self).first = id,
        }
    }

    fn link_first(&mut self, id: u32, order: Order) {
        let first = std::mem::replace(&mut order.0(self).first, id);
        self.set_links(id, Links { before: NONE, behind: first }, order);
        match self.entries.get_mut(first as usize) {
            Some(entry) => order.1(entry).before = id,
            None => order.0(self).last = id,
        }
    }

    fn set_links(&mut self, id: u32, links: Links, order: Order) {
        if let Some(entry) = self.entries.get_mut(id as usize) {
            *order.1(entry) = links;
        }
    }

    fn unlink(&mut self, id: u32, order: Order) {
        let Some(entry) = self.entries.get_mut(id as usize) else { return };
        let Links { before, behind } = std::mem::take(order.1(entry));
        match self.entries.get_mut(before as usize) {
            Some(entry) => order.1(entry).behind = behind,
            None => order.0(self).first = behind,
        }
        match self.entries.get_mut(behind as usize) {
            Some(entry) => order.1(entry).before = before,
            None => order.0(self).last = before,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(cache: &mut RecordCache, key: &str, value: Option<&str>) {
        cache.put(key.as_bytes(), value.map(str::as_bytes), &RecordContext::default());
    }

    fn take(cache: &mut RecordCache) -> Vec<String> {
        let keys = std::iter::from_fn(|| cache.take_dirty()).map(|taken| taken.key);
        keys.map(|key| String::from_utf8(key).unwrap()).collect()
    }

    #[test]
    fn dirty_entries_leave_in_the_order_of_their_last_update() {
        let mut cache = RecordCache::new(CacheBudget::new(1000), Ranges::Dirty);
        for key in ["a", "b", "c", "a"] {
            put(&mut cache, key, Some("1"));
        }
        assert_eq!(cache.get(b"a"), Some(Some(&b"1"[..])));
        assert_eq!(take(&mut cache), ["b", "c", "a"]);
        assert_eq!(cache.get(b"a"), Some(Some(&b"1"[..])), "it stays as a clean entry");
        assert_eq!(cache.dirty_bytes(), 0);
    }

    #[test]
    fn evicting_a_dirty_entry_flushes_it_first_and_then_all_others() {
        let budget = CacheBudget::new(3 * (ENTRY_BYTES + 2));
        let mut cache = RecordCache::new(budget.clone(), Ranges::Dirty);
        for key in ["a", "b", "c"] {
            put(&mut cache, key, Some("1"));
        }
        cache.get(b"a");
        assert_eq!(cache.evict(), Evicted::Clean);
        put(&mut cache, "d", Some("1"));
        assert_eq!(cache.evict(), Evicted::Dirty);
        assert_eq!(take(&mut cache), ["b", "a", "c", "d"], "b was used longest ago");
        assert_eq!((cache.get(b"b"), budget.is_exceeded()), (None, false));
        put(&mut cache, "e", Some("1"));
        assert_eq!(cache.evict(), Evicted::Clean, "c is clean and goes without a flush");
        assert_eq!(cache.get(b"c"), None);
    }

    #[test]
    fn a_deletion_is_seen_until_it_is_flushed() {
        let mut cache = RecordCache::new(CacheBudget::new(1000), Ranges::Dirty);
        put(&mut cache, "a", None);
        assert_eq!(cache.get(b"a"), Some(None));
        assert_eq!(cache.range(Bound::Unbounded, Bound::Unbounded).collect::<Vec<_>>(), [(&b"a"[..], None)]);
        assert_eq!(take(&mut cache), ["a"]);
        assert_eq!(cache.get(b"a"), None);
        assert!(cache.is_empty());
    }

    #[test]
    fn a_range_shows_clean_entries_where_it_has_to() {
        let mut cache = RecordCache::new(CacheBudget::new(1000), Ranges::All);
        put(&mut cache, "a", Some("1"));
        put(&mut cache, "b", None);
        assert_eq!(cache.range(Bound::Unbounded, Bound::Unbounded).count(), 2);
        assert_eq!(take(&mut cache), ["a", "b"]);
        put(&mut cache, "c", Some("1"));
        let keys: Vec<_> = cache.range(Bound::Unbounded, Bound::Unbounded).map(|(key, _)| key.to_vec()).collect();
        assert_eq!(keys, [b"a", b"c"], "a deletion is not kept as a clean entry");
    }

    #[test]
    fn the_budget_is_shared_and_given_back() {
        let budget = CacheBudget::new(100);
        let (mut one, mut other) =
            (RecordCache::new(budget.clone(), Ranges::Dirty), RecordCache::new(budget.clone(), Ranges::Dirty));
        put(&mut one, "a", Some("1"));
        put(&mut one, "a", Some("22"));
        put(&mut other, "b", Some("1"));
        assert_eq!(budget.bytes(), 2 * ENTRY_BYTES + 5);
        one.clear();
        drop(other);
        assert_eq!((budget.bytes(), one.is_empty()), (0, true));
        put(&mut one, "a", Some("1"));
        assert_eq!(take(&mut one), ["a"]);
    }
}
