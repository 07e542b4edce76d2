//! An empty store that is filled from a changelog, in batches and in runs: `cargo bench --bench restore -- [RECORDS]`.
//!
//! Keys in no order, 30 % of the records overwrite earlier ones and 5 % delete them; values of 100 bytes, half of them
//! compressible. Each way is a process of its own. CPU includes flushes and compaction until nothing is left to do.

#![allow(
    clippy::disallowed_methods,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::expect_used,
    clippy::print_stdout,
    missing_docs,
    reason = "a bench measures time, and has to run to its end"
)]

use std::time::{Duration, Instant};

use kstreams::{BenchStore, Result};

/// What a restorer takes of a changelog in one step.
const STEP: u64 = 8192;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let records = arguments.first().and_then(|records| records.parse().ok()).unwrap_or(2_000_000);
    if let Some(way) = arguments.get(1) {
        return fill(records, way);
    }
    for way in ["batches", "runs"] {
        let itself = std::env::current_exe().expect("a path");
        let child = std::process::Command::new(itself).args([&records.to_string(), way]).status().expect("runs");
        assert!(child.success());
    }
    Ok(())
}

fn fill(records: u64, way: &str) -> Result<()> {
    let folder = tempfile::tempdir().expect("a folder");
    let mut store = BenchStore::on_disk(folder.path())?;
    let (cpu, start) = (cpu(), Instant::now());
    let mut next = 0;
    let mut rows = Vec::new();
    let mut making = Duration::ZERO;
    while next < records {
        let made = Instant::now();
        let end = (next + STEP).min(records);
        rows.clear();
        rows.extend((next..end).map(record));
        next = end;
        making += made.elapsed();
        let rows = rows.iter().map(|(key, value)| (&key[..], value.as_ref().map(|value| &value[..])));
        store.restore_towards(rows, if way == "runs" { records } else { end } as i64)?;
    }
    let filled = start.elapsed() - making;
    store.settle()?;
    let settled = start.elapsed() - making;
    let per_record = (self::cpu() - cpu).saturating_sub(making).as_secs_f64() * 1e6 / records as f64;
    let speed = records as f64 / filled.as_secs_f64() / 1e6;
    println!(
        "{way}: {records} records in {:.1} s ({speed:.2} M/s), with compaction {:.1} s; CPU {per_record:.2} µs a record; \
         peak memory {} MB; {} MB on disk",
        filled.as_secs_f64(),
        settled.as_secs_f64(),
        status("VmHWM:") / 1024,
        store.disk_bytes() >> 20
    );
    Ok(())
}

fn record(offset: u64) -> ([u8; 16], Option<[u8; 100]>) {
    let random = mix(offset ^ 0x5eed);
    let earlier = mix(random) % (offset + 1);
    match random % 100 {
        0..=29 => (key(earlier), Some(value(offset))),
        30..=34 => (key(earlier), None),
        _ => (key(offset), Some(value(offset))),
    }
}

fn key(n: u64) -> [u8; 16] {
    let mut key = [0; 16];
    key[..8].copy_from_slice(&mix(n).to_be_bytes());
    key[8..].copy_from_slice(&n.to_be_bytes());
    key
}

fn value(n: u64) -> [u8; 100] {
    let mut value = [0x20; 100];
    for (place, random) in value[..48].chunks_mut(8).zip(n..) {
        place.copy_from_slice(&mix(random).to_be_bytes());
    }
    value
}

fn mix(x: u64) -> u64 {
    let x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// CPU time of this process, of all its threads, as Linux tells it; elsewhere none.
fn cpu() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<u64> =
        stat.rsplit(')').next().unwrap_or_default().split(' ').map(|field| field.parse().unwrap_or(0)).collect();
    let ticks: u64 = fields.get(12..14).unwrap_or_default().iter().sum();
    Duration::from_millis(ticks * 10)
}

fn status(field: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(field));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}
