//! Memory that all stores of a process share, and the flushes that keep its bounds.

use std::fmt;
use std::sync::Arc;
#[cfg(feature = "rocksdb")]
use std::sync::Mutex;
#[cfg(feature = "rocksdb")]
use std::sync::PoisonError;
#[cfg(feature = "rocksdb")]
use std::sync::Weak;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};

#[cfg(feature = "rocksdb")]
use super::rocksdb as disk;
use crate::error::Result;

/// Bounds in bytes, each for the whole process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct StateMemoryLimits {
    /// Blocks of files that stores on disk have read; memtables are charged to it.
    pub block_cache_bytes: usize,
    /// Rows that stores on disk have not yet written to a file.
    pub memtable_bytes: usize,
    /// Committed rows that stay at hand, decoded from no block, and what is known of those of windowed stores.
    pub read_cache_bytes: usize,
}

impl Default for StateMemoryLimits {
    fn default() -> StateMemoryLimits {
        StateMemoryLimits { block_cache_bytes: 64 << 20, memtable_bytes: 48 << 20, read_cache_bytes: 96 << 20 }
    }
}

/// A handle to what the stores of a process share. One per process.
#[derive(Clone)]
pub(crate) struct StateMemory(Arc<Inner>);

struct Inner {
    limits: StateMemoryLimits,
    /// Stores that are open: each has an equal share of the read cache.
    stores: AtomicUsize,
    /// Runs that are collected or written.
    runs: AtomicUsize,
    /// The time of the last step. No task reads a clock, and a meta record wants one; nothing else hangs on it.
    now_ms: AtomicI64,
    #[cfg(feature = "rocksdb")]
    shared: disk::Shared,
    #[cfg(feature = "rocksdb")]
    databases: Mutex<Vec<Weak<disk::Database>>>,
}

/// How long a committed row may be in memory only. Bounds what is read again after a crash; a flush costs 1 ms.
#[cfg(feature = "rocksdb")]
const FLUSH_INTERVAL_MS: i64 = 30_000;

/// As large as the memtable that it stands for. Larger ones cost memory, and hardly less CPU.
const RUN_BYTES_MAX: usize = 16 << 20;

/// A run below this is better written as batches. Larger than what a store is read in between two looks at its share.
const RUN_BYTES_MIN: usize = 4 << 20;

impl StateMemory {
    pub(crate) fn new(limits: StateMemoryLimits) -> StateMemory {
        StateMemory(Arc::new(Inner {
            limits,
            stores: AtomicUsize::new(0),
            runs: AtomicUsize::new(0),
            now_ms: AtomicI64::new(0),
            #[cfg(feature = "rocksdb")]
            shared: disk::Shared::new(limits.block_cache_bytes, limits.memtable_bytes),
            #[cfg(feature = "rocksdb")]
            databases: Mutex::default(),
        }))
    }

    /// Tells the time, and begins the flushes that are due: of rows older than 30 s, and, while the memtables take more
    /// than their budget, of the largest. To be called about once a second from one thread.
    ///
    /// # Errors
    /// `Unavailable` when a flush cannot begin, as on a full disk; the stores go on and the next call tries again.
    pub(crate) fn flush_if_due(&self, now_ms: i64) -> Result<()> {
        self.set_now(now_ms);
        #[cfg(feature = "rocksdb")]
        self.flush(now_ms)?;
        Ok(())
    }

    #[cfg(feature = "rocksdb")]
    fn flush(&self, now_ms: i64) -> Result<()> {
        let databases = self.databases();
        databases.iter().try_for_each(|database| database.flush_older(now_ms - FLUSH_INTERVAL_MS))?;
        databases.iter().try_for_each(|database| database.settle())?;
        let tables = |database: &Arc<disk::Database>| {
            let database = Arc::clone(database);
            let tables: Vec<_> = database.memtables().collect();
            tables.into_iter().map(move |(family, bytes)| (bytes, Arc::clone(&database), family))
        };
        let mut tables: Vec<_> = databases.iter().flat_map(tables).collect();
        let mut bytes: u64 = tables.iter().map(|(bytes, ..)| bytes).sum();
        tables.sort_unstable_by_key(|(bytes, ..)| *bytes);
        while bytes > self.0.limits.memtable_bytes as u64 {
            let Some((freed, database, family)) = tables.pop() else { break };
            database.flush(family, false)?;
            bytes -= freed;
        }
        Ok(())
    }

    #[cfg(feature = "rocksdb")]
    fn databases(&self) -> Vec<Arc<disk::Database>> {
        let mut databases = self.0.databases.lock().unwrap_or_else(PoisonError::into_inner);
        databases.retain(|database| database.strong_count() > 0);
        databases.iter().filter_map(Weak::upgrade).collect()
    }

    #[cfg(feature = "rocksdb")]
    pub(super) fn add(&self, database: &Arc<disk::Database>) {
        self.0.databases.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::downgrade(database));
    }

    #[cfg(feature = "rocksdb")]
    pub(super) fn shared(&self) -> &disk::Shared {
        &self.0.shared
    }

    pub(super) fn set_now(&self, now_ms: i64) {
        self.0.now_ms.store(now_ms, Ordering::Relaxed);
    }

    pub(super) fn now_ms(&self) -> i64 {
        self.0.now_ms.load(Ordering::Relaxed)
    }

    /// What the read cache of one store may take.
    pub(super) fn read_cache_share(&self) -> usize {
        self.0.limits.read_cache_bytes / self.0.stores.load(Ordering::Relaxed).max(1)
    }

    /// What all runs that are collected or written may take together, in bytes: as much as memtables, which do not get these rows.
    pub(super) fn run_bytes_max(&self) -> usize {
        self.0.limits.memtable_bytes
    }

    /// A place to collect a run; none: so many are collected already that each would be too small.
    pub(super) fn begin_run(&self) -> Option<RunPlace> {
        let runs_max = (self.run_bytes_max() / RUN_BYTES_MIN).max(1);
        let more = |runs| (runs < runs_max).then_some(runs + 1);
        // Relaxed: a number that orders nothing.
        self.0.runs.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok()?;
        Some(RunPlace(self.clone()))
    }

    pub(super) fn register(&self, stores: usize) -> Registration {
        self.0.stores.fetch_add(stores, Ordering::Relaxed);
        Registration { memory: self.clone(), stores }
    }
}

impl fmt::Debug for StateMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.limits.fmt(f)
    }
}

/// The place of a run that is collected or written, until it is dropped.
#[derive(Debug)]
pub(super) struct RunPlace(StateMemory);

impl RunPlace {
    /// What the run may take now: a share that falls when others begin to collect. Who is over it then writes its run with
    /// its next records.
    pub(super) fn bytes_max(&self) -> usize {
        let share = self.0.run_bytes_max() / self.0.0.runs.load(Ordering::Relaxed).max(1);
        share.min(RUN_BYTES_MAX)
    }

    /// The place of a run that is written while the store collects the next: the shares of all fall.
    pub(super) fn another(&self) -> RunPlace {
        self.0.0.runs.fetch_add(1, Ordering::Relaxed);
        RunPlace(self.0.clone())
    }
}

impl Drop for RunPlace {
    fn drop(&mut self) {
        self.0.0.runs.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Stores that take a share, until it is dropped.
#[derive(Debug)]
pub(super) struct Registration {
    pub(super) memory: StateMemory,
    stores: usize,
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.memory.0.stores.fetch_sub(self.stores, Ordering::Relaxed);
    }
}
