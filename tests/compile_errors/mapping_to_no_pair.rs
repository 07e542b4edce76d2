//! A mapper gives a key and a value: there is no null to give instead.

use kstreams::*;

fn main() {
    let builder = StreamsBuilder::new();
    let lines = builder.stream("lines", Consumed::with(Utf8, Utf8));
    lines.map(|key, line| None::<(String, String)>);
}
