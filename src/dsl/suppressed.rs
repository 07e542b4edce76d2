//! Tables whose changes are held back.

use std::collections::BTreeMap;
use std::fmt;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use super::KTable;
use super::kstream::one_name;
use super::options::serde_or_missing;
use super::table_node::{OldValues, Table, add_and_connect};
use crate::operators::suppress::{Limits, Suppress, SuppressSpec, SuppressedView, TimeOf, WhenFull};
use crate::operators::table::{View, ViewMaker};
use crate::record::Change;
use crate::serdes::{Bytes, DynSerde, Serde};
use crate::state::{EngineKind, KeyValueStore, StoreBuilder, StoreKind};
use crate::topology::{NodeSpec, TopologyBuilder};
use crate::window::{Windowed, millis};

/// What a suppressed table may hold back: [`BufferConfig::unbounded`], [`max_records`](BufferConfig::max_records) or
/// [`max_bytes`](BufferConfig::max_bytes), with what happens when that is not enough in its type.
///
/// A buffer is in memory. It is backed by a changelog topic, from which it is restored.
#[derive(Debug, Clone)]
pub struct BufferConfig<F> {
    records_max: usize,
    bytes_max: usize,
    logging: Option<BTreeMap<String, String>>,
    when_full: F,
}

/// A full buffer lets the update that waits first go downstream.
#[derive(Debug, Clone, Copy)]
pub struct EmitEarly;

/// A buffer never lets go too early: a record that does not fit fails, which by default ends the thread.
#[derive(Debug, Clone, Copy)]
pub struct ShutDown;

impl BufferConfig<ShutDown> {
    /// As much as there is: as long as the memory lasts.
    pub fn unbounded() -> Self {
        let logging = Some(BTreeMap::new());
        BufferConfig { records_max: usize::MAX, bytes_max: usize::MAX, logging, when_full: ShutDown }
    }
}

impl BufferConfig<EmitEarly> {
    /// At most so many keys.
    pub fn max_records(records: usize) -> Self {
        BufferConfig::unbounded().with_max_records(records).emit_early_when_full()
    }

    /// At most so many bytes of keys, rows and the records' places.
    pub fn max_bytes(bytes: usize) -> Self {
        BufferConfig::unbounded().with_max_bytes(bytes).emit_early_when_full()
    }
}

impl<F> BufferConfig<F> {
    /// At most so many keys.
    #[must_use]
    pub fn with_max_records(self, records: usize) -> Self {
        BufferConfig { records_max: records, ..self }
    }

    /// At most so many bytes of keys, rows and the records' places.
    #[must_use]
    pub fn with_max_bytes(self, bytes: usize) -> Self {
        BufferConfig { bytes_max: bytes, ..self }
    }

    /// Lifts the limits.
    #[must_use]
    pub fn with_no_bound(self) -> BufferConfig<ShutDown> {
        BufferConfig { logging: self.logging, ..BufferConfig::unbounded() }
    }

    /// A full buffer lets the update that waits first go downstream.
    #[must_use]
    pub fn emit_early_when_full(self) -> BufferConfig<EmitEarly> {
        let BufferConfig { records_max, bytes_max, logging, .. } = self;
        BufferConfig { records_max, bytes_max, logging, when_full: EmitEarly }
    }

    /// A record that does not fit fails.
    #[must_use]
    pub fn shut_down_when_full(self) -> BufferConfig<ShutDown> {
        let BufferConfig { records_max, bytes_max, logging, .. } = self;
        BufferConfig { records_max, bytes_max, logging, when_full: ShutDown }
    }

    /// Settings of the changelog topic above the defaults, by Kafka's names.
    #[must_use]
    pub fn with_logging(self, config: BTreeMap<String, String>) -> Self {
        BufferConfig { logging: Some(config), ..self }
    }

    /// No changelog: what waits is lost with its task.
    #[must_use]
    pub fn without_logging(self) -> Self {
        BufferConfig { logging: None, ..self }
    }

    fn limits(&self) -> Limits
    where
        F: BufferFull,
    {
        let when_full = if self.when_full.emits_early() { WhenFull::EmitEarly } else { WhenFull::ShutDown };
        Limits { records_max: self.records_max, bytes_max: self.bytes_max, when_full }
    }
}

