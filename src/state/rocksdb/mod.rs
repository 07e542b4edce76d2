//! Stores on disk: one RocksDB per task, one column family per store.
//!
//! ```text
//!   column family = store
//!     0x00 | p 4    next offset 8 of the partition p that feeds a global store
//!     0x01 | key    row
//!     0xff          meta record: changelog, next offset, times    (meta.rs)
//! ```
//!
//! The meta record is the last one: in front of buckets of time, every new file would reach from it to the newest bucket,
//! and every compaction would write all of them again.
//!
//! Only committed rows are ever written, with the log of RocksDB off: after a crash a family is at one of its former
//! commits, and its changelog brings the rest.
//!
//! IMPORTANT: the offset goes into the same batch **and the same family** as the rows. RocksDB recovers a prefix of the
//! writes of one family, not of all: in a family of its own the offset was ahead of its rows after one kill in four.

#[cfg(test)]
mod crash_tests;
mod expiry;
#[cfg(test)]
mod expiry_tests;
mod options;
#[cfg(test)]
mod run_tests;
mod runs;
#[cfg(test)]
mod tests;

use std::fmt;
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use rocksdb::{
    BoundColumnFamily, ColumnFamilyDescriptor, DBWithThreadMode, MultiThreaded, Options, ReadOptions, ReadTier,
    WriteBatch, WriteOptions,
};

use self::expiry::Horizon;
pub(super) use self::options::Shared;
use self::runs::Loading;
use super::engine::{At, Scan};
use super::merge::Direction;
use super::meta::{ChangelogIdentity, Layout, Meta};
use super::restore_plan::StoreCondition;
use super::retention::Expired;
use super::spec::StoreSpec;
use crate::error::{Error, ErrorKind, Result};

type Db = DBWithThreadMode<MultiThreaded>;

/// Sorts behind all rows.
const META: &[u8] = &[0xff];
/// First byte of the key of every row.
const ROW: u8 = 0x01;
/// Behind every row.
const END: &[u8] = &[0x02];

/// The database of one task.
pub(super) struct Database {
    db: Db,
    path: PathBuf,
    families: Vec<Activity>,
    /// Where a mark is left when damage is met while running: the next open would succeed.
    damage_mark: PathBuf,
}

/// What the flush policy knows about a family.
struct Activity {
    name: Arc<str>,
    /// When the oldest row that is not on disk was written, in ms; `CLEAN`: all are.
    dirty_since_ms: AtomicI64,
    /// What may be dropped from it; none: its rows are kept.
    horizon: Option<Arc<Horizon>>,
    loading: Loading,
    /// The database has a bare pointer to the filter in them, also for a family that is made while it is open.
    /// IMPORTANT: they must outlive it, so they stand behind it in [`Database`].
    options: Options,
}

const CLEAN: i64 = i64::MAX;

/// Why a database was not opened.
pub(super) enum OpenError {
    /// Its files are damaged: it has to be set aside.
    Damaged(Error),
    /// Its files are well, as far as is known.
    Unavailable(Error),
}

