//! One socket to one broker: connecting, TLS, frames, and one request at a time. Nothing here blocks.

use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;
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

/// Its own text, since the broker may be a new one that was set up without them.
const NO_STREAMS_GROUPS: &str = "the broker has no streams groups: they need Kafka 4.2 with the feature streams.version 1, \
     or set GroupProtocol::Sticky";

/// Before the broker stops heeding credentials, a new connection is made: this share of their life is used.
const LIFETIME_USED: f64 = 0.85;

/// A connection that was silent for longer is not trusted with a request. Routers and load balancers forget it without telling
/// (from four minutes on), and a join has to wait a minute until it may be given up.
const SILENCE_MAX: Duration = Duration::from_secs(60);

/// What a look at the socket gave.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// Not open yet, or the broker has not answered.
    Waiting,
    /// Open, and nothing is asked.
    Idle,
    /// The body of the response.
    Answer(Vec<u8>),
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
    inbox: Vec<u8>,
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
            inbox: Vec::new(),
        };
        link.ask(api, &body)?;
        Ok(link)
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
            let body = self.opened(&frame)?;
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
        let mut buffer = [0; READ_BYTES];
        while self.frame_length()?.is_none_or(|length| self.inbox.len() < length) {
            let read = match &mut self.tls {
                Some(tls) => tls.read(&mut buffer, &mut self.socket)?,
                None => match self.socket.read(&mut buffer) {
                    Ok(length) => Some(length),
                    Err(error) if error.kind() == ErrorKind::WouldBlock => None,
                    Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                    Err(error) => return Err(Failure::lost("the connection broke", &error)),
                },
            };
            match read {
                None => return Ok(true),
                Some(0) => return Ok(false),
                Some(length) => self.inbox.extend_from_slice(buffer.get(..length).unwrap_or_default()),
            }
        }
        Ok(true)
    }

    /// The length of the next frame with its prefix, as soon as it is known.
    fn frame_length(&self) -> Result<Option<usize>, Failure> {
        let Some(prefix) = self.inbox.first_chunk::<4>() else { return Ok(None) };
        let length = usize::try_from(u32::from_be_bytes(*prefix)).unwrap_or(usize::MAX);
        if length > RESPONSE_BYTES_MAX {
            // What a TLS server says to a client without TLS, for one.
            let remedy =
                "what answers there does not speak Kafka's protocol, or TLS: check security.protocol and the port";
            return Err(Failure::Lost(remedy.to_owned()));
        }
        Ok(Some(length + 4))
    }

    fn next_frame(&mut self) -> Result<Option<Vec<u8>>, Failure> {
        let Some(length) = self.frame_length()?.filter(|length| self.inbox.len() >= *length) else { return Ok(None) };
        let rest = self.inbox.split_off(length);
        Ok(Some(std::mem::replace(&mut self.inbox, rest)))
    }

    /// The body of a frame, if it answers what was asked.
    fn opened(&mut self, frame: &[u8]) -> Result<Vec<u8>, Failure> {
        let Some(api) = self.asked.take() else {
            return Err(Failure::Lost("it answers what was not asked".to_owned()));
        };
        let mut reader = Reader::new(frame.get(4..).unwrap_or_default());
        let correlation = api.open(&mut reader).map_err(Failure::malformed)?;
        if correlation != self.correlation {
            return Err(Failure::Lost("it answers what was not asked".to_owned()));
        }
        Ok(reader.rest().to_vec())
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
