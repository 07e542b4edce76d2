//! The text of Java's `Topology.describe().toString()`.

use std::cmp::Reverse;
use std::fmt::{self, Write};
use std::sync::Arc;

use super::{Node, NodeId, NodeKind, SinkName, Topology};

impl Topology {
    /// The text of Java's `Topology.describe()`, to the space. Tools that draw topologies read it.
    pub fn describe(&self) -> String {
        let mut text = String::from("Topologies:\n ");
        for sub_topology in 0..self.sub_topology_count() {
            // Writing to a string cannot fail; what is left out is left to the reader to see.
            let _ = self.describe_sub_topology(sub_topology, &mut text);
        }
        text
    }

    /// The part of it that is about one sub-topology.
    #[allow(dead_code, reason = "for members of our own")]
    pub(super) fn described(&self, sub_topology: usize) -> String {
        let mut text = String::new();
        let _ = self.describe_sub_topology(sub_topology, &mut text);
        text
    }

    fn describe_sub_topology(&self, sub_topology: usize, text: &mut String) -> fmt::Result {
        let ids = self.in_order(&self.sub_topology(sub_topology));
        let is_global = self.is_global(sub_topology);
        let for_global = if is_global { " for global store (will not generate tasks)" } else { "" };
        writeln!(text, "  Sub-topology: {sub_topology}{for_global}")?;
        for node in ids.iter().map(|id| self.node(*id)) {
            write!(text, "    {node}")?;
            if !matches!(node.kind, NodeKind::Sink { .. }) {
                writeln!(text, "      --> {}", self.names(&node.children))?;
            }
            if !matches!(node.kind, NodeKind::Source { .. }) {
                writeln!(text, "      <-- {}", self.names(&node.parents))?;
            }
        }
        // Java's two kinds end differently.
        if is_global { Ok(()) } else { writeln!(text) }
    }

    fn names(&self, ids: &[NodeId]) -> String {
        let names: Vec<&str> = self.in_order(ids).into_iter().map(|id| &*self.node(id).name).collect();
        if names.is_empty() { "none".to_owned() } else { names.join(", ") }
    }

    /// Java's order: what has the most behind it first, then by name.
    fn in_order(&self, ids: &[NodeId]) -> Vec<NodeId> {
        let mut ids = ids.to_vec();
        ids.sort_by_cached_key(|id| (Reverse(self.size(*id)), Arc::clone(&self.node(*id).name)));
        ids
    }

    /// Counts a node once for every path that leads to it, as Java does.
    fn size(&self, id: NodeId) -> usize {
        1 + self.node(id).children.iter().map(|child| self.size(*child)).sum::<usize>()
    }
}

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = &self.name;
        match &self.kind {
            NodeKind::Source { pattern: Some(pattern), .. } => writeln!(f, "Source: {name} (topics: {pattern})"),
            NodeKind::Source { topics, .. } => writeln!(f, "Source: {name} (topics: [{}])", topics.join(", ")),
            NodeKind::Sink { topic: SinkName::Fixed(topic) } => writeln!(f, "Sink: {name} (topic: {topic})"),
            NodeKind::Sink { topic: SinkName::Chosen(label) } => writeln!(f, "Sink: {name} (extractor class: {label})"),
            NodeKind::Processor => writeln!(f, "Processor: {name} (stores: [{}])", self.stores.join(", ")),
        }
    }
}
