//! Grows a topology.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::io::{Consumed, OffsetReset, Produced, SinkTopic};
use super::node::Duplicate;
use super::node_spec::{NodeSpec, connect};
use super::optimize::{Notes, Optimization, RepartitionNodes, Role, optimize};
use super::processor::{Processor, ProcessorInit};
use super::self_joins::StreamJoinNodes;
use super::{
    FanOut, Node, NodeId, NodeKind, Parts, RecordType, RepartitionTopic, SinkName, TopicPattern, Topology, checks,
    sub_topology,
};
use crate::error::{Error, Result};
use crate::state::{Changelog, EngineKind, LoggedHeaders, Readable, RowTimes, StoreBuilder, StoreSpec};

/// Grows a topology node by node, wired by name: Java's `Topology`. The typed handles of [`StreamsBuilder`] append to it
/// as well.
///
/// Mistakes are kept until [`build`](TopologyBuilder::build), so that calls chain without a `?` each.
///
/// [`StreamsBuilder`]: crate::StreamsBuilder
#[derive(Default)]
pub struct TopologyBuilder {
    pub(super) nodes: Vec<Node>,
    /// Of stores of the DSL that say nothing.
    pub(crate) default_engine: EngineKind,
    /// One counter for the names of nodes and stores: Java's.
    names: usize,
    pub(super) stores: BTreeMap<Arc<str>, Arc<StoreSpec>>,
    /// Stores that every task reads, each with the processor that writes it.
    pub(super) global_stores: BTreeMap<Arc<str>, Arc<str>>,
    pub(super) repartition_topics: BTreeMap<Arc<str>, RepartitionTopic>,
    pub(super) copartitions: Vec<BTreeSet<Arc<str>>>,
    /// The same before groups were united, in order.
    copartition_calls: Vec<BTreeSet<Arc<str>>>,
    generated_names: Vec<String>,
    pub(super) notes: Notes,
    /// The source behind the topic that the last join of a stream has sent it through, by the stream's node.
    join_repartitions: BTreeMap<NodeId, NodeId>,
    /// Names that were given to the next operator and that no operator has taken yet.
    announced: Vec<String>,
    mistakes: Vec<String>,
}

impl TopologyBuilder {
    /// An empty topology.
    pub fn new() -> TopologyBuilder {
        TopologyBuilder::default()
    }

    /// Adds a source that reads topics.
    pub fn add_source<K, V>(&mut self, name: &str, topics: &[&str], consumed: Consumed<K, V>) -> &mut Self
    where
        K: Clone + 'static,
        V: Clone + 'static,
    {
        let id = self.append(NodeSpec::source(name, topics, consumed), &[]);
        self.duplicate::<K, V>(id);
        self
    }

    /// Adds a source that reads every topic whose whole name matches a regular expression: see
    /// [`StreamsBuilder::stream_matching`](crate::StreamsBuilder::stream_matching).
    pub fn add_source_matching<K, V>(&mut self, name: &str, pattern: &str, consumed: Consumed<K, V>) -> &mut Self
    where
        K: Clone + 'static,
        V: Clone + 'static,
    {
        let id = self.append(NodeSpec::source(name, &[], consumed), &[]);
        self.read_pattern(id, pattern);
        self.duplicate::<K, V>(id);
        self
    }

