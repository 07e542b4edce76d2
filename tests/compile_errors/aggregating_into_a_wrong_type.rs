//! The aggregator gives what the store holds.

use kstreams::*;

fn main() {
    let builder = StreamsBuilder::new();
    let orders = builder.stream("orders", Consumed::with(Utf8, I64)).group_by_key(Grouped::with(Utf8, I64));
    orders.aggregate(|| 0_i64, |_customer, amount, sum| format!("{sum}+{amount}"), Materialized::with(Utf8, I64));
}
