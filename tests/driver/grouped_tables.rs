//! Folding the rows of a table into groups.

use crate::*;

fn by_group(builder: &StreamsBuilder) -> KGroupedTable<String, String> {
    builder
        .table("in", text(), Materialized::default())
        .group_by(|_, row| row.split_once('|').map(|(group, rest)| (group.to_owned(), rest.to_owned())), grouped())
}

#[test]
fn a_row_that_moves_leaves_its_old_group_first() {
    let builder = StreamsBuilder::new();
    by_group(&builder)
        .aggregate(
            String::new,
            |_, row, sum: String| format!("{sum}+{row}"),
            |_, row, sum: String| format!("{sum}-{row}"),
            Materialized::named("st").with_value_serde(Utf8),
        )
        .to_stream()
        .to("out", to_text());
    let mut driver = Driver::new(builder);
    assert_eq!(driver.pipe("in", "a", "g|1", 5), ["out g +1 @5"]);
    assert_eq!(driver.pipe("in", "a", "g|2", 6), ["out g +1-1+2 @6"], "one record, nobody sees the group without it");
    assert_eq!(driver.pipe("in", "a", "h|2", 4), ["out g +1-1+2-2 @6", "out h +2 @4"]);
    assert_eq!(driver.pipe("in", "a", "no group", 7), ["out h +2-2 @7"]);
    assert!(driver.delete("in", "a", 8).is_empty());
}

#[test]
fn a_count_goes_down_to_zero_and_is_not_deleted() {
    let builder = StreamsBuilder::new();
    by_group(&builder).count(Materialized::named("st")).to_stream().to("out", Produced::with(Utf8, I64));
    let mut driver = Driver::new(builder);
    assert_eq!(driver.pipe("in", "a", "g|1", 1), ["out g 1 @1"]);
    assert_eq!(driver.pipe("in", "b", "g|1", 2), ["out g 2 @2"]);
    assert_eq!(driver.delete("in", "a", 3), ["out g 1 @3"]);
    assert_eq!(driver.delete("in", "b", 4), ["out g 0 @4"]);
}

#[test]
fn a_reduction_begins_with_a_row_and_may_delete() {
    let builder = StreamsBuilder::new();
    by_group(&builder)
        .reduce(
            |sum, row| format!("{sum}+{row}"),
            |sum, row| (sum != row).then(|| format!("{sum}-{row}")),
            Materialized::default(),
        )
        .to_stream()
        .to("out", to_text());
    let mut driver = Driver::new(builder);
    assert_eq!(driver.pipe("in", "a", "g|1", 1), ["out g 1 @1"]);
    assert_eq!(driver.delete("in", "a", 2), ["out g - @2"]);
    assert_eq!(driver.pipe("in", "a", "g|1", 3), ["out g 1 @3"]);
    assert_eq!(driver.pipe("in", "b", "g|2", 4), ["out g 1+2 @4"]);
}

#[test]
fn the_repartition_topic_has_the_bytes_of_java() {
    let builder = StreamsBuilder::new();
    by_group(&builder).count(Materialized::named("st"));
    let mut driver = Driver::new(builder);
    driver.pipe("in", "a", "g|old", 1);
    driver.pipe("in", "a", "g|new", 2);
    let values = driver.inner.produced().iter().filter(|r| &*r.topic == "app-st-repartition");
    let values: Vec<_> = values.map(|r| r.value.clone().unwrap()).collect();
    assert_eq!(values, [b"old\x01".to_vec(), b"\x06newold\x02".to_vec()]);
}

#[test]
fn the_first_change_of_an_aggregate_has_its_initial_row_as_the_old_one() {
    // Java's quirk: a table grouped from an aggregate subtracts a row that was never added.
    let builder = StreamsBuilder::new();
    builder
        .stream("in", text())
        .group_by_key(grouped())
        .count(Materialized::named("c"))
        .group_by(|_, count| ("all".to_owned(), *count), Grouped::with(Utf8, I64))
        .reduce(|sum, count| sum + count, |sum, count| sum - count, Materialized::named("sum"))
        .to_stream()
        .to("out", Produced::with(Utf8, I64));
    let mut driver = Driver::new(builder);
    assert_eq!(driver.pipe("in", "a", "v", 1), ["out all 1 @1"]);
    assert_eq!(driver.pipe("in", "a", "v", 2), ["out all 2 @2"]);
    assert_eq!(driver.pipe("in", "b", "v", 3), ["out all 3 @3"]);
}

#[test]
fn a_row_that_stays_in_its_group_is_two_records_for_an_older_release() {
    let changes = |config: Config| {
        let builder = StreamsBuilder::new();
        let groups = builder
            .table("in", text(), Materialized::default())
            .group_by(|_, v| ("g".to_owned(), v.len() as i64), Grouped::with(Utf8, I64));
        groups.count(Materialized::named("counts")).to_stream().to("out", Produced::with(Utf8, I64));
        let mut driver = TopologyTestDriver::with_config(&builder.build().unwrap(), &config.cache_bytes(0)).unwrap();
        for value in ["x", "yy"] {
            driver.pipe_raw("in", Some(b"a"), Some(value.as_bytes()), 1, Headers::new()).unwrap();
        }
        let records = driver.produced().iter().filter(|record| &*record.topic == "app-counts-repartition");
        records.filter_map(|record| record.value.as_ref()?.last().copied()).collect::<Vec<_>>()
    };
    let config = || Config::new("app", "embedded://");
    assert_eq!(changes(config()), [1, 2]);
    assert_eq!(changes(config().upgrade_from(3, 4)), [1, 0, 1]);
    assert_eq!(changes(config().set("upgrade.from", "3.5").unwrap()), [1, 2]);
}
