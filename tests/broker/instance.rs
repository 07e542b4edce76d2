//! An instance of an application in a process of its own, which is killed, stopped and measured from outside.

use std::env;
use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{self, Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::Duration;

use kstreams::{Config, ErrorKind, GroupProtocol, KafkaStreams, State, Topology};
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{SignalKind, signal as listen};

use crate::word_count::{config, log_to_stderr, word_count};

/// What the process of its own is told: the brokers, the application id, the protocol, the folder and a port, one a line.
const VARIABLE: &str = "KSTREAMS_TEST_INSTANCE";

/// The name of a word count in a process of its own, for the test harness.
pub(crate) const WORD_COUNT: &str = "instance::an_instance_of_another_test";

/// Longer than a restart in place takes, shorter than a pause.
pub(crate) const SESSION_TIMEOUT: Duration = Duration::from_secs(3);

/// How many lines of a log are shown.
const TAIL: usize = 40;

const MIB: usize = 1024 * 1024;

/// Does nothing by itself. Other tests start this binary once more for this test only; it ends on SIGTERM.
#[test]
fn an_instance_of_another_test() {
    let Some(Told { name, config, .. }) = Told::read() else { return };
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    run(&runtime, || word_count(&name), &config, |_| {});
}

/// What a process of its own is told.
pub(crate) struct Told {
    pub(crate) name: String,
    pub(crate) config: Config,
    /// The first of those that it may listen at.
    #[cfg_attr(not(feature = "query-http"), expect(dead_code, reason = "nobody asks without a server"))]
    pub(crate) port: u16,
}

impl Told {
    /// None: this process is no instance of another test.
    pub(crate) fn read() -> Option<Told> {
        let told = env::var(VARIABLE).ok()?;
        log_to_stderr();
        let mut told = told.lines();
        let [bootstrap, name, protocol, folder, port] = std::array::from_fn(|_| told.next().unwrap());
        let config = config(bootstrap, name, Path::new(folder))
            .set("group.protocol", protocol)
            .unwrap()
            .session_timeout(SESSION_TIMEOUT)
            // Small, so that they are full soon, and what an instance holds after that is what it will hold.
            .block_cache_bytes(8 * MIB)
            .write_buffer_bytes(4 * MIB);
        // Its input ends when the test that has started it is gone.
        thread::spawn(|| {
            let _ = io::stdin().read_to_end(&mut Vec::new());
            process::exit(3);
        });
        Some(Told { name: name.to_owned(), config, port: port.parse().unwrap() })
    }
}

/// Runs until SIGTERM, or until it fails, and closes.
pub(crate) fn run(
    runtime: &Runtime,
    topology: impl Fn() -> Topology,
    config: &Config,
    besides: impl FnOnce(&KafkaStreams),
) {
    let mut terminate = {
        let _context = runtime.enter();
        listen(SignalKind::terminate()).unwrap()
    };
    let streams = start(topology, config);
    besides(&streams);
    runtime.block_on(async {
        while !matches!(streams.state(), State::Error | State::NotRunning) {
            tokio::select! {
                _ = terminate.recv() => break,
                () = tokio::time::sleep(Duration::from_millis(20)) => {}
            }
        }
    });
    let error = streams.take_error().map(|error| error.report());
    streams.close(Duration::from_secs(60)).unwrap();
    assert!(error.is_none(), "{}", error.unwrap_or_default());
}

/// Tries again when the brokers cannot be reached, as whoever looks after a service starts it again.
fn start(topology: impl Fn() -> Topology, config: &Config) -> KafkaStreams {
    loop {
        let streams = KafkaStreams::new(topology(), config.clone()).unwrap().on_state_change(|state, _| {
            let mut out = io::stdout();
            writeln!(out, "\nstate {state}").unwrap();
        });
        match streams.start() {
            Ok(()) => return streams,
            Err(error) => assert_eq!(error.kind(), ErrorKind::Unavailable, "{}", error.report()),
        }
    }
}

/// What instances of one application have in common.
#[derive(Clone)]
pub(crate) struct Setup {
    pub(crate) bootstrap: String,
    pub(crate) name: String,
    pub(crate) protocol: GroupProtocol,
    /// Of the state directories and the logs.
    pub(crate) folder: PathBuf,
    /// The test that an instance is.
    pub(crate) itself: &'static str,
    /// What the first instance may listen at; each further one ten higher.
    pub(crate) first_port: u16,
}

/// One instance; its process comes and goes, its state directory stays.
pub(crate) struct Instance {
    number: usize,
    setup: Setup,
    child: Child,
}

/// What the system says of a process.
#[derive(Clone, Copy)]
pub(crate) struct Sample {
    pub(crate) resident_kib: u64,
    pub(crate) threads: u64,
    pub(crate) files: u64,
}

impl Instance {
    pub(crate) fn start(setup: &Setup, number: usize) -> Instance {
        let child = spawn(setup, number);
        Instance { number, setup: setup.clone(), child }
    }

    /// A new process on the same state directory.
    pub(crate) fn restart(&mut self) {
        self.child = spawn(&self.setup, self.number);
    }

    /// Whether every task that is assigned to its process is at work, or was.
    pub(crate) fn has_been_running(&self) -> bool {
        let told = fs::read_to_string(self.setup.folder.join(format!("instance-{}.out", self.number)));
        told.unwrap_or_default().lines().any(|line| line == "state RUNNING")
    }

    /// How it has ended.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    pub(crate) fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// The process has to have come so far that it looks out for the signal: see `has_been_running`.
    pub(crate) fn terminate(&self) {
        signal("-TERM", self.child.id());
    }

    pub(crate) fn stop(&self) {
        signal("-STOP", self.child.id());
    }

    pub(crate) fn go_on(&self) {
        signal("-CONT", self.child.id());
    }

    pub(crate) fn process(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn sample(&self) -> Option<Sample> {
        let folder = PathBuf::from(format!("/proc/{}", self.child.id()));
        let status = fs::read_to_string(folder.join("status")).ok()?;
        let number = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            line.split_whitespace().next()?.parse().ok()
        };
        let files = fs::read_dir(folder.join("fd")).ok()?.count();
        Some(Sample {
            resident_kib: number("VmRSS:")?,
            threads: number("Threads:")?,
            files: u64::try_from(files).ok()?,
        })
    }

    /// The last lines that it has written.
    pub(crate) fn tail(&self) -> String {
        let log = fs::read_to_string(log(&self.setup, self.number)).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(TAIL)..].join("\n")
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        self.kill();
    }
}

