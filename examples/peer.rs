//! A peer application: one workload on one topology, measured, broken and verified from outside.
//!
//!     peer --workload count --bootstrap localhost:9092 --application-id a --state-dir DIR --guarantee exactly_once_v2
//!
//! Events go to stdout as one JSON object a line; logs go to stderr (`RUST_LOG=info`).

#![allow(clippy::disallowed_methods, reason = "its events carry the time of the machine")]

use std::collections::HashMap;
use std::io::{IsTerminal, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use kstreams::{
    Config, Consumed, Grouped, I64, JoinWindows, Joined, KafkaStreams, Materialized, Produced, Repartitioned,
    RestoreEvent, SessionWindows, State, StreamJoined, StreamsBuilder, TableJoined, TimeWindows, Topology,
    UncaughtErrorResponse, Utf8, Windowed,
};

fn main() -> std::process::ExitCode {
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .init();
    let failed = Arc::new(AtomicBool::new(false));
    let mut processed = 0;
    if let Err(error) = run(&failed, &mut processed) {
        failed.store(true, Ordering::SeqCst);
        report_error(&format!("{error:#}"));
    }
    let (cpu_s, max_rss_kb) = process_figures().unwrap_or_default();
    event("closed", &format!("\"processed\":{processed},\"cpu_s\":{cpu_s:.2},\"max_rss_kb\":{max_rss_kb}"));
    u8::from(failed.load(Ordering::SeqCst)).into()
}

/// A line that is written over, where somebody sees it.
fn show_progress(restored: &RestoreEvent) {
    if !std::io::stderr().is_terminal() {
        return;
    }
    if let RestoreEvent::Batch { store, partition, progress, .. } = restored {
        eprint!("\r\x1b[Krestoring {store}[{partition}]: {progress}");
    } else if let RestoreEvent::Ended { .. } | RestoreEvent::Suspended { .. } = restored {
        eprint!("\r\x1b[K");
    }
}

fn run(failed: &Arc<AtomicBool>, processed: &mut u64) -> Result<()> {
    let args = Args::parse(std::env::args().skip(1))?;
    let until: u64 = args.number("until-records")?.unwrap_or(u64::MAX);
    let fatal = Arc::clone(failed);
    let streams = KafkaStreams::new(topology(&args)?, config(&args)?)?
        .on_state_change(|state, _before| event("state", &format!("\"state\":\"{state}\"")))
        .on_restore(|restored| {
            if let RestoreEvent::Ended { store, partition, records } = restored {
                event("restored", &format!("\"store\":\"{store}\",\"partition\":{partition},\"records\":{records}"));
            }
            show_progress(restored);
        })
        .on_uncaught_error(move |error| {
            report_error(&error.report());
            fatal.store(true, Ordering::SeqCst);
            UncaughtErrorResponse::ShutdownClient
        });

    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
        let mut ticks = tokio::time::interval(Duration::from_millis(10));
        let mut progress = Instant::now() + Duration::from_secs(1);
        streams.start()?;
        loop {
            tokio::select! {
                _ = terminate.recv() => break,
                _ = tokio::signal::ctrl_c() => break,
                _ = ticks.tick() => {}
            }
            let before = std::mem::replace(processed, streams.processed_total());
            if before == 0 && *processed > 0 {
                event("first", "\"processed\":1");
            }
            if Instant::now() >= progress {
                progress += Duration::from_secs(1);
                event("progress", &format!("\"processed\":{processed}"));
            }
            let ended = matches!(streams.state(), State::Error | State::NotRunning);
            if ended || *processed >= until {
                break;
            }
        }
        anyhow::Ok(())
    })?;
    streams.close(Duration::from_secs(30))?;
    *processed = streams.processed_total();
    Ok(())
}

