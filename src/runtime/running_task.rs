//! A task at work, with what its thread keeps beside it.

use crate::error::Result;
use crate::record::TopicPartition;
use crate::task::Task;

pub(super) struct RunningTask {
    pub task: Task,
    /// The task's inputs, held apart so that they can be read while the task is written.
    pub inputs: Vec<TopicPartition>,
    /// The changelog partition of each store; none: it has no changelog.
    pub changelogs: Vec<Option<TopicPartition>>,
    /// Stores of which something was sent to the changelog since the last commit.
    pub written: Vec<bool>,
    /// Dropped records that the metrics have counted.
    pub dropped: u64,
    pub metrics: crate::metrics::TaskMetrics,
    /// Entered once a turn, so that what the task and its processors log names it.
    pub span: tracing::Span,
}

impl RunningTask {
    pub(super) fn has_output(&mut self) -> Result<bool> {
        Ok(!self.task.output()?.is_empty() || self.task.stores()?.changelog().next().is_some())
    }

    /// The next offset of the changelogs that were written since the last commit.
    pub(super) fn changelog_ends(&mut self, end: impl Fn(&TopicPartition) -> Option<i64>) -> Vec<Option<i64>> {
        let written = self.written.iter_mut().zip(&self.changelogs);
        written
            .map(|(written, changelog)| changelog.as_ref().filter(|_| std::mem::take(written)).and_then(&end))
            .collect()
    }

    pub(super) fn forget_written(&mut self) {
        self.written.fill(false);
    }
}
