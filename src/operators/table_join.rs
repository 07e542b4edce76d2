//! Joins two tables on their key.

use std::sync::Arc;

use super::table::View;
use super::table_store::TableStore;
use crate::error::Result;
use crate::record::{Change, Record, ValueAndTimestamp};
use crate::topology::{Processor, ProcessorContext, TaskContext};

/// Of a row of this table and one of the other; one of the two at least is there. None is no row.
pub(crate) type TableJoiner<V, VO, VR> = Arc<dyn Fn(Option<V>, Option<VO>) -> Option<VR> + Send + Sync>;

/// Which rows a result needs, as one of the two tables sees it: the other side of a left join is a right join.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TableJoinKind {
    Inner,
    Left,
    Right,
    Outer,
}

impl TableJoinKind {
    /// The same join from the other table.
    pub(crate) fn reversed(self) -> TableJoinKind {
        match self {
            TableJoinKind::Left => TableJoinKind::Right,
            TableJoinKind::Right => TableJoinKind::Left,
            TableJoinKind::Inner | TableJoinKind::Outer => self,
        }
    }

    fn needs_own(self) -> bool {
        matches!(self, TableJoinKind::Inner | TableJoinKind::Left)
    }

    fn needs_other(self) -> bool {
        matches!(self, TableJoinKind::Inner | TableJoinKind::Right)
    }
}

/// Joins the changes of one table with the rows of another: one of the two sides of a join.
pub(crate) struct TableTableJoin<K, V, VO, VR> {
    pub name: Arc<str>,
    pub kind: TableJoinKind,
    pub other: Box<dyn View<K, VO>>,
    pub joiner: TableJoiner<V, VO, VR>,
    /// Whether changes may come out of order; such a change joins nothing (KIP-914).
    pub is_versioned: bool,
    pub sends_old_values: bool,
}

impl<K, V, VO, VR> Processor<K, Change<V>> for TableTableJoin<K, V, VO, VR>
where
    K: 'static,
    V: 'static,
    VO: 'static,
    VR: 'static,
{
    type KeyOut = K;
    type ValueOut = Change<VR>;

    fn process(&mut self, record: Record<K, Change<V>>, ctx: &mut ProcessorContext<'_, K, Change<VR>>) -> Result<()> {
        let Record { key, value: Change { old, new, is_latest }, timestamp, headers } = record;
        if self.is_versioned && !is_latest {
            ctx.task.drop_record(&self.name, "a newer row of its versioned table has been joined");
            return Ok(());
        }
        let other = self.other.get(ctx.task, &key)?;
        let has_other = other.is_some();
        if !has_other && (self.kind.needs_other() || (old.is_none() && new.is_none())) {
            return Ok(());
        }
        let timestamp = other.as_ref().map_or(timestamp, |row| row.timestamp.max(timestamp));
        let is_joined = |own: &Option<V>| own.is_some() || (has_other && !self.kind.needs_own());
        let (joins_old, joins_new) = (self.sends_old_values && is_joined(&old), is_joined(&new));
        // Read twice rather than cloned: few ask for old values, and rows need not be Clone for them.
        let again = if joins_old && joins_new { self.other.get(ctx.task, &key)? } else { None };
        let (for_old, for_new) = if joins_new { (again, other) } else { (other, None) };
        let join = |own, other: Option<ValueAndTimestamp<VO>>| (self.joiner)(own, other.map(|row| row.value));
        let new = if joins_new { join(new, for_new) } else { None };
        let old = if joins_old { join(old, for_old) } else { None };
        ctx.forward(Record { key, value: Change { old, new, is_latest }, timestamp, headers })
    }
}

/// Where the two sides of a join meet: the rows of the result, if they are kept.
pub(crate) struct MergeJoined<K, V> {
    pub rows: Option<TableStore<K, V>>,
}

impl<K: 'static, V: 'static> Processor<K, Change<V>> for MergeJoined<K, V> {
    type KeyOut = K;
    type ValueOut = Change<V>;

    fn process(&mut self, record: Record<K, Change<V>>, ctx: &mut ProcessorContext<'_, K, Change<V>>) -> Result<()> {
        let mut record = record;
        match &mut self.rows {
            Some(rows) => {
                // The sides only know what the row was when it was made.
                if rows.needs_old_value() && rows.expires(ctx.task) {
                    record.value.old = rows.get(ctx.task, &record.key)?.map(|row| row.value);
                }
                rows.update(record, ctx)
            }
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

/// A joined table without a store: a row is joined anew for each reader.
pub(crate) struct JoinedView<K, V, VO, VR> {
    pub kind: TableJoinKind,
    pub this: Box<dyn View<K, V>>,
    pub other: Box<dyn View<K, VO>>,
    pub joiner: TableJoiner<V, VO, VR>,
}

impl<K, V, VO, VR> View<K, VR> for JoinedView<K, V, VO, VR> {
    fn get(&mut self, task: &mut TaskContext, key: &K) -> Result<Option<ValueAndTimestamp<VR>>> {
        let this = self.this.get(task, key)?;
        if this.is_none() && self.kind.needs_own() {
            return Ok(None);
        }
        let other = self.other.get(task, key)?;
        if (other.is_none() && self.kind.needs_other()) || (this.is_none() && other.is_none()) {
            return Ok(None);
        }
        let times = [this.as_ref().map(|row| row.timestamp), other.as_ref().map(|row| row.timestamp)];
        let timestamp = times.into_iter().flatten().max().unwrap_or_default();
        let value = (self.joiner)(this.map(|row| row.value), other.map(|row| row.value));
        Ok(value.map(|value| ValueAndTimestamp { value, timestamp }))
    }
}
