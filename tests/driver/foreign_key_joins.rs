//! Joins of two tables on a key that the rows of the left one have of the right one.

use std::time::Duration;

use crate::*;

/// Left rows are `foreign key|rest`; nothing before the bar is no foreign key.
#[expect(clippy::ptr_arg, reason = "the type of a key")]
fn foreign_key(_: &String, row: &String) -> Option<String> {
    let (key, _) = row.split_once('|')?;
    Some(key.to_owned()).filter(|key| !key.is_empty())
}

fn tables(builder: &StreamsBuilder) -> (KTable<String, String>, KTable<String, String>) {
    let table = |topic| builder.table(topic, text(), Materialized::default());
    (table("left"), table("right"))
}

#[expect(clippy::needless_pass_by_value, reason = "a joiner takes rows by value")]
fn left_joined(l: String, r: Option<String>) -> String {
    format!("{l}+{}", r.unwrap_or_else(|| "none".to_owned()))
}

#[test]
fn a_change_of_a_right_row_reaches_all_left_rows_that_name_it() {
    let builder = StreamsBuilder::new();
    let (left, right) = tables(&builder);
    let joined = left.join_foreign_key(&right, foreign_key, |l, r| format!("{l}+{r}"), TableJoined::named("j"));
    joined.to_stream().to("out", to_text());
    let mut driver = Driver::new(builder);
    assert!(driver.pipe("left", "a", "x|1", 5).is_empty());
    assert!(driver.pipe("left", "b", "x|2", 6).is_empty());
    assert!(driver.pipe("left", "c", "xx|3", 7).is_empty(), "one key begins with the other");
    assert_eq!(driver.pipe("right", "x", "X", 3), ["out a x|1+X @3", "out b x|2+X @3"]);
    assert_eq!(driver.pipe("left", "b", "xx|2", 8), ["out b - @8"]);
    assert_eq!(driver.delete("right", "x", 9), ["out a - @9"]);
    assert_eq!(driver.pipe("right", "xx", "XX", 10), ["out b xx|2+XX @10", "out c xx|3+XX @10"]);
    assert_eq!(driver.delete("left", "c", 11), ["out c - @11"]);
}

#[test]
fn a_left_row_without_a_foreign_key_is_dropped_or_joined_with_none() {
    let builder = StreamsBuilder::new();
    let (left, right) = tables(&builder);
    let inner = left.clone().join_foreign_key(&right, foreign_key, |l, r| l + &r, TableJoined::named("i"));
    inner.to_stream().to("inner", to_text());
    let joined = left.left_join_foreign_key(&right, foreign_key, left_joined, TableJoined::named("l"));
    joined.to_stream().to("left-out", to_text());
    let mut driver = Driver::new(builder);
    assert_eq!(driver.pipe("left", "a", "|1", 1), ["left-out a |1+none @1"]);
    assert_eq!(driver.inner.dropped_records(), 1, "of the inner join");
    driver.pipe("right", "x", "X", 2);
    assert_eq!(driver.pipe("left", "a", "x|1", 3), ["inner a x|1X @3", "left-out a x|1+X @3"]);
    assert_eq!(driver.pipe("left", "a", "|2", 4), ["inner a - @4", "left-out a |2+none @4"]);
    assert!(driver.pipe("right", "x", "Y", 5).is_empty(), "nobody wants it any more");
}

#[test]
fn the_key_of_the_left_row_may_be_part_of_the_foreign_key() {
    let builder = StreamsBuilder::new();
    let (left, right) = tables(&builder);
    let joined =
        left.join_foreign_key(&right, |key, row| format!("{key}-{row}"), |l, r| l + &r, TableJoined::named("j"));
    joined.to_stream().to("out", to_text());
    let mut driver = Driver::new(builder);
    driver.pipe("right", "a-1", "R", 1);
    assert_eq!(driver.pipe("left", "a", "1", 2), ["out a 1R @2"]);
    assert!(driver.pipe("left", "b", "1", 3).is_empty());
}

#[test]
fn headers_of_the_change_that_caused_a_result_go_with_it() {
    let builder = StreamsBuilder::new();
    let (left, right) = tables(&builder);
    let joined = left.join_foreign_key(&right, foreign_key, |l, r| l + &r, TableJoined::named("j"));
    joined.to_stream().to("out", to_text());
    let mut driver = Driver::new(builder);
    let with = |header: &str| {
        let mut headers = Headers::new();
        headers.add("from", header.as_bytes());
        headers
    };
    driver.inner.pipe_raw("left", Some(b"a"), Some(b"x|1"), 1, with("left")).unwrap();
    driver.inner.pipe_raw("right", Some(b"x"), Some(b"X"), 2, with("right")).unwrap();
    let headers = |topic: &str| -> Vec<Option<Vec<u8>>> {
        let records = driver.inner.produced().iter().filter(|record| &*record.topic == topic);
        records.map(|record| record.headers.last("from").flatten().map(<[u8]>::to_vec)).collect()
    };
    assert_eq!(headers("out"), [Some(b"right".to_vec())]);
    assert_eq!(headers("app-j-subscription-store-changelog"), [Some(b"left".to_vec())]);
}

