//! Rows that live for some time only (not in Kafka Streams): by event time, and told to those behind a table.

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;

use crate::*;

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// Rows that live for 10 ms.
fn rows<V: 'static>(name: &str) -> Materialized<String, V> {
    Materialized::named(name).with_ttl(ms(10))
}

#[test]
fn a_row_goes_when_the_stream_time_is_past_its_own_and_is_gone_before_the_next_record() {
    let builder = StreamsBuilder::new();
    let table = builder.table("table", text(), rows("rows"));
    table.clone().to_stream().to("changes", to_text());
    builder
        .stream("in", text())
        .left_join(
            &table,
            |value, row| format!("{value}/{}", row.unwrap_or_else(|| "none".to_owned())),
            Joined::with(Utf8, Utf8),
        )
        .to("out", to_text());
    let mut driver = Driver::new(builder);
    assert_eq!(driver.pipe("table", "k", "a", 5), ["changes k a @5"]);
    assert_eq!(driver.pipe("in", "k", "x", 15), ["out k x/a @15"], "its last millisecond");
    assert_eq!(driver.pipe("in", "k", "y", 16), ["changes k - @16", "out k y/none @16"]);
    assert_eq!(driver.pipe("in", "k", "z", 40), ["out k z/none @40"], "it goes once");
}

#[test]
fn an_update_prolongs_a_row_and_a_deletion_needs_no_other() {
    let builder = StreamsBuilder::new();
    builder.table("table", text(), rows("rows")).to_stream().to("out", to_text());
    let mut driver = Driver::new(builder);
    driver.pipe("table", "a", "1", 0);
    driver.pipe("table", "b", "1", 1);
    assert_eq!(driver.pipe("table", "a", "2", 8), ["out a 2 @8"]);
    assert_eq!(driver.delete("table", "b", 9), ["out b - @9"]);
    assert_eq!(driver.pipe("table", "c", "1", 18), ["out c 1 @18"]);
    assert_eq!(driver.pipe("table", "c", "2", 19), ["out a - @19", "out c 2 @19"]);
}

#[test]
fn an_update_that_has_expired_deletes_what_is_there() {
    let builder = StreamsBuilder::new();
    builder.table("table", text(), rows("rows")).to_stream().to("out", to_text());
    let mut driver = Driver::new(builder);
    driver.pipe("table", "a", "1", 20);
    assert_eq!(driver.pipe("table", "a", "late", 9), ["out a - @9"], "the last update counts, and its time is over");
    assert!(driver.pipe("table", "b", "late", 9).is_empty(), "nobody has known of it");
    assert_eq!(driver.inner.dropped_records(), 2);
    assert_eq!(driver.pipe("table", "a", "in time", 10), ["out a in time @10"]);
}

#[test]
fn an_aggregation_begins_anew_after_its_row_has_expired() {
    let builder = StreamsBuilder::new();
    builder.stream("in", text()).group_by_key(grouped()).count(rows("counts")).to_stream().to("out", to_counts());
    let mut driver = Driver::new(builder);
    driver.pipe("in", "k", "", 0);
    assert_eq!(driver.pipe("in", "k", "", 10), ["out k 2 @10"]);
    assert_eq!(driver.pipe("in", "k", "", 4), ["out k 3 @10"], "late, but its row lives");
    assert_eq!(driver.pipe("in", "k", "", 21), ["out k - @21", "out k 1 @21"]);
}

fn to_counts() -> Produced<String, i64> {
    Produced::with(Utf8, I64)
}

#[test]
fn groups_of_a_table_lose_what_has_expired() {
    let builder = StreamsBuilder::new();
    builder
        .table("cities", text(), rows("cities"))
        .group_by(|_, country: &String| Some((country.clone(), String::new())), grouped())
        .count(Materialized::named("per-country"))
        .to_stream()
        .to("out", to_counts());
    let mut driver = Driver::new(builder);
    driver.pipe("cities", "oslo", "no", 0);
    driver.pipe("cities", "bergen", "no", 5);
    assert_eq!(driver.pipe("cities", "rome", "it", 11), ["out no 1 @11", "out it 1 @11"]);
    assert_eq!(driver.pipe("cities", "bari", "it", 16), ["out no 0 @16", "out it 2 @16"]);
}

