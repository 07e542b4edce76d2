//! Global tables and stores, stores fed by their own topic, topic patterns.

use kstreams::*;

use super::{Driver, text, to_text};

const SECOND: std::time::Duration = std::time::Duration::from_secs(1);

fn enriched() -> (StreamsBuilder, GlobalKTable<String, String>) {
    let builder = StreamsBuilder::new();
    let towns = builder.global_table("towns", Consumed::with(Utf8, Utf8), Materialized::named("towns"));
    (builder, towns)
}

#[test]
fn a_stream_joins_a_global_table_by_any_key() {
    let (builder, towns) = enriched();
    let visits = builder.stream("visits", Consumed::with(Utf8, Utf8));
    let join = |stream: KStream<String, String>| {
        stream.join_global(&towns, |_, name| name.clone(), |name, town| name + " " + &town, Joined::with(Utf8, Utf8))
    };
    join(visits.clone()).to("inner", Produced::with(Utf8, Utf8));
    visits
        .left_join_global(
            &towns,
            |_, name| (name != "nobody").then(|| name.clone()),
            |name, town| name + " " + town.as_deref().unwrap_or("?"),
            Joined::with(Utf8, Utf8),
        )
        .to("left", Produced::with(Utf8, Utf8));
    let mut driver = Driver::new(builder);
    assert!(driver.pipe("towns", "ada", "london", 50).is_empty());
    assert_eq!(driver.pipe("visits", "1", "ada", 7), ["inner 1 ada london @7", "left 1 ada london @7"]);
    assert_eq!(driver.pipe("visits", "2", "bob", 8), ["left 2 bob ? @8"]);
    assert!(driver.pipe("visits", "3", "nobody", 9).is_empty(), "a key that is not there joins nothing");
    driver.delete("towns", "ada", 1);
    assert_eq!(driver.pipe("visits", "4", "ada", 10), ["left 4 ada ? @10"]);
    assert_eq!(driver.inner.dropped_records(), 1, "a row that is missing drops nothing");
    let mut rows = driver.inner.timestamped_key_value_store("towns", Utf8, Utf8).unwrap();
    assert_eq!(rows.get(&mut driver.inner, &"ada".to_owned()).unwrap(), None);
    assert!(driver.inner.store_names().unwrap().contains(&"towns".to_owned()));
}

#[test]
fn a_left_join_keeps_a_record_with_a_null_key() {
    let (builder, towns) = enriched();
    builder
        .stream("visits", Consumed::with(Nullable(Utf8), Utf8))
        .left_join_global(
            &towns,
            |key, _| key.clone(),
            |name, town| name + " " + town.as_deref().unwrap_or("?"),
            Joined::with(Nullable(Utf8), Utf8),
        )
        .to("left", Produced::with(Nullable(Utf8), Utf8));
    let mut driver = Driver::new(builder);
    assert_eq!(driver.pipe_raw("visits", None, Some(b"x"), 1).unwrap(), ["left - x ? @1"]);
}

/// Writes what it gets in capitals.
struct Fill(KeyValueStore<String, String>);

impl Processor<String, String> for Fill {
    type KeyOut = String;
    type ValueOut = String;

    fn process(
        &mut self,
        record: Record<String, String>,
        ctx: &mut ProcessorContext<'_, String, String>,
    ) -> Result<()> {
        self.0.put(ctx, &record.key, &record.value.to_uppercase())
    }
}

/// Forwards the row of the key, and tries to write when it is asked to.
struct Look(KeyValueStore<String, String>);

impl Processor<String, String> for Look {
    type KeyOut = String;
    type ValueOut = String;

    fn process(
        &mut self,
        record: Record<String, String>,
        ctx: &mut ProcessorContext<'_, String, String>,
    ) -> Result<()> {
        if record.value == "write" {
            self.0.put(ctx, &record.key, &record.value)?;
        }
        let mut rows = self.0.all();
        let mut found = Vec::new();
        while let Some((key, row)) = rows.next(ctx)? {
            found.push(format!("{key}={row}"));
        }
        ctx.forward(record.with_value(found.join(",")))
    }
}

