//! Grouped streams by windows of so many records.

use std::fmt;
use std::rc::Rc;
use std::sync::Arc;

use super::options::serde_or_missing;
use super::table_node::{Table, add_and_connect};
use super::{KGroupedStream, KTable, Materialized};
use crate::operators::Fold;
use crate::operators::table::{View, ViewMaker};
use crate::operators::windowed::changes::EmitStrategy;
use crate::operators::windowed::count::{CountFunctions, CountStoreSpec, CountWindowAggregate, OpenWindowsView};
use crate::serdes::{Bytes, CountedSerde, DynSerde, I64, Timestamped};
use crate::state::{StoreBuilder, StoreKind};
use crate::topology::{NodeSpec, ProcessorInit, TopologyBuilder};
use crate::window::{CountWindows, Counted, millis};

/// A grouped stream by windows of so many records: [`KGroupedStream::windowed_by`] with [`CountWindows`]. `clone()` it to
/// aggregate it more than once.
///
/// A record belongs to windows by its number among those of its key, in the order of the partition; its time says nothing
/// about it, so no record is late. One with a null key or value is dropped, counted as dropped, and has no number.
///
/// How many records of a key there were and its open windows are one row of a key-value store with a changelog. The row
/// stays as long as nobody deletes it, as that of any aggregation does, so that numbers go on.
/// A full window leaves the store; nothing downstream is told of that.
/// After a change of the size, open windows go on with the new one, and those that are full by it are dropped.
pub struct CountWindowedKStream<K, V> {
    grouped: KGroupedStream<K, V>,
    windows: CountWindows,
    emit: EmitStrategy,
}

impl<K: Clone + 'static, V: Clone + 'static> Clone for CountWindowedKStream<K, V> {
    fn clone(&self) -> Self {
        CountWindowedKStream { grouped: self.grouped.clone(), windows: self.windows, emit: self.emit }
    }
}

impl<K: Clone + 'static, V: Clone + 'static> CountWindowedKStream<K, V> {
    pub(super) fn new(grouped: KGroupedStream<K, V>, windows: CountWindows) -> Self {
        if let Err(mistake) = windows.check() {
            grouped.stream.graph.borrow_mut().mistake(mistake);
        }
        CountWindowedKStream { grouped, windows, emit: EmitStrategy::default() }
    }

    /// Gives the aggregation a name, Java's `Named`.
    #[must_use = "a name that no operator takes is refused by build"]
    pub fn named(self, name: &str) -> Self {
        CountWindowedKStream { grouped: self.grouped.named(name), ..self }
    }

    /// Says when results go downstream: with each record, which is the default, or once when the window is full. Neither
    /// waits for a commit: the store is not cached.
    #[must_use]
    pub fn emit_strategy(self, emit: EmitStrategy) -> Self {
        CountWindowedKStream { emit, ..self }
    }

    /// Counts the records of each key and window.
    ///
    /// A result is emitted as [`emit_strategy`](CountWindowedKStream::emit_strategy) says, with the headers of the record
    /// that led to it; its time is the highest of its records.
    pub fn count(self, materialized: Materialized<K, i64>) -> KTable<Counted<K>, i64> {
        let serde: DynSerde<i64> = Arc::new(I64);
        self.aggregate_with("KSTREAM-AGGREGATE-", Some(&serde), Fold::count(), materialized)
    }

    /// Combines the values of each key and window, beginning with the first one: `Fn(row, value) -> row`, where none
    /// deletes the row. The record that has led to it keeps its number.
    ///
    /// Emission as for [`count`](CountWindowedKStream::count).
    pub fn reduce<R: Into<Option<V>>>(
        self,
        reducer: impl Fn(V, V) -> R + Send + Sync + 'static,
        materialized: Materialized<K, V>,
    ) -> KTable<Counted<K>, V> {
        let serde = Arc::clone(&self.grouped.grouped.value);
        self.aggregate_with("KSTREAM-REDUCE-", Some(&serde), Fold::reduce(reducer), materialized)
    }

