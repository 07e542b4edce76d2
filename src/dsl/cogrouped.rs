//! Several grouped streams, aggregated into one table.

use std::collections::BTreeSet;
use std::fmt;
use std::rc::Rc;
use std::sync::Arc;

use super::builder::Graph;
use super::kstream::claim;
use super::table_node::{Table, TableStoreOption, add_and_connect};
use super::windowed::{
    WindowFunctions, append_sessions, append_windows, session_functions, session_table, window_table,
};
use super::windowed_store::{SessionStoreOption, WindowStoreOption};
use super::windows::CogroupedWindows;
use super::{KGroupedStream, KTable, Materialized};
use crate::operators::aggregate::Aggregate;
use crate::operators::stateless::PassThrough;
use crate::operators::windowed::changes::EmitStrategy;
use crate::operators::windowed::session::Merger;
use crate::operators::{Aggregator, Initializer};
use crate::record::Change;
use crate::serdes::DynSerde;
use crate::state::StoreSpec;
use crate::topology::{NodeId, NodeSpec, ProcessorInit, TopologyBuilder};
use crate::window::{SessionWindows, StoredWindows, Windowed};

/// One stream of a cogroup. Its values are of a type of their own, which only these functions know.
struct Part<K, A> {
    /// Where its records come from, before any repartition topic.
    node: NodeId,
    partitioned: Partition,
    append: AppendPart<K, A>,
}

