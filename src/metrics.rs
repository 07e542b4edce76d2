//! What is counted, under Java's names: `GROUP.NAME`, with Java's tags as labels.
//!
//! Through the facade of the crate `metrics`: install a recorder before the application is started. Handles are made
//! once per thread and task, and without a recorder they do nothing.

use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};

/// `stream-thread-metrics`. Latencies are in milliseconds.
pub(crate) struct ThreadMetrics {
    pub process_total: Counter,
    pub poll_total: Counter,
    pub punctuate_total: Counter,
    pub commit_total: Counter,
    pub commit_latency: Histogram,
    pub task_created_total: Counter,
    pub task_closed_total: Counter,
}

/// `stream-task-metrics`.
pub(crate) struct TaskMetrics {
    pub process_total: Counter,
    pub dropped_records_total: Counter,
    /// Records that wait in the task's queues.
    pub active_buffer_count: Gauge,
    pub input_buffer_bytes_total: Gauge,
    /// Bytes of uncommitted updates in caches and write buffers.
    pub cache_size_bytes_total: Gauge,
    /// How far (ms) the clock is ahead of the task's stream time.
    pub record_lateness: Gauge,
}

/// What restoring a task adds to `stream-task-metrics`.
pub(crate) struct RestoreMetrics {
    pub restore_total: Counter,
    pub restore_remaining_records_total: Gauge,
}

impl ThreadMetrics {
    pub(crate) fn new(thread: &str) -> ThreadMetrics {
        let count = |name: &'static str| counter!(name, "thread-id" => thread.to_owned());
        ThreadMetrics {
            process_total: count("stream-thread-metrics.process-total"),
            poll_total: count("stream-thread-metrics.poll-total"),
            punctuate_total: count("stream-thread-metrics.punctuate-total"),
            commit_total: count("stream-thread-metrics.commit-total"),
            commit_latency: histogram!("stream-thread-metrics.commit-latency", "thread-id" => thread.to_owned()),
            task_created_total: count("stream-thread-metrics.task-created-total"),
            task_closed_total: count("stream-thread-metrics.task-closed-total"),
        }
    }
}

impl TaskMetrics {
    pub(crate) fn new(task: &str) -> TaskMetrics {
        let count = |name: &'static str| counter!(name, "task-id" => task.to_owned());
        let level = |name: &'static str| gauge!(name, "task-id" => task.to_owned());
        TaskMetrics {
            process_total: count("stream-task-metrics.process-total"),
            dropped_records_total: count("stream-task-metrics.dropped-records-total"),
            active_buffer_count: level("stream-task-metrics.active-buffer-count"),
            input_buffer_bytes_total: level("stream-task-metrics.input-buffer-bytes-total"),
            cache_size_bytes_total: level("stream-task-metrics.cache-size-bytes-total"),
            record_lateness: level("stream-task-metrics.record-lateness"),
        }
    }
}

impl RestoreMetrics {
    pub(crate) fn new(task: &str) -> RestoreMetrics {
        let task = || task.to_owned();
        RestoreMetrics {
            restore_total: counter!("stream-task-metrics.restore-total", "task-id" => task()),
            restore_remaining_records_total: gauge!("stream-task-metrics.restore-remaining-records-total", "task-id" => task()),
        }
    }
}
