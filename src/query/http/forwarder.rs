//! The way of a request to the instance that has its key.
//!
//! ```text
//!   request ── is the partition at work here? ── yes ──> the handler
//!                 │ no
//!                 ├── came from another instance ──> 421 not_owner, with the version of the table
//!                 └── table says who ── one hop ──> its answer
//!                        ^                 │ not_owner, not_ready, unreachable
//!                        └──── pause ──────┘ until the deadline
//! ```

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, Request, Response, StatusCode};
use tokio::time::{Instant, sleep};

use super::headers;
use super::limits::HttpLimits;
use super::peer::Peer;
use super::problem::{Problem, ProblemCode};
use crate::config::HostInfo;
use crate::error::ErrorKind;
use crate::partition::partition_for_key;
use crate::query::{RawPartition, RawRole};
use crate::runtime::{Placement, State, StreamsView};

/// Between two looks at a partition that moves.
const PAUSE: Duration = Duration::from_millis(5);
const PAUSE_MAX: Duration = Duration::from_millis(100);

/// Sends requests to the instances that have their keys: what the query server does with its own, for handlers of a
/// service. From [`QueryServer::forwarder`](crate::QueryServer::forwarder); cheap to clone.
///
/// # Examples
/// A handler that is mounted at the same path in all instances:
/// ```no_run
/// use axum::body::{Body, Bytes};
/// use axum::http::{Request, Response};
/// use kstreams::{Forwarder, Problem};
///
/// async fn order(forwarder: Forwarder, id: String, request: Request<Bytes>) -> Result<Response<Body>, Problem> {
///     let here = |_partition| async { Ok(Response::new(Body::from("what this instance knows of the order"))) };
///     forwarder.at_owner("orders", id.as_bytes(), &request, here).await
/// }
/// ```
#[derive(Clone)]
pub struct Forwarder {
    parts: Arc<Parts>,
}

struct Parts {
    view: StreamsView,
    peer: Peer,
    limits: HttpLimits,
}

/// Where the row of a key is.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Owner {
    /// At work on this instance: the partition, none of a global store.
    Here(Option<i32>),
    /// On another instance.
    At(HostInfo),
    /// It moves, or is being restored: ask again.
    Nobody,
}

impl Forwarder {
    pub(super) fn new(view: StreamsView, limits: HttpLimits, peer: Peer) -> Forwarder {
        Forwarder { parts: Arc::new(Parts { view, peer, limits }) }
    }

    pub(super) fn view(&self) -> &StreamsView {
        &self.parts.view
    }

    pub(super) fn limits(&self) -> &HttpLimits {
        &self.parts.limits
    }

    /// Who has a store.
    ///
    /// # Errors
    /// `NoSuchStore`, `ShuttingDown`, `NotReady` before the start.
    pub(super) fn placement(&self, store: &str) -> Result<Placement, Problem> {
        match self.view().state() {
            State::Created | State::Rebalancing | State::Running => {}
            State::PendingShutdown | State::NotRunning | State::PendingError | State::Error => {
                let detail = "this instance is closing or closed: ask another one";
                return Err(Problem::new(ProblemCode::ShuttingDown, detail));
            }
        }
        self.view().placement(store).map_err(|error| {
            let is_unknown = error.kind() == ErrorKind::Invalid;
            let code = if is_unknown { ProblemCode::NoSuchStore } else { ProblemCode::NotReady };
            Problem::new(code, error.report())
        })
    }

    /// The partition of a key of which only the bytes are known; none of a global store.
    pub(super) fn partition(placement: &Placement, key: &[u8]) -> Option<i32> {
        let partitions = i32::try_from(placement.partitions.len()).unwrap_or(i32::MAX);
        (!placement.is_global).then(|| partition_for_key(key, partitions))
    }

    /// Who has a partition, as far as this instance knows.
    pub(super) fn owner_of_partition(&self, store: &str, placement: &Placement, partition: Option<i32>) -> Owner {
        let Some(number) = partition else { return Owner::Here(None) };
        if self.here(store, partition).is_some_and(|here| here.role == RawRole::Active) {
            return Owner::Here(partition);
        }
        let owners = usize::try_from(number).ok().and_then(|number| placement.partitions.get(number));
        match owners.and_then(|owners| owners.active.as_ref()) {
            Some(host) if Some(host) != self.view().own() => Owner::At(host.clone()),
            Some(_) | None => Owner::Nobody,
        }
    }

    /// What this instance has of a partition, whatever it is good for.
    pub(super) fn here(&self, store: &str, partition: Option<i32>) -> Option<RawPartition> {
        let partitions = self.view().stores().open(store).ok()?.partitions();
        partitions.into_iter().find(|here| partition.is_none_or(|own| own == here.partition))
    }

    /// Who has the row of a key: of bytes that the store's key serde has written, of a store whose records are partitioned
    /// as Kafka's clients do it.
    ///
    /// # Errors
    /// `NoSuchStore`, `ShuttingDown`, `NotReady` before the start.
    pub fn owner(&self, store: &str, key: &[u8]) -> Result<Owner, Problem> {
        let placement = self.placement(store)?;
        Ok(self.owner_of_partition(store, &placement, Forwarder::partition(&placement, key)))
    }

