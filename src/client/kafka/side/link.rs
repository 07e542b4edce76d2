//! One socket to one broker: connecting, TLS, frames, and one request at a time. Nothing here blocks.

use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::ops::{Deref, Range};
use std::sync::Arc;
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use mio::{Interest, Registry, Token};

use super::Failure;
use super::codec::Reader;
use super::handshake::{Handshake, Next, too_old};
use super::requests::{Api, Request};
use super::responses::Versions;
use super::security::Security;
use super::tls;

/// What a response may be long: all members' data of a group are bound to a megabyte by the broker's own log.
const RESPONSE_BYTES_MAX: usize = 16 << 20;

const READ_BYTES: usize = 16 << 10;

/// Room that is made at once for a long response: its length is what the broker says.
const GROWTH_BYTES_MAX: usize = 1 << 20;

/// Its own text, since the broker may be a new one that was set up without them.
const NO_STREAMS_GROUPS: &str = "the broker has no streams groups: they need Kafka 4.2 with the feature streams.version 1, \
     or set GroupProtocol::Sticky";

/// Before the broker stops heeding credentials, a new connection is made: this share of their life is used.
const LIFETIME_USED: f64 = 0.85;

/// A connection that was silent for longer is not trusted with a request. Routers and load balancers forget it without telling
/// (from four minutes on), and a join has to wait a minute until it may be given up.
const SILENCE_MAX: Duration = Duration::from_secs(60);

/// What a look at the socket gave.
#[derive(Debug)]
pub(super) enum Progress {
    /// Not open yet, or the broker has not answered.
    Waiting,
    /// Open, and nothing is asked.
    Idle,
    Answer(Body),
}

/// The body of a response, still in the frame that it came in: some are megabytes long.
#[derive(Debug)]
pub(super) struct Body {
    bytes: Vec<u8>,
    range: Range<usize>,
}

impl Deref for Body {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.bytes.get(self.range.clone()).unwrap_or_default()
    }
}

/// What has been read of the next frame.
#[derive(Debug, Default)]
struct Inbox {
    /// Longer than what has been read: the rest is room.
    bytes: Vec<u8>,
    filled: usize,
}

impl Inbox {
    fn read(&self) -> &[u8] {
        self.bytes.get(..self.filled).unwrap_or_default()
    }

    /// Room for some of the bytes that are missing.
    fn room(&mut self, missing: usize) -> &mut [u8] {
        let end = self.filled + missing.min(GROWTH_BYTES_MAX);
        if self.bytes.len() < end {
            self.bytes.resize(end, 0);
        }
        self.bytes.get_mut(self.filled..end).unwrap_or_default()
    }

    /// Takes the first bytes out, with what was behind them as room.
    fn take(&mut self, length: usize) -> Vec<u8> {
        let rest = self.read().get(length..).unwrap_or_default().to_vec();
        self.filled = rest.len();
        std::mem::replace(&mut self.bytes, rest)
    }
}

/// A connection and what is under way on it.
#[derive(Debug)]
pub(super) struct Link {
    socket: TcpStream,
    tls: Option<tls::Session>,
    /// The socket is still being connected.
    connecting: bool,
    client_id: Arc<str>,
    /// None once the link is open.
    handshake: Option<Handshake>,
    versions: Versions,
    /// From when on the broker does not heed the credentials any more.
    ends: Option<Instant>,
    /// When the last response came.
    heard: Instant,
    correlation: i32,
    asked: Option<Api>,
    outbox: Vec<u8>,
    inbox: Inbox,
    response_bytes_max: usize,
}

