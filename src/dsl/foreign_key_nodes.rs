//! The nodes of a foreign-key join, in the order in which Java counts their names.

use std::sync::Arc;

use super::foreign_key_join::KeyPartitioner;
use super::kstream::by_inner_key;
use super::table_node::Table;
use crate::operators::foreign_key_join::{
    ForeignKey, ForeignTableJoin, ResponseJoin, SubscriptionJoin, SubscriptionReceive, SubscriptionSend,
    SubscriptionStore, subscribers,
};
use crate::operators::stream_table_join::JoinKind;
use crate::operators::table::ViewMaker;
use crate::operators::table_join::TableJoiner;
use crate::operators::table_store::NoSerde;
use crate::record::Change;
use crate::serdes::{
    Answer, AnswerSerde, Bytes, DynSerde, Nullable, Response, ResponseSerde, Serde, Subscription, SubscriptionSerde,
};
use crate::state::StoreBuilder;
use crate::topology::{Consumed, NodeId, NodeSpec, Partitioner, Produced, TopologyBuilder};

/// The names of nodes, topics and store.
pub(super) struct Names {
    pub request_topic: String,
    pub send: String,
    pub request_sink: String,
    pub request_source: String,
    pub store: String,
    pub receive: String,
    pub join: String,
    pub foreign_join: String,
    pub response_topic: String,
    pub response_sink: String,
    pub response_source: String,
    pub resolver: String,
    pub result: String,
}

impl Names {
    pub(super) fn next(graph: &mut TopologyBuilder, given: Option<&str>) -> Names {
        let mut next = |part: &str, prefix: &str| {
            let given = given.map(|given| format!("{given}-{part}"));
            graph.name_or(given, &format!("KTABLE-{prefix}-"))
        };
        let names = Names {
            request_topic: next("subscription-registration", "FK-JOIN-SUBSCRIPTION-REGISTRATION") + "-topic",
            send: next("subscription-registration-processor", "FK-JOIN-SUBSCRIPTION-REGISTRATION"),
            request_sink: next("subscription-registration-sink", "SINK"),
            request_source: next("subscription-registration-source", "SOURCE"),
            store: next("subscription-store", "FK-JOIN-SUBSCRIPTION-STATE-STORE"),
            receive: next("subscription-receive", "FK-JOIN-SUBSCRIPTION-PROCESSOR"),
            join: next("subscription-join-foreign", "FK-JOIN-SUBSCRIPTION-PROCESSOR"),
            foreign_join: next("foreign-join-subscription", "FK-JOIN-SUBSCRIPTION-PROCESSOR"),
            response_topic: next("subscription-response", "FK-JOIN-SUBSCRIPTION-RESPONSE") + "-topic",
            response_sink: next("subscription-response-sink", "SINK"),
            response_source: next("subscription-response-source", "SOURCE"),
            resolver: next("subscription-response-resolver", "FK-JOIN-SUBSCRIPTION-RESPONSE-RESOLVER-PROCESSOR"),
            result: next("result", "FK-JOIN-OUTPUT"),
        };
        if given.is_none() {
            for topic in [&names.request_topic, &names.response_topic] {
                graph.generated(format!("repartition topic {topic} (name it with TableJoined::named)"));
            }
            graph.generated(format!("store {} (name it with TableJoined::named)", names.store));
        }
        names
    }
}

/// One of the two tables, as the nodes of a join use it.
pub(super) struct Side<K, V> {
    key: DynSerde<K>,
    value: DynSerde<V>,
    view: ViewMaker<K, V>,
    stores: Vec<Arc<str>>,
    is_versioned: bool,
}

impl<K: 'static, V: 'static> Side<K, V> {
    pub(super) fn new(graph: &mut TopologyBuilder, table: &Table<K, V>, side: &str, join: &str) -> Side<K, V> {
        let value = table.value.as_ref().map(Arc::clone).unwrap_or_else(|| {
            graph.mistake(format!(
                "{join} needs the serde of the rows of its {side} table: give it one with Materialized where the table \
                 is made, as in map_values_materialized"
            ));
            Arc::new(NoSerde(std::marker::PhantomData))
        });
        let (key, view) = (Arc::clone(&table.key), Arc::clone(&table.view));
        Side { key, value, view, stores: (table.materialize)(graph), is_versioned: table.is_versioned }
    }
}

/// The parts of one join.
pub(super) struct Join<K, V, KO, VO> {
    pub kind: JoinKind,
    pub names: Names,
    pub this: Side<K, V>,
    pub other: Side<KO, VO>,
}

impl<K: 'static, V: 'static, KO: 'static, VO: 'static> Join<K, V, KO, VO> {
    /// The way of a left row to the task of its foreign key; returns the source behind the topic.
    pub(super) fn append_request(
        &self,
        graph: &mut TopologyBuilder,
        parent: NodeId,
        foreign_key: ForeignKey<K, V, KO>,
        partitioner: Option<KeyPartitioner<KO>>,
    ) -> NodeId {
        let (kind, is_versioned) = (self.kind, self.this.is_versioned);
        let (key, value, foreign) = (Arc::clone(&self.this.key), Arc::clone(&self.this.value), self.foreign());
        let send = NodeSpec::processor::<K, Change<V>, _>(&self.names.send, move |init| {
            Ok(SubscriptionSend {
                name: init.node_name(),
                kind,
                foreign_key: Arc::clone(&foreign_key),
                key: Arc::clone(&key),
                value: Arc::clone(&value),
                foreign: Arc::clone(&foreign),
                is_versioned,
                primary_partition: (!init.task.environment.writes_as(3, 3)).then_some(init.task_id().partition),
                bytes: Vec::new(),
                other_bytes: Vec::new(),
            })
        });
        let send = graph.append(send, &[parent]);
        let topic = self.names.request_topic.as_str();
        graph.add_repartition_topic(topic, None);
        let mut produced = Produced::with(Nullable(self.foreign()), SubscriptionSerde);
        produced.partitioner = partitioner.map(|choose| {
            let choose: Partitioner<Option<KO>, Subscription> =
                Arc::new(move |topic, key, _, count| Some(vec![choose(topic, key.as_ref()?, count)?]));
            choose
        });
        if produced.partitioner.is_none() && produced.key.window_bytes() > 0 {
            produced.partitioner = Some(by_inner_key(Arc::clone(&produced.key)));
        }
        graph.append(NodeSpec::sink(&self.names.request_sink, topic.into(), produced), &[send]);
        let consumed = Consumed::with(Nullable(self.foreign()), SubscriptionSerde);
        graph.append(NodeSpec::source(&self.names.request_source, &[topic], consumed), &[])
    }

