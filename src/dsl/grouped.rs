use std::cell::Cell;
use std::fmt;
use std::rc::Rc;
use std::sync::Arc;

use super::builder::Graph;
use super::kstream::claim;
use super::repartition::Repartition;
use super::table_node::{Table, connect_store};
use super::windows::Windows;
use super::{Grouped, KStream, KTable, Materialized};
use crate::operators::aggregate::Aggregate;
use crate::operators::table_aggregate::TableAggregate;
use crate::operators::{Aggregator, Fold};
use crate::record::Change;
use crate::serdes::{Changed, DynSerde, I64};
use crate::topology::{Consumed, NodeId, NodeSpec, ProcessorInit, Produced, TopologyBuilder};

/// Lets a node have further children.
type Duplicate = fn(&mut TopologyBuilder, NodeId);

/// What the uses of one grouping share.
#[derive(Default)]
struct Shared {
    /// The source behind the repartition topic: a named grouping has only one.
    source: Cell<Option<NodeId>>,
    /// Set once the grouping is cloned.
    duplicate: Cell<Option<Duplicate>>,
}

impl Shared {
    fn cloned(&self, duplicate: Duplicate, graph: &mut TopologyBuilder, node: NodeId) {
        self.duplicate.set(Some(duplicate));
        duplicate(graph, node);
        if let Some(source) = self.source.get() {
            duplicate(graph, source);
        }
    }

    /// The source behind the topic, made once if the grouping is named.
    fn source(
        &self,
        graph: &mut TopologyBuilder,
        is_named: bool,
        make: impl FnOnce(&mut TopologyBuilder) -> NodeId,
    ) -> NodeId {
        if let Some(source) = self.source.get().filter(|_| is_named) {
            return source;
        }
        let source = make(graph);
        if let Some(duplicate) = self.duplicate.get() {
            duplicate(graph, source);
        }
        self.source.set(Some(source));
        source
    }
}

/// A stream whose records of one key are in one task. `clone()` it to aggregate it more than once.
pub struct KGroupedStream<K, V> {
    pub(super) stream: KStream<K, V>,
    pub(super) grouped: Grouped<K, V>,
    shared: Rc<Shared>,
}

impl<K: Clone + 'static, V: Clone + 'static> Clone for KGroupedStream<K, V> {
    fn clone(&self) -> Self {
        let mut graph = self.stream.graph.borrow_mut();
        self.shared.cloned(TopologyBuilder::duplicate::<K, V>, &mut graph, self.stream.node);
        let (stream, grouped) = (self.stream.another(), self.grouped.clone());
        KGroupedStream { stream, grouped, shared: Rc::clone(&self.shared) }
    }
}

impl<K: 'static, V: 'static> KGroupedStream<K, V> {
    pub(super) fn new(stream: KStream<K, V>, grouped: Grouped<K, V>) -> Self {
        KGroupedStream { stream, grouped, shared: Rc::default() }
    }

    /// Gives the aggregation a name, Java's `Named`. The grouping is named with [`Grouped::named`].
    #[must_use = "a name that no operator takes is refused by build"]
    pub fn named(self, name: &str) -> Self {
        KGroupedStream { stream: self.stream.named(name), ..self }
    }

    /// Counts the records of each key. A record with a null key or value is dropped and counted as dropped.
    ///
    /// Emits the new count of a key with each record, or once per commit where the store is cached; its time is the
    /// highest of its records.
    pub fn count(self, materialized: Materialized<K, i64>) -> KTable<K, i64> {
        let serde: DynSerde<i64> = Arc::new(I64);
        self.aggregate_with("KSTREAM-AGGREGATE-", Some(&serde), Fold::count(), materialized)
    }

    /// Combines the values of each key, beginning with the first one: `Fn(row, value) -> row`, where none deletes the row.
    ///
    /// Nulls and emission as for [`count`](KGroupedStream::count).
    pub fn reduce<R: Into<Option<V>>>(
        self,
        reducer: impl Fn(V, V) -> R + Send + Sync + 'static,
        materialized: Materialized<K, V>,
    ) -> KTable<K, V> {
        let serde = Arc::clone(&self.grouped.value);
        self.aggregate_with("KSTREAM-REDUCE-", Some(&serde), Fold::reduce(reducer), materialized)
    }

