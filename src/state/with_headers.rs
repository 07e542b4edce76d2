//! Stores whose rows keep headers (KIP-1271).

use std::sync::Arc;
use std::time::Duration;

use super::builder::{StoreBuilder, Stores};
use super::session_store::SessionStore;
use super::spec::{EngineKind, SessionKind, StoreKind, WindowKind};
use super::store::KeyValueStore;
use super::window_store::WindowStore;
use crate::error::Result;
use crate::record::{Headers, ValueAndTimestamp};
use crate::serdes::{Serde, Timestamped, read_row_headers, write_row_headers};
use crate::window::millis;

/// A value with the timestamp and the headers of a record, as rows keep it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ValueTimestampHeaders<V> {
    /// The value.
    pub value: V,
    /// Milliseconds since the epoch.
    pub timestamp: i64,
    /// The headers.
    pub headers: Headers,
}

/// The aggregate of a session with headers, as rows keep it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AggregationWithHeaders<A> {
    /// The aggregate.
    pub aggregation: A,
    /// The headers.
    pub headers: Headers,
}

/// A key-value store whose rows carry a timestamp and headers.
pub type TimestampedKeyValueStoreWithHeaders<K, V> = KeyValueStore<K, ValueTimestampHeaders<V>>;

/// A window store whose rows carry a timestamp and headers.
pub type TimestampedWindowStoreWithHeaders<K, V> = WindowStore<K, ValueTimestampHeaders<V>>;

/// A session store whose rows carry headers.
pub type SessionStoreWithHeaders<K, A> = SessionStore<K, AggregationWithHeaders<A>>;

