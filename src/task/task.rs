//! The task itself: inputs, pipeline, and what a commit needs of them.

use std::cell::Cell;
use std::sync::Arc;

use super::commit_point::CommitPoint;
use super::partition_group::{MaxTaskIdle, PartitionGroup};
use super::pipeline::{Blueprint, Pipeline};
use super::times_entry;
use crate::config::Guarantee;
use crate::error::{Error, ErrorKind, Result};
use crate::record::{OffsetAndMetadata, RecordBatch, TopicPartition};
use crate::state::TaskStores;
use crate::topology::{
    CommittedTimes, NodeId, Output, ProcessorMetadata, TaskContext, TaskEnvironment, TaskId, Topology,
};

/// What a task is made from; stays the same through every re-make of its pipeline.
#[derive(Clone)]
pub(crate) struct TaskSpec {
    pub topology: Topology,
    /// The nodes that run: those of a sub-topology, or all of them under the test driver.
    pub nodes: Vec<NodeId>,
    pub environment: TaskEnvironment,
    /// Topics without prefix, beside [`inputs`](TaskSpec::inputs).
    pub topics: Vec<Arc<str>>,
    /// Full names.
    pub inputs: Vec<TopicPartition>,
    pub idle: MaxTaskIdle,
    pub replay: Replay,
}

/// What comes of the records that are read again after a crash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Replay {
    /// What came of them before: operators' times are committed with the offsets of all inputs, and no cache shows what a
    /// restart would not find.
    Exact,
    /// About the same: operators derive their time from their stores and the task's time. What is committed and shown is
    /// Java's.
    Approximate,
}

impl From<Guarantee> for Replay {
    /// At least once, stores may be ahead of the offsets, and a time would promise what nothing else keeps.
    fn from(guarantee: Guarantee) -> Replay {
        match guarantee {
            Guarantee::ExactlyOnce => Replay::Exact,
            Guarantee::AtLeastOnce => Replay::Approximate,
        }
    }
}

pub(crate) struct Task {
    spec: TaskSpec,
    group: PartitionGroup,
    /// None only after a pipeline could not be made: the task can then only be closed.
    pipeline: Option<Pipeline>,
    /// Where every input is read from after an abort.
    committed: Vec<CommitPoint>,
    /// Inputs of which something was taken since the last commit.
    consumed: Vec<bool>,
    commit_needed: bool,
    /// What operators have committed with the offsets.
    processor_metadata: ProcessorMetadata,
    /// The times of operators at the last commit; nothing is known of those that are not there.
    times: CommittedTimes,
    /// There was no room for them in the metadata, and it has been said.
    times_left_out: Cell<bool>,
}

impl Task {
    /// Makes the pipeline over restored stores. `committed` has an entry for each input.
    ///
    /// # Errors
    /// What a maker of the user returned.
    pub(crate) fn new(spec: TaskSpec, stores: TaskStores, committed: Vec<CommitPoint>, now: i64) -> Result<Task> {
        let mut processor_metadata = ProcessorMetadata::new();
        for (store, time) in committed.iter().flat_map(|point| &point.processor_metadata) {
            if times_entry::is_entry(store) {
                continue;
            }
            let known = processor_metadata.entry(Arc::clone(store)).or_insert(*time);
            *known = (*known).max(*time);
        }
        let times = match spec.replay {
            Replay::Exact => times_entry::find(&spec.inputs, &committed),
            Replay::Approximate => None,
        };
        let group = group(&spec, &committed);
        let consumed = vec![false; spec.inputs.len()];
        let mut task = Task {
            spec,
            group,
            pipeline: None,
            committed,
            consumed,
            commit_needed: false,
            processor_metadata,
            times: times.unwrap_or_default(),
            times_left_out: Cell::new(false),
        };
        task.pipeline = Some(task.make(stores, now)?);
        Ok(task)
    }

    pub(crate) fn id(&self) -> TaskId {
        self.spec.environment.task
    }

    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn inputs(&self) -> &[TopicPartition] {
        &self.spec.inputs
    }

