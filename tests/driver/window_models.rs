//! Windowed aggregations against models that keep everything in plain lists, over random input out of order.

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;

use crate::*;

/// Keys whose bytes begin with each other.
const KEYS: [&str; 3] = ["k", "kk", "k\0\0"];

#[derive(Debug, Clone)]
struct Input {
    key: usize,
    at: i64,
}

/// Each record of a case is a bit: a result says which records are in it.
fn inputs(longest: i64) -> impl Strategy<Value = Vec<Input>> {
    prop::collection::vec((0..KEYS.len(), 0..longest).prop_map(|(key, at)| Input { key, at }), 1..60)
}

/// A topology over a cache or none, with a commit after each so many records.
#[derive(Debug, Clone, Copy)]
struct Run {
    cache_bytes: usize,
    commit_every: usize,
    in_memory: bool,
}

fn runs() -> impl Strategy<Value = Run> {
    (prop_oneof![Just(0_usize), Just(300), Just(1_000_000)], 1..20_usize, any::<bool>())
        .prop_map(|(cache_bytes, commit_every, in_memory)| Run { cache_bytes, commit_every, in_memory })
}

type Results = BTreeMap<Windowed<String>, i64>;

fn ms(millis: i64) -> Duration {
    Duration::from_millis(millis.unsigned_abs())
}

fn bit(value: i64) -> i64 {
    1 << value
}

fn rows(run: Run) -> Materialized<String, i64> {
    let rows = Materialized::named("rows").with_value_serde(I64).with_retention(Duration::from_secs(1_000));
    if run.in_memory { rows.in_memory() } else { rows }
}

/// The last result of each window; a deleted one is none.
fn results(
    table: KTable<Windowed<String>, i64>,
    builder: StreamsBuilder,
    inputs: &[Input],
    run: Run,
    size: i64,
) -> Results {
    let mut last = Results::new();
    for (key, value) in emissions(table, builder, inputs, run, size) {
        match value {
            Some(value) => drop(last.insert(key, value)),
            None => drop(last.remove(&key)),
        }
    }
    last
}

/// Pipes the records and gives what goes downstream.
fn emissions(
    table: KTable<Windowed<String>, i64>,
    builder: StreamsBuilder,
    inputs: &[Input],
    run: Run,
    size: i64,
) -> Vec<(Windowed<String>, Option<i64>)> {
    let is_session = size < 0;
    let out = if is_session {
        Produced::with(SessionWindowedSerde::new(Utf8), I64)
    } else {
        Produced::with(TimeWindowedSerde::new(Utf8, ms(size)), I64)
    };
    table.to_stream().to("out", out);
    let config = Config::new("app", "embedded://").cache_bytes(run.cache_bytes);
    let mut driver = TopologyTestDriver::with_config(&builder.build().unwrap(), &config).unwrap();
    for (number, Input { key, at }) in inputs.iter().enumerate() {
        let value = (number as i64).to_be_bytes();
        driver.enqueue("in", Some(KEYS[*key].as_bytes()), Some(&value), *at, Headers::new()).unwrap();
        driver.process_without_commit().unwrap();
        if number % run.commit_every == 0 {
            driver.commit().unwrap();
        }
    }
    driver.commit().unwrap();
    if is_session {
        let out = driver.create_output_topic("out", SessionWindowedSerde::new(Utf8), Nullable(I64));
        out.read_key_values(&mut driver).unwrap()
    } else {
        let out = driver.create_output_topic("out", TimeWindowedSerde::new(Utf8, ms(size)), Nullable(I64));
        out.read_key_values(&mut driver).unwrap()
    }
}

fn grouped_numbers(builder: &StreamsBuilder) -> KGroupedStream<String, i64> {
    builder.stream("in", Consumed::with(Utf8, I64)).group_by_key(Grouped::with(Utf8, I64))
}

fn window(key: usize, start: i64, end: i64) -> Windowed<String> {
    Windowed::new(KEYS[key].to_owned(), Window::new(start, end))
}

