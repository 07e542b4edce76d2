//! Rows of a key-value store that live for some time only: `with_ttl`.
//!
//! ```text
//!     0x00 | key             timestamp 8 | value    a row
//!     0x01 | time 8 | key    nothing                the same row, in the order in which rows expire
//! ```
//!
//! Both are written with each other, in one batch of one family, so that what is to expire is found again after a crash
//! and whatever it costs is paid per row. The changelog has `key → value` and the timestamp as the record's, as without; it
//! is what the second row is made of when a store is restored.
//!
//! A row expires when the task's stream time is past its own time and the time to live. All that have are deleted, with a
//! deletion in the changelog, **before** the record that has moved the time is processed: no read has to know of it, and
//! who follows a table has been told. What a record can make expire has no bound, so the task does it piece by piece, and
//! commits in between if it has to.

use std::collections::BTreeSet;
use std::ops::Bound;

use super::merge::Rows;
use super::one_store::Store;
use super::row_format::RowFormat;
use super::task_stores::{RecordContext, TaskStores, log_expired, no_store};
use crate::error::Result;

/// First byte of a row.
const ROW: u8 = 0;
/// First byte of its place in the order of time.
const TIME: u8 = 1;
/// Behind both.
const END: u8 = 2;

/// Rows known to expire next, at most.
const AHEAD_MAX: usize = 256;

/// Which rows of a store expire next.
#[derive(Debug)]
pub(super) struct Expiry {
    ttl_ms: i64,
    /// The first of those that are left, all up to `known_to`.
    ahead: BTreeSet<Vec<u8>>,
    known_to: Vec<u8>,
    /// Scratch; kept, so that most puts allocate nothing.
    time_key: Vec<u8>,
}

impl Expiry {
    pub(super) fn new(ttl_ms: i64) -> Expiry {
        Expiry { ttl_ms, ahead: BTreeSet::new(), known_to: vec![TIME], time_key: Vec::new() }
    }

    /// Whether a row of one time has expired at another.
    fn has_expired(&self, timestamp: i64, now: i64) -> bool {
        now.saturating_sub(self.ttl_ms) > timestamp
    }

    /// Whether there may be a row that has expired.
    fn may_be_due(&self, now: i64) -> bool {
        let next = self.ahead.first().unwrap_or(&self.known_to);
        next.first() != Some(&END) && time_of(next).is_none_or(|time| self.has_expired(time, now))
    }

    fn added(&mut self, time_key: &[u8]) {
        if time_key > self.known_to.as_slice() {
            return;
        }
        self.ahead.insert(time_key.to_vec());
        if self.ahead.len() > AHEAD_MAX {
            self.ahead.pop_last();
            self.known_to = self.ahead.last().cloned().unwrap_or_else(|| vec![TIME]);
        }
    }

    fn removed(&mut self, time_key: &[u8]) {
        self.ahead.remove(time_key);
    }

    /// What is known is that of another state.
    pub(super) fn forget(&mut self) {
        self.ahead.clear();
        self.known_to = vec![TIME];
    }
}

fn row_key(key: &[u8], bytes: &mut Vec<u8>) {
    bytes.clear();
    bytes.push(ROW);
    bytes.extend_from_slice(key);
}

/// In the order of time, those before the epoch too.
fn time_key(timestamp: i64, row_key: &[u8], bytes: &mut Vec<u8>) {
    bytes.clear();
    bytes.push(TIME);
    bytes.extend_from_slice(&timestamp.wrapping_add(i64::MIN).to_be_bytes());
    bytes.extend_from_slice(key_of(row_key));
}

fn time_of(time_key: &[u8]) -> Option<i64> {
    let time = time_key.get(1..)?.first_chunk()?;
    Some(i64::from_be_bytes(*time).wrapping_sub(i64::MIN))
}

/// A row's key as its users know it.
pub(super) fn key_of(row_key: &[u8]) -> &[u8] {
    row_key.get(1..).unwrap_or_default()
}

/// The time of a row; one that has none stays.
fn timestamp(format: RowFormat, row: &[u8]) -> Result<i64> {
    Ok(format.split(row)?.timestamp.unwrap_or(i64::MAX))
}

