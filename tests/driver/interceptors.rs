//! What stands around the calls of processors (KIP-1112), and schedules with a beginning.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use kstreams::*;

/// Remembers the calls, and lets no value `secret` pass a mapper.
#[derive(Clone, Default)]
struct Watch(Arc<Mutex<Vec<String>>>);

impl ProcessorInterceptor for Watch {
    fn intercept(&self, at: &Interception<'_>, call: &mut dyn FnMut() -> Result<()>) -> Result<()> {
        if at.kind == CallKind::Record {
            self.0.lock().unwrap().push(format!("{}@{} begins", at.node, at.timestamp));
        }
        let result = call();
        if at.kind == CallKind::Record {
            self.0.lock().unwrap().push(format!("{} ends", at.node));
        }
        result.map_err(|error| Error::user("seen by the watch").with_source(error))
    }
}

fn driver(config: &Config) -> TopologyTestDriver {
    let builder = StreamsBuilder::new();
    builder
        .stream("in", Consumed::with(Utf8, Utf8))
        .named("upper")
        .map_values(|value| value.to_uppercase())
        .named("check")
        .filter(|_, value| {
            assert!(value != "BAD", "bad value");
            true
        })
        .to("out", Produced::with(Utf8, Utf8).named("sink"));
    TopologyTestDriver::with_config(&builder.build().unwrap(), config).unwrap()
}

#[test]
fn every_call_of_every_processor_is_seen_from_outside_in() {
    let watch = Watch::default();
    let mut driver = driver(&Config::new("app", "embedded://").processor_interceptor(watch.clone()));
    driver.pipe_raw("in", Some(b"k"), Some(b"v"), 7, Headers::new()).unwrap();
    let seen = watch.0.lock().unwrap().join(", ");
    assert_eq!(seen, "upper@7 begins, check@7 begins, sink@7 begins, sink ends, check ends, upper ends");
    assert_eq!(driver.produced().len(), 1);
}

#[test]
fn a_failure_passes_the_interceptor_before_the_handler_decides() {
    let config = Config::new("app", "embedded://").processor_interceptor(Watch::default());
    let mut failing = driver(&config);
    // A panic is no value that could be looked at.
    let error = failing.pipe_raw("in", Some(b"k"), Some(b"bad"), 1, Headers::new()).unwrap_err();
    assert!(error.report().contains("bad value"), "{}", error.report());
    let mut lenient = driver(&config.processing_handler(ErrorHandler::log_and_continue()));
    lenient.pipe_raw("in", Some(b"k"), Some(b"bad"), 1, Headers::new()).unwrap();
    lenient.pipe_raw("in", Some(b"k"), Some(b"good"), 2, Headers::new()).unwrap();
    assert_eq!((lenient.produced().len(), lenient.dropped_records()), (1, 1));
}

/// Never makes the call.
struct Nothing;

impl ProcessorInterceptor for Nothing {
    fn intercept(&self, at: &Interception<'_>, call: &mut dyn FnMut() -> Result<()>) -> Result<()> {
        if at.node == "check" { Ok(()) } else { call() }
    }
}

#[test]
fn a_call_that_is_not_made_ends_the_way_of_the_record() {
    let mut driver = driver(&Config::new("app", "embedded://").processor_interceptor(Nothing));
    driver.pipe_raw("in", Some(b"k"), Some(b"v"), 7, Headers::new()).unwrap();
    assert!(driver.produced().is_empty());
}

/// Schedules from a time on with its first record, and forwards when it is called.
#[derive(Default)]
struct Late(bool);

impl Processor<String, String> for Late {
    type KeyOut = String;
    type ValueOut = String;

    fn process(&mut self, _: Record<String, String>, ctx: &mut ProcessorContext<'_, String, String>) -> Result<()> {
        if !std::mem::replace(&mut self.0, true) {
            ctx.schedule_from(35, Duration::from_millis(10), PunctuationType::WallClockTime);
        }
        Ok(())
    }

    fn punctuate(&mut self, _: Punctuation, now: i64, ctx: &mut ProcessorContext<'_, String, String>) -> Result<()> {
        ctx.forward(Record::new("at".to_owned(), now.to_string(), now))
    }
}

#[test]
fn a_schedule_with_a_beginning_keeps_to_its_grid_and_a_pause_is_no_burst() {
    let builder = StreamsBuilder::new();
    builder
        .stream("in", Consumed::with(Utf8, Utf8))
        .process(|_| Ok(Late::default()), Processed::default())
        .to("out", Produced::with(Utf8, Utf8));
    let mut driver = TopologyTestDriver::new(&builder.build().unwrap()).unwrap();
    driver.pipe_raw("in", Some(b"k"), Some(b"v"), 0, Headers::new()).unwrap();
    let out = driver.create_output_topic("out", Utf8, Utf8);
    let mut after = |millis| {
        driver.advance_wall_clock(Duration::from_millis(millis)).unwrap();
        out.read_key_values(&mut driver).unwrap().into_iter().map(|(_, at)| at).collect::<Vec<_>>()
    };
    assert!(after(34).is_empty());
    assert_eq!(after(1), ["35"]);
    assert!(after(9).is_empty());
    assert_eq!(after(1), ["45"]);
    assert_eq!(after(103), ["148"], "ten times missed are one call");
    assert_eq!(after(7), ["155"]);
}