#[test]
fn results_of_a_join_go_with_the_first_of_their_rows() {
    let builder = StreamsBuilder::new();
    let (left, right) = (builder.table("left", text(), rows("l")), builder.table("right", text(), rows("r")));
    left.join(&right, |l, r| format!("{l}{r}")).to_stream().to("out", to_text());
    let mut driver = Driver::new(builder);
    driver.pipe("left", "k", "a", 0);
    assert_eq!(driver.pipe("right", "k", "b", 0), ["out k ab @0"]);
    assert_eq!(driver.pipe("left", "other", "x", 11), ["out k - @11"], "once, though both have expired");
    driver.pipe("left", "k", "a", 12);
    assert_eq!(driver.pipe("right", "k", "c", 13), ["out k ac @13"]);
    assert_eq!(driver.pipe("right", "other", "y", 23), ["out k - @23"], "and x went before its partner came");
}

#[test]
fn a_result_that_has_expired_by_itself_is_not_taken_for_an_old_one() {
    let builder = StreamsBuilder::new();
    let (left, right) = (
        builder.table("left", text(), Materialized::named("l")),
        builder.table("right", text(), Materialized::named("r")),
    );
    left.join_materialized(&right, |l, r| format!("{l}{r}"), rows("joined").with_value_serde(Utf8))
        .group_by(|_, pair| Some(("all".to_owned(), pair.clone())), grouped())
        .count(Materialized::named("pairs"))
        .to_stream()
        .to("out", to_counts());
    let mut driver = Driver::new(builder);
    driver.pipe("left", "k", "a", 0);
    assert_eq!(driver.pipe("right", "k", "b", 0), ["out all 1 @0"]);
    assert_eq!(driver.pipe("left", "x", "a", 11), ["out all 0 @11"]);
    assert_eq!(driver.pipe("left", "k", "c", 12), ["out all 1 @12"]);
}

#[test]
fn a_row_of_several_streams_expires_once() {
    let builder = StreamsBuilder::new();
    let stream = |topic: &str| builder.stream(topic, text()).group_by_key(grouped());
    stream("one")
        .cogroup(|_, value, row: String| row + &value)
        .cogroup(stream("other"), |_, value, row| row + "-" + &value)
        .aggregate(String::new, rows("rows").with_value_serde(Utf8))
        .to_stream()
        .to("out", to_text());
    let mut driver = Driver::new(builder);
    driver.pipe("one", "k", "a", 0);
    assert_eq!(driver.pipe("other", "k", "b", 1), ["out k a-b @1"]);
    assert_eq!(driver.pipe("other", "x", "c", 12), ["out k - @12", "out x -c @12"]);
}

#[test]
fn a_foreign_key_join_loses_its_results_with_either_row() {
    let builder = StreamsBuilder::new();
    let orders = builder.table("orders", text(), rows("o"));
    let customers = builder.table("customers", text(), rows("c"));
    orders
        .join_foreign_key(
            &customers,
            |_, customer: &String| Some(customer.clone()),
            |order, name| format!("{order}:{name}"),
            TableJoined::default(),
        )
        .to_stream()
        .to("out", to_text());
    let mut driver = Driver::new(builder);
    driver.pipe("customers", "ada", "A", 0);
    assert_eq!(driver.pipe("orders", "1", "ada", 5), ["out 1 ada:A @5"]);
    assert_eq!(driver.pipe("customers", "ben", "B", 11), ["out 1 - @11"], "its customer has gone");
    assert_eq!(driver.pipe("orders", "2", "ben", 12), ["out 2 ben:B @12"]);
    let changes = driver.pipe("customers", "ben", "BB", 20);
    assert_eq!(changes, ["out 2 ben:BB @20", "out 1 - @20"], "the first order has gone, too: as when it is deleted");
    assert_eq!(driver.pipe("orders", "3", "nobody", 23), ["out 2 - @23"], "the order has gone");
}

