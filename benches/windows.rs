//! Nanoseconds per record of windowed counts, bytes to bytes, the best of many rounds: `cargo bench --bench windows`.
//!
//! Each round takes 2,000 records of 100 keys, a millisecond apart, so that windows keep closing; then it commits.

#![allow(
    clippy::print_stdout,
    clippy::disallowed_methods,
    clippy::indexing_slicing,
    reason = "a bench measures time and prints it"
)]

use std::time::{Duration, Instant};

use kstreams::*;

const ROUNDS: usize = 20;
const RECORDS: usize = 2_000;
const KEYS: usize = 100;

fn main() -> Result<()> {
    println!("{:44} {:>8} {:>8}", "ns per record", "disk", "memory");
    row("tumbling, 1 s", |grouped, rows| {
        to_out(grouped.windowed_by(TimeWindows::of_size_with_no_grace(ms(1_000))).count(rows), ms(1_000));
    })?;
    row("hopping, 1 s every 250 ms", |grouped, rows| {
        let windows = TimeWindows::of_size_with_no_grace(ms(1_000)).advance_by(ms(250));
        to_out(grouped.windowed_by(windows).count(rows), ms(1_000));
    })?;
    row("tumbling, 1 s, emitted on close", |grouped, rows| {
        let windowed = grouped.windowed_by(TimeWindows::of_size_with_no_grace(ms(1_000)));
        to_out(windowed.emit_strategy(EmitStrategy::OnWindowClose).count(rows), ms(1_000));
    })?;
    row("tumbling, 1 s, suppressed until it closes", |grouped, rows| {
        let counts = grouped.windowed_by(TimeWindows::of_size_with_no_grace(ms(1_000))).count(rows);
        to_out(counts.suppress(Suppressed::until_window_closes(BufferConfig::unbounded())), ms(1_000));
    })?;
    row("sliding, 200 ms", |grouped, rows| {
        let windows = SlidingWindows::of_time_difference_with_no_grace(ms(200));
        to_out(grouped.windowed_by(windows).count(rows), ms(200));
    })?;
    row("sessions, gap of 150 ms", |grouped, rows| {
        let windows = SessionWindows::of_inactivity_gap_with_no_grace(ms(150));
        let counts = grouped.windowed_by(windows).count(rows);
        counts.to_stream().to("out", Produced::with(SessionWindowedSerde::new(Utf8), I64));
    })?;
    Ok(())
}

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn to_out(counts: KTable<Windowed<String>, i64>, size: Duration) {
    counts.to_stream().to("out", Produced::with(TimeWindowedSerde::new(Utf8, size), I64));
}

type Count = fn(KGroupedStream<String, String>, Materialized<String, i64>);

/// Both layouts of rows, each over the engine in memory.
fn row(name: &str, count: Count) -> Result<()> {
    print!("{name:44}");
    for rows in [Materialized::named("rows"), Materialized::named("rows").in_memory()] {
        print!(" {:>8.0}", measure(count, rows)?);
    }
    println!();
    Ok(())
}

fn measure(count: Count, rows: Materialized<String, i64>) -> Result<f64> {
    let builder = StreamsBuilder::new();
    count(builder.stream("in", Consumed::with(Utf8, Utf8)).group_by_key(Grouped::with(Utf8, Utf8)), rows);
    let mut task = SingleTask::new(&builder.build()?, 0)?;
    let input = task.input("in").unwrap_or_default();
    let keys: Vec<String> = (0..RECORDS).map(|number| format!("key-{:03}", number * 7 % KEYS)).collect();
    let value = "a value of some thirty bytes, so";
    let mut best = f64::MAX;
    for _ in 0..ROUNDS {
        let start = Instant::now();
        task.run(input, keys.iter().map(|key| (key.as_bytes(), value.as_bytes())))?;
        best = best.min(start.elapsed().as_nanos() as f64 / RECORDS as f64);
        task.commit()?;
    }
    Ok(best)
}
