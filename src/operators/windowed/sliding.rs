//! Folds a stream into a row for each key and sliding window.
//!
//! Only windows with different records exist. A record at `t` has two of its own: the left one, `[t - d, t]`, and the right
//! one, `[t + 1, t + 1 + d]`, which exists once there is a record in it. A new record
//!
//! 1. is added to every window around it,
//! 2. makes the right window of the record before it, if it is the first in it,
//! 3. makes its left window, beginning with what the window before holds, if a record of that is in it,
//! 4. makes its right window from a later window that it was not in: a copy, without the record.
//!
//! Windows do not begin before the epoch: records earlier than `d` share the window `[0, d]`. The timestamp of a row is that
//! of the last record in it; the steps depend on it.

use std::collections::HashSet;
use std::sync::Arc;

use super::closing::{Closable, Closed, SameEnd, Upcoming};
use super::late::LateRecords;
use super::time::{OpenedWindows, WindowStoreSpec};
use super::{ObservedTime, drop_late};
use crate::error::{Error, Result};
use crate::operators::{Aggregator, Initializer};
use crate::record::{Change, Headers, Record, ValueAndTimestamp};
use crate::serdes::{Bytes, DynSerde, Timestamped};
use crate::state::{StoreKind, TimestampedWindowStore, WindowKind};
use crate::topology::{Processor, ProcessorContext, ProcessorInit, TaskContext};
use crate::window::{SlidingWindows, Window, Windowed};

/// `count`, `reduce` and `aggregate` over sliding windows.
pub(crate) struct SlidingAggregate<K, V, A> {
    name: Arc<str>,
    opened: OpenedWindows<K, A>,
    /// The same store with rows as bytes: a row goes into several windows, and need not be Clone.
    rows: TimestampedWindowStore<K, Vec<u8>>,
    /// Windows that have not been emitted yet; only where they wait for their end.
    upcoming: Upcoming,
    key_bytes: Vec<u8>,
    key: DynSerde<K>,
    value: DynSerde<V>,
    row: DynSerde<A>,
    windows: SlidingWindows,
    aggregator: Aggregator<K, V, A>,
    initializer: Option<Initializer<A>>,
    time: ObservedTime,
    late: LateRecords<K, V>,
}

/// The user's functions, and what nulls are.
pub(crate) struct SlidingFunctions<K, V, A> {
    pub value: DynSerde<V>,
    pub initializer: Option<Initializer<A>>,
    pub aggregator: Aggregator<K, V, A>,
    /// Where late records are left, if anybody wants them.
    pub late: Option<Arc<str>>,
}

impl<K, V, A> Clone for SlidingFunctions<K, V, A> {
    fn clone(&self) -> Self {
        let (value, aggregator) = (Arc::clone(&self.value), Arc::clone(&self.aggregator));
        let (initializer, late) = (self.initializer.as_ref().map(Arc::clone), self.late.as_ref().map(Arc::clone));
        SlidingFunctions { value, initializer, aggregator, late }
    }
}

/// The row of a window as bytes.
type Row = ValueAndTimestamp<Vec<u8>>;

type Context<'a, K, A> = ProcessorContext<'a, Windowed<K>, Change<A>>;

/// What the windows around a record say about those to make.
#[derive(Default)]
struct Around {
    starts: HashSet<i64>,
    /// The window before.
    left: Option<Row>,
    /// A later window that the record is in.
    right: Option<Row>,
    has_left: bool,
    has_right: bool,
    /// The time of the record before.
    previous: Option<i64>,
}

