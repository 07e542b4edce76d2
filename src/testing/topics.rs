//! Typed ends of a topology under test.

use std::cell::Cell;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::driver::TopologyTestDriver;
use super::produced::TestRecord;
use crate::error::Result;
use crate::record::{Headers, Record};
use crate::serdes::{DynSerde, Serde, decode, encode};
use crate::topology::millis;

/// Writes records to a topic that the topology reads. Made by
/// [`create_input_topic`](TopologyTestDriver::create_input_topic); borrows nothing, so a test may hold many.
///
/// ```
/// use std::time::Duration;
/// use kstreams::*;
///
/// let builder = StreamsBuilder::new();
/// builder.stream("in", Consumed::with(Utf8, I64)).filter(|_, n| *n > 1).to("out", Produced::with(Utf8, I64));
/// let mut driver = TopologyTestDriver::new(&builder.build()?)?;
///
/// let input = driver.create_input_topic("in", Utf8, I64).with_auto_advance(100, Duration::from_millis(10));
/// input.pipe(&mut driver, "a", 1)?; // at 100
/// input.pipe(&mut driver, "b", 2)?; // at 110
/// input.pipe_at(&mut driver, "c", 3, 50)?;
///
/// let output = driver.create_output_topic("out", Utf8, I64);
/// assert_eq!(output.read(&mut driver)?, Some(Record::new("b".to_owned(), 2, 110)));
/// assert_eq!(output.read_value(&mut driver)?, Some(3));
/// assert!(output.is_empty(&driver));
/// # Ok::<(), Error>(())
/// ```
pub struct TestInputTopic<K, V> {
    topic: Arc<str>,
    key: DynSerde<K>,
    value: DynSerde<V>,
    /// The timestamp of the next record that is given none; without, the driver's clock.
    next: Cell<Option<i64>>,
    advance_ms: i64,
}

impl<K: 'static, V: 'static> TestInputTopic<K, V> {
    pub(super) fn new(topic: &str, key: impl Serde<Item = K>, value: impl Serde<Item = V>) -> Self {
        let (key, value) = (Arc::new(key), Arc::new(value));
        TestInputTopic { topic: topic.into(), key, value, next: Cell::new(None), advance_ms: 0 }
    }

    /// Gives records timestamps of their own: `start` (ms since the epoch) to the first, and to each further one that
    /// much more.
    #[must_use]
    pub fn with_auto_advance(self, start: i64, advance: Duration) -> Self {
        let advance_ms = if advance.is_zero() { 0 } else { millis(advance) };
        TestInputTopic { next: Cell::new(Some(start)), advance_ms, ..self }
    }

    /// Moves the timestamps of records that are given none.
    pub fn advance_time(&self, advance: Duration) {
        self.next.set(self.next.get().map(|next| next.saturating_add(millis(advance))));
    }

    /// Writes a record and processes all that can be. Its timestamp is the driver's clock, or the next of
    /// [`with_auto_advance`](TestInputTopic::with_auto_advance).
    ///
    /// # Errors
    /// `Invalid` when the topology does not read the topic; otherwise what the application would fail with.
    pub fn pipe(&self, driver: &mut TopologyTestDriver, key: impl Into<K>, value: impl Into<V>) -> Result<()> {
        let timestamp = self.next.get().unwrap_or_else(|| driver.wall_clock_ms());
        self.next.set(self.next.get().map(|next| next.saturating_add(self.advance_ms)));
        self.pipe_record(driver, &Record::new(key.into(), value.into(), timestamp))
    }

    /// The same with a timestamp (ms since the epoch).
    ///
    /// # Errors
    /// As [`pipe`](TestInputTopic::pipe).
    pub fn pipe_at(
        &self,
        driver: &mut TopologyTestDriver,
        key: impl Into<K>,
        value: impl Into<V>,
        timestamp: i64,
    ) -> Result<()> {
        self.pipe_record(driver, &Record::new(key.into(), value.into(), timestamp))
    }

