//! Reads changelog records into a store.
//!
//! ```text
//!   little is missing   each batch of records, sorted: one write with the offset behind it
//!   much is missing     rows are collected, the last one of each key; every run of them becomes a sorted file with the
//!                       offset behind it, which the engine takes over as it is
//! ```
//!
//! A store is what its changelog was at the offset that it holds, after every batch and after every run: whoever is
//! interrupted reads on from there, and what was only collected is read again.

use super::expiry::Expiry;
use super::known_rows::KnownRows;
use super::one_store::{Form, ReadTo, Store};
use super::spec::RowTimes;
use super::state_memory::RunPlace;
use super::task_stores::{TaskStores, bad_key, no_store};
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

/// Rows that are collected.
#[derive(Debug)]
pub(super) struct Run {
    place: RunPlace,
    /// How far they go; none: there are none.
    to: Option<ReadTo>,
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
        store.take_in(batch, &mut self.key)?;
        let Reach { next_offset, end } = reach;
        let to = ReadTo { next_offset, end };
        store.as_of.mark(end, now_ms);
        let missing = end.saturating_sub(next_offset);
        if store.run.is_none()
            && let Some(memory) = memory.filter(|_| store.engine.takes_runs())
            && way(missing, store.engine.offset().is_none(), memory.run_bytes_max()) == Way::Runs
        {
            store.run = memory.begin_run().map(|place| Run { place, to: None });
        }
        let Some(run) = &mut store.run else {
            return store.write_restored(to, now_ms, Form::RestoredBatch);
        };
        run.to = Some(to);
        if missing > 0 && store.buffer.bytes() < run.place.bytes_max() {
            return Ok(());
        }
        store.write_run(now_ms)
    }

    /// Writes what is held back of a store.
    ///
    /// # Errors
    /// As [`restore_towards`](TaskStores::restore_towards).
    pub(crate) fn finish_restore(&mut self, index: usize) -> Result<()> {
        let now_ms = self.now_ms();
        let store = self.stores.get_mut(index).ok_or_else(no_store)?;
        if store.run.is_none() {
            return Ok(());
        }
        store.write_run(now_ms)?;
        store.run = None;
        // What a run has needed is given back: of what is empty, no memory is kept.
        store.buffer.forget();
        store.engine.end_runs()
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
                self.buffer.put(key, value)?;
                self.make_room(key, value.is_some())?;
                continue;
            };
            let parts = retention.keys.decode_logged(key).ok_or_else(|| bad_key(&self.spec, record.offset))?;
            retention.keys.encode(parts, scratch);
            if retention.admit(scratch) {
                self.buffer.put(scratch, value)?;
            }
        }
        Ok(())
    }

    fn write_run(&mut self, now_ms: i64) -> Result<()> {
        let Some(run) = &self.run else { return Ok(()) };
        let Some(to) = run.to else { return Ok(()) };
        // A small rest is no file: it would be merged with all others for a few rows.
        let form = if self.buffer.bytes() < run.place.bytes_max() / 16 { Form::RestoredBatch } else { Form::File };
        self.write_restored(to, now_ms, form)?;
        self.run.iter_mut().for_each(|run| run.to = None);
        Ok(())
    }

    fn write_restored(&mut self, to: ReadTo, now_ms: i64, form: Form) -> Result<()> {
        self.write_as(to, now_ms, form)?;
        // What a standby has read in is not what its task will ask for.
        self.buffer.forget();
        self.known.iter_mut().for_each(KnownRows::forget);
        self.expiry.iter_mut().for_each(Expiry::forget);
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
