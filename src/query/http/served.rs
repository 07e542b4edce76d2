//! A store that is served: how its keys and values are written, and how it is read.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::time::{Instant, sleep};

use super::limits::HttpLimits;
use super::problem::{Problem, ProblemCode};
use crate::error::{Error, Result};
use crate::partition::partition_for_key;
use crate::query::{
    FailureReason, Position, QueryFailure, RawPartition, RawQuery, RawRole, RawRow, RawStore, RawStores,
};
use crate::runtime::Placement;
use crate::serdes::Serde;

/// Between two looks at a state that is behind.
const PAUSE: Duration = Duration::from_millis(1);
const PAUSE_MAX: Duration = Duration::from_millis(20);

type Raw = Vec<u8>;

/// A store in a [`QueryServer`](crate::QueryServer), with the serdes of its keys and values.
///
/// ```
/// use kstreams::{I64, ServedStore, Utf8};
///
/// let counts = ServedStore::new("word-counts", Utf8, I64);
/// ```
#[derive(Clone)]
#[must_use]
pub struct ServedStore {
    pub(super) name: Arc<str>,
    key_from_text: Arc<FromText>,
    key_to_json: Arc<ToJson>,
    value_to_json: Arc<ToJson>,
    /// In place of what the program says of the store.
    partitioner: Option<Arc<Partitioner>>,
}

type FromText = dyn Fn(&str) -> Result<Raw> + Send + Sync;
type Partitioner = dyn Fn(&[u8], i32) -> i32 + Send + Sync;
type ToJson = dyn Fn(&[u8]) -> Result<Value> + Send + Sync;

impl ServedStore {
    /// Keys and values are JSON outside, and what the serdes make of them inside. A key in a path or a parameter is plain
    /// text if the type can be read from a JSON string, otherwise JSON: `ann`, `42`, `{"shop":7}`.
    pub fn new<K, V>(name: &str, key: impl Serde<Item = K>, value: impl Serde<Item = V>) -> ServedStore
    where
        K: Serialize + DeserializeOwned + 'static,
        V: Serialize + 'static,
    {
        let key = Arc::new(key);
        let writes = Arc::clone(&key);
        let key_from_text = move |text: &str| {
            let plain = serde_json::from_value(Value::String(text.to_owned()));
            let item: K = plain
                .or_else(|_| serde_json::from_str(text))
                .map_err(|error| Error::invalid(format!("\"{text}\" is no key of the store")).with_source(error))?;
            let mut bytes = Vec::new();
            writes.serialize(&item, &mut bytes)?;
            Ok(bytes)
        };
        ServedStore {
            name: name.into(),
            key_from_text: Arc::new(key_from_text),
            key_to_json: Arc::new(move |bytes| json(&key.deserialize(bytes)?)),
            value_to_json: Arc::new(move |bytes| json(&value.deserialize(bytes)?)),
            partitioner: None,
        }
    }

    /// Keys and values are bytes: in base64 (of URLs, without padding), or as the body of an answer.
    pub fn raw(name: &str) -> ServedStore {
        ServedStore {
            name: name.into(),
            key_from_text: Arc::new(from_base64),
            key_to_json: Arc::new(|bytes| Ok(Value::String(to_base64(bytes)))),
            value_to_json: Arc::new(|bytes| Ok(Value::String(to_base64(bytes)))),
            partitioner: None,
        }
    }

    /// For records that are not partitioned by the bytes of their keys as Kafka's clients do it, if the program does not say so
    /// [of the store](crate::Materialized::with_partitioner): the partition of a key's bytes, of so many.
    pub fn with_partitioner(self, partition: impl Fn(&[u8], i32) -> i32 + Send + Sync + 'static) -> ServedStore {
        ServedStore { partitioner: Some(Arc::new(partition)), ..self }
    }

    /// # Errors
    /// `MalformedRequest`: the text is no key.
    pub(super) fn key(&self, text: &str, is_raw: bool) -> Result<Raw, Problem> {
        let key = if is_raw { from_base64(text) } else { (self.key_from_text)(text) };
        key.map_err(|error| Problem::malformed(error.report()))
    }

    pub(super) fn key_text(&self, key: &[u8], is_raw: bool) -> Result<Value> {
        if is_raw { Ok(Value::String(to_base64(key))) } else { (self.key_to_json)(key) }
    }

    pub(super) fn value_text(&self, value: &[u8], is_raw: bool) -> Result<Value> {
        if is_raw { Ok(Value::String(to_base64(value))) } else { (self.value_to_json)(value) }
    }

    /// The partition of a key; none of a global store.
    ///
    /// # Errors
    /// `MalformedRequest`: the store's partitioner cannot read the key.
    pub(super) fn partition(&self, placement: &Placement, key: &[u8]) -> Result<Option<i32>, Problem> {
        if placement.is_global {
            return Ok(None);
        }
        let partitions = i32::try_from(placement.partitions.len()).unwrap_or(i32::MAX);
        let chosen = match (&self.partitioner, &placement.partitioner) {
            (Some(partitioner), _) => Ok(partitioner(key, partitions)),
            (None, Some(partitioner)) => partitioner.partition(key, partitions),
            (None, None) => Ok(partition_for_key(key, partitions)),
        };
        chosen.map(Some).map_err(|error| Problem::malformed(error.report()))
    }

