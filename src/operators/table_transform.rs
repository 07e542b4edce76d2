//! Maps the rows of a table with functions that may keep state.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::time::Duration;

use super::table::View;
use super::table_store::TableStore;
use crate::error::Result;
use crate::record::{Change, Headers, Record, ValueAndTimestamp};
use crate::state::{RecordContext, StoreContext, TaskStores};
use crate::topology::{NodeId, Processor, ProcessorContext, ProcessorInit, Punctuation, PunctuationType, TaskContext};

/// Makes rows of rows, with stores and schedules: [`transform_values`](crate::KTable::transform_values). It cannot change
/// keys and forwards nothing.
///
/// ```
/// use kstreams::*;
///
/// /// Says with each row how often it has changed.
/// struct Changes {
///     seen: KeyValueStore<String, i64>,
/// }
///
/// impl ValueTransformerWithKey<String, String> for Changes {
///     type ValueOut = String;
///
///     fn transform(&mut self, key: &String, row: Option<String>, ctx: &mut TransformContext<'_>) -> Result<Option<String>> {
///         let seen = self.seen.get(ctx, key)?.unwrap_or(0) + 1;
///         self.seen.put(ctx, key, &seen)?;
///         Ok(row.map(|row| format!("{row}#{seen}")))
///     }
/// }
///
/// let seen = Stores::key_value("seen", Utf8, I64);
/// let processed = Processed::default().with_store(&seen);
/// let builder = StreamsBuilder::new();
/// builder
///     .table("in", Consumed::with(Utf8, Utf8), Materialized::default())
///     .transform_values(move |init| Ok(Changes { seen: init.store(&seen)? }), processed)
///     .to_stream()
///     .to("out", Produced::with(Utf8, Utf8));
/// builder.build()?;
/// # Ok::<(), Error>(())
/// ```
pub trait ValueTransformerWithKey<K, V>: 'static {
    /// The rows that it makes.
    type ValueOut: 'static;

    /// Makes a row of a row. None is a deleted row, on both sides: unlike the function of
    /// [`map_values`](crate::KTable::map_values) this is called for it.
    ///
    /// Where changes have to say what a row was before, it is called for that row as well.
    ///
    /// # Errors
    /// Any; make it with [`Error::user`](crate::Error::user). The processing handler decides what happens to the change.
    fn transform(&mut self, key: &K, row: Option<V>, ctx: &mut TransformContext<'_>) -> Result<Option<Self::ValueOut>>;

    /// Called when a schedule made by this transformer is due, with the time (ms) it is called at.
    ///
    /// # Errors
    /// As [`transform`](ValueTransformerWithKey::transform).
    fn punctuate(&mut self, _punctuation: Punctuation, _timestamp: i64, _ctx: &mut TransformContext<'_>) -> Result<()> {
        Ok(())
    }

    /// Called once when the task is closed cleanly. After a failure it is not called.
    fn close(&mut self) {}
}

/// The task, seen from a [`ValueTransformerWithKey`]: everything of [`TaskContext`], but no way to forward.
///
/// While the table is only computed for a reader, there is no [record](TaskContext::record_metadata): the row is an
/// earlier one.
pub struct TransformContext<'a> {
    task: &'a mut TaskContext,
    headers: &'a Headers,
    /// None while a row is computed for a reader.
    node: Option<NodeId>,
}

impl TransformContext<'_> {
    /// The time of the row (ms); -1 when there is no row.
    pub fn timestamp(&self) -> i64 {
        self.task.record.timestamp
    }

    /// The headers of the record that has changed the row.
    pub fn headers(&self) -> &Headers {
        self.headers
    }

    /// Calls [`punctuate`](ValueTransformerWithKey::punctuate) each interval (at least 1 ms) from now on.
    ///
    /// # Errors
    /// [`User`](crate::ErrorKind::User) while a row is only computed for a reader: schedule where the transformer is made.
    pub fn schedule(&mut self, interval: Duration, kind: PunctuationType) -> Result<Punctuation> {
        let node = self.node.ok_or_else(|| {
            crate::Error::user(
                "a transformer schedules while it computes a row for a reader: schedule where it is made",
            )
        })?;
        Ok(self.task.schedule(node, kind, crate::topology::millis(interval)))
    }

    /// Ends a schedule. May be called from its own punctuation.
    pub fn cancel(&mut self, punctuation: Punctuation) {
        self.task.schedules.cancel(punctuation);
    }
}

impl Deref for TransformContext<'_> {
    type Target = TaskContext;

    fn deref(&self) -> &TaskContext {
        self.task
    }
}

impl DerefMut for TransformContext<'_> {
    fn deref_mut(&mut self) -> &mut TaskContext {
        self.task
    }
}

