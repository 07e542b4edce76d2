//! One task under a load of one's own: what benches and the allocation test measure.

use std::sync::Arc;

use crate::error::Result;
use crate::record::{Headers, RecordBatch, TopicPartition};
use crate::runtime::CallsInTurn;
use crate::state::{GlobalStores, TaskStores};
use crate::task::{CommitPoint, MaxTaskIdle, Replay, Task, TaskSpec};
use crate::topology::{Handlers, TaskEnvironment, TaskId, Topology};

/// A task of one sub-topology with its stores in memory, and global ones that are empty. What it writes is thrown away.
#[doc(hidden)]
pub struct SingleTask {
    task: Task,
    offset: i64,
}

impl SingleTask {
    /// # Errors
    /// What a maker of the topology returned.
    pub fn new(topology: &Topology, sub_topology: usize) -> Result<SingleTask> {
        let nodes = topology.sub_topology(sub_topology);
        let topics = topology.source_topics(&nodes);
        let mut stores = TaskStores::in_memory(&topology.stores(&nodes), 0);
        let mut globals = GlobalStores::default();
        for number in topology.globals() {
            globals.add(&TaskStores::shared_in_memory(&topology.stores(&topology.sub_topology(number))));
        }
        globals.attach(&mut stores);
        let environment = TaskEnvironment {
            application_id: "bench".into(),
            task: TaskId { sub_topology, partition: 0 },
            handlers: Handlers::default(),
            partition_counts: Arc::new(|_| Ok(1)),
            calls: Arc::new(CallsInTurn),
            outer_join_emit_interval: std::time::Duration::ZERO,
            upgrade_from: None,
            window_emit_interval: std::time::Duration::ZERO,
            app_settings: Arc::default(),
            state_dir: std::path::Path::new("bench").into(),
        };
        let inputs: Vec<_> = topics.iter().map(|topic| TopicPartition::new(Arc::clone(topic), 0)).collect();
        let committed = inputs.iter().map(|_| CommitPoint::starting_at(0)).collect();
        let topology = topology.clone();
        let (idle, replay) = (MaxTaskIdle::Never, Replay::Approximate);
        let spec = TaskSpec { topology, nodes, environment, topics, inputs, idle, replay };
        Ok(SingleTask { task: Task::new(spec, stores, committed, 0)?, offset: 0 })
    }

    /// The input of a topic.
    pub fn input(&self, topic: &str) -> Option<usize> {
        self.task.inputs().iter().position(|input| *input.topic == *topic)
    }

    /// Takes records through the task and throws away what they cause; returns how many were processed.
    ///
    /// # Errors
    /// What the topology did not let pass.
    pub fn run<'a>(&mut self, input: usize, records: impl Iterator<Item = (&'a [u8], &'a [u8])>) -> Result<usize> {
        let mut batch: RecordBatch = self.task.empty_batch();
        for (key, value) in records {
            batch.push(self.offset, self.offset, Some(key), Some(value), Headers::new())?;
            self.offset += 1;
        }
        self.task.add(input, batch);
        let processed = self.task.process(usize::MAX, 0)?;
        self.task.output()?.clear();
        self.task.stores()?.clear_changelog();
        Ok(processed)
    }

    /// Commits what was run.
    ///
    /// # Errors
    /// A store that cannot be written.
    pub fn commit(&mut self) -> Result<()> {
        self.task.flush()?;
        self.task.output()?.clear();
        let stores = self.task.stores()?;
        stores.clear_changelog();
        let offsets: Vec<_> = stores.specs().map(|_| None).collect();
        let offset = self.offset;
        self.task.committed(&offsets, |_| Some(offset))
    }

    /// Makes the pipeline anew, as an abort does.
    ///
    /// # Errors
    /// What a maker of the topology returned.
    pub fn rewind(&mut self) -> Result<()> {
        self.task.rewind(0)
    }
}

impl std::fmt::Debug for SingleTask {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SingleTask").field("task", &self.task.id()).finish_non_exhaustive()
    }
}
