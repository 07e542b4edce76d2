//! Folding a stream into rows.

use crate::*;

fn nullable() -> Nullable<Utf8> {
    Nullable(Utf8)
}

#[test]
fn a_count_drops_nulls_and_keeps_the_latest_time() {
    let builder = StreamsBuilder::new();
    builder
        .stream("in", Consumed::with(nullable(), nullable()))
        .map(|key, value| (value, key))
        .group_by_key(Grouped::with(nullable(), nullable()))
        .count(Materialized::named("st"))
        .to_stream()
        .to("out", Produced::with(nullable(), I64));
    let mut driver = Driver::new(builder);
    assert_eq!(driver.pipe("in", "a", "x", 10), ["out x 1 @10"]);
    assert_eq!(driver.pipe("in", "b", "x", 5), ["out x 2 @10"], "the row keeps the later time");
    assert!(driver.delete("in", "a", 30).is_empty(), "a null key has no partition");
    assert_eq!(driver.inner.dropped_records(), 0, "the filter before a repartition topic does not count");
    assert!(driver.pipe_raw("in", None, Some(b"x"), 40).unwrap().is_empty(), "null values do not count");
    assert_eq!(driver.inner.dropped_records(), 1);
}

#[test]
fn a_reduce_starts_with_the_first_value_and_may_delete() {
    let builder = StreamsBuilder::new();
    builder
        .stream("in", text())
        .group_by_key(grouped())
        .reduce(|row, value| (value != "x").then(|| row + "+" + &value), Materialized::default())
        .to_stream()
        .to("out", to_text());
    let mut driver = Driver::new(builder);
    assert_eq!(driver.pipe("in", "k", "a", 1), ["out k a @1"]);
    assert_eq!(driver.pipe("in", "k", "b", 2), ["out k a+b @2"]);
    assert_eq!(driver.pipe("in", "k", "x", 3), ["out k - @3"]);
    assert_eq!(driver.pipe("in", "k", "x", 4), ["out k x @4"], "the first value is the row as it is");
}

#[test]
fn an_aggregate_begins_with_the_initial_row_again_after_a_deletion() {
    let builder = StreamsBuilder::new();
    builder
        .stream("in", text())
        .group_by_key(grouped())
        .aggregate(
            || "0".to_owned(),
            |_, value, row: String| if value == "x" { None } else { Some(row + &value) },
            Materialized::with(Utf8, Utf8).in_memory().without_logging(),
        )
        .to_stream_with(|row| row.unwrap_or_else(|| "deleted".to_owned()))
        .to("out", to_text());
    let mut driver = Driver::new(builder);
    assert_eq!(driver.pipe("in", "k", "a", 1), ["out k 0a @1"]);
    assert_eq!(driver.pipe("in", "k", "x", 2), ["out k deleted @2"]);
    assert_eq!(driver.pipe("in", "k", "b", 3), ["out k 0b @3"]);
    assert!(driver.inner.produced().iter().all(|record| &*record.topic == "out"), "nothing is logged");
}

#[test]
fn a_named_grouping_used_twice_has_one_repartition_topic() {
    let builder = StreamsBuilder::new();
    let by_value = builder.stream("in", text()).group_by(|_, v| v.clone(), grouped().named("by-value"));
    by_value.clone().count(Materialized::named("c")).to_stream().to("counts", Produced::with(Utf8, I64));
    by_value.reduce(|_, value| value, Materialized::named("r")).to_stream().to("last", to_text());
    let mut driver = Driver::new(builder);
    assert_eq!(driver.pipe("in", "k", "v", 1), ["counts v 1 @1", "last v v @1"]);
    let through = driver.inner.produced().iter().filter(|record| &*record.topic == "app-by-value-repartition");
    assert_eq!(through.count(), 1);
}

#[test]
fn a_row_that_its_serde_takes_for_a_null_is_deleted() {
    let builder = StreamsBuilder::new();
    builder
        .stream("in", text())
        .group_by_key(grouped())
        .aggregate(
            || Some(0),
            |_, value, _: Option<i64>| Some(value.parse::<i64>().ok()),
            Materialized::named("st").with_value_serde(Nullable(I64)),
        )
        .to_stream()
        .to("out", Produced::with(Utf8, Nullable(I64)));
    let mut driver = Driver::new(builder);
    assert_eq!(driver.pipe("in", "k", "7", 1), ["out k 7 @1"]);
    assert_eq!(driver.pipe("in", "k", "seven", 2), ["out k - @2"]);
    let rows = driver.inner.timestamped_key_value_store("st", Utf8, I64).unwrap();
    assert!(rows.all().collect(&mut driver.inner).unwrap().is_empty());
}
