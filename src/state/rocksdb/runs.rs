//! Large stores are filled with files of their own instead of through memtables.
//!
//! ```text
//!   rows, sorted ──> FOLDER.run-N: rows | meta record with the offset behind them ──> ingested: one edit of the manifest
//! ```
//!
//! Compaction waits until the last run is there: else it merges the first ones again and again.
//!
//! The file is written and taken over on any thread, one run of a family at a time; the family hears of it afterwards.
//!
//! IMPORTANT: the meta record is in the same file as its rows. It also makes every file overlap the one before it and what is
//! in the memtable, so that no file is ever found without those that came before it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use rocksdb::{BoundColumnFamily, IngestExternalFileOptions, Options, SstFileWriter};

use super::{Activity, Database, Family, META, prefix};
use crate::error::Result;
use crate::state::engine::At;
use crate::state::meta::{Layout, Meta};

/// How often a file is offered again that RocksDB could not take beside a flush.
const TRIES_MAX: usize = 10;

/// Files in the first level from which on RocksDB makes writers wait, by default.
const LEVEL0_FILES_MAX: u64 = 20;

/// What was set aside for runs. Only the owner of the family begins; the flush policy ends it from another thread, and
/// RocksDB orders the changes of options itself: `Relaxed` will do.
#[derive(Debug, Default)]
pub(super) struct Loading(AtomicU8);

const NO: u8 = 0;
/// There is no compaction.
const LOADS: u8 = 1;
/// There are more files than writers would be let pass for, and compaction takes them away.
const SETTLES: u8 = 2;

impl Loading {
    /// The family is made anew.
    pub(super) fn forget(&self) {
        self.0.store(NO, Ordering::Relaxed);
    }
}

impl Database {
    /// Puts the limits of families back that have been loaded, as far as compaction has come.
    pub(in crate::state) fn settle(&self) -> Result<()> {
        let settling = |activity: &&Activity| activity.loading.0.load(Ordering::Relaxed) == SETTLES;
        for activity in self.families.iter().filter(settling) {
            // One that is just being emptied has its limits from the start.
            let Ok(family) = self.family(&activity.name) else { continue };
            let files = self.db.property_int_value_cf(&family, "rocksdb.num-files-at-level0");
            if files.ok().flatten().is_none_or(|files| files >= LEVEL0_FILES_MAX) {
                continue;
            }
            // First: a run that begins now lifts the limits again.
            let change = activity.loading.0.compare_exchange(SETTLES, NO, Ordering::Relaxed, Ordering::Relaxed);
            if change.is_ok() {
                let limits = [("level0_slowdown_writes_trigger", "20"), ("level0_stop_writes_trigger", "36")];
                let set = self.db.set_options_cf(&family, &limits);
                set.map_err(|error| self.failed("set options of", error))?;
            }
        }
        Ok(())
    }
}

#[cfg(feature = "testing")]
impl Database {
    /// Flushes everything and waits until there is nothing to compact.
    pub(in crate::state) fn wait_until_compacted(&self) -> Result<()> {
        self.flush_all()?;
        let waited = self.db.wait_for_compact(&rocksdb::WaitForCompactOptions::default());
        waited.map_err(|error| self.failed("compact", error))
    }
}

/// A run of one family that is to be written.
pub(in crate::state) struct RunFile {
    database: Arc<Database>,
    /// The family.
    index: usize,
    name: String,
    layout: Layout,
    meta: Meta,
    /// There is nothing that a deletion could delete.
    is_first: bool,
}

