//! Rows that live for some time only, over crashes: each deletion goes downstream once, and what is left is restored.

use std::time::Duration;

use kstreams::{
    Config, Consumed, EmbeddedCluster, KafkaStreams, Materialized, Produced, State, StreamsBuilder, Topology, Utf8,
};

use crate::application::{config, wait_until};

const TTL_MS: i64 = 35;

/// The changes of a table whose rows live for 35 ms.
fn changes(in_memory: bool) -> Topology {
    let builder = StreamsBuilder::new();
    let rows = Materialized::named("rows").with_ttl(Duration::from_millis(35));
    let rows = if in_memory { rows.in_memory() } else { rows };
    builder.table("rows", Consumed::with(Utf8, Utf8), rows).to_stream().to("changes", Produced::with(Utf8, Utf8));
    builder.build().unwrap()
}

fn topics() -> EmbeddedCluster {
    let cluster = EmbeddedCluster::new();
    ["rows", "changes"].iter().for_each(|topic| cluster.create_topic(topic, 1).unwrap());
    cluster
}

fn start(in_memory: bool, config: Config) -> KafkaStreams {
    let streams = KafkaStreams::new(changes(in_memory), config).unwrap();
    streams.start().unwrap();
    streams
}

fn write(cluster: &EmbeddedCluster, key: i64, at: i64) {
    cluster.produce("rows", Some(key.to_string().as_bytes()), Some(b"row"), Some(at)).unwrap();
}

/// What readers see of a topic: keys, and whether there is a row.
fn seen(cluster: &EmbeddedCluster, topic: &str) -> Vec<(i64, bool)> {
    let read = |record: kstreams::EmbeddedRecord| {
        let key = String::from_utf8(record.key.unwrap()).unwrap();
        (key.parse().unwrap(), record.value.is_some())
    };
    cluster.read_committed(topic).unwrap().into_iter().map(read).collect()
}

fn is_committed(cluster: &EmbeddedCluster, records: i64) -> bool {
    cluster.committed_offset("word-count", "rows", 0).unwrap().is_some_and(|offset| offset >= records)
}

/// Rows 0, 1, 2 … come 10 ms apart, so row n takes row n - 4 away.
fn expected(rows: i64) -> Vec<(i64, bool)> {
    (0..rows).flat_map(|row| [(row - TTL_MS / 10 - 1, false), (row, true)]).filter(|(row, _)| *row >= 0).collect()
}

#[test]
fn a_crash_at_any_step_of_a_commit_neither_forgets_nor_repeats_a_deletion() {
    for step in ["drained", "confirmed", "offsets-sent", "committed", "applied-one"] {
        for in_memory in [false, true] {
            let cluster = topics();
            let config = config(&cluster).cache_bytes(0).transaction_timeout(Duration::from_millis(500));
            let mut written = 0;
            let mut write_more = |rows: i64| {
                (written..written + rows).for_each(|row| write(&cluster, row, 1 + 10 * row));
                written += rows;
                written
            };
            let crashing = start(in_memory, config.clone().crash_at(&format!("{step}:2")));
            wait_until("it has crashed", || {
                crashing.state() == State::Error || {
                    write_more(1);
                    false
                }
            });
            drop(crashing);
            let streams = start(in_memory, config);
            let rows = write_more(7);
            wait_until("all is committed", || is_committed(&cluster, rows));
            streams.close(Duration::from_secs(30)).unwrap();
            assert_eq!(seen(&cluster, "changes"), expected(rows), "after a crash at {step}, in memory: {in_memory}");
            assert_eq!(seen(&cluster, "word-count-rows-changelog"), expected(rows), "its changelog says the same");
        }
    }
}

#[test]
fn what_one_record_makes_expire_is_more_than_one_commit_holds() {
    const ROWS: i64 = 3_000;
    for in_memory in [false, true] {
        let cluster = topics();
        let config = config(&cluster).cache_bytes(0).transaction_timeout(Duration::from_millis(500));
        (0..ROWS).for_each(|row| write(&cluster, row, 1 + row % 7));
        let streams = start(in_memory, config.clone());
        wait_until("all rows are there", || is_committed(&cluster, ROWS));
        streams.close(Duration::from_secs(30)).unwrap();

        // Each turn is a commit of its own; it stops in the middle, before the record is processed.
        let config = config.uncommitted_bytes(1);
        let crashing = start(in_memory, config.clone().crash_at("committed:3"));
        write(&cluster, ROWS, 1_000);
        wait_until("it has crashed", || crashing.state() == State::Error);
        drop(crashing);
        let gone = seen(&cluster, "changes").iter().filter(|(_, is_row)| !is_row).count();
        assert!(gone > 0 && gone < 3_000, "in the middle: {gone}");
        assert!(!is_committed(&cluster, ROWS + 1), "the record has to wait");

        let streams = start(in_memory, config);
        wait_until("all is committed", || is_committed(&cluster, ROWS + 1));
        streams.close(Duration::from_secs(30)).unwrap();
        let mut gone: Vec<i64> =
            seen(&cluster, "changes").into_iter().filter(|(_, is_row)| !is_row).map(|(row, _)| row).collect();
        assert!(gone.is_sorted_by_key(|row| row % 7), "in the order of their times, over the crash");
        gone.sort_unstable();
        assert_eq!(gone, (0..ROWS).collect::<Vec<_>>(), "each once");
        assert_eq!(seen(&cluster, "changes").last(), Some(&(ROWS, true)));
    }
}
