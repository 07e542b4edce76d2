//! Where the rows that are still alive begin in the changelog of a windowed store.
//!
//! ```text
//!   start ......... dead rows ......... first record of this time or later ......... last records ── end
//!                                              ^ offsets for times                        |
//!                                              └── newest row among them − what is kept ──┘
//! ```
//!
//! An empty store need not read what it would drop at the end. The newest row of the last records is not later than the
//! newest of all; what has expired by then is dead whatever else there is. Records before the first one of such a time are
//! all older, and where no row is later than its record, so are their rows. A deletion among them deletes a row that is
//! not read either. For other stores (sessions, stores that processors put rows into) that does not hold, and they are read
//! from the start: see `state::RowTimes`.

use super::application::Application;
use crate::client::{Consumer, Fetch, Lag};
use crate::error::{Error, ErrorKind, Result};
use crate::record::{RecordBatch, TopicPartition};
use crate::state::TaskStores;

/// The last offsets of a changelog, in which there is some record.
const LAST_OFFSETS: i64 = if cfg!(test) { 4 } else { 256 };

/// With fewer offsets than this, looking for the start takes as long as reading them.
const OFFSETS_MIN: i64 = 4 * LAST_OFFSETS;

/// Looks for the start.
pub(super) struct LiveRows {
    store: usize,
    changelog: TopicPartition,
    from: i64,
    end: i64,
    /// The time of the newest row that was read, and the offset of its record.
    newest: Option<(i64, i64)>,
    /// A row was later than its record after all: somebody else has written it, or the topic has times of its own
    /// (`LogAppendTime`).
    is_out_of_time: bool,
}

impl LiveRows {
    /// None: the store is read from the start.
    pub(super) fn of(
        stores: &TaskStores,
        store: usize,
        changelog: &TopicPartition,
        (from, end): (i64, i64),
    ) -> Option<LiveRows> {
        let is_worth_it = stores.offset(store).is_none() && end - from >= OFFSETS_MIN;
        // Of any time: whether it has such rows.
        stores.expired_until(store, i64::MAX).filter(|_| is_worth_it)?;
        Some(LiveRows { store, changelog: changelog.clone(), from, end, newest: None, is_out_of_time: false })
    }

    /// Where the consumer begins.
    pub(super) fn first_offset(&self) -> i64 {
        self.end - LAST_OFFSETS
    }

    /// Reads what there is of the last records; the offset to begin at, to which the consumer goes then.
    ///
    /// # Errors
    /// `Corrupted` when the log was cut off under the reader, `Unavailable` to be called again.
    pub(super) fn step(
        &mut self,
        app: &Application,
        stores: &TaskStores,
        consumer: &mut dyn Consumer,
        batch: &mut RecordBatch,
    ) -> Result<Option<i64>> {
        let LiveRows { store, changelog, from, end, newest, is_out_of_time } = self;
        batch.clear();
        if consumer.fetch(changelog, usize::try_from(LAST_OFFSETS).unwrap_or(usize::MAX), batch)? == Fetch::OutOfRange {
            let context = format!("the last records of changelog {changelog} are not there any more");
            return Err(Error::new(ErrorKind::Corrupted, context));
        }
        for record in batch.iter(changelog.partition) {
            if let Some(time) = record.key.and_then(|key| stores.logged_row_time(*store, key)) {
                *newest = (*newest).max(Some((time, record.offset)));
                *is_out_of_time |= record.value.is_some() && time > record.timestamp;
            }
        }
        let is_at_end = consumer.position(changelog).is_some_and(|position| position >= *end);
        // Behind an open transaction nothing is to be seen.
        if !is_at_end && consumer.lag(changelog) != Lag::CaughtUp {
            return Ok(None);
        }
        let expired = newest
            .filter(|_| !*is_out_of_time)
            .and_then(|(time, offset)| Some((stores.expired_until(*store, time)?, offset)));
        let start = match expired {
            Some((until, newest)) => {
                let own = std::slice::from_ref(&*changelog);
                let found = app.with_admin(|admin| admin.offsets_for_time(own, until))?;
                found.first().map_or(*from, |found| (*found).min(newest).max(*from))
            }
            None => *from,
        };
        consumer.assign(&[(changelog.clone(), start)])?;
        if start > *from {
            tracing::info!("what changelog {changelog} has from offset {from} to {start} has expired, and is not read");
        }
        Ok(Some(start))
    }
}
