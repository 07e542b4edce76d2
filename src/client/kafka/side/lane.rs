//! One request at a time to a coordinator: finding it, connecting, and trying again, until there is an answer or the time
//! is over. Nothing here blocks, and time is an argument.
//!
//! ```text
//!   Down ──connect──> Up ──open──> coordinator known? ──no──> Metadata at times, FindCoordinator ──elsewhere──> Down
//!    ^ ^               │                  └─yes─> request ──> answer
//!    │ └──── Pause <───┴── lost
//! ```

use std::collections::VecDeque;
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::sync::Arc;
use std::time::{Duration, Instant};

use mio::{Registry, Token};

use super::Failure;
use super::code::Code;
use super::link::{Body, Link, Progress};
use super::requests::{self, Api, Request};
use super::responses;
use super::security::{Address, Family, SideSettings};

/// The pause before a request that the coordinator could not take yet is sent again; it doubles each time.
const AGAIN_PAUSE: Duration = Duration::from_millis(5);

/// How often it is asked which brokers there are, when the coordinator has to be found anyway; and how many are kept.
const LEARNED_FOR: Duration = Duration::from_secs(300);
const LEARNED_MAX: usize = 32;

/// A request on its way, until its time is over.
#[derive(Debug)]
pub(super) struct Errand {
    pub(super) request: Request,
    pub(super) deadline: Instant,
    /// It is not sent before, if given.
    not_before: Option<Instant>,
    /// How often the coordinator could not take it yet.
    tries: u32,
    phase: Phase,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Unsent,
    /// Asked which brokers there are.
    Learning,
    /// Asked where the coordinator is.
    Finding,
    Sent(i16),
}

/// What became of a request.
#[derive(Debug)]
pub(super) enum Outcome {
    Answer {
        errand: Errand,
        version: i16,
        body: Body,
    },
    /// It may have arrived or not; if the failure is a denial, it has not.
    Failed {
        request: Request,
        failure: Failure,
    },
}

#[derive(Debug)]
enum Stage {
    Down,
    Pause(Instant),
    Up {
        link: Box<Link>,
        peer: Address,
        open_by: Instant,
        /// Whether it has answered a request.
        served: bool,
    },
}

/// What a look at the lane came to.
enum Step {
    On,
    Wait,
    Done(Box<Outcome>),
}

#[derive(Debug)]
pub(super) struct Lane {
    settings: Arc<SideSettings>,
    group: Arc<str>,
    client_id: Arc<str>,
    token: Token,
    stage: Stage,
    /// Addresses of the host looked up last that have not been tried.
    untried: VecDeque<(Address, SocketAddr)>,
    /// Where the coordinator is, as far as known.
    coordinator: Option<Address>,
    /// `coordinator` is the broker that the request names, whoever it coordinates.
    is_of_broker: bool,
    /// The transactional id that `coordinator` is for; none: the group.
    coordinates: Option<String>,
    /// Brokers that were there when last asked, besides the bootstrap servers: those may be gone by now.
    learned: Vec<Address>,
    /// Until when nobody is asked again which brokers there are.
    learned_until: Option<Instant>,
    /// Which of the bootstrap servers and the learned ones is next.
    next_server: usize,
    /// Servers that could not be reached since the last one that could.
    failures: usize,
    errand: Option<Errand>,
    last_failure: Option<Failure>,
}

impl Lane {
    pub(super) fn new(settings: Arc<SideSettings>, group: &Arc<str>, client_id: &Arc<str>, token: Token) -> Lane {
        // Not everybody begins with the first one.
        let next_server = usize::try_from(random() >> 1).unwrap_or(0) % settings.bootstrap.len().max(1);
        Lane {
            settings,
            group: Arc::clone(group),
            client_id: Arc::clone(client_id),
            token,
            stage: Stage::Down,
            untried: VecDeque::new(),
            coordinator: None,
            is_of_broker: false,
            coordinates: None,
            learned: Vec::new(),
            learned_until: None,
            next_server,
            failures: 0,
            errand: None,
            last_failure: None,
        }
    }

