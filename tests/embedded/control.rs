//! What the user of a running client can do with it.

use std::time::Duration;

use kstreams::{KafkaStreams, State};

use crate::application::{cluster, config, expected, last_counts, start, wait_for, wait_until, word_count, write};

#[test]
fn a_paused_client_processes_nothing_and_keeps_its_place() {
    let cluster = cluster();
    write(&cluster, &["a b"]);
    let streams = KafkaStreams::new(word_count(), config(&cluster)).unwrap();
    streams.pause();
    streams.start().unwrap();
    wait_until("it has been given its tasks", || {
        streams.metadata_for_local_threads().iter().any(|thread| thread.active_tasks.len() == 8)
    });
    assert!(streams.is_paused());
    assert_eq!(streams.state(), State::Rebalancing, "nothing is restored");
    assert_eq!(streams.processed_total(), 0);
    streams.resume();
    wait_until("the first words are counted", || last_counts(&cluster) == expected(&[("a", 1), ("b", 1)]));

    streams.pause();
    // Another instance gets its share all the same: whoever is paused hears of it.
    let other = start(config(&cluster));
    wait_for(&other, State::Running);
    wait_for(&streams, State::Running);
    streams.resume();
    write(&cluster, &["a", "a", "a", "a"]);
    wait_until("all are counted", || last_counts(&cluster).get("a") == Some(&5));
    streams.close(Duration::from_secs(30)).unwrap();
    other.close(Duration::from_secs(30)).unwrap();
}
