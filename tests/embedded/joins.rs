//! What joins of streams keep survives its task.

use std::path::Path;
use std::time::Duration;

use kstreams::{
    Config, Consumed, EmbeddedCluster, JoinWindows, Joined, KafkaStreams, Materialized, Produced, State, StreamJoined,
    StreamsBuilder, Topology, Utf8,
};

use crate::application::{PATIENCE, wait_for, wait_until};

fn cluster() -> EmbeddedCluster {
    let cluster = EmbeddedCluster::new();
    for topic in ["left", "right", "out"] {
        cluster.create_topic(topic, 1).unwrap();
    }
    cluster
}

fn start(topology: Topology, cluster: &EmbeddedCluster, folder: &Path) -> KafkaStreams {
    let config = Config::new("joins", "embedded://")
        .cluster(cluster)
        .exactly_once()
        .commit_interval(Duration::from_millis(20))
        .state_dir(folder);
    let streams = KafkaStreams::new(topology, config).unwrap();
    streams.start().unwrap();
    wait_for(&streams, State::Running);
    streams
}

fn write(cluster: &EmbeddedCluster, topic: &str, key: &str, value: &str, at: i64) {
    cluster.produce(topic, Some(key.as_bytes()), Some(value.as_bytes()), Some(at)).unwrap();
}

/// Waits until so many records of a topic are committed.
fn wait_for_offset(cluster: &EmbeddedCluster, topic: &str, offset: i64) {
    let committed = || cluster.committed_offset("joins", topic, 0).unwrap();
    wait_until(&format!("{offset} records of {topic} are committed"), || committed() >= Some(offset));
}

fn out(cluster: &EmbeddedCluster) -> Vec<String> {
    let text = |bytes: Option<Vec<u8>>| String::from_utf8(bytes.unwrap_or_default()).unwrap();
    let records = cluster.read_committed("out").unwrap().into_iter();
    records.map(|record| format!("{} {}", text(record.key), text(record.value))).collect()
}

fn join_of_streams() -> Topology {
    let builder = StreamsBuilder::new();
    let text = || Consumed::with(Utf8, Utf8);
    let joined = StreamJoined::with(Utf8, Utf8, Utf8).named("pairs").with_store_name("pairs");
    let windows = JoinWindows::of_time_difference_with_no_grace(Duration::from_millis(100));
    builder
        .stream("left", text())
        .left_join_stream(
            builder.stream("right", text()),
            |l, r| format!("{l}{}", r.map_or("-", String::as_str)),
            windows,
            joined,
        )
        .to("out", Produced::with(Utf8, Utf8));
    builder.build().unwrap()
}

#[test]
fn records_that_wait_for_partners_are_restored_with_their_changelogs() {
    let (cluster, folder) = (cluster(), tempfile::tempdir().unwrap());
    let streams = start(join_of_streams(), &cluster, &folder.path().join("first"));
    for (key, value) in [("a", "1"), ("a", "2"), ("b", "3")] {
        write(&cluster, "left", key, value, 0);
    }
    wait_for_offset(&cluster, "left", 3);
    streams.close(PATIENCE).unwrap();
    // Another directory: nothing but the changelogs is left.
    let streams = start(join_of_streams(), &cluster, &folder.path().join("second"));
    write(&cluster, "right", "a", "x", 5);
    write(&cluster, "right", "c", "y", 1_000);
    wait_until("both are joined and the third one is given up", || out(&cluster).len() >= 3);
    assert_eq!(out(&cluster), ["a 1x", "a 2x", "b 3-"]);
    streams.close(PATIENCE).unwrap();
}

fn join_with_a_table() -> Topology {
    let builder = StreamsBuilder::new();
    let text = || Consumed::with(Utf8, Utf8);
    let versions = Materialized::named("versions").as_versioned(Duration::from_secs(60));
    let table = builder.table("right", text(), versions);
    let joined = Joined::with(Utf8, Utf8).named("late").with_grace_period(Duration::from_millis(100));
    builder
        .stream("left", text())
        .left_join(&table, |l, r| format!("{l}{}", r.as_deref().unwrap_or("-")), joined)
        .to("out", Produced::with(Utf8, Utf8));
    builder.build().unwrap()
}

#[test]
fn records_that_wait_for_their_table_are_restored_with_their_changelog() {
    let (cluster, folder) = (cluster(), tempfile::tempdir().unwrap());
    let streams = start(join_with_a_table(), &cluster, &folder.path().join("first"));
    write(&cluster, "right", "a", "old", 0);
    wait_for_offset(&cluster, "right", 1);
    write(&cluster, "left", "a", "1", 50);
    write(&cluster, "left", "a", "2", 10);
    wait_for_offset(&cluster, "left", 2);
    streams.close(PATIENCE).unwrap();
    let streams = start(join_with_a_table(), &cluster, &folder.path().join("second"));
    write(&cluster, "right", "a", "new", 20);
    wait_for_offset(&cluster, "right", 2);
    write(&cluster, "left", "b", "3", 1_000);
    wait_until("both are joined", || out(&cluster).len() >= 2);
    assert_eq!(out(&cluster), ["a 2old", "a 1new"]);
    streams.close(PATIENCE).unwrap();
}
