//! Stores in engines of the user's own, and where stores are kept that say nothing of it.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Arc, Mutex};

use kstreams::*;

use super::{grouped, text, to_text};

/// Rows in a tree that the test sees.
#[derive(Clone, Default)]
struct Tree(Arc<Mutex<BTreeMap<Vec<u8>, Vec<u8>>>>);

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

#[test]
fn an_engine_of_ones_own_keeps_no_rows_by_time() {
    let builder = StreamsBuilder::new();
    let windows = TimeWindows::of_size_with_no_grace(std::time::Duration::from_secs(1));
    let store = Materialized::named("rows").with_engine(|| Box::new(Tree::default()));
    builder.stream("in", text()).group_by_key(grouped()).windowed_by(windows).count(store);
    let error = builder.build().unwrap_err().to_string();
    assert!(error.contains("store rows keeps rows by time"), "{error}");
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