impl Family {
    /// Writes rows, in the order of their keys and each key once, as one file that the database takes over.
    pub(in crate::state) fn take_run<'a>(
        &mut self,
        rows: impl Iterator<Item = (&'a [u8], Option<&'a [u8]>)>,
        at: At<'_>,
    ) -> Result<()> {
        let run = self.begin_run(at)?;
        run.write(rows)?;
        self.moved_to(&run.meta);
        Ok(())
    }

    /// A run that may be written on another thread. Until [`has_run`](Family::has_run) the family is where it was.
    pub(in crate::state) fn begin_run(&self, at: At<'_>) -> Result<RunFile> {
        Ok(RunFile {
            database: Arc::clone(&self.database),
            index: self.index,
            name: self.name.clone(),
            layout: self.layout,
            meta: self.meta_at(&at),
            is_first: self.next_offset.is_none() && !self.has_rows()?,
        })
    }

    /// A run with this place was written.
    pub(in crate::state) fn has_run(&mut self, at: At<'_>) {
        self.moved_to(&self.meta_at(&at));
    }

    /// The last run is there: compaction goes on, and writers do not wait for it.
    pub(in crate::state) fn end_runs(&self) -> Result<()> {
        let loading = &self.database.activity(self.index)?.loading;
        if loading.0.compare_exchange(LOADS, SETTLES, Ordering::Relaxed, Ordering::Relaxed).is_err() {
            return Ok(());
        }
        let limits = [
            ("level0_slowdown_writes_trigger", "100000"),
            ("level0_stop_writes_trigger", "100000"),
            ("disable_auto_compactions", "false"),
        ];
        let set = self.database.db.set_options_cf(&self.handle()?, &limits);
        set.map_err(|error| self.database.failed("set options of", error))
    }
}

impl RunFile {
    /// Writes rows, in the order of their keys and each key once, and gives the file to the database.
    pub(in crate::state) fn write<'a>(&self, rows: impl Iterator<Item = (&'a [u8], Option<&'a [u8]>)>) -> Result<()> {
        self.begin_loading()?;
        let path = run_path(&self.database.path, self.index);
        let options = &self.database.activity(self.index)?.options;
        let written = self.write_file(&path, options, rows);
        let written = written.map_err(|error| self.database.failed("write a run of rows to", error));
        if let Err(error) = written.and_then(|()| self.ingest(&path)) {
            remove(&path);
            return Err(error);
        }
        Ok(())
    }

    fn write_file<'a>(
        &self,
        path: &Path,
        options: &Options,
        rows: impl Iterator<Item = (&'a [u8], Option<&'a [u8]>)>,
    ) -> Result<(), rocksdb::Error> {
        let mut key = Vec::new();
        let mut file = SstFileWriter::create(options);
        file.open(path)?;
        for (row_key, row) in rows {
            prefix(&mut key, row_key);
            match row {
                Some(row) => file.put(&*key, row)?,
                None if self.is_first => {}
                None => file.delete(&*key)?,
            }
        }
        self.meta.encode(self.layout, &mut key);
        file.put(META, &*key)?;
        file.finish()
    }

    fn ingest(&self, path: &Path) -> Result<()> {
        let mut options = IngestExternalFileOptions::default();
        options.set_move_files(true);
        let mut tries = 0;
        loop {
            let taken = self.database.db.ingest_external_file_cf_opts(&self.handle()?, &options, vec![path]);
            match taken {
                // Seen once in some thousand calls, when the memtable was just being flushed.
                Err(error) if error.kind() == rocksdb::ErrorKind::TryAgain && tries < TRIES_MAX => {
                    tries += 1;
                    self.database.flush(self.index, true)?;
                }
                taken => return taken.map_err(|error| self.database.failed("take a run of rows into", error)),
            }
        }
    }

    fn begin_loading(&self) -> Result<()> {
        let loading = &self.database.activity(self.index)?.loading;
        if loading.0.swap(LOADS, Ordering::Relaxed) == LOADS {
            return Ok(());
        }
        let set = self.database.db.set_options_cf(&self.handle()?, &[("disable_auto_compactions", "true")]);
        set.map_err(|error| self.database.failed("set options of", error))
    }

    fn handle(&self) -> Result<Arc<BoundColumnFamily<'_>>> {
        self.database.handle(&self.name)
    }
}

/// Beside the database, which deletes what it does not know only by chance.
fn run_path(database: &Path, family: usize) -> PathBuf {
    database.with_file_name(format!("{RUN}{family}"))
}

const RUN: &str = "run-";

/// Removes files that were not taken over before a crash.
pub(super) fn remove_left_over(database: &Path) {
    let Some(entries) = database.parent().and_then(|folder| std::fs::read_dir(folder).ok()) else { return };
    let is_run = |entry: &std::fs::DirEntry| entry.file_name().to_string_lossy().starts_with(RUN);
    entries.flatten().filter(is_run).for_each(|entry| remove(&entry.path()));
}

fn remove(path: &Path) {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            tracing::warn!(path = %path.display(), %error, "could not remove a file that is of no use any more");
        }
        _ => {}
    }
}