fn topology(args: &Args) -> Result<Topology> {
    let builder = StreamsBuilder::new();
    let left = args.get("input").unwrap_or("input");
    let right = format!("{left}-right");
    let output = args.get("output").unwrap_or("output");
    let strings = || Consumed::with(Utf8, Utf8);
    let stream = |topic: &str| builder.stream(topic, strings());
    let window = Duration::from_millis(args.number("window-ms")?.unwrap_or(60_000));
    let within = JoinWindows::of_time_difference_with_no_grace(window);
    let in_stores = StreamJoined::with(Utf8, Utf8, Utf8).with_store_name("join");
    match args.get("workload").context("--workload is missing")? {
        "passthrough" => stream(left)
            .map_values(|mut value| {
                value.push('!');
                value
            })
            .filter(|_key, value| !value.is_empty())
            .to(output, Produced::with(Utf8, Utf8)),
        "rekey" => stream(left)
            .select_key(|_key, value| reference(value).to_owned())
            .repartition(Repartitioned::with(Utf8, Utf8).named("by-ref"))
            .to(output, Produced::with(Utf8, Utf8)),
        "count" => stream(left)
            .group_by_key(Grouped::with(Utf8, Utf8))
            .count(Materialized::named("counts"))
            .to_stream()
            .to(output, Produced::with(Utf8, I64)),
        "reduce-large" => stream(left)
            .group_by_key(Grouped::with(Utf8, Utf8))
            .aggregate(
                String::new,
                |_key, value, tail| last_200(tail, &value),
                Materialized::with(Utf8, Utf8).with_name("tails"),
            )
            .to_stream()
            .to(output, Produced::with(Utf8, Utf8)),
        "window-count" => stream(left)
            .group_by_key(Grouped::with(Utf8, Utf8))
            .windowed_by(TimeWindows::of_size_with_no_grace(window))
            .count(Materialized::named("counts"))
            .to_stream_by(|key: &Windowed<String>, _count| format!("{}@{}", key.key, key.window.start))
            .to(output, Produced::with(Utf8, I64)),
        "session-count" => stream(left)
            .group_by_key(Grouped::with(Utf8, Utf8))
            .windowed_by(SessionWindows::of_inactivity_gap_with_no_grace(window))
            .count(Materialized::named("counts"))
            .to_stream_by(|key: &Windowed<String>, _count| {
                format!("{}@{}@{}", key.key, key.window.start, key.window.end)
            })
            .to(output, Produced::with(Utf8, I64)),
        "stream-table" => {
            let table = builder.table(&right, strings(), Materialized::named("right"));
            stream(left)
                .join(&table, |left, right| join(left, &right), Joined::with(Utf8, Utf8))
                .to(output, Produced::with(Utf8, Utf8));
        }
        "stream-stream" => {
            let right = stream(&right);
            stream(left)
                .join_stream(right, |left, right| joined(left, Some(right.as_str())), within, in_stores)
                .to(output, Produced::with(Utf8, Utf8));
        }
        "stream-stream-left" => {
            let right = stream(&right);
            stream(left)
                .left_join_stream(right, |left, right| joined(left, right.map(String::as_str)), within, in_stores)
                .to(output, Produced::with(Utf8, Utf8));
        }
        "fk-join" => {
            let orders = builder.table(left, strings(), Materialized::named("left"));
            let table = builder.table(&right, strings(), Materialized::named("right"));
            let by = |_key: &String, value: &String| reference(value).to_owned();
            orders
                .join_foreign_key(&table, by, |left, right| join(left, &right), TableJoined::default())
                .to_stream()
                .to(output, Produced::with(Utf8, Utf8));
        }
        "global-join" => {
            let left = stream(left);
            let table = builder.global_table(&right, strings(), Materialized::named("right"));
            left.join_global(
                &table,
                |_key, value| reference(value).to_owned(),
                |left, right| join(left, &right),
                Joined::with(Utf8, Utf8),
            )
            .to(output, Produced::with(Utf8, Utf8));
        }
        other => bail!("unknown workload {other}"),
    }
    Ok(builder.build()?)
}

/// Characters 13 to 28 of a value.
fn reference(value: &str) -> &str {
    value.get(13..29).unwrap_or(value)
}

