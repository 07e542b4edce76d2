//! Topics that are not what they were when the application started.

use std::time::Duration;

use kstreams::{Config, EmbeddedCluster, ErrorKind, KafkaStreams, State, TopicCreation};

use crate::application::{cluster, config, last_counts, start, wait_for, wait_until, word_count, write};

fn watchful(cluster: &EmbeddedCluster) -> Config {
    config(cluster).metadata_max_age(Duration::from_millis(100))
}

/// An application that has counted something, and whose topics then change.
fn after(change: impl FnOnce(&EmbeddedCluster)) -> String {
    let cluster = cluster();
    write(&cluster, &["a"]);
    let streams = start(watchful(&cluster));
    wait_for(&streams, State::Running);
    wait_until("it is counted", || last_counts(&cluster).len() == 1);
    change(&cluster);
    wait_for(&streams, State::Error);
    let error = streams.take_error().unwrap();
    assert_eq!(error.kind(), ErrorKind::Invalid, "{}", error.report());
    error.report()
}

#[test]
fn another_number_of_partitions_ends_it() {
    let message = after(|cluster| {
        cluster.delete_topic("lines").unwrap();
        cluster.create_topic("lines", 6).unwrap();
    });
    assert!(message.contains("lines has 6 partitions, and had 4"), "{message}");
}

#[test]
fn an_input_that_was_deleted_ends_it() {
    let message = after(|cluster| cluster.delete_topic("lines").unwrap());
    assert!(message.contains("lines was deleted"), "{message}");
}

#[test]
fn a_changelog_that_was_deleted_ends_it_with_the_remedy() {
    let changelog = "word-count-word-counts-changelog";
    let message = after(|cluster| cluster.delete_topic(changelog).unwrap());
    assert!(message.contains(changelog) && message.contains("reset the application"), "{message}");
}

#[test]
fn a_repartition_topic_that_was_made_again_ends_it_with_the_remedy() {
    let topic = "word-count-by-word-repartition";
    let message = after(|cluster| {
        cluster.delete_topic(topic).unwrap();
        cluster.create_topic(topic, 4).unwrap();
    });
    assert!(message.contains(topic) && message.contains("made again"), "{message}");
}

#[test]
fn strict_it_makes_no_topic_and_says_which_ones_it_needs() {
    let cluster = cluster();
    let strict = || KafkaStreams::new(word_count(), config(&cluster).create_topics(TopicCreation::Nothing)).unwrap();
    let message = strict().start().unwrap_err().to_string();
    assert!(message.contains("word-count-word-counts-changelog with 4 partitions"), "{message}");
    for topic in ["word-count-by-word-repartition", "word-count-word-counts-changelog"] {
        cluster.create_topic(topic, 4).unwrap();
    }
    let streams = strict();
    streams.start().unwrap();
    wait_for(&streams, State::Running);
    streams.close(Duration::from_secs(30)).unwrap();
}
