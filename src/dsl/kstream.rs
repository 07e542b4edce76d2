use std::fmt;
use std::marker::PhantomData;
use std::rc::Rc;
use std::sync::Arc;

use super::builder::Graph;
use super::repartition::Repartition;
use super::table_node::table_source;
use super::{BranchedKStream, Grouped, KGroupedStream, KTable, Materialized, Printed, Repartitioned};
use crate::error::Result;
use crate::operators::print::{Print, Show, plain};
use crate::operators::stateless::{Filter, FlatMap, FlatMapValues, Map, MapValues, PassThrough, Peek, SelectKey};
use crate::operators::{ForEachAction, KeySelector, KeyValueMapper, Predicate, ValueMapper};
use crate::partition::partition_for_key;
use crate::serdes::{DynSerde, encode};
use crate::topology::{NodeId, NodeSpec, Partitioner, Processor, ProcessorInit, Produced, Role, SinkTopic};

/// A stream of records. A method takes the handle, so a stream has one child; `clone()` it for another one.
///
/// Timestamp and headers stay with a record through every operator. Functions are `Fn + Send + Sync`: one function serves
/// every task on every thread. State of its own does not compile; it belongs in a store of a
/// [processor](KStream::process):
///
/// ```compile_fail,E0594
/// # use kstreams::*;
/// let mut seen = 0;
/// StreamsBuilder::new().stream("in", Consumed::with(Utf8, Utf8)).filter(move |_, _| { seen += 1; seen < 10 });
/// ```
pub struct KStream<K, V> {
    pub(super) graph: Graph,
    pub(super) node: NodeId,
    /// Whether the key was changed since the records were last partitioned by it.
    pub(super) repartition_required: bool,
    /// The name of the next operator.
    given: Option<String>,
    types: PhantomData<fn() -> (K, V)>,
}

/// The place that asks for `Clone`: a second handle is a second child, which costs a copy of each record.
///
/// ```compile_fail,E0599
/// # use kstreams::*;
/// struct Unique; // not Clone
/// let stream = StreamsBuilder::new().stream("in", Consumed::with(Utf8, Utf8)).map_values(|_| Unique);
/// let second = stream.clone();
/// ```
impl<K: Clone + 'static, V: Clone + 'static> Clone for KStream<K, V> {
    fn clone(&self) -> Self {
        self.graph.borrow_mut().duplicate::<K, V>(self.node);
        self.another()
    }
}

impl<K: 'static, V: 'static> KStream<K, V> {
    /// Gives the next operator on this handle a name, Java's `Named`: at most 249 ASCII letters, digits, `.`, `_` and `-`.
    ///
    /// ```
    /// # use kstreams::*;
    /// let builder = StreamsBuilder::new();
    /// let short = builder.stream("in", Consumed::with(Utf8, Utf8)).named("short").filter(|_, text| text.len() < 10);
    /// assert!(builder.build()?.describe().contains("Processor: short"));
    /// # Ok::<(), Error>(())
    /// ```
    #[must_use = "a name that no operator takes is refused by build"]
    pub fn named(mut self, name: &str) -> Self {
        self.graph.borrow_mut().announce(name);
        if let Some(earlier) = self.given.replace(name.to_owned()) {
            self.graph.borrow_mut().mistake(format!("an operator is named twice, {earlier} and {name}: name it once"));
        }
        self
    }

    /// Keeps the records for which the predicate holds.
    #[must_use = "a stream that nobody takes goes nowhere"]
    pub fn filter(self, keep: impl Fn(&K, &V) -> bool + Send + Sync + 'static) -> KStream<K, V> {
        let keep: Predicate<K, V> = Arc::new(keep);
        self.append("KSTREAM-FILTER-", move |_| Ok(Filter { keep: Arc::clone(&keep) }))
    }

    /// Keeps the records for which the predicate does not hold.
    #[must_use = "a stream that nobody takes goes nowhere"]
    pub fn filter_not(self, drop: impl Fn(&K, &V) -> bool + Send + Sync + 'static) -> KStream<K, V> {
        self.filter(move |key, value| !drop(key, value))
    }

    /// Gives each record a new key and value. The key is taken for changed: grouping or joining repartitions.
    pub fn map<K2: 'static, V2: 'static>(
        self,
        map: impl Fn(K, V) -> (K2, V2) + Send + Sync + 'static,
    ) -> KStream<K2, V2> {
        let map: KeyValueMapper<K, V, (K2, V2)> = Arc::new(map);
        self.append("KSTREAM-MAP-", move |_| Ok(Map { map: Arc::clone(&map) })).with_new_key()
    }

