//! State directories that cannot be used: taken, read only, full.
//!
//! For the last two a test starts this binary once more, in a mount namespace of its own with a small file system.

use std::collections::BTreeSet;
use std::env;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{Arc, Mutex, PoisonError};

use kstreams::{EmbeddedCluster, ErrorKind, KafkaStreams, State};

use crate::application::{
    PATIENCE, assert_gapless, cluster, config, counts, expected, last_counts, start, wait_for, wait_until, word_count,
    write,
};

#[test]
fn a_second_client_is_told_who_has_the_state_directory() {
    let cluster = cluster();
    let config = config(&cluster).cache_bytes(0);
    let first = start(config.clone());
    wait_for(&first, State::Running);
    let error = KafkaStreams::new(word_count(), config.clone()).unwrap().start().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    let text = error.to_string();
    assert!(text.contains("word-count") && text.contains("a state directory of its own"), "{text}");
    write(&cluster, &["a b c d e f g h"]);
    wait_until("the first one goes on", || counts(&cluster).len() == 8);
    first.close(PATIENCE).unwrap();
    start(config).close(PATIENCE).unwrap();
}

/// What the process of its own is told: its state directory.
const VARIABLE: &str = "KSTREAMS_TEST_STATE_DIR";

/// Runs one test of this binary with a file system of its own; no answer where the system gives none to its users.
fn run_mounted(test: &str, options: &str) -> Option<Output> {
    let folder = tempfile::tempdir().unwrap();
    let mount = format!("mount -t tmpfs -o {options} kstreams-test \"${VARIABLE}\"");
    let unshared = |script: &str| {
        let mut command = Command::new("unshare");
        command.args(["--user", "--map-root-user", "--mount", "sh", "-c", script]);
        command.arg(env::current_exe().unwrap()).args([test, "--exact", "--nocapture"]).env(VARIABLE, folder.path());
        command.output()
    };
    if !unshared(&mount).is_ok_and(|output| output.status.success()) {
        let _ = writeln!(std::io::stderr(), "{test} is skipped: it needs unshare and the right to mount");
        return None;
    }
    Some(unshared(&format!("{mount} && exec \"$0\" \"$@\"")).unwrap())
}

fn assert_success(output: Option<Output>) {
    if let Some(Output { status, stdout, stderr }) = output {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        assert!(status.success(), "{}{}", text(&stdout), text(&stderr));
    }
}

/// What is logged in this process, which runs one test only.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn start() -> Log {
        let log = Log::default();
        let writer = log.clone();
        let hook = std::panic::take_hook();
        let told = log.clone();
        std::panic::set_hook(Box::new(move |panic| {
            hook(panic);
            eprintln!("{}", told.text());
        }));
        tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).init();
        log
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap_or_else(PoisonError::into_inner)).into_owned()
    }
}

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn seen(cluster: &EmbeddedCluster) -> usize {
    counts(cluster).values().map(Vec::len).sum()
}

#[test]
fn a_read_only_state_directory_is_named_and_runs_when_it_is_writable() {
    assert_success(run_mounted("state_directory::on_a_read_only_file_system", "ro,size=64m"));
}

/// Does nothing by itself: see above.
#[test]
fn on_a_read_only_file_system() {
    let Some(state_dir) = env::var_os(VARIABLE).map(PathBuf::from) else { return };
    let cluster = cluster();
    let config = config(&cluster).cache_bytes(0).state_dir(&state_dir);
    write(&cluster, &["a b c d e f g h"]);
    let error = KafkaStreams::new(word_count(), config.clone()).unwrap().start().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    let text = error.to_string();
    assert!(text.contains(&state_dir.display().to_string()), "{text}");
    assert!(text.contains("mount the file system for writing, or choose another state directory"), "{text}");
    let mounted = Command::new("mount").args(["-o", "remount,rw"]).arg(&state_dir).status().unwrap();
    assert!(mounted.success());
    let streams = start(config);
    wait_until("all is counted", || seen(&cluster) == 8);
    streams.close(PATIENCE).unwrap();
    assert_gapless(&cluster);
}

#[test]
fn a_full_disk_is_named_and_waited_for() {
    assert_success(run_mounted("state_directory::on_a_full_disk", "size=64m"));
}

/// Writes until nothing more fits.
fn fill(folder: &Path, name: &str) -> PathBuf {
    let path = folder.join(name);
    let mut file = File::create(&path).unwrap();
    while file.write_all(&[1; 4096]).is_ok() {}
    while file.write_all(&[1]).is_ok() {}
    path
}

