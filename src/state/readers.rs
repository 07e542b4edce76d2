//! The stores of a task as threads read them that do not own it.
//!
//! ```text
//!   owner:    TaskStores ── apply ──> Engine ──┐
//!                                              │ committed rows
//!   others:   TaskReaders ── gate ── TaskStores, read only
//! ```
//!
//! What has been applied is read, and nothing else: neither the buffer nor the cache of the owner, which needs no lock for
//! them. RocksDB takes readers beside its writer. Rows in memory are the owner's alone until somebody asks for them; from
//! then on they stand behind a lock that readers share.
//!
//! IMPORTANT: a reader holds the database open, and a database is opened by one task at a time. So every read is inside of
//! the gate, and short; the stores close it, and wait for those that are inside, before they let go of their database.

use std::ops::Bound;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use super::engine::{Engine, Scan};
use super::global_store::{Changes, SharedRows, Sharing};
use super::memory::MemoryEngine;
use super::merge::Direction;
use super::one_store::Store;
use super::task_stores::{Backing, TaskStores};
use super::{CacheBudget, StoreSpec};
use crate::error::{Error, Result};

/// Read handles that are kept for the next reader of a task.
const IDLE_MAX: usize = 16;

/// How often stores are copied anew when a commit was applied meanwhile.
const COPIES_TRIED_MAX: usize = 16;

/// The committed rows of a task's stores.
#[derive(Debug)]
pub(crate) struct TaskReaders {
    /// None: the stores are closed.
    gate: RwLock<Option<Open>>,
    /// Somebody asks for rows in memory that are the owner's alone.
    wanted: AtomicBool,
    /// Even between two commits; odd while one is being applied to one store after the other.
    commits: AtomicU64,
}

#[derive(Debug)]
struct Open {
    stores: Vec<ReadableStore>,
    idle: Mutex<Vec<TaskStores>>,
}

#[derive(Debug)]
struct ReadableStore {
    spec: Arc<StoreSpec>,
    changes: Arc<Changes>,
    /// None: nobody but the owner can read them yet, or ever.
    rows: Option<SharedRows>,
}

/// Why nothing was read.
#[derive(Debug)]
pub(crate) enum NotRead {
    /// The stores are closed, or do not have this one.
    Closed,
    /// Its rows are in memory, and the owner will share them in its next turn.
    NotShared,
    /// They are in an engine of the user, which has one owner.
    Owned,
    /// There are more of them than may be copied.
    TooMany,
    /// Commits came one after the other while they were copied.
    Changing,
    Failed(Error),
}

/// A commit is being applied, store by store.
pub(super) struct Applying(Arc<TaskReaders>);

impl Drop for Applying {
    fn drop(&mut self) {
        self.0.commits.fetch_add(1, Ordering::AcqRel);
    }
}

/// Held by the stores: closes the gate with them.
#[derive(Debug)]
pub(super) struct Gatekeeper(Arc<TaskReaders>);

impl Gatekeeper {
    /// What is copied from now on, until the end of this, is of no single moment.
    pub(super) fn begin_commit(&self) -> Applying {
        self.0.commits.fetch_add(1, Ordering::AcqRel);
        Applying(Arc::clone(&self.0))
    }
}

impl Drop for Gatekeeper {
    fn drop(&mut self) {
        self.0.set(None);
        self.0.wanted.store(false, Ordering::Release);
    }
}

impl TaskReaders {
    /// Reads a store of the task, with its other ones beside it, each at its place in the task.
    pub(crate) fn read<T>(&self, store: &str, with: impl FnOnce(&mut TaskStores) -> Result<T>) -> Result<T, NotRead> {
        let gate = self.gate.read().unwrap_or_else(PoisonError::into_inner);
        let open = gate.as_ref().ok_or(NotRead::Closed)?;
        let readable = open.stores.iter().find(|readable| *readable.spec.name == *store).ok_or(NotRead::Closed)?;
        if readable.rows.is_none() {
            if readable.spec.custom.is_some() {
                return Err(NotRead::Owned);
            }
            self.wanted.store(true, Ordering::Release);
            return Err(NotRead::NotShared);
        }
        let idle = open.idle().pop();
        let mut stores = idle.unwrap_or_else(|| open.stores());
        let read = with(&mut stores);
        let mut idle = open.idle();
        if idle.len() < IDLE_MAX {
            idle.push(stores);
        }
        read.map_err(NotRead::Failed)
    }