    /// Gives each record a new value. The key stays, so nothing is repartitioned.
    pub fn map_values<V2: 'static>(self, map: impl Fn(V) -> V2 + Send + Sync + 'static) -> KStream<K, V2> {
        self.map_values_with_key(move |_, value| map(value))
    }

    /// The same with a look at the key.
    pub fn map_values_with_key<V2: 'static>(self, map: impl Fn(&K, V) -> V2 + Send + Sync + 'static) -> KStream<K, V2> {
        let map: ValueMapper<K, V, V2> = Arc::new(map);
        self.append("KSTREAM-MAPVALUES-", move |_| Ok(MapValues { map: Arc::clone(&map) })).with_new_value()
    }

    /// Makes any number of records of one, in the order of the iterator. The keys are taken for changed.
    pub fn flat_map<K2, V2, I>(self, map: impl Fn(K, V) -> I + Send + Sync + 'static) -> KStream<K2, V2>
    where
        K2: 'static,
        V2: 'static,
        I: IntoIterator<Item = (K2, V2)> + 'static,
    {
        let map: KeyValueMapper<K, V, I> = Arc::new(map);
        self.append("KSTREAM-FLATMAP-", move |_| Ok(FlatMap { map: Arc::clone(&map) })).with_new_key()
    }

    /// Makes any number of values of one, in the order of the iterator; each gets a copy of the key.
    pub fn flat_map_values<I>(self, map: impl Fn(V) -> I + Send + Sync + 'static) -> KStream<K, I::Item>
    where
        K: Clone,
        I: IntoIterator<Item: 'static> + 'static,
    {
        self.flat_map_values_with_key(move |_, value| map(value))
    }

    /// The same with a look at the key.
    pub fn flat_map_values_with_key<I>(self, map: impl Fn(&K, V) -> I + Send + Sync + 'static) -> KStream<K, I::Item>
    where
        K: Clone,
        I: IntoIterator<Item: 'static> + 'static,
    {
        let map: ValueMapper<K, V, I> = Arc::new(map);
        self.append("KSTREAM-FLATMAPVALUES-", move |_| Ok(FlatMapValues { map: Arc::clone(&map) })).with_new_value()
    }

    /// Gives each record a new key. It is taken for changed, even if it is not.
    pub fn select_key<K2: 'static>(self, select: impl Fn(&K, &V) -> K2 + Send + Sync + 'static) -> KStream<K2, V> {
        let select: KeySelector<K, V, K2> = Arc::new(select);
        self.append("KSTREAM-KEY-SELECT-", move |_| Ok(SelectKey { select: Arc::clone(&select) })).with_new_key()
    }

    /// Shows each record to a function and passes it on.
    #[must_use = "for_each ends a stream"]
    pub fn peek(self, action: impl Fn(&K, &V) + Send + Sync + 'static) -> KStream<K, V> {
        let action: ForEachAction<K, V> = Arc::new(action);
        self.append("KSTREAM-PEEK-", move |_| Ok(Peek { action: Arc::clone(&action) }))
    }

    /// Shows each record to a function: the end of the stream. What it does to the world is repeated after a failure.
    pub fn for_each(self, action: impl Fn(&K, &V) + Send + Sync + 'static) {
        let action: ForEachAction<K, V> = Arc::new(action);
        self.append("KSTREAM-FOREACH-", move |_| Ok(Peek { action: Arc::clone(&action) }));
    }

    /// Writes each record as `[label]: key, value`: the end of the stream. Text is written as it is, and so is text in an
    /// `Option`, or `null`; anything else in its `Debug` form. [`Printed::with_mapper`] chooses another form.
    pub fn print(self, printed: Printed<K, V>)
    where
        K: fmt::Debug,
        V: fmt::Debug,
    {
        let Printed { target, label, show } = printed;
        let label: Arc<str> = label.unwrap_or_else(|| self.node_name()).into();
        let show: Show<K, V> =
            show.unwrap_or_else(|| Arc::new(|key, value| format!("{}, {}", plain(key), plain(value))));
        self.append("KSTREAM-PRINTER-", move |_| {
            Ok(Print { label: Arc::clone(&label), show: Arc::clone(&show), target: target.clone() })
        });
    }

    /// Sends each record to one of several branches. A [name](KStream::named) before it begins the names of the branches.
    ///
    /// ```
    /// # use kstreams::*;
    /// let builder = StreamsBuilder::new();
    /// let numbers = builder.stream("numbers", Consumed::with(Utf8, I64)).named("numbers-");
    /// let mut branches = numbers
    ///     .split()
    ///     .branch(|_, n| n % 2 == 0, Branched::named("even"))
    ///     .default_branch(Branched::named("odd"));
    /// branches.remove("numbers-even").unwrap().to("even", Produced::with(Utf8, I64));
    /// branches.remove("numbers-odd").unwrap().to("odd", Produced::with(Utf8, I64));
    /// # builder.build()?;
    /// # Ok::<(), Error>(())
    /// ```
    pub fn split(mut self) -> BranchedKStream<K, V> {
        let prefix = self.name("KSTREAM-BRANCH-");
        BranchedKStream::new(self, prefix)
    }

    /// Both streams as one, each record when it comes: there is no order between them.
    #[expect(clippy::needless_pass_by_value, reason = "a handle is one child, and this is the other's")]
    #[must_use = "a stream that nobody takes goes nowhere"]
    pub fn merge(mut self, other: KStream<K, V>) -> KStream<K, V> {
        let name = self.name("KSTREAM-MERGE-");
        let repartition_required = self.repartition_required || other.repartition_required;
        let mut graph = self.graph.borrow_mut();
        let node = if Rc::ptr_eq(&self.graph, &other.graph) {
            let merge = NodeSpec::processor::<K, V, _>(&name, |_| Ok(PassThrough)).with_role(Role::Merges);
            graph.append(merge, &[self.node, other.node])
        } else {
            graph.mistake(format!("{name} merges streams of two builders: begin both with the same one"));
            self.node
        };
        KStream { repartition_required, ..KStream::new(&self.graph, node) }
    }

    /// Sends the records through a topic, each to the partition of its key. A record with a null key is dropped.
    ///
    /// Seldom needed: grouping and joining do it by themselves when the key was changed.
    #[must_use = "a stream that nobody takes goes nowhere"]
    pub fn repartition(mut self, repartitioned: Repartitioned<K, V>) -> KStream<K, V> {
        let Repartitioned { key, value, name, partitions, partitioner } = repartitioned;
        let mut graph = self.graph.borrow_mut();
        let name = one_name(&mut graph, self.given.take(), name);
        let remedy = name.is_none().then_some("Repartitioned::named");
        let prefix = match name {
            Some(name) => graph.checked(name),
            None => graph.name("KSTREAM-REPARTITION-"),
        };
        let prefix = prefix.as_str();
        let repartition = Repartition { prefix, remedy, key: &key, value: &value, partitions, partitioner };
        let node = repartition.append_as_asked(&mut graph, self.node);
        KStream::new(&self.graph, node)
    }

    /// Writes the records to a topic, or to one [chosen](crate::TopicNameExtractor) for each record: the end of the stream.
    /// Topics must exist.
    pub fn to(mut self, topic: impl Into<SinkTopic<K, V>>, produced: impl Into<Produced<K, V>>) {
        let mut produced = produced.into();
        let mut graph = self.graph.borrow_mut();
        let name = one_name(&mut graph, self.given.take(), produced.name.take());
        let name = graph.name_or(name, "KSTREAM-SINK-");
        if produced.partitioner.is_none() && produced.key.window_bytes() > 0 {
            produced.partitioner = Some(by_inner_key(Arc::clone(&produced.key)));
        }
        graph.append(NodeSpec::sink(&name, topic.into(), produced), &[self.node]);
    }

    /// The last value of each key as a table; none deletes the row. Needs serdes from [`Materialized::with`].
    ///
    /// A record with a null key is dropped and counted. Repartitions when the key was changed.
    pub fn to_table<T: 'static>(mut self, materialized: Materialized<K, T>) -> KTable<K, T>
    where
        V: Into<Option<T>>,
    {
        let mut graph = self.graph.borrow_mut();
        let is_named = self.given.is_some();
        let name = claim(&mut graph, self.given.take());
        let name = graph.name_or(name, "KSTREAM-TOTABLE-");
        let store = materialized.store(&mut graph, "KSTREAM-TOTABLE-", None, None);
        if !self.repartition_required {
            return table_source::<K, V, T>(&self.graph, &mut graph, &name, self.node, store);
        }
        // The topic holds rows or nulls, which is all that the table asks of a value.
        let (key, value) = (&store.spec.key, crate::serdes::Nullable(Arc::clone(&store.spec.value)));
        let map: ValueMapper<K, V, Option<T>> = Arc::new(|_, value| value.into());
        let value: DynSerde<Option<T>> = Arc::new(value);
        let remedy = (!is_named).then_some("KStream::named");
        let repartition =
            Repartition { prefix: &name, remedy, key, value: &value, partitions: None, partitioner: None };
        let source = repartition.append_mapped(&mut graph, self.node, map);
        table_source::<K, Option<T>, T>(&self.graph, &mut graph, &name, source, store)
    }

    /// Groups by a new key. A record with a null key is dropped.
    ///
    /// ```
    /// # use kstreams::*;
    /// # let builder = StreamsBuilder::new();
    /// # let orders = builder.stream("orders", Consumed::with(Utf8, Utf8));
    /// let per_customer = orders
    ///     .group_by(|_id, customer| customer.clone(), Grouped::with(Utf8, Utf8).named("by-customer"))
    ///     .count(Materialized::named("orders-per-customer"));
    /// # builder.build()?;
    /// # Ok::<(), Error>(())
    /// ```
    pub fn group_by<K2: 'static>(
        mut self,
        select: impl Fn(&K, &V) -> K2 + Send + Sync + 'static,
        grouped: Grouped<K2, V>,
    ) -> KGroupedStream<K2, V> {
        let name = one_name(&mut self.graph.borrow_mut(), self.given.take(), grouped.name.clone());
        let name = self.graph.borrow_mut().name_or(name, "KSTREAM-KEY-SELECT-");
        let select: KeySelector<K, V, K2> = Arc::new(select);
        let node = NodeSpec::processor::<K, V, _>(&name, move |_| Ok(SelectKey { select: Arc::clone(&select) }));
        KGroupedStream::new(self.attach(node).with_new_key(), grouped)
    }

    /// Groups by the key as it is. Repartitions only when it was changed.
    pub fn group_by_key(mut self, grouped: Grouped<K, V>) -> KGroupedStream<K, V> {
        if let Some(name) = self.given.take() {
            let mut graph = self.graph.borrow_mut();
            graph.claim(&name);
            graph.mistake(format!("group_by_key has no node to call {name}: name the grouping with Grouped::named"));
        }
        KGroupedStream::new(self, grouped)
    }
}