proptest! {
    #[test]
    fn a_record_is_in_every_window_of_the_grid_that_was_open(
        inputs in inputs(80), (size, advance) in (1..20_i64).prop_flat_map(|size| (Just(size), 1..=size)),
        grace in 0..30_i64, run in runs(),
    ) {
        let mut expected = Results::new();
        let mut time = -1;
        for (number, Input { key, at }) in inputs.iter().enumerate() {
            time = time.max(*at);
            for start in (0..=*at).filter(|start| start % advance == 0 && *at < start + size) {
                if start + size > time - grace {
                    *expected.entry(window(*key, start, start + size)).or_default() |= bit(number as i64);
                }
            }
        }
        let builder = StreamsBuilder::new();
        let windows = TimeWindows::of_size_and_grace(ms(size), ms(grace)).advance_by(ms(advance));
        let table = grouped_numbers(&builder).windowed_by(windows).aggregate(|| 0, |_, n, row| row | bit(n), rows(run));
        prop_assert_eq!(results(table, builder, &inputs, run, size), expected);
    }

    #[test]
    fn windows_that_close_are_emitted_once_and_never_before_their_time(
        inputs in inputs(200), (size, advance) in (1..20_i64).prop_flat_map(|size| (Just(size), 1..=size)),
        grace in 0..10_i64, run in runs(), default_retention in any::<bool>(),
    ) {
        let mut open = Results::new();
        let mut expected = Vec::new();
        let mut time = -1;
        for (number, Input { key, at }) in inputs.iter().enumerate() {
            time = time.max(*at);
            let close_time = time - grace;
            let closed: Vec<_> = open.keys().filter(|key| key.window.end <= close_time).cloned().collect();
            let mut closed: Vec<_> = closed.into_iter().map(|key| { let row = open.remove(&key).unwrap(); (key, row) }).collect();
            closed.sort_by(|a, b| (a.0.window.start, &a.0.key).cmp(&(b.0.window.start, &b.0.key)));
            expected.extend(closed);
            for start in (0..=*at).filter(|start| start % advance == 0 && *at < start + size) {
                if start + size > close_time {
                    *open.entry(window(*key, start, start + size)).or_default() |= bit(number as i64);
                }
            }
        }
        let builder = StreamsBuilder::new();
        let windows = TimeWindows::of_size_and_grace(ms(size), ms(grace)).advance_by(ms(advance));
        let rows = if default_retention { Materialized::named("rows").with_value_serde(I64) } else { rows(run) };
        let rows = if run.in_memory { rows.in_memory() } else { rows };
        grouped_numbers(&builder)
            .windowed_by(windows)
            .emit_strategy(EmitStrategy::OnWindowClose)
            .aggregate(|| 0, |_, n, row| row | bit(n), rows)
            .to_stream()
            .to("out", Produced::with(TimeWindowedSerde::new(Utf8, ms(size)), I64));
        let config = Config::new("app", "embedded://").cache_bytes(run.cache_bytes);
        let mut driver = TopologyTestDriver::with_config(&builder.build().unwrap(), &config).unwrap();
        for (number, Input { key, at }) in inputs.iter().enumerate() {
            let value = (number as i64).to_be_bytes();
            driver.enqueue("in", Some(KEYS[*key].as_bytes()), Some(&value), *at, Headers::new()).unwrap();
            driver.process_without_commit().unwrap();
            if number % run.commit_every == 0 {
                driver.commit().unwrap();
            }
        }
        let out = driver.create_output_topic("out", TimeWindowedSerde::new(Utf8, ms(size)), I64);
        prop_assert_eq!(out.read_key_values(&mut driver).unwrap(), expected);
    }

    #[test]
    fn every_record_begins_and_ends_a_sliding_window(inputs in inputs(60), difference in 1..20_i64, run in runs()) {
        let mut expected = Results::new();
        for (number, Input { key, at }) in inputs.iter().enumerate() {
            let starts = inputs.iter().filter(|other| other.key == *key).flat_map(|other| {
                [(other.at - difference).max(0), other.at + 1]
            });
            for start in starts.filter(|start| (*start..=start + difference).contains(at)) {
                *expected.entry(window(*key, start, start + difference)).or_default() |= bit(number as i64);
            }
        }
        let builder = StreamsBuilder::new();
        let windows = SlidingWindows::of_time_difference_and_grace(ms(difference), Duration::from_secs(100));
        let table = grouped_numbers(&builder).windowed_by(windows).aggregate(|| 0, |_, n, row| row | bit(n), rows(run));
        prop_assert_eq!(results(table, builder, &inputs, run, difference), expected);
    }

    #[test]
    fn sessions_grow_and_merge_and_late_records_are_left_out(
        inputs in inputs(120), gap in 0..10_i64, grace in 0..60_i64, run in runs(),
    ) {
        let mut sessions: Vec<(usize, i64, i64, i64)> = Vec::new();
        let mut time = -1;
        for (number, Input { key, at }) in inputs.iter().enumerate() {
            time = time.max(*at);
            let near = |(k, start, end, _): &(usize, i64, i64, i64)| k == key && *end >= at - gap && *start <= at + gap;
            let merged = sessions.iter().filter(|session| near(session));
            let joined = merged.fold((*at, *at, bit(number as i64)), |(start, end, row), session| {
                (start.min(session.1), end.max(session.2), row | session.3)
            });
            if joined.1 >= time - grace - gap {
                sessions.retain(|session| !near(session));
                sessions.push((*key, joined.0, joined.1, joined.2));
            }
        }
        let expected: Results =
            sessions.into_iter().map(|(key, start, end, row)| (window(key, start, end), row)).collect();
        let builder = StreamsBuilder::new();
        let windows = SessionWindows::of_inactivity_gap_and_grace(ms(gap), ms(grace));
        let table = grouped_numbers(&builder).windowed_by(windows).aggregate(
            || 0,
            |_, n, row| row | bit(n),
            |_, one, other| one | other,
            rows(run),
        );
        prop_assert_eq!(results(table, builder, &inputs, run, -1), expected);
    }

    #[test]
    fn what_a_window_holds_at_last_is_what_is_emitted_when_it_closes(
        inputs in inputs(200), size in 1..20_i64, grace in 0..30_i64, run in runs(), is_session in any::<bool>(),
    ) {
        let table = |builder: &StreamsBuilder, emit| {
            let grouped = grouped_numbers(builder);
            if is_session {
                let windows = SessionWindows::of_inactivity_gap_and_grace(ms(size), ms(grace));
                let windowed = grouped.windowed_by(windows).emit_strategy(emit);
                windowed.aggregate(|| 0, |_, n, row| row | bit(n), |_, one, other| one | other, rows(run))
            } else {
                let windows = SlidingWindows::of_time_difference_and_grace(ms(size), ms(grace));
                grouped.windowed_by(windows).emit_strategy(emit).aggregate(|| 0, |_, n, row| row | bit(n), rows(run))
            }
        };
        // One more record closes all windows before it.
        let last = 10_000;
        let mut all = inputs.clone();
        all.push(Input { key: 0, at: last });
        let size = if is_session { -1 } else { size };
        let builder = StreamsBuilder::new();
        let mut expected = results(table(&builder, EmitStrategy::OnWindowUpdate), builder, &all, run, size);
        expected.retain(|key, _| key.window.end < last);
        let builder = StreamsBuilder::new();
        let emitted = emissions(table(&builder, EmitStrategy::OnWindowClose), builder, &all, run, size);
        let in_order = emitted.windows(2).all(|two| two[0].0.window.end <= two[1].0.window.end);
        prop_assert!(in_order || inputs.windows(2).any(|two| two[0].at > two[1].at));
        let count = emitted.len();
        let emitted: Results = emitted.into_iter().map(|(key, row)| (key, row.unwrap())).collect();
        prop_assert_eq!(emitted.len(), count, "each window once");
        if is_session {
            // A record that is not late itself may still join a session that has been emitted: the longer one comes, too.
            prop_assert!(expected.iter().all(|(session, row)| emitted.get(session) == Some(row)));
        } else {
            prop_assert_eq!(emitted, expected);
        }
    }

    #[test]
    fn a_suppressed_window_comes_once_with_all_its_records(
        inputs in inputs(200), size in 1..20_i64, grace in 0..10_i64, run in runs(),
    ) {
        let mut expected = Results::new();
        let mut time = -1;
        for (number, Input { key, at }) in inputs.iter().enumerate() {
            time = time.max(*at);
            let start = at / size * size;
            if start + size > time - grace {
                *expected.entry(window(*key, start, start + size)).or_default() |= bit(number as i64);
            }
        }
        // One more record closes them all, and opens a window of its own.
        let mut all = inputs.clone();
        all.push(Input { key: 0, at: 1_000 });
        let builder = StreamsBuilder::new();
        let windows = TimeWindows::of_size_and_grace(ms(size), ms(grace));
        let table = grouped_numbers(&builder)
            .windowed_by(windows)
            .aggregate(|| 0, |_, n, row| row | bit(n), rows(run))
            .suppress(Suppressed::until_window_closes(BufferConfig::unbounded()));
        prop_assert_eq!(results(table, builder, &all, run, size), expected);
    }
}
