//! Committed rows of one store, in byte order, with the changelog offset that they correspond to.

use std::ops::Bound;
use std::sync::{Arc, RwLock};

use super::custom::CustomEngine;
use super::global_store::{read, write};
use super::memory::MemoryEngine;
use super::merge::Direction;
use super::retention::Expired;
#[cfg(feature = "rocksdb")]
use super::rocksdb as disk;
use super::run_rows::RunRows;
use super::spec::StoreSpec;
use crate::error::Result;

#[derive(Debug)]
pub(super) enum Engine {
    Memory(MemoryEngine),
    /// Read by other threads as well.
    Shared(Arc<RwLock<MemoryEngine>>),
    Custom(CustomEngine),
    #[cfg(feature = "rocksdb")]
    RocksDb(disk::Family),
}

/// Where a store is with the rows of a commit.
#[derive(Debug, Clone, Copy, Default)]
#[cfg_attr(not(feature = "rocksdb"), allow(dead_code, reason = "memory forgets it with its rows"))]
pub(super) struct At<'a> {
    /// The next changelog offset that is needed; none: as before.
    pub(super) next_offset: Option<i64>,
    /// For a store that is fed by several partitions: the next offset of each.
    pub(super) positions: &'a [(i32, i64)],
    /// The largest time (ms) that was put to a store whose rows expire; none: as before.
    pub(super) stream_time: Option<i64>,
    pub(super) now_ms: i64,
    /// Of what time the store is; none: of now.
    pub(super) as_of_ms: Option<i64>,
}

/// Writes a run of rows that are sorted.
pub(super) type RunWriter = Box<dyn FnOnce(&RunRows) -> Result<()> + Send>;

/// Whether the caller of a scan wants the next row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scan {
    Next,
    Enough,
}

impl Engine {
    /// Of a store that is not on disk.
    pub(super) fn off_disk(spec: &StoreSpec) -> Engine {
        match &spec.custom {
            Some(make) => Engine::Custom(CustomEngine::make(make)),
            None => Engine::Memory(MemoryEngine::default()),
        }
    }

    /// Appends the row of a key to `row`; whether there is one.
    pub(super) fn get(&mut self, key: &[u8], row: &mut Vec<u8>) -> Result<bool> {
        match self {
            Engine::Memory(memory) => {
                let found = memory.get(key);
                row.extend_from_slice(found.unwrap_or_default());
                Ok(found.is_some())
            }
            Engine::Shared(memory) => Ok(read(memory, |memory| {
                let found = memory.get(key);
                row.extend_from_slice(found.unwrap_or_default());
                found.is_some()
            })),
            Engine::Custom(custom) => custom.get(key, row),
            #[cfg(feature = "rocksdb")]
            Engine::RocksDb(family) => family.get(key, row),
        }
    }

    /// Shows rows in order until `each` has enough.
    pub(super) fn scan(
        &mut self,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
        direction: Direction,
        each: impl FnMut(&[u8], &[u8]) -> Scan,
    ) -> Result<()> {
        match self {
            Engine::Memory(memory) => {
                memory.order();
                scan(memory, from, to, direction, each);
                Ok(())
            }
            Engine::Shared(memory) => {
                if !read(memory, MemoryEngine::is_ordered) {
                    write(memory, MemoryEngine::order);
                }
                read(memory, |memory| scan(memory, from, to, direction, each));
                Ok(())
            }
            Engine::Custom(custom) => custom.scan(from, to, direction, each),
            #[cfg(feature = "rocksdb")]
            Engine::RocksDb(family) => family.scan(from, to, direction, each),
        }
    }