impl Stores {
    /// `K → (V, timestamp in ms, headers)`, on disk. Headers go to the changelog as those of its records, and come back from
    /// there.
    ///
    /// ```
    /// use kstreams::*;
    ///
    /// /// Forwards who has written a row before.
    /// struct Last(TimestampedKeyValueStoreWithHeaders<String, String>);
    ///
    /// impl Processor<String, String> for Last {
    ///     type KeyOut = String;
    ///     type ValueOut = String;
    ///
    ///     fn process(&mut self, record: Record<String, String>, ctx: &mut ProcessorContext<'_, String, String>) -> Result<()> {
    ///         let Record { key, value, timestamp, headers } = record.clone();
    ///         let last = self.0.get(ctx, &key)?;
    ///         self.0.put(ctx, &key, &ValueTimestampHeaders { value, timestamp, headers })?;
    ///         let writer = last.as_ref().and_then(|row| row.headers.last("writer").flatten());
    ///         ctx.forward(record.with_value(String::from_utf8_lossy(writer.unwrap_or(b"nobody")).into_owned()))
    ///     }
    /// }
    ///
    /// let rows = Stores::timestamped_key_value_with_headers("rows", Utf8, Utf8);
    /// let builder = StreamsBuilder::new();
    /// builder.add_state_store(&rows);
    /// let store = rows.clone();
    /// builder
    ///     .stream("in", Consumed::with(Utf8, Utf8))
    ///     .process(move |init| Ok(Last(init.store(&store)?)), Processed::stores(["rows"]))
    ///     .to("out", Produced::with(Utf8, Utf8));
    /// let mut driver = TopologyTestDriver::new(&builder.build()?)?;
    /// for (writer, time) in [("ada", 1), ("bob", 2)] {
    ///     let mut headers = Headers::new();
    ///     headers.add("writer", writer);
    ///     driver.pipe_raw("in", Some(b"k"), Some(b"v"), time, headers)?;
    /// }
    /// let out = driver.create_output_topic("out", Utf8, Utf8).read_key_values(&mut driver)?;
    /// assert_eq!(out.iter().map(|(_, writer)| writer.as_str()).collect::<Vec<_>>(), ["nobody", "ada"]);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn timestamped_key_value_with_headers<K: 'static, V: 'static>(
        name: &str,
        key: impl Serde<Item = K>,
        value: impl Serde<Item = V>,
    ) -> StoreBuilder<TimestampedKeyValueStoreWithHeaders<K, V>> {
        key_value(name, EngineKind::Persistent, key, value)
    }

    /// The same in memory.
    pub fn in_memory_timestamped_key_value_with_headers<K: 'static, V: 'static>(
        name: &str,
        key: impl Serde<Item = K>,
        value: impl Serde<Item = V>,
    ) -> StoreBuilder<TimestampedKeyValueStoreWithHeaders<K, V>> {
        key_value(name, EngineKind::Memory, key, value)
    }

    /// A [`timestamped_window`](Stores::timestamped_window) store whose rows keep headers too.
    pub fn timestamped_window_with_headers<K: 'static, V: 'static>(
        name: &str,
        retention: Duration,
        window_size: Duration,
        retain_duplicates: bool,
        key: impl Serde<Item = K>,
        value: impl Serde<Item = V>,
    ) -> StoreBuilder<TimestampedWindowStoreWithHeaders<K, V>> {
        window(name, EngineKind::Persistent, (retention, window_size, retain_duplicates), key, value)
    }

    /// The same in memory.
    pub fn in_memory_timestamped_window_with_headers<K: 'static, V: 'static>(
        name: &str,
        retention: Duration,
        window_size: Duration,
        retain_duplicates: bool,
        key: impl Serde<Item = K>,
        value: impl Serde<Item = V>,
    ) -> StoreBuilder<TimestampedWindowStoreWithHeaders<K, V>> {
        window(name, EngineKind::Memory, (retention, window_size, retain_duplicates), key, value)
    }

    /// A [`session`](Stores::session) store whose rows keep headers too.
    pub fn session_with_headers<K: 'static, A: 'static>(
        name: &str,
        retention: Duration,
        key: impl Serde<Item = K>,
        aggregate: impl Serde<Item = A>,
    ) -> StoreBuilder<SessionStoreWithHeaders<K, A>> {
        session(name, EngineKind::Persistent, retention, key, aggregate)
    }

    /// The same in memory.
    pub fn in_memory_session_with_headers<K: 'static, A: 'static>(
        name: &str,
        retention: Duration,
        key: impl Serde<Item = K>,
        aggregate: impl Serde<Item = A>,
    ) -> StoreBuilder<SessionStoreWithHeaders<K, A>> {
        session(name, EngineKind::Memory, retention, key, aggregate)
    }
}

impl<K, V> StoreBuilder<TimestampedKeyValueStoreWithHeaders<K, V>> {
    /// Lets a row live for some event time, as [that of a store without headers](StoreBuilder::with_ttl).
    ///
    /// ```
    /// use kstreams::*;
    /// use std::time::Duration;
    ///
    /// let seen = Stores::timestamped_key_value_with_headers("seen", Utf8, Utf8).with_ttl(Duration::from_secs(3_600));
    /// ```
    #[must_use]
    pub fn with_ttl(self, ttl: Duration) -> Self {
        self.with_ttl_ms(Some(millis(ttl)))
    }
}

fn key_value<K: 'static, V: 'static>(
    name: &str,
    engine: EngineKind,
    key: impl Serde<Item = K>,
    value: impl Serde<Item = V>,
) -> StoreBuilder<TimestampedKeyValueStoreWithHeaders<K, V>> {
    let value = Arc::new(HeadersAndTimestamp(Timestamped(value)));
    StoreBuilder::key_value(name, StoreKind::KeyValueWithHeaders, engine, Arc::new(key), value).with_row_headers()
}

fn window<K: 'static, V: 'static>(
    name: &str,
    engine: EngineKind,
    (retention, window_size, retain_duplicates): (Duration, Duration, bool),
    key: impl Serde<Item = K>,
    value: impl Serde<Item = V>,
) -> StoreBuilder<TimestampedWindowStoreWithHeaders<K, V>> {
    let kind = WindowKind::new(millis(retention), millis(window_size), retain_duplicates, true, engine);
    let value = Arc::new(HeadersAndTimestamp(Timestamped(value)));
    StoreBuilder::<WindowStore<K, _>>::window(name, kind.with_headers(), engine, Arc::new(key), value)
        .with_row_headers()
}

