//! Records that fail, and what of them goes to the dead-letter topic. What Java does was tried with Kafka Streams 4.3.1.

use std::time::Duration;

use crate::*;

/// Goes on after everything.
fn continuing(builder: StreamsBuilder, cache_bytes_max: usize) -> Driver {
    let proceed = ErrorHandler::log_and_continue;
    let config = Config::new("app", "embedded://").cache_bytes(cache_bytes_max).dead_letter_topic("dead");
    let config = config.processing_handler(proceed()).production_handler(proceed());
    let inner = TopologyTestDriver::with_config(&builder.build().unwrap(), &config).unwrap();
    Driver { inner, seen: 0 }
}

/// All dead letters so far as `key value @timestamp headers`, without the texts of errors, which are ours.
fn dead(driver: &Driver) -> Vec<String> {
    let text = |bytes: Option<&[u8]>| bytes.map_or("-".to_owned(), |bytes| String::from_utf8_lossy(bytes).into_owned());
    let letters = driver.inner.produced().iter().filter(|record| &*record.topic == "dead");
    let shown = letters.map(|letter| {
        let headers =
            letter.headers.iter().map(|(key, value)| (key.trim_start_matches("__streams.errors."), text(value)));
        let headers = headers.filter(|(key, _)| !["exception", "message", "stacktrace"].contains(key));
        let headers: Vec<String> = headers.map(|(key, value)| format!("{key}={value}")).collect();
        let (key, value) = (text(letter.key.as_deref()), text(letter.value.as_deref()));
        format!("{key} {value} @{} {}", letter.timestamp, headers.join(" "))
    });
    shown.collect()
}

fn header(key: &str, value: &str) -> Headers {
    let mut headers = Headers::new();
    headers.add(key, value);
    headers
}

fn send(driver: &mut Driver, key: &str, value: &str, at: i64, headers: Headers) {
    driver.inner.enqueue("in", Some(key.as_bytes()), Some(value.as_bytes()), at, headers).unwrap();
}

fn fail_on_bad(value: String) -> String {
    assert!(!value.contains("bad"), "boom");
    value
}

/// Text, but none with an `unsaid`.
#[derive(Debug, Clone, Copy)]
struct Picky;

impl Serde for Picky {
    type Item = String;

    fn serialize(&self, item: &String, out: &mut Vec<u8>) -> Result<()> {
        if item.contains("unsaid") {
            return Err(Error::user("rather not"));
        }
        Utf8.serialize(item, out)
    }

    fn deserialize(&self, bytes: &[u8]) -> Result<String> {
        Utf8.deserialize(bytes)
    }
}

/// Sends each record on under another key, 100 ms later and with one more header.
struct Change;

impl Processor<String, String> for Change {
    type KeyOut = String;
    type ValueOut = String;

    fn process(
        &mut self,
        mut record: Record<String, String>,
        ctx: &mut ProcessorContext<'_, String, String>,
    ) -> Result<()> {
        record.headers.add("added", "x");
        let later = record.timestamp + 100;
        ctx.forward(record.with_key("new".to_owned()).with_timestamp(later))
    }
}

#[test]
fn a_dead_letter_is_the_source_record_with_the_time_and_headers_of_the_record_in_hand() {
    let builder = StreamsBuilder::new();
    let changed = builder.stream("in", text()).process(|_| Ok(Change), Processed::default());
    changed.map_values(fail_on_bad).to("out", Produced::with(Utf8, Picky));
    let mut driver = continuing(builder, 0);
    send(&mut driver, "k", "bad", 5, header("h", "1"));
    send(&mut driver, "k", "unsaid", 6, header("h", "2"));
    send(&mut driver, "k", "fine", 7, Headers::new());
    driver.inner.process().unwrap();
    let expected = [
        "k bad @105 h=1 added=x topic=in partition=0 offset=0",
        "k unsaid @106 h=2 added=x topic=in partition=0 offset=1",
    ];
    assert_eq!(dead(&driver), expected);
    assert_eq!(driver.drain().len(), 3);
}

