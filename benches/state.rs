//! Stores, commits included: `cargo bench --bench state`.
//!
//! A get and a put of one key, a step of a store that keeps time, and a batch of 10,000 changelog records that are read in.

#![allow(
    clippy::disallowed_methods,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::expect_used,
    missing_docs,
    reason = "a bench measures time, and has to run to its end"
)]

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main};
use kstreams::{BenchStore, I64, Result, Stores, Window, Windowed};

const COMMIT_EVERY: u64 = 10_000;

const HOUR: Duration = Duration::from_secs(3600);
const MINUTE: Duration = Duration::from_secs(60);

type Group<'a> = BenchmarkGroup<'a, WallTime>;

/// By keys in a store, 16 bytes each with values of 100 bytes.
fn rows(criterion: &mut Criterion) {
    let folder = tempfile::tempdir().expect("a folder");
    for (engine, folder) in engines(folder.path()) {
        let mut group = criterion.benchmark_group(format!("get + put, {engine}"));
        let open = |name: &str| match &folder {
            Some(folder) => BenchStore::on_disk(&folder.join(name)).expect("opens"),
            None => BenchStore::in_memory(),
        };
        get_and_put(&mut group, "100 k", &mut || open("small"), 100_000, |n| mix(n) % 100_000);
        get_and_put(&mut group, "1 M", &mut || open("large"), 1_000_000, |n| mix(n) % 1_000_000);
        // Nine of ten go to one key in a hundred.
        let hot = |n| if mix(n ^ 7).is_multiple_of(10) { mix(n) % 1_000_000 } else { mix(n) % 10_000 };
        get_and_put(&mut group, "1 M hot", &mut || open("hot"), 1_000_000, hot);
        group.throughput(Throughput::Elements(COMMIT_EVERY));
        restore(&mut group, open("restored"));
    }
}

/// 100 k keys with values of 8 bytes, a record a millisecond. Windows: fetch, put and, for one in ten, the last minute of the
/// key. Sessions: find and put. Versions: put, and as of a minute ago.
fn timed(criterion: &mut Criterion) {
    let folder = tempfile::tempdir().expect("a folder");
    for (engine, folder) in engines(folder.path()) {
        let mut group = criterion.benchmark_group(format!("a step, {engine}"));
        let folder = |kind: &str| folder.as_ref().map(|folder| folder.join(kind));
        let key = |n: i64| (mix(n as u64) % 100_000) as i64;

        let builder = Stores::window("w", HOUR, MINUTE, false, I64, I64);
        let (mut ctx, mut store) = BenchStore::with_facade(&builder, folder("window").as_deref()).expect("opens");
        steps(&mut group, "window", &mut ctx, |n, ctx| {
            let (key, window) = (key(n), n - n % 60_000);
            let count = store.fetch(ctx, &key, window)?.unwrap_or(0);
            store.put(ctx, &key, &(count + 1), window)?;
            if n % 10 == 0 {
                store.fetch_range(&key, window - 60_000, window)?.collect(ctx)?;
            }
            Ok(())
        });

        let builder = Stores::session("s", HOUR, I64, I64);
        let (mut ctx, mut store) = BenchStore::with_facade(&builder, folder("session").as_deref()).expect("opens");
        steps(&mut group, "session", &mut ctx, |n, ctx| {
            let key = key(n);
            let found = store.find_sessions(&key, n - 60_000, n)?.next(ctx)?;
            let (begin, count) = found.as_ref().map_or((n, 0), |(session, count)| (session.window.start, *count));
            if let Some((session, _)) = found {
                store.remove(ctx, &session)?;
            }
            store.put(ctx, &Windowed::new(key, Window::new(begin, n)), &(count + 1))
        });

        let builder = Stores::versioned_key_value("v", HOUR, I64, I64);
        let (mut ctx, mut store) = BenchStore::with_facade(&builder, folder("versioned").as_deref()).expect("opens");
        steps(&mut group, "versioned", &mut ctx, |n, ctx| {
            store.put(ctx, &key(n), Some(&n), n)?;
            store.get_as_of(ctx, &key(n + 1), n - 60_000).map(|_| ())
        });
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(10);
    targets = rows, timed
}
criterion_main!(benches);

/// In memory and, where the crate is built with it, in RocksDB.
fn engines(folder: &Path) -> Vec<(&'static str, Option<PathBuf>)> {
    let mut engines = vec![("memory", None)];
    if cfg!(feature = "rocksdb") {
        engines.push(("RocksDB", Some(folder.to_owned())));
    }
    engines
}

fn steps(
    group: &mut Group<'_>,
    name: &str,
    ctx: &mut BenchStore,
    mut step: impl FnMut(i64, &mut BenchStore) -> Result<()>,
) {
    let mut n = 0;
    group.bench_function(name, |bencher| {
        bencher.iter(|| {
            n += 1;
            step(n, ctx).expect("a step");
            if (n as u64).is_multiple_of(COMMIT_EVERY) {
                ctx.commit().expect("a commit");
            }
        });
    });
}

/// A store of `keys` rows, then updates of keys that `choose` picks.
fn get_and_put(
    group: &mut Group<'_>,
    name: &str,
    open: &mut dyn FnMut() -> BenchStore,
    keys: u64,
    choose: impl Fn(u64) -> u64,
) {
    let mut filled: Option<BenchStore> = None;
    let mut value = [7; 100];
    let mut n = 0;
    // Filled by the first call, so that a store that is not asked for takes no time.
    group.bench_function(name, |bencher| {
        let store = filled.get_or_insert_with(|| fill(open(), keys).expect("is filled"));
        bencher.iter(|| {
            n += 1;
            let key = key(choose(n + keys));
            if let Some(row) = store.get(&key).expect("a row") {
                value.copy_from_slice(row);
            }
            value[(n % 100) as usize] = n as u8;
            store.put(&key, &value).expect("is put");
            if n.is_multiple_of(COMMIT_EVERY) {
                store.commit().expect("a commit");
            }
        });
    });
}

fn fill(mut store: BenchStore, keys: u64) -> Result<BenchStore> {
    for n in 0..keys {
        store.put(&key(mix(n) % keys), &[7; 100])?;
        if n.is_multiple_of(COMMIT_EVERY) {
            store.commit()?;
        }
    }
    store.commit()?;
    Ok(store)
}

fn restore(group: &mut Group<'_>, mut store: BenchStore) {
    let value: Vec<u8> = (0..100).collect();
    let mut batch = 0;
    group.bench_function("restore", |bencher| {
        bencher.iter_custom(|count| {
            let mut taken = Duration::ZERO;
            for _ in 0..count {
                batch += 1;
                let keys: Vec<_> = (0..COMMIT_EVERY).map(|n| key(mix(batch * COMMIT_EVERY + n))).collect();
                let start = Instant::now();
                store.restore(keys.iter().map(|key| (&key[..], value.as_slice()))).expect("is restored");
                taken += start.elapsed();
            }
            taken
        });
    });
}

fn key(n: u64) -> [u8; 16] {
    let mut key = [0; 16];
    key[..8].copy_from_slice(&mix(n).to_be_bytes());
    key[8..].copy_from_slice(&n.to_be_bytes());
    key
}

fn mix(x: u64) -> u64 {
    let x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}