/// The name given by `named` and the one among an operator's options are one.
pub(super) fn one_name(
    graph: &mut crate::topology::TopologyBuilder,
    given: Option<String>,
    option: Option<String>,
) -> Option<String> {
    let given = claim(graph, given);
    if let (Some(given), Some(option)) = (&given, &option) {
        graph.mistake(format!("an operator is named twice, {given} and {option}: name it once"));
    }
    given.or(option)
}

pub(super) fn claim(graph: &mut crate::topology::TopologyBuilder, given: Option<String>) -> Option<String> {
    if let Some(name) = &given {
        graph.claim(name);
    }
    given
}

impl<K: 'static, V: 'static> KStream<K, V> {
    pub(super) fn new(graph: &Graph, node: NodeId) -> KStream<K, V> {
        KStream { graph: Rc::clone(graph), node, repartition_required: false, given: None, types: PhantomData }
    }

    /// The name of the next operator: the given one, or the next of its kind.
    pub(super) fn name(&mut self, prefix: &str) -> String {
        let mut graph = self.graph.borrow_mut();
        let given = claim(&mut graph, self.given.take());
        graph.name_or(given, prefix)
    }

    pub(super) fn take_given(&mut self) -> Option<String> {
        claim(&mut self.graph.borrow_mut(), self.given.take())
    }

