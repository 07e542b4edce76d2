//! What is counted, under Java's names: `GROUP.NAME`, with Java's tags as labels.
//!
//! Through the facade of the crate `metrics`: install a recorder before the application is started. Handles are made
//! once per thread, task, store and input, and without a recorder they do nothing. Names that Java does not have say so.

use metrics::{Counter, Gauge, Histogram, Label, counter, gauge, histogram};

use crate::record::TopicPartition;

/// `stream-metrics`: the client as a whole.
pub(crate) struct ClientMetrics {
    /// The state as a number, as Java counts them: 0 is CREATED, 2 is RUNNING, 6 is ERROR.
    pub client_state: Gauge,
    pub alive_stream_threads: Gauge,
    pub failed_stream_threads: Counter,
}

/// `stream-thread-metrics`. Latencies are in milliseconds.
pub(crate) struct ThreadMetrics {
    pub process_total: Counter,
    pub poll_total: Counter,
    pub punctuate_total: Counter,
    pub commit_total: Counter,
    pub commit_latency: Histogram,
    pub task_created_total: Counter,
    pub task_closed_total: Counter,
    /// Of the input that is furthest behind (`consumer-fetch-manager-metrics`).
    pub records_lag_max: Gauge,
}

/// Whose metrics they are.
pub(crate) struct Owner<'a> {
    pub thread: &'a str,
    /// Of the thread's consumer.
    pub client: &'a str,
    pub task: &'a str,
}

/// `stream-task-metrics`, and what belongs to the task's inputs and stores.
pub(crate) struct TaskMetrics {
    pub process_total: Counter,
    pub dropped_records_total: Counter,
    /// Records that wait in the task's queues.
    pub active_buffer_count: Gauge,
    pub input_buffer_bytes_total: Gauge,
    /// Bytes in the record caches.
    pub cache_size_bytes_total: Gauge,
    /// Bytes of updates that wait for the commit, in caches, write buffers and changelog records. Not in Java.
    pub uncommitted_bytes_total: Gauge,
    /// How far (ms) the clock is ahead of the task's stream time. Not in Java.
    pub stream_time_lag: Gauge,
    /// Records of each input that have not been fetched (`consumer-fetch-manager-metrics`).
    pub records_lag: Vec<Gauge>,
    pub stores: Vec<StoreMetrics>,
}

/// `stream-state-metrics` of one store.
pub(crate) struct StoreMetrics {
    pub estimate_num_keys: Gauge,
    /// Bytes of its files; only of a store on disk.
    pub total_sst_files_size: Option<Gauge>,
}

/// What restoring a task adds to `stream-task-metrics`.
pub(crate) struct RestoreMetrics {
    pub restore_total: Counter,
    pub restore_remaining_records_total: Gauge,
}

impl ClientMetrics {
    pub(crate) fn new(client: &str) -> ClientMetrics {
        let client = || client.to_owned();
        ClientMetrics {
            client_state: gauge!("stream-metrics.client-state", "client-id" => client()),
            alive_stream_threads: gauge!("stream-metrics.alive-stream-threads", "client-id" => client()),
            failed_stream_threads: counter!("stream-metrics.failed-stream-threads", "client-id" => client()),
        }
    }
}

impl ThreadMetrics {
    pub(crate) fn new(thread: &str, client: &str) -> ThreadMetrics {
        let count = |name: &'static str| counter!(name, "thread-id" => thread.to_owned());
        let lag = gauge!("consumer-fetch-manager-metrics.records-lag-max", "client-id" => client.to_owned());
        ThreadMetrics {
            process_total: count("stream-thread-metrics.process-total"),
            poll_total: count("stream-thread-metrics.poll-total"),
            punctuate_total: count("stream-thread-metrics.punctuate-total"),
            commit_total: count("stream-thread-metrics.commit-total"),
            commit_latency: histogram!("stream-thread-metrics.commit-latency", "thread-id" => thread.to_owned()),
            task_created_total: count("stream-thread-metrics.task-created-total"),
            task_closed_total: count("stream-thread-metrics.task-closed-total"),
            records_lag_max: lag,
        }
    }
}

