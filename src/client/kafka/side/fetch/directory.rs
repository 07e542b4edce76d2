//! Who leads which partition: asked of any broker, whenever somebody does not know.

use std::sync::Arc;
use std::time::Instant;

use mio::{Registry, Token};

use super::super::Failure;
use super::super::lane::{jittered, random};
use super::super::requests::Api;
use super::super::security::Address;
use super::peer::{Dialer, Peer, Said};
use super::wire::{Whereabouts, decode_whereabouts, encode_topics};

/// How many brokers are kept besides the bootstrap servers, which may be gone by now.
const LEARNED_MAX: usize = 32;

#[derive(Debug, Default)]
pub(super) struct Directory {
    /// Whom it asks.
    peer: Option<Peer>,
    is_asked: bool,
    learned: Vec<Address>,
    /// Which of the bootstrap servers and the learned ones is next.
    next_server: Option<usize>,
    /// Servers in a row that did not answer.
    failures: usize,
    not_before: Option<Instant>,
}

impl Directory {
    /// Asks for these topics, if there are some, and does what can be done without waiting.
    ///
    /// # Errors
    /// A broker denied what it will deny the next time as well.
    pub(super) fn drive(
        &mut self,
        topics: &[Arc<str>],
        dialer: &Dialer,
        (registry, token): (&Registry, &mut usize),
        now: Instant,
    ) -> Result<Option<Whereabouts>, Failure> {
        loop {
            let is_paused = self.not_before.is_some_and(|time| now < time);
            if !self.is_asked && (topics.is_empty() || is_paused) {
                return Ok(None);
            }
            let Some(peer) = &mut self.peer else {
                let Some(server) = self.server(dialer) else { return Ok(None) };
                *token += 1;
                self.peer = Some(Peer::new(server, Token(*token)));
                continue;
            };
            let failure = match peer.drive(true, dialer, registry, now) {
                Ok(Said::Nothing) => return Ok(None),
                Ok(Said::Ready) => {
                    self.is_asked = true;
                    let request = (Api::Metadata, &encode_topics(topics)[..]);
                    match peer.ask(request, dialer.settings.request_timeout, &dialer.settings, now) {
                        Ok(()) => continue,
                        Err(failure) => failure,
                    }
                }
                Ok(Said::Answer(body)) => {
                    self.is_asked = false;
                    match decode_whereabouts(&body) {
                        // What is not told of would be asked for at once, and again.
                        Ok(found) if found.topics.is_empty() => {
                            Failure::Lost("it tells of no topic".to_owned()).at(&peer.address)
                        }
                        Ok(found) => {
                            self.failures = 0;
                            let learned = found.brokers.iter().map(|(_, address)| address.clone());
                            let others = learned.filter(|address| !dialer.settings.bootstrap.contains(address));
                            self.learned = others.take(LEARNED_MAX).collect();
                            return Ok(Some(found));
                        }
                        Err(malformed) => Failure::malformed(malformed).at(&peer.address),
                    }
                }
                Err(failure) => failure,
            };
            self.lost(&failure, dialer, now);
            if matches!(failure, Failure::Denied(_)) {
                return Err(failure);
            }
        }
    }

    fn server(&mut self, dialer: &Dialer) -> Option<Address> {
        let servers = dialer.settings.bootstrap.len() + self.learned.len();
        // Not everybody begins with the first one.
        let next = self.next_server.unwrap_or_else(|| usize::try_from(random() >> 1).unwrap_or(0));
        self.next_server = Some(next.wrapping_add(1));
        dialer.settings.bootstrap.iter().chain(&self.learned).nth(next % servers.max(1)).cloned()
    }

    fn lost(&mut self, failure: &Failure, dialer: &Dialer, now: Instant) {
        tracing::debug!(client = %dialer.client_id, %failure, "could not ask who leads the partitions");
        self.peer = None;
        self.is_asked = false;
        self.failures = self.failures.saturating_add(1);
        let servers = dialer.settings.bootstrap.len() + self.learned.len();
        if let Some(rounds) = self.failures.checked_sub(servers) {
            let settings = &dialer.settings;
            let pause = settings.backoff_min.saturating_mul(1 << rounds.min(16)).min(settings.backoff_max);
            self.not_before = Some(now + jittered(pause));
            if rounds == 0 {
                tracing::warn!(client = %dialer.client_id, %failure, "no broker tells who leads the partitions; trying on");
            }
        }
    }

    /// When there is something to do even if the socket keeps still.
    pub(super) fn times(&self) -> impl Iterator<Item = Instant> {
        self.peer.as_ref().and_then(Peer::next_time).into_iter().chain(self.not_before)
    }
}