/// Takes the name of the store, and whether the user gave it.
type Partition = Box<dyn Fn(&mut TopologyBuilder, &str, bool) -> NodeId>;
type AppendPart<K, A> = Box<dyn Fn(&mut TopologyBuilder, &str, NodeId, &Target<'_, K, A>) -> NodeId>;

/// What a part is aggregated into.
enum Target<'a, K, A> {
    Rows(&'a TableStoreOption<K, A>, &'a Initializer<A>),
    Windows(&'a StoredWindows, &'a WindowStoreOption<K, A>, &'a Initializer<A>),
    Sessions(SessionWindows, &'a SessionStoreOption<K, A>, &'a Initializer<A>, &'a Merger<K, A>),
}

/// Grouped streams with the same keys that are aggregated into one table, each with an aggregator of its own (KIP-150):
/// [`KGroupedStream::cogroup`].
///
/// One store takes the place of a table for each stream and the joins between them.
pub struct CogroupedKStream<K, A> {
    graph: Graph,
    key: DynSerde<K>,
    given: Option<String>,
    parts: Rc<Vec<Part<K, A>>>,
}

impl<K, A> Clone for CogroupedKStream<K, A> {
    fn clone(&self) -> Self {
        let (graph, key) = (Rc::clone(&self.graph), Arc::clone(&self.key));
        CogroupedKStream { graph, key, given: None, parts: Rc::clone(&self.parts) }
    }
}

impl<K: 'static, V: 'static> KGroupedStream<K, V> {
    /// Begins an aggregation of several streams into one table: `Fn(&key, value, row) -> row`, where none deletes the row.
    ///
    /// ```
    /// # use kstreams::*;
    /// let builder = StreamsBuilder::new();
    /// let grouped = |topic: &str| builder.stream(topic, Consumed::with(Utf8, I64)).group_by_key(Grouped::with(Utf8, I64));
    /// let balances = grouped("deposits")
    ///     .cogroup(|_account, amount, balance: i64| balance + amount)
    ///     .cogroup(grouped("withdrawals"), |_account, amount, balance: i64| balance - amount)
    ///     .aggregate(|| 0, Materialized::named("balances").with_value_serde(I64));
    /// balances.to_stream().to("balances", Produced::with(Utf8, I64));
    ///
    /// let mut driver = TopologyTestDriver::new(&builder.build()?)?;
    /// driver.create_input_topic("deposits", Utf8, I64).pipe(&mut driver, "anne", 10)?;
    /// driver.create_input_topic("withdrawals", Utf8, I64).pipe(&mut driver, "anne", 3)?;
    /// let balances = driver.create_output_topic("balances", Utf8, I64).read_key_values(&mut driver)?;
    /// assert_eq!(balances, [("anne".to_owned(), 10), ("anne".to_owned(), 7)]);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn cogroup<A: 'static, R: Into<Option<A>>>(
        self,
        aggregator: impl Fn(&K, V, A) -> R + Send + Sync + 'static,
    ) -> CogroupedKStream<K, A>
    where
        K: Clone,
        V: Clone,
    {
        let (graph, key) = (Rc::clone(&self.stream.graph), Arc::clone(&self.grouped.key));
        CogroupedKStream { graph, key, given: None, parts: Rc::default() }.cogroup(self, aggregator)
    }
}

impl<K: Clone + 'static, A: 'static> CogroupedKStream<K, A> {
    /// Adds a stream with its aggregator: `Fn(&key, value, row) -> row`, where none deletes the row.
    #[must_use = "streams that are not aggregated go nowhere"]
    pub fn cogroup<V: Clone + 'static, R: Into<Option<A>>>(
        mut self,
        grouped: KGroupedStream<K, V>,
        aggregator: impl Fn(&K, V, A) -> R + Send + Sync + 'static,
    ) -> Self {
        let part = part(grouped, Arc::new(aggregator));
        match Rc::get_mut(&mut self.parts) {
            Some(parts) => parts.push(part),
            None => {
                let mistake = "a cogroup was cloned before all its streams were added: add them first".to_owned();
                self.graph.borrow_mut().mistake(mistake);
            }
        }
        self
    }

    /// Gives the aggregation a name, Java's `Named`: its operators are `<name>-cogroup-agg-0` and so on.
    #[must_use = "a name that no operator takes is refused by build"]
    pub fn named(mut self, name: &str) -> Self {
        self.graph.borrow_mut().announce(name);
        if let Some(earlier) = self.given.replace(name.to_owned()) {
            self.graph.borrow_mut().mistake(format!("an operator is named twice, {earlier} and {name}: name it once"));
        }
        self
    }

    /// Aggregates by windows, or sessions.
    pub fn windowed_by<W: CogroupedWindows>(self, windows: W) -> W::Cogrouped<K, A> {
        windows.cogrouped(self)
    }

    /// Aggregates the streams into rows that begin with what the initializer gives. Needs the serde of the rows, from
    /// [`Materialized::with_value_serde`].
    ///
    /// A record with a null key or value is dropped and counted. Emission and times as for
    /// [`KGroupedStream::aggregate`]; the streams' topics must have the same number of partitions.
    pub fn aggregate(
        mut self,
        initializer: impl Fn() -> A + Send + Sync + 'static,
        materialized: Materialized<K, A>,
    ) -> KTable<K, A> {
        let handle = Rc::clone(&self.graph);
        let mut graph = handle.borrow_mut();
        let store = materialized.store(&mut graph, PREFIX, Some(&self.key), None);
        let initializer: Initializer<A> = Arc::new(initializer);
        let target = Target::Rows(&store, &initializer);
        let (node, writers) = self.append::<K>(&mut graph, &target, store.spec.spec(), store.is_named);
        let (key, value) = (Arc::clone(&store.spec.key), Arc::clone(&store.spec.value));
        let is_versioned = store.spec.is_versioned();
        let table = Table::aggregated(writers, store.spec.spec(), store.is_named, (key, value), store.spec.view());
        KTable::new(&handle, node, Table { is_versioned, ..table })
    }

    /// Adds the operators: one for each stream, and one where their changes come together.
    fn append<K2: 'static>(
        &mut self,
        graph: &mut TopologyBuilder,
        target: &Target<'_, K, A>,
        store: &Arc<StoreSpec>,
        is_named: bool,
    ) -> (NodeId, Vec<NodeId>) {
        let given = claim(graph, self.given.take());
        let parents: Vec<NodeId> =
            self.parts.iter().map(|part| (part.partitioned)(graph, &store.name, is_named)).collect();
        let sources: BTreeSet<Arc<str>> =
            self.parts.iter().flat_map(|part| graph.source_topics_of(part.node)).collect();
        graph.copartition(sources);
        let mut writers = Vec::new();
        for (number, (part, parent)) in self.parts.iter().zip(parents).enumerate() {
            let name = graph.name_or(given.as_ref().map(|given| format!("{given}-cogroup-agg-{number}")), PREFIX);
            let node = (part.append)(graph, &name, parent, target);
            add_and_connect(graph, node, store, true);
            writers.push(node);
        }
        if !is_named {
            graph.generated(format!("store {} (name it with Materialized::named)", store.name));
        }
        let merge = given.map(|given| format!("{given}-cogroup-merge"));
        let merge = graph.name_or(merge, "COGROUPKSTREAM-MERGE-");
        let node = NodeSpec::processor::<K2, Change<A>, _>(&merge, |_| Ok(PassThrough));
        (graph.append(node, &writers), writers)
    }
}