#[test]
fn what_a_handler_discards_is_no_dead_letter() {
    let builder = StreamsBuilder::new();
    builder.stream("in", text()).map_values(fail_on_bad).to("out", Produced::with(Utf8, Picky));
    let discard = || ErrorHandler::new(|_, _| HandlerResponse::Discard);
    let config = Config::new("app", "embedded://").dead_letter_topic("dead");
    let config = config.processing_handler(discard()).production_handler(discard());
    let inner = TopologyTestDriver::with_config(&builder.build().unwrap(), &config).unwrap();
    let mut driver = Driver { inner, seen: 0 };
    for value in ["bad", "unsaid"] {
        assert!(driver.pipe("in", "k", value, 1).is_empty());
    }
    assert_eq!(driver.pipe("in", "k", "fine", 1), ["out k fine @1"]);
    assert_eq!(driver.inner.dropped_records(), 2);
}

#[test]
fn behind_a_node_that_clears_them_a_dead_letter_has_no_headers() {
    struct Clear;
    impl Processor<String, String> for Clear {
        type KeyOut = String;
        type ValueOut = String;
        fn process(
            &mut self,
            record: Record<String, String>,
            ctx: &mut ProcessorContext<'_, String, String>,
        ) -> Result<()> {
            let is_late = record.value == "late";
            ctx.forward(record.with_headers(Headers::new()))?;
            if is_late { Err(Error::user("too late")) } else { Ok(()) }
        }
    }
    let builder = StreamsBuilder::new();
    let cleared = builder.stream("in", text()).process(|_| Ok(Clear), Processed::default());
    cleared.map_values(fail_on_bad).to("out", to_text());
    let mut driver = continuing(builder, 0);
    send(&mut driver, "k", "bad", 5, header("h", "1"));
    send(&mut driver, "k", "late", 6, header("h", "2"));
    driver.inner.process().unwrap();
    let expected = ["k bad @5 topic=in partition=0 offset=0", "k late @6 h=2 topic=in partition=0 offset=1"];
    assert_eq!(dead(&driver), expected, "the node itself has those of its own record again");
}

/// Fails, or sends something on that does.
struct Punctual {
    fails: bool,
}

impl Processor<String, String> for Punctual {
    type KeyOut = String;
    type ValueOut = String;

    fn process(
        &mut self,
        record: Record<String, String>,
        ctx: &mut ProcessorContext<'_, String, String>,
    ) -> Result<()> {
        ctx.forward(record)
    }

    fn punctuate(&mut self, _: Punctuation, at: i64, ctx: &mut ProcessorContext<'_, String, String>) -> Result<()> {
        if self.fails {
            return Err(Error::user("boom"));
        }
        let record = Record::new("p".to_owned(), "bad".to_owned(), at + 1000);
        ctx.forward(record.with_headers(header("own", "2")))
    }
}

#[test]
fn a_dead_letter_of_a_punctuation_is_of_no_record() {
    let cases = [
        (PunctuationType::StreamTime, true, "- - @5 topic=- partition=-1 offset=-1"),
        (PunctuationType::WallClockTime, true, "- - @20 topic=- partition=-1 offset=-1"),
        (PunctuationType::StreamTime, false, "- - @1005 own=2 topic=- partition=-1 offset=-1"),
    ];
    for (kind, fails, expected) in cases {
        let builder = StreamsBuilder::new();
        let punctual = move |init: &mut ProcessorInit<'_>| {
            init.schedule(Duration::from_millis(10), kind);
            Ok(Punctual { fails })
        };
        let stream = builder.stream("in", text()).process(punctual, Processed::default());
        stream.map_values(fail_on_bad).to("out", to_text());
        let mut driver = continuing(builder, 0);
        send(&mut driver, "k", "v", 5, header("h", "1"));
        driver.inner.process().unwrap();
        driver.inner.advance_wall_clock(Duration::from_millis(20)).unwrap();
        assert_eq!(dead(&driver), [expected], "{kind:?}");
    }
}

#[test]
fn what_a_cache_has_held_back_is_a_dead_letter_of_its_own_record() {
    for cache_bytes_max in [0, 100_000] {
        let builder = StreamsBuilder::new();
        let grouped = builder.stream("in", text()).group_by_key(grouped());
        let reduced = grouped.reduce(|one, other| one + &other, Materialized::named("reduced"));
        reduced
            .to_stream_with(Option::unwrap_or_default)
            .map_values(fail_on_bad)
            .to("out", Produced::with(Utf8, Picky));
        let mut driver = continuing(builder, cache_bytes_max);
        send(&mut driver, "a", "bad", 5, header("h", "1"));
        send(&mut driver, "b", "unsaid", 6, header("h", "2"));
        send(&mut driver, "c", "fine", 7, header("h", "3"));
        driver.inner.process_without_commit().unwrap();
        driver.inner.commit().unwrap();
        let expected = ["a bad @5 h=1 topic=in partition=0 offset=0", "b unsaid @6 h=2 topic=in partition=0 offset=1"];
        assert_eq!(dead(&driver), expected, "{cache_bytes_max}");
    }
}

