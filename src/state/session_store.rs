//! Session stores as a processor sees them.

use std::fmt;
use std::ops::RangeBounds;
use std::sync::Arc;

use super::spec::SessionKind;
use super::store::StoreContext;
use super::window_rows::{KeyRange, Query, Scan, WindowRows, WindowedKey};
use super::window_store::key_range;
use super::windowed_keys::Parts;
use crate::error::Result;
use crate::serdes::{DynSerde, encode};
use crate::window::{Window, Windowed};

/// A row for each key and session, in the hands of one processor. Times are in milliseconds since the epoch; both ends of a
/// session are inside.
///
/// The largest end that was put is the store's time. A session whose end is `retention` or more before it is not shown any
/// more, and one that is put so late may be dropped and counted.
pub struct SessionStore<K, A> {
    index: usize,
    kind: SessionKind,
    key: DynSerde<K>,
    aggregate: DynSerde<A>,
    /// Scratch of this processor; kept, so that encoding allocates nothing.
    key_bytes: Vec<u8>,
    row_key: Vec<u8>,
    value_bytes: Vec<u8>,
}

impl<K: 'static, A: 'static> SessionStore<K, A> {
    pub(crate) fn new(index: usize, kind: SessionKind, key: DynSerde<K>, aggregate: DynSerde<A>) -> Self {
        let (key_bytes, row_key, value_bytes) = (Vec::new(), Vec::new(), Vec::new());
        SessionStore { index, kind, key, aggregate, key_bytes, row_key, value_bytes }
    }

    pub(crate) fn index(&self) -> usize {
        self.index
    }

    /// Writes the row of a session. An aggregate that its serde takes for a null deletes it.
    ///
    /// # Errors
    /// A key or aggregate that the serde refuses, or a store that cannot be written.
    pub fn put(&mut self, ctx: &mut impl StoreContext, session: &Windowed<K>, aggregate: &A) -> Result<()> {
        self.encode_key(&session.key, session.window)?;
        self.value_bytes.clear();
        let bytes = encode(&*self.aggregate, aggregate, &mut self.value_bytes)?;
        let (stores, context) = ctx.stores();
        stores.put(self.index, &self.row_key, bytes.map(|_| self.value_bytes.as_slice()), context)
    }

    /// Deletes the row of a session.
    ///
    /// # Errors
    /// As [`put`](SessionStore::put).
    pub fn remove(&mut self, ctx: &mut impl StoreContext, session: &Windowed<K>) -> Result<()> {
        self.encode_key(&session.key, session.window)?;
        let (stores, context) = ctx.stores();
        stores.remove(self.index, &self.row_key, context)
    }

    /// The row of the session of a key with exactly this start and end.
    ///
    /// # Errors
    /// A row that the serde refuses, or a store that cannot be read.
    pub fn fetch_session(&mut self, ctx: &mut impl StoreContext, key: &K, start: i64, end: i64) -> Result<Option<A>> {
        self.encode_key(key, Window { start, end })?;
        let row = ctx.stores().0.get(self.index, &self.row_key)?;
        row.map(|row| self.aggregate.deserialize(row)).transpose()
    }

    /// The sessions of a key that end at `earliest_end` or later and begin at `latest_start` or earlier, by their ends.
    ///
    /// # Errors
    /// A key that the serde refuses.
    pub fn find_sessions(&self, key: &K, earliest_end: i64, latest_start: i64) -> Result<WindowRows<K, A>> {
        Ok(self.rows(self.one(key)?, earliest_end, latest_start, false))
    }

    /// The same, the last end first.
    ///
    /// # Errors
    /// As [`find_sessions`](SessionStore::find_sessions).
    pub fn backward_find_sessions(&self, key: &K, earliest_end: i64, latest_start: i64) -> Result<WindowRows<K, A>> {
        Ok(self.rows(self.one(key)?, earliest_end, latest_start, true))
    }

