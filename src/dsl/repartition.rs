//! A way through a topic: the edge ends at a sink, and another sub-topology begins at a source.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::operators::stateless::{Filter, FilterMapValues};
use crate::operators::{Predicate, ValueMapper};
use crate::serdes::DynSerde;
use crate::topology::{Consumed, NodeId, NodeSpec, Partitioner, Produced, RepartitionNodes, TopologyBuilder};

/// How records are sent to the task of their key.
pub(super) struct Repartition<'a, K, V> {
    /// The topic is `<prefix>-repartition`.
    pub prefix: &'a str,
    /// What to call to name it; none: it is named.
    pub remedy: Option<&'a str>,
    pub key: &'a DynSerde<K>,
    pub value: &'a DynSerde<V>,
    pub partitions: Option<i32>,
    pub partitioner: Option<Partitioner<K, V>>,
}

/// Who wants a repartition topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Origin {
    User,
    Operator,
}

/// The generated names of a sink, a filter and a source. They are used up even where they are not used.
pub(super) fn generated_names(graph: &mut TopologyBuilder) -> [String; 3] {
    ["KSTREAM-SINK-", "KSTREAM-FILTER-", "KSTREAM-SOURCE-"].map(|prefix| graph.name(prefix))
}

/// A record with a null key has no partition of its own: it is dropped, and not counted, unless a left or outer join behind
/// the topic wants it (KIP-962). That the build says; relaxed, because no filter runs before.
fn no_null_keys() -> Arc<AtomicBool> {
    Arc::new(AtomicBool::new(false))
}

impl<K: 'static, V: 'static> Repartition<'_, K, V> {
    /// Returns the source behind the topic.
    pub(super) fn append(self, graph: &mut TopologyBuilder, parent: NodeId) -> NodeId {
        self.append_filtered(graph, parent, Origin::Operator)
    }

    /// The same for a join: an unnamed one goes through the topic that the last join of the stream has made, if there is
    /// one. The names are used up all the same, as in Java.
    pub(super) fn append_for_join(self, graph: &mut TopologyBuilder, parent: NodeId) -> NodeId {
        let known = graph.join_repartition(parent).filter(|_| self.remedy.is_some());
        if let Some(source) = known {
            generated_names(graph);
            graph.duplicate_like(source, parent);
            return source;
        }
        let source = self.append(graph, parent);
        graph.set_join_repartition(parent, source);
        source
    }

    /// The same for a topic that the user has asked for: it never becomes one with others.
    pub(super) fn append_as_asked(self, graph: &mut TopologyBuilder, parent: NodeId) -> NodeId {
        self.append_filtered(graph, parent, Origin::User)
    }

    fn append_filtered(self, graph: &mut TopologyBuilder, parent: NodeId, origin: Origin) -> NodeId {
        let (serde, keeps) = (Arc::clone(self.key), no_null_keys());
        let keep: Predicate<K, V> = {
            let keeps = Arc::clone(&keeps);
            Arc::new(move |key, _| !serde.is_null(key) || keeps.load(Ordering::Relaxed))
        };
        self.append_behind(graph, parent, (origin, keeps), move |filter| {
            NodeSpec::processor::<K, V, _>(filter, move |_| Ok(Filter { keep: Arc::clone(&keep) }))
        })
    }

    /// The same with values that are only made what the topic holds on the way.
    pub(super) fn append_mapped<V1: 'static>(
        self,
        graph: &mut TopologyBuilder,
        parent: NodeId,
        map: ValueMapper<K, V1, V>,
    ) -> NodeId {
        let (serde, keeps) = (Arc::clone(self.key), no_null_keys());
        let map: ValueMapper<K, V1, Option<V>> = {
            let keeps = Arc::clone(&keeps);
            let keep = move |key: &K| !serde.is_null(key) || keeps.load(Ordering::Relaxed);
            Arc::new(move |key, value| keep(key).then(|| map(key, value)))
        };
        self.append_behind(graph, parent, (Origin::Operator, keeps), move |filter| {
            NodeSpec::processor::<K, V1, _>(filter, move |_| Ok(FilterMapValues { map: Arc::clone(&map) }))
        })
    }

    fn append_behind(
        self,
        graph: &mut TopologyBuilder,
        parent: NodeId,
        (origin, keeps_null_keys): (Origin, Arc<AtomicBool>),
        filter_node: impl FnOnce(&str) -> NodeSpec,
    ) -> NodeId {
        let generated = generated_names(graph);
        let suffix = if self.prefix.ends_with("-repartition") { "" } else { "-repartition" };
        let topic = format!("{}{suffix}", self.prefix);
        let [sink, filter, source] = if is_generated(self.prefix) {
            generated
        } else {
            ["sink", "filter", "source"].map(|part| format!("{topic}-{part}"))
        };
        if let Some(remedy) = self.remedy {
            graph.generated(format!("repartition topic {topic} (name it with {remedy})"));
        }
        graph.add_repartition_topic(&topic, self.partitions);

        let filter = graph.append(filter_node(&filter), &[parent]);
        let mut produced = Produced::with(Arc::clone(self.key), Arc::clone(self.value));
        produced.partitioner = self.partitioner;
        let sink = graph.append(NodeSpec::sink(&sink, topic.as_str().into(), produced), &[filter]);
        let consumed = Consumed::with(Arc::clone(self.key), Arc::clone(self.value));
        let source = graph.append(NodeSpec::source(&source, &[&topic], consumed), &[]);
        let (topic, can_merge) = (topic.into(), origin == Origin::Operator);
        graph.note_repartition(RepartitionNodes { filter, sink, source, topic, can_merge, keeps_null_keys });
        source
    }
}

/// Java's `KSTREAM.*-[0-9]{10}`: around a generated name the nodes have generated names, too.
fn is_generated(prefix: &str) -> bool {
    let number = prefix.strip_prefix("KSTREAM").and_then(|rest| rest.rsplit_once('-'));
    number.is_some_and(|(_, number)| number.len() == 10 && number.bytes().all(|byte| byte.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::is_generated;

    #[test]
    fn only_a_generated_name_of_a_stream_counts_as_one() {
        assert!(is_generated("KSTREAM-AGGREGATE-STATE-STORE-0000000002"));
        assert!(is_generated("KSTREAM-KEY-SELECT-0000000001"));
        assert!(!is_generated("KTABLE-AGGREGATE-STATE-STORE-0000000002"));
        assert!(!is_generated("KSTREAM-2"));
        assert!(!is_generated("orders"));
    }
}
