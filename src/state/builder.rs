//! Declaring stores: name, kind, types and settings, before there is one.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::custom::{MakeEngine, StoreEngine};
use super::session_store::SessionStore;
use super::spec::{
    Changelog, EngineKind, LoggedHeaders, RowTimes, SessionKind, StoreKind, StoreSpec, VersionedKind, WindowKind,
};
use super::store::{KeyValueStore, TimestampedKeyValueStore};
use super::versioned_store::VersionedKeyValueStore;
use super::window_store::{TimestampedWindowStore, WindowStore};
use crate::partition::KeyPartitioner;
use crate::serdes::{DynSerde, Serde, Timestamped};
use crate::window::millis;

/// Declares stores, by Java's names.
#[derive(Debug)]
pub struct Stores;

impl Stores {
    /// `K → V`, on disk.
    pub fn key_value<K: 'static, V: 'static>(
        name: &str,
        key: impl Serde<Item = K>,
        value: impl Serde<Item = V>,
    ) -> StoreBuilder<KeyValueStore<K, V>> {
        StoreBuilder::key_value(name, StoreKind::KeyValue, EngineKind::Persistent, Arc::new(key), Arc::new(value))
    }

    /// `K → V`, in memory; restored from its changelog at every start.
    pub fn in_memory_key_value<K: 'static, V: 'static>(
        name: &str,
        key: impl Serde<Item = K>,
        value: impl Serde<Item = V>,
    ) -> StoreBuilder<KeyValueStore<K, V>> {
        StoreBuilder::key_value(name, StoreKind::KeyValue, EngineKind::Memory, Arc::new(key), Arc::new(value))
    }

    /// `K → V`, in memory, with at most `max_entries` rows: when there is one more, the row that was not read or written for
    /// the longest time is deleted, from the changelog too.
    pub fn lru_map<K: 'static, V: 'static>(
        name: &str,
        max_entries: usize,
        key: impl Serde<Item = K>,
        value: impl Serde<Item = V>,
    ) -> StoreBuilder<KeyValueStore<K, V>> {
        let engine = EngineKind::Lru(max_entries);
        StoreBuilder::key_value(name, StoreKind::KeyValue, engine, Arc::new(key), Arc::new(value))
    }

    /// `K → (V, timestamp in ms)`, on disk: the kind of store that tables have.
    pub fn timestamped_key_value<K: 'static, V: 'static>(
        name: &str,
        key: impl Serde<Item = K>,
        value: impl Serde<Item = V>,
    ) -> StoreBuilder<TimestampedKeyValueStore<K, V>> {
        StoreBuilder::timestamped(name, EngineKind::Persistent, Arc::new(key), Arc::new(value))
    }

    /// `K → (V, timestamp in ms)`, in memory.
    pub fn in_memory_timestamped_key_value<K: 'static, V: 'static>(
        name: &str,
        key: impl Serde<Item = K>,
        value: impl Serde<Item = V>,
    ) -> StoreBuilder<TimestampedKeyValueStore<K, V>> {
        StoreBuilder::timestamped(name, EngineKind::Memory, Arc::new(key), Arc::new(value))
    }

