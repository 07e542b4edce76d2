//! Records: typed on the edges of a pipeline, as bytes at its ends.

use std::fmt;
use std::sync::Arc;

use crate::error::{Error, Result};

/// What travels on every edge of a pipeline.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record<K, V> {
    /// The key; its type says whether it may be null.
    pub key: K,
    /// The value; its type says whether it may be null.
    pub value: V,
    /// Milliseconds since the epoch. Never negative once a source has let the record in.
    pub timestamp: i64,
    /// Travel with the record through every operator.
    pub headers: Headers,
}

impl<K, V> Record<K, V> {
    /// A record without headers.
    pub fn new(key: K, value: V, timestamp: i64) -> Record<K, V> {
        Record { key, value, timestamp, headers: Headers::default() }
    }

    /// The same record under another key.
    pub fn with_key<K2>(self, key: K2) -> Record<K2, V> {
        Record { key, value: self.value, timestamp: self.timestamp, headers: self.headers }
    }

    /// The same record with another value.
    pub fn with_value<V2>(self, value: V2) -> Record<K, V2> {
        Record { key: self.key, value, timestamp: self.timestamp, headers: self.headers }
    }

    /// The same record at another time, in milliseconds since the epoch.
    #[must_use]
    pub fn with_timestamp(self, timestamp: i64) -> Record<K, V> {
        Record { timestamp, ..self }
    }

    /// The same record with other headers.
    #[must_use]
    pub fn with_headers(self, headers: Headers) -> Record<K, V> {
        Record { headers, ..self }
    }
}

/// A record as it was read: for the dead letters of what it leads to when it is no longer at hand.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct SourceRecord {
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
}

impl SourceRecord {
    pub(crate) fn of(record: &ConsumerRecord<'_>) -> SourceRecord {
        let own = |bytes: Option<&[u8]>| bytes.map(<[u8]>::to_vec);
        SourceRecord { key: own(record.key), value: own(record.value) }
    }

    /// Bytes in memory.
    pub(crate) fn len(&self) -> usize {
        self.key.as_ref().map_or(0, Vec::len) + self.value.as_ref().map_or(0, Vec::len)
    }
}

/// The headers of a record, in order; a key may come more than once, and a value may be null.
///
/// One pointer, null without headers: a record is moved at every hop, and few records have any.
///
/// Differs from Kafka Streams: headers are a value, so a change in one branch is not seen in another.
#[derive(Clone, Default, PartialEq, Eq)]
#[expect(clippy::box_collection, reason = "a thin pointer is the point")]
pub struct Headers(Option<Box<Vec<Header>>>);

type Header = (String, Option<Vec<u8>>);

impl Headers {
    /// No headers.
    pub fn new() -> Headers {
        Headers::default()
    }

    /// Appends a header.
    pub fn add(&mut self, key: impl Into<String>, value: impl Into<Vec<u8>>) {
        self.push(key.into(), Some(value.into()));
    }

    /// Appends a header whose value is null.
    pub fn add_null(&mut self, key: impl Into<String>) {
        self.push(key.into(), None);
    }

    /// Removes every header of that key.
    pub fn remove(&mut self, key: &str) {
        if let Some(headers) = &mut self.0 {
            headers.retain(|(name, _)| name != key);
        }
    }

    /// Removes all headers.
    pub fn clear(&mut self) {
        self.0 = None;
    }

    /// The value of the last header of that key; the inner none is a null value.
    pub fn last(&self, key: &str) -> Option<Option<&[u8]>> {
        self.iter().filter(|(name, _)| *name == key).last().map(|(_, value)| value)
    }

    /// All headers in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, Option<&[u8]>)> {
        self.0.iter().flat_map(|headers| headers.iter()).map(|(key, value)| (key.as_str(), value.as_deref()))
    }

    /// How many headers there are.
    pub fn len(&self) -> usize {
        self.0.as_ref().map_or(0, |headers| headers.len())
    }

    /// Whether there is no header.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(crate) fn push(&mut self, key: String, value: Option<Vec<u8>>) {
        self.0.get_or_insert_default().push((key, value));
    }
}

impl fmt::Debug for Headers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

/// The value type on the edges behind a table: what a row was and what it is. `None` is "no row".
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change<V> {
    /// The row as it was; only filled where a child of the node asks for it.
    pub old: Option<V>,
    /// The row as it is; none: it was deleted.
    pub new: Option<V>,
    /// Whether it is the newest row of its key by time. Only a versioned table has others: updates that came out of order
    /// (KIP-914).
    pub is_latest: bool,
}

impl<V> Change<V> {
    /// A change to the newest row of a key.
    pub fn latest(old: Option<V>, new: Option<V>) -> Change<V> {
        Change { old, new, is_latest: true }
    }
}

/// A row of a table or an aggregate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ValueAndTimestamp<V> {
    /// The row.
    pub value: V,
    /// Milliseconds since the epoch.
    pub timestamp: i64,
}

/// A partition of a topic.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TopicPartition {
    /// The topic's full name.
    pub topic: Arc<str>,
    /// The partition, from 0.
    pub partition: i32,
}

impl TopicPartition {
    /// Names a partition.
    pub fn new(topic: impl Into<Arc<str>>, partition: i32) -> TopicPartition {
        TopicPartition { topic: topic.into(), partition }
    }
}

impl fmt::Display for TopicPartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}[{}]", self.topic, self.partition)
    }
}

