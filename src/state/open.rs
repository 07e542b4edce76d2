//! Opening the stores of a task where the last run has left them, and what has to be read before they may be used.

use std::ops::Bound;
use std::sync::Arc;

use super::as_of::AsOf;
use super::cache::CacheBudget;
use super::directory::{StateDirectory, TaskDirectory};
use super::engine::Engine;
use super::meta::ChangelogIdentity;
use super::one_store::Store;
use super::restore_plan::{LogState, Reason, RestorePlan, StoreCondition, plan};
#[cfg(feature = "rocksdb")]
use super::rocksdb as disk;
use super::spec::StoreSpec;
use super::state_memory::StateMemory;
use super::task_stores::{Backing, TaskStores};
use crate::error::{Error, ErrorKind, Result};
use crate::topology::TaskId;

/// Rows read at once in search of the last number.
const SEQUENCE_PAGE: usize = 1024;

/// A store of a task, and what backs it there.
#[derive(Debug, Clone)]
pub(crate) struct StoreToOpen {
    pub spec: Arc<StoreSpec>,
    /// None: the store has no changelog.
    pub changelog: Option<ChangelogIdentity>,
}

/// What the stores of all tasks of a thread share.
#[derive(Debug, Clone)]
pub(crate) struct StateHome {
    /// None: no store is on disk.
    pub directory: Option<StateDirectory>,
    pub memory: StateMemory,
    pub cache: CacheBudget,
}

impl TaskStores {
    /// Opens the stores of a task. Damaged ones are set aside, and are empty then.
    ///
    /// # Errors
    /// `Unavailable` when the folder or the database cannot be opened now, as with a full disk or too few file
    /// descriptors: the state is well, and trying again or ending the process keeps it.
    pub(crate) fn open(home: &StateHome, task: TaskId, stores: &[StoreToOpen], now_ms: i64) -> Result<TaskStores> {
        TaskStores::open_in(home, &task.to_string(), stores, now_ms)
    }

    /// Opens global stores for their writer, each fed by the partitions of a topic, which stands in for their changelog.
    /// Returns with them the next offset of each partition; a store that belongs to another topic is emptied.
    ///
    /// # Errors
    /// As [`open`](TaskStores::open).
    pub(crate) fn open_global(
        home: &StateHome,
        folder: &str,
        stores: &[StoreToOpen],
        now_ms: i64,
    ) -> Result<(TaskStores, Vec<(i32, i64)>)> {
        let mut opened = TaskStores::open_in(home, folder, stores, now_ms)?;
        let mut positions = Vec::new();
        for index in 0..opened.stores.len() {
            let store = opened.stores.get(index).ok_or_else(no_changelog)?;
            let is_known = match (&store.condition, &store.changelog) {
                (StoreCondition::Known(meta), Some(now)) => {
                    meta.changelog.as_ref().is_some_and(|stored| stored.is_same(now))
                }
                (StoreCondition::Empty, _) => continue,
                _ => false,
            };
            if is_known {
                positions.extend(store.engine.positions()?);
                opened.find_last_sequence(index)?;
            } else {
                tracing::warn!(store = &*store.spec.name, "a global store belongs to another topic: it is read anew");
                opened.wipe(index)?;
            }
        }
        opened.share();
        Ok((opened, positions))
    }

    /// Rows of one key and time must not be given numbers again: a global store has no changelog's offset to begin behind.
    fn find_last_sequence(&mut self, index: usize) -> Result<()> {
        let Some(store) = self.stores.get_mut(index).filter(|store| store.spec.kind.retains_duplicates()) else {
            return Ok(());
        };
        store.retention.iter_mut().for_each(|retention| retention.show_expired(true));
        let (mut from, mut last) = (Bound::Unbounded, 0);
        loop {
            let rows = store.page(from.as_ref().map(Vec::as_slice), Bound::Unbounded, false, SEQUENCE_PAGE)?;
            let keys = store.retention.as_ref().map(|retention| retention.keys);
            let given = rows.iter().filter_map(|(row, _)| keys?.decode(row).map(|parts| parts.tail));
            last = given.max().map_or(last, |given| last.max(given));
            match rows.into_iter().last() {
                Some((row, _)) => from = Bound::Excluded(row),
                None => break,
            }
        }
        store.retention.iter_mut().for_each(|retention| retention.show_expired(false));
        store.sequence = u32::try_from(last).ok();
        store.committed_sequence = store.sequence;
        Ok(())
    }

