//! A connection to one broker: made when it is needed, and made again after a pause when it is lost.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mio::{Registry, Token};

use super::super::Failure;
use super::super::lane::{jittered, look_up};
use super::super::link::{Body, Link, Progress};
use super::super::requests::Api;
use super::super::security::{Address, SideSettings};

/// What every connection of a reader is made with.
#[derive(Debug)]
pub(super) struct Dialer {
    pub(super) settings: Arc<SideSettings>,
    pub(super) client_id: Arc<str>,
    pub(super) response_bytes_max: usize,
}

#[derive(Debug)]
enum Stage {
    Down,
    Pause(Instant),
    Up {
        link: Box<Link>,
        open_by: Instant,
        /// When an answer has to be there.
        answer_by: Option<Instant>,
    },
}

/// What a look at the connection gave.
#[derive(Debug)]
pub(super) enum Said {
    /// Nothing: it is being made, or has not answered, or is not needed.
    Nothing,
    /// It may be asked something.
    Ready,
    Answer(Body),
}

#[derive(Debug)]
pub(super) struct Peer {
    pub(super) address: Address,
    token: Token,
    stage: Stage,
    /// Addresses of the host that have not been tried.
    untried: VecDeque<SocketAddr>,
    /// Since it last answered.
    failures: u32,
}

impl Peer {
    pub(super) fn new(address: Address, token: Token) -> Peer {
        Peer { address, token, stage: Stage::Down, untried: VecDeque::new(), failures: 0 }
    }

    /// Does what can be done without waiting; connects when `is_needed`.
    ///
    /// # Errors
    /// The connection is lost, and what was asked on it.
    pub(super) fn drive(
        &mut self,
        is_needed: bool,
        dialer: &Dialer,
        registry: &Registry,
        now: Instant,
    ) -> Result<Said, Failure> {
        loop {
            match self.advance(is_needed, dialer, registry, now) {
                Ok(Some(said)) => return Ok(said),
                Ok(None) => {}
                // The host has another address.
                Err(_) if !self.untried.is_empty() => self.stage = Stage::Down,
                Err(failure) => return Err(self.hang_up(failure, &dialer.settings, now)),
            }
        }
    }

    /// None: the connection was of no use, and there is to be another one.
    fn advance(
        &mut self,
        is_needed: bool,
        dialer: &Dialer,
        registry: &Registry,
        now: Instant,
    ) -> Result<Option<Said>, Failure> {
        match &mut self.stage {
            Stage::Down if !is_needed => return Ok(Some(Said::Nothing)),
            Stage::Pause(until) if now < *until => return Ok(Some(Said::Nothing)),
            Stage::Down | Stage::Pause(_) => self.connect(dialer, registry, now)?,
            Stage::Up { .. } => {}
        }
        let Stage::Up { link, open_by, answer_by } = &mut self.stage else { return Ok(Some(Said::Nothing)) };
        let said = match link.drive(now) {
            // Brokers close what has been idle for ten minutes: it says nothing.
            Err(_) if link.is_open() && answer_by.is_none() => {
                self.stage = Stage::Down;
                return Ok(None);
            }
            Err(failure) => return Err(failure),
            Ok(Progress::Waiting) if !link.is_open() && now >= *open_by => {
                return Err(Failure::Lost("no answer to a new connection".to_owned()));
            }
            Ok(Progress::Waiting) if answer_by.is_some_and(|by| now >= by) => {
                return Err(Failure::Lost("the broker did not answer in time".to_owned()));
            }
            Ok(Progress::Idle) if is_needed && link.is_stale(now) => {
                self.stage = Stage::Down;
                return Ok(None);
            }
            Ok(Progress::Idle) if is_needed => Said::Ready,
            Ok(Progress::Waiting | Progress::Idle) => Said::Nothing,
            Ok(Progress::Answer(body)) => {
                *answer_by = None;
                self.failures = 0;
                self.untried.clear();
                Said::Answer(body)
            }
        };
        Ok(Some(said))
    }

    fn connect(&mut self, dialer: &Dialer, registry: &Registry, now: Instant) -> Result<(), Failure> {
        self.stage = Stage::Down;
        if self.untried.is_empty() {
            self.untried = look_up(&self.address, dialer.settings.family)?;
        }
        let Some(to) = self.untried.pop_front() else { return Ok(()) };
        let (settings, at) = (&dialer.settings, (registry, self.token));
        let link = Link::connect(to, &self.address.host, &settings.security, &dialer.client_id, at, now)?;
        let link = Box::new(link.with_response_bytes_max(dialer.response_bytes_max));
        tracing::debug!(client = %dialer.client_id, peer = %self.address, address = %to, "connecting");
        self.stage = Stage::Up { link, open_by: now + settings.connect_timeout, answer_by: None };
        Ok(())
    }

    /// Gives the connection up; the next one is made after a pause.
    pub(super) fn hang_up(&mut self, failure: Failure, settings: &SideSettings, now: Instant) -> Failure {
        let pause = settings.backoff_min.saturating_mul(1 << self.failures.min(16)).min(settings.backoff_max);
        self.failures = self.failures.saturating_add(1);
        self.stage = Stage::Pause(now + jittered(pause));
        failure.at(&self.address)
    }

    /// Hands over a request, which the next [`drive`](Peer::drive) sends; to be called when it is ready. `patience`: how
    /// long an answer may take.
    pub(super) fn ask(
        &mut self,
        (api, body): (Api, &[u8]),
        patience: Duration,
        settings: &SideSettings,
        now: Instant,
    ) -> Result<(), Failure> {
        let Stage::Up { link, answer_by, .. } = &mut self.stage else { return Ok(()) };
        *answer_by = Some(now + patience);
        link.ask(api, body).map_err(|failure| self.hang_up(failure, settings, now))
    }

    /// Memory of an answer, for the next one.
    pub(super) fn give_back(&mut self, body: Body) {
        if let Stage::Up { link, .. } = &mut self.stage {
            link.give_back(body);
        }
    }

    /// When there is something to do even if the socket keeps still.
    pub(super) fn next_time(&self) -> Option<Instant> {
        match &self.stage {
            Stage::Down => None,
            Stage::Pause(until) => Some(*until),
            Stage::Up { link, open_by, .. } if !link.is_open() => Some(*open_by),
            Stage::Up { answer_by, .. } => *answer_by,
        }
    }
}
