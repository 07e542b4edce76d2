//! Which tasks there are, and what each reads.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::partition_counts::Counts;
use crate::error::{Error, Result};
use crate::membership::TaskMap;
use crate::record::TopicPartition;
use crate::topology::{NodeId, TaskId, Topology};

/// The tasks of an application: one per sub-topology and partition of its source topics.
#[derive(Debug)]
pub(super) struct TaskLayout {
    sub_topologies: Vec<SubTopology>,
    /// The sub-topology that reads a topic, by its full name.
    readers: BTreeMap<Arc<str>, usize>,
    /// Whether instances may know of different topics for a while, because they look for them at different times.
    has_patterns: bool,
}

#[derive(Debug)]
pub(super) struct SubTopology {
    pub nodes: Vec<NodeId>,
    /// As many as the source topic with the most partitions has.
    pub tasks: i32,
    sources: Vec<Source>,
}

/// What a task is made of.
#[derive(Debug)]
pub(super) struct Inputs<'a> {
    pub nodes: &'a [NodeId],
    /// Without prefix, beside `partitions`.
    pub topics: Vec<Arc<str>>,
    pub partitions: Vec<TopicPartition>,
}

#[derive(Debug)]
struct Source {
    /// Without the application's prefix.
    name: Arc<str>,
    full_name: Arc<str>,
    partitions: i32,
}

impl TaskLayout {
    pub(super) fn new(topology: &Topology, application_id: &str, counts: &Counts) -> TaskLayout {
        let sub_topology = |number| {
            // What fills a global store runs beside the tasks.
            let nodes = if topology.is_global(number) { Vec::new() } else { topology.sub_topology(number) };
            // A repartition topic behind a pattern that matches nothing is not there yet.
            let source = |name: Arc<str>| {
                let partitions = counts.get(&name).copied()?;
                Some(Source { full_name: topology.full_name(application_id, &name), partitions, name })
            };
            let sources: Vec<_> = topology.source_topics(&nodes).into_iter().filter_map(source).collect();
            let tasks = sources.iter().map(|source| source.partitions).max().unwrap_or(0);
            SubTopology { nodes, tasks, sources }
        };
        let sub_topologies: Vec<_> = (0..topology.sub_topology_count()).map(sub_topology).collect();
        let topics = |(number, sub_topology): (usize, &SubTopology)| -> Vec<_> {
            sub_topology.sources.iter().map(|source| (Arc::clone(&source.full_name), number)).collect()
        };
        let readers = sub_topologies.iter().enumerate().flat_map(topics).collect();
        TaskLayout { sub_topologies, readers, has_patterns: topology.has_patterns() }
    }

    pub(super) fn sub_topologies(&self) -> &[SubTopology] {
        &self.sub_topologies
    }

    /// Full names of all source topics.
    pub(super) fn topics(&self) -> Vec<Arc<str>> {
        self.readers.keys().map(Arc::clone).collect()
    }

    /// Every source topic with its partitions.
    pub(super) fn partitions(&self) -> impl Iterator<Item = (Arc<str>, i32)> + '_ {
        let sources = self.sub_topologies.iter().flat_map(|sub_topology| &sub_topology.sources);
        sources.map(|source| (Arc::clone(&source.full_name), source.partitions))
    }

    pub(super) fn task_count(&self) -> i32 {
        self.sub_topologies.iter().map(|sub_topology| sub_topology.tasks).sum()
    }

    /// The nodes of a task and its inputs. A topic with fewer partitions than
    /// others of the sub-topology is no input of the last tasks.
    /// All of them, each with what it reads.
    pub(super) fn tasks_with_inputs(&self) -> Vec<(TaskId, Vec<TopicPartition>)> {
        let sub_topologies = self.sub_topologies.iter().enumerate();
        let ids = sub_topologies.flat_map(|(sub_topology, known)| {
            (0..known.tasks).map(move |partition| TaskId { sub_topology, partition })
        });
        ids.filter_map(|task| Some((task, self.inputs(task)?.partitions))).collect()
    }

    /// The tasks that read some of these.
    pub(super) fn readers_of<'a>(&self, partitions: impl IntoIterator<Item = &'a TopicPartition>) -> BTreeSet<TaskId> {
        let reader = |read: &TopicPartition| {
            let sub_topology = self.readers.get(&read.topic).copied()?;
            Some(TaskId { sub_topology, partition: read.partition })
        };
        partitions.into_iter().filter_map(reader).collect()
    }

    pub(super) fn inputs(&self, task: TaskId) -> Option<Inputs<'_>> {
        let sub_topology = self.sub_topologies.get(task.sub_topology)?;
        let sources = || sub_topology.sources.iter().filter(|source| source.partitions > task.partition);
        let names = sources().map(|source| Arc::clone(&source.name)).collect();
        let inputs = sources().map(|source| TopicPartition::new(Arc::clone(&source.full_name), task.partition));
        Some(Inputs { nodes: &sub_topology.nodes, topics: names, partitions: inputs.collect() })
    }
}

