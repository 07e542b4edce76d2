//! Versions of a key's value, as bytes: `put` in any order of time, `get` as of a time.
//!
//! ```text
//!   key | zeros 8         the newest version    valid from 8 | has value 1 | value
//!   key | !valid from 8   an earlier one        valid to 8   | has value 1 | value
//! ```
//!
//! Numbers are big endian, and the inverse ones bring the versions of a key in order, newest first. So reading and writing
//! the newest version, which is what happens nearly always, is a matter of single rows. A deletion is a version without a
//! value.

use std::ops::Bound;

use super::one_store::Store;
use super::retention::History;
use crate::error::{Error, Result};

/// What became of a version that was put.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VersionPut {
    /// It is the newest of its key.
    Latest,
    /// A newer one has been put before: it is valid up to, and not including, this time (ms).
    ValidTo(i64),
    /// It came later than the history is long, and was dropped and counted.
    NotPut,
}

/// A version as bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Version {
    pub(crate) valid_from: i64,
    /// None: it is the newest.
    pub(crate) valid_to: Option<i64>,
    /// None: a deletion.
    pub(super) value: Option<Vec<u8>>,
}

/// An earlier version: from, to and value.
type Earlier = (i64, i64, Option<Vec<u8>>);

/// Versions read at once on the way back to a time.
const PAGE: usize = 4;

const NEWEST: [u8; 8] = [0; 8];

fn row_key(key: &[u8], valid_from: i64) -> Vec<u8> {
    [key, &(!valid_from).to_be_bytes()].concat()
}

fn row(time: i64, value: Option<&[u8]>) -> Vec<u8> {
    [&time.to_be_bytes()[..], &[u8::from(value.is_some())], value.unwrap_or_default()].concat()
}

/// The time and the value of a row.
fn read(row: &[u8]) -> Result<(i64, Option<&[u8]>)> {
    let short = || Error::corrupted("a row of a versioned store is too short");
    let (time, rest) = row.split_first_chunk().ok_or_else(short)?;
    let (has_value, value) = rest.split_first().ok_or_else(short)?;
    Ok((i64::from_be_bytes(*time), (*has_value == 1).then_some(value)))
}

/// The valid-from time in the key of an earlier version; none: a row of another key, or a newest version.
fn valid_from(row_key: &[u8], key: &[u8]) -> Option<i64> {
    let (prefix, time) = row_key.split_last_chunk()?;
    (prefix == key && *time != NEWEST).then(|| !i64::from_be_bytes(*time))
}

/// Whether no read can meet a row any more. `horizon`: the earliest time that may be asked for.
pub(super) fn has_expired(row_key: &[u8], bytes: &[u8], horizon: i64) -> bool {
    let Ok((time, value)) = read(bytes) else { return false };
    let is_newest = row_key.ends_with(&NEWEST);
    // The newest one is for ever, unless it says that there is nothing: what is not there says the same.
    time <= horizon && (!is_newest || value.is_none())
}

impl Store {
    /// Puts a version that is not too late.
    pub(super) fn put_version(&mut self, key: &[u8], value: Option<&[u8]>, time: i64) -> Result<VersionPut> {
        let newest_key = [key, &NEWEST].concat();
        let newest = self.buffer.get(&newest_key, &mut self.engine)?.map(<[u8]>::to_vec);
        let Some(newest) = newest else {
            // Earlier versions may be there: an expired deletion has been cleared away before what it has deleted.
            self.buffer.put(&newest_key, Some(&row(time, value)))?;
            return Ok(VersionPut::Latest);
        };
        let (newest_from, newest_value) = read(&newest)?;
        if time >= newest_from {
            if time > newest_from {
                self.buffer.put(&row_key(key, newest_from), Some(&row(time, newest_value)))?;
            }
            self.buffer.put(&newest_key, Some(&row(time, value)))?;
            return Ok(VersionPut::Latest);
        }
        let valid_to = match self.version_before(key, time)? {
            // Others have expired: what follows them has been forgotten.
            Some((earlier, valid_to, earlier_value)) if valid_to > time => {
                if earlier != time {
                    self.buffer.put(&row_key(key, earlier), Some(&row(time, earlier_value.as_deref())))?;
                }
                valid_to
            }
            Some(_) | None => self.version_behind(key, time)?.unwrap_or(newest_from),
        };
        self.buffer.put(&row_key(key, time), Some(&row(valid_to, value)))?;
        Ok(VersionPut::ValidTo(valid_to))
    }

