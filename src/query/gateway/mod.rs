//! Request and response over events: a request is written as a record, and its answer awaited as a record or a state.
//!
//! ```text
//!   caller ── write ──> queue ── writer thread ──> topic ──> … topologies … ──> result topic, store
//!     │  <── position ─────────────┘                                               │          │
//!     ├── Answers::expect ── by correlation id ────────────── reader thread <──────┘          │
//!     └── StateWatch::until ── by key, from a position on ─── watching thread <───────────────┘
//! ```
//!
//! A gateway keeps nothing that a crash could lose: what was acknowledged is in the log, who waited asks again on any
//! instance, and a request that is repeated under its [`IdempotencyKey`] is the same request. Every queue and every list of
//! waiters has a bound, beyond which callers are refused at once; a caller that goes away takes its place with it.

mod answers;
mod idempotency;
mod watch;
mod writer;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

pub use answers::{Answers, Awaited, CorrelateBy};
pub use idempotency::IdempotencyKey;
pub use watch::{StateWatch, Watched};
use writer::{Write, Writer};

use crate::client::{Cluster, partition_for_key};
use crate::config::Config;
use crate::error::{Error, Result};
use crate::query::{Position, QueryableStore};
use crate::record::Headers;
use crate::serdes::{DynSerde, Serde};
use crate::state::KeyValueStore;

/// The header that carries a correlation id from a request to its answer. Operators hand headers on.
const CORRELATION_ID: &str = "kstreams.correlation-id";

/// Writes requests as events and waits for what becomes of them, for services that answer their callers.
///
/// One of it serves a whole process, from any number of tasks. It writes at least once, acknowledged by all replicas: what
/// is written twice because an acknowledgement was lost has the same key, and the topology behind takes the first (see
/// [`IdempotencyKey`]). Queues and waiters are bounded by [`GatewayLimits`].
///
/// ```
/// use kstreams::*;
/// use std::time::Duration;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<()> {
/// let builder = StreamsBuilder::new();
/// builder
///     .stream("questions", Consumed::with(Utf8, Utf8))
///     .map_values(|question| question.to_uppercase())
///     .to("answers", Produced::with(Utf8, Utf8));
/// let cluster = EmbeddedCluster::new();
/// cluster.create_topic("questions", 2)?;
/// cluster.create_topic("answers", 2)?;
/// let config = Config::new("oracle", "embedded://").cluster(&cluster).exactly_once();
/// let streams = KafkaStreams::new(builder.build()?, config.clone())?;
/// streams.start()?;
///
/// let gateway = Gateway::open(&config)?;
/// let questions = gateway.topic("questions", Utf8, Utf8)?;
/// let answers = gateway.answers("answers", CorrelateBy::Header, Utf8)?;
/// let id = IdempotencyKey::random();
/// let awaited = answers.expect(id.as_str())?;
/// let written = questions.write(&"why".to_owned(), &"because?".to_owned(), Some(&id)).await?;
/// assert!(written.iter().all(|(partition, _offset)| &*partition.topic == "questions"));
/// assert_eq!(awaited.within(Duration::from_secs(30)).await?, "BECAUSE?");
/// # Ok(())
/// # }
/// ```
pub struct Gateway {
    cluster: Arc<dyn Cluster>,
    client_id: String,
    limits: GatewayLimits,
    writer: Arc<Writer>,
}

/// How much may wait in a [`Gateway`]. What comes on top is refused with [`Unavailable`](crate::ErrorKind::Unavailable) at
/// once, for the caller to come again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct GatewayLimits {
    writes: usize,
    waiters: usize,
    record_bytes: usize,
}

impl Default for GatewayLimits {
    fn default() -> GatewayLimits {
        GatewayLimits { writes: 1_024, waiters: 10_000, record_bytes: 64 * 1024 }
    }
}

impl GatewayLimits {
    /// Records that may wait to be written; 1,024 by default, and one at least.
    #[must_use]
    pub fn writes(self, writes: usize) -> Self {
        GatewayLimits { writes: writes.max(1), ..self }
    }

    /// Callers that may wait for answers, for each [`Answers`] and each [`StateWatch`]; 10,000 by default.
    #[must_use]
    pub fn waiters(self, waiters: usize) -> Self {
        GatewayLimits { waiters, ..self }
    }

    /// Bytes of the key and value of a record together; 64 KiB by default. What waits to be written takes at most so much
    /// for each of [`writes`](GatewayLimits::writes).
    #[must_use]
    pub fn record_bytes(self, record_bytes: usize) -> Self {
        GatewayLimits { record_bytes, ..self }
    }
}

impl Gateway {
    /// A gateway to the cluster of an application, with the default limits.
    ///
    /// # Errors
    /// `Invalid` for settings that cannot be. `Unavailable`: its thread cannot be started.
    pub fn open(config: &Config) -> Result<Gateway> {
        Gateway::with_limits(config, GatewayLimits::default())
    }

