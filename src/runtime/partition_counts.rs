//! How many partitions the topics of an application have.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::topology::{NodeKind, SinkName, Topology};

/// Partition counts by topic, internal topics without the application's prefix.
pub(super) type Counts = BTreeMap<Arc<str>, i32>;

/// The counts of all source topics: `known` has those of the topics that are not the library's own, and those of
/// repartition topics follow from what is upstream of them and from what is read together with them.
///
/// # Errors
/// `Invalid`, naming topics and counts: a source topic that does not exist, topics that are joined and have different
/// numbers of partitions, a repartition topic whose number cannot be known or is none.
pub(super) fn partition_counts(topology: &Topology, known: &Counts) -> Result<Counts> {
    let repartition = topology.repartition_topics();
    let mut counts = known.clone();
    for topic in topology.source_topics(&topology.nodes().collect::<Vec<_>>()) {
        if !repartition.contains_key(&topic) && !counts.contains_key(&topic) {
            return Err(missing_source(&topic));
        }
    }
    for (name, topic) in repartition {
        let Some(partitions) = topic.partitions else { continue };
        // Only here, as in Java: a topology with such a topic can be built, described and tested.
        if partitions < 1 {
            return Err(Error::invalid(format!(
                "repartition topic {name} was given {partitions} partitions: it needs at least one"
            )));
        }
        counts.insert(Arc::clone(name), partitions);
    }
    derive_from_upstream(topology, &mut counts)?;
    for group in topology.copartitions() {
        let member = |topic: &Arc<str>| {
            let count = counts.get(topic).copied();
            let count = match repartition.get(topic) {
                None => Count::External(count),
                Some(topic) if topic.partitions.is_some() => Count::Enforced(count.unwrap_or(0)),
                Some(_) => Count::Derived(count),
            };
            (Arc::clone(topic), count)
        };
        let members: Vec<_> = group.iter().map(member).collect();
        if members.iter().all(|(_, count)| *count == Count::Derived(None)) {
            continue; // all wait for topics that match a pattern
        }
        let agreed = copartition(&members)?;
        counts.extend(members.into_iter().map(|(topic, _)| (topic, agreed)));
    }
    Ok(counts)
}

pub(super) fn missing_source(topic: &str) -> Error {
    Error::invalid(format!(
        "source topic {topic} does not exist: create it before the application is started, or name the right one"
    ))
}

/// A repartition topic gets as many partitions as the topics upstream of it have at most, which may be repartition
/// topics themselves: round after round, until nothing new is known. Those behind a pattern that matches nothing stay
/// unknown.
fn derive_from_upstream(topology: &Topology, counts: &mut Counts) -> Result<()> {
    let writers = upstream_topics(topology);
    let derive = |counts: &Counts, from: Upstream| -> Counts {
        let unknown = topology.repartition_topics().keys().filter(|topic| !counts.contains_key(*topic));
        let most = |topic: &Arc<str>| {
            let upstream = writers.get(topic).into_iter().flatten().map(|topic| counts.get(topic).copied());
            match from {
                Upstream::All => upstream.collect::<Option<Vec<i32>>>()?.into_iter().max(),
                Upstream::Known => upstream.flatten().max(),
            }
        };
        unknown.filter_map(|topic| Some((Arc::clone(topic), most(topic)?))).collect()
    };
    loop {
        let mut derived = derive(counts, Upstream::All);
        // The two topics of a foreign-key join are upstream of each other. In the end their tables decide.
        if derived.is_empty() {
            derived = derive(counts, Upstream::Known);
        }
        if derived.is_empty() {
            break;
        }
        counts.extend(derived);
    }
    match topology.repartition_topics().keys().find(|topic| !counts.contains_key(*topic)) {
        None => Ok(()),
        Some(_) if !topology.unmatched_patterns().is_empty() => Ok(()),
        Some(topic) => Err(Error::invalid(format!(
            "how many partitions repartition topic {topic} needs cannot be told from what is written to it: give it a \
             number with Repartitioned"
        ))),
    }
}

