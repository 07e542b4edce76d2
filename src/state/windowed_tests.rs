//! Window and session stores through their facades.

use std::time::Duration;

use super::*;
use crate::serdes::Utf8;
use crate::window::{Window, Windowed};

/// The stores of a task, as a processor reaches them.
struct Task(TaskStores, RecordContext);

impl StoreContext for Task {
    fn stores(&mut self) -> (&mut TaskStores, &RecordContext) {
        (&mut self.0, &self.1)
    }
}

fn task<S>(store: &StoreBuilder<S>, cache_bytes: usize) -> (Task, S) {
    let stores = TaskStores::in_memory(&[std::sync::Arc::clone(&store.spec)], cache_bytes);
    (Task(stores, RecordContext::default()), store.open(0))
}

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn commit(task: &mut Task) {
    task.0.flush(0).unwrap();
    task.0.clear_changelog();
    task.0.apply(&[Some(1)]).unwrap();
}

fn text(value: &str) -> String {
    value.to_owned()
}

#[test]
fn a_row_is_shown_until_its_retention_has_passed() {
    for cache_bytes in [0, 1_000_000] {
        let (mut task, mut store) =
            task(&Stores::window("w", ms(60), ms(10), false, Utf8, Utf8).with_caching(), cache_bytes);
        for (start, value) in [(0, "v0"), (10, "v10"), (100, "v100"), (40, "gone"), (41, "edge")] {
            store.put(&mut task, &text("a"), &text(value), start).unwrap();
        }
        if cache_bytes > 0 {
            let rows = store.fetch_range(&text("a"), 0, 1000).unwrap().collect(&mut task).unwrap();
            assert_eq!(rows.len(), 5, "the cache shows what it has");
            task.0.flush(0).unwrap();
            task.0.discard();
            continue;
        }
        let rows = store.fetch_range(&text("a"), 0, 1000).unwrap().collect(&mut task).unwrap();
        assert_eq!(rows, [(41, text("edge")), (100, text("v100"))]);
        assert_eq!(store.fetch(&mut task, &text("a"), 40).unwrap(), None);
        let rows = store.backward_all().collect(&mut task).unwrap();
        let row =
            |start: i64, value| (Windowed { key: text("a"), window: Window { start, end: start + 10 } }, text(value));
        assert_eq!(rows, [row(100, "v100"), row(41, "edge")]);
        assert_eq!(task.0.expired(), 0, "their segment is live");
        assert_eq!(task.0.changelog().count(), 5, "those that do not show are logged too");
    }
}

#[test]
fn a_cached_row_shows_until_it_is_evicted() {
    let (mut task, mut store) = task(&Stores::window("w", ms(60), ms(10), false, Utf8, Utf8).with_caching(), 1_000_000);
    for start in [0, 100] {
        store.put(&mut task, &text("a"), &text("v"), start).unwrap();
        commit(&mut task);
    }
    let rows = store.all().collect(&mut task).unwrap();
    assert_eq!(rows.iter().map(|(key, _)| key.window.start).collect::<Vec<_>>(), [0, 100], "as in Java");
    task.0.discard();
    let rows = store.all().collect(&mut task).unwrap();
    assert_eq!(rows.iter().map(|(key, _)| key.window.start).collect::<Vec<_>>(), [100]);
}

#[test]
fn a_row_of_an_expired_bucket_is_dropped_counted_and_logged() {
    let (mut task, mut store) = task(&Stores::window("w", ms(60_000), ms(10), false, Utf8, Utf8), 0);
    store.put(&mut task, &text("a"), &text("5"), 300_000).unwrap();
    store.put(&mut task, &text("a"), &text("late"), 190_000).unwrap();
    assert_eq!((task.0.expired(), task.0.changelog().count()), (1, 2));
    assert_eq!(task.0.approximate_len(0), 1);
}

#[test]
fn an_abort_takes_the_time_of_a_store_back() {
    let (mut task, mut store) = task(&Stores::session("s", ms(100), Utf8, Utf8), 0);
    let session = |start, end| Windowed { key: text("a"), window: Window { start, end } };
    store.put(&mut task, &session(0, 5), &text("1")).unwrap();
    commit(&mut task);
    store.put(&mut task, &session(900, 1000), &text("2")).unwrap();
    let rows = store.fetch(&text("a")).unwrap().collect(&mut task).unwrap();
    assert_eq!(rows, [(session(900, 1000), text("2"))]);
    task.0.discard();
    let rows = store.find_sessions(&text("a"), 5, 5).unwrap().collect(&mut task).unwrap();
    assert_eq!(rows, [(session(0, 5), text("1"))]);
}

