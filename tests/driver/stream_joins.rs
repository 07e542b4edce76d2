//! Joins of two streams over a window of time: what Java's vectors do not say.

use std::time::Duration;

use crate::*;

fn within(difference_ms: u64, grace_ms: u64) -> JoinWindows {
    let (difference, grace) = (Duration::from_millis(difference_ms), Duration::from_millis(grace_ms));
    JoinWindows::of_time_difference_and_grace(difference, grace)
}

fn joined() -> StreamJoined<String, String, String> {
    StreamJoined::with(Utf8, Utf8, Utf8)
}

fn both(builder: &StreamsBuilder) -> (KStream<String, String>, KStream<String, String>) {
    (builder.stream("left", text()), builder.stream("right", text()))
}

fn or_dash(value: Option<&String>) -> &str {
    value.map_or("-", String::as_str)
}

#[test]
fn each_record_joins_all_of_the_other_side_that_are_near_enough() {
    let builder = StreamsBuilder::new();
    let (left, right) = both(&builder);
    left.join_stream_with_key(right, |k, l, r| format!("{k}:{l}{r}"), within(10, 0), joined()).to("out", to_text());
    let mut driver = Driver::new(builder);
    assert!(driver.pipe("left", "a", "1", 0).is_empty());
    assert!(driver.pipe("left", "a", "2", 5).is_empty());
    assert!(driver.pipe("right", "b", "x", 6).is_empty());
    assert_eq!(driver.pipe("right", "a", "x", 10), ["out a a:1x @10", "out a a:2x @10"]);
    assert_eq!(driver.pipe("right", "a", "y", 11), ["out a a:2y @11"]);
    assert_eq!(driver.pipe("left", "a", "3", 4), ["out a a:3x @10", "out a a:3y @11"]);
}

#[test]
fn a_key_whose_bytes_begin_with_another_ones_is_another_key() {
    let builder = StreamsBuilder::new();
    let (left, right) = both(&builder);
    left.join_stream(right, |l, r| format!("{l}{r}"), within(10, 0), joined()).to("out", to_text());
    let mut driver = Driver::new(builder);
    assert!(driver.pipe("left", "k\0\0\0\0\0\0\0\0", "long", 1).is_empty());
    assert!(driver.pipe("left", "k", "1", 1).is_empty());
    assert_eq!(driver.pipe("right", "k", "x", 1), ["out k 1x @1"]);
}

#[test]
fn what_nothing_joins_goes_on_alone_when_its_window_has_closed() {
    let builder = StreamsBuilder::new();
    let (left, right) = both(&builder);
    let joiner = |l: Option<&String>, r: Option<&String>| format!("{}{}", or_dash(l), or_dash(r));
    left.outer_join_stream(right, joiner, within(10, 5), joined()).to("out", to_text());
    let mut driver = Driver::new(builder);
    assert!(driver.pipe("left", "a", "1", 0).is_empty());
    assert!(driver.pipe("right", "b", "x", 0).is_empty());
    assert!(driver.pipe("left", "c", "2", 15).is_empty(), "the grace period is not over");
    assert_eq!(driver.pipe("left", "c", "3", 16), ["out b -x @0", "out a 1- @0"]);
    assert_eq!(driver.pipe("right", "c", "y", 20), ["out c 2y @20", "out c 3y @20"]);
    assert_eq!(driver.pipe("right", "a", "late", 4), ["out a 1late @4"], "it is still kept");
    assert_eq!(driver.pipe("right", "d", "late", 4), ["out d -late @4"], "its window has closed");
}

#[test]
fn only_the_left_side_of_a_left_join_goes_on_alone() {
    let builder = StreamsBuilder::new();
    let (left, right) = both(&builder);
    left.left_join_stream_with_key(right, |k, l, r| format!("{k}:{l}{}", or_dash(r)), within(10, 0), joined())
        .to("out", to_text());
    let mut driver = Driver::new(builder);
    driver.pipe("left", "a", "1", 0);
    driver.pipe("right", "b", "x", 0);
    assert_eq!(driver.pipe("right", "c", "y", 100), ["out a a:1- @0"]);
}

#[test]
fn the_wait_between_two_looks_is_by_the_clock() {
    let builder = StreamsBuilder::new();
    let (left, right) = both(&builder);
    left.left_join_stream(right, |l, r| format!("{l}{}", or_dash(r)), within(10, 0), joined()).to("out", to_text());
    let config = Config::new("app", "embedded://").outer_join_emit_interval(Duration::from_secs(1));
    let inner = TopologyTestDriver::with_config(&builder.build().unwrap(), &config).unwrap();
    let mut driver = Driver { inner, seen: 0 };
    assert!(driver.pipe("left", "a", "1", 0).is_empty());
    assert!(driver.pipe("left", "b", "1", 20).is_empty());
    driver.inner.advance_wall_clock(Duration::from_secs(1)).unwrap();
    assert_eq!(driver.pipe("left", "c", "1", 40), ["out a 1- @0", "out b 1- @20"]);
}

