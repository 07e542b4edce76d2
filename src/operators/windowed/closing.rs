//! Results that only go downstream when their window has closed (KIP-825).

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::error::Result;
use crate::record::{Change, Headers, Record};
use crate::serdes::DynSerde;
use crate::topology::{ProcessorContext, ProcessorInit};
use crate::window::{Window, Windowed, millis};

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
        let interval_ms = millis(init.task.environment.window_emit_interval);
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

    /// Forwards results in the order of their windows and of the bytes of their keys, with the headers of the record that
    /// has closed them.
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
            ordered.push((result.key.window.start, bytes, result));
        }
        ordered.sort_by(|one, other| (one.0, &one.1).cmp(&(other.0, &other.1)));
        for (.., result) in ordered {
            result.forward(headers, ctx)?;
        }
        self.finish(close_time, ctx);
        Ok(())
    }

    /// All windows that have closed by then are emitted.
    pub(crate) fn finish<K, A>(&mut self, close_time: i64, ctx: &mut ProcessorContext<'_, Windowed<K>, Change<A>>) {
        self.emitted = Some(close_time);
        ctx.task.set_processor_metadata(&self.store, close_time);
    }
}

/// A result to emit.
#[derive(Debug)]
pub(crate) struct Closable<K, A> {
    pub key: Windowed<K>,
    pub value: A,
    pub timestamp: i64,
}

impl<K: 'static, A: 'static> Closable<K, A> {
    pub(crate) fn forward(
        self,
        headers: &Headers,
        ctx: &mut ProcessorContext<'_, Windowed<K>, Change<A>>,
    ) -> Result<()> {
        let Closable { key, value, timestamp } = self;
        ctx.forward(Record { key, value: Change::latest(None, Some(value)), timestamp, headers: headers.clone() })
    }
}

/// Windows that any record may close, the next to close first: sessions and sliding windows, whose rows lie by key.
///
/// Only a part of them is in memory. What is missing closes later than all that is there, and is read from the store when
/// it is its turn.
#[derive(Debug)]
pub(crate) struct Upcoming {
    windows: BTreeSet<Place>,
    same_end: SameEnd,
    /// Windows that end here or later may be missing.
    complete_before: i64,
}

/// In which order windows that end at the same time come: that of the rows of Java's store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SameEnd {
    /// By start, then by key.
    ByStart,
    /// By key, as the sessions of a store in memory.
    ByKey,
}

/// End, start where it comes before the key, key, start.
type Place = (i64, i64, Box<[u8]>, i64);

/// Windows in memory, for each operator.
const WINDOWS_MAX: usize = 100_000;

impl Upcoming {
    /// Nothing is known yet: the store may have rows.
    pub(crate) fn unknown(same_end: SameEnd) -> Upcoming {
        Upcoming { windows: BTreeSet::new(), same_end, complete_before: i64::MIN }
    }

    fn place(&self, window: Window, key: &[u8]) -> Place {
        let start = if self.same_end == SameEnd::ByStart { window.start } else { 0 };
        (window.end, start, key.into(), window.start)
    }

    /// Whether all windows that end by this time are known.
    pub(crate) fn knows(&self, end: i64) -> bool {
        end < self.complete_before
    }

    /// Before every window of the store is [added](Upcoming::add).
    pub(crate) fn begin(&mut self) {
        self.windows.clear();
        self.complete_before = i64::MAX;
    }

    pub(crate) fn add(&mut self, window: Window, key: &[u8]) {
        if window.end >= self.complete_before {
            return;
        }
        self.windows.insert(self.place(window, key));
        if self.windows.len() <= WINDOWS_MAX {
            return;
        }
        // All with the same end go, so that the end alone says what is known; the first to close always stay.
        let (first, last) = (self.windows.first().map(|first| first.0), self.windows.last().map(|last| last.0));
        if let Some(end) = last.filter(|_| first < last) {
            self.complete_before = end;
            self.windows.split_off(&(end, i64::MIN, Box::default(), i64::MIN));
        }
    }

    /// Windows that end before this are all known.
    pub(crate) fn complete_before(&self) -> i64 {
        self.complete_before
    }

    pub(crate) fn remove(&mut self, window: Window, key: &[u8]) {
        self.windows.remove(&self.place(window, key));
    }

    /// Takes the next window that ends by this time, if it is known.
    pub(crate) fn take(&mut self, end: i64) -> Option<(Window, Box<[u8]>)> {
        if self.windows.first().is_none_or(|first| first.0 > end) {
            return None;
        }
        self.windows.pop_first().map(|(end, _, key, start)| (Window { start, end }, key))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(start: i64, end: i64) -> Window {
        Window { start, end }
    }

    #[test]
    fn windows_are_taken_in_the_order_in_which_they_close() {
        let by_start = [(1, 5, "z"), (3, 5, "a"), (0, 9, "a"), (0, 9, "b")];
        let by_key = [(3, 5, "a"), (1, 5, "z"), (0, 9, "a"), (0, 9, "b")];
        for (same_end, expected) in [(SameEnd::ByStart, by_start), (SameEnd::ByKey, by_key)] {
            assert_eq!(taken(same_end), expected.map(|(start, end, key)| (start, end, key.to_owned())));
        }
    }

    fn taken(same_end: SameEnd) -> Vec<(i64, i64, String)> {
        let mut upcoming = Upcoming::unknown(same_end);
        assert!(!upcoming.knows(i64::MIN));
        upcoming.begin();
        for (start, end, key) in [(0, 9, "b"), (3, 5, "a"), (0, 9, "a"), (1, 5, "z"), (7, 20, "a"), (2, 4, "c")] {
            upcoming.add(window(start, end), key.as_bytes());
        }
        upcoming.remove(window(2, 4), b"c");
        let mut taken = Vec::new();
        while let Some((window, key)) = upcoming.take(9) {
            taken.push((window.start, window.end, String::from_utf8(key.to_vec()).unwrap()));
        }
        taken
    }

    #[test]
    fn what_does_not_fit_is_not_taken_for_known() {
        let mut upcoming = Upcoming::unknown(SameEnd::ByStart);
        upcoming.begin();
        let count = i64::try_from(WINDOWS_MAX).unwrap() + 10;
        (0..count).rev().for_each(|end| upcoming.add(window(0, end / 2), &end.to_be_bytes()));
        let known = count / 2 - 10;
        assert!(upcoming.knows(known) && !upcoming.knows(count / 2));
        let taken = std::iter::from_fn(|| upcoming.take(known)).count();
        assert_eq!(i64::try_from(taken).unwrap(), 2 * known + 2, "none is missing");
    }
}