    /// Adds a processor. Wired by name, so the compiler cannot check its edges: `build` does.
    pub fn add_processor<K, V, P>(
        &mut self,
        name: &str,
        make: impl Fn(&mut ProcessorInit<'_>) -> Result<P> + Send + Sync + 'static,
        parents: &[&str],
    ) -> &mut Self
    where
        K: 'static,
        V: 'static,
        P: Processor<K, V>,
        P::KeyOut: Clone,
        P::ValueOut: Clone,
    {
        let known = self.parents(name, parents);
        let id = self.append(NodeSpec::processor(name, make), &known);
        self.duplicate::<P::KeyOut, P::ValueOut>(id);
        self
    }

    /// Adds a sink that writes to a topic, or to one chosen for each record.
    pub fn add_sink<K: 'static, V: 'static>(
        &mut self,
        name: &str,
        topic: impl Into<SinkTopic<K, V>>,
        produced: Produced<K, V>,
        parents: &[&str],
    ) -> &mut Self {
        let known = self.parents(name, parents);
        self.append(NodeSpec::sink(name, topic.into(), produced), &known);
        self
    }

    /// Adds a store and connects it to processors.
    pub fn add_state_store<S>(&mut self, store: &StoreBuilder<S>, processors: &[&str]) -> &mut Self {
        self.add_store(Arc::clone(&store.spec));
        processors.iter().for_each(|processor| {
            self.connect(processor, &[store.name()]);
        });
        self
    }

    /// Connects a processor to stores that have been added.
    pub fn connect(&mut self, processor: &str, stores: &[&str]) -> &mut Self {
        for store in stores {
            if self.global_stores.contains_key(*store) {
                self.mistake(format!(
                    "global store {store} is there for every processor: do not connect it to {processor}"
                ));
                return self;
            }
            if !self.stores.contains_key(*store) {
                self.mistake(format!("store {store} is not added yet: add it before it is connected to {processor}"));
            }
        }
        match self.nodes.iter_mut().find(|node| *node.name == *processor) {
            Some(node) if matches!(node.kind, NodeKind::Processor) => {
                stores.iter().for_each(|store| connect(node, (*store).into()));
                self.notes.open_stores.extend(stores.iter().map(|store| Arc::from(*store)));
            }
            Some(_) => self.mistake(format!("node {processor} is not a processor: only processors have stores")),
            None => self.mistake(format!("processor {processor} is not added yet: add it before its stores")),
        }
        self
    }

    /// Checks everything and fixes the sub-topologies.
    ///
    /// # Errors
    /// All mistakes at once, each with the names of its nodes.
    pub fn build(self) -> Result<Topology> {
        self.build_optimized(Optimization::none())
    }

    /// The same with rewrites of the graph. They concern what the typed handles append: nodes that are wired by name stay
    /// as they are.
    pub(crate) fn build_optimized(mut self, optimization: Optimization) -> Result<Topology> {
        for name in std::mem::take(&mut self.announced) {
            self.mistake(format!("the name {name} was given to no operator: call named right before the operator"));
        }
        checks::check(&mut self);
        if !self.mistakes.is_empty() {
            self.mistakes.dedup();
            return Err(Error::invalid(format!("invalid topology: {}", self.mistakes.join("; "))));
        }
        optimize(&mut self, optimization);
        self.note_row_times();
        let sub_topologies = sub_topology::number(&self.nodes);
        let TopologyBuilder { nodes, stores, global_stores, repartition_topics, generated_names, .. } = self;
        let (copartitions, copartition_calls) = (self.copartitions, self.copartition_calls);
        let global_stores = global_stores.into_keys().collect();
        let parts = Parts {
            nodes,
            sub_topologies,
            stores,
            global_stores,
            repartition_topics,
            copartitions,
            copartition_calls,
            generated_names,
            optimization,
        };
        Ok(Topology { parts: Arc::new(parts) })
    }

    pub(crate) fn append(&mut self, NodeSpec(mut node): NodeSpec, parents: &[NodeId]) -> NodeId {
        let id = NodeId(self.nodes.len());
        for parent in parents {
            if let Some(parent) = self.nodes.get_mut(parent.0) {
                parent.children.push(id);
            }
        }
        node.parents = parents.to_vec();
        if self.nodes.iter().any(|known| known.name == node.name) {
            self.mistake(format!("two nodes are called {}: give one of them another name", node.name));
        }
        self.nodes.push(node);
        id
    }

    pub(crate) fn add_store(&mut self, spec: Arc<StoreSpec>) {
        if let Some(known) = self.stores.get(&spec.name)
            && !Arc::ptr_eq(known, &spec)
        {
            self.mistake(format!("two stores are called {}: give one of them another name", spec.name));
        }
        self.check_name(&spec.name);
        spec.mistakes().into_iter().for_each(|mistake| self.mistake(mistake));
        self.stores.insert(Arc::clone(&spec.name), spec);
    }

    /// How long (ms) a store that has been added remembers versions; none: it has none.
    pub(crate) fn history_ms(&self, store: &Arc<str>) -> Option<i64> {
        self.stores.get(store)?.kind.history_ms()
    }

    /// Whether rows of a store that has been added live for some time only.
    pub(super) fn expires(&self, store: &Arc<str>) -> bool {
        self.stores.get(store).is_some_and(|spec| spec.ttl_ms.is_some())
    }

    /// Connects a node to a store that has been or will be added.
    pub(crate) fn connect_node(&mut self, id: NodeId, store: &Arc<str>) {
        if let Some(node) = self.nodes.get_mut(id.0) {
            connect(node, Arc::clone(store));
        }
    }

    /// Declares a topic of the library's own, by its name without the application's prefix.
    pub(crate) fn add_repartition_topic(&mut self, name: &str, partitions: Option<i32>) {
        self.check_name(name);
        self.repartition_topics.insert(name.into(), RepartitionTopic { partitions });
    }

    /// The topics must have the same number of partitions, because records of one key are looked up in one task. So must
    /// those that are joined with one of them elsewhere.
    pub(crate) fn copartition(&mut self, mut topics: BTreeSet<Arc<str>>) {
        if topics.is_empty() {
            return;
        }
        self.copartition_calls.push(topics.clone());
        let place = self.copartitions.iter().position(|group| !group.is_disjoint(&topics));
        self.copartitions.retain_mut(|group| {
            let is_apart = group.is_disjoint(&topics);
            if !is_apart {
                topics.append(group);
            }
            is_apart
        });
        let place = place.unwrap_or(self.copartitions.len());
        self.copartitions.insert(place, topics);
    }

    /// The topics that a node's records come from: those of the sources before it.
    pub(crate) fn source_topics_of(&self, id: NodeId) -> BTreeSet<Arc<str>> {
        let Some(node) = self.nodes.get(id.0) else { return BTreeSet::new() };
        let own = node.source_topics().iter().map(Arc::clone);
        own.chain(node.parents.iter().flat_map(|parent| self.source_topics_of(*parent))).collect()
    }

    pub(crate) fn set_role(&mut self, id: NodeId, role: Role) {
        if let Some(node) = self.nodes.get_mut(id.0) {
            node.role = role;
        }
    }

    pub(crate) fn note_repartition(&mut self, nodes: RepartitionNodes) {
        self.notes.repartitions.push(nodes);
    }

    /// The store of a table that is read from a topic: it may be restored from there.
    pub(crate) fn note_source_table(&mut self, store: &Arc<str>, topic: &str, readable: Readable) {
        self.notes.source_tables.push((Arc::clone(store), Changelog::Source { topic: topic.into(), readable }));
    }

    /// Processors of the user's may write a store, and put rows of any time.
    pub(crate) fn note_open_stores(&mut self, stores: &[Arc<str>]) {
        self.notes.open_stores.extend(stores.iter().map(Arc::clone));
    }

    fn note_row_times(&mut self) {
        for store in &self.notes.open_stores {
            if let Some(spec) = self.stores.get_mut(store)
                && spec.row_times != RowTimes::Any
            {
                Arc::make_mut(spec).row_times = RowTimes::Any;
            }
        }
    }

    pub(crate) fn note_table_store(&mut self, store: &Arc<str>) {
        self.notes.table_stores.push(Arc::clone(store));
    }

    /// Gives the stores of tables Java's format with headers. What a table writes has none, so only deletions show it.
    pub(crate) fn keep_headers(&mut self) {
        for store in &self.notes.table_stores {
            if let Some(spec) = self.stores.get_mut(store)
                && spec.kind.may_keep_headers()
                && spec.logs_headers == LoggedHeaders::None
            {
                Arc::make_mut(spec).logs_headers = LoggedHeaders::OfDeletions;
            }
        }
    }

    /// Makes a source topic the changelog of a store.
    pub(super) fn back_by(&mut self, store: &Arc<str>, changelog: Changelog) {
        if let Some(spec) = self.stores.get_mut(store) {
            Arc::make_mut(spec).changelog = changelog;
        }
    }

    /// A repartition topic has become part of another one.
    pub(super) fn replace_repartition_topic(&mut self, topic: &Arc<str>, by: &Arc<str>) {
        self.repartition_topics.remove(topic);
        for group in self.copartitions.iter_mut().chain(&mut self.copartition_calls) {
            if group.remove(topic) {
                group.insert(Arc::clone(by));
            }
        }
    }

    /// Marks a node as one that must send what a row was before.
    pub(crate) fn send_old_values(&mut self, id: NodeId) {
        if let Some(node) = self.nodes.get_mut(id.0) {
            node.sends_old_values = true;
        }
    }

    pub(crate) fn note_stream_join(&mut self, nodes: StreamJoinNodes) {
        self.notes.stream_joins.push(nodes);
    }

    pub(crate) fn join_repartition(&self, stream: NodeId) -> Option<NodeId> {
        self.join_repartitions.get(&stream).copied()
    }

    pub(crate) fn set_join_repartition(&mut self, stream: NodeId, source: NodeId) {
        self.join_repartitions.insert(stream, source);
    }

    /// How long after its end a window takes records (ms), by the aggregations that a node's records come from: the longest.
    /// None: some come from elsewhere.
    pub(crate) fn window_grace_of(&self, id: NodeId) -> Option<i64> {
        let node = self.nodes.get(id.0)?;
        if node.closes_after_ms.is_some() {
            return node.closes_after_ms;
        }
        // A source behind a repartition topic goes on at the sink before it.
        let parents: Vec<NodeId> = match node.source_topics() {
            [topic] if self.repartition_topics.contains_key(topic) => {
                let writes =
                    |node: &Node| matches!(&node.kind, NodeKind::Sink { topic: SinkName::Fixed(to) } if to == topic);
                let sinks = self.nodes.iter().enumerate().filter(|(_, node)| writes(node));
                sinks.map(|(id, _)| NodeId(id)).collect()
            }
            _ => node.parents.clone(),
        };
        let graces: Option<Vec<i64>> = parents.into_iter().map(|parent| self.window_grace_of(parent)).collect();
        graces?.into_iter().max()
    }

    /// Remembers a generated name of something that outlives the program (KIP-1111).
    pub(crate) fn generated(&mut self, what: String) {
        self.generated_names.push(what);
    }

    /// Lets a node have further children. Called where the types are known to be `Clone`, and only there.
    pub(crate) fn duplicate<K: Clone + 'static, V: Clone + 'static>(&mut self, id: NodeId) {
        let duplicate: Duplicate<K, V> = Clone::clone;
        if let Some(node) = self.nodes.get_mut(id.0) {
            node.fan_out = FanOut::Each(Arc::new(duplicate));
        }
    }

    /// Lets a node have further children where another one of the same types may.
    pub(crate) fn duplicate_like(&mut self, id: NodeId, other: NodeId) {
        let fan_out = self.nodes.get(other.0).map(|node| node.fan_out.clone());
        if let (Some(node), Some(fan_out)) = (self.nodes.get_mut(id.0), fan_out) {
            node.fan_out = fan_out;
        }
    }

    pub(crate) fn chooses(&mut self, id: NodeId) {
        if let Some(node) = self.nodes.get_mut(id.0) {
            node.fan_out = FanOut::Chosen;
        }
    }

    /// `KSTREAM-FILTER-` becomes `KSTREAM-FILTER-0000000003`.
    pub(crate) fn name(&mut self, prefix: &str) -> String {
        self.names += 1;
        format!("{prefix}{:010}", self.names - 1)
    }

    /// A generated name, or the given one in its place. A number is used up either way, as in Java: a name given to one
    /// operator leaves those of the others alone.
    pub(crate) fn name_or(&mut self, given: Option<String>, prefix: &str) -> String {
        let generated = self.name(prefix);
        match given {
            Some(given) => self.checked(given),
            None => generated,
        }
    }

    /// The given name, after a look at its characters.
    pub(crate) fn checked(&mut self, given: String) -> String {
        self.check_name(&given);
        given
    }

    /// A name waits for its operator.
    pub(crate) fn announce(&mut self, name: &str) {
        self.announced.push(name.to_owned());
    }

    /// The operator has come.
    pub(crate) fn claim(&mut self, name: &str) {
        if let Some(place) = self.announced.iter().position(|announced| announced == name) {
            self.announced.swap_remove(place);
        }
    }

    pub(crate) fn node_name(&self, id: NodeId) -> String {
        self.nodes.get(id.0).map_or_else(String::new, |node| node.name.to_string())
    }

    /// The source of a stream that reads exactly these topics, in whatever order, with what it forwards and its reset.
    pub(crate) fn stream_source(&self, topics: &[&str]) -> Option<(NodeId, RecordType, Option<OffsetReset>)> {
        self.nodes.iter().enumerate().find_map(|(id, node)| match (&node.kind, node.output) {
            (NodeKind::Source { topics: known, pattern: None, reset }, Some(output))
                if known.len() == topics.len() && known.iter().all(|topic| topics.contains(&&**topic)) =>
            {
                Some((NodeId(id), output, *reset))
            }
            _ => None,
        })
    }

    /// The same for a stream of the topics of a pattern.
    pub(crate) fn pattern_source(&self, pattern: &str) -> Option<(NodeId, RecordType, Option<OffsetReset>)> {
        self.nodes.iter().enumerate().find_map(|(id, node)| match (&node.kind, node.output) {
            (NodeKind::Source { pattern: Some(known), reset, .. }, Some(output)) if known.to_string() == pattern => {
                Some((NodeId(id), output, *reset))
            }
            _ => None,
        })
    }

    /// Makes a source read the topics of a pattern instead.
    pub(crate) fn read_pattern(&mut self, id: NodeId, text: &str) {
        let read = match TopicPattern::new(text) {
            Ok(pattern) => Some(pattern),
            Err(error) => {
                self.mistake(error.report());
                TopicPattern::new(".*").ok()
            }
        };
        if let Some(NodeKind::Source { pattern, .. }) = self.nodes.get_mut(id.0).map(|node| &mut node.kind) {
            *pattern = read;
        }
    }

    /// The stores a node is connected to.
    pub(crate) fn is_connected(&self, id: NodeId, store: &Arc<str>) -> bool {
        self.nodes.get(id.0).is_some_and(|node| node.stores.contains(store))
    }

    /// Turns every generated name of something that outlives the program into a mistake (KIP-1111).
    pub(crate) fn refuse_generated_names(&mut self) {
        for what in self.generated_names.clone() {
            self.mistake(format!("{what} has a generated name"));
        }
    }

    /// Adds a sentence to the error of `build`.
    pub(crate) fn mistake(&mut self, mistake: String) {
        self.mistakes.push(mistake);
    }

    /// A name that becomes part of a topic's name has to be a legal one (Java's `Named`).
    pub(crate) fn check_name(&mut self, name: &str) {
        let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        if name.is_empty() || name == "." || name == ".." || name.len() > 249 || !name.chars().all(legal) {
            self.mistake(format!(
                "\"{name}\" is no legal name: take at most 249 ASCII letters, digits, '.', '_' and '-'"
            ));
        }
    }

    fn parents(&mut self, child: &str, parents: &[&str]) -> Vec<NodeId> {
        if parents.is_empty() {
            self.mistake(format!("node {child} has no parent: name at least one"));
        }
        let mut known = Vec::new();
        for parent in parents {
            match self.nodes.iter().position(|node| *node.name == **parent) {
                Some(id) => known.push(NodeId(id)),
                None => self.mistake(format!("node {child} has an unknown parent {parent}: add the parent first")),
            }
        }
        known
    }
}

impl std::fmt::Debug for TopologyBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TopologyBuilder").field("nodes", &self.nodes.len()).finish_non_exhaustive()
    }
}
