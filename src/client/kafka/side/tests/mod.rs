//! The side connection against brokers that are played on 127.0.0.1, and against a real one.

mod broker;
mod coordinator;
mod offsets;
mod outside;
mod security;
mod settle;
mod streams;

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::code::Code;
use super::codec::{Reader, Writer};
use super::requests::Api;
use super::security::SideSettings;
use super::{SideCoordinator, SideOffsets};
use crate::membership::classic::protocol::{GroupAnswer, GroupCoordinator, GroupRequest};

/// So long that no test comes to its end, if it does not fail.
const LONG: Duration = Duration::from_secs(3600);

/// What a played broker does with a request.
pub(super) enum Reply {
    Body(Vec<u8>),
    /// Exactly these bytes, then the end.
    Raw(Vec<u8>),
    HangUp,
    Silence,
}

/// A request as a played broker sees it.
pub(super) struct Asked<'a> {
    pub(super) api: Api,
    pub(super) version: i16,
    pub(super) body: &'a [u8],
    /// Counted from 1.
    pub(super) connection: usize,
}

type Script = dyn FnMut(&Asked<'_>) -> Option<Reply> + Send;

/// A played broker. What its script has no answer for gets the usual one.
pub(super) struct Broker {
    pub(super) port: u16,
    /// The names of all requests and how often they came.
    asked: Arc<Mutex<HashMap<&'static str, usize>>>,
}

impl Broker {
    pub(super) fn play(script: impl FnMut(&Asked<'_>) -> Option<Reply> + Send + 'static) -> Broker {
        Broker::play_over(Box::new, script)
    }

    /// On top of what `wrap` makes of a socket.
    fn play_over<S: Read + Write + Send + 'static>(
        wrap: impl Fn(TcpStream) -> Box<S> + Send + 'static,
        script: impl FnMut(&Asked<'_>) -> Option<Reply> + Send + 'static,
    ) -> Broker {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let asked = Arc::new(Mutex::new(HashMap::new()));
        let script: Arc<Mutex<Box<Script>>> = Arc::new(Mutex::new(Box::new(script)));
        let counts = Arc::clone(&asked);
        // They end with the test's process, or with the connection.
        std::thread::spawn(move || {
            for (connection, socket) in (1..).zip(listener.incoming()) {
                let (mut socket, script, counts) = (wrap(socket.unwrap()), Arc::clone(&script), Arc::clone(&counts));
                std::thread::spawn(move || while serve(&mut *socket, port, connection, &script, &counts).is_some() {});
            }
        });
        Broker { port, asked }
    }

    pub(super) fn asked(&self, api: Api) -> usize {
        self.asked.lock().unwrap().get(api.name()).copied().unwrap_or(0)
    }
}

/// Answers one request; none when the connection is over.
fn serve(
    socket: &mut (impl Read + Write),
    port: u16,
    connection: usize,
    script: &Mutex<Box<Script>>,
    counts: &Mutex<HashMap<&'static str, usize>>,
) -> Option<()> {
    let mut length = [0; 4];
    socket.read_exact(&mut length).ok()?;
    let mut frame = vec![0; usize::try_from(u32::from_be_bytes(length)).unwrap()];
    socket.read_exact(&mut frame).ok()?;
    let mut reader = Reader::new(&frame);
    let (key, version, correlation) = (reader.i16().unwrap(), reader.i16().unwrap(), reader.i32().unwrap());
    assert_eq!(reader.plain_text().unwrap(), "client");
    let api = [
        Api::Fetch,
        Api::Metadata,
        Api::OffsetCommit,
        Api::OffsetFetch,
        Api::FindCoordinator,
        Api::JoinGroup,
        Api::Heartbeat,
        Api::LeaveGroup,
        Api::SyncGroup,
        Api::DescribeGroups,
        Api::ListGroups,
        Api::SaslHandshake,
        Api::ApiVersions,
        Api::InitProducerId,
        Api::AddPartitionsToTxn,
        Api::AddOffsetsToTxn,
        Api::EndTxn,
        Api::SaslAuthenticate,
        Api::DescribeProducers,
        Api::DescribeTransactions,
        Api::ListTransactions,
        Api::StreamsGroupHeartbeat,
        Api::StreamsGroupDescribe,
    ];
    let api = api.into_iter().find(|api| api.key() == key).unwrap();
    if api != Api::SaslHandshake {
        reader.tags().unwrap();
    }
    *counts.lock().unwrap().entry(api.name()).or_default() += 1;
    let asked = Asked { api, version, body: reader.rest(), connection };
    let reply = script.lock().unwrap()(&asked);
    let body = match reply.unwrap_or_else(|| usual(api, port)) {
        Reply::Body(body) => body,
        Reply::Raw(bytes) => {
            socket.write_all(&bytes).ok()?;
            return None;
        }
        Reply::HangUp => return None,
        Reply::Silence => return Some(()),
    };
    let mut head = Writer::default();
    head.i32(correlation);
    if !matches!(api, Api::SaslHandshake | Api::ApiVersions) {
        head.no_tags();
    }
    let length = u32::try_from(head.0.len() + body.len()).unwrap().to_be_bytes();
    // In pieces, so that frames have to be put together.
    for piece in [&length[..2], &length[2..], &head.0, &body] {
        socket.write_all(piece).ok()?;
        socket.flush().ok()?;
    }
    Some(())
}

/// What a broker says that has nothing to say: it is every coordinator, and there is no error.
fn usual(api: Api, port: u16) -> Reply {
    match api {
        Api::ApiVersions => Reply::Body(versions(9)),
        Api::FindCoordinator => Reply::Body(found(port)),
        _ => Reply::Body(error(Code::NONE)),
    }
}

/// Every request, JoinGroup up to a version.
fn versions(join_max: i16) -> Vec<u8> {
    let mut out = Writer::default();
    out.i16(0);
    let keys = [1, 3, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 22, 36, 66, 88, 89];
    out.list(keys.into_iter(), |out, key| {
        out.i16(key);
        out.i16(0);
        out.i16(match key {
            1 => 12,
            11 => join_max,
            _ => 9,
        });
        out.no_tags();
    });
    out.i32(0);
    out.no_tags();
    out.0
}

fn found(port: u16) -> Vec<u8> {
    let mut out = Writer::default();
    out.i32(0);
    out.i16(0);
    out.optional_text(None);
    out.i32(1);
    out.text("127.0.0.1");
    out.i32(port.into());
    out.no_tags();
    out.0
}

/// A throttle time, a code, and nothing or empty lists behind: fits a heartbeat, a leave, a refused join, InitProducerId.
fn error(code: Code) -> Vec<u8> {
    let mut out = Writer::default();
    out.i32(0);
    out.i16(code.0);
    out.0.extend([0; 32]);
    out.0
}

fn refusal(code: Code) -> Option<Reply> {
    Some(Reply::Body(error(code)))
}

fn settings(ports: &[u16], pairs: &[(&str, &str)]) -> SideSettings {
    let bootstrap: Vec<String> = ports.iter().map(|port| format!("127.0.0.1:{port}")).collect();
    let usual = [("socket.timeout.ms", "3600000"), ("reconnect.backoff.ms", "1"), ("reconnect.backoff.max.ms", "2")];
    let value = |name: &str| pairs.iter().chain(&usual).find(|(known, _)| *known == name).map(|(_, v)| (*v).to_owned());
    SideSettings::new(&bootstrap.join(","), &value).unwrap()
}

fn coordinator(settings: SideSettings) -> SideCoordinator {
    SideCoordinator::new(settings, "group", "client").unwrap()
}

fn offsets(ports: &[u16]) -> SideOffsets {
    SideOffsets::with_patience(settings(ports, &[]), "group", "client", LONG).unwrap()
}

fn heartbeat() -> GroupRequest {
    GroupRequest::Heartbeat { generation: 1, member: "m".to_owned(), instance: None }
}

fn join() -> GroupRequest {
    GroupRequest::Join {
        member: String::new(),
        instance: None,
        session_timeout: LONG,
        rebalance_timeout: LONG,
        topics: vec!["in".into()],
        user_data: vec![1],
    }
}

fn sync() -> GroupRequest {
    GroupRequest::Sync { generation: 1, member: "m".to_owned(), instance: None, assignments: Vec::new() }
}

/// More than fits into a read, and into a record of TLS.
fn long_user_data() -> Vec<u8> {
    (0..300_000u32).map(|n| n.to_be_bytes()[2]).collect()
}

fn long_assignment() -> Reply {
    let mut assignment = Writer::default();
    assignment.i16(3);
    assignment.i32(0);
    assignment.plain_bytes(&long_user_data());
    let mut out = Writer::default();
    out.i32(0);
    out.i16(0);
    out.optional_text(Some("consumer"));
    out.optional_text(None);
    out.bytes(&assignment.0);
    out.no_tags();
    Reply::Body(out.0)
}

fn long_answer() -> GroupAnswer {
    GroupAnswer::Synced { partitions: Vec::new(), user_data: long_user_data() }
}

fn next(coordinator: &mut dyn GroupCoordinator) -> GroupAnswer {
    loop {
        if let Some(answer) = coordinator.poll() {
            return answer;
        }
        coordinator.wait(LONG);
    }
}

fn ask(coordinator: &mut dyn GroupCoordinator, request: GroupRequest) -> GroupAnswer {
    coordinator.send(request);
    next(coordinator)
}

/// A port that nobody listens on.
fn nobody() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}