impl Database {
    /// Opens or creates the database with every family that it holds, and those of the stores.
    pub(super) fn open(
        path: &Path,
        stores: &[Arc<StoreSpec>],
        shared: &Shared,
        damage_mark: PathBuf,
    ) -> Result<Database, OpenError> {
        let (options, family_options) = (options::database(shared), options::family(shared));
        let activity = |store: &Arc<StoreSpec>| {
            let mut options = family_options.clone();
            let horizon = store.kind.expires().then(|| Arc::new(Horizon::new()));
            if let Some(horizon) = &horizon {
                expiry::drop_expired(&mut options, horizon);
            }
            let (name, dirty_since_ms) = (Arc::clone(&store.name), AtomicI64::new(CLEAN));
            Activity { name, dirty_since_ms, horizon, loading: Loading::default(), options }
        };
        let activities: Vec<Activity> = stores.iter().map(activity).collect();
        let existed = path.join("CURRENT").exists();
        let mut names = if existed { Db::list_cf(&options, path).unwrap_or_default() } else { Vec::new() };
        names.extend(stores.iter().map(|store| family_name(&store.name)));
        names.push("default".into());
        names.sort();
        names.dedup();
        let families = names.into_iter().map(|name| {
            let activity = activities.iter().find(|activity| family_name(&activity.name) == name);
            let options = activity.map_or(&family_options, |activity| &activity.options);
            ColumnFamilyDescriptor::new(name, options.clone())
        });
        let opened = Db::open_cf_descriptors(&options, path, families);
        let db = opened.map_err(|error| {
            // Only these two say that files are damaged. Anything else (a lock, no descriptors, no space, read-only) passes.
            let damaged = error.kind() == rocksdb::ErrorKind::Corruption
                || existed && error.as_ref().contains("No such file or directory");
            let wrap = if damaged { OpenError::Damaged } else { OpenError::Unavailable };
            wrap(failed("open", path, error))
        })?;
        runs::remove_left_over(path);
        Ok(Database { db, path: path.into(), families: activities, damage_mark })
    }

    /// Sizes of the memtables that hold something, each with the number of its family.
    pub(super) fn memtables(&self) -> impl Iterator<Item = (usize, u64)> {
        let dirty = |activity: &Activity| activity.dirty_since_ms.load(Ordering::Relaxed) != CLEAN;
        self.families.iter().enumerate().filter(move |(_, activity)| dirty(activity)).filter_map(|(index, activity)| {
            let family = self.family(&activity.name).ok()?;
            let size = self.db.property_int_value_cf(&family, "rocksdb.cur-size-active-mem-table").ok()??;
            Some((index, size))
        })
    }

    /// Begins to flush the families whose oldest row has waited since before `dirty_before_ms`.
    pub(super) fn flush_older(&self, dirty_before_ms: i64) -> Result<()> {
        let old = |activity: &Activity| activity.dirty_since_ms.load(Ordering::Relaxed) < dirty_before_ms;
        let due = self.families.iter().enumerate().filter(|(_, activity)| old(activity));
        due.map(|(index, _)| index).try_for_each(|index| self.flush(index, false))
    }

    pub(super) fn flush(&self, index: usize, wait: bool) -> Result<()> {
        let Some(activity) = self.families.get(index) else { return Ok(()) };
        // First: a row that is written from now on may miss the flush.
        activity.dirty_since_ms.store(CLEAN, Ordering::Relaxed);
        let flushed = self.db.flush_cf_opt(&self.family(&activity.name)?, &options::flush(wait));
        flushed.map_err(|error| self.failed("flush", error))
    }

    /// Flushes everything, and waits for it.
    pub(super) fn flush_all(&self) -> Result<()> {
        (0..self.families.len()).try_for_each(|index| self.flush(index, true))
    }

    fn activity(&self, index: usize) -> Result<&Activity> {
        self.families.get(index).ok_or_else(|| {
            let context = format!("the database in {} has no store {index}", self.path.display());
            Error::new(ErrorKind::Internal, context)
        })
    }

    fn family(&self, name: &str) -> Result<Arc<BoundColumnFamily<'_>>> {
        self.handle(&family_name(name))
    }

    /// By the name that the family of a store has.
    fn handle(&self, family: &str) -> Result<Arc<BoundColumnFamily<'_>>> {
        self.db.cf_handle(family).ok_or_else(|| {
            let context = format!("could not find {family} in {}", self.path.display());
            Error::new(ErrorKind::Internal, context)
        })
    }

    #[cold]
    fn failed(&self, doing: &str, error: rocksdb::Error) -> Error {
        let error = failed(doing, &self.path, error);
        if error.kind() == ErrorKind::Corrupted {
            tracing::error!(database = %self.path.display(), error = error.report(), "a state store is damaged");
            if let Err(error) = std::fs::write(&self.damage_mark, error.report()) {
                tracing::warn!(mark = %self.damage_mark.display(), %error, "could not mark a database as damaged");
            }
        }
        error
    }
}

