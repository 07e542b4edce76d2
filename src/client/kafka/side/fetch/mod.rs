//! A reader of changelogs of our own: `Fetch` over [`Link`](super::link), decoded straight into a [`RecordBatch`].
//!
//! ```text
//!   Directory ── Metadata ──> who leads            ┌ Peer: one connection to each broker that leads something
//!                                 │                │
//!   fetch, wait ── pump ──> Broker ── Fetch ──> answer ── survey ──> Chunk ─┐ at most two for a partition
//!        ^                                                                  │
//!        └── records ── Reading <── batch by batch, checked, unpacked <─────┘
//!
//!   what it cannot read ──> a consumer of librdkafka, from the same position
//! ```
//!
//! librdkafka allocates, queues and frees every record; a restoration of small ones spent a third of its time there.
//!
//! No thread: whoever fetches or waits drives the sockets. The next request is sent before the records of the last answer are
//! decoded, so that the broker works meanwhile. Invariants:
//!
//! * An answer counts for a partition only if it is still assigned as when it was asked for, and at the same offset.
//! * What is buffered ends at `Reading::next`. Whatever goes wrong with it is fetched again from `Reading::position`.
//! * A request is never for what has no room: memory is bounded by the partitions, whoever is not fetched from included.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mio::Token;
use rustc_hash::FxHashMap;

use self::directory::Directory;
use self::partition::{Heard, Leader, Reading, Spare};
use self::peer::{Dialer, Peer, Said};
use self::records::Tools;
use self::wire::{Fetched, Terms, Whereabouts, decode_fetch, encode_fetch};
use super::Failure;
use super::code::Code;
use super::link::Body;
use super::now;
use super::requests::Api;
use super::security::{Address, SideSettings};
use super::sockets::Sockets;
use crate::client::kafka::sys::Lz4;
use crate::client::{Consumer, Fetch, Isolation, Lag};
use crate::error::{Error, ErrorKind, Result};
use crate::record::{RecordBatch, TopicPartition};

mod aborted;
mod directory;
mod partition;
mod peer;
mod records;
mod wire;

/// What is buffered of all partitions, as long as there are few; none gets less than the second.
const BUFFER_BYTES: usize = 32 << 20;
const PARTITION_BYTES_MIN: usize = 64 << 10;

/// An answer to one request, whatever a partition may hold.
const ANSWER_BYTES: usize = 8 << 20;
const PARTITION_BYTES: usize = 1 << 20;

/// How long a broker waits for records while one of its partitions will have room again any moment.
const BUSY_WAIT: Duration = Duration::from_millis(10);

/// The pause after a broker has said "nothing" without having waited for something.
const EMPTY_PAUSE: Duration = Duration::from_millis(10);

/// How often a caller that only fetches drives the sockets: it asks for one partition after another, and a thousand standbys
/// would be looked through for each of them.
const PUMP_PAUSE: Duration = Duration::from_micros(500);

/// How long a topic may be unknown, which a new one is to some brokers, until librdkafka is asked about it.
const MISSING_PATIENCE: Duration = Duration::from_secs(5);

/// Makes the consumer that reads what cannot be read here; it wakes by what it is given.
pub(in crate::client::kafka) type MakeFallback =
    Box<dyn Fn(Arc<dyn Fn() + Send + Sync>) -> Result<Box<dyn Consumer>> + Send>;

/// How much is asked for.
#[derive(Debug, Clone, Copy)]
struct Limits {
    max_wait: Duration,
    min_bytes: i32,
    answer_bytes: usize,
    partition_bytes: usize,
}

pub(in crate::client::kafka) struct ChangelogReader {
    dialer: Dialer,
    limits: Limits,
    sockets: Sockets,
    tools: Tools,
    spare: Spare,
    readings: FxHashMap<TopicPartition, Reading>,
    brokers: BTreeMap<i32, Broker>,
    directory: Directory,
    make_fallback: MakeFallback,
    /// Reads what is not read here, once there was such a thing.
    fallback: Option<Box<dyn Consumer>>,
    /// What the fallback is to read, and why.
    foreign: Vec<(TopicPartition, String)>,
    /// A caller has not seen what is new.
    is_fresh: bool,
    pumped: Option<Instant>,
    /// Counters of what has to be told apart.
    assignments: u64,
    tokens: usize,
    turns: u64,
}

impl fmt::Debug for ChangelogReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChangelogReader").field("readings", &self.readings).finish_non_exhaustive()
    }
}