const PREFIX: &str = "COGROUPKSTREAM-AGGREGATE-";

fn part<K: Clone + 'static, V: Clone + 'static, A: 'static, R: Into<Option<A>>>(
    grouped: KGroupedStream<K, V>,
    aggregator: Arc<impl Fn(&K, V, A) -> R + Send + Sync + 'static>,
) -> Part<K, A> {
    let (node, value) = (grouped.stream.node, Arc::clone(&grouped.grouped.value));
    let append = move |graph: &mut TopologyBuilder, name: &str, parent: NodeId, target: &Target<'_, K, A>| {
        let (value, fold) = (Arc::clone(&value), Arc::clone(&aggregator));
        // Without a row before there is always what it begins with: the operator sees to it.
        let aggregator: Aggregator<K, V, A> = Arc::new(move |key, value, row| fold(key, value, row?).into());
        match *target {
            Target::Rows(store, initializer) => {
                let (spec, initializer) = (store.spec.clone(), Arc::clone(initializer));
                let make = move |init: &mut ProcessorInit<'_>| {
                    let (rows, value, aggregator) = (spec.open(init)?, Arc::clone(&value), Arc::clone(&aggregator));
                    let initializer = Some(Arc::clone(&initializer));
                    Ok(Aggregate { name: init.node_name(), rows, value, aggregator, initializer })
                };
                graph.append(NodeSpec::processor::<K, V, _>(name, make), &[parent])
            }
            Target::Windows(windows, store, initializer) => {
                let functions =
                    WindowFunctions { value, initializer: Some(Arc::clone(initializer)), aggregator, late: None };
                append_windows(graph, name, parent, windows, store, functions)
            }
            Target::Sessions(windows, store, initializer, merger) => {
                let functions = session_functions(Arc::clone(initializer), aggregator, Arc::clone(merger));
                append_sessions(graph, name, parent, windows, store, functions)
            }
        }
    };
    let partitioned =
        move |graph: &mut TopologyBuilder, store: &str, is_named| grouped.partitioned(graph, store, is_named);
    Part { node, partitioned: Box::new(partitioned), append: Box::new(append) }
}

/// Grouped streams, aggregated into one table of time, sliding or unlimited windows.
pub struct TimeWindowedCogroupedKStream<K, A> {
    cogrouped: CogroupedKStream<K, A>,
    windows: StoredWindows,
}

impl<K, A> Clone for TimeWindowedCogroupedKStream<K, A> {
    fn clone(&self) -> Self {
        TimeWindowedCogroupedKStream { cogrouped: self.cogrouped.clone(), windows: self.windows }
    }
}

impl<K: Clone + 'static, A: 'static> TimeWindowedCogroupedKStream<K, A> {
    pub(super) fn new(cogrouped: CogroupedKStream<K, A>, windows: StoredWindows, check: Result<(), String>) -> Self {
        if let Err(mistake) = check {
            cogrouped.graph.borrow_mut().mistake(mistake);
        }
        TimeWindowedCogroupedKStream { cogrouped, windows }
    }

    /// Gives the aggregation a name: see [`CogroupedKStream::named`].
    #[must_use = "a name that no operator takes is refused by build"]
    pub fn named(self, name: &str) -> Self {
        TimeWindowedCogroupedKStream { cogrouped: self.cogrouped.named(name), ..self }
    }

