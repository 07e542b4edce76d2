//! What a windowed store knows about time: which rows it shows, takes and keeps.

use super::spec::VersionedKind;
use super::windowed_keys::WindowedKeys;
use crate::error::Result;

/// No row has been put.
const NEVER: i64 = -1;

/// Rows that no read shows any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Expired {
    /// Those with a key before it.
    Before([u8; 8]),
    /// Versions that no time from this one on can ask for.
    Versions(i64),
}

/// The times of a windowed store, in milliseconds.
#[derive(Debug)]
pub(super) struct Retention {
    pub(super) keys: WindowedKeys,
    retention_ms: i64,
    /// The largest time that was put, whether the row was taken or not.
    observed: i64,
    /// The same at the last commit.
    committed: i64,
    /// The largest time that the cache has seen: its rows come later.
    cached: i64,
    /// Rows with a smaller prefix have been cleared away.
    cleared: i64,
    /// Reads see everything that has not been cleared away yet.
    shows_expired: bool,
}

impl Retention {
    /// With the time that the last run has left.
    pub(super) fn new(retention_ms: i64, keys: WindowedKeys, committed: Option<i64>) -> Retention {
        let committed = committed.unwrap_or(NEVER);
        Retention {
            keys,
            retention_ms,
            observed: committed,
            committed,
            cached: NEVER,
            cleared: 0,
            shows_expired: false,
        }
    }

    /// Whether a row is written. It moves the time in any case.
    ///
    /// A store on disk drops a row whose whole bucket has expired, one in memory every row that has.
    pub(super) fn admit(&mut self, row: &[u8]) -> bool {
        let Some(time) = self.keys.time(row) else { return true };
        self.observed = self.observed.max(time);
        if self.keys.drops_each {
            return time > self.observed.saturating_sub(self.retention_ms);
        }
        self.keys.prefix(time) >= self.first_prefix(self.observed)
    }

    /// The first prefix of rows that are kept, where the largest time that was put is this one.
    fn first_prefix(&self, observed: i64) -> i64 {
        let horizon = observed.saturating_sub(self.retention_ms);
        self.keys.bucket_ms.map_or(horizon.saturating_add(1), |bucket_ms| horizon / bucket_ms)
    }

    /// Whether a row of one time would be dropped once a row of another time is put.
    pub(super) fn would_expire(&self, time: i64, put: i64) -> bool {
        let observed = self.observed.max(put);
        if self.keys.drops_each {
            return time <= observed.saturating_sub(self.retention_ms);
        }
        self.keys.prefix(time) < self.first_prefix(observed)
    }

    /// Once a row of this time is put, no row up to the returned time is taken, kept or shown: none where that is before all
    /// times. Whole buckets have gone by then.
    pub(super) fn expired_until(&self, newest: i64) -> Option<i64> {
        let kept_ms = self.retention_ms.saturating_add(self.keys.bucket_ms.unwrap_or(0));
        Some(newest.saturating_sub(kept_ms)).filter(|time| *time >= 0)
    }

    pub(super) fn show_expired(&mut self, shows: bool) {
        self.shows_expired = shows;
    }

    pub(super) fn shows_expired(&self) -> bool {
        self.shows_expired
    }

    /// No row is later; negative: there is none.
    pub(super) fn newest(&self) -> i64 {
        self.observed.max(self.cached)
    }

    pub(super) fn first_visible(&self) -> i64 {
        if self.shows_expired {
            return 0;
        }
        self.observed.saturating_sub(self.retention_ms).saturating_add(1)
    }

    /// Whether reads show a row that is not in the cache.
    pub(super) fn shows(&self, row: &[u8]) -> bool {
        self.keys.time(row).is_none_or(|time| time >= self.first_visible())
    }

    /// No row that reads show has a key before it.
    pub(super) fn first_key(&self) -> [u8; 8] {
        self.keys.prefix(self.first_visible().max(0)).to_be_bytes()
    }

    pub(super) fn has_cached(&mut self, row: &[u8]) {
        self.cached = self.cached.max(self.keys.time(row).unwrap_or(NEVER));
    }

