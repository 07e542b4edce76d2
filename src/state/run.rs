//! A run of a store that is restored: rows that are collected, and beside them the run before, which is being written.
//!
//! ```text
//!   records ──> rows | full ──> under way: sorted, written to a file, taken over ──> the store's offset moves
//!               rows of the next run                  (on another thread, if there is one)
//! ```
//!
//! One run of a store is under way at a time, so runs are written in their order. What goes wrong with it, who restores hears
//! with the next step, and nobody gets the stores before it has ended.

use std::sync::mpsc::{Receiver, TryRecvError, sync_channel};

use super::as_of::AsOf;
use super::engine::At;
use super::expiry::Expiry;
use super::known_rows::KnownRows;
use super::one_store::{Form, ReadTo, Store};
use super::run_rows::RunRows;
use super::spec::LoggedHeaders;
use super::state_memory::{RunPlace, StateMemory};
use super::work_queue::{Work, WorkQueue};
use super::write_buffer::WriteBuffer;
use crate::error::{Error, ErrorKind, Result};

#[derive(Debug)]
pub(super) struct Run {
    place: RunPlace,
    /// None: they are in the store's buffer, because records are restored by what was there before.
    rows: Option<RunRows>,
    /// How far they go; none: there are none.
    to: Option<ReadTo>,
    under_way: Option<UnderWay>,
    /// None was written yet.
    is_first: bool,
    /// Rows were dropped that were overwritten, and so may others.
    is_squeezed: bool,
}

/// A run that is being written.
#[derive(Debug)]
struct UnderWay {
    outcome: Receiver<Result<()>>,
    to: ReadTo,
    now_ms: i64,
    stream_time: Option<i64>,
    _place: RunPlace,
}

/// Whether everything is written that was held back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HeldBack {
    Written,
    UnderWay,
}

impl Run {
    /// Memory that its rows take.
    #[cfg(all(test, feature = "rocksdb"))]
    pub(super) fn bytes(&self) -> usize {
        self.rows.as_ref().map_or(0, RunRows::bytes)
    }

    /// Drops rows that were overwritten, if it is worth it.
    fn squeeze(&mut self) {
        if let Some(rows) = self.rows.as_mut().filter(|rows| rows.is_mostly_overwritten()) {
            rows.squeeze();
            self.is_squeezed = true;
        }
    }
}

/// Keeps a restored row until it is written.
#[inline]
pub(super) fn hold_back(
    run: &mut Option<Run>,
    buffer: &mut WriteBuffer,
    key: &[u8],
    value: Option<&[u8]>,
) -> Result<()> {
    match run.as_mut().and_then(|run| run.rows.as_mut()) {
        Some(rows) => rows.push(key, value),
        None => buffer.put(key, value),
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        // IMPORTANT: who writes the run has the database, which must be closed when its folder is somebody else's. Where the
        // outcome is known, no other comes, and there is nothing to wait for.
        let _ = self.outcome.recv();
    }
}

impl Store {
    /// Begins to collect rows, if there is room for it.
    pub(super) fn begin_run(&mut self, memory: &StateMemory) {
        let Some(place) = memory.begin_run() else { return };
        // IMPORTANT: whoever looks rows up in the store, to restore a record, must find those that are held back.
        let looks_up = self.history.is_some()
            || self.expiry.is_some()
            || self.last_uses.is_some()
            || self.spec.logs_headers == LoggedHeaders::OfFormat;
        let rows = (!looks_up).then(|| RunRows::with_capacity(place.bytes_max()));
        self.run = Some(Run { place, rows, to: None, under_way: None, is_first: true, is_squeezed: false });
    }

    /// Writes what is collected, if it is much. Up to [`end_run`](Store::end_run) the engine may be behind.
    pub(super) fn step_run(&mut self, to: ReadTo, now_ms: i64, queue: Option<&WorkQueue>) -> Result<()> {
        self.look_after_run()?;
        let Some(run) = &mut self.run else { return Ok(()) };
        run.to = Some(to);
        let bytes_max = run.place.bytes_max();
        let bytes = run.rows.as_ref().map_or(self.buffer.bytes(), RunRows::bytes);
        // Stores that are read side by side would all be full at the same time: their first runs shift them.
        let is_early = run.is_first && !run.is_squeezed && bytes >= bytes_max / 2;
        if bytes < bytes_max && !(is_early && queue.is_some_and(WorkQueue::is_idle)) {
            return Ok(());
        }
        run.squeeze();
        if run.is_squeezed && run.rows.as_ref().is_some_and(|rows| rows.bytes() < bytes_max) {
            return Ok(());
        }
        self.write_run(now_ms, queue)
    }