/// From which of the topics upstream a number is derived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Upstream {
    /// All of them, once they are known.
    All,
    /// Those that are known.
    Known,
}

/// The source topics of the sub-topologies that write to each topic.
fn upstream_topics(topology: &Topology) -> BTreeMap<Arc<str>, BTreeSet<Arc<str>>> {
    let mut upstream: BTreeMap<Arc<str>, BTreeSet<Arc<str>>> = BTreeMap::new();
    for sub_topology in 0..topology.sub_topology_count() {
        let nodes = topology.sub_topology(sub_topology);
        let sources = topology.source_topics(&nodes);
        for id in nodes {
            if let NodeKind::Sink { topic: SinkName::Fixed(topic) } = &topology.node(id).kind {
                upstream.entry(Arc::clone(topic)).or_default().extend(sources.iter().map(Arc::clone));
            }
        }
    }
    upstream
}

/// What is known of a topic that is read together with others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Count {
    /// Not ours; none: it does not exist.
    External(Option<i32>),
    /// A repartition topic that takes whatever is needed; its number by what is upstream.
    Derived(Option<i32>),
    /// A repartition topic whose number the user has given.
    Enforced(i32),
}

/// The number that all topics of a group have: that of the external ones, else the enforced one, else the highest.
fn copartition(group: &[(Arc<str>, Count)]) -> Result<i32> {
    let named = |chosen: &dyn Fn(&Count) -> Option<i32>| -> Vec<(&Arc<str>, i32)> {
        group.iter().filter_map(|(topic, count)| Some((topic, chosen(count)?))).collect()
    };
    for (topic, count) in group {
        if *count == Count::External(None) {
            return Err(missing_source(topic));
        }
    }
    let external = named(&|count| match count {
        Count::External(count) => *count,
        Count::Derived(_) | Count::Enforced(_) => None,
    });
    let enforced = named(&|count| match count {
        Count::Enforced(count) => Some(*count),
        Count::External(_) | Count::Derived(_) => None,
    });
    let derived = named(&|count| match count {
        Count::Derived(count) => *count,
        Count::External(_) | Count::Enforced(_) => None,
    });
    if !external.is_empty() {
        let agreed = same(&external).ok_or_else(|| {
            Error::invalid(format!(
                "topics that are joined have different numbers of partitions: {}; recreate one of them, or repartition \
                 its stream",
                list(&external)
            ))
        })?;
        if let Some((topic, count)) = enforced.iter().find(|(_, count)| *count != agreed) {
            return Err(Error::invalid(format!(
                "repartition topic {topic} was given {count} partitions, but it is joined with {}: give it {agreed}, or \
                 no number",
                list(&external)
            )));
        }
        return Ok(agreed);
    }
    if !enforced.is_empty() {
        return same(&enforced).ok_or_else(|| {
            Error::invalid(format!(
                "repartition topics that are joined were given different numbers of partitions: {}; give them the same",
                list(&enforced)
            ))
        });
    }
    Ok(derived.iter().map(|(_, count)| *count).max().unwrap_or(1))
}

/// `a=4` an external topic, `r?` and `r?3` derived ones, `r!3` an enforced one: the notation of `wire.json`.
#[cfg(any(test, feature = "testing"))]
fn group(text: &str) -> Vec<(Arc<str>, Count)> {
    let member = |word: &str| {
        let at = word.find(['=', '?', '!']).unwrap_or(word.len());
        let (name, rest) = word.split_at(at);
        let number = rest.get(1..).and_then(|number| number.parse().ok());
        let count = match rest.chars().next() {
            Some('?') => Count::Derived(number),
            Some('!') => Count::Enforced(number.unwrap_or(0)),
            _ => Count::External(number),
        };
        (name.into(), count)
    };
    text.split(' ').map(member).collect()
}

/// The same for a group in that notation.
#[cfg(feature = "testing")]
pub(crate) fn copartition_of(text: &str) -> Result<i32> {
    copartition(&group(text))
}

