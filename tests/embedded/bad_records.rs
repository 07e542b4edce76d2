//! Records that cannot be taken as they are: the message says which one and what to do, and once that is done nothing
//! is missing.

use kstreams::{
    Config, Consumed, EmbeddedCluster, ErrorHandler, ErrorKind, Grouped, I64, Joined, KafkaStreams, Materialized,
    Nullable, Produced, State, StreamsBuilder, TimestampExtractor, Topology, Utf8,
};

use crate::application::{PATIENCE, cluster, config, counts, last_counts, wait_for, wait_until};

/// Starts what cannot go on, and gives the report of its error. Nothing of the failed transaction is seen.
fn failure(cluster: &EmbeddedCluster, topology: Topology, config: Config) -> String {
    let streams = KafkaStreams::new(topology, config).unwrap();
    streams.start().unwrap();
    wait_for(&streams, State::Error);
    assert!(cluster.read_committed("counts").unwrap().is_empty());
    streams.take_error().unwrap().report()
}

/// Runs until so many counts are there.
fn run(cluster: &EmbeddedCluster, topology: Topology, config: Config, count: usize) {
    let streams = KafkaStreams::new(topology, config).unwrap();
    streams.start().unwrap();
    wait_until("all is there", || cluster.read_committed("counts").unwrap().len() >= count);
    wait_for(&streams, State::Running);
    streams.close(PATIENCE).unwrap();
    assert_eq!(cluster.read_committed("counts").unwrap().len(), count);
}

fn copy(extractor: Option<TimestampExtractor<String, i64>>) -> Topology {
    let builder = StreamsBuilder::new();
    let mut consumed = Consumed::with(Utf8, I64);
    if let Some(extractor) = extractor {
        consumed = consumed.with_timestamp_extractor(extractor);
    }
    builder.stream("lines", consumed).to("counts", Produced::with(Utf8, I64));
    builder.build().unwrap()
}

fn write(cluster: &EmbeddedCluster, key: Option<&[u8]>, value: Option<&[u8]>, timestamp: i64) -> String {
    let (partition, offset) = cluster.produce("lines", key, value, Some(timestamp)).unwrap();
    format!("lines[{partition}]@{offset}")
}

/// Number 1, the bad record and number 3, all in one partition.
fn around(cluster: &EmbeddedCluster, bad: impl FnOnce() -> String) -> String {
    write(cluster, Some(b"k"), Some(&1_i64.to_be_bytes()), 1);
    let bad = bad();
    write(cluster, Some(b"k"), Some(&3_i64.to_be_bytes()), 3);
    bad
}

#[test]
fn an_undecodable_key_or_value_waits_for_a_decision() {
    let no_key: (&[u8], &[u8]) = (&[0xff, 0xfe], &2_i64.to_be_bytes());
    for (key, value) in [no_key, (b"k", b"no number")] {
        let (cluster, topic) = (cluster(), "dead");
        cluster.create_topic(topic, 1).unwrap();
        let place = around(&cluster, || write(&cluster, Some(key), Some(value), 2));
        let config = config(&cluster);
        let report = failure(&cluster, copy(None), config.clone());
        assert!(report.contains(&place) && report.contains("Config::deserialization_handler"), "{report}");
        let deciding = config.deserialization_handler(ErrorHandler::log_and_continue()).dead_letter_topic(topic);
        run(&cluster, copy(None), deciding, 2);
        let dead = cluster.read_committed(topic).unwrap();
        assert_eq!(dead.len(), 1, "once, whatever was tried before");
        assert_eq!((dead[0].key.as_deref(), dead[0].value.as_deref()), (Some(key), Some(value)));
    }
}

#[test]
fn a_negative_timestamp_waits_for_another_extractor() {
    let cluster = cluster();
    let place = around(&cluster, || write(&cluster, Some(b"k"), Some(&2_i64.to_be_bytes()), -1));
    let config = config(&cluster);
    let report = failure(&cluster, copy(None), config.clone());
    assert!(report.contains(&place) && report.contains("timestamp -1"), "{report}");
    assert!(report.contains("Consumed::with_timestamp_extractor"), "{report}");
    run(&cluster, copy(Some(TimestampExtractor::wall_clock())), config, 3);
    assert_eq!(counts(&cluster)["k"], [1, 2, 3]);
}

#[test]
fn a_negative_timestamp_takes_the_time_of_its_partition_or_is_skipped() {
    let extractors = [
        (TimestampExtractor::use_partition_time_on_invalid as fn() -> _, vec![1, 2, 3]),
        (TimestampExtractor::log_and_skip_on_invalid, vec![1, 3]),
    ];
    for (extractor, expected) in extractors {
        let cluster = cluster();
        around(&cluster, || write(&cluster, Some(b"k"), Some(&2_i64.to_be_bytes()), -1));
        run(&cluster, copy(Some(extractor())), config(&cluster), expected.len());
        assert_eq!(counts(&cluster)["k"], expected);
    }
}