impl TaskMetrics {
    /// `stores` says of each store its name and whether it is on disk.
    pub(crate) fn new<'a>(
        owner: &Owner<'_>,
        inputs: &[TopicPartition],
        stores: impl Iterator<Item = (&'a str, bool)>,
    ) -> TaskMetrics {
        let level = |name: &'static str| gauge!(name, owner.labels());
        TaskMetrics {
            process_total: counter!("stream-task-metrics.process-total", owner.labels()),
            dropped_records_total: dropped_records_total(owner.thread, owner.task),
            active_buffer_count: level("stream-task-metrics.active-buffer-count"),
            input_buffer_bytes_total: level("stream-task-metrics.input-buffer-bytes-total"),
            cache_size_bytes_total: level("stream-task-metrics.cache-size-bytes-total"),
            uncommitted_bytes_total: level("stream-task-metrics.uncommitted-bytes-total"),
            stream_time_lag: level("stream-task-metrics.stream-time-lag"),
            records_lag: inputs.iter().map(|input| records_lag(owner.client, input)).collect(),
            stores: stores.map(|(store, is_on_disk)| StoreMetrics::new(owner, store, is_on_disk)).collect(),
        }
    }

    /// The task goes elsewhere: nothing of it is here any more.
    pub(crate) fn clear_levels(&self) {
        let Self { active_buffer_count, input_buffer_bytes_total, cache_size_bytes_total, .. } = self;
        let own = [
            active_buffer_count,
            input_buffer_bytes_total,
            cache_size_bytes_total,
            &self.uncommitted_bytes_total,
            &self.stream_time_lag,
        ];
        let keys = self.stores.iter().map(|store| &store.estimate_num_keys);
        let files = self.stores.iter().filter_map(|store| store.total_sst_files_size.as_ref());
        own.into_iter().chain(&self.records_lag).chain(keys).chain(files).for_each(|level| level.set(0.0));
    }
}

impl StoreMetrics {
    /// Java's tag of the store tells its engine.
    fn new(owner: &Owner<'_>, store: &str, is_on_disk: bool) -> StoreMetrics {
        let mut labels = owner.labels();
        let tag = if is_on_disk { "rocksdb-state-id" } else { "in-memory-state-id" };
        labels.push(Label::new(tag, store.to_owned()));
        StoreMetrics {
            estimate_num_keys: gauge!("stream-state-metrics.estimate-num-keys", labels.clone()),
            total_sst_files_size: is_on_disk.then(|| gauge!("stream-state-metrics.total-sst-files-size", labels)),
        }
    }
}

impl RestoreMetrics {
    pub(crate) fn new(thread: &str, task: &str) -> RestoreMetrics {
        let labels = task_labels(thread, task);
        RestoreMetrics {
            restore_total: counter!("stream-task-metrics.restore-total", labels.clone()),
            restore_remaining_records_total: gauge!("stream-task-metrics.restore-remaining-records-total", labels),
        }
    }
}

impl Owner<'_> {
    fn labels(&self) -> Vec<Label> {
        task_labels(self.thread, self.task)
    }
}

fn task_labels(thread: &str, task: &str) -> Vec<Label> {
    vec![Label::new("thread-id", thread.to_owned()), Label::new("task-id", task.to_owned())]
}

/// Records that were read into the stores of a standby.
pub(crate) fn standby_update_total(thread: &str, task: &str) -> Counter {
    counter!("stream-task-metrics.update-total", task_labels(thread, task))
}

/// Of a task; also for records that its thread has to drop.
pub(crate) fn dropped_records_total(thread: &str, task: &str) -> Counter {
    counter!("stream-task-metrics.dropped-records-total", task_labels(thread, task))
}

fn records_lag(client: &str, input: &TopicPartition) -> Gauge {
    gauge!(
        "consumer-fetch-manager-metrics.records-lag",
        "client-id" => client.to_owned(),
        "topic" => input.topic.to_string(),
        "partition" => input.partition.to_string()
    )
}