    /// A copy of stores, all of them as one commit has left them: that many rows at most, in the order of the names.
    pub(crate) fn copy(&self, names: &[Arc<str>], rows_max: usize) -> Result<TaskStores, NotRead> {
        let gate = self.gate.read().unwrap_or_else(PoisonError::into_inner);
        let open = gate.as_ref().ok_or(NotRead::Closed)?;
        let find = |name: &Arc<str>| open.stores.iter().find(|readable| readable.spec.name == *name);
        let readable = names.iter().map(|name| find(name).ok_or(NotRead::Closed)).collect::<Result<Vec<_>, _>>()?;
        if let Some(missing) = readable.iter().find(|readable| readable.rows.is_none()) {
            if missing.spec.custom.is_some() {
                return Err(NotRead::Owned);
            }
            self.wanted.store(true, Ordering::Release);
            return Err(NotRead::NotShared);
        }
        for _ in 0..COPIES_TRIED_MAX {
            let before = self.commits.load(Ordering::Acquire);
            let mut left = rows_max;
            let copy = |readable: &&ReadableStore| readable.copy(&mut left);
            let stores = readable.iter().map(copy).collect::<Result<Vec<_>, _>>()?;
            // The rows were read under locks, or by the database's own means: they are not read later than this.
            if before.is_multiple_of(2) && self.commits.load(Ordering::Acquire) == before || names.len() < 2 {
                return Ok(TaskStores::new(stores, CacheBudget::new(0), Backing::default()));
            }
            std::thread::yield_now();
        }
        Err(NotRead::Changing)
    }

    /// Whether rows in memory are asked for and not shared yet.
    pub(crate) fn is_wanted(&self) -> bool {
        self.wanted.load(Ordering::Acquire)
    }

    fn set(&self, open: Option<Open>) {
        // Waits for those that are inside. What is dropped here are the last handles of readers.
        *self.gate.write().unwrap_or_else(PoisonError::into_inner) = open;
    }
}

impl ReadableStore {
    /// The rows as they are now, of which `left` are left to be copied.
    fn copy(&self, left: &mut usize) -> Result<Store, NotRead> {
        let mut rows = self.rows.as_ref().map(SharedRows::engine).ok_or(NotRead::NotShared)?;
        // Before the rows: what has expired since is in the copy, and shown.
        let stream_time = AtomicI64::new(self.changes.stream_time.load(Ordering::Acquire));
        let mut copy = MemoryEngine::default();
        let mut is_whole = true;
        let scanned = rows.scan(Bound::Unbounded, Bound::Unbounded, Direction::Forward, |key, row| {
            if *left == 0 {
                is_whole = false;
                return Scan::Enough;
            }
            *left -= 1;
            copy.put(key, row);
            Scan::Next
        });
        scanned.map_err(NotRead::Failed)?;
        if !is_whole {
            return Err(NotRead::TooMany);
        }
        let mut store = Store::new(&self.spec, None, Engine::Memory(copy), &CacheBudget::new(0));
        store.sharing = Sharing::Read(Arc::new(Changes { count: AtomicU64::new(0), stream_time }), None);
        store.last_uses = None;
        Ok(store)
    }
}

