//! Tables and what is made of their rows one by one.

use std::marker::PhantomData;
use std::sync::Arc;

use super::table_store::TableStore;
use super::{Predicate, RowMapper};
use crate::error::Result;
use crate::record::{Change, Record, ValueAndTimestamp};
use crate::serdes::DynSerde;
use crate::state::{KeyValueStore, VersionedKeyValueStore, VersionedRecord};
use crate::topology::{Processor, ProcessorContext, ProcessorInit, TaskContext};

/// How another operator of the task reads a table: its store, or what its functions make of its parent's.
pub(crate) trait View<K, V> {
    /// The newest row.
    fn get(&mut self, task: &mut TaskContext, key: &K) -> Result<Option<ValueAndTimestamp<V>>>;

    /// Whether it knows what a row was.
    fn is_versioned(&self) -> bool {
        false
    }

    /// The row as it was at a time (ms), where that is known.
    fn get_as_of(&mut self, task: &mut TaskContext, key: &K, _time: i64) -> Result<Option<ValueAndTimestamp<V>>> {
        self.get(task, key)
    }
}

/// Made for each reader: a view holds scratch, and nothing is shared but the bytes.
pub(crate) type ViewMaker<K, V> = Arc<dyn Fn(&mut ProcessorInit<'_>) -> Result<Box<dyn View<K, V>>> + Send + Sync>;

impl<K: 'static, V: 'static> View<K, V> for KeyValueStore<K, ValueAndTimestamp<V>> {
    fn get(&mut self, task: &mut TaskContext, key: &K) -> Result<Option<ValueAndTimestamp<V>>> {
        KeyValueStore::get(self, task, key)
    }
}

impl<K: 'static, V: 'static> View<K, V> for VersionedKeyValueStore<K, V> {
    fn get(&mut self, task: &mut TaskContext, key: &K) -> Result<Option<ValueAndTimestamp<V>>> {
        Ok(VersionedKeyValueStore::get(self, task, key)?.map(Into::into))
    }

    fn is_versioned(&self) -> bool {
        true
    }

    fn get_as_of(&mut self, task: &mut TaskContext, key: &K, time: i64) -> Result<Option<ValueAndTimestamp<V>>> {
        Ok(VersionedKeyValueStore::get_as_of(self, task, key, time)?.map(Into::into))
    }
}

impl<V> From<VersionedRecord<V>> for ValueAndTimestamp<V> {
    fn from(version: VersionedRecord<V>) -> Self {
        ValueAndTimestamp { value: version.value, timestamp: version.timestamp }
    }
}

/// Keeps the last value of each key; a null deletes the row. `V` is what the stream has for it.
pub(crate) struct TableSource<K, V, T> {
    pub name: Arc<str>,
    pub key: DynSerde<K>,
    /// Only there when somebody reads the table or needs what a row was before.
    pub rows: Option<TableStore<K, T>>,
    /// Whether a value is a null.
    pub value: Option<DynSerde<T>>,
    /// Updates that were older than the row they replaced.
    pub out_of_order: u64,
    pub types: PhantomData<fn(V)>,
}

/// Tells of an update that is older than the row it replaces, the first ones and then ever fewer.
#[cold]
fn note_out_of_order(node: &str, count: &mut u64, task: &TaskContext, row: i64, update: i64) {
    *count += 1;
    if count.is_power_of_two() {
        let at = task.record_metadata().map(|at| (at.topic, at.partition, at.offset));
        let (topic, partition, offset) = at.unwrap_or_default();
        tracing::warn!(
            node,
            topic,
            partition,
            offset,
            row,
            update,
            count = *count,
            "an update of a table is older than the row that it replaces: where the order of times counts, keep versions \
             with Materialized::as_versioned"
        );
    }
}

impl<K: 'static, V: Into<Option<T>> + 'static, T: 'static> Processor<K, V> for TableSource<K, V, T> {
    type KeyOut = K;
    type ValueOut = Change<T>;

    fn process(&mut self, record: Record<K, V>, ctx: &mut ProcessorContext<'_, K, Change<T>>) -> Result<()> {
        let Record { key, value, timestamp, headers } = record;
        if self.key.is_null(&key) {
            ctx.task.drop_record(&self.name, "its key is null");
            return Ok(());
        }
        let new: Option<T> = value.into();
        let new = new.filter(|row| !self.value.as_ref().is_some_and(|serde| serde.is_null(row)));
        let Some(rows) = &mut self.rows else {
            return ctx.forward(Record { key, value: Change::latest(None, new), timestamp, headers });
        };
        let old = match rows.needs_old_value() {
            true => rows.get(ctx.task, &key)?,
            false => None,
        };
        if let Some(row) = &old
            && row.timestamp > timestamp
            && !rows.is_versioned()
        {
            note_out_of_order(&self.name, &mut self.out_of_order, ctx.task, row.timestamp, timestamp);
        }
        rows.update(Record { key, value: Change::latest(old.map(|row| row.value), new), timestamp, headers }, ctx)
    }

    fn flush(&mut self, ctx: &mut ProcessorContext<'_, K, Change<T>>) -> Result<()> {
        self.rows.as_mut().map_or(Ok(()), |rows| rows.flush(ctx))
    }

    fn expire(&mut self, ctx: &mut ProcessorContext<'_, K, Change<T>>) -> Result<()> {
        self.rows.as_mut().map_or(Ok(()), |rows| rows.expire(ctx))
    }
}

