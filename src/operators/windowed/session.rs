//! Folds a stream into a row for each key and session.

use std::sync::Arc;

use super::changes::{EmitStrategy, RowForm, WindowedChanges};
use super::closing::{Closable, Closed, Closing, SameEnd, Upcoming};
use super::late::LateRecords;
use super::{ObservedTime, drop_late};
use crate::error::Result;
use crate::operators::table::View;
use crate::operators::{Aggregator, Initializer};
use crate::record::{Change, Headers, Record, ValueAndTimestamp};
use crate::serdes::{Bytes, DynSerde};
use crate::state::{EngineKind, SessionKind, SessionStore, StoreBuilder, StoreKind};
use crate::topology::{Processor, ProcessorContext, ProcessorInit, TaskContext};
use crate::window::{SessionWindows, Window, Windowed};

/// Makes one row of two sessions: none at first.
pub(crate) type Merger<K, A> = Arc<dyn Fn(&K, Option<A>, A) -> Option<A> + Send + Sync>;

/// What an operator over a session store is made from.
pub(crate) struct SessionStoreSpec<K, A> {
    pub store: StoreBuilder<SessionStore<K, A>>,
    pub kind: SessionKind,
    pub key: DynSerde<K>,
    pub value: DynSerde<A>,
    pub emit: EmitStrategy,
}

impl<K, A> Clone for SessionStoreSpec<K, A> {
    fn clone(&self) -> Self {
        let (key, value) = (Arc::clone(&self.key), Arc::clone(&self.value));
        SessionStoreSpec { store: self.store.clone(), kind: self.kind, key, value, emit: self.emit }
    }
}

/// `count`, `reduce` and `aggregate` over sessions. A null value goes to the aggregator, unlike elsewhere.
///
/// A record joins the sessions within the gap into one: those are deleted, also when only one has become longer, and the
/// new one is written. Its time is its end.
pub(crate) struct SessionAggregate<K, V, A> {
    name: Arc<str>,
    store: SessionStore<K, A>,
    /// The same store with rows as bytes: a row is needed twice where old values are asked for, and need not be Clone.
    rows: SessionStore<K, Vec<u8>>,
    changes: WindowedChanges<K, A>,
    closing: Option<Closing>,
    /// Sessions that have not been emitted yet; only where they wait for their end.
    upcoming: Upcoming,
    key_bytes: Vec<u8>,
    key: DynSerde<K>,
    value: DynSerde<A>,
    windows: SessionWindows,
    aggregator: Aggregator<K, V, A>,
    merger: Merger<K, A>,
    initializer: Option<Initializer<A>>,
    time: ObservedTime,
    late: LateRecords<K, V>,
}

/// The user's functions.
pub(crate) struct SessionFunctions<K, V, A> {
    pub initializer: Option<Initializer<A>>,
    pub aggregator: Aggregator<K, V, A>,
    pub merger: Merger<K, A>,
    /// Where late records are left, if anybody wants them.
    pub late: Option<Arc<str>>,
}

impl<K, V, A> Clone for SessionFunctions<K, V, A> {
    fn clone(&self) -> Self {
        let (aggregator, merger) = (Arc::clone(&self.aggregator), Arc::clone(&self.merger));
        let (initializer, late) = (self.initializer.as_ref().map(Arc::clone), self.late.as_ref().map(Arc::clone));
        SessionFunctions { initializer, aggregator, merger, late }
    }
}