    /// Folds the values of each key into a row of another type: `Fn(&key, value, row) -> row`, where none deletes the row.
    /// Needs the serde of the row, from [`Materialized::with_value_serde`].
    ///
    /// Nulls and emission as for [`count`](KGroupedStream::count).
    ///
    /// ```
    /// # use kstreams::*;
    /// # let builder = StreamsBuilder::new();
    /// # let payments = builder.stream("payments", Consumed::with(Utf8, I64)).group_by_key(Grouped::with(Utf8, I64));
    /// let largest = payments.aggregate(
    ///     || i64::MIN,
    ///     |_customer, amount, largest| largest.max(amount),
    ///     Materialized::named("largest-payment").with_value_serde(I64),
    /// );
    /// # builder.build()?;
    /// # Ok::<(), Error>(())
    /// ```
    pub fn aggregate<A: 'static, R: Into<Option<A>>>(
        self,
        initializer: impl Fn() -> A + Send + Sync + 'static,
        aggregator: impl Fn(&K, V, A) -> R + Send + Sync + 'static,
        materialized: Materialized<K, A>,
    ) -> KTable<K, A> {
        self.aggregate_with("KSTREAM-AGGREGATE-", None, Fold::aggregate(initializer, aggregator), materialized)
    }

    /// Aggregates by key and window: time windows, sliding windows, sessions, one window without an end, or windows of so
    /// many records.
    ///
    /// ```
    /// # use kstreams::*;
    /// # use std::time::Duration;
    /// # let builder = StreamsBuilder::new();
    /// # let clicks = builder.stream("clicks", Consumed::with(Utf8, Utf8)).group_by_key(Grouped::with(Utf8, Utf8));
    /// let minute = Duration::from_secs(60);
    /// let per_minute = clicks
    ///     .windowed_by(TimeWindows::of_size_and_grace(minute, Duration::from_secs(10)))
    ///     .count(Materialized::named("clicks-per-minute"));
    /// per_minute.to_stream().to("clicks-per-minute", Produced::with(TimeWindowedSerde::new(Utf8, minute), I64));
    /// # builder.build()?;
    /// # Ok::<(), Error>(())
    /// ```
    pub fn windowed_by<W: Windows>(self, windows: W) -> W::Stream<K, V>
    where
        K: Clone,
        V: Clone,
    {
        windows.windowed(self)
    }

    /// The node whose records of one key are in one task: behind a repartition topic, if the key was changed.
    pub(super) fn partitioned(&self, graph: &mut TopologyBuilder, store: &str, is_named: bool) -> NodeId {
        let parent = self.stream.node;
        if !self.stream.repartition_required {
            return parent;
        }
        let Grouped { key, value, name: grouping } = &self.grouped;
        let repartition = Repartition {
            prefix: grouping.as_deref().unwrap_or(store),
            remedy: (grouping.is_none() && !is_named).then_some("Grouped::named"),
            key,
            value,
            partitions: None,
            partitioner: None,
        };
        let reused = self.shared.source.get().is_some() && grouping.is_some();
        if reused {
            super::repartition::generated_names(graph); // Java uses the numbers up all the same
        }
        self.shared.source(graph, grouping.is_some(), |graph| repartition.append(graph, parent))
    }

    fn aggregate_with<A: 'static>(
        mut self,
        prefix: &str,
        serde: Option<&DynSerde<A>>,
        fold: Fold<K, V, A>,
        materialized: Materialized<K, A>,
    ) -> KTable<K, A> {
        let given = self.stream.take_given();
        let handle = Rc::clone(&self.stream.graph);
        let mut graph = handle.borrow_mut();
        let store = materialized.store(&mut graph, prefix, Some(&self.grouped.key), serde);
        let name = graph.name_or(given, prefix);
        let parent = self.partitioned(&mut graph, store.spec.name(), store.is_named);
        let value = Arc::clone(&self.grouped.value);
        let spec = store.spec.clone();
        let make = move |init: &mut ProcessorInit<'_>| {
            let (rows, value, aggregator) = (spec.open(init)?, Arc::clone(&value), Arc::clone(&fold.aggregator));
            let initializer = fold.initializer.as_ref().map(Arc::clone);
            Ok(Aggregate { name: init.node_name(), rows, value, aggregator, initializer })
        };
        let node = graph.append(NodeSpec::processor::<K, V, _>(&name, make), &[parent]);
        connect_store(&mut graph, node, &store.spec, store.is_named);
        KTable::new(&handle, node, Table::stored(node, store))
    }
}