    /// Another one, on a connection of its own.
    pub(super) fn beside(&self, token: Token) -> Lane {
        Lane::new(Arc::clone(&self.settings), &self.group, &self.client_id, token)
    }

    pub(super) fn is_busy(&self) -> bool {
        self.errand.is_some()
    }

    /// Begins a request. To be called when not busy.
    pub(super) fn start(&mut self, request: Request, deadline: Instant) {
        let coordinates = request.transactional_id().map(str::to_owned);
        if self.coordinates != coordinates {
            self.coordinates = coordinates;
            self.coordinator = None;
        }
        if request.broker().is_some() || self.is_of_broker {
            self.coordinator = request.broker().cloned();
        }
        self.is_of_broker = request.broker().is_some();
        self.last_failure = None;
        self.errand = Some(Errand { request, deadline, not_before: None, tries: 0, phase: Phase::Unsent });
    }

    /// Sends a request again that the coordinator could not take yet because of `code`.
    pub(super) fn again(&mut self, errand: Errand, code: Code, now: Instant) {
        let pause = AGAIN_PAUSE.saturating_mul(1 << errand.tries.min(10)).min(self.settings.backoff_max);
        self.again_after(errand, code, jittered(pause), now);
    }

    /// The same, after a pause that the caller knows better.
    pub(super) fn again_after(&mut self, mut errand: Errand, code: Code, pause: Duration, now: Instant) {
        if code.is_elsewhere() {
            self.coordinator = errand.request.broker().cloned();
        }
        self.last_failure = Some(Failure::Lost(format!("the coordinator cannot take it: {code}")));
        errand.tries = errand.tries.saturating_add(1);
        errand.phase = Phase::Unsent;
        errand.not_before = now.checked_add(pause);
        self.errand = Some(errand);
    }

    /// Closes the connection, because what comes on it is not to be trusted.
    pub(super) fn hang_up(&mut self, now: Instant) {
        self.stage = Stage::Pause(now + jittered(self.settings.backoff_min));
    }

    /// When there is something to do even if the socket keeps still.
    pub(super) fn next_time(&self) -> Option<Instant> {
        let errand = self.errand.as_ref()?;
        let stage = match &self.stage {
            Stage::Down => errand.not_before,
            Stage::Pause(until) => Some(*until),
            Stage::Up { link, open_by, .. } if !link.is_open() => Some(*open_by),
            Stage::Up { .. } if errand.phase == Phase::Unsent => errand.not_before,
            Stage::Up { .. } => None,
        };
        Some(stage.map_or(errand.deadline, |time| time.min(errand.deadline)))
    }

    /// Does what can be done now.
    pub(super) fn step(&mut self, now: Instant, registry: &Registry) -> Option<Outcome> {
        loop {
            if self.errand.as_ref().is_some_and(|errand| now >= errand.deadline) {
                return self.expire();
            }
            let step = self.advance(now, registry).unwrap_or_else(|failure| self.lost(failure, now));
            match step {
                Step::On => {}
                Step::Wait => return None,
                Step::Done(outcome) => return Some(*outcome),
            }
        }
    }

    fn advance(&mut self, now: Instant, registry: &Registry) -> Result<Step, Failure> {
        match &mut self.stage {
            Stage::Down if self.errand.is_none() => Ok(Step::Wait),
            Stage::Pause(until) if now < *until => Ok(Step::Wait),
            Stage::Down | Stage::Pause(_) => self.connect(now, registry),
            Stage::Up { link, peer, open_by, .. } => match link.drive(now).map_err(|failure| failure.at(peer))? {
                Progress::Waiting if !link.is_open() && now >= *open_by => {
                    Err(Failure::Lost("no answer to a new connection".to_owned()).at(peer))
                }
                Progress::Waiting => Ok(Step::Wait),
                Progress::Idle => self.idle(now),
                Progress::Answer(body) => self.answered(body),
            },
        }
    }