/// What happens when a buffer is full: [`EmitEarly`] or [`ShutDown`].
pub trait BufferFull: sealed::Sealed {
    #[doc(hidden)]
    fn emits_early(&self) -> bool;
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for super::EmitEarly {}
    impl Sealed for super::ShutDown {}
}

impl BufferFull for EmitEarly {
    fn emits_early(&self) -> bool {
        true
    }
}

impl BufferFull for ShutDown {
    fn emits_early(&self) -> bool {
        false
    }
}

/// How the changes of a table are held back: [`KTable::suppress`].
pub struct Suppressed<K, V> {
    until: Until<K>,
    limits: Limits,
    logging: Option<BTreeMap<String, String>>,
    name: Option<String>,
    value: Option<DynSerde<V>>,
}

enum Until<K> {
    WindowCloses(TimeOf<K>),
    TimeLimit(Duration),
}

impl<K: 'static, V> Suppressed<Windowed<K>, V> {
    /// One result for each window: the last, once the window takes no more records. What is deleted until then is left
    /// out. Only for tables of windows, however filtered or mapped.
    pub fn until_window_closes(buffer: BufferConfig<ShutDown>) -> Self {
        let end: TimeOf<Windowed<K>> = Arc::new(|key| key.window.end);
        Suppressed::new(Until::WindowCloses(end), buffer)
    }
}

impl<K, V> Suppressed<K, V> {
    /// The last change of each key, at most once in such a time: since the first one that waits.
    pub fn until_time_limit<F: BufferFull>(limit: Duration, buffer: BufferConfig<F>) -> Self {
        Suppressed::new(Until::TimeLimit(limit), buffer)
    }

    fn new<F: BufferFull>(until: Until<K>, buffer: BufferConfig<F>) -> Self {
        Suppressed { until, limits: buffer.limits(), logging: buffer.logging, name: None, value: None }
    }

    /// Names the operator; its store is `<name>-store`.
    #[must_use]
    pub fn with_name(self, name: &str) -> Self {
        Suppressed { name: Some(name.to_owned()), ..self }
    }

    /// The serde of the rows; otherwise that of the table before, which a mapped table without a store does not have.
    #[must_use]
    pub fn with_value_serde(self, value: impl Serde<Item = V>) -> Self
    where
        V: 'static,
    {
        Suppressed { value: Some(Arc::new(value)), ..self }
    }
}

impl<K, V> fmt::Debug for Suppressed<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let until = match &self.until {
            Until::WindowCloses(_) => "window closes".to_owned(),
            Until::TimeLimit(limit) => format!("{limit:?}"),
        };
        f.debug_struct("Suppressed").field("until", &until).field("limits", &self.limits).finish_non_exhaustive()
    }
}

