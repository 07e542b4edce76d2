//! What `benches/state.rs` drives: one store of one task, as bytes.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use super::*;
use crate::error::Result;
use crate::record::{Headers, RecordBatch};
use crate::topology::TaskId;

/// A store without types. For benches of this crate only.
#[derive(Debug)]
pub struct BenchStore {
    stores: TaskStores,
    context: RecordContext,
    offset: i64,
}

impl BenchStore {
    /// A store in memory.
    pub fn in_memory() -> BenchStore {
        BenchStore::of(spec(), None).unwrap_or_else(|_| BenchStore::new(TaskStores::default()))
    }

    /// A store in RocksDB, with the default bounds on memory.
    ///
    /// # Errors
    /// A folder that cannot be written.
    pub fn on_disk(folder: &Path) -> Result<BenchStore> {
        BenchStore::of(spec(), Some(folder))
    }

    /// A store of any kind with its facade: in RocksDB where there is a folder.
    ///
    /// # Errors
    /// A folder that cannot be written.
    pub fn with_facade<S>(store: &StoreBuilder<S>, folder: Option<&Path>) -> Result<(BenchStore, S)> {
        Ok((BenchStore::of(Arc::clone(&store.spec), folder)?, store.open(0)))
    }

    fn of(spec: Arc<StoreSpec>, folder: Option<&Path>) -> Result<BenchStore> {
        let Some(folder) = folder else { return Ok(BenchStore::new(TaskStores::in_memory(&[spec], 0))) };
        let home = StateHome {
            directory: Some(StateDirectory::open(folder, "bench")?),
            memory: StateMemory::new(StateMemoryLimits::default()),
            cache: CacheBudget::new(0),
        };
        let changelog = ChangelogIdentity { topic: "bench".into(), topic_id: None, partition: 0 };
        let store = StoreToOpen { spec, changelog: Some(changelog) };
        Ok(BenchStore::new(TaskStores::open(&home, TaskId { sub_topology: 0, partition: 0 }, &[store], 1)?))
    }

    fn new(stores: TaskStores) -> BenchStore {
        BenchStore { stores, context: RecordContext::default(), offset: 0 }
    }

    /// Reads a row.
    ///
    /// # Errors
    /// A store that cannot be read.
    pub fn get(&mut self, key: &[u8]) -> Result<Option<&[u8]>> {
        self.stores.get(0, key)
    }

    /// Writes a row.
    ///
    /// # Errors
    /// A store that cannot be written.
    pub fn put(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        self.stores.put(0, key, Some(value), &self.context)
    }

    /// Forgets the changelog records, which a client would have, and commits.
    ///
    /// # Errors
    /// A store that cannot be written.
    pub fn commit(&mut self) -> Result<()> {
        self.offset += self.stores.changelog().count() as i64;
        self.stores.clear_changelog();
        self.stores.apply(&[Some(self.offset)])
    }

    /// Reads changelog records in, with offsets from 0.
    ///
    /// # Errors
    /// A store that cannot be written.
    pub fn restore<'a>(&mut self, rows: impl Iterator<Item = (&'a [u8], &'a [u8])>) -> Result<()> {
        let mut batch = RecordBatch::default();
        for (key, value) in rows {
            batch.push(self.offset, 0, Some(key), Some(value), Headers::new())?;
            self.offset += 1;
        }
        self.stores.restore(0, &batch, self.offset)
    }
}

#[cfg(feature = "rocksdb")]
impl BenchStore {
    /// Reads changelog records in, as far as an offset is yet to be reached: with many of them rows are collected.
    ///
    /// # Errors
    /// A store that cannot be written.
    pub fn restore_towards<'a>(
        &mut self,
        rows: impl Iterator<Item = (&'a [u8], Option<&'a [u8]>)>,
        end: i64,
    ) -> Result<()> {
        let mut batch = RecordBatch::default();
        for (key, value) in rows {
            batch.push(self.offset, 0, Some(key), value, Headers::new())?;
            self.offset += 1;
        }
        let reach = Reach { next_offset: self.offset, end };
        self.stores.restore_towards(0, &batch, reach)
    }

    /// Writes what is held back, and waits until nothing is left to be flushed or compacted.
    ///
    /// # Errors
    /// A store that cannot be written.
    pub fn settle(&mut self) -> Result<()> {
        self.stores.finish_restore(0)?;
        self.stores.backing.database.iter().try_for_each(|database| database.wait_until_compacted())
    }

    /// Bytes of the store's files.
    pub fn disk_bytes(&self) -> u64 {
        self.stores.disk_bytes(0).unwrap_or(0)
    }
}

impl StoreContext for BenchStore {
    fn stores(&mut self) -> (&mut TaskStores, &RecordContext) {
        (&mut self.stores, &self.context)
    }
}

fn spec() -> Arc<StoreSpec> {
    let changelog = Changelog::Topic { config: BTreeMap::new() };
    let (kind, engine) = (StoreKind::KeyValue, EngineKind::Persistent);
    Arc::new(StoreSpec {
        name: "bench".into(),
        kind,
        engine,
        is_default_engine: false,
        caching: false,
        changelog,
        custom: None,
        partitioner: None,
        logs_headers: LoggedHeaders::None,
        ttl_ms: None,
        row_times: RowTimes::Any,
    })
}
