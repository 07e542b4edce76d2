//! How rows that have expired leave the files of a store.
//!
//! ```text
//!   windowed     bucket by bucket: whole files of expired buckets are dropped, compaction drops the rest
//!   versioned    compaction drops them
//! ```
//!
//! Both together need the least space; a deletion of a range makes files span the expired buckets and is no better beside
//! the filter. No read depends on either: reads hide what has expired.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use rocksdb::{CompactionDecision, Options};

use super::ROW;
use crate::state::retention::Expired;
use crate::state::versions::has_expired;

/// What compaction may drop from a family. `Relaxed` will do: whatever compaction sees, it is a time of a commit.
#[derive(Debug)]
pub(super) struct Horizon {
    /// The first eight bytes of the first row that is kept, as a number.
    first: AtomicI64,
    /// Versions that no time from this one on can ask for.
    versions: AtomicI64,
}

impl Horizon {
    pub(super) fn new() -> Horizon {
        Horizon { first: AtomicI64::new(0), versions: AtomicI64::new(i64::MIN) }
    }

    pub(super) fn set(&self, expired: Expired) {
        match expired {
            Expired::Before(first) => self.first.store(i64::from_be_bytes(first), Ordering::Relaxed),
            Expired::Versions(time) => self.versions.store(time, Ordering::Relaxed),
        }
    }

    /// Nothing is known: the family is empty.
    pub(super) fn reset(&self) {
        self.first.store(0, Ordering::Relaxed);
        self.versions.store(i64::MIN, Ordering::Relaxed);
    }

    fn drops(&self, key: &[u8], value: &[u8]) -> bool {
        let Some((&ROW, row_key)) = key.split_first() else { return false };
        let versions = self.versions.load(Ordering::Relaxed);
        if versions != i64::MIN {
            return has_expired(row_key, value, versions);
        }
        let first = self.first.load(Ordering::Relaxed);
        row_key.first_chunk().is_some_and(|prefix| (0..first).contains(&i64::from_be_bytes(*prefix)))
    }
}

/// Lets compaction drop what has expired.
pub(super) fn drop_expired(options: &mut Options, horizon: &Arc<Horizon>) {
    let horizon = Arc::clone(horizon);
    options.set_compaction_filter(c"expired", move |_level, key, value| {
        if horizon.drops(key, value) { CompactionDecision::Remove } else { CompactionDecision::Keep }
    });
}