    /// Reads a page of a partition here, once the state is at the position that is asked for.
    ///
    /// # Errors
    /// `NotOwner`: the partition is not here; `NotReady`, `BehindPosition`, `UnreadableRow`, `WrongKind`.
    pub(super) async fn read(
        &self,
        stores: &RawStores,
        scope: Scope,
        lookup: Lookup,
        limits: &HttpLimits,
        deadline: Instant,
    ) -> Result<Page, Problem> {
        let store = scope.of(stores.open(&self.name)?);
        let page_bytes_max = limits.page_bytes_max;
        let mut pause = PAUSE;
        loop {
            // Without a thread for each that waits: a look costs a lock that is held for a moment.
            let is_behind = scope
                .here(&store)
                .is_some_and(|here| here.role == RawRole::Active && !here.position.covers(&scope.bound()));
            let refused = if is_behind {
                behind(&self.name)
            } else {
                let (store, scope, lookup) = (store.clone(), scope.clone(), lookup.clone());
                let read = move || page(&store, &scope, &lookup, page_bytes_max);
                match tokio::task::spawn_blocking(read).await.map_err(|_| Problem::lost())? {
                    Err(problem) if problem.code() == ProblemCode::BehindPosition => problem,
                    done => return done,
                }
            };
            if Instant::now() + pause >= deadline {
                return Err(refused);
            }
            sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }
}

fn behind(store: &str) -> Problem {
    let detail = format!("store {store} is not at the position that was asked for: ask again");
    Problem::new(ProblemCode::BehindPosition, detail)
}

fn page(store: &RawStore, scope: &Scope, lookup: &Lookup, bytes_max: usize) -> Result<Page, Problem> {
    let is_copy = scope.here(store).is_some_and(|here| matches!(here.role, RawRole::Restoring | RawRole::Standby));
    let answer = store.ask(&lookup.query)?;
    let mut page = Page { rows: Vec::new(), more: false, position: answer.position, lag: None };
    // A copy that does not know how far it is behind is marked all the same.
    page.lag = is_copy.then_some(answer.lag.unwrap_or(u64::MAX));
    let mut bytes = 0;
    for row in answer.rows {
        if page.rows.len() >= lookup.rows_max || bytes >= bytes_max {
            page.more = true;
            break;
        }
        let row = row?;
        bytes += row.key.len() + row.value.len();
        page.rows.push(row);
    }
    Ok(page)
}

/// What this instance refuses to read.
impl From<QueryFailure> for Problem {
    fn from(failure: QueryFailure) -> Problem {
        let code = match failure.reason() {
            FailureReason::NotPresent => ProblemCode::NotOwner,
            FailureReason::NotActive | FailureReason::TooStale => ProblemCode::NotReady,
            FailureReason::NotUpToBound => ProblemCode::BehindPosition,
            FailureReason::DoesNotExist => ProblemCode::NoSuchStore,
            FailureReason::UnknownQueryType => ProblemCode::WrongKind,
            FailureReason::StoreException => return failure.into_error().into(),
        };
        Problem::new(code, failure.error().report())
    }
}

impl fmt::Debug for ServedStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServedStore").field("name", &self.name).finish_non_exhaustive()
    }
}

fn json(item: &impl Serialize) -> Result<Value> {
    serde_json::to_value(item).map_err(|error| Error::corrupted("a row cannot be told in JSON").with_source(error))
}

pub(super) fn to_base64(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

pub(super) fn from_base64(text: &str) -> Result<Raw> {
    let refused = |error| Error::invalid(format!("the text is no base64 of URLs without padding: {error}"));
    URL_SAFE_NO_PAD.decode(text).map_err(refused)
}

/// Which rows, and how many of them.
#[derive(Debug, Clone)]
pub(super) struct Lookup {
    pub query: RawQuery,
    pub rows_max: usize,
}

/// Where, and how fresh.
#[derive(Debug, Clone, Default)]
pub(super) struct Scope {
    /// None: that of a global store, which has one.
    pub partition: Option<i32>,
    pub position: Position,
    /// Copies too, so many records behind.
    pub stale: Option<u64>,
}

impl Scope {
    fn of(&self, mut store: RawStore) -> RawStore {
        if let Some(partition) = self.partition {
            store = store.with_partition(partition);
        }
        if let Some(behind) = self.stale {
            store = store.enable_stale_stores(behind);
        }
        store.with_position_bound(&self.position, Duration::ZERO)
    }

    /// What of the position is about the partition.
    fn bound(&self) -> Position {
        let of_it = self.position.iter().filter(|(at, _)| self.partition.is_none_or(|own| own == at.partition));
        of_it.fold(Position::new(), |bound, (at, offset)| bound.with(&at.topic, at.partition, offset))
    }

    /// What this instance has of the partition.
    fn here(&self, store: &RawStore) -> Option<RawPartition> {
        store.partitions().into_iter().find(|here| self.partition.is_none_or(|own| own == here.partition))
    }
}

/// Some rows of a partition.
#[derive(Debug, Clone)]
pub(super) struct Page {
    pub rows: Vec<RawRow>,
    /// There may be others behind the last one.
    pub more: bool,
    /// The state was at least there.
    pub position: Position,
    /// Of a copy: how many records it was behind.
    pub lag: Option<u64>,
}