impl StoreContext for TransformContext<'_> {
    fn stores(&mut self) -> (&mut TaskStores, &RecordContext) {
        self.task.stores()
    }
}

impl fmt::Debug for TransformContext<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TransformContext").field("task", &self.task).finish_non_exhaustive()
    }
}

/// Makes the transformer of a task, or that of a reader.
pub(crate) type TransformerMaker<T> = Arc<dyn Fn(&mut ProcessorInit<'_>) -> Result<T> + Send + Sync>;

/// Transforms the changes of a table.
pub(crate) struct TableTransformValues<K, T, V2> {
    pub transformer: T,
    pub rows: Option<TableStore<K, V2>>,
    pub sends_old_values: bool,
}

impl<K, V, T> Processor<K, Change<V>> for TableTransformValues<K, T, T::ValueOut>
where
    K: 'static,
    V: 'static,
    T: ValueTransformerWithKey<K, V>,
{
    type KeyOut = K;
    type ValueOut = Change<T::ValueOut>;

    fn process(
        &mut self,
        record: Record<K, Change<V>>,
        ctx: &mut ProcessorContext<'_, K, Change<T::ValueOut>>,
    ) -> Result<()> {
        let Record { key, value: Change { old, new, is_latest }, timestamp, headers } = record;
        let mut transform = |row, ctx: &mut ProcessorContext<'_, K, Change<T::ValueOut>>| {
            let node = Some(ctx.node);
            self.transformer.transform(&key, row, &mut TransformContext { task: ctx.task, headers: &headers, node })
        };
        let new = transform(new, ctx)?;
        let Some(rows) = &mut self.rows else {
            let old = if self.sends_old_values { transform(old, ctx)? } else { None };
            return ctx.forward(Record { key, value: Change { old, new, is_latest }, timestamp, headers });
        };
        let old = match rows.needs_old_value() {
            true => rows.get(ctx.task, &key)?.map(|row| row.value),
            false => None,
        };
        rows.update(Record { key, value: Change { old, new, is_latest }, timestamp, headers }, ctx)
    }

    fn punctuate(
        &mut self,
        punctuation: Punctuation,
        timestamp: i64,
        ctx: &mut ProcessorContext<'_, K, Change<T::ValueOut>>,
    ) -> Result<()> {
        let mut ctx = TransformContext { node: Some(ctx.node), headers: &Headers::new(), task: ctx.task };
        self.transformer.punctuate(punctuation, timestamp, &mut ctx)
    }

    fn close(&mut self) {
        self.transformer.close();
    }

    fn flush(&mut self, ctx: &mut ProcessorContext<'_, K, Change<T::ValueOut>>) -> Result<()> {
        self.rows.as_mut().map_or(Ok(()), |rows| rows.flush(ctx))
    }

    fn expire(&mut self, ctx: &mut ProcessorContext<'_, K, Change<T::ValueOut>>) -> Result<()> {
        self.rows.as_mut().map_or(Ok(()), |rows| rows.expire(ctx))
    }
}

/// A transformed table without a store: a reader has a transformer of its own.
pub(crate) struct TransformedView<K, V, T> {
    pub parent: Box<dyn View<K, V>>,
    pub transformer: T,
}

impl<K: 'static, V: 'static, T: ValueTransformerWithKey<K, V>> View<K, T::ValueOut> for TransformedView<K, V, T> {
    fn get(&mut self, task: &mut TaskContext, key: &K) -> Result<Option<ValueAndTimestamp<T::ValueOut>>> {
        let row = self.parent.get(task, key)?;
        self.transform(task, key, row)
    }

    fn is_versioned(&self) -> bool {
        self.parent.is_versioned()
    }

    fn get_as_of(
        &mut self,
        task: &mut TaskContext,
        key: &K,
        time: i64,
    ) -> Result<Option<ValueAndTimestamp<T::ValueOut>>> {
        let row = self.parent.get_as_of(task, key, time)?;
        self.transform(task, key, row)
    }
}

impl<K: 'static, V: 'static, T: ValueTransformerWithKey<K, V>> TransformedView<K, V, T> {
    fn transform(
        &mut self,
        task: &mut TaskContext,
        key: &K,
        row: Option<ValueAndTimestamp<V>>,
    ) -> Result<Option<ValueAndTimestamp<T::ValueOut>>> {
        let timestamp = row.as_ref().map_or(-1, |row| row.timestamp);
        // The row came with another record than the one in hand, and nobody knows it any more.
        let outer = (std::mem::replace(&mut task.record.timestamp, timestamp), task.record.position.take());
        let mut ctx = TransformContext { task, headers: &Headers::new(), node: None };
        let value = self.transformer.transform(key, row.map(|row| row.value), &mut ctx);
        (task.record.timestamp, task.record.position) = outer;
        Ok(value?.map(|value| ValueAndTimestamp { value, timestamp }))
    }
}