impl<K: Clone + 'static, V: Clone + 'static, A: 'static> SlidingAggregate<K, V, A> {
    pub(crate) fn new(
        init: &mut ProcessorInit<'_>,
        spec: &WindowStoreSpec<K, A>,
        kind: WindowKind,
        windows: SlidingWindows,
        functions: SlidingFunctions<K, V, A>,
    ) -> Result<Self> {
        let (name, opened) = (init.node_name(), spec.open(init)?);
        let bytes: DynSerde<Row> = Arc::new(Timestamped(Bytes));
        let kind = if let StoreKind::Window(kind) = init.declared(&spec.store.spec).kind { kind } else { kind };
        let rows = TimestampedWindowStore::new(opened.store.index(), kind, Arc::clone(&spec.key), bytes);
        let (key, row, time) = (
            Arc::clone(&spec.key),
            Arc::clone(&spec.value),
            ObservedTime::resume(init, &spec.store.spec.name, windows.difference_ms()),
        );
        let SlidingFunctions { value, initializer, aggregator, late } = functions;
        let late = LateRecords::open(init, late.as_ref())?;
        let (upcoming, key_bytes) = (Upcoming::unknown(SameEnd::ByStart), Vec::new());
        Ok(SlidingAggregate {
            name,
            opened,
            rows,
            upcoming,
            key_bytes,
            key,
            value,
            row,
            windows,
            aggregator,
            initializer,
            time,
            late,
        })
    }

    fn emit_closed(
        &mut self,
        timestamp: i64,
        close_time: i64,
        headers: &Headers,
        ctx: &mut Context<'_, K, A>,
    ) -> Result<()> {
        let difference = self.windows.difference_ms();
        let OpenedWindows { store, closing: Some(closing), .. } = &mut self.opened else { return Ok(()) };
        let from = closing.emitted().map_or(0, |emitted| emitted.saturating_sub(difference).max(0));
        let to = close_time - difference - 1;
        let range = (to >= from).then_some(Closed { from, to });
        // No window that the record makes begins later.
        let latest_start = timestamp.saturating_add(1);
        let Some(Closed { from, .. }) = closing.is_due(ctx, close_time, latest_start, range) else { return Ok(()) };
        let (index, last_end) = (store.index(), close_time - 1);
        loop {
            while let Some((window, key)) = self.upcoming.take(last_end) {
                let key = self.key.deserialize(&key)?;
                ctx.task.stores.show_expired(index, true);
                let row = store.fetch(ctx.task, &key, window.start);
                ctx.task.stores.show_expired(index, false);
                if let Some(ValueAndTimestamp { value, timestamp }) = row? {
                    let key = Windowed { key, window };
                    Closable { key, value, timestamp }.forward(headers, ctx)?;
                }
            }
            if self.upcoming.knows(last_end) {
                break;
            }
            let from = from.max(self.upcoming.complete_before().saturating_sub(difference));
            ctx.task.stores.show_expired(index, true);
            let read = read_upcoming(&mut self.upcoming, &self.rows, &self.key, from, ctx.task);
            ctx.task.stores.show_expired(index, false);
            read?;
        }
        closing.finish(close_time, ctx);
        Ok(())
    }

    /// Adds the record to the windows around it, the latest first, and says what it found.
    fn update_around(
        &mut self,
        record: &Record<K, V>,
        close_time: i64,
        ctx: &mut Context<'_, K, A>,
    ) -> Result<Option<Around>> {
        let (difference, at) = (self.windows.difference_ms(), record.timestamp);
        let mut around = Around::default();
        let earliest = at.saturating_sub(difference.saturating_mul(2)).max(0);
        let mut found = self.rows.backward_fetch(&record.key, earliest, at.saturating_add(1))?;
        while let Some((start, row)) = found.next(ctx.task)? {
            around.starts.insert(start);
            let end = start.saturating_add(difference);
            let last = row.timestamp;
            if start == at + 1 {
                around.has_right = true;
            } else if end > at {
                self.update(Window { start, end }, Some(&row), record, close_time, ctx)?;
                around.right.get_or_insert(row);
            } else if end == at {
                around.has_left = true;
                self.update(Window { start, end }, Some(&row), record, close_time, ctx)?;
                if last >= at {
                    // There was a record of this time before: it has made its windows.
                    return Ok(None);
                }
                around.previous = Some(last);
            } else {
                around.previous = Some(last);
                around.left = Some(row);
                break;
            }
        }
        Ok(Some(around))
    }

    fn process_record(&mut self, record: &Record<K, V>, close_time: i64, ctx: &mut Context<'_, K, A>) -> Result<()> {
        let (difference, at) = (self.windows.difference_ms(), record.timestamp);
        let Some(around) = self.update_around(record, close_time, ctx)? else { return Ok(()) };
        if let Some(start) = around.previous.map(|previous| previous.saturating_add(1)) {
            let end = start.saturating_add(difference);
            if end >= at && !around.starts.contains(&start) {
                self.update(Window { start, end }, None, record, close_time, ctx)?;
            }
        }
        if !around.has_left {
            let start = at - difference;
            let row = around.left.as_ref().filter(|_| around.previous.is_some_and(|previous| start <= previous));
            self.update(Window { start, end: at }, row, record, close_time, ctx)?;
        }
        if !around.has_right {
            self.make_right_window(around.right, record, ctx)?;
        }
        Ok(())
    }

    /// Records in the first `d` milliseconds have no left window of their own, which would begin before the epoch.
    fn process_early(&mut self, record: &Record<K, V>, close_time: i64, ctx: &mut Context<'_, K, A>) -> Result<()> {
        let (difference, at) = (self.windows.difference_ms(), record.timestamp);
        let (mut around, mut shared) = (Around::default(), None);
        for (start, row) in self.rows.fetch_range(&record.key, 0, at.saturating_add(1))?.collect(ctx.task)? {
            around.starts.insert(start);
            if start == 0 {
                around.previous = Some(row.timestamp).filter(|last| *last < at);
                shared = Some(row);
            } else if start <= at {
                let end = start.saturating_add(difference);
                self.update(Window { start, end }, Some(&row), record, close_time, ctx)?;
                around.right = Some(row);
            } else {
                around.has_right = true;
            }
        }
        // Without another window around the record, the shared one has only records after it or only ones before it.
        if around.right.is_none() {
            let later = shared.as_ref().filter(|row| row.timestamp > at);
            around.right = later.map(|row| Row { value: row.value.clone(), timestamp: row.timestamp });
        }
        if !around.has_right {
            self.make_right_window(around.right, record, ctx)?;
        }
        if let Some(start) = around.previous.map(|previous| previous.saturating_add(1))
            && !around.starts.contains(&start)
        {
            let window = Window { start, end: start.saturating_add(difference) };
            self.update(window, None, record, close_time, ctx)?;
        }
        self.update(Window { start: 0, end: difference }, shared.as_ref(), record, close_time, ctx)
    }

    /// Adds the record to a window: to its row, or to what a window begins with.
    fn update(
        &mut self,
        window: Window,
        row: Option<&Row>,
        record: &Record<K, V>,
        close_time: i64,
        ctx: &mut Context<'_, K, A>,
    ) -> Result<()> {
        if window.end < close_time {
            drop_late(ctx.task, &self.name, window, self.time.get(), close_time);
            if self.late.are_wanted() {
                self.late.add(record.clone(), window);
            }
            return Ok(());
        }
        let read = || match row {
            Some(row) => self.row.deserialize(&row.value).map(Some),
            None => Ok(self.initializer.as_ref().map(|initializer| initializer())),
        };
        let timestamp = row.map_or(record.timestamp, |row| row.timestamp.max(record.timestamp));
        let old = if self.opened.changes.needs_old_value() { read()? } else { None };
        let new = (self.aggregator)(&record.key, record.value.clone(), read()?);
        self.put(window, old, new, timestamp, record, ctx)
    }

    /// Copies a later window that has a record after this one.
    fn make_right_window(
        &mut self,
        later: Option<Row>,
        record: &Record<K, V>,
        ctx: &mut Context<'_, K, A>,
    ) -> Result<()> {
        let Some(row) = later.filter(|row| row.timestamp > record.timestamp) else { return Ok(()) };
        let start = record.timestamp.saturating_add(1);
        let window = Window { start, end: start.saturating_add(self.windows.difference_ms()) };
        let new = self.row.deserialize(&row.value)?;
        self.put(window, None, Some(new), row.timestamp, record, ctx)
    }

    fn put(
        &mut self,
        window: Window,
        old: Option<A>,
        new: Option<A>,
        timestamp: i64,
        record: &Record<K, V>,
        ctx: &mut Context<'_, K, A>,
    ) -> Result<()> {
        let OpenedWindows { store, changes, closing } = &mut self.opened;
        let new = match new.filter(|row| !self.row.is_null(row)) {
            Some(value) => {
                let row = ValueAndTimestamp { value, timestamp };
                store.put(ctx.task, &record.key, &row, window.start)?;
                if closing.is_some() {
                    self.key_bytes.clear();
                    self.key.serialize(&record.key, &mut self.key_bytes)?;
                    self.upcoming.add(window, &self.key_bytes);
                }
                Some(row.value)
            }
            None => {
                store.delete(ctx.task, &record.key, window.start)?;
                None
            }
        };
        let key = Windowed { key: record.key.clone(), window };
        let headers = record.headers.clone();
        changes.update(Record { key, value: Change::latest(old, new), timestamp, headers }, ctx)
    }
}

