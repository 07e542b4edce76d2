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

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use super::engine::Engine;
use super::global_store::{Changes, SharedRows, Sharing};
use super::one_store::Store;
use super::task_stores::{Backing, TaskStores};
use super::{CacheBudget, StoreSpec};
use crate::error::{Error, Result};

/// Read handles that are kept for the next reader of a task.
const IDLE_MAX: usize = 16;

/// The committed rows of a task's stores.
#[derive(Debug)]
pub(crate) struct TaskReaders {
    /// None: the stores are closed.
    gate: RwLock<Option<Open>>,
    /// Somebody asks for rows in memory that are the owner's alone.
    wanted: AtomicBool,
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
    Failed(Error),
}

/// Held by the stores: closes the gate with them.
#[derive(Debug)]
pub(super) struct Gatekeeper(Arc<TaskReaders>);

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

    /// Whether rows in memory are asked for and not shared yet.
    pub(crate) fn is_wanted(&self) -> bool {
        self.wanted.load(Ordering::Acquire)
    }

    fn set(&self, open: Option<Open>) {
        // Waits for those that are inside. What is dropped here are the last handles of readers.
        *self.gate.write().unwrap_or_else(PoisonError::into_inner) = open;
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
        let readers = Arc::new(TaskReaders { gate: RwLock::new(Some(self.open_gate())), wanted: false.into() });
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
