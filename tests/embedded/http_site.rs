//! Instances that serve their state, and a client of few words.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use kstreams::{Bytes, Config, EmbeddedCluster, I64, KafkaStreams, QueryServer, ServedStore, State, Topology, Utf8};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::oneshot;

use crate::application::{PATIENCE, config, wait_until};
use crate::queries::topology;

pub(crate) fn runtime() -> Runtime {
    Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

/// One instance with its server.
pub(crate) struct Site {
    pub streams: Option<KafkaStreams>,
    pub address: String,
    end: Option<oneshot::Sender<()>>,
}

/// Exactly once, in memory, on a port of its own.
pub(crate) fn settings(cluster: &EmbeddedCluster) -> Config {
    config(cluster).stores_in_memory(true).session_timeout(Duration::from_secs(2))
}

pub(crate) fn serve_all(streams: &KafkaStreams) -> QueryServer {
    QueryServer::new(streams)
        .with_store(ServedStore::new("counts", Utf8, I64))
        .and_then(|server| server.with_store(ServedStore::new("per-minute", Utf8, I64)))
        .and_then(|server| server.with_store(ServedStore::new("visits", Utf8, I64)))
        .and_then(|server| server.with_store(ServedStore::new("towns", Utf8, Utf8)))
        .and_then(|server| server.with_store(ServedStore::new("customers", Bytes, Bytes)))
        .unwrap()
}

impl Site {
    pub(crate) fn start(runtime: &Runtime, config: Config) -> Site {
        Site::start_with(runtime, config, serve_all)
    }

    pub(crate) fn start_with(
        runtime: &Runtime,
        config: Config,
        serve: impl FnOnce(&KafkaStreams) -> QueryServer,
    ) -> Site {
        Site::start_of(runtime, topology(), config, serve)
    }

    pub(crate) fn start_of(
        runtime: &Runtime,
        topology: Topology,
        config: Config,
        serve: impl FnOnce(&KafkaStreams) -> QueryServer,
    ) -> Site {
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let streams = KafkaStreams::new(topology, config.application_server(&*address)).unwrap();
        let server = serve(&streams);
        let (end, ended) = oneshot::channel::<()>();
        runtime.spawn(server.serve_until(listener, ended));
        streams.start().unwrap();
        Site { streams: Some(streams), address, end: Some(end) }
    }

    pub(crate) fn streams(&self) -> &KafkaStreams {
        self.streams.as_ref().unwrap()
    }

    /// Ends as a process that is killed: nothing is closed, nobody is told.
    pub(crate) fn crash(&mut self) {
        self.end.take();
        self.streams.take().unwrap().crash();
    }

    pub(crate) fn get(&self, path: &str) -> Reply {
        get(&self.address, path, &[])
    }
}

/// All run, and each partition has an owner that all know.
pub(crate) fn wait_until_settled(sites: &[&Site]) {
    wait_until("every instance is ready and knows of all others", || {
        let knows = |site: &&Site| {
            let known = site.streams().all_metadata();
            site.streams().state() == State::Running
                && known.len() == sites.len()
                && known.iter().all(|instance| !instance.topic_partitions.is_empty())
        };
        sites.iter().all(knows)
    });
}

pub(crate) struct Reply {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
}

impl Reply {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|_| panic!("no JSON: {}", String::from_utf8_lossy(&self.body)))
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let fields = self.head.lines().filter_map(|line| line.split_once(':'));
        fields.filter(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim()).next()
    }

    pub(crate) fn code(&self) -> String {
        self.json()["code"].as_str().unwrap_or_default().to_owned()
    }

    /// Nothing for an answer that is no refusal.
    pub(crate) fn code_or_empty(&self) -> &str {
        self.header("x-kstreams-problem").unwrap_or_default()
    }
}

pub(crate) fn get(address: &str, path: &str, fields: &[&str]) -> Reply {
    let lines: String = fields.iter().map(|field| format!("{field}\r\n")).collect();
    raw(address, format!("GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n{lines}\r\n").as_bytes())
}

/// Sends bytes, and reads until the other side closes.
pub(crate) fn raw(address: &str, bytes: &[u8]) -> Reply {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    // Who is refused early may find that nobody reads the rest.
    let _ = stream.write_all(bytes);
    let mut reply = Vec::new();
    let _ = stream.read_to_end(&mut reply);
    let end = reply.windows(4).position(|window| window == b"\r\n\r\n").unwrap_or(reply.len());
    let head = String::from_utf8_lossy(&reply[..end]).into_owned();
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    Reply { status, head, body: reply.get(end + 4..).unwrap_or_default().to_vec() }
}