    /// A row for each key and time, on disk. Rows expire when a time has been put that is `retention` after theirs; the window
    /// size only says where a window ends. With `retain_duplicates`, rows of one key and time are kept beside
    /// each other, and a deletion does nothing.
    ///
    /// ```
    /// use kstreams::*;
    /// use std::time::Duration;
    ///
    /// struct PerMinute(WindowStore<String, i64>);
    ///
    /// impl Processor<String, String> for PerMinute {
    ///     type KeyOut = String;
    ///     type ValueOut = i64;
    ///
    ///     fn process(&mut self, record: Record<String, String>, ctx: &mut ProcessorContext<'_, String, i64>) -> Result<()> {
    ///         let minute = record.timestamp - record.timestamp % 60_000;
    ///         let clicks = self.0.fetch(ctx, &record.key, minute)?.unwrap_or(0) + 1;
    ///         self.0.put(ctx, &record.key, &clicks, minute)?;
    ///         ctx.forward(record.with_value(clicks))
    ///     }
    /// }
    ///
    /// let clicks = Stores::window("clicks", Duration::from_secs(3600), Duration::from_secs(60), false, Utf8, I64);
    /// let builder = StreamsBuilder::new();
    /// builder.add_state_store(&clicks);
    /// let stream = builder.stream("in", Consumed::with(Utf8, Utf8));
    /// let store = clicks.clone();
    /// stream
    ///     .process(move |init| Ok(PerMinute(init.store(&store)?)), Processed::stores(["clicks"]))
    ///     .to("out", Produced::with(Utf8, I64));
    /// let mut driver = TopologyTestDriver::new(&builder.build()?)?;
    /// for time in [10_000, 50_000, 70_000] {
    ///     driver.pipe_raw("in", Some(b"home"), Some(b"click"), time, Headers::new())?;
    /// }
    /// let rows = driver.store(&clicks)?.fetch_range(&"home".to_owned(), 0, 120_000)?;
    /// assert_eq!(rows.collect(&mut driver)?, [(0, 2), (60_000, 1)]);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn window<K: 'static, V: 'static>(
        name: &str,
        retention: Duration,
        window_size: Duration,
        retain_duplicates: bool,
        key: impl Serde<Item = K>,
        value: impl Serde<Item = V>,
    ) -> StoreBuilder<WindowStore<K, V>> {
        let kind =
            WindowKind::new(millis(retention), millis(window_size), retain_duplicates, false, EngineKind::Persistent);
        StoreBuilder::window(name, kind, EngineKind::Persistent, Arc::new(key), Arc::new(value))
    }

    /// The same with a timestamp in each row: the kind of store that windowed tables have.
    pub fn timestamped_window<K: 'static, V: 'static>(
        name: &str,
        retention: Duration,
        window_size: Duration,
        retain_duplicates: bool,
        key: impl Serde<Item = K>,
        value: impl Serde<Item = V>,
    ) -> StoreBuilder<TimestampedWindowStore<K, V>> {
        let kind =
            WindowKind::new(millis(retention), millis(window_size), retain_duplicates, true, EngineKind::Persistent);
        StoreBuilder::timestamped_window(name, kind, EngineKind::Persistent, Arc::new(key), Arc::new(value))
    }

    /// A row for each key and session, on disk. Rows expire when a session has been put whose end is `retention` after
    /// theirs.
    pub fn session<K: 'static, A: 'static>(
        name: &str,
        retention: Duration,
        key: impl Serde<Item = K>,
        aggregate: impl Serde<Item = A>,
    ) -> StoreBuilder<SessionStore<K, A>> {
        let kind = SessionKind::new(millis(retention), EngineKind::Persistent);
        StoreBuilder::session(name, kind, EngineKind::Persistent, Arc::new(key), Arc::new(aggregate))
    }

    /// A row for each key and time, in memory. Rows expire when a time has been put that is `retention` after theirs; the window
    /// size only says where a window ends. Rows come by time first. With `retain_duplicates`, rows of one key and time are kept beside
    /// each other, and a deletion does nothing.
    pub fn in_memory_window<K: 'static, V: 'static>(
        name: &str,
        retention: Duration,
        window_size: Duration,
        retain_duplicates: bool,
        key: impl Serde<Item = K>,
        value: impl Serde<Item = V>,
    ) -> StoreBuilder<WindowStore<K, V>> {
        let kind =
            WindowKind::new(millis(retention), millis(window_size), retain_duplicates, false, EngineKind::Memory);
        StoreBuilder::window(name, kind, EngineKind::Memory, Arc::new(key), Arc::new(value))
    }

    /// The same with a timestamp in each row: the kind of store that windowed tables have.
    pub fn in_memory_timestamped_window<K: 'static, V: 'static>(
        name: &str,
        retention: Duration,
        window_size: Duration,
        retain_duplicates: bool,
        key: impl Serde<Item = K>,
        value: impl Serde<Item = V>,
    ) -> StoreBuilder<TimestampedWindowStore<K, V>> {
        let kind = WindowKind::new(millis(retention), millis(window_size), retain_duplicates, true, EngineKind::Memory);
        StoreBuilder::timestamped_window(name, kind, EngineKind::Memory, Arc::new(key), Arc::new(value))
    }

    /// A row for each key and session, in memory. Rows expire when a session has been put whose end is `retention` after
    /// theirs. Rows come by time first.
    pub fn in_memory_session<K: 'static, A: 'static>(
        name: &str,
        retention: Duration,
        key: impl Serde<Item = K>,
        aggregate: impl Serde<Item = A>,
    ) -> StoreBuilder<SessionStore<K, A>> {
        let kind = SessionKind::new(millis(retention), EngineKind::Memory);
        StoreBuilder::session(name, kind, EngineKind::Memory, Arc::new(key), Arc::new(aggregate))
    }

    /// The versions of each key's value (KIP-889), on disk. `history` is how long before the store's time they are known,
    /// and also how late a version may be put.
    pub fn versioned_key_value<K: 'static, V: 'static>(
        name: &str,
        history: Duration,
        key: impl Serde<Item = K>,
        value: impl Serde<Item = V>,
    ) -> StoreBuilder<VersionedKeyValueStore<K, V>> {
        StoreBuilder::versioned(name, VersionedKind::new(millis(history)), Arc::new(key), Arc::new(value))
    }
}

