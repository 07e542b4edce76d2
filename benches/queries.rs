//! What queries cost: the stream thread of a count on the embedded cluster, without queries and with 10,000 a second, and
//! who asks, beside the same reads on a RocksDB of their own: `cargo bench --bench queries`.

#![allow(
    clippy::disallowed_methods,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::cast_possible_truncation,
    missing_docs,
    reason = "a bench measures time, prints it, and has to run to its end"
)]

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use kstreams::*;

const RECORDS: u64 = 400_000;
const KEYS: u64 = 10_000;
/// To see what one takes.
const READS: u64 = 1_000_000;
const QUERIES_PER_S: u64 = 10_000;
/// Asked at once, so that pauses are not too short to be kept.
const BURST: u64 = 100;

fn main() {
    let engines: &[bool] = if cfg!(feature = "rocksdb") { &[true, false] } else { &[true] };
    for in_memory in engines {
        for queries in [0, QUERIES_PER_S] {
            let store = if *in_memory { "memory" } else { "RocksDB" };
            let Run { elapsed, mut gaps, asked, get_ns } = run(*in_memory, queries);
            gaps.sort_unstable();
            let at = |share: f64| gaps.get((gaps.len() as f64 * share) as usize).copied().unwrap_or(0);
            println!(
                "{store}, {queries:>6} queries/s wanted, {:>6.0} had: {:>8.0} records/s, between two records p50 {} ns, \
                 p99 {} ns, p99.9 {} us, largest {} us",
                asked as f64 / elapsed.as_secs_f64(),
                RECORDS as f64 / elapsed.as_secs_f64(),
                at(0.5),
                at(0.99),
                at(0.999) / 1_000,
                gaps.last().copied().unwrap_or(0) / 1_000,
            );
            if queries == 0 {
                println!("{store}: a get through `KafkaStreams::store` takes {get_ns} ns of CPU");
            }
        }
    }
    #[cfg(feature = "rocksdb")]
    println!("RocksDB without us: a get takes {} ns of CPU", direct());
}

struct Run {
    elapsed: Duration,
    /// Between two records, in ns.
    gaps: Vec<u64>,
    /// Queries that were answered meanwhile.
    asked: u64,
    /// CPU of a get when all is counted.
    get_ns: u64,
}

fn key(number: u64) -> String {
    format!("key-{:05}", number * 7_919 % KEYS)
}

/// CPU time of each read of this thread, in ns.
fn cost(mut read: impl FnMut(&String) -> bool) -> u64 {
    let on_cpu = || -> u64 {
        let told = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
        told.split(' ').next().and_then(|ns| ns.parse().ok()).unwrap_or(0)
    };
    let keys: Vec<String> = (0..KEYS).map(key).collect();
    // Another order than they were written in, the same each time.
    let order: Vec<usize> = (0..READS).map(|read| (read * 6_007 % KEYS) as usize).collect();
    let begun = on_cpu();
    let found = order.iter().filter_map(|number| keys.get(*number)).filter(|key| read(key)).count();
    let spent = on_cpu() - begun;
    assert_eq!(found as u64, READS, "every key is there");
    spent / READS
}

/// The same rows in a database with the same settings, as far as a read can tell.
#[cfg(feature = "rocksdb")]
fn direct() -> u64 {
    let folder = tempfile::TempDir::new().expect("a folder");
    let mut table = rocksdb::BlockBasedOptions::default();
    table.set_bloom_filter(10.0, false);
    table.set_block_cache(&rocksdb::Cache::new_lru_cache(64 << 20));
    let mut options = rocksdb::Options::default();
    options.create_if_missing(true);
    options.set_compression_type(rocksdb::DBCompressionType::Lz4);
    options.set_block_based_table_factory(&table);
    let db = rocksdb::DB::open(&options, folder.path()).expect("a database");
    for number in 0..KEYS {
        let row: Vec<u8> = [number.to_be_bytes(), number.to_be_bytes()].concat();
        db.put(key(number).as_bytes(), row).expect("a row");
    }
    db.flush().expect("a flush");
    cost(|key| db.get_pinned(key.as_bytes()).expect("a read").is_some_and(|row| row.len() == 16))
}

fn run(in_memory: bool, queries_per_s: u64) -> Run {
    let cluster = EmbeddedCluster::new();
    cluster.create_topic("in", 1).expect("a topic");
    for number in 0..RECORDS {
        cluster.produce("in", Some(key(number).as_bytes()), Some(b"value"), None).expect("a record");
    }
    let gaps = Arc::new(Mutex::new((Instant::now(), Vec::with_capacity(RECORDS as usize))));
    let seen = Arc::clone(&gaps);
    let builder = StreamsBuilder::new();
    let records = builder.stream("in", Consumed::with(Utf8, Utf8)).peek(move |_, _| {
        let (last, gaps) = &mut *seen.lock().expect("no thread has panicked");
        let now = Instant::now();
        gaps.push((now - *last).as_nanos() as u64);
        *last = now;
    });
    records.group_by_key(Grouped::with(Utf8, Utf8)).count(Materialized::named("counts"));
    let folder = tempfile::TempDir::new().expect("a folder");
    let config = Config::new("queries", "embedded://").cluster(&cluster).exactly_once().state_dir(folder.path());
    let streams = KafkaStreams::new(builder.build().expect("a topology"), config.stores_in_memory(in_memory));
    let streams = streams.expect("a client");
    let (asked, over) = (AtomicU64::new(0), AtomicBool::new(false));
    streams.start().expect("a start");
    let counts = streams.store("counts", QueryableStoreTypes::key_value(Utf8, I64)).expect("the store");
    let elapsed = std::thread::scope(|scope| {
        if queries_per_s > 0 {
            scope.spawn(|| {
                let pause = Duration::from_micros(1_000_000 * BURST / queries_per_s);
                let (mut next, mut number) = (Instant::now(), 0);
                while !over.load(Ordering::Relaxed) {
                    for _ in 0..BURST {
                        number += 1;
                        asked.fetch_add(u64::from(counts.get(&key(number)).is_ok()), Ordering::Relaxed);
                    }
                    next += pause;
                    std::thread::sleep(next.saturating_duration_since(Instant::now()));
                }
            });
        }
        while streams.processed_total() == 0 {
            std::thread::sleep(Duration::from_micros(100));
        }
        let begun = Instant::now();
        asked.store(0, Ordering::Relaxed);
        while streams.processed_total() < RECORDS {
            std::thread::sleep(Duration::from_micros(100));
        }
        let elapsed = begun.elapsed();
        over.store(true, Ordering::Relaxed);
        elapsed
    });
    let asked = asked.load(Ordering::Relaxed);
    let get_ns = if queries_per_s == 0 { cost(|key| counts.get(key).is_ok_and(|count| count.is_some())) } else { 0 };
    streams.close(Duration::from_secs(30)).expect("a close");
    let mut gaps = std::mem::take(&mut gaps.lock().expect("no thread has panicked").1);
    // The first one is the wait for the assignment.
    if !gaps.is_empty() {
        gaps.swap_remove(0);
    }
    Run { elapsed, gaps, asked, get_ns }
}
