//! What operators are told besides their functions, by Java's names.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::table_node::TableStoreOption;
use crate::operators::print::{LineFile, PrintTarget, Show};
use crate::operators::table_store::{NoSerde, TableRows, TableStoreSpec};
use crate::partition::KeyPartitioner;
use crate::record::ValueAndTimestamp;
use crate::serdes::{DynSerde, Serde, Timestamped, Untimestamped};
use crate::state::{EngineKind, MakeEngine, StoreBuilder, StoreEngine, StoreKind, StoreSpec, VersionedKind};
use crate::topology::{Partitioner, TopologyBuilder};
use crate::window::millis;

/// The serdes and the name that an operator is given.
macro_rules! serdes {
    ($(#[$doc:meta])* $name:ident, $(#[$named:meta])*) => {
        $(#[$doc])*
        pub struct $name<K, V> {
            pub(crate) key: DynSerde<K>,
            pub(crate) value: DynSerde<V>,
            pub(crate) name: Option<String>,
        }

        impl<K: 'static, V: 'static> $name<K, V> {
            /// With these serdes.
            pub fn with(key: impl Serde<Item = K>, value: impl Serde<Item = V>) -> $name<K, V> {
                $name { key: Arc::new(key), value: Arc::new(value), name: None }
            }

            $(#[$named])*
            #[must_use]
            pub fn named(self, name: &str) -> Self {
                $name { name: Some(name.to_owned()), ..self }
            }
        }

        impl<K, V> Clone for $name<K, V> {
            fn clone(&self) -> Self {
                $name { key: Arc::clone(&self.key), value: Arc::clone(&self.value), name: self.name.clone() }
            }
        }

        impl<K, V> fmt::Debug for $name<K, V> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_struct(stringify!($name)).field("name", &self.name).finish_non_exhaustive()
            }
        }
    };
}

serdes! {
    /// How a grouping writes and reads its repartition topic, and which keys and values are null.
    Grouped,
    /// Names the grouping and its repartition topic, `<application>-<name>-repartition`. A named grouping that is used
    /// twice has one topic.
}

/// How a stream is repartitioned.
pub struct Repartitioned<K, V> {
    pub(super) key: DynSerde<K>,
    pub(super) value: DynSerde<V>,
    pub(super) name: Option<String>,
    pub(super) partitions: Option<i32>,
    pub(super) partitioner: Option<Partitioner<K, V>>,
}

impl<K: 'static, V: 'static> Repartitioned<K, V> {
    /// With these serdes.
    pub fn with(key: impl Serde<Item = K>, value: impl Serde<Item = V>) -> Self {
        Repartitioned { key: Arc::new(key), value: Arc::new(value), name: None, partitions: None, partitioner: None }
    }

    /// Names the topic, `<application>-<name>-repartition`.
    #[must_use]
    pub fn named(self, name: &str) -> Self {
        Repartitioned { name: Some(name.to_owned()), ..self }
    }

    /// Gives the topic this many partitions; otherwise it has as many as the topics before it.
    #[must_use]
    pub fn with_partitions(self, partitions: i32) -> Self {
        Repartitioned { partitions: Some(partitions), ..self }
    }

    /// Chooses partitions by topic, key, value and number of partitions: see
    /// [`Produced::with_partitioner`](crate::Produced::with_partitioner).
    #[must_use]
    pub fn with_partitioner(
        self,
        partitioner: impl Fn(&str, &K, &V, i32) -> Option<Vec<i32>> + Send + Sync + 'static,
    ) -> Self {
        Repartitioned { partitioner: Some(Arc::new(partitioner)), ..self }
    }
}

impl<K, V> fmt::Debug for Repartitioned<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let partitions = &self.partitions;
        f.debug_struct("Repartitioned")
            .field("name", &self.name)
            .field("partitions", partitions)
            .finish_non_exhaustive()
    }
}

/// The store behind a table: on disk, cached, and backed by a changelog topic unless said otherwise.
pub struct Materialized<K, V> {
    pub(super) name: Option<String>,
    pub(super) key: Option<DynSerde<K>>,
    pub(super) value: Option<DynSerde<V>>,
    pub(super) caching: bool,
    pub(super) logging: Option<BTreeMap<String, String>>,
    /// None: what the builder says.
    engine: Option<EngineKind>,
    pub(super) custom: Option<MakeEngine>,
    pub(super) retention: Option<Duration>,
    pub(super) ttl: Option<Duration>,
    partitioner: Option<ChoosePartition<K>>,
    rows: RowOption,
}

