//! Processors that may change a record, but not its key.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::time::Duration;

use crate::error::Result;
use crate::record::{Headers, Record};
use crate::state::{RecordContext, StoreContext, TaskStores};
use crate::topology::{Processor, ProcessorContext, Punctuation, PunctuationType, TaskContext};

/// A record whose key can be read but not changed, so that it stays in its partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FixedKeyRecord<K, V> {
    key: K,
    /// The value.
    pub value: V,
    /// Milliseconds since the epoch.
    pub timestamp: i64,
    /// The headers.
    pub headers: Headers,
}

impl<K, V> FixedKeyRecord<K, V> {
    /// The key.
    pub fn key(&self) -> &K {
        &self.key
    }

    /// The same record with another value.
    pub fn with_value<V2>(self, value: V2) -> FixedKeyRecord<K, V2> {
        FixedKeyRecord { key: self.key, value, timestamp: self.timestamp, headers: self.headers }
    }

    /// The same record with a value made of its own.
    pub fn map_value<V2>(self, map: impl FnOnce(&K, V) -> V2) -> FixedKeyRecord<K, V2> {
        let value = map(&self.key, self.value);
        FixedKeyRecord { key: self.key, value, timestamp: self.timestamp, headers: self.headers }
    }

    /// The same record at another time, in milliseconds since the epoch.
    #[must_use]
    pub fn with_timestamp(self, timestamp: i64) -> Self {
        FixedKeyRecord { timestamp, ..self }
    }

    /// The same record with other headers.
    #[must_use]
    pub fn with_headers(self, headers: Headers) -> Self {
        FixedKeyRecord { headers, ..self }
    }
}

/// Takes records and forwards records of the same key: [`process_values`](crate::KStream::process_values). What is
/// forwarded need not be partitioned anew.
///
/// ```
/// use kstreams::*;
///
/// /// Numbers the records of each key.
/// struct Number {
///     seen: KeyValueStore<String, i64>,
/// }
///
/// impl FixedKeyProcessor<String, String> for Number {
///     type ValueOut = String;
///
///     fn process(
///         &mut self,
///         record: FixedKeyRecord<String, String>,
///         ctx: &mut FixedKeyContext<'_, '_, String, String>,
///     ) -> Result<()> {
///         let seen = self.seen.get(ctx, record.key())?.unwrap_or(0) + 1;
///         self.seen.put(ctx, record.key(), &seen)?;
///         ctx.forward(record.map_value(|_, value| format!("{value}#{seen}")))
///     }
/// }
///
/// let seen = Stores::key_value("seen", Utf8, I64);
/// let processed = Processed::default().with_store(&seen);
/// let builder = StreamsBuilder::new();
/// builder
///     .stream("in", Consumed::with(Utf8, Utf8))
///     .process_values(move |init| Ok(Number { seen: init.store(&seen)? }), processed)
///     .to("out", Produced::with(Utf8, Utf8));
/// builder.build()?;
/// # Ok::<(), Error>(())
/// ```
pub trait FixedKeyProcessor<K, V>: 'static {
    /// The value of what it forwards.
    type ValueOut: 'static;

    /// Takes one record.
    ///
    /// # Errors
    /// Any; make it with [`Error::user`](crate::Error::user). The processing handler decides what happens to the record.
    fn process(
        &mut self,
        record: FixedKeyRecord<K, V>,
        ctx: &mut FixedKeyContext<'_, '_, K, Self::ValueOut>,
    ) -> Result<()>;

    /// Called when a schedule made by this processor is due, with the time (ms) it is called at. It has no record to
    /// forward, but may write stores.
    ///
    /// # Errors
    /// As [`process`](FixedKeyProcessor::process).
    fn punctuate(
        &mut self,
        _punctuation: Punctuation,
        _timestamp: i64,
        _ctx: &mut FixedKeyContext<'_, '_, K, Self::ValueOut>,
    ) -> Result<()> {
        Ok(())
    }

    /// Called once when the task is closed cleanly. After a failure it is not called.
    fn close(&mut self) {}
}

/// The task, seen from a [`FixedKeyProcessor`]: everything of [`TaskContext`] and the way to its children.
pub struct FixedKeyContext<'a, 'b, K, V> {
    inner: &'a mut ProcessorContext<'b, K, V>,
}

impl<K, V> FixedKeyContext<'_, '_, K, V> {
    /// Passes the record to every child in the order they were attached.
    ///
    /// # Errors
    /// What a child could not handle; return it.
    pub fn forward(&mut self, record: FixedKeyRecord<K, V>) -> Result<()> {
        self.inner.forward(open(record))
    }

    /// Passes the record to one child, by the child's name.
    ///
    /// # Errors
    /// [`User`](crate::ErrorKind::User) when there is no child of that name; else as
    /// [`forward`](FixedKeyContext::forward).
    pub fn forward_to(&mut self, child: &str, record: FixedKeyRecord<K, V>) -> Result<()> {
        self.inner.forward_to(child, open(record))
    }

    /// Calls [`punctuate`](FixedKeyProcessor::punctuate) each interval (at least 1 ms) from now on.
    pub fn schedule(&mut self, interval: Duration, kind: PunctuationType) -> Punctuation {
        self.inner.schedule(interval, kind)
    }

    /// The same at `start + n * interval`, `start` in milliseconds since the epoch (KIP-1146).
    pub fn schedule_from(&mut self, start: i64, interval: Duration, kind: PunctuationType) -> Punctuation {
        self.inner.schedule_from(start, interval, kind)
    }

    /// Ends a schedule. May be called from its own punctuation.
    pub fn cancel(&mut self, punctuation: Punctuation) {
        self.inner.cancel(punctuation);
    }
}

fn open<K, V>(record: FixedKeyRecord<K, V>) -> Record<K, V> {
    let FixedKeyRecord { key, value, timestamp, headers } = record;
    Record { key, value, timestamp, headers }
}

impl<K, V> Deref for FixedKeyContext<'_, '_, K, V> {
    type Target = TaskContext;

    fn deref(&self) -> &TaskContext {
        self.inner
    }
}

impl<K, V> DerefMut for FixedKeyContext<'_, '_, K, V> {
    fn deref_mut(&mut self) -> &mut TaskContext {
        self.inner
    }
}

impl<K, V> StoreContext for FixedKeyContext<'_, '_, K, V> {
    fn stores(&mut self) -> (&mut TaskStores, &RecordContext) {
        self.inner.stores()
    }
}

impl<K, V> fmt::Debug for FixedKeyContext<'_, '_, K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

/// Lets a [`FixedKeyProcessor`] stand where a [`Processor`] does.
pub(crate) struct FixedKey<P>(pub P);

impl<K: 'static, V: 'static, P: FixedKeyProcessor<K, V>> Processor<K, V> for FixedKey<P> {
    type KeyOut = K;
    type ValueOut = P::ValueOut;

    fn process(&mut self, record: Record<K, V>, ctx: &mut ProcessorContext<'_, K, P::ValueOut>) -> Result<()> {
        let Record { key, value, timestamp, headers } = record;
        self.0.process(FixedKeyRecord { key, value, timestamp, headers }, &mut FixedKeyContext { inner: ctx })
    }

    fn punctuate(
        &mut self,
        punctuation: Punctuation,
        timestamp: i64,
        ctx: &mut ProcessorContext<'_, K, P::ValueOut>,
    ) -> Result<()> {
        self.0.punctuate(punctuation, timestamp, &mut FixedKeyContext { inner: ctx })
    }

    fn close(&mut self) {
        self.0.close();
    }
}
