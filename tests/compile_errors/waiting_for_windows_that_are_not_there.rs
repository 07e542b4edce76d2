//! What waits until a window has closed has a window in its key.

use kstreams::*;

fn main() {
    let builder = StreamsBuilder::new();
    let customers = builder.table("customers", Consumed::with(Utf8, Utf8), Materialized::named("customers"));
    customers.suppress(Suppressed::until_window_closes(BufferConfig::unbounded()));
}