    fn open_in(home: &StateHome, folder: &str, stores: &[StoreToOpen], now_ms: i64) -> Result<TaskStores> {
        home.memory.set_now(now_ms);
        let registration = home.memory.register(stores.len());
        let mut backing = Backing { memory: Some(registration), ..Backing::default() };
        let on_disk = |store: &&StoreToOpen| store.spec.is_on_disk();
        let specs: Vec<Arc<StoreSpec>> = stores.iter().filter(on_disk).map(|store| Arc::clone(&store.spec)).collect();
        if !specs.is_empty() {
            let directory = home.directory.as_ref().ok_or_else(no_directory)?;
            backing.open(&specs, &home.memory, directory.claim(folder, now_ms)?, now_ms)?;
        }
        let opened = stores.iter().map(|store| {
            let family = specs.iter().position(|spec| spec.name == store.spec.name);
            #[cfg(all(test, feature = "testing"))]
            let simulated = super::simulated_disk::open(folder, store)?;
            #[cfg(not(all(test, feature = "testing")))]
            let simulated = None;
            let (engine, condition) = simulated.map_or_else(|| backing.engine(store, family), Ok)?;
            let mut store = Store::new(&store.spec, store.changelog.clone(), engine, &home.cache);
            store.condition = condition;
            Ok(store)
        });
        let opened = opened.collect::<Result<Vec<_>>>()?;
        Ok(TaskStores::new(opened, home.cache.clone(), backing))
    }

    /// How a store was found.
    #[cfg(all(test, feature = "rocksdb"))]
    pub(crate) fn condition(&self, index: usize) -> Option<&StoreCondition> {
        self.stores.get(index).map(|store| &store.condition)
    }

    /// Applies the startup table to a store, which is emptied where it has to begin again: the changelog offset to read
    /// from. To be called before the first `restore`.
    ///
    /// # Errors
    /// A store that cannot be emptied, or that has no changelog.
    pub(crate) fn begin_restore(&mut self, index: usize, log: &LogState, now_ms: i64) -> Result<i64> {
        let store = self.stores.get_mut(index).ok_or_else(no_changelog)?;
        let changelog = store.changelog.as_ref().ok_or_else(no_changelog)?;
        match plan(&store.condition, changelog, log, now_ms) {
            RestorePlan::Resume { from } => {
                if let StoreCondition::Known(meta) = &store.condition {
                    store.as_of = AsOf::at(meta.wall_clock_ms);
                }
                Ok(from)
            }
            RestorePlan::FromScratch { from, reason } => {
                if reason != Reason::Empty {
                    let (store, topic) = (&*store.spec.name, &*changelog.topic);
                    let partition = changelog.partition;
                    tracing::warn!(store, topic, partition, %reason, "a store is restored from the start of its changelog");
                }
                self.wipe_at(index, now_ms)?;
                Ok(from)
            }
        }
    }

    /// The same for a store that was open all the time, while others may have written its changelog.
    ///
    /// # Errors
    /// As [`begin_restore`](TaskStores::begin_restore).
    pub(crate) fn go_on_restore(&mut self, index: usize, log: &LogState, now_ms: i64) -> Result<i64> {
        let store = self.stores.get_mut(index).ok_or_else(no_changelog)?;
        let known = store.engine.offset().filter(|stored| (log.start..=log.end).contains(stored));
        match known.filter(|stored| *stored == log.end || !store.is_outdated(log.delete_retention_ms, now_ms)) {
            Some(stored) => Ok(stored),
            None => {
                self.wipe_at(index, now_ms)?;
                Ok(log.start)
            }
        }
    }

    /// Whether a store that has not come to the end of its changelog for so long may have missed deletions.
    pub(crate) fn is_outdated(&self, index: usize, delete_retention_ms: Option<i64>, now_ms: i64) -> bool {
        self.stores.get(index).is_some_and(|store| store.is_outdated(delete_retention_ms, now_ms))
    }

