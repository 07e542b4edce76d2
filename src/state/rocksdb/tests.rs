//! Stores on disk: the model again, damage, and what the files hold.

use std::fs;
use std::ops::Bound;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::record::{Headers, RecordBatch};
use crate::state::tests::{check, spec, step, with_ttl};
use crate::state::{
    CacheBudget, LogState, Reach, RecordContext, StateDirectory, StateHome, StateMemory, StateMemoryLimits, StoreKind,
    StoreToOpen, TaskStores,
};
use crate::topology::TaskId;

pub(super) const TASK: TaskId = TaskId { sub_topology: 0, partition: 3 };
const NOW_MS: i64 = 1_700_000_000_000;

pub(super) fn home(folder: &Path, cache_bytes: usize) -> StateHome {
    let limits = StateMemoryLimits { block_cache_bytes: 4 << 20, memtable_bytes: 256 << 10, read_cache_bytes: 10_000 };
    StateHome {
        directory: Some(StateDirectory::open(folder, "app").unwrap()),
        memory: StateMemory::new(limits),
        cache: CacheBudget::new(cache_bytes),
    }
}

pub(super) fn two_stores() -> Vec<StoreToOpen> {
    let store = |name: &str, caching| {
        let topic = format!("app-{name}-changelog").into();
        let changelog = Some(ChangelogIdentity { topic, topic_id: None, partition: 3 });
        StoreToOpen { spec: spec(name, StoreKind::KeyValue, caching), changelog }
    };
    vec![store("a", false), store("b", true)]
}

pub(super) fn open(home: &StateHome) -> TaskStores {
    TaskStores::open(home, TASK, &two_stores(), NOW_MS).unwrap()
}

fn put(stores: &mut TaskStores, store: usize, key: &str, value: &str) {
    stores.put(store, key.as_bytes(), Some(value.as_bytes()), &RecordContext::default()).unwrap();
}

fn get(stores: &mut TaskStores, store: usize, key: &str) -> Option<String> {
    stores.get(store, key.as_bytes()).unwrap().map(|row| String::from_utf8(row.to_vec()).unwrap())
}

/// Two stores with a row each, at offsets 7 and 9, closed.
fn filled(home: &StateHome) {
    let mut stores = open(home);
    put(&mut stores, 0, "k", "a");
    put(&mut stores, 1, "k", "b");
    stores.flush(1).unwrap();
    stores.apply(&[Some(7), Some(9)]).unwrap();
    stores.close().unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn stores_on_disk_do_as_the_model_does(
        steps in vec(step(), 1..120),
        cache_bytes in prop_oneof![Just(0), Just(200), Just(100_000)],
        expires in any::<bool>(),
    ) {
        let folder = tempfile::tempdir().unwrap();
        let home = home(folder.path(), cache_bytes);
        let mut stores = two_stores();
        if expires {
            stores.iter_mut().for_each(|store| store.spec = with_ttl(&store.spec));
        }
        let open = || TaskStores::open(&home, TASK, &stores, NOW_MS).unwrap();
        check(open(), steps, |stores| {
            stores.close().unwrap();
            open()
        })?;
    }
}

#[test]
fn a_closed_store_opens_at_its_offset() {
    let folder = tempfile::tempdir().unwrap();
    let home = home(folder.path(), 0);
    filled(&home);
    let mut stores = open(&home);
    assert_eq!((stores.offset(0), stores.offset(1)), (Some(7), Some(9)));
    assert_eq!(stores.durable_offset(1).unwrap(), Some(9));
    assert_eq!((get(&mut stores, 0, "k"), get(&mut stores, 1, "k")), (Some("a".into()), Some("b".into())));
    let log = LogState { start: 0, end: 10, delete_retention_ms: Some(1000) };
    assert_eq!(stores.begin_restore(0, &log, NOW_MS + 10).unwrap(), 7);
}