impl<K, V> fmt::Debug for KGroupedStream<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KGroupedStream").field("stream", &self.stream).field("grouped", &self.grouped).finish()
    }
}

/// A table grouped by something else than its key: [`KTable::group_by`]. `clone()` it to aggregate it more than once.
///
/// A change of a row takes the old row out of its group and puts the new one into its own.
pub struct KGroupedTable<K, V> {
    graph: Graph,
    node: NodeId,
    given: Option<String>,
    grouped: Grouped<K, V>,
    shared: Rc<Shared>,
}

impl<K: Clone + 'static, V: Clone + 'static> Clone for KGroupedTable<K, V> {
    fn clone(&self) -> Self {
        self.shared.cloned(TopologyBuilder::duplicate::<K, Change<V>>, &mut self.graph.borrow_mut(), self.node);
        let (graph, grouped) = (Rc::clone(&self.graph), self.grouped.clone());
        KGroupedTable { graph, node: self.node, given: None, grouped, shared: Rc::clone(&self.shared) }
    }
}

impl<K: 'static, V: 'static> KGroupedTable<K, V> {
    pub(super) fn new(graph: &Graph, node: NodeId, grouped: Grouped<K, V>) -> Self {
        KGroupedTable { graph: Rc::clone(graph), node, given: None, grouped, shared: Rc::default() }
    }

    /// Gives the aggregation a name, Java's `Named`. The grouping is named with [`Grouped::named`].
    #[must_use = "a name that no operator takes is refused by build"]
    pub fn named(mut self, name: &str) -> Self {
        self.graph.borrow_mut().announce(name);
        if let Some(earlier) = self.given.replace(name.to_owned()) {
            self.graph.borrow_mut().mistake(format!("an operator is named twice, {earlier} and {name}: name it once"));
        }
        self
    }

    /// Counts the rows of each group. The count of a group without rows is 0; it is not deleted.
    pub fn count(self, materialized: Materialized<K, i64>) -> KTable<K, i64> {
        let add: Aggregator<K, V, i64> = Arc::new(|_, _, count| Some(count.unwrap_or(0) + 1));
        let subtract: Aggregator<K, V, i64> = Arc::new(|_, _, count| Some(count? - 1));
        let serde: DynSerde<i64> = Arc::new(I64);
        self.aggregate_with("KTABLE-AGGREGATE-", Some(&serde), add, subtract, materialized)
    }

    /// Combines the rows of each group: `Fn(result, row) -> result`, where none deletes the result. The first row is the
    /// result as it is. The subtractor takes a row out that was added before.
    pub fn reduce<R: Into<Option<V>>, S: Into<Option<V>>>(
        self,
        adder: impl Fn(V, V) -> R + Send + Sync + 'static,
        subtractor: impl Fn(V, V) -> S + Send + Sync + 'static,
        materialized: Materialized<K, V>,
    ) -> KTable<K, V> {
        let add: Aggregator<K, V, V> = Arc::new(move |_, value, row| match row {
            Some(row) => adder(row, value).into(),
            None => Some(value),
        });
        let subtract: Aggregator<K, V, V> = Arc::new(move |_, value, row| subtractor(row?, value).into());
        let serde = Arc::clone(&self.grouped.value);
        self.aggregate_with("KTABLE-REDUCE-", Some(&serde), add, subtract, materialized)
    }

