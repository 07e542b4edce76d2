//! Sources of a topic pattern.

use std::collections::BTreeSet;
use std::time::Duration;

use kstreams::{
    Config, Consumed, EmbeddedCluster, Grouped, I64, KStream, KafkaStreams, Materialized, OffsetReset, Produced, State,
    StreamsBuilder, Topology, Utf8,
};

use crate::application::{PATIENCE, wait_for, wait_until};

fn counts() -> Topology {
    let builder = StreamsBuilder::new();
    let consumed = Consumed::with(Utf8, Utf8).with_offset_reset(OffsetReset::Earliest);
    builder
        .stream_matching("in-.+", consumed)
        .group_by_key(Grouped::with(Utf8, Utf8))
        .count(Materialized::named("counts"))
        .to_stream()
        .to("out", Produced::with(Utf8, I64));
    builder.build().unwrap()
}

fn config(cluster: &EmbeddedCluster, folder: &std::path::Path) -> Config {
    Config::new("patterns", "embedded://")
        .cluster(cluster)
        .exactly_once()
        .commit_interval(Duration::from_millis(20))
        .metadata_max_age(Duration::from_millis(10))
        .cache_bytes(0)
        .threads(2)
        .state_dir(folder)
}

fn start(config: Config) -> KafkaStreams {
    let streams = KafkaStreams::new(counts(), config).unwrap();
    streams.start().unwrap();
    streams
}

fn write(cluster: &EmbeddedCluster, topic: &str, keys: &[&str]) {
    for key in keys {
        cluster.produce(topic, Some(key.as_bytes()), Some(b"x"), Some(1)).unwrap();
    }
}

fn seen(cluster: &EmbeddedCluster) -> BTreeSet<(String, i64)> {
    let records = cluster.read_committed("out").unwrap().into_iter();
    let read = |(key, value): (Vec<u8>, Vec<u8>)| {
        (String::from_utf8(key).unwrap(), i64::from_be_bytes(value.try_into().unwrap()))
    };
    records.map(|record| read((record.key.unwrap(), record.value.unwrap()))).collect()
}

#[test]
fn a_topic_that_comes_later_is_read_by_running_instances() {
    let (cluster, folder) = (EmbeddedCluster::new(), tempfile::tempdir().unwrap());
    for topic in ["in-a", "other", "out"] {
        cluster.create_topic(topic, 3).unwrap();
    }
    write(&cluster, "in-a", &["k", "l", "m"]);
    write(&cluster, "other", &["k"]);
    let one = start(config(&cluster, &folder.path().join("one")));
    let two = start(config(&cluster, &folder.path().join("two")));
    wait_until("the first topic is read", || seen(&cluster).len() == 3);

    cluster.create_topic("in-b", 3).unwrap();
    write(&cluster, "in-b", &["k", "l", "m"]);
    wait_until("the second topic is read", || seen(&cluster).len() == 6);
    wait_for(&one, State::Running);
    wait_for(&two, State::Running);
    write(&cluster, "in-a", &["k"]);
    wait_until("the first topic is read on", || seen(&cluster).contains(&("k".to_owned(), 3)));
    let all = [("k", 1), ("k", 2), ("k", 3), ("l", 1), ("l", 2), ("m", 1), ("m", 2)];
    let all: BTreeSet<_> = all.iter().map(|(key, count)| ((*key).to_owned(), *count)).collect();
    assert_eq!(seen(&cluster), all);
    assert_eq!(cluster.read_committed("out").unwrap().len(), all.len(), "nothing twice");
    one.close(PATIENCE).unwrap();
    two.close(PATIENCE).unwrap();
}

#[test]
fn a_pattern_that_matches_nothing_waits_for_a_topic() {
    let (cluster, folder) = (EmbeddedCluster::new(), tempfile::tempdir().unwrap());
    cluster.create_topic("out", 1).unwrap();
    let streams = start(config(&cluster, folder.path()));
    wait_for(&streams, State::Running);

    cluster.create_topic("in-a", 3).unwrap();
    write(&cluster, "in-a", &["k", "l"]);
    wait_until("the topic is read", || seen(&cluster).len() == 2);
    wait_for(&streams, State::Running);
    streams.close(PATIENCE).unwrap();

    let waiting = EmbeddedCluster::new();
    waiting.create_topic("out", 1).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let streams = start(config(&waiting, folder.path()));
    wait_for(&streams, State::Running);
    streams.close(PATIENCE).unwrap();
    assert_eq!(streams.state(), State::NotRunning);
}

#[test]
fn what_is_behind_a_pattern_waits_while_the_rest_runs() {
    let (cluster, folder) = (EmbeddedCluster::new(), tempfile::tempdir().unwrap());
    cluster.create_topic("other", 2).unwrap();
    cluster.create_topic("out", 1).unwrap();
    let builder = StreamsBuilder::new();
    let count = |stream: KStream<String, String>, name| {
        // Through a topic that is as wide as what is read.
        let grouped = stream.group_by(|key, _| key.clone(), Grouped::with(Utf8, Utf8).named(name));
        grouped.count(Materialized::named(name)).to_stream().to("out", Produced::with(Utf8, I64));
    };
    count(builder.stream_matching("in-.+", Consumed::with(Utf8, Utf8)), "matched");
    count(builder.stream("other", Consumed::with(Utf8, Utf8)), "named");
    let streams = KafkaStreams::new(builder.build().unwrap(), config(&cluster, folder.path())).unwrap();
    streams.start().unwrap();
    write(&cluster, "other", &["o"]);
    wait_until("the topic that is there is read", || seen(&cluster).len() == 1);

    cluster.create_topic("in-a", 3).unwrap();
    write(&cluster, "in-a", &["k", "l"]);
    wait_until("the other one is read", || seen(&cluster).len() == 3);
    streams.close(PATIENCE).unwrap();
}
