//! A child commits to stores of every kind, or restores them, and is killed, again and again: every store must be the fold
//! of the commits before its offset.

use std::env;
use std::io::{BufRead as _, BufReader, Write as _};
use std::ops::Bound;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use super::tests::{TASK, home, two_stores};
use crate::record::{Headers, RecordBatch};
use crate::state::spec::{EngineKind, SessionKind, VersionedKind, WindowKind};
use crate::state::tests::{spec, with_ttl};
use crate::state::work_queue::WorkQueue;
use crate::state::{ChangelogIdentity, Reach, RecordContext, StateHome, StoreKind, StoreToOpen, TaskStores};

/// The child's folder, and how many commits its changelog has.
const FOLDER: &str = "KSTREAMS_CRASH_FOLDER";
const COMMITS: &str = "KSTREAMS_CRASH_COMMITS";
/// What the child does.
const WORK: &str = "KSTREAMS_CRASH_WORK";
const KILLS: u64 = 12;

/// Two that keep their rows, and one of each kind whose rows expire.
fn stores() -> Vec<StoreToOpen> {
    let window = WindowKind::new(RETENTION_MS, 10, false, false, EngineKind::Persistent);
    let expiring = [
        StoreKind::Window(window),
        StoreKind::Session(SessionKind::new(RETENTION_MS, EngineKind::Persistent)),
        StoreKind::Versioned(VersionedKind::new(RETENTION_MS)),
    ];
    let expiring = expiring.into_iter().zip(["window", "session", "versioned"]).map(|(kind, name)| {
        let topic = format!("app-{name}-changelog").into();
        let changelog = Some(ChangelogIdentity { topic, topic_id: None, partition: 3 });
        StoreToOpen { spec: spec(name, kind, false), changelog }
    });
    let mut key_value = two_stores();
    // As long as its time does not move, it keeps its rows too, but each as two.
    key_value[1].spec = with_ttl(&key_value[1].spec);
    key_value.into_iter().chain(expiring).collect()
}

const STORES: usize = 5;
const FIRST_EXPIRING: usize = 2;
const RETENTION_MS: i64 = 200_000;