/// A committed position: the next offset to read, and the text that is committed with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OffsetAndMetadata {
    /// The next offset to read.
    pub offset: i64,
    /// Java's commit metadata: see `task::commit_point`.
    pub metadata: String,
}

/// A record as a task takes it; the bytes stay in their [`RecordBatch`].
#[derive(Debug, Clone, Copy)]
pub struct ConsumerRecord<'a> {
    /// The partition it was read from.
    pub partition: i32,
    /// Its place in the partition.
    pub offset: i64,
    /// Milliseconds since the epoch, as the topic holds it; may be negative (none).
    pub timestamp: i64,
    /// None is a null key.
    pub key: Option<&'a [u8]>,
    /// None is a null value.
    pub value: Option<&'a [u8]>,
    /// The headers.
    pub headers: &'a Headers,
}

/// A record on its way to a topic.
#[derive(Debug, Clone, Copy)]
pub struct ProducerRecord<'a> {
    /// The topic's full name.
    pub topic: &'a Arc<str>,
    /// None: by the key's murmur2 hash, or any partition when the key is null.
    pub partition: Option<i32>,
    /// None is a null key.
    pub key: Option<&'a [u8]>,
    /// None is a null value.
    pub value: Option<&'a [u8]>,
    /// Milliseconds since the epoch; none: the client's clock.
    pub timestamp: Option<i64>,
    /// The headers.
    pub headers: &'a Headers,
}

/// Where the record in hand was read from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordMetadata<'a> {
    /// The topic's full name.
    pub topic: &'a str,
    /// The partition.
    pub partition: i32,
    /// The offset.
    pub offset: i64,
}

/// Where a record was read from, with the topic as a number: a name would cost a reference count per record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Position {
    /// The input topic's place in the task's list.
    pub topic: usize,
    pub partition: i32,
    pub offset: i64,
}

/// Records of one partition in offset order, bytes back to back in one piece of memory.
///
/// A consumer fills it, a task reads it; cleared and filled again it allocates nothing, and no record pins a fetch
/// buffer of the client.
#[derive(Debug, Default)]
pub struct RecordBatch {
    bytes: Vec<u8>,
    records: Vec<Entry>,
}

#[derive(Debug)]
struct Entry {
    offset: i64,
    timestamp: i64,
    start: usize,
    key: Option<u32>,
    value: Option<u32>,
    headers: Headers,
}

impl RecordBatch {
    /// Appends a copy of a record.
    ///
    /// # Errors
    /// `Invalid` for a key or value beyond 4 GiB.
    pub fn push(
        &mut self,
        offset: i64,
        timestamp: i64,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: Headers,
    ) -> Result<()> {
        let length = |bytes: Option<&[u8]>| bytes.map(|bytes| u32::try_from(bytes.len())).transpose();
        let too_long = |error| Error::invalid(format!("record at offset {offset} is too long")).with_source(error);
        let (key_len, value_len) = (length(key).map_err(too_long)?, length(value).map_err(too_long)?);
        let start = self.bytes.len();
        self.bytes.extend_from_slice(key.unwrap_or_default());
        self.bytes.extend_from_slice(value.unwrap_or_default());
        self.records.push(Entry { offset, timestamp, start, key: key_len, value: value_len, headers });
        Ok(())
    }

    /// The record at a place of the batch.
    pub fn get(&self, index: usize, partition: i32) -> Option<ConsumerRecord<'_>> {
        let entry = self.records.get(index)?;
        let middle = entry.start + entry.key.unwrap_or(0) as usize;
        let end = middle + entry.value.unwrap_or(0) as usize;
        Some(ConsumerRecord {
            partition,
            offset: entry.offset,
            timestamp: entry.timestamp,
            key: entry.key.and(self.bytes.get(entry.start..middle)),
            value: entry.value.and(self.bytes.get(middle..end)),
            headers: &entry.headers,
        })
    }

    /// All records in order.
    pub fn iter(&self, partition: i32) -> impl Iterator<Item = ConsumerRecord<'_>> {
        (0..self.len()).filter_map(move |index| self.get(index, partition))
    }

    /// How many records it holds.
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Whether it holds no record.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// Bytes of all keys and values.
    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Forgets the records from an offset on.
    pub(crate) fn truncate(&mut self, offset: i64) {
        let kept = self.records.partition_point(|entry| entry.offset < offset);
        if let Some(first) = self.records.get(kept) {
            self.bytes.truncate(first.start);
            self.records.truncate(kept);
        }
    }

    /// Forgets the records and keeps the memory.
    pub fn clear(&mut self) {
        self.records.clear();
        self.bytes.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_tells_null_from_empty() {
        let mut batch = RecordBatch::default();
        batch.push(7, 1, None, Some(b""), Headers::new()).unwrap();
        batch.push(9, 2, Some(b"k"), None, Headers::new()).unwrap();
        let records: Vec<_> = batch.iter(3).map(|r| (r.partition, r.offset, r.key, r.value)).collect();
        assert_eq!(records, [(3, 7, None, Some(&b""[..])), (3, 9, Some(&b"k"[..]), None)]);
        batch.truncate(10);
        assert_eq!((batch.len(), batch.bytes()), (2, 1));
        batch.truncate(8);
        assert_eq!((batch.len(), batch.bytes()), (1, 0));
    }

    #[test]
    fn the_last_header_of_a_key_counts() {
        let mut headers = Headers::new();
        headers.add("a", "1");
        headers.add_null("a");
        assert_eq!(headers.last("a"), Some(None));
        headers.remove("a");
        assert!(headers.is_empty());
    }
}