    #[cfg(feature = "testing")]
    pub(crate) fn spec(&self) -> &TaskSpec {
        &self.spec
    }

    /// The inputs with the offsets at which they continue after the last commit.
    pub(crate) fn committed_positions(&self) -> impl Iterator<Item = (&TopicPartition, i64)> {
        self.spec.inputs.iter().zip(self.committed.iter().map(|point| point.offset))
    }

    /// One more input, of a topic that matches the pattern of a source: its place, or none when no source has it.
    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn add_input(&mut self, input: TopicPartition) -> Option<usize> {
        let topic = Arc::clone(&input.topic);
        if !self.pipeline.as_mut()?.add_input(&topic) {
            return None;
        }
        self.group.add_queue(input.partition);
        self.spec.topics.push(topic);
        self.spec.inputs.push(input);
        self.committed.push(CommitPoint::starting_at(0));
        self.consumed.push(false);
        Some(self.consumed.len() - 1)
    }

    /// Queues records of an input behind those it has.
    pub(crate) fn add(&mut self, input: usize, batch: RecordBatch) {
        self.group.add(input, batch);
    }

    /// A batch to fill for [`add`](Task::add).
    pub(crate) fn empty_batch(&mut self) -> RecordBatch {
        self.group.empty_batch()
    }

    pub(crate) fn buffered(&self, input: usize) -> usize {
        self.group.buffered(input)
    }

    pub(crate) fn buffered_bytes(&self) -> usize {
        self.group.buffered_bytes()
    }

    /// Whether everything the cluster holds of an input has been added; none: not known yet.
    pub(crate) fn set_caught_up(&mut self, input: usize, caught_up: Option<bool>) {
        self.group.set_caught_up(input, caught_up);
    }

    /// Processes up to so many records, rows that expire counted too; how many there were. Fewer: nothing more is ready.
    ///
    /// # Errors
    /// What a handler did not let pass. The task must be [rewound](Task::rewind) or closed.
    pub(crate) fn process(&mut self, records_max: usize, now: i64) -> Result<usize> {
        let pipeline = self.pipeline.as_mut().ok_or_else(closed)?;
        pipeline.context().wall_clock_ms = now;
        let mut processed = 0;
        while processed < records_max && !pipeline.context().calls.are_full() {
            let mut skipped = 0;
            let consumed = &mut self.consumed;
            let chosen = self.group.choose(now, &mut skipped, &mut |input, record, partition_time| {
                let timestamp = pipeline.prepare(input, record, partition_time)?;
                if let Some(consumed) = consumed.get_mut(input).filter(|_| timestamp.is_none()) {
                    *consumed = true;
                }
                Ok(timestamp)
            });
            self.commit_needed |= skipped > 0;
            processed += skipped;
            let Some((input, timestamp)) = chosen? else { break };
            // The rows that the record's time makes expire come first, in as many turns as it takes.
            let expired = pipeline.expire(timestamp, records_max.saturating_sub(processed))?;
            if expired > 0 {
                self.commit_needed = true;
                processed += expired;
                if processed >= records_max {
                    break;
                }
            }
            let Some(record) = self.group.head(input) else { break };
            self.commit_needed = true;
            if let Some(consumed) = self.consumed.get_mut(input) {
                *consumed = true;
            }
            pipeline.process(input, &record, timestamp)?;
            self.group.advance(input, timestamp);
            processed += 1;
            if pipeline.context().commit_requested {
                break;
            }
        }
        Ok(processed)
    }

    /// Tells the task the time (ms) and runs the punctuations that are due by the wall clock.
    ///
    /// # Errors
    /// As [`process`](Task::process).
    pub(crate) fn punctuate(&mut self, now: i64) -> Result<bool> {
        let punctuated = self.pipeline.as_mut().ok_or_else(closed)?.advance_wall_clock(now)?;
        self.commit_needed |= punctuated;
        Ok(punctuated)
    }

