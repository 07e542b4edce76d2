//! State of another application, for a service that is none of its instances.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::body::Bytes;
use axum::http::{HeaderName, Request, Response, header};
use serde::Deserialize;
use serde_json::Value;
use tokio::time::{Instant, sleep};

use super::headers;
use super::limits::HttpLimits;
use super::peer::Peer;
use super::problem::{Problem, ProblemCode};
use super::served::{from_base64, to_base64};
use crate::config::HostInfo;
use crate::error::{Error, ErrorKind, Result};
use crate::partition::partition_for_key;
use crate::query::Position;
use crate::serdes::{DynSerde, Serde};

const TIMEOUT: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(10);
const PAUSE_MAX: Duration = Duration::from_millis(200);

/// How long an instance may take to say who has what, or to be found silent while others may answer.
const TRY_TIMEOUT: Duration = Duration::from_secs(2);

/// Asks the instances of an application for their state, over their [`QueryServer`](crate::QueryServer)s: knows one or
/// more of them, learns who has what, and tries again, elsewhere too, until the time of a request is over. Cheap to clone.
///
/// # Examples
/// ```no_run
/// use kstreams::{I64, QueryClient, Utf8};
///
/// # async fn ask() -> kstreams::Result<()> {
/// let client = QueryClient::new(["orders-1:8080", "orders-2:8080"])?;
/// let counts = client.store("word-counts", Utf8, I64);
/// let answer = counts.get(&"kafka".to_owned()).await?;
/// println!("{:?} at {}", answer.value, answer.position);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
#[must_use]
pub struct QueryClient {
    peer: Peer,
    hosts: Arc<[HostInfo]>,
    learned: Arc<Mutex<Learned>>,
    authorization: Option<Arc<str>>,
    prefix: Arc<str>,
    timeout: Duration,
}

/// What instances have said.
#[derive(Debug, Default)]
struct Learned {
    tables: HashMap<Arc<str>, Table>,
    /// All that were in the last table: one of them may live when those that were given do not.
    hosts: BTreeSet<HostInfo>,
}

/// Who has the partitions of a store.
type Table = Arc<[Option<HostInfo>]>;

/// What was asked for, and how fresh it is.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Answer<T> {
    /// It.
    pub value: T,
    /// The state that it is from was at least there. A read that asks for this position sees nothing older.
    pub position: Position,
    /// From a copy, so many records behind; none: from the owner.
    pub lag: Option<u64>,
}

impl<T> Answer<T> {
    fn map<U>(self, map: impl FnOnce(T) -> Result<U>) -> Result<Answer<U>> {
        Ok(Answer { value: map(self.value)?, position: self.position, lag: self.lag })
    }
}

impl QueryClient {
    /// Of an application that has an instance at one of these addresses, `host:port`.
    ///
    /// # Errors
    /// `Invalid`: there is none, or what is no address.
    pub fn new<A: AsRef<str>>(instances: impl IntoIterator<Item = A>) -> Result<QueryClient> {
        let hosts = instances.into_iter().map(|address| address.as_ref().parse()).collect::<Result<Vec<HostInfo>>>()?;
        if hosts.is_empty() {
            return Err(Error::invalid("a client of queries needs the address of an instance at least"));
        }
        Ok(QueryClient {
            peer: Peer::new(HttpLimits::default().answer_bytes_max),
            hosts: hosts.into(),
            learned: Arc::default(),
            authorization: None,
            prefix: "".into(),
            timeout: TIMEOUT,
        })
    }

    /// With a token that the servers ask for.
    pub fn with_bearer_token(self, token: &str) -> QueryClient {
        QueryClient { authorization: Some(format!("Bearer {token}").into()), ..self }
    }

    /// Where the servers' routers are mounted: `/state` for `/state/v1/stores`.
    pub fn with_path_prefix(self, prefix: &str) -> QueryClient {
        QueryClient { prefix: prefix.trim_end_matches('/').into(), ..self }
    }

    /// Asks over TLS.
    #[cfg(feature = "query-https")]
    pub fn with_tls(self, tls: rustls::ClientConfig) -> QueryClient {
        let peer = Peer::encrypted(HttpLimits::default().answer_bytes_max, Arc::new(tls));
        QueryClient { peer, ..self }
    }

