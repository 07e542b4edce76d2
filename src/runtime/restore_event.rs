//! What is told of stores that are restored, and of standbys: to the program, to the log, and for a progress line.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::clock::Now;

/// How the restoring of a store goes on, told to [`KafkaStreams::on_restore`](crate::KafkaStreams::on_restore). The events of
/// standbys are those of Java's `StandbyUpdateListener` (KIP-988).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum RestoreEvent {
    /// The store is read from its changelog, from one offset up to another.
    Started {
        /// The store.
        store: Arc<str>,
        /// The partition of the changelog.
        partition: i32,
        /// The first offset that is read.
        from: i64,
        /// The end of the changelog.
        to: i64,
    },
    /// Records were read into the store.
    Batch {
        /// The store.
        store: Arc<str>,
        /// The partition of the changelog.
        partition: i32,
        /// Records of this batch.
        records: u64,
        /// The next offset that is read.
        position: i64,
        /// How far the store is in all.
        progress: RestoreProgress,
    },
    /// The store is as its changelog says.
    Ended {
        /// The store.
        store: Arc<str>,
        /// The partition of the changelog.
        partition: i32,
        /// Records that were read.
        records: u64,
    },
    /// The task went elsewhere before its store was restored; what was read is kept.
    Suspended {
        /// The store.
        store: Arc<str>,
        /// The partition of the changelog.
        partition: i32,
        /// Records that were read.
        records: u64,
    },
    /// The store is kept up to date for a task that runs elsewhere.
    StandbyStarted {
        /// The store.
        store: Arc<str>,
        /// The partition of the changelog.
        partition: i32,
        /// The first offset that is read.
        from: i64,
    },
    /// Records were read into the store of a standby.
    StandbyBatch {
        /// The store.
        store: Arc<str>,
        /// The partition of the changelog.
        partition: i32,
        /// Records of this batch.
        records: u64,
        /// The next offset that is read.
        position: i64,
        /// The end of the changelog, as far as it is known.
        end: i64,
    },
    /// The store is not a standby's any more.
    StandbyEnded {
        /// The store.
        store: Arc<str>,
        /// The partition of the changelog.
        partition: i32,
        /// The next offset that would have been read.
        position: i64,
        /// The end of the changelog, as far as it is known.
        end: i64,
        /// Why.
        reason: StandbyEnd,
    },
}

/// Why a store is not a standby's any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum StandbyEnd {
    /// Its task runs here from now on.
    Promoted,
    /// It is kept elsewhere, or the client closes.
    Migrated,
}

/// How far the restoring of a store is; prints as a line for people.
///
/// ```
/// # fn show(event: &kstreams::RestoreEvent) {
/// if let kstreams::RestoreEvent::Batch { store, progress, .. } = event {
///     eprint!("\r{store}: {progress}"); // counts: 43 %, 860000 records, 95 MiB, 412000 records/s, 3 s left
/// }
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RestoreProgress {
    from: i64,
    position: i64,
    to: i64,
    records: u64,
    bytes: u64,
    elapsed: Duration,
}

impl RestoreProgress {
    /// Records that were read.
    #[must_use]
    pub fn records(&self) -> u64 {
        self.records
    }

    /// Bytes of their keys and values.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The time since it was begun.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.elapsed
    }

    /// Offsets that are still to be read; no more records than that.
    #[must_use]
    pub fn remaining(&self) -> u64 {
        u64::try_from(self.to.saturating_sub(self.position)).unwrap_or(0)
    }

    /// What part of its offsets is read, from 0 to 1.
    #[must_use]
    pub fn fraction(&self) -> f64 {
        let all = self.to.saturating_sub(self.from);
        if all <= 0 { 1.0 } else { (self.offsets() as f64 / all as f64).min(1.0) }
    }

    /// Records per second, from the beginning; 0 when no time has passed.
    #[must_use]
    pub fn rate(&self) -> f64 {
        if self.elapsed.is_zero() { 0.0 } else { self.records as f64 / self.elapsed.as_secs_f64() }
    }

    /// The time that is left if it goes on like this; none when nothing can be said yet.
    #[must_use]
    pub fn remaining_time(&self) -> Option<Duration> {
        let seconds = self.elapsed.as_secs_f64() * self.remaining() as f64 / self.offsets() as f64;
        if self.elapsed.is_zero() { None } else { Duration::try_from_secs_f64(seconds).ok() }
    }

    fn offsets(&self) -> u64 {
        u64::try_from(self.position.saturating_sub(self.from)).unwrap_or(0)
    }
}

impl fmt::Display for RestoreProgress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (percent, mebibytes) = ((self.fraction() * 100.0).floor(), self.bytes >> 20);
        write!(f, "{percent:.0} %, {} records, {mebibytes} MiB, {:.0} records/s", self.records, self.rate())?;
        match self.remaining_time() {
            Some(left) => write!(f, ", {} s left", left.as_secs_f64().ceil()),
            None => Ok(()),
        }
    }
}

/// How often the log is told.
const TOLD_INTERVAL: Duration = Duration::from_secs(10);

/// Counts what is read of a changelog.
#[derive(Debug)]
pub(super) struct Meter {
    from: i64,
    to: i64,
    pub records: u64,
    bytes: u64,
    begun: Now,
    told: Now,
}

impl Meter {
    pub(super) fn new(from: i64, to: i64, now: Now) -> Meter {
        Meter { from, to, records: 0, bytes: 0, begun: now, told: now }
    }

    pub(super) fn add(&mut self, records: u64, bytes: usize) {
        self.records += records;
        self.bytes += bytes as u64;
    }

    pub(super) fn progress(&self, position: i64, now: Now) -> RestoreProgress {
        let Meter { from, to, records, bytes, begun, .. } = *self;
        RestoreProgress { from, position, to, records, bytes, elapsed: now.since(begun) }
    }

    /// Whether it is time for another line in the log.
    pub(super) fn is_due(&mut self, now: Now) -> bool {
        let is_due = now.since(self.told) >= TOLD_INTERVAL;
        if is_due {
            self.told = now;
        }
        is_due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn progress(position: i64, elapsed: u64) -> RestoreProgress {
        let records = position as u64 - 100;
        RestoreProgress {
            from: 100,
            position,
            to: 1100,
            records,
            bytes: 3 << 20,
            elapsed: Duration::from_secs(elapsed),
        }
    }

    #[test]
    fn what_is_left_takes_as_long_as_what_was_read() {
        let progress = progress(350, 5);
        assert_eq!((progress.remaining(), progress.rate()), (750, 50.0));
        assert_eq!(progress.remaining_time(), Some(Duration::from_secs(15)));
        assert_eq!(progress.to_string(), "25 %, 250 records, 3 MiB, 50 records/s, 15 s left");
    }

    #[test]
    fn before_anything_is_read_no_time_is_promised() {
        assert_eq!(progress(100, 0).remaining_time(), None);
        assert_eq!(progress(100, 3).remaining_time(), None);
        assert_eq!(progress(100, 3).to_string(), "0 %, 0 records, 3 MiB, 0 records/s");
    }

    #[test]
    fn a_changelog_of_nothing_is_read_at_once() {
        let progress = RestoreProgress { from: 7, to: 7, ..progress(107, 1) };
        assert_eq!(progress.fraction(), 1.0);
    }
}