#[test]
fn a_value_need_not_be_clone() {
    #[derive(Debug)]
    struct Unique(String);
    let unique = || {
        serde_fn(
            |value: &Unique, bytes: &mut Vec<u8>| {
                bytes.extend_from_slice(value.0.as_bytes());
                Ok(())
            },
            |bytes: &[u8]| Ok(Unique(String::from_utf8_lossy(bytes).into_owned())),
        )
    };
    let builder = StreamsBuilder::new();
    let (left, right) = both(&builder);
    let (left, right) = (left.map_values(Unique), right.map_values(Unique));
    let joined = StreamJoined::with(Utf8, unique(), unique());
    left.join_stream(right, |l, r| format!("{}{}", l.0, r.0), within(10, 0), joined).to("out", to_text());
    let mut driver = Driver::new(builder);
    driver.pipe("left", "a", "1", 0);
    driver.pipe("left", "a", "2", 0);
    assert_eq!(driver.pipe("right", "a", "x", 0), ["out a 1x @0", "out a 2x @0"]);
}

#[test]
fn a_joined_stream_may_be_joined_again() {
    let builder = StreamsBuilder::new();
    let (left, right) = both(&builder);
    let third = builder.stream("third", text());
    left.join_stream(right, |l, r| format!("{l}{r}"), within(10, 0), joined().named("first").with_store_name("first"))
        .join_stream(third, |lr, t| format!("{lr}{t}"), within(10, 0), joined().named("next").with_store_name("next"))
        .to("out", to_text());
    let mut driver = Driver::new(builder);
    driver.pipe("left", "a", "1", 0);
    driver.pipe("third", "a", "z", 0);
    assert_eq!(driver.pipe("right", "a", "x", 0), ["out a 1xz @0"]);
}

#[test]
fn unnamed_joins_of_a_stream_with_a_new_key_share_a_topic() {
    let builder = StreamsBuilder::new();
    let (left, right) = both(&builder);
    let table = builder.table("table", text(), Materialized::default());
    let left = left.map(|k, v| (v, k));
    left.clone().join_stream(right, |l, r| format!("{l}{r}"), within(10, 0), joined()).to("out", to_text());
    left.join(&table, |l, t| format!("{l}{t}"), Joined::with(Utf8, Utf8)).to("looked-up", to_text());
    let mut driver = Driver::new(builder);
    driver.pipe("right", "a", "x", 0);
    driver.pipe("table", "a", "t", 0);
    assert_eq!(driver.pipe("left", "1", "a", 0), ["out a 1x @0", "looked-up a 1t @0"]);
    let topics = driver.inner.produced_topics().filter(|topic| topic.ends_with("-repartition"));
    assert_eq!(topics.count(), 1);
}

#[test]
fn one_store_serves_both_sides_of_an_optimised_join_with_itself() {
    let build = |optimization: Optimization| {
        let builder = StreamsBuilder::new();
        let stream = builder.stream("in", text());
        let windows = within(3, 1).after(Duration::from_millis(7));
        stream.clone().join_stream(stream, |l, r| format!("{l}{r}"), windows, joined()).to("out", to_text());
        let config = Config::new("app", "embedded://").optimization(optimization);
        let topology = builder.build_with(&config).unwrap();
        Driver { inner: TopologyTestDriver::with_config(&topology, &config).unwrap(), seen: 0 }
    };
    let mut plain = build(Optimization::none());
    let mut optimised = build(Optimization::none().single_store_self_join());
    let times = [5, 1, 5, 9, 12, 3, 30, 27, 26, 19, 24, 31];
    for (value, at) in ('a'..).zip(times) {
        let key = if at % 2 == 0 { "even" } else { "odd" };
        assert_eq!(plain.pipe("in", key, &value.to_string(), at), optimised.pipe("in", key, &value.to_string(), at));
    }
    let stores = |driver: &Driver| driver.inner.produced_topics().filter(|topic| topic.ends_with("changelog")).count();
    assert_eq!((stores(&plain), stores(&optimised)), (2, 1));
}

#[test]
fn a_store_that_does_not_fit_is_refused_with_the_one_that_would() {
    let builder = StreamsBuilder::new();
    let (left, right) = both(&builder);
    let store = Stores::window("short", Duration::from_millis(20), Duration::from_millis(20), true, Utf8, Utf8);
    let joined = joined().with_this_store(&store).with_other_store(&store);
    left.join_stream(right, |l, r| format!("{l}{r}"), within(10, 5), joined).to("out", to_text());
    let error = build_error(builder);
    assert!(error.contains("store short does not fit its join: make it with a retention of 25ms"), "{error}");
    assert!(error.contains("both sides of a join keep their records in short"), "{error}");
}

#[test]
fn streams_of_two_builders_are_not_joined() {
    let (one, other) = (StreamsBuilder::new(), StreamsBuilder::new());
    let right = other.stream("right", text());
    one.stream("left", text())
        .join_stream(right, |l, r| format!("{l}{r}"), within(10, 0), joined())
        .to("out", to_text());
    assert!(build_error(one).contains("begin both with one"));
}

