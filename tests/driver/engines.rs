//! Stores in engines of the user's own, and where stores are kept that say nothing of it.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use kstreams::*;

use super::{Driver, grouped, text, to_text};

/// Rows in a tree that the test sees, and what it was told while it was restored: rows and the offset behind them.
#[derive(Clone, Default)]
struct Tree(Arc<Mutex<BTreeMap<Vec<u8>, Vec<u8>>>>, Arc<Mutex<Vec<(usize, i64)>>>);

impl StoreEngine for Tree {
    fn get(&mut self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        Ok(self.0.lock().unwrap().get(key).cloned())
    }

    fn scan(
        &mut self,
        (from, to): (Bound<&[u8]>, Bound<&[u8]>),
        reverse: bool,
        each: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<()> {
        let rows = self.0.lock().unwrap();
        let mut rows = rows.range::<[u8], _>((from, to));
        while let Some((key, row)) = if reverse { rows.next_back() } else { rows.next() } {
            if !each(key, row) {
                break;
            }
        }
        Ok(())
    }

    fn apply(&mut self, rows: &mut dyn Iterator<Item = (&[u8], Option<&[u8]>)>) -> Result<()> {
        let mut tree = self.0.lock().unwrap();
        for (key, row) in rows {
            match row {
                Some(row) => drop(tree.insert(key.to_vec(), row.to_vec())),
                None => drop(tree.remove(key)),
            }
        }
        Ok(())
    }

    fn restore(&mut self, rows: &mut dyn Iterator<Item = (&[u8], Option<&[u8]>)>, next_offset: i64) -> Result<()> {
        let mut count = 0;
        self.apply(&mut rows.inspect(|_| count += 1))?;
        self.1.lock().unwrap().push((count, next_offset));
        Ok(())
    }

    fn clear(&mut self) -> Result<()> {
        self.0.lock().unwrap().clear();
        Ok(())
    }

    fn approximate_len(&self) -> u64 {
        self.0.lock().unwrap().len() as u64
    }
}

#[test]
fn a_table_may_live_in_an_engine_of_ones_own() {
    let tree = Tree::default();
    let made = tree.clone();
    let builder = StreamsBuilder::new();
    builder
        .stream("in", text())
        .group_by_key(grouped())
        .reduce(
            |row: String, value: String| Some(row + &value).filter(|row| row != "ab"),
            Materialized::named("rows").with_engine(move || Box::new(made.clone())),
        )
        .to_stream()
        .to("out", to_text());
    let mut driver = TopologyTestDriver::new(&builder.build().unwrap()).unwrap();
    let input = driver.create_input_topic("in", Utf8, Utf8);
    input.pipe_at(&mut driver, "k", "a", 5).unwrap();
    input.pipe_at(&mut driver, "l", "x", 6).unwrap();
    let rows = |tree: &Tree| tree.0.lock().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!(rows(&tree), [b"k", b"l"]);
    assert_eq!(tree.0.lock().unwrap()[&b"k"[..]], b"\0\0\0\0\0\0\0\x05a");
    input.pipe_at(&mut driver, "k", "b", 7).unwrap();
    assert_eq!(rows(&tree), [b"l"], "a row that is deleted");
    let mut store = driver.timestamped_key_value_store("rows", Utf8, Utf8).unwrap();
    let all = store.reverse_all().collect(&mut driver).unwrap();
    assert_eq!(all.into_iter().map(|(key, row)| (key, row.value)).collect::<Vec<_>>(), [("l".into(), "x".into())]);
    assert_eq!(store.get(&mut driver, &"k".to_owned()).unwrap(), None);
    let changelog = driver.produced().iter().filter(|record| record.topic.ends_with("-changelog")).count();
    assert_eq!(changelog, 3, "the changelog is the library's");
}

/// Keys and rows as bytes.
type RawRows = Vec<(Vec<u8>, Vec<u8>)>;

/// What goes out and what is in the store: some minutes of records with a crash in between.
fn with_a_crash(
    build: impl Fn(&StreamsBuilder, Materialized<String, i64>),
    materialized: impl FnOnce(Materialized<String, i64>) -> Materialized<String, i64>,
) -> (Vec<String>, RawRows) {
    let builder = StreamsBuilder::new();
    build(&builder, materialized(Materialized::named("rows")));
    let mut driver = Driver::new(builder);
    let mut seen = Vec::new();
    for (step, key) in (0..60_i64).zip(["k", "l", "kk"].into_iter().cycle()) {
        // Now and then one that is late, for windows that are still kept and for such that are not.
        let late = if step % 7 == 6 { 100_000 } else { 0 };
        seen.extend(driver.pipe("in", key, "x", step * 7_000 - late.min(step * 7_000)));
        if step == 40 {
            driver.inner.crash(Guarantee::ExactlyOnce).unwrap();
        }
    }
    let rows = driver.inner.rows().unwrap();
    (seen, rows.into_iter().find(|(name, _)| name == "rows").unwrap().1)
}

fn as_in_the_built_in_engine(build: impl Fn(&StreamsBuilder, Materialized<String, i64>)) {
    let trees: Arc<Mutex<Vec<Tree>>> = Arc::default();
    let made = Arc::clone(&trees);
    let own = with_a_crash(&build, |rows| {
        rows.with_engine(move || {
            let tree = Tree::default();
            made.lock().unwrap().push(tree.clone());
            Box::new(tree)
        })
    });
    assert_eq!(own, with_a_crash(&build, |rows| rows));
    let trees = trees.lock().unwrap();
    let restored = trees.last().unwrap();
    assert!(trees.len() > 1 && !restored.1.lock().unwrap().is_empty(), "the second life is restored");
    let kept = restored.0.lock().unwrap().len();
    assert!(kept >= own.1.len() && kept < 40, "what has expired is gone: {kept} rows, {} are shown", own.1.len());
}

#[test]
fn windows_live_in_an_engine_of_ones_own_as_in_the_built_in_one() {
    as_in_the_built_in_engine(|builder, rows| {
        let (size, advance) = (Duration::from_secs(20), Duration::from_secs(10));
        let windows = TimeWindows::of_size_and_grace(size, Duration::from_secs(80)).advance_by(advance);
        let counts = builder.stream("in", text()).group_by_key(grouped()).windowed_by(windows).count(rows);
        counts.to_stream_by(|key, _| format!("{}@{}", key.key, key.window.start)).to("out", Produced::with(Utf8, I64));
    });
}

#[test]
fn sessions_live_in_an_engine_of_ones_own_as_in_the_built_in_one() {
    as_in_the_built_in_engine(|builder, rows| {
        let windows = SessionWindows::of_inactivity_gap_and_grace(Duration::from_secs(15), Duration::from_secs(80));
        let counts = builder.stream("in", text()).group_by_key(grouped()).windowed_by(windows).count(rows);
        let stream = counts.to_stream_by(|key, _| format!("{}@{}", key.key, key.window.start));
        stream.to("out", Produced::with(Utf8, Nullable(I64)));
    });
}

#[test]
fn versions_live_in_an_engine_of_ones_own_as_in_the_built_in_one() {
    as_in_the_built_in_engine(|builder, rows| {
        let table =
            builder.stream("in", text()).group_by_key(grouped()).count(rows.as_versioned(Duration::from_secs(60)));
        let joined = Joined::with(Utf8, Utf8);
        table.clone().to_stream().to("out", Produced::with(Utf8, Nullable(I64)));
        builder.stream("in", text()).join(&table, |_, count| count.to_string(), joined).to("joined", to_text());
    });
}

#[test]
fn an_engine_is_told_the_offset_behind_what_is_restored() {
    let trees: Arc<Mutex<Vec<Tree>>> = Arc::default();
    let made = Arc::clone(&trees);
    let rows = Materialized::named("rows").with_engine(move || {
        let tree = Tree::default();
        made.lock().unwrap().push(tree.clone());
        Box::new(tree)
    });
    let builder = StreamsBuilder::new();
    builder.stream("in", text()).group_by_key(grouped()).count(rows);
    let mut driver = Driver::new(builder);
    for key in ["a", "b", "a"] {
        driver.pipe("in", key, "x", 1);
    }
    driver.inner.crash(Guarantee::ExactlyOnce).unwrap();
    let trees = trees.lock().unwrap();
    let told: Vec<_> = trees.iter().map(|tree| tree.1.lock().unwrap().clone()).collect();
    assert_eq!(told.last().unwrap(), &[(2, 3)], "two rows of three records, and offset 3 is next");
    assert!(told[0].is_empty(), "a commit is no restoration");
}

#[test]
fn the_default_place_of_stores_is_a_setting_by_javas_names() {
    let config = || Config::new("app", "embedded://");
    for (name, value) in [
        ("default.dsl.store", "in_memory"),
        (
            "dsl.store.suppliers.class",
            "org.apache.kafka.streams.state.BuiltInDslStoreSuppliers$InMemoryDslStoreSuppliers",
        ),
    ] {
        let builder = StreamsBuilder::with_config(&config().set(name, value).unwrap());
        builder.stream("in", text()).group_by_key(grouped()).count(Materialized::named("c"));
        builder.build().unwrap();
    }
    let error = config().set("default.dsl.store", "papyrus").unwrap_err();
    assert!(error.to_string().contains("papyrus"), "{error}");
}

/// Everything that has a store of its own, none of which says where.
fn with_every_store(builder: StreamsBuilder, config: &Config) -> Topology {
    let (window, grace) = (Duration::from_secs(10), Duration::from_secs(5));
    let grouped_in = || builder.stream("in", text()).group_by_key(grouped());
    let sliding = SlidingWindows::of_time_difference_and_grace(window, grace);
    grouped_in()
        .windowed_by(sliding)
        .count(Materialized::named("sliding"))
        .to_stream_by(|key, _| key.key.clone())
        .to("counts", Produced::with(Utf8, I64));
    let sessions = SessionWindows::of_inactivity_gap_and_grace(window, grace);
    grouped_in().windowed_by(sessions).count(Materialized::named("sessions"));
    let within = JoinWindows::of_time_difference_and_grace(window, grace);
    let joined = StreamJoined::with(Utf8, Utf8, Utf8).with_store_name("join");
    let (left, right) = (builder.stream("in", text()), builder.stream("right", text()));
    left.left_join_stream(right, |l, r| format!("{l}{}", r.cloned().unwrap_or_default()), within, joined)
        .to("joined", to_text());
    let orders = builder.table("orders", text(), Materialized::named("orders"));
    let people = builder.table("people", text(), Materialized::named("people"));
    orders
        .join_foreign_key(&people, |_, order| order.clone(), |l, r| l + &r, TableJoined::named("fk"))
        .to_stream_with(Option::unwrap_or_default)
        .to("named", to_text());
    builder.build_with(config).unwrap()
}

#[test]
fn where_stores_are_kept_may_be_said_at_the_start_and_at_the_end() {
    let in_memory = || Config::new("app", "embedded://").cache_bytes(0).stores_in_memory(true);
    let run = |topology: &Topology, config: &Config| {
        let mut driver = TopologyTestDriver::with_config(topology, config).unwrap();
        let mut pipe = |topic: &str, key: &str, value: &str, at| {
            driver.pipe_raw(topic, Some(key.as_bytes()), Some(value.as_bytes()), at, Headers::new()).unwrap();
        };
        pipe("people", "ann", "!", 0);
        pipe("orders", "1", "ann", 0);
        for (at, key) in
            [(1, "a"), (4_000, "b"), (9_000, "a"), (40_000, "a"), (30_000, "b"), (95_000, "c"), (96_000, "a")]
        {
            pipe("in", key, "l", at);
            pipe("right", key, "r", at + 500);
        }
        let produced: Vec<_> = driver.produced().iter().map(super::show).collect();
        (produced, driver.rows().unwrap())
    };
    let plain = Config::new("app", "embedded://").cache_bytes(0);
    let begun = with_every_store(StreamsBuilder::with_config(&in_memory()), &plain);
    let ended = with_every_store(StreamsBuilder::new(), &in_memory());
    let untold = with_every_store(StreamsBuilder::new(), &plain);
    let expected = run(&begun, &plain);
    assert_eq!(run(&ended, &plain), expected);
    assert_eq!(run(&untold, &in_memory()), expected);
    assert_ne!(run(&untold, &plain).1, expected.1, "on disk rows of windows lie by longer buckets");
}
