//! Rows of a changelog that are collected for a run, one behind the other.
//!
//! ```text
//!   key length 4 | value length 4, or none | key | value        in the order of the records: of a key, the last row counts
//! ```
//!
//! They need no table: a run is sorted in any case, which brings the rows of a key together. Where most rows are updates of a
//! few keys, those that were overwritten are [dropped](RunRows::squeeze) in between.

use super::generation::hash;
use super::key_order::{self, Place};
use crate::error::{Error, ErrorKind, Result};

#[derive(Debug, Default)]
pub(super) struct RunRows {
    bytes: Vec<u8>,
    len: usize,
    /// The rows in the order of their keys, each key once.
    sorted: Vec<Place>,
}

const LENGTHS: usize = 8;

/// The length of no value: a deletion.
const ABSENT: u32 = u32::MAX;

/// Of many rows one key in so many is looked at to see how many keys there are.
const SAMPLED: u64 = 32;
const MANY: usize = 8192;

/// Rows that are fetched from memory together.
const FETCHED: usize = 64;

/// Bytes that come from memory at once.
const CACHE_LINE: usize = 64;

impl RunRows {
    /// With room for so many bytes, which cost nothing before they are used.
    pub(super) fn with_capacity(bytes: usize) -> RunRows {
        RunRows { bytes: Vec::with_capacity(bytes), ..RunRows::default() }
    }

    /// Adds a row; none: the key was deleted.
    pub(super) fn push(&mut self, key: &[u8], value: Option<&[u8]>) -> Result<()> {
        let bytes = value.unwrap_or_default();
        let end = self.bytes.len() + LENGTHS + key.len() + bytes.len();
        // Every place and every length is below it.
        if end >= ABSENT as usize {
            return Err(too_large());
        }
        #[expect(clippy::cast_possible_truncation, reason = "shorter than what is below `ABSENT`")]
        let (key_len, value_len) = (key.len() as u32, value.map_or(ABSENT, |value| value.len() as u32));
        let lengths = u64::from(value_len) << 32 | u64::from(key_len);
        self.bytes.extend_from_slice(&lengths.to_le_bytes());
        self.bytes.extend_from_slice(key);
        self.bytes.extend_from_slice(bytes);
        self.len += 1;
        Ok(())
    }

    /// Memory that they take, and that it takes to sort them.
    pub(super) fn bytes(&self) -> usize {
        self.bytes.len() + self.len * size_of::<Place>()
    }

    /// Whether at least half of the rows were overwritten by others, as far as some keys tell.
    pub(super) fn is_mostly_overwritten(&self) -> bool {
        let sampled = if self.len < MANY { 1 } else { SAMPLED };
        let is_sampled = |hash: &u64| (hash >> 32).is_multiple_of(sampled);
        let mut keys: Vec<u64> = self.rows().map(|(_, key, _)| hash(key)).filter(is_sampled).collect();
        let rows = keys.len();
        keys.sort_unstable();
        keys.dedup();
        // Few keys in all may have none that is looked at.
        keys.len() <= rows / 2
    }

    /// Drops the rows that were overwritten.
    pub(super) fn squeeze(&mut self) {
        self.sort();
        let mut kept = std::mem::take(&mut self.sorted);
        kept.sort_unstable_by_key(|(_, row)| *row);
        let mut end = 0;
        for (_, row) in &kept {
            let (at, len) = (*row as usize, self.row_bytes(*row));
            self.bytes.copy_within(at..at + len, end);
            end += len;
        }
        self.bytes.truncate(end);
        self.len = kept.len();
    }

    /// Sorts the rows, for [`sorted`](RunRows::sorted).
    pub(super) fn sort(&mut self) {
        let mut places: Vec<Place> = Vec::with_capacity(self.len);
        places.extend(self.rows().map(|(row, ..)| (0, row)));
        key_order::sort(&mut places, |row| self.row(row).0);
        // Of a key the last row, which is moved to the place of its first.
        places.dedup_by(|later, earlier| {
            let is_same = later.0 == earlier.0 && self.row(later.1).0 == self.row(earlier.1).0;
            if is_same {
                *earlier = *later;
            }
            is_same
        });
        self.sorted = places;
    }