    /// How long a request may take, with all that is tried: 5 s. Servers have bounds of their own.
    pub fn with_timeout(self, timeout: Duration) -> QueryClient {
        QueryClient { timeout, ..self }
    }

    /// A store, with the serdes that it has there.
    pub fn store<K: 'static, V: 'static>(
        &self,
        name: &str,
        key: impl Serde<Item = K>,
        value: impl Serde<Item = V>,
    ) -> RemoteStore<K, V> {
        RemoteStore {
            client: self.clone(),
            name: name.into(),
            key: Arc::new(key),
            value: Arc::new(value),
            position: Position::new(),
            stale: None,
        }
    }

    /// Asks one instance after the other, the likeliest first, until one answers or the time is over.
    async fn ask(&self, store: &Arc<str>, key: Option<&[u8]>, path: &str, fresh: &Freshness<'_>) -> Result<Asked> {
        let deadline = Instant::now() + self.timeout;
        let mut pause = PAUSE;
        let mut tried = 0;
        loop {
            let owner = match key {
                Some(key) => self.owner(store, key, deadline).await,
                None => None,
            };
            let hosts = self.known_hosts();
            // Every other time the owner: the table is made anew after each refusal.
            let turn = if owner.is_some() { tried / 2 } else { tried };
            let next = owner.as_ref().filter(|_| tried % 2 == 0).or_else(|| hosts.get(turn % hosts.len().max(1)));
            let host =
                next.cloned().ok_or_else(|| Error::new(ErrorKind::Internal, "a client of queries has no address"))?;
            let request = self.request(path, fresh, deadline)?;
            let is_last = hosts.len() == 1;
            let until =
                if is_last { deadline } else { deadline.min(Instant::now() + self.timeout.max(TRY_TIMEOUT) / 2) };
            let problem = match self.peer.send(&host, request, until).await {
                Ok(answer) => {
                    // Somebody else had to answer for it: it has moved.
                    let from = answer.headers().get(headers::SERVED_BY).and_then(|value| value.to_str().ok());
                    if owner.is_some_and(|owner| from != Some(owner.to_string().as_str())) {
                        self.learned().tables.remove(store);
                    }
                    match Problem::of_answer(&answer) {
                        None if answer.status().is_success() => return Ok(Asked::Found(answer)),
                        Some(ProblemCode::NoSuchKey) => return Ok(Asked::NoSuchKey(answer)),
                        Some(code) if code.is_retriable() => Problem::new(code, detail(&answer)),
                        code => return Err(refused(code, &answer)),
                    }
                }
                Err(problem) => problem,
            };
            self.learned().tables.remove(store);
            if Instant::now() + pause >= deadline {
                let context = format!("could not read store {store} of the instance at {host}: ask again");
                return Err(Error::new(ErrorKind::Unavailable, context).with_source(problem));
            }
            sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
            tried += 1;
        }
    }

    fn request(&self, path: &str, fresh: &Freshness<'_>, deadline: Instant) -> Result<Request<Bytes>> {
        let mut request = Request::new(Bytes::new());
        let uri = format!("{}{path}", self.prefix).parse();
        *request.uri_mut() = uri.map_err(|error| Error::invalid("a store or key makes no path").with_source(error))?;
        let fields = request.headers_mut();
        if let Some(authorization) = &self.authorization {
            headers::set(fields, header::AUTHORIZATION, authorization);
        }
        if fresh.position.iter().next().is_some() {
            headers::set(fields, headers::POSITION, &fresh.position.to_string());
        }
        if let Some(behind) = fresh.stale {
            headers::set(fields, headers::STALE, &behind.to_string());
        }
        let left = deadline.saturating_duration_since(Instant::now());
        headers::set(fields, headers::TIMEOUT_MS, &left.as_millis().max(1).to_string());
        Ok(request)
    }

    /// The instance that has a key, as far as that is known; asks if nothing is.
    async fn owner(&self, store: &Arc<str>, key: &[u8], deadline: Instant) -> Option<HostInfo> {
        let known = self.learned().tables.get(store).cloned();
        let table = match known {
            Some(table) => table,
            None => self.table(store, deadline).await?,
        };
        let partition = partition_for_key(key, i32::try_from(table.len()).ok()?);
        table.get(usize::try_from(partition).ok()?)?.clone()
    }

