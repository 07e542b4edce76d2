//! What a windowed store knows about time: which rows it shows, takes and keeps.

use super::windowed_keys::WindowedKeys;

/// No row has been put.
const NEVER: i64 = -1;

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
}

impl Retention {
    pub(super) fn new((retention_ms, keys): (i64, WindowedKeys)) -> Retention {
        Retention { keys, retention_ms, observed: NEVER, committed: NEVER, cached: NEVER }
    }

    /// Whether a row is written. It moves the time in any case.
    ///
    /// A store on disk drops a row whose whole bucket has expired, one in memory every row that has.
    pub(super) fn admit(&mut self, row: &[u8]) -> bool {
        let Some(time) = self.keys.time(row) else { return true };
        self.observed = self.observed.max(time);
        self.keys.prefix(time) >= self.first_prefix()
    }

    /// The first prefix of rows that are kept.
    fn first_prefix(&self) -> i64 {
        match self.keys.bucket_ms {
            Some(bucket_ms) => (self.observed - self.retention_ms) / bucket_ms,
            None => self.first_visible(),
        }
    }

    fn first_visible(&self) -> i64 {
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

    /// Prefixes of rows that there may be.
    pub(super) fn prefixes(&self, has_cache: bool) -> (i64, i64) {
        let first = if has_cache { 0 } else { self.keys.prefix(self.first_visible().max(0)) };
        (first, self.keys.prefix(self.observed.max(self.cached)))
    }

    pub(super) fn commit(&mut self) {
        self.committed = self.observed;
    }

    pub(super) fn abort(&mut self) {
        self.observed = self.committed;
        self.cached = NEVER;
    }
}
