//! Which rows the keys of a windowed store have, from some time on: a lookup in memory in place of a range of the store.
//!
//! ```text
//!   bucket 7   not known: ranges of the store
//!   bucket 8   k1: 8.01, 8.40    k2: 8.33         complete from here on
//!   bucket 9   k1: 9.02          k3: too many
//! ```
//!
//! What is there at the first question is read from the store, the latest buckets first, as far as it is not too much.
//! Only names are here, values are read by key. There may be names of rows that are gone, so whoever reads a row finds out
//! whether it is there; no row that is there is missing. What an abort brings back is not known: it forgets everything.

use std::collections::BTreeMap;

use hashbrown::HashTable;

use super::generation::hash;
use super::windowed_keys::{Parts, Tail, WindowedKeys};

/// The rows of the buckets that were written last, as the task sees them: cached, uncommitted and committed ones.
#[derive(Debug)]
pub(super) struct KnownRows {
    keys: WindowedKeys,
    bucket_ms: i64,
    /// All rows of this bucket and of those behind it are known; none: not begun, and nothing is kept.
    complete_from: Option<i64>,
    buckets: BTreeMap<i64, Bucket>,
    bytes: usize,
    bytes_max: usize,
}

/// The names of a key's rows, without the key, in the order of the store.
pub(super) type Names = Vec<(i64, i64)>;

/// A key with more rows than these in a bucket is looked for in the store: a range is no worse then, and nothing here
/// takes long.
const NAMES_MAX: u32 = 64;
/// Of a store whose rows lie in no buckets.
const BUCKET_MS_MIN: i64 = 1_000;
/// What is read from the store at the beginning, some 30 ms of work. Tests meet both, what is read and what is not.
const LOADED_BYTES_MAX: usize = if cfg!(test) { 400 } else { 6 << 20 };
/// So that offsets fit.
const BUCKET_BYTES_MAX: usize = 1 << 31;

impl KnownRows {
    pub(super) fn new(retention_ms: i64, keys: WindowedKeys) -> KnownRows {
        let bucket_ms = keys.bucket_ms.unwrap_or((retention_ms / 2).max(BUCKET_MS_MIN));
        KnownRows { keys, bucket_ms, complete_from: None, buckets: BTreeMap::new(), bytes: 0, bytes_max: 0 }
    }

    /// What it may take from now on.
    pub(super) fn set_bytes_max(&mut self, bytes: usize) {
        self.bytes_max = bytes;
        self.shrink();
    }

    /// What it takes.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Nothing is known any more.
    pub(super) fn forget(&mut self) {
        self.complete_from = None;
        self.buckets.clear();
        self.bytes = 0;
    }

    /// Whether a row is about to be put that should be known. Rows of plain windows are mostly read by their names, so those
    /// wait for the first question.
    pub(super) fn begins_with_put(&self) -> bool {
        !self.has_begun() && self.keys.tail != Tail::None
    }

    pub(super) fn has_begun(&self) -> bool {
        self.complete_from.is_some()
    }

    /// From now on rows are known, of all buckets where there is none, otherwise behind the one of the `newest`.
    pub(super) fn begin(&mut self, newest: i64) {
        self.complete_from = Some(if newest < 0 { i64::MIN } else { newest / self.bucket_ms + 1 });
    }

    /// The times of the bucket before those that are known, if it has rows of that time or later: every row in it has to be
    /// put then.
    pub(super) fn begin_earlier(&mut self, first: i64) -> Option<(i64, i64)> {
        let number = self.complete_from.filter(|from| *from > first / self.bucket_ms)? - 1;
        if self.bytes >= LOADED_BYTES_MAX {
            return None;
        }
        self.complete_from = Some(number);
        let start = number.saturating_mul(self.bucket_ms);
        Some((start, start.saturating_add(self.bucket_ms - 1)))
    }

    /// Puts a row of the bucket that [`begin_earlier`](KnownRows::begin_earlier) has told; whether there is room for more.
    pub(super) fn put_earlier(&mut self, row: &[u8], first_visible: i64) -> bool {
        let bucket = self.complete_from;
        self.put(row, true, first_visible);
        if let Some(number) = bucket.filter(|_| self.bytes >= LOADED_BYTES_MAX) {
            self.drop_before(number + 1);
        }
        self.complete_from == bucket
    }

