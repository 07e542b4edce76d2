//! What will run: an arena of nodes, addressed by index. Parents stand before their children, because a handle to a
//! parent exists before a child can be attached; everything that walks the graph relies on that order.
//!
//! ```text
//!   KStream<K, V> --append--> TopologyBuilder --build: checks edges--> Topology    arena of makers, Send + Sync
//!                                                                        |        made per task, children first:
//!                                                                        v        one downcast per edge
//!   bytes -> Source -> Port -> Node -> Port -> Node -> Sink -> Output              typed edges, one thread
//!                               |  &mut TaskContext: stores, times, metadata, output
//! ```

mod builder;
mod calls;
mod checks;
mod context;
mod describe;
mod fed_stores;
#[allow(dead_code, reason = "for members of our own")]
mod fingerprint;
mod handlers;
mod interceptor;
mod internal_topics;
mod io;
mod node;
mod node_spec;
mod optimize;
mod output;
mod pattern;
mod processor;
mod schedules;
mod self_joins;
mod shape;
mod sink;
mod source;
mod sub_topology;
mod times;

use std::any::{Any, TypeId, type_name};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

pub use builder::TopologyBuilder;
pub use context::TaskContext;
pub use handlers::{ErrorContext, ErrorHandler, HandlerResponse};
pub use interceptor::{CallKind, Interception, ProcessorInterceptor};
pub use io::{Consumed, Incoming, OffsetReset, Outgoing, Produced, SinkTopic, TimestampExtractor, TopicNameExtractor};
pub use optimize::Optimization;
pub use processor::{Processor, ProcessorContext, ProcessorInit};
pub use schedules::{Punctuation, PunctuationType};
pub use shape::{CreatedTopic, SubTopology};

pub(crate) use calls::{Call, CallRunner, RunningCall};
pub(crate) use context::{PartitionCounts, ProcessorMetadata, TaskEnvironment};
pub(crate) use fingerprint::{TopologyFingerprint, fnv1a};
pub(crate) use handlers::{Handlers, dead_letter_headers};
pub(crate) use interceptor::Interceptor;
pub(crate) use internal_topics::{
    RepartitionTopic, changelog_topic, changelog_topic_config, repartition_topic_config, table_topic_config,
};
pub(crate) use io::Partitioner;
pub(crate) use node::{Live, Made, Source};
pub(crate) use node_spec::NodeSpec;
pub(crate) use optimize::{RepartitionNodes, Role};
pub(crate) use output::Output;
pub(crate) use pattern::TopicPattern;
pub(crate) use processor::millis;
pub(crate) use self_joins::StreamJoinNodes;
pub(crate) use times::CommittedTimes;

use crate::error::{Error, Result};
use crate::record::Record;
use crate::state::{EngineKind, StoreSpec};

/// One sub-topology on one partition: the unit that is assigned, committed and restored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TaskId {
    /// The number of the sub-topology, as in [`Topology::describe`].
    pub sub_topology: usize,
    /// The partition of its source topics.
    pub partition: i32,
}

/// Java's form: `0_3`.
impl fmt::Display for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}_{}", self.sub_topology, self.partition)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct NodeId(pub usize);

