//! State over HTTP: two instances in this process, on the embedded cluster, and one client with one connection that asks
//! for one key after the other: `cargo bench --all-features --bench answers`.

#![allow(
    clippy::disallowed_methods,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::cast_possible_truncation,
    missing_docs,
    reason = "a bench measures time, prints it, and has to run to its end"
)]

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use axum::body::Bytes;
use axum::http::Request;
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use kstreams::*;
use tokio::net::TcpListener;

const KEYS: u64 = 10_000;
const READS: u64 = 20_000;
const PARTITIONS: i32 = 4;

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.expect("a runtime").block_on(measure());
}

async fn measure() {
    let cluster = EmbeddedCluster::new();
    cluster.create_topic("in", PARTITIONS).expect("a topic");
    for number in 0..KEYS {
        cluster.produce("in", Some(key(number).as_bytes()), Some(b"value"), None).expect("a record");
    }
    let (first, second) = (start(&cluster).await, start(&cluster).await);
    let settled = || {
        let all = first.1.all_metadata();
        all.len() == 2 && all.iter().all(|one| one.topic_partitions.len() == PARTITIONS as usize / 2)
    };
    while !settled() || first.1.state() != State::Running || second.1.state() != State::Running {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let address = &first.0;
    let client = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
    let mut taken: BTreeMap<bool, Vec<u64>> = BTreeMap::new();
    for number in 0..READS + KEYS {
        let path = format!("http://{address}/v1/stores/counts/keys/{}?timeout_ms=30000", key(number));
        let request = Request::get(path).body(Full::default()).expect("a request");
        let begun = Instant::now();
        let answer = client.request(request).await.expect("an answer");
        assert_eq!(answer.status(), 200, "{}", key(number));
        let is_forwarded = answer.headers()["x-kstreams-served-by"] != address.as_str();
        answer.into_body().collect().await.expect("a body");
        // The first ones meet rows and connections that are not there yet.
        if number >= KEYS {
            taken.entry(is_forwarded).or_default().push(begun.elapsed().as_nanos() as u64);
        }
    }
    for (is_forwarded, mut taken) in taken {
        taken.sort_unstable();
        let at = |share: f64| taken[(taken.len() as f64 * share) as usize] / 1_000;
        let who = if is_forwarded { "forwarded" } else { "local" };
        println!("{who}: {} reads, p50 {} us, p99 {} us", taken.len(), at(0.5), at(0.99));
    }
    for (_, streams, _folder) in [first, second] {
        tokio::task::spawn_blocking(move || streams.close(Duration::from_secs(30)))
            .await
            .expect("a thread")
            .expect("a close");
    }
}

fn key(number: u64) -> String {
    format!("key-{:05}", number * 7_919 % KEYS)
}

async fn start(cluster: &EmbeddedCluster) -> (String, KafkaStreams, tempfile::TempDir) {
    let builder = StreamsBuilder::new();
    let records = builder.stream("in", Consumed::with(Utf8, Utf8));
    records.group_by_key(Grouped::with(Utf8, Utf8)).count(Materialized::named("counts"));
    let folder = tempfile::TempDir::new().expect("a folder");
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address").to_string();
    let config = Config::new("answers", "embedded://").cluster(cluster).exactly_once().state_dir(folder.path());
    let config = config.application_server(address.as_str());
    let streams = KafkaStreams::new(builder.build().expect("a topology"), config).expect("a client");
    let server = QueryServer::new(&streams).with_store(ServedStore::new("counts", Utf8, I64)).expect("a store");
    tokio::spawn(server.serve(listener));
    streams.start().expect("a start");
    (address, streams, folder)
}