    /// A row comes, perhaps in place of itself, or it goes. Reads show rows from `first_visible` on.
    pub(super) fn put(&mut self, row: &[u8], has_value: bool, first_visible: i64) {
        let Some(complete_from) = self.complete_from else { return };
        let Some(parts) = self.keys.decode(row) else { return };
        let number = parts.time / self.bucket_ms;
        if number < complete_from {
            return;
        }
        let is_unique = self.keys.tail == Tail::Sequence;
        if !has_value {
            if let Some(bucket) = self.buckets.get_mut(&number).filter(|_| !is_unique) {
                bucket.remove(parts);
            }
            return;
        }
        if !self.buckets.contains_key(&number) {
            self.drop_before(first_visible / self.bucket_ms);
        }
        let bucket = self.buckets.entry(number).or_default();
        let before = bucket.bytes();
        bucket.add(parts, is_unique);
        let after = bucket.bytes();
        self.bytes = self.bytes - before + after;
        if self.bytes > self.bytes_max || after > BUCKET_BYTES_MAX {
            self.shrink();
        }
    }

    /// Finds the rows of a key in a span of time, as far as they are known: those of the time that is returned and later.
    pub(super) fn find(&self, key: &[u8], (from, to): (i64, i64), names: &mut Names) -> i64 {
        let Some(complete_from) = self.complete_from else { return i64::MAX };
        let hash = hash(key);
        let (first, last) = ((from / self.bucket_ms).max(complete_from), to / self.bucket_ms);
        if first <= last {
            for bucket in self.buckets.range(first..=last).map(|(_, bucket)| bucket) {
                if !bucket.find(hash, key, (from, to), names) {
                    names.clear();
                    return i64::MAX;
                }
            }
        }
        names.sort_unstable_by_key(|(time, tail)| (*time, self.keys.turned(*tail)));
        complete_from.saturating_mul(self.bucket_ms)
    }

    fn shrink(&mut self) {
        while self.bytes > self.bytes_max || self.buckets.values().any(|bucket| bucket.bytes() > BUCKET_BYTES_MAX) {
            let Some((number, _)) = self.buckets.first_key_value() else { return };
            self.drop_before(number + 1);
        }
    }

    /// Forgets the buckets before a number.
    fn drop_before(&mut self, number: i64) {
        while let Some(first) = self.buckets.first_entry().filter(|first| *first.key() < number) {
            self.bytes -= first.remove().bytes();
        }
        self.complete_from = self.complete_from.map(|from| from.max(number));
    }
}

/// Rows of a bucket in chains, one for each key.
#[derive(Debug, Default)]
struct Bucket {
    key_bytes: Vec<u8>,
    keys: Vec<Key>,
    table: HashTable<u32>,
    rows: Vec<Row>,
    /// The chain of entries that are free; 0: none.
    free: u32,
}

#[derive(Debug)]
struct Key {
    hash: u64,
    at: u32,
    len: u32,
    /// The number of the first row behind 0, which is none.
    first: u32,
    /// More than `NAMES_MAX`: not kept any more.
    count: u32,
}

#[derive(Debug)]
struct Row {
    time: i64,
    tail: i64,
    next: u32,
}

impl Bucket {
    fn bytes(&self) -> usize {
        self.key_bytes.len() + self.keys.len() * (size_of::<Key>() + 8) + self.rows.len() * size_of::<Row>()
    }

    /// Adds the names of a key's rows; whether they are known.
    fn find(&self, hash: u64, key: &[u8], (from, to): (i64, i64), names: &mut Names) -> bool {
        let Some(key) = self.id(hash, key).and_then(|id| self.keys.get(id as usize)) else { return true };
        let mut next = key.first;
        while let Some(row) = self.row(next) {
            if (from..=to).contains(&row.time) {
                names.push((row.time, row.tail));
            }
            next = row.next;
        }
        key.count <= NAMES_MAX
    }

