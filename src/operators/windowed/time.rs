//! Folds a stream into a row for each key and window of a grid, or for each key in the one window without an end.

use std::sync::Arc;

use super::changes::{EmitStrategy, RowForm, WindowedChanges};
use super::closing::{Closable, Closed, Closing};
use super::late::LateRecords;
use super::{ObservedTime, drop_late};
use crate::error::Result;
use crate::operators::table::View;
use crate::operators::{Aggregator, Initializer};
use crate::record::{Change, Headers, Record, ValueAndTimestamp};
use crate::serdes::{DynSerde, Timestamped};
use crate::state::{StoreBuilder, TimestampedWindowStore};
use crate::topology::{Processor, ProcessorContext, ProcessorInit, TaskContext};
use crate::window::{TimeWindows, UnlimitedWindows, Window, Windowed};

/// Windows whose start and end follow from a timestamp alone.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Grid {
    Time(TimeWindows),
    Unlimited(UnlimitedWindows),
}

impl Grid {
    fn grace_ms(&self) -> i64 {
        match self {
            Grid::Time(windows) => windows.grace_ms(),
            Grid::Unlimited(_) => 0,
        }
    }

    fn advance_ms(&self) -> i64 {
        match self {
            Grid::Time(windows) => windows.advance_ms(),
            Grid::Unlimited(_) => i64::MAX,
        }
    }

    fn windows_for(&self, timestamp: i64) -> impl Iterator<Item = Window> + use<> {
        let (time, unlimited) = match self {
            Grid::Time(windows) => (Some(windows.windows_for(timestamp)), None),
            Grid::Unlimited(windows) => (None, windows.window_for(timestamp)),
        };
        time.into_iter().flatten().chain(unlimited)
    }
}

/// What an operator over a window store is made from.
pub(crate) struct WindowStoreSpec<K, A> {
    pub store: StoreBuilder<TimestampedWindowStore<K, A>>,
    pub key: DynSerde<K>,
    pub value: DynSerde<A>,
    pub emit: EmitStrategy,
}

impl<K, A> Clone for WindowStoreSpec<K, A> {
    fn clone(&self) -> Self {
        let (key, value) = (Arc::clone(&self.key), Arc::clone(&self.value));
        WindowStoreSpec { store: self.store.clone(), key, value, emit: self.emit }
    }
}

impl<K: 'static, A: 'static> WindowStoreSpec<K, A> {
    pub(super) fn open(&self, init: &mut ProcessorInit<'_>) -> Result<OpenedWindows<K, A>> {
        let store = init.store(&self.store)?;
        let index = store.index();
        let rows = RowForm::Timestamped(Timestamped(Arc::clone(&self.value)));
        let changes = WindowedChanges::new(init, index, store.row_keys(), rows, self.emit);
        let closing = (!changes.emits_updates()).then(|| Closing::new(init, &self.store.spec.name, index));
        Ok(OpenedWindows { store, changes, closing })
    }
}

pub(super) struct OpenedWindows<K, A> {
    pub store: TimestampedWindowStore<K, A>,
    pub changes: WindowedChanges<K, A>,
    /// Only where results wait for the end of their window.
    pub closing: Option<Closing>,
}

/// `count`, `reduce` and `aggregate` over time windows. A null value goes to the aggregator, unlike elsewhere.
pub(crate) struct TimeWindowAggregate<K, V, A> {
    name: Arc<str>,
    opened: OpenedWindows<K, A>,
    key: DynSerde<K>,
    value: DynSerde<A>,
    grid: Grid,
    aggregator: Aggregator<K, V, A>,
    /// What a window begins with; a reduction begins with the first value. As in Java, it is also what the first change of
    /// a window has as its old value.
    initializer: Option<Initializer<A>>,
    time: ObservedTime,
    late: LateRecords<K, V>,
}