#[test]
fn a_cached_table_tells_with_its_commit() {
    let builder = StreamsBuilder::new();
    builder.table("table", text(), rows("rows")).to_stream().to("out", to_text());
    let mut driver = Driver::with_cache(builder, 1_000_000);
    assert!(driver.hold("table", "a", Some("1"), 0).is_empty());
    assert!(driver.hold("table", "b", Some("1"), 1).is_empty());
    assert_eq!(driver.commit(), ["out a 1 @0", "out b 1 @1"]);
    assert!(driver.hold("table", "c", Some("1"), 11).is_empty());
    assert!(driver.hold("table", "b", Some("2"), 11).is_empty());
    assert!(driver.hold("table", "c", Some("2"), 22).is_empty());
    assert_eq!(driver.commit(), ["out a - @11", "out b - @22", "out c 2 @22"]);
}

#[test]
fn the_changelog_says_that_a_row_has_gone() {
    let builder = StreamsBuilder::new();
    builder.table("table", text(), rows("rows"));
    let mut driver =
        TopologyTestDriver::with_config(&builder.build().unwrap(), &Config::new("app", "embedded://").cache_bytes(0))
            .unwrap();
    for (key, at) in [("a", 0), ("b", 11)] {
        driver.pipe_raw("table", Some(key.as_bytes()), Some(b"1"), at, Headers::new()).unwrap();
    }
    let logged = driver.produced().iter().filter(|record| &*record.topic == "app-rows-changelog").map(show);
    let topic = "app-rows-changelog";
    assert_eq!(
        logged.collect::<Vec<_>>(),
        [format!("{topic} a 1 @0"), format!("{topic} a - @11"), format!("{topic} b 1 @11")]
    );
}

/// Tells what its store holds before it puts the record there.
struct Told(TimestampedKeyValueStore<String, String>);

impl Processor<String, String> for Told {
    type KeyOut = String;
    type ValueOut = String;

    fn process(
        &mut self,
        record: Record<String, String>,
        ctx: &mut ProcessorContext<'_, String, String>,
    ) -> Result<()> {
        let all = self.0.all().collect(ctx)?;
        let from_b = self.0.range("b".to_owned()..)?.collect(ctx)?;
        let with_b = self.0.prefix_scan(&"b".to_owned(), &Utf8)?.collect(ctx)?;
        let own = self.0.get(ctx, &record.key)?;
        let keys = |rows: Vec<(String, _)>| rows.into_iter().map(|(key, _)| key).collect::<Vec<_>>().join("+");
        let count = self.0.approximate_num_entries(ctx);
        let told = format!("{}|{}|{}|{}|{count}", keys(all), keys(from_b), keys(with_b), own.is_some());
        let row = ValueAndTimestamp { value: record.value.clone(), timestamp: record.timestamp };
        self.0.put(ctx, &record.key, &row)?;
        ctx.forward(record.with_value(told))
    }
}

#[test]
fn no_read_of_a_processor_shows_an_expired_row() {
    for in_memory in [false, true] {
        let builder = StreamsBuilder::new();
        let store = if in_memory { Stores::in_memory_timestamped_key_value } else { Stores::timestamped_key_value };
        let store = store("st", Utf8, Utf8).with_ttl(ms(10));
        builder.add_state_store(&store);
        let told = store.clone();
        builder
            .stream("in", text())
            .process(move |init| Ok(Told(init.store(&told)?)), Processed::stores(["st"]))
            .to("out", to_text());
        let mut driver = Driver::new(builder);
        assert_eq!(driver.pipe("in", "a", "", 0), ["out a |||false|0 @0"]);
        assert_eq!(driver.pipe("in", "b", "", 4), ["out b a|||false|1 @4"]);
        assert_eq!(driver.pipe("in", "bb", "", 10), ["out bb a+b|b|b|false|2 @10"]);
        assert_eq!(driver.pipe("in", "b", "", 14), ["out b b+bb|b+bb|b+bb|true|2 @14"]);
        assert_eq!(driver.pipe("in", "bb", "", 25), ["out bb |||false|0 @25"]);
    }
}