    /// Aggregates the streams into a row for each key and window. Nulls and late records as for
    /// [`TimeWindowedKStream`](crate::TimeWindowedKStream); each stream has a time of its own.
    pub fn aggregate(
        mut self,
        initializer: impl Fn() -> A + Send + Sync + 'static,
        materialized: Materialized<K, A>,
    ) -> KTable<Windowed<K>, A> {
        let handle = Rc::clone(&self.cogrouped.graph);
        let mut graph = handle.borrow_mut();
        let serdes = (&self.cogrouped.key, None);
        let emit = EmitStrategy::OnWindowUpdate;
        let store = materialized.window_store(&mut graph, PREFIX, serdes, &self.windows, emit);
        let initializer: Initializer<A> = Arc::new(initializer);
        let target = Target::Windows(&self.windows, &store, &initializer);
        let (spec, is_named) = (Arc::clone(&store.spec.store.spec), store.is_named);
        let (node, writers) = self.cogrouped.append::<Windowed<K>>(&mut graph, &target, &spec, is_named);
        window_table(&handle, node, writers, store)
    }
}

/// Grouped streams, aggregated into one table of sessions.
pub struct SessionWindowedCogroupedKStream<K, A> {
    cogrouped: CogroupedKStream<K, A>,
    windows: SessionWindows,
}

impl<K, A> Clone for SessionWindowedCogroupedKStream<K, A> {
    fn clone(&self) -> Self {
        SessionWindowedCogroupedKStream { cogrouped: self.cogrouped.clone(), windows: self.windows }
    }
}

impl<K: Clone + 'static, A: 'static> SessionWindowedCogroupedKStream<K, A> {
    pub(super) fn new(cogrouped: CogroupedKStream<K, A>, windows: SessionWindows, check: Result<(), String>) -> Self {
        if let Err(mistake) = check {
            cogrouped.graph.borrow_mut().mistake(mistake);
        }
        SessionWindowedCogroupedKStream { cogrouped, windows }
    }

    /// Gives the aggregation a name: see [`CogroupedKStream::named`].
    #[must_use = "a name that no operator takes is refused by build"]
    pub fn named(self, name: &str) -> Self {
        SessionWindowedCogroupedKStream { cogrouped: self.cogrouped.named(name), ..self }
    }

    /// Aggregates the streams into a row for each key and session. The merger makes one row of those of two sessions:
    /// `Fn(&key, one, other) -> row`. Nulls and late records as for
    /// [`SessionWindowedKStream`](crate::SessionWindowedKStream); each stream has a time of its own.
    pub fn aggregate<M: Into<Option<A>>>(
        mut self,
        initializer: impl Fn() -> A + Send + Sync + 'static,
        merger: impl Fn(&K, A, A) -> M + Send + Sync + 'static,
        materialized: Materialized<K, A>,
    ) -> KTable<Windowed<K>, A> {
        let handle = Rc::clone(&self.cogrouped.graph);
        let mut graph = handle.borrow_mut();
        let serdes = (&self.cogrouped.key, None);
        let emit = EmitStrategy::OnWindowUpdate;
        let store = materialized.session_store(&mut graph, PREFIX, serdes, &self.windows, emit);
        let initializer: Initializer<A> = Arc::new(initializer);
        let merger = super::windowed::merger_of(merger);
        let target = Target::Sessions(self.windows, &store, &initializer, &merger);
        let (spec, is_named) = (Arc::clone(&store.spec.store.spec), store.is_named);
        let (node, writers) = self.cogrouped.append::<Windowed<K>>(&mut graph, &target, &spec, is_named);
        session_table(&handle, node, writers, store)
    }
}

impl<K, A> fmt::Debug for CogroupedKStream<K, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CogroupedKStream").field("streams", &self.parts.len()).finish_non_exhaustive()
    }
}

impl<K, A> fmt::Debug for TimeWindowedCogroupedKStream<K, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TimeWindowedCogroupedKStream").field("windows", &self.windows).finish_non_exhaustive()
    }
}

impl<K, A> fmt::Debug for SessionWindowedCogroupedKStream<K, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionWindowedCogroupedKStream").field("windows", &self.windows).finish_non_exhaustive()
    }
}