    /// The two nodes that answer: one when a left row asks, one when a right row changes.
    pub(super) fn append_answers(&self, graph: &mut TopologyBuilder, other: &[NodeId], request: NodeId) -> [NodeId; 2] {
        let store: StoreBuilder<SubscriptionStore> = StoreBuilder::timestamped(
            &self.names.store,
            graph.default_engine,
            Arc::new(Bytes),
            Arc::new(SubscriptionSerde),
        )
        .with_logged_headers()
        .with_default_engine(true);
        graph.add_store(Arc::clone(&store.spec));
        let stores = || [Arc::clone(&store.spec.name)];

        let (subscriptions, foreign) = (store.clone(), self.foreign());
        let receive = NodeSpec::processor::<Option<KO>, Subscription, _>(&self.names.receive, move |init| {
            let (name, store, foreign) = (init.node_name(), init.store(&subscriptions)?, Arc::clone(&foreign));
            Ok(SubscriptionReceive { name, foreign, store, combined: Vec::new() })
        });
        let receive = graph.append(receive.with_stores(stores()), &[request]);

        let (view, value) = (Arc::clone(&self.other.view), Arc::clone(&self.other.value));
        let join = NodeSpec::processor::<Option<KO>, Subscription, _>(&self.names.join, move |init| {
            Ok(SubscriptionJoin { foreign_table: view(init)?, value: Arc::clone(&value), bytes: Vec::new() })
        });
        let join = graph.append(join.with_stores(self.other.stores.iter().map(Arc::clone)), &[receive]);

        let (value, foreign, is_versioned) = (Arc::clone(&self.other.value), self.foreign(), self.other.is_versioned);
        let subscriptions = store.clone();
        let foreign_join = NodeSpec::processor::<KO, Change<VO>, _>(&self.names.foreign_join, move |init| {
            Ok(ForeignTableJoin {
                name: init.node_name(),
                foreign: Arc::clone(&foreign),
                value: Arc::clone(&value),
                subscribers: subscribers(&init.store(&subscriptions)?),
                is_versioned,
                prefix: Vec::new(),
                bytes: Vec::new(),
            })
        });
        let foreign_join = graph.append(foreign_join.with_stores(stores()), other);
        [join, foreign_join]
    }

    /// The way of an answer back to the task of the left row; returns the source behind the topic.
    pub(super) fn append_response(
        &self,
        graph: &mut TopologyBuilder,
        answers: [NodeId; 2],
        partitioner: Option<KeyPartitioner<K>>,
    ) -> NodeId {
        let topic = self.names.response_topic.as_str();
        graph.add_repartition_topic(topic, None);
        let key = Arc::clone(&self.this.key);
        let mut produced = Produced::with(Bytes, AnswerSerde);
        match partitioner {
            // To the task that has asked.
            None => produced.partition_of = Some(|answer: &Answer| answer.primary_partition),
            Some(choose) => {
                let choose: Partitioner<Vec<u8>, Answer> = Arc::new(move |topic, primary_key: &Vec<u8>, _, count| {
                    Some(vec![choose(topic, &key.deserialize(primary_key).ok()?, count)?])
                });
                produced.partitioner = Some(choose);
            }
        }
        graph.append(NodeSpec::sink(&self.names.response_sink, topic.into(), produced), &answers);
        let consumed = Consumed::with(Arc::clone(&self.this.key), ResponseSerde(Arc::clone(&self.other.value)));
        graph.append(NodeSpec::source(&self.names.response_source, &[topic], consumed), &[])
    }

    /// The node that joins answers with left rows.
    pub(super) fn append_resolver<VR: 'static>(
        &self,
        graph: &mut TopologyBuilder,
        response: NodeId,
        joiner: TableJoiner<V, VO, VR>,
    ) -> NodeId {
        let (kind, view, value) = (self.kind, Arc::clone(&self.this.view), Arc::clone(&self.this.value));
        let node = NodeSpec::processor::<K, Response<VO>, _>(&self.names.resolver, move |init| {
            let (value, joiner) = (Arc::clone(&value), Arc::clone(&joiner));
            Ok(ResponseJoin { kind, table: view(init)?, value, joiner, bytes: Vec::new() })
        });
        graph.append(node.with_stores(self.this.stores.iter().map(Arc::clone)), &[response])
    }

    fn foreign(&self) -> DynSerde<KO> {
        Arc::clone(&self.other.key)
    }
}

/// A topic of the join has as many partitions as the table at its end.
pub(super) fn copartition(graph: &mut TopologyBuilder, table: &[NodeId], source: NodeId) {
    let nodes = table.iter().copied().chain([source]);
    let topics = nodes.flat_map(|node| graph.source_topics_of(node)).collect();
    graph.copartition(topics);
}