/// A store with its name and types, before there is one: add it with
/// [`add_state_store`](crate::StreamsBuilder::add_state_store), and ask for it where a processor is made.
pub struct StoreBuilder<S> {
    pub(crate) spec: Arc<StoreSpec>,
    open: Arc<dyn Fn(usize, StoreKind) -> S + Send + Sync>,
}

impl<S> StoreBuilder<S> {
    /// The store's name.
    pub fn name(&self) -> &str {
        &self.spec.name
    }

    /// Updates of a key are merged until the commit, or until the cache is full. A store that retains duplicates has nothing
    /// to merge, and stays without.
    #[must_use]
    pub fn with_caching(self) -> Self {
        self.change(|spec| spec.caching = !spec.kind.retains_duplicates())
    }

    /// Settings of the changelog topic above the defaults, by Kafka's names.
    #[must_use]
    pub fn with_logging(self, config: BTreeMap<String, String>) -> Self {
        self.change(|spec| spec.changelog = Changelog::Topic { config })
    }

    /// Keeps the rows in an engine of one's own, one for each task: see [`StoreEngine`]. Not for global stores.
    #[must_use]
    pub fn with_engine(self, make: impl Fn() -> Box<dyn StoreEngine> + Send + Sync + 'static) -> Self {
        let make = MakeEngine(Arc::new(make));
        self.change(|spec| spec.custom = Some(make))
    }

    /// Where a key is looked for, if its records are not partitioned as Kafka's clients do it: see
    /// [`Materialized::with_partitioner`](crate::Materialized::with_partitioner). The serde is that of the store's keys.
    ///
    /// ```
    /// use kstreams::{I64, Stores, Utf8};
    ///
    /// // Seats were written by their row.
    /// let row = |seat: &i64, partitions: i32| (seat / 100 % i64::from(partitions)) as i32;
    /// let seats = Stores::key_value("seats", I64, Utf8).with_partitioner(I64, row);
    /// # let _ = seats;
    /// ```
    #[must_use]
    pub fn with_partitioner<K: 'static>(
        self,
        key: impl Serde<Item = K>,
        partitioner: impl Fn(&K, i32) -> i32 + Send + Sync + 'static,
    ) -> Self {
        self.with_key_partitioner(Some(KeyPartitioner::new(Arc::new(key), partitioner)))
    }

    pub(crate) fn with_key_partitioner(self, partitioner: Option<KeyPartitioner>) -> Self {
        self.change(|spec| spec.partitioner = partitioner)
    }

    pub(crate) fn with_made_engine(self, make: Option<MakeEngine>) -> Self {
        self.change(|spec| spec.custom = make)
    }

    /// Whether its engine is only that of the builder, which the configuration may change.
    pub(crate) fn with_default_engine(self, is_default: bool) -> Self {
        self.change(|spec| spec.is_default_engine = is_default)
    }

    /// No changelog: the store is lost with its task, and nothing can restore it.
    #[must_use]
    pub fn without_logging(self) -> Self {
        self.change(|spec| spec.changelog = Changelog::Off)
    }

    /// Changelog records carry the headers of the records that caused them, as those of some of Java's stores do.
    pub(crate) fn with_logged_headers(self) -> Self {
        self.change(|spec| spec.logs_headers = LoggedHeaders::All)
    }

    /// Rows are put by an operator, at times that are not after those of its records.
    pub(crate) fn with_row_times_of_records(self) -> Self {
        self.change(|spec| spec.row_times = RowTimes::NotAfterRecords)
    }

    /// The changelog is that of a suppressed table.
    pub(crate) fn with_buffer_log(self) -> Self {
        self.change(|spec| spec.logs_headers = LoggedHeaders::OfFormat)
    }

    /// Rows keep headers, and a changelog record that deletes one carries those of the record that caused it (KIP-1271).
    pub(super) fn with_row_headers(self) -> Self {
        self.change(|spec| spec.logs_headers = LoggedHeaders::OfDeletions)
    }

    fn change(mut self, change: impl FnOnce(&mut StoreSpec)) -> Self {
        change(Arc::make_mut(&mut self.spec));
        self
    }

    /// The facade over the store with this index.
    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn open(&self, index: usize) -> S {
        self.open_as(index, self.spec.kind)
    }

    /// The same over a store that was added by another declaration.
    pub(crate) fn open_as(&self, index: usize, kind: StoreKind) -> S {
        (self.open)(index, kind)
    }
}

