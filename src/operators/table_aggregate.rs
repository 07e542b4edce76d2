//! Folds the rows of a table into rows of another.

use super::table_store::TableStore;
use super::{Aggregator, KeySelector};
use crate::error::Result;
use crate::record::{Change, Record};
use crate::serdes::DynSerde;
use crate::topology::{Processor, ProcessorContext};

/// Says of each change which group loses a row and which gets one: Java's `KTableRepartitionMap`.
pub(crate) struct SelectGroup<K, V, K2, V2> {
    pub select: KeySelector<K, V, Option<(K2, V2)>>,
    pub key: DynSerde<K2>,
    pub value: DynSerde<V2>,
    /// Whether changes may come out of order: groups are of the newest rows only (KIP-914).
    pub is_versioned: bool,
    /// Whether a row that stays in its group is one record (KIP-904).
    pub combines: bool,
    /// Scratch to compare keys in.
    pub old_key: Vec<u8>,
    pub new_key: Vec<u8>,
}

impl<K: 'static, V: 'static, K2: 'static, V2: 'static> SelectGroup<K, V, K2, V2> {
    /// None for a row that is in no group.
    fn select(&self, key: &K, row: Option<&V>) -> Option<(K2, V2)> {
        let pair = (self.select)(key, row?)?;
        let is_null = self.key.is_null(&pair.0) || self.value.is_null(&pair.1);
        (!is_null).then_some(pair)
    }

    /// Equal keys have equal bytes, so keys need not be `Eq`.
    fn is_same(&mut self, old: &K2, new: &K2) -> Result<bool> {
        self.old_key.clear();
        self.new_key.clear();
        self.key.serialize(old, &mut self.old_key)?;
        self.key.serialize(new, &mut self.new_key)?;
        Ok(self.old_key == self.new_key)
    }
}

impl<K, V, K2, V2> Processor<K, Change<V>> for SelectGroup<K, V, K2, V2>
where
    K: 'static,
    V: 'static,
    K2: 'static,
    V2: 'static,
{
    type KeyOut = K2;
    type ValueOut = Change<V2>;

    fn process(&mut self, record: Record<K, Change<V>>, ctx: &mut ProcessorContext<'_, K2, Change<V2>>) -> Result<()> {
        let Record { key, value: Change { old, new, is_latest }, timestamp, headers } = record;
        if self.is_versioned && !is_latest {
            return Ok(()); // Java does not count it as dropped
        }
        let (old, new) = (self.select(&key, old.as_ref()), self.select(&key, new.as_ref()));
        match (old, new) {
            // One record, so that nobody sees the group without the row.
            (Some((old_key, old)), Some((key, new))) if self.combines && self.is_same(&old_key, &key)? => {
                ctx.forward(Record {
                    key,
                    value: Change { old: Some(old), new: Some(new), is_latest },
                    timestamp,
                    headers,
                })
            }
            (old, new) => {
                if let Some((key, old)) = old {
                    let value = Change { old: Some(old), new: None, is_latest };
                    ctx.forward(Record { key, value, timestamp, headers: headers.clone() })?;
                }
                match new {
                    Some((key, new)) => {
                        let value = Change { old: None, new: Some(new), is_latest };
                        ctx.forward(Record { key, value, timestamp, headers })
                    }
                    None => Ok(()),
                }
            }
        }
    }
}

/// Takes the old row out of its group's row, then puts the new one in.
pub(crate) struct TableAggregate<K, V, A> {
    pub rows: TableStore<K, A>,
    /// Gets none while the group has no row.
    pub add: Aggregator<K, V, A>,
    /// Only called while the group has a row.
    pub subtract: Aggregator<K, V, A>,
}

impl<K: 'static, V: 'static, A: 'static> Processor<K, Change<V>> for TableAggregate<K, V, A> {
    type KeyOut = K;
    type ValueOut = Change<A>;

    fn process(&mut self, record: Record<K, Change<V>>, ctx: &mut ProcessorContext<'_, K, Change<A>>) -> Result<()> {
        let Record { key, value: change, timestamp, headers } = record;
        let row = self.rows.get(ctx.task, &key)?;
        let timestamp = row.as_ref().map_or(timestamp, |row| row.timestamp.max(timestamp));
        let old = match self.rows.needs_old_value() {
            true => self.rows.get(ctx.task, &key)?.map(|row| row.value),
            false => None,
        };
        let row = row.map(|row| row.value);
        let row = match (change.old, row) {
            (Some(value), Some(row)) => (self.subtract)(&key, value, Some(row)),
            (_, row) => row,
        };
        let new = match change.new {
            Some(value) => (self.add)(&key, value, row),
            None => row,
        };
        self.rows.update(Record { key, value: Change::latest(old, new), timestamp, headers }, ctx)
    }

    fn flush(&mut self, ctx: &mut ProcessorContext<'_, K, Change<A>>) -> Result<()> {
        self.rows.flush(ctx)
    }

    fn expire(&mut self, ctx: &mut ProcessorContext<'_, K, Change<A>>) -> Result<()> {
        self.rows.expire(ctx)
    }
}
