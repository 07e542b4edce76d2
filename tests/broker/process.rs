//! Applications in processes of their own, ended by the system.

use std::env;
use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use kstreams::KafkaStreams;

use crate::cluster::TestKafka;
use crate::word_count::{Application, Resumed, assert_resumed, config, log_to_stderr, wait_until, word_count};

/// What the process of its own is told: the brokers, the application id and the folder, one a line.
const VARIABLE: &str = "KSTREAMS_TEST_CHILD";

/// The name of the application in a process of its own, for the test harness.
const ITSELF: &str = "process::an_application_of_another_test";

/// Does nothing by itself. The test below starts this binary once more for this test only; it ends with its input.
#[test]
fn an_application_of_another_test() {
    let Ok(told) = env::var(VARIABLE) else { return };
    log_to_stderr();
    let mut told = told.lines();
    let [bootstrap, name, folder] = std::array::from_fn(|_| told.next().unwrap());
    let mut resumed = File::options().create(true).append(true).open(resumed_file(Path::new(folder))).unwrap();
    resumed.write_all(b"start\n").unwrap();
    let resumed = std::sync::Mutex::new(resumed);
    let streams = KafkaStreams::new(word_count(name), config(bootstrap, name, &Path::new(folder).join("state")))
        .unwrap()
        .on_restore(move |event| {
            if let Some(Resumed { partition, from, to }) = Resumed::of(event) {
                resumed.lock().unwrap().write_all(format!("{partition} {from} {to}\n").as_bytes()).unwrap();
            }
        });
    streams.start().unwrap();
    std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
    streams.close(Duration::from_secs(60)).unwrap();
}

fn resumed_file(folder: &Path) -> PathBuf {
    folder.join("resumed")
}

/// One entry for each start.
fn all_resumed(folder: &Path) -> Vec<Vec<Resumed>> {
    let text = fs::read_to_string(resumed_file(folder)).unwrap();
    let starts = text.split("start\n").skip(1);
    let parse = |line: &str| {
        let mut numbers = line.split(' ').map(|number| number.parse::<i64>().unwrap());
        let [partition, from, to] = std::array::from_fn(|_| numbers.next().unwrap());
        Resumed { partition: i32::try_from(partition).unwrap(), from, to }
    };
    starts.map(|lines| lines.lines().map(parse).collect()).collect()
}

/// With a step it ends itself there, on the spot.
fn spawn(app: &Application, step: Option<&str>) -> Child {
    let folder = app.folder.path().display();
    let mut command = Command::new(env::current_exe().unwrap());
    command
        .args([ITSELF, "--exact", "--nocapture"])
        .env(VARIABLE, format!("{}\n{}\n{folder}", app.bootstrap, app.name));
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(File::options().create(true).append(true).open(app.folder.path().join("log")).unwrap());
    if let Some(step) = step {
        command.env("KSTREAMS_CRASH_AT", step);
    }
    command.spawn().unwrap()
}

fn log(app: &Application) -> String {
    fs::read_to_string(app.folder.path().join("log")).unwrap()
}

#[test]
fn a_killed_process_loses_nothing_and_doubles_nothing_and_wipes_nothing() {
    let Some(kafka) = TestKafka::shared() else { return };
    let mut app = Application::new(&kafka.bootstrap(), "killed");
    app.write(100);
    let mut child = spawn(&app, None);
    app.wait_until_counted(None);
    drop(child.stdin.take());
    assert!(child.wait().unwrap().success(), "{}", log(&app));
    let databases = app.databases();
    let stored = app.changelog_ends();

    // Killed from outside somewhere in its work, twice, and at the one step where Kafka knows more than the stores.
    for (earlier, step) in [None, None, Some("committed:3")].into_iter().enumerate() {
        let mut child = spawn(&app, step);
        let counted = app.counted();
        wait_until("the process is at work", || {
            app.write(10);
            let is_over = child.try_wait().unwrap().is_some();
            assert!(step.is_some() || !is_over, "{}", log(&app));
            // Counts of the process before may still come in: this one has to have begun as well.
            let has_begun = all_resumed(app.folder.path()).get(earlier + 1).is_some_and(|opened| !opened.is_empty());
            if step.is_some() { is_over } else { has_begun && app.counted() > counted + 50 }
        });
        child.kill().unwrap();
        assert!(!child.wait().unwrap().success());
    }

    let mut child = spawn(&app, None);
    app.write(20);
    app.wait_until_counted(None);
    drop(child.stdin.take());
    assert!(child.wait().unwrap().success(), "{}", log(&app));
    app.assert_exact();
    let starts = all_resumed(app.folder.path());
    assert_eq!(starts.len(), 5);
    let (last, killed) = starts[1..].split_last().unwrap();
    assert_resumed("killed", last, &stored);
    // A process may be killed before it has come to every store.
    let has_opened_all =
        |resumed: &&Vec<Resumed>| (0..).zip(&stored).all(|(n, _)| resumed.iter().any(|r| r.partition == n));
    for resumed in killed.iter().filter(has_opened_all) {
        assert_resumed("killed", resumed, &stored);
    }
    assert_eq!(app.databases(), databases, "the databases are the same ones");
}