fn with_global_store() -> StreamsBuilder {
    let codes = Stores::key_value("codes", Utf8, Utf8).with_caching();
    let builder = StreamsBuilder::new();
    let (fill, look) = (codes.clone(), codes.clone());
    builder.add_global_store(&codes, "codes", Consumed::with(Utf8, Utf8), move |init| Ok(Fill(init.store(&fill)?)));
    builder
        .stream("in", Consumed::with(Utf8, Utf8))
        .process(move |init| Ok(Look(init.store(&look)?)), Processed::default())
        .to("out", Produced::with(Utf8, Utf8));
    builder
}

#[test]
fn a_global_store_is_filled_by_its_own_processor_and_read_by_all() {
    let mut driver = Driver::new(with_global_store());
    driver.pipe("codes", "b", "two", 1);
    driver.pipe("codes", "a", "one", 2);
    assert_eq!(driver.pipe("in", "k", "read", 3), ["out k a=ONE,b=TWO @3"]);
}

/// A store in the hands of a processor that does with it what a function says, and forwards what that gives.
struct Using<S, F>(S, F);

impl<S, F> Processor<String, String> for Using<S, F>
where
    S: Send + 'static,
    F: Fn(&mut S, &Record<String, String>, &mut ProcessorContext<'_, String, String>) -> Result<String>
        + Send
        + 'static,
{
    type KeyOut = String;
    type ValueOut = String;

    fn process(
        &mut self,
        record: Record<String, String>,
        ctx: &mut ProcessorContext<'_, String, String>,
    ) -> Result<()> {
        let text = (self.1)(&mut self.0, &record, ctx)?;
        if !text.is_empty() {
            ctx.forward(record.with_value(text))?;
        }
        Ok(())
    }
}

type Use<S> = fn(&mut S, &Record<String, String>, &mut ProcessorContext<'_, String, String>) -> Result<String>;

/// A global store that one function fills from `fill` and another one reads for each record of `in`.
fn global_of<S: Send + 'static>(store: &StoreBuilder<S>, fill: Use<S>, read: Use<S>) -> Driver {
    let builder = StreamsBuilder::new();
    let (own, other) = (store.clone(), store.clone());
    builder.add_global_store(store, "fill", text(), move |init| Ok(Using(init.store(&own)?, fill)));
    builder
        .stream("in", text())
        .process(move |init| Ok(Using(init.store(&other)?, read)), Processed::default())
        .to("out", to_text());
    Driver::new(builder)
}

fn shown<T: std::fmt::Debug>(rows: T) -> Result<String> {
    Ok(format!("{rows:?}"))
}

#[test]
fn a_global_window_store_hides_from_all_what_has_expired() {
    let put: Use<WindowStore<String, String>> = |store, record, ctx| {
        store.put(ctx, &record.key, &record.value, record.timestamp)?;
        Ok(String::new())
    };
    let read: Use<WindowStore<String, String>> = |store, record, ctx| {
        if record.value == "write" {
            store.put(ctx, &record.key, &record.value, record.timestamp)?;
        }
        let one = store.fetch(ctx, &record.key, 1)?;
        shown((one, store.fetch_range(&record.key, 0, i64::MAX)?.collect(ctx)?))
    };
    let (hour, minute) = (SECOND * 3600, SECOND * 60);
    for store in [
        Stores::window("rows", hour, minute, false, Utf8, Utf8),
        Stores::in_memory_window("rows", hour, minute, false, Utf8, Utf8),
    ] {
        let mut driver = global_of(&store, put, read);
        driver.pipe("fill", "a", "x", 1);
        driver.pipe("fill", "a", "y", 2);
        assert_eq!(driver.pipe("in", "a", "read", 7), [r#"out a (Some("x"), [(1, "x"), (2, "y")]) @7"#]);
        driver.pipe("fill", "b", "z", 3_600_001);
        assert_eq!(driver.pipe("in", "a", "read", 8), [r#"out a (None, [(2, "y")]) @8"#], "{store:?}");
        let error = driver.pipe_raw("in", Some(b"a"), Some(b"write"), 9).unwrap_err();
        assert!(error.report().contains("global store rows is read only"), "{}", error.report());
    }
}

#[test]
fn a_global_session_store_is_read_by_all() {
    let put: Use<SessionStore<String, String>> = |store, record, ctx| {
        let window = Window { start: record.timestamp - 1, end: record.timestamp };
        store.put(ctx, &Windowed { key: record.key.clone(), window }, &record.value)?;
        Ok(String::new())
    };
    let read: Use<SessionStore<String, String>> = |store, record, ctx| {
        let mut rows = store.fetch(&record.key)?;
        let mut found = Vec::new();
        while let Some((at, row)) = rows.next(ctx)? {
            found.push((at.window.end, row));
        }
        shown(found)
    };
    let on_disk = Stores::session("rows", SECOND * 3600, Utf8, Utf8);
    let in_memory = Stores::in_memory_session("rows", SECOND, Utf8, Utf8);
    for (store, left) in [(on_disk, r#"out a [(2, "y")] @9"#), (in_memory, "out a [] @9")] {
        let mut driver = global_of(&store, put, read);
        driver.pipe("fill", "a", "x", 1);
        driver.pipe("fill", "a", "y", 2);
        assert_eq!(driver.pipe("in", "a", "read", 7), [r#"out a [(1, "x"), (2, "y")] @7"#]);
        driver.pipe("fill", "b", "z", 3_600_001);
        assert_eq!(driver.pipe("in", "b", "read", 8), [r#"out b [(3600001, "z")] @8"#]);
        assert_eq!(driver.pipe("in", "a", "read", 9), [left]);
    }
}

#[test]
fn a_global_versioned_store_knows_what_was_to_all() {
    let store = Stores::versioned_key_value("rows", SECOND, Utf8, Utf8);
    let mut driver = global_of(
        &store,
        |store, record, ctx| {
            store.put(ctx, &record.key, Some(&record.value), record.timestamp)?;
            Ok(String::new())
        },
        |store, record, ctx| {
            if record.value == "write" {
                store.put(ctx, &record.key, None, record.timestamp)?;
            }
            let value = |row: Option<VersionedRecord<String>>| row.map(|row| row.value);
            shown((value(store.get(ctx, &record.key)?), value(store.get_as_of(ctx, &record.key, 5)?)))
        },
    );
    driver.pipe("fill", "a", "x", 1);
    assert_eq!(driver.pipe("in", "a", "read", 7), [r#"out a (Some("x"), Some("x")) @7"#]);
    driver.pipe("fill", "a", "y", 10);
    assert_eq!(driver.pipe("in", "a", "read", 8), [r#"out a (Some("y"), Some("x")) @8"#]);
    driver.pipe("fill", "b", "z", 2000);
    assert_eq!(driver.pipe("in", "a", "read", 9), [r#"out a (Some("y"), None) @9"#], "behind the history");
    let error = driver.pipe_raw("in", Some(b"a"), Some(b"write"), 9).unwrap_err();
    assert!(error.report().contains("global store rows is read only"), "{}", error.report());
}

#[test]
fn nobody_else_writes_a_global_store() {
    let mut driver = Driver::new(with_global_store());
    let error = driver.pipe_raw("in", Some(b"k"), Some(b"write"), 1).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::User);
    assert!(error.report().contains("global store codes is read only"), "{}", error.report());
}

#[test]
fn a_store_of_kip_813_is_restored_from_the_topic_that_feeds_it() {
    let rows = Stores::key_value("rows", Utf8, Utf8);
    let mut builder = TopologyBuilder::new();
    let (fill, look) = (rows.clone(), rows.clone());
    builder.add_read_only_store(&rows, "feed", "data", Consumed::with(Utf8, Utf8), "fill", move |init| {
        Ok(Fill(init.store(&fill)?))
    });
    builder.add_source("source", &["in"], Consumed::with(Utf8, Utf8));
    builder.add_processor::<String, String, _>("look", move |init| Ok(Look(init.store(&look)?)), &["source"]);
    builder.connect("look", &["rows"]);
    builder.add_sink("sink", "out", Produced::with(Utf8, Utf8), &["look"]);
    let topology = builder.build().unwrap();
    let parts = topology.sub_topologies("app");
    assert_eq!(parts[0].source_changelogs, ["data".to_owned()].into());
    assert!(parts[0].changelog_topics.is_empty());
    let mut driver = TopologyTestDriver::new(&topology).unwrap();
    driver.pipe_raw("data", Some(b"a"), Some(b"x"), 1, Headers::new()).unwrap();
    driver.pipe_raw("in", Some(b"k"), Some(b"v"), 2, Headers::new()).unwrap();
    assert_eq!(driver.produced().last().unwrap().value.as_deref(), Some(&b"a=X"[..]));
}

#[test]
fn mistakes_about_global_stores_are_told_by_name() {
    let store = Stores::key_value("codes", Utf8, Utf8);
    let mut builder = TopologyBuilder::new();
    let fill = store.clone();
    let make = move |init: &mut ProcessorInit<'_>| Ok(Fill(init.store(&fill)?));
    builder.add_source("source", &["codes"], Consumed::with(Utf8, Utf8));
    builder.add_global_store(&store, "same", "codes", Consumed::with(Utf8, Utf8), "same", make);
    builder.connect("same", &["codes"]);
    let own = Stores::key_value("own", Utf8, Utf8).with_engine(|| panic!("is not made"));
    builder.add_global_store(&own, "w-source", "w", Consumed::with(Utf8, Utf8), "w", |_| Ok(Nothing));
    let error = builder.build().unwrap_err().to_string();
    for expected in [
        "two nodes are called same",
        "topic codes is read by source and by same",
        "do not connect it to same",
        "store own has an engine of its own",
    ] {
        assert!(error.contains(expected), "{expected}: {error}");
    }
}

#[test]
fn a_global_store_is_not_connected() {
    let builder = with_global_store();
    let stream = builder.stream("other", Consumed::with(Utf8, Utf8));
    stream.process(|_| Ok(Nothing), Processed::stores(["codes"])).to("out", Produced::with(Utf8, Utf8));
    let error = builder.build().unwrap_err().to_string();
    assert!(error.contains("global store codes is there for every processor: do not connect it"), "{error}");
}

struct Nothing;

impl Processor<String, String> for Nothing {
    type KeyOut = String;
    type ValueOut = String;

    fn process(&mut self, _: Record<String, String>, _: &mut ProcessorContext<'_, String, String>) -> Result<()> {
        Ok(())
    }
}

#[test]
fn every_topic_that_matches_a_pattern_is_read_and_two_streams_of_one_share_a_source() {
    let builder = StreamsBuilder::new();
    builder.stream_matching("in-\\d+", Consumed::with(Utf8, Utf8)).to("one", Produced::with(Utf8, Utf8));
    builder.stream_matching("in-\\d+", Consumed::with(Utf8, Utf8)).to("two", Produced::with(Utf8, Utf8));
    let mut driver = Driver::new(builder);
    assert_eq!(driver.pipe("in-1", "k", "v", 5), ["one k v @5", "two k v @5"]);
    assert_eq!(driver.pipe("in-22", "k", "w", 4), ["one k w @4", "two k w @4"]);
    let error = driver.pipe_raw("in-x", Some(b"k"), Some(b"v"), 1).unwrap_err();
    assert!(error.to_string().contains("does not read topic in-x"), "{error}");
}

#[test]
fn text_that_is_no_pattern_is_told_at_the_build() {
    let builder = StreamsBuilder::new();
    builder.stream_matching("in-(", Consumed::with(Utf8, Utf8)).to("out", Produced::with(Utf8, Utf8));
    let error = builder.build().unwrap_err().to_string();
    assert!(error.contains("\"in-(\" is no pattern of topics"), "{error}");
}
