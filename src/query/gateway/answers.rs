//! Answers that come as records of a topic, and who waits for them.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use tokio::sync::oneshot;

use super::writer::not_started;
use super::{CORRELATION_ID, LOOK_AROUND};
use crate::client::{Cluster, Consumer, ConsumerSpec, Fetch, Isolation, Topics};
use crate::error::{Error, ErrorKind, Result};
use crate::record::{ConsumerRecord, RecordBatch, TopicPartition};
use crate::serdes::DynSerde;

/// Records taken of a partition at once.
const RECORDS_MAX: usize = 1_024;

/// What tells whose answer a record is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum CorrelateBy {
    /// The correlation id of the request, which has come with it through every operator.
    Header,
    /// The record's key, as UTF-8.
    Key,
}

/// The records of a result topic from now on, each for whoever waits for it: [`Gateway::answers`](crate::Gateway::answers).
///
/// Every instance reads all of them, so that a caller may wait on any. What came before anybody waited is not kept; a caller
/// that comes back later asks a store ([`StateWatch`](crate::StateWatch)).
pub struct Answers<V> {
    waiting: Arc<Waiting<V>>,
    thread: Option<JoinHandle<()>>,
    wake: Arc<dyn Fn() + Send + Sync>,
}

struct Waiting<V> {
    topic: Arc<str>,
    by_id: Mutex<Waiters<V>>,
    waiters_max: usize,
    is_over: AtomicBool,
}

type Answer<V> = oneshot::Sender<Result<V>>;

struct Waiters<V> {
    by_id: HashMap<String, Vec<(u64, Answer<V>)>>,
    count: usize,
    next: u64,
}

impl<V: Send + 'static> Answers<V> {
    pub(super) fn start(
        cluster: &Arc<dyn Cluster>,
        client_id: &str,
        topic: &str,
        correlate_by: CorrelateBy,
        value: DynSerde<V>,
        waiters_max: usize,
    ) -> Result<Answers<V>> {
        let topic: Arc<str> = topic.into();
        let mut admin = cluster.admin()?;
        let found = admin.topics(&[Arc::clone(&topic)])?.into_iter().next().flatten();
        let missing = || Error::invalid(format!("topic {topic}, for answers, does not exist: create it"));
        let count = found.ok_or_else(missing)?.partitions;
        let partitions: Vec<_> = (0..count).map(|number| TopicPartition::new(Arc::clone(&topic), number)).collect();
        // The ends as they are now: an answer to what is asked from now on comes after them.
        let ends = admin.watermarks(&partitions)?.into_iter().map(|marks| marks.end);
        let from: Vec<_> = partitions.into_iter().zip(ends).collect();
        let spec =
            ConsumerSpec { client_id: client_id.to_owned(), isolation: Isolation::ReadCommitted, topics: Topics::Any };
        let mut consumer = cluster.consumer(&spec)?;
        consumer.assign(&from)?;
        let wake = consumer.waker();
        let by_id = Mutex::new(Waiters { by_id: HashMap::new(), count: 0, next: 0 });
        let waiting = Arc::new(Waiting { topic, by_id, waiters_max, is_over: AtomicBool::new(false) });
        let partitions = from.into_iter().map(|(partition, _)| partition).collect();
        let batch = RecordBatch::default();
        let mut reader = Reader { consumer, partitions, batch, correlate_by, value, waiting: Arc::clone(&waiting) };
        let name = format!("{client_id}-answers");
        let thread = Builder::new().name(name.clone()).spawn(move || reader.run());
        let thread = Some(thread.map_err(|error| not_started(&name, error))?);
        Ok(Answers { waiting, thread, wake })
    }

    /// A place for the answer to a request: taken before the request is written, so that no answer is missed. It is given
    /// back when it is dropped.
    ///
    /// # Errors
    /// `Unavailable`: too many wait. `Closed`: the topic is not read any more.
    pub fn expect(&self, id: &str) -> Result<Awaited<V>> {
        self.waiting.expect(id)
    }

    /// How many wait now.
    pub fn waiting(&self) -> usize {
        self.waiting.waiters().count
    }
}

impl<V> Waiting<V> {
    fn expect(self: &Arc<Self>, id: &str) -> Result<Awaited<V>> {
        let mut waiters = self.waiters();
        if self.is_over.load(Ordering::Relaxed) {
            return Err(closed(&self.topic));
        }
        if waiters.count >= self.waiters_max {
            let context = format!("too many wait for answers of topic {}: try again later", self.topic);
            return Err(Error::new(ErrorKind::Unavailable, context));
        }
        let (answer, answered) = oneshot::channel();
        waiters.count += 1;
        waiters.next += 1;
        let number = waiters.next;
        waiters.by_id.entry(id.to_owned()).or_default().push((number, answer));
        Ok(Awaited { place: Place { waiting: Arc::clone(self), id: id.to_owned(), number }, answered })
    }