/// The partition of a key, of so many.
type ChoosePartition<K> = Arc<dyn Fn(&K, i32) -> i32 + Send + Sync>;

/// What is kept of a row.
#[derive(Debug, Clone, Copy)]
enum RowOption {
    Timestamped,
    Plain,
    Versions(VersionedKind),
}

impl<K, V> Default for Materialized<K, V> {
    fn default() -> Self {
        let rows = RowOption::Timestamped;
        let (caching, logging, retention, ttl) = (true, Some(BTreeMap::new()), None, None);
        Materialized {
            name: None,
            key: None,
            value: None,
            caching,
            logging,
            engine: None,
            custom: None,
            retention,
            ttl,
            partitioner: None,
            rows,
        }
    }
}

impl<K: 'static, V: 'static> Materialized<K, V> {
    /// A store with a name: it can be queried, and its changelog is `<application>-<name>-changelog`.
    pub fn named(name: &str) -> Self {
        Materialized::default().with_name(name)
    }

    /// A store with these serdes, under a generated name.
    pub fn with(key: impl Serde<Item = K>, value: impl Serde<Item = V>) -> Self {
        Materialized::default().with_key_serde(key).with_value_serde(value)
    }

    /// Names the store.
    #[must_use]
    pub fn with_name(self, name: &str) -> Self {
        Materialized { name: Some(name.to_owned()), ..self }
    }

    /// The serde of the keys; otherwise that of the stream or table before.
    #[must_use]
    pub fn with_key_serde(self, key: impl Serde<Item = K>) -> Self {
        Materialized { key: Some(Arc::new(key)), ..self }
    }

    /// The serde of the rows; otherwise that of the stream or table before, where rows are of its type.
    #[must_use]
    pub fn with_value_serde(self, value: impl Serde<Item = V>) -> Self {
        Materialized { value: Some(Arc::new(value)), ..self }
    }

    /// Merges the updates of a key until the commit, or until the cache is full. The default.
    #[must_use]
    pub fn with_caching(self) -> Self {
        Materialized { caching: true, ..self }
    }

    /// Forwards every update at once.
    #[must_use]
    pub fn without_caching(self) -> Self {
        Materialized { caching: false, ..self }
    }

    /// Settings of the changelog topic above the defaults, by Kafka's names.
    #[must_use]
    pub fn with_logging(self, config: BTreeMap<String, String>) -> Self {
        Materialized { logging: Some(config), ..self }
    }

    /// No changelog: the rows are lost with their task, and nothing can restore them.
    #[must_use]
    pub fn without_logging(self) -> Self {
        Materialized { logging: None, ..self }
    }

    /// Keeps the rows in memory; they are restored from the changelog at every start.
    #[must_use]
    pub fn in_memory(self) -> Self {
        Materialized { engine: Some(EngineKind::Memory), ..self }
    }

    /// Keeps at most `max_entries` rows, in memory: when there is one more, the row that was not read or written for the
    /// longest time is deleted. Nothing downstream is told of it. Not for windows, whose rows expire.
    #[must_use]
    pub fn lru(self, max_entries: usize) -> Self {
        Materialized { engine: Some(EngineKind::Lru(max_entries)), ..self }
    }

    /// Keeps the rows on disk. The default.
    #[must_use]
    pub fn persistent(self) -> Self {
        Materialized { engine: Some(EngineKind::Persistent), ..self }
    }

    /// Keeps the rows in an engine of one's own, one for each task: see [`StoreEngine`].
    #[must_use]
    pub fn with_engine(self, make: impl Fn() -> Box<dyn StoreEngine> + Send + Sync + 'static) -> Self {
        Materialized { custom: Some(MakeEngine(Arc::new(make))), ..self }
    }