    /// Begins to connect to the coordinator, or to any broker that knows it.
    fn connect(&mut self, now: Instant, registry: &Registry) -> Result<Step, Failure> {
        self.stage = Stage::Down;
        if self.untried.is_empty() {
            self.untried = self.look_up()?;
        }
        let Some((peer, address)) = self.untried.pop_front() else { return Ok(Step::On) };
        let at = (registry, self.token);
        let link = Link::connect(address, &peer.host, &self.settings.security, &self.client_id, at, now)
            .map_err(|failure| failure.at(&peer))?;
        tracing::debug!(group = %self.group, %peer, %address, "connecting");
        let open_by = now + self.settings.connect_timeout;
        self.stage = Stage::Up { link: Box::new(link), peer, open_by, served: false };
        Ok(Step::On)
    }

    fn look_up(&mut self) -> Result<VecDeque<(Address, SocketAddr)>, Failure> {
        let address = match &self.coordinator {
            Some(coordinator) => coordinator.clone(),
            None => {
                let servers = self.settings.bootstrap.iter().chain(&self.learned);
                let server = servers.cycle().nth(self.next_server % self.servers().max(1));
                self.next_server = self.next_server.wrapping_add(1);
                server.cloned().ok_or_else(|| Failure::Denied("bootstrap.servers names no broker".to_owned()))?
            }
        };
        let found = look_up(&address, self.settings.family)?;
        Ok(found.into_iter().map(|found| (address.clone(), found)).collect())
    }

    /// The connection is open, and nothing is asked on it.
    fn idle(&mut self, now: Instant) -> Result<Step, Failure> {
        self.untried.clear();
        let (Some(errand), Stage::Up { link, peer, .. }) = (&mut self.errand, &mut self.stage) else {
            return Ok(Step::Wait);
        };
        if errand.not_before.is_some_and(|time| now < time) {
            return Ok(Step::Wait);
        }
        if link.is_stale(now) {
            self.stage = Stage::Down;
            return Ok(Step::On);
        }
        let has_learned = self.learned_until.is_some_and(|until| now < until) || !link.knows(Api::Metadata);
        errand.phase = match &self.coordinator {
            None if !has_learned => {
                self.learned_until = now.checked_add(LEARNED_FOR);
                link.ask(Api::Metadata, &requests::metadata()).map_err(|failure| failure.at(peer))?;
                Phase::Learning
            }
            None => {
                let body = requests::find_coordinator(&errand.request, &self.group);
                link.ask(Api::FindCoordinator, &body).map_err(|failure| failure.at(peer))?;
                Phase::Finding
            }
            Some(coordinator) if coordinator == peer => {
                Phase::Sent(link.send(&errand.request, &self.group).map_err(|failure| failure.at(peer))?)
            }
            Some(_) => {
                self.stage = Stage::Down;
                return Ok(Step::On);
            }
        };
        Ok(Step::On)
    }

    fn answered(&mut self, body: Body) -> Result<Step, Failure> {
        let Some(mut errand) = self.errand.take() else {
            return Err(Failure::Lost("it answers what was not asked".to_owned()));
        };
        // Not before: a broker that takes connections and no requests would be asked without a pause.
        self.failures = 0;
        if let Stage::Up { served, .. } = &mut self.stage {
            *served = true;
        }
        if let Phase::Sent(version) = errand.phase {
            return Ok(Step::Done(Box::new(Outcome::Answer { errand, version, body })));
        }
        let was_learning = errand.phase == Phase::Learning;
        errand.phase = Phase::Unsent;
        if was_learning {
            match responses::metadata(&body) {
                Ok(brokers) => self.learn(brokers),
                // Not worth the connection: the bootstrap servers are there as well.
                Err(malformed) => {
                    tracing::debug!(group = %self.group, %malformed, "the list of brokers cannot be read")
                }
            }
            self.errand = Some(errand);
            return Ok(Step::On);
        }
        let found = responses::find_coordinator(&body);
        let now = super::now();
        match found {
            Ok((Code::NONE, host, port)) => {
                self.coordinator = Some(Address { host, port });
                self.errand = Some(errand);
                Ok(Step::On)
            }
            Ok((code, ..)) => match code.denial() {
                Some(text) => {
                    let failure = Failure::Denied(format!("could not find the coordinator: {text}"));
                    Ok(Step::Done(Box::new(Outcome::Failed { request: errand.request, failure })))
                }
                // COORDINATOR_NOT_AVAILABLE for some time on a new cluster: its log of offsets is being made.
                None => {
                    self.again(errand, code, now);
                    Ok(Step::On)
                }
            },
            Err(malformed) => {
                self.errand = Some(errand);
                Err(Failure::malformed(malformed))
            }
        }
    }