/// SplitMix64: both sides compute the n-th value.
fn mix(x: u64) -> u64 {
    let x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// What a commit writes to the changelog of a store.
fn changes(store: usize, commit: u64) -> impl Iterator<Item = (Vec<u8>, Option<Vec<u8>>, i64)> {
    let seed = mix(commit * STORES as u64 + store as u64);
    (0..5 + seed % 60).map(move |n| {
        let random = mix(seed.wrapping_add(n));
        let mut key = ((random % 500) as u16).to_be_bytes().to_vec();
        let time = (commit * 3_000 + (random >> 16) % 60_000) as i64;
        match store {
            2 => key.extend([&time.to_be_bytes()[..], &[0; 4]].concat()),
            3 => key.extend([(time + 5).to_be_bytes(), time.to_be_bytes()].concat()),
            _ => {}
        }
        let value = random.to_be_bytes().repeat(1 + (random >> 32) as usize % 20);
        (key, (!random.is_multiple_of(5)).then_some(value), time)
    })
}

fn batch(store: usize, commit: u64) -> RecordBatch {
    let mut batch = RecordBatch::default();
    for (key, value, time) in changes(store, commit) {
        batch.push(commit as i64, time, Some(&key), value.as_deref(), Headers::new()).unwrap();
    }
    batch
}

/// As a task would.
fn write(stores: &mut TaskStores, opened: &[StoreToOpen], store: usize, commit: u64) {
    let kind = opened[store].spec.kind;
    let mut row_key = Vec::new();
    for (key, value, timestamp) in changes(store, commit) {
        let context = RecordContext { timestamp, ..RecordContext::default() };
        match kind.windowed() {
            Some((_, keys)) => {
                keys.encode(keys.decode_logged(&key).unwrap(), &mut row_key);
                stores.put(store, &row_key, value.as_deref(), &context).unwrap();
            }
            None if kind.versioned().is_some() => {
                stores.put_version(store, &key, value.as_deref(), timestamp).unwrap();
            }
            None => stores.put(store, &key, value.as_deref(), &context).unwrap(),
        }
    }
}

/// Runs in a process of its own, until it is killed.
#[test]
fn child_of_the_crash_test() {
    let (Ok(folder), Ok(commits)) = (env::var(FOLDER), env::var(COMMITS)) else { return };
    let home = home(Path::new(&folder), 2000);
    let opened = stores();
    let mut stores = TaskStores::open(&home, TASK, &opened, 1).unwrap();
    let end: u64 = commits.parse().unwrap();
    if env::var(WORK).as_deref() == Ok("restore") {
        return restore_for_ever(&home, &mut stores, end);
    }
    // What the last life has committed is in the changelog.
    for store in 0..STORES {
        for commit in stores.offset(store).unwrap_or(0) as u64..end {
            stores.restore(store, &batch(store, commit), commit as i64 + 1).unwrap();
        }
    }
    for commit in end.. {
        for store in 0..STORES {
            write(&mut stores, &opened, store, commit);
            stores.flush(store).unwrap();
        }
        stores.clear_changelog();
        // The transaction has committed; the kill may come at any moment from here.
        println!("committed {commit}");
        std::io::stdout().flush().unwrap();
        stores.apply(&[Some(commit as i64 + 1); STORES]).unwrap();
        // A flush every seventh commit, of whatever is older than 30 s of this clock.
        home.memory.flush_if_due(commit as i64 * 5_000).unwrap();
    }
}

/// Reads a changelog that never ends. One store at a time collects runs here, another one in each life; they are written
/// beside it.
fn restore_for_ever(home: &StateHome, stores: &mut TaskStores, end: u64) {
    let (queue, works) = WorkQueue::new();
    stores.set_work_queue(Some(&queue));
    let starts: Vec<_> = (0..STORES).map(|store| stores.offset(store).unwrap_or(0) as u64).collect();
    std::thread::scope(|scope| {
        scope.spawn(move || while works.do_next() {});
        for commit in starts.iter().copied().min().unwrap_or(0).. {
            for store in (0..STORES).map(|store| (store + usize::try_from(end).unwrap()) % STORES) {
                if commit < starts[store] {
                    continue;
                }
                let next_offset = commit as i64 + 1;
                let reach = Reach { next_offset, end: next_offset + 20_000 };
                stores.restore_towards(store, &batch(store, commit), reach).unwrap();
            }
            if commit >= end {
                println!("committed {commit}");
                std::io::stdout().flush().unwrap();
            }
            home.memory.flush_if_due(commit as i64 * 5_000).unwrap();
        }
    });
}

/// One life: the number of commits when it ended.
fn live(folder: &Path, work: &str, commits: u64, at_least: u64) -> u64 {
    let mut child = Command::new(env::current_exe().unwrap())
        .args(["--exact", "state::rocksdb::crash_tests::child_of_the_crash_test", "--nocapture"])
        .env(FOLDER, folder)
        .env(COMMITS, commits.to_string())
        .env(WORK, work)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    let mut lines = lines.filter_map(|line| line.strip_prefix("committed ").and_then(|n| n.parse::<u64>().ok()));
    let mut last = lines.by_ref().take(usize::try_from(at_least).unwrap()).last().expect("the child died by itself");
    child.kill().unwrap();
    child.wait().unwrap();
    last = lines.last().unwrap_or(last);
    last + 1
}

#[test]
fn after_a_kill_every_store_is_the_fold_of_the_commits_before_its_offset() {
    assert_folds("commit");
}

#[test]
fn after_a_kill_while_restoring_every_store_is_the_fold_of_its_changelog_before_its_offset() {
    assert_folds("restore");
}

fn assert_folds(work: &str) {
    if env::var(FOLDER).is_ok() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let opened = stores();
    let specs: Vec<_> = opened.iter().map(|store| Arc::clone(&store.spec)).collect();
    let mut model = TaskStores::in_memory(&specs, 0);
    let mut folded = [0_u64; STORES];
    let mut commits = 0;
    let mut replayed = 0;
    for round in 0..KILLS {
        commits = live(folder.path(), work, commits, 1 + mix(round) % 200);
        let home = home(folder.path(), 0);
        let mut stores = TaskStores::open(&home, TASK, &opened, 1).unwrap();
        for store in 0..STORES {
            let offset = stores.offset(store).unwrap_or(0) as u64;
            assert!((folded[store]..=commits).contains(&offset), "store {store} at {offset}, {commits} commits");
            assert_eq!(stores.durable_offset(store).unwrap().unwrap_or(0) as u64, offset);
            for commit in folded[store]..offset {
                model.restore(store, &batch(store, commit), commit as i64 + 1).unwrap();
            }
            folded[store] = offset;
            replayed += commits - offset;
            if opened[store].spec.kind.versioned().is_some() {
                assert_same_versions(&mut stores, &mut model, store, (offset * 3_000) as i64);
                continue;
            }
            let rows =
                |of: &mut TaskStores| of.page(store, Bound::Unbounded, Bound::Unbounded, false, usize::MAX).unwrap();
            assert_eq!(rows(&mut stores), rows(&mut model), "store {store}, round {round}");
        }
    }
    assert!(replayed > 0, "no kill came between a commit and the flush of its rows: the test shows nothing");
    assert!(
        folded[FIRST_EXPIRING..].iter().all(|commits| *commits * 3_000 > 2 * RETENTION_MS as u64),
        "nothing expired"
    );
}

fn assert_same_versions(stores: &mut TaskStores, model: &mut TaskStores, store: usize, now: i64) {
    for key in (0..500_u16).map(u16::to_be_bytes) {
        assert_eq!(stores.newest_version(store, &key).unwrap(), model.newest_version(store, &key).unwrap());
        for time in (0..12).map(|n| now + 60_000 - n * 25_000) {
            let of = |stores: &mut TaskStores| stores.version_as_of(store, &key, time).unwrap();
            assert_eq!(of(stores), of(model), "key {key:?} as of {time}");
        }
    }
}