fn same(counts: &[(&Arc<str>, i32)]) -> Option<i32> {
    let (_, first) = counts.first()?;
    counts.iter().all(|(_, count)| count == first).then_some(*first)
}

fn list(counts: &[(&Arc<str>, i32)]) -> String {
    counts.iter().map(|(topic, count)| format!("{topic} has {count}")).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dsl::{Materialized, StreamsBuilder, TableJoined};
    use crate::serdes::Utf8;
    use crate::topology::{Consumed, Produced, TopologyBuilder};

    #[test]
    fn topics_read_together_agree_as_in_java() {
        let agree = [
            ("a=4 b=4", 4),
            ("a=4 r?", 4),
            ("a=4 r?7", 4),
            ("a=4 r!4", 4),
            ("r!5 q?", 5),
            ("r?3 q?7", 7),
            ("a=1 b=1 r? q?", 1),
        ];
        for (text, expected) in agree {
            assert_eq!(copartition(&group(text)).unwrap(), expected, "{text}");
        }
        let disagree =
            [("a=4 b=3", "b has 3"), ("a=4 r!3", "r was given 3"), ("r!5 q!6", "q has 6"), ("a b=1", "a does not")];
        for (text, named) in disagree {
            let error = copartition(&group(text)).unwrap_err();
            assert!(error.to_string().contains(named), "{text}: {error}");
        }
    }

    /// `in` -> `first-repartition` -> `second-repartition`.
    fn chain(second: Option<i32>) -> Topology {
        let mut builder = TopologyBuilder::new();
        builder.add_repartition_topic("first-repartition", None);
        builder.add_repartition_topic("second-repartition", second);
        let topics = ["in", "first-repartition", "second-repartition"];
        for (source, sink) in topics.iter().zip(topics.iter().skip(1)) {
            builder.add_source(&format!("from-{source}"), &[source], Consumed::with(Utf8, Utf8));
            let parent = format!("from-{source}");
            builder.add_sink(&format!("to-{sink}"), *sink, Produced::with(Utf8, Utf8), &[&parent]);
        }
        builder.add_source("end", &["second-repartition"], Consumed::with(Utf8, Utf8));
        builder.build().unwrap()
    }

    #[test]
    fn the_topics_of_a_foreign_key_join_have_as_many_partitions_as_their_tables() {
        let builder = StreamsBuilder::new();
        let left = builder.table("left", Consumed::with(Utf8, Utf8), Materialized::default());
        let right = builder.table("right", Consumed::with(Utf8, Utf8), Materialized::default());
        left.join_foreign_key(&right, |_, row| row.clone(), |left, right| left + &right, TableJoined::named("join"));
        let known = Counts::from([("left".into(), 3), ("right".into(), 8)]);
        let counts = partition_counts(&builder.build().unwrap(), &known).unwrap();
        assert_eq!(counts.get("join-subscription-registration-topic"), Some(&8));
        assert_eq!(counts.get("join-subscription-response-topic"), Some(&3));
    }

    #[test]
    fn a_repartition_topic_has_at_least_one_partition() {
        for partitions in [0, -1] {
            let known = Counts::from([("in".into(), 4)]);
            let error = partition_counts(&chain(Some(partitions)), &known).unwrap_err();
            let expected = format!("second-repartition was given {partitions} partitions: it needs at least one");
            assert!(error.to_string().contains(&expected), "{error}");
        }
    }

    #[test]
    fn repartition_topics_take_the_number_of_what_is_upstream() {
        let known = Counts::from([("in".into(), 3)]);
        let counts = partition_counts(&chain(None), &known).unwrap();
        assert_eq!(counts.values().copied().collect::<Vec<_>>(), [3, 3, 3]);
        let counts = partition_counts(&chain(Some(5)), &known).unwrap();
        assert_eq!(counts.get("second-repartition"), Some(&5));
        let error = partition_counts(&chain(None), &Counts::new()).unwrap_err();
        assert!(error.to_string().contains("source topic in does not exist"), "{error}");
    }
}