    /// Where a key is looked for, if its records are not partitioned as Kafka's clients do it: the partition of a key, of so
    /// many. It says nothing to whoever writes the records: it has to agree with their
    /// [`Produced::with_partitioner`](crate::Produced::with_partitioner) or [`Repartitioned::with_partitioner`].
    ///
    /// [`metadata_for_key`](crate::KafkaStreams::metadata_for_key) and the query server follow it, so that every caller finds
    /// the owner of a key without knowing how keys are spread. Of a windowed row it is asked for the key in the window. A
    /// global table needs none: every instance has it whole.
    ///
    /// ```
    /// # use kstreams::*;
    /// // Orders were written by their number, of which the shop is the first digit.
    /// let shop = |number: &i64, partitions: i32| (number / 1_000 % i64::from(partitions)) as i32;
    /// let builder = StreamsBuilder::new();
    /// builder.table("orders", Consumed::with(I64, Utf8), Materialized::named("orders").with_partitioner(shop));
    /// # builder.build()?;
    /// # Ok::<(), Error>(())
    /// ```
    #[must_use]
    pub fn with_partitioner(self, partitioner: impl Fn(&K, i32) -> i32 + Send + Sync + 'static) -> Self {
        Materialized { partitioner: Some(Arc::new(partitioner)), ..self }
    }

    /// The same for a store whose keys are written so.
    pub(super) fn key_partitioner(&self, key: &DynSerde<K>) -> Option<KeyPartitioner> {
        let choose = Arc::clone(self.partitioner.as_ref()?);
        Some(KeyPartitioner::new(Arc::clone(key), move |key, partitions| choose(key, partitions)))
    }

    /// Whether nothing is said of it.
    pub(super) fn is_default_engine(&self) -> bool {
        self.engine.is_none()
    }

    /// Where the rows are kept.
    pub(super) fn engine(&self, graph: &TopologyBuilder) -> EngineKind {
        self.engine.unwrap_or(graph.default_engine)
    }

    /// How long rows of windows are kept behind the time of their store: at least the size of a window and its grace
    /// period, which is the default. Only for windowed tables.
    #[must_use]
    pub fn with_retention(self, retention: Duration) -> Self {
        Materialized { retention: Some(retention), ..self }
    }

    /// Lets a row live until the stream time of its task is more than `ttl` past the row's own time, that of the last record
    /// that has changed it. Not for windows and versions, whose rows expire in any case, and not for tables that are global.
    ///
    /// An expired row is deleted, here and in the changelog, and its deletion goes downstream like any other, at the stream
    /// time, before the next record is processed. Stream time only moves with records that the task reads, so
    /// a replay and a restored table forget the same rows, and no clock has a part in it. An update that has expired when it
    /// comes deletes the row that is there, and is counted as dropped.
    ///
    /// Each row is stored as two, one of them in the order of time. A table that was to be
    /// [restored from its topic](crate::Optimization::reuse_source_topics) has a changelog of its own: the topic would bring
    /// rows back. Not in Kafka Streams.
    ///
    /// ```
    /// # use kstreams::*;
    /// # use std::time::Duration;
    /// // Who has logged in within the last hour.
    /// let builder = StreamsBuilder::new();
    /// let hour = Materialized::named("sessions").with_ttl(Duration::from_secs(3_600)).without_caching();
    /// builder.table("logins", Consumed::with(Utf8, Utf8), hour).to_stream().to("sessions", Produced::with(Utf8, Utf8));
    ///
    /// let mut driver = TopologyTestDriver::new(&builder.build()?)?;
    /// let logins = driver.create_input_topic("logins", Utf8, Utf8);
    /// logins.pipe_at(&mut driver, "ada", "phone", 0)?;
    /// logins.pipe_at(&mut driver, "ben", "desk", 3_600_001)?;
    /// let sessions = driver.create_output_topic("sessions", Utf8, Nullable(Utf8)).read_key_values(&mut driver)?;
    /// let (ada, ben) = ("ada".to_owned(), "ben".to_owned());
    /// assert_eq!(sessions, [(ada.clone(), Some("phone".to_owned())), (ada, None), (ben, Some("desk".to_owned()))]);
    /// # Ok::<(), Error>(())
    /// ```
    #[must_use]
    pub fn with_ttl(self, ttl: Duration) -> Self {
        Materialized { ttl: Some(ttl), ..self }
    }

    /// Whether updates that came out of order are part of its history.
    pub(super) fn is_versioned(&self) -> bool {
        matches!(self.rows, RowOption::Versions(_))
    }