#[derive(Debug)]
struct Broker {
    peer: Peer,
    asked: Option<Asked>,
    /// It is not asked before.
    not_before: Option<Instant>,
}

/// A request under way.
#[derive(Debug)]
struct Asked {
    partitions: Vec<AskedPartition>,
    at: Instant,
    max_wait: Duration,
}

#[derive(Debug)]
struct AskedPartition {
    partition: TopicPartition,
    assignment: u64,
    offset: i64,
}

impl ChangelogReader {
    /// `setting` gives the value that librdkafka's consumer would have for a setting.
    ///
    /// # Errors
    /// `Invalid` for a setting that only librdkafka can follow; `Unavailable` when the system has no memory or sockets.
    pub(in crate::client::kafka) fn new(
        bootstrap: &str,
        setting: &dyn Fn(&str) -> Option<String>,
        (client_id, isolation): (&str, Isolation),
        make_fallback: MakeFallback,
    ) -> Result<ChangelogReader> {
        let settings = Arc::new(SideSettings::new(bootstrap, setting)?);
        let number = |name: &str, default: usize| setting(name).and_then(|value| value.parse().ok()).unwrap_or(default);
        let partition_bytes = number("fetch.message.max.bytes", PARTITION_BYTES).min(PARTITION_BYTES);
        let queued = number("queued.max.messages.kbytes", BUFFER_BYTES >> 10).saturating_mul(1 << 10);
        let limits = Limits {
            max_wait: Duration::from_millis(u64::try_from(number("fetch.wait.max.ms", 100)).unwrap_or(100)),
            min_bytes: i32::try_from(number("fetch.min.bytes", 1)).unwrap_or(1),
            answer_bytes: number("fetch.max.bytes", ANSWER_BYTES).clamp(1, ANSWER_BYTES),
            partition_bytes: partition_bytes.min(queued / 2).max(1),
        };
        let no_memory = || Error::new(ErrorKind::Unavailable, format!("no memory for the consumer {client_id}"));
        let dialer = Dialer {
            settings,
            client_id: client_id.into(),
            // A batch that is larger than what is asked for comes nevertheless.
            response_bytes_max: number("receive.message.max.bytes", 100_000_000).max(2 * ANSWER_BYTES),
        };
        Ok(ChangelogReader {
            dialer,
            limits,
            sockets: Sockets::of(&format!("the brokers of the consumer {client_id}"))?,
            tools: Tools { isolation, lz4: Lz4::new().ok_or_else(no_memory)? },
            spare: Spare::default(),
            readings: FxHashMap::default(),
            brokers: BTreeMap::new(),
            directory: Directory::default(),
            make_fallback,
            fallback: None,
            foreign: Vec::new(),
            is_fresh: false,
            pumped: None,
            assignments: 0,
            tokens: 0,
            turns: 0,
        })
    }

    /// Does what can be done without waiting.
    fn pump(&mut self, now: Instant) {
        self.pumped = Some(now);
        self.find_leaders(now);
        let mut brokers = std::mem::take(&mut self.brokers);
        for (id, broker) in &mut brokers {
            self.serve(*id, broker, now);
        }
        self.brokers = brokers;
    }

    // ---- who leads ----

    fn find_leaders(&mut self, now: Instant) {
        let mut topics: Vec<Arc<str>> = Vec::new();
        for (partition, reading) in &self.readings {
            if reading.leader.is_none() && !reading.is_paused(now) && !topics.contains(&partition.topic) {
                topics.push(Arc::clone(&partition.topic));
            }
        }
        let at = (self.sockets.registry(), &mut self.tokens);
        match self.directory.drive(&topics, &self.dialer, at, now) {
            Ok(None) => {}
            Ok(Some(found)) => self.found(&found, now),
            Err(failure) => {
                let leaderless = self.readings.iter().filter(|(_, reading)| reading.leader.is_none());
                self.foreign.extend(leaderless.map(|(partition, _)| (partition.clone(), failure.to_string())));
            }
        }
    }

