//! Tables and what is made of them row by row.

use crate::*;

#[test]
fn a_table_only_has_a_store_when_somebody_needs_its_rows() {
    let stores = |make: fn(&StreamsBuilder)| {
        let builder = StreamsBuilder::new();
        make(&builder);
        Driver::new(builder).inner.store_names().unwrap()
    };
    assert!(stores(|b| b.table("in", text(), Materialized::default()).to_stream().to("out", to_text())).is_empty());
    assert_eq!(
        stores(|b| drop(
            b.table("in", text(), Materialized::default())
                .group_by(|k, v| (v.clone(), k.clone()), grouped())
                .count(Materialized::named("c"))
        )),
        ["in-STATE-STORE-0000000000", "c"]
    );
    assert_eq!(
        stores(|b| {
            let table = b.table("in", text(), Materialized::default()).map_values(|v| v.len()).filter(|_, n| *n > 1);
            b.stream("left", text())
                .join(&table, |l, n| format!("{l}{n}"), Joined::with(Utf8, Utf8))
                .for_each(|_, _| {});
        }),
        ["in-STATE-STORE-0000000000"]
    );
}

#[test]
fn a_null_deletes_and_a_null_key_is_dropped_and_counted() {
    let builder = StreamsBuilder::new();
    let table = builder.table("in", Consumed::with(Nullable(Utf8), Utf8), Materialized::named("ts"));
    assert_eq!(table.queryable_name(), Some("ts"));
    table.to_stream().to("out", Produced::with(Nullable(Utf8), Utf8));
    let mut driver = Driver::new(builder);
    assert_eq!(driver.pipe("in", "a", "1", 9), ["out a 1 @9"]);
    assert_eq!(driver.pipe("in", "a", "2", 3), ["out a 2 @3"], "the last one counts, whatever its time");
    assert_eq!(driver.delete("in", "a", 4), ["out a - @4"]);
    assert!(driver.pipe_raw("in", None, Some(b"1"), 5).unwrap().is_empty());
    assert_eq!(driver.inner.dropped_records(), 1);
}

#[test]
fn a_filter_deletes_what_does_not_pass() {
    let builder = StreamsBuilder::new();
    let table = builder.table("in", text(), Materialized::default());
    table.clone().filter(|_, v| v.contains('x')).to_stream().to("out", to_text());
    table.filter_not(|_, v| v.contains('x')).to_stream().to("not", to_text());
    let mut driver = Driver::new(builder);
    assert_eq!(driver.pipe("in", "a", "x", 1), ["out a x @1", "not a - @1"]);
    assert_eq!(driver.pipe("in", "a", "y", 2), ["out a - @2", "not a y @2"]);
    assert_eq!(driver.pipe("in", "a", "y", 3), ["out a - @3", "not a y @3"], "nobody knows whether it was there");
}

#[test]
fn a_filter_is_silent_about_rows_that_never_passed_once_old_rows_are_known() {
    let builder = StreamsBuilder::new();
    let table = builder
        .table("in", text(), Materialized::named("ts"))
        .filter_materialized(|_, v| v.contains('x'), Materialized::named("fs"));
    table.clone().to_stream().to("out", to_text());
    table
        .group_by(|_, v| (v.clone(), v.clone()), grouped())
        .count(Materialized::named("cs"))
        .to_stream()
        .to("counts", Produced::with(Utf8, I64));
    let mut driver = Driver::new(builder);
    assert!(driver.pipe("in", "a", "y", 1).is_empty());
    assert_eq!(driver.pipe("in", "a", "x", 2), ["out a x @2", "counts x 1 @2"]);
    assert_eq!(driver.pipe("in", "a", "y", 3), ["out a - @3", "counts x 0 @3"]);
    assert!(driver.pipe("in", "a", "z", 4).is_empty());
}

#[test]
fn a_filter_of_a_table_with_a_store_knows_what_was_there() {
    let builder = StreamsBuilder::new();
    builder
        .table("in", text(), Materialized::named("ts"))
        .filter(|_, v| v.contains('x'))
        .map_values(|v| v.to_uppercase())
        .filter_not(|_, v| v.contains('Z'))
        .to_stream()
        .to("out", to_text());
    let mut driver = Driver::new(builder);
    assert!(driver.pipe("in", "a", "y", 1).is_empty());
    assert!(driver.pipe("in", "a", "xz", 2).is_empty());
    assert_eq!(driver.pipe("in", "a", "x", 3), ["out a X @3"]);
    assert_eq!(driver.delete("in", "a", 4), ["out a - @4"]);
    assert!(driver.delete("in", "a", 5).is_empty());
}

#[test]
fn a_map_is_not_called_for_a_deletion_and_may_delete_itself() {
    let builder = StreamsBuilder::new();
    let table = builder.table("in", text(), Materialized::default());
    table.clone().map_values(String::len).map_values(|n| *n as i64).to_stream().to("length", Produced::with(Utf8, I64));
    table.clone().map_values_with_key(|k, v| format!("{k}{v}")).to_stream().to("both", to_text());
    table.filter_map_values(|_, v| v.parse::<i64>().ok()).to_stream().to("number", Produced::with(Utf8, I64));
    let mut driver = Driver::new(builder);
    assert_eq!(driver.pipe("in", "a", "7", 1), ["length a 1 @1", "both a a7 @1", "number a 7 @1"]);
    assert_eq!(driver.pipe("in", "a", "no", 2), ["length a 2 @2", "both a ano @2", "number a - @2"]);
    assert_eq!(driver.delete("in", "a", 3), ["length a - @3", "both a - @3", "number a - @3"]);
}

#[test]
fn a_stream_made_a_table_is_repartitioned_by_its_new_key() {
    let builder = StreamsBuilder::new();
    builder
        .stream("in", Consumed::with(Utf8, Nullable(Utf8)))
        .select_key(|key, _| key[..1].to_owned())
        .to_table(Materialized::with(Utf8, Utf8).with_name("ts"))
        .to_stream_by(|_, value| value.clone().unwrap_or_default())
        .to("out", to_text());
    let mut driver = Driver::new(builder);
    assert_eq!(driver.pipe("in", "ab", "v", 1), ["out v v @1"]);
    assert_eq!(driver.delete("in", "ac", 2), ["out  - @2"]);
    let topics: Vec<_> = driver.inner.produced_topics().collect();
    assert_eq!(topics, ["app-KSTREAM-TOTABLE-0000000002-repartition", "app-ts-changelog", "out"]);
}