/// Reads the windows that begin at a time or later.
fn read_upcoming<K: 'static>(
    upcoming: &mut Upcoming,
    rows: &TimestampedWindowStore<K, Vec<u8>>,
    keys: &DynSerde<K>,
    from: i64,
    task: &mut TaskContext,
) -> Result<()> {
    upcoming.begin();
    let (mut found, mut key) = (rows.fetch_all(from, i64::MAX), Vec::new());
    while let Some((row, _)) = found.next(task)? {
        key.clear();
        keys.serialize(&row.key, &mut key)?;
        upcoming.add(row.window, &key);
    }
    Ok(())
}

impl<K: Clone + 'static, V: Clone + 'static, A: 'static> Processor<K, V> for SlidingAggregate<K, V, A> {
    type KeyOut = Windowed<K>;
    type ValueOut = Change<A>;

    fn process(&mut self, record: Record<K, V>, ctx: &mut Context<'_, K, A>) -> Result<()> {
        if self.key.is_null(&record.key) || self.value.is_null(&record.value) {
            ctx.task.drop_record(&self.name, "its key or value is null");
            return Ok(());
        }
        let (difference, at) = (self.windows.difference_ms(), record.timestamp);
        let observed = self.time.observe(at);
        let close_time = observed.saturating_sub(self.windows.grace_ms());
        if at.saturating_add(difference) < close_time {
            let window = Window { start: at.saturating_sub(difference), end: at };
            drop_late(ctx.task, &self.name, window, observed, close_time);
            self.late.add(record, window);
            return Ok(());
        }
        if difference == 0 {
            return Err(Error::user("sliding windows of 0 ms hold nothing: take a time difference of 1 ms or more"));
        }
        self.emit_closed(at, close_time, &record.headers, ctx)?;
        if at < difference {
            self.process_early(&record, close_time, ctx)
        } else {
            self.process_record(&record, close_time, ctx)
        }
    }

    fn flush(&mut self, ctx: &mut Context<'_, K, A>) -> Result<()> {
        self.opened.changes.flush(ctx)
    }
}