    fn found(&mut self, found: &Whereabouts, now: Instant) {
        for topic in &found.topics {
            let of_topic = self.readings.iter_mut().filter(|(partition, _)| partition.topic == topic.name);
            for (partition, reading) in of_topic.filter(|(_, reading)| reading.leader.is_none()) {
                let led = topic.partitions.iter().find(|led| led.partition == partition.partition);
                let address = led.and_then(|led| found.brokers.iter().find(|(id, _)| *id == led.leader));
                if let (Some(led), Some((_, address))) = (led, address) {
                    reading.leader = Some(Leader { broker: led.leader, epoch: led.epoch });
                    Self::know(&mut self.brokers, (led.leader, address), &mut self.tokens);
                    continue;
                }
                let code = match led {
                    _ if topic.error != Code::NONE => topic.error,
                    None => Code::UNKNOWN_TOPIC_OR_PARTITION,
                    Some(led) if led.error != Code::NONE => led.error,
                    Some(_) => Code::LEADER_NOT_AVAILABLE,
                };
                if let Some(why) = refused(code, reading, now) {
                    self.foreign.push((partition.clone(), why));
                }
            }
        }
    }

    fn know(brokers: &mut BTreeMap<i32, Broker>, (id, address): (i32, &Address), tokens: &mut usize) {
        if brokers.get(&id).is_none_or(|broker| broker.peer.address != *address && broker.asked.is_none()) {
            *tokens += 1;
            let peer = Peer::new(address.clone(), Token(*tokens));
            brokers.insert(id, Broker { peer, asked: None, not_before: None });
        }
    }

    // ---- what a leader is asked for ----

    fn serve(&mut self, id: i32, broker: &mut Broker, now: Instant) {
        loop {
            let is_paused = broker.not_before.is_some_and(|time| now < time);
            let is_needed = broker.asked.is_some()
                || !is_paused && self.readings.values().any(|reading| reading.is_wanted(id, now));
            match broker.peer.drive(is_needed, &self.dialer, self.sockets.registry(), now) {
                Ok(Said::Nothing) => return,
                Ok(Said::Ready) => {
                    if let Err(failure) = self.ask(id, broker, now) {
                        return self.lost(id, broker, &failure, now);
                    }
                }
                Ok(Said::Answer(body)) => {
                    if let Err(failure) = self.answered(broker, &body, now) {
                        let failure = broker.peer.hang_up(failure, &self.dialer.settings, now);
                        return self.lost(id, broker, &failure, now);
                    }
                    broker.peer.give_back(body);
                }
                Err(failure) => return self.lost(id, broker, &failure, now),
            }
        }
    }

    fn ask(&mut self, id: i32, broker: &mut Broker, now: Instant) -> std::result::Result<(), Failure> {
        let mut is_busy = false;
        for reading in self.readings.values_mut().filter(|reading| reading.is_led_by(id)) {
            is_busy |= std::mem::take(&mut reading.is_taken) && !reading.has_room();
        }
        let terms = self.terms();
        let mut wanted: Vec<_> = self.readings.iter_mut().filter(|(_, reading)| reading.is_wanted(id, now)).collect();
        wanted.sort_unstable_by_key(|(_, reading)| reading.served);
        let max_wait = match is_busy {
            // Somebody waits for the first answer, which tells at least where the end is.
            _ if wanted.iter().any(|(_, reading)| reading.lag() == Lag::Unknown) => Duration::ZERO,
            true => BUSY_WAIT.min(self.limits.max_wait),
            false => self.limits.max_wait,
        };
        let terms = Terms { max_wait, ..terms };
        let request: Vec<_> = wanted.iter().map(|(partition, reading)| reading.wanted(partition)).collect();
        let body = encode_fetch(&terms, &request);
        let partitions = wanted.into_iter().map(|(partition, reading)| {
            reading.is_asked = true;
            AskedPartition { partition: partition.clone(), assignment: reading.assignment, offset: reading.next }
        });
        broker.asked = Some(Asked { partitions: partitions.collect(), at: now, max_wait });
        let patience = self.dialer.settings.request_timeout + max_wait;
        broker.peer.ask((Api::Fetch, &body), patience, &self.dialer.settings, now)
    }

    fn terms(&self) -> Terms {
        let share = BUFFER_BYTES / 2 / self.readings.len().max(1);
        let partition_bytes = self.limits.partition_bytes.min(share.max(PARTITION_BYTES_MIN));
        Terms {
            isolation: self.tools.isolation,
            max_wait: self.limits.max_wait,
            min_bytes: self.limits.min_bytes,
            max_bytes: i32::try_from(self.limits.answer_bytes).unwrap_or(i32::MAX),
            partition_max_bytes: i32::try_from(partition_bytes).unwrap_or(i32::MAX),
        }
    }

    // ---- what it answers ----