    /// The same with headers.
    ///
    /// # Errors
    /// As [`pipe`](TestInputTopic::pipe).
    pub fn pipe_record(&self, driver: &mut TopologyTestDriver, record: &Record<K, V>) -> Result<()> {
        let (mut key, mut value) = (Vec::new(), Vec::new());
        let key = encode(&*self.key, &record.key, &mut key)?.map(|_| key);
        let value = encode(&*self.value, &record.value, &mut value)?.map(|_| value);
        let headers = record.headers.clone();
        driver.pipe_raw(&self.topic, key.as_deref(), value.as_deref(), record.timestamp, headers)
    }

    /// Writes a record with a null value: deletes the row of a table.
    ///
    /// # Errors
    /// As [`pipe`](TestInputTopic::pipe).
    pub fn pipe_tombstone(&self, driver: &mut TopologyTestDriver, key: impl Into<K>, timestamp: i64) -> Result<()> {
        let mut bytes = Vec::new();
        let key = encode(&*self.key, &key.into(), &mut bytes)?.map(|_| bytes);
        driver.pipe_raw(&self.topic, key.as_deref(), None, timestamp, Headers::new())
    }
}

/// Reads what the topology has written to a topic. Made by
/// [`create_output_topic`](TopologyTestDriver::create_output_topic); the driver remembers what has been read.
///
/// A null value is an error unless the serde has a place for it: read a stream of deletions with
/// [`Nullable`](crate::Nullable).
pub struct TestOutputTopic<K, V> {
    topic: Arc<str>,
    key: DynSerde<K>,
    value: DynSerde<V>,
}

impl<K: 'static, V: 'static> TestOutputTopic<K, V> {
    pub(super) fn new(topic: &str, key: impl Serde<Item = K>, value: impl Serde<Item = V>) -> Self {
        TestOutputTopic { topic: topic.into(), key: Arc::new(key), value: Arc::new(value) }
    }

    /// The next record; none when all have been read.
    ///
    /// # Errors
    /// A record that a serde refuses.
    pub fn read(&self, driver: &mut TopologyTestDriver) -> Result<Option<Record<K, V>>> {
        driver.produced.read(&self.topic).map(|record| self.decode(record)).transpose()
    }

    /// The key and value of the next record.
    ///
    /// # Errors
    /// As [`read`](TestOutputTopic::read).
    pub fn read_key_value(&self, driver: &mut TopologyTestDriver) -> Result<Option<(K, V)>> {
        Ok(self.read(driver)?.map(|record| (record.key, record.value)))
    }

    /// The value of the next record.
    ///
    /// # Errors
    /// As [`read`](TestOutputTopic::read).
    pub fn read_value(&self, driver: &mut TopologyTestDriver) -> Result<Option<V>> {
        Ok(self.read(driver)?.map(|record| record.value))
    }

    /// All records that have not been read.
    ///
    /// # Errors
    /// As [`read`](TestOutputTopic::read).
    pub fn read_all(&self, driver: &mut TopologyTestDriver) -> Result<Vec<Record<K, V>>> {
        std::iter::from_fn(|| self.read(driver).transpose()).collect()
    }

    /// The keys and values of all records that have not been read.
    ///
    /// # Errors
    /// As [`read`](TestOutputTopic::read).
    pub fn read_key_values(&self, driver: &mut TopologyTestDriver) -> Result<Vec<(K, V)>> {
        std::iter::from_fn(|| self.read_key_value(driver).transpose()).collect()
    }

    /// How many records have not been read.
    pub fn len(&self, driver: &TopologyTestDriver) -> usize {
        driver.produced.unread(&self.topic).count()
    }

    /// Whether all records have been read.
    pub fn is_empty(&self, driver: &TopologyTestDriver) -> bool {
        self.len(driver) == 0
    }

    fn decode(&self, record: &TestRecord) -> Result<Record<K, V>> {
        let key = decode(&*self.key, record.key.as_deref(), "key")?;
        let value = decode(&*self.value, record.value.as_deref(), "value")?;
        Ok(Record { key, value, timestamp: record.timestamp, headers: record.headers.clone() })
    }
}

impl<K, V> fmt::Debug for TestInputTopic<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TestInputTopic").field("topic", &self.topic).finish_non_exhaustive()
    }
}

impl<K, V> fmt::Debug for TestOutputTopic<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TestOutputTopic").field("topic", &self.topic).finish_non_exhaustive()
    }
}