    async fn table(&self, store: &Arc<str>, deadline: Instant) -> Option<Table> {
        let until = deadline.min(Instant::now() + TRY_TIMEOUT);
        for host in &self.known_hosts() {
            let fresh = Freshness { position: &Position::new(), stale: None };
            let request = self.request(&format!("/v1/metadata/{}", escaped(store)), &fresh, until).ok()?;
            let Ok(answer) = self.peer.send(host, request, until).await else { continue };
            let Ok(told) = serde_json::from_slice::<Told>(answer.body()) else { continue };
            let owners = told.partitions.into_iter().map(|known| known.active.and_then(|text| text.parse().ok()));
            let table: Table = owners.collect();
            let mut learned = self.learned();
            learned.hosts = table.iter().flatten().cloned().collect();
            learned.tables.insert(Arc::clone(store), Arc::clone(&table));
            drop(learned);
            return Some(table);
        }
        None
    }

    /// Those that were given, and those that they know.
    fn known_hosts(&self) -> Vec<HostInfo> {
        let learned = self.learned();
        let others = learned.hosts.iter().filter(|host| !self.hosts.contains(host));
        self.hosts.iter().chain(others).cloned().collect()
    }

    fn learned(&self) -> MutexGuard<'_, Learned> {
        // Every change is one insertion or removal: a panic leaves nothing half done.
        self.learned.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How fresh an answer has to be.
struct Freshness<'a> {
    position: &'a Position,
    stale: Option<u64>,
}

enum Asked {
    Found(Response<Bytes>),
    NoSuchKey(Response<Bytes>),
}

#[derive(Deserialize)]
struct Told {
    partitions: Vec<ToldPartition>,
}

#[derive(Deserialize)]
struct ToldPartition {
    active: Option<String>,
}

#[derive(Deserialize)]
struct ToldRow {
    key: String,
    value: String,
    start: Option<i64>,
    end: Option<i64>,
}

#[derive(Deserialize)]
struct ToldRows {
    rows: Vec<ToldRow>,
    next: Option<String>,
}

/// A store of another application: see [`QueryClient::store`]. Cheap to clone.
#[must_use]
pub struct RemoteStore<K, V> {
    client: QueryClient,
    name: Arc<str>,
    key: DynSerde<K>,
    value: DynSerde<V>,
    position: Position,
    stale: Option<u64>,
}

impl<K: 'static, V: 'static> RemoteStore<K, V> {
    /// Answers only from a state that is there: what was written is read. Waits for it until the time is over.
    pub fn with_position(&self, position: &Position) -> RemoteStore<K, V> {
        RemoteStore { position: position.clone(), ..self.clone() }
    }

    /// Takes answers of copies, too, that are at most so many records behind.
    pub fn with_stale(&self, records_behind_max: u64) -> RemoteStore<K, V> {
        RemoteStore { stale: Some(records_behind_max), ..self.clone() }
    }

    /// The value of a key; of a versioned store the newest.
    ///
    /// # Errors
    /// `Unavailable`: nobody could answer in time: ask again. `Invalid`: there is no such store, or it is of another kind,
    /// or the token is wrong. What the serdes fail with.
    pub async fn get(&self, key: &K) -> Result<Answer<Option<V>>> {
        self.one(key, "").await
    }

    /// The version of a key that is valid at a time (ms), of a versioned store.
    ///
    /// # Errors
    /// As [`get`](RemoteStore::get).
    pub async fn get_as_of(&self, key: &K, as_of: i64) -> Result<Answer<Option<V>>> {
        self.one(key, &format!("&as_of={as_of}")).await
    }

    /// The rows from one key to another, both included, of all partitions, in the byte order of their keys.
    ///
    /// # Errors
    /// What the key's serde fails with.
    pub fn range(&self, from: Option<&K>, to: Option<&K>) -> Result<RemoteRows<(K, V)>> {
        let mut params = BTreeMap::new();
        for (name, key) in [("from", from), ("to", to)] {
            if let Some(key) = key {
                params.insert(name.to_owned(), self.key_text(key)?);
            }
        }
        let (key, value) = (Arc::clone(&self.key), Arc::clone(&self.value));
        let read = move |row: &ToldRow| {
            Ok((key.deserialize(&from_base64(&row.key)?)?, value.deserialize(&from_base64(&row.value)?)?))
        };
        Ok(self.rows("range", None, params, Arc::new(read)))
    }

