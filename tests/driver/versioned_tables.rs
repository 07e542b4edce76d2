//! Tables that remember what their rows were (KIP-889, KIP-914).

use std::time::Duration;

use crate::*;

fn history(millis: u64) -> Materialized<String, String> {
    Materialized::named("rows").as_versioned(Duration::from_millis(millis))
}

#[test]
fn an_update_out_of_order_is_passed_on_and_grouping_leaves_it_out() {
    let builder = StreamsBuilder::new();
    let table = builder.table("in", text(), history(100));
    table.clone().to_stream().to("changes", to_text());
    let groups = table.group_by(|key, row| (row.clone(), key.clone()), grouped());
    groups.count(Materialized::named("counts")).to_stream().to("counts-out", Produced::with(Utf8, I64));
    let mut driver = Driver::new(builder);
    assert_eq!(driver.pipe("in", "a", "x", 10), ["changes a x @10", "counts-out x 1 @10"]);
    assert_eq!(driver.pipe("in", "a", "late", 5), ["changes a late @5"]);
    assert_eq!(driver.pipe("in", "a", "y", 20), ["changes a y @20", "counts-out x 0 @20", "counts-out y 1 @20"]);
    driver.pipe("in", "b", "z", 200);
    assert!(driver.pipe("in", "a", "much too late", 50).is_empty());
    assert_eq!(driver.inner.dropped_records(), 1);
}

#[test]
fn a_stream_is_joined_with_the_row_of_its_time_through_what_is_made_of_the_table() {
    let builder = StreamsBuilder::new();
    let table = builder.table("in", text(), history(100));
    let upper = table.filter(|_, row| row != "hidden").map_values(|row| row.to_uppercase());
    let joined = Joined::with(Utf8, Utf8);
    let stream = builder.stream("stream", text());
    stream.left_join(&upper, |s, row| format!("{s}:{}", row.unwrap_or_default()), joined).to("out", to_text());
    let mut driver = Driver::new(builder);
    driver.pipe("in", "a", "x", 10);
    driver.pipe("in", "a", "hidden", 20);
    driver.pipe("in", "a", "y", 30);
    for (at, row) in [(9, ""), (10, "X"), (19, "X"), (20, ""), (30, "Y"), (99, "Y")] {
        assert_eq!(driver.pipe("stream", "a", "s", at), [format!("out a s:{row} @{at}")]);
    }
}

#[test]
fn a_store_of_another_kind_ends_the_history() {
    let builder = StreamsBuilder::new();
    let table = builder.table("in", text(), history(100));
    let plain = table.filter_materialized(|_, _| true, Materialized::named("plain"));
    let joined = Joined::with(Utf8, Utf8);
    builder.stream("stream", text()).join(&plain, |s, row| s + &row, joined).to("out", to_text());
    let mut driver = Driver::new(builder);
    driver.pipe("in", "a", "x", 10);
    driver.pipe("in", "a", "y", 30);
    assert_eq!(driver.pipe("stream", "a", "s", 15), ["out a sy @15"]);
}

#[test]
fn an_update_out_of_order_joins_nothing_and_is_counted() {
    let builder = StreamsBuilder::new();
    let left = builder.table("in", text(), history(100));
    let right = builder.table("right", text(), Materialized::default());
    left.left_join(&right, |l, r| l + &r.unwrap_or_default()).to_stream().to("out", to_text());
    let mut driver = Driver::new(builder);
    assert_eq!(driver.pipe("in", "a", "x", 10), ["out a x @10"]);
    assert!(driver.pipe("in", "a", "late", 5).is_empty());
    assert_eq!(driver.inner.dropped_records(), 1);
    assert_eq!(driver.pipe("right", "a", "1", 3), ["out a x1 @10"]);
}

#[test]
fn an_aggregate_remembers_what_it_was() {
    let builder = StreamsBuilder::new();
    let counts = builder.stream("in", text()).group_by_key(grouped());
    let counts = counts.count(Materialized::named("counts").as_versioned(Duration::from_millis(100)));
    let joined = Joined::with(Utf8, Utf8);
    let stream = builder.stream("stream", text());
    stream.left_join(&counts, |s, n| format!("{s}{}", n.unwrap_or(0)), joined).to("out", to_text());
    let mut driver = Driver::with_cache(builder, 1_000_000);
    for at in [10, 20, 30] {
        driver.pipe("in", "a", "x", at);
    }
    assert_eq!(driver.pipe("stream", "a", "n=", 25), ["out a n=2 @25"]);
    assert_eq!(driver.pipe("stream", "a", "n=", 5), ["out a n=0 @5"]);
    assert_eq!(driver.pipe("stream", "a", "n=", 99), ["out a n=3 @99"]);
}

#[test]
fn a_global_table_has_no_history() {
    let builder = StreamsBuilder::new();
    builder.global_table("in", text(), history(100));
    assert!(build_error(builder).contains("cannot be versioned: leave Materialized::as_versioned out"));
}

#[test]
fn rows_may_be_kept_without_their_times() {
    let builder = StreamsBuilder::new();
    let sums = builder.stream("in", text()).group_by_key(grouped());
    sums.count(Materialized::named("plain").without_timestamps()).to_stream().to("out", Produced::with(Utf8, I64));
    let mut driver = Driver::new(builder);
    driver.pipe("in", "a", "x", 10);
    assert_eq!(driver.pipe("in", "a", "x", 5), ["out a 2 @5"], "the time of the count is forgotten");
    let mut rows = driver.inner.key_value_store("plain", Utf8, I64).unwrap();
    assert_eq!(rows.get(&mut driver.inner, &"a".to_owned()).unwrap(), Some(2));
}

#[test]
fn a_record_may_say_at_which_time_its_row_is_looked_up() {
    let builder = StreamsBuilder::new();
    let table = builder.table("in", text(), history(100));
    let joined = || Joined::with(Utf8, Utf8).as_of(|_: &String, time: &String| time.parse().unwrap_or(0));
    let stream = builder.stream("stream", text());
    stream.left_join(&table, |s, row| format!("{s}:{}", row.unwrap_or_default()), joined()).to("out", to_text());
    let mut driver = Driver::new(builder);
    driver.pipe("in", "a", "x", 10);
    driver.pipe("in", "a", "y", 30);
    assert_eq!(driver.pipe("stream", "a", "15", 99), ["out a 15:x @99"]);
    assert_eq!(driver.pipe("stream", "a", "30", 5), ["out a 30:y @5"]);
    assert_eq!(driver.pipe("stream", "a", "9", 99), ["out a 9: @99"]);

    let builder = StreamsBuilder::new();
    let table = builder.table("in", text(), Materialized::default());
    builder.stream("stream", text()).join(&table, |s, row| s + &row, joined()).to("out", to_text());
    assert!(build_error(builder).contains("make it with Materialized::as_versioned, or leave out Joined::as_of"));
}
