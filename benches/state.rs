//! Microseconds per get and put of one key of a store, commits included: `cargo bench --bench state`.

#![allow(
    clippy::print_stdout,
    clippy::disallowed_methods,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "a bench measures time and prints it"
)]

use std::path::Path;
use std::time::{Duration, Instant};

use kstreams::{BenchStore, I64, Result, Stores, Window, Windowed};

const COMMIT_EVERY: u64 = 10_000;

fn main() -> Result<()> {
    println!("{:44} {:>9} {:>9} {:>9}", "us per get + put, 16 B keys, 100 B values", "100 k", "1 M", "1 M hot");
    row("memory", || Ok(BenchStore::in_memory()))?;
    if cfg!(feature = "rocksdb") {
        let folder = tempfile::tempdir().map_err(kstreams::Error::user)?;
        let mut number = 0;
        row("RocksDB", || {
            number += 1;
            BenchStore::on_disk(&folder.path().join(number.to_string()))
        })?;
        let folder = tempfile::tempdir().map_err(kstreams::Error::user)?;
        let restored = restore(&mut BenchStore::on_disk(folder.path())?, 1_000_000)?;
        println!("{:44} {:>9} {:>9.2}", "RocksDB, restore, us per record", "", restored);
    }
    println!();
    println!("{:44} {:>9} {:>9} {:>9}", "us per step, 100 k keys, 8 B values", "window", "session", "versioned");
    timed("memory", None)?;
    if cfg!(feature = "rocksdb") {
        let folder = tempfile::tempdir().map_err(kstreams::Error::user)?;
        timed("RocksDB", Some(folder.path()))?;
    }
    Ok(())
}

/// A record a millisecond over ten minutes. Windows: fetch, put and, for one in ten, the last minute of the key. Sessions:
/// find and put. Versions: put, and as of a minute ago.
fn timed(name: &str, folder: Option<&Path>) -> Result<()> {
    const STEPS: i64 = 600_000;
    let (hour, minute) = (Duration::from_secs(3600), Duration::from_secs(60));
    let key = |n: i64| (mix(n as u64) % 100_000) as i64;
    let folder = |kind: &str| folder.map(|folder| folder.join(kind));
    let per_step = |start: Instant| start.elapsed().as_secs_f64() * 1e6 / STEPS as f64;

    let builder = Stores::window("w", hour, minute, false, I64, I64);
    let (mut ctx, mut store) = BenchStore::with_facade(&builder, folder("window").as_deref())?;
    let start = Instant::now();
    for n in 0..STEPS {
        let (key, window) = (key(n), n - n % 60_000);
        let count = store.fetch(&mut ctx, &key, window)?.unwrap_or(0);
        store.put(&mut ctx, &key, &(count + 1), window)?;
        if n % 10 == 0 {
            store.fetch_range(&key, window - 60_000, window)?.collect(&mut ctx)?;
        }
        if (n as u64).is_multiple_of(COMMIT_EVERY) {
            ctx.commit()?;
        }
    }
    let window = per_step(start);

    let builder = Stores::session("s", hour, I64, I64);
    let (mut ctx, mut store) = BenchStore::with_facade(&builder, folder("session").as_deref())?;
    let start = Instant::now();
    for n in 0..STEPS {
        let key = key(n);
        let found = store.find_sessions(&key, n - 60_000, n)?.next(&mut ctx)?;
        let (begin, count) = found.as_ref().map_or((n, 0), |(session, count)| (session.window.start, *count));
        if let Some((session, _)) = found {
            store.remove(&mut ctx, &session)?;
        }
        store.put(&mut ctx, &Windowed::new(key, Window::new(begin, n)), &(count + 1))?;
        if (n as u64).is_multiple_of(COMMIT_EVERY) {
            ctx.commit()?;
        }
    }
    let session = per_step(start);

    let builder = Stores::versioned_key_value("v", hour, I64, I64);
    let (mut ctx, mut store) = BenchStore::with_facade(&builder, folder("versioned").as_deref())?;
    let start = Instant::now();
    for n in 0..STEPS {
        store.put(&mut ctx, &key(n), Some(&n), n)?;
        store.get_as_of(&mut ctx, &key(n + 1), n - 60_000)?;
        if (n as u64).is_multiple_of(COMMIT_EVERY) {
            ctx.commit()?;
        }
    }
    let versioned = per_step(start);
    println!("{name:44} {window:>9.2} {session:>9.2} {versioned:>9.2}");
    Ok(())
}

fn row(name: &str, open: impl FnMut() -> Result<BenchStore>) -> Result<()> {
    let mut open = open;
    let small = get_and_put(&mut open()?, 100_000, |n| mix(n) % 100_000)?;
    let large = get_and_put(&mut open()?, 1_000_000, |n| mix(n) % 1_000_000)?;
    // Nine of ten go to one key in a hundred.
    let hot = |n| if mix(n ^ 7).is_multiple_of(10) { mix(n) % 1_000_000 } else { mix(n) % 10_000 };
    let hot = get_and_put(&mut open()?, 1_000_000, hot)?;
    println!("{name:44} {small:>9.2} {large:>9.2} {hot:>9.2}");
    Ok(())
}

/// A store of `keys` rows, then as many updates of keys that `choose` picks.
fn get_and_put(store: &mut BenchStore, keys: u64, choose: impl Fn(u64) -> u64) -> Result<f64> {
    let mut value = [7; 100];
    for n in 0..keys {
        store.put(&key(mix(n) % keys), &value)?;
        if n.is_multiple_of(COMMIT_EVERY) {
            store.commit()?;
        }
    }
    store.commit()?;
    let start = Instant::now();
    for n in 0..keys {
        let key = key(choose(n + keys));
        if let Some(row) = store.get(&key)? {
            value.copy_from_slice(row);
        }
        value[(n % 100) as usize] = n as u8;
        store.put(&key, &value)?;
        if n.is_multiple_of(COMMIT_EVERY) {
            store.commit()?;
        }
    }
    store.commit()?;
    Ok(start.elapsed().as_secs_f64() * 1e6 / keys as f64)
}

fn restore(store: &mut BenchStore, records: u64) -> Result<f64> {
    let value: Vec<u8> = (0..100).collect();
    let start = Instant::now();
    for batch in 0..records / COMMIT_EVERY {
        let keys: Vec<_> = (0..COMMIT_EVERY).map(|n| key(mix(batch * COMMIT_EVERY + n))).collect();
        store.restore(keys.iter().map(|key| (&key[..], value.as_slice())))?;
    }
    Ok(start.elapsed().as_secs_f64() * 1e6 / records as f64)
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