impl Link {
    /// Begins to connect. `server` is the name that a certificate has to carry.
    pub(super) fn connect(
        to: SocketAddr,
        server: &str,
        security: &Security,
        client_id: &Arc<str>,
        (registry, token): (&Registry, Token),
        now: Instant,
    ) -> Result<Link, Failure> {
        let tls = security.tls.as_ref().map(|settings| settings.session(server)).transpose()?;
        let refused = |error| Failure::lost("could not connect", &error);
        let mut socket = TcpStream::connect(to).map_err(refused)?;
        registry.register(&mut socket, token, Interest::READABLE | Interest::WRITABLE).map_err(refused)?;
        let (handshake, api, body) = Handshake::begin(security.sasl.clone());
        let mut link = Link {
            socket,
            tls,
            connecting: true,
            client_id: Arc::clone(client_id),
            versions: handshake.versions().clone(),
            handshake: Some(handshake),
            ends: None,
            heard: now,
            correlation: 0,
            asked: None,
            outbox: Vec::new(),
            inbox: Inbox::default(),
            response_bytes_max: RESPONSE_BYTES_MAX,
        };
        link.ask(api, &body)?;
        Ok(link)
    }

    /// Takes responses up to another length than that of messages to a group.
    pub(super) fn with_response_bytes_max(self, response_bytes_max: usize) -> Link {
        Link { response_bytes_max, ..self }
    }

    /// Memory of a response that is done with, for the next one.
    pub(super) fn give_back(&mut self, body: Body) {
        if self.inbox.filled == 0 && self.inbox.bytes.capacity() < body.bytes.capacity() {
            self.inbox.bytes = body.bytes;
        }
    }

    pub(super) fn is_open(&self) -> bool {
        self.handshake.is_none()
    }

    /// Whether a request has to go on a new connection: the broker heeds the credentials no longer, or has been silent.
    pub(super) fn is_stale(&self, now: Instant) -> bool {
        self.ends.is_some_and(|ends| now >= ends) || now.saturating_duration_since(self.heard) > SILENCE_MAX
    }

    /// Sends a request in the newest version that both sides know, which it returns; its answer comes with
    /// [`drive`](Link::drive). To be called when idle.
    pub(super) fn send(&mut self, request: &Request, group: &str) -> Result<i16, Failure> {
        let api = request.api();
        let version = self.version(api)?;
        self.ask(api, &request.encode(group, version))?;
        Ok(version)
    }

    pub(super) fn ask(&mut self, api: Api, body: &[u8]) -> Result<(), Failure> {
        let version = match api {
            // Brokers take them before they have said what they take.
            Api::SaslHandshake | Api::SaslAuthenticate => *api.versions().start(),
            _ => self.version(api)?,
        };
        self.correlation = self.correlation.wrapping_add(1);
        api.frame(version, self.correlation, &self.client_id, body, &mut self.outbox);
        self.asked = Some(api);
        Ok(())
    }

    pub(super) fn knows(&self, api: Api) -> bool {
        self.versions.of(api).is_some()
    }

    fn version(&self, api: Api) -> Result<i16, Failure> {
        self.versions.of(api).ok_or_else(|| match api {
            Api::StreamsGroupHeartbeat => Failure::Denied(NO_STREAMS_GROUPS.to_owned()),
            _ => too_old(&format!("{} {}", api.name(), api.versions().start())),
        })
    }

    /// Does what can be done without waiting.
    pub(super) fn drive(&mut self, now: Instant) -> Result<Progress, Failure> {
        if self.connecting && !self.connected()? {
            return Ok(Progress::Waiting);
        }
        loop {
            self.flush()?;
            let open = self.fill()?;
            // What was read may want an answer by itself: TLS handshakes go back and forth.
            self.flush()?;
            let Some(frame) = self.next_frame()? else {
                if !open {
                    return Err(self.closed());
                }
                let busy = self.handshake.is_some() || self.asked.is_some();
                return Ok(if busy { Progress::Waiting } else { Progress::Idle });
            };
            let body = self.opened(frame)?;
            self.heard = now;
            let Some(handshake) = &mut self.handshake else { return Ok(Progress::Answer(body)) };
            match handshake.on(&body)? {
                Next::Ask(api, body) => self.ask(api, &body)?,
                Next::Done(versions, lifetime) => {
                    self.ends =
                        lifetime.and_then(|lifetime: Duration| now.checked_add(lifetime.mul_f64(LIFETIME_USED)));
                    self.versions = versions;
                    self.handshake = None;
                }
            }
        }
    }

