//! The rows of a table and the way their changes go downstream: the one place that decides when.

use std::sync::Arc;

use super::table::{View, ViewMaker};
use crate::error::{Error, Result};
use crate::record::{Change, Headers, Record, ValueAndTimestamp};
use crate::serdes::{DynSerde, Serde, encode};
use crate::state::{StoreBuilder, StoreSpec, TimestampedKeyValueStore, VersionPut, VersionedKeyValueStore};
use crate::topology::{ProcessorContext, ProcessorInit, TaskContext};

/// The kinds of stores that tables have.
pub(crate) enum TableRows<K, V> {
    /// The serde is that of the rows, with or without their times.
    Newest(StoreBuilder<TimestampedKeyValueStore<K, V>>, DynSerde<ValueAndTimestamp<V>>),
    /// Every version of a row (KIP-914).
    Versions(StoreBuilder<VersionedKeyValueStore<K, V>>),
}

impl<K, V> Clone for TableRows<K, V> {
    fn clone(&self) -> Self {
        match self {
            TableRows::Newest(store, rows) => TableRows::Newest(store.clone(), Arc::clone(rows)),
            TableRows::Versions(store) => TableRows::Versions(store.clone()),
        }
    }
}

/// A table's store, before there is one.
pub(crate) struct TableStoreSpec<K, V> {
    pub rows: TableRows<K, V>,
    pub key: DynSerde<K>,
    pub value: DynSerde<V>,
    /// What is missing for the store to exist: a mistake once somebody needs it.
    pub missing: Option<Arc<str>>,
}

impl<K, V> Clone for TableStoreSpec<K, V> {
    fn clone(&self) -> Self {
        let (key, value) = (Arc::clone(&self.key), Arc::clone(&self.value));
        TableStoreSpec { rows: self.rows.clone(), key, value, missing: self.missing.as_ref().map(Arc::clone) }
    }
}

impl<K, V> TableStoreSpec<K, V> {
    pub(crate) fn spec(&self) -> &Arc<StoreSpec> {
        match &self.rows {
            TableRows::Newest(store, _) => &store.spec,
            TableRows::Versions(store) => &store.spec,
        }
    }

    pub(crate) fn name(&self) -> &str {
        &self.spec().name
    }
}

impl<K: 'static, V: 'static> TableStoreSpec<K, V> {
    /// The store in the hands of the operator that writes it.
    pub(crate) fn open(&self, init: &mut ProcessorInit<'_>) -> Result<TableStore<K, V>> {
        let (index, rows) = match &self.rows {
            TableRows::Newest(store, serde) => {
                let index = init.store(store)?.index();
                (index, Rows::Newest { serde: Arc::clone(serde), key_bytes: Vec::new(), row_bytes: Vec::new() })
            }
            TableRows::Versions(store) => {
                let store = init.store(store)?;
                (store.index(), Rows::Versions(store))
            }
        };
        let stores = &mut init.task.stores;
        let emission = if stores.is_cached(index) { Emission::OnCommit } else { Emission::OnUpdate };
        stores.set_forwards(index);
        let (key, value) = (Arc::clone(&self.key), Arc::clone(&self.value));
        Ok(TableStore { index, key, value, rows, emission, sends_old_values: init.sends_old_values() })
    }

    pub(crate) fn is_versioned(&self) -> bool {
        matches!(self.rows, TableRows::Versions(_))
    }

    /// The rows as others read them.
    pub(crate) fn view(&self) -> ViewMaker<K, V> {
        let rows = self.rows.clone();
        Arc::new(move |init| {
            let view: Box<dyn View<K, V>> = match &rows {
                TableRows::Newest(store, _) => Box::new(init.store(store)?),
                TableRows::Versions(store) => Box::new(init.store(store)?),
            };
            Ok(view)
        })
    }

    /// The store of a table that only has one when somebody needs it.
    pub(crate) fn open_if_connected(&self, init: &mut ProcessorInit<'_>) -> Result<Option<TableStore<K, V>>> {
        let connected = init.topology.node(init.id).stores.iter().any(|store| **store == *self.name());
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
    value: DynSerde<V>,
    rows: Rows<K, V>,
    emission: Emission,
    sends_old_values: bool,
}

enum Rows<K, V> {
    Newest {
        serde: DynSerde<ValueAndTimestamp<V>>,
        /// Scratch; kept, so that encoding allocates nothing.
        key_bytes: Vec<u8>,
        row_bytes: Vec<u8>,
    },
    Versions(VersionedKeyValueStore<K, V>),
}

impl<K: 'static, V: 'static> TableStore<K, V> {
    /// Whether a change has to come with the row as it was. A cache finds it by itself.
    pub(crate) fn needs_old_value(&self) -> bool {
        self.sends_old_values && self.emission == Emission::OnUpdate
    }

    /// Whether older rows are kept beside newer ones.
    pub(crate) fn is_versioned(&self) -> bool {
        matches!(self.rows, Rows::Versions(_))
    }

    /// Whether a row may have gone without an update of it.
    pub(crate) fn expires(&self, task: &TaskContext) -> bool {
        task.stores.expires(self.index)
    }

