//! Every task makes a processor of its own: a maker cannot give one away twice.

use kstreams::*;

struct Forward;

impl Processor<String, String> for Forward {
    type KeyOut = String;
    type ValueOut = String;

    fn process(&mut self, record: Record<String, String>, ctx: &mut ProcessorContext<'_, String, String>) -> Result<()> {
        ctx.forward(record)
    }
}

fn main() {
    let one = Forward;
    let builder = StreamsBuilder::new();
    builder.stream("in", Consumed::with(Utf8, Utf8)).process(move |_| Ok(one), Processed::default());
}