/// State that a released version has written must open in the next one: a change here is a change of the format.
#[test]
fn a_family_has_its_meta_record_behind_its_rows() {
    let folder = tempfile::tempdir().unwrap();
    let home = home(folder.path(), 0);
    filled(&home);
    let db =
        Db::open_cf(&Options::default(), folder.path().join("app/0_3/db"), ["default", "store-a", "store-b"]).unwrap();
    let family = db.cf_handle("store-a").unwrap();
    let rows: Vec<_> = db.iterator_cf(&family, rocksdb::IteratorMode::Start).map(Result::unwrap).collect();
    assert_eq!((&*rows[1].0, &*rows[0].0, &*rows[0].1), (&b"\xff"[..], &b"\x01k"[..], &b"a"[..]));
    let meta = Meta::decode(&rows[1].1, Layout { kind: 0, bucket_ms: 0 }).unwrap();
    assert_eq!((meta.next_offset, meta.wall_clock_ms), (Some(7), NOW_MS));
    assert_eq!(meta.changelog, two_stores()[0].changelog);
    assert_eq!(rows.len(), 2);
}

#[test]
fn a_store_that_has_to_begin_again_does_not_touch_the_others() {
    let folder = tempfile::tempdir().unwrap();
    let home = home(folder.path(), 0);
    filled(&home);
    let mut stores = open(&home);
    let log = LogState { start: 8, end: 20, delete_retention_ms: None };
    assert_eq!(stores.begin_restore(0, &log, NOW_MS).unwrap(), 8, "the log no longer has offset 7");
    assert_eq!(stores.begin_restore(1, &log, NOW_MS).unwrap(), 9);
    assert_eq!((get(&mut stores, 0, "k"), get(&mut stores, 1, "k")), (None, Some("b".into())));
    let mut batch = RecordBatch::default();
    batch.push(8, 0, Some(b"k"), Some(b"restored"), Headers::new()).unwrap();
    stores.restore(0, &batch, 20).unwrap();
    stores.close().unwrap();
    let mut stores = open(&home);
    assert_eq!((get(&mut stores, 0, "k"), stores.offset(0)), (Some("restored".into()), Some(20)));
}

const MINUTE: LogState = LogState { start: 0, end: 20, delete_retention_ms: Some(60_000) };

#[test]
fn a_store_that_was_open_and_behind_for_as_long_as_deletions_are_kept_begins_again() {
    let folder = tempfile::tempdir().unwrap();
    let home = home(folder.path(), 0);
    let mut stores = open(&home);
    put(&mut stores, 0, "k", "a");
    stores.apply(&[Some(7), None]).unwrap();
    assert_eq!(stores.go_on_restore(0, &MINUTE, NOW_MS + 54_000).unwrap(), 7);
    let nothing_is_missing = LogState { end: 7, ..MINUTE };
    assert_eq!(stores.go_on_restore(0, &nothing_is_missing, NOW_MS + 99_000).unwrap(), 7);
    assert!(!stores.is_outdated(0, MINUTE.delete_retention_ms, NOW_MS + 54_000));
    assert!(stores.is_outdated(0, MINUTE.delete_retention_ms, NOW_MS + 54_001));
    assert!(!stores.is_outdated(0, Some(100), NOW_MS + 1_800), "it would never be done");
    assert_eq!(stores.go_on_restore(0, &MINUTE, NOW_MS + 54_001).unwrap(), 0);
    assert_eq!(get(&mut stores, 0, "k"), None);
}

#[test]
fn what_is_read_on_the_way_to_the_end_makes_a_store_no_younger() {
    for (end, expected) in [(20, 0), (8, 8)] {
        let folder = tempfile::tempdir().unwrap();
        let home = home(folder.path(), 0);
        filled(&home);
        let mut stores = open(&home);
        assert_eq!(stores.begin_restore(0, &MINUTE, NOW_MS).unwrap(), 7);
        home.memory.set_now(NOW_MS + 40_000);
        let mut batch = RecordBatch::default();
        batch.push(7, 0, Some(b"other"), Some(b"row"), Headers::new()).unwrap();
        stores.restore_towards(0, &batch, Reach { next_offset: 8, end }).unwrap();
        stores.close().unwrap();
        let mut stores = open(&home);
        assert_eq!(stores.begin_restore(0, &MINUTE, NOW_MS + 70_000).unwrap(), expected);
    }
}