    /// Sends on what calls that have ended have as their results; whether there was anything.
    ///
    /// # Errors
    /// As [`process`](Task::process).
    pub(crate) fn finish_calls(&mut self) -> Result<bool> {
        self.pipeline.as_mut().ok_or_else(closed)?.finish_calls()
    }

    /// Whether records wait for calls.
    pub(crate) fn has_calls(&self) -> bool {
        self.pipeline.as_ref().is_some_and(|pipeline| pipeline.task().calls.in_flight > 0)
    }

    /// The first step of a commit: what operators and caches hold back is forwarded and written.
    ///
    /// # Errors
    /// As [`process`](Task::process).
    pub(crate) fn flush(&mut self) -> Result<()> {
        self.pipeline.as_mut().ok_or_else(closed)?.flush()
    }

    /// The records that wait to be handed to the producer.
    pub(crate) fn output(&mut self) -> Result<&mut Output> {
        Ok(&mut self.pipeline.as_mut().ok_or_else(closed)?.context().output)
    }

    pub(crate) fn stores(&mut self) -> Result<&mut TaskStores> {
        Ok(&mut self.pipeline.as_mut().ok_or_else(closed)?.context().stores)
    }

    /// Whether anything has happened since the last commit.
    pub(crate) fn commit_needed(&self) -> bool {
        self.commit_needed
    }

    /// Whether a processor has asked for a commit.
    pub(crate) fn commit_requested(&mut self) -> bool {
        self.pipeline.as_mut().is_some_and(|pipeline| pipeline.context().commit_requested)
    }

    /// Records dropped on purpose since the task was made or rewound.
    pub(crate) fn dropped(&mut self) -> u64 {
        self.pipeline.as_mut().map_or(0, |pipeline| {
            let context = pipeline.context();
            context.dropped + context.stores.expired()
        })
    }

    pub(crate) fn stream_time(&mut self) -> Option<i64> {
        self.pipeline.as_mut().and_then(|pipeline| pipeline.context().stream_time)
    }

    /// What is to be committed for each input of which something was taken: the first record that is still buffered,
    /// otherwise the consumer's position, which also steps over transaction markers.
    pub(crate) fn offsets(
        &self,
        position: impl Fn(&TopicPartition) -> Option<i64>,
    ) -> Vec<(TopicPartition, OffsetAndMetadata)> {
        let points = self.commit_points(&position).into_iter();
        points.map(|(input, point)| (self.input(input), point.encode())).collect()
    }

    /// The transaction has committed with [`offsets`](Task::offsets): stores and positions follow. `changelogs` holds the
    /// next offset of each store's changelog, where something was written.
    ///
    /// # Errors
    /// A store that cannot be written: the changelog has it, so the task is closed and restored.
    pub(crate) fn committed(
        &mut self,
        changelogs: &[Option<i64>],
        position: impl Fn(&TopicPartition) -> Option<i64>,
    ) -> Result<()> {
        for (input, point) in self.commit_points(&position) {
            if let Some(committed) = self.committed.get_mut(input) {
                *committed = point;
            }
        }
        self.consumed.fill(false);
        self.commit_needed = false;
        let context = self.pipeline.as_mut().ok_or_else(closed)?.context();
        context.commit_requested = false;
        if std::mem::take(&mut context.processor_metadata_changed) {
            self.processor_metadata.clone_from(&context.processor_metadata);
        }
        self.times = context.times();
        context.stores.apply(changelogs)
    }

    /// The transaction was aborted: everything is as it was after the last commit, and the inputs are to be read again
    /// from [`committed_positions`](Task::committed_positions).
    ///
    /// # Errors
    /// What a maker of the user returned.
    pub(crate) fn rewind(&mut self, now: i64) -> Result<()> {
        let mut stores = self.pipeline.take().ok_or_else(closed)?.into_stores();
        stores.discard();
        self.group = group(&self.spec, &self.committed);
        self.consumed.fill(false);
        self.commit_needed = false;
        self.pipeline = Some(self.make(stores, now)?);
        Ok(())
    }