    /// The sessions of all keys in a range (in the order of their bytes) that end at `earliest_end` or later and begin at
    /// `latest_start` or earlier. Those of a store on disk come by key and then by end within a bucket of time, those of
    /// one in memory by end.
    ///
    /// # Errors
    /// A bound that the serde refuses.
    pub fn find_sessions_of_keys(
        &self,
        keys: impl RangeBounds<K>,
        earliest_end: i64,
        latest_start: i64,
    ) -> Result<WindowRows<K, A>> {
        Ok(self.rows(key_range(&self.key, &keys)?, earliest_end, latest_start, false))
    }

    /// The same, the other way round.
    ///
    /// # Errors
    /// As [`find_sessions_of_keys`](SessionStore::find_sessions_of_keys).
    pub fn backward_find_sessions_of_keys(
        &self,
        keys: impl RangeBounds<K>,
        earliest_end: i64,
        latest_start: i64,
    ) -> Result<WindowRows<K, A>> {
        Ok(self.rows(key_range(&self.key, &keys)?, earliest_end, latest_start, true))
    }

    /// All sessions of a key, by their ends.
    ///
    /// # Errors
    /// A key that the serde refuses.
    pub fn fetch(&self, key: &K) -> Result<WindowRows<K, A>> {
        self.find_sessions(key, 0, i64::MAX)
    }

    /// The same, the last end first.
    ///
    /// # Errors
    /// As [`fetch`](SessionStore::fetch).
    pub fn backward_fetch(&self, key: &K) -> Result<WindowRows<K, A>> {
        self.backward_find_sessions(key, 0, i64::MAX)
    }

    /// All sessions of all keys in a range.
    ///
    /// # Errors
    /// A bound that the serde refuses.
    pub fn fetch_keys(&self, keys: impl RangeBounds<K>) -> Result<WindowRows<K, A>> {
        self.find_sessions_of_keys(keys, 0, i64::MAX)
    }

    /// The same, the other way round.
    ///
    /// # Errors
    /// As [`fetch_keys`](SessionStore::fetch_keys).
    pub fn backward_fetch_keys(&self, keys: impl RangeBounds<K>) -> Result<WindowRows<K, A>> {
        self.backward_find_sessions_of_keys(keys, 0, i64::MAX)
    }

    /// Every session that has not expired.
    pub fn all(&self) -> WindowRows<K, A> {
        self.rows(KeyRange::ALL, 0, i64::MAX, false)
    }

    /// The sessions of all keys that end in a span of time (ms), both ends included: Java's
    /// `findSessions(earliestSessionEndTime, latestSessionEndTime)`. They come as those of
    /// [`find_sessions_of_keys`](SessionStore::find_sessions_of_keys).
    pub fn find_sessions_ending(&self, from: i64, to: i64) -> WindowRows<K, A> {
        let query = Query { keys: KeyRange::ALL, times: (from, to), start_max: i64::MAX, reverse: false };
        let scan = Scan::new(self.index, self.kind.keys, query);
        WindowRows { scan, decode: self.row_keys(), value: Arc::clone(&self.aggregate) }
    }

    /// Reads the key of a row, as a cache gives it back.
    pub(crate) fn row_keys(&self) -> WindowedKey<K> {
        WindowedKey { key: Arc::clone(&self.key), layout: self.kind.keys, window_ms: 0 }
    }

    fn encode_key(&mut self, key: &K, window: Window) -> Result<()> {
        self.key_bytes.clear();
        self.key.serialize(key, &mut self.key_bytes)?;
        let parts = Parts { key: &self.key_bytes, time: window.end, tail: window.start };
        self.kind.keys.encode(parts, &mut self.row_key);
        Ok(())
    }

    fn one(&self, key: &K) -> Result<KeyRange> {
        let mut bytes = Vec::new();
        self.key.serialize(key, &mut bytes)?;
        Ok(KeyRange::One(bytes))
    }

    fn rows(&self, keys: KeyRange, earliest_end: i64, start_max: i64, reverse: bool) -> WindowRows<K, A> {
        let query = Query { keys, times: (earliest_end, i64::MAX), start_max, reverse };
        let scan = Scan::new(self.index, self.kind.keys, query);
        WindowRows { scan, decode: self.row_keys(), value: Arc::clone(&self.aggregate) }
    }
}

impl<K, A> fmt::Debug for SessionStore<K, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionStore").field("index", &self.index).field("kind", &self.kind).finish_non_exhaustive()
    }
}