impl<K: Clone + 'static, V: Clone + 'static, A: 'static> TimeWindowAggregate<K, V, A> {
    pub(crate) fn new(
        init: &mut ProcessorInit<'_>,
        spec: &WindowStoreSpec<K, A>,
        grid: Grid,
        initializer: Option<Initializer<A>>,
        aggregator: Aggregator<K, V, A>,
        late: Option<&Arc<str>>,
    ) -> Result<Self> {
        let late = LateRecords::open(init, late)?;
        let (name, opened) = (init.node_name(), spec.open(init)?);
        let time = ObservedTime::resume(init, &spec.store.spec.name, grid.advance_ms() - 1);
        let (key, value) = (Arc::clone(&spec.key), Arc::clone(&spec.value));
        Ok(TimeWindowAggregate { name, opened, key, value, grid, aggregator, initializer, time, late })
    }

    /// The new row of a key in a window; none deletes it.
    fn update(
        &mut self,
        window: Window,
        Record { key, value, timestamp, headers }: Record<K, V>,
        ctx: &mut ProcessorContext<'_, Windowed<K>, Change<A>>,
    ) -> Result<()> {
        let initial = || self.initializer.as_ref().map(|initializer| initializer());
        let OpenedWindows { store, changes, .. } = &mut self.opened;
        let row = store.fetch(ctx.task, &key, window.start)?;
        let timestamp = row.as_ref().map_or(timestamp, |row| row.timestamp.max(timestamp));
        // Read twice rather than cloned: few ask for old values, and rows need not be Clone for them.
        let old = match changes.needs_old_value() {
            true => store.fetch(ctx.task, &key, window.start)?.map(|row| row.value).or_else(initial),
            false => None,
        };
        let row = row.map(|row| row.value).or_else(initial);
        let new = (self.aggregator)(&key, value, row);
        let new = match new.filter(|row| !self.value.is_null(row)) {
            Some(value) => {
                let row = ValueAndTimestamp { value, timestamp };
                store.put(ctx.task, &key, &row, window.start)?;
                Some(row.value)
            }
            None => {
                store.delete(ctx.task, &key, window.start)?;
                None
            }
        };
        let key = Windowed { key, window };
        changes.update(Record { key, value: Change::latest(old, new), timestamp, headers }, ctx)
    }

    fn emit_closed(
        &mut self,
        timestamp: i64,
        close_time: i64,
        headers: &Headers,
        ctx: &mut ProcessorContext<'_, Windowed<K>, Change<A>>,
    ) -> Result<()> {
        let (OpenedWindows { store, closing: Some(closing), .. }, Grid::Time(windows)) = (&mut self.opened, &self.grid)
        else {
            return Ok(());
        };
        let size = windows.size_ms();
        // The last window of the grid that begins at or before the time.
        let last_start = windows.windows_for(timestamp).last().map_or(timestamp, |window| window.start);
        let from = closing.emitted().map_or(0, |emitted| emitted.saturating_sub(size).max(0) + 1);
        let to = close_time - size;
        let has_closed = to >= 0
            && (closing.emitted().is_none() || windows.windows_for(to).ne(windows.windows_for(from.saturating_sub(1))));
        let range = has_closed.then_some(Closed { from, to });
        let Some(Closed { from, to }) = closing.is_due(ctx, close_time, last_start, range) else { return Ok(()) };
        let rows = closed_rows(store, from, to, ctx.task)?;
        closing.emit(rows, &self.key, close_time, headers, ctx)
    }
}

/// The rows of windows that begin in a span of time, both ends included, whether reads still show them or not.
fn closed_rows<K: 'static, A: 'static>(
    store: &TimestampedWindowStore<K, A>,
    from: i64,
    to: i64,
    task: &mut TaskContext,
) -> Result<Vec<Closable<K, A>>> {
    task.stores.show_expired(store.index(), true);
    let rows = store.fetch_all(from, to).collect(task);
    task.stores.show_expired(store.index(), false);
    let closable = |(key, row): (Windowed<K>, ValueAndTimestamp<A>)| {
        let ValueAndTimestamp { value, timestamp } = row;
        Closable { key, value, timestamp }
    };
    Ok(rows?.into_iter().map(closable).collect())
}

impl<K: Clone + 'static, V: Clone + 'static, A: 'static> Processor<K, V> for TimeWindowAggregate<K, V, A> {
    type KeyOut = Windowed<K>;
    type ValueOut = Change<A>;

    fn process(&mut self, record: Record<K, V>, ctx: &mut ProcessorContext<'_, Windowed<K>, Change<A>>) -> Result<()> {
        if self.key.is_null(&record.key) {
            ctx.task.drop_record(&self.name, "its key is null");
            return Ok(());
        }
        let close_time = self.time.observe(record.timestamp).saturating_sub(self.grid.grace_ms());
        self.emit_closed(record.timestamp, close_time, &record.headers, ctx)?;
        let mut windows = self.grid.windows_for(record.timestamp).peekable();
        let mut record = Some(record);
        while let Some(window) = windows.next() {
            let is_open = window.end > close_time;
            if !is_open {
                drop_late(ctx.task, &self.name, window, self.time.get(), close_time);
                if !self.late.are_wanted() {
                    continue;
                }
            }
            // The last window gets the record itself: tumbling windows never clone.
            let part = if windows.peek().is_some() { record.clone() } else { record.take() };
            let Some(part) = part else { break };
            match is_open {
                true => self.update(window, part, ctx)?,
                false => self.late.add(part, window),
            }
        }
        Ok(())
    }

    fn flush(&mut self, ctx: &mut ProcessorContext<'_, Windowed<K>, Change<A>>) -> Result<()> {
        self.opened.changes.flush(ctx)
    }
}

/// The rows of time, sliding and unlimited windows, for other operators of the task.
impl<K: 'static, A: 'static> View<Windowed<K>, A> for TimestampedWindowStore<K, A> {
    fn get(&mut self, task: &mut TaskContext, key: &Windowed<K>) -> Result<Option<ValueAndTimestamp<A>>> {
        self.fetch(task, &key.key, key.window.start)
    }
}