    /// An input goes on elsewhere, right after a commit: what was queued is dropped, the inputs are to be read again from
    /// [`committed_positions`](Task::committed_positions), and the next commit tells the new place.
    ///
    /// # Errors
    /// What a maker of the user returned.
    pub(crate) fn go_on_from(&mut self, input: &TopicPartition, offset: i64, now: i64) -> Result<()> {
        let Some(index) = self.spec.inputs.iter().position(|known| known == input) else { return Ok(()) };
        if let Some(committed) = self.committed.get_mut(index) {
            committed.offset = offset;
        }
        self.rewind(now)?;
        if let Some(consumed) = self.consumed.get_mut(index) {
            *consumed = true;
        }
        self.commit_needed = true;
        Ok(())
    }

    /// Ends the task; what is not committed is dropped. Clean: its processors are told.
    pub(crate) fn close(mut self) -> TaskStores {
        let Some(pipeline) = self.pipeline.take() else { return TaskStores::default() };
        let mut stores = if pipeline.is_failed() { pipeline.into_stores() } else { pipeline.close() };
        stores.discard();
        stores
    }

    /// Those of inputs of which something was taken; of all, when operators have something to keep with the offsets.
    fn commit_points(&self, position: &impl Fn(&TopicPartition) -> Option<i64>) -> Vec<(usize, CommitPoint)> {
        let context = self.pipeline.as_ref().map(Pipeline::task);
        let has_times = self.commit_needed && self.spec.replay == Replay::Exact;
        let times = context.filter(|_| has_times).map(TaskContext::times).unwrap_or_default();
        let all = !times.is_empty() || context.is_some_and(|context| context.processor_metadata_changed);
        let metadata = context.map(|context| &context.processor_metadata);
        let consumed = self.consumed.iter().enumerate().filter(move |(_, consumed)| all || **consumed);
        let points = consumed.filter_map(|(input, _)| {
            let position = || position(self.spec.inputs.get(input)?);
            let committed = || self.committed.get(input).filter(|_| all).map(|point| point.offset);
            let offset = self.group.head_offset(input).or_else(position).or_else(committed)?;
            let processor_metadata = metadata.cloned().unwrap_or_default();
            Some((input, CommitPoint { offset, partition_time: self.group.partition_time(input), processor_metadata }))
        });
        let mut points: Vec<_> = points.collect();
        if !times.is_empty()
            && !times_entry::add(&times, &self.spec.inputs, &mut points)
            && !self.times_left_out.replace(true)
        {
            let (task, times) = (self.id(), times.len());
            tracing::warn!(%task, times, "the times of operators do not fit into the commit metadata: a restart guesses them");
        }
        points
    }

    fn make(&self, mut stores: TaskStores, wall_clock_ms: i64) -> Result<Pipeline> {
        let stream_time = self.committed.iter().map(|point| point.partition_time).max().filter(|time| *time >= 0);
        let TaskSpec { topology, nodes, environment, topics, .. } = &self.spec;
        let (processor_metadata, times) = (&self.processor_metadata, &self.times);
        let blueprint =
            Blueprint { topology, nodes, topics, environment, stream_time, processor_metadata, times, wall_clock_ms };
        if self.spec.replay == Replay::Exact {
            stores.hide_expired();
        }
        Pipeline::make(&blueprint, stores)
    }

    #[expect(clippy::indexing_slicing, reason = "only called with places that `consumed` has, one for each input")]
    fn input(&self, input: usize) -> TopicPartition {
        self.spec.inputs[input].clone()
    }
}

fn group(spec: &TaskSpec, committed: &[CommitPoint]) -> PartitionGroup {
    let times = committed.iter().map(|point| point.partition_time);
    PartitionGroup::new(spec.inputs.iter().map(|input| input.partition).zip(times), spec.idle)
}

#[cold]
fn closed() -> Error {
    Error::new(ErrorKind::Closed, "the task could not be made again after a failure")
}