fn session<K: 'static, A: 'static>(
    name: &str,
    engine: EngineKind,
    retention: Duration,
    key: impl Serde<Item = K>,
    aggregate: impl Serde<Item = A>,
) -> StoreBuilder<SessionStoreWithHeaders<K, A>> {
    let kind = SessionKind::new(millis(retention), engine).with_headers();
    let aggregate = Arc::new(WithHeaders(aggregate));
    StoreBuilder::<SessionStore<K, _>>::session(name, kind, engine, Arc::new(key), aggregate).with_row_headers()
}

/// `headers | timestamp 8 | value`.
#[derive(Debug, Clone, Copy)]
struct HeadersAndTimestamp<S>(Timestamped<S>);

impl<S: Serde> Serde for HeadersAndTimestamp<S> {
    type Item = ValueTimestampHeaders<S::Item>;

    fn serialize(&self, item: &Self::Item, bytes: &mut Vec<u8>) -> Result<()> {
        write_row_headers(&item.headers, bytes)?;
        bytes.extend_from_slice(&item.timestamp.to_be_bytes());
        self.0.0.serialize(&item.value, bytes)
    }
    fn deserialize(&self, bytes: &[u8]) -> Result<Self::Item> {
        let (headers, rest) = read_row_headers(bytes)?;
        let ValueAndTimestamp { value, timestamp } = self.0.deserialize(rest)?;
        Ok(ValueTimestampHeaders { value, timestamp, headers })
    }
    fn is_null(&self, item: &Self::Item) -> bool {
        self.0.0.is_null(&item.value)
    }
}

/// `headers | aggregate`.
#[derive(Debug, Clone, Copy)]
struct WithHeaders<S>(S);

impl<S: Serde> Serde for WithHeaders<S> {
    type Item = AggregationWithHeaders<S::Item>;