/// Does nothing by itself: see above.
#[test]
fn on_a_full_disk() {
    let Some(state_dir) = env::var_os(VARIABLE).map(PathBuf::from) else { return };
    let log = Log::start();
    let cluster = cluster();
    let config = config(&cluster).cache_bytes(0).state_dir(&state_dir);
    let line = "a b c d e f g h";
    let streams = start(config.clone());
    write(&cluster, &[line]);
    wait_until("the first line is counted", || seen(&cluster) == 8);

    // While it runs: what it has is in memory, and cannot be written when it is closed.
    let filler = fill(&state_dir, "filler");
    write(&cluster, &[line]);
    wait_until("the second line is counted", || seen(&cluster) == 16);
    streams.close(PATIENCE).unwrap();
    let text = log.text();
    assert!(text.contains("No space left on device"), "{text}");

    // When it starts. The databases have given back what they had reserved.
    let more = fill(&state_dir, "more");
    write(&cluster, &[line]);
    let streams = KafkaStreams::new(word_count(), config).unwrap();
    if let Err(error) = streams.start() {
        panic!("a full disk is waited for: {}", error.report());
    }
    wait_until("it says what it waits for", || {
        let text = log.text();
        text.contains("trying again until it works") && text.contains("look for a full disk")
    });
    assert_ne!(streams.state(), State::Error);
    fs::remove_file(filler).and_then(|()| fs::remove_file(more)).unwrap();
    wait_until("all is counted", || seen(&cluster) == 24);
    streams.close(PATIENCE).unwrap();
    assert_gapless(&cluster);
    assert!(!log.text().contains("damaged"), "nothing is set aside: {}", log.text());
}

#[test]
fn a_disk_that_fills_up_behind_a_commit_loses_nothing() {
    assert_success(run_mounted("state_directory::on_a_disk_that_fills_up", "size=64m"));
}

/// Does nothing by itself: see above. The cluster has the commit, and the rows of the commit cannot be written to disk.
#[test]
fn on_a_disk_that_fills_up() {
    let Some(state_dir) = env::var_os(VARIABLE).map(PathBuf::from) else { return };
    let log = Log::start();
    let cluster = cluster();
    // Every look at the memory finds too much of it, and has it written to disk.
    let config = config(&cluster).cache_bytes(0).write_buffer_bytes(1).state_dir(&state_dir);
    let line = "a b c d e f g h";
    let streams = start(config.clone());
    write(&cluster, &[line]);
    wait_until("the first line is counted", || seen(&cluster) == 8);
    let filler = fill(&state_dir, "filler");
    let mut lines = 1;
    wait_until("a commit cannot be written to disk", || {
        write(&cluster, &[line]);
        lines += 1;
        streams.state() == State::Error
    });
    let error = streams.take_error().unwrap().report();
    assert!(error.contains("task 1_") && error.contains("look for a full disk"), "{error}");
    assert!(error.contains("No space left on device"), "{error}");
    drop(streams);

    fs::remove_file(filler).unwrap();
    let streams = start(config);
    wait_until("all is counted", || seen(&cluster) == 8 * lines);
    streams.close(PATIENCE).unwrap();
    assert_gapless(&cluster);
    assert!(!log.text().contains("damaged"), "nothing is set aside: {}", log.text());
}

#[test]
fn state_that_is_cleaned_up_is_restored_and_the_instance_is_who_it_was() {
    let cluster = cluster();
    let folder = tempfile::tempdir().unwrap();
    let config = config(&cluster).state_dir(folder.path());
    write(&cluster, &["a b", "a"]);
    let streams = start(config.clone());
    wait_until("both are counted", || last_counts(&cluster) == expected(&[("a", 2), ("b", 1)]));
    let error = streams.clean_up().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.to_string().contains("close it first"), "{error}");
    streams.close(PATIENCE).unwrap();
    streams.clean_up().unwrap();
    let left = || -> BTreeSet<String> {
        let entries = fs::read_dir(folder.path().join("word-count")).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    };
    let identity = BTreeSet::from([".lock", "kafka-streams-process-metadata"].map(str::to_owned));
    assert_eq!(left(), identity);

    let streams = KafkaStreams::new(word_count(), config).unwrap();
    streams.clean_up().unwrap();
    streams.start().unwrap();
    write(&cluster, &["a"]);
    wait_until("it goes on", || last_counts(&cluster) == expected(&[("a", 3), ("b", 1)]));
    streams.close(PATIENCE).unwrap();
}
