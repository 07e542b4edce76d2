//! Which nodes belong together.

use std::collections::HashMap;
use std::sync::Arc;

use super::{Node, NodeId};

/// Numbers the sub-topologies: nodes belong together when an edge or a store connects them. A repartition topic is two
/// nodes without an edge between them, so it splits without a rule of its own.
///
/// Numbers go by the first source of each, as in Java; parents stand first, so that is the order of the arena.
pub(crate) fn number(nodes: &[Node]) -> Vec<usize> {
    let mut sets = DisjointSets((0..nodes.len()).collect());
    let mut users: HashMap<&Arc<str>, usize> = HashMap::new();
    for (id, node) in nodes.iter().enumerate() {
        node.parents.iter().for_each(|NodeId(parent)| sets.unite(*parent, id));
        node.stores.iter().for_each(|store| {
            let first = *users.entry(store).or_insert(id);
            sets.unite(first, id);
        });
    }
    let mut numbers: HashMap<usize, usize> = HashMap::new();
    let sources = nodes.iter().enumerate().filter(|(_, node)| node.input.is_none()).map(|(id, _)| id);
    for id in sources.chain(0..nodes.len()) {
        let next = numbers.len();
        numbers.entry(sets.root(id)).or_insert(next);
    }
    (0..nodes.len()).filter_map(|id| numbers.get(&sets.root(id)).copied()).collect()
}

/// Union-find. The lowest id of a set is its root.
struct DisjointSets(Vec<usize>);

#[expect(clippy::indexing_slicing, reason = "every id is the index of a node, and there is one entry per node")]
impl DisjointSets {
    fn root(&mut self, mut id: usize) -> usize {
        while self.0[id] != id {
            self.0[id] = self.0[self.0[id]]; // halves the path
            id = self.0[id];
        }
        id
    }

    fn unite(&mut self, a: usize, b: usize) {
        let (a, b) = (self.root(a), self.root(b));
        self.0[a.max(b)] = a.min(b);
    }
}
