//! What a suppressed table holds back: in memory, in the order of time, and in the store's rows from commit to commit.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::record::{Headers, SourceRecord};
use crate::state::{BufferValue, TaskStores};

type Bytes = Vec<u8>;
type Key = Arc<[u8]>;

/// Updates that wait, by time and key. An update of a key that waits already takes its place and its time.
#[derive(Debug, Default)]
pub(crate) struct SuppressBuffer {
    waiting: BTreeMap<(i64, Key), Waiting>,
    times: HashMap<Key, i64>,
    /// Keys that have changed since the last commit.
    dirty: DirtyKeys,
    bytes: usize,
}

/// An update that waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Waiting {
    /// Milliseconds since the epoch.
    pub timestamp: i64,
    pub topic: String,
    pub partition: i32,
    pub offset: i64,
    pub headers: Headers,
    /// The row before the first update that waits.
    pub prior: Option<Bytes>,
    /// The row before the last update.
    pub old: Option<Bytes>,
    pub new: Option<Bytes>,
    /// The record that it comes from, for a dead letter. Nothing of it is written, nor does it count, as in Java.
    pub source: Option<Arc<SourceRecord>>,
}

/// Rows of one page of the store.
const PAGE: usize = 256;

impl SuppressBuffer {
    /// Reads what was committed.
    pub(crate) fn load(&mut self, stores: &mut TaskStores, index: usize) -> Result<()> {
        use std::ops::Bound;
        let mut from: Bound<Bytes> = Bound::Unbounded;
        loop {
            let start = from.as_ref().map(Vec::as_slice);
            let page = stores.page(index, start, Bound::Unbounded, false, PAGE)?;
            let is_last = page.len() < PAGE;
            for (key, row) in page {
                let (waiting, time) = Waiting::read(&row)?;
                self.put(&key, time, waiting);
                from = Bound::Excluded(key);
            }
            if is_last {
                self.dirty.clear();
                return Ok(());
            }
        }
    }

    /// Lets an update wait. Its `prior` counts if none of the key waits yet.
    pub(crate) fn put(&mut self, key: &[u8], time: i64, mut update: Waiting) {
        let (key, time) = match self.times.get_key_value(key) {
            Some((key, time)) => (Arc::clone(key), *time),
            None => {
                let key: Key = key.into();
                self.times.insert(Arc::clone(&key), time);
                (key, time)
            }
        };
        self.dirty.insert(&key);
        let place = (time, Arc::clone(&key));
        if let Some(before) = self.waiting.get_mut(&place) {
            self.bytes -= before.size(&key);
            update.prior = before.prior.take();
        }
        self.bytes += update.size(&key);
        self.waiting.insert(place, update);
    }

    /// Whether an update of a key waits.
    pub(crate) fn waits(&self, key: &[u8]) -> bool {
        self.times.contains_key(key)
    }

    /// The time of the update that waits first.
    pub(crate) fn first_time(&self) -> Option<i64> {
        self.waiting.first_key_value().map(|((time, _), _)| *time)
    }

    /// Takes the update that waits first.
    pub(crate) fn take_first(&mut self) -> Option<(Key, Waiting)> {
        let ((_, key), update) = self.waiting.pop_first()?;
        self.times.remove(&key);
        self.dirty.insert(&key);
        self.bytes -= update.size(&key);
        Some((key, update))
    }

    /// The row of a key that waits, as those behind the buffer know it: none, if it does not wait.
    pub(crate) fn prior(&self, key: &[u8]) -> Option<Option<&[u8]>> {
        let (key, time) = self.times.get_key_value(key)?;
        let update = self.waiting.get(&(*time, Arc::clone(key)))?;
        Some(update.prior.as_deref())
    }

    pub(crate) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// As Java estimates it.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The keys that have changed, in the order in which Java writes them, each with its row; none: it does not wait any
    /// more.
    pub(crate) fn take_dirty(&mut self) -> Result<Vec<(Key, Option<Bytes>)>> {
        let keys = self.dirty.take();
        let row = |key: Key| {
            let waiting = self.times.get(&key).and_then(|time| {
                let update = self.waiting.get(&(*time, Arc::clone(&key)))?;
                Some((*time, update))
            });
            let row = waiting.map(|(time, update)| update.write(time)).transpose()?;
            Ok((key, row))
        };
        keys.into_iter().map(row).collect()
    }
}

impl Waiting {
    /// `BufferValue | time 8`.
    fn write(&self, time: i64) -> Result<Bytes> {
        let mut row = Vec::new();
        BufferValue {
            timestamp: self.timestamp,
            offset: self.offset,
            topic: &self.topic,
            partition: self.partition,
            headers: self.headers.clone(),
            prior: self.prior.as_deref(),
            old: self.old.as_deref(),
            new: self.new.as_deref(),
        }
        .write(&mut row)?;
        row.extend_from_slice(&time.to_be_bytes());
        Ok(row)
    }