/// Makes the live part of a node, once per task and once more after every failure. Shared by all threads, hence `Fn`:
/// what a maker captures cannot change, so every pipeline starts alike.
pub(crate) type Maker = Arc<dyn Fn(&mut ProcessorInit<'_>) -> Result<Made> + Send + Sync>;

/// An immutable description of what will run, shared by all threads.
#[derive(Clone)]
pub struct Topology {
    parts: Arc<Parts>,
}

#[derive(Clone)]
struct Parts {
    nodes: Vec<Node>,
    /// The sub-topology of each node.
    sub_topologies: Vec<usize>,
    stores: BTreeMap<Arc<str>, Arc<StoreSpec>>,
    /// The names of those that every task reads and one thread writes.
    global_stores: BTreeSet<Arc<str>>,
    /// By name without the application's prefix.
    repartition_topics: BTreeMap<Arc<str>, RepartitionTopic>,
    /// Topics (without prefix) that must have the same number of partitions.
    copartitions: Vec<BTreeSet<Arc<str>>>,
    /// What was asked of `copartitions`, join by join.
    copartition_calls: Vec<BTreeSet<Arc<str>>>,
    /// Internal topics and stores whose names were generated: they change when the program does (KIP-1111).
    generated_names: Vec<String>,
    /// The rewrites that were made of it.
    optimization: Optimization,
}

#[derive(Clone)]
pub(crate) struct Node {
    pub name: Arc<str>,
    pub kind: NodeKind,
    pub parents: Vec<NodeId>,
    /// In order of attachment: the order in which they get a record.
    pub children: Vec<NodeId>,
    /// Connected stores, in order of connection.
    pub stores: Vec<Arc<str>>,
    /// None for a source.
    pub input: Option<RecordType>,
    /// None for a sink.
    pub output: Option<RecordType>,
    pub fan_out: FanOut,
    pub make: Maker,
    /// Whether somebody behind this node needs what a row was before: Java's `sendOldValues`.
    pub sends_old_values: bool,
    /// Of an aggregation by windows: how long (ms) after its end a window takes records.
    pub closes_after_ms: Option<i64>,
    pub role: Role,
}

#[derive(Clone)]
pub(crate) enum NodeKind {
    /// With a pattern, the topics are those that match it: none before the topology is resolved.
    Source {
        topics: Vec<Arc<str>>,
        pattern: Option<TopicPattern>,
        reset: Option<OffsetReset>,
    },
    Processor,
    Sink {
        topic: SinkName,
    },
}

/// What is known of a sink's topic before it runs.
#[derive(Debug, Clone)]
pub(crate) enum SinkName {
    Fixed(Arc<str>),
    /// Chosen per record; the text is for people.
    Chosen(String),
}

/// What a node with several children does with a record.
#[derive(Clone)]
pub(crate) enum FanOut {
    /// Its records may not be `Clone`: there must be one child.
    Only,
    /// Each child gets a copy. Holds a [`Duplicate<K, V>`] of the node's output.
    Each(Arc<dyn Any + Send + Sync>),
    /// The processor chooses a child, as a split does.
    Chosen,
}

/// The type on an edge: compared by id, told by name.
#[derive(Clone, Copy)]
pub(crate) struct RecordType {
    pub id: TypeId,
    pub name: &'static str,
}

impl RecordType {
    pub(crate) fn of<K: 'static, V: 'static>() -> RecordType {
        RecordType { id: TypeId::of::<Record<K, V>>(), name: type_name::<Record<K, V>>() }
    }
}

impl Node {
    pub(crate) fn source_topics(&self) -> &[Arc<str>] {
        match &self.kind {
            NodeKind::Source { topics, .. } => topics,
            NodeKind::Processor | NodeKind::Sink { .. } => &[],
        }
    }
}

impl Topology {
    /// How many sub-topologies there are; they are numbered from 0.
    pub fn sub_topology_count(&self) -> usize {
        self.parts.sub_topologies.iter().max().map_or(0, |last| last + 1)
    }

    #[expect(clippy::indexing_slicing, reason = "an id is only made with its node, and nodes are never removed")]
    pub(crate) fn node(&self, id: NodeId) -> &Node {
        &self.parts.nodes[id.0]
    }

    /// All nodes, parents first.
    pub(crate) fn nodes(&self) -> impl DoubleEndedIterator<Item = NodeId> + use<> {
        (0..self.parts.nodes.len()).map(NodeId)
    }

    /// The nodes of a sub-topology, parents first.
    pub(crate) fn sub_topology(&self, sub_topology: usize) -> Vec<NodeId> {
        let numbered = self.parts.sub_topologies.iter().enumerate();
        numbered.filter(|(_, number)| **number == sub_topology).map(|(id, _)| NodeId(id)).collect()
    }

    /// The same where the stores that the program leaves to the configuration are in memory.
    pub(crate) fn with_default_engine(mut self, engine: EngineKind) -> Topology {
        if engine == EngineKind::Memory && self.parts.stores.values().any(|spec| spec.in_memory().is_some()) {
            for spec in Arc::make_mut(&mut self.parts).stores.values_mut() {
                if let Some(in_memory) = spec.in_memory() {
                    *spec = Arc::new(in_memory);
                }
            }
        }
        self
    }

    /// The stores that nodes use, in the order in which the nodes were added: the order in which caches are flushed.
    pub(crate) fn stores(&self, nodes: &[NodeId]) -> Vec<Arc<StoreSpec>> {
        let mut specs: Vec<Arc<StoreSpec>> = Vec::new();
        for name in nodes.iter().flat_map(|id| &self.node(*id).stores) {
            if let Some(spec) = self.parts.stores.get(name)
                && !specs.iter().any(|known| known.name == *name)
            {
                specs.push(Arc::clone(spec));
            }
        }
        specs
    }

    /// A store, a global one too.
    pub(crate) fn store(&self, name: &str) -> Option<&Arc<StoreSpec>> {
        self.parts.stores.get(name)
    }

    /// Whether a sub-topology writes a global store: it has no tasks, and runs once in each instance.
    pub(crate) fn is_global(&self, sub_topology: usize) -> bool {
        let nodes = self.sub_topology(sub_topology);
        nodes.iter().flat_map(|id| &self.node(*id).stores).any(|store| self.is_global_store(store))
    }

    /// The sub-topologies that write global stores, by number.
    pub(crate) fn globals(&self) -> Vec<usize> {
        (0..self.sub_topology_count()).filter(|number| self.is_global(*number)).collect()
    }

    /// The nodes that run in tasks, parents first.
    #[cfg(feature = "testing")]
    pub(crate) fn task_nodes(&self) -> Vec<NodeId> {
        let tasks = (0..self.sub_topology_count()).filter(|number| !self.is_global(*number));
        let mut nodes: Vec<NodeId> = tasks.flat_map(|number| self.sub_topology(number)).collect();
        nodes.sort_unstable();
        nodes
    }

    /// The rewrites that were made of it.
    pub(crate) fn optimization(&self) -> Optimization {
        self.parts.optimization
    }

    pub(crate) fn is_global_store(&self, store: &str) -> bool {
        self.parts.global_stores.contains(store)
    }

    /// The input topics of nodes, without prefix, in the order of their sources.
    pub(crate) fn source_topics(&self, nodes: &[NodeId]) -> Vec<Arc<str>> {
        nodes.iter().flat_map(|id| self.node(*id).source_topics()).map(Arc::clone).collect()
    }

    /// Where reading a topic (without prefix) begins, if its source says so.
    pub(crate) fn offset_reset(&self, topic: &str) -> Option<OffsetReset> {
        self.parts.nodes.iter().find_map(|node| match &node.kind {
            NodeKind::Source { topics, reset, .. } if topics.iter().any(|name| **name == *topic) => *reset,
            NodeKind::Source { .. } | NodeKind::Processor | NodeKind::Sink { .. } => None,
        })
    }

    pub(crate) fn repartition_topics(&self) -> &BTreeMap<Arc<str>, RepartitionTopic> {
        &self.parts.repartition_topics
    }

    pub(crate) fn copartitions(&self) -> &[BTreeSet<Arc<str>>] {
        &self.parts.copartitions
    }

    /// Topics that belong together as each join has said it: what Java's order of them depends on.
    pub(crate) fn copartition_calls(&self) -> &[BTreeSet<Arc<str>>] {
        &self.parts.copartition_calls
    }

    /// The generated names of internal topics and stores, each with what to name.
    pub(crate) fn generated_names(&self) -> &[String] {
        &self.parts.generated_names
    }

    /// For applications that want every name to be given (KIP-1111).
    ///
    /// # Errors
    /// `Invalid` with every generated name, and with what to name.
    pub(crate) fn refuse_generated_names(&self) -> Result<()> {
        if self.generated_names().is_empty() {
            return Ok(());
        }
        Err(Error::invalid(format!(
            "names were generated for what outlives the program, and require_names is set: {}",
            self.generated_names().join("; ")
        )))
    }

    /// A topic's full name: internal ones carry the application id.
    pub(crate) fn full_name(&self, application_id: &str, topic: &Arc<str>) -> Arc<str> {
        if self.parts.repartition_topics.contains_key(topic) {
            format!("{application_id}-{topic}").into()
        } else {
            Arc::clone(topic)
        }
    }
}

impl fmt::Debug for Topology {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.describe())
    }
}
