//! A word count, what it is fed with, and how to wait for it.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use kstreams::{
    Config, Consumed, EmbeddedCluster, Grouped, I64, KafkaStreams, Materialized, Produced, State, StreamsBuilder,
    Topology, Utf8,
};
use tempfile::TempDir;

/// How long a test waits for what should happen: long, since it only ends the wait for what never does.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) const PARTITIONS: i32 = 4;

pub(crate) fn cluster() -> EmbeddedCluster {
    let cluster = EmbeddedCluster::new();
    cluster.create_topic("lines", PARTITIONS).unwrap();
    cluster.create_topic("counts", PARTITIONS).unwrap();
    cluster
}

pub(crate) fn word_count() -> Topology {
    let builder = StreamsBuilder::new();
    builder
        .stream("lines", Consumed::with(Utf8, Utf8))
        .flat_map_values(|line| line.split_whitespace().map(str::to_lowercase).collect::<Vec<_>>())
        .group_by(|_line, word| word.clone(), Grouped::with(Utf8, Utf8).named("by-word"))
        .count(Materialized::named("word-counts"))
        .to_stream()
        .to("counts", Produced::with(Utf8, I64));
    builder.build().unwrap()
}

thread_local! {
    /// Those of the test that runs on this thread: they go when it ends.
    static FOLDERS: RefCell<Vec<TempDir>> = const { RefCell::new(Vec::new()) };
}

/// A state directory that no other instance has, for as long as the test runs.
fn own_folder() -> PathBuf {
    let folder = TempDir::new().unwrap();
    let path = folder.path().to_owned();
    FOLDERS.with_borrow_mut(|folders| folders.push(folder));
    path
}

/// Exactly once, committing often, on a cluster. Each call is another instance; a clone is the same one again.
pub(crate) fn config(cluster: &EmbeddedCluster) -> Config {
    Config::new("word-count", "embedded://")
        .cluster(cluster)
        .exactly_once()
        .commit_interval(Duration::from_millis(20))
        .transaction_timeout(Duration::from_secs(2))
        .state_dir(own_folder())
}

pub(crate) fn start(config: Config) -> KafkaStreams {
    let streams = KafkaStreams::new(word_count(), config).unwrap();
    streams.start().unwrap();
    streams
}

#[expect(clippy::disallowed_methods, reason = "a test waits for threads")]
pub(crate) fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < PATIENCE, "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

pub(crate) fn wait_for(streams: &KafkaStreams, state: State) {
    wait_until(&format!("the state is {state}, it is {}", streams.state()), || streams.state() == state);
}

/// Writes lines; each line has a key of its own, so that they are spread.
pub(crate) fn write(cluster: &EmbeddedCluster, lines: &[&str]) {
    for (number, line) in lines.iter().enumerate() {
        let key = format!("line-{number}");
        cluster.produce("lines", Some(key.as_bytes()), Some(line.as_bytes()), Some(1_000 + number as i64)).unwrap();
    }
}

/// Every count that readers see, by word, in order.
pub(crate) fn counts(cluster: &EmbeddedCluster) -> BTreeMap<String, Vec<i64>> {
    let mut counts: BTreeMap<String, Vec<i64>> = BTreeMap::new();
    for record in cluster.read_committed("counts").unwrap() {
        let word = String::from_utf8(record.key.unwrap()).unwrap();
        let count = i64::from_be_bytes(record.value.unwrap().try_into().unwrap());
        counts.entry(word).or_default().push(count);
    }
    counts
}

pub(crate) fn last_counts(cluster: &EmbeddedCluster) -> BTreeMap<String, i64> {
    counts(cluster).into_iter().map(|(word, counts)| (word, *counts.last().unwrap())).collect()
}

pub(crate) fn expected(pairs: &[(&str, i64)]) -> BTreeMap<String, i64> {
    pairs.iter().map(|(word, count)| ((*word).to_owned(), *count)).collect()
}

/// 1, 2, 3, …: nothing lost, nothing twice. Holds with caches off.
pub(crate) fn assert_gapless(cluster: &EmbeddedCluster) {
    for (word, counts) in counts(cluster) {
        let steps: Vec<i64> = (1..=counts.len() as i64).collect();
        assert_eq!(counts, steps, "counts of {word}");
    }
}