    /// Folds the rows of each group into a result of another type: `Fn(&key, row, result) -> result`, where none deletes
    /// the result; the next row begins anew. Needs the serde of the result, from [`Materialized::with_value_serde`].
    ///
    /// ```
    /// # use kstreams::*;
    /// # let builder = StreamsBuilder::new();
    /// let accounts = builder.table("accounts", Consumed::with(Utf8, I64), Materialized::default());
    /// let per_bank = accounts
    ///     .group_by(|id, balance| Some((id[..3].to_owned(), *balance)), Grouped::with(Utf8, I64))
    ///     .aggregate(
    ///         || 0,
    ///         |_bank, balance, sum: i64| sum + balance,
    ///         |_bank, balance, sum: i64| sum - balance,
    ///         Materialized::named("per-bank").with_value_serde(I64),
    ///     );
    /// # builder.build()?;
    /// # Ok::<(), Error>(())
    /// ```
    pub fn aggregate<A: 'static, R: Into<Option<A>>, S: Into<Option<A>>>(
        self,
        initializer: impl Fn() -> A + Send + Sync + 'static,
        adder: impl Fn(&K, V, A) -> R + Send + Sync + 'static,
        subtractor: impl Fn(&K, V, A) -> S + Send + Sync + 'static,
        materialized: Materialized<K, A>,
    ) -> KTable<K, A> {
        let add: Aggregator<K, V, A> =
            Arc::new(move |key, value, row| adder(key, value, row.unwrap_or_else(&initializer)).into());
        let subtract: Aggregator<K, V, A> = Arc::new(move |key, value, row| subtractor(key, value, row?).into());
        self.aggregate_with("KTABLE-AGGREGATE-", None, add, subtract, materialized)
    }

    fn aggregate_with<A: 'static>(
        mut self,
        prefix: &str,
        serde: Option<&DynSerde<A>>,
        add: Aggregator<K, V, A>,
        subtract: Aggregator<K, V, A>,
        materialized: Materialized<K, A>,
    ) -> KTable<K, A> {
        let mut graph = self.graph.borrow_mut();
        let given = claim(&mut graph, self.given.take());
        let Grouped { key, value, name: grouping } = self.grouped;
        let store = materialized.store(&mut graph, prefix, Some(&key), serde);
        let part = |part: &str| given.as_ref().map(|given| format!("{given}{part}"));
        let (sink, source) = (part("-sink"), part("-source"));
        let (sink, source) = (graph.name_or(sink, "KSTREAM-SINK-"), graph.name_or(source, "KSTREAM-SOURCE-"));
        let name = graph.name_or(given, prefix);
        let topic = format!("{}-repartition", grouping.as_deref().unwrap_or(store.spec.name()));
        let parent = self.node;
        let source = self.shared.source(&mut graph, grouping.is_some(), |graph| {
            if grouping.is_none() && !store.is_named {
                graph.generated(format!("repartition topic {topic} (name it with Grouped::named)"));
            }
            graph.add_repartition_topic(&topic, None);
            let produced = Produced::with(Arc::clone(&key), Changed(Arc::clone(&value)));
            graph.append(NodeSpec::sink(&sink, topic.as_str().into(), produced), &[parent]);
            let consumed = Consumed::with(Arc::clone(&key), Changed(Arc::clone(&value)));
            graph.append(NodeSpec::source(&source, &[&topic], consumed), &[])
        });
        let spec = store.spec.clone();
        let make = move |init: &mut ProcessorInit<'_>| {
            let (add, subtract) = (Arc::clone(&add), Arc::clone(&subtract));
            Ok(TableAggregate { rows: spec.open(init)?, add, subtract })
        };
        let node = graph.append(NodeSpec::processor::<K, Change<V>, _>(&name, make), &[source]);
        connect_store(&mut graph, node, &store.spec, store.is_named);
        KTable::new(&self.graph, node, Table::stored(node, store))
    }
}

impl<K, V> fmt::Debug for KGroupedTable<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KGroupedTable")
            .field("node", &self.node)
            .field("grouped", &self.grouped)
            .finish_non_exhaustive()
    }
}