    /// The same with other limits.
    ///
    /// # Errors
    /// As [`open`](Gateway::open).
    pub fn with_limits(config: &Config, limits: GatewayLimits) -> Result<Gateway> {
        let cluster = crate::runtime::cluster(config)?;
        let client_id = format!("{}-gateway", config.application_id());
        let writer = Arc::new(Writer::start(Arc::clone(&cluster), &client_id, limits.writes)?);
        Ok(Gateway { cluster, client_id, limits, writer })
    }

    /// A topic that requests are written to; its partitions are asked for here, once.
    ///
    /// # Errors
    /// `Invalid` for a topic that does not exist. `Unavailable`: no broker answers.
    pub fn topic<K: 'static, V: 'static>(
        &self,
        topic: &str,
        key: impl Serde<Item = K>,
        value: impl Serde<Item = V>,
    ) -> Result<RequestTopic<K, V>> {
        let topic: Arc<str> = topic.into();
        let found = self.cluster.admin()?.topics(&[Arc::clone(&topic)])?.into_iter().next().flatten();
        let missing = || Error::invalid(format!("topic {topic}, for requests, does not exist: create it"));
        let partitions = found.ok_or_else(missing)?.partitions;
        let (writer, limits) = (Arc::clone(&self.writer), self.limits);
        Ok(RequestTopic { topic, partitions, key: Arc::new(key), value: Arc::new(value), writer, limits })
    }

    /// The records of a topic from now on, as answers: committed ones only.
    ///
    /// # Errors
    /// As [`topic`](Gateway::topic).
    pub fn answers<V: Send + 'static>(
        &self,
        topic: &str,
        correlate_by: CorrelateBy,
        value: impl Serde<Item = V>,
    ) -> Result<Answers<V>> {
        Answers::start(&self.cluster, &self.client_id, topic, correlate_by, Arc::new(value), self.limits.waiters)
    }

    /// A store of this instance whose rows can be waited for.
    ///
    /// # Errors
    /// `Unavailable`: its thread cannot be started.
    pub fn watch<K: Send + 'static, V: Send + 'static>(
        &self,
        store: QueryableStore<KeyValueStore<K, V>>,
    ) -> Result<StateWatch<K, V>> {
        StateWatch::start(&self.client_id, store, self.limits.waiters)
    }
}

impl fmt::Debug for Gateway {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gateway")
            .field("client_id", &self.client_id)
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}

/// A topic that a [`Gateway`] writes requests to; cheap to clone.
pub struct RequestTopic<K, V> {
    topic: Arc<str>,
    partitions: i32,
    key: DynSerde<K>,
    value: DynSerde<V>,
    writer: Arc<Writer>,
    limits: GatewayLimits,
}

impl<K: 'static, V: 'static> RequestTopic<K, V> {
    /// Writes a request, in the partition of its key, and tells where it is once it is safe there: a read from a state that
    /// is at this position sees the request. Records of one partition that are written together share the position of the last.
    /// The correlation id travels in a header, for [`CorrelateBy::Header`].
    ///
    /// Dropped before it is ready, a request that still waits is not written, and one that is under way may be.
    ///
    /// # Errors
    /// `Unavailable`: too many wait to be written, or the cluster does not take it; it may be there all the same, so repeat
    /// it under the same key. `Invalid`: it is too large. What the serdes fail with.
    pub async fn write(&self, key: &K, value: &V, correlation: Option<&IdempotencyKey>) -> Result<Position> {
        let (mut key_bytes, mut value_bytes) = (Vec::new(), Vec::new());
        self.key.serialize(key, &mut key_bytes)?;
        self.value.serialize(value, &mut value_bytes)?;
        let bytes = key_bytes.len() + value_bytes.len();
        if bytes > self.limits.record_bytes {
            let max = self.limits.record_bytes;
            return Err(Error::invalid(format!("a request for topic {} has {bytes} bytes: {max} at most", self.topic)));
        }
        let mut headers = Headers::new();
        if let Some(id) = correlation {
            headers.add(CORRELATION_ID, id.as_str());
        }
        let partition = partition_for_key(&key_bytes, self.partitions);
        let topic = Arc::clone(&self.topic);
        self.writer.write(|done| Write { topic, partition, key: key_bytes, value: value_bytes, headers, done }).await
    }

    /// The partition that requests of a key are in.
    ///
    /// # Errors
    /// What the serde fails with.
    pub fn partition(&self, key: &K) -> Result<i32> {
        let mut bytes = Vec::new();
        self.key.serialize(key, &mut bytes)?;
        Ok(partition_for_key(&bytes, self.partitions))
    }
}

impl<K, V> Clone for RequestTopic<K, V> {
    fn clone(&self) -> Self {
        let (topic, writer) = (Arc::clone(&self.topic), Arc::clone(&self.writer));
        let (key, value) = (Arc::clone(&self.key), Arc::clone(&self.value));
        RequestTopic { topic, partitions: self.partitions, key, value, writer, limits: self.limits }
    }
}

impl<K, V> fmt::Debug for RequestTopic<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequestTopic").field("topic", &self.topic).finish_non_exhaustive()
    }
}

/// How long a thread of a gateway waits before it looks whether it is wanted any more.
const LOOK_AROUND: Duration = Duration::from_millis(100);