    /// Rows in the order of the last [`sort`](RunRows::sort), each key once; a deletion is a row without a value.
    #[cfg_attr(not(feature = "rocksdb"), allow(dead_code, reason = "asked for by stores on disk only"))]
    pub(super) fn sorted(&self) -> impl Iterator<Item = (&[u8], Option<&[u8]>)> {
        self.sorted.chunks(FETCHED).flat_map(|places| {
            self.fetch(places);
            places.iter().map(|(_, row)| self.row(*row))
        })
    }

    /// Looks at rows that lie anywhere, one right behind the other: so the memory is waited for once, and not for each of them
    /// when it is used. Half of the time that the rows of a run took was this.
    fn fetch(&self, places: &[Place]) {
        let at = |at: usize| self.bytes.get(at).copied().unwrap_or(0);
        let looked_at = places.iter().fold(0, |all, (_, row)| all ^ at(*row as usize) ^ at(*row as usize + CACHE_LINE));
        std::hint::black_box(looked_at);
    }

    /// In the order in which they came, each with where it is.
    pub(super) fn rows(&self) -> impl Iterator<Item = (u32, &[u8], Option<&[u8]>)> {
        let mut at = 0;
        std::iter::from_fn(move || {
            let here = at;
            if here as usize >= self.bytes.len() {
                return None;
            }
            #[expect(clippy::cast_possible_truncation, reason = "`push` has checked where it ends")]
            let len = self.row_bytes(here) as u32;
            at += len;
            let (key, value) = self.row(here);
            Some((here, key, value))
        })
    }

    fn row_bytes(&self, row: u32) -> usize {
        let (key, value) = self.row(row);
        LENGTHS + key.len() + value.map_or(0, <[u8]>::len)
    }

    #[inline]
    fn row(&self, row: u32) -> (&[u8], Option<&[u8]>) {
        let Some((lengths, rest)) = self.bytes.get(row as usize..).and_then(<[u8]>::split_first_chunk) else {
            return (&[], None);
        };
        let lengths = u64::from_le_bytes(*lengths);
        #[expect(clippy::cast_possible_truncation, reason = "two numbers of 32 bits each")]
        let (key_len, value_len) = (lengths as u32, (lengths >> 32) as u32);
        let Some((key, rest)) = rest.split_at_checked(key_len as usize) else { return (&[], None) };
        (key, if value_len == ABSENT { None } else { rest.get(..value_len as usize) })
    }
}

#[cold]
fn too_large() -> Error {
    let context = "could not hold more than 4 GiB of rows of one store that is restored: lower the bound for memtables";
    Error::new(ErrorKind::Unavailable, context)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(rows: &[(&str, Option<&str>)]) -> RunRows {
        let mut run = RunRows::default();
        for (key, value) in rows {
            run.push(key.as_bytes(), value.map(str::as_bytes)).unwrap();
        }
        run
    }

    fn sorted(run: &RunRows) -> Vec<(&str, Option<&str>)> {
        let text = |bytes| std::str::from_utf8(bytes).unwrap();
        run.sorted().map(|(key, value)| (text(key), value.map(text))).collect()
    }

    #[test]
    fn the_last_row_of_a_key_counts_and_null_is_not_empty() {
        let mut run = rows(&[("b", Some("1")), ("a", Some("2")), ("b", None), ("c", Some("")), ("a", Some("3"))]);
        run.sort();
        let expected = [("a", Some("3")), ("b", None), ("c", Some(""))];
        assert_eq!(sorted(&run), expected);
        let before = run.bytes();
        run.squeeze();
        assert!(run.bytes() < before);
        run.push(b"a", Some(b"4")).unwrap();
        run.sort();
        assert_eq!(sorted(&run), [("a", Some("4")), ("b", None), ("c", Some(""))]);
    }

    #[test]
    fn many_updates_of_few_keys_are_told_from_updates_of_many() {
        let filled = |keys: u64| {
            let mut run = RunRows::default();
            (0..20_000_u64).for_each(|n| run.push(&(n % keys).to_be_bytes(), Some(b"v")).unwrap());
            run
        };
        assert!([1, 10, 100, 1_000, 5_000].iter().all(|keys| filled(*keys).is_mostly_overwritten()));
        assert!([15_000, 20_000].iter().all(|keys| !filled(*keys).is_mostly_overwritten()));
        let mut run = filled(100);
        run.squeeze();
        assert!(run.bytes() < 100 * 64, "{}", run.bytes());
        assert!(filled(1).bytes() >= 20_000 * (LENGTHS + 9 + size_of::<Place>()));
    }
}
