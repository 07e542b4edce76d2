//! Windows are windows of a key: a stream is grouped first.

use kstreams::*;
use std::time::Duration;

fn main() {
    let builder = StreamsBuilder::new();
    let orders = builder.stream("orders", Consumed::with(Utf8, I64));
    orders.windowed_by(TimeWindows::of_size_with_no_grace(Duration::from_secs(60)));
}
