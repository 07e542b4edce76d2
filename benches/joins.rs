//! Nanoseconds per record of joins of two streams, bytes to bytes, the best of many rounds: `cargo bench --bench joins`.
//!
//! Each round takes 2,000 records of one side and then 2,000 of the other, each with a key of its own, so that every record
//! of the second side finds one partner; what is older than a round is outside of the window, and expires two rounds later.

#![allow(
    clippy::print_stdout,
    clippy::disallowed_methods,
    clippy::indexing_slicing,
    reason = "a bench measures time and prints it"
)]

use std::time::{Duration, Instant};

use kstreams::*;

const ROUNDS: usize = 100;
const RECORDS: usize = 2_000;

fn main() -> Result<()> {
    println!("{:36} {:>8} {:>8}", "ns per record", "disk", "memory");
    row("inner", |left, right, windows, joined| {
        left.join_stream(right, |l, r| i64::try_from(l.len() + r.len()).unwrap_or(0), windows, joined)
    })?;
    row("left, every second finds nobody", |left, right, windows, joined| {
        let right = right.filter(|key, _| !key.ends_with(['1', '3', '5', '7', '9']));
        left.left_join_stream(
            right,
            |l, r| i64::try_from(l.len() + r.map_or(0, String::len)).unwrap_or(0),
            windows,
            joined,
        )
    })?;
    row("outer, all find somebody", |left, right, windows, joined| {
        let length = |text: Option<&String>| text.map_or(0, String::len);
        let joiner = move |l: Option<&String>, r: Option<&String>| i64::try_from(length(l) + length(r)).unwrap_or(0);
        left.outer_join_stream(right, joiner, windows, joined)
    })?;
    Ok(())
}

type Join = fn(
    KStream<String, String>,
    KStream<String, String>,
    JoinWindows,
    StreamJoined<String, String, String>,
) -> KStream<String, i64>;

/// Both layouts of rows, each over the engine in memory.
fn row(name: &str, join: Join) -> Result<()> {
    let joined = || StreamJoined::with(Utf8, Utf8, Utf8);
    let (disk, memory) = (measure(join, joined())?, measure(join, joined().in_memory())?);
    println!("{name:36} {disk:>8.0} {memory:>8.0}");
    Ok(())
}

fn measure(join: Join, joined: StreamJoined<String, String, String>) -> Result<f64> {
    let builder = StreamsBuilder::new();
    let text = || Consumed::with(Utf8, Utf8);
    let windows = JoinWindows::of_time_difference_with_no_grace(Duration::from_millis(3 * RECORDS as u64 / 2));
    let stream = join(builder.stream("left", text()), builder.stream("right", text()), windows, joined);
    stream.to("out", Produced::with(Utf8, I64));
    let mut task = SingleTask::new(&builder.build()?, 0)?;
    let inputs = [task.input("left").unwrap_or_default(), task.input("right").unwrap_or_default()];
    let keys: Vec<String> = (0..RECORDS).map(|number| format!("key-{number:05}")).collect();
    let value = "a value of some thirty bytes, so";
    let mut best = f64::MAX;
    for _ in 0..ROUNDS {
        let start = Instant::now();
        for input in inputs {
            task.run(input, keys.iter().map(|key| (key.as_bytes(), value.as_bytes())))?;
        }
        best = best.min(start.elapsed().as_nanos() as f64 / (2 * RECORDS) as f64);
        task.commit()?;
    }
    Ok(best)
}