impl<K: 'static, V: 'static> KTable<K, V> {
    /// Holds changes back until their window has closed, or for a time (KIP-328). Of each key only the last one goes on,
    /// with its own time and headers.
    ///
    /// Time is the highest timestamp that has come here; while no record comes, nothing goes on. Gives the table before a
    /// store, if it has none: a change says what was before.
    ///
    /// ```
    /// # use kstreams::*;
    /// # use std::time::Duration;
    /// # let builder = StreamsBuilder::new();
    /// # let clicks = builder.stream("clicks", Consumed::with(Utf8, Utf8)).group_by_key(Grouped::with(Utf8, Utf8));
    /// let minute = Duration::from_secs(60);
    /// clicks
    ///     .windowed_by(TimeWindows::of_size_and_grace(minute, Duration::from_secs(5)))
    ///     .count(Materialized::named("per-minute"))
    ///     .suppress(Suppressed::until_window_closes(BufferConfig::unbounded()))
    ///     .to_stream()
    ///     .to("final-counts", Produced::with(TimeWindowedSerde::new(Utf8, minute), I64));
    ///
    /// let mut driver = TopologyTestDriver::new(&builder.build()?)?;
    /// let clicks = driver.create_input_topic("clicks", Utf8, Utf8);
    /// clicks.pipe_at(&mut driver, "home", "a", 0)?;
    /// clicks.pipe_at(&mut driver, "home", "b", 59_999)?;
    /// clicks.pipe_at(&mut driver, "home", "c", 65_000)?; // the first minute is over, and 5 s are
    /// let counts = driver.create_output_topic("final-counts", TimeWindowedSerde::new(Utf8, minute), I64);
    /// let minute_of = |start| Windowed::new("home".to_owned(), Window::new(start, start + 60_000));
    /// assert_eq!(counts.read_key_values(&mut driver)?, [(minute_of(0), 2)]);
    /// # Ok::<(), Error>(())
    /// ```
    #[must_use = "a table that nobody reads is not worth making"]
    pub fn suppress(mut self, suppressed: Suppressed<K, V>) -> KTable<K, V> {
        let Suppressed { until, limits, logging, name, value } = suppressed;
        let mut graph = self.graph.borrow_mut();
        if self.table.is_versioned {
            graph.mistake(
                "a versioned table is suppressed: its changes may come out of order, so suppress one without versions"
                    .to_owned(),
            );
        }
        let given = self.given.take();
        let (name, store) = match one_name(&mut graph, given, name) {
            Some(name) => (graph.checked(name.clone()), format!("{name}-store")),
            None => (graph.name("KTABLE-SUPPRESS-"), graph.name("KTABLE-SUPPRESS-STATE-STORE-")),
        };
        let is_named = !store.starts_with("KTABLE-SUPPRESS-STATE-STORE-");
        let (wait_ms, time_of, drops_deletions) = match until {
            Until::TimeLimit(limit) => (millis(limit), None, false),
            Until::WindowCloses(time_of) => {
                let grace = graph.window_grace_of(self.node).unwrap_or_else(|| {
                    graph.mistake(format!(
                        "{name} waits until windows close, but not all that comes there is an aggregation by windows: \
                         suppress a table that windowed_by has made"
                    ));
                    0
                });
                (grace, Some(time_of), true)
            }
        };
        let mut missing = None;
        let value = value.or_else(|| self.table.value.as_ref().map(Arc::clone));
        let value = serde_or_missing(value, &store, "value", &mut missing);
        if missing.is_some() {
            graph.mistake(format!(
                "{name} does not know how rows are written: say it with Suppressed::with_value_serde"
            ));
        }
        let store = buffer_store(&store, logging);
        let key = Arc::clone(&self.table.key);
        let spec = SuppressSpec { store, key, value, time_of, wait_ms, limits, drops_deletions };
        let maker = spec.clone();
        let node = NodeSpec::processor::<K, Change<V>, _>(&name, move |init| Suppress::new(init, &maker));
        let node = graph.append(node, &[self.node]);
        (self.table.send_old_values)(&mut graph, OldValues::Needed);
        add_and_connect(&mut graph, node, &spec.store.spec, is_named);
        drop(graph);
        let table = suppressed_table(&self.table, &spec);
        KTable::new(&self.graph, node, table)
    }
}

fn buffer_store(
    name: &str,
    logging: Option<BTreeMap<String, String>>,
) -> StoreBuilder<KeyValueStore<Vec<u8>, Vec<u8>>> {
    let (key, value): (DynSerde<Vec<u8>>, DynSerde<Vec<u8>>) = (Arc::new(Bytes), Arc::new(Bytes));
    let store =
        StoreBuilder::key_value(name, StoreKind::KeyValue, EngineKind::Persistent, key, value).with_buffer_log();
    match logging {
        Some(config) => store.with_logging(config),
        None => store.without_logging(),
    }
}

/// As those behind it know it: with what has come through.
fn suppressed_table<K: 'static, V: 'static>(before: &Table<K, V>, spec: &SuppressSpec<K, V>) -> Table<K, V> {
    let (key, value) = (Arc::clone(&spec.key), Arc::clone(&spec.value));
    let store = Arc::clone(&spec.store.spec.name);
    let view: ViewMaker<K, V> = {
        let (parent, store) = (Arc::clone(&before.view), Arc::clone(&store));
        let (key, value) = (Arc::clone(&key), Arc::clone(&value));
        Arc::new(move |init| {
            let (parent, buffer) = (parent(init)?, init.task.shared(&store)?);
            let (key, value) = (Arc::clone(&key), Arc::clone(&value));
            let view: Box<dyn View<K, V>> = Box::new(SuppressedView { buffer, parent, key, value });
            Ok(view)
        })
    };
    let materialize = Rc::clone(&before.materialize);
    let materialize = Rc::new(move |graph: &mut TopologyBuilder| {
        let mut stores = materialize(graph);
        stores.push(Arc::clone(&store));
        stores
    });
    let send_old_values = Rc::clone(&before.send_old_values);
    let value = Some(value);
    Table { key, value, queryable: None, is_versioned: false, view, materialize, send_old_values }
}
