//! Committed rows in memory: restored from the changelog at every start.

use std::collections::BTreeSet;
use std::ops::Bound;

use hashbrown::HashTable;

use super::generation::hash;
use super::retention::Expired;
use super::versions::has_expired;

/// Rows by hash, and in order once somebody has asked for a range: most stores are only ever asked for keys, and an order
/// costs a comparison per level and row.
#[derive(Debug, Default)]
pub(super) struct MemoryEngine {
    rows: HashTable<Row>,
    ordered: Option<BTreeSet<Box<[u8]>>>,
    /// The next changelog offset, once something of the changelog is here.
    pub(super) offset: Option<i64>,
    /// In simulations, rows in memory stand for those on disk.
    #[cfg(all(test, feature = "testing"))]
    pub(super) file: Option<super::simulated_disk::File>,
}

/// `key | value` in one piece, so that a row is one place in memory.
#[derive(Debug)]
struct Row {
    hash: u64,
    key_len: usize,
    bytes: Box<[u8]>,
}

impl Row {
    fn key(&self) -> &[u8] {
        self.bytes.get(..self.key_len).unwrap_or_default()
    }

    fn value(&self) -> &[u8] {
        self.bytes.get(self.key_len..).unwrap_or_default()
    }

    fn is(&self, hash: u64, key: &[u8]) -> bool {
        self.hash == hash && self.key() == key
    }
}

impl MemoryEngine {
    pub(super) fn get(&self, key: &[u8]) -> Option<&[u8]> {
        let hash = hash(key);
        self.rows.find(hash, |row| row.is(hash, key)).map(Row::value)
    }

    pub(super) fn put(&mut self, key: &[u8], value: &[u8]) {
        let hash = hash(key);
        if let Some(row) = self.rows.find_mut(hash, |row| row.is(hash, key)) {
            match row.bytes.get_mut(row.key_len..) {
                Some(old) if old.len() == value.len() => old.copy_from_slice(value),
                _ => row.bytes = [key, value].concat().into(),
            }
            return;
        }
        let row = Row { hash, key_len: key.len(), bytes: [key, value].concat().into() };
        self.rows.insert_unique(hash, row, |row| row.hash);
        if let Some(ordered) = &mut self.ordered {
            ordered.insert(key.into());
        }
    }

    pub(super) fn delete(&mut self, key: &[u8]) {
        let hash = hash(key);
        if let Ok(row) = self.rows.find_entry(hash, |row| row.is(hash, key)) {
            row.remove();
        }
        if let Some(ordered) = &mut self.ordered {
            ordered.remove(key);
        }
    }

    /// Writes rows and deletes others.
    pub(super) fn apply<'a>(&mut self, rows: impl Iterator<Item = (&'a [u8], Option<&'a [u8]>)>) {
        for (key, row) in rows {
            match row {
                Some(row) => self.put(key, row),
                None => self.delete(key),
            }
        }
    }

    pub(super) fn is_ordered(&self) -> bool {
        self.ordered.is_some()
    }

    /// Keeps an order from now on, for [`range`](MemoryEngine::range).
    pub(super) fn order(&mut self) {
        let rows = &self.rows;
        self.ordered.get_or_insert_with(|| rows.iter().map(|row| row.key().into()).collect());
    }

    /// Rows in order; none before the first call of [`order`](MemoryEngine::order).
    pub(super) fn range(
        &self,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
    ) -> impl DoubleEndedIterator<Item = (&[u8], &[u8])> {
        let find = |key: &[u8]| {
            let hash = hash(key);
            self.rows.find(hash, |row| row.is(hash, key)).map(Row::value)
        };
        let ordered = self.ordered.as_ref().into_iter();
        let keys = ordered.flat_map(move |ordered| ordered.range::<[u8], _>((from, to)));
        keys.filter_map(move |key| Some((&**key, find(key)?)))
    }

    /// Clears rows away that no read shows.
    pub(super) fn clear(&mut self, expired: Expired) {
        let keys: Vec<Vec<u8>> = match expired {
            Expired::Before(first) => {
                let rows = self.range(Bound::Unbounded, Bound::Excluded(&first[..]));
                rows.map(|(key, _)| key.to_vec()).collect()
            }
            Expired::Versions(horizon) => {
                let rows = self.rows.iter().filter(|row| has_expired(row.key(), row.value(), horizon));
                rows.map(|row| row.key().to_vec()).collect()
            }
        };
        keys.iter().for_each(|key| self.delete(key));
    }

    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    /// Forgets all rows and the offset.
    pub(super) fn wipe(&mut self) {
        #[cfg(all(test, feature = "testing"))]
        let file = self.file.take();
        *self = MemoryEngine::default();
        #[cfg(all(test, feature = "testing"))]
        {
            self.file = file;
            self.write_to_file(Some(-1), 0);
        }
    }

    #[cfg(all(test, feature = "testing"))]
    pub(super) fn check_file(&self) -> crate::error::Result<()> {
        self.file.as_ref().map_or(Ok(()), super::simulated_disk::File::check)
    }

    #[cfg(all(test, feature = "testing"))]
    pub(super) fn write_to_file(&mut self, stream_time: Option<i64>, now_ms: i64) {
        let Some(file) = &mut self.file else { return };
        let rows = self.rows.iter().map(|row| (row.key().to_vec(), row.value().to_vec())).collect();
        file.write(rows, (self.offset, stream_time), now_ms);
    }

    /// The largest time that was put, where that is kept.
    #[cfg(all(test, feature = "testing"))]
    pub(super) fn stream_time(&self) -> Option<i64> {
        self.file.as_ref().map(super::simulated_disk::File::stream_time)
    }

    /// Memory forgets it with its rows.
    #[cfg(not(all(test, feature = "testing")))]
    pub(super) const fn stream_time(&self) -> Option<i64> {
        None
    }
}
