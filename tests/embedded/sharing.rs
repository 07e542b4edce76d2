//! Several instances of one application.

use std::time::Duration;

use kstreams::State;

use crate::application::{assert_gapless, cluster, config, counts, start, wait_for, wait_until, write};

fn seen(cluster: &kstreams::EmbeddedCluster, word: &str) -> usize {
    counts(cluster).get(word).map_or(0, Vec::len)
}

#[test]
fn instances_share_the_partitions_and_take_over_from_each_other() {
    let cluster = cluster();
    let lines: Vec<String> = (0..50).map(|number| format!("all word-{}", number % 7)).collect();
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    write(&cluster, &lines);
    let first = start(config(&cluster).cache_bytes(0));
    wait_until("the first one has counted", || seen(&cluster, "all") == 50);
    let second = start(config(&cluster).cache_bytes(0));
    wait_for(&second, State::Running);
    wait_for(&first, State::Running);
    write(&cluster, &lines);
    wait_until("both have counted", || seen(&cluster, "all") == 100);
    wait_until("the second one works too", || second.processed_total() > 0);
    first.close(Duration::from_secs(30)).unwrap();
    write(&cluster, &lines);
    wait_until("the second one has taken over", || seen(&cluster, "all") == 150);
    second.close(Duration::from_secs(30)).unwrap();
    assert_gapless(&cluster);
}

#[test]
fn a_clean_restart_goes_on_where_it_was() {
    let cluster = cluster();
    let config = config(&cluster).cache_bytes(0);
    for round in 1..=3 {
        write(&cluster, &["again and again"]);
        let streams = start(config.clone());
        wait_until("the round is counted", || seen(&cluster, "again") == 2 * round);
        streams.close(Duration::from_secs(30)).unwrap();
    }
    assert_gapless(&cluster);
}
