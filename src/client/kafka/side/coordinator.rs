//! A member's conversation with the coordinator of its group.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mio::Token;

use super::Failure;
use super::lane::{Lane, Outcome};
use super::requests::{Request, kind};
use super::responses;
use super::security::SideSettings;
use super::sockets::Sockets;
use crate::error::Result;
use crate::membership::classic::protocol::{GroupAnswer, GroupCoordinator, GroupError, GroupRequest, RequestKind};

const SLOW: usize = 0;
const QUICK: usize = 1;

/// Requests that wait for the one before them. A member sends one at a time; more than these are not sent at all.
const QUEUED_MAX: usize = 8;

/// A coordinator waits for the members as long as the rebalance timeout, and its answer may take a little longer.
const JOIN_GRACE: Duration = Duration::from_secs(5);

/// What a waiting request holds back goes on a connection of its own: joins and syncs on one, heartbeats and the leave on
/// the other.
#[derive(Debug)]
pub(in crate::client::kafka) struct SideCoordinator {
    settings: Arc<SideSettings>,
    lanes: [Lane; 2],
    queues: [VecDeque<GroupRequest>; 2],
    answers: VecDeque<GroupAnswer>,
    /// Of the last join.
    session_timeout: Duration,
    rebalance_timeout: Duration,
    sockets: Sockets,
}

impl SideCoordinator {
    /// Connects with the first request.
    ///
    /// # Errors
    /// `Unavailable` when the system gives nothing to wait with.
    pub(in crate::client::kafka) fn new(
        settings: SideSettings,
        group: &str,
        client_id: &str,
    ) -> Result<SideCoordinator> {
        let sockets = Sockets::new(group)?;
        let (settings, group, client_id) = (Arc::new(settings), Arc::from(group), Arc::from(client_id));
        let lane = |place| Lane::new(Arc::clone(&settings), &group, &client_id, Token(place));
        Ok(SideCoordinator {
            lanes: [lane(SLOW), lane(QUICK)],
            queues: Default::default(),
            answers: VecDeque::new(),
            session_timeout: settings.request_timeout,
            rebalance_timeout: settings.request_timeout,
            sockets,
            settings,
        })
    }

    /// How long the answer to a request may take.
    fn patience(&self, request: RequestKind) -> Duration {
        let usual = self.settings.request_timeout;
        match request {
            RequestKind::Join | RequestKind::Sync => usual.max(self.rebalance_timeout + JOIN_GRACE),
            // Sent again on a new connection while the session still lasts.
            RequestKind::Heartbeat => usual.min(self.session_timeout / 2),
            RequestKind::Leave => usual,
        }
    }

    /// Drives the connections; answers are put aside.
    fn step(&mut self, now: Instant) {
        for place in [SLOW, QUICK] {
            while let Some(lane) = self.lanes.get_mut(place) {
                if let Some(outcome) = lane.step(now, self.sockets.registry()) {
                    let answer = heard(lane, outcome, now);
                    self.answers.extend(answer);
                    continue;
                }
                if lane.is_busy() {
                    break;
                }
                let Some(request) = self.queues.get_mut(place).and_then(VecDeque::pop_front) else { break };
                self.start(place, request, now);
            }
        }
    }

    fn start(&mut self, place: usize, request: GroupRequest, now: Instant) {
        if let GroupRequest::Join { session_timeout, rebalance_timeout, .. } = &request {
            (self.session_timeout, self.rebalance_timeout) = (*session_timeout, *rebalance_timeout);
        }
        let deadline = now + self.patience(kind(&request));
        if let Some(lane) = self.lanes.get_mut(place) {
            lane.start(Request::Group(request), deadline);
        }
    }
}

/// What a member is told; nothing when the request is sent again.
fn heard(lane: &mut Lane, outcome: Outcome, now: Instant) -> Option<GroupAnswer> {
    let asked = |request: &Request| match request {
        Request::Group(request) => Some(kind(request)),
        Request::Streams(_)
        | Request::OffsetFetch(..)
        | Request::OffsetCommit(..)
        | Request::InitProducerId(_)
        | Request::Ending(_)
        | Request::Outside(_) => None,
    };
    match outcome {
        Outcome::Answer { errand, version, body } => {
            let request = asked(&errand.request)?;
            match responses::group(request, version, &body) {
                Ok(Ok(answer)) => Some(answer),
                Ok(Err((code, _))) if code.passes() => {
                    lane.again(errand, code, now);
                    None
                }
                Ok(Err((code, member))) => {
                    tracing::debug!(?request, %code, "the coordinator refuses");
                    Some(GroupAnswer::Refused { request, error: code.refusal(&member) })
                }
                Err(malformed) => {
                    tracing::warn!(?request, %malformed, "the coordinator sent what is no answer");
                    lane.hang_up(now);
                    Some(GroupAnswer::Disconnected(request))
                }
            }
        }
        Outcome::Failed { request, failure } => {
            let request = asked(&request)?;
            Some(match failure {
                Failure::Denied(text) => GroupAnswer::Refused { request, error: GroupError::Denied(text) },
                Failure::Lost(reason) => {
                    tracing::debug!(?request, %reason, "no answer of the coordinator");
                    GroupAnswer::Disconnected(request)
                }
            })
        }
    }
}

impl GroupCoordinator for SideCoordinator {
    fn send(&mut self, request: GroupRequest) {
        let place = match kind(&request) {
            RequestKind::Join | RequestKind::Sync => SLOW,
            RequestKind::Heartbeat | RequestKind::Leave => QUICK,
        };
        match self.queues.get_mut(place) {
            Some(queue) if queue.len() < QUEUED_MAX => queue.push_back(request),
            _ => self.answers.push_back(GroupAnswer::Disconnected(kind(&request))),
        }
        self.step(super::now());
    }

    fn poll(&mut self) -> Option<GroupAnswer> {
        if self.answers.is_empty() {
            self.step(super::now());
        }
        self.answers.pop_front()
    }

    fn wait(&mut self, timeout: Duration) {
        let now = super::now();
        self.step(now);
        if self.answers.is_empty() {
            self.sockets.wait(&self.lanes, timeout, now);
        }
    }

    fn waker(&self) -> Arc<dyn Fn() + Send + Sync> {
        self.sockets.waker()
    }
}