    fn connected(&mut self) -> Result<bool, Failure> {
        let refused = |error| Failure::lost("could not connect", &error);
        if let Some(error) = self.socket.take_error().map_err(refused)? {
            return Err(refused(error));
        }
        match self.socket.peer_addr() {
            Ok(_) => {
                self.connecting = false;
                self.socket.set_nodelay(true).map_err(refused)?;
                Ok(true)
            }
            Err(error) if matches!(error.kind(), ErrorKind::NotConnected | ErrorKind::InvalidInput) => Ok(false),
            Err(error) => Err(refused(error)),
        }
    }

    fn flush(&mut self) -> Result<(), Failure> {
        let broke = |error| Failure::lost("the connection broke", &error);
        if let Some(tls) = &mut self.tls {
            return tls.flush(&mut self.outbox, &mut self.socket);
        }
        while !self.outbox.is_empty() {
            match self.socket.write(&self.outbox) {
                Ok(written) => drop(self.outbox.drain(..written.min(self.outbox.len()))),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(broke(error)),
            }
        }
        Ok(())
    }

    /// Reads until there is a whole frame or nothing more to read. False: the broker has closed the connection.
    fn fill(&mut self) -> Result<bool, Failure> {
        loop {
            let missing = match self.frame_length()? {
                None => READ_BYTES,
                Some(length) if self.inbox.filled >= length => return Ok(true),
                Some(length) => length - self.inbox.filled,
            };
            let room = self.inbox.room(missing);
            let read = match &mut self.tls {
                Some(tls) => tls.read(room, &mut self.socket)?,
                None => match self.socket.read(room) {
                    Ok(length) => Some(length),
                    Err(error) if error.kind() == ErrorKind::WouldBlock => None,
                    Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                    Err(error) => return Err(Failure::lost("the connection broke", &error)),
                },
            };
            match read {
                None => return Ok(true),
                Some(0) => return Ok(false),
                Some(length) => self.inbox.filled += length,
            }
        }
    }

    /// The length of the next frame with its prefix, as soon as it is known.
    fn frame_length(&self) -> Result<Option<usize>, Failure> {
        let Some(prefix) = self.inbox.read().first_chunk::<4>() else { return Ok(None) };
        let length = usize::try_from(u32::from_be_bytes(*prefix)).unwrap_or(usize::MAX);
        if length > self.response_bytes_max {
            // What a TLS server says to a client without TLS, for one.
            let remedy =
                "what answers there does not speak Kafka's protocol, or TLS: check security.protocol and the port";
            return Err(Failure::Lost(remedy.to_owned()));
        }
        Ok(Some(length + 4))
    }

    /// The next frame and its length, with room behind it.
    fn next_frame(&mut self) -> Result<Option<(Vec<u8>, usize)>, Failure> {
        let length = self.frame_length()?.filter(|length| self.inbox.filled >= *length);
        Ok(length.map(|length| (self.inbox.take(length), length)))
    }

    /// The body of a frame, if it answers what was asked.
    fn opened(&mut self, (bytes, length): (Vec<u8>, usize)) -> Result<Body, Failure> {
        let Some(api) = self.asked.take() else {
            return Err(Failure::Lost("it answers what was not asked".to_owned()));
        };
        let mut reader = Reader::new(bytes.get(4..length).unwrap_or_default());
        let correlation = api.open(&mut reader).map_err(Failure::malformed)?;
        if correlation != self.correlation {
            return Err(Failure::Lost("it answers what was not asked".to_owned()));
        }
        let start = length - reader.rest().len();
        Ok(Body { bytes, range: start..length })
    }

    fn closed(&self) -> Failure {
        let remedy = match &self.handshake {
            // A listener with TLS or SASL hangs up on who begins otherwise.
            Some(_) => "it closed the new connection: check security.protocol and the port",
            None => "it closed the connection",
        };
        Failure::Lost(remedy.to_owned())
    }
}
