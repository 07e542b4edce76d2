//! Joins of a stream with itself: one store in the place of two (`single.store.self.join`, KIP-862).

use super::NodeId;
use super::builder::TopologyBuilder;
use super::node_spec::NodeSpec;
use super::optimize::reorder;

/// The nodes of a join of two streams, and the one that can take their place if they are one stream.
pub(crate) struct StreamJoinNodes {
    pub this_windowed: NodeId,
    pub other_windowed: NodeId,
    pub this_join: NodeId,
    pub other_join: NodeId,
    /// Where the results of both sides come together.
    pub merge: NodeId,
    pub self_join: NodeSpec,
}

impl StreamJoinNodes {
    pub(super) fn ids(&mut self) -> [&mut NodeId; 5] {
        let StreamJoinNodes { this_windowed, other_windowed, this_join, other_join, merge, .. } = self;
        [this_windowed, other_windowed, this_join, other_join, merge]
    }
}

/// Lets each join of a stream with itself look into one store; the nodes and the stores of the other side are left out.
///
/// As in Java, a left or outer join becomes an inner one: each record joins itself.
pub(super) fn rewrite_self_joins(builder: &mut TopologyBuilder) {
    let mut places: Vec<usize> = (0..builder.nodes.len()).collect();
    let joins = std::mem::take(&mut builder.notes.stream_joins);
    for StreamJoinNodes { this_windowed, other_windowed, this_join, other_join, merge, self_join } in joins {
        let parents = |id: NodeId| builder.nodes.get(id.0).map(|node| &node.parents);
        if parents(this_windowed) != parents(other_windowed) {
            continue;
        }
        if let Some(windowed) = builder.nodes.get_mut(this_windowed.0) {
            windowed.children = vec![merge];
        }
        if let Some(node) = builder.nodes.get_mut(merge.0) {
            self_join.take_place_of(node, this_windowed);
        }
        for id in [other_windowed, this_join, other_join] {
            if let Some(place) = places.get_mut(id.0) {
                *place = usize::MAX;
            }
        }
    }
    reorder(builder, &places);
}
