//! Results that only go downstream when their window has closed (KIP-825).

use std::sync::Arc;

use crate::error::Result;
use crate::record::{Change, Headers, Record};
use crate::serdes::DynSerde;
use crate::topology::{ProcessorContext, ProcessorInit};
use crate::window::{Window, Windowed};

/// Knows which windows have been emitted. The time up to which they have is committed with the offsets of the inputs
/// (Java's processor metadata), so a restart neither repeats nor leaves out a window.
///
/// Differs from Kafka Streams: windows are emitted before the row that closes them is put, and whatever the interval says
/// when that row would make the store drop them. Java loses them (semantics of an uncached store).
#[derive(Debug)]
pub(crate) struct Closing {
    store: Arc<str>,
    index: usize,
    interval_ms: i64,
    next_attempt_ms: i64,
    /// Windows that closed before it have been emitted.
    emitted: Option<i64>,
}

/// What to look for: rows of windows that have closed, by their time in the store, both ends included.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Closed {
    pub from: i64,
    pub to: i64,
}

impl Closing {
    pub(crate) fn new(init: &ProcessorInit<'_>, store: &Arc<str>, index: usize) -> Closing {
        let interval_ms = init.task.environment.window_emit_interval_ms;
        let emitted = init.task.processor_metadata.get(store).copied();
        Closing { store: Arc::clone(store), index, interval_ms, next_attempt_ms: i64::MIN, emitted }
    }

    /// The time up to which windows have been emitted.
    pub(crate) fn emitted(&self) -> Option<i64> {
        self.emitted
    }

    /// Whether to look for closed windows now. `put` is the time of the row that is about to be put; `range` names what
    /// would be looked for.
    pub(crate) fn is_due<K, A>(
        &mut self,
        ctx: &ProcessorContext<'_, Windowed<K>, Change<A>>,
        close_time: i64,
        put: i64,
        range: Option<Closed>,
    ) -> Option<Closed> {
        let now = ctx.task.wall_clock_ms;
        let is_due = now >= self.next_attempt_ms;
        if is_due {
            self.next_attempt_ms = now.saturating_add(self.interval_ms);
        }
        let range = range.filter(|_| self.emitted.is_none_or(|emitted| emitted < close_time))?;
        let is_urgent = || ctx.task.stores.would_expire(self.index, range.from, put);
        (is_due || is_urgent()).then_some(range)
    }

    /// Forwards results in the order of their windows and of the bytes of their keys, with the headers of the record that has closed them.
    pub(crate) fn emit<K: 'static, A: 'static>(
        &mut self,
        results: Vec<Closable<K, A>>,
        keys: &DynSerde<K>,
        close_time: i64,
        headers: &Headers,
        ctx: &mut ProcessorContext<'_, Windowed<K>, Change<A>>,
    ) -> Result<()> {
        // Rows come by key within a bucket of time.
        let mut ordered = Vec::with_capacity(results.len());
        for result in results {
            let mut bytes = Vec::new();
            keys.serialize(&result.key.key, &mut bytes)?;
            ordered.push((order(result.key.window), bytes, result));
        }
        ordered.sort_by(|one, other| (one.0, &one.1).cmp(&(other.0, &other.1)));
        for (.., Closable { key, value, timestamp }) in ordered {
            let value = Change::latest(None, Some(value));
            ctx.forward(Record { key, value, timestamp, headers: headers.clone() })?;
        }
        self.emitted = Some(close_time);
        ctx.task.set_processor_metadata(&self.store, close_time);
        Ok(())
    }
}

/// A result to emit.
#[derive(Debug)]
pub(crate) struct Closable<K, A> {
    pub key: Windowed<K>,
    pub value: A,
    pub timestamp: i64,
}

/// By end, then by start: windows of one size are the same either way.
fn order(window: Window) -> (i64, i64) {
    (window.end, window.start)
}
