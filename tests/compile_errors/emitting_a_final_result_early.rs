//! A final result is one only once its window has closed: a buffer that is full may not give it away before.

use kstreams::*;
use std::time::Duration;

fn main() {
    let builder = StreamsBuilder::new();
    let orders = builder.stream("orders", Consumed::with(Utf8, I64)).group_by_key(Grouped::with(Utf8, I64));
    let minutes = TimeWindows::of_size_with_no_grace(Duration::from_secs(60));
    let counts = orders.windowed_by(minutes).count(Materialized::named("counts"));
    counts.suppress(Suppressed::until_window_closes(BufferConfig::max_records(9).emit_early_when_full()));
}
