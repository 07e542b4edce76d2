//! Windowed and versioned stores on disk: the models again, and what is left in the files.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;

use super::tests::{TASK, home};
use super::*;
use crate::serdes::Utf8;
use crate::state::model_tests::{Place, Task, check_sessions, check_versions, check_windows, restore, steps};
use crate::state::{RecordContext, StoreToOpen, Stores, TaskStores};

struct OnDisk {
    folder: PathBuf,
    cache_bytes: usize,
}

fn to_open(spec: &Arc<StoreSpec>) -> StoreToOpen {
    let changelog = Some(ChangelogIdentity { topic: "log".into(), topic_id: None, partition: 3 });
    StoreToOpen { spec: Arc::clone(spec), changelog }
}

impl Place for OnDisk {
    fn open(&self, spec: &Arc<StoreSpec>) -> TaskStores {
        let home = home(&self.folder, self.cache_bytes);
        TaskStores::open(&home, TASK, &[to_open(spec)], 1).unwrap()
    }

    fn reopen(&self, stores: TaskStores, spec: &Arc<StoreSpec>, log: &[(Vec<u8>, Option<Vec<u8>>, i64)]) -> TaskStores {
        stores.close().unwrap();
        let mut stores = self.open(spec);
        assert_eq!(stores.offset(0).unwrap_or(0), log.len() as i64);
        if log.len() % 3 == 1 {
            stores.wipe(0).unwrap();
            restore(&mut stores, log);
        }
        stores
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn a_window_store_on_disk_does_as_its_model(steps in steps(), caching: bool) {
        let folder = tempfile::tempdir().unwrap();
        let place = OnDisk { folder: folder.path().into(), cache_bytes: if caching { 1 << 20 } else { 0 } };
        check_windows(&place, (false, false, caching), steps)?;
    }

    #[test]
    fn a_session_store_on_disk_does_as_its_model(steps in steps(), caching: bool) {
        let folder = tempfile::tempdir().unwrap();
        let place = OnDisk { folder: folder.path().into(), cache_bytes: if caching { 1 << 20 } else { 0 } };
        check_sessions(&place, (false, caching), steps)?;
    }

    #[test]
    fn a_versioned_store_on_disk_does_as_its_model(steps in steps()) {
        let folder = tempfile::tempdir().unwrap();
        check_versions(&OnDisk { folder: folder.path().into(), cache_bytes: 0 }, steps)?;
    }
}

/// Rows of the only store, whether reads show them or not.
fn rows(folder: &Path, name: &str) -> usize {
    let db = Db::open_cf(&Options::default(), folder.join("app/0_3/db"), ["default".to_owned(), family_name(name)]);
    let db = db.unwrap();
    let family = db.cf_handle(&family_name(name)).unwrap();
    db.iterator_cf(&family, rocksdb::IteratorMode::Start).count() - 1
}

#[test]
fn expired_buckets_leave_with_their_files() {
    let folder = tempfile::tempdir().unwrap();
    let (retention, size) = (Duration::from_secs(120), Duration::from_secs(1));
    let builder = Stores::window("w", retention, size, false, Utf8, Utf8);
    let place = OnDisk { folder: folder.path().into(), cache_bytes: 0 };
    let mut store = builder.open(0);
    let mut task = Task(place.open(&builder.spec), RecordContext::default());
    for minute in 0..50_i64 {
        for key in 0..20 {
            store.put(&mut task, &format!("key {key}"), &"v".repeat(100), minute * 60_000).unwrap();
        }
        task.0.clear_changelog();
        task.0.apply(&[Some(minute)]).unwrap();
        task.0.backing.database.as_ref().unwrap().flush_all().unwrap();
    }
    let shown = store.all().collect(&mut task).unwrap().len();
    let database = Arc::clone(task.0.backing.database.as_ref().unwrap());
    let family = database.family("w").unwrap();
    database.db.compact_range_cf(&family, None::<&[u8]>, None::<&[u8]>);
    drop(family);
    drop(database);
    std::mem::take(&mut task.0).close().unwrap();
    assert_eq!(shown, 40);
    // Two buckets that are shown, one in which the retention ends, and one that a crash would bring back.
    assert_eq!(rows(folder.path(), "w"), 80);
    let mut task = Task(place.open(&builder.spec), RecordContext::default());
    assert_eq!(store.all().collect(&mut task).unwrap().len(), shown, "the time of the store is known again");
}

#[test]
fn expired_versions_leave_with_a_compaction() {
    let folder = tempfile::tempdir().unwrap();
    let builder = Stores::versioned_key_value("v", Duration::from_secs(10), Utf8, Utf8);
    let place = OnDisk { folder: folder.path().into(), cache_bytes: 0 };
    let mut store = builder.open(0);
    let mut task = Task(place.open(&builder.spec), RecordContext::default());
    for second in 0..50_i64 {
        if second == 45 {
            task.0.backing.database.as_ref().unwrap().flush_all().unwrap();
        }
        let value = "v".to_owned();
        store.put(&mut task, &"a".to_owned(), Some(&value), second * 1000).unwrap();
        let deleted = format!("deleted {second}");
        store.put(&mut task, &deleted, Some(&value), second * 1000).unwrap();
        store.put(&mut task, &deleted, None, second * 1000 + 1).unwrap();
        task.0.clear_changelog();
        task.0.apply(&[Some(second)]).unwrap();
    }
    let database = Arc::clone(task.0.backing.database.as_ref().unwrap());
    database.flush_all().unwrap();
    let family = database.family("v").unwrap();
    database.db.compact_range_cf(&family, None::<&[u8]>, None::<&[u8]>);
    drop(family);
    drop(database);
    assert!(store.get_as_of(&mut task, &"a".to_owned(), 40_000).unwrap().is_some());
    std::mem::take(&mut task.0).close().unwrap();
    let left = rows(folder.path(), "v");
    assert!((11 + 20..60).contains(&left), "{left} rows of 150");
}

/// RocksDB asks the filters of all families for their names when one is made.
#[test]
fn a_windowed_store_may_be_emptied_again_and_again() {
    let folder = tempfile::tempdir().unwrap();
    let size = Duration::from_secs(1);
    let specs = ["a", "b"].map(|name| Stores::window(name, Duration::from_secs(120), size, false, Utf8, Utf8).spec);
    let home = home(folder.path(), 0);
    let mut stores = TaskStores::open(&home, TASK, &specs.each_ref().map(to_open), 1).unwrap();
    for round in 0..20 {
        stores.wipe(round % 2).unwrap();
        // Takes the memory that a filter had, if it is gone.
        let _other = vec![vec![0xa5_u8; 64]; 64];
    }
    stores.close().unwrap();
}