#[test]
fn a_join_with_a_grace_period_needs_a_table_that_remembers_as_much() {
    let grace = Duration::from_secs(10);
    let error_with = |materialized: Materialized<String, String>| {
        let builder = StreamsBuilder::new();
        let table = builder.table("table", text(), materialized);
        let joined = Joined::with(Utf8, Utf8).named("late").with_grace_period(grace);
        builder.stream("left", text()).join(&table, |l, t| format!("{l}{t}"), joined).to("out", to_text());
        build_error(builder)
    };
    let error = error_with(Materialized::named("plain"));
    assert!(error.contains("late waits 10s for a table that does not remember what its rows were"), "{error}");
    let error = error_with(Materialized::named("short").as_versioned(Duration::from_secs(1)));
    assert!(error.contains("store short, which remembers only 1000 ms"), "{error}");
}

#[test]
fn a_record_with_a_null_key_cannot_wait_for_its_table() {
    let builder = StreamsBuilder::new();
    let versions = Materialized::named("versions").as_versioned(Duration::from_secs(60));
    let table = builder.table("table", Consumed::with(Nullable(Utf8), Utf8), versions);
    let joined = Joined::with(Nullable(Utf8), Utf8).with_grace_period(Duration::from_secs(1));
    builder
        .stream("left", Consumed::with(Nullable(Utf8), Utf8))
        .left_join(&table, |l, _| l, joined)
        .to("out", Produced::with(Nullable(Utf8), Utf8));
    let mut driver = Driver::new(builder);
    let error = driver.pipe_raw("left", None, Some(b"v"), 1).unwrap_err();
    assert!(error.report().contains("cannot wait for its table"), "{}", error.report());
}

#[test]
fn a_record_that_waited_is_in_hand_again_when_it_is_joined() {
    struct Places;
    impl Processor<String, String> for Places {
        type KeyOut = String;
        type ValueOut = String;

        fn process(
            &mut self,
            record: Record<String, String>,
            ctx: &mut ProcessorContext<'_, String, String>,
        ) -> Result<()> {
            let at = ctx.record_metadata().map(|at| format!("{}[{}]@{}", at.topic, at.partition, at.offset));
            ctx.forward(record.with_value(at.unwrap_or_default()))
        }
    }
    let builder = StreamsBuilder::new();
    let versions = Materialized::named("versions").as_versioned(Duration::from_secs(60));
    let table = builder.table("table", text(), versions);
    let joined = Joined::with(Utf8, Utf8).with_grace_period(Duration::from_millis(10));
    builder
        .stream("left", text())
        .left_join(&table, |l, _| l, joined)
        .process(|_| Ok(Places), Processed::default())
        .to("out", to_text());
    let mut driver = Driver::new(builder);
    assert!(driver.pipe("left", "a", "1", 5).is_empty());
    assert!(driver.pipe("left", "b", "2", 0).is_empty());
    assert_eq!(driver.pipe("left", "c", "3", 20), ["out b left[0]@1 @0", "out a left[0]@0 @5"]);
}

/// Topic, key, value, timestamp.
type Written = (String, Option<Vec<u8>>, Option<Vec<u8>>, i64);

/// Everything that is written, to changelogs too.
fn written(joined: StreamJoined<String, String, String>) -> Vec<Written> {
    let builder = StreamsBuilder::new();
    let (left, right) = both(&builder);
    let joiner = |l: Option<&String>, r: Option<&String>| format!("{}{}", or_dash(l), or_dash(r));
    left.outer_join_stream(right, joiner, within(10, 5), joined).to("out", to_text());
    let mut driver = Driver::new(builder);
    let keys = ["a", "b", "aa", "a", "b", "a"];
    for (number, key) in (0_i64..).zip(keys.iter().cycle().take(60)) {
        // Back and forth, and sometimes too late.
        let topic = if number % 3 == 0 { "right" } else { "left" };
        let at = number + (number * 7) % 13 - 40 * i64::from(number == 33);
        driver.pipe(topic, key, &number.to_string(), at.max(0));
    }
    let produced = driver.inner.produced().iter();
    produced.map(|r| (r.topic.to_string(), r.key.clone(), r.value.clone(), r.timestamp)).collect()
}

#[test]
fn stores_in_memory_of_ones_own_join_as_those_of_the_join() {
    let store = |name: &str| {
        let (retention, size) = (Duration::from_millis(25), Duration::from_millis(20));
        Stores::in_memory_window(name, retention, size, true, Utf8, Utf8)
    };
    // By the names that the join gives to its own.
    let own = joined()
        .with_this_store(&store("j-outer-this-join-store"))
        .with_other_store(&store("j-outer-other-join-store"))
        .with_store_name("j");
    let (own, joins) = (written(own), written(joined().with_store_name("j").in_memory()));
    assert!(joins.iter().filter(|(topic, ..)| topic == "out").count() > 30);
    assert!(joins.iter().any(|(topic, ..)| topic == "app-j-outer-this-join-store-changelog"), "{joins:?}");
    // The store of what nothing has joined is called after the first of one's own.
    let alike = |written: Vec<Written>| written.into_iter().filter(|(topic, ..)| !topic.contains("shared")).collect();
    let (own, joins): (Vec<_>, Vec<_>) = (alike(own), alike(joins));
    assert_eq!(own, joins);
}
