//! A sink writes what its stream holds.

use kstreams::*;

fn main() {
    let builder = StreamsBuilder::new();
    builder.stream("orders", Consumed::with(Utf8, I64)).to("out", Produced::with(Utf8, Utf8));
}
