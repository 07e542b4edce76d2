//! The records of the sinks, encoded, until the thread has handed them to the producer.

use std::sync::Arc;

use crate::error::Result;
use crate::record::{ConsumerRecord, Headers, ProducerRecord};
use crate::serdes::{Serde, encode};

/// What a task has to say to the world. Bounded by its owner: the thread drains it after every few records.
#[derive(Debug, Default)]
pub(crate) struct Output {
    topics: Vec<Arc<str>>,
    records: Vec<Encoded>,
    bytes: Vec<u8>,
    /// Dead letters that wait for the bytes of their source record.
    waiting: usize,
}

/// `bytes` holds keys and values back to back; a length of none is a null.
#[derive(Debug)]
struct Encoded {
    topic: usize,
    partition: Option<i32>,
    start: usize,
    key: Option<usize>,
    value: Option<usize>,
    timestamp: i64,
    headers: Headers,
    /// Waits for the bytes of the source record: see [`Output::complete_dead_letters`].
    dead_letter: bool,
}

impl Output {
    /// The number of a topic, by its full name.
    pub(crate) fn topic(&mut self, name: &str) -> usize {
        self.topics.iter().position(|topic| **topic == *name).unwrap_or_else(|| {
            self.topics.push(name.into());
            self.topics.len() - 1
        })
    }

    /// Encodes a key and a value once; `push` may follow for several partitions. Rolls back when a serde refuses.
    pub(crate) fn encode<K: 'static, V: 'static>(
        &mut self,
        key: (&dyn Serde<Item = K>, &K),
        value: (&dyn Serde<Item = V>, &V),
    ) -> Result<EncodedBytes> {
        let start = self.bytes.len();
        let encoded = (|| {
            let key = encode(key.0, key.1, &mut self.bytes)?;
            let value = encode(value.0, value.1, &mut self.bytes)?;
            Ok(EncodedBytes { start, key, value })
        })();
        if encoded.is_err() {
            self.bytes.truncate(start);
        }
        encoded
    }

    pub(crate) fn push(
        &mut self,
        topic: usize,
        partition: Option<i32>,
        at: EncodedBytes,
        timestamp: i64,
        headers: Headers,
    ) {
        let EncodedBytes { start, key, value } = at;
        self.records.push(Encoded { topic, partition, start, key, value, timestamp, headers, dead_letter: false });
    }

    /// Takes the place of a dead letter in the order of records; its bytes follow when the source record is at hand.
    pub(crate) fn push_dead_letter(&mut self, topic: &str, timestamp: i64, headers: Headers) {
        let (topic, start) = (self.topic(topic), self.bytes.len());
        let dead_letter = true;
        self.waiting += 1;
        let (partition, key, value) = (None, None, None);
        self.records.push(Encoded { topic, partition, start, key, value, timestamp, headers, dead_letter });
    }

    /// Gives the dead letters since the last call the key and value of their source record.
    pub(crate) fn complete_dead_letters(&mut self, record: &ConsumerRecord<'_>) {
        self.complete_dead_letters_from(0, (record.key, record.value));
    }

    /// The same for those behind a place; none and none where the source record is not at hand.
    pub(crate) fn complete_dead_letters_from(&mut self, place: usize, (key, value): (Option<&[u8]>, Option<&[u8]>)) {
        if self.waiting == 0 {
            return;
        }
        for letter in self.records.iter_mut().skip(place).filter(|record| record.dead_letter) {
            letter.start = self.bytes.len();
            self.bytes.extend_from_slice(key.unwrap_or_default());
            self.bytes.extend_from_slice(value.unwrap_or_default());
            letter.key = key.map(<[u8]>::len);
            letter.value = value.map(<[u8]>::len);
            letter.dead_letter = false;
            self.waiting -= 1;
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.records.len()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = ProducerRecord<'_>> {
        self.records.iter().filter_map(|record| {
            let middle = record.start + record.key.unwrap_or(0);
            let end = middle + record.value.unwrap_or(0);
            Some(ProducerRecord {
                topic: self.topics.get(record.topic)?,
                partition: record.partition,
                key: record.key.and(self.bytes.get(record.start..middle)),
                value: record.value.and(self.bytes.get(middle..end)),
                timestamp: Some(record.timestamp),
                headers: &record.headers,
            })
        })
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// Keeps its memory: the next records fill it without an allocation.
    pub(crate) fn clear(&mut self) {
        self.records.clear();
        self.bytes.clear();
        self.waiting = 0;
    }
}

/// Where the bytes of one record are in the output.
#[derive(Debug, Clone, Copy)]
pub(crate) struct EncodedBytes {
    start: usize,
    key: Option<usize>,
    value: Option<usize>,
}