    /// The largest time that was put, where another thread puts.
    pub(super) fn follow(&mut self, observed: i64) {
        self.observed = observed;
    }

    /// Prefixes of rows that there may be.
    pub(super) fn prefixes(&self, has_cache: bool) -> (i64, i64) {
        let first = if has_cache { 0 } else { self.keys.prefix(self.first_visible().max(0)) };
        (first, self.keys.prefix(self.newest()))
    }

    /// The rows that were put up to a time are committed: what can be cleared away now, if that is more than before.
    /// `durable`: the time of the store after a crash.
    pub(super) fn commit(
        &mut self,
        observed: i64,
        durable: impl FnOnce(i64) -> Result<i64>,
    ) -> Result<Option<Expired>> {
        self.committed = observed;
        if self.first_prefix(observed) <= self.cleared {
            return Ok(None);
        }
        let first = self.first_prefix(durable(observed)?);
        if first <= self.cleared {
            return Ok(None);
        }
        self.cleared = first;
        Ok(Some(Expired::Before(first.to_be_bytes())))
    }

    /// The largest time that was put.
    pub(super) fn observed(&self) -> i64 {
        self.observed
    }

    /// Rows of this time were put before the last commit, and have left nothing.
    pub(super) fn resume(&mut self, time: i64) {
        self.committed = self.committed.max(time);
        self.observed = self.observed.max(time);
    }

    pub(super) fn abort(&mut self) {
        self.observed = self.committed;
        self.cached = NEVER;
    }

    /// All rows are forgotten.
    pub(super) fn wipe(&mut self) {
        (self.observed, self.committed, self.cached, self.cleared) = (NEVER, NEVER, NEVER, 0);
    }
}

/// The times of a versioned store, in milliseconds.
#[derive(Debug)]
pub(super) struct History {
    kind: VersionedKind,
    /// The largest time of a version that was put.
    observed: i64,
    /// The same at the last commit.
    committed: i64,
    /// Versions that end before it have been cleared away.
    cleared: i64,
}

impl History {
    /// With the time that the last run has left.
    pub(super) fn new(kind: VersionedKind, committed: Option<i64>) -> History {
        let committed = committed.unwrap_or(NEVER);
        History { kind, observed: committed, committed, cleared: 0 }
    }

    /// The largest time of a version that was put.
    pub(super) fn observed(&self) -> i64 {
        self.observed
    }

    /// The largest time of a version that was put, where another thread puts.
    pub(super) fn follow(&mut self, observed: i64) {
        self.observed = observed;
    }

    /// Versions of this time were put before the last commit, and have left nothing.
    pub(super) fn resume(&mut self, time: i64) {
        self.committed = self.committed.max(time);
        self.observed = self.observed.max(time);
    }

    /// All versions are forgotten.
    pub(super) fn wipe(&mut self) {
        (self.observed, self.committed, self.cleared) = (NEVER, NEVER, 0);
    }

    /// Whether a version is put. Unlike a row of a windowed store, one that is too late leaves the time as it is.
    pub(super) fn admit(&mut self, time: i64) -> bool {
        let is_live = time >= self.start();
        if is_live {
            self.observed = self.observed.max(time);
        }
        is_live
    }

    /// The earliest time that the store knows about.
    pub(super) fn start(&self) -> i64 {
        self.observed.saturating_sub(self.kind.history_ms)
    }

    /// The versions that were put up to a time are committed: what can be cleared away now. Clearing reads every row, so it
    /// waits until it is worth it. `durable`: the time of the store after a crash.
    pub(super) fn commit(
        &mut self,
        observed: i64,
        durable: impl FnOnce(i64) -> Result<i64>,
    ) -> Result<Option<Expired>> {
        self.committed = observed;
        let due = self.cleared.saturating_add(self.kind.segment_ms);
        if self.start() < due {
            return Ok(None);
        }
        let start = durable(observed)?.saturating_sub(self.kind.history_ms);
        if start < due {
            return Ok(None);
        }
        self.cleared = start;
        Ok(Some(Expired::Versions(start)))
    }

    pub(super) fn abort(&mut self) {
        self.observed = self.committed;
    }
}
