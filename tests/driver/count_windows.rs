//! Windows by number of records (not in Kafka Streams).

use std::collections::BTreeMap;

use proptest::prelude::*;

use crate::*;

fn counted(key: &str, first: i64, size: i64) -> Counted<String> {
    Counted { key: key.to_owned(), first, size }
}

/// Joins the values of each key and window: a result says which records are in it.
fn joined(windows: CountWindows, size: u64, emit: EmitStrategy) -> StreamsBuilder {
    let builder = StreamsBuilder::new();
    builder
        .stream("in", text())
        .group_by_key(grouped())
        .windowed_by(windows)
        .emit_strategy(emit)
        .reduce(|row, value| row + &value, Materialized::named("rows"))
        .to_stream()
        .map(move |key: Counted<String>, row| (format!("{}/{size}", key.first), row.unwrap_or_default()))
        .to("out", to_text());
    builder
}

#[test]
fn tumbling_windows_follow_each_other_whatever_the_times_are() {
    let mut driver = Driver::new(joined(CountWindows::tumbling(2), 2, EmitStrategy::OnWindowUpdate));
    assert_eq!(driver.pipe("in", "k", "a", 100), ["out 0/2 a @100"]);
    assert_eq!(driver.pipe("in", "other", "x", 5), ["out 0/2 x @5"]);
    assert_eq!(driver.pipe("in", "k", "b", 7), ["out 0/2 ab @100"], "its time is the highest of its records");
    assert_eq!(driver.pipe("in", "k", "c", 8), ["out 2/2 c @8"], "a window begins anew");
}

#[test]
fn a_record_is_in_every_hopping_window_that_is_open() {
    let mut driver = Driver::new(joined(CountWindows::hopping(3, 2), 3, EmitStrategy::OnWindowUpdate));
    assert_eq!(driver.pipe("in", "k", "a", 1), ["out 0/3 a @1"]);
    assert_eq!(driver.pipe("in", "k", "b", 2), ["out 0/3 ab @2"]);
    assert_eq!(driver.pipe("in", "k", "c", 3), ["out 0/3 abc @3", "out 2/3 c @3"]);
    assert_eq!(driver.pipe("in", "k", "d", 4), ["out 2/3 cd @4"]);
    assert_eq!(driver.pipe("in", "k", "e", 5), ["out 2/3 cde @5", "out 4/3 e @5"]);
}

#[test]
fn only_full_windows_are_emitted_on_close() {
    let mut driver = Driver::new(joined(CountWindows::hopping(3, 1), 3, EmitStrategy::OnWindowClose));
    assert!(driver.pipe("in", "k", "a", 1).is_empty());
    assert!(driver.pipe("in", "k", "b", 2).is_empty());
    assert_eq!(driver.pipe("in", "k", "c", 3), ["out 0/3 abc @3"]);
    assert_eq!(driver.pipe("in", "k", "d", 4), ["out 1/3 bcd @4"]);
}

#[test]
fn nulls_are_dropped_and_have_no_number() {
    let mut driver = Driver::new({
        let builder = StreamsBuilder::new();
        builder
            .stream("in", Consumed::with(Utf8, Nullable(Utf8)))
            .group_by_key(Grouped::with(Utf8, Nullable(Utf8)))
            .windowed_by(CountWindows::tumbling(2))
            .emit_strategy(EmitStrategy::OnWindowClose)
            .count(Materialized::default())
            .to_stream()
            .to("out", Produced::with(CountedSerde::new(Utf8, 2), I64));
        builder
    });
    driver.pipe("in", "k", "a", 1);
    assert!(driver.delete("in", "k", 2).is_empty());
    assert_eq!(driver.inner.dropped_records(), 1);
    assert_eq!(driver.pipe("in", "k", "b", 3).len(), 1);
}

#[test]
fn what_an_aggregator_deletes_leaves_its_window_and_keeps_its_number() {
    let builder = StreamsBuilder::new();
    builder
        .stream("in", text())
        .group_by_key(grouped())
        .windowed_by(CountWindows::tumbling(3))
        .aggregate(
            String::new,
            |_, value, row: String| (value != "x").then(|| row + &value),
            Materialized::named("rows").with_value_serde(Utf8),
        )
        .to_stream()
        .map(|key, row| (key.to_string(), row.unwrap_or_else(|| "deleted".to_owned())))
        .to("out", to_text());
    let mut driver = Driver::new(builder);
    assert_eq!(driver.pipe("in", "k", "a", 5), ["out [k#0+3] a @5"]);
    assert_eq!(driver.pipe("in", "k", "x", 6), ["out [k#0+3] deleted @6"]);
    assert_eq!(driver.pipe("in", "k", "b", 4), ["out [k#0+3] b @4"], "it begins anew, its time too");
    assert_eq!(driver.pipe("in", "k", "c", 4), ["out [k#3+3] c @4"]);
}

#[test]
fn changes_say_what_a_window_held_before() {
    let builder = StreamsBuilder::new();
    builder
        .stream("in", text())
        .group_by_key(grouped())
        .windowed_by(CountWindows::tumbling(3))
        .count(Materialized::named("rows"))
        .group_by(|_, count| Some(("sum".to_owned(), *count)), Grouped::with(Utf8, I64))
        .reduce(|sum, count| sum + count, |sum, count| sum - count, Materialized::named("sums"))
        .to_stream()
        .to("out", Produced::with(Utf8, I64));
    let mut driver = Driver::new(builder);
    for _ in 0..4 {
        driver.pipe("in", "k", "a", 1);
    }
    let sum = driver.pipe("in", "other", "a", 1);
    assert_eq!(sum.last().map(String::as_str), Some("out sum 5 @1"), "3, 1 and 1: {sum:?}");
}