    fn wipe_at(&mut self, index: usize, now_ms: i64) -> Result<()> {
        self.wipe(index)?;
        // What is read from the start on misses no deletion that is kept from now on.
        self.stores.iter_mut().skip(index).take(1).for_each(|store| store.as_of = AsOf::at(now_ms));
        Ok(())
    }

    /// Forgets everything that all stores hold.
    pub(crate) fn wipe_all(&mut self) -> Result<()> {
        (0..self.stores.len()).try_for_each(|index| self.wipe(index))
    }

    /// Forgets everything that a store holds.
    pub(crate) fn wipe(&mut self, index: usize) -> Result<()> {
        self.stores.get_mut(index).ok_or_else(no_changelog)?.wipe()
    }

    /// The changelog offset that a store would be found at after a crash; none: it would be empty.
    #[cfg(all(test, feature = "rocksdb"))]
    pub(crate) fn durable_offset(&self, index: usize) -> Result<Option<i64>> {
        self.stores.get(index).map_or(Ok(None), |store| store.engine.durable_offset())
    }

    /// Writes committed rows to disk and closes. What is not committed is forgotten.
    ///
    /// Dropping the stores does the same, without saying whether it worked.
    ///
    /// # Errors
    /// `Unavailable` when they cannot be written: the changelog has them, and the next start reads them from there.
    pub(crate) fn close(self) -> Result<()> {
        #[cfg(feature = "rocksdb")]
        if let Some(database) = &self.backing.database {
            database.flush_all()?;
        }
        drop(self);
        Ok(())
    }
}

/// A store that is open is not read anew for being behind for less than this (ms), though its changelog forget deletions
/// sooner: it would never be done.
const BEHIND_MS_MIN: i64 = 2_000;

impl Store {
    fn is_outdated(&self, delete_retention_ms: Option<i64>, now_ms: i64) -> bool {
        delete_retention_ms.is_some_and(|kept| self.as_of.is_older_than(kept.max(BEHIND_MS_MIN), now_ms))
    }
}

impl Backing {
    #[cfg(feature = "rocksdb")]
    fn open(&mut self, specs: &[Arc<StoreSpec>], memory: &StateMemory, task: TaskDirectory, now_ms: i64) -> Result<()> {
        let open =
            |task: &TaskDirectory| disk::Database::open(&task.database(), specs, memory.shared(), task.damage_mark());
        let opened = match open(&task) {
            Err(disk::OpenError::Damaged(error)) => {
                task.set_aside(&error.report(), now_ms)?;
                task.create()?;
                open(&task)
            }
            opened => opened,
        };
        let database =
            opened.map_err(|(disk::OpenError::Damaged(error) | disk::OpenError::Unavailable(error))| error)?;
        let database = Arc::new(database);
        memory.add(&database);
        self.database = Some(database);
        self.directory = Some(task);
        Ok(())
    }

    #[cfg(not(feature = "rocksdb"))]
    fn open(&mut self, _: &[Arc<StoreSpec>], _: &StateMemory, task: TaskDirectory, _: i64) -> Result<()> {
        self.directory = Some(task);
        Ok(())
    }

    fn engine(&self, store: &StoreToOpen, family: Option<usize>) -> Result<(Engine, StoreCondition)> {
        #[cfg(feature = "rocksdb")]
        if let (Some(database), Some(family)) = (&self.database, family) {
            let (name, layout) = (&store.spec.name, store.spec.layout());
            let (family, condition) = disk::Family::open(database, family, name, layout, store.changelog.clone())?;
            return Ok((Engine::RocksDb(family), condition));
        }
        let _ = family;
        Ok((Engine::off_disk(&store.spec), StoreCondition::Empty))
    }
}

#[cold]
fn no_directory() -> Error {
    Error::new(ErrorKind::Internal, "a store on disk was opened without a state directory")
}

#[cold]
fn no_changelog() -> Error {
    Error::new(ErrorKind::Internal, "a store without a changelog cannot be restored")
}
