//! What an application declares of its topology to the coordinator of a streams group.

use std::sync::Arc;

use super::start::{changelog_settings, repartition_settings};
use crate::config::Config;
use crate::membership::streams::declaration::{SubTopologyDeclaration, TopicDeclaration, TopologyDeclaration};
use crate::state::StoreSpec;
use crate::topology::{NodeId, NodeKind, SinkName, Topology, changelog_topic, table_topic_config};

pub(super) fn declare(topology: &Topology, config: &Config) -> TopologyDeclaration {
    let numbers = (0..topology.sub_topology_count()).filter(|number| !topology.is_global(*number));
    let sub_topologies = numbers.map(|number| sub_topology(topology, config, number));
    // One without sources has no tasks.
    let is_read =
        |declared: &SubTopologyDeclaration| !declared.sources.is_empty() || !declared.repartition_sources.is_empty();
    let sub_topologies = sub_topologies.filter(is_read).collect();
    let groups = topology
        .copartition_calls()
        .iter()
        .map(|group| group.iter().flat_map(|topic| readers(topology, config, topic)).collect());
    TopologyDeclaration::new(sub_topologies, &groups.collect::<Vec<_>>())
}

fn sub_topology(topology: &Topology, config: &Config, number: usize) -> SubTopologyDeclaration {
    let nodes = topology.sub_topology(number);
    let is_repartition = |topic: &Arc<str>| topology.repartition_topics().contains_key(topic);
    let full_name = |topic: &Arc<str>| topology.full_name(&config.application_id, topic);
    let (repartitions, sources): (Vec<_>, Vec<_>) =
        topology.source_topics(&nodes).into_iter().partition(is_repartition);
    let repartition_source = |name: &Arc<str>| TopicDeclaration {
        name: full_name(name),
        partitions: topology.repartition_topics().get(name).and_then(|topic| topic.partitions),
        replication: config.replication_factor,
        config: repartition_settings(config),
    };
    SubTopologyDeclaration {
        number,
        sources,
        changelogs: topology.stores(&nodes).iter().filter_map(|spec| changelog(spec, config)).collect(),
        repartition_sinks: nodes
            .iter()
            .filter_map(|id| sink(topology, *id))
            .filter(is_repartition)
            .map(|t| full_name(&t))
            .collect(),
        repartition_sources: repartitions.iter().map(repartition_source).collect(),
        together: Vec::new(),
    }
}

fn sink(topology: &Topology, id: NodeId) -> Option<Arc<str>> {
    match &topology.node(id).kind {
        NodeKind::Sink { topic: SinkName::Fixed(topic) } => Some(Arc::clone(topic)),
        NodeKind::Sink { topic: SinkName::Chosen(_) } | NodeKind::Source { .. } | NodeKind::Processor => None,
    }
}

/// A source topic that stands for a changelog is declared as one, as in Java.
fn changelog(spec: &StoreSpec, config: &Config) -> Option<TopicDeclaration> {
    let own = || changelog_topic(&config.application_id, &spec.name);
    let name = spec.source_changelog().map_or_else(own, Arc::clone);
    let settings = match spec.source_changelog() {
        Some(_) => [table_topic_config(), config.topic_settings.clone()].into_iter().flatten().collect(),
        None => changelog_settings(spec, config)?,
    };
    Some(TopicDeclaration { name, partitions: None, replication: config.replication_factor, config: settings })
}

/// A topic by its full name, with the name of each node that reads it.
fn readers(topology: &Topology, config: &Config, topic: &Arc<str>) -> Vec<(Arc<str>, Arc<str>)> {
    let full_name = topology.full_name(&config.application_id, topic);
    let reads = |id: &NodeId| topology.node(*id).source_topics().contains(topic);
    let nodes = topology.nodes().filter(reads);
    nodes.map(|id| (Arc::clone(&full_name), Arc::clone(&topology.node(id).name))).collect()
}

#[cfg(test)]
mod tests;
