//! A cached table forwards the last update of each key when the task commits, or when the cache is full.

use crate::*;

const CACHE: usize = 1_000_000;

fn counting(materialized: Materialized<String, i64>) -> StreamsBuilder {
    let builder = StreamsBuilder::new();
    builder
        .stream("in", text())
        .group_by_key(grouped())
        .count(materialized)
        .to_stream()
        .to("out", Produced::with(Utf8, I64));
    builder
}

#[test]
fn the_last_update_of_each_key_is_forwarded_in_the_order_of_last_updates() {
    let mut driver = Driver::with_cache(counting(Materialized::named("st")), CACHE);
    for (key, at) in [("a", 1), ("b", 2), ("a", 3)] {
        assert!(driver.hold("in", key, Some("v"), at).is_empty());
    }
    assert_eq!(driver.commit(), ["out b 1 @2", "out a 2 @3"]);
    assert!(driver.commit().is_empty());
    let logged: Vec<_> = driver.inner.produced().iter().filter(|r| &*r.topic == "app-st-changelog").collect();
    assert_eq!(logged.len(), 2);
}

#[test]
fn a_table_without_caching_forwards_every_update() {
    let mut driver = Driver::with_cache(counting(Materialized::named("st").without_caching()), CACHE);
    assert_eq!(driver.hold("in", "a", Some("v"), 1), ["out a 1 @1"]);
    assert_eq!(driver.hold("in", "a", Some("v"), 2), ["out a 2 @2"]);
}

#[test]
fn a_cache_too_small_for_one_row_holds_nothing_back() {
    let mut driver = Driver::with_cache(counting(Materialized::named("st")), 1);
    assert_eq!(driver.hold("in", "a", Some("v"), 1), ["out a 1 @1"]);
    assert_eq!(driver.hold("in", "a", Some("v"), 2), ["out a 2 @2"]);
}

#[test]
fn a_forwarded_update_has_headers_and_place_of_its_last_record() {
    struct Place;
    impl Processor<String, Option<i64>> for Place {
        type KeyOut = String;
        type ValueOut = String;
        fn process(
            &mut self,
            record: Record<String, Option<i64>>,
            ctx: &mut ProcessorContext<'_, String, String>,
        ) -> Result<()> {
            let place = ctx.record_metadata().map_or_else(String::new, |at| format!("{}@{}", at.topic, at.offset));
            ctx.forward(record.with_value(place))
        }
    }
    let builder = StreamsBuilder::new();
    builder
        .stream("in", text())
        .group_by_key(grouped())
        .count(Materialized::named("st"))
        .to_stream()
        .process(|_| Ok(Place), Processed::default())
        .to("out", to_text());
    let mut driver = Driver::with_cache(builder, CACHE);
    let header = |value: &str| {
        let mut headers = Headers::new();
        headers.add("h", value);
        headers
    };
    for (key, value) in [("a", "0"), ("b", "1"), ("a", "2")] {
        driver.inner.enqueue("in", Some(key.as_bytes()), Some(b"v"), 5, header(value)).unwrap();
    }
    driver.inner.process_without_commit().unwrap();
    assert_eq!(driver.commit(), ["out b in@1 @5", "out a in@2 @5"]);
    let headers: Vec<_> =
        driver.inner.produced().iter().filter(|r| &*r.topic == "out").map(|r| r.headers.clone()).collect();
    assert_eq!(headers, [header("1"), header("2")]);
}

#[test]
fn a_row_put_and_deleted_between_two_commits_leaves_no_trace() {
    let builder = StreamsBuilder::new();
    builder.table("in", text(), Materialized::named("ts")).to_stream().to("out", to_text());
    let mut driver = Driver::with_cache(builder, CACHE);
    driver.hold("in", "a", Some("1"), 1);
    driver.hold("in", "a", None, 2);
    driver.hold("in", "b", Some("1"), 3);
    assert_eq!(driver.commit(), ["out b 1 @3"]);
    driver.hold("in", "b", None, 4);
    assert_eq!(driver.commit(), ["out b - @4"]);
}

#[test]
fn a_cached_table_behind_a_cached_table_gets_its_updates_in_the_same_commit() {
    let builder = StreamsBuilder::new();
    builder
        .table("in", text(), Materialized::named("ts"))
        .map_values_materialized(|v| v.to_uppercase(), Materialized::named("ms").with_value_serde(Utf8))
        .filter_materialized(|_, v| v != "X", Materialized::named("fs"))
        .to_stream()
        .to("out", to_text());
    let mut driver = Driver::with_cache(builder, CACHE);
    driver.hold("in", "a", Some("x"), 1);
    driver.hold("in", "a", Some("y"), 2);
    assert_eq!(driver.commit(), ["out a Y @2"]);
    driver.hold("in", "a", Some("x"), 3);
    assert_eq!(driver.commit(), ["out a - @3"]);
}

#[test]
fn old_rows_come_from_below_the_cache() {
    let builder = StreamsBuilder::new();
    builder
        .table("in", text(), Materialized::named("ts"))
        .group_by(|_, v| (v.clone(), v.clone()), grouped())
        .count(Materialized::named("cs").without_caching())
        .to_stream()
        .to("out", Produced::with(Utf8, I64));
    let mut driver = Driver::with_cache(builder, CACHE);
    driver.hold("in", "a", Some("x"), 1);
    driver.hold("in", "a", Some("y"), 2);
    assert_eq!(driver.commit(), ["out y 1 @2"], "nobody has seen x");
    driver.hold("in", "a", Some("z"), 3);
    assert_eq!(driver.commit(), ["out y 0 @3", "out z 1 @3"]);
}
