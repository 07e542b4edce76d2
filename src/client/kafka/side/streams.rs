//! A member's conversation with the coordinator of its streams group: one kind of request, one after the other.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mio::Token;

use super::lane::{Lane, Outcome};
use super::requests::Request;
use super::security::SideSettings;
use super::sockets::Sockets;
use super::{Failure, heartbeat};
use crate::error::Result;
use crate::membership::classic::protocol::GroupCoordinator;
use crate::membership::streams::protocol::{Heard, Heartbeat, HeartbeatAnswer, StreamsError};

const LANE: Token = Token(0);

/// Heartbeats that wait for the one before them. A member sends one at a time; more than these are not sent at all.
const QUEUED_MAX: usize = 8;

/// Sessions last 45 s at least: there is time for some heartbeats on new connections before that.
const PATIENCE_MAX: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub(in crate::client::kafka) struct SideStreams {
    lane: Lane,
    queue: VecDeque<Heartbeat>,
    answers: VecDeque<HeartbeatAnswer>,
    patience: Duration,
    sockets: Sockets,
}

impl SideStreams {
    /// Connects with the first request.
    ///
    /// # Errors
    /// `Unavailable` when the system gives nothing to wait with.
    pub(in crate::client::kafka) fn new(settings: SideSettings, group: &str, client_id: &str) -> Result<SideStreams> {
        let sockets = Sockets::new(group)?;
        let patience = settings.request_timeout.min(PATIENCE_MAX);
        let lane = Lane::new(Arc::new(settings), &Arc::from(group), &Arc::from(client_id), LANE);
        Ok(SideStreams { lane, queue: VecDeque::new(), answers: VecDeque::new(), patience, sockets })
    }

    /// Drives the connection; answers are put aside.
    fn step(&mut self, now: Instant) {
        loop {
            if let Some(outcome) = self.lane.step(now, self.sockets.registry()) {
                let answer = heard(&mut self.lane, outcome, now);
                self.answers.extend(answer);
                continue;
            }
            if self.lane.is_busy() {
                return;
            }
            let Some(beat) = self.queue.pop_front() else { return };
            self.lane.start(Request::Streams(Box::new(beat)), now + self.patience);
        }
    }
}

/// What a member is told; nothing when the heartbeat is sent again.
fn heard(lane: &mut Lane, outcome: Outcome, now: Instant) -> Option<HeartbeatAnswer> {
    let number_of = |request: &Request| match request {
        Request::Streams(beat) => Some(beat.number),
        Request::Group(_)
        | Request::OffsetFetch(..)
        | Request::OffsetCommit(..)
        | Request::InitProducerId(_)
        | Request::Ending(_)
        | Request::Outside(_) => None,
    };
    match outcome {
        Outcome::Answer { errand, body, .. } => {
            let number = number_of(&errand.request)?;
            let heard = match heartbeat::decode(&body) {
                Ok(Ok(heard)) => heard,
                Ok(Err((code, _))) if code.passes() => {
                    lane.again(errand, code, now);
                    return None;
                }
                Ok(Err((code, words))) => {
                    tracing::debug!(%code, words, "the coordinator refuses");
                    Heard::Refused(code.streams_refusal(), words)
                }
                Err(malformed) => {
                    tracing::warn!(%malformed, "the coordinator sent what is no answer to a heartbeat");
                    lane.hang_up(now);
                    Heard::Disconnected
                }
            };
            Some(HeartbeatAnswer { number, heard })
        }
        Outcome::Failed { request, failure } => {
            let heard = match failure {
                Failure::Denied(words) => Heard::Refused(StreamsError::Denied, words),
                Failure::Lost(reason) => {
                    tracing::debug!(%reason, "no answer of the coordinator");
                    Heard::Disconnected
                }
            };
            Some(HeartbeatAnswer { number: number_of(&request)?, heard })
        }
    }
}

impl GroupCoordinator<Heartbeat, HeartbeatAnswer> for SideStreams {
    fn send(&mut self, beat: Heartbeat) {
        if self.queue.len() < QUEUED_MAX {
            self.queue.push_back(beat);
        } else {
            self.answers.push_back(HeartbeatAnswer { number: beat.number, heard: Heard::Disconnected });
        }
        self.step(super::now());
    }

    fn poll(&mut self) -> Option<HeartbeatAnswer> {
        if self.answers.is_empty() {
            self.step(super::now());
        }
        self.answers.pop_front()
    }

    fn wait(&mut self, timeout: Duration) {
        let now = super::now();
        self.step(now);
        if self.answers.is_empty() {
            self.sockets.wait(std::slice::from_ref(&self.lane), timeout, now);
        }
    }

    fn waker(&self) -> Arc<dyn Fn() + Send + Sync> {
        self.sockets.waker()
    }
}
