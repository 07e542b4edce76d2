//! What operators know of time after a restart, and what is committed for it.

use super::*;

/// Of the records above zero, those of the windows of 10 ms that are open for 5 ms more; and both inputs joined.
fn filtered_counts() -> StreamsBuilder {
    let builder = StreamsBuilder::new();
    let strings = || Consumed::with(Utf8, Utf8);
    let left = builder.stream("left", strings()).filter(|_, value| value != "0");
    left.clone()
        .group_by_key(Grouped::with(Utf8, Utf8))
        .windowed_by(TimeWindows::of_size_and_grace(ms(10), ms(5)))
        .count(Materialized::named("counts"))
        .to_stream_by(|key: &Windowed<String>, _| format!("{}@{}", key.key, key.window.start))
        .map_values(|count| count.map_or_else(String::new, |count: i64| count.to_string()))
        .to("out", Produced::with(Utf8, Utf8));
    let joined = StreamJoined::with(Utf8, Utf8, Utf8);
    left.outer_join_stream(
        builder.stream("right", strings()),
        |left, right| format!("{left:?}+{right:?}"),
        JoinWindows::of_time_difference_with_no_grace(ms(10)),
        joined,
    )
    .to("joined", Produced::with(Utf8, Utf8));
    builder
}

fn ms(millis: u64) -> std::time::Duration {
    std::time::Duration::from_millis(millis)
}

fn started(config: impl Fn(Config) -> Config) -> Driver {
    let topology = filtered_counts().build().unwrap();
    let config = config(Config::new("app", "embedded://").cache_bytes(0));
    Driver { inner: TopologyTestDriver::with_config(&topology, &config).unwrap(), seen: 0 }
}

/// Offset and decoded metadata of each input, by topic.
fn committed(driver: &Driver) -> Vec<(String, i64, String)> {
    use base64::Engine;
    let committed = driver.inner.committed().iter().map(|(input, committed)| {
        let metadata = base64::engine::general_purpose::STANDARD.decode(&committed.metadata).unwrap();
        (input.topic.to_string(), committed.offset, String::from_utf8_lossy(&metadata).into_owned())
    });
    committed.collect()
}

const ENTRY: &str = "kstreams/times/1 ";

#[test]
fn exactly_once_the_times_of_operators_are_committed_with_all_inputs_and_once() {
    let mut driver = started(Config::exactly_once);
    for (topic, at, offsets) in [("left", 100, [1, 0]), ("left", 120, [2, 0]), ("right", 130, [2, 1])] {
        driver.pipe(topic, "k", "v", at);
        let committed = committed(&driver);
        assert_eq!(committed.iter().map(|(.., offset, _)| *offset).collect::<Vec<_>>(), offsets);
        for (input, _, metadata) in &committed {
            assert_eq!(metadata.matches("kstreams/times").count(), 1, "{input}: {metadata}");
        }
        let entry = |metadata: &str| metadata[metadata.find(ENTRY).unwrap()..].to_owned();
        assert_eq!(entry(&committed[0].2), entry(&committed[1].2));
    }
    driver.inner.crash(Guarantee::ExactlyOnce).unwrap();
    driver.pipe("left", "k", "v", 140);
    assert!(committed(&driver).iter().all(|(.., metadata)| metadata.matches("kstreams/times").count() == 1));
}

#[test]
fn at_least_once_nothing_is_committed_that_java_does_not_know() {
    let mut driver = started(Config::at_least_once);
    driver.pipe("left", "k", "v", 100);
    let committed = committed(&driver);
    assert_eq!(committed.len(), 1, "of the other input nothing was taken");
    assert_eq!(committed[0].2.chars().count(), 9, "a time");
}

/// The window at 90 is open until the operator has seen 105: the record that it has not seen, at 107, does not count.
#[test]
fn exactly_once_a_crash_makes_no_record_late() {
    let mut driver = started(Config::exactly_once);
    driver.pipe("left", "k", "1", 100);
    driver.pipe("left", "k", "0", 107);
    driver.inner.crash(Guarantee::ExactlyOnce).unwrap();
    assert_eq!(driver.pipe("left", "k", "2", 95)[0], "out k@90 1 @95");
    assert_eq!(driver.inner.dropped_records(), 0);
}

/// At 119 the session at 107 has expired, one millisecond before it closes. Only the cache still has it.
#[test]
fn exactly_once_a_cache_shows_no_more_than_is_there_after_a_crash() {
    let run = |crashes: bool| {
        let builder = StreamsBuilder::new();
        builder
            .stream("in", text())
            .group_by_key(grouped())
            .windowed_by(SessionWindows::of_inactivity_gap_and_grace(ms(8), ms(4)))
            .count(Materialized::named("counts"))
            .to_stream_by(|key: &Windowed<String>, _| format!("{}@{}", key.key, key.window.start))
            .map_values(|count| count.map_or_else(String::new, |count: i64| count.to_string()))
            .to("out", to_text());
        let config = Config::new("app", "embedded://").cache_bytes(1_000_000).exactly_once();
        let inner = TopologyTestDriver::with_config(&builder.build().unwrap(), &config).unwrap();
        let mut driver = Driver { inner, seen: 0 };
        driver.hold("in", "a", Some("v"), 119);
        driver.hold("in", "b", Some("v"), 107);
        assert_eq!(driver.commit(), ["out a@119 1 @119", "out b@107 1 @107"]);
        if crashes {
            driver.inner.crash(Guarantee::ExactlyOnce).unwrap();
        }
        driver.hold("in", "b", Some("v"), 99);
        (driver.commit(), driver.inner.dropped_records())
    };
    assert_eq!(run(false), run(true));
    assert_eq!(run(true), (Vec::new(), 1));
}