    /// The windows of a key that begin from `from` to `to` (ms), by their starts: start and value.
    ///
    /// # Errors
    /// What the key's serde fails with.
    pub fn windows(&self, key: &K, from: i64, to: i64) -> Result<RemoteRows<(i64, V)>> {
        let value = Arc::clone(&self.value);
        let read = move |row: &ToldRow| {
            let start = row.start.ok_or_else(|| strange("a window without a start"))?;
            Ok((start, value.deserialize(&from_base64(&row.value)?)?))
        };
        self.of_key("windows", key, from, to, Arc::new(read))
    }

    /// The sessions of a key that end at `earliest_end` or later and begin at `latest_start` or earlier (ms), by their ends:
    /// start, end and value.
    ///
    /// # Errors
    /// What the key's serde fails with.
    pub fn sessions(&self, key: &K, earliest_end: i64, latest_start: i64) -> Result<RemoteRows<(i64, i64, V)>> {
        let value = Arc::clone(&self.value);
        let read = move |row: &ToldRow| {
            let times = row.start.zip(row.end).ok_or_else(|| strange("a session without its times"))?;
            Ok((times.0, times.1, value.deserialize(&from_base64(&row.value)?)?))
        };
        self.of_key("sessions", key, earliest_end, latest_start, Arc::new(read))
    }

    fn of_key<T>(&self, what: &str, key: &K, from: i64, to: i64, read: Arc<ReadRow<T>>) -> Result<RemoteRows<T>> {
        let mut bytes = Vec::new();
        self.key.serialize(key, &mut bytes)?;
        let params = [("from".to_owned(), from.to_string()), ("to".to_owned(), to.to_string())];
        Ok(self.rows(&format!("{what}/{}", to_base64(&bytes)), Some(bytes), params.into(), read))
    }

    fn rows<T>(
        &self,
        what: &str,
        key: Option<Vec<u8>>,
        params: BTreeMap<String, String>,
        read: Arc<ReadRow<T>>,
    ) -> RemoteRows<T> {
        let path = format!("/v1/stores/{}/{what}?format=base64", escaped(&self.name));
        RemoteRows {
            client: self.client.clone(),
            store: Arc::clone(&self.name),
            key,
            path,
            params,
            read,
            position: self.position.clone(),
            stale: self.stale,
            is_over: false,
        }
    }

    async fn one(&self, key: &K, params: &str) -> Result<Answer<Option<V>>> {
        let mut bytes = Vec::new();
        self.key.serialize(key, &mut bytes)?;
        let key = to_base64(&bytes);
        let path = format!("/v1/stores/{}/keys/{key}?format=base64{params}", escaped(&self.name));
        let fresh = Freshness { position: &self.position, stale: self.stale };
        match self.client.ask(&self.name, Some(&bytes), &path, &fresh).await? {
            Asked::NoSuchKey(answer) => told(&answer, None),
            Asked::Found(answer) => {
                let row: ToldRow = parsed(&answer)?;
                told(&answer, Some(row))?
                    .map(|row| row.map(|row| self.value.deserialize(&from_base64(&row.value)?)).transpose())
            }
        }
    }

    fn key_text(&self, key: &K) -> Result<String> {
        let mut bytes = Vec::new();
        self.key.serialize(key, &mut bytes)?;
        Ok(to_base64(&bytes))
    }
}

impl<K, V> Clone for RemoteStore<K, V> {
    fn clone(&self) -> Self {
        RemoteStore {
            client: self.client.clone(),
            name: Arc::clone(&self.name),
            key: Arc::clone(&self.key),
            value: Arc::clone(&self.value),
            position: self.position.clone(),
            stale: self.stale,
        }
    }
}

type ReadRow<T> = dyn Fn(&ToldRow) -> Result<T> + Send + Sync;

/// Rows of a store, a page at a time: nothing is held there between two pages, and each is of its own moment.
#[must_use]
pub struct RemoteRows<T> {
    client: QueryClient,
    store: Arc<str>,
    key: Option<Vec<u8>>,
    path: String,
    params: BTreeMap<String, String>,
    read: Arc<ReadRow<T>>,
    position: Position,
    stale: Option<u64>,
    is_over: bool,
}