/// Keeps the rows for which the predicate holds. Whether a row was there before is only known when changes come with old
/// values; otherwise each row that does not pass is a deletion, needed or not.
pub(crate) struct TableFilter<K, V> {
    pub keep: Predicate<K, V>,
    pub rows: Option<TableStore<K, V>>,
    pub sends_old_values: bool,
    /// Whether changes may come out of order: then none is needless (KIP-914).
    pub is_versioned: bool,
}

impl<K: 'static, V: 'static> Processor<K, Change<V>> for TableFilter<K, V> {
    type KeyOut = K;
    type ValueOut = Change<V>;

    fn process(&mut self, record: Record<K, Change<V>>, ctx: &mut ProcessorContext<'_, K, Change<V>>) -> Result<()> {
        let Record { key, value: Change { old, new, is_latest }, timestamp, headers } = record;
        let new = new.filter(|row| (self.keep)(&key, row));
        let old = match (&mut self.rows, self.sends_old_values) {
            (_, false) => None,
            (Some(rows), true) => rows.get(ctx.task, &key)?.map(|row| row.value),
            (None, true) => old.filter(|row| (self.keep)(&key, row)),
        };
        if self.sends_old_values && !self.is_versioned && old.is_none() && new.is_none() {
            return Ok(());
        }
        let record = Record { key, value: Change { old, new, is_latest }, timestamp, headers };
        match &mut self.rows {
            Some(rows) => rows.update(record, ctx),
            None => ctx.forward(record),
        }
    }

    fn flush(&mut self, ctx: &mut ProcessorContext<'_, K, Change<V>>) -> Result<()> {
        self.rows.as_mut().map_or(Ok(()), |rows| rows.flush(ctx))
    }

    fn expire(&mut self, ctx: &mut ProcessorContext<'_, K, Change<V>>) -> Result<()> {
        self.rows.as_mut().map_or(Ok(()), |rows| rows.expire(ctx))
    }
}

/// Maps the rows. A function that gives none deletes the row.
pub(crate) struct TableMapValues<K, V, V2> {
    pub map: RowMapper<K, V, V2>,
    pub rows: Option<TableStore<K, V2>>,
    pub sends_old_values: bool,
}

