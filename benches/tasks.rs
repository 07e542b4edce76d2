//! What an instance with many tasks takes: `cargo bench --bench tasks -- [TASKS] [BOOTSTRAP]`.
//!
//! One instance with all tasks of a count over so many partitions, exactly once, each with a store and its changelog: memory,
//! threads and open files of the process, when only the topics are there, when all tasks run, and when each has counted
//! some records. Each kind of store is a process of its own. Without an address the cluster is in the same process, and what it
//! keeps in memory is counted with it from the first line on.

#![allow(
    clippy::disallowed_methods,
    clippy::expect_used,
    clippy::print_stdout,
    missing_docs,
    reason = "a bench waits for threads and prints what it sees"
)]

use std::fs;
use std::time::Duration;

use kstreams::{
    Config, Consumed, EmbeddedCluster, Grouped, I64, KafkaStreams, Materialized, Produced, Result, State,
    StreamsBuilder, TopicClient, Utf8,
};

const RECORDS_PER_TASK: u64 = 20;
const KINDS: [&str; 2] = ["in-memory", "on-disk"];

fn main() -> Result<()> {
    let mut arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let kind = arguments.iter().position(|argument| KINDS.contains(&&**argument)).map(|at| arguments.remove(at));
    let tasks = arguments.first().and_then(|tasks| tasks.parse().ok()).unwrap_or(1000);
    let bootstrap = arguments.get(1).map(String::as_str);
    if let Some(kind) = kind {
        return run(tasks, &kind, bootstrap);
    }
    println!("{tasks} tasks in one instance of one stream thread");
    println!("{:42} {:>12} {:>8} {:>6}", "", "resident MiB", "threads", "files");
    for kind in KINDS.into_iter().filter(|kind| *kind == "in-memory" || cfg!(feature = "rocksdb")) {
        let itself = std::env::current_exe().expect("a path");
        let mut child = std::process::Command::new(itself);
        child.arg(tasks.to_string()).args(bootstrap).arg(kind);
        assert!(child.status().expect("runs").success(), "{kind} has failed");
    }
    Ok(())
}

fn run(tasks: i32, kind: &str, bootstrap: Option<&str>) -> Result<()> {
    let (folder, cluster) = (tempfile::tempdir().expect("a folder"), EmbeddedCluster::new());
    let name = format!("tasks-{kind}-{}", std::process::id());
    let config = match bootstrap {
        Some(bootstrap) => Config::new(&name, bootstrap),
        None => Config::new(&name, "embedded://").cluster(&cluster),
    };
    let config = config.exactly_once().state_dir(folder.path()).stores_in_memory(kind == "in-memory");
    let [input, output] = ["in", "out"].map(|topic| format!("{name}-{topic}"));
    let mut topics = TopicClient::connect(&config)?;
    topics.create_topic(&input, tasks)?;
    topics.create_topic(&output, 1)?;

    let builder = StreamsBuilder::new();
    builder
        .stream(&input, Consumed::with(Utf8, Utf8))
        .group_by_key(Grouped::with(Utf8, Utf8))
        .count(Materialized::named("counts"))
        .to_stream()
        .to(output, Produced::with(Utf8, I64));
    let streams = KafkaStreams::new(builder.build()?, config)?;
    tell(kind, "topics");
    streams.start()?;
    wait_until(&streams, || streams.state() == State::Running);
    tell(kind, "all tasks run");
    let records = RECORDS_PER_TASK * u64::from(tasks.unsigned_abs());
    for number in 0..records {
        topics.write(&input, Some(format!("key-{number}").as_bytes()), Some(b"some value of a record"))?;
    }
    topics.flush()?;
    wait_until(&streams, || streams.processed_total() >= records);
    // Past the next commit.
    std::thread::sleep(Duration::from_secs(2));
    tell(kind, "each has counted 20 records");
    streams.close(Duration::from_secs(120))
}

fn wait_until(streams: &KafkaStreams, is_so: impl Fn() -> bool) {
    while !is_so() {
        let error = streams.take_error().map(|error| error.report());
        assert!(error.is_none() && !streams.state().is_terminal(), "{error:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// As Linux counts it; 0 elsewhere.
fn tell(kind: &str, when: &str) {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let of = |name: &str| -> u64 {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
    };
    let files = fs::read_dir("/proc/self/fd").map_or(0, Iterator::count);
    println!("{:42} {:12} {:8} {files:6}", format!("{kind}: {when}"), of("VmRSS:") / 1024, of("Threads:"));
}
