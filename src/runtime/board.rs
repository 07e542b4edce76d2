//! What the threads of a client and its user tell each other: figures one way, wishes the other.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::lags::Lags;
use super::metadata::{ThreadMetadata, Whereabouts};

/// One for the life of a client.
#[derive(Default)]
pub(super) struct Board {
    processed: AtomicU64,
    pub lags: Arc<Lags>,
    pub whereabouts: Whereabouts,
    threads: Mutex<BTreeMap<usize, ThreadMetadata>>,
    workers: AtomicU32,
    is_paused: AtomicBool,
    is_impaired: AtomicBool,
    shuts_down: AtomicBool,
}

// Relaxed everywhere: each is a figure by itself, which orders nothing.
impl Board {
    pub(super) fn add_processed(&self, records: usize) {
        self.processed.fetch_add(records as u64, Ordering::Relaxed);
    }

    pub(super) fn processed(&self) -> u64 {
        self.processed.load(Ordering::Relaxed)
    }

    /// How many stream threads the group counts on.
    pub(super) fn workers(&self) -> u32 {
        self.workers.load(Ordering::Relaxed)
    }

    pub(super) fn set_workers(&self, workers: usize) {
        self.workers.store(u32::try_from(workers).unwrap_or(u32::MAX), Ordering::Relaxed);
    }

    pub(super) fn is_paused(&self) -> bool {
        self.is_paused.load(Ordering::Relaxed)
    }

    pub(super) fn set_paused(&self, is_paused: bool) {
        self.is_paused.store(is_paused, Ordering::Relaxed);
    }

    /// Whether a stream thread does not come back.
    pub(super) fn is_impaired(&self) -> bool {
        self.is_impaired.load(Ordering::Relaxed)
    }

    pub(super) fn set_impaired(&self, is_impaired: bool) {
        self.is_impaired.store(is_impaired, Ordering::Relaxed);
    }

    /// Whether all instances are to end.
    pub(super) fn shuts_down(&self) -> bool {
        self.shuts_down.load(Ordering::Relaxed)
    }

    pub(super) fn set_shuts_down(&self) {
        self.shuts_down.store(true, Ordering::Relaxed);
    }

    pub(super) fn threads(&self) -> MutexGuard<'_, BTreeMap<usize, ThreadMetadata>> {
        // Every change is one insertion: a panic leaves nothing half done.
        self.threads.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