#[test]
fn open_windows_can_be_joined_with() {
    let builder = StreamsBuilder::new();
    let counts = |topic: &str| {
        let grouped = builder.stream(topic, text()).group_by_key(grouped());
        grouped.windowed_by(CountWindows::tumbling(3)).count(Materialized::default())
    };
    let (left, right) = (counts("left"), counts("right"));
    left.join(&right, |left, right| format!("{left} of {right}"))
        .to_stream()
        .map(|key, pair| (key.to_string(), pair.unwrap_or_default()))
        .to("out", to_text());
    let mut driver = Driver::new(builder);
    driver.pipe("left", "k", "a", 1);
    driver.pipe("left", "k", "a", 2);
    assert_eq!(driver.pipe("right", "k", "b", 3), ["out [k#0+3] 2 of 1 @3"]);
}

#[test]
fn sizes_without_sense_are_refused() {
    for (windows, part) in [
        (CountWindows::tumbling(0), "count windows have a size of zero: take at least one record"),
        (CountWindows::hopping(3, 0), "count windows of 3 records advance by 0"),
        (CountWindows::hopping(3, 4), "count windows of 3 records advance by 4"),
    ] {
        let error = build_error(joined(windows, 0, EmitStrategy::OnWindowUpdate));
        assert!(error.contains(part), "{error}");
    }
}

#[test]
fn a_store_by_time_is_refused() {
    for (rows, part) in [
        (Materialized::named("rows").with_retention(std::time::Duration::from_secs(1)), "leave with_retention out"),
        (Materialized::named("rows").as_versioned(std::time::Duration::from_secs(1)), "leave as_versioned out"),
    ] {
        let builder = StreamsBuilder::new();
        builder.stream("in", text()).group_by_key(grouped()).windowed_by(CountWindows::tumbling(2)).count(rows);
        let error = build_error(builder);
        assert!(error.contains(part), "{error}");
    }
}

/// The windows of each key, by the numbers of their records.
fn model(keys: &[usize], size: usize, advance: usize) -> BTreeMap<(usize, usize), Vec<usize>> {
    let mut of_key: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    keys.iter().enumerate().for_each(|(number, key)| of_key.entry(*key).or_default().push(number));
    let windows = of_key.into_iter().flat_map(|(key, records)| {
        let firsts = (0..records.len()).step_by(advance);
        let window = |first: usize| records[first..records.len().min(first + size)].to_vec();
        firsts.map(|first| ((key, first), window(first))).collect::<Vec<_>>()
    });
    windows.collect()
}

proptest! {
    #[test]
    fn windows_hold_what_a_list_of_all_records_says(
        records in prop::collection::vec((0..3_usize, 0..100_i64), 1..60),
        (size, advance) in (1..8_usize).prop_flat_map(|size| (Just(size), 1..=size)),
        on_close in any::<bool>(), commit_every in 1..20_usize,
    ) {
        let keys: Vec<usize> = records.iter().map(|(key, _)| *key).collect();
        let mut expected = model(&keys, size, advance);
        if on_close {
            expected.retain(|_, window| window.len() == size);
        }
        let expected: BTreeMap<Counted<String>, (i64, i64)> = expected
            .into_iter()
            .map(|((key, first), window)| {
                let bits = window.iter().fold(0, |bits, number| bits | 1_i64 << number);
                let time = window.iter().map(|number| records[*number].1).max().unwrap();
                (counted(&key.to_string(), first as i64, size as i64), (bits, time))
            })
            .collect();

        let builder = StreamsBuilder::new();
        let emit = if on_close { EmitStrategy::OnWindowClose } else { EmitStrategy::OnWindowUpdate };
        builder
            .stream("in", Consumed::with(Utf8, I64))
            .group_by_key(Grouped::with(Utf8, I64))
            .windowed_by(CountWindows::hopping(size as u64, advance as u64))
            .emit_strategy(emit)
            .aggregate(|| 0, |_, number, row| row | 1_i64 << number, Materialized::named("rows").with_value_serde(I64))
            .to_stream()
            .to("out", Produced::with(CountedSerde::new(Utf8, size as u64), I64));
        let mut driver = TopologyTestDriver::new(&builder.build().unwrap()).unwrap();
        for (number, (key, at)) in records.iter().enumerate() {
            let value = (number as i64).to_be_bytes();
            driver.enqueue("in", Some(key.to_string().as_bytes()), Some(&value), *at, Headers::new()).unwrap();
            driver.process_without_commit().unwrap();
            if number % commit_every == 0 {
                driver.commit().unwrap();
            }
        }
        let out = driver.create_output_topic("out", CountedSerde::new(Utf8, size as u64), I64);
        let emitted = out.read_all(&mut driver).unwrap();
        if on_close {
            prop_assert_eq!(emitted.len(), expected.len(), "each window once");
        }
        let last: BTreeMap<_, _> = emitted.into_iter().map(|r| (r.key, (r.value, r.timestamp))).collect();
        prop_assert_eq!(last, expected);
    }
}