#[test]
fn a_store_of_another_kind_under_the_same_name_begins_again() {
    let folder = tempfile::tempdir().unwrap();
    let home = home(folder.path(), 0);
    filled(&home);
    let mut other = two_stores();
    other[0].spec = spec("a", StoreKind::TimestampedKeyValue, false);
    let mut stores = TaskStores::open(&home, TASK, &other, NOW_MS).unwrap();
    assert!(matches!(stores.condition(0), Some(StoreCondition::Unreadable(_))));
    let log = LogState { start: 0, end: 20, delete_retention_ms: None };
    assert_eq!(stores.begin_restore(0, &log, NOW_MS).unwrap(), 0);
    assert_eq!(get(&mut stores, 0, "k"), None);
}

#[test]
fn what_is_to_expire_is_found_again_on_disk() {
    let folder = tempfile::tempdir().unwrap();
    let home = home(folder.path(), 0);
    let mut stores = two_stores();
    stores[0].spec = with_ttl(&spec("a", StoreKind::TimestampedKeyValue, false));
    let open = || TaskStores::open(&home, TASK, &stores, NOW_MS).unwrap();
    let row = |time: i64| [&time.to_be_bytes()[..], b"row"].concat();
    let mut task = open();
    for (key, time) in [("a", 5), ("b", 3), ("c", 20), ("b", 4)] {
        task.put(0, key.as_bytes(), Some(&row(time)), &RecordContext::default()).unwrap();
    }
    task.apply(&[Some(4), None]).unwrap();
    task.close().unwrap();
    let mut task = open();
    assert_eq!(task.offset(0), Some(4));
    task.set_time(Some(15));
    task.set_expired_max(9);
    assert_eq!(task.next_expired(0).unwrap().as_deref(), Some(&b"b"[..]));
    task.put(0, b"b", None, &RecordContext::default()).unwrap();
    assert_eq!(task.next_expired(0).unwrap(), None, "a has its last millisecond");
    task.apply(&[Some(5), None]).unwrap();
    task.close().unwrap();
    let mut task = open();
    let keys = task.page(0, Bound::Unbounded, Bound::Unbounded, false, 9).unwrap();
    assert_eq!(keys.iter().map(|(key, _)| &key[..]).collect::<Vec<_>>(), [b"a", b"c"]);
    task.close().unwrap();

    // Rows lie elsewhere without a time to live: they are read from the changelog.
    stores[0].spec = spec("a", StoreKind::TimestampedKeyValue, false);
    let task = TaskStores::open(&home, TASK, &stores, NOW_MS).unwrap();
    assert!(matches!(task.condition(0), Some(StoreCondition::Unreadable(_))));
}

#[test]
fn rows_are_flushed_when_they_are_old_or_too_many() {
    let folder = tempfile::tempdir().unwrap();
    let home = home(folder.path(), 0);
    let mut stores = open(&home);
    let dirty =
        |stores: &TaskStores| stores.backing.database.as_ref().map_or(0, |database| database.memtables().count());
    put(&mut stores, 0, "k", "a");
    stores.apply(&[Some(7), None]).unwrap();
    home.memory.flush_if_due(NOW_MS + 30_000).unwrap();
    assert_eq!((dirty(&stores), stores.durable_offset(0).unwrap()), (1, None));
    home.memory.flush_if_due(NOW_MS + 30_001).unwrap();
    assert_eq!(dirty(&stores), 0);
    put(&mut stores, 0, "k", &"long".repeat(100_000));
    put(&mut stores, 1, "k", "short");
    stores.apply(&[Some(8), Some(1)]).unwrap();
    home.memory.flush_if_due(NOW_MS + 30_002).unwrap();
    assert_eq!(dirty(&stores), 1, "the largest goes, the others may wait");
}

fn named(folder: &Path, part: &str) -> PathBuf {
    let paths = fs::read_dir(folder.join("app/0_3/db")).unwrap().map(|entry| entry.unwrap().path());
    let mut paths: Vec<_> = paths.filter(|path| path.to_string_lossy().contains(part)).collect();
    paths.sort();
    paths.pop().unwrap()
}

fn flip(path: &Path, at: u64) {
    let file = fs::File::options().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 1], at).unwrap();
}

fn set_aside(folder: &Path) -> usize {
    let entries = fs::read_dir(folder.join("app")).unwrap();
    entries.filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().starts_with("0_3.corrupt-")).count()
}

