//! The disk of a process in simulations: what its stores have written, and what of it a crash leaves.
//!
//! ```text
//!   a store applies batches:     1 ── 2 ── 3 ── 4        each a version: all rows, and the offset that goes with them
//!                                     |         |
//!                                  flushed     open       a crash leaves one of 2, 3 and 4, of each store another one
//! ```
//!
//! That is what RocksDB without a log of its own leaves: of each column family a prefix of the batches, at least what was
//! flushed. Closing flushes. The disk of the process at work is mounted for the thread, which does the work of all.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::memory::MemoryEngine;
use super::meta::{ChangelogIdentity, Meta};
use super::open::StoreToOpen;
use super::restore_plan::StoreCondition;
use crate::error::{Error, ErrorKind, Result};

thread_local! {
    static MOUNTED: RefCell<Option<SimulatedDisk>> = const { RefCell::new(None) };
}

#[derive(Debug, Clone, Default)]
pub(crate) struct SimulatedDisk(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    files: BTreeMap<Name, Versions>,
    /// What was opened before the last crash writes nothing any more.
    boots: u64,
    is_full: bool,
    flaw: Option<DiskFlaw>,
}

/// The folder of a task, and a store.
type Name = (String, Arc<str>);

#[derive(Debug, Default)]
struct Versions {
    /// From the one that is flushed on.
    since_flush: Vec<Version>,
    is_open: bool,
    /// Counts what was written.
    changes: u64,
}

/// All that a store holds at a time.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Version {
    pub rows: BTreeMap<Vec<u8>, Vec<u8>>,
    /// The next changelog offset that is needed; none: there is nothing.
    pub next_offset: Option<i64>,
    meta: Option<Meta>,
}

/// What would be wrong with a disk, or with how a store uses it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DiskFlaw {
    /// The offset is not in the same batch as the rows: it may outlive them.
    OffsetAhead,
    /// A store does not say when it was written, so nobody knows for how long it has not been used.
    NoTime,
}

/// A store, as it is now.
#[derive(Debug, Clone)]
pub(crate) struct StoreOnDisk {
    /// As `0_1`.
    pub task: String,
    pub store: Arc<str>,
    pub changes: u64,
}

