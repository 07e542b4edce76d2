//! Windows over restarts: what was emitted is not emitted again, and what is held back is not lost.

use std::time::Duration;

use kstreams::{
    BufferConfig, Config, Consumed, EmbeddedCluster, EmitStrategy, Grouped, I64, KafkaStreams, Materialized, Produced,
    StreamsBuilder, Suppressed, TimeWindowedSerde, TimeWindows, Topology, Utf8,
};

use crate::application::{config, wait_until};

const MINUTE: i64 = 60_000;

/// How results wait for the end of their window.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Final {
    EmittedOnClose,
    Suppressed,
}

fn counts_per_minute(how: Final) -> Topology {
    let builder = StreamsBuilder::new();
    let minute = Duration::from_millis(60_000);
    let windowed = builder
        .stream("clicks", Consumed::with(Utf8, Utf8))
        .group_by_key(Grouped::with(Utf8, Utf8))
        .windowed_by(TimeWindows::of_size_with_no_grace(minute));
    let rows = Materialized::named("per-minute").with_retention(Duration::from_secs(3_600));
    let counts = match how {
        Final::EmittedOnClose => windowed.emit_strategy(EmitStrategy::OnWindowClose).count(rows),
        Final::Suppressed => {
            windowed.count(rows).suppress(Suppressed::until_window_closes(BufferConfig::unbounded()).with_name("final"))
        }
    };
    counts.to_stream().to("counts", Produced::with(TimeWindowedSerde::new(Utf8, minute), I64));
    builder.build().unwrap()
}

fn start(how: Final, config: Config) -> KafkaStreams {
    let streams = KafkaStreams::new(counts_per_minute(how), config).unwrap();
    streams.start().unwrap();
    streams
}

fn click(cluster: &EmbeddedCluster, key: &str, at: i64) {
    cluster.produce("clicks", Some(key.as_bytes()), Some(b"click"), Some(at)).unwrap();
}

/// Key, minute and count of each result that readers see.
fn results(cluster: &EmbeddedCluster) -> Vec<(String, i64, i64)> {
    let long = |bytes: &[u8]| i64::from_be_bytes(bytes.try_into().unwrap());
    let result = |record: kstreams::EmbeddedRecord| {
        let (key, value) = (record.key.unwrap(), record.value.unwrap());
        let (key, start) = key.split_at(key.len() - 8);
        (String::from_utf8(key.to_vec()).unwrap(), long(start) / MINUTE, long(&value))
    };
    cluster.read_committed("counts").unwrap().into_iter().map(result).collect()
}

fn result(key: &str, minute: i64, count: i64) -> (String, i64, i64) {
    (key.to_owned(), minute, count)
}

#[test]
fn final_results_come_once_over_restarts_and_crashes() {
    for how in [Final::EmittedOnClose, Final::Suppressed] {
        for is_crash in [false, true] {
            let cluster = EmbeddedCluster::new();
            cluster.create_topic("clicks", 1).unwrap();
            cluster.create_topic("counts", 1).unwrap();
            let config = config(&cluster).cache_bytes(0).window_emit_interval(Duration::ZERO);

            let streams = start(how, config.clone());
            for (key, at) in [("a", 1), ("b", 2), ("a", 3), ("a", MINUTE + 1)] {
                click(&cluster, key, at);
            }
            let first = [result("a", 0, 2), result("b", 0, 1)];
            wait_until("the first minute has come", || results(&cluster).len() == 2);
            // A record that closes nothing: the window that is open now has to be found again.
            click(&cluster, "b", MINUTE + 2);
            wait_until("it is committed", || {
                let committed = cluster.committed_offset("word-count", "clicks", 0).unwrap();
                committed.is_some_and(|offset| offset >= 5)
            });
            if is_crash {
                streams.crash();
            } else {
                streams.close(Duration::from_secs(30)).unwrap();
            }

            let streams = start(how, config);
            click(&cluster, "b", MINUTE + 3);
            click(&cluster, "c", 3 * MINUTE);
            wait_until("the second minute has come", || results(&cluster).len() >= 4);
            streams.close(Duration::from_secs(30)).unwrap();
            let expected = [&first[..], &[result("a", 1, 1), result("b", 1, 2)]].concat();
            assert_eq!(results(&cluster), expected, "{how:?}, crash: {is_crash}");
        }
    }
}

#[test]
fn a_buffer_that_an_early_release_of_kafka_streams_has_logged_is_read() {
    let cluster = EmbeddedCluster::new();
    cluster.create_topic("clicks", 1).unwrap();
    cluster.create_topic("counts", 1).unwrap();
    let log = "word-count-final-store-changelog";
    cluster.create_topic(log, 1).unwrap();
    // As 2.1 wrote it: no header; the end of the window, no old row, and a count of 7.
    let key = [b"a", &[0; 8][..]].concat();
    let value = [&MINUTE.to_be_bytes()[..], &[0xff; 4], &[0, 0, 0, 8], &7_i64.to_be_bytes()].concat();
    cluster.produce(log, Some(&key), Some(&value), Some(1)).unwrap();

    let streams = start(Final::Suppressed, config(&cluster).cache_bytes(0));
    click(&cluster, "c", 3 * MINUTE);
    wait_until("the first minute has come", || !results(&cluster).is_empty());
    streams.close(Duration::from_secs(30)).unwrap();
    assert_eq!(results(&cluster), [result("a", 0, 7)]);
}
