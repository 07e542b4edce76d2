//! Cogroups are aggregated by windows of time.

use kstreams::*;

fn main() {
    let builder = StreamsBuilder::new();
    let orders = builder.stream("orders", Consumed::with(Utf8, I64)).group_by_key(Grouped::with(Utf8, I64));
    orders.cogroup(|_, amount, sum: i64| sum + amount).windowed_by(CountWindows::tumbling(3));
}
