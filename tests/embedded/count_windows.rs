//! Windows by number over crashes: each record keeps its number, and each window is emitted once.

use std::time::Duration;

use kstreams::{
    Consumed, CountWindows, CountedSerde, EmitStrategy, Grouped, I64, KafkaStreams, Materialized, Produced, Serde,
    StreamsBuilder, Topology, Utf8,
};

use crate::application::{config, wait_until};

/// The sums of each three numbers of a key.
fn sums() -> Topology {
    let builder = StreamsBuilder::new();
    builder
        .stream("numbers", Consumed::with(Utf8, I64))
        .group_by_key(Grouped::with(Utf8, I64))
        .windowed_by(CountWindows::tumbling(3))
        .emit_strategy(EmitStrategy::OnWindowClose)
        .reduce(|sum, number| sum + number, Materialized::named("sums").in_memory())
        .to_stream()
        .to("sums", Produced::with(CountedSerde::new(Utf8, 3), I64));
    builder.build().unwrap()
}

#[test]
fn a_window_that_spans_a_crash_is_emitted_once_and_whole() {
    for step in ["drained", "confirmed", "offsets-sent", "committed", "applied-one"] {
        let cluster = kstreams::EmbeddedCluster::new();
        ["numbers", "sums"].iter().for_each(|topic| cluster.create_topic(topic, 1).unwrap());
        let config = config(&cluster).cache_bytes(0).transaction_timeout(Duration::from_millis(500));
        let write = |number: i64| {
            cluster.produce("numbers", Some(b"k"), Some(&number.to_be_bytes()), Some(number)).unwrap();
        };
        let sums_seen = || -> Vec<(i64, i64)> {
            let read = |record: kstreams::EmbeddedRecord| {
                let key = CountedSerde::new(Utf8, 3).deserialize(&record.key.unwrap()).unwrap();
                (key.first, I64.deserialize(&record.value.unwrap()).unwrap())
            };
            cluster.read_committed("sums").unwrap().into_iter().map(read).collect()
        };
        let mut written = 0;
        let crashing = KafkaStreams::new(sums(), config.clone().crash_at(&format!("{step}:2"))).unwrap();
        crashing.start().unwrap();
        wait_until("it has crashed", || {
            crashing.state() == kstreams::State::Error || {
                write(written);
                written += 1;
                false
            }
        });
        drop(crashing);
        let streams = KafkaStreams::new(sums(), config).unwrap();
        streams.start().unwrap();
        (written..written + 4).for_each(write);
        written += 4;
        let full = written / 3;
        wait_until("every full window has come", || sums_seen().len() >= usize::try_from(full).unwrap());
        streams.close(Duration::from_secs(30)).unwrap();
        let expected: Vec<(i64, i64)> = (0..full).map(|window| (3 * window, 9 * window + 3)).collect();
        assert_eq!(sums_seen(), expected, "after a crash at {step}");
    }
}