    /// Folds the values of each key and window into a row of another type: `Fn(&key, value, row) -> row`, where none
    /// deletes the row. Needs the serde of the row, from [`Materialized::with_value_serde`].
    ///
    /// ```
    /// # use kstreams::*;
    /// # let builder = StreamsBuilder::new();
    /// # let readings = builder.stream("readings", Consumed::with(Utf8, F64)).group_by_key(Grouped::with(Utf8, F64));
    /// // The highest of the last ten readings, anew after each second one.
    /// let highest = readings
    ///     .windowed_by(CountWindows::hopping(10, 2))
    ///     .emit_strategy(EmitStrategy::OnWindowClose)
    ///     .aggregate(
    ///         || f64::MIN,
    ///         |_sensor, reading, highest: f64| highest.max(reading),
    ///         Materialized::named("highest").with_value_serde(F64),
    ///     );
    /// # builder.build()?;
    /// # Ok::<(), Error>(())
    /// ```
    pub fn aggregate<A: 'static, R: Into<Option<A>>>(
        self,
        initializer: impl Fn() -> A + Send + Sync + 'static,
        aggregator: impl Fn(&K, V, A) -> R + Send + Sync + 'static,
        materialized: Materialized<K, A>,
    ) -> KTable<Counted<K>, A> {
        self.aggregate_with("KSTREAM-AGGREGATE-", None, Fold::aggregate(initializer, aggregator), materialized)
    }

    fn aggregate_with<A: 'static>(
        mut self,
        prefix: &str,
        serde: Option<&DynSerde<A>>,
        fold: Fold<K, V, A>,
        materialized: Materialized<K, A>,
    ) -> KTable<Counted<K>, A> {
        let given = self.grouped.stream.take_given();
        let handle = Rc::clone(&self.grouped.stream.graph);
        let mut graph = handle.borrow_mut();
        let is_named = materialized.name.is_some();
        let store = materialized.count_store(&mut graph, prefix, &self.grouped.grouped.key, serde);
        let name = graph.name_or(given, prefix);
        let parent = self.grouped.partitioned(&mut graph, store.store.name(), is_named);
        let value = Arc::clone(&self.grouped.grouped.value);
        let (windows, emit) = (self.windows, self.emit);
        let Fold { initializer, aggregator } = fold;
        let (spec, functions) = (store.clone(), CountFunctions { value, initializer, aggregator });
        let make = move |init: &mut ProcessorInit<'_>| {
            CountWindowAggregate::new(init, &spec, windows, emit, functions.clone())
        };
        let node = graph.append(NodeSpec::processor::<K, V, _>(&name, make), &[parent]);
        add_and_connect(&mut graph, node, &store.store.spec, is_named);
        drop(graph);
        let key = CountedSerde::with_size(Arc::clone(&store.key), windows.size());
        let (key, value): (DynSerde<Counted<K>>, _) = (Arc::new(key), Arc::clone(&store.value));
        let stored = Arc::clone(&store.store.spec);
        let view: ViewMaker<Counted<K>, A> = Arc::new(move |init| {
            let view: Box<dyn View<Counted<K>, A>> = Box::new(OpenWindowsView::new(init, &store)?);
            Ok(view)
        });
        // Its rows are those of keys, each with several windows: nothing to be queried as this table.
        KTable::new(&handle, node, Table::aggregated(vec![node], &stored, false, (key, value), view))
    }
}

impl<K: 'static, A: 'static> Materialized<K, A> {
    /// The store of count windows. A number is used up when the name is generated.
    fn count_store(
        mut self,
        graph: &mut TopologyBuilder,
        prefix: &str,
        key: &DynSerde<K>,
        value: Option<&DynSerde<A>>,
    ) -> CountStoreSpec<K, A> {
        let (engine, is_default) = (self.engine(graph), self.is_default_engine());
        let name = match self.name.take() {
            Some(name) => graph.checked(name),
            None => graph.name(&format!("{prefix}STATE-STORE-")),
        };
        let remedy = match (self.retention, self.is_versioned()) {
            (Some(_), _) => Some("are not kept by time: leave with_retention out"),
            (None, true) => Some("have no versions: leave as_versioned out"),
            (None, false) => None,
        };
        if let Some(remedy) = remedy {
            graph.mistake(format!("store {name} is of count windows, which {remedy}"));
        }
        let mut missing = None;
        let key = serde_or_missing(self.key.take().or(Some(Arc::clone(key))), &name, "key", &mut missing);
        let value = serde_or_missing(self.value.take().or(value.map(Arc::clone)), &name, "value", &mut missing);
        if let Some(missing) = missing {
            graph.mistake(missing.to_string());
        }
        let rows = Arc::new(Timestamped(Bytes));
        let partitioner = self.key_partitioner(&key);
        let store = StoreBuilder::key_value(&name, StoreKind::TimestampedKeyValue, engine, Arc::clone(&key), rows)
            .with_made_engine(self.custom)
            .with_key_partitioner(partitioner);
        let store = store.with_ttl_ms(self.ttl.map(millis)).with_default_engine(is_default);
        let store = match self.logging {
            Some(config) => store.with_logging(config),
            None => store.without_logging(),
        };
        CountStoreSpec { store, key, value }
    }
}

impl<K, V> fmt::Debug for CountWindowedKStream<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CountWindowedKStream").field("windows", &self.windows).finish_non_exhaustive()
    }
}