    pub(crate) fn is_null_key(&self, key: &K) -> bool {
        self.key.is_null(key)
    }

    /// The newest row.
    pub(crate) fn get(&mut self, task: &mut TaskContext, key: &K) -> Result<Option<ValueAndTimestamp<V>>> {
        match &mut self.rows {
            Rows::Newest { serde, key_bytes, .. } => {
                key_bytes.clear();
                self.key.serialize(key, key_bytes)?;
                let row = task.stores.get(self.index, key_bytes)?;
                row.map(|row| serde.deserialize(row)).transpose()
            }
            Rows::Versions(versions) => Ok(versions.get(task, key)?.map(Into::into)),
        }
    }

    /// Writes the new row, or deletes it, and sees to it that the change goes downstream: now or later. A version that has
    /// come too late is not written, and goes nowhere. A row that has expired already deletes the one that is there.
    pub(crate) fn update(
        &mut self,
        record: Record<K, Change<V>>,
        ctx: &mut ProcessorContext<'_, K, Change<V>>,
    ) -> Result<()> {
        let Record { key, value: Change { old, new, .. }, timestamp, headers } = record;
        let mut new = new.filter(|row| !self.value.is_null(row));
        if new.is_some() && ctx.task.stores.has_expired(self.index, timestamp) {
            ctx.task.stores.count_expired(self.index, &ctx.task.record);
            if self.get(ctx.task, &key)?.is_none() {
                return Ok(());
            }
            new = None;
        }
        let (new, put) = self.write(&key, new, timestamp, ctx.task)?;
        if put == VersionPut::NotPut {
            return Ok(());
        }
        match self.emission {
            Emission::OnUpdate => {
                let old = old.filter(|_| self.sends_old_values);
                let value = Change { old, new, is_latest: put == VersionPut::Latest };
                ctx.forward(Record { key, value, timestamp, headers })
            }
            Emission::OnCommit if ctx.task.stores.is_cache_full() => self.flush(ctx),
            Emission::OnCommit => Ok(()),
        }
    }

    /// Deletes rows that have expired, and sees to it that the deletions go downstream.
    pub(crate) fn expire(&mut self, ctx: &mut ProcessorContext<'_, K, Change<V>>) -> Result<()> {
        while let Some(key) = ctx.task.stores.next_expired(self.index)? {
            let key = self.key.deserialize(&key)?;
            let old = match self.needs_old_value() {
                true => self.get(ctx.task, &key)?.map(|row| row.value),
                false => None,
            };
            let (value, timestamp) = (Change::latest(old, None), ctx.task.record.timestamp);
            self.update(Record { key, value, timestamp, headers: Headers::new() }, ctx)?;
        }
        Ok(())
    }

    /// Forwards what was held back, in the order of the last updates, each as if its record were in hand again.
    pub(crate) fn flush(&mut self, ctx: &mut ProcessorContext<'_, K, Change<V>>) -> Result<()> {
        let Rows::Newest { serde, .. } = &self.rows else { return Ok(()) };
        if self.emission == Emission::OnUpdate {
            return Ok(());
        }
        let outer = std::mem::take(&mut ctx.task.record);
        let result = self.forward_dirty(&**serde, ctx);
        ctx.task.record = outer;
        result
    }

    fn forward_dirty(
        &self,
        rows: &dyn Serde<Item = ValueAndTimestamp<V>>,
        ctx: &mut ProcessorContext<'_, K, Change<V>>,
    ) -> Result<()> {
        while let Some(row) = ctx.task.stores.take_dirty(self.index, self.sends_old_values)? {
            let key = self.key.deserialize(&row.key)?;
            let read = |bytes: Option<Vec<u8>>| bytes.map(|bytes| rows.deserialize(&bytes)).transpose();
            let (new, old) = (read(row.new)?, read(row.old)?);
            let timestamp = new.as_ref().map_or(row.context.timestamp, |row| row.timestamp);
            let headers = row.context.headers.clone();
            let value = Change::latest(old.map(|row| row.value), new.map(|row| row.value));
            let outer = ctx.task.take_up(row.context);
            let forwarded = ctx.forward(Record { key, value, timestamp, headers });
            ctx.task.put_back(outer);
            forwarded?;
        }
        Ok(())
    }

    /// Gives the row back.
    fn write(
        &mut self,
        key: &K,
        new: Option<V>,
        timestamp: i64,
        task: &mut TaskContext,
    ) -> Result<(Option<V>, VersionPut)> {
        match &mut self.rows {
            Rows::Newest { serde, key_bytes, row_bytes } => {
                key_bytes.clear();
                self.key.serialize(key, key_bytes)?;
                row_bytes.clear();
                let row = new.map(|value| ValueAndTimestamp { value, timestamp });
                let encoded = match &row {
                    Some(row) => encode(&**serde, row, row_bytes)?,
                    None => None,
                };
                let bytes = encoded.map(|_| row_bytes.as_slice());
                task.stores.put(self.index, key_bytes, bytes, &task.record)?;
                Ok((row.map(|row| row.value), VersionPut::Latest))
            }
            Rows::Versions(versions) => {
                let put = versions.put(task, key, new.as_ref(), timestamp)?;
                Ok((new, put))
            }
        }
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