impl<S> StoreBuilder<S> {
    fn new(
        name: &str,
        kind: StoreKind,
        engine: EngineKind,
        open: impl Fn(usize, StoreKind) -> S + Send + Sync + 'static,
    ) -> StoreBuilder<S> {
        let changelog = Changelog::Topic { config: BTreeMap::new() };
        let spec = StoreSpec {
            name: name.into(),
            kind,
            engine,
            is_default_engine: false,
            caching: false,
            changelog,
            custom: None,
            logs_headers: LoggedHeaders::None,
            ttl_ms: None,
            row_times: RowTimes::Any,
            partitioner: None,
        };
        StoreBuilder { spec: Arc::new(spec), open: Arc::new(open) }
    }
}

impl<K: 'static, V: 'static> StoreBuilder<KeyValueStore<K, V>> {
    pub(crate) fn key_value(
        name: &str,
        kind: StoreKind,
        engine: EngineKind,
        key: DynSerde<K>,
        value: DynSerde<V>,
    ) -> Self {
        let open = move |index, _| KeyValueStore::new(index, Arc::clone(&key), Arc::clone(&value));
        StoreBuilder::new(name, kind, engine, open)
    }
}

impl<K: 'static, V: 'static> StoreBuilder<TimestampedKeyValueStore<K, V>> {
    pub(crate) fn timestamped(name: &str, engine: EngineKind, key: DynSerde<K>, value: DynSerde<V>) -> Self {
        StoreBuilder::key_value(name, StoreKind::TimestampedKeyValue, engine, key, Arc::new(Timestamped(value)))
    }
}

impl<K, V> StoreBuilder<TimestampedKeyValueStore<K, V>> {
    /// Lets a row live until the stream time of its task is more than `ttl` past the row's own time; then it is deleted, here
    /// and in the changelog, before the next record is processed. Stream time only moves with records, so a replay and a
    /// restored store forget the same rows, and no clock has a part in it. A row that has expired when it is put deletes
    /// what is there, and is counted as dropped.
    ///
    /// Rows take their place in the order of time beside their own, so each is written as two. Only for stores with
    /// timestamps that a changelog of their own backs, or none: not for global ones.
    ///
    /// ```
    /// use kstreams::*;
    /// use std::time::Duration;
    ///
    /// struct FirstOfTheHour(TimestampedKeyValueStore<String, String>);
    ///
    /// impl Processor<String, String> for FirstOfTheHour {
    ///     type KeyOut = String;
    ///     type ValueOut = String;
    ///
    ///     fn process(&mut self, record: Record<String, String>, ctx: &mut ProcessorContext<'_, String, String>) -> Result<()> {
    ///         let row = ValueAndTimestamp { value: record.value.clone(), timestamp: record.timestamp };
    ///         let before = self.0.put_if_absent(ctx, &record.key, &row)?;
    ///         if before.is_none() { ctx.forward(record) } else { Ok(()) }
    ///     }
    /// }
    ///
    /// let seen = Stores::timestamped_key_value("seen", Utf8, Utf8).with_ttl(Duration::from_secs(3_600));
    /// let builder = StreamsBuilder::new();
    /// builder.add_state_store(&seen);
    /// builder
    ///     .stream("in", Consumed::with(Utf8, Utf8))
    ///     .process(move |init| Ok(FirstOfTheHour(init.store(&seen)?)), Processed::stores(["seen"]))
    ///     .to("out", Produced::with(Utf8, Utf8));
    /// let mut driver = TopologyTestDriver::new(&builder.build()?)?;
    /// let events = driver.create_input_topic("in", Utf8, Utf8);
    /// for (key, value, time) in [("id-1", "first", 0), ("id-1", "again", 3_600_000), ("id-1", "anew", 3_600_001)] {
    ///     events.pipe_at(&mut driver, key, value, time)?;
    /// }
    /// let values = driver.create_output_topic("out", Utf8, Utf8).read_all(&mut driver)?;
    /// assert_eq!(values.iter().map(|record| record.value.as_str()).collect::<Vec<_>>(), ["first", "anew"]);
    /// # Ok::<(), Error>(())
    /// ```
    #[must_use]
    pub fn with_ttl(self, ttl: Duration) -> Self {
        self.with_ttl_ms(Some(millis(ttl)))
    }
}