    /// Writes the rest. It is not waited for where a queue takes it: to be called again.
    pub(super) fn end_run(&mut self, now_ms: i64, queue: Option<&WorkQueue>) -> Result<HeldBack> {
        if let Some(run) = self.run.as_mut().filter(|run| run.to.is_some()) {
            run.squeeze();
            self.write_run(now_ms, queue)?;
        }
        match queue {
            Some(_) => self.look_after_run()?,
            None => self.wait_for_run()?,
        }
        if self.run.as_ref().is_some_and(|run| run.under_way.is_some()) {
            return Ok(HeldBack::UnderWay);
        }
        if self.run.take().is_some() {
            // What a run has needed is given back: of what is empty, no memory is kept.
            self.buffer.forget();
            self.engine.end_runs()?;
        }
        Ok(HeldBack::Written)
    }

    /// Drops what is collected, and waits for what is under way.
    pub(super) fn drop_run(&mut self) {
        if let Err(error) = self.wait_for_run() {
            tracing::debug!("a run of rows was given up, which could not be written: {}", error.report());
        }
        self.run = None;
    }

    fn write_run(&mut self, now_ms: i64, queue: Option<&WorkQueue>) -> Result<()> {
        // They are written in their order.
        self.wait_for_run()?;
        let Some(run) = &mut self.run else { return Ok(()) };
        let Some(to) = run.to.take() else { return Ok(()) };
        // A small rest is no file: it would be merged with all others for a few rows.
        let is_small = |bytes| bytes < run.place.bytes_max() / 16;
        let Some(rows) = &mut run.rows else {
            let form = if is_small(self.buffer.bytes()) { Form::RestoredBatch } else { Form::File };
            return self.write_restored(to, now_ms, form);
        };
        let mut rows = std::mem::replace(rows, RunRows::with_capacity(run.place.bytes_max()));
        if is_small(rows.bytes()) {
            rows.rows().try_for_each(|(_, key, value)| self.buffer.put(key, value))?;
            return self.write_restored(to, now_ms, Form::RestoredBatch);
        }
        run.is_first = false;
        let stream_time = self.retention.as_ref().map(|retention| retention.observed());
        let mut as_of = self.as_of;
        let Some(write) = self.engine.begin_run(at(to, now_ms, stream_time, &mut as_of))? else { return Ok(()) };
        let (say, outcome) = sync_channel(1);
        let work: Work = Box::new(move || {
            rows.sort();
            let written = write(&rows);
            // Nobody hears it where the store has panicked.
            let _ = say.send(written);
        });
        run.under_way = Some(UnderWay { outcome, to, now_ms, stream_time, _place: run.place.another() });
        let refused = match queue {
            Some(queue) => queue.give(work).err(),
            None => Some(work),
        };
        // There is no other thread, or it has enough to do.
        let Some(work) = refused else { return Ok(()) };
        work();
        self.wait_for_run()
    }

    /// Hears of the run that is under way, if it has ended.
    fn look_after_run(&mut self) -> Result<()> {
        let Some(under_way) = self.run.as_ref().and_then(|run| run.under_way.as_ref()) else { return Ok(()) };
        match under_way.outcome.try_recv() {
            Ok(outcome) => self.run_has_ended(outcome),
            Err(TryRecvError::Empty) => Ok(()),
            Err(TryRecvError::Disconnected) => self.run_has_ended(Err(not_written())),
        }
    }

    /// Waits until no run is under way.
    fn wait_for_run(&mut self) -> Result<()> {
        let Some(under_way) = self.run.as_ref().and_then(|run| run.under_way.as_ref()) else { return Ok(()) };
        let outcome = under_way.outcome.recv().unwrap_or_else(|_| Err(not_written()));
        self.run_has_ended(outcome)
    }

    fn run_has_ended(&mut self, outcome: Result<()>) -> Result<()> {
        let Some(under_way) = self.run.as_mut().and_then(|run| run.under_way.take()) else { return Ok(()) };
        outcome?;
        let UnderWay { to, now_ms, stream_time, .. } = &under_way;
        self.engine.has_run(at(*to, *now_ms, *stream_time, &mut self.as_of));
        self.has_written(*stream_time)?;
        self.tell_readers(true);
        self.has_restored();
        Ok(())
    }

    /// Writes what is in the buffer.
    pub(super) fn write_restored(&mut self, to: ReadTo, now_ms: i64, form: Form) -> Result<()> {
        self.write_as(to, now_ms, form)?;
        self.has_restored();
        Ok(())
    }

    fn has_restored(&mut self) {
        // What a standby has read in is not what its task will ask for.
        self.buffer.forget();
        self.known.iter_mut().for_each(KnownRows::forget);
        self.expiry.iter_mut().for_each(Expiry::forget);
    }
}

/// Where a store is with a run.
fn at(to: ReadTo, now_ms: i64, stream_time: Option<i64>, as_of: &mut AsOf) -> At<'static> {
    let as_of_ms = Some(as_of.read_to(to.next_offset, to.end, now_ms));
    At { next_offset: Some(to.next_offset), now_ms, as_of_ms, stream_time, positions: &[] }
}

#[cold]
fn not_written() -> Error {
    Error::new(ErrorKind::Internal, "the thread that was to write restored rows has ended")
}
