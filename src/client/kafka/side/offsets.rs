//! Committed offsets and fencing, for stream threads: each call waits for its answer.

use std::collections::HashMap;
use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;

use mio::{Events, Poll, Token};

use super::Failure;
use super::code::Code;
use super::lane::{Lane, Outcome};
use super::requests::{Pending, Request};
use super::responses;
use super::security::SideSettings;
use super::settle::Claim;
use crate::client::GroupMetadata;
use crate::client::kafka::REQUEST_TIMEOUT;
use crate::error::{Error, ErrorKind as Kind, Result};
use crate::membership::classic::protocol::GroupOffsets;
use crate::record::{OffsetAndMetadata, TopicPartition};

/// Between two looks at what a transaction is about to decide: 5 to 10 ms after its end, an abort by fencing 2 to 4 ms.
pub(super) const UNDECIDED_PAUSE: Duration = Duration::from_millis(5);
pub(super) const FENCING_PAUSE: Duration = Duration::from_millis(2);

#[derive(Debug)]
pub(in crate::client::kafka) struct SideOffsets {
    pub(super) group: Arc<str>,
    pub(super) lane: Lane,
    poll: Poll,
    events: Events,
    request_timeout: Duration,
    /// How long a call may take with all its requests.
    pub(super) patience: Duration,
}

/// What a caller makes of an answer.
pub(super) enum Verdict<T> {
    Is(T),
    /// The same request, after the pause that fits; why it has to be asked again.
    Again(Code, Option<Duration>),
    /// Refused, and on what.
    Refused(Code, String),
}

impl SideOffsets {
    /// Connects with the first request.
    ///
    /// # Errors
    /// `Unavailable` when the system gives nothing to wait with.
    pub(in crate::client::kafka) fn new(settings: SideSettings, group: &str, client_id: &str) -> Result<SideOffsets> {
        SideOffsets::with_patience(settings, group, client_id, REQUEST_TIMEOUT)
    }

    /// The same, with a time that a call may take with all its requests.
    pub(in crate::client::kafka) fn with_patience(
        settings: SideSettings,
        group: &str,
        client_id: &str,
        patience: Duration,
    ) -> Result<SideOffsets> {
        let poll: Poll = Poll::new().map_err(|error| {
            Error::new(Kind::Unavailable, format!("could not wait for the coordinator of group {group}"))
                .with_source(error)
        })?;
        let (group, client_id): (Arc<str>, Arc<str>) = (Arc::from(group), Arc::from(client_id));
        let request_timeout = settings.request_timeout;
        let lane = Lane::new(Arc::new(settings), &group, &client_id, Token(0));
        Ok(SideOffsets { group, lane, poll, events: Events::with_capacity(4), request_timeout, patience })
    }

    /// Asks until there is an answer that says something, or the time of the whole call is over.
    pub(super) fn call<T>(
        &mut self,
        request: Request,
        doing: &str,
        judge: impl Fn(i16, &[u8]) -> super::codec::Result<Verdict<T>>,
    ) -> Result<T> {
        let end = super::now() + self.patience;
        let mut undecided = None;
        self.lane.start(request, (super::now() + self.request_timeout).min(end));
        loop {
            let (failure, request) = match self.outcome() {
                Outcome::Answer { mut errand, version, body } => match judge(version, &body) {
                    Ok(Verdict::Is(value)) => return Ok(value),
                    Ok(Verdict::Refused(code, on)) => return Err(refused(code, &format!("{doing}{on}"))),
                    Ok(Verdict::Again(code, pause)) => {
                        undecided = Some(code);
                        let now = super::now();
                        errand.deadline = (now + self.request_timeout).min(end);
                        match pause {
                            Some(pause) => self.lane.again_after(errand, code, pause, now),
                            None => self.lane.again(errand, code, now),
                        }
                        continue;
                    }
                    Err(malformed) => {
                        self.lane.hang_up(super::now());
                        (Failure::malformed(malformed), errand.request)
                    }
                },
                Outcome::Failed { request, failure } => (failure, request),
            };
            let now = super::now();
            match failure {
                Failure::Denied(_) => return Err(Error::invalid(format!("could not {doing}")).with_source(failure)),
                Failure::Lost(_) if now >= end => return Err(self.gave_up(doing, undecided, failure)),
                // Every one of these requests may be repeated.
                Failure::Lost(_) => self.lane.start(request, (now + self.request_timeout).min(end)),
            }
        }
    }

