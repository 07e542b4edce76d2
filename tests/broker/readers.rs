//! Who asks instances for counts, and judges what they answer.
//!
//! The oracle: of each key it is known how many clicks have been sent, and at which offset each one is that was said to be
//! written. So a count is at most what was sent before the answer, and at least
//!
//! * what is written up to the position that the answer names, whoever gave it,
//! * what was written before the question, if that asked for its position,
//! * what the owner has answered before the question, if the answer is of an owner.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::body::Bytes;
use axum::http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use kstreams::{Position, ProblemCode};
use serde_json::Value;
use tokio::time::{sleep, timeout};

use crate::ledger::{Mistakes, mix};
use crate::served::{POSITION, STORE};
use crate::word_count::PATIENCE;

/// What a server is given for an answer, so that it refuses before it is dead for sure.
const TIMEOUT_MS: u64 = 1_000;

/// After which a server that says nothing is as good as dead.
const SILENCE: Duration = Duration::from_secs(10);

/// Between two tries.
const PAUSE: Duration = Duration::from_millis(10);

/// One in so many reads is of what was written through another instance, at least.
pub(crate) const PER_WRITE: u64 = 10;

/// How far the others may be ahead of that.
const AHEAD: u64 = 1_000;

/// One of these instances is asked.
pub(crate) struct Readers {
    addresses: Vec<String>,
    /// Where they take clicks.
    takers: Vec<String>,
    /// Of the clicks.
    topic: String,
    client: Client<HttpConnector, Full<Bytes>>,
    keys: Vec<Mutex<History>>,
    tally: Mutex<Tally>,
    mistakes: Mutex<Mistakes>,
    pub(crate) read: AtomicU64,
    pub(crate) read_after_write: AtomicU64,
    pub(crate) is_over: AtomicBool,
}

/// Of one key.
#[derive(Default)]
struct History {
    /// Clicks that may be in the topic.
    sent: i64,
    /// Where those are that are there for sure, in order.
    written: Vec<(i32, i64)>,
    /// The most that an owner has answered.
    seen: i64,
}

/// Which answers are wanted.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Wanted {
    /// Those of copies too, when the owner is silent.
    Any,
    Owners,
    /// That have what was written.
    At(Position),
}

#[derive(Default)]
struct Tally {
    refusals: BTreeMap<String, u64>,
    unconnected: u64,
    unsure_writes: u64,
    /// By who has answered: of answers at the first try, in microseconds.
    latencies: BTreeMap<&'static str, Vec<u32>>,
    /// From the first try to the answer.
    longest: BTreeMap<&'static str, Duration>,
}

struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

impl Answer {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

impl Readers {
    /// Of instances that answer at these ports and take clicks at the next ones.
    pub(crate) fn new(ports: &[u16], topic: &str, keys: usize) -> Readers {
        let at = |next: u16| ports.iter().map(|port| format!("127.0.0.1:{}", port + next)).collect();
        Readers {
            addresses: at(0),
            takers: at(1),
            topic: topic.to_owned(),
            client: Client::builder(TokioExecutor::new()).build_http(),
            keys: (0..keys).map(|_| Mutex::default()).collect(),
            tally: Mutex::default(),
            mistakes: Mutex::default(),
            read: AtomicU64::new(0),
            read_after_write: AtomicU64::new(0),
            is_over: AtomicBool::new(false),
        }
    }

    pub(crate) fn address(&self, instance: usize) -> &str {
        &self.addresses[instance]
    }