    /// Keeps the versions that a row has had (KIP-889), on disk and not cached: an update that comes out of order goes to
    /// its place in the history, and a stream is joined with the row as it was at the time of each of its records.
    ///
    /// `history` is how long before the newest update of any row the versions are known, and also how late an update may
    /// come. A later one is dropped and counted.
    ///
    /// ```
    /// # use kstreams::*;
    /// # use std::time::Duration;
    /// let builder = StreamsBuilder::new();
    /// let day = Duration::from_secs(86_400);
    /// let rates = builder.table("rates", Consumed::with(Utf8, F64), Materialized::named("rates").as_versioned(day));
    /// builder
    ///     .stream("payments", Consumed::with(Utf8, F64))
    ///     .join(&rates, |amount, rate| amount * rate, Joined::with(Utf8, F64))
    ///     .to("in-euro", Produced::with(Utf8, F64));
    ///
    /// let mut driver = TopologyTestDriver::new(&builder.build()?)?;
    /// let (rates, payments) = (driver.create_input_topic("rates", Utf8, F64), driver.create_input_topic("payments", Utf8, F64));
    /// rates.pipe_at(&mut driver, "dkk", 0.13, 1_000)?;
    /// rates.pipe_at(&mut driver, "dkk", 0.14, 2_000)?;
    /// payments.pipe_at(&mut driver, "dkk", 100.0, 1_500)?; // with the rate of its time
    /// let euros = driver.create_output_topic("in-euro", Utf8, F64).read_key_values(&mut driver)?;
    /// assert_eq!(euros, [("dkk".to_owned(), 13.0)]);
    /// # Ok::<(), Error>(())
    /// ```
    #[must_use]
    pub fn as_versioned(self, history: Duration) -> Self {
        Materialized { rows: RowOption::Versions(VersionedKind::new(millis(history))), ..self }
    }

    /// How far the time of a versioned store moves before versions that have expired are cleared away; only after
    /// [`as_versioned`](Materialized::as_versioned). By default a third of the history or less.
    #[must_use]
    pub fn with_segment_interval(self, interval: Duration) -> Self {
        match self.rows {
            RowOption::Versions(kind) => {
                let rows = RowOption::Versions(VersionedKind { segment_ms: millis(interval), ..kind });
                Materialized { rows, ..self }
            }
            RowOption::Timestamped | RowOption::Plain => self,
        }
    }

    /// Keeps rows without their times, as a plain key-value store does: a row that is read back has the time -1.
    #[must_use]
    pub fn without_timestamps(self) -> Self {
        Materialized { rows: RowOption::Plain, ..self }
    }

    /// The serdes given here, else those of the table before.
    pub(super) fn serdes(self, key: DynSerde<K>, value: Option<DynSerde<V>>) -> (DynSerde<K>, Option<DynSerde<V>>) {
        (self.key.unwrap_or(key), self.value.or(value))
    }

    /// The store with what the operator knows. A number is used up when the name is generated.
    pub(super) fn store(
        self,
        graph: &mut TopologyBuilder,
        prefix: &str,
        key: Option<&DynSerde<K>>,
        value: Option<&DynSerde<V>>,
    ) -> TableStoreOption<K, V> {
        let mut store = self.store_if_needed(graph, prefix, key, value);
        if let Some(missing) = store.spec.missing.take() {
            graph.mistake(missing.to_string());
        }
        store
    }

    /// The same where there may never be a store: only then the lack of a serde is a mistake.
    pub(super) fn store_if_needed(
        mut self,
        graph: &mut TopologyBuilder,
        prefix: &str,
        key: Option<&DynSerde<K>>,
        value: Option<&DynSerde<V>>,
    ) -> TableStoreOption<K, V> {
        let (is_named, engine, is_default) = (self.name.is_some(), self.engine(graph), self.is_default_engine());
        let name = match self.name.take() {
            Some(name) => graph.checked(name),
            None => graph.name(&format!("{prefix}STATE-STORE-")),
        };
        let mut missing = None;
        let key = serde_or_missing(self.key.take().or(key.map(Arc::clone)), &name, "key", &mut missing);
        let partitioner = self.key_partitioner(&key);
        let value = serde_or_missing(self.value.or(value.map(Arc::clone)), &name, "value", &mut missing);
        let (caching, engine) = (self.caching, (engine, self.custom));
        let kept = Kept { logging: self.logging, ttl_ms: self.ttl.map(millis), is_default, partitioner };
        let rows = match self.rows {
            RowOption::Versions(kind) => {
                let store = StoreBuilder::versioned(&name, kind, Arc::clone(&key), Arc::clone(&value));
                TableRows::Versions(kept.set(store.with_made_engine(engine.1)))
            }
            RowOption::Timestamped => {
                let rows: DynSerde<ValueAndTimestamp<V>> = Arc::new(Timestamped(Arc::clone(&value)));
                newest(&name, StoreKind::TimestampedKeyValue, engine, &key, rows, caching, kept)
            }
            RowOption::Plain => {
                let rows: DynSerde<ValueAndTimestamp<V>> = Arc::new(Untimestamped(Arc::clone(&value)));
                newest(&name, StoreKind::KeyValue, engine, &key, rows, caching, kept)
            }
        };
        TableStoreOption { spec: TableStoreSpec { rows, key, value, missing }, is_named }
    }
}