impl Store {
    /// The key of a row in buffer and engine.
    pub(super) fn place<'a>(&self, key: &'a [u8], scratch: &'a mut Vec<u8>) -> &'a [u8] {
        if self.expiry.is_none() {
            return key;
        }
        row_key(key, scratch);
        scratch
    }

    /// Notes when a row expires that is about to be put in place of another; whether there is another.
    fn note_expiry(&mut self, row_key: &[u8], row: Option<&[u8]>, is_cached: bool) -> Result<bool> {
        let format = self.spec.kind.row_format();
        let time = |row: Option<&[u8]>| row.map(|row| timestamp(format, row)).transpose();
        let before = match self.cache.get(row_key).filter(|_| is_cached) {
            Some(held_back) => time(held_back)?,
            None => time(self.get_below(row_key)?)?,
        };
        let now = time(row)?;
        let Some(expiry) = &mut self.expiry else { return Ok(before.is_some()) };
        if before != now {
            let mut place = std::mem::take(&mut expiry.time_key);
            if let Some(before) = before {
                time_key(before, row_key, &mut place);
                self.buffer.put(&place, None)?;
                expiry.removed(&place);
            }
            if let Some(now) = now {
                time_key(now, row_key, &mut place);
                self.buffer.put(&place, Some(&[]))?;
                expiry.added(&place);
            }
            expiry.time_key = place;
        }
        Ok(before.is_some())
    }

    /// A record of the changelog as a row. One that has expired is one that nobody has been told of yet.
    pub(super) fn restore_expiring(&mut self, key: &[u8], row: Option<&[u8]>, scratch: &mut Vec<u8>) -> Result<()> {
        row_key(key, scratch);
        self.note_expiry(scratch, row, false)?;
        self.buffer.put(scratch, row)
    }

    /// Rows by their users' keys.
    pub(super) fn page_of_rows(
        &mut self,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
        reverse: bool,
        limit: usize,
    ) -> Result<Rows> {
        let place = |key: &[u8]| [&[ROW], key].concat();
        let from = match from.map(place) {
            Bound::Unbounded => Bound::Included(vec![ROW]),
            from @ (Bound::Included(_) | Bound::Excluded(_)) => from,
        };
        let to = match to.map(place) {
            Bound::Unbounded => Bound::Excluded(vec![TIME]),
            to @ (Bound::Included(_) | Bound::Excluded(_)) => to,
        };
        let mut rows = self.page(from.as_ref().map(Vec::as_slice), to.as_ref().map(Vec::as_slice), reverse, limit)?;
        rows.iter_mut().for_each(|(key, _)| drop(key.drain(..1)));
        Ok(rows)
    }

    /// The key of the next row that has expired.
    fn next_expired(&mut self, now: i64) -> Result<Option<Vec<u8>>> {
        let Some(expiry) = &self.expiry else { return Ok(None) };
        if !expiry.may_be_due(now) {
            return Ok(None);
        }
        if expiry.ahead.is_empty() {
            let from = expiry.known_to.clone();
            let rows = self.page(Bound::Excluded(&from), Bound::Excluded(&[END]), false, AHEAD_MAX)?;
            let Some(expiry) = &mut self.expiry else { return Ok(None) };
            expiry.known_to =
                rows.last().filter(|_| rows.len() == AHEAD_MAX).map_or(vec![END], |(last, _)| last.clone());
            expiry.ahead = rows.into_iter().map(|(key, _)| key).collect();
        }
        let Some(expiry) = self.expiry.as_mut().filter(|expiry| expiry.may_be_due(now)) else { return Ok(None) };
        let next = expiry.ahead.pop_first();
        Ok(next.and_then(|time_key| Some(time_key.get(9..)?.to_vec())))
    }
}

impl TaskStores {
    /// The time (ms) by which rows expire; none: no record has been processed.
    pub(crate) fn set_time(&mut self, time: Option<i64>) {
        self.time = time.unwrap_or(i64::MIN);
    }

    /// Whether a store may have rows that have expired at a time.
    pub(crate) fn may_expire(&self, now: i64) -> bool {
        self.expiring.iter().any(|index| self.is_due(*index, now))
    }

    /// The stores whose rows expire.
    pub(crate) fn expiring(&self) -> &[usize] {
        &self.expiring
    }

