use std::time::Duration;

use super::TopologyTestDriver;
use crate::config::Config;
use crate::dsl::{Grouped, Materialized, StreamsBuilder};
use crate::error::{Error, ErrorKind, Result};
use crate::record::{Headers, Record};
use crate::serdes::{I64, Utf8};
use crate::state::{KeyValueStore, Stores};
use crate::topology::{
    Consumed, Processor, ProcessorContext, Produced, Punctuation, PunctuationType, Topology, TopologyBuilder,
};
use crate::window::TimeWindows;

/// Counts per key; forwards the counts each ten milliseconds of the clock, and every time the count is even.
struct Count(KeyValueStore<String, i64>);

impl Processor<String, String> for Count {
    type KeyOut = String;
    type ValueOut = i64;

    fn process(&mut self, record: Record<String, String>, ctx: &mut ProcessorContext<'_, String, i64>) -> Result<()> {
        if record.value == "bad" {
            return Err(Error::user("boom"));
        }
        let count = self.0.get(ctx, &record.key)?.unwrap_or(0) + 1;
        self.0.put(ctx, &record.key, &count)?;
        if count % 2 == 0 { ctx.forward(record.with_value(count)) } else { Ok(()) }
    }

    fn punctuate(&mut self, _: Punctuation, timestamp: i64, ctx: &mut ProcessorContext<'_, String, i64>) -> Result<()> {
        for (key, count) in self.0.all().collect(ctx)? {
            ctx.forward(Record::new(key, count, timestamp))?;
        }
        Ok(())
    }
}

fn counting() -> Topology {
    let store = Stores::key_value("counts", Utf8, I64);
    let mut builder = TopologyBuilder::new();
    let built = store.clone();
    builder
        .add_source("in", &["words"], Consumed::with(Utf8, Utf8))
        .add_processor(
            "count",
            move |init| {
                init.schedule(Duration::from_millis(10), PunctuationType::WallClockTime);
                Ok(Count(init.store(&built)?))
            },
            &["in"],
        )
        .add_state_store(&store, &["count"])
        .add_sink("out", "totals", Produced::with(Utf8, I64), &["count"]);
    builder.build().unwrap()
}

#[test]
fn a_record_is_processed_with_all_that_it_causes() {
    let mut driver = TopologyTestDriver::new(&counting()).unwrap();
    let words = driver.create_input_topic("words", Utf8, Utf8).with_auto_advance(5, Duration::from_millis(2));
    let totals = driver.create_output_topic("totals", Utf8, I64);
    words.pipe(&mut driver, "a", "x").unwrap();
    assert!(totals.is_empty(&driver));
    words.pipe(&mut driver, "a", "y").unwrap();
    assert_eq!(totals.read(&mut driver).unwrap(), Some(Record::new("a".to_owned(), 2, 7)));
    assert_eq!(totals.read(&mut driver).unwrap(), None);
    let topics: Vec<_> = driver.produced_topics().collect();
    assert_eq!(topics, ["app-counts-changelog", "totals"]);
    let committed: Vec<_> = driver.committed().values().map(|committed| committed.offset).collect();
    assert_eq!(committed, [2]);
}

#[test]
fn the_clock_moves_only_by_the_test() {
    let mut driver = TopologyTestDriver::new(&counting()).unwrap();
    let words = driver.create_input_topic("words", Utf8, Utf8);
    let totals = driver.create_output_topic("totals", Utf8, I64);
    words.pipe(&mut driver, "a", "x").unwrap();
    driver.advance_wall_clock(Duration::from_millis(9)).unwrap();
    assert!(totals.is_empty(&driver));
    driver.advance_wall_clock(Duration::from_millis(1)).unwrap();
    assert_eq!(totals.read_key_values(&mut driver).unwrap(), [("a".to_owned(), 1)]);
}

#[test]
fn a_test_reads_and_writes_stores() {
    let mut driver = TopologyTestDriver::new(&counting()).unwrap();
    let mut counts = driver.key_value_store("counts", Utf8, I64).unwrap();
    counts.put(&mut driver, &"a".to_owned(), &41).unwrap();
    let words = driver.create_input_topic("words", Utf8, Utf8);
    words.pipe(&mut driver, "a", "x").unwrap();
    assert_eq!(counts.get(&mut driver, &"a".to_owned()).unwrap(), Some(42));
    assert!(driver.timestamped_key_value_store("counts", Utf8, I64).is_err(), "of another kind");
    assert!(driver.key_value_store("other", Utf8, I64).is_err());
}

#[test]
fn an_unknown_topic_is_named_with_those_that_are_read() {
    let mut driver = TopologyTestDriver::new(&counting()).unwrap();
    let error = driver.create_input_topic("wrods", Utf8, Utf8).pipe(&mut driver, "a", "x").unwrap_err();
    assert_eq!(error.to_string(), "the topology does not read topic wrods: it reads words");
}

