//! A task at work, with what its thread keeps beside it.

use crate::client::Consumer;
use crate::error::Result;
use crate::record::TopicPartition;
use crate::state::TaskStores;
use crate::task::Task;
use crate::topology::TaskId;

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

    /// The next offset of the changelogs that were written since the last commit; of one that is an input, what is
    /// committed of it.
    pub(super) fn changelog_ends(
        &mut self,
        end: impl Fn(&TopicPartition) -> Option<i64>,
        position: impl Fn(&TopicPartition) -> Option<i64>,
    ) -> Vec<Option<i64>> {
        let RunningTask { task, inputs, changelogs, written, .. } = self;
        let end = |(written, changelog): (&mut bool, &Option<TopicPartition>)| {
            let changelog = changelog.as_ref()?;
            if inputs.contains(changelog) {
                let mut offsets = task.offsets(&position).into_iter();
                return offsets.find(|(input, _)| input == changelog).map(|(_, at)| at.offset);
            }
            if std::mem::take(written) { end(changelog) } else { None }
        };
        written.iter_mut().zip(changelogs.iter()).map(end).collect()
    }

    /// Tells the metrics what is to be counted and measured; how many records its slowest input is behind.
    pub(super) fn read_levels(&mut self, consumer: &dyn Consumer, now_ms: i64) -> i64 {
        self.count_dropped();
        let RunningTask { task, inputs, metrics, .. } = self;
        let buffered: usize = (0..inputs.len()).map(|input| task.buffered(input)).sum();
        metrics.active_buffer_count.set(buffered as f64);
        metrics.input_buffer_bytes_total.set(task.buffered_bytes() as f64);
        if let Some(stream_time) = task.stream_time() {
            metrics.stream_time_lag.set((now_ms - stream_time) as f64);
        }
        if let Ok(stores) = task.stores() {
            metrics.cache_size_bytes_total.set(stores.cache_bytes() as f64);
            metrics.uncommitted_bytes_total.set(stores.uncommitted_bytes() as f64);
            for (index, store) in metrics.stores.iter().enumerate() {
                store.estimate_num_keys.set(stores.approximate_len(index) as f64);
                if let (Some(level), Some(bytes)) = (&store.total_sst_files_size, stores.disk_bytes(index)) {
                    level.set(bytes as f64);
                }
            }
        }
        let mut furthest = 0;
        for (input, level) in inputs.iter().zip(&metrics.records_lag) {
            // Nobody may know yet.
            if let (Some(end), Some(position)) = (consumer.end(input), consumer.position(input)) {
                let lag = (end - position).max(0);
                level.set(lag as f64);
                furthest = furthest.max(lag);
            }
        }
        furthest
    }

    /// The task is about to be closed: what the metrics do not know yet, and that there is nothing left.
    pub(super) fn end_metrics(&mut self) {
        self.count_dropped();
        self.metrics.clear_levels();
    }

    fn count_dropped(&mut self) {
        let dropped = self.task.dropped();
        self.metrics.dropped_records_total.increment(dropped.saturating_sub(self.dropped));
        self.dropped = dropped;
    }

    /// Its stores, if there are any left.
    pub(super) fn close(self) -> (TaskId, Option<TaskStores>) {
        let (id, expected) = (self.task.id(), self.changelogs.len());
        let stores = self.task.close();
        (id, Some(stores).filter(|stores| stores.specs().count() == expected))
    }

    pub(super) fn forget_written(&mut self) {
        self.written.fill(false);
    }
}
