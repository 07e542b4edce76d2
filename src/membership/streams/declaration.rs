//! What a member declares of its topology: everything that the broker has to know to make internal topics and to give out
//! tasks.
//!
//! The broker compares what members declare list by list and in order, so everything here stands in the order in which Java
//! writes it: then instances of both can be in one group.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct TopologyDeclaration {
    pub sub_topologies: Vec<SubTopologyDeclaration>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct SubTopologyDeclaration {
    pub number: usize,
    /// Neither repartition topics nor those of global stores.
    pub sources: Vec<Arc<str>>,
    pub changelogs: Vec<TopicDeclaration>,
    pub repartition_sinks: Vec<Arc<str>>,
    pub repartition_sources: Vec<TopicDeclaration>,
    pub together: Vec<CopartitionGroup>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct TopicDeclaration {
    pub name: Arc<str>,
    /// None: the broker decides.
    pub partitions: Option<i32>,
    /// None: the broker's default.
    pub replication: Option<i32>,
    pub config: BTreeMap<String, String>,
}

/// Topics with equal numbers of partitions, by their places in the lists of the sub-topology.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct CopartitionGroup {
    pub sources: Vec<i16>,
    pub repartition_sources: Vec<i16>,
}

impl TopologyDeclaration {
    /// `groups` are sets of topics with equal numbers of partitions, each topic with the node that reads it.
    pub(crate) fn new(
        mut sub_topologies: Vec<SubTopologyDeclaration>,
        groups: &[Vec<(Arc<str>, Arc<str>)>],
    ) -> TopologyDeclaration {
        let groups: Vec<_> = groups.iter().map(|group| in_java_order(group)).collect();
        let hashes = groups.iter().map(|group| group.iter().fold(0, |sum: i32, topic| sum.wrapping_add(hash(topic))));
        let order = hash_order(&hashes.collect::<Vec<_>>());
        let groups: Vec<_> = order.into_iter().filter_map(|at| groups.get(at)).collect();
        for sub_topology in &mut sub_topologies {
            sub_topology.sort();
            sub_topology.together = groups.iter().filter_map(|group| sub_topology.places(group)).collect();
        }
        // By their names, as Java does: 10 stands before 2.
        sub_topologies.sort_by_key(|sub_topology| sub_topology.number.to_string());
        TopologyDeclaration { sub_topologies }
    }
}

impl SubTopologyDeclaration {
    fn sort(&mut self) {
        self.sources.sort_by(|a, b| java_cmp(a, b));
        self.sources.dedup();
        self.repartition_sinks.sort_by(|a, b| java_cmp(a, b));
        self.repartition_sinks.dedup();
        self.changelogs.sort_by(|a, b| java_cmp(&a.name, &b.name));
        self.repartition_sources.sort_by(|a, b| java_cmp(&a.name, &b.name));
    }

    /// None for topics that another sub-topology reads.
    fn places(&self, group: &[Arc<str>]) -> Option<CopartitionGroup> {
        let mut places = CopartitionGroup::default();
        for topic in group {
            let source = self.sources.iter().position(|name| name == topic);
            let (place, list) = match source {
                Some(place) => (place, &mut places.sources),
                None => {
                    let place = self.repartition_sources.iter().position(|declared| declared.name == *topic)?;
                    (place, &mut places.repartition_sources)
                }
            };
            list.push(i16::try_from(place).ok()?);
        }
        (!group.is_empty()).then_some(places)
    }
}

/// `String.compareTo`: by UTF-16 units.
fn java_cmp(a: &str, b: &str) -> std::cmp::Ordering {
    a.encode_utf16().cmp(b.encode_utf16())
}

/// `String.hashCode`.
fn hash(text: &str) -> i32 {
    text.encode_utf16().fold(0, |hash: i32, unit| hash.wrapping_mul(31).wrapping_add(i32::from(unit)))
}

/// The topics of a group as a `HashSet` gives them, into which they came with the nodes that read them, themselves in a
/// `HashSet`.
fn in_java_order(group: &[(Arc<str>, Arc<str>)]) -> Vec<Arc<str>> {
    // The order in which Java's builder adds sources shows only where two of them meet in one bucket.
    let nodes: BTreeSet<&Arc<str>> = group.iter().map(|(_, node)| node).collect();
    let nodes: Vec<_> = nodes.into_iter().collect();
    let order = hash_order(&nodes.iter().map(|node| hash(node)).collect::<Vec<_>>());
    let nodes = order.into_iter().filter_map(|at| nodes.get(at).copied());
    let mut topics: Vec<&Arc<str>> = Vec::new();
    for node in nodes {
        for (topic, _) in group.iter().filter(|(_, reader)| reader == node) {
            if !topics.contains(&topic) {
                topics.push(topic);
            }
        }
    }
    let order = hash_order(&topics.iter().map(|topic| hash(topic)).collect::<Vec<_>>());
    order.into_iter().filter_map(|at| topics.get(at).copied().cloned()).collect()
}

/// The places of elements with these hashes in the order in which a `java.util.HashSet` gives them that they were added to.
fn hash_order(hashes: &[i32]) -> Vec<usize> {
    let mut buckets: u32 = 16;
    while hashes.len() as u64 * 4 > u64::from(buckets) * 3 {
        buckets *= 2;
    }
    let bucket = |at: &usize| {
        let hash = hashes.get(*at).copied().unwrap_or(0).cast_unsigned();
        (hash ^ (hash >> 16)) & (buckets - 1)
    };
    let mut order: Vec<_> = (0..hashes.len()).collect();
    order.sort_by_key(bucket);
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_and_their_order_are_javas() {
        assert_eq!((hash("orders"), hash("AaAa"), hash("BBBB"), hash("ä€")), (-1008770331, 2031744, 2031744, 15432));
        let names = ["customers", "orders", "prices"];
        let order = hash_order(&names.map(hash));
        assert_eq!(order.into_iter().map(|at| names[at]).collect::<Vec<_>>(), ["orders", "customers", "prices"]);
    }

    #[test]
    fn a_set_grows_by_doubling_when_three_quarters_are_taken() {
        let hashes: Vec<i32> = (0..12).map(|n| 16 * (n % 2)).collect();
        assert_eq!(hash_order(&hashes), (0..12).collect::<Vec<_>>());
        let hashes: Vec<i32> = (0..13).map(|n| 16 * ((n + 1) % 2)).collect();
        assert_eq!(hash_order(&hashes), [1, 3, 5, 7, 9, 11, 0, 2, 4, 6, 8, 10, 12]);
    }
}