    fn read(row: &[u8]) -> Result<(Waiting, i64)> {
        let (value, rest) = BufferValue::read(row)?;
        let time = rest.try_into().map(i64::from_be_bytes);
        let time =
            time.map_err(|error| Error::corrupted("a row of a suppressed table has no time").with_source(error))?;
        let BufferValue { timestamp, offset, topic, partition, headers, prior, old, new } = value;
        let own = |bytes: Option<&[u8]>| bytes.map(<[u8]>::to_vec);
        let (topic, prior, old, new) = (topic.to_owned(), own(prior), own(old), own(new));
        Ok((Waiting { timestamp, topic, partition, offset, headers, prior, old, new, source: None }, time))
    }

    /// Java's estimate: what counts against the buffer's bytes.
    fn size(&self, key: &[u8]) -> usize {
        let length = |bytes: &Option<Bytes>| bytes.as_ref().map_or(0, Vec::len);
        let old = if self.old == self.prior { 0 } else { length(&self.old) };
        let headers = self.headers.iter().map(|(key, value)| key.chars().count() + value.map_or(0, <[u8]>::len));
        let place = 8 + 8 + self.topic.chars().count() + 4;
        8 + key.len() + length(&self.prior) + old + length(&self.new) + place + headers.sum::<usize>()
    }
}

/// A set of keys that gives them in the order of Java's `HashSet`: so is the changelog of Java, record by record.
#[derive(Debug, Default)]
struct DirtyKeys {
    /// In the order in which they came.
    keys: Vec<Key>,
    known: HashSet<Key>,
    /// Of Java's table, as a power of two; it never shrinks.
    capacity: usize,
}

impl DirtyKeys {
    fn insert(&mut self, key: &Key) {
        if self.known.insert(Arc::clone(key)) {
            self.keys.push(Arc::clone(key));
            self.capacity = self.capacity.max(16);
            if self.keys.len() * 4 > self.capacity * 3 {
                self.capacity *= 2;
            }
        }
    }

    fn take(&mut self) -> Vec<Key> {
        let mut keys = std::mem::take(&mut self.keys);
        let places = u32::try_from(self.capacity.max(1)).unwrap_or(u32::MAX) - 1;
        keys.sort_by_key(|key| java_hash(key) & places);
        self.known.clear();
        keys
    }

    fn clear(&mut self) {
        self.keys.clear();
        self.known.clear();
    }
}

/// `Arrays.hashCode`, spread as `HashMap` does.
fn java_hash(bytes: &[u8]) -> u32 {
    let hash =
        bytes.iter().fold(1u32, |hash, byte| hash.wrapping_mul(31).wrapping_add_signed(i32::from(byte.cast_signed())));
    hash ^ (hash >> 16)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn update(old: Option<&str>, new: &str) -> Waiting {
        let bytes = |text: &str| text.as_bytes().to_vec();
        Waiting {
            timestamp: 7,
            topic: "in".to_owned(),
            partition: 0,
            offset: 1,
            headers: Headers::new(),
            prior: old.map(bytes),
            old: old.map(bytes),
            new: Some(bytes(new)),
            source: None,
        }
    }

    #[test]
    fn an_update_of_a_key_that_waits_keeps_its_time_and_what_was_before() {
        let mut buffer = SuppressBuffer::default();
        buffer.put(b"a", 5, update(Some("0"), "1"));
        buffer.put(b"b", 4, update(None, "1"));
        buffer.put(b"a", 9, update(Some("1"), "22"));
        assert_eq!((buffer.len(), buffer.first_time()), (2, Some(4)));
        assert_eq!(buffer.prior(b"a"), Some(Some(&b"0"[..])));
        let (key, first) = buffer.take_first().unwrap();
        assert_eq!((&*key, first.new), (&b"b"[..], Some(b"1".to_vec())));
        let (_, second) = buffer.take_first().unwrap();
        assert_eq!((second.prior, second.new), (Some(b"0".to_vec()), Some(b"22".to_vec())));
        assert_eq!((buffer.len(), buffer.bytes(), buffer.prior(b"a")), (0, 0, None));
    }

    #[test]
    fn what_waits_is_read_back_from_its_row() {
        let (waiting, time) = Waiting::read(&update(Some("0"), "1").write(42).unwrap()).unwrap();
        assert_eq!((waiting, time), (update(Some("0"), "1"), 42));
        assert!(Waiting::read(b"too short").is_err());
    }

    #[test]
    fn changed_keys_come_in_the_order_of_javas_hash_set() {
        let mut dirty = DirtyKeys::default();
        for key in ["charlie", "alpha", "bravo", "delta", "alpha"] {
            dirty.insert(&key.as_bytes().into());
        }
        let taken = dirty.take();
        let mut hashes: Vec<_> = taken.iter().map(|key| java_hash(key) & 15).collect();
        assert_eq!(taken.len(), 4);
        assert!(hashes.is_sorted());
        hashes.clear();
        assert_eq!(java_hash(b"a"), 128);
        assert!(dirty.take().is_empty());
    }
}
