//! Joins a stream with a global table.

use std::sync::Arc;

use super::stream_table_join::JoinKind;
use super::table::View;
use super::{KeySelector, ValueJoiner};
use crate::error::Result;
use crate::record::Record;
use crate::serdes::DynSerde;
use crate::topology::{Processor, ProcessorContext};

/// Looks up a row of the global table for each record of the stream, under the key that a function makes of the record.
pub(crate) struct GlobalJoin<K, V, KG, VG, VR> {
    pub name: Arc<str>,
    pub kind: JoinKind,
    pub key: DynSerde<K>,
    pub value: DynSerde<V>,
    /// Of the table: tells whether a selected key is null.
    pub table_key: DynSerde<KG>,
    pub select: KeySelector<K, V, Option<KG>>,
    pub table: Box<dyn View<KG, VG>>,
    pub joiner: ValueJoiner<K, V, VG, VR>,
}

impl<K: 'static, V: 'static, KG: 'static, VG: 'static, VR: 'static> Processor<K, V> for GlobalJoin<K, V, KG, VG, VR> {
    type KeyOut = K;
    type ValueOut = VR;

    fn process(&mut self, record: Record<K, V>, ctx: &mut ProcessorContext<'_, K, VR>) -> Result<()> {
        let Record { key, value, timestamp, headers } = record;
        let selected = (self.select)(&key, &value).filter(|selected| !self.table_key.is_null(selected));
        // A left join keeps a record with a null key (KIP-962), whatever is selected for it.
        let is_kept = selected.is_some() || (self.kind == JoinKind::Left && self.key.is_null(&key));
        if self.value.is_null(&value) || !is_kept {
            ctx.task.drop_record(&self.name, "its value, or the key to join by, is null");
            return Ok(());
        }
        let row = match &selected {
            Some(selected) => self.table.get(ctx.task, selected)?,
            None => None,
        };
        match (self.joiner)(&key, value, row.map(|row| row.value)) {
            Some(value) => ctx.forward(Record { key, value, timestamp, headers }),
            None => Ok(()),
        }
    }
}
