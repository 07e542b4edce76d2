//! Stores that every task reads and one thread writes.
//!
//! ```text
//!   global thread:  TaskStores ── buffer ── apply ──> Engine ──┐
//!                                                             │ rows: RocksDB, or memory behind a lock
//!   stream threads: TaskStores ── read-only store ── Engine <──┘ a handle of its own for every task
//! ```
//!
//! Readers see what has been applied, whole batches at a time. RocksDB takes readers beside its writer without a lock of
//! ours; rows in memory stand behind a lock that readers share and the writer holds for the rows of one batch. A task
//! without a global store meets neither.
//!
//! A reader keeps rows at hand as any store does, and forgets them when a counter says that something was applied since.
//! With it comes the largest time that was put, so that readers hide what has expired as the writer does.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use super::engine::Engine;
use super::memory::MemoryEngine;
use super::one_store::Store;
#[cfg(feature = "rocksdb")]
use super::rocksdb as disk;
use super::task_stores::TaskStores;
use super::{CacheBudget, StoreSpec};

/// Handles to the global stores of an application, shared by its threads.
#[derive(Debug, Default)]
pub(crate) struct GlobalStores {
    stores: Vec<(Arc<StoreSpec>, SharedRows, Arc<Changes>)>,
}

/// Rows that several threads read.
#[derive(Debug)]
pub(super) enum SharedRows {
    Memory(Arc<RwLock<MemoryEngine>>),
    #[cfg(feature = "rocksdb")]
    RocksDb(Box<disk::Family>),
}

/// What the writer of a store tells its readers.
#[derive(Debug)]
pub(super) struct Changes {
    /// How often something was applied.
    pub(super) count: AtomicU64,
    /// The largest time (ms) that was put to a store whose rows expire.
    pub(super) stream_time: AtomicI64,
}

/// Whether others have a part in the rows of a store.
#[derive(Debug)]
pub(super) enum Sharing {
    None,
    Written(Arc<Changes>),
    /// With the count that the rows at hand are of; none: nothing has been read yet.
    Read(Arc<Changes>, Option<u64>),
}

impl Sharing {
    pub(super) fn is_read_only(&self) -> bool {
        matches!(self, Sharing::Read(..))
    }

    /// Rows were applied, or the largest time that was put has changed.
    pub(super) fn change(&self, stream_time: i64) {
        if let Sharing::Written(changes) = self {
            // Release and acquire: who sees the count sees the rows and the time.
            changes.stream_time.store(stream_time, Ordering::Relaxed);
            changes.count.fetch_add(1, Ordering::Release);
        }
    }

    /// What was read is to be asked for again, the time too.
    pub(super) fn forget(&mut self) {
        if let Sharing::Read(_, seen) = self {
            *seen = None;
        }
    }

    /// The time that readers have been told last.
    pub(super) fn told_time(&self) -> Option<i64> {
        let Sharing::Written(changes) = self else { return None };
        Some(changes.stream_time.load(Ordering::Relaxed))
    }

    /// The largest time that was put, if something was applied since the last call.
    ///
    /// IMPORTANT: asked before the engine is, so that an old row is never kept under a new count.
    #[inline]
    pub(super) fn changed(&mut self) -> Option<i64> {
        let Sharing::Read(changes, seen) = self else { return None };
        let now = changes.count.load(Ordering::Acquire);
        (seen.replace(now) != Some(now)).then(|| changes.stream_time.load(Ordering::Relaxed))
    }
}

impl GlobalStores {
    /// Adds the stores of a task that writes some.
    pub(crate) fn add(&mut self, writer: &TaskStores) {
        self.stores.extend(writer.stores.iter().filter_map(|store| match &store.sharing {
            Sharing::Written(changes) => Some((Arc::clone(&store.spec), store.engine.shared()?, Arc::clone(changes))),
            Sharing::None | Sharing::Read(..) => None,
        }));
    }

    /// Lets a task read them: behind its own stores, under their names.
    pub(crate) fn attach(&self, stores: &mut TaskStores) {
        for (spec, rows, changes) in &self.stores {
            let mut store = Store::new(spec, None, rows.engine(), &CacheBudget::new(0));
            store.sharing = Sharing::Read(Arc::clone(changes), None);
            stores.stores.push(store);
        }
        stores.share_read_cache();
    }
}

impl TaskStores {
    /// Stores in memory that others may read.
    pub(crate) fn shared_in_memory(specs: &[Arc<StoreSpec>]) -> TaskStores {
        let mut stores = TaskStores::in_memory(specs, 0);
        stores.share();
        stores
    }