fn join(mut left: String, right: &str) -> String {
    left.push('|');
    left.push_str(sequence(right));
    left
}

/// The same where the left value stays in its store.
fn joined(left: &str, right: Option<&str>) -> String {
    let right = right.map_or("-", sequence);
    let mut both = String::with_capacity(left.len() + 1 + right.len());
    both.push_str(left);
    both.push('|');
    both.push_str(right);
    both
}

/// The first 12 characters of a value.
fn sequence(value: &str) -> &str {
    value.get(..12).unwrap_or(value)
}

fn last_200(mut tail: String, value: &str) -> String {
    tail.push_str(value);
    let surplus = tail.chars().count().saturating_sub(200);
    let cut = tail.char_indices().nth(surplus).map_or(0, |(at, _)| at);
    tail.drain(..cut);
    tail
}

fn config(args: &Args) -> Result<Config> {
    let need = |name| args.get(name).with_context(|| format!("--{name} is missing"));
    let config = Config::new(need("application-id")?, need("bootstrap")?).state_dir(need("state-dir")?);
    let mut config = config
        .set("processing.guarantee", args.get("guarantee").unwrap_or("at_least_once"))?
        .set("num.stream.threads", args.get("threads").unwrap_or("1"))?
        .set("num.standby.replicas", args.get("standby").unwrap_or("0"))?
        .set("statestore.cache.max.bytes", args.get("cache-bytes").unwrap_or("0"))?;
    if let Some(interval) = args.get("commit-interval-ms") {
        config = config.set("commit.interval.ms", interval)?;
    }
    if let Some(protocol) = args.get("group-protocol") {
        config = config.set("group.protocol", protocol)?;
    }
    for setting in args.all("config") {
        let (key, value) =
            setting.split_once('=').with_context(|| format!("--config {setting}: KEY=VALUE expected"))?;
        match config.clone().set(key, value) {
            Ok(changed) => config = changed,
            Err(error) => tracing::warn!("the setting {key} is ignored: {error}"), // as the contract of peers says
        }
    }
    Ok(config)
}

/// `--name value` pairs; a name may come more than once.
struct Args(HashMap<String, Vec<String>>);

impl Args {
    fn parse(mut words: impl Iterator<Item = String>) -> Result<Args> {
        let mut args: HashMap<String, Vec<String>> = HashMap::new();
        while let Some(word) = words.next() {
            let name = word.strip_prefix("--").with_context(|| format!("unexpected argument {word}"))?;
            let value = words.next().with_context(|| format!("{word} needs a value"))?;
            args.entry(name.to_owned()).or_default().push(value);
        }
        Ok(Args(args))
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name)?.last().map(String::as_str)
    }

    fn all(&self, name: &str) -> impl Iterator<Item = &str> {
        self.0.get(name).into_iter().flatten().map(String::as_str)
    }

    fn number(&self, name: &str) -> Result<Option<u64>> {
        self.get(name).map(|text| text.parse().with_context(|| format!("--{name} {text}: no number"))).transpose()
    }
}

fn report_error(message: &str) {
    event("error", &format!("\"message\":{}", serde_json::Value::from(message)));
}

fn event(name: &str, fields: &str) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
    let mut out = std::io::stdout().lock();
    // Whoever started this process may be gone; the work goes on.
    let _ = writeln!(out, "{{\"event\":\"{name}\",{fields},\"ms\":{now}}}").and_then(|()| out.flush());
}

/// CPU seconds and peak resident memory (KiB) of this process, all threads included.
fn process_figures() -> Result<(f64, u64)> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let (_, fields) = stat.rsplit_once(')').context("/proc/self/stat has another form")?;
    let ticks = fields.split_whitespace().skip(11).take(2).map(str::parse::<f64>).sum::<Result<f64, _>>()?;
    let status = std::fs::read_to_string("/proc/self/status")?;
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("no VmHWM")?;
    Ok((ticks / 100.0, peak.trim().trim_end_matches(" kB").parse()?))
}
