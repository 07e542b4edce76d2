//! Looking up the rows of a table for the records of a stream.

use crate::*;

fn joined() -> Joined<String, String> {
    Joined::with(Utf8, Utf8)
}

#[test]
fn a_join_reads_what_the_table_last_wrote() {
    let builder = StreamsBuilder::new();
    let left = builder.stream("left", text());
    let right = builder.table("right", text(), Materialized::named("ts"));
    left.join(&right, |l, r| format!("{l}+{r}"), joined()).to("out", to_text());
    let mut driver = Driver::new(builder);
    assert!(driver.pipe("left", "a", "A", 3).is_empty());
    assert!(driver.pipe("right", "a", "a", 4).is_empty());
    assert_eq!(driver.pipe("left", "a", "B", 5), ["out a B+a @5"]);
    assert!(driver.pipe("right", "a", "b", 6).is_empty());
    assert_eq!(driver.pipe("left", "a", "C", 2), ["out a C+b @2"]);
    assert!(driver.delete("right", "a", 8).is_empty());
    assert!(driver.pipe("left", "a", "D", 9).is_empty());
}

#[test]
fn a_table_without_a_store_is_read_through_its_parents() {
    let builder = StreamsBuilder::new();
    let left = builder.stream("left", text());
    let table = builder.table("right", text(), Materialized::default());
    table.clone().to_stream().to("changes", to_text());
    let upper = table.filter(|_, v| v != "y").map_values(|v| v.to_uppercase());
    left.left_join_with_key(&upper, |k, l, r| format!("{k}:{l}+{}", r.unwrap_or_default()), joined())
        .to("out", to_text());
    let mut driver = Driver::new(builder);
    assert_eq!(driver.pipe("right", "a", "x", 1), ["changes a x @1"]);
    assert_eq!(driver.pipe("left", "a", "1", 2), ["out a a:1+X @2"]);
    assert_eq!(driver.pipe("right", "a", "y", 3), ["changes a y @3"]);
    assert_eq!(driver.pipe("left", "a", "1", 4), ["out a a:1+ @4"]);
    assert_eq!(driver.delete("right", "a", 3), ["changes a - @3"]);
}

#[test]
fn a_join_sees_rows_that_are_still_in_the_cache() {
    let builder = StreamsBuilder::new();
    let right = builder.table("right", text(), Materialized::named("ts"));
    builder.stream("left", text()).join_with_key(&right, |k, l, r| format!("{k}{l}{r}"), joined()).to("out", to_text());
    let mut driver = Driver::with_cache(builder, 1_000_000);
    driver.hold("right", "a", Some("r"), 1);
    assert_eq!(driver.hold("left", "a", Some("l"), 2), ["out a alr @2"]);
}

#[test]
fn nulls_are_dropped_and_counted_but_a_left_join_keeps_null_keys() {
    let nullable = || Nullable(Utf8);
    let builder = StreamsBuilder::new();
    let right = builder.table("right", Consumed::with(nullable(), Utf8), Materialized::default());
    let left = builder.stream("left", Consumed::with(nullable(), nullable()));
    let joined = || Joined::with(nullable(), nullable());
    left.clone().join(&right, |l, r| l.map(|l| l + &r), joined()).to("inner", Produced::with(nullable(), nullable()));
    left.left_join(&right, |l, _| l, joined()).to("left-out", Produced::with(nullable(), nullable()));
    let mut driver = Driver::new(builder);
    assert_eq!(driver.pipe_raw("left", None, Some(b"v"), 1).unwrap(), ["left-out - v @1"]);
    assert_eq!(driver.inner.dropped_records(), 1);
    assert!(driver.delete("left", "a", 2).is_empty());
    assert_eq!(driver.inner.dropped_records(), 3);
}

#[test]
fn a_stream_with_a_new_key_is_repartitioned_for_the_join() {
    let builder = StreamsBuilder::new();
    let right = builder.table("right", text(), Materialized::default());
    builder
        .stream("left", text())
        .map(|k, v| (v, k))
        .join(&right, |l, r| l + &r, joined().named("jj"))
        .to("out", to_text());
    let mut driver = Driver::new(builder);
    driver.pipe("right", "x", "r", 1);
    assert_eq!(driver.pipe("left", "l", "x", 2), ["out x lr @2"]);
    assert!(driver.inner.produced_topics().any(|topic| topic == "app-jj-repartition"));
}
