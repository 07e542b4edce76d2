use kstreams::*;

fn main() {
    let builder = StreamsBuilder::new();
    let customers = builder.table("customers", Consumed::with(Utf8, Utf8), Materialized::named("customers"));
    // The stream may have to be repartitioned, and then its records are written and read.
    builder.stream("orders", Consumed::with(Utf8, I64)).join(&customers, |amount, name| format!("{amount} {name}"));
}