impl Open {
    fn idle(&self) -> MutexGuard<'_, Vec<TaskStores>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn stores(&self) -> TaskStores {
        let reader = |readable: &ReadableStore| {
            let engine = readable.rows.as_ref().map_or_else(|| Engine::Memory(Default::default()), SharedRows::engine);
            let mut store = Store::new(&readable.spec, None, engine, &CacheBudget::new(0));
            store.sharing = Sharing::Read(Arc::clone(&readable.changes), None);
            // Who only reads has no part in what has to make room.
            store.last_uses = None;
            store
        };
        TaskStores::new(self.stores.iter().map(reader).collect(), CacheBudget::new(0), Backing::default())
    }
}

impl TaskStores {
    /// Lets others read what is committed, until these stores are dropped.
    pub(crate) fn readers(&mut self) -> Arc<TaskReaders> {
        if let Some(Gatekeeper(readers)) = &self.backing.readers {
            return Arc::clone(readers);
        }
        for store in &mut self.stores {
            if matches!(store.sharing, Sharing::None) {
                let (count, stream_time) = (AtomicU64::new(0), AtomicI64::new(store.stream_time()));
                store.sharing = Sharing::Written(Arc::new(Changes { count, stream_time }));
            }
        }
        let readers = Arc::new(TaskReaders {
            gate: RwLock::new(Some(self.open_gate())),
            wanted: false.into(),
            commits: AtomicU64::new(0),
        });
        self.backing.readers = Some(Gatekeeper(Arc::clone(&readers)));
        readers
    }

    /// Shares the rows in memory, if somebody has asked for them since the last call; whether that is so.
    #[inline]
    pub(crate) fn share_if_wanted(&mut self) -> bool {
        let is_wanted = |keeper: &Gatekeeper| keeper.0.is_wanted();
        self.backing.readers.as_ref().is_some_and(is_wanted) && self.share_rows()
    }

    #[cold]
    fn share_rows(&mut self) -> bool {
        for store in &mut self.stores {
            if let Engine::Memory(memory) = &mut store.engine {
                let memory = std::mem::take(memory);
                store.engine = Engine::Shared(Arc::new(RwLock::new(memory)));
            }
        }
        let open = self.open_gate();
        if let Some(Gatekeeper(readers)) = &self.backing.readers {
            readers.set(Some(open));
            readers.wanted.store(false, Ordering::Release);
        }
        true
    }

    /// Global stores that this task may read have readers of their own.
    fn open_gate(&self) -> Open {
        let readable = |store: &Store| {
            let Sharing::Written(changes) = &store.sharing else { return None };
            let (spec, changes) = (Arc::clone(&store.spec), Arc::clone(changes));
            Some(ReadableStore { spec, changes, rows: store.engine.shared() })
        };
        Open { stores: self.stores.iter().filter_map(readable).collect(), idle: Mutex::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::serdes::Utf8;
    use crate::state::{RecordContext, Stores};

    #[test]
    fn several_stores_are_not_copied_in_the_middle_of_a_commit() {
        let specs = ["a", "b"].map(|name| Stores::in_memory_key_value(name, Utf8, Utf8).spec);
        let mut writer = TaskStores::shared_in_memory(&specs);
        let (readers, context) = (writer.readers(), RecordContext::default());
        for store in 0..2 {
            writer.put(store, b"k", Some(b"1"), &context).unwrap();
        }
        writer.apply_positions(&[(0, 1)]).unwrap();
        let names = ["a", "b"].map(Arc::from);
        let mut copy = readers.copy(&names, 2).unwrap();
        assert_eq!(copy.get(1, b"k").unwrap(), Some(&b"1"[..]));
        let commit = writer.backing.readers.as_ref().map(Gatekeeper::begin_commit);
        assert!(matches!(readers.copy(&names, 2), Err(NotRead::Changing)));
        assert!(readers.copy(&names[..1], 2).is_ok(), "one store is of one moment in any case");
        drop(commit);
        assert!(matches!(readers.copy(&names, 1), Err(NotRead::TooMany)));
        drop(writer);
        assert!(matches!(readers.copy(&names, 2), Err(NotRead::Closed)));
        assert_eq!(copy.get(0, b"k").unwrap(), Some(&b"1"[..]));
    }
}