#[test]
fn damage_found_at_open_sets_the_task_aside() {
    type Damage = fn(&Path);
    let damages: [Damage; 4] = [
        |folder| fs::remove_file(named(folder, ".sst")).unwrap(),
        |folder| fs::remove_file(named(folder, "MANIFEST")).unwrap(),
        |folder| fs::write(named(folder, "CURRENT"), "").unwrap(),
        |folder| {
            let path = named(folder, ".sst");
            flip(&path, fs::metadata(&path).unwrap().len() - 20);
        },
    ];
    for damage in damages {
        let folder = tempfile::tempdir().unwrap();
        let home = home(folder.path(), 0);
        filled(&home);
        damage(folder.path());
        let mut stores = open(&home);
        assert_eq!((get(&mut stores, 0, "k"), stores.offset(0)), (None, None));
        assert_eq!(stores.condition(0), Some(&StoreCondition::Empty));
        assert_eq!(set_aside(folder.path()), 1);
    }
}

#[test]
fn damage_met_while_running_sets_the_task_aside_at_the_next_open() {
    let folder = tempfile::tempdir().unwrap();
    let home = home(folder.path(), 0);
    filled(&home);
    let files = fs::read_dir(folder.path().join("app/0_3/db")).unwrap().map(|entry| entry.unwrap().path());
    files.filter(|path| path.extension().is_some_and(|extension| extension == "sst")).for_each(|path| flip(&path, 3));
    // The meta record lies in the damaged block.
    match TaskStores::open(&home, TASK, &two_stores(), NOW_MS) {
        Err(error) => assert_eq!(error.kind(), ErrorKind::Corrupted),
        Ok(mut stores) => {
            let error = stores.get(0, b"k").map(drop).and(stores.get(1, b"k").map(drop)).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Corrupted);
        }
    }
    let mut stores = open(&home);
    assert_eq!((get(&mut stores, 0, "k"), set_aside(folder.path())), (None, 1));
}

#[test]
fn a_database_that_somebody_else_holds_is_well() {
    let folder = tempfile::tempdir().unwrap();
    let home = home(folder.path(), 0);
    filled(&home);
    let shared = Shared::new(1 << 20, 1 << 20);
    let path = folder.path().join("app/0_3/db");
    let specs: Vec<_> = two_stores().into_iter().map(|store| store.spec).collect();
    let held = Database::open(&path, &specs, &shared, folder.path().join("mark"));
    assert!(held.is_ok());
    let error = TaskStores::open(&home, TASK, &two_stores(), NOW_MS).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    drop(held);
    assert_eq!(get(&mut open(&home), 0, "k"), Some("a".into()));
}

