//! What is joined has keys of one type.

use kstreams::*;

fn main() {
    let builder = StreamsBuilder::new();
    let customers = builder.table("customers", Consumed::with(I64, Utf8), Materialized::named("customers"));
    let orders = builder.stream("orders", Consumed::with(Utf8, I64));
    orders.join(&customers, |amount, name| format!("{amount} {name}"), Joined::with(Utf8, I64));
}
