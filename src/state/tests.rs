//! The stores of a task against a model: two ordered maps, what is committed and what the task sees.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::record::{Headers, RecordBatch};

pub(super) fn spec(name: &str, kind: StoreKind, caching: bool) -> Arc<StoreSpec> {
    let changelog = Changelog::Topic { config: BTreeMap::new() };
    Arc::new(StoreSpec {
        name: name.into(),
        kind,
        engine: EngineKind::Persistent,
        is_default_engine: false,
        caching,
        changelog,
        custom: None,
        partitioner: None,
        logs_headers: LoggedHeaders::None,
        ttl_ms: None,
        row_times: RowTimes::Any,
    })
}

/// The same with rows that live for 10 ms.
pub(super) fn with_ttl(spec: &StoreSpec) -> Arc<StoreSpec> {
    Arc::new(StoreSpec { ttl_ms: Some(10), ..spec.clone() })
}

#[derive(Debug, Clone)]
pub(super) enum Step {
    Put { store: usize, key: Vec<u8>, value: Option<Vec<u8>> },
    Get { store: usize, key: Vec<u8> },
    Page { store: usize, from: Bound<Vec<u8>>, to: Bound<Vec<u8>>, reverse: bool, limit: usize },
    Commit,
    Abort,
    Reopen,
}

fn key() -> impl Strategy<Value = Vec<u8>> {
    vec(prop_oneof![Just(0), Just(1), Just(255)], 0..4)
}

fn bound() -> impl Strategy<Value = Bound<Vec<u8>>> {
    prop_oneof![Just(Bound::Unbounded), key().prop_map(Bound::Included), key().prop_map(Bound::Excluded)]
}

pub(super) fn step() -> impl Strategy<Value = Step> {
    let store = 0..2_usize;
    prop_oneof![
        8 => (store.clone(), key(), proptest::option::weighted(0.7, vec(any::<u8>(), 0..20)))
            .prop_map(|(store, key, value)| Step::Put { store, key, value }),
        4 => (store.clone(), key()).prop_map(|(store, key)| Step::Get { store, key }),
        3 => (store, bound(), bound(), any::<bool>(), 0..12_usize)
            .prop_map(|(store, from, to, reverse, limit)| Step::Page { store, from, to, reverse, limit }),
        1 => Just(Step::Commit),
        1 => Just(Step::Abort),
        1 => Just(Step::Reopen),
    ]
}

type Model = [BTreeMap<Vec<u8>, Vec<u8>>; 2];

/// Takes the steps with stores and model. `reopen` closes and opens again; what is not committed may be lost then.
pub(super) fn check(
    mut stores: TaskStores,
    steps: Vec<Step>,
    reopen: impl Fn(TaskStores) -> TaskStores,
) -> Result<(), TestCaseError> {
    let (mut committed, mut seen) = (Model::default(), Model::default());
    let context = RecordContext::default();
    for step in steps {
        match step {
            Step::Put { store, key, value } => {
                stores.put(store, &key, value.as_deref(), &context).unwrap();
                match value {
                    Some(value) => seen[store].insert(key, value),
                    None => seen[store].remove(&key),
                };
            }
            Step::Get { store, key } => {
                let row = stores.get(store, &key).unwrap();
                prop_assert_eq!(row, seen[store].get(&key).map(Vec::as_slice));
            }
            Step::Page { store, from, to, reverse, limit } => {
                let (from, to) = (from.as_ref().map(Vec::as_slice), to.as_ref().map(Vec::as_slice));
                let rows = stores.page(store, from, to, reverse, limit).unwrap();
                let mut model: Vec<_> = seen[store].iter().map(|(key, value)| (key.clone(), value.clone())).collect();
                model.retain(|(key, _)| std::ops::RangeBounds::<[u8]>::contains(&(from, to), key.as_slice()));
                if reverse {
                    model.reverse();
                }
                model.truncate(limit);
                prop_assert_eq!(rows, model);
            }
            Step::Commit => {
                (0..2).for_each(|store| stores.flush(store).unwrap());
                stores.clear_changelog();
                stores.apply(&[Some(1), Some(1)]).unwrap();
                prop_assert_eq!(stores.uncommitted_bytes(), 0);
                committed = seen.clone();
            }
            Step::Abort => {
                stores.discard();
                prop_assert_eq!(stores.uncommitted_bytes(), 0);
                seen = committed.clone();
            }
            Step::Reopen => {
                stores.discard();
                stores = reopen(stores);
                seen = committed.clone();
            }
        }
    }
    Ok(())
}

proptest! {
    #[test]
    fn a_task_sees_its_own_writes_and_after_an_abort_the_last_commit(
        steps in vec(step(), 1..200),
        cache_bytes in prop_oneof![Just(0), Just(200), Just(100_000)],
        expires in any::<bool>(),
    ) {
        let mut specs = [spec("a", StoreKind::KeyValue, false), spec("b", StoreKind::KeyValue, true)];
        if expires {
            // The time does not move, so nothing does; but rows lie elsewhere.
            specs = specs.map(|spec| with_ttl(&spec));
        }
        let stores = TaskStores::in_memory(&specs, cache_bytes);
        check(stores, steps, |stores| stores)?;
    }
}

fn changelog(stores: &TaskStores) -> Vec<(usize, String, Option<Vec<u8>>, i64)> {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    stores.changelog().map(|r| (r.store, text(r.key), r.value.map(<[u8]>::to_vec), r.timestamp.unwrap())).collect()
}

fn at(timestamp: i64) -> RecordContext {
    RecordContext { timestamp, ..RecordContext::default() }
}

