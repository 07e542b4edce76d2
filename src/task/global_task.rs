//! Keeps the store of a global sub-topology up to date.

use std::sync::Arc;

use super::commit_point::CommitPoint;
use super::partition_group::MaxTaskIdle;
use super::task::{Replay, Task, TaskSpec};
use crate::error::{Error, ErrorKind, Result};
use crate::record::{RecordBatch, TopicPartition};
use crate::state::TaskStores;
use crate::topology::{TaskEnvironment, TaskId, Topology};

/// A task without a partition of its own: it reads all partitions of its topic, and what it has processed is applied at
/// once, because nothing commits it. It writes to its store and nowhere else.
pub(crate) struct GlobalTask {
    task: Task,
    inputs: Vec<TopicPartition>,
    /// The next offset of each input.
    positions: Vec<i64>,
}

impl GlobalTask {
    /// Makes the task over its stores. `inputs` come with the offsets at which they go on.
    ///
    /// # Errors
    /// What a maker of the user returned.
    pub(crate) fn new(
        topology: &Topology,
        sub_topology: usize,
        environment: TaskEnvironment,
        stores: TaskStores,
        inputs: Vec<(TopicPartition, i64)>,
        now: i64,
    ) -> Result<GlobalTask> {
        let nodes = topology.sub_topology(sub_topology);
        // One topic feeds a global store.
        let topic = topology.source_topics(&nodes).into_iter().next().ok_or_else(no_topic)?;
        let committed = inputs.iter().map(|(_, offset)| CommitPoint::starting_at(*offset));
        let committed: Vec<_> = committed.collect();
        let (inputs, positions): (Vec<_>, Vec<_>) = inputs.into_iter().unzip();
        let topics = inputs.iter().map(|_| Arc::clone(&topic)).collect();
        let topology = topology.clone();
        let (idle, replay) = (MaxTaskIdle::Never, Replay::Approximate);
        let spec = TaskSpec { topology, nodes, environment, topics, inputs: inputs.clone(), idle, replay };
        Ok(GlobalTask { task: Task::new(spec, stores, committed, now)?, inputs, positions })
    }

    pub(crate) fn id(&self) -> TaskId {
        self.task.id()
    }

    /// The inputs with the next offset of each.
    pub(crate) fn positions(&self) -> impl Iterator<Item = (&TopicPartition, i64)> {
        self.inputs.iter().zip(self.positions.iter().copied())
    }

    pub(crate) fn inputs(&self) -> &[TopicPartition] {
        &self.inputs
    }

    pub(crate) fn empty_batch(&mut self) -> RecordBatch {
        self.task.empty_batch()
    }

    /// Takes what was fetched of an input, up to the consumer's position.
    pub(crate) fn add(&mut self, input: usize, batch: RecordBatch, position: i64) {
        self.task.add(input, batch);
        if let Some(known) = self.positions.get_mut(input) {
            *known = position;
        }
    }

    /// Processes everything that was added, and lets readers see it; how many records there were.
    ///
    /// # Errors
    /// What a handler did not let pass. The task must be closed.
    pub(crate) fn process(&mut self, now: i64) -> Result<usize> {
        let processed = self.task.process(usize::MAX, now)?;
        self.task.flush()?;
        self.task.output()?.clear();
        let (inputs, positions) = (&self.inputs, &self.positions);
        let now_at: Vec<_> = inputs.iter().zip(positions).map(|(input, offset)| (input.partition, *offset)).collect();
        let stores = self.task.stores()?;
        stores.clear_changelog();
        stores.apply_positions(&now_at)?;
        let position = |at: &TopicPartition| {
            let input = inputs.iter().position(|input| input == at)?;
            positions.get(input).copied()
        };
        self.task.committed(&[], position)?;
        Ok(processed)
    }

    pub(crate) fn stores(&mut self) -> Result<&mut TaskStores> {
        self.task.stores()
    }

    /// Records dropped on purpose since the task was made.
    #[cfg(feature = "testing")]
    pub(crate) fn dropped(&mut self) -> u64 {
        self.task.dropped()
    }

    pub(crate) fn close(self) -> TaskStores {
        self.task.close()
    }
}

#[cold]
fn no_topic() -> Error {
    Error::new(ErrorKind::Internal, "a global sub-topology has no topic")
}
