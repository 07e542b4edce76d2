//! The rows of a table and the way their changes go downstream: the one place that decides when.

use std::sync::Arc;

use crate::error::{Error, Result};
use crate::record::{Change, Record, ValueAndTimestamp};
use crate::serdes::{DynSerde, Serde, Timestamped, encode};
use crate::state::{StoreBuilder, TimestampedKeyValueStore};
use crate::topology::{ProcessorContext, ProcessorInit, TaskContext};

/// A table's store, before there is one.
pub(crate) struct TableStoreSpec<K, V> {
    pub store: StoreBuilder<TimestampedKeyValueStore<K, V>>,
    pub key: DynSerde<K>,
    pub value: DynSerde<V>,
    /// What is missing for the store to exist: a mistake once somebody needs it.
    pub missing: Option<Arc<str>>,
}

impl<K, V> Clone for TableStoreSpec<K, V> {
    fn clone(&self) -> Self {
        let (key, value) = (Arc::clone(&self.key), Arc::clone(&self.value));
        TableStoreSpec { store: self.store.clone(), key, value, missing: self.missing.as_ref().map(Arc::clone) }
    }
}

impl<K: 'static, V: 'static> TableStoreSpec<K, V> {
    pub(crate) fn name(&self) -> &str {
        self.store.name()
    }

    /// The store in the hands of the operator that writes it.
    pub(crate) fn open(&self, init: &mut ProcessorInit<'_>) -> Result<TableStore<K, V>> {
        let index = init.store(&self.store)?.index();
        let stores = &mut init.task.stores;
        let emission = if stores.is_cached(index) { Emission::OnCommit } else { Emission::OnUpdate };
        stores.set_forwards(index);
        Ok(TableStore {
            index,
            key: Arc::clone(&self.key),
            rows: Timestamped(Arc::clone(&self.value)),
            key_bytes: Vec::new(),
            row_bytes: Vec::new(),
            emission,
            sends_old_values: init.sends_old_values(),
        })
    }

    /// The same for a table that only has a store when somebody needs it.
    pub(crate) fn open_if_connected(&self, init: &mut ProcessorInit<'_>) -> Result<Option<TableStore<K, V>>> {
        let connected = init.topology.node(init.id).stores.iter().any(|store| **store == *self.store.name());
        if connected { self.open(init).map(Some) } else { Ok(None) }
    }
}

/// When the changes of a table go downstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Emission {
    /// Each at once.
    OnUpdate,
    /// The last of each key, when the task commits or the cache is full.
    OnCommit,
}

/// The rows of a table, in the hands of the operator that writes them. Rows carry the time of the record that made them.
pub(crate) struct TableStore<K, V> {
    index: usize,
    key: DynSerde<K>,
    rows: Timestamped<DynSerde<V>>,
    /// Scratch; kept, so that encoding allocates nothing.
    key_bytes: Vec<u8>,
    row_bytes: Vec<u8>,
    emission: Emission,
    sends_old_values: bool,
}

impl<K: 'static, V: 'static> TableStore<K, V> {
    /// Whether a change has to come with the row as it was. A cache finds it by itself.
    pub(crate) fn needs_old_value(&self) -> bool {
        self.sends_old_values && self.emission == Emission::OnUpdate
    }

    pub(crate) fn is_null_key(&self, key: &K) -> bool {
        self.key.is_null(key)
    }

    pub(crate) fn get(&mut self, task: &mut TaskContext, key: &K) -> Result<Option<ValueAndTimestamp<V>>> {
        self.key_bytes.clear();
        self.key.serialize(key, &mut self.key_bytes)?;
        let row = task.stores.get(self.index, &self.key_bytes)?;
        row.map(|row| self.rows.deserialize(row)).transpose()
    }

    /// Writes the new row, or deletes it, and sees to it that the change goes downstream: now or later.
    pub(crate) fn update(
        &mut self,
        record: Record<K, Change<V>>,
        ctx: &mut ProcessorContext<'_, K, Change<V>>,
    ) -> Result<()> {
        let Record { key, value: Change { old, new, .. }, timestamp, headers } = record;
        let new = self.write(&key, new, timestamp, ctx.task)?;
        match self.emission {
            Emission::OnUpdate => {
                let old = old.filter(|_| self.sends_old_values);
                ctx.forward(Record { key, value: Change::latest(old, new), timestamp, headers })
            }
            Emission::OnCommit if ctx.task.stores.is_cache_full() => self.flush(ctx),
            Emission::OnCommit => Ok(()),
        }
    }

    /// Forwards what was held back, in the order of the last updates, each as if its record were in hand again.
    pub(crate) fn flush(&mut self, ctx: &mut ProcessorContext<'_, K, Change<V>>) -> Result<()> {
        if self.emission == Emission::OnUpdate {
            return Ok(());
        }
        let outer = ctx.task.record.clone();
        let result = self.forward_dirty(ctx);
        ctx.task.record = outer;
        result
    }

    fn forward_dirty(&mut self, ctx: &mut ProcessorContext<'_, K, Change<V>>) -> Result<()> {
        while let Some(row) = ctx.task.stores.take_dirty(self.index, self.sends_old_values)? {
            let key = self.key.deserialize(&row.key)?;
            let read = |bytes: Option<Vec<u8>>| bytes.map(|bytes| self.rows.deserialize(&bytes)).transpose();
            let (new, old) = (read(row.new)?, read(row.old)?);
            let timestamp = new.as_ref().map_or(row.context.timestamp, |row| row.timestamp);
            let headers = row.context.headers.clone();
            ctx.task.record = row.context;
            let value = Change::latest(old.map(|row| row.value), new.map(|row| row.value));
            ctx.forward(Record { key, value, timestamp, headers })?;
        }
        Ok(())
    }

    /// Gives the row back; none when its serde takes it for a null, which is a deletion.
    fn write(&mut self, key: &K, new: Option<V>, timestamp: i64, task: &mut TaskContext) -> Result<Option<V>> {
        self.key_bytes.clear();
        self.key.serialize(key, &mut self.key_bytes)?;
        self.row_bytes.clear();
        let row = new.map(|value| ValueAndTimestamp { value, timestamp });
        let encoded = match &row {
            Some(row) => encode(&self.rows, row, &mut self.row_bytes)?,
            None => None,
        };
        let bytes = encoded.map(|_| self.row_bytes.as_slice());
        task.stores.put(self.index, &self.key_bytes, bytes, &task.record)?;
        Ok(row.filter(|_| encoded.is_some()).map(|row| row.value))
    }
}

/// Stands where a serde is missing: `build` has already refused the topology.
pub(crate) struct NoSerde<T>(pub std::marker::PhantomData<fn(T)>);

impl<T: 'static> Serde for NoSerde<T> {
    type Item = T;

    fn serialize(&self, _: &T, _: &mut Vec<u8>) -> Result<()> {
        Err(no_serde())
    }
    fn deserialize(&self, _: &[u8]) -> Result<T> {
        Err(no_serde())
    }
}

fn no_serde() -> Error {
    Error::new(crate::ErrorKind::Internal, "a store without a serde")
}