fn row(timestamp: i64, value: &[u8]) -> Vec<u8> {
    [&timestamp.to_be_bytes(), value].concat()
}

#[test]
fn the_changelog_of_a_timestamped_store_has_the_value_and_its_timestamp() {
    let mut stores = TaskStores::in_memory(&[spec("t", StoreKind::TimestampedKeyValue, false)], 0);
    stores.put(0, b"k", Some(&row(7, b"v")), &at(9)).unwrap();
    stores.put(0, b"k", None, &at(9)).unwrap();
    assert_eq!(changelog(&stores), [(0, "k".into(), Some(b"v".to_vec()), 7), (0, "k".into(), None, 9)]);
    assert_eq!(stores.uncommitted_bytes(), 1 + 3, "the row's key, and two keys and a value in the changelog");
    stores.clear_changelog();
    assert_eq!(stores.uncommitted_bytes(), 1);
}

#[test]
fn a_restored_row_is_the_one_that_was_logged() {
    let mut stores = TaskStores::in_memory(&[spec("t", StoreKind::TimestampedKeyValue, false)], 0);
    let mut batch = RecordBatch::default();
    for (offset, key, value) in [(0, "a", Some("1")), (1, "b", Some("1")), (2, "a", Some("2")), (3, "b", None)] {
        batch.push(offset, 10 + offset, Some(key.as_bytes()), value.map(str::as_bytes), Headers::new()).unwrap();
    }
    stores.restore(0, &batch, 5).unwrap();
    assert_eq!(stores.offset(0), Some(5));
    assert_eq!(stores.get(0, b"a").unwrap(), Some(&row(12, b"2")[..]));
    assert_eq!(stores.get(0, b"b").unwrap(), None);
    assert_eq!((stores.approximate_len(0), stores.changelog().count()), (1, 0));
}

/// What an operator does after each of its puts, and at the commit.
fn drain(stores: &mut TaskStores, taken: &mut Vec<(String, Option<Vec<u8>>, i64)>) {
    while let Some(dirty) = stores.take_dirty(0, true).unwrap() {
        taken.push((String::from_utf8(dirty.key).unwrap(), dirty.new, dirty.context.timestamp));
    }
}

#[test]
fn an_operator_takes_the_last_update_of_each_key_at_the_commit() {
    let mut stores = TaskStores::in_memory(&[spec("c", StoreKind::KeyValue, true)], 1_000_000);
    stores.set_forwards(0);
    let mut taken = Vec::new();
    for (key, value, timestamp) in [("a", "1", 1), ("b", "1", 2), ("a", "2", 3), ("c", "1", 2), ("b", "2", 2)] {
        stores.put(0, key.as_bytes(), Some(value.as_bytes()), &at(timestamp)).unwrap();
        assert!(!stores.is_cache_full());
    }
    stores.put(0, b"never there", None, &at(4)).unwrap();
    drain(&mut stores, &mut taken);
    let row = |key: &str, value: &[u8], timestamp| (key.to_string(), Some(value.to_vec()), timestamp);
    assert_eq!(taken, [row("a", b"2", 3), row("c", b"1", 2), row("b", b"2", 2)]);
    assert_eq!(stores.changelog().count(), 3);
}

#[test]
fn a_cache_too_small_for_one_entry_is_taken_at_every_put() {
    let mut stores = TaskStores::in_memory(&[spec("c", StoreKind::KeyValue, true)], 1);
    stores.set_forwards(0);
    let mut taken = Vec::new();
    for key in ["a", "b", "a"] {
        stores.put(0, key.as_bytes(), Some(b"1"), &at(1)).unwrap();
        while stores.is_cache_full() {
            drain(&mut stores, &mut taken);
        }
    }
    assert_eq!(taken.iter().map(|(key, ..)| key.as_str()).collect::<Vec<_>>(), ["a", "b", "a"]);
}

#[test]
fn a_store_that_nobody_forwards_writes_through_when_the_cache_is_full() {
    let mut stores = TaskStores::in_memory(&[spec("c", StoreKind::KeyValue, true)], 1);
    stores.put(0, b"b", Some(b"3"), &at(3)).unwrap();
    stores.put(0, b"b", None, &at(4)).unwrap();
    assert_eq!(changelog(&stores), [(0, "b".into(), Some(b"3".to_vec()), 3), (0, "b".into(), None, 4)]);
}

#[test]
fn stores_may_move_to_another_thread() {
    fn is_send<T: Send>() {}
    is_send::<TaskStores>();
    is_send::<StateHome>();
}

#[cfg(feature = "rocksdb")]
#[test]
fn every_kind_of_store_has_a_layout_of_its_own_which_stays_as_it_is() {
    let window = |duplicates, timestamps| WindowKind::new(7, 5, duplicates, timestamps, EngineKind::Persistent);
    let session = SessionKind::new(7, EngineKind::Persistent);
    let kinds = [
        (StoreKind::KeyValue, 0),
        (StoreKind::TimestampedKeyValue, 1),
        (StoreKind::Window(window(false, false)), 2),
        (StoreKind::Window(window(false, true)), 3),
        (StoreKind::Window(window(true, false)), 4),
        (StoreKind::Window(window(true, true)), 5),
        (StoreKind::Session(session), 6),
        (StoreKind::Versioned(VersionedKind::new(7)), 7),
        (StoreKind::KeyValueWithHeaders, 8),
        (StoreKind::Window(window(false, true).with_headers()), 9),
        (StoreKind::Window(window(true, true).with_headers()), 10),
        (StoreKind::Session(session.with_headers()), 11),
    ];
    for (kind, expected) in kinds {
        assert_eq!(spec("s", kind, false).layout().kind, expected, "{kind:?}");
    }
}