    fn answered(&mut self, broker: &mut Broker, body: &Body, now: Instant) -> std::result::Result<(), Failure> {
        let mut answer = decode_fetch(body).map_err(Failure::malformed)?;
        if answer.error != Code::NONE {
            return Err(Failure::Lost(format!("could not fetch: {}", answer.error)));
        }
        let Some(asked) = broker.asked.take() else { return Ok(()) };
        let mut told: Vec<_> = answer
            .topics
            .iter_mut()
            .flat_map(|(topic, partitions)| partitions.iter_mut().map(move |fetched| (*topic, fetched)))
            .collect();
        let mut is_empty = true;
        for (place, of) in asked.partitions.into_iter().enumerate() {
            let Some(reading) = self.readings.get_mut(&of.partition).filter(|r| r.assignment == of.assignment) else {
                continue;
            };
            reading.is_asked = false;
            let is_of = |told: &(&str, &mut Fetched<'_>)| {
                *told.0 == *of.partition.topic && told.1.partition == of.partition.partition
            };
            // As a rule, they come in the order in which they were asked for.
            let found = match told.get(place).is_some_and(is_of) {
                true => told.get_mut(place),
                false => told.iter_mut().find(|told| is_of(told)),
            };
            let Some((_, fetched)) = found else {
                reading.failed(now);
                continue;
            };
            is_empty &= fetched.records.is_empty() && fetched.error == Code::NONE;
            // What was buffered meanwhile, or given up, is not what was asked for.
            if reading.next != of.offset {
                continue;
            }
            match fetched.error {
                Code::NONE if !fetched.is_diverging => {
                    let heard = reading.heard(fetched, self.tools.isolation, &mut self.spare);
                    if reading.next != of.offset {
                        self.turns += 1;
                        reading.served = self.turns;
                    }
                    self.is_fresh |= heard != Heard::Nothing;
                    if heard == Heard::Foreign {
                        let why = "it has batches of an older format or another compression than LZ4".to_owned();
                        self.foreign.push((of.partition, why));
                    }
                }
                // The broker compares leader epochs first: it is the leader that says so. Diverging: the log was cut and goes
                // on otherwise (KIP-595), what was read is not in it any more.
                Code::NONE | Code::OFFSET_OUT_OF_RANGE => {
                    reading.out_of_range();
                    self.is_fresh = true;
                }
                code => {
                    tracing::debug!(partition = %of.partition, offset = of.offset, %code, "could not fetch");
                    if let Some(why) = refused(code, reading, now) {
                        self.foreign.push((of.partition, why));
                    }
                }
            }
        }
        let waited = now.saturating_duration_since(asked.at);
        let is_hasty = is_empty && asked.max_wait > Duration::ZERO && waited < asked.max_wait / 2;
        let pause = answer.throttle.max(if is_hasty { EMPTY_PAUSE } else { Duration::ZERO });
        broker.not_before = (pause > Duration::ZERO).then(|| now + pause);
        Ok(())
    }

    /// The connection to a leader is gone, or could not be made: somebody else may lead by now.
    fn lost(&mut self, id: i32, broker: &mut Broker, failure: &Failure, now: Instant) {
        tracing::debug!(client = %self.dialer.client_id, %failure, "a connection to read changelogs is lost");
        for of in broker.asked.take().into_iter().flat_map(|asked| asked.partitions) {
            if let Some(reading) = self.readings.get_mut(&of.partition).filter(|r| r.assignment == of.assignment) {
                reading.is_asked = false;
            }
        }
        for (partition, reading) in self.readings.iter_mut().filter(|(_, reading)| reading.is_led_by(id)) {
            reading.failed(now);
            if matches!(failure, Failure::Denied(_)) {
                self.foreign.push((partition.clone(), failure.to_string()));
            }
        }
    }

    // ---- what is read by librdkafka ----

    fn hand_over(&mut self) -> Result<()> {
        if self.foreign.is_empty() {
            return Ok(());
        }
        let mut moved = Vec::new();
        for (partition, why) in std::mem::take(&mut self.foreign) {
            let Some(reading) = self.readings.get(&partition) else { continue };
            if !moved.iter().any(|(known, _)| *known == partition) {
                tracing::info!("{partition} is read through librdkafka from offset {}: {why}", reading.position);
                moved.push((partition, reading.position));
            }
        }
        let fallback = match &mut self.fallback {
            Some(fallback) => fallback,
            none => none.insert((self.make_fallback)(self.sockets.waker())?),
        };
        fallback.assign(&moved)?;
        for (partition, _) in &moved {
            self.readings.remove(partition);
        }
        self.is_fresh = true;
        Ok(())
    }