    fn gave_up(&self, doing: &str, undecided: Option<Code>, failure: Failure) -> Error {
        let remedy = match undecided {
            Some(Code::UNSTABLE_OFFSET_COMMIT) => {
                ": a transaction that would change them is still open; if it stays so for longer than its timeout, a \
                 broker has forgotten it: find it with kafka-transactions.sh find-hanging, and abort it"
            }
            Some(Code::REBALANCE_IN_PROGRESS) => ": the group is rebalancing",
            _ => ": no broker answers; check the address, whether the brokers run, and security.protocol",
        };
        Error::new(Kind::Unavailable, format!("could not {doing} in group {}{remedy}", self.group)).with_source(failure)
    }

    fn outcome(&mut self) -> Outcome {
        loop {
            let now = super::now();
            if let Some(outcome) = self.lane.step(now, self.poll.registry()) {
                return outcome;
            }
            let timeout = self.lane.next_time().map(|time| time.saturating_duration_since(now));
            if let Err(error) = self.poll.poll(&mut self.events, timeout.or(Some(self.request_timeout)))
                && error.kind() != ErrorKind::Interrupted
            {
                tracing::warn!(%error, "could not wait for a broker");
            }
        }
    }
}

fn refused(code: Code, doing: &str) -> Error {
    let context = match code.denial() {
        Some(remedy) => format!("could not {doing}: {remedy}"),
        None => format!("could not {doing}"),
    };
    Error::new(code.kind(), context).with_source(Failure::Denied(code.to_string()))
}

impl SideOffsets {
    fn fetch(&mut self, partitions: &[TopicPartition], pending: Pending) -> Result<Vec<Option<OffsetAndMetadata>>> {
        if partitions.is_empty() {
            return Ok(Vec::new());
        }
        let judge = |version, body: &[u8]| {
            let (error, mut fetched) = responses::offset_fetch(version, body)?;
            if error != Code::NONE {
                return Ok(judged(error, String::new()));
            }
            Ok(committed_of(partitions, &mut fetched))
        };
        self.call(Request::OffsetFetch(partitions.to_vec(), pending), "ask for committed offsets", judge)
    }
}

impl GroupOffsets for SideOffsets {
    fn committed(&mut self, partitions: &[TopicPartition]) -> Result<Vec<Option<OffsetAndMetadata>>> {
        self.fetch(partitions, Pending::Refused)
    }

    fn committed_so_far(&mut self, partitions: &[TopicPartition]) -> Result<Vec<Option<OffsetAndMetadata>>> {
        self.fetch(partitions, Pending::PassedOver)
    }

    fn commit(&mut self, offsets: &[(TopicPartition, OffsetAndMetadata)], as_member: &GroupMetadata) -> Result<()> {
        if offsets.is_empty() {
            return Ok(());
        }
        let judge = |_, body: &[u8]| {
            let committed = responses::offset_commit(body)?;
            let wrong = committed.into_iter().find(|(_, error)| *error != Code::NONE);
            Ok(match wrong {
                None => Verdict::Is(()),
                // The group has given out the new generation, and not its assignment: soon.
                Some((_, code @ Code::REBALANCE_IN_PROGRESS)) => Verdict::Again(code, Some(UNDECIDED_PAUSE)),
                Some((partition, code)) => judged(code, format!(" of {partition}")),
            })
        };
        self.call(Request::OffsetCommit(offsets.to_vec(), as_member.clone()), "commit offsets", judge)
    }

    fn fence(&mut self, transactional_ids: &[String], outputs: &[Arc<str>]) -> Result<()> {
        transactional_ids.iter().try_for_each(|id| self.settle(id, outputs, Claim::Fence))
    }

    fn fence_the_gone(&mut self, own_process: &str, outputs: &[Arc<str>]) -> Result<()> {
        self.end_what_is_left_open(own_process, outputs)
    }
}

pub(super) fn judged<T>(code: Code, on: String) -> Verdict<T> {
    if code.passes() { Verdict::Again(code, None) } else { Verdict::Refused(code, on) }
}

/// The positions in the order of `partitions`.
fn committed_of(
    partitions: &[TopicPartition],
    fetched: &mut HashMap<TopicPartition, (Code, Option<OffsetAndMetadata>)>,
) -> Verdict<Vec<Option<OffsetAndMetadata>>> {
    let mut positions = Vec::with_capacity(partitions.len());
    for partition in partitions {
        match fetched.remove(partition) {
            Some((Code::NONE, position)) => positions.push(position),
            Some((code @ Code::UNSTABLE_OFFSET_COMMIT, _)) => return Verdict::Again(code, Some(UNDECIDED_PAUSE)),
            // A topic that was just created is not known to every broker.
            Some((code, _)) => return judged(code, format!(" of {partition}")),
            None => return Verdict::Refused(Code::UNKNOWN_SERVER_ERROR, format!(" of {partition}")),
        }
    }
    Verdict::Is(positions)
}