    fn serialize(&self, item: &Self::Item, bytes: &mut Vec<u8>) -> Result<()> {
        write_row_headers(&item.headers, bytes)?;
        self.0.serialize(&item.aggregation, bytes)
    }
    fn deserialize(&self, bytes: &[u8]) -> Result<Self::Item> {
        let (headers, rest) = read_row_headers(bytes)?;
        Ok(AggregationWithHeaders { aggregation: self.0.deserialize(rest)?, headers })
    }
    fn is_null(&self, item: &Self::Item) -> bool {
        self.0.is_null(&item.aggregation)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::RecordBatch;
    use crate::serdes::Utf8;
    use crate::state::model_tests::Task;
    use crate::state::{RecordContext, TaskStores};
    use crate::window::{Window, Windowed};

    fn headers(value: &str) -> Headers {
        let mut headers = Headers::new();
        headers.add("h", value);
        headers
    }

    fn row(value: &str) -> ValueTimestampHeaders<String> {
        ValueTimestampHeaders { value: value.to_owned(), timestamp: 7, headers: headers("row") }
    }

    fn task<S>(store: &StoreBuilder<S>, cache_bytes: usize) -> (Task, S) {
        let context = RecordContext { timestamp: 9, headers: headers("record"), ..RecordContext::default() };
        (Task(TaskStores::in_memory(&[Arc::clone(&store.spec)], cache_bytes), context), store.open(0))
    }

    /// Value, timestamp and headers of what was logged, in order.
    fn logged(task: &mut Task) -> Vec<(Option<Vec<u8>>, i64, Headers)> {
        task.0.flush(0).unwrap();
        let records = task.0.changelog();
        records.map(|r| (r.value.map(<[u8]>::to_vec), r.timestamp.unwrap(), r.headers.clone())).collect()
    }

    /// Other stores that have read what was logged.
    fn restored(task: &Task, spec: &Arc<crate::state::StoreSpec>) -> Task {
        let mut batch = RecordBatch::default();
        for (offset, record) in (0..).zip(task.0.changelog()) {
            let timestamp = record.timestamp.unwrap();
            batch.push(offset, timestamp, Some(record.key), record.value, record.headers.clone()).unwrap();
        }
        let mut stores = TaskStores::in_memory(&[Arc::clone(spec)], 0);
        stores.restore(0, &batch, 9).unwrap();
        Task(stores, RecordContext::default())
    }

    #[test]
    fn a_changelog_has_the_headers_of_rows_and_of_what_deletes_them() {
        for cache_bytes in [0, 1_000_000] {
            let store = Stores::timestamped_key_value_with_headers("rows", Utf8, Utf8).with_caching();
            let (mut task, mut rows) = task(&store, cache_bytes);
            let (kept, deleted) = ("kept".to_owned(), "deleted".to_owned());
            rows.put(&mut task, &kept, &row("v")).unwrap();
            rows.put(&mut task, &deleted, &row("w")).unwrap();
            assert_eq!(logged(&mut task)[0], (Some(b"v".to_vec()), 7, headers("row")));
            assert_eq!(rows.delete(&mut task, &deleted).unwrap(), Some(row("w")));
            assert_eq!(logged(&mut task)[2], (None, 9, headers("record")));
            let mut other = restored(&task, &store.spec);
            assert_eq!(rows.get(&mut other, &kept).unwrap(), Some(row("v")));
            assert_eq!(rows.get(&mut other, &deleted).unwrap(), None);
        }
    }

    #[test]
    fn windows_and_sessions_keep_headers_too() {
        let (hour, key) = (Duration::from_secs(3600), "k".to_owned());
        for store in [
            Stores::timestamped_window_with_headers("rows", hour, hour, false, Utf8, Utf8),
            Stores::in_memory_timestamped_window_with_headers("rows", hour, hour, false, Utf8, Utf8),
        ] {
            let (mut task, mut rows) = task(&store, 0);
            rows.put(&mut task, &key, &row("v"), 5).unwrap();
            assert_eq!(logged(&mut task), [(Some(b"v".to_vec()), 7, headers("row"))]);
            assert_eq!(rows.fetch(&mut restored(&task, &store.spec), &key, 5).unwrap(), Some(row("v")));
        }
        let aggregate = AggregationWithHeaders { aggregation: "v".to_owned(), headers: headers("row") };
        for store in [
            Stores::session_with_headers("rows", hour, Utf8, Utf8),
            Stores::in_memory_session_with_headers("rows", hour, Utf8, Utf8),
        ] {
            let (mut task, mut rows) = task(&store, 0);
            let at = Windowed { key: key.clone(), window: Window { start: 1, end: 5 } };
            rows.put(&mut task, &at, &aggregate).unwrap();
            assert_eq!(logged(&mut task), [(Some(b"v".to_vec()), 9, headers("row"))]);
            let mut other = restored(&task, &store.spec);
            assert_eq!(rows.fetch_session(&mut other, &key, 1, 5).unwrap().as_ref(), Some(&aggregate));
            rows.remove(&mut task, &at).unwrap();
            assert_eq!(logged(&mut task)[1], (None, 9, headers("record")));
        }
    }

    #[test]
    fn rows_that_were_logged_without_headers_have_none() {
        let plain = Stores::timestamped_key_value("rows", Utf8, Utf8);
        let (mut task, mut rows) = task(&plain, 0);
        let value = ValueAndTimestamp { value: "v".to_owned(), timestamp: 7 };
        rows.put(&mut task, &"k".to_owned(), &value).unwrap();
        let store = Stores::timestamped_key_value_with_headers("rows", Utf8, Utf8);
        let row = store.open(0).get(&mut restored(&task, &store.spec), &"k".to_owned()).unwrap();
        let expected = ValueTimestampHeaders { value: "v".to_owned(), timestamp: 7, headers: Headers::new() };
        assert_eq!(row, Some(expected));
    }
}
