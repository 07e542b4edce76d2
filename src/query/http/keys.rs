//! Questions about one key: by its owner, or by a copy when that is silent.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use tokio::time::{Instant, sleep};

use super::ask::{Ask, Staleness};
use super::headers;
use super::problem::{Problem, ProblemCode};
use super::routes::Endpoint;
use super::rows;
use super::served::{Lookup, Page, Scope, ServedStore};
use super::site::Site;
use crate::query::{RawKind, RawQuery};

/// How long one copy may take before another one is asked.
const COPY_TIMEOUT: Duration = Duration::from_millis(500);

/// Between two rounds of the copies.
const ROUND_PAUSE: Duration = Duration::from_millis(50);

pub(super) async fn read(site: &Arc<Site>, endpoint: Endpoint, ask: &Ask) -> Result<Response, Problem> {
    let store = site.store(ask)?;
    let key = store.key(ask.text("key").unwrap_or_default(), ask.is_raw())?;
    let lookup = lookup(site, endpoint, ask, store, &key)?;
    let reading = Reading { site, store, ask, lookup: &lookup, endpoint };
    let placement = site.forwarder.placement(&store.name)?;
    let partition = store.partition(&placement, &key)?;
    if let Staleness::Within(behind) = ask.staleness
        && let Some(answer) = reading.copy_here(partition, behind).await
    {
        return Ok(answer);
    }
    let by_owner = site.forwarder.answered(
        &store.name,
        |placement| store.partition(placement, &key),
        &ask.request,
        ask.deadline,
        |partition| reading.here(partition, None),
    );
    let after = site.forwarder.limits().hedge_after.unwrap_or_default();
    let behind = match ask.staleness {
        Staleness::Within(behind) => Some(behind),
        Staleness::Hedge if site.forwarder.limits().hedge_after.is_some() => {
            Some(site.forwarder.limits().hedge_lag_max)
        }
        Staleness::Hedge | Staleness::Never => None,
    };
    // Nobody knows how far a copy is in the inputs, and what was sent here is for this instance.
    let Some(behind) = behind.filter(|_| !ask.is_sent && ask.position.iter().next().is_none()) else {
        return by_owner.await;
    };
    tokio::pin!(by_owner);
    tokio::select! {
        biased;
        answer = &mut by_owner => return answer,
        () = sleep(after) => {}
    }
    tokio::select! {
        biased;
        answer = &mut by_owner => answer,
        answer = reading.copies(partition, behind) => Ok(answer),
    }
}

fn lookup(site: &Site, endpoint: Endpoint, ask: &Ask, store: &ServedStore, key: &[u8]) -> Result<Lookup, Problem> {
    let rows_max = ask.rows_max(&site.forwarder)?;
    let times = (ask.number("from").unwrap_or(0), ask.number("to").unwrap_or(i64::MAX));
    let key = key.to_vec();
    let kind = site.forwarder.view().stores().open(&store.name)?.kind();
    let is_session = kind == RawKind::Session;
    let is_window = matches!(kind, RawKind::Window | RawKind::TimestampedWindow);
    let query = match (endpoint, ask.number("as_of")) {
        (Endpoint::Windows, _) if is_window => RawQuery::FetchRange { key, times, reverse: ask.is_set("reverse") },
        (Endpoint::Sessions, _) if is_session => RawQuery::FetchRange { key, times, reverse: false },
        (Endpoint::Key, Some(time)) => RawQuery::GetAsOf { key, time },
        (Endpoint::Key, None) => RawQuery::Get { key },
        _ => {
            let detail = format!("store {} has no such rows: see /v1/stores for its kind", store.name);
            return Err(Problem::new(ProblemCode::WrongKind, detail));
        }
    };
    Ok(Lookup { query, rows_max })
}

/// One question, wherever it is answered.
#[derive(Clone, Copy)]
struct Reading<'a> {
    site: &'a Site,
    store: &'a ServedStore,
    ask: &'a Ask,
    lookup: &'a Lookup,
    endpoint: Endpoint,
}

impl Reading<'_> {
    async fn here(self, partition: Option<i32>, stale: Option<u64>) -> Result<Response<Body>, Problem> {
        let (stores, limits) = (self.site.forwarder.view().stores(), self.site.forwarder.limits());
        let scope = Scope { partition, position: self.ask.position.clone(), stale };
        let page = self.store.read(stores, scope, self.lookup.clone(), limits, self.ask.deadline).await?;
        if let RawQuery::FetchRange { reverse, .. } = self.lookup.query {
            let next = self.next(&page, reverse);
            return rows::many(self.store, self.ask.is_raw(), &page, next.as_deref(), &[]);
        }
        rows::one(self.store, self.ask, partition, &page)
    }

    /// The parameter with which the next page begins.
    fn next(self, page: &Page, reverse: bool) -> Option<String> {
        let last = page.rows.last().filter(|_| page.more)?.window?;
        // Sessions come by their ends, and those of one key have an end each.
        let at = if self.endpoint == Endpoint::Sessions { last.end } else { last.start };
        let (name, at) = if reverse { ("to", at.checked_sub(1)?) } else { ("from", at.checked_add(1)?) };
        Some(format!("{name}={at}"))
    }

    /// By what this instance has of the partition, if that is near enough.
    async fn copy_here(self, partition: Option<i32>, behind: u64) -> Option<Response> {
        let here = self.site.forwarder.here(&self.store.name, partition)?;
        here.lag.filter(|lag| *lag <= behind)?;
        match self.here(partition, Some(behind)).await {
            Ok(answer) => Some(answer),
            Err(problem) if problem.code() == ProblemCode::NoSuchKey => {
                Some(axum::response::IntoResponse::into_response(problem))
            }
            Err(_) => None,
        }
    }

    /// By the first copy that answers; never, if none does.
    async fn copies(self, partition: Option<i32>, behind: u64) -> Response {
        loop {
            if let Some(answer) = self.copy_here(partition, behind).await {
                return answer;
            }
            for host in self.standbys(partition) {
                let mut request = self.ask.request.clone();
                headers::set(request.headers_mut(), headers::STALE, &behind.to_string());
                let until = self.ask.deadline.min(Instant::now() + COPY_TIMEOUT);
                if let Ok(answer) = self.site.forwarder.send(&host, &request, until).await
                    && matches!(Problem::of_answer(&answer), None | Some(ProblemCode::NoSuchKey))
                {
                    return answer.map(Body::from);
                }
            }
            sleep(ROUND_PAUSE).await;
        }
    }

    fn standbys(self, partition: Option<i32>) -> Vec<crate::config::HostInfo> {
        let Ok(placement) = self.site.forwarder.placement(&self.store.name) else { return Vec::new() };
        let number = partition.and_then(|partition| usize::try_from(partition).ok());
        let owners = number.and_then(|number| placement.partitions.get(number));
        let own = self.site.forwarder.view().own();
        owners
            .map_or_else(Vec::new, |owners| owners.standbys.iter().filter(|host| Some(*host) != own).cloned().collect())
    }
}
