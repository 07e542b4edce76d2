//! Rows in one piece of memory, found by hash: what buffer and read cache are made of.

use std::hash::BuildHasher as _;

use hashbrown::HashTable;
use rustc_hash::FxBuildHasher;

use crate::error::{Error, ErrorKind, Result};

/// Rows by key. A row is written once behind the last one, `key | value`, and overwritten in place while the new value
/// fits. Nothing is freed before [`clear`](Generation::clear), which keeps the memory.
#[derive(Debug, Default)]
pub(super) struct Generation {
    bytes: Vec<u8>,
    rows: Vec<Row>,
    table: HashTable<u32>,
}

/// What a row costs beside its bytes: its entry here and its place in the table.
pub(super) const ROW_OVERHEAD: usize = size_of::<Row>() + 8;

/// What a generation keeps at least when it is cleared.
const KEPT_BYTES_MIN: usize = 64 << 10;

#[derive(Debug, Clone, Copy)]
struct Row {
    hash: u64,
    key_at: u32,
    key_len: u32,
    value_at: u32,
    /// `ABSENT`: there is no such row, and that is known.
    value_len: u32,
    /// What fits at `value_at`.
    value_capacity: u32,
    dirty: bool,
}

const ABSENT: u32 = u32::MAX;

pub(super) fn hash(key: &[u8]) -> u64 {
    FxBuildHasher.hash_one(key)
}

impl Generation {
    pub(super) fn find(&self, hash: u64, key: &[u8]) -> Option<u32> {
        let is_it = |id: &u32| self.row(*id).is_some_and(|row| row.hash == hash && self.key_of(row) == key);
        self.table.find(hash, is_it).copied()
    }

    pub(super) fn key(&self, id: u32) -> &[u8] {
        self.row(id).map_or(&[], |row| self.key_of(row))
    }

    pub(super) fn value(&self, id: u32) -> Option<&[u8]> {
        let row = self.row(id)?;
        (row.value_len != ABSENT).then(|| self.slice(row.value_at, row.value_len))
    }

    /// Bytes of key and value.
    pub(super) fn row_bytes(&self, id: u32) -> usize {
        self.row(id)
            .map_or(0, |row| row.key_len as usize + if row.value_len == ABSENT { 0 } else { row.value_len as usize })
    }

    /// Marks a row; whether it was marked before.
    pub(super) fn set_dirty(&mut self, id: u32, dirty: bool) -> bool {
        self.rows.get_mut(id as usize).is_some_and(|row| std::mem::replace(&mut row.dirty, dirty))
    }

    /// Adds a row whose key is not there.
    #[expect(clippy::cast_possible_truncation, reason = "`reserve` has checked the sum of both lengths")]
    pub(super) fn insert(&mut self, hash: u64, key: &[u8], value: Option<&[u8]>) -> Result<u32> {
        let id = u32::try_from(self.rows.len()).map_err(|_| too_large())?;
        let value_bytes = value.unwrap_or_default();
        let key_at = self.reserve(key.len() + value_bytes.len())?;
        self.bytes.extend_from_slice(key);
        self.bytes.extend_from_slice(value_bytes);
        let (key_len, value_capacity) = (key.len() as u32, value_bytes.len() as u32);
        let value_len = if value.is_some() { value_capacity } else { ABSENT };
        let value_at = key_at + key_len;
        self.rows.push(Row { hash, key_at, key_len, value_at, value_len, value_capacity, dirty: false });
        let rows = &self.rows;
        self.table.insert_unique(hash, id, |id| rows.get(*id as usize).map_or(0, |row| row.hash));
        Ok(id)
    }