#[test]
fn a_failure_comes_out_of_the_call_that_caused_it() {
    let mut driver = TopologyTestDriver::new(&counting()).unwrap();
    let words = driver.create_input_topic("words", Utf8, Utf8);
    let error = words.pipe(&mut driver, "a", "bad").unwrap_err();
    assert_eq!((error.kind(), error.node()), (ErrorKind::User, Some("count")));
    let error = words.pipe(&mut driver, "a", "good").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Closed);
}

#[test]
fn a_record_waits_for_the_other_topic_while_the_idle_time_lasts() {
    let mut builder = TopologyBuilder::new();
    builder
        .add_source("left", &["l"], Consumed::with(Utf8, Utf8))
        .add_source("right", &["r"], Consumed::with(Utf8, Utf8))
        .add_sink("out", "o", Produced::with(Utf8, Utf8), &["left", "right"]);
    let config = Config::new("app", "embedded://").max_task_idle(Some(Duration::from_millis(10)));
    let mut driver = TopologyTestDriver::with_config(&builder.build().unwrap(), &config).unwrap();
    let left = driver.create_input_topic("l", Utf8, Utf8);
    let out = driver.create_output_topic("o", Utf8, Utf8);
    left.pipe_at(&mut driver, "k", "v", 5).unwrap();
    assert!(out.is_empty(&driver));
    driver.advance_wall_clock(Duration::from_millis(10)).unwrap();
    assert_eq!(out.len(&driver), 1);
}

#[test]
fn what_a_topology_writes_to_its_own_input_comes_back() {
    let mut builder = TopologyBuilder::new();
    builder.add_source("in", &["a"], Consumed::with(Utf8, Utf8)).add_sink(
        "again",
        "b",
        Produced::with(Utf8, Utf8),
        &["in"],
    );
    builder.add_source("back", &["b"], Consumed::with(Utf8, Utf8)).add_sink(
        "out",
        "c",
        Produced::with(Utf8, Utf8),
        &["back"],
    );
    let mut driver = TopologyTestDriver::new(&builder.build().unwrap()).unwrap();
    let input = driver.create_input_topic("a", Utf8, Utf8);
    input.pipe(&mut driver, "k", "v").unwrap();
    let topics: Vec<_> = driver.produced().iter().map(|record| record.topic.to_string()).collect();
    assert_eq!(topics, ["b", "c"]);
}

#[test]
fn generated_names_are_refused_where_the_application_would() {
    let mut builder = TopologyBuilder::new();
    builder.generated("store KSTREAM-REDUCE-STATE-STORE-0000000002 (name it with Materialized::named)".to_owned());
    let config = Config::new("app", "embedded://").require_names(true);
    let error = TopologyTestDriver::with_config(&builder.build().unwrap(), &config).unwrap_err();
    assert!(error.to_string().contains("KSTREAM-REDUCE-STATE-STORE-0000000002"), "{error}");
}

/// The window at 90 is open until 105 for the operator, which does not see the record at 107. The one at 300 was given up.
#[test]
fn after_an_abort_operators_have_the_times_of_the_last_commit() {
    let builder = StreamsBuilder::new();
    builder
        .stream("in", Consumed::with(Utf8, Utf8))
        .filter(|_, value| value != "0")
        .group_by_key(Grouped::with(Utf8, Utf8))
        .windowed_by(TimeWindows::of_size_and_grace(Duration::from_millis(10), Duration::from_millis(5)))
        .count(Materialized::named("counts"));
    let topology = builder.build().unwrap();
    for guarantee in [Config::exactly_once, Config::at_least_once] {
        let config = guarantee(Config::new("app", "embedded://").cache_bytes(0));
        let mut driver = TopologyTestDriver::with_config(&topology, &config).unwrap();
        let input = driver.create_input_topic("in", Utf8, Utf8);
        input.pipe_at(&mut driver, "k", "1", 100).unwrap();
        input.pipe_at(&mut driver, "k", "0", 107).unwrap();
        driver.enqueue("in", Some(b"k"), Some(b"1"), 300, Headers::new()).unwrap();
        driver.process_without_commit().unwrap();
        driver.task.rewind(0).unwrap();
        input.pipe_at(&mut driver, "k", "1", 95).unwrap();
        assert_eq!(driver.dropped_records(), 0);
        let mut counts = driver.timestamped_window_store("counts", Utf8, I64).unwrap();
        let row = counts.fetch(&mut driver, &"k".to_owned(), 90).unwrap();
        assert_eq!(row.map(|row| row.value), Some(1));
    }
}
