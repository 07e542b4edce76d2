//! Where sources begin of which nothing is committed.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use kstreams::{Config, Consumed, EmbeddedCluster, KafkaStreams, OffsetReset, Produced, State, StreamsBuilder, Utf8};

use crate::application::{PATIENCE, wait_for, wait_until};

fn config(cluster: &EmbeddedCluster, folder: &Path) -> Config {
    let config = Config::new("resets", "embedded://").cluster(cluster).exactly_once();
    config.commit_interval(Duration::from_millis(20)).state_dir(folder)
}

/// Copies topics, each of which begins in its own way.
fn copy(topics: &[(&str, OffsetReset)], config: Config) -> KafkaStreams {
    let builder = StreamsBuilder::new();
    for (topic, reset) in topics {
        let consumed = Consumed::with(Utf8, Utf8).with_offset_reset(*reset);
        builder.stream(topic, consumed).to("out", Produced::with(Utf8, Utf8));
    }
    KafkaStreams::new(builder.build().unwrap(), config).unwrap()
}

fn write(cluster: &EmbeddedCluster, topic: &str, value: &str, timestamp: Option<i64>) {
    cluster.produce(topic, Some(topic.as_bytes()), Some(value.as_bytes()), timestamp).unwrap();
}

fn copied(cluster: &EmbeddedCluster) -> BTreeSet<String> {
    let text = |bytes: Option<Vec<u8>>| String::from_utf8(bytes.unwrap()).unwrap();
    let records = cluster.read_committed("out").unwrap().into_iter();
    records.map(|record| format!("{} {}", text(record.key), text(record.value))).collect()
}

#[test]
fn each_source_begins_where_its_own_policy_says() {
    let (cluster, folder) = (EmbeddedCluster::new(), tempfile::tempdir().unwrap());
    let topics = ["earliest", "latest", "hour"];
    for topic in topics.into_iter().chain(["out"]) {
        cluster.create_topic(topic, 1).unwrap();
    }
    for topic in topics {
        write(&cluster, topic, "long ago", Some(1));
        write(&cluster, topic, "before", None);
    }
    let hour = OffsetReset::ByDuration(Duration::from_secs(3_600));
    let policies = [("earliest", OffsetReset::Earliest), ("latest", OffsetReset::Latest), ("hour", hour)];
    let streams = copy(&policies, config(&cluster, folder.path()).offset_reset(OffsetReset::None));
    streams.start().unwrap();
    wait_for(&streams, State::Running);
    topics.into_iter().for_each(|topic| write(&cluster, topic, "after", None));
    let all = ["earliest long ago", "earliest before", "earliest after", "latest after", "hour before", "hour after"];
    wait_until("all is copied", || copied(&cluster).len() >= all.len());
    streams.close(PATIENCE).unwrap();
    assert_eq!(copied(&cluster), all.map(str::to_owned).into());
}

#[test]
fn without_a_policy_a_source_begins_only_where_something_is_committed() {
    let (cluster, folder) = (EmbeddedCluster::new(), tempfile::tempdir().unwrap());
    ["in", "out"].into_iter().for_each(|topic| cluster.create_topic(topic, 1).unwrap());
    write(&cluster, "in", "before", None);
    let refused = copy(&[("in", OffsetReset::None)], config(&cluster, folder.path()));
    refused.start().unwrap();
    wait_for(&refused, State::Error);
    let errors = refused.take_error().unwrap().report();
    refused.close(PATIENCE).unwrap();
    assert!(errors.contains("in[0] and its offset reset is none"), "{errors}");
    assert!(copied(&cluster).is_empty());

    let first = copy(&[("in", OffsetReset::Earliest)], config(&cluster, folder.path()));
    first.start().unwrap();
    wait_until("the record is copied", || copied(&cluster).len() == 1);
    first.close(PATIENCE).unwrap();
    write(&cluster, "in", "after", None);
    let second = copy(&[("in", OffsetReset::None)], config(&cluster, folder.path()));
    second.start().unwrap();
    wait_until("it goes on", || copied(&cluster).len() == 2);
    second.close(PATIENCE).unwrap();
    assert_eq!(cluster.read_committed("out").unwrap().len(), 2, "nothing twice");
}