/// RocksDB has a family of its own called `default`; a store may be called so too.
fn family_name(store: &str) -> String {
    format!("store-{store}")
}

fn failed(doing: &str, path: &Path, error: rocksdb::Error) -> Error {
    let path = path.display();
    #[expect(clippy::wildcard_enum_match_arm, reason = "only damage is told apart; the rest leaves the store healthy")]
    let (kind, remedy) = match error.kind() {
        rocksdb::ErrorKind::Corruption => {
            (ErrorKind::Corrupted, "it will be set aside and restored when the task is opened again")
        }
        _ => (ErrorKind::Unavailable, "look for a full disk, missing permissions or too few file descriptors"),
    };
    Error::new(kind, format!("could not {doing} the state in {path}: {remedy}")).with_source(error)
}

/// The committed rows of one store.
pub(super) struct Family {
    database: Arc<Database>,
    index: usize,
    name: String,
    layout: Layout,
    changelog: Option<ChangelogIdentity>,
    next_offset: Option<i64>,
    stream_time: Option<i64>,
    read: ReadOptions,
    write: WriteOptions,
    /// Scratch: a key with its first byte.
    key: Vec<u8>,
}

impl Family {
    /// The family of a store, and how it was found.
    pub(super) fn open(
        database: &Arc<Database>,
        index: usize,
        name: &str,
        layout: Layout,
        changelog: Option<ChangelogIdentity>,
    ) -> Result<(Family, StoreCondition)> {
        let write = options::write(changelog.is_some());
        let mut family = Family {
            database: Arc::clone(database),
            index,
            name: family_name(name),
            layout,
            changelog,
            next_offset: None,
            stream_time: None,
            read: ReadOptions::default(),
            write,
            key: Vec::new(),
        };
        let condition = match family.meta(ReadTier::All)? {
            Some(Ok(meta)) => StoreCondition::Known(meta),
            Some(Err(why)) => StoreCondition::Unreadable(why),
            None if family.has_rows()? => StoreCondition::Unreadable("it has rows without a meta record"),
            None => StoreCondition::Empty,
        };
        if let StoreCondition::Known(meta) = &condition {
            family.next_offset = meta.next_offset;
            family.stream_time = Some(meta.stream_time).filter(|time| *time >= 0);
        }
        Ok((family, condition))
    }

    pub(super) fn get(&mut self, key: &[u8], row: &mut Vec<u8>) -> Result<bool> {
        prefix(&mut self.key, key);
        let found = self.database.db.get_pinned_cf_opt(&self.handle()?, &self.key, &self.read);
        let found = found.map_err(|error| self.database.failed("read", error))?;
        if let Some(found) = &found {
            row.extend_from_slice(found);
        }
        Ok(found.is_some())
    }

    pub(super) fn scan(
        &self,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
        direction: Direction,
        mut each: impl FnMut(&[u8], &[u8]) -> Scan,
    ) -> Result<()> {
        let mut options = ReadOptions::default();
        options.set_iterate_lower_bound(start_of(from));
        options.set_iterate_upper_bound(end_of(to));
        let mut rows = self.database.db.raw_iterator_cf_opt(&self.handle()?, options);
        match direction {
            Direction::Forward => rows.seek_to_first(),
            Direction::Backward => rows.seek_to_last(),
        }
        while let Some((key, row)) = rows.item() {
            if each(key.get(1..).unwrap_or_default(), row) == Scan::Enough {
                return Ok(());
            }
            match direction {
                Direction::Forward => rows.next(),
                Direction::Backward => rows.prev(),
            }
        }
        // NOTE: an iterator that meets a damaged block just ends.
        rows.status().map_err(|error| self.database.failed("read", error))
    }