impl<S> StoreBuilder<S> {
    pub(crate) fn with_ttl_ms(self, ttl_ms: Option<i64>) -> Self {
        self.change(|spec| spec.ttl_ms = ttl_ms)
    }
}

impl<K: 'static, V: 'static> StoreBuilder<WindowStore<K, V>> {
    pub(crate) fn window(
        name: &str,
        kind: WindowKind,
        engine: EngineKind,
        key: DynSerde<K>,
        value: DynSerde<V>,
    ) -> Self {
        let open = move |index, actual| {
            // Where rows lie follows from how the store was declared where it was added.
            let kind = if let StoreKind::Window(actual) = actual { actual } else { kind };
            WindowStore::new(index, kind, Arc::clone(&key), Arc::clone(&value))
        };
        StoreBuilder::new(name, StoreKind::Window(kind), engine, open)
    }
}

impl<K: 'static, V: 'static> StoreBuilder<TimestampedWindowStore<K, V>> {
    pub(crate) fn timestamped_window(
        name: &str,
        kind: WindowKind,
        engine: EngineKind,
        key: DynSerde<K>,
        value: DynSerde<V>,
    ) -> Self {
        StoreBuilder::window(name, kind, engine, key, Arc::new(Timestamped(value)))
    }
}

impl<K: 'static, A: 'static> StoreBuilder<SessionStore<K, A>> {
    pub(crate) fn session(
        name: &str,
        kind: SessionKind,
        engine: EngineKind,
        key: DynSerde<K>,
        aggregate: DynSerde<A>,
    ) -> Self {
        let open = move |index, actual| {
            let kind = if let StoreKind::Session(actual) = actual { actual } else { kind };
            SessionStore::new(index, kind, Arc::clone(&key), Arc::clone(&aggregate))
        };
        StoreBuilder::new(name, StoreKind::Session(kind), engine, open)
    }
}

impl<K: 'static, V: 'static> StoreBuilder<VersionedKeyValueStore<K, V>> {
    pub(crate) fn versioned(name: &str, kind: VersionedKind, key: DynSerde<K>, value: DynSerde<V>) -> Self {
        let open = move |index, _| VersionedKeyValueStore::new(index, Arc::clone(&key), Arc::clone(&value));
        StoreBuilder::new(name, StoreKind::Versioned(kind), EngineKind::Persistent, open)
    }

    /// How far the store's time moves before versions that have expired are cleared away: by default a third of the
    /// history or less.
    #[must_use]
    pub fn with_segment_interval(self, interval: Duration) -> Self {
        self.change(|spec| {
            if let StoreKind::Versioned(kind) = &mut spec.kind {
                kind.segment_ms = millis(interval);
            }
        })
    }
}

impl<S> Clone for StoreBuilder<S> {
    fn clone(&self) -> Self {
        StoreBuilder { spec: Arc::clone(&self.spec), open: Arc::clone(&self.open) }
    }
}

impl<S> fmt::Debug for StoreBuilder<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.spec.fmt(f)
    }
}