    /// Answers a request where the row of a key is: by `here`, which is given the partition, if that is this instance,
    /// otherwise by sending it on, with the same path, headers and body. While the partition moves, and when `here` fails
    /// with `NotReady` or `NotOwner`, it is tried again until the deadline of the request, so a request may come to its
    /// owner more than once: it has to bear that. Of a request that was sent here, nothing is sent on.
    ///
    /// The path of the request is the one that the others listen at: in a router that is nested, axum's `OriginalUri`.
    ///
    /// # Errors
    /// Those of `here`; the last one that a place was refused for when the time is over.
    pub async fn at_owner<F>(
        &self,
        store: &str,
        key: &[u8],
        request: &Request<Bytes>,
        here: impl Fn(Option<i32>) -> F,
    ) -> Result<Response<Body>, Problem>
    where
        F: Future<Output = Result<Response<Body>, Problem>>,
    {
        let deadline = self.deadline(request.headers())?;
        self.answered(store, |placement| Ok(Forwarder::partition(placement, key)), request, deadline, here).await
    }

    pub(super) async fn answered<F>(
        &self,
        store: &str,
        partition: impl Fn(&Placement) -> Result<Option<i32>, Problem>,
        request: &Request<Bytes>,
        deadline: Instant,
        here: impl Fn(Option<i32>) -> F,
    ) -> Result<Response<Body>, Problem>
    where
        F: Future<Output = Result<Response<Body>, Problem>>,
    {
        let is_sent = request.headers().contains_key(headers::HOP);
        let mut pause = PAUSE;
        loop {
            let placement = self.placement(store)?;
            let partition = partition(&placement)?;
            let refused = match self.owner_of_partition(store, &placement, partition) {
                Owner::Here(partition) => match here(partition).await {
                    Err(problem) if problem.code().is_about_place() && !is_sent => problem,
                    done => return done,
                },
                Owner::At(_) | Owner::Nobody if is_sent => return Err(not_owner(store, &placement, partition)),
                Owner::At(host) => match self.send(&host, request, deadline).await {
                    Ok(answer) => match Problem::of_answer(&answer) {
                        Some(code) if code.is_about_place() => {
                            Problem::new(code, format!("{host} has refused a request for store {store}: ask again"))
                        }
                        _ => return Ok(answer.map(Body::from)),
                    },
                    Err(problem) => problem,
                },
                Owner::Nobody => not_ready(store, partition),
            };
            if Instant::now() + pause >= deadline {
                // Not being the owner is nothing to a client, for whom there is one.
                let is_place = refused.code() == ProblemCode::NotOwner;
                return Err(if is_place { not_ready(store, partition) } else { refused });
            }
            sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    /// One hop: the other one answers, or says that it is not the one.
    ///
    /// # Errors
    /// `Unreachable`, `DeadlineExceeded`.
    pub async fn send(
        &self,
        host: &HostInfo,
        request: &Request<Bytes>,
        deadline: Instant,
    ) -> Result<Response<Bytes>, Problem> {
        let mut sent = request.clone();
        *sent.headers_mut() = headers::end_to_end(request.headers());
        let own = self.view().own().map_or_else(|| "unknown".to_owned(), ToString::to_string);
        headers::set(sent.headers_mut(), headers::HOP, &own);
        let left = deadline.saturating_duration_since(Instant::now());
        headers::set(sent.headers_mut(), headers::TIMEOUT_MS, &left.as_millis().max(1).to_string());
        let mut answer = self.parts.peer.send(host, sent, deadline).await?;
        *answer.headers_mut() = headers::end_to_end(answer.headers());
        if answer.status() == StatusCode::SERVICE_UNAVAILABLE && !answer.headers().contains_key(headers::PROBLEM) {
            return Err(Problem::new(ProblemCode::Unreachable, format!("{host} is not available")));
        }
        Ok(answer)
    }

    /// Until when a request may be answered: `x-kstreams-timeout-ms`, within the bounds of this server.
    ///
    /// # Errors
    /// `MalformedRequest`: it is no number.
    pub fn deadline(&self, fields: &HeaderMap) -> Result<Instant, Problem> {
        let limits = self.limits();
        let said = fields.get(headers::TIMEOUT_MS).map(|value| {
            let ms = value.to_str().ok().and_then(|text| text.trim().parse().ok());
            ms.map(Duration::from_millis).ok_or_else(|| Problem::malformed("x-kstreams-timeout-ms is no number of ms"))
        });
        Ok(Instant::now() + said.transpose()?.unwrap_or(limits.timeout).min(limits.timeout_max))
    }
}

fn not_owner(store: &str, placement: &Placement, partition: Option<i32>) -> Problem {
    let number = partition.unwrap_or_default();
    let detail =
        format!("partition {number} of store {store} is not at work on this instance: look for its owner again");
    Problem::new(ProblemCode::NotOwner, detail).with_header(headers::ROUTING, &placement.version.to_string())
}

fn not_ready(store: &str, partition: Option<i32>) -> Problem {
    let number = partition.unwrap_or_default();
    let detail = format!("partition {number} of store {store} is moving or being restored: ask again");
    Problem::new(ProblemCode::NotReady, detail)
}

impl fmt::Debug for Forwarder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Forwarder").field("own", &self.view().own()).finish_non_exhaustive()
    }
}