    /// Makes rows readable by others.
    pub(super) fn share(&mut self) {
        for store in &mut self.stores {
            let stream_time = AtomicI64::new(store.stream_time());
            store.sharing = Sharing::Written(Arc::new(Changes { count: AtomicU64::new(0), stream_time }));
            if let Engine::Memory(memory) = &mut store.engine {
                let memory = std::mem::take(memory);
                store.engine = Engine::Shared(Arc::new(RwLock::new(memory)));
            }
        }
    }
}

impl Engine {
    /// The same rows for readers; none: they are nobody else's.
    pub(super) fn shared(&self) -> Option<SharedRows> {
        match self {
            Engine::Memory(_) | Engine::Custom(_) => None,
            Engine::Shared(memory) => Some(SharedRows::Memory(Arc::clone(memory))),
            #[cfg(feature = "rocksdb")]
            Engine::RocksDb(family) => Some(SharedRows::RocksDb(Box::new(family.reader()))),
        }
    }
}

impl SharedRows {
    /// Another handle to them.
    pub(super) fn engine(&self) -> Engine {
        match self {
            SharedRows::Memory(memory) => Engine::Shared(Arc::clone(memory)),
            #[cfg(feature = "rocksdb")]
            SharedRows::RocksDb(family) => Engine::RocksDb(family.reader()),
        }
    }
}

/// Reads under the lock. A writer that panicked has left whole rows: each is one assignment.
pub(super) fn read<T>(memory: &RwLock<MemoryEngine>, with: impl FnOnce(&MemoryEngine) -> T) -> T {
    with(&memory.read().unwrap_or_else(PoisonError::into_inner))
}

pub(super) fn write<T>(memory: &RwLock<MemoryEngine>, with: impl FnOnce(&mut MemoryEngine) -> T) -> T {
    with(&mut memory.write().unwrap_or_else(PoisonError::into_inner))
}

#[cfg(test)]
mod tests {
    use std::ops::Bound;

    use super::*;
    use crate::ErrorKind;
    use crate::serdes::Utf8;
    use crate::state::{RecordContext, Stores};

    #[test]
    fn rows_at_hand_are_forgotten_when_others_are_applied() {
        let spec = Stores::in_memory_key_value("g", Utf8, Utf8).spec;
        let mut writer = TaskStores::shared_in_memory(&[spec]);
        let mut globals = GlobalStores::default();
        globals.add(&writer);
        let mut reader = TaskStores::default();
        globals.attach(&mut reader);
        // As over rows on disk.
        reader.stores[0].buffer.set_clean_bytes_max(1 << 20);
        for round in 0..9_i64 {
            let row = round.to_string().into_bytes();
            writer.put(0, b"k", Some(&row), &RecordContext::default()).unwrap();
            writer.apply_positions(&[(0, round)]).unwrap();
            assert_eq!(reader.get(0, b"k").unwrap(), Some(&*row));
            writer.apply_positions(&[(0, round)]).unwrap();
            assert_eq!(reader.get(0, b"k").unwrap(), Some(&*row), "from what is at hand");
        }
    }

    #[test]
    fn a_reader_sees_what_is_applied_and_writes_nothing() {
        let spec = Stores::in_memory_key_value("g", Utf8, Utf8).spec;
        let mut writer = TaskStores::shared_in_memory(&[spec]);
        let mut globals = GlobalStores::default();
        globals.add(&writer);
        let mut reader = TaskStores::default();
        globals.attach(&mut reader);
        let context = RecordContext::default();
        let all = |reader: &mut TaskStores| reader.page(0, Bound::Unbounded, Bound::Unbounded, false, 9).unwrap();

        writer.put(0, b"b", Some(b"2"), &context).unwrap();
        assert_eq!(reader.get(0, b"b").unwrap(), None, "not applied yet");
        writer.apply_positions(&[(0, 1)]).unwrap();
        assert_eq!(reader.get(0, b"b").unwrap(), Some(&b"2"[..]));
        assert_eq!(all(&mut reader).len(), 1);
        writer.put(0, b"a", Some(b"1"), &context).unwrap();
        writer.put(0, b"b", None, &context).unwrap();
        writer.apply_positions(&[(0, 3)]).unwrap();
        assert_eq!(reader.get(0, b"b").unwrap(), None);
        assert_eq!(all(&mut reader), [(b"a".to_vec(), b"1".to_vec())]);

        let error = reader.put(0, b"c", Some(b"3"), &context).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::User);
        assert!(error.to_string().contains("global store g"), "{error}");
    }
}
