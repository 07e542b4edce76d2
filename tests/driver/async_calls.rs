//! Values that come from calls.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::*;

fn with_handler(builder: StreamsBuilder, handler: ErrorHandler) -> Driver {
    let config = Config::new("app", "embedded://").cache_bytes(0).processing_handler(handler).dead_letter_topic("dead");
    let inner = TopologyTestDriver::with_config(&builder.build().unwrap(), &config).unwrap();
    Driver { inner, seen: 0 }
}

#[test]
fn a_call_gives_a_record_its_value() {
    let builder = StreamsBuilder::new();
    let call = |key: &String, value: &String| {
        let text = format!("{key}:{}", value.to_uppercase());
        async move { Ok(text) }
    };
    let stream = builder.stream("in", text()).map_values_async(call, AsyncCalls::at_most(10));
    stream
        .group_by_key(grouped())
        .count(Materialized::named("counts"))
        .to_stream()
        .to("out", Produced::with(Utf8, I64));
    let mut driver = Driver::with_cache(builder, 1_000_000);
    assert_eq!(driver.pipe("in", "a", "x", 3), ["out a 1 @3"]);
    assert!(driver.hold("in", "a", Some("y"), 4).is_empty());
    assert_eq!(driver.commit(), ["out a 2 @4"]);
}

#[test]
fn a_call_that_fails_is_tried_again_and_then_goes_to_the_handler() {
    let tries = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&tries);
    let call = move |_: &String, value: &String| {
        let (tried, value) = (counted.fetch_add(1, Ordering::SeqCst), value.clone());
        async move {
            match value.as_str() {
                "second" if tried % 2 == 0 => Err(Error::user("not now")),
                "never" => Err(Error::user("never")),
                "hangs" => std::future::pending().await,
                _ => Ok(value),
            }
        }
    };
    let builder = StreamsBuilder::new();
    let calls = AsyncCalls::at_most(1).with_retries(1).with_timeout(Duration::from_millis(20));
    builder.stream("in", text()).map_values_async(call, calls).to("out", to_text());
    let mut driver = with_handler(builder, ErrorHandler::log_and_continue());
    assert_eq!(driver.pipe("in", "a", "second", 1), ["out a second @1"]);
    assert_eq!(tries.load(Ordering::SeqCst), 2);
    assert_eq!(driver.pipe("in", "a", "never", 2), ["dead a never @2"]);
    assert_eq!(driver.pipe("in", "a", "hangs", 3), ["dead a hangs @3"]);
    assert_eq!(driver.pipe("in", "a", "fine", 4), ["out a fine @4"]);
    assert_eq!(driver.inner.dropped_records(), 2);
}

#[test]
fn a_call_that_fails_for_good_ends_the_task_unless_the_handler_goes_on() {
    let builder = StreamsBuilder::new();
    let call = |_: &String, _: &String| async { Err::<String, _>(Error::user("no answer")) };
    builder.stream("in", text()).map_values_async(call, AsyncCalls::at_most(1)).to("out", to_text());
    let mut driver = Driver::new(builder);
    let error = driver.pipe_raw("in", Some(b"a"), Some(b"x"), 1).unwrap_err();
    assert!(error.report().contains("no answer") && error.report().contains("in[0]@0"), "{}", error.report());
}

#[test]
fn a_panic_of_a_call_is_a_failure_of_its_record() {
    let builder = StreamsBuilder::new();
    let call = |_: &String, value: &String| {
        assert!(value != "at once", "boom at once");
        let later = value == "later";
        async move {
            assert!(!later, "boom later");
            Ok(1)
        }
    };
    let stream = builder.stream("in", text()).map_values_async(call, AsyncCalls::at_most(5));
    stream.to("out", Produced::with(Utf8, I64));
    let mut driver = with_handler(builder, ErrorHandler::log_and_continue());
    assert_eq!(driver.pipe("in", "a", "at once", 1), ["dead a at once @1"]);
    assert_eq!(driver.pipe("in", "a", "later", 2), ["dead a later @2"]);
    assert_eq!(driver.pipe("in", "a", "fine", 3), ["out a 1 @3"]);
}