#[test]
fn duplicates_are_kept_beside_each_other() {
    let (mut task, mut store) = task(&Stores::in_memory_window("w", ms(100), ms(10), true, Utf8, Utf8), 0);
    for (value, start) in [("1", 5), ("2", 5), ("3", 4), ("1", 5)] {
        store.put(&mut task, &text("a"), &text(value), start).unwrap();
    }
    store.delete(&mut task, &text("a"), 5).unwrap();
    let rows = store.fetch_range(&text("a"), 0, 10).unwrap().collect(&mut task).unwrap();
    assert_eq!(rows, [(4, text("3")), (5, text("1")), (5, text("2")), (5, text("1"))]);
    let keys: Vec<_> = task.0.changelog().map(|record| record.key.to_vec()).collect();
    assert_eq!(keys[4], b"a\0\0\0\0\0\0\0\x05\0\0\0\x05", "a deletion takes a number too");
}

/// As in Java, where the row goes before it is logged.
#[test]
fn a_store_for_no_rows_forgets_each_at_once() {
    let (mut task, mut store) = task(&Stores::lru_map("l", 0, Utf8, Utf8), 0);
    store.put(&mut task, &"a".to_owned(), &"1".to_owned()).unwrap();
    assert_eq!(store.get(&mut task, &"a".to_owned()).unwrap(), None);
    assert_eq!(store.all().collect(&mut task).unwrap(), []);
    let logged: Vec<_> = task.0.changelog().map(|record| record.value.map(<[u8]>::to_vec)).collect();
    assert_eq!(logged, [None, Some(b"1".to_vec())]);
}

#[test]
fn a_bounded_store_deletes_the_row_that_was_not_used_for_the_longest_time() {
    let (mut task, mut store) = task(&Stores::lru_map("l", 2, Utf8, Utf8), 0);
    let all = |store: &KeyValueStore<String, String>, task: &mut Task| -> Vec<String> {
        store.all().collect(task).unwrap().into_iter().map(|(key, _)| key).collect()
    };
    for key in ["a", "b"] {
        store.put(&mut task, &text(key), &text("1")).unwrap();
    }
    commit(&mut task);
    store.get(&mut task, &text("a")).unwrap();
    store.put(&mut task, &text("c"), &text("1")).unwrap();
    assert_eq!(all(&store, &mut task), ["a", "c"]);
    let logged: Vec<_> = task.0.changelog().map(|record| (record.key.to_vec(), record.value.is_some())).collect();
    assert_eq!(logged, [(b"b".to_vec(), false), (b"c".to_vec(), true)]);
    task.0.discard();
    assert_eq!(all(&store, &mut task), ["a", "b"]);
    store.put(&mut task, &text("d"), &text("1")).unwrap();
    assert_eq!(all(&store, &mut task).len(), 2);
    store.delete(&mut task, &text("d")).unwrap();
    store.put(&mut task, &text("e"), &text("1")).unwrap();
    assert_eq!(all(&store, &mut task).len(), 2);
}

#[test]
fn a_single_row_among_duplicates_is_the_last_one_on_disk_and_none_in_memory() {
    let on_disk = Stores::window("w", ms(100), ms(10), true, Utf8, Utf8).with_caching();
    let (mut task_on_disk, mut store) = task(&on_disk, 1_000_000);
    for value in ["1", "2"] {
        store.put(&mut task_on_disk, &text("a"), &text(value), 5).unwrap();
    }
    store.delete(&mut task_on_disk, &text("a"), 5).unwrap();
    assert_eq!(task_on_disk.0.changelog().count(), 3, "nothing is held back");
    assert_eq!(store.fetch(&mut task_on_disk, &text("a"), 5).unwrap(), Some(text("2")));
    assert_eq!(store.fetch(&mut task_on_disk, &text("a"), 4).unwrap(), None);
    let (mut task_in_memory, mut store) = task(&Stores::in_memory_window("w", ms(100), ms(10), true, Utf8, Utf8), 0);
    store.put(&mut task_in_memory, &text("a"), &text("1"), 5).unwrap();
    assert_eq!(store.fetch(&mut task_in_memory, &text("a"), 5).unwrap(), None);
}
