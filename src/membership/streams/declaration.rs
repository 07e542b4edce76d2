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
    /// `joins` are the topics that each join has said to belong together, each topic with the node that reads it.
    pub(crate) fn new(
        mut sub_topologies: Vec<SubTopologyDeclaration>,
        joins: &[Vec<(Arc<str>, Arc<str>)>],
    ) -> TopologyDeclaration {
        let groups = groups(joins);
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

/// `InternalTopologyBuilder.copartitionGroups`: a join's topics come to the group of the first of them that has one.
fn groups(joins: &[Vec<(Arc<str>, Arc<str>)>]) -> Vec<Vec<Arc<str>>> {
    let mut groups: Vec<Vec<Arc<str>>> = Vec::new();
    // In the order in which topics came.
    let mut group_of: Vec<(Arc<str>, usize)> = Vec::new();
    for join in joins {
        let topics = topics_of(join);
        let known = |topic| group_of.iter().find(|(known, _)| known == topic).map(|(_, group)| *group);
        let place = topics.iter().find_map(known).unwrap_or_else(|| {
            groups.push(Vec::new());
            groups.len() - 1
        });
        for topic in topics {
            if let Some(group) = groups.get_mut(place).filter(|group| !group.contains(&topic)) {
                group.push(Arc::clone(&topic));
            }
            match group_of.iter_mut().find(|(known, _)| *known == topic) {
                Some((_, group)) => *group = place,
                None => group_of.push((topic, place)),
            }
        }
    }
    let mut used: Vec<usize> = Vec::new();
    for (_, group) in &group_of {
        if !used.contains(group) {
            used.push(*group);
        }
    }
    let used: Vec<_> = used.into_iter().filter_map(|group| groups.get(group)).collect();
    let sums = used.iter().map(|group| group.iter().fold(0, |sum: i32, topic| sum.wrapping_add(hash(topic))));
    // A set that is made of a list has room for all of it from the beginning.
    let order = hash_order(&sums.collect::<Vec<_>>(), buckets_for_all(group_of.len()));
    order.into_iter().filter_map(|at| used.get(at)).map(|group| in_set(group)).collect()
}

/// The topics of a join as a `HashSet` gives them, into which they came by the nodes that read them, themselves in one.
fn topics_of(join: &[(Arc<str>, Arc<str>)]) -> Vec<Arc<str>> {
    let nodes: BTreeSet<&Arc<str>> = join.iter().map(|(_, node)| node).collect();
    let nodes: Vec<_> = nodes.into_iter().collect();
    let hashes: Vec<_> = nodes.iter().map(|node| hash(node)).collect();
    let order = hash_order(&hashes, buckets_for_all(nodes.len()));
    let mut topics: Vec<Arc<str>> = Vec::new();
    for node in order.into_iter().filter_map(|at| nodes.get(at)) {
        for (topic, _) in join.iter().filter(|(_, reader)| reader == *node) {
            if !topics.contains(topic) {
                topics.push(Arc::clone(topic));
            }
        }
    }
    in_set(&topics)
}

/// As a `HashSet` gives them that they were added to in this order.
fn in_set(topics: &[Arc<str>]) -> Vec<Arc<str>> {
    let mut buckets = BUCKETS_MIN;
    while topics.len() as u64 * 4 > u64::from(buckets) * 3 {
        buckets *= 2;
    }
    let order = hash_order(&topics.iter().map(|topic| hash(topic)).collect::<Vec<_>>(), buckets);
    order.into_iter().filter_map(|at| topics.get(at)).map(Arc::clone).collect()
}

const BUCKETS_MIN: u32 = 16;

/// Of a `HashSet` that is made of so many elements.
fn buckets_for_all(elements: usize) -> u32 {
    let room = u32::try_from(elements.saturating_mul(4) / 3 + 1).unwrap_or(u32::MAX / 4);
    room.max(BUCKETS_MIN).next_power_of_two()
}

/// The places of elements with these hashes in the order of the buckets of a `HashSet`.
fn hash_order(hashes: &[i32], buckets: u32) -> Vec<usize> {
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

    fn names<const N: usize>(names: [&str; N]) -> Vec<Arc<str>> {
        names.map(Arc::from).to_vec()
    }

    #[test]
    fn hashes_and_their_order_are_javas() {
        assert_eq!((hash("orders"), hash("AaAa"), hash("BBBB"), hash("ä€")), (-1008770331, 2031744, 2031744, 15432));
        assert_eq!(in_set(&names(["customers", "orders", "prices"])), names(["orders", "customers", "prices"]));
    }

    #[test]
    fn a_set_doubles_when_three_quarters_are_taken_or_has_room_from_the_beginning() {
        assert_eq!(in_set(&names(["BBBB", "AaAa", "AaBB"])), names(["BBBB", "AaAa", "AaBB"]));
        let hashes: Vec<i32> = (0..13).map(|n| 16 * ((n + 1) % 2)).collect();
        assert_eq!(hash_order(&hashes, 16), (0..13).collect::<Vec<_>>());
        assert_eq!(hash_order(&hashes, 32), [1, 3, 5, 7, 9, 11, 0, 2, 4, 6, 8, 10, 12]);
        assert_eq!([11, 12, 23, 24].map(buckets_for_all), [16, 32, 32, 64]);
    }

    #[test]
    fn joins_with_a_topic_in_common_are_one_group() {
        let read = |topic: &str| (Arc::from(topic), Arc::from(format!("reads-{topic}")));
        let joined = groups(&[vec![read("a"), read("b")], vec![read("c"), read("d")], vec![read("b"), read("e")]]);
        assert_eq!(joined.iter().map(Vec::len).collect::<BTreeSet<_>>(), [2, 3].into());
    }
}