impl<T> RemoteRows<T> {
    /// Last row first; not for sessions.
    pub fn reverse(mut self) -> RemoteRows<T> {
        self.params.insert("reverse".to_owned(), "true".to_owned());
        self
    }

    /// Rows of a page, within the server's bounds.
    pub fn page_rows(mut self, rows: usize) -> RemoteRows<T> {
        self.params.insert("limit".to_owned(), rows.to_string());
        self
    }

    /// The next page; none: there are no more.
    ///
    /// # Errors
    /// As [`RemoteStore::get`]; the page can be asked for again.
    pub async fn next_page(&mut self) -> Result<Option<Answer<Vec<T>>>> {
        if self.is_over {
            return Ok(None);
        }
        let params = self.params.iter().fold(self.path.clone(), |path, (name, value)| format!("{path}&{name}={value}"));
        let fresh = Freshness { position: &self.position, stale: self.stale };
        let Asked::Found(answer) = self.client.ask(&self.store, self.key.as_deref(), &params, &fresh).await? else {
            return Err(strange("no key where rows were asked for"));
        };
        let page: ToldRows = parsed(&answer)?;
        let rows = page.rows.iter().map(|row| (self.read)(row)).collect::<Result<Vec<T>>>()?;
        match page.next.as_deref().and_then(|next| next.split_once('=')) {
            Some((name, value)) => {
                self.params.insert(name.to_owned(), value.to_owned());
            }
            None => self.is_over = true,
        }
        told(&answer, rows).map(Some)
    }

    /// All rows that are left, page by page.
    ///
    /// # Errors
    /// As [`next_page`](RemoteRows::next_page).
    pub async fn collect(mut self) -> Result<Vec<T>> {
        let mut rows = Vec::new();
        while let Some(page) = self.next_page().await? {
            rows.extend(page.value);
        }
        Ok(rows)
    }
}

fn parsed<T: for<'a> Deserialize<'a>>(answer: &Response<Bytes>) -> Result<T> {
    serde_json::from_slice(answer.body()).map_err(|error| strange("an answer in another form").with_source(error))
}

/// With what the headers say of it.
fn told<T>(answer: &Response<Bytes>, value: T) -> Result<Answer<T>> {
    let text = |name: HeaderName| answer.headers().get(name).and_then(|value| value.to_str().ok());
    let position = text(headers::POSITION).unwrap_or_default().parse()?;
    Ok(Answer { value, position, lag: text(headers::STALE).and_then(|lag| lag.parse().ok()) })
}

#[cold]
fn strange(what: &str) -> Error {
    Error::new(ErrorKind::Unavailable, format!("a query server has sent {what}: is it of another release?"))
}

fn detail(answer: &Response<Bytes>) -> String {
    let body: Value = serde_json::from_slice(answer.body()).unwrap_or_default();
    body.get("detail").and_then(Value::as_str).unwrap_or("it does not say why").to_owned()
}

#[cold]
fn refused(code: Option<ProblemCode>, answer: &Response<Bytes>) -> Error {
    let kind = match code {
        Some(ProblemCode::UnreadableRow) => ErrorKind::Corrupted,
        Some(ProblemCode::Internal) => ErrorKind::Internal,
        _ => ErrorKind::Invalid,
    };
    let code = code.map_or_else(|| answer.status().to_string(), |code| code.to_string());
    Error::new(kind, format!("a query server has refused a request ({code}): {}", detail(answer)))
}

/// The name of a store in a path: Java allows letters, digits and `._-`, so that this changes nothing of what can be.
fn escaped(store: &str) -> String {
    let mut text = String::with_capacity(store.len());
    for byte in store.bytes() {
        if byte.is_ascii_alphanumeric() || b"._-".contains(&byte) {
            text.push(char::from(byte));
        } else {
            text.push_str(&format!("%{byte:02X}"));
        }
    }
    text
}

impl fmt::Debug for QueryClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QueryClient").field("hosts", &self.hosts).finish_non_exhaustive()
    }
}

impl<K, V> fmt::Debug for RemoteStore<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RemoteStore").field("name", &self.name).finish_non_exhaustive()
    }
}

impl<T> fmt::Debug for RemoteRows<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RemoteRows").field("store", &self.store).field("is_over", &self.is_over).finish_non_exhaustive()
    }
}
