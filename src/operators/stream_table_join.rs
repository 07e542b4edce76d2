//! Joins a stream with a table.

use std::sync::Arc;

use super::table::View;
use super::{KeySelector, ValueJoiner};
use crate::error::Result;
use crate::record::Record;
use crate::serdes::DynSerde;
use crate::topology::{Processor, ProcessorContext};

/// What becomes of a record of the stream that finds no row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum JoinKind {
    Inner,
    Left,
}

/// Looks up the row of the table for each record of the stream. A change of the table joins nothing.
pub(crate) struct StreamTableJoin<K, V, VT, VR> {
    pub name: Arc<str>,
    pub kind: JoinKind,
    pub key: DynSerde<K>,
    pub value: DynSerde<V>,
    pub table: Box<dyn View<K, VT>>,
    pub joiner: ValueJoiner<K, V, VT, VR>,
    /// The time a row is looked up at; none: that of the record.
    pub as_of: Option<KeySelector<K, V, i64>>,
}

impl<K: 'static, V: 'static, VT: 'static, VR: 'static> StreamTableJoin<K, V, VT, VR> {
    /// Whether a record joins nothing because of a null.
    pub(super) fn drops(&self, record: &Record<K, V>) -> bool {
        self.value.is_null(&record.value) || (self.kind == JoinKind::Inner && self.key.is_null(&record.key))
    }
}

impl<K: 'static, V: 'static, VT: 'static, VR: 'static> Processor<K, V> for StreamTableJoin<K, V, VT, VR> {
    type KeyOut = K;
    type ValueOut = VR;

    fn process(&mut self, record: Record<K, V>, ctx: &mut ProcessorContext<'_, K, VR>) -> Result<()> {
        if self.drops(&record) {
            ctx.task.drop_record(&self.name, "its key or value is null");
            return Ok(());
        }
        let Record { key, value, timestamp, headers } = record;
        let is_null = self.key.is_null(&key);
        // A null key finds nothing, but its record is kept by a left join (KIP-962).
        let row = match is_null {
            true => None,
            // What the row was at the record's time (KIP-914).
            false if self.table.is_versioned() => {
                let time = self.as_of.as_ref().map_or(timestamp, |as_of| as_of(&key, &value));
                self.table.get_as_of(ctx.task, &key, time)?
            }
            false => self.table.get(ctx.task, &key)?,
        };
        match (self.joiner)(&key, value, row.map(|row| row.value)) {
            Some(value) => ctx.forward(Record { key, value, timestamp, headers }),
            None => Ok(()),
        }
    }
}
