//! The way of a windowed table's changes downstream: the one place that decides when.

use crate::error::Result;
use crate::record::{Change, Record, ValueAndTimestamp};
use crate::serdes::{DynSerde, Serde, Timestamped};
use crate::state::WindowedKey;
use crate::topology::{ProcessorContext, ProcessorInit};
use crate::window::{Window, Windowed};

/// When the results of windows go downstream (KIP-825).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum EmitStrategy {
    /// Each update, or the last of each commit where the store is cached. The default.
    #[default]
    OnWindowUpdate,
    /// One result for each window, once it takes no more records. Looked for when a record comes, or less often:
    /// [`Config::window_emit_interval`](crate::Config::window_emit_interval). No result while no record comes.
    OnWindowClose,
}

/// What the rows of a windowed store say.
pub(crate) enum RowForm<A> {
    /// A value and the time of the last record in it.
    Timestamped(Timestamped<DynSerde<A>>),
    /// Only a value: the time of a session is its end.
    Session(DynSerde<A>),
}

impl<A: 'static> RowForm<A> {
    fn read(&self, bytes: &[u8], window: Window) -> Result<ValueAndTimestamp<A>> {
        match self {
            RowForm::Timestamped(rows) => rows.deserialize(bytes),
            RowForm::Session(values) => {
                Ok(ValueAndTimestamp { value: values.deserialize(bytes)?, timestamp: window.end })
            }
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Emission {
    AtOnce,
    WithCommit,
    AtTheEnd,
}

/// Sends the changes of a windowed table on their way.
pub(crate) struct WindowedChanges<K, A> {
    index: usize,
    keys: WindowedKey<K>,
    rows: RowForm<A>,
    emission: Emission,
    sends_old_values: bool,
}

impl<K: 'static, A: 'static> WindowedChanges<K, A> {
    pub(crate) fn new(
        init: &mut ProcessorInit<'_>,
        index: usize,
        keys: WindowedKey<K>,
        rows: RowForm<A>,
        emit: EmitStrategy,
    ) -> WindowedChanges<K, A> {
        let sends_old_values = init.sends_old_values();
        let stores = &mut init.task.stores;
        let emission = match emit {
            EmitStrategy::OnWindowClose => Emission::AtTheEnd,
            EmitStrategy::OnWindowUpdate if stores.is_cached(index) => Emission::WithCommit,
            EmitStrategy::OnWindowUpdate => Emission::AtOnce,
        };
        if emission != Emission::AtTheEnd {
            stores.set_forwards(index);
        }
        WindowedChanges { index, keys, rows, emission, sends_old_values }
    }

    /// Whether a change has to come with the row as it was. A cache finds it by itself.
    pub(crate) fn needs_old_value(&self) -> bool {
        self.sends_old_values && self.emission == Emission::AtOnce
    }

    /// Whether each change goes downstream, now or later.
    pub(crate) fn emits_updates(&self) -> bool {
        self.emission != Emission::AtTheEnd
    }

    /// Sees to a change that the store already has.
    pub(crate) fn update(
        &mut self,
        record: Record<Windowed<K>, Change<A>>,
        ctx: &mut ProcessorContext<'_, Windowed<K>, Change<A>>,
    ) -> Result<()> {
        match self.emission {
            Emission::AtOnce => ctx.forward(record),
            Emission::WithCommit if ctx.task.stores.is_cache_full() => self.flush(ctx),
            Emission::WithCommit | Emission::AtTheEnd => Ok(()),
        }
    }

    /// Forwards what was held back, in the order of the last updates, each as if its record were in hand again.
    pub(crate) fn flush(&mut self, ctx: &mut ProcessorContext<'_, Windowed<K>, Change<A>>) -> Result<()> {
        if self.emission != Emission::WithCommit {
            return Ok(());
        }
        let outer = std::mem::take(&mut ctx.task.record);
        let result = self.forward_dirty(ctx);
        ctx.task.record = outer;
        result
    }

    fn forward_dirty(&mut self, ctx: &mut ProcessorContext<'_, Windowed<K>, Change<A>>) -> Result<()> {
        while let Some(row) = ctx.task.stores.take_dirty(self.index, self.sends_old_values)? {
            let key = self.keys.read(&row.key)?;
            let read = |bytes: Option<Vec<u8>>| bytes.map(|bytes| self.rows.read(&bytes, key.window)).transpose();
            let (new, old) = (read(row.new)?, read(row.old)?);
            let timestamp = match (&self.rows, &new) {
                (RowForm::Session(_), _) => key.window.end,
                (RowForm::Timestamped(_), Some(row)) => row.timestamp,
                (RowForm::Timestamped(_), None) => row.context.timestamp,
            };
            let headers = row.context.headers.clone();
            let value = Change::latest(old.map(|row| row.value), new.map(|row| row.value));
            let outer = ctx.task.take_up(row.context);
            let forwarded = ctx.forward(Record { key, value, timestamp, headers });
            ctx.task.put_back(outer);
            forwarded?;
        }
        Ok(())
    }
}