    /// Overwrites the value of a row.
    #[expect(clippy::cast_possible_truncation, reason = "a value fits its capacity, or `reserve` has checked it")]
    pub(super) fn set(&mut self, id: u32, value: Option<&[u8]>) -> Result<()> {
        let Some(&row) = self.row(id) else { return Ok(()) };
        let (mut at, mut capacity) = (row.value_at, row.value_capacity);
        let value_len = match value {
            None => ABSENT,
            Some(value) if value.len() <= capacity as usize => {
                let at = at as usize;
                if let Some(place) = self.bytes.get_mut(at..at + value.len()) {
                    place.copy_from_slice(value);
                }
                value.len() as u32
            }
            Some(value) => {
                // A value that grows again and again moves a number of times that is logarithmic in its length.
                let room = if capacity == 0 { value.len() } else { value.len() + value.len() / 2 };
                at = self.reserve(room)?;
                self.bytes.extend_from_slice(value);
                self.bytes.resize(at as usize + room, 0);
                capacity = room as u32;
                value.len() as u32
            }
        };
        if let Some(row) = self.rows.get_mut(id as usize) {
            *row = Row { value_at: at, value_len, value_capacity: capacity, ..*row };
        }
        Ok(())
    }

    /// Memory in use, space that is lost between rows included.
    pub(super) fn used(&self) -> usize {
        self.bytes.len() + self.rows.len() * ROW_OVERHEAD
    }

    /// Forgets all rows. Keeps the memory, but not what only a burst has needed.
    pub(super) fn clear(&mut self) {
        let kept = (2 * self.bytes.len()).max(KEPT_BYTES_MIN);
        let kept_rows = (2 * self.rows.len()).max(KEPT_BYTES_MIN / ROW_OVERHEAD);
        self.bytes.clear();
        self.rows.clear();
        self.table.clear();
        if self.bytes.capacity() > 2 * kept {
            self.bytes.shrink_to(kept);
        }
        if self.rows.capacity() > 2 * kept_rows {
            self.rows.shrink_to(kept_rows);
            self.table.shrink_to(kept_rows, |_| 0);
        }
    }

    fn row(&self, id: u32) -> Option<&Row> {
        self.rows.get(id as usize)
    }

    fn key_of(&self, row: &Row) -> &[u8] {
        self.slice(row.key_at, row.key_len)
    }

    fn slice(&self, at: u32, len: u32) -> &[u8] {
        self.bytes.get(at as usize..at as usize + len as usize).unwrap_or_default()
    }

    /// Where the next bytes go, with the promise that everything up to their end has an address.
    #[expect(clippy::cast_possible_truncation, reason = "the end is checked, and the start is before it")]
    fn reserve(&mut self, len: usize) -> Result<u32> {
        let at = self.bytes.len();
        if at.saturating_add(len) >= ABSENT as usize {
            return Err(too_large());
        }
        Ok(at as u32)
    }
}

#[cold]
fn too_large() -> Error {
    let context = "could not hold more than 4 GiB of uncommitted rows of one store: commit more often";
    Error::new(ErrorKind::Unavailable, context)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_overwritten_in_place_while_it_fits() {
        let mut rows = Generation::default();
        let id = rows.insert(hash(b"k"), b"k", Some(b"value")).unwrap();
        let used = rows.used();
        rows.set(id, Some(b"v")).unwrap();
        rows.set(id, Some(b"other")).unwrap();
        assert_eq!((rows.used(), rows.value(id)), (used, Some(&b"other"[..])));
        rows.set(id, Some(b"longer than before")).unwrap();
        assert_eq!(rows.value(id), Some(&b"longer than before"[..]));
        rows.set(id, None).unwrap();
        assert_eq!((rows.value(id), rows.row_bytes(id)), (None, 1));
        assert_eq!(rows.find(hash(b"k"), b"k"), Some(id));
    }

    #[test]
    fn a_burst_does_not_keep_its_memory() {
        let mut rows = Generation::default();
        rows.insert(hash(b"k"), b"k", Some(&[7; 1 << 20])).unwrap();
        rows.clear();
        assert!(rows.bytes.capacity() >= 1 << 20, "the next burst of that size finds it");
        rows.insert(hash(b"k"), b"k", Some(b"v")).unwrap();
        rows.clear();
        assert!(rows.bytes.capacity() <= KEPT_BYTES_MIN);
    }
}
