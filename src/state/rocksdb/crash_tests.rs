//! A child commits to two stores and is killed, again and again: every store must be the fold of the commits before its
//! offset.

use std::collections::BTreeMap;
use std::env;
use std::io::{BufRead as _, BufReader, Write as _};
use std::ops::Bound;
use std::path::Path;
use std::process::{Command, Stdio};

use super::tests::{TASK, home, two_stores};
use crate::record::{Headers, RecordBatch};
use crate::state::{RecordContext, TaskStores};

/// The child's folder, and how many commits its changelog has.
const FOLDER: &str = "KSTREAMS_CRASH_FOLDER";
const COMMITS: &str = "KSTREAMS_CRASH_COMMITS";
const KILLS: u64 = 12;

/// SplitMix64: both sides compute the n-th value.
fn mix(x: u64) -> u64 {
    let x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// What a commit writes to a store.
fn changes(store: usize, commit: u64) -> impl Iterator<Item = ([u8; 2], Option<Vec<u8>>)> {
    let seed = mix(commit * 2 + store as u64);
    (0..5 + seed % 60).map(move |n| {
        let random = mix(seed.wrapping_add(n));
        let key = ((random % 500) as u16).to_be_bytes();
        let value = random.to_be_bytes().repeat(1 + (random >> 32) as usize % 20);
        (key, (!random.is_multiple_of(5)).then_some(value))
    })
}

/// Runs in a process of its own, until it is killed.
#[test]
fn child_of_the_crash_test() {
    let (Ok(folder), Ok(commits)) = (env::var(FOLDER), env::var(COMMITS)) else { return };
    let home = home(Path::new(&folder), 2000);
    let mut stores = TaskStores::open(&home, TASK, &two_stores(), 1).unwrap();
    let end: u64 = commits.parse().unwrap();
    // What the last life has committed is in the changelog.
    for store in 0..2 {
        for commit in stores.offset(store).unwrap_or(0) as u64..end {
            let mut batch = RecordBatch::default();
            for (key, value) in changes(store, commit) {
                batch.push(commit as i64, 0, Some(&key), value.as_deref(), Headers::new()).unwrap();
            }
            stores.restore(store, &batch, commit as i64 + 1).unwrap();
        }
    }
    let context = RecordContext::default();
    for commit in end.. {
        for store in 0..2 {
            for (key, value) in changes(store, commit) {
                stores.put(store, &key, value.as_deref(), &context).unwrap();
            }
            stores.flush(store).unwrap();
        }
        stores.clear_changelog();
        // The transaction has committed; the kill may come at any moment from here.
        println!("committed {commit}");
        std::io::stdout().flush().unwrap();
        stores.apply(&[Some(commit as i64 + 1); 2]).unwrap();
        // A flush every seventh commit, of whatever is older than 30 s of this clock.
        home.memory.flush_if_due(commit as i64 * 5_000).unwrap();
    }
}

/// One life: the number of commits when it ended.
fn live(folder: &Path, commits: u64, at_least: u64) -> u64 {
    let mut child = Command::new(env::current_exe().unwrap())
        .args(["--exact", "state::rocksdb::crash_tests::child_of_the_crash_test", "--nocapture"])
        .env(FOLDER, folder)
        .env(COMMITS, commits.to_string())
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
    if env::var(FOLDER).is_ok() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (mut models, mut folded) = ([BTreeMap::new(), BTreeMap::new()], [0_u64; 2]);
    let mut commits = 0;
    let mut replayed = 0;
    for round in 0..KILLS {
        commits = live(folder.path(), commits, 1 + mix(round) % 200);
        let home = home(folder.path(), 0);
        let mut stores = TaskStores::open(&home, TASK, &two_stores(), 1).unwrap();
        for store in 0..2 {
            let offset = stores.offset(store).unwrap_or(0) as u64;
            assert!((folded[store]..=commits).contains(&offset), "store {store} at {offset}, {commits} commits");
            assert_eq!(stores.durable_offset(store).unwrap().unwrap_or(0) as u64, offset);
            for commit in folded[store]..offset {
                for (key, value) in changes(store, commit) {
                    match value {
                        Some(value) => models[store].insert(key.to_vec(), value),
                        None => models[store].remove(&key[..]),
                    };
                }
            }
            folded[store] = offset;
            replayed += commits - offset;
            let rows = stores.page(store, Bound::Unbounded, Bound::Unbounded, false, usize::MAX).unwrap();
            assert_eq!(rows, models[store].clone().into_iter().collect::<Vec<_>>(), "store {store}, round {round}");
        }
    }
    assert!(replayed > 0, "no kill came between a commit and the flush of its rows: the test shows nothing");
}