impl SimulatedDisk {
    pub(crate) fn new(flaw: Option<DiskFlaw>) -> SimulatedDisk {
        SimulatedDisk(Arc::new(Mutex::new(State { flaw, ..State::default() })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What this thread opens until the guard is dropped lies on this disk.
    pub(crate) fn mount(&self) -> Mounted {
        Mounted { before: MOUNTED.replace(Some(self.clone())) }
    }

    /// The process is gone at once; `below` chooses what is left of what was not flushed.
    pub(crate) fn crash(&self, mut below: impl FnMut(u64) -> u64) {
        let mut state = self.state();
        state.boots += 1;
        let flaw = state.flaw;
        for versions in state.files.values_mut() {
            versions.is_open = false;
            versions.changes += 1;
            let left = usize::try_from(below(versions.since_flush.len() as u64)).unwrap_or(0);
            let last = versions.since_flush.last().cloned().unwrap_or_default();
            let mut kept = versions.since_flush.get(left).cloned().unwrap_or_default();
            if flaw == Some(DiskFlaw::OffsetAhead) {
                (kept.meta, kept.next_offset) = (last.meta, last.next_offset);
            }
            versions.since_flush = vec![kept];
        }
    }

    /// What was written so far outlives a crash.
    pub(crate) fn flush(&self) {
        let mut state = self.state();
        if !state.is_full {
            state.files.values_mut().for_each(Versions::flush);
        }
    }

    /// Nothing can be written while it is full.
    pub(crate) fn set_full(&self, is_full: bool) {
        self.state().is_full = is_full;
    }

    pub(crate) fn stores(&self) -> Vec<StoreOnDisk> {
        let state = self.state();
        let store = |((task, store), versions): (&Name, &Versions)| StoreOnDisk {
            task: task.clone(),
            store: Arc::clone(store),
            changes: versions.changes,
        };
        state.files.iter().map(store).collect()
    }

    pub(crate) fn version(&self, store: &StoreOnDisk) -> Version {
        let name = (store.task.clone(), Arc::clone(&store.store));
        self.state().files.get(&name).and_then(|versions| versions.since_flush.last()).cloned().unwrap_or_default()
    }
}

impl Versions {
    fn flush(&mut self) {
        self.since_flush.drain(..self.since_flush.len().saturating_sub(1));
    }
}

/// While it is there, a disk is mounted in the place of another one.
#[derive(Debug)]
pub(crate) struct Mounted {
    before: Option<SimulatedDisk>,
}

impl Drop for Mounted {
    fn drop(&mut self) {
        MOUNTED.set(self.before.take());
    }
}

/// A store on the disk that is mounted; none without one, and for stores that hold more than rows and a time.
///
/// # Errors
/// `Unavailable` when it is open already.
pub(super) fn open(folder: &str, store: &StoreToOpen) -> Result<Option<(super::engine::Engine, StoreCondition)>> {
    let Some(disk) = MOUNTED.with_borrow(Clone::clone) else { return Ok(None) };
    if !store.spec.kind.is_key_value() && store.spec.kind.windowed().is_none() {
        return Ok(None);
    }
    let name = (folder.to_owned(), Arc::clone(&store.spec.name));
    let mut state = disk.state();
    let boot = state.boots;
    let versions = state.files.entry(name.clone()).or_default();
    if std::mem::replace(&mut versions.is_open, true) {
        let context =
            format!("could not open the state of task {folder}: it is open in another thread of this process");
        return Err(Error::new(ErrorKind::Unavailable, context));
    }
    if versions.since_flush.is_empty() {
        versions.since_flush.push(Version::default());
    }
    let found = versions.since_flush.last().cloned().unwrap_or_default();
    drop(state);
    let mut memory = MemoryEngine::default();
    memory.apply(found.rows.iter().map(|(key, row)| (&key[..], Some(&row[..]))));
    memory.offset = found.next_offset;
    let stream_time = found.meta.as_ref().map_or(-1, |meta| meta.stream_time);
    memory.file = Some(File { disk, name, boot, changelog: store.changelog.clone(), stream_time });
    let condition = found.meta.map_or(StoreCondition::Empty, StoreCondition::Known);
    Ok(Some((super::engine::Engine::Memory(memory), condition)))
}

/// Where a store is written to.
pub(super) struct File {
    disk: SimulatedDisk,
    name: Name,
    boot: u64,
    changelog: Option<ChangelogIdentity>,
    /// What the last version has.
    stream_time: i64,
}

impl File {
    pub(super) fn stream_time(&self) -> i64 {
        self.stream_time
    }

    /// # Errors
    /// `Unavailable` when nothing can be written.
    pub(super) fn check(&self) -> Result<()> {
        if self.disk.state().is_full {
            let (task, store) = &self.name;
            let context = format!("could not write to store {store} of task {task}: look for a full disk");
            return Err(Error::new(ErrorKind::Unavailable, context));
        }
        Ok(())
    }

    /// Writes all rows, with the offset that they are at, and the largest time that was put if it is another one.
    pub(super) fn write(
        &mut self,
        rows: BTreeMap<Vec<u8>, Vec<u8>>,
        (next_offset, stream_time): (Option<i64>, Option<i64>),
        now_ms: i64,
    ) {
        self.stream_time = stream_time.unwrap_or(self.stream_time);
        let stream_time = self.stream_time;
        let mut state = self.disk.state();
        if state.boots != self.boot {
            return;
        }
        let wall_clock_ms = if state.flaw == Some(DiskFlaw::NoTime) { 0 } else { now_ms };
        let Some(versions) = state.files.get_mut(&self.name) else { return };
        let meta = Meta { changelog: self.changelog.clone(), next_offset, wall_clock_ms, stream_time };
        let meta = next_offset.map(|_| meta);
        versions.since_flush.push(Version { rows, next_offset, meta });
        versions.changes += 1;
    }
}

impl fmt::Debug for File {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("File").field(&self.name).finish()
    }
}

/// Closing flushes, if there is room.
impl Drop for File {
    fn drop(&mut self) {
        let mut state = self.disk.state();
        if state.boots != self.boot {
            return;
        }
        let is_full = state.is_full;
        let Some(versions) = state.files.get_mut(&self.name) else { return };
        versions.is_open = false;
        if is_full {
            versions.since_flush.truncate(1);
            versions.changes += 1;
        } else {
            versions.flush();
        }
    }
}
