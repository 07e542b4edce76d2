//! Nanoseconds per record through one task, bytes to bytes, the best of many rounds: `cargo bench --bench pipeline`.

#![allow(
    clippy::print_stdout,
    clippy::disallowed_methods,
    clippy::indexing_slicing,
    reason = "a bench measures time and prints it"
)]

use std::time::Instant;

use kstreams::*;

const ROUNDS: usize = 200;
const RECORDS: usize = 2_000;

fn main() -> Result<()> {
    println!("{:36} {:>8} {:>8}", "ns per record", "i64", "text");
    row("source, sink", |s| s, |s| s)?;
    row("source, 5 operators, sink", |s| five(s, |v| v ^ 0x55), |s| five(s, keep_text))?;
    row_to("fan-out to 3 sinks", fan_out, fan_out)?;
    row_to("count, 100 keys", count, count)?;
    println!("{:36} {:>8.0}", "make a pipeline of 7 nodes", remake()?);
    Ok(())
}

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
    name: &str,
    longs: impl FnOnce(KStream<i64, i64>) -> KStream<i64, i64>,
    texts: impl FnOnce(KStream<String, String>) -> KStream<String, String>,
) -> Result<()> {
    row_to(
        name,
        |stream, serde| longs(stream).to("out", Produced::with(serde, serde)),
        |stream, serde| texts(stream).to("out", Produced::with(serde, serde)),
    )
}

fn row_to(
    name: &str,
    longs: impl FnOnce(KStream<i64, i64>, I64),
    texts: impl FnOnce(KStream<String, String>, Utf8),
) -> Result<()> {
    let numbers: Vec<[u8; 8]> = (0..100i64).map(i64::to_be_bytes).collect();
    let words: Vec<String> = (0..100).map(|number| format!("a line of text {number}")).collect();
    let long = measure(I64, longs, |number| &numbers[number % 100])?;
    let text = measure(Utf8, texts, |number| words[number % 100].as_bytes())?;
    println!("{name:36} {long:>8.0} {text:>8.0}");
    Ok(())
}

fn measure<'a, S: Serde<Item: Clone> + Copy>(
    serde: S,
    wire: impl FnOnce(KStream<S::Item, S::Item>, S),
    bytes: impl Fn(usize) -> &'a [u8],
) -> Result<f64> {
    let builder = StreamsBuilder::new();
    wire(builder.stream("in", Consumed::with(serde, serde)), serde);
    let topology = builder.build()?;
    let mut task = SingleTask::new(&topology, 0)?;
    let input = task.input("in").unwrap_or_default();
    let mut best = f64::MAX;
    for _ in 0..ROUNDS {
        let start = Instant::now();
        task.run(input, (0..RECORDS).map(|number| (bytes(number), bytes(number))))?;
        best = best.min(start.elapsed().as_nanos() as f64 / RECORDS as f64);
        task.commit()?;
    }
    Ok(best)
}

fn remake() -> Result<f64> {
    let builder = StreamsBuilder::new();
    five(builder.stream("in", Consumed::with(I64, I64)), |v| v + 1).to("out", Produced::with(I64, I64));
    let mut task = SingleTask::new(&builder.build()?, 0)?;
    let start = Instant::now();
    for _ in 0..ROUNDS {
        task.rewind()?;
    }
    Ok(start.elapsed().as_nanos() as f64 / ROUNDS as f64)
}
