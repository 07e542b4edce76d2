//! Microseconds per get and put of one key of a store, commits included: `cargo bench --bench state`.

#![allow(
    clippy::print_stdout,
    clippy::disallowed_methods,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "a bench measures time and prints it"
)]

use std::time::Instant;

use kstreams::{BenchStore, Result};

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
        if n % COMMIT_EVERY == 0 {
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
        if n % COMMIT_EVERY == 0 {
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