/// A type without a place for null: the record is named, and the remedy is another type or a decision.
#[test]
fn a_null_key_waits_where_the_type_has_no_place_for_it() {
    let by_group = || {
        let builder = StreamsBuilder::new();
        let grouped = builder.stream("lines", Consumed::with(Utf8, I64)).group_by_key(Grouped::with(Utf8, I64));
        grouped.count(Materialized::named("grouped")).to_stream().to("counts", Produced::with(Utf8, I64));
        builder.build().unwrap()
    };
    let by_table = || {
        let builder = StreamsBuilder::new();
        let table = builder.table("lines", Consumed::with(Utf8, I64), Materialized::named("table"));
        table.to_stream().to("counts", Produced::with(Utf8, I64));
        builder.build().unwrap()
    };
    let by_join = || {
        let builder = StreamsBuilder::new();
        let table = builder.table("table", Consumed::with(Utf8, I64), Materialized::named("joined"));
        let stream = builder.stream("lines", Consumed::with(Utf8, I64));
        let joined = stream.left_join(&table, |left, _| left, Joined::with(Utf8, I64));
        joined.to("counts", Produced::with(Utf8, I64));
        builder.build().unwrap()
    };
    for topology in [&by_group as &dyn Fn() -> Topology, &by_table, &by_join] {
        let cluster = cluster();
        cluster.create_topic("dead", 1).unwrap();
        cluster.create_topic("table", crate::application::PARTITIONS).unwrap();
        let place = around(&cluster, || write(&cluster, None, Some(&2_i64.to_be_bytes()), 2));
        let config = config(&cluster).cache_bytes(0);
        let report = failure(&cluster, topology(), config.clone());
        assert!(report.contains(&place) && report.contains("key") && report.contains("null"), "{report}");
        assert!(report.contains("Config::deserialization_handler") && report.contains("Nullable"), "{report}");
        let deciding = config.deserialization_handler(ErrorHandler::log_and_continue()).dead_letter_topic("dead");
        run(&cluster, topology(), deciding, 2);
        let dead = cluster.read_committed("dead").unwrap();
        assert_eq!(dead.iter().map(|record| record.key.is_none()).collect::<Vec<_>>(), [true]);
    }
}

/// As in Java: dropped, counted, and told with its place.
#[test]
fn a_null_key_is_dropped_by_an_aggregation_whose_type_has_a_place_for_it() {
    let cluster = cluster();
    around(&cluster, || write(&cluster, None, Some(&2_i64.to_be_bytes()), 2));
    let builder = StreamsBuilder::new();
    builder
        .stream("lines", Consumed::with(Nullable(Utf8), I64))
        .group_by_key(Grouped::with(Nullable(Utf8), I64))
        .count(Materialized::named("grouped"))
        .to_stream()
        .to("counts", Produced::with(Nullable(Utf8), I64));
    run(&cluster, builder.build().unwrap(), config(&cluster).cache_bytes(0), 2);
    assert_eq!(counts(&cluster)["k"], [1, 2]);
}

#[test]
fn a_record_on_which_a_closure_panics_waits_for_a_better_closure() {
    let numbers = |fails: bool| {
        let builder = StreamsBuilder::new();
        let stream = builder.stream("lines", Consumed::with(Utf8, I64));
        let mapped = stream.named("careless").map_values(move |number| {
            assert!(!(fails && number == 2), "two is one too many");
            number
        });
        mapped.to("counts", Produced::with(Utf8, I64));
        builder.build().unwrap()
    };
    let cluster = cluster();
    let place = around(&cluster, || write(&cluster, Some(b"k"), Some(&2_i64.to_be_bytes()), 2));
    let config = config(&cluster);
    let report = failure(&cluster, numbers(true), config.clone());
    assert!(report.contains("two is one too many") && report.contains("careless"), "{report}");
    assert!(report.contains(&place) && report.contains("Config::processing_handler"), "{report}");
    run(&cluster, numbers(false), config, 3);
    assert_eq!(counts(&cluster)["k"], [1, 2, 3]);
}

#[test]
fn what_a_missing_topic_kept_from_running_runs_when_it_is_there() {
    let cluster = EmbeddedCluster::new();
    cluster.create_topic("counts", 1).unwrap();
    let config = config(&cluster);
    let error = KafkaStreams::new(copy(None), config.clone()).unwrap().start().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.to_string().contains("source topic lines does not exist: create it"), "{error}");
    cluster.create_topic("lines", 1).unwrap();
    write(&cluster, Some(b"k"), Some(&7_i64.to_be_bytes()), 1);
    run(&cluster, copy(None), config, 1);
    assert_eq!(last_counts(&cluster)["k"], 7);
}
