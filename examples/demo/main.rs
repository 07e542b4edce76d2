//! An order pipeline that runs exactly once and is crashed half way: orders and payments are joined with a customers
//! table and added up per customer, on a Kafka cluster inside the process. No broker, no network.
//!
//!     cargo run --example demo               (or `make demo`)
//!     cargo run --example demo -- --dir DIR  keeps everything in DIR, and goes on where an earlier run has ended
//!
//! This process starts a worker, which aborts in the middle of a transaction; starts it again; and in the end reads every
//! result back and compares it with what the generator says.

#![allow(clippy::disallowed_methods, reason = "an example shows a person what happens, as it happens")]

mod model;
mod pipeline;
mod results;
mod screen;
mod worker;

use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, ExitStatus};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use kstreams::EmbeddedCluster;

use screen::{grouped, say};
use worker::{Ending, Shop};

const HELP: &str = "\
An order pipeline on a Kafka cluster inside the process, crashed half way: `demo [--dir DIR]`

  --dir DIR   keep topics and state in DIR, and go on where an earlier run ended
  --help      this text
";

fn main() -> ExitCode {
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            say(&format!("demo: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<bool> {
    let (mut directory, mut worker) = (None, None);
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        match word.as_str() {
            "--dir" => directory = Some(PathBuf::from(words.next().context("--dir needs a directory")?)),
            // How this program calls itself.
            "--worker" => worker = Some(Ending::Clean),
            "--crash" => worker = Some(Ending::Crash),
            "--help" | "-h" => {
                say(HELP);
                return Ok(true);
            }
            _ => bail!("unknown argument {word}: see --help"),
        }
    }
    if let Some(ending) = worker {
        worker::run(&directory.context("a worker needs --dir")?, ending)?;
        return Ok(true);
    }
    match directory {
        Some(directory) => supervise(&directory),
        None => {
            let directory = tempfile::tempdir().context("could not make a temporary directory")?;
            supervise(directory.path())
        }
    }
}

/// Runs the worker, sees it crash, runs it again, and checks what it has done.
fn supervise(directory: &Path) -> Result<bool> {
    say(&format!(
        "order pipeline: orders and payments, joined with customers, added up per customer; exactly once\n  \
         cluster   {}   three partitions per topic, no broker\n  state     {}   RocksDB\n",
        directory.join("cluster").display(),
        directory.join("state").display(),
    ));
    if is_first_half(directory)? {
        say("== the worker starts. It will abort half way, in the middle of a transaction");
        let status = work(directory, "--crash")?;
        let Some(signal) = status.signal() else {
            bail!("the worker should have crashed, and has ended with {status}")
        };
        say(&format!("\n== the worker was killed by signal {signal}. {}", wreck(directory)?));
    }
    say("== the worker starts again, with what the crash has left");
    let status = work(directory, "--worker")?;
    ensure!(status.success(), "the restarted worker has ended with {status}; everything is kept with --dir");

    say("\n== every result, read back as read_committed and compared with the generator");
    results::verify(&EmbeddedCluster::open(directory.join("cluster"))?)
}

/// Whether the crash is still to come: a directory may hold the work of an earlier run.
fn is_first_half(directory: &Path) -> Result<bool> {
    let cluster = EmbeddedCluster::open(directory.join("cluster"))?;
    Ok(!Shop::open(&cluster)?.is_half_way())
}

/// Runs this program once more as the worker, until it ends one way or another. The worker ends with its parent's Ctrl-C.
fn work(directory: &Path, flag: &str) -> Result<ExitStatus> {
    let program = std::env::current_exe().context("could not find this program's own file")?;
    let mut worker =
        Command::new(program).args([flag, "--dir"]).arg(directory).spawn().context("could not start the worker")?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
        let mut ticks = tokio::time::interval(Duration::from_millis(20));
        loop {
            tokio::select! {
                _ = ticks.tick() => if let Some(status) = worker.try_wait()? { return Ok(status) },
                _ = tokio::signal::ctrl_c() => break,
                _ = terminate.recv() => break,
            }
        }
        worker.kill()?;
        worker.wait()?;
        bail!("interrupted; with --dir nothing is lost, and the next run goes on from here")
    })
}

/// What a crash has left behind.
fn wreck(directory: &Path) -> Result<String> {
    let cluster = EmbeddedCluster::open(directory.join("cluster"))?;
    let (hidden, all) = (results::hidden_updates(&cluster)?, cluster.records(model::TOTALS)?.len());
    Ok(format!(
        "Nothing was closed\n   {} updates of totals are committed; {hidden} are in its open transaction, and no reader \
         will see them",
        grouped((all - hidden) as u64),
    ))
}
