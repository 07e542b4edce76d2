//! The thread that writes: many callers, one producer, one round trip for all that wait.

use std::collections::BTreeSet;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use tokio::sync::oneshot;

use crate::client::{Cluster, Producer, ProducerSpec};
use crate::error::{Error, ErrorKind, Result};
use crate::query::Position;
use crate::record::{Headers, ProducerRecord, TopicPartition};

/// How long the cluster may take to acknowledge.
const DELIVERY_TIMEOUT: Duration = Duration::from_secs(30);
/// Records that are sent before the writer waits for all of them.
const TOGETHER_MAX: usize = 512;

/// A record that waits to be written, and who waits for it.
pub(super) struct Write {
    pub(super) topic: Arc<str>,
    pub(super) partition: i32,
    pub(super) key: Vec<u8>,
    pub(super) value: Vec<u8>,
    pub(super) headers: Headers,
    pub(super) done: oneshot::Sender<Result<Position>>,
}

impl Write {
    fn place(&self) -> TopicPartition {
        TopicPartition::new(Arc::clone(&self.topic), self.partition)
    }
}

/// The way to the thread. It ends, with all that waits, when this is dropped.
pub(super) struct Writer {
    queue: Mutex<Option<SyncSender<Write>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Writer {
    pub(super) fn start(cluster: Arc<dyn Cluster>, client_id: &str, writes_max: usize) -> Result<Writer> {
        let (queue, writes) = sync_channel(writes_max);
        let client_id = client_id.to_owned();
        let name = format!("{client_id}-writer");
        let mut thread = Thread { cluster, client_id, producer: None };
        let run = move || thread.run(&writes);
        let thread = Builder::new().name(name.clone()).spawn(run).map_err(|error| not_started(&name, error))?;
        Ok(Writer { queue: Mutex::new(Some(queue)), thread: Mutex::new(Some(thread)) })
    }

    pub(super) async fn write(
        &self,
        write: impl FnOnce(oneshot::Sender<Result<Position>>) -> Write,
    ) -> Result<Position> {
        let (done, written) = oneshot::channel();
        let queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let sent = queue.map_or(Err(None), |queue| {
            queue.try_send(write(done)).map_err(|refused| match refused {
                TrySendError::Full(write) => Some(write.topic),
                TrySendError::Disconnected(_) => None,
            })
        });
        match sent {
            Ok(()) => written.await.unwrap_or_else(|_| Err(closed())),
            Err(Some(topic)) => {
                let context =
                    format!("too many requests wait to be written, one for topic {topic} too: try again later");
                Err(Error::new(ErrorKind::Unavailable, context))
            }
            Err(None) => Err(closed()),
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        // The thread ends when it has written what is in the queue.
        drop(self.queue.lock().unwrap_or_else(PoisonError::into_inner).take());
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            let _ = thread.join();
        }
    }
}

struct Thread {
    cluster: Arc<dyn Cluster>,
    client_id: String,
    /// None: at the begin, and after a failure, after which nobody knows what the old one still does.
    producer: Option<Box<dyn Producer>>,
}

impl Thread {
    fn run(&mut self, writes: &Receiver<Write>) {
        while let Ok(first) = writes.recv() {
            let mut together = vec![first];
            together.extend(writes.try_iter().take(TOGETHER_MAX - 1));
            // Who has gone away meanwhile does not want it written.
            together.retain(|write| !write.done.is_closed());
            match self.write(&together) {
                Ok(failed) => self.tell(together, &failed),
                Err(error) => {
                    self.producer = None;
                    tracing::warn!("{}", error.report());
                    together.into_iter().for_each(|write| refuse(write, error.kind(), &error.report()));
                }
            }
        }
    }

    /// The partitions that did not take everything.
    fn write(&mut self, together: &[Write]) -> Result<BTreeSet<TopicPartition>> {
        let producer = match &mut self.producer {
            Some(producer) => producer,
            none => {
                let (client_id, transaction_timeout) = (self.client_id.clone(), DELIVERY_TIMEOUT);
                let spec =
                    ProducerSpec { client_id, transactional_id: None, transaction_timeout, outputs: Arc::default() };
                none.insert(self.cluster.producer(&spec)?)
            }
        };
        for write in together {
            let Write { topic, partition, key, value, headers, .. } = write;
            let (partition, key, value) = (Some(*partition), Some(key.as_slice()), Some(value.as_slice()));
            producer.send(ProducerRecord { topic, partition, key, value, timestamp: None, headers }, true)?;
        }
        let failures = producer.confirm(DELIVERY_TIMEOUT)?;
        for failure in &failures {
            tracing::warn!("could not write a request to {}: {}", failure.partition, failure.error.report());
        }
        Ok(failures.into_iter().map(|failure| failure.partition).collect())
    }

    fn tell(&mut self, together: Vec<Write>, failed: &BTreeSet<TopicPartition>) {
        let Some(producer) = &self.producer else { return };
        for write in together {
            let place = write.place();
            match producer.end_offset(&place).filter(|_| !failed.contains(&place)) {
                // Who has gone away does not want to know it.
                Some(end) => drop(write.done.send(Ok(Position::at(&place.topic, place.partition, end - 1)))),
                // Which of the partition's records it was is not told: those that are there may be written again.
                None => refuse(write, ErrorKind::Unavailable, "the cluster did not take it"),
            }
        }
    }
}

fn refuse(write: Write, kind: ErrorKind, why: &str) {
    let context = format!("could not write a request to {}: {why}; repeat it under the same key", write.place());
    let _ = write.done.send(Err(Error::new(kind, context)));
}

#[cold]
fn closed() -> Error {
    Error::new(ErrorKind::Closed, "the gateway is closed: ask another instance")
}

#[cold]
pub(super) fn not_started(thread: &str, error: std::io::Error) -> Error {
    Error::new(ErrorKind::Unavailable, format!("could not start thread {thread}")).with_source(error)
}
