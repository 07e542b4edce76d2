//! Reads changelog records into a store.
//!
//! ```text
//!   little is missing   each batch of records, sorted: one write with the offset behind it
//!   much is missing     rows are collected; every run of them becomes a sorted file of the last row of each key with the
//!                       offset behind it, which the engine takes over as it is, while the next rows are read
//! ```
//!
//! A store is what its changelog was at the offset that it holds, after every batch and after every run: whoever is
//! interrupted reads on from there, and what was only collected is read again.

use super::one_store::{Form, ReadTo, Store};
use super::run::{HeldBack, hold_back};
use super::spec::RowTimes;
use super::task_stores::{TaskStores, no_store};
use super::work_queue::WorkQueue;
use crate::error::Result;
use crate::record::RecordBatch;

/// Bytes of a record where none has been seen.
const RECORD_BYTES: u64 = 100;

/// How far a step of restoring goes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reach {
    /// The offset behind its records.
    pub next_offset: i64,
    /// What the store is read up to.
    pub end: i64,
}

/// How records get into the engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Batches,
    Runs,
}

/// A run is sorted once and never written to a memtable: half the CPU of batches. It pays where at least a good piece of a
/// run is expected, and in a store with rows, whose files are merged with it, a whole one.
fn way(missing: i64, is_empty: bool, run_bytes_max: usize) -> Way {
    let expected = u64::try_from(missing).unwrap_or(0).saturating_mul(RECORD_BYTES);
    let worth = if is_empty { run_bytes_max / 4 } else { run_bytes_max } as u64;
    if run_bytes_max > 0 && expected >= worth { Way::Runs } else { Way::Batches }
}

impl TaskStores {
    /// Writes changelog records as committed rows, with the offset behind them.
    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn restore(&mut self, index: usize, batch: &RecordBatch, next_offset: i64) -> Result<()> {
        self.restore_towards(index, batch, Reach { next_offset, end: next_offset })?;
        self.finish_restore(index)
    }

    /// As [`restore`](TaskStores::restore), but rows may be held back until they are many; up to
    /// [`finish_restore`](TaskStores::finish_restore) the store's own offset is behind.
    ///
    /// # Errors
    /// Records that are no rows of the store, and an engine that cannot be written. What was held back may be lost, so the
    /// caller gives it [up](TaskStores::give_up_restore) and goes on from the store's offset.
    pub(crate) fn restore_towards(&mut self, index: usize, batch: &RecordBatch, reach: Reach) -> Result<()> {
        let now_ms = self.now_ms();
        let registration = self.backing.memory.as_ref();
        let memory = registration.map(|registration| &registration.memory);
        let store = self.stores.get_mut(index).ok_or_else(no_store)?;
        let Reach { next_offset, end } = reach;
        let missing = end.saturating_sub(next_offset);
        if store.run.is_none()
            && let Some(memory) = memory.filter(|_| store.engine.takes_runs())
            && way(missing, store.engine.offset().is_none(), memory.run_bytes_max()) == Way::Runs
        {
            store.begin_run(memory);
        }
        store.take_in(batch, &mut self.key)?;
        let to = ReadTo { next_offset, end };
        store.as_of.mark(end, now_ms);
        match store.run {
            Some(_) => store.step_run(to, now_ms, self.work_queue.as_ref()),
            None => store.write_restored(to, now_ms, Form::RestoredBatch),
        }
    }

    /// Writes what is held back of a store, and waits for it.
    ///
    /// # Errors
    /// As [`restore_towards`](TaskStores::restore_towards).
    pub(crate) fn finish_restore(&mut self, index: usize) -> Result<()> {
        let now_ms = self.now_ms();
        self.stores.get_mut(index).ok_or_else(no_store)?.end_run(now_ms, None).map(|_| ())
    }

    /// The same without waiting, where another thread does it: to be called until it is written.
    ///
    /// # Errors
    /// As [`restore_towards`](TaskStores::restore_towards).
    pub(crate) fn end_restore(&mut self, index: usize) -> Result<HeldBack> {
        let now_ms = self.now_ms();
        self.stores.get_mut(index).ok_or_else(no_store)?.end_run(now_ms, self.work_queue.as_ref())
    }

    /// From now on rows that are restored may be written by who works through a queue; none: by who restores them.
    pub(crate) fn set_work_queue(&mut self, queue: Option<&WorkQueue>) {
        self.work_queue = queue.cloned();
    }

    /// The time of the row of a changelog record, where no row is later than its record.
    pub(crate) fn logged_row_time(&self, index: usize, key: &[u8]) -> Option<i64> {
        let store = self.stores.get(index).filter(|store| store.spec.row_times == RowTimes::NotAfterRecords)?;
        Some(store.retention.as_ref()?.keys.decode_logged(key)?.time)
    }

    /// Rows of this time (ms) and of those before are not kept once a row of another time is put.
    pub(crate) fn expired_until(&self, index: usize, newest: i64) -> Option<i64> {
        let store = self.stores.get(index).filter(|store| store.spec.row_times == RowTimes::NotAfterRecords)?;
        store.retention.as_ref()?.expired_until(newest)
    }

    /// Forgets what is held back of a store, which is at its own offset then.
    pub(crate) fn give_up_restore(&mut self, index: usize) -> Result<()> {
        let store = self.stores.get_mut(index).ok_or_else(no_store)?;
        store.forget();
        store.engine.end_runs()
    }
}

impl Store {
    /// Reads records into the buffer.
    fn take_in(&mut self, batch: &RecordBatch, scratch: &mut Vec<u8>) -> Result<()> {
        let mut row = Vec::new();
        for record in batch.iter(0) {
            let Some(key) = record.key.filter(|key| self.spec.is_row(key, record.value)) else { continue };
            let format = self.spec.kind.row_format();
            let value = record.value.map(|value| format.join(value, record.timestamp, record.headers, &mut row));
            let mut value = value.transpose()?;
            let converted = self.converted(key, &record)?;
            value = converted.as_deref().or(value);
            if let Some(history) = &mut self.history {
                if history.admit(record.timestamp) {
                    self.put_version(key, value, record.timestamp)?;
                }
                continue;
            }
            if self.expiry.is_some() {
                self.restore_expiring(key, value, scratch)?;
                continue;
            }
            let Some(retention) = &mut self.retention else {
                hold_back(&mut self.run, &mut self.buffer, key, value)?;
                self.make_room(key, value.is_some())?;
                continue;
            };
            let Some(parts) = retention.keys.decode_logged(key) else { return Err(self.unreadable(&record)) };
            retention.keys.encode(parts, scratch);
            if retention.admit(scratch) {
                hold_back(&mut self.run, &mut self.buffer, scratch, value)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RUN_BYTES: usize = 48 << 20;

    #[test]
    fn a_little_is_written_in_batches() {
        assert_eq!(way(0, true, RUN_BYTES), Way::Batches);
        assert_eq!(way(10_000, true, RUN_BYTES), Way::Batches);
        assert_eq!(way(200_000, false, RUN_BYTES), Way::Batches);
        assert_eq!(way(-1, true, RUN_BYTES), Way::Batches);
    }

    #[test]
    fn much_is_written_in_runs_and_an_empty_store_gets_them_earlier() {
        assert_eq!(way(200_000, true, RUN_BYTES), Way::Runs);
        assert_eq!(way(600_000, false, RUN_BYTES), Way::Runs);
        assert_eq!(way(i64::MAX, false, RUN_BYTES), Way::Runs);
    }

    #[test]
    fn without_memory_for_it_nothing_is_collected() {
        assert_eq!(way(i64::MAX, true, 0), Way::Batches);
    }
}