    pub(super) fn apply<'a>(
        &mut self,
        rows: impl Iterator<Item = (&'a [u8], Option<&'a [u8]>)>,
        at: At<'_>,
    ) -> Result<()> {
        let mut batch = WriteBatch::default();
        let mut key_bytes = std::mem::take(&mut self.key);
        let family = self.handle()?;
        for (key, row) in rows {
            prefix(&mut key_bytes, key);
            match row {
                Some(row) => batch.put_cf(&family, &key_bytes, row),
                None => batch.delete_cf(&family, &key_bytes),
            }
        }
        for (partition, offset) in at.positions {
            batch.put_cf(&family, position_key(*partition), offset.to_be_bytes());
        }
        let meta = self.meta_at(&at);
        meta.encode(self.layout, &mut key_bytes);
        // IMPORTANT: same batch, same family: see the head of this file.
        batch.put_cf(&family, META, &key_bytes);
        let written = self.database.db.write_opt(batch, &self.write);
        written.map_err(|error| self.database.failed("write", error))?;
        if let Some(activity) = self.database.families.get(self.index) {
            activity.dirty_since_ms.fetch_min(at.now_ms, Ordering::Relaxed);
        }
        drop(family);
        self.key = key_bytes;
        self.moved_to(&meta);
        Ok(())
    }

    /// The meta record that goes with rows.
    fn meta_at(&self, at: &At<'_>) -> Meta {
        let stream_time = at.stream_time.or(self.stream_time).unwrap_or(-1);
        let next_offset = at.next_offset.or(self.next_offset);
        Meta {
            changelog: self.changelog.clone(),
            next_offset,
            wall_clock_ms: at.as_of_ms.unwrap_or(at.now_ms),
            stream_time,
        }
    }

    /// The meta record is written, and with it the rows.
    fn moved_to(&mut self, meta: &Meta) {
        self.next_offset = meta.next_offset;
        self.stream_time = Some(meta.stream_time).filter(|time| *time >= 0);
    }

    /// Clears rows away that no read shows.
    pub(super) fn clear(&mut self, expired: Expired) -> Result<()> {
        let Some(horizon) = self.activity().and_then(|activity| activity.horizon.as_ref()) else { return Ok(()) };
        horizon.set(expired);
        let Expired::Before(first) = expired else { return Ok(()) };
        let end = [&[ROW], &first[..]].concat();
        let dropped = self.database.db.delete_file_in_range_cf(&self.handle()?, vec![ROW], end);
        dropped.map_err(|error| self.database.failed("drop expired files of", error))
    }

    fn activity(&self) -> Option<&Activity> {
        self.database.families.get(self.index)
    }

    /// Another handle to the same rows.
    pub(super) fn reader(&self) -> Family {
        Family {
            database: Arc::clone(&self.database),
            index: self.index,
            name: self.name.clone(),
            layout: self.layout,
            changelog: self.changelog.clone(),
            next_offset: self.next_offset,
            stream_time: self.stream_time,
            read: ReadOptions::default(),
            write: options::write(true),
            key: Vec::new(),
        }
    }

    /// The next offset of each partition that feeds the store.
    pub(super) fn positions(&self) -> Result<Vec<(i32, i64)>> {
        let mut options = ReadOptions::default();
        options.set_iterate_lower_bound(position_key(0).to_vec());
        options.set_iterate_upper_bound(vec![ROW]);
        let mut rows = self.database.db.raw_iterator_cf_opt(&self.handle()?, options);
        rows.seek_to_first();
        let mut positions = Vec::new();
        while let Some((key, offset)) = rows.item() {
            if let (Some(partition), Some(offset)) = (key.get(1..).and_then(<[u8]>::first_chunk), offset.first_chunk())
            {
                positions.push((i32::from_be_bytes(*partition), i64::from_be_bytes(*offset)));
            }
            rows.next();
        }
        rows.status().map_err(|error| self.database.failed("read", error))?;
        Ok(positions)
    }

    /// Forgets all rows.
    pub(super) fn wipe(&mut self) -> Result<()> {
        let Database { db, .. } = &*self.database;
        let activity = self.database.activity(self.index)?;
        if let Some(horizon) = &activity.horizon {
            horizon.reset();
        }
        activity.loading.forget();
        let wiped = db.drop_cf(&self.name).and_then(|()| db.create_cf(&self.name, &activity.options));
        (self.next_offset, self.stream_time) = (None, None);
        wiped.map_err(|error| self.database.failed("empty", error))
    }

    pub(super) fn offset(&self) -> Option<i64> {
        self.next_offset
    }

    pub(super) fn stream_time(&self) -> Option<i64> {
        self.stream_time
    }

    /// The same as it would be found after a crash.
    pub(super) fn durable_stream_time(&self) -> Result<i64> {
        let tier = if self.changelog.is_some() { ReadTier::Persisted } else { ReadTier::All };
        Ok(self.meta(tier)?.and_then(Result::ok).map_or(-1, |meta| meta.stream_time))
    }

    /// The offset that would be found after a crash.
    #[cfg(test)]
    pub(super) fn durable_offset(&self) -> Result<Option<i64>> {
        Ok(self.meta(ReadTier::Persisted)?.and_then(Result::ok).and_then(|meta| meta.next_offset))
    }

    pub(super) fn approximate_len(&self) -> u64 {
        let Ok(family) = self.handle() else { return 0 };
        let len = self.database.db.property_int_value_cf(&family, "rocksdb.estimate-num-keys");
        // The meta record is one of them, and counted once per memtable and file it is in.
        len.ok().flatten().unwrap_or(0).saturating_sub(1)
    }

    /// Bytes of its files.
    pub(super) fn disk_bytes(&self) -> u64 {
        let Ok(family) = self.handle() else { return 0 };
        let bytes = self.database.db.property_int_value_cf(&family, "rocksdb.total-sst-files-size");
        bytes.ok().flatten().unwrap_or(0)
    }

    fn meta(&self, tier: ReadTier) -> Result<Option<Result<Meta, &'static str>>> {
        let mut options = ReadOptions::default();
        options.set_read_tier(tier);
        let found = self.database.db.get_pinned_cf_opt(&self.handle()?, META, &options);
        let found = found.map_err(|error| self.database.failed("read", error))?;
        Ok(found.map(|bytes| Meta::decode(&bytes, self.layout)))
    }

    fn has_rows(&self) -> Result<bool> {
        let mut any = false;
        self.scan(Bound::Unbounded, Bound::Unbounded, Direction::Forward, |_, _| {
            any = true;
            Scan::Enough
        })?;
        Ok(any)
    }

    fn handle(&self) -> Result<Arc<BoundColumnFamily<'_>>> {
        self.database.handle(&self.name)
    }
}

impl fmt::Debug for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Family")
            .field("name", &self.name)
            .field("next_offset", &self.next_offset)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Database").field("path", &self.path).finish_non_exhaustive()
    }
}

/// Sorts before all rows.
fn position_key(partition: i32) -> [u8; 5] {
    let [a, b, c, d] = partition.to_be_bytes();
    [0x00, a, b, c, d]
}

fn prefix(bytes: &mut Vec<u8>, key: &[u8]) {
    bytes.clear();
    bytes.push(ROW);
    bytes.extend_from_slice(key);
}

/// RocksDB's lower bounds are included, its upper ones are not.
fn start_of(from: Bound<&[u8]>) -> Vec<u8> {
    match from {
        Bound::Included(key) => [&[ROW], key].concat(),
        Bound::Excluded(key) => [&[ROW], key, &[0]].concat(),
        Bound::Unbounded => vec![ROW],
    }
}

fn end_of(to: Bound<&[u8]>) -> Vec<u8> {
    match to {
        Bound::Included(key) => [&[ROW], key, &[0]].concat(),
        Bound::Excluded(key) => [&[ROW], key].concat(),
        Bound::Unbounded => END.to_vec(),
    }
}