    /// Relaxed flags beside it: the lock orders them.
    fn waiters(&self) -> MutexGuard<'_, Waiters<V>> {
        // A panic leaves nothing half done but a count, which bounds and decides nothing else.
        self.by_id.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<V> Drop for Answers<V> {
    fn drop(&mut self) {
        self.waiting.is_over.store(true, Ordering::Relaxed);
        (self.wake)();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl<V> fmt::Debug for Answers<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Answers").field("topic", &self.waiting.topic).finish_non_exhaustive()
    }
}

/// An answer that is to come: [`Answers::expect`].
pub struct Awaited<V> {
    place: Place<V>,
    answered: oneshot::Receiver<Result<V>>,
}

impl<V> Awaited<V> {
    /// Waits for the answer, at most so long.
    ///
    /// # Errors
    /// `Unavailable`: it has not come in time. `Corrupted`: it cannot be read. `Closed`: the topic is not read any more.
    pub async fn within(self, timeout: Duration) -> Result<V> {
        let Awaited { place, answered } = self;
        match tokio::time::timeout(timeout, answered).await {
            Ok(answer) => answer.unwrap_or_else(|_| Err(closed(&place.waiting.topic))),
            Err(_) => {
                let context = format!("no answer to {} has come in topic {} in time", place.id, place.waiting.topic);
                Err(Error::new(ErrorKind::Unavailable, context + ": ask again"))
            }
        }
    }
}

impl<V> fmt::Debug for Awaited<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Awaited").field("id", &self.place.id).finish_non_exhaustive()
    }
}

/// Is given back when it is dropped: by an answer, the end of a wait, or a caller that has gone away.
struct Place<V> {
    waiting: Arc<Waiting<V>>,
    id: String,
    number: u64,
}

impl<V> Drop for Place<V> {
    fn drop(&mut self) {
        let mut waiters = self.waiting.waiters();
        waiters.count = waiters.count.saturating_sub(1);
        if let Some(of_id) = waiters.by_id.get_mut(&self.id) {
            of_id.retain(|(number, _)| *number != self.number);
            if of_id.is_empty() {
                waiters.by_id.remove(&self.id);
            }
        }
    }
}

struct Reader<V> {
    consumer: Box<dyn Consumer>,
    partitions: Vec<TopicPartition>,
    batch: RecordBatch,
    correlate_by: CorrelateBy,
    value: DynSerde<V>,
    waiting: Arc<Waiting<V>>,
}

impl<V: 'static> Reader<V> {
    fn run(&mut self) {
        while !self.waiting.is_over.load(Ordering::Relaxed) {
            if let Err(error) = self.turn() {
                // The next answers are read all the same; who waits for those that are lost ends with its timeout.
                tracing::warn!("could not read answers of topic {}: {}", self.waiting.topic, error.report());
            }
        }
        self.waiting.waiters().by_id.clear();
    }

    fn turn(&mut self) -> Result<()> {
        self.consumer.wait(LOOK_AROUND)?;
        for partition in &self.partitions {
            loop {
                self.batch.clear();
                if self.consumer.fetch(partition, RECORDS_MAX, &mut self.batch)? == Fetch::OutOfRange {
                    let end = self.consumer.end(partition).unwrap_or_default();
                    self.consumer.assign(&[(partition.clone(), end)])?;
                }
                for record in self.batch.iter(partition.partition) {
                    self.hand_out(&record);
                }
                if self.batch.len() < RECORDS_MAX {
                    break;
                }
            }
        }
        Ok(())
    }

    fn hand_out(&self, record: &ConsumerRecord<'_>) {
        let id = match self.correlate_by {
            CorrelateBy::Header => record.headers.last(CORRELATION_ID).flatten(),
            CorrelateBy::Key => record.key,
        };
        let Some(id) = id.and_then(|id| std::str::from_utf8(id).ok()) else { return };
        // Each gives its place back by itself.
        let Some(waiters) = self.waiting.waiters().by_id.remove(id) else { return };
        for (_, waiter) in waiters {
            let value = record.value.ok_or_else(|| Error::corrupted("there is no value"));
            let answer = value.and_then(|value| self.value.deserialize(value)).map_err(|error| {
                let place = format!("{}[{}]@{}", self.waiting.topic, record.partition, record.offset);
                Error::new(ErrorKind::Corrupted, format!("could not read the answer {place}")).with_source(error)
            });
            let _ = waiter.send(answer);
        }
    }
}

#[cold]
fn closed(topic: &str) -> Error {
    Error::new(ErrorKind::Closed, format!("answers of topic {topic} are not read any more: ask another instance"))
}
