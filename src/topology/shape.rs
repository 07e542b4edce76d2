//! What a topology reads, writes and creates, as data: for tools, tests and whoever grants access to topics.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::{NodeId, NodeKind, SinkName, Topology, changelog_topic, changelog_topic_config, repartition_topic_config};

/// The topics of one sub-topology, by their full names.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SubTopology {
    /// Its number, as in [`Topology::describe`] and in task ids.
    pub id: usize,
    /// Topics that it reads.
    pub sources: BTreeSet<String>,
    /// Topics that it writes, as far as they are known before a record is.
    pub sinks: BTreeSet<String>,
    /// Topics among the sources that the library creates and deletes from.
    pub repartition_topics: Vec<CreatedTopic>,
    /// Topics that back its stores.
    pub changelog_topics: Vec<CreatedTopic>,
    /// Sources that its stores are restored from instead.
    pub source_changelogs: BTreeSet<String>,
    /// Sources that must have the same number of partitions.
    pub copartitions: Vec<BTreeSet<String>>,
}

/// A topic that the library creates for itself.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct CreatedTopic {
    /// Its full name.
    pub name: String,
    /// The number of partitions, where the program fixes it; otherwise it follows from the sources.
    pub partitions: Option<i32>,
    /// The settings it is created with, by Kafka's names.
    pub config: BTreeMap<String, String>,
}

impl Topology {
    /// What each sub-topology reads, writes and creates when it runs as this application. One that fills a global store is
    /// left out: it has no tasks.
    ///
    /// ```
    /// # use kstreams::*;
    /// let builder = StreamsBuilder::new();
    /// builder
    ///     .stream("words", Consumed::with(Utf8, Utf8))
    ///     .group_by_key(Grouped::with(Utf8, Utf8))
    ///     .count(Materialized::named("counts"));
    /// let parts = builder.build()?.sub_topologies("my-app");
    /// assert_eq!(parts[0].changelog_topics[0].name, "my-app-counts-changelog");
    /// # Ok::<(), Error>(())
    /// ```
    pub fn sub_topologies(&self, application_id: &str) -> Vec<SubTopology> {
        let tasks = (0..self.sub_topology_count()).filter(|id| !self.is_global(*id));
        let shapes = tasks.map(|id| self.shape(id, application_id));
        // What a pattern stands for is only known at the start.
        shapes.filter(|shape| !shape.sources.is_empty()).collect()
    }

    fn shape(&self, id: usize, application_id: &str) -> SubTopology {
        let nodes: Vec<NodeId> = self.sub_topology(id);
        let full = |topic: &Arc<str>| self.full_name(application_id, topic).to_string();
        let topics = self.source_topics(&nodes);
        let repartition = topics.iter().filter_map(|topic| {
            let repartition = self.repartition_topics().get(topic)?;
            let (partitions, config) = (repartition.partitions, repartition_topic_config());
            Some(CreatedTopic { name: full(topic), partitions, config })
        });
        let changelogs = self.stores(&nodes).into_iter().filter_map(|spec| {
            let config = changelog_topic_config(&spec)?;
            let name = changelog_topic(application_id, &spec.name).to_string();
            Some(CreatedTopic { name, partitions: None, config })
        });
        let stores = self.stores(&nodes);
        let source_changelogs = stores.iter().filter_map(|spec| spec.source_changelog());
        let sinks = nodes.iter().filter_map(|id| match &self.node(*id).kind {
            NodeKind::Sink { topic: SinkName::Fixed(topic) } => Some(full(topic)),
            NodeKind::Sink { topic: SinkName::Chosen(_) } | NodeKind::Source { .. } | NodeKind::Processor => None,
        });
        let copartitions = self.copartitions().iter().filter(|group| group.iter().any(|topic| topics.contains(topic)));
        SubTopology {
            id,
            sources: topics.iter().map(full).collect(),
            sinks: sinks.collect(),
            repartition_topics: repartition.collect(),
            changelog_topics: changelogs.collect(),
            source_changelogs: source_changelogs.map(full).collect(),
            copartitions: copartitions.map(|group| group.iter().map(full).collect()).collect(),
        }
    }
}
