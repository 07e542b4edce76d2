//! Folds a stream into rows.

use std::sync::Arc;

use super::table_store::TableStore;
use super::{Aggregator, Initializer};
use crate::error::Result;
use crate::record::{Change, Record};
use crate::serdes::DynSerde;
use crate::topology::{Processor, ProcessorContext};

/// Folds the records of a key into one row: `count`, `reduce`, `aggregate`.
pub(crate) struct Aggregate<K, V, A> {
    pub name: Arc<str>,
    pub rows: TableStore<K, A>,
    pub value: DynSerde<V>,
    pub aggregator: Aggregator<K, V, A>,
    /// What a row begins with; a reduction begins with the first value. As in Java, it is also what the first change of
    /// a key has as its old value.
    pub initializer: Option<Initializer<A>>,
}

impl<K: 'static, V: 'static, A: 'static> Processor<K, V> for Aggregate<K, V, A> {
    type KeyOut = K;
    type ValueOut = Change<A>;

    fn process(&mut self, record: Record<K, V>, ctx: &mut ProcessorContext<'_, K, Change<A>>) -> Result<()> {
        let Record { key, value, timestamp, headers } = record;
        if self.rows.is_null_key(&key) || self.value.is_null(&value) {
            ctx.task.drop_record(&self.name, "its key or value is null");
            return Ok(());
        }
        let initial = || self.initializer.as_ref().map(|initializer| initializer());
        let row = self.rows.get(ctx.task, &key)?;
        let timestamp = row.as_ref().map_or(timestamp, |row| row.timestamp.max(timestamp));
        // Read twice rather than cloned: few ask for old values, and rows need not be Clone for them.
        let old = match self.rows.needs_old_value() {
            true => self.rows.get(ctx.task, &key)?.map(|row| row.value).or_else(initial),
            false => None,
        };
        let row = row.map(|row| row.value).or_else(initial);
        let new = (self.aggregator)(&key, value, row);
        self.rows.update(Record { key, value: Change::latest(old, new), timestamp, headers }, ctx)
    }

    fn flush(&mut self, ctx: &mut ProcessorContext<'_, K, Change<A>>) -> Result<()> {
        self.rows.flush(ctx)
    }

    fn expire(&mut self, ctx: &mut ProcessorContext<'_, K, Change<A>>) -> Result<()> {
        self.rows.expire(ctx)
    }
}
