//! Questions about the rows of all partitions: every owner answers for its own, and the answers are merged.
//!
//! ```text
//!   partitions that lack ── by owner ── here, or one request each, at once ──> pages, each with the partitions it lacks
//!          ^                                                                          │
//!          └───────────────── pause, another look at the table ─────────────────── lacking
//! ```
//!
//! A page of the whole is exact: what a page of a part leaves out is behind its last row, and so no row behind the nearest
//! of those is given.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use axum::http::{HeaderMap, HeaderName};
use axum::response::Response;
use serde::Deserialize;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::ask::{Ask, Staleness};
use super::forwarder::Owner;
use super::headers;
use super::problem::{Problem, ProblemCode};
use super::routes::Endpoint;
use super::rows;
use super::served::{Lookup, Page, Scope, ServedStore, from_base64, to_base64};
use super::site::Site;
use crate::config::HostInfo;
use crate::query::{Position, RawQuery, RawRow};

const PAUSE: Duration = Duration::from_millis(5);
const PAUSE_MAX: Duration = Duration::from_millis(100);

/// What is left of the time of a request for the last round.
const LAST_ROUND: Duration = Duration::from_millis(20);

/// The partitions that an instance is asked for.
const PARTITIONS: HeaderName = HeaderName::from_static("x-kstreams-partitions");

pub(super) async fn read(site: &Arc<Site>, endpoint: Endpoint, ask: &Ask) -> Result<Response, Problem> {
    let store = site.store(ask)?;
    let lookup = lookup(site, endpoint, ask, store)?;
    let placement = site.forwarder.placement(&store.name)?;
    let scattered = Scattered { site, store, ask, lookup: &lookup };
    if placement.is_global {
        let page = scattered.here(None, stale(ask)).await?;
        let next = scattered.next(&page);
        return rows::many(store, ask.is_raw() || ask.is_sent, &page, next.as_deref(), &[]);
    }
    if ask.is_sent {
        let wanted = wanted(ask.request.headers())?;
        let (pages, missing) = scattered.of_own(&wanted).await?;
        let page = scattered.merged(pages);
        return rows::many(store, true, &page, None, &missing);
    }
    let partitions = i32::try_from(placement.partitions.len()).unwrap_or(i32::MAX);
    let (pages, missing) = scattered.gather((0..partitions).collect()).await?;
    if !missing.is_empty() && !ask.is_set("partial") {
        let detail =
            format!("some partitions of store {} have not answered: ask again, or with partial=true", store.name);
        return Err(Problem::new(ProblemCode::Incomplete, detail).with_missing(missing));
    }
    let page = scattered.merged(pages);
    rows::many(store, ask.is_raw(), &page, scattered.next(&page).as_deref(), &missing)
}

fn stale(ask: &Ask) -> Option<u64> {
    match ask.staleness {
        Staleness::Within(behind) => Some(behind),
        Staleness::Hedge | Staleness::Never => None,
    }
}

fn wanted(fields: &HeaderMap) -> Result<BTreeSet<i32>, Problem> {
    let text = fields.get(PARTITIONS).and_then(|value| value.to_str().ok());
    let numbers: Option<_> = text.map(|text| text.split(',').map(str::parse).collect::<Result<_, _>>().ok());
    numbers.flatten().ok_or_else(|| Problem::malformed("an instance was asked for no partitions"))
}

fn lookup(site: &Site, endpoint: Endpoint, ask: &Ask, store: &ServedStore) -> Result<Lookup, Problem> {
    let rows_max = ask.rows_max(&site.forwarder)?;
    let reverse = ask.is_set("reverse");
    let key = |name| ask.text(name).map(|text| store.key(text, ask.is_raw())).transpose();
    let bound = |key: Option<Vec<u8>>| key.map_or(Bound::Unbounded, Bound::Included);
    let (mut from, mut to) = if endpoint == Endpoint::Prefix {
        let text = ask.text("prefix").unwrap_or_default();
        let prefix = if ask.is_raw() { from_base64(text)? } else { text.as_bytes().to_vec() };
        let behind = behind_prefix(&prefix);
        (Bound::Included(prefix), behind)
    } else {
        (bound(key("from")?), bound(key("to")?))
    };
    if let Some(last) = ask.text("page") {
        let last = Bound::Excluded(from_base64(last)?);
        if reverse {
            to = last;
        } else {
            from = last;
        }
    }
    Ok(Lookup { query: RawQuery::Range { from, to, reverse }, rows_max })
}

/// The first key behind all that begin so.
fn behind_prefix(prefix: &[u8]) -> Bound<Vec<u8>> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            return Bound::Excluded(end);
        }
    }
    Bound::Unbounded
}

#[derive(Clone, Copy)]
struct Scattered<'a> {
    site: &'a Arc<Site>,
    store: &'a ServedStore,
    ask: &'a Ask,
    lookup: &'a Lookup,
}