    fn is_due(&self, index: usize, now: i64) -> bool {
        let expiry = self.stores.get(index).and_then(|store| store.expiry.as_ref());
        expiry.is_some_and(|expiry| expiry.may_be_due(now))
    }

    /// Lets so many rows be taken with [`next_expired`](TaskStores::next_expired) from now on.
    pub(crate) fn set_expired_max(&mut self, rows: usize) {
        self.expired_max = rows;
    }

    /// How many rows may still be taken.
    pub(crate) fn expired_max(&self) -> usize {
        self.expired_max
    }

    /// The next key of a store whose row has expired; none: there is none, or no more may be taken now. The row has to be
    /// deleted.
    pub(crate) fn next_expired(&mut self, index: usize) -> Result<Option<Vec<u8>>> {
        if self.expired_max == 0 {
            return Ok(None);
        }
        let now = self.time;
        let next = self.stores.get_mut(index).ok_or_else(no_store)?.next_expired(now)?;
        self.expired_max -= usize::from(next.is_some());
        Ok(next)
    }

    /// Whether rows of a store expire.
    pub(crate) fn expires(&self, index: usize) -> bool {
        self.expiring.contains(&index)
    }

    /// Whether a row of this time (ms) has expired before it is put: to put it is to delete what is there.
    pub(crate) fn has_expired(&self, index: usize, timestamp: i64) -> bool {
        let expiry = self.stores.get(index).and_then(|store| store.expiry.as_ref());
        expiry.is_some_and(|expiry| expiry.has_expired(timestamp, self.time))
    }

    /// Counts and logs a row that had expired when it was put.
    pub(crate) fn count_expired(&mut self, index: usize, context: &RecordContext) {
        self.expired += 1;
        if let Some(store) = self.stores.get(index) {
            log_expired(&store.spec.name, context);
        }
    }

    /// Writes or deletes a row of a store whose rows expire.
    pub(super) fn put_expiring(
        &mut self,
        index: usize,
        key: &[u8],
        row: Option<&[u8]>,
        context: &RecordContext,
    ) -> Result<()> {
        let format = self.kind(index).ok_or_else(no_store)?.row_format();
        let time = row.map(|row| timestamp(format, row)).transpose()?;
        let is_late = time.is_some_and(|time| self.has_expired(index, time));
        if is_late {
            self.count_expired(index, context);
        }
        let row = row.filter(|_| !is_late);
        let is_cached = self.is_cached(index);
        let mut place = std::mem::take(&mut self.key);
        row_key(key, &mut place);
        let store = self.stores.get_mut(index).ok_or_else(no_store)?;
        let result = store.note_expiry(&place, row, is_cached).and_then(|was_there| {
            // A late row deletes what is there, and where nothing is, it never was.
            if is_late && !was_there { Ok(()) } else { self.put_row(index, &place, row, context) }
        });
        self.key = place;
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn time_key(timestamp: i64, row_key: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        super::time_key(timestamp, row_key, &mut bytes);
        bytes
    }

    #[test]
    fn rows_are_in_the_order_of_their_times() {
        let keys: Vec<Vec<u8>> =
            [i64::MIN, -1, 0, 1, 255, 256, i64::MAX].map(|time| time_key(time, b"\0key")).into_iter().collect();
        assert!(keys.is_sorted());
        assert_eq!(
            keys.iter().filter_map(|key| time_of(key)).collect::<Vec<_>>(),
            [i64::MIN, -1, 0, 1, 255, 256, i64::MAX]
        );
        assert!(keys.iter().all(|key| key[..] > [TIME][..] && key[..] < [END][..] && &key[9..] == b"key"));
    }

    #[test]
    fn the_bytes_of_a_place_in_time_stay_as_they_are() {
        assert_eq!(time_key(258, b"\0k"), b"\x01\x80\0\0\0\0\0\x01\x02k");
    }

    #[test]
    fn no_more_places_are_kept_in_memory_than_needed() {
        let mut expiry = Expiry::new(10);
        expiry.known_to = vec![END];
        for time in (0..1000).rev() {
            expiry.added(&time_key(time, b"\0k"));
        }
        assert_eq!((expiry.ahead.len(), time_of(&expiry.known_to)), (AHEAD_MAX, Some(255)));
        assert!(!expiry.may_be_due(10));
        assert!(expiry.may_be_due(11));
    }
}
