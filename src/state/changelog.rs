//! Updates on their way to changelog topics, back to back in one piece of memory.

use crate::record::Headers;

/// An update on its way to a changelog topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ChangelogRecord<'a> {
    /// The index of its store.
    pub store: usize,
    pub key: &'a [u8],
    pub value: Option<&'a [u8]>,
    /// Milliseconds since the epoch; none: the producer's clock.
    pub timestamp: Option<i64>,
    pub headers: &'a Headers,
}

/// Updates in the order in which they were made; cleared and filled again they allocate nothing.
#[derive(Debug, Default)]
pub(super) struct Pending {
    bytes: Vec<u8>,
    records: Vec<Entry>,
}

#[derive(Debug)]
struct Entry {
    store: usize,
    timestamp: Option<i64>,
    headers: Headers,
    key_at: usize,
    value_at: usize,
    end: usize,
    has_value: bool,
}

/// What is kept at least between two steps.
const KEPT_BYTES_MIN: usize = 64 << 10;

impl Pending {
    pub(super) fn push(&mut self, record: ChangelogRecord<'_>) {
        let key_at = self.bytes.len();
        self.bytes.extend_from_slice(record.key);
        let value_at = self.bytes.len();
        self.bytes.extend_from_slice(record.value.unwrap_or_default());
        let (end, has_value) = (self.bytes.len(), record.value.is_some());
        let ChangelogRecord { store, timestamp, headers, .. } = record;
        self.records.push(Entry { store, timestamp, headers: headers.clone(), key_at, value_at, end, has_value });
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = ChangelogRecord<'_>> {
        self.records.iter().map(|entry| ChangelogRecord {
            store: entry.store,
            key: self.bytes.get(entry.key_at..entry.value_at).unwrap_or_default(),
            value: self.bytes.get(entry.value_at..entry.end).filter(|_| entry.has_value),
            timestamp: entry.timestamp,
            headers: &entry.headers,
        })
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes.len()
    }

    pub(super) fn clear(&mut self) {
        let kept = (2 * self.bytes.len()).max(KEPT_BYTES_MIN);
        self.bytes.clear();
        if self.bytes.capacity() > 2 * kept {
            self.bytes.shrink_to(kept);
            self.records.shrink_to(2 * self.records.len());
        }
        self.records.clear();
    }
}