    /// `is_unique`: the row is not there yet.
    #[expect(clippy::cast_possible_truncation, reason = "a bucket ends long before its offsets do")]
    fn add(&mut self, Parts { key, time, tail }: Parts<'_>, is_unique: bool) {
        let hash = hash(key);
        let id = match self.id(hash, key) {
            Some(id) => id,
            None => {
                let id = self.keys.len() as u32;
                let at = self.key_bytes.len() as u32;
                self.key_bytes.extend_from_slice(key);
                self.keys.push(Key { hash, at, len: key.len() as u32, first: 0, count: 0 });
                let keys = &self.keys;
                self.table.insert_unique(hash, id, |id| keys.get(*id as usize).map_or(0, |key| key.hash));
                id
            }
        };
        let Some(&Key { first, count, .. }) = self.keys.get(id as usize) else { return };
        if count > NAMES_MAX || (!is_unique && self.position(first, time, tail).is_some()) {
            return;
        }
        if count == NAMES_MAX {
            self.free_all(first);
            self.set_chain(id, 0, NAMES_MAX + 1);
            return;
        }
        let row = Row { time, tail, next: first };
        let number = self.free;
        match self.rows.get_mut((number as usize).wrapping_sub(1)) {
            Some(place) => {
                self.free = place.next;
                *place = row;
                self.set_chain(id, number, count + 1);
            }
            None => {
                self.rows.push(row);
                self.set_chain(id, self.rows.len() as u32, count + 1);
            }
        }
    }

    fn remove(&mut self, Parts { key, time, tail }: Parts<'_>) {
        let Some(id) = self.id(hash(key), key) else { return };
        let Some(&Key { first, count, .. }) = self.keys.get(id as usize) else { return };
        let Some((before, number)) = self.position(first, time, tail) else { return };
        let behind = self.row(number).map_or(0, |row| row.next);
        match self.row_mut(before) {
            Some(before) => {
                before.next = behind;
                self.set_chain(id, first, count - 1);
            }
            None => self.set_chain(id, behind, count - 1),
        }
        self.release(number);
    }

    /// The number of a row of a chain, and that of the one before it.
    fn position(&self, first: u32, time: i64, tail: i64) -> Option<(u32, u32)> {
        let (mut before, mut number) = (0, first);
        while let Some(row) = self.row(number) {
            if row.time == time && row.tail == tail {
                return Some((before, number));
            }
            (before, number) = (number, row.next);
        }
        None
    }

    fn set_chain(&mut self, id: u32, first: u32, count: u32) {
        if let Some(key) = self.keys.get_mut(id as usize) {
            (key.first, key.count) = (first, count);
        }
    }

    fn free_all(&mut self, first: u32) {
        let mut next = first;
        while let Some(row) = self.row(next) {
            let behind = row.next;
            self.release(next);
            next = behind;
        }
    }

    fn release(&mut self, number: u32) {
        let free = self.free;
        if let Some(row) = self.row_mut(number) {
            row.next = free;
            self.free = number;
        }
    }

    fn id(&self, hash: u64, key: &[u8]) -> Option<u32> {
        let is_it = |id: &u32| self.keys.get(*id as usize).is_some_and(|own| own.hash == hash && self.key(own) == key);
        self.table.find(hash, is_it).copied()
    }

    fn key(&self, key: &Key) -> &[u8] {
        self.key_bytes.get(key.at as usize..key.at as usize + key.len as usize).unwrap_or_default()
    }

    fn row(&self, number: u32) -> Option<&Row> {
        self.rows.get((number as usize).wrapping_sub(1))
    }

