//! Ten thousand clients that hold a connection and say nothing, or begin to and do not go on.
//!
//! ```text
//!   the test ── a process that may have many open files: the server ── another one: its clients
//! ```

use std::env;
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use kstreams::HttpLimits;

use crate::application::wait_until;
use crate::http_site::{Site, get, runtime, serve_all, settings, wait_until_settled};
use crate::queries::cluster;

const CLIENTS: usize = 10_000;

/// Who says that there is room keeps a few files more.
const OTHER_FILES: usize = 500;

/// Of the library's own memory for each connection; README.md promises it.
const KIB_EACH_MAX: usize = 20;

/// Which part of the test a process is; and what it is told.
const PART: &str = "KSTREAMS_TEST_CROWD";

const ITSELF: &str = "http_crowd::ten_thousand_idle_connections_are_held_in_bounded_memory_and_others_are_answered";

#[test]
fn ten_thousand_idle_connections_are_held_in_bounded_memory_and_others_are_answered() {
    match env::var(PART) {
        Err(_) => {
            let status = again("server").wait().unwrap();
            assert!(status.success(), "{status}");
        }
        Ok(part) if part == "server" => serve_the_crowd(),
        Ok(told) => be_the_crowd(&told),
    }
}

/// This test once more, in a process that may have as many open files as the system lets it.
fn again(part: &str) -> Child {
    let mut command = Command::new("sh");
    command.args(["-c", r#"ulimit -n "$(ulimit -Hn)"; exec "$0" "$@""#]).arg(env::current_exe().unwrap());
    command.args([ITSELF, "--exact", "--nocapture", "--test-threads", "1"]).env(PART, part);
    command.stdin(Stdio::piped());
    if part != "server" {
        command.stdout(Stdio::piped());
    }
    command.spawn().unwrap()
}

fn serve_the_crowd() {
    let clients = CLIENTS.min(open_files_max() - OTHER_FILES);
    let (runtime, cluster) = (runtime(), cluster());
    // Nobody is sent away for saying nothing while it is looked at how much they take.
    let limits = HttpLimits::default().connections_max(clients + 1).idle_timeout(Duration::from_secs(600));
    let site = Site::start_with(&runtime, settings(&cluster), |streams| serve_all(streams).with_limits(limits));
    wait_until_settled(&[&site]);
    assert_eq!(site.get("/v1/stores").status, 200);
    let before = resident_kib();

    let mut crowd = again(&format!("{clients} {}", site.address));
    // The test harness says something, too.
    let mut told = BufReader::new(crowd.stdout.take().unwrap()).lines().map_while(Result::ok);
    assert!(told.any(|line| line == "all are connected"), "who connects has failed");
    wait_until("all are accepted", || open_files() > clients);
    let each = (resident_kib() - before).div_ceil(clients);
    eprintln!("{clients} idle connections take {each} KiB each");
    assert!(each <= KIB_EACH_MAX, "{clients} idle connections take {each} KiB each");
    // There is one place left, which is taken and given back.
    wait_until("there is an answer in the crowd", || site.get("/v1/stores").status == 200);
    let mut others = Vec::new();
    wait_until("it is full", || {
        others.push(TcpStream::connect(&site.address).unwrap());
        site.get("/v1/live").head.starts_with("HTTP/1.1 503")
    });
    drop(others);
    wait_until("there is room again", || site.get("/v1/live").status == 200);

    drop(crowd.stdin.take());
    assert!(crowd.wait().unwrap().success());
    wait_until("they are gone", || open_files() < OTHER_FILES);
    assert_eq!(site.get("/v1/stores").status, 200);
}

/// Until its input ends.
fn be_the_crowd(told: &str) {
    let (clients, address) = told.split_once(' ').unwrap();
    let connect = |number: usize| {
        let mut stream = TcpStream::connect(address).unwrap();
        if number.is_multiple_of(2) {
            stream.write_all(b"GET /v1/stores HTTP/1.1\r\nhost:").unwrap();
        }
        // An answer says that all before it are accepted: the system refuses whom it has no room to let wait, for seconds.
        if number % 50 == 49 {
            assert_eq!(get(address, "/v1/live", &[]).status, 200);
        }
        stream
    };
    let all: Vec<TcpStream> = (0..clients.parse().unwrap()).map(connect).collect();
    let mut out = std::io::stdout();
    writeln!(out, "\nall are connected").unwrap();
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
    drop(all);
}

fn open_files() -> usize {
    fs::read_dir("/proc/self/fd").unwrap().count()
}

fn open_files_max() -> usize {
    number("/proc/self/limits", "Max open files")
}

fn resident_kib() -> usize {
    number("/proc/self/status", "VmRSS:")
}

/// The first number in a line.
fn number(file: &str, line: &str) -> usize {
    let text = fs::read_to_string(file).unwrap();
    let rest = text.lines().find_map(|known| known.strip_prefix(line)).unwrap();
    rest.split_whitespace().next().unwrap().parse().unwrap()
}