    pub(super) fn node_name(&self) -> String {
        self.graph.borrow().node_name(self.node)
    }

    /// One more processor behind this stream, under the next name of its kind.
    pub(super) fn append<P: Processor<K, V>>(
        mut self,
        prefix: &str,
        make: impl Fn(&mut ProcessorInit<'_>) -> Result<P> + Send + Sync + 'static,
    ) -> KStream<P::KeyOut, P::ValueOut> {
        let name = self.name(prefix);
        self.attach(NodeSpec::processor(&name, make))
    }

    /// The caller answers for `K2` and `V2`; `build` checks them once more.
    pub(super) fn attach<K2: 'static, V2: 'static>(self, node: NodeSpec) -> KStream<K2, V2> {
        let node = self.graph.borrow_mut().append(node, &[self.node]);
        KStream { repartition_required: self.repartition_required, ..KStream::new(&self.graph, node) }
    }

    /// A further handle, for a node that may have further children.
    pub(super) fn another(&self) -> Self {
        KStream { repartition_required: self.repartition_required, ..KStream::new(&self.graph, self.node) }
    }

    /// The node changes values: what is before it cannot be repartitioned in its place.
    pub(super) fn with_new_value(self) -> Self {
        self.graph.borrow_mut().set_role(self.node, Role::ChangesValue);
        self
    }

    pub(super) fn with_new_key(self) -> Self {
        self.graph.borrow_mut().set_role(self.node, Role::ChangesKey);
        KStream { repartition_required: true, ..self }
    }
}

impl<K, V> fmt::Debug for KStream<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KStream").field("node", &self.node).finish_non_exhaustive()
    }
}

/// Sends the windows of a key where the key goes (Java's `WindowedStreamPartitioner`).
pub(super) fn by_inner_key<K: 'static, V>(serde: DynSerde<K>) -> Partitioner<K, V> {
    Arc::new(move |_, key, _, partitions| {
        let mut bytes = Vec::new();
        // A key that cannot be written is told by the sink itself.
        encode(&*serde, key, &mut bytes).ok()??;
        let inner = bytes.len().checked_sub(serde.window_bytes())?;
        Some(vec![partition_for_key(bytes.get(..inner)?, partitions)])
    })
}