/// A store of the newest row of each key.
fn newest<K: 'static, V: 'static>(
    name: &str,
    kind: StoreKind,
    (engine, custom): (EngineKind, Option<MakeEngine>),
    key: &DynSerde<K>,
    rows: DynSerde<ValueAndTimestamp<V>>,
    caching: bool,
    kept: Kept,
) -> TableRows<K, V> {
    let store =
        StoreBuilder::key_value(name, kind, engine, Arc::clone(key), Arc::clone(&rows)).with_made_engine(custom);
    let store = if caching { store.with_caching() } else { store };
    TableRows::Newest(kept.set(store), rows)
}

/// Where rows are kept beside their store, and how long.
struct Kept {
    logging: Option<BTreeMap<String, String>>,
    ttl_ms: Option<i64>,
    is_default: bool,
    partitioner: Option<KeyPartitioner>,
}

impl Kept {
    fn set<S>(self, store: StoreBuilder<S>) -> StoreBuilder<S> {
        let store =
            store.with_ttl_ms(self.ttl_ms).with_default_engine(self.is_default).with_key_partitioner(self.partitioner);
        match self.logging {
            Some(config) => store.with_logging(config),
            None => store.without_logging(),
        }
    }
}

pub(super) fn serde_or_missing<T: 'static>(
    serde: Option<DynSerde<T>>,
    store: &str,
    part: &str,
    missing: &mut Option<Arc<str>>,
) -> DynSerde<T> {
    serde.unwrap_or_else(|| {
        let what = format!("store {store} has no {part} serde: give it one with Materialized::with_{part}_serde");
        *missing = Some(match missing.take() {
            Some(also) => format!("{also}; {what}").into(),
            None => what.into(),
        });
        Arc::new(NoSerde(std::marker::PhantomData))
    })
}

impl<K, V> fmt::Debug for Materialized<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Materialized").field("name", &self.name).field("caching", &self.caching).finish_non_exhaustive()
    }
}

/// How records are shown.
pub struct Printed<K, V> {
    pub(super) target: PrintTarget,
    pub(super) label: Option<String>,
    pub(super) show: Option<Show<K, V>>,
}

impl<K, V> Printed<K, V> {
    /// On the standard output.
    pub fn to_stdout() -> Self {
        Printed { target: PrintTarget::Stdout, label: None, show: None }
    }

    /// In a file, which is written anew by each run.
    pub fn to_file(path: impl AsRef<Path>) -> Self {
        let file = LineFile::new(path.as_ref().to_owned());
        Printed { target: PrintTarget::File(Arc::new(Mutex::new(file))), label: None, show: None }
    }

    /// Begins each line with this text instead of the name of the node before.
    #[must_use]
    pub fn with_label(self, label: &str) -> Self {
        Printed { label: Some(label.to_owned()), ..self }
    }

    /// Shows a record as this text instead of [`KStream::print`](crate::KStream::print)'s.
    #[must_use]
    pub fn with_mapper(self, show: impl Fn(&K, &V) -> String + Send + Sync + 'static) -> Self {
        Printed { show: Some(Arc::new(show)), ..self }
    }
}

impl<K, V> fmt::Debug for Printed<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Printed").field("label", &self.label).finish_non_exhaustive()
    }
}

/// The stores of a processor.
#[derive(Debug, Clone, Default)]
pub struct Processed {
    pub(super) connected: Vec<Arc<str>>,
    /// Added by the processor itself.
    pub(super) own: Vec<Arc<StoreSpec>>,
}

impl Processed {
    /// Connects stores that are added with [`add_state_store`](crate::StreamsBuilder::add_state_store).
    pub fn stores<S: AsRef<str>>(stores: impl IntoIterator<Item = S>) -> Processed {
        let connected = stores.into_iter().map(|store| store.as_ref().into()).collect();
        Processed { connected, own: Vec::new() }
    }

    /// Adds a store and connects it.
    #[must_use]
    pub fn with_store<S>(mut self, store: &StoreBuilder<S>) -> Processed {
        self.own.push(Arc::clone(&store.spec));
        self
    }
}
