//! What is cleared away while an application runs.

use std::time::Duration;

use kstreams::State;

use crate::application::{
    PATIENCE, assert_gapless, cluster, config, expected, last_counts, start, wait_for, wait_until, write,
};

const REPARTITION: &str = "word-count-by-word-repartition";

#[test]
fn what_is_committed_of_a_repartition_topic_is_deleted() {
    let cluster = cluster();
    write(&cluster, &["a b c d e f g h", "a b"]);
    let config = config(&cluster).cache_bytes(0).set("repartition.purge.interval.ms", "1").unwrap();
    let streams = start(config);
    wait_until("all words are counted", || last_counts(&cluster).len() == 8);
    wait_until("the repartition topic is empty", || cluster.records(REPARTITION).unwrap().is_empty());
    write(&cluster, &["a"]);
    let all = [("a", 3), ("b", 2), ("c", 1), ("d", 1), ("e", 1), ("f", 1), ("g", 1), ("h", 1)];
    wait_until("one more is counted", || last_counts(&cluster) == expected(&all));
    streams.close(PATIENCE).unwrap();
    assert_gapless(&cluster);
}

#[test]
fn a_repartition_topic_is_kept_until_the_purge_is_due() {
    let cluster = cluster();
    write(&cluster, &["a b a"]);
    let streams = start(config(&cluster).repartition_purge_interval(Duration::from_secs(3600)));
    wait_until("all words are counted", || last_counts(&cluster) == expected(&[("a", 2), ("b", 1)]));
    streams.close(PATIENCE).unwrap();
    assert_eq!(cluster.read_committed(REPARTITION).unwrap().len(), 3);
}

#[test]
fn the_state_of_tasks_that_are_elsewhere_is_removed_after_a_delay() {
    let cluster = cluster();
    let state_dir = tempfile::tempdir().unwrap();
    let own = state_dir.path().join("word-count");
    let (elsewhere, no_task) = (own.join("7_3"), own.join("notes"));
    for folder in [&elsewhere, &no_task] {
        std::fs::create_dir_all(folder).unwrap();
        std::fs::write(folder.join("something"), "here").unwrap();
    }
    let config = config(&cluster).state_dir(state_dir.path());
    let patient = start(config.clone().state_cleanup_delay(Duration::from_secs(3600)));
    wait_for(&patient, State::Running);
    patient.close(PATIENCE).unwrap();
    assert!(elsewhere.exists(), "it is not due");
    let streams = start(config.state_cleanup_delay(Duration::ZERO));
    wait_until("the task's folder is gone", || !elsewhere.exists());
    wait_for(&streams, State::Running);
    assert!(no_task.exists(), "what is no task is none of our business");
    let tasks = (0..4).map(|partition| own.join(format!("1_{partition}"))).filter(|folder| folder.exists()).count();
    assert_eq!(tasks, if cfg!(feature = "rocksdb") { 4 } else { 0 }, "what is in use stays");
    streams.close(PATIENCE).unwrap();
}
