//! State over HTTP while instances come and go, and while clients mean no good.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use kstreams::{ErrorKind, HttpLimits, I64, Position, QueryClient, Utf8};
use serde_json::json;

use crate::application::{PATIENCE, wait_until};
use crate::http_site::{Site, get, raw, runtime, serve_all, settings, wait_until_settled};
use crate::queries::{cluster, write};

const USERS: usize = 30;

fn name(number: usize) -> String {
    format!("user-{number:02}")
}

#[test]
fn reads_go_on_while_tasks_move_and_while_an_instance_dies_that_has_a_standby() {
    let (runtime, cluster) = (runtime(), cluster());
    let with_standby = || settings(&cluster).num_standby_replicas(1).acceptable_recovery_lag(0);
    let mut first = Site::start(&runtime, with_standby());
    wait_until_settled(&[&first]);
    let mut written = Position::new();
    for number in 0..USERS {
        for _ in 0..=number {
            written = written.merge(&write(&cluster, "clicks", &name(number), "", 0));
        }
    }
    let own = QueryClient::new([&first.address]).unwrap().with_timeout(PATIENCE).store("counts", Utf8, I64);
    for number in 0..USERS {
        let answer = runtime.block_on(own.with_position(&written).get(&name(number))).unwrap();
        assert_eq!(answer.value, Some(number as i64 + 1));
    }

    // From here on nothing is written: every answer is right, from a copy too, or it is a refusal to be asked again.
    let second = Site::start(&runtime, with_standby());
    let (is_over, answers, stale) =
        (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let reader = |address: String| {
        let (is_over, answers, stale) = (Arc::clone(&is_over), Arc::clone(&answers), Arc::clone(&stale));
        let store = QueryClient::new([&address]).unwrap().with_timeout(PATIENCE).store("counts", Utf8, I64);
        async move {
            for number in (0..USERS).cycle().take_while(|_| !is_over.load(Ordering::Relaxed)) {
                match store.get(&name(number)).await {
                    Ok(answer) => {
                        let is_right = answer.value == Some(number as i64 + 1);
                        assert!(is_right || answer.lag.is_some(), "user {number}: {answer:?}");
                        answers.fetch_add(1, Ordering::Relaxed);
                        stale.fetch_add(usize::from(answer.lag.is_some()), Ordering::Relaxed);
                    }
                    Err(error) => assert_eq!(error.kind(), ErrorKind::Unavailable, "{}", error.report()),
                }
            }
        }
    };
    let readers: Vec<_> = [&second; 2].iter().map(|site| runtime.spawn(reader(site.address.clone()))).collect();
    wait_until_settled(&[&first, &second]);
    wait_until("each has copies of what the other has", || {
        [&first, &second].iter().all(|site| {
            let instances = site.streams().all_metadata();
            instances.iter().all(|known| known.standby_stores.contains("counts"))
                && site.streams().lags().iter().all(|store| store.lag() == 0)
        })
    });
    let before = answers.load(Ordering::Relaxed);
    wait_until("they are read", || answers.load(Ordering::Relaxed) > before + 2 * USERS);
    first.crash();
    let before = answers.load(Ordering::Relaxed);
    wait_until("all are read of the one that is left", || answers.load(Ordering::Relaxed) > before + 4 * USERS);
    wait_until("the dead one's tasks are at work", || {
        second.get("/v1/metadata/counts").json()["partitions"]
            .as_array()
            .is_some_and(|known| known.iter().all(|partition| partition["active"] == json!(second.address)))
    });
    is_over.store(true, Ordering::Relaxed);
    for reader in readers {
        runtime.block_on(reader).unwrap();
    }
    for number in 0..USERS {
        let store = QueryClient::new([&second.address]).unwrap().with_timeout(PATIENCE).store("counts", Utf8, I64);
        let answer = runtime.block_on(store.with_position(&written).get(&name(number))).unwrap();
        assert_eq!((answer.value, answer.lag), (Some(number as i64 + 1), None));
    }
}

#[test]
fn partitions_that_do_not_answer_are_named_or_the_whole_is_refused() {
    let (runtime, cluster) = (runtime(), cluster());
    // Long enough to be seen: nobody takes over before the session is over.
    let patient = || settings(&cluster).session_timeout(Duration::from_secs(5));
    let first = Site::start(&runtime, patient());
    let mut second = Site::start(&runtime, patient());
    wait_until_settled(&[&first, &second]);
    let mut written = Position::new();
    for number in 0..USERS {
        written = written.merge(&write(&cluster, "clicks", &name(number), "", 0));
    }
    let whole = first.get(&format!("/v1/stores/counts/range?position={written}&timeout_ms=30000")).json();
    assert_eq!((whole["rows"].as_array().unwrap().len(), &whole["missing"]), (USERS, &json!([])));
    let dead = second.address.clone();
    second.crash();
    let refused = first.get("/v1/stores/counts/range?timeout_ms=200");
    assert_eq!((refused.status, refused.code().as_str()), (503, "incomplete"));
    let missing = refused.json()["missing"].clone();
    let missing = missing.as_array().unwrap();
    assert!(!missing.is_empty() && refused.header("retry-after").is_some());
    let part = first.get("/v1/stores/counts/range?timeout_ms=200&partial=true");
    assert_eq!((part.status, part.json()["missing"].as_array().unwrap()), (200, missing));
    assert!(part.json()["rows"].as_array().unwrap().len() < USERS);
    let client = QueryClient::new([dead, first.address.clone()]).unwrap().with_timeout(PATIENCE);
    wait_until("the dead one's rows are restored", || {
        let rows = client.store("counts", Utf8, I64).range(None, None).unwrap();
        runtime.block_on(rows.collect()).is_ok_and(|rows| rows.len() == USERS)
    });
}

#[test]
fn a_client_that_is_closed_says_so() {
    let (runtime, cluster) = (runtime(), cluster());
    let site = Site::start(&runtime, settings(&cluster));
    wait_until_settled(&[&site]);
    assert_eq!(site.get("/v1/live").status, 200);
    site.streams().close(PATIENCE).unwrap();
    for path in
        ["/v1/stores/counts/keys/ann", "/v1/stores/counts/range", "/v1/live", "/v1/ready", "/v1/metadata/counts"]
    {
        let refused = site.get(path);
        assert_eq!((refused.status, refused.code().as_str()), (503, "shutting_down"), "{path}");
        assert_eq!((refused.header("retry-after"), &refused.json()["retriable"]), (Some("1"), &json!(true)));
    }
}

#[test]
fn requests_that_cannot_be_read_are_refused_with_what_is_wrong() {
    let (runtime, cluster) = (runtime(), cluster());
    let site = Site::start_with(&runtime, settings(&cluster), |streams| serve_all(streams).with_bearer_token("secret"));
    wait_until_settled(&[&site]);
    let long = "k".repeat(5_000);
    let cases = [
        ("/v1/stores/counts/keys/%ff", 400, "malformed_request"),
        (&format!("/v1/stores/counts/keys/{long}"), 414, "key_too_long"),
        (&format!("/v1/stores/counts/range?from={long}"), 414, "key_too_long"),
        ("/v1/stores/customers/keys/not+base64", 400, "malformed_request"),
        ("/v1/stores/counts/keys/ann?format=xml", 400, "malformed_request"),
        ("/v1/stores/counts/keys/ann?no=1", 400, "malformed_request"),
        ("/v1/stores/counts/keys/ann?key=bob", 400, "malformed_request"),
        ("/v1/stores/counts/keys/ann?stale=1&stale=2", 400, "malformed_request"),
        ("/v1/stores/counts/keys/ann?stale=old", 400, "malformed_request"),
        ("/v1/stores/counts/keys/ann?position=clicks", 400, "malformed_request"),
        ("/v1/stores/counts/keys/ann?timeout_ms=-1", 400, "malformed_request"),
        ("/v1/stores/counts/keys/ann?as_of=1", 400, "wrong_kind"),
        ("/v1/stores/counts/range?limit=0", 400, "malformed_request"),
        ("/v1/stores/counts/range?page=%00", 400, "malformed_request"),
        ("/v1/stores/counts/prefix", 400, "malformed_request"),
        ("/v1/stores/per-minute/windows/ann?from=soon", 400, "malformed_request"),
        ("/v1/stores/per-minute/range", 400, "wrong_kind"),
        ("/v1/stores/lost/keys/ann", 404, "no_such_store"),
        ("/v1/stores/counts/keys/", 404, "no_such_route"),
        ("/etc/passwd", 404, "no_such_route"),
    ];
    let token = "authorization: Bearer secret";
    for (path, status, code) in cases {
        let refused = get(&site.address, path, &[token]);
        let shown = path.get(..60).unwrap_or(path);
        assert_eq!((refused.status, refused.code().as_str()), (status, code), "{shown}");
        assert_eq!(refused.header("content-type"), Some("application/problem+json"), "{shown}");
    }
    for wrong in
        [&[][..], &["authorization: Bearer other"], &["authorization: Bearer secret2"], &["authorization: \u{7f}"]]
    {
        let refused = get(&site.address, "/v1/stores/counts/keys/ann", wrong);
        assert!(refused.status == 401 || refused.status == 400, "{wrong:?}: {}", refused.status);
    }
    assert_eq!(get(&site.address, "/v1/live", &[]).status, 200);
    let host = &site.address;
    let posted = format!("POST /v1/stores HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\ncontent-length: 0\r\n\r\n");
    assert_eq!(raw(host, posted.as_bytes()).status, 405);
    let many: String = (0..500).map(|number| format!("x-{number}: {}\r\n", "v".repeat(400))).collect();
    let nonsense = [
        &b"\0\xff\xfe nonsense\r\n\r\n"[..],
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET  /v1/stores HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\ncontent-length: 5\r\nconnection: close\r\n\r\n",
    ];
    for bytes in nonsense {
        let refused = raw(host, bytes);
        assert!(refused.status == 0 || (400..500).contains(&refused.status), "{}", refused.status);
    }
    let refused = raw(host, format!("GET /v1/stores HTTP/1.1\r\n{many}\r\n").as_bytes());
    assert!(refused.status == 0 || refused.status == 431, "{}", refused.status);
    assert_eq!(get(host, "/v1/stores", &[token]).status, 200);
}

#[test]
fn every_route_that_is_described_is_there() {
    let (runtime, cluster) = (runtime(), cluster());
    let site = Site::start(&runtime, settings(&cluster));
    wait_until_settled(&[&site]);
    write(&cluster, "clicks", "ann", "", 0);
    let description = site.get("/v1/openapi.json").json();
    let paths = description["paths"].as_object().unwrap();
    assert_eq!(paths.len(), 11);
    for (path, operations) in paths {
        let store = if path.contains("windows") {
            "per-minute"
        } else if path.contains("sessions") {
            "visits"
        } else {
            "counts"
        };
        let mut path = path.replace("{store}", store).replace("{key}", "ann");
        if path.ends_with("prefix") {
            path += "?prefix=a";
        }
        let reply = site.get(&path);
        let described = operations["get"]["responses"].as_object().unwrap();
        assert!(described.contains_key(&reply.status.to_string()), "{path}: {}", reply.status);
        assert!(reply.status == 200 || reply.code() == "no_such_key", "{path}: {}", reply.status);
    }
}

#[test]
fn connections_that_are_idle_or_slow_are_few_and_end() {
    let (runtime, cluster) = (runtime(), cluster());
    let limits = HttpLimits::default().connections_max(8).idle_timeout(Duration::from_millis(500));
    let site = Site::start_with(&runtime, settings(&cluster), |streams| serve_all(streams).with_limits(limits));
    wait_until_settled(&[&site]);
    let open = || {
        let stream = TcpStream::connect(&site.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    };
    let mut idle: Vec<TcpStream> = (0..40).map(|_| open()).collect();
    // One of them has begun to say something, and does not go on.
    idle[0].write_all(b"GET /v1/stores HTTP/1.1\r\nhost:").unwrap();
    let mut refused = 0;
    for stream in &mut idle {
        let mut said = Vec::new();
        // Ends when the server closes: at once for those above the bound, and soon for the others.
        let _ = stream.read_to_end(&mut said);
        refused += usize::from(said.starts_with(b"HTTP/1.1 503"));
    }
    assert!(refused >= 1, "{refused}");
    wait_until("there is room again", || site.get("/v1/live").status == 200);
}

#[test]
fn requests_above_the_bound_are_refused_and_others_of_instances_are_not() {
    let (runtime, cluster) = (runtime(), cluster());
    let limits = HttpLimits::default().requests_max(1);
    let site = Site::start_with(&runtime, settings(&cluster), |streams| serve_all(streams).with_limits(limits));
    wait_until_settled(&[&site]);
    let partition = (0..4).find(|partition| {
        let found = site.get("/v1/metadata/counts/keys/ann").json();
        found["partition"] == json!(partition)
    });
    // Waits for a record that is never written.
    let waits = format!("/v1/stores/counts/keys/ann?timeout_ms=30000&position=clicks:{}:99", partition.unwrap());
    let address = site.address.clone();
    let ask = || {
        let mut stream = TcpStream::connect(&address).unwrap();
        stream.write_all(format!("GET {waits} HTTP/1.1\r\nhost: {address}\r\n\r\n").as_bytes()).unwrap();
        stream.set_nonblocking(true).unwrap();
        stream
    };
    let mut stream = ask();
    wait_until("the place is taken", || {
        if stream.peek(&mut [0]).is_ok() {
            // The look below had the place, and this one was refused.
            stream = ask();
        }
        site.get("/v1/stores").code_or_empty() == "overloaded"
    });
    let refused = site.get("/v1/stores");
    assert_eq!((refused.status, refused.header("retry-after")), (503, Some("1")));
    assert_eq!(get(&address, "/v1/stores", &["x-kstreams-hop: other:1"]).status, 200);
    assert_eq!(site.get("/v1/live").status, 200);
    drop(stream);
    wait_until("a client that goes gives its place back", || site.get("/v1/stores").status == 200);
}