impl Scattered<'_> {
    async fn here(self, partition: Option<i32>, stale: Option<u64>) -> Result<Page, Problem> {
        let (stores, limits) = (self.site.forwarder.view().stores(), self.site.forwarder.limits());
        let scope = Scope { partition, position: self.ask.position.clone(), stale };
        self.store.read(stores, scope, self.lookup.clone(), limits, self.ask.deadline).await
    }

    /// What this instance has of some partitions, and which of them it has not.
    async fn of_own(self, wanted: &BTreeSet<i32>) -> Result<(Vec<Page>, Vec<i32>), Problem> {
        let (mut pages, mut missing) = (Vec::new(), Vec::new());
        for partition in wanted {
            match self.here(Some(*partition), stale(self.ask)).await {
                Ok(page) => pages.push(page),
                Err(problem) if problem.code().is_retriable() => missing.push(*partition),
                Err(problem) => return Err(problem),
            }
        }
        Ok((pages, missing))
    }

    /// Rounds until nothing is missing, or the time is over.
    async fn gather(self, mut missing: BTreeSet<i32>) -> Result<(Vec<Page>, Vec<i32>), Problem> {
        let begun = Instant::now();
        let limits = self.site.forwarder.limits();
        let mut pages = Vec::new();
        let mut pause = PAUSE;
        loop {
            let hedges = limits.hedge_after.is_some_and(|after| begun.elapsed() >= after)
                && self.ask.staleness == Staleness::Hedge
                && self.ask.position.iter().next().is_none();
            self.round(&mut missing, &mut pages, None).await?;
            if hedges && !missing.is_empty() {
                self.round(&mut missing, &mut pages, Some(limits.hedge_lag_max)).await?;
            }
            if missing.is_empty() || Instant::now() + pause + LAST_ROUND >= self.ask.deadline {
                return Ok((pages, missing.into_iter().collect()));
            }
            sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    /// Asks everybody who has something of what is missing: owners, or their copies.
    async fn round(
        self,
        missing: &mut BTreeSet<i32>,
        pages: &mut Vec<Page>,
        behind: Option<u64>,
    ) -> Result<(), Problem> {
        let (own, others) = self.who(missing, behind)?;
        let mut answers = JoinSet::new();
        for (host, partitions) in others {
            let mut request = self.ask.request.clone();
            let list: Vec<String> = partitions.iter().map(ToString::to_string).collect();
            headers::set(request.headers_mut(), PARTITIONS, &list.join(","));
            if let Some(behind) = behind {
                headers::set(request.headers_mut(), headers::STALE, &behind.to_string());
            }
            // What has not answered by then is asked elsewhere, if there is an elsewhere.
            let whole = self.ask.deadline.saturating_duration_since(Instant::now());
            let until = self.ask.deadline.min(Instant::now() + (whole / 2).max(LAST_ROUND));
            let forwarder = self.site.forwarder.clone();
            answers.spawn(async move { (partitions, forwarder.send(&host, &request, until).await) });
        }
        for partition in own {
            match self.here(Some(partition), behind.or(stale(self.ask))).await {
                Ok(page) => {
                    pages.push(page);
                    missing.remove(&partition);
                }
                Err(problem) if problem.code().is_retriable() => {}
                Err(problem) => return Err(problem),
            }
        }
        while let Some(answer) = answers.join_next().await {
            let (partitions, answer) = answer.map_err(|_| Problem::lost())?;
            let Ok(answer) = answer else { continue };
            match Problem::of_answer(&answer) {
                Some(code) if code.is_retriable() => continue,
                Some(code) => return Err(Problem::new(code, "another instance has refused a part of the request")),
                None => {}
            }
            let (page, lacking) = received(answer.headers(), answer.body())?;
            pages.push(page);
            missing.retain(|partition| !partitions.contains(partition) || lacking.contains(partition));
        }
        Ok(())
    }

    #[expect(clippy::type_complexity, reason = "the partitions of this instance, and those of others")]
    fn who(
        self,
        missing: &BTreeSet<i32>,
        behind: Option<u64>,
    ) -> Result<(Vec<i32>, BTreeMap<HostInfo, BTreeSet<i32>>), Problem> {
        let placement = self.site.forwarder.placement(&self.store.name)?;
        let mut own = Vec::new();
        let mut others: BTreeMap<HostInfo, BTreeSet<i32>> = BTreeMap::new();
        for partition in missing {
            if behind.or(stale(self.ask)).is_some()
                && self.site.forwarder.here(&self.store.name, Some(*partition)).is_some()
            {
                own.push(*partition);
                continue;
            }
            if behind.is_some() {
                let owners = usize::try_from(*partition).ok().and_then(|number| placement.partitions.get(number));
                if let Some(host) = owners.and_then(|owners| owners.standbys.first()) {
                    others.entry(host.clone()).or_default().insert(*partition);
                }
                continue;
            }
            match self.site.forwarder.owner_of_partition(&self.store.name, &placement, Some(*partition)) {
                Owner::Here(_) => own.push(*partition),
                Owner::At(host) => {
                    others.entry(host).or_default().insert(*partition);
                }
                Owner::Nobody => {}
            }
        }
        Ok((own, others))
    }

    fn merged(self, pages: Vec<Page>) -> Page {
        merged(pages, Order::of(self.ask), self.lookup.rows_max)
    }

    /// The parameter with which the next page begins.
    fn next(self, page: &Page) -> Option<String> {
        page.rows.last().filter(|_| page.more).map(|row| format!("page={}", to_base64(&row.key)))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    Forward,
    Backward,
}

impl Order {
    fn of(ask: &Ask) -> Order {
        if ask.is_set("reverse") { Order::Backward } else { Order::Forward }
    }
}

/// The first rows of all pages.
fn merged(pages: Vec<Page>, order: Order, rows_max: usize) -> Page {
    let mut whole = Page { rows: Vec::new(), more: false, position: Position::new(), lag: None };
    let before = |one: &[u8], other: &[u8]| match order {
        Order::Forward => one < other,
        Order::Backward => one > other,
    };
    let mut end: Option<Vec<u8>> = None;
    for page in pages {
        if let Some(last) = page.rows.last().filter(|_| page.more)
            && end.as_ref().is_none_or(|end| before(&last.key, end))
        {
            end = Some(last.key.clone());
        }
        whole.more |= page.more;
        whole.position = whole.position.merge(&page.position);
        whole.lag = whole.lag.max(page.lag);
        whole.rows.extend(page.rows);
    }
    if let Some(end) = end {
        whole.rows.retain(|row| !before(&end, &row.key));
    }
    whole.rows.sort_by(|one, other| match order {
        Order::Forward => one.key.cmp(&other.key),
        Order::Backward => other.key.cmp(&one.key),
    });
    whole.more |= whole.rows.len() > rows_max;
    whole.rows.truncate(rows_max);
    whole
}

/// A part as another instance has written it.
#[derive(Deserialize)]
struct Part {
    rows: Vec<PartRow>,
    more: bool,
    missing: BTreeSet<i32>,
}

#[derive(Deserialize)]
struct PartRow {
    key: String,
    value: String,
    timestamp: Option<i64>,
}

fn received(fields: &HeaderMap, body: &[u8]) -> Result<(Page, BTreeSet<i32>), Problem> {
    let refused = |_: &serde_json::Error| {
        Problem::new(ProblemCode::Internal, "another instance has answered with something else")
    };
    let part: Part = serde_json::from_slice(body).map_err(|error| refused(&error))?;
    let row = |row: PartRow| -> Result<RawRow, Problem> {
        let (key, value) = (from_base64(&row.key)?, from_base64(&row.value)?);
        // Whose partition it is, nobody asks any more.
        Ok(RawRow { partition: 0, key, window: None, value, timestamp: row.timestamp, valid_to: None })
    };
    let text = |name: HeaderName| fields.get(name).and_then(|value| value.to_str().ok());
    let page = Page {
        rows: part.rows.into_iter().map(row).collect::<Result<_, _>>()?,
        more: part.more,
        position: text(headers::POSITION).unwrap_or_default().parse()?,
        lag: text(headers::STALE).and_then(|lag| lag.parse().ok()),
    };
    Ok((page, part.missing))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(keys: &[u8], more: bool) -> Page {
        let row = |key: &u8| RawRow {
            partition: 0,
            key: vec![*key],
            window: None,
            value: Vec::new(),
            timestamp: None,
            valid_to: None,
        };
        let rows = keys.iter().map(row).collect();
        Page { rows, more, position: Position::new(), lag: None }
    }

    fn keys(page: &Page) -> Vec<u8> {
        page.rows.iter().map(|row| row.key[0]).collect()
    }

    #[test]
    fn no_row_is_given_behind_the_end_of_a_part_that_goes_on() {
        let whole = merged(vec![page(&[1, 3], true), page(&[2, 4, 9], false)], Order::Forward, 10);
        assert_eq!((keys(&whole), whole.more), (vec![1, 2, 3], true));
        let whole = merged(vec![page(&[9, 4], true), page(&[8, 5, 1], false)], Order::Backward, 10);
        assert_eq!((keys(&whole), whole.more), (vec![9, 8, 5, 4], true));
        let whole = merged(vec![page(&[1, 3], false), page(&[2], false)], Order::Forward, 2);
        assert_eq!((keys(&whole), whole.more), (vec![1, 2], true));
    }

    #[test]
    fn the_end_of_a_prefix_is_behind_all_that_begin_with_it() {
        assert_eq!(behind_prefix(b"ab"), Bound::Excluded(b"ac".to_vec()));
        assert_eq!(behind_prefix(&[7, 255]), Bound::Excluded(vec![8]));
        assert_eq!(behind_prefix(&[255]), Bound::Unbounded);
        assert_eq!(behind_prefix(&[]), Bound::Unbounded);
    }
}