#[test]
fn a_full_cache_gives_each_dead_letter_its_own_record() {
    let builder = StreamsBuilder::new();
    let grouped = builder.stream("in", text()).group_by_key(grouped());
    let windowed = grouped.windowed_by(TimeWindows::of_size_with_no_grace(Duration::from_millis(1000)));
    let reduced = windowed.reduce(|one, other| one + &other, Materialized::named("reduced"));
    reduced
        .to_stream_with(Option::unwrap_or_default)
        .map(|key, value| (key.key, fail_on_bad(value)))
        .to("out", to_text());
    let mut driver = continuing(builder, 300);
    for number in 0..4 {
        send(&mut driver, &format!("k{number}"), "bad", number, header("number", &number.to_string()));
    }
    driver.inner.process_without_commit().unwrap();
    driver.inner.commit().unwrap();
    let letter = |number| format!("k{number} bad @{number} number={number} topic=in partition=0 offset={number}");
    assert_eq!(dead(&driver), (0..4).map(letter).collect::<Vec<_>>());
}

#[test]
fn a_negative_time_is_a_failure_of_the_processor_that_forwards_it() {
    struct Back;
    impl Processor<String, String> for Back {
        type KeyOut = String;
        type ValueOut = String;
        fn process(
            &mut self,
            record: Record<String, String>,
            ctx: &mut ProcessorContext<'_, String, String>,
        ) -> Result<()> {
            let earlier = record.timestamp - 10;
            ctx.forward(record.with_timestamp(earlier))
        }
    }
    struct FixedBack;
    impl FixedKeyProcessor<String, String> for FixedBack {
        type ValueOut = String;
        fn process(
            &mut self,
            record: FixedKeyRecord<String, String>,
            ctx: &mut FixedKeyContext<'_, '_, String, String>,
        ) -> Result<()> {
            let earlier = record.timestamp - 10;
            ctx.forward(record.with_timestamp(earlier))
        }
    }
    let free = |builder: &StreamsBuilder| {
        builder.stream("in", text()).named("back").process(|_| Ok(Back), Processed::default()).to("out", to_text());
    };
    let fixed = |builder: &StreamsBuilder| {
        let stream = builder.stream("in", text()).named("back");
        stream.process_values(|_| Ok(FixedBack), Processed::default()).to("out", to_text());
    };
    for build in [&free as &dyn Fn(&StreamsBuilder), &fixed] {
        let builder = StreamsBuilder::new();
        build(&builder);
        let error = Driver::new(builder).pipe_raw("in", Some(b"k"), Some(b"v"), 5).unwrap_err();
        assert_eq!((error.kind(), error.node()), (ErrorKind::User, Some("back")));
        assert!(error.report().contains("negative timestamp -5"), "{}", error.report());
        let builder = StreamsBuilder::new();
        build(&builder);
        let mut driver = continuing(builder, 0);
        assert_eq!(driver.pipe("in", "k", "v", 5), ["dead k v @5"]);
        assert_eq!(driver.pipe("in", "k", "v", 10), ["out k v @0"]);
    }
}

#[test]
fn sliding_windows_without_length_fail_at_each_record() {
    let sliding = || {
        let builder = StreamsBuilder::new();
        let windows = SlidingWindows::of_time_difference_with_no_grace(Duration::ZERO);
        let counts = builder.stream("in", text()).group_by_key(grouped()).windowed_by(windows);
        let counts = counts.count(Materialized::named("counts")).to_stream();
        counts.map(|key, count| (key.key, count.unwrap_or_default())).to("out", Produced::with(Utf8, I64));
        builder
    };
    let error = Driver::new(sliding()).pipe_raw("in", Some(b"k"), Some(b"v"), 0).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::User, "{}", error.report());
    let mut driver = continuing(sliding(), 0);
    assert_eq!(driver.pipe("in", "k", "v", 0), ["dead k v @0"]);
    assert_eq!(driver.pipe("in", "k", "v", 5), ["dead k v @5"]);
    assert_eq!(driver.inner.dropped_records(), 2);
}