    /// Writes rows, in the order of their keys and each key once, together with where the store is then, all or nothing.
    pub(super) fn apply<'a>(
        &mut self,
        rows: impl Iterator<Item = (&'a [u8], Option<&'a [u8]>)>,
        at: At<'_>,
    ) -> Result<()> {
        match self {
            Engine::Memory(memory) => {
                #[cfg(all(test, feature = "testing"))]
                memory.check_file()?;
                memory.apply(rows);
                // The rest is for meta records: memory forgets it with its rows.
                memory.offset = at.next_offset.or(memory.offset);
                #[cfg(all(test, feature = "testing"))]
                memory.write_to_file(at.stream_time, at.as_of_ms.unwrap_or(at.now_ms));
                Ok(())
            }
            Engine::Shared(memory) => {
                write(memory, |memory| {
                    memory.apply(rows);
                    memory.offset = at.next_offset.or(memory.offset);
                });
                Ok(())
            }
            Engine::Custom(custom) => custom.apply(rows, at.next_offset),
            #[cfg(feature = "rocksdb")]
            Engine::RocksDb(family) => family.apply(rows, at),
        }
    }

    /// As [`apply`](Engine::apply), for rows of the changelog.
    pub(super) fn restore<'a>(
        &mut self,
        rows: impl Iterator<Item = (&'a [u8], Option<&'a [u8]>)>,
        at: At<'_>,
    ) -> Result<()> {
        match (self, at.next_offset) {
            (Engine::Custom(custom), Some(next_offset)) => custom.restore(rows, next_offset),
            (engine, _) => engine.apply(rows, at),
        }
    }

    /// Whether it is worth collecting rows for [`take_run`](Engine::take_run).
    pub(super) fn takes_runs(&self) -> bool {
        match self {
            Engine::Memory(_) | Engine::Shared(_) | Engine::Custom(_) => false,
            #[cfg(feature = "rocksdb")]
            Engine::RocksDb(_) => true,
        }
    }

    /// As [`apply`](Engine::apply), for so many rows that a file of their own is worth it.
    pub(super) fn take_run<'a>(
        &mut self,
        rows: impl Iterator<Item = (&'a [u8], Option<&'a [u8]>)>,
        at: At<'_>,
    ) -> Result<()> {
        match self {
            Engine::Memory(_) | Engine::Shared(_) | Engine::Custom(_) => self.apply(rows, at),
            #[cfg(feature = "rocksdb")]
            Engine::RocksDb(family) => family.take_run(rows, at),
        }
    }

    /// What writes a run on any thread, once; none: the engine takes no runs. Until [`has_run`](Engine::has_run) it is where
    /// it was, and no other run is begun.
    pub(super) fn begin_run(&mut self, at: At<'_>) -> Result<Option<RunWriter>> {
        match self {
            Engine::Memory(_) | Engine::Shared(_) | Engine::Custom(_) => {
                let _ = at;
                Ok(None)
            }
            #[cfg(feature = "rocksdb")]
            Engine::RocksDb(family) => {
                let run = family.begin_run(at)?;
                Ok(Some(Box::new(move |rows| run.write(rows.sorted()))))
            }
        }
    }

    /// The run with this place was written.
    pub(super) fn has_run(&mut self, at: At<'_>) {
        match self {
            Engine::Memory(_) | Engine::Shared(_) | Engine::Custom(_) => {
                let _ = at;
            }
            #[cfg(feature = "rocksdb")]
            Engine::RocksDb(family) => family.has_run(at),
        }
    }

    /// No run follows for now.
    pub(super) fn end_runs(&mut self) -> Result<()> {
        match self {
            Engine::Memory(_) | Engine::Shared(_) | Engine::Custom(_) => Ok(()),
            #[cfg(feature = "rocksdb")]
            Engine::RocksDb(family) => family.end_runs(),
        }
    }

    /// The next offset of each partition that feeds the store, as far as it is kept.
    pub(super) fn positions(&self) -> Result<Vec<(i32, i64)>> {
        match self {
            Engine::Memory(_) | Engine::Shared(_) | Engine::Custom(_) => Ok(Vec::new()),
            #[cfg(feature = "rocksdb")]
            Engine::RocksDb(family) => family.positions(),
        }
    }

    /// The next changelog offset that is needed; none: nothing of the changelog is here.
    pub(super) fn offset(&self) -> Option<i64> {
        match self {
            Engine::Memory(memory) => memory.offset,
            Engine::Shared(_) => None,
            Engine::Custom(custom) => custom.offset,
            #[cfg(feature = "rocksdb")]
            Engine::RocksDb(family) => family.offset(),
        }
    }

    /// The offset that would be found after a crash.
    #[cfg(all(test, feature = "rocksdb"))]
    pub(super) fn durable_offset(&self) -> Result<Option<i64>> {
        match self {
            Engine::Memory(_) | Engine::Shared(_) | Engine::Custom(_) => Ok(None),
            #[cfg(feature = "rocksdb")]
            Engine::RocksDb(family) => family.durable_offset(),
        }
    }

    /// Clears rows away that no read shows.
    pub(super) fn clear(&mut self, expired: Expired) -> Result<()> {
        match self {
            Engine::Memory(memory) => {
                memory.clear(expired);
                Ok(())
            }
            Engine::Shared(memory) => {
                write(memory, |memory| memory.clear(expired));
                Ok(())
            }
            Engine::Custom(custom) => custom.clear(expired),
            #[cfg(feature = "rocksdb")]
            Engine::RocksDb(family) => family.clear(expired),
        }
    }

    /// The largest time that was put to a store whose rows expire, as far as it is kept.
    pub(super) fn stream_time(&self) -> Option<i64> {
        match self {
            Engine::Memory(memory) => memory.stream_time(),
            Engine::Shared(_) | Engine::Custom(_) => None,
            #[cfg(feature = "rocksdb")]
            Engine::RocksDb(family) => family.stream_time(),
        }
    }

    /// The same as it would be found after a crash, where `committed` is what it is now. Memory is empty then: it does not
    /// need anything.
    pub(super) fn durable_stream_time(&self, committed: i64) -> Result<i64> {
        match self {
            Engine::Memory(_) | Engine::Shared(_) | Engine::Custom(_) => Ok(committed),
            #[cfg(feature = "rocksdb")]
            Engine::RocksDb(family) => family.durable_stream_time(),
        }
    }

    /// Forgets all rows and the offset.
    pub(super) fn wipe(&mut self) -> Result<()> {
        match self {
            Engine::Memory(memory) => {
                memory.wipe();
                Ok(())
            }
            Engine::Shared(memory) => {
                write(memory, |memory| *memory = MemoryEngine::default());
                Ok(())
            }
            Engine::Custom(custom) => custom.wipe(),
            #[cfg(feature = "rocksdb")]
            Engine::RocksDb(family) => family.wipe(),
        }
    }

    /// Bytes of its files; none: it has none.
    pub(super) fn disk_bytes(&self) -> Option<u64> {
        match self {
            Engine::Memory(_) | Engine::Shared(_) | Engine::Custom(_) => None,
            #[cfg(feature = "rocksdb")]
            Engine::RocksDb(family) => Some(family.disk_bytes()),
        }
    }

    pub(super) fn approximate_len(&self) -> u64 {
        match self {
            Engine::Memory(memory) => memory.len() as u64,
            Engine::Shared(memory) => read(memory, MemoryEngine::len) as u64,
            Engine::Custom(custom) => custom.approximate_len(),
            #[cfg(feature = "rocksdb")]
            Engine::RocksDb(family) => family.approximate_len(),
        }
    }
}

fn scan(
    memory: &MemoryEngine,
    from: Bound<&[u8]>,
    to: Bound<&[u8]>,
    direction: Direction,
    mut each: impl FnMut(&[u8], &[u8]) -> Scan,
) {
    let mut rows = memory.range(from, to);
    while let Some((key, row)) = direction.next(&mut rows) {
        if each(key, row) == Scan::Enough {
            break;
        }
    }
}