#[test]
fn a_range_may_begin_and_end_anywhere() {
    let folder = tempfile::tempdir().unwrap();
    let mut stores = open(&home(folder.path(), 0));
    for key in ["", "a", "aa", "b"] {
        put(&mut stores, 0, key, "v");
    }
    stores.apply(&[Some(1), None]).unwrap();
    let mut keys = |from, to, reverse| {
        let rows = stores.page(0, from, to, reverse, 10).unwrap();
        rows.into_iter().map(|(key, _)| String::from_utf8(key).unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(keys(Bound::Excluded(b"a"), Bound::Unbounded, false), ["aa", "b"]);
    assert_eq!(keys(Bound::Unbounded, Bound::Included(b"a"), true), ["a", ""]);
    assert_eq!(keys(Bound::Excluded(b""), Bound::Excluded(b"aa"), false), ["a"]);
}

/// Records of a changelog: keys in no order, a third of them again and again, some deleted.
pub(super) fn logged(offsets: std::ops::Range<i64>) -> RecordBatch {
    let mut batch = RecordBatch::default();
    for offset in offsets {
        let key = (offset.wrapping_mul(0x9e37_79b9) % 2999).to_be_bytes();
        let value = (offset % 7 != 0).then(|| [offset.to_be_bytes(); 10].concat());
        batch.push(offset, offset, Some(&key), value.as_deref(), Headers::new()).unwrap();
    }
    batch
}

pub(super) fn all(stores: &mut TaskStores, store: usize) -> Vec<(Vec<u8>, Vec<u8>)> {
    stores.page(store, Bound::Unbounded, Bound::Unbounded, false, usize::MAX).unwrap()
}

pub(super) fn restore_in_steps(stores: &mut TaskStores, store: usize, from: i64, to: i64, end: i64) {
    for first in (from..to).step_by(500) {
        let next_offset = (first + 500).min(to);
        let reach = Reach { next_offset, end };
        stores.restore_towards(store, &logged(first..next_offset), reach).unwrap();
    }
}

#[test]
fn a_large_empty_store_is_filled_by_runs_with_the_same_rows_and_offset_as_by_batches() {
    let folder = tempfile::tempdir().unwrap();
    let home = home(folder.path(), 0);
    let mut stores = open(&home);
    let end = 20_000;
    restore_in_steps(&mut stores, 0, 0, end, end);
    stores.finish_restore(0).unwrap();
    for first in (0..end).step_by(500) {
        stores.restore(1, &logged(first..first + 500), first + 500).unwrap();
    }
    assert_eq!((stores.offset(0), stores.offset(1)), (Some(end), Some(end)));
    assert_eq!(all(&mut stores, 0), all(&mut stores, 1));
    // What comes afterwards goes on top of it.
    put(&mut stores, 0, "k", "a");
    stores.apply(&[Some(end + 1), None]).unwrap();
    home.memory.flush_if_due(NOW_MS).unwrap();
    assert_eq!(get(&mut stores, 0, "k"), Some("a".into()));
    let rows = all(&mut stores, 0);
    stores.close().unwrap();
    let mut stores = open(&home);
    assert_eq!((all(&mut stores, 0), stores.offset(0)), (rows, Some(end + 1)));
}

#[test]
fn a_run_is_on_disk_with_its_offset_and_what_is_only_collected_is_read_again() {
    let folder = tempfile::tempdir().unwrap();
    let home = home(folder.path(), 0);
    let mut stores = open(&home);
    restore_in_steps(&mut stores, 0, 0, 10_250, 20_000);
    let written = stores.offset(0).unwrap();
    assert!((1..10_250).contains(&written), "{written} of 10250 are written");
    assert_eq!(stores.durable_offset(0).unwrap(), Some(written));
    // Closing does not write what was held back: its place in the changelog is known.
    fs::write(folder.path().join("app/0_3/run-0"), "half a run").unwrap();
    stores.close().unwrap();
    let mut stores = open(&home);
    assert_eq!(stores.offset(0), Some(written));
    assert!(!folder.path().join("app/0_3/run-0").exists());
    let mut model = TaskStores::in_memory(&[two_stores().remove(0).spec], 0);
    model.restore(0, &logged(0..written), written).unwrap();
    assert_eq!(all(&mut stores, 0), all(&mut model, 0));
    // And on to the end, on top of rows that are there.
    restore_in_steps(&mut stores, 0, written, 20_000, 20_000);
    stores.finish_restore(0).unwrap();
    model.restore(0, &logged(written..20_000), 20_000).unwrap();
    assert_eq!(all(&mut stores, 0), all(&mut model, 0));
    assert_eq!(stores.offset(0), Some(20_000));
}

#[test]
fn what_is_given_up_is_forgotten_with_its_offset() {
    let folder = tempfile::tempdir().unwrap();
    let home = home(folder.path(), 0);
    let mut stores = open(&home);
    restore_in_steps(&mut stores, 0, 0, 500, 20_000);
    assert_eq!(stores.offset(0), None);
    stores.give_up_restore(0).unwrap();
    assert!(all(&mut stores, 0).is_empty());
    restore_in_steps(&mut stores, 0, 0, 500, 500);
    stores.finish_restore(0).unwrap();
    assert_eq!(stores.offset(0), Some(500));
}

#[test]
fn a_store_that_was_emptied_while_it_was_loaded_is_loaded_again() {
    let folder = tempfile::tempdir().unwrap();
    let home = home(folder.path(), 0);
    let mut stores = open(&home);
    restore_in_steps(&mut stores, 0, 0, 10_000, 20_000);
    stores.wipe(0).unwrap();
    assert_eq!(stores.offset(0), None);
    restore_in_steps(&mut stores, 0, 0, 20_000, 20_000);
    stores.finish_restore(0).unwrap();
    let mut model = TaskStores::in_memory(&[two_stores().remove(0).spec], 0);
    model.restore(0, &logged(0..20_000), 20_000).unwrap();
    assert_eq!(all(&mut stores, 0), all(&mut model, 0));
}