    /// Asks for one key after the other until it is over. Each fourth question is for owners only.
    pub(crate) async fn look_around(&self, reader: u64) {
        for number in 0.. {
            if self.is_over.load(Ordering::Relaxed) {
                return;
            }
            // On a small machine they would take the processors from the broker, and who writes would have no turn.
            let due = PER_WRITE * self.read_after_write.load(Ordering::Relaxed) + AHEAD;
            if self.read.load(Ordering::Relaxed) >= due {
                sleep(PAUSE).await;
                continue;
            }
            let dice = mix(mix(reader) ^ number);
            let key = usize::try_from(dice % self.keys.len() as u64).unwrap();
            let instance = usize::try_from((dice >> 32) % self.addresses.len() as u64).unwrap();
            self.ask(key, instance, &if number % 4 == 0 { Wanted::Owners } else { Wanted::Any }).await;
            self.read.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Clicks through one instance and reads that through another one, until it is over, on each `of`th key.
    pub(crate) async fn click_and_look(&self, writer: usize, of: usize) {
        let own: Vec<usize> = (writer..self.keys.len()).step_by(of).collect();
        for (turn, key) in own.into_iter().cycle().enumerate() {
            if self.is_over.load(Ordering::Relaxed) {
                return;
            }
            let (writes, reads) = (turn + writer, turn + writer + 1 + turn % (self.addresses.len() - 1));
            let written = self.click(key, writes).await;
            self.ask(key, reads, &Wanted::At(written)).await;
            self.read_after_write.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Each key has what was written of it; nothing is written any more.
    pub(crate) async fn look_at_all(&self) {
        for key in 0..self.keys.len() {
            let last = lock(&self.keys[key]).written.last().copied();
            let Some((partition, offset)) = last else { continue };
            for instance in 0..self.addresses.len() {
                let written = self.position(partition, offset);
                self.ask(key, instance, &Wanted::At(written)).await;
            }
        }
    }

    async fn click(&self, key: usize, first: usize) -> Position {
        let begun = Instant::now();
        for turn in first.. {
            assert!(begun.elapsed() < PATIENCE, "no instance takes clicks");
            // Whatever is answered, it may be there.
            lock(&self.keys[key]).sent += 1;
            let taker = &self.takers[turn % self.takers.len()];
            let answer = self.exchange(Method::POST, taker, &format!("/clicks/{}", name(key))).await;
            match answer.as_ref().map(|answer| (answer.status, answer.header(POSITION))) {
                Some((StatusCode::ACCEPTED, Some(written))) => {
                    let written: Position = written.parse().unwrap();
                    let (place, offset) = written.iter().next().unwrap();
                    lock(&self.keys[key]).written.push((place.partition, offset));
                    return written;
                }
                _ => lock(&self.tally).unsure_writes += 1,
            }
            sleep(PAUSE).await;
        }
        unreachable!("there is always a next turn")
    }

    /// One instance after the other, until one answers.
    async fn ask(&self, key: usize, first: usize, wanted: &Wanted) {
        let mut path = format!("/v1/stores/{STORE}/keys/{}?timeout_ms={TIMEOUT_MS}", name(key));
        match wanted {
            Wanted::Any => {}
            Wanted::Owners => path += "&stale=false",
            Wanted::At(position) => write!(path, "&position={position}").unwrap(),
        }
        let begun = Instant::now();
        for turn in first.. {
            assert!(begun.elapsed() < PATIENCE, "no instance answers for {}", name(key));
            let address = &self.addresses[turn % self.addresses.len()];
            let before = {
                let history = lock(&self.keys[key]);
                (history.seen, i64::try_from(history.written.len()).unwrap())
            };
            let asked = Instant::now();
            match self.exchange(Method::GET, address, &path).await {
                None => lock(&self.tally).unconnected += 1,
                Some(answer) if self.is_answer(&answer) => {
                    let from = self.judge(key, wanted, before, &answer, address);
                    let mut tally = lock(&self.tally);
                    if turn == first && !self.is_over.load(Ordering::Relaxed) {
                        let us = u32::try_from(asked.elapsed().as_micros()).unwrap_or(u32::MAX);
                        tally.latencies.entry(from).or_default().push(us);
                    }
                    let longest = tally.longest.entry(wanted.text()).or_default();
                    *longest = begun.elapsed().max(*longest);
                    return;
                }
                Some(refusal) => self.refused(&path, &refusal),
            }
            sleep(PAUSE).await;
        }
    }

    fn is_answer(&self, answer: &Answer) -> bool {
        answer.status == StatusCode::OK || answer.header("x-kstreams-problem") == Some("no_such_key")
    }

    /// Says who has answered.
    fn judge(
        &self,
        key: usize,
        wanted: &Wanted,
        (seen, written): (i64, i64),
        answer: &Answer,
        asked: &str,
    ) -> &'static str {
        let body: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        let count = if answer.status == StatusCode::OK { body["value"].as_i64() } else { Some(0) };
        let is_copy = answer.header("x-kstreams-stale").is_some();
        // A copy may not know where it is.
        let position = answer.header(POSITION).unwrap_or_default().parse::<Position>().ok();
        let position = position.filter(|position| is_copy || position.iter().next().is_some() || count == Some(0));
        let (Some(count), Some(position)) = (count, position) else {
            lock(&self.mistakes).note(|| format!("{}: no count, or no position: {body}", name(key)));
            return "nobody";
        };
        let mut history = lock(&self.keys[key]);
        let there = |(partition, offset): &(i32, i64)| position.covers(&self.position(*partition, *offset));
        let named = i64::try_from(history.written.iter().filter(|at| there(at)).count()).unwrap();
        let mut least = vec![("written up to its position", named)];
        if !is_copy {
            least.push(("answered before", seen));
        }
        if let Wanted::At(_) = wanted {
            least.push(("written before", written));
        }
        for (what, least) in least {
            if count < least {
                let from = answer.header("x-kstreams-served-by").unwrap_or("nobody");
                lock(&self.mistakes)
                    .note(|| format!("{}: {count} of {from} at {position}, {least} {what}; {wanted:?}", name(key)));
            }
        }
        if count > history.sent {
            lock(&self.mistakes).note(|| format!("{}: {count}, and {} were sent", name(key), history.sent));
        }
        if is_copy && *wanted != Wanted::Any {
            lock(&self.mistakes).note(|| format!("{}: a copy has answered; {wanted:?}", name(key)));
        }
        if !is_copy {
            history.seen = history.seen.max(count);
        }
        if let Wanted::At(_) = wanted {
            return "reads of what was just written, which wait for its commit";
        }
        match answer.header("x-kstreams-served-by") {
            _ if is_copy => "copies",
            Some(from) if from == asked => "owners that were asked",
            Some(_) | None => "owners that another instance has asked",
        }
    }

    /// Counts it, if it is one that a client may count on.
    fn refused(&self, path: &str, refusal: &Answer) {
        let body: Value = serde_json::from_slice(&refusal.body).unwrap_or_default();
        let name = body["code"].as_str().unwrap_or("nothing");
        let is_documented = ProblemCode::ALL.into_iter().any(|code| {
            code.as_str() == name
                && code.is_retriable()
                // For instances only, which look again.
                && code != ProblemCode::NotOwner
                && code.status() == refusal.status
                && refusal.header("x-kstreams-problem") == Some(name)
                && body["retriable"] == Value::Bool(true)
                && (refusal.header("retry-after").is_some() == (refusal.status == StatusCode::SERVICE_UNAVAILABLE))
        });
        if !is_documented {
            lock(&self.mistakes).note(|| format!("{path}: {} {body}", refusal.status));
        }
        *lock(&self.tally).refusals.entry(name.to_owned()).or_default() += 1;
    }

    /// None: nobody listens, or the connection has broken.
    async fn exchange(&self, method: Method, address: &str, path: &str) -> Option<Answer> {
        let request =
            Request::builder().method(method).uri(format!("http://{address}{path}")).body(Full::default()).unwrap();
        let exchange = async {
            let (parts, body) = self.client.request(request).await.ok()?.into_parts();
            let body = body.collect().await.ok()?.to_bytes();
            Some(Answer { status: parts.status, headers: parts.headers, body })
        };
        timeout(SILENCE, exchange).await.ok()?
    }

    /// A page that is no question for a key.
    pub(crate) async fn json(&self, instance: usize, path: &str) -> Option<Value> {
        let answer = self.exchange(Method::GET, &self.addresses[instance], path).await?;
        serde_json::from_slice(&answer.body).ok()
    }

    fn position(&self, partition: i32, offset: i64) -> Position {
        Position::at(&self.topic, partition, offset)
    }

    /// What there was.
    pub(crate) fn report(&self) -> String {
        let mut tally = lock(&self.tally);
        let (read, after) = (self.read.load(Ordering::Relaxed), self.read_after_write.load(Ordering::Relaxed));
        let mut text = format!("{read} reads, {after} reads of what was written through another instance\n");
        writeln!(text, "refusals, all to be asked again: {:?}; no connection: {}", tally.refusals, tally.unconnected)
            .unwrap();
        writeln!(text, "writes that may be there or not: {}", tally.unsure_writes).unwrap();
        for (from, latencies) in &mut tally.latencies {
            latencies.sort_unstable();
            let at = |percent: usize| f64::from(latencies[latencies.len() * percent / 100]) / 1_000.0;
            writeln!(text, "{from}: {} answers, p50 {:.2} ms, p99 {:.2} ms", latencies.len(), at(50), at(99)).unwrap();
        }
        for (wanted, longest) in &tally.longest {
            writeln!(text, "longest from the first question to the answer, {wanted}: {} ms", longest.as_millis())
                .unwrap();
        }
        text
    }

    /// # Errors
    /// The first mistakes.
    pub(crate) fn verdict(&self) -> Result<(), String> {
        std::mem::take(&mut *lock(&self.mistakes)).verdict()
    }
}

impl Wanted {
    fn text(&self) -> &'static str {
        match self {
            Wanted::Any => "of copies too",
            Wanted::Owners => "of owners only",
            Wanted::At(_) => "that has what was written",
        }
    }
}

fn name(key: usize) -> String {
    format!("key-{key:04}")
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // A test that has failed in one thread is told there.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
