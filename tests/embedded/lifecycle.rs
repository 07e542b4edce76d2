//! Starting, running and closing.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use kstreams::{CloseOptions, EmbeddedCluster, ErrorKind, KafkaStreams, State, StreamsBuilder};

use crate::application::{
    cluster, config, counts, expected, last_counts, start, wait_for, wait_until, word_count, write,
};

#[test]
fn words_are_counted_exactly_once() {
    let cluster = cluster();
    write(&cluster, &["to be or not to be", "that is the question"]);
    let streams = start(config(&cluster));
    let all =
        expected(&[("to", 2), ("be", 2), ("or", 1), ("not", 1), ("that", 1), ("is", 1), ("the", 1), ("question", 1)]);
    wait_until("all words are counted", || last_counts(&cluster) == all);
    wait_for(&streams, State::Running);
    write(&cluster, &["be"]);
    wait_until("one more is counted", || last_counts(&cluster).get("be") == Some(&3));
    streams.close(CloseOptions::default()).unwrap();
    assert_eq!(streams.state(), State::NotRunning);
    assert_eq!(streams.processed_total(), 3 + 11, "lines and words");
    let closed: i64 = (0..4).filter_map(|p| cluster.committed_offset("word-count", "lines", p).unwrap()).sum();
    assert!(closed >= 3, "positions are committed, they are {closed}");
}

#[test]
fn words_are_counted_at_least_once() {
    let cluster = cluster();
    write(&cluster, &["a b a", "b a"]);
    let streams = start(config(&cluster).at_least_once().threads(2));
    wait_until("all words are counted", || last_counts(&cluster) == expected(&[("a", 3), ("b", 2)]));
    streams.close(Duration::from_secs(30)).unwrap();
    let changelog = cluster.records("word-count-word-counts-changelog").unwrap();
    assert!(!changelog.is_empty(), "the store is backed by its changelog");
}

#[test]
fn without_a_cache_every_update_is_forwarded() {
    let cluster = cluster();
    write(&cluster, &["x x x"]);
    let streams = start(config(&cluster).cache_bytes(0));
    wait_until("three counts are seen", || counts(&cluster).get("x").is_some_and(|counts| counts.len() == 3));
    assert_eq!(counts(&cluster)["x"], [1, 2, 3]);
    streams.close(Duration::from_secs(30)).unwrap();
}

#[test]
fn topics_that_are_made_while_it_starts_are_waited_for() {
    let cluster = EmbeddedCluster::new();
    let streams = KafkaStreams::new(word_count(), config(&cluster)).unwrap();
    std::thread::scope(|scope| {
        let starting = scope.spawn(|| streams.start());
        std::thread::park_timeout(Duration::from_millis(100));
        cluster.create_topic("lines", 1).unwrap();
        cluster.create_topic("counts", 1).unwrap();
        starting.join().unwrap().unwrap();
    });
    wait_for(&streams, State::Running);
    streams.close(CloseOptions::default()).unwrap();
}

#[test]
fn states_follow_each_other_as_in_java() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let sink = Arc::clone(&seen);
    let streams = KafkaStreams::new(word_count(), config(&cluster()))
        .unwrap()
        .on_state_change(move |new, old| sink.lock().unwrap().push((old, new)));
    assert_eq!(streams.state(), State::Created);
    streams.start().unwrap();
    wait_for(&streams, State::Running);
    assert_eq!(streams.start().unwrap_err().kind(), ErrorKind::Closed);
    streams.close(Duration::from_secs(30)).unwrap();
    let seen = seen.lock().unwrap();
    assert_eq!(seen.first(), Some(&(State::Created, State::Rebalancing)));
    assert!(seen.contains(&(State::Rebalancing, State::Running)));
    assert_eq!(seen.last(), Some(&(State::PendingShutdown, State::NotRunning)));
}

#[test]
fn a_client_that_was_never_started_can_be_closed() {
    let streams = KafkaStreams::new(word_count(), config(&cluster())).unwrap();
    streams.close(CloseOptions::default()).unwrap();
    assert_eq!(streams.state(), State::NotRunning);
}

#[test]
fn a_listener_may_close_the_client() {
    let cluster = cluster();
    let slot: Arc<Mutex<Option<Arc<KafkaStreams>>>> = Arc::default();
    let own = Arc::clone(&slot);
    let streams = KafkaStreams::new(word_count(), config(&cluster)).unwrap().on_state_change(move |new, _| {
        if new == State::Running {
            own.lock().unwrap().as_ref().unwrap().close(CloseOptions::default()).unwrap();
        }
    });
    let streams = Arc::new(streams);
    *slot.lock().unwrap() = Some(Arc::clone(&streams));
    streams.start().unwrap();
    wait_for(&streams, State::NotRunning);
    *slot.lock().unwrap() = None;
}

#[test]
fn a_client_runs_until_a_future_is_ready() {
    let cluster = cluster();
    write(&cluster, &["one"]);
    let streams = KafkaStreams::new(word_count(), config(&cluster)).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let counted = cluster.clone();
    let end = async move {
        while last_counts(&counted).is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    runtime.block_on(streams.run_until(end)).unwrap();
    assert_eq!(last_counts(&cluster), expected(&[("one", 1)]));
}

#[test]
fn an_empty_topology_is_refused() {
    let topology = StreamsBuilder::new().build().unwrap();
    let error = KafkaStreams::new(topology, config(&cluster())).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.to_string().contains("empty"), "{error}");
}