    fn learn(&mut self, brokers: Vec<(String, u16)>) {
        let brokers = brokers.into_iter().map(|(host, port)| Address { host, port });
        let others = brokers.filter(|broker| !self.settings.bootstrap.contains(broker));
        self.learned = others.take(LEARNED_MAX).collect();
    }

    /// The connection is gone, or was never made.
    fn lost(&mut self, failure: Failure, now: Instant) -> Step {
        let was_open = matches!(&self.stage, Stage::Up { link, .. } if link.is_open());
        let was_idle = matches!(&self.stage, Stage::Up { served: true, .. });
        self.stage = Stage::Down;
        let Some(mut errand) = self.errand.take() else { return Step::Wait };
        let denied = matches!(failure, Failure::Denied(_));
        if was_idle && errand.phase == Phase::Unsent && !denied {
            // Brokers close what has been idle for ten minutes: it says nothing about the coordinator.
            self.errand = Some(errand);
            return Step::On;
        }
        if was_open || denied || self.untried.is_empty() {
            self.untried.clear();
            self.failures = self.failures.saturating_add(1);
            self.stage = Stage::Pause(now + self.pause());
            if self.failures == self.servers() && !denied {
                tracing::warn!(group = %self.group, %failure, "no connection to the coordinator; trying on");
            }
        }
        // Whoever coordinated may be down: any broker knows where it has gone.
        self.coordinator = errand.request.broker().cloned();
        if denied || matches!(errand.phase, Phase::Sent(_)) {
            return Step::Done(Box::new(Outcome::Failed { request: errand.request, failure }));
        }
        tracing::debug!(group = %self.group, %failure, "a side connection is lost");
        self.last_failure = Some(failure);
        errand.phase = Phase::Unsent;
        self.errand = Some(errand);
        Step::On
    }

    fn servers(&self) -> usize {
        self.settings.bootstrap.len() + self.learned.len()
    }

    /// None until every server has been tried once.
    fn pause(&self) -> Duration {
        match self.failures.checked_sub(self.servers()) {
            None => Duration::ZERO,
            Some(rounds) => {
                let pause = self.settings.backoff_min.saturating_mul(1 << rounds.min(16));
                jittered(pause.min(self.settings.backoff_max))
            }
        }
    }

    /// The time of the request is over.
    fn expire(&mut self) -> Option<Outcome> {
        let errand = self.errand.take()?;
        if errand.phase != Phase::Unsent {
            // Its answer may still come, and would be taken for the next one's.
            self.stage = Stage::Down;
            self.coordinator = None;
        }
        let failure = self.last_failure.take();
        let failure = failure.unwrap_or_else(|| Failure::Lost("the broker did not answer in time".to_owned()));
        Some(Outcome::Failed { request: errand.request, failure })
    }
}

/// The addresses of a host, of the wanted kind; there is at least one. Blocks as long as the system takes for it.
pub(super) fn look_up(address: &Address, family: Family) -> Result<VecDeque<SocketAddr>, Failure> {
    let found = (address.host.as_str(), address.port).to_socket_addrs();
    let found = found.map_err(|error| Failure::lost("could not look up the name", &error).at(address))?;
    let fits = |found: &SocketAddr| match family {
        Family::Any => true,
        Family::V4 => found.is_ipv4(),
        Family::V6 => found.is_ipv6(),
    };
    let found: VecDeque<_> = found.filter(fits).collect();
    if found.is_empty() {
        let text = "its name has no address of the family that broker.address.family wants";
        return Err(Failure::Lost(text.to_owned()).at(address));
    }
    Ok(found)
}

pub(super) fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}

/// Between 80 and 120 per cent of it, so that not everybody comes at the same time.
pub(super) fn jittered(pause: Duration) -> Duration {
    let percent = u32::try_from(80 + random() % 41).unwrap_or(100);
    pause.saturating_mul(percent) / 100
}