    /// The newest version; one without a value counts as none.
    pub(super) fn newest_version(&mut self, key: &[u8]) -> Result<Option<Version>> {
        self.follow();
        let newest_key = [key, &NEWEST].concat();
        let Some(row) = self.buffer.get(&newest_key, &mut self.engine)? else { return Ok(None) };
        let (valid_from, value) = read(row)?;
        let version = Version { valid_from, valid_to: None, value: value.map(<[u8]>::to_vec) };
        Ok(Some(version).filter(|version| version.value.is_some()))
    }

    /// The version that is valid at a time.
    pub(super) fn version_as_of(&mut self, key: &[u8], time: i64) -> Result<Option<Version>> {
        self.follow();
        let horizon = self.history_start();
        let newest_key = [key, &NEWEST].concat();
        if let Some(row) = self.buffer.get(&newest_key, &mut self.engine)? {
            let (valid_from, value) = read(row)?;
            if valid_from <= time {
                let value = value.map(<[u8]>::to_vec);
                return Ok(value.map(|value| Version { valid_from, valid_to: None, value: Some(value) }));
            }
        }
        if time < horizon {
            return Ok(None);
        }
        let before = self.version_before(key, time)?.filter(|(_, valid_to, _)| *valid_to > time);
        let version =
            before.map(|(valid_from, valid_to, value)| Version { valid_from, valid_to: Some(valid_to), value });
        Ok(version.filter(|version| version.value.is_some()))
    }

    /// The version that was put for this time or last before it; one without a value is a deletion.
    pub(super) fn version_up_to(&mut self, key: &[u8], time: i64) -> Result<Option<Version>> {
        self.follow();
        let newest_key = [key, &NEWEST].concat();
        if let Some(row) = self.buffer.get(&newest_key, &mut self.engine)? {
            let (valid_from, value) = read(row)?;
            if valid_from <= time {
                return Ok(Some(Version { valid_from, valid_to: None, value: value.map(<[u8]>::to_vec) }));
            }
        }
        let before = self.version_before(key, time)?;
        Ok(before.map(|(valid_from, valid_to, value)| Version { valid_from, valid_to: Some(valid_to), value }))
    }

    /// The earliest time that may be asked for.
    pub(super) fn history_start(&mut self) -> i64 {
        self.follow();
        self.history.as_ref().map_or(i64::MIN, History::start)
    }

    /// The last of the earlier versions that was put for this time or one before: from, to and value.
    fn version_before(&mut self, key: &[u8], time: i64) -> Result<Option<Earlier>> {
        let (mut from, to) = (Bound::Included(row_key(key, time)), [key, &[u8::MAX; 8]].concat());
        loop {
            let rows = self.page(from.as_ref().map(Vec::as_slice), Bound::Included(&to), false, PAGE)?;
            let is_last = rows.len() < PAGE;
            for (row_key, row) in &rows {
                // Rows of longer keys may lie in between.
                if let Some(valid_from) = valid_from(row_key, key) {
                    let (valid_to, value) = read(row)?;
                    return Ok(Some((valid_from, valid_to, value.map(<[u8]>::to_vec))));
                }
            }
            match rows.into_iter().last() {
                Some((last, _)) if !is_last => from = Bound::Excluded(last),
                Some(_) | None => return Ok(None),
            }
        }
    }

    /// The time of the first of the earlier versions behind this time.
    fn version_behind(&mut self, key: &[u8], time: i64) -> Result<Option<i64>> {
        let (from, mut to) = ([key, &[0, 0, 0, 0, 0, 0, 0, 1]].concat(), Bound::Excluded(row_key(key, time)));
        loop {
            let rows = self.page(Bound::Included(&from), to.as_ref().map(Vec::as_slice), true, PAGE)?;
            if let Some(found) = rows.iter().find_map(|(row_key, _)| valid_from(row_key, key)) {
                return Ok(Some(found));
            }
            let is_last = rows.len() < PAGE;
            match rows.into_iter().last() {
                Some((last, _)) if !is_last => to = Bound::Excluded(last),
                Some(_) | None => return Ok(None),
            }
        }
    }
}