impl TaskMap for TaskLayout {
    fn tasks(&self, partitions: &BTreeSet<TopicPartition>) -> Result<BTreeSet<TaskId>> {
        let mut tasks = self.readers_of(partitions);
        let missing = |task: &TaskId| {
            let inputs = self.inputs(*task).map(|inputs| inputs.partitions).unwrap_or_default();
            inputs.into_iter().find(|input| !partitions.contains(input))
        };
        if self.has_patterns {
            // Those that are not whole wait until all instances know of the same topics: then the group rebalances.
            tasks.retain(|task| missing(task).is_none());
        }
        for task in &tasks {
            if let Some(missing) = missing(task) {
                return Err(Error::invalid(format!(
                    "the group gave this instance some inputs of task {task} and {missing} to another one: topics that \
                     are read together need the same number of partitions, and all instances the same topology"
                )));
            }
        }
        Ok(tasks)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::serdes::Utf8;
    use crate::topology::{Consumed, TopologyBuilder};

    fn layout() -> TaskLayout {
        let mut builder = TopologyBuilder::new();
        builder.add_source("both", &["a", "b"], Consumed::with(Utf8, Utf8));
        let counts = Counts::from([("a".into(), 2), ("b".into(), 1)]);
        TaskLayout::new(&builder.build().unwrap(), "app", &counts)
    }

    #[test]
    fn a_topic_with_fewer_partitions_is_no_input_of_the_last_tasks() {
        let layout = layout();
        let inputs = |partition| layout.inputs(TaskId { sub_topology: 0, partition }).unwrap().partitions;
        assert_eq!(inputs(0), [TopicPartition::new("a", 0), TopicPartition::new("b", 0)]);
        assert_eq!(inputs(1), [TopicPartition::new("a", 1)]);
        assert_eq!(layout.task_count(), 2);
    }

    #[test]
    fn a_task_needs_all_its_inputs_in_one_place() {
        let both = BTreeSet::from([TopicPartition::new("a", 0), TopicPartition::new("b", 0)]);
        assert_eq!(layout().tasks(&both).unwrap(), BTreeSet::from([TaskId { sub_topology: 0, partition: 0 }]));
        let error = layout().tasks(&BTreeSet::from([TopicPartition::new("a", 0)])).unwrap_err();
        assert!(error.to_string().contains("b[0]"), "{error}");
    }

    #[test]
    fn with_patterns_a_task_that_is_not_whole_waits_for_the_next_rebalance() {
        let mut builder = TopologyBuilder::new();
        builder.add_source_matching("both", "a|b", Consumed::with(Utf8, Utf8));
        let topology = builder.build().unwrap().resolved("app", &["a".into(), "b".into()]);
        let layout = TaskLayout::new(&topology, "app", &Counts::from([("a".into(), 2), ("b".into(), 2)]));
        let given = ["a", "b"].map(|topic| TopicPartition::new(topic, 0));
        let given = given.into_iter().chain([TopicPartition::new("b", 1)]).collect();
        assert_eq!(layout.tasks(&given).unwrap(), BTreeSet::from([TaskId { sub_topology: 0, partition: 0 }]));
    }
}
