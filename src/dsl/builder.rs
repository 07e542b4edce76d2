use std::cell::{Cell, RefCell};
use std::fmt;
use std::rc::Rc;
use std::sync::Arc;

use super::table_node::table_source;
use super::{KStream, KTable, Materialized};
use crate::config::{Config, StoreFormat};
use crate::error::Result;
use crate::state::StoreBuilder;
use crate::topology::{Consumed, NodeId, NodeSpec, OffsetReset, RecordType, Topology, TopologyBuilder};

/// The builder that all handles of a topology append to. Its life is one thread and one `build`.
pub(super) type Graph = Rc<RefCell<TopologyBuilder>>;

/// Where a topology begins.
///
/// ```
/// use kstreams::*;
///
/// let builder = StreamsBuilder::new();
/// builder
///     .stream("lines", Consumed::with(Utf8, Utf8))
///     .flat_map_values(|line| line.split_whitespace().map(str::to_lowercase).collect::<Vec<_>>())
///     .group_by(|_line, word| word.clone(), Grouped::with(Utf8, Utf8))
///     .count(Materialized::named("word-counts"))
///     .to_stream()
///     .to("counts", Produced::with(Utf8, I64));
/// let topology = builder.build()?;
/// assert_eq!(topology.sub_topology_count(), 2);
/// # Ok::<(), Error>(())
/// ```
#[derive(Default)]
pub struct StreamsBuilder {
    pub(super) graph: Graph,
    require_names: Cell<bool>,
    /// Given at the beginning.
    config: Option<Config>,
}

impl StreamsBuilder {
    /// An empty topology.
    pub fn new() -> StreamsBuilder {
        StreamsBuilder::default()
    }

    /// An empty topology that is built with the settings of an application: those of
    /// [`build_with`](StreamsBuilder::build_with).
    pub fn with_config(config: &Config) -> StreamsBuilder {
        let builder = StreamsBuilder { config: Some(config.clone()), ..StreamsBuilder::default() };
        builder.graph.borrow_mut().default_engine = config.default_engine;
        builder
    }

    /// The records of a topic. Two streams of one topic share a source, so each of its records is read once.
    pub fn stream<K, V>(&self, topic: &str, consumed: Consumed<K, V>) -> KStream<K, V>
    where
        K: Clone + 'static,
        V: Clone + 'static,
    {
        self.stream_of(&[topic], consumed)
    }

    /// The records of several topics, those of one task in the order of their timestamps. Neither their order nor how often
    /// one is named matters.
    pub fn stream_of<K, V>(&self, topics: &[&str], consumed: Consumed<K, V>) -> KStream<K, V>
    where
        K: Clone + 'static,
        V: Clone + 'static,
    {
        let mut distinct: Vec<&str> = Vec::with_capacity(topics.len());
        for topic in topics {
            if !distinct.contains(topic) {
                distinct.push(topic);
            }
        }
        let known = self.graph.borrow().stream_source(&distinct);
        self.stream_from(&format!("topic {}", distinct.join(", ")), known, &distinct, consumed).1
    }

    /// The records of every topic whose whole name matches a regular expression (of the crate
    /// [`regex`](https://docs.rs/regex): no look-around). Which topics there are is looked at when the application starts
    /// and from time to time after that ([`Config::metadata_max_age`]); a new one is read as the source's or the
    /// application's offset reset says.
    ///
    /// ```
    /// # use kstreams::*;
    /// let builder = StreamsBuilder::new();
    /// builder.stream_matching("orders-.+", Consumed::with(Utf8, Utf8)).to("all-orders", Produced::with(Utf8, Utf8));
    /// # builder.build()?;
    /// # Ok::<(), Error>(())
    /// ```
    pub fn stream_matching<K, V>(&self, pattern: &str, consumed: Consumed<K, V>) -> KStream<K, V>
    where
        K: Clone + 'static,
        V: Clone + 'static,
    {
        let known = self.graph.borrow().pattern_source(pattern);
        let is_new = known.is_none();
        let (node, stream) = self.stream_from(&format!("pattern {pattern}"), known, &[], consumed);
        if is_new {
            self.graph.borrow_mut().read_pattern(node, pattern);
        }
        stream
    }