/// Keeps each record with its headers.
struct Kept(TimestampedKeyValueStoreWithHeaders<String, String>);

impl Processor<String, String> for Kept {
    type KeyOut = String;
    type ValueOut = String;

    fn process(
        &mut self,
        record: Record<String, String>,
        ctx: &mut ProcessorContext<'_, String, String>,
    ) -> Result<()> {
        let rows = self.0.all().collect(ctx)?.len();
        let Record { key, value, timestamp, headers } = record.clone();
        self.0.put(ctx, &key, &ValueTimestampHeaders { value, timestamp, headers })?;
        ctx.forward(record.with_value(rows.to_string()))
    }
}

#[test]
fn rows_with_headers_expire_by_the_times_behind_them() {
    let builder = StreamsBuilder::new();
    let store = Stores::timestamped_key_value_with_headers("st", Utf8, Utf8).with_ttl(ms(10));
    let kept = store.clone();
    builder
        .stream("in", text())
        .process(move |init| Ok(Kept(init.store(&kept)?)), Processed::default().with_store(&store))
        .to("out", to_text());
    let mut driver = Driver::new(builder);
    let mut headers = Headers::new();
    headers.add("by", "ada");
    driver.inner.pipe_raw("in", Some(b"a"), Some(b""), 0, headers).unwrap();
    assert_eq!(driver.drain(), ["out a 0 @0"]);
    assert_eq!(driver.pipe("in", "b", "", 10), ["out b 1 @10"]);
    assert_eq!(driver.pipe("in", "b", "", 11), ["out b 1 @11"], "a has gone");
}

#[test]
fn rows_of_count_windows_may_expire() {
    let builder = StreamsBuilder::new();
    builder
        .stream("in", text())
        .group_by_key(grouped())
        .windowed_by(CountWindows::tumbling(3))
        .count(rows("counts"))
        .to_stream()
        .map(|key, count| (key.to_string(), count.unwrap_or(-1)))
        .to("out", to_counts());
    let mut driver = Driver::new(builder);
    driver.pipe("in", "k", "", 0);
    assert_eq!(driver.pipe("in", "k", "", 10), ["out [k#0+3] 2 @10"]);
    assert_eq!(driver.pipe("in", "k", "", 21), ["out [k#0+3] 1 @21"], "its numbers begin anew");
}

#[test]
fn a_table_whose_rows_expire_has_a_changelog_of_its_own() {
    let builder = StreamsBuilder::new();
    builder
        .table("table", text(), Materialized::default().with_ttl(ms(10)).without_caching())
        .to_stream()
        .to("out", to_text());
    let config = Config::new("app", "embedded://").optimization(Optimization::all());
    let topology = builder.build_with(&config).unwrap();
    let mut driver = TopologyTestDriver::with_config(&topology, &config).unwrap();
    for at in [0, 11] {
        driver.pipe_raw("table", Some(at.to_string().as_bytes()), Some(b"1"), at, Headers::new()).unwrap();
    }
    assert!(driver.produced_topics().any(|topic| topic.ends_with("-changelog")));
    let out = driver.create_output_topic("out", Utf8, Nullable(Utf8)).read_key_values(&mut driver).unwrap();
    assert_eq!(out[1], ("0".to_owned(), None), "a store without a name is there, too");
}