#[test]
fn a_result_gets_a_store_when_a_later_join_needs_it() {
    let builder = StreamsBuilder::new();
    let (left, right) = tables(&builder);
    let third = builder.table("third", text(), Materialized::default());
    let rows = Materialized::with(Utf8, Utf8);
    let joined = left.join_foreign_key_materialized(&right, foreign_key, |l, r| l + &r, TableJoined::named("j"), rows);
    joined.join(&third, |l, r| l + &r).to_stream().to("out", to_text());
    let mut driver = Driver::new(builder);
    driver.pipe("left", "a", "x|1", 1);
    driver.pipe("right", "x", "X", 2);
    assert_eq!(driver.pipe("third", "a", "3", 3), ["out a x|1X3 @3"]);
}

#[test]
fn a_missing_serde_is_a_mistake_with_its_remedy() {
    let builder = StreamsBuilder::new();
    let (left, right) = tables(&builder);
    let lengths = left.map_values(|row| row.len());
    lengths.join_foreign_key(&right, |_, n| n.to_string(), |_, r| r, TableJoined::named("j"));
    let error = build_error(builder);
    assert!(error.contains("j-result needs the serde of the rows of its left table"), "{error}");

    let builder = StreamsBuilder::new();
    let (left, right) = tables(&builder);
    let joined = left.clone().join_foreign_key(&right, foreign_key, |l, r| l + &r, TableJoined::named("j"));
    joined.join(&left, |l, r| l + &r).to_stream().to("out", to_text());
    assert!(build_error(builder).contains("has no value serde"), "only where the result is read");
}

#[test]
fn a_partitioner_sends_requests_and_answers_where_the_tables_are() {
    let builder = StreamsBuilder::new();
    let (left, right) = tables(&builder);
    let joined = TableJoined::named("j")
        .with_partitioner(|_, key: &String, count| Some(i32::from(key.as_bytes()[0]) % count))
        .with_other_partitioner(|_, key: &String, count| Some(i32::from(key.as_bytes()[0]) % count));
    left.left_join_foreign_key(&right, foreign_key, left_joined, joined).to_stream().to("out", to_text());
    let mut driver = Driver::new(builder);
    assert_eq!(driver.pipe("left", "a", "x|1", 1), ["out a x|1+none @1"]);
    assert_eq!(driver.pipe("left", "a", "|1", 2), ["out a |1+none @2"]);
    let request = |record: &&TestRecord| &*record.topic == "app-j-subscription-registration-topic";
    let partitions: Vec<_> = driver.inner.produced().iter().filter(request).map(|record| record.partition).collect();
    assert_eq!(partitions, [Some(0), Some(0), None], "a row that names none goes anywhere");
}

#[test]
fn the_rows_of_windows_are_joined_on_the_key_of_the_window() {
    let builder = StreamsBuilder::new();
    let size = Duration::from_millis(10);
    let names = builder.table("names", text(), Materialized::default());
    let counts = builder
        .stream("in", text())
        .group_by_key(grouped())
        .windowed_by(TimeWindows::of_size_with_no_grace(size))
        .count(Materialized::named("counts").with_retention(Duration::from_secs(1)));
    let by = TableJoined::named("j");
    counts
        .left_join_foreign_key(&names, |window, _| window.key.clone(), |n, name| format!("{n}{name:?}"), by)
        .to_stream_with(Option::unwrap_or_default)
        .map(|window, row| (format!("{}@{}", window.key, window.window.start), row))
        .to("out", to_text());
    let mut driver = Driver::new(builder);
    assert_eq!(driver.pipe("in", "a", "x", 1), ["out a@0 1None @1"]);
    assert_eq!(driver.pipe("in", "a", "x", 12), ["out a@10 1None @12"]);
    assert_eq!(driver.pipe("names", "a", "ann", 5), [r#"out a@0 1Some("ann") @5"#, r#"out a@10 1Some("ann") @5"#]);
    assert_eq!(driver.pipe("in", "a", "x", 13), [r#"out a@10 2Some("ann") @13"#]);
}
