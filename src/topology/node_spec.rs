//! A node before it has a place in the graph.

use std::sync::Arc;

use super::io::{Consumed, Destination, Produced, SinkTopic};
use super::node::Made;
use super::processor::{Processor, ProcessorInit};
use super::{FanOut, Maker, Node, NodeId, NodeKind, RecordType, Role, SinkName, sink, source};
use crate::error::Result;

/// A node before it has a place: its name, its maker, its types.
pub(crate) struct NodeSpec(pub(super) Node);

/// The three kinds of nodes, each with the maker that brings it to life.
impl NodeSpec {
    pub(crate) fn source<K: 'static, V: 'static>(name: &str, topics: &[&str], consumed: Consumed<K, V>) -> NodeSpec {
        let topics = topics.iter().map(|topic| Arc::from(*topic)).collect();
        let kind = NodeKind::Source { topics, pattern: None, reset: consumed.reset };
        let make = move |init: &mut ProcessorInit<'_>| source::make(&consumed, init);
        NodeSpec(Node { kind, output: Some(RecordType::of::<K, V>()), ..NodeSpec::node(name, Arc::new(make)) })
    }

    pub(crate) fn processor<K: 'static, V: 'static, P: Processor<K, V>>(
        name: &str,
        make: impl Fn(&mut ProcessorInit<'_>) -> Result<P> + Send + Sync + 'static,
    ) -> NodeSpec {
        let make = move |init: &mut ProcessorInit<'_>| -> Result<Made> {
            let processor = make(init)?;
            init.node(processor)
        };
        let output = Some(RecordType::of::<P::KeyOut, P::ValueOut>());
        let input = Some(RecordType::of::<K, V>());
        NodeSpec(Node { input, output, ..NodeSpec::node(name, Arc::new(make)) })
    }

    pub(crate) fn sink<K: 'static, V: 'static>(
        name: &str,
        topic: SinkTopic<K, V>,
        produced: Produced<K, V>,
    ) -> NodeSpec {
        let known = match &topic.0 {
            Destination::Fixed(topic) => SinkName::Fixed(Arc::clone(topic)),
            Destination::Chosen(extractor) => SinkName::Chosen(extractor.label.clone()),
        };
        let make = move |init: &mut ProcessorInit<'_>| Ok(sink::Sink::new(&topic, &produced, init));
        let NodeSpec(node) = NodeSpec::processor::<K, V, _>(name, make);
        NodeSpec(Node { kind: NodeKind::Sink { topic: known }, output: None, ..node })
    }

    /// Puts the node where another one was, behind one parent: its name and its children stay.
    pub(super) fn take_place_of(self, node: &mut Node, parent: NodeId) {
        let children = std::mem::take(&mut node.children);
        *node = Node { parents: vec![parent], children, fan_out: node.fan_out.clone(), ..self.0 };
    }

    /// Says what the node does.
    pub(crate) fn with_role(mut self, role: Role) -> NodeSpec {
        self.0.role = role;
        self
    }

    /// Says how long after its end a window of the node takes records.
    pub(crate) fn closing_after(mut self, millis: i64) -> NodeSpec {
        self.0.closes_after_ms = Some(millis);
        self
    }

    /// Connects the node to stores.
    pub(crate) fn with_stores(mut self, stores: impl IntoIterator<Item = Arc<str>>) -> NodeSpec {
        stores.into_iter().for_each(|store| connect(&mut self.0, store));
        self
    }

    fn node(name: &str, make: Maker) -> Node {
        Node {
            name: name.into(),
            kind: NodeKind::Processor,
            parents: Vec::new(),
            children: Vec::new(),
            stores: Vec::new(),
            input: None,
            output: None,
            fan_out: FanOut::Only,
            make,
            sends_old_values: false,
            closes_after_ms: None,
            role: Role::Other,
        }
    }
}

pub(super) fn connect(node: &mut Node, store: Arc<str>) {
    if !node.stores.contains(&store) {
        node.stores.push(store);
    }
}
