//! Everything that a topology under test has written, topic by topic.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::record::Headers;

/// A record as it would be in a topic: bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct TestRecord {
    /// The topic's full name.
    pub topic: Arc<str>,
    /// The partition, where the topology chose one itself; none: the key's hash would.
    pub partition: Option<i32>,
    /// None is a null key.
    pub key: Option<Vec<u8>>,
    /// None is a null value.
    pub value: Option<Vec<u8>>,
    /// Milliseconds since the epoch.
    pub timestamp: i64,
    /// The headers.
    pub headers: Headers,
}

/// Grows with the test, as Java's driver does: a test reads what it has made the topology write.
#[derive(Debug, Default)]
pub(super) struct Produced {
    /// In the order in which they were written, over all topics.
    records: Vec<TestRecord>,
    /// By topic: places in `records`, and how many of them have been read.
    topics: BTreeMap<Arc<str>, Topic>,
}

#[derive(Debug, Default)]
struct Topic {
    places: Vec<usize>,
    read: usize,
}

impl Produced {
    pub(super) fn push(&mut self, record: TestRecord) {
        let topic = self.topics.entry(Arc::clone(&record.topic)).or_default();
        topic.places.push(self.records.len());
        self.records.push(record);
    }

    /// How many records a topic has; none: nothing was ever written to it.
    pub(super) fn end(&self, topic: &str) -> Option<i64> {
        i64::try_from(self.topics.get(topic)?.places.len()).ok()
    }

    /// The records of a topic.
    pub(super) fn of(&self, topic: &str) -> impl Iterator<Item = &TestRecord> {
        let places = self.topics.get(topic).map(|topic| topic.places.as_slice()).unwrap_or_default();
        places.iter().filter_map(|place| self.records.get(*place))
    }

    /// Forgets all but so many records.
    pub(super) fn truncate(&mut self, records: usize) {
        self.records.truncate(records);
        for topic in self.topics.values_mut() {
            topic.places.truncate(topic.places.partition_point(|place| *place < records));
            topic.read = topic.read.min(topic.places.len());
        }
    }

    pub(super) fn all(&self) -> &[TestRecord] {
        &self.records
    }

    pub(super) fn topics(&self) -> impl Iterator<Item = &str> {
        self.topics.keys().map(|topic| &**topic)
    }

    /// The records of a topic that have not been read.
    pub(super) fn unread(&self, topic: &str) -> impl Iterator<Item = &TestRecord> {
        let topic = self.topics.get(topic);
        let places = topic.and_then(|topic| topic.places.get(topic.read..)).unwrap_or_default();
        places.iter().filter_map(|place| self.records.get(*place))
    }

    /// The next record of a topic.
    pub(super) fn read(&mut self, topic: &str) -> Option<&TestRecord> {
        let topic = self.topics.get_mut(topic)?;
        let place = topic.places.get(topic.read)?;
        topic.read += 1;
        self.records.get(*place)
    }
}