impl<K: 'static, V: 'static, V2: 'static> Processor<K, Change<V>> for TableMapValues<K, V, V2> {
    type KeyOut = K;
    type ValueOut = Change<V2>;

    fn process(&mut self, record: Record<K, Change<V>>, ctx: &mut ProcessorContext<'_, K, Change<V2>>) -> Result<()> {
        let Record { key, value: Change { old, new, is_latest }, timestamp, headers } = record;
        let map = |row: &V| (self.map)(&key, row);
        let new = new.as_ref().and_then(map);
        let Some(rows) = &mut self.rows else {
            let old = old.as_ref().filter(|_| self.sends_old_values).and_then(map);
            return ctx.forward(Record { key, value: Change { old, new, is_latest }, timestamp, headers });
        };
        let old = match rows.needs_old_value() {
            true => rows.get(ctx.task, &key)?.map(|row| row.value),
            false => None,
        };
        rows.update(Record { key, value: Change::latest(old, new), timestamp, headers }, ctx)
    }

    fn flush(&mut self, ctx: &mut ProcessorContext<'_, K, Change<V2>>) -> Result<()> {
        self.rows.as_mut().map_or(Ok(()), |rows| rows.flush(ctx))
    }

    fn expire(&mut self, ctx: &mut ProcessorContext<'_, K, Change<V2>>) -> Result<()> {
        self.rows.as_mut().map_or(Ok(()), |rows| rows.expire(ctx))
    }
}

/// A filtered table without a store.
pub(crate) struct FilteredView<K, V> {
    pub parent: Box<dyn View<K, V>>,
    pub keep: Predicate<K, V>,
}

impl<K, V> View<K, V> for FilteredView<K, V> {
    fn get(&mut self, task: &mut TaskContext, key: &K) -> Result<Option<ValueAndTimestamp<V>>> {
        let row = self.parent.get(task, key)?;
        Ok(row.filter(|row| (self.keep)(key, &row.value)))
    }

    fn is_versioned(&self) -> bool {
        self.parent.is_versioned()
    }

    fn get_as_of(&mut self, task: &mut TaskContext, key: &K, time: i64) -> Result<Option<ValueAndTimestamp<V>>> {
        let row = self.parent.get_as_of(task, key, time)?;
        Ok(row.filter(|row| (self.keep)(key, &row.value)))
    }
}

/// A mapped table without a store.
pub(crate) struct MappedView<K, V, V2> {
    pub parent: Box<dyn View<K, V>>,
    pub map: RowMapper<K, V, V2>,
}

impl<K, V, V2> View<K, V2> for MappedView<K, V, V2> {
    fn get(&mut self, task: &mut TaskContext, key: &K) -> Result<Option<ValueAndTimestamp<V2>>> {
        let row = self.parent.get(task, key)?;
        Ok(row.and_then(|row| self.map(key, &row)))
    }

    fn is_versioned(&self) -> bool {
        self.parent.is_versioned()
    }

    fn get_as_of(&mut self, task: &mut TaskContext, key: &K, time: i64) -> Result<Option<ValueAndTimestamp<V2>>> {
        let row = self.parent.get_as_of(task, key, time)?;
        Ok(row.and_then(|row| self.map(key, &row)))
    }
}

impl<K, V, V2> MappedView<K, V, V2> {
    fn map(&self, key: &K, row: &ValueAndTimestamp<V>) -> Option<ValueAndTimestamp<V2>> {
        let value = (self.map)(key, &row.value)?;
        Some(ValueAndTimestamp { value, timestamp: row.timestamp })
    }
}

/// Leaves the old row behind. The function says what becomes of a deleted one.
pub(crate) struct ToStream<V, V2> {
    pub map: Arc<dyn Fn(Option<V>) -> V2 + Send + Sync>,
}

impl<K: 'static, V: 'static, V2: 'static> Processor<K, Change<V>> for ToStream<V, V2> {
    type KeyOut = K;
    type ValueOut = V2;

    fn process(&mut self, record: Record<K, Change<V>>, ctx: &mut ProcessorContext<'_, K, V2>) -> Result<()> {
        let Record { key, value, timestamp, headers } = record;
        ctx.forward(Record { key, value: (self.map)(value.new), timestamp, headers })
    }
}