#[test]
fn a_time_to_live_that_makes_no_sense_is_refused() {
    type Make = Box<dyn Fn(&StreamsBuilder)>;
    let cases: Vec<(Make, &str)> = vec![
        (Box::new(|b| drop(b.table("t", text(), rows("st").with_ttl(ms(0))))), "store st has rows that live for 0 ms"),
        (Box::new(|b| drop(b.table("t", text(), rows("st").without_timestamps()))), "make it a timestamped one"),
        (Box::new(|b| drop(b.table("t", text(), rows("st").as_versioned(ms(9))))), "store st is versioned"),
        (Box::new(|b| drop(b.table("t", text(), rows("st").lru(3)))), "store st is bounded by rows"),
        (Box::new(|b| drop(b.global_table("t", text(), rows("st")))), "store st holds what its topic says"),
        (
            Box::new(|b| {
                let _ = b
                    .table("t", text(), Materialized::default())
                    .filter_materialized(|_, _| true, Materialized::default().with_ttl(ms(1)));
            }),
            "name its store, or leave with_ttl out",
        ),
        (
            Box::new(|b| {
                let windows = TimeWindows::of_size_with_no_grace(ms(5));
                drop(b.stream("t", text()).group_by_key(grouped()).windowed_by(windows).count(rows("st")));
            }),
            "give with_retention in place of with_ttl",
        ),
    ];
    for (make, part) in cases {
        let builder = StreamsBuilder::new();
        make(&builder);
        let error = build_error(builder);
        assert!(error.contains(part), "{part} is not in: {error}");
    }
}

proptest! {
    /// With caches and without, with commits and aborts' worth of records in between: what is left in the table at the end is
    /// what a list of all updates says, and so is what those behind it were told.
    #[test]
    fn a_table_holds_what_is_young_enough(
        updates in prop::collection::vec((0..5_usize, 0..9_i64, prop::option::weighted(0.9, 0..100_i64)), 1..60),
        cache_bytes in prop_oneof![Just(0_usize), Just(200), Just(1_000_000)],
        commit_every in 1..10_usize, in_memory in any::<bool>(),
    ) {
        let mut expected: BTreeMap<String, (i64, i64)> = BTreeMap::new();
        let mut now = 0;
        let mut at = Vec::new();
        for (number, (key, step, value)) in updates.iter().enumerate() {
            // Times go forward by up to 5 and back by up to 15.
            let time = if *step < 6 { now + step } else { (now - 5 * (step - 5)).max(0) };
            now = now.max(time);
            at.push(time);
            expected.retain(|_, (time, _)| *time >= now - 10);
            match value {
                Some(value) if time >= now - 10 => drop(expected.insert(key.to_string(), (time, 100 * number as i64 + value))),
                _ => drop(expected.remove(&key.to_string())),
            }
        }
        let builder = StreamsBuilder::new();
        let store = if in_memory { rows("rows").in_memory() } else { rows("rows") };
        builder.table("in", Consumed::with(Utf8, I64), store).to_stream().to("out", to_counts());
        let config = Config::new("app", "embedded://").cache_bytes(cache_bytes);
        let mut driver = TopologyTestDriver::with_config(&builder.build().unwrap(), &config).unwrap();
        for (number, ((key, _, value), time)) in updates.iter().zip(at).enumerate() {
            let value = value.map(|value| (100 * number as i64 + value).to_be_bytes());
            let value = value.as_ref().map(<[u8; 8]>::as_slice);
            driver.enqueue("in", Some(key.to_string().as_bytes()), value, time, Headers::new()).unwrap();
            driver.process_without_commit().unwrap();
            if number % commit_every == 0 {
                driver.commit().unwrap();
            }
        }
        driver.commit().unwrap();
        let mut store = driver.timestamped_key_value_store("rows", Utf8, I64).unwrap();
        for key in 0..5 {
            let row = store.get(&mut driver, &key.to_string()).unwrap().map(|row| (row.timestamp, row.value));
            prop_assert_eq!(row, expected.get(&key.to_string()).copied(), "key {}", key);
        }
        let told = driver.create_output_topic("out", Utf8, Nullable(I64)).read_key_values(&mut driver).unwrap();
        let told: BTreeMap<String, Option<i64>> = told.into_iter().collect();
        let told: BTreeMap<String, i64> = told.into_iter().filter_map(|(key, value)| Some((key, value?))).collect();
        prop_assert_eq!(told, expected.into_iter().map(|(key, (_, value))| (key, value)).collect::<BTreeMap<_, _>>());
    }
}