impl<K: Clone + 'static, V: Clone + 'static, A: 'static> SessionAggregate<K, V, A> {
    pub(crate) fn new(
        init: &mut ProcessorInit<'_>,
        spec: &SessionStoreSpec<K, A>,
        windows: SessionWindows,
        functions: SessionFunctions<K, V, A>,
    ) -> Result<Self> {
        let (name, store) = (init.node_name(), init.store(&spec.store)?);
        let index = store.index();
        let declared = init.declared(&spec.store.spec);
        let kind = if let StoreKind::Session(kind) = declared.kind { kind } else { spec.kind };
        let rows = SessionStore::new(index, kind, Arc::clone(&spec.key), Arc::new(Bytes));
        let form = RowForm::Session(Arc::clone(&spec.value));
        let changes = WindowedChanges::new(init, index, store.row_keys(), form, spec.emit);
        let same_end = match declared.engine {
            EngineKind::Memory => SameEnd::ByKey,
            EngineKind::Persistent | EngineKind::Lru(_) => SameEnd::ByStart,
        };
        let closing = (!changes.emits_updates()).then(|| Closing::new(init, &spec.store.spec.name, index));
        let (key, value, time) =
            (Arc::clone(&spec.key), Arc::clone(&spec.value), ObservedTime::resume(init, &spec.store.spec.name, 0));
        let SessionFunctions { initializer, aggregator, merger, late } = functions;
        let late = LateRecords::open(init, late.as_ref())?;
        Ok(SessionAggregate {
            name,
            store,
            rows,
            changes,
            closing,
            upcoming: Upcoming::unknown(same_end),
            key_bytes: Vec::new(),
            key,
            value,
            windows,
            aggregator,
            merger,
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
        ctx: &mut ProcessorContext<'_, Windowed<K>, Change<A>>,
    ) -> Result<()> {
        let Some(closing) = &mut self.closing else { return Ok(()) };
        let (from, to) = (closing.emitted().unwrap_or(0).max(0), close_time - 1);
        let range = (to >= from).then_some(Closed { from, to });
        let Some(Closed { from, to }) = closing.is_due(ctx, close_time, timestamp, range) else { return Ok(()) };
        let index = self.store.index();
        loop {
            while let Some((window, key)) = self.upcoming.take(to) {
                let key = self.key.deserialize(&key)?;
                ctx.task.stores.show_expired(index, true);
                let row = self.store.fetch_session(ctx.task, &key, window.start, window.end);
                ctx.task.stores.show_expired(index, false);
                if let Some(value) = row? {
                    let key = Windowed { key, window };
                    Closable { key, value, timestamp: window.end }.forward(headers, ctx)?;
                }
            }
            if self.upcoming.knows(to) {
                break;
            }
            let from = from.max(self.upcoming.complete_before());
            ctx.task.stores.show_expired(index, true);
            let read = read_upcoming(&mut self.upcoming, &self.rows, &self.key, from, ctx.task);
            ctx.task.stores.show_expired(index, false);
            read?;
        }
        if let Some(closing) = &mut self.closing {
            closing.finish(close_time, ctx);
        }
        Ok(())
    }

    fn upcoming(&mut self, session: &Windowed<K>, is_there: bool) -> Result<()> {
        if self.closing.is_none() {
            return Ok(());
        }
        self.key_bytes.clear();
        self.key.serialize(&session.key, &mut self.key_bytes)?;
        match is_there {
            true => self.upcoming.add(session.window, &self.key_bytes),
            false => self.upcoming.remove(session.window, &self.key_bytes),
        }
        Ok(())
    }

    /// Deletes a session that has become part of another.
    fn remove(
        &mut self,
        session: Windowed<K>,
        row: &[u8],
        headers: &Headers,
        ctx: &mut ProcessorContext<'_, Windowed<K>, Change<A>>,
    ) -> Result<()> {
        self.store.remove(ctx.task, &session)?;
        self.upcoming(&session, false)?;
        let old = self.changes.needs_old_value().then(|| self.value.deserialize(row)).transpose()?;
        let timestamp = session.window.end;
        let record = Record { key: session, value: Change::latest(old, None), timestamp, headers: headers.clone() };
        self.changes.update(record, ctx)
    }
}

impl<K: Clone + 'static, V: Clone + 'static, A: 'static> Processor<K, V> for SessionAggregate<K, V, A> {
    type KeyOut = Windowed<K>;
    type ValueOut = Change<A>;

    fn process(&mut self, record: Record<K, V>, ctx: &mut ProcessorContext<'_, Windowed<K>, Change<A>>) -> Result<()> {
        let Record { key, value, timestamp, headers } = record;
        if self.key.is_null(&key) {
            ctx.task.drop_record(&self.name, "its key is null");
            return Ok(());
        }
        let gap = self.windows.gap_ms();
        let observed = self.time.observe(timestamp);
        let close_time = observed.saturating_sub(self.windows.grace_ms()).saturating_sub(gap);
        self.emit_closed(timestamp, close_time, &headers, ctx)?;

        let own = Window { start: timestamp, end: timestamp };
        let (earliest_end, latest_start) = (timestamp.saturating_sub(gap), timestamp.saturating_add(gap));
        let found = self.rows.find_sessions(&key, earliest_end, latest_start)?.collect(ctx.task)?;
        let mut merged = own;
        for (session, _) in &found {
            let Window { start, end } = session.window;
            merged = Window { start: merged.start.min(start), end: merged.end.max(end) };
        }
        if merged.end < close_time {
            drop_late(ctx.task, &self.name, merged, observed, close_time);
            self.late.add(Record { key, value, timestamp, headers }, merged);
            return Ok(());
        }
        let mut row = self.initializer.as_ref().map(|initializer| initializer());
        for (_, bytes) in &found {
            row = (self.merger)(&key, row, self.value.deserialize(bytes)?);
        }
        if merged != own {
            for (session, bytes) in found {
                self.remove(session, &bytes, &headers, ctx)?;
            }
        }
        let new = (self.aggregator)(&key, value, row);
        let session = Windowed { key, window: merged };
        let new = match new.filter(|row| !self.value.is_null(row)) {
            Some(row) => {
                self.store.put(ctx.task, &session, &row)?;
                self.upcoming(&session, true)?;
                Some(row)
            }
            None => {
                // The store may refuse it as expired, and the row is emitted then: the session stays an upcoming one.
                self.store.remove(ctx.task, &session)?;
                None
            }
        };
        let (value, timestamp) = (Change::latest(None, new), merged.end);
        self.changes.update(Record { key: session, value, timestamp, headers }, ctx)
    }

    fn flush(&mut self, ctx: &mut ProcessorContext<'_, Windowed<K>, Change<A>>) -> Result<()> {
        self.changes.flush(ctx)
    }
}

/// Reads the sessions that end at a time or later.
fn read_upcoming<K: 'static>(
    upcoming: &mut Upcoming,
    rows: &SessionStore<K, Vec<u8>>,
    keys: &DynSerde<K>,
    from: i64,
    task: &mut TaskContext,
) -> Result<()> {
    upcoming.begin();
    let (mut found, mut key) = (rows.find_sessions_ending(from, i64::MAX), Vec::new());
    while let Some((session, _)) = found.next(task)? {
        key.clear();
        keys.serialize(&session.key, &mut key)?;
        upcoming.add(session.window, &key);
    }
    Ok(())
}

/// The sessions, for other operators of the task.
impl<K: 'static, A: 'static> View<Windowed<K>, A> for SessionStore<K, A> {
    fn get(&mut self, task: &mut TaskContext, key: &Windowed<K>) -> Result<Option<ValueAndTimestamp<A>>> {
        let Window { start, end } = key.window;
        let row = self.fetch_session(task, &key.key, start, end)?;
        Ok(row.map(|value| ValueAndTimestamp { value, timestamp: end }))
    }
}
