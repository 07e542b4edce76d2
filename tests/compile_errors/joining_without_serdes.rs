//! A join may repartition its stream, and then records are written and read.

use kstreams::*;

fn main() {
    let builder = StreamsBuilder::new();
    let customers = builder.table("customers", Consumed::with(Utf8, Utf8), Materialized::named("customers"));
    builder.stream("orders", Consumed::with(Utf8, I64)).join(&customers, |amount, name| format!("{amount} {name}"));
}
