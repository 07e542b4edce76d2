//! Records through one task, bytes to bytes: `cargo bench --bench pipeline`.

#![allow(
    clippy::disallowed_methods,
    clippy::indexing_slicing,
    clippy::expect_used,
    missing_docs,
    reason = "a bench measures time, and has to run to its end"
)]

mod measure;

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, criterion_group, criterion_main};
use kstreams::*;

const RECORDS: usize = 2_000;

fn pipeline(criterion: &mut Criterion) {
    row(criterion, "source, sink", |s| s, |s| s);
    row(criterion, "source, 5 operators, sink", |s| five(s, |v| v ^ 0x55), |s| five(s, keep_text));
    row_to(criterion, "fan-out to 3 sinks", fan_out, fan_out);
    row_to(criterion, "count, 100 keys", count, count);
    remake(criterion);
}

criterion_group!(benches, pipeline);
criterion_main!(benches);

fn keep_text(mut text: String) -> String {
    text.pop();
    text.push('x');
    text
}

fn five<V: Clone + 'static>(stream: KStream<V, V>, change: fn(V) -> V) -> KStream<V, V> {
    let stream = stream.filter(|_, _| true).map_values(change).filter(|_, _| true);
    stream.map_values(change).filter(|_, _| true)
}

fn fan_out<S: Serde<Item: Clone> + Copy>(stream: KStream<S::Item, S::Item>, serde: S) {
    for topic in ["out-1", "out-2"] {
        stream.clone().to(topic, Produced::with(serde, serde));
    }
    stream.to("out-3", Produced::with(serde, serde));
}

fn count<S: Serde<Item: Clone> + Copy>(stream: KStream<S::Item, S::Item>, serde: S) {
    let counts = stream.group_by_key(Grouped::with(serde, serde)).count(Materialized::default());
    counts.to_stream().to("out", Produced::with(serde, I64));
}

fn row(
    criterion: &mut Criterion,
    name: &str,
    longs: impl FnOnce(KStream<i64, i64>) -> KStream<i64, i64>,
    texts: impl FnOnce(KStream<String, String>) -> KStream<String, String>,
) {
    row_to(
        criterion,
        name,
        |stream, serde| longs(stream).to("out", Produced::with(serde, serde)),
        |stream, serde| texts(stream).to("out", Produced::with(serde, serde)),
    );
}

fn row_to(
    criterion: &mut Criterion,
    name: &str,
    longs: impl FnOnce(KStream<i64, i64>, I64),
    texts: impl FnOnce(KStream<String, String>, Utf8),
) {
    let numbers: Vec<[u8; 8]> = (0..100i64).map(i64::to_be_bytes).collect();
    let words: Vec<String> = (0..100).map(|number| format!("a line of text {number}")).collect();
    let mut group = criterion.benchmark_group(name);
    measure(&mut group, "i64", I64, longs, |number| &numbers[number % 100]);
    measure(&mut group, "text", Utf8, texts, |number| words[number % 100].as_bytes());
}

fn measure<'a, S: Serde<Item: Clone> + Copy>(
    group: &mut BenchmarkGroup<'_, WallTime>,
    name: &str,
    serde: S,
    wire: impl FnOnce(KStream<S::Item, S::Item>, S),
    bytes: impl Fn(usize) -> &'a [u8],
) {
    let builder = StreamsBuilder::new();
    wire(builder.stream("in", Consumed::with(serde, serde)), serde);
    let mut task = SingleTask::new(&builder.build().expect("builds"), 0).expect("a task");
    let input = task.input("in").unwrap_or_default();
    measure::rounds(group, name, RECORDS, &mut task, |task| {
        task.run(input, (0..RECORDS).map(|number| (bytes(number), bytes(number)))).map(|_| ())
    });
}

fn remake(criterion: &mut Criterion) {
    let builder = StreamsBuilder::new();
    five(builder.stream("in", Consumed::with(I64, I64)), |v| v + 1).to("out", Produced::with(I64, I64));
    let mut task = SingleTask::new(&builder.build().expect("builds"), 0).expect("a task");
    criterion.bench_function("make a pipeline of 7 nodes", |bencher| {
        bencher.iter(|| task.rewind().expect("is made again"));
    });
}
