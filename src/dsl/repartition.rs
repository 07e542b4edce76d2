//! A way through a topic: the edge ends at a sink, and another sub-topology begins at a source.

use std::sync::Arc;

use crate::operators::stateless::{Filter, FilterMapValues};
use crate::operators::{Predicate, ValueMapper};
use crate::serdes::DynSerde;
use crate::topology::{Consumed, NodeId, NodeSpec, Partitioner, Produced, TopologyBuilder};

/// How records are sent to the task of their key.
pub(super) struct Repartition<'a, K, V> {
    /// The topic is `<prefix>-repartition`.
    pub prefix: &'a str,
    /// What to call to name it; none: it is named.
    pub remedy: Option<&'a str>,
    pub key: &'a DynSerde<K>,
    pub value: &'a DynSerde<V>,
    pub null_keys: NullKeys,
    pub partitions: Option<i32>,
    pub partitioner: Option<Partitioner<K, V>>,
}

/// What becomes of a record with a null key, which has no partition of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NullKeys {
    /// It is dropped, and not counted, as in Java.
    Dropped,
    /// A left join keeps it (KIP-962); it goes to any partition.
    Kept,
}

/// The generated names of a sink, a filter and a source. They are used up even where they are not used.
pub(super) fn generated_names(graph: &mut TopologyBuilder) -> [String; 3] {
    ["KSTREAM-SINK-", "KSTREAM-FILTER-", "KSTREAM-SOURCE-"].map(|prefix| graph.name(prefix))
}

impl<K: 'static, V: 'static> Repartition<'_, K, V> {
    /// Returns the source behind the topic.
    pub(super) fn append(self, graph: &mut TopologyBuilder, parent: NodeId) -> NodeId {
        let (serde, null_keys) = (Arc::clone(self.key), self.null_keys);
        let keep: Predicate<K, V> = Arc::new(move |key, _| null_keys == NullKeys::Kept || !serde.is_null(key));
        self.append_behind(graph, parent, move |filter| {
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
        let serde = Arc::clone(self.key);
        let map: ValueMapper<K, V1, Option<V>> =
            Arc::new(move |key, value| (!serde.is_null(key)).then(|| map(key, value)));
        self.append_behind(graph, parent, move |filter| {
            NodeSpec::processor::<K, V1, _>(filter, move |_| Ok(FilterMapValues { map: Arc::clone(&map) }))
        })
    }

    fn append_behind(
        self,
        graph: &mut TopologyBuilder,
        parent: NodeId,
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
        if self.partitions.is_some_and(|partitions| partitions < 1) {
            graph.mistake(format!("repartition topic {topic} needs at least one partition"));
        }
        graph.add_repartition_topic(&topic, self.partitions);

        let filter = graph.append(filter_node(&filter), &[parent]);
        let mut produced = Produced::with(Arc::clone(self.key), Arc::clone(self.value));
        produced.partitioner = self.partitioner;
        graph.append(NodeSpec::sink(&sink, topic.as_str().into(), produced), &[filter]);
        let consumed = Consumed::with(Arc::clone(self.key), Arc::clone(self.value));
        graph.append(NodeSpec::source(&source, &[&topic], consumed), &[])
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