    /// When there is something to do even if all sockets keep still.
    ///
    /// What is not later than `now` was done in the `pump` of that time.
    fn next_time(&self, now: Instant) -> Option<Instant> {
        let brokers =
            self.brokers.values().flat_map(|broker| broker.peer.next_time().into_iter().chain(broker.not_before));
        let readings = self.readings.values().filter_map(|reading| reading.not_before);
        brokers.chain(readings).chain(self.directory.times()).filter(|time| *time > now).min()
    }
}

/// An error that a broker has for a partition; what librdkafka is to find out about it, unless it passes.
fn refused(code: Code, reading: &mut Reading, now: Instant) -> Option<String> {
    match code {
        Code::UNKNOWN_TOPIC_OR_PARTITION => {
            let since = *reading.missing_since.get_or_insert(now);
            reading.failed(now);
            (now.saturating_duration_since(since) > MISSING_PATIENCE).then(|| code.to_string())
        }
        code if code.passes_with_a_leader() => {
            reading.failed(now);
            None
        }
        code => {
            reading.failed(now);
            Some(code.to_string())
        }
    }
}

impl Consumer for ChangelogReader {
    fn assign(&mut self, partitions: &[(TopicPartition, i64)]) -> Result<()> {
        for (partition, offset) in partitions {
            if let Some(fallback) = &mut self.fallback {
                fallback.unassign(std::slice::from_ref(partition))?;
            }
            self.assignments += 1;
            let leader = self.readings.get(partition).and_then(|reading| reading.leader);
            let reading = Reading::new(self.assignments, *offset, leader);
            self.readings.insert(partition.clone(), reading);
        }
        self.pump(now());
        Ok(())
    }

    fn unassign(&mut self, partitions: &[TopicPartition]) -> Result<()> {
        for partition in partitions {
            self.readings.remove(partition);
        }
        self.fallback.as_mut().map_or(Ok(()), |fallback| fallback.unassign(partitions))
    }

    fn fetch(&mut self, partition: &TopicPartition, records_max: usize, batch: &mut RecordBatch) -> Result<Fetch> {
        let now = now();
        if self.pumped.is_none_or(|time| now.saturating_duration_since(time) >= PUMP_PAUSE) {
            self.pump(now);
        }
        self.hand_over()?;
        let Some(reading) = self.readings.get_mut(partition) else {
            return self
                .fallback
                .as_mut()
                .map_or(Ok(Fetch::Records), |fallback| fallback.fetch(partition, records_max, batch));
        };
        let had_room = reading.has_room();
        let found = reading.fetch(partition, records_max, (&mut self.tools, &mut self.spare), batch)?;
        self.is_fresh |= reading.has_more();
        if !had_room && reading.has_room() {
            // So that the broker works while the caller does.
            self.pump(now);
        }
        Ok(found)
    }

    fn position(&self, partition: &TopicPartition) -> Option<i64> {
        let fallback = || self.fallback.as_ref().and_then(|fallback| fallback.position(partition));
        self.readings.get(partition).map(|reading| reading.position).or_else(fallback)
    }

    fn lag(&self, partition: &TopicPartition) -> Lag {
        match (self.readings.get(partition), &self.fallback) {
            (Some(reading), _) => reading.lag(),
            (None, Some(fallback)) => fallback.lag(partition),
            (None, None) => Lag::Unknown,
        }
    }

    fn end(&self, partition: &TopicPartition) -> Option<i64> {
        match self.readings.get(partition) {
            Some(reading) => reading.end(),
            None => self.fallback.as_ref().and_then(|fallback| fallback.end(partition)),
        }
    }

    fn wait(&mut self, timeout: Duration) -> Result<()> {
        let started = now();
        loop {
            if let Some(fallback) = &mut self.fallback {
                fallback.wait(Duration::ZERO)?;
            }
            let now = now();
            self.pump(now);
            self.hand_over()?;
            let left = timeout.saturating_sub(now.saturating_duration_since(started));
            if std::mem::take(&mut self.is_fresh) || left.is_zero() {
                return Ok(());
            }
            // The socket events themselves say no more than the pump finds out.
            let next = self.next_time(now);
            if self.sockets.wait_until(next, left, now) {
                return Ok(());
            }
        }
    }

    fn waker(&self) -> Arc<dyn Fn() + Send + Sync> {
        self.sockets.waker()
    }
}

#[cfg(test)]
mod tests;
