//! What a running application tells of itself: metrics, and the summary at the start.

use std::io::{self, Write};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use kstreams::{
    Config, Consumed, EmbeddedCluster, ErrorHandler, Grouped, I64, KafkaStreams, Materialized, Produced, State,
    StreamsBuilder, Topology, Utf8,
};

use crate::application::{PATIENCE, cluster, config, wait_for, wait_until, word_count};
use crate::recorder::recording;

fn two_topics() -> EmbeddedCluster {
    let cluster = EmbeddedCluster::new();
    for topic in ["in", "out"] {
        cluster.create_topic(topic, 1).unwrap();
    }
    cluster
}

/// Counts numbers by key, in memory: a restart has everything to restore.
fn counting() -> Topology {
    let builder = StreamsBuilder::new();
    builder
        .stream("in", Consumed::with(Utf8, I64))
        .group_by_key(Grouped::with(Utf8, I64))
        .count(Materialized::named("totals").in_memory())
        .to_stream()
        .to("out", Produced::with(Utf8, I64));
    builder.build().unwrap()
}

fn application(id: &str, cluster: &EmbeddedCluster) -> Config {
    Config::new(id, "embedded://").cluster(cluster).exactly_once().commit_interval(Duration::from_millis(10))
}

fn write(cluster: &EmbeddedCluster, topic: &str, key: &str, value: &[u8], timestamp: i64) {
    cluster.produce(topic, Some(key.as_bytes()), Some(value), Some(timestamp)).unwrap();
}

#[test]
fn metrics_count_what_happens_under_the_names_of_java() {
    let recording = recording();
    let total = |name: &str| recording.total("metrics-app", name).unwrap_or_else(|| panic!("there is no {name}"));
    let cluster = two_topics();
    let start = || {
        let config = application("metrics-app", &cluster).deserialization_handler(ErrorHandler::log_and_continue());
        let streams = KafkaStreams::new(counting(), config).unwrap();
        streams.start().unwrap();
        streams
    };
    for (number, key) in ["a", "b", "a", "c", "a"].iter().enumerate() {
        write(&cluster, "in", key, &1_i64.to_be_bytes(), number as i64);
    }
    write(&cluster, "in", "a", b"no number", 9);
    let streams = start();
    wait_for(&streams, State::Running);
    wait_until("the levels were read", || {
        recording.total("metrics-app", "stream-state-metrics.estimate-num-keys") == Some(3.0)
    });
    assert_eq!(total("stream-metrics.client-state"), 2.0, "RUNNING");
    assert_eq!(total("stream-metrics.alive-stream-threads"), 1.0);
    assert_eq!(total("consumer-fetch-manager-metrics.records-lag"), 0.0);
    assert_eq!(total("consumer-fetch-manager-metrics.records-lag-max"), 0.0);
    assert_eq!(total("stream-task-metrics.active-buffer-count"), 0.0);
    streams.close(PATIENCE).unwrap();
    let processed = total("stream-task-metrics.process-total");
    assert_eq!(total("stream-thread-metrics.process-total"), processed);
    assert_eq!(processed, streams.processed_total() as f64);
    assert_eq!(total("stream-task-metrics.dropped-records-total"), 1.0);
    let commits = total("stream-thread-metrics.commit-total");
    assert!(commits >= 1.0);
    assert_eq!(total("stream-thread-metrics.commit-latency"), commits, "each commit is measured");
    assert_eq!(total("stream-thread-metrics.task-created-total"), 1.0);
    assert_eq!(total("stream-thread-metrics.task-closed-total"), 1.0);
    assert_eq!(total("stream-task-metrics.restore-total"), 0.0);
    assert_eq!(total("stream-metrics.client-state"), 4.0, "NOT_RUNNING");
    assert_eq!(total("stream-metrics.alive-stream-threads"), 0.0);
    assert_eq!(total("stream-state-metrics.estimate-num-keys"), 0.0, "nothing is left of the task");

    let records = cluster.read_committed("metrics-app-totals-changelog").unwrap().len();
    let streams = start();
    wait_for(&streams, State::Running);
    streams.close(PATIENCE).unwrap();
    assert_eq!(total("stream-task-metrics.restore-total"), records as f64);
    assert_eq!(total("stream-task-metrics.restore-remaining-records-total"), 0.0);
    assert_eq!(total("stream-metrics.failed-stream-threads"), 0.0);

    let labels = |name: &str| recording.labels("metrics-app", name);
    assert_eq!(labels("stream-thread-metrics.process-total"), [["thread-id"]]);
    assert_eq!(labels("stream-task-metrics.process-total"), [["thread-id", "task-id"]]);
    let of_store = ["thread-id", "task-id", "in-memory-state-id"];
    assert_eq!(labels("stream-state-metrics.estimate-num-keys"), [of_store]);
    assert_eq!(labels("consumer-fetch-manager-metrics.records-lag")[0], ["client-id", "topic", "partition"]);
}

#[test]
fn the_lag_counts_records_that_were_not_fetched() {
    let cluster = two_topics();
    cluster.create_topic("other", 1).unwrap();
    let builder = StreamsBuilder::new();
    let numbers = |topic| builder.stream(topic, Consumed::with(Utf8, I64));
    numbers("in").merge(numbers("other")).to("out", Produced::with(Utf8, I64));
    // Waits for the other input, with one record in its hands.
    let config = application("lagging-app", &cluster)
        .max_task_idle(Some(Duration::from_secs(3600)))
        .buffered_records_per_partition(1);
    for timestamp in 0..5 {
        write(&cluster, "in", "a", &1_i64.to_be_bytes(), timestamp);
    }
    let recording = recording();
    let streams = KafkaStreams::new(builder.build().unwrap(), config).unwrap();
    streams.start().unwrap();
    let level = |name: &str| recording.total("lagging-app", &format!("consumer-fetch-manager-metrics.{name}"));
    wait_until("four records are not fetched", || level("records-lag") == Some(4.0));
    wait_until("that is the longest lag", || level("records-lag-max") == Some(4.0));
    write(&cluster, "other", "a", &1_i64.to_be_bytes(), 100);
    wait_until("everything is fetched", || level("records-lag") == Some(0.0) && level("records-lag-max") == Some(0.0));
    streams.close(PATIENCE).unwrap();
}

/// Where a log is written to.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn the_start_says_in_one_event_what_will_run() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
    let config = config(&cluster()).threads(2).cache_bytes(3 << 20).uncommitted_bytes(5 << 20);
    let state_dir = tempfile::tempdir().unwrap();
    let config = config.state_dir(state_dir.path());
    let streams = KafkaStreams::new(word_count(), config).unwrap();
    tracing::subscriber::with_default(subscriber, || streams.start()).unwrap();
    streams.close(PATIENCE).unwrap();
    let log = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    let summary = log.split_once("application word-count starts").unwrap_or_else(|| panic!("no summary in {log}")).1;
    let directory = format!("state      {}", state_dir.path().join("word-count").display());
    for said in [
        "guarantee  exactly once, commit every 20 ms",
        "threads    2",
        "tasks      8 in all instances (4 of sub-topology 0, 4 of sub-topology 1)",
        &directory,
        "memory     3 MiB record caches",
        "commit at 5 MiB uncommitted",
        "Sub-topology: 0",
        "Source: KSTREAM-SOURCE-0000000000 (topics: [lines])",
        "Sink: KSTREAM-SINK-",
    ] {
        assert!(summary.contains(said), "{said:?} is not in {summary}");
    }
}