    fn row_mut(&mut self, number: u32) -> Option<&mut Row> {
        self.rows.get_mut((number as usize).wrapping_sub(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEYS: WindowedKeys = WindowedKeys { tail: Tail::Start, bucket_ms: Some(100), drops_each: false };

    fn known(bytes_max: usize, newest: i64) -> KnownRows {
        let mut known = KnownRows::new(1_000, KEYS);
        known.set_bytes_max(bytes_max);
        assert!(known.begins_with_put());
        known.begin(newest);
        known
    }

    fn row(key: &[u8], time: i64, tail: i64) -> Vec<u8> {
        let mut row = Vec::new();
        KEYS.encode(Parts { key, time, tail }, &mut row);
        row
    }

    fn put(known: &mut KnownRows, key: &[u8], time: i64, tail: i64, has_value: bool) {
        known.put(&row(key, time, tail), has_value, 0);
    }

    fn find(known: &KnownRows, key: &[u8]) -> (i64, Names) {
        let mut names = Names::new();
        (known.find(key, (0, i64::MAX), &mut names), names)
    }

    #[test]
    fn rows_are_known_by_key_in_the_order_of_time() {
        let mut known = known(10_000, -1);
        for (time, tail) in [(205, 205), (20, 20), (20, 3), (20, 20), (150, 7)] {
            put(&mut known, b"a", time, tail, true);
        }
        put(&mut known, b"b", 20, 20, true);
        assert_eq!(find(&known, b"a").1, [(20, 3), (20, 20), (150, 7), (205, 205)]);
        put(&mut known, b"a", 20, 3, false);
        put(&mut known, b"a", 150, 7, false);
        put(&mut known, b"a", 150, 8, false);
        put(&mut known, b"a", 10, 10, true);
        assert_eq!(find(&known, b"a").1, [(10, 10), (20, 20), (205, 205)]);
        let mut names = Names::new();
        known.find(b"a", (11, 204), &mut names);
        assert_eq!(names, [(20, 20)]);
    }

    #[test]
    fn what_was_there_before_is_known_as_far_as_it_was_read() {
        let mut known = known(10_000, 250);
        put(&mut known, b"a", 299, 299, true);
        put(&mut known, b"a", 300, 300, true);
        assert_eq!(find(&known, b"a"), (300, vec![(300, 300)]));
        assert_eq!(known.begin_earlier(120), Some((200, 299)));
        assert!(known.put_earlier(&row(b"a", 299, 299), 0));
        assert_eq!(find(&known, b"a"), (200, vec![(299, 299), (300, 300)]));
        assert_eq!(known.begin_earlier(120), Some((100, 199)));
        assert_eq!(known.begin_earlier(120), None);
        assert_eq!(known.begin_earlier(99), Some((0, 99)));
        assert!((0..100).any(|tail| !known.put_earlier(&row(b"b", 20, tail), 0)));
        assert_eq!(find(&known, b"b"), (100, vec![]));
        known.forget();
        assert_eq!(find(&known, b"a"), (i64::MAX, vec![]));
        known.set_bytes_max(0);
        known.begin(250);
        known.begin_earlier(120);
        assert!(!known.put_earlier(&row(b"a", 299, 299), 0), "there is no room at all");
        assert_eq!(find(&known, b"a"), (300, vec![]));
    }

    #[test]
    fn the_earliest_buckets_go_when_there_is_no_room() {
        let mut known = known(1_000, -1);
        for n in 0..100_i64 {
            put(&mut known, &n.to_be_bytes(), 10 * n, 0, true);
            assert!(known.bytes() <= 1_000);
            let bytes = known.buckets.values().map(Bucket::bytes).sum::<usize>();
            assert_eq!(known.bytes(), bytes);
        }
        assert_eq!(find(&known, &99_i64.to_be_bytes()), (900, vec![(990, 0)]));
        known.set_bytes_max(0);
        assert_eq!((find(&known, b"a"), known.bytes()), ((1_000, vec![]), 0));
        put(&mut known, b"a", 1_050, 0, true);
        assert_eq!((find(&known, b"a"), known.bytes()), ((1_100, vec![]), 0));
    }

    #[test]
    fn a_key_with_very_many_rows_is_looked_for_in_the_store() {
        let mut known = known(100_000, -1);
        for tail in 0..=i64::from(NAMES_MAX) {
            put(&mut known, b"a", 50, tail, true);
            put(&mut known, b"a", 150, 0, true);
        }
        put(&mut known, b"a", 50, 0, false);
        assert_eq!(find(&known, b"a"), (i64::MAX, vec![]));
        assert_eq!(find(&known, b"b"), (0, vec![]));
        let mut names = Names::new();
        assert_eq!(known.find(b"a", (100, 200), &mut names), 0);
        assert_eq!(names, [(150, 0)]);
        let rows = known.buckets.values().map(|bucket| bucket.rows.len()).sum::<usize>();
        for tail in 0..10 {
            put(&mut known, b"c", 50, tail, true);
        }
        assert_eq!(
            known.buckets.values().map(|bucket| bucket.rows.len()).sum::<usize>(),
            rows,
            "their places are free"
        );
    }
}