    /// A source, or another handle to the one that reads the same.
    fn stream_from<K, V>(
        &self,
        what: &str,
        known: Option<(NodeId, RecordType, Option<OffsetReset>)>,
        topics: &[&str],
        mut consumed: Consumed<K, V>,
    ) -> (NodeId, KStream<K, V>)
    where
        K: Clone + 'static,
        V: Clone + 'static,
    {
        let mut graph = self.graph.borrow_mut();
        let name = graph.name_or(consumed.name.take(), "KSTREAM-SOURCE-");
        let node = match known {
            Some((node, forwards, reset)) => {
                if forwards.id != RecordType::of::<K, V>().id {
                    graph.mistake(format!("{what} is read as two types: read it once and map its records"));
                }
                if reset != consumed.reset {
                    graph.mistake(format!("{what} is read with two offset resets: give both streams the same"));
                }
                graph.duplicate::<K, V>(node);
                node
            }
            None => graph.append(NodeSpec::source(&name, topics, consumed), &[]),
        };
        drop(graph);
        (node, KStream::new(&self.graph, node))
    }

    /// The last value of each key of a topic. A null value deletes the row, a record with a null key is dropped and counted.
    ///
    /// The table only has a store if it is [named](Materialized::named), or if somebody reads it or needs to know what a
    /// row was before. A custom timestamp extractor does not see null values.
    pub fn table<K: 'static, V: 'static>(
        &self,
        topic: &str,
        mut consumed: Consumed<K, V>,
        materialized: Materialized<K, V>,
    ) -> KTable<K, V> {
        let mut graph = self.graph.borrow_mut();
        let (key, value) = (Arc::clone(&consumed.key), Arc::clone(&consumed.value));
        let store = materialized.store(&mut graph, &format!("{topic}-"), Some(&key), Some(&value));
        let given = consumed.name.take();
        let source = graph.name_or(given.as_ref().map(|name| format!("{name}-source")), "KSTREAM-SOURCE-");
        let name = graph.name_or(given, "KTABLE-SOURCE-");
        let readable = consumed.readable();
        let source = graph.append(NodeSpec::source(&source, &[topic], consumed.nullable()), &[]);
        graph.note_source_table(&store.spec.spec().name, topic, readable);
        table_source::<K, Option<V>, V>(&self.graph, &mut graph, &name, source, store)
    }

    /// Adds a store, for processors to be connected to. One that no processor uses is left out.
    pub fn add_state_store<S>(&self, store: &StoreBuilder<S>) -> &Self {
        self.graph.borrow_mut().add_state_store(store, &[]);
        self
    }

    /// Refuses generated names of stores and internal topics (KIP-1111): they change when an operator is added before
    /// them, and with them the topics that hold the state.
    pub fn require_names(&self) -> &Self {
        self.require_names.set(true);
        self
    }

    /// Checks everything and fixes the sub-topologies.
    ///
    /// # Errors
    /// Every mistake that the compiler could not see, all at once, with the names of the nodes.
    pub fn build(self) -> Result<Topology> {
        let config = self.config.clone().unwrap_or_else(|| Config::new("", ""));
        self.build_with(&config)
    }

    /// The same with the settings of an application that concern its topology: [`optimization`](Config::optimization),
    /// [`store_format`](Config::store_format), [`require_names`](Config::require_names) and
    /// [`stores_in_memory`](Config::stores_in_memory).
    ///
    /// # Errors
    /// As [`build`](StreamsBuilder::build).
    pub fn build_with(self, config: &Config) -> Result<Topology> {
        let mut graph = self.graph.take();
        if self.require_names.get() || config.require_names {
            graph.refuse_generated_names();
        }
        if config.store_format == StoreFormat::Headers {
            graph.keep_headers();
        }
        Ok(graph.build_optimized(config.optimization)?.with_default_engine(config.default_engine))
    }
}

impl fmt::Debug for StreamsBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StreamsBuilder").finish_non_exhaustive()
    }
}
