//! Windowed counts, bytes to bytes: `cargo bench --bench windows`. Both layouts of rows, each over the engine in memory.
//!
//! Each round takes 2,000 records of 100 keys, a millisecond apart, so that windows keep closing; then it commits.

#![allow(
    clippy::disallowed_methods,
    clippy::indexing_slicing,
    clippy::expect_used,
    missing_docs,
    reason = "a bench measures time, and has to run to its end"
)]

mod measure;

use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use kstreams::*;

const RECORDS: usize = 2_000;
const KEYS: usize = 100;

fn windows(criterion: &mut Criterion) {
    row(criterion, "tumbling, 1 s", |grouped, rows| {
        to_out(grouped.windowed_by(TimeWindows::of_size_with_no_grace(ms(1_000))).count(rows), ms(1_000));
    });
    row(criterion, "hopping, 1 s every 250 ms", |grouped, rows| {
        let windows = TimeWindows::of_size_with_no_grace(ms(1_000)).advance_by(ms(250));
        to_out(grouped.windowed_by(windows).count(rows), ms(1_000));
    });
    row(criterion, "tumbling, 1 s, emitted on close", |grouped, rows| {
        let windowed = grouped.windowed_by(TimeWindows::of_size_with_no_grace(ms(1_000)));
        to_out(windowed.emit_strategy(EmitStrategy::OnWindowClose).count(rows), ms(1_000));
    });
    row(criterion, "tumbling, 1 s, suppressed until it closes", |grouped, rows| {
        let counts = grouped.windowed_by(TimeWindows::of_size_with_no_grace(ms(1_000))).count(rows);
        to_out(counts.suppress(Suppressed::until_window_closes(BufferConfig::unbounded())), ms(1_000));
    });
    row(criterion, "sliding, 200 ms", |grouped, rows| {
        let windows = SlidingWindows::of_time_difference_with_no_grace(ms(200));
        to_out(grouped.windowed_by(windows).count(rows), ms(200));
    });
    row(criterion, "sessions, gap of 150 ms", |grouped, rows| {
        let windows = SessionWindows::of_inactivity_gap_with_no_grace(ms(150));
        let counts = grouped.windowed_by(windows).count(rows);
        counts.to_stream().to("out", Produced::with(SessionWindowedSerde::new(Utf8), I64));
    });
}

criterion_group!(benches, windows);
criterion_main!(benches);

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn to_out(counts: KTable<Windowed<String>, i64>, size: Duration) {
    counts.to_stream().to("out", Produced::with(TimeWindowedSerde::new(Utf8, size), I64));
}

type Count = fn(KGroupedStream<String, String>, Materialized<String, i64>);

fn row(criterion: &mut Criterion, name: &str, count: Count) {
    let mut group = criterion.benchmark_group(name);
    let keys: Vec<String> = (0..RECORDS).map(|number| format!("key-{:03}", number * 7 % KEYS)).collect();
    let value = "a value of some thirty bytes, so";
    let rows = || Materialized::named("rows");
    for (layout, rows) in [("disk", rows()), ("memory", rows().in_memory())] {
        let mut task = task(count, rows).expect("a task");
        let input = task.input("in").unwrap_or_default();
        measure::rounds(&mut group, layout, RECORDS, &mut task, |task| {
            task.run(input, keys.iter().map(|key| (key.as_bytes(), value.as_bytes()))).map(|_| ())
        });
    }
}

fn task(count: Count, rows: Materialized<String, i64>) -> Result<SingleTask> {
    let builder = StreamsBuilder::new();
    count(builder.stream("in", Consumed::with(Utf8, Utf8)).group_by_key(Grouped::with(Utf8, Utf8)), rows);
    SingleTask::new(&builder.build()?, 0)
}