fn log(setup: &Setup, number: usize) -> PathBuf {
    setup.folder.join(format!("instance-{number}.log"))
}

fn spawn(setup: &Setup, number: usize) -> Child {
    let Setup { bootstrap, name, protocol, folder, itself, first_port } = setup;
    let state = folder.join(format!("state-{number}"));
    let protocol = if *protocol == GroupProtocol::Streams { "streams" } else { "classic" };
    let port = first_port + 10 * u16::try_from(number).unwrap();
    let mut command = Command::new(env::current_exe().unwrap());
    command
        .args([itself, "--exact", "--nocapture", "--test-threads", "1"])
        .env(VARIABLE, [bootstrap, name, protocol, &state.display().to_string(), &port.to_string()].join("\n"))
        .env("RUST_LOG", env::var("RUST_LOG").unwrap_or("kstreams=info".to_owned()))
        .stdin(Stdio::piped())
        .stdout(File::create(folder.join(format!("instance-{number}.out"))).unwrap())
        .stderr(File::options().create(true).append(true).open(log(setup, number)).unwrap());
    command.spawn().unwrap()
}

fn signal(name: &str, process: u32) {
    let status = Command::new("kill").args([name, &process.to_string()]).status().unwrap();
    assert!(status.success(), "kill {name} {process}: {status}");
}
