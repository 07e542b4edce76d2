//! Joins of two streams, bytes to bytes: `cargo bench --bench joins`. Both layouts of rows, each over the engine in memory.
//!
//! Each round takes 2,000 records of one side and then 2,000 of the other, each with a key of its own, so that every record
//! of the second side finds one partner; what is older than a round is outside of the window, and expires two rounds later.

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

fn joins(criterion: &mut Criterion) {
    row(criterion, "inner", |left, right, windows, joined| {
        left.join_stream(right, |l, r| i64::try_from(l.len() + r.len()).unwrap_or(0), windows, joined)
    });
    row(criterion, "left, every second finds nobody", |left, right, windows, joined| {
        let right = right.filter(|key, _| !key.ends_with(['1', '3', '5', '7', '9']));
        left.left_join_stream(
            right,
            |l, r| i64::try_from(l.len() + r.map_or(0, String::len)).unwrap_or(0),
            windows,
            joined,
        )
    });
    row(criterion, "outer, all find somebody", |left, right, windows, joined| {
        let length = |text: Option<&String>| text.map_or(0, String::len);
        let joiner = move |l: Option<&String>, r: Option<&String>| i64::try_from(length(l) + length(r)).unwrap_or(0);
        left.outer_join_stream(right, joiner, windows, joined)
    });
}

criterion_group!(benches, joins);
criterion_main!(benches);

type Join = fn(
    KStream<String, String>,
    KStream<String, String>,
    JoinWindows,
    StreamJoined<String, String, String>,
) -> KStream<String, i64>;

fn row(criterion: &mut Criterion, name: &str, join: Join) {
    let mut group = criterion.benchmark_group(name);
    let joined = || StreamJoined::with(Utf8, Utf8, Utf8);
    let keys: Vec<String> = (0..RECORDS).map(|number| format!("key-{number:05}")).collect();
    let value = "a value of some thirty bytes, so";
    for (layout, joined) in [("disk", joined()), ("memory", joined().in_memory())] {
        let mut task = task(join, joined).expect("a task");
        let inputs = ["left", "right"].map(|topic| task.input(topic).unwrap_or_default());
        measure::rounds(&mut group, layout, 2 * RECORDS, &mut task, |task| {
            for input in inputs {
                task.run(input, keys.iter().map(|key| (key.as_bytes(), value.as_bytes())))?;
            }
            Ok(())
        });
    }
}

fn task(join: Join, joined: StreamJoined<String, String, String>) -> Result<SingleTask> {
    let builder = StreamsBuilder::new();
    let text = || Consumed::with(Utf8, Utf8);
    let windows = JoinWindows::of_time_difference_with_no_grace(Duration::from_millis(3 * RECORDS as u64 / 2));
    let stream = join(builder.stream("left", text()), builder.stream("right", text()), windows, joined);
    stream.to("out", Produced::with(Utf8, I64));
    SingleTask::new(&builder.build()?, 0)
}
